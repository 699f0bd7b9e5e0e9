//! Nodes ask for rates and are granted them, over the wire.

use std::time::Duration;

use rootstock_core::bandwidth::{Budgets, Limit, Rate};
use rootstock_core::desired::{DesiredContent, Generation};
use rootstock_core::digest::Digest;
use rootstock_proto::desired::content_hash;
use rootstock_proto::v1;
use rootstock_proto::v1::controller_message::Kind as Said;
use rootstock_proto::v1::node_message::Kind;

use super::clock::Clock;
use super::setup::{Seed, Stream, Told, hello};

const NODE: &str = "one/node-1";
const MIB: u64 = 1 << 20;
/// Longer than any lease of a leader before.
const LEARNT: u32 = 3;

/// Budgets of the seed and of each node. A node has a pull's whole rate then.
fn budgets(seed: u64, node: u64) -> Budgets {
    let [seed, node] = [seed, node].map(|rate| Limit::At(Rate::new(rate)));
    Budgets { seed, node, ..Budgets::default() }
}

fn ask(id: u64, round: u64) -> Kind {
    Kind::PullRequest(v1::PullRequest {
        id,
        round,
        blob: Digest::of(b"blob").as_bytes().to_vec(),
        source: "registry.example".into(),
        bytes: 64 * MIB,
        ..v1::PullRequest::default()
    })
}

/// The node keeps to what it was granted, or to less.
fn keep(grant: &v1::PullGrant, rate: u64) -> Kind {
    let &v1::PullGrant { id, round, sequence, .. } = grant;
    Kind::GrantShrunk(v1::GrantShrunk { id, rate, round, sequence })
}

/// A seed of these budgets, and a clock that stands still once its leader has learnt.
async fn seed_with(budgets: Budgets) -> (Seed, Clock) {
    let mut seed = Seed::start().await;
    seed.budget(budgets);
    seed.begin_term();
    let mut clock = Clock::stop();
    for _ in 0..LEARNT {
        clock.tick().await;
    }
    (seed, clock)
}

async fn connected(seed: &mut Seed, node: &str) -> Stream {
    let stream = seed.node(node).sync().await.unwrap();
    assert_eq!(seed.told().await, Told::Connected(format!("one/{node}"), Generation(7)));
    stream
}

async fn granted(stream: &mut Stream) -> v1::PullGrant {
    match stream.hear().await.unwrap() {
        Some(Said::PullGrant(grant)) => grant,
        other => panic!("{other:?}"),
    }
}

/// Whether nothing was said to the node, when all that is under way has arrived.
async fn is_told_nothing(stream: &mut Stream, clock: &mut Clock) -> bool {
    tokio::select! {
        biased;
        heard = stream.hear() => panic!("{heard:?}"),
        () = clock.settle() => true,
    }
}

#[tokio::test]
async fn the_first_message_says_that_this_controller_grants() {
    let mut seed = Seed::start().await;
    let mut stream = connected(&mut seed, "node-1").await;
    let first = stream.message().await.unwrap().unwrap();
    assert_eq!((first.grants, first.kind), (true, None));
    seed.directory.desire(NODE, 8);
    assert_eq!(stream.desired().await, 8);

    // Also where there is nothing to send, because the node has it.
    let content = content_hash(&DesiredContent::default()).as_bytes().to_vec();
    let first = v1::Hello { generation: 8, content_hash: content, ..hello() };
    let mut stream = seed.node("node-1").sync_with(Kind::Hello(first)).await.unwrap();
    assert_eq!(stream.message().await.unwrap().unwrap().kind, None);

    // A desired state says it as well.
    let mut stream = seed.node("node-1").sync().await.unwrap();
    assert!(stream.message().await.unwrap().unwrap().kind.is_some());
}

#[tokio::test]
async fn a_node_asks_and_is_granted() {
    let (mut seed, mut clock) = seed_with(budgets(10 * MIB, 4 * MIB)).await;
    let mut stream = connected(&mut seed, "node-1").await;
    // What can't be read is skipped, and harms nothing.
    stream.say(ask(1, 0)).await;
    stream.say(ask(1, 1)).await;
    let grant = granted(&mut stream).await;
    assert_eq!((grant.id, grant.round, grant.rate), (1, 1, 4 * MIB));
    assert_eq!(grant.blob, Digest::of(b"blob").as_bytes());
    assert_eq!(grant.source, "registry.example");
    assert!(grant.burst > 0 && grant.lifetime.unwrap().seconds == 2);

    clock.tick().await;
    stream.say(ask(1, 2)).await;
    let renewed = granted(&mut stream).await;
    assert_eq!((renewed.round, renewed.rate), (2, 4 * MIB));
    assert!(renewed.sequence > grant.sequence);
}

#[tokio::test]
async fn without_budgets_there_is_no_limit() {
    let (mut seed, _clock) = seed_with(Budgets::default()).await;
    let mut stream = connected(&mut seed, "node-1").await;
    stream.say(ask(1, 1)).await;
    assert_eq!(granted(&mut stream).await.rate, u64::MAX);
}

#[tokio::test]
async fn two_nodes_share_the_seeds_budget() {
    let (mut seed, mut clock) = seed_with(budgets(10 * MIB, 6 * MIB)).await;
    let mut one = connected(&mut seed, "node-1").await;
    let mut two = connected(&mut seed, "node-2").await;
    one.say(ask(1, 1)).await;
    let first = granted(&mut one).await;
    two.say(ask(1, 1)).await;
    let second = granted(&mut two).await;
    assert_eq!((first.rate, second.rate), (6 * MIB, 4 * MIB));

    // What the first gives back the second gets at once, without asking.
    one.say(keep(&first, 0)).await;
    assert_eq!(granted(&mut two).await.rate, 6 * MIB);
    assert!(is_told_nothing(&mut one, &mut clock).await);
}

