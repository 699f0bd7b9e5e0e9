//! Which bundles are pulled now, and what came of it. What may be activated
//! soon comes ahead: it is pulled and verified, and nothing else.

use std::collections::BTreeSet;
use std::sync::Arc;

use rootstock_core::desired::{DesiredBundle, DesiredContent};
use rootstock_core::layout::Layout;
use rootstock_core::name::RuntimeType;
use rootstock_core::plan::Plan;
use rootstock_daemon::error::Chain;
use tokio::time::Instant;

use super::Reconciler;
use super::change::Layouts;
use super::downloads::{Ended, With};
use crate::install::InstallError;
use crate::rootfs::FsError;
use crate::store::{Step, StoreError, TreeRecord};

impl Reconciler {
    /// The bundles to be fetched whose time has come, and that have room.
    pub(super) fn due<'a>(
        &self,
        layouts: &'a Layouts,
        whole: &Plan,
    ) -> Vec<&'a (DesiredBundle, Layout)> {
        let due = layouts.values().filter(|(bundle, layout)| {
            whole.pulls.contains(&layout.tree)
                && !self.downloads.has(&layout.tree)
                && !self.failures.waits(bundle.runtime())
        });
        due.take(self.downloads.room()).collect()
    }

    /// The desired types that are on their way.
    pub(super) fn coming(&self, layouts: &Layouts) -> BTreeSet<RuntimeType> {
        let coming = layouts.iter().filter(|(_, (_, layout))| self.downloads.has(&layout.tree));
        coming.map(|(runtime, _)| runtime.clone()).collect()
    }

    /// Begins to fetch bundles, each to its end or failure. False where none
    /// can be begun, which is to be said.
    pub(super) async fn begin(
        &mut self,
        content: &DesiredContent,
        due: &[&(DesiredBundle, Layout)],
        ahead: bool,
    ) -> bool {
        if due.is_empty() {
            return true;
        }
        if let Err(error) = self.announce(content, due).await {
            let message = Chain(&error).to_string();
            let failures = if ahead { &mut self.ahead } else { &mut self.failures };
            for (bundle, _) in due {
                failures.pull(bundle.runtime(), error.reason(), message.clone());
            }
            return false;
        }
        let with = With { files: &self.files, host: &self.host, reports: &self.reports };
        for bundle in due {
            self.downloads.start(&with, content, bundle, ahead);
        }
        true
    }

    /// Begins to pull one bundle ahead, if one is to come and nothing else does.
    /// Once it has begun it goes on beside everything else: it would lose its
    /// place in the controller's line. False where it can't begin.
    pub(super) async fn begin_ahead(
        &mut self,
        content: &DesiredContent,
        ahead: &Layouts,
        whole: &Plan,
    ) -> bool {
        if !self.downloads.is_empty() {
            return true;
        }
        let due = ahead.values().find(|(bundle, layout)| {
            whole.prefetches.contains(&layout.tree) && !self.ahead.waits(bundle.runtime())
        });
        self.begin(content, due.as_slice(), true).await
    }

    /// What came of a download.
    pub(super) fn note(&mut self, ended: Ended) {
        let Ended { tree, ahead, outcome } = ended;
        let runtime = &tree.runtime;
        let failures = if ahead { &mut self.ahead } else { &mut self.failures };
        match outcome {
            Ok(()) => {
                tracing::info!(%runtime, digest = %tree.digest, ahead, "every byte is on the node");
                failures.over(runtime);
                self.verified.insert(tree, Instant::now());
            }
            Err(error) => {
                let why = Chain(&error).to_string();
                tracing::warn!(%runtime, reason = %error.reason(), ahead, why, "a bundle does not come");
                failures.pull(runtime, error.reason(), why);
            }
        }
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
