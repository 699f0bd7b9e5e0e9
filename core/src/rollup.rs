//! What the conditions of a ContainerRuntime say, given its nodes.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::assign::{CRI_CONTAINERD, CRI_LABEL, Problem, RUNTIME_LABEL_PREFIX, Verdict};
use crate::digest::Digest;
use crate::name::NodeName;
use crate::status::{BundleReport, Phase, Reason};

#[cfg(test)]
mod tests;

/// The longest message of a condition, in bytes. Gardener copies it into the Shoot.
pub const MAX_MESSAGE: usize = 4096;
/// How many nodes a message names for one reason.
const NAMED: usize = 5;

/// What is summed up for one ContainerRuntime.
#[derive(Clone, Debug)]
pub struct Input<'a> {
    /// What its type stands for: the bundle in words, or why there is none.
    pub bundle: Result<&'a str, &'a Problem>,
    /// What is wrong with the resource itself.
    pub invalid: Option<&'a Problem>,
    /// What is known of the shoot's nodes.
    pub shoot: Shoot<'a>,
    /// The nodes that it selects.
    pub nodes: &'a [NodeState<'a>],
    /// The nodes that match its selector and lack the labels that ask for the runtime.
    pub unlabelled: &'a [&'a NodeName],
}

/// What is known of a shoot's nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shoot<'a> {
    /// Its nodes are known.
    Known,
    /// They have not been listed yet.
    Unknown,
    /// Its API can't be reached.
    Unreachable(&'a str),
    /// It sleeps; its nodes are forgotten, not lost.
    Hibernated,
}

/// One node that a ContainerRuntime selects.
#[derive(Clone, Debug)]
pub struct NodeState<'a> {
    /// Its name.
    pub name: &'a NodeName,
    /// What it is to have.
    pub verdict: &'a Verdict,
    /// Whether its agent is connected, or was since the controller started.
    pub connection: Connection,
    /// What it last said of the type.
    pub report: Option<&'a BundleReport>,
    /// Why it did not take what it was last sent.
    pub refused: Option<(Reason, &'a str)>,
}

/// A node's agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connection {
    /// It has not come yet.
    Never,
    /// It is here.
    Open,
    /// It was here.
    Lost,
}

/// A condition's type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ConditionType {
    /// Whether the bundle was found.
    BundleResolved,
    /// Whether every selected node has it.
    NodesReady,
    /// Both in one, under a name that Gardener copies into the Shoot.
    SystemComponentsHealthy,
}

impl ConditionType {
    /// The type as it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BundleResolved => "BundleResolved",
            Self::NodesReady => "NodesReady",
            Self::SystemComponentsHealthy => "SystemComponentsHealthy",
        }
    }
}

/// A condition's status, with Gardener's fourth value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConditionStatus {
    /// It holds.
    True,
    /// It does not, and someone should look.
    False,
    /// It is on its way.
    Progressing,
    /// It can't be told.
    Unknown,
}

impl ConditionStatus {
    /// The status as it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Progressing => "Progressing",
            Self::Unknown => "Unknown",
        }
    }
}

/// A condition without its times.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// Its type.
    pub kind: ConditionType,
    /// Its status.
    pub status: ConditionStatus,
    /// A CamelCase word.
    pub reason: String,
    /// For people, at most [`MAX_MESSAGE`] bytes.
    pub message: String,
}

impl Condition {
    fn new(
        kind: ConditionType,
        status: ConditionStatus,
        reason: &str,
        mut message: String,
    ) -> Self {
        if message.len() > MAX_MESSAGE {
            let end = (0..=MAX_MESSAGE - 3).rev().find(|at| message.is_char_boundary(*at));
            message.truncate(end.unwrap_or(0));
            message.push('…');
        }
        Self { kind, status, reason: reason.to_owned(), message }
    }
}

/// The conditions, in the order of their types.
pub fn rollup(input: &Input<'_>) -> [Condition; 3] {
    let bundle = bundle_resolved(input);
    let nodes = nodes_ready(input);
    let system = ConditionType::SystemComponentsHealthy;
    let worst = match (bundle.status, nodes.status) {
        (ConditionStatus::False, _) => &bundle,
        (ConditionStatus::Progressing, ConditionStatus::True) => &bundle,
        _ => &nodes,
    };
    let summary = Condition { kind: system, ..worst.clone() };
    [bundle, nodes, summary]
}

fn bundle_resolved(input: &Input<'_>) -> Condition {
    let kind = ConditionType::BundleResolved;
    match input.bundle {
        Ok(bundle) => {
            Condition::new(kind, ConditionStatus::True, "BundleResolved", bundle.to_owned())
        }
        Err(problem) if problem.reason == Reason::BundlePending => {
            let reason = problem.reason.as_str();
            Condition::new(kind, ConditionStatus::Progressing, reason, problem.message.clone())
        }
        Err(problem) => failed(kind, problem),
    }
}

