//! Taking over what the gVisor extension's script left.

use super::*;
use crate::plan::inherited;

const BINARIES: &str = "/var/bin/containerruntimes";
const SHIM: &str = "containerd-shim-runsc-v1";

/// A bundle with the names that the script uses too.
fn gvisor(version: u8) -> DesiredBundle {
    let mut bundle = bundle("gvisor", version, json!({}));
    let text = bundle.config.json().replace("h-gvisor", "runsc").replace("shim-gvisor", SHIM);
    bundle.config = ConfigBlob::parse(text.as_bytes()).unwrap();
    bundle
}

fn link() -> Link {
    Link { binary_path: BINARIES.parse().unwrap(), name: SHIM.into() }
}

fn runsc() -> HandlerName {
    handler("runsc")
}

/// A node as the script leaves it, with a pod.
fn left() -> Observed {
    let mut node = Observed::default();
    node.tables.insert(runsc(), Some(inherited::table()));
    node.loaded.insert(runsc(), Some(inherited::table()));
    node.links.insert(link(), LinkState::Foreign);
    for path in inherited::places(&BINARIES.parse().unwrap()) {
        node.inherited.files.insert(path, InheritedFile::Found);
    }
    node.sandboxes.insert(runsc(), vec!["default/old".into()]);
    node.inherited.pods = vec!["default/old".into()];
    node
}

/// Carries out one plan and returns it with what follows.
fn step(want: &DesiredContent, node: Observed) -> (Plan, Observed) {
    let plan = plan(want, &node);
    let node = apply(want, &plan, node);
    (plan, node)
}

#[test]
fn the_table_changes_at_once_and_the_files_go_with_the_last_pod() {
    let want = desired(&[gvisor(1)]);
    let (pull, node) = step(&want, left());
    assert_eq!((pull.pulls.len(), pull.note_files.len(), pull.set_tables.len()), (1, 0, 0));
    let (change, node) = step(&want, node);
    assert_eq!(change.note_files.len(), 3);
    assert_eq!(change.set_tables.len(), 1);
    assert!(change.restart.is_some() && change.remove_files.is_empty());
    assert!(change.set_links.is_empty() && change.keep_tables.is_empty());
    assert_eq!(node.tables[&runsc()], node.loaded[&runsc()]);
    let after = plan(&want, &node);
    assert!(after.is_empty(), "the pod still runs: {after:?}");
    let waits = Outlook::Loaded { foreign: vec![], inherited: vec!["default/old".into()] };
    assert_eq!(after.outlook[&runtime("gvisor")], waits);

    let mut node = node;
    node.inherited.pods.clear();
    let (last, node) = step(&want, node);
    assert_eq!(last.remove_files.len(), 3);
    assert!(last.restart.is_none() && !last.edits_tables());
    assert!(matches!(node.links[&link()], LinkState::Ours(_)));
    assert!(node.inherited.files.is_empty());
    assert!(plan(&want, &node).is_empty());
}

#[test]
fn a_new_pod_of_ours_keeps_no_old_file() {
    let want = desired(&[gvisor(1)]);
    let mut node = left();
    node.inherited.pods.clear();
    // Its own files are in use, which is another matter.
    let (node, restarts) = settle(&want, node);
    assert_eq!(restarts, 1);
    assert!(node.inherited.files.is_empty() && node.sandboxes.contains_key(&runsc()));
}

#[test]
fn files_stay_while_it_is_not_known_what_containerd_runs() {
    let want = desired(&[gvisor(1)]);
    let (mut node, _) = settle(&want, left());
    node.inherited.pods.clear();
    for loaded in [None, Some(inherited::table())] {
        let mut node = node.clone();
        node.started.insert(runsc(), node.tables[&runsc()].clone().unwrap());
        node.loaded.insert(runsc(), loaded);
        assert!(plan(&want, &node).remove_files.is_empty());
    }
    node.activation_open = true;
    assert!(plan(&want, &node).remove_files.is_empty());
}

