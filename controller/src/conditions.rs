//! Writes what is summed up into the ContainerRuntimes' conditions.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use jiff::Timestamp;
use kube::Client;
use kube::api::{Patch, PatchParams};
use rootstock_core::rollup;
use rootstock_daemon::Shutdown;
use rootstock_daemon::error::Chain;
use serde_json::json;
use tokio::time::Instant;

use self::pace::Pace;
use crate::api::{Condition, is_conflict};
use crate::index::{Index, RuntimeKey, Summary};

mod pace;

/// Changes are gathered for so long: a node reports several times a second
/// while it pulls.
const GATHER: Duration = Duration::from_millis(200);
/// A controller that has just started knows less than the one before it wrote:
/// for so long its first word does not turn True into Progressing.
const SETTLE: Duration = Duration::from_secs(30);
/// How many resources are written at once.
const AT_ONCE: usize = 8;

/// Writes conditions.
pub(crate) struct Conditions {
    pub(crate) client: Client,
    pub(crate) index: Arc<Index>,
}

/// What became of one look at a resource.
enum Outcome {
    /// There was nothing to write.
    Nothing,
    /// It was written.
    Written,
    /// It is too early to say.
    TooEarly,
    /// It could not be written.
    Refused(kube::Error),
}

impl Conditions {
    pub(crate) async fn run(self, shutdown: Shutdown) -> anyhow::Result<()> {
        let mut changes = self.index.changes();
        // What changed before is looked at too.
        changes.mark_changed();
        let settled = Instant::now() + SETTLE;
        let mut waiting = BTreeSet::new();
        let mut pace = Pace::default();
        loop {
            let next = pace.next(&waiting, Instant::now());
            // Cancel-safe: a change is still seen by the next `changed`, and
            // who waits is still in `waiting`.
            tokio::select! {
                changed = changes.changed() => changed?,
                () = tokio::time::sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {}
                () = shutdown.begun() => return Ok(()),
            }
            // Cancel-safe: what changed stays marked in the index.
            tokio::select! {
                () = tokio::time::sleep(GATHER) => {}
                () = shutdown.begun() => return Ok(()),
            }
            waiting.extend(self.index.take_dirty());
            let due = pace.take_due(&mut waiting, Instant::now());
            let mut looks = futures_util::stream::iter(due)
                .map(async |key| {
                    let outcome = self.write(&key, settled).await;
                    (key, outcome)
                })
                .buffer_unordered(AT_ONCE);
            loop {
                // Cancel-safe: a write is one request, and what it would have
                // said is worked out anew by the next process.
                let look = tokio::select! {
                    look = looks.next() => look,
                    () = shutdown.begun() => return Ok(()),
                };
                let Some((key, outcome)) = look else { break };
                match outcome {
                    Outcome::Nothing => pace.forget(&key),
                    Outcome::Written => pace.written(key, Instant::now()),
                    Outcome::TooEarly => {
                        pace.refused(key.clone(), Instant::now());
                        waiting.insert(key);
                    }
                    Outcome::Refused(error) => {
                        let pause = pace.refused(key.clone(), Instant::now());
                        say_refused(&key, &error, pause);
                        waiting.insert(key);
                    }
                }
            }
        }
    }

    /// Writes one resource's conditions, if they changed.
    async fn write(&self, key: &RuntimeKey, settled: Instant) -> Outcome {
        let Some(summary) = self.index.summary(key) else { return Outcome::Nothing };
        if self.index.is_written(key, &summary) {
            return Outcome::Nothing;
        }
        let early = !self.index.has_written(key) && Instant::now() < settled;
        match self.patch(key, &summary, early).await {
            Ok(false) => Outcome::TooEarly,
            Ok(true) => {
                self.index.written(key, summary);
                Outcome::Written
            }
            Err(kube::Error::Api(status)) if status.code == 404 => Outcome::Nothing,
            Err(error) => Outcome::Refused(error),
        }
    }

