//! How long a source may bring nothing.

use std::future::Future;
use std::io;
use std::pin::pin;
use std::time::Duration;

use super::super::FetchError;
use super::super::endpoint::Origin;
use crate::pull::Pull;

/// How long a source may bring no byte, while one might be read. A registry
/// that reads a blob from cold storage takes some seconds.
const STALL: Duration = Duration::from_secs(30);
/// How often that is looked at, at most, where reads are held back.
const LOOK: Duration = Duration::from_millis(100);

/// Waits for what a source brings; none where it brings nothing for too long.
/// Only time in which it might have been read counts.
pub(super) async fn patient<T>(pull: &Pull, step: impl Future<Output = T>) -> Option<T> {
    let mut step = pin!(step);
    let begun = pull.open();
    loop {
        let left = STALL.saturating_sub(pull.open().saturating_sub(begun));
        if left.is_zero() {
            return None;
        }
        // Cancel-safe: the step goes on where it was.
        if let Ok(done) = tokio::time::timeout(left.max(LOOK), &mut step).await {
            return Some(done);
        }
    }
}

/// What a step of HTTP brings, as [`patient`] waits for it.
pub(super) async fn stalled<T>(
    pull: &Pull,
    origin: &Origin,
    step: impl Future<Output = hyper::Result<T>>,
) -> Result<T, FetchError> {
    match patient(pull, step).await {
        Some(Ok(value)) => Ok(value),
        Some(Err(error)) => Err(FetchError::Broken {
            url: origin.to_string(),
            early: ended_early(&error),
            source: Box::new(error),
        }),
        None => {
            let (url, what) = (origin.to_string(), format!("no byte for {STALL:?}"));
            Err(FetchError::Stalled { url, what })
        }
    }
}

/// hyper calls a head that ends early incomplete; a body that does is an end of
/// file to it, as a TLS connection's that was not closed in order is to rustls.
fn ended_early(error: &hyper::Error) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        let io = error.downcast_ref::<io::Error>();
        if io.is_some_and(|error| error.kind() == io::ErrorKind::UnexpectedEof) {
            return true;
        }
        cause = error.source();
    }
    error.is_incomplete_message()
}

#[cfg(test)]
mod tests {
    use rootstock_core::digest::Digest;

    use super::*;
    use crate::pull::Pulls;

    #[tokio::test(start_paused = true)]
    async fn a_source_that_brings_nothing_is_given_up() {
        let origin = Origin { tls: false, host: "x".to_owned(), port: 80 };
        let pull = Pulls::unbounded().begin(Digest::of(b"x"), "x", 1).await;
        let error = stalled::<()>(&pull, &origin, std::future::pending()).await.unwrap_err();
        assert!(error.is_cut() && error.is_stalled() && !error.is_early_end(), "{error}");
        assert_eq!(error.reason(), rootstock_core::status::Reason::RegistryUnreachable);
    }
}
