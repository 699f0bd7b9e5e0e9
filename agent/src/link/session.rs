//! One stream to the controller.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use rootstock_core::desired::{Desired, Offer};
use rootstock_core::name::Architecture;
use rootstock_core::status::Reason;
use rootstock_daemon::error::Chain;
use rootstock_proto::desired::content_hash;
use rootstock_proto::report::cut;
use rootstock_proto::v1;
use rootstock_proto::v1::controller_message::Kind as FromController;
use rootstock_proto::v1::fleet_client::FleetClient;
use rootstock_proto::v1::node_message::Kind as FromNode;
use rootstock_proto::{MAX_CONTROLLER_MESSAGE, MAX_NODE_MESSAGE, PROTOCOL};
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tonic::transport::Channel;

use crate::reconcile::{Files, NodeReport};
use crate::store::{Held, StoreError};

/// Reports are no more frequent than this: a person sees no difference, and
/// ten thousand nodes that pull at once are 50,000 small messages a second.
const REPORT: Duration = Duration::from_millis(200);
/// Answers and one report that wait for the network.
const OUTBOUND: usize = 8;
/// How long the controller may take to open the stream.
const OPEN: Duration = Duration::from_secs(30);

/// One stream.
pub(super) struct Session<'a> {
    pub(super) files: &'a Arc<Files>,
    pub(super) reports: &'a mut watch::Receiver<NodeReport>,
    pub(super) retry: &'a Notify,
    pub(super) architecture: Option<Architecture>,
    pub(super) renew_at: Instant,
}

/// How a stream ended.
#[derive(Debug)]
pub(super) enum Ended {
    /// The certificate gets old.
    Renew,
    /// The controller asked to come back after this time.
    Goodbye(Duration),
    /// It broke off, or was refused.
    Closed {
        /// Whether the controller had said anything.
        useful: bool,
        /// What it said.
        status: Option<Status>,
    },
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Renew => write!(f, "the certificate is due for renewal"),
            Self::Goodbye(after) => write!(f, "the controller asks to come back after {after:?}"),
            Self::Closed { status: Some(status), .. } => {
                write!(f, "{:?}: {}", status.code(), status.message())
            }
            Self::Closed { status: None, .. } => write!(f, "the controller closed it"),
        }
    }
}

