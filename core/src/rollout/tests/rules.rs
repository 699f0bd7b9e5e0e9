//! The rules that bend the straight way, one by one.

use serde_json::json;

use super::world::{AMD, Fate, World, digest, kind};
use crate::rollout::Give;
use crate::rollout::progress::Phase;
use crate::rollout::record::{Command, MAX_SLOTS, Why};
use crate::rollout::view::{Seed, Standing};
use crate::rollout::window::{Weekly, WindowChoice};
use crate::state::State;
use crate::status::{self, Reason};

#[test]
fn new_and_returning_nodes_get_the_promoted_digest() {
    let mut world = World::new(10);
    world.node(3).connected = false;
    let old = world.node(3).runtimes.get_mut(&kind("gvisor")).unwrap();
    (old.works, old.report) = (Some(digest("older")), None);
    world.run(5);
    let new = world.new_node("a");
    world.node(3).connected = true;
    world.run(2);
    assert!(matches!(world.phase(), Phase::Soaking { .. }));
    assert_eq!(world.with("new").len(), 1);
    assert!(world.with("old").contains(&new), "without a slot");
    assert!(!world.slots().contains(&world.nodes[&new].uid));
    world.run(4);
    assert!(world.with("old").contains(&3), "with one");
    assert_eq!(world.tried("old"), [new, 3]);
}

#[test]
fn where_nothing_is_promoted_new_nodes_get_the_seeds_bundle_or_else_the_candidate() {
    for (of_seed, want) in [(Some("seeds"), "seeds"), (None, "new")] {
        let mut world = World::new(0);
        world.states.insert("gvisor-a".to_owned(), State::default());
        let promoted = of_seed.map(|of| (AMD, digest(of))).into_iter().collect();
        let digests = [(digest("new"), Standing::Open)].into();
        world.gvisor().seed = Some(Seed { digests, promoted, unread: false });
        let node = world.new_node("a");
        world.run(3);
        assert_eq!(world.with(want), [node]);
    }
}

#[test]
fn enabling_a_type_on_a_pool_is_an_activation_like_any_other() {
    let mut world = World::new(0);
    world.states.insert("gvisor-a".to_owned(), State::default());
    for _ in 0..10 {
        world.old_node("a");
    }
    world.fates.insert(digest("new"), Fate::RollsBack);
    world.run(60);
    assert_eq!(world.phase(), Phase::Halted(Why::CanaryFailed));
    assert_eq!(world.tried("new").len(), 1);
    let joined = world.new_node("a");
    world.run(3);
    assert!(!world.tried("new").contains(&joined), "not what is known to break");
}

#[test]
fn the_first_bundle_is_promoted_at_once_when_every_node_came_with_it() {
    let mut world = World::new(0);
    world.states.insert("gvisor-a".to_owned(), State::default());
    world.pods = false;
    for _ in 0..3 {
        world.new_node("a");
    }
    world.run(4);
    world.nodes.values_mut().for_each(|node| node.joining = false);
    world.run(1);
    assert_eq!(world.phase(), Phase::Idle);
    assert_eq!(world.state().promoted[&AMD], digest("new"));
}

#[test]
fn an_empty_pool_promotes_nothing() {
    let mut world = World::new(0);
    world.run(100);
    assert_eq!((world.phase(), &world.state().promoted[&AMD]), (Phase::Idle, &digest("old")));
}

#[test]
fn leaving_nodes_get_no_slot_and_no_change_and_count_as_unavailable() {
    let mut world = World::new(10);
    world.node(4).leaving = true;
    world.run(60);
    assert!(world.tried("new").is_empty(), "one of ten is unavailable already");
    let at = world.nodes.keys().position(|number| *number == 4).unwrap();
    assert_eq!(world.last.nodes[at].runtimes[0].give, Give::Stay);
    assert_eq!(world.last.nodes[at].runtimes[0].prefetch, None);
    world.node(4).leaving = false;
    world.run(10);
    assert_eq!(world.tried("new").len(), 1);
    // One that leaves in its slot did not fail.
    let mut world = World::new(10);
    world.fates.insert(digest("new"), Fate::Hangs);
    world.run(3);
    let tried = world.tried("new")[0];
    world.node(tried).leaving = true;
    world.run(30);
    assert_eq!(world.state().candidate.as_ref().unwrap().failures.len(), 0);
}

#[test]
fn nodes_that_are_unavailable_for_any_reason_count() {
    for why in ["ready", "connected", "leaving"] {
        let mut world = World::new(10);
        let node = world.node(2);
        match why {
            "ready" => node.ready = false,
            "connected" => node.connected = false,
            _ => node.leaving = true,
        }
        world.run(20);
        assert!(world.tried("new").is_empty(), "{why}");
    }
}

