//! The rollout in a status, made of what [`crate::rollout::step`] says of it.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::lenient;
use super::phase::{HaltReason, RolloutPhase};
use crate::name::{NodeName, Uid};
use crate::rollout::Progress;
use crate::rollout::progress::Phase;
use crate::rollout::record::{Command, Course, Digests, Failure, is_default};
use crate::status::Reason;

/// The most failed nodes that are named.
pub const MAX_FAILED_NODES: usize = 8;
/// The most nodes that are named of those that are held up.
pub const MAX_HELD_NODES: usize = 5;

/// A rollout that is under way. All but the first two fields are absent where
/// there is nothing to say, or where an older controller wrote it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rollout {
    /// Since when.
    pub since: Timestamp,
    /// The most nodes that were without the runtime, or without the candidate, at once.
    pub nodes: usize,
    /// Where it is, or what it waits for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<RolloutPhase>,
    /// Whether it goes forwards or back.
    #[serde(default, skip_serializing_if = "is_default", deserialize_with = "lenient::one")]
    pub course: Course,
    /// The bundle that is tried.
    #[serde(default, skip_serializing_if = "Digests::is_empty", deserialize_with = "lenient::map")]
    pub candidate: Digests,
    /// Which wave it is in, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wave: Option<u32>,
    /// How many waves there are, as it looks now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waves: Option<u32>,
    /// Why it halted.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "lenient::one")]
    pub halt: Option<HaltReason>,
    /// How many nodes there are.
    #[serde(default, skip_serializing_if = "is_default")]
    pub total: usize,
    /// How many have the candidate.
    #[serde(default, skip_serializing_if = "is_default")]
    pub have: usize,
    /// How many could have it and don't yet.
    #[serde(default, skip_serializing_if = "is_default")]
    pub left: usize,
    /// How many have a slot.
    #[serde(default, skip_serializing_if = "is_default")]
    pub in_flight: usize,
    /// How many are not connected.
    #[serde(default, skip_serializing_if = "is_default")]
    pub away: usize,
    /// How many have not been heard of since the controller started.
    #[serde(default, skip_serializing_if = "is_default")]
    pub awaited: usize,
    /// How many failed since somebody last asked for a retry.
    #[serde(default, skip_serializing_if = "is_default")]
    pub failed: usize,
    /// How many may fail in all.
    #[serde(default, skip_serializing_if = "is_default")]
    pub budget: usize,
    /// How many something else than the bundle is in the way of.
    #[serde(default, skip_serializing_if = "is_default")]
    pub held: usize,
    /// How many may be; with more nothing new is begun.
    #[serde(default, skip_serializing_if = "is_default")]
    pub most_held: usize,
    /// The nodes that failed, at most [`MAX_FAILED_NODES`].
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "lenient::list")]
    pub failures: Vec<FailedNode>,
    /// The nodes that are held up, at most [`MAX_HELD_NODES`].
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "lenient::list")]
    pub held_nodes: Vec<HeldNode>,
    /// When something happens by itself, if nothing else does before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<Timestamp>,
    /// What somebody may ask for.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "lenient::list")]
    pub can: Vec<Command>,
    /// Where it is and what to do about it, as a sentence without a full stop.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// The bytes that are on their way to its nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pull: Option<Pull>,
}

/// A node that failed with the candidate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FailedNode {
    /// Its name; its UID where the name was not kept.
    pub node: String,
    /// Why; absent where a newer controller has a word for it.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "lenient::one")]
    pub reason: Option<Reason>,
    /// What it said, cut to a hundred characters.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// When it was seen.
    pub at: Timestamp,
}

/// A node that something else than the bundle is in the way of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HeldNode {
    /// Its name; its UID where nobody knows the name.
    pub node: String,
    /// What is in its way; absent where a newer controller has a word for it.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "lenient::one")]
    pub reason: Option<Reason>,
}

/// The bytes that are on their way to a rollout's nodes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Pull {
    /// Bytes of blobs that are on disks.
    pub bytes_done: u64,
    /// Bytes of blobs in all.
    pub bytes_total: u64,
    /// Bytes that come each second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_per_second: Option<u64>,
    /// Which part of the shoot's budget that is, from 0 to 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub budget_share: Option<f64>,
    /// When the last byte is there if it goes on like this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub estimated_end: Option<Timestamp>,
}

