//! Which requests a put makes.

use std::sync::Arc;

use jiff::Timestamp;
use rootstock_core::catalog::Catalog;
use rootstock_core::path::BinaryRoots;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::Instant;

use super::seed::{NAMESPACE, Seed};
use crate::api::{Cluster, ClusterSpec};
use crate::identity::rotation::{Names, Rotation};
use crate::objects::proxy::Proxy;
use crate::objects::{AgentSettings, Objects, ObjectsError, Place, Recent};
use crate::shoot::secrets::authority::{self, Wish};

pub(super) const CLASSES: &str = "managedresources/extension-runtime-gvisor";
pub(super) const AGENT: &str = "managedresources/extension-rootstock-agent";
pub(super) const CA: &str = "secrets/ca-rootstock";
pub(super) const ACCESS: &str = "secrets/shoot-access-rootstock";

pub(super) fn catalog(classes: &Value) -> Arc<Catalog> {
    let runtimes =
        json!([{"type": "gvisor", "bundle": "main/gvisor:1", "runtimeClasses": classes}]);
    let catalog =
        json!({"registries": [{"name": "main", "url": "http://r"}], "runtimes": runtimes});
    Arc::new(serde_json::from_value(catalog).unwrap())
}

fn gvisor() -> Value {
    json!([{"name": "gvisor", "handler": "runsc"}])
}

/// Objects over a seed, with the catalog to change.
pub(super) fn objects(seed: &Seed) -> (Objects, watch::Sender<Arc<Catalog>>) {
    let (sender, receiver) = watch::channel(catalog(&gvisor()));
    let agent = AgentSettings {
        image: "agent:1".to_owned(),
        roots: BinaryRoots::default(),
        domain: Some("ingress.example".to_owned()),
        port: 443,
        proxy: Proxy::default(),
    };
    let (client, recent) = (seed.client(), Recent::default());
    let place = Place::Managed;
    (Objects { client, catalog: receiver, agent, place, ingress: None, recent }, sender)
}

pub(super) async fn put(objects: &Objects) -> Result<(), ObjectsError> {
    put_with(objects, &Cluster::new(NAMESPACE, ClusterSpec::default())).await
}

pub(super) async fn put_with(objects: &Objects, cluster: &Cluster) -> Result<(), ObjectsError> {
    let (shoot, runtime) = (NAMESPACE.parse().unwrap(), "gvisor".parse().unwrap());
    objects.put(&shoot, cluster, &runtime, Instant::now()).await.map(drop)
}

/// The Secret that a ManagedResource names.
pub(super) fn secret_of(seed: &Seed, resource: &str) -> String {
    let resource = seed.object(resource).unwrap();
    let refs = resource["spec"]["secretRefs"].as_array().unwrap();
    assert_eq!(refs.len(), 1);
    format!("secrets/{}", refs[0]["name"].as_str().unwrap())
}

pub(super) fn objects_in(seed: &Seed, secret: &str) -> Vec<Value> {
    let secret = serde_json::from_value(seed.object(secret).unwrap()).unwrap();
    crate::objects::package::objects_of(&secret).unwrap()
}

fn named(seed: &Seed) -> Vec<String> {
    let objects = objects_in(seed, &secret_of(seed, CLASSES));
    objects.iter().map(|o| o["metadata"]["name"].as_str().unwrap().to_owned()).collect()
}

/// A seed in which everything was put once.
pub(super) async fn settled() -> (Seed, Objects, watch::Sender<Arc<Catalog>>) {
    let seed = Seed::default();
    let (objects, catalog) = objects(&seed);
    put(&objects).await.unwrap();
    seed.asked();
    (seed, objects, catalog)
}

/// The one Secret with a bundle.
pub(super) fn bundle(seed: &Seed) -> String {
    let mut found = String::new();
    seed.change(|state| {
        let paths =
            state.objects.keys().filter(|path| path.starts_with("secrets/ca-rootstock-bundle-"));
        let paths: Vec<_> = paths.cloned().collect();
        assert_eq!(paths.len(), 1, "{paths:?}");
        found.clone_from(&paths[0]);
    });
    found
}

