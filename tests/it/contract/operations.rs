//! Create and Reconcile, and when neither is due.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde_json::{Value, json};

use super::route::ROUTE;
use super::support::gardenlet::until;
use super::support::health::{OPERATION, TIMESTAMP, annotation, check};
use super::support::record::Kind;
use super::support::shoot::{Shoot, pools};
use super::support::suite::Suite;

/// The finalizer of every ContainerRuntime extension.
pub(super) const FINALIZER: &str = "extensions.gardener.cloud/containerruntime";

/// A new shoot has no node, and its bundle may be at a registry that is down.
pub(super) async fn created_without_nodes_registry_or_shoot_api(suite: &Suite) {
    let controller = suite.controller().await;
    let workers = pools(&[("a", &["gvisor", "lost"])]);
    let shoot = Shoot::new(suite, &controller, "created", workers).await;
    let begun = Instant::now();
    shoot.reconcile().await;
    assert!(begun.elapsed() < Duration::from_secs(10), "took {:?}", begun.elapsed());
    let object = shoot.get("lost-a").await;
    assert_eq!(object["metadata"]["finalizers"], json!([FINALIZER]));
    let last = &object["status"]["lastOperation"];
    assert_eq!((&last["type"], &last["progress"]), (&json!("Create"), &json!(100)));
    assert_eq!(last["description"], "Successfully reconciled ContainerRuntime");
    // The order of writes, as tools know it.
    let seen = states(&shoot, 0, "lost-a").await;
    let begins = seen.iter().position(|state| state == "Processing").unwrap();
    assert!(begins < seen.iter().position(|state| state == "Succeeded").unwrap(), "{seen:?}");
    // That nothing resolves the bundle is a condition, and no failure.
    let object = shoot
        .until("lost-a", "BundleResolved is not True", |object| {
            condition(object, "BundleResolved").is_some_and(|c| c["status"] != "True")
        })
        .await;
    assert!(object["status"]["lastError"].is_null());
    shoot.never_failed().await;
}

pub(super) async fn created_while_hibernated(suite: &Suite) {
    let controller = suite.controller().await;
    let shoot = Shoot::new(suite, &controller, "hibernated", pools(&[("a", &["gvisor"])])).await;
    shoot.change(hibernated()).await;
    shoot.reconcile().await;
    let object = shoot
        .until("gvisor-a", "Hibernated", |object| {
            condition(object, "SystemComponentsHealthy")
                .is_some_and(|c| c["status"] == "True" && c["reason"] == "Hibernated")
        })
        .await;
    assert_eq!(object["status"]["observedGeneration"], object["metadata"]["generation"]);
    // And asked again, as every reconciliation of a hibernated shoot does.
    shoot.reconcile().await;
    shoot.never_failed().await;
}

/// The annotation's removal, Processing, Succeeded: no finalizer, no Secret, no object.
pub(super) async fn unchanged_reconcile_writes_three_times(suite: &Suite) {
    let controller = suite.controller().await;
    let shoot = Shoot::new(suite, &controller, "unchanged", pools(&[("a", &["gvisor"])])).await;
    shoot.reconcile().await;
    settled(&shoot, "gvisor-a").await;
    let place = suite.record.here();
    shoot.reconcile().await;
    // What comes late would come now: conditions are written at most once a second.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    shoot.recorded().await;
    let writes = shoot.since(place, Kind::ContainerRuntime);
    let seen: Vec<_> = writes.iter().map(|entry| state(&entry.object)).collect();
    assert_eq!(seen.len(), 4, "gardenlet's own write, and three: {seen:#?}");
    assert_eq!(annotation(&writes[0].object, OPERATION), Some("reconcile"));
    assert_eq!(annotation(&writes[1].object, OPERATION), None);
    assert_eq!(seen[1..], ["Succeeded", "Processing", "Succeeded"]);
    let others = [Kind::Secret, Kind::ManagedResource, Kind::Event];
    for kind in others.into_iter().chain(ROUTE) {
        let others = shoot.since(place, kind);
        assert!(others.is_empty(), "{kind:?}: {others:#?}");
    }
    let (first, last) = (&writes[0].object, &writes[3].object);
    for field in ["spec", "metadata/finalizers", "status/conditions", "status/providerStatus"] {
        let field = format!("/{field}");
        assert_eq!(first.pointer(&field), last.pointer(&field), "{field}");
    }
}

