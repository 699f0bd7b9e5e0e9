use std::num::NonZeroU32;
use std::sync::Arc;

use super::*;
use crate::bandwidth::message::{LIFETIME, STALE};
use crate::bandwidth::{Grant, Limit, Stamp};
use crate::digest::Digest;

const MB: u64 = 1_000_000;

fn mb(rate: u64) -> Rate {
    Rate::new(rate * MB)
}

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn budgets(seed: u64, node: u64) -> Budgets {
    Budgets { seed: Limit::At(mb(seed)), node: Limit::At(mb(node)), ..Budgets::default() }
}

/// `shoot/pool/node`.
fn puller(path: &str) -> Puller {
    let mut parts = path.split('/');
    let mut part = || parts.next().unwrap();
    let (shoot, pool, name) = (part(), part(), part());
    Puller { node: Node::new(shoot.parse().unwrap(), name.parse().unwrap()), pool: pool.into() }
}

fn request(id: u64, round: u64) -> Request {
    let (blob, source) = (Digest::from_bytes([1; 32]), Arc::from("main"));
    Request { id, round, blob, source, bytes: 1000 * MB, useful_rate: None, used: None }
}

/// An allocator, and short ways to tell it something.
struct Desk {
    allocator: Allocator,
    now: Duration,
}

impl Desk {
    /// One that has nothing to learn any more.
    fn new(budgets: Budgets) -> Self {
        let mut desk = Self { allocator: Allocator::new(budgets, Duration::ZERO), now: ms(0) };
        desk.step(Event::Expected(Vec::new()));
        desk
    }

    fn step(&mut self, event: Event) -> Vec<Grant> {
        let actions = self.allocator.step(event, self.now);
        self.allocator.audit();
        actions.into_iter().map(|Action::Grant { grant, .. }| grant).collect()
    }

    /// Node and rate, in MB/s, of what is granted.
    fn told(&mut self, event: Event) -> Vec<(String, u64)> {
        let actions = self.allocator.step(event, self.now);
        self.allocator.audit();
        let told = actions.iter().map(|Action::Grant { node, grant }| {
            (format!("{}/{}", node.shoot(), node.name()), grant.rate.get() / MB)
        });
        told.collect()
    }

    fn ask(&mut self, path: &str, request: Request) -> Vec<Grant> {
        self.step(asked(path, Class::Regular, request))
    }

    fn shrunk(&mut self, path: &str, id: u64, rate: Rate, stamp: Stamp) -> Vec<Grant> {
        self.step(shrunk(path, id, rate, stamp))
    }
}

fn asked(path: &str, class: Class, request: Request) -> Event {
    Event::Request { puller: puller(path), class, request }
}

fn shrunk(path: &str, id: u64, rate: Rate, stamp: Stamp) -> Event {
    Event::Shrunk { node: puller(path).node, shrunk: Shrunk { id, rate, stamp } }
}

fn done(path: &str, id: u64) -> Event {
    shrunk(path, id, Rate::ZERO, Stamp::LAST)
}

fn told(path: &str, rate: u64) -> Vec<(String, u64)> {
    vec![(path.to_owned(), rate)]
}

#[test]
fn few_pull_fast_and_the_others_wait_in_line() {
    let mut desk = Desk::new(budgets(70, 30));
    let mut rates = Vec::new();
    for node in ["a/p/n1", "a/p/n2", "a/p/n3", "a/p/n4", "a/p/n5"] {
        rates.extend(desk.told(asked(node, Class::Regular, request(1, 1))));
    }
    let granted = [("a/n1", 30), ("a/n2", 30), ("a/n3", 10)];
    assert_eq!(rates, granted.map(|(node, rate)| (node.to_owned(), rate)));
    // Who runs comes before who waits.
    let next = desk.told(done("a/p/n1", 1));
    assert_eq!(next, [told("a/n3", 30), told("a/n4", 10)].concat());
    let Usage { rate, pulls, waiting } = desk.allocator.usage();
    assert_eq!((rate, pulls, waiting), (mb(70), 3, 1));
}

