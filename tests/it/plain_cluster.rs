//! A plain cluster without Gardener: `--cluster local`.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::core::v1::{Namespace, Node, Secret, ServiceAccount};
use k8s_openapi::api::node::v1::RuntimeClass;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt as _};
use rootstock_controller::api::ContainerRuntime;
use rootstock_playground::host::SimulatedHost;
use rootstock_playground::kube::{Cluster, Options, RealControlPlane};
use rootstock_playground::registry::Registry;
use rootstock_playground::samples::tiny::Tiny;
use rootstock_playground::seed::catalog::{self, Offer};
use rootstock_playground::seed::daemonset::DaemonSets;
use rootstock_playground::seed::kubelet::{Kubelet, Machine};
use rootstock_playground::seed::landscape::this_architecture;
use rootstock_playground::seed::objects::{Access, ensure, typed};
use rootstock_playground::seed::processes::{LEASH, Processes};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

const LIMIT: Duration = Duration::from_secs(60);
const NAMESPACE: &str = "rootstock";
/// The controller's ServiceAccount, and its roles.
const ACCOUNT: &str = "rootstock-controller";
/// The chart's rules: everywhere, in the own namespace (two files), in kube-system.
const RULES: [&str; 4] = [
    "rules-local.yaml",
    "rules-own-namespace.yaml",
    "rules-local-own-namespace.yaml",
    "rules-local-kube-system.yaml",
];
const NODES: [&str; 2] = ["node-a", "node-b"];

/// A cluster with two nodes, and the controller in it.
struct Plain {
    client: Client,
    processes: Processes,
    actors: JoinSet<()>,
    shutdown: CancellationToken,
    cluster: Cluster,
    _registry: Registry,
    dir: tempfile::TempDir,
}

