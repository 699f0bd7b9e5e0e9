//! Who leads: one of several replicas, by a Lease that it renews.
//!
//! ```text
//!  Following ── nobody's, my own earlier life's, or unchanged for its time ─▶ Write (over that version)
//!     ▲  └ Read, every renewal's time or less                                    │
//!     └──────── given up, taken by another, released ──── Leading ◀──────────────┘
//!                                                           └ Write, every renewal's time
//! ```
//!
//! The API server orders writes and can do no more: a leader that was stopped
//! and goes on does not know that it has been replaced. So whoever leads stops
//! by its own clock, before anybody may take its place: a leader's time counts
//! from when it sent its last write that succeeded, and a follower's patience
//! from when it first read that write, which is later.
//!
//! Pure: the caller carries out one [`Act`] at a time and tells how it went.
//! Moments are the caller's own monotonic clock, from any origin.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

#[cfg(test)]
mod tests;

/// The longest Lease that another one's word is believed for.
pub const LONGEST: Duration = Duration::from_secs(300);

/// How long things last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    /// How long a Lease that does not change is respected.
    pub duration: Duration,
    /// How often it is renewed, and read by those who wait.
    pub renew: Duration,
    /// How long a leader acts after its last renewal: the rest of `duration`
    /// is for clocks that differ and for requests that are under way.
    pub give_up: Duration,
}

impl Times {
    /// All of them, from how long a Lease lasts: of 15 s, renewed after 2 and
    /// given up after 10.
    pub fn of(duration: Duration) -> Self {
        Self { duration, renew: duration * 2 / 15, give_up: duration * 2 / 3 }
    }

    /// How long one request may take: three fit before a leader gives up.
    pub fn patience(&self) -> Duration {
        self.give_up / 3
    }
}

/// A Lease as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its `resourceVersion`: another one with each change.
    pub version: String,
    /// Who holds it; empty when it was released.
    pub holder: String,
    /// How often it went to another holder.
    pub transitions: u64,
    /// How long its holder wants to be waited for.
    pub duration: Duration,
}

/// A write of the Lease, which must fail where the Lease is not as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// The version that is written over; none where it is created.
    pub over: Option<String>,
    /// Who holds it from here on; empty to release it.
    pub holder: String,
    /// The term's number.
    pub transitions: u64,
    /// Whether a term begins by it.
    pub begins: bool,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    /// Nothing before this moment.
    Wait(Duration),
    /// Read the Lease.
    Read,
    /// Write it.
    Write(Write),
}

/// A time of leadership.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Term {
    /// Its number, from 1; a later term has a higher one.
    pub epoch: u64,
    /// When it ends, if nothing renews it.
    pub until: Duration,
}

/// One replica's part in an election.
#[derive(Debug)]
pub struct Election {
    me: String,
    times: Times,
    stand: Stand,
    /// When the next request is due.
    due: Duration,
    /// Whether the Lease is another one than was read, so that a write is in vain.
    stale: bool,
    /// The highest number of a term that was seen: also a Lease that was
    /// deleted and made anew does not go back.
    highest: u64,
    /// How many pauses were drawn.
    drawn: u64,
}

#[derive(Debug)]
enum Stand {
    Following(Option<Seen>),
    Leading { term: Term, version: String },
}

/// What a follower knows.
#[derive(Debug)]
struct Seen {
    /// None where there is no Lease.
    record: Option<Record>,
    /// When it was first seen like this.
    since: Duration,
    /// Whether there was one before: whoever held it may not know yet.
    vanished: bool,
}

impl Election {
    /// A replica that follows. `me` is nobody else's: neither another
    /// replica's nor that of a process that may still run.
    pub fn new(me: String, times: Times) -> Self {
        let (stand, due) = (Stand::Following(None), Duration::ZERO);
        Self { me, times, stand, due, stale: false, highest: 0, drawn: 0 }
    }

    /// What is to be done at this moment.
    pub fn act(&mut self, now: Duration) -> Act {
        self.end_if_over(now);
        match &self.stand {
            Stand::Leading { term, .. } if now < self.due => Act::Wait(self.due.min(term.until)),
            Stand::Leading { .. } if self.stale => Act::Read,
            Stand::Leading { term, version } => Act::Write(Write {
                over: Some(version.clone()),
                holder: self.me.clone(),
                transitions: term.epoch,
                begins: false,
            }),
            Stand::Following(_) if now < self.due => Act::Wait(self.due),
            Stand::Following(Some(seen)) if !self.stale && self.is_free(seen, now) => {
                Act::Write(Write {
                    over: seen.record.as_ref().map(|record| record.version.clone()),
                    holder: self.me.clone(),
                    transitions: self.highest + 1,
                    begins: true,
                })
            }
            Stand::Following(_) => Act::Read,
        }
    }

