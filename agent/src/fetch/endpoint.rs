//! Where a repository is served, and where a redirect leads.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::Uri;
use http::header::{HeaderMap, HeaderValue, LOCATION};
use http::uri::Scheme;
use rootstock_core::desired::Credential;

use super::FetchError;

/// One place that serves a repository.
#[derive(Debug)]
pub(super) struct Endpoint {
    pub(super) origin: Origin,
    /// The path before the digest.
    pub(super) blobs: String,
    pub(super) authorization: Option<HeaderValue>,
}

/// Scheme, host and port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Origin {
    pub(super) tls: bool,
    pub(super) host: String,
    pub(super) port: u16,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        write!(f, "{scheme}://{}:{}", self.host, self.port)
    }
}

impl Origin {
    fn of(uri: &Uri) -> Result<Self, &'static str> {
        let tls = match uri.scheme() {
            Some(scheme) if *scheme == Scheme::HTTPS => true,
            Some(scheme) if *scheme == Scheme::HTTP => false,
            _ => return Err("want a URL that begins with http:// or https://"),
        };
        let host = uri.host().filter(|host| !host.is_empty()).ok_or("it has no host")?;
        if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
            return Err("a credential does not belong into it");
        }
        let port = uri.port_u16().unwrap_or(if tls { 443 } else { 80 });
        Ok(Self { tls, host: host.to_owned(), port })
    }
}

impl Endpoint {
    pub(super) fn new(
        url: &str,
        repository: &str,
        credential: Option<&Credential>,
    ) -> Result<Self, FetchError> {
        let wrong = |why: &str| FetchError::Configuration { url: url.to_owned(), why: why.into() };
        let uri: Uri = url.parse().map_err(|_| wrong("it is no URL"))?;
        let origin = Origin::of(&uri).map_err(wrong)?;
        let base = uri.path().trim_end_matches('/');
        let blobs = format!("{base}/v2/{repository}/blobs/");
        let authorization = match credential {
            None => None,
            Some(credential) => Some(
                authorization(credential)
                    .map_err(|_| wrong("its credential has characters that HTTP does not take"))?,
            ),
        };
        Ok(Self { origin, blobs, authorization })
    }
}

fn authorization(credential: &Credential) -> Result<HeaderValue, http::Error> {
    let Credential { username, secret } = credential;
    let text = if username.is_empty() {
        format!("Bearer {secret}")
    } else {
        format!("Basic {}", STANDARD.encode(format!("{username}:{secret}")))
    };
    let mut value = HeaderValue::from_str(&text)?;
    value.set_sensitive(true);
    Ok(value)
}

/// Where a redirect leads.
pub(super) fn location(
    origin: &Origin,
    headers: &HeaderMap,
) -> Result<(Origin, String), &'static str> {
    let value = headers.get(LOCATION).ok_or("it does not say where to")?;
    let uri: Uri = value.to_str().ok().and_then(|text| text.parse().ok()).ok_or("to no URL")?;
    let target = uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str).to_owned();
    if uri.host().is_none() {
        return if target.starts_with('/') {
            Ok((origin.clone(), target))
        } else {
            Err("to a relative path")
        };
    }
    Ok((Origin::of(&uri)?, target))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        /// Wherever a redirect points, the next request is a whole one to a
        /// host that is named, or there is none.
        #[test]
        fn any_redirect_is_followed_whole_or_refused(
            noise in any::<Vec<u8>>(), text in "(https?:|ftp:|/){0,2}[a-z@:/.?#%\\[\\]0-9]{0,20}",
        ) {
            let origin = Origin { tls: true, host: "a".to_owned(), port: 443 };
            for value in [noise, text.into_bytes()] {
                let Ok(value) = HeaderValue::from_bytes(&value) else { continue };
                let headers = [(LOCATION, value)].into_iter().collect();
                let Ok((next, target)) = location(&origin, &headers) else { continue };
                prop_assert!(!next.host.is_empty() && !next.host.contains('@'));
                prop_assert!(target.starts_with('/') && target.parse::<Uri>().is_ok(), "{}", target);
            }
        }
    }

    #[test]
    fn redirects_are_read_as_they_are_meant() {
        let origin = Origin { tls: true, host: "a".to_owned(), port: 443 };
        let to = |value: &'static str| {
            let headers = [(LOCATION, HeaderValue::from_static(value))].into_iter().collect();
            location(&origin, &headers).map(|(origin, target)| format!("{origin}{target}"))
        };
        assert_eq!(to("/b?c=d"), Ok("https://a:443/b?c=d".to_owned()));
        assert_eq!(to("http://[::1]:5000/b"), Ok("http://[::1]:5000/b".to_owned()));
        for bad in ["b", "", "https://u:p@x/", "ftp://x/"] {
            assert!(to(bad).is_err(), "{bad:?}");
        }
    }
}
