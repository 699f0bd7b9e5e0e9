//! What a shoot's rollouts are decided by, and what they let its nodes have.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use rootstock_core::assign::{POOL_LABEL, Resolution, ResolvedBundle, Turn, Turns};
use rootstock_core::digest::Digest;
use rootstock_core::name::{Architecture, NodeName, RuntimeType, ShootName, Uid};
use rootstock_core::rollout::record::Digests;
use rootstock_core::rollout::strategy::StrategySpec;
use rootstock_core::rollout::view::{Link, Node as NodeInView, OnNode, Said, Sandboxes};
use rootstock_core::rollout::{Give, NodeStep, Permit, Progress};
use rootstock_core::rollup::Connection;
use rootstock_core::status::BundleReport;

use super::claim::Runtime;
use super::node::{Node, RETURN};
use super::shoot::Shoot;
use super::{Index, State};

/// What a node's rollouts let it have and do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Course {
    pub(super) turns: Turns,
    pub(super) permit: Option<Permit>,
}

/// A bundle that a rollout may send.
pub(crate) type Needed = (RuntimeType, Architecture, Digest);

/// One shoot, as its rollouts see it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Survey {
    /// Whether all of it is known.
    pub(crate) complete: bool,
    /// How long those are waited for that come with a resource which is new.
    pub(crate) waits: Option<Duration>,
    /// Its ContainerRuntimes that name a type, by name.
    pub(crate) tracks: BTreeMap<String, TrackSurvey>,
    /// Its nodes.
    pub(crate) nodes: Vec<NodeSurvey>,
}

/// One ContainerRuntime.
#[derive(Clone, Debug)]
pub(crate) struct TrackSurvey {
    pub(crate) runtime: RuntimeType,
    /// What its own configuration says of how it is rolled out.
    pub(crate) strategy: Option<StrategySpec>,
    pub(crate) target: BTreeMap<Architecture, Option<Digest>>,
    pub(crate) deleting: bool,
}

/// One node.
#[derive(Clone, Debug)]
pub(crate) struct NodeSurvey {
    pub(crate) name: NodeName,
    pub(crate) uid: Uid,
    pool: String,
    pub(crate) architecture: Option<Architecture>,
    ready: bool,
    joining: bool,
    leaving: bool,
    link: Link,
    /// Whether it has said in this term what it has.
    heard: bool,
    /// By type, the resource that decides and what the node said.
    runtimes: Vec<(RuntimeType, String, Option<BundleReport>)>,
    /// By type, what became of sandboxes on the bundle that was said.
    sandboxes: BTreeMap<RuntimeType, Sandboxes>,
}

impl Survey {
    /// How many nodes of a resource are ready with these bundles, and how many
    /// pods' sandboxes were started on them.
    pub(crate) fn with(&self, track: &str, digests: &Digests) -> (usize, u64) {
        let of_them = |digest: Digest| digests.values().any(|of| *of == digest);
        let reports = self.nodes.iter().flat_map(|node| &node.runtimes);
        let of_track = reports.filter(|(_, of, _)| of == track).filter_map(|(.., r)| r.as_ref());
        let ready = of_track.filter(|r| r.phase.is_ready() && r.digest.is_some_and(of_them));
        ready.fold((0, 0), |(ready, started), report| {
            (ready + 1, started + u64::from(report.sandboxes))
        })
    }
}

impl NodeSurvey {
    /// The same as a rollout looks at it.
    pub(crate) fn in_view(&self) -> NodeInView<'_> {
        let runtimes = self.runtimes.iter().map(|(kind, track, report)| OnNode {
            track,
            report: report.as_ref().map(|report| Said {
                digest: report.digest,
                phase: report.phase,
                reason: report.reason,
                message: &report.message,
            }),
            fetched: report.as_ref().and_then(|report| report.fetched),
            // A node that needs none does not wait for a slot.
            restart: true,
            sandboxes: Sandboxes {
                started: report.as_ref().map_or(0, |report| u64::from(report.sandboxes)),
                ..self.sandboxes.get(kind).copied().unwrap_or_default()
            },
        });
        NodeInView {
            name: &self.name,
            uid: &self.uid,
            pool: &self.pool,
            architecture: self.architecture,
            ready: self.ready,
            joining: self.joining,
            leaving: self.leaving,
            link: self.link,
            runtimes: runtimes.collect(),
        }
    }

    /// What a step lets the node have and do. None where nobody has heard of it
    /// yet: what it has is not spoken of before.
    fn course(&self, step: &NodeStep) -> Option<Course> {
        if !self.heard && !self.joining {
            return None;
        }
        let turns = self.runtimes.iter().zip(&step.runtimes).map(|((runtime, ..), step)| {
            let give = match step.give {
                Give::Stay => None,
                Give::Promoted(digest) | Give::Candidate(digest) => Some(digest),
            };
            (runtime.clone(), Turn { give, prefetch: step.prefetch })
        });
        Some(Course { turns: turns.collect(), permit: step.permit })
    }
}

