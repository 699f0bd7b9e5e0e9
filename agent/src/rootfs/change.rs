//! Every change of the node's disk. Nothing else in the agent makes one.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::io::{self, Write as _};

use cap_std::fs::{File, OpenOptions, OpenOptionsExt as _};
use cap_std_ext::dirext::CapStdExtDirExt as _;
use rootstock_core::layout::TEMP_PREFIX;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use super::gate::{Effect, Kind};
use super::{Entry, Folder, FsError, Output, TempFile};

impl Folder {
    /// Does one thing at a name, if the gate lets it pass.
    fn effect<T>(
        &self,
        kind: Kind,
        name: &str,
        work: impl FnOnce() -> io::Result<T>,
    ) -> io::Result<T> {
        self.gate.pass(|| Effect { kind, path: self.at(name), other: None }, work)
    }

    /// Makes a folder (mode 0755) unless something stands there.
    pub(super) fn make_one(&self, name: &str) -> Result<(), FsError> {
        match self.effect(Kind::MakeFolder, name, || self.dir.create_dir(name)) {
            Ok(()) => self.sync(),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            Err(error) => Err(self.io("make folder", name)(error)),
        }
    }

    /// Opens a file of our own to append to, made where it is missing (mode 0600).
    ///
    /// What is written goes past the gate: where it matters that a byte is
    /// on disk, [`Self::append_to`] is for it.
    pub fn append(&self, name: &str) -> Result<File, FsError> {
        self.plain(name)?;
        self.no_link(name)?;
        // A pipe that comes between the look and this must not hold us up.
        let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE;
        let flags = flags | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let mode = Mode::RUSR | Mode::WUSR;
        let open = || Ok(rustix::fs::openat(&self.dir, name, flags, mode)?);
        let fd = self.effect(Kind::Append, name, open).map_err(self.io("open", name))?;
        let stat =
            rustix::fs::fstat(&fd).map_err(|errno| self.io("look at", name)(errno.into()))?;
        let why = if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            "it is no regular file"
        } else if stat.st_nlink > 1 {
            // Bytes would also go where the other name is.
            "it has another name, too"
        } else {
            return Ok(File::from_std(fd.into()));
        };
        Err(FsError::Refused { path: self.at(name), why })
    }

    /// The same for a file whose every write is an effect.
    pub fn append_to(&self, name: &str) -> Result<Output, FsError> {
        Ok(Output::new(self.append(name)?, self.at(name), self.gate.clone()))
    }

    fn no_link(&self, name: &str) -> Result<(), FsError> {
        match self.entry(name)? {
            None | Some(Entry::File { .. }) => Ok(()),
            Some(Entry::Link(_)) => {
                Err(FsError::Refused { path: self.at(name), why: "it is a link" })
            }
            Some(Entry::Folder | Entry::Other) => {
                Err(FsError::Refused { path: self.at(name), why: "it is no regular file" })
            }
        }
    }

    /// Calls that the capability directory does not know take plain names alone.
    fn plain(&self, name: &str) -> Result<(), FsError> {
        if matches!(name, "" | "." | "..") || name.contains('/') {
            return Err(FsError::Refused { path: self.at(name), why: "it is no plain name" });
        }
        Ok(())
    }

    /// A temporary file in this folder (mode 0600).
    pub fn temp_file(&self) -> Result<TempFile<'_>, FsError> {
        let name = format!("{TEMP_PREFIX}{:016x}", random());
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true).mode(0o600);
        let open = || self.dir.open_with(&name, &options);
        let file = self.effect(Kind::Create, &name, open).map_err(self.io("create", &name))?;
        let file = Output::new(file, self.at(&name), self.gate.clone());
        Ok(TempFile { folder: self, name, file, kept: false })
    }

    /// Puts a file with these bytes and this mode in place of what is there.
    pub fn replace(&self, name: &str, bytes: &[u8], mode: u32) -> Result<(), FsError> {
        let mut temp = self.temp_file()?;
        temp.file().write_all(bytes).map_err(self.io("write", name))?;
        temp.persist(name, mode)
    }

    /// Puts a link in place of the link that is there, if one is.
    pub fn link(&self, name: &str, target: &str) -> Result<(), FsError> {
        match self.entry(name)? {
            None | Some(Entry::Link(_)) => {}
            Some(Entry::File { .. } | Entry::Folder | Entry::Other) => {
                return Err(FsError::Refused {
                    path: self.at(name),
                    why: "it was not made by Rootstock",
                });
            }
        }
        let temp = format!("{TEMP_PREFIX}{:016x}", random());
        let link = || self.dir.symlink(target, &temp);
        self.effect(Kind::Link, &temp, link).map_err(self.io("link", name))?;
        self.rename(&temp, name)
    }

    /// Renames in this folder, replacing what is at `to`.
    pub fn rename(&self, from: &str, to: &str) -> Result<(), FsError> {
        let rename = || self.dir.rename(from, &self.dir, to);
        self.pair(Kind::Rename, from, to, rename).map_err(self.io("rename to", to))?;
        self.sync()
    }

    /// Renames in this folder, replacing nothing: false where `to` exists.
    pub fn rename_new(&self, from: &str, to: &str) -> Result<bool, FsError> {
        match self.rename_with(Kind::Rename, from, to, RenameFlags::NOREPLACE) {
            Ok(()) => Ok(true),
            Err(FsError::Io { source, .. }) if source.kind() == io::ErrorKind::AlreadyExists => {
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// Exchanges what stands at two names in one step, so that what was there
    /// is still at hand. Not every filesystem can: the caller falls back.
    pub fn exchange(&self, a: &str, b: &str) -> Result<(), FsError> {
        self.rename_with(Kind::Exchange, a, b, RenameFlags::EXCHANGE)
    }

    fn rename_with(
        &self,
        kind: Kind,
        from: &str,
        to: &str,
        flags: RenameFlags,
    ) -> Result<(), FsError> {
        self.plain(from)?;
        self.plain(to)?;
        let rename = || Ok(rustix::fs::renameat_with(&self.dir, from, &self.dir, to, flags)?);
        self.pair(kind, from, to, rename).map_err(self.io("rename to", to))?;
        self.sync()
    }

    fn pair(
        &self,
        kind: Kind,
        from: &str,
        to: &str,
        work: impl FnOnce() -> io::Result<()>,
    ) -> io::Result<()> {
        let effect = || Effect { kind, path: self.at(from), other: Some(self.at(to)) };
        self.gate.pass(effect, work)
    }

    /// Removes a file, a link, or a folder with everything in it, without
    /// following a link. Whether there was something.
    pub fn remove(&self, name: &str) -> Result<bool, FsError> {
        let there = self.remove_all(name)?;
        if there {
            self.sync()?;
        }
        Ok(there)
    }

    fn remove_all(&self, name: &str) -> Result<bool, FsError> {
        self.plain(name)?;
        let removed = match self.entry(name)? {
            None => return Ok(false),
            Some(Entry::Folder) => {
                if let Some(folder) = self.open(name)? {
                    for below in folder.names()? {
                        folder.remove_all(&below)?;
                    }
                }
                let remove = || Ok(rustix::fs::unlinkat(&self.dir, name, AtFlags::REMOVEDIR)?);
                self.effect(Kind::Remove, name, remove)
            }
            Some(Entry::File { .. } | Entry::Link(_) | Entry::Other) => self.unlink(name),
        };
        match removed {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(self.io("remove", name)(error)),
        }
    }

    /// Removes what is no folder.
    pub(super) fn unlink(&self, name: &str) -> io::Result<()> {
        let unlink = || rustix::fs::unlinkat(&self.dir, name, AtFlags::empty());
        self.effect(Kind::Remove, name, || unlink().map_err(Errno::into))
    }

    /// Brings the folder's own entries to disk.
    pub fn sync(&self) -> Result<(), FsError> {
        let sync = || self.dir.reopen_as_ownedfd().and_then(|fd| Ok(rustix::fs::fsync(fd)?));
        self.effect(Kind::SyncFolder, "", sync).map_err(self.io("sync", ""))
    }

    /// Removes our temporary files and links, not our temporary folders: what
    /// is in those was verified and is used again.
    pub fn sweep(&self) -> Result<(), FsError> {
        for name in self.names()?.into_iter().filter(|name| name.starts_with(TEMP_PREFIX)) {
            if self.entry(&name)?.is_some_and(|entry| entry != Entry::Folder) {
                self.remove(&name)?;
            }
        }
        Ok(())
    }
}

/// A number that two processes or moments don't share; no secret.
pub(crate) fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}
