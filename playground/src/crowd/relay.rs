//! A port that leads to another one, as long as it should.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Where a relay leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leads {
    /// To this address.
    To(SocketAddr),
    /// Into silence: what is sent stays under way until it leads somewhere
    /// again, as in a network that is cut.
    Silence,
}

/// A relay that runs until this is dropped.
#[derive(Debug)]
pub struct Relay {
    /// Its own address.
    pub address: SocketAddr,
    leads: watch::Sender<Leads>,
    _task: JoinSet<()>,
}

impl Relay {
    /// A relay on a port of its own, on loopback.
    ///
    /// # Errors
    /// When there is no port.
    pub async fn start(leads: Leads) -> io::Result<Self> {
        Self::start_at(Ipv4Addr::LOCALHOST, leads).await
    }

    /// The same at another address of this machine.
    ///
    /// # Errors
    /// When there is no port.
    pub async fn start_at(ip: Ipv4Addr, leads: Leads) -> io::Result<Self> {
        let listener = TcpListener::bind((ip, 0)).await?;
        let address = listener.local_addr()?;
        let (leads, follow) = watch::channel(leads);
        let mut task = JoinSet::new();
        task.spawn(accept(listener, follow));
        Ok(Self { address, leads, _task: task })
    }

    /// Where it leads.
    pub fn leads(&self) -> Leads {
        *self.leads.borrow()
    }

    /// Leads elsewhere from here on. Connections that are there stay with
    /// their other end; in silence they hold still.
    pub fn lead(&self, leads: Leads) {
        self.leads.send_if_modified(|now| std::mem::replace(now, leads) != leads);
    }
}

async fn accept(listener: TcpListener, leads: watch::Receiver<Leads>) {
    let mut connections = JoinSet::new();
    loop {
        // Cancel-safe: accept loses no connection, and join_next no result.
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((near, _)) = accepted else { continue };
                connections.spawn(connect(near, leads.clone()));
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn connect(near: TcpStream, mut leads: watch::Receiver<Leads>) {
    let Ok(now) = leads.wait_for(|leads| *leads != Leads::Silence).await.map(|leads| *leads) else {
        return;
    };
    let Leads::To(address) = now else { return };
    let Ok(far) = TcpStream::connect(address).await else { return };
    if near.set_nodelay(true).is_err() || far.set_nodelay(true).is_err() {
        return;
    }
    let (near_in, near_out) = near.into_split();
    let (far_in, far_out) = far.into_split();
    // The end of either direction is the end of both: a controller that dies
    // is seen by its agents at once.
    tokio::select! {
        _ = pump(near_in, far_out, leads.clone()) => {}
        _ = pump(far_in, near_out, leads) => {}
    }
}

async fn pump(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    mut leads: watch::Receiver<Leads>,
) -> io::Result<()> {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let count = from.read(&mut buffer).await?;
        // What was sent, and an end too, waits where nothing comes through.
        if leads.wait_for(|leads| *leads != Leads::Silence).await.is_err() || count == 0 {
            return Ok(());
        }
        to.write_all(&buffer[..count]).await?;
    }
}
