//! Against a small server with scripted answers.

mod faults;
mod granted;

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use rootstock_core::desired::Credential;
use rootstock_core::path::BinaryRoots;
use rootstock_core::status::Reason;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::*;
use crate::pull::Pulls;
use crate::rootfs::Rootfs;

/// One answer, as bytes on the wire; the connection closes behind it.
type Answer = Vec<u8>;

struct Server {
    url: String,
    requests: Arc<Mutex<Vec<String>>>,
    _tasks: JoinSet<()>,
}

async fn server(answers: Vec<Answer>) -> Server {
    server_that(answers, true).await
}

/// The next connection that asks something, and what. Where one looks far to
/// the agent it makes another, and the one that it does not take ends.
async fn asks(listener: &TcpListener) -> (TcpStream, Vec<u8>) {
    loop {
        let (mut stream, _) = listener.accept().await.unwrap();
        let (mut request, mut buffer) = (Vec::new(), [0; 4096]);
        loop {
            let read = stream.read(&mut buffer).await.unwrap();
            request.extend_from_slice(&buffer[..read]);
            if request.ends_with(b"\r\n\r\n") {
                return (stream, request);
            }
            if read == 0 {
                assert!(request.is_empty(), "it ends in the middle of a request");
                break;
            }
        }
    }
}

/// One that closes connections behind its answers, or does not.
async fn server_that(answers: Vec<Answer>, closes: bool) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let requests = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&requests);
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let (mut answers, mut open) = (VecDeque::from(answers), Vec::new());
        while let Some(answer) = answers.pop_front() {
            let (mut stream, request) = asks(&listener).await;
            seen.lock().unwrap().push(String::from_utf8(request).unwrap());
            stream.write_all(&answer).await.unwrap();
            if closes {
                stream.shutdown().await.unwrap();
            } else {
                open.push(stream);
            }
        }
        if !open.is_empty() {
            std::future::pending::<()>().await;
        }
    });
    Server { url, requests, _tasks: tasks }
}

fn answer(head: &str, body: &[u8]) -> Answer {
    let mut bytes = format!("HTTP/1.1 {head}\r\nconnection: close\r\n\r\n").into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

fn ok(body: &[u8]) -> Answer {
    answer(&format!("200 OK\r\ncontent-length: {}", body.len()), body)
}

struct Node {
    root: tempfile::TempDir,
    into: Arc<Folder>,
    partial: Arc<Folder>,
    pulled: Arc<AtomicU64>,
    resumed: AtomicU64,
    /// How often it said that it waits.
    waits: AtomicU64,
    shared: Shared,
}

impl Node {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let rootfs = Rootfs::open(root.path(), BinaryRoots::default()).unwrap();
        let into = Arc::new(rootfs.make_folder("/into").unwrap());
        let partial = Arc::new(rootfs.make_folder("/partial").unwrap());
        let (pulled, resumed, waits) = Default::default();
        let shared = Shared::new(Pulls::unbounded());
        Self { root, into, partial, pulled, resumed, waits, shared }
    }

    fn fetcher(&self, registry: &Registry) -> Result<Fetcher, FetchError> {
        let partial = Partial {
            folder: Arc::clone(&self.partial),
            limit: 1 << 30,
            shared: self.shared.clone(),
        };
        Fetcher::new(registry, "rootstock/gvisor", partial)
    }

    async fn fetch(&self, registry: &Registry, wanted: &Wanted) -> Result<(), FetchError> {
        self.fetch_by(&mut self.fetcher(registry)?, wanted).await
    }

    async fn fetch_by(&self, fetcher: &mut Fetcher, wanted: &Wanted) -> Result<(), FetchError> {
        let progress = |step| match step {
            Step::Came(bytes) => {
                self.pulled.fetch_add(bytes, Ordering::Relaxed);
            }
            Step::Resumes(bytes) => {
                self.resumed.fetch_add(bytes, Ordering::Relaxed);
            }
            Step::Waits => {
                self.waits.fetch_add(1, Ordering::Relaxed);
            }
        };
        fetcher.fetch(wanted, &self.into, &progress).await
    }

    fn file(&self) -> Option<Vec<u8>> {
        std::fs::read(self.root.path().join("into/runsc")).ok()
    }

    /// Nothing but what should be there.
    fn names(&self) -> (Vec<String>, Vec<String>) {
        (self.into.names().unwrap(), self.partial.names().unwrap())
    }
}

