//! Files that the node has already, under another bundle's name.
//!
//! A file is known by the sha256 of its bytes alone: whether an older bundle of
//! the type has it, another type, or the same bundle at another path. It is
//! copied and not linked, for damage to one must not be damage to both.

use std::collections::BTreeMap;
use std::io::{self, Read as _, Write as _};
use std::sync::Arc;

use cap_std::fs::File;
use rootstock_core::bundle::BundleFile;
use rootstock_core::digest::Digest;
use rootstock_core::layout::{FOLDER, TEMP_PREFIX};
use sha2::{Digest as _, Sha256};

use crate::fetch::FLUSH;
use crate::rootfs::{Entry, Folder, FsError};

/// How deep a bundle's folders are looked into. A bundle has few levels; this
/// bounds what somebody else's links or folders could make of it.
const DEPTH: usize = 16;

/// The regular files of all bundles below one binaryPath, by size: bytes are
/// hashed only where that is the same.
#[derive(Debug, Default)]
pub(super) struct Local(BTreeMap<u64, Vec<(Arc<Folder>, String)>>);

impl Local {
    /// Looks through the bundles below a binaryPath, complete ones and those
    /// that a killed agent left half done. Blocking.
    pub(super) fn of(binary_path: &Folder) -> Self {
        let mut local = Self::default();
        let looked = binary_path.open(FOLDER).and_then(|bundles| match bundles {
            Some(bundles) => local.look(&Arc::new(bundles), DEPTH),
            None => Ok(()),
        });
        if let Err(error) = looked {
            // What can't be looked at is fetched.
            tracing::debug!(%error, "not all bundles can be looked through");
        }
        local
    }

    fn look(&mut self, folder: &Arc<Folder>, depth: usize) -> Result<(), FsError> {
        for name in folder.names()? {
            match folder.entry(&name)? {
                Some(Entry::File { size, .. }) if !name.starts_with(TEMP_PREFIX) => {
                    self.add(folder, &name, size);
                }
                Some(Entry::Folder) if depth > 0 => {
                    if let Some(below) = folder.open(&name)? {
                        self.look(&Arc::new(below), depth - 1)?;
                    }
                }
                Some(Entry::File { .. } | Entry::Folder | Entry::Link(_) | Entry::Other) | None => {
                }
            }
        }
        Ok(())
    }

    /// A file that is there from now on.
    pub(super) fn add(&mut self, folder: &Arc<Folder>, name: &str, size: u64) {
        self.0.entry(size).or_default().push((Arc::clone(folder), name.to_owned()));
    }

    /// Puts a file in place where the node has its bytes. Whether it has. Blocking.
    pub(super) fn copy(&self, file: &BundleFile, into: &Folder) -> Result<bool, FsError> {
        for (folder, name) in self.0.get(&file.size).into_iter().flatten() {
            let found = match hash(folder, name) {
                Ok(found) => found == Some(file.sha256),
                Err(error) => {
                    tracing::debug!(%error, "a file is passed over");
                    false
                }
            };
            if found && copy(folder, name, file, into)? {
                tracing::info!(file = %file.path, from = folder.path(), "a file is here already");
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// The sha256 of a file's bytes; none where it is not there. Blocking.
pub(super) fn hash(folder: &Folder, name: &str) -> Result<Option<Digest>, FsError> {
    let Some(content) = folder.read_file(name)? else { return Ok(None) };
    let mut hash = Sha256::new();
    read(folder, name, content, |bytes| {
        hash.update(bytes);
        Ok(())
    })?;
    Ok(Some(Digest::from_bytes(hash.finalize().into())))
}

/// Copies a file that had the right bytes a moment ago. Whether it still had.
fn copy(from: &Folder, name: &str, file: &BundleFile, into: &Folder) -> Result<bool, FsError> {
    let Some(content) = from.read_file(name)? else { return Ok(false) };
    let mut temp = into.temp_file()?;
    let mut hash = Sha256::new();
    let (mut size, mut begun) = (0, 0);
    read(from, name, content, |bytes| {
        hash.update(bytes);
        size += bytes.len() as u64;
        temp.file().write_all(bytes).map_err(|source| {
            let path = format!("{}/{}", into.path(), file.path.file_name());
            FsError::Io { what: "write", path, source }
        })?;
        if size - begun >= FLUSH {
            temp.file().begin_writeback(begun, size - begun);
            begun = size;
        }
        Ok(())
    })?;
    if Digest::from_bytes(hash.finalize().into()) != file.sha256 {
        return Ok(false);
    }
    temp.persist(file.path.file_name(), file.mode.bits())?;
    Ok(true)
}

fn read(
    folder: &Folder,
    name: &str,
    mut content: File,
    mut each: impl FnMut(&[u8]) -> Result<(), FsError>,
) -> Result<(), FsError> {
    let mut buffer = vec![0; 256 << 10];
    loop {
        match content.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(read) => each(&buffer[..read])?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(source) => {
                let path = format!("{}/{name}", folder.path());
                return Err(FsError::Io { what: "read", path, source });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use rootstock_core::bundle::FileMode;
    use rootstock_core::path::BinaryRoots;

    use super::*;
    use crate::rootfs::Rootfs;

    fn wanted(bytes: &[u8]) -> BundleFile {
        BundleFile {
            path: "share/data".parse().unwrap(),
            mode: FileMode::DATA,
            size: bytes.len() as u64,
            sha256: Digest::of(bytes),
            blob: Digest::of(b"blob"),
            blob_size: 9,
        }
    }

    #[test]
    fn a_file_is_found_by_its_bytes_wherever_it_is() {
        let root = tempfile::tempdir().unwrap();
        let rootfs = Rootfs::open(root.path(), BinaryRoots::default()).unwrap();
        let top = rootfs.make_folder("/bin").unwrap();
        let bytes = vec![7; 300 << 10];
        let put = |path: &str, name: &str, bytes: &[u8]| {
            top.make(path).unwrap().replace(name, bytes, 0o755).unwrap();
        };
        // The same size and other bytes; a link; a file that is no bundle's.
        put(".rootstock/a/1", "first", &[&[8; 1], &bytes[1..]].concat());
        symlink("/etc/passwd", root.path().join("bin/.rootstock/a/1/link")).unwrap();
        put("", "runsc", &bytes);
        let into = top.make(".rootstock/b/.rootstock-tmp-2/share").unwrap();
        let local = Local::of(&top);
        assert!(!local.copy(&wanted(&bytes), &into).unwrap());
        assert_eq!(into.names().unwrap(), Vec::<String>::new());

        put(".rootstock/c/.rootstock-tmp-3/deep/er", "other-name", &bytes);
        let local = Local::of(&top);
        assert!(local.copy(&wanted(&bytes), &into).unwrap());
        let there = Some(Entry::File { size: 300 << 10, mode: 0o644 });
        assert_eq!(into.entry("data").unwrap(), there);
        assert_eq!(hash(&into, "data").unwrap(), Some(Digest::of(&bytes)));
        // It is a file of its own.
        put(".rootstock/c/.rootstock-tmp-3/deep/er", "other-name", b"damaged");
        assert_eq!(hash(&into, "data").unwrap(), Some(Digest::of(&bytes)));
        // What it knew of is gone.
        assert!(!local.copy(&wanted(&bytes), &into).unwrap());
        assert!(!Local::default().copy(&wanted(&bytes), &into).unwrap());
    }
}
