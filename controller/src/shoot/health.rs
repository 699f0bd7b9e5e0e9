//! What is known of the way to a shoot's API, and what the index is told of it.

use std::sync::Arc;
use std::time::Duration;

use rootstock_core::name::ShootName;
use rootstock_daemon::error::Chain;

use super::follow::FollowError;
use super::trouble::{Kind, Pauses, Trouble};
use crate::index::{Index, ShootState};

/// How long a shoot that wakes up may take until it is worth a condition: its
/// resource manager has to come back and to renew the token.
const WAKING: Duration = Duration::from_secs(180);

/// What is known of the way to the shoot's API.
pub(super) struct Health {
    shoot: ShootName,
    index: Arc<Index>,
    trouble: Trouble,
    pauses: Pauses,
}

impl Health {
    pub(super) fn new(shoot: &ShootName, index: &Arc<Index>) -> Self {
        Self {
            shoot: shoot.clone(),
            index: Arc::clone(index),
            trouble: Trouble::new(shoot.clone()),
            pauses: Pauses::default(),
        }
    }

    /// The API answers and its Nodes are followed.
    pub(super) fn good(&mut self) {
        self.pauses = Pauses::default();
        if self.trouble.over() {
            self.index.put_shoot_state(&self.shoot, ShootState::Known);
        }
    }

    pub(super) fn failed(&mut self, why: &str, kind: Kind, hold: Option<Duration>) -> Duration {
        self.bad(why);
        self.pauses.next(kind, hold)
    }

    pub(super) fn bad(&mut self, why: &str) {
        if let Some(why) = self.trouble.note(why) {
            self.index.put_shoot_state(&self.shoot, ShootState::Unreachable(why));
        }
    }

    pub(super) fn wakes_up(&mut self) {
        self.pauses = Pauses::default();
        self.trouble.forgive(WAKING);
    }
}

/// What went wrong, alike for alike failures.
pub(super) fn words(error: &FollowError) -> String {
    match error {
        FollowError::Api { source: kube::Error::Api(status), .. } => {
            format!("{error}: {} {}: {}", status.code, status.reason, status.message)
        }
        FollowError::Api { .. }
        | FollowError::Slow { .. }
        | FollowError::Short { .. }
        | FollowError::NoVersion => Chain(error).to_string(),
    }
}
