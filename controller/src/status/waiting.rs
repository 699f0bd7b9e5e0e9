//! Who is looked at when.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rootstock_daemon::error::Chain;
use tokio::time::Instant;

use super::pace::Pace;
use super::{BEHIND, Outcome};
use crate::index::RuntimeKey;

/// A resource's version, which says no more than whether it is the same.
pub(super) type Version = Option<String>;

/// Who waits for what.
pub(super) struct Waiting {
    /// Until when less may be known than an earlier controller knew.
    settled: Instant,
    /// Those to look at as soon as their pace allows.
    now: BTreeSet<RuntimeKey>,
    /// Those to look at by then, if nothing changes before.
    later: BTreeMap<RuntimeKey, Instant>,
    pace: Pace,
    /// Versions that are known to be outdated, and how long the watch may
    /// take to bring the next.
    behind: BTreeMap<RuntimeKey, (Version, Instant)>,
    /// Those that are looked at now.
    busy: BTreeSet<RuntimeKey>,
    /// Those of them that changed meanwhile.
    again: BTreeSet<RuntimeKey>,
    /// Those that this controller has spoken for already.
    spoken: BTreeSet<RuntimeKey>,
}

/// One to look at.
#[derive(Debug)]
pub(super) struct Due {
    pub(super) key: RuntimeKey,
    /// How long it may take until all is known of it that was known before,
    /// where nothing was said of it yet.
    pub(super) settles: Option<Duration>,
}

impl Waiting {
    pub(super) fn new(settled: Instant) -> Self {
        let (now, later, pace, behind) = Default::default();
        let (busy, again, spoken) = Default::default();
        Self { settled, now, later, pace, behind, busy, again, spoken }
    }

    /// These changed.
    pub(super) fn add(&mut self, keys: impl IntoIterator<Item = RuntimeKey>) {
        let (again, now): (Vec<_>, Vec<_>) =
            keys.into_iter().partition(|key| self.busy.contains(key));
        self.again.extend(again);
        self.now.extend(now);
    }

    /// When there is somebody to look at; none where nobody waits.
    pub(super) fn next(&self, now: Instant) -> Option<Instant> {
        let later = self.later.values().min().copied();
        self.pace.next(&self.now, now).into_iter().chain(later).min()
    }

    /// Takes those out that may be looked at now. `version` is what the watch has.
    pub(super) fn take_due(
        &mut self,
        now: Instant,
        version: impl Fn(&RuntimeKey) -> Option<Version>,
    ) -> Vec<Due> {
        let later = self.later.extract_if(.., |_, until| *until <= now);
        self.now.extend(later.map(|(key, _)| key));
        if now >= self.settled {
            self.spoken.clear();
        }
        let due = self.pace.take_due(&mut self.now, now);
        let due = due.into_iter().filter_map(|key| {
            match self.behind.get(&key) {
                Some((outdated, until))
                    if version(&key).as_ref() == Some(outdated) && now < *until =>
                {
                    self.later.insert(key, *until);
                    return None;
                }
                _ => {}
            }
            self.behind.remove(&key);
            self.later.remove(&key);
            self.busy.insert(key.clone());
            let early = now < self.settled && !self.spoken.contains(&key);
            Some(Due { key, settles: early.then(|| self.settled - now) })
        });
        due.collect()
    }

    /// Notes what became of a look.
    pub(super) fn note(
        &mut self,
        key: RuntimeKey,
        version: Version,
        outcome: Outcome,
        now: Instant,
    ) {
        self.busy.remove(&key);
        self.now.extend(self.again.take(&key));
        match outcome {
            Outcome::Closed => self.pace.forget(&key),
            Outcome::Later(wait) => {
                self.pace.forget(&key);
                self.later.insert(key, now + wait);
            }
            Outcome::Same(again) => {
                self.pace.forget(&key);
                self.later.extend(again.map(|again| (key.clone(), now + again)));
                self.spoken.insert(key);
            }
            Outcome::Written => {
                self.spoken.insert(key.clone());
                self.wait_for_next(key, version, now);
            }
            Outcome::Conflict => self.wait_for_next(key, version, now),
            Outcome::Refused(error) => {
                let pause = self.pace.refused(key.clone(), now);
                let (shoot, name, error) = (&key.shoot, &key.name, Chain(&error));
                tracing::warn!(%shoot, name, %error, ?pause, "status not written");
                self.now.insert(key);
            }
        }
    }
    /// It is looked at again when the watch has its next version: what was
    /// written then is the same, and what was refused is done again.
    fn wait_for_next(&mut self, key: RuntimeKey, version: Version, now: Instant) {
        self.later.insert(key.clone(), now + BEHIND);
        self.behind.insert(key.clone(), (version, now + BEHIND));
        self.pace.written(key, now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_says_something_else_later_is_looked_at_then() {
        let (now, second) = (Instant::now(), Duration::from_secs(1));
        let key = RuntimeKey { shoot: "shoot--garden--one".parse().unwrap(), name: "a".to_owned() };
        let mut waiting = Waiting::new(now);
        waiting.add([key.clone()]);
        assert_eq!(waiting.take_due(now, |_| None).len(), 1);
        // It changed while it was looked at, and is not looked at twice at once.
        waiting.add([key.clone()]);
        assert_eq!((waiting.next(now), waiting.take_due(now, |_| None).len()), (None, 0));
        waiting.note(key.clone(), None, Outcome::Same(Some(600 * second)), now);
        assert_eq!(waiting.take_due(now, |_| None).len(), 1);
        waiting.note(key.clone(), None, Outcome::Same(Some(600 * second)), now);
        assert_eq!(waiting.next(now), Some(now + 600 * second));
        assert!(waiting.take_due(now + 599 * second, |_| None).is_empty());
        assert_eq!(waiting.take_due(now + 600 * second, |_| None).len(), 1);
        waiting.note(key, None, Outcome::Same(None), now);
        assert_eq!(waiting.next(now), None);
    }
}
