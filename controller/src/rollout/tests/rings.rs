//! What is open to shoots, by what a leader has seen of them.

use rootstock_core::name::Architecture;
use rootstock_core::rollout::record::Digests;
use rootstock_core::rollout::step;
use rootstock_core::rollout::strategy::Strategy;
use rootstock_core::rollout::view::{Standing, Track, View};
use rootstock_core::state::State;

use super::*;
use crate::args::Types;
use crate::rollout::seed::AWAITED;
use crate::seed::Scope;

/// A seed with a few shoots, of which `first` goes first.
struct Seed {
    rings: Rings,
    index: Index,
    calls: Calls,
    _catalog: watch::Sender<Arc<Catalog>>,
    _task: JoinSet<anyhow::Result<()>>,
}

fn named(name: &str) -> ShootName {
    format!("shoot--garden--{name}").parse().unwrap()
}

fn bundle(of: &str) -> Digests {
    [(Architecture::Amd64, Digest::of(of.as_bytes()))].into()
}

impl Seed {
    /// One whose rings are recorded like this, by a leader that is gone.
    fn new(record: (u16, Value), shoots: &[&str]) -> Self {
        let (client, calls) = scripted::client(move |call: &Call| match call.method.as_str() {
            "GET" => record.clone(),
            _ => (200, json!({"metadata": {"name": "rootstock-rings"}})),
        });
        let catalog: Catalog = serde_json::from_value(json!({
            "registries": [{"name": "main", "url": "http://r"}],
            "runtimes": [{"type": "gvisor", "bundle": "main/rootstock/gvisor:1"}],
            "rings": {"optedIn": [named("first")], "percentages": []},
        }))
        .unwrap();
        let (sender, catalog) = watch::channel(Arc::new(catalog));
        let (home, types) = (Home::Seed, Types::Configured);
        let scope = Scope { home, types, classes: vec!["shoot".to_owned()], catalog };
        let (store, index) = (Arc::new(Store::default()), Index::new(BinaryRoots::default()));
        let mut ours = Vec::new();
        let others = ["garden"].iter().map(|name| (name, "garden"));
        for (name, class) in shoots.iter().map(|name| (name, "shoot")).chain(others) {
            let object = json!({
                "metadata": {"name": "a", "namespace": named(name).as_str()},
                "spec": {"type": "gvisor", "class": class, "binaryPath": "/var/bin",
                    "workerPool": {"name": "a", "selector": {}}},
            });
            let key = RuntimeKey { shoot: named(name), name: "a".to_owned() };
            let object: ContainerRuntime = serde_json::from_value(object).unwrap();
            let object = Arc::new(object);
            ours.extend(scope.has(&object).then(|| Arc::clone(&object)));
            store.put(key, object);
        }
        index.seed_listed(&ours);
        let reference = [(gvisor(), "main/rootstock/gvisor:1".to_owned())].into();
        let new = crate::index::tests::bundle(b"new", &json!({}));
        index.put_bundles(reference, [(gvisor(), new)].into(), BTreeMap::new());
        let rings = Rings::new(client, "rootstock", scope, store);
        let mut task = JoinSet::new();
        task.spawn(rings.clone().keep(Shutdown::new()));
        Self { rings, index, calls, _catalog: sender, _task: task }
    }

    fn look(&self, name: &str, sleeps: bool) {
        self.look_while(name, sleeps, 0);
    }

    /// The same, with so many nodes whose agents are not back yet.
    fn look_while(&self, name: &str, sleeps: bool, awaited: usize) {
        if !sleeps {
            self.index.nodes_listed(&named(name), &[]);
        }
        let survey = self.index.survey(&named(name)).unwrap();
        assert_eq!(survey.complete, !sleeps);
        let states = survey.tracks.keys().map(|name| (name.clone(), State::default())).collect();
        let track = Track {
            runtime: &gvisor(),
            strategy: &Strategy::default(),
            target: BTreeMap::new(),
            command: None,
            deleting: false,
            seed: None,
        };
        let view = View {
            complete: true,
            frozen: false,
            maintenance: None,
            tracks: [("a", track)].into(),
            nodes: Vec::new(),
        };
        let mut progress = step(&view, &states, jiff::Timestamp::now()).progress;
        progress.values_mut().for_each(|progress| progress.awaited = awaited);
        self.rings.see(&named(name), sleeps, &survey, &progress);
    }

    /// What is said of the new bundle to shoots that come later.
    fn says(&self) -> Option<Standing> {
        let said = self.rings.seed(&gvisor(), &named("other"));
        said.digests.get(&Digest::of(b"new")).copied()
    }
}

