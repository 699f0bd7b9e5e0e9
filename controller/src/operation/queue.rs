//! Which object's turn it is: scheduling alone, with time as an argument.
//!
//! ```text
//!            ask ─▶ ready ─pop─▶ running ─done─▶ idle
//!                     ▲            │  asked meanwhile: ready again
//!                     └── due ◀────┘  to be looked at later, or failed
//! ```
//!
//! An object is in the queue once, however often it is asked for, and is never
//! run twice at one time.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

/// The first pause after a failure; it doubles. As in controller-runtime.
const FIRST: Duration = Duration::from_millis(5);
/// The longest pause.
const LAST: Duration = Duration::from_secs(1000);
/// The longest pause after what passes by itself: an API that was away for an
/// hour is not worth a quarter of an hour more.
const LAST_PASSING: Duration = Duration::from_secs(30);
/// The first pause of an object that waits for another's end; it doubles.
const FIRST_LOOK: Duration = Duration::from_millis(50);
/// The longest such pause.
const LAST_LOOK: Duration = Duration::from_secs(2);

/// Which object and which spec: failures of one say nothing of another.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Version {
    pub(super) uid: Option<String>,
    pub(super) generation: Option<i64>,
}

/// What became of one run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// There is nothing more to do.
    Done,
    /// It is looked at again after so long, or when it is asked for.
    After(Duration),
    /// It waits for somebody: it is looked at again soon, and then more seldom.
    Soon,
    /// It failed.
    Failed,
    /// It failed by what passes by itself.
    Passing,
}

/// An object whose turn it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Turn<K> {
    pub(super) key: K,
    /// Whether somebody asked; else it is due again by itself.
    pub(super) asked: bool,
}

#[derive(Debug)]
pub(super) struct Queue<K> {
    objects: BTreeMap<K, Object>,
    /// First come, first served.
    ready: VecDeque<K>,
    due: BTreeSet<(Instant, K)>,
    running: usize,
    at_once: usize,
}

#[derive(Debug, Default)]
struct Object {
    state: State,
    version: Version,
    /// Failures in a row, of either sort.
    failures: u32,
    /// Looks in a row that found it waiting.
    looks: u32,
    due: Option<Instant>,
    /// Whether somebody has asked since it last ran.
    asked: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Idle,
    Ready,
    Running,
}

impl<K: Clone + Ord> Queue<K> {
    /// A queue that lets so many objects run at once.
    pub(super) fn new(at_once: usize) -> Self {
        Self {
            objects: BTreeMap::new(),
            ready: VecDeque::new(),
            due: BTreeSet::new(),
            running: 0,
            at_once: at_once.max(1),
        }
    }

    /// Somebody asks for an object: its turn comes at once, or after its run.
    pub(super) fn ask(&mut self, key: &K, version: Version) {
        let object = self.objects.entry(key.clone()).or_default();
        object.renew(version);
        object.asked = true;
        if object.state == State::Idle {
            self.make_ready(key);
        }
    }

    /// An object has another spec: one that failed with the old one is tried at once.
    pub(super) fn changed(&mut self, key: &K, version: Version) {
        let Some(object) = self.objects.get_mut(key) else { return };
        let failed = object.failures > 0;
        if object.renew(version) && failed && object.state == State::Idle {
            self.make_ready(key);
        }
    }

    /// An object that waits for something is looked at now.
    pub(super) fn wake(&mut self, key: &K) {
        if self.objects.get(key).is_some_and(|object| object.state == State::Idle) {
            self.make_ready(key);
        }
    }

    /// An object is gone.
    pub(super) fn forget(&mut self, key: &K) {
        let Some(object) = self.objects.get_mut(key) else { return };
        if let Some(due) = object.due.take() {
            self.due.remove(&(due, key.clone()));
        }
        object.asked = false;
        match object.state {
            State::Running => {}
            State::Ready => {
                self.ready.retain(|other| other != key);
                self.objects.remove(key);
            }
            State::Idle => drop(self.objects.remove(key)),
        }
    }

    /// The next object whose turn it is, if one more may run.
    pub(super) fn pop(&mut self, now: Instant) -> Option<Turn<K>> {
        while let Some((due, key)) = self.due.first().cloned().filter(|(due, _)| *due <= now) {
            self.due.remove(&(due, key.clone()));
            if let Some(object) = self.objects.get_mut(&key) {
                object.due = None;
                self.make_ready(&key);
            }
        }
        if self.running >= self.at_once {
            return None;
        }
        let key = self.ready.pop_front()?;
        let object = self.objects.entry(key.clone()).or_default();
        object.state = State::Running;
        self.running += 1;
        Some(Turn { key, asked: std::mem::take(&mut object.asked) })
    }

    /// When an object is due again by itself.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.due.first().map(|(due, _)| *due)
    }

    /// An object's run has ended. Tells how long it is left alone, unless
    /// somebody asks, where it is to be run again.
    pub(super) fn done(&mut self, key: &K, outcome: Outcome, now: Instant) -> Option<Duration> {
        self.running = self.running.saturating_sub(1);
        let object = self.objects.get_mut(key)?;
        object.state = State::Idle;
        let pause = object.pause(outcome);
        if object.asked {
            self.make_ready(key);
            return Some(Duration::ZERO);
        }
        if let Some(pause) = pause {
            let due = now + pause;
            object.due = Some(due);
            self.due.insert((due, key.clone()));
        } else {
            self.objects.remove(key);
        }
        pause
    }

    fn make_ready(&mut self, key: &K) {
        let Some(object) = self.objects.get_mut(key) else { return };
        if let Some(due) = object.due.take() {
            self.due.remove(&(due, key.clone()));
        }
        if object.state == State::Idle {
            object.state = State::Ready;
            self.ready.push_back(key.clone());
        }
    }
}

impl Object {
    /// Takes another version in; tells whether it is one.
    fn renew(&mut self, version: Version) -> bool {
        let changed = self.version != version;
        if changed {
            self.version = version;
            (self.failures, self.looks) = (0, 0);
        }
        changed
    }

    fn pause(&mut self, outcome: Outcome) -> Option<Duration> {
        let doubled = |first: Duration, times: u32, last: Duration| {
            first.saturating_mul(2u32.saturating_pow(times)).min(last)
        };
        let (failures, looks) = (self.failures, self.looks);
        (self.failures, self.looks) = match outcome {
            Outcome::Done | Outcome::After(_) => (0, 0),
            Outcome::Soon => (0, looks.saturating_add(1)),
            Outcome::Failed | Outcome::Passing => (failures.saturating_add(1), 0),
        };
        match outcome {
            Outcome::Done => None,
            Outcome::After(pause) => Some(pause),
            Outcome::Soon => Some(doubled(FIRST_LOOK, looks, LAST_LOOK)),
            Outcome::Failed => Some(doubled(FIRST, failures, LAST)),
            Outcome::Passing => Some(doubled(FIRST, failures, LAST_PASSING)),
        }
    }
}
