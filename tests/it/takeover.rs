//! A shoot that had the gVisor extension: Rootstock comes in its place.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::StreamExt as _;
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{ConfigMap, Node, Pod, Secret, ServiceAccount};
use k8s_openapi::api::node::v1::RuntimeClass;
use kube::api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::runtime::watcher;
use kube::{Api, ResourceExt as _};
use rootstock_controller::api::ManagedResource;
use rootstock_playground::host::script::{CONFIG, PROGRAMS, Script};
use rootstock_playground::host::{SimulatedHost, SimulatedPod};
use rootstock_playground::kube::RealControlPlane;
use rootstock_playground::samples::tiny::Tiny;
use rootstock_playground::samples::{Places, gvisor};
use rootstock_playground::seed::catalog::Offer;
use rootstock_playground::seed::landscape::Shoot;
use rootstock_playground::seed::objects::{is_not_found, typed};
use rootstock_playground::seed::world::{ApiKind, Options, World};
use serde_json::{Value, json};
use tokio::task::JoinSet;

const SHOOT: &str = "shoot--garden--one";
const SYSTEM: &str = "kube-system";
const NODES: [&str; 2] = ["a-1", "a-2"];
const INSTALLER: &str = "containerd-gvisor-a";
const HOLD: &str = "test.example/hold";
const LIMIT: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_the_embedded_api() {
    takeover(ApiKind::Embedded).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_real_api_servers() {
    match RealControlPlane::assets() {
        Some(assets) => takeover(ApiKind::Real(assets)).await,
        None => eprintln!("skipped: KUBEBUILDER_ASSETS is not set"),
    }
}

async fn takeover(api: ApiKind) {
    let dir = tempfile::Builder::new().prefix("rs-").tempdir().unwrap();
    let world = start(dir.path(), api).await;
    the_extension_was_there(&world).await;
    let mut watch = JoinSet::new();
    let class = world.shoot(SHOOT).access().all::<RuntimeClass>();
    let uid = class.get("gvisor").await.unwrap().uid();
    watch.spawn(never_gone(class.clone()));
    let old: BTreeMap<_, _> = NODES.map(|node| (node, script_files(&world, node))).into();
    let restarts = restarts(&world).await;

    rootstock_comes(&world).await;
    until(&world, "the operation is done", async |world: &World| {
        let all = world.container_runtimes().await.map_err(|error| error.to_string())?;
        let gvisor = all.into_iter().find(|one| one.name == "gvisor-a").ok_or("not there")?;
        let done = gvisor.last_operation.as_ref().is_some_and(|last| last.state == "Succeeded");
        if done { Ok(()) } else { Err(format!("{gvisor:?}")) }
    })
    .await;
    the_installer_goes(&world).await;
    // Its Pods end slowly: until then nobody touches their nodes.
    complains(&world, &["TakeoverPending", "containerd-gvisor"]).await;
    for node in NODES {
        assert_eq!(script_files(&world, node), old[node], "{node}");
        assert!(config(&world, node).contains(CONFIG), "{node}");
    }
    let_go(&world, "a-1").await;
    has_gvisor(&world, "a-1").await;
    assert_eq!(script_files(&world, "a-1"), old["a-1"], "its pod still runs");
    assert!(!config(&world, "a-1").contains(CONFIG));
    assert!(config(&world, "a-2").contains(CONFIG), "the installer is still there");
    assert!(!root(&world, "a-2").join("var/bin/containerruntimes/.rootstock/gvisor").exists());

    let_go(&world, "a-2").await;
    has_gvisor(&world, "a-2").await;
    SimulatedHost::set_pods(&root(&world, "a-1"), &[]).await.unwrap();
    until(&world, "all is well and the old files are gone", async |world: &World| {
        let left: Vec<_> = NODES.iter().flat_map(|node| script_files(world, node)).collect();
        if !left.is_empty() {
            return Err(format!("{:?}", left.iter().map(|(path, _)| path).collect::<Vec<_>>()));
        }
        let missing = world.missing(&world.page().await).await.unwrap();
        if missing.is_empty() { Ok(()) } else { Err(format!("{missing:#?}")) }
    })
    .await;
    for (node, before) in restarts {
        let now = SimulatedHost::restarts(&root(&world, &node)).await.unwrap();
        assert_eq!(now, before + 1, "{node}");
    }
    assert_eq!(class.get("gvisor").await.unwrap().uid(), uid, "it is still the same one");
    assert!(watch.try_join_next().is_none(), "the RuntimeClass was away");
    said_once(&world).await;
    world.stop().await;
}

/// A world with kata alone, on nodes where the script has been.
async fn start(dir: &Path, api: ApiKind) -> World {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    for node in NODES {
        let root = dir.join("nodes").join(SHOOT).join(node);
        SimulatedHost::prepare(&root).await.unwrap();
        Script::default().run(&root).await.unwrap();
    }
    let old = SimulatedPod { pod: "default/old".into(), handler: "runsc".parse().unwrap() };
    let root = dir.join("nodes").join(SHOOT).join("a-1");
    SimulatedHost::set_pods(&root, &[old]).await.unwrap();
    let work = dir.join("bundles");
    let sample = gvisor(&Places::nowhere(), &work).await.unwrap();
    let offer = |runtime: &str, handler: &str, built| Offer {
        runtime: runtime.to_owned(),
        version: "1.0.0".to_owned(),
        platforms: vec![built],
        classes: vec![(runtime.to_owned(), handler.to_owned())],
    };
    let offers = vec![
        offer("gvisor", "runsc", sample.build(&work.join("blobs")).await.unwrap()),
        offer("kata", "kata", Tiny::new("kata", "1.0.0").build(&work).await.unwrap()),
    ];
    let options = Options {
        dir: dir.to_owned(),
        program: env!("CARGO_BIN_EXE_rootstock-playground").into(),
        api,
        shoots: vec![Shoot::new("garden", "one").pool("a", &["kata"], NODES.len())],
        offers,
        log_level: "info,rootstock_controller=debug,rootstock_agent=debug".to_owned(),
        agent_flags: Vec::new(),
    };
    let world = World::start(options).await.unwrap();
    until(&world, "kata is there", async |world: &World| {
        let missing = world.missing(&world.page().await).await.unwrap();
        if missing.is_empty() { Ok(()) } else { Err(missing) }
    })
    .await;
    world
}

/// What the gVisor extension wrote into the seed, carried out in the shoot.
async fn the_extension_was_there(world: &World) {
    let class = json!({
        "apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass",
        "metadata": {"name": "gvisor"}, "handler": "runsc",
        "scheduling": {"nodeSelector": {"containerruntime.worker.gardener.cloud/gvisor": "true"}},
    });
    let account = json!({
        "apiVersion": "v1", "kind": "ServiceAccount", "automountServiceAccountToken": false,
        "metadata": {"name": "gvisor", "namespace": SYSTEM},
    });
    put(world, "extension-runtime-gvisor", &[class, account]).await;
    let labels = json!({"app.kubernetes.io/name": "containerd-gvisor"});
    let script = json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": INSTALLER, "namespace": SYSTEM},
        "data": {"install-gvisor-containerd.sh": "#!/bin/sh\n"},
    });
    let on = json!({"key": "worker.gardener.cloud/pool", "operator": "In", "values": ["a"]});
    let terms = json!([{"matchExpressions": [on]}]);
    let affinity = json!({"nodeAffinity":
        {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}});
    let daemon_set = json!({
        "apiVersion": "apps/v1", "kind": "DaemonSet",
        "metadata": {"name": INSTALLER, "namespace": SYSTEM, "labels": labels},
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {
                "serviceAccountName": "gvisor", "affinity": affinity,
                "containers": [{"name": "container-runtime-gvisor-containerd", "image": "x"}],
            }},
        },
    });
    put(world, "extension-runtime-gvisor-installation-a", &[script, daemon_set]).await;
    let pods = world.shoot(SHOOT).access().within::<Pod>(SYSTEM);
    until(world, "the installer runs on both nodes", async |_: &World| {
        let names: Vec<_> = installers(&pods).await.iter().map(|pod| pod.name_any()).collect();
        if names.len() == NODES.len() { Ok(()) } else { Err(names) }
    })
    .await;
    for pod in installers(&pods).await {
        // Whoever ends it takes a while.
        let patch = Patch::Merge(json!({"metadata": {"finalizers": [HOLD]}}));
        pods.patch(&pod.name_any(), &PatchParams::default(), &patch).await.unwrap();
    }
    until(world, "the RuntimeClass is there", async |world: &World| {
        let class = world.shoot(SHOOT).access().all::<RuntimeClass>();
        class.get("gvisor").await.map(drop).map_err(|error| error.to_string())
    })
    .await;
}

