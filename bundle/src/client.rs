//! One registry, and how it is reached.

use std::time::Duration;

use oci_client::client::{Certificate, CertificateEncoding, ClientConfig, ClientProtocol};
use oci_client::secrets::RegistryAuth;
use rootstock_core::desired;

use rootstock_core::reference::Repository;

/// How long a connection may take. A registry in reach answers in milliseconds.
pub(crate) const CONNECT: Duration = Duration::from_secs(5);
/// How long an answer may stand still.
pub(crate) const STALL: Duration = Duration::from_secs(10);

const USER_AGENT: &str = concat!("rootstock/", env!("CARGO_PKG_VERSION"));

/// A client of one registry. It is cheap to clone.
///
/// Its process must have a default TLS provider (`rustls`), even where the
/// registry is reached by plain HTTP.
#[derive(Clone)]
pub struct Client {
    pub(crate) base: Base,
    /// Uploads. It is not told the credential, which it would show to any
    /// host that the registry names.
    pub(crate) oci: oci_client::Client,
    /// Downloads: oci-client reads a manifest of any size into memory, and
    /// takes no deadline for it.
    pub(crate) http: reqwest::Client,
    pub(crate) auth: RegistryAuth,
}

/// Where a registry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Base {
    /// The name in the catalog.
    pub(crate) name: String,
    /// Scheme, host and port, without a `/` at its end.
    pub(crate) url: String,
    /// Host and port.
    pub(crate) host: String,
    plain: bool,
}

/// Why a registry of the catalog can't be used.
#[derive(Debug, thiserror::Error)]
pub enum InvalidRegistry {
    /// The URL is not of a registry.
    #[error(
        "registry {name} has url {url:?}, want http:// or https:// with a host and nothing behind it"
    )]
    Url {
        /// The registry's name.
        name: String,
        /// Its URL.
        url: String,
    },
    /// The CA bundle holds no certificate, or a malformed one.
    #[error("registry {name} has a caBundle that is not PEM certificates")]
    CaBundle {
        /// The registry's name.
        name: String,
    },
    /// The process has no TLS provider.
    #[error("no TLS provider is installed in this process")]
    NoProvider,
    /// The HTTP client could not be made.
    #[error("the client of registry {name} can't be made")]
    Client {
        /// The registry's name.
        name: String,
        /// What happened.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl Client {
    /// A client of `registry`. Its mirrors are for nodes and are not asked:
    /// what a tag stands for is the registry's own word.
    pub fn new(registry: &desired::Registry) -> Result<Self, InvalidRegistry> {
        let base = Base::parse(&registry.name, &registry.url)?;
        // Without one the HTTP client would panic.
        if rustls::crypto::CryptoProvider::get_default().is_none() {
            return Err(InvalidRegistry::NoProvider);
        }
        let authorities = certificates(registry)?;
        let name = || registry.name.clone();
        let mut http = reqwest::Client::builder()
            .user_agent(USER_AGENT)
            .connect_timeout(CONNECT)
            .read_timeout(STALL);
        if base.is_loopback() {
            http = http.no_proxy();
        }
        if !authorities.is_empty() {
            let pem = registry.ca_bundle.as_bytes();
            let list = reqwest::Certificate::from_pem_bundle(pem)
                .map_err(|_| InvalidRegistry::CaBundle { name: name() })?;
            http = http.tls_certs_only(list);
        }
        let http = http
            .build()
            .map_err(|error| InvalidRegistry::Client { name: name(), source: error.into() })?;
        let oci = oci_client::Client::try_from(oci_config(&base, authorities))
            .map_err(|error| InvalidRegistry::Client { name: name(), source: error.into() })?;
        let auth = match &registry.credential {
            None => RegistryAuth::Anonymous,
            Some(login) if login.username.is_empty() => RegistryAuth::Bearer(login.secret.clone()),
            Some(login) => RegistryAuth::Basic(login.username.clone(), login.secret.clone()),
        };
        Ok(Self { base, oci, http, auth })
    }

    /// The registry's URL: scheme, host and port.
    pub fn url(&self) -> &str {
        &self.base.url
    }

    /// oci-client's reference to a repository; its tag is set where it matters.
    pub(crate) fn image(&self, repository: &Repository, tag: &str) -> oci_client::Reference {
        oci_client::Reference::with_tag(
            self.base.host.clone(),
            repository.to_string(),
            tag.to_owned(),
        )
    }
}

fn oci_config(base: &Base, authorities: Vec<Certificate>) -> ClientConfig {
    let mut config = ClientConfig {
        protocol: if base.plain { ClientProtocol::Http } else { ClientProtocol::Https },
        // One PUT per blob: every registry takes it, not every one takes chunks.
        use_monolithic_push: true,
        tls_certs_only: authorities,
        connect_timeout: Some(CONNECT),
        // No read timeout: it would count the time of an upload too.
        user_agent: USER_AGENT,
        ..ClientConfig::default()
    };
    if base.is_loopback() {
        // oci-client can't be told to pass the environment's proxies over; one
        // of its own does it, for the scheme that this registry doesn't use.
        let unused = Some("http://127.0.0.1:9".to_owned());
        if base.plain {
            config.https_proxy = unused;
        } else {
            config.http_proxy = unused;
        }
    }
    config
}

