//! The connections to one shoot's API: its own, shared with no other shoot.
//!
//! ```text
//!  kube::Client ─▶ base URL ─▶ Gate: token, time limit, size limit ─▶ hyper (HTTP/1.1, TLS 1.2+)
//!                                │
//!                                └─ Link: the token of now; how long the API wants to be left alone
//! ```
//!
//! kube's own stack is not used here: its token is fixed for a client's life,
//! nothing bounds an answer, its TLS sessions take 30 KiB a shoot, and it logs
//! every failure.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use http::header::{AUTHORIZATION, HeaderValue, RETRY_AFTER};
use http::{Request, Response, StatusCode};
use http_body_util::{Either, Limited};
use hyper_rustls::{FixedServerNameResolver, HttpsConnectorBuilder};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use kube::client::{Body, ClientBuilder, ConfigExt as _};
use kube::{Client, Config};
use rustls::client::Resumption;
use rustls_pki_types::ServerName;
use tower_service::Service;

use super::tokens::Token;

/// How long a connection to a shoot's API may take.
const CONNECT: Duration = Duration::from_secs(5);
/// How long the API may take until it begins to answer. A list of 500 Nodes
/// takes it less than a second; its own limit for a request is a minute.
pub(super) const ANSWER: Duration = Duration::from_secs(15);
/// The most bytes of one answer. 500 Nodes' metadata are 4 MiB; a shoot's
/// owner can make them any size.
const MAX_ANSWER: usize = 16 * 1024 * 1024;
/// What waits in the pool for the next request: as many as change Nodes at once.
const IDLE: usize = super::labels::AT_ONCE;
/// How long it waits there. What a shoot asks for at one time follows closely;
/// after a start there would be two connections for each, of 40 KiB.
const IDLE_FOR: Duration = Duration::from_secs(2);
/// The longest time for which an API may ask to be left alone.
const MAX_HOLD: Duration = Duration::from_secs(60);

/// What may change while a client lives.
#[derive(Debug)]
pub(super) struct Link(Mutex<State>);

#[derive(Debug)]
struct State {
    token: Token,
    hold: Option<Duration>,
}

impl Link {
    pub(super) fn new(token: Token) -> Arc<Self> {
        Arc::new(Self(Mutex::new(State { token, hold: None })))
    }

    /// The token that requests bear from here on.
    pub(super) fn set_token(&self, token: &Token) {
        self.lock().token = token.clone();
    }

    /// How long the API asked to be left alone since the last call.
    pub(super) fn take_hold(&self) -> Option<Duration> {
        self.lock().hold.take()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        // Held for an assignment, and never over an await.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn authorization(&self) -> Result<HeaderValue, http::Error> {
        let mut value = HeaderValue::from_str(&format!("Bearer {}", self.lock().token.0))?;
        value.set_sensitive(true);
        Ok(value)
    }

    /// Takes down what an answer says of when to come again.
    fn see(&self, status: StatusCode, retry_after: Option<&HeaderValue>) {
        if !matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
            return;
        }
        let seconds = retry_after.and_then(|value| value.to_str().ok()?.trim().parse().ok());
        if let Some(hold) = seconds.map(Duration::from_secs) {
            self.lock().hold = Some(hold.min(MAX_HOLD));
        }
    }
}

/// No answer has begun in time.
#[derive(Debug, thiserror::Error)]
#[error("no answer within {} s", ANSWER.as_secs())]
struct Silent;

