//! The admin listener: health, readiness, and the daemon's own pages.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use tokio::net::TcpListener;

use crate::shutdown::Shutdown;

/// What a daemon still waits for before it is ready.
///
/// Clones are the same readiness.
#[derive(Clone, Debug, Default)]
pub struct Readiness(Arc<Mutex<BTreeMap<&'static str, &'static str>>>);

impl Readiness {
    /// Ready, unless something is awaited.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds something that is awaited, with a sentence that says for what.
    pub fn await_for(&self, what: &'static str, why: &'static str) {
        self.waits().insert(what, why);
    }

    /// It is there.
    pub fn done(&self, what: &str) {
        self.waits().remove(what);
    }

    /// What is still awaited, a line each; nothing when the daemon is ready.
    pub fn missing(&self) -> String {
        self.waits().iter().map(|(what, why)| format!("{what}: {why}\n")).collect()
    }

    fn waits(&self) -> std::sync::MutexGuard<'_, BTreeMap<&'static str, &'static str>> {
        // The map is whole after every statement, so a panic elsewhere harms nothing.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Serves `/healthz`, `/readyz` and `pages` until the shutdown begins.
///
/// # Errors
/// When the listener fails.
pub async fn serve(
    listener: TcpListener,
    readiness: Readiness,
    pages: Router,
    shutdown: Shutdown,
) -> anyhow::Result<()> {
    let health = Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .with_state(readiness);
    let app = health.merge(pages);
    axum::serve(listener, app)
        .with_graceful_shutdown(async move { shutdown.begun().await })
        .await?;
    Ok(())
}

async fn ready(State(readiness): State<Readiness>) -> (StatusCode, String) {
    let missing = readiness.missing();
    if missing.is_empty() {
        (StatusCode::OK, "ok\n".to_owned())
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, missing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn readiness_names_what_is_missing() {
        let readiness = Readiness::new();
        assert_eq!(ready(State(readiness.clone())).await.0, StatusCode::OK);
        readiness.await_for("seed", "its ContainerRuntimes are being listed");
        let (status, body) = ready(State(readiness.clone())).await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(body, "seed: its ContainerRuntimes are being listed\n");
        readiness.done("seed");
        assert_eq!(ready(State(readiness)).await.0, StatusCode::OK);
    }
}
