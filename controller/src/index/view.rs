//! What others read from the index.

use std::collections::BTreeMap;
use std::time::Instant;

use kube::ResourceExt as _;
use rootstock_core::assign::{POOL_LABEL, Problem, Resolution, Verdict};
use rootstock_core::name::{Architecture, NodeName, ShootName};
use rootstock_core::rollup::{self, Condition, Connection, Input, NodeState};
use rootstock_core::status::Reason;
use serde::Serialize;

use super::claim::Runtime;
use super::shoot::Shoot;
use super::{Index, ShootState, State};
use crate::api::ContainerRuntime;

/// A ContainerRuntime by shoot and name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RuntimeKey {
    /// The shoot, which is the resource's namespace.
    pub shoot: ShootName,
    /// The resource's name.
    pub name: String,
}

impl RuntimeKey {
    /// The key of a resource. `None` where its namespace is none of a shoot.
    pub fn of(object: &ContainerRuntime) -> Option<Self> {
        let shoot = crate::home::shoot_of(&object.namespace()?)?;
        Some(Self { shoot, name: object.name_any() })
    }

    /// The resources beside it.
    pub(crate) fn api(&self, client: &kube::Client) -> kube::Api<ContainerRuntime> {
        crate::home::beside(client, &self.shoot)
    }
}

/// What the status of a ContainerRuntime should say.
#[derive(Clone, Debug, PartialEq)]
pub struct Summary {
    /// The resource's UID: what was written to one that is gone says nothing
    /// of another with its name.
    pub uid: Option<String>,
    /// Its conditions, without times.
    pub conditions: [Condition; 3],
}

/// Everything on one page, for the admin listener.
#[derive(Clone, Debug, Serialize)]
pub struct Page {
    /// What each type of the catalog stands for.
    pub bundles: Vec<BundleView>,
    /// Every node that a runtime is or was asked for.
    pub nodes: Vec<NodeView>,
}

/// What a type of the catalog stands for.
#[derive(Clone, Debug, Serialize)]
pub struct BundleView {
    /// The type.
    #[serde(rename = "type")]
    pub runtime: String,
    /// The reference in the catalog.
    pub reference: String,
    /// The digest for this machine's architecture, or else the first one.
    pub digest: Option<String>,
    /// The version.
    pub version: Option<String>,
    /// Why there is none.
    pub reason: Option<Reason>,
    /// What exactly.
    pub message: Option<String>,
}

/// Where a node is.
#[derive(Clone, Debug, Serialize)]
pub struct NodeView {
    /// The shoot.
    pub shoot: String,
    /// The node.
    pub name: String,
    /// Its worker pool.
    pub pool: Option<String>,
    /// Whether its agent is connected.
    pub connected: bool,
    /// The generation that it was last sent.
    pub generation: u64,
    /// Why it did not take it.
    pub refused: Option<String>,
    /// What it says of each bundle.
    pub bundles: Vec<serde_json::Value>,
}

impl Index {
    /// The ContainerRuntimes whose summary may have changed since the last call.
    pub fn take_dirty(&self) -> Vec<RuntimeKey> {
        std::mem::take(&mut self.lock().dirty).into_iter().collect()
    }

    /// Whether a summary is what was last written.
    pub fn is_written(&self, key: &RuntimeKey, summary: &Summary) -> bool {
        self.lock().written.get(key) == Some(summary)
    }

    /// A summary has been written.
    pub fn written(&self, key: &RuntimeKey, summary: Summary) {
        let mut state = self.lock();
        // It may be gone by now.
        let there =
            state.shoots.get(&key.shoot).is_some_and(|s| s.runtimes.contains_key(&key.name));
        if there {
            state.written.insert(key.clone(), summary);
        }
    }

    /// What a ContainerRuntime's status should say. `None` where it is gone or
    /// is being deleted: its end is the operation's business.
    pub fn summary(&self, key: &RuntimeKey) -> Option<Summary> {
        let state = self.lock();
        let shoot = state.shoots.get(&key.shoot)?;
        let runtime = shoot.runtimes.get(&key.name)?;
        // A shoot that leaves has its last word already.
        if runtime.deleting || !state.seed_listed || shoot.is_suspended() {
            return None;
        }
        let conditions = state.roll_up(shoot, runtime, &key.name);
        Some(Summary { uid: runtime.uid.clone(), conditions })
    }

