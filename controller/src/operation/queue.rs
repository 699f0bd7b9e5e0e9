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

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn version(generation: i64) -> Version {
        Version { uid: None, generation: Some(generation) }
    }

    fn pops(queue: &mut Queue<&'static str>, now: Instant) -> Vec<&'static str> {
        std::iter::from_fn(|| queue.pop(now).map(|turn| turn.key)).collect()
    }

    #[test]
    fn an_object_is_run_once_however_often_it_is_asked_for() {
        let now = Instant::now();
        let mut queue = Queue::new(5);
        for key in ["b", "a", "b", "b"] {
            queue.ask(&key, version(1));
        }
        assert_eq!(pops(&mut queue, now), ["b", "a"], "first come, first served");
        // Asked while it runs: once more afterwards, and not before.
        queue.ask(&"a", version(1));
        queue.ask(&"a", version(1));
        assert_eq!(queue.pop(now), None);
        assert_eq!(queue.done(&"a", Outcome::Done, now), Some(Duration::ZERO));
        assert_eq!(pops(&mut queue, now), ["a"]);
        assert_eq!(queue.done(&"a", Outcome::Done, now), None);
        assert_eq!(queue.done(&"b", Outcome::Done, now), None);
        assert_eq!((queue.pop(now), queue.next_due()), (None, None));
        assert!(queue.objects.is_empty(), "nothing is left of what is done");
    }

    #[test]
    fn only_so_many_run_at_once() {
        let now = Instant::now();
        let mut queue = Queue::new(2);
        for key in ["a", "b", "c"] {
            queue.ask(&key, version(1));
        }
        assert_eq!(pops(&mut queue, now), ["a", "b"]);
        queue.done(&"a", Outcome::Done, now);
        assert_eq!(pops(&mut queue, now), ["c"]);
    }

    #[test]
    fn failures_are_left_alone_for_longer_and_longer() {
        let mut now = Instant::now();
        let mut queue = Queue::new(1);
        queue.ask(&"a", version(1));
        let mut pauses = Vec::new();
        for _ in 0..20 {
            let turn = queue.pop(now).unwrap();
            assert_eq!(turn.asked, pauses.is_empty(), "it comes back by itself");
            let pause = queue.done(&"a", Outcome::Failed, now).unwrap();
            assert_eq!(queue.pop(now), None);
            now += pause;
            pauses.push(pause);
        }
        assert_eq!(pauses[..3], [FIRST, FIRST * 2, FIRST * 4]);
        assert_eq!((pauses[17], pauses[18]), (FIRST * (1 << 17), LAST));
        // Somebody who asks does not wait; the next failure goes on from there.
        queue.ask(&"a", version(1));
        assert!(queue.pop(now).unwrap().asked);
        assert_eq!(queue.done(&"a", Outcome::Failed, now), Some(LAST));
        // Another spec is tried at once and begins anew.
        queue.changed(&"a", version(1));
        assert_eq!(queue.pop(now), None, "that is no other one");
        queue.changed(&"a", version(2));
        assert_eq!(pops(&mut queue, now), ["a"]);
        assert_eq!(queue.done(&"a", Outcome::Failed, now), Some(FIRST));
        // What passes by itself is looked for sooner.
        for _ in 0..20 {
            queue.wake(&"a");
            queue.pop(now).unwrap();
            assert!(queue.done(&"a", Outcome::Passing, now).unwrap() <= LAST_PASSING);
        }
    }

    #[test]
    fn a_changed_spec_is_no_trigger_by_itself() {
        let now = Instant::now();
        let mut queue = Queue::new(1);
        queue.changed(&"a", version(2));
        assert_eq!(queue.pop(now), None);
        queue.ask(&"a", version(2));
        pops(&mut queue, now);
        queue.done(&"a", Outcome::After(SECOND), now);
        queue.changed(&"a", version(3));
        assert_eq!(queue.pop(now), None, "it waits, and did not fail");
    }

    #[test]
    fn who_waits_is_woken_or_comes_back_in_time() {
        let now = Instant::now();
        let mut queue = Queue::new(1);
        queue.ask(&"a", version(1));
        pops(&mut queue, now);
        queue.done(&"a", Outcome::After(60 * SECOND), now);
        assert_eq!(queue.next_due(), Some(now + 60 * SECOND));
        assert_eq!(queue.pop(now + 59 * SECOND), None);
        queue.wake(&"a");
        assert_eq!(queue.next_due(), None);
        assert_eq!(queue.pop(now), Some(Turn { key: "a", asked: false }));
        queue.done(&"a", Outcome::After(60 * SECOND), now);
        assert_eq!(pops(&mut queue, now + 60 * SECOND), ["a"]);
        let mut soon = Vec::new();
        for _ in 0..8 {
            soon.push(queue.done(&"a", Outcome::Soon, now).unwrap());
            queue.wake(&"a");
            pops(&mut queue, now);
        }
        assert_eq!((soon[0], soon[1], soon[7]), (FIRST_LOOK, FIRST_LOOK * 2, LAST_LOOK));
        // Waking one that runs, or that is not there, does nothing.
        queue.wake(&"a");
        queue.wake(&"b");
        queue.done(&"a", Outcome::Done, now);
        assert_eq!(queue.pop(now), None);
    }

    #[test]
    fn nothing_is_left_of_an_object_that_is_gone() {
        let now = Instant::now();
        let mut queue = Queue::new(1);
        for key in ["runs", "ready"] {
            queue.ask(&key, version(1));
        }
        assert_eq!(pops(&mut queue, now), ["runs"]);
        queue.ask(&"runs", version(1));
        queue.forget(&"runs");
        queue.forget(&"ready");
        queue.done(&"runs", Outcome::Done, now);
        assert_eq!((queue.pop(now), queue.objects.len()), (None, 0));
    }
}
