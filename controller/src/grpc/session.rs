//! One node's stream, from Hello to goodbye.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use prost::Message as _;
use rootstock_core::desired::Generation;
use rootstock_core::digest::Digest;
use rootstock_proto::v1::{self, controller_message, node_message};
use rootstock_proto::{MAX_CONTROLLER_MESSAGE, MAX_TYPES, report};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};

use super::drafts::Drafts;
use super::fleet::{DesiredState, Seat};
use super::{Directory, RefusedItem};
use crate::identity::NodeId;
use crate::identity::authorities::Anchor;
use crate::lead::Term;

/// The longest life of a stream.
const LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);
/// After this many messages at once a node is read at one each [`PACE`].
/// Reports of progress come a few times per second.
const BURST: u32 = 200;
const PACE: Duration = Duration::from_millis(50);
/// How long the last word may take to leave.
const FAREWELL: Duration = Duration::from_secs(1);
/// A leader is replaced within 15 s; agents add jitter of their own.
const RECONNECT_SOON: Duration = Duration::from_secs(1);
/// How many come back in a second when all are told to go: what one core takes in.
const COMEBACKS_PER_SECOND: u64 = 1500;
/// A node that is not known comes back to see whether that has changed.
const RECONNECT_LATER: Duration = Duration::from_secs(30);

/// Within what time the nodes of an authority that has left come back: most
/// have another certificate by then, and the rest enrols, 20 each second.
const ANEW: Duration = Duration::from_secs(10);

/// The stream of one node.
pub(super) struct Session<D: Directory> {
    seat: Seat<D>,
    channels: Channels,
    /// What the node said that it holds: it is not sent that again.
    held: Option<(Generation, Digest)>,
    ends: Instant,
    /// When the node's messages so far would have come at [`PACE`].
    paced: Instant,
    skipped: u64,
}

/// What a session reads and writes.
pub(super) struct Channels {
    pub(super) inbound: Streaming<v1::NodeMessage>,
    pub(super) out: mpsc::Sender<Result<v1::ControllerMessage, Status>>,
    pub(super) desired: DesiredState,
    pub(super) drafts: Arc<Drafts>,
    /// Who signed the node's certificate.
    pub(super) issuer: Anchor,
    pub(super) term: Term,
    pub(super) shutdown: CancellationToken,
}

/// Why a session ends.
#[derive(Debug)]
enum End {
    /// The node closed its side, or its connection is gone.
    Left,
    /// Another stream of the node took over.
    Replaced,
    /// The controller stops.
    Shutdown,
    /// It is old enough, or its certificate is.
    Aged,
    /// Who signed the node's certificate is trusted no longer.
    Untrusted,
    /// The directory dropped the node.
    Forgotten,
    /// The node broke the protocol.
    Broken(Status),
}

impl<D: Directory> Session<D> {
    pub(super) fn new(
        seat: Seat<D>,
        channels: Channels,
        held: Option<(Generation, Digest)>,
        certificate_end: Timestamp,
    ) -> Self {
        let left = certificate_end.duration_since(Timestamp::now());
        let left = Duration::try_from(left).unwrap_or_default();
        let now = Instant::now();
        let ends = now + lifetime(&seat.node).min(left);
        Self { seat, channels, held, ends, paced: now, skipped: 0 }
    }

    /// Runs until either side ends it.
    pub(super) async fn run(mut self) {
        tracing::info!(node = %self.seat.node, "node connected");
        let end = self.converse().await;
        tracing::info!(node = %self.seat.node, ?end, skipped = self.skipped, "node disconnected");
        let last = match end {
            End::Left => return,
            End::Replaced => Err(Status::aborted("replaced by another stream of this node")),
            End::Broken(status) => Err(status),
            End::Shutdown => {
                let after = comeback(&self.seat.node, self.seat.crowd());
                Ok((after, "another controller takes over"))
            }
            End::Aged => Ok((RECONNECT_SOON, "the stream has reached its age")),
            End::Untrusted => {
                let after = RECONNECT_SOON + spread(&self.seat.node, ANEW);
                Ok((after, "the certificate's authority has left: enrol anew"))
            }
            End::Forgotten => Ok((RECONNECT_LATER, "the node is not known any more")),
        };
        let epoch = self.channels.term.epoch();
        let last = last.map(|(after, reason)| goodbye(after, reason, epoch));
        // The seat is free before the node can know, so that it finds it free.
        drop(self.seat);
        let sent = tokio::time::timeout(FAREWELL, self.channels.out.send(last)).await;
        tracing::trace!(?sent, "farewell");
    }