fn requests(lines: &[&[&str]]) -> Vec<String> {
    in_order(lines.iter().map(|words| words.concat()).collect())
}

/// The requests about the agent and those about classes, each in their order:
/// they are made side by side.
fn in_order(requests: Vec<String>) -> Vec<String> {
    let is_classes = |request: &String| request.contains("extension-runtime-");
    let (classes, mut all): (Vec<_>, Vec<_>) = requests.into_iter().partition(is_classes);
    all.extend(classes);
    all
}

#[tokio::test]
async fn the_first_put_makes_secrets_before_what_names_them() {
    let seed = Seed::default();
    let (objects, _catalog) = objects(&seed);
    put(&objects).await.unwrap();
    let (classes, agent) = (secret_of(&seed, CLASSES), secret_of(&seed, AGENT));
    let want = requests(&[
        &["GET secrets"],
        &["GET ", CA],
        &["POST ", CA],
        &["POST ", &bundle(&seed)],
        &["GET ", ACCESS],
        &["POST ", ACCESS],
        &["GET ", CLASSES],
        &["POST ", &classes],
        &["POST ", CLASSES],
        &["GET ", AGENT],
        &["POST ", &agent],
        &["POST ", AGENT],
    ]);
    assert_eq!(in_order(seed.asked()), want);
    assert_eq!(named(&seed), ["gvisor"]);
    let kinds: Vec<_> =
        objects_in(&seed, &agent).iter().map(|object| object["kind"].clone()).collect();
    let want = ["ServiceAccount", "ConfigMap", "ClusterRole", "ClusterRoleBinding", "DaemonSet"];
    assert_eq!(kinds, want);
    let config = &objects_in(&seed, &agent)[1];
    assert_eq!(config["data"]["endpoint"], "https://rs-garden--one.ingress.example");
    assert!(config["data"]["ca.crt"].as_str().unwrap().starts_with("-----BEGIN CERTIFICATE"));
}

#[tokio::test]
async fn an_unchanged_put_only_reads() {
    let (seed, objects, _catalog) = settled().await;
    put(&objects).await.unwrap();
    let (classes, agent) = (secret_of(&seed, CLASSES), secret_of(&seed, AGENT));
    let paths = ["secrets", ACCESS, AGENT, &agent, CLASSES, &classes];
    assert_eq!(in_order(seed.asked()), paths.map(|path| format!("GET {path}")));
}

#[tokio::test]
async fn a_changed_put_writes_the_new_secret_and_leaves_the_old_one() {
    let (seed, objects, catalog_changes) = settled().await;
    let old = secret_of(&seed, CLASSES);
    seed.change(|state| {
        let theirs = json!({"metadata": {
            "labels": {"theirs": "1"}, "annotations": {"theirs": "2"}, "finalizers": ["grm"],
        }, "spec": {"forceOverwriteLabels": true}});
        state.edit(CLASSES, &theirs);
    });
    let more =
        json!([{"name": "gvisor", "handler": "runsc"}, {"name": "gvisor-kvm", "handler": "kvm"}]);
    catalog_changes.send_replace(catalog(&more));
    put(&objects).await.unwrap();
    let new = secret_of(&seed, CLASSES);
    assert_ne!(old, new);
    let agent = secret_of(&seed, AGENT);
    let want = requests(&[
        &["GET secrets"],
        &["GET ", ACCESS],
        &["GET ", CLASSES],
        &["GET ", &old],
        &["POST ", &new],
        &["PATCH ", CLASSES],
        &["GET ", AGENT],
        &["GET ", &agent],
    ]);
    assert_eq!(in_order(seed.asked()), want);
    assert!(seed.object(&old).is_some(), "the resource manager collects it");
    let resource = seed.object(CLASSES).unwrap();
    assert_eq!(
        resource["metadata"]["labels"],
        json!({"origin": "extension-runtime-gvisor", "theirs": "1"})
    );
    // One reference, to the Secret that it names.
    let annotations = resource["metadata"]["annotations"].as_object().unwrap();
    let references: Vec<_> =
        annotations.iter().filter(|(key, _)| key.starts_with("reference.")).collect();
    assert_eq!(references.len(), 1, "{annotations:?}");
    assert_eq!(references[0].1, new.strip_prefix("secrets/").unwrap());
    assert_eq!(annotations["theirs"], "2");
    assert_eq!(resource["metadata"]["finalizers"], json!(["grm"]));
    assert_eq!(resource["spec"]["forceOverwriteLabels"], true);
}