#[tokio::test]
async fn what_a_dead_node_held_is_free_within_seconds() {
    let (mut seed, mut clock) = seed_with(budgets(10 * MIB, 10 * MIB)).await;
    let mut one = connected(&mut seed, "node-1").await;
    let mut two = connected(&mut seed, "node-2").await;
    one.say(ask(1, 1)).await;
    assert_eq!(granted(&mut one).await.rate, 10 * MIB);
    two.say(ask(1, 1)).await;
    drop(one);
    assert_eq!(seed.told().await, Told::Disconnected(NODE.into()));
    assert!(is_told_nothing(&mut two, &mut clock).await);
    let (grant, seconds) = clock.until(10, granted(&mut two)).await;
    assert_eq!(grant.rate, 10 * MIB);
    assert!((2..=3).contains(&seconds), "{seconds} s");
}

#[tokio::test]
async fn lowered_budgets_are_free_only_when_their_nodes_say_so() {
    let (mut seed, mut clock) = seed_with(budgets(10 * MIB, 10 * MIB)).await;
    let mut one = connected(&mut seed, "node-1").await;
    let mut two = connected(&mut seed, "node-2").await;
    one.say(ask(1, 1)).await;
    assert_eq!(granted(&mut one).await.rate, 10 * MIB);
    two.say(ask(1, 1)).await;
    assert!(is_told_nothing(&mut two, &mut clock).await);

    // Nobody asks anew: the budgets in the file have changed.
    seed.budget(budgets(10 * MIB, 4 * MIB));
    let lowered = granted(&mut one).await;
    assert_eq!(lowered.rate, 4 * MIB);
    assert!(is_told_nothing(&mut two, &mut clock).await);
    one.say(keep(&lowered, 4 * MIB)).await;
    assert_eq!(granted(&mut two).await.rate, 4 * MIB);

    // More is given when there is more.
    seed.budget(Budgets::default());
    clock.settle().await;
    for stream in [&mut one, &mut two] {
        stream.say(ask(1, 2)).await;
        while granted(stream).await.rate < u64::MAX {}
    }
}

#[tokio::test]
async fn a_new_term_grants_nothing_before_it_has_learnt() {
    let (mut seed, mut clock) = seed_with(budgets(10 * MIB, 10 * MIB)).await;
    let mut one = connected(&mut seed, "node-1").await;
    one.say(ask(1, 1)).await;
    assert_eq!(granted(&mut one).await.rate, 10 * MIB);
    // Nobody tells the new leader of it: the node stays away.
    seed.begin_term();
    let mut two = connected(&mut seed, "node-2").await;
    two.say(ask(1, 1)).await;
    let (grant, seconds) = clock.until(10, granted(&mut two)).await;
    assert_eq!(grant.rate, 10 * MIB);
    assert!((2..=3).contains(&seconds), "{seconds} s");
}

#[tokio::test]
async fn a_lease_that_a_hello_names_counts_in_the_new_term() {
    let (mut seed, mut clock) = seed_with(budgets(10 * MIB, 10 * MIB)).await;
    seed.begin_term();
    let remaining = Duration::from_secs(2).try_into().ok();
    let lease = v1::HeldGrant { id: 4, rate: 7 * MIB, remaining };
    let broken = v1::HeldGrant { remaining: None, ..lease };
    let first = v1::Hello { grants: vec![broken, lease], ..hello() };
    let mut one = seed.node("node-1").sync_with(Kind::Hello(first)).await.unwrap();
    assert!(matches!(seed.told().await, Told::Connected(..)));
    let view = serde_json::to_value(seed.directory.bandwidth.lock().unwrap().view()).unwrap();
    assert_eq!((&view["granted"], &view["pulls"]), (&"7MiB/s".into(), &1.into()));
    // It goes on with it.
    one.say(ask(4, 1)).await;
    let (grant, _) = clock.until(10, granted(&mut one)).await;
    assert_eq!((grant.id, grant.round), (4, 1));
}

#[tokio::test]
async fn a_thousand_requests_of_one_node_change_nothing_for_another() {
    let (mut seed, mut clock) = seed_with(budgets(10 * MIB, 4 * MIB)).await;
    let mut other = connected(&mut seed, "node-2").await;
    other.say(ask(1, 1)).await;
    assert_eq!(granted(&mut other).await.rate, 4 * MIB);
    let hostile = connected(&mut seed, "node-1").await;
    let mut said = 0;
    for second in 0..45 {
        // It reads nothing, and says what the server is willing to hear.
        loop {
            let before = said;
            while said < 1000 && hostile.try_say(ask(said, said + 1)) {
                said += 1;
            }
            clock.settle().await;
            if said == before {
                break;
            }
        }
        other.say(ask(1, second + 2)).await;
        let grant = granted(&mut other).await;
        assert_eq!((grant.round, grant.rate), (second + 2, 4 * MIB));
        clock.tick().await;
    }
    assert_eq!(said, 1000);
    let view = serde_json::to_value(seed.directory.bandwidth.lock().unwrap().view()).unwrap();
    assert!(view["pulls"].as_u64().unwrap() + view["waiting"].as_u64().unwrap() <= 1 + 8, "{view}");
}
