//! What the status of a ContainerRuntime should say.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use rootstock_core::assign::{Problem, Resolution, ResolvedBundle, Verdict};
use rootstock_core::digest::Digest;
use rootstock_core::name::{Architecture, NodeName, Uid};
use rootstock_core::rollout::Progress;
use rootstock_core::rollup::{self, Condition, Input, NodeState, Tally};
use rootstock_core::status::{Phase, Reason};

use super::claim::Runtime;
use super::node::Node;
use super::shoot::Shoot;
use super::{Index, RuntimeKey, ShootState, State};

/// How many of the slowest nodes are named.
const SLOWEST: usize = 5;

/// How often the bytes of a rollout are said anew while they come.
const BYTES: Duration = Duration::from_secs(10);

/// What the status of a ContainerRuntime should say.
#[derive(Clone, Debug, PartialEq)]
pub struct Summary {
    /// The resource's UID.
    pub uid: Option<String>,
    /// Its conditions, without times.
    pub conditions: [Condition; 3],
    /// What its type stands for; none while that is not known.
    pub bundle: Option<ResolvedView>,
    /// How many nodes are selected.
    pub selected: usize,
    /// How many have the runtime.
    pub ready: usize,
    /// How many nodes are in each phase.
    pub phases: BTreeMap<Phase, usize>,
    /// How many sandboxes run on another bundle than their node has by now.
    pub outdated_sandboxes: u64,
    /// How many nodes each reason stops, with the first names.
    pub stopped: BTreeMap<Reason, (usize, String)>,
    /// The nodes that have been without the runtime for longest.
    pub slowest: Vec<Slow>,
    /// How far its rollout is; none before it was looked at.
    pub rollout: Option<Progress>,
    /// Bytes of the bundle that are on its nodes' disks, and that are to be.
    pub bytes: (u64, u64),
    /// The names of the nodes that it speaks of.
    pub named: BTreeMap<Uid, NodeName>,
    /// After how long it says something else though nothing has changed.
    pub look_again: Option<Duration>,
    /// Whether all of it has been heard of since the controller started.
    pub complete: bool,
}

/// What a type stands for.
#[derive(Clone, Debug, PartialEq)]
pub struct ResolvedView {
    /// The reference in the catalog.
    pub reference: String,
    /// The version.
    pub version: String,
    /// The digests, by architecture; none where there is no bundle for it now.
    pub digests: BTreeMap<Architecture, Option<Digest>>,
}

/// A node that does not have the runtime.
#[derive(Clone, Debug, PartialEq)]
pub struct Slow {
    /// Its name.
    pub name: NodeName,
    /// Where it is.
    pub phase: Phase,
    /// Why it is no further.
    pub reason: Option<Reason>,
    /// Since when it does not have it, in whole seconds.
    pub since: Timestamp,
}

impl Index {
    /// What a ContainerRuntime's status should say. `None` where it is gone or
    /// is being deleted: its end is the operation's business.
    pub fn summary(&self, key: &RuntimeKey) -> Option<Summary> {
        // Kubernetes keeps whole seconds.
        let now = Timestamp::from_second(Timestamp::now().as_second()).unwrap_or_default();
        let mut state = self.lock();
        let before = state.unready.remove(key).unwrap_or_default();
        let shoot = state.shoots.get(&key.shoot)?;
        let runtime = shoot.runtimes.get(&key.name)?;
        // A shoot that leaves has its last word already.
        if runtime.deleting || !state.seed_listed || shoot.is_suspended() {
            return None;
        }
        let (summary, unready) = state.sum_up(shoot, runtime, &key.name, &before, now);
        if !unready.is_empty() {
            state.unready.insert(key.clone(), unready);
        }
        Some(summary)
    }
}

type Since = BTreeMap<NodeName, Timestamp>;

