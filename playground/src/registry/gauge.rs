//! How many bytes leave a registry, and over how many connections, seen from outside of it.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::net::sockopt::set_socket_send_buffer_size;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// Bytes that the kernel takes of us ahead of the network; it doubles it. They
/// count as gone, so that little is best: enough for a loopback at full speed.
const SEND_BUFFER: usize = 32 << 10;

/// A port that leads to a registry and counts what comes back, in
/// bytes of the wire: those that were given to the network, where the other side may
/// not have taken them yet. It runs until this is dropped.
#[derive(Debug)]
pub struct Gauge {
    /// Its own address.
    pub address: SocketAddr,
    counts: Arc<Counts>,
    _task: JoinSet<()>,
}

/// What a gauge counts.
#[derive(Debug, Default)]
pub struct Counts {
    passed: AtomicU64,
    open: AtomicU64,
}

impl Counts {
    /// The bytes that have left the registry so far.
    pub fn passed(&self) -> u64 {
        self.passed.load(Ordering::SeqCst)
    }

    /// How many connections there are at this moment.
    pub fn open(&self) -> u64 {
        self.open.load(Ordering::SeqCst)
    }
}

impl Gauge {
    /// A gauge on a port of its own before a registry.
    ///
    /// # Errors
    /// When there is no port.
    pub async fn start(registry: SocketAddr) -> io::Result<Self> {
        Self::start_at(Ipv4Addr::LOCALHOST, registry).await
    }

    /// The same at another address of this machine.
    ///
    /// # Errors
    /// When there is no port.
    pub async fn start_at(ip: Ipv4Addr, registry: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind((ip, 0)).await?;
        let address = listener.local_addr()?;
        let (counts, mut task) = (Arc::<Counts>::default(), JoinSet::new());
        task.spawn(accept(listener, registry, Arc::clone(&counts)));
        Ok(Self { address, counts, _task: task })
    }

    /// The bytes that have left the registry so far.
    pub fn passed(&self) -> u64 {
        self.counts.passed()
    }

    /// What it counts, for who has no part in this.
    pub fn counts(&self) -> Arc<Counts> {
        Arc::clone(&self.counts)
    }

    /// The most that is counted of one connection before it has left: the
    /// kernel keeps twice what it is told to.
    pub const fn ahead() -> u64 {
        2 * SEND_BUFFER as u64
    }
}

async fn accept(listener: TcpListener, registry: SocketAddr, counts: Arc<Counts>) {
    let mut connections = JoinSet::new();
    loop {
        // Cancel-safe: accept loses no connection, and join_next no result.
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((near, _)) = accepted else { continue };
                let counts = Arc::clone(&counts);
                connections.spawn(async move {
                    counts.open.fetch_add(1, Ordering::SeqCst);
                    if let Err(error) = lead(near, registry, &counts.passed).await {
                        tracing::debug!(%error, "a connection to the registry broke");
                    }
                    counts.open.fetch_sub(1, Ordering::SeqCst);
                });
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn lead(near: TcpStream, registry: SocketAddr, passed: &AtomicU64) -> io::Result<()> {
    set_socket_send_buffer_size(&near, SEND_BUFFER)?;
    let far = TcpStream::connect(registry).await?;
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    let (near_in, near_out) = near.into_split();
    let (far_in, far_out) = far.into_split();
    let asked = AtomicU64::new(0);
    // The end of either direction is the end of both.
    tokio::select! {
        ended = pump(near_in, far_out, &asked) => ended,
        ended = pump(far_in, near_out, passed) => ended,
    }
}

async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    passed: &AtomicU64,
) -> io::Result<()> {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let count = from.read(&mut buffer).await?;
        if count == 0 {
            return Ok(());
        }
        let mut left = &buffer[..count];
        while !left.is_empty() {
            let written = to.write(left).await?;
            passed.fetch_add(written as u64, Ordering::SeqCst);
            left = &left[written..];
        }
    }
}
