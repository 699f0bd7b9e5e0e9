//! The nodes of one ContainerRuntime, counted.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::words::{bounded, count, names};
use super::{ConditionStatus, Connection, MAX_MESSAGE, NodeState};
use crate::assign::Verdict;
use crate::digest::Digest;
use crate::name::NodeName;
use crate::status::{BundleReport, Phase, Reason};

/// What is left free for the reasons that have no room: their count in words.
const RESERVE: usize = 80;
/// How much of what a node says is in a message.
const MAX_WORD: usize = 1024;

/// The nodes of one ContainerRuntime, counted.
#[derive(Clone, Debug, Default)]
pub struct Tally<'a> {
    /// How many are selected.
    pub selected: usize,
    /// How many have the runtime.
    pub ready: usize,
    /// How many are in each phase; those of which nothing was heard are waiting.
    pub phases: BTreeMap<Phase, usize>,
    /// Those that do not have it, in the order of their names.
    pub unready: Vec<Unready<'a>>,
    /// Whether every node has been heard of since the controller started.
    pub complete: bool,
    /// Those that have it by their last word, and are not connected.
    away: Vec<&'a NodeName>,
    under: BTreeMap<&'static str, Vec<&'a NodeName>>,
    stopped: BTreeMap<Reason, (Vec<&'a NodeName>, &'a str)>,
}

/// A node that does not have the runtime yet.
#[derive(Clone, Copy, Debug)]
pub struct Unready<'a> {
    /// Its name.
    pub name: &'a NodeName,
    /// Where it is.
    pub phase: Phase,
    /// Why it is no further.
    pub reason: Option<Reason>,
    /// Whether its agent is connected.
    pub connected: bool,
}

