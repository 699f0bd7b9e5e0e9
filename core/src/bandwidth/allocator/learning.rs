//! What a new leader does not know yet.

use std::collections::HashMap;
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
    /// Who is known, and whether they have said Hello.
    nodes: HashMap<Node, bool>,
    /// How many have not; none where nobody has told who there is.
    missing: Option<usize>,
}

impl Learning {
    pub(super) fn new(now: Duration) -> Self {
        // The longest that a grant lives which was sent just before.
        let longest = at_most(LONGEST).saturating_sub(crate::bandwidth::message::STALE);
        Self { until: now.saturating_add(longest), nodes: HashMap::new(), missing: None }
    }

    /// When all leases of the leader before have ended.
    pub(super) fn until(&self) -> Duration {
        self.until
    }

    pub(super) fn is_over(&self, now: Duration) -> bool {
        now >= self.until || self.missing == Some(0)
    }

    pub(super) fn expect(&mut self, nodes: Vec<Node>) {
        self.nodes.retain(|_, said| *said);
        let mut missing = 0;
        for node in nodes {
            self.nodes.entry(node).or_insert_with(|| {
                missing += 1;
                false
            });
        }
        self.missing = Some(missing);
    }

    /// A node says Hello. Whether it does so for the first time.
    pub(super) fn saw(&mut self, node: &Node) -> bool {
        let before = self.nodes.insert(node.clone(), true);
        if let (Some(false), Some(missing)) = (before, &mut self.missing) {
            *missing -= 1;
        }
        before != Some(true)
    }
}