#[test]
fn the_canary_is_counted_when_its_first_slot_is_given() {
    let mut world = World::new(1);
    world.strategy(json!({"canary": "50%", "maxUnavailable": "50%"}));
    world.turn();
    // Its bytes come first; the others connect meanwhile.
    for _ in 0..9 {
        world.old_node("a");
    }
    world.run(5);
    assert_eq!(world.tried("new").len(), 5);
    for _ in 0..10 {
        world.old_node("a");
    }
    world.run(5);
    assert_eq!(world.tried("new").len(), 5, "it soaks");
}

#[test]
fn a_slot_of_a_node_whose_trouble_can_t_be_recorded_stays_until_its_deadline() {
    let mut world = World::new(100);
    world.strategy(json!({"canary": 60, "maxUnavailable": "60%", "maxBlocked": "90%"}));
    world.fates.insert(digest("new"), Fate::Unreachable);
    world.run(32);
    let slots = world.slots();
    // Twelve of the first sixty, and the forty that were left.
    assert_eq!((slots.len(), world.state().held.len()), (52, 48));
    world.run(5);
    assert_eq!(world.slots(), slots, "none is given and taken back in turn");
}

#[test]
fn what_is_held_up_does_not_count_against_the_bundle() {
    let mut world = World::new(10);
    world.strategy(json!({"failureBudget": 0, "maxUnavailable": 3}));
    world.unlucky.extend([(1, Fate::Unreachable), (2, Fate::Unreachable)]);
    world.run(300);
    assert_eq!(world.phase(), Phase::Idle);
    assert_eq!(world.with("new").len(), 8);
    let mut world = World::new(10);
    world.strategy(json!({"failureBudget": 0, "maxUnavailable": 3}));
    world.fates.insert(digest("new"), Fate::Unreachable);
    world.run(300);
    assert_eq!(world.phase(), Phase::Blocked);
    world.fates.clear();
    world.run(600);
    assert_eq!(world.phase(), Phase::Idle, "it goes on by itself");
}

#[test]
fn a_node_whose_bytes_came_after_all_is_not_held_up_any_more() {
    let mut world = World::new(1);
    let says = |world: &mut World, phase, reason, fetched: bool| {
        let on = world.node(1).runtimes.entry(kind("gvisor")).or_default();
        on.report = Some((digest("new"), phase, reason));
        on.fetched = fetched.then(|| digest("new"));
        world.write();
    };
    says(&mut world, status::Phase::Failed, Some(Reason::DigestMismatch), false);
    assert_eq!((world.state().held.len(), world.state().slots.len()), (1, 0));
    says(&mut world, status::Phase::Verified, None, true);
    assert_eq!((world.state().held.len(), world.state().slots.len()), (0, 1));
}

#[test]
fn a_failed_node_within_the_budget_does_not_stop_the_others() {
    let mut world = World::new(30);
    world.unlucky.insert(7, Fate::RollsBack);
    world.strategy(json!({"canary": 3, "maxUnavailable": "20%"}));
    world.run(120);
    assert_eq!(world.phase(), Phase::Idle);
    assert_eq!(world.with("new").len(), 29);
}

#[test]
fn a_wave_that_fails_halts_before_the_budget_is_spent() {
    let mut world = World::new(100);
    world.strategy(json!({"failureBudget": 50, "maxUnavailable": 10, "soak": "1m"}));
    let mut world = {
        world.run(5);
        world
    };
    world.fates.insert(digest("new"), Fate::RollsBack);
    world.run(60);
    assert_eq!(world.phase(), Phase::Halted(Why::WaveFailed));
    // The wave of five had all its slots at once.
    assert_eq!(world.tried("new").len(), 1 + 5);
    assert_eq!(world.with("new").len(), 1, "what works stays");
    assert_eq!(world.with("old").len(), 99);
}

#[test]
fn a_pool_with_a_state_that_can_not_be_read_gives_no_slot_to_any_type() {
    let mut world = World::new(0);
    world.resource("kata", "a", Some("kata-old"), "kata-new");
    for _ in 0..20 {
        world.old_node("a");
    }
    world.states.remove("kata-a");
    world.run(60);
    assert!(world.activated.is_empty());
}

