//! A controller is killed at every write of a rollout, before and after it is recorded.

use rootstock_core::rollout::record::Why;

use crate::bundle::digests;
use crate::laws::Law;
use crate::outcome::run;
use crate::plan::{KillAt, Plan};
use crate::scenario::Scenario;

/// A fleet that is small enough to try every place.
fn plan(scenario: Scenario, seed: u64) -> Plan {
    let mut plan = scenario.plan(12, seed);
    plan.faults.writes_fail = 0;
    plan
}

/// Kills at each write. How many places there were.
fn at_every_write(scenario: Scenario, seed: u64) -> u64 {
    let (calm, world) = run(plan(scenario, seed));
    assert!(calm.is_good(), "{calm:#?}");
    let writes = world.api().writes;
    for number in 1..=writes {
        for kill in [KillAt::Before(number), KillAt::After(number)] {
            let mut plan = plan(scenario, seed);
            plan.faults.kill_at_write = Some(kill);
            let (outcome, after) = run(plan);
            assert!(outcome.is_good(), "{kill:?}: {outcome:#?}");
            assert_eq!(outcome.kills, 1, "{kill:?}: a write of that number landed");
            // The same end, and nobody had a slot more or less for it.
            assert_eq!(outcome.broken, calm.broken, "{kill:?}");
            assert_eq!(outcome.slots, calm.slots, "{kill:?}");
            for ((_, one), (_, other)) in after.api().shoots.iter().zip(&world.api().shoots) {
                assert_eq!(one.promoted, other.promoted, "{kill:?}");
                let halted = |state: &rootstock_core::state::State| {
                    let candidate = state.candidate.as_ref()?;
                    Some((candidate.digests.clone(), candidate.halted.as_ref()?.why))
                };
                assert_eq!(halted(one), halted(other), "{kill:?}");
            }
            let works = |world: &crate::world::World| {
                world.nodes().map(crate::node::Node::works).collect::<Vec<_>>()
            };
            assert_eq!(works(&after), works(&world), "{kill:?}");
        }
    }
    writes
}

#[test]
fn an_upgrade_ends_the_same_wherever_its_controller_was_killed() {
    let writes = at_every_write(Scenario::Upgrade, 1);
    assert!(writes >= 12, "{writes}");
    let target = plan(Scenario::Upgrade, 1).target;
    let (_, world) = run(plan(Scenario::Upgrade, 1));
    assert_eq!(world.api().shoots[0].1.promoted, digests(target));
}

#[test]
fn a_bad_bundle_breaks_no_other_node_wherever_its_controller_was_killed() {
    for seed in 0..3 {
        let writes = at_every_write(Scenario::BadBundle, seed);
        assert!(writes >= 3, "{writes}");
    }
}

#[test]
fn a_silent_bundle_silences_no_other_node_wherever_its_controller_was_killed() {
    // Of two seeds one has its silent nodes replaced before their slot ends.
    for seed in 1..=2 {
        let writes = at_every_write(Scenario::SilentBundle, seed);
        assert!(writes >= 3, "{writes}");
        let (outcome, world) = run(plan(Scenario::SilentBundle, seed));
        let candidate = world.api().shoots[0].1.candidate.as_ref().unwrap();
        assert_eq!(candidate.halted.as_ref().unwrap().why, Why::CanaryLost);
        assert_eq!((outcome.broken, outcome.slots), (1, 1));
        assert_eq!(world.nodes().any(|node| node.dead), seed == 2);
    }
}

#[test]
fn rings_stop_a_bad_bundle_wherever_their_controller_was_killed() {
    let writes = at_every_write(Scenario::ManyShootsBad, 1);
    assert!(writes >= 7, "{writes}");
}

#[test]
fn a_controller_that_tells_before_it_records_is_found_out() {
    let (_, world) = run(plan(Scenario::Upgrade, 1));
    let kills = 1..=world.api().writes;
    let seen = kills.flat_map(|number| {
        let mut plan = plan(Scenario::Upgrade, 1);
        plan.settings.hasty = true;
        plan.faults.kill_at_write = Some(KillAt::Before(number));
        run(plan).0.violations
    });
    let laws: Vec<_> = seen.map(|violation| violation.law).collect();
    assert!(laws.contains(&Law::WithoutSlot), "{laws:?}");
}
