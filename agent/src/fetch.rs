//! Blobs from a registry into files, verified on the way.
//!
//! ```text
//!  socket ─Bytes─▶ sift: count, sha256 of the blob, partial file, zstd
//!                    ─plain chunks─▶ write: count, sha256 of the plain bytes, temporary file
//!                                      ─▶ fsync ─▶ rename ─▶ fsync of the folder
//! ```
//! The stages run side by side with bounded channels between them; a file
//! appears only when the blob and its plain bytes are what they should be.
//!
//! The compressed bytes of a large blob are kept until it is complete: they
//! are what a range request continues, and feeding them again costs a fraction
//! of fetching them again.

mod client;
mod endpoint;
mod error;
mod pipe;
mod plain;
mod shared;
#[cfg(test)]
mod tests;

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use client::Client;
use endpoint::Endpoint;
pub use error::FetchError;
use futures_util::FutureExt as _;
use pipe::{Pipe, Verdict};
pub(crate) use plain::FLUSH;
use rootstock_core::desired::Registry;
use rootstock_core::digest::Digest;
pub use shared::Shared;
use tokio::sync::mpsc;

use crate::pull::Pull;
use crate::rootfs::{Entry, Folder};

/// The smallest blob whose compressed bytes are kept for a range request:
/// below it a new request costs less than the second file.
const RESUME_FROM: u64 = 1 << 20;
/// Answers that break in the middle before a source is given up for now.
const CUTS: u32 = 5;
/// The longest that a busy source is waited for at once: some registries
/// count requests by the minute.
const BUSY: Duration = Duration::from_secs(60);

/// How far a download is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// So many bytes are here from an earlier time.
    Resumes(u64),
    /// It may not begin, or not go on, before it gets its share of the bandwidth.
    Waits,
    /// So many bytes came over the network.
    Came(u64),
}

/// One file to fetch.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// The blob.
    pub blob: Digest,
    /// Its size in bytes.
    pub blob_size: u64,
    /// The digest of the plain bytes.
    pub plain: Digest,
    /// The size of the plain bytes.
    pub plain_size: u64,
    /// The file's name in its folder.
    pub name: String,
    /// Its permission bits.
    pub mode: u32,
}

/// Where blobs are kept until they are complete.
#[derive(Clone, Debug)]
pub struct Partial {
    /// The folder.
    pub folder: Arc<Folder>,
    /// The largest blob that is kept there, in bytes.
    pub limit: u64,
    /// What all downloads that keep blobs there share.
    pub shared: Shared,
}

/// Fetches blobs of one repository. One connection is kept between blobs, and
/// so is the pull: a node's next blob does not wait behind all other nodes'
/// first ones. Its lease is given back when this is dropped.
#[derive(Debug)]
pub struct Fetcher {
    sources: Vec<Endpoint>,
    client: Client,
    partial: Partial,
    /// The pull that goes on, and the number of its source.
    turn: Option<(usize, Pull)>,
    /// Whether it ends with the next blob.
    last: bool,
}

impl Fetcher {
    /// A fetcher for a repository: the registry's mirrors in order, then the registry.
    pub fn new(
        registry: &Registry,
        repository: &str,
        partial: Partial,
    ) -> Result<Self, FetchError> {
        // The credential is the registry's: a mirror is another host, and not shown it.
        let mirrors = registry.mirrors.iter().map(|url| (url, None));
        let sources = mirrors
            .chain([(&registry.url, registry.credential.as_ref())])
            .map(|(url, credential)| Endpoint::new(url, repository, credential))
            .collect::<Result<_, _>>()?;
        let client = Client::new(&registry.ca_bundle, partial.shared.pulls());
        Ok(Self { sources, client, partial, turn: None, last: false })
    }

    /// The file that is fetched next is the last one: its lease is given back
    /// when its bytes are there, and not when they are on the disk.
    pub fn ends(&mut self) {
        self.last = true;
    }

