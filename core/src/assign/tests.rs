use proptest::prelude::*;

use super::*;
use crate::selector::SelectorSpec;

fn config(runtime: &str, handler: &str, entry: &str) -> ConfigBlob {
    let empty = Digest::of(b"");
    let json = serde_json::json!({
        "type": runtime, "version": "1",
        "files": [{"path": entry, "mode": "0755", "size": 0, "sha256": empty.hex(),
                   "blob": empty.to_string(), "blobSize": 0}],
        "entryPoints": [entry],
        "handlers": [{"name": handler, "runtimeType": "io.containerd.x.v1", "shim": entry}],
    });
    ConfigBlob::parse(json.to_string().as_bytes()).unwrap()
}

fn resolved(runtime: &str, handler: &str, entry: &str) -> Resolution {
    let bundle = ResolvedBundle {
        digest: Digest::of(runtime.as_bytes()),
        registry: "main".into(),
        repository: format!("rootstock/{runtime}"),
        config: config(runtime, handler, entry),
    };
    Resolution::Resolved([(Architecture::Amd64, Ok(bundle))].into())
}

fn claim(name: &str, runtime: &str, pool: &str) -> Claim {
    let labels = [("worker.gardener.cloud/pool".to_owned(), pool.to_owned())].into();
    let spec = SelectorSpec { match_labels: labels, ..SelectorSpec::default() };
    Claim {
        name: name.into(),
        runtime: runtime.parse().unwrap(),
        pool: pool.into(),
        ask: Ok(Ask {
            binary_path: "/var/bin/containerruntimes".parse().unwrap(),
            selector: Selector::try_from(&spec).unwrap(),
            settings: Map::new(),
        }),
    }
}

fn node(pool: &str, cri: &str, runtimes: &[&str]) -> NodeFacts {
    let mut labels: Labels = [
        ("worker.gardener.cloud/pool".to_owned(), pool.to_owned()),
        (CRI_LABEL.to_owned(), cri.to_owned()),
    ]
    .into();
    for runtime in runtimes {
        labels.insert(format!("{RUNTIME_LABEL_PREFIX}{runtime}"), "true".into());
    }
    NodeFacts {
        name: "n".parse().unwrap(),
        labels,
        architecture: Some(Architecture::Amd64),
        asked_by: AskedBy::Labels,
    }
}

fn bundles() -> BTreeMap<RuntimeType, Resolution> {
    [
        ("gvisor".parse().unwrap(), resolved("gvisor", "runsc", "runsc")),
        ("kata".parse().unwrap(), resolved("kata", "kata", "containerd-shim-kata-v2")),
    ]
    .into()
}

fn registries() -> BTreeMap<String, Registry> {
    let registry = Registry {
        name: "main".into(),
        url: "http://r".into(),
        mirrors: vec![],
        ca_bundle: String::new(),
        credential: None,
    };
    [("main".to_owned(), registry)].into()
}

fn types(assignment: &Assignment) -> Vec<&str> {
    assignment.content.bundles.iter().map(|bundle| bundle.runtime().as_str()).collect()
}

fn kept(assignment: &Assignment) -> Vec<&str> {
    assignment.content.keep.iter().map(RuntimeType::as_str).collect()
}

#[test]
fn a_node_gets_the_union_of_what_selects_it() {
    let claims = [
        claim("gvisor-a", "gvisor", "a"),
        claim("kata-a", "kata", "a"),
        claim("gvisor-b", "gvisor", "b"),
    ];
    let table = [
        (node("a", "containerd", &["gvisor", "kata"]), vec!["gvisor", "kata"], vec![]),
        (node("b", "containerd", &["gvisor"]), vec!["gvisor"], vec![]),
        // The pool is covered, the label is not there: nothing is taken away.
        (node("a", "containerd", &["gvisor"]), vec!["gvisor"], vec!["kata"]),
        (node("a", "docker", &["gvisor", "kata"]), vec![], vec!["gvisor", "kata"]),
        // Labels alone ask for nothing.
        (node("c", "containerd", &["gvisor", "kata"]), vec![], vec![]),
    ];
    for (node, want, keep) in table {
        let assignment = assign(&node, &claims, &bundles(), &registries());
        assert_eq!(types(&assignment), want, "{node:?}");
        assert_eq!(kept(&assignment), keep, "{node:?}");
        assert_eq!(assignment.content.registries.len(), usize::from(!want.is_empty()));
        assert_eq!(assignment.verdicts.len(), want.len());
    }
}