async fn put(world: &World, name: &str, objects: &[Value]) {
    let text: String = objects.iter().map(|object| format!("---\n{object}\n")).collect();
    let secret = format!("managedresource-{name}-00000000");
    let object = json!({
        "apiVersion": "v1", "kind": "Secret", "type": "Opaque", "immutable": true,
        "metadata": {"name": secret, "namespace": SHOOT,
            "labels": {"resources.gardener.cloud/garbage-collectable-reference": "true"}},
        "stringData": {"config.yaml": text},
    });
    let secrets = world.seed().within::<Secret>(SHOOT);
    let mut object: Secret = typed(object).unwrap();
    let strings = object.string_data.take().unwrap().into_iter();
    let bytes = strings.map(|(key, text)| (key, k8s_openapi::ByteString(text.into_bytes())));
    object.data = Some(bytes.collect());
    secrets.create(&PostParams::default(), &object).await.unwrap();
    let resource = json!({
        "apiVersion": "resources.gardener.cloud/v1alpha1", "kind": "ManagedResource",
        "metadata": {"name": name, "namespace": SHOOT,
            "labels": {"origin": "extension-runtime-gvisor"},
            "annotations": {"reference.resources.gardener.cloud/secret-00000000": secret}},
        "spec": {"secretRefs": [{"name": secret}], "keepObjects": false,
            "injectLabels": {"shoot.gardener.cloud/no-cleanup": "true"}},
    });
    let resources = world.seed().within::<ManagedResource>(SHOOT);
    resources.create(&PostParams::default(), &typed(resource).unwrap()).await.unwrap();
}

