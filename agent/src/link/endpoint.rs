//! Where the controller is, and a connection to it.

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
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::{Channel, Endpoint as Transport};
use tower_service::Service;

use crate::identity::Identity;
use crate::net::{self, TlsError};

/// How long a connection with its handshake may take.
const CONNECT: Duration = Duration::from_secs(15);
/// A controller that is gone without a word is noticed after 40 s.
const KEEPALIVE: Duration = Duration::from_secs(20);
/// Desired is rare and at most 4 MiB: HTTP/2's own window holds a usual one.
const WINDOW: u32 = 64 * 1024;
/// Requests that wait for the connection: there is one stream.
const BUFFER: usize = 4;
/// The largest file with an endpoint or a CA bundle, in bytes.
const MAX_FILE: u64 = 256 * 1024;

/// The controller's address: `https://host` or `https://host:port`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    host: String,
    port: u16,
}

/// A text that is no address of a controller.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no endpoint: want https://<host> or https://<host>:<port>")]
pub struct InvalidEndpoint(String);

impl FromStr for Endpoint {
    type Err = InvalidEndpoint;

    fn from_str(text: &str) -> Result<Self, InvalidEndpoint> {
        let refused = || InvalidEndpoint(text.chars().take(300).collect());
        let uri: Uri = text.trim().parse().map_err(|_| refused())?;
        let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(refused)?;
        if uri.scheme_str() != Some("https")
            || !matches!(uri.path(), "" | "/")
            || uri.query().is_some()
        {
            return Err(refused());
        }
        Ok(Self { host: host.to_ascii_lowercase(), port: uri.port_u16().unwrap_or(443) })
    }
}

/// Where the address comes from. In a Pod it is a file, because the endpoint
/// moves with the shoot's control plane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// Given once.
    Fixed(Endpoint),
    /// In a file that is read before each connection.
    File(PathBuf),
}

impl FromStr for Address {
    type Err = InvalidEndpoint;

    fn from_str(text: &str) -> Result<Self, InvalidEndpoint> {
        if text.starts_with('/') {
            Ok(Self::File(text.into()))
        } else {
            text.parse().map(Self::Fixed)
        }
    }
}

/// Where the controller is and whom to trust there.
#[derive(Clone, Debug)]
pub struct Source {
    /// The controller's address.
    pub address: Address,
    /// The CAs that sign its certificate, read before each connection.
    pub ca_file: PathBuf,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// A file can't be read.
    #[error("{path} can't be read")]
    File {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file has no address.
    #[error(transparent)]
    Endpoint(#[from] InvalidEndpoint),
    /// The certificates can't be used.
    #[error("the CA bundle {path} can't be used")]
    Tls {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: TlsError,
    },
    /// The host's name can't be one in a certificate.
    #[error("{0:?} can't be a server's name")]
    Name(String),
    /// The controller does not answer, or is not who it should be.
    #[error("{host}:{port} can't be reached")]
    Unreachable {
        /// The host.
        host: String,
        /// The port.
        port: u16,
        /// Why.
        #[source]
        source: tonic::transport::Error,
    },
}

impl Source {
    /// Opens a connection; with an identity, it is shown to the controller.
    pub async fn connect(&self, identity: Option<&Identity>) -> Result<Channel, ConnectError> {
        let Endpoint { host, port } = match &self.address {
            Address::Fixed(endpoint) => endpoint.clone(),
            Address::File(path) => read(path).await?.parse()?,
        };
        let tls = |source| ConnectError::Tls { path: self.ca_file.display().to_string(), source };
        let roots = net::authorities(read(&self.ca_file).await?.as_bytes()).map_err(tls)?;
        let config =
            net::client_config(roots, identity.map(Identity::for_tls), b"h2").map_err(tls)?;
        let name =
            ServerName::try_from(host.clone()).map_err(|_| ConnectError::Name(host.clone()))?;
        let connector = Connector { tls: Arc::new(config).into(), name, host: host.clone(), port };
        // The connector speaks TLS, so for tonic the connection is plain.
        let uri = format!("http://{host}:{port}");
        let unreachable = |source| ConnectError::Unreachable { host: host.clone(), port, source };
        Transport::from_shared(uri)
            .map_err(unreachable)?
            .connect_timeout(CONNECT)
            .http2_keep_alive_interval(KEEPALIVE)
            .keep_alive_timeout(KEEPALIVE)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(WINDOW)
            .buffer_size(BUFFER)
            .connect_with_connector(connector)
            .await
            .map_err(unreachable)
    }
}

async fn read(path: &Path) -> Result<String, ConnectError> {
    let error = |source| ConnectError::File { path: path.display().to_string(), source };
    if tokio::fs::metadata(path).await.map_err(error)?.len() > MAX_FILE {
        return Err(error(io::Error::new(io::ErrorKind::FileTooLarge, "it is too large")));
    }
    tokio::fs::read_to_string(path).await.map_err(error)
}

/// TCP and TLS to one place, for tonic.
#[derive(Clone)]
struct Connector {
    tls: TlsConnector,
    name: ServerName<'static>,
    host: String,
    port: u16,
}

impl Service<Uri> for Connector {
    type Response = TokioIo<TlsStream<TcpStream>>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let Self { tls, name, host, port } = self.clone();
        Box::pin(async move {
            let tcp = net::connect(&host, port).await?;
            Ok(TokioIo::new(tls.connect(name, tcp).await?))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_https_hosts() {
        let endpoint: Endpoint = "https://rs-garden--one.seed.example".parse().unwrap();
        assert_eq!((endpoint.host.as_str(), endpoint.port), ("rs-garden--one.seed.example", 443));
        assert_eq!("https://HOST:8443/\n".parse::<Endpoint>().unwrap().port, 8443);
        for bad in ["", "host", "http://host", "https://", "https://host/path", "https://host?x=1"]
        {
            assert!(bad.parse::<Endpoint>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn an_address_is_given_or_in_a_file() {
        assert_eq!("/etc/x".parse(), Ok(Address::File("/etc/x".into())));
        assert!(matches!("https://host".parse(), Ok(Address::Fixed(_))));
        assert!("etc/x".parse::<Address>().is_err());
    }
}
