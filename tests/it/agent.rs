//! The agent against a real registry and a simulated host.

mod ahead;
mod deaths;
mod effects;
mod gate;
mod lifecycle;
mod line;
mod mortal;
mod preview;
mod rollback;
mod support;
mod takeover;

use std::collections::BTreeMap;
use std::os::unix::fs::symlink;

use http::StatusCode;
use rootstock_agent::reconcile::NodeReport;
use rootstock_core::desired::DesiredBundle;
use rootstock_core::name::Architecture;
use rootstock_core::path::BinaryPath;
use rootstock_core::status::{Phase, Reason};
use rootstock_playground::host::{HostFaults, SimulatedHost};
use rootstock_playground::registry::{Fault, Target};
use rootstock_playground::samples::tiny::Tiny;
use serde_json::json;
use tokio::task::JoinSet;

use support::*;

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
async fn a_bundle_of_a_registry_that_is_not_named_is_not_fetched() {
    let world = World::start().await;
    let gvisor = world.gvisor().await;
    let stray = DesiredBundle { registry: "other".to_owned(), ..gvisor };
    let served = world.registry.served_bytes();
    let mut agent = Agent::start(&world);
    agent.take(world.held(1, &[&stray]));
    let report = agent.fails(Phase::Failed, Reason::ConfigurationInvalid).await;
    assert!(report.message.contains("\"other\" of the bundle is not among"), "{}", report.message);
    assert_eq!(world.registry.served_bytes(), served);
    agent.stop().await;
    assert_untouched(&world);
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
    std::fs::write(&path, CONFIG).unwrap();
    agent.until("gvisor", Phase::Loaded).await;
    assert_installed(&world, &[&gvisor]);
}

#[tokio::test]
async fn a_containerd_that_tells_no_tables_is_restarted_once() {
    let world = World::start().await;
    let gvisor = world.gvisor().await;
    world.faults(HostFaults { silent: true, ..HostFaults::default() }).await;
    let mut agent = Agent::start(&world);
    agent.take(world.held(1, &[&gvisor]));
    agent.until("gvisor", Phase::Loaded).await;
    agent.stop().await;
    let mut agent = Agent::start(&world);
    agent.until("gvisor", Phase::Loaded).await;
    agent.stop().await;
    assert_eq!(world.restarts().await, 1);
}

#[tokio::test]
async fn nothing_counts_as_removed_while_containerd_does_not_answer() {
    let world = World::start().await;
    let gvisor = world.gvisor().await;
    let mut agent = Agent::start(&world);
    agent.take(world.held(1, &[&gvisor]));
    agent.until("gvisor", Phase::Loaded).await;
    world.pods(&["gvisor"]).await;
    // Someone takes the table out and containerd goes down with the pod still there.
    std::fs::write(world.root().join("etc/containerd/config.toml"), CONFIG).unwrap();
    let down = HostFaults { start_fails: true, ..HostFaults::default() };
    world.faults(down).await;
    SimulatedHost::restart(&world.root()).await.unwrap();
    agent.take(world.held(2, &[]));
    let said = agent.reports.wait_for(|report| {
        report.generation.0 == 2 && report.bundles.values().any(|b| b.phase == Phase::Blocked)
    });
    let report = tokio::time::timeout(LIMIT, said).await.unwrap().unwrap().clone();
    let gvisor = &report.bundles[&"gvisor".parse().unwrap()];
    assert_eq!(gvisor.reason, Some(Reason::ContainerdUnknown));
    assert!(world.binaries().join(".rootstock/gvisor").exists());
}
