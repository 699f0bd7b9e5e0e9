//! What follows from a look is written: states, and commands that were carried out.

use std::collections::BTreeMap;

use futures_util::future::join_all;
use kube::api::{Patch, PatchParams};
use rootstock_core::name::ShootName;
use rootstock_core::rollout::Progress;
use rootstock_core::state::State;
use rootstock_daemon::error::Chain;
use serde_json::{Value, json};

use super::Rollouts;
use super::look::{Objects, ROLLOUT, command};
use super::recorded::Recorded;
use crate::api::{ContainerRuntime, PATIENCE, WriteError, is_conflict, is_not_found};
use crate::events::Word;
use crate::index::RuntimeKey;
use crate::status::patch;

/// How often a state is written before the shoot is looked at anew: a status is
/// written once a second at most, so a second conflict is rare.
const TRIES: usize = 3;

impl Rollouts {
    /// Writes states, each over what was read. Tells whether all are written.
    pub(super) async fn write(
        &self,
        shoot: &ShootName,
        objects: &Objects,
        states: &BTreeMap<String, State>,
        recorded: &Recorded,
    ) -> bool {
        let writes = states.iter().map(async |(name, state)| {
            let Some(object) = objects.get(name) else { return false };
            self.write_one(shoot, object, name, state, recorded).await
        });
        join_all(writes).await.into_iter().all(|written| written)
    }

    /// Writes one state over what was read. Where somebody else wrote meanwhile,
    /// and the state is as it was, it is written over that.
    async fn write_one(
        &self,
        shoot: &ShootName,
        read: &ContainerRuntime,
        name: &str,
        state: &State,
        recorded: &Recorded,
    ) -> bool {
        let state = match serde_json::to_value(state) {
            Ok(state) => state,
            Err(error) => {
                tracing::error!(%shoot, name, error = %Chain(&error), "composing a state");
                return false;
            }
        };
        // What has gone from the state goes from the object too.
        let before = recorded_state(read);
        let diff = patch::diff(&json!({"state": before}), &json!({"state": state}));
        let Some(diff) = diff else { return true };
        let key = RuntimeKey { shoot: shoot.clone(), name: name.to_owned() };
        let api = key.api(&self.client);
        let mut version = read.metadata.resource_version.clone();
        for _ in 0..TRIES {
            let patch = Patch::Merge(over(version.as_deref(), json!({"status": diff})));
            let params = PatchParams::default();
            let written = tokio::time::timeout(PATIENCE, api.patch_status(name, &params, &patch));
            if self.note(&key, written.await, recorded).await {
                return true;
            }
            let Some(newest) = recorded.of_shoot(shoot).remove(name) else { return false };
            let same = newest.metadata.resource_version == version;
            if same || newest.metadata.uid != read.metadata.uid || recorded_state(&newest) != before
            {
                return false;
            }
            version.clone_from(&newest.metadata.resource_version);
        }
        false
    }

    /// Takes commands off that were carried out, or that nobody understands.
    /// Tells whether that is done.
    pub(super) async fn obey(
        &self,
        shoot: &ShootName,
        objects: &Objects,
        progress: &BTreeMap<String, Progress>,
        recorded: &Recorded,
    ) -> bool {
        let mut done = true;
        for (name, object) in objects {
            let Some(asked) = command(object) else { continue };
            let acted = progress.get(name).and_then(|progress| progress.acted);
            let (word, note) = match &asked {
                Ok(command) if acted == Some(*command) => {
                    (Word::RolloutCommand, format!("{command} is carried out"))
                }
                Ok(_) => continue,
                Err(unknown) => (Word::RolloutCommandRefused, format!("{ROLLOUT}: {unknown}")),
            };
            let newest = recorded.of_shoot(shoot);
            let Some(newest) = newest.get(name) else { continue };
            // Somebody asks for something else by now: that is looked at next.
            if command(newest).as_ref() != Some(&asked) {
                continue;
            }
            let version = newest.metadata.resource_version.as_deref();
            let patch = over(version, json!({"metadata": {"annotations": {ROLLOUT: null}}}));
            let key = RuntimeKey { shoot: shoot.clone(), name: name.clone() };
            let api = key.api(&self.client);
            let (params, patch) = (PatchParams::default(), Patch::Merge(patch));
            let written = api.patch(name, &params, &patch);
            if self.note(&key, tokio::time::timeout(PATIENCE, written).await, recorded).await {
                tracing::info!(%shoot, name, note, "rollout command");
                self.events.say(object, word, note);
            } else {
                done = false;
            }
        }
        done
    }

    /// Takes in what came of a write; tells whether it was done.
    async fn note(
        &self,
        key: &RuntimeKey,
        written: Result<Result<ContainerRuntime, kube::Error>, tokio::time::error::Elapsed>,
        recorded: &Recorded,
    ) -> bool {
        let (shoot, name) = (&key.shoot, key.name.as_str());
        let error: WriteError = match written {
            Ok(Ok(object)) => {
                recorded.put(object);
                return true;
            }
            // It is gone, and nothing of it is left to say.
            Ok(Err(error)) if is_not_found(&error) => return false,
            Ok(Err(error)) if is_conflict(&error) => {
                tracing::debug!(%shoot, name, "somebody else wrote the resource first");
                error.into()
            }
            Ok(Err(error)) => error.into(),
            Err(late) => late.into(),
        };
        if !matches!(&error, WriteError::Api(error) if is_conflict(error)) {
            tracing::warn!(%shoot, name, error = %Chain(&error), "rollout not recorded");
        }
        // What the API has by now is what counts: the next look begins with it.
        let api = key.api(&self.client);
        match tokio::time::timeout(PATIENCE, api.get(name)).await {
            Ok(Ok(object)) => recorded.put(object),
            Ok(Err(error)) => {
                tracing::debug!(%shoot, name, error = %Chain(&error), "a resource can't be read");
            }
            Err(late) => {
                tracing::debug!(%shoot, name, error = %Chain(&late), "a resource can't be read");
            }
        }
        false
    }
}

/// What is recorded of a rollout, as it was read.
fn recorded_state(object: &ContainerRuntime) -> Value {
    object.status.as_ref().and_then(|status| status.state.clone()).unwrap_or_default()
}

/// A patch that is taken only over the version that was read.
fn over(version: Option<&str>, mut patch: Value) -> Value {
    patch["metadata"]["resourceVersion"] = json!(version);
    patch
}