/// gardenlet asks Rootstock for gVisor, and the nodes are labelled.
async fn rootstock_comes(world: &World) {
    let nodes = world.shoot(SHOOT).access().all::<Node>();
    for node in NODES {
        let label = json!({"containerruntime.worker.gardener.cloud/gvisor": "true"});
        let patch = Patch::Merge(json!({"metadata": {"labels": label}}));
        nodes.patch(node, &PatchParams::default(), &patch).await.unwrap();
    }
    let labels = json!({"worker.gardener.cloud/pool": "a"});
    let resource: DynamicObject = typed(json!({
        "apiVersion": "extensions.gardener.cloud/v1alpha1", "kind": "ContainerRuntime",
        "metadata": {"name": "gvisor-a", "namespace": SHOOT,
            "annotations": {"gardener.cloud/operation": "reconcile"}},
        "spec": {"type": "gvisor", "binaryPath": "/var/bin/containerruntimes",
            "workerPool": {"name": "a", "selector": {"matchLabels": labels}}},
    }))
    .unwrap();
    let resources = world.seed().container_runtimes(Some(SHOOT));
    resources.create(&PostParams::default(), &resource).await.unwrap();
}

async fn the_installer_goes(world: &World) {
    let access = world.shoot(SHOOT).access();
    until(world, "what the extension had is gone", async |world: &World| {
        let mut left = Vec::new();
        let gone = |error: kube::Error| error.to_string();
        let sets = access.within::<DaemonSet>(SYSTEM).get_opt(INSTALLER).await.map_err(gone);
        let maps = access.within::<ConfigMap>(SYSTEM).get_opt(INSTALLER).await.map_err(gone);
        let accounts = access.within::<ServiceAccount>(SYSTEM).get_opt("gvisor").await;
        left.extend(sets.unwrap().map(|object| object.name_any()));
        left.extend(maps.unwrap().map(|object| object.name_any()));
        left.extend(accounts.unwrap().map(|object| object.name_any()));
        let resources = world.seed().within::<ManagedResource>(SHOOT);
        let resources = resources.list(&ListParams::default()).await.unwrap();
        let names = resources.iter().map(|resource| resource.name_any());
        left.extend(names.filter(|name| name.contains("installation")));
        if left.is_empty() { Ok(()) } else { Err(left) }
    })
    .await;
}

