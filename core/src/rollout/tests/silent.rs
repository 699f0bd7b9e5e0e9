//! Nodes that fall silent with what they activate.

use serde_json::json;

use super::world::{Fate, World, digest, kind};
use crate::rollout::progress::Phase;
use crate::rollout::record::{Command, Stage, Why};
use crate::status::{self, Reason};

/// What becomes of a node that fell silent.
#[derive(Clone, Copy, Debug)]
enum Then {
    /// It stays as it is.
    Stays,
    /// Whoever looks after machines replaces it, after so many minutes.
    Replaced(u32),
    /// The same, and it is drained for a minute first.
    Drained(u32),
    /// Another controller begins, and the node is replaced before that one knows of it.
    LeaderAndReplaced,
}

const EVERY: [Then; 6] = [
    Then::Stays,
    Then::Replaced(1),
    Then::Replaced(10),
    Then::Replaced(30),
    Then::Drained(9),
    Then::LeaderAndReplaced,
];

impl Then {
    fn befalls(self, world: &mut World, node: u32) {
        let replace = |world: &mut World| {
            world.nodes.remove(&node);
            world.old_node("a");
        };
        match self {
            Self::Stays => {}
            Self::Replaced(after) => {
                world.run(after);
                replace(world);
            }
            Self::Drained(after) => {
                world.run(after);
                world.node(node).leaving = true;
                world.run(1);
                replace(world);
            }
            Self::LeaderAndReplaced => {
                world.run(2);
                world.restart();
                world.run(1);
                replace(world);
                world.hear();
            }
        }
    }
}

/// A pool in which the canary, and nobody else yet, fell silent with the bundle.
fn silenced() -> (World, u32) {
    let mut world = World::new(10);
    world.fates.insert(digest("new"), Fate::Silences);
    world.run(3);
    let tried = world.tried("new");
    assert_eq!((tried.len(), world.state().slots.len()), (1, 1));
    (world, tried[0])
}

#[test]
fn a_canary_that_falls_silent_is_the_only_node_that_does() {
    for then in EVERY {
        let (mut world, lost) = silenced();
        let (uid, name) = (world.nodes[&lost].uid.clone(), world.nodes[&lost].name.clone());
        then.befalls(&mut world, lost);
        world.run(300);
        assert_eq!(world.phase(), Phase::Halted(Why::CanaryLost), "{then:?}");
        assert_eq!(world.tried("new"), [lost], "{then:?}");
        assert!(world.state().slots.is_empty() && world.state().held.is_empty(), "{then:?}");
        let progress = &world.last.progress["gvisor-a"];
        let [failure] = &progress.failures[..] else { panic!("{then:?}: {progress:?}") };
        assert_eq!((&failure.node, failure.reason), (&uid, Reason::NodeUnreachable), "{then:?}");
        let evidence = failure.evidence.as_ref().unwrap();
        assert_eq!(evidence.name, name, "{then:?}");
        assert!(evidence.message.starts_with("silent since 2026-07-01T10:0"), "{evidence:?}");
        assert_eq!(
            progress.can,
            [Command::Pause, Command::Retry, Command::Promote, Command::Abort]
        );
        // New nodes get what works.
        let joined = world.new_node("a");
        world.run(3);
        assert!(world.with("old").contains(&joined), "{then:?}");
    }
}

#[test]
fn it_is_given_until_its_deadline_to_come_back() {
    let (mut world, lost) = silenced();
    let until = world.state().slots[0].until;
    assert_eq!(world.last.next, Some(until));
    world.run(11);
    let slot = &world.state().slots[0];
    let silent = slot.silent.as_ref().unwrap();
    assert!(silent.since < slot.until && silent.name.as_ref() == Some(&world.nodes[&lost].name));
    assert_eq!(world.phase(), Phase::Canary);
    // It is back in time, and works with it.
    world.fates.clear();
    (world.node(lost).connected, world.node(lost).ready) = (true, true);
    world.run(2);
    assert!(matches!(world.phase(), Phase::Soaking { .. }), "{:?}", world.phase());
    world.run(200);
    assert_eq!((world.phase(), world.with("new").len()), (Phase::Idle, 10));
}

#[test]
fn a_canary_that_is_lost_for_another_reason_is_followed_by_another() {
    for case in ["gone", "drained and silent", "drained, silent and gone"] {
        let mut world = World::new(10);
        world.fates.insert(digest("new"), Fate::Hangs);
        world.run(3);
        let tried = world.tried("new");
        world.fates.clear();
        world.unlucky.insert(tried[0], Fate::Hangs);
        world.node(tried[0]).leaving = case != "gone";
        world.run(1);
        if case != "gone" {
            (world.node(tried[0]).connected, world.node(tried[0]).ready) = (false, false);
            world.run(3);
        }
        if case != "drained and silent" {
            world.nodes.remove(&tried[0]);
            world.old_node("a");
        } else {
            // One of ten that is away is all that may be unavailable.
            world.strategy(json!({"maxUnavailable": 2}));
        }
        world.run(200);
        assert_eq!(world.phase(), Phase::Idle, "{case}");
        assert!(world.with("new").len() >= 9, "{case}");
    }
}

