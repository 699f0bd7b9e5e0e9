//! From compressed bytes to a file, in two threads beside the network.

use std::io::{self, Read as _, Write};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use bytes::Bytes;
use cap_std::fs::File;
use rootstock_core::digest::Digest;
use sha2::{Digest as _, Sha256};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_util::task::TaskTracker;

use super::shared::Claim;
use super::{FetchError, Wanted};
use crate::rootfs::{Folder, FsError};

/// Chunks of the network that may wait. hyper reads up to 400 KiB at once on a
/// fast link, so this bounds memory at some 3 MiB.
const NETWORK_DEPTH: usize = 8;
/// Plain bytes per chunk: large enough that a hand-over costs nothing beside
/// hashing it (0.1 ms), small enough for a level 2 cache.
const PLAIN_CHUNK: usize = 256 << 10;
/// Plain chunks that may wait.
const PLAIN_DEPTH: usize = 4;
/// The largest zstd window: 8 MiB, what RFC 8878 asks of every decoder and
/// zstd's level 19 uses. It is memory that a blob makes the agent take.
const WINDOW_LOG: u32 = 23;

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

enum Plain {
    Chunk(Vec<u8>),
    /// The blob is what it should be: so may be the file.
    End,
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
    ) -> (Self, mpsc::Sender<Bytes>) {
        let (bytes, compressed) = mpsc::channel(NETWORK_DEPTH);
        let (complete, completed) = oneshot::channel();
        let (chunks, plain) = sync_channel(PLAIN_DEPTH);
        let writer = wanted.clone();
        let write = threads.spawn_blocking(move || write(&writer, &into, &plain));
        let sift = threads.spawn_blocking(move || {
            Sift::new(&wanted, keep, chunks)?.run(compressed, completed, have)
        });
        (Self { complete: Some(complete), sift, write }, bytes)
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
    decoder: zstd::stream::write::Decoder<'static, Chunks>,
    /// zstd's word, until the digest tells whose fault it is.
    undecodable: Option<io::Error>,
}

impl<'a> Sift<'a> {
    fn new(
        wanted: &'a Wanted,
        keep: Option<(Arc<Folder>, Claim)>,
        plain: SyncSender<Plain>,
    ) -> Result<Self, FetchError> {
        let (partial, claim) = match keep {
            None => (None, None),
            Some((folder, claim)) => {
                let file = folder.append(&wanted.blob.hex())?;
                (Some((folder, file)), Some(claim))
            }
        };
        let chunks =
            Chunks { plain, buffer: Vec::new(), size: 0, limit: wanted.plain_size, over: false };
        let mut decoder = zstd::stream::write::Decoder::new(chunks).map_err(FetchError::Io)?;
        decoder.window_log_max(WINDOW_LOG).map_err(FetchError::Io)?;
        Ok(Self { wanted, hash: Sha256::new(), partial, _claim: claim, decoder, undecodable: None })
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
            let mut buffer = vec![0; PLAIN_CHUNK];
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
        let decoded = self.decoder.write_all(bytes);
        self.decoded(decoded)
    }

    fn decoded(&mut self, result: io::Result<()>) -> Result<(), FetchError> {
        let Err(error) = result else { return Ok(()) };
        let chunks = self.decoder.get_ref();
        if chunks.over {
            return Err(FetchError::PlainSize {
                file: self.wanted.name.clone(),
                blob: self.wanted.blob,
                size: chunks.size,
                declared: self.wanted.plain_size,
            });
        }
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Err(FetchError::Io(error));
        }
        self.undecodable = Some(error);
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
            let ended = self.decoder.do_finish();
            self.decoded(ended)?;
        }
        if let Some(source) = self.undecodable.take() {
            return Err(FetchError::Undecodable { blob, source });
        }
        let chunks = self.decoder.get_mut();
        chunks.send().and_then(|()| chunks.end()).map_err(FetchError::Io)
    }
}

/// Collects plain bytes into chunks for the writing thread.
struct Chunks {
    plain: SyncSender<Plain>,
    buffer: Vec<u8>,
    size: u64,
    limit: u64,
    over: bool,
}

impl Chunks {
    fn send(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let chunk = std::mem::replace(&mut self.buffer, Vec::with_capacity(PLAIN_CHUNK));
        self.plain.send(Plain::Chunk(chunk)).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    fn end(&mut self) -> io::Result<()> {
        self.plain.send(Plain::End).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

impl Write for Chunks {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.size += bytes.len() as u64;
        if self.size > self.limit {
            self.over = true;
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= PLAIN_CHUNK {
            self.send()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes and hashes the plain bytes; the file appears when both digests are right.
fn write(wanted: &Wanted, into: &Folder, plain: &Receiver<Plain>) -> Result<(), FetchError> {
    let mut temp = into.temp_file()?;
    let mut hash = Sha256::new();
    let mut size = 0;
    loop {
        match plain.recv() {
            Ok(Plain::Chunk(chunk)) => {
                temp.file().write_all(&chunk).map_err(|source| FsError::Io {
                    what: "write",
                    path: format!("{}/{}", into.path(), wanted.name),
                    source,
                })?;
                hash.update(&chunk);
                size += chunk.len() as u64;
            }
            Ok(Plain::End) => break,
            // The other thread gave up; it says why. The temporary file goes.
            Err(_) => return Ok(()),
        }
    }
    if size != wanted.plain_size {
        return Err(FetchError::PlainSize {
            file: wanted.name.clone(),
            blob: wanted.blob,
            size,
            declared: wanted.plain_size,
        });
    }
    let actual = Digest::from_bytes(hash.finalize().into());
    if actual != wanted.plain {
        let what = format!("file {}", wanted.name);
        return Err(FetchError::Mismatch { what, actual, expected: wanted.plain });
    }
    temp.persist(&wanted.name, wanted.mode)?;
    Ok(())
}
