//! One node: a small state machine that keeps to what the agent promises.
//!
//! ```text
//!  Desired ─▶ pull (only under a lease) ─▶ queued ─▶ activate (only with a slot) ─▶ proven ─▶ sandboxes
//!     ▲          └ breaks off, goes on later            └ rolled back, degraded, held up
//!     └═══ Report, whenever something of it has changed ═══┘
//! ```
//!
//! It knows no other clock than its own, and hears nothing but messages. What
//! it keeps from a restart of its stream: its disk, its leases, its permit.

mod activate;
mod pull;
mod word;

use std::sync::Arc;
use std::time::Duration;

use rootstock_core::bandwidth::{Holder, Puller};
use rootstock_core::digest::Digest;
use rootstock_core::name::{NodeName, Uid};
use rootstock_core::rollout::view::Sandboxes;
use rootstock_core::rollout::{Give, Permit};
use rootstock_core::status::{Phase, Reason};

use crate::bundle::Bundles;
use crate::clock::{self, Clock};
use crate::message::{Desired, Down, Up, Word};
use crate::rng::Rng;
use activate::{Activation, Pods};
use pull::Pull;
pub(crate) use word::Lane;

/// What a node is called, by all who speak of it.
#[derive(Debug)]
pub(crate) struct Who {
    /// Its name.
    pub(crate) name: NodeName,
    /// Its UID.
    pub(crate) uid: Uid,
    /// The same for the allocator, and its pool.
    pub(crate) puller: Puller,
}

/// What a node is, and does not choose.
#[derive(Clone, Debug)]
pub(crate) struct Traits {
    /// What it is called.
    pub(crate) who: Arc<Who>,
    /// The shoot that it is in, by number.
    pub(crate) shoot: usize,
    /// What its link carries, bytes per second.
    pub(crate) link: u64,
    /// How long a message takes one way, at least.
    pub(crate) latency: Duration,
    /// Its monotonic clock.
    pub(crate) clock: Clock,
    /// In how many of a thousand pulls the connection breaks off.
    pub(crate) pull_breaks: u32,
    /// In how many of a thousand activations something else than the bundle is in the way.
    pub(crate) host_fails: u32,
}

/// What happened on a node that a law speaks of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Deed {
    /// It began to activate a bundle; with a slot, or because nothing runs there yet.
    Began(Digest, bool),
    /// It is done with that: the bundle works.
    Worked(Digest),
    /// The bundle broke it.
    Broke(Digest),
    /// Something else was in the way.
    WasHeld,
    /// It fell silent for good.
    Died,
}

/// One node.
#[derive(Debug)]
pub(crate) struct Node {
    /// What it is.
    pub(crate) traits: Traits,
    /// Whether it still has the taint of a node on which nothing runs yet.
    pub(crate) joining: bool,
    /// The stream that it has, by number.
    pub(crate) stream: Option<u64>,
    /// Whether it will never say anything again.
    pub(crate) dead: bool,
    works: Option<Digest>,
    /// Whether containerd is down for good, until an activation brings it back.
    degraded: Option<Digest>,
    desired: Option<Digest>,
    prefetch: Option<Digest>,
    permit: Option<Permit>,
    /// The end of the slot that was used last: one slot is one attempt.
    used: Option<Duration>,
    /// What did not work here, and is not tried again by itself.
    refused: Few<Reason>,
    /// What is missing of each bundle, in bytes times nanoseconds.
    disk: Few<u128>,
    holder: Holder,
    pull: Option<Pull>,
    /// Something was in the way of a pull until then.
    pull_again: Option<Duration>,
    activation: Option<Activation>,
    /// Something was in the way of an activation until then.
    activate_again: Option<Duration>,
    pods: Pods,
    /// What it has to say of itself.
    word: Word,
    /// What it last said over this stream.
    told: Option<Word>,
}

/// Something of each of a few bundles.
#[derive(Debug)]
struct Few<T>(Vec<(Digest, T)>);

impl<T> Default for Few<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> FromIterator<(Digest, T)> for Few<T> {
    fn from_iter<I: IntoIterator<Item = (Digest, T)>>(all: I) -> Self {
        Self(all.into_iter().collect())
    }
}

impl<T> Few<T> {
    fn get(&self, digest: Digest) -> Option<&T> {
        self.0.iter().find(|(of, _)| *of == digest).map(|(_, thing)| thing)
    }

    fn insert(&mut self, digest: Digest, thing: T) {
        match self.0.iter_mut().find(|(of, _)| *of == digest) {
            Some((_, before)) => *before = thing,
            None => self.0.push((digest, thing)),
        }
    }
}

