//! Operations against a scripted API server, request by request.

mod leave;

use std::time::Duration;

use rootstock_core::assign::{Resolution, ResolvedBundle};
use rootstock_core::bundle::ConfigBlob;
use rootstock_core::digest::Digest;
use rootstock_core::name::Architecture;
use serde_json::{Value, json};

use super::fixture::{SHOOT, World};
use crate::api::{FINALIZER, OPERATION};
use crate::scripted::SILENCE;

const ADD: &str = r#"finalizers ["extensions.gardener.cloud/containerruntime"]"#;
const NONE: &str = "finalizers []";
const CREATE: [&str; 5] =
    ["annotation off", ADD, "Create Processing", "objects", "Create Succeeded"];
const MINUTE: Duration = Duration::from_secs(60);
/// Shorter than any timer of a deletion, but long enough for a second look at objects.
const MOMENT: Duration = Duration::from_millis(300);

async fn created(world: &World, names: &[&str]) {
    for name in names {
        world.deploy(name, "reconcile");
    }
    world.requests().await;
    for name in names {
        assert_eq!(world.get(name)["status"]["lastOperation"]["state"], "Succeeded");
    }
}

/// What the watch and gardenlet see of a resource in the end.
fn assert_healthy(object: &Value, kind: &str) {
    let status = &object["status"];
    assert_eq!(status["lastOperation"]["type"], kind);
    assert_eq!(status["lastOperation"]["state"], "Succeeded");
    assert_eq!(status["lastOperation"]["progress"], 100);
    assert_eq!(status["observedGeneration"], object["metadata"]["generation"]);
    assert_eq!(status["lastError"], Value::Null);
    assert_eq!(object["metadata"]["annotations"][OPERATION], Value::Null);
    assert_eq!(object["metadata"]["annotations"]["gardener.cloud/timestamp"], "t", "left alone");
}

