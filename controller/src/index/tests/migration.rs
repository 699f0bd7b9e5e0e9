//! Shoots that come, go and move.

use super::*;

fn migrating(operation: &str) -> ContainerRuntime {
    let mut object = runtime(pool_a(), false);
    let annotation = (crate::api::OPERATION.to_owned(), operation.to_owned());
    object.metadata.annotations = Some([annotation].into());
    object
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
fn a_cluster_that_comes_back_finds_all_that_is_asked_for() {
    let index = Index::new(BinaryRoots::default()).at_once();
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
    let again = Index::new(BinaryRoots::default()).at_once();
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
    let content = index.connect(&id("1"), None).unwrap().borrow().clone().unwrap().content;
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
        let index = Index::new(BinaryRoots::default()).at_once();
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
        let index = Index::new(BinaryRoots::default()).at_once();
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
