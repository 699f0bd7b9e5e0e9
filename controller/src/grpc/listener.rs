//! One port for all shoots: the name in the ClientHello picks the shoot, and
//! with it the certificate that is shown and the authority that clients must have.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use jiff::Timestamp;
use rootstock_core::name::ShootName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::Sleep;
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic::transport::server::Connected;

use super::shares::{Share, Shares};
use super::{Directory, ShootEndpoint};
use crate::identity::authorities::Anchor;
use crate::identity::peer::{Peer, PeerError};

/// A handshake costs 0.25 ms of CPU: more at once would only wait for each other.
const HANDSHAKES: usize = 256;
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a connection waits for its turn: agents give up after 15 s.
const TURN: Duration = Duration::from_secs(14);
/// 46 KiB each, so 1 GiB: more nodes than one seed has.
const CONNECTIONS: usize = 20_000;
/// Those of one shoot: Kubernetes supports 5,000 nodes, each of which may have
/// one that is dead and not yet noticed, and room. The rest is for others.
pub(super) const SHARE: usize = 12_000;
/// How long a client without a certificate may stay: it has one thing to ask.
const ANONYMOUS_LIFETIME: Duration = Duration::from_secs(120);
/// Out of file descriptors, most likely: others must close first.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Takes connections in, and gives them on when their handshake is done.
pub(super) struct Acceptor<D> {
    listener: TcpListener,
    directory: Arc<D>,
    accepted: mpsc::Sender<Connection>,
    shutdown: CancellationToken,
    handshakes: Arc<Semaphore>,
    connections: Arc<Semaphore>,
    shares: Arc<Shares>,
}

/// Whose connection it is; every request on it has this as an extension.
#[derive(Clone, Debug)]
pub(super) struct Link {
    /// The host that was called, in lower case.
    pub(super) host: Arc<str>,
    /// The shoot behind it.
    shoot: ShootName,
    /// What the client's certificate says, if it showed one.
    peer: Option<Result<Peer, PeerError>>,
    /// The authority that the handshake has found it to be of.
    issuer: Option<Anchor>,
}

/// A connection after its handshake.
pub(super) struct Connection {
    io: TlsStream<TcpStream>,
    link: Link,
    deadline: Option<Pin<Box<Sleep>>>,
    _counted: Counted,
}

/// A connection counts until it is dropped, among all and, once its shoot is
/// known, among that one's.
struct Counted {
    _of_all: OwnedSemaphorePermit,
    _of_shoot: Share,
}

#[derive(Debug, thiserror::Error)]
enum HandshakeError {
    #[error("no TLS handshake in time")]
    Timeout,
    #[error("the TLS handshake failed")]
    Tls(#[source] io::Error),
    #[error("the client names no host")]
    NoHost,
    #[error("no shoot is served under {0:?}")]
    UnknownHost(String),
    #[error("{0} has all connections that it may have")]
    NoShare(ShootName),
}

impl<D: Directory> Acceptor<D> {
    pub(super) fn new(
        listener: TcpListener,
        directory: Arc<D>,
        accepted: mpsc::Sender<Connection>,
        shutdown: CancellationToken,
        share: usize,
    ) -> Self {
        let shares = Shares::new(share);
        let handshakes = Arc::new(Semaphore::new(HANDSHAKES));
        let connections = Arc::new(Semaphore::new(CONNECTIONS));
        Self { listener, directory, accepted, shutdown, handshakes, connections, shares }
    }

    /// Runs until shutdown, which also ends handshakes under way.
    ///
    /// A connection is taken in at once and waits for its turn here, where it
    /// costs a socket: the kernel's own queue is short, and who finds it full
    /// is heard again only after seconds.
    pub(super) async fn run(self) {
        let mut handshakes = JoinSet::new();
        loop {
            tokio::select! {
                // Cancel-safe: a token stays cancelled.
                () = self.shutdown.cancelled() => return,
                // Cancel-safe: permits go back, and accept takes nothing before it is done.
                accepted = self.accept() => {
                    let Some((tcp, remote, counted)) = accepted else { return };
                    let (directory, accepted) = (Arc::clone(&self.directory), self.accepted.clone());
                    let shares = Arc::clone(&self.shares);
                    let turn = Arc::clone(&self.handshakes).acquire_owned();
                    handshakes.spawn(async move {
                        // Who waited longer has given up, and would be served in vain.
                        let Ok(Ok(handshake)) = tokio::time::timeout(TURN, turn).await else {
                            tracing::debug!(%remote, "no turn for a handshake in time");
                            return;
                        };
                        match shake(tcp, directory.as_ref(), counted, &shares).await {
                            // The server has gone if nobody takes it.
                            Ok(connection) => drop(accepted.send(connection).await),
                            Err(error) => tracing::debug!(
                                %remote,
                                error = %rootstock_daemon::error::Chain(&error),
                                "connection refused",
                            ),
                        }
                        drop(handshake);
                    });
                }
                // Cancel-safe: a result stays until it is taken.
                Some(done) = handshakes.join_next() => {
                    if let Err(error) = done {
                        tracing::warn!(%error, "handshake task failed");
                    }
                }
            }
        }
    }

