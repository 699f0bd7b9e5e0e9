//! What the agent asks for bandwidth, and what it answers.

use rootstock_core::digest::Digest;
use rootstock_proto::v1::{self, node_message::Kind};

use super::controller::{Said, World};

/// A word that only carries whether the controller grants.
fn word() -> Said {
    Said::Retry(v1::Retry::default())
}

#[tokio::test]
async fn a_pull_is_asked_for_where_the_controller_grants() {
    let mut world = World::start().await;
    let pulls = world.files.pulls().clone();
    let blob = Digest::of(b"a blob");
    let pull = pulls.begin(blob, "https://registry:443", 9).await;
    world.controller.grants(true);
    world.controller.says(vec![word()]);
    let said = world.answer().await;
    let Kind::PullRequest(asked) = said else { panic!("{said:?}") };
    assert_eq!((asked.round, asked.bytes, &*asked.blob), (1, 9, &blob.as_bytes()[..]));
    assert_eq!(asked.source, "https://registry:443");
    assert!(!pull.may());
    // A grant of another pull is given back at once; one that can't be read ends nothing.
    drop(pull);
    let bad = v1::PullGrant { id: 1, ..v1::PullGrant::default() };
    let mut good = v1::PullGrant { blob: vec![7; 32], rate: 5, round: 1, ..bad.clone() };
    good.lifetime.get_or_insert_default().seconds = 2;
    world.controller.says(vec![word(), Said::PullGrant(bad), Said::PullGrant(good)]);
    let said = world.answer().await;
    let ended = v1::GrantShrunk { id: 1, rate: 0, round: u64::MAX, sequence: u64::MAX };
    assert_eq!(said, Kind::GrantShrunk(ended));
}

#[tokio::test]
async fn a_controller_that_grants_nothing_leaves_pulls_without_bounds() {
    let mut world = World::start().await;
    let pulls = world.files.pulls().clone();
    let pull = pulls.begin(Digest::of(b"a blob"), "https://registry:443", 9).await;
    world.controller.says(vec![word(), Said::Goodbye(v1::Goodbye::default())]);
    assert!(!pull.may());
    world.link.stream().await.unwrap();
    assert!(pull.may());
}

#[tokio::test]
async fn a_controller_that_says_nothing_at_all_grants_nothing() {
    let mut world = World::start().await;
    let pulls = world.files.pulls().clone();
    let pull = pulls.begin(Digest::of(b"a blob"), "https://registry:443", 9).await;
    world.controller.says(Vec::new());
    let World { link, heard, .. } = &mut world;
    let time = async {
        while !matches!(heard.recv().await, Some(Kind::Hello(_))) {}
        assert!(!pull.may());
        // From here on time passes where nobody has anything to do, and jumps
        // from timer to timer, also while a packet is under way.
        tokio::time::pause();
        let begun = tokio::time::Instant::now();
        pull.granted().await;
        assert!(begun.elapsed() >= std::time::Duration::from_secs(39), "{:?}", begun.elapsed());
    };
    tokio::select! {
        ended = link.stream() => panic!("{ended:?}"),
        () = time => {}
    }
}
