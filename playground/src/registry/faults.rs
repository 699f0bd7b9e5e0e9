//! What goes wrong, on demand.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use http::StatusCode;
use rootstock_core::digest::Digest;
use tokio::sync::watch;

/// What a fault befalls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    /// One blob or manifest.
    Digest(Digest),
    /// Every blob.
    Blobs,
    /// Every manifest.
    Manifests,
    /// Every answer, the version check included; only [`Fault::Status`] befalls it.
    Everything,
}

/// What goes wrong when it is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The connection is cut after this many bytes of the body.
    Truncate {
        /// Bytes that still go out.
        after: u64,
    },
    /// The byte in the middle has all its bits flipped. The digest header stays right.
    Corrupt,
    /// The body goes on with zeros, and does not say how long it is.
    Oversize {
        /// Bytes beyond the end.
        extra: u64,
    },
    /// An answer with this status, and nothing else: 404, 401, 500 …
    Status(StatusCode),
    /// The body stands still after this many bytes until the fault is taken away.
    Stall {
        /// Bytes that still go out.
        after: u64,
    },
}

/// The faults of one registry. Setting one acts on requests that come later,
/// taking a [`Fault::Stall`] away also on those that stand still.
#[derive(Debug, Default)]
pub struct Faults {
    set: Mutex<BTreeMap<Target, Set>>,
    /// Counts changes, so that a body that stands still looks again.
    changed: watch::Sender<u64>,
}

#[derive(Clone, Copy, Debug)]
struct Set {
    fault: Fault,
    /// Requests that it still befalls; none for all.
    left: Option<u64>,
}

impl Faults {
    /// Every request for `target` goes wrong until [`Faults::clear`].
    pub fn set(&self, target: Target, fault: Fault) {
        self.put(target, Set { fault, left: None });
    }

    /// The next `times` requests for `target` go wrong.
    pub fn set_times(&self, target: Target, fault: Fault, times: u64) {
        self.put(target, Set { fault, left: Some(times) });
    }

    /// Nothing goes wrong for `target` any more.
    pub fn clear(&self, target: Target) {
        self.lock().remove(&target);
        self.changed.send_modify(|count| *count += 1);
    }

    /// Nothing goes wrong any more.
    pub fn clear_all(&self) {
        self.lock().clear();
        self.changed.send_modify(|count| *count += 1);
    }

    fn put(&self, target: Target, set: Set) {
        self.lock().insert(target, set);
        self.changed.send_modify(|count| *count += 1);
    }

    /// What befalls a request, the most particular first. It counts as one of its times.
    pub(super) fn strike(&self, targets: &[Target]) -> Option<(Target, Fault)> {
        let mut all = self.lock();
        for target in targets {
            let Some(set) = all.get_mut(target) else { continue };
            match &mut set.left {
                None => {}
                Some(0) => continue,
                Some(left) => *left -= 1,
            }
            return Some((*target, set.fault));
        }
        None
    }

    /// Waits until `fault` is no longer set for `target`.
    pub(super) async fn gone(&self, target: Target, fault: Fault) {
        let mut changed = self.changed.subscribe();
        // An error means that the registry is gone, and every wait with it.
        let _ = changed
            .wait_for(|_| self.lock().get(&target).is_none_or(|set| set.fault != fault))
            .await;
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Target, Set>> {
        // A map of plain values is whole after a panic elsewhere too.
        self.set.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_particular_fault_strikes_as_often_as_it_may() {
        let faults = Faults::default();
        let (blob, other) = (Digest::of(b"a"), Digest::of(b"b"));
        faults.set(Target::Blobs, Fault::Corrupt);
        faults.set_times(Target::Digest(blob), Fault::Truncate { after: 1 }, 1);
        let strike = |digest| {
            faults.strike(&[Target::Digest(digest), Target::Blobs]).map(|(_, fault)| fault)
        };
        assert_eq!(strike(other), Some(Fault::Corrupt));
        assert_eq!(strike(blob), Some(Fault::Truncate { after: 1 }));
        assert_eq!(strike(blob), Some(Fault::Corrupt));
        faults.clear_all();
        assert_eq!(strike(blob), None);
    }
}
