//! By what a controller grants.

use rootstock_core::bandwidth::{Grant, Rate, Request, Shrunk, Stamp};

use super::*;
use crate::pull::Word;

/// What the agent asks next.
async fn asked(pulls: &Pulls) -> Request {
    loop {
        tokio::time::timeout(Duration::from_secs(20), pulls.due()).await.expect("it asks");
        for word in pulls.says() {
            if let Word::Asks(request) = word {
                return request;
            }
        }
    }
}

fn granted(request: &Request, rate: Rate) -> Grant {
    Grant {
        id: request.id,
        round: request.round,
        sequence: request.round,
        blob: request.blob,
        source: Arc::clone(&request.source),
        rate,
        burst: u64::MAX,
        lifetime: Duration::from_secs(20),
    }
}

/// Lets the runtime's time go by, in which a connection is given up.
async fn half_a_minute() {
    tokio::time::pause();
    for _ in 0..30 {
        tokio::time::advance(Duration::from_secs(1)).await;
    }
    tokio::time::resume();
}

#[tokio::test]
async fn what_comes_once_more_is_asked_for_once_more() {
    let plain = noise(2 << 20);
    let (blob, wanted) = blob(&plain);
    let (size, half) = (blob.len() as u64, blob.len() / 2);
    // It ignores the range, and stops before the end.
    let head = format!("200 OK\r\ncontent-length: {size}");
    let server = server(vec![answer(&head, &blob[..half])]).await;
    let pulls = Pulls::granted();
    let node = Node { shared: Shared::new(pulls.clone()), ..Node::new() };
    node.partial.replace(&wanted.blob.hex(), &blob[..half], 0o600).unwrap();
    let (_stream, _) = pulls.connect();
    pulls.controller(true);
    let registry = registry(&server.url);
    let leader = async {
        let first = asked(&pulls).await;
        assert_eq!(first.bytes, size - half as u64);
        pulls.heard(&granted(&first, Rate::MAX));
        // The connection ends where the answer does: the same bytes are still
        // missing. Before that the lease may have been renewed for all of them.
        loop {
            let second = asked(&pulls).await;
            assert_eq!(second.id, first.id, "it goes on as the same pull");
            if second.bytes == size - half as u64 {
                return;
            }
        }
    };
    tokio::select! {
        _ = node.fetch(&registry, &wanted) => panic!("half of it is missing"),
        () = leader => {}
    }
    assert_eq!(node.pulled.load(Ordering::Relaxed), half as u64, "they are paid for");
}

#[tokio::test]
async fn a_blob_waits_for_its_grant_and_asks_for_what_is_missing() {
    let plain = noise(2 << 20);
    let (blob, wanted) = blob(&plain);
    let (size, half) = (blob.len(), blob.len() / 2);
    let head = format!(
        "206 Partial Content\r\ncontent-length: {}\r\ncontent-range: bytes {half}-{}/{size}",
        size - half,
        size - 1
    );
    let server = server(vec![answer(&head, &blob[half..])]).await;
    let pulls = Pulls::granted();
    let node = Node { shared: Shared::new(pulls.clone()), ..Node::new() };
    node.partial.replace(&wanted.blob.hex(), &blob[..half], 0o600).unwrap();
    let (_stream, _) = pulls.connect();
    pulls.controller(true);
    let registry = registry(&server.url);
    let fetch = node.fetch(&registry, &wanted);
    let grant = async {
        let request = asked(&pulls).await;
        assert_eq!((request.blob, request.bytes), (wanted.blob, (size - half) as u64));
        assert_eq!(*request.source, *server.url);
        assert!(node.waits.load(Ordering::Relaxed) > 0, "it says that it waits");
        assert!(server.requests.lock().unwrap().is_empty(), "nothing is asked of the registry");
        assert_eq!(pulls.heard(&granted(&request, Rate::new(100 << 20))), None);
        request.id
    };
    let (fetched, id) = tokio::join!(fetch, grant);
    fetched.unwrap();
    assert!(node.file().unwrap() == plain);
    assert_eq!(node.pulled.load(Ordering::Relaxed), (size - half) as u64);
    // The lease is given back, and is the last that is said of it.
    let ended = Shrunk { id, rate: Rate::ZERO, stamp: Stamp::LAST };
    assert!(pulls.says().contains(&Word::Shrunk(ended)));
}

