//! One stream: what the controller wants, and what the node says.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use rootstock_core::bandwidth::{self, Grant};
use rootstock_core::desired::{Desired, Generation, Offer};
use rootstock_core::name::Architecture;
use rootstock_core::status::Reason;
use rootstock_daemon::error::Chain;
use rootstock_proto::desired::content_hash;
use rootstock_proto::error::Invalid;
use rootstock_proto::report::cut;
use rootstock_proto::v1::controller_message::Kind as Said;
use rootstock_proto::v1::fleet_client::FleetClient;
use rootstock_proto::v1::node_message::Kind;
use rootstock_proto::{MAX_CONTROLLER_MESSAGE, MAX_NODE_MESSAGE, PROTOCOL, v1};
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tonic::transport::Channel;

use super::epoch::Epochs;
use super::moved::News;
use crate::pull::Word;
use crate::reconcile::{Files, NodeReport, Reports};
use crate::slot::Wake;
use crate::store::{Held, StoreError};

/// How long the controller may take to open the stream, and one message to go out.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long a controller may say nothing on a new stream before it is one that
/// grants nothing: those before minor version 1 are silent where the node has
/// what it should. One that is out of reach has been given up by then, for
/// it leaves pings unanswered.
const SILENCE: Duration = Duration::from_secs(40);
/// The least time between two reports. A person who watches sees ten a
/// second; a pull changes the report a thousand times.
const PACE: Duration = Duration::from_millis(100);
/// Messages that may wait to go out: an answer and a report, and one of each
/// behind them.
const DEPTH: usize = 4;
/// The longest message to a person, in bytes.
const MESSAGE: usize = 1024;
/// The longest time that a goodbye keeps an agent away.
const AWAY: Duration = Duration::from_secs(300);

/// Why a stream ended, and that was all right.
#[derive(Debug)]
pub(super) enum Ended {
    /// The controller asked to come back after that time.
    Goodbye(Duration),
    /// The certificate is to be renewed.
    RenewalDue,
    /// The controller is elsewhere.
    Moved,
}

/// Why a stream ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum SessionError {
    #[error("open a stream: {} ({:?})", .0.message(), .0.code())]
    Unopened(Status),
    #[error("stream: {} ({:?})", .0.message(), .0.code())]
    Status(Status),
    #[error("stream: the controller does not answer within {PATIENCE:?}")]
    Late,
    #[error("stream: the controller ended it")]
    Ended,
    #[error("stream: the controller's term {epoch} is over, for there is term {newest}")]
    Outdated { epoch: u64, newest: u64 },
    #[error("stream: the node has slept, and what lies there was said before")]
    Slept,
    #[error("write the ledger")]
    Ledger(#[from] StoreError),
    #[error("a thread of the agent failed")]
    Thread(#[from] tokio::task::JoinError),
}

/// What a session works with.
pub(super) struct Parts<'a> {
    pub(super) files: &'a Arc<Files>,
    pub(super) reports: &'a Reports,
    pub(super) retry: &'a Notify,
    pub(super) architecture: Option<Architecture>,
    pub(super) renew_at: Instant,
    pub(super) epochs: &'a mut Epochs,
}

