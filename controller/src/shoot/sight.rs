//! Whether what is followed in a shoot is seen, and what is said of it.

use rootstock_core::name::ShootName;
use rootstock_daemon::error::Chain;
use tokio::time::{Instant, sleep};

use super::PATIENCE;
use super::follow::{FollowError, Followed};
use super::trouble::Pauses;

/// Since when it is not seen, whether that was said, and how long to wait until
/// the next try.
#[derive(Debug)]
pub(super) struct Sight {
    shoot: ShootName,
    what: &'static str,
    /// What does not work until then.
    lacking: &'static str,
    lost: Option<Instant>,
    said: bool,
    pauses: Pauses,
}

impl Sight {
    /// Of what is followed in a shoot, without which something is `lacking`.
    pub(super) fn of<F: Followed>(shoot: ShootName, lacking: &'static str) -> Self {
        let (what, pauses) = (F::WHAT, Pauses::default());
        Self { shoot, what, lacking, lost: None, said: false, pauses }
    }

    /// Whoever begins to follow waits shortly at first, whatever was before.
    pub(super) fn begin(&mut self) {
        self.pauses = Pauses::default();
    }

    /// It is seen.
    pub(super) fn back(&mut self) {
        self.lost = None;
        self.begin();
        if std::mem::take(&mut self.said) {
            tracing::info!(shoot = %self.shoot, "the {} are seen again", self.what);
        }
    }

    /// It is not seen any more: says so where that lasts, and waits until it is
    /// worth another try.
    pub(super) async fn lost(&mut self, error: &FollowError) {
        self.say(error);
        sleep(self.pauses.next(error.kind(), None)).await;
    }

    fn say(&mut self, error: &FollowError) {
        let Self { shoot, what, lacking, .. } = self;
        let since = *self.lost.get_or_insert_with(Instant::now);
        let error = Chain(error);
        tracing::debug!(%shoot, %error, "the {what} are not seen");
        if since.elapsed() >= PATIENCE && !self.said {
            self.said = true;
            tracing::warn!(%shoot, %error, "the {what} can't be seen: until then {lacking}");
        }
    }
}
