//! The grants that wait to be sent on one stream.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use rootstock_core::bandwidth::Grant;

/// As many grants as the allocator knows pulls of one node.
pub(super) const ROOM: usize = 8;

/// Grants on their way to a stream, which takes them when its network has room.
///
/// Of each pull the latest one is kept: it says all that the ones before it
/// said. Where a ninth pull comes the grant that has waited longest is lost,
/// as it could be on the network: its agent asks again.
#[derive(Debug, Default)]
pub(super) struct Mailbox(Mutex<Mail>);

#[derive(Debug, Default)]
struct Mail {
    /// In the order of their sequence.
    grants: Vec<Grant>,
    /// Who waits for the next one.
    waker: Option<Waker>,
}

impl Mailbox {
    pub(super) fn put(&self, grant: Grant) {
        let waker = {
            let mut mail = self.mail();
            mail.grants.retain(|waiting| waiting.id != grant.id);
            if mail.grants.len() >= ROOM {
                mail.grants.remove(0);
            }
            mail.grants.push(grant);
            mail.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Takes the grant that has waited longest. The last one who looked in
    /// vain is woken when there is one.
    pub(super) fn poll(&self, cx: &Context<'_>) -> Poll<Grant> {
        let mut mail = self.mail();
        if mail.grants.is_empty() {
            if !mail.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
                mail.waker = Some(cx.waker().clone());
            }
            return Poll::Pending;
        }
        let grant = mail.grants.remove(0);
        if mail.grants.is_empty() {
            // A node that pulls nothing keeps no room.
            mail.grants = Vec::new();
        }
        Poll::Ready(grant)
    }

    fn mail(&self) -> MutexGuard<'_, Mail> {
        // Whole after every statement.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
