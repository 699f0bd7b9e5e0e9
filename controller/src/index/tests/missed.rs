//! Whose agent was missed when a term began.

use super::*;
use crate::index::Missed;

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
    let index = Index::new(BinaryRoots::default());
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
