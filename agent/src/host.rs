//! The edge to the node's service manager and containerd.
//!
//! Everything that is not a file goes through [`Host`]. [`systemd`] is the real
//! one; the playground has another.

mod cri;
pub mod systemd;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::future::Future;
use std::path::Path;
use std::pin::Pin;

use rootstock_core::layout::HandlerTable;
use rootstock_core::name::HandlerName;

/// A future of a [`Host`].
pub type HostFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What the agent needs of a node beside its files.
pub trait Host: fmt::Debug + Send + Sync + 'static {
    /// The running containerd.
    fn containerd(&self) -> HostFuture<'_, Result<Containerd, HostError>>;

    /// Restarts containerd, and returns when the service manager says that it
    /// is up. That its socket answers is for the caller to see.
    fn restart_containerd(&self) -> HostFuture<'_, Result<(), HostError>>;

    /// The pod sandboxes on the node, also those that are not ready any more.
    fn sandboxes(&self) -> HostFuture<'_, Result<Vec<Sandbox>, HostError>>;

    /// The files on the node that a sandbox was started with, as far as
    /// containerd's own state tells: its shim, and what its runtime's options
    /// name. None where it tells nothing.
    fn started_with<'a>(
        &'a self,
        sandbox: &'a Sandbox,
    ) -> HostFuture<'a, Result<Option<BTreeSet<String>>, HostError>>;

    /// The bytes that are free for the agent where this path is, as this process sees it.
    fn free_space<'a>(&'a self, path: &'a Path) -> HostFuture<'a, Result<u64, HostError>>;
}

/// The running containerd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Containerd {
    /// Its version: `2.1.4`.
    pub version: String,
    /// Which start this is: another text after each.
    pub start: String,
    /// Its handlers, and the tables that it started with where it tells.
    pub handlers: BTreeMap<HandlerName, Option<HandlerTable>>,
}

/// A pod's sandbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sandbox {
    /// containerd's name for it.
    pub id: String,
    /// `namespace/name`.
    pub pod: String,
    /// The handler that it was started with; none for containerd's default.
    pub handler: Option<HandlerName>,
}

/// Why the node's service manager or containerd could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// It does not answer.
    #[error("{what}")]
    Unavailable {
        /// What was tried.
        what: String,
        /// What it said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// containerd did not come up.
    #[error("containerd did not start: {evidence}")]
    Restart {
        /// What the service manager says of it.
        evidence: String,
    },
}

/// The bytes that are free where a path is, or where it will be: its nearest
/// folder that is there already.
pub async fn free_space(path: &Path) -> Result<u64, HostError> {
    let wanted = path.to_owned();
    let look = move || {
        let mut at = wanted.as_path();
        loop {
            match (rustix::fs::statvfs(at), at.parent()) {
                // Blocks for everybody: the reserve of root is not ours to eat.
                (Ok(stat), _) => return Ok(stat.f_bavail.saturating_mul(stat.f_frsize)),
                (Err(rustix::io::Errno::NOENT), Some(parent)) => at = parent,
                (Err(errno), _) => return Err(std::io::Error::from(errno)),
            }
        }
    };
    let unavailable = |source: Box<dyn std::error::Error + Send + Sync>| HostError::Unavailable {
        what: format!("read the free space of {}", path.display()),
        source,
    };
    match tokio::task::spawn_blocking(look).await {
        Ok(free) => free.map_err(|error| unavailable(error.into())),
        Err(error) => Err(unavailable(error.into())),
    }
}