#[test]
fn who_is_known_to_be_soon_done_lets_those_go_first_who_may_take_long() {
    let with = |useful| Request { useful_rate: useful, ..request(1, 1) };
    let mut desk = Desk::new(budgets(30, 30));
    let asks = [
        ("a/p/n1", None),
        ("a/p/fast1", Some(mb(30))),
        ("a/p/unknown", None),
        ("a/p/slow", Some(mb(29))),
        ("a/p/fast2", Some(mb(125))),
    ];
    for (node, useful) in asks {
        desk.ask(node, with(useful));
    }
    assert_eq!(desk.told(done("a/p/n1", 1)), told("a/unknown", 30));
    let next = desk.told(done("a/p/unknown", 1));
    assert_eq!(next, [told("a/slow", 29), told("a/fast1", 1)].concat());
    let next = desk.told(done("a/p/slow", 1));
    assert_eq!(next, told("a/fast1", 30));
    assert_eq!(desk.told(done("a/p/fast1", 1)), told("a/fast2", 30));
}

#[test]
fn who_lets_others_go_first_does_so_for_a_while() {
    let mut desk = Desk::new(budgets(30, 30));
    desk.ask("a/p/n", request(1, 1));
    desk.ask("a/p/fast", Request { useful_rate: Some(mb(30)), ..request(1, 1) });
    for later in 0..LETS_PASS + 1 {
        let event = asked(&format!("a/p/later{later}"), Class::Regular, request(1, 1));
        desk.allocator.step(event, desk.now);
    }
    let mut runs = "n".to_owned();
    let mut passed = 0;
    while runs != "fast" {
        let next = desk.allocator.step(done(&format!("a/p/{runs}"), 1), desk.now);
        let [Action::Grant { node, .. }] = &next[..] else { panic!("{next:?}") };
        runs = node.name().as_str().to_owned();
        passed += u64::from(runs != "fast");
    }
    assert_eq!(passed, LETS_PASS - 1);
}

#[test]
fn what_is_free_goes_to_the_shoot_and_the_pool_that_have_least() {
    let mut desk = Desk::new(budgets(90, 30));
    for node in ["a/p/n1", "a/p/n2", "a/p/n3", "a/p/n4", "a/q/n5", "b/p/n1", "b/p/n2"] {
        desk.ask(node, request(1, 1));
    }
    assert_eq!(desk.told(done("a/p/n1", 1)), told("b/n1", 30));
    // Both have the same now, and b was served last; in a it is q that has nothing.
    assert_eq!(desk.told(done("a/p/n2", 1)), told("a/n5", 30));
    assert_eq!(desk.told(done("a/p/n3", 1)), told("b/n2", 30));
    assert_eq!(desk.told(done("b/p/n1", 1)), told("a/n4", 30));
}

#[test]
fn many_slow_pulls_are_as_much_as_a_fast_one() {
    let budgets = Budgets { concurrent_pulls: NonZeroU32::new(4), ..budgets(100, 30) };
    let mut desk = Desk::new(budgets);
    let slow = Request { useful_rate: Some(Rate::new(1)), ..request(1, 1) };
    for node in ["a/p/n1", "a/p/n2", "a/p/n3", "a/p/n4", "a/p/n5"] {
        desk.ask(node, slow.clone());
    }
    assert_eq!(desk.told(asked("b/p/n1", Class::Regular, request(1, 1))), []);
    assert_eq!(desk.told(done("a/p/n1", 1)), told("b/n1", 30));
}

#[test]
fn canaries_come_first() {
    let mut desk = Desk::new(budgets(30, 30));
    for node in ["a/p/n1", "a/p/n2", "b/p/n1"] {
        desk.ask(node, request(1, 1));
    }
    assert_eq!(desk.told(asked("a/p/n9", Class::Canary, request(1, 1))), []);
    assert_eq!(desk.told(done("a/p/n1", 1)), told("a/n9", 30));
    // The same request becomes urgent while it waits.
    assert_eq!(desk.told(asked("a/p/n2", Class::Canary, request(1, 2))), []);
    assert_eq!(desk.told(done("a/p/n9", 1)), told("a/n2", 30));
}

#[test]
fn a_lowered_rate_is_free_when_its_agent_says_so_or_its_lease_ends() {
    let measured = |round, used| Request { used: Some(mb(used)), ..request(1, round) };
    for answered in [true, false] {
        let mut desk = Desk::new(budgets(30, 30));
        desk.ask("a/p/n1", request(1, 1));
        desk.ask("a/p/n2", request(1, 1));
        desk.now = ms(200);
        let trimmed = desk.ask("a/p/n1", measured(2, 10));
        let [Grant { rate, .. }] = trimmed[..] else { panic!("{trimmed:?}") };
        assert_eq!(rate, Rate::new(10_500_000));
        if answered {
            // An answer to what was before says nothing.
            let old = Stamp { round: 1, sequence: 0 };
            assert_eq!(desk.shrunk("a/p/n1", 1, Rate::ZERO, old), []);
            let given = desk.shrunk("a/p/n1", 1, rate, trimmed[0].stamp());
            assert_eq!(given[0].rate, Rate::new(19_500_000));
            continue;
        }
        let end = LIFETIME + LIFETIME / 50;
        assert_eq!(desk.allocator.due(), Some(end));
        desk.now = end - ms(1);
        assert_eq!(desk.step(Event::Tick), []);
        desk.now = end;
        assert_eq!(desk.step(Event::Tick)[0].rate, Rate::new(19_500_000));
    }
}

