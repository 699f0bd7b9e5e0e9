//! A plain cluster with several controllers and thousands of thin agents. The
//! bench `streams` takes it from here, too.
//!
//! ```text
//!  Crowd, each with a Pod of the agent ─▶ the Pod that is marked, as by a Service
//!  controller-n ─▶ Relay n ─▶ embedded API (which takes down who wrote what)
//! ```

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Namespace, Node, Pod, Secret, ServiceAccount};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding};
use kube::api::{ListParams, PostParams};
use kube::runtime::watcher;
use kube::{Api, Client, ResourceExt as _};
use rootstock_controller::api::ContainerRuntime;
use rootstock_controller::identity::NodeId;
use rootstock_controller::identity::ca::ShootCa;
use rootstock_playground::crowd::{Crowd, Leads, Place, Relay};
use rootstock_playground::kube::{Cluster, Options};
use rootstock_playground::registry::Registry;
use rootstock_playground::samples::tiny::Tiny;
use rootstock_playground::seed::catalog::{self, Offer};
use rootstock_playground::seed::follow::Follow;
use rootstock_playground::seed::objects::{Access, ensure, typed};
use rootstock_playground::seed::processes::{LEASH, Process, Processes};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

const NAMESPACE: &str = "rootstock";
const SERVING: &str = "rootstock.gardener.cloud/serving";
const RULES: [&str; 4] = [
    "rules-local.yaml",
    "rules-own-namespace.yaml",
    "rules-local-own-namespace.yaml",
    "rules-local-kube-system.yaml",
];

/// How many of what.
#[derive(Debug)]
pub(crate) struct Size<'a> {
    pub(crate) controllers: usize,
    pub(crate) nodes: usize,
    /// How long a Lease lasts.
    pub(crate) lease: &'a str,
    /// How long anything may take.
    pub(crate) limit: Duration,
}

pub(crate) struct Replicas {
    pub(crate) cluster: Cluster,
    pub(crate) controllers: BTreeMap<String, Controller>,
    client: Client,
    nodes: Vec<NodeId>,
    service: watch::Receiver<Option<SocketAddr>>,
    pub(crate) catalog: PathBuf,
    registry: Registry,
    limit: Duration,
    _actors: JoinSet<()>,
    processes: Processes,
    dir: tempfile::TempDir,
}

/// One controller: its program, its way to the API, and where it would serve.
#[derive(Debug)]
pub(crate) struct Controller {
    pub(crate) process: Process,
    pub(crate) api: Relay,
    listen: SocketAddr,
}

impl Replicas {
    /// Starts it all but the crowd; `program` is the controller's own or one
    /// that has it as a subcommand.
    pub(crate) async fn start(program: &Path, size: Size<'_>) -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let dir = tempfile::Builder::new().prefix("rs-").tempdir().unwrap();
        for folder in ["kubeconfigs", "logs", "registry", "bundles"] {
            std::fs::create_dir_all(dir.path().join(folder)).unwrap();
        }
        let kubeconfigs = dir.path().join("kubeconfigs");
        let options = Options { name: "plain".to_owned(), dir: kubeconfigs, crds: Vec::new() };
        let cluster = Cluster::embedded(options).await.unwrap();
        let client = cluster.client();
        let registry = Registry::start(&dir.path().join("registry")).await.unwrap();
        let nodes = prepare(&client, size.nodes).await;
        let (lead, service) = watch::channel(None);
        let mut replicas = Self {
            client: client.clone(),
            controllers: BTreeMap::new(),
            nodes,
            service,
            catalog: dir.path().join("catalog.yaml"),
            registry,
            limit: size.limit,
            _actors: JoinSet::new(),
            processes: Processes::new(program.to_owned(), dir.path().join("logs")),
            cluster,
            dir,
        };
        replicas.offer("1").await;
        for n in 0..size.controllers {
            let name = format!("controller-{n}");
            let controller = replicas.controller(program, &name, size.lease).await;
            replicas.controllers.insert(name, controller);
        }
        let listens = replicas.controllers.iter().map(|(name, c)| (name.clone(), c.listen));
        replicas._actors.spawn(serve(client, lead, listens.collect()));
        replicas.ask().await;
        replicas
    }

    async fn controller(&self, program: &Path, name: &str, lease: &str) -> Controller {
        let access = Access::new(self.client.clone());
        let pod = json!({"metadata": {"name": name, "labels": {SERVING: "true"}},
            "spec": {"containers": []}});
        ensure(&access.within::<Pod>(NAMESPACE), &typed(pod).unwrap()).await.unwrap();
        let token = account(&access, name).await;
        let address = self.cluster.url().trim_start_matches("https://").parse().unwrap();
        let api = Relay::start(Leads::To(address)).await.unwrap();
        let kubeconfig = self.cluster.kubeconfig_with_token(&token);
        let kubeconfig =
            kubeconfig.replace(self.cluster.url(), &format!("https://{}", api.address));
        let path = self.dir.path().join("kubeconfigs").join(name);
        std::fs::write(&path, kubeconfig).unwrap();
        let [listen, admin] = free_ports();
        let flags = [
            ("--cluster", "local".to_owned()),
            ("--namespace", NAMESPACE.to_owned()),
            ("--pod", name.to_owned()),
            ("--lease-duration", lease.to_owned()),
            ("--config", self.catalog.display().to_string()),
            ("--kubeconfig", path.display().to_string()),
            ("--listen", listen.to_string()),
            ("--admin-listen", admin.to_string()),
            ("--endpoint-domain", "seed.localhost".to_owned()),
            ("--log-level", "info".to_owned()),
        ];
        let mut all = match program.ends_with("rootstock-controller") {
            true => Vec::new(),
            false => vec!["controller".to_owned(), LEASH.to_owned()],
        };
        all.extend(flags.into_iter().flat_map(|(flag, value)| [flag.to_owned(), value]));
        Controller { process: self.processes.start(name, all).unwrap(), api, listen }
    }

