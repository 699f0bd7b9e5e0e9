//! Nodes of a shoot, as far as they can be seen without an agent.
//!
//! All shoots of a suite have one API, so the labels here are no other scenario's.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Node;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams};
use rootstock_playground::seed::objects::{ensure, typed};
use serde_json::{Value, json};

use super::operations::condition;
use super::support::gardenlet::until;
use super::support::shoot::{Shoot, pools};
use super::support::suite::{Controller, Suite};

const AGENT: &str = "rootstock.gardener.cloud/agent";
/// From a change of a Node to what follows from it.
const PROMPT: Duration = Duration::from_secs(1);

/// Makes a Node that has these labels and asks for gvisor and kata.
pub(super) async fn make(suite: &Suite, name: &str, labels: Value) {
    let mut all = json!({
        "kubernetes.io/arch": "amd64",
        "worker.gardener.cloud/cri-name": "containerd",
        "containerruntime.worker.gardener.cloud/gvisor": "true",
        "containerruntime.worker.gardener.cloud/kata": "true",
    });
    all.as_object_mut().unwrap().extend(labels.as_object().unwrap().clone());
    let node = json!({"metadata": {"name": name, "labels": all}});
    ensure(&nodes(suite), &typed(node).unwrap()).await.unwrap();
}

pub(super) fn nodes(suite: &Suite) -> Api<Node> {
    suite.access.all()
}

async fn label(suite: &Suite, name: &str, labels: Value) {
    let patch = Patch::Merge(json!({"metadata": {"labels": labels}}));
    nodes(suite).patch(name, &PatchParams::default(), &patch).await.unwrap();
}

/// Waits until the controller wants these types, and no longer than it may take.
async fn wanted(controller: &Controller, shoot: &Shoot<'_>, want: &[(&str, &[&str])]) {
    let want: BTreeMap<_, BTreeSet<_>> = want
        .iter()
        .map(|(name, types)| {
            ((*name).to_owned(), types.iter().map(|kind| (*kind).to_owned()).collect())
        })
        .collect();
    let begun = Instant::now();
    let mut seen = BTreeMap::new();
    let there = until(async || {
        seen = controller.nodes(&shoot.name).await;
        (seen == want).then_some(())
    });
    assert!(there.await.is_some(), "wants {seen:?}, not {want:?}");
    assert!(begun.elapsed() < PROMPT, "after {:?}", begun.elapsed());
}

/// Selects nodes by a label of the scenario's own, as a pool's selector does.
async fn select(shoot: &Shoot<'_>, name: &str, key: &str) {
    let labels = json!({"worker.gardener.cloud/pool": null, "worker.garden.sapcloud.io/group": null,
        (key): "true"});
    shoot.edit(name, json!({"spec": {"workerPool": {"selector": {"matchLabels": labels}}}})).await;
}

/// Waits until the shoot's Nodes are known.
async fn known(shoot: &Shoot<'_>, name: &str) {
    let is_known = |object: &Value| {
        condition(object, "NodesReady").is_some_and(|c| c["reason"] != "ShootUnknown")
            && !object["status"]["providerStatus"]["nodes"].is_null()
    };
    shoot.until(name, "the shoot's Nodes are known", is_known).await;
}

pub(super) async fn appear_change_and_vanish(suite: &Suite) {
    let controller = suite.own_controller("nodes", &[]).await;
    let pools = pools(&[("nodes-x", &["gvisor"]), ("nodes-y", &["kata"])]);
    let shoot = Shoot::new(suite, &controller, "nodes", pools).await.with_api();
    shoot.reconcile().await;
    for (name, key) in [("gvisor-nodes-x", "it/x"), ("kata-nodes-y", "it/y")] {
        select(&shoot, name, key).await;
        known(&shoot, name).await;
    }
    wanted(&controller, &shoot, &[]).await;
    make(suite, "nodes-1", json!({"it/x": "true"})).await;
    wanted(&controller, &shoot, &[("nodes-1", &["gvisor"])]).await;
    // A node that two selectors match gets both.
    make(suite, "nodes-2", json!({"it/x": "true", "it/y": "true"})).await;
    let union = ("nodes-2", &["gvisor", "kata"][..]);
    wanted(&controller, &shoot, &[("nodes-1", &["gvisor"]), union]).await;
    label(suite, "nodes-1", json!({"it/x": null, "it/y": "true"})).await;
    wanted(&controller, &shoot, &[("nodes-1", &["kata"]), union]).await;
    // The agent is let in, and the resources say how many there are.
    let labelled = until(async || {
        let node = nodes(suite).get("nodes-2").await.unwrap();
        (node.metadata.labels.unwrap().get(AGENT)? == "true").then_some(())
    });
    assert!(labelled.await.is_some(), "no label for the agent");
    for (name, count) in [("gvisor-nodes-x", 1), ("kata-nodes-y", 2)] {
        let selected = |o: &Value| o["status"]["providerStatus"]["nodes"]["selected"] == count;
        shoot.until(name, "so many nodes", selected).await;
    }
    for name in ["nodes-1", "nodes-2"] {
        nodes(suite).delete(name, &DeleteParams::default()).await.unwrap();
    }
    wanted(&controller, &shoot, &[]).await;
    // Nobody waits for them when the resources go.
    shoot.destroy().await.unwrap();
    shoot.never_failed().await;
}

/// The older one decides, and the younger one says why it does not.
pub(super) async fn two_resources_disagree(suite: &Suite) {
    let controller = suite.own_controller("disagree", &[]).await;
    let workers = pools(&[("disagree-a", &["kata"]), ("disagree-b", &["kata"])]);
    let mut shoot = Shoot::new(suite, &controller, "disagree", workers.clone()).await.with_api();
    // Times of creation are in seconds, and names decide within one: the name agrees.
    shoot.reconcile().await;
    let (older, younger) = ("kata-disagree-a", "kata-disagree-b");
    // Another folder is another setting.
    shoot.edit(younger, json!({"spec": {"binaryPath": "/opt/rootstock/bin"}})).await;
    for name in [older, younger] {
        select(&shoot, name, "it/disagree").await;
        known(&shoot, name).await;
    }
    make(suite, "disagree-1", json!({"it/disagree": "true"})).await;
    let conflict = |object: &Value| {
        let found = condition(object, "NodesReady");
        found.is_some_and(|c| {
            let text = c.to_string();
            text.contains("SettingsConflict") && text.contains(older) && text.contains(younger)
        })
    };
    shoot.until(younger, "SettingsConflict names both", conflict).await;
    assert!(!conflict(&shoot.get(older).await));
    wanted(&controller, &shoot, &[("disagree-1", &["kata"])]).await;
    // Mended by its owner; the next reconciliation has nothing to complain of.
    shoot.edit(younger, json!({"spec": {"binaryPath": "/var/bin/containerruntimes"}})).await;
    shoot.until(younger, "they agree", |object| !conflict(object)).await;
    shoot.gardenlet.workers = workers;
    shoot.reconcile().await;
    nodes(suite).delete("disagree-1", &DeleteParams::default()).await.unwrap();
    shoot.never_failed().await;
}
