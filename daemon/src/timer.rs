//! Waiting for a moment that may not be.

use tokio::time::Instant;

/// Until that moment; for ever where there is none. Cancel-safe: it only waits.
pub async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