#[tokio::test]
async fn a_class_that_left_the_catalog_stays_in_the_shoot() {
    let (seed, objects, catalog_changes) = settled().await;
    catalog_changes.send_replace(catalog(&json!([{"name": "other", "handler": "runsc"}])));
    put(&objects).await.unwrap();
    assert_eq!(named(&seed), ["gvisor", "other"]);
    // Also where the whole type has left.
    catalog_changes.send_replace(Arc::default());
    put(&objects).await.unwrap();
    assert_eq!(named(&seed), ["gvisor", "other"]);
}

#[tokio::test]
async fn the_classes_of_another_extension_stay_when_its_resource_becomes_ours() {
    let seed = Seed::default();
    let chart = "---\napiVersion: node.k8s.io/v1\nkind: RuntimeClass\nmetadata: {name: gvisor}\nhandler: runsc\n\
                 ---\napiVersion: v1\nkind: ServiceAccount\nmetadata: {name: gvisor, namespace: kube-system}\n";
    let data = json!(k8s_openapi::ByteString(chart.as_bytes().to_vec()));
    seed.change(|state| {
        state.put("secrets/managedresource-extension-runtime-gvisor-1", json!({
            "apiVersion": "v1", "kind": "Secret", "immutable": true, "data": {"config.yaml": data},
            "metadata": {"name": "managedresource-extension-runtime-gvisor-1"},
        }));
        state.put(
            CLASSES,
            json!({
                "apiVersion": "resources.gardener.cloud/v1alpha1", "kind": "ManagedResource",
                "metadata": {"name": "extension-runtime-gvisor"},
                "spec": {"secretRefs": [{"name": "managedresource-extension-runtime-gvisor-1"}]},
            }),
        );
    });
    let (objects, catalog_changes) = objects(&seed);
    catalog_changes.send_replace(Arc::default());
    put(&objects).await.unwrap();
    assert_eq!(named(&seed), ["gvisor"]);
    let [class] = <[Value; 1]>::try_from(objects_in(&seed, &secret_of(&seed, CLASSES))).unwrap();
    assert_eq!(class["handler"], "runsc");
}

#[tokio::test]
async fn another_pool_that_is_first_is_no_error() {
    let (first, _, _catalog) = settled().await;
    let seed = Seed::default();
    let (objects, _catalog) = objects(&seed);
    // Between our look and our write the other pool makes each of them.
    for path in [CA, ACCESS, &secret_of(&first, CLASSES), CLASSES] {
        let (path, theirs) = (path.to_owned(), first.object(path).unwrap());
        seed.before(&format!("POST {path}"), move |state| state.put(&path, theirs));
    }
    put(&objects).await.unwrap();
    let (classes, agent) = (secret_of(&seed, CLASSES), secret_of(&seed, AGENT));
    let want = requests(&[
        &["GET secrets"],
        &["GET ", CA],
        &["POST ", CA],
        &["GET ", CA],
        &["POST ", &bundle(&seed)],
        &["GET ", ACCESS],
        &["POST ", ACCESS],
        &["GET ", CLASSES],
        &["POST ", &classes],
        &["GET ", &classes],
        &["POST ", CLASSES],
        &["GET ", CLASSES],
        &["GET ", &classes],
        &["GET ", AGENT],
        &["POST ", &agent],
        &["POST ", AGENT],
    ]);
    assert_eq!(in_order(seed.asked()), want);
    // Both speak of the same authority.
    assert_eq!(seed.object(CA).unwrap()["data"], first.object(CA).unwrap()["data"]);
    assert_eq!(agent, secret_of(&first, AGENT));
}

