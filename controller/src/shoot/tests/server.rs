//! A scripted API server: the seed's Secrets, and the API of each shoot under
//! its own path, well or not.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse as _, Json, Response};
use axum::routing::{any, get};
use futures_util::StreamExt as _;
use serde_json::{Value, json};
use tokio::sync::{broadcast, watch};

/// How a shoot's API behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Mood {
    Good,
    /// No answer ever begins.
    Hangs,
    /// An answer begins and does not end.
    Drips,
    /// It answers with this code.
    Refuses(u16),
    /// It answers with what nobody understands.
    Babbles,
    /// Its watches end at once.
    Cuts,
}

/// What was asked of a shoot's API.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    pub(super) lists: usize,
    /// The tokens of watches, in their order.
    pub(super) watches: Vec<String>,
    pub(super) refused: usize,
}

/// The server.
#[derive(Clone)]
pub(super) struct Server {
    pub(super) url: Arc<str>,
    pub(super) moods: watch::Sender<BTreeMap<String, Mood>>,
    /// The one token that is taken.
    pub(super) token: watch::Sender<String>,
    /// The agent's Pods in a list, or with what code they are refused.
    pub(super) pods: watch::Sender<Result<Vec<Value>, u16>>,
    /// What watches of Pods tell.
    pub(super) pod_events: broadcast::Sender<Value>,
    /// The Events of sandboxes in a list, or with what code they are refused.
    pub(super) events: watch::Sender<Result<Vec<Value>, u16>>,
    /// What watches of those Events tell.
    pub(super) sandbox_events: broadcast::Sender<Value>,
    /// The Pods that are pending in a list, or with what code they are refused.
    pub(super) pending: watch::Sender<Result<Vec<Value>, u16>>,
    /// What watches of those Pods tell.
    pub(super) pending_events: broadcast::Sender<Value>,
    /// The Pods that were asked for by name.
    pub(super) asked: Arc<Mutex<Vec<String>>>,
    /// The codes with which Pods and Events were refused.
    pub(super) refusals: Arc<Mutex<Vec<u16>>>,
    /// Raised to end all watches.
    pub(super) cut: watch::Sender<u64>,
    pub(super) seen: Arc<Mutex<BTreeMap<String, Seen>>>,
    /// Requests for Secrets that are no GET.
    pub(super) written: Arc<Mutex<Vec<String>>>,
}

impl Server {
    pub(super) async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap()).into();
        let server = Self {
            url,
            moods: watch::channel(BTreeMap::new()).0,
            token: watch::channel("old".to_owned()).0,
            pods: watch::channel(Ok([1, 2].map(|n| pod(&format!("p{n}"), n)).into())).0,
            pod_events: broadcast::channel(8).0,
            events: watch::channel(Ok(vec![super::sandboxes::event("e0", "sandboxed", 40)])).0,
            sandbox_events: broadcast::channel(8).0,
            pending: watch::channel(Ok(vec![super::sandboxes::waits("first")])).0,
            pending_events: broadcast::channel(8).0,
            asked: Arc::default(),
            refusals: Arc::default(),
            cut: watch::channel(0).0,
            seen: Arc::default(),
            written: Arc::default(),
        };
        let routes = Router::new()
            .route("/api/v1/namespaces/{shoot}/secrets/{name}", get(secret).fallback(write))
            .route("/api/v1/namespaces/{shoot}/secrets", any(write))
            .route("/{shoot}/api/v1/nodes", get(nodes))
            .route("/{shoot}/api/v1/namespaces/kube-system/pods", get(pods))
            .route("/{shoot}/api/v1/namespaces/default/pods/{name}", get(pod_by_name))
            .route("/{shoot}/api/v1/events", get(events))
            .route("/{shoot}/api/v1/pods", get(pending))
            .route("/{shoot}/api/v1/namespaces/default/events", get(events_of_pod))
            .with_state(server.clone());
        #[expect(clippy::disallowed_methods, reason = "it ends with the test's runtime")]
        drop(tokio::spawn(async move { axum::serve(listener, routes).await }));
        server
    }

    pub(super) fn seed(&self) -> kube::Client {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        kube::Client::try_from(kube::Config::new(self.url.parse().unwrap())).unwrap()
    }

    pub(super) fn set(&self, shoot: &str, mood: Mood) {
        self.moods.send_modify(|moods| {
            moods.insert(shoot.to_owned(), mood);
        });
    }

    pub(super) fn seen(&self, shoot: &str) -> Seen {
        self.seen.lock().unwrap().get(shoot).cloned().unwrap_or_default()
    }

    fn note(&self, shoot: &str, note: impl FnOnce(&mut Seen)) {
        note(self.seen.lock().unwrap().entry(shoot.to_owned()).or_default());
    }
}

