//! How far a rollout is, for conditions, `providerStatus` and people.

use jiff::Timestamp;

use super::record::{Command, Course, Digests, Failure, Stage, Why};
use super::step::{Gate, NodeStep, Work, earlier};
use crate::name::Uid;
use crate::status::Reason;

/// The most nodes that are named of those that are held up.
const MAX_NAMED: usize = 5;

/// How far a ContainerRuntime's rollout is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Where it is, or what it waits for.
    pub phase: Phase,
    /// Whether it goes forwards or back.
    pub course: Course,
    /// The bundle that is tried; empty where none is.
    pub candidate: Digests,
    /// Since when it is tried.
    pub since: Option<Timestamp>,
    /// How many nodes there are.
    pub nodes: usize,
    /// How many have the candidate.
    pub have: usize,
    /// How many could have it and don't yet; where nothing is tried, how many
    /// are sent what is promoted and don't have it yet.
    pub left: usize,
    /// How many have a slot.
    pub in_flight: usize,
    /// How many are not connected.
    pub away: usize,
    /// How many have not been heard of since the controller started.
    pub awaited: usize,
    /// The nodes that failed, with what is known of the first.
    pub failures: Vec<Failure>,
    /// How many may fail in all.
    pub budget: usize,
    /// How many something else is in the way of.
    pub held: usize,
    /// How many may be; with more nothing new is begun.
    pub most_held: usize,
    /// The first of those, and why.
    pub held_nodes: Vec<(Uid, Reason)>,
    /// When something happens by itself, if nothing else does before.
    pub next: Option<Timestamp>,
    /// The command that was carried out: its annotation may go.
    pub acted: Option<Command>,
    /// What somebody may ask for.
    pub can: Vec<Command>,
}

/// Where a rollout is, or what it waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Its state could not be read: everything stays as it is.
    Unread,
    /// The resource is being deleted.
    Deleting,
    /// It is not known what the type stands for: everything stays as it is.
    Unknown,
    /// Nothing is tried: nodes have the promoted bundle, or are getting it.
    Idle,
    /// The first nodes try it.
    Canary,
    /// It has to go on working there; the clock runs, or waits for a sandbox.
    Soaking {
        /// Whether the clock runs.
        runs: bool,
    },
    /// The others get it.
    Wave {
        /// Which one, from 1.
        number: u32,
        /// Of so many, as it looks now.
        of: u32,
    },
    /// It stopped itself: nothing of it is activated.
    Halted(Why),
    /// It broke other shoots: nothing of it is activated.
    Stopped,
    /// Somebody paused it.
    Paused,
    /// Somebody stopped every rollout of the seed.
    Frozen,
    /// Other shoots try it first.
    WaitingForRing,
    /// containerd may not be restarted now.
    WaitingForWindow,
    /// As many nodes of the pool are unavailable as may be.
    WaitingForNodes,
    /// More nodes than may be are held up by something else than the bundle.
    Blocked,
    /// More nodes than may be failed with the promoted bundle: no other gets it.
    PromotedFails,
}

/// How far one is.
pub(super) fn of(work: &Work<'_, '_>, at: usize, steps: &[NodeStep]) -> Progress {
    let run = &work.runs[at];
    let state = run.state.as_ref();
    let candidate = state.and_then(|state| state.candidate.as_ref());
    let slots = run.slots();
    let held = state.map_or(&[][..], |state| &state.held);
    let due = run.due().into_iter().chain(slots.iter().map(|slot| slot.until));
    let due = due.chain(held.iter().map(|held| held.again)).chain(run.waits_for_bytes);
    let due = due.chain(run.opening.filter(|_| run.waits_for_window));
    let next = due.filter(|due| *due > work.now).fold(None, |next, due| earlier(next, Some(due)));
    let phase = phase(work, at);
    let (tally, view) = (run.tally, work.view);
    Progress {
        phase,
        course: candidate.map(|candidate| candidate.course).unwrap_or_default(),
        candidate: candidate.map(|candidate| candidate.digests.clone()).unwrap_or_default(),
        since: candidate.map(|candidate| candidate.since),
        nodes: run.members.len(),
        have: tally.have,
        left: if candidate.is_some() { tally.left } else { work.catching_up(at, steps) },
        in_flight: slots.len(),
        away: tally.away,
        awaited: tally.awaited,
        failures: candidate.map(|candidate| candidate.failures.clone()).unwrap_or_default(),
        budget: run.budget(),
        held: tally.held,
        most_held: run.most_held(),
        held_nodes: held.iter().take(MAX_NAMED).map(|h| (h.node.clone(), h.reason)).collect(),
        next: next.filter(|_| view.complete),
        acted: state.and_then(|state| state.acted),
        can: can(work, at, phase),
    }
}

