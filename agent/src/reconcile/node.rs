//! What kind of node this is: which bundles it can take, and what others do to it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use rootstock_core::desired::DesiredContent;
use rootstock_core::digest::Digest;
use rootstock_core::name::RuntimeType;
use rootstock_core::plan::Plan;
use rootstock_core::preflight;
use rootstock_core::status::{Phase, Reason};
use rootstock_daemon::error::Chain;
use tokio::time::Instant;

use super::Reconciler;
use super::change::Layouts;
use super::observe::Seen;
use crate::host::{Facts, HostError, Proof};
use crate::store::{BundleKey, Rejected, Step};

/// Repairs within [`FIGHT_TIME`] before the agent gives way for a while:
/// another program that rewrites the file once a minute must not make
/// containerd restart once a minute.
const FIGHT: usize = 3;
/// The time in which they count.
const FIGHT_TIME: Duration = Duration::from_secs(600);
/// The first and the longest time for which it gives way.
const GIVE_WAY: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(3600));
/// How often a pod sandbox is tried where none could be before.
const PROVE: Duration = Duration::from_secs(60);

/// Bundles that this node can't take, and why.
pub(super) type Refused = BTreeMap<RuntimeType, (Phase, Reason, String)>;

/// What is known of a node; what could not be asked stays as it was known.
#[derive(Debug, Default)]
pub(super) struct NodeKind {
    facts: Facts,
    containerd: Option<String>,
    /// Why this agent can't work here at all.
    unsupported: Option<String>,
    /// What the node lacks of what each type's bundle needs.
    unmet: BTreeMap<RuntimeType, Vec<String>>,
}

impl NodeKind {
    /// The node as far as it matters to a runtime, as a text to be compared.
    pub(super) fn name(&self) -> String {
        let containerd = self.containerd.as_deref().unwrap_or("unknown");
        format!("containerd {containerd}, kernel {}", self.facts.kernel)
    }
}

/// A desired state and what of it was left out: a bundle that is tried again
/// was not in place before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct InPlace {
    pub(super) content: Digest,
    pub(super) without: BTreeSet<RuntimeType>,
}

/// When others changed what was in place.
#[derive(Debug, Default)]
pub(super) struct DriftWatch {
    /// What was last in place as a whole.
    settled: Option<InPlace>,
    /// When it was repaired.
    repairs: Vec<Instant>,
    /// How often in a row the agent gave way.
    gave_way: u32,
    /// Until when it does.
    until: Option<Instant>,
}

impl DriftWatch {
    /// Everything is in place.
    pub(super) fn settled(&mut self, all: InPlace) {
        self.settled = Some(all);
        if self.repairs.last().is_none_or(|last| last.elapsed() > FIGHT_TIME) {
            self.gave_way = 0;
        }
    }

    /// Whether what has to be done now was in place before.
    fn is_drift(&self, all: &InPlace) -> bool {
        self.settled.as_ref() == Some(all)
    }

    /// Counts a repair. How long to give way, if others repeat what they do.
    fn repair(&mut self, now: Instant) -> Option<Duration> {
        if let Some(until) = self.until {
            if now < until {
                return Some(until - now);
            }
            self.until = None;
            self.repairs.clear();
        }
        self.repairs.retain(|at| now.duration_since(*at) < FIGHT_TIME);
        if self.repairs.len() >= FIGHT {
            let wait = (GIVE_WAY.0 * 2_u32.saturating_pow(self.gave_way)).min(GIVE_WAY.1);
            self.gave_way += 1;
            self.until = Some(now + wait);
            return Some(wait);
        }
        self.repairs.push(now);
        None
    }
}

impl Reconciler {
    /// Asks what kind of node this is.
    pub(super) async fn know(&mut self, desired: &DesiredContent) {
        self.node.unsupported = match self.host.find().await {
            Ok(_) => None,
            Err(HostError::Unsupported { why }) => Some(why),
            Err(error) => {
                tracing::debug!(error = %Chain(&error), "containerd can't be looked for");
                None
            }
        };
        match self.host.facts().await {
            Ok(facts) => self.node.facts = facts,
            Err(error) => tracing::debug!(error = %Chain(&error), "the node can't be looked at"),
        }
        if let Ok(containerd) = self.host.containerd().await {
            self.node.containerd = Some(containerd.version);
        }
        for bundle in &desired.bundles {
            let mut unmet = Vec::new();
            for need in &bundle.config.config().needs {
                match self.host.unmet(need).await {
                    Ok(why) => unmet.extend(why),
                    Err(error) => {
                        tracing::debug!(?need, error = %Chain(&error), "it can't be told")
                    }
                }
            }
            self.node.unmet.insert(bundle.runtime().clone(), unmet);
        }
    }

