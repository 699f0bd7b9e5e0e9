//! What is worked out for one node serves all that are like it.

use std::collections::BTreeMap;
use std::sync::Arc;

use rootstock_core::assign::{
    Assignment, Bundles, Claim, NodeFacts, Resolution, Sight, Turns, Verdict, assign, direct,
};
use rootstock_core::desired::{DesiredContent, Registry};
use rootstock_core::name::RuntimeType;

use crate::content::Content;

/// What a node should have, and why.
#[derive(Debug)]
pub(super) struct Assigned {
    /// For each claim that selects the node, by the resource's name.
    pub(super) verdicts: BTreeMap<String, Verdict>,
    /// For each type that it may be sent a bundle of, the resource that decides.
    pub(super) tracks: BTreeMap<RuntimeType, String>,
    pub(super) content: Arc<Content>,
}

impl Default for Assigned {
    fn default() -> Self {
        let content = Arc::new(DesiredContent::default().into());
        Self { verdicts: BTreeMap::new(), tracks: BTreeMap::new(), content }
    }
}

/// What all nodes of a shoot are assigned by.
#[derive(Clone, Copy)]
pub(super) struct Basis<'a> {
    pub(super) claims: &'a [Claim],
    pub(super) known: &'a Bundles,
    pub(super) registries: &'a BTreeMap<String, Registry>,
}

/// What the nodes of a shoot were assigned, as long as nothing but nodes change.
#[derive(Debug, Default)]
pub(super) struct Alike {
    by_sight: BTreeMap<(Sight, Turns), Arc<Assigned>>,
    /// The last content: most that comes anew is the same one.
    last: Option<Arc<Content>>,
}

impl Alike {
    /// Something else than nodes has changed.
    pub(super) fn forget(&mut self) {
        self.by_sight.clear();
    }

    /// What a node should have, as long as all but the node is as it was.
    pub(super) fn assign(
        &mut self,
        node: &NodeFacts,
        turns: &Turns,
        bundles: &BTreeMap<RuntimeType, Resolution>,
        basis: Basis<'_>,
    ) -> Arc<Assigned> {
        let sight = (Sight::of(node, basis.claims), turns.clone());
        if let Some(known) = self.by_sight.get(&sight) {
            return Arc::clone(known);
        }
        let assigned = self.alone(node, turns, bundles, basis);
        // A problem may name the node, and is then its own.
        let names_it = |verdict: &Verdict| match verdict {
            Verdict::Wanted(_) => false,
            Verdict::Held(problem) => problem.message.contains(node.name.as_str()),
        };
        if !assigned.verdicts.values().any(names_it) {
            self.by_sight.insert(sight, Arc::clone(&assigned));
        }
        assigned
    }

    /// What a node is assigned for which something else holds than for the others.
    pub(super) fn alone(
        &mut self,
        node: &NodeFacts,
        turns: &Turns,
        bundles: &BTreeMap<RuntimeType, Resolution>,
        basis: Basis<'_>,
    ) -> Arc<Assigned> {
        let Basis { claims, known, registries } = basis;
        let assignment = assign(node, claims, bundles, registries);
        let Assignment { content, verdicts, tracks } =
            direct(assignment, claims, turns, known, registries);
        let last = self.last.take().filter(|last| ***last == content);
        let content = last.unwrap_or_else(|| Arc::new(content.into()));
        self.last = Some(Arc::clone(&content));
        Arc::new(Assigned { verdicts, tracks, content })
    }
}
