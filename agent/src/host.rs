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

use rootstock_core::bundle::Need;
use rootstock_core::layout::HandlerTable;
use rootstock_core::name::HandlerName;
use rootstock_core::status::Reason;

/// A future of a [`Host`].
pub type HostFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What the agent needs of a node beside its files.
///
/// Dropping a future in the middle may leave its effect half done, as a kill
/// of the agent would; the next look finds what came of it.
pub trait Host: fmt::Debug + Send + Sync + 'static {
    /// containerd as it is set up on the node, running or not. What belongs to
    /// a distribution that brings a containerd of its own is refused by name.
    fn find(&self) -> HostFuture<'_, Result<Installation, HostError>>;

    /// The running containerd.
    fn containerd(&self) -> HostFuture<'_, Result<Containerd, HostError>>;

    /// What the node's own containerd makes of a configuration, as
    /// `containerd config dump` prints it: TOML with every default and every
    /// import in it. The file is named by its path on the node; imports are
    /// relative to it.
    fn dump<'a>(&'a self, config: &'a str) -> HostFuture<'a, Result<String, HostError>>;

    /// Restarts containerd, and returns when the service manager says that it
    /// is up. That its socket answers is for the caller to see.
    fn restart_containerd(&self) -> HostFuture<'_, Result<(), HostError>>;

    /// containerd's unit as the service manager sees it now.
    fn unit(&self) -> HostFuture<'_, Result<UnitState, HostError>>;

    /// The last lines of the unit's journal, the oldest first, [`JOURNAL_LINES`] at most.
    fn journal(&self) -> HostFuture<'_, Result<Vec<String>, HostError>>;

    /// Starts a pod sandbox with a handler and takes it away again.
    fn prove<'a>(&'a self, handler: &'a HandlerName) -> HostFuture<'a, Result<Proof, HostError>>;

    /// The pod sandboxes on the node, also those that are not ready any more.
    fn sandboxes(&self) -> HostFuture<'_, Result<Vec<Sandbox>, HostError>>;

    /// The files on the node that a sandbox was started with, as far as
    /// containerd's own state tells: its shim and its containers' shims, and
    /// what its runtime's options name. None where it tells nothing.
    fn started_with<'a>(
        &'a self,
        sandbox: &'a Sandbox,
    ) -> HostFuture<'a, Result<Option<BTreeSet<String>>, HostError>>;

    /// The bytes that are free for the agent where this path is, as this process sees it.
    fn free_space<'a>(&'a self, path: &'a Path) -> HostFuture<'a, Result<u64, HostError>>;

    /// Why the node does not have what a bundle needs; none where it has it.
    fn unmet<'a>(&'a self, need: &'a Need) -> HostFuture<'a, Result<Option<String>, HostError>>;

    /// What kind of node this is.
    fn facts(&self) -> HostFuture<'_, Result<Facts, HostError>>;
}

/// Lines of a unit's journal that are kept as evidence: an error of containerd
/// and what led to it.
pub const JOURNAL_LINES: usize = 20;

/// containerd as it is set up on a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Installation {
    /// Its unit: `containerd.service`.
    pub unit: String,
    /// Its program's path on the node.
    pub program: String,
    /// Its socket's path on the node.
    pub socket: String,
    /// Its configuration's path on the node, which may not be there.
    pub config: String,
    /// What a stop of the unit ends: `process` leaves pods alone.
    pub kill_mode: String,
}

/// containerd's unit at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnitState {
    /// Which start of the unit this is: another text after each.
    pub start: String,
    /// Whether it runs.
    pub active: bool,
    /// How often the service manager had to start it again by itself.
    pub restarts: u32,
    /// How it ended last, in systemd's words: `success`, `exit-code`, `signal`.
    pub result: String,
}

/// What came of the attempt to start a pod sandbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Proof {
    /// It started.
    Started,
    /// It could not be tried: the node has no pause image or no network for pods yet.
    NotPossible(String),
    /// The runtime did not start it.
    Failed(String),
}

/// What kind of node this is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// The kernel's release: `6.1.0-37-amd64`.
    pub kernel: String,
    /// Which boot this is: another text after each.
    pub boot: String,
    /// How control groups are mounted: `v2`, `hybrid` or `v1`.
    pub cgroups: String,
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
    /// There is no containerd here that this agent may change.
    #[error("{why}")]
    Unsupported {
        /// What was found.
        why: String,
    },
    /// containerd does not take a configuration.
    #[error("containerd does not take {config}: {said}")]
    Config {
        /// Its path on the node.
        config: String,
        /// The end of what containerd said.
        said: String,
    },
    /// containerd did not come up.
    #[error("containerd did not start: {evidence}")]
    Restart {
        /// What the service manager says of it.
        evidence: String,
    },
}

impl HostError {
    /// The reason that users see.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Unavailable { .. } | Self::Unsupported { .. } => Reason::ContainerdUnknown,
            Self::Config { .. } => Reason::ContainerdConfigInvalid,
            Self::Restart { .. } => Reason::ContainerdStartFailed,
        }
    }
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
