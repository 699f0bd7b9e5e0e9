//! The end of a daemon, asked for by a signal or by itself.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Tells every task that the daemon ends.
///
/// Clones are the same shutdown.
#[derive(Clone, Debug, Default)]
pub struct Shutdown(CancellationToken);

impl Shutdown {
    /// One that only [`Shutdown::begin`] starts.
    pub fn new() -> Self {
        Self::default()
    }

    /// One that begins with this one, or before it by itself.
    #[must_use]
    pub fn child(&self) -> Self {
        Self(self.0.child_token())
    }

    /// Waits for SIGTERM or SIGINT, or for the shutdown to begin otherwise.
    ///
    /// # Errors
    /// When the signals can't be listened to.
    pub async fn on_signal(self) -> anyhow::Result<()> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        // Cancel-safe: each arm waits for an event and keeps nothing.
        let name = tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
            () = self.begun() => return Ok(()),
        };
        tracing::info!(signal = name, "shutting down");
        self.begin();
        Ok(())
    }

    /// Begins it.
    pub fn begin(&self) {
        self.0.cancel();
    }

    /// Whether it has begun.
    pub fn has_begun(&self) -> bool {
        self.0.is_cancelled()
    }

    /// Waits until it begins. Cancel-safe.
    pub async fn begun(&self) {
        self.0.cancelled().await;
    }

    /// The token, for libraries that take one.
    pub fn token(&self) -> CancellationToken {
        self.0.clone()
    }
}
