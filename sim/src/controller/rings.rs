//! What shoots make of the bundle, and which ring is open.

use std::time::Duration;

use rootstock_core::rollout::rings::{InShoot, Observed, Presence, RingsRecord, rings};
use rootstock_core::status::Phase;

use super::{Controller, Effect, Settings, TRACK, Turn};
use crate::api::{Answer, Body, Key};
use crate::bundle::digests;
use crate::clock;

/// The rings are looked at this long after something changed.
pub(super) const PACE: Duration = Duration::from_secs(5);

/// The rings as the controller knows them.
#[derive(Debug, Default)]
pub(super) struct Seen {
    version: u64,
    record: RingsRecord,
    writing: Option<RingsRecord>,
    pub(super) due: Option<Duration>,
}

impl Seen {
    pub(super) fn adopt(&mut self, version: u64, record: RingsRecord) {
        (self.version, self.record) = (version, record);
    }
}

impl Controller {
    /// Looks at all shoots, and opens the next ring or stops the bundle.
    pub(crate) fn look_at_rings(&mut self, turn: &mut Turn<'_>) {
        self.rings.due = None;
        let (Some(config), true, None) = (&turn.of.rings, self.listed, &self.rings.writing) else {
            return;
        };
        let seen = self.observed(turn.of);
        let found = rings(config, &self.rings.record, &seen, clock::wall(turn.now));
        if let Some(next) = found.next.map(clock::at).filter(|next| *next > turn.now) {
            turn.effects.push(Effect::Rings(next));
        }
        if found.record != self.rings.record {
            self.rings.writing = Some(found.record.clone());
            turn.effects.push(Effect::Write(
                Key::Rings,
                self.rings.version,
                Body::Rings(found.record),
            ));
        }
    }

    fn observed(&self, of: &Settings) -> Observed {
        let mut seen = Observed::default();
        let Some(target) = self.target else { return seen };
        seen.targets.insert(of.runtime.clone(), digests(target));
        for (shoot, name) in self.shoots.iter().zip(&of.shoots) {
            let mut says = InShoot::default();
            let nodes = shoot.nodes.iter().filter_map(|node| self.known[*node].as_ref());
            for word in nodes.filter_map(|known| known.word) {
                if word.digest == Some(target) && word.phase == Phase::Proven {
                    says.ready += 1;
                    says.started += word.sandboxes.started;
                }
            }
            let candidate = shoot.states.get(TRACK).and_then(|state| state.candidate.as_ref());
            let halted = candidate.filter(|c| c.has(target) && c.halted.is_some());
            let failures = halted.map_or(&[][..], |candidate| &candidate.failures);
            says.halted = failures.iter().map(|failure| failure.reason).collect();
            seen.shoots.insert((of.runtime.clone(), name.clone()), Presence::Here(says));
        }
        seen
    }

    pub(super) fn rings_answered(&mut self, answer: &Answer, turn: &mut Turn<'_>) {
        let Some(record) = self.rings.writing.take() else { return };
        match answer.version {
            Some(version) => self.adopt(version, record, turn),
            None => self.read(Key::Rings, turn),
        }
        turn.effects.push(Effect::Rings(turn.now + PACE));
    }
}
