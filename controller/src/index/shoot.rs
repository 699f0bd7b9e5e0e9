//! One shoot in the index.

use std::collections::BTreeMap;

use rootstock_core::name::NodeName;

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
    pub(super) fn put_node(&mut self, object: NodeObject) {
        match self.nodes.get_mut(&object.facts.name) {
            // A Node that is made anew under the same name is another one.
            Some(node) if node.object.uid == object.uid => node.object = object,
            _ => {
                self.nodes.insert(object.facts.name.clone(), Node::new(object));
            }
        }
    }
}