    /// What is wrong with a ContainerRuntime itself, as far as it can be told
    /// without a registry or a node.
    pub fn problem(&self, object: &ContainerRuntime) -> Option<Problem> {
        let runtime = super::claim::read(object, &self.roots);
        self.lock().problem(&runtime)
    }

    /// The nodes that still have to confirm that a deleted ContainerRuntime's
    /// type is gone: those whose agent is connected, or may be back in a moment.
    ///
    /// `None` where it can't be told: the resource has not been seen in its
    /// present deletion state, or the shoot's nodes have not been listed.
    pub fn removal_pending(&self, key: &RuntimeKey, now: Instant) -> Option<Vec<NodeName>> {
        let state = self.lock();
        let shoot = state.shoots.get(&key.shoot)?;
        let runtime = shoot.runtimes.get(&key.name)?;
        let asleep = shoot.state == ShootState::Hibernated;
        if !runtime.deleting || !state.seed_listed || !(shoot.nodes_listed || asleep) {
            return None;
        }
        // A type that is none was never on a node.
        let Some(runtime) = runtime.runtime.as_ref() else { return Some(Vec::new()) };
        let owing = shoot.nodes.values().filter(|node| node.owes(runtime, now));
        Some(owing.map(|node| node.object.facts.name.clone()).collect())
    }

    /// The nodes that are away and had a deleted ContainerRuntime's type when
    /// they were last heard: they remove it when they are back.
    pub fn removal_unconfirmed(&self, key: &RuntimeKey) -> Vec<NodeName> {
        let state = self.lock();
        let Some(shoot) = state.shoots.get(&key.shoot) else { return Vec::new() };
        let runtime = shoot.runtimes.get(&key.name).and_then(|runtime| runtime.runtime.as_ref());
        let Some(runtime) = runtime else { return Vec::new() };
        let left = shoot.nodes.values().filter(|node| node.is_away_with(runtime));
        left.map(|node| node.object.facts.name.clone()).collect()
    }

    /// Whether a summary of a resource was written since the controller started.
    pub fn has_written(&self, key: &RuntimeKey) -> bool {
        self.lock().written.contains_key(key)
    }

    /// Everything on one page.
    pub fn page(&self) -> Page {
        let state = self.lock();
        let bundles = state.bundles.iter().map(|(runtime, resolution)| {
            let reference = state.references.get(runtime).cloned().unwrap_or_default();
            bundle_view(runtime.to_string(), reference, resolution)
        });
        let nodes = state.shoots.iter().flat_map(|(name, shoot)| node_views(name, shoot));
        Page { bundles: bundles.collect(), nodes: nodes.collect() }
    }
}

impl State {
    fn problem(&self, runtime: &Runtime) -> Option<Problem> {
        if let Some(problem) = &runtime.problem {
            return Some(problem.clone());
        }
        let name = runtime.runtime.as_ref()?;
        (!self.bundles.contains_key(name)).then(|| Problem::type_unknown(name))
    }

    fn roll_up(&self, shoot: &Shoot, runtime: &Runtime, name: &str) -> [Condition; 3] {
        let nodes: Vec<_> = shoot
            .nodes
            .values()
            .filter_map(|node| {
                let verdict = node.assignment.verdicts.get(name)?;
                let report = node
                    .reports
                    .iter()
                    .flatten()
                    .find(|report| Some(&report.runtime) == runtime.runtime.as_ref());
                let name = &node.object.facts.name;
                let refused = node.refused.as_ref().map(|(reason, why)| (*reason, why.as_str()));
                Some(NodeState { name, verdict, connection: node.connection, report, refused })
            })
            .collect();
        // It is said only where no node is selected, and looks at every node.
        let unlabelled = if nodes.is_empty() { shoot.matched_by(runtime) } else { Vec::new() };
        let invalid = self.problem(runtime);
        let bundle = self.bundle_in_words(runtime);
        let shoot = match &shoot.state {
            ShootState::Known => rollup::Shoot::Known,
            ShootState::Unknown => rollup::Shoot::Unknown,
            ShootState::Unreachable(why) => rollup::Shoot::Unreachable(why),
            ShootState::Hibernated => rollup::Shoot::Hibernated,
        };
        let bundle = bundle.as_deref();
        let invalid = invalid.as_ref();
        rollup::rollup(&Input { bundle, invalid, shoot, nodes: &nodes, unlabelled: &unlabelled })
    }