#[tokio::test]
async fn a_conflict_is_tried_again_over_what_is_there_then() {
    let (seed, objects, catalog_changes) = settled().await;
    let more = json!([{"name": "more", "handler": "more"}]);
    catalog_changes.send_replace(catalog(&more));
    seed.before(&format!("PATCH {CLASSES}"), |state| {
        state.edit(CLASSES, &json!({"metadata": {"labels": {"theirs": "1"}}}));
    });
    put(&objects).await.unwrap();
    let asked = seed.asked();
    let patches = asked.iter().filter(|request| request.starts_with("PATCH")).count();
    assert_eq!(patches, 2, "{asked:?}");
    assert_eq!(seed.object(CLASSES).unwrap()["metadata"]["labels"]["theirs"], "1");
    assert_eq!(named(&seed), ["gvisor", "more"]);
}

#[tokio::test]
async fn conflicts_without_end_are_given_back_as_passing() {
    let (seed, objects, catalog_changes) = settled().await;
    catalog_changes.send_replace(catalog(&json!([{"name": "more", "handler": "more"}])));
    for _ in 0..5 {
        seed.before(&format!("PATCH {CLASSES}"), |state| {
            state.edit(CLASSES, &json!({"metadata": {"labels": {"theirs": "1"}}}));
        });
    }
    let error = put(&objects).await.unwrap_err();
    assert!(error.is_transient(), "{error:?}");
    put(&objects).await.unwrap();
}

#[tokio::test]
async fn what_is_being_deleted_has_to_be_gone_first() {
    for path in [CA, ACCESS, CLASSES] {
        let (seed, objects, _catalog) = settled().await;
        seed.change(|state| {
            let leaving = json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}});
            state.edit(path, &leaving);
        });
        let error = put(&objects).await.unwrap_err();
        assert!(error.is_transient(), "{path}: {error:?}");
        let asked = seed.asked();
        assert!(asked.iter().all(|request| request.starts_with("GET")), "{asked:?}");
    }
}

#[tokio::test]
async fn a_secret_that_lost_its_label_gets_it_back() {
    let (seed, objects, _catalog) = settled().await;
    let secret = secret_of(&seed, AGENT);
    seed.change(|state| state.edit(&secret, &json!({"metadata": {"labels": null}})));
    put(&objects).await.unwrap();
    let asked = seed.asked();
    assert_eq!(asked.last().unwrap(), &format!("PATCH {secret}"));
    let labels = seed.object(&secret).unwrap()["metadata"]["labels"].clone();
    assert_eq!(labels, json!({"resources.gardener.cloud/garbage-collectable-reference": "true"}));
}

#[tokio::test]
async fn a_secret_that_is_gone_is_made_again() {
    let (seed, objects, _catalog) = settled().await;
    let secret = secret_of(&seed, AGENT);
    seed.change(|state| {
        state.objects.remove(&secret);
    });
    put(&objects).await.unwrap();
    assert_eq!(seed.asked().last().unwrap(), &format!("POST {secret}"));
}

#[tokio::test]
async fn what_cant_be_told_apart_is_not_written_over() {
    let (seed, objects, _catalog) = settled().await;
    let secret = secret_of(&seed, CLASSES);
    seed.change(|state| {
        state.edit(&secret, &json!({"data": {"config.yaml": null, "x.br": "AAAA"}}))
    });
    let error = put(&objects).await.unwrap_err();
    assert!(!error.is_transient());
    let text = rootstock_daemon::error::Chain(&error).to_string();
    assert!(text.contains("x.br"), "{text}");
    assert!(seed.asked().iter().all(|request| request.starts_with("GET")));
}

