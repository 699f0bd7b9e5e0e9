//! Bundles that are on their way, in tasks of their own.
//!
//! ```text
//!  plan ─ due ─▶ start ─▶ install … ─▶ ended ─▶ the next round
//!  desired state ─ not wanted any more ─▶ stop
//! ```
//! A pull may wait in the controller's line for many minutes, and its place is
//! lost when it is given up. So it goes on while the node is looked at and
//! changed, and holds up nothing of that.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use rootstock_core::desired::{DesiredBundle, DesiredContent, Registry};
use rootstock_core::layout::{Layout, TreeId};
use rootstock_core::name::RuntimeType;
use tokio::task::JoinSet;

use super::change::Layouts;
use super::{Files, Reports};
use crate::fetch::{Partial, Shared};
use crate::host::Host;
use crate::install::{self, InstallError, Progress};

/// Bundles that come at a time. Each may hold a window of zstd and some chunks
/// in memory, and one fills most links.
const SIDE_BY_SIDE: usize = 4;

/// The bundles that are on their way. Dropping it keeps the bytes that came.
#[derive(Debug, Default)]
pub(super) struct Downloads(BTreeMap<TreeId, Download>);

#[derive(Debug)]
struct Download {
    /// The one task; dropping it ends it.
    task: JoinSet<Result<(), InstallError>>,
    from: Source,
    ahead: bool,
    /// Bytes of its blobs that are here.
    done: Arc<AtomicU64>,
    /// Its threads outlive the task.
    shared: Shared,
}

/// Where a bundle comes from.
#[derive(Debug, PartialEq, Eq)]
struct Source {
    repository: String,
    /// None where the desired state does not describe it, which is found out.
    registry: Option<Registry>,
}

/// What came of one.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) tree: TreeId,
    /// Whether it came ahead of its turn.
    pub(super) ahead: bool,
    pub(super) outcome: Result<(), InstallError>,
}

/// What a download works with.
pub(super) struct With<'a> {
    pub(super) files: &'a Arc<Files>,
    pub(super) host: &'a Arc<dyn Host>,
    pub(super) reports: &'a Reports,
}

impl Source {
    fn of(bundle: &DesiredBundle, content: &DesiredContent) -> Self {
        let named = |registry: &&Registry| registry.name == bundle.registry;
        let registry = content.registries.iter().find(named).cloned();
        Self { repository: bundle.repository.clone(), registry }
    }
}

impl Downloads {
    /// Whether nothing is on its way.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether it is on its way.
    pub(super) fn has(&self, tree: &TreeId) -> bool {
        self.0.contains_key(tree)
    }

    /// Whether something of the type is: its folders are then left alone.
    pub(super) fn has_type(&self, runtime: &RuntimeType) -> bool {
        self.0.keys().any(|tree| tree.runtime == *runtime)
    }

    /// How many bytes of each are here.
    pub(super) fn done(&self) -> BTreeMap<TreeId, u64> {
        let done = |of: &Download| of.done.load(Ordering::Relaxed);
        self.0.iter().map(|(tree, download)| (tree.clone(), done(download))).collect()
    }

    /// How many more may begin.
    pub(super) fn room(&self) -> usize {
        SIDE_BY_SIDE.saturating_sub(self.0.len())
    }

    /// Stops what a desired state does not want any more, or wants from elsewhere.
    /// When this returns, nothing of it writes any more.
    ///
    /// What was to come ahead may be what is desired by now: it goes on.
    pub(super) async fn keep_to(
        &mut self,
        content: &DesiredContent,
        layouts: &Layouts,
        ahead: &Layouts,
    ) {
        let all = ahead.values().map(|of| (of, true)).chain(layouts.values().map(|of| (of, false)));
        let wanted = all.map(|((bundle, layout), ahead)| {
            (layout.tree.clone(), (Source::of(bundle, content), ahead))
        });
        let mut wanted: BTreeMap<TreeId, (Source, bool)> = wanted.collect();
        let mut stopped = Vec::new();
        for (tree, mut download) in std::mem::take(&mut self.0) {
            match wanted.remove(&tree) {
                Some((from, ahead)) if from == download.from => {
                    download.ahead = ahead;
                    self.0.insert(tree, download);
                }
                _ => stopped.push(download),
            }
        }
        for Download { mut task, shared, .. } in stopped {
            task.shutdown().await;
            shared.quiet().await;
        }
    }

    /// Begins with one that is not on its way. What it may leave incomplete is
    /// its part of what all of them may.
    pub(super) fn start(
        &mut self,
        with: &With<'_>,
        content: &DesiredContent,
        (bundle, layout): &(DesiredBundle, Layout),
        ahead: bool,
    ) {
        let all = content.bundles.len() + content.prefetch.len();
        let parts = u64::try_from(all.clamp(1, SIDE_BY_SIDE)).unwrap_or(1);
        let limit = with.files.store_limit / parts;
        let (files, host) = (Arc::clone(with.files), Arc::clone(with.host));
        let (reports, from) = (with.reports.clone(), Source::of(bundle, content));
        let (shared, done) = (files.downloads.apart(), Arc::new(AtomicU64::new(0)));
        let (threads, counted, bundle) = (shared.clone(), Arc::clone(&done), bundle.clone());
        let registries = content.registries.clone();
        let mut task = JoinSet::new();
        task.spawn(async move {
            let progress = |progress: Progress| {
                match progress {
                    Progress::Here(bytes) => counted.store(bytes, Ordering::Relaxed),
                    Progress::Copied(bytes)
                    | Progress::Resumed(bytes)
                    | Progress::Pulled(bytes) => {
                        counted.fetch_add(bytes, Ordering::Relaxed);
                    }
                    Progress::Waits => {}
                }
                reports.progress(&bundle, progress);
            };
            let outcome = async {
                let folder = Arc::new(files.store.partial()?);
                let partial = Partial { folder, limit, shared: threads.clone() };
                let rootfs = &files.rootfs;
                install::install(rootfs, &partial, &*host, &bundle, &registries, &progress).await
            };
            let outcome = outcome.await;
            // Who looks at the node now sees all that it did.
            threads.quiet().await;
            outcome
        });
        self.0.insert(layout.tree.clone(), Download { task, from, ahead, done, shared });
    }

    /// The next one that ends; for ever where there is none. Cancel-safe: what
    /// was not returned stays.
    pub(super) async fn next(&mut self) -> Ended {
        std::future::poll_fn(|cx| self.poll_next(cx)).await
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Ended> {
        let ended =
            self.0.iter_mut().find_map(|(tree, download)| match download.task.poll_join_next(cx) {
                Poll::Ready(Some(outcome)) => Some((tree.clone(), outcome)),
                Poll::Ready(None) | Poll::Pending => None,
            });
        let Some((tree, outcome)) = ended else { return Poll::Pending };
        let ahead = self.0.remove(&tree).is_some_and(|download| download.ahead);
        let outcome = outcome.unwrap_or_else(|error| Err(error.into()));
        Poll::Ready(Ended { tree, ahead, outcome })
    }
}
