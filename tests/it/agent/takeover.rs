//! Nodes on which the gVisor extension's script was before.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use rootstock_agent::containerd;
use rootstock_core::desired::DesiredBundle;
use rootstock_core::name::HandlerName;
use rootstock_core::plan::inherited;
use rootstock_core::status::Phase;
use rootstock_playground::host::script::{CONFIG, PROGRAMS, Script};
use rootstock_playground::host::{HostFaults, SimulatedHost, SimulatedPod};
use rootstock_playground::samples::{Places, gvisor};

use super::support::*;

const FLAGS: &[(&str, &str)] = &[("net-raw", "true"), ("panic-signal", "6")];

pub(super) fn runsc() -> HandlerName {
    "runsc".parse().unwrap()
}

/// A node as the script leaves it, and a bundle with the same names.
pub(super) async fn left(script: Script<'_>) -> (World, DesiredBundle) {
    let world = World::start().await;
    script.run(&world.root()).await.unwrap();
    let sample = gvisor(&Places::nowhere(), &world.dir.path().join("gvisor")).await.unwrap();
    let built = sample.build(&world.dir.path().join("gvisor/blobs")).await.unwrap();
    let bundle = world.push("gvisor", "taken", built).await;
    (world, bundle)
}

/// Pods by their names, all of runsc. One that is new is started now.
pub(super) async fn pods(world: &World, names: &[&str]) {
    let pod = |name: &&str| SimulatedPod { pod: (*name).to_owned(), handler: runsc() };
    let pods: Vec<_> = names.iter().map(pod).collect();
    SimulatedHost::set_pods(&world.root(), &pods).await.unwrap();
}

fn places(world: &World) -> Vec<PathBuf> {
    let config = world.root().join(&CONFIG[1..]);
    PROGRAMS.iter().map(|name| world.binaries().join(name)).chain([config]).collect()
}

/// The script's files with their bytes.
pub(super) fn files(world: &World) -> BTreeMap<PathBuf, Vec<u8>> {
    let regular = |path: &PathBuf| path.symlink_metadata().is_ok_and(|meta| meta.is_file());
    let there = places(world).into_iter().filter(regular);
    there.map(|path| (path.clone(), std::fs::read(path).unwrap())).collect()
}

/// Reads containerd's configuration again and again: every text that ever
/// stood there has to have the handler, and one always stands there.
pub(super) struct Watch {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<std::io::Result<Vec<String>>>>,
}

impl Watch {
    pub(super) fn start(world: &World) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (path, stopped) = (world.root().join("etc/containerd/config.toml"), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            let mut seen: Vec<String> = Vec::new();
            while !stopped.load(Ordering::Relaxed) {
                let text = std::fs::read_to_string(&path)?;
                if seen.last() != Some(&text) {
                    seen.push(text);
                }
                std::thread::yield_now();
            }
            Ok(seen)
        });
        Self { stop, thread: Some(thread) }
    }

    pub(super) fn end(mut self) -> Vec<String> {
        self.join().unwrap().expect("it is never away")
    }

    fn join(&mut self) -> Option<std::io::Result<Vec<String>>> {
        self.stop.store(true, Ordering::Relaxed);
        Some(self.thread.take()?.join().unwrap())
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // The node's files go when a test fails: what is seen of that means nothing.
        drop(self.join());
    }
}

