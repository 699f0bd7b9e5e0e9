//! Connections: names, TCP and TLS.

mod buffer;
pub(crate) mod proxy;

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

pub(crate) use buffer::{Buffer, hold_little, looks_far};
use rustls::ClientConfig;
use rustls::RootCertStore;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpStream;
use tokio::time::Instant;

/// How long one address may take to answer. Long enough for a lost SYN and
/// its two repetitions (1 s and 2 s), short enough to go on to the next.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A TCP connection.
#[derive(Debug)]
pub(crate) struct Tcp {
    pub(crate) stream: TcpStream,
    /// How long the other side took to take it: a round trip, or some where a
    /// packet was lost.
    pub(crate) round_trip: Duration,
}

/// Opens a TCP connection; the host's addresses are tried in order.
pub(crate) async fn connect(host: &str, port: u16) -> io::Result<Tcp> {
    let mut last = None;
    for address in resolve(host, port).await? {
        let begun = Instant::now();
        match tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                stream.set_nodelay(true)?;
                return Ok(Tcp { stream, round_trip: begun.elapsed() });
            }
            Ok(Err(error)) => last = Some(error),
            Err(_) => {
                last = Some(io::Error::new(
                    io::ErrorKind::TimedOut,
                    format!("no answer from {address} within {CONNECT_TIMEOUT:?}"),
                ));
            }
        }
    }
    Err(last.unwrap_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the name has no address")))
}

/// `localhost` and what lies below it never leave the machine (RFC 6761), also
/// where the system's resolver has not heard of that.
async fn resolve(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    let name = host.trim_matches(['[', ']']).trim_end_matches('.').to_ascii_lowercase();
    if let Ok(address) = name.parse::<IpAddr>() {
        return Ok(vec![(address, port).into()]);
    }
    if name == "localhost" || name.ends_with(".localhost") {
        return Ok(vec![(Ipv4Addr::LOCALHOST, port).into()]);
    }
    Ok(tokio::net::lookup_host((name, port)).await?.collect())
}

/// Why a TLS configuration can't be made.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// No PEM certificates where CAs should be.
    #[error("the CA bundle holds no certificate")]
    NoAuthority,
    /// Something that is no PEM.
    #[error("the CA bundle can't be read: {0}")]
    Pem(String),
    /// rustls does not take it.
    #[error("the certificates can't be used")]
    Rustls(#[from] rustls::Error),
}

/// CAs from PEM.
pub(crate) fn authorities(pem: &[u8]) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        roots.add(certificate.map_err(|error| TlsError::Pem(error.to_string()))?)?;
    }
    if roots.is_empty() {
        return Err(TlsError::NoAuthority);
    }
    Ok(roots)
}

/// A client's TLS configuration that trusts these CAs and no others.
pub(crate) fn client_config(
    roots: RootCertStore,
    identity: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
    alpn: &[u8],
) -> Result<ClientConfig, TlsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots);
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some((chain, key)) => builder.with_client_auth_cert(chain, key)?,
    };
    config.alpn_protocols = vec![alpn.to_vec()];
    Ok(config)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// A bundle that is taken holds an authority: none is as good as no trust at all.
        #[test]
        fn any_bundle_of_authorities_holds_one_or_is_refused(
            noise in any::<Vec<u8>>(), at: prop::sample::Index, byte: u8,
        ) {
            let key = rcgen::KeyPair::generate().unwrap();
            let good = rcgen::CertificateParams::default().self_signed(&key).unwrap().pem();
            let mut changed = good.into_bytes();
            let at = at.index(changed.len());
            changed[at] = byte;
            let framed = [
                b"-----BEGIN CERTIFICATE-----\n", &noise[..], b"\n-----END CERTIFICATE-----\n",
            ]
            .concat();
            for pem in [noise, framed, changed] {
                if let Ok(roots) = authorities(&pem) {
                    prop_assert!(!roots.is_empty());
                }
            }
        }
    }

    #[tokio::test]
    async fn localhost_needs_no_resolver() {
        for name in ["localhost", "rs-garden--one.seed.localhost", "LOCALHOST.", "127.0.0.1"] {
            let found = resolve(name, 7).await.unwrap();
            assert_eq!(found, ["127.0.0.1:7".parse::<SocketAddr>().unwrap()], "{name}");
        }
        assert_eq!(resolve("[::1]", 7).await.unwrap(), ["[::1]:7".parse::<SocketAddr>().unwrap()]);
    }

    #[test]
    fn a_bundle_without_certificates_is_refused() {
        assert!(matches!(authorities(b""), Err(TlsError::NoAuthority)));
    }
}