    /// A bundle of this version, and a configuration that wants it.
    pub(crate) async fn offer(&self, version: &str) {
        let work = self.dir.path().join("bundles").join(version);
        let sample = Tiny::new("gvisor", version).sample(&work).await.unwrap();
        let offer = Offer {
            runtime: "gvisor".to_owned(),
            version: version.to_owned(),
            platforms: vec![sample.build(&work.join("blobs")).await.unwrap()],
            classes: vec![("gvisor".to_owned(), "gvisor".to_owned())],
        };
        let mut strategy = catalog::at_once();
        // What a leader let nodes do that died with it, and before they heard of
        // it, is taken back at a deadline: nobody here waits for a quarter of an hour.
        strategy["deadlines"] = json!({"firstSandbox": "0s", "pull": "10s", "activate": "30s"});
        catalog::offer(&self.registry, &[offer], &strategy, &self.catalog).await.unwrap();
    }

    async fn ask(&self) {
        let selector = json!({"matchLabels": {"sandboxed": "yes"}});
        let resource = json!({
            "apiVersion": "extensions.gardener.cloud/v1alpha1", "kind": "ContainerRuntime",
            "metadata": {"name": "gvisor"},
            "spec": {"type": "gvisor", "binaryPath": "/var/bin/containerruntimes",
                "workerPool": {"name": "sandboxed", "selector": selector}},
        });
        let resource: ContainerRuntime = serde_json::from_value(resource).unwrap();
        self.until("the definition is served", async || {
            let created = self.resources().create(&PostParams::default(), &resource).await;
            created.map(drop).map_err(|error| error.to_string())
        })
        .await;
    }

    /// The Pods in which agents would be.
    pub(crate) fn agents(&self) -> Api<Pod> {
        Api::namespaced(self.client.clone(), "kube-system")
    }

    pub(crate) fn resources(&self) -> Api<ContainerRuntime> {
        Api::namespaced(self.client.clone(), NAMESPACE)
    }

    /// One agent for each node. They have yet to begin.
    pub(crate) async fn crowd(&self) -> Crowd {
        self.crowd_of(0..self.nodes.len(), self.service()).await
    }

    /// Where the controller is that serves.
    pub(crate) fn service(&self) -> watch::Receiver<Option<SocketAddr>> {
        self.service.clone()
    }

