//! What the downloads of a node share: its threads, its disk, its share of the
//! bandwidth, and the blobs that they keep.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use rootstock_core::digest::Digest;
use tokio_util::task::TaskTracker;

use crate::pull::Pulls;

/// What the downloads of a node share. Each clone is the same one.
#[derive(Clone, Debug)]
pub struct Shared {
    pulls: Pulls,
    /// Threads outlive a download that is dropped in the middle.
    pub(crate) threads: TaskTracker,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    /// Blobs whose compressed bytes are being kept.
    kept: BTreeSet<Digest>,
    /// Bytes that installations are about to write.
    promised: u64,
}

/// The right to keep the compressed bytes of a blob, until it is dropped.
#[derive(Debug)]
pub(crate) struct Claim {
    state: Arc<Mutex<State>>,
    blob: Digest,
}

/// Room on the disk for one installation, until it is dropped.
#[derive(Debug)]
pub(crate) struct Room {
    state: Arc<Mutex<State>>,
    bytes: u64,
}

impl Shared {
    /// Downloads that come as fast as they may.
    pub fn new(pulls: Pulls) -> Self {
        Self { pulls, threads: TaskTracker::new(), state: Arc::default() }
    }

    /// The same with threads of its own, which can be waited for alone.
    pub(crate) fn apart(&self) -> Self {
        Self { threads: TaskTracker::new(), ..self.clone() }
    }

    /// How fast they may come.
    pub fn pulls(&self) -> &Pulls {
        &self.pulls
    }

    /// Waits until no thread of a download that has ended still writes.
    pub(crate) async fn quiet(&self) {
        // A tracker that is closed still takes tasks; it only can be waited for.
        self.threads.close();
        self.threads.wait().await;
    }

    /// The right to keep a blob's bytes; none while another download of the
    /// same blob has it, for two can't append to one file.
    pub(crate) fn claim(&self, blob: Digest) -> Option<Claim> {
        let new = lock(&self.state).kept.insert(blob);
        new.then(|| Claim { state: Arc::clone(&self.state), blob })
    }

    /// Room for so many bytes where so many are free, beside what is promised
    /// to others; else how many would have to be free.
    pub(crate) fn room(&self, bytes: u64, margin: u64, free: u64) -> Result<Room, u64> {
        let mut state = lock(&self.state);
        let need = state.promised.saturating_add(bytes).saturating_add(margin);
        if free < need {
            return Err(need);
        }
        state.promised += bytes;
        Ok(Room { state: Arc::clone(&self.state), bytes })
    }
}

impl Room {
    /// So many of the bytes are written, and no longer free anyway.
    pub(crate) fn used(&mut self, bytes: u64) {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        lock(&self.state).promised -= bytes;
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        lock(&self.state).promised -= self.bytes;
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        lock(&self.state).kept.remove(&self.blob);
    }
}

fn lock(state: &Mutex<State>) -> std::sync::MutexGuard<'_, State> {
    // Every change of it is whole.
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_was_promised_no_other_gets() {
        let shared = Shared::new(Pulls::unbounded());
        let mut first = shared.room(60, 10, 100).unwrap();
        assert_eq!(shared.room(40, 10, 100).unwrap_err(), 110);
        first.used(50);
        let second = shared.room(40, 10, 60).unwrap();
        drop((first, second));
        assert!(shared.room(90, 10, 100).is_ok());
    }

    #[test]
    fn a_blob_is_kept_by_one() {
        let shared = Shared::new(Pulls::unbounded());
        let claim = shared.claim(Digest::of(b"a"));
        assert!(claim.is_some() && shared.claim(Digest::of(b"a")).is_none());
        assert!(shared.claim(Digest::of(b"b")).is_some());
        drop(claim);
        assert!(shared.claim(Digest::of(b"a")).is_some());
    }
}
