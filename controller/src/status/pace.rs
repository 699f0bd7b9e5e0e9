//! How often one resource may be written.
//!
//! What nodes say reaches the seed's API only at this pace: a shoot's owner can
//! let nodes say something else twenty times a second, and a resource that the
//! API refuses must neither be asked for all the time nor hold up the others.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

use crate::index::RuntimeKey;

/// The least time between two writes of one resource, and the first pause
/// after a refused one; that doubles.
const GAP: Duration = Duration::from_secs(1);
/// The longest pause.
const LAST: Duration = Duration::from_secs(60);

/// When each resource may be written again. It knows only those that may not.
#[derive(Debug, Default)]
pub(super) struct Pace(BTreeMap<RuntimeKey, Pause>);

#[derive(Debug)]
struct Pause {
    until: Instant,
    /// How often it was refused in a row.
    refusals: u32,
}

impl Pace {
    /// Takes those out of `waiting` that may be written now.
    pub(super) fn take_due(
        &mut self,
        waiting: &mut BTreeSet<RuntimeKey>,
        now: Instant,
    ) -> Vec<RuntimeKey> {
        // Who has waited long enough after a write is as good as never seen.
        self.0.retain(|_, pause| pause.refusals > 0 || now < pause.until);
        let early = |key: &RuntimeKey| self.0.get(key).is_some_and(|pause| now < pause.until);
        let (early, due): (BTreeSet<_>, BTreeSet<_>) =
            std::mem::take(waiting).into_iter().partition(early);
        *waiting = early;
        due.into_iter().collect()
    }

    /// When the first of `waiting` may be written; none where nobody waits.
    pub(super) fn next(&self, waiting: &BTreeSet<RuntimeKey>, now: Instant) -> Option<Instant> {
        waiting.iter().map(|key| self.0.get(key).map_or(now, |pause| pause.until)).min()
    }

    /// It was written.
    pub(super) fn written(&mut self, key: RuntimeKey, now: Instant) {
        self.0.insert(key, Pause { until: now + GAP, refusals: 0 });
    }

    /// It was refused. Returns how long it is left alone.
    pub(super) fn refused(&mut self, key: RuntimeKey, now: Instant) -> Duration {
        let pause = self.0.entry(key).or_insert(Pause { until: now, refusals: 0 });
        let length = GAP.saturating_mul(2u32.saturating_pow(pause.refusals)).min(LAST);
        pause.refusals = pause.refusals.saturating_add(1);
        pause.until = now + length;
        length
    }

    /// There is nothing to write to it.
    pub(super) fn forget(&mut self, key: &RuntimeKey) {
        // The gap after a write stays: it may change again at once.
        if self.0.get(key).is_some_and(|pause| pause.refusals > 0) {
            self.0.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> RuntimeKey {
        RuntimeKey { shoot: "shoot--garden--one".parse().unwrap(), name: name.to_owned() }
    }

    #[test]
    fn a_resource_is_written_once_in_a_while_and_holds_nobody_up() {
        let start = Instant::now();
        let mut pace = Pace::default();
        let mut waiting: BTreeSet<_> = [key("a"), key("b")].into();
        assert_eq!(pace.next(&waiting, start), Some(start));
        assert_eq!(pace.take_due(&mut waiting, start), [key("a"), key("b")]);
        assert_eq!(pace.next(&waiting, start), None);
        pace.written(key("a"), start);
        waiting.extend([key("a"), key("b")]);
        assert_eq!(pace.take_due(&mut waiting, start), [key("b")]);
        pace.forget(&key("a"));
        assert_eq!(pace.next(&waiting, start), Some(start + GAP));
        assert_eq!(pace.take_due(&mut waiting, start + GAP), [key("a")]);
        assert!(waiting.is_empty() && pace.0.is_empty(), "nobody is remembered for ever");
    }

    #[test]
    fn refusals_are_farther_and_farther_apart() {
        let start = Instant::now();
        let mut pace = Pace::default();
        let pauses: Vec<_> = (0..9).map(|_| pace.refused(key("a"), start).as_secs()).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        let mut waiting: BTreeSet<_> = [key("a")].into();
        assert_eq!(pace.take_due(&mut waiting, start + LAST), [key("a")]);
        pace.written(key("a"), start);
        assert_eq!(pace.refused(key("a"), start), GAP, "a write begins anew");
    }
}
