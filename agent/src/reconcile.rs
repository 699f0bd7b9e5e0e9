//! The loop that makes the node what the ledger says.
//!
//! ```text
//!  ledger ─watch─▶ observe ─▶ core::plan ─▶ pull what is missing ─┐
//!                     ▲                     └▶ change, restart, collect ─▶ reports ─watch─▶ link
//!                     └────── again until the plan is empty ◀─────┘
//! ```
//! Every step is idempotent and begins with looking, so it does not matter
//! where the agent was killed. One bundle that can't be had holds back no
//! other: failures are kept per type, each with its own time to try again.

mod activate;
mod ahead;
mod change;
mod failure;
mod files;
mod gate;
mod ladder;
mod node;
mod observe;
mod pace;
mod report;
mod rollback;
mod takeover;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use failure::Failures;
pub use files::Files;
use futures_util::{StreamExt as _, stream};
use node::{DriftWatch, InPlace, NodeKind, Refused};
pub use pace::Pace;
use report::Waiting;
pub use report::{NodeReport, Reports};
use rootstock_core::desired::{DesiredBundle, DesiredContent};
use rootstock_core::layout::{Layout, TreeId};
use rootstock_core::name::{Architecture, RuntimeType};
use rootstock_core::plan::{Plan, plan};
use rootstock_core::status::Phase;
use rootstock_daemon::Shutdown;
use rootstock_daemon::error::Chain;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::fetch::Partial;
use crate::host::Host;
use crate::install::{self, InstallError, Progress};
use crate::rootfs::FsError;
use crate::store::{Held, Step, StoreError, TreeRecord};

/// Bundles that are pulled at a time. Each may hold a window of zstd and some
/// chunks in memory, and one fills most links.
const SIDE_BY_SIDE: usize = 4;
/// Rounds without a rest. Pull, change and a look afterwards are three; more
/// means that something changes the node against us.
const ROUNDS: usize = 8;
/// The rest after that.
const REST: Duration = Duration::from_secs(10);

/// The reconcile loop.
#[derive(Debug)]
pub struct Reconciler {
    files: Arc<Files>,
    host: Arc<dyn Host>,
    architecture: Option<Architecture>,
    reports: Reports,
    held: watch::Receiver<Option<Arc<Held>>>,
    retry: Arc<Notify>,
    failures: Failures,
    /// Those of bundles that are pulled ahead: the node works without them.
    ahead: Failures,
    /// Whether containerd may be restarted although it was already started
    /// with the tables that it lacks: somebody asked to try again.
    again: bool,
    /// When every byte of a tree was looked at last.
    verified: BTreeMap<TreeId, Instant>,
    /// What is known of the node.
    node: NodeKind,
    pace: Pace,
    /// When pod sandboxes are tried next, where they could not be before.
    prove_at: Option<Instant>,
    drift: DriftWatch,
}

impl Reconciler {
    /// A loop for a node of this architecture. `retry` forgets all failures.
    pub fn new(
        files: Arc<Files>,
        host: Arc<dyn Host>,
        architecture: Option<Architecture>,
        reports: Reports,
        retry: Arc<Notify>,
    ) -> Self {
        let held = files.ledger.watch();
        let (failures, ahead, verified) = Default::default();
        Self {
            files,
            host,
            architecture,
            reports,
            held,
            retry,
            failures,
            ahead,
            again: false,
            verified,
            node: NodeKind::default(),
            pace: Pace::default(),
            prove_at: None,
            drift: DriftWatch::default(),
        }
    }

    /// The same with other times.
    #[must_use]
    pub fn with_pace(self, pace: Pace) -> Self {
        Self { pace, ..self }
    }

    /// Runs until the shutdown begins.
    pub async fn run(mut self, shutdown: Shutdown) -> anyhow::Result<()> {
        let mut slots = self.files.slots().changes();
        loop {
            let held = self.held.borrow_and_update().clone();
            slots.mark_unchanged();
            let rest = tokio::select! {
                // Cancel-safe: a round that is dropped in the middle is what a
                // kill leaves, and the next start goes on from there.
                () = shutdown.begun() => return Ok(()),
                rest = self.round(held) => rest,
            };
            tokio::select! {
                // A new wish counts before the end of a rest.
                biased;
                // Cancel-safe: each arm only waits, and what was not told stays to be told.
                () = shutdown.begun() => return Ok(()),
                changed = self.held.changed() => {
                    // The sender lives in `files`, which this loop holds.
                    changed?;
                    self.failures.forget();
                    self.ahead.forget();
                }
                // The sender lives in `files` too.
                changed = slots.changed() => changed?,
                () = self.retry.notified() => {
                    self.failures.forget();
                    self.ahead.forget();
                    self.again = true;
                    self.forget_rejected().await;
                }
                () = tokio::time::sleep(rest) => {}
            }
        }
    }

