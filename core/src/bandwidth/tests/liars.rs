//! Nodes that say to a new leader that they hold more than anybody gave them.

use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use crate::bandwidth::{
    Action, Allocator, Budgets, Class, Event, Held, Limit, Node, Puller, Rate, Request,
};
use crate::digest::Digest;

const MB: u64 = 1_000_000;
const LIAR: &str = "bad/p/liar";
/// They hold all of the seed's budget, which is 80 MB/s.
const HONEST: [&str; 4] = ["bad/p/n1", "bad/q/n2", "good/p/n3", "good/p/n4"];

fn limit(rate: u64) -> Limit {
    Limit::At(Rate::new(rate * MB))
}

fn puller(path: &str) -> Puller {
    let mut parts = path.split('/');
    let mut part = || parts.next().unwrap();
    let (shoot, pool, name) = (part(), part(), part());
    Puller { node: Node::new(shoot.parse().unwrap(), name.parse().unwrap()), pool: pool.into() }
}

/// What a node says that it holds, in leases of this rate.
fn hello(path: &str, rates: &[Rate]) -> Event {
    let held = (1..).zip(rates).map(|(id, rate)| Held { id, rate: *rate, remaining: LONG });
    Event::Connected { puller: puller(path), held: held.collect() }
}

const LONG: Duration = Duration::from_secs(2);

/// What a node gets that goes on with a lease, in bytes per second.
fn renewed(leader: &mut Allocator, path: &str, id: u64, now: Duration) -> u64 {
    let (blob, source) = (Digest::from_bytes([1; 32]), Arc::from("main"));
    let request =
        Request { id, round: 2, blob, source, bytes: 1000 * MB, useful_rate: None, used: None };
    let puller = puller(path);
    let actions = leader.step(Event::Request { puller, class: Class::Regular, request }, now);
    leader.audit();
    let [Action::Grant { grant, .. }] = &actions[..] else { panic!("{path}: {actions:?}") };
    grant.rate.get()
}

/// Budgets, and what one node of `bad` may have by them below the seed.
fn budgets() -> [(Budgets, u64); 5] {
    let seed = Budgets { seed: limit(80), ..Budgets::default() };
    [
        (Budgets { node: limit(30), ..seed }, 30),
        // Lower than what its two pulls would get by their node's.
        (Budgets { node: limit(30), pool: limit(25), ..seed }, 25),
        (Budgets { node: limit(100), shoot: limit(60), ..seed }, 60),
        // A quarter of the lowest for each of two.
        (seed, 40),
        (Budgets { shoot: limit(40), ..seed }, 20),
    ]
}

proptest! {
    #[test]
    fn a_lie_takes_no_more_from_others_than_its_node_may_have(
        lie in prop::collection::vec(
            prop_oneof![Just(u64::MAX), 1..100 * MB].prop_map(Rate::new), 1..12),
        order in Just([LIAR, HONEST[0], HONEST[1], HONEST[2], HONEST[3]]).prop_shuffle(),
        renewals in Just(HONEST).prop_shuffle(),
        liar_first: bool,
        budgets in prop::sample::select(budgets().to_vec()),
    ) {
        let (budgets, own) = budgets;
        let now = Duration::from_millis(100);
        let begin = |nodes: &[&str]| {
            let mut leader = Allocator::new(budgets, Duration::ZERO);
            for path in nodes {
                let honest = [Rate::new(20 * MB)];
                leader.step(hello(path, if *path == LIAR { &lie } else { &honest }), now);
                leader.audit();
            }
            leader
        };
        let renew_honest = |leader: &mut Allocator| -> u64 {
            renewals.into_iter().map(|path| renewed(leader, path, 1, now)).sum()
        };
        let without = renew_honest(&mut begin(&HONEST));
        let mut leader = begin(&order);
        // Whatever it lies about may be so: it counts until it must have ended.
        let most = lie.iter().take(8).map(|rate| u128::from(rate.get())).sum::<u128>();
        prop_assert_eq!(leader.counted().0, most + u128::from(80 * MB));
        let renew_lies = |leader: &mut Allocator| -> u64 {
            (1..).zip(lie.iter().take(8)).map(|(id, _)| renewed(leader, LIAR, id, now)).sum()
        };
        let mut lies = if liar_first { renew_lies(&mut leader) } else { 0 };
        let honest = renew_honest(&mut leader);
        lies += if liar_first { 0 } else { renew_lies(&mut leader) };
        prop_assert!(lies <= own * MB, "{lies} B/s of {own} MB/s");
        // Less than is worth a pull may be lost by each rounding.
        let lost = without.saturating_sub(honest);
        prop_assert!(lost <= own * MB + (64 << 10), "{lost} B/s of {own} MB/s");
        prop_assert!(lies + honest <= 80 * MB);
    }
}

/// The limits of the pool and the shoot hold all of their liars together.
#[test]
fn liars_together_take_no_more_than_their_shoot_may_have() {
    let budgets =
        Budgets { seed: limit(80), shoot: limit(40), node: limit(20), ..Budgets::default() };
    let now = Duration::from_millis(100);
    let mut leader = Allocator::new(budgets, Duration::ZERO);
    for path in ["good/p/n3", "good/p/n4"] {
        leader.step(hello(path, &[Rate::new(20 * MB)]), now);
    }
    for liar in 0..50 {
        leader.step(hello(&format!("bad/p/n{liar}"), &[Rate::MAX; 8]), now);
        leader.audit();
    }
    let honest = ["good/p/n3", "good/p/n4"].map(|path| renewed(&mut leader, path, 1, now));
    assert_eq!(honest, [20 * MB; 2]);
}