fn nodes_ready(input: &Input<'_>) -> Condition {
    let kind = ConditionType::NodesReady;
    if let Some(problem) = input.invalid {
        return failed(kind, problem);
    }
    match input.shoot {
        Shoot::Hibernated => {
            let text = "the shoot is hibernated; its nodes get the runtime when they are back";
            return Condition::new(kind, ConditionStatus::True, "Hibernated", text.to_owned());
        }
        Shoot::Unknown => {
            let text = "the shoot's nodes are being listed";
            return Condition::new(
                kind,
                ConditionStatus::Progressing,
                "ListingNodes",
                text.to_owned(),
            );
        }
        Shoot::Unreachable(why) => {
            let reason = Reason::ShootUnreachable;
            let text = format!("the shoot's API can't be reached: {why}; {}", reason.advice());
            return Condition::new(kind, ConditionStatus::Unknown, reason.as_str(), text);
        }
        Shoot::Known => {}
    }
    if input.nodes.is_empty() {
        let mut text = "no node is selected".to_owned();
        if !input.unlabelled.is_empty() {
            let _ = write!(
                text,
                "; {} of its pool without the labels {CRI_LABEL}={CRI_CONTAINERD} and {RUNTIME_LABEL_PREFIX}<type>=true ({})",
                count(input.unlabelled.len()),
                names(input.unlabelled)
            );
        }
        return Condition::new(kind, ConditionStatus::True, "NoNodes", text);
    }
    sum_up(input.nodes)
}

/// Where a node stands.
enum Standing<'a> {
    Ready,
    Under(&'static str),
    Stopped(Reason, &'a str),
}

fn standing<'a>(node: &NodeState<'a>) -> Standing<'a> {
    let wanted = match node.verdict {
        Verdict::Wanted(digest) => digest,
        Verdict::Held(problem) if problem.reason == Reason::BundlePending => {
            return Standing::Under("waiting for the bundle");
        }
        Verdict::Held(problem) => return Standing::Stopped(problem.reason, &problem.message),
    };
    // The last word of a node counts while its agent is away: a runtime does
    // not stop to work because its agent restarts.
    let Some(report) = node.report.filter(|report| concerns(report, *wanted)) else {
        return match node.connection {
            Connection::Open if let Some((reason, why)) = node.refused => {
                Standing::Stopped(reason, why)
            }
            Connection::Never => Standing::Under("waiting for the node's agent"),
            Connection::Open => Standing::Under("waiting"),
            Connection::Lost => Standing::Stopped(Reason::NodeUnreachable, ""),
        };
    };
    match (report.phase, report.reason) {
        (phase, _) if phase.is_ready() => Standing::Ready,
        (phase, Some(reason)) if phase.is_failure() => Standing::Stopped(reason, &report.message),
        (phase, None) if phase.is_failure() => Standing::Stopped(Reason::Internal, &report.message),
        _ if node.connection == Connection::Lost => Standing::Stopped(Reason::NodeUnreachable, ""),
        (phase, _) => Standing::Under(doing(phase)),
    }
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

fn sum_up(nodes: &[NodeState<'_>]) -> Condition {
    let kind = ConditionType::NodesReady;
    let mut ready = 0;
    let mut away = Vec::new();
    let mut under: BTreeMap<&str, Vec<&NodeName>> = BTreeMap::new();
    let mut stopped: BTreeMap<Reason, (Vec<&NodeName>, &str)> = BTreeMap::new();
    for node in nodes {
        match standing(node) {
            Standing::Ready => {
                ready += 1;
                if node.connection == Connection::Lost {
                    away.push(node.name);
                }
            }
            Standing::Under(what) => under.entry(what).or_default().push(node.name),
            Standing::Stopped(reason, message) => {
                stopped.entry(reason).or_insert((Vec::new(), message)).0.push(node.name);
            }
        }
    }
    let mut text = format!("{ready} of {} ready", count(nodes.len()));
    for (what, nodes) in &under {
        let _ = write!(text, "; {} {what} ({})", nodes.len(), names(nodes));
    }
    if !away.is_empty() {
        let _ = write!(text, "; {} by its last word, not connected ({})", away.len(), names(&away));
    }
    // The reason that stops most nodes comes first and names the condition.
    let mut reasons: Vec<_> = stopped.into_iter().collect();
    reasons.sort_by_key(|(reason, (nodes, _))| (std::cmp::Reverse(nodes.len()), *reason));
    for (reason, (nodes, message)) in &reasons {
        let _ = write!(text, "; {reason} on {} ({})", count(nodes.len()), names(nodes));
        if !message.is_empty() {
            let _ = write!(text, ": {message}");
        }
        let _ = write!(text, "; what to do: {}", reason.advice());
    }
    match reasons.first() {
        Some((reason, _)) => Condition::new(kind, ConditionStatus::False, reason.as_str(), text),
        None if under.is_empty() => {
            Condition::new(kind, ConditionStatus::True, "AllNodesReady", text)
        }
        None => Condition::new(kind, ConditionStatus::Progressing, "RollingOut", text),
    }
}

fn failed(kind: ConditionType, problem: &Problem) -> Condition {
    let text = format!("{}; what to do: {}", problem.message, problem.reason.advice());
    Condition::new(kind, ConditionStatus::False, problem.reason.as_str(), text)
}

fn count(nodes: usize) -> String {
    if nodes == 1 { "1 node".to_owned() } else { format!("{nodes} nodes") }
}

fn names(nodes: &[&NodeName]) -> String {
    let mut text = nodes.iter().take(NAMED).map(|n| n.as_str()).collect::<Vec<_>>().join(", ");
    if nodes.len() > NAMED {
        let _ = write!(text, " and {} more", nodes.len() - NAMED);
    }
    text
}
