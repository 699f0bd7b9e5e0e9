//! The clocks by which leases and slots count.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// A monotonic clock.
#[derive(Clone, Debug)]
pub(crate) enum Clock {
    /// `CLOCK_BOOTTIME`: it goes on while the machine sleeps, as leases and slots
    /// do at the controller.
    Boot,
    /// `CLOCK_MONOTONIC`, which stands still then.
    Awake,
    /// The runtime's, which tests stop and advance.
    #[cfg(test)]
    Runtime(tokio::time::Instant),
    /// One that stands still until a test advances it.
    #[cfg(test)]
    Stopped(std::sync::Arc<std::sync::atomic::AtomicU64>),
}

impl Clock {
    pub(crate) fn now(&self) -> Duration {
        let of = match self {
            Self::Boot => ClockId::Boottime,
            Self::Awake => ClockId::Monotonic,
            #[cfg(test)]
            Self::Runtime(begun) => return begun.elapsed(),
            #[cfg(test)]
            Self::Stopped(millis) => {
                return Duration::from_millis(millis.load(std::sync::atomic::Ordering::Relaxed));
            }
        };
        let now = clock_gettime(of);
        // Neither is ever negative for these clocks.
        let seconds = now.tv_sec.try_into().unwrap_or(0);
        Duration::new(seconds, now.tv_nsec.try_into().unwrap_or(0))
    }

    #[cfg(test)]
    pub(crate) fn stopped() -> Self {
        Self::Stopped(std::sync::Arc::default())
    }

    #[cfg(test)]
    pub(crate) fn advance(&self, by: Duration) {
        if let Self::Stopped(millis) = self {
            let by = u64::try_from(by.as_millis()).unwrap();
            millis.fetch_add(by, std::sync::atomic::Ordering::Relaxed);
        }
    }
}
