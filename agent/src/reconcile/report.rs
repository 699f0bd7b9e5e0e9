//! What the node says of itself.

mod stays;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rootstock_core::desired::{DesiredBundle, DesiredContent, Generation};
use rootstock_core::digest::Digest;
use rootstock_core::layout::{HandlerTable, TreeId};
use rootstock_core::name::{HandlerName, RuntimeType};
use rootstock_core::plan::{Outlook, Plan};
use rootstock_core::status::{BundleReport, Phase, Reason};
use tokio::sync::watch;

use super::Refused;
use super::failure::{Failure, Failures};
use super::observe::Seen;
use crate::install::Progress;
use crate::store::Drift;

/// Pods that a message names before it counts the rest.
const NAMED_PODS: usize = 5;

/// What a bundle says that waits for a slot.
const QUEUED: &str = "waits for its turn to restart containerd";

/// Why something is not done, though it is to be.
#[derive(Clone, Copy)]
pub(super) struct Waiting<'a> {
    /// What this node does not take.
    pub(super) refused: &'a Refused,
    /// What waits for a slot.
    pub(super) queued: &'a BTreeSet<RuntimeType>,
    /// What failed.
    pub(super) failures: &'a Failures,
    /// What failed of that which comes ahead.
    pub(super) ahead: &'a Failures,
    /// What is on its way, and how many bytes of it are here.
    pub(super) coming: &'a BTreeMap<TreeId, u64>,
}

impl Waiting<'_> {
    /// How many bytes are here of a bundle that is on its way.
    fn coming(&self, bundle: &DesiredBundle) -> Option<u64> {
        let of_it = |id: &&TreeId| id.runtime == *bundle.runtime() && id.digest == bundle.digest;
        let here = |id: &TreeId| id.binary_path == bundle.binary_path;
        self.coming.iter().find(|(id, _)| of_it(id) && here(id)).map(|(_, done)| *done)
    }
}

/// What a pull says that may not come yet.
const WAITS: &str = "waits for its share of the bandwidth";

/// Where every bundle is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeReport {
    /// The generation that this is about.
    pub generation: Generation,
    /// By type.
    pub bundles: BTreeMap<RuntimeType, BundleReport>,
    /// The pods that keep a type from being taken away.
    pub in_use: BTreeMap<RuntimeType, Vec<String>>,
    /// containerd's version; empty while it is not known.
    pub containerd_version: String,
    /// What is on the node, also of types that are not desired; whether a table names it.
    pub installed: Vec<(RuntimeType, Digest, bool)>,
    /// What others changed and this agent put right.
    pub drift: Drift,
    /// Whether nothing more is to be done now, for better or worse.
    pub settled: bool,
}

/// The reports: the latest counts, nobody waits for who reads them.
#[derive(Clone, Debug)]
pub struct Reports(Arc<watch::Sender<NodeReport>>);

impl Default for Reports {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(NodeReport::default())))
    }
}

impl Reports {
    /// The report, and each time that it changes.
    pub fn watch(&self) -> watch::Receiver<NodeReport> {
        self.0.subscribe()
    }

    /// Says this, whatever was said before.
    #[cfg(test)]
    pub(crate) fn say(&self, report: NodeReport) {
        self.0.send_replace(report);
    }

    /// How everything stands, after a look at the node.
    pub(super) fn outlook(
        &self,
        generation: Generation,
        plan: &Plan,
        content: &DesiredContent,
        seen: &Seen,
        waiting: Waiting<'_>,
    ) {
        self.change(|report| {
            let before = std::mem::take(&mut report.bundles);
            report.generation = generation;
            report.in_use.clear();
            report.settled = true;
            for (runtime, outlook) in &plan.outlook {
                let bundle = content.bundles.iter().find(|bundle| bundle.runtime() == runtime);
                let mut now = match bundle {
                    Some(bundle) => of_bundle(bundle, before.get(runtime)),
                    None => stays::of_node(runtime, &seen.observed, before.get(runtime)),
                };
                // Without containerd's word nobody knows what still runs.
                let unknown = *outlook == Outlook::Removed && seen.containerd.is_err();
                let outlook = if unknown { &Outlook::Removing } else { outlook };
                say(&mut now, outlook, seen, waiting);
                if let (Outlook::Pull, Some(bundle)) = (outlook, bundle) {
                    say_coming(&mut now, bundle, before.get(runtime), waiting);
                }
                count_sandboxes(&mut now, seen);
                let kept = *outlook == Outlook::Kept;
                stays::say_ahead(
                    &mut now,
                    kept,
                    content,
                    &seen.observed,
                    before.get(runtime),
                    waiting,
                );
                if let Outlook::InUse(pods) = outlook {
                    report.in_use.insert(runtime.clone(), pods.clone());
                }
                report.settled &= !matches!(
                    now.phase,
                    // What blocks a bundle is outside of it, and may pass.
                    Phase::Waiting
                        | Phase::Blocked
                        | Phase::Pulling
                        | Phase::Verified
                        | Phase::Queued
                        | Phase::Activating
                        | Phase::Removing
                );
                report.bundles.insert(runtime.clone(), now);
            }
            // What was removed stays said until it is asked for again.
            for (runtime, last) in before {
                if matches!(last.phase, Phase::Removed | Phase::Removing | Phase::InUse) {
                    report.bundles.entry(runtime).or_insert(BundleReport {
                        phase: Phase::Removed,
                        reason: None,
                        message: String::new(),
                        handlers: Vec::new(),
                        ..last
                    });
                }
            }
            if let Ok(containerd) = &seen.containerd {
                report.containerd_version.clone_from(&containerd.version);
            }
            report.installed = stays::installed(&seen.observed);
            report.drift = seen.drift.clone();
        });
    }

