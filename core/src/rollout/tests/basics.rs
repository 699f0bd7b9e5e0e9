//! From the canary to the promoted bundle.

use serde_json::json;

use super::world::{AMD, Fate, World, digest};
use crate::rollout::progress::Phase;
use crate::rollout::record::{Stage, Why};

#[test]
fn a_healthy_bundle_goes_from_canary_over_soaking_and_waves_to_promoted() {
    let mut world = World::new(100);
    world.strategy(json!({"maxUnavailable": "20%"}));
    let mut seen = Vec::new();
    for _ in 0..60 {
        world.run(1);
        let (phase, many) = (world.phase(), world.with("new").len());
        if seen.last().is_none_or(|(last, _)| *last != phase) {
            seen.push((phase, many));
        }
        assert!(world.slots().len() <= 20);
    }
    let want = [
        (Phase::Canary, 0),
        (Phase::Soaking { runs: false }, 1),
        (Phase::Soaking { runs: true }, 1),
        (Phase::Wave { number: 1, of: 2 }, 1),
        (Phase::Wave { number: 2, of: 2 }, 6),
        (Phase::Idle, 100),
    ];
    assert_eq!(seen, want);
    assert_eq!(world.state().promoted[&AMD], digest("new"));
    let mut tried = world.tried("new");
    tried.sort();
    assert_eq!(tried, (1..=100).collect::<Vec<_>>(), "each node is restarted once");
}

#[test]
fn a_bundle_that_breaks_every_node_breaks_the_canary_alone() {
    for fate in [Fate::RollsBack, Fate::Degrades, Fate::FailsPods, Fate::Hangs] {
        for (canary, budget, broken) in [(1, 2, 1), (1, 0, 1), (3, 5, 3), (3, 1, 2)] {
            let mut world = World::new(20);
            world.fates.insert(digest("new"), fate);
            let unavailable = if budget == 1 { 1 } else { 5 };
            world.strategy(
                json!({"canary": canary, "failureBudget": budget, "maxUnavailable": unavailable}),
            );
            world.run(3);
            let added: Vec<_> = (0..10).map(|_| world.new_node("a")).collect();
            world.run(40);
            for node in &added {
                world.node(*node).joining = false;
            }
            world.run(100);
            let tried = world.tried("new");
            assert_eq!(tried.len(), broken, "{fate:?} {canary} {budget}");
            assert!(tried.iter().all(|node| !added.contains(node)));
            let why = if broken > budget { Why::BudgetSpent } else { Why::CanaryFailed };
            assert_eq!(world.phase(), Phase::Halted(why), "{fate:?} {canary} {budget}");
            assert_eq!(world.state().promoted[&AMD], digest("old"));
            // Those that failed go back with a slot, and new ones have what works.
            assert_eq!(world.with("old").len(), 30, "{fate:?}");
        }
    }
}

#[test]
fn the_soak_clock_runs_once_a_sandbox_has_started() {
    let mut world = World::new(10);
    world.pods = false;
    world.run(50);
    assert!(matches!(world.phase(), Phase::Soaking { runs: false }), "{:?}", world.phase());
    world.pods = true;
    world.run(2);
    assert!(matches!(world.phase(), Phase::Soaking { runs: true }), "{:?}", world.phase());
    world.run(8);
    assert_eq!(world.with("new").len(), 1);
    world.run(5);
    assert!(world.with("new").len() > 1, "{:?}", world.phase());
}

#[test]
fn a_pool_without_pods_does_not_soak_for_ever() {
    let mut world = World::new(10);
    world.pods = false;
    world.run(3);
    let Some(Stage::Soak { since, from: None }) = world.state().candidate.as_ref().map(|c| c.stage)
    else {
        panic!("{:?}", world.state())
    };
    assert_eq!(
        world.last.next,
        Some(since.checked_add(jiff::SignedDuration::from_mins(60)).unwrap())
    );
    world.run(60);
    assert!(matches!(world.phase(), Phase::Soaking { runs: true }), "{:?}", world.phase());
    world.run(60);
    assert_eq!(world.phase(), Phase::Idle);
    assert_eq!(world.with("new").len(), 10);
}
