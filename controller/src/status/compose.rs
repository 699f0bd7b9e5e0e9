//! One resource: what its status says, what it should say, and what is new in that.

use jiff::Timestamp;
use rootstock_core::bandwidth::Limit;
use rootstock_core::rollup::Condition;
use rootstock_core::runtime_status::{NodesStatus, Rollout, RuntimeStatus};
use rootstock_core::state::{State, StateError};
use serde_json::{Value, json};

use super::news::{self, News};
use super::{conditions, patch, provider, pull};
use crate::api::ContainerRuntime;
use crate::index::Summary;

/// What is to be written.
#[derive(Debug)]
pub(super) struct Composed {
    /// The merge patch of the whole object, if anything changed.
    pub(super) patch: Option<Value>,
    /// What has happened, once it is written.
    pub(super) news: Vec<News>,
    /// The conditions that say something else than before.
    pub(super) changed: Vec<Value>,
    /// Whether it is less than what an earlier controller knew.
    pub(super) unsettling: bool,
    /// Why the resource's state was not read.
    pub(super) unread: Option<StateError>,
}

/// Works out what to write over `object`, as it was read.
pub(super) fn compose(
    object: &ContainerRuntime,
    summary: &Summary,
    accepted: Condition,
    passed_over: Vec<String>,
    budget: Limit,
    now: Timestamp,
) -> Result<Composed, serde_json::Error> {
    let status = object.status.clone().unwrap_or_default();
    let (state, unread) = match State::parse(status.state.as_ref()) {
        Ok(state) => (Some(state), None),
        Err(error) => (None, Some(error)),
    };
    let before = RuntimeStatus::read(status.provider_status.as_ref());
    let mut after = provider_status(before.as_ref(), summary, budget, now);
    after.promoted = state.map(|state| state.promoted).unwrap_or_default();
    let moved = after.promoted.clone();
    after.passed_over = passed_over;

    let old: Vec<_> =
        status.conditions.iter().map(serde_json::to_value).collect::<Result<_, _>>()?;
    let ours: Vec<_> = summary.conditions.iter().cloned().chain([accepted]).collect();
    let new = conditions::merge(&old, &ours, now);
    let from = json!({
        "conditions": old, "providerStatus": status.provider_status,
    });
    let to = json!({"conditions": new, "providerStatus": after});
    let news = news::of(before.as_ref(), &moved, &after, summary, now);
    let patch = patch::diff(&from, &to).map(|status| {
        // Written only over what was read.
        json!({"metadata": {"resourceVersion": object.metadata.resource_version}, "status": status})
    });
    let said = |a: &Value, b: &Value| ["type", "status", "reason"].iter().all(|f| a[f] == b[f]);
    let changed: Vec<_> =
        new.iter().filter(|new| !old.iter().any(|old| said(old, new))).cloned().collect();
    let spoken = |value: &Value| ours.iter().any(|ours| value["type"] == ours.kind.as_str());
    let known_less = !summary.complete && old.iter().any(spoken);
    let unsettling = known_less || conditions::unsettles(&old, &new);
    Ok(Composed { patch, news, changed, unsettling, unread })
}

fn provider_status(
    before: Option<&RuntimeStatus>,
    summary: &Summary,
    budget: Limit,
    now: Timestamp,
) -> RuntimeStatus {
    let slowest = before.map(|before| before.slowest_nodes.as_slice()).unwrap_or_default();
    let resolved = summary.bundle.as_ref().map(provider::bundle);
    let reasons = summary.stopped.iter().map(|(reason, (count, _))| (*reason, *count));
    RuntimeStatus {
        // A registry that is away for a moment takes nothing from what is known.
        bundle: resolved.or_else(|| before.and_then(|before| before.bundle.clone())),
        nodes: NodesStatus {
            selected: summary.selected,
            ready: summary.ready,
            phases: summary.phases.clone(),
            reasons: reasons.collect(),
            outdated_sandboxes: summary.outdated_sandboxes,
        },
        rollout: rollout(before.and_then(|before| before.rollout.as_ref()), summary, budget, now),
        slowest_nodes: summary
            .slowest
            .iter()
            .map(|slow| provider::slow_node(slow, slowest))
            .collect(),
        ..RuntimeStatus::new()
    }
}

/// The rollout that is under way; as it was where nobody has looked at it yet.
fn rollout(
    before: Option<&Rollout>,
    summary: &Summary,
    budget: Limit,
    now: Timestamp,
) -> Option<Rollout> {
    let Some(progress) = &summary.rollout else { return before.cloned() };
    let mut rollout = Rollout::of(progress, before, now)?;
    rollout.name_nodes(|uid| summary.named.get(uid).cloned());
    rollout.pull = pull::of(&rollout, before, summary.bytes, budget, now);
    Some(rollout)
}