#[test]
fn a_lifetime_counts_what_the_request_has_waited() {
    let mut desk = Desk::new(budgets(40, 30));
    assert_eq!(desk.ask("a/p/n1", request(1, 1))[0].lifetime, LIFETIME);
    desk.now = ms(100);
    desk.ask("a/p/n2", request(1, 1));
    desk.now = ms(200);
    desk.ask("a/p/n3", request(1, 1));
    desk.now = ms(1200);
    let given = desk.step(done("a/p/n1", 1));
    // More of the same round, and no longer than before.
    assert_eq!((given[0].rate, given[0].round), (mb(30), 1));
    assert_eq!(given[0].lifetime, LIFETIME);
    assert_eq!((given[1].rate, given[1].lifetime), (mb(10), LIFETIME + ms(1000)));
    // The clocks may have differed while it waited, too.
    let margin = |lifetime: Duration| lifetime / 50;
    desk.now = ms(200 + 3500) + margin(ms(3500)) - ms(1);
    desk.step(Event::Tick);
    assert_eq!(desk.allocator.usage().pulls, 1);
    desk.now += ms(1);
    desk.step(Event::Tick);
    assert_eq!(desk.allocator.usage(), Usage::default());
    assert_eq!(desk.allocator.due(), None);
}

#[test]
fn a_renewal_of_what_has_waited_does_not_end_before_it() {
    let mut desk = Desk::new(budgets(40, 30));
    desk.ask("a/p/n1", request(1, 1));
    desk.ask("a/p/n2", request(1, 1));
    desk.ask("a/p/n3", request(1, 1));
    // The margin of its first lease is for two seconds more.
    desk.now = ms(2000);
    assert_eq!(desk.step(done("a/p/n1", 1)).len(), 2);
    desk.ask("a/p/n2", request(1, 2));
    desk.ask("a/p/n3", request(1, 2));
    desk.now = ms(4560);
    // There is more for the other one, in a round that is as good as over.
    desk.step(done("a/p/n2", 1));
    desk.now = ms(4590);
    desk.step(Event::Tick);
    assert_eq!(desk.allocator.usage(), Usage::default());
}

#[test]
fn who_does_not_ask_again_is_passed_over() {
    let mut desk = Desk::new(budgets(30, 30));
    for (node, round) in [("a/p/n1", 1), ("a/p/n2", 1), ("a/p/n3", 1)] {
        desk.ask(node, request(1, round));
    }
    desk.now = STALE + ms(1);
    // The first one's lease has ended meanwhile.
    assert_eq!(desk.told(asked("a/p/n3", Class::Regular, request(1, 2))), told("a/n3", 30));
    assert_eq!(desk.allocator.usage().waiting, 0);
}

#[test]
fn lowered_budgets_shrink_at_once_and_give_nothing_until_they_fit() {
    let mut desk = Desk::new(budgets(90, 30));
    let mut stamps = Vec::new();
    for node in ["a/p/n1", "a/p/n2", "a/p/n3", "a/p/n4"] {
        stamps.extend(desk.ask(node, request(1, 1)).iter().map(Grant::stamp));
    }
    let shrunk = desk.step(Event::Budgets(budgets(40, 30)));
    let rates: Vec<_> = shrunk.iter().map(|grant| (grant.rate, grant.sequence)).collect();
    assert_eq!(rates, [(mb(10), 4), (Rate::ZERO, 5)]);
    assert_eq!(desk.allocator.usage().rate, mb(90));
    // What is renewed is renewed as it was told last.
    desk.now = ms(100);
    assert_eq!(desk.ask("a/p/n1", request(1, 2))[0].rate, mb(30));
    assert_eq!(desk.ask("a/p/n2", request(1, 2))[0].rate, mb(10));
    assert_eq!(desk.ask("a/p/n3", request(1, 2))[0].rate, Rate::ZERO);
    assert_eq!(desk.shrunk("a/p/n2", 1, mb(10), shrunk[0].stamp()), []);
    assert_eq!(desk.allocator.usage().rate, mb(70));
    assert_eq!(desk.shrunk("a/p/n3", 1, Rate::ZERO, shrunk[1].stamp()), []);
    assert_eq!(desk.allocator.usage().rate, mb(40));
    // Raised again: more for who runs, then who waits, then who had to stop.
    let more = desk.told(Event::Budgets(budgets(100, 30)));
    assert_eq!(more, [told("a/n2", 30), told("a/n4", 30), told("a/n3", 10)].concat());
}

