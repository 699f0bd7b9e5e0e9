//! `status.providerStatus` of a ContainerRuntime: more of it than conditions
//! have, for people and tools.
//!
//! The controller writes it and the command line reads it, each in a version of
//! its own. What a newer one added is passed over: fields that this version
//! does not know, and, where a list or a count is kept by words, the words that
//! it does not know. So a status is never unreadable because of one of them.

mod lenient;
mod phase;
mod rollout;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use phase::{HaltReason, RolloutPhase};
pub use rollout::{FailedNode, HeldNode, MAX_FAILED_NODES, MAX_HELD_NODES, Pull, Rollout};

use crate::digest::Digest;
use crate::name::Architecture;
use crate::rollout::record::is_default;
use crate::status::{Phase, Reason};

/// `apiVersion` of what is written.
pub const API_VERSION: &str = "rootstock.gardener.cloud/v1alpha1";
/// `kind` of what is written.
pub const KIND: &str = "RuntimeStatus";

/// What one ContainerRuntime stands for, and how far its nodes are.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RuntimeStatus {
    /// [`API_VERSION`]
    pub api_version: String,
    /// [`KIND`]
    pub kind: String,
    /// What the type stands for, as it was last found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bundle: Option<BundleStatus>,
    /// The digests with which every node was last ready.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "lenient::map")]
    pub promoted: BTreeMap<Architecture, Digest>,
    /// The nodes, counted.
    pub nodes: NodesStatus,
    /// The rollout that is under way.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "lenient::one")]
    pub rollout: Option<Rollout>,
    /// The nodes that have been without the runtime for longest, at most five.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "lenient::list")]
    pub slowest_nodes: Vec<SlowNode>,
    /// What the providerConfig says that nobody knows.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub passed_over: Vec<String>,
}

/// What a type stands for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BundleStatus {
    /// The reference in the catalog.
    pub reference: String,
    /// The version.
    pub version: String,
    /// The manifests' digests.
    #[serde(deserialize_with = "lenient::map")]
    pub digests: BTreeMap<Architecture, Digest>,
}

/// The nodes, counted.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodesStatus {
    /// Those that the resource selects.
    pub selected: usize,
    /// Those that have the runtime.
    pub ready: usize,
    /// How many are in each phase.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "lenient::map")]
    pub phases: BTreeMap<Phase, usize>,
    /// How many each reason stops.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "lenient::map")]
    pub reasons: BTreeMap<Reason, usize>,
    /// How many pods' sandboxes still run on another bundle than their node
    /// has by now: they are patched when the pods start anew.
    #[serde(skip_serializing_if = "is_default")]
    pub outdated_sandboxes: u64,
}

/// A node that does not have the runtime.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SlowNode {
    /// Its name.
    pub name: String,
    /// Where it is.
    pub phase: Phase,
    /// Why it is no further.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "lenient::one")]
    pub reason: Option<Reason>,
    /// Since when it does not have it.
    pub since: Timestamp,
}

impl RuntimeStatus {
    /// One that says nothing.
    pub fn new() -> Self {
        Self { api_version: API_VERSION.to_owned(), kind: KIND.to_owned(), ..Self::default() }
    }

    /// Reads what was written; `None` where there is nothing, or where it is of
    /// another kind or form.
    pub fn read(value: Option<&Value>) -> Option<Self> {
        let read = Self::deserialize(value?).ok()?;
        (read.api_version == API_VERSION && read.kind == KIND).then_some(read)
    }
}
