//! A registry, a node, and an agent between them.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rootstock_agent::host::Host;
use rootstock_agent::pull::Pulls;
use rootstock_agent::reconcile::{Files, NodeReport, Pace, Reconciler, Reports};
use rootstock_agent::store::{Held, StoreError};
use rootstock_bundle::{Built, Client, Version};
use rootstock_core::desired::{Desired, DesiredBundle, DesiredContent, Generation};
use rootstock_core::digest::Digest;
use rootstock_core::name::{Architecture, RuntimeType};
use rootstock_core::path::BinaryRoots;
use rootstock_core::status::{BundleReport, Phase, Reason};
use rootstock_daemon::Shutdown;
use rootstock_playground::host::{HostFaults, SimulatedHost, SimulatedPod};
use rootstock_playground::registry::Registry;
use rootstock_playground::samples::tiny::Tiny;
use serde_json::Map;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

pub(super) const BINARY_PATH: &str = "/var/bin/containerruntimes";
/// The configuration of a new node's containerd.
pub(super) const CONFIG: &str = include_str!("../../../playground/src/host/config.toml");
/// Far beyond what anything here takes, also on a busy machine.
pub(super) const LIMIT: Duration = Duration::from_secs(30);

/// A registry and a node.
pub(super) struct World {
    pub(super) dir: tempfile::TempDir,
    pub(super) registry: Registry,
}

impl World {
    pub(super) async fn start() -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let dir = tempfile::tempdir().unwrap();
        let registry = Registry::start(&dir.path().join("registry")).await.unwrap();
        SimulatedHost::prepare(&dir.path().join("node")).await.unwrap();
        Self { dir, registry }
    }

    pub(super) fn root(&self) -> PathBuf {
        self.dir.path().join("node")
    }

    pub(super) fn binaries(&self) -> PathBuf {
        self.root().join(&BINARY_PATH[1..])
    }

    pub(super) fn config(&self) -> String {
        std::fs::read_to_string(self.root().join("etc/containerd/config.toml")).unwrap()
    }

    pub(super) async fn restarts(&self) -> u64 {
        SimulatedHost::restarts(&self.root()).await.unwrap()
    }

    pub(super) async fn faults(&self, faults: HostFaults) {
        SimulatedHost::set_faults(&self.root(), &faults).await.unwrap();
    }

    pub(super) async fn pods(&self, handlers: &[&str]) {
        let pod = |handler: &&str| SimulatedPod {
            pod: format!("default/uses-{handler}"),
            handler: handler.parse().unwrap(),
        };
        let pods: Vec<_> = handlers.iter().map(pod).collect();
        SimulatedHost::set_pods(&self.root(), &pods).await.unwrap();
    }

    /// A tiny bundle in the registry, as the controller would have a node have it.
    pub(super) async fn bundle(&self, tiny: &Tiny<'_>) -> DesiredBundle {
        let built = tiny.build(&self.dir.path().join("work")).await.unwrap();
        self.push(tiny.runtime, tiny.version, built).await
    }

    pub(super) async fn push(&self, runtime: &str, version: &str, built: Built) -> DesiredBundle {
        let client = Client::new(&self.registry.as_desired("main")).unwrap();
        let architecture = built.architecture().or_else(Architecture::of_this_machine).unwrap();
        let repository = format!("rootstock/{runtime}").parse().unwrap();
        let tag = version.parse().unwrap();
        client.push(&repository, &tag, &[built]).await.unwrap();
        let resolved = client.resolve(&repository, &Version::Tag(tag), architecture).await.unwrap();
        DesiredBundle {
            digest: resolved.manifest,
            binary_path: BINARY_PATH.parse().unwrap(),
            registry: "main".to_owned(),
            repository: repository.to_string(),
            config: resolved.config,
            settings: Map::new(),
        }
    }

    pub(super) async fn gvisor(&self) -> DesiredBundle {
        self.bundle(&Tiny::new("gvisor", "1")).await
    }

    pub(super) fn held(&self, generation: u64, bundles: &[&DesiredBundle]) -> Held {
        let content = DesiredContent {
            bundles: bundles.iter().copied().cloned().collect(),
            registries: vec![self.registry.as_desired("main")],
            ..DesiredContent::default()
        };
        held(generation, content)
    }
}

pub(super) fn held(generation: u64, content: DesiredContent) -> Held {
    let content_hash = Digest::of(serde_json::to_string(&content).unwrap().as_bytes());
    Held { content_hash, desired: Desired { generation: Generation(generation), content } }
}

/// An agent without its link to a controller. It ends where it stands when it is dropped.
pub(super) struct Agent {
    pub(super) files: Arc<Files>,
    pub(super) reports: watch::Receiver<NodeReport>,
    pub(super) retry: Arc<Notify>,
    _tasks: JoinSet<anyhow::Result<()>>,
}

impl Agent {
    pub(super) fn start(world: &World) -> Self {
        let host = SimulatedHost::new(&world.root()).with_start(Duration::from_millis(10));
        Self::with_host(world, Arc::new(host))
    }

    pub(super) fn with_host(world: &World, host: Arc<dyn Host>) -> Self {
        let pace = Pace { settle: Duration::ZERO, ..Pace::default() };
        Self::open(&world.root(), host, pace).unwrap()
    }

    /// One that pulls by what a controller grants, which it has not heard yet.
    pub(super) fn granted(world: &World, host: Arc<dyn Host>, pace: Pace) -> Self {
        Self::with(&world.root(), host, pace, Pulls::granted()).unwrap()
    }

    pub(super) fn open(root: &Path, host: Arc<dyn Host>, pace: Pace) -> Result<Self, StoreError> {
        Self::with(root, host, pace, Pulls::unbounded())
    }

