//! The stream to the controller, for as long as the agent lives.
//!
//! ```text
//!  endpoint, CA, token (files) ─▶ identity: key + request ─Enroll─▶ certificate, in memory only
//!     └▶ session: mutual TLS ══ Fleet.Sync ══▶ Hello, Reports (latest wins)
//!           Desired ─▶ offer ─▶ ledger ─▶ Accept or Refuse
//!     └▶ again: at once, or later by why it ended
//! ```
//! The agent acts from its ledger, so an ended stream stops nothing but news.

mod connect;
mod identity;
mod session;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

pub use connect::{ConnectError, EndpointSource};
use identity::Identity;
pub use identity::IdentityError;
use rootstock_core::name::Architecture;
use rootstock_daemon::Shutdown;
use rootstock_daemon::error::Chain;
use session::{Ended, SessionError};
use tokio::sync::Notify;
use tokio::time::Instant;
use tonic::Code;

use crate::backoff::backoff;
use crate::reconcile::{Files, Reports};

/// The first delay after a failure. A controller that restarts is back within
/// a second, and a node should notice.
const FIRST: Duration = Duration::from_millis(100);
/// The longest delay: what a fleet of 10,000 may ask of a controller that is
/// down (700 connections a second).
const MOST: Duration = Duration::from_secs(15);
/// The longest delay where asking again is not likely to help: the token is
/// refused, or the agent is too old.
const MOST_REFUSED: Duration = Duration::from_secs(60);
/// A stream that lived this long counts as well: the next failure is a first one.
const WELL: Duration = Duration::from_secs(30);

/// Where the controller is, and what the agent shows it.
#[derive(Clone, Debug)]
pub struct LinkSettings {
    /// The controller's URL, or the file that holds it.
    pub endpoint: EndpointSource,
    /// The CAs of the controller, as PEM.
    pub ca_file: PathBuf,
    /// The projected ServiceAccount token.
    pub token_file: PathBuf,
    /// The node's architecture.
    pub architecture: Option<Architecture>,
}

/// The task that holds the stream.
#[derive(Debug)]
pub struct Link {
    settings: LinkSettings,
    files: Arc<Files>,
    reports: Reports,
    retry: Arc<Notify>,
    identity: Option<Identity>,
}

/// Why a stream did not come to be, or ended.
#[derive(Debug, thiserror::Error)]
enum LinkError {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error(transparent)]
    Session(#[from] SessionError),
}

impl Link {
    /// A link that has not begun. `retry` is told when the controller wants failures forgotten.
    pub fn new(
        settings: LinkSettings,
        files: Arc<Files>,
        reports: Reports,
        retry: Arc<Notify>,
    ) -> Self {
        Self { settings, files, reports, retry, identity: None }
    }

    /// Runs until the shutdown begins.
    pub async fn run(mut self, shutdown: Shutdown) -> anyhow::Result<()> {
        let mut failures = 0;
        loop {
            let begun = Instant::now();
            let ended = tokio::select! {
                // Cancel-safe: a stream that is dropped is seen by the controller as ended.
                () = shutdown.begun() => return Ok(()),
                ended = self.stream() => ended,
            };
            let delay = match ended {
                Ok(Ended::Goodbye(after)) => {
                    failures = 0;
                    tracing::info!(?after, "the controller says goodbye");
                    // One that says it again and again is not asked as fast as it can.
                    after.max(backoff(0, FIRST, MOST))
                }
                Ok(Ended::RenewalDue) => {
                    failures = 0;
                    tracing::info!("the certificate is renewed");
                    self.identity = None;
                    Duration::ZERO
                }
                Err(error) => {
                    if begun.elapsed() >= WELL {
                        failures = 0;
                    }
                    let delay = self.after(&error, failures);
                    failures += 1;
                    tracing::warn!(error = %Chain(&error), ?delay, "no stream to the controller");
                    delay
                }
            };
            tokio::select! {
                // Cancel-safe: both only wait.
                () = shutdown.begun() => return Ok(()),
                () = tokio::time::sleep(delay) => {}
            }
        }
    }

    async fn stream(&mut self) -> Result<Ended, LinkError> {
        let settings = &self.settings;
        let target = connect::Target::read(&settings.endpoint, &settings.ca_file).await?;
        let identity = match self.identity.take().filter(|identity| !identity.is_due()) {
            Some(identity) => self.identity.insert(identity),
            None => {
                let identity = identity::enrol(&target, &settings.token_file).await?;
                tracing::info!(endpoint = %target, "enrolled");
                self.identity.insert(identity)
            }
        };
        let channel = connect::channel(&target, Some(identity.shown())).await?;
        let renew_at = identity.renew_at();
        let parts = session::Parts {
            files: &self.files,
            reports: &self.reports,
            retry: &self.retry,
            architecture: settings.architecture,
            renew_at,
        };
        Ok(session::run(channel, parts).await?)
    }

    /// How long to wait, by why the stream ended.
    fn after(&mut self, error: &LinkError, failures: u32) -> Duration {
        let code = match error {
            LinkError::Session(SessionError::Status(status)) => Some(status.code()),
            LinkError::Identity(IdentityError::Refused(status)) => Some(status.code()),
            LinkError::Connect(ConnectError::Transport { .. }) => {
                // The certificate may be what the controller did not like.
                if failures > 2 {
                    self.identity = None;
                }
                None
            }
            LinkError::Connect(_) | LinkError::Identity(_) | LinkError::Session(_) => None,
        };
        let most = match code {
            // The certificate is of no use: the next attempt begins with a new one.
            Some(Code::Unauthenticated | Code::PermissionDenied) => {
                self.identity = None;
                MOST_REFUSED
            }
            Some(Code::FailedPrecondition | Code::Unimplemented) => MOST_REFUSED,
            _ => MOST,
        };
        backoff(failures, FIRST, most)
    }
}
