//! What the agent keeps on the node between two lives: `/var/lib/rootstock`.
//!
//! * `lock`: one agent per node
//! * `ledger.json`: the desired state that it accepted last ([`Ledger`])
//! * `journal.jsonl`: what it has done and is about to do ([`Journal`])
//! * `partial/`: blobs that are not complete yet

mod journal;
mod ledger;

use std::fs::TryLockError;
use std::sync::{Arc, Mutex, PoisonError};

pub use journal::{
    Activation, BundleKey, Drift, Failed, Journal, Loaded, Previous, Record, Rejected, Step,
    TreeRecord,
};
pub use ledger::{Held, Ledger};
use rootstock_core::status::Reason;

use crate::rootfs::{Folder, FsError, Rootfs};

/// The folder of blobs that are not complete yet.
pub const PARTIAL: &str = "partial";

/// The agent's own folder, which is held for as long as a clone of this lives.
#[derive(Clone, Debug)]
pub struct Store(Arc<Own>);

/// What every file here says of its form, whatever else is in it.
#[derive(serde::Deserialize)]
struct Version {
    version: u32,
}

#[derive(Debug)]
struct Own {
    folder: Folder,
    /// None for who only looks.
    lock: Option<std::fs::File>,
    /// Held while a file is replaced: whoever sweeps takes no other's file away.
    replaces: Mutex<()>,
}

/// Why the agent's own folder can't be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The node's disk.
    #[error(transparent)]
    Fs(#[from] FsError),
    /// Another agent works on this node.
    #[error("another agent holds {path}/lock; only one may work on a node")]
    Held {
        /// The folder on the node.
        path: String,
    },
    /// The lock itself failed.
    #[error("lock {path}/lock")]
    Lock {
        /// The folder on the node.
        path: String,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// A later version wrote it.
    #[error("{path} has version {version}, this agent reads up to {known}: use a newer agent")]
    Version {
        /// The file on the node.
        path: String,
        /// The file's version.
        version: u32,
        /// What this agent reads.
        known: u32,
    },
    /// What is to be written has no JSON form.
    #[error("write {what} as JSON")]
    Json {
        /// The file.
        what: &'static str,
        /// Why not.
        source: serde_json::Error,
    },
}

impl StoreError {
    /// The reason that users see.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Fs(error) => error.reason(),
            Self::Held { .. } | Self::Lock { .. } | Self::Version { .. } => Reason::HostError,
            Self::Json { .. } => Reason::Internal,
        }
    }
}

impl Store {
    /// Opens the folder, makes it where it is missing, and sweeps what a killed agent left.
    pub fn open(rootfs: &Rootfs, path: &str) -> Result<Self, StoreError> {
        let folder = rootfs.make_folder(path)?;
        let lock = folder.append("lock")?.into_std();
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(StoreError::Held { path: folder.path().to_owned() });
            }
            Err(TryLockError::Error(source)) => {
                return Err(StoreError::Lock { path: folder.path().to_owned(), source });
            }
        }
        folder.sweep()?;
        folder.make(PARTIAL)?.sweep()?;
        Ok(Self::of(folder, Some(lock)))
    }

    /// Opens the folder to look at it: nothing is made, swept or locked. None
    /// where no agent ever worked on this node.
    pub fn peek(rootfs: &Rootfs, path: &str) -> Result<Option<Self>, StoreError> {
        Ok(rootfs.folder(path)?.map(|folder| Self::of(folder, None)))
    }

    fn of(folder: Folder, lock: Option<std::fs::File>) -> Self {
        Self(Arc::new(Own { folder, lock, replaces: Mutex::default() }))
    }

    /// Whether this is who only looks.
    pub fn is_peek(&self) -> bool {
        self.0.lock.is_none()
    }

    /// The folder.
    pub fn folder(&self) -> &Folder {
        &self.0.folder
    }

    /// Puts a file of the folder in place of what is there (mode 0600: a
    /// credential may be in it). It is on disk when this returns. Blocking.
    pub fn replace(&self, name: &str, bytes: &[u8]) -> Result<(), FsError> {
        // Nothing is kept under the lock that a panic could leave half done.
        let _one = self.0.replaces.lock().unwrap_or_else(PoisonError::into_inner);
        // What a disk that refused everything left behind.
        self.folder().sweep()?;
        self.folder().replace(name, bytes, 0o600)
    }

    /// The folder of blobs that are not complete yet.
    pub fn partial(&self) -> Result<Folder, FsError> {
        self.folder().make(PARTIAL)
    }
}