/// Holds a stream until it ends, at the latest when there is news.
pub(super) async fn run(
    channel: Channel,
    parts: Parts<'_>,
    news: impl Future<Output = News>,
) -> Result<Ended, SessionError> {
    let mut news = pin!(news);
    let (out, messages) = mpsc::channel(DEPTH);
    let mut reports = parts.reports.watch();
    let (_stream, leases) = parts.files.pulls().connect();
    let hello = hello(&parts, &reports.borrow(), &leases);
    send(&out, Kind::Hello(hello)).await?;
    let mut client = FleetClient::new(channel)
        .max_decoding_message_size(MAX_CONTROLLER_MESSAGE)
        .max_encoding_message_size(MAX_NODE_MESSAGE);
    let opened = tokio::time::timeout(PATIENCE, client.sync(ReceiverStream::new(messages)));
    let mut said =
        opened.await.map_err(|_| SessionError::Late)?.map_err(SessionError::Unopened)?.into_inner();
    tracing::info!("the stream to the controller is open");
    // A slot may have been taken back since the last stream broke. One that
    // still counts is said anew on each.
    parts.files.slots().forget();
    let wake = Wake::begin();
    // What is known is said at once, and then each change of it.
    reports.mark_changed();
    let mut next_report = Instant::now();
    let (mut silence, mut silent) = (pin!(tokio::time::sleep(SILENCE)), true);
    loop {
        tokio::select! {
            // In order: what ends the stream, what may not be late, and silence
            // last, for a message that lies there is none. Reports have a pace of
            // their own, so that they leave time for messages.
            biased;
            // Cancel-safe: a moment in time.
            () = tokio::time::sleep_until(parts.renew_at) => return Ok(Ended::RenewalDue),
            // Cancel-safe: it goes on where it was.
            news = &mut news => return Ok(match news {
                News::Moved => Ended::Moved,
                News::NewAuthority => Ended::RenewalDue,
            }),
            // Cancel-safe: it only waits. What is due is sent at once: the time
            // of the leases that it asks for is already running.
            () = parts.files.pulls().due() => {
                for word in parts.files.pulls().says() {
                    send(&out, kind(&word)).await?;
                }
            }
            // Cancel-safe: a change that was not told is told again; then it waits its time.
            changed = async {
                tokio::time::sleep_until(next_report).await;
                reports.changed().await
            } => {
                // The sender lives as long as the agent.
                if changed.is_err() {
                    return Err(SessionError::Ended);
                }
                let report = report(&reports.borrow_and_update());
                next_report = Instant::now() + PACE;
                if let Some(report) = report {
                    send(&out, Kind::Report(report)).await?;
                }
            }
            // Cancel-safe: tonic keeps a message that has partly come.
            message = said.message() => {
                let Some(message) = message.map_err(SessionError::Status)? else {
                    return Err(SessionError::Ended);
                };
                // A slot counts from when it comes, and this one came long ago.
                if wake.has_slept() {
                    return Err(SessionError::Slept);
                }
                let (epoch, now) = (message.epoch, Instant::now());
                if let Err(newest) = parts.epochs.take(epoch, now) {
                    return Err(SessionError::Outdated { epoch, newest });
                }
                silent = false;
                parts.files.pulls().controller(message.grants);
                if let Some(ended) = answer(&parts, &out, message).await? {
                    return Ok(ended);
                }
            }
            // Cancel-safe: a moment in time.
            () = &mut silence, if silent => {
                silent = false;
                parts.files.pulls().controller(false);
            }
        }
    }
}

async fn send(out: &mpsc::Sender<v1::NodeMessage>, kind: Kind) -> Result<(), SessionError> {
    let message = v1::NodeMessage { kind: Some(kind) };
    match tokio::time::timeout(PATIENCE, out.send(message)).await {
        Ok(Ok(())) => Ok(()),
        // tonic has let go of the stream; its status is on the other half.
        Ok(Err(_)) => Err(SessionError::Ended),
        Err(_) => Err(SessionError::Late),
    }
}

async fn answer(
    parts: &Parts<'_>,
    out: &mpsc::Sender<v1::NodeMessage>,
    message: v1::ControllerMessage,
) -> Result<Option<Ended>, SessionError> {
    match message.kind {
        Some(Said::Desired(wire)) => send(out, take(parts.files, wire).await?).await?,
        Some(Said::Retry(_)) => parts.retry.notify_one(),
        Some(Said::Resync(_)) => {
            let now = report(&parts.reports.watch().borrow());
            if let Some(report) = now {
                send(out, Kind::Report(report)).await?;
            }
        }
        Some(Said::Goodbye(goodbye)) => {
            tracing::info!(reason = cut(&goodbye.reason, MESSAGE), "goodbye");
            let after = goodbye.reconnect_after;
            let after = after.map_or(Duration::ZERO, |after| duration(after.seconds, after.nanos));
            return Ok(Some(Ended::Goodbye(after.min(AWAY))));
        }
        Some(Said::PullGrant(wire)) => match Grant::try_from(wire) {
            Ok(grant) => {
                if let Some(shrunk) = parts.files.pulls().heard(&grant) {
                    send(out, Kind::GrantShrunk((&shrunk).into())).await?;
                }
            }
            // The pull that it was for asks again.
            Err(invalid) => tracing::warn!(why = %Chain(&invalid), "a grant is not taken"),
        },
        Some(Said::Slot(slot)) => {
            let within = slot.activate_within;
            let within = within.map_or(Duration::ZERO, |time| duration(time.seconds, time.nanos));
            parts.files.slots().give(Generation(slot.generation), within);
        }
        // A newer controller may say what this agent does not know, or only
        // that it grants.
        None => tracing::debug!("message ignored"),
    }
    Ok(None)
}

