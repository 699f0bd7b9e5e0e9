mod ahead;
mod takeover;

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::*;
use crate::bundle::ConfigBlob;
use crate::digest::Digest;

/// A bundle of a type; the version is part of its digest.
fn bundle(runtime: &str, version: u8, settings: Value) -> DesiredBundle {
    let blob = Digest::of(b"x");
    let (handler, shim) = (format!("h-{runtime}"), format!("shim-{runtime}"));
    let config = json!({
        "type": runtime, "version": version.to_string(),
        "files": [{"path": shim, "mode": "0755", "size": 1, "sha256": blob.hex(), "blob": blob, "blobSize": 1}],
        "entryPoints": [shim],
        "handlers": [{"name": handler, "runtimeType": "t", "shim": shim, "config": "c.toml"}],
        "configs": [{"name": "c.toml", "format": "toml", "template": {"binary": "{bundle}/x"}}],
        "settings": [{"name": "debug", "kind": "bool", "config": "c.toml", "key": "debug"}],
    });
    DesiredBundle {
        digest: Digest::of(format!("{runtime}{version}").as_bytes()),
        binary_path: "/var/bin/containerruntimes".parse().unwrap(),
        registry: "main".into(),
        repository: "r".into(),
        config: ConfigBlob::parse(config.to_string().as_bytes()).unwrap(),
        settings: settings.as_object().unwrap().clone(),
    }
}

fn desired(bundles: &[DesiredBundle]) -> DesiredContent {
    DesiredContent { bundles: bundles.to_vec(), ..DesiredContent::default() }
}

fn runtime(name: &str) -> RuntimeType {
    name.parse().unwrap()
}

fn handler(name: &str) -> HandlerName {
    name.parse().unwrap()
}

/// What the node looks like when the plan was carried out and everything worked.
fn apply(desired: &DesiredContent, plan: &Plan, mut node: Observed) -> Observed {
    let bundles = desired.bundles.iter().chain(&desired.prefetch);
    let layouts: Vec<Layout> = bundles.filter_map(|bundle| Layout::of(bundle).ok()).collect();
    for id in plan.pulls.iter().chain(&plan.prefetches) {
        let layout = layouts.iter().find(|layout| layout.tree == *id).unwrap();
        let tree =
            Tree { state: TreeState::Complete, handlers: layout.tables.keys().cloned().collect() };
        node.trees.insert(id.clone(), tree);
    }
    for id in &plan.renders {
        node.rendered.insert(id.clone(), Rendered::Intact);
    }
    for (handler, (runtime, table)) in &plan.set_tables {
        node.tables.insert(handler.clone(), Some(table.clone()));
        node.owned.insert(handler.clone(), runtime.clone());
    }
    for handler in &plan.remove_tables {
        node.tables.remove(handler).unwrap();
        node.owned.remove(handler).unwrap();
    }
    for handler in &plan.restore_tables {
        assert!(node.replaced.remove(handler));
        node.tables.insert(handler.clone(), None).unwrap();
        node.owned.remove(handler).unwrap();
    }
    for handler in plan.disown.iter().chain(&plan.remove_tables) {
        node.replaced.remove(handler);
    }
    node.replaced.extend(plan.keep_tables.iter().cloned());
    take_over(plan, &mut node);
    for handler in &plan.disown {
        node.owned.remove(handler).unwrap();
    }
    for (link, target) in &plan.set_links {
        if node.links.get(link) == Some(&LinkState::Foreign) {
            let path = format!("{}/{}", link.binary_path, link.name);
            assert!(plan.remove_files.contains(&path), "{path} is someone else's");
        }
        node.links.insert(link.clone(), LinkState::Ours(target.clone()));
    }
    for link in &plan.remove_links {
        node.links.remove(link).unwrap();
    }
    if plan.restart.is_some() {
        node.loaded = node.tables.clone();
        node.activation_open = false;
    }
    for id in &plan.collect_trees {
        node.trees.remove(id).unwrap();
    }
    for id in &plan.collect_rendered {
        node.rendered.remove(id).unwrap();
    }
    node
}

