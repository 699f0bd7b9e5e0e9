//! What the gVisor extension's script left on the node: looked at, noted, taken away.

use std::collections::{BTreeMap, BTreeSet};

use rootstock_core::layout::Layout;
use rootstock_core::name::HandlerName;
use rootstock_core::plan::inherited::{self, InheritedFile};
use rootstock_core::plan::{Observed, Plan};
use rootstock_daemon::error::Chain;

use super::Files;
use crate::containerd;
use crate::host::{Host, Sandbox};
use crate::rootfs::{Entry, FsError, Note};
use crate::store::Record;

/// The largest configuration of runsc that is read, in bytes. The script's has 200.
const MAX_CONFIG: u64 = 64 << 10;

/// Which files of it are there. Blocking.
///
/// A file that can't be looked at now is passed over: what is noted stays so.
pub(super) fn look<'a>(
    files: &Files,
    record: &Record,
    layouts: impl Iterator<Item = &'a Layout>,
    observed: &Observed,
) -> BTreeMap<String, InheritedFile> {
    let of_script = |(handler, table): (&HandlerName, &Option<_>)| {
        handler.as_str() == inherited::HANDLER && *table == Some(inherited::table())
    };
    let owned = record.owned.keys().any(|handler| handler.as_str() == inherited::HANDLER);
    // Once the table is ours, what else bears these names is no more the script's.
    let evidence =
        observed.tables.iter().any(of_script) || (!owned && !observed.inherited.strays.is_empty());
    let places: BTreeSet<String> = layouts
        .filter(|layout| evidence && inherited::concerns(layout))
        .flat_map(|layout| inherited::places(&layout.tree.binary_path))
        .collect();
    let mut seen = BTreeMap::new();
    for path in record.inherited.keys().chain(&places) {
        match state(files, path, record.inherited.get(path), places.contains(path)) {
            Ok(state) => seen.extend(state.map(|state| (path.clone(), state))),
            Err(error) => tracing::debug!(path, error = %Chain(&error), "it can't be looked at"),
        }
    }
    seen
}

fn state(
    files: &Files,
    path: &str,
    note: Option<&Note>,
    evidence: bool,
) -> Result<Option<InheritedFile>, FsError> {
    let at = files.rootfs.folder_of(path)?;
    let identity = match &at {
        Some((folder, name)) => folder.identity(name)?,
        None => None,
    };
    let as_noted = note.is_some_and(|note| identity == Some(note.identity));
    Ok(match (identity, note) {
        (Some(_), Some(_)) if as_noted => Some(InheritedFile::Noted),
        (Some(_), _) if evidence && is_of_script(files, path)? => Some(InheritedFile::Found),
        (_, Some(_)) => Some(InheritedFile::Changed),
        (_, None) => None,
    })
}

/// Whether a file is of the form that the script leaves at this place.
fn is_of_script(files: &Files, path: &str) -> Result<bool, FsError> {
    let Some((folder, name)) = files.rootfs.folder_of(path)? else { return Ok(false) };
    if path != inherited::CONFIG {
        let entry = folder.entry(name)?;
        return Ok(matches!(entry, Some(Entry::File { mode, .. }) if mode & 0o100 != 0));
    }
    match folder.read(name, MAX_CONFIG) {
        Ok(bytes) => {
            let text = bytes.and_then(|bytes| String::from_utf8(bytes).ok());
            Ok(text.is_some_and(|text| inherited::is_config(&text)))
        }
        Err(FsError::Refused { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

/// The pods that were started with noted files, or may have been: what nothing
/// tells counts as used.
pub(super) async fn pods(
    host: &dyn Host,
    sandboxes: &[Sandbox],
    noted: &BTreeMap<String, Note>,
    config: Option<&str>,
) -> Vec<String> {
    let mut pods = Vec::new();
    if noted.is_empty() {
        return pods;
    }
    // Pods that ask for no handler have the default one.
    let default = match config.map(containerd::default_handler) {
        Some(Ok(name)) => name.is_some_and(|name| name == inherited::HANDLER),
        Some(Err(_)) => true,
        None => false,
    };
    let may_use = |sandbox: &&Sandbox| match &sandbox.handler {
        Some(handler) => handler.as_str() == inherited::HANDLER,
        None => default,
    };
    for sandbox in sandboxes.iter().filter(may_use) {
        let free = match host.started_with(sandbox).await {
            Ok(Some(paths)) => paths.iter().all(|path| !noted.contains_key(path)),
            Ok(None) => false,
            Err(error) => {
                let error = Chain(&error).to_string();
                tracing::debug!(pod = sandbox.pod, error, "its files can't be told");
                false
            }
        };
        if !free {
            pods.push(sandbox.pod.clone());
        }
    }
    pods
}

/// Notes files before their table is taken over. Blocking.
pub(super) fn note(files: &Files, plan: &Plan) -> Result<BTreeMap<String, Note>, FsError> {
    let mut notes = BTreeMap::new();
    for path in &plan.note_files {
        if let Some((folder, name)) = files.rootfs.folder_of(path)?
            && let Some(note) = folder.note(name)?
        {
            notes.insert(path.clone(), note);
        }
    }
    Ok(notes)
}

/// Deletes files that are still what was noted, byte for byte. Blocking.
pub(super) fn remove(files: &Files, plan: &Plan) -> Result<(), FsError> {
    let noted = files.journal(|journal| journal.state().inherited.clone());
    for path in &plan.remove_files {
        let Some((folder, name)) = files.rootfs.folder_of(path)? else { continue };
        let there = folder.note(name)?;
        if there.is_some() && there.as_ref() == noted.get(path) {
            tracing::info!(path, "a file of the gVisor extension is deleted: nothing uses it");
            folder.remove(name)?;
        } else {
            tracing::warn!(path, "it is not what the gVisor extension left: it stays");
        }
    }
    Ok(())
}
