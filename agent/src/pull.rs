//! How fast blobs may come.
//!
//! ```text
//!  fetch ─ begin ─▶ Pull ─ granted ─▶ request ─▶ Paced (below TLS) ─▶ bytes
//!            │               ▲                     │ take, give back
//!            ▼               │                     ▼
//!          ┌ core's Holder ──┴───────────────── Pacer per pull ┐
//!          └──────────────┬──▲──────────────────────────────────┘
//!            due, says ◀──┘  └── hello, heard, disconnected ══ link ══ controller
//! ```
//! Decisions are core's: the `Holder` knows the leases, a `Pacer` holds a
//! socket to one. Here are the clock, the timers and who is woken.
//!
//! Leases count by `CLOCK_BOOTTIME`. Timers are the runtime's, which stand
//! still while the machine sleeps: they are late then, and what they wake looks
//! at the clock.

mod meter;
mod paced;
mod state;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

pub(crate) use paced::{Paced, Slot};
use rootstock_core::bandwidth::{Grant, Held, Rate, Request, Shrunk};
use rootstock_core::digest::Digest;
use state::State;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::clock::Clock;

/// So long may a pull be without a lease before its connection is given up: a
/// leader is replaced in less, and no registry ends an answer as soon.
const LOST: Duration = Duration::from_secs(10);

/// How often that is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// What all pulls of a node may do. Each clone is the same one.
#[derive(Clone, Debug)]
pub struct Pulls(Option<Arc<Shared>>);

#[derive(Debug)]
struct Shared {
    clock: Clock,
    state: Mutex<State>,
    /// A pull may begin, go on, or end: whoever waits looks again.
    changed: Notify,
    /// Something is to be said to the controller, at another time than before.
    news: Notify,
}

/// Blobs that are pulled from one source, one after the other. Dropping it
/// gives the lease back.
#[derive(Debug)]
pub(crate) struct Pull {
    granted: Option<(Arc<Shared>, u64)>,
    begun: Instant,
}

/// A stream to the controller. Dropping it says that it has ended.
#[derive(Debug)]
#[must_use = "the stream ends when this is dropped"]
pub struct Stream<'a>(&'a Pulls);

/// What is to be said to the controller.
#[derive(Debug, PartialEq, Eq)]
pub enum Word {
    /// A rate is wanted, or wanted for longer.
    Asks(Request),
    /// A rate is kept to, or was given back.
    Shrunk(Shrunk),
}

impl Pulls {
    /// As fast as the network is, and nobody is asked: where there is no link
    /// to a controller at all.
    pub fn unbounded() -> Self {
        Self(None)
    }

    /// By what the controller grants, and nothing before it was heard. A
    /// controller that says that it grants nothing leaves pulls without bounds.
    pub fn granted() -> Self {
        // An earlier agent on this node began with less, and has not had so
        // many pulls as microseconds.
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let first = u64::try_from(since.as_micros()).unwrap_or(u64::MAX);
        Self::with_clock(first, Clock::Boot)
    }

    fn with_clock(first: u64, clock: Clock) -> Self {
        let state = Mutex::new(State::new(first));
        let (changed, news) = (Notify::new(), Notify::new());
        Self(Some(Arc::new(Shared { clock, state, changed, news })))
    }

    /// Wants to pull a blob of which so many bytes are missing. While the node
    /// has as many pulls as it may ask for, the next one waits here.
    pub(crate) async fn begin(
        &self,
        blob: Digest,
        source: impl Into<Arc<str>>,
        bytes: u64,
    ) -> Pull {
        let Some(shared) = &self.0 else {
            return Pull { granted: None, begun: Instant::now() };
        };
        let source = source.into();
        loop {
            // It hears of what changes from here on.
            let changed = shared.changed.notified();
            let now = shared.clock.now();
            let id = shared.state().begin(blob, Arc::clone(&source), bytes, now);
            if let Some(id) = id {
                shared.news.notify_one();
                return Pull { granted: Some((Arc::clone(shared), id)), begun: Instant::now() };
            }
            changed.await;
        }
    }

    /// A stream begins: what its Hello says.
    pub fn connect(&self) -> (Stream<'_>, Vec<Held>) {
        let held = self.0.as_ref().map(|shared| shared.state().hello(shared.clock.now()));
        (Stream(self), held.unwrap_or_default())
    }

