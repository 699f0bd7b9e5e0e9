//! What has to be right on a node at every instant, and at the end.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use rootstock_agent::containerd;
use rootstock_agent::rootfs::{Effect, Watcher};
use rootstock_core::bundle::BundleFile;
use rootstock_core::desired::DesiredBundle;
use rootstock_core::digest::Digest;
use rootstock_core::layout::{HandlerTable, TEMP_PREFIX};
use serde_json::Value;

use super::super::support::{BINARY_PATH, CONFIG, read, tree};
use super::Change;

/// Looks at a node after each effect, and keeps the first thing that was wrong.
#[derive(Debug)]
pub(super) struct Eye {
    root: PathBuf,
    known: Vec<DesiredBundle>,
    /// The tree that was looked at last: most effects change nothing that can be seen.
    last: Mutex<BTreeMap<String, String>>,
    wrong: Mutex<Option<String>>,
}

impl Eye {
    pub(super) fn new(root: &Path, known: &[DesiredBundle]) -> Self {
        Self {
            root: root.to_owned(),
            known: known.to_vec(),
            last: Mutex::default(),
            wrong: Mutex::default(),
        }
    }

    pub(super) fn look(&self, when: &Effect) {
        let mut last = self.last.lock().unwrap();
        let seen = seen(&self.root);
        if *last == seen {
            return;
        }
        *last = seen;
        if let Err(wrong) = sound(&self.root, &self.known) {
            self.wrong.lock().unwrap().get_or_insert(format!("after {when:?}: {wrong}"));
        }
    }

    #[track_caller]
    pub(super) fn saw_nothing_wrong(&self) {
        assert_eq!(*self.wrong.lock().unwrap(), None);
    }
}

impl Watcher for Eye {
    fn before(&self, _: &Effect) -> std::io::Result<()> {
        Ok(())
    }

    fn after(&self, effect: &Effect) {
        self.look(effect);
    }
}

/// Everything that [`sound`] looks at.
fn seen(root: &Path) -> BTreeMap<String, String> {
    let mut seen = BTreeMap::new();
    for folder in ["etc/containerd", "run/simulated", &BINARY_PATH[1..]] {
        seen.extend(tree(&root.join(folder)));
    }
    seen.retain(|name, _| !name.contains(TEMP_PREFIX));
    seen
}

/// Whatever anybody may use now is right: containerd's configuration, what it
/// names, what the running containerd starts pods with, what pods were started
/// with, and what the links in binaryPath lead to.
pub(super) fn sound(root: &Path, known: &[DesiredBundle]) -> Result<(), String> {
    let text = config(root)?;
    let tables = containerd::tables(&text).map_err(|error| format!("{error}: {text}"))?;
    if let Some(line) = CONFIG.lines().find(|line| !text.lines().any(|there| there == *line)) {
        return Err(format!("the configuration lost {line:?}"));
    }
    let mut used: BTreeSet<String> = BTreeSet::new();
    let mut add = |table: &HandlerTable| used.extend(table.paths().map(str::to_owned));
    tables.values().flatten().for_each(&mut add);
    let running = simulated(root, "running");
    for table in running["handlers"].as_object().into_iter().flat_map(|tables| tables.values()) {
        serde_json::from_value::<Option<HandlerTable>>(table.clone())
            .unwrap()
            .iter()
            .for_each(&mut add);
    }
    let pods = simulated(root, "sandboxes");
    let paths = pods.as_array().into_iter().flatten().flat_map(|pod| pod["paths"].as_array());
    used.extend(paths.flatten().filter_map(Value::as_str).map(str::to_owned));
    let binaries = root.join(&BINARY_PATH[1..]);
    for entry in fs::read_dir(&binaries).into_iter().flatten() {
        let path = entry.map_err(|error| error.to_string())?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if name == ".rootstock" || name.starts_with(TEMP_PREFIX) {
            continue;
        }
        let to = fs::read_link(&path).map_err(|error| format!("{name} is no link: {error}"))?;
        used.insert(format!("{BINARY_PATH}/{}", to.display()));
    }
    used.iter()
        .filter(|path| path.starts_with(BINARY_PATH))
        .try_for_each(|path| right(root, known, path))
}

