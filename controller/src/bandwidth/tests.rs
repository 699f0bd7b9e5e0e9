//! Streams that come and go, on one desk. What is granted is core's to test.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use rootstock_core::bandwidth::{
    Budgets, Grant, Held, Limit, Node, Puller, Rate, Request, Shrunk, Stamp,
};
use rootstock_core::digest::Digest;
use tokio::time::Instant;

use super::mailbox::{Mailbox, ROOM};
use super::{Bandwidth, Current, Line};

/// When a term has learnt, with room.
const LEARNT: Duration = Duration::from_secs(4);
const MIB: u64 = 1 << 20;

fn puller(node: &str) -> Puller {
    Puller { node: Node::new("one".parse().unwrap(), node.parse().unwrap()), pool: "a".into() }
}

fn request(id: u64, round: u64) -> Request {
    Request {
        id,
        round,
        blob: Digest::of(b"blob"),
        source: "registry.example".into(),
        bytes: 64 << 20,
        useful_rate: None,
        used: None,
    }
}

/// A seed's budget that one pull may have alone.
fn seed(rate: u64) -> Budgets {
    let limit = Limit::At(Rate::new(rate));
    Budgets { seed: limit, node: limit, ..Budgets::default() }
}

/// A term that has learnt what there was to learn.
async fn learnt(budgets: Budgets) -> Arc<Bandwidth> {
    let bandwidth = Arc::new(Bandwidth::new(budgets));
    tokio::time::advance(LEARNT).await;
    bandwidth.tick();
    bandwidth
}

fn connect(bandwidth: &Arc<Bandwidth>, node: &str) -> Line {
    bandwidth.connect(puller(node), Vec::new())
}

/// What waits on a line, if anything does.
fn waiting(line: &Line) -> Option<Grant> {
    let grant = std::pin::pin!(line.grant());
    match grant.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(grant) => Some(grant),
        Poll::Pending => None,
    }
}

#[tokio::test(start_paused = true)]
async fn a_new_term_grants_nothing_before_it_has_learnt() {
    let bandwidth = Arc::new(Bandwidth::new(seed(10 * MIB)));
    let mut line = connect(&bandwidth, "a");
    line.ask(|| puller("a"), request(1, 1));
    let (began, mut granted) = (Instant::now(), None);
    while granted.is_none() && began.elapsed() < LEARNT {
        let due = bandwidth.tick().expect("it learns until some moment");
        tokio::time::sleep_until(due).await;
        bandwidth.tick();
        granted = waiting(&line);
    }
    // The longest life of a lease of the leader before.
    assert!(began.elapsed() >= Duration::from_millis(2500), "{:?}", began.elapsed());
    assert_eq!(granted.unwrap().rate, Rate::new(10 * MIB));
}

#[tokio::test(start_paused = true)]
async fn what_a_hello_holds_counts_while_it_lasts() {
    let bandwidth = Arc::new(Bandwidth::new(seed(10 * MIB)));
    let lease = Held { id: 9, rate: Rate::new(8 * MIB), remaining: Duration::from_millis(2000) };
    let mut line = bandwidth.connect(puller("a"), vec![lease]);
    assert_eq!(serde_json::to_value(bandwidth.view()).unwrap()["granted"], "8MiB/s");
    // It ends before it was asked for on this stream.
    let ended = Shrunk { id: 9, rate: Rate::ZERO, stamp: Stamp::LAST };
    line.keep(|| puller("a"), ended);
    assert_eq!(serde_json::to_value(bandwidth.view()).unwrap()["granted"], "0B/s");
}

#[tokio::test(start_paused = true)]
async fn the_nodes_that_a_rollout_waits_for_come_first() {
    let one = "one".parse().unwrap();
    let bandwidth = learnt(seed(10 * MIB)).await;
    let [mut first, mut second, mut third] = ["a", "b", "c"].map(|node| connect(&bandwidth, node));
    first.ask(|| puller("a"), request(1, 1));
    let held = waiting(&first).unwrap();
    second.ask(|| puller("b"), request(1, 1));
    bandwidth.set_canaries(&one, ["c".parse().unwrap()].into());
    third.ask(|| puller("c"), request(1, 1));
    let ended = |round| Shrunk { id: 1, rate: Rate::ZERO, stamp: Stamp { round, ..Stamp::LAST } };
    first.keep(|| puller("a"), ended(held.round));
    assert!(waiting(&second).is_none() && waiting(&third).is_some());
    // It counts with the next request, in both directions.
    first.ask(|| puller("a"), request(2, 1));
    bandwidth.set_canaries(&one, ["a".parse().unwrap()].into());
    first.ask(|| puller("a"), request(2, 2));
    bandwidth.set_canaries(&one, [].into());
    assert!(bandwidth.desk().canaries.is_empty());
    third.keep(|| puller("c"), ended(u64::MAX));
    assert!(waiting(&second).is_none() && waiting(&first).is_some());
}

