//! The clock that slots count by.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// A monotonic clock.
#[derive(Clone, Debug)]
pub(super) enum Clock {
    /// `CLOCK_BOOTTIME`: it goes on while the machine sleeps, as slots do at
    /// the controller.
    Boot,
    /// One that stands still until a test advances it.
    #[cfg(test)]
    Stopped(std::sync::Arc<std::sync::atomic::AtomicU64>),
}

impl Clock {
    pub(super) fn now(&self) -> Duration {
        match self {
            Self::Boot => {
                let now = clock_gettime(ClockId::Boottime);
                // Neither is ever negative for this clock.
                let seconds = now.tv_sec.try_into().unwrap_or(0);
                Duration::new(seconds, now.tv_nsec.try_into().unwrap_or(0))
            }
            #[cfg(test)]
            Self::Stopped(millis) => {
                Duration::from_millis(millis.load(std::sync::atomic::Ordering::Relaxed))
            }
        }
    }

    #[cfg(test)]
    pub(super) fn stopped() -> Self {
        Self::Stopped(std::sync::Arc::default())
    }

    #[cfg(test)]
    pub(super) fn advance(&self, by: Duration) {
        if let Self::Stopped(millis) = self {
            let by = u64::try_from(by.as_millis()).unwrap();
            millis.fetch_add(by, std::sync::atomic::Ordering::Relaxed);
        }
    }
}
