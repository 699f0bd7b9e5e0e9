//! Why a stream ends, and the last word that its node hears.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use jiff::Timestamp;
use rootstock_proto::v1::{self, controller_message::Kind};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::identity::NodeId;
use crate::identity::authorities::Anchor;

/// The longest life of a stream.
const LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);
/// A leader is replaced within 15 s; agents add jitter of their own.
const RECONNECT_SOON: Duration = Duration::from_secs(1);
/// How many come back in a second when all are told to go: what one core takes in.
const COMEBACKS_PER_SECOND: u64 = 1500;
/// A node that is not known comes back to see whether that has changed.
const RECONNECT_LATER: Duration = Duration::from_secs(30);
/// Within what time the nodes of an authority that has left come back: most
/// have another certificate by then, and the rest enrols, 20 each second.
const ANEW: Duration = Duration::from_secs(10);

/// Why a stream ends.
#[derive(Debug)]
pub(super) enum End {
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

impl End {
    /// What the node is told, where it can still hear; `crowd` is how many go
    /// when all do.
    pub(super) fn last_word(
        &self,
        node: &NodeId,
        crowd: impl FnOnce() -> usize,
    ) -> Option<Result<Kind, Status>> {
        let (after, reason) = match self {
            Self::Left => return None,
            Self::Replaced => {
                let status = Status::aborted("replaced by another stream of this node");
                return Some(Err(status));
            }
            Self::Broken(status) => return Some(Err(status.clone())),
            Self::Shutdown => (comeback(node, crowd()), "another controller takes over"),
            Self::Aged => (RECONNECT_SOON, "the stream has reached its age"),
            Self::Untrusted => {
                let after = RECONNECT_SOON + spread(node, ANEW);
                (after, "the certificate's authority has left: enrol anew")
            }
            Self::Forgotten => (RECONNECT_LATER, "the node is not known any more"),
        };
        let (reconnect_after, reason) = (after.try_into().ok(), reason.to_owned());
        Some(Ok(Kind::Goodbye(v1::Goodbye { reconnect_after, reason })))
    }
}

/// What ends a stream, whatever its node does.
pub(super) struct Ends {
    pub(super) certificate_end: Timestamp,
    /// Who signed the certificate.
    pub(super) issuer: Anchor,
    pub(super) shutdown: CancellationToken,
}

impl Ends {
    /// Waits for the first of them, or until another stream has replaced it.
    pub(super) async fn first(self, node: NodeId, replaced: CancellationToken) -> End {
        let left = self.certificate_end.duration_since(Timestamp::now());
        let left = Duration::try_from(left).unwrap_or_default();
        tokio::select! {
            // The first of them that is so.
            biased;
            // Cancel-safe, all of them: a token stays cancelled, an authority
            // that has left does not come back, and nor does time.
            () = replaced.cancelled() => End::Replaced,
            () = self.shutdown.cancelled() => End::Shutdown,
            () = self.issuer.left() => End::Untrusted,
            () = tokio::time::sleep(lifetime(&node).min(left)) => End::Aged,
        }
    }
}

/// A day, less up to a tenth of it by the node's name: nodes that came in the
/// same minute don't leave in the same minute.
fn lifetime(node: &NodeId) -> Duration {
    let tenth = LIFETIME.as_secs() / 10;
    LIFETIME - Duration::from_secs(drawn(node) % tenth)
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