    /// The next connection, once there is room for it.
    async fn accept(&self) -> Option<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
        // It fails only when closed, which nobody does.
        let counted = Arc::clone(&self.connections).acquire_owned().await.ok()?;
        loop {
            match self.listener.accept().await {
                Ok((tcp, remote)) => return Some((tcp, remote, counted)),
                Err(error) => {
                    tracing::warn!(%error, "accepting a connection failed");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

async fn shake<D: Directory>(
    tcp: TcpStream,
    directory: &D,
    of_all: OwnedSemaphorePermit,
    shares: &Arc<Shares>,
) -> Result<Connection, HandshakeError> {
    let handshake = async {
        tcp.set_nodelay(true).map_err(HandshakeError::Tls)?;
        let start = LazyConfigAcceptor::new(rustls::server::Acceptor::default(), tcp)
            .await
            .map_err(HandshakeError::Tls)?;
        let host = start.client_hello().server_name().map(str::to_ascii_lowercase);
        let host = host.ok_or(HandshakeError::NoHost)?;
        let Some(shoot) = directory.shoot_by_host(&host) else {
            return Err(HandshakeError::UnknownHost(host));
        };
        let share = shares.take(&shoot.name);
        let share = share.ok_or_else(|| HandshakeError::NoShare(shoot.name.clone()))?;
        let io = start.into_stream(Arc::clone(&shoot.tls)).await.map_err(HandshakeError::Tls)?;
        Ok((io, host, shoot, share))
    };
    let (io, host, shoot, share) = tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake)
        .await
        .map_err(|_elapsed| HandshakeError::Timeout)??;
    let counted = Counted { _of_all: of_all, _of_shoot: share };
    Ok(Connection::new(io, &host, &shoot, counted))
}

impl Connection {
    fn new(io: TlsStream<TcpStream>, host: &str, shoot: &ShootEndpoint, counted: Counted) -> Self {
        let certificate = io.get_ref().1.peer_certificates().and_then(<[_]>::first);
        let peer = certificate.map(|certificate| Peer::of(certificate, &shoot.name));
        let deadline = match peer {
            Some(Ok(_)) => None,
            Some(Err(_)) | None => Some(Box::pin(tokio::time::sleep(ANONYMOUS_LIFETIME))),
        };
        let issuer = certificate.and_then(|leaf| shoot.authorities.issuer_of(leaf));
        let link = Link { host: host.into(), shoot: shoot.name.clone(), peer, issuer };
        Self { io, link, deadline, _counted: counted }
    }
}

impl Link {
    /// The link of a request.
    pub(super) fn of<T>(request: &tonic::Request<T>) -> Result<&Self, Status> {
        request.extensions().get().ok_or_else(|| Status::internal("the request has no connection"))
    }

    /// The node at the other end, by its certificate, if that is still valid
    /// and its authority still trusted: a connection can outlive both.
    pub(super) fn node(&self, now: Timestamp) -> Result<(Peer, Anchor), Status> {
        let issuer = self.issuer.as_ref().filter(|issuer| !issuer.has_left());
        match &self.peer {
            None => Err(Status::unauthenticated("this call needs a node's certificate")),
            Some(Err(error)) => Err(Status::permission_denied(error.to_string())),
            Some(Ok(peer)) if peer.not_after <= now => {
                Err(Status::unauthenticated("the node's certificate has expired"))
            }
            Some(Ok(peer)) => match issuer {
                Some(issuer) => Ok((peer.clone(), issuer.clone())),
                None => Err(Status::unauthenticated(
                    "the authority of the node's certificate is not trusted any more",
                )),
            },
        }
    }

    /// The shoot behind the called host as it is now; its authority may have
    /// changed since the handshake.
    pub(super) fn endpoint<D: Directory>(
        &self,
        directory: &D,
    ) -> Result<Arc<ShootEndpoint>, Status> {
        directory
            .shoot_by_host(&self.host)
            .filter(|endpoint| endpoint.name == self.shoot)
            .ok_or_else(|| Status::unavailable("the shoot is not served here any more"))
    }
}

impl Connected for Connection {
    type ConnectInfo = Link;

    fn connect_info(&self) -> Link {
        self.link.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        // The server always waits for the next frame, so this is always polled.
        if let Some(deadline) = &mut self.deadline
            && deadline.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;
    use crate::identity::NodeId;
    use crate::identity::authorities::Authorities;
    use crate::identity::ca::ShootCa;

    #[test]
    fn a_connection_can_outlive_its_certificate() {
        let node = NodeId::from_spiffe("spiffe://one/node/a/1").unwrap();
        let not_after = Timestamp::from_second(1_800_000_000).unwrap();
        let peer = Some(Ok(Peer { node, not_after }));
        let shoot = "one".parse().unwrap();
        let ca = ShootCa::generate(&shoot, not_after).unwrap();
        let authorities = Authorities::one(Arc::new(ca));
        let issuer = authorities.anchors().first().cloned();
        let link = Link { host: "rs-one.test".into(), shoot, peer, issuer: issuer.clone() };
        assert!(link.node(not_after - Duration::from_secs(1)).is_ok());
        assert_eq!(link.node(not_after).unwrap_err().code(), Code::Unauthenticated);
        issuer.unwrap().leave();
        let status = link.node(not_after - Duration::from_secs(1)).unwrap_err();
        assert!(status.message().contains("not trusted any more"), "{status}");
    }
}
