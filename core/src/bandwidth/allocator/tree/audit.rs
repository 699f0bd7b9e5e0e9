//! What must be so after every step, reckoned anew from the pulls.

use std::collections::BTreeMap;

use super::*;
use crate::bandwidth::allocator::Allocator;
use crate::bandwidth::message::LEAST;

impl Allocator {
    /// Panics where sums, lists or bounds are wrong, or where somebody waits
    /// for what is free.
    pub(in crate::bandwidth) fn audit(&self) {
        let mut sums: BTreeMap<usize, (u128, u128, u32, u32, usize)> = BTreeMap::new();
        let (mut waiting, mut ends, mut of_node) = (0, 0, BTreeMap::new());
        for ((node, id), number) in &self.numbers {
            let pull = &self.pulls[*number];
            assert_eq!((&pull.node, pull.id), (node, *id));
            assert_eq!(self.tree.node(node), Some(pull.level));
            assert_eq!((pull.weighs(), pull.wishes()), (pull.weight, pull.wish));
            assert_eq!(pull.started.is_none(), pull.next_end().is_none(), "{pull:?}");
            assert!(pull.started.is_some() || pull.asked.is_some(), "{pull:?}");
            if let Some(end) = pull.next_end() {
                assert!(end > self.now && self.ends.contains(&(end, *number)), "{pull:?}");
                ends += 1;
            }
            waiting += usize::from(pull.started.is_none());
            *of_node.entry(node).or_insert(0) += 1;
            for level in self.tree.path(pull.level) {
                let sum = sums.entry(level).or_default();
                sum.0 += u128::from(pull.weight.counted.get());
                sum.1 += u128::from(pull.weight.granted.get());
                sum.2 += pull.weight.pulls();
                sum.3 += pull.weight.ending();
                if level == pull.level {
                    sum.4 += 1;
                }
            }
            if let Some(wish) = pull.wish.filter(|_| self.is_granting()) {
                let blocked = self.tree.path(pull.level).into_iter().any(|level| {
                    let level = &self.tree.levels[level];
                    let full = wish.is_start() && level.pulls >= level.most_pulls;
                    full || level.left() < LEAST.min(level.limit.rate())
                });
                assert!(blocked, "{pull:?} waits for what is free");
            }
        }
        assert_eq!((waiting, ends), (self.waiting, self.ends.len()));
        assert!(of_node.values().all(|pulls| *pulls <= 8), "{of_node:?}");
        assert_eq!(self.tree.numbers.len(), sums.len().max(1));
        for number in self.tree.numbers.values() {
            let level = &self.tree.levels[*number];
            let sum = sums.get(number).copied().unwrap_or_default();
            let kept = (level.counted, level.granted, level.pulls, level.ending);
            assert_eq!(kept, (sum.0, sum.1, sum.2, sum.3), "{:?}", level.name);
            if matches!(level.name, Name::Node(_)) {
                assert_eq!(level.below, sum.4);
            }
        }
    }

    /// Whether leases of the leader before it are counted still.
    pub(in crate::bandwidth) fn is_learning(&self) -> bool {
        self.learning.is_some()
    }

    /// What may be used of the seed, and its number of pulls.
    pub(in crate::bandwidth) fn counted(&self) -> (u128, u32) {
        let seed = &self.tree.levels[SEED];
        (seed.counted, seed.pulls)
    }
}
