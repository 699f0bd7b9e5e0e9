//! One pull as the controller knows it.

use std::time::Duration;

use super::tree::{Weight, Wish};
use crate::bandwidth::message::{LIFETIME, STALE, at_most};
use crate::bandwidth::{Class, Grant, Node, Rate, Request, Shrunk, Stamp};

#[derive(Debug)]
pub(super) struct Pull {
    /// Whose it is, and its level.
    pub(super) node: Node,
    pub(super) level: usize,
    pub(super) id: u64,
    pub(super) class: Class,
    /// The latest request; none of a lease that only a Hello has told of.
    pub(super) asked: Option<Request>,
    pub(super) received: Duration,
    /// Its place among those who wait: a lower one is older.
    pub(super) age: u64,
    /// Whether its agent can be told something.
    pub(super) reachable: bool,
    /// Since when it has had a rate; none while it waits.
    pub(super) started: Option<Duration>,
    /// What it could use.
    pub(super) want: Rate,
    /// What its agent was last told.
    pub(super) granted: Rate,
    /// What its agent may be using by each grant that it may act on, in the
    /// order of sending: each is lower and lasts longer than the one before it.
    sent: Vec<Sent>,
    /// What the latest round buys, once something was granted for it.
    life: Option<Life>,
    /// What the tree and the timetable know of it.
    pub(super) weight: Weight,
    pub(super) wish: Option<Wish>,
    pub(super) ends: Option<Duration>,
}

#[derive(Clone, Copy, Debug)]
struct Sent {
    stamp: Stamp,
    rate: Rate,
    /// When its agent has stopped, whatever has befallen it.
    dead: Duration,
}

#[derive(Clone, Copy, Debug)]
struct Life {
    lifetime: Duration,
    dead: Duration,
}

impl Pull {
    /// A pull that nothing is known of yet but whose it is.
    pub(super) fn new(node: Node, level: usize, id: u64, class: Class, age: u64) -> Self {
        Self {
            node,
            level,
            id,
            class,
            asked: None,
            received: Duration::ZERO,
            age,
            reachable: false,
            started: None,
            want: Rate::ZERO,
            granted: Rate::ZERO,
            sent: Vec::new(),
            life: None,
            weight: Weight::default(),
            wish: None,
            ends: None,
        }
    }

    /// Its agent says that it has a lease of a leader before this one, of which
    /// so much is granted.
    pub(super) fn hold(&mut self, rate: Rate, granted: Rate, dead: Duration, now: Duration) {
        self.sent.push(Sent { stamp: Stamp::default(), rate, dead });
        (self.started, self.granted, self.want) = (Some(now), granted, rate);
    }

    pub(super) fn round(&self) -> u64 {
        self.asked.as_ref().map_or(0, |asked| asked.round)
    }

    /// A request of a later round.
    pub(super) fn ask(&mut self, request: Request, class: Class, now: Duration) {
        (self.asked, self.received, self.class) = (Some(request), now, class);
        (self.reachable, self.life) = (true, None);
    }

    /// Whether its latest round has been answered.
    pub(super) fn is_answered(&self) -> bool {
        self.life.is_some()
    }

    /// Whether it was not asked again for long.
    pub(super) fn is_stale(&self, now: Duration) -> bool {
        now.saturating_sub(self.received) > STALE
    }

    /// What its agent may be using.
    pub(super) fn counted(&self) -> Rate {
        self.sent.iter().map(|sent| sent.rate).max().unwrap_or_default()
    }

    pub(super) fn weighs(&self) -> Weight {
        Weight { counted: self.counted(), granted: self.granted }
    }

    /// What it waits for.
    pub(super) fn wishes(&self) -> Option<Wish> {
        if !self.reachable || self.asked.is_none() {
            return None;
        }
        if self.started.is_none() {
            return Some(Wish::Start(self.class));
        }
        // Less than an eighth more is not worth a message.
        let more = self.want > self.granted && self.want >= self.granted.scaled(9, 8);
        let more = more && self.granted > Rate::ZERO;
        more.then_some(Wish::More(self.class))
    }

    /// When the first of what was sent is dead.
    pub(super) fn next_end(&self) -> Option<Duration> {
        self.sent.iter().map(|sent| sent.dead).min()
    }

    /// Forgets what is dead. Whether the lease has ended by it.
    pub(super) fn expire(&mut self, now: Duration) -> bool {
        self.sent.retain(|sent| sent.dead > now);
        self.started.is_some() && self.sent.is_empty()
    }

    /// A grant of this rate, which counts from now on.
    ///
    /// Its lifetime is told from when its agent sent the request. That was
    /// before it came here, so what it has waited here is added to it, and the
    /// agent's end is not later than a lifetime from now. A further grant of
    /// the same round buys no more than the first one.
    pub(super) fn grant(&mut self, rate: Rate, sequence: u64, now: Duration) -> Option<Grant> {
        let asked = self.asked.as_ref()?;
        let life = self.life.unwrap_or_else(|| {
            let lifetime = now.saturating_sub(self.received).saturating_add(LIFETIME);
            let dead = self.received.saturating_add(at_most(lifetime));
            // What was sent before may count for longer: its margin was for
            // more time, and what goes by this round must not be dead earlier.
            let before = self.sent.iter().map(|sent| sent.dead).max();
            Life { lifetime, dead: before.map_or(dead, |before| dead.max(before)) }
        });
        let grant = Grant {
            id: self.id,
            round: asked.round,
            sequence,
            blob: asked.blob,
            source: asked.source.clone(),
            rate,
            burst: crate::bandwidth::message::burst_of(rate),
            lifetime: life.lifetime,
        };
        self.life = Some(life);
        self.granted = rate;
        if rate > Rate::ZERO {
            self.started = self.started.or(Some(now));
            self.sent.push(Sent { stamp: grant.stamp(), rate, dead: life.dead });
            self.prune();
        }
        Some(grant)
    }

    /// Its agent keeps to a rate until a later grant. Whether nothing is left
    /// that it may use.
    pub(super) fn shrunk(&mut self, shrunk: Shrunk) -> bool {
        for sent in self.sent.iter_mut().filter(|sent| sent.stamp <= shrunk.stamp) {
            sent.rate = sent.rate.min(shrunk.rate);
        }
        self.sent.retain(|sent| sent.rate > Rate::ZERO);
        self.prune();
        self.started.is_some() && self.sent.is_empty()
    }

    /// Waits, at the end of the line.
    pub(super) fn wait(&mut self, age: u64) {
        (self.started, self.granted, self.want) = (None, Rate::ZERO, Rate::ZERO);
        (self.life, self.age) = (None, age);
        self.sent.clear();
    }

    /// Weighs and wishes nothing any more.
    pub(super) fn leave(&mut self) {
        self.wait(self.age);
        self.reachable = false;
    }

    /// Drops what a later grant covers: at least the same rate for at least as long.
    fn prune(&mut self) {
        let mut kept: Vec<Sent> = Vec::with_capacity(self.sent.len());
        for sent in self.sent.drain(..) {
            kept.retain(|before| before.rate > sent.rate || before.dead > sent.dead);
            kept.push(sent);
        }
        self.sent = kept;
    }
}
