//! The proxy by which a shoot's agents go out, as their environment says it.

use std::fmt;
use std::str::FromStr;

use serde_json::{Value, json};

/// A proxy's URL; it may have a password in it.
#[derive(Clone, PartialEq, Eq)]
pub struct ProxyUrl(String);

/// What agents are told of proxies.
#[derive(Clone, Debug, Default)]
pub(crate) struct Proxy {
    /// The proxy for connections with TLS.
    pub(crate) url: Option<ProxyUrl>,
    /// What is reached without it.
    pub(crate) except: Option<String>,
}

impl Proxy {
    /// The variables of the agent's container.
    pub(super) fn env(&self) -> Vec<Value> {
        let url = self.url.as_ref().map(|url| ("HTTPS_PROXY", url.0.as_str()));
        let except = self.except.as_deref().map(|except| ("NO_PROXY", except));
        let all = url.into_iter().chain(except);
        all.map(|(name, value)| json!({"name": name, "value": value})).collect()
    }
}

impl FromStr for ProxyUrl {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // What is wrong is said without the text, which may have a password.
        let uri: http::Uri = text.parse().map_err(|_| "it is no URL")?;
        if uri.scheme_str() != Some("http") {
            return Err("want one that begins with http://");
        }
        if uri.host().is_none_or(str::is_empty) {
            return Err("it has no host");
        }
        if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
            return Err("want nothing behind the port");
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Debug for ProxyUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = self.0.rsplit('@').next().unwrap_or_default();
        write!(f, "ProxyUrl({shown:?})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_is_a_plain_url() {
        for good in
            ["http://proxy", "http://proxy:3128", "http://u:p@proxy:3128/", "http://[::1]:1"]
        {
            let url: ProxyUrl = good.parse().unwrap();
            assert_eq!(url.0, good);
        }
        for bad in ["proxy:3128", "https://proxy", "socks5://p", "http://", "http://p/x", "", "a b"]
        {
            assert!(bad.parse::<ProxyUrl>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_password_is_not_printed() {
        let url: ProxyUrl = "http://u:secret@proxy:3128".parse().unwrap();
        assert_eq!(format!("{url:?}"), "ProxyUrl(\"proxy:3128\")");
    }

    #[test]
    fn agents_are_told_by_variables() {
        assert_eq!(Proxy::default().env(), [] as [Value; 0]);
        let url = Some("http://proxy:3128".parse().unwrap());
        let proxy = Proxy { url, except: Some(".internal,10.0.0.1".to_owned()) };
        let want = json!([
            {"name": "HTTPS_PROXY", "value": "http://proxy:3128"},
            {"name": "NO_PROXY", "value": ".internal,10.0.0.1"},
        ]);
        assert_eq!(json!(proxy.env()), want);
    }
}
