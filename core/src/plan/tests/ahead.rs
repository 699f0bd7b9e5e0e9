//! What is pulled ahead, and which types wait for a restart.

use super::*;

fn tree(version: u8) -> TreeId {
    Layout::of(&bundle("gvisor", version, json!({}))).unwrap().tree
}

fn ahead(keep: &[&str], bundles: &[u8], prefetch: &[u8]) -> DesiredContent {
    let of = |versions: &[u8]| versions.iter().map(|v| bundle("gvisor", *v, json!({}))).collect();
    DesiredContent {
        bundles: of(bundles),
        prefetch: of(prefetch),
        keep: keep.iter().map(|name| runtime(name)).collect(),
        ..DesiredContent::default()
    }
}

#[test]
fn what_comes_ahead_is_complete_and_nothing_leads_to_it() {
    for want in [ahead(&["gvisor"], &[], &[2]), ahead(&[], &[1], &[2]), ahead(&[], &[], &[2])] {
        let (node, restarts) = settle(&want, Observed::default());
        assert_eq!(restarts, want.bundles.len());
        assert_eq!(node.trees[&tree(2)].state, TreeState::Complete);
        let paths = node.tables.values().flatten().flat_map(HandlerTable::paths);
        assert!(!paths.into_iter().any(|path| tree(2).concerns(path)), "{node:?}");
        assert!(
            !node
                .links
                .values()
                .any(|to| matches!(to, LinkState::Ours(to) if to.contains(&tree(2).name())))
        );
        // To activate it nothing is pulled.
        assert_eq!(plan(&ahead(&[], &[2], &[]), &node).pulls, BTreeSet::new());
    }
}

#[test]
fn of_a_type_that_stays_one_bundle_is_there_ahead() {
    let (node, _) = settle(&ahead(&[], &[1], &[2]), Observed::default());
    let all = |node: &Observed| node.trees.keys().cloned().collect::<BTreeSet<_>>();
    // Nobody knows what comes next: it stays.
    let (stays, _) = settle(&ahead(&["gvisor"], &[], &[]), node.clone());
    assert_eq!(all(&stays), [tree(1), tree(2)].into());
    let (third, restarts) = settle(&ahead(&["gvisor"], &[], &[3]), node.clone());
    assert_eq!((all(&third), restarts), ([tree(1), tree(3)].into(), 0));
    // What was activated stays, also when somebody else took its table out.
    let mut lost = node;
    (lost.tables, lost.loaded) = Default::default();
    let (lost, _) = settle(&ahead(&["gvisor"], &[], &[3]), lost);
    assert_eq!(all(&lost), [tree(1), tree(3)].into());
    // Where the type goes, what came ahead goes at once.
    let (gone, _) = settle(&ahead(&[], &[], &[]), third);
    assert_eq!(all(&gone), [tree(1)].into(), "containerd still knows its table");
}

#[test]
fn the_types_that_a_restart_is_for() {
    let one = desired(&[bundle("gvisor", 1, json!({})), bundle("kata", 1, json!({}))]);
    let (node, _) = settle(&one, Observed::default());
    let kata = bundle("kata", 1, json!({}));
    let upgrade = desired(&[bundle("gvisor", 2, json!({})), kata.clone()]);
    let settings = desired(&[bundle("gvisor", 1, json!({"debug": true})), kata.clone()]);
    let fewer = desired(&[kata]);
    let mut lost = node.clone();
    (lost.tables, lost.loaded) = Default::default();
    let mut edited = node.clone();
    edited.tables.clear();
    let mut unlinked = node.clone();
    unlinked.links.clear();
    let pulled = |want: &DesiredContent, node: &Observed| {
        let mut node = node.clone();
        for id in plan(want, &node).pulls {
            let tree = Tree { state: TreeState::Complete, handlers: BTreeSet::new() };
            node.trees.insert(id, tree);
        }
        node
    };
    let table: Vec<(&str, &DesiredContent, Observed, &[&str])> = vec![
        ("nothing is to be done", &one, node.clone(), &[]),
        ("its bytes come first", &upgrade, node.clone(), &[]),
        ("another version", &upgrade, pulled(&upgrade, &node), &["gvisor"]),
        ("other settings", &settings, node.clone(), &["gvisor"]),
        ("all tables are lost", &one, lost, &["gvisor", "kata"]),
        ("tables are put back that containerd still has", &one, edited, &[]),
        ("links are set without a restart", &one, unlinked, &[]),
        ("what goes restarts nothing", &fewer, node, &[]),
    ];
    for (what, want, node, types) in table {
        let plan = plan(want, &node);
        let want_types: BTreeSet<RuntimeType> = types.iter().map(|name| runtime(name)).collect();
        assert_eq!(plan.restarts_for(want), want_types, "{what}: {plan:?}");
        assert_eq!(plan.restart.is_some(), !types.is_empty(), "{what}");
    }
}
