//! What of a rollout is recorded in a resource's state, and nowhere else.
//!
//! Everything in it is counted: at most [`MAX_SLOTS`], [`MAX_FAILURES`] and
//! [`MAX_HELD`], so that a state stays within [`crate::state::MAX_STATE`] with
//! the longest names that Kubernetes allows.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::digest::Digest;
use crate::name::{Architecture, NodeName, Uid, cut};
use crate::status::Reason;

/// The most slots of one resource in flight.
pub const MAX_SLOTS: usize = 128;
/// The most failed nodes that are kept. A budget is always smaller.
pub const MAX_FAILURES: usize = 96;
/// The most nodes that are kept as held up.
pub const MAX_HELD: usize = 48;
/// How many failed nodes are kept with their name and message.
pub const MAX_EVIDENCE: usize = 8;

/// How many nodes with a slot are kept with their name while they are silent.
pub const MAX_NAMED: usize = 2;

/// The most digests of earlier candidates that are kept.
const MAX_REPLACED: usize = 8;

/// A bundle, by architecture.
pub type Digests = BTreeMap<Architecture, Digest>;

/// The bundle that is being tried.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Candidate {
    /// The bundle.
    pub digests: Digests,
    /// Since when it is tried.
    pub since: Timestamp,
    /// Whether it goes forwards or back.
    #[serde(default, skip_serializing_if = "is_default")]
    pub course: Course,
    /// How far it is.
    pub stage: Stage,
    /// The candidates that it replaced, the latest last: nodes that work with
    /// one of them keep it until they have a slot for this one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub replaces: Vec<Digest>,
    /// How many nodes try it first. It stays as it was when the first of them
    /// got its slot: a pool that grows does not have more of its nodes tried.
    pub canary: u32,
    /// How many nodes activated it with a slot and were ready.
    #[serde(default)]
    pub passed: u32,
    /// How often somebody asked for a retry.
    #[serde(default, skip_serializing_if = "is_default")]
    pub attempt: u32,
    /// Whether it is not to soak.
    #[serde(default, skip_serializing_if = "is_default")]
    pub skip_soak: bool,
    /// The nodes that failed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failures: Vec<Failure>,
    /// Why it was halted, if it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub halted: Option<Halt>,
    /// What a later revision added.
    #[serde(flatten)]
    pub more: Map<String, Value>,
}

impl Candidate {
    /// A bundle that nobody has tried.
    pub fn new(digests: Digests, course: Course, canary: usize, now: Timestamp) -> Self {
        Self {
            digests,
            since: now,
            course,
            stage: Stage::Canary,
            replaces: Vec::new(),
            canary: u32::try_from(canary).unwrap_or(u32::MAX),
            passed: 0,
            attempt: 0,
            skip_soak: course == Course::Back,
            failures: Vec::new(),
            halted: None,
            more: Map::new(),
        }
    }

    /// Stands for another candidate from now on.
    #[must_use]
    pub(super) fn replacing(mut self, other: &Self) -> Self {
        self.replaces = other.replaces.iter().chain(other.digests.values()).copied().collect();
        let digests: Vec<_> = self.digests.values().copied().collect();
        self.replaces.retain(|digest| !digests.contains(digest));
        let most = self.replaces.len().saturating_sub(MAX_REPLACED);
        self.replaces.drain(..most);
        self
    }

    /// Whether a digest is one of it.
    pub fn has(&self, digest: Digest) -> bool {
        self.digests.values().any(|of_it| *of_it == digest)
    }

    /// Whether no node is known to have tried it yet.
    pub(super) fn is_untried(&self) -> bool {
        self.stage == Stage::Canary && self.passed == 0 && self.failed() == 0
    }

    /// How many nodes failed since somebody last asked for a retry.
    pub fn failed(&self) -> usize {
        self.failures.iter().filter(|failure| !failure.excused).count()
    }
}

/// Whether a candidate goes forwards or back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Course {
    /// To what the catalog names.
    #[default]
    Forwards,
    /// From an aborted bundle back to the promoted one.
    Back,
}

