//! What agents talk to: TLS for every shoot on one port, and two gRPC services.
//!
//! ```text
//!  TcpListener ─▶ Acceptor: ClientHello ─▶ Directory (host ─▶ shoot) ─▶ handshake ─▶ Link (shoot, certificate)
//!                   │ bounded mpsc                                                     │ with each request
//!                   ▼                                                                  ▼
//!  tonic: Enrollment.Enroll, Renew ─▶ identity::Enroller        Fleet.Sync ─▶ Session, the response itself
//!                                                                  │  ▲
//!                                            Directory::report … ◀─┘  └─ watch<Offered>, Line from Directory::connect
//! ```
//!
//! Nothing here decides anything about nodes. What they should have comes from
//! the [`Directory`], and what they say goes there.
//!
//! * [`hello`]: what a node says first
//! * `shares`: how many connections one shoot may have
//! * `listener`: TLS; `enrollment`, `fleet`: the services
//! * `seat`: which stream of a node counts
//! * `session`: one node's stream; `told`: what is said on it; `hear`: what the node says on it; `farewell`: its end

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rootstock_core::bandwidth::Puller;
use rootstock_core::desired::Generation;
use rootstock_core::name::{ShootName, Uid};
use rootstock_core::status::BundleReport;
use rootstock_proto::v1::enrollment_server::EnrollmentServer;
use rootstock_proto::v1::fleet_server::FleetServer;
use rootstock_proto::{MAX_CONTROLLER_MESSAGE, MAX_NODE_MESSAGE};
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::{mpsc, watch};
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::transport::Server;

use crate::bandwidth::Line;
use crate::content::Offered;
use crate::identity::NodeId;
use crate::identity::authorities::Authorities;
use crate::lead::Term;

mod enrollment;
mod farewell;
mod fleet;
mod hear;
pub mod hello;
mod listener;
mod seat;
mod session;
mod shares;
mod told;

pub use hello::{Hello, Installed, RefusedItem};

/// What the server needs of the rest of the controller.
///
/// All methods answer from memory, at once: `connect` and `disconnect` are
/// called under a lock, so that they come in the order in which streams take
/// over from each other, and they must not call back into this module.
pub trait Directory: Send + Sync + 'static {
    /// The shoot that is served under a host name, in lower case.
    fn shoot_by_host(&self, host: &str) -> Option<Arc<ShootEndpoint>>;

    /// A stream of the node has begun.
    fn connect(&self, node: &NodeId, hello: Hello) -> Result<Connected, Refused>;

    /// Whose budgets count for what the node pulls.
    fn puller(&self, node: &NodeId) -> Puller;

    /// Where the bundles of the node are, all of them, under a generation.
    fn report(&self, node: &NodeId, generation: Generation, reports: Vec<BundleReport>);

    /// The generation is in the node's ledger.
    fn accepted(&self, node: &NodeId, generation: Generation);

    /// The node does not take the generation, or some of its items.
    fn refused(&self, node: &NodeId, generation: Generation, items: Vec<RefusedItem>);

    /// Enrolment has just seen that this Pod of the agent lives on the node.
    fn vouch(&self, node: &NodeId, pod: &Uid);

    /// Whether it is known that no Pod of the agent lives on the node: its
    /// certificate is good for nothing then.
    fn lacks_agent(&self, node: &NodeId) -> bool;

    /// The node's last stream has ended. It is not called for a stream that
    /// another one of the same node has replaced.
    fn disconnect(&self, node: &NodeId);
}

/// What a stream is fed by.
#[derive(Debug)]
pub struct Connected {
    /// What the node should have. It is sent each value that it sees here (not
    /// necessarily each that there was); when the sender is dropped, the node
    /// is told goodbye.
    pub desired: watch::Receiver<Option<Offered>>,
    /// By what it asks for rates, and is granted some.
    pub line: Line,
}

/// Why a node gets no stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The shoot has no such node, or another one of that name.
    #[error("the node is not one of its shoot (any more)")]
    UnknownNode,
    /// The agent's Pod, for which the certificate was given, is gone, and no
    /// other one has come.
    #[error("no Pod of the agent runs on the node (any more)")]
    NoAgent,
    /// Nothing can be said of the shoot's nodes yet.
    #[error("the controller does not know the shoot's nodes yet")]
    NotSynced,
}

/// One shoot as agents see it.
pub struct ShootEndpoint {
    /// The shoot.
    pub name: ShootName,
    /// Who signs for it.
    pub authorities: Authorities,
    /// How it is served: see [`Authorities::server_config`].
    pub tls: Arc<rustls::ServerConfig>,
    /// A client of the shoot's own API.
    pub client: kube::Client,
}

