//! Small fleets: every scenario, every place where a controller can die, and the same twice.

mod kills;

use std::time::Duration;

use crate::bundle::{Fate, digests};
use crate::laws::Law;
use crate::outcome::{Outcome, run};
use crate::plan::Plan;
use crate::scenario::Scenario;

fn holds(plan: Plan) -> Outcome {
    let (outcome, _) = run(plan);
    assert!(outcome.is_good(), "{} of seed {}: {:#?}", outcome.name, outcome.seed, outcome);
    outcome
}

#[test]
fn every_scenario_ends_as_it_should_and_breaks_no_law() {
    for scenario in Scenario::ALL {
        for seed in 1..=2 {
            let outcome = holds(scenario.plan(40, seed));
            assert_eq!(outcome.nodes, 40, "{outcome:#?}");
        }
    }
}

#[test]
fn a_bundle_that_breaks_every_node_breaks_one_of_each_shoot_that_is_first() {
    for seed in 1..=6 {
        assert_eq!(holds(Scenario::BadBundle.plan(60, seed)).broken, 1);
        assert_eq!(holds(Scenario::GrowthBad.plan(60, seed)).broken, 1);
        assert_eq!(holds(Scenario::ManyShootsBad.plan(60, seed)).broken, 2);
    }
}

#[test]
fn bytes_are_what_is_waited_for_and_the_budget_is_used() {
    for scenario in [Scenario::ColdStart, Scenario::Upgrade, Scenario::Halved] {
        let outcome = holds(scenario.plan(100, 1));
        assert!(outcome.makespan_ratio.unwrap() <= 1.10, "{outcome:#?}");
        assert!(outcome.cap_use.unwrap() >= 95.0, "{outcome:#?}");
    }
    let outcome = holds(Scenario::Halved.plan(100, 1));
    assert!(outcome.fits_after.unwrap() <= Duration::from_millis(2550), "{outcome:#?}");
}

#[test]
fn a_seed_gives_the_same_run_again_and_another_seed_another_one() {
    for scenario in [Scenario::Partition, Scenario::LeaderKill, Scenario::ManyShoots] {
        let [one, again, other] =
            [7, 7, 8].map(|seed| run(scenario.plan(40, seed)).0).map(|o| (o.trace, o.events));
        assert_eq!(one, again);
        assert_ne!(one, other);
    }
}

#[test]
fn every_node_gets_exactly_one_slot() {
    for scenario in [Scenario::Upgrade, Scenario::LeaderKill, Scenario::Partition] {
        assert_eq!(holds(scenario.plan(40, 5)).slots, 40);
    }
}

#[test]
fn a_law_that_is_broken_is_seen() {
    // The bundle breaks one node more than is said here.
    let mut plan = Scenario::BadBundle.plan(20, 1);
    plan.may_break = 0;
    assert_eq!(run(plan).0.violations[0].law, Law::Broken);
    // It breaks nodes, and is said to come everywhere.
    let mut plan = Scenario::Upgrade.plan(20, 1);
    plan.target = plan.bundles.add("bad", 1_000_000, Fate::RollsBack);
    plan.may_break = 20;
    plan.horizon = Duration::from_secs(600);
    assert_eq!(run(plan).0.violations[0].law, Law::Converged);
}

#[test]
fn the_first_bundle_of_a_type_is_promoted_when_all_have_it() {
    let plan = Scenario::ColdStart.plan(30, 2);
    let target = digests(plan.target);
    let (outcome, world) = run(plan);
    assert!(outcome.is_good(), "{outcome:#?}");
    let (_, state) = &world.api().shoots[0];
    assert_eq!((&state.promoted, outcome.slots), (&target, 0));
}

#[test]
fn the_picture_has_both_panels_a_legend_and_as_much_as_flowed() {
    let (outcome, world) = run(Scenario::Upgrade.plan(30, 1));
    let picture = crate::svg::draw(&world, &outcome);
    for part in ["<svg", "MB/s", "nodes", "virtual seconds", "the budget", "activating", "</svg>"] {
        assert!(picture.contains(part), "{part} is missing");
    }
    let moved = world.series.samples.last().unwrap().moved;
    assert!((moved - 30.0 * 60e6).abs() < 1.0, "{moved}");
    assert_eq!(picture.matches("<svg").count(), picture.matches("</svg>").count());
    assert!(!picture.contains("NaN") && !picture.contains("inf"));
}