    fn with(
        root: &Path,
        host: Arc<dyn Host>,
        pace: Pace,
        pulls: Pulls,
    ) -> Result<Self, StoreError> {
        let files = Files::open(root, "/var/lib/rootstock", BinaryRoots::default())?;
        let files = Arc::new(files.with_pulls(pulls));
        let (reports, retry) = (Reports::default(), Arc::new(Notify::new()));
        let watch = reports.watch();
        let architecture = Architecture::of_this_machine();
        let reconciler =
            Reconciler::new(Arc::clone(&files), host, architecture, reports, Arc::clone(&retry))
                .with_pace(pace);
        let mut tasks = JoinSet::new();
        tasks.spawn(reconciler.run(Shutdown::new()));
        Ok(Self { files, reports: watch, retry, _tasks: tasks })
    }

    pub(super) fn take(&self, held: Held) {
        self.files.ledger.take(&self.files.store, held).unwrap();
    }

    /// Waits for a report that says so of a type.
    pub(super) async fn until(&mut self, runtime: &str, phase: Phase) -> BundleReport {
        let runtime: RuntimeType = runtime.parse().unwrap();
        let said = |report: &NodeReport| {
            report.bundles.get(&runtime).filter(|bundle| bundle.phase == phase).cloned()
        };
        let found = self.reports.wait_for(|report| said(report).is_some());
        let found = tokio::time::timeout(LIMIT, found).await;
        let report = found.map(|report| report.unwrap().clone());
        match report {
            Ok(report) => said(&report).unwrap(),
            Err(_) => panic!("no {phase} of {runtime}: {:#?}", self.reports.borrow()),
        }
    }

    pub(super) async fn fails(&mut self, phase: Phase, reason: Reason) -> BundleReport {
        let report = self.until("gvisor", phase).await;
        assert_eq!(report.reason, Some(reason), "{report:?}");
        assert!(!report.message.is_empty());
        report
    }

    /// Ends it and waits until nothing of it is left to write.
    pub(super) async fn stop(self) {
        let Self { files, _tasks: mut tasks, .. } = self;
        tasks.shutdown().await;
        // Threads that still write hold the files, and with them the node's lock.
        let gone = async {
            while Arc::strong_count(&files) > 1 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(LIMIT, gone).await.unwrap();
    }
}

pub(super) async fn until_gone(path: &Path) {
    let gone = async {
        while path.exists() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(LIMIT, gone).await.expect("it goes");
}

/// The bytes of a file. A pipe that was put in its place keeps nobody waiting.
pub(super) fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    let flags = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap();
    let mut file = std::fs::File::options().read(true).custom_flags(flags).open(path)?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).map(|_| bytes)
}

/// Every path below a folder with its kind, mode and bytes.
pub(super) fn tree(root: &Path) -> BTreeMap<String, String> {
    fn walk(root: &Path, at: &Path, out: &mut BTreeMap<String, String>) {
        for entry in std::fs::read_dir(at).into_iter().flatten() {
            let path = entry.unwrap().path();
            // An agent at work may take it away meanwhile.
            let Ok(meta) = path.symlink_metadata() else { continue };
            let name = path.strip_prefix(root).unwrap().display().to_string();
            if meta.is_symlink() {
                let Ok(target) = std::fs::read_link(&path) else { continue };
                out.insert(name, format!("-> {}", target.display()));
            } else if meta.is_dir() {
                out.insert(format!("{name}/"), String::new());
                walk(root, &path, out);
            } else if !meta.is_file() {
                out.insert(name, format!("{:?}", meta.file_type()));
            } else {
                let Ok(bytes) = read(&path) else { continue };
                let digest = Digest::of(&bytes);
                out.insert(name, format!("{:o} {digest}", meta.permissions().mode() & 0o7777));
            }
        }
    }
    let mut out = BTreeMap::new();
    walk(root, root, &mut out);
    out
}

/// The node has exactly these bundles, every byte of them, and says so to containerd.
#[track_caller]
pub(super) fn assert_installed(world: &World, bundles: &[&DesiredBundle]) {
    let mut files = tree(&world.binaries());
    for bundle in bundles {
        let config = bundle.config.config();
        let folder = format!(".rootstock/{}/{}", bundle.runtime(), bundle.digest.hex());
        for file in &config.files {
            let there = files.remove(&format!("{folder}/{}", file.path));
            let want = format!("{:o} {}", file.mode.bits(), file.sha256);
            assert_eq!(there, Some(want), "{}", file.path);
        }
        for entry in &config.entry_points {
            let there = files.remove(entry.as_str());
            assert_eq!(there, Some(format!("-> {folder}/{entry}")));
        }
        assert!(world.config().contains(&format!("{folder}/{}", config.handlers[0].shim)));
        files.retain(|name, _| !name.starts_with(&format!("{folder}-")));
    }
    files.retain(|name, _| !name.ends_with('/'));
    assert_eq!(files, BTreeMap::new(), "nothing else is there");
    for line in CONFIG.lines() {
        assert!(world.config().lines().any(|there| there == line), "{line:?} is gone");
    }
}

/// Nothing of a bundle can be seen on the node, and containerd is as it was.
#[track_caller]
pub(super) fn assert_untouched(world: &World) {
    let mut files = tree(&world.binaries());
    files.retain(|name, _| !name.starts_with(".rootstock/gvisor/.rootstock-tmp-"));
    files.retain(|name, _| !name.ends_with('/'));
    assert_eq!(files, BTreeMap::new());
    assert_eq!(world.config(), CONFIG);
}
