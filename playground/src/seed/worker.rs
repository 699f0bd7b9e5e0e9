//! The Worker extension and its machines: the Nodes of one shoot.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1;
use kube::api::{Patch, PatchParams};
use serde_json::{Map, Value, json};

use super::landscape::{CRI_NAME, Node, POOL_LABELS, Pool, RUNTIME_LABEL_PREFIX, Shoot};
use super::objects::{Access, ensure, typed};

/// The Worker, for one shoot.
#[derive(Clone, Debug)]
pub struct Worker {
    /// The shoot's API.
    pub client: Access,
    /// What the shoot's owner asked for.
    pub shoot: Arc<Shoot>,
    /// The version that the Nodes name.
    pub kubernetes_version: String,
}

impl Worker {
    /// Makes all Nodes of the shoot, labelled and Ready.
    ///
    /// # Errors
    /// What the shoot's API says.
    pub async fn reconcile(&self) -> kube::Result<()> {
        for (pool, node) in self.shoot.nodes() {
            self.join(pool, node).await?;
        }
        Ok(())
    }

    /// Makes one Node, as its kubelet does when the machine boots.
    ///
    /// # Errors
    /// What the shoot's API says.
    pub async fn join(&self, pool: &Pool, node: &Node) -> kube::Result<()> {
        let nodes = self.client.all::<v1::Node>();
        let object = json!({
            "apiVersion": "v1", "kind": "Node",
            "metadata": {"name": node.name, "labels": labels(pool, node)},
            "spec": {"providerID": format!("playground://{}/{}", self.shoot.technical_id, node.name)},
        });
        ensure(&nodes, &typed(object)?).await?;
        let status = json!({"status": self.status(node)});
        nodes.patch_status(&node.name, &PatchParams::default(), &Patch::Merge(status)).await?;
        Ok(())
    }

    fn status(&self, node: &Node) -> Value {
        let now = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        json!({
            "conditions": [{
                "type": "Ready", "status": "True", "reason": "KubeletReady",
                "message": "kubelet is posting ready status",
                "lastHeartbeatTime": now, "lastTransitionTime": now,
            }],
            "nodeInfo": {
                "kubeletVersion": format!("v{}", self.kubernetes_version.trim_start_matches('v')),
                "kubeProxyVersion": "",
                "containerRuntimeVersion": format!("{}://2.1.5", node.cri),
                "architecture": node.architecture,
                "operatingSystem": "linux", "osImage": "Playground", "kernelVersion": "6.12.0",
                "machineID": node.name, "systemUUID": node.name, "bootID": node.name,
            },
            "addresses": [{"type": "Hostname", "address": node.name}],
            "capacity": {"cpu": "2", "memory": "4Gi", "pods": "110"},
            "allocatable": {"cpu": "2", "memory": "4Gi", "pods": "110"},
        })
    }
}

fn labels(pool: &Pool, node: &Node) -> Map<String, Value> {
    let mut labels = Map::new();
    for label in POOL_LABELS {
        labels.insert(label.to_owned(), json!(pool.name));
    }
    // The labels are the pool's: a machine with another CRI has the runtimes' too.
    for runtime in &pool.runtimes {
        labels.insert(format!("{RUNTIME_LABEL_PREFIX}{runtime}"), json!("true"));
    }
    labels.insert(CRI_NAME.to_owned(), json!(node.cri));
    labels.insert("kubernetes.io/arch".to_owned(), json!(node.architecture));
    labels.insert("kubernetes.io/os".to_owned(), json!("linux"));
    labels.insert("kubernetes.io/hostname".to_owned(), json!(node.name));
    labels
}