    /// What would be done now, and how everything stands. Nothing is changed.
    pub async fn preview(mut self, held: &Held) -> Result<(Plan, NodeReport), String> {
        self.know(&held.desired.content).await;
        let (content, refused) = self.eligible(&held.desired.content);
        let layouts = lay_out(&content.bundles);
        let ahead = ahead::lay_out_ahead(&content);
        let seen = observe::look(&mut self, &layouts, &ahead).await;
        let seen = seen.map_err(|error| Chain(&error).to_string())?;
        let whole = plan(&content, &seen.observed);
        let (generation, desired) = (held.desired.generation, &held.desired.content);
        let queued = self.queued(generation, &content, &seen, &whole);
        let waiting = self.waiting(&refused, &queued);
        self.reports.outlook(generation, &whole, desired, &seen, waiting);
        if let Err(obstacle) =
            seen.containerd.as_ref().map(drop).and_then(|()| seen.config.as_ref().map(drop))
        {
            return Err(obstacle.message.clone());
        }
        let report = self.reports.watch().borrow().clone();
        Ok((whole, report))
    }

    /// Does what can be done now, and says when to look again.
    pub async fn round(&mut self, held: Option<Arc<Held>>) -> Duration {
        let Some(held) = held else { return self.pace.look };
        // What a round that was dropped began is at its end before this one looks.
        self.files.downloads.quiet().await;
        let generation = held.desired.generation;
        if self.going_back() {
            if !self.failures.node_waits() {
                self.go_back().await;
            }
            // Until what was before is back, nothing else is begun.
            if self.going_back() {
                self.reports.failed(generation, &held.desired.content, &self.failures);
                return self.failures.rest(self.pace.look);
            }
        }
        self.know(&held.desired.content).await;
        for _ in 0..ROUNDS {
            // Anew each time: a bundle that was just taken back is not tried again.
            let (content, refused) = self.eligible(&held.desired.content);
            let layouts = lay_out(&content.bundles);
            let ahead = ahead::lay_out_ahead(&content);
            let seen = match observe::look(self, &layouts, &ahead).await {
                Ok(seen) => seen,
                Err(error) => {
                    self.failures.node(Phase::Blocked, error.reason(), Chain(&error).to_string());
                    self.reports.failed(generation, &held.desired.content, &self.failures);
                    return self.failures.rest(self.pace.look);
                }
            };
            let whole = plan(&content, &seen.observed);
            let desired = &held.desired.content;
            let queued = self.queued(generation, &content, &seen, &whole);
            let waiting = self.waiting(&refused, &queued);
            self.reports.outlook(generation, &whole, desired, &seen, waiting);
            let due: Vec<&(DesiredBundle, Layout)> = layouts
                .values()
                .filter(|(bundle, layout)| {
                    whole.pulls.contains(&layout.tree) && !self.failures.waits(bundle.runtime())
                })
                .collect();
            if !due.is_empty() {
                if !self.pull(&content, &due).await {
                    // The wish has changed: what came so far is kept.
                    return Duration::ZERO;
                }
                continue;
            }
            let mut work = self.without_waiting(&content, &seen, whole.clone(), &queued);
            work.pulls.clear();
            work.prefetches.clear();
            work.collect_trees.retain(|id| !gate::is_sent(&desired.bundles, id));
            let without = refused.keys().chain(&queued).cloned().collect();
            let in_place = InPlace { content: held.content_hash, without };
            if work.is_empty() {
                self.failures.settle();
                // What waits for its turn is not in place, and not to be taken
                // for what somebody else changed.
                if queued.is_empty() {
                    self.again = false;
                    self.drift.settled(in_place);
                }
                if self.prove_later(&layouts, &seen).await {
                    continue;
                }
                if self.pull_ahead(&content, &ahead, &whole).await {
                    return Duration::ZERO;
                }
            } else if seen.containerd.is_ok()
                // A containerd that is down is nobody's change.
                && let Some(rest) = self.drifted(&in_place, &work).await
            {
                return self.failures.rest(rest);
            }
            if work.is_empty() || self.failures.node_waits() {
                // What nobody wants any more waits for its pods or for containerd.
                let wanted = |id: &TreeId| {
                    content.keep.contains(&id.runtime)
                        || layouts.values().chain(ahead.values()).any(|(_, of)| of.tree == *id)
                };
                let waits = !seen.observed.trees.keys().all(wanted)
                    || !seen.observed.inherited.files.is_empty();
                let rest = if waits { self.pace.waiting } else { self.pace.look };
                return self.ahead.rest(self.failures.rest(rest));
            }
            self.change(&work, &layouts, &seen).await;
        }
        tracing::warn!("the node does not come to rest: something else changes it");
        REST
    }

