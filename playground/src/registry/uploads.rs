//! Uploads on their way in: appended to a file and hashed as they come.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use axum::body::Body;
use futures_util::StreamExt as _;
use rootstock_core::digest::Digest;
use sha2::{Digest as _, Sha256};
use tokio::io::AsyncWriteExt as _;

#[derive(Debug)]
pub(super) struct Uploads {
    folder: PathBuf,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    last: u64,
    sessions: BTreeMap<String, Session>,
}

/// One upload. It is taken out of the list while a request works on it.
#[derive(Debug)]
pub(super) struct Session {
    id: String,
    path: tempfile::TempPath,
    file: tokio::fs::File,
    hash: Sha256,
    size: u64,
}

impl Uploads {
    pub(super) async fn open(folder: &Path) -> io::Result<Self> {
        // Unfinished uploads of a registry that was killed.
        match tokio::fs::remove_dir_all(folder).await {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        tokio::fs::create_dir_all(folder).await?;
        Ok(Self { folder: folder.to_owned(), open: Mutex::default() })
    }

    pub(super) fn begin(&self) -> io::Result<Session> {
        let (file, path) = tempfile::NamedTempFile::new_in(&self.folder)?.into_parts();
        let mut open = self.lock();
        open.last += 1;
        let id = format!("u{}", open.last);
        let file = tokio::fs::File::from_std(file);
        Ok(Session { id, path, file, hash: Sha256::new(), size: 0 })
    }

    /// Takes a session to work on it. One that another request works on is unknown.
    pub(super) fn take(&self, id: &str) -> Option<Session> {
        self.lock().sessions.remove(id)
    }

    pub(super) fn put_back(&self, session: Session) {
        self.lock().sessions.insert(session.id.clone(), session);
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Session {
    pub(super) fn id(&self) -> &str {
        &self.id
    }

    /// Bytes that are here.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// Appends a request's body.
    pub(super) async fn append(&mut self, body: Body) -> io::Result<()> {
        let mut chunks = body.into_data_stream();
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk.map_err(io::Error::other)?;
            self.file.write_all(&chunk).await?;
            self.hash.update(&chunk);
            self.size += chunk.len() as u64;
        }
        self.file.flush().await
    }

    /// The finished file and the digest of its bytes.
    pub(super) fn finish(self) -> (tempfile::TempPath, Digest) {
        (self.path, Digest::from_bytes(self.hash.finalize().into()))
    }
}
