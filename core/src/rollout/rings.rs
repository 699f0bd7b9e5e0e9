//! Which shoots of a seed may try a bundle.
//!
//! One entry of the catalog serves hundreds of shoots. A bundle opens ring by
//! ring: to the shoots that want to be first, then to a percentage, then to
//! all. The next ring opens when the one before has used it for a while.
//!
//! ```text
//!  target ─▶ opted in ─▶ 10 % ─▶ all ─▶ promoted for the seed
//!              └──────────┴───────┴── two shoots, or a canary shoot: stopped
//! ```
//!
//! What one shoot says stops that shoot alone, so that no owner halts others.
//! Where nothing is promoted for a type every shoot may try its first bundle:
//! there is nothing safer that it could have.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::record::Digests;
use super::step::{earlier, stage_hash};
use super::view::{Seed, Standing};
use crate::digest::Digest;
use crate::name::{RuntimeType, ShootName};
use crate::status::Reason;

/// The most stopped bundles of one type that are remembered.
const MAX_STOPPED: usize = 16;
/// The fewest shoots whose failures of one class stop a bundle for all.
const SHOOTS_THAT_STOP: usize = 2;

/// How a bundle opens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct RingsConfig {
    /// The shoots that are first.
    pub opted_in: BTreeSet<ShootName>,
    /// The shoots of the operator's own, each of which stops a bundle alone.
    pub canaries: BTreeSet<ShootName>,
    /// How many of a hundred shoots each further ring has. A last one of all is understood.
    pub percentages: Vec<u8>,
    /// How many sandboxes have to start on a bundle before the next ring.
    pub sandboxes: u64,
    /// In how many shoots; where a ring has fewer, in all of its shoots.
    pub shoots: usize,
    /// How long it has to work after that, in seconds.
    pub soak_seconds: u64,
    /// After how long a ring in which nobody starts sandboxes is over, in seconds.
    pub patience_seconds: u64,
    /// The types whose bundle may be tried again though it was stopped, and is
    /// not stopped as long as they are named here.
    pub cleared: BTreeSet<RuntimeType>,
}

impl Default for RingsConfig {
    fn default() -> Self {
        Self {
            opted_in: BTreeSet::new(),
            canaries: BTreeSet::new(),
            percentages: vec![10],
            sandboxes: 10,
            shoots: 2,
            soak_seconds: 3600,
            patience_seconds: 3 * 24 * 3600,
            cleared: BTreeSet::new(),
        }
    }
}

impl RingsConfig {
    /// How many rings there are.
    fn rings(&self) -> usize {
        1 + self.percentages.len() + 1
    }

    /// The first ring that a shoot is in. Another bundle begins with other shoots.
    fn ring(&self, shoot: &ShootName, target: &Digests) -> usize {
        if self.opted_in.contains(shoot) || self.canaries.contains(shoot) {
            return 0;
        }
        let seed = target.values().fold(0, |seed, digest| stage_hash(seed, digest.as_bytes()));
        let place = stage_hash(seed, shoot.as_str().as_bytes()) % 100;
        let among = |percentage: &u8| place < u64::from(*percentage);
        1 + self.percentages.iter().position(among).unwrap_or(self.percentages.len())
    }
}

/// What is recorded of a seed's rings, by type. It is small, and lost without
/// harm: bundles begin with the first ring again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RingsRecord {
    /// By type.
    pub types: BTreeMap<RuntimeType, TypeRecord>,
}

/// What is recorded of one type.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TypeRecord {
    /// The bundle that went through every ring.
    #[serde(default, skip_serializing_if = "Digests::is_empty")]
    pub promoted: Digests,
    /// The bundle that goes through them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub opening: Option<Opening>,
    /// Those that were stopped, the latest last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stopped: Vec<Stopped>,
}

/// A bundle on its way through the rings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Opening {
    /// The bundle.
    pub digests: Digests,
    /// The last ring that is open, from 0.
    pub ring: usize,
    /// Since when.
    pub since: Timestamp,
    /// Since when it was used enough, if it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used: Option<Timestamp>,
    /// Who failed with it, by the class of failure: at most as many as stop it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub failed: BTreeMap<Reason, BTreeSet<ShootName>>,
}

/// A bundle that was stopped for the seed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Stopped {
    /// The bundle.
    pub digests: Digests,
    /// When.
    pub at: Timestamp,
    /// The class of failure.
    pub reason: Reason,
    /// Who failed.
    pub shoots: BTreeSet<ShootName>,
}

/// What is known of a seed now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// What each type stands for; one that is not known now is absent, and nothing of it changes.
    pub targets: BTreeMap<RuntimeType, Digests>,
    /// What each shoot that has the type makes of the target.
    pub shoots: BTreeMap<(RuntimeType, ShootName), InShoot>,
    /// The types whose stop somebody cleared.
    pub cleared: BTreeSet<RuntimeType>,
}

/// What one shoot makes of a type's target.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InShoot {
    /// How many sandboxes started on it.
    pub started: u64,
    /// How many nodes are ready with it.
    pub ready: usize,
    /// The classes of failure that halted it there.
    pub halted: BTreeSet<Reason>,
}

/// What follows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rings {
    /// What is recorded from here on; it is written before it is acted on.
    pub record: RingsRecord,
    /// When to look again if nothing changes before.
    pub next: Option<Timestamp>,
}

