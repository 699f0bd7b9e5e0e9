//! The state of the whole world as one document, from what anybody could look
//! at: the seed's API, the controller's status page and the nodes' disks.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use kube::ResourceExt as _;
use kube::api::DynamicObject;
use serde::{Deserialize, Serialize};

use super::disk;
use super::status::StatusPage;

/// The document that `up --output json` prints.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Document {
    /// The kubeconfigs, by `seed` or the shoot's name.
    pub kubeconfigs: BTreeMap<String, PathBuf>,
    /// The registry's URL.
    pub registry: String,
    /// Seconds from the start until everything was ready, or until now.
    pub elapsed_seconds: f64,
    /// All ContainerRuntimes of the seed.
    pub container_runtimes: Vec<ContainerRuntime>,
    /// All nodes of all shoots.
    pub nodes: Vec<Node>,
    /// What it took.
    pub figures: Figures,
}

/// One ContainerRuntime of the seed.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerRuntime {
    /// The namespace of its shoot's control plane.
    pub namespace: String,
    /// Its name: type and pool.
    pub name: String,
    /// The runtime type.
    #[serde(rename = "type")]
    pub runtime: String,
    /// The worker pool.
    pub pool: String,
    /// What its owner wants.
    pub generation: i64,
    /// What the controller has acted on.
    pub observed_generation: i64,
    /// How the last operation went; none before the first.
    pub last_operation: Option<LastOperation>,
    /// Its conditions.
    pub conditions: Vec<Condition>,
}

/// How an operation went.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LastOperation {
    /// `Create`, `Reconcile`, …
    #[serde(rename = "type", default)]
    pub operation: String,
    /// `Processing`, `Succeeded`, …
    #[serde(default)]
    pub state: String,
}

/// One of Gardener's conditions.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Condition {
    /// What it is about.
    #[serde(rename = "type", default)]
    pub kind: String,
    /// `True`, `False`, `Unknown` or `Progressing`.
    #[serde(default)]
    pub status: String,
    /// Why, in one word.
    #[serde(default)]
    pub reason: String,
    /// Why, for people.
    #[serde(default)]
    pub message: String,
}

/// One node.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Node {
    /// The shoot that it belongs to.
    pub shoot: String,
    /// Its name.
    pub name: String,
    /// The worker pool.
    pub pool: String,
    /// Where its root is on this machine.
    pub root: PathBuf,
    /// How often its containerd was restarted.
    pub containerd_restarts: u64,
    /// Its runtimes: what it reports of them, and what is on its disk.
    pub runtimes: Vec<NodeRuntime>,
}

/// One runtime on one node.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct NodeRuntime {
    /// The runtime type.
    #[serde(rename = "type")]
    pub runtime: String,
    /// The bundle's version.
    pub version: String,
    /// The bundle's digest.
    pub digest: String,
    /// Where it is.
    pub phase: String,
    /// The handlers that containerd lists.
    pub handlers: Vec<String>,
    /// The bundle's files on the node's disk.
    pub files: Vec<disk::File>,
}

/// What it took until everything was ready.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Figures {
    /// Bytes that the nodes pulled, all together.
    pub bytes_pulled: u64,
    /// The same per second, while any node was pulling.
    pub bytes_per_second: f64,
    /// What the controller used.
    pub controller: super::processes::Usage,
    /// What the agent that used most used.
    pub agent: super::processes::Usage,
}

impl ContainerRuntime {
    /// Reads it from the API's object; what is missing stays empty.
    pub fn read(object: &DynamicObject) -> Self {
        let spec = |path: &str| {
            object
                .data
                .pointer(path)
                .and_then(|value| value.as_str())
                .unwrap_or_default()
                .to_owned()
        };
        let status = |field: &str| object.data.get("status").and_then(|status| status.get(field));
        Self {
            namespace: object.namespace().unwrap_or_default(),
            name: object.name_any(),
            runtime: spec("/spec/type"),
            pool: spec("/spec/workerPool/name"),
            generation: object.metadata.generation.unwrap_or_default(),
            observed_generation: status("observedGeneration")
                .and_then(serde_json::Value::as_i64)
                .unwrap_or_default(),
            last_operation: status("lastOperation")
                .and_then(|value| LastOperation::deserialize(value).ok()),
            conditions: status("conditions")
                .and_then(|value| Vec::deserialize(value).ok())
                .unwrap_or_default(),
        }
    }

    /// The condition of this kind.
    pub fn condition(&self, kind: &str) -> Option<&Condition> {
        self.conditions.iter().find(|condition| condition.kind == kind)
    }

    /// Whether Gardener and its owner would call it healthy.
    pub fn is_healthy(&self) -> bool {
        self.generation == self.observed_generation
            && self.last_operation.as_ref().is_some_and(|operation| operation.state == "Succeeded")
            && self.condition("SystemComponentsHealthy").is_some()
            && self.conditions.iter().all(|condition| condition.status == "True")
    }
}

