//! What happens on a stream.

use rootstock_core::desired::{DesiredContent, Generation};
use rootstock_core::digest::Digest;
use rootstock_core::status::{BundleReport, Phase, Reason};
use rootstock_proto::desired::content_hash;
use rootstock_proto::v1;
use rootstock_proto::v1::controller_message::Kind as Said;
use rootstock_proto::v1::node_message::Kind;
use tonic::Code;

use super::clock::Clock;
use super::setup::{Seed, Told, hello, soon};
use crate::content::Slot;
use crate::grpc::RefusedItem;

const NODE: &str = "one/node-1";

async fn connected(seed: &mut Seed) -> super::setup::Stream {
    let stream = seed.node("node-1").sync().await.unwrap();
    assert_eq!(seed.told().await, Told::Connected(NODE.into(), Generation(7)));
    stream
}

#[tokio::test]
async fn desired_goes_out_and_reports_come_in() {
    let mut seed = Seed::start().await;
    seed.directory.desire(NODE, 8);
    let mut stream = connected(&mut seed).await;
    assert_eq!(stream.desired().await, 8);
    stream.say(Kind::Accept(v1::Accept { generation: 8 })).await;
    assert_eq!(seed.told().await, Told::Accepted(NODE.into(), Generation(8)));

    let good = BundleReport::new("gvisor".parse().unwrap(), Phase::Pulling);
    let bad = v1::BundleReport { phase: "Dancing".into(), ..v1::BundleReport::from(&good) };
    let bundles = vec![bad, (&good).into()];
    stream.say(Kind::Report(v1::Report { bundles, generation: 8 })).await;
    assert_eq!(seed.told().await, Told::Reported(NODE.into(), Generation(8), vec![good]));

    seed.directory.desire(NODE, 9);
    assert_eq!(stream.desired().await, 9);
    let item = v1::RefusedItem {
        r#type: "kata".into(),
        reason: "PathRefused".into(),
        message: "x".repeat(5_000),
    };
    let bad = v1::RefusedItem { r#type: "../x".into(), ..item.clone() };
    stream.say(Kind::Refuse(v1::Refuse { generation: 9, items: vec![bad, item] })).await;
    let item = RefusedItem {
        runtime: Some("kata".parse().unwrap()),
        reason: Reason::PathRefused,
        message: "x".repeat(1024),
    };
    assert_eq!(seed.told().await, Told::Refused(NODE.into(), Generation(9), vec![item]));

    drop(stream);
    assert_eq!(seed.told().await, Told::Disconnected(NODE.into()));
}

#[tokio::test]
async fn the_latest_state_wins() {
    let mut seed = Seed::start().await;
    let mut stream = connected(&mut seed).await;
    for generation in 1..=1_000 {
        seed.directory.desire(NODE, generation);
    }
    let mut seen = vec![stream.desired().await];
    while seen.last() != Some(&1_000) {
        seen.push(stream.desired().await);
    }
    assert!(seen.is_sorted() && seen.len() < 1_000, "{} states", seen.len());
}

#[tokio::test]
async fn a_second_stream_of_a_node_replaces_the_first() {
    let mut seed = Seed::start().await;
    let mut first = connected(&mut seed).await;
    let mut second = connected(&mut seed).await;
    let status = first.hear().await.unwrap_err();
    assert_eq!((status.code(), status.message().contains("replaced")), (Code::Aborted, true));
    seed.directory.desire(NODE, 8);
    assert_eq!(second.desired().await, 8);
    // The end of the first is not the end of the node.
    drop(first);
    assert!(seed.told_nothing());
    drop(second);
    assert_eq!(seed.told().await, Told::Disconnected(NODE.into()));
}

#[tokio::test]
async fn nodes_do_not_see_each_other() {
    let mut seed = Seed::start().await;
    let mut one = connected(&mut seed).await;
    let two = seed.node("node-2").sync().await.unwrap();
    assert!(matches!(seed.told().await, Told::Connected(node, _) if node == "one/node-2"));
    two.say(Kind::Accept(v1::Accept { generation: 3 })).await;
    assert_eq!(seed.told().await, Told::Accepted("one/node-2".into(), Generation(3)));
    seed.directory.desire("one/node-2", 4);
    seed.directory.desire(NODE, 5);
    assert_eq!(one.desired().await, 5);
}

#[tokio::test]
async fn a_stream_that_begins_wrong_is_refused() {
    let mut seed = Seed::start().await;
    let node = seed.node("node-1");
    let newer = v1::ProtocolVersion { major: 2, minor: 0 };
    let table = [
        (Kind::Accept(v1::Accept { generation: 1 }), Code::InvalidArgument),
        (Kind::Hello(v1::Hello { protocol: Some(newer), ..hello() }), Code::FailedPrecondition),
        (Kind::Hello(v1::Hello { protocol: None, ..hello() }), Code::InvalidArgument),
        (Kind::Hello(v1::Hello { architecture: "z80".into(), ..hello() }), Code::InvalidArgument),
        (
            Kind::Hello(v1::Hello { agent_version: "x".repeat(300_000), ..hello() }),
            Code::OutOfRange,
        ),
    ];
    for (first, want) in table {
        let status = node.sync_with(first).await.err().unwrap();
        assert_eq!(status.code(), want, "{status}");
    }
    let status = seed.node("node-9").sync().await.err().unwrap();
    assert_eq!(status.code(), Code::PermissionDenied, "{status}");
    assert!(seed.told_nothing());
}

#[tokio::test]
async fn a_stream_that_goes_wrong_ends() {
    let mut seed = Seed::start().await;
    let many = vec![v1::BundleReport::default(); 65];
    let steps = v1::Step { text: "x".repeat(300_000), ..v1::Step::default() };
    let table = [
        (Kind::Hello(hello()), Code::InvalidArgument),
        (Kind::Report(v1::Report { bundles: many, generation: 1 }), Code::InvalidArgument),
        (Kind::Steps(v1::Steps { steps: vec![steps] }), Code::OutOfRange),
    ];
    for (message, want) in table {
        let mut stream = connected(&mut seed).await;
        stream.say(message).await;
        let status = stream.hear().await.unwrap_err();
        assert_eq!(status.code(), want, "{status}");
        assert_eq!(seed.told().await, Told::Disconnected(NODE.into()));
    }
}

#[tokio::test]
async fn a_node_that_is_forgotten_is_told_goodbye() {
    let mut seed = Seed::start().await;
    let mut stream = connected(&mut seed).await;
    seed.directory.forget(NODE);
    let Some(Said::Goodbye(goodbye)) = stream.hear().await.unwrap() else { panic!() };
    assert_eq!(goodbye.reconnect_after.unwrap().seconds, 30);
    assert!(stream.hear().await.unwrap().is_none());
    assert_eq!(seed.told().await, Told::Disconnected(NODE.into()));
}

#[tokio::test]
async fn what_a_node_holds_is_not_sent_again() {
    let mut seed = Seed::start().await;
    let content = content_hash(&DesiredContent::default());
    let table = [
        (5, Some(content), false),
        (4, Some(content), true),
        (5, Some(Digest::of(b"other")), true),
        (5, None, true),
    ];
    for (generation, content, sent) in table {
        seed.directory.desire(NODE, 5);
        let content_hash = content.map(|digest| digest.as_bytes().to_vec()).unwrap_or_default();
        let hello = v1::Hello { generation, content_hash, ..hello() };
        let mut stream = seed.node("node-1").sync_with(Kind::Hello(hello)).await.unwrap();
        assert!(matches!(seed.told().await, Told::Connected(..)));
        if !sent {
            // The server has looked at the first one when it answers this.
            stream.say(Kind::Accept(v1::Accept { generation: 5 })).await;
            assert!(matches!(seed.told().await, Told::Accepted(..)));
            seed.directory.desire(NODE, 6);
        }
        assert_eq!(stream.desired().await, if sent { 5 } else { 6 });
        drop(stream);
        assert!(matches!(seed.told().await, Told::Disconnected(..)));
    }
}

#[tokio::test]
async fn shutdown_says_goodbye_and_ends() {
    let mut seed = Seed::start().await;
    let mut stream = connected(&mut seed).await;
    seed.shutdown.cancel();
    let Some(Said::Goodbye(goodbye)) = stream.hear().await.unwrap() else { panic!() };
    assert!(goodbye.reason.contains("another controller"));
    assert!(stream.hear().await.unwrap().is_none());
    drop(stream);
    assert_eq!(seed.told().await, Told::Disconnected(NODE.into()));
    soon(seed.server.join_next()).await.unwrap().unwrap().unwrap();
}

/// A node that nothing runs on yet has a slot for as long as that stays so, and
/// is never told more than an hour of it: it must not run out meanwhile.
#[tokio::test]
async fn a_slot_without_an_end_is_said_anew_before_it_is_over() {
    let mut seed = Seed::start().await;
    seed.directory.desire(NODE, 8);
    seed.directory.give(NODE, Slot::JOINING);
    let mut stream = connected(&mut seed).await;
    assert_eq!(stream.desired().await, 8);
    let mut clock = Clock::stop();
    for after in [0_u32, 1800] {
        let (said, seconds) = clock.until(2000, stream.message_at_last()).await;
        let Some(Said::Slot(slot)) = said else { panic!("{said:?}") };
        assert_eq!((slot.generation, slot.activate_within.unwrap().seconds), (8, 3600));
        assert!(after.abs_diff(seconds) <= 1, "after {seconds} s and not {after} s");
    }
}
