//! What the links of an agent carry.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::bandwidth::Rate;

/// How many sources are remembered: a node has a registry and some mirrors.
const SOURCES: usize = 16;

/// What the way from each source carried, by what its pulls used of their leases.
#[derive(Debug, Default)]
pub(super) struct Links(BTreeMap<Arc<str>, Rate>);

impl Links {
    /// What a pull should have to be bound by its link and not by its lease;
    /// none where that is not known.
    pub(super) fn carries(&self, source: &str) -> Option<Rate> {
        self.0.get(source).copied()
    }

    /// A pull used so much of what it was granted.
    pub(super) fn learn(&mut self, source: &Arc<str>, used: Rate, granted: Rate) {
        let used100 = u128::from(used.get()) * 100;
        let percent = |of: u128| u128::from(granted.get()) * of;
        if used100 >= percent(97) {
            // The lease was the bound: the link carries that, and nobody knows how much more.
            if self.carries(source).is_some_and(|known| known <= granted) {
                self.0.remove(source);
            }
        } else if used100 < percent(85) {
            // As much more as the controller leaves where it trims a lease.
            self.0.insert(Arc::clone(source), used.scaled(21, 20));
            if self.0.len() > SOURCES {
                self.0.pop_first();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_is_known_where_it_was_the_bound() {
        let source = Arc::from("main");
        let mut links = Links::default();
        let cases = [
            // All of the lease was used: nothing is known.
            (100, 100, None),
            (90, 100, None),
            (40, 100, Some(42)),
            // A lease that is trimmed to its link tells nothing new.
            (40, 42, Some(42)),
            // Less than the link carries was granted.
            (20, 20, Some(42)),
            (20, 100, Some(21)),
            // It carries more than was known.
            (21, 21, None),
            (1000, u64::MAX, Some(1050)),
        ];
        for (used, granted, known) in cases {
            links.learn(&source, Rate::new(used), Rate::new(granted));
            assert_eq!(links.carries("main"), known.map(Rate::new), "{used} of {granted}");
        }
        assert_eq!(links.carries("mirror"), None);
        for n in 0..100 {
            links.learn(&n.to_string().into(), Rate::new(1), Rate::new(9));
        }
        assert_eq!(links.0.len(), SOURCES);
    }
}
