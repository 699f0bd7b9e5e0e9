//! The controller's own server with one shoot and one node behind it. The bench
//! `install` takes it from here, too.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use jiff::Timestamp;
use kube::client::Body;
use rootstock_controller::bandwidth::Bandwidth;
use rootstock_controller::content::Offered;
use rootstock_controller::grpc::{
    Connected, Directory, Hello, Refused, RefusedItem, ShootEndpoint, serve,
};
use rootstock_controller::identity::NodeId;
use rootstock_controller::identity::authorities::Authorities;
use rootstock_controller::identity::ca::ShootCa;
use rootstock_controller::lead::Term;
use rootstock_core::bandwidth::{Budgets, Node, Puller};
use rootstock_core::desired::Generation;
use rootstock_core::name::{ShootName, Uid};
use rootstock_core::status::BundleReport;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub(crate) const HOST: &str = "rs-garden--one.seed.localhost";

/// What the controller's other half would know: one shoot, one node.
#[derive(Debug)]
pub(crate) struct World {
    shoot: Mutex<Arc<ShootEndpoint>>,
    /// The first CA.
    pub(crate) first: Arc<ShootCa>,
    /// Its certificate, as PEM.
    pub(crate) ca: String,
    /// The paths that the shoot's API was asked for.
    pub(crate) asked: Arc<Mutex<Vec<String>>>,
    pub(crate) desired: watch::Sender<Option<Offered>>,
    pub(crate) seen: watch::Sender<Seen>,
    bandwidth: Arc<Bandwidth>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    pub(crate) hellos: Vec<(String, Generation, usize)>,
    pub(crate) reports: BTreeMap<String, BundleReport>,
    pub(crate) accepted: Vec<u64>,
    pub(crate) refused: Vec<(u64, String)>,
    pub(crate) disconnects: u64,
    /// The Pods that enrolment has found alive.
    pub(crate) vouched: Vec<String>,
}

impl World {
    /// A shoot with a CA of its own.
    pub(crate) fn new() -> Arc<Self> {
        Self::with_budgets(Budgets::default())
    }

    /// The same with limits of what is pulled.
    pub(crate) fn with_budgets(budgets: Budgets) -> Arc<Self> {
        let (name, now): (ShootName, _) = ("shoot--garden--one".parse().unwrap(), Timestamp::now());
        let ca = Arc::new(ShootCa::generate(&name, now).unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let client = kube::Client::new(ShootApi(Arc::clone(&asked)), "default");
        let pem = ca.cert_pem().to_owned();
        let first = Authorities::one(Arc::clone(&ca));
        Arc::new(Self {
            shoot: Mutex::new(endpoint(&name, &client, first)),
            first: ca,
            ca: pem,
            asked,
            desired: watch::Sender::new(None),
            seen: watch::Sender::default(),
            bandwidth: Arc::new(Bandwidth::new(budgets)),
        })
    }
}

fn endpoint(
    name: &ShootName,
    client: &kube::Client,
    authorities: Authorities,
) -> Arc<ShootEndpoint> {
    let tls = authorities.server_config(&[HOST.to_owned()], Timestamp::now()).unwrap();
    let (name, client) = (name.clone(), client.clone());
    Arc::new(ShootEndpoint { name, authorities, tls, client })
}

impl World {
    /// Another CA of the shoot.
    pub(crate) fn another(&self) -> Arc<ShootCa> {
        Arc::new(ShootCa::generate(self.first.shoot(), Timestamp::now()).unwrap())
    }

    /// Serves the shoot by these from now on.
    pub(crate) fn serve_by(&self, mut authorities: Authorities) {
        let mut shoot = self.shoot.lock().unwrap();
        let leaving = authorities.succeed(shoot.authorities.anchors());
        *shoot = endpoint(&shoot.name, &shoot.client, authorities);
        drop(shoot);
        for anchor in leaving {
            anchor.leave();
        }
    }
}

impl Directory for World {
    fn shoot_by_host(&self, host: &str) -> Option<Arc<ShootEndpoint>> {
        (host == HOST).then(|| Arc::clone(&self.shoot.lock().unwrap()))
    }

    fn connect(&self, node: &NodeId, hello: Hello) -> Result<Connected, Refused> {
        self.seen.send_modify(|seen| {
            seen.hellos.push((node.to_spiffe(), hello.generation, hello.installed.len()));
        });
        let line = self.bandwidth.connect(self.puller(node), hello.leases);
        Ok(Connected { desired: self.desired.subscribe(), line })
    }

    fn puller(&self, node: &NodeId) -> Puller {
        Puller { node: Node::new(node.shoot.clone(), node.name.clone()), pool: "a".into() }
    }