#[test]
fn where_others_work_with_it_a_silent_node_is_blocked() {
    for then in EVERY {
        let mut world = World::new(20);
        world.strategy(json!({"canary": 3, "maxUnavailable": 3, "maxBlocked": 2}));
        world.run(2);
        let uid = world.state().slots[0].node.clone();
        let lost = *world.nodes.iter().find(|(_, node)| node.uid == uid).unwrap().0;
        world.unlucky.insert(lost, Fate::Silences);
        world.run(3);
        assert_eq!(world.with("new").len(), 2, "{then:?}");
        then.befalls(&mut world, lost);
        world.run(20);
        let held = &world.state().held[0];
        assert_eq!((&held.node, held.reason), (&uid, Reason::NodeUnreachable), "{then:?}");
        assert!(world.last.progress["gvisor-a"].failures.is_empty(), "{then:?}");
        world.run(200);
        assert_eq!(world.phase(), Phase::Idle, "{then:?}");
    }
}

#[test]
fn a_bundle_that_silences_the_others_ends_at_the_bound_of_what_is_blocked() {
    for replaced in [false, true] {
        let mut world = World::new(20);
        world.strategy(json!({"maxUnavailable": "50%", "ramp": 1, "soak": "1m"}));
        world.run(4);
        assert_eq!(world.with("new").len(), 1);
        world.fates.insert(digest("new"), Fate::Silences);
        for _ in 0..30 {
            world.run(10);
            if replaced {
                let before = world.nodes.len();
                world.nodes.retain(|_, node| node.connected);
                for _ in world.nodes.len()..before {
                    world.old_node("a");
                }
            }
        }
        assert_eq!(world.phase(), Phase::Blocked);
        assert_eq!(world.tried("new").len(), 1 + 5, "20% of 20, and the one that was too many");
    }
}

#[test]
fn a_bundle_that_silences_nodes_ends_where_no_more_of_them_can_be_recorded() {
    // A fifth of this pool is more than a state holds.
    let mut world = World::new(300);
    world.strategy(json!({"canary": 2, "maxUnavailable": "30%", "ramp": 40, "soak": "1m"}));
    world.run(4);
    assert_eq!(world.with("new").len(), 2);
    world.fates.insert(digest("new"), Fate::Silences);
    for _ in 0..4 {
        world.run(20);
        // Somebody replaces nodes that are lost.
        world.nodes.retain(|_, node| node.connected);
        for _ in world.nodes.len()..300 {
            world.old_node("a");
        }
    }
    world.run(20);
    assert_eq!(world.phase(), Phase::Blocked);
    assert_eq!(world.tried("new").len(), 2 + 80, "its first wave, and nobody after it");
}

#[test]
fn one_that_comes_back_after_all_keeps_what_works_and_retry_goes_on() {
    let (mut world, lost) = silenced();
    world.run(20);
    assert_eq!(world.phase(), Phase::Halted(Why::CanaryLost));
    world.fates.clear();
    (world.node(lost).connected, world.node(lost).ready) = (true, true);
    let on = world.node(lost).runtimes.get_mut(&kind("gvisor")).unwrap();
    (on.works, on.desired) = (Some(digest("new")), Some(digest("new")));
    on.report = Some((digest("new"), status::Phase::Proven, None));
    world.run(60);
    assert_eq!(world.phase(), Phase::Halted(Why::CanaryLost), "somebody is to look at it");
    assert_eq!((world.with("new"), world.tried("new").len()), (vec![lost], 1));
    world.command(Command::Retry);
    world.run(200);
    assert_eq!((world.phase(), world.with("new").len()), (Phase::Idle, 10));
    assert_eq!(world.tried("new").len(), 10, "nobody activates it twice");
}

#[test]
fn one_that_comes_back_with_bad_news_is_counted_by_those() {
    let (mut world, lost) = silenced();
    world.run(20);
    (world.node(lost).connected, world.node(lost).ready) = (true, true);
    let on = world.node(lost).runtimes.get_mut(&kind("gvisor")).unwrap();
    let said = (digest("new"), status::Phase::RolledBack, Some(Reason::ContainerdStartFailed));
    on.report = Some(said);
    world.turn();
    assert_eq!(world.phase(), Phase::Halted(Why::CanaryLost));
    let [failure] = &world.last.progress["gvisor-a"].failures[..] else { panic!() };
    assert_eq!(failure.reason, Reason::ContainerdStartFailed);
    assert_eq!(failure.evidence.as_ref().unwrap().message, "what the node says");
}

#[test]
fn each_retry_costs_a_canary_and_a_good_one_ends_well() {
    let (mut world, _) = silenced();
    world.strategy(json!({"maxUnavailable": "40%"}));
    for tried in 1..=2 {
        world.run(100);
        assert_eq!(world.phase(), Phase::Halted(Why::CanaryLost));
        assert_eq!(world.tried("new").len(), tried);
        world.command(Command::Retry);
        assert_eq!(world.state().candidate.as_ref().unwrap().stage, Stage::Canary);
        assert_ne!(world.phase(), Phase::Halted(Why::CanaryLost));
    }
    world.run(100);
    world.fates.clear();
    world.command(Command::Retry);
    world.run(200);
    assert_eq!((world.phase(), world.tried("new").len()), (Phase::Idle, 3 + 7));
}

#[test]
fn a_controller_that_starts_hears_what_came_of_a_slot_that_is_over() {
    let mut world = World::new(10);
    world.run(2);
    let uid = world.state().slots[0].node.clone();
    world.work();
    world.restart();
    world.work();
    world.pass(16);
    world.write();
    assert_eq!(world.state().slots[0].node, uid, "nobody has heard of it yet");
    world.hear();
    world.run(200);
    assert_eq!((world.phase(), world.with("new").len()), (Phase::Idle, 10));
    assert_eq!(world.tried("new").len(), 10);
}
