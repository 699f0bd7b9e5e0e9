//! HTTP/1.1 as far as a registry's blobs need it.
//!
//! * `body`: what an answer brings, and whether that is fast enough
//! * `patience`: how long a source may bring nothing

mod body;
mod patience;

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

pub(super) use body::Body;
use body::{body, number};
use bytes::Bytes;
use http::header::{AUTHORIZATION, HOST, HeaderMap, RANGE, RETRY_AFTER, USER_AGENT};
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use patience::{patient, stalled};
use rootstock_core::bandwidth::Rate;
use rootstock_core::digest::Digest;
use rustls_pki_types::ServerName;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

use super::FetchError;
use super::endpoint::{Endpoint, Origin, location};
use crate::net::{self, Buffer, Tcp, proxy::Proxies};
use crate::pull::{Paced, Pull, Pulls, Slot};

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
        // How much the kernel may take in goes by the rate: not by that of a
        // lease that has just ended.
        pull.granted().await;
        let rate = pull.rate();
        // A busy machine sees an answer late: what looks far is tried again.
        if rate < Rate::MAX && net::looks_far(&tcp, rate) {
            match dial(origin).await {
                Ok(again) if again.round_trip < tcp.round_trip => tcp = again,
                Ok(_) => {}
                Err(error) => tracing::debug!(%origin, %error, "a second try to be nearer fails"),
            }
        }
        let buffer = net::hold_little(&tcp, rate);
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