/// The installer's Pod on a node ends at last.
async fn let_go(world: &World, node: &str) {
    let pods = world.shoot(SHOOT).access().within::<Pod>(SYSTEM);
    let on = |pod: &Pod| pod.spec.as_ref().and_then(|spec| spec.node_name.clone());
    let mut all = installers(&pods).await.into_iter();
    let pod = all.find(|pod| on(pod).as_deref() == Some(node)).unwrap().name_any();
    let patch = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    pods.patch(&pod, &PatchParams::default(), &patch).await.unwrap();
    // What a kubelet does when its containers have ended.
    let gone = pods.delete(&pod, &DeleteParams::default().grace_period(0)).await;
    assert!(gone.is_ok() || gone.is_err_and(|error| is_not_found(&error)));
}

async fn installers(pods: &Api<Pod>) -> Vec<Pod> {
    let label = ListParams::default().labels("app.kubernetes.io/name=containerd-gvisor");
    pods.list(&label).await.unwrap().items
}

/// Ends when the RuntimeClass is away for a moment.
async fn never_gone(api: Api<RuntimeClass>) {
    let mut events = Box::pin(watcher(api, watcher::Config::default()));
    while let Some(event) = events.next().await {
        if let Ok(watcher::Event::Delete(class)) = event
            && class.name_any() == "gvisor"
        {
            return;
        }
    }
}

async fn has_gvisor(world: &World, node: &str) {
    until(world, &format!("{node} has gvisor"), async |world: &World| {
        let page = world.page().await;
        let bundles = page.node(SHOOT, node).map(|node| node.bundles.clone()).unwrap_or_default();
        let gvisor = bundles.iter().find(|bundle| bundle.runtime == "gvisor");
        if gvisor.is_some_and(|bundle| bundle.is_ready()) && !config(world, node).contains(CONFIG) {
            Ok(())
        } else {
            Err(bundles)
        }
    })
    .await;
}

async fn complains(world: &World, words: &[&str]) {
    until(world, &format!("gvisor-a says {words:?}"), async |world: &World| {
        let all = world.container_runtimes().await.map_err(|error| error.to_string())?;
        let gvisor = all.into_iter().find(|one| one.name == "gvisor-a").ok_or("not there")?;
        let text = format!("{:?}", gvisor.conditions);
        if words.iter().all(|word| text.contains(word)) { Ok(()) } else { Err(text) }
    })
    .await;
}

async fn said_once(world: &World) {
    until(world, "the takeover was said once", async |world: &World| {
        let events = world.seed().within::<k8s_openapi::api::events::v1::Event>(SHOOT);
        let all = events.list(&ListParams::default()).await.map_err(|error| error.to_string())?;
        let said = all.iter().filter(|event| event.reason.as_deref() == Some("TakenOver"));
        let notes: Vec<_> = said.map(|event| event.note.clone()).collect();
        if notes.len() == 1 { Ok(()) } else { Err(format!("{notes:?}")) }
    })
    .await;
}

async fn restarts(world: &World) -> BTreeMap<String, u64> {
    let mut all = BTreeMap::new();
    for node in NODES {
        let restarts = SimulatedHost::restarts(&root(world, node)).await.unwrap();
        all.insert(node.to_owned(), restarts);
    }
    all
}

fn root(world: &World, node: &str) -> PathBuf {
    world.shoot(SHOOT).root(node)
}

fn config(world: &World, node: &str) -> String {
    std::fs::read_to_string(root(world, node).join("etc/containerd/config.toml")).unwrap()
}

/// The script's files on a node, with their bytes.
fn script_files(world: &World, node: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let root = root(world, node);
    let programs = PROGRAMS.iter().map(|name| format!("var/bin/containerruntimes/{name}"));
    let paths = programs.chain([CONFIG.trim_start_matches('/').to_owned()]);
    let files = paths
        .map(|path| root.join(path))
        .filter(|path| path.symlink_metadata().is_ok_and(|meta| meta.is_file()));
    files.map(|path| (path.clone(), std::fs::read(&path).unwrap_or_default())).collect()
}

async fn until<S: std::fmt::Debug>(
    world: &World,
    what: &str,
    look: impl AsyncFnMut(&World) -> Result<(), S>,
) {
    if let Err(error) = world.wait_until(what, LIMIT, look).await {
        let log = world.dir().join("logs/controller.log");
        let text = std::fs::read_to_string(log).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        panic!("{error}\n{}", lines[lines.len().saturating_sub(30)..].join("\n"));
    }
}
