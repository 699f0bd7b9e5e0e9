//! The loop that makes the node what the ledger says.
//!
//! ```text
//!  ledger ─watch─▶ observe ─▶ core::plan ─▶ change, restart, collect ─▶ reports ─watch─▶ link
//!                     ▲           │                   │
//!                     ├───────────┼── until the plan is empty
//!                     └─ ended ◀─ downloads: what is missing, in tasks of their own
//! ```
//! Every step is idempotent and begins with looking, so it does not matter
//! where the agent was killed. One bundle that can't be had holds back no
//! other, nor does one that waits for its share of the bandwidth: failures are
//! kept per type, each with its own time to try again.

mod activate;
mod change;
mod downloads;
mod failure;
mod files;
mod gate;
mod ladder;
mod node;
mod observe;
mod pace;
mod pulls;
mod report;
mod rollback;
mod takeover;
mod together;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use change::Layouts;
use downloads::Downloads;
use failure::Failures;
pub use files::Files;
use futures_util::FutureExt as _;
use gate::Gate;
use node::{DriftWatch, InPlace, NodeKind, Refused};
pub use pace::Pace;
use report::Waiting;
pub use report::{NodeReport, Reports};
use rootstock_core::desired::DesiredBundle;
use rootstock_core::layout::{Layout, TreeId};
use rootstock_core::name::{Architecture, RuntimeType};
use rootstock_core::plan::{Plan, plan};
use rootstock_core::status::Phase;
use rootstock_daemon::Shutdown;
use rootstock_daemon::error::Chain;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::host::Host;
use crate::store::Held;

/// Rounds without a rest. A change and a look afterwards are two; many more
/// mean that something changes the node against us.
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
    downloads: Downloads,
    /// Until when what could be activated waits for what still comes.
    together: Option<Instant>,
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
        let (failures, ahead, downloads, verified) = Default::default();
        Self {
            files,
            host,
            architecture,
            reports,
            held,
            retry,
            failures,
            ahead,
            downloads,
            together: None,
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
                ended = self.downloads.next() => self.note(ended),
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
        let ahead = lay_out(&content.prefetch);
        let seen = observe::look(&mut self, &layouts, &ahead).await;
        let seen = seen.map_err(|error| Chain(&error).to_string())?;
        let whole = plan(&content, &seen.observed);
        let (generation, desired) = (held.desired.generation, &held.desired.content);
        let queued = self.gate(generation, &content, &seen, &whole).queued;
        let coming = BTreeMap::new();
        let waiting = self.waiting(&refused, &queued, &coming);
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
            let ahead = lay_out(&content.prefetch);
            self.downloads.keep_to(&content, &layouts, &ahead).await;
            // What has ended is seen as it is, and not begun once more.
            while let Some(ended) = self.downloads.next().now_or_never() {
                self.note(ended);
            }
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
            let Gate { queued, by } = self.gate(generation, &content, &seen, &whole);
            let due = self.due(&layouts, &whole);
            // What begins now says so itself.
            let coming = self.downloads.done();
            let waiting = self.waiting(&refused, &queued, &coming);
            self.reports.outlook(generation, &whole, desired, &seen, waiting);
            if !self.begin(&content, &due, false).await {
                continue;
            }
            let coming = self.coming(&layouts);
            let together = self.together(generation, &content, &seen, &queued, &coming);
            let waits: BTreeSet<RuntimeType> = queued.union(&together.types).cloned().collect();
            let seen = together.without_what_waits(seen);
            let now = together.planned(&content, &seen, &whole);
            let mut work = self.without_waiting(&content, &seen, now, &waits);
            work.pulls.clear();
            work.prefetches.clear();
            // What comes makes its folders where these are.
            let comes = |runtime: &RuntimeType| self.downloads.has_type(runtime);
            work.collect_trees
                .retain(|id| !gate::is_sent(&desired.bundles, id) && !comes(&id.runtime));
            work.collect_rendered.retain(|id| !comes(&id.tree.runtime));
            let missing = whole.pulls.iter().map(|tree| &tree.runtime);
            let failing = layouts.keys().filter(|runtime| self.failures.waits(runtime));
            let without = refused.keys().chain(&waits).chain(missing).chain(failing);
            let in_place =
                InPlace { content: held.content_hash, without: without.cloned().collect() };
            if work.is_empty() {
                self.failures.settle(&coming);
                // What waits for its turn is not in place, and not to be taken
                // for what somebody else changed.
                if waits.is_empty() {
                    self.again = false;
                    self.drift.settled(in_place);
                }
                if self.prove_later(&layouts, &seen).await {
                    continue;
                }
                if !self.begin_ahead(&content, &ahead, &whole).await {
                    continue;
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
                let goes = !seen.observed.trees.keys().all(wanted)
                    || !seen.observed.inherited.files.is_empty();
                let rest = if goes { self.pace.waiting } else { self.pace.look };
                let rest = together.left.map_or(rest, |left| left.min(rest));
                return self.ahead.rest(self.failures.rest(rest));
            }
            self.change(&work, &layouts, &seen, by).await;
        }
        tracing::warn!("the node does not come to rest: something else changes it");
        REST
    }

    fn waiting<'a>(
        &'a self,
        refused: &'a Refused,
        queued: &'a BTreeSet<RuntimeType>,
        coming: &'a BTreeMap<TreeId, u64>,
    ) -> Waiting<'a> {
        Waiting { refused, queued, failures: &self.failures, ahead: &self.ahead, coming }
    }
}

/// What each bundle means on the node; those that mean nothing are told by the plan.
fn lay_out(bundles: &[DesiredBundle]) -> Layouts {
    let laid = bundles.iter().filter_map(|bundle| {
        let layout = Layout::of(bundle).ok()?;
        Some((bundle.runtime().clone(), (bundle.clone(), layout)))
    });
    laid.collect()
}
