//! What the pulls of a node share, behind one lock.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use rootstock_core::bandwidth::{Allowance, Grant, Held, Holder, Rate, Shrunk, Take};
use rootstock_core::digest::Digest;
use tokio::time::Instant;

use super::Word;
use super::meter::Meter;

/// Not more than one part in so many of a second's bytes is paid ahead: a slow
/// pull must not wait long for its first byte.
const PAYS_WITHIN: u64 = 4;

/// What the controller says of grants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Controller {
    /// None was heard since the agent started.
    Unheard,
    /// Pulls go by its grants.
    Grants,
    /// Pulls have no bounds.
    GrantsNothing,
}

#[derive(Debug)]
pub(super) struct State {
    holder: Holder,
    controller: Controller,
    /// Whether the controller of this stream has said anything.
    spoken: bool,
    connected: bool,
    meters: BTreeMap<u64, Meter>,
    /// Leases that were given back, to be told.
    given_back: Vec<Shrunk>,
    /// Who waits to read.
    readers: Vec<Waker>,
}

impl State {
    pub(super) fn new(first: u64) -> Self {
        Self {
            holder: Holder::new(first),
            controller: Controller::Unheard,
            spoken: false,
            connected: false,
            meters: BTreeMap::new(),
            given_back: Vec::new(),
            readers: Vec::new(),
        }
    }

    /// A pull's id; none while there are as many as there may be.
    pub(super) fn begin(
        &mut self,
        blob: Digest,
        source: Arc<str>,
        bytes: u64,
        now: Duration,
    ) -> Option<u64> {
        let id = self.holder.request(blob, source, bytes, None, now)?;
        self.meters.insert(id, Meter::new(now));
        Some(id)
    }

    pub(super) fn done(&mut self, id: u64) {
        self.meters.remove(&id);
        let shrunk = self.holder.done(id);
        // The next Hello says what is held, and with it what is not.
        self.given_back.extend(shrunk.filter(|_| self.speaks()));
        self.wake();
    }

    pub(super) fn hello(&mut self, now: Duration) -> Vec<Held> {
        (self.connected, self.spoken) = (true, false);
        self.holder.hello(now)
    }

    pub(super) fn disconnected(&mut self) {
        (self.connected, self.spoken) = (false, false);
        self.given_back.clear();
        self.holder.disconnected();
    }

    /// The controller speaks. Whether anything is otherwise by that.
    pub(super) fn controller(&mut self, grants: bool) -> bool {
        let said = if grants { Controller::Grants } else { Controller::GrantsNothing };
        let new = self.controller != said || !self.spoken;
        (self.controller, self.spoken) = (said, self.connected);
        if new {
            self.wake();
        }
        new
    }

    pub(super) fn heard(&mut self, grant: &Grant, now: Duration) -> Option<Shrunk> {
        let answer = self.holder.heard(grant, now);
        // From here on it holds: what the answer says is already so.
        let allowance = self.allowance(grant.id, now);
        if let Some(meter) = self.meters.get_mut(&grant.id) {
            meter.keep_to(allowance, now);
        }
        self.wake();
        answer
    }

    /// When something is to be said; none while there is nothing, or nobody to hear it.
    pub(super) fn due(&self) -> Option<Duration> {
        if !self.speaks() {
            return None;
        }
        if self.given_back.is_empty() { self.holder.due() } else { Some(Duration::ZERO) }
    }

    pub(super) fn says(&mut self, now: Duration) -> Vec<Word> {
        if !self.speaks() {
            return Vec::new();
        }
        // What is free comes before what is wanted.
        let given_back = self.given_back.drain(..).map(Word::Shrunk);
        let mut says: Vec<Word> = given_back.collect();
        says.extend(self.holder.asks(now).into_iter().map(Word::Asks));
        says
    }

    pub(super) fn rate(&self, id: u64, now: Duration) -> Rate {
        self.allowance(id, now).map_or(Rate::ZERO, |allowance| allowance.rate)
    }

    pub(super) fn came(&mut self, id: u64, bytes: u64, now: Duration) {
        self.holder.came(id, bytes, now);
    }

    pub(super) fn goes_on(&mut self, id: u64, blob: Digest, bytes: u64, now: Duration) {
        self.holder.goes_on(id, blob, bytes, now);
    }

    pub(super) fn missing(&mut self, id: u64, bytes: u64) {
        self.holder.missing(id, bytes);
        if let Some(meter) = self.meters.get_mut(&id) {
            meter.brings(bytes);
        }
    }

    pub(super) fn held_back(&self, id: u64, now: Instant) -> Duration {
        self.meters.get(&id).map_or(Duration::ZERO, |meter| meter.held_back(now))
    }

    /// What a reader may read now. It is woken when that may have changed,
    /// beside the time that is said.
    pub(super) fn take(
        &mut self,
        id: Option<u64>,
        want: u64,
        now: Duration,
        reader: &Waker,
    ) -> Take {
        let taken = match id {
            // Nothing is pulled: what comes by itself is not read.
            None => Take::At(Duration::MAX),
            Some(id) => {
                let allowance = self.allowance(id, now);
                match self.meters.get_mut(&id) {
                    None => Take::At(Duration::MAX),
                    Some(meter) => meter.take(allowance, want, now),
                }
            }
        };
        if matches!(taken, Take::At(_)) && !self.readers.iter().any(|is| is.will_wake(reader)) {
            self.readers.push(reader.clone());
        }
        taken
    }

    /// Of the bytes that were taken so many came.
    pub(super) fn read(&mut self, id: u64, taken: u64, came: u64) {
        if let Some(meter) = self.meters.get_mut(&id) {
            meter.read(taken, came);
        }
    }

    /// How many bytes of its next answer a pull pays before it asks, where a
    /// kernel takes in so many before they are read.
    pub(super) fn owes(&self, id: u64, kernel: u64, now: Duration) -> u64 {
        let soon = self.rate(id, now).get() / PAYS_WITHIN;
        kernel.min(self.holder.left(id)).min(soon)
    }

    /// The answer is asked for, and so much of it is paid.
    pub(super) fn asks(&mut self, id: u64, paid: u64) {
        let left = self.holder.left(id);
        if let Some(meter) = self.meters.get_mut(&id) {
            meter.asks(left, paid);
        }
    }

    /// Whoever waits to read looks again.
    pub(super) fn wake(&mut self) {
        self.readers.drain(..).for_each(Waker::wake);
    }

    /// Whether there is a controller that is to be asked.
    fn speaks(&self) -> bool {
        self.spoken && self.controller == Controller::Grants
    }

    fn allowance(&self, id: u64, now: Duration) -> Option<Allowance> {
        match self.controller {
            Controller::Unheard | Controller::Grants => self.holder.allowance(id, now),
            Controller::GrantsNothing => {
                let (rate, burst, until) = (Rate::MAX, u64::MAX, Duration::MAX);
                Some(Allowance { rate, burst, until })
            }
        }
    }
}
