//! The agent's own records, read while another agent may be writing them.

use serde::Deserialize;

use crate::rootfs::{FsError, Rootfs};
use crate::store::{Held, Record};

/// The largest file that is read, in bytes: the limit of the journal.
const MAX_SIZE: u64 = 64 << 20;
/// The version of both files that is read.
const VERSION: u32 = 1;

/// Why a record can't be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum RecordError {
    #[error(transparent)]
    Fs(#[from] FsError),
    #[error("{path} has version {version}, this agent reads up to {VERSION}: use a newer agent")]
    Version { path: String, version: u32 },
    #[error("{path} can't be read as JSON: the agent counts it as empty")]
    Json { path: String, source: serde_json::Error },
}

#[derive(Deserialize)]
struct Versioned {
    version: u32,
}

/// The journal's last state; none where there is no journal.
pub(super) fn journal(rootfs: &Rootfs, state: &str) -> Result<Option<Record>, RecordError> {
    const FILE: &str = "journal.jsonl";
    let Some(bytes) = read(rootfs, state, FILE)? else { return Ok(None) };
    // The last line may be one that is being written at this moment.
    for line in bytes.split(|byte| *byte == b'\n').rev().filter(|line| !line.is_empty()) {
        if let Ok(Versioned { version }) = serde_json::from_slice(line)
            && version > VERSION
        {
            return Err(RecordError::Version { path: format!("{state}/{FILE}"), version });
        }
        if let Ok(record) = serde_json::from_slice(line) {
            return Ok(Some(record));
        }
    }
    Ok(None)
}

/// What the controller wants; none where there is no ledger.
pub(super) fn ledger(rootfs: &Rootfs, state: &str) -> Result<Option<Held>, RecordError> {
    const FILE: &str = "ledger.json";
    let path = || format!("{state}/{FILE}");
    let Some(bytes) = read(rootfs, state, FILE)? else { return Ok(None) };
    let json = |source| RecordError::Json { path: path(), source };
    let Versioned { version } = serde_json::from_slice(&bytes).map_err(json)?;
    if version > VERSION {
        return Err(RecordError::Version { path: path(), version });
    }
    serde_json::from_slice(&bytes).map(Some).map_err(json)
}

fn read(rootfs: &Rootfs, state: &str, file: &str) -> Result<Option<Vec<u8>>, FsError> {
    match rootfs.folder(state)? {
        Some(folder) => folder.read(file, MAX_SIZE),
        None => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use rootstock_core::path::BinaryRoots;

    use super::*;

    const STATE: &str = "/var/lib/rootstock";

    #[test]
    fn nothing_is_made_and_what_is_there_is_read() {
        let root = tempfile::tempdir().unwrap();
        let rootfs = Rootfs::open(root.path(), BinaryRoots::default()).unwrap();
        assert!(journal(&rootfs, STATE).unwrap().is_none());
        assert!(ledger(&rootfs, STATE).unwrap().is_none());
        assert!(!root.path().join("var").exists());
        let folder = rootfs.make_folder(STATE).unwrap();
        let put = |file: &str, text: &str| folder.replace(file, text.as_bytes(), 0o600).unwrap();
        let line = r#"{"version":1,"step":"settled","owned":{"runsc":"gvisor"}}"#;
        put("journal.jsonl", &format!("{line}\n{{\"version\":1,\"st"));
        assert_eq!(journal(&rootfs, STATE).unwrap().unwrap().owned.len(), 1);
        put("journal.jsonl", "{\"version\":2}\n");
        let error = journal(&rootfs, STATE).unwrap_err().to_string();
        assert!(error.contains("has version 2") && error.contains("newer agent"), "{error}");
        put("ledger.json", "{");
        assert!(ledger(&rootfs, STATE).is_err());
        put("ledger.json", "{\"version\":2}");
        assert!(matches!(ledger(&rootfs, STATE), Err(RecordError::Version { version: 2, .. })));
    }
}
