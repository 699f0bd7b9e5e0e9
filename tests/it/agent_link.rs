//! The whole agent against the controller's own server: it enrols with a
//! token, takes what it is sent, reports, and comes back after each break.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use clap::Parser as _;
use jiff::Timestamp;
use kube::client::Body;
use rootstock_agent::args::{Cli, Command};
use rootstock_bundle::{Client, Version};
use rootstock_controller::grpc::{Directory, Hello, Refused, RefusedItem, ShootEndpoint, serve};
use rootstock_controller::identity::NodeId;
use rootstock_controller::identity::ca::ShootCa;
use rootstock_core::desired::{Desired, DesiredBundle, DesiredContent, Generation};
use rootstock_core::name::Architecture;
use rootstock_core::status::{BundleReport, Phase};
use rootstock_playground::host::SimulatedHost;
use rootstock_playground::registry::Registry;
use rootstock_playground::samples::tiny::Tiny;
use serde_json::{Map, Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

const HOST: &str = "rs-garden--one.seed.localhost";
const LIMIT: Duration = Duration::from_secs(30);

/// What the controller's other half would know: one shoot, one node.
struct World {
    shoot: Arc<ShootEndpoint>,
    desired: watch::Sender<Option<Arc<Desired>>>,
    seen: watch::Sender<Seen>,
}

#[derive(Clone, Debug, Default)]
struct Seen {
    hellos: Vec<(String, Generation, usize)>,
    reports: BTreeMap<String, BundleReport>,
    accepted: Vec<u64>,
    refused: Vec<(u64, String)>,
    disconnects: u64,
}

impl Directory for World {
    fn shoot_by_host(&self, host: &str) -> Option<Arc<ShootEndpoint>> {
        (host == HOST).then(|| Arc::clone(&self.shoot))
    }

    fn connect(
        &self,
        node: &NodeId,
        hello: Hello,
    ) -> Result<watch::Receiver<Option<Arc<Desired>>>, Refused> {
        self.seen.send_modify(|seen| {
            seen.hellos.push((node.to_spiffe(), hello.generation, hello.installed.len()));
        });
        Ok(self.desired.subscribe())
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

    fn disconnect(&self, _: &NodeId) {
        self.seen.send_modify(|seen| seen.disconnects += 1);
    }
}

/// A shoot's API that knows one token of one Pod on one node.
#[derive(Clone)]
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
struct Server {
    stop: CancellationToken,
    tasks: JoinSet<()>,
    port: u16,
}

impl Server {
    async fn start(world: &Arc<World>, port: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (stop, mut tasks) = (CancellationToken::new(), JoinSet::new());
        let (world, token) = (Arc::clone(world), stop.clone());
        tasks.spawn(async move { serve(listener, world, token).await.unwrap() });
        Self { stop, tasks, port }
    }

    async fn stop(mut self) -> u16 {
        self.stop.cancel();
        self.tasks.join_next().await.unwrap().unwrap();
        self.port
    }
}

async fn bundle(registry: &Registry, work: &std::path::Path) -> DesiredBundle {
    let client = Client::new(&registry.as_desired("main")).unwrap();
    let built = Tiny::new("gvisor", "1").build(work).await.unwrap();
    let (repository, tag) = ("rootstock/gvisor".parse().unwrap(), "1".parse().unwrap());
    client.push(&repository, &tag, &[built]).await.unwrap();
    let architecture = Architecture::of_this_machine().unwrap();
    let resolved = client.resolve(&repository, &Version::Tag(tag), architecture).await.unwrap();
    DesiredBundle {
        digest: resolved.manifest,
        binary_path: "/var/bin/containerruntimes".parse().unwrap(),
        registry: "main".to_owned(),
        repository: repository.to_string(),
        config: resolved.config,
        settings: Map::new(),
    }
}

async fn until(seen: &mut watch::Receiver<Seen>, what: &str, is: impl Fn(&Seen) -> bool) {
    let found =
        tokio::time::timeout(LIMIT, seen.wait_for(is)).await.map(|found| drop(found.unwrap()));
    if found.is_err() {
        panic!("not {what}: {:#?}", seen.borrow());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_enrols_takes_reports_and_comes_back() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("node");
    SimulatedHost::prepare(&root).await.unwrap();
    let registry = Registry::start(&dir.path().join("registry")).await.unwrap();
    let gvisor = bundle(&registry, &dir.path().join("work")).await;

    let shoot = "shoot--garden--one".parse().unwrap();
    let now = Timestamp::now();
    let ca = Arc::new(ShootCa::generate(&shoot, now).unwrap());
    let tls = ca.server_config(&[HOST.to_owned()], now).unwrap();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let client = kube::Client::new(ShootApi(Arc::clone(&asked)), "default");
    let endpoint = ShootEndpoint { name: shoot, ca: Arc::clone(&ca), tls, client };
    let desired = |generation, bundles: Vec<DesiredBundle>| {
        let content = DesiredContent {
            bundles,
            registries: vec![registry.as_desired("main")],
            ..DesiredContent::default()
        };
        Some(Arc::new(Desired { generation: Generation(generation), content }))
    };
    let world = Arc::new(World {
        shoot: Arc::new(endpoint),
        desired: watch::Sender::new(None),
        seen: watch::Sender::default(),
    });
    let mut seen = world.seen.subscribe();
    let server = Server::start(&world, 0).await;

    let files = ["ca.crt", "token", "endpoint"].map(|name| dir.path().join(name));
    // The token is only there after a while, as a kubelet's volume may be.
    std::fs::write(&files[0], ca.cert_pem()).unwrap();
    std::fs::write(&files[2], format!("https://{HOST}:{}\n", server.port)).unwrap();
    let flags = |flag: &str, path: &std::path::Path| [flag.to_owned(), path.display().to_string()];
    let args = ["rootstock-agent".to_owned(), "run".to_owned()]
        .into_iter()
        .chain(flags("--ca-file", &files[0]))
        .chain(flags("--token-file", &files[1]))
        .chain(flags("--endpoint", &files[2]))
        .chain(flags("--host-root", &root))
        .chain(["--admin-listen", "127.0.0.1:0", "--log-level", "off"].map(str::to_owned));
    let Command::Run(args) = Cli::try_parse_from(args).unwrap().command else { panic!("run") };
    let host = Arc::new(SimulatedHost::new(&root).with_start(Duration::from_millis(10)));
    let mut agents = JoinSet::new();
    agents.spawn(rootstock_agent::run(args, host));
    let lock = root.join("var/lib/rootstock/lock");
    let begun = async {
        while !lock.exists() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), begun).await.expect("the agent begins");
    std::fs::write(&files[1], token()).unwrap();

    until(&mut seen, "connected", |seen| !seen.hellos.is_empty()).await;
    let (spiffe, generation, installed) = seen.borrow().hellos[0].clone();
    assert_eq!(spiffe, "spiffe://shoot--garden--one/node/node-1/node-uid-1");
    assert_eq!((generation, installed), (Generation(0), 0));

    let loaded = |seen: &Seen| seen.reports.get("gvisor").is_some_and(|r| r.phase == Phase::Loaded);
    world.desired.send_replace(desired(7, vec![gvisor.clone()]));
    until(&mut seen, "loaded", loaded).await;
    assert_eq!(seen.borrow().accepted, [7]);
    let report = seen.borrow().reports["gvisor"].clone();
    assert_eq!(report.digest, Some(gvisor.digest));
    assert_eq!(report.bytes_done, report.bytes_total);

    // Older, and the same number with other content: both are refused, nothing changes.
    world.desired.send_replace(desired(6, vec![]));
    until(&mut seen, "refused", |seen| seen.refused.len() == 1).await;
    world.desired.send_replace(desired(7, vec![]));
    until(&mut seen, "refused", |seen| seen.refused.len() == 2).await;
    assert!(seen.borrow().refused[0].1.contains("GenerationOutdated"));
    assert!(loaded(&seen.borrow()));

    // The controller goes and comes back: the agent says what it holds, and pulls nothing.
    let served = registry.served_bytes();
    let port = server.stop().await;
    world.seen.send_modify(|seen| seen.reports.clear());
    world.desired.send_replace(desired(7, vec![gvisor.clone()]));
    let server = Server::start(&world, port).await;
    until(&mut seen, "back", |seen| seen.hellos.len() == 2).await;
    assert_eq!(seen.borrow().hellos[1].1, Generation(7));
    until(&mut seen, "reported again", loaded).await;
    assert_eq!(registry.served_bytes(), served);
    assert_eq!(SimulatedHost::restarts(&root).await.unwrap(), 1);
    // The certificate was still good: one enrolment, one review.
    let reviews = asked.lock().unwrap().iter().filter(|p| p.contains("tokenreviews")).count();
    assert_eq!(reviews, 1);

    world.desired.send_replace(desired(8, vec![]));
    let removed =
        |seen: &Seen| seen.reports.get("gvisor").is_some_and(|r| r.phase == Phase::Removed);
    until(&mut seen, "removed", removed).await;
    agents.shutdown().await;
    until(&mut seen, "disconnected", |seen| seen.disconnects == 2).await;
    server.stop().await;
}

/// A token whose claims are right and whose signature nobody checks here.
fn token() -> String {
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
