//! Several types of a node have one restart.

use std::time::Duration;

use serde_json::json;

use super::world::{Fate, Installed, World, digest, kind};
use crate::rollout::progress::Phase;
use crate::rollout::strategy::StrategySpec;

#[test]
fn several_types_of_a_node_share_one_slot() {
    let mut world = World::new(0);
    world.resource("kata", "a", Some("kata-old"), "kata-new");
    for _ in 0..20 {
        world.old_node("a");
    }
    world.run(2);
    let [gvisor, kata] = ["gvisor-a", "kata-a"].map(|of| &world.states[of].slots);
    assert_eq!(gvisor.len(), 1);
    assert_eq!((&gvisor[0].node, gvisor[0].until), (&kata[0].node, kata[0].until));
    world.run(90);
    let (mut gvisor, mut kata) = (world.tried("new"), world.tried("kata-new"));
    assert_eq!(gvisor, kata, "the same nodes in the same order");
    gvisor.sort();
    kata.sort();
    assert_eq!(gvisor, (1..=20).collect::<Vec<_>>());
}

#[test]
fn types_that_are_tried_together_go_on_together() {
    let strategies = [
        json!({}),
        json!({"canary": "100%", "soak": "0s", "maxUnavailable": "100%"}),
        json!({"soak": "5m", "maxUnavailable": "20%", "ramp": 3}),
        json!({"canary": 3, "soak": "0s", "deadlines": {"firstSandbox": "0s"}}),
    ];
    for strategy in strategies {
        let mut world = World::new(0);
        world.resource("kata", "a", Some("kata-old"), "kata-new");
        world.strategy(strategy.clone());
        // What is said of one is known a while before what is said of the other.
        world.fates.insert(digest("kata-new"), Fate::Slowly);
        for _ in 0..20 {
            world.old_node("a");
        }
        world.run(400);
        assert_eq!(world.with("new").len(), 20, "{strategy}");
        assert_eq!(world.with_of("kata", "kata-new").len(), 20, "{strategy}");
        let restarts: Vec<_> = world.nodes.values().map(|node| node.restarts).collect();
        assert_eq!(restarts, [1; 20], "{strategy}");
    }
}

#[test]
fn a_look_of_which_a_part_was_written_is_made_whole() {
    for lost in ["gvisor-a", "kata-a"] {
        let mut world = World::new(0);
        world.resource("kata", "a", Some("kata-old"), "kata-new");
        for _ in 0..5 {
            world.old_node("a");
        }
        world.turn();
        world.work();
        let step = world.look();
        let slots = |name: &str| step.states[name].slots.clone();
        assert_eq!(slots("gvisor-a")[0].node, slots("kata-a")[0].node);
        // The other one is written, and nobody hears of it yet.
        let written = step.states.iter().filter(|(name, _)| *name != lost);
        world.states.extend(written.map(|(name, state)| (name.clone(), state.clone())));
        world.write();
        assert_eq!(world.states["gvisor-a"].slots[0].node, world.states["kata-a"].slots[0].node);
        world.run(200);
        assert_eq!(world.with("new").len(), 5);
        assert_eq!(world.with_of("kata", "kata-new").len(), 5);
        assert!(world.nodes.values().all(|node| node.restarts == 1), "without {lost}");
    }
}

#[test]
fn a_type_does_not_wait_for_one_whose_turn_is_far() {
    let mut world = World::new(20);
    world.resource("kata", "a", Some("kata-old"), "kata-new");
    for node in world.nodes.values_mut() {
        node.runtimes.insert(kind("kata"), Installed::with(digest("kata-old")));
    }
    let kata = world.resources.get_mut("kata-a").unwrap();
    let spec: StrategySpec = serde_json::from_value(json!({"soak": "0s"})).unwrap();
    kata.strategy = spec.over(&kata.strategy);
    world.gvisor().strategy.soak = Duration::from_secs(24 * 3600);
    world.run(200);
    assert!(matches!(world.phase(), Phase::Soaking { runs: true }));
    assert_eq!(world.with_of("kata", "kata-new").len(), 20);
    // Nor for one that is halted, or whose canary is out of sight.
    for silent in [false, true] {
        let mut world = World::new(20);
        world.fates.insert(digest("new"), if silent { Fate::Works } else { Fate::RollsBack });
        world.run(5);
        for node in world.tried("new") {
            world.node(node).connected = !silent;
        }
        world.resource("kata", "a", None, "kata-new");
        world.run(400);
        let with = world.with_of("kata", "kata-new").len();
        assert!(with >= 19, "silent {silent}: {with}");
    }
}
