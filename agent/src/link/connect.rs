//! Connections to the controller: TLS 1.3 by a CA of our own, HTTP/2 within.

use std::fmt;
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::str::FromStr;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::{Channel, Endpoint};
use tower_service::Service;

use crate::net::proxy::Proxies;
use crate::net::{self, TlsError};

/// How long TCP and TLS may take together.
const CONNECT: Duration = Duration::from_secs(15);
/// How often a silent connection is asked whether it lives, and how long it
/// may take to say so: NAT gateways forget after some minutes.
const KEEPALIVE: Duration = Duration::from_secs(20);
/// See [`KEEPALIVE`].
const KEEPALIVE_ANSWER: Duration = Duration::from_secs(10);

/// The controller's URL, or the path of a file that holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EndpointSource {
    /// The URL.
    Url(String),
    /// The file, which is read before each connection.
    File(PathBuf),
}

impl FromStr for EndpointSource {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.starts_with('/') {
            return Ok(Self::File(text.into()));
        }
        parse(text).map_err(|error| error.to_string())?;
        Ok(Self::Url(text.to_owned()))
    }
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Not a URL that can be used.
    #[error("endpoint {url:?} can't be used: {why}")]
    Endpoint {
        /// The text.
        url: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A file can't be read.
    #[error("read {path}")]
    File {
        /// Its path.
        path: String,
        /// Why not.
        source: io::Error,
    },
    /// The CAs or the certificate can't be used.
    #[error("set up TLS")]
    Tls(#[from] TlsError),
    /// TCP, TLS or HTTP/2 failed.
    #[error("connect to {endpoint}")]
    Transport {
        /// Host and port.
        endpoint: String,
        /// What happened.
        source: tonic::transport::Error,
    },
}

/// A controller that can be connected to.
#[derive(Debug)]
pub(super) struct Target {
    /// The endpoint as it was read.
    pub(super) url: String,
    host: String,
    port: u16,
    name: ServerName<'static>,
    pub(super) roots: RootCertStore,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

impl Target {
    /// Reads the endpoint and its CAs as they are now.
    pub(super) async fn read(
        endpoint: &EndpointSource,
        ca_file: &Path,
    ) -> Result<Self, ConnectError> {
        let url = match endpoint {
            EndpointSource::Url(url) => url.clone(),
            EndpointSource::File(path) => read_endpoint(path).await?,
        };
        let (host, port) = parse(&url)?;
        let name =
            ServerName::try_from(host.trim_matches(['[', ']']).to_owned()).map_err(|_| {
                ConnectError::Endpoint { url: url.clone(), why: "its host is no host name" }
            })?;
        let roots = net::authorities(&read_file(ca_file).await?)?;
        Ok(Self { url, host, port, name, roots })
    }
}

pub(super) async fn read_file(path: &Path) -> Result<Vec<u8>, ConnectError> {
    tokio::fs::read(path)
        .await
        .map_err(|source| ConnectError::File { path: path.display().to_string(), source })
}

/// The text of an endpoint's file.
pub(super) async fn read_endpoint(path: &Path) -> Result<String, ConnectError> {
    let bytes = read_file(path).await?;
    Ok(String::from_utf8_lossy(&bytes).trim().to_owned())
}

/// Host and port of an endpoint.
pub(super) fn parse(url: &str) -> Result<(String, u16), ConnectError> {
    let wrong = |why| ConnectError::Endpoint { url: url.chars().take(200).collect(), why };
    let uri: Uri = url.parse().map_err(|_| wrong("it is no URL"))?;
    if uri.scheme_str() != Some("https") {
        return Err(wrong("want one that begins with https://"));
    }
    let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(|| wrong("it has no host"))?;
    Ok((host.to_ascii_lowercase(), uri.port_u16().unwrap_or(443)))
}

/// What the agent shows a controller.
pub(super) struct Shown {
    /// Its certificate.
    pub(super) certificate: CertificateDer<'static>,
    /// The key of it.
    pub(super) key: PrivateKeyDer<'static>,
    /// The CAs that its issuer knows.
    pub(super) authorities: RootCertStore,
}

/// Whether it is a certificate, and for the key beside it.
pub(super) fn check(shown: &Shown) -> Result<(), TlsError> {
    let certificate = (vec![shown.certificate.clone()], shown.key.clone_key());
    net::client_config(RootCertStore::empty(), Some(certificate), b"h2").map(drop)
}

/// A connection; with something to show both sides know who the other is.
pub(super) async fn channel(
    target: &Target,
    shown: Option<Shown>,
) -> Result<Channel, ConnectError> {
    let mut roots = target.roots.clone();
    let mut certificate = None;
    if let Some(shown) = shown {
        // While CAs rotate, the certificate's issuer knows more of them than the file.
        roots.roots.extend(shown.authorities.roots);
        certificate = Some((vec![shown.certificate], shown.key));
    }
    let tls = Arc::new(net::client_config(roots, certificate, b"h2")?);
    let failed = |source| ConnectError::Transport { endpoint: target.to_string(), source };
    // tonic asks for TLS of its own where it reads https: ours is in the connector.
    let endpoint = Endpoint::from_shared(format!("http://{target}"))
        .map_err(failed)?
        .connect_timeout(CONNECT)
        .http2_keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE_ANSWER)
        .keep_alive_while_idle(true)
        // One stream: a handful of requests may wait.
        .buffer_size(4);
    let connector =
        Connector { host: target.host.clone(), port: target.port, name: target.name.clone(), tls };
    endpoint.connect_with_connector(connector).await.map_err(failed)
}

/// TCP, through a proxy where there is one, and TLS for tonic.
struct Connector {
    host: String,
    port: u16,
    name: ServerName<'static>,
    tls: Arc<ClientConfig>,
}

impl Service<Uri> for Connector {
    type Response = TokioIo<TlsStream<TcpStream>>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let (host, port, name) = (self.host.clone(), self.port, self.name.clone());
        let tls = TlsConnector::from(Arc::clone(&self.tls));
        Box::pin(async move {
            let tcp = Proxies::of_the_process().connect(&host, port).await?;
            Ok(TokioIo::new(tls.connect(name, tcp.stream).await?))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_an_https_url_or_a_file() {
        assert_eq!(
            "/etc/rootstock/endpoint".parse(),
            Ok(EndpointSource::File("/etc/rootstock/endpoint".into()))
        );
        assert!("https://rs-garden--one.seed.localhost:8443".parse::<EndpointSource>().is_ok());
        for bad in ["http://x", "x:443", "https://", "nonsense", ""] {
            assert!(bad.parse::<EndpointSource>().is_err(), "{bad:?}");
        }
        assert_eq!(parse("https://A.example").unwrap(), ("a.example".to_owned(), 443));
    }
}
