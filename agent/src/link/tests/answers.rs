//! What the agent makes of messages that its controller should not send.

use std::time::Duration;

use rootstock_core::bundle::ConfigBlob;
use rootstock_core::desired::{Desired, DesiredBundle, DesiredContent, Generation, Registry};
use rootstock_core::digest::Digest;
use rootstock_daemon::Shutdown;
use rootstock_proto::MAX_CONTROLLER_MESSAGE;
use rootstock_proto::v1::{self, node_message::Kind};
use tonic::Code;

use super::super::session::SessionError;
use super::super::{Ended, LinkError};
use super::controller::{Said, World};

const CONFIG: &str = r#"{"type":"gvisor","version":"1",
    "files":[{"path":"shim","mode":"0755","size":1,
      "sha256":"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
      "blob":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","blobSize":1}],
    "entryPoints":["shim"],
    "handlers":[{"name":"h","runtimeType":"io.containerd.h.v1","shim":"shim"}]}"#;

fn desired(generation: u64) -> v1::Desired {
    let bundle = DesiredBundle {
        digest: Digest::of(b"a manifest"),
        binary_path: "/var/bin/containerruntimes".parse().unwrap(),
        registry: "main".into(),
        repository: "rootstock/gvisor".into(),
        config: ConfigBlob::parse(CONFIG.as_bytes()).unwrap(),
        settings: serde_json::Map::new(),
    };
    let registry = Registry {
        name: "main".into(),
        url: "http://127.0.0.1:9".into(),
        mirrors: Vec::new(),
        ca_bundle: String::new(),
        credential: None,
    };
    let content =
        DesiredContent { bundles: vec![bundle], registries: vec![registry], ..Default::default() };
    v1::Desired::from(&Desired { generation: Generation(generation), content })
}

fn goodbye() -> Said {
    Said::Goodbye(v1::Goodbye::default())
}

/// The whole is refused with a reason, and the ledger stays as it is.
#[tokio::test]
async fn a_desired_state_that_can_t_be_is_refused() {
    type Change = fn(&mut v1::Desired);
    fn config(wire: &mut v1::Desired, from: &str, to: &str) {
        wire.bundles[0].config = CONFIG.replace(from, to).into_bytes();
    }
    let table: [(&str, Change, &str); 10] = [
        (
            "a file that escapes",
            |w| config(w, r#""path":"shim""#, r#""path":"../shim""#),
            "PathRefused",
        ),
        ("an absolute file", |w| config(w, r#""path":"shim""#, r#""path":"/shim""#), "PathRefused"),
        (
            "a folder that escapes",
            |w| w.bundles[0].binary_path = "/var/bin/../../etc".into(),
            "ConfigurationInvalid",
        ),
        ("no config", |w| w.bundles[0].config.clear(), "BundleInvalid"),
        (
            "the node's own runtime",
            |w| config(w, r#""name":"h""#, r#""name":"runc""#),
            "BundleInvalid",
        ),
        ("one type twice", |w| w.bundles.push(w.bundles[0].clone()), "ConfigurationInvalid"),
        ("too many types", |w| w.keep = vec!["kata".into(); 65], "ConfigurationInvalid"),
        ("a digest that is none", |w| w.bundles[0].digest.truncate(31), "ConfigurationInvalid"),
        (
            "settings that are no JSON",
            |w| {
                w.bundles[0].settings.insert("debug".into(), "{".into());
            },
            "ConfigurationInvalid",
        ),
        (
            "other content than its hash says",
            |w| w.bundles[0].repository = "evil".into(),
            "ConfigurationInvalid",
        ),
    ];
    let mut world = World::start().await;
    for (what, change, reason) in table {
        let mut wire = desired(7);
        change(&mut wire);
        world.controller.says(vec![Said::Desired(wire)]);
        let refusal = world.answer().await;
        let Kind::Refuse(refuse) = refusal else { panic!("{what}: {refusal:?}") };
        assert_eq!((refuse.generation, refuse.items.len()), (7, 1), "{what}");
        assert_eq!(refuse.items[0].reason, reason, "{what}: {refuse:?}");
        assert!(world.files.ledger.held().is_none(), "{what}");
    }
    world.controller.says(vec![Said::Desired(desired(7))]);
    assert_eq!(world.answer().await, Kind::Accept(v1::Accept { generation: 7 }));
    assert!(world.files.ledger.held().is_some());
}

#[tokio::test]
async fn a_message_that_is_too_large_ends_the_stream_and_nothing_else() {
    let mut world = World::start().await;
    let mut large = desired(7);
    large.registries[0].ca_bundle = "x".repeat(MAX_CONTROLLER_MESSAGE);
    world.controller.says(vec![Said::Desired(large)]);
    let error = world.link.stream().await.unwrap_err();
    let LinkError::Session(SessionError::Status(status)) = error else { panic!("{error:?}") };
    assert_eq!(status.code(), Code::OutOfRange, "{status}");
    assert!(world.files.ledger.held().is_none());
    world.controller.says(vec![goodbye()]);
    assert!(matches!(world.link.stream().await.unwrap(), Ended::Goodbye(_)));
}

#[tokio::test]
async fn a_goodbye_keeps_an_agent_away_for_five_minutes_at_most() {
    let mut world = World::start().await;
    let table = [
        (i64::MAX, i32::MAX, 300),
        (i64::MAX, 0, 300),
        (301, 0, 300),
        (299, 0, 299),
        (i64::MIN, i32::MIN, 0),
        (-1, 0, 0),
        (0, i32::MIN, 0),
    ];
    for (seconds, nanos, want) in table {
        let mut goodbye = v1::Goodbye { reason: "x".repeat(1 << 20), ..v1::Goodbye::default() };
        let after = goodbye.reconnect_after.get_or_insert_default();
        (after.seconds, after.nanos) = (seconds, nanos);
        world.controller.says(vec![Said::Goodbye(goodbye)]);
        let ended = world.link.stream().await.unwrap();
        let Ended::Goodbye(after) = ended else { panic!("{ended:?}") };
        assert_eq!(after, Duration::from_secs(want), "{seconds} s {nanos} ns");
    }
}

/// It answers what there is to answer, at the pace of its disk, and stops when it should.
#[tokio::test]
async fn endless_messages_do_not_keep_an_agent_from_stopping() {
    let retry = || Said::Retry(v1::Retry::default());
    let resync = || Said::Resync(v1::Resync::default());
    for says in [vec![retry(), resync()], vec![Said::Desired(desired(7)), retry()]] {
        let world = World::start().await;
        world.controller.says_for_ever(says.clone());
        let shutdown = Shutdown::new();
        let World { link, controller, .. } = world;
        let running = link.run(shutdown.clone());
        let stop = async {
            while controller.enrolled() == 0 {
                tokio::task::yield_now().await;
            }
            shutdown.begin();
        };
        let both = async { tokio::join!(running, stop).0 };
        tokio::time::timeout(Duration::from_secs(20), both).await.expect("it stops").unwrap();
    }
}
