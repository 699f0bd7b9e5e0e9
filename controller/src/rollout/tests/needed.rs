//! Bundles that no catalog names any more, and that nodes are still sent.

use rootstock_core::name::Architecture;
use rootstock_core::rollout::record::Digests;
use rootstock_core::state::State;

use super::*;
use crate::rollout::look::needed;

#[test]
fn what_a_slot_or_the_seed_may_send_is_needed() {
    let world = World::new(2, quick());
    let index = Index::new(BinaryRoots::default());
    let object: ContainerRuntime =
        serde_json::from_value(world.objects.lock().unwrap()["a"].clone()).unwrap();
    index.seed_listed(&[Arc::new(object)]);
    let nodes = [node("n0", &Machine::default()), node("n1", &Machine::default())];
    index.nodes_listed(&shoot(), &nodes);
    let survey = index.survey(&shoot()).unwrap();
    let digest = |name: &str| Digest::of(name.as_bytes());
    let slot = |node: &str, of: &str| json!({"node": node, "digest": digest(of), "until": "2026-01-01T00:00:00Z"});
    let seeds: Digests =
        [(Architecture::Amd64, digest("seed")), (Architecture::Arm64, digest("seed arm"))].into();
    let table = [
        // Nothing is promoted here: the seed's bundle is what new nodes get.
        (json!({"version": 1}), vec!["seed", "seed arm"]),
        // It has its own, for one of two architectures.
        (json!({"version": 1, "promoted": {"amd64": digest("own")}}), vec!["own", "seed arm"]),
        // A candidate was replaced while its slots were in flight; one of the nodes is gone.
        (
            json!({"version": 1, "promoted": {"amd64": digest("own"), "arm64": digest("own arm")},
                "candidate": {"digests": {"amd64": digest("new")}, "canary": 1,
                    "since": "2026-01-01T00:00:00Z", "stage": {"name": "canary"}},
                "slots": [slot("u0", "before"), slot("gone", "lost"), slot("u1", "new")]}),
            vec!["own", "own arm", "new", "before"],
        ),
    ];
    for (state, want) in table {
        let states = [("a".to_owned(), State::parse(Some(&state)).unwrap())].into();
        let found = needed(&survey, &states, |_| seeds.clone());
        let found: BTreeMap<_, _> = found.into_iter().map(|(_, of, digest)| (digest, of)).collect();
        let want: BTreeMap<_, _> = want
            .into_iter()
            .map(|name| match name.ends_with("arm") {
                true => (digest(name), Architecture::Arm64),
                false => (digest(name), Architecture::Amd64),
            })
            .collect();
        assert_eq!(found, want, "{state}");
    }
}