    /// One agent for each of these nodes, by certificates of the authority that
    /// the controllers made, which connects to that address.
    pub(crate) async fn crowd_of(
        &self,
        nodes: Range<usize>,
        address: watch::Receiver<Option<SocketAddr>>,
    ) -> Crowd {
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), NAMESPACE);
        let ca = self
            .until("there is an authority", async || {
                let secret = secrets.get("ca-rootstock").await.map_err(|e| e.to_string())?;
                let data = secret.data.unwrap_or_default();
                let text = |key: &str| String::from_utf8(data[key].0.clone()).unwrap();
                let shoot = "local".parse().unwrap();
                Ok::<_, String>(
                    ShootCa::from_pem(&shoot, &text("ca.crt"), &text("ca.key")).unwrap(),
                )
            })
            .await;
        let host = "rs-local.seed.localhost".to_owned();
        let place = Place { address, host };
        Crowd::new(place, &ca, self.nodes[nodes].iter().cloned()).unwrap()
    }

    /// Who holds the Lease at this moment.
    pub(crate) async fn leader(&self) -> Option<String> {
        let leases: Api<Lease> = Api::namespaced(self.client.clone(), NAMESPACE);
        leases.get_opt("rootstock-controller").await.unwrap()?.spec?.holder_identity
    }

    /// Whether the resource says that all nodes have the version.
    pub(crate) async fn says(&self, version: &str) -> Result<(), String> {
        let object = self.resources().get("gvisor").await.map_err(|error| error.to_string())?;
        let status = serde_json::to_value(object.status).unwrap();
        let conditions = status["conditions"].as_array().cloned().unwrap_or_default();
        let is_ready = |c: &Value| c["type"] == "NodesReady" && c["status"] == "True";
        let has = status["providerStatus"].to_string().contains(&format!("\"{version}\""));
        if has && conditions.iter().any(is_ready) { Ok(()) } else { Err(status.to_string()) }
    }

    pub(crate) async fn until<T, S: Debug>(
        &self,
        what: &str,
        mut look: impl AsyncFnMut() -> Result<T, S>,
    ) -> T {
        let end = Instant::now() + self.limit;
        loop {
            let seen = match look().await {
                Ok(value) => return value,
                Err(seen) => seen,
            };
            assert!(Instant::now() < end, "{what}: {seen:?}\n{}", self.logs());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The ends of all logs.
    pub(crate) fn logs(&self) -> String {
        let end = |name: &String| {
            let path = self.dir.path().join("logs").join(format!("{name}.log"));
            let text = std::fs::read_to_string(path).unwrap_or_default();
            let lines: Vec<_> = text.lines().filter(|line| !line.contains("node ")).collect();
            format!("== {name}\n{}\n", lines[lines.len().saturating_sub(30)..].join("\n"))
        };
        self.controllers.keys().map(end).collect()
    }

    pub(crate) async fn stop(self) {
        self.processes.stop_all().await;
        self.cluster.stop().await;
    }
}

/// Namespaces, one role for all, and the nodes.
async fn prepare(client: &Client, count: usize) -> Vec<NodeId> {
    let access = Access::new(client.clone());
    for name in [NAMESPACE, "kube-system"] {
        let namespace = json!({"metadata": {"name": name}});
        ensure(&access.all::<Namespace>(), &typed(namespace).unwrap()).await.unwrap();
    }
    let files = Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts/rootstock/files");
    let rules = RULES.map(|file| {
        let text = std::fs::read_to_string(files.join(file)).unwrap();
        serde_saphyr::from_str::<Vec<Value>>(&text).unwrap()
    });
    let role = json!({"metadata": {"name": "rootstock"}, "rules": rules.concat()});
    ensure(&access.all::<ClusterRole>(), &typed(role).unwrap()).await.unwrap();
    let nodes: Api<Node> = access.all();
    let agents = access.within::<Pod>("kube-system");
    let mut ids = Vec::new();
    for n in 0..count {
        let labels = json!({"kubernetes.io/arch": "amd64", "sandboxed": "yes"});
        let node = json!({"metadata": {"name": format!("node-{n}"), "labels": labels}});
        let node = nodes.create(&PostParams::default(), &typed(node).unwrap()).await.unwrap();
        let (name, uid) = (node.name_any().parse().unwrap(), node.uid().unwrap().parse().unwrap());
        ids.push(NodeId { shoot: "local".parse().unwrap(), name, uid });
        let pod = agent_pod(&format!("rootstock-agent-{n}"), &format!("node-{n}"));
        agents.create(&PostParams::default(), &pod).await.unwrap();
    }
    ids
}

/// The agent's Pod on a node, as the DaemonSet's controller makes it: an agent
/// of the crowd is in no Pod, but without one it would not be let in.
pub(crate) fn agent_pod(name: &str, node: &str) -> Pod {
    let owner = json!({"apiVersion": "apps/v1", "kind": "DaemonSet", "name": "rootstock-agent",
        "uid": "of-a-daemonset", "controller": true});
    let labels = json!({"app.kubernetes.io/name": "rootstock-agent"});
    typed(json!({
        "metadata": {"name": name, "labels": labels, "ownerReferences": [owner]},
        "spec": {"nodeName": node, "containers": [{"name": "agent", "image": "agent"}]},
    }))
    .unwrap()
}

/// An account for one controller, with the role; its token.
async fn account(access: &Access, name: &str) -> String {
    let accounts = access.within::<ServiceAccount>(NAMESPACE);
    ensure(&accounts, &typed(json!({"metadata": {"name": name}})).unwrap()).await.unwrap();
    let binding = json!({
        "metadata": {"name": name},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "rootstock"},
        "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": NAMESPACE}],
    });
    ensure(&access.all::<ClusterRoleBinding>(), &typed(binding).unwrap()).await.unwrap();
    let request = json!({"metadata": {}, "spec": {"audiences": [], "expirationSeconds": 7200}});
    let request: TokenRequest = serde_json::from_value(request).unwrap();
    let made = accounts.create_token_request(name, &PostParams::default(), &request).await;
    made.unwrap().status.unwrap().token
}

/// Plays the Service: leads to the Pod that is marked, if one is.
async fn serve(
    client: Client,
    service: watch::Sender<Option<SocketAddr>>,
    listens: BTreeMap<String, SocketAddr>,
) {
    let pods: Api<Pod> = Api::namespaced(client.clone(), NAMESPACE);
    let mut marked =
        Follow::new(pods.clone(), watcher::Config::default().labels(&format!("{SERVING}=true")));
    loop {
        marked.changed().await;
        let list = ListParams::default().labels(&format!("{SERVING}=true"));
        let Ok(now) = pods.list_metadata(&list).await else { continue };
        service.send_replace(now.iter().find_map(|pod| listens.get(&pod.name_any())).copied());
    }
}

fn free_ports() -> [SocketAddr; 2] {
    let listeners = [(); 2].map(|()| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());
    listeners.map(|listener| listener.local_addr().unwrap())
}
