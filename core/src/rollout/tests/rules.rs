//! The rules that bend the straight way, one by one.

use std::time::Duration;

use serde_json::json;

use super::world::{AMD, Fate, Installed, World, digest, kind};
use crate::rollout::progress::Phase;
use crate::rollout::record::{Command, Course, MAX_SLOTS, Stage, Why};
use crate::rollout::strategy::StrategySpec;
use crate::rollout::view::{Seed, Standing};
use crate::rollout::window::{Weekly, WindowChoice};
use crate::rollout::{Give, Permit};
use crate::state::State;
use crate::status::{self, Reason};

fn soaking(nodes: u32) -> World {
    let mut world = World::new(nodes);
    world.run(5);
    assert!(matches!(world.phase(), Phase::Soaking { .. }), "{:?}", world.phase());
    world
}

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
fn a_pause_gives_no_slot_and_resume_goes_on() {
    let mut world = World::new(10);
    world.command(Command::Pause);
    // The first look may have given one before it was paused.
    let before = world.tried("new").len();
    world.run(60);
    assert_eq!((world.phase(), world.tried("new").len()), (Phase::Paused, before));
    let joined = world.new_node("a");
    world.run(3);
    assert!(world.with("old").contains(&joined));
    world.command(Command::Resume);
    world.run(200);
    assert_eq!(world.phase(), Phase::Idle);
}

#[test]
fn a_command_is_carried_out_once_for_each_time_it_is_written() {
    let mut world = World::new(10);
    world.fates.insert(digest("new"), Fate::RollsBack);
    world.gvisor().command = Some(Command::Retry);
    world.run(60);
    assert!(matches!(world.phase(), Phase::Halted(_)), "a retry that stays written is one");
    world.fates.clear();
    world.gvisor().command = None;
    world.run(1);
    assert!(matches!(world.phase(), Phase::Halted(_)));
    world.command(Command::Retry);
    let again = |permit: &Option<Permit>| matches!(permit, Some(Permit::Slot { again: true, .. }));
    world.run(1);
    assert!(world.last.nodes.iter().any(|node| again(&node.permit)));
    world.run(200);
    assert_eq!(world.phase(), Phase::Idle);
}

#[test]
fn promote_skips_soaking() {
    let mut world = soaking(10);
    world.command(Command::Promote);
    assert!(matches!(world.phase(), Phase::Wave { .. }), "{:?}", world.phase());
    let mut world = World::new(10);
    world.command(Command::Promote);
    assert_eq!(world.phase(), Phase::Canary, "the canary is never skipped");
}

#[test]
fn abort_goes_back_with_the_same_care() {
    let mut world = World::new(40);
    world.strategy(json!({"maxUnavailable": 2, "soak": "1m"}));
    world.run(20);
    let many = world.with("new").len();
    assert!((10..40).contains(&many), "{many}");
    world.command(Command::Abort);
    let candidate = world.state().candidate.clone().unwrap();
    assert_eq!((candidate.course, candidate.stage), (Course::Back, Stage::Canary));
    for _ in 0..80 {
        world.run(1);
        assert!(world.slots().len() <= 2);
    }
    assert_eq!(world.with("old").len(), 40);
    assert_eq!((world.phase(), world.state().aborted[&AMD]), (Phase::Idle, digest("new")));
    world.run(60);
    assert_eq!(world.with("old").len(), 40, "it is not tried again by itself");
    world.command(Command::Retry);
    world.run(200);
    assert_eq!(world.with("new").len(), 40);
}

#[test]
fn abort_without_anything_before_halts() {
    let mut world = World::new(0);
    world.states.insert("gvisor-a".to_owned(), State::default());
    for _ in 0..5 {
        world.old_node("a");
    }
    world.run(4);
    world.command(Command::Abort);
    assert_eq!(world.phase(), Phase::Halted(Why::NothingBefore));
    assert_eq!(world.with("new").len(), 1, "what works stays");
}

#[test]
fn a_new_target_begins_with_a_canary_again() {
    let mut world = World::new(40);
    world.strategy(json!({"maxUnavailable": "10%", "soak": "1m"}));
    world.run(12);
    let had = world.with("new");
    assert!(had.len() > 5, "{had:?}");
    world.gvisor().target = Some(digest("next"));
    world.run(1);
    let candidate = world.state().candidate.as_ref().unwrap();
    assert_eq!(
        (candidate.stage, candidate.replaces.as_slice()),
        (Stage::Canary, &[digest("new")][..])
    );
    world.run(3);
    assert_eq!(world.tried("next").len(), 1);
    assert!(had.len() <= world.with("new").len() + 5, "those that have it keep it");
    world.run(100);
    assert_eq!(world.with("next").len(), 40);
    assert!(world.tried("old").is_empty(), "nobody goes back on the way");
}

#[test]
fn a_target_that_is_promoted_ends_the_candidate() {
    let mut world = soaking(10);
    world.gvisor().target = Some(digest("old"));
    world.run(10);
    assert_eq!((world.phase(), &world.state().candidate), (Phase::Idle, &None));
    assert_eq!(world.with("old").len(), 10);
}

