//! The leases of one agent.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::message::{ASK_AGAIN, KNOWN_PER_NODE, LONGEST, RENEW, RENEW_FIRST, burst_of};
use super::{Grant, Held, Rate, Request, Shrunk, Stamp};
use crate::digest::Digest;
use links::Links;

mod links;
#[cfg(test)]
mod tests;

/// Over less time than this nothing is measured: one burst would be most of it.
const MEASURED: Duration = Duration::from_millis(150);

/// How long a pull may take to its first byte before that counts as using
/// nothing: a connection is made meanwhile, and a registry looks for the blob.
const FIRST_BYTE: Duration = Duration::from_secs(1);

/// How many rounds a grant may be behind.
const ROUNDS: usize = 8;

/// What an agent may pull, and what it asks and answers. A pull may be of
/// several blobs, one after the other.
///
/// ```text
///  request ─▶ due ─▶ asks ══ Request ══▶ controller ══ Grant ══▶ heard ─▶ allowance
///     ▲        ▲ 200 … 800 ms with a lease, 1 … 8 s without        └ Shrunk ══▶ controller
///     └ done ══ Shrunk to zero ══▶ controller      hello ══ Held ══▶ the next controller
/// ```
///
/// A lease counts from when the request was sent that it answers, so it ends
/// here before it ends at the controller, however late the grant came.
///
/// Moments are one monotonic clock that goes on while the machine sleeps
/// (`CLOCK_BOOTTIME`): leases end meanwhile.
#[derive(Debug)]
pub struct Holder {
    pulls: BTreeMap<u64, Pull>,
    links: Links,
    next: u64,
    connected: bool,
}

/// What may be pulled at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowance {
    /// How fast; [`Rate::MAX`] for no limit.
    pub rate: Rate,
    /// Bytes that may come at once.
    pub burst: u64,
    /// When it ends, unless it is renewed.
    pub until: Duration,
}

#[derive(Debug)]
struct Pull {
    blob: Digest,
    source: Arc<str>,
    bytes: u64,
    useful_rate: Option<Rate>,
    /// The latest that was sent; 0 before the first.
    round: u64,
    /// The latest rounds that were sent, and when.
    sent: VecDeque<(u64, Duration)>,
    /// When it is asked again.
    due: Duration,
    pause: Duration,
    /// Nothing up to this grant is heard any more.
    heard: Stamp,
    lease: Option<Allowance>,
    /// Whether any byte came yet.
    flows: bool,
    /// Bytes that came after that moment.
    came: u64,
    since: Duration,
}

impl Holder {
    /// An agent that holds nothing and is not connected. `first` is the id of
    /// its first pull: an agent that starts again begins with one that its
    /// earlier life can't have reached, such as the time in microseconds.
    pub fn new(first: u64) -> Self {
        Self { pulls: BTreeMap::new(), links: Links::default(), next: first, connected: false }
    }

    /// Wants to pull a blob of which so many bytes are missing; `useful_rate` is
    /// what the link is known to carry, where earlier pulls from the source did
    /// not tell. The pull's id, by which all else goes; none while there are
    /// eight pulls already.
    pub fn request(
        &mut self,
        blob: Digest,
        source: Arc<str>,
        bytes: u64,
        useful_rate: Option<Rate>,
        now: Duration,
    ) -> Option<u64> {
        if self.pulls.len() >= KNOWN_PER_NODE {
            return None;
        }
        let id = self.next;
        self.next = self.next.wrapping_add(1);
        let (round, sent, heard, lease) = (0, VecDeque::new(), Stamp::default(), None);
        let (due, pause, flows, came, since) = (now, Duration::ZERO, false, 0, now);
        let pull = Pull {
            blob,
            source,
            bytes,
            useful_rate,
            round,
            sent,
            due,
            pause,
            heard,
            lease,
            flows,
            came,
            since,
        };
        self.pulls.insert(id, pull);
        Some(id)
    }

    /// When something is to be asked; none while nothing is, or nobody is
    /// there to be asked. A pull whose bytes are all there asks for nothing
    /// before it goes on: its lease ends where that takes long.
    pub fn due(&self) -> Option<Duration> {
        let dues = self.pulls.values().filter(|pull| pull.bytes > 0).map(|pull| pull.due);
        dues.min().filter(|_| self.connected)
    }

    /// What is asked at this moment. It is to be sent at once: the time of what
    /// it buys is already running.
    pub fn asks(&mut self, now: Duration) -> Vec<Request> {
        let Self { pulls, links, connected, .. } = self;
        let is_due = |pull: &Pull| *connected && pull.bytes > 0 && pull.due <= now;
        let pulls = pulls.iter_mut().filter(|(_, pull)| is_due(pull));
        pulls.map(|(id, pull)| pull.ask(*id, links, now)).collect()
    }

    /// The controller grants, shrinks or takes away. What is to be answered at
    /// once: its budget is free only then.
    pub fn heard(&mut self, grant: &Grant, now: Duration) -> Option<Shrunk> {
        match self.pulls.get_mut(&grant.id) {
            Some(pull) => pull.hear(grant, now),
            // It has ended, or somebody before this process wanted it.
            None => Some(Shrunk { id: grant.id, rate: Rate::ZERO, stamp: Stamp::LAST }),
        }
    }

    /// What may be pulled now; none without a lease.
    pub fn allowance(&self, id: u64, now: Duration) -> Option<Allowance> {
        self.pulls.get(&id).and_then(|pull| pull.live(now))
    }

