//! The writer, against an API server that does what a test says.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use k8s_openapi::api::core::v1::Node;
use rootstock_core::assign::{AGENT_LABEL, Resolution};
use rootstock_core::desired::Generation;
use rootstock_core::digest::Digest;
use rootstock_core::name::{Architecture, RuntimeType, ShootName};
use rootstock_core::path::BinaryRoots;
use rootstock_core::rollout::record::{Course, Evidence, Failure};
use rootstock_core::rollout::{Progress, progress as rollout};
use rootstock_core::status::{BundleReport, Phase, Reason};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::*;
use crate::events::Publish;
use crate::identity::NodeId;
use crate::index::ShootState;
use crate::scripted::{self, Call, Calls, merge, refusal};

mod writes;

const TIME: &str = "2026-01-01T00:00:00Z";

fn shoot() -> ShootName {
    "shoot--garden--one".parse().unwrap()
}

fn gvisor() -> RuntimeType {
    "gvisor".parse().unwrap()
}

fn key(name: &str) -> RuntimeKey {
    RuntimeKey { shoot: shoot(), name: name.to_owned() }
}

/// A resource whose operation succeeded.
fn runtime(name: &str) -> Value {
    json!({
        "apiVersion": "extensions.gardener.cloud/v1alpha1", "kind": "ContainerRuntime",
        "metadata": {"name": name, "namespace": "shoot--garden--one", "uid": format!("uid-{name}"),
                     "resourceVersion": "1", "annotations": {}},
        "spec": {"type": "gvisor", "binaryPath": "/var/bin/containerruntimes", "workerPool": {
            "name": "a", "selector": {"matchLabels": {"worker.gardener.cloud/pool": "a"}}}},
        "status": {"lastOperation": {"type": "Reconcile", "state": "Succeeded", "progress": 100,
            "description": "", "lastUpdateTime": TIME}},
    })
}

fn bundle(content: &[u8]) -> Resolution {
    crate::index::tests::bundle(content, &json!({}))
}

fn node(number: usize) -> Node {
    serde_json::from_value(json!({"metadata": {
        "name": format!("n{number}"), "uid": format!("u{number}"), "labels": {
            "worker.gardener.cloud/pool": "a",
            "worker.gardener.cloud/cri-name": "containerd",
            "containerruntime.worker.gardener.cloud/gvisor": "true",
            "kubernetes.io/arch": "amd64",
            AGENT_LABEL: "true",
        },
    }}))
    .unwrap()
}

/// The writer, what it knows, and what it writes to.
struct Seed {
    index: Arc<Index>,
    store: Arc<Store>,
    objects: Arc<Mutex<BTreeMap<String, Value>>>,
    /// Whether the watch is on time.
    on_time: Arc<AtomicBool>,
    /// The object whose writes hang.
    hangs: Arc<Mutex<Option<&'static str>>>,
    calls: Calls,
    _tasks: JoinSet<anyhow::Result<()>>,
}

impl Seed {
    /// A controller that starts and finds these.
    fn start(objects: Vec<Value>) -> Self {
        let index = Arc::new(Index::new(BinaryRoots::default()).at_once());
        index.forget_agents();
        let store = Arc::new(Store::default());
        let on_time = Arc::new(AtomicBool::new(true));
        let hangs: Arc<Mutex<Option<&str>>> = Arc::default();
        let hanging = Arc::clone(&hangs);
        let objects: BTreeMap<_, _> = objects
            .into_iter()
            .map(|object| (object["metadata"]["name"].as_str().unwrap().to_owned(), object))
            .collect();
        let objects = Arc::new(Mutex::new(objects));
        let (kept, watch, watched) =
            (Arc::clone(&objects), Arc::clone(&on_time), Arc::clone(&store));
        let (client, calls) = scripted::client(move |call: &Call| {
            if call.path.contains("/events") {
                return (201, call.body.clone());
            }
            assert_eq!(call.method, "PATCH", "{}", call.path);
            let name = call.path.rsplit('/').nth(1).unwrap();
            if *hanging.lock().unwrap() == Some(name) {
                return (scripted::SILENCE, Value::Null);
            }
            let mut objects = kept.lock().unwrap();
            let Some(object) = objects.get_mut(name) else { return refusal(404, "NotFound") };
            let version = &object["metadata"]["resourceVersion"];
            if call.body["metadata"]["resourceVersion"] != *version {
                return refusal(409, "Conflict");
            }
            let next = version.as_str().unwrap().parse::<u64>().unwrap() + 1;
            merge(object, &call.body);
            object["metadata"]["resourceVersion"] = next.to_string().into();
            if watch.load(Ordering::Relaxed) {
                watched.put(key(name), Arc::new(serde_json::from_value(object.clone()).unwrap()));
            }
            (200, object.clone())
        });
        let (events, publish) = Events::new(client.clone());
        let writer = StatusWriter {
            client,
            index: Arc::clone(&index),
            store: Arc::clone(&store),
            events,
            catalog: watch::channel(Arc::default()).1,
        };
        index.put_bundles(
            BTreeMap::new(),
            [(gvisor(), Resolution::Pending)].into(),
            BTreeMap::new(),
        );
        let seed = Self { index, store, objects, on_time, hangs, calls, _tasks: JoinSet::new() };
        seed.list();
        seed.begin(writer, publish)
    }