    /// Whether the controller grants, as each of its messages says.
    pub fn controller(&self, grants: bool) {
        let Some(shared) = &self.0 else { return };
        if shared.state().controller(grants) {
            shared.changed.notify_waiters();
            shared.news.notify_one();
        }
    }

    /// The controller grants. What is to be answered at once.
    pub fn heard(&self, grant: &Grant) -> Option<Shrunk> {
        let shared = self.0.as_ref()?;
        let answer = shared.state().heard(grant, shared.clock.now());
        shared.changed.notify_waiters();
        shared.news.notify_one();
        answer
    }

    /// Waits until there is something to say. Cancel-safe.
    pub async fn due(&self) {
        let Some(shared) = &self.0 else { return std::future::pending().await };
        loop {
            let due = shared.state().due();
            let wait = due.map(|due| due.saturating_sub(shared.clock.now()));
            match wait {
                Some(wait) if wait.is_zero() => return,
                // Cancel-safe: both only wait, and who drops a permit looks anew.
                Some(wait) => tokio::select! {
                    () = tokio::time::sleep(wait) => {}
                    () = shared.news.notified() => {}
                },
                None => shared.news.notified().await,
            }
        }
    }

    /// What is to be said now. It is to be sent at once.
    pub fn says(&self) -> Vec<Word> {
        let Some(shared) = &self.0 else { return Vec::new() };
        shared.state().says(shared.clock.now())
    }
}

impl Drop for Stream<'_> {
    fn drop(&mut self) {
        if let Some(shared) = &self.0.0 {
            shared.state().disconnected();
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // A panic in another thread leaves a state that only grants less.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pull {
    /// It goes on with another blob, of which so many bytes are missing: with its
    /// lease, or its place in the controller's line.
    pub(crate) fn goes_on(&self, blob: Digest, bytes: u64) {
        if let Some((shared, id)) = &self.granted {
            shared.state().goes_on(*id, blob, bytes, shared.clock.now());
            shared.news.notify_one();
        }
    }

    /// Waits until it may begin.
    pub(crate) async fn granted(&self) {
        let Some((shared, _)) = &self.granted else { return };
        loop {
            let changed = shared.changed.notified();
            if self.may() {
                return;
            }
            changed.await;
        }
    }

    /// Whether bytes may come now.
    pub(crate) fn may(&self) -> bool {
        self.rate() > Rate::ZERO
    }

    /// How fast bytes may come now.
    pub(crate) fn rate(&self) -> Rate {
        self.granted
            .as_ref()
            .map_or(Rate::MAX, |(shared, id)| shared.state().rate(*id, shared.clock.now()))
    }

    /// Bytes of the blob came.
    pub(crate) fn came(&self, bytes: u64) {
        if let Some((shared, id)) = &self.granted {
            shared.state().came(*id, bytes, shared.clock.now());
        }
    }

    /// So many bytes are still to come, as the source says.
    pub(crate) fn missing(&self, bytes: u64) {
        if let Some((shared, id)) = &self.granted {
            shared.state().missing(*id, bytes);
            // It may be more than nothing again.
            shared.news.notify_one();
        }
    }

    /// How long its source has had to bring something: the time since it
    /// began, without that in which nothing might be read.
    pub(crate) fn open(&self) -> Duration {
        let now = Instant::now();
        let held_back = self
            .granted
            .as_ref()
            .map_or(Duration::ZERO, |(shared, id)| shared.state().held_back(*id, now));
        now.duration_since(self.begun).saturating_sub(held_back)
    }

    /// Waits until it has been without a lease for so long that its connection
    /// is better given up.
    pub(crate) async fn lost(&self) {
        let mut since = None;
        loop {
            tokio::time::sleep(LOOK).await;
            if self.may() {
                since = None;
            } else if since.get_or_insert_with(Instant::now).elapsed() >= LOST {
                return;
            }
        }
    }
}

impl Drop for Pull {
    fn drop(&mut self) {
        if let Some((shared, id)) = &self.granted {
            shared.state().done(*id);
            shared.changed.notify_waiters();
            shared.news.notify_one();
        }
    }
}
