//! What a node was told on its stream, and what it is to be told next.

use jiff::Timestamp;
use rootstock_core::desired::Generation;
use rootstock_core::digest::Digest;
use rootstock_proto::v1::{self, controller_message::Kind};

use crate::content::{Offered, Slot};

/// What a node was told, in one order: the state, and then the slot for it.
#[derive(Debug, Default)]
pub(super) struct Told {
    state: Option<(Generation, Digest)>,
    slot: Option<Slot>,
    /// Whether it was told to forget what it failed with, for the slot that comes.
    again: bool,
}

impl Told {
    /// What a node says that it holds is not sent to it again.
    pub(super) fn what_it_holds(state: Option<(Generation, Digest)>) -> Self {
        Self { state, ..Self::default() }
    }

    /// What comes next, which counts as told from here on; none where the node
    /// knows all.
    pub(super) fn next(&mut self, latest: &Offered) -> Option<Kind> {
        let state = (latest.generation, latest.content.hash());
        if self.state != Some(state) {
            // A slot is for the generation that it was given with.
            *self = Self { state: Some(state), ..Self::default() };
            return Some(Kind::Desired(latest.message()));
        }
        if self.slot == latest.slot {
            return None;
        }
        if latest.slot.is_some_and(|slot| slot.again) && !self.again {
            self.again = true;
            return Some(Kind::Retry(v1::Retry::default()));
        }
        (self.slot, self.again) = (latest.slot, false);
        let left = latest.slot.map(|slot| slot.left(Timestamp::now())).unwrap_or_default();
        // What is in range of a Duration of ours is in that of protobuf's.
        let activate_within = left.try_into().ok();
        Some(Kind::Slot(v1::Slot { generation: latest.generation.0, activate_within }))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use rootstock_core::desired::DesiredContent;

    use super::*;
    use crate::content::Content;

    fn offered(generation: u64, slot: Option<Slot>) -> Offered {
        let content = Arc::new(Content::from(DesiredContent::default()));
        Offered { generation: Generation(generation), content, slot }
    }

    fn words(told: &mut Told, latest: &Offered) -> Vec<String> {
        let word = |kind| match kind {
            Kind::Desired(desired) => format!("desired {}", desired.generation),
            Kind::Retry(_) => "retry".to_owned(),
            Kind::Slot(slot) => {
                let seconds = slot.activate_within.unwrap_or_default().seconds;
                format!("slot {} for {seconds} s", slot.generation)
            }
            Kind::PullGrant(_) | Kind::Resync(_) | Kind::Goodbye(_) => "?".to_owned(),
        };
        std::iter::from_fn(|| told.next(latest).map(word)).collect()
    }

    #[test]
    fn a_slot_comes_after_the_state_that_it_is_for() {
        let until = Timestamp::now() + Duration::from_millis(90_500);
        let slot = Some(Slot { until, again: false });
        let again = Some(Slot { until, again: true });
        let mut told = Told::default();
        assert_eq!(words(&mut told, &offered(1, None)), ["desired 1"]);
        assert_eq!(words(&mut told, &offered(1, slot)), ["slot 1 for 90 s"]);
        assert!(words(&mut told, &offered(1, slot)).is_empty());
        // It is said anew for another state, and taken back.
        assert_eq!(words(&mut told, &offered(2, slot)), ["desired 2", "slot 2 for 90 s"]);
        assert_eq!(words(&mut told, &offered(2, None)), ["slot 2 for 0 s"]);
        assert_eq!(words(&mut told, &offered(2, again)), ["retry", "slot 2 for 90 s"]);
        let joining = offered(2, Some(Slot::JOINING));
        assert_eq!(words(&mut told, &joining), ["slot 2 for 3600 s"]);

        let held = Some((Generation(2), joining.content.hash()));
        assert_eq!(words(&mut Told::what_it_holds(held), &joining), ["slot 2 for 3600 s"]);
    }
}
