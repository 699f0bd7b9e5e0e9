//! What the agent has done on the node and is about to do.
//!
//! Each line is the whole state after one step, written and synced before the
//! effect that it announces; the last whole line counts. So a torn line (the
//! power went) loses nothing, and the lines before tell a person the story.

mod record;

use std::io::Write as _;

pub use record::{
    Activation, BundleKey, Drift, Failed, Loaded, Previous, Record, Rejected, Step, TreeRecord,
};

use super::{Store, StoreError, Version};
use crate::rootfs::{FsError, Output};

const FILE: &str = "journal.jsonl";
const VERSION: u32 = 1;
/// Bytes after which only the last line is kept. A line has 1 to 4 KiB.
const COMPACT_AT: u64 = 1 << 20;
/// The largest journal that is read, in bytes: one line more than [`COMPACT_AT`]
/// would do, and this has room for what people do to files.
const MAX_SIZE: u64 = 64 << 20;

/// The journal: lines are appended until there are many.
#[derive(Debug)]
pub struct Journal {
    state: Record,
    store: Store,
    /// None for who only looks.
    file: Option<Output>,
    /// Bytes in the file.
    size: u64,
    /// Whether the file may end in half a line, which would spoil the next one.
    torn: bool,
    path: String,
}

/// The last line that is whole.
fn last(bytes: &[u8], path: &str) -> Result<Record, StoreError> {
    for line in bytes.split(|byte| *byte == b'\n').rev().filter(|line| !line.is_empty()) {
        // A later form may have anything else in it.
        if let Ok(Version { version }) = serde_json::from_slice(line)
            && version > VERSION
        {
            let path = path.to_owned();
            return Err(StoreError::Version { path, version, known: VERSION });
        }
        match serde_json::from_slice::<Record>(line) {
            Ok(record) => return Ok(record),
            // The last line is torn when the power went while it was written.
            Err(error) => tracing::warn!(path, %error, "a journal line can't be read"),
        }
    }
    Ok(Record::default())
}

impl Journal {
    /// Reads the journal.
    pub fn open(store: &Store) -> Result<Self, StoreError> {
        let folder = store.folder();
        let path = format!("{}/{FILE}", folder.path());
        let bytes = folder.read(FILE, MAX_SIZE)?.unwrap_or_default();
        let state = last(&bytes, &path)?;
        let file = Some(folder.append_to(FILE)?);
        folder.sync()?;
        let torn = bytes.last().is_some_and(|byte| *byte != b'\n');
        let store = store.clone();
        let mut journal = Self { state, store, file, size: bytes.len() as u64, torn, path };
        if journal.torn || journal.size > COMPACT_AT {
            journal.compact(&line(&journal.state)?)?;
        }
        Ok(journal)
    }

    /// Reads the journal to look at it: nothing can be written.
    pub fn peek(store: &Store) -> Result<Self, StoreError> {
        let (store, folder) = (store.clone(), store.folder());
        let path = format!("{}/{FILE}", folder.path());
        let bytes = folder.read(FILE, MAX_SIZE)?.unwrap_or_default();
        let state = last(&bytes, &path)?;
        Ok(Self { state, store, file: None, size: bytes.len() as u64, torn: false, path })
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
            let Some(file) = &mut self.file else {
                let (path, why) = (self.path.clone(), "it is only looked at");
                return Err(FsError::Refused { path, why }.into());
            };
            // Where this fails, a part of the line may be there.
            self.torn = true;
            file.write_all(&text)
                .and_then(|()| file.sync_data())
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
        self.store.replace(FILE, text)?;
        self.file = Some(self.store.folder().append_to(FILE)?);
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
    use std::collections::BTreeSet;

    use cap_std::fs::File;
    use rootstock_core::digest::Digest;
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
        journal.file.as_mut().unwrap().write_all(b"{\"version\":1,\"ste").unwrap();
        let good = journal.file.replace(File::from_std(file).into());
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
                record.activation = Some(Activation {
                    start: text,
                    handlers: BTreeSet::new(),
                    previous: None,
                    failed: None,
                });
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
