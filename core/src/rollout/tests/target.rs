//! What is to be tried, as the catalog and the seed say.

use serde_json::json;

use super::world::{AMD, World, digest, soaking};
use crate::rollout::Give;
use crate::rollout::progress::Phase;
use crate::rollout::record::Stage;
use crate::rollout::view::{Seed, Standing};

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