fn registry(url: &str) -> Registry {
    Registry {
        name: "main".into(),
        url: url.into(),
        mirrors: vec![],
        ca_bundle: String::new(),
        credential: None,
    }
}

/// Bytes that don't compress.
fn noise(size: usize) -> Vec<u8> {
    let mut state = 1u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        state.to_be_bytes()[0]
    };
    (0..size).map(|_| next()).collect()
}

fn blob(plain: &[u8]) -> (Vec<u8>, Wanted) {
    let blob = zstd::encode_all(plain, 3).unwrap();
    let wanted = Wanted {
        blob: Digest::of(&blob),
        blob_size: blob.len() as u64,
        plain: Digest::of(plain),
        plain_size: plain.len() as u64,
        name: "runsc".into(),
        mode: 0o755,
    };
    (blob, wanted)
}

#[tokio::test]
async fn a_blob_becomes_a_file() {
    let plain = noise(3 << 20);
    let (bytes, wanted) = blob(&plain);
    let server = server(vec![ok(&bytes)]).await;
    let node = Node::new();
    let mut registry = registry(&server.url);
    registry.credential = Some(Credential { username: "u".into(), secret: "p".into() });
    node.fetch(&registry, &wanted).await.unwrap();
    assert!(node.file().unwrap() == plain);
    assert_eq!(node.into.entry("runsc").unwrap(), Some(Entry::File { size: 3 << 20, mode: 0o755 }));
    assert_eq!(node.names(), (vec!["runsc".to_owned()], vec![]));
    assert_eq!(node.pulled.load(Ordering::Relaxed), bytes.len() as u64);
    let request = server.requests.lock().unwrap()[0].clone();
    assert!(request.starts_with(&format!("GET /v2/rootstock/gvisor/blobs/{} ", wanted.blob)));
    assert!(request.contains("authorization: Basic dTpw\r\n"), "{request}");
}

#[tokio::test]
async fn wrong_bytes_leave_nothing_and_say_why() {
    let plain = noise(2 << 20);
    let (bytes, wanted) = blob(&plain);
    let mut flipped = bytes.clone();
    flipped[bytes.len() / 2] ^= 1;
    let mut header = bytes.clone();
    header[0] ^= 1;
    let longer = [&*bytes, b"more"].concat();
    let unannounced = answer("200 OK", &longer);
    let mut bomb = wanted.clone();
    bomb.plain_size = 1 << 20;
    let mut other = wanted.clone();
    other.plain = Digest::of(b"other");
    let mut no_zstd = wanted.clone();
    (no_zstd.blob, no_zstd.blob_size) = (Digest::of(b"plain"), 5);
    let table = [
        (ok(&flipped), &wanted, Reason::DigestMismatch),
        (ok(&header), &wanted, Reason::DigestMismatch),
        (ok(&longer), &wanted, Reason::SizeExceeded),
        (unannounced, &wanted, Reason::SizeExceeded),
        (ok(&bytes), &bomb, Reason::SizeExceeded),
        (ok(&bytes), &other, Reason::DigestMismatch),
        (ok(b"plain"), &no_zstd, Reason::BundleInvalid),
        (ok(&bytes[..bytes.len() - 9]), &wanted, Reason::Truncated),
        (answer("404 Not Found", b""), &wanted, Reason::BundleNotFound),
        (answer("401 Unauthorized", b""), &wanted, Reason::RegistryUnauthorized),
        (answer("503 Busy", b""), &wanted, Reason::RegistryUnreachable),
        (answer("307 Elsewhere\r\nlocation: ftp://x/", b""), &wanted, Reason::RegistryUnreachable),
    ];
    for (answer, wanted, reason) in table {
        let node = Node::new();
        let server = server(vec![answer]).await;
        let error = node.fetch(&registry(&server.url), wanted).await.unwrap_err();
        assert_eq!(error.reason(), reason, "{error}");
        assert_eq!(node.into.names().unwrap(), Vec::<String>::new(), "{error}");
    }
}