/// gardenlet compares the times: it would wait for ever otherwise.
pub(super) async fn every_trigger_refreshes_the_time(suite: &Suite) {
    let controller = suite.controller().await;
    let shoot = Shoot::new(suite, &controller, "times", pools(&[("a", &["gvisor"])])).await;
    let mut before = String::new();
    for _ in 0..2 {
        shoot.reconcile().await;
        let object = shoot.get("gvisor-a").await;
        let time = object["status"]["lastOperation"]["lastUpdateTime"].as_str().unwrap().to_owned();
        assert!(time > before && time.ends_with('Z') && !time.contains('.'), "{before} {time}");
        before = time;
        // Times are in seconds: the next one must be another.
        tokio::time::sleep(Duration::from_millis(1100)).await;
    }
    // Two at once are as good as one.
    shoot.deploy().await;
    shoot.reconcile().await;
    // gardenlet's clock may be ahead of the controller's.
    let asked = Timestamp::now() + Duration::from_secs(3600);
    let annotations = json!({OPERATION: "reconcile", TIMESTAMP: format!("{asked:.9}")});
    shoot.edit("gvisor-a", json!({"metadata": {"annotations": annotations}})).await;
    shoot.until("gvisor-a", "ready by another clock", |object| check(object).is_ok()).await;
}

pub(super) async fn changed_spec_is_observed(suite: &Suite) {
    let controller = suite.controller().await;
    let shoot = Shoot::new(suite, &controller, "generation", pools(&[("a", &["gvisor"])])).await;
    shoot.reconcile().await;
    // binaryPath is mutable.
    let patch = json!({"spec": {"binaryPath": "/opt/rootstock/bin"},
                       "metadata": {"annotations": {OPERATION: "reconcile"}}});
    shoot.edit("gvisor-a", patch).await;
    let object = shoot
        .until("gvisor-a", "the new generation is observed", |object| {
            object["status"]["observedGeneration"] == object["metadata"]["generation"]
                && annotation(object, OPERATION).is_none()
        })
        .await;
    assert_eq!(object["metadata"]["generation"], 2);
    shoot.never_failed().await;
}

pub(super) async fn wait_for_state_is_left_alone(suite: &Suite) {
    let controller = suite.controller().await;
    let shoot = Shoot::new(suite, &controller, "wait", pools(&[("a", &["gvisor", "kata"])])).await;
    let object = |name: &str| {
        json!({
            "apiVersion": "extensions.gardener.cloud/v1alpha1", "kind": "ContainerRuntime",
            "metadata": {"name": name, "annotations": {OPERATION: "wait-for-state"}},
            "spec": {"type": "gvisor", "class": controller.class, "binaryPath": "/var/bin/containerruntimes",
                     "workerPool": {"name": "w", "selector": {"matchLabels": {"w": "w"}}}},
        })
    };
    let mut object = object("gvisor-w");
    object["spec"].as_object_mut().unwrap().retain(|_, value| !value.is_null());
    let object = serde_json::from_value(object).unwrap();
    shoot.api().create(&Default::default(), &object).await.unwrap();
    // Others get their turn, and this one does not.
    shoot.reconcile().await;
    let object = shoot.get("gvisor-w").await;
    assert!(object["metadata"]["finalizers"].is_null(), "{object:#}");
    assert!(object["status"]["lastOperation"].is_null(), "{object:#}");
    assert_eq!(annotation(&object, OPERATION), Some("wait-for-state"));
}

pub(super) async fn without_a_cluster_nothing_is_written(suite: &Suite) {
    let controller = suite.controller().await;
    let pools = pools(&[("a", &["gvisor"])]);
    let shoot = Shoot::without_cluster(suite, &controller, "clusterless", pools.clone()).await;
    let other = Shoot::new(suite, &controller, "clustered", pools).await;
    shoot.deploy().await;
    // One that was asked for later is done by now.
    other.reconcile().await;
    let object = shoot.get("gvisor-a").await;
    assert!(object["status"]["lastOperation"].is_null(), "{object:#}");
    assert_eq!(annotation(&object, OPERATION), Some("reconcile"));
    shoot.make_cluster().await;
    shoot.reconcile().await;
    shoot.never_failed().await;
}

pub(super) async fn failed_shoots_are_left_alone(suite: &Suite) {
    let controller = suite.controller().await;
    let pools = pools(&[("a", &["gvisor"])]);
    let shoot = Shoot::new(suite, &controller, "failed", pools.clone()).await;
    let other = Shoot::without_cluster(suite, &controller, "well", pools).await;
    let state = |state: &str| json!({"status": {"lastOperation": {"state": state}}});
    shoot.change(state("Failed")).await;
    // Who sees a Cluster that was made later has seen this change too.
    other.make_cluster().await;
    other.reconcile().await;
    shoot.deploy().await;
    other.reconcile().await;
    let object = shoot.get("gvisor-a").await;
    assert!(object["status"]["lastOperation"].is_null(), "{object:#}");
    shoot.change(state("Processing")).await;
    shoot.reconcile().await;
    shoot.never_failed().await;
}

