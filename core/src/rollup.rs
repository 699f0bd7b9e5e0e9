//! What the conditions of a ContainerRuntime say, given its nodes.

use std::fmt::Write as _;

use crate::assign::{CRI_CONTAINERD, CRI_LABEL, Problem, RUNTIME_LABEL_PREFIX, Verdict};
use crate::name::NodeName;
use crate::rollout::Progress;
use crate::status::{BundleReport, Reason};

mod rollout;
mod tally;
#[cfg(test)]
mod tests;
mod words;

pub use tally::{Tally, Unready, doing};
use words::{bounded, count, names};

/// The longest message of a condition, in bytes. Gardener copies it into the Shoot.
pub const MAX_MESSAGE: usize = 4096;
/// Gardener's code for what only the resource's owner can mend.
const CONFIGURATION_PROBLEM: &[&str] = &["ERR_CONFIGURATION_PROBLEM"];

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
    /// How far its rollout is, where it was looked at.
    pub rollout: Option<&'a Progress>,
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
    /// It has not come for so long that someone should look.
    Missing,
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
    /// Whether the resource can be carried out as it is written.
    ConfigurationAccepted,
}

impl ConditionType {
    /// The type as it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BundleResolved => "BundleResolved",
            Self::NodesReady => "NodesReady",
            Self::SystemComponentsHealthy => "SystemComponentsHealthy",
            Self::ConfigurationAccepted => "ConfigurationAccepted",
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
    /// Gardener's error codes.
    pub codes: &'static [&'static str],
}

/// Everything that is summed up.
#[derive(Clone, Debug)]
pub struct Rollup<'a> {
    /// The conditions, in the order of their types.
    pub conditions: [Condition; 3],
    /// The nodes, counted.
    pub nodes: Tally<'a>,
}

impl Condition {
    fn new(kind: ConditionType, status: ConditionStatus, reason: &str, message: String) -> Self {
        let message = bounded(message, MAX_MESSAGE);
        Self { kind, status, reason: reason.to_owned(), message, codes: &[] }
    }
}

/// Sums a ContainerRuntime up.
pub fn rollup<'a>(input: &Input<'a>) -> Rollup<'a> {
    let mut tally = Tally::of(input.nodes);
    let pending = matches!(input.bundle, Err(problem) if problem.reason == Reason::BundlePending);
    // A hibernated shoot's nodes are all known: there are none.
    let known = matches!(input.shoot, Shoot::Known | Shoot::Hibernated);
    tally.complete &= known && !pending;
    let bundle = bundle_resolved(input);
    let nodes = nodes_ready(input, &tally);
    let system = system_components_healthy(input, &bundle, &nodes);
    Rollup { conditions: [bundle, nodes, system], nodes: tally }
}

/// What Gardener copies into the Shoot: False and Unknown there mean that
/// somebody is called.
fn system_components_healthy(
    input: &Input<'_>,
    bundle: &Condition,
    nodes: &Condition,
) -> Condition {
    let kind = ConditionType::SystemComponentsHealthy;
    let asleep = input.shoot == Shoot::Hibernated;
    let nothing_to_break = nodes.status == ConditionStatus::True && input.nodes.is_empty();
    if asleep || nothing_to_break {
        // New shoots have no nodes, and a registry that is away harms none.
        let mut message = nodes.message.clone();
        if bundle.status != ConditionStatus::True {
            let _ = write!(message, "; {}", bundle.message);
        }
        return Condition::new(kind, ConditionStatus::True, &nodes.reason, message);
    }
    let worst = match (bundle.status, nodes.status) {
        (ConditionStatus::False, _) => bundle,
        (ConditionStatus::Progressing, ConditionStatus::True) => bundle,
        _ => nodes,
    };
    let mut summary = Condition { kind, ..worst.clone() };
    // Gardener has a condition of its own for an API that is away; nothing is
    // known here that is broken.
    if summary.status == ConditionStatus::Unknown {
        summary.status = ConditionStatus::Progressing;
    }
    summary
}

/// Whether a resource is carried out as it is written: what is wrong with it,
/// and what its providerConfig says that nobody knows.
pub fn configuration_accepted(invalid: Option<&Problem>, passed_over: &[String]) -> Condition {
    let kind = ConditionType::ConfigurationAccepted;
    if let Some(problem) = invalid {
        return Condition { codes: CONFIGURATION_PROBLEM, ..failed(kind, problem) };
    }
    let (reason, text) = if passed_over.is_empty() {
        ("Accepted", "nothing in it is refused".to_owned())
    } else {
        ("PassedOver", format!("not known, and passed over: {}", passed_over.join(", ")))
    };
    Condition::new(kind, ConditionStatus::True, reason, text)
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

fn nodes_ready(input: &Input<'_>, tally: &Tally<'_>) -> Condition {
    let kind = ConditionType::NodesReady;
    if input.shoot == Shoot::Hibernated {
        let text = "the shoot is hibernated; its nodes get the runtime when they are back";
        return Condition::new(kind, ConditionStatus::True, "Hibernated", text.to_owned());
    }
    if let Some(problem) = input.invalid {
        return Condition { codes: CONFIGURATION_PROBLEM, ..failed(kind, problem) };
    }
    match input.shoot {
        Shoot::Unknown => {
            let text = "the shoot's nodes are being listed".to_owned();
            return Condition::new(kind, ConditionStatus::Progressing, "ListingNodes", text);
        }
        Shoot::Unreachable(why) if input.nodes.is_empty() => {
            let reason = Reason::ShootUnreachable;
            let text = format!("the shoot's API can't be reached: {why}; {}", reason.advice());
            return Condition::new(kind, ConditionStatus::Unknown, reason.as_str(), text);
        }
        // Agents don't need the shoot's API: what they say still holds.
        Shoot::Unreachable(_) | Shoot::Known | Shoot::Hibernated => {}
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
    let stale = matches!(input.shoot, Shoot::Unreachable(_));
    let (status, reason) = tally.verdict();
    let nodes = Condition::new(kind, status, reason, tally.in_words(stale));
    match input.rollout {
        Some(progress) => rollout::said(nodes, progress),
        None => nodes,
    }
}

fn failed(kind: ConditionType, problem: &Problem) -> Condition {
    let text = format!("{}; what to do: {}", problem.message, problem.reason.advice());
    Condition::new(kind, ConditionStatus::False, problem.reason.as_str(), text)
}