/// What becomes of what the script left.
fn take_over(plan: &Plan, node: &mut Observed) {
    let files = &mut node.inherited.files;
    for path in &plan.note_files {
        assert_eq!(files.insert(path.clone(), InheritedFile::Noted), Some(InheritedFile::Found));
    }
    for path in &plan.remove_files {
        assert_eq!(files.remove(path), Some(InheritedFile::Noted));
    }
    for path in &plan.forget_files {
        assert_eq!(files.remove(path), Some(InheritedFile::Changed));
    }
    for plugin in &plan.remove_strays {
        assert!(node.inherited.strays.remove(plugin));
    }
}

/// Carries plans out until none is left, as the agent does: every file comes
/// before the first activation. How many restarts that took.
fn settle(desired: &DesiredContent, mut node: Observed) -> (Observed, usize) {
    let mut restarts = 0;
    for _ in 0..4 {
        let mut plan = plan(desired, &node);
        if plan.is_empty() {
            return (node, restarts);
        }
        if !plan.pulls.is_empty() {
            plan = Plan { pulls: plan.pulls, ..Plan::default() };
        }
        restarts += usize::from(plan.restart.is_some());
        node = apply(desired, &plan, node);
    }
    panic!("no end: {:?}", plan(desired, &node));
}

#[test]
fn two_types_arrive_with_one_restart() {
    let want = desired(&[bundle("gvisor", 1, json!({})), bundle("kata", 1, json!({}))]);
    let first = plan(&want, &Observed::default());
    assert_eq!(first.pulls.len(), 2);
    assert!(first.restart.is_none() && first.set_tables.is_empty() && first.set_links.is_empty());
    let (node, restarts) = settle(&want, Observed::default());
    assert_eq!(restarts, 1);
    assert_eq!(node.tables.len(), 2);
    assert_eq!(node.links.len(), 2);
    let after = plan(&want, &node);
    assert_eq!(
        after.outlook[&runtime("gvisor")],
        Outlook::Loaded { foreign: vec![], inherited: vec![] }
    );
}

#[test]
fn one_bundle_that_does_not_come_holds_back_no_other() {
    let want = desired(&[bundle("gvisor", 1, json!({})), bundle("kata", 1, json!({}))]);
    let gvisor = desired(&want.bundles[..1]);
    let pulled = apply(&want, &plan(&gvisor, &Observed::default()), Observed::default());
    let plan = plan(&want, &pulled);
    assert_eq!(plan.pulls.len(), 1);
    assert_eq!(plan.outlook[&runtime("kata")], Outlook::Pull);
    assert_eq!(plan.outlook[&runtime("gvisor")], Outlook::Activate);
    assert_eq!(plan.restart, Some(Restart::Handlers([handler("h-gvisor")].into())));
}

/// A pod begins with what the running containerd knows of its handler.
fn start_pod(node: &mut Observed, handler: &HandlerName) {
    node.sandboxes.insert(handler.clone(), vec!["default/pod".into()]);
    match node.loaded.get(handler) {
        Some(Some(table)) => node.used.extend(table.paths().map(str::to_owned)),
        Some(None) | None => drop(node.untold.insert(handler.clone())),
    }
}

fn end_pods(node: &mut Observed) {
    node.sandboxes.clear();
    node.used.clear();
    node.untold.clear();
}

#[test]
fn an_upgrade_keeps_what_pods_use() {
    let (mut node, _) = settle(&desired(&[bundle("gvisor", 1, json!({}))]), Observed::default());
    start_pod(&mut node, &handler("h-gvisor"));
    let want = desired(&[bundle("gvisor", 2, json!({}))]);
    let (mut node, restarts) = settle(&want, node);
    assert_eq!((restarts, node.trees.len(), node.rendered.len()), (1, 2, 2));
    // A pod of the new version holds nothing of the old one.
    end_pods(&mut node);
    start_pod(&mut node, &handler("h-gvisor"));
    let (node, restarts) = settle(&want, node);
    assert_eq!((restarts, node.trees.len(), node.rendered.len()), (0, 1, 1));
}