impl Index {
    /// One shoot, as its rollouts see it; none where it is not here, or leaves.
    pub(crate) fn survey(&self, name: &ShootName) -> Option<Survey> {
        let state = self.lock();
        let shoot = state.shoots.get(name).filter(|shoot| !shoot.is_suspended())?;
        // What is being looked up is known in a moment. Until then the types that
        // are known already would be activated by themselves: a restart for each.
        let pending = |runtime: &Runtime| {
            let of_it = runtime.runtime.as_ref().and_then(|kind| state.bundles.get(kind));
            !runtime.deleting && of_it == Some(&Resolution::Pending)
        };
        // Gardener makes the resources of a pool one after the other.
        let waits = shoot.came.and_then(|came| TOGETHER.checked_sub(came.elapsed()));
        let complete = waits.is_none()
            && state.seed_listed
            && shoot.nodes_listed
            && !shoot.waits_for_installer()
            && !shoot.runtimes.values().any(pending);
        let now = Instant::now();
        let tracks = shoot.runtimes.iter().filter_map(|(name, runtime)| {
            let kind = runtime.runtime.clone()?;
            let ask = runtime.claim.as_ref().and_then(|claim| claim.ask.as_ref().ok());
            let given = ask.and_then(|ask| ask.settings.as_ref().ok());
            let track = TrackSurvey {
                strategy: given.and_then(|given| given.strategy.clone()),
                target: target(state.bundles.get(&kind)),
                deleting: runtime.deleting,
                runtime: kind,
            };
            Some((name.clone(), track))
        });
        let tracks = tracks.collect();
        let begun = state.begun;
        let nodes = shoot.nodes.values().map(|node| survey(node, begun, now)).collect();
        Some(Survey { complete, waits, tracks, nodes })
    }

    /// Lets the nodes of a shoot have and do what a step says of each, in the
    /// order of the survey that it was made of; and keeps how far it is.
    pub(crate) fn direct(
        &self,
        name: &ShootName,
        survey: &Survey,
        nodes: &[NodeStep],
        progress: BTreeMap<String, Progress>,
    ) {
        let mut state = self.lock();
        let Some(shoot) = state.shoots.get_mut(name).filter(|shoot| !shoot.is_suspended()) else {
            return;
        };
        let mut turned = Vec::new();
        for (seen, step) in survey.nodes.iter().zip(nodes) {
            let Some(course) = seen.course(step) else { continue };
            let node = shoot.nodes.get_mut(&seen.name).filter(|node| node.object.uid == seen.uid);
            if let Some(node) = node.filter(|node| node.course.as_ref() != Some(&course)) {
                node.course = Some(course);
                turned.push(seen.name.clone());
            }
        }
        let same = shoot.progress == progress;
        shoot.progress = progress;
        if turned.is_empty() && same {
            return;
        }
        state.assign_some(name, &turned);
        self.raise();
    }

    /// How far the rollouts of a shoot are.
    #[cfg(test)]
    pub(crate) fn put_progress(&self, name: &ShootName, progress: BTreeMap<String, Progress>) {
        self.change(name, |shoot| shoot.progress = progress);
    }

    /// Which bundles a shoot's rollouts may send, beside those that the catalog names.
    pub(crate) fn need(&self, name: &ShootName, needed: BTreeSet<Needed>) {
        let mut state = self.lock();
        let Some(shoot) = state.shoots.get_mut(name) else { return };
        if shoot.needed == needed {
            return;
        }
        shoot.needed = needed;
        let open = state.open_bundles();
        drop(state);
        self.needed.send_if_modified(|known| {
            let new = *known != open;
            *known = open;
            new
        });
    }

    /// Sees which bundles are needed and not known, from here on.
    pub(crate) fn needed(&self) -> tokio::sync::watch::Receiver<BTreeSet<Needed>> {
        self.needed.subscribe()
    }

    /// A bundle that was needed is known.
    pub(crate) fn put_bundle(&self, runtime: RuntimeType, bundle: ResolvedBundle) {
        self.lock().known.insert((runtime, bundle.digest), bundle);
        self.change_all();
    }

    /// Every shoot that is known.
    pub(crate) fn shoots(&self) -> Vec<(ShootName, u64)> {
        let state = self.lock();
        state.shoots.iter().map(|(name, shoot)| (name.clone(), shoot.changed)).collect()
    }
}