#[test]
fn a_file_that_is_another_one_by_now_is_someone_elses() {
    let want = desired(&[gvisor(1)]);
    let (mut node, _) = settle(&want, left());
    let path = format!("{BINARIES}/{SHIM}");
    node.inherited.files.insert(path.clone(), InheritedFile::Changed);
    node.inherited.pods.clear();
    let (change, node) = step(&want, node);
    assert_eq!(change.forget_files, [path].into());
    assert_eq!(change.remove_files.len(), 2);
    assert_eq!(node.links[&link()], LinkState::Foreign);
    let after = plan(&want, &node);
    assert!(after.is_empty(), "{after:?}");
    let outlook = Outlook::Loaded { foreign: vec![link()], inherited: vec![] };
    assert_eq!(after.outlook[&runtime("gvisor")], outlook);
}

#[test]
fn a_table_of_a_wrong_version_goes_in_the_same_edit() {
    let mut node = left();
    node.tables.clear();
    node.loaded.clear();
    node.inherited.strays.insert("io.containerd.grpc.v1.cri".into());
    let want = desired(&[gvisor(1)]);
    let (_, node) = step(&want, node);
    let (change, node) = step(&want, node);
    assert_eq!((change.set_tables.len(), change.remove_strays.len()), (1, 1));
    assert!(change.restart.is_some());
    assert!(node.inherited.strays.is_empty());
    // One that comes back with an old copy of the file needs no restart.
    let mut node = node;
    node.inherited.strays.insert("cri".into());
    let (change, _) = step(&want, node);
    assert!(change.restart.is_none() && change.edits_tables());
}

#[test]
fn a_runtime_that_is_held_is_left_to_the_script() {
    let want = DesiredContent { keep: [runtime("gvisor")].into(), ..DesiredContent::default() };
    let mut node = left();
    assert!(plan(&want, &node).is_empty());
    (node, _) = settle(&desired(&[gvisor(1)]), node);
    node.inherited.pods.clear();
    assert!(plan(&want, &node).is_empty(), "also with the notes made");
    // Nobody ever asked for it: then it is not ours to clean up.
    assert!(plan(&desired(&[]), &left()).is_empty());
}

#[test]
fn removal_after_a_takeover_leaves_nothing_of_the_script() {
    let (node, _) = settle(&desired(&[gvisor(1)]), left());
    let none = desired(&[]);
    let held = plan(&none, &node);
    assert!(held.is_empty(), "{held:?}");
    assert_eq!(held.outlook[&runtime("gvisor")], Outlook::InUse(vec!["default/old".into()]));
    let mut node = node;
    node.sandboxes.clear();
    node.inherited.pods.clear();
    let (mut node, restarts) = settle(&none, node);
    assert_eq!((restarts, node.tables.len()), (0, 0));
    assert!(node.inherited.files.is_empty());
    node.loaded.clear();
    let (node, _) = settle(&none, node);
    assert!(node.trees.is_empty());
}

#[test]
fn a_foreign_table_comes_back_and_the_scripts_does_not() {
    let want = desired(&[gvisor(1)]);
    let mut other = inherited::table();
    other.pod_annotations = vec!["dev.gvisor.*".into()];
    let table = [
        (Some(None), true),
        (Some(Some(other)), true),
        (Some(Some(inherited::table())), false),
        (None, false),
    ];
    for (there, want_back) in table {
        let mut node = Observed::default();
        node.tables.extend(there.clone().map(|table| (runsc(), table)));
        let (node, _) = settle(&want, node);
        assert_eq!(node.replaced.contains(&runsc()), want_back, "{there:?}");
        let (node, restarts) = settle(&desired(&[]), node);
        assert_eq!(restarts, 0);
        assert_eq!(node.tables.contains_key(&runsc()), want_back, "{there:?}");
        assert!(node.replaced.is_empty() && node.owned.is_empty());
    }
    // A new version of ours is no foreign table.
    let (node, _) = settle(&want, Observed::default());
    let (node, _) = settle(&desired(&[gvisor(2)]), node);
    assert!(node.replaced.is_empty());
}