#[tokio::test]
async fn a_cut_download_goes_on_where_it_ended() {
    let plain = noise(4 << 20);
    let (bytes, wanted) = blob(&plain);
    let at = bytes.len() / 3;
    let range = format!(
        "206 Partial\r\ncontent-length: {}\r\ncontent-range: bytes {at}-{}/{}",
        bytes.len() - at,
        bytes.len() - 1,
        bytes.len()
    );
    let cut = answer(&format!("200 OK\r\ncontent-length: {}", bytes.len()), &bytes[..at]);
    let server = server(vec![cut, answer(&range, &bytes[at..])]).await;
    let node = Node::new();
    node.fetch(&registry(&server.url), &wanted).await.unwrap();
    assert!(node.file().unwrap() == plain);
    assert_eq!(node.pulled.load(Ordering::Relaxed), bytes.len() as u64);
    let request = server.requests.lock().unwrap()[1].clone();
    assert!(request.contains(&format!("range: bytes={at}-\r\n")), "{request}");
}

#[tokio::test]
async fn what_came_before_a_stop_is_not_fetched_again() {
    let plain = noise(4 << 20);
    let (bytes, wanted) = blob(&plain);
    let at = bytes.len() / 2;
    let node = Node::new();
    // A clean end, too early; then the process ends, too.
    let first = server(vec![ok(&bytes[..at])]).await;
    node.fetch(&registry(&first.url), &wanted).await.unwrap_err();
    assert_eq!(node.names().1, [wanted.blob.hex()]);
    assert_eq!(node.resumed.load(Ordering::Relaxed), 0);
    // This one ignores the range: what is here already is passed over.
    let second = server(vec![ok(&bytes)]).await;
    node.fetch(&registry(&second.url), &wanted).await.unwrap();
    assert!(second.requests.lock().unwrap()[0].contains(&format!("range: bytes={at}-\r\n")));
    assert_eq!(node.resumed.load(Ordering::Relaxed), at as u64);
    assert!(node.file().unwrap() == plain);
    assert_eq!(node.names(), (vec!["runsc".to_owned()], vec![]));
}

#[tokio::test]
async fn bytes_from_earlier_that_are_wrong_blame_nobody() {
    let plain = noise(4 << 20);
    let (bytes, wanted) = blob(&plain);
    let at = bytes.len() / 2;
    let node = Node::new();
    // The power went before they were on disk: the right length, and nothing in it.
    node.partial.replace(&wanted.blob.hex(), &vec![0; at], 0o600).unwrap();
    let rest = format!("206 Partial\r\ncontent-range: bytes {at}-{}/*", bytes.len() - 1);
    let server = server(vec![answer(&rest, &bytes[at..]), ok(&bytes)]).await;
    node.fetch(&registry(&server.url), &wanted).await.unwrap();
    assert!(node.file().unwrap() == plain);
    assert!(!server.requests.lock().unwrap()[1].contains("range"));
}

#[tokio::test]
async fn two_downloads_of_one_blob_do_not_mix_what_they_keep() {
    let plain = noise(4 << 20);
    let (bytes, wanted) = blob(&plain);
    let (one, two) = (server(vec![ok(&bytes)]).await, server(vec![ok(&bytes)]).await);
    let node = Node::new();
    let mut other = wanted.clone();
    other.name = "other".to_owned();
    let (one, two) = (registry(&one.url), registry(&two.url));
    let (first, second) = tokio::join!(node.fetch(&one, &wanted), node.fetch(&two, &other));
    first.unwrap();
    second.unwrap();
    assert_eq!(node.names(), (vec!["other".to_owned(), "runsc".to_owned()], vec![]));
}

