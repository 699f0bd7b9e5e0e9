//! What the agent has done on the node and is about to do.
//!
//! Each line is the whole state after one step, written and synced before the
//! effect that it announces; the last whole line counts. So a torn line (the
//! power went) loses nothing, and the lines before tell a person the story.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;

use cap_std::fs::File;
use rootstock_core::digest::Digest;
use rootstock_core::layout::{HandlerTable, RenderedId, TreeId};
use rootstock_core::name::{HandlerName, RuntimeType};
use rootstock_core::path::BinaryPath;
use serde::{Deserialize, Serialize};

use super::{Store, StoreError};
use crate::rootfs::{Folder, FsError, Note};

const FILE: &str = "journal.jsonl";
const VERSION: u32 = 1;
/// Bytes after which only the last line is kept. A line has 1 to 4 KiB.
const COMPACT_AT: u64 = 1 << 20;
/// The largest journal that is read, in bytes: one line more than [`COMPACT_AT`]
/// would do, and this has room for what people do to files.
const MAX_SIZE: u64 = 64 << 20;

/// The state after one step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    version: u32,
    /// Milliseconds since 1970, for people.
    #[serde(default)]
    pub at: u64,
    /// The step that this line was written for.
    pub step: Step,
    /// The folders of files that were begun or made.
    #[serde(default)]
    pub trees: Vec<TreeRecord>,
    /// The folders of config files that were begun or made.
    #[serde(default)]
    pub rendered: BTreeSet<RenderedId>,
    /// The handlers whose tables in containerd's configuration are ours.
    #[serde(default)]
    pub owned: BTreeMap<HandlerName, RuntimeType>,
    /// An activation whose health is not proven yet.
    #[serde(default)]
    pub activation: Option<Activation>,
    /// What containerd started with, as far as this agent saw it start.
    #[serde(default)]
    pub loaded: Option<Loaded>,
    /// containerd's configuration as this agent wrote it last, or was about to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<Digest>,
    /// The tables of others that made room for ours, as text, to put them back.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub replaced: BTreeMap<HandlerName, String>,
    /// The files of the gVisor extension that go when nothing uses them, by
    /// their path on the node.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub inherited: BTreeMap<String, Note>,
}

/// A step, as a word for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Step {
    /// The agent's first line on this node.
    Begin,
    /// Folders are about to be filled.
    Install,
    /// Tables and links are about to change, and containerd to restart.
    Activate,
    /// Tables and links are about to change, without a restart.
    Change,
    /// The change is in place, and containerd is healthy with it.
    Settled,
    /// Folders are about to be deleted.
    Collect,
    /// Folders were deleted.
    Collected,
}

/// A folder of files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TreeRecord {
    /// Which.
    #[serde(flatten)]
    pub id: TreeId,
    /// The bundle's version, for people.
    pub version: String,
    /// The handlers that lead into it.
    pub handlers: BTreeSet<HandlerName>,
}

/// An activation that began.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Activation {
    /// Which start of containerd it began under.
    pub start: String,
    /// The handlers that it is for.
    pub handlers: BTreeSet<HandlerName>,
}

/// What containerd started with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loaded {
    /// Which start.
    pub start: String,
    /// Our tables at that moment.
    pub tables: BTreeMap<HandlerName, HandlerTable>,
}

impl Default for Record {
    fn default() -> Self {
        Self {
            version: VERSION,
            at: 0,
            step: Step::Begin,
            trees: Vec::new(),
            rendered: BTreeSet::new(),
            owned: BTreeMap::new(),
            activation: None,
            loaded: None,
            config: None,
            replaced: BTreeMap::new(),
            inherited: BTreeMap::new(),
        }
    }
}

impl Record {
    /// The binaryPaths in which something of ours may be.
    pub fn binary_paths(&self) -> BTreeSet<BinaryPath> {
        let trees = self.trees.iter().map(|tree| tree.id.binary_path.clone());
        trees.chain(self.rendered.iter().map(|id| id.tree.binary_path.clone())).collect()
    }

