//! One pull's reads: how many bytes, and how long they were held back.
//!
//! A kernel takes in what nobody has read yet, and by then it has left the
//! registry: as much as its buffer holds, at once, and then as fast as it is
//! read. So that much of an answer is paid before it is asked for, and the last
//! that is read of it, which came so much earlier, is not paid again. What has
//! left the registry is no more than was paid, but for buffers that a slow pull
//! can't pay for in a quarter of a second, and for those that the kernel lets
//! grow on long ways.

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
    /// What the connection brings of the answer, and how much of that is paid
    /// before it is read.
    answer: Answer,
    /// Whether what was taken last is paid already.
    is_paid: bool,
}

/// The bytes of an answer.
#[derive(Clone, Copy, Debug, Default)]
struct Answer {
    left: u64,
    paid: u64,
}

impl Meter {
    /// One that may read nothing.
    pub(super) fn new(now: Duration) -> Self {
        let (pacer, kept) = (Pacer::new(Rate::ZERO, 0, now), (Rate::ZERO, 0));
        let (answer, is_paid) = (Answer::default(), false);
        Self { pacer, kept, held_back: Duration::ZERO, since: None, answer, is_paid }
    }

    /// An answer of so many bytes is asked for, of which these are paid.
    pub(super) fn asks(&mut self, left: u64, paid: u64) {
        self.answer = Answer { left, paid };
    }

    /// From now on nothing beyond this is read.
    pub(super) fn keep_to(&mut self, allowance: Option<Allowance>, now: Duration) {
        let keep = allowance.map_or((Rate::ZERO, 0), |to| (to.rate, to.burst));
        if keep != self.kept {
            self.pacer.set(keep.0, keep.1, now);
            self.kept = keep;
        }
    }

    /// The answer brings so many bytes, whatever was asked for.
    pub(super) fn brings(&mut self, left: u64) {
        self.answer.left = left;
    }

    pub(super) fn take(&mut self, allowance: Option<Allowance>, want: u64, now: Duration) -> Take {
        self.keep_to(allowance, now);
        let Answer { left, paid } = self.answer;
        self.is_paid = allowance.is_some() && (1..=paid).contains(&left);
        let taken = match self.is_paid {
            true => Take::Now(want.min(left)),
            false => self.pacer.take(want, now),
        };
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

    /// Of the bytes that were taken so many came.
    pub(super) fn read(&mut self, taken: u64, came: u64) {
        self.answer.left = self.answer.left.saturating_sub(came);
        if !self.is_paid {
            self.pacer.give_back(taken.saturating_sub(came));
        }
    }

    pub(super) fn held_back(&self, now: Instant) -> Duration {
        let this = self.since.map_or(Duration::ZERO, |since| now.duration_since(since));
        self.held_back.saturating_add(this)
    }
}