/// A path in a bundle's folder: it is right with everything beside it. One in
/// a folder of config files is there and can be read.
fn right(root: &Path, known: &[DesiredBundle], path: &str) -> Result<(), String> {
    let below = path.strip_prefix(BINARY_PATH).unwrap_or_default().trim_start_matches('/');
    let parts: Vec<&str> = below.splitn(4, '/').collect();
    let [".rootstock", _, folder, file] = parts.as_slice() else {
        return Err(format!("{path} is in no bundle"));
    };
    let Some((digest, _)) = folder.split_once('-') else {
        let Some(bundle) = known.iter().find(|bundle| bundle.digest.hex() == *folder) else {
            return Err(format!("{path}: nobody knows this bundle"));
        };
        let files = &bundle.config.config().files;
        if !files.iter().any(|there| there.path.as_str() == *file) {
            return Err(format!("{path}: the bundle has no such file"));
        }
        let folder = root.join(path[1..].strip_suffix(file).unwrap_or_default());
        return files.iter().try_for_each(|file| whole(&folder, file));
    };
    if !known.iter().any(|bundle| bundle.digest.hex() == digest) {
        return Err(format!("{path}: nobody knows this bundle"));
    }
    let bytes = read(&root.join(&path[1..])).map_err(|error| format!("{path}: {error}"))?;
    let text = String::from_utf8(bytes).map_err(|error| format!("{path}: {error}"))?;
    let table: toml_edit::DocumentMut = text.parse().map_err(|error| format!("{path}: {error}"))?;
    let binary = table.get("binary").and_then(|binary| binary.as_str());
    if binary.is_none_or(|binary| !binary.contains(digest)) {
        return Err(format!("{path} is cut off: {text:?}"));
    }
    Ok(())
}

fn whole(folder: &Path, file: &BundleFile) -> Result<(), String> {
    let path = folder.join(file.path.as_str());
    let wrong = |error: std::io::Error| format!("{}: {error}", path.display());
    let bytes = read(&path).map_err(wrong)?;
    let mode = path.symlink_metadata().map_err(wrong)?.permissions().mode() & 0o7777;
    if (Digest::of(&bytes), mode) != (file.sha256, file.mode.bits()) {
        return Err(format!("{} has {} bytes and mode {mode:o}", path.display(), bytes.len()));
    }
    Ok(())
}

/// The change is made, and nothing else is left behind.
pub(super) fn ended(root: &Path, change: &Change) -> Result<(), String> {
    sound(root, &change.known)?;
    let mut files = tree(&root.join(&BINARY_PATH[1..]));
    for bundle in &change.active {
        let folder = format!(".rootstock/{}/{}", bundle.runtime(), bundle.digest.hex());
        for entry in &bundle.config.config().entry_points {
            let there = files.remove(entry.as_str());
            if there != Some(format!("-> {folder}/{entry}")) {
                return Err(format!("{entry} is {there:?}"));
            }
        }
        let text = config(root)?;
        let running = simulated(root, "running").to_string();
        if !text.contains(&folder) || !running.contains(&folder) {
            return Err(format!("containerd does not have {folder}"));
        }
    }
    for bundle in change.active.iter().chain(&change.used) {
        let folder = format!(".rootstock/{}/{}", bundle.runtime(), bundle.digest.hex());
        let before = files.len();
        files.retain(|name, _| !name.starts_with(&folder));
        if before == files.len() {
            return Err(format!("{folder} is gone"));
        }
    }
    files.retain(|name, _| !name.ends_with('/'));
    let temporary = |name: &String| name.contains(TEMP_PREFIX);
    for folder in ["etc/containerd", "var/lib/rootstock"] {
        let there = tree(&root.join(folder));
        files.extend(there.into_iter().filter(|(name, _)| temporary(name)));
    }
    if !files.is_empty() {
        return Err(format!("also there: {files:?}"));
    }
    if change.active.is_empty() && !is_untouched(root) {
        return Err("the configuration is not as it was before Rootstock".to_owned());
    }
    Ok(())
}

/// containerd's configuration is as it was before Rootstock.
pub(super) fn is_untouched(root: &Path) -> bool {
    config(root).is_ok_and(|text| text == CONFIG)
}

fn config(root: &Path) -> Result<String, String> {
    let path = root.join("etc/containerd/config.toml");
    let bytes = read(&path).map_err(|error| format!("the configuration: {error}"))?;
    String::from_utf8(bytes).map_err(|error| format!("the configuration: {error}"))
}

fn simulated(root: &Path, name: &str) -> Value {
    let path = root.join("run/simulated").join(format!("{name}.json"));
    match read(&path) {
        Ok(bytes) => serde_json::from_slice(&bytes).unwrap(),
        Err(_) => Value::Null,
    }
}