impl Plain {
    async fn start(plane: Option<&RealControlPlane>, nodes: &[&str]) -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let dir = tempfile::Builder::new().prefix("rs-").tempdir().unwrap();
        for folder in ["kubeconfigs", "logs", "registry", "volumes"] {
            std::fs::create_dir_all(dir.path().join(folder)).unwrap();
        }
        let options = Options {
            name: if nodes.is_empty() { "empty" } else { "plain" }.to_owned(),
            dir: dir.path().join("kubeconfigs"),
            crds: Vec::new(),
        };
        let cluster = match plane {
            Some(plane) => Cluster::real(plane, options).await.unwrap(),
            None => Cluster::embedded(options).await.unwrap(),
        };
        let registry = Registry::start(&dir.path().join("registry")).await.unwrap();
        let catalog = dir.path().join("catalog.yaml");
        let work = dir.path().join("bundles");
        let sample = Tiny::new("gvisor", "1.0.0").sample(&work).await.unwrap();
        let offer = Offer {
            runtime: "gvisor".to_owned(),
            version: "1.0.0".to_owned(),
            platforms: vec![sample.build(&work.join("blobs")).await.unwrap()],
            classes: vec![("gvisor".to_owned(), "gvisor".to_owned())],
        };
        catalog::offer(&registry, &[offer], &catalog::at_once(), &catalog).await.unwrap();
        let client = cluster.client();
        let program = env!("CARGO_BIN_EXE_rootstock-playground").into();
        let mut plain = Self {
            client,
            processes: Processes::new(program, dir.path().join("logs")),
            actors: JoinSet::new(),
            shutdown: CancellationToken::new(),
            cluster,
            _registry: registry,
            dir,
        };
        let kubeconfig = plain.account(plane.is_some()).await;
        plain.boot(nodes).await;
        plain.controller(&catalog, &kubeconfig);
        plain
    }

    /// The controller's account with what the chart allows it and nothing
    /// more, as a kubeconfig.
    async fn account(&self, is_real: bool) -> PathBuf {
        let access = Access::new(self.client.clone());
        for name in [NAMESPACE, "kube-system"] {
            let namespace = json!({"metadata": {"name": name}});
            ensure(&access.all::<Namespace>(), &typed(namespace).unwrap()).await.unwrap();
        }
        let accounts = access.within::<ServiceAccount>(NAMESPACE);
        create(&accounts, json!({"metadata": {"name": ACCOUNT}})).await;
        let [all, own, local_own, system] = RULES.map(rules);
        let own = [own, local_own].concat();
        let places = match is_real {
            true => vec![(None, all), (Some(NAMESPACE), own), (Some("kube-system"), system)],
            // The embedded API has no Roles: there it is allowed everywhere.
            false => vec![(None, [all, own, system].concat())],
        };
        for (namespace, rules) in places {
            let kind = if namespace.is_some() { "Role" } else { "ClusterRole" };
            let role = json!({"metadata": {"name": ACCOUNT}, "rules": rules});
            let binding = json!({
                "metadata": {"name": ACCOUNT},
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": ACCOUNT},
                "subjects": [
                    {"kind": "ServiceAccount", "name": ACCOUNT, "namespace": NAMESPACE},
                ],
            });
            match namespace {
                Some(namespace) => {
                    create(&access.within::<Role>(namespace), role).await;
                    create(&access.within::<RoleBinding>(namespace), binding).await;
                }
                None => {
                    create(&access.all::<ClusterRole>(), role).await;
                    create(&access.all::<ClusterRoleBinding>(), binding).await;
                }
            }
        }
        let request = json!({"metadata": {}, "spec": {"audiences": [], "expirationSeconds": 7200}});
        let request: TokenRequest = serde_json::from_value(request).unwrap();
        let made = accounts.create_token_request(ACCOUNT, &PostParams::default(), &request).await;
        let text = std::fs::read_to_string(self.cluster.kubeconfig_path()).unwrap();
        let mut kubeconfig: Value = serde_json::from_str(&text).unwrap();
        kubeconfig["users"][0]["user"]["token"] = json!(made.unwrap().status.unwrap().token);
        let path = self.dir.path().join("kubeconfigs/controller");
        std::fs::write(&path, kubeconfig.to_string()).unwrap();
        path
    }

    /// Nodes as a kubelet registers them, with nothing of Gardener's.
    async fn boot(&mut self, names: &[&str]) {
        let nodes: Api<Node> = Api::all(self.client.clone());
        for name in names.iter().copied() {
            let labels =
                json!({"kubernetes.io/arch": this_architecture(), "kubernetes.io/hostname": name});
            create(&nodes, json!({"metadata": {"name": name, "labels": labels}})).await;
            let root = self.dir.path().join("nodes").join(name);
            SimulatedHost::prepare(&root).await.unwrap();
            let flags = ["--admin-listen", "127.0.0.1:0", "--log-level", "debug"];
            let machine = Machine {
                node: name.to_owned(),
                root,
                volumes: self.dir.path().join("volumes").join(name),
                process: format!("agent-{name}"),
                agent_flags: flags.map(str::to_owned).to_vec(),
            };
            let access = Access::new(self.client.clone());
            let kubelet = Kubelet::new(access, machine, self.processes.clone());
            self.actors.spawn(kubelet.run(self.shutdown.clone()));
        }
        let daemon_sets = DaemonSets::new(Access::new(self.client.clone()));
        self.actors.spawn(daemon_sets.run(self.shutdown.clone()));
    }

    fn controller(&self, catalog: &Path, kubeconfig: &Path) {
        let [listen, admin] = free_ports();
        let flags = [
            ("--cluster", "local".to_owned()),
            ("--namespace", NAMESPACE.to_owned()),
            ("--identity", "controller".to_owned()),
            ("--config", catalog.display().to_string()),
            ("--kubeconfig", kubeconfig.display().to_string()),
            ("--listen", listen.to_string()),
            ("--admin-listen", admin.to_string()),
            ("--endpoint-domain", "seed.localhost".to_owned()),
            ("--endpoint-port", listen.port().to_string()),
            ("--log-level", "info,rootstock_controller=debug".to_owned()),
        ];
        let mut all = vec!["controller".to_owned(), LEASH.to_owned()];
        all.extend(flags.into_iter().flat_map(|(flag, value)| [flag.to_owned(), value]));
        drop(self.processes.start("controller", all).unwrap());
    }

    fn resources(&self) -> Api<ContainerRuntime> {
        Api::namespaced(self.client.clone(), NAMESPACE)
    }

    fn log(&self, name: &str) -> String {
        let path = self.dir.path().join("logs").join(format!("{name}.log"));
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(60)..].join("\n")
    }

    async fn until<T>(&self, what: &str, mut look: impl AsyncFnMut() -> Result<T, String>) -> T {
        let end = Instant::now() + LIMIT;
        loop {
            let seen = match look().await {
                Ok(value) => return value,
                Err(seen) => seen,
            };
            assert!(Instant::now() < end, "{what}: {seen}\n{}", self.log("controller"));
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Asks for gvisor, until the controller has written what it makes for it.
    async fn ask(&self) {
        let resource = json!({
            "apiVersion": "extensions.gardener.cloud/v1alpha1", "kind": "ContainerRuntime",
            "metadata": {"name": "gvisor"},
            "spec": {"type": "gvisor", "binaryPath": "/var/bin/containerruntimes",
                "workerPool": {
                    "name": "sandboxed", "selector": {"matchLabels": {"sandboxed": "yes"}},
                }},
        });
        let resource: ContainerRuntime = serde_json::from_value(resource).unwrap();
        self.until("the definition is served", async || {
            let created = self.resources().create(&PostParams::default(), &resource).await;
            created.map(drop).map_err(|error| error.to_string())
        })
        .await;
        self.until("it is reconciled", async || {
            let status = self.status().await?;
            let state = &status["lastOperation"]["state"];
            if state == "Succeeded" { Ok(()) } else { Err(status.to_string()) }
        })
        .await;
    }

    async fn status(&self) -> Result<Value, String> {
        let object = self.resources().get("gvisor").await.map_err(|error| error.to_string())?;
        serde_json::to_value(object.status).map_err(|error| error.to_string())
    }

    /// Deletes the resource, and waits until it is gone.
    async fn give_up(&self) {
        self.resources().delete("gvisor", &DeleteParams::default()).await.unwrap();
        self.until("it is gone", async || match self.resources().get_opt("gvisor").await {
            Ok(None) => Ok(()),
            other => Err(format!("{other:?}")),
        })
        .await;
    }

    async fn marks(&self) -> Vec<String> {
        let nodes: Api<Node> = Api::all(self.client.clone());
        let all = nodes.list(&Default::default()).await.unwrap();
        let marked = |node: &&Node| node.labels().contains_key("rootstock.gardener.cloud/agent");
        all.iter().filter(marked).map(|node| node.name_any()).collect()
    }

    async fn stop(mut self) {
        let log = self.dir.path().join("logs/controller.log");
        let log = std::fs::read_to_string(log).unwrap().to_lowercase();
        let refused: Vec<_> = log.lines().filter(|line| line.contains("forbidden")).collect();
        assert!(refused.is_empty(), "its role lacks something: {refused:#?}");
        self.shutdown.cancel();
        while self.actors.join_next().await.is_some() {}
        self.processes.stop_all().await;
        self.cluster.stop().await;
    }
}

/// Rules of the chart.
fn rules(file: &str) -> Vec<Value> {
    let files = Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts/rootstock/files");
    serde_saphyr::from_str(&std::fs::read_to_string(files.join(file)).unwrap()).unwrap()
}

fn free_ports() -> [SocketAddr; 2] {
    let listeners = [(); 2].map(|()| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());
    listeners.map(|listener| listener.local_addr().unwrap())
}

async fn create<K>(api: &Api<K>, object: Value)
where
    K: serde::de::DeserializeOwned + serde::Serialize + Clone + std::fmt::Debug,
{
    let object: K = serde_json::from_value(object).unwrap();
    api.create(&PostParams::default(), &object).await.unwrap();
}

/// A person asks for gvisor on one node, then on both, then no more.
async fn journey(plain: Plain) {
    plain.ask().await;
    let classes: Api<RuntimeClass> = Api::all(plain.client.clone());
    let class = classes.get("gvisor").await.unwrap();
    let scheduling = class.scheduling.unwrap().node_selector.unwrap();
    assert_eq!(scheduling.into_keys().collect::<Vec<_>>(), ["rootstock.gardener.cloud/agent"]);
    assert!(plain.marks().await.is_empty(), "no node is selected");

    let nodes: Api<Node> = Api::all(plain.client.clone());
    for (n, node) in NODES.iter().enumerate() {
        let labels = Patch::Merge(json!({"metadata": {"labels": {"sandboxed": "yes"}}}));
        nodes.patch(node, &PatchParams::default(), &labels).await.unwrap();
        plain
            .until("the runtime is there", async || {
                let status = plain.status().await?;
                let marks = plain.marks().await.len();
                let ready = |c: &&Value| c["type"] == "NodesReady" && c["status"] == "True";
                let conditions = status["conditions"].as_array().cloned().unwrap_or_default();
                let message = conditions.iter().find(ready).map(|c| c["message"].to_string());
                let link = plain.dir.path().join("nodes").join(node);
                let there = std::fs::read_dir(link.join("var/bin/containerruntimes"))
                    .is_ok_and(|mut entries| entries.any(|e| e.is_ok()));
                let done = message.is_some() && marks == n + 1 && there;
                if done { Ok(()) } else { Err(format!("{marks} {there} {conditions:?}")) }
            })
            .await;
    }

    plain.give_up().await;
    let secrets: Api<Secret> = Api::namespaced(plain.client.clone(), NAMESPACE);
    let sets: Api<DaemonSet> = Api::namespaced(plain.client.clone(), "kube-system");
    plain
        .until("all of it is gone", async || {
            let class = classes.get_opt("gvisor").await.map_err(|e| e.to_string())?.is_some();
            let agent = sets.get_opt("rootstock-agent").await.map_err(|e| e.to_string())?.is_some();
            let ca = secrets.get_opt("ca-rootstock").await.map_err(|e| e.to_string())?.is_some();
            let marks = plain.marks().await;
            let left = format!("class {class}, agent {agent}, authority {ca}, marks {marks:?}");
            if class || agent || ca || !marks.is_empty() { Err(left) } else { Ok(()) }
        })
        .await;
    plain.stop().await;
}

/// With no node there is nobody to wait for.
async fn without_nodes(plain: Plain) {
    plain.ask().await;
    plain
        .until("it is known that there are none", async || {
            let status = plain.status().await?;
            let conditions = status["conditions"].as_array().cloned().unwrap_or_default();
            let known =
                conditions.iter().any(|c| c["type"] == "NodesReady" && c["status"] == "True");
            if known { Ok(()) } else { Err(status.to_string()) }
        })
        .await;
    let begun = Instant::now();
    plain.give_up().await;
    // A deletion waits 30 s for a node that is away, and two minutes for one that is silent.
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    plain.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plain_cluster_gets_and_loses_a_runtime() {
    journey(Plain::start(None, &NODES).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plain_cluster_without_nodes_lets_a_resource_go_at_once() {
    without_nodes(Plain::start(None, &[]).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plain_cluster_on_the_real_api_does_the_same() {
    let Some(assets) = std::env::var_os("KUBEBUILDER_ASSETS") else { return };
    let dir = tempfile::tempdir().unwrap();
    let plane = RealControlPlane::start(Path::new(&assets), dir.path()).await.unwrap();
    journey(Plain::start(Some(&plane), &NODES).await).await;
    without_nodes(Plain::start(Some(&plane), &[]).await).await;
}
