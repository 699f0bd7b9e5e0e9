//! The rollouts, against an API server and nodes that do what a test says.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use k8s_openapi::api::core::v1::Node;
use rootstock_core::assign::{AGENT_LABEL, Resolution};
use rootstock_core::catalog::Catalog;
use rootstock_core::desired::Generation;
use rootstock_core::digest::Digest;
use rootstock_core::name::{RuntimeType, ShootName};
use rootstock_core::path::BinaryRoots;
use rootstock_core::status::{BundleReport, Phase, Reason};
use rootstock_daemon::Shutdown;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::*;
use crate::api::ContainerRuntime;
use crate::content::Offered;
use crate::home::Home;
use crate::identity::NodeId;
use crate::index::RuntimeKey;
use crate::scripted::{self, Call, Calls, merge, refusal};

mod commands;
mod kills;
mod late;
mod needed;
mod others;
mod rings;
mod sandboxes;
mod waves;

fn shoot() -> ShootName {
    "shoot--garden--one".parse().unwrap()
}

fn gvisor() -> RuntimeType {
    "gvisor".parse().unwrap()
}

/// What outlives a controller: the API's objects and the nodes.
#[derive(Clone)]
struct World {
    objects: Arc<Mutex<BTreeMap<String, Value>>>,
    nodes: Arc<Mutex<BTreeMap<String, Machine>>>,
    strategy: Value,
    /// The content of the bundle that breaks every node.
    bad: Option<&'static [u8]>,
}

/// One node: what it has on disk, and what runs.
#[derive(Clone, Debug, Default)]
struct Machine {
    joining: bool,
    runs: Option<Digest>,
    fetched: Option<Digest>,
    failed: Option<Digest>,
    held: Option<(Generation, Digest)>,
    /// Each slot that it used, by digest.
    activated: Vec<Digest>,
}

impl World {
    fn new(nodes: usize, strategy: Value) -> Self {
        let object = json!({
            "metadata": {"name": "a", "namespace": shoot().as_str(), "uid": "uid-a",
                "resourceVersion": "1", "annotations": {}},
            "spec": {"type": "gvisor", "binaryPath": "/var/bin/containerruntimes", "workerPool": {
                "name": "a", "selector": {"matchLabels": {"worker.gardener.cloud/pool": "a"}}}},
            "status": {"lastOperation": {"type": "Reconcile", "state": "Succeeded",
                "progress": 100, "description": "", "lastUpdateTime": "2026-01-01T00:00:00Z"}},
        });
        let machines = (0..nodes).map(|n| (format!("n{n}"), Machine::default())).collect();
        Self {
            objects: Arc::new(Mutex::new([("a".to_owned(), object)].into())),
            nodes: Arc::new(Mutex::new(machines)),
            strategy,
            bad: None,
        }
    }

    fn state(&self) -> Value {
        self.objects.lock().unwrap()["a"]["status"]["state"].clone()
    }

    fn digest_of(&self, name: &str) -> Option<Digest> {
        self.nodes.lock().unwrap()[name].runs
    }

    fn with(&self, digest: Digest) -> usize {
        self.nodes.lock().unwrap().values().filter(|node| node.runs == Some(digest)).count()
    }

    fn failed(&self) -> usize {
        self.nodes.lock().unwrap().values().filter(|node| node.failed.is_some()).count()
    }

    /// Whether a slot is recorded for a node.
    fn has_slot(&self, name: &str) -> bool {
        let state = self.state();
        let uid = name.replace('n', "u");
        state["slots"].as_array().into_iter().flatten().any(|slot| slot["node"] == uid.as_str())
    }
}

fn node(name: &str, machine: &Machine) -> Node {
    let taints = if machine.joining {
        json!([{"key": "node.gardener.cloud/critical-components-not-ready", "effect": "NoSchedule"}])
    } else {
        json!([])
    };
    serde_json::from_value(json!({
        "metadata": {"name": name, "uid": name.replace('n', "u"), "labels": {
            "worker.gardener.cloud/pool": "a",
            "worker.gardener.cloud/cri-name": "containerd",
            "containerruntime.worker.gardener.cloud/gvisor": "true",
            "kubernetes.io/arch": "amd64",
            AGENT_LABEL: "true",
        }},
        "spec": {"taints": taints},
    }))
    .unwrap()
}

/// A controller, with the agents that are connected to it.
struct Controller {
    world: World,
    index: Arc<Index>,
    store: Arc<Store>,
    calls: Calls,
    catalog: watch::Sender<Arc<Catalog>>,
    agents: Mutex<JoinSet<()>>,
    _tasks: JoinSet<anyhow::Result<()>>,
}

