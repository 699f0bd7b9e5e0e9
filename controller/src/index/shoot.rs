//! One shoot in the index.

use std::collections::BTreeMap;

use rootstock_core::name::NodeName;

use super::MAX_NODES;
use super::claim::Runtime;
use super::node::{Node, NodeObject};

/// What is known of a shoot's API.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ShootState {
    /// Its Nodes have not been listed yet.
    #[default]
    Unknown,
    /// They are known.
    Known,
    /// It can't be reached; its nodes are as they were last seen.
    Unreachable(String),
    /// It sleeps.
    Hibernated,
}

#[derive(Debug, Default)]
pub(super) struct Shoot {
    pub(super) state: ShootState,
    /// Whether its Nodes have been seen as a whole. They stay known while the
    /// shoot's API is away.
    pub(super) nodes_listed: bool,
    pub(super) runtimes: BTreeMap<String, Runtime>,
    pub(super) nodes: BTreeMap<NodeName, Node>,
}

impl Shoot {
    /// The nodes that match the selector of a ContainerRuntime, whatever their other labels.
    pub(super) fn matched_by(&self, runtime: &Runtime) -> Vec<&NodeName> {
        let Some(Ok(ask)) = runtime.claim.as_ref().map(|claim| &claim.ask) else {
            return Vec::new();
        };
        let facts = self.nodes.values().map(|node| &node.object.facts);
        facts.filter(|facts| ask.selector.matches(&facts.labels)).map(|facts| &facts.name).collect()
    }

    /// Takes a Node in; tells whether anything is new.
    pub(super) fn put_node(&mut self, object: NodeObject) -> bool {
        let full = self.nodes.len() >= MAX_NODES;
        match self.nodes.get_mut(&object.facts.name) {
            // A kubelet's heartbeat.
            Some(node) if node.object == object => return false,
            // A Node that is made anew under the same name is another one.
            Some(node) if node.object.uid == object.uid => node.object = object,
            None if full => return false,
            Some(_) | None => {
                self.nodes.insert(object.facts.name.clone(), Node::new(object));
            }
        }
        true
    }
}
