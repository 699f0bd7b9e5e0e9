//! A bundle's files, from the registry into their folder.
//!
//! Files come into `.rootstock-tmp-<digest>/` and the folder takes its name
//! when all are there, so a folder with a digest for a name was complete once.
//!
//! ```text
//!  here, and right ─▶ in another bundle on the node ─▶ from the registry
//! ```
//! Each file takes the first way that it can. A delta against a file that the
//! node has would stand before the last.
//!
//! What a killed agent left in the temporary one is hashed and used again; a
//! file that was damaged since is replaced where it stands.

mod local;

use std::cmp::Reverse;
use std::sync::Arc;

use local::Local;
use rootstock_core::bundle::{BundleConfig, BundleFile};
use rootstock_core::desired::{DesiredBundle, Registry};
use rootstock_core::layout::TreeId;
use rootstock_core::status::Reason;

use crate::fetch::{FetchError, Fetcher, Partial, Step, Wanted};
use crate::host::{Host, HostError};
use crate::rootfs::{Entry, Folder, FsError, Rootfs};

/// Bytes that stay free on the node's disk: what the kubelet and journald
/// write while a pull runs.
const SPACE_MARGIN: u64 = 64 << 20;

/// Why a bundle's files are not in place.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// The desired state names a registry that it does not describe.
    #[error("registry {0:?} of the bundle is not among the desired state's registries")]
    NoRegistry(String),
    /// Less room than the files need.
    #[error("{path} has {free} bytes free, {need} are needed")]
    NoSpace {
        /// On the node.
        path: String,
        /// Free bytes.
        free: u64,
        /// Bytes that are needed.
        need: u64,
    },
    /// A file could not be fetched.
    #[error("file {file}")]
    Fetch {
        /// Its path in the bundle.
        file: String,
        /// Why not.
        source: FetchError,
    },
    /// The node's disk.
    #[error(transparent)]
    Fs(#[from] FsError),
    /// The node does not say how much room there is.
    #[error(transparent)]
    Host(#[from] HostError),
    /// A thread of our own.
    #[error("a thread of the agent failed")]
    Thread(#[from] tokio::task::JoinError),
}

impl InstallError {
    /// The reason that users see.
    pub fn reason(&self) -> Reason {
        match self {
            Self::NoRegistry(_) => Reason::ConfigurationInvalid,
            Self::NoSpace { .. } => Reason::NoSpace,
            Self::Fetch { source, .. } => source.reason(),
            Self::Fs(error) => error.reason(),
            Self::Host(_) => Reason::HostError,
            Self::Thread(_) => Reason::Internal,
        }
    }
}

/// How far an installation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Bytes of blobs whose files were here already.
    Here(u64),
    /// Bytes of a blob whose file another bundle on the node has.
    Copied(u64),
    /// Bytes of a blob that came before it was cut off.
    Resumed(u64),
    /// It has to wait for its share of the bandwidth.
    Waits,
    /// Bytes that came over the network.
    Pulled(u64),
}

/// Brings every file of a bundle into its folder.
///
/// Dropped in the middle it leaves what is verified for the next time.
pub async fn install(
    rootfs: &Arc<Rootfs>,
    partial: &Partial,
    host: &dyn Host,
    desired: &DesiredBundle,
    registries: &[Registry],
    progress: &(dyn Fn(Progress) + Send + Sync),
) -> Result<(), InstallError> {
    let registry = registries
        .iter()
        .find(|registry| registry.name == desired.registry)
        .ok_or_else(|| InstallError::NoRegistry(desired.registry.clone()))?;
    let tree = tree_of(desired);
    let (rootfs, bundle) = (Arc::clone(rootfs), desired.config.config().clone());
    let at = {
        let (tree, rootfs) = (tree.clone(), Arc::clone(&rootfs));
        let threads = &partial.shared.threads;
        threads.spawn_blocking(move || begin(&rootfs, &tree, &bundle)).await??
    };
    let bundle = desired.config.config();
    let here: u64 = bundle.blob_bytes() - at.missing.iter().map(|file| file.blob_size).sum::<u64>();
    progress(Progress::Here(here));
    if !at.missing.is_empty() {
        let plain: u64 = at.missing.iter().map(|file| file.size).sum();
        // The compressed bytes of one file at a time are beside them.
        let blob = at.missing.iter().map(|file| file.blob_size).max().unwrap_or(0);
        let path = rootfs.host().join(tree.binary_path.below_root());
        let free = host.free_space(&path).await?;
        // Other bundles that come at the same time want room too.
        let room = partial.shared.room(plain + blob, SPACE_MARGIN, free);
        let mut room = room.map_err(|need| InstallError::NoSpace {
            path: tree.binary_path.to_string(),
            free,
            need,
        })?;
        let failed =
            |file: &BundleFile, source| InstallError::Fetch { file: file.path.to_string(), source };
        let mut fetcher = Fetcher::new(registry, &desired.repository, partial.clone())
            .map_err(|source| failed(&at.missing[0], source))?;
        let mut local = at.local;
        for (number, file) in at.missing.iter().enumerate() {
            let folder = match file.path.folders().last() {
                None => Arc::clone(&at.folder),
                Some(below) => Arc::new(at.folder.make(below)?),
            };
            let step = |step| match step {
                Step::Came(bytes) => progress(Progress::Pulled(bytes)),
                Step::Resumes(bytes) => progress(Progress::Resumed(bytes)),
                Step::Waits => progress(Progress::Waits),
            };
            let copied = {
                let (file, into) = (file.clone(), Arc::clone(&folder));
                let copy = move || (local.copy(&file, &into), local);
                let (copied, back) = partial.shared.threads.spawn_blocking(copy).await?;
                local = back;
                copied?
            };
            if copied {
                progress(Progress::Copied(file.blob_size));
            } else {
                if number + 1 == at.missing.len() {
                    fetcher.ends();
                }
                fetcher
                    .fetch(&wanted(file), &folder, &step)
                    .await
                    .map_err(|source| failed(file, source))?;
            }
            local.add(&folder, file.path.file_name(), file.size);
            room.used(file.size);
        }
    }
    if at.temporary {
        // All its files are on disk: now it may have its name.
        let name = move || {
            at.folder.sync()?;
            at.parent.rename(&tree.temp_name(), &tree.name())
        };
        partial.shared.threads.spawn_blocking(name).await??;
    }
    Ok(())
}

fn tree_of(desired: &DesiredBundle) -> TreeId {
    TreeId {
        binary_path: desired.binary_path.clone(),
        runtime: desired.runtime().clone(),
        digest: desired.digest,
    }
}

fn wanted(file: &BundleFile) -> Wanted {
    Wanted {
        blob: file.blob,
        blob_size: file.blob_size,
        plain: file.sha256,
        plain_size: file.size,
        name: file.path.file_name().to_owned(),
        mode: file.mode.bits(),
    }
}

struct Begun {
    parent: Folder,
    folder: Arc<Folder>,
    temporary: bool,
    missing: Vec<BundleFile>,
    /// What of other bundles is here; nothing where nothing is missing.
    local: Local,
}

/// Opens the folder, sweeps it, and says which files are not there.
fn begin(rootfs: &Rootfs, tree: &TreeId, bundle: &BundleConfig) -> Result<Begun, FsError> {
    let top = rootfs.make_binary_path(&tree.binary_path)?;
    let parent = top.make(&tree.parent())?;
    parent.sweep()?;
    let (folder, temporary) = match parent.open(&tree.name())? {
        Some(folder) => (folder, false),
        None => (parent.make(&tree.temp_name())?, true),
    };
    sweep_below(&folder)?;
    let mut missing = Vec::new();
    for file in &bundle.files {
        if !is_right(&folder, file, true)? {
            missing.push(file.clone());
        }
    }
    // The long ones first: where many nodes wait in line, their first pulls then
    // fill the budget, and the short ones of all go beside them.
    missing.sort_by_key(|file| Reverse(file.blob_size));
    let local = if missing.is_empty() { Local::default() } else { Local::of(&top) };
    Ok(Begun { parent, folder: Arc::new(folder), temporary, missing, local })
}

fn sweep_below(folder: &Folder) -> Result<(), FsError> {
    folder.sweep()?;
    for name in folder.names()? {
        if folder.entry(&name)? == Some(Entry::Folder)
            && let Some(below) = folder.open(&name)?
        {
            sweep_below(&below)?;
        }
    }
    Ok(())
}

/// Whether a complete folder is as it should be: by size and mode, or by every byte.
pub(crate) fn is_intact(
    folder: &Folder,
    bundle: &BundleConfig,
    every_byte: bool,
) -> Result<bool, FsError> {
    for file in &bundle.files {
        if !is_right(folder, file, every_byte)? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn is_right(folder: &Folder, file: &BundleFile, every_byte: bool) -> Result<bool, FsError> {
    let below = match file.path.folders().last() {
        None => None,
        Some(path) => match folder.open(path)? {
            None => return Ok(false),
            below => below,
        },
    };
    let folder = below.as_ref().unwrap_or(folder);
    let name = file.path.file_name();
    let want = Entry::File { size: file.size, mode: file.mode.bits() };
    if folder.entry(name)? != Some(want) {
        return Ok(false);
    }
    if !every_byte {
        return Ok(true);
    }
    Ok(local::hash(folder, name)? == Some(file.sha256))
}
