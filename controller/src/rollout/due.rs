//! Which shoot is looked at when.

use std::collections::BTreeMap;
use std::time::Duration;

use rootstock_core::name::ShootName;
use tokio::time::Instant;

/// The least time between two looks at one shoot: what its nodes say meanwhile
/// is looked at together. A pause has to be heard within a second.
const PACE: Duration = Duration::from_millis(100);
/// The pause after a look that could not be ended; it doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// The longest.
const LAST_PAUSE: Duration = Duration::from_secs(10);
/// The longest without a look: clocks of windows and deadlines are checked then.
const LONGEST: Duration = Duration::from_secs(60);

/// What a look was about.
pub(super) type Fingerprints = BTreeMap<ShootName, u64>;

/// What came of a look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// All of it was done; it is looked at again when something changes, and
    /// after so long.
    Done(Option<Duration>),
    /// It could not be ended.
    Again,
}

/// Who is due.
#[derive(Debug, Default)]
pub(super) struct Due(BTreeMap<ShootName, Shoot>);

#[derive(Debug)]
struct Shoot {
    /// What there is to look at.
    now: u64,
    /// What was looked at last.
    seen: Option<u64>,
    /// Not before then.
    not_before: Instant,
    /// By then at the latest.
    at_the_latest: Option<Instant>,
    busy: bool,
    failed: u32,
}

impl Due {
    /// These are the shoots, as they are now.
    pub(super) fn see(&mut self, shoots: Fingerprints, now: Instant) {
        self.0.retain(|name, shoot| shoot.busy || shoots.contains_key(name));
        for (name, fingerprint) in shoots {
            let new = || Shoot {
                now: 0,
                seen: None,
                not_before: now,
                at_the_latest: None,
                busy: false,
                failed: 0,
            };
            self.0.entry(name).or_insert_with(new).now = fingerprint;
        }
    }

    /// Something changed for all of them.
    pub(super) fn all(&mut self) {
        self.0.values_mut().for_each(|shoot| shoot.seen = None);
    }

    /// One that may be looked at now. It is busy until its outcome is noted.
    pub(super) fn take(&mut self, now: Instant) -> Option<ShootName> {
        let ready = |shoot: &Shoot| shoot.when().is_some_and(|when| when <= now);
        let (name, shoot) = self.0.iter_mut().find(|(_, shoot)| ready(shoot))?;
        shoot.busy = true;
        shoot.seen = Some(shoot.now);
        shoot.not_before = now + PACE;
        Some(name.clone())
    }

    /// When the next one may be looked at.
    pub(super) fn next(&self, now: Instant) -> Option<Instant> {
        let next = self.0.values().filter_map(Shoot::when).min();
        // Who is ready and waits for others is looked at when one of them is done.
        next.filter(|next| *next > now)
    }

    /// What came of a look.
    pub(super) fn note(&mut self, name: &ShootName, outcome: Outcome, now: Instant) {
        let Some(shoot) = self.0.get_mut(name) else { return };
        shoot.busy = false;
        match outcome {
            Outcome::Done(again) => {
                shoot.failed = 0;
                shoot.at_the_latest = Some(now + again.unwrap_or(LONGEST).clamp(PACE, LONGEST));
            }
            Outcome::Again => {
                let pause = FIRST_PAUSE * 2_u32.saturating_pow(shoot.failed.min(8));
                shoot.failed += 1;
                shoot.seen = None;
                shoot.not_before = now + pause.min(LAST_PAUSE);
            }
        }
    }
}

impl Shoot {
    /// When it is to be looked at; none where that is not known.
    fn when(&self) -> Option<Instant> {
        if self.busy {
            return None;
        }
        if self.seen != Some(self.now) {
            return Some(self.not_before);
        }
        self.at_the_latest.map(|latest| latest.max(self.not_before))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shoot_is_looked_at_when_it_changed_and_not_too_often() {
        let name: ShootName = "shoot--garden--one".parse().unwrap();
        let now = Instant::now();
        let at = |millis| now + Duration::from_millis(millis);
        let mut due = Due::default();
        let see = |due: &mut Due, number, millis| {
            due.see([(name.clone(), number)].into(), at(millis));
        };
        see(&mut due, 1, 0);
        assert_eq!(due.take(at(0)), Some(name.clone()));
        // It changes while it is looked at, and is not looked at twice at once.
        see(&mut due, 2, 10);
        assert_eq!((due.take(at(10)), due.next(at(10))), (None, None));
        due.note(&name, Outcome::Done(None), at(20));
        assert_eq!((due.take(at(20)), due.next(at(20))), (None, Some(at(100))));
        assert_eq!(due.take(at(100)), Some(name.clone()));
        due.note(&name, Outcome::Done(Some(Duration::from_secs(5))), at(110));
        assert_eq!(due.next(at(110)), Some(at(5110)));
        // What could not be ended is tried again, later and later.
        assert_eq!(due.take(at(5110)), Some(name.clone()));
        due.note(&name, Outcome::Again, at(5110));
        assert_eq!(due.next(at(5110)), Some(at(5310)));
        assert_eq!(due.take(at(5310)), Some(name.clone()));
        due.note(&name, Outcome::Again, at(5310));
        assert_eq!(due.next(at(5310)), Some(at(5710)));
        assert_eq!(due.take(at(5710)), Some(name.clone()));
        due.note(&name, Outcome::Done(None), at(5710));
        due.all();
        assert_eq!(due.take(at(6000)), Some(name.clone()));
        // One that is gone is forgotten once nobody is at it.
        due.see(Fingerprints::new(), at(6000));
        due.note(&name, Outcome::Done(None), at(6000));
        due.see(Fingerprints::new(), at(6000));
        assert!(due.0.is_empty());
    }
}