    /// Fetches a file into a folder. `progress` is told of every byte that
    /// comes over the network, and where it has to wait for its share of that.
    ///
    /// Dropped in the middle it leaves no file, but the bytes that came.
    pub async fn fetch(
        &mut self,
        wanted: &Wanted,
        into: &Arc<Folder>,
        progress: &(dyn Fn(Step) + Send + Sync),
    ) -> Result<(), FetchError> {
        let (mut result, resumed) = self.try_sources(wanted, into, progress, 0).await?;
        if resumed && result.as_ref().is_err_and(FetchError::is_wrong) {
            // Bytes from earlier may have been what a power cut left of them,
            // and are gone now: the source is asked for all before it is blamed.
            tracing::debug!(blob = %wanted.blob, "a resumed download begins anew");
            (result, _) = self.try_sources(wanted, into, progress, 0).await?;
        }
        match result {
            // Bytes of one source may have been completed by another; the
            // registry itself gets a chance that no mirror has spoiled.
            Err(error) if error.is_content() && self.sources.len() > 1 => {
                tracing::warn!(blob = %wanted.blob, %error, "a mirror is passed over");
                self.try_sources(wanted, into, progress, self.sources.len() - 1).await?.0
            }
            other => other,
        }
    }

    /// What became of it, and whether bytes from earlier were used.
    async fn try_sources(
        &mut self,
        wanted: &Wanted,
        into: &Arc<Folder>,
        progress: &(dyn Fn(Step) + Send + Sync),
        first: usize,
    ) -> Result<(Result<(), FetchError>, bool), FetchError> {
        let Partial { folder, limit, shared } = &self.partial;
        let keep = (RESUME_FROM..=*limit).contains(&wanted.blob_size);
        let claim = if keep { shared.claim(wanted.blob) } else { None };
        let have = if claim.is_some() { self.have(wanted)? } else { 0 };
        let keep = claim.map(|claim| (Arc::clone(folder), claim));
        let (mut pipe, bytes) =
            Pipe::start(&shared.threads, wanted.clone(), Arc::clone(into), keep, have)?;
        if have > 0 {
            progress(Step::Resumes(have));
        }
        let mut fed = Feed { bytes, at: have, size: wanted.blob_size };
        let mut outcome = Ok(());
        for at in first..self.sources.len() {
            outcome = self.pull_from(at, wanted, &mut fed, progress).await;
            // What the network says of one source, the next may make good.
            if outcome.is_ok() || fed.bytes.is_closed() {
                break;
            }
        }
        if outcome.is_ok() {
            pipe.complete();
            self.turn = self.turn.take().filter(|_| !self.last);
        }
        // The channel's end tells the pipe that nothing more comes.
        drop(fed);
        let verdict = pipe.verdict().await;
        if let Err(FetchError::TooLarge { .. }) = &outcome {
            // The bytes before the surplus may be right, but nothing of such an answer is used.
            self.partial.folder.remove(&wanted.blob.hex())?;
        }
        let result = match verdict {
            Ok(Verdict::Written) => Ok(()),
            // The pipe was told that bytes are missing; why is known here.
            Ok(Verdict::Incomplete) => outcome,
            Err(error) => Err(error),
        };
        Ok((result, have > 0))
    }

    /// How many bytes of the blob are here already.
    fn have(&self, wanted: &Wanted) -> Result<u64, FetchError> {
        match self.partial.folder.entry(&wanted.blob.hex())? {
            Some(Entry::File { size, .. }) if size <= wanted.blob_size => Ok(size),
            None => Ok(0),
            Some(_) => {
                self.partial.folder.remove(&wanted.blob.hex())?;
                Ok(0)
            }
        }
    }

    async fn pull_from(
        &mut self,
        at: usize,
        wanted: &Wanted,
        fed: &mut Feed,
        progress: &(dyn Fn(Step) + Send + Sync),
    ) -> Result<(), FetchError> {
        let last = at + 1 == self.sources.len();
        // What broke for another reason once is the network's, not the blob's.
        let (mut cuts, mut early) = (0, true);
        loop {
            if fed.at == fed.size {
                return Ok(());
            }
            let Err(error) = self.once(at, wanted, fed, progress).await else { continue };
            let wait = error.wait(BUSY);
            if !error.is_cut() && wait.is_none() || fed.bytes.is_closed() {
                return Err(error);
            }
            if error.is_stalled() && !last {
                tracing::warn!(blob = %wanted.blob, at = fed.at, %error, "the next source is asked for the rest");
                return Err(error);
            }
            cuts += 1;
            early &= error.is_early_end();
            if cuts == CUTS && early {
                let (blob, size, declared) = (wanted.blob, fed.at, fed.size);
                return Err(FetchError::Truncated { blob, size, declared });
            }
            if cuts == CUTS {
                return Err(error);
            }
            tracing::debug!(blob = %wanted.blob, at = fed.at, ?wait, %error, "a download goes on by range");
            if let Some(wait) = wait {
                // Others may have its lease meanwhile.
                self.turn = None;
                tokio::time::sleep(wait).await;
            }
        }
    }

