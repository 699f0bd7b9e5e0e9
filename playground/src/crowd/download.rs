//! What the agents of a crowd pull: real downloads by real grants, into files
//! that nobody keeps.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rootstock_agent::fetch::{FetchError, Fetcher, Partial, Shared, Wanted};
use rootstock_agent::pull::Pulls;
use rootstock_agent::rootfs::{Folder, FsError, Rootfs};
use rootstock_core::desired::{DesiredBundle, DesiredContent};
use rootstock_core::digest::Digest;
use rootstock_core::path::BinaryRoots;
use tokio::sync::watch;

/// How long an agent waits after a failed download.
const AGAIN: Duration = Duration::from_millis(200);
/// The largest blob that is kept until it is complete.
const PARTIAL_LIMIT: u64 = 1 << 30;

/// What the agents of a crowd download.
#[derive(Debug)]
pub struct Downloads {
    /// A folder for each node is made here.
    dir: PathBuf,
    /// The nodes that may pull, by their numbers.
    nodes: watch::Sender<Range<usize>>,
    /// The bundles that each node has as a whole, whoever pulled them.
    have: Mutex<BTreeSet<(usize, Digest)>>,
    done: watch::Sender<Done>,
}

/// How far all of them are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Done {
    /// Bundles that are on a node as a whole.
    pub bundles: usize,
    /// Downloads that failed, and were begun again.
    pub failed: usize,
}

/// One node's downloads.
#[derive(Debug)]
pub(super) struct Download {
    pub(super) number: usize,
    pub(super) downloads: Arc<Downloads>,
    pub(super) wanted: watch::Receiver<DesiredContent>,
    pub(super) pulls: Pulls,
}

/// Why a bundle is not on a node.
#[derive(Debug, thiserror::Error)]
enum DownloadError {
    #[error("the bundle's registry is not named")]
    Registry,
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error(transparent)]
    Fs(#[from] FsError),
    #[error("make the node's folder")]
    Folder(#[from] io::Error),
}

impl Downloads {
    /// Downloads below a folder. No node pulls before it is let.
    pub fn new(dir: PathBuf) -> Self {
        let (have, done) = Default::default();
        Self { dir, nodes: watch::Sender::new(0..0), have, done }
    }

    /// From now on the nodes with these numbers pull what they have yet to.
    pub fn let_pull(&self, nodes: Range<usize>) {
        self.nodes.send_replace(nodes);
    }

    /// How far all of them are, from here on.
    pub fn done(&self) -> watch::Receiver<Done> {
        self.done.subscribe()
    }
}

impl Download {
    /// Pulls each bundle that is wanted, once.
    pub(super) async fn run(mut self) {
        loop {
            let mut nodes = self.downloads.nodes.subscribe();
            let wanted = self.wanted.borrow_and_update().clone();
            let all = wanted.bundles.iter().chain(&wanted.prefetch);
            let new = all.into_iter().find(|bundle| !self.has(bundle));
            let may = nodes.borrow_and_update().contains(&self.number);
            let Some(bundle) = new.filter(|_| may) else {
                // Cancel-safe, both: a change stays unseen until it is borrowed.
                let gone = tokio::select! {
                    changed = self.wanted.changed() => changed.is_err(),
                    changed = nodes.changed() => changed.is_err(),
                };
                if gone {
                    return;
                }
                continue;
            };
            match self.bundle(&wanted, bundle).await {
                Ok(()) => {
                    self.have().insert((self.number, bundle.digest));
                    self.downloads.done.send_modify(|done| done.bundles += 1);
                }
                Err(error) => {
                    tracing::debug!(number = self.number, %error, "a download begins again");
                    self.downloads.done.send_modify(|done| done.failed += 1);
                    tokio::time::sleep(AGAIN).await;
                }
            }
        }
    }

    fn has(&self, bundle: &DesiredBundle) -> bool {
        self.have().contains(&(self.number, bundle.digest))
    }

    fn have(&self) -> MutexGuard<'_, BTreeSet<(usize, Digest)>> {
        // Every change of it is whole.
        self.downloads.have.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn bundle(
        &self,
        wanted: &DesiredContent,
        bundle: &DesiredBundle,
    ) -> Result<(), DownloadError> {
        let registry = wanted.registries.iter().find(|registry| registry.name == bundle.registry);
        let registry = registry.ok_or(DownloadError::Registry)?;
        let root = self.downloads.dir.join(self.number.to_string());
        std::fs::create_dir_all(&root)?;
        let (into, partial) = folders(&root)?;
        let shared = Shared::new(self.pulls.clone());
        let partial = Partial { folder: partial, limit: PARTIAL_LIMIT, shared };
        let mut fetcher = Fetcher::new(registry, &bundle.repository, partial)?;
        // In the order of real agents.
        let mut files: Vec<_> = bundle.config.config().files.iter().collect();
        files.sort_by_key(|file| Reverse(file.blob_size));
        for file in files {
            let wanted = Wanted {
                blob: file.blob,
                blob_size: file.blob_size,
                plain: file.sha256,
                plain_size: file.size,
                name: file.path.file_name().to_owned(),
                mode: file.mode.bits(),
            };
            fetcher.fetch(&wanted, &into, &|_| ()).await?;
            into.remove(&wanted.name)?;
        }
        Ok(())
    }
}

/// Where files come to, and where blobs are until they are complete.
fn folders(root: &Path) -> Result<(Arc<Folder>, Arc<Folder>), FsError> {
    let rootfs = Rootfs::open(root, BinaryRoots::default())?;
    Ok((Arc::new(rootfs.make_folder("/into")?), Arc::new(rootfs.make_folder("/partial")?)))
}
