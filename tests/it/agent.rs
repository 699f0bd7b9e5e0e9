//! The agent against a real registry and a simulated host.

use std::collections::BTreeMap;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use rootstock_agent::host::Host;
use rootstock_agent::reconcile::{Files, NodeReport, Reconciler, Reports};
use rootstock_agent::store::Held;
use rootstock_bundle::{Client, Version};
use rootstock_core::desired::{Desired, DesiredBundle, DesiredContent, Generation};
use rootstock_core::digest::Digest;
use rootstock_core::name::{Architecture, RuntimeType};
use rootstock_core::path::{BinaryPath, BinaryRoots};
use rootstock_core::status::{BundleReport, Phase, Reason};
use rootstock_daemon::Shutdown;
use rootstock_playground::host::{HostFaults, SimulatedHost, SimulatedPod};
use rootstock_playground::registry::{Fault, Registry, Target};
use rootstock_playground::samples::tiny::Tiny;
use serde_json::{Map, json};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

const BINARY_PATH: &str = "/var/bin/containerruntimes";
/// Far beyond what anything here takes, also on a busy machine.
const LIMIT: Duration = Duration::from_secs(30);

/// A registry and a node.
struct World {
    dir: tempfile::TempDir,
    registry: Registry,
}

impl World {
    async fn start() -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let dir = tempfile::tempdir().unwrap();
        let registry = Registry::start(&dir.path().join("registry")).await.unwrap();
        SimulatedHost::prepare(&dir.path().join("node")).await.unwrap();
        Self { dir, registry }
    }

    fn root(&self) -> PathBuf {
        self.dir.path().join("node")
    }

    fn binaries(&self) -> PathBuf {
        self.root().join(&BINARY_PATH[1..])
    }

    fn config(&self) -> String {
        std::fs::read_to_string(self.root().join("etc/containerd/config.toml")).unwrap()
    }

    async fn restarts(&self) -> u64 {
        SimulatedHost::restarts(&self.root()).await.unwrap()
    }

    async fn faults(&self, faults: HostFaults) {
        SimulatedHost::set_faults(&self.root(), &faults).await.unwrap();
    }

    async fn pods(&self, handlers: &[&str]) {
        let pod = |handler: &&str| SimulatedPod {
            pod: format!("default/uses-{handler}"),
            handler: handler.parse().unwrap(),
        };
        let pods: Vec<_> = handlers.iter().map(pod).collect();
        SimulatedHost::set_pods(&self.root(), &pods).await.unwrap();
    }

    /// A tiny bundle in the registry, as the controller would have a node have it.
    async fn bundle(&self, tiny: &Tiny<'_>) -> DesiredBundle {
        let client = Client::new(&self.registry.as_desired("main")).unwrap();
        let built = tiny.build(&self.dir.path().join("work")).await.unwrap();
        let architecture = built.architecture().or_else(Architecture::of_this_machine).unwrap();
        let repository = format!("rootstock/{}", tiny.runtime).parse().unwrap();
        let tag = tiny.version.parse().unwrap();
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

    async fn gvisor(&self) -> DesiredBundle {
        self.bundle(&Tiny::new("gvisor", "1")).await
    }

    fn held(&self, generation: u64, bundles: &[&DesiredBundle]) -> Held {
        let content = DesiredContent {
            bundles: bundles.iter().copied().cloned().collect(),
            registries: vec![self.registry.as_desired("main")],
            ..DesiredContent::default()
        };
        held(generation, content)
    }
}

fn held(generation: u64, content: DesiredContent) -> Held {
    let content_hash = Digest::of(serde_json::to_string(&content).unwrap().as_bytes());
    Held { content_hash, desired: Desired { generation: Generation(generation), content } }
}

/// An agent without its link to a controller. It ends where it stands when it is dropped.
struct Agent {
    files: Arc<Files>,
    reports: watch::Receiver<NodeReport>,
    retry: Arc<Notify>,
    _tasks: JoinSet<anyhow::Result<()>>,
}

impl Agent {
    fn start(world: &World) -> Self {
        let host = SimulatedHost::new(&world.root()).with_start(Duration::from_millis(10));
        Self::with_host(world, Arc::new(host))
    }