async fn secret(
    State(server): State<Server>,
    Path((shoot, name)): Path<(String, String)>,
) -> Response {
    use base64::Engine as _;
    let url = &server.url;
    let kubeconfig = json!({
        "clusters": [{"name": "c", "cluster": {"server": format!("{url}/{shoot}")}}],
        "users": [{"name": "u", "user": {"tokenFile": "/nowhere"}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    });
    let encode = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
    let data = match name.as_str() {
        "generic" => json!({"kubeconfig": encode(&kubeconfig.to_string())}),
        "shoot-access-rootstock" => json!({"token": encode(&server.token.borrow())}),
        _ => return refuse(404),
    };
    let metadata = json!({"name": name, "namespace": shoot});
    Json(json!({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": data}))
        .into_response()
}

async fn write(State(server): State<Server>, method: Method, uri: Uri) -> Response {
    server.written.lock().unwrap().push(format!("{method} {uri}"));
    refuse(403)
}

async fn nodes(
    State(server): State<Server>,
    Path(shoot): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    let token = headers.get("authorization").and_then(|value| value.to_str().ok());
    let token = token.unwrap_or_default().trim_start_matches("Bearer ").to_owned();
    let watches = query.is_some_and(|query| query.contains("watch=true"));
    let mood = server.moods.borrow().get(&shoot).copied().unwrap_or(Mood::Good);
    if token != *server.token.borrow() {
        server.note(&shoot, |seen| seen.refused += 1);
        return refuse(401);
    }
    match mood {
        Mood::Good | Mood::Cuts => {}
        Mood::Hangs => {
            server.note(&shoot, |seen| seen.refused += 1);
            // Until somebody says that all is well again.
            let mut moods = server.moods.subscribe();
            let _ = moods.wait_for(|moods| moods.get(&shoot) != Some(&mood)).await;
            return refuse(503);
        }
        Mood::Drips => {
            server.note(&shoot, |seen| seen.refused += 1);
            let begun =
                futures_util::stream::once(async { Ok::<_, std::io::Error>("{\"items\": [") });
            return Body::from_stream(begun.chain(futures_util::stream::pending())).into_response();
        }
        Mood::Refuses(code) => {
            server.note(&shoot, |seen| seen.refused += 1);
            return refuse(code);
        }
        Mood::Babbles => {
            server.note(&shoot, |seen| seen.refused += 1);
            return "<html>Bad Gateway</html>".into_response();
        }
    }
    if !watches {
        server.note(&shoot, |seen| seen.lists += 1);
        return Json(list()).into_response();
    }
    server.note(&shoot, |seen| seen.watches.push(token));
    if mood == Mood::Cuts {
        return "".into_response();
    }
    let mut cut = server.cut.subscribe();
    let events = futures_util::stream::once(async move {
        let _ = cut.changed().await;
        Ok::<_, std::io::Error>(String::new())
    });
    Body::from_stream(events).into_response()
}

async fn pods(server: State<Server>, shoot: Path<String>, query: RawQuery) -> Response {
    let selector = "labelSelector=app.kubernetes.io%2Fname%3Drootstock-agent";
    let (items, events) = (server.pods.borrow().clone(), server.pod_events.clone());
    followed(&server, &shoot, query, selector, items, &events)
}

/// Events of sandboxes that could not be started.
async fn events(server: State<Server>, shoot: Path<String>, query: RawQuery) -> Response {
    let selector = "fieldSelector=reason%3DFailedCreatePodSandBox";
    let (items, events) = (server.events.borrow().clone(), server.sandbox_events.clone());
    followed(&server, &shoot, query, selector, items, &events)
}

/// Pods that are pending.
async fn pending(server: State<Server>, shoot: Path<String>, query: RawQuery) -> Response {
    let selector = "fieldSelector=status.phase%3DPending";
    let (items, events) = (server.pending.borrow().clone(), server.pending_events.clone());
    followed(&server, &shoot, query, selector, items, &events)
}

/// Objects in a list or a watch, where the query has the selector.
fn followed(
    server: &Server,
    shoot: &str,
    RawQuery(query): RawQuery,
    selector: &str,
    items: Result<Vec<Value>, u16>,
    events: &broadcast::Sender<Value>,
) -> Response {
    let query = query.unwrap_or_default();
    assert!(query.contains(selector), "{query}");
    let mood = server.moods.borrow().get(shoot).copied().unwrap_or(Mood::Good);
    let items = match items {
        Ok(items) if mood == Mood::Good => items,
        Ok(_) => return refuse(503),
        Err(code) => {
            server.refusals.lock().unwrap().push(code);
            return refuse(code);
        }
    };
    if query.contains("watch=true") {
        return tell(server, events);
    }
    let metadata = json!({"resourceVersion": "7"});
    Json(json!({"kind": "List", "apiVersion": "v1", "metadata": metadata, "items": items}))
        .into_response()
}

/// The Events of a Pod by its UID, which says what they are.
async fn events_of_pod(State(server): State<Server>, RawQuery(query): RawQuery) -> Response {
    let query = query.unwrap_or_default();
    let of = query.split('&').find_map(|part| {
        part.trim_start_matches('?').strip_prefix("fieldSelector=involvedObject.uid%3D")
    });
    let uid = of.unwrap_or_else(|| panic!("{query}")).to_owned();
    let first = !server.asked.lock().unwrap().contains(&uid);
    server.asked.lock().unwrap().push(uid.clone());
    let reasons: &[&str] = match uid.as_str() {
        "pulls" => &["Scheduled", "Pulling"],
        "unanswered" if first => return refuse(503),
        _ => &["Scheduled"],
    };
    let event = |reason: &&str| json!({"reason": reason, "source": {"component": "kubelet"}});
    let items: Vec<_> = reasons.iter().map(event).collect();
    Json(json!({"kind": "EventList", "apiVersion": "v1", "metadata": {}, "items": items}))
        .into_response()
}

/// A Pod by its name, which is its UID too, and says what it is.
async fn pod_by_name(
    State(server): State<Server>,
    Path((_, name)): Path<(String, String)>,
) -> Response {
    server.asked.lock().unwrap().push(name.clone());
    let (node, class) = match name.as_str() {
        "sandboxed" => ("n1", json!("sandboxed")),
        "plain" => ("n1", Value::Null),
        "elsewhere" => ("n2", json!("sandboxed")),
        _ => return refuse(404),
    };
    Json(json!({"metadata": {"name": name, "uid": name},
        "spec": {"nodeName": node, "runtimeClassName": class}}))
    .into_response()
}

/// A watch that tells what a test sends, until it is cut.
fn tell(server: &Server, what: &broadcast::Sender<Value>) -> Response {
    let (mut cut, mut events) = (server.cut.subscribe(), what.subscribe());
    let (say, said) = tokio::sync::mpsc::channel(8);
    #[expect(clippy::disallowed_methods, reason = "it ends with the test's runtime")]
    drop(tokio::spawn(async move {
        loop {
            // Cancel-safe: both keep what was not taken.
            let event = tokio::select! {
                event = events.recv() => event.unwrap(),
                _ = cut.changed() => return,
            };
            if say.send(Ok::<_, std::io::Error>(format!("{event}\n"))).await.is_err() {
                return;
            }
        }
    }));
    Body::from_stream(tokio_stream::wrappers::ReceiverStream::new(said)).into_response()
}

/// A Pod of the agent on the n-th node.
pub(super) fn pod(uid: &str, n: usize) -> Value {
    let owner = json!({"apiVersion": "apps/v1", "kind": "DaemonSet", "name": "rootstock-agent",
        "uid": "d", "controller": true});
    json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": format!("rootstock-agent-{uid}"), "uid": uid, "resourceVersion": "8",
            "ownerReferences": [owner]},
        "spec": {"nodeName": format!("n{n}"), "containers": []}, "status": {"phase": "Running"}})
}

fn list() -> Value {
    let labels = json!({"worker.gardener.cloud/pool": "a", "kubernetes.io/arch": "amd64",
        "worker.gardener.cloud/cri-name": "containerd",
        "containerruntime.worker.gardener.cloud/kata": "true"});
    let node = |n: usize| {
        json!({"metadata": {"name": format!("n{n}"), "uid": n.to_string(),
        "labels": labels, "resourceVersion": "5"}})
    };
    let metadata = json!({"resourceVersion": "7"});
    json!({"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1",
        "metadata": metadata, "items": [node(1), node(2)]})
}

fn refuse(code: u16) -> Response {
    let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "code": code, "reason": "Scripted", "message": "as scripted"});
    let code = StatusCode::from_u16(code).unwrap();
    (code, [("retry-after", "1")], Json(status)).into_response()
}

/// The bound for whatever has to happen, on a machine that does much else too.
pub(super) const BOUND: Duration = Duration::from_secs(120);
