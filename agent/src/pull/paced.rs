//! A socket that is read no faster than the pull in progress may.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rootstock_core::bandwidth::Take;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use super::{Pull, Pulls, Shared};

/// The most that is taken for one read: what is taken and does not come at
/// once is nobody else's meanwhile, and hyper reads 400 KiB at most.
const MOST: usize = 256 << 10;

/// The pull that connections read for: they are kept between blobs, and between
/// pulls. Each clone is the same one.
#[derive(Clone, Debug)]
pub(crate) struct Slot {
    /// None where pulls have no bounds.
    shared: Option<Arc<Shared>>,
    current: Arc<Mutex<Option<u64>>>,
}

/// A connection below TLS that reads for the pull in a slot, at its rate, and
/// nothing while there is none. What is written is not paced: it is requests.
#[derive(Debug)]
pub(crate) struct Paced<S> {
    inner: S,
    slot: Slot,
    timer: Timer,
}

/// The moment that is waited for.
#[derive(Debug, Default)]
struct Timer(Option<Pin<Box<Sleep>>>);

impl Slot {
    pub(crate) fn new(pulls: &Pulls) -> Self {
        Self { shared: pulls.0.clone(), current: Arc::default() }
    }

    /// From here on connections read for this pull.
    pub(crate) fn put(&self, pull: &Pull) {
        let id = pull.granted.as_ref().map(|(_, id)| *id);
        if let Some(shared) = &self.shared {
            *self.current.lock().unwrap_or_else(PoisonError::into_inner) = id;
            shared.state().wake();
        }
    }

    fn id(&self) -> Option<u64> {
        *self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S> Paced<S> {
    pub(crate) fn new(inner: S, slot: Slot) -> Self {
        Self { inner, slot, timer: Timer::default() }
    }
}

impl Pull {
    /// Pays for what a kernel takes in of the next answer, so many bytes at
    /// most, before anybody reads it: that has left the registry. To be waited
    /// for before the answer is asked for. Cancel-safe: what was paid by then
    /// is paid for nothing.
    pub(crate) async fn pay_ahead(&self, kernel: u64) {
        let Some((shared, id)) = &self.granted else { return };
        // Its lease may have ended while a connection was made.
        self.granted().await;
        let owed = shared.state().owes(*id, kernel, shared.clock.now());
        // Of an answer before it nothing more comes.
        shared.state().asks(*id, 0);
        let (mut timer, mut left) = (Timer::default(), owed);
        while left > 0 {
            left -= poll_fn(|cx| timer.poll_take(cx, shared, Some(*id), left)).await.min(left);
        }
        shared.state().asks(*id, owed);
    }
}

impl Timer {
    /// Waits until up to `want` bytes may be read for a pull, and takes them.
    fn poll_take(
        &mut self,
        cx: &mut Context<'_>,
        shared: &Shared,
        id: Option<u64>,
        want: u64,
    ) -> Poll<u64> {
        loop {
            let now = shared.clock.now();
            let taken = shared.state().take(id, want, now, cx.waker());
            let wait = match taken {
                Take::Now(bytes) => {
                    self.0 = None;
                    return Poll::Ready(bytes);
                }
                // Only a grant can help.
                Take::At(at) if at == Duration::MAX => {
                    self.0 = None;
                    return Poll::Pending;
                }
                Take::At(at) => at.saturating_sub(now),
            };
            let at = Instant::now() + wait;
            let timer = self.0.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(at)));
            timer.as_mut().reset(at);
            ready!(timer.as_mut().poll(cx));
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Paced<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Self { inner, slot, timer } = &mut *self;
        let Some(shared) = slot.shared.as_ref().filter(|_| buf.remaining() > 0) else {
            return Pin::new(inner).poll_read(cx, buf);
        };
        let id = slot.id();
        let want = buf.remaining().min(MOST);
        let taken = ready!(timer.poll_take(cx, shared, id, want as u64));
        // No more than `want` was taken.
        let size = usize::try_from(taken).unwrap_or(want).min(want);
        let mut part = ReadBuf::new(buf.initialize_unfilled_to(size));
        let read = Pin::new(inner).poll_read(cx, &mut part);
        let came = part.filled().len();
        buf.advance(came);
        if let Some(id) = id {
            shared.state().read(id, taken, came as u64);
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Paced<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}