impl<'a> Tally<'a> {
    /// Counts nodes.
    pub(super) fn of(nodes: &[NodeState<'a>]) -> Self {
        let mut tally = Self { selected: nodes.len(), complete: true, ..Self::default() };
        for node in nodes {
            tally.add(node);
        }
        tally
    }

    fn add(&mut self, node: &NodeState<'a>) {
        let (phase, standing) = standing(node);
        *self.phases.entry(phase).or_default() += 1;
        let wanted = matches!(node.verdict, Verdict::Wanted(_));
        let unheard = matches!(node.connection, Connection::Never | Connection::Missing);
        self.complete &= !(wanted && unheard);
        let connected = node.connection == Connection::Open;
        let reason = match standing {
            Standing::Ready => {
                self.ready += 1;
                if node.connection == Connection::Lost {
                    self.away.push(node.name);
                }
                return;
            }
            Standing::Under(what, reason) => {
                self.under.entry(what).or_default().push(node.name);
                reason
            }
            Standing::Stopped(reason, message) => {
                self.stopped.entry(reason).or_insert((Vec::new(), message)).0.push(node.name);
                Some(reason)
            }
        };
        self.unready.push(Unready { name: node.name, phase, reason, connected });
    }

    /// How many nodes each reason stops, and the first of their names.
    pub fn stopped(&self) -> impl Iterator<Item = (Reason, usize, String)> {
        self.stopped.iter().map(|(reason, (nodes, _))| (*reason, nodes.len(), names(nodes)))
    }

    /// The status and the reason. The reason that stops most nodes names it.
    pub(super) fn verdict(&self) -> (ConditionStatus, &'static str) {
        match self.by_weight().first() {
            Some((reason, _)) => (ConditionStatus::False, reason.as_str()),
            None if self.under.is_empty() => (ConditionStatus::True, "AllNodesReady"),
            None => (ConditionStatus::Progressing, "RollingOut"),
        }
    }

    /// The counts, then each reason with the first names; what has no room is counted.
    pub(super) fn in_words(&self, stale: bool) -> String {
        let mut text = format!("{} of {} ready", self.ready, count(self.selected));
        if stale {
            text.push_str("; the shoot's API can't be reached, nodes are as they were last seen");
        }
        for (what, nodes) in &self.under {
            let _ = write!(text, "; {} {what} ({})", nodes.len(), names(nodes));
        }
        if !self.away.is_empty() {
            let (away, who) = (self.away.len(), names(&self.away));
            let _ = write!(text, "; {away} by its last word, not connected ({who})");
        }
        let mut left = (0, 0);
        for (reason, (nodes, message)) in self.by_weight() {
            let mut part = format!("; {reason} on {} ({})", count(nodes.len()), names(nodes));
            if !message.is_empty() {
                let _ = write!(part, ": {}", bounded((*message).to_owned(), MAX_WORD));
            }
            let _ = write!(part, "; what to do: {}", reason.advice());
            if left == (0, 0) && text.len() + part.len() + RESERVE <= MAX_MESSAGE {
                text.push_str(&part);
            } else {
                left = (left.0 + 1, left.1 + nodes.len());
            }
        }
        if left.0 > 0 {
            let _ = write!(text, "; {} more reasons on {}", left.0, count(left.1));
        }
        text
    }

    fn by_weight(&self) -> Vec<(Reason, &(Vec<&'a NodeName>, &'a str))> {
        let mut reasons: Vec<_> = self.stopped.iter().map(|(reason, of)| (*reason, of)).collect();
        reasons.sort_by_key(|(reason, (nodes, _))| (std::cmp::Reverse(nodes.len()), *reason));
        reasons
    }
}

/// Where a node stands.
enum Standing<'a> {
    Ready,
    Under(&'static str, Option<Reason>),
    Stopped(Reason, &'a str),
}

fn standing<'a>(node: &NodeState<'a>) -> (Phase, Standing<'a>) {
    let waiting = |standing| (Phase::Waiting, standing);
    let wanted = match node.verdict {
        Verdict::Wanted(digest) => digest,
        Verdict::Held(problem) if problem.reason == Reason::BundlePending => {
            return waiting(Standing::Under("waiting for the bundle", Some(problem.reason)));
        }
        Verdict::Held(problem) => {
            return waiting(Standing::Stopped(problem.reason, &problem.message));
        }
    };
    // The last word of a node counts while its agent is away: a runtime does
    // not stop to work because its agent restarts.
    let Some(report) = node.report.filter(|report| concerns(report, *wanted)) else {
        return waiting(match node.connection {
            Connection::Open if let Some((reason, why)) = node.refused => {
                Standing::Stopped(reason, why)
            }
            Connection::Never => Standing::Under("waiting for the node's agent", None),
            Connection::Missing => Standing::Stopped(Reason::AgentMissing, ""),
            _ if has_another(node.report) => Standing::Under("with the bundle before", None),
            Connection::Open => Standing::Under("waiting", None),
            Connection::Lost => Standing::Stopped(Reason::NodeUnreachable, ""),
        });
    };
    let standing = match (report.phase, report.reason) {
        (phase, _) if phase.is_ready() => Standing::Ready,
        (phase, Some(reason)) if phase.is_failure() => Standing::Stopped(reason, &report.message),
        (phase, None) if phase.is_failure() => Standing::Stopped(Reason::Internal, &report.message),
        _ if node.connection == Connection::Lost => Standing::Stopped(Reason::NodeUnreachable, ""),
        (phase, reason) => Standing::Under(doing(phase), reason),
    };
    (report.phase, standing)
}

/// Whether a node works with another bundle than it is to have in the end.
fn has_another(report: Option<&BundleReport>) -> bool {
    report.is_some_and(|report| report.phase.is_ready())
}

/// Whether a report is about the bundle that the node is to have.
fn concerns(report: &BundleReport, wanted: Digest) -> bool {
    match report.digest {
        Some(digest) => digest == wanted,
        // What could not even be begun has no digest.
        None => report.phase.is_failure(),
    }
}

/// What a phase is called while it lasts.
pub fn doing(phase: Phase) -> &'static str {
    match phase {
        Phase::Waiting => "waiting",
        Phase::Pulling => "pulling",
        Phase::Verified => "verified",
        Phase::Queued => "waiting for its turn",
        Phase::Activating => "activating",
        Phase::Loaded | Phase::Proven => "ready",
        Phase::Failed => "failed",
        Phase::RolledBack => "rolled back",
        Phase::Degraded => "degraded",
        Phase::Unsupported => "unsupported",
        Phase::Blocked => "blocked",
        Phase::Removing => "removing",
        Phase::InUse => "in use",
        Phase::Removed => "removed",
    }
}
