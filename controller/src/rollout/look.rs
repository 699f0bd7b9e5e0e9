//! One look at one shoot.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use rootstock_core::name::{NodeName, RuntimeType, ShootName};
use rootstock_core::rollout::record::{Command, Digests, UnknownCommand};
use rootstock_core::rollout::strategy::{Strategy, StrategySpec};
use rootstock_core::rollout::view::{Seed, Track, View};
use rootstock_core::rollout::{Permit, Step, step};
use rootstock_core::state::State;
use rootstock_daemon::error::Chain;

use super::Rollouts;
use super::due::Outcome;
use super::recorded::Recorded;
use crate::api::ContainerRuntime;
use crate::index::{Needed, Survey};

/// What somebody asks of a rollout.
pub(crate) const ROLLOUT: &str = "rootstock.gardener.cloud/rollout";

pub(super) type Objects = BTreeMap<String, Arc<ContainerRuntime>>;

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
        let seeds = self.seeds(shoot, &survey);
        let of_seed = |runtime: &RuntimeType| {
            seeds.get(runtime).map(|seed| seed.promoted.clone()).unwrap_or_default()
        };
        self.index.need(shoot, needed(&survey, &states, of_seed));
        let step = self.step(shoot, &survey, &objects, &states, &seeds, now);
        if !self.write(shoot, &objects, &step.states, recorded).await {
            return Outcome::Again;
        }
        if let Some(rings) = &self.rings {
            let sleeps = self.clusters.get(shoot).is_some_and(|cluster| cluster.is_hibernated());
            rings.see(shoot, sleeps, &survey, &step.progress);
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

    /// What the seed says of the shoot's types; nothing where there are no rings.
    fn seeds(&self, shoot: &ShootName, survey: &Survey) -> BTreeMap<RuntimeType, Seed> {
        let Some(rings) = &self.rings else { return BTreeMap::new() };
        let types: BTreeSet<_> = survey.tracks.values().map(|track| &track.runtime).collect();
        types.into_iter().map(|of| (of.clone(), rings.seed(of, shoot))).collect()
    }

    fn step(
        &self,
        shoot: &ShootName,
        survey: &Survey,
        objects: &Objects,
        states: &BTreeMap<String, State>,
        seeds: &BTreeMap<RuntimeType, Seed>,
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
        let tracks = survey.tracks.iter().map(|(name, track)| {
            let track = Track {
                runtime: &track.runtime,
                strategy: &strategies[name.as_str()],
                target: track.target.clone(),
                command: objects.get(name).and_then(|object| command(object)).and_then(Result::ok),
                deleting: track.deleting,
                seed: seeds.get(&track.runtime),
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
}

/// What somebody asks for.
pub(super) fn command(object: &ContainerRuntime) -> Option<Result<Command, UnknownCommand>> {
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
    let turns =
        nodes.filter(|(_, step)| step.first || matches!(step.permit, Some(Permit::Slot { .. })));
    turns.map(|(node, _)| node.name.clone()).collect()
}

/// The bundles that may be sent: what is promoted here, or where nothing is in
/// the seed; what is tried; and what has a slot, be it of a candidate before.
pub(super) fn needed(
    survey: &Survey,
    states: &BTreeMap<String, State>,
    of_seed: impl Fn(&RuntimeType) -> Digests,
) -> BTreeSet<Needed> {
    let mut needed = BTreeSet::new();
    for (name, state) in states {
        let Some(track) = survey.tracks.get(name) else { continue };
        let mut base = of_seed(&track.runtime);
        base.extend(&state.promoted);
        let tried = state.candidate.iter().flat_map(|candidate| candidate.digests.clone());
        let mut digests: BTreeSet<_> = base.into_iter().chain(tried).collect();
        for slot in &state.slots {
            if digests.iter().all(|(_, digest)| *digest != slot.digest) {
                let node = survey.nodes.iter().find(|node| node.uid == slot.node);
                let architecture = node.and_then(|node| node.architecture);
                digests.extend(architecture.map(|of| (of, slot.digest)));
            }
        }
        needed.extend(digests.into_iter().map(|(of, digest)| (track.runtime.clone(), of, digest)));
    }
    needed
}
