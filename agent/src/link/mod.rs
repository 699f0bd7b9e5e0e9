//! The stream to the controller.
//!
//! ```text
//!  endpoint, CA, token (read anew before each connection)
//!     │ enrol where there is no certificate or it gets old
//!     ▼
//!  session ── Hello, Report (latest wins), Accept, Refuse ──▶ controller
//!     ◀───── Desired ─▶ ledger        Retry ─▶ reconcile      Goodbye ─▶ later
//!     │ ends
//!     ▼
//!  pause by cause, with jitter ─▶ again
//! ```
//!
//! * [`endpoint`]: where the controller is
//! * [`pause`]: how long to stay away, by cause

pub mod endpoint;
pub mod pause;
mod session;

use std::path::PathBuf;
use std::sync::Arc;

use rootstock_core::name::Architecture;
use rootstock_daemon::Shutdown;
use rootstock_daemon::error::Chain;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tonic::Code;

use crate::identity::{EnrolError, Identity};
use crate::reconcile::{Files, NodeReport};
use endpoint::{ConnectError, Source};
use pause::{Cause, Pauses};
use session::{Ended, Session};

/// Keeps a stream to the controller, for as long as the agent lives.
#[derive(Debug)]
pub struct Link {
    /// Where the controller is.
    pub source: Source,
    /// The ServiceAccount token.
    pub token_file: PathBuf,
    /// The ledger and where it is kept.
    pub files: Arc<Files>,
    /// What the node says of itself.
    pub reports: watch::Receiver<NodeReport>,
    /// Forgets all failures.
    pub retry: Arc<Notify>,
    /// The node's architecture.
    pub architecture: Option<Architecture>,
}

/// Why there is no stream.
#[derive(Debug, thiserror::Error)]
enum LinkError {
    #[error("connect to the controller")]
    Connect(#[from] ConnectError),
    #[error("enrol at the controller")]
    Enrol(#[from] EnrolError),
}

impl LinkError {
    fn cause(&self) -> Cause {
        match self {
            Self::Connect(_) => Cause::Unreachable,
            Self::Enrol(EnrolError::Refused(status)) => Cause::of(status.code()),
            Self::Enrol(
                EnrolError::Token { .. }
                | EnrolError::TokenSize { .. }
                | EnrolError::Key(_)
                | EnrolError::Empty,
            ) => Cause::Refused,
        }
    }
}

impl Link {
    /// Runs until the shutdown begins.
    pub async fn run(mut self, shutdown: Shutdown) -> anyhow::Result<()> {
        let mut identity = None;
        let mut pauses = Pauses::new();
        loop {
            // Cancel-safe: what the controller sent is in the ledger or was
            // not answered, and is sent again.
            let cause = tokio::select! {
                () = shutdown.begun() => return Ok(()),
                ended = self.once(&mut identity) => match ended {
                    Ok(ended) => {
                        tracing::info!(%ended, "the stream to the controller ended");
                        self.cause(ended, &mut identity, &mut pauses)
                    }
                    Err(error) => {
                        let cause = error.cause();
                        tracing::warn!(error = %Chain(&error), "no stream to the controller");
                        cause
                    }
                },
            };
            let pause = pauses.next(cause);
            tracing::debug!(?cause, ?pause, "connecting again after a pause");
            // Cancel-safe: neither keeps anything.
            tokio::select! {
                () = shutdown.begun() => return Ok(()),
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// One stream, from the connection to its end.
    async fn once(&mut self, identity: &mut Option<Identity>) -> Result<Ended, LinkError> {
        if identity.as_ref().is_some_and(|identity| identity.renew_at <= Instant::now()) {
            *identity = None;
        }
        let known = match identity.take() {
            Some(known) => known,
            None => {
                let channel = self.source.connect(None).await?;
                Identity::enrol(channel, &self.token_file).await?
            }
        };
        let known = identity.insert(known);
        let channel = self.source.connect(Some(known)).await?;
        let session = Session {
            files: &self.files,
            reports: &mut self.reports,
            retry: &self.retry,
            architecture: self.architecture,
            renew_at: known.renew_at,
        };
        Ok(session.run(channel).await)
    }

    fn cause(&self, ended: Ended, identity: &mut Option<Identity>, pauses: &mut Pauses) -> Cause {
        match ended {
            Ended::Renew => {
                *identity = None;
                pauses.reset();
                Cause::Planned(std::time::Duration::ZERO)
            }
            Ended::Goodbye(after) => {
                pauses.reset();
                Cause::Planned(after)
            }
            Ended::Closed { useful, status } => {
                if useful {
                    pauses.reset();
                }
                let code = status.map_or(Code::Unavailable, |status| status.code());
                if matches!(code, Code::Unauthenticated | Code::PermissionDenied) {
                    // It may be of an authority that is gone, or of a Node that was made anew.
                    *identity = None;
                }
                Cause::of(code)
            }
        }
    }
}
