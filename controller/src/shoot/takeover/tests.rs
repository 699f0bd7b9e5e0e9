use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Mutex;
use std::task::{Context, Poll};
use std::time::Duration;

use k8s_openapi::api::core::v1::Node;
use kube::client::Body;
use rootstock_core::path::BinaryRoots;
use serde_json::{Value, json};
use tokio::sync::watch;
use tonic::codegen::{Service, http};

use super::*;
use crate::api::ContainerRuntime;

const SHOOT: &str = "shoot--garden--one";
const RESOURCES: &str = "managedresources";
const PODS: &str = "pods";

/// A seed's and a shoot's API in one: lists what is there, and a watch ends
/// when that changes.
#[derive(Clone)]
struct Server {
    state: watch::Sender<BTreeMap<&'static str, Answer>>,
    /// What was listed last: a watch goes on from there.
    listed: Arc<Mutex<BTreeMap<&'static str, Answer>>>,
    asked: Arc<Mutex<Vec<String>>>,
}

/// Objects, or the code of a refusal.
type Answer = Result<Vec<Value>, u16>;

impl Server {
    fn new(resources: Vec<Value>, pods: Vec<Value>) -> Self {
        let state = [(RESOURCES, Ok(resources)), (PODS, Ok(pods))].into();
        Self { state: watch::channel(state).0, listed: Arc::default(), asked: Arc::default() }
    }

    fn set(&self, resource: &'static str, answer: Answer) {
        self.state.send_modify(|state| drop(state.insert(resource, answer)));
    }

    fn client(&self) -> Client {
        Client::new(self.clone(), SHOOT)
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

impl Service<http::Request<Body>> for Server {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let path = request.uri().path().to_owned();
        let query = request.uri().query().unwrap_or_default().to_owned();
        let is_watch = query.contains("watch=true");
        let resource = if path.ends_with(RESOURCES) { RESOURCES } else { PODS };
        if !is_watch {
            self.asked.lock().unwrap().push(format!("{path}?{query}"));
        }
        let (mut state, listed) = (self.state.subscribe(), Arc::clone(&self.listed));
        Box::pin(async move {
            if is_watch {
                let before = listed.lock().unwrap()[resource].clone();
                let _ = state.wait_for(|state| state[resource] != before).await;
                let gone = json!({"type": "ERROR", "object": {"kind": "Status", "apiVersion": "v1",
                    "metadata": {}, "status": "Failure", "message": "too old", "reason": "Expired",
                    "code": 410}});
                let body = Body::from(gone.to_string().into_bytes());
                return Ok(http::Response::new(body));
            }
            let answer = state.borrow()[resource].clone();
            listed.lock().unwrap().insert(resource, answer.clone());
            let (code, body) = match answer {
                Ok(items) => {
                    let list = json!({"apiVersion": "v1", "kind": "List", "items": items,
                        "metadata": {"resourceVersion": "1"}});
                    (200, list)
                }
                Err(code) => crate::scripted::refusal(code, "as scripted"),
            };
            let body = Body::from(body.to_string().into_bytes());
            Ok(http::Response::builder().status(code).body(body).unwrap())
        })
    }
}

fn resource(name: &str) -> Value {
    json!({"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata",
        "metadata": {"name": name, "namespace": SHOOT}})
}

fn pod(name: &str, node: Option<&str>, owned: bool) -> Value {
    let owner = json!([{"apiVersion": "apps/v1", "kind": "DaemonSet", "controller": true,
        "name": "containerd-gvisor-a", "uid": "1"}]);
    let owner = if owned { owner } else { json!([]) };
    json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "kube-system", "ownerReferences": owner},
        "spec": {"nodeName": node, "containers": []}})
}

fn shoot() -> ShootName {
    SHOOT.parse().unwrap()
}

/// An index with two nodes, in a shoot that asks for this type or for nothing.
fn index(runtime: Option<&str>) -> Arc<Index> {
    let index = Index::new(BinaryRoots::default()).at_once();
    let runtimes: Vec<Arc<ContainerRuntime>> =
        runtime.into_iter().map(|runtime| Arc::new(asking(runtime))).collect();
    index.seed_listed(&runtimes);
    let node = |name: &str| -> Node {
        serde_json::from_value(json!({"metadata": {"name": name, "uid": name}})).unwrap()
    };
    index.nodes_listed(&shoot(), &[node("n1"), node("n2")]);
    Arc::new(index)
}

fn asking(runtime: &str) -> ContainerRuntime {
    serde_json::from_value(json!({
        "apiVersion": "extensions.gardener.cloud/v1alpha1", "kind": "ContainerRuntime",
        "metadata": {"name": format!("{runtime}-a"), "namespace": SHOOT},
        "spec": {"type": runtime, "binaryPath": "/var/bin/containerruntimes",
            "workerPool": {"name": "a", "selector": {"matchLabels": {}}}},
    }))
    .unwrap()
}