/// What the API does with a write, by its number from 1, and what happens to the
/// object before.
type Answer = Box<dyn Fn(usize, &mut Value) -> Option<(u16, Value)> + Send + Sync>;

impl Controller {
    fn start(world: &World, bundle: &[u8]) -> Self {
        Self::start_with(world, bundle, Box::new(|_, _| None))
    }

    /// One whose writes are answered like this, or else carried out.
    fn start_with(world: &World, bundle: &[u8], answer: Answer) -> Self {
        let controller = Self::start_alone(world, bundle, answer);
        let all = world.nodes.lock().unwrap().clone();
        all.keys().for_each(|name| controller.connect(name));
        controller
    }

    /// The same to which no agent has come yet.
    fn start_alone(world: &World, bundle: &[u8], answer: Answer) -> Self {
        let index = Arc::new(Index::new(BinaryRoots::default()));
        index.forget_agents();
        let store = Arc::new(Store::default());
        let (kept, watched) = (Arc::clone(&world.objects), Arc::clone(&store));
        let told = Arc::clone(&index);
        let writes = Mutex::new(0);
        let (client, calls) = scripted::client(move |call: &Call| {
            if call.path.contains("/events") {
                return (201, call.body.clone());
            }
            let mut objects = kept.lock().unwrap();
            if call.method == "GET" && call.path.ends_with("/containerruntimes") {
                let items: Vec<_> = objects.values().cloned().collect();
                return (200, json!({"metadata": {"resourceVersion": "1"}, "items": items}));
            }
            let object = objects.get_mut("a").unwrap();
            if call.method == "GET" {
                return (200, object.clone());
            }
            let number = {
                let mut writes = writes.lock().unwrap();
                *writes += 1;
                *writes
            };
            if let Some(answer) = answer(number, object) {
                return answer;
            }
            let version = &object["metadata"]["resourceVersion"];
            if call.body["metadata"]["resourceVersion"] != *version {
                return refusal(409, "Conflict");
            }
            let next = version.as_str().unwrap().parse::<u64>().unwrap() + 1;
            merge(object, &call.body);
            object["metadata"]["resourceVersion"] = next.to_string().into();
            let read: ContainerRuntime = serde_json::from_value(object.clone()).unwrap();
            watched.put(key(), Arc::new(read.clone()));
            told.put_runtime(&read);
            (200, object.clone())
        });
        let (events, publish) = Events::new(client.clone());
        let (sender, catalog) = watch::channel(Arc::new(catalog(&world.strategy)));
        let rollouts = Rollouts {
            client,
            home: Home::Plain { namespace: shoot().to_string() },
            index: Arc::clone(&index),
            store: Arc::clone(&store),
            clusters: Arc::default(),
            catalog,
            events,
            bandwidth: Arc::new(Bandwidth::new(Default::default())),
            rings: None,
        };
        let shutdown = Shutdown::new();
        let mut tasks = JoinSet::new();
        tasks.spawn(rollouts.run(shutdown.clone()));
        tasks.spawn(publish.run(shutdown));
        let controller = Self {
            world: world.clone(),
            index,
            store,
            calls,
            catalog: sender,
            agents: Mutex::default(),
            _tasks: tasks,
        };
        controller.watch();
        controller.resolve(bundle);
        let all = world.nodes.lock().unwrap().clone();
        let objects: Vec<_> = all.iter().map(|(name, machine)| node(name, machine)).collect();
        controller.index.nodes_listed(&shoot(), &objects);
        controller
    }

    /// The watch brings the objects.
    fn watch(&self) {
        let object = self.world.objects.lock().unwrap()["a"].clone();
        let object: Arc<ContainerRuntime> = Arc::new(serde_json::from_value(object).unwrap());
        self.store.put(key(), Arc::clone(&object));
        self.index.seed_listed(std::slice::from_ref(&object));
        self.index.put_runtime(&object);
    }

    fn resolve(&self, content: &[u8]) {
        let reference = [(gvisor(), "main/rootstock/gvisor:1".to_owned())].into();
        let bundle: Resolution = crate::index::tests::bundle(content, &json!({}));
        self.index.put_bundles(reference, [(gvisor(), bundle)].into(), BTreeMap::new());
    }

