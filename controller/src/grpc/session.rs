//! One node's stream, from Hello to goodbye.
//!
//! It is the response's own stream, and no task: it goes on when the network
//! has room for what it says, so that the state which a node gets is the one of
//! that moment, and a node that takes nothing is not heard either. Grants go
//! before desired states: their time is running.

use std::pin::Pin;
use std::time::Duration;

use futures_util::stream::{self, FuturesUnordered, Stream, StreamExt as _};
use prost::Message as _;
use rootstock_core::desired::Generation;
use rootstock_core::digest::Digest;
use rootstock_daemon::timer::until;
use rootstock_proto::MAX_CONTROLLER_MESSAGE;
use rootstock_proto::v1::{self, controller_message::Kind};
use tokio::time::Instant;
use tokio_util::task::task_tracker::TaskTrackerToken;
use tonic::{Status, Streaming};

use super::farewell::{End, Ends};
use super::hear::hear;
use super::seat::Seat;
use super::told::Told;
use super::{Connected, Directory};
use crate::identity::NodeId;
use crate::lead::Term;

/// After this many messages at once a node is read at one each [`PACE`].
/// Reports of progress come a few times per second.
const BURST: u32 = 200;
const PACE: Duration = Duration::from_millis(50);
/// What a message has beside the desired state: its length and the epoch.
const ENVELOPE: usize = 32;

/// The stream of one node.
pub(super) struct Session<D: Directory> {
    seat: Seat<D>,
    channels: Channels,
    /// What the node was told on this stream.
    told: Told,
    /// Comes when something else than the node ends it. It is waited for once,
    /// and looked at only when it wakes: each message would look at all of it.
    ended: FuturesUnordered<Pin<Box<dyn Future<Output = End> + Send>>>,
    /// When the node's messages so far would have come at [`PACE`].
    paced: Instant,
    /// Whether there may be something that it should have and was not sent.
    pending: bool,
    /// Whether it was told nothing yet.
    silent: bool,
    skipped: u64,
    /// Why it has ended.
    end: End,
}

/// What a session reads and writes.
pub(super) struct Channels {
    pub(super) inbound: Streaming<v1::NodeMessage>,
    pub(super) connected: Connected,
    pub(super) term: Term,
    /// Held as long as the stream is there.
    pub(super) _counted: TaskTrackerToken,
}

impl<D: Directory> Session<D> {
    pub(super) fn new(
        seat: Seat<D>,
        channels: Channels,
        held: Option<(Generation, Digest)>,
        ends: Ends,
    ) -> Self {
        tracing::info!(node = %seat.node, "node connected");
        let ended = FuturesUnordered::new();
        ended.push(Box::pin(ends.first(seat.node.clone(), seat.replaced.clone())) as Pin<Box<_>>);
        let (paced, skipped, end) = (Instant::now(), 0, End::Left);
        let (pending, silent, told) = (true, true, Told::what_it_holds(held));
        Self { seat, channels, told, ended, paced, pending, silent, skipped, end }
    }

    /// What the node is told, until either side ends it.
    pub(super) fn stream(self) -> impl Stream<Item = Result<v1::ControllerMessage, Status>> {
        // On the heap: it is moved in and out of what waits for its next message.
        stream::unfold(Some(Box::new(self)), async |session| {
            let mut session = session?;
            match session.next().await {
                Ok(kind) => Some((Ok(session.message(kind)), Some(session))),
                Err(end) => {
                    let last = end.last_word(&session.seat.node, || session.seat.crowd());
                    let last = last.map(|last| last.map(|kind| session.message(Some(kind))));
                    session.end = end;
                    // The seat is free before the node can know, so that it finds it free.
                    drop(session);
                    last.map(|last| (last, None))
                }
            }
        })
    }

    fn message(&self, kind: Option<Kind>) -> v1::ControllerMessage {
        v1::ControllerMessage { kind, grants: true, epoch: self.channels.term.epoch() }
    }

    /// Hears the node until there is something to say to it. The first message
    /// comes at once, if need be with nothing but that this controller grants.
    async fn next(&mut self) -> Result<Option<Kind>, End> {
        let Self { seat, channels, told, ended, paced, pending, silent, skipped, .. } = self;
        let Channels { inbound, connected: Connected { desired, line }, term, .. } = channels;
        loop {
            tokio::select! {
                // In order: nothing of a stream that was replaced may count.
                biased;
                // Cancel-safe: it stays with the session.
                Some(end) = ended.next() => return Err(end),
                // Cancel-safe: a grant that is not returned stays. There is none
                // before the node has asked, and so before the first message.
                grant = line.grant() => {
                    if !term.holds() {
                        return Err(End::Shutdown);
                    }
                    return Ok(Some(Kind::PullGrant((&grant).into())));
                }
                // Cancel-safe: it is done at once. The network has room, so the
                // latest state is read and sent.
                () = std::future::ready(()), if *pending => {
                    let latest = desired.borrow_and_update().clone();
                    let kind = latest.and_then(|latest| told.next(&latest));
                    *pending = kind.is_some();
                    if kind.is_none() && !*silent {
                        continue;
                    }
                    if !term.holds() {
                        // It may be another's to say by now.
                        return Err(End::Shutdown);
                    }
                    match &kind {
                        Some(Kind::Desired(desired)) if !is_bearable(&seat.node, desired) => {}
                        _ => {
                            *silent = false;
                            return Ok(kind);
                        }
                    }
                }
                // Cancel-safe: a moment in time, which stays with what was told.
                () = until(told.due()) => {
                    told.repeat();
                    *pending = true;
                }
                // Cancel-safe: a change stays unseen until it is borrowed.
                changed = desired.changed() => match changed {
                    Ok(()) => *pending = true,
                    Err(_dropped) => return Err(End::Forgotten),
                },
                // Cancel-safe: what was read in part stays in the stream.
                message = paced_message(inbound, *paced) => {
                    *paced = (*paced).max(Instant::now()) + PACE;
                    match message {
                        Ok(Some(message)) => hear(seat, line, skipped, message).map_err(End::Broken)?,
                        Ok(None) => return Err(End::Left),
                        Err(status) => return Err(End::Broken(status)),
                    }
                }
            }
        }
    }
}

impl<D: Directory> Drop for Session<D> {
    fn drop(&mut self) {
        let (node, end, skipped) = (&self.seat.node, &self.end, self.skipped);
        tracing::info!(%node, ?end, skipped, "node disconnected");
    }
}

/// The node's next message, once it has not said too much. Cancel-safe.
async fn paced_message(
    inbound: &mut Streaming<v1::NodeMessage>,
    paced: Instant,
) -> Result<Option<v1::NodeMessage>, Status> {
    let at = paced.checked_sub(PACE * BURST).unwrap_or(paced);
    if at > Instant::now() {
        tokio::time::sleep_until(at).await;
    }
    inbound.message().await
}

/// Whether a node can be told what it should have.
fn is_bearable(node: &NodeId, desired: &v1::Desired) -> bool {
    let (generation, size) = (desired.generation, desired.encoded_len() + ENVELOPE);
    if size > MAX_CONTROLLER_MESSAGE {
        // The stream would break on it, again and again.
        tracing::warn!(%node, generation, size, "desired state is too large to send");
        return false;
    }
    tracing::debug!(%node, generation, size, "desired state sent");
    true
}