    /// Adds a tree or brings its record up to date.
    pub fn put_tree(&mut self, tree: TreeRecord) {
        self.trees.retain(|there| there.id != tree.id);
        self.trees.push(tree);
        self.trees.sort_by(|a, b| a.id.cmp(&b.id));
    }
}

/// The journal: lines are appended until there are many.
#[derive(Debug)]
pub struct Journal {
    state: Record,
    folder: Folder,
    file: File,
    /// Bytes in the file.
    size: u64,
    /// Whether the file may end in half a line, which would spoil the next one.
    torn: bool,
    path: String,
}

impl Journal {
    /// Reads the journal.
    pub fn open(store: &Store) -> Result<Self, StoreError> {
        let folder = store.folder();
        let path = format!("{}/{FILE}", folder.path());
        let bytes = folder.read(FILE, MAX_SIZE)?.unwrap_or_default();
        let mut state = Record::default();
        for line in bytes.split(|byte| *byte == b'\n').rev().filter(|line| !line.is_empty()) {
            match serde_json::from_slice::<Record>(line) {
                Ok(record) if record.version > VERSION => {
                    let version = record.version;
                    return Err(StoreError::Version { path, version, known: VERSION });
                }
                Ok(record) => {
                    state = record;
                    break;
                }
                // The last line is torn when the power went while it was written.
                Err(error) => tracing::warn!(path, %error, "a journal line can't be read"),
            }
        }
        let folder = folder.open("")?.ok_or_else(|| FsError::Refused {
            path: folder.path().to_owned(),
            why: "it vanished while it was opened",
        })?;
        let file = folder.append(FILE)?;
        folder.sync()?;
        let torn = bytes.last().is_some_and(|byte| *byte != b'\n');
        let mut journal = Self { state, folder, file, size: bytes.len() as u64, torn, path };
        if journal.torn || journal.size > COMPACT_AT {
            journal.compact(&line(&journal.state)?)?;
        }
        Ok(journal)
    }

    /// The state after the last step.
    pub fn state(&self) -> &Record {
        &self.state
    }

    /// Writes the state after a step; nothing when the step changes nothing.
    /// It is on disk when this returns. Blocking.
    pub fn write(
        &mut self,
        step: Step,
        change: impl FnOnce(&mut Record),
    ) -> Result<(), StoreError> {
        let mut next = self.state.clone();
        change(&mut next);
        if next == self.state {
            return Ok(());
        }
        next.step = step;
        let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
        next.at = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        let text = line(&next)?;
        if self.torn || self.size > COMPACT_AT {
            self.compact(&text)?;
        } else {
            // Where this fails, a part of the line may be there.
            self.torn = true;
            self.file
                .write_all(&text)
                .and_then(|()| self.file.sync_data())
                .map_err(|source| FsError::Io { what: "write", path: self.path.clone(), source })?;
            self.torn = false;
            self.size += text.len() as u64;
        }
        self.state = next;
        Ok(())
    }

    /// Puts a file with this line alone in place of the file.
    fn compact(&mut self, text: &[u8]) -> Result<(), StoreError> {
        // Until the new file is open, nothing must be appended to the old one.
        self.torn = true;
        self.folder.replace(FILE, text, 0o600)?;
        self.file = self.folder.append(FILE)?;
        self.size = text.len() as u64;
        self.torn = false;
        Ok(())
    }
}

fn line(record: &Record) -> Result<Vec<u8>, StoreError> {
    let mut text =
        serde_json::to_vec(record).map_err(|source| StoreError::Json { what: FILE, source })?;
    text.push(b'\n');
    Ok(text)
}

#[cfg(test)]
mod tests {
    use rootstock_core::path::BinaryRoots;

    use super::*;
    use crate::rootfs::Rootfs;

    fn store(root: &tempfile::TempDir) -> Store {
        let rootfs = Rootfs::open(root.path(), BinaryRoots::default()).unwrap();
        Store::open(&rootfs, "/var/lib/rootstock").unwrap()
    }