/// Whatever a killed controller leaves behind, the next one goes on with.
pub(super) async fn killed_in_the_middle(suite: &Suite) {
    let controller = suite.own_controller("killed", &[]).await;
    let shoot =
        Shoot::new(suite, &controller, "killed", pools(&[("a", &["gvisor", "kata"])])).await;
    controller.process.hold().await;
    shoot.deploy().await;
    // It died after it had taken the annotation off, and before it was done.
    let now = "2026-01-01T00:00:00Z";
    let half = json!({"lastOperation": {"type": "Create", "state": "Processing", "progress": 1,
        "description": "Reconciling the ContainerRuntime", "lastUpdateTime": now}});
    shoot.edit("gvisor-a", json!({"metadata": {"annotations": {OPERATION: null}}})).await;
    shoot.edit_status("gvisor-a", half).await;
    controller.process.release();
    shoot.wait().await.unwrap();
    for _ in 0..3 {
        shoot.deploy().await;
        controller.process.kill().await;
        shoot.wait().await.unwrap();
    }
    // The last one may have been killed after it was done.
    let restarted = until(async || (controller.process.usage().starts > 3).then_some(())).await;
    assert!(restarted.is_some(), "{:?}", controller.process.usage());
    shoot.never_failed().await;
}

/// `--ignore-operation-annotation`: a changed spec or Cluster is enough.
pub(super) async fn without_annotation_when_it_is_ignored(suite: &Suite) {
    let flags = ["--ignore-operation-annotation", "true"];
    let controller = suite.own_controller("ignoring", &flags).await;
    let shoot = Shoot::new(suite, &controller, "ignoring", pools(&[("a", &["gvisor"])])).await;
    shoot.deploy().await;
    shoot
        .until("gvisor-a", "it has succeeded", |o| {
            o["status"]["lastOperation"]["state"] == "Succeeded"
        })
        .await;
    shoot.edit("gvisor-a", json!({"spec": {"binaryPath": "/opt/rootstock/bin"}})).await;
    shoot
        .until("gvisor-a", "the new generation is observed", |object| {
            object["status"]["observedGeneration"] == object["metadata"]["generation"]
        })
        .await;
    settled(&shoot, "gvisor-a").await;
    let place = suite.record.here();
    shoot.change(hibernated()).await;
    suite
        .record
        .until("a changed Cluster is a trigger", |entries| {
            entries[place..].iter().any(|entry| {
                entry.is_of(Kind::ContainerRuntime, &shoot.name)
                    && entry.object["status"]["lastOperation"]["state"] == "Processing"
            })
        })
        .await;
    shoot.never_failed().await;
}

/// Whether the shoot is to sleep, and sleeps.
pub(super) fn hibernated() -> Value {
    json!({"spec": {"hibernation": {"enabled": true}}, "status": {"isHibernated": true}})
}

/// A condition of a ContainerRuntime.
pub(super) fn condition<'a>(object: &'a Value, kind: &str) -> Option<&'a Value> {
    let mut all = object["status"]["conditions"].as_array()?.iter();
    all.find(|condition| condition["type"] == kind)
}

/// Waits until nothing is written into a resource any more: its conditions come a
/// moment after its operation.
pub(super) async fn settled(shoot: &Shoot<'_>, name: &str) {
    let resolved = |object: &Value| {
        condition(object, "BundleResolved").is_some_and(|condition| condition["status"] == "True")
    };
    shoot.until(name, "its bundle is resolved", resolved).await;
    let mut seen = Vec::new();
    for _ in 0..20 {
        seen.push(shoot.get(name).await);
        // They are written at most once a second.
        tokio::time::sleep(Duration::from_millis(1200)).await;
        if Some(&shoot.get(name).await) == seen.last() {
            return;
        }
    }
    panic!("{name} never settles: {seen:#?}");
}

/// The same for several at once.
pub(super) async fn all_settled(shoot: &Shoot<'_>, names: &[&str]) {
    futures_util::future::join_all(names.iter().map(|name| settled(shoot, name))).await;
}

fn state(object: &Value) -> String {
    object["status"]["lastOperation"]["state"].as_str().unwrap_or("none").to_owned()
}

/// The states of a resource's last operation, in order.
async fn states(shoot: &Shoot<'_>, place: usize, name: &str) -> Vec<String> {
    shoot.recorded().await;
    let all = shoot.since(place, Kind::ContainerRuntime);
    all.iter().filter(|entry| entry.name() == name).map(|entry| state(&entry.object)).collect()
}
