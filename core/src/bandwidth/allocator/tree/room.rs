//! What fits of all leases when budgets were lowered.

use std::collections::BTreeMap;

use super::Tree;
use crate::bandwidth::Rate;

/// What was kept of each level's budget so far.
#[derive(Debug, Default)]
pub(in crate::bandwidth::allocator) struct Room {
    kept: BTreeMap<usize, (u128, u32)>,
}

impl Room {
    /// How much of what a pull of the node was granted fits beside all that
    /// was kept before it: it is kept too, where it is enough to be worth a pull.
    pub(in crate::bandwidth::allocator) fn keep(
        &mut self,
        tree: &Tree,
        node: usize,
        granted: Rate,
        worth: impl Fn(Rate) -> Rate,
    ) -> Rate {
        let fits = tree.path(node).into_iter().fold(granted, |fits, number| {
            let level = &tree.levels[number];
            let (rate, pulls) = self.kept.get(&number).copied().unwrap_or_default();
            let left = level.limit.left(rate);
            if pulls < level.most_pulls { fits.min(left) } else { Rate::ZERO }
        });
        let kept = worth(fits);
        if kept > Rate::ZERO {
            for number in tree.path(node) {
                let (rate, pulls) = self.kept.entry(number).or_default();
                *rate += u128::from(kept.get());
                *pulls += 1;
            }
        }
        kept
    }
}
