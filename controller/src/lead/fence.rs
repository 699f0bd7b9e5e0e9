//! A client that writes in one term, and not a moment longer.

use std::pin::Pin;
use std::task::{Context, Poll};

use http::{Method, Request, Response};
use kube::Client;
use kube::client::Body;
use tower_service::Service;

use super::Term;

/// A write that is not sent, or whose answer is not waited for.
#[derive(Debug, thiserror::Error)]
#[error("this controller does not lead (any more)")]
struct NotLeading;

/// The same client; what it writes is sent in this term only, and not in a
/// later one of the same process: what was decided on may be another's work by
/// then. Reads pass.
pub(crate) fn fenced(client: &Client, term: &Term) -> Client {
    let namespace = client.default_namespace().to_owned();
    Client::new(Fence { inner: client.clone(), term: term.clone() }, namespace)
}

/// What every request passes through.
#[derive(Clone)]
struct Fence {
    inner: Client,
    term: Term,
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

impl Service<Request<Body>> for Fence {
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        // The client within has a queue of its own.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let reads = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
        let (client, term) = (self.inner.clone(), self.term.clone());
        Box::pin(async move {
            if reads {
                return Ok(client.send(request).await?);
            }
            if !term.holds() {
                return Err(NotLeading.into());
            }
            // Cancel-safe: a request of which nobody wants the answer may have
            // been carried out; whoever leads next reads what there is.
            tokio::select! {
                answer = client.send(request) => Ok(answer?),
                () = term.over() => Err(NotLeading.into()),
            }
        })
    }
}