    async fn converse(&mut self) -> End {
        // What is in the watch now was not sent on this stream yet.
        let mut pending = true;
        let Channels { inbound, out, desired, drafts, issuer, term, shutdown } = &mut self.channels;
        // What ends a stream is waited for once, and not anew with each message:
        // all streams share the lists of those who wait.
        let mut replaced = pin!(self.seat.replaced.cancelled());
        let mut ended = pin!(shutdown.cancelled());
        let mut left = pin!(issuer.left());
        let mut aged = pin!(tokio::time::sleep_until(self.ends));
        loop {
            let read_at = self.paced.checked_sub(PACE * BURST).unwrap_or(self.paced);
            tokio::select! {
                // In order: nothing of a stream that was replaced may count.
                biased;
                // Cancel-safe: a token stays cancelled.
                () = &mut replaced => return End::Replaced,
                // Cancel-safe: a token stays cancelled.
                () = &mut ended => return End::Shutdown,
                // Cancel-safe: what has left does not come back.
                () = &mut left => return End::Untrusted,
                // Cancel-safe: waits for a fixed time.
                () = &mut aged => return End::Aged,
                // Cancel-safe: a closed channel stays closed.
                () = out.closed() => return End::Left,
                // Cancel-safe: only the place in the queue of one is given up.
                // The state is read once there is room for it, so the latest is sent.
                permit = out.reserve(), if pending => {
                    pending = false;
                    let Ok(permit) = permit else { return End::Left };
                    let latest = desired.borrow_and_update().clone();
                    let Some(latest) = latest else { continue };
                    let held = self.held.take();
                    let draft = drafts.of(&latest);
                    if held.is_some_and(|(g, c)| g == latest.generation && draft.is(&c)) {
                        continue;
                    }
                    if !term.holds() {
                        // It may be another's to say by now.
                        return End::Shutdown;
                    }
                    let desired = draft.message(latest.generation);
                    if let Some(message) = offer(&self.seat.node, desired, term.epoch()) {
                        permit.send(Ok(message));
                    }
                }
                // Cancel-safe: a change stays unseen until it is borrowed.
                changed = desired.changed(), if !pending => match changed {
                    Ok(()) => pending = true,
                    Err(_dropped) => return End::Forgotten,
                },
                // Cancel-safe: what was read in part stays in the stream.
                message = async {
                    tokio::time::sleep_until(read_at).await;
                    inbound.message().await
                } => {
                    self.paced = self.paced.max(Instant::now()) + PACE;
                    match message {
                        Ok(Some(message)) => {
                            if let Err(status) = hear(&self.seat, &mut self.skipped, message) {
                                return End::Broken(status);
                            }
                        }
                        Ok(None) => return End::Left,
                        Err(status) => return End::Broken(status),
                    }
                }
            }
        }
    }
}

/// The message that tells a node what it should have.
fn offer(node: &NodeId, desired: v1::Desired, epoch: u64) -> Option<v1::ControllerMessage> {
    let generation = desired.generation;
    let message = message(controller_message::Kind::Desired(desired), epoch);
    let size = message.encoded_len();
    if size > MAX_CONTROLLER_MESSAGE {
        // The stream would break on it, again and again.
        tracing::warn!(%node, generation, size, "desired state is too large to send");
        return None;
    }
    tracing::debug!(%node, generation, size, "desired state sent");
    Some(message)
}

