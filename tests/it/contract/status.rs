//! Conditions, providerStatus, the heartbeat, and what is not ours in a status.

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use serde_json::{Value, json};

use super::operations::{condition, settled};
use super::support::record::Kind;
use super::support::shoot::{Shoot, pools};
use super::support::suite::{HOME, Suite};

/// Gardener's Condition has fields that others lack, and all of them are required.
pub(super) async fn conditions_have_gardeners_form(suite: &Suite) {
    let controller = suite.controller().await;
    let shoot = Shoot::new(suite, &controller, "form", pools(&[("a", &["gvisor"])])).await;
    let shoot = shoot.with_api();
    shoot.reconcile().await;
    shoot.until("gvisor-a", "state is there", |o| o["status"]["state"].is_object()).await;
    settled(&shoot, "gvisor-a").await;
    let object = shoot.get("gvisor-a").await;
    for kind in ["SystemComponentsHealthy", "BundleResolved", "NodesReady"] {
        let condition = condition(&object, kind).unwrap_or_else(|| panic!("{kind}: {object:#}"));
        for field in ["status", "reason", "message", "lastTransitionTime", "lastUpdateTime"] {
            assert!(condition[field].is_string(), "{field}: {condition:#}");
        }
        for field in ["lastTransitionTime", "lastUpdateTime"] {
            let time = condition[field].as_str().unwrap();
            assert!(time.parse::<Timestamp>().is_ok() && time.ends_with('Z'), "{condition:#}");
        }
    }
    let provider = &object["status"]["providerStatus"];
    assert_eq!(provider["apiVersion"], "rootstock.gardener.cloud/v1alpha1", "{object:#}");
    assert_eq!(provider["kind"], "RuntimeStatus");
    let state = &object["status"]["state"];
    assert_eq!(state["version"], 1, "{object:#}");
    assert!(!state.to_string().contains("PRIVATE KEY"));
    // No storm: a handful of Events, whatever was written.
    let events = shoot.since(0, Kind::Event);
    assert!(events.len() <= 5, "{events:#?}");
}

/// Fields of a newer Gardener, conditions, finalizers, labels and annotations of others.
pub(super) async fn what_others_wrote_stays(suite: &Suite) {
    let controller = suite.controller().await;
    let shoot = Shoot::new(suite, &controller, "others", pools(&[("a", &["gvisor"])])).await;
    shoot.reconcile().await;
    settled(&shoot, "gvisor-a").await;
    let time = "2026-01-01T00:00:00Z";
    let foreign = json!({"type": "OthersHealthy", "status": "False", "reason": "Theirs",
        "message": "m", "lastTransitionTime": time, "lastUpdateTime": time,
        "codes": ["ERR_INFRA_QUOTA_EXCEEDED"], "future": {"a": 1}});
    let mut conditions = shoot.get("gvisor-a").await["status"]["conditions"].clone();
    conditions.as_array_mut().unwrap().insert(0, foreign.clone());
    for condition in conditions.as_array_mut().unwrap() {
        condition["future"] = json!({"a": 1});
    }
    let status = json!({"conditions": conditions, "future": {"a": 1},
        "resources": [{"name": "r", "resourceRef": {"kind": "Secret", "name": "s", "apiVersion": "v1"}}]});
    shoot.edit_status("gvisor-a", status).await;
    let patch = json!({"spec": {"future": {"a": 1}, "workerPool": {"future": 1}},
        "metadata": {"labels": {"theirs": "1"}, "annotations": {"theirs": "1"}, "finalizers": [
            "extensions.gardener.cloud/containerruntime", "others.example/finalizer"]}});
    shoot.edit("gvisor-a", patch).await;
    shoot.reconcile().await;
    // The controller has something to say of its own: its conditions are written anew.
    shoot.change(super::operations::hibernated()).await;
    let object = shoot
        .until("gvisor-a", "Hibernated", |object| {
            condition(object, "SystemComponentsHealthy")
                .is_some_and(|c| c["reason"] == "Hibernated")
        })
        .await;
    let after = |path: &str| object.pointer(path).cloned().unwrap_or(Value::Null);
    assert_eq!(condition(&object, "OthersHealthy"), Some(&foreign));
    assert_eq!(after("/status/future"), json!({"a": 1}));
    assert_eq!(after("/status/resources/0/name"), "r");
    assert_eq!(after("/spec/future"), json!({"a": 1}));
    assert_eq!(after("/spec/workerPool/future"), 1);
    assert_eq!(after("/metadata/labels/theirs"), "1");
    assert_eq!(after("/metadata/annotations/theirs"), "1");
    let finalizers = object["metadata"]["finalizers"].as_array().unwrap();
    assert!(finalizers.contains(&json!("others.example/finalizer")), "{finalizers:?}");
    shoot
        .edit(
            "gvisor-a",
            json!({"metadata": {"finalizers": [
        "extensions.gardener.cloud/containerruntime"]}}),
        )
        .await;
    shoot.never_failed().await;
}

/// Without it gardenlet takes every condition for outdated.
pub(super) async fn heartbeat(suite: &Suite) {
    suite.own_controller("beats", &["--heartbeat-renew-interval", "1s"]).await;
    let home = format!("{HOME}-beats");
    let beats = async |count: usize| {
        suite
            .record
            .until("the heartbeat", |entries| {
                let of = entries.iter().filter(|entry| {
                    entry.is_of(Kind::Lease, &home)
                        && entry.name() == "gardener-extension-heartbeat"
                });
                of.count() >= count
            })
            .await;
    };
    beats(3).await;
    let lease =
        suite.access.within::<Lease>(&home).get("gardener-extension-heartbeat").await.unwrap();
    let spec = lease.spec.unwrap();
    assert!(spec.holder_identity.is_some_and(|holder| !holder.is_empty()));
    assert!(spec.lease_duration_seconds.is_some_and(|seconds| seconds > 0));
    let age = Timestamp::now().duration_since(spec.renew_time.unwrap().0);
    assert!(age.as_secs() < 30, "{age:?}");
}
