//! What somebody asks for.

use serde_json::json;

use super::world::{AMD, Fate, World, digest, soaking};
use crate::rollout::Permit;
use crate::rollout::progress::Phase;
use crate::rollout::record::{Command, Course, Stage, Why};
use crate::state::State;

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