    /// Tells whether the summary is written; where it is early it may not be.
    async fn patch(
        &self,
        key: &RuntimeKey,
        summary: &Summary,
        early: bool,
    ) -> Result<bool, kube::Error> {
        let api = key.api(&self.client);
        let object = api.get_status(&key.name).await?;
        let before = object.status.map(|status| status.conditions).unwrap_or_default();
        let after = merge(&before, &summary.conditions, Timestamp::now());
        if after == before {
            return Ok(true);
        }
        if early && unsettles(&before, &after) {
            return Ok(false);
        }
        let patch = json!({
            // Written only over what was read.
            "metadata": {"resourceVersion": object.metadata.resource_version},
            "status": {"conditions": after},
        });
        api.patch_status(&key.name, &PatchParams::default(), &Patch::Merge(patch)).await?;
        let said = |old: &Condition, new: &Condition| {
            (&old.kind, &old.status, &old.reason) == (&new.kind, &new.status, &new.reason)
        };
        for new in after.iter().filter(|new| !before.iter().any(|old| said(old, new))) {
            tracing::info!(
                shoot = %key.shoot, name = key.name, condition = new.kind, status = new.status,
                reason = new.reason, "condition changed"
            );
        }
        Ok(true)
    }
}

fn say_refused(key: &RuntimeKey, error: &kube::Error, pause: Duration) {
    let (shoot, name, chain) = (&key.shoot, &key.name, Chain(error));
    // Others write the same status; the next look sees what they wrote.
    if is_conflict(error) {
        tracing::debug!(%shoot, name, error = %chain, ?pause, "conditions not written");
    } else {
        tracing::warn!(%shoot, name, error = %chain, ?pause, "conditions not written");
    }
}

/// Whether something that was True would become Progressing.
fn unsettles(before: &[Condition], after: &[Condition]) -> bool {
    let was_true = |kind: &str| before.iter().any(|old| old.kind == kind && old.status == "True");
    after.iter().any(|new| new.status == "Progressing" && was_true(&new.kind))
}

/// The conditions with their times; those of others stay as they are.
fn merge(before: &[Condition], ours: &[rollup::Condition], now: Timestamp) -> Vec<Condition> {
    // Kubernetes keeps whole seconds.
    let now = Timestamp::from_second(now.as_second()).unwrap_or(now);
    let mut after = before.to_vec();
    for condition in ours {
        let kind = condition.kind.as_str();
        let new = Condition {
            kind: kind.to_owned(),
            status: condition.status.as_str().to_owned(),
            last_transition_time: now,
            last_update_time: now,
            reason: condition.reason.clone(),
            message: condition.message.clone(),
            codes: Vec::new(),
            rest: serde_json::Map::new(),
        };
        let Some(old) = after.iter_mut().find(|old| old.kind == kind) else {
            after.push(new);
            continue;
        };
        if old.status != new.status {
            *old = new;
        } else if (&old.reason, &old.message) != (&new.reason, &new.message) {
            *old = Condition { last_transition_time: old.last_transition_time, ..new };
        }
    }
    after
}

#[cfg(test)]
mod tests {
    use rootstock_core::rollup::{ConditionStatus, ConditionType};

    use super::*;

    fn ours(status: ConditionStatus, message: &str) -> rollup::Condition {
        let kind = ConditionType::NodesReady;
        rollup::Condition { kind, status, reason: "R".into(), message: message.into() }
    }

    #[test]
    fn times_move_only_with_what_they_are_of() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let first = merge(&[], &[ours(ConditionStatus::True, "a")], at(1));
        let same = merge(&first, &[ours(ConditionStatus::True, "a")], at(2));
        assert_eq!(same, first);
        let message = merge(&first, &[ours(ConditionStatus::True, "b")], at(3));
        assert_eq!(message[0].last_transition_time, at(1));
        assert_eq!(message[0].last_update_time, at(3));
        let status = merge(&message, &[ours(ConditionStatus::False, "b")], at(4));
        assert_eq!(status[0].last_transition_time, at(4));
    }

    #[test]
    fn only_true_is_unsettled_by_progressing() {
        use ConditionStatus::{False, Progressing, True};
        let at = |status| merge(&[], &[ours(status, "a")], Timestamp::UNIX_EPOCH);
        assert!(unsettles(&at(True), &at(Progressing)));
        assert!(!unsettles(&at(True), &at(False)));
        assert!(!unsettles(&at(False), &at(Progressing)));
        assert!(!unsettles(&[], &at(Progressing)));
    }

    #[test]
    fn conditions_of_others_stay() {
        let mut other = merge(&[], &[ours(ConditionStatus::True, "a")], Timestamp::UNIX_EPOCH);
        other[0].kind = "Other".into();
        let after = merge(&other, &[ours(ConditionStatus::True, "a")], Timestamp::UNIX_EPOCH);
        assert_eq!(after.len(), 2);
        assert_eq!(after[0], other[0]);
    }
}
