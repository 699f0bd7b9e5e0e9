//! HTTP/1.1 as far as a registry's blobs need it.

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{
    AUTHORIZATION, CONTENT_LENGTH, CONTENT_RANGE, HOST, HeaderMap, RANGE, RETRY_AFTER, USER_AGENT,
};
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rootstock_core::bandwidth::Rate;
use rootstock_core::digest::Digest;
use rustls_pki_types::ServerName;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

use super::FetchError;
use super::endpoint::{Endpoint, Origin, location};
use crate::net::{self, Buffer, Tcp, proxy::Proxies};
use crate::pull::{Paced, Pull, Pulls, Slot};

/// How long a source may bring no byte, while one might be read. A registry
/// that reads a blob from cold storage takes some seconds.
const STALL: Duration = Duration::from_secs(30);
/// How often that is looked at, at most, where reads are held back.
const LOOK: Duration = Duration::from_millis(100);
/// How long a source may bring fewer than [`FLOOR`] bytes a second, while they
/// might be read: one that drips would hold a pull for days and never stall.
const SLOW: Duration = Duration::from_secs(60);
/// Bytes per second, far below any link that a node could live on.
const FLOOR: u64 = 4 << 10;
/// Redirects that are followed for one blob.
const REDIRECTS: usize = 3;

/// A client that keeps one connection.
pub(super) struct Client {
    ca_bundle: String,
    idle: Option<Connection>,
    /// The pull that connections read for.
    slot: Slot,
    /// What drives the connections; it ends with the client.
    drivers: JoinSet<()>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("idle", &self.idle.is_some()).finish_non_exhaustive()
    }
}

struct Connection {
    origin: Origin,
    sender: SendRequest<Empty<Bytes>>,
    buffer: Buffer,
}

/// The payload of an answer.
pub(super) struct Body {
    connection: Connection,
    incoming: Incoming,
    start: u64,
    length: Option<u64>,
    pace: Pace,
}

/// How fast bytes come.
#[derive(Debug, Default)]
struct Pace {
    waited: Duration,
    came: u64,
}

impl Pace {
    /// Counts what came after a wait in which it might have come. Whether that is too slow.
    fn is_slow(&mut self, waited: Duration, bytes: u64) -> bool {
        self.waited += waited;
        self.came += bytes;
        if self.waited < SLOW {
            return false;
        }
        let Self { waited, came } = std::mem::take(self);
        came < FLOOR * waited.as_secs()
    }
}

impl Client {
    pub(super) fn new(ca_bundle: &str, pulls: &Pulls) -> Self {
        let (ca_bundle, slot) = (ca_bundle.to_owned(), Slot::new(pulls));
        Self { ca_bundle, idle: None, slot, drivers: JoinSet::new() }
    }

    /// Asks for a blob from the byte `from` on. All that is read for it is the pull's.
    pub(super) async fn get(
        &mut self,
        pull: &Pull,
        endpoint: &Endpoint,
        blob: &Digest,
        from: u64,
    ) -> Result<Body, FetchError> {
        self.slot.put(pull);
        let mut origin = endpoint.origin.clone();
        let mut target = format!("{}{blob}", endpoint.blobs);
        for _ in 0..=REDIRECTS {
            let mut headers = HeaderMap::new();
            if from > 0 {
                headers.insert(RANGE, text(&origin, format!("bytes={from}-"))?);
            }
            // A credential is for the host that it was given for.
            if origin == endpoint.origin
                && let Some(value) = &endpoint.authorization
            {
                headers.insert(AUTHORIZATION, value.clone());
            }
            let (connection, response) = self.send(pull, &origin, &target, headers).await?;
            // Behind `?` stands the signature of whoever redirected here.
            let url = shown(&origin, &target);
            let status = response.status();
            match status {
                StatusCode::OK | StatusCode::PARTIAL_CONTENT => {
                    return body(connection, response, from, url);
                }
                StatusCode::RANGE_NOT_SATISFIABLE if from > 0 => {
                    return Err(FetchError::Truncated {
                        blob: *blob,
                        size: from,
                        declared: from + 1,
                    });
                }
                _ if status.is_redirection() => {
                    let refused =
                        |why: &str| FetchError::Redirect { url: url.clone(), why: why.into() };
                    let next = location(&origin, response.headers()).map_err(refused)?;
                    if origin.tls && !next.0.tls {
                        return Err(refused("it leads from https to http"));
                    }
                    (origin, target) = next;
                }
                _ => {
                    // Its other form, a date, would need the node's clock to be right.
                    let seconds = number(response.headers(), |text| text.parse().ok(), RETRY_AFTER);
                    let (status, retry_after) = (status.as_u16(), seconds.map(Duration::from_secs));
                    return Err(FetchError::Status { url, status, retry_after });
                }
            }
        }
        let why = format!("more than {REDIRECTS} redirects");
        Err(FetchError::Redirect { url: shown(&origin, &target), why })
    }

