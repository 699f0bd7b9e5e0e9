//! Which file stands at a name, so that nobody else's is taken for it later.

use std::io::{ErrorKind, Read as _};
use std::time::{Duration, SystemTime};

use cap_std::fs::{Metadata, MetadataExt as _};
use cap_std_ext::dirext::CapStdExtDirExt as _;
use rootstock_core::digest::Digest;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::{Folder, FsError, Rootfs};

/// A regular file, as far as that can be told without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Identity {
    inode: u64,
    size: u64,
    /// When it was changed: seconds since 1970, and nanoseconds.
    modified: (i64, i64),
}

impl Identity {
    fn of(meta: &Metadata) -> Option<Self> {
        let modified = (meta.mtime(), meta.mtime_nsec());
        meta.is_file().then(|| Self { inode: meta.ino(), size: meta.len(), modified })
    }
}

impl Folder {
    /// How long ago a file was written, renamed or linked; none where it is not
    /// there, or where the clock says that it is yet to come.
    pub fn since_change(&self, name: &str) -> Result<Option<Duration>, FsError> {
        let meta = self.dir.symlink_metadata_optional(name).map_err(self.io("look at", name))?;
        let Some(meta) = meta else { return Ok(None) };
        let seconds = Duration::from_secs(u64::try_from(meta.ctime()).unwrap_or_default());
        let nanos = Duration::from_nanos(u64::try_from(meta.ctime_nsec()).unwrap_or_default());
        Ok((SystemTime::UNIX_EPOCH + seconds + nanos).elapsed().ok())
    }
}

/// A file as it was when somebody looked at every byte of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Note {
    /// Which file.
    #[serde(flatten)]
    pub identity: Identity,
    /// Its bytes.
    pub sha256: Digest,
}

impl Folder {
    /// Which regular file stands at a name; none where another thing does, or nothing.
    pub fn identity(&self, name: &str) -> Result<Option<Identity>, FsError> {
        let meta = self.dir.symlink_metadata_optional(name).map_err(self.io("look at", name))?;
        Ok(meta.as_ref().and_then(Identity::of))
    }

    /// The regular file at a name with its bytes; none where another thing
    /// stands, or nothing, or where it changes at this moment.
    pub fn note(&self, name: &str) -> Result<Option<Note>, FsError> {
        let Some(before) = self.identity(name)? else { return Ok(None) };
        let Some(mut file) = self.read_file(name)? else { return Ok(None) };
        let mut hash = Sha256::new();
        let mut buffer = vec![0; 256 << 10];
        loop {
            match file.read(&mut buffer) {
                Ok(0) => break,
                Ok(read) => hash.update(&buffer[..read]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(self.io("read", name)(error)),
            }
        }
        let meta = file.metadata().map_err(self.io("look at", name))?;
        let identity = Identity::of(&meta).filter(|identity| *identity == before);
        let sha256 = Digest::from_bytes(hash.finalize().into());
        Ok(identity.map(|identity| Note { identity, sha256 }))
    }
}

impl Rootfs {
    /// The folder of a file by its absolute path on the node, and its name
    /// there; none where the folder is not there.
    pub fn folder_of<'a>(&self, path: &'a str) -> Result<Option<(Folder, &'a str)>, FsError> {
        let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
        Ok(self.folder(folder)?.map(|folder| (folder, name)))
    }
}