/// Gives on what a node says, item by item: one that can't be read is skipped
/// and counted.
fn hear<D: Directory>(
    seat: &Seat<D>,
    skipped: &mut u64,
    message: v1::NodeMessage,
) -> Result<(), Status> {
    use node_message::Kind;
    let (node, directory) = (&seat.node, &seat.directory);
    match message.kind {
        Some(Kind::Report(wire)) => {
            let generation = Generation(wire.generation);
            let (good, bad) = report::bundles(wire)?;
            for invalid in &bad {
                tracing::debug!(%node, %invalid, "item of a report skipped");
            }
            *skipped += u64::try_from(bad.len()).unwrap_or(u64::MAX);
            directory.report(node, generation, good);
        }
        Some(Kind::Accept(accept)) => {
            directory.accepted(node, Generation(accept.generation));
        }
        Some(Kind::Refuse(refuse)) => {
            let generation = Generation(refuse.generation);
            let mut items = Vec::new();
            // Each type and the whole: more can't be meant.
            for item in refuse.items.into_iter().take(MAX_TYPES + 1) {
                match RefusedItem::try_from(item) {
                    Ok(item) => items.push(item),
                    Err(invalid) => {
                        tracing::debug!(%node, %invalid, "item of a refusal skipped");
                        *skipped += 1;
                    }
                }
            }
            directory.refused(node, generation, items);
        }
        Some(Kind::Hello(_)) => {
            return Err(Status::invalid_argument("Hello is said once"));
        }
        // This controller gives no grants and no slots, and keeps no
        // steps; the confirmation of a removal is in the report too.
        Some(
            Kind::PullRequest(_)
            | Kind::GrantShrunk(_)
            | Kind::SlotRequest(_)
            | Kind::Steps(_)
            | Kind::InUse(_)
            | Kind::RemovalConfirmed(_),
        )
        // A newer agent may say what this controller does not know.
        | None => tracing::trace!(%node, "message ignored"),
    }
    Ok(())
}

fn goodbye(after: Duration, reason: &str, epoch: u64) -> v1::ControllerMessage {
    let (reconnect_after, reason) = (after.try_into().ok(), reason.to_owned());
    message(controller_message::Kind::Goodbye(v1::Goodbye { reconnect_after, reason }), epoch)
}

fn message(kind: controller_message::Kind, epoch: u64) -> v1::ControllerMessage {
    v1::ControllerMessage { kind: Some(kind), epoch }
}

/// How long a node stays away when all of so many go at once: they come back
/// evenly, no faster than a controller lets them in.
fn comeback(node: &NodeId, crowd: usize) -> Duration {
    let crowd = u64::try_from(crowd).unwrap_or(u64::MAX);
    let spread = crowd.saturating_mul(1000) / COMEBACKS_PER_SECOND;
    RECONNECT_SOON + self::spread(node, Duration::from_millis(spread))
}

/// A part of the time that is the node's own.
fn spread(node: &NodeId, within: Duration) -> Duration {
    let within = u64::try_from(within.as_millis()).unwrap_or(u64::MAX);
    Duration::from_millis(drawn(node) % within.max(1))
}

/// A number of the node's own, the same each time.
fn drawn(node: &NodeId) -> u64 {
    let mut hasher = DefaultHasher::new();
    node.hash(&mut hasher);
    hasher.finish()
}

/// A day, less up to a tenth of it by the node's name: nodes that came in the
/// same minute don't leave in the same minute.
fn lifetime(node: &NodeId) -> Duration {
    let tenth = LIFETIME.as_secs() / 10;
    LIFETIME - Duration::from_secs(drawn(node) % tenth)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crowd_comes_back_evenly() {
        let node = |n| NodeId::from_spiffe(&format!("spiffe://one/node/n-{n}/{n}")).unwrap();
        assert_eq!(comeback(&node(1), 1), RECONNECT_SOON);
        let mut seconds = [0; 9];
        for n in 0..10_000 {
            let after = comeback(&node(n), 10_000);
            seconds[usize::try_from(after.as_secs()).unwrap()] += 1;
        }
        assert_eq!(seconds[0], 0);
        assert!(seconds[1..7].iter().all(|n| (1400..1600).contains(n)), "{seconds:?}");
    }
}
