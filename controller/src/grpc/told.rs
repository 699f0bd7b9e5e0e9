//! What a node was told on its stream, and what it is to be told next.

use jiff::Timestamp;
use rootstock_core::desired::Generation;
use rootstock_core::digest::Digest;
use rootstock_proto::v1::{self, controller_message::Kind};
use tokio::time::Instant;

use crate::content::{Offered, Slot};

/// What a node was told, in one order: the state, and then the slot for it.
#[derive(Debug, Default)]
pub(super) struct Told {
    state: Option<(Generation, Digest)>,
    slot: Option<Slot>,
    /// When that is to be said anew: it lasts longer than could be told.
    anew: Option<Instant>,
    /// Whether that moment has come.
    repeat: bool,
    /// Whether it was told to forget what it failed with, for the slot that comes.
    again: bool,
}

impl Told {
    /// What a node says that it holds is not sent to it again.
    pub(super) fn what_it_holds(state: Option<(Generation, Digest)>) -> Self {
        Self { state, ..Self::default() }
    }

    /// When something is to be told anew though nothing has changed.
    pub(super) fn due(&self) -> Option<Instant> {
        self.anew
    }

    /// That moment has come.
    pub(super) fn repeat(&mut self) {
        (self.anew, self.repeat) = (None, true);
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
        if self.slot != latest.slot {
            if latest.slot.is_some_and(|slot| slot.again) && !self.again {
                self.again = true;
                return Some(Kind::Retry(v1::Retry::default()));
            }
            (self.slot, self.again) = (latest.slot, false);
        } else if !self.repeat {
            return None;
        }
        let now = Timestamp::now();
        let anew = latest.slot.and_then(|slot| slot.anew(now));
        (self.anew, self.repeat) = (anew.map(|wait| Instant::now() + wait), false);
        let left = latest.slot.map(|slot| slot.left(now)).unwrap_or_default();
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

    #[tokio::test(start_paused = true)]
    async fn a_slot_that_lasts_longer_than_can_be_told_is_said_anew() {
        let (hour, half) = (Duration::from_secs(3600), Duration::from_secs(1800));
        let long = Timestamp::now() + 2 * hour;
        for slot in [Slot::JOINING, Slot { until: long, again: true }] {
            let (mut told, offered) = (Told::default(), offered(1, Some(slot)));
            let first = words(&mut told, &offered);
            assert_eq!(first.last().unwrap(), "slot 1 for 3600 s");
            assert_eq!(told.due(), Some(Instant::now() + half));
            assert!(words(&mut told, &offered).is_empty());
            tokio::time::advance(half).await;
            told.repeat();
            // Nothing is to be forgotten for it once more.
            assert_eq!(words(&mut told, &offered), ["slot 1 for 3600 s"]);
            assert_eq!(told.due(), Some(Instant::now() + half));
        }
        // One that was told as a whole is not, nor is one that was taken back.
        let mut told = Told::default();
        let short = Slot { until: Timestamp::now() + hour - half, again: false };
        words(&mut told, &offered(1, Some(Slot::JOINING)));
        words(&mut told, &offered(1, Some(short)));
        assert_eq!(told.due(), None);
        words(&mut told, &offered(1, Some(Slot::JOINING)));
        words(&mut told, &offered(1, None));
        assert_eq!(told.due(), None);
        words(&mut told, &offered(1, Some(Slot::JOINING)));
        words(&mut told, &offered(2, None));
        assert_eq!(told.due(), None);
    }
}
