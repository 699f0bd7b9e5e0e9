//! `status.providerStatus`: more of it than conditions have, for people and tools.
//!
//! Nothing in it changes by itself: no byte counts, no durations, only points
//! in time. A fleet that is at rest writes nothing.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use rootstock_core::digest::Digest;
use rootstock_core::name::Architecture;
use rootstock_core::status::{Phase, Reason};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::index::{Missed, ResolvedView, Slow};

const API_VERSION: &str = "rootstock.gardener.cloud/v1alpha1";
const KIND: &str = "RuntimeStatus";

/// What one ContainerRuntime stands for, and how far its nodes are.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct RuntimeStatus {
    /// [`API_VERSION`]
    pub(super) api_version: String,
    /// [`KIND`]
    pub(super) kind: String,
    /// What the type stands for, as it was last found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) bundle: Option<BundleStatus>,
    /// The digests with which every node was last ready.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) promoted: BTreeMap<Architecture, Digest>,
    /// The nodes, counted.
    pub(super) nodes: NodesStatus,
    /// The rollout that is under way.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) rollout: Option<Rollout>,
    /// The nodes that have been without the runtime for longest, at most five.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) slowest_nodes: Vec<SlowNode>,
    /// What the providerConfig says that nobody knows.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) passed_over: Vec<String>,
}

/// What a type stands for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct BundleStatus {
    /// The reference in the catalog.
    pub(super) reference: String,
    /// The version.
    pub(super) version: String,
    /// The manifests' digests.
    pub(super) digests: BTreeMap<Architecture, Digest>,
}

/// The nodes, counted.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct NodesStatus {
    /// Those that the resource selects.
    pub(super) selected: usize,
    /// Those that have the runtime.
    pub(super) ready: usize,
    /// How many are in each phase.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) phases: BTreeMap<Phase, usize>,
    /// How many each reason stops.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) reasons: BTreeMap<Reason, usize>,
}

/// A rollout that is under way.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Rollout {
    /// Since when.
    pub(super) since: Timestamp,
    /// The most nodes that were without the runtime at once.
    pub(super) nodes: usize,
}

/// A node that does not have the runtime.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct SlowNode {
    /// Its name.
    pub(super) name: String,
    /// Where it is.
    pub(super) phase: Phase,
    /// Why it is no further.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) reason: Option<Reason>,
    /// Since when it does not have it.
    pub(super) since: Timestamp,
}

impl RuntimeStatus {
    pub(super) fn new() -> Self {
        Self { api_version: API_VERSION.to_owned(), kind: KIND.to_owned(), ..Self::default() }
    }

    /// Reads what was written; `None` where it is of another kind or form: it
    /// is written anew then.
    pub(super) fn read(value: Option<&Value>) -> Option<Self> {
        let read = Self::deserialize(value?).ok()?;
        (read.api_version == API_VERSION && read.kind == KIND).then_some(read)
    }
}

impl RuntimeStatus {
    /// Whose agent was away by this status.
    pub(super) fn missed(&self) -> Missed {
        let is_away = |reason| matches!(reason, Reason::AgentMissing | Reason::NodeUnreachable);
        let away = self.nodes.reasons.iter().filter(|(reason, _)| is_away(**reason));
        let count: usize = away.map(|(_, count)| *count).sum();
        let named = self.slowest_nodes.iter().filter(|node| node.reason.is_some_and(is_away));
        let named: BTreeSet<_> = named.filter_map(|node| node.name.parse().ok()).collect();
        if named.len() < count { Missed::More } else { Missed::Named(named) }
    }
}

impl From<&ResolvedView> for BundleStatus {
    fn from(view: &ResolvedView) -> Self {
        let digests = view.digests.iter().filter_map(|(a, digest)| Some((*a, (*digest)?)));
        let (reference, version) = (view.reference.clone(), view.version.clone());
        Self { reference, version, digests: digests.collect() }
    }
}

impl SlowNode {
    /// `before` is what was written of the slowest nodes: a controller that
    /// has just started has not seen for how long they have been so.
    pub(super) fn new(slow: &Slow, before: &[Self]) -> Self {
        let name = slow.name.as_str();
        let known = before.iter().find(|node| node.name == name).map(|node| node.since);
        Self {
            name: name.to_owned(),
            phase: slow.phase,
            reason: slow.reason,
            since: known.map_or(slow.since, |known| known.min(slow.since)),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_status_tells_who_was_missed() {
        let status = |named: &[(&str, Reason)], counts: &[(Reason, usize)]| {
            let since = Timestamp::UNIX_EPOCH;
            let slow = |(name, reason): &(&str, Reason)| SlowNode {
                name: (*name).to_owned(),
                phase: Phase::Waiting,
                reason: Some(*reason),
                since,
            };
            let nodes =
                NodesStatus { reasons: counts.iter().copied().collect(), ..Default::default() };
            let slowest_nodes = named.iter().map(slow).collect();
            RuntimeStatus { nodes, slowest_nodes, ..RuntimeStatus::new() }.missed()
        };
        let these = |names: &[&str]| {
            Missed::Named(names.iter().map(|name| name.parse().unwrap()).collect())
        };
        use Reason::{AgentMissing, NoSpace, NodeUnreachable};
        assert_eq!(status(&[], &[]), these(&[]));
        assert_eq!(status(&[("a", NoSpace)], &[(NoSpace, 7)]), these(&[]));
        let named = [("a", NoSpace), ("b", AgentMissing), ("c", NodeUnreachable)];
        let all = status(&named, &[(NoSpace, 1), (AgentMissing, 1), (NodeUnreachable, 1)]);
        assert_eq!(all, these(&["b", "c"]));
        assert_eq!(status(&named, &[(AgentMissing, 2), (NodeUnreachable, 1)]), Missed::More);
    }

    #[test]
    fn only_its_own_form_is_read() {
        let empty = serde_json::to_value(RuntimeStatus::new()).unwrap();
        assert_eq!(
            empty,
            json!({"apiVersion": API_VERSION, "kind": KIND, "nodes": {"selected": 0, "ready": 0}})
        );
        assert_eq!(RuntimeStatus::read(Some(&empty)), Some(RuntimeStatus::new()));
        assert_eq!(RuntimeStatus::read(None), None);
        for other in [
            json!({"apiVersion": "gvisor/v1", "kind": KIND}),
            json!({"apiVersion": API_VERSION, "kind": KIND, "nodes": 5}),
            json!("text"),
        ] {
            assert_eq!(RuntimeStatus::read(Some(&other)), None, "{other}");
        }
    }
}
