//! Whether a run is as it should be, and what is missing.

use std::time::Duration;

use super::World;
use crate::bundle::digests;
use crate::node::Lane;
use crate::plan::Ends;
use crate::queue::Event;

/// What is as it should be has to stay so for this long.
const QUIET: Duration = Duration::from_secs(60);
/// A bundle that was halted must break nobody for this long.
const HALTED: Duration = Duration::from_secs(1800);

impl World {
    /// Notes a second. Whether the run is over.
    pub(super) fn sample(&mut self) -> bool {
        self.series.note(self.now, self.meter.moved(), self.meter.cap());
        self.queue.at(self.now + Duration::from_secs(1), Event::Sample);
        if !self.is_good() {
            self.good_since = None;
            return false;
        }
        let since = *self.good_since.get_or_insert(self.now);
        let quiet = match self.plan.ends {
            Ends::Everywhere => QUIET,
            Ends::Halted | Ends::Stopped => HALTED,
        };
        self.now.saturating_sub(since) >= quiet
    }

    /// When it was first as it should be, and stayed so.
    pub(crate) fn good_since(&self) -> Option<Duration> {
        self.good_since
    }

    fn is_good(&self) -> bool {
        let done = self.series.of(Lane::Done) == self.nodes.len();
        let everywhere = self.plan.ends == Ends::Everywhere;
        if !self.aimed || done != everywhere || self.plan.growth > 0 && !self.grown {
            return false;
        }
        self.left().is_none()
    }

    /// What is missing, in words.
    pub(super) fn what_is_left(&self) -> String {
        self.left().unwrap_or_else(|| "it did not stay as it should be".to_owned())
    }

    fn left(&self) -> Option<String> {
        let (target, old) = (self.plan.target, self.plan.old);
        let bad = self.plan.ends != Ends::Everywhere;
        let good = if bad { old } else { Some(target) };
        let mut wrong = self.nodes.iter().filter(|node| {
            !node.dead && (node.works() != good || node.joining || node.is_activating())
        });
        if let Some(node) = wrong.next() {
            let lanes = Lane::ALL.map(|lane| format!("{} {}", self.series.of(lane), lane.name()));
            let (name, more) = (&node.traits.who.name, wrong.count());
            let lanes = lanes.join(", ");
            return Some(format!("{name} and {more} more are not where they should be: {lanes}"));
        }
        if bad && !self.meter.is_idle() {
            return Some("bytes still flow".to_owned());
        }
        for (shoot, (_, state)) in self.api.shoots.iter().enumerate() {
            let candidate = state.candidate.as_ref();
            let ok = state.slots.is_empty()
                && match self.plan.ends {
                    Ends::Everywhere => candidate.is_none() && state.promoted == digests(target),
                    Ends::Halted => candidate.is_some_and(|candidate| candidate.halted.is_some()),
                    Ends::Stopped => true,
                };
            if !ok {
                let slots = state.slots.len();
                let stage = candidate.map(|c| (c.stage, c.halted.as_ref().map(|halt| halt.why)));
                return Some(format!("shoot {shoot} has {slots} slots out and is at {stage:?}"));
            }
        }
        if self.plan.ends == Ends::Stopped {
            let mut types = self.api.rings.1.types.values();
            let stopped = types.any(|of| of.stopped.iter().any(|s| s.digests == digests(target)));
            return (!stopped).then(|| "the bundle was not stopped for the seed".to_owned());
        }
        None
    }
}
