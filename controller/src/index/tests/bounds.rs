//! What one shoot takes, and how much work there is.

use super::*;

#[test]
fn what_may_have_changed_is_looked_at_once() {
    let index = ready();
    assert_eq!(index.take_dirty(), [key()]);
    assert_eq!(index.take_dirty(), []);
    index.connect(&id("1"), None).unwrap();
    assert_eq!(index.take_dirty(), [key()]);
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
    assert_eq!((first.selected, first.ready), (1, 0));
    assert_eq!(index.summary(&key()).unwrap().slowest, first.slowest);
    assert_eq!(index.lock().unready.len(), 1);
    index.report(&id("1"), generation, report(Phase::Loaded));
    assert_eq!(index.take_dirty(), [key()]);
    assert_eq!(index.summary(&key()).unwrap().slowest, []);
    assert!(index.lock().unready.is_empty());
}
