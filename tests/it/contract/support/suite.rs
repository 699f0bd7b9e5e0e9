//! A seed without its machinery: an API, a registry, and controllers as processes.
//!
//! ```text
//!  Suite ─┬─ Cluster (embedded or real): plays the seed and all of its shoots
//!         ├─ Registry with bundles of gvisor and kata; `lost` is at one that is down
//!         ├─ Controller ─▶ rootstock-playground controller …, with the chart's role
//!         ├─ Record: every state of every object that controllers write
//!         └─ token requestor, for the shoots that have an API
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::core::v1::{Namespace, Secret, ServiceAccount};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding};
use kube::ResourceExt as _;
use kube::api::{Patch, PatchParams, PostParams};
use kube::runtime::watcher;
use rootstock_bundle::Client as RegistryClient;
use rootstock_playground::kube::{Cluster, Options, RealControlPlane};
use rootstock_playground::registry::Registry;
use rootstock_playground::samples::{self, Places, tiny::Tiny};
use rootstock_playground::seed::catalog::at_once;
use rootstock_playground::seed::follow::Follow;
use rootstock_playground::seed::istio;
use rootstock_playground::seed::objects::{Access, ensure, typed};
use rootstock_playground::seed::processes::{LEASH, Process, Processes};
use serde_json::{Value, json};
use tokio::sync::{OnceCell, watch};
use tokio::task::JoinSet;

use super::gardenlet::until;
use super::record::{Kind, Record};

/// Where controllers are at home.
pub(crate) const HOME: &str = "extension-rootstock";
/// The account of all controllers.
const ACCOUNT: &str = "rootstock-controller";
/// What the chart allows it everywhere, and in its own namespace alone.
const RULES: &str = "rules.yaml";
const OWN_RULES: &str = "rules-own-namespace.yaml";
/// The account by which controllers reach their shoots.
const SHOOT_ACCOUNT: &str = "rootstock";

/// What all scenarios of one API share.
pub(crate) struct Suite {
    pub(crate) access: Access,
    pub(crate) record: Record,
    _registry: Registry,
    pub(crate) cluster: Cluster,
    kubeconfig: PathBuf,
    catalog: PathBuf,
    pub(crate) processes: Processes,
    /// Whether that is the controller's own program, and not one of many in the playground's.
    is_own_program: bool,
    shared: OnceCell<Controller>,
    /// The shoots whose API lets Rootstock in.
    open: watch::Sender<BTreeSet<String>>,
    _actors: JoinSet<()>,
    is_real: bool,
    /// The last of them: children write into it.
    dir: tempfile::TempDir,
}

/// One controller.
#[derive(Clone, Debug)]
pub(crate) struct Controller {
    pub(crate) process: Process,
    /// The class that it looks after; none for the usual one.
    pub(crate) class: Option<String>,
    /// Where it serves agents.
    pub(crate) listen: SocketAddr,
    pub(crate) admin: SocketAddr,
    pub(crate) log: PathBuf,
}

impl Suite {
    /// Starts everything but the controllers; the API is a real one where `assets` has it.
    pub(crate) async fn start(assets: Option<&Path>, program: &str, recorded: &[Kind]) -> Self {
        // An error means that another test has installed it.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let dir = tempfile::Builder::new().prefix("rs-contract-").tempdir().unwrap();
        let options =
            Options { name: "seed".to_owned(), dir: dir.path().join("kube"), crds: definitions() };
        let (cluster, (registry, catalog)) =
            tokio::join!(start_api(assets, options), offer(dir.path()));
        let access = Access::new(cluster.client());
        let kubeconfig = dir.path().join("controller.kubeconfig");
        let token = prepare(&access, assets.is_some()).await;
        std::fs::write(&kubeconfig, cluster.kubeconfig_with_token(&token)).unwrap();
        std::fs::create_dir_all(dir.path().join("logs")).unwrap();

        let mut actors = JoinSet::new();
        let record = Record::start(&access.client(), recorded, &mut actors);
        record.listed(recorded.len()).await;
        let (open, opened) = watch::channel(BTreeSet::new());
        actors.spawn(request_tokens(access.clone(), opened));
        let is_own_program = program.ends_with("/rootstock-controller");
        let processes = Processes::new(program.into(), dir.path().join("logs"));
        Self {
            access,
            record,
            _registry: registry,
            cluster,
            kubeconfig,
            catalog,
            processes,
            is_own_program,
            shared: OnceCell::new(),
            open,
            _actors: actors,
            is_real: assets.is_some(),
            dir,
        }
    }