    /// Keeps a connection whose answer was read to its end.
    pub(super) fn keep(&mut self, body: Body) {
        self.idle = Some(body.connection);
    }

    async fn send(
        &mut self,
        pull: &Pull,
        origin: &Origin,
        target: &str,
        headers: HeaderMap,
    ) -> Result<(Connection, Response<Incoming>), FetchError> {
        let request = || {
            let mut request = Request::get(target)
                .header(HOST, format!("{}:{}", origin.host, origin.port))
                .header(USER_AGENT, concat!("rootstock-agent/", env!("CARGO_PKG_VERSION")))
                .body(Empty::new())
                .map_err(|error| FetchError::Configuration {
                    url: shown(origin, target),
                    why: error.to_string(),
                })?;
            request.headers_mut().extend(headers.clone());
            Ok::<_, FetchError>(request)
        };
        let rate = pull.rate();
        let carries = |kept: &Connection| kept.buffer.carries.is_none_or(|most| rate <= most);
        let kept = self.idle.take().filter(|kept| kept.origin == *origin && carries(kept));
        if let Some(mut kept) = kept
            && let Some(Ok(())) = patient(pull, kept.sender.ready()).await
        {
            pull.pay_ahead(kept.buffer.holds).await;
            let sent = patient(pull, kept.sender.send_request(request()?)).await;
            // A server may close a kept connection at any time: then a new one is made.
            if let Some(Ok(response)) = sent {
                return Ok((kept, response));
            }
        }
        let mut connection = self.connect(pull, origin).await?;
        pull.pay_ahead(connection.buffer.holds).await;
        let response = stalled(pull, origin, connection.sender.send_request(request()?)).await?;
        Ok((connection, response))
    }

    async fn connect(&mut self, pull: &Pull, origin: &Origin) -> Result<Connection, FetchError> {
        let failed = |source| FetchError::Connect { url: origin.to_string(), source };
        // Connections that ended are let go.
        while self.drivers.try_join_next().is_some() {}
        let tls = if origin.tls { Some(self.tls(origin)?) } else { None };
        let mut tcp = dial(origin).await.map_err(failed)?;
        // A busy machine sees an answer late: what looks far is tried again.
        if pull.rate() < Rate::MAX && !net::is_near(&tcp, pull.rate()) {
            let again = dial(origin).await.ok();
            tcp = again.filter(|again| again.round_trip < tcp.round_trip).unwrap_or(tcp);
        }
        let buffer = net::hold_little(&tcp, pull.rate());
        let stream = Paced::new(tcp.stream, self.slot.clone());
        let sender = if let Some((connector, name)) = tls {
            let stream = patient(pull, connector.connect(name, stream))
                .await
                .unwrap_or_else(|| Err(io::ErrorKind::TimedOut.into()))
                .map_err(failed)?;
            self.drive(pull, origin, stream).await?
        } else {
            self.drive(pull, origin, stream).await?
        };
        Ok(Connection { origin: origin.clone(), sender, buffer })
    }

    fn tls(&self, origin: &Origin) -> Result<(TlsConnector, ServerName<'static>), FetchError> {
        let url = origin.to_string();
        let tls = |source| FetchError::Tls { url: url.clone(), source };
        let roots = net::authorities(self.ca_bundle.as_bytes()).map_err(tls)?;
        let config = net::client_config(roots, None, b"http/1.1").map_err(tls)?;
        let host = origin.host.trim_matches(['[', ']']).to_owned();
        let name = ServerName::try_from(host).map_err(|error| FetchError::Configuration {
            url: url.clone(),
            why: error.to_string(),
        })?;
        Ok((TlsConnector::from(Arc::new(config)), name))
    }