    /// Desired bundles that this node can take; the others stay as they are on it.
    pub(super) fn eligible(&self, desired: &DesiredContent) -> (DesiredContent, Refused) {
        let mut content = desired.clone();
        let mut refused = Refused::new();
        let (rejected, name) = (self.rejected(), self.node.name());
        content.bundles.retain(|bundle| {
            let runtime = bundle.runtime();
            let node = preflight::Node {
                architecture: self.architecture,
                containerd: self.node.containerd.clone(),
                unmet: self.node.unmet.get(runtime).cloned().unwrap_or_default(),
            };
            let path = self.files.rootfs.binary_roots().check(&bundle.binary_path);
            let taken_back = rejected.get(runtime).filter(|rejected| {
                rejected.bundle == BundleKey::of(bundle) && rejected.node == name
            });
            let why = if let Some(why) = &self.node.unsupported {
                Some((Phase::Unsupported, Reason::ContainerdUnknown, why.clone()))
            } else if let Some(unmet) = preflight::check(bundle.config.config(), &node) {
                Some((Phase::Unsupported, unmet.reason, unmet.message))
            } else if let Err(error) = path {
                Some((Phase::Failed, Reason::BinaryPathRefused, error.to_string()))
            } else {
                taken_back.map(|rejected| {
                    let phase = if rejected.back { Phase::RolledBack } else { Phase::Degraded };
                    (phase, rejected.reason, rejected.message.clone())
                })
            };
            let Some(why) = why else { return true };
            content.keep.insert(runtime.clone());
            refused.insert(runtime.clone(), why);
            false
        });
        (content, refused)
    }

    fn rejected(&self) -> BTreeMap<RuntimeType, Rejected> {
        self.files.journal(|journal| journal.state().rejected.clone())
    }

    /// What was taken back may be tried again: somebody said so.
    pub(super) async fn forget_rejected(&self) {
        let files = Arc::clone(&self.files);
        let write = move || {
            files.journal(|journal| journal.write(Step::Change, |state| state.rejected.clear()))
        };
        match tokio::task::spawn_blocking(write).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::warn!(error = %Chain(&error), "the journal can't be written")
            }
            Err(error) => tracing::warn!(error = %Chain(&error), "a thread failed"),
        }
    }

    /// Counts what others changed. How long to leave it so, if they do it again and again.
    pub(super) async fn drifted(&mut self, all: &InPlace, work: &Plan) -> Option<Duration> {
        // Links that take the place of inherited files had to wait for them.
        let waited = !work.remove_files.is_empty();
        if !self.drift.is_drift(all) || !work.mends() || waited {
            return None;
        }
        let what = work.describe();
        if let Some(wait) = self.drift.repair(Instant::now()) {
            let message = format!(
                "something on the node changes it again and again ({what}); it is put right in {} s",
                wait.as_secs()
            );
            self.failures.node(Phase::Blocked, Reason::ContainerdConfigForeignChange, message);
            return Some(wait);
        }
        tracing::warn!(what, "others changed what was in place: it is put right");
        // Once for all rounds of one repair.
        self.drift.settled = None;
        let (files, last) = (Arc::clone(&self.files), what);
        let write = move || {
            files.journal(|journal| {
                journal.write(Step::Change, |state| {
                    state.drift.repaired += 1;
                    state.drift.last = last;
                })
            })
        };
        if let Ok(Err(error)) = tokio::task::spawn_blocking(write).await {
            tracing::warn!(error = %Chain(&error), "the journal can't be written");
        }
        None
    }

    /// Tries pod sandboxes with handlers that are loaded and were never proven.
    /// Whether something is new.
    pub(super) async fn prove_later(&mut self, layouts: &Layouts, seen: &Seen) -> bool {
        let now = Instant::now();
        if self.prove_at.is_some_and(|at| now < at) || seen.containerd.is_err() {
            return false;
        }
        self.prove_at = Some(now + PROVE);
        let proven = self.files.journal(|journal| journal.state().proven.clone());
        let mut new = BTreeMap::new();
        for (handler, table) in layouts.values().flat_map(|(_, layout)| &layout.tables) {
            let loaded = seen.observed.loaded.get(handler).and_then(Option::as_ref) == Some(table);
            if loaded
                && proven.get(handler) != Some(table)
                && let Ok(Proof::Started) = self.host.prove(handler).await
            {
                new.insert(handler.clone(), table.clone());
            }
        }
        if new.is_empty() {
            return false;
        }
        let files = Arc::clone(&self.files);
        let write = move || {
            files.journal(|journal| journal.write(Step::Settled, |state| state.proven.extend(new)))
        };
        matches!(tokio::task::spawn_blocking(write).await, Ok(Ok(())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_changes_it_again_and_again_is_given_way_for_longer_and_longer() {
        let mut watch = DriftWatch::default();
        let mut repairs = 0;
        let mut waits = Vec::new();
        for _ in 0..24 * 60 {
            match watch.repair(Instant::now()) {
                None => repairs += 1,
                Some(wait) => waits.push(wait),
            }
            tokio::time::advance(Duration::from_secs(60)).await;
        }
        // A program that rewrites the file every minute of a day.
        assert!(repairs <= 3 * 30, "{repairs}");
        assert!(waits.iter().max() > Some(&Duration::from_secs(3000)));
    }
}
