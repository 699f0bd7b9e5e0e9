//! What the agent keeps on the node and changes there.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use rootstock_core::path::BinaryRoots;
use rootstock_daemon::error::Chain;

use super::ladder;
use crate::fetch::Shared;
use crate::pull::Pulls;
use crate::rootfs::{FsError, OnlyLooks, Rootfs};
use crate::slot::Slots;
use crate::store::{Journal, Ledger, Record, Store, StoreError};

/// What the agent keeps on the node and changes there.
#[derive(Debug)]
pub struct Files {
    /// The node's files.
    pub rootfs: Arc<Rootfs>,
    /// The agent's own folder.
    pub store: Store,
    /// The desired state.
    pub ledger: Ledger,
    journal: Mutex<Journal>,
    /// Bytes that downloads which are not complete may take.
    pub(super) store_limit: u64,
    pub(super) downloads: Shared,
    slots: Slots,
}

impl Files {
    /// Opens everything below the node's root. Blobs come as fast as the
    /// network is. Blocking.
    pub fn open(root: &Path, state: &str, roots: BinaryRoots) -> Result<Self, StoreError> {
        let rootfs = Arc::new(Rootfs::open(root, roots)?);
        let store = Store::open(&rootfs, state)?;
        let ledger = Ledger::open(&store)?;
        let journal = Mutex::new(Journal::open(&store)?);
        let (store_limit, downloads) = (u64::MAX, Shared::new(Pulls::unbounded()));
        Ok(Self { rootfs, store, ledger, journal, store_limit, downloads, slots: Slots::default() })
    }

    /// Opens what is there to look at it: nothing below the node's root can be
    /// changed through this. None where no agent ever worked here. Blocking.
    pub fn peek(root: &Path, state: &str, roots: BinaryRoots) -> Result<Option<Self>, StoreError> {
        let rootfs = Arc::new(Rootfs::open_gated(root, roots, Arc::new(OnlyLooks))?);
        let Some(store) = Store::peek(&rootfs, state)? else { return Ok(None) };
        let ledger = Ledger::open(&store)?;
        let journal = Mutex::new(Journal::peek(&store)?);
        let (store_limit, downloads) = (0, Shared::new(Pulls::unbounded()));
        let slots = Slots::default();
        Ok(Some(Self { rootfs, store, ledger, journal, store_limit, downloads, slots }))
    }

    /// The same with so many bytes for downloads that are not complete.
    #[must_use]
    pub fn with_store_limit(self, store_limit: u64) -> Self {
        Self { store_limit, ..self }
    }

    /// The same with blobs that come as these may.
    #[must_use]
    pub fn with_pulls(self, pulls: Pulls) -> Self {
        Self { downloads: Shared::new(pulls), ..self }
    }

    /// The node's permission to restart containerd.
    pub fn slots(&self) -> &Slots {
        &self.slots
    }

    /// How fast blobs may come.
    pub fn pulls(&self) -> &Pulls {
        self.downloads.pulls()
    }

    /// Deletes what came of blobs that nobody wants any more. Blocking.
    pub(super) fn sweep_partial(&self, wanted: &BTreeSet<String>) -> Result<(), FsError> {
        let folder = self.store.partial()?;
        for name in folder.names()? {
            if !wanted.contains(&name) {
                folder.remove(&name)?;
            }
        }
        Ok(())
    }

    /// What the journal says.
    pub fn record(&self) -> Record {
        self.journal(|journal| journal.state().clone())
    }

    /// Our tables in containerd's configuration, as they are. Blocking.
    pub fn own_tables(&self) -> Result<serde_json::Value, String> {
        let tables = ladder::ours(self).map_err(|error| Chain(&error).to_string())?;
        serde_json::to_value(tables).map_err(|error| error.to_string())
    }

    /// Works with the journal. Never held across an await.
    pub(crate) fn journal<T>(&self, work: impl FnOnce(&mut Journal) -> T) -> T {
        // A panic in another thread leaves the last line that was written.
        work(&mut self.journal.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
