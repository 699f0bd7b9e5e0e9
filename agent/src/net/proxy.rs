//! Connections through a proxy, as the environment has it.
//!
//! ```text
//!  HTTPS_PROXY ─▶ TCP to the proxy ─CONNECT host:port─▶ 2xx ─▶ TLS with the host itself
//!  NO_PROXY    ─▶ TCP to the host
//! ```
//!
//! The proxy sees the host's name and ciphertext. Its password is shown to it
//! and to nobody else.

mod except;
#[cfg(test)]
mod tests;

use std::fmt;
use std::io;
use std::sync::OnceLock;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use except::Exceptions;
use http::Uri;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::Tcp;

/// How long a proxy may take to answer: it connects to the host meanwhile, which
/// may take a lost SYN and its two repetitions.
const ANSWER: Duration = Duration::from_secs(10);
/// The longest head of its answer, in bytes: what most servers send at most.
const HEAD: usize = 8 << 10;
/// As much of what it says as people are shown.
const SHOWN: usize = 200;

/// Which connections go through a proxy.
#[derive(Clone, Debug)]
pub(crate) struct Proxies {
    proxy: Result<Option<Proxy>, &'static str>,
    except: Exceptions,
}

/// A proxy.
#[derive(Clone)]
struct Proxy {
    host: String,
    port: u16,
    /// The value of Proxy-Authorization.
    authorization: Option<String>,
}

/// Why there is no way through a proxy.
#[derive(Debug, thiserror::Error)]
enum ProxyError {
    #[error("HTTPS_PROXY can't be used: {0}")]
    Setting(&'static str),
    #[error("connect to the proxy {proxy}")]
    Connect { proxy: String, source: io::Error },
    #[error("the proxy {proxy} does not answer within {ANSWER:?}")]
    Late { proxy: String },
    #[error("the proxy {proxy} breaks off")]
    Broken { proxy: String, source: io::Error },
    #[error("the proxy {proxy} gives no answer that can be read: {why}")]
    Answer { proxy: String, why: &'static str },
    #[error("the proxy {proxy} lets nobody through to {target}: it answers {answer}")]
    Refused { proxy: String, target: String, answer: String },
}

impl Proxies {
    /// Those of this process. An environment does not change.
    pub(crate) fn of_the_process() -> &'static Self {
        static PROXIES: OnceLock<Proxies> = OnceLock::new();
        PROXIES.get_or_init(|| {
            let get = |names: [&str; 2]| {
                let values = names.into_iter().filter_map(|name| std::env::var(name).ok());
                values.into_iter().find(|value| !value.is_empty()).unwrap_or_default()
            };
            let https = get(["HTTPS_PROXY", "https_proxy"]);
            let proxies = Self::new(&https, &get(["NO_PROXY", "no_proxy"]));
            if let Ok(Some(proxy)) = &proxies.proxy {
                tracing::info!(%proxy, "connections with TLS go through a proxy");
            }
            proxies
        })
    }

    /// The proxy with this URL, but for what is excepted; none without one.
    pub(super) fn new(https: &str, except: &str) -> Self {
        let https = https.trim();
        let proxy = if https.is_empty() { Ok(None) } else { Proxy::new(https).map(Some) };
        Self { proxy, except: Exceptions::new(except) }
    }

    /// Opens a connection for TLS with a host.
    pub(crate) async fn connect(&self, host: &str, port: u16) -> io::Result<Tcp> {
        match self.of(host, port).map_err(io::Error::other)? {
            None => super::connect(host, port).await,
            Some(proxy) => {
                let target = format!("{host}:{port}");
                proxy.connect(&target).await.map_err(io::Error::other)
            }
        }
    }

    /// The proxy for a host.
    fn of(&self, host: &str, port: u16) -> Result<Option<&Proxy>, ProxyError> {
        if self.except.has(host, port) {
            return Ok(None);
        }
        self.proxy.as_ref().map(Option::as_ref).map_err(|why| ProxyError::Setting(why))
    }
}

impl Proxy {
    /// What is wrong with a URL is said without it: it may have a password.
    fn new(url: &str) -> Result<Self, &'static str> {
        let uri: Uri = url.parse().map_err(|_| "it is no URL")?;
        if !matches!(uri.scheme_str(), Some("http") | None) {
            return Err("want one that begins with http://");
        }
        let host = uri.host().filter(|host| !host.is_empty()).ok_or("it has no host")?;
        let authority = uri.authority().map_or("", |authority| authority.as_str());
        let authorization = authority.rsplit_once('@').map(|(user, _)| basic(user)).transpose()?;
        Ok(Self { host: host.to_owned(), port: uri.port_u16().unwrap_or(80), authorization })
    }

