//! Accepting connections, and not accepting them for a while.

use std::io;
use std::net::SocketAddr;

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

/// Waiting connections, as most servers have it.
const BACKLOG: u32 = 1024;

/// The accepting task's handle; the task ends with it.
#[derive(Debug)]
pub(super) struct Server {
    address: SocketAddr,
    /// One command at a time is enough: each is waited for.
    commands: mpsc::Sender<Command>,
    /// Dropped with the handle, which ends the task and with it every connection.
    _task: JoinSet<()>,
}

#[derive(Debug)]
enum Command {
    Down(oneshot::Sender<()>),
    Up(oneshot::Sender<io::Result<()>>),
}

impl Server {
    pub(super) fn start(address: SocketAddr, router: Router) -> io::Result<Self> {
        let listener = bind(address)?.listen(BACKLOG)?;
        let address = listener.local_addr()?;
        let (commands, received) = mpsc::channel(1);
        let accepting = Accepting { address, router, received, connections: JoinSet::new() };
        let mut task = JoinSet::new();
        task.spawn(accepting.run(listener));
        Ok(Self { address, commands, _task: task })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(super) async fn go_down(&self) {
        let (done, wait) = oneshot::channel();
        // A task that has ended accepts nothing either.
        if self.commands.send(Command::Down(done)).await.is_ok() {
            let _ = wait.await;
        }
    }

    pub(super) async fn come_up(&self) -> io::Result<()> {
        let gone = || io::Error::other("the registry's task has ended");
        let (done, wait) = oneshot::channel();
        self.commands.send(Command::Up(done)).await.map_err(|_| gone())?;
        wait.await.map_err(|_| gone())?
    }
}

/// A socket on the address that does not listen.
fn bind(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    // Connections that were cut leave the port in TIME_WAIT.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}

/// The port: open, or held so that nobody else takes it.
enum Port {
    Open(TcpListener),
    Held(TcpSocket),
    Lost,
}

struct Accepting {
    address: SocketAddr,
    router: Router,
    received: mpsc::Receiver<Command>,
    connections: JoinSet<()>,
}

impl Accepting {
    async fn run(mut self, listener: TcpListener) {
        let mut port = Port::Open(listener);
        loop {
            tokio::select! {
                // Cancel-safe: accept loses no connection when it is dropped.
                accepted = accept(&port) => match accepted {
                    Ok(stream) => self.serve(stream),
                    Err(error) => tracing::debug!(%error, "can't accept"),
                },
                // Cancel-safe: recv loses no command when it is dropped.
                command = self.received.recv() => match command {
                    None => return,
                    Some(Command::Down(done)) => {
                        // The listener goes first: a socket can't be bound beside it.
                        drop(port);
                        self.connections.shutdown().await;
                        port = bind(self.address).map_or(Port::Lost, Port::Held);
                        let _ = done.send(());
                    }
                    Some(Command::Up(done)) => {
                        let opened = self.open(port);
                        let answer = match opened {
                            Ok(listener) => { port = Port::Open(listener); Ok(()) }
                            Err(error) => { port = Port::Lost; Err(error) }
                        };
                        let _ = done.send(answer);
                    }
                },
                // Cancel-safe: join_next loses no result when it is dropped.
                Some(_) = self.connections.join_next() => {}
            }
        }
    }

    fn open(&self, port: Port) -> io::Result<TcpListener> {
        match port {
            Port::Open(listener) => Ok(listener),
            Port::Held(socket) => socket.listen(BACKLOG),
            Port::Lost => bind(self.address)?.listen(BACKLOG),
        }
    }

    fn serve(&mut self, stream: tokio::net::TcpStream) {
        let service = TowerToHyperService::new(self.router.clone());
        self.connections.spawn(async move {
            let served = auto::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(stream), service)
                .await;
            if let Err(error) = served {
                // Clients hang up, and faults cut connections.
                tracing::debug!(%error, "a connection broke off");
            }
        });
    }
}

async fn accept(port: &Port) -> io::Result<tokio::net::TcpStream> {
    match port {
        Port::Open(listener) => {
            let (stream, _) = listener.accept().await?;
            // Answers are small; waiting to fill a packet would double their time.
            stream.set_nodelay(true)?;
            Ok(stream)
        }
        Port::Held(_) | Port::Lost => std::future::pending().await,
    }
}
