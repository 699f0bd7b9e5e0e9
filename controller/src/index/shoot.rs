//! One shoot in the index.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use rootstock_core::name::NodeName;
use rootstock_core::rollout::Progress;

use super::agents::Agents;
use super::alike::Alike;
use super::claim::Runtime;
use super::installer::Installer;
use super::missed::Before;
use super::node::Node;
use super::object::NodeObject;
use super::rollout::Needed;
use super::{MAX_LABEL_BYTES, MAX_NODES};

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
    /// The number of its last change.
    pub(super) changed: u64,
    pub(super) runtimes: BTreeMap<String, Runtime>,
    pub(super) nodes: BTreeMap<NodeName, Node>,
    pub(super) alike: Alike,
    /// The bytes of their labels.
    label_bytes: usize,
    /// How far each ContainerRuntime's rollout is.
    pub(super) progress: BTreeMap<String, Progress>,
    /// When a ContainerRuntime came last, if one did.
    pub(super) came: Option<Instant>,
    /// The bundles that its rollouts may send.
    pub(super) needed: BTreeSet<Needed>,
    /// On which of them an agent's Pod lives.
    pub(super) agents: Agents,
    /// Since when sandboxes that could not be started are seen.
    pub(super) sandboxes_watched: Option<Instant>,
    /// Whose agent was missed before this term.
    pub(super) missed: Before,
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
            self.forget_nodes();
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
        if self.nodes.get(&object.facts.name).is_some_and(|node| node.object == object) {
            // A kubelet's heartbeat.
            return false;
        }
        let before = self.nodes.get(&object.facts.name).map(|node| node.object.label_bytes);
        let label_bytes = self.label_bytes - before.unwrap_or_default() + object.label_bytes;
        if label_bytes > MAX_LABEL_BYTES {
            tracing::debug!(node = %object.facts.name, "the shoot's Nodes have too many labels");
            return false;
        }
        match self.nodes.get_mut(&object.facts.name) {
            // A Node that is made anew under the same name is another one.
            Some(node) if node.object.uid == object.uid => node.renew(object),
            None if full => return false,
            Some(_) | None => {
                self.nodes.insert(object.facts.name.clone(), Node::new(object));
            }
        }
        self.label_bytes = label_bytes;
        true
    }

    pub(super) fn remove_node(&mut self, name: &NodeName) {
        if let Some(node) = self.nodes.remove(name) {
            self.label_bytes -= node.object.label_bytes;
        }
        self.agents.forget(name);
    }

    /// Takes these for all Nodes.
    pub(super) fn put_all_nodes(&mut self, objects: Vec<NodeObject>) {
        let present: BTreeSet<_> = objects.iter().map(|object| &object.facts.name).collect();
        self.nodes.retain(|name, _| present.contains(name));
        self.label_bytes = self.nodes.values().map(|node| node.object.label_bytes).sum();
        for object in objects {
            self.put_node(object);
        }
        if !self.nodes_listed {
            self.nodes.values_mut().for_each(Node::inherit);
        }
        self.nodes_listed = true;
    }

    /// Its Nodes are to be listed again before anything is known of them.
    pub(super) fn forget_nodes(&mut self) {
        self.nodes.clear();
        self.label_bytes = 0;
        self.nodes_listed = false;
        self.progress.clear();
        self.agents = Agents::default();
        self.sandboxes_watched = None;
    }
}
