//! The configuration's file, which other programs write too.
//!
//! ```text
//!  ours, beside it ─ exchange ─▶ config.toml;  what was there ─▶ .rootstock-displaced.toml
//! ```
//! Others truncate the file and write it in place, and may have opened it
//! before the exchange: what they write then lands in the file that was
//! displaced. So that one is kept, looked at once more after a while, and put
//! back if it has changed. No key of others is lost, whenever they write.

use std::time::Duration;

use rootstock_core::digest::Digest;

use super::{FILE, FOLDER, MAX_SIZE};
use crate::rootfs::{Entry, Folder, FsError, Rootfs};
use crate::store::Record;

/// What was displaced, until nobody can have it open any more.
const DISPLACED: &str = ".rootstock-displaced.toml";
/// What was displaced before that, where one write follows another.
const BEFORE: &str = ".rootstock-displaced-before.toml";
/// A candidate, for containerd to read: imports are relative, so it is in the same folder.
const CANDIDATE: &str = ".rootstock-tmp-candidate.toml";
/// How often the two are exchanged before the other writer is given a rest.
const EXCHANGES: usize = 8;

/// The path of the configuration on a node.
pub(crate) fn path() -> String {
    format!("{FOLDER}/{FILE}")
}

/// What became of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Put {
    /// It is in place.
    Written,
    /// Another program wrote in the meantime; what it wrote is in place.
    Moved,
}

/// The configuration as it is now; none where there is no file.
pub(crate) fn read(rootfs: &Rootfs) -> Result<Option<String>, FsError> {
    match rootfs.folder(FOLDER)? {
        Some(folder) => text(&folder, FILE),
        None => Ok(None),
    }
}

fn text(folder: &Folder, name: &str) -> Result<Option<String>, FsError> {
    let bytes = folder.read(name, MAX_SIZE)?;
    // What is no UTF-8 is no TOML either, and is then refused as such.
    Ok(bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
}

/// Writes a candidate beside the configuration; its path on the node.
pub(crate) fn write_candidate(rootfs: &Rootfs, content: &str) -> Result<String, FsError> {
    let folder = rootfs.make_folder(FOLDER)?;
    folder.replace(CANDIDATE, content.as_bytes(), 0o600)?;
    Ok(format!("{FOLDER}/{CANDIDATE}"))
}

/// Takes the candidate away.
pub(crate) fn remove_candidate(rootfs: &Rootfs) -> Result<(), FsError> {
    match rootfs.folder(FOLDER)? {
        Some(folder) => folder.remove(CANDIDATE).map(drop),
        None => Ok(()),
    }
}

/// Puts a configuration in place of the one that was read.
///
/// The journal has to know both digests before.
pub(crate) fn put(rootfs: &Rootfs, before: Option<&str>, content: &str) -> Result<Put, FsError> {
    put_between(rootfs, before, content, &mut || {})
}

/// The same; `others` is what may happen between two of its steps.
fn put_between(
    rootfs: &Rootfs,
    before: Option<&str>,
    content: &str,
    others: &mut dyn FnMut(),
) -> Result<Put, FsError> {
    let folder = rootfs.make_folder(FOLDER)?;
    let mode = match folder.entry(FILE)? {
        Some(Entry::File { mode, .. }) => mode,
        Some(Entry::Folder | Entry::Link(_) | Entry::Other) | None => 0o644,
    };
    if folder.entry(DISPLACED)?.is_some() {
        folder.rename(DISPLACED, BEFORE)?;
    }
    folder.replace(DISPLACED, content.as_bytes(), mode)?;
    others();
    let Some(before) = before else {
        let new = folder.rename_new(DISPLACED, FILE)?;
        if !new {
            folder.remove(DISPLACED)?;
        }
        return Ok(if new { Put::Written } else { Put::Moved });
    };
    if text(&folder, FILE)?.as_deref() != Some(before) {
        folder.remove(DISPLACED)?;
        return Ok(Put::Moved);
    }
    // What is thought to be in place, and beside it. What turns out to be
    // otherwise was written meanwhile, so it is newer, and goes back in place.
    let (mut in_place, mut beside) = (before.to_owned(), content.to_owned());
    for _ in 0..EXCHANGES {
        others();
        folder.exchange(DISPLACED, FILE)?;
        others();
        let out = text(&folder, DISPLACED)?.unwrap_or_default();
        if out == in_place {
            return Ok(if beside == content { Put::Written } else { Put::Moved });
        }
        (in_place, beside) = (beside, out);
    }
    Ok(Put::Moved)
}

/// Puts back what was displaced and has been written since: another program
/// had it open. True while there is something that has to be looked at again.
///
/// `still` is how long it must have been as it is before it counts as whole.
pub(crate) fn settle_displaced(
    rootfs: &Rootfs,
    record: &Record,
    still: Duration,
) -> Result<bool, FsError> {
    let Some(folder) = rootfs.folder(FOLDER)? else { return Ok(false) };
    let mut waits = false;
    for name in [BEFORE, DISPLACED] {
        let Some(displaced) = text(&folder, name)? else { continue };
        if folder.since_change(name)?.is_some_and(|since| since < still) {
            waits = true;
            continue;
        }
        let digest = Some(Digest::of(displaced.as_bytes()));
        let known = digest == record.config || digest == record.displaced || displaced.is_empty();
        let newer = match (folder.age(name)?, folder.age(FILE)?) {
            (Some(displaced), Some(in_place)) => displaced < in_place,
            (_, in_place) => in_place.is_none(),
        };
        if !known && newer {
            tracing::warn!(
                "another program wrote containerd's configuration while it was replaced"
            );
            folder.rename(name, FILE)?;
        } else {
            folder.remove(name)?;
        }
    }
    Ok(waits)
}

#[cfg(test)]
mod tests;
