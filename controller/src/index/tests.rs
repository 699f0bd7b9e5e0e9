mod agents;
mod missed;
mod takeover;

use crate::home::Home;
use crate::scripted::merge;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Node as NodeResource;
use rootstock_core::assign::{AGENT_LABEL, Problem, ResolvedBundle};
use rootstock_core::bundle::ConfigBlob;
use rootstock_core::desired::Generation;
use rootstock_core::digest::Digest;
use rootstock_core::name::Architecture;
use rootstock_core::rollup::{ConditionStatus, Connection};
use rootstock_core::status::{BundleReport, Phase, Reason};
use serde_json::{Value, json};

use super::node::RETURN;
use super::*;
use crate::grpc::Refused;
use crate::identity::NodeId;

pub(super) fn shoot() -> ShootName {
    "shoot--garden--one".parse().unwrap()
}

pub(super) fn gvisor() -> RuntimeType {
    "gvisor".parse().unwrap()
}

pub(super) fn runtime(selector: Value, deleted: bool) -> ContainerRuntime {
    let mut object = json!({
        "apiVersion": "extensions.gardener.cloud/v1alpha1", "kind": "ContainerRuntime",
        "metadata": {"name": "gvisor-a", "namespace": "shoot--garden--one"},
        "spec": {"type": "gvisor", "binaryPath": "/var/bin/containerruntimes",
                 "workerPool": {"name": "a", "selector": selector}},
    });
    if deleted {
        object["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
    }
    serde_json::from_value(object).unwrap()
}

pub(super) fn pool_a() -> Value {
    json!({"matchLabels": {"worker.gardener.cloud/pool": "a"}})
}

pub(super) fn key() -> RuntimeKey {
    RuntimeKey { shoot: shoot(), name: "gvisor-a".to_owned() }
}

pub(super) fn node(uid: &str, agent: bool) -> NodeResource {
    let mut node = json!({"metadata": {"name": "n1", "uid": uid, "labels": {
        "worker.gardener.cloud/pool": "a",
        "worker.gardener.cloud/cri-name": "containerd",
        "containerruntime.worker.gardener.cloud/gvisor": "true",
        "kubernetes.io/arch": "amd64",
    }}});
    if agent {
        node["metadata"]["labels"][AGENT_LABEL] = "true".into();
    }
    serde_json::from_value(node).unwrap()
}

pub(super) fn id(uid: &str) -> NodeId {
    NodeId { shoot: shoot(), name: "n1".parse().unwrap(), uid: uid.parse().unwrap() }
}

/// The bundle of gvisor for one platform, by its content; `more` is merged into
/// its config blob.
pub(crate) fn bundle(content: &[u8], more: &Value) -> Resolution {
    let empty = Digest::of(b"");
    let mut config = json!({
        "type": "gvisor", "version": "1",
        "files": [{"path": "runsc", "mode": "0755", "size": 0, "sha256": empty.hex(),
                   "blob": empty.to_string(), "blobSize": 0}],
        "entryPoints": ["runsc"],
        "handlers": [{"name": "runsc", "runtimeType": "io.containerd.runsc.v1", "shim": "runsc"}],
    });
    merge(&mut config, more);
    let bundle = ResolvedBundle {
        digest: Digest::of(content),
        registry: "main".into(),
        repository: "rootstock/gvisor".into(),
        config: ConfigBlob::parse(config.to_string().as_bytes()).unwrap(),
    };
    Resolution::Resolved([(Architecture::Amd64, Ok(bundle))].into())
}

pub(super) fn resolved() -> Resolution {
    bundle(b"gvisor", &json!({}))
}

pub(super) fn put_bundle(index: &Index, resolution: Resolution) {
    let reference = [(gvisor(), "main/rootstock/gvisor:1".to_owned())].into();
    index.put_bundles(reference, [(gvisor(), resolution)].into(), BTreeMap::new());
}

/// Everything is known, and the node has the agent's label.
pub(super) fn ready() -> Index {
    let index = Index::new(BinaryRoots::default());
    put_bundle(&index, resolved());
    index.seed_listed(&[runtime(pool_a(), false).into()]);
    index.nodes_listed(&shoot(), &[node("1", true)]);
    index
}

fn report(phase: Phase) -> Vec<BundleReport> {
    let mut report = BundleReport::new(gvisor(), phase);
    report.digest = Some(Digest::of(b"gvisor"));
    vec![report]
}

fn generation(index: &Index) -> Option<u64> {
    let desired = index.connect(&id("1"), None).unwrap();
    let desired = desired.borrow();
    desired.as_ref().map(|desired| desired.generation.0)
}

#[test]
fn a_node_is_sent_nothing_before_everything_is_known() {
    let index = Index::new(BinaryRoots::default());
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
fn a_deletion_is_done_when_the_node_has_said_so() {
    let index = ready();
    let desired = index.connect(&id("1"), None).unwrap();
    let told = |d: &watch::Receiver<Option<std::sync::Arc<rootstock_core::desired::Desired>>>| {
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
fn a_type_that_no_catalog_entry_names_is_a_problem_of_the_resource() {
    let index = ready();
    index.put_bundles(BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
    let problem = index.problem(&runtime(pool_a(), false)).unwrap();
    assert_eq!(problem.reason, Reason::TypeUnknown);
    let [_, nodes, system] = index.summary(&key()).unwrap().conditions;
    assert_eq!((nodes.reason.as_str(), system.reason.as_str()), ("TypeUnknown", "TypeUnknown"));
}

#[test]
fn shoots_do_not_see_each_other() {
    let index = ready();
    let other: ShootName = "shoot--garden--two".parse().unwrap();
    index.nodes_listed(&other, &[node("1", true)]);
    let foreign = NodeId { shoot: other, ..id("1") };
    let desired = index.connect(&foreign, None).unwrap();
    assert!(desired.borrow().as_ref().unwrap().content.bundles.is_empty());
    assert!(index.page().nodes.iter().all(|node| node.shoot == "shoot--garden--one"));
}

#[test]
fn what_may_have_changed_is_looked_at_once() {
    let index = ready();
    assert_eq!(index.take_dirty(), [key()]);
    assert_eq!(index.take_dirty(), []);
    index.connect(&id("1"), None).unwrap();
    assert_eq!(index.take_dirty(), [key()]);
}

fn named(name: &str, kind: &str) -> ContainerRuntime {
    let mut object = runtime(pool_a(), false);
    object.metadata.name = Some(name.to_owned());
    object.metadata.uid = Some(format!("uid-{name}"));
    object.spec.runtime = kind.to_owned();
    object
}

#[test]
fn a_cluster_that_comes_back_finds_all_that_is_asked_for() {
    let index = Index::new(BinaryRoots::default());
    put_bundle(&index, resolved());
    index.seed_listed(&[named("gvisor-a", "gvisor").into(), named("kata-a", "kata").into()]);
    index.nodes_listed(&shoot(), &[node("1", true)]);
    let before = index.connect(&id("1"), None).unwrap();
    index.remove_shoot(&shoot());
    assert!(before.has_changed().is_err(), "its streams end");
    assert!(index.has_shoot(&shoot()), "its resources are still there");
    // One of them changes before the shoot's nodes are known again.
    index.put_runtime(&named("gvisor-a", "gvisor"));
    assert_eq!(index.connect(&id("1"), None).unwrap_err(), Refused::NotSynced);
    index.nodes_listed(&shoot(), &[node("1", true)]);
    let desired = index.connect(&id("1"), None).unwrap();
    let content = desired.borrow().as_ref().unwrap().content.clone();
    assert_eq!(content.bundles.len(), 1);
    let kata: RuntimeType = "kata".parse().unwrap();
    assert_eq!(content.keep, [kata].into(), "the other one is not taken away");
}

#[test]
fn nothing_is_left_of_a_shoot_that_is_gone() {
    let index = ready();
    index.remove_runtime(&key());
    assert!(index.has_shoot(&shoot()), "its nodes have something to lose");
    index.remove_shoot(&shoot());
    assert!(!index.has_shoot(&shoot()));

    let index = ready();
    index.remove_shoot(&shoot());
    index.remove_runtime(&key());
    index.remove_runtime(&key());
    assert!(!index.has_shoot(&shoot()));
    assert_eq!(index.take_dirty(), []);
}

#[test]
fn a_deletion_waits_for_what_a_controller_that_starts_does_not_know_yet() {
    let index = Index::new(BinaryRoots::default());
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
fn a_shoot_takes_only_its_share() {
    let index = ready();
    index.take_dirty();
    index.put_node(&shoot(), &node("1", true));
    assert_eq!(index.take_dirty(), [], "a heartbeat changes nothing");

    // A Node with a book of labels is not looked at; the one before stays.
    let mut loud = node("1", false);
    let labels = loud.metadata.labels.as_mut().unwrap();
    labels.extend((0..2_000).map(|n| (format!("l{n}"), "x".repeat(60))));
    index.put_node(&shoot(), &loud);
    assert_eq!(generation(&index), Some(1));

    for n in 0..MAX_NODES {
        let mut more = node(&format!("u{n}"), false);
        more.metadata.name = Some(format!("m{n}"));
        index.put_node(&shoot(), &more);
    }
    assert_eq!(index.lock().shoots[&shoot()].nodes.len(), MAX_NODES);
    index.put_node(&shoot(), &node("2", true));
    assert!(index.connect(&id("2"), None).is_ok(), "those that are known go on");
}

#[test]
fn labels_are_bounded_also_when_nodes_come_one_by_one() {
    let index = ready();
    let label = "x".repeat(60 * 1024);
    let large = |n: usize| {
        let mut large = node("1", false);
        large.metadata.name = Some(format!("l{n}"));
        large.metadata.labels.as_mut().unwrap().insert("x".into(), label.clone());
        large
    };
    let fit = MAX_LABEL_BYTES / (60 * 1024) - 5;
    for n in 0..fit + 20 {
        index.put_node(&shoot(), &large(n));
    }
    let is_known = |n: usize| {
        let id = NodeId { name: format!("l{n}").parse().unwrap(), ..id("1") };
        index.connect(&id, None).is_ok()
    };
    assert!(is_known(0) && is_known(fit - 1) && !is_known(fit + 19));
    // What goes makes room, and what was there before is not forgotten.
    assert!(index.connect(&id("1"), None).is_ok());
    for n in 0..20 {
        index.remove_node(&shoot(), &format!("l{n}").parse().unwrap());
    }
    index.put_node(&shoot(), &large(fit + 19));
    assert!(is_known(fit + 19));
    index.nodes_listed(&shoot(), &[node("1", true)]);
    index.put_node(&shoot(), &large(0));
    assert!(is_known(0) && !is_known(fit - 1));
}

#[test]
fn ten_thousand_nodes_are_no_more_work_each_than_a_few() {
    let index = ready();
    let named = |n: usize, agent: bool| {
        let mut node = node("1", agent);
        node.metadata.name = Some(format!("n{n}"));
        node
    };
    let begun = Instant::now();
    let nodes: Vec<_> = (0..10_000).map(|n| named(n, false)).collect();
    index.nodes_listed(&shoot(), &nodes);
    let listed = begun.elapsed();
    assert_eq!(index.label_changes(&shoot()).len(), 10_000);
    // Each Node gets its mark and an agent, which says that it is done.
    for n in 0..10_000 {
        index.put_node(&shoot(), &named(n, true));
        let id = NodeId { name: format!("n{n}").parse().unwrap(), ..id("1") };
        let desired = index.connect(&id, None).unwrap().borrow().clone().unwrap();
        index.report(&id, desired.generation, report(Phase::Loaded));
    }
    assert_eq!(index.label_changes(&shoot()), []);
    let took = begun.elapsed();
    // 30,000 steps that each looked at all Nodes would be 300 million looks: minutes.
    assert!(took < std::time::Duration::from_secs(60), "{listed:?}, then {took:?}");
}

#[test]
fn a_change_of_one_shoot_wakes_nobody_of_another() {
    let index = ready();
    let (mine, other) = (shoot(), "shoot--garden--two".parse().unwrap());
    index.nodes_listed(&other, &[node("1", true)]);
    let before = (index.change_of(&mine), index.change_of(&other));
    assert_ne!(before.0, before.1);
    index.put_node(&other, &node("2", true));
    assert_eq!(index.change_of(&mine), before.0);
    assert_ne!(index.change_of(&other), before.1);
    index.report(&id("1"), Generation(1), report(Phase::Loaded));
    assert_ne!(index.change_of(&mine), before.0);
}

#[test]
fn bytes_alone_are_no_change_and_a_node_is_unready_since_it_was() {
    let index = ready();
    let generation = index.connect(&id("1"), None).unwrap().borrow().as_ref().unwrap().generation;
    let pulling = |bytes| {
        let mut reports = report(Phase::Pulling);
        reports[0].bytes_done = bytes;
        reports
    };
    index.report(&id("1"), generation, pulling(1));
    index.take_dirty();
    index.report(&id("1"), generation, pulling(2));
    assert_eq!(index.take_dirty(), []);
    assert_eq!(index.page().nodes[0].bundles[0]["bytesDone"], 2, "the page has them");
    let first = index.summary(&key()).unwrap();
    assert_eq!((first.selected, first.ready, first.under_way), (1, 0, true));
    assert_eq!(index.summary(&key()).unwrap().slowest, first.slowest);
    assert_eq!(index.lock().unready.len(), 1);
    index.report(&id("1"), generation, report(Phase::Loaded));
    assert_eq!(index.take_dirty(), [key()]);
    assert_eq!(index.summary(&key()).unwrap().slowest, []);
    assert!(index.lock().unready.is_empty());
}

fn migrating(operation: &str) -> ContainerRuntime {
    let mut object = runtime(pool_a(), false);
    let annotation = (crate::api::OPERATION.to_owned(), operation.to_owned());
    object.metadata.annotations = Some([annotation].into());
    object
}

#[test]
fn a_shoot_that_moves_away_is_left_as_it_is() {
    let index = ready();
    let desired = index.connect(&id("1"), None).unwrap();
    let before = desired.borrow().clone().unwrap();
    let mut turned = index.new_shoots();
    turned.mark_unchanged();
    index.put_runtime(&migrating("migrate"));
    assert!(turned.has_changed().unwrap() && index.is_suspended(&shoot()));
    assert!(desired.has_changed().is_err(), "its streams end");
    assert_eq!(desired.borrow().as_ref(), Some(&before), "and say nothing first");
    // Nothing that is seen of it matters, and nothing is said of it.
    index.nodes_listed(&shoot(), &[node("1", true)]);
    index.put_node(&shoot(), &node("1", true));
    index.put_shoot_state(&shoot(), ShootState::Unreachable("gone".to_owned()));
    assert_eq!(index.connect(&id("1"), None).unwrap_err(), Refused::NotSynced);
    assert_eq!((index.label_changes(&shoot()), index.summary(&key())), (vec![], None));

    // A controller that starts sees the same.
    let again = Index::new(BinaryRoots::default());
    again.seed_listed(&[migrating("migrate").into()]);
    assert!(again.is_suspended(&shoot()));

    // Its resource was taken along, and not given up: what another one of the
    // shoot says meanwhile uninstalls nothing.
    index.put_runtime(&named("kata-a", "kata"));
    index.remove_runtime(&key());
    index.nodes_listed(&shoot(), &[node("1", true)]);
    assert_eq!(index.connect(&id("1"), None).unwrap_err(), Refused::NotSynced);
    // It is back under its name.
    turned.mark_unchanged();
    index.put_runtime(&migrating("restore"));
    assert!(turned.has_changed().unwrap() && !index.is_suspended(&shoot()));
    index.nodes_listed(&shoot(), &[node("1", true)]);
    let content = index.connect(&id("1"), None).unwrap().borrow().clone().unwrap().content.clone();
    assert_eq!(content.bundles, before.content.bundles);
}

#[test]
fn after_a_restore_a_node_has_nothing_to_do() {
    let held = |generation: u64, index: &Index| {
        let desired = index.connect(&id("1"), None).unwrap().borrow().clone().unwrap();
        (Generation(generation), rootstock_proto::desired::content_hash(&desired.content))
    };
    // On another seed, and on one that was restored from an older backup, the
    // node is ahead of a controller that begins at one.
    for restored in [migrating("wait-for-state"), migrating("restore"), runtime(pool_a(), false)] {
        let index = Index::new(BinaryRoots::default());
        put_bundle(&index, Resolution::Pending);
        index.seed_listed(&[restored.into()]);
        index.nodes_listed(&shoot(), &[node("1", true)]);
        let early = index.connect(&id("1"), None).unwrap();
        assert_eq!(*early.borrow(), None, "what is not resolved is not sent");
        put_bundle(&index, resolved());
        let held = held(41, &index);
        let desired = index.connect(&id("1"), Some(held)).unwrap().borrow().clone().unwrap();
        assert_eq!(desired.generation, held.0, "the same number, the same content");
        assert_eq!(rootstock_proto::desired::content_hash(&desired.content), held.1);
        // What changes later is taken by the node.
        let later = index.connect(&id("1"), Some(held)).unwrap();
        index.put_runtime(&runtime(pool_a(), true));
        assert_eq!(later.borrow().as_ref().unwrap().generation, Generation(42));
    }
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

/// gardenlet deletes what has migrated one by one, and the controller may be
/// started anew between any two.
#[test]
fn a_controller_that_starts_in_the_middle_of_a_migration_uninstalls_nothing() {
    let migrated = |name: &str| {
        let mut object = named(name, name.split('-').next().unwrap());
        let last = json!({"lastOperation": {"type": "Migrate", "state": "Succeeded",
            "description": "", "progress": 100, "lastUpdateTime": "2026-01-01T00:00:00Z"}});
        object.status = serde_json::from_value(last).unwrap();
        object
    };
    // gvisor-a was there, and is gone; kata-a has migrated, is being deleted or
    // has yet to be asked, and in the end nothing is left.
    let mut deleted = migrated("kata-a");
    deleted.metadata.deletion_timestamp = runtime(pool_a(), true).metadata.deletion_timestamp;
    let unasked = named("kata-b", "kata");
    let left = [vec![migrated("kata-a")], vec![deleted], vec![migrated("kata-a"), unasked], vec![]];
    for objects in left {
        let index = Index::new(BinaryRoots::default());
        put_bundle(&index, resolved());
        let objects: Vec<_> = objects.into_iter().map(Arc::new).collect();
        index.seed_listed(&objects);
        assert_eq!(index.is_suspended(&shoot()), !objects.is_empty());
        if objects.is_empty() {
            // Nobody looks after a shoot without resources.
            assert!(!index.has_runtimes(&shoot()));
            continue;
        }
        index.nodes_listed(&shoot(), &[node("1", true)]);
        assert_eq!(index.connect(&id("1"), None).unwrap_err(), Refused::NotSynced);
        assert_eq!(index.label_changes(&shoot()), []);
        for object in &objects {
            index.remove_runtime(&Home::Seed.key(object).unwrap());
            if index.has_runtimes(&shoot()) {
                index.nodes_listed(&shoot(), &[node("1", true)]);
            }
            assert_eq!(index.connect(&id("1"), None).unwrap_err(), Refused::NotSynced);
        }
    }
}

#[test]
fn an_agent_that_never_comes_is_missed_once_it_was_expected_for_long() {
    let read = |agent| node::NodeObject::read(&node("1", agent), Default::default()).unwrap();
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