    /// A node's agent comes, and does what it is told.
    fn connect(&self, name: &str) {
        let id = NodeId {
            shoot: shoot(),
            name: name.parse().unwrap(),
            uid: name.replace('n', "u").parse().unwrap(),
        };
        let held = self.world.nodes.lock().unwrap()[name].held;
        let mut desired = self.index.connect(&id, held).unwrap();
        let (world, index, name) = (self.world.clone(), Arc::clone(&self.index), name.to_owned());
        self.agents.lock().unwrap().spawn(async move {
            index.report(&id, held.map(|held| held.0).unwrap_or_default(), world.report(&name));
            loop {
                let latest = desired.borrow_and_update().clone();
                if let Some(latest) = latest {
                    world.take(&name, &latest);
                    index.report(&id, latest.generation, world.report(&name));
                }
                if desired.changed().await.is_err() {
                    return;
                }
            }
        });
    }

    /// A new node comes.
    fn join(&self, name: &str) {
        let machine = Machine { joining: true, ..Machine::default() };
        self.index.put_node(&shoot(), &node(name, &machine));
        self.world.nodes.lock().unwrap().insert(name.to_owned(), machine);
        self.connect(name);
    }

    /// Somebody sets the annotation.
    fn ask(&self, word: &str) {
        {
            let mut objects = self.world.objects.lock().unwrap();
            let object = objects.get_mut("a").unwrap();
            object["metadata"]["annotations"]["rootstock.gardener.cloud/rollout"] = word.into();
            let version = object["metadata"]["resourceVersion"].as_str().unwrap();
            let next = version.parse::<u64>().unwrap() + 1;
            object["metadata"]["resourceVersion"] = next.to_string().into();
        }
        self.watch();
    }

    fn asked(&self) -> Value {
        let objects = self.world.objects.lock().unwrap();
        objects["a"]["metadata"]["annotations"]["rootstock.gardener.cloud/rollout"].clone()
    }

    fn words(&self) -> Vec<String> {
        let calls = self.calls.all().into_iter().filter(|call| call.path.contains("/events"));
        calls.map(|call| call.body["reason"].as_str().unwrap_or_default().to_owned()).collect()
    }
}

impl World {
    /// What a node does with what it is sent: it restarts containerd only with a slot.
    fn take(&self, name: &str, latest: &Offered) {
        assert!(latest.content.gated);
        let mut nodes = self.nodes.lock().unwrap();
        let machine = nodes.get_mut(name).unwrap();
        machine.held = Some((latest.generation, latest.content.hash()));
        if let Some(ahead) = latest.content.prefetch.first() {
            machine.fetched = Some(ahead.digest);
        }
        let Some(bundle) = latest.content.bundles.first() else { return };
        if latest.content.prefetch.is_empty() {
            machine.fetched = Some(bundle.digest);
        }
        let done = machine.runs == Some(bundle.digest) || machine.failed == Some(bundle.digest);
        if done || latest.slot.is_none() {
            return;
        }
        if !machine.joining {
            drop(nodes);
            assert!(self.has_slot(name), "{name} has a slot that is not recorded");
            nodes = self.nodes.lock().unwrap();
        }
        let machine = nodes.get_mut(name).unwrap();
        machine.activated.push(bundle.digest);
        if self.bad.is_some_and(|bad| Digest::of(bad) == bundle.digest) {
            machine.failed = Some(bundle.digest);
        } else {
            machine.runs = Some(bundle.digest);
        }
    }

    fn report(&self, name: &str) -> Vec<BundleReport> {
        let machine = self.nodes.lock().unwrap()[name].clone();
        let (phase, digest, reason) = match (machine.failed, machine.runs, machine.fetched) {
            (Some(failed), ..) => {
                (Phase::RolledBack, Some(failed), Some(Reason::ContainerdStartFailed))
            }
            (None, Some(runs), _) => (Phase::Proven, Some(runs), None),
            (None, None, Some(fetched)) => (Phase::Verified, Some(fetched), None),
            (None, None, None) => return Vec::new(),
        };
        let mut report = BundleReport::new(gvisor(), phase);
        (report.digest, report.reason, report.fetched) = (digest, reason, machine.fetched);
        vec![report]
    }
}

fn key() -> RuntimeKey {
    RuntimeKey { shoot: shoot(), name: "a".to_owned() }
}

fn catalog(strategy: &Value) -> Catalog {
    serde_json::from_value(json!({
        "registries": [{"name": "main", "url": "http://r"}],
        "runtimes": [{"type": "gvisor", "bundle": "main/rootstock/gvisor:1", "strategy": strategy}],
    }))
    .unwrap()
}

/// A strategy that waits for nothing but nodes.
fn quick() -> Value {
    json!({"canary": 1, "soak": "0s", "maxUnavailable": "20%", "deadlines": {"firstSandbox": "0s"}})
}

/// Lets the paused clock run until something is so.
async fn until(what: &str, holds: impl Fn() -> bool) {
    for _ in 0..1200 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{what} does not come");
}