    /// The controller that most scenarios share.
    pub(crate) async fn controller(&self) -> Controller {
        // A deletion that nobody confirms ends soon.
        let flags = ["--deletion-timeout", "3s"].map(str::to_owned);
        let shared =
            async || self.start_controller("controller", None, &self.catalog, &flags).await;
        self.shared.get_or_init(shared).await.clone()
    }

    /// A controller of a scenario's own, which looks after a class of its own.
    pub(crate) async fn own_controller(&self, class: &str, flags: &[&str]) -> Controller {
        let flags: Vec<_> = flags.iter().map(|flag| (*flag).to_owned()).collect();
        self.start_controller(class, Some(class.to_owned()), &self.catalog, &flags).await
    }

    /// The same with a configuration of its own.
    pub(crate) async fn configured_controller(
        &self,
        class: &str,
        catalog: &Path,
        flags: &[&str],
    ) -> Controller {
        let flags: Vec<_> = flags.iter().map(|flag| (*flag).to_owned()).collect();
        self.start_controller(class, Some(class.to_owned()), catalog, &flags).await
    }

    async fn start_controller(
        &self,
        name: &str,
        class: Option<String>,
        catalog: &Path,
        flags: &[String],
    ) -> Controller {
        let home =
            class.as_ref().map_or_else(|| HOME.to_owned(), |class| format!("{HOME}-{class}"));
        self.make_home(&home).await;
        let [listen, admin] = ports();
        let mut arguments = match self.is_own_program {
            true => Vec::new(),
            false => vec!["controller".to_owned(), LEASH.to_owned()],
        };
        for (flag, value) in [
            ("--config", catalog.display().to_string()),
            ("--kubeconfig", self.kubeconfig.display().to_string()),
            ("--identity", name.to_owned()),
            ("--namespace", home),
            ("--listen", listen.to_string()),
            ("--admin-listen", admin.to_string()),
            ("--log-level", "info,rootstock_controller=debug".to_owned()),
            ("--classes", class.clone().unwrap_or_else(|| "shoot".to_owned())),
        ] {
            // A scenario's own flag comes in place of ours.
            if !flags.iter().any(|own| own == flag) {
                arguments.extend([flag.to_owned(), value]);
            }
        }
        arguments.extend(flags.iter().cloned());
        let process = self.processes.start(name, arguments).unwrap();
        let log = self.dir.path().join("logs").join(format!("{name}.log"));
        let controller = Controller { process, class, listen, admin, log };
        controller.ready().await;
        controller
    }

    /// A controller's own namespace, with what the chart allows it there.
    async fn make_home(&self, home: &str) {
        let namespace = json!({"metadata": {"name": home}});
        ensure(&self.access.all::<Namespace>(), &typed(namespace).unwrap()).await.unwrap();
        if !self.is_real {
            // The embedded API has no Roles: there it is allowed everywhere.
            return;
        }
        let metadata = json!({"name": "rootstock", "namespace": home});
        let role = json!({"metadata": metadata, "rules": rules(OWN_RULES)});
        ensure(&self.access.within::<Role>(home), &typed(role).unwrap()).await.unwrap();
        let binding = json!({
            "metadata": metadata,
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "rootstock"},
            "subjects": [{"kind": "ServiceAccount", "name": ACCOUNT, "namespace": HOME}],
        });
        let bindings = self.access.within::<RoleBinding>(home);
        ensure(&bindings, &typed(binding).unwrap()).await.unwrap();
    }

    /// Lets controllers into a shoot's API, or no longer.
    pub(crate) fn let_in(&self, shoot: &str) {
        self.open.send_modify(|open| {
            open.insert(shoot.to_owned());
        });
    }

    /// A folder of a scenario's own.
    pub(crate) fn work(&self, name: &str) -> PathBuf {
        let dir = self.dir.path().join(name);
        std::fs::create_dir_all(&dir).unwrap();
        dir
    }

    /// The configuration that controllers have.
    pub(crate) fn catalog(&self) -> Value {
        serde_json::from_slice(&std::fs::read(&self.catalog).unwrap()).unwrap()
    }

    /// The ends of the controllers' logs.
    pub(crate) fn logs(&self) -> String {
        let mut all = String::new();
        for entry in std::fs::read_dir(self.dir.path().join("logs")).unwrap().flatten() {
            all += &tail(&entry.path(), 60);
        }
        all
    }

    pub(crate) async fn stop(self) {
        self.processes.stop_all().await;
        self.cluster.stop().await;
    }
}

