//! What agents and the controller say to each other, and how long it counts.

use std::sync::Arc;
use std::time::Duration;

use super::Rate;
use crate::digest::Digest;
use crate::name::{NodeName, ShootName};

/// How long a lease lasts from when its request came: three renewals may be
/// lost, and what a dead agent held is free again within seconds.
pub const LIFETIME: Duration = Duration::from_millis(2500);

/// A lease is renewed at the latest this long after it was last asked for.
pub(super) const RENEW: Duration = Duration::from_millis(800);

/// The first renewal after a rate has changed comes this early: what a link
/// does not carry goes to others as soon as it can be measured.
pub(super) const RENEW_FIRST: Duration = Duration::from_millis(200);

/// Who waits asks again after a second, and then ever later, up to this long.
pub(super) const ASK_AGAIN: Duration = Duration::from_secs(8);

/// A request that was not repeated for so long is forgotten.
pub(super) const STALE: Duration = Duration::from_secs(20);

/// How long a lease goes on for which others wait.
pub(super) const SLICE: Duration = Duration::from_secs(30);

/// One part in so many of any time is added by the controller: an agent's
/// clock may be 1 % slower than the controller's, and this is twice as much.
const DRIFT: u32 = 50;

/// The longest life of a lease, from the moment that its request was sent.
pub(super) const LONGEST: Duration = LIFETIME.saturating_add(STALE);

/// How long what an agent measures as `lifetime` may last by the controller's clock.
pub(super) const fn at_most(lifetime: Duration) -> Duration {
    match lifetime.checked_div(DRIFT) {
        Some(margin) => lifetime.saturating_add(margin),
        None => lifetime,
    }
}

/// Pulls that one node may have at a time: one that waits for the disk, and
/// another one that uses the link meanwhile.
pub(super) const PULLS_PER_NODE: u32 = 2;

/// Pulls of one node that are known at a time, those that wait included.
pub(super) const KNOWN_PER_NODE: usize = 8;

/// The longest name of a source.
pub(super) const LONGEST_SOURCE: usize = 512;

/// Less than this is not worth a pull of its own, unless a budget is lower.
pub(super) const LEAST: Rate = Rate::new(64 << 10);

/// A node: its name is unique in its shoot. A copy costs nothing.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Node(Arc<(ShootName, NodeName)>);

impl Node {
    /// The node of a shoot.
    pub fn new(shoot: ShootName, name: NodeName) -> Self {
        Self(Arc::new((shoot, name)))
    }

    /// Its shoot.
    pub fn shoot(&self) -> &ShootName {
        &self.0.0
    }

    /// Its name there.
    pub fn name(&self) -> &NodeName {
        &self.0.1
    }
}

/// Who pulls: whose budgets count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Puller {
    /// The node.
    pub node: Node,
    /// Its pool, by a name that is unique in its shoot.
    pub pool: Arc<str>,
}

/// Whose turn it is before whose. The controller says it, never the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// A rollout waits for it.
    Canary,
    /// Everyone else.
    Regular,
}

/// An agent asks for a rate, or for a rate to go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Chosen by the node and never used again for another pull.
    pub id: u64,
    /// Higher each time that it is asked again; from 1.
    pub round: u64,
    /// What is pulled.
    pub blob: Digest,
    /// The registry that it comes from; at most 512 bytes.
    pub source: Arc<str>,
    /// Bytes that are still to come.
    pub bytes: u64,
    /// What the link is known to carry.
    pub useful_rate: Option<Rate>,
    /// What came under the lease since its rate last changed or it was last
    /// renewed; none where that was too short to tell.
    pub used: Option<Rate>,
}

/// A rate lease, or how it goes on: also a lower rate, and zero.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The request's.
    pub id: u64,
    /// The latest round that the controller has seen of it.
    pub round: u64,
    /// Another one with each grant of a leader, and higher each time: of two
    /// grants of one round this says which is the later one.
    pub sequence: u64,
    /// What may be pulled.
    pub blob: Digest,
    /// From where.
    pub source: Arc<str>,
    /// How fast; [`Rate::MAX`] for no limit.
    pub rate: Rate,
    /// Bytes that may come at once.
    pub burst: u64,
    /// How long it lasts, from when the agent sent the request of that round.
    pub lifetime: Duration,
}

impl Grant {
    /// Which of the grants of a pull it is.
    pub fn stamp(&self) -> Stamp {
        Stamp { round: self.round, sequence: self.sequence }
    }
}

/// Which of the grants of one pull: a later one is greater.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stamp {
    /// The request's round.
    pub round: u64,
    /// The grant's sequence.
    pub sequence: u64,
}

impl Stamp {
    /// After every grant that there can be.
    pub const LAST: Self = Self { round: u64::MAX, sequence: u64::MAX };
}

/// An agent keeps to this rate until it hears a grant that is later than `stamp`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shrunk {
    /// The pull.
    pub id: u64,
    /// The rate; zero gives the lease back.
    pub rate: Rate,
    /// The latest grant that was heard; [`Stamp::LAST`] where the pull has
    /// ended and no grant will be used.
    pub stamp: Stamp,
}

/// A lease that an agent still has when it connects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// The pull.
    pub id: u64,
    /// Its rate.
    pub rate: Rate,
    /// How long it goes on.
    pub remaining: Duration,
}

/// The most that may come at once with a rate: 10 ms of it, and a read's worth.
pub(super) fn burst_of(rate: Rate) -> u64 {
    (rate.get() / 100).max(64 << 10)
}