    /// Bytes of the pull came.
    pub fn came(&mut self, id: u64, bytes: u64, now: Duration) {
        if let Some(pull) = self.pulls.get_mut(&id).filter(|_| bytes > 0) {
            pull.bytes = pull.bytes.saturating_sub(bytes);
            if pull.flows {
                pull.came = pull.came.saturating_add(bytes);
            } else {
                // How long the first ones took says nothing of the link.
                (pull.flows, pull.came, pull.since) = (true, 0, now);
            }
        }
    }

    /// So many bytes are still to come, whatever was said before: a source may
    /// begin anew where it was asked to go on.
    pub fn missing(&mut self, id: u64, bytes: u64) {
        if let Some(pull) = self.pulls.get_mut(&id) {
            pull.bytes = bytes;
        }
    }

    /// How many bytes are still to come.
    pub fn left(&self, id: u64) -> u64 {
        self.pulls.get(&id).map_or(0, |pull| pull.bytes)
    }

    /// The pull goes on with another blob of its source, of which so many bytes
    /// are missing. It keeps its lease, or its place among those who wait.
    pub fn goes_on(&mut self, id: u64, blob: Digest, bytes: u64, now: Duration) {
        if let Some(pull) = self.pulls.get_mut(&id) {
            (pull.blob, pull.bytes, pull.due) = (blob, bytes, now);
            // What came between two answers says nothing of the link.
            (pull.flows, pull.came, pull.since) = (false, 0, now);
        }
    }

    /// The pull has ended, well or not. What is to be told.
    pub fn done(&mut self, id: u64) -> Option<Shrunk> {
        self.pulls.remove(&id)?;
        Some(Shrunk { id, rate: Rate::ZERO, stamp: Stamp::LAST })
    }

    /// The stream has ended. What is held goes on until its end.
    pub fn disconnected(&mut self) {
        self.connected = false;
    }

    /// A stream begins: what its Hello says. No grant that was sent before is
    /// heard from here on, whoever sent it, and everything is asked again.
    pub fn hello(&mut self, now: Duration) -> Vec<Held> {
        self.connected = true;
        for pull in self.pulls.values_mut() {
            pull.heard = Stamp { round: pull.round, sequence: u64::MAX };
            pull.sent.clear();
            (pull.due, pull.pause) = (now, Duration::ZERO);
        }
        let held = self.pulls.iter().filter_map(|(id, pull)| {
            let lease = pull.live(now)?;
            Some(Held { id: *id, rate: lease.rate, remaining: lease.until - now })
        });
        held.collect()
    }
}

impl Pull {
    fn live(&self, now: Duration) -> Option<Allowance> {
        self.lease.filter(|lease| now < lease.until)
    }

    fn ask(&mut self, id: u64, links: &mut Links, now: Duration) -> Request {
        let used = self.measure(links, now);
        self.round += 1;
        if self.sent.len() == ROUNDS {
            self.sent.pop_front();
        }
        self.sent.push_back((self.round, now));
        self.pause = match self.live(now) {
            Some(_) => (self.pause * 2).clamp(RENEW_FIRST, RENEW),
            None => (self.pause * 2).clamp(Duration::from_secs(1), ASK_AGAIN),
        };
        self.due = now.saturating_add(self.pause);
        Request {
            id,
            round: self.round,
            blob: self.blob,
            source: self.source.clone(),
            bytes: self.bytes,
            useful_rate: links.carries(&self.source).or(self.useful_rate),
            used,
        }
    }

    /// What came under the lease. At least one byte per second where it was
    /// measured: nothing at all is no absence of a measure.
    fn measure(&mut self, links: &mut Links, now: Duration) -> Option<Rate> {
        let granted = self.live(now)?.rate;
        let passed = now.saturating_sub(self.since);
        if passed < if self.flows { MEASURED } else { FIRST_BYTE } {
            return None;
        }
        let rate = u128::from(self.came) * 1_000_000_000 / passed.as_nanos();
        (self.came, self.since) = (0, now);
        let used = Rate::saturating(rate.max(1));
        if self.flows {
            links.learn(&self.source, used, granted);
        }
        Some(used)
    }

    fn hear(&mut self, grant: &Grant, now: Duration) -> Option<Shrunk> {
        let stamp = grant.stamp();
        let sent = self.sent.iter().find(|(round, _)| *round == grant.round);
        let (_, sent) = *sent.filter(|_| stamp > self.heard)?;
        self.heard = stamp;
        let before = self.live(now).map_or(Rate::ZERO, |lease| lease.rate);
        let until = sent.saturating_add(grant.lifetime.min(LONGEST));
        let burst = grant.burst.min(burst_of(grant.rate));
        let lease = Allowance { rate: grant.rate, burst, until };
        self.lease = Some(lease).filter(|lease| lease.rate > Rate::ZERO && now < until);
        let after = self.lease.map_or(Rate::ZERO, |lease| lease.rate);
        if after != before {
            (self.came, self.since) = (0, now);
            self.pause = Duration::ZERO;
            // A lease is renewed soon, and one that was taken away asked for again.
            let next = if after > Rate::ZERO { now + RENEW_FIRST } else { now };
            self.due = self.due.min(next);
        } else if after == Rate::ZERO && grant.rate > Rate::ZERO {
            // It came too late to be used.
            self.due = now;
        }
        let shrunk = after < before || after < grant.rate;
        shrunk.then_some(Shrunk { id: grant.id, rate: after, stamp })
    }
}