    fn with_host(world: &World, host: Arc<dyn Host>) -> Self {
        let files =
            Files::open(&world.root(), "/var/lib/rootstock", BinaryRoots::default()).unwrap();
        let files = Arc::new(files);
        let (reports, retry) = (Reports::default(), Arc::new(Notify::new()));
        let watch = reports.watch();
        let architecture = Architecture::of_this_machine();
        let reconciler =
            Reconciler::new(Arc::clone(&files), host, architecture, reports, Arc::clone(&retry));
        let mut tasks = JoinSet::new();
        tasks.spawn(reconciler.run(Shutdown::new()));
        Self { files, reports: watch, retry, _tasks: tasks }
    }

    fn take(&self, held: Held) {
        self.files.ledger.take(&self.files.store, held).unwrap();
    }

    /// Waits for a report that says so of a type.
    async fn until(&mut self, runtime: &str, phase: Phase) -> BundleReport {
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

    async fn fails(&mut self, phase: Phase, reason: Reason) -> BundleReport {
        let report = self.until("gvisor", phase).await;
        assert_eq!(report.reason, Some(reason), "{report:?}");
        assert!(!report.message.is_empty());
        report
    }

    /// Ends it and waits until nothing of it is left to write.
    async fn stop(self) {
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

/// Every path below a folder with its kind, mode and bytes.
fn tree(root: &Path) -> BTreeMap<String, String> {
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
            } else {
                let Ok(bytes) = std::fs::read(&path) else { continue };
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
fn assert_installed(world: &World, bundles: &[&DesiredBundle]) {
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
    for line in include_str!("../../playground/src/host/config.toml").lines() {
        assert!(world.config().lines().any(|there| there == line), "{line:?} is gone");
    }
}

/// Nothing of a bundle can be seen on the node, and containerd is as it was.
#[track_caller]
fn assert_untouched(world: &World) {
    let mut files = tree(&world.binaries());
    files.retain(|name, _| !name.starts_with(".rootstock/gvisor/.rootstock-tmp-"));
    files.retain(|name, _| !name.ends_with('/'));
    assert_eq!(files, BTreeMap::new());
    assert_eq!(world.config(), include_str!("../../playground/src/host/config.toml"));
}

#[tokio::test]
async fn two_bundles_come_with_one_restart_and_a_second_start_changes_nothing() {
    let world = World::start().await;
    let gvisor = world.gvisor().await;
    let kata = world.bundle(&Tiny::new("kata", "1").with_data(3 << 20)).await;
    let mut agent = Agent::start(&world);
    agent.take(world.held(1, &[&gvisor, &kata]));
    let report = agent.until("kata", Phase::Loaded).await;
    assert_eq!(agent.until("gvisor", Phase::Loaded).await.handlers, ["gvisor"]);
    assert_eq!(report.digest, Some(kata.digest));
    assert_eq!(report.bytes_done, kata.config.config().blob_bytes());
    assert_eq!(report.bytes_pulled, report.bytes_total);
    assert_installed(&world, &[&gvisor, &kata]);
    assert_eq!(world.restarts().await, 1);
    assert!(
        SimulatedHost::loaded_handlers(&world.root()).await.unwrap().len() == 3,
        "runc, gvisor, kata"
    );
    let (before, served) = (tree(&world.root()), world.registry.served_bytes());
    agent.stop().await;

    let mut agent = Agent::start(&world);
    agent.until("kata", Phase::Loaded).await;
    agent.until("gvisor", Phase::Loaded).await;
    agent.stop().await;
    assert_eq!(tree(&world.root()), before, "not a byte changed");
    assert_eq!(world.registry.served_bytes(), served);
}

#[tokio::test]
async fn bad_blobs_say_what_is_wrong_and_leave_nothing_half_done() {
    let world = World::start().await;
    let gvisor = world.gvisor().await;
    let blob = gvisor.config.config().files[0].blob;
    let size = gvisor.config.config().files[0].blob_size;
    let table = [
        (Fault::Corrupt, Phase::Failed, Reason::DigestMismatch),
        (Fault::Truncate { after: size / 16 }, Phase::Failed, Reason::Truncated),
        (Fault::Oversize { extra: 10 }, Phase::Failed, Reason::SizeExceeded),
        (Fault::Status(StatusCode::NOT_FOUND), Phase::Failed, Reason::BundleNotFound),
        (Fault::Status(StatusCode::UNAUTHORIZED), Phase::Blocked, Reason::RegistryUnauthorized),
        (Fault::Status(StatusCode::BAD_GATEWAY), Phase::Blocked, Reason::RegistryUnreachable),
    ];
    for (generation, (fault, phase, reason)) in table.into_iter().enumerate() {
        world.registry.faults().set(Target::Digest(blob), fault);
        let mut agent = Agent::start(&world);
        // A new generation each time: the one before may still be in the ledger.
        agent.take(world.held(generation as u64 + 1, &[&gvisor]));
        let report = agent.fails(phase, reason).await;
        assert!(report.message.contains(gvisor.config.config().files[0].path.as_str()));
        agent.stop().await;
        assert_untouched(&world);
        world.registry.faults().clear_all();
    }
    assert_eq!(world.restarts().await, 0);
    // The bundle was never the problem.
    let mut agent = Agent::start(&world);
    agent.until("gvisor", Phase::Loaded).await;
    assert_installed(&world, &[&gvisor]);
}

#[tokio::test]
async fn one_bad_bundle_holds_back_no_other() {
    let world = World::start().await;
    let (gvisor, kata) = (world.gvisor().await, world.bundle(&Tiny::new("kata", "1")).await);
    let blob = gvisor.config.config().files[0].blob;
    world.registry.faults().set(Target::Digest(blob), Fault::Corrupt);
    let mut agent = Agent::start(&world);
    agent.take(world.held(1, &[&gvisor, &kata]));
    agent.until("kata", Phase::Loaded).await;
    agent.fails(Phase::Failed, Reason::DigestMismatch).await;
    assert_installed_beside(&world, &kata);
    world.registry.faults().clear_all();
    agent.retry.notify_one();
    agent.until("gvisor", Phase::Loaded).await;
    assert_installed(&world, &[&gvisor, &kata]);
}

#[track_caller]
fn assert_installed_beside(world: &World, bundle: &DesiredBundle) {
    let shim = &bundle.config.config().handlers[0].shim;
    assert!(world.config().contains(&format!("{}/{shim}", bundle.digest.hex())));
    assert!(!world.config().contains("/gvisor/"));
}

#[tokio::test]
async fn a_registry_that_comes_back_is_found_without_help() {
    let world = World::start().await;
    let gvisor = world.gvisor().await;
    world.registry.go_down().await;
    let mut agent = Agent::start(&world);
    agent.take(world.held(1, &[&gvisor]));
    let report = agent.fails(Phase::Blocked, Reason::RegistryUnreachable).await;
    assert!(report.message.contains(&world.registry.url()), "{}", report.message);
    assert_untouched(&world);
    world.registry.come_up().await.unwrap();
    agent.until("gvisor", Phase::Loaded).await;
    assert_installed(&world, &[&gvisor]);
}

#[tokio::test]
async fn a_registry_behind_tls_is_trusted_by_its_ca_bundle_alone() {
    let world = World::start().await;
    let gvisor = world.gvisor().await;
    let (authority, config) = super::bundle::authority();
    let (stranger, _) = super::bundle::authority();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://localhost:{}", listener.local_addr().unwrap().port());
    let mut front = JoinSet::new();
    front.spawn(super::bundle::tls_front(listener, config, world.registry.address()));
    let wish = |generation, ca_bundle: &str| {
        let mut held = world.held(generation, &[&gvisor]);
        let registry = &mut held.desired.content.registries[0];
        registry.url.clone_from(&url);
        registry.ca_bundle = ca_bundle.to_owned();
        held
    };
    let mut agent = Agent::start(&world);
    agent.take(wish(1, &stranger));
    let report = agent.fails(Phase::Blocked, Reason::RegistryUnreachable).await;
    assert!(report.message.contains("certificate"), "{}", report.message);
    agent.take(wish(2, &authority));
    agent.until("gvisor", Phase::Loaded).await;
    assert_installed(&world, &[&gvisor]);
}

#[tokio::test]
async fn a_full_disk_is_seen_before_anything_is_pulled() {
    let world = World::start().await;
    let gvisor = world.gvisor().await;
    let served = world.registry.served_bytes();
    world.faults(HostFaults { free_space: Some(1 << 20), ..HostFaults::default() }).await;
    let mut agent = Agent::start(&world);
    agent.take(world.held(1, &[&gvisor]));
    let report = agent.fails(Phase::Blocked, Reason::NoSpace).await;
    assert!(report.message.contains("1048576 bytes free"), "{}", report.message);
    assert_untouched(&world);
    assert_eq!(world.registry.served_bytes(), served);
    world.faults(HostFaults::default()).await;
    agent.until("gvisor", Phase::Loaded).await;
}

#[tokio::test]
async fn links_in_the_way_and_paths_outside_are_refused() {
    let world = World::start().await;
    let gvisor = world.gvisor().await;
    let outside = world.dir.path().join("outside");
    std::fs::create_dir(&outside).unwrap();
    std::fs::create_dir_all(world.binaries()).unwrap();
    symlink(&outside, world.binaries().join(".rootstock")).unwrap();
    let mut agent = Agent::start(&world);
    agent.take(world.held(1, &[&gvisor]));
    let report = agent.fails(Phase::Failed, Reason::PathRefused).await;
    assert!(report.message.contains(".rootstock"), "{}", report.message);
    assert_eq!(tree(&outside), BTreeMap::new());

    let mut elsewhere = gvisor.clone();
    elsewhere.binary_path = "/usr/bin".parse::<BinaryPath>().unwrap();
    agent.take(world.held(2, &[&elsewhere]));
    let refused = |report: &NodeReport| {
        report.bundles.values().any(|b| b.reason == Some(Reason::BinaryPathRefused))
    };
    let found = agent.reports.wait_for(refused);
    tokio::time::timeout(LIMIT, found).await.unwrap().unwrap();
    assert!(!world.root().join("usr").exists());

    std::fs::remove_file(world.binaries().join(".rootstock")).unwrap();
    agent.take(world.held(3, &[&gvisor]));
    agent.until("gvisor", Phase::Loaded).await;
}

#[tokio::test]
async fn a_bundle_for_another_machine_is_unsupported() {
    let world = World::start().await;
    let other = match Architecture::of_this_machine().unwrap() {
        Architecture::Amd64 => Architecture::Arm64,
        Architecture::Arm64 => Architecture::Amd64,
    };
    let gvisor = world.bundle(&Tiny::new("gvisor", "1").on(other)).await;
    let mut agent = Agent::start(&world);
    agent.take(world.held(1, &[&gvisor]));
    let report = agent.fails(Phase::Unsupported, Reason::ArchitectureMismatch).await;
    assert!(report.message.contains(other.as_str()), "{}", report.message);
    assert_untouched(&world);
}

#[tokio::test]
async fn settings_that_a_bundle_does_not_have_are_refused() {
    let world = World::start().await;
    let mut gvisor = world.gvisor().await;
    gvisor.settings.insert("no-such-setting".to_owned(), json!(true));
    let mut agent = Agent::start(&world);
    agent.take(world.held(1, &[&gvisor]));
    let report = agent.fails(Phase::Failed, Reason::ConfigurationInvalid).await;
    assert!(report.message.contains("no-such-setting"), "{}", report.message);
    assert_untouched(&world);
}

#[tokio::test]
async fn a_configuration_that_is_broken_is_left_as_it_is() {
    let world = World::start().await;
    let gvisor = world.gvisor().await;
    let path = world.root().join("etc/containerd/config.toml");
    std::fs::write(&path, "version = [").unwrap();
    let mut agent = Agent::start(&world);
    agent.take(world.held(1, &[&gvisor]));
    agent.fails(Phase::Blocked, Reason::ContainerdConfigInvalid).await;
    assert_eq!(world.config(), "version = [");
    std::fs::write(&path, include_str!("../../playground/src/host/config.toml")).unwrap();
    agent.until("gvisor", Phase::Loaded).await;
    assert_installed(&world, &[&gvisor]);
}

#[tokio::test]
async fn a_containerd_that_does_not_come_up_or_hides_a_handler_is_no_success() {
    let world = World::start().await;
    let gvisor = world.gvisor().await;
    world.faults(HostFaults { start_fails: true, ..HostFaults::default() }).await;
    let mut agent = Agent::start(&world);
    agent.take(world.held(1, &[&gvisor]));
    let report = agent.fails(Phase::Failed, Reason::ContainerdStartFailed).await;
    assert!(report.message.contains("exit-code"), "{}", report.message);
    agent.stop().await;
    world
        .faults(HostFaults {
            hidden_handlers: ["gvisor".parse().unwrap()].into(),
            ..HostFaults::default()
        })
        .await;
    SimulatedHost::restart(&world.root()).await.unwrap();
    let mut agent = Agent::start(&world);
    agent.fails(Phase::Failed, Reason::HandlerMissing).await;
    world.faults(HostFaults::default()).await;
    agent.retry.notify_one();
    assert_eq!(agent.until("gvisor", Phase::Loaded).await.handlers, ["gvisor"]);
}

#[tokio::test]
async fn removal_waits_for_pods_restarts_nothing_and_touches_no_other() {
    let world = World::start().await;
    let (gvisor, kata) = (world.gvisor().await, world.bundle(&Tiny::new("kata", "1")).await);
    let mut agent = Agent::start(&world);
    agent.take(world.held(1, &[&gvisor, &kata]));
    agent.until("gvisor", Phase::Loaded).await;
    agent.until("kata", Phase::Loaded).await;
    world.pods(&["gvisor"]).await;
    agent.take(world.held(2, &[&kata]));
    let report = agent.until("gvisor", Phase::InUse).await;
    assert_eq!(report.reason, Some(Reason::PodsRunning));
    assert!(report.message.contains("default/uses-gvisor"), "{}", report.message);
    assert_installed(&world, &[&gvisor, &kata]);

    world.pods(&[]).await;
    agent.retry.notify_one();
    agent.until("gvisor", Phase::Removed).await;
    assert_eq!(world.restarts().await, 1, "no restart of its own");
    assert!(!world.config().contains("/gvisor/"));
    assert!(!world.binaries().join("gvisor-tiny").exists());
    assert!(world.binaries().join(".rootstock/gvisor").exists(), "containerd still lists it");

    SimulatedHost::restart(&world.root()).await.unwrap();
    agent.retry.notify_one();
    until_gone(&world.binaries().join(".rootstock/gvisor")).await;
    assert_installed(&world, &[&kata]);
    agent.take(world.held(3, &[]));
    agent.until("kata", Phase::Removed).await;
    SimulatedHost::restart(&world.root()).await.unwrap();
    agent.retry.notify_one();
    until_gone(&world.binaries().join(".rootstock")).await;
    agent.stop().await;
    assert_untouched(&world);
}

async fn until_gone(path: &Path) {
    let gone = async {
        while path.exists() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(LIMIT, gone).await.expect("it goes");
}

#[tokio::test]
async fn a_type_that_is_kept_stays_as_it_is() {
    let world = World::start().await;
    let gvisor = world.gvisor().await;
    let mut agent = Agent::start(&world);
    agent.take(world.held(1, &[&gvisor]));
    agent.until("gvisor", Phase::Loaded).await;
    let before = tree(&world.binaries());
    let content =
        DesiredContent { keep: ["gvisor".parse().unwrap()].into(), ..DesiredContent::default() };
    agent.take(held(2, content));
    let kept = |report: &NodeReport| report.generation == Generation(2);
    let found = agent.reports.wait_for(kept);
    let report = tokio::time::timeout(LIMIT, found).await.unwrap().unwrap().clone();
    let gvisor_report = &report.bundles[&"gvisor".parse().unwrap()];
    assert_eq!((gvisor_report.phase, gvisor_report.digest), (Phase::Loaded, Some(gvisor.digest)));
    agent.stop().await;
    assert_eq!(tree(&world.binaries()), before);
    assert_installed(&world, &[&gvisor]);
    assert_eq!(world.restarts().await, 1);
}

#[tokio::test]
async fn an_upgrade_keeps_the_old_version_while_pods_run() {
    let world = World::start().await;
    let (one, two) = (world.gvisor().await, world.bundle(&Tiny::new("gvisor", "2")).await);
    let mut agent = Agent::start(&world);
    agent.take(world.held(1, &[&one]));
    agent.until("gvisor", Phase::Loaded).await;
    world.pods(&["gvisor"]).await;
    agent.take(world.held(2, &[&two]));
    let new = |report: &NodeReport| {
        report.bundles.values().any(|b| b.digest == Some(two.digest) && b.phase == Phase::Loaded)
    };
    let found = agent.reports.wait_for(new);
    tokio::time::timeout(LIMIT, found).await.unwrap().unwrap();
    assert_eq!(world.restarts().await, 2);
    let old = world.binaries().join(format!(".rootstock/gvisor/{}", one.digest.hex()));
    assert!(old.join("share/data").exists());
    world.pods(&[]).await;
    agent.retry.notify_one();
    until_gone(&old).await;
    agent.stop().await;
    assert_installed(&world, &[&two]);
}

#[tokio::test]
async fn files_of_others_stay() {
    let world = World::start().await;
    let gvisor = world.gvisor().await;
    let entry = gvisor.config.config().entry_points[0].as_str();
    std::fs::write(world.binaries().join(entry), "theirs").unwrap();
    std::fs::write(world.binaries().join("unrelated"), "theirs").unwrap();
    let mut agent = Agent::start(&world);
    agent.take(world.held(1, &[&gvisor]));
    let report = agent.until("gvisor", Phase::Loaded).await;
    assert!(report.message.contains(entry), "{}", report.message);
    agent.take(world.held(2, &[]));
    agent.until("gvisor", Phase::Removed).await;
    for name in [entry, "unrelated"] {
        assert_eq!(std::fs::read_to_string(world.binaries().join(name)).unwrap(), "theirs");
    }
}

#[tokio::test]
async fn damage_and_a_table_that_went_are_repaired_at_the_next_look() {
    let world = World::start().await;
    let gvisor = world.gvisor().await;
    let mut agent = Agent::start(&world);
    agent.take(world.held(1, &[&gvisor]));
    agent.until("gvisor", Phase::Loaded).await;
    agent.stop().await;
    let folder = world.binaries().join(format!(".rootstock/gvisor/{}", gvisor.digest.hex()));
    let data = folder.join("share/data");
    let mut bytes = std::fs::read(&data).unwrap();
    bytes[100] ^= 1;
    std::fs::write(&data, bytes).unwrap();
    // Someone writes the file anew and knows nothing of us.
    std::fs::write(
        world.root().join("etc/containerd/config.toml"),
        include_str!("../../playground/src/host/config.toml"),
    )
    .unwrap();
    let mut agent = Agent::start(&world);
    agent.until("gvisor", Phase::Loaded).await;
    // The running containerd still has the table; the file gets it back once it is still.
    let back = async {
        while !world.config().contains("/gvisor/") {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(LIMIT, back).await.unwrap();
    agent.stop().await;
    assert_installed(&world, &[&gvisor]);
    assert_eq!(world.restarts().await, 1, "the running containerd lacks nothing");
}

/// Ends the agent at many points on its way, as a kill would, and starts it again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_is_stopped_anywhere_comes_to_the_same_end() {
    let world = World::start().await;
    let gvisor = world.bundle(&Tiny::new("gvisor", "1").with_data(2 << 20)).await;
    let kata = world.bundle(&Tiny::new("kata", "1").with_data(2 << 20)).await;
    let newer = world.bundle(&Tiny::new("gvisor", "2").with_data(2 << 20)).await;
    // Slow enough that every phase is met.
    world.registry.limit(Some(20 << 20));
    let wishes = [vec![&gvisor, &kata], vec![&newer, &kata], vec![&newer], vec![]];
    for (at, wish) in wishes.iter().enumerate() {
        let generation = at as u64 + 1;
        for millis in [0, 3, 10, 25, 50, 90, 140, 200] {
            let agent = Agent::start(&world);
            agent.take(world.held(generation, wish));
            tokio::time::sleep(Duration::from_millis(millis)).await;
            agent.stop().await;
        }
        let mut agent = Agent::start(&world);
        for bundle in wish {
            agent.until(bundle.runtime().as_str(), Phase::Loaded).await;
        }
        let settled =
            |report: &NodeReport| report.settled && report.generation == Generation(generation);
        let found = agent.reports.wait_for(settled);
        tokio::time::timeout(LIMIT, found).await.unwrap().unwrap();
        agent.stop().await;
        // Files of what is gone go after containerd's next start.
        SimulatedHost::restart(&world.root()).await.unwrap();
        let mut agent = Agent::start(&world);
        for bundle in wish {
            agent.until(bundle.runtime().as_str(), Phase::Loaded).await;
        }
        let wanted: Vec<String> = wish.iter().map(|bundle| bundle.digest.hex()).collect();
        let clean = async {
            loop {
                let files = tree(&world.binaries());
                let old = |name: &String| {
                    !name.ends_with('/')
                        && !wanted.iter().any(|w| name.contains(w) || files[name].contains(w))
                };
                if !files.keys().any(old) {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(LIMIT, clean).await.unwrap();
        agent.stop().await;
        assert_installed(&world, wish);
        assert!(tree(&world.root()).keys().all(|name| !name.contains(".rootstock-tmp-")));
    }
    assert_untouched(&world);
}
