//! Bytes: as a fluid that flows at the rate of the lease, or of the link where that is less.
//!
//! Between two events a rate is constant, so what came is exact, and so is the
//! sum of all nodes' rates at every instant.

use std::sync::Arc;
use std::time::Duration;

use rootstock_core::bandwidth::Rate;
use rootstock_core::digest::Digest;

use super::Node;
use crate::bundle::Bundles;
use crate::clock::nanos;
use crate::message::Up;
use crate::rng::Rng;

/// A byte, in bytes times nanoseconds per second.
const BYTE: u128 = 1_000_000_000;

/// One blob on its way.
#[derive(Debug)]
pub(super) struct Pull {
    id: u64,
    pub(super) digest: Digest,
    /// What is missing, and what is missing when its connection breaks off.
    left: u128,
    breaks: u128,
    /// Up to when it is counted.
    since: Duration,
    /// What its lease allows, what comes, and until when.
    pub(super) allowed: u64,
    pub(super) rate: u64,
    until: Duration,
    /// What came and was not told to the holder, less than a byte.
    part: u128,
}

impl Pull {
    /// When its lease ends, or its bytes are there.
    pub(super) fn due(&self) -> Option<Duration> {
        if self.rate == 0 {
            return None;
        }
        let flows = (self.left - self.breaks).div_ceil(u128::from(self.rate));
        Some(self.until.min(self.since + nanos(flows)))
    }
}

impl Node {
    /// What its lease allows at this moment, and what comes.
    pub(crate) fn rates(&self) -> (u64, u64) {
        self.pull.as_ref().map_or((0, 0), |pull| (pull.allowed, pull.rate))
    }

    /// Whether it waits for a lease.
    pub(crate) fn waits_for_bytes(&self) -> bool {
        self.pull.as_ref().is_some_and(|pull| pull.allowed == 0)
    }

    /// Counts what came up to this moment.
    pub(super) fn settle(&mut self, now: Duration) {
        let clock = self.traits.clock;
        let Some(pull) = &mut self.pull else { return };
        let flowed = now.min(pull.until).saturating_sub(pull.since);
        let came = (flowed.as_nanos() * u128::from(pull.rate)).min(pull.left);
        pull.since = pull.since.max(now);
        pull.left -= came;
        pull.part += came;
        let bytes = u64::try_from(pull.part / BYTE).unwrap_or(u64::MAX);
        pull.part %= BYTE;
        self.holder.came(pull.id, bytes, clock.says(now));
        self.refresh(now);
    }

    /// Looks at what the lease allows from this moment on.
    pub(super) fn refresh(&mut self, now: Duration) {
        let (clock, link) = (self.traits.clock, self.traits.link);
        let Some(pull) = &mut self.pull else { return };
        let allowance = self.holder.allowance(pull.id, clock.says(now));
        pull.allowed = allowance.map_or(0, |allowance| allowance.rate.get());
        pull.until = allowance.map_or(now, |allowance| clock.when(allowance.until));
        pull.rate = pull.allowed.min(link);
    }

    /// Ends a pull that has all its bytes, or breaks off.
    pub(super) fn end_pull(&mut self, now: Duration, rng: &mut Rng, say: &mut Vec<Up>) {
        let Some(pull) = self.pull.as_ref().filter(|pull| pull.left <= pull.breaks) else { return };
        if pull.left > 0 {
            self.pull_again = Some(now + rng.millis(5_000..30_000));
        }
        self.stop_pull(say);
    }

    fn stop_pull(&mut self, say: &mut Vec<Up>) {
        let Some(pull) = self.pull.take() else { return };
        // What came stays; a byte that was begun comes again.
        self.disk.insert(pull.digest, pull.left.div_ceil(BYTE) * BYTE);
        say.extend(self.holder.done(pull.id).map(Up::Shrunk));
    }

    /// Pulls what is pending, else what may be pulled ahead.
    pub(super) fn begin_pull(
        &mut self,
        now: Duration,
        bundles: &Bundles,
        rng: &mut Rng,
        say: &mut Vec<Up>,
    ) {
        let tried = |digest: &Digest| self.refused.get(*digest).is_some();
        let missing = |digest: &Digest| !self.has(*digest) && !tried(digest);
        let wanted = [self.pending(), self.prefetch].into_iter().flatten().find(missing);
        if self.pull.as_ref().is_some_and(|pull| Some(pull.digest) != wanted) {
            self.stop_pull(say);
        }
        let Some(digest) = wanted.filter(|_| self.pull.is_none() && self.pull_again.is_none())
        else {
            return;
        };
        let all = u128::from(bundles.bytes(digest)) * BYTE;
        let left = self.disk.get(digest).copied().unwrap_or(all);
        let bytes = u64::try_from(left / BYTE).unwrap_or(u64::MAX);
        let breaks = if rng.chance(self.traits.pull_breaks) {
            left / 1000 * u128::from(rng.range(1..900))
        } else {
            0
        };
        let link = Some(Rate::new(self.traits.link)).filter(|_| rng.chance(500));
        let local = self.traits.clock.says(now);
        let Some(id) = self.holder.request(digest, Arc::from("main"), bytes, link, local) else {
            return;
        };
        let (since, until) = (now, now);
        self.pull =
            Some(Pull { id, digest, left, breaks, since, allowed: 0, rate: 0, until, part: 0 });
    }
}
