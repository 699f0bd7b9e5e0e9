//! Which authorities a shoot has, and which of them signs what.
//!
//! ```text
//!                 │ before │ Preparing … Prepared │ Completing, Completed
//!  nodes trust    │ old    │ old and new          │ new
//!  nodes' certs   │ old    │ new                  │ new
//!  server's cert  │ old    │ old                  │ new
//! ```
//!
//! The shoot's phases decide where Gardener rotates. Where nobody does, in a
//! plain cluster or at the end of an authority's life, the same happens by
//! time, counted from the newest authority's own beginning, so that every
//! replica comes to the same.

use std::time::Duration;

use jiff::Timestamp;
use rootstock_core::digest::Digest;

use super::ca::NODE_LIFETIME;

/// The authority's name, and that of the first Secret with one.
pub const NAME: &str = "ca-rootstock";
/// The names where the role can't allow one that nobody knows yet.
pub const SLOTS: [&str; 2] = [NAME, "ca-rootstock-b"];

/// How long each step of an own rotation takes. By the end of a certificate's
/// life each agent has been handed the bundle; a ConfigMap is on all nodes much
/// sooner. Two hours are for clocks and pauses.
pub const STEP: Duration = Duration::from_secs(NODE_LIFETIME.as_secs() + 2 * 60 * 60);
/// An authority is replaced at the latest so long before its end, as Gardener's
/// secrets manager does it.
const BEFORE_END: Duration = Duration::from_secs(10 * 24 * 60 * 60);

/// Where Gardener is with the rotation of a shoot's authorities.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    /// It was never asked for.
    #[default]
    None,
    /// New authorities are made.
    Preparing,
    /// The same, and workers are rolled out later.
    PreparingWithoutWorkersRollout,
    /// Workers have yet to be rolled out.
    WaitingForWorkersRollout,
    /// Both are trusted everywhere.
    Prepared,
    /// The old ones go.
    Completing,
    /// The old ones are gone.
    Completed,
    /// One of a newer Gardener: nothing is taken away in it.
    Unknown,
}

impl From<&str> for Phase {
    fn from(text: &str) -> Self {
        match text {
            "" => Self::None,
            "Preparing" => Self::Preparing,
            "PreparingWithoutWorkersRollout" => Self::PreparingWithoutWorkersRollout,
            "WaitingForWorkersRollout" => Self::WaitingForWorkersRollout,
            "Prepared" => Self::Prepared,
            "Completing" => Self::Completing,
            "Completed" => Self::Completed,
            _ => Self::Unknown,
        }
    }
}

/// What the shoot says of the rotation of its authorities.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rotation {
    /// The phase.
    pub phase: Phase,
    /// When it was last asked for, in seconds since 1970.
    pub initiated: Option<i64>,
}

/// An authority that is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// The name of its Secret.
    pub name: String,
    /// The rotation that it was made for; none for the first.
    pub initiated: Option<i64>,
    /// When its certificate begins.
    pub from: Timestamp,
    /// When its certificate ends.
    pub until: Timestamp,
}

/// How Secrets are named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Names {
    /// As Gardener's secrets manager does it: a hash of the rotation's time.
    Hashed,
    /// In turns, by [`SLOTS`].
    Slots,
}

/// An authority to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct New {
    /// The name of its Secret.
    pub name: String,
    /// The rotation that it is for.
    pub initiated: Option<i64>,
}

/// Who does what, by the names of Secrets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Roles {
    /// Who signs the certificates of nodes.
    pub signer: String,
    /// Who signs the certificate of the shoot's endpoint.
    pub server: String,
    /// Those that both sides trust, the newest first.
    pub trusted: Vec<String>,
}

/// What is to be done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// What is made. Nothing goes before it is there.
    pub make: Option<New>,
    /// The Secrets that go.
    pub drop: Vec<String>,
    /// Who does what with those that are there; none where there are none.
    pub roles: Option<Roles>,
}

/// How far a change from old to new has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Agents may know the old one only.
    Announced,
    /// All know both.
    Switched,
    /// The new one is the only one.
    Done,
}