#[test]
fn what_is_not_known_is_kept_with_its_reason() {
    let node = node("a", "containerd", &["gvisor", "wasm"]);
    let claims = [claim("gvisor-a", "gvisor", "a"), claim("wasm-a", "wasm", "a")];
    let table = [
        (Resolution::Pending, Reason::BundlePending),
        (
            Resolution::Failed(Problem::new(Reason::BundleNotFound, "no such tag")),
            Reason::BundleNotFound,
        ),
        (Resolution::Resolved(BTreeMap::new()), Reason::ArchitectureMismatch),
        // The catalog names another type's bundle.
        (resolved("kata", "kata", "k"), Reason::BundleInvalid),
    ];
    for (resolution, reason) in table {
        let bundles = [("gvisor".parse().unwrap(), resolution)].into();
        let assignment = assign(&node, &claims, &bundles, &registries());
        assert!(types(&assignment).is_empty());
        assert_eq!(kept(&assignment), ["gvisor", "wasm"]);
        let reason_of = |name: &str| match &assignment.verdicts[name] {
            Verdict::Held(problem) => problem.reason,
            Verdict::Wanted(_) => panic!("{name} is wanted"),
        };
        assert_eq!(reason_of("gvisor-a"), reason);
        assert_eq!(reason_of("wasm-a"), Reason::TypeUnknown);
    }
}

#[test]
fn resources_that_disagree_hold_each_other() {
    let node = node("a", "containerd", &["gvisor"]);
    let mut claims = vec![claim("one", "gvisor", "a"), claim("two", "gvisor", "a")];
    assert_eq!(types(&assign(&node, &claims, &bundles(), &registries())), ["gvisor"]);
    claims[1].ask.as_mut().unwrap().binary_path = "/opt/rootstock".parse().unwrap();
    let assignment = assign(&node, &claims, &bundles(), &registries());
    assert_eq!(kept(&assignment), ["gvisor"]);
    assert_eq!(assignment.verdicts.len(), 2);
}

#[test]
fn a_lost_label_of_the_selector_uninstalls_nothing() {
    let labels = [POOL_LABEL, OLD_POOL_LABEL].map(|label| (label.to_owned(), "a".to_owned()));
    let spec = SelectorSpec { match_labels: labels.into(), ..SelectorSpec::default() };
    let mut claim = claim("gvisor-a", "gvisor", "a");
    claim.ask.as_mut().unwrap().selector = Selector::try_from(&spec).unwrap();
    let pools = |labels: &[(&str, &str)]| {
        let mut node = node("a", "containerd", &["gvisor"]);
        node.labels.remove(POOL_LABEL);
        node.labels.extend(labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())));
        node
    };
    let table = [
        (pools(&[(POOL_LABEL, "a"), (OLD_POOL_LABEL, "a")]), vec!["gvisor"], vec![]),
        (pools(&[(POOL_LABEL, "a")]), vec![], vec!["gvisor"]),
        (pools(&[(OLD_POOL_LABEL, "a")]), vec![], vec!["gvisor"]),
        // In another pool, or in none that anyone knows: nobody asks for it.
        (pools(&[(POOL_LABEL, "a"), (OLD_POOL_LABEL, "b")]), vec![], vec![]),
        (pools(&[(POOL_LABEL, "b")]), vec![], vec![]),
        (pools(&[]), vec![], vec![]),
    ];
    for (node, want, keep) in table {
        let assignment = assign(&node, &[claim.clone()], &bundles(), &registries());
        assert_eq!((types(&assignment), kept(&assignment)), (want, keep), "{node:?}");
    }
}

