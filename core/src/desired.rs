//! What one node should have.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::bundle::ConfigBlob;
use crate::digest::Digest;
use crate::name::RuntimeType;
use crate::path::BinaryPath;

/// A counter per node: a later desired state has a larger one.
///
/// The controller's next one is `max(own record, what the agent holds) + 1`, so
/// that a migrated or restored control plane never falls behind its nodes.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Generation(pub u64);

impl Generation {
    /// The generation that follows both.
    pub fn after(self, other: Self) -> Self {
        Self(self.0.max(other.0).saturating_add(1))
    }
}

/// Everything that one node should have.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Desired {
    /// Its generation.
    pub generation: Generation,
    /// What it holds; see [`DesiredContent`].
    #[serde(flatten)]
    pub content: DesiredContent,
}

/// Everything that one node should have, without the generation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DesiredContent {
    /// The bundles, by type; at most one of each.
    pub bundles: Vec<DesiredBundle>,
    /// Types that are asked for but can't be said more of now (their bundle is
    /// not resolved, or their label is gone for a moment): what the node has of
    /// them stays as it is.
    #[serde(default)]
    pub keep: BTreeSet<RuntimeType>,
    /// The registries that the bundles name.
    #[serde(default)]
    pub registries: Vec<Registry>,
    /// Bundles that may be activated soon: they are pulled and verified, and
    /// nothing of them is put in place. At most one of a type, in their order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub prefetch: Vec<DesiredBundle>,
    /// Whether a restart of containerd needs a slot.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub gated: bool,
}

impl DesiredContent {
    /// Whether a node that has the other one has nothing to do for this: all
    /// that is new is that some bundles stay as they are.
    pub fn only_keeps(&self, other: &Self) -> bool {
        let kept = |bundle: &&DesiredBundle| self.keep.contains(bundle.runtime());
        let is_kept = |runtime: &RuntimeType| {
            other.keep.contains(runtime) || other.bundles.iter().any(|b| b.runtime() == runtime)
        };
        self.gated == other.gated
            && self.prefetch == other.prefetch
            && self.bundles.iter().eq(other.bundles.iter().filter(|bundle| !kept(bundle)))
            && other.keep.is_subset(&self.keep)
            && self.keep.iter().all(is_kept)
    }
}

/// One bundle that a node should have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DesiredBundle {
    /// The digest of its manifest for the node's platform.
    pub digest: Digest,
    /// Where its entry points are placed.
    pub binary_path: BinaryPath,
    /// The name of its registry.
    pub registry: String,
    /// Its repository there.
    pub repository: String,
    /// Its config blob.
    pub config: ConfigBlob,
    /// The user's settings, by name.
    #[serde(default)]
    pub settings: Map<String, Value>,
}

impl DesiredBundle {
    /// The runtime type.
    pub fn runtime(&self) -> &RuntimeType {
        &self.config.config().runtime
    }
}

/// Where bundles come from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Registry {
    /// The name by which bundles refer to it.
    pub name: String,
    /// Its URL: scheme, host and port.
    pub url: String,
    /// URLs that serve the same digests and are tried first, in order.
    #[serde(default)]
    pub mirrors: Vec<String>,
    /// The CAs that sign its certificate, as PEM. Agents trust no others, so
    /// every `https` URL needs them.
    #[serde(default)]
    pub ca_bundle: String,
    /// How to log in; none where anyone may read.
    #[serde(default)]
    pub credential: Option<Credential>,
}

/// A short-lived credential that opens the bundles' repositories for reading.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Credential {
    /// The user; empty for a bearer token.
    pub username: String,
    /// The password or token.
    pub secret: String,
}

impl std::fmt::Debug for Credential {
    /// Without the secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credential").field("username", &self.username).finish_non_exhaustive()
    }
}

/// Whether a node should take a desired state that it was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offer {
    /// It is newer: take it.
    Newer,
    /// It is what the node holds.
    Same,
    /// It is older: refuse it, and say what is held.
    Older,
    /// It has the number of what is held, but other content: refuse it.
    Contradicts,
}

/// Compares what a node holds with what it is offered, by generation and content hash.
pub fn offer(held: Option<(Generation, Digest)>, offered: (Generation, Digest)) -> Offer {
    match held {
        None => Offer::Newer,
        Some((generation, _)) if offered.0 > generation => Offer::Newer,
        Some((generation, _)) if offered.0 < generation => Offer::Older,
        Some((_, content)) if offered.1 == content => Offer::Same,
        Some(_) => Offer::Contradicts,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_only_stays_is_nothing_new() {
        let keeps = |types: &[&str]| DesiredContent {
            keep: types.iter().map(|t| t.parse().unwrap()).collect(),
            ..DesiredContent::default()
        };
        let table = [
            (keeps(&[]), keeps(&[]), true),
            (keeps(&["a"]), keeps(&["a"]), true),
            // What was kept goes away, or something comes of which nothing was said.
            (keeps(&[]), keeps(&["a"]), false),
            (keeps(&["a"]), keeps(&[]), false),
        ];
        for (new, old, want) in table {
            assert_eq!(new.only_keeps(&old), want, "{new:?} after {old:?}");
        }
    }

    #[test]
    fn only_newer_states_are_taken() {
        let (a, b) = (Digest::of(b"a"), Digest::of(b"b"));
        let table = [
            (None, (1, a), Offer::Newer),
            (Some((1, a)), (2, a), Offer::Newer),
            (Some((1, a)), (1, a), Offer::Same),
            (Some((1, a)), (1, b), Offer::Contradicts),
            (Some((2, a)), (1, a), Offer::Older),
        ];
        for (held, (generation, content), want) in table {
            let held = held.map(|(generation, content)| (Generation(generation), content));
            assert_eq!(offer(held, (Generation(generation), content)), want);
        }
    }

    #[test]
    fn the_next_generation_passes_both() {
        assert_eq!(Generation(3).after(Generation(7)), Generation(8));
        assert_eq!(Generation(9).after(Generation(7)), Generation(10));
    }

    #[test]
    fn a_secret_is_not_printed() {
        let credential = Credential { username: "u".into(), secret: "hunter2".into() };
        assert!(!format!("{credential:?}").contains("hunter2"));
    }
}