impl fmt::Debug for ShootEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ShootEndpoint").field("name", &self.name).finish_non_exhaustive()
    }
}

/// A server that could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The gRPC server refused its configuration.
    #[error("the gRPC server could not start")]
    Tonic(#[source] tonic::transport::Error),
    /// The listener has no address.
    #[error("the listener can't be used")]
    Listener(#[source] io::Error),
}

/// How long streams and connections may take to end after shutdown has begun:
/// agents leave when they are told to, and the next leader waits for this one.
const DRAIN: Duration = Duration::from_secs(3);
/// A stream, a renewal, and a few that are not yet gone.
const STREAMS_PER_CONNECTION: u32 = 8;
/// Desired is at most 4 MiB and rare, reports are 1 KiB to 100 KiB: a window
/// of HTTP/2's own default holds a usual message and bounds what a peer can
/// make us buffer.
const STREAM_WINDOW: u32 = 64 * 1024;
const CONNECTION_WINDOW: u32 = 128 * 1024;
/// gRPC's own headers take 300 bytes.
const HEADERS: u32 = 8 * 1024;
/// A dead peer is noticed after 40 s; idle, this is 2 packets each 20 s.
const KEEPALIVE: Duration = Duration::from_secs(20);
/// Until a response begins: a check of a token is two rounds of 10 s at most.
const RESPONSE: Duration = Duration::from_secs(30);
/// Longer than any stream may live.
const CONNECTION_AGE: Duration = Duration::from_secs(25 * 60 * 60);

/// How many connections wait in the kernel, as far as that lets them: a fleet
/// that lost its controller comes within seconds.
const BACKLOG: u32 = 4096;

/// The port for agents.
///
/// # Errors
/// When it can't be listened to.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    // The port of the term before may not be quite gone.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Serves agents in a term until `shutdown`, which comes with its end at the
/// latest; then says goodbye to each and waits up to 3 s for them to go.
pub async fn serve<D: Directory>(
    listener: TcpListener,
    directory: Arc<D>,
    term: Term,
    shutdown: CancellationToken,
) -> Result<(), ServeError> {
    serve_shares(listener, directory, term, shutdown, listener::SHARE).await
}

/// The same, where each shoot may have so many connections.
async fn serve_shares<D: Directory>(
    listener: TcpListener,
    directory: Arc<D>,
    term: Term,
    shutdown: CancellationToken,
    share: usize,
) -> Result<(), ServeError> {
    let address = listener.local_addr().map_err(ServeError::Listener)?;
    // Handshakes wait here until tonic takes them, which it does at once.
    let (connections, accepted) = mpsc::channel(16);
    let acceptor = listener::Acceptor::new(
        listener,
        Arc::clone(&directory),
        connections,
        shutdown.clone(),
        share,
    );
    let streams = TaskTracker::new();
    let enrollment = enrollment::EnrollmentService::new(Arc::clone(&directory));
    let fleet = fleet::FleetService::new(directory, streams.clone(), term, shutdown.clone());
    let server = Server::builder()
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_streams(STREAMS_PER_CONNECTION)
        .http2_max_header_list_size(HEADERS)
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE))
        .max_connection_age(CONNECTION_AGE)
        .timeout(RESPONSE)
        .add_service(
            EnrollmentServer::new(enrollment).max_decoding_message_size(MAX_ENROLLMENT_MESSAGE),
        )
        .add_service(
            FleetServer::new(fleet)
                .max_decoding_message_size(MAX_NODE_MESSAGE)
                .max_encoding_message_size(MAX_CONTROLLER_MESSAGE),
        )
        .serve_with_incoming_shutdown(
            ReceiverStream::new(accepted).map(Ok::<_, io::Error>),
            shutdown.clone().cancelled_owned(),
        );
    tracing::info!(%address, "serving agents");
    let serving = async {
        let (served, ()) = tokio::join!(server, acceptor.run());
        streams.close();
        streams.wait().await;
        served.map_err(ServeError::Tonic)
    };
    let drained = async {
        shutdown.cancelled().await;
        tokio::time::sleep(DRAIN).await;
    };
    tokio::select! {
        served = serving => served,
        // What is dropped here has had its time; nothing is read from it later.
        () = drained => {
            tracing::warn!(streams = streams.len(), "agents did not go in time");
            Ok(())
        }
    }
}

/// A token and a request of 16 KiB each, with room.
const MAX_ENROLLMENT_MESSAGE: usize = 40 * 1024;

#[cfg(test)]
mod tests;
