//! Bodies of blobs and manifests: streamed from disk, counted, paced, and broken on demand.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures_util::stream;
use rootstock_core::digest::Digest;
use tokio::fs::File;
use tokio::io::AsyncReadExt as _;
use tokio::time::Instant;

use super::Shared;
use super::faults::{Fault, Target};

/// Bytes read at once; fewer where a rate is set, so that it is smooth.
const CHUNK: u64 = 256 << 10;

/// What went out and came in, and how fast it may.
#[derive(Debug, Default)]
pub(super) struct Meter {
    served: AtomicU64,
    requests: AtomicU64,
    uploads: AtomicU64,
    per_blob: Mutex<BTreeMap<Digest, u64>>,
    /// Bytes per second; 0 for no limit.
    rate: AtomicU64,
    /// When the bytes that were let out so far are paid for.
    paid: Mutex<Option<Instant>>,
}

impl Meter {
    pub(super) fn served(&self) -> u64 {
        self.served.load(Ordering::Relaxed)
    }

    pub(super) fn served_of(&self, blob: &Digest) -> u64 {
        let per_blob = self.per_blob.lock().unwrap_or_else(PoisonError::into_inner);
        per_blob.get(blob).copied().unwrap_or_default()
    }

    pub(super) fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    pub(super) fn uploads(&self) -> u64 {
        self.uploads.load(Ordering::Relaxed)
    }

    pub(super) fn limit(&self, rate: Option<u64>) {
        self.rate.store(rate.unwrap_or(0), Ordering::Relaxed);
    }

    pub(super) fn count_request(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count_upload(&self) {
        self.uploads.fetch_add(1, Ordering::Relaxed);
    }

    fn count(&self, blob: Digest, bytes: u64) {
        self.served.fetch_add(bytes, Ordering::Relaxed);
        let mut per_blob = self.per_blob.lock().unwrap_or_else(PoisonError::into_inner);
        *per_blob.entry(blob).or_default() += bytes;
    }

    /// The bytes that may be read at once: a twentieth of a second's worth.
    fn chunk(&self) -> u64 {
        match self.rate.load(Ordering::Relaxed) {
            0 => CHUNK,
            rate => (rate / 20).clamp(1024, CHUNK),
        }
    }

    /// Waits until `bytes` may go out.
    async fn pace(&self, bytes: u64) {
        let rate = self.rate.load(Ordering::Relaxed);
        if rate == 0 {
            return;
        }
        let until = {
            let mut paid = self.paid.lock().unwrap_or_else(PoisonError::into_inner);
            let now = Instant::now();
            let start = paid.map_or(now, |paid| paid.max(now));
            *paid = Some(start + Duration::from_secs_f64(bytes as f64 / rate as f64));
            start
        };
        tokio::time::sleep_until(until).await;
    }
}

/// A stretch of a file on its way out.
pub(super) struct Outgoing {
    pub(super) shared: Arc<Shared>,
    pub(super) file: File,
    pub(super) digest: Digest,
    /// The whole object's size.
    pub(super) size: u64,
    /// The first byte's place in the object; `file` stands there.
    pub(super) from: u64,
    /// Bytes to send.
    pub(super) length: u64,
    pub(super) fault: Option<(Target, Fault)>,
    /// Manifests are not counted as blob bytes.
    pub(super) is_blob: bool,
}

impl Outgoing {
    /// The length that the answer states; none where a fault hides it.
    pub(super) fn stated_length(&self) -> Option<u64> {
        match self.fault {
            Some((_, Fault::Oversize { .. })) => None,
            _ => Some(self.length),
        }
    }

    pub(super) fn into_body(self) -> Body {
        let extra = match self.fault {
            Some((_, Fault::Oversize { extra })) => extra,
            _ => 0,
        };
        let state = State { sent: 0, extra, stalled: false, out: self };
        Body::from_stream(stream::try_unfold(state, |mut state| async move {
            let chunk = state.next().await?;
            io::Result::Ok(chunk.map(|chunk| (chunk, state)))
        }))
    }
}

struct State {
    out: Outgoing,
    sent: u64,
    extra: u64,
    stalled: bool,
}

impl State {
    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        let meter = &self.out.shared.meter;
        let mut want = (self.out.length - self.sent).min(meter.chunk());
        match self.out.fault {
            Some((_, Fault::Truncate { after })) => {
                if self.sent >= after {
                    // An error in the body makes hyper cut the connection.
                    return Err(io::Error::other("a fault cut the connection"));
                }
                want = want.min(after - self.sent);
            }
            Some((target, fault @ Fault::Stall { after })) if !self.stalled => {
                if self.sent >= after {
                    self.stalled = true;
                    self.out.shared.faults.gone(target, fault).await;
                } else {
                    want = want.min(after - self.sent);
                }
            }
            _ => {}
        }
        let chunk = if want > 0 {
            let mut chunk = vec![0; usize::try_from(want).map_err(io::Error::other)?];
            self.out.file.read_exact(&mut chunk).await?;
            self.corrupt(&mut chunk);
            chunk
        } else if self.extra > 0 {
            let chunk = vec![0; usize::try_from(self.extra.min(CHUNK)).map_err(io::Error::other)?];
            self.extra -= chunk.len() as u64;
            chunk
        } else {
            return Ok(None);
        };
        let length = chunk.len() as u64;
        if want > 0 {
            self.sent += length;
        }
        meter.pace(length).await;
        if self.out.is_blob {
            meter.count(self.out.digest, length);
        }
        Ok(Some(Bytes::from(chunk)))
    }

    fn corrupt(&self, chunk: &mut [u8]) {
        let Some((_, Fault::Corrupt)) = self.out.fault else { return };
        let begin = self.out.from + self.sent;
        let place = (self.out.size / 2).checked_sub(begin).and_then(|at| usize::try_from(at).ok());
        if let Some(byte) = place.and_then(|at| chunk.get_mut(at)) {
            *byte = !*byte;
        }
    }
}
