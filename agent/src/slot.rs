//! The node's permission to restart containerd, as the controller gives it.

use std::sync::Arc;
use std::time::Duration;

use rootstock_core::desired::Generation;
use tokio::sync::watch;
use tokio::time::Instant;

/// The longest that a slot is kept to: who is told of more has been told a mistake.
const LONGEST: Duration = Duration::from_secs(60 * 60);

/// The slot that the node has. Cloned, it is the same one.
///
/// It is not on the disk: an agent that restarts asks by its report, and a
/// controller that gave it one says so again.
#[derive(Clone, Debug)]
pub struct Slots(Arc<watch::Sender<Option<Slot>>>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Slot {
    generation: Generation,
    until: Instant,
}

impl Default for Slots {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(None)))
    }
}

impl Slots {
    /// A slot for a generation, from now on for so long, at most an hour. It
    /// stands in the place of every earlier one.
    pub fn give(&self, generation: Generation, within: Duration) {
        let until = Instant::now() + within.min(LONGEST);
        tracing::info!(generation = generation.0, ?within, "a slot");
        self.0.send_replace((!within.is_zero()).then_some(Slot { generation, until }));
    }

    /// Whether containerd may be restarted for a generation now.
    pub fn is_open(&self, generation: Generation) -> bool {
        let slot = *self.0.borrow();
        slot.is_some_and(|slot| slot.generation == generation && Instant::now() < slot.until)
    }

    /// Sees each slot that comes or goes.
    pub fn changes(&self) -> watch::Receiver<impl Sized + use<>> {
        self.0.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_slot_is_for_one_generation_and_one_time() {
        let (slots, minute) = (Slots::default(), Duration::from_secs(60));
        let open = |generation| slots.is_open(Generation(generation));
        assert!(!open(1));
        slots.give(Generation(1), minute);
        assert!(open(1) && !open(2));
        slots.give(Generation(2), minute);
        assert!(!open(1) && open(2));
        slots.give(Generation(2), Duration::ZERO);
        assert!(!open(2));
        slots.give(Generation(2), minute);
        tokio::time::advance(minute).await;
        assert!(!open(2));
        slots.give(Generation(2), Duration::MAX);
        tokio::time::advance(LONGEST).await;
        assert!(!open(2));
    }
}
