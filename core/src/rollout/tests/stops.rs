//! What was begun stops where it is to stop, and says why it stands.

use serde_json::json;

use super::world::{Fate, Installed, World, digest, kind};
use crate::rollout::progress::Phase;
use crate::rollout::record::{Command, Why};
use crate::rollout::window::WindowChoice;
use crate::rollout::{Give, Permit};
use crate::status::{self, Reason};

/// Slots of the canary are recorded, and nobody has heard of them yet.
fn with_slots(nodes: u32, strategy: serde_json::Value) -> World {
    let mut world = World::new(nodes);
    world.strategy(strategy);
    world.turn();
    world.work();
    world.write();
    assert!(!world.slots().is_empty());
    world
}

#[test]
fn a_slot_that_was_not_used_is_void_when_somebody_stops_the_rollout() {
    for command in [Command::Pause, Command::Abort] {
        let mut world = with_slots(10, json!({}));
        world.command(command);
        world.run(2);
        assert!(world.tried("new").is_empty(), "{command}");
        if command == Command::Pause {
            world.command(Command::Resume);
            world.run(2);
            assert_eq!(world.tried("new").len(), 1, "the slot counts again");
        }
        world.run(60);
        assert!(world.state().held.is_empty(), "{command}: nothing was in its way");
    }
    let mut world = with_slots(10, json!({}));
    world.frozen = true;
    world.run(5);
    assert!(world.tried("new").is_empty());
}

#[test]
fn a_halt_reaches_those_that_have_a_slot() {
    let mut world = with_slots(10, json!({"canary": 3, "maxUnavailable": 3, "failureBudget": 0}));
    world.fates.insert(digest("new"), Fate::RollsBack);
    let slots = world.slots();
    let mut of_slot = world.nodes.values_mut().filter(|node| slots.contains(&node.uid));
    of_slot.next().unwrap();
    of_slot.for_each(|node| node.connected = false);
    world.run(4);
    assert_eq!(world.phase(), Phase::Halted(Why::BudgetSpent));
    world.nodes.values_mut().for_each(|node| node.connected = true);
    world.run(4);
    assert_eq!(world.tried("new").len(), 1, "nobody follows");
}

#[test]
fn a_pool_without_room_says_so() {
    let mut world = World::new(10);
    world.node(4).leaving = true;
    world.run(40);
    assert_eq!((world.phase(), world.tried("new").len()), (Phase::WaitingForNodes, 0));
    world.node(4).leaving = false;
    world.run(3);
    assert_eq!(world.tried("new").len(), 1);
    // So does one whose nodes wait for what is promoted.
    let mut world = World::new(10);
    world.gvisor().target = Some(digest("old"));
    world.node(4).leaving = true;
    *world.node(5).runtimes.get_mut(&kind("gvisor")).unwrap() = Installed::default();
    world.run(10);
    assert_eq!(world.phase(), Phase::WaitingForNodes);
    assert_eq!(world.last.progress["gvisor-a"].left, 1);
    world.node(4).leaving = false;
    world.run(5);
    assert_eq!((world.phase(), world.last.progress["gvisor-a"].left), (Phase::Idle, 0));
}

#[test]
fn a_node_that_is_not_ready_holds_no_promotion_up() {
    let mut world = World::new(20);
    world.strategy(json!({"maxUnavailable": "20%"}));
    world.node(7).ready = false;
    world.run(300);
    assert_eq!(world.phase(), Phase::Idle);
    assert_eq!(world.state().promoted.values().collect::<Vec<_>>(), [&digest("new")]);
}

#[test]
fn a_node_that_broke_with_it_is_healed_on_the_way_back() {
    let mut world = World::new(20);
    world.strategy(json!({"maxUnavailable": "20%"}));
    world.fates.insert(digest("new"), Fate::Degrades);
    world.run(5);
    let broken = world.tried("new")[0];
    world.node(broken).ready = false;
    world.node(broken).runtimes.get_mut(&kind("gvisor")).unwrap().works = None;
    world.command(Command::Abort);
    world.run(60);
    assert_eq!(world.with("old").len(), 20);
}

#[test]
fn more_nodes_than_can_be_recorded_are_held_up() {
    let mut world = World::new(1000);
    for node in 1..=300 {
        world.unlucky.insert(node, Fate::Unreachable);
    }
    for node in world.nodes.values_mut() {
        let on = node.runtimes.get_mut(&kind("gvisor")).unwrap();
        if world.unlucky.contains_key(&node.name.as_str()[5..].parse().unwrap()) {
            on.report = Some((digest("new"), status::Phase::Blocked, Some(Reason::NoSpace)));
        }
    }
    world.turn();
    world.turn();
    assert_eq!(world.phase(), Phase::Blocked);
    assert_eq!(world.last.progress["gvisor-a"].held, 300);
}

