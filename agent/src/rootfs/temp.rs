//! Files that appear whole or not at all.

use cap_std::fs::{File, PermissionsExt as _};

use super::{Entry, Folder, FsError};

/// A file that is not yet where it should be; it goes away unless it is kept.
#[derive(Debug)]
pub struct TempFile<'a> {
    pub(super) folder: &'a Folder,
    pub(super) name: String,
    pub(super) file: File,
    pub(super) kept: bool,
}

impl TempFile<'_> {
    /// The open file.
    pub fn file(&mut self) -> &mut File {
        &mut self.file
    }

    /// Puts it at its place, with everything on disk when this returns.
    pub fn persist(mut self, name: &str, mode: u32) -> Result<(), FsError> {
        let permissions = cap_std::fs::Permissions::from_mode(mode);
        let done = self.file.set_permissions(permissions).and_then(|()| self.file.sync_all());
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
            && let Err(error) = self.folder.dir.remove_file(&self.name)
        {
            // The sweep at the next start takes it.
            tracing::debug!(name = self.name, %error, "could not remove a temporary file");
        }
    }
}