impl Controller {
    /// Waits until it has listed what there is.
    pub(crate) async fn ready(&self) {
        let ready =
            until(async || (get(self.admin, "/readyz").await?.0 == 200).then_some(())).await;
        assert!(ready.is_some(), "the controller is not ready\n{}", tail(&self.log, 40));
    }

    /// What it wants of the nodes of a shoot, by their names: their types.
    pub(crate) async fn nodes(&self, shoot: &str) -> BTreeMap<String, BTreeSet<String>> {
        let (_, page) = get(self.admin, "/status").await.expect("the status page");
        let page: Value = serde_json::from_str(&page).unwrap();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let nodes = page["nodes"].as_array().unwrap().iter();
        let nodes = nodes.filter(|node| node["shoot"] == shoot).map(|node| {
            let bundles = node["bundles"].as_array().unwrap().iter();
            (text(&node["name"]), bundles.map(|bundle| text(&bundle["type"])).collect())
        });
        nodes.collect()
    }
}

/// A page of a controller, with its status.
async fn get(admin: SocketAddr, path: &str) -> Option<(u16, String)> {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut stream = tokio::net::TcpStream::connect(admin).await.ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
}

fn tail(path: &Path, lines: usize) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let all: Vec<_> = text.lines().collect();
    let end = all[all.len().saturating_sub(lines)..].join("\n");
    format!("== {}\n{end}\n", path.display())
}

async fn start_api(assets: Option<&Path>, options: Options) -> Cluster {
    match assets {
        None => Cluster::embedded(options).await.unwrap(),
        Some(assets) => {
            let plane = RealControlPlane::start(assets, &options.dir).await.unwrap();
            Cluster::real(&plane, options).await.unwrap()
        }
    }
}

/// Gardener's own CRDs where the environment names a folder with them, else those of
/// the controller's own types; and Istio's. Fields of a newer Gardener are kept by all.
fn definitions() -> Vec<Value> {
    let mut all: Vec<Value> = match std::env::var_os("ROOTSTOCK_CRDS") {
        Some(dir) => ["clusters", "containerruntimes"]
            .map(|plural| format!("extensions.gardener.cloud_{plural}.yaml"))
            .into_iter()
            .chain(["resources.gardener.cloud_managedresources.yaml".to_owned()])
            .map(|file| std::fs::read_to_string(Path::new(&dir).join(file)).unwrap())
            .map(|text| serde_saphyr::from_str(&text).unwrap())
            .collect(),
        None => {
            let own = rootstock_controller::api::definitions();
            own.iter().map(|crd| serde_json::to_value(crd).unwrap()).collect()
        }
    };
    for crd in &mut all {
        for version in crd["spec"]["versions"].as_array_mut().unwrap() {
            let schema = &mut version["schema"]["openAPIV3Schema"]["properties"];
            for part in ["spec", "status"] {
                schema.get_mut(part).map(keep_unknown);
            }
        }
    }
    all.extend(istio::definitions());
    all
}

fn keep_unknown(schema: &mut Value) {
    if let Some(properties) = schema.get_mut("properties").and_then(Value::as_object_mut) {
        properties.values_mut().for_each(keep_unknown);
        schema["x-kubernetes-preserve-unknown-fields"] = json!(true);
    }
    if let Some(items) = schema.get_mut("items") {
        keep_unknown(items);
    }
}

/// A registry with bundles, and the configuration that names them.
async fn offer(dir: &Path) -> (Registry, PathBuf) {
    let work = dir.join("bundles");
    let registry = Registry::start(&dir.join("registry")).await.unwrap();
    let client = RegistryClient::new(&registry.as_desired("main")).unwrap();
    let gvisor = samples::gvisor(&Places::nowhere(), &work).await.unwrap();
    let built = [
        gvisor.build(&work).await.unwrap(),
        Tiny::new("kata", "1.0.0").build(&work).await.unwrap(),
    ];
    let mut runtimes = Vec::new();
    for (runtime, built) in ["gvisor", "kata"].into_iter().zip(built) {
        let repository = format!("rootstock/{runtime}").parse().unwrap();
        let tag = "1.0.0".parse().unwrap();
        let pushed = client.push(&repository, &tag, &[built]).await.unwrap();
        runtimes.push((runtime, format!("main/rootstock/{runtime}@{}", pushed.digest)));
    }
    // A tag that only the registry could resolve, and nobody listens there.
    runtimes.push(("lost", "away/rootstock/lost:1.0.0".to_owned()));
    let runtimes = runtimes.into_iter().map(|(runtime, bundle)| {
        let handler = if runtime == "gvisor" { "runsc" } else { runtime };
        json!({"type": runtime, "bundle": bundle,
               "runtimeClasses": [{"name": runtime, "handler": handler}],
               "strategy": at_once()})
    });
    let catalog = json!({
        "registries": [
            {"name": "main", "url": registry.url()},
            {"name": "away", "url": "http://127.0.0.1:1"},
        ],
        "rings": {"percentages": []},
        "runtimes": runtimes.collect::<Vec<_>>(),
    });
    let path = dir.join("catalog.yaml");
    // JSON is YAML too.
    std::fs::write(&path, catalog.to_string()).unwrap();
    (registry, path)
}

