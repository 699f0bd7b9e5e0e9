//! Writes what is summed up into the ContainerRuntimes' conditions.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use rootstock_core::rollup;
use rootstock_daemon::Shutdown;
use rootstock_daemon::error::Chain;
use serde_json::json;

use crate::api::{Condition, ContainerRuntime};
use crate::index::{Index, RuntimeKey, Summary};

/// Changes are gathered for so long: a node reports several times a second
/// while it pulls.
const GATHER: Duration = Duration::from_millis(200);
/// The pause after a refused write.
const RETRY: Duration = Duration::from_secs(1);
/// How many resources are written at once.
const AT_ONCE: usize = 8;

/// Writes conditions.
pub(crate) struct Conditions {
    pub(crate) client: Client,
    pub(crate) index: Arc<Index>,
}

impl Conditions {
    pub(crate) async fn run(self, shutdown: Shutdown) -> anyhow::Result<()> {
        let mut changes = self.index.changes();
        let mut pause = GATHER;
        loop {
            // Cancel-safe: what changed stays marked in the index.
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = shutdown.begun() => return Ok(()),
            }
            let failed = futures_util::stream::iter(self.index.take_dirty())
                .map(|key| self.write(key))
                .buffer_unordered(AT_ONCE)
                .filter_map(|failed| async { failed })
                .collect::<Vec<_>>()
                .await;
            if !failed.is_empty() {
                self.index.mark(failed);
                pause = RETRY;
                continue;
            }
            pause = GATHER;
            // Cancel-safe: a change is still seen by the next `changed`.
            tokio::select! {
                changed = changes.changed() => changed?,
                () = shutdown.begun() => return Ok(()),
            }
        }
    }

    /// Writes one resource's conditions, if they changed; gives its key back
    /// if that did not work.
    async fn write(&self, key: RuntimeKey) -> Option<RuntimeKey> {
        let summary = self.index.summary(&key)?;
        if self.index.is_written(&key, &summary) {
            return None;
        }
        match self.patch(&key, &summary).await {
            Ok(()) => {
                self.index.written(&key, summary);
                None
            }
            Err(kube::Error::Api(status)) if status.code == 404 => None,
            Err(error) => {
                tracing::debug!(shoot = %key.shoot, name = key.name, error = %Chain(&error), "writing conditions");
                Some(key)
            }
        }
    }

    async fn patch(&self, key: &RuntimeKey, summary: &Summary) -> Result<(), kube::Error> {
        let api: Api<ContainerRuntime> = Api::namespaced(self.client.clone(), key.shoot.as_str());
        let object = api.get_status(&key.name).await?;
        let before = object.status.map(|status| status.conditions).unwrap_or_default();
        let after = merge(&before, &summary.conditions, Timestamp::now());
        if after == before {
            return Ok(());
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
        Ok(())
    }
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
    fn conditions_of_others_stay() {
        let mut other = merge(&[], &[ours(ConditionStatus::True, "a")], Timestamp::UNIX_EPOCH);
        other[0].kind = "Other".into();
        let after = merge(&other, &[ours(ConditionStatus::True, "a")], Timestamp::UNIX_EPOCH);
        assert_eq!(after.len(), 2);
        assert_eq!(after[0], other[0]);
    }
}
