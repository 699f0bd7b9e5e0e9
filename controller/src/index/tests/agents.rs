//! Where a Pod of the agent lives, and where none is left.

use super::*;
use crate::index::AgentPod;

fn pod(uid: &str, lives: bool) -> AgentPod {
    AgentPod { node: "n1".parse().unwrap(), uid: uid.parse().unwrap(), lives }
}

fn vouch(index: &Index, uid: &str) {
    index.vouch(&id("1"), &uid.parse().unwrap());
}

fn refused(index: &Index) -> Option<Refused> {
    index.connect(&id("1"), None).err()
}

#[test]
fn nobody_lacks_an_agent_before_all_pods_are_known() {
    let index = ready();
    let stream = index.connect(&id("1"), None).unwrap();
    index.put_agent(&shoot(), pod("a", true));
    index.put_agent(&shoot(), pod("a", false));
    assert!(stream.has_changed().is_ok() && !index.lacks_agent(&id("1")));
    index.agents_being_listed(&shoot());
    assert!(stream.has_changed().is_ok());
    index.agents_listed(&shoot(), vec![]);
    assert!(stream.has_changed().is_err() && index.lacks_agent(&id("1")));
    assert_eq!(refused(&index), Some(Refused::NoAgent));
    index.agents_unknown(&shoot());
    assert_eq!(refused(&index), None);
    // A node that is not there is told so, whatever lives on it.
    index.agents_listed(&shoot(), vec![]);
    assert_eq!(index.connect(&id("2"), None).unwrap_err(), Refused::UnknownNode);
}

#[test]
fn a_stream_ends_with_the_last_pod_and_the_state_goes_on() {
    let index = ready();
    index.agents_listed(&shoot(), vec![pod("a", true)]);
    let stream = index.connect(&id("1"), None).unwrap();
    let before = stream.borrow().clone();
    // Two for a moment: one that is forced away, and the next.
    index.put_agent(&shoot(), pod("b", true));
    index.put_agent(&shoot(), pod("b", true));
    index.put_agent(&shoot(), pod("a", false));
    assert!(stream.has_changed().is_ok());
    index.put_agent(&shoot(), pod("b", false));
    assert!(stream.has_changed().is_err());
    index.disconnect(&id("1"));
    index.put_agent(&shoot(), pod("c", true));
    assert_eq!(*index.connect(&id("1"), None).unwrap().borrow(), before);
}

#[test]
fn who_enrols_is_in_before_the_watch_has_told() {
    let index = ready();
    index.agents_listed(&shoot(), vec![]);
    vouch(&index, "a");
    let stream = index.connect(&id("1"), None).unwrap();
    index.put_agent(&shoot(), pod("a", true));
    index.put_agent(&shoot(), pod("a", false));
    assert!(stream.has_changed().is_err());
    // It was seen alive before it ended, and that is said late.
    vouch(&index, "a");
    assert_eq!(refused(&index), Some(Refused::NoAgent));
    vouch(&index, "b");
    assert_eq!(refused(&index), None);
}

#[test]
fn a_list_that_is_older_than_an_enrolment_ends_nothing() {
    let index = ready();
    vouch(&index, "a");
    index.agents_being_listed(&shoot());
    vouch(&index, "b");
    let stream = index.connect(&id("1"), None).unwrap();
    index.agents_listed(&shoot(), vec![]);
    assert!(stream.has_changed().is_ok());
    index.put_agent(&shoot(), pod("b", false));
    assert!(stream.has_changed().is_err(), "the list knew of the first one's end");
}

#[test]
fn more_pods_than_are_borne_end_nothing() {
    let index = ready();
    let many = |n| AgentPod { node: format!("m{n}").parse().unwrap(), ..pod("a", true) };
    index.agents_listed(&shoot(), (0..MAX_NODES).map(many).collect());
    assert!(index.lacks_agent(&id("1")));
    index.put_agent(&shoot(), pod("a", true));
    assert!(!index.lacks_agent(&id("1")));
    let other = NodeId { name: "n2".parse().unwrap(), ..id("1") };
    assert!(!index.lacks_agent(&other), "it may be one that had no room");
}

#[test]
fn nothing_is_kept_of_nodes_that_are_gone() {
    let index = ready();
    let kept = || index.lock().shoots[&shoot()].agents.nodes();
    index.agents_listed(&shoot(), vec![pod("a", true)]);
    assert_eq!(kept(), 1);
    // The Node goes first, its Pod after it; or the other way round.
    index.remove_node(&shoot(), &"n1".parse().unwrap());
    assert_eq!(kept(), 1);
    index.put_agent(&shoot(), pod("a", false));
    assert_eq!(kept(), 0);
    index.put_node(&shoot(), &node("2", true));
    index.put_agent(&shoot(), pod("b", true));
    index.put_agent(&shoot(), pod("b", false));
    assert_eq!(kept(), 1, "it may be vouched for late");
    index.remove_node(&shoot(), &"n1".parse().unwrap());
    assert_eq!(kept(), 0);
    index.agents_listed(&shoot(), vec![pod("a", true)]);
    index.put_shoot_state(&shoot(), ShootState::Hibernated);
    assert_eq!(kept(), 0);
    assert!(!index.lacks_agent(&id("1")), "they have yet to be listed");
}
