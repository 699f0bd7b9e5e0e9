//! The folder that a world's state is in.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

/// What tells that a folder is ours; it is locked while a world runs in it.
const MARKER: &str = ".rootstock-playground";

/// A world's folder: a temporary one that goes at the end, or one to keep.
#[derive(Debug)]
pub(super) struct StateDir {
    path: PathBuf,
    _lock: File,
    temporary: Option<tempfile::TempDir>,
}

/// Why a folder can't be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// Somebody's files are in it.
    #[error("{0:?} is neither empty nor the folder of an earlier start; choose another")]
    Foreign(PathBuf),
    /// Another world runs in it.
    #[error("{0:?} is in use by another rootstock-playground; end that first, or choose another")]
    InUse(PathBuf),
    /// The disk says no.
    #[error("can't use {path:?}: {kind}")]
    Io {
        /// Which file or folder.
        path: PathBuf,
        /// What kind of error, in short.
        kind: io::ErrorKind,
        /// The whole error.
        source: io::Error,
    },
}

impl StateDir {
    /// Opens the folder to keep, or makes a temporary one.
    ///
    /// # Errors
    /// It is somebody else's, in use, or can't be written.
    pub(super) fn open(kept: Option<&Path>) -> Result<Self, Error> {
        let temporary = match kept {
            Some(_) => None,
            // A short name: sockets below it have at most 107 characters.
            None => {
                let made = tempfile::Builder::new().prefix("rootstock-").tempdir();
                Some(made.map_err(|source| failed(&std::env::temp_dir(), source))?)
            }
        };
        let path = match (&temporary, kept) {
            (Some(temporary), _) => temporary.path().to_owned(),
            (None, Some(kept)) => check(kept)?,
            (None, None) => std::env::temp_dir(),
        };
        fs::create_dir_all(&path).map_err(|source| failed(&path, source))?;
        let path = path.canonicalize().map_err(|source| failed(&path, source))?;
        let marker = path.join(MARKER);
        let lock = File::create(&marker).map_err(|source| failed(&marker, source))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path, _lock: lock, temporary }),
            Err(TryLockError::WouldBlock) => Err(Error::InUse(path)),
            Err(TryLockError::Error(source)) => Err(failed(&marker, source)),
        }
    }

    /// The folder, absolute.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it stays when the world has ended.
    pub(super) fn is_kept(&self) -> bool {
        self.temporary.is_none()
    }
}

/// Whether the folder may be used: new, empty or ours.
///
/// # Errors
/// It is somebody else's or can't be read.
pub(super) fn check(path: &Path) -> Result<PathBuf, Error> {
    match fs::read_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(path.to_owned()),
        Err(source) => Err(failed(path, source)),
        Ok(mut entries) => {
            if entries.next().is_none() || path.join(MARKER).is_file() {
                return Ok(path.to_owned());
            }
            Err(Error::Foreign(path.to_owned()))
        }
    }
}

fn failed(path: &Path, source: io::Error) -> Error {
    Error::Io { path: path.to_owned(), kind: source.kind(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_ours_alone() {
        let home = tempfile::tempdir().unwrap();
        let new = home.path().join("new");
        let first = StateDir::open(Some(&new)).unwrap();
        assert!(first.is_kept());
        assert!(matches!(StateDir::open(Some(&new)), Err(Error::InUse(_))));
        drop(first);
        // Ours from before: fine. A folder with other things in it: not.
        assert!(StateDir::open(Some(&new)).is_ok());
        assert!(matches!(StateDir::open(Some(home.path())), Err(Error::Foreign(_))));
        let file = new.join(MARKER);
        assert!(matches!(StateDir::open(Some(&file)), Err(Error::Io { .. })));
    }

    #[test]
    fn a_temporary_folder_goes_at_the_end() {
        let dir = StateDir::open(None).unwrap();
        let path = dir.path().to_owned();
        assert!(path.is_dir() && !dir.is_kept());
        drop(dir);
        assert!(!path.exists());
    }
}
