//! What the gVisor extension's script left on a node, and how it is taken over.
//!
//! ```text
//!  script's table in config.toml ─▶ its files are noted ─▶ the table becomes ours, one restart
//!      ─▶ the last sandbox that was started with them ends ─▶ its files go, our links come
//! ```
//! The table is the evidence that the files are the script's. Without it, or
//! with files of another form than the script writes, they are someone else's
//! and stay as they are.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};
use toml_edit::{DocumentMut, Item};

use super::{Observed, Plan};
use crate::layout::{FOLDER, HandlerTable, Layout, Link};
use crate::name::{HandlerName, RuntimeType};
use crate::path::BinaryPath;

/// The runtime type that the script installs.
pub const RUNTIME: &str = "gvisor";
/// The handler of its table.
pub const HANDLER: &str = "runsc";
/// Its configuration of runsc.
pub const CONFIG: &str = "/etc/containerd/runsc.toml";
/// What it puts into binaryPath.
const PROGRAMS: [&str; 2] = ["runsc", "containerd-shim-runsc-v1"];
/// The flags that its versions ever wrote.
const FLAGS: [&str; 5] = ["net-raw", "debug", "debug-log", "nvproxy", "panic-signal"];

/// The table as the script writes it, whatever the configuration's version.
pub fn table() -> HandlerTable {
    let option = |key: &str, value: &str| (key.to_owned(), Value::String(value.to_owned()));
    let options =
        [option("TypeUrl", "io.containerd.runsc.v1.options"), option("ConfigPath", CONFIG)];
    HandlerTable {
        runtime_type: "io.containerd.runsc.v1".to_owned(),
        options: Map::from_iter(options),
        ..HandlerTable::default()
    }
}

/// Whether a layout is of what the script installs too.
pub fn concerns(layout: &Layout) -> bool {
    layout.tree.runtime.as_str() == RUNTIME && layout.tables.keys().any(|h| h.as_str() == HANDLER)
}

/// The paths on the node at which the script puts files.
pub fn places(binary_path: &BinaryPath) -> Vec<String> {
    let programs = PROGRAMS.iter().map(|name| format!("{binary_path}/{name}"));
    programs.chain([CONFIG.to_owned()]).collect()
}

/// Whether this is a configuration of runsc that the script writes: one table
/// with flags that it knows, and nothing else.
pub fn is_config(text: &str) -> bool {
    let Ok(document) = text.parse::<DocumentMut>() else { return false };
    let mut keys = document.iter();
    let (Some((key, item)), None) = (keys.next(), keys.next()) else { return false };
    let known = |(key, item): (&str, &Item)| FLAGS.contains(&key) && item.is_value();
    key == "runsc_config" && item.as_table().is_some_and(|flags| flags.iter().all(known))
}

/// What of it is on the node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inherited {
    /// Its files, by their path on the node.
    pub files: BTreeMap<String, InheritedFile>,
    /// The plugins of other versions of the configuration that still have its
    /// table. containerd passes over these.
    pub strays: BTreeSet<String>,
    /// The pods that were started with its files, or may have been.
    pub pods: Vec<String>,
}

/// One file of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InheritedFile {
    /// It stands where the script puts it, beside the script's table, and is not noted yet.
    Found,
    /// It is as it was noted when the table was taken over.
    Noted,
    /// It is gone, or another one than was noted.
    Changed,
}

/// Plans what becomes of it. Nothing here waits for a restart: what is taken
/// away is what the running containerd knows no more.
pub(super) fn plan(
    active: &BTreeMap<RuntimeType, &Layout>,
    kept: &BTreeSet<RuntimeType>,
    observed: &Observed,
    plan: &mut Plan,
) {
    let inherited = &observed.inherited;
    let wanted = active.values().any(|layout| concerns(layout));
    let kept = kept.iter().any(|runtime| runtime.as_str() == RUNTIME);
    if wanted {
        plan.remove_strays.clone_from(&inherited.strays);
    }
    let free = !kept && is_free(observed);
    for (path, state) in &inherited.files {
        match state {
            InheritedFile::Found if wanted => plan.note_files.insert(path.clone()),
            InheritedFile::Noted if free => plan.remove_files.insert(path.clone()),
            InheritedFile::Changed => plan.forget_files.insert(path.clone()),
            InheritedFile::Found | InheritedFile::Noted => false,
        };
    }
}

/// Whether nothing was started with the files, and nothing can be any more.
fn is_free(observed: &Observed) -> bool {
    let files = &observed.inherited.files;
    let leads_there = |table: &Option<HandlerTable>| match table {
        // Without a path containerd takes the first shim in its PATH.
        Some(table) => {
            table.runtime_path.is_empty() || table.paths().any(|path| files.contains_key(path))
        }
        None => true,
    };
    let known = |tables: &BTreeMap<HandlerName, Option<HandlerTable>>| {
        tables.iter().any(|(handler, table)| handler.as_str() == HANDLER && leads_there(table))
    };
    observed.inherited.pods.is_empty()
        && !observed.activation_open
        && !known(&observed.loaded)
        && !known(&observed.tables)
}

/// Whether a file of the script stands at the place of a link, and goes by itself.
pub(super) fn stands_at(link: &Link, observed: &Observed) -> Option<InheritedFile> {
    observed.inherited.files.get(&format!("{}/{}", link.binary_path, link.name)).copied()
}

/// Whether a table that is about to be replaced is one that someone else will
/// want back: neither ours nor the script's.
pub(super) fn is_foreign(table: Option<&HandlerTable>) -> bool {
    match table {
        None => true,
        Some(there) => {
            *there != self::table() && !there.runtime_path.contains(&format!("/{FOLDER}/"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_script_writes_is_its_configuration() {
        let table = [
            ("[runsc_config]\n", true),
            ("[runsc_config]\nnet-raw = \"true\"\npanic-signal = 6\n", true),
            ("[runsc_config]\ndebug = \"true\"\ndebug-log = \"/x\"\n", true),
            ("[runsc_config]\nplatform = \"kvm\"\n", false),
            ("binary_name = \"/opt/runsc\"\n[runsc_config]\n", false),
            ("runsc_config = 1\n", false),
            ("[runsc_config.debug]\n", false),
            ("", false),
            ("[", false),
        ];
        for (text, want) in table {
            assert_eq!(is_config(text), want, "{text}");
        }
    }
}