    async fn connect(&self, target: &str) -> Result<Tcp, ProxyError> {
        let connected = super::connect(&self.host, self.port).await;
        let mut tcp =
            connected.map_err(|source| ProxyError::Connect { proxy: self.to_string(), source })?;
        match tokio::time::timeout(ANSWER, self.ask(&mut tcp.stream, target)).await {
            Ok(answered) => answered.map(|()| tcp),
            Err(_) => Err(ProxyError::Late { proxy: self.to_string() }),
        }
    }

    async fn ask(&self, stream: &mut TcpStream, target: &str) -> Result<(), ProxyError> {
        let broken = |source| ProxyError::Broken { proxy: self.to_string(), source };
        let mut request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n");
        if let Some(authorization) = &self.authorization {
            request += &format!("Proxy-Authorization: {authorization}\r\n");
        }
        request += "\r\n";
        stream.write_all(request.as_bytes()).await.map_err(broken)?;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            if head.len() >= HEAD {
                return Err(self.unreadable("its head is longer than 8 KiB"));
            }
            // Byte by byte, once for a connection: what comes behind the head
            // is not the proxy's. The kernel has it all in one packet.
            head.push(stream.read_u8().await.map_err(broken)?);
        }
        let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
        match status(line) {
            Some(200..=299) => Ok(()),
            Some(_) => {
                let (proxy, target) = (self.to_string(), target.to_owned());
                Err(ProxyError::Refused { proxy, target, answer: shown(line) })
            }
            None => Err(self.unreadable("it is not HTTP")),
        }
    }

    fn unreadable(&self, why: &'static str) -> ProxyError {
        ProxyError::Answer { proxy: self.to_string(), why }
    }
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}:{}", self.host, self.port)
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Proxy({self})")
    }
}

/// The credential from `user:password`, each of which may be percent-encoded.
fn basic(user: &str) -> Result<String, &'static str> {
    let (name, password) = user.split_once(':').unwrap_or((user, ""));
    let wrong = "its user or password is not percent-encoded";
    let mut plain = decode(name).ok_or(wrong)?;
    plain.push(b':');
    plain.extend(decode(password).ok_or(wrong)?);
    Ok(format!("Basic {}", BASE64_STANDARD.encode(plain)))
}

fn decode(text: &str) -> Option<Vec<u8>> {
    let mut pieces = text.split('%');
    let mut plain = pieces.next().unwrap_or_default().as_bytes().to_vec();
    for piece in pieces {
        let (code, rest) = piece.split_at_checked(2)?;
        plain.push(u8::from_str_radix(code, 16).ok()?);
        plain.extend(rest.as_bytes());
    }
    Some(plain)
}

/// The code of a status line.
fn status(line: &[u8]) -> Option<u16> {
    let line = std::str::from_utf8(line).ok()?;
    let mut words = line.split(' ');
    words.next().filter(|version| version.starts_with("HTTP/1."))?;
    words.next().filter(|code| code.len() == 3)?.parse().ok()
}

/// A status line without its version, as it may stand in a log.
fn shown(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    let said = text.split_once(' ').map_or("", |(_, said)| said);
    said.chars().filter(|c| c.is_ascii_graphic() || *c == ' ').take(SHOWN).collect()
}