/// Opens rings, and stops what broke shoots. Repeated with its own record and
/// nothing changed it gives the same again.
pub fn rings(config: &RingsConfig, record: &RingsRecord, seen: &Observed, now: Timestamp) -> Rings {
    let now = Timestamp::from_second(now.as_second()).unwrap_or(now);
    let mut rings = Rings { record: record.clone(), next: None };
    for (runtime, target) in seen.targets.iter().filter(|(_, target)| !target.is_empty()) {
        let of = rings.record.types.entry(runtime.clone()).or_default();
        let all = seen.shoots.iter().filter(|((of, _), _)| of == runtime);
        let shoots: Vec<_> = all.map(|((_, shoot), says)| (shoot, says)).collect();
        if seen.cleared.contains(runtime) {
            of.stopped.retain(|stopped| stopped.digests != *target);
        }
        let next = of.look(config, target, &shoots, now);
        rings.next = earlier(rings.next, next);
    }
    rings
}

impl TypeRecord {
    fn look(
        &mut self,
        config: &RingsConfig,
        target: &Digests,
        shoots: &[(&ShootName, &InShoot)],
        now: Timestamp,
    ) -> Option<Timestamp> {
        let stopped = self.stopped.iter().any(|stopped| stopped.digests == *target);
        if self.promoted == *target || stopped {
            self.opening = None;
            // What every shoot has may still break: a promoted bundle is not
            // stopped, for there is nothing that would stand for it.
            return None;
        }
        let mut opening = match self.opening.take() {
            Some(opening) if opening.digests == *target => opening,
            Some(_) | None => Opening {
                digests: target.clone(),
                ring: 0,
                since: now,
                used: None,
                failed: BTreeMap::new(),
            },
        };
        for (shoot, says) in shoots {
            for reason in &says.halted {
                let failed = opening.failed.entry(*reason).or_default();
                if failed.len() < SHOOTS_THAT_STOP || config.canaries.contains(shoot) {
                    failed.insert((*shoot).clone());
                }
            }
        }
        let stops = opening.failed.iter().find(|(_, failed)| {
            failed.len() >= SHOOTS_THAT_STOP
                || failed.iter().any(|shoot| config.canaries.contains(shoot))
        });
        if let Some((reason, shoots)) = stops {
            let (reason, shoots) = (*reason, shoots.clone());
            let digests = opening.digests;
            self.stopped.push(Stopped { digests, at: now, reason, shoots });
            let most = self.stopped.len().saturating_sub(MAX_STOPPED);
            self.stopped.drain(..most);
            return None;
        }
        loop {
            let due = opening.next_ring(config, shoots, now);
            match due {
                Due::Now if opening.ring + 1 < config.rings() => {
                    opening.ring += 1;
                    (opening.since, opening.used) = (now, None);
                }
                Due::Now => {
                    self.promoted = opening.digests;
                    return None;
                }
                Due::At(due) => {
                    self.opening = Some(opening);
                    return due;
                }
            }
        }
    }

    /// What is said of the type to one shoot.
    pub fn seed(&self, config: &RingsConfig, shoot: &ShootName) -> Seed {
        let mut digests: BTreeMap<Digest, Standing> = BTreeMap::new();
        let mut say = |of: &Digests, standing: Standing| {
            for digest in of.values() {
                let said = digests.entry(*digest).or_insert(standing);
                *said = standing.max(*said);
            }
        };
        say(&self.promoted, Standing::Open);
        if let Some(opening) = &self.opening {
            let first = self.promoted.is_empty();
            let open = first || config.ring(shoot, &opening.digests) <= opening.ring;
            // What both have in common is known to work.
            let new = opening.digests.iter().filter(|(of, d)| self.promoted.get(of) != Some(d));
            let new = new.map(|(of, digest)| (*of, *digest)).collect();
            say(&new, if open { Standing::Open } else { Standing::NotYet });
        }
        for stopped in &self.stopped {
            let bad = stopped.digests.iter().filter(|(of, d)| self.promoted.get(of) != Some(d));
            say(&bad.map(|(of, digest)| (*of, *digest)).collect(), Standing::Stopped);
        }
        Seed { digests, promoted: self.promoted.clone() }
    }
}

/// When the next ring opens.
enum Due {
    Now,
    At(Option<Timestamp>),
}

impl Opening {
    fn next_ring(
        &mut self,
        config: &RingsConfig,
        shoots: &[(&ShootName, &InShoot)],
        now: Timestamp,
    ) -> Due {
        let after = |at: Timestamp, seconds| {
            at.checked_add(Duration::from_secs(seconds)).unwrap_or(Timestamp::MAX)
        };
        let within =
            shoots.iter().filter(|(shoot, _)| config.ring(shoot, &self.digests) <= self.ring);
        let open: Vec<_> = within.collect();
        let last = self.ring + 1 == config.rings();
        if open.is_empty() {
            // Nobody is in it; but a seed without a shoot has proved nothing.
            return if last { Due::At(None) } else { Due::Now };
        }
        let used = open.iter().filter(|(_, says)| says.started > 0 && says.halted.is_empty());
        let started = used.clone().map(|(_, says)| says.started).sum::<u64>();
        let enough =
            started >= config.sandboxes && used.count() >= config.shoots.clamp(1, open.len());
        if enough && self.used.is_none() {
            self.used = Some(now);
        }
        let ready = open.iter().any(|(_, says)| says.ready > 0);
        let patience = after(self.since, config.patience_seconds);
        let over = match self.used {
            Some(used) => after(used, config.soak_seconds),
            // One shoot's failure keeps a ring that nobody uses closed.
            None if ready && self.failed.is_empty() => patience,
            None => return Due::At(None),
        };
        if over <= now { Due::Now } else { Due::At(Some(over)) }
    }
}