impl Node {
    /// A node that works with a bundle, or one that has just come and has none.
    pub(crate) fn new(traits: Traits, works: Option<Digest>) -> Self {
        let mut node = Self {
            holder: Holder::new(1),
            joining: works.is_none(),
            stream: None,
            dead: false,
            works,
            degraded: None,
            desired: works,
            prefetch: None,
            permit: None,
            used: None,
            refused: Few::default(),
            disk: works.into_iter().map(|digest| (digest, 0)).collect(),
            pull: None,
            pull_again: None,
            activation: None,
            activate_again: None,
            pods: Pods::default(),
            word: Word {
                digest: None,
                phase: Phase::Waiting,
                reason: None,
                fetched: None,
                sandboxes: Sandboxes::default(),
            },
            told: None,
            traits,
        };
        node.word = node.say();
        node
    }

    /// The bundle that containerd runs with.
    pub(crate) fn works(&self) -> Option<Digest> {
        self.works
    }

    /// Whether containerd may be down at this moment, or is.
    pub(crate) fn is_activating(&self) -> bool {
        self.activation.is_some()
    }

    /// Whether the kubelet says that the node is ready.
    pub(crate) fn is_ready(&self) -> bool {
        self.degraded.is_none() && !self.dead
    }

    /// A stream begins.
    pub(crate) fn hello(&mut self, stream: u64, now: Duration) -> Up {
        self.settle(now);
        self.stream = Some(stream);
        let held = self.holder.hello(self.traits.clock.says(now));
        self.word = self.say();
        self.told = Some(self.word);
        Up::Hello { held, word: self.word }
    }

    /// The stream has ended.
    pub(crate) fn disconnected(&mut self) {
        self.holder.disconnected();
        (self.stream, self.told) = (None, None);
    }

    /// A message came.
    pub(crate) fn hear(&mut self, message: Down, now: Duration, say: &mut Vec<Up>) {
        self.settle(now);
        match message {
            Down::Grant(grant) => {
                let shrunk = self.holder.heard(&grant, self.traits.clock.says(now));
                say.extend(shrunk.map(Up::Shrunk));
            }
            Down::Desired(Desired { give, prefetch, permit }) => {
                if let Some(Permit::Slot { again: true, .. }) = permit
                    && self.permit != permit
                {
                    self.refused = Few::default();
                }
                self.permit = permit;
                self.prefetch = prefetch;
                self.desired = match give {
                    // What it has stays, so there is nothing pending.
                    Give::Stay => self.works.or(self.desired),
                    Give::Promoted(digest) | Give::Candidate(digest) => Some(digest),
                };
            }
        }
    }

    /// Does all that is due at this moment.
    pub(crate) fn live(
        &mut self,
        now: Duration,
        bundles: &Bundles,
        rng: &mut Rng,
        say: &mut Vec<Up>,
    ) -> Vec<Deed> {
        if self.dead {
            return Vec::new();
        }
        self.settle(now);
        self.end_pull(now, rng, say);
        let ended = self.end_activation(now, bundles, rng);
        if self.dead {
            self.pull = None;
            return ended.into_iter().collect();
        }
        self.run_pods(now, bundles, rng);
        self.pull_again = self.pull_again.filter(|again| *again > now);
        self.activate_again = self.activate_again.filter(|again| *again > now);
        let began = self.begin_activation(now, rng);
        self.begin_pull(now, bundles, rng, say);
        say.extend(self.holder.asks(self.traits.clock.says(now)).into_iter().map(Up::Ask));
        self.refresh(now);
        self.word = self.say();
        if self.stream.is_some() && self.told != Some(self.word) {
            self.told = Some(self.word);
            say.push(Up::Report(self.word));
        }
        ended.into_iter().chain(began).collect()
    }

    /// When something is due, if nothing comes before.
    pub(crate) fn due(&self) -> Option<Duration> {
        if self.dead {
            return None;
        }
        let asks = self.holder.due().map(|due| self.traits.clock.when(due));
        let activation = self.activation.as_ref().map(Activation::end);
        let again = [self.pull_again, self.activate_again, self.pods.next()];
        let pull = self.pull.as_ref().and_then(Pull::due);
        [asks, activation, pull].into_iter().chain(again).flatten().min()
    }

    /// What it has to activate before it is as it should be.
    fn pending(&self) -> Option<Digest> {
        self.desired.filter(|digest| self.works != Some(*digest))
    }

    fn has(&self, digest: Digest) -> bool {
        self.disk.get(digest) == Some(&0)
    }

    /// Whether its permit holds at this moment, and the end of its slot.
    fn permitted(&self, now: Duration) -> Option<Option<Duration>> {
        match self.permit? {
            Permit::Joining => self.joining.then_some(None),
            Permit::Slot { until, .. } => {
                let until = clock::at(until);
                (now < until && self.used != Some(until)).then_some(Some(until))
            }
        }
    }
}
