//! On which nodes of a shoot a Pod of the agent lives: a node's certificate was
//! given for one, and is good for nothing where none is left.

use std::collections::{BTreeMap, BTreeSet};

use rootstock_core::name::{NodeName, ShootName, Uid};

use super::{Index, MAX_NODES};
use crate::identity::NodeId;

/// A Pod of the agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentPod {
    /// The node that it is on.
    pub node: NodeName,
    /// Its UID.
    pub uid: Uid,
    /// Whether it is there, is the DaemonSet's, and has not been told to go.
    pub lives: bool,
}

/// The agent's Pods of a shoot.
#[derive(Debug, Default)]
pub(super) struct Agents {
    /// Whether these are all. What is not known ends nothing: while they have
    /// not been listed, or are not watched, nobody lacks one.
    known: bool,
    by_node: BTreeMap<NodeName, Pods>,
    /// Those that were vouched for since a list began: it may be older.
    meanwhile: BTreeSet<(NodeName, Uid)>,
}

/// The Pods of one node: one, or two for a moment.
#[derive(Debug, Default)]
struct Pods {
    living: Vec<Uid>,
    /// The last that ended, which may be vouched for too late.
    ended: Option<Uid>,
}

impl Agents {
    /// Whether it is known that no Pod of the agent lives on a node.
    pub(super) fn lacks(&self, node: &NodeName) -> bool {
        self.known && self.by_node.get(node).is_none_or(|pods| pods.living.is_empty())
    }

    /// Of how many nodes something is known.
    #[cfg(test)]
    pub(super) fn nodes(&self) -> usize {
        self.by_node.len()
    }

    fn begin_list(&mut self) {
        self.meanwhile.clear();
    }

    /// Takes these for all.
    fn list(&mut self, all: Vec<AgentPod>) {
        self.known = true;
        self.by_node.clear();
        for pod in all {
            self.put(pod);
        }
        for (node, uid) in std::mem::take(&mut self.meanwhile) {
            self.vouch(node, uid);
        }
    }

    fn put(&mut self, pod: AgentPod) {
        let AgentPod { node, uid, lives } = pod;
        if !lives {
            if let Some(pods) = self.by_node.get_mut(&node) {
                pods.living.retain(|living| *living != uid);
                pods.ended = Some(uid);
            }
        } else if self.by_node.len() < MAX_NODES || self.by_node.contains_key(&node) {
            self.by_node.entry(node).or_default().add(uid);
        } else {
            // A shoot's owner can create any number, of which these are not all.
            self.known = false;
        }
    }

    /// A Pod lives, as the shoot's API has just said.
    fn vouch(&mut self, node: NodeName, uid: Uid) {
        if self.by_node.get(&node).is_some_and(|pods| pods.ended.as_ref() == Some(&uid)) {
            return;
        }
        if !self.known {
            self.meanwhile.insert((node.clone(), uid.clone()));
        }
        self.put(AgentPod { node, uid, lives: true });
    }

    fn doubt(&mut self) {
        self.known = false;
    }

    /// A node is not there (any more): which Pod of it ended is of no use.
    pub(super) fn forget(&mut self, node: &NodeName) {
        if self.by_node.get(node).is_some_and(|pods| pods.living.is_empty()) {
            self.by_node.remove(node);
        }
    }
}

impl Pods {
    fn add(&mut self, uid: Uid) {
        if !self.living.contains(&uid) {
            self.living.push(uid);
        }
    }
}

impl Index {
    /// The agent's Pods of a shoot are being listed from here on.
    pub(crate) fn agents_being_listed(&self, shoot: &ShootName) {
        if let Some(shoot) = self.lock().shoots.get_mut(shoot) {
            shoot.agents.begin_list();
        }
    }

    /// These are all Pods of the agent in a shoot. Streams of nodes without
    /// one end.
    pub fn agents_listed(&self, shoot: &ShootName, pods: Vec<AgentPod>) {
        let mut state = self.lock();
        let Some(shoot) = state.shoots.get_mut(shoot) else { return };
        if shoot.is_suspended() {
            return;
        }
        shoot.agents.list(pods);
        for (name, node) in &mut shoot.nodes {
            if shoot.agents.lacks(name) {
                node.hang_up();
            }
        }
    }

    /// A Pod of the agent is there, or has changed, or is gone. With its last
    /// one a node loses its stream.
    pub fn put_agent(&self, shoot: &ShootName, pod: AgentPod) {
        let mut state = self.lock();
        let Some(shoot) = state.shoots.get_mut(shoot) else { return };
        if shoot.is_suspended() {
            return;
        }
        let name = pod.node.clone();
        shoot.agents.put(pod);
        match shoot.nodes.get_mut(&name) {
            Some(node) if shoot.agents.lacks(&name) => node.hang_up(),
            Some(_) => {}
            None => shoot.agents.forget(&name),
        }
    }

    /// The agent's Pods of a shoot are not followed any more.
    pub fn agents_unknown(&self, shoot: &ShootName) {
        if let Some(shoot) = self.lock().shoots.get_mut(shoot) {
            shoot.agents.doubt();
        }
    }

    /// Enrolment has just seen that a Pod of the agent lives on a node, which
    /// the watch may tell later.
    pub fn vouch(&self, id: &NodeId, pod: &Uid) {
        if let Some(shoot) = self.lock().shoots.get_mut(&id.shoot) {
            shoot.agents.vouch(id.name.clone(), pod.clone());
        }
    }

    /// Whether it is known that no Pod of the agent lives on a node.
    pub fn lacks_agent(&self, id: &NodeId) -> bool {
        self.lock().shoots.get(&id.shoot).is_some_and(|shoot| shoot.agents.lacks(&id.name))
    }
}