    fn begin(mut self, writer: StatusWriter, publish: Publish) -> Self {
        let shutdown = Shutdown::new();
        self._tasks.spawn(writer.run(shutdown.clone()));
        self._tasks.spawn(publish.run(shutdown));
        self
    }

    fn list(&self) {
        let objects = self.objects.lock().unwrap().clone();
        let read = |object: &Value| -> Arc<ContainerRuntime> {
            Arc::new(serde_json::from_value(object.clone()).unwrap())
        };
        for (name, object) in &objects {
            self.store.put(key(name), read(object));
        }
        self.index.seed_listed(&objects.values().map(read).collect::<Vec<_>>());
    }

    /// Somebody else changes an object.
    fn change(&self, name: &str, change: impl FnOnce(&mut Value)) {
        let mut objects = self.objects.lock().unwrap();
        let object = objects.get_mut(name).unwrap();
        change(object);
        let version: u64 = object["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap();
        object["metadata"]["resourceVersion"] = (version + 1).to_string().into();
        drop(objects);
        if self.on_time.load(Ordering::Relaxed) {
            self.watch(name);
        }
    }

    /// The watch brings an object.
    fn watch(&self, name: &str) {
        let object = self.objects.lock().unwrap()[name].clone();
        let object: Arc<ContainerRuntime> = Arc::new(serde_json::from_value(object).unwrap());
        self.store.put(key(name), Arc::clone(&object));
        self.index.put_runtime(&object);
    }

    fn resolve(&self, content: &[u8]) {
        let reference = [(gvisor(), "main/rootstock/gvisor:1".to_owned())].into();
        let bundles = [(gvisor(), bundle(content))].into();
        self.index.put_bundles(reference, bundles, BTreeMap::new());
    }

    fn nodes(&self, count: usize) {
        self.index.nodes_listed(&shoot(), &(0..count).map(node).collect::<Vec<_>>());
    }

    /// A node's agent is here and says something.
    fn report(&self, number: usize, phase: Phase, reason: Option<Reason>, content: &[u8]) {
        let id = NodeId {
            shoot: shoot(),
            name: format!("n{number}").parse().unwrap(),
            uid: format!("u{number}").parse().unwrap(),
        };
        self.index.connect(&id, None).unwrap();
        let mut report = BundleReport::new(gvisor(), phase);
        report.digest = Some(Digest::of(content));
        report.reason = reason;
        self.index.report(&id, Generation(1), vec![report]);
    }

    /// A rollout of the second bundle is so far, with these failed nodes.
    fn rollout(&self, phase: rollout::Phase, have: usize, failed: &[&str]) {
        let failure = |name: &&str| Failure {
            node: name.replace('n', "u").parse().unwrap(),
            reason: Reason::ProofFailed,
            at: Timestamp::UNIX_EPOCH,
            excused: false,
            evidence: Some(Evidence {
                name: name.parse().unwrap(),
                message: "it does not start".to_owned(),
            }),
        };
        let idle = phase == rollout::Phase::Idle;
        let progress = Progress {
            phase,
            course: Course::Forwards,
            candidate: [(Architecture::Amd64, Digest::of(b"two"))].into(),
            since: Some(Timestamp::now()),
            nodes: 50,
            have,
            left: if idle { 0 } else { 50 - have },
            in_flight: usize::from(!idle),
            away: 0,
            awaited: 0,
            failures: failed.iter().map(failure).collect(),
            budget: 2,
            held: 0,
            most_held: 10,
            held_nodes: Vec::new(),
            next: None,
            acted: None,
            can: Vec::new(),
        };
        self.index.put_progress(&shoot(), [("a".to_owned(), progress)].into());
    }

    /// The writes of status so far.
    fn writes(&self) -> Vec<Call> {
        let calls = self.calls.all().into_iter();
        calls.filter(|call| call.path.ends_with("/status")).collect()
    }

    /// The Events so far, as word and note.
    fn events(&self) -> Vec<(String, String)> {
        let calls = self.calls.all().into_iter().filter(|call| call.path.contains("/events"));
        let text = |call: &Call, field: &str| call.body[field].as_str().unwrap().to_owned();
        calls.map(|call| (text(&call, "reason"), text(&call, "note"))).collect()
    }

    fn status(&self, name: &str) -> Value {
        self.objects.lock().unwrap()[name]["status"].clone()
    }

    fn condition(&self, name: &str, kind: &str) -> (String, String) {
        let status = self.status(name);
        let conditions = status["conditions"].as_array().cloned().unwrap_or_default();
        let found = conditions.iter().find(|condition| condition["type"] == kind);
        let text = |field: &str| found.and_then(|c| c[field].as_str()).unwrap_or("-").to_owned();
        (text("status"), text("reason"))
    }
}

/// Lets the paused clock run: every task does what it has to do by then.
async fn pass(time: Duration) {
    tokio::time::sleep(time).await;
}

fn said(status: &str, reason: &str) -> (String, String) {
    (status.to_owned(), reason.to_owned())
}