#[tokio::test(start_paused = true)]
async fn a_grant_goes_to_the_stream_that_asked_last() {
    let bandwidth = learnt(seed(10 * MIB)).await;
    let mut old = connect(&bandwidth, "a");
    old.ask(|| puller("a"), request(1, 1));
    assert_eq!(waiting(&old).unwrap().id, 1);

    let mut new = connect(&bandwidth, "a");
    new.ask(|| puller("a"), request(1, 2));
    assert_eq!((waiting(&new).unwrap().round, waiting(&old)), (2, None));
    // The end of the old stream is not the end of the node.
    drop(old);
    new.ask(|| puller("a"), request(1, 3));
    assert_eq!(waiting(&new).unwrap().round, 3);
    assert_eq!(bandwidth.desk().mailboxes.len(), 1);
    drop(new);
    assert!(bandwidth.desk().mailboxes.is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_idle_stream_is_two_pointers_and_not_known() {
    let bandwidth = learnt(Budgets::default()).await;
    let line = connect(&bandwidth, "a");
    assert_eq!(size_of_val(&line), 2 * size_of::<usize>());
    assert!(bandwidth.desk().mailboxes.is_empty());
}

#[tokio::test(start_paused = true)]
async fn who_waits_is_granted_what_a_dead_node_had() {
    let bandwidth = learnt(seed(10 * MIB)).await;
    let (mut dead, mut next) = (connect(&bandwidth, "a"), connect(&bandwidth, "b"));
    dead.ask(|| puller("a"), request(1, 1));
    next.ask(|| puller("b"), request(1, 1));
    drop(dead);
    // Nothing but time happens from here on.
    for _ in 0..4 {
        tokio::time::sleep_until(bandwidth.tick().expect("the lease ends")).await;
        bandwidth.tick();
        if let Some(grant) = waiting(&next) {
            assert_eq!(grant.rate, Rate::new(10 * MIB));
            return;
        }
    }
    panic!("nothing is granted");
}

#[tokio::test(start_paused = true)]
async fn a_step_that_is_due_sooner_is_noticed() {
    let bandwidth = learnt(seed(10 * MIB)).await;
    assert_eq!(bandwidth.tick(), None);
    let mut line = connect(&bandwidth, "a");
    line.ask(|| puller("a"), request(1, 1));
    bandwidth.sooner.notified().await;
    assert!(bandwidth.tick().is_some());
    // A renewal ends later, and wakes nobody.
    line.ask(|| puller("a"), request(1, 2));
    let notice = std::pin::pin!(bandwidth.sooner.notified());
    assert!(notice.poll(&mut Context::from_waker(Waker::noop())).is_pending());
}

#[tokio::test(start_paused = true)]
async fn the_page_shows_the_term_that_lasts() {
    let current = Current::default();
    assert_eq!(current.view(), None);
    let bandwidth = learnt(seed(10 * MIB)).await;
    current.begin(&bandwidth);
    let (mut one, mut two) = (connect(&bandwidth, "a"), connect(&bandwidth, "b"));
    one.ask(|| puller("a"), request(1, 1));
    two.ask(|| puller("b"), request(1, 1));
    let view = serde_json::to_value(current.view()).unwrap();
    let budgets = serde_json::json!({"seed": "10MiB/s", "node": "10MiB/s"});
    let want = serde_json::json!(
        {"budgets": budgets, "granted": "10MiB/s", "pulls": 1, "waiting": 1}
    );
    assert_eq!(view, want);
    drop((one, two, bandwidth));
    assert_eq!(current.view(), None);
}

fn grant(id: u64, sequence: u64) -> Grant {
    Grant {
        id,
        round: 1,
        sequence,
        blob: Digest::of(b"blob"),
        source: "registry.example".into(),
        rate: Rate::new(MIB),
        burst: MIB,
        lifetime: Duration::from_secs(2),
    }
}

/// What is taken out until nothing is left.
fn drain(mailbox: &Mailbox, cx: &Context<'_>) -> Vec<(u64, u64)> {
    let mut taken = Vec::new();
    while let Poll::Ready(grant) = mailbox.poll(cx) {
        taken.push((grant.id, grant.sequence));
    }
    taken
}

#[test]
fn a_mailbox_keeps_the_latest_of_each_pull_and_no_more_than_it_has_room_for() {
    let (mailbox, cx) = (Mailbox::default(), Context::from_waker(Waker::noop()));
    for sequence in 0..1000 {
        mailbox.put(grant(sequence % 2, sequence));
    }
    assert_eq!(drain(&mailbox, &cx), [(0, 998), (1, 999)]);
    for id in 0..1000 {
        mailbox.put(grant(id, id));
    }
    let last = (1000 - ROOM as u64)..1000;
    assert_eq!(drain(&mailbox, &cx), last.map(|id| (id, id)).collect::<Vec<_>>());
}

#[test]
fn who_waits_at_a_mailbox_is_woken_once() {
    #[derive(Default)]
    struct Count(AtomicUsize);
    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
    let (mailbox, count) = (Mailbox::default(), Arc::new(Count::default()));
    let waker = Waker::from(Arc::clone(&count));
    let cx = Context::from_waker(&waker);
    mailbox.put(grant(1, 1));
    assert_eq!(drain(&mailbox, &cx).len(), 1);
    mailbox.put(grant(1, 2));
    mailbox.put(grant(2, 3));
    assert_eq!(count.0.load(Ordering::Relaxed), 1);
    assert_eq!(drain(&mailbox, &cx).len(), 2);
}