#[test]
fn a_canary_that_is_out_of_sight_when_its_soak_is_over_stops_or_is_followed() {
    for leaves in [false, true] {
        let mut world = World::new(20);
        world.strategy(json!({"soak": "10m", "maxUnavailable": "20%"}));
        world.run(5);
        let canary = world.tried("new")[0];
        if leaves {
            world.node(canary).leaving = true;
        } else {
            world.node(canary).connected = false;
        }
        world.run(15);
        assert!(matches!(world.phase(), Phase::Soaking { .. }), "it may come back");
        world.run(40);
        if leaves {
            assert!(world.tried("new").len() > 1, "another one tries it");
        } else {
            assert_eq!(world.phase(), Phase::Halted(Why::CanaryLost));
            let failures = &world.last.progress["gvisor-a"].failures;
            assert_eq!(failures[0].node, world.nodes[&canary].uid);
            assert_eq!(world.tried("new"), [canary]);
        }
    }
}

#[test]
fn what_nobody_is_to_follow_goes_along_with_no_other_type() {
    let mut world = World::new(0);
    for _ in 0..30 {
        world.old_node("a");
    }
    world.resource("kata", "a", Some("kata-old"), "kata-old");
    world.strategy(json!({"soak": "0s", "maxUnavailable": 1}));
    world.fates.insert(digest("kata-old"), Fate::RollsBack);
    world.run(400);
    assert_eq!(world.last.progress["kata-a"].phase, Phase::PromotedFails);
    assert_eq!(world.with("new").len(), 30, "the other type goes on");
    assert!(world.tried("kata-old").len() <= 4, "{:?}", world.tried("kata-old"));
}

#[test]
fn a_slot_ends_with_its_window() {
    let mut world = World::new(10);
    let window = serde_json::from_value::<WindowChoice>(json!({
        "days": ["Wed"], "begin": "09:00", "end": "10:08", "zone": "UTC",
    }));
    world.gvisor().strategy.window = window.unwrap();
    world.turn();
    world.work();
    world.turn();
    let until = world.state().slots[0].until;
    assert_eq!(until.to_string(), "2026-07-01T10:08:00Z");
    let permits = |world: &World| world.last.nodes.iter().filter_map(|node| node.permit).count();
    assert_eq!(permits(&world), 1);
    assert!(
        world.last.nodes.iter().any(|n| n.permit == Some(Permit::Slot { until, again: false }))
    );
    // Too late to begin anything.
    let mut late = World::new(10);
    late.gvisor().strategy.window = world.gvisor().strategy.window.clone();
    late.pass(7);
    late.run(5);
    assert_eq!((late.phase(), late.tried("new").len()), (Phase::WaitingForWindow, 0));
}

#[test]
fn a_node_that_works_with_it_and_is_in_trouble_for_a_moment_is_left_alone() {
    let mut world = World::new(10);
    world.strategy(json!({"canary": 2, "maxUnavailable": 2}));
    world.run(5);
    let canary = world.tried("new")[0];
    let at = world.nodes.keys().position(|number| *number == canary).unwrap();
    for (phase, reason) in
        [(status::Phase::Queued, None), (status::Phase::Blocked, Some(Reason::ContainerdUnknown))]
    {
        let on = world.node(canary).runtimes.get_mut(&kind("gvisor")).unwrap();
        on.report = Some((digest("new"), phase, reason));
        let step = world.look();
        assert_eq!(step.nodes[at].runtimes[0].give, Give::Stay, "{phase:?}");
        assert_eq!(step.nodes[at].permit, None);
    }
}

#[test]
fn the_bytes_that_a_turn_waits_for_go_first() {
    let mut world = World::new(20);
    world.strategy(json!({"canary": 2, "maxUnavailable": 2}));
    let step = world.write();
    let first: Vec<_> = step.nodes.iter().map(|node| node.first).collect();
    assert_eq!(first.iter().filter(|first| **first).count(), 2);
    // Those that are named are those that try it.
    world.run(5);
    let named = world.nodes.keys().zip(&first).filter(|(_, first)| **first);
    let mut tried = world.tried("new");
    tried.sort_unstable();
    assert_eq!(named.map(|(node, _)| *node).collect::<Vec<_>>(), tried);
}
