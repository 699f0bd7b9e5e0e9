//! How often something has happened since it was last told: an Event has a
//! count that rises, and says so again each time.

use std::collections::BTreeMap;

use rootstock_core::name::Uid;

/// The Events of one shoot whose counts are remembered. An Event lives for an
/// hour; whoever may write Events can make any number.
const MAX_EVENTS: usize = 4096;

/// The counts that were told.
#[derive(Debug, Default)]
pub(super) struct Increments {
    told: BTreeMap<Uid, u32>,
    /// What the list has, while one is under way.
    listing: Option<BTreeMap<Uid, u32>>,
    /// Whether there was a list: what the first one has happened before.
    known: bool,
    /// Whether there were more than are remembered.
    full: bool,
}

impl Increments {
    /// A list begins; what it does not have is gone.
    pub(super) fn begin(&mut self) {
        self.listing = Some(BTreeMap::new());
    }

    /// The list is whole.
    pub(super) fn listed(&mut self) {
        if let Some(listed) = self.listing.take() {
            self.full = listed.len() >= MAX_EVENTS;
            self.told = listed;
            self.known = true;
        }
    }

    /// An Event has this count: by how many that is more than was told.
    pub(super) fn more(&mut self, event: Uid, count: u32) -> u32 {
        let more = match self.told.get(&event) {
            Some(told) => count.saturating_sub(*told),
            None if !self.known => 0,
            // It may be one that was not remembered.
            None if self.full => 1,
            None => count,
        };
        if self.told.len() < MAX_EVENTS || self.told.contains_key(&event) {
            // A list that breaks off must not make anything count twice.
            if self.known {
                self.told.insert(event.clone(), count);
            }
        } else {
            self.full = true;
        }
        if let Some(listing) = self.listing.as_mut().filter(|all| all.len() < MAX_EVENTS) {
            listing.insert(event, count);
        }
        more
    }

    /// An Event is gone.
    pub(super) fn forget(&mut self, event: &Uid) {
        self.told.remove(event);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uid(name: &str) -> Uid {
        name.parse().unwrap()
    }

    fn list(all: &mut Increments, events: &[(&str, u32)]) -> Vec<u32> {
        all.begin();
        let more = events.iter().map(|(name, count)| all.more(uid(name), *count)).collect();
        all.listed();
        more
    }

    #[test]
    fn what_was_there_at_first_is_the_base() {
        let mut all = Increments::default();
        assert_eq!(list(&mut all, &[("a", 7), ("b", 1)]), [0, 0]);
        let told = [("a", 9), ("a", 9), ("c", 1), ("c", 2), ("b", 1), ("a", 3)];
        let more: Vec<_> = told.iter().map(|(name, count)| all.more(uid(name), *count)).collect();
        assert_eq!(more, [2, 0, 1, 1, 0, 0]);
    }

    #[test]
    fn a_later_list_tells_what_was_missed() {
        let mut all = Increments::default();
        list(&mut all, &[("a", 7)]);
        // One that breaks off, and the whole one after it.
        all.begin();
        assert_eq!(all.more(uid("a"), 8), 1);
        assert_eq!(list(&mut all, &[("a", 8), ("b", 4)]), [0, 4]);
        all.forget(&uid("b"));
        assert_eq!(list(&mut all, &[("a", 8)]), [0]);
    }

    #[test]
    fn a_first_list_that_breaks_off_is_no_base() {
        let mut all = Increments::default();
        all.begin();
        assert_eq!(all.more(uid("a"), 8), 0);
        assert_eq!(list(&mut all, &[("a", 9)]), [0]);
        assert_eq!(all.more(uid("a"), 10), 1);
    }

    #[test]
    fn of_more_than_are_remembered_each_word_counts_once() {
        let mut all = Increments::default();
        list(&mut all, &[]);
        for n in 0..MAX_EVENTS {
            assert_eq!(all.more(uid(&format!("e{n}")), 1), 1);
        }
        assert_eq!(all.more(uid("x"), 50), 50, "nothing was forgotten until here");
        assert_eq!(all.more(uid("x"), 51), 1);
        assert_eq!(all.told.len(), MAX_EVENTS);
    }
}