#[tokio::test]
async fn an_authority_is_one_of_gardeners_secrets_manager() {
    let (seed, ..) = settled().await;
    let secret = seed.object(CA).unwrap();
    assert_eq!(secret["immutable"], true);
    let mut labels = secret["metadata"]["labels"].as_object().unwrap().clone();
    let mut number =
        |key: &str| labels.remove(key).unwrap().as_str().unwrap().parse::<u64>().unwrap();
    let (issued, until) = (number("issued-at-time"), number("valid-until-time"));
    let ten_years = 10 * 365 * 24 * 3600;
    assert!((ten_years..ten_years + 600).contains(&(until - issued)), "{issued} {until}");
    number("checksum-of-config");
    let want = json!({
        "name": "ca-rootstock", "managed-by": "secrets-manager", "manager-identity": "rootstock",
        "persist": "true", "last-rotation-initiation-time": "",
    });
    assert_eq!(Value::Object(labels), want);
}

#[tokio::test]
async fn an_authority_without_labels_gets_them_and_keeps_its_key() {
    let (seed, objects, _catalog) = settled().await;
    let before = seed.object(CA).unwrap();
    seed.change(|state| state.edit(CA, &json!({"metadata": {"labels": null}})));
    put(&objects).await.unwrap();
    let asked = in_order(seed.asked());
    let want = ["GET secrets".to_owned(), format!("GET {CA}"), format!("PATCH {CA}")];
    assert_eq!(asked[..3], want);
    let after = seed.object(CA).unwrap();
    assert_eq!(after["metadata"]["labels"], before["metadata"]["labels"]);
    assert_eq!(after["data"], before["data"]);
}

#[tokio::test]
async fn a_restored_authority_is_used_as_it_is() {
    let (first, ..) = settled().await;
    let (seed, shoot) = (Seed::default(), NAMESPACE.parse().unwrap());
    // As gardenlet makes it from the ShootState; another version's checksum is its own.
    let mut restored = first.object(CA).unwrap();
    restored["metadata"]["labels"]["checksum-of-config"] = json!("1");
    seed.change(|state| state.put(CA, restored));
    let wish = Wish { rotation: Rotation::default(), names: Names::Hashed };
    authority::keep(&seed.client(), &shoot, wish, Timestamp::now()).await.unwrap();
    assert_eq!(seed.asked(), ["GET secrets".to_owned(), format!("POST {}", bundle(&seed))]);
}

#[tokio::test]
async fn an_access_secret_of_an_older_version_is_mended_and_keeps_its_token() {
    let (seed, objects, _catalog) = settled().await;
    let renew = "serviceaccount.resources.gardener.cloud/token-renew-timestamp";
    seed.change(|state| {
        let older = json!({
            "metadata": {
                "labels": {"rootstock.gardener.cloud/shoot-access": null},
                "annotations": {renew: "2026-01-01T00:00:00Z"},
            },
            "data": {"token": "dDBrZW4="},
        });
        state.edit(ACCESS, &older);
    });
    put(&objects).await.unwrap();
    let secret = seed.object(ACCESS).unwrap();
    assert_eq!(secret["metadata"]["labels"]["rootstock.gardener.cloud/shoot-access"], "true");
    assert_eq!(secret["metadata"]["annotations"][renew], "2026-01-01T00:00:00Z");
    assert_eq!(secret["data"]["token"], "dDBrZW4=");
    seed.asked();
    put(&objects).await.unwrap();
    assert!(seed.asked().iter().all(|request| request.starts_with("GET")));
}

#[tokio::test]
async fn a_seed_without_a_domain_has_its_objects_all_the_same() {
    let seed = Seed::default();
    let (mut objects, _catalog) = objects(&seed);
    objects.agent.domain = None;
    put(&objects).await.unwrap();
    assert!(seed.object(AGENT).is_some());
}
