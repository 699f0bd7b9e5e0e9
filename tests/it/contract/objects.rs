//! ManagedResources and their Secrets, as Gardener's resource manager wants them.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::Secret;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::operations::{all_settled, condition, settled};
use super::route::ROUTE;
use super::support::gardenlet::until;
use super::support::record::Kind;
use super::support::shoot::{Shoot, pools};
use super::support::suite::Suite;

pub(super) const AGENT: &str = "extension-rootstock-agent";
pub(super) const GVISOR: &str = "extension-runtime-gvisor";
pub(super) const KATA: &str = "extension-runtime-kata";

/// Two pools with two types: four resources that race for the same objects.
pub(super) async fn four_at_once(suite: &Suite) {
    let both = &["gvisor", "kata"][..];
    let controller = suite.controller().await;
    let shoot = Shoot::new(suite, &controller, "four", pools(&[("a", both), ("b", both)])).await;
    shoot.reconcile().await;
    assert_eq!(shoot.managed_resources().await, [AGENT, GVISOR, KATA]);
    for object in shoot.all(Kind::ManagedResource).await {
        well_formed(&shoot, &object).await;
    }
    let class = &shoot.brings(GVISOR).await[0];
    assert_eq!((&class["kind"], &class["handler"]), (&json!("RuntimeClass"), &json!("runsc")));
    assert_eq!(class["metadata"]["name"], "gvisor");
    let agent = shoot.brings(AGENT).await;
    let of_kind = |kind: &str| agent.iter().filter(|object| object["kind"] == kind).count();
    assert_eq!(of_kind("DaemonSet"), 1);
    assert_eq!(of_kind("ConfigMap"), 1);
    assert!(of_kind("ClusterRole") >= 1 && of_kind("ServiceAccount") >= 1);
    // Whoever came second has found it done: nothing was written, taken away or written over.
    let states = shoot.since(0, Kind::ManagedResource);
    assert_eq!(states.len(), 3, "{states:#?}");
    shoot.never_failed().await;
}

/// The shape that is described for extensions' ManagedResources.
async fn well_formed(shoot: &Shoot<'_>, object: &Value) {
    let (metadata, spec) = (&object["metadata"], &object["spec"]);
    let name = metadata["name"].as_str().unwrap();
    assert!(metadata["labels"]["origin"].is_string(), "{object:#}");
    assert!(spec["class"].is_null(), "{object:#}");
    assert_eq!(spec["keepObjects"], false, "{object:#}");
    assert_eq!(spec["injectLabels"], json!({"shoot.gardener.cloud/no-cleanup": "true"}));
    let references = spec["secretRefs"].as_array().unwrap();
    assert_eq!(references.len(), 1, "{object:#}");
    let secret_name = references[0]["name"].as_str().unwrap();
    // The resource manager keeps what is named like this, and collects the rest.
    let digest = Sha256::digest(secret_name.as_bytes());
    let short: String = digest[..4].iter().map(|byte| format!("{byte:02x}")).collect();
    let reference = format!("reference.resources.gardener.cloud/secret-{short}");
    assert_eq!(metadata["annotations"][reference.as_str()], secret_name, "{object:#}");

    let secret = shoot.suite.access.within::<Secret>(&shoot.name).get(secret_name).await.unwrap();
    let hash = secret_name.strip_prefix(&format!("managedresource-{name}-")).expect(secret_name);
    assert!(hash.len() == 8 && hash.bytes().all(|b| b.is_ascii_hexdigit()), "{secret_name}");
    assert_eq!(secret.immutable, Some(true));
    assert_eq!(secret.type_.as_deref(), Some("Opaque"));
    let labels = secret.metadata.labels.unwrap_or_default();
    assert_eq!(labels["resources.gardener.cloud/garbage-collectable-reference"], "true");
    // The Secret was there first.
    let revision = |text: &str| text.parse::<u64>().unwrap();
    let of_secret = revision(&secret.metadata.resource_version.unwrap());
    assert!(of_secret < revision(metadata["resourceVersion"].as_str().unwrap()));
}

pub(super) async fn nothing_is_written_twice(suite: &Suite) {
    let both = &["gvisor", "kata"][..];
    let controller = suite.controller().await;
    let shoot = Shoot::new(suite, &controller, "again", pools(&[("a", both), ("b", both)])).await;
    // Without it that is said some time later, which is news.
    let shoot = shoot.with_api();
    shoot.reconcile().await;
    all_settled(&shoot, &["gvisor-a", "gvisor-b", "kata-a", "kata-b"]).await;
    let place = suite.record.here();
    for _ in 0..3 {
        shoot.reconcile().await;
    }
    shoot.recorded().await;
    let others = [Kind::Secret, Kind::ManagedResource, Kind::Event];
    for kind in others.into_iter().chain(ROUTE) {
        let writes = shoot.since(place, kind);
        assert!(writes.is_empty(), "{kind:?}: {writes:#?}");
    }
    // Conditions and providerStatus say what they said.
    let of = |object: &Value| {
        (object["status"]["conditions"].clone(), object["status"]["providerStatus"].clone())
    };
    let states = shoot.since(place, Kind::ContainerRuntime);
    for name in ["gvisor-a", "gvisor-b", "kata-a", "kata-b"] {
        let all: BTreeSet<_> = states
            .iter()
            .filter(|entry| entry.name() == name)
            .map(|entry| format!("{:?}", of(&entry.object)))
            .collect();
        assert_eq!(all.len(), 1, "{name}: {all:#?}");
    }
}

/// A slip in the configuration takes no RuntimeClass away.
pub(super) async fn catalog_loses_a_type(suite: &Suite) {
    let path = suite.work("loses").join("catalog.yaml");
    let mut catalog = suite.catalog();
    let write = |catalog: &Value| {
        let new = path.with_extension("new");
        std::fs::write(&new, catalog.to_string()).unwrap();
        std::fs::rename(&new, &path).unwrap();
    };
    write(&catalog);
    let flags = ["--deletion-timeout", "2s"];
    let controller = suite.configured_controller("loses", &path, &flags).await;
    let mut shoot =
        Shoot::new(suite, &controller, "loses", pools(&[("a", &["gvisor", "kata"])])).await;
    shoot.reconcile().await;
    settled(&shoot, "kata-a").await;
    let before = shoot.all(Kind::ManagedResource).await;
    catalog["runtimes"].as_array_mut().unwrap().retain(|entry| entry["type"] != "kata");
    write(&catalog);
    shoot
        .until("kata-a", "its type is missed", |object| {
            condition(object, "BundleResolved").is_some_and(|c| c["status"] == "False")
        })
        .await;
    // And the shoot's other pools are reconciled on.
    shoot.gardenlet.workers = pools(&[("a", &["gvisor"]), ("b", &["gvisor"])]);
    shoot.reconcile().await;
    let after = shoot.all(Kind::ManagedResource).await;
    let kata = |all: &[Value]| {
        let found = all.iter().find(|object| object["metadata"]["name"] == KATA);
        found.expect("the RuntimeClass is gone").clone()
    };
    assert_eq!(kata(&before)["spec"], kata(&after)["spec"]);
    assert_eq!(shoot.brings(KATA).await[0]["metadata"]["name"], "kata");
    // A ContainerRuntime that is no longer wanted can go all the same.
    shoot.clean_up_stale().await.unwrap();
    let gone =
        until(async || (!shoot.managed_resources().await.contains(&KATA.to_owned())).then_some(()));
    gone.await.expect("the RuntimeClass goes with the last who asked for it");
}
