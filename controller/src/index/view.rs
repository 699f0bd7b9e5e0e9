//! What others read from the index.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use rootstock_core::assign::{POOL_LABEL, Problem, Resolution, Verdict};
use rootstock_core::name::{Architecture, NodeName, ShootName};
use rootstock_core::rollup::Connection;
use rootstock_core::status::Reason;
use serde::Serialize;

use super::claim::Runtime;
use super::shoot::Shoot;
use super::{Index, ShootState, State};
use crate::api::ContainerRuntime;
use crate::identity::NodeId;

/// A ContainerRuntime by shoot and name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RuntimeKey {
    /// The shoot: in a seed its name is that of the resource's namespace.
    pub shoot: ShootName,
    /// The resource's name.
    pub name: String,
}

impl RuntimeKey {
    /// The resources beside it.
    pub(crate) fn api(&self, client: &kube::Client) -> kube::Api<ContainerRuntime> {
        crate::home::beside(client, &self.shoot)
    }
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

    /// What is wrong with a ContainerRuntime itself, as far as it can be told
    /// without a node. Its settings can be wrong only when its bundle is known.
    pub fn problem(&self, object: &ContainerRuntime) -> Option<Problem> {
        let runtime = super::claim::read(object, &self.roots, self.how);
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

    /// The worker pool of a node, by its label.
    pub fn pool(&self, id: &NodeId) -> Option<Arc<str>> {
        let mut state = self.lock();
        let labels = &state.node(id)?.object.facts.labels;
        labels.get(POOL_LABEL).map(|pool| pool.as_str().into())
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
    pub(super) fn problem(&self, runtime: &Runtime) -> Option<Problem> {
        if let Some(problem) = &runtime.problem {
            return Some(problem.clone());
        }
        let name = runtime.runtime.as_ref()?;
        if !self.bundles.contains_key(name) {
            return Some(Problem::type_unknown(name));
        }
        self.settings_problem(runtime)
    }
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
        if node.assigned.verdicts.is_empty() && node.reports.as_ref().is_none_or(Vec::is_empty) {
            continue;
        }
        let reports = node.reports.iter().flatten();
        // What is asked for and not heard of yet is there as waiting.
        let unheard = node.assigned.verdicts.iter().filter_map(|(claim, verdict)| {
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
        "fetched": report.fetched,
        "sandboxes": report.sandboxes,
        "outdatedSandboxes": report.outdated_sandboxes,
    })
}
