//! Peers that open, reset and leave lying more than any agent would. They have
//! a node's certificate: who has none gets less.

use prost::Message as _;
use rootstock_core::desired::{Desired, Generation};
use rootstock_proto::v1;
use rootstock_proto::v1::node_message::Kind;
use tonic::Code;

use super::clock::Clock;
use super::frames::{
    CONTINUATION, DATA, END_HEADERS, ENHANCE_YOUR_CALM, GOAWAY, HEADERS, Peer, REFUSED_STREAM,
    RST_STREAM, frame, header, headers,
};
use super::setup::{Seed, Told, hello, soon};

const NODE: &str = "one/node-1";
const OTHER: &str = "one/node-2";

/// Another node is served: what it is to have arrives, and what it says too.
async fn others_are_served(seed: &mut Seed) {
    let mut other = seed.node("node-2").sync().await.unwrap();
    assert_eq!(seed.told().await, Told::Connected(OTHER.into(), Generation(7)));
    seed.directory.desire(OTHER, 8);
    assert_eq!(other.desired().await, 8);
    drop(other);
    assert_eq!(seed.told().await, Told::Disconnected(OTHER.into()));
}

#[tokio::test]
async fn a_ninth_stream_of_a_connection_is_refused() {
    let mut seed = Seed::start().await;
    let mut peer = Peer::of(&seed.node("node-1")).await;
    for n in 0..9 {
        peer.open(2 * n + 1).await;
    }
    let refused = peer.hear().await.unwrap();
    assert_eq!((refused.kind, refused.stream, refused.error()), (RST_STREAM, 17, REFUSED_STREAM));
    assert!(seed.told_nothing());
    others_are_served(&mut seed).await;
}

/// The burst ends the connection that it comes by, and nothing else.
async fn ends_with_a_word(seed: &mut Seed, peer: &mut Peer, burst: &[u8]) {
    peer.write(burst).await;
    let end = peer.hear_of(GOAWAY).await.expect("the connection ends with a word");
    assert_eq!(end.error(), ENHANCE_YOUR_CALM);
    assert!(seed.told_nothing());
    others_are_served(seed).await;
}

#[tokio::test]
async fn streams_that_are_opened_and_reset_end_the_connection() {
    let mut seed = Seed::start().await;
    let mut peer = Peer::of(&seed.node("node-1")).await;
    let (open, reset) = (headers(), 8u32.to_be_bytes());
    let mut burst = Vec::new();
    for stream in (1..=2_001).step_by(2) {
        burst.extend(frame(HEADERS, END_HEADERS, stream, &open));
        burst.extend(frame(RST_STREAM, 0, stream, &reset));
    }
    ends_with_a_word(&mut seed, &mut peer, &burst).await;
}

#[tokio::test]
async fn headers_that_never_end_end_the_connection() {
    let mut seed = Seed::start().await;
    let mut peer = Peer::of(&seed.node("node-1")).await;
    peer.send(HEADERS, 0, 1, &headers()).await;
    let more = header("x-more", &"x".repeat(100)).repeat(10);
    let mut burst = Vec::new();
    for _ in 0..1_000 {
        burst.extend(frame(CONTINUATION, 0, 1, &more));
    }
    ends_with_a_word(&mut seed, &mut peer, &burst).await;
}

#[tokio::test]
async fn a_node_that_does_not_read_is_owed_the_latest_state_alone() {
    const CHANGES: u64 = 40;
    let mut seed = Seed::start().await;
    let mut slow = Peer::of(&seed.node("node-1")).await;
    slow.open(1).await;
    slow.say(1, Kind::Hello(hello())).await;
    assert_eq!(seed.told().await, Told::Connected(NODE.into(), Generation(7)));
    let mut other = seed.node("node-2").sync().await.unwrap();
    assert_eq!(seed.told().await, Told::Connected(OTHER.into(), Generation(7)));
    for generation in 1..=CHANGES {
        // Far more than HTTP/2's window of 64 KiB.
        seed.directory.desire_of_size(NODE, generation, 1 << 20);
        seed.directory.desire(OTHER, generation);
        assert_eq!(other.desired().await, generation);
    }
    // It reads after all: what waited for it is the first state, one behind
    // that in the queue, and the latest.
    slow.allow(0, 1 << 30).await;
    slow.allow(1, 1 << 30).await;
    let (mut bytes, mut seen) = (Vec::new(), Vec::new());
    while seen.last() != Some(&CHANGES) {
        bytes.extend(slow.hear_of(DATA).await.unwrap().payload);
        while let Some((generation, size)) = desired(&bytes) {
            bytes.drain(..size);
            seen.extend(generation);
        }
    }
    assert!(seen.is_sorted() && seen.len() <= 4, "{seen:?}");
    drop(slow);
    assert_eq!(seed.told().await, Told::Disconnected(NODE.into()));
}

