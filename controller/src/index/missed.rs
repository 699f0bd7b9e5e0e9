//! Whose agent was missed before this term: a new leader need not expect it
//! for as long as one that never came.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use rootstock_core::name::NodeName;

use super::node::{Node, RETURN};
use super::{Index, RuntimeKey};

/// The nodes of a ContainerRuntime whose agent was away by the last word of the
/// leader before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Missed {
    /// These.
    Named(BTreeSet<NodeName>),
    /// More than were named: whoever is not back soon is taken for one of them.
    More,
}

/// Who was missed in a shoot when the term began, by ContainerRuntime.
#[derive(Debug, Default)]
pub(super) struct Before(BTreeMap<String, Missed>);

impl Before {
    /// Whether a node that has been expected `since` then was missed. One that
    /// came to be expected later, as when it is made anew, is another matter.
    pub(super) fn has(&self, node: &Node, since: Instant, begun: Instant) -> bool {
        let named = |(runtime, missed): (&String, &Missed)| {
            let is = match missed {
                Missed::Named(nodes) => nodes.contains(&node.object.facts.name),
                Missed::More => true,
            };
            is && node.assigned.verdicts.contains_key(runtime)
        };
        since <= begun + RETURN && self.0.iter().any(named)
    }
}

impl Index {
    /// A ContainerRuntime's status says who was missed, as the leader before
    /// has written it. What is told first in a term counts: later it is this
    /// leader's own word.
    pub fn missed_before(&self, key: &RuntimeKey, missed: impl FnOnce() -> Missed) {
        let mut state = self.lock();
        if state.begun.is_none() {
            return;
        }
        let Some(shoot) = state.shoots.get_mut(&key.shoot) else { return };
        if shoot.missed.0.contains_key(&key.name) {
            return;
        }
        let missed = missed();
        let nobody = missed == Missed::Named(BTreeSet::new());
        shoot.missed.0.insert(key.name.clone(), missed);
        if !nobody {
            state.assign(&key.shoot, None);
            self.raise();
        }
    }
}
