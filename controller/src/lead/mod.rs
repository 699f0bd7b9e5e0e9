//! Which of several controllers acts: the one that holds the Lease.
//!
//! ```text
//!  candidate: core::election ─▶ Lease ─▶ Standing (watch<Option<Term>>)
//!                                            ├─▶ Fence: no write but in its own term
//!                                            ├─▶ crate::term: what a leader does, begun and ended with it
//!                                            └─▶ labels of Nodes, in each shoot's task
//! ```
//!
//! Every replica watches all the time, so that the next one knows what there
//! is; one at a time writes and talks to agents. The API server can't fence a
//! leader that was stopped and goes on, so a term ends by this process's own
//! clock, before another may begin: see [`rootstock_core::election`].
//!
//! * `candidate`: the task; `lease`: its requests
//! * `fence`: a client that writes in one term only
//! * `mark`: the label by which the Service finds the leader's Pod

mod candidate;
mod fence;
mod lease;
mod mark;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub(crate) use candidate::Candidate;
pub(crate) use fence::fenced;
pub(crate) use mark::Mark;

/// A time in which this process leads.
///
/// Clones are the same term.
#[derive(Clone, Debug)]
pub struct Term(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    epoch: u64,
    over: CancellationToken,
    /// When it ends if nothing renews it; none where nothing has to.
    until: Mutex<Option<Instant>>,
}

impl Term {
    /// A term that lasts until `over`: of a server that has no rival.
    pub fn until(epoch: u64, over: CancellationToken) -> Self {
        Self(Arc::new(Inner { epoch, over, until: Mutex::default() }))
    }

    /// Its number: a later term has a higher one.
    pub fn epoch(&self) -> u64 {
        self.0.epoch
    }

    /// Whether it may be acted in its name at this moment. A process that was
    /// stopped and goes on is told the truth before anybody has told it.
    pub fn holds(&self) -> bool {
        !self.0.over.is_cancelled() && self.end().is_none_or(|end| Instant::now() < end)
    }

    /// Waits until it is over. Cancel-safe.
    pub async fn over(&self) {
        self.0.over.cancelled().await;
    }

    fn end(&self) -> Option<Instant> {
        *self.0.until.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn renew(&self, until: Instant) {
        *self.0.until.lock().unwrap_or_else(PoisonError::into_inner) = Some(until);
    }
}

/// Whether this process leads, for all who ask.
#[derive(Clone, Debug)]
pub(crate) struct Standing(watch::Receiver<Option<Term>>);

impl Standing {
    /// A standing, and who sets it.
    pub(crate) fn new() -> (watch::Sender<Option<Term>>, Self) {
        let (sender, receiver) = watch::channel(None);
        (sender, Self(receiver))
    }

    /// One that leads for ever.
    #[cfg(test)]
    pub(crate) fn leading() -> Self {
        Self(watch::Sender::new(Some(Term::until(1, CancellationToken::new()))).subscribe())
    }

    /// The term of this moment.
    pub(crate) fn now(&self) -> Option<Term> {
        self.0.borrow().clone().filter(Term::holds)
    }

    /// Waits for a term. Cancel-safe.
    pub(crate) async fn term(&mut self) -> Term {
        loop {
            if let Some(term) = self.now() {
                return term;
            }
            if self.0.changed().await.is_err() {
                // The candidate has left: there will be no term.
                std::future::pending::<()>().await;
            }
        }
    }
}
