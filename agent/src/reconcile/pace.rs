//! How long the loop waits for what.

use std::time::Duration;

/// The times between a node's looks, and those that containerd is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// How often every byte of every file is looked at again.
    pub bytes: Duration,
    /// How often the rest is: sizes, links, tables, the running containerd.
    /// That costs some milliseconds and finds what others changed.
    pub look: Duration,
    /// The same while something waits for a pod to end or for containerd to start.
    pub waiting: Duration,
    /// How long containerd's configuration must not have changed before it is edited.
    pub still: Duration,
    /// How long containerd has to stay up after a restart: its plugins load in
    /// milliseconds, and what makes it crash later is found within this time.
    pub settle: Duration,
    /// How long what could be activated waits at most for bundles that still
    /// come, so that containerd is restarted once for all. Bytes of most bundles
    /// need less; who waits for its share of the bandwidth may need any time.
    pub together: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            bytes: Duration::from_secs(3600),
            look: Duration::from_secs(60),
            waiting: Duration::from_secs(10),
            still: Duration::from_secs(3),
            settle: Duration::from_secs(10),
            together: Duration::from_secs(30),
        }
    }
}