#[tokio::test(start_paused = true)]
async fn create_in_gardeners_order() {
    let world = World::start();
    world.deploy("gvisor-a", "reconcile");
    assert_eq!(world.requests().await, CREATE);
    assert_healthy(&world.get("gvisor-a"), "Create");
    assert_eq!(world.get("gvisor-a")["metadata"]["finalizers"], json!([FINALIZER]));
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_unchanged_reconcile_writes_an_annotation_and_two_states() {
    let world = World::start();
    created(&world, &["gvisor-a"]).await;
    world.deploy("gvisor-a", "reconcile");
    let three = ["annotation off", "Reconcile Processing", "Reconcile Succeeded"];
    assert_eq!(world.requests().await, three);
    assert_healthy(&world.get("gvisor-a"), "Reconcile");
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_changed_spec_waits_for_gardeners_word_or_does_not() {
    let change = json!({"metadata": {"name": "gvisor-a", "generation": 2}, "spec": {"binaryPath": "/var/bin/b"}});
    let world = World::start();
    created(&world, &["gvisor-a"]).await;
    world.put(&change);
    assert!(world.requests().await.is_empty());
    assert_eq!(world.index.summary(&super::fixture::key()).unwrap().conditions.len(), 3);
    world.stop().await;

    let world = World::with(true);
    created(&world, &["gvisor-a"]).await;
    world.put(&change);
    assert_eq!(world.requests().await, ["Reconcile Processing", "Reconcile Succeeded"]);
    assert_healthy(&world.get("gvisor-a"), "Reconcile");
    // The Cluster's spec is a trigger there, too; what is not new in it is not.
    world.put_cluster(json!({"spec": {"kubernetes": {"version": "1.34.0"}}}));
    assert_eq!(world.requests().await, ["Reconcile Processing", "Reconcile Succeeded"]);
    world.put_cluster(json!({"spec": {"kubernetes": {"version": "1.34.0"}}}));
    assert!(world.requests().await.is_empty());
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn without_a_cluster_or_after_a_failure_nothing_is_written_and_nothing_lost() {
    let world = World::start();
    world.remove_cluster();
    world.deploy("gvisor-a", "reconcile");
    assert!(world.requests().await.is_empty());
    world.put_cluster(json!({"status": {"lastOperation": {"state": "Failed"}}}));
    assert!(world.requests().await.is_empty());
    world.put_cluster(json!({"status": {"lastOperation": {"state": "Processing"}}}));
    assert_eq!(world.requests().await, CREATE);
    // Another change of the Cluster is none of the resource's.
    world.put_cluster(json!({"status": {"lastOperation": {"state": "Succeeded"}}}));
    assert!(world.requests().await.is_empty());
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_run_that_had_the_cluster_is_not_done_again_for_it() {
    // Which of the two is noticed first is left to chance.
    for _ in 0..20 {
        let world = World::start();
        world.remove_cluster();
        assert!(world.requests().await.is_empty());
        world.deploy("gvisor-a", "reconcile");
        world.put_cluster(json!({}));
        assert_eq!(world.requests().await, CREATE);
        world.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_passes_is_never_seen() {
    let world = World::start();
    // In place.
    world.refuse("Create Processing", 409, 1);
    world.refuse("Create Succeeded", 503, 2);
    world.refuse("finalizers", 429, 1);
    world.deploy("gvisor-a", "reconcile");
    let requests = world.requests().await;
    let twice = [
        "annotation off",
        ADD,
        ADD,
        "Create Processing",
        "Create Processing",
        "objects",
        "Create Succeeded",
        "Create Succeeded",
        "Create Succeeded",
    ];
    assert_eq!(requests, twice);
    assert_healthy(&world.get("gvisor-a"), "Create");

    // For longer: the worker is free meanwhile, and nothing is forgotten.
    world.refuse("Reconcile Processing", 500, 40);
    world.deploy("gvisor-a", "reconcile");
    let requests = world.requests_within(MINUTE).await;
    assert_eq!(requests.first().unwrap(), "annotation off");
    assert_eq!(requests.last().unwrap(), "Reconcile Succeeded");
    assert!(!requests.iter().any(|request| request.contains("Error")), "{requests:?}");
    assert_healthy(&world.get("gvisor-a"), "Reconcile");
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_request_that_hangs_is_given_up_and_never_seen() {
    let world = World::start();
    let hanging = ["annotation off", "finalizers", "Processing", "objects", "Succeeded"];
    for of in hanging {
        world.refuse(of, SILENCE, 1);
    }
    world.deploy("gvisor-a", "reconcile");
    let requests = world.requests_within(3 * MINUTE).await;
    assert!(!requests.iter().any(|request| request.contains("Error")), "{requests:?}");
    assert_healthy(&world.get("gvisor-a"), "Create");
    // And others go on meanwhile.
    world.refuse("kata-a: Reconcile", SILENCE, 1);
    created(&world, &["kata-a"]).await;
    world.deploy("kata-a", "reconcile");
    world.deploy("gvisor-a", "reconcile");
    world.requests_within(MOMENT).await;
    assert_healthy(&world.get("gvisor-a"), "Reconcile");
    world.stop().await;
}

/// gvisor's bundle is found, and has one setting.
fn resolve(world: &World) {
    let config = json!({
        "type": "gvisor", "version": "1",
        "files": [{"path": "runsc", "mode": "0755", "size": 0, "sha256": Digest::of(b"").hex(),
                   "blob": Digest::of(b"").to_string(), "blobSize": 0}],
        "entryPoints": ["runsc"],
        "handlers": [{"name": "runsc", "runtimeType": "io.containerd.runsc.v1", "shim": "runsc",
                      "config": "runsc.toml"}],
        "configs": [{"name": "runsc.toml", "format": "toml", "template": {"runsc_config": {}}}],
        "settings": [{"name": "net-raw", "kind": "bool", "config": "runsc.toml",
                      "key": "runsc_config.net-raw", "as": "string"}],
    });
    let bundle = ResolvedBundle {
        digest: Digest::of(b"gvisor"),
        registry: "main".into(),
        repository: "gvisor".into(),
        config: ConfigBlob::parse(config.to_string().as_bytes()).unwrap(),
    };
    let resolved = Resolution::Resolved([(Architecture::Amd64, Ok(bundle))].into());
    let bundles = [("gvisor".parse().unwrap(), resolved)].into();
    world.index.put_bundles(Default::default(), bundles, Default::default());
}

#[tokio::test(start_paused = true)]
async fn settings_that_the_bundle_refuses_later_are_an_error_of_the_next_reconcile() {
    let world = World::start();
    let set = |value: Value| {
        let config = json!({"apiVersion": "rootstock.gardener.cloud/v1alpha1",
            "kind": "RuntimeConfiguration", "settings": {"net-raw": value}});
        json!({"metadata": {"name": "gvisor-a"}, "spec": {"providerConfig": config}})
    };
    world.deploy("gvisor-a", "wait-for-state");
    world.put(&set(json!("maybe")));
    world.deploy("gvisor-a", "reconcile");
    assert_eq!(world.requests().await, CREATE, "while nobody knows what the bundle takes");
    // That is what a condition says; the operation stays what it was.
    resolve(&world);
    assert!(world.requests().await.is_empty());
    let problem = world.index.problem(&serde_json::from_value(world.get("gvisor-a")).unwrap());
    assert!(problem.unwrap().message.contains("net-raw"));
    world.deploy("gvisor-a", "reconcile");
    let bad = ["annotation off", "Reconcile Processing", "Reconcile Error"];
    assert_eq!(world.requests_within(5 * MINUTE).await, bad);
    let error = world.get("gvisor-a")["status"]["lastError"].clone();
    assert_eq!(error["codes"], json!(["ERR_CONFIGURATION_PROBLEM"]));
    let text = error["description"].as_str().unwrap();
    assert!(["net-raw", "maybe", "true"].iter().all(|word| text.contains(word)), "{text}");
    // Mended, and asked for: at once.
    world.put(&json!({"metadata": {"name": "gvisor-a", "generation": 2, "annotations": {OPERATION: "reconcile"}},
        "spec": set(json!(true))["spec"]}));
    let good = ["annotation off", "Reconcile Processing", "Reconcile Succeeded"];
    assert_eq!(world.requests_within(MOMENT).await, good);
    assert_healthy(&world.get("gvisor-a"), "Reconcile");
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_finalizer_of_somebody_else_stays() {
    let world = World::start();
    world.refuse("finalizers", 409, 1);
    let metadata = json!({"name": "gvisor-a", "finalizers": ["other"]});
    world.put(&json!({"metadata": metadata}));
    world.deploy("gvisor-a", "reconcile");
    world.requests().await;
    let object = world.get("gvisor-a");
    assert_eq!(object["metadata"]["finalizers"], json!(["other", FINALIZER]));
    world.delete("gvisor-a");
    world.requests_within(3 * MINUTE).await;
    assert_eq!(world.get("gvisor-a")["metadata"]["finalizers"], json!(["other"]));
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_refusal_that_stays_is_seen_at_once() {
    let world = World::start();
    world.refuse("objects", 403, 1);
    world.deploy("gvisor-a", "reconcile");
    let requests = world.requests().await;
    assert_eq!(requests[..4], ["annotation off", ADD, "Create Processing", "objects"]);
    assert_eq!(requests[4], "Create Error");
    // It is tried again, and then the error is gone.
    assert_eq!(requests.last().unwrap(), "Create Succeeded");
    assert_healthy(&world.get("gvisor-a"), "Create");
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_bad_configuration_is_said_once_and_mended_at_once() {
    let world = World::start();
    let bad = json!({"metadata": {"name": "gvisor-a"}, "spec": {"workerPool": {
        "selector": {"matchExpressions": [{"key": "a", "operator": "Near"}]}}}});
    world.deploy("gvisor-a", "wait-for-state");
    world.put(&bad);
    assert!(world.requests().await.is_empty());
    world.deploy("gvisor-a", "reconcile");
    world.put(&bad);
    let requests = world.requests_within(10 * MINUTE).await;
    assert_eq!(requests, ["annotation off", ADD, "Create Processing", "Create Error"]);
    let status = world.get("gvisor-a")["status"].clone();
    assert_eq!(status["lastError"]["codes"], json!(["ERR_CONFIGURATION_PROBLEM"]));
    let text = status["lastError"]["description"].as_str().unwrap().to_owned();
    assert!(
        text.starts_with("Error reconciling ContainerRuntime: spec.workerPool.selector"),
        "{text}"
    );
    assert_eq!(status["lastOperation"]["description"], text);
    assert_eq!(status["observedGeneration"], 1);
    // The pauses are minutes by now; another spec does not wait for them.
    let good = json!({"metadata": {"name": "gvisor-a", "generation": 2},
        "spec": {"workerPool": {"selector": {"matchExpressions": null}}}});
    world.put(&good);
    let requests = world.requests().await;
    assert_eq!(requests, ["Create Processing", "objects", "Create Succeeded"]);
    world.stop().await;
}

/// Nobody has to ask: the shoot's phase is enough.
#[tokio::test(start_paused = true)]
async fn authorities_follow_the_shoots_phase() {
    let world = World::start();
    world.deploy("gvisor-a", "reconcile");
    world.requests().await;
    world.show_authorities();
    world.requests().await;
    assert_eq!(world.secrets(), ["ca-rootstock", "shoot-access-rootstock"]);
    let phase = |phase: &str| {
        let rotation = json!({"phase": phase, "lastInitiationTime": "2026-01-01T00:00:00Z"});
        let rotation = json!({"rotation": {"certificateAuthorities": rotation}});
        world.put_cluster(json!({"status": {"credentials": rotation}}));
    };
    phase("Preparing");
    world.requests().await;
    let [old, new, _] = <[String; 3]>::try_from(world.secrets()).unwrap();
    assert_eq!(old, "ca-rootstock");
    world.show_authorities();
    phase("Completing");
    // It fails at first, and nobody asks again.
    world.refuse("objects", 503, 1);
    world.requests_within(Duration::from_secs(60)).await;
    assert_eq!(world.secrets(), [new.as_str(), "shoot-access-rootstock"]);
    // Somebody deletes the last one: another is made, for the same rotation.
    world.delete_secret(&new);
    world.show_authorities();
    world.requests().await;
    assert_eq!(world.secrets(), [new.as_str(), "shoot-access-rootstock"]);
    world.stop().await;
}
