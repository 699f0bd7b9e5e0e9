//! Which stream of a node is the one that counts.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use tokio_util::sync::CancellationToken;

use super::{Connected, Directory, Hello, Refused};
use crate::identity::NodeId;

/// The nodes that have a stream.
#[derive(Debug, Default)]
pub(super) struct Seats {
    taken: Mutex<Taken>,
    /// How many there were when the first was told to go because all are.
    crowd: OnceLock<usize>,
}

#[derive(Debug, Default)]
struct Taken {
    last: u64,
    by: BTreeMap<NodeId, (u64, CancellationToken)>,
}

/// A node's place in the directory: one stream has it at a time, and it is
/// given back however that stream ends.
pub(super) struct Seat<D: Directory> {
    pub(super) node: NodeId,
    pub(super) directory: Arc<D>,
    /// Cancelled when another stream of the node has taken the seat.
    pub(super) replaced: CancellationToken,
    number: u64,
    seats: Arc<Seats>,
}

impl Seats {
    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<D: Directory> Seat<D> {
    pub(super) fn take(
        seats: &Arc<Seats>,
        directory: &Arc<D>,
        node: NodeId,
        hello: Hello,
    ) -> Result<(Self, Connected), Refused> {
        let replaced = CancellationToken::new();
        // The directory is told under the lock: it must not see the end of the
        // old stream after the begin of the new one.
        let mut taken = seats.taken();
        let connected = directory.connect(&node, hello)?;
        taken.last += 1;
        let number = taken.last;
        if let Some((_, old)) = taken.by.insert(node.clone(), (number, replaced.clone())) {
            old.cancel();
        }
        drop(taken);
        let (seats, directory) = (Arc::clone(seats), Arc::clone(directory));
        Ok((Self { node, directory, replaced, number, seats }, connected))
    }

    /// How many nodes go when all do.
    pub(super) fn crowd(&self) -> usize {
        *self.seats.crowd.get_or_init(|| self.seats.taken().by.len())
    }
}

impl<D: Directory> Drop for Seat<D> {
    fn drop(&mut self) {
        let mut taken = self.seats.taken();
        if taken.by.get(&self.node).is_some_and(|(number, _)| *number == self.number) {
            taken.by.remove(&self.node);
            self.directory.disconnect(&self.node);
        }
    }
}
