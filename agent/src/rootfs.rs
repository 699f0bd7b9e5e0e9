//! The node's files, below one capability directory and never through a link.
//!
//! A [`Folder`] is a handle that was reached step by step without following
//! anything, so what is done with it can't be led elsewhere by a link that
//! someone puts in the way in the meantime. Files appear whole or not at all:
//! temporary file beside its place → fsync → rename → fsync of the folder.
//! All of it passes one gate, where tests kill the agent at each step.

mod change;
mod gate;
mod identity;
mod temp;
#[cfg(test)]
mod tests;

use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use cap_std::ambient_authority;
use cap_std::fs::{Dir, File, PermissionsExt as _};
use cap_std_ext::dirext::CapStdExtDirExt as _;
pub(crate) use change::random;
use gate::Gate;
pub use gate::{Effect, Kind, OnlyLooks, Watcher, watched};
pub use identity::{Identity, Note};
use rootstock_core::path::{BinaryPath, BinaryPathRefused, BinaryRoots};
use rootstock_core::status::Reason;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
pub use temp::{Output, TempFile};

/// The node's root and the folders in it that may hold runtimes.
#[derive(Debug)]
pub struct Rootfs {
    root: Folder,
    host: PathBuf,
    binary_roots: BinaryRoots,
}

/// A folder on the node.
#[derive(Debug)]
pub struct Folder {
    dir: Dir,
    /// As people on the node know it.
    path: String,
    gate: Gate,
}

/// What stands at a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// A regular file with its size in bytes and its permission bits.
    File {
        /// Bytes.
        size: u64,
        /// `0o777` at most, or with the bits that we never set.
        mode: u32,
    },
    /// A folder.
    Folder,
    /// A link and where it leads.
    Link(String),
    /// A device, socket or pipe.
    Other,
}