/// The new bundle is in the first ring, and has soaked there long ago.
fn soaked() -> (u16, Value) {
    let (old, new) = (bundle("old"), bundle("new"));
    let long_ago = "2026-01-01T00:00:00Z";
    let opening = json!({"digests": new, "ring": 0, "since": long_ago, "used": long_ago});
    let record = json!({"gvisor": {"promoted": old, "opening": opening}});
    (
        200,
        json!({"metadata": {"name": "rootstock-rings"}, "data": {"rings.json": record.to_string()}}),
    )
}

#[tokio::test(start_paused = true)]
async fn a_new_leader_opens_nothing_before_it_has_looked_at_every_shoot() {
    let seed = Seed::new(soaked(), &["first", "other", "third"]);
    seed.look("first", false);
    seed.look("other", false);
    tokio::time::sleep(AWAITED / 2).await;
    assert_eq!(seed.says(), Some(Standing::NotYet));
    seed.look("third", false);
    until("the next ring", || seed.says() == Some(Standing::Open)).await;
    // Those of other controllers are in no ring.
    assert!(seed.calls.all().iter().any(|call| call.method == "PATCH"));
}

#[tokio::test(start_paused = true)]
async fn a_shoot_that_is_never_seen_holds_the_others_up_for_a_while() {
    let seed = Seed::new(soaked(), &["first", "other", "third"]);
    seed.look("first", false);
    seed.look("other", false);
    tokio::time::sleep(AWAITED - Duration::from_secs(1)).await;
    assert_eq!(seed.says(), Some(Standing::NotYet));
    tokio::time::sleep(Duration::from_secs(62)).await;
    assert_eq!(seed.says(), Some(Standing::Open));
}

#[tokio::test(start_paused = true)]
async fn a_first_ring_that_sleeps_or_is_not_seen_is_not_taken_for_an_empty_one() {
    for sleeps in [true, false] {
        let seed = Seed::new(soaked(), &["first", "other"]);
        seed.look("other", false);
        if sleeps {
            seed.look("first", true);
        }
        tokio::time::sleep(3 * AWAITED).await;
        assert_eq!(seed.says(), Some(Standing::NotYet));
        seed.look("first", false);
        until("the next ring", || seed.says() == Some(Standing::Open)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn nodes_that_are_not_back_yet_may_have_failed() {
    let seed = Seed::new(soaked(), &["first", "other"]);
    seed.look_while("first", false, 1);
    seed.look("other", false);
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(seed.says(), Some(Standing::NotYet));
    seed.look_while("first", false, 0);
    until("the next ring", || seed.says() == Some(Standing::Open)).await;

    // An agent that is there and says nothing is not waited for for ever.
    let seed = Seed::new(soaked(), &["first", "other"]);
    seed.look("other", false);
    tokio::time::sleep(AWAITED).await;
    assert_eq!(seed.says(), Some(Standing::NotYet));
    seed.look_while("first", false, 1);
    until("the next ring", || seed.says() == Some(Standing::Open)).await;
}

#[tokio::test(start_paused = true)]
async fn a_shoot_that_leaves_is_waited_for_no_more() {
    let seed = Seed::new(soaked(), &["first", "other", "third"]);
    seed.look("first", false);
    seed.look("other", false);
    seed.rings.forget(&named("third"));
    until("the next ring", || seed.says() == Some(Standing::Open)).await;
}

#[tokio::test(start_paused = true)]
async fn what_is_lost_begins_with_the_first_ring() {
    let malformed = json!({"metadata": {}, "data": {"rings.json": "{"}});
    for record in [(200, malformed), refusal(404, "NotFound")] {
        let seed = Seed::new(record, &["first", "other"]);
        seed.look("first", false);
        seed.look("other", false);
        until("the first ring", || seed.says() == Some(Standing::First)).await;
        let of_first = seed.rings.seed(&gvisor(), &named("first"));
        assert_eq!(of_first.digests[&Digest::of(b"new")], Standing::Open);
        tokio::time::sleep(2 * AWAITED).await;
        assert_eq!(seed.says(), Some(Standing::First));
    }
}

#[tokio::test(start_paused = true)]
async fn a_record_that_can_not_be_read_is_told_to_those_who_wait_for_it() {
    let seed = Seed::new(refusal(403, "Forbidden"), &["first"]);
    let mut changes = seed.rings.changes();
    assert!(!seed.rings.seed(&gvisor(), &named("first")).unread, "it is being read");
    changes.changed().await.unwrap();
    assert!(seed.rings.seed(&gvisor(), &named("first")).unread);
    seed.look("first", false);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(seed.says(), None);
    assert!(seed.calls.all().iter().all(|call| call.method == "GET"), "nothing is written over it");
    assert!(!changes.has_changed().unwrap(), "it is told once");
}
