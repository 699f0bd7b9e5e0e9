//! `Fleet`: one stream per node, and which one that is.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use futures_util::Stream;
use jiff::Timestamp;
use rootstock_proto::v1;
use rootstock_proto::v1::fleet_server::Fleet;
use rootstock_proto::v1::node_message::Kind;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::{Request, Response, Status, Streaming};

use super::farewell::Ends;
use super::listener::Link;
use super::session::{Channels, Session};
use super::{Directory, Hello, Refused};
use crate::content::Offered;
use crate::identity::NodeId;
use crate::lead::Term;

/// How long a node may take to say hello.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);

pub(super) struct FleetService<D> {
    directory: Arc<D>,
    seats: Arc<Seats>,
    streams: TaskTracker,
    term: Term,
    shutdown: CancellationToken,
}

impl<D: Directory> FleetService<D> {
    pub(super) fn new(
        directory: Arc<D>,
        streams: TaskTracker,
        term: Term,
        shutdown: CancellationToken,
    ) -> Self {
        Self { directory, seats: Arc::default(), streams, term, shutdown }
    }
}

impl<D> FleetService<D> {
    fn serves(&self) -> Result<(), Status> {
        if self.shutdown.is_cancelled() || !self.term.holds() {
            return Err(Status::unavailable("this controller does not serve any more"));
        }
        Ok(())
    }
}

#[tonic::async_trait]
impl<D: Directory> Fleet for FleetService<D> {
    type SyncStream = Pin<Box<dyn Stream<Item = Result<v1::ControllerMessage, Status>> + Send>>;

    async fn sync(
        &self,
        request: Request<Streaming<v1::NodeMessage>>,
    ) -> Result<Response<Self::SyncStream>, Status> {
        let (peer, issuer) = Link::of(&request)?.node(Timestamp::now())?;
        let mut inbound = request.into_inner();
        self.serves()?;
        let hello = tokio::time::timeout(HELLO_TIMEOUT, hello(&mut inbound))
            .await
            .map_err(|_elapsed| Status::deadline_exceeded("no Hello in time"))??;
        // A Hello may take longer than a term.
        self.serves()?;
        let held = hello.content.map(|content| (hello.generation, content));
        let (seat, desired) = Seat::take(&self.seats, &self.directory, peer.node.clone(), hello)
            .map_err(|refused| refuse(&peer.node, refused))?;
        let (term, _counted) = (self.term.clone(), self.streams.token());
        let channels = Channels { inbound, desired, term, _counted };
        let (certificate_end, shutdown) = (peer.not_after, self.shutdown.clone());
        let session =
            Session::new(seat, channels, held, Ends { certificate_end, issuer, shutdown });
        Ok(Response::new(Box::pin(session.stream())))
    }
}

async fn hello(inbound: &mut Streaming<v1::NodeMessage>) -> Result<Hello, Status> {
    let Some(first) = inbound.message().await? else {
        return Err(Status::invalid_argument("the stream ended before Hello"));
    };
    match first.kind {
        Some(Kind::Hello(hello)) => Ok(hello.try_into()?),
        Some(_) | None => Err(Status::invalid_argument("the first message has to be Hello")),
    }
}

fn refuse(node: &NodeId, refused: Refused) -> Status {
    tracing::info!(%node, %refused, "stream refused");
    match refused {
        Refused::UnknownNode | Refused::NoAgent => Status::permission_denied(refused.to_string()),
        Refused::NotSynced => Status::unavailable(refused.to_string()),
    }
}

/// The nodes that have a stream.
#[derive(Debug, Default)]
pub(super) struct Seats {
    taken: Mutex<Taken>,
    /// How many there were when the first was told to go because all are.
    crowd: OnceLock<usize>,
}

#[derive(Debug, Default)]
struct Taken {
    last: u64,
    by: BTreeMap<NodeId, (u64, CancellationToken)>,
}

/// A node's place in the directory: one stream has it at a time, and it is
/// given back however that stream ends.
pub(super) struct Seat<D: Directory> {
    pub(super) node: NodeId,
    pub(super) directory: Arc<D>,
    /// Cancelled when another stream of the node has taken the seat.
    pub(super) replaced: CancellationToken,
    number: u64,
    seats: Arc<Seats>,
}

impl Seats {
    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a seat shows: the node's desired state.
pub(super) type DesiredState = watch::Receiver<Option<Offered>>;

impl<D: Directory> Seat<D> {
    fn take(
        seats: &Arc<Seats>,
        directory: &Arc<D>,
        node: NodeId,
        hello: Hello,
    ) -> Result<(Self, DesiredState), Refused> {
        let replaced = CancellationToken::new();
        // The directory is told under the lock: it must not see the end of the
        // old stream after the begin of the new one.
        let mut taken = seats.taken();
        let desired = directory.connect(&node, hello)?;
        taken.last += 1;
        let number = taken.last;
        if let Some((_, old)) = taken.by.insert(node.clone(), (number, replaced.clone())) {
            old.cancel();
        }
        drop(taken);
        let (seats, directory) = (Arc::clone(seats), Arc::clone(directory));
        Ok((Self { node, directory, replaced, number, seats }, desired))
    }

    /// How many nodes go when all do.
    pub(super) fn crowd(&self) -> usize {
        *self.seats.crowd.get_or_init(|| self.seats.taken().by.len())
    }
}

impl<D: Directory> Drop for Seat<D> {
    fn drop(&mut self) {
        let mut taken = self.seats.taken();
        if taken.by.get(&self.node).is_some_and(|(number, _)| *number == self.number) {
            taken.by.remove(&self.node);
            self.directory.disconnect(&self.node);
        }
    }
}