impl State {
    /// Takes the bundles of the catalog in, and forgets those that nobody needs.
    pub(super) fn know_bundles(&mut self) {
        let needed: BTreeSet<_> = self
            .shoots
            .values()
            .flat_map(|shoot| &shoot.needed)
            .map(|(runtime, _, digest)| (runtime.clone(), *digest))
            .collect();
        self.known.retain(|key, _| needed.contains(key));
        for (runtime, resolution) in &self.bundles {
            let Resolution::Resolved(by_architecture) = resolution else { continue };
            for bundle in by_architecture.values().flatten() {
                self.known.insert((runtime.clone(), bundle.digest), bundle.clone());
            }
        }
    }

    /// The bundles that are needed and not known.
    fn open_bundles(&self) -> BTreeSet<Needed> {
        let needed = self.shoots.values().flat_map(|shoot| &shoot.needed);
        let open = needed
            .filter(|(runtime, _, digest)| !self.known.contains_key(&(runtime.clone(), *digest)));
        open.cloned().collect()
    }
}

impl Shoot {
    /// What every node has by its rollouts is not known any more.
    pub(super) fn forget_courses(&mut self) {
        self.nodes.values_mut().for_each(|node| node.course = None);
        self.progress.clear();
    }
}

fn survey(node: &Node, begun: Option<Instant>, now: Instant) -> NodeSurvey {
    let facts = &node.object.facts;
    let stay = node.object.stay;
    let said = |runtime: &RuntimeType| {
        node.reports.iter().flatten().find(|report| report.runtime == *runtime).cloned()
    };
    let tracks = node.assigned.tracks.iter();
    let runtimes: Vec<_> =
        tracks.map(|(kind, track)| (kind.clone(), track.clone(), said(kind))).collect();
    let sandboxes = runtimes
        .iter()
        .map(|(kind, _, report)| (kind.clone(), node.sandboxes(kind, report.as_ref(), now)));
    NodeSurvey {
        name: facts.name.clone(),
        uid: node.object.uid.clone(),
        pool: facts.labels.get(POOL_LABEL).cloned().unwrap_or_default(),
        architecture: facts.architecture,
        ready: stay.ready,
        joining: stay.joining,
        leaving: stay.leaving,
        link: link(node, begun, now),
        heard: node.reports.is_some(),
        sandboxes: sandboxes.collect(),
        runtimes,
    }
}

/// A course by which a node has what it is to have in the end.
#[cfg(test)]
pub(super) fn at_once(
    node: &rootstock_core::assign::NodeFacts,
    bundles: &BTreeMap<RuntimeType, Resolution>,
    basis: super::alike::Basis<'_>,
) -> Course {
    let all = rootstock_core::assign::assign(node, basis.claims, bundles, basis.registries);
    let mut turns: Turns = all.tracks.keys().map(|kind| (kind.clone(), Turn::default())).collect();
    for bundle in &all.content.bundles {
        let turn = Turn { give: Some(bundle.digest), prefetch: None };
        turns.insert(bundle.runtime().clone(), turn);
    }
    Course { turns, permit: None }
}

/// How long a resource that is new waits for others: what comes together is
/// activated together.
const TOGETHER: Duration = Duration::from_secs(1);

/// How long a node that was known is waited for: from the begin of the term, or
/// from when its shoot was first listed in it.
pub(crate) const AWAITED: Duration = RETURN;

pub(super) fn link(node: &Node, begun: Option<Instant>, now: Instant) -> Link {
    let lost = Link::Away { was_ready: !node.object.stay.joining };
    match node.connection {
        Connection::Open if node.reports.is_some() => Link::Here,
        // A rollout waits for whom it awaits: not for ever for one that hangs.
        Connection::Open if node.is_mute(now) => lost,
        Connection::Open => Link::Awaited,
        Connection::Lost => lost,
        Connection::Never | Connection::Missing => {
            match begun.and_then(|begun| node.is_due_back_since(begun)) {
                Some(since) if now.saturating_duration_since(since) < AWAITED => Link::Awaited,
                Some(_) => lost,
                // One that is marked for the agent since is not expected to
                // have anything.
                None => Link::Away { was_ready: false },
            }
        }
    }
}

fn target(resolution: Option<&Resolution>) -> BTreeMap<Architecture, Option<Digest>> {
    let Some(Resolution::Resolved(by_architecture)) = resolution else { return BTreeMap::new() };
    let known = by_architecture.iter();
    known.filter_map(|(of, bundle)| Some((*of, Some(bundle.as_ref().ok()?.digest)))).collect()
}