impl Session<'_> {
    pub(super) async fn run(self, channel: Channel) -> Ended {
        let mut useful = false;
        let ended = self.exchange(channel, &mut useful).await;
        ended.unwrap_or_else(|status| Ended::Closed { useful, status })
    }

    async fn exchange(self, channel: Channel, useful: &mut bool) -> Result<Ended, Option<Status>> {
        let (out, outbound) = mpsc::channel(OUTBOUND);
        let report = self.reports.borrow_and_update().clone();
        // The channel is new and has room.
        let _ = out.try_send(message(FromNode::Hello(self.hello(&report))));
        let mut client = FleetClient::new(channel)
            .max_decoding_message_size(MAX_CONTROLLER_MESSAGE)
            .max_encoding_message_size(MAX_NODE_MESSAGE);
        let opening = client.sync(ReceiverStream::new(outbound));
        let opened = tokio::time::timeout(OPEN, opening).await;
        let mut inbound = opened
            .map_err(|_| Some(Status::deadline_exceeded("the controller did not open the stream")))?
            .map_err(Some)?
            .into_inner();
        tracing::info!("connected to the controller");
        // Before the first look at the node there is nothing to say, and an
        // empty report would take back what was said before.
        let mut report_at = (report != NodeReport::default()).then(Instant::now);
        loop {
            // Cancel-safe: a stream's `message` and a watch's `changed` lose
            // nothing, a permit that was not used is given back, and a deadline
            // is one more time the same.
            tokio::select! {
                received = inbound.message() => match received.map_err(Some)? {
                    None => return Err(None),
                    Some(received) => {
                        *useful = true;
                        if let Some(ended) = self.receive(received, &out, &mut report_at).await? {
                            return Ok(ended);
                        }
                    }
                },
                changed = self.reports.changed(), if report_at.is_none() => {
                    // The loop that reports ends with the agent.
                    changed.map_err(|_| None)?;
                    report_at = Some(Instant::now() + REPORT);
                }
                permit = permit_at(&out, report_at), if report_at.is_some() => {
                    let permit = permit?;
                    let report = self.reports.borrow_and_update();
                    permit.send(message(FromNode::Report(report_message(&report))));
                    report_at = None;
                }
                () = tokio::time::sleep_until(self.renew_at) => return Ok(Ended::Renew),
            }
        }
    }

    async fn receive(
        &self,
        received: v1::ControllerMessage,
        out: &mpsc::Sender<v1::NodeMessage>,
        report_at: &mut Option<Instant>,
    ) -> Result<Option<Ended>, Option<Status>> {
        match received.kind {
            Some(FromController::Desired(desired)) => {
                let generation = desired.generation;
                let answer = match self.take(desired).await {
                    Ok(()) => FromNode::Accept(v1::Accept { generation }),
                    Err((reason, message)) => {
                        tracing::warn!(generation, %reason, message, "desired state refused");
                        let item = v1::RefusedItem {
                            r#type: String::new(),
                            reason: reason.to_string(),
                            message: cut(&message, 1024),
                        };
                        FromNode::Refuse(v1::Refuse { generation, items: vec![item] })
                    }
                };
                // A closed channel shows as the end of the stream.
                out.send(message(answer)).await.map_err(|_| None)?;
            }
            Some(FromController::Retry(_)) => self.retry.notify_one(),
            Some(FromController::Resync(_)) => *report_at = Some(Instant::now()),
            Some(FromController::Goodbye(goodbye)) => {
                tracing::info!(reason = goodbye.reason, "the controller says goodbye");
                let after = goodbye.reconnect_after.unwrap_or_default();
                let seconds = u64::try_from(after.seconds).unwrap_or_default();
                let nanos = u32::try_from(after.nanos).unwrap_or_default();
                return Ok(Some(Ended::Goodbye(Duration::new(seconds, nanos.min(999_999_999)))));
            }
            // A newer controller may send what this agent does not know.
            Some(FromController::PullGrant(_) | FromController::Slot(_)) | None => {
                tracing::trace!("a message that this agent does not act on");
            }
        }
        Ok(None)
    }

    /// Takes a desired state into the ledger.
    async fn take(&self, desired: v1::Desired) -> Result<(), (Reason, String)> {
        let desired = Desired::try_from(desired)
            .map_err(|error| (Reason::ConfigurationInvalid, Chain(&error).to_string()))?;
        let held = Held { content_hash: content_hash(&desired.content), desired };
        let generation = held.desired.generation;
        let files = Arc::clone(self.files);
        let taken = tokio::task::spawn_blocking(move || files.ledger.take(&files.store, held));
        let offer = taken
            .await
            .map_err(|error| (Reason::Internal, error.to_string()))?
            .map_err(|error: StoreError| (Reason::HostError, Chain(&error).to_string()))?;
        match offer {
            Offer::Newer => {
                tracing::info!(generation = generation.0, "desired state accepted");
                Ok(())
            }
            Offer::Same => Ok(()),
            Offer::Older | Offer::Contradicts => {
                let held = self.files.ledger.held().map(|held| held.desired.generation.0);
                let message = format!(
                    "generation {} was sent, the ledger holds {}{}",
                    generation.0,
                    held.unwrap_or_default(),
                    if offer == Offer::Contradicts { " with other content" } else { "" },
                );
                Err((Reason::GenerationOutdated, message))
            }
        }
    }

    fn hello(&self, report: &NodeReport) -> v1::Hello {
        let held = self.files.ledger.held();
        v1::Hello {
            protocol: Some(PROTOCOL),
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            architecture: self.architecture.map(|a| a.to_string()).unwrap_or_default(),
            containerd_version: report.containerd_version.clone(),
            generation: held.as_ref().map_or(0, |held| held.desired.generation.0),
            content_hash: held
                .map(|held| held.content_hash.as_bytes().to_vec())
                .unwrap_or_default(),
            installed: report
                .installed
                .iter()
                .map(|(runtime, digest, active)| v1::InstalledBundle {
                    r#type: runtime.to_string(),
                    digest: digest.as_bytes().to_vec(),
                    active: *active,
                })
                .collect(),
            grants: Vec::new(),
        }
    }
}

/// Room for a report, when it is time for one.
async fn permit_at(
    out: &mpsc::Sender<v1::NodeMessage>,
    at: Option<Instant>,
) -> Result<mpsc::Permit<'_, v1::NodeMessage>, Option<Status>> {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
    out.reserve().await.map_err(|_| None)
}

fn message(kind: FromNode) -> v1::NodeMessage {
    v1::NodeMessage { kind: Some(kind) }
}

fn report_message(report: &NodeReport) -> v1::Report {
    let bundles = report.bundles.values().map(v1::BundleReport::from).collect();
    v1::Report { bundles, generation: report.generation.0 }
}
