//! From compressed bytes to a file, in two threads beside the network.

use std::io::{self, Read as _, Write as _};
use std::sync::Arc;

use bytes::Bytes;
use cap_std::fs::File;
use rootstock_core::digest::Digest;
use sha2::{Digest as _, Sha256};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_util::task::TaskTracker;

use super::plain::{self, Stop, Unpack};
use super::shared::Claim;
use super::{FetchError, Wanted};
use crate::rootfs::{Folder, FsError};

/// Chunks of the network that may wait. hyper reads up to 400 KiB at once on a
/// fast link, so this bounds memory at some 3 MiB.
const NETWORK_DEPTH: usize = 8;

/// What became of the bytes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The file is in place.
    Written,
    /// Bytes are missing; nothing is in place.
    Incomplete,
}

/// The two threads.
#[derive(Debug)]
pub(super) struct Pipe {
    complete: Option<oneshot::Sender<()>>,
    sift: JoinHandle<Result<Verdict, FetchError>>,
    write: JoinHandle<Result<(), FetchError>>,
}

impl Pipe {
    /// Starts the threads; bytes go into the channel. The first `have` bytes
    /// are read from the partial file.
    pub(super) fn start(
        threads: &TaskTracker,
        wanted: Wanted,
        into: Arc<Folder>,
        keep: Option<(Arc<Folder>, Claim)>,
        have: u64,
    ) -> Result<(Self, mpsc::Sender<Bytes>), FetchError> {
        let (bytes, compressed) = mpsc::channel(NETWORK_DEPTH);
        let (complete, completed) = oneshot::channel();
        let (unpack, chunks) = Unpack::new(wanted.plain_size).map_err(FetchError::Io)?;
        let writer = wanted.clone();
        let write = threads.spawn_blocking(move || plain::write(&writer, &into, &chunks));
        let sift = threads.spawn_blocking(move || {
            Sift::new(&wanted, keep, unpack)?.run(compressed, completed, have)
        });
        Ok((Self { complete: Some(complete), sift, write }, bytes))
    }

    /// Says, before the channel is closed, that all bytes went into it.
    pub(super) fn complete(&mut self) {
        if let Some(sender) = self.complete.take() {
            // The thread may have failed and gone.
            let _ = sender.send(());
        }
    }

    /// What became of it, once the channel is closed.
    pub(super) async fn verdict(&mut self) -> Result<Verdict, FetchError> {
        let panicked = |error| FetchError::Io(io::Error::other(error));
        let sifted = (&mut self.sift).await.map_err(panicked)?;
        let written = (&mut self.write).await.map_err(panicked)?;
        // A thread that failed takes the other with it; the disk's word is the cause then.
        match (sifted, written) {
            (Err(FetchError::Io(_)), Err(cause)) => Err(cause),
            (Err(error), _) => Err(error),
            (Ok(Verdict::Incomplete), Err(cause @ FetchError::Fs(_))) => Err(cause),
            (Ok(Verdict::Incomplete), _) => Ok(Verdict::Incomplete),
            (Ok(Verdict::Written), written) => written.map(|()| Verdict::Written),
        }
    }
}

/// Counts, hashes, keeps and decompresses the blob.
struct Sift<'a> {
    wanted: &'a Wanted,
    hash: Sha256,
    partial: Option<(Arc<Folder>, File)>,
    _claim: Option<Claim>,
    unpack: Unpack,
    /// zstd's word, until the digest tells whose fault it is.
    undecodable: Option<io::Error>,
}

impl<'a> Sift<'a> {
    fn new(
        wanted: &'a Wanted,
        keep: Option<(Arc<Folder>, Claim)>,
        unpack: Unpack,
    ) -> Result<Self, FetchError> {
        let (partial, claim) = match keep {
            None => (None, None),
            Some((folder, claim)) => {
                let file = folder.append(&wanted.blob.hex())?;
                (Some((folder, file)), Some(claim))
            }
        };
        Ok(Self { wanted, hash: Sha256::new(), partial, _claim: claim, unpack, undecodable: None })
    }