/// Its lease ends and no other comes for so long that the connection is given
/// up; the line is waited in as the same pull all the same.
#[tokio::test]
async fn a_pull_that_loses_its_lease_keeps_its_place() {
    let plain = noise(300 << 10);
    let (blob, wanted) = blob(&plain);
    let server = server(vec![ok(&blob), ok(&blob)]).await;
    let pulls = Pulls::granted();
    let node = Node { shared: Shared::new(pulls.clone()), ..Node::new() };
    let (_stream, _) = pulls.connect();
    pulls.controller(true);
    let registry = registry(&server.url);
    let leader = async {
        let first = asked(&pulls).await;
        let lifetime = Duration::from_millis(300);
        // Enough for a part of it.
        pulls.heard(&Grant { lifetime, ..granted(&first, Rate::new(400 << 10)) });
        // Leases go by the machine's clock, which nobody can advance.
        tokio::time::sleep(2 * lifetime).await;
        half_a_minute().await;
        assert_eq!(node.waits.load(Ordering::Relaxed), 2, "it waits once more");
        let next = asked(&pulls).await;
        assert_eq!(next.id, first.id);
        pulls.heard(&granted(&next, Rate::MAX));
    };
    let (fetched, ()) = tokio::join!(node.fetch(&registry, &wanted), leader);
    fetched.unwrap();
    assert!(node.file().unwrap() == plain);
    assert_eq!(server.requests.lock().unwrap().len(), 2);
}

/// Else a node would have its first file when all nodes have their first one.
#[tokio::test]
async fn the_next_blob_goes_on_as_the_same_pull() {
    let [(first, one), (second, mut two)] = [1 << 10, 2 << 10].map(|size| blob(&noise(size)));
    two.name = "shim".into();
    let server = server(vec![ok(&first), ok(&second)]).await;
    let pulls = Pulls::granted();
    let node = Node { shared: Shared::new(pulls.clone()), ..Node::new() };
    let (_stream, _) = pulls.connect();
    pulls.controller(true);
    let registry = registry(&server.url);
    let mut fetcher = node.fetcher(&registry).unwrap();
    let grant = async {
        let request = asked(&pulls).await;
        pulls.heard(&granted(&request, Rate::MAX));
        request
    };
    let (fetched, request) = tokio::join!(node.fetch_by(&mut fetcher, &one), grant);
    fetched.unwrap();
    // Nothing is waited for, and what is pulled is said.
    fetcher.ends();
    let (fetched, next) = tokio::join!(node.fetch_by(&mut fetcher, &two), asked(&pulls));
    fetched.unwrap();
    assert_eq!(node.waits.load(Ordering::Relaxed), 1);
    assert_eq!((next.id, next.blob), (request.id, two.blob));
    // It was the last: nobody waits for what else is done with it.
    let ended = Shrunk { id: request.id, rate: Rate::ZERO, stamp: Stamp::LAST };
    assert!(pulls.says().contains(&Word::Shrunk(ended)));
}

/// What is not asked for is not granted: without more the node would wait for ever.
#[tokio::test]
async fn an_answer_that_does_not_end_holds_no_blob_up_that_is_there() {
    let plain = noise(300 << 10);
    let (blob, wanted) = blob(&plain);
    let size = format!("{:x}\r\n", blob.len());
    let body = [size.as_bytes(), &blob, b"\r\n"].concat();
    let answers = vec![answer("200 OK\r\ntransfer-encoding: chunked", &body)];
    let server = server_that(answers, false).await;
    let pulls = Pulls::granted();
    let node = Node { shared: Shared::new(pulls.clone()), ..Node::new() };
    let (_stream, _) = pulls.connect();
    pulls.controller(true);
    let registry = registry(&server.url);
    let leader = async {
        let first = asked(&pulls).await;
        let lifetime = Duration::from_secs(2);
        pulls.heard(&Grant { lifetime, ..granted(&first, Rate::MAX) });
        while node.pulled.load(Ordering::Relaxed) < blob.len() as u64 {
            tokio::task::yield_now().await;
        }
        // Leases go by the machine's clock, which nobody can advance.
        tokio::time::sleep(lifetime).await;
        half_a_minute().await;
    };
    let both = async { tokio::join!(node.fetch(&registry, &wanted), leader) };
    let (fetched, ()) = tokio::time::timeout(Duration::from_secs(60), both).await.expect("it ends");
    fetched.unwrap();
    assert!(node.file().unwrap() == plain);
}
