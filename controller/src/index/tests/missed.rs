//! Whose agent is expected, and whose is missed, from the beginning of a term.

use rootstock_core::digest::Digest;
use rootstock_core::rollout::view::Link;

use super::*;
use crate::index::Missed;
use crate::index::rollout::link;

fn named(names: &[&str]) -> Missed {
    Missed::Named(names.iter().map(|name| name.parse().unwrap()).collect())
}

/// Whether the node's agent is missed at a moment.
fn is_missed(index: &Index, now: Instant) -> bool {
    let name = "n1".parse().unwrap();
    index.lock().shoots[&shoot()].nodes[&name].arrival(now).0 == Connection::Missing
}

fn soon() -> Instant {
    Instant::now() + RETURN
}

#[test]
fn a_change_of_leader_makes_nobody_expected_anew_who_was_missed() {
    let table = [
        (named(&["n1"]), true, "it is named"),
        (named(&["n2"]), false, "another one is"),
        (named(&[]), false, "nobody was"),
        (Missed::More, true, "more than are named"),
    ];
    for (before, missed, why) in table {
        let index = ready();
        index.forget_agents();
        index.missed_before(&key(), || before);
        assert!(!is_missed(&index, Instant::now()), "{why}: it may be on its way back");
        assert_eq!(is_missed(&index, soon()), missed, "{why}");
        let look_again = index.summary(&key()).unwrap().look_again.unwrap();
        assert_eq!(look_again <= RETURN, missed, "{why}");
        // It is there after all.
        index.connect(&id("1"), None).unwrap();
        assert!(!is_missed(&index, soon()), "{why}");
    }
}

#[test]
fn what_is_listed_after_the_term_began_is_remembered_too() {
    let index = Index::new(BinaryRoots::default()).at_once();
    index.forget_agents();
    put_bundle(&index, resolved());
    index.seed_listed(&[runtime(pool_a(), false).into()]);
    index.missed_before(&key(), || named(&["n1"]));
    index.nodes_listed(&shoot(), &[node("1", true)]);
    assert!(is_missed(&index, soon()));
}

#[test]
fn only_the_first_word_in_a_term_is_of_the_leader_before() {
    let index = ready();
    index.missed_before(&key(), || panic!("there is no term"));
    index.forget_agents();
    index.missed_before(&key(), || named(&[]));
    index.missed_before(&key(), || panic!("it is this leader's own word"));
    assert!(!is_missed(&index, soon()));
    index.forget_agents();
    index.missed_before(&key(), || named(&["n1"]));
    assert!(is_missed(&index, soon()));
    index.forget_agents();
    assert!(!is_missed(&index, soon()), "another leader came between");
    // What was missed for one runtime says nothing of another's nodes.
    let other = RuntimeKey { name: "kata-a".to_owned(), ..key() };
    index.missed_before(&other, || Missed::More);
    assert!(!is_missed(&index, soon()));
}

#[test]
fn a_term_begins_without_what_agents_said_in_another() {
    let index = ready();
    drop(index.connect(&id("1"), None).unwrap());
    index.report(&id("1"), Generation(1), report(Phase::Proven));
    index.take_dirty();
    let ready = |index: &Index| index.summary(&key()).unwrap().ready;
    assert_eq!(ready(&index), 1);
    index.forget_agents();
    assert_eq!(index.take_dirty(), [key()]);
    assert_eq!(ready(&index), 0);
    let pending = |now| index.removal_pending(&key(), now).map(|all| all.len());
    index.put_runtime(&runtime(pool_a(), true));
    assert_eq!(pending(Instant::now()), Some(1), "its agent is expected from here on");
}

#[test]
fn an_agent_that_never_comes_is_missed_once_it_was_expected_for_long() {
    let read = |agent| NodeObject::read(&node("1", agent), Default::default()).unwrap();
    let long = node::ARRIVAL;
    let mut known = node::Node::new(read(false));
    let begun = Instant::now();
    assert_eq!(known.arrival(begun + 2 * long), (Connection::Never, None), "it has no mark");
    known.renew(read(true));
    let (connection, left) = known.arrival(Instant::now());
    assert_eq!(connection, Connection::Never);
    assert!(left.unwrap() > long - Duration::from_secs(60));
    let later = Instant::now() + long;
    assert_eq!(known.arrival(later), (Connection::Missing, None));
    known.connection = Connection::Open;
    assert_eq!(known.arrival(later), (Connection::Open, None));
    // The status is looked at again by then, though nothing changes.
    let index = ready();
    let left = index.summary(&key()).unwrap().look_again.unwrap();
    assert!(left <= long && left > long - Duration::from_secs(60));
    index.connect(&id("1"), None).unwrap();
    assert_eq!(index.summary(&key()).unwrap().look_again, None);
}

#[test]
fn an_agent_that_is_here_and_says_nothing_is_not_awaited_for_ever() {
    let index = ready();
    let seen = |now| {
        let state = index.lock();
        link(&state.shoots[&shoot()].nodes[&"n1".parse().unwrap()], None, now)
    };
    let held = Some((Generation(1), Digest::of(b"what it has")));
    let _stream = index.connect(&id("1"), held).unwrap();
    assert_eq!(seen(Instant::now()), Link::Awaited);
    assert_eq!(seen(soon()), Link::Away { was_ready: true });
    // Its first word makes up for that, however late it is.
    index.report(&id("1"), Generation(1), report(Phase::Proven));
    assert_eq!(seen(soon()), Link::Here);
}