/// What is to be done with the authorities that are kept.
pub fn plan(kept: &[Kept], shoot: Rotation, names: Names, now: Timestamp) -> Plan {
    let mut valid: Vec<_> = kept.iter().filter(|kept| now < kept.until).collect();
    valid.sort_by_key(|kept| (kept.initiated, kept.from, &kept.name));
    let (Some(oldest), Some(newest)) = (valid.first(), valid.last()) else {
        let make = named(&[], shoot.initiated, names);
        return Plan { make, ..Plan::default() };
    };
    let initiated = next(newest, valid.len(), shoot, now);
    let make = initiated.and_then(|initiated| named(&valid, Some(initiated), names));
    let stage = match make {
        Some(_) => Stage::Announced,
        None => stage(newest, shoot, now),
    };
    let server = match stage {
        Stage::Announced => oldest,
        Stage::Switched | Stage::Done => newest,
    };
    let trusted: Vec<_> = match stage {
        Stage::Announced | Stage::Switched => {
            valid.iter().rev().map(|kept| kept.name.clone()).collect()
        }
        Stage::Done => vec![newest.name.clone()],
    };
    let gone = kept.iter().map(|kept| &kept.name).filter(|name| !trusted.contains(name));
    let drop = if make.is_some() { Vec::new() } else { gone.cloned().collect() };
    let roles = Roles { signer: newest.name.clone(), server: server.name.clone(), trusted };
    Plan { make, drop, roles: Some(roles) }
}

/// The rotation for which another authority has to be made, if any.
fn next(newest: &Kept, count: usize, shoot: Rotation, now: Timestamp) -> Option<i64> {
    let asked = shoot.initiated.filter(|asked| newest.initiated.is_none_or(|made| made < *asked));
    match shoot.phase {
        Phase::Preparing
        | Phase::PreparingWithoutWorkersRollout
        | Phase::WaitingForWorkersRollout
        | Phase::Prepared
        | Phase::Completing
        | Phase::Unknown => asked,
        // A rotation that was over before it was seen is made up for by an own
        // one: by its phase, agents would lose the only authority that they know.
        Phase::Completed | Phase::None => {
            (count == 1 && (asked.is_some() || is_due(newest, now))).then(|| now.as_second())
        }
    }
}

fn stage(newest: &Kept, shoot: Rotation, now: Timestamp) -> Stage {
    match shoot.phase {
        Phase::Preparing
        | Phase::PreparingWithoutWorkersRollout
        | Phase::WaitingForWorkersRollout
        | Phase::Prepared
        | Phase::Unknown => Stage::Announced,
        Phase::Completing => Stage::Done,
        Phase::Completed if newest.initiated == shoot.initiated => Stage::Done,
        Phase::Completed | Phase::None => own_stage(newest, now),
    }
}

/// How far an own rotation is.
fn own_stage(newest: &Kept, now: Timestamp) -> Stage {
    let Some(initiated) = newest.initiated else { return Stage::Done };
    let age = now.as_second().saturating_sub(initiated);
    let step = i64::try_from(STEP.as_secs()).unwrap_or(i64::MAX);
    match age {
        age if age < step => Stage::Announced,
        age if age < 2 * step => Stage::Switched,
        _ => Stage::Done,
    }
}

/// Whether an authority is at the end of its life: when four fifths of it are
/// over, or ten days before its end.
fn is_due(kept: &Kept, now: Timestamp) -> bool {
    let [from, until, now] = [kept.from, kept.until, now].map(Timestamp::as_second);
    let before = i64::try_from(BEFORE_END.as_secs()).unwrap_or(i64::MAX);
    now >= (from + (until - from) / 5 * 4).min(until - before)
}

fn named(valid: &[&Kept], initiated: Option<i64>, names: Names) -> Option<New> {
    let is_free = |name: &str| !valid.iter().any(|kept| kept.name == name);
    let name = match (names, initiated) {
        (Names::Hashed, None) => NAME.to_owned(),
        (Names::Hashed, Some(seconds)) => {
            let hash = Digest::of(seconds.to_string().as_bytes()).hex();
            format!("{NAME}-{}", hash.get(..5).unwrap_or_default())
        }
        (Names::Slots, _) => SLOTS.into_iter().find(|name| is_free(name))?.to_owned(),
    };
    is_free(&name).then_some(New { name, initiated })
}

#[cfg(test)]
mod tests;