    fn report(&self, _: &NodeId, _: Generation, reports: Vec<BundleReport>) {
        self.seen.send_modify(|seen| {
            seen.reports = reports.into_iter().map(|r| (r.runtime.to_string(), r)).collect();
        });
    }

    fn accepted(&self, _: &NodeId, generation: Generation) {
        self.seen.send_modify(|seen| seen.accepted.push(generation.0));
    }

    fn refused(&self, _: &NodeId, generation: Generation, items: Vec<RefusedItem>) {
        self.seen.send_modify(|seen| {
            seen.refused.push((generation.0, format!("{items:?}")));
        });
    }

    fn vouch(&self, _: &NodeId, pod: &Uid) {
        self.seen.send_modify(|seen| seen.vouched.push(pod.to_string()));
    }

    fn lacks_agent(&self, _: &NodeId) -> bool {
        // No Pods are followed here, so nothing is known of them.
        false
    }

    fn disconnect(&self, _: &NodeId) {
        self.seen.send_modify(|seen| seen.disconnects += 1);
    }
}

/// A shoot's API that knows one token of one Pod on one node.
#[derive(Clone, Debug)]
struct ShootApi(Arc<Mutex<Vec<String>>>);

impl ShootApi {
    fn answer(&self, path: &str, body: &[u8]) -> Value {
        self.0.lock().unwrap().push(path.to_owned());
        let extra = |name: &str| format!("authentication.kubernetes.io/{name}");
        match path {
            "/apis/authentication.k8s.io/v1/tokenreviews" => {
                let mut review: Value = serde_json::from_slice(body).unwrap();
                review["status"] = json!({
                    "authenticated": review["spec"]["token"].as_str().unwrap().starts_with("ey"),
                    "audiences": ["rootstock"],
                    "user": {
                        "username": "system:serviceaccount:kube-system:rootstock-agent",
                        "extra": {
                            extra("pod-name"): ["rootstock-agent-x"], extra("pod-uid"): ["pod-uid-1"],
                            extra("node-name"): ["node-1"], extra("node-uid"): ["node-uid-1"],
                        },
                    },
                });
                review
            }
            "/api/v1/namespaces/kube-system/pods/rootstock-agent-x" => json!({
                "metadata": {
                    "name": "rootstock-agent-x", "namespace": "kube-system", "uid": "pod-uid-1",
                    "ownerReferences": [{
                        "apiVersion": "apps/v1", "kind": "DaemonSet", "name": "rootstock-agent",
                        "uid": "ds-uid-1", "controller": true,
                    }],
                },
                "spec": {"nodeName": "node-1", "containers": []},
            }),
            "/api/v1/nodes/node-1" => json!({"metadata": {"name": "node-1", "uid": "node-uid-1"}}),
            _ => panic!("not asked for: {path}"),
        }
    }
}

impl tower::Service<http::Request<Body>> for ShootApi {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let api = self.clone();
        Box::pin(async move {
            let path = request.uri().path().to_owned();
            let body = request.into_body().collect_bytes().await.unwrap();
            let body = Body::from(api.answer(&path, &body).to_string().into_bytes());
            Ok(http::Response::new(body))
        })
    }
}

/// A server that can be stopped and started again where it was.
#[derive(Debug)]
pub(crate) struct Server {
    stop: CancellationToken,
    tasks: JoinSet<()>,
    pub(crate) port: u16,
}

impl Server {
    pub(crate) async fn start(world: &Arc<World>, port: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (stop, mut tasks) = (CancellationToken::new(), JoinSet::new());
        let (world, token) = (Arc::clone(world), stop.clone());
        let term = Term::until(1, token.clone());
        tasks.spawn(async move { serve(listener, world, term, token).await.unwrap() });
        Self { stop, tasks, port }
    }

    pub(crate) async fn stop(mut self) -> u16 {
        self.stop.cancel();
        self.tasks.join_next().await.unwrap().unwrap();
        self.port
    }
}

/// A token whose claims are right and whose signature nobody checks here.
pub(crate) fn token() -> String {
    use base64::Engine as _;
    use base64::prelude::BASE64_URL_SAFE_NO_PAD as BASE64;
    let now = Timestamp::now().as_second();
    let claims = json!({
        "iss": "https://api.shoot", "aud": ["rootstock"], "exp": now + 3600, "iat": now, "nbf": now,
        "sub": "system:serviceaccount:kube-system:rootstock-agent",
    });
    let part = |value: &Value| BASE64.encode(value.to_string());
    format!("{}.{}.{}", part(&json!({"alg": "RS256"})), part(&claims), BASE64.encode("signature"))
}
