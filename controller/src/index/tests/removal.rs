//! A deletion, which nodes confirm.

use super::*;

#[test]
fn a_deletion_is_done_when_the_node_has_said_so() {
    let index = ready();
    let desired = index.connect(&id("1"), None).unwrap();
    let told = |d: &watch::Receiver<Option<crate::content::Offered>>| {
        d.borrow().as_ref().unwrap().generation
    };
    index.report(&id("1"), told(&desired), report(Phase::Loaded));
    assert_eq!(index.summary(&key()).unwrap().conditions[1].status, ConditionStatus::True);
    assert_eq!(index.removal_pending(&key(), Instant::now()), None, "it is not being deleted");

    index.put_runtime(&runtime(pool_a(), true));
    assert!(desired.borrow().as_ref().unwrap().content.bundles.is_empty());
    let pending = || index.removal_pending(&key(), Instant::now()).unwrap().len();
    assert_eq!(pending(), 1, "it was told and has not answered");
    index.report(&id("1"), told(&desired), report(Phase::InUse));
    assert_eq!(pending(), 1, "pods still use it");
    assert_eq!(index.label_changes(&shoot()), [], "the agent stays until then");
    index.report(&id("1"), told(&desired), report(Phase::Removed));
    assert_eq!(pending(), 0);
    let change = LabelChange { node: "n1".parse().unwrap(), set: false };
    assert_eq!(index.label_changes(&shoot()), [change]);
}

#[test]
fn a_node_that_is_away_holds_no_deletion_up() {
    let index = ready();
    index.connect(&id("1"), None).unwrap();
    index.put_runtime(&runtime(pool_a(), true));
    let pending = |now| index.removal_pending(&key(), now).unwrap().len();
    assert_eq!(pending(Instant::now() + RETURN), 1);
    index.disconnect(&id("1"));
    assert_eq!(pending(Instant::now()), 1, "it may be back in a moment");
    assert_eq!(pending(Instant::now() + RETURN), 0);
    assert_eq!(index.label_changes(&shoot()), [], "its agent cleans up when it is back");
}

#[test]
fn a_deletion_waits_for_what_a_controller_that_starts_does_not_know_yet() {
    let index = Index::new(BinaryRoots::default()).at_once();
    put_bundle(&index, resolved());
    assert_eq!(index.removal_pending(&key(), Instant::now()), None, "the seed is not listed");
    index.seed_listed(&[runtime(pool_a(), true).into()]);
    assert_eq!(index.removal_pending(&key(), Instant::now()), None, "the nodes are not listed");
    index.nodes_listed(&shoot(), &[node("1", true)]);
    let pending = |now| index.removal_pending(&key(), now).unwrap().len();
    let now = Instant::now();
    assert_eq!((pending(now), pending(now + RETURN)), (1, 0), "its agent may come back");
    // A node that never had an agent has nothing to say.
    index.put_node(&shoot(), &node("1", false));
    assert_eq!(pending(Instant::now()), 0);

    index.put_shoot_state(&shoot(), ShootState::Hibernated);
    assert_eq!(pending(Instant::now()), 0, "nobody is left to say anything");
}

#[test]
fn a_node_that_is_away_is_waited_for_until_a_known_time() {
    let index = ready();
    index.connect(&id("1"), None).unwrap();
    index.put_runtime(&runtime(pool_a(), true));
    assert_eq!(index.removal_gives_up(&key(), Instant::now()), None, "it is connected");
    index.disconnect(&id("1"));
    let now = Instant::now();
    let until = index.removal_gives_up(&key(), now).unwrap();
    assert!(until > now && until <= now + RETURN);
    assert_eq!(index.removal_pending(&key(), until).unwrap(), []);
    assert_eq!(index.removal_gives_up(&key(), until), None);
}
