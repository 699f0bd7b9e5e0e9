//! One look at one shoot.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use rootstock_core::name::{NodeName, ShootName};
use rootstock_core::rollout::record::{Command, UnknownCommand};
use rootstock_core::rollout::strategy::{Strategy, StrategySpec};
use rootstock_core::rollout::view::{Seed, Track, View};
use rootstock_core::rollout::{Permit, Progress, Step, step};
use rootstock_core::state::State;
use rootstock_daemon::error::Chain;
use serde_json::{Value, json};

use super::due::Outcome;
use super::recorded::Recorded;
use super::{PATIENCE, Rollouts};
use crate::api::{ContainerRuntime, is_conflict, is_not_found};
use crate::events::Word;
use crate::index::{Needed, RuntimeKey, Survey};

/// What somebody asks of a rollout.
pub(crate) const ROLLOUT: &str = "rootstock.gardener.cloud/rollout";

type Objects = BTreeMap<String, Arc<ContainerRuntime>>;

/// Why something is not written.
#[derive(Debug, thiserror::Error)]
enum WriteError {
    #[error("the API refused it")]
    Api(#[from] kube::Error),
    /// It may have been written.
    #[error("the API did not answer within {PATIENCE:?}")]
    Late(#[from] tokio::time::error::Elapsed),
}

impl Rollouts {
    /// Looks at a shoot, and does what follows.
    pub(super) async fn look(&self, shoot: &ShootName, recorded: &Recorded) -> Outcome {
        let Some(survey) = self.index.survey(shoot) else {
            if let Some(rings) = &self.rings {
                rings.forget(shoot);
            }
            return Outcome::Done(None);
        };
        let objects = recorded.of_shoot(shoot);
        let states = states(shoot, &objects);
        let now = Timestamp::now();
        self.index.need(shoot, needed(&survey, &states));
        let step = self.step(shoot, &survey, &objects, &states, now);
        if !self.write(shoot, &objects, &step.states, recorded).await {
            return Outcome::Again;
        }
        if let Some(rings) = &self.rings {
            rings.see(shoot, &survey, &step.progress);
        }
        let done = self.obey(shoot, &objects, &step.progress, recorded).await;
        let next = step.next.map(|next| {
            Duration::try_from(next.duration_since(Timestamp::now())).unwrap_or_default()
        });
        let next = next.into_iter().chain(survey.waits).min();
        self.bandwidth.set_canaries(shoot, waited_for(&survey, &step));
        self.index.direct(shoot, &survey, &step.nodes, step.progress);
        if done { Outcome::Done(next) } else { Outcome::Again }
    }

    fn step(
        &self,
        shoot: &ShootName,
        survey: &Survey,
        objects: &Objects,
        states: &BTreeMap<String, State>,
        now: Timestamp,
    ) -> Step {
        let catalog = Arc::clone(&self.catalog.borrow());
        let cluster = self.clusters.get(shoot);
        let maintenance = cluster.and_then(|cluster| cluster.maintenance());
        let strategies: BTreeMap<&str, Strategy> = survey
            .tracks
            .iter()
            .map(|(name, track)| {
                let entry = catalog.runtime(&track.runtime);
                let of_catalog = entry.and_then(|entry| entry.strategy.as_ref());
                let over = |base: Strategy, spec: Option<&StrategySpec>| match spec {
                    Some(spec) => spec.over(&base),
                    None => base,
                };
                let base = over(Strategy::default(), of_catalog);
                (name.as_str(), over(base, track.strategy.as_ref()))
            })
            .collect();
        let seeds: BTreeMap<&str, Seed> = match &self.rings {
            Some(rings) => survey
                .tracks
                .iter()
                .map(|(name, track)| (name.as_str(), rings.seed(&track.runtime, shoot)))
                .collect(),
            None => BTreeMap::new(),
        };
        let tracks = survey.tracks.iter().map(|(name, track)| {
            let track = Track {
                runtime: &track.runtime,
                strategy: &strategies[name.as_str()],
                target: track.target.clone(),
                command: objects.get(name).and_then(|object| command(object)).and_then(Result::ok),
                deleting: track.deleting,
                seed: seeds.get(name.as_str()),
            };
            (name.as_str(), track)
        });
        let view = View {
            complete: survey.complete,
            frozen: catalog.frozen,
            maintenance: maintenance.as_ref(),
            tracks: tracks.collect(),
            nodes: survey.nodes.iter().map(crate::index::NodeSurvey::in_view).collect(),
        };
        step(&view, states, now)
    }

    /// Writes states, each over what was read. Tells whether all are written.
    async fn write(
        &self,
        shoot: &ShootName,
        objects: &Objects,
        states: &BTreeMap<String, State>,
        recorded: &Recorded,
    ) -> bool {
        let writes = states.iter().map(async |(name, state)| {
            let Some(object) = objects.get(name) else { return false };
            let state = match serde_json::to_value(state) {
                Ok(state) => state,
                Err(error) => {
                    tracing::error!(%shoot, name, error = %Chain(&error), "composing a state");
                    return false;
                }
            };
            // What has gone from the state goes from the object too.
            let before = object.status.as_ref().and_then(|status| status.state.clone());
            let diff = crate::status::patch::diff(
                &json!({"state": before.unwrap_or_default()}),
                &json!({"state": state}),
            );
            let Some(diff) = diff else { return true };
            let patch = over(object, json!({"status": diff}));
            let key = RuntimeKey { shoot: shoot.clone(), name: name.clone() };
            let api = key.api(&self.client);
            let (params, patch) = (PatchParams::default(), Patch::Merge(patch));
            let written = api.patch_status(name, &params, &patch);
            self.note(&key, tokio::time::timeout(PATIENCE, written).await, recorded).await
        });
        join_all(writes).await.into_iter().all(|written| written)
    }

    /// Takes commands off that were carried out, or that nobody understands.
    /// Tells whether that is done.
    async fn obey(
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
            let (word, note) = match asked {
                Ok(command) if acted == Some(command) => {
                    (Word::RolloutCommand, format!("{command} is carried out"))
                }
                Ok(_) => continue,
                Err(unknown) => (Word::RolloutCommandRefused, format!("{ROLLOUT}: {unknown}")),
            };
            let newest = recorded.of_shoot(shoot);
            let Some(newest) = newest.get(name) else { continue };
            let patch = over(newest, json!({"metadata": {"annotations": {ROLLOUT: null}}}));
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

/// A patch that is taken only over what was read.
fn over(object: &ContainerRuntime, mut patch: Value) -> Value {
    patch["metadata"]["resourceVersion"] = json!(object.metadata.resource_version);
    patch
}

/// What somebody asks for.
fn command(object: &ContainerRuntime) -> Option<Result<Command, UnknownCommand>> {
    object.metadata.annotations.as_ref()?.get(ROLLOUT).map(|word| word.parse())
}

/// The states that can be read. One that is about to come with the shoot from
/// another seed is not there yet.
fn states(shoot: &ShootName, objects: &Objects) -> BTreeMap<String, State> {
    let read = objects.iter().filter_map(|(name, object)| {
        if matches!(object.asked(), Some("migrate" | "restore" | "wait-for-state")) {
            return None;
        }
        let state = object.status.as_ref().and_then(|status| status.state.as_ref());
        match State::parse(state) {
            Ok(state) => Some((name.clone(), state)),
            Err(error) => {
                tracing::debug!(%shoot, name, error = %Chain(&error), "a state is left as it is");
                None
            }
        }
    });
    read.collect()
}

/// The nodes that a rollout waits for: each may restart containerd as soon as
/// it has its bytes, and nobody else gets its slot meanwhile.
fn waited_for(survey: &Survey, step: &Step) -> BTreeSet<NodeName> {
    let nodes = survey.nodes.iter().zip(&step.nodes);
    let slots = nodes.filter(|(_, step)| matches!(step.permit, Some(Permit::Slot { .. })));
    slots.map(|(node, _)| node.name.clone()).collect()
}

/// The bundles that may be sent: what is promoted, tried, or has a slot.
fn needed(survey: &Survey, states: &BTreeMap<String, State>) -> BTreeSet<Needed> {
    let mut needed = BTreeSet::new();
    for (name, state) in states {
        let Some(track) = survey.tracks.get(name) else { continue };
        let tried = state.candidate.iter().flat_map(|candidate| &candidate.digests);
        for (architecture, digest) in state.promoted.iter().chain(tried) {
            needed.insert((track.runtime.clone(), *architecture, *digest));
        }
    }
    needed
}