#[test]
fn what_is_not_known_changes_nothing() {
    let mut world = soaking(10);
    world.run(3);
    let before = world.states.clone();
    world.gvisor().target = None;
    world.run(60);
    assert_eq!((world.phase(), &world.states), (Phase::Unknown, &before));
    world.gvisor().target = Some(digest("new"));
    world.complete = false;
    world.run(60);
    assert_eq!((world.phase(), &world.states), (Phase::Unknown, &before));
    assert!(
        world.last.nodes.iter().all(|n| n.permit.is_none() && n.runtimes[0].give == Give::Stay)
    );
    world.complete = true;
    let state = world.states.remove("gvisor-a").unwrap();
    world.run(60);
    assert_eq!(world.phase(), Phase::Unread);
    assert!(world.states.is_empty(), "a state that can't be read is not written");
    assert!(world.last.nodes.iter().all(|node| node.runtimes[0].give == Give::Stay));
    world.states.insert("gvisor-a".to_owned(), state);
    world.run(200);
    assert_eq!(world.phase(), Phase::Idle);
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
fn a_stop_of_the_seed_gives_no_slot() {
    let mut world = World::new(10);
    world.frozen = true;
    let joined = world.new_node("a");
    world.run(60);
    assert_eq!(world.phase(), Phase::Frozen);
    assert!(world.tried("new").is_empty());
    assert!(world.with("old").contains(&joined), "a new node gets what works");
    let mut world = soaking(10);
    world.frozen = true;
    world.run(60);
    assert_eq!((world.phase(), world.with("new").len()), (Phase::Frozen, 1));
}

#[test]
fn a_bundle_waits_for_its_ring_and_stops_with_the_seed() {
    let mut world = World::new(10);
    let says =
        |standing| Some(Seed { digests: [(digest("new"), standing)].into(), ..Seed::default() });
    world.gvisor().seed = says(Standing::NotYet);
    world.run(10);
    assert_eq!((world.phase(), world.tried("new").len()), (Phase::WaitingForRing, 0));
    world.gvisor().seed = Some(Seed::default());
    world.run(10);
    assert_eq!(world.tried("new").len(), 0, "of which nothing is said is not open");
    world.gvisor().seed = says(Standing::Open);
    world.run(5);
    assert_eq!(world.with("new").len(), 1);
    world.gvisor().seed = says(Standing::Stopped);
    world.run(60);
    assert_eq!((world.phase(), world.with("new").len()), (Phase::Stopped, 1));
    world.gvisor().seed = says(Standing::Open);
    world.run(200);
    assert_eq!(world.phase(), Phase::Idle);
}

#[test]
fn a_type_that_is_new_to_the_seed_comes_at_once_only_to_where_nothing_runs() {
    let first =
        || Some(Seed { digests: [(digest("new"), Standing::First)].into(), ..Seed::default() });
    // What runs is restarted in the shoot's turn, whether it has something or not.
    for old in [None, Some("old")] {
        let mut world = World::new(0);
        world.resource("gvisor", "a", old, "new");
        world.gvisor().seed = first();
        for _ in 0..5 {
            world.old_node("a");
        }
        world.run(60);
        assert_eq!((world.phase(), world.tried("new").len()), (Phase::WaitingForRing, 0));
        let joined = world.new_node("a");
        world.run(60);
        assert!(world.with("new").is_empty(), "{old:?}");
        assert_eq!(world.with("old").contains(&joined), old.is_some());
        world.gvisor().seed =
            Some(Seed { digests: [(digest("new"), Standing::Open)].into(), ..Seed::default() });
        world.run(200);
        assert_eq!((world.phase(), world.with("new").len()), (Phase::Idle, 6));
    }
    // Of nodes that a new leader has not heard of yet it is not known.
    let mut world = World::new(0);
    world.resource("gvisor", "a", None, "new");
    world.gvisor().seed = first();
    let node = world.old_node("a");
    world.node(node).heard = false;
    world.write();
    assert_eq!((world.phase(), &world.state().candidate), (Phase::WaitingForRing, &None));
    // A new shoot has it at once, and keeps it when the next one comes.
    let mut world = World::new(0);
    world.resource("gvisor", "a", None, "new");
    world.gvisor().seed = first();
    for _ in 0..5 {
        world.new_node("a");
    }
    world.run(20);
    assert_eq!((world.phase(), world.with("new").len()), (Phase::Idle, 5));
    assert_eq!(world.state().promoted[&AMD], digest("new"));
    world.gvisor().target = Some(digest("next"));
    world.gvisor().seed =
        Some(Seed { digests: [(digest("next"), Standing::First)].into(), ..Seed::default() });
    let joined = world.new_node("a");
    world.run(60);
    assert_eq!((world.phase(), world.tried("next").len()), (Phase::WaitingForRing, 0));
    assert!(world.with("new").contains(&joined));
}

#[test]
fn rings_that_could_not_be_read_are_not_waited_for_in_silence() {
    let mut world = World::new(10);
    world.gvisor().seed = Some(Seed { unread: true, ..Seed::default() });
    world.run(10);
    assert_eq!((world.phase(), world.tried("new").len()), (Phase::Unread, 0));
    // It says nothing to those that have nothing to wait for.
    world.gvisor().target = Some(digest("old"));
    world.run(10);
    assert_eq!(world.phase(), Phase::Idle);
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

#[test]
fn a_retry_where_nothing_is_promoted_activates_nothing_that_runs() {
    let mut world = World::new(0);
    world.states.insert("gvisor-a".to_owned(), State::default());
    for _ in 0..4 {
        world.old_node("a");
    }
    world.fates.insert(digest("new"), Fate::FailsPods);
    world.run(10);
    assert_eq!(world.phase(), Phase::Halted(Why::CanaryFailed));
    world.fates.clear();
    world.command(Command::Retry);
    world.run(120);
    let mut tried = world.tried("new");
    tried.sort();
    assert_eq!((world.phase(), tried), (Phase::Idle, vec![1, 2, 3, 4]));
}