#[test]
fn activations_wait_for_the_window() {
    let mut world = World::new(5);
    world.maintenance = Some(Weekly::maintenance("110000+0000", "120000+0000").unwrap());
    world.gvisor().strategy.window = WindowChoice::Shoot;
    world.run(30);
    assert_eq!((world.phase(), world.tried("new").len()), (Phase::WaitingForWindow, 0));
    assert_eq!(world.last.next, Some("2026-07-01T11:00:00Z".parse().unwrap()));
    let joined = world.new_node("a");
    world.run(3);
    assert!(world.with("old").contains(&joined), "nothing runs there yet");
    world.run(60);
    assert!(!world.tried("new").is_empty());
    world.run(40);
    let tried = world.tried("new").len();
    world.run(120);
    assert_eq!(world.tried("new").len(), tried);
}

#[test]
fn a_pool_that_grows_a_hundredfold_works() {
    let mut world = World::new(10);
    world.run(4);
    let added: Vec<_> = (0..990).map(|_| world.new_node("a")).collect();
    world.run(3);
    assert_eq!(world.with("old").len() + world.with("new").len(), 1000);
    assert_eq!(world.with("new").len(), 1);
    for node in added {
        world.node(node).joining = false;
    }
    for _ in 0..60 {
        world.run(1);
        assert!(world.slots().len() <= 100);
    }
    assert_eq!((world.phase(), world.with("new").len()), (Phase::Idle, 1000));
}

#[test]
fn slots_in_flight_are_bounded_by_what_a_state_holds() {
    let mut world = World::new(400);
    world.strategy(json!({"canary": 400, "maxUnavailable": "100%"}));
    world.run(2);
    assert_eq!(world.slots().len(), MAX_SLOTS);
}

#[test]
fn a_controller_that_starts_waits_for_what_nodes_say() {
    let mut world = World::new(50);
    world.strategy(json!({"maxUnavailable": "20%", "soak": "1m"}));
    world.run(8);
    let before = world.with("new").len();
    assert!((1..50).contains(&before));
    // No slot is out that would tell that others have not got it yet.
    world.frozen = true;
    world.run(5);
    assert!(world.slots().is_empty());
    world.frozen = false;
    world.restart();
    world.run(1);
    // One node has come back, and it has the bundle.
    let first = world.with("new")[0];
    world.node(first).heard = true;
    world.run(5);
    assert_eq!(world.state().promoted[&AMD], digest("old"));
    assert!(world.slots().len() <= 10);
    world.hear();
    world.run(60);
    assert_eq!(world.phase(), Phase::Idle);
    assert_eq!(world.with("new").len(), 50);
}

#[test]
fn a_canary_that_is_gone_is_followed_by_another() {
    // Before it has begun to soak, and after.
    for minutes in [2, 3, 6] {
        let mut world = World::new(10);
        world.run(minutes);
        let first = world.tried("new")[0];
        world.nodes.remove(&first);
        world.run(6);
        assert_eq!(world.tried("new").len(), 2, "{minutes}");
        world.run(120);
        assert_eq!((world.phase(), world.with("new").len()), (Phase::Idle, 9), "{minutes}");
    }
}

#[test]
fn a_failed_node_that_is_replaced_is_not_forgotten() {
    let mut world = World::new(10);
    world.strategy(json!({"canary": 3, "failureBudget": 8, "maxUnavailable": 1}));
    world.fates.insert(digest("new"), Fate::RollsBack);
    for _ in 0..20 {
        world.run(3);
        let Some(candidate) = &world.state().candidate else { break };
        let failed: Vec<_> = candidate.failures.iter().map(|f| f.node.clone()).collect();
        let before = world.nodes.len();
        world.nodes.retain(|_, node| !failed.contains(&node.uid));
        for _ in world.nodes.len()..before {
            world.old_node("a");
        }
    }
    assert_eq!(world.phase(), Phase::Halted(Why::CanaryFailed));
    assert_eq!(world.tried("new").len(), 3);
    let failures = &world.last.progress["gvisor-a"].failures;
    assert_eq!(failures.len(), 3);
    let evidence = failures[0].evidence.as_ref().unwrap();
    assert_eq!(evidence.message, "what the node says");
}

#[test]
fn a_canary_that_is_gone_before_anybody_looked_is_followed_by_another() {
    let mut world = World::new(10);
    world.run(2);
    world.command(Command::Pause);
    world.run(5);
    let first = world.tried("new")[0];
    assert_eq!((world.phase(), world.with("new")), (Phase::Paused, vec![first]));
    world.nodes.remove(&first);
    world.command(Command::Resume);
    world.run(120);
    assert_eq!((world.phase(), world.with("new").len()), (Phase::Idle, 9));
}
