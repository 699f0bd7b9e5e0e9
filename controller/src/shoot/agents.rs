//! The agent's Pods of one shoot: on which Nodes one lives.
//!
//! Their nodes are no metadata, so whole Pods are asked for; what is not used
//! is not even decoded.
//!
//! ```text
//!  Pods of the DaemonSet ─list, watch─▶ index.agents_listed, put_agent ─▶ who may have a stream
//!                            └ broken ─▶ index.agents_unknown: nobody loses one
//! ```

use std::convert::Infallible;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::Client;
use kube::api::{ListParams, Request, WatchParams};
use kube::core::request::Error as Unbuilt;
use rootstock_core::name::ShootName;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::follow::{Follow, Followed};
use super::sight::Sight;
use crate::identity::enrol::is_the_agents;
use crate::index::{AgentPod, Index};

const PODS: &str = "/api/v1/namespaces/kube-system/pods";
/// By which the DaemonSet selects its Pods: one that loses it is its no longer.
const SELECTOR: &str = "app.kubernetes.io/name=rootstock-agent";

/// Follows the agent's Pods of a shoot. Dropped, it leaves the index without
/// knowledge of them: what nobody follows may have changed.
#[derive(Debug)]
pub(super) struct Agents {
    shoot: ShootName,
    index: Arc<Index>,
    pods: Follow<ToIndex>,
    sight: Sight,
}

impl Agents {
    pub(super) fn new(shoot: ShootName, index: Arc<Index>) -> Self {
        let to = ToIndex { shoot: shoot.clone(), index: Arc::clone(&index), listed: Vec::new() };
        let pods = Follow::new(shoot.clone(), to);
        let sight = Sight::of::<ToIndex>(shoot.clone(), "no stream ends with its Pod");
        Self { shoot, index, pods, sight }
    }

    /// Follows them for ever. A shoot whose Pods can't be seen is served all
    /// the same: whatever is wrong here ends nothing.
    ///
    /// Cancel-safe: what was not told yet is asked for again.
    pub(super) async fn follow(&mut self, client: &Client) -> Infallible {
        let Self { shoot, index, pods, sight } = self;
        sight.begin();
        loop {
            let error = pods.follow(client, || sight.back()).await;
            index.agents_unknown(shoot);
            // What a watch would tell late must not count as the present.
            pods.forget();
            sight.lost(&error).await;
        }
    }
}

impl Drop for Agents {
    fn drop(&mut self) {
        self.index.agents_unknown(&self.shoot);
    }
}

/// Tells the index.
#[derive(Debug)]
struct ToIndex {
    shoot: ShootName,
    index: Arc<Index>,
    listed: Vec<AgentPod>,
}

/// What is read of a Pod.
#[derive(Clone, Debug, Deserialize)]
struct Item {
    metadata: Meta,
    #[serde(default)]
    spec: Spec,
    #[serde(default)]
    status: Status,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Meta {
    uid: Option<String>,
    resource_version: Option<String>,
    deletion_timestamp: Option<IgnoredAny>,
    owner_references: Option<Vec<OwnerReference>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Spec {
    node_name: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Status {
    phase: Option<String>,
}

impl Item {
    /// None of a Pod that is on no node yet.
    fn into_pod(self) -> Option<AgentPod> {
        let Self { metadata, spec, status } = self;
        // By its phase a Pod of a DaemonSet has ended where it was evicted.
        let ended = matches!(status.phase.as_deref(), Some("Failed" | "Succeeded"));
        let lives = !ended
            && metadata.deletion_timestamp.is_none()
            && is_the_agents(metadata.owner_references.iter().flatten());
        let node = spec.node_name?.parse().ok()?;
        Some(AgentPod { node, uid: metadata.uid?.parse().ok()?, lives })
    }
}

impl Followed for ToIndex {
    type Item = Item;

    const WHAT: &'static str = "agent's Pods";

    fn list(params: &ListParams) -> Result<http::Request<Vec<u8>>, Unbuilt> {
        Request::new(PODS).list(&params.clone().labels(SELECTOR))
    }

    fn watch(params: &WatchParams, from: &str) -> Result<http::Request<Vec<u8>>, Unbuilt> {
        Request::new(PODS).watch(&params.clone().labels(SELECTOR), from)
    }

    fn version(item: &Item) -> Option<&str> {
        item.metadata.resource_version.as_deref()
    }

    fn begin(&mut self) {
        self.listed.clear();
        self.index.agents_being_listed(&self.shoot);
    }

    fn gather(&mut self, item: Item) {
        self.listed.extend(item.into_pod());
    }

    fn listed(&mut self) {
        self.index.agents_listed(&self.shoot, std::mem::take(&mut self.listed));
    }

    fn put(&mut self, item: Item) {
        if let Some(pod) = item.into_pod() {
            self.index.put_agent(&self.shoot, pod);
        }
    }

    fn gone(&mut self, item: Item) {
        if let Some(pod) = item.into_pod() {
            self.index.put_agent(&self.shoot, AgentPod { lives: false, ..pod });
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(change: impl FnOnce(&mut Value)) -> Option<AgentPod> {
        let mut pod = json!({
            "metadata": {"name": "rootstock-agent-x", "uid": "p1", "resourceVersion": "7",
                "ownerReferences": [{"apiVersion": "apps/v1", "kind": "DaemonSet", "uid": "d",
                    "name": "rootstock-agent", "controller": true}]},
            "spec": {"nodeName": "n1", "containers": [{"name": "agent"}]},
            "status": {"phase": "Running"},
        });
        change(&mut pod);
        serde_json::from_value::<Item>(pod).unwrap().into_pod()
    }

    #[test]
    fn a_pod_lives_until_it_is_told_to_go_or_has_ended() {
        type Change = fn(&mut Value);
        let table: [(&str, Change, Option<bool>); 8] = [
            ("it runs", |_| {}, Some(true)),
            ("it starts", |pod| pod["status"] = json!({"phase": "Pending"}), Some(true)),
            ("nobody has looked yet", |pod| pod["status"] = json!({}), Some(true)),
            ("evicted", |pod| pod["status"]["phase"] = json!("Failed"), Some(false)),
            (
                "told to go",
                |pod| pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z"),
                Some(false),
            ),
            (
                "somebody else's",
                |pod| pod["metadata"]["ownerReferences"][0]["name"] = json!("other"),
                Some(false),
            ),
            ("nobody's", |pod| pod["metadata"]["ownerReferences"] = Value::Null, Some(false)),
            ("on no node yet", |pod| pod["spec"]["nodeName"] = Value::Null, None),
        ];
        for (name, change, lives) in table {
            assert_eq!(pod(change).map(|pod| pod.lives), lives, "{name}");
        }
    }
}