/// Follows while `look` looks on.
async fn following<T>(
    takeover: &mut Takeover,
    server: &Server,
    look: impl Future<Output = T>,
) -> T {
    let (seed, client) = (server.client(), server.client());
    tokio::select! {
        never = takeover.follow(&seed, &client) => match never {},
        seen = look => seen,
    }
}

async fn until(index: &Index, what: &str, is_so: impl Fn(&Installer) -> bool) {
    let mut changes = index.changes();
    let so = async {
        while !is_so(&index.installer(&shoot())) {
            changes.changed().await.unwrap();
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(120), so).await;
    assert!(waited.is_ok(), "{what}: {:?}", index.installer(&shoot()));
}

fn is_gone(installer: &Installer) -> bool {
    *installer == Installer::Gone
}

#[tokio::test(start_paused = true)]
async fn what_is_left_is_followed_until_nothing_is() {
    let index = index(Some("gvisor"));
    let mut takeover = Takeover::new(shoot(), Arc::clone(&index));
    assert_eq!(index.installer(&shoot()), Installer::Unknown);
    let theirs = "extension-runtime-gvisor-installation-a";
    let resources = vec![resource("extension-runtime-gvisor"), resource(theirs)];
    let pods = vec![pod("p1", Some("n1"), true), pod("p2", None, true)];
    let server = Server::new(resources, pods);
    let look = async {
        let says = |word: &'static str| move |i: &Installer| matches!(i, Installer::Everywhere(why) if why.contains(word));
        until(&index, "its ManagedResource", says(theirs)).await;
        assert!(!server.asked().iter().any(|path| path.contains(PODS)), "its Pods come after");
        server.set(RESOURCES, Ok(vec![resource("extension-runtime-gvisor")]));
        // One without a node may come to any.
        until(&index, "a Pod without a node", says("kube-system/p2")).await;
        server.set(PODS, Ok(vec![pod("p1", Some("n1"), true)]));
        until(&index, "one node", |i| matches!(i, Installer::On(nodes) if nodes.len() == 1)).await;
        server.set(PODS, Ok(Vec::new()));
        until(&index, "nothing", is_gone).await;
    };
    following(&mut takeover, &server, look).await;
    // Nobody looks again.
    let asked = server.asked();
    assert!(asked[0].contains("labelSelector=origin%3Dextension-runtime-gvisor"), "{asked:?}");
    let again = async {
        tokio::time::sleep(Duration::from_secs(60)).await;
        server.asked().len()
    };
    assert_eq!(following(&mut takeover, &server, again).await, asked.len());
}

#[tokio::test(start_paused = true)]
async fn a_shoot_without_an_installer_is_looked_at_once_and_only_for_gvisor() {
    let index = index(Some("kata"));
    let mut takeover = Takeover::new(shoot(), Arc::clone(&index));
    let server = Server::new(vec![resource("extension-runtime-gvisor")], Vec::new());
    let look = async {
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(server.asked(), Vec::<String>::new());
        index.put_runtime(&asking("gvisor"));
        until(&index, "nothing is there", is_gone).await;
        assert_eq!(server.asked().len(), 2, "{:?}", server.asked());
    };
    following(&mut takeover, &server, look).await;
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_seen_counts_as_there() {
    let index = index(Some("gvisor"));
    let mut takeover = Takeover::new(shoot(), Arc::clone(&index));
    let server = Server::new(Vec::new(), Vec::new());
    server.set(PODS, Err(403));
    let look = async {
        let says =
            |i: &Installer| matches!(i, Installer::Everywhere(why) if why.contains("be seen"));
        until(&index, "it is said when it lasts", says).await;
        server.set(PODS, Ok(Vec::new()));
        until(&index, "nothing is there", is_gone).await;
    };
    following(&mut takeover, &server, look).await;
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_stays_is_named_with_what_to_delete() {
    let index = index(Some("gvisor"));
    let mut takeover = Takeover::new(shoot(), Arc::clone(&index));
    let pods = vec![pod("p1", Some("n1"), true), pod("p2", Some("n2"), false)];
    let server = Server::new(Vec::new(), pods);
    let look =
        until(&index, "two nodes", |i| matches!(i, Installer::On(nodes) if nodes.len() == 2));
    following(&mut takeover, &server, look).await;
    let Installer::On(nodes) = index.installer(&shoot()) else { unreachable!() };
    let said: Vec<_> = nodes.into_values().collect();
    let owned = "if it stays: kubectl -n kube-system delete daemonset containerd-gvisor-a";
    assert!(said[0].contains("kube-system/p1") && said[0].contains(owned), "{said:?}");
    let alone = "if it stays: kubectl -n kube-system delete pod p2";
    assert!(said[1].contains(alone), "{said:?}");
}
