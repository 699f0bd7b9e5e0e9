//! The index as watches and agents tell it, by subject. Here is what all of
//! these tests begin with: one shoot, one node, gvisor.

mod agents;
mod bounds;
mod desired;
mod migration;
mod missed;
mod removal;
mod takeover;

use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Node as NodeResource;
use rootstock_core::assign::{AGENT_LABEL, Problem, ResolvedBundle};
use rootstock_core::bundle::ConfigBlob;
use rootstock_core::desired::Generation;
use rootstock_core::digest::Digest;
use rootstock_core::name::Architecture;
use rootstock_core::rollup::{ConditionStatus, Connection};
use rootstock_core::status::{BundleReport, Phase, Reason};
use serde_json::{Value, json};

use super::node::RETURN;
use super::*;
use crate::grpc::Refused;
use crate::home::Home;
use crate::identity::NodeId;
use crate::scripted::merge;

pub(super) fn shoot() -> ShootName {
    "shoot--garden--one".parse().unwrap()
}

pub(super) fn gvisor() -> RuntimeType {
    "gvisor".parse().unwrap()
}

pub(super) fn runtime(selector: Value, deleted: bool) -> ContainerRuntime {
    let mut object = json!({
        "apiVersion": "extensions.gardener.cloud/v1alpha1", "kind": "ContainerRuntime",
        "metadata": {"name": "gvisor-a", "namespace": "shoot--garden--one"},
        "spec": {"type": "gvisor", "binaryPath": "/var/bin/containerruntimes",
                 "workerPool": {"name": "a", "selector": selector}},
    });
    if deleted {
        object["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
    }
    serde_json::from_value(object).unwrap()
}

pub(super) fn pool_a() -> Value {
    json!({"matchLabels": {"worker.gardener.cloud/pool": "a"}})
}

pub(super) fn key() -> RuntimeKey {
    RuntimeKey { shoot: shoot(), name: "gvisor-a".to_owned() }
}

pub(super) fn node(uid: &str, agent: bool) -> NodeResource {
    let mut node = json!({"metadata": {"name": "n1", "uid": uid, "labels": {
        "worker.gardener.cloud/pool": "a",
        "worker.gardener.cloud/cri-name": "containerd",
        "containerruntime.worker.gardener.cloud/gvisor": "true",
        "kubernetes.io/arch": "amd64",
    }}});
    if agent {
        node["metadata"]["labels"][AGENT_LABEL] = "true".into();
    }
    serde_json::from_value(node).unwrap()
}

pub(super) fn id(uid: &str) -> NodeId {
    NodeId { shoot: shoot(), name: "n1".parse().unwrap(), uid: uid.parse().unwrap() }
}

/// The bundle of gvisor for one platform, by its content; `more` is merged into
/// its config blob.
pub(crate) fn bundle(content: &[u8], more: &Value) -> Resolution {
    let empty = Digest::of(b"");
    let mut config = json!({
        "type": "gvisor", "version": "1",
        "files": [{"path": "runsc", "mode": "0755", "size": 0, "sha256": empty.hex(),
                   "blob": empty.to_string(), "blobSize": 0}],
        "entryPoints": ["runsc"],
        "handlers": [{"name": "runsc", "runtimeType": "io.containerd.runsc.v1", "shim": "runsc"}],
    });
    merge(&mut config, more);
    let bundle = ResolvedBundle {
        digest: Digest::of(content),
        registry: "main".into(),
        repository: "rootstock/gvisor".into(),
        config: ConfigBlob::parse(config.to_string().as_bytes()).unwrap(),
    };
    Resolution::Resolved([(Architecture::Amd64, Ok(bundle))].into())
}

pub(super) fn resolved() -> Resolution {
    bundle(b"gvisor", &json!({}))
}

pub(super) fn put_bundle(index: &Index, resolution: Resolution) {
    let reference = [(gvisor(), "main/rootstock/gvisor:1".to_owned())].into();
    index.put_bundles(reference, [(gvisor(), resolution)].into(), BTreeMap::new());
}

/// Everything is known, and the node has the agent's label.
pub(super) fn ready() -> Index {
    let index = Index::new(BinaryRoots::default()).at_once();
    put_bundle(&index, resolved());
    index.seed_listed(&[runtime(pool_a(), false).into()]);
    index.nodes_listed(&shoot(), &[node("1", true)]);
    index
}

pub(super) fn report(phase: Phase) -> Vec<BundleReport> {
    let mut report = BundleReport::new(gvisor(), phase);
    report.digest = Some(Digest::of(b"gvisor"));
    vec![report]
}

pub(super) fn generation(index: &Index) -> Option<u64> {
    let desired = index.connect(&id("1"), None).unwrap();
    let desired = desired.borrow();
    desired.as_ref().map(|desired| desired.generation.0)
}

pub(super) fn named(name: &str, kind: &str) -> ContainerRuntime {
    let mut object = runtime(pool_a(), false);
    object.metadata.name = Some(name.to_owned());
    object.metadata.uid = Some(format!("uid-{name}"));
    object.spec.runtime = kind.to_owned();
    object
}
