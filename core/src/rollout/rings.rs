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
//!
//! A ring has every shoot of the type, also those that sleep and those that a
//! new leader has not looked at yet: who is not seen is not gone. The first ring
//! with a shoot in it opens at once; no other does before each was looked at, or
//! the caller has given it up.
//!
//! Where nothing is promoted for a type either, nothing is known that is safer
//! than what is being tried. Shoots go by their ring nevertheless, for their
//! nodes work; only where nothing runs yet it is taken before ([`Standing::First`]).

mod record;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::record::Digests;
use super::step::{after, earlier, stage_hash};
use super::view::{Seed, Standing};
use crate::digest::Digest;
use crate::name::{RuntimeType, ShootName};
use crate::status::Reason;

pub use record::{Opening, RingsRecord, Stopped, TypeRecord};

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
    /// After how long a ring in which nobody starts sandboxes is over, in
    /// seconds; so is one whose shoots all sleep for so long.
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

/// What is known of a seed now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// What each type stands for; one that is not known now is absent, and nothing of it changes.
    pub targets: BTreeMap<RuntimeType, Digests>,
    /// Every shoot that has the type, and what it makes of the target.
    pub shoots: BTreeMap<(RuntimeType, ShootName), Presence>,
    /// The types whose stop somebody cleared.
    pub cleared: BTreeSet<RuntimeType>,
}

/// Whether a shoot can say what it makes of a type's target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Presence {
    /// Nobody has looked at it in this term, and it may have anything to say.
    /// The caller bounds this time, and says [`Presence::Away`] after it.
    Awaited,
    /// It sleeps, or can't be reached. It stays in its ring, and says nothing.
    Away,
    /// It says this.
    Here(InShoot),
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
    // Of whatever type: what opens together costs a node one restart.
    let awaited = seen.shoots.values().any(|presence| *presence == Presence::Awaited);
    for (runtime, target) in seen.targets.iter().filter(|(_, target)| !target.is_empty()) {
        let of = rings.record.types.entry(runtime.clone()).or_default();
        let all = seen.shoots.iter().filter(|((of, _), _)| of == runtime);
        let shoots: Vec<_> = all.map(|((_, shoot), says)| (shoot, says)).collect();
        if seen.cleared.contains(runtime) {
            of.stopped.retain(|stopped| stopped.digests != *target);
        }
        let next = of.look(config, target, &shoots, awaited, now);
        rings.next = earlier(rings.next, next);
    }
    rings
}

impl TypeRecord {
    fn look(
        &mut self,
        config: &RingsConfig,
        target: &Digests,
        shoots: &[(&ShootName, &Presence)],
        awaited: bool,
        now: Timestamp,
    ) -> Option<Timestamp> {
        let stopped = self.stopped.iter().any(|stopped| stopped.digests == *target);
        if self.promoted == *target || stopped {
            self.opening = None;
            // What every shoot has may still break: a promoted bundle is not
            // stopped, for there is nothing that would stand for it.
            return None;
        }
        let begun = self.opening.take().filter(|opening| opening.digests == *target);
        let is_new = begun.is_none();
        let mut opening = begun.unwrap_or_else(|| Opening::new(target.clone(), now));
        for (shoot, presence) in shoots {
            let Presence::Here(says) = presence else { continue };
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
        if awaited {
            // It may have broken those that nobody has looked at yet. The first
            // ring with a shoot in it needs nobody's word.
            while is_new
                && opening.ring + 1 < config.rings()
                && opening.within(config, shoots).is_empty()
            {
                opening.next(now);
            }
            self.opening = Some(opening);
            return None;
        }
        loop {
            let due = opening.next_ring(config, shoots, now);
            match due {
                Due::Now if opening.ring + 1 < config.rings() => {
                    opening.next(now);
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
            let standing = match config.ring(shoot, &opening.digests) <= opening.ring {
                true => Standing::Open,
                false if self.promoted.is_empty() => Standing::First,
                false => Standing::NotYet,
            };
            // What both have in common is known to work.
            let new = opening.digests.iter().filter(|(of, d)| self.promoted.get(of) != Some(d));
            let new = new.map(|(of, digest)| (*of, *digest)).collect();
            say(&new, standing);
        }
        for stopped in &self.stopped {
            let bad = stopped.digests.iter().filter(|(of, d)| self.promoted.get(of) != Some(d));
            say(&bad.map(|(of, digest)| (*of, *digest)).collect(), Standing::Stopped);
        }
        Seed { digests, promoted: self.promoted.clone(), unread: false }
    }
}

/// When the next ring opens.
enum Due {
    Now,
    At(Option<Timestamp>),
}

impl Opening {
    /// The shoots to which it is open.
    fn within<'a>(
        &self,
        config: &RingsConfig,
        shoots: &[(&ShootName, &'a Presence)],
    ) -> Vec<&'a Presence> {
        let open = shoots.iter().filter(|(name, _)| config.ring(name, &self.digests) <= self.ring);
        open.map(|(_, presence)| *presence).collect()
    }

    fn next_ring(
        &mut self,
        config: &RingsConfig,
        shoots: &[(&ShootName, &Presence)],
        now: Timestamp,
    ) -> Due {
        let open = self.within(config, shoots);
        let last = self.ring + 1 == config.rings();
        if open.is_empty() {
            // Nobody is in it; but a seed without a shoot has proved nothing.
            return if last { Due::At(None) } else { Due::Now };
        }
        let patience = Duration::from_secs(config.patience_seconds);
        let here = open.iter().filter_map(|presence| match presence {
            Presence::Here(says) => Some(says),
            Presence::Away | Presence::Awaited => None,
        });
        let here: Vec<_> = here.collect();
        if here.is_empty() {
            // Whoever fell asleep with it can't say any more that it works. A
            // ring that never wakes is no more than one without a shoot.
            let over = after(*self.absent.get_or_insert(now), patience);
            return match () {
                () if last || !self.failed.is_empty() => Due::At(None),
                () if over <= now => Due::Now,
                () => Due::At(Some(over)),
            };
        }
        self.absent = None;
        let used = here.iter().filter(|says| says.started > 0 && says.halted.is_empty());
        let started = used.clone().map(|says| says.started).sum::<u64>();
        let enough =
            started >= config.sandboxes && used.count() >= config.shoots.clamp(1, open.len());
        if enough && self.used.is_none() {
            self.used = Some(now);
        }
        let ready = here.iter().any(|says| says.ready > 0);
        if ready {
            // What could not be tried before was not found good before.
            self.ready.get_or_insert(now);
        }
        let over = match self.used {
            Some(used) => after(used, Duration::from_secs(config.soak_seconds)),
            // One shoot's failure keeps a ring that nobody uses closed.
            None => match self.ready.filter(|_| ready && self.failed.is_empty()) {
                Some(ready) => after(ready, patience),
                None => return Due::At(None),
            },
        };
        if over <= now { Due::Now } else { Due::At(Some(over)) }
    }
}