#[test]
fn other_settings_restart_but_pull_nothing() {
    let (node, _) = settle(&desired(&[bundle("gvisor", 1, json!({}))]), Observed::default());
    let want = desired(&[bundle("gvisor", 1, json!({"debug": true}))]);
    let plan = plan(&want, &node);
    assert!(plan.pulls.is_empty());
    assert_eq!(plan.renders.len(), 1);
    assert!(plan.restart.is_some());
    // Until it has restarted, containerd may start a pod with the old ones.
    assert!(plan.collect_rendered.is_empty());
    let (node, restarts) = settle(&want, node);
    assert_eq!((restarts, node.rendered.len()), (1, 1));
}

#[test]
fn removal_restarts_nothing_and_files_wait_for_the_next_start() {
    let (node, _) = settle(&desired(&[bundle("gvisor", 1, json!({}))]), Observed::default());
    let none = desired(&[]);
    let removal = plan(&none, &node);
    assert_eq!(removal.outlook[&runtime("gvisor")], Outlook::Removing);
    assert_eq!(removal.remove_tables.len(), 1);
    let (mut node, restarts) = settle(&none, node);
    assert_eq!((restarts, node.tables.len(), node.links.len(), node.trees.len()), (0, 0, 0, 1));
    assert_eq!(plan(&none, &node).outlook[&runtime("gvisor")], Outlook::Removed);
    // containerd starts again, whoever caused it.
    node.loaded = node.tables.clone();
    let (node, _) = settle(&none, node);
    assert!(node.trees.is_empty() && node.rendered.is_empty());
}

#[test]
fn nothing_is_taken_from_under_a_pod() {
    let (mut node, _) = settle(&desired(&[bundle("gvisor", 1, json!({}))]), Observed::default());
    node.sandboxes.insert(handler("h-gvisor"), vec!["default/pod".into()]);
    let plan = plan(&desired(&[]), &node);
    assert!(plan.is_empty(), "{plan:?}");
    assert_eq!(plan.outlook[&runtime("gvisor")], Outlook::InUse(vec!["default/pod".into()]));
}

#[test]
fn a_tree_that_was_never_loaded_goes_at_once() {
    let one = desired(&[bundle("gvisor", 1, json!({}))]);
    let node = apply(&one, &plan(&one, &Observed::default()), Observed::default());
    let plan = plan(&desired(&[]), &node);
    assert_eq!(plan.collect_trees.len(), 1);
}

#[test]
fn kept_types_are_not_touched() {
    let (mut node, _) = settle(&desired(&[bundle("gvisor", 1, json!({}))]), Observed::default());
    node.tables.clear();
    node.loaded.clear();
    let want = DesiredContent { keep: [runtime("gvisor")].into(), ..DesiredContent::default() };
    let plan = plan(&want, &node);
    assert!(plan.is_empty(), "{plan:?}");
    assert_eq!(plan.outlook[&runtime("gvisor")], Outlook::Kept);
}

#[test]
fn a_refused_bundle_leaves_what_was_there() {
    let (node, _) = settle(&desired(&[bundle("gvisor", 1, json!({}))]), Observed::default());
    let plan = plan(&desired(&[bundle("gvisor", 2, json!({"debug": "yes"}))]), &node);
    assert!(plan.is_empty(), "{plan:?}");
    assert!(matches!(
        plan.outlook[&runtime("gvisor")],
        Outlook::Refused(Reason::ConfigurationInvalid, _)
    ));
}

#[test]
fn two_types_can_not_share_a_handler() {
    let mut other = bundle("kata", 1, json!({}));
    let text = other.config.json().replace("h-kata", "h-gvisor");
    other.config = ConfigBlob::parse(text.as_bytes()).unwrap();
    let (node, _) = settle(&desired(&[other.clone()]), Observed::default());
    let plan = plan(&desired(&[bundle("gvisor", 1, json!({})), other]), &node);
    assert!(plan.is_empty(), "the one that has it keeps it: {plan:?}");
    let Outlook::Refused(reason, text) = &plan.outlook[&runtime("gvisor")] else { panic!() };
    assert_eq!(*reason, Reason::SettingsConflict);
    assert!(text.contains("belongs to kata"), "{text}");
}

