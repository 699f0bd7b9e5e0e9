//! `Fleet`: one stream per node.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::Stream;
use jiff::Timestamp;
use rootstock_proto::v1;
use rootstock_proto::v1::fleet_server::Fleet;
use rootstock_proto::v1::node_message::Kind;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::{Request, Response, Status, Streaming};

use super::farewell::Ends;
use super::listener::Link;
use super::seat::{Seat, Seats};
use super::session::{Channels, Session};
use super::{Directory, Hello, Refused};
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
        let (seat, connected) = Seat::take(&self.seats, &self.directory, peer.node.clone(), hello)
            .map_err(|refused| refuse(&peer.node, refused))?;
        let (term, _counted) = (self.term.clone(), self.streams.token());
        let channels = Channels { inbound, connected, term, _counted };
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
