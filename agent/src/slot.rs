//! The node's permission to restart containerd, as the controller gives it.

mod wake;

use std::sync::Arc;
use std::time::Duration;

use rootstock_core::desired::Generation;
use tokio::sync::watch;
pub(crate) use wake::Wake;

use crate::clock::Clock;

/// The longest that a slot is kept to. A controller says one that lasts longer
/// anew before that; who is told of more at once has been told a mistake.
const LONGEST: Duration = Duration::from_secs(60 * 60);
/// What an activation may take: 90 s until containerd answers, 60 s for a pod
/// sandbox, 10 s in which it has to stay up, and what systemd takes for its job.
const ACTIVATION: Duration = Duration::from_secs(180);
/// Whatever an activation may take, nothing is begun in the last of so many
/// parts of a slot's time, and in all parts before: short slots are of use too.
const PARTS: u32 = 4;

/// The slot that the node has. Cloned, it is the same one.
///
/// It is not on the disk: an agent that restarts asks by its report, and a
/// controller that gave it one says so again.
#[derive(Clone, Debug)]
pub struct Slots {
    slot: Arc<watch::Sender<Option<Slot>>>,
    clock: Clock,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Slot {
    generation: Generation,
    /// How much of it there was when it came.
    time: Duration,
    /// When nothing is begun with it any more.
    until: Duration,
}

impl Default for Slots {
    fn default() -> Self {
        Self { slot: Arc::new(watch::Sender::new(None)), clock: Clock::Boot }
    }
}

impl Slots {
    /// A slot for a generation, from now on for so long, at most an hour. It
    /// stands in the place of every earlier one.
    ///
    /// Time goes on while the machine sleeps: a node that wakes up after its
    /// slot is over has none.
    pub fn give(&self, generation: Generation, within: Duration) {
        let time = within.min(LONGEST);
        // What is not ended when the slot is over counts as failed there, so an
        // activation is not begun without the time that it may take.
        let until = self.clock.now() + time.saturating_sub(ACTIVATION.min(time / PARTS));
        tracing::info!(generation = generation.0, ?within, "a slot");
        self.slot.send_replace((!time.is_zero()).then_some(Slot { generation, time, until }));
    }

    /// Forgets the slot: a stream begins, and what of it still counts is said
    /// anew. It may have been taken back while nobody could say so.
    pub fn forget(&self) {
        self.slot.send_if_modified(|slot| slot.take().is_some());
    }

    /// Whether an activation may be begun for a generation now.
    pub fn is_open(&self, generation: Generation) -> bool {
        self.open(generation).is_some()
    }

    /// How long something else may be waited for with an activation that may be
    /// begun now: enough of the slot is left after it. None where none may be.
    pub(crate) fn patience(&self, generation: Generation) -> Option<Duration> {
        self.open(generation).map(|slot| slot.time / PARTS)
    }

    /// Sees each slot that comes or goes.
    pub fn changes(&self) -> watch::Receiver<impl Sized + use<>> {
        self.slot.subscribe()
    }

    fn open(&self, generation: Generation) -> Option<Slot> {
        let slot = *self.slot.borrow();
        slot.filter(|slot| slot.generation == generation && self.clock.now() < slot.until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn slots() -> Slots {
        Slots { clock: Clock::stopped(), ..Slots::default() }
    }

    #[test]
    fn a_slot_is_for_one_generation() {
        let slots = slots();
        let open = |generation| slots.is_open(Generation(generation));
        assert!(!open(1));
        slots.give(Generation(1), MINUTE);
        assert!(open(1) && !open(2));
        slots.give(Generation(2), MINUTE);
        assert!(!open(1) && open(2));
        slots.give(Generation(2), Duration::ZERO);
        assert!(!open(2));
    }

    #[test]
    fn nothing_is_begun_without_the_time_that_it_may_take() {
        let second = Duration::from_secs(1);
        let table = [
            // A quarter of a short one is left.
            (4 * second, 3 * second),
            (4 * MINUTE, 3 * MINUTE),
            (15 * MINUTE, 12 * MINUTE),
            (60 * MINUTE, 57 * MINUTE),
            // No slot is kept to for longer than an hour.
            (Duration::MAX, 57 * MINUTE),
        ];
        for (time, usable) in table {
            let slots = slots();
            slots.give(Generation(1), time);
            slots.clock.advance(usable - Duration::from_millis(1));
            assert!(slots.is_open(Generation(1)), "{time:?}");
            slots.clock.advance(Duration::from_millis(1));
            assert!(!slots.is_open(Generation(1)), "{time:?}");
        }
    }

    #[test]
    fn what_is_waited_for_and_what_an_activation_takes_fit_into_a_slot() {
        let slots = slots();
        slots.give(Generation(1), MINUTE);
        slots.clock.advance(Duration::from_secs(29));
        let patience = slots.patience(Generation(1)).unwrap();
        slots.clock.advance(patience);
        assert!(slots.is_open(Generation(1)));
        slots.clock.advance(patience);
        assert_eq!(slots.patience(Generation(1)), None);
    }

    #[test]
    fn a_slot_that_is_forgotten_opens_nothing_and_is_news_once() {
        let slots = slots();
        slots.give(Generation(1), MINUTE);
        let mut changes = slots.changes();
        slots.forget();
        assert!(!slots.is_open(Generation(1)));
        assert!(changes.has_changed().unwrap());
        changes.mark_unchanged();
        slots.forget();
        assert!(!changes.has_changed().unwrap());
    }

    #[test]
    fn time_goes_on_while_the_machine_sleeps() {
        assert!(matches!(Slots::default().clock, Clock::Boot));
        let before = Clock::Boot.now();
        assert!(before > Duration::ZERO && Clock::Boot.now() >= before);
    }
}