#[test]
fn fewer_pulls_at_a_time_end_the_youngest() {
    let mut desk = Desk::new(budgets(90, 30));
    for node in ["a/p/n1", "a/p/n2", "a/p/n3"] {
        desk.ask(node, request(1, 1));
    }
    let fewer = Budgets { concurrent_pulls: NonZeroU32::new(2), ..budgets(90, 30) };
    assert_eq!(desk.told(Event::Budgets(fewer)), told("a/n3", 0));
}

#[test]
fn a_new_leader_waits_for_what_it_does_not_know() {
    let learned = LIFETIME + (LIFETIME + STALE) / 50;
    let mut desk = Desk { allocator: Allocator::new(budgets(60, 30), ms(0)), now: ms(0) };
    let held = |id, rate| Held { id, rate: mb(rate), remaining: ms(2000) };
    let hello = |node: &str, held| Event::Connected { puller: puller(node), held };
    assert_eq!(desk.step(hello("a/p/n1", vec![held(7, 30)])), []);
    let over = Held { remaining: ms(0), ..held(1, 30) };
    assert_eq!(desk.step(hello("a/p/n2", vec![over])), []);
    assert_eq!(desk.allocator.usage().rate, mb(30));
    assert_eq!(desk.ask("a/p/n2", request(1, 1)), []);
    // What is held goes on, and gets no more.
    desk.now = ms(10);
    assert_eq!(desk.ask("a/p/n1", request(7, 5))[0].rate, mb(30));
    assert_eq!(desk.ask("a/p/n1", request(8, 1)), []);
    // It is told whom it has to expect, and the last of them comes.
    let nodes = ["a/p/n1", "a/p/n2", "a/p/n3"].map(|node| puller(node).node);
    assert_eq!(desk.step(Event::Expected(nodes.to_vec())), []);
    let mut waits = Desk { allocator: Allocator::new(budgets(60, 30), ms(0)), now: ms(0) };
    assert_eq!(desk.told(hello("a/p/n3", vec![held(1, 20)])), told("a/n2", 10));
    // Nobody has told it anything.
    assert_eq!(waits.ask("a/p/n2", request(1, 1)), []);
    assert_eq!(waits.allocator.due(), Some(learned));
    waits.now = learned - ms(1);
    assert_eq!(waits.step(Event::Tick), []);
    waits.now = learned;
    assert_eq!(waits.told(Event::Tick), told("a/n2", 30));
    // Nobody can hold anything of a leader before any more, also not at the very moment.
    let mut late = Desk { allocator: Allocator::new(budgets(60, 30), ms(0)), now: learned };
    late.step(hello("a/p/n3", vec![held(1, 30)]));
    assert_eq!(late.allocator.usage(), Usage::default());
    waits.step(hello("a/p/n3", vec![held(1, 30)]));
    assert_eq!(waits.allocator.usage().rate, mb(30));
}

#[test]
fn a_new_leader_without_budgets_waits_for_nothing_until_it_gets_some() {
    let mut desk = Desk { allocator: Allocator::new(Budgets::default(), ms(0)), now: ms(0) };
    assert_eq!(desk.ask("a/p/n1", request(1, 1))[0].rate, Rate::MAX);
    desk.step(shrunk("a/p/n1", 1, Rate::ZERO, Stamp::LAST));
    // What others hold of the leader before counts again.
    desk.step(Event::Budgets(budgets(60, 30)));
    assert_eq!(desk.ask("a/p/n1", request(2, 1)), []);
    desk.now = LIFETIME + (LIFETIME + STALE) / 50;
    assert_eq!(desk.step(Event::Tick)[0].rate, mb(30));
}