#[test]
fn a_resource_that_cannot_be_read_uninstalls_nothing() {
    let node = node("a", "containerd", &["gvisor"]);
    let mut broken = claim("gvisor-a", "gvisor", "a");
    broken.ask = Err(Problem::new(Reason::SelectorInvalid, "no such operator"));
    let assignment = assign(&node, &[broken.clone()], &bundles(), &registries());
    assert_eq!((types(&assignment), kept(&assignment)), (vec![], vec!["gvisor"]));
    assert!(
        matches!(&assignment.verdicts["gvisor-a"], Verdict::Held(p) if p.reason == Reason::SelectorInvalid)
    );
    // Which nodes it selects can't be told, so its type is kept on all of them.
    broken.pool = "b".into();
    let assignment = assign(&node, &[broken.clone()], &bundles(), &registries());
    assert_eq!((kept(&assignment), assignment.verdicts.len()), (vec!["gvisor"], 0));
    // A good one decides for its own nodes.
    let claims = [broken, claim("other", "gvisor", "a")];
    let assignment = assign(&node, &claims, &bundles(), &registries());
    assert_eq!((types(&assignment), kept(&assignment)), (vec!["gvisor"], vec![]));
}

#[test]
fn types_that_claim_one_name_hold_each_other() {
    let node = node("a", "containerd", &["gvisor", "kata"]);
    let claims = [claim("g", "gvisor", "a"), claim("k", "kata", "a")];
    for other in [resolved("kata", "runsc", "k"), resolved("kata", "kata", "runsc")] {
        let mut bundles = bundles();
        bundles.insert("kata".parse().unwrap(), other);
        let assignment = assign(&node, &claims, &bundles, &registries());
        assert_eq!(kept(&assignment), ["gvisor", "kata"]);
        for verdict in assignment.verdicts.values() {
            assert!(
                matches!(verdict, Verdict::Held(p) if p.reason == Reason::SettingsConflict),
                "{verdict:?}"
            );
        }
    }
}

proptest! {
    /// Whatever is asked for on a node that a claim covers is either wanted or
    /// kept, never dropped; and the order of claims changes nothing.
    #[test]
    fn nothing_that_is_asked_for_is_dropped(
        pools in proptest::collection::vec((0..3usize, 0..3usize), 0..8),
        labels in proptest::collection::btree_set(0..3usize, 0..3),
        resolutions in proptest::collection::vec(0..4usize, 3),
        rotate in 0..8usize,
    ) {
        let (names, pool) = (["gvisor", "kata", "wasm"], ["a", "b", "c"]);
        let mut claims: Vec<_> = pools.iter().enumerate()
            .map(|(i, (t, p))| claim(&format!("c{i}"), names[*t], pool[*p]))
            .collect();
        let bundles: BTreeMap<RuntimeType, Resolution> = names.iter().zip(resolutions)
            .filter_map(|(name, kind)| {
                let resolution = match kind {
                    0 => return None,
                    1 => Resolution::Pending,
                    2 => Resolution::Failed(Problem::new(Reason::BundleNotFound, "")),
                    _ => resolved(name, name, name),
                };
                Some((name.parse().unwrap(), resolution))
            })
            .collect();
        let runtimes: Vec<_> = labels.iter().map(|i| names[*i]).collect();
        let node = node("a", "containerd", &runtimes);
        let assignment = assign(&node, &claims, &bundles, &registries());
        for claim in claims.iter().filter(|claim| claim.ask.as_ref().unwrap().selector.matches(&node.labels)) {
            let wanted = types(&assignment).contains(&claim.runtime.as_str());
            let kept = assignment.content.keep.contains(&claim.runtime);
            prop_assert!(wanted != kept, "{claim:?}");
        }
        if !claims.is_empty() {
            let by = rotate % claims.len();
            claims.rotate_left(by);
        }
        prop_assert_eq!(assign(&node, &claims, &bundles, &registries()), assignment);
    }
}