    /// One request and what comes of it, once it may. Where it loses its lease
    /// in the middle another follows with the next, as the same pull.
    async fn once(
        &mut self,
        at: usize,
        wanted: &Wanted,
        fed: &mut Feed,
        progress: &(dyn Fn(Step) + Send + Sync),
    ) -> Result<(), FetchError> {
        let (pulls, source) = (self.partial.shared.pulls(), &self.sources[at].origin);
        let missing = fed.size.saturating_sub(fed.at);
        let pull = match self.turn.take() {
            Some((of, pull)) if of == at => {
                pull.goes_on(wanted.blob, missing);
                pull
            }
            // Another source's is given back before the next is asked for.
            other => {
                drop(other);
                let begin = pulls.begin(wanted.blob, source.to_string(), missing);
                or_say(begin, progress).await
            }
        };
        let asked = loop {
            or_say(pull.granted(), progress).await;
            tokio::select! {
                // Cancel-safe: a chunk that was not fed yet is asked for again.
                asked = self.ask(&pull, at, wanted, fed, progress) => break asked,
                // Cancel-safe: it only waits. All bytes may be there, and the
                // answer's end not: for that nothing is asked.
                () = pull.lost() => match fed.size.saturating_sub(fed.at) {
                    0 => break Ok(()),
                    missing => pull.missing(missing),
                },
            }
        };
        self.turn = Some((at, pull));
        asked
    }

    async fn ask(
        &mut self,
        pull: &Pull,
        at: usize,
        wanted: &Wanted,
        fed: &mut Feed,
        progress: &(dyn Fn(Step) + Send + Sync),
    ) -> Result<(), FetchError> {
        let mut body = self.client.get(pull, &self.sources[at], &wanted.blob, fed.at).await?;
        let mut skip = fed.at.saturating_sub(body.start());
        let size = body.length().map(|length| body.start().saturating_add(length));
        if let Some(size) = size.filter(|size| *size > fed.size) {
            return Err(FetchError::TooLarge { blob: wanted.blob, size, declared: fed.size });
        }
        if skip > 0 {
            // What was here already comes once more, and is paid for.
            pull.missing(fed.size);
        }
        while let Some(chunk) = body.next(pull).await? {
            pull.came(chunk.len() as u64);
            progress(Step::Came(chunk.len() as u64));
            let drop = skip.min(chunk.len() as u64);
            skip -= drop;
            // `drop` is at most the chunk's length.
            let chunk = chunk.slice(usize::try_from(drop).unwrap_or(chunk.len())..);
            fed.push(chunk, wanted).await?;
        }
        if fed.at < fed.size {
            return Err(FetchError::Truncated {
                blob: wanted.blob,
                size: fed.at,
                declared: fed.size,
            });
        }
        self.client.keep(body);
        Ok(())
    }
}

/// Waits, and says so where that takes time.
async fn or_say<T>(wait: impl Future<Output = T>, progress: &(dyn Fn(Step) + Send + Sync)) -> T {
    let mut wait = pin!(wait);
    if let Some(ready) = wait.as_mut().now_or_never() {
        return ready;
    }
    progress(Step::Waits);
    wait.await
}

/// The pipe's entrance.
#[derive(Debug)]
struct Feed {
    bytes: mpsc::Sender<Bytes>,
    at: u64,
    size: u64,
}

impl Feed {
    async fn push(&mut self, chunk: Bytes, wanted: &Wanted) -> Result<(), FetchError> {
        if chunk.is_empty() {
            return Ok(());
        }
        let size = self.at + chunk.len() as u64;
        if size > self.size {
            return Err(FetchError::TooLarge { blob: wanted.blob, size, declared: self.size });
        }
        // It closes only when the pipe has failed, which the verdict tells.
        let closed = |_| FetchError::Io(io::ErrorKind::BrokenPipe.into());
        self.bytes.send(chunk).await.map_err(closed)?;
        self.at = size;
        Ok(())
    }
}