#[test]
fn what_a_new_leader_hears_of_is_renewed_within_its_own_budgets() {
    let held = |node: &str| Event::Connected {
        puller: puller(node),
        held: vec![Held { id: 1, rate: mb(30), remaining: ms(2000) }],
    };
    let pulls = NonZeroU32::new(2);
    for (budgets, rates) in [
        (budgets(40, 30), [0, 10, 30]),
        (Budgets { concurrent_pulls: pulls, ..budgets(90, 30) }, [0, 30, 30]),
    ] {
        let mut desk = Desk { allocator: Allocator::new(budgets, ms(0)), now: ms(0) };
        let nodes = ["a/p/n1", "a/p/n2", "a/p/n3"];
        for node in nodes {
            desk.step(held(node));
        }
        let renewed = nodes.map(|node| desk.ask(node, request(1, 2))[0].rate);
        assert_eq!(renewed, rates.map(mb));
        assert_eq!(desk.allocator.usage().rate, mb(90));
    }
}

#[test]
fn what_a_node_held_it_says_once() {
    let held = |node: &str| Event::Connected {
        puller: puller(node),
        held: vec![Held { id: 1, rate: mb(30), remaining: ms(800) }],
    };
    let mut desk = Desk { allocator: Allocator::new(budgets(30, 30), Duration::ZERO), now: ms(0) };
    desk.step(Event::Expected(vec![puller("a/p/n1").node]));
    desk.step(held("a/p/n1"));
    desk.ask("a/p/n2", request(1, 1));
    desk.now = ms(900);
    assert_eq!(desk.told(Event::Tick), told("a/n2", 30));
    // Its Hello comes once more, of a stream that is long over.
    desk.step(held("a/p/n1"));
    assert_eq!(desk.allocator.usage().rate, mb(30));
    assert_eq!(desk.told(asked("a/p/n1", Class::Regular, request(1, 2))), []);
    assert_eq!(desk.ask("a/p/n2", request(1, 2))[0].rate, mb(30));
}

#[test]
fn a_repeated_request_is_not_answered_again() {
    let mut desk = Desk::new(budgets(60, 30));
    assert_eq!(desk.ask("a/p/n1", request(1, 2)).len(), 1);
    desk.now = ms(100);
    for round in [2, 1, 0] {
        assert_eq!(desk.ask("a/p/n1", request(1, round)), []);
    }
    assert_eq!(desk.ask("a/p/n1", request(1, 3)).len(), 1);
}

#[test]
fn without_a_budget_there_is_no_limit_and_with_any_there_is() {
    let rate = |budgets| Desk::new(budgets).ask("a/p/n1", request(1, 1))[0].rate;
    let none = Budgets::default();
    assert_eq!(rate(none), Rate::MAX);
    let limit = Limit::At(mb(8));
    assert_eq!(rate(Budgets { node: limit, ..none }), mb(8));
    // A node that has no limit of its own begins with a quarter of another's.
    for budgets in [
        Budgets { seed: limit, ..none },
        Budgets { shoot: limit, ..none },
        Budgets { pool: limit, ..none },
    ] {
        assert_eq!(rate(budgets), mb(2));
    }
    let mut desk = Desk::new(none);
    for node in ["a/p/n1", "a/p/n2", "b/p/n1"] {
        assert_eq!(desk.ask(node, request(1, 1))[0].rate, Rate::MAX);
        let used = Request { used: Some(mb(5)), ..request(1, 2) };
        assert_eq!(desk.ask(node, used)[0].rate, Rate::MAX);
    }
    // All of them lose it when there is one.
    let told = desk.told(Event::Budgets(budgets(30, 10)));
    let rates: Vec<_> = told.into_iter().map(|(_, rate)| rate).collect();
    assert_eq!(rates, [10, 10, 10]);
}

#[test]
fn one_alone_gets_everything_by_doubling_and_gives_way_to_others() {
    let seed = Budgets { seed: Limit::At(mb(80)), ..Budgets::default() };
    let mut desk = Desk::new(seed);
    let mut rate = desk.ask("a/p/n1", request(1, 1))[0].rate;
    let mut rates = vec![rate.get() / MB];
    for round in 2..5 {
        let grants = desk.ask("a/p/n1", Request { used: Some(rate), ..request(1, round) });
        rate = grants.last().unwrap().rate;
        rates.push(rate.get() / MB);
    }
    assert_eq!(rates, [20, 40, 80, 80]);
    assert_eq!(desk.ask("b/p/n1", request(1, 1)), []);
    let grants = desk.ask("a/p/n1", Request { used: Some(rate), ..request(1, 5) });
    assert_eq!(grants[0].rate, mb(20));
    let given = desk.told(shrunk("a/p/n1", 1, mb(20), grants[0].stamp()));
    assert_eq!(given, told("b/n1", 20));
}