    fn bundle_in_words(&self, runtime: &Runtime) -> Result<String, Problem> {
        let resolution = runtime.runtime.as_ref().and_then(|name| self.bundles.get(name));
        match resolution {
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

fn in_words(
    architecture: Architecture,
    bundle: &Result<rootstock_core::assign::ResolvedBundle, Problem>,
) -> Option<String> {
    let bundle = bundle.as_ref().ok()?;
    let config = bundle.config.config();
    Some(format!(
        "{} {} for {architecture} is {}/{}@{}",
        config.runtime, config.version, bundle.registry, bundle.repository, bundle.digest
    ))
}

fn bundle_view(runtime: String, reference: String, resolution: &Resolution) -> BundleView {
    let mut view =
        BundleView { runtime, reference, digest: None, version: None, reason: None, message: None };
    match resolution {
        Resolution::Pending => {
            view.reason = Some(Reason::BundlePending);
            view.message = Some("it is being looked up".to_owned());
        }
        Resolution::Failed(problem) => {
            view.reason = Some(problem.reason);
            view.message = Some(problem.message.clone());
        }
        Resolution::Resolved(by_architecture) => {
            let own = Architecture::of_this_machine().and_then(|own| by_architecture.get(&own));
            let first = || by_architecture.values().find(|bundle| bundle.is_ok());
            if let Some(Ok(bundle)) = own.filter(|bundle| bundle.is_ok()).or_else(first) {
                view.digest = Some(bundle.digest.to_string());
                view.version = Some(bundle.config.config().version.clone());
            }
        }
    }
    view
}

fn node_views(name: &ShootName, shoot: &Shoot) -> Vec<NodeView> {
    let mut views = BTreeMap::new();
    for (node_name, node) in &shoot.nodes {
        if node.assignment.verdicts.is_empty() && node.reports.is_none() {
            continue;
        }
        let reports = node.reports.iter().flatten();
        // What is asked for and not heard of yet is there as waiting.
        let unheard = node.assignment.verdicts.iter().filter_map(|(claim, verdict)| {
            let runtime = shoot.runtimes.get(claim)?.runtime.as_ref()?;
            let heard = node.reports.iter().flatten().any(|r| r.runtime == *runtime);
            let mut view = serde_json::json!({"type": runtime, "phase": "Waiting"});
            if let Verdict::Held(problem) = verdict {
                view["reason"] = problem.reason.as_str().into();
                view["message"] = problem.message.clone().into();
            }
            (!heard).then_some(view)
        });
        let mut bundles: Vec<_> = reports.map(report_view).collect();
        bundles.extend(unheard);
        let view = NodeView {
            shoot: name.to_string(),
            name: node_name.to_string(),
            pool: node.object.facts.labels.get(POOL_LABEL).cloned(),
            connected: node.connection == Connection::Open,
            generation: node.generation().0,
            refused: node.refused.as_ref().map(|(reason, text)| format!("{reason}: {text}")),
            bundles,
        };
        views.insert(node_name, view);
    }
    views.into_values().collect()
}

fn report_view(report: &rootstock_core::status::BundleReport) -> serde_json::Value {
    serde_json::json!({
        "type": report.runtime,
        "digest": report.digest,
        "version": report.version,
        "phase": report.phase,
        "reason": report.reason,
        "message": report.message,
        "bytesDone": report.bytes_done,
        "bytesTotal": report.bytes_total,
        "bytesPulled": report.bytes_pulled,
        "handlers": report.handlers,
    })
}