/// A duration; nothing where it is below zero. By hand: prost's own conversion
/// overflows on the least of all durations.
fn duration(seconds: i64, nanos: i32) -> Duration {
    let nanos = nanos.try_into().unwrap_or(0_u32).min(999_999_999);
    Duration::new(seconds.try_into().unwrap_or(0), nanos)
}

/// Takes a desired state into the ledger, or says why not.
async fn take(files: &Arc<Files>, wire: v1::Desired) -> Result<Kind, SessionError> {
    let generation = wire.generation;
    let refuse = |reason: Reason, message: &str| {
        tracing::warn!(generation, %reason, why = message, "a desired state is refused");
        let message = cut(message, MESSAGE);
        let item = v1::RefusedItem { r#type: String::new(), reason: reason.to_string(), message };
        Kind::Refuse(v1::Refuse { generation, items: vec![item] })
    };
    let desired = match Desired::try_from(wire) {
        Ok(desired) => desired,
        Err(invalid) => return Ok(refuse(reason(&invalid), &Chain(&invalid).to_string())),
    };
    let held = Held { content_hash: content_hash(&desired.content), desired };
    let before =
        files.ledger.held().map_or_else(Generation::default, |held| held.desired.generation);
    let ledger = Arc::clone(files);
    let offer =
        tokio::task::spawn_blocking(move || ledger.ledger.take(&ledger.store, held)).await??;
    Ok(match offer {
        Offer::Newer => {
            tracing::info!(generation, "a desired state is in the ledger");
            Kind::Accept(v1::Accept { generation })
        }
        Offer::Same => Kind::Accept(v1::Accept { generation }),
        Offer::Older => refuse(
            Reason::GenerationOutdated,
            &format!("generation {generation} is older than {}, which the node holds", before.0),
        ),
        Offer::Contradicts => refuse(
            Reason::GenerationOutdated,
            &format!("generation {generation} has other content than the one that the node holds"),
        ),
    })
}

fn reason(invalid: &Invalid) -> Reason {
    match invalid {
        Invalid::Bundle { source, .. } => source.reason(),
        Invalid::Missing { .. }
        | Invalid::Field { .. }
        | Invalid::TooMany { .. }
        | Invalid::ContentHash
        | Invalid::Protocol { .. } => Reason::ConfigurationInvalid,
    }
}

fn kind(word: &Word) -> Kind {
    match word {
        Word::Asks(request) => Kind::PullRequest(request.into()),
        Word::Shrunk(shrunk) => Kind::GrantShrunk(shrunk.into()),
    }
}

fn hello(parts: &Parts<'_>, report: &NodeReport, leases: &[bandwidth::Held]) -> v1::Hello {
    let held = parts.files.ledger.held();
    let installed = report.installed.iter().map(|(runtime, digest, active)| v1::InstalledBundle {
        r#type: runtime.to_string(),
        digest: digest.as_bytes().to_vec(),
        active: *active,
    });
    v1::Hello {
        protocol: Some(PROTOCOL),
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        architecture: parts.architecture.map(|a| a.to_string()).unwrap_or_default(),
        containerd_version: report.containerd_version.clone(),
        generation: held.as_ref().map_or(0, |held| held.desired.generation.0),
        content_hash: held.map_or_else(Vec::new, |held| held.content_hash.as_bytes().to_vec()),
        installed: installed.collect(),
        grants: leases.iter().map(Into::into).collect(),
    }
}

/// The report as it goes over the wire; none before the node was looked at.
fn report(report: &NodeReport) -> Option<v1::Report> {
    if report.generation == Generation::default() {
        return None;
    }
    Some(v1::Report {
        bundles: report.bundles.values().map(Into::into).collect(),
        generation: report.generation.0,
    })
}