#[test]
fn a_hostile_node_harms_nobody() {
    let mut desk = Desk::new(budgets(60, 30));
    desk.now = ms(2950);
    let absurd = |id, round| Request {
        bytes: u64::MAX,
        useful_rate: Some(Rate::MAX),
        used: Some(Rate::MAX),
        ..request(id, round)
    };
    for id in (0..1000).chain(u64::MAX - 1000..=u64::MAX) {
        desk.ask("a/p/bad", absurd(id, u64::MAX - 1));
        desk.ask("a/p/bad", absurd(id, u64::MAX));
        desk.ask("a/p/bad", absurd(id, 0));
        desk.shrunk("a/p/bad", id, Rate::MAX, Stamp::LAST);
        desk.shrunk("a/p/good", id, Rate::ZERO, Stamp::LAST);
    }
    let held = (0..1000).map(|id| Held { id, rate: Rate::MAX, remaining: Duration::MAX });
    let held: Vec<_> = held.collect();
    desk.step(Event::Connected { puller: puller("a/p/bad"), held: held.clone() });
    let long = Request { source: "x".repeat(1000).into(), ..request(1, 1) };
    assert_eq!(desk.ask("b/p/bad", long), []);
    assert_eq!(desk.allocator.usage(), Usage { rate: mb(30), pulls: 1, waiting: 0 });
    assert_eq!(desk.told(asked("a/p/good", Class::Regular, request(1, 1))), told("a/good", 30));
    // Nor one that lies to a new leader, which waits for its lifetime and no longer.
    let mut desk = Desk { allocator: Allocator::new(budgets(60, 30), ms(0)), now: ms(0) };
    desk.step(Event::Connected { puller: puller("a/p/bad"), held });
    desk.ask("a/p/good", request(1, 1));
    desk.now = ms(2950);
    assert_eq!(desk.told(Event::Tick), told("a/good", 30));
}

/// Pulls that never end, of nodes that do not even answer.
#[test]
fn nobody_starves_behind_pulls_that_never_end() {
    let budgets = Budgets { concurrent_pulls: NonZeroU32::new(8), ..budgets(1000, 30) };
    let mut desk = Desk::new(budgets);
    let bad: Vec<_> = (0..24).map(|number| format!("a/p/bad-{number}")).collect();
    let good = ["a/p/good-1", "a/p/good-2"];
    let (mut round, mut begun) = (0, None);
    // 26 before or beside it, 8 at a time: four times 30 s and four lifetimes.
    while desk.now < Duration::from_secs(4 * 40) && begun.is_none() {
        round += 1;
        for node in bad.iter().map(String::as_str).chain(good) {
            let given = desk.ask(node, request(1, round));
            if node == good[1] && given.iter().any(|grant| grant.rate > Rate::ZERO) {
                begun = Some(desk.now);
            }
        }
        desk.now += ms(500);
        let given = desk.told(Event::Tick);
        if given.iter().any(|(node, rate)| node == "a/good-2" && *rate > 0) {
            begun = Some(desk.now);
        }
    }
    let begun = begun.expect("it begins");
    assert!(begun >= Duration::from_secs(30), "{begun:?}");
}

/// Also the cost: with work for all who wait in each step this would not end.
#[test]
fn ten_thousand_wait_and_are_served_in_the_order_of_coming() {
    let budgets = Budgets { concurrent_pulls: NonZeroU32::new(64), ..Budgets::default() };
    let mut allocator = Allocator::new(budgets, ms(0));
    allocator.step(Event::Expected(Vec::new()), ms(0));
    let nodes: Vec<_> = (0..10_000).map(|n| puller(&format!("a/p/n{n}"))).collect();
    let (mut given, mut running) = (Vec::new(), 0);
    let mut note = |actions: Vec<Action>| {
        given.extend(actions.into_iter().map(|Action::Grant { node, .. }| node));
    };
    for puller in &nodes {
        let class = Class::Regular;
        let event = Event::Request { puller: puller.clone(), class, request: request(1, 1) };
        note(allocator.step(event, ms(0)));
    }
    assert_eq!(allocator.usage().waiting, 10_000 - 64);
    while running < nodes.len() {
        let shrunk = Shrunk { id: 1, rate: Rate::ZERO, stamp: Stamp::LAST };
        let node = nodes[running].node.clone();
        note(allocator.step(Event::Shrunk { node, shrunk }, ms(1)));
        running += 1;
    }
    assert!(given.iter().eq(nodes.iter().map(|puller| &puller.node)));
    allocator.audit();
}
