//! The stream to the controller, for as long as the agent lives.
//!
//! ```text
//!  endpoint, CA, token (files) ─▶ identity: key + request ─Enroll─▶ certificate, in memory only
//!     └▶ session: mutual TLS ══ Fleet.Sync ══▶ Hello, Reports (latest wins)
//!           Desired ─▶ offer ─▶ ledger ─▶ Accept or Refuse
//!     └▶ again: at once, or later by why it ended; elsewhere, when the file says so (moved);
//!        with a new certificate, when there is a new CA
//! ```
//! The agent acts from its ledger, so an ended stream stops nothing but news.

mod connect;
mod epoch;
mod identity;
mod moved;
mod pause;
mod session;

use std::error::Error as _;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

pub use connect::{ConnectError, EndpointSource};
use epoch::Epochs;
use identity::Identity;
pub use identity::IdentityError;
use moved::Known;
pub use pause::{Cause, Pauses};
use rootstock_core::name::Architecture;
use rootstock_daemon::Shutdown;
use rootstock_daemon::error::Chain;
use session::{Ended, SessionError};
use tokio::sync::Notify;
use tokio::time::Instant;
use tonic::Code;

use crate::reconcile::{Files, Reports};
use crate::rootfs::random;

/// A stream that lived this long counts as well: the next failure is a first one.
const WELL: Duration = Duration::from_secs(30);
/// So many connections in a row that break where a stream is to be opened are
/// no accident. In TLS 1.3 the certificate is refused after the handshake, and
/// the alert that says so is often lost with the connection.
const BROKEN: u32 = 3;

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
    /// Connections in a row that broke where a stream was to be opened.
    broken: u32,
    epochs: Epochs,
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
        let epochs = Epochs::default();
        Self { settings, files, reports, retry, identity: None, broken: 0, epochs }
    }

    /// Runs until the shutdown begins.
    pub async fn run(mut self, shutdown: Shutdown) -> anyhow::Result<()> {
        let mut pauses = Pauses::default();
        loop {
            let begun = Instant::now();
            let ended = tokio::select! {
                // Cancel-safe: a stream that is dropped is seen by the controller as ended.
                () = shutdown.begun() => return Ok(()),
                ended = self.stream() => ended,
            };
            self.epochs.left(Instant::now());
            if ended.is_ok() {
                self.broken = 0;
            }
            if ended.is_ok() || begun.elapsed() >= WELL {
                pauses = Pauses::default();
            }
            let delay = match ended {
                Ok(Ended::Goodbye(after)) => {
                    tracing::info!(?after, "the controller says goodbye");
                    // One that says it again and again is not asked as fast as it can.
                    after.max(Pauses::default().next(Cause::Away, random()))
                }
                Ok(Ended::RenewalDue) => {
                    tracing::info!("the certificate is renewed");
                    Duration::ZERO
                }
                Ok(Ended::Moved) => Duration::ZERO,
                Err(error) => {
                    self.doubt(&error);
                    let delay = pauses.next(Cause::of(&error), random());
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
        self.epochs.at(target.to_string());
        let channel = connect::channel(&target, Some(identity.shown())).await?;
        let (renew_at, known) = (identity.renew_at(), identity.known_authorities());
        let parts = session::Parts {
            files: &self.files,
            reports: &self.reports,
            retry: &self.retry,
            architecture: settings.architecture,
            renew_at,
            epochs: &mut self.epochs,
        };
        let (endpoint, ca_file) = (&settings.endpoint, &settings.ca_file);
        let news = moved::news(Known { endpoint, ca_file, url: &target.url, authorities: &known });
        let ended = session::run(channel.clone(), parts, news).await?;
        if matches!(ended, Ended::RenewalDue) {
            let now = connect::Target::read(endpoint, ca_file).await?;
            // Where that fails the next attempt enrols by the token.
            self.identity = Some(identity::renew(channel, &now.roots).await?);
        }
        Ok(ended)
    }

    /// Drops the certificate where that is what the controller does not like:
    /// the next attempt begins with a new one. A controller that is not there
    /// says nothing of it: ten thousand agents must not enrol anew because one
    /// Pod was replaced.
    fn doubt(&mut self, error: &LinkError) {
        let code = pause::code(error);
        let refused = matches!(code, Some(Code::Unauthenticated | Code::PermissionDenied));
        self.broken = match error {
            // What the controller itself answers has no cause on this side.
            LinkError::Session(SessionError::Unopened(status)) if status.source().is_some() => {
                self.broken + 1
            }
            LinkError::Connect(_) | LinkError::Identity(_) => self.broken,
            LinkError::Session(_) => 0,
        };
        if refused || is_alert(error) || self.broken >= BROKEN {
            (self.identity, self.broken) = (None, 0);
        }
    }
}

/// Whether the other side ended the handshake, and said why.
fn is_alert(error: &(dyn std::error::Error + 'static)) -> bool {
    let alert = error
        .downcast_ref::<io::Error>()
        .and_then(io::Error::get_ref)
        .is_some_and(|inner| matches!(inner.downcast_ref(), Some(rustls::Error::AlertReceived(_))));
    alert || error.source().is_some_and(is_alert)
}

#[cfg(test)]
mod tests;