/// Why a ContainerRuntime is not healthy, in one line.
pub fn why_unhealthy(resource: &ContainerRuntime) -> String {
    let mut said = BTreeSet::new();
    let conditions: Vec<_> = resource
        .conditions
        .iter()
        // The summary often repeats what another condition says.
        .filter(|condition| condition.status != "True" && said.insert(&condition.message))
        .map(|condition| format!("{}: {}: {}", condition.kind, condition.reason, condition.message))
        .collect();
    match &resource.last_operation {
        None => "the controller has not acted on it".to_owned(),
        Some(_) if !conditions.is_empty() => conditions.join("; "),
        Some(last) if last.state != "Succeeded" => format!("{} {}", last.operation, last.state),
        Some(_) if resource.generation != resource.observed_generation => {
            "the controller has not acted on its last change".to_owned()
        }
        Some(_) => "it has no conditions yet".to_owned(),
    }
}

/// Why a runtime can't be used on a node; nothing if it can.
pub fn why_not_ready(page: &StatusPage, shoot: &str, node: &str, runtime: &str) -> Option<String> {
    let unresolved = page.bundles.iter().find(|b| b.runtime == runtime && b.digest.is_none());
    if let Some(bundle) = unresolved {
        let (reason, message) = (bundle.reason.clone(), bundle.message.clone());
        let reason = reason.unwrap_or_else(|| "being resolved".to_owned());
        return Some(format!(
            "bundle {}: {reason}: {}",
            bundle.reference,
            message.unwrap_or_default()
        ));
    }
    let Some(entry) = page.node(shoot, node) else {
        return Some("the controller does not know the node".to_owned());
    };
    if !entry.connected {
        return Some("its agent is not connected".to_owned());
    }
    let Some(bundle) = entry.bundle(runtime) else {
        return Some("the node has not reported it".to_owned());
    };
    if bundle.is_ready() {
        return None;
    }
    let details = [bundle.reason.as_deref(), bundle.message.as_deref()];
    let details: Vec<_> = details.into_iter().flatten().filter(|text| !text.is_empty()).collect();
    Some([&[bundle.phase.as_str()], details.as_slice()].concat().join(": "))
}

/// A node's runtimes: those it reports, and those that are on its disk.
///
/// Reads and hashes files: not for an async thread.
pub fn node_runtimes(
    root: &Path,
    binary_path: &str,
    page: &StatusPage,
    shoot: &str,
    node: &str,
) -> Vec<NodeRuntime> {
    let mut runtimes: BTreeMap<String, NodeRuntime> = BTreeMap::new();
    for bundle in page.node(shoot, node).into_iter().flat_map(|node| &node.bundles) {
        let runtime = NodeRuntime {
            runtime: bundle.runtime.clone(),
            version: bundle.version.clone().unwrap_or_default(),
            digest: bundle.digest.clone().unwrap_or_default(),
            phase: bundle.phase.clone(),
            handlers: bundle.handlers.clone(),
            files: Vec::new(),
        };
        runtimes.insert(bundle.runtime.clone(), runtime);
    }
    for found in disk::bundles(root, binary_path) {
        let runtime = runtimes.entry(found.runtime.clone()).or_insert_with(|| NodeRuntime {
            runtime: found.runtime,
            digest: found.digest,
            ..NodeRuntime::default()
        });
        runtime.files = found.files;
    }
    runtimes.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn resource(status: serde_json::Value) -> ContainerRuntime {
        let object = serde_json::from_value(json!({
            "apiVersion": "extensions.gardener.cloud/v1alpha1", "kind": "ContainerRuntime",
            "metadata": {"name": "gvisor-a", "namespace": "shoot--x--y", "generation": 2},
            "spec": {"type": "gvisor", "workerPool": {"name": "a"}},
            "status": status,
        }));
        ContainerRuntime::read(&object.unwrap())
    }

    #[test]
    fn healthy_means_done_up_to_date_and_every_condition_true() {
        let healthy = json!({
            "observedGeneration": 2, "lastOperation": {"type": "Create", "state": "Succeeded"},
            "conditions": [{"type": "SystemComponentsHealthy", "status": "True"}],
        });
        assert!(resource(healthy.clone()).is_healthy());
        for (pointer, value) in [
            ("/observedGeneration", json!(1)),
            ("/lastOperation", json!({"type": "Create", "state": "Processing"})),
            ("/lastOperation", json!(null)),
            ("/conditions/0/status", json!("Progressing")),
            ("/conditions", json!([])),
        ] {
            let mut status = healthy.clone();
            *status.pointer_mut(pointer).unwrap() = value;
            assert!(!resource(status).is_healthy(), "{pointer}");
        }
        assert!(!resource(json!(null)).is_healthy());
    }
}
