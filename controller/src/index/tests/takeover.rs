//! Nodes on which the gVisor extension's installer may still be.

use super::*;
use crate::index::Installer;

const N2: &str = "n2";

/// A node of the same pool that also asks for kata.
fn other() -> NodeResource {
    let mut node = node("2", true);
    node.metadata.name = Some(N2.to_owned());
    let labels = node.metadata.labels.as_mut().unwrap();
    labels.insert("containerruntime.worker.gardener.cloud/kata".into(), "true".into());
    node
}

fn index(installer: Installer) -> Index {
    let index = Index::new(BinaryRoots::default()).at_once();
    index.put_installer(&shoot(), installer);
    let bundles = [(gvisor(), resolved()), ("kata".parse().unwrap(), kata())].into();
    index.put_bundles(BTreeMap::new(), bundles, BTreeMap::new());
    index.seed_listed(&[runtime(pool_a(), false).into(), named("kata-a", "kata").into()]);
    index.nodes_listed(&shoot(), &[node("1", true), other()]);
    index
}

fn kata() -> Resolution {
    let Resolution::Resolved(mut all) = resolved() else { panic!() };
    for bundle in all.values_mut().flatten() {
        let text = bundle.config.json().replace("gvisor", "kata").replace("runsc", "kata");
        bundle.config = ConfigBlob::parse(text.as_bytes()).unwrap();
    }
    Resolution::Resolved(all)
}

/// What a node is sent: the types that it is to have, and those that stay as they are.
fn sent(index: &Index, name: &str, uid: &str) -> Option<(Vec<String>, Vec<String>)> {
    let id = NodeId { name: name.parse().unwrap(), ..id(uid) };
    let desired = index.connect(&id, None).unwrap();
    let desired = desired.borrow().clone()?;
    let content = &desired.content;
    let bundles = content.bundles.iter().map(|bundle| bundle.runtime().to_string()).collect();
    Some((bundles, content.keep.iter().map(ToString::to_string).collect()))
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

#[test]
fn an_installer_keeps_its_type_from_its_node_and_no_other() {
    let on = [("n1".parse().unwrap(), "a Pod".to_owned())].into();
    let table = [
        // The pool asks for kata too, whose label is not on this node.
        (Installer::Gone, Some((words(&["gvisor"]), words(&["kata"])))),
        (Installer::On(on), Some((words(&[]), words(&["gvisor", "kata"])))),
        (Installer::Everywhere("why".into()), Some((words(&[]), words(&["gvisor", "kata"])))),
        // In a moment it is known; nobody is told twice.
        (Installer::Unknown, None),
    ];
    for (installer, want) in table {
        let index = index(installer.clone());
        assert_eq!(sent(&index, "n1", "1"), want, "{installer:?}");
        let second = sent(&index, N2, "2");
        let want = match installer {
            Installer::Unknown => None,
            Installer::Everywhere(_) => Some((words(&["kata"]), words(&["gvisor"]))),
            Installer::Gone | Installer::On(_) => Some((words(&["gvisor", "kata"]), words(&[]))),
        };
        assert_eq!(second, want, "{installer:?}");
    }
}

#[test]
fn when_the_installer_is_gone_the_node_gets_its_runtime() {
    let index = index(Installer::Everywhere("why".into()));
    assert_eq!(sent(&index, "n1", "1").unwrap().0, words(&[]));
    let on: BTreeMap<NodeName, String> = [("n1".parse().unwrap(), "a Pod".to_owned())].into();
    index.put_installer(&shoot(), Installer::On(on));
    assert_eq!(sent(&index, "n1", "1").unwrap().0, words(&[]));
    assert_eq!(sent(&index, N2, "2").unwrap().0, words(&["gvisor", "kata"]));
    index.put_installer(&shoot(), Installer::Gone);
    assert_eq!(sent(&index, "n1", "1").unwrap().0, words(&["gvisor"]));
}

#[test]
fn a_shoot_without_gvisor_waits_for_nobody() {
    let index = Index::new(BinaryRoots::default()).at_once();
    index.put_installer(&shoot(), Installer::Unknown);
    index.put_bundles(BTreeMap::new(), [("kata".parse().unwrap(), kata())].into(), BTreeMap::new());
    index.seed_listed(&[named("kata-a", "kata").into()]);
    index.nodes_listed(&shoot(), &[other()]);
    assert_eq!(sent(&index, N2, "2").unwrap().0, words(&["kata"]));
    assert!(!index.asks_for(&shoot(), "gvisor"));
}

#[test]
fn what_a_node_has_stays_while_an_installer_is_there() {
    let index = ready();
    assert_eq!(sent(&index, "n1", "1").unwrap().0, words(&["gvisor"]));
    index.put_installer(&shoot(), Installer::Everywhere("the extension's Pod".into()));
    assert_eq!(sent(&index, "n1", "1").unwrap(), (words(&[]), words(&["gvisor"])));
    let conditions = index.summary(&key()).unwrap().conditions;
    let said: Vec<_> = conditions.iter().map(|c| format!("{} {}", c.reason, c.message)).collect();
    assert!(said.iter().any(|text| text.contains("TakeoverPending")), "{said:#?}");
    assert!(said.iter().any(|text| text.contains("the extension's Pod")), "{said:#?}");
}
