//! What a registry may do wrong; each has its own word, and no byte of it is seen.

use super::*;

/// Fetches from a server with these answers, and looks that nothing is in place.
async fn refused(answers: Vec<Answer>, wanted: &Wanted, have: &[u8]) -> (FetchError, usize) {
    let node = Node::new();
    if !have.is_empty() {
        node.partial.replace(&wanted.blob.hex(), have, 0o600).unwrap();
    }
    let server = server(answers).await;
    let error = node.fetch(&registry(&server.url), wanted).await.unwrap_err();
    assert_eq!(node.into.names().unwrap(), Vec::<String>::new(), "{error}");
    let requests = server.requests.lock().unwrap().len();
    (error, requests)
}

#[tokio::test]
async fn a_redirect_to_itself_is_followed_three_times() {
    let (_, wanted) = blob(b"small");
    let around = answer("307 Temporary Redirect\r\nlocation: /v2/again", b"");
    let (error, requests) = refused(vec![around; 9], &wanted, b"").await;
    assert_eq!((error.reason(), requests), (Reason::RegistryUnreachable, 4), "{error}");
    assert!(error.to_string().contains("more than 3 redirects"), "{error}");
}

#[tokio::test]
async fn a_busy_registry_is_asked_again_when_it_says_so() {
    let (bytes, wanted) = blob(b"small");
    for status in ["429 Too Many Requests", "503 Busy"] {
        let busy = answer(&format!("{status}\r\nretry-after: 0"), b"");
        let server = server(vec![busy.clone(), busy, ok(&bytes)]).await;
        let node = Node::new();
        node.fetch(&registry(&server.url), &wanted).await.unwrap();
        assert_eq!(node.file().unwrap(), b"small");
    }
}

#[tokio::test]
async fn a_registry_that_stays_busy_is_given_up() {
    let (_, wanted) = blob(b"small");
    let table = [("\r\nretry-after: 0", 5), ("\r\nretry-after: 86400", 1), ("", 1)];
    for (header, asked) in table {
        let busy = answer(&format!("429 Too Many Requests{header}"), b"");
        let (error, requests) = refused(vec![busy; 9], &wanted, b"").await;
        assert_eq!((error.reason(), requests), (Reason::RegistryUnreachable, asked), "{header}");
        assert!(error.to_string().contains("429"), "{error}");
    }
}

#[test]
fn a_busy_registry_waits_as_long_as_it_says_within_bounds() {
    let seconds = Duration::from_secs;
    let status = |status, retry_after| FetchError::Status { url: "u".into(), status, retry_after };
    assert_eq!(status(429, Some(seconds(7))).wait(seconds(60)), Some(seconds(7)));
    assert_eq!(status(503, Some(seconds(60))).wait(seconds(60)), Some(seconds(60)));
    assert_eq!(status(429, Some(seconds(61))).wait(seconds(60)), None);
    assert_eq!(status(429, None).wait(seconds(60)), None);
    assert_eq!(status(404, Some(seconds(1))).wait(seconds(60)), None);
}

#[tokio::test]
async fn a_blob_that_ends_before_what_is_here_already_is_truncated() {
    let (bytes, wanted) = blob(&noise(2 << 20));
    let half = &bytes[..bytes.len() / 2];
    let answers = vec![answer("416 Range Not Satisfiable", b"")];
    let (error, _) = refused(answers, &wanted, half).await;
    assert_eq!(error.reason(), Reason::Truncated, "{error}");
}

#[tokio::test]
async fn an_answer_that_ends_early_each_time_is_truncated() {
    let (bytes, wanted) = blob(&noise(2 << 20));
    let half = &bytes[..bytes.len() / 2];
    let head = format!("200 OK\r\ncontent-length: {}", bytes.len());
    let ends = [answer(&head, half), answer(&head, b""), b"HTTP/1.1 200 O".to_vec(), vec![]];
    for cut in ends {
        let (error, requests) = refused(vec![cut; 9], &wanted, b"").await;
        assert_eq!((error.reason(), requests), (Reason::Truncated, 5), "{error}");
    }
}

#[tokio::test]
async fn a_length_that_changes_in_the_middle_is_seen() {
    let (bytes, wanted) = blob(&noise(2 << 20));
    let at = bytes.len() / 2;
    let cut = answer(&format!("200 OK\r\ncontent-length: {}", bytes.len()), &bytes[..at]);
    let part = |length: usize, body: &[u8]| {
        let range = format!("content-range: bytes {at}-{}/*", at + length - 1);
        answer(&format!("206 Partial\r\ncontent-length: {length}\r\n{range}"), body)
    };
    let left = bytes.len() - at;
    let table = [
        (part(left + 7, &bytes[at..]), Reason::SizeExceeded),
        (part(left - 7, &bytes[at..bytes.len() - 7]), Reason::Truncated),
    ];
    for (changed, reason) in table {
        let (error, _) = refused(vec![cut.clone(), changed], &wanted, b"").await;
        assert_eq!(error.reason(), reason, "{error}");
    }
}

#[tokio::test]
async fn a_length_beyond_all_numbers_is_too_much() {
    let (bytes, wanted) = blob(&noise(2 << 20));
    let half = &bytes[..bytes.len() / 2];
    // The longest that HTTP knows: with what is here already it is more than 64 bits hold.
    let (at, most) = (half.len(), u64::MAX - 2);
    let range = format!("content-range: bytes {at}-{most}/*");
    let part = answer(&format!("206 Partial\r\ncontent-length: {most}\r\n{range}"), b"x");
    let (error, _) = refused(vec![part; 9], &wanted, half).await;
    assert_eq!(error.reason(), Reason::SizeExceeded, "{error}");
}

#[tokio::test]
async fn a_mirror_that_falls_silent_leaves_the_rest_to_the_next_source() {
    let plain = noise(4 << 20);
    let (bytes, wanted) = blob(&plain);
    let at = bytes.len() / 2;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mirror = format!("http://{}", listener.local_addr().unwrap());
    let silent = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(&ok(&bytes)[..ok(&bytes).len() - bytes.len() + at]).await.unwrap();
        std::future::pending::<()>().await;
    };
    let range = format!("206 Partial\r\ncontent-range: bytes {at}-{}/*", bytes.len() - 1);
    let main = server(vec![answer(&range, &bytes[at..])]).await;
    let node = Node::new();
    let registry = Registry { mirrors: vec![mirror], ..registry(&main.url) };
    // No time passes by itself while the threads of the download wait.
    let time = async {
        while node.pulled.load(Ordering::Relaxed) < at as u64 {
            tokio::task::yield_now().await;
        }
        tokio::time::pause();
        tokio::time::advance(Duration::from_secs(31)).await;
        tokio::time::resume();
        std::future::pending::<()>().await;
    };
    tokio::select! {
        fetched = node.fetch(&registry, &wanted) => fetched.unwrap(),
        () = silent => {}
        () = time => {}
    }
    assert!(node.file().unwrap() == plain);
    assert_eq!(node.pulled.load(Ordering::Relaxed), bytes.len() as u64, "nothing comes twice");
    assert!(main.requests.lock().unwrap()[0].contains(&format!("range: bytes={at}-\r\n")));
}
