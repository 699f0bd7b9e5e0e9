//! Plain bytes: out of zstd in chunks, and into a file.

use std::io::{self, Write as _};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use rootstock_core::digest::Digest;
use sha2::{Digest as _, Sha256};
use zstd::stream::raw::{DParameter, Decoder, InBuffer, Operation as _, OutBuffer};

use super::{FetchError, Wanted};
use crate::rootfs::{Folder, FsError};

/// Plain bytes per chunk: large enough that a hand-over costs nothing beside
/// hashing it (0.1 ms), small enough for a level 2 cache.
pub(super) const CHUNK: usize = 256 << 10;
/// Plain chunks that may wait.
const DEPTH: usize = 4;
/// Plain bytes after which the disk is asked to begin with them: a fsync at the
/// end of 83 MB waits 54 ms, a quarter of the installation, and 4 ms so. Large
/// enough for large writes to the disk, small enough that little is left.
pub(crate) const FLUSH: u64 = 8 << 20;
/// The largest zstd window: 8 MiB, what RFC 8878 asks of every decoder and
/// zstd's level 19 uses. It is memory that a blob makes the agent take.
const WINDOW_LOG: u32 = 23;

enum Plain {
    Chunk(Vec<u8>),
    /// The blob is what it should be: so may be the file.
    End,
}

/// What the writing thread gets, and gives back.
pub(super) struct Chunks {
    plain: Receiver<Plain>,
    empty: SyncSender<Vec<u8>>,
}

/// Decompresses into chunks for the writing thread.
pub(super) struct Unpack {
    decoder: Decoder<'static>,
    chunk: Vec<u8>,
    plain: SyncSender<Plain>,
    /// Chunks go around: fresh memory would have to be cleared by the kernel first.
    empty: Receiver<Vec<u8>>,
    /// Whether the last frame is complete.
    ended: bool,
    size: u64,
    limit: u64,
}

/// Why decompressing can't go on.
pub(super) enum Stop {
    /// These are no bytes for zstd.
    Undecodable(io::Error),
    /// There are more plain bytes than there may be: so many at least.
    Over(u64),
    /// The writing thread is gone.
    Closed,
}

impl Unpack {
    /// At most `limit` plain bytes come of it.
    pub(super) fn new(limit: u64) -> io::Result<(Self, Chunks)> {
        let (plain, chunks) = sync_channel(DEPTH);
        // Room for all that there are: those that wait, and one in each thread.
        let (back, empty) = sync_channel(DEPTH + 2);
        let mut decoder = Decoder::new()?;
        decoder.set_parameter(DParameter::WindowLogMax(WINDOW_LOG))?;
        let chunk = Vec::with_capacity(CHUNK);
        let unpack = Self { decoder, chunk, plain, empty, ended: false, size: 0, limit };
        Ok((unpack, Chunks { plain: chunks, empty: back }))
    }

    /// Decompresses the next bytes of the blob.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<(), Stop> {
        let mut input = InBuffer::around(bytes);
        loop {
            let before = self.chunk.len();
            let mut output = OutBuffer::around_pos(&mut self.chunk, before);
            let hint = self.decoder.run(&mut input, &mut output).map_err(Stop::Undecodable)?;
            self.ended = hint == 0;
            self.size += (self.chunk.len() - before) as u64;
            if self.size > self.limit {
                return Err(Stop::Over(self.size));
            }
            let full = self.chunk.len() == self.chunk.capacity();
            if full {
                self.send()?;
            }
            // A full chunk may have left plain bytes inside zstd.
            if input.pos() == bytes.len() && (!full || self.ended) {
                return Ok(());
            }
        }
    }

    /// Tells the writing thread that the blob was right.
    pub(super) fn finish(&mut self) -> Result<(), Stop> {
        if !self.ended {
            let source = io::Error::new(io::ErrorKind::UnexpectedEof, "incomplete frame");
            return Err(Stop::Undecodable(source));
        }
        self.send()?;
        self.plain.send(Plain::End).map_err(|_| Stop::Closed)
    }

    fn send(&mut self) -> Result<(), Stop> {
        if self.chunk.is_empty() {
            return Ok(());
        }
        let next = self.empty.try_recv().unwrap_or_else(|_| Vec::with_capacity(CHUNK));
        let chunk = std::mem::replace(&mut self.chunk, next);
        self.plain.send(Plain::Chunk(chunk)).map_err(|_| Stop::Closed)
    }
}

/// Writes and hashes the plain bytes; the file appears when both digests are right.
pub(super) fn write(wanted: &Wanted, into: &Folder, chunks: &Chunks) -> Result<(), FetchError> {
    let mut temp = into.temp_file()?;
    let mut hash = Sha256::new();
    let (mut size, mut begun) = (0, 0);
    loop {
        match chunks.plain.recv() {
            Ok(Plain::Chunk(mut chunk)) => {
                temp.file().write_all(&chunk).map_err(|source| FsError::Io {
                    what: "write",
                    path: format!("{}/{}", into.path(), wanted.name),
                    source,
                })?;
                hash.update(&chunk);
                size += chunk.len() as u64;
                if size - begun >= FLUSH {
                    temp.file().begin_writeback(begun, size - begun);
                    begun = size;
                }
                chunk.clear();
                // None is taken back when the other thread is done.
                let _ = chunks.empty.try_send(chunk);
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
