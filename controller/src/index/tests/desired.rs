//! What a node is sent, and under which number.

use rootstock_core::desired::DesiredContent;

use super::*;

#[test]
fn a_node_is_sent_nothing_before_everything_is_known() {
    let index = Index::new(BinaryRoots::default()).at_once();
    assert_eq!(index.connect(&id("1"), None).unwrap_err(), Refused::NotSynced);
    index.nodes_listed(&shoot(), &[node("1", false)]);
    assert_eq!(generation(&index), None, "the seed is not listed");
    put_bundle(&index, Resolution::Pending);
    index.seed_listed(&[runtime(pool_a(), false).into()]);
    assert_eq!(generation(&index), None, "the bundle is being looked up");
    put_bundle(&index, resolved());
    assert_eq!(generation(&index), None, "the agent's label is not there");
    let change = LabelChange { node: "n1".parse().unwrap(), set: true };
    assert_eq!(index.label_changes(&shoot()), [change]);
    index.put_node(&shoot(), &node("1", true));
    assert_eq!(index.label_changes(&shoot()), []);
    assert_eq!(generation(&index), Some(1));
}

#[test]
fn generations_follow_what_the_node_holds() {
    let index = ready();
    let desired = index.connect(&id("1"), None).unwrap().borrow().clone().unwrap();
    let hash = rootstock_proto::desired::content_hash(&desired.content);
    // It holds this content under a higher number, from another control plane.
    let same = index.connect(&id("1"), Some((Generation(7), hash))).unwrap();
    assert_eq!(same.borrow().as_ref().unwrap().generation, Generation(7));
    // It holds something else under a higher number.
    let other = index.connect(&id("1"), Some((Generation(9), Digest::of(b"x")))).unwrap();
    assert_eq!(other.borrow().as_ref().unwrap().generation, Generation(10));
    assert_eq!(other.borrow().as_ref().unwrap().content, desired.content);
}

#[test]
fn a_node_hears_nothing_of_a_bundle_that_is_looked_up_anew() {
    let index = ready();
    let mut desired = index.connect(&id("1"), None).unwrap();
    desired.mark_unchanged();
    put_bundle(&index, Resolution::Pending);
    assert!(!desired.has_changed().unwrap(), "it has what it is to keep");
    put_bundle(&index, bundle(b"2", &json!({})));
    let sent = desired.borrow_and_update().clone().unwrap();
    assert_eq!((sent.generation, sent.content.bundles.len()), (Generation(2), 1));

    // What else is new is not held up.
    put_bundle(&index, Resolution::Pending);
    index.put_runtime(&runtime(pool_a(), true));
    let sent = desired.borrow_and_update().clone().unwrap();
    let nothing = DesiredContent { gated: true, ..DesiredContent::default() };
    assert_eq!(**sent.content, nothing);
}

#[test]
fn nodes_that_are_alike_share_what_they_should_have() {
    let index = ready();
    let other = |name: &str, uid: &str| {
        let mut other = node(uid, true);
        other.metadata.name = Some(name.to_owned());
        other
    };
    index.nodes_listed(&shoot(), &[node("1", true), other("n2", "2")]);
    let sent = |id: &NodeId| index.connect(id, None).unwrap().borrow().clone().unwrap().content;
    let second = NodeId { name: "n2".parse().unwrap(), ..id("2") };
    assert!(Arc::ptr_eq(&sent(&id("1")), &sent(&second)));
    // One that comes later is like them.
    index.put_node(&shoot(), &other("n3", "3"));
    let third = NodeId { name: "n3".parse().unwrap(), ..id("3") };
    assert!(Arc::ptr_eq(&sent(&id("1")), &sent(&third)));
}

#[test]
fn only_the_node_itself_is_let_in() {
    let index = ready();
    assert_eq!(index.connect(&id("2"), None).unwrap_err(), Refused::UnknownNode);
    let old = index.connect(&id("1"), None).unwrap();
    // Made anew under the same name: the old one's stream ends.
    index.put_node(&shoot(), &node("2", true));
    assert!(old.has_changed().is_err());
    assert!(index.connect(&id("2"), None).is_ok());
}

#[test]
fn a_bundle_that_fails_later_leaves_the_node_as_it_is() {
    let index = ready();
    let desired = index.connect(&id("1"), None).unwrap();
    put_bundle(&index, Resolution::Failed(Problem::new(Reason::BundleNotFound, "gone")));
    let content = desired.borrow().as_ref().unwrap().content.clone();
    assert!(content.bundles.is_empty());
    assert_eq!(content.keep, [gvisor()].into());
    let [bundle, _, system] = index.summary(&key()).unwrap().conditions;
    assert_eq!((bundle.reason.as_str(), system.status), ("BundleNotFound", ConditionStatus::False));
}

#[test]
fn a_resource_that_becomes_unreadable_leaves_the_node_as_it_is() {
    let index = ready();
    let desired = index.connect(&id("1"), None).unwrap();
    let bad = json!({"matchExpressions": [{"key": "a", "operator": "Near"}]});
    index.put_runtime(&runtime(bad, false));
    assert_eq!(desired.borrow().as_ref().unwrap().content.keep, [gvisor()].into());
    let [_, nodes, _] = index.summary(&key()).unwrap().conditions;
    assert_eq!(nodes.reason, "SelectorInvalid");
}

#[test]
fn a_type_that_no_catalog_entry_names_is_a_problem_of_the_resource() {
    let index = ready();
    index.put_bundles(BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
    let problem = index.problem(&runtime(pool_a(), false)).unwrap();
    assert_eq!(problem.reason, Reason::TypeUnknown);
    let [_, nodes, system] = index.summary(&key()).unwrap().conditions;
    assert_eq!((nodes.reason.as_str(), system.reason.as_str()), ("TypeUnknown", "TypeUnknown"));
}

#[test]
fn a_way_back_has_a_number_of_its_own() {
    let index = ready();
    let first = index.connect(&id("1"), None).unwrap().borrow().clone().unwrap();
    let content = rootstock_proto::desired::content_hash(&first.content);
    // A new leader, and a node that has exactly this under an older number.
    let stream = index.connect(&id("1"), Some((Generation(41), content))).unwrap();
    let now = || stream.borrow().as_ref().map(|desired| desired.generation.0).unwrap();
    assert_eq!(now(), 41);
    put_bundle(&index, bundle(b"next", &json!({})));
    assert_eq!(now(), 42);
    put_bundle(&index, resolved());
    assert_eq!(now(), 43, "the node would refuse an older one");
    // Whoever went in the meantime says what it holds when it comes.
    let stream = index.connect(&id("1"), Some((Generation(41), content))).unwrap();
    assert_eq!(stream.borrow().as_ref().unwrap().generation.0, 41);
}

#[test]
fn rollouts_decide_nothing_while_a_bundle_is_looked_up() {
    let index = ready();
    let complete = || index.survey(&shoot()).unwrap().complete;
    assert!(complete());
    put_bundle(&index, Resolution::Pending);
    assert!(!complete(), "the others would be activated by themselves");
    let away = rootstock_core::assign::Problem::new(Reason::RegistryUnreachable, "away");
    put_bundle(&index, Resolution::Failed(away));
    assert!(complete(), "a registry that is away holds nobody up");
}