#[test]
fn a_table_that_was_there_before_is_taken_over() {
    let mut node = Observed::default();
    node.tables.insert(handler("h-gvisor"), None);
    node.loaded.insert(handler("h-gvisor"), None);
    let link = Link {
        binary_path: "/var/bin/containerruntimes".parse().unwrap(),
        name: "shim-gvisor".into(),
    };
    node.links.insert(link.clone(), LinkState::Foreign);
    let want = desired(&[bundle("gvisor", 1, json!({}))]);
    let (node, restarts) = settle(&want, node);
    assert_eq!(restarts, 1);
    assert_eq!(node.links[&link], LinkState::Foreign);
    assert_eq!(
        plan(&want, &node).outlook[&runtime("gvisor")],
        Outlook::Loaded { foreign: vec![link], inherited: vec![] }
    );
}

#[test]
fn an_unproven_activation_is_done_again() {
    let want = desired(&[bundle("gvisor", 1, json!({}))]);
    let (mut node, _) = settle(&want, Observed::default());
    node.activation_open = true;
    let plan = plan(&want, &node);
    assert_eq!(plan.restart, Some(Restart::Unproven));
    assert!(plan.set_tables.is_empty());
}

#[test]
fn a_handler_that_containerd_does_not_take_is_no_reason_to_restart_it_again() {
    let want = desired(&[bundle("gvisor", 1, json!({}))]);
    let (mut node, _) = settle(&want, Observed::default());
    let name = handler("h-gvisor");
    node.started.insert(name.clone(), node.tables[&name].clone().unwrap());
    // Something that containerd imports overrides the table, or nothing is made of it.
    for loaded in [Some(Some(HandlerTable::default())), Some(None), None] {
        node.loaded.remove(&name);
        node.loaded.extend(loaded.map(|table| (name.clone(), table)));
        let plan = plan(&want, &node);
        assert!(plan.is_empty(), "{plan:?}");
        assert_eq!(plan.outlook[&runtime("gvisor")], Outlook::NotLoaded([name.clone()].into()));
    }
    // Another version is another try.
    let (_, restarts) = settle(&desired(&[bundle("gvisor", 2, json!({}))]), node);
    assert_eq!(restarts, 1);
}

#[test]
fn a_table_that_someone_took_is_put_back_without_a_restart() {
    let want = desired(&[bundle("gvisor", 1, json!({}))]);
    let (mut node, _) = settle(&want, Observed::default());
    node.tables.clear();
    let plan = plan(&want, &node);
    assert_eq!(plan.set_tables.len(), 1);
    assert!(plan.restart.is_none());
}

fn any_bundles() -> impl Strategy<Value = DesiredContent> {
    let one = |name: &'static str| {
        proptest::option::of((1..3u8, any::<bool>(), any::<bool>())).prop_map(move |choice| {
            choice.map(|(version, debug, wrong)| {
                let mut settings = Map::new();
                if debug {
                    settings.insert("debug".into(), true.into());
                }
                if wrong && version == 2 {
                    settings.insert("unknown".into(), true.into());
                }
                bundle(name, version, Value::Object(settings))
            })
        })
    };
    let ahead = proptest::option::of((1..4u8).prop_map(|v| bundle("gvisor", v, json!({}))));
    (one("gvisor"), one("kata"), proptest::collection::btree_set("gvisor|kata|wasm", 0..2), ahead)
        .prop_map(|(a, b, keep, ahead)| {
            let bundles: Vec<DesiredBundle> = a.into_iter().chain(b).collect();
            let keep = keep.iter().map(|name| runtime(name)).collect();
            let prefetch = ahead.into_iter().collect();
            DesiredContent { bundles, keep, prefetch, ..DesiredContent::default() }
        })
}

/// Something that happens on a node without the agent.
#[derive(Clone, Debug)]
enum Happening {
    Restarted,
    PodStarted(usize),
    PodsGone,
    TablesLost,
    AgentDied,
    Damaged(usize),
    LinkReplaced,
    LoadedUnknown,
    ForeignTable,
}

fn any_happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        Just(Happening::Restarted),
        (0..2usize).prop_map(Happening::PodStarted),
        Just(Happening::PodsGone),
        Just(Happening::TablesLost),
        Just(Happening::AgentDied),
        (0..4usize).prop_map(Happening::Damaged),
        Just(Happening::LinkReplaced),
        Just(Happening::LoadedUnknown),
        Just(Happening::ForeignTable),
    ]
}

