//! The desired state that the agent accepted last.
//!
//! The agent acts from here, so it converges with the controller away.

use std::sync::Arc;

use rootstock_core::desired::{Desired, Offer, offer};
use rootstock_core::digest::Digest;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::{Store, StoreError, Version};

const FILE: &str = "ledger.json";
const VERSION: u32 = 1;
/// The largest ledger that is read, in bytes: 64 bundles with the largest config blobs.
const MAX_SIZE: u64 = 32 << 20;

/// A desired state and the digest of its content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Held {
    /// The digest of the content, as the wire has it.
    pub content_hash: Digest,
    /// The desired state.
    #[serde(flatten)]
    pub desired: Desired,
}

#[derive(Serialize)]
struct OnDiskRef<'a> {
    version: u32,
    #[serde(flatten)]
    held: &'a Held,
}

/// The ledger: one writer, any number of watchers.
#[derive(Debug)]
pub struct Ledger {
    held: watch::Sender<Option<Arc<Held>>>,
    damage: Option<String>,
}

impl Ledger {
    /// Reads the ledger. One that can't be read counts as empty: the controller
    /// sends its content again, and an empty ledger changes nothing on the node.
    pub fn open(store: &Store) -> Result<Self, StoreError> {
        let read = match store.folder().read(FILE, MAX_SIZE)? {
            None => Ok(None),
            Some(bytes) => read(store, &bytes)?.map(Some),
        };
        let (held, damage) = match read {
            Ok(held) => (held, None),
            Err(damage) => {
                tracing::warn!(damage, "the ledger counts as empty");
                (None, Some(damage))
            }
        };
        Ok(Self { held: watch::Sender::new(held.map(Arc::new)), damage })
    }

    /// Why the file counted as empty when it was opened; none where it did not.
    pub fn damage(&self) -> Option<&str> {
        self.damage.as_deref()
    }

    /// What is held, and each time that it changes.
    pub fn watch(&self) -> watch::Receiver<Option<Arc<Held>>> {
        self.held.subscribe()
    }

    /// What is held.
    pub fn held(&self) -> Option<Arc<Held>> {
        self.held.borrow().clone()
    }

    /// Takes a desired state if it is newer: it is on disk when this returns.
    ///
    /// Blocking: call it where that does no harm.
    pub fn take(&self, store: &Store, offered: Held) -> Result<Offer, StoreError> {
        let held = self.held().map(|held| (held.desired.generation, held.content_hash));
        let verdict = offer(held, (offered.desired.generation, offered.content_hash));
        if verdict == Offer::Newer {
            let text = serde_json::to_vec(&OnDiskRef { version: VERSION, held: &offered })
                .map_err(|source| StoreError::Json { what: FILE, source })?;
            store.replace(FILE, &text)?;
            self.held.send_replace(Some(Arc::new(offered)));
        }
        Ok(verdict)
    }
}

/// What the ledger holds, or why it can't be read.
fn read(store: &Store, bytes: &[u8]) -> Result<Result<Held, String>, StoreError> {
    let path = format!("{}/{FILE}", store.folder().path());
    let damaged = |error| format!("{path} can't be read as JSON and counts as empty: {error}");
    match serde_json::from_slice::<Version>(bytes) {
        Ok(Version { version }) if version > VERSION => {
            Err(StoreError::Version { path, version, known: VERSION })
        }
        Ok(_) => Ok(serde_json::from_slice(bytes).map_err(damaged)),
        Err(error) => Ok(Err(damaged(error))),
    }
}

#[cfg(test)]
mod tests {
    use rootstock_core::desired::{DesiredContent, Generation};
    use rootstock_core::path::BinaryRoots;

    use super::*;
    use crate::rootfs::Rootfs;

    fn held(generation: u64, content: &str) -> Held {
        let desired =
            Desired { generation: Generation(generation), content: DesiredContent::default() };
        Held { content_hash: Digest::of(content.as_bytes()), desired }
    }

    fn store(root: &tempfile::TempDir) -> Result<Store, StoreError> {
        let rootfs = Rootfs::open(root.path(), BinaryRoots::default()).unwrap();
        Store::open(&rootfs, "/var/lib/rootstock")
    }

    #[test]
    fn what_was_taken_is_there_after_a_restart() {
        let root = tempfile::tempdir().unwrap();
        let store = store(&root).unwrap();
        let ledger = Ledger::open(&store).unwrap();
        assert_eq!(ledger.held(), None);
        assert_eq!(ledger.take(&store, held(2, "a")).unwrap(), Offer::Newer);
        assert_eq!(ledger.take(&store, held(2, "b")).unwrap(), Offer::Contradicts);
        assert_eq!(ledger.take(&store, held(1, "a")).unwrap(), Offer::Older);
        let again = Ledger::open(&store).unwrap();
        assert_eq!(*again.held().unwrap(), held(2, "a"));
        assert_eq!(again.take(&store, held(2, "a")).unwrap(), Offer::Same);
    }

    #[test]
    fn the_first_form_is_read_forever() {
        let root = tempfile::tempdir().unwrap();
        let store = store(&root).unwrap();
        let hash = Digest::of(b"a");
        let text = format!(
            r#"{{"version":1,"contentHash":"{hash}","generation":7,"bundles":[],"keep":["kata"],"registries":[]}}"#
        );
        store.folder().replace(FILE, text.as_bytes(), 0o600).unwrap();
        let held = Ledger::open(&store).unwrap().held().unwrap();
        assert_eq!(held.desired.generation, Generation(7));
        assert_eq!(held.desired.content.keep.len(), 1);
    }

    #[test]
    fn damage_is_no_end_and_a_later_version_is_not_overwritten() {
        let root = tempfile::tempdir().unwrap();
        let store = store(&root).unwrap();
        store.folder().replace(FILE, b"{\"version\":1,\"ha", 0o600).unwrap();
        assert_eq!(Ledger::open(&store).unwrap().held(), None);
        store.folder().replace(FILE, b"{\"version\":2}", 0o600).unwrap();
        assert!(matches!(Ledger::open(&store), Err(StoreError::Version { version: 2, .. })));
    }

    #[test]
    fn a_second_agent_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let first = store(&root).unwrap();
        let error = store(&root).unwrap_err().to_string();
        assert!(error.contains("another agent holds /var/lib/rootstock/lock"), "{error}");
        drop(first);
        store(&root).unwrap();
    }
}
