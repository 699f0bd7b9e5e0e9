//! How long a write may take, and why one is not done.

use std::time::Duration;

/// How long the API may take for one request.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// Why something is not written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WriteError {
    #[error("the API refused it")]
    Api(#[from] kube::Error),
    /// It may have been written: then the watch has it, and the next write
    /// starts from there.
    #[error("the API did not answer within {PATIENCE:?}")]
    Late(#[from] tokio::time::error::Elapsed),
}
