//! One stream's side of it.

use std::sync::Arc;

use rootstock_core::bandwidth::{Grant, Puller, Request, Shrunk};

use super::Bandwidth;
use super::mailbox::Mailbox;

/// What a stream asks by, and hears grants from. Dropped with its stream.
///
/// It is two pointers until something is asked.
#[derive(Debug)]
pub struct Line {
    bandwidth: Arc<Bandwidth>,
    open: Option<Box<Open>>,
}

#[derive(Debug)]
struct Open {
    puller: Puller,
    mailbox: Arc<Mailbox>,
}

impl Line {
    pub(super) fn new(bandwidth: Arc<Bandwidth>) -> Self {
        Self { bandwidth, open: None }
    }

    /// The node asks. `puller` is whose budgets count, and is looked up once:
    /// a node that comes into another pool meanwhile is in it with its next stream.
    pub(crate) fn ask(&mut self, puller: impl FnOnce() -> Puller, request: Request) {
        let open = Open::get(&mut self.open, puller);
        self.bandwidth.ask(&open.puller, &open.mailbox, request);
    }

    /// The node keeps to a lowered rate. It may say that of a lease from
    /// before this stream.
    pub(crate) fn keep(&mut self, puller: impl FnOnce() -> Puller, shrunk: Shrunk) {
        let open = Open::get(&mut self.open, puller);
        self.bandwidth.keep(&open.puller.node, shrunk);
    }

    /// The next grant that the node is to be sent. Cancel-safe: a grant that
    /// was not returned stays.
    pub(crate) async fn grant(&self) -> Grant {
        match &self.open {
            Some(open) => std::future::poll_fn(|cx| open.mailbox.poll(cx)).await,
            // Nothing is granted that was not asked for, and who asks does so
            // between two calls.
            None => std::future::pending().await,
        }
    }
}

impl Open {
    fn get(open: &mut Option<Box<Self>>, puller: impl FnOnce() -> Puller) -> &Self {
        open.get_or_insert_with(|| Box::new(Self { puller: puller(), mailbox: Arc::default() }))
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if let Some(open) = &self.open {
            self.bandwidth.hang_up(&open.puller.node, &open.mailbox);
        }
    }
}
