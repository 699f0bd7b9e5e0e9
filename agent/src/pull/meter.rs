//! One pull's reads: how many bytes, and how long they were held back.

use std::time::Duration;

use rootstock_core::bandwidth::{Allowance, Pacer, Rate, Take};
use tokio::time::Instant;

#[derive(Debug)]
pub(super) struct Meter {
    pacer: Pacer,
    /// What the pacer was last told; its end is no matter of a rate.
    kept: (Rate, u64),
    /// Time in which nothing might be read, until a read last might.
    held_back: Duration,
    /// Since when nothing may be read; none where something may.
    since: Option<Instant>,
}

impl Meter {
    /// One that may read nothing.
    pub(super) fn new(now: Duration) -> Self {
        let (pacer, kept) = (Pacer::new(Rate::ZERO, 0, now), (Rate::ZERO, 0));
        Self { pacer, kept, held_back: Duration::ZERO, since: None }
    }

    /// From now on nothing beyond this is read.
    pub(super) fn keep_to(&mut self, allowance: Option<Allowance>, now: Duration) {
        let keep = allowance.map_or((Rate::ZERO, 0), |to| (to.rate, to.burst));
        if keep != self.kept {
            self.pacer.set(keep.0, keep.1, now);
            self.kept = keep;
        }
    }

    pub(super) fn take(&mut self, allowance: Option<Allowance>, want: u64, now: Duration) -> Take {
        self.keep_to(allowance, now);
        let taken = self.pacer.take(want, now);
        match taken {
            Take::Now(_) => {
                self.held_back = self.held_back(Instant::now());
                self.since = None;
            }
            Take::At(_) => {
                self.since.get_or_insert_with(Instant::now);
            }
        }
        taken
    }

    pub(super) fn give_back(&mut self, bytes: u64) {
        self.pacer.give_back(bytes);
    }

    pub(super) fn held_back(&self, now: Instant) -> Duration {
        let this = self.since.map_or(Duration::ZERO, |since| now.duration_since(since));
        self.held_back.saturating_add(this)
    }
}