/// Makes what Gardener would have made, and gives a token of the controller's account.
async fn prepare(access: &Access, is_real: bool) -> String {
    let make = async |namespace: &str, account: &str, role: &str, rules: Value| {
        let namespaces = access.all::<Namespace>();
        ensure(&namespaces, &typed(json!({"metadata": {"name": namespace}})).unwrap())
            .await
            .unwrap();
        let object = json!({"metadata": {"name": account, "namespace": namespace}});
        let accounts = access.within::<ServiceAccount>(namespace);
        ensure(&accounts, &typed(object).unwrap()).await.unwrap();
        let object = json!({"metadata": {"name": role}, "rules": rules});
        ensure(&access.all::<ClusterRole>(), &typed(object).unwrap()).await.unwrap();
        let object = json!({
            "metadata": {"name": role},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
            "subjects": [{"kind": "ServiceAccount", "name": account, "namespace": namespace}],
        });
        ensure(&access.all::<ClusterRoleBinding>(), &typed(object).unwrap()).await.unwrap();
    };
    let mut everywhere = rules(RULES);
    if !is_real {
        everywhere.extend(rules(OWN_RULES));
    }
    make(HOME, ACCOUNT, "extension-rootstock", json!(everywhere)).await;
    // What the resource manager would apply in every shoot, for all of them at once.
    let rule = |group: &str, resource: &str, verbs: &[&str]| json!({"apiGroups": [group], "resources": [resource], "verbs": verbs});
    let shoot = json!([
        rule("", "nodes", &["get", "list", "watch", "patch"]),
        rule("", "pods", &["get", "list", "watch"]),
        rule("", "events", &["get", "list", "watch", "create", "patch"]),
        rule("authentication.k8s.io", "tokenreviews", &["create"]),
    ]);
    make("kube-system", SHOOT_ACCOUNT, "extensions.gardener.cloud:rootstock", shoot).await;
    token(access, HOME, ACCOUNT).await
}

/// Rules of the chart.
fn rules(file: &str) -> Vec<Value> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts/rootstock/files").join(file);
    serde_saphyr::from_str(&std::fs::read_to_string(file).unwrap()).unwrap()
}

async fn token(access: &Access, namespace: &str, account: &str) -> String {
    let request: TokenRequest = typed(json!({
        "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "metadata": {},
        "spec": {"audiences": [], "expirationSeconds": 43200},
    }))
    .unwrap();
    let accounts = access.within::<ServiceAccount>(namespace);
    let made = accounts.create_token_request(account, &PostParams::default(), &request).await;
    made.unwrap().status.unwrap().token
}

/// The resource managers' token requestors, for all shoots that are open.
async fn request_tokens(access: Access, mut open: watch::Receiver<BTreeSet<String>>) {
    let token = token(&access, "kube-system", SHOOT_ACCOUNT).await;
    let all = kube::Api::<Secret>::all(access.client());
    let purpose =
        watcher::Config::default().labels("resources.gardener.cloud/purpose=token-requestor");
    let mut secrets = Follow::new(all, purpose);
    loop {
        // Both are cancel-safe: what was received is kept.
        tokio::select! {
            () = secrets.changed() => {}
            changed = open.changed() => if changed.is_err() { return },
        }
        let open = open.borrow().clone();
        let due = secrets.objects().filter(|secret| {
            let filled = secret.data.as_ref().is_some_and(|data| data.contains_key("token"));
            !filled && open.contains(&secret.namespace().unwrap_or_default())
        });
        for secret in due {
            let patch = Patch::Merge(json!({"stringData": {"token": token}}));
            let api = access.within::<Secret>(&secret.namespace().unwrap());
            // One that is gone by now needs none.
            let _ = api.patch(&secret.name_any(), &PatchParams::default(), &patch).await;
        }
    }
}

/// Ports that were free a moment ago: a controller that is killed comes back on the same.
fn ports<const N: usize>() -> [SocketAddr; N] {
    let listeners = [(); N].map(|()| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());
    listeners.map(|listener| listener.local_addr().unwrap())
}
