//! When an actor looks again without a change.

use std::fmt::Display;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(5);

/// One actor's next look: after an error with a growing pause, or when something is due.
#[derive(Debug)]
pub struct Retry {
    actor: &'static str,
    pause: Duration,
    at: Option<Instant>,
}

impl Retry {
    /// Nothing is due at first.
    pub fn new(actor: &'static str) -> Self {
        Self { actor, pause: FIRST, at: None }
    }

    /// Waits until the next look is due, for ever if none is. Cancel-safe.
    pub async fn due(&self) {
        match self.at {
            Some(at) => sleep_until(at).await,
            None => std::future::pending().await,
        }
    }

    /// Takes note of how a look went.
    pub fn after(&mut self, result: Result<(), impl Display>) {
        match result {
            Ok(()) => {
                self.pause = FIRST;
                self.at = None;
            }
            Err(error) => {
                tracing::debug!(actor = self.actor, %error, "tries again");
                self.again_in(self.pause);
                self.pause = (self.pause * 2).min(LONGEST);
            }
        }
    }

    /// Looks again after `pause`, or earlier if that was arranged.
    pub fn again_in(&mut self, pause: Duration) {
        let at = Instant::now() + pause;
        self.at = Some(self.at.map_or(at, |known| known.min(at)));
    }
}
