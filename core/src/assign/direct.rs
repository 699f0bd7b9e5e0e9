//! What of an assignment a rollout lets a node have.
//!
//! [`super::assign`] says what a node is to have in the end. A rollout says
//! which bundle of each type it may have now: the one that is known to work,
//! the one that is tried, or none, and then what it has stays.

use std::collections::BTreeMap;

use super::{Assignment, Claim, ResolvedBundle, choose, conflicts};
use crate::desired::Registry;
use crate::digest::Digest;
use crate::name::RuntimeType;

/// What a rollout lets a node have of one type.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Turn {
    /// The bundle that it is sent; none where what it has stays as it is.
    pub give: Option<Digest>,
    /// The bundle that it may pull ahead.
    pub prefetch: Option<Digest>,
}

/// What a rollout lets a node have. A type that is not there stays as it is.
pub type Turns = BTreeMap<RuntimeType, Turn>;

/// Every bundle that is known, by type and digest.
pub type Bundles = BTreeMap<(RuntimeType, Digest), ResolvedBundle>;

/// Puts what a rollout lets a node have in the place of what it is to have in
/// the end. A bundle that is not known, or that refuses the resource's
/// settings, is not sent: what the node has stays.
pub fn direct(
    mut assignment: Assignment,
    claims: &[Claim],
    turns: &Turns,
    bundles: &Bundles,
    registries: &BTreeMap<String, Registry>,
) -> Assignment {
    let mut content = std::mem::take(&mut assignment.content);
    let in_the_end = std::mem::take(&mut content.bundles);
    let mut chosen = BTreeMap::new();
    for (runtime, track) in &assignment.tracks {
        let find = |digest: Digest| {
            if let Some(same) =
                in_the_end.iter().find(|b| b.runtime() == runtime && b.digest == digest)
            {
                return Some(same.clone());
            }
            let claim = claims.iter().find(|claim| claim.name == *track)?;
            choose::with(claim, bundles.get(&(runtime.clone(), digest))?)
        };
        let turn = turns.get(runtime).copied().unwrap_or_default();
        match turn.give.and_then(find) {
            Some(bundle) => {
                chosen.insert(runtime, bundle);
            }
            None => {
                content.keep.insert(runtime.clone());
            }
        }
        content.prefetch.extend(turn.prefetch.and_then(find));
    }
    let problems = conflicts(&chosen);
    for (runtime, bundle) in chosen {
        if problems.contains_key(runtime) {
            content.keep.insert(runtime.clone());
        } else {
            content.keep.remove(runtime);
            content.bundles.push(bundle);
        }
    }
    content.registries = super::named(content.bundles.iter().chain(&content.prefetch), registries);
    content.gated = true;
    Assignment { content, ..assignment }
}

#[cfg(test)]
mod tests;