fn happen(happening: &Happening, node: &mut Observed) {
    match happening {
        Happening::Restarted => node.loaded = node.tables.clone(),
        Happening::PodStarted(at) => {
            if let Some(handler) = node.loaded.keys().nth(*at).cloned() {
                start_pod(node, &handler);
            }
        }
        Happening::PodsGone => end_pods(node),
        Happening::TablesLost => node.tables.retain(|handler, _| handler.as_str() == "runc"),
        Happening::AgentDied => node.activation_open = true,
        Happening::Damaged(at) => {
            if let Some(tree) = node.trees.values_mut().nth(*at) {
                tree.state = TreeState::Damaged;
            }
        }
        Happening::LinkReplaced => {
            if let Some(state) = node.links.values_mut().next() {
                *state = LinkState::Foreign;
            }
        }
        Happening::ForeignTable => {
            node.tables.insert(handler("h-gvisor"), None);
        }
        Happening::LoadedUnknown => {
            for table in node.loaded.values_mut() {
                *table = None;
            }
        }
    }
}

proptest! {
    #[test]
    fn the_laws_hold_over_any_history(
        history in proptest::collection::vec((any_bundles(), proptest::collection::vec(any_happening(), 0..3), 0..3usize), 1..6),
    ) {
        let runc = handler("runc");
        let mut node = Observed::default();
        node.tables.insert(runc.clone(), None);
        node.loaded.insert(runc.clone(), None);
        for (want, happenings, steps) in history {
            for happening in &happenings {
                happen(happening, &mut node);
            }
            // A few steps only, then the wish may change again.
            for _ in 0..steps {
                let plan = plan(&want, &node);
                let before = node.clone();
                node = apply(&want, &plan, node);
                prop_assert_eq!(node.tables.get(&runc), Some(&None));
                for (link, state) in &before.links {
                    if *state == LinkState::Foreign {
                        prop_assert_eq!(node.links.get(link), Some(state));
                    }
                }
                // What a pod may run from is there after every step.
                for (id, tree) in &before.trees {
                    let used = before.used.iter().any(|path| id.concerns(path))
                        || tree.handlers.iter().any(|h| before.untold.contains(h));
                    if tree.state != TreeState::Partial && used {
                        prop_assert!(node.trees.contains_key(id), "{} is in use", id);
                    }
                }
                for table in node.tables.values().chain(node.loaded.values()).flatten() {
                    for path in table.paths() {
                        prop_assert!(node.trees.keys().any(|id| id.concerns(path)), "{} leads nowhere", path);
                    }
                }
                let ahead: BTreeSet<TreeId> = want.prefetch.iter().map(|b| Layout::of(b).unwrap().tree).collect();
                for keep in &want.keep {
                    if want.bundles.iter().all(|b| b.runtime() != keep) {
                        // Only what comes ahead comes, and takes the place of what came so before.
                        for id in node.trees.keys().filter(|id| id.runtime == *keep) {
                            prop_assert!(before.trees.contains_key(id) || ahead.contains(id), "{} came", id);
                        }
                        for id in before.trees.keys().filter(|id| id.runtime == *keep && !node.trees.contains_key(id)) {
                            prop_assert!(ahead.iter().any(|other| other.runtime == *keep), "{} went", id);
                            let links = before.links.iter().filter(|(_, state)| matches!(state, LinkState::Ours(to) if to.contains(&id.name())));
                            prop_assert_eq!(links.count(), 0, "{} is linked", id);
                        }
                        let of = |node: &Observed| (node.tables.clone(), node.links.clone());
                        if want.bundles.is_empty() && before.owned.values().all(|of| of == keep) {
                            prop_assert_eq!(of(&before), of(&node));
                        }
                    }
                }
                for id in &ahead {
                    prop_assert_eq!(plan.collect_trees.contains(id), false, "{} is wanted", id);
                }
            }
            let (settled, restarts) = settle(&want, node.clone());
            prop_assert!(restarts <= 1, "{} restarts", restarts);
            prop_assert!(plan(&want, &settled).is_empty());
        }
    }
}