    fn run(
        mut self,
        mut compressed: mpsc::Receiver<Bytes>,
        mut completed: oneshot::Receiver<()>,
        have: u64,
    ) -> Result<Verdict, FetchError> {
        let result = self.sift(&mut compressed, have);
        let ended = result.and_then(|size| {
            // Dropped in the middle, or the network gave up: the partial file stays.
            if completed.try_recv().is_err() {
                return Ok(Verdict::Incomplete);
            }
            self.finish(size).map(|()| Verdict::Written)
        });
        let forget = match &ended {
            Ok(verdict) => *verdict == Verdict::Written,
            // Bytes that were wrong once must not be fed again.
            Err(error) => !matches!(error, FetchError::Fs(_) | FetchError::Io(_)),
        };
        if let Some((folder, _)) = self.partial.filter(|_| forget) {
            folder.remove(&self.wanted.blob.hex())?;
        }
        ended
    }

    fn sift(
        &mut self,
        compressed: &mut mpsc::Receiver<Bytes>,
        have: u64,
    ) -> Result<u64, FetchError> {
        let mut size = 0;
        if have > 0
            && let Some((folder, _)) = &self.partial
            && let Some(file) = folder.read_file(&self.wanted.blob.hex())?
        {
            let mut file = file.take(have);
            let mut buffer = vec![0; plain::CHUNK];
            loop {
                let read = file.read(&mut buffer).map_err(|e| self.disk("read", e))?;
                if read == 0 {
                    break;
                }
                size += read as u64;
                self.eat(&buffer[..read])?;
            }
        }
        while let Some(bytes) = compressed.blocking_recv() {
            if let Some((_, file)) = &mut self.partial {
                let kept = file.write_all(&bytes);
                kept.map_err(|e| self.disk("write", e))?;
            }
            size += bytes.len() as u64;
            self.eat(&bytes)?;
        }
        Ok(size)
    }

    fn disk(&self, what: &'static str, source: io::Error) -> FetchError {
        let folder = self.partial.as_ref().map_or("", |(folder, _)| folder.path());
        let path = format!("{folder}/{}", self.wanted.blob.hex());
        FetchError::Fs(FsError::Io { what, path, source })
    }

    fn eat(&mut self, bytes: &[u8]) -> Result<(), FetchError> {
        self.hash.update(bytes);
        if self.undecodable.is_some() {
            return Ok(());
        }
        let unpacked = self.unpack.push(bytes);
        self.unpacked(unpacked)
    }

    fn unpacked(&mut self, result: Result<(), Stop>) -> Result<(), FetchError> {
        match result {
            Ok(()) => {}
            Err(Stop::Undecodable(error)) => self.undecodable = Some(error),
            Err(Stop::Over(size)) => {
                return Err(FetchError::PlainSize {
                    file: self.wanted.name.clone(),
                    blob: self.wanted.blob,
                    size,
                    declared: self.wanted.plain_size,
                });
            }
            Err(Stop::Closed) => return Err(FetchError::Io(io::ErrorKind::BrokenPipe.into())),
        }
        Ok(())
    }

    fn finish(&mut self, size: u64) -> Result<(), FetchError> {
        let Wanted { blob, blob_size, .. } = *self.wanted;
        let actual = Digest::from_bytes(self.hash.finalize_reset().into());
        if actual != blob {
            let what = format!("the blob of {} ({size} of {blob_size} bytes)", self.wanted.name);
            return Err(FetchError::Mismatch { what, actual, expected: blob });
        }
        if self.undecodable.is_none() {
            let finished = self.unpack.finish();
            self.unpacked(finished)?;
        }
        match self.undecodable.take() {
            Some(source) => Err(FetchError::Undecodable { blob, source }),
            None => Ok(()),
        }
    }
}