    fn own(handler: &str) -> impl FnOnce(&mut Record) {
        let handler = handler.parse().unwrap();
        move |record| {
            record.owned.insert(handler, "gvisor".parse().unwrap());
        }
    }

    #[test]
    fn the_last_whole_line_counts() {
        let root = tempfile::tempdir().unwrap();
        let store = store(&root);
        let mut journal = Journal::open(&store).unwrap();
        journal.write(Step::Change, own("runsc")).unwrap();
        journal.write(Step::Change, own("runsc")).unwrap();
        let path = root.path().join("var/lib/rootstock/journal.jsonl");
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().count(), 1, "a step that changes nothing is not written");
        let torn = format!("{text}{{\"version\":1,\"ste");
        store.folder().replace(FILE, torn.as_bytes(), 0o600).unwrap();
        let mut again = Journal::open(&store).unwrap();
        assert_eq!(again.state(), journal.state());
        again.write(Step::Change, own("kata")).unwrap();
        assert_eq!(Journal::open(&store).unwrap().state().owned.len(), 2);
    }

    #[test]
    fn half_a_line_spoils_no_later_one() {
        let root = tempfile::tempdir().unwrap();
        let store = store(&root);
        let mut journal = Journal::open(&store).unwrap();
        journal.write(Step::Change, own("runsc")).unwrap();
        // The disk is full in the middle of a line: what write_all leaves then.
        let file = std::fs::OpenOptions::new().read(true).open("/dev/full").unwrap();
        journal.file.write_all(b"{\"version\":1,\"ste").unwrap();
        let good = std::mem::replace(&mut journal.file, File::from_std(file));
        journal.write(Step::Change, own("kata")).unwrap_err();
        journal.file = good;
        assert_eq!(journal.state().owned.len(), 1, "what is not on disk does not count");
        journal.write(Step::Change, own("wasm")).unwrap();
        assert_eq!(Journal::open(&store).unwrap().state(), journal.state());
    }

    #[test]
    fn it_does_not_grow_without_end() {
        let root = tempfile::tempdir().unwrap();
        let store = store(&root);
        let mut journal = Journal::open(&store).unwrap();
        let start = |text: String| {
            move |record: &mut Record| {
                record.activation = Some(Activation { start: text, handlers: BTreeSet::new() });
            }
        };
        for at in 0..40 {
            journal.write(Step::Activate, start(at.to_string().repeat(64 << 10))).unwrap();
            let size =
                root.path().join("var/lib/rootstock/journal.jsonl").metadata().unwrap().len();
            assert!(size < 2 << 20, "{size}");
        }
        assert_eq!(Journal::open(&store).unwrap().state(), journal.state());
    }

    #[test]
    fn the_first_form_is_read_forever() {
        let root = tempfile::tempdir().unwrap();
        let store = store(&root);
        let digest = Digest::of(b"a");
        let tree = format!(r#""binaryPath":"/var/bin/c","runtime":"gvisor","digest":"{digest}""#);
        let text = format!(
            r#"{{"version":1,"at":1,"step":"activate","trees":[{{{tree},"version":"1","handlers":["runsc"]}}],"rendered":[{{"tree":{{{tree}}},"settings":"0011"}}],"owned":{{"runsc":"gvisor"}},"activation":{{"start":"s","handlers":["runsc"]}},"loaded":{{"start":"s","tables":{{"runsc":{{"runtime_type":"t"}}}}}}}}"#
        );
        store.folder().replace(FILE, format!("{text}\n").as_bytes(), 0o600).unwrap();
        let journal = Journal::open(&store).unwrap();
        let state = journal.state();
        assert_eq!((state.step, state.trees.len(), state.rendered.len()), (Step::Activate, 1, 1));
        assert!(state.activation.is_some() && state.loaded.is_some());
        assert_eq!(serde_json::to_string(state).unwrap(), text);
    }
}