#[tokio::test]
async fn what_a_dropped_download_still_writes_can_be_waited_for() {
    let (bytes, wanted) = blob(&noise(4 << 20));
    let node = Node::new();
    // It announces everything and stops in the middle.
    let half = ok(&bytes);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let serve = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(&half[..half.len() / 2]).await.unwrap();
        std::future::pending::<()>().await;
    };
    let enough = async {
        while node.pulled.load(Ordering::Relaxed) < 1 << 20 {
            tokio::task::yield_now().await;
        }
    };
    let registry = registry(&url);
    tokio::select! {
        _ = node.fetch(&registry, &wanted) => panic!("it has no end"),
        () = serve => {}
        () = enough => {}
    }
    node.shared.quiet().await;
    let kept = node.partial.entry(&wanted.blob.hex()).unwrap();
    assert!(matches!(kept, Some(Entry::File { size, .. }) if size > 0), "{kept:?}");
    assert_eq!(node.into.names().unwrap(), Vec::<String>::new());
    assert!(node.shared.claim(wanted.blob).is_some());
}

#[tokio::test]
async fn mirrors_come_first_and_a_bad_one_spoils_nothing() {
    let (bytes, wanted) = blob(&noise(2 << 20));
    let mut flipped = bytes.clone();
    flipped[40] ^= 1;
    let bad = server(vec![ok(&flipped)]).await;
    let main = server(vec![ok(&bytes)]).await;
    let mut registry = registry(&main.url);
    // The first is down.
    registry.mirrors = vec!["http://127.0.0.1:1".into(), bad.url.clone()];
    registry.credential = Some(Credential { username: "u".into(), secret: "p".into() });
    let node = Node::new();
    node.fetch(&registry, &wanted).await.unwrap();
    assert_eq!(bad.requests.lock().unwrap().len(), 1);
    assert_eq!(main.requests.lock().unwrap().len(), 1);
    assert!(!bad.requests.lock().unwrap()[0].contains("authorization"), "it is not the registry");
    assert!(main.requests.lock().unwrap()[0].contains("authorization"));
}

#[tokio::test]
async fn what_a_redirect_was_signed_with_is_not_told() {
    let (_, wanted) = blob(b"small");
    let storage = server(vec![answer("403 Forbidden", b"")]).await;
    let to = format!("307 Temporary Redirect\r\nlocation: {}/bucket/x?sig=1", storage.url);
    let main = server(vec![answer(&to, b"")]).await;
    let error = Node::new().fetch(&registry(&main.url), &wanted).await.unwrap_err().to_string();
    assert!(error.contains("/bucket/x") && !error.contains("sig"), "{error}");
}

#[tokio::test]
async fn a_redirect_is_followed_without_the_credential() {
    let (bytes, wanted) = blob(b"small");
    let storage = server(vec![ok(&bytes)]).await;
    let to = format!("307 Temporary Redirect\r\nlocation: {}/bucket/x?sig=1", storage.url);
    let main = server(vec![answer(&to, b"")]).await;
    let mut registry = registry(&main.url);
    registry.credential = Some(Credential { username: String::new(), secret: "t".into() });
    let node = Node::new();
    node.fetch(&registry, &wanted).await.unwrap();
    assert!(main.requests.lock().unwrap()[0].contains("authorization: Bearer t\r\n"));
    let request = storage.requests.lock().unwrap()[0].clone();
    assert!(request.starts_with("GET /bucket/x?sig=1 ") && !request.contains("authorization"));
}

#[tokio::test]
async fn a_registry_that_is_down_or_has_no_ca_says_so() {
    let (_, wanted) = blob(b"small");
    let node = Node::new();
    let table = [
        ("http://127.0.0.1:1", Reason::RegistryUnreachable),
        ("ftp://127.0.0.1:1", Reason::ConfigurationInvalid),
        ("nonsense", Reason::ConfigurationInvalid),
    ];
    for (url, reason) in table {
        assert_eq!(node.fetch(&registry(url), &wanted).await.unwrap_err().reason(), reason);
    }
    let server = server(vec![]).await;
    let https = server.url.replace("http:", "https:");
    let error = node.fetch(&registry(&https), &wanted).await.unwrap_err();
    assert_eq!(error.reason(), Reason::ConfigurationInvalid, "{error}");
}