/// Why something on the node could not be done.
#[derive(Debug, thiserror::Error)]
pub enum FsError {
    /// The binaryPath is not among the allowed ones.
    #[error(transparent)]
    BinaryPath(#[from] BinaryPathRefused),
    /// Something is in the way.
    #[error("{path} on the node is refused: {why}")]
    Refused {
        /// On the node.
        path: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The disk or the kernel said no.
    #[error("{what} {path} on the node")]
    Io {
        /// What was tried.
        what: &'static str,
        /// On the node.
        path: String,
        /// What the kernel said.
        source: io::Error,
    },
}

impl FsError {
    /// The reason that users see.
    pub fn reason(&self) -> Reason {
        match self {
            Self::BinaryPath(_) => Reason::BinaryPathRefused,
            Self::Refused { .. } => Reason::PathRefused,
            Self::Io { source, .. } => {
                match Errno::from_io_error(source) {
                    Some(Errno::NOSPC | Errno::DQUOT) => Reason::NoSpace,
                    // What the kernel says to O_NOFOLLOW when a link was put in the way.
                    Some(Errno::NOTDIR | Errno::LOOP) => Reason::PathRefused,
                    _ => Reason::HostError,
                }
            }
        }
    }
}

impl Rootfs {
    /// Opens the node's root.
    pub fn open(host: &Path, binary_roots: BinaryRoots) -> Result<Self, FsError> {
        Self::open_at(host, binary_roots, Gate::of_this_thread())
    }

    /// Opens the node's root with a watcher of every change below it.
    pub fn open_gated(
        host: &Path,
        binary_roots: BinaryRoots,
        watcher: Arc<dyn Watcher>,
    ) -> Result<Self, FsError> {
        Self::open_at(host, binary_roots, Gate::new(watcher))
    }

    fn open_at(host: &Path, binary_roots: BinaryRoots, gate: Gate) -> Result<Self, FsError> {
        let dir = Dir::open_ambient_dir(host, ambient_authority()).map_err(|source| {
            FsError::Io { what: "open the root", path: host.display().to_string(), source }
        })?;
        let root = Folder { dir, path: String::new(), gate };
        Ok(Self { root, host: host.to_owned(), binary_roots })
    }

    /// The node's root as this process sees it.
    pub fn host(&self) -> &Path {
        &self.host
    }

    /// The folders below which runtimes may lie.
    pub fn binary_roots(&self) -> &BinaryRoots {
        &self.binary_roots
    }

    /// A folder by its absolute path on the node; none where it is not there.
    pub fn folder(&self, path: &str) -> Result<Option<Folder>, FsError> {
        self.root.open(path.trim_start_matches('/'))
    }

    /// A folder by its absolute path on the node, made where it is missing.
    pub fn make_folder(&self, path: &str) -> Result<Folder, FsError> {
        self.root.make(path.trim_start_matches('/'))
    }

    /// The folder of a binaryPath; none where it is not there.
    pub fn binary_path(&self, path: &BinaryPath) -> Result<Option<Folder>, FsError> {
        self.binary_roots.check(path)?;
        self.root.open(path.below_root())
    }

    /// The folder of a binaryPath, made where it is missing.
    pub fn make_binary_path(&self, path: &BinaryPath) -> Result<Folder, FsError> {
        self.binary_roots.check(path)?;
        self.root.make(path.below_root())
    }
}

impl Folder {
    /// Its path on the node.
    pub fn path(&self) -> &str {
        if self.path.is_empty() { "/" } else { &self.path }
    }

    fn at(&self, name: &str) -> String {
        format!("{}/{name}", self.path)
    }

    fn io(&self, what: &'static str, name: &str) -> impl FnOnce(io::Error) -> FsError {
        let path = self.at(name);
        move |source| FsError::Io { what, path, source }
    }

    /// A folder below, by a path of plain parts; none where it is not there.
    pub fn open(&self, relative: &str) -> Result<Option<Self>, FsError> {
        self.walk(relative, false)
    }

    /// A folder below, made where it is missing (mode 0755).
    pub fn make(&self, relative: &str) -> Result<Self, FsError> {
        let made = self.walk(relative, true)?;
        // `walk` makes what is missing, so it is only absent when it was taken away at once.
        made.ok_or_else(|| FsError::Refused {
            path: self.at(relative),
            why: "it vanished while it was opened",
        })
    }

    fn walk(&self, relative: &str, make: bool) -> Result<Option<Self>, FsError> {
        let dir = self.dir.try_clone().map_err(self.io("open", relative))?;
        let mut at = Self { dir, path: self.path.clone(), gate: self.gate.clone() };
        for part in relative.split('/').filter(|part| !part.is_empty()) {
            match at.entry(part)? {
                Some(Entry::Folder) => {}
                Some(Entry::Link(_)) => {
                    return Err(FsError::Refused { path: at.at(part), why: "it is a link" });
                }
                Some(Entry::File { .. } | Entry::Other) => {
                    return Err(FsError::Refused { path: at.at(part), why: "it is not a folder" });
                }
                None if !make => return Ok(None),
                None => at.make_one(part)?,
            }
            let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::RDONLY;
            let fd = rustix::fs::openat(&at.dir, part, flags, Mode::empty())
                .map_err(|errno| at.io("open folder", part)(errno.into()))?;
            let path = at.at(part);
            at = Self { dir: Dir::from_std_file(fd.into()), path, gate: at.gate };
        }
        Ok(Some(at))
    }

    /// What stands at a name; none where nothing does.
    pub fn entry(&self, name: &str) -> Result<Option<Entry>, FsError> {
        let Some(meta) =
            self.dir.symlink_metadata_optional(name).map_err(self.io("look at", name))?
        else {
            return Ok(None);
        };
        Ok(Some(if meta.is_dir() {
            Entry::Folder
        } else if meta.is_symlink() {
            // `read_link_contents` also reads links that lead out, without following.
            let target = self.dir.read_link_contents(name).map_err(self.io("read link", name))?;
            Entry::Link(target.to_string_lossy().into_owned())
        } else if meta.is_file() {
            Entry::File { size: meta.len(), mode: meta.permissions().mode() & 0o7777 }
        } else {
            Entry::Other
        }))
    }

    /// How long ago a file was changed; none where it is not there, or where
    /// the clock says that it is yet to come.
    pub fn age(&self, name: &str) -> Result<Option<Duration>, FsError> {
        let meta = self.dir.symlink_metadata_optional(name).map_err(self.io("look at", name))?;
        let Some(meta) = meta else { return Ok(None) };
        let changed = meta.modified().map_err(self.io("look at", name))?;
        Ok(changed.into_std().elapsed().ok())
    }

    /// The names in it, sorted.
    pub fn names(&self) -> Result<Vec<String>, FsError> {
        let mut names = Vec::new();
        for entry in self.dir.entries().map_err(self.io("list", ""))? {
            let entry = entry.map_err(self.io("list", ""))?;
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
        names.sort();
        Ok(names)
    }

    /// Opens a regular file for reading; none where nothing stands there.
    pub fn read_file(&self, name: &str) -> Result<Option<File>, FsError> {
        match self.entry(name)? {
            None => return Ok(None),
            Some(Entry::File { .. }) => {}
            Some(Entry::Folder | Entry::Link(_) | Entry::Other) => {
                return Err(FsError::Refused { path: self.at(name), why: "it is no regular file" });
            }
        }
        let flags = OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::RDONLY | OFlags::NONBLOCK;
        match rustix::fs::openat(&self.dir, name, flags, Mode::empty()) {
            Ok(fd) => Ok(Some(File::from_std(fd.into()))),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(self.io("open", name)(errno.into())),
        }
    }

    /// A regular file's bytes, `limit` at most; none where nothing stands there.
    pub fn read(&self, name: &str, limit: u64) -> Result<Option<Vec<u8>>, FsError> {
        let Some(file) = self.read_file(name)? else { return Ok(None) };
        let mut bytes = Vec::new();
        file.take(limit + 1).read_to_end(&mut bytes).map_err(self.io("read", name))?;
        if bytes.len() as u64 > limit {
            return Err(FsError::Refused { path: self.at(name), why: "it is too large" });
        }
        Ok(Some(bytes))
    }
}
