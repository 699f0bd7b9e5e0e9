//! A proxy on loopback, and real TLS behind it.

use std::sync::{Arc, Mutex};

use rcgen::{CertifiedKey, generate_simple_self_signed};
use rootstock_daemon::error::Chain;
use rustls::RootCertStore;
use rustls::ServerConfig;
use rustls_pki_types::{PrivateKeyDer, ServerName};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::*;

/// The host that only the proxy can find.
const HOST: &str = "rs-garden--one.ingress.example";

/// A proxy that answers each request alike, and what it was asked.
struct FakeProxy {
    port: u16,
    asked: Arc<Mutex<Vec<String>>>,
    _tasks: JoinSet<()>,
}

impl FakeProxy {
    /// Leads to a port of this machine, where there is one, once it has answered.
    async fn start(answer: Vec<u8>, to: Option<u16>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let (mut tasks, seen) = (JoinSet::new(), Arc::clone(&asked));
        tasks.spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(stream.read_u8().await.unwrap());
                }
                seen.lock().unwrap().push(String::from_utf8(head).unwrap());
                // Whoever has read enough hangs up.
                let _ = stream.write_all(&answer).await;
                if let Some(port) = to {
                    let mut behind = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
                    let _ = tokio::io::copy_bidirectional(&mut stream, &mut behind).await;
                } else if answer.is_empty() {
                    std::future::pending::<()>().await;
                }
            }
        });
        Self { port, asked, _tasks: tasks }
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }

    fn url(&self, user: &str) -> String {
        format!("http://{user}127.0.0.1:{}", self.port)
    }
}

/// A server that says one byte over TLS, and whom to trust for it.
async fn tls_server(tasks: &mut JoinSet<()>) -> (u16, RootCertStore) {
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed([HOST.to_owned()]).unwrap();
    let key = PrivateKeyDer::Pkcs8(signing_key.serialize_der().into());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tasks.spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut stream = TlsAcceptor::from(Arc::new(config)).accept(stream).await.unwrap();
        stream.write_all(b"!").await.unwrap();
        stream.shutdown().await.unwrap();
    });
    let mut roots = RootCertStore::empty();
    roots.add(cert.der().clone()).unwrap();
    (port, roots)
}

#[tokio::test]
async fn tls_goes_through_the_proxy_unbroken() {
    let mut tasks = JoinSet::new();
    let (port, roots) = tls_server(&mut tasks).await;
    let proxy = FakeProxy::start(b"HTTP/1.1 200 OK\r\nVia: x\r\n\r\n".to_vec(), Some(port)).await;
    let proxies = Proxies::new(&proxy.url("us%40er:p%3Aw@"), "");
    let stream = proxies.connect(HOST, 443).await.unwrap().stream;
    let config = crate::net::client_config(roots, None, b"h2").unwrap();
    let name = ServerName::try_from(HOST).unwrap();
    let mut tls = TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap();
    assert_eq!(tls.read_u8().await.unwrap(), b'!');
    // printf %s us@er:p:w | base64
    assert_eq!(
        proxy.asked(),
        [format!(
            "CONNECT {HOST}:443 HTTP/1.1\r\nHost: {HOST}:443\r\n\
             Proxy-Authorization: Basic dXNAZXI6cDp3\r\n\r\n"
        )]
    );
}

#[tokio::test]
async fn what_is_excepted_is_reached_without_the_proxy() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let proxies = Proxies::new("http://127.0.0.1:1", "a.example");
    proxies.connect("127.0.0.1", port).await.unwrap();
    assert!(proxies.of("a.example", 443).unwrap().is_none());
    assert!(proxies.of("b.example", 443).unwrap().is_some());
    assert!(Proxies::new("", "").of("b.example", 443).unwrap().is_none());
}

#[tokio::test]
async fn a_refusal_names_the_proxy_and_its_answer_and_no_password() {
    let long = [b"HTTP/1.1 200 OK\r\nX: ".to_vec(), vec![b'x'; 2 * HEAD]].concat();
    let table = [
        (
            b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n".to_vec(),
            "answers 407 Proxy Authentication Required",
        ),
        (b"HTTP/1.0 503 \x1b[31mno\r\n\r\n".to_vec(), "answers 503 [31mno"),
        (b"SSH-2.0-x\r\n\r\n".to_vec(), "it is not HTTP"),
        (long, "longer than 8 KiB"),
        (b"HTTP/1.1 2".to_vec(), "breaks off"),
    ];
    for (answer, want) in table {
        let proxy = FakeProxy::start(answer, None).await;
        let proxies = Proxies::new(&proxy.url("user:secret@"), "");
        let error = proxies.connect(HOST, 443).await.unwrap_err();
        let said = Chain(&error).to_string();
        assert!(said.contains(want), "{want}: {said}");
        assert!(said.contains(&proxy.url("")), "{said}");
        assert!(!said.contains("secret") && !format!("{proxies:?}").contains("secret"), "{said}");
    }
}

#[tokio::test]
async fn a_proxy_that_is_away_is_told_from_the_host() {
    let error = Proxies::new("http://127.0.0.1:1", "").connect(HOST, 443).await.unwrap_err();
    let said = Chain(&error).to_string();
    assert!(said.starts_with("connect to the proxy http://127.0.0.1:1: "), "{said}");
}

#[tokio::test]
async fn a_proxy_that_says_nothing_is_given_up() {
    let proxy = FakeProxy::start(Vec::new(), None).await;
    let proxies = Proxies::new(&proxy.url(""), "");
    let connect = proxies.connect(HOST, 443);
    let mut connect = std::pin::pin!(connect);
    // Time stands still from here on, and goes on when nobody has anything to do.
    while proxy.asked().is_empty() {
        let step = Duration::from_millis(5);
        assert!(tokio::time::timeout(step, &mut connect).await.is_err(), "it waits");
    }
    tokio::time::pause();
    let said = Chain(&connect.await.unwrap_err()).to_string();
    assert!(said.ends_with("does not answer within 10s"), "{said}");
}

#[test]
fn urls_of_proxies() {
    let shown = |url: &str| Proxy::new(url).map(|proxy| proxy.to_string());
    for (url, want) in [
        ("http://proxy", "http://proxy:80"),
        ("http://proxy:3128/", "http://proxy:3128"),
        ("proxy:3128", "http://proxy:3128"),
        ("http://u:p@[::1]:1", "http://[::1]:1"),
    ] {
        assert_eq!(shown(url).as_deref(), Ok(want), "{url}");
    }
    for bad in ["https://proxy", "socks5://proxy:1", "http://", "a b", "http://u:%zz@proxy"] {
        let error = Proxies::new(bad, "").of("a.example", 443).unwrap_err();
        assert!(error.to_string().starts_with("HTTPS_PROXY can't be used: "), "{bad}");
        // What needs no proxy is reached all the same.
        assert!(Proxies::new(bad, "a.example").of("a.example", 443).is_ok());
    }
}