impl State {
    /// The summary, and since when its nodes have not been ready.
    fn sum_up(
        &self,
        shoot: &Shoot,
        runtime: &Runtime,
        name: &str,
        before: &Since,
        now: Timestamp,
    ) -> (Summary, Since) {
        let (clock, mut look_again) = (Instant::now(), None);
        let nodes: Vec<_> = shoot
            .nodes
            .values()
            .filter_map(|node| {
                let verdict = node.assigned.verdicts.get(name)?;
                let report = node
                    .reports
                    .iter()
                    .flatten()
                    .find(|report| Some(&report.runtime) == runtime.runtime.as_ref());
                let name = &node.object.facts.name;
                let refused = node.refused.as_ref().map(|(reason, why)| (*reason, why.as_str()));
                let (connection, left) = node.arrival(clock);
                look_again = look_again.into_iter().chain(left).min();
                Some(NodeState { name, verdict, connection, report, refused })
            })
            .collect();
        let reports = nodes.iter().filter_map(|node: &NodeState<'_>| node.report);
        let outdated = reports.map(|report| u64::from(report.outdated_sandboxes)).sum();
        let bytes = nodes
            .iter()
            .map(bytes_of)
            .fold((0, 0), |(done, all), of: (u64, u64)| (done + of.0, all + of.1));
        // It is said only where no node is selected, and looks at every node.
        let unlabelled = if nodes.is_empty() { shoot.matched_by(runtime) } else { Vec::new() };
        let (progress, shoot_nodes) = (shoot.progress.get(name), &shoot.nodes);
        let invalid = self.problem(runtime);
        let bundle = self.bundle_in_words(runtime);
        if progress.is_some_and(|of| of.left > 0 || of.in_flight > 0) && bytes.0 < bytes.1 {
            look_again = look_again.into_iter().chain([BYTES]).min();
        }
        let shoot = match &shoot.state {
            ShootState::Known => rollup::Shoot::Known,
            ShootState::Unknown => rollup::Shoot::Unknown,
            ShootState::Unreachable(why) => rollup::Shoot::Unreachable(why),
            ShootState::Hibernated => rollup::Shoot::Hibernated,
        };
        let input = Input {
            bundle: bundle.as_deref(),
            invalid: invalid.as_ref(),
            shoot,
            nodes: &nodes,
            rollout: progress,
            unlabelled: &unlabelled,
        };
        let rollup::Rollup { conditions, nodes } = rollup::rollup(&input);
        let since = |name: &NodeName| before.get(name).copied().unwrap_or(now);
        let unready: Since =
            nodes.unready.iter().map(|node| (node.name.clone(), since(node.name))).collect();
        let stopped = nodes.stopped().map(|(reason, count, names)| (reason, (count, names)));
        let summary = Summary {
            uid: runtime.uid.clone(),
            conditions,
            bundle: self.bundle_view(runtime),
            selected: nodes.selected,
            ready: nodes.ready,
            stopped: stopped.collect(),
            outdated_sandboxes: outdated,
            slowest: slowest(&nodes, since),
            named: named(progress, shoot_nodes),
            rollout: progress.cloned(),
            bytes,
            look_again,
            complete: nodes.complete,
            phases: nodes.phases,
        };
        (summary, unready)
    }

    fn resolution(&self, runtime: &Runtime) -> Option<&Resolution> {
        self.bundles.get(runtime.runtime.as_ref()?)
    }

    fn bundle_view(&self, runtime: &Runtime) -> Option<ResolvedView> {
        let Resolution::Resolved(by_architecture) = self.resolution(runtime)? else { return None };
        let version = by_architecture.values().find_map(|bundle| bundle.as_ref().ok())?;
        let version = version.config.config().version.clone();
        let digests = by_architecture.iter();
        let digests = digests.map(|(a, bundle)| (*a, bundle.as_ref().ok().map(|b| b.digest)));
        let reference = self.references.get(runtime.runtime.as_ref()?).cloned().unwrap_or_default();
        Some(ResolvedView { reference, version, digests: digests.collect() })
    }

    fn bundle_in_words(&self, runtime: &Runtime) -> Result<String, Problem> {
        match self.resolution(runtime) {
            None => Err(self
                .problem(runtime)
                .unwrap_or_else(|| Problem::new(Reason::TypeUnknown, "the type is unknown"))),
            Some(Resolution::Pending) => {
                Err(Problem::new(Reason::BundlePending, "the bundle is being looked up"))
            }
            Some(Resolution::Failed(problem)) => Err(problem.clone()),
            Some(Resolution::Resolved(by_architecture)) => {
                let (has, lacks): (Vec<_>, Vec<_>) =
                    by_architecture.iter().partition(|(_, bundle)| bundle.is_ok());
                if has.is_empty() {
                    let problem = lacks.into_iter().find_map(|(_, bundle)| bundle.as_ref().err());
                    return Err(problem.cloned().unwrap_or_else(|| {
                        Problem::new(Reason::BundleInvalid, "the bundle is for no architecture")
                    }));
                }
                Ok(has.iter().filter_map(|(a, b)| in_words(**a, b)).collect::<Vec<_>>().join("; "))
            }
        }
    }
}

/// How many bytes a node has of what it is to have in the end, and of how many.
fn bytes_of(node: &NodeState<'_>) -> (u64, u64) {
    let (Verdict::Wanted(wanted), Some(report)) = (node.verdict, node.report) else {
        return (0, 0);
    };
    let all = report.bytes_total;
    match () {
        () if report.fetched == Some(*wanted) => (all, all),
        () if report.digest == Some(*wanted) => (report.bytes_done, all),
        // What comes ahead of what it has is about as large.
        () => (0, all),
    }
}

/// The names of the nodes that a rollout speaks of by their UID.
fn named(progress: Option<&Progress>, nodes: &BTreeMap<NodeName, Node>) -> BTreeMap<Uid, NodeName> {
    let Some(progress) = progress else { return BTreeMap::new() };
    let failed = progress.failures.iter().map(|failure| &failure.node);
    let spoken: BTreeSet<_> = failed.chain(progress.held_nodes.iter().map(|(of, _)| of)).collect();
    if spoken.is_empty() {
        return BTreeMap::new();
    }
    let of_them = nodes.iter().filter(|(_, node)| spoken.contains(&node.object.uid));
    of_them.map(|(name, node)| (node.object.uid.clone(), name.clone())).collect()
}

/// The nodes that have waited longest, in that order.
fn slowest(nodes: &Tally<'_>, since: impl Fn(&NodeName) -> Timestamp) -> Vec<Slow> {
    let mut all: Vec<_> = nodes.unready.iter().map(|node| (since(node.name), node)).collect();
    // They are in the order of their names already.
    all.sort_by_key(|(since, _)| *since);
    let first = all.into_iter().take(SLOWEST);
    let slow = |(since, node): (Timestamp, &rollup::Unready<'_>)| Slow {
        name: node.name.clone(),
        phase: node.phase,
        reason: node.reason,
        since,
    };
    first.map(slow).collect()
}

fn in_words(
    architecture: Architecture,
    bundle: &Result<ResolvedBundle, Problem>,
) -> Option<String> {
    let bundle = bundle.as_ref().ok()?;
    let config = bundle.config.config();
    Some(format!(
        "{} {} for {architecture} is {}/{}@{}",
        config.runtime, config.version, bundle.registry, bundle.repository, bundle.digest
    ))
}
