//! What a new leader does not know yet.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::bandwidth::Node;
use crate::bandwidth::message::{LONGEST, at_most};

/// A leader begins without knowing who holds what of the one before it, which
/// sends nothing more. It waits until every lease of that one has ended, or
/// until every agent that may hold one has said so.
///
/// An agent that has said Hello hears no grant from before, so what it said
/// stays true however late it comes.
#[derive(Debug)]
pub(super) struct Learning {
    /// When all leases of the leader before have ended.
    until: Duration,
    /// Who has said Hello.
    seen: BTreeSet<Node>,
    /// Who has not; none where nobody has told who there is.
    missing: Option<BTreeSet<Node>>,
}

impl Learning {
    pub(super) fn new(now: Duration) -> Self {
        // The longest that a grant lives which was sent just before.
        let longest = at_most(LONGEST).saturating_sub(crate::bandwidth::message::STALE);
        Self { until: now.saturating_add(longest), seen: BTreeSet::new(), missing: None }
    }

    /// When all leases of the leader before have ended.
    pub(super) fn until(&self) -> Duration {
        self.until
    }

    pub(super) fn is_over(&self, now: Duration) -> bool {
        now >= self.until || self.missing.as_ref().is_some_and(BTreeSet::is_empty)
    }

    pub(super) fn expect(&mut self, nodes: Vec<Node>) {
        let nodes = nodes.into_iter().filter(|node| !self.seen.contains(node));
        self.missing = Some(nodes.collect());
    }

    pub(super) fn saw(&mut self, node: &Node) {
        self.seen.insert(node.clone());
        if let Some(missing) = &mut self.missing {
            missing.remove(node);
        }
    }
}