    async fn drive(
        &mut self,
        pull: &Pull,
        origin: &Origin,
        stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
    ) -> Result<SendRequest<Empty<Bytes>>, FetchError> {
        let (sender, connection) =
            stalled(pull, origin, http1::handshake(TokioIo::new(stream))).await?;
        self.drivers.spawn(async move {
            // Its error reaches the request that it belongs to.
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection to a registry ended");
            }
        });
        Ok(sender)
    }
}

/// A proxy is for TLS alone: it sees no payload, and no plain credential.
async fn dial(origin: &Origin) -> io::Result<Tcp> {
    if origin.tls {
        Proxies::of_the_process().connect(&origin.host, origin.port).await
    } else {
        net::connect(&origin.host, origin.port).await
    }
}

/// A URL as people may see it.
fn shown(origin: &Origin, target: &str) -> String {
    format!("{origin}{}", target.split('?').next().unwrap_or_default())
}

fn text(origin: &Origin, value: String) -> Result<HeaderValue, FetchError> {
    HeaderValue::try_from(value).map_err(|error| FetchError::Configuration {
        url: origin.to_string(),
        why: error.to_string(),
    })
}

/// Waits for what a source brings; none where it brings nothing for too long.
/// Only time in which it might have been read counts.
async fn patient<T>(pull: &Pull, step: impl Future<Output = T>) -> Option<T> {
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

async fn stalled<T>(
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

fn number(
    headers: &HeaderMap,
    parse: impl Fn(&str) -> Option<u64>,
    name: http::HeaderName,
) -> Option<u64> {
    headers.get(name).and_then(|value| value.to_str().ok()).and_then(parse)
}

fn body(
    connection: Connection,
    response: Response<Incoming>,
    from: u64,
    url: String,
) -> Result<Body, FetchError> {
    let headers = response.headers();
    let length = number(headers, |value| value.parse().ok(), CONTENT_LENGTH);
    let start = if response.status() == StatusCode::PARTIAL_CONTENT {
        let parse = |value: &str| value.strip_prefix("bytes ")?.split('-').next()?.parse().ok();
        match number(headers, parse, CONTENT_RANGE) {
            Some(start) if start == from => start,
            _ => {
                let source = "it sends another range than was asked for".into();
                return Err(FetchError::Broken { url, early: false, source });
            }
        }
    } else {
        // The whole blob, also where a range was asked for.
        0
    };
    let (incoming, pace) = (response.into_body(), Pace::default());
    Ok(Body { connection, incoming, start, length, pace })
}

impl Body {
    /// The byte of the blob that the body begins with.
    pub(super) fn start(&self) -> u64 {
        self.start
    }

    /// How many bytes were announced.
    pub(super) fn length(&self) -> Option<u64> {
        self.length
    }

    /// The next bytes; none at the end.
    pub(super) async fn next(&mut self, pull: &Pull) -> Result<Option<Bytes>, FetchError> {
        loop {
            let frame = async { self.incoming.frame().await.transpose() };
            let begun = pull.open();
            let Some(frame) = stalled(pull, &self.connection.origin, frame).await? else {
                return Ok(None);
            };
            let bytes = frame.data_ref().map_or(0, |data| data.len() as u64);
            if self.pace.is_slow(pull.open().saturating_sub(begun), bytes) {
                let url = self.connection.origin.to_string();
                let what = format!("fewer than {FLOOR} bytes a second for {SLOW:?}");
                return Err(FetchError::Stalled { url, what });
            }
            // Trailers are no payload.
            if let Ok(data) = frame.into_data() {
                return Ok(Some(data));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_source_that_brings_nothing_is_given_up() {
        let origin = Origin { tls: false, host: "x".to_owned(), port: 80 };
        let pull = Pulls::unbounded().begin(Digest::of(b"x"), "x", 1).await;
        let error = stalled::<()>(&pull, &origin, std::future::pending()).await.unwrap_err();
        assert!(error.is_cut() && error.is_stalled() && !error.is_early_end(), "{error}");
        assert_eq!(error.reason(), rootstock_core::status::Reason::RegistryUnreachable);
    }

    #[test]
    fn a_source_that_drips_is_given_up() {
        let mut drip = Pace::default();
        let slow = (0..7).map(|_| drip.is_slow(Duration::from_secs(10), 1));
        assert_eq!(slow.filter(|slow| *slow).count(), 1, "once a minute");
        let mut fine = Pace::default();
        assert!((0..100).all(|_| !fine.is_slow(Duration::from_secs(1), 8 << 10)));
    }
}
