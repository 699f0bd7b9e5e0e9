//! One shoot in the index.

use std::collections::{BTreeMap, BTreeSet};

use rootstock_core::name::NodeName;

use super::MAX_NODES;
use super::claim::Runtime;
use super::installer::Installer;
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
    /// Who installed gVisor before.
    pub(super) installer: Installer,
    /// The ContainerRuntimes by which it leaves this seed. One that is gone
    /// stays here with the shoot: it was not given up but taken along.
    pub(super) migrating: BTreeSet<String>,
}

impl Shoot {
    /// Whether it leaves this seed, or has left it: nothing is sent to its
    /// nodes, and nothing is taken from what is seen of them.
    pub(super) fn is_suspended(&self) -> bool {
        !self.migrating.is_empty()
    }

    /// A ContainerRuntime leaves with the shoot, or does not. Tells whether
    /// the shoot was suspended by it, or no longer is.
    pub(super) fn set_migrating(&mut self, name: &str, leaves: bool) -> bool {
        let before = self.is_suspended();
        if !leaves {
            self.migrating.remove(name);
        } else if !self.migrating.contains(name) {
            self.migrating.insert(name.to_owned());
        }
        if self.is_suspended() {
            // Who listens for a node is told by its end. What they have is
            // asked anew, on whichever seed.
            self.nodes.clear();
            self.nodes_listed = false;
            self.state = ShootState::Unknown;
        }
        before != self.is_suspended()
    }

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