    fn waiting<'a>(
        &'a self,
        refused: &'a Refused,
        queued: &'a BTreeSet<RuntimeType>,
    ) -> Waiting<'a> {
        Waiting { refused, queued, failures: &self.failures, ahead: &self.ahead }
    }

    /// Fetches bundles side by side, each to its end or failure. False when
    /// the desired state changed in the meantime.
    async fn pull(&mut self, content: &DesiredContent, due: &[&(DesiredBundle, Layout)]) -> bool {
        if let Err(error) = self.announce(content, due).await {
            let message = Chain(&error).to_string();
            for (bundle, _) in due {
                self.failures.pull(bundle.runtime(), error.reason(), message.clone());
            }
            return true;
        }
        let (files, host, reports) = (&self.files, &self.host, &self.reports);
        // They run side by side, each with one incomplete blob.
        let limit = files.store_limit / u64::try_from(due.len()).unwrap_or(1).max(1);
        let pulls: Vec<_> = due
            .iter()
            .map(|(bundle, layout)| async move {
                let outcome = install(files, &**host, bundle, content, reports, limit, false).await;
                (bundle, &layout.tree, outcome)
            })
            .collect();
        let pulls = stream::iter(pulls).buffer_unordered(SIDE_BY_SIDE);
        let ended = tokio::select! {
            // Cancel-safe: see below.
            ended = pulls.collect::<Vec<_>>() => ended,
            // Cancel-safe: dropping the pulls keeps the bytes that came.
            _ = self.held.changed() => {
                self.held.mark_changed();
                return false;
            }
        };
        for (bundle, tree, outcome) in ended {
            let runtime = bundle.runtime();
            match outcome {
                Ok(()) => {
                    tracing::info!(%runtime, digest = %tree.digest, "every byte is on the node");
                    self.failures.over(runtime);
                    self.verified.insert(tree.clone(), Instant::now());
                }
                Err(error) => {
                    let message = Chain(&error).to_string();
                    tracing::warn!(%runtime, reason = %error.reason(), why = message, "a bundle does not come");
                    self.failures.pull(runtime, error.reason(), message);
                }
            }
        }
        true
    }

    /// Writes into the journal which folders are about to be made.
    async fn announce(
        &self,
        content: &DesiredContent,
        due: &[&(DesiredBundle, Layout)],
    ) -> Result<(), InstallError> {
        let records: Vec<TreeRecord> = due
            .iter()
            .map(|(bundle, layout)| TreeRecord {
                id: layout.tree.clone(),
                version: bundle.config.config().version.clone(),
                handlers: layout.tables.keys().cloned().collect(),
            })
            .collect();
        let files = Arc::clone(&self.files);
        // Also of bundles that wait for another try: they go on where they were cut off.
        let bundles = content.bundles.iter().chain(&content.prefetch);
        let blobs = bundles.flat_map(|bundle| &bundle.config.config().files);
        let wanted: BTreeSet<String> = blobs.map(|file| file.blob.hex()).collect();
        let write = move || {
            files.sweep_partial(&wanted)?;
            files.journal(|journal| {
                journal.write(Step::Install, |state| {
                    records.into_iter().for_each(|record| state.put_tree(record));
                })
            })
        };
        match tokio::task::spawn_blocking(write).await? {
            Ok(()) => Ok(()),
            Err(StoreError::Fs(error)) => Err(error.into()),
            Err(error) => Err(FsError::Io {
                what: "write",
                path: "the journal".to_owned(),
                source: std::io::Error::other(error),
            }
            .into()),
        }
    }
}

/// What each bundle means on the node; those that mean nothing are told by the plan.
fn lay_out(bundles: &[DesiredBundle]) -> BTreeMap<RuntimeType, (DesiredBundle, Layout)> {
    let laid = bundles.iter().filter_map(|bundle| {
        let layout = Layout::of(bundle).ok()?;
        Some((bundle.runtime().clone(), (bundle.clone(), layout)))
    });
    laid.collect()
}

async fn install(
    files: &Files,
    host: &dyn Host,
    bundle: &DesiredBundle,
    content: &DesiredContent,
    reports: &Reports,
    limit: u64,
    ahead: bool,
) -> Result<(), InstallError> {
    let folder = Arc::new(files.store.partial()?);
    let partial = Partial { folder, limit, shared: files.downloads.clone() };
    let progress = |progress: Progress| reports.progress(bundle, progress, ahead);
    install::install(&files.rootfs, &partial, host, bundle, &content.registries, &progress).await
}
