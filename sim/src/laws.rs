//! What must hold at every moment, whatever happens.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use rootstock_core::digest::Digest;
use rootstock_core::name::Uid;
use rootstock_core::state::State;

use crate::clock;

/// A law.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Law {
    /// No more flows than the budgets allow.
    Bytes,
    /// No node has a second slot for what it tried, or while one is out.
    SlotsTwice,
    /// No node restarts containerd without a recorded slot.
    WithoutSlot,
    /// No more nodes restart at once than may be unavailable.
    Unavailable,
    /// A bundle breaks the canary and no other node.
    Broken,
    /// It ends as it should.
    Converged,
}

/// A law that was broken, and when.
#[derive(Clone, Debug)]
pub(crate) struct Violation {
    /// Which.
    pub(crate) law: Law,
    /// In virtual time.
    pub(crate) at: Duration,
    /// What exactly.
    pub(crate) what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} at {:.3} s: {}", self.law, self.at.as_secs_f64(), self.what)
    }
}

/// So many violations are kept in words; all are counted.
const KEPT: usize = 20;

/// Everything that the laws have to know.
#[derive(Debug, Default)]
pub(crate) struct Laws {
    /// The first violations.
    pub(crate) violations: Vec<Violation>,
    /// How many there were, by law.
    pub(crate) counts: BTreeMap<Law, u64>,
    /// The nodes that a bundle broke.
    pub(crate) broken: BTreeSet<usize>,
    /// What each node tried with a slot, and it said something of the bundle.
    tried: BTreeSet<(usize, Digest)>,
    /// Nodes that activate with a slot, by shoot.
    pub(crate) activating: Vec<usize>,
    numbers: BTreeMap<Uid, usize>,
    /// How many slots were recorded.
    pub(crate) slots: u64,
}

impl Laws {
    /// Nothing has happened in so many shoots.
    pub(crate) fn new(shoots: usize) -> Self {
        Self { activating: vec![0; shoots], ..Self::default() }
    }

    /// A node has come.
    pub(crate) fn know(&mut self, uid: Uid, number: usize) {
        self.numbers.insert(uid, number);
    }

    /// A law was broken.
    pub(crate) fn broke(&mut self, law: Law, at: Duration, what: String) {
        *self.counts.entry(law).or_default() += 1;
        if self.violations.len() < KEPT {
            self.violations.push(Violation { law, at, what });
        }
    }

    /// How often a law was broken.
    pub(crate) fn count(&self, law: Law) -> u64 {
        self.counts.get(&law).copied().unwrap_or(0)
    }

    /// A state is recorded over another one: every new slot is looked at.
    pub(crate) fn recorded(&mut self, before: &State, after: &State, now: Duration) {
        let before: BTreeMap<&Uid, _> =
            before.slots.iter().map(|slot| (&slot.node, slot)).collect();
        let mut seen = BTreeSet::new();
        for slot in &after.slots {
            if !seen.insert(&slot.node) {
                self.broke(Law::SlotsTwice, now, format!("{} has two slots", slot.node));
            }
            match before.get(&slot.node) {
                Some(old) if (old.digest, old.until) == (slot.digest, slot.until) => continue,
                // It has run out: nobody may act on it any more.
                Some(old) if old.until <= clock::wall(now) => {}
                Some(_) => {
                    let what = format!("{} has a slot, and another one is out", slot.node);
                    self.broke(Law::SlotsTwice, now, what);
                }
                None => {}
            }
            self.slots += 1;
            let number = self.numbers.get(&slot.node).copied();
            if number.is_some_and(|number| self.tried.contains(&(number, slot.digest))) {
                let what = format!("{} has tried {} with a slot before", slot.node, slot.digest);
                self.broke(Law::SlotsTwice, now, what);
            }
        }
    }

    /// A node begins to activate with a slot, which must be recorded.
    pub(crate) fn began(&mut self, uid: &Uid, digest: Digest, recorded: &State, now: Duration) {
        let good = recorded
            .slots
            .iter()
            .any(|slot| slot.node == *uid && slot.digest == digest && clock::at(slot.until) > now);
        if !good {
            self.broke(
                Law::WithoutSlot,
                now,
                format!("{uid} activates {digest}, no slot is recorded"),
            );
        }
    }

    /// What a node tried with a slot says something of the bundle.
    pub(crate) fn tried(&mut self, number: usize, digest: Digest) {
        self.tried.insert((number, digest));
    }
}

#[cfg(test)]
mod tests {
    use rootstock_core::rollout::record::Slot;

    use super::*;

    fn slot(node: &str, digest: &str, until: u64) -> Slot {
        Slot {
            node: node.parse().unwrap(),
            digest: Digest::of(digest.as_bytes()),
            until: clock::wall(Duration::from_secs(until)),
            silent: None,
            more: serde_json::Map::new(),
        }
    }

    fn state(slots: &[Slot]) -> State {
        State { slots: slots.to_vec(), ..State::default() }
    }

    #[test]
    fn a_slot_that_is_given_twice_is_seen() {
        let (one, none) = (slot("uid-1", "new", 60), state(&[]));
        let later = slot("uid-1", "new", 90);
        let cases: [(&[Slot], &[Slot], bool, u64); 5] = [
            (&[], std::slice::from_ref(&one), false, 0),
            (std::slice::from_ref(&one), std::slice::from_ref(&one), false, 0),
            // While another one is out, two at once, and of what was tried.
            (std::slice::from_ref(&one), std::slice::from_ref(&later), false, 1),
            (&[], &[one.clone(), later.clone()], false, 1),
            (&[], std::slice::from_ref(&later), true, 1),
        ];
        for (before, after, tried, twice) in cases {
            let mut laws = Laws::new(1);
            laws.know("uid-1".parse().unwrap(), 1);
            if tried {
                laws.tried(1, one.digest);
            }
            laws.recorded(&state(before), &state(after), Duration::ZERO);
            assert_eq!(laws.count(Law::SlotsTwice), twice, "{before:?} {after:?}");
            laws.recorded(&state(after), &none, Duration::ZERO);
            assert_eq!(laws.count(Law::SlotsTwice), twice, "one that comes back is none");
        }
    }

    #[test]
    fn a_node_that_activates_what_it_has_no_slot_for_is_seen() {
        let uid: Uid = "uid-1".parse().unwrap();
        let recorded = state(&[slot("uid-1", "new", 60)]);
        let cases = [("new", 59, 0), ("new", 60, 1), ("old", 1, 1)];
        for (digest, at, without) in cases {
            let mut laws = Laws::new(1);
            let digest = Digest::of(digest.as_bytes());
            laws.began(&uid, digest, &recorded, Duration::from_secs(at));
            assert_eq!(laws.count(Law::WithoutSlot), without, "{digest} {at}");
        }
    }
}