pub(super) async fn until_taken_over(world: &World) {
    let done = async {
        let linked = |name| world.binaries().join(name).is_symlink();
        while !(PROGRAMS.into_iter().all(linked) && files(world).is_empty()) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(LIMIT, done).await.expect("the old files go and the links come");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_form_is_taken_over_with_one_restart_and_never_without_the_handler() {
    for (version, table) in [(1, 1), (2, 2), (3, 3), (4, 4), (3, 2), (2, 1), (4, 1)] {
        let script = Script { version, table, flags: FLAGS };
        let (world, bundle) = left(script).await;
        let works = table == version;
        if works {
            pods(&world, &["default/old"]).await;
        }
        let (before, restarts) = (files(&world), world.restarts().await);
        assert_eq!(before.len(), 3);
        let watch = Watch::start(&world);
        let mut agent = Agent::start(&world);
        agent.take(world.held(1, &[&bundle]));
        let report = agent.until("gvisor", Phase::Loaded).await;
        assert_eq!(world.restarts().await, restarts + 1, "version {version}");
        assert!(!world.config().contains(CONFIG), "{}", world.config());
        if works {
            let said = &report.message;
            assert!(said.contains("gVisor extension") && said.contains("default/old"), "{said}");
            assert_eq!(files(&world), before, "a pod was started with them");
            // A new pod beside the old one changes nothing for the files.
            pods(&world, &["default/old", "default/new"]).await;
            agent.retry.notify_one();
            agent.until("gvisor", Phase::Loaded).await;
            assert_eq!(files(&world), before);
            pods(&world, &["default/new"]).await;
            agent.retry.notify_one();
        }
        until_taken_over(&world).await;
        agent.stop().await;
        assert_eq!(world.restarts().await, restarts + 1, "version {version}");
        let seen = watch.end();
        assert_eq!(seen.len(), 2, "the script's and ours: {seen:#?}");
        for text in seen.iter().skip(usize::from(!works)) {
            assert!(containerd::tables(text).unwrap().contains_key(&runsc()), "{text}");
        }
        for line in script.before().lines() {
            assert!(world.config().lines().any(|there| there == line), "{line:?} is gone");
        }
        let history = SimulatedHost::history(&world.root()).await.unwrap();
        let with: Vec<bool> = history.iter().map(|start| start.contains(&runsc())).collect();
        assert_eq!(with, [false, works, true], "version {version}: the node's, the script's, ours");

        // Nothing of the script comes back when the runtime goes.
        pods(&world, &[]).await;
        let mut agent = Agent::start(&world);
        agent.take(world.held(2, &[]));
        agent.until("gvisor", Phase::Removed).await;
        agent.stop().await;
        SimulatedHost::restart(&world.root()).await.unwrap();
        let agent = Agent::start(&world);
        until_gone(&world.binaries().join(".rootstock")).await;
        agent.stop().await;
        assert_eq!(world.config().trim_end(), script.before().trim_end(), "version {version}");
        assert!(tree(&world.binaries()).is_empty() && files(&world).is_empty());
    }
}

#[tokio::test]
async fn what_containerd_does_not_tell_counts_as_used() {
    let (world, bundle) = left(Script::default()).await;
    let before = files(&world);
    let mut agent = Agent::start(&world);
    // The pod is a new one; only nobody says so.
    world.faults(HostFaults { secretive: true, ..HostFaults::default() }).await;
    pods(&world, &["default/some"]).await;
    agent.take(world.held(1, &[&bundle]));
    let report = agent.until("gvisor", Phase::Loaded).await;
    assert!(report.message.contains("default/some"), "{}", report.message);
    pods(&world, &[]).await;
    pods(&world, &["default/some"]).await;
    assert_eq!(files(&world), before);
    world.faults(HostFaults::default()).await;
    agent.retry.notify_one();
    until_taken_over(&world).await;
    assert_eq!(agent.files.record().drift.repaired, 0, "the links waited, nobody changed them");
    agent.stop().await;
}

#[tokio::test]
async fn removal_in_the_middle_waits_for_the_pod_and_leaves_nothing() {
    let script = Script::default();
    let (world, bundle) = left(script).await;
    pods(&world, &["default/old"]).await;
    let before = files(&world);
    let mut agent = Agent::start(&world);
    agent.take(world.held(1, &[&bundle]));
    agent.until("gvisor", Phase::Loaded).await;
    agent.take(world.held(2, &[]));
    agent.until("gvisor", Phase::InUse).await;
    assert_eq!(files(&world), before);
    pods(&world, &[]).await;
    agent.retry.notify_one();
    agent.until("gvisor", Phase::Removed).await;
    agent.stop().await;
    assert!(files(&world).is_empty());
    assert_eq!(world.config().trim_end(), script.before().trim_end());
}

#[tokio::test]
async fn files_that_are_not_the_scripts_stay() {
    let (world, bundle) = left(Script::default()).await;
    // Someone configured runsc by hand, and puts another runsc there later.
    let config = world.root().join(&CONFIG[1..]);
    std::fs::write(&config, "[runsc_config]\nplatform = \"kvm\"\n").unwrap();
    pods(&world, &["default/old"]).await;
    let mut agent = Agent::start(&world);
    agent.take(world.held(1, &[&bundle]));
    agent.until("gvisor", Phase::Loaded).await;
    std::fs::write(world.binaries().join("runsc"), "theirs").unwrap();
    pods(&world, &[]).await;
    agent.retry.notify_one();
    let linked = async {
        while !world.binaries().join(PROGRAMS[1]).is_symlink() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(LIMIT, linked).await.expect("the shim was the script's");
    let said = agent.reports.wait_for(|report| {
        report.settled && report.bundles.values().any(|b| b.message.contains("others"))
    });
    tokio::time::timeout(LIMIT, said).await.unwrap().unwrap();
    assert_eq!(std::fs::read_to_string(world.binaries().join("runsc")).unwrap(), "theirs");
    assert!(std::fs::read_to_string(&config).unwrap().contains("kvm"));
    agent.stop().await;
}

#[tokio::test]
async fn without_the_scripts_table_its_files_are_someone_elses() {
    let script = Script::default();
    let (world, bundle) = left(script).await;
    std::fs::write(world.root().join("etc/containerd/config.toml"), script.before()).unwrap();
    let before = files(&world);
    let mut agent = Agent::start(&world);
    agent.take(world.held(1, &[&bundle]));
    let report = agent.until("gvisor", Phase::Loaded).await;
    assert!(report.message.contains("files of others"), "{}", report.message);
    agent.take(world.held(2, &[]));
    agent.until("gvisor", Phase::Removed).await;
    agent.stop().await;
    assert_eq!(files(&world), before);
}

#[tokio::test]
async fn a_table_of_someone_else_comes_back_when_the_runtime_goes() {
    let script = Script::default();
    let (world, bundle) = left(script).await;
    let theirs = format!("{}  pod_annotations = [\"dev.gvisor.*\"] # ours\n", script.config());
    let theirs = theirs.replace(CONFIG, "/opt/runsc.toml");
    let path = world.root().join("etc/containerd/config.toml");
    std::fs::write(&path, &theirs).unwrap();
    let mut agent = Agent::start(&world);
    agent.take(world.held(1, &[&bundle]));
    agent.until("gvisor", Phase::Loaded).await;
    assert!(!world.config().contains("/opt/runsc.toml"));
    agent.stop().await;
    let mut agent = Agent::start(&world);
    agent.take(world.held(2, &[]));
    agent.until("gvisor", Phase::Removed).await;
    agent.stop().await;
    let back = containerd::table_text(&world.config(), &runsc()).unwrap();
    assert_eq!(back, containerd::table_text(&theirs, &runsc()).unwrap());
}

#[tokio::test]
async fn what_a_kill_between_two_writes_leaves_is_taken_up() {
    let script = Script::default();
    let (world, bundle) = left(script).await;
    let root = world.root();
    let journal = root.join("var/lib/rootstock/journal.jsonl");
    pods(&world, &["default/old"]).await;
    let mut agent = Agent::start(&world);
    agent.take(world.held(1, &[&bundle]));
    agent.until("gvisor", Phase::Loaded).await;
    agent.stop().await;
    let before = files(&world);
    // The notes are made, and the table is still the script's.
    std::fs::write(root.join("etc/containerd/config.toml"), script.config()).unwrap();
    SimulatedHost::restart(&root).await.unwrap();
    let mut agent = Agent::start(&world);
    agent.until("gvisor", Phase::Activating).await;
    agent.until("gvisor", Phase::Loaded).await;
    agent.stop().await;
    assert_eq!(files(&world), before);
    assert!(!world.config().contains(CONFIG));
    let noted = std::fs::read_to_string(&journal).unwrap();
    // Two files are deleted, no link is set, and the journal does not know it yet.
    pods(&world, &[]).await;
    std::fs::remove_file(root.join(&CONFIG[1..])).unwrap();
    std::fs::remove_file(world.binaries().join("runsc")).unwrap();
    let agent = Agent::start(&world);
    until_taken_over(&world).await;
    agent.stop().await;
    // All of it is done, and the journal is of before.
    std::fs::write(&journal, noted).unwrap();
    let mut agent = Agent::start(&world);
    let report = agent.until("gvisor", Phase::Loaded).await;
    assert_eq!(report.message, "");
    agent.stop().await;
    let last = std::fs::read_to_string(&journal).unwrap();
    assert!(!last.lines().last().unwrap().contains("inherited"), "{last}");
    assert_installed(&world, &[&bundle]);
    assert_eq!(inherited::places(&BINARY_PATH.parse().unwrap()).len(), places(&world).len());
}
