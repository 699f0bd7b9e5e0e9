//! A plain cluster without Gardener: `--cluster local`.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::time::Duration;

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{Namespace, Node, Secret};
use k8s_openapi::api::node::v1::RuntimeClass;
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
use rootstock_playground::seed::objects::Access;
use rootstock_playground::seed::processes::{LEASH, Processes};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

const LIMIT: Duration = Duration::from_secs(60);
const NAMESPACE: &str = "rootstock";
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
    async fn start(plane: Option<&RealControlPlane>) -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let dir = tempfile::Builder::new().prefix("rs-").tempdir().unwrap();
        for folder in ["kubeconfigs", "logs", "registry", "volumes"] {
            std::fs::create_dir_all(dir.path().join(folder)).unwrap();
        }
        let options = Options {
            name: "plain".to_owned(),
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
        catalog::offer(&registry, &[offer], &catalog).await.unwrap();
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
        plain.boot().await;
        plain.controller(&catalog);
        plain
    }

    /// Two nodes as a kubelet registers them, with nothing of Gardener's.
    async fn boot(&mut self) {
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        let namespace = json!({"metadata": {"name": NAMESPACE}});
        create(&namespaces, namespace).await;
        let nodes: Api<Node> = Api::all(self.client.clone());
        for name in NODES {
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

    fn controller(&self, catalog: &Path) {
        let [listen, admin] = free_ports();
        let kubeconfig = self.cluster.kubeconfig_path().display().to_string();
        let flags = [
            ("--cluster", "local".to_owned()),
            ("--namespace", NAMESPACE.to_owned()),
            ("--config", catalog.display().to_string()),
            ("--kubeconfig", kubeconfig),
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

    async fn marks(&self) -> Vec<String> {
        let nodes: Api<Node> = Api::all(self.client.clone());
        let all = nodes.list(&Default::default()).await.unwrap();
        let marked = |node: &&Node| node.labels().contains_key("rootstock.gardener.cloud/agent");
        all.iter().filter(marked).map(|node| node.name_any()).collect()
    }

    async fn stop(mut self) {
        self.shutdown.cancel();
        while self.actors.join_next().await.is_some() {}
        self.processes.stop_all().await;
        self.cluster.stop().await;
    }
}

fn free_ports() -> [SocketAddr; 2] {
    let listeners = [(); 2].map(|()| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());
    listeners.map(|listener| listener.local_addr().unwrap())
}

async fn create<K>(api: &Api<K>, object: Value)
where
    K: serde::de::DeserializeOwned + serde::Serialize + Clone + std::fmt::Debug,
{
    let object = serde_json::from_value(object).unwrap();
    api.create(&PostParams::default(), &object).await.unwrap();
}

/// A person asks for gvisor on one node, then on both, then no more.
async fn journey(plain: Plain) {
    let resources = plain.resources();
    let resource = json!({
        "apiVersion": "extensions.gardener.cloud/v1alpha1", "kind": "ContainerRuntime",
        "metadata": {"name": "gvisor"},
        "spec": {"type": "gvisor", "binaryPath": "/var/bin/containerruntimes",
            "workerPool": {"name": "sandboxed", "selector": {"matchLabels": {"sandboxed": "yes"}}}},
    });
    let resource: ContainerRuntime = serde_json::from_value(resource).unwrap();
    plain
        .until("the definition is served", async || {
            let created = resources.create(&PostParams::default(), &resource).await;
            created.map(drop).map_err(|error| error.to_string())
        })
        .await;
    let status = async || {
        let object = resources.get("gvisor").await.map_err(|error| error.to_string())?;
        let status = serde_json::to_value(object.status).map_err(|error| error.to_string())?;
        Ok::<_, String>(status)
    };
    plain
        .until("it is reconciled", async || {
            let status = status().await?;
            let state = &status["lastOperation"]["state"];
            if state == "Succeeded" { Ok(()) } else { Err(status.to_string()) }
        })
        .await;
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
                let status = status().await?;
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

    resources.delete("gvisor", &DeleteParams::default()).await.unwrap();
    plain
        .until("it is gone", async || match resources.get_opt("gvisor").await {
            Ok(None) => Ok(()),
            other => Err(format!("{other:?}")),
        })
        .await;
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plain_cluster_gets_and_loses_a_runtime() {
    journey(Plain::start(None).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plain_cluster_on_the_real_api_gets_and_loses_a_runtime() {
    let Some(assets) = std::env::var_os("KUBEBUILDER_ASSETS") else { return };
    let dir = tempfile::tempdir().unwrap();
    let plane = RealControlPlane::start(Path::new(&assets), dir.path()).await.unwrap();
    journey(Plain::start(Some(&plane)).await).await;
}
