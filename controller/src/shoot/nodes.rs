//! The Nodes of one shoot, as far as they are used: names, UIDs and labels,
//! whether they are ready, and whether they come or go.
//!
//! Of what comes (a Node's images alone are 30 KiB) only what is used is
//! decoded. The architecture comes from the label that every kubelet sets.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, NodeCondition, NodeSpec, NodeStatus, Taint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{ListParams, ObjectMeta, Request, WatchParams};
use kube::core::request::Error as Unbuilt;
use rootstock_core::name::ShootName;
use serde::Deserialize;

use super::follow::{Follow, Followed};
use crate::index::{Index, MAX_LABEL_BYTES, MAX_NODES};

/// The Nodes of a shoot, which the index is fed with.
pub(super) type Nodes = Follow<ToIndex>;

/// Follows the Nodes of a shoot.
pub(super) fn nodes(shoot: ShootName, index: Arc<Index>) -> Nodes {
    Follow::new(shoot.clone(), ToIndex { shoot, index, listed: Listed::default() })
}

/// Tells the index.
#[derive(Debug)]
pub(super) struct ToIndex {
    shoot: ShootName,
    index: Arc<Index>,
    listed: Listed,
}

/// What a list has brought so far.
#[derive(Debug, Default)]
struct Listed {
    nodes: Vec<Node>,
    label_bytes: usize,
    passed_over: usize,
}

/// What is read of a Node.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Item {
    metadata: Meta,
    #[serde(default)]
    spec: Spec,
    #[serde(default)]
    status: Status,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Meta {
    name: Option<String>,
    uid: Option<String>,
    labels: Option<BTreeMap<String, String>>,
    resource_version: Option<String>,
    deletion_timestamp: Option<Time>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Spec {
    unschedulable: Option<bool>,
    taints: Option<Vec<Key>>,
}

/// A taint's key, which says all that is asked.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Key {
    key: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Status {
    conditions: Option<Vec<Condition>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Condition {
    #[serde(rename = "type")]
    kind: String,
    status: String,
}

impl Item {
    fn into_node(self) -> Node {
        let Meta { name, uid, labels, deletion_timestamp, .. } = self.metadata;
        let Spec { unschedulable, taints } = self.spec;
        let taint = |taint: Key| Taint { key: taint.key, ..Taint::default() };
        let taints = taints.map(|all| all.into_iter().map(taint).collect());
        let ready = self.status.conditions.into_iter().flatten().filter(|c| c.kind == "Ready");
        let ready = ready.map(|Condition { kind, status }| NodeCondition {
            type_: kind,
            status,
            ..NodeCondition::default()
        });
        let conditions = Some(ready.collect());
        Node {
            metadata: ObjectMeta { name, uid, labels, deletion_timestamp, ..ObjectMeta::default() },
            spec: Some(NodeSpec { unschedulable, taints, ..NodeSpec::default() }),
            status: Some(NodeStatus { conditions, ..NodeStatus::default() }),
        }
    }

    fn label_bytes(&self) -> usize {
        self.metadata.labels.iter().flatten().map(|(key, value)| key.len() + value.len()).sum()
    }
}

impl Followed for ToIndex {
    type Item = Item;

    const WHAT: &'static str = "Nodes";

    fn list(params: &ListParams) -> Result<http::Request<Vec<u8>>, Unbuilt> {
        Request::new("/api/v1/nodes").list(params)
    }

    fn watch(params: &WatchParams, from: &str) -> Result<http::Request<Vec<u8>>, Unbuilt> {
        Request::new("/api/v1/nodes").watch(params, from)
    }

    fn version(item: &Item) -> Option<&str> {
        item.metadata.resource_version.as_deref()
    }

    fn begin(&mut self) {
        self.listed = Listed::default();
    }

    fn gather(&mut self, item: Item) {
        let listed = &mut self.listed;
        listed.label_bytes += item.label_bytes();
        if listed.nodes.len() < MAX_NODES && listed.label_bytes <= MAX_LABEL_BYTES {
            listed.nodes.push(item.into_node());
        } else {
            listed.passed_over += 1;
        }
    }

    fn listed(&mut self) {
        let Listed { nodes, passed_over, .. } = std::mem::take(&mut self.listed);
        if passed_over > 0 {
            tracing::warn!(shoot = %self.shoot, MAX_NODES, passed_over, "the shoot has too many Nodes");
        }
        self.index.nodes_listed(&self.shoot, &nodes);
    }

    fn put(&mut self, item: Item) {
        self.index.put_node(&self.shoot, &item.into_node());
    }

    fn gone(&mut self, item: Item) {
        if let Some(name) = item.metadata.name.and_then(|name| name.parse().ok()) {
            self.index.remove_node(&self.shoot, &name);
        }
    }
}