/// The certificates of the registry's CA bundle, one by one as oci-client wants them.
fn certificates(registry: &desired::Registry) -> Result<Vec<Certificate>, InvalidRegistry> {
    const END: &str = "-----END CERTIFICATE-----";
    let bundle = registry.ca_bundle.trim();
    if bundle.is_empty() {
        return Ok(Vec::new());
    }
    if !bundle.contains(END) {
        return Err(InvalidRegistry::CaBundle { name: registry.name.clone() });
    }
    let each = bundle.split_inclusive(END).filter(|part| part.ends_with(END));
    Ok(each
        .map(|pem| Certificate {
            encoding: CertificateEncoding::Pem,
            data: format!("{}\n", pem.trim_start()).into_bytes(),
        })
        .collect())
}

impl Base {
    pub(crate) fn parse(name: &str, url: &str) -> Result<Self, InvalidRegistry> {
        let refused =
            || InvalidRegistry::Url { name: name.to_owned(), url: url.chars().take(200).collect() };
        let (host, plain) = match (url.strip_prefix("http://"), url.strip_prefix("https://")) {
            (Some(host), _) => (host, true),
            (None, Some(host)) => (host, false),
            (None, None) => return Err(refused()),
        };
        let host = host.strip_suffix('/').unwrap_or(host);
        let valid = reqwest::Url::parse(url).is_ok_and(|parsed| {
            parsed.path() == "/"
                && parsed.query().is_none()
                && parsed.fragment().is_none()
                && parsed.username().is_empty()
                && parsed.password().is_none()
        });
        if host.is_empty() || !valid {
            return Err(refused());
        }
        let url = url.strip_suffix('/').unwrap_or(url).to_owned();
        Ok(Self { name: name.to_owned(), url, host: host.to_owned(), plain })
    }

    fn is_loopback(&self) -> bool {
        let host = match self.host.rsplit_once(':') {
            Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => host,
            _ => &self.host,
        };
        host == "localhost"
            || host.ends_with(".localhost")
            || host
                .trim_matches(['[', ']'])
                .parse::<std::net::IpAddr>()
                .is_ok_and(|ip| ip.is_loopback())
    }
}

impl std::fmt::Debug for Client {
    /// Without the credential.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("base", &self.base).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// What a catalog has as a registry is one, with a host and authorities of its own, or refused.
        #[test]
        fn any_registry_is_used_as_it_is_meant_or_refused(
            url in "(http|https|ftp)?(://)?[a-z@:/.?#0-9\\[\\]]{0,20}", ca_bundle in "\\PC{0,20}",
            framed: bool,
        ) {
            if let Ok(base) = Base::parse("main", &url) {
                let parsed = reqwest::Url::parse(&base.url).unwrap();
                prop_assert!(parsed.host_str().is_some_and(|host| !host.is_empty()));
                prop_assert!(parsed.username().is_empty() && parsed.path() == "/");
                let _ = base.is_loopback();
            }
            let mark = |what: &str| format!("-----{what} CERTIFICATE-----\n");
            let ca_bundle =
                if framed { mark("BEGIN") + &ca_bundle + "\n" + &mark("END") } else { ca_bundle };
            let own = !ca_bundle.trim().is_empty();
            let registry = desired::Registry {
                name: "main".to_owned(),
                url: "https://registry.example".to_owned(),
                mirrors: Vec::new(),
                ca_bundle,
                credential: None,
            };
            // One that is there and holds no authority must not fall back to the system's.
            if let Ok(found) = certificates(&registry) {
                prop_assert_eq!(!found.is_empty(), own);
            }
        }
    }

    #[test]
    fn a_url_is_a_scheme_a_host_and_a_port() {
        for (good, host, plain) in [
            ("http://127.0.0.1:5000", "127.0.0.1:5000", true),
            ("https://registry.example/", "registry.example", false),
        ] {
            let base = Base::parse("main", good).unwrap();
            assert_eq!((base.host.as_str(), base.plain), (host, plain));
            assert!(!base.url.ends_with('/'));
        }
        for bad in [
            "registry.example",
            "ftp://registry.example",
            "https://",
            "https://registry.example/path",
            "https://user:secret@registry.example",
            "https://registry.example?x",
            "http://a b",
        ] {
            assert!(Base::parse("main", bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn this_machine_is_reached_without_a_proxy() {
        for (url, want) in [
            ("http://127.0.0.1:5000", true),
            ("http://localhost:5000", true),
            ("http://[::1]:5000", true),
            ("https://registry.example", false),
        ] {
            assert_eq!(Base::parse("main", url).unwrap().is_loopback(), want, "{url}");
        }
    }

    #[test]
    fn a_ca_bundle_is_taken_apart() {
        let one = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        let mut registry = desired::Registry {
            name: "main".to_owned(),
            url: "https://registry.example".to_owned(),
            mirrors: Vec::new(),
            ca_bundle: format!("{one}\n# a comment\n{one}"),
            credential: None,
        };
        assert_eq!(certificates(&registry).unwrap().len(), 2);
        registry.ca_bundle = "nothing".to_owned();
        assert!(certificates(&registry).is_err());
    }
}