impl Rollout {
    /// What a status says of a rollout; `None` where none is under way.
    ///
    /// `before` is what was written last. While nothing at all is known of the
    /// nodes, as when a controller has just started, it stands. `pull` is the
    /// caller's to fill, and [`Rollout::name_nodes`] puts names for UIDs.
    pub fn of(progress: &Progress, before: Option<&Self>, now: Timestamp) -> Option<Self> {
        let phase = progress.phase;
        if phase == Phase::Unknown && progress.nodes == 0 {
            return before.cloned();
        }
        if phase == Phase::Idle && progress.left == 0 && progress.in_flight == 0 {
            return None;
        }
        let before = before
            .filter(|before| before.phase.is_none() || before.candidate == progress.candidate);
        let since = progress.since.or_else(|| before.map(|before| before.since)).unwrap_or(now);
        // Without a candidate it is the promoted bundle that nodes are getting.
        let without = if progress.candidate.is_empty() {
            progress.in_flight
        } else {
            progress.nodes.saturating_sub(progress.have)
        };
        let waves = if let Phase::Wave { number, of } = phase { Some((number, of)) } else { None };
        let halt = if let Phase::Halted(why) = phase { Some(why.into()) } else { None };
        let counted = || progress.failures.iter().filter(|failure| !failure.excused);
        let held = progress.held_nodes.iter().take(MAX_HELD_NODES);
        Some(Self {
            since: in_seconds(since),
            nodes: without.max(before.map_or(0, |before| before.nodes)),
            phase: Some(phase.into()),
            course: progress.course,
            candidate: progress.candidate.clone(),
            wave: waves.map(|(number, _)| number),
            waves: waves.map(|(_, of)| of),
            halt,
            total: progress.nodes,
            have: progress.have,
            left: progress.left,
            in_flight: progress.in_flight,
            away: progress.away,
            awaited: progress.awaited,
            failed: counted().count(),
            budget: progress.budget,
            held: progress.held,
            most_held: progress.most_held,
            failures: counted().take(MAX_FAILED_NODES).map(FailedNode::from).collect(),
            held_nodes: held.map(HeldNode::from).collect(),
            next: progress.next.map(in_seconds),
            can: progress.can.clone(),
            message: in_words(phase, progress.course),
            pull: None,
        })
    }

    /// Puts a node's name for its UID, where `name_of` knows it.
    pub fn name_nodes(&mut self, name_of: impl Fn(&Uid) -> Option<NodeName>) {
        let failed = self.failures.iter_mut().map(|failed| &mut failed.node);
        for node in failed.chain(self.held_nodes.iter_mut().map(|held| &mut held.node)) {
            if let Some(name) = node.parse().ok().and_then(|uid| name_of(&uid)) {
                *node = name.as_str().to_owned();
            }
        }
    }
}

impl From<&Failure> for FailedNode {
    fn from(failure: &Failure) -> Self {
        let evidence = failure.evidence.as_ref();
        let name = evidence.map_or(failure.node.as_str(), |evidence| evidence.name.as_str());
        Self {
            node: name.to_owned(),
            reason: Some(failure.reason),
            message: evidence.map(|evidence| evidence.message.clone()).unwrap_or_default(),
            at: in_seconds(failure.at),
        }
    }
}

impl From<&(Uid, Reason)> for HeldNode {
    fn from((node, reason): &(Uid, Reason)) -> Self {
        Self { node: node.as_str().to_owned(), reason: Some(*reason) }
    }
}

/// The second in which a point in time lies, as Kubernetes writes times.
fn in_seconds(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

fn in_words(phase: Phase, course: Course) -> String {
    let which = match course {
        Course::Forwards => "the rollout",
        Course::Back => "the rollout back to the promoted bundle",
    };
    let words = phase.in_words();
    match phase.advice() {
        Some(advice) => format!("{which} {words}; {advice}"),
        None => format!("{which} {words}"),
    }
}