/// The generation in the first message, if that is complete and has one, and its size.
fn desired(bytes: &[u8]) -> Option<(Option<u64>, usize)> {
    let length = u32::from_be_bytes(bytes.get(1..5)?.try_into().unwrap());
    let size = 5 + usize::try_from(length).unwrap();
    let message = v1::ControllerMessage::decode(bytes.get(5..size)?).unwrap();
    let generation = message.kind.map(|kind| {
        let v1::controller_message::Kind::Desired(wire) = kind else { panic!("{kind:?}") };
        Desired::try_from(wire).unwrap().generation.0
    });
    Some((generation, size))
}

/// A peer that lets its connection lie, and one that stops in the middle of a
/// frame: neither answers when it is asked whether it lives.
#[tokio::test]
async fn who_stops_in_the_middle_loses_its_seat() {
    let mut clock = Clock::stop();
    for begun in [vec![], frame(DATA, 0, 1, &[0; 1024])[..100].to_vec()] {
        let mut seed = Seed::start().await;
        let mut peer = Peer::of(&seed.node("node-1")).await;
        peer.open(1).await;
        peer.say(1, Kind::Hello(hello())).await;
        assert_eq!(seed.told().await, Told::Connected(NODE.into(), Generation(7)));
        peer.write(&begun).await;
        let (told, seconds) = clock.until(60, seed.told_at_last()).await;
        assert_eq!(told, Told::Disconnected(NODE.into()));
        assert!(seconds <= 41, "{seconds} s");
        others_are_served(&mut seed).await;
    }
}

/// Its client answers whenever it is asked whether it lives, and has one thing to ask.
#[tokio::test]
async fn a_connection_without_a_certificate_has_two_minutes() {
    let seed = Seed::start().await;
    let mut clock = Clock::stop();
    let mut stranger = seed.agent("rs-one.test", &seed.one).enrollment().await;
    let mut node = seed.node("node-1").enrollment().await;
    let ask = v1::RenewRequest::default;
    for _ in 0..2 {
        let refused = stranger.renew(ask()).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unauthenticated, "{refused}");
        for _ in 0..60 {
            clock.tick().await;
        }
    }
    clock.tick().await;
    let gone = stranger.renew(ask()).await.unwrap_err();
    assert_eq!(gone.code(), Code::Unavailable, "{gone}");
    // One with a certificate stays.
    let refused = node.renew(ask()).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
}

/// Its nodes come and do not go, with certificates and without.
#[tokio::test]
async fn one_shoot_leaves_room_for_others() {
    let mut seed = Seed::start_with(3).await;
    let stranger = seed.agent("rs-one.test", &seed.one);
    let (one, two) = (seed.node("node-1"), seed.node("node-2"));
    let stream = one.sync().await.unwrap();
    assert_eq!(seed.told().await, Told::Connected(NODE.into(), Generation(7)));
    let (_second, _third) = (stranger.tls().await.unwrap(), two.tls().await.unwrap());
    assert!(two.tls().await.is_err() && stranger.tls().await.is_err());
    let other = seed.agent("rs-two.test", &seed.two);
    let _others = (other.tls().await.unwrap(), other.tls().await.unwrap());
    // Who goes makes room.
    drop(stream);
    assert_eq!(seed.told().await, Told::Disconnected(NODE.into()));
    let again = async {
        while two.tls().await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    soon(again).await;
}

/// More than may shake hands at once, and none of them says a word: a node
/// waits until their time is over, and no longer.
#[tokio::test]
async fn silent_connections_hold_others_up_for_seconds() {
    let mut seed = Seed::start().await;
    let mut clock = Clock::stop();
    let mut silent = Vec::new();
    for _ in 0..300 {
        silent.push(seed.connect().await);
    }
    let node = seed.node("node-1");
    let (stream, seconds) = clock.until(30, node.sync()).await;
    assert_eq!(seconds, 10);
    assert_eq!(seed.told().await, Told::Connected(NODE.into(), Generation(7)));
    drop(stream);
}