    /// The node can't even be looked at.
    pub(super) fn failed(
        &self,
        generation: Generation,
        content: &DesiredContent,
        failures: &Failures,
    ) {
        let Some(failure) = failures.of_node() else { return };
        self.change(|report| {
            report.generation = generation;
            report.settled = false;
            for bundle in &content.bundles {
                let mut now = of_bundle(bundle, report.bundles.get(bundle.runtime()));
                fail(&mut now, failure);
                report.bundles.insert(bundle.runtime().clone(), now);
            }
        });
    }

    /// containerd is about to be changed for these types.
    pub(super) fn activating(&self, types: impl Iterator<Item = RuntimeType>) {
        self.change(|report| {
            for runtime in types {
                if let Some(bundle) = report.bundles.get_mut(&runtime) {
                    bundle.phase = Phase::Activating;
                    bundle.reason = None;
                    bundle.message.clear();
                }
            }
        });
    }

    /// Bytes of a bundle came, or have to wait.
    ///
    /// What comes ahead of a bundle that works shows in nothing but the bytes
    /// that were pulled.
    pub(super) fn progress(&self, bundle: &DesiredBundle, progress: Progress) {
        self.change(|report| {
            let now = report
                .bundles
                .entry(bundle.runtime().clone())
                .or_insert_with(|| of_bundle(bundle, None));
            if now.digest != Some(bundle.digest) {
                if let Progress::Pulled(bytes) = progress {
                    now.bytes_pulled += bytes;
                }
                return;
            }
            now.phase = Phase::Pulling;
            match progress {
                Progress::Here(bytes) => {
                    now.bytes_done = bytes;
                    now.reason = None;
                    now.message.clear();
                }
                Progress::Copied(bytes) | Progress::Resumed(bytes) => {
                    now.bytes_done = now.bytes_total.min(now.bytes_done + bytes);
                }
                Progress::Waits => now.message = WAITS.to_owned(),
                Progress::Pulled(bytes) => {
                    now.message.clear();
                    now.bytes_done = now.bytes_total.min(now.bytes_done + bytes);
                    now.bytes_pulled += bytes;
                }
            }
        });
    }

    fn change(&self, change: impl FnOnce(&mut NodeReport)) {
        self.0.send_if_modified(|report| {
            let before = report.clone();
            change(report);
            *report != before
        });
    }
}

fn of_bundle(bundle: &DesiredBundle, before: Option<&BundleReport>) -> BundleReport {
    let config = bundle.config.config();
    let same = before.filter(|before| before.digest == Some(bundle.digest));
    BundleReport {
        digest: Some(bundle.digest),
        version: config.version.clone(),
        bytes_done: same.map_or(0, |before| before.bytes_done),
        bytes_total: config.blob_bytes(),
        bytes_pulled: same.map_or(0, |before| before.bytes_pulled),
        ..BundleReport::new(config.runtime.clone(), Phase::Waiting)
    }
}

