//! Calls that no agent makes: headers, encodings and messages that the server
//! does not take. Each ends its own call, at once, and reaches nobody.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use prost::Message as _;
use rootstock_core::desired::Generation;
use rootstock_proto::v1::{self, node_message::Kind};
use tokio_stream::{Stream, StreamExt as _, iter, pending};
use tonic::codegen::Service as _;
use tonic::codegen::http::{Request, Response};
use tonic::{Code, Status};

use super::clock::Clock;
use super::setup::{Seed, Told, hello, soon};

type Answer = Response<tonic::body::Body>;

/// Calls `Fleet.Sync` as node-1 with these headers and bytes.
async fn sync(
    seed: &Seed,
    more: &[(&str, &str)],
    body: impl Stream<Item = Vec<u8>> + Send + 'static,
) -> Answer {
    let mut request = Request::post("http://rs-one.test/rootstock.v1.Fleet/Sync")
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    for (name, value) in more {
        request = request.header(*name, *value);
    }
    let body = Body::from_stream(body.map(|bytes| Ok::<_, Infallible>(Bytes::from(bytes))));
    let mut channel = seed.node("node-1").channel().await;
    std::future::poll_fn(|cx| channel.poll_ready(cx)).await.unwrap();
    soon(channel.call(request.body(tonic::body::Body::new(body)).unwrap())).await.unwrap()
}

/// A message as it goes over the wire, said to have this length.
fn message(compressed: bool, length: u32, bytes: &[u8]) -> Vec<u8> {
    [&[u8::from(compressed)], length.to_be_bytes().as_slice(), bytes].concat()
}

fn code(answer: &Answer) -> (Code, String) {
    let status = Status::from_header_map(answer.headers()).expect("it is refused");
    (status.code(), status.message().to_owned())
}

#[tokio::test]
async fn headers_of_more_than_8_kib_are_refused() {
    let mut seed = Seed::start().await;
    let answer = sync(&seed, &[("x-large", &"x".repeat(9 * 1024))], pending()).await;
    assert_eq!(answer.status(), 431);
    // What one header may not have, many may not either.
    let names: Vec<String> = (0..200).map(|n| format!("x-{n}")).collect();
    let many: Vec<_> = names.iter().map(|name| (name.as_str(), "0123456789")).collect();
    assert_eq!(sync(&seed, &many, pending()).await.status(), 431);
    assert!(seed.told_nothing());
}

#[tokio::test]
async fn a_message_that_promises_gigabytes_is_refused_by_its_promise() {
    let mut seed = Seed::start().await;
    // Nothing follows the promise: nobody waits for it, or makes room for it.
    for promised in [u32::MAX, 256 * 1024 + 1] {
        let promise = iter([message(false, promised, b"")]).chain(pending());
        let (code, text) = code(&sync(&seed, &[], promise).await);
        assert_eq!(code, Code::OutOfRange, "{text}");
    }
    assert!(seed.told_nothing());
}

#[tokio::test]
async fn compressed_messages_are_not_unpacked() {
    let mut seed = Seed::start().await;
    // 1 KiB that would become 1 MiB, of any kind.
    let bomb = message(true, 1024, &[0; 1024]);
    for encoding in ["gzip", "deflate", "zstd"] {
        let answer = sync(&seed, &[("grpc-encoding", encoding)], iter([bomb.clone()])).await;
        let (code, text) = code(&answer);
        assert_eq!(code, Code::Unimplemented, "{encoding}: {text}");
    }
    // Compressed without a word of how.
    for more in [&[][..], &[("grpc-encoding", "identity")]] {
        let (code, text) = code(&sync(&seed, more, iter([bomb.clone()])).await);
        assert_eq!(code, Code::Internal, "{text}");
    }
    assert!(seed.told_nothing());
}

#[tokio::test]
async fn who_does_not_say_hello_in_time_is_cut_off() {
    let mut seed = Seed::start().await;
    let hello = v1::NodeMessage { kind: Some(Kind::Hello(hello())) }.encode_to_vec();
    let hello = message(false, u32::try_from(hello.len()).unwrap(), &hello);
    let mut clock = Clock::stop();
    let (silent, seconds) = clock.until(30, sync(&seed, &[], pending())).await;
    assert_eq!(seconds, 10);
    let drip = iter(hello).then(|byte| async move {
        tokio::time::sleep(Duration::from_secs(1)).await;
        vec![byte]
    });
    let (dripping, seconds) = clock.until(30, sync(&seed, &[], drip)).await;
    assert_eq!(seconds, 10);
    for answer in [silent, dripping] {
        let (code, text) = code(&answer);
        assert_eq!((code, text.as_str()), (Code::DeadlineExceeded, "no Hello in time"));
    }
    assert!(seed.told_nothing());
}

/// What a node gets rid of is what the server is willing to read. While the
/// clock stands still that is a fixed number, and not what this machine can do.
#[tokio::test]
async fn a_node_that_floods_its_stream_is_read_at_its_pace_and_others_are_served() {
    const SIZE: usize = 16 * 1024;
    let mut seed = Seed::start().await;
    let flood = seed.node("node-1").sync().await.unwrap();
    let mut other = seed.node("node-2").sync().await.unwrap();
    for _ in 0..2 {
        assert!(matches!(seed.told().await, Told::Connected(..)));
    }
    let mut clock = Clock::stop();
    let step = v1::Step { text: "x".repeat(SIZE), ..v1::Step::default() };
    let steps = Kind::Steps(v1::Steps { steps: vec![step] });
    let (mut said, mut by_then) = (0, Vec::new());
    for second in 1..=5 {
        // As much as goes; then all that went has come as far as it will.
        loop {
            let before = said;
            while flood.try_say(steps.clone()) {
                said += 1;
            }
            clock.settle().await;
            if said == before {
                break;
            }
        }
        by_then.push(said);
        seed.directory.desire("one/node-2", second);
        assert_eq!(other.desired().await, second);
        other.say(Kind::Accept(v1::Accept { generation: second })).await;
        assert_eq!(seed.told().await, Told::Accepted("one/node-2".into(), Generation(second)));
        clock.tick().await;
    }
    // 200 at once, and what waits in the windows of HTTP/2 and the queues of the test.
    assert!((200..250).contains(&by_then[0]), "{by_then:?}");
    // Then 20 a second.
    assert!(by_then.windows(2).all(|pair| pair[1] - pair[0] <= 21), "{by_then:?}");
    assert!(by_then[4] >= by_then[0] + 75, "{by_then:?}");
}
