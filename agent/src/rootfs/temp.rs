//! Open files that are written: bytes go through the gate as all effects do.

use std::io::{self, Write};
use std::num::NonZeroU64;

use cap_std::fs::{File, PermissionsExt as _};
use rustix::fs::Advice;

use super::gate::{Effect, Gate, Kind};
use super::{Entry, Folder, FsError};

/// A file that is open for writing.
#[derive(Debug)]
pub struct Output {
    file: File,
    /// On the node, when it was opened.
    path: String,
    gate: Gate,
}

impl Output {
    pub(super) fn new(file: File, path: String, gate: Gate) -> Self {
        Self { file, path, gate }
    }

    /// Its bytes and its size are on disk when this returns.
    pub fn sync_data(&self) -> io::Result<()> {
        self.effect(Kind::SyncFile, || self.file.sync_data())
    }

    /// Asks the kernel to begin with these bytes by itself, so that a later sync
    /// finds little left. `sync_file_range` would say it better, and rustix has
    /// none; this one also drops pages that are on the disk already, which bytes
    /// that were just written are not.
    pub fn begin_writeback(&self, from: u64, bytes: u64) {
        // No effect of its own, and only a hint: the sync tells what went wrong.
        let begun = rustix::fs::fadvise(&self.file, from, NonZeroU64::new(bytes), Advice::DontNeed);
        if let Err(error) = begun {
            tracing::debug!(path = self.path, %error, "no early writeback");
        }
    }

    fn sync_all(&self) -> io::Result<()> {
        self.effect(Kind::SyncFile, || self.file.sync_all())
    }

    fn set_mode(&self, mode: u32) -> io::Result<()> {
        let permissions = cap_std::fs::Permissions::from_mode(mode);
        self.effect(Kind::SetMode, || self.file.set_permissions(permissions))
    }

    fn effect<T>(&self, kind: Kind, work: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        self.gate.pass(|| Effect { kind, path: self.path.clone(), other: None }, work)
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.effect(Kind::Write(bytes.len()), || (&self.file).write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        // Nothing is kept back.
        Ok(())
    }
}

impl From<File> for Output {
    /// A file that no gate stands before, and nobody knows the name of.
    fn from(file: File) -> Self {
        Self { file, path: String::new(), gate: Gate::default() }
    }
}

/// A file that is not yet where it should be; it goes away unless it is kept.
#[derive(Debug)]
pub struct TempFile<'a> {
    pub(super) folder: &'a Folder,
    pub(super) name: String,
    pub(super) file: Output,
    pub(super) kept: bool,
}

impl TempFile<'_> {
    /// The open file.
    pub fn file(&mut self) -> &mut Output {
        &mut self.file
    }

    /// Puts it at its place, with everything on disk when this returns.
    pub fn persist(mut self, name: &str, mode: u32) -> Result<(), FsError> {
        let done = self.file.set_mode(mode).and_then(|()| self.file.sync_all());
        done.map_err(self.folder.io("write", name))?;
        if self.folder.entry(name)? == Some(Entry::Folder) {
            return Err(FsError::Refused { path: self.folder.at(name), why: "it is a folder" });
        }
        self.folder.rename(&self.name, name)?;
        self.kept = true;
        Ok(())
    }
}

impl Drop for TempFile<'_> {
    fn drop(&mut self) {
        if !self.kept
            && let Err(error) = self.folder.unlink(&self.name)
        {
            // The sweep at the next start takes it.
            tracing::debug!(name = self.name, %error, "could not remove a temporary file");
        }
    }
}