fn phase(work: &Work<'_, '_>, at: usize) -> Phase {
    let run = &work.runs[at];
    let candidate = run.state.as_ref().and_then(|state| state.candidate.as_ref());
    if !work.view.complete {
        return Phase::Unknown;
    }
    match (run.gate, candidate.and_then(|candidate| candidate.halted.as_ref())) {
        (Gate::Unread, _) => return Phase::Unread,
        (Gate::Deleting, _) => return Phase::Deleting,
        (_, Some(halt)) => return Phase::Halted(halt.why),
        (Gate::Unknown, None) => return Phase::Unknown,
        (Gate::Stopped, None) => return Phase::Stopped,
        (Gate::Frozen, None) => return Phase::Frozen,
        (Gate::Paused, None) => return Phase::Paused,
        // It waits for nobody where it is not known what the seed recorded.
        (Gate::NotYet, None) if run.track.seed.is_some_and(|seed| seed.unread) => {
            return Phase::Unread;
        }
        (Gate::NotYet, None) => return Phase::WaitingForRing,
        (Gate::Open, None) => {}
    }
    if run.members.is_empty() {
        return Phase::Idle;
    }
    let Some(candidate) = candidate else {
        return match () {
            () if run.base_is_bad() => Phase::PromotedFails,
            () if run.waits_for_window => Phase::WaitingForWindow,
            () if run.waits_for_nodes => Phase::WaitingForNodes,
            () => Phase::Idle,
        };
    };
    if run.is_held_up() {
        return Phase::Blocked;
    }
    let idle = run.in_flight(candidate) == 0;
    if run.waits_for_window && idle && !matches!(candidate.stage, Stage::Soak { .. }) {
        return Phase::WaitingForWindow;
    }
    if run.waits_for_nodes && idle {
        return Phase::WaitingForNodes;
    }
    match candidate.stage {
        Stage::Canary => Phase::Canary,
        Stage::Soak { from, .. } => Phase::Soaking { runs: from.is_some() },
        Stage::Wave { number, .. } => {
            // The rest of the waves, if none of its nodes fails and none comes.
            let (mut of, mut left) = (number, run.tally.left);
            while let Some(size) = run.size(candidate, of).filter(|size| *size < left) {
                (of, left) = (of + 1, left - size);
            }
            Phase::Wave { number, of }
        }
    }
}

/// What somebody may ask for that would change something.
fn can(work: &Work<'_, '_>, at: usize, phase: Phase) -> Vec<Command> {
    let run = &work.runs[at];
    let Some(state) = run.state.as_ref().filter(|_| !run.track.deleting) else {
        return Vec::new();
    };
    let mut can = vec![if state.paused { Command::Resume } else { Command::Pause }];
    let candidate = state.candidate.as_ref();
    let failed = candidate.is_some_and(|c| c.halted.is_some() || !c.failures.is_empty());
    if failed || phase == Phase::Blocked || !state.held.is_empty() || !state.aborted.is_empty() {
        can.push(Command::Retry);
    }
    if candidate.is_some_and(|c| !c.skip_soak && !matches!(c.stage, Stage::Wave { .. })) {
        can.push(Command::Promote);
    }
    if candidate.is_some_and(|candidate| candidate.course == Course::Forwards) {
        can.push(Command::Abort);
    }
    can
}

impl Phase {
    /// Where it is, as the end of "the rollout …".
    pub fn in_words(self) -> &'static str {
        match self {
            Self::Unread => {
                "is as it was: its recorded state, or what the seed recorded of its bundle, could not be read"
            }
            Self::Deleting => "has ended: the resource is being deleted",
            Self::Unknown => "is as it was: it is not known what the type stands for",
            Self::Idle => "has nothing to try: nodes that lack it get the promoted bundle",
            Self::Canary => "has its first nodes try the bundle",
            Self::Soaking { runs: true } => "waits whether the first nodes go on working",
            Self::Soaking { runs: false } => "waits for a pod on one of the first nodes",
            Self::Wave { .. } => "brings the bundle to the other nodes",
            Self::Halted(Why::CanaryFailed) => "was halted: none of the first nodes works",
            Self::Halted(Why::CanaryLost) => {
                "was halted: a node fell silent with the bundle before any other worked with it"
            }
            Self::Halted(Why::WaveFailed) => "was halted: too many nodes of one wave failed",
            Self::Halted(Why::BudgetSpent) => "was halted: too many nodes failed",
            Self::Halted(Why::NothingBefore) => {
                "was aborted, and there is nothing before it to go back to"
            }
            Self::Stopped => "is stopped: the bundle broke other shoots",
            Self::Paused => "is paused",
            Self::Frozen => "is stopped with all others of the seed",
            Self::WaitingForRing => "waits for other shoots to try the bundle first",
            Self::WaitingForWindow => "waits for a time when containerd may be restarted",
            Self::WaitingForNodes => "waits: as many nodes of the pool are unavailable as may be",
            Self::Blocked => {
                "waits: something else than the bundle is in the way of too many nodes"
            }
            Self::PromotedFails => {
                "waits: the promoted bundle failed on too many nodes that were to get it"
            }
        }
    }

    /// What to do about it, as the end of a message; nothing where it goes on by itself.
    pub fn advice(self) -> Option<&'static str> {
        Some(match self {
            Self::Halted(Why::NothingBefore) => "correct the bundle in the catalog, or retry",
            Self::Halted(Why::CanaryLost) => {
                "look at the nodes that are named, then retry or abort the rollout"
            }
            Self::Halted(Why::CanaryFailed | Why::WaveFailed | Why::BudgetSpent) => {
                Reason::Halted.advice()
            }
            Self::Paused => Reason::Paused.advice(),
            Self::Stopped => "correct the bundle in the catalog, or clear it in the seed",
            Self::Frozen => "take back the seed's stop",
            Self::Blocked => "see what is in the way of the nodes that are named, then retry",
            Self::PromotedFails => "see the nodes that failed, or correct the settings",
            Self::WaitingForNodes => {
                "see which nodes are not ready, cordoned, or without their agent; or raise maxUnavailable"
            }
            Self::Unread => "see the controller's log; a newer controller may have written it",
            Self::Deleting
            | Self::Unknown
            | Self::Idle
            | Self::Canary
            | Self::Soaking { .. }
            | Self::Wave { .. }
            | Self::WaitingForRing
            | Self::WaitingForWindow => return None,
        })
    }
}