/// How far a candidate is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "name")]
pub enum Stage {
    /// The first nodes try it.
    Canary,
    /// It has to go on working there.
    Soak {
        /// When the canary was ready.
        since: Timestamp,
        /// When the clock began to run, if it did.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        from: Option<Timestamp>,
    },
    /// The others get it.
    Wave {
        /// The wave's number, from 1.
        number: u32,
        /// How many nodes had passed when it began.
        passed: u32,
        /// How many had failed when it began.
        failed: u32,
    },
}

/// A node that failed with the candidate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Failure {
    /// The node.
    pub node: Uid,
    /// Why.
    pub reason: Reason,
    /// When it was seen.
    pub at: Timestamp,
    /// Somebody asked for a retry since: it does not count, and what the node
    /// still says of it is old.
    #[serde(default, skip_serializing_if = "is_default")]
    pub excused: bool,
    /// Its name and its words, for the first [`MAX_EVIDENCE`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evidence: Option<Evidence>,
}

/// What a person sees of a failure.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    /// The node's name: it may be gone when somebody looks.
    pub name: NodeName,
    /// What it said, cut to a hundred characters.
    pub message: String,
}

/// Why a candidate was halted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Halt {
    /// When.
    pub at: Timestamp,
    /// Why.
    pub why: Why,
}

/// Which bound was broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Why {
    /// No node of the canary works with it.
    CanaryFailed,
    /// A node fell silent with it before any other worked with it.
    CanaryLost,
    /// More nodes of one wave failed than may.
    WaveFailed,
    /// More nodes failed in all than may.
    BudgetSpent,
    /// It was aborted where there is nothing to go back to.
    NothingBefore,
}

/// A node's permission to activate, as it is recorded before it is given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Slot {
    /// The node.
    pub node: Uid,
    /// What it may activate.
    pub digest: Digest,
    /// Until when it may begin and be done.
    pub until: Timestamp,
    /// Since it has the slot it fell silent, and has not come back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub silent: Option<Silent>,
    /// What a later revision added.
    #[serde(flatten)]
    pub more: Map<String, Value>,
}

/// A node that has a slot and is not heard of. What silences a node may well be
/// what it activated, also when the node is gone by the time somebody looks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Silent {
    /// Since when.
    pub since: Timestamp,
    /// Its name, for the first [`MAX_NAMED`] of a resource.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<NodeName>,
}

/// A node whose slot came back without a result that says anything of the bundle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Held {
    /// The node.
    pub node: Uid,
    /// What it had to activate.
    pub digest: Digest,
    /// What was in its way. A node that fell silent (`NodeUnreachable`) is kept
    /// also when it is gone: the bundle may have been why.
    pub reason: Reason,
    /// When it may have another slot.
    pub again: Timestamp,
    /// How often it was held up.
    pub times: u32,
}

/// What somebody asks of a rollout, by the annotation `rootstock.gardener.cloud/rollout`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Command {
    /// Give no further slots.
    Pause,
    /// Go on.
    Resume,
    /// Try again what failed, from the canary on.
    Retry,
    /// Do not soak.
    Promote,
    /// Go back to the promoted bundle.
    Abort,
}

/// A word that is no command.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown command {0:?}: want pause, resume, retry, promote or abort")]
pub struct UnknownCommand(String);

impl Command {
    /// Every command.
    pub const ALL: [Self; 5] = [Self::Pause, Self::Resume, Self::Retry, Self::Promote, Self::Abort];

    /// The word as users write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Retry => "retry",
            Self::Promote => "promote",
            Self::Abort => "abort",
        }
    }
}

impl FromStr for Command {
    type Err = UnknownCommand;

    fn from_str(word: &str) -> Result<Self, UnknownCommand> {
        let known = Self::ALL.into_iter().find(|known| known.as_str() == word);
        known.ok_or_else(|| UnknownCommand(cut(word)))
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Whether a field has nothing to say.
pub(crate) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