fn say(now: &mut BundleReport, outlook: &Outlook, seen: &Seen, waiting: Waiting<'_>) {
    let Waiting { refused, queued, failures, .. } = waiting;
    let Seen { observed, proven, .. } = seen;
    now.handlers = observed
        .owned
        .iter()
        .filter(|(handler, of)| **of == now.runtime && observed.loaded.contains_key(*handler))
        .map(|(handler, _)| handler.to_string())
        .collect();
    now.reason = None;
    now.message.clear();
    if let Some((phase, reason, message)) = refused.get(&now.runtime) {
        now.phase = *phase;
        now.reason = Some(*reason);
        now.message.clone_from(message);
        return;
    }
    match outlook {
        Outlook::Pull => {
            let begun = now.bytes_done > 0;
            now.phase = if begun { Phase::Pulling } else { Phase::Waiting };
        }
        Outlook::Activate => {
            now.phase = Phase::Verified;
            now.bytes_done = now.bytes_total;
            if queued.contains(&now.runtime) {
                now.phase = Phase::Queued;
                now.message = QUEUED.to_owned();
            }
        }
        Outlook::Loaded { foreign, inherited } => {
            let all = now.handlers.iter().all(|name| proven.iter().any(|h| h.as_str() == name));
            now.phase = if all { Phase::Proven } else { Phase::Loaded };
            now.bytes_done = now.bytes_total;
            if !foreign.is_empty() {
                let names: Vec<&str> = foreign.iter().map(|link| link.name.as_str()).collect();
                now.message = format!("files of others stay beside it: {}", names.join(", "));
            } else if !inherited.is_empty() {
                let pods = name_pods(inherited);
                now.message = format!("files of the gVisor extension stay beside it, {pods}");
            }
        }
        Outlook::NotLoaded(handlers) => {
            now.phase = Phase::Failed;
            now.reason = Some(Reason::HandlerMissing);
            now.message = not_loaded(handlers, &observed.loaded);
        }
        Outlook::Kept => stays::say(now, seen),
        Outlook::Refused(reason, message) => {
            now.phase = Phase::Failed;
            now.reason = Some(*reason);
            now.message.clone_from(message);
        }
        Outlook::InUse(pods) => {
            now.phase = Phase::InUse;
            now.reason = Some(Reason::PodsRunning);
            now.message = name_pods(pods);
        }
        Outlook::Removing => now.phase = Phase::Removing,
        Outlook::Removed => now.phase = Phase::Removed,
    }
    if matches!(outlook, Outlook::Pull | Outlook::Activate | Outlook::Removing) {
        let own = failures.of(&now.runtime);
        // A pull does not need containerd.
        let node = failures.of_node().filter(|_| *outlook != Outlook::Pull);
        // What failed is tried again with the next slot: that it waits for.
        let counts = |failure: &&Failure| now.phase != Phase::Queued || failure.waits();
        if let Some(failure) = own.filter(counts).or_else(|| node.filter(counts)) {
            fail(now, failure);
        }
    }
}

/// A bundle that is on its way is that, whatever became of it before. That it
/// waits for its share stays said until it does not any more.
fn say_coming(
    now: &mut BundleReport,
    bundle: &DesiredBundle,
    before: Option<&BundleReport>,
    waiting: Waiting<'_>,
) {
    let Some(done) = waiting.coming(bundle) else { return };
    let said = before.is_some_and(|before| {
        (before.phase, before.digest) == (Phase::Pulling, now.digest) && before.message == WAITS
    });
    now.phase = Phase::Pulling;
    now.reason = None;
    now.message = if said { WAITS.to_owned() } else { String::new() };
    now.bytes_done = now.bytes_done.max(done).min(now.bytes_total);
}

/// How many sandboxes run on the bundle that the report is about, and on others.
fn count_sandboxes(now: &mut BundleReport, seen: &Seen) {
    let of_type = seen.sandboxes.iter().filter(|(id, _)| id.runtime == now.runtime);
    let (own, others): (Vec<_>, Vec<_>) =
        of_type.partition(|(id, _)| Some(id.digest) == now.digest);
    let sum = |of: &[(&TreeId, &u32)]| of.iter().map(|(_, count)| **count).sum();
    (now.sandboxes, now.outdated_sandboxes) = (sum(&own), sum(&others));
}

fn fail(now: &mut BundleReport, failure: &Failure) {
    now.phase = failure.phase;
    now.reason = Some(failure.reason);
    // 1 KiB in all; the rest of a chain is in the agent's log.
    now.message = failure.message.chars().take(900).collect();
}

pub(super) fn not_loaded(
    handlers: &BTreeSet<HandlerName>,
    loaded: &BTreeMap<HandlerName, Option<HandlerTable>>,
) -> String {
    let (other, missing): (Vec<_>, Vec<_>) = handlers.iter().partition(|h| loaded.contains_key(h));
    let list = |names: &[&HandlerName]| {
        names.iter().map(|name| name.as_str()).collect::<Vec<_>>().join(", ")
    };
    if missing.is_empty() {
        format!(
            "containerd is up, but has handler {} otherwise than its config.toml: see what that imports",
            list(&other)
        )
    } else {
        format!("containerd is up, but does not list handler {}", list(&missing))
    }
}

fn name_pods(pods: &[String]) -> String {
    let named = pods.iter().take(NAMED_PODS).cloned().collect::<Vec<_>>().join(", ");
    match pods.len().saturating_sub(NAMED_PODS) {
        0 => format!("used by {named}"),
        more => format!("used by {named} and {more} more"),
    }
}