    /// The Lease was read; none where there is no such one. `now` is when the
    /// answer came.
    pub fn saw(&mut self, record: Option<Record>, now: Duration) {
        self.end_if_over(now);
        self.stale = false;
        self.highest = self.highest.max(record.as_ref().map_or(0, |record| record.transitions));
        if let Stand::Leading { term, version } = &mut self.stand
            && let Some(record) = &record
            && record.holder == self.me
            && record.transitions == term.epoch
        {
            // Somebody else changed something of it.
            version.clone_from(&record.version);
            self.due = now;
            return;
        }
        let known = self.highest > 0;
        let vanished = record.is_none() && matches!(self.stand, Stand::Following(_)) && known;
        let seen = match std::mem::replace(&mut self.stand, Stand::Following(None)) {
            Stand::Following(Some(seen)) if seen.record == record => seen,
            Stand::Following(_) | Stand::Leading { .. } => Seen { record, since: now, vanished },
        };
        self.due = if self.is_free(&seen, now) {
            now
        } else {
            let read = now + self.spread(self.times.renew);
            read.min(seen.since + self.patience_with(seen.record.as_ref()))
        };
        self.stand = Stand::Following(Some(seen));
    }

    /// The Lease was written, which made this version of it; `sent` is when
    /// the request began.
    pub fn wrote(&mut self, write: &Write, version: String, sent: Duration, now: Duration) {
        self.end_if_over(now);
        self.highest = self.highest.max(write.transitions);
        let term = Term { epoch: write.transitions, until: sent + self.times.give_up };
        let goes_on = match &self.stand {
            Stand::Leading { term, .. } => term.epoch == write.transitions,
            Stand::Following(_) => write.begins,
        };
        if goes_on && write.holder == self.me && now < term.until {
            self.stand = Stand::Leading { term, version };
            self.due = sent + self.times.renew;
        } else {
            // It came too late: a term that has ended does not begin again.
            self.stand = Stand::Following(None);
            self.due = now;
        }
    }

    /// The Lease could not be written because it is another one than was read.
    pub fn refused(&mut self, now: Duration) {
        self.stale = true;
        self.due = match self.stand {
            Stand::Leading { .. } => now,
            // Whoever was quicker leads; who comes third need not be as quick.
            Stand::Following(_) => now + self.spread(self.times.renew / 4),
        };
    }

    /// A request failed otherwise, or had no answer: what it did is not known.
    pub fn failed(&mut self, now: Duration) {
        self.stale = true;
        self.due = now + self.spread(self.times.renew / 2);
    }

    /// Whether this replica leads at this moment, and until when.
    pub fn term(&self, now: Duration) -> Option<Term> {
        match &self.stand {
            Stand::Leading { term, .. } if now < term.until => Some(*term),
            Stand::Leading { .. } | Stand::Following(_) => None,
        }
    }

    /// Ends this replica's part. What lets another take its place at once, if
    /// anything has to: a write where it leads, or a look whose the Lease is
    /// where the answer to its last request was lost. Nothing may be done in
    /// the term's name any more when that is sent.
    pub fn release(&mut self, now: Duration) -> Option<Act> {
        self.end_if_over(now);
        let stale = std::mem::take(&mut self.stale);
        match std::mem::replace(&mut self.stand, Stand::Following(None)) {
            Stand::Leading { .. } | Stand::Following(_) if stale => Some(Act::Read),
            Stand::Leading { term, version } => Some(Act::Write(released(version, term.epoch))),
            Stand::Following(_) => None,
        }
    }

    /// The write that releases a Lease which was read after
    /// [`release`](Self::release), where it is this replica's still.
    pub fn release_what(&self, record: Option<Record>) -> Option<Write> {
        let own = record.filter(|record| record.holder == self.me)?;
        Some(released(own.version, own.transitions))
    }

    fn end_if_over(&mut self, now: Duration) {
        if let Stand::Leading { term, .. } = &self.stand
            && now >= term.until
        {
            self.stand = Stand::Following(None);
            self.due = now;
        }
    }

    /// Whether the Lease may be taken.
    fn is_free(&self, seen: &Seen, now: Duration) -> bool {
        let waited = now.saturating_sub(seen.since);
        let free = match &seen.record {
            None => !seen.vanished,
            // Its own was taken in an earlier life, or by a write whose answer was lost.
            Some(record) => record.holder.is_empty() || record.holder == self.me,
        };
        free || waited >= self.patience_with(seen.record.as_ref())
    }

    /// How long a Lease has to be unchanged. The holder's own word counts
    /// where it is longer: it may be of another configuration.
    fn patience_with(&self, record: Option<&Record>) -> Duration {
        let said = record.map_or(Duration::ZERO, |record| record.duration);
        self.times.duration.max(said.min(LONGEST))
    }

    /// Half of `most` to all of it, another one with each call and each replica.
    fn spread(&mut self, most: Duration) -> Duration {
        let mut hasher = DefaultHasher::new();
        (&self.me, self.drawn).hash(&mut hasher);
        self.drawn += 1;
        let thousandths = u32::try_from(hasher.finish() % 501).unwrap_or_default();
        most * (500 + thousandths) / 1000
    }
}

/// Nobody holds it from here on.
fn released(over: String, transitions: u64) -> Write {
    Write { over: Some(over), holder: String::new(), transitions, begins: false }
}