/// Why no client can be made.
#[derive(Debug, thiserror::Error)]
pub(super) enum ClientError {
    /// Its certificates can't be used.
    #[error("the certificates can't be used")]
    Tls(#[source] kube::Error),
    /// The name that the API's certificate should have is none.
    #[error("tls-server-name is no name of a server")]
    ServerName(#[source] rustls_pki_types::InvalidDnsNameError),
    /// It wants a proxy.
    #[error("it names a proxy, which is not supported")]
    Proxy,
}

/// Makes a client that logs in with the link's token.
pub(super) fn client(config: &Config, link: &Arc<Link>) -> Result<Client, ClientError> {
    if config.proxy_url.is_some() {
        return Err(ClientError::Proxy);
    }
    let mut tls = config.rustls_client_config().map_err(ClientError::Tls)?;
    // A watch lives for minutes: there is little to resume.
    tls.resumption = Resumption::disabled();
    let mut https = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http();
    if let Some(name) = &config.tls_server_name {
        let name = ServerName::try_from(name.clone()).map_err(ClientError::ServerName)?;
        https = https.with_server_name_resolver(FixedServerNameResolver::new(name));
    }
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_connect_timeout(Some(CONNECT));
    tcp.set_nodelay(true);
    let hyper = legacy::Builder::new(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE_FOR)
        .pool_max_idle_per_host(IDLE)
        .build::<_, Body>(https.enable_http1().wrap_connector(tcp));
    let gate = Gate { inner: hyper, link: Arc::clone(link) };
    let builder = ClientBuilder::new(gate, config.default_namespace.clone());
    Ok(builder.with_layer(&config.base_uri_layer()).build())
}

/// What every request passes through.
#[derive(Clone)]
struct Gate<S> {
    inner: S,
    link: Arc<Link>,
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;
type Answer<B> = Response<Either<B, Limited<B>>>;

impl<S, B> Service<Request<Body>> for Gate<S>
where
    S: Service<Request<Body>, Response = Response<B>>,
    S::Error: Into<BoxError>,
    S::Future: Send + 'static,
    B: Send + 'static,
{
    type Response = Answer<B>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Answer<B>, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let authorization = match self.link.authorization() {
            Ok(value) => value,
            Err(error) => return Box::pin(std::future::ready(Err(error.into()))),
        };
        request.headers_mut().insert(AUTHORIZATION, authorization);
        // A watch goes on; its events are bounded one by one, by what an API
        // server stores of an object.
        let endless = request.uri().query().is_some_and(|query| query.contains("watch=true"));
        let answer = self.inner.call(request);
        let link = Arc::clone(&self.link);
        Box::pin(async move {
            let answer = tokio::time::timeout(ANSWER, answer).await.map_err(|_| Silent)?;
            let answer = answer.map_err(Into::into)?;
            link.see(answer.status(), answer.headers().get(RETRY_AFTER));
            Ok(answer.map(|body| match endless {
                true => Either::Left(body),
                false => Either::Right(Limited::new(body, MAX_ANSWER)),
            }))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_api_says_when_to_come_again() {
        let link = Link::new(Token("t".into()));
        let value = |text| HeaderValue::from_static(text);
        link.see(StatusCode::TOO_MANY_REQUESTS, Some(&value("7")));
        assert_eq!(link.take_hold(), Some(Duration::from_secs(7)));
        assert_eq!(link.take_hold(), None, "it is asked for once");
        link.see(StatusCode::SERVICE_UNAVAILABLE, Some(&value("86400")));
        assert_eq!(link.take_hold(), Some(MAX_HOLD));
        link.see(StatusCode::OK, Some(&value("7")));
        link.see(StatusCode::SERVICE_UNAVAILABLE, Some(&value("Fri, 31 Dec 1999 23:59:59 GMT")));
        link.see(StatusCode::SERVICE_UNAVAILABLE, None);
        assert_eq!(link.take_hold(), None);
    }

    #[test]
    fn a_token_is_sent_and_not_printed() {
        let link = Link::new(Token("old".into()));
        link.set_token(&Token("s3cret".into()));
        let header = link.authorization().unwrap();
        assert_eq!(header.as_bytes(), b"Bearer s3cret");
        assert!(!format!("{link:?} {header:?}").contains("s3cret"));
        link.set_token(&Token("a\nb".into()));
        assert!(link.authorization().is_err());
    }
}
