//! The clock that leases count by.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
#[cfg(test)]
use tokio::time::Instant;

/// A monotonic clock.
#[derive(Clone, Copy, Debug)]
pub(super) enum Clock {
    /// `CLOCK_BOOTTIME`: it goes on while the machine sleeps, as leases do at
    /// the controller.
    Boot,
    /// The runtime's, which tests stop and advance.
    #[cfg(test)]
    Runtime(Instant),
}

impl Clock {
    pub(super) fn now(self) -> Duration {
        match self {
            Self::Boot => {
                let now = clock_gettime(ClockId::Boottime);
                // Neither is ever negative for this clock.
                let seconds = now.tv_sec.try_into().unwrap_or(0);
                Duration::new(seconds, now.tv_nsec.try_into().unwrap_or(0))
            }
            #[cfg(test)]
            Self::Runtime(begun) => begun.elapsed(),
        }
    }
}
