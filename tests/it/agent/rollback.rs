//! What does not work is taken back, said, and not tried again by itself.

use rootstock_core::status::{BundleReport, Phase, Reason};
use rootstock_playground::host::{HostFaults, SimulatedHost};
use rootstock_playground::samples::tiny::Tiny;

use super::support::*;

fn gvisor() -> std::collections::BTreeSet<rootstock_core::name::HandlerName> {
    ["gvisor".parse().unwrap()].into()
}

/// Every rung of the ladder that may break, and what is then said.
fn rungs() -> Vec<(HostFaults, Reason, &'static str)> {
    let none = HostFaults::default;
    vec![
        (
            HostFaults { poisoned_handlers: gvisor(), ..none() },
            Reason::ContainerdStartFailed,
            "invalid plugin config",
        ),
        (
            HostFaults { hidden_handlers: gvisor(), ..none() },
            Reason::HandlerMissing,
            "does not list handler gvisor",
        ),
        (HostFaults { overridden_handlers: gvisor(), ..none() }, Reason::HandlerMissing, "imports"),
        (
            HostFaults { unproven_handlers: gvisor(), ..none() },
            Reason::ProofFailed,
            "failed to start shim",
        ),
        (HostFaults { crashes: true, ..none() }, Reason::CrashLoop, "does not stay up"),
    ]
}

#[tokio::test]
async fn whatever_breaks_the_node_is_as_it_was_before() {
    for (faults, reason, says) in rungs() {
        let world = World::start().await;
        let gvisor = world.gvisor().await;
        let before = world.config();
        world.faults(faults).await;
        let mut agent = Agent::start(&world);
        agent.take(world.held(1, &[&gvisor]));
        let report = agent.fails(Phase::RolledBack, reason).await;
        assert!(report.message.contains(says), "{}", report.message);
        assert!(report.message.contains("journal: starting containerd"), "{}", report.message);
        assert_eq!(world.config(), before, "{reason}");
        assert_eq!(world.restarts().await, 2, "{reason}: there and back");
        // Neither time nor a new start of the agent nor a new generation is a reason to try again.
        agent.stop().await;
        let mut agent = Agent::start(&world);
        agent.fails(Phase::RolledBack, reason).await;
        agent.take(world.held(2, &[&gvisor]));
        let taken = agent.reports.wait_for(|report| report.generation.0 == 2 && report.settled);
        tokio::time::timeout(LIMIT, taken).await.unwrap().unwrap();
        assert_eq!(world.restarts().await, 2, "{reason}");
        // A person's word is.
        world.faults(HostFaults::default()).await;
        agent.retry.notify_one();
        agent.until("gvisor", Phase::Loaded).await;
        assert_eq!(world.restarts().await, 3, "{reason}");
        assert_eq!(agent.files.record().drift.repaired, 0, "{reason}: nobody else changed it");
        assert_installed(&world, &[&gvisor]);
    }
}

#[tokio::test]
async fn an_upgrade_that_breaks_leaves_the_version_before_and_another_one_is_tried() {
    let world = World::start().await;
    let first = world.gvisor().await;
    let mut agent = Agent::start(&world);
    agent.take(world.held(1, &[&first]));
    agent.until("gvisor", Phase::Loaded).await;
    let before = world.config();
    world.faults(HostFaults { unproven_handlers: gvisor(), ..HostFaults::default() }).await;
    let second = world.bundle(&Tiny::new("gvisor", "2")).await;
    agent.take(world.held(2, &[&second]));
    let report = agent.fails(Phase::RolledBack, Reason::ProofFailed).await;
    assert_eq!(report.digest, Some(second.digest));
    assert_eq!(world.config(), before);
    let link = std::fs::read_link(world.binaries().join("gvisor-tiny")).unwrap();
    assert!(link.to_str().unwrap().contains(&first.digest.hex()), "{link:?}");
    world.faults(HostFaults::default()).await;
    let third = world.bundle(&Tiny::new("gvisor", "3")).await;
    agent.take(world.held(3, &[&third]));
    agent.until("gvisor", Phase::Loaded).await;
    assert!(world.config().contains(&third.digest.hex()));
}

#[tokio::test]
async fn a_bundle_that_breaks_takes_no_other_with_it() {
    let world = World::start().await;
    let gvisor = world.gvisor().await;
    let kata = world.bundle(&Tiny::new("kata", "1")).await;
    world.faults(HostFaults { unproven_handlers: self::gvisor(), ..HostFaults::default() }).await;
    let mut agent = Agent::start(&world);
    agent.take(world.held(1, &[&gvisor, &kata]));
    agent.until("kata", Phase::Loaded).await;
    agent.fails(Phase::RolledBack, Reason::ProofFailed).await;
    assert!(world.config().contains(&kata.digest.hex()));
    assert!(!world.config().contains(&gvisor.digest.hex()));
}

#[tokio::test]
async fn only_a_node_whose_containerd_does_not_come_back_is_degraded() {
    let world = World::start().await;
    let gvisor = world.gvisor().await;
    let before = world.config();
    world.faults(HostFaults { start_fails: true, ..HostFaults::default() }).await;
    let mut agent = Agent::start(&world);
    agent.take(world.held(1, &[&gvisor]));
    let report = agent.fails(Phase::Degraded, Reason::ContainerdStartFailed).await;
    assert!(report.message.contains("exit-code"), "{}", report.message);
    assert_eq!(world.config(), before);
    agent.stop().await;
    // The next agent finds it down, and in the journal that it was its own doing.
    let mut agent = Agent::start(&world);
    agent.fails(Phase::Degraded, Reason::ContainerdStartFailed).await;
    world.faults(HostFaults::default()).await;
    agent.retry.notify_one();
    agent.fails(Phase::RolledBack, Reason::ContainerdStartFailed).await;
    agent.retry.notify_one();
    let BundleReport { handlers, .. } = agent.until("gvisor", Phase::Loaded).await;
    assert_eq!(handlers, ["gvisor"]);
    assert_installed(&world, &[&gvisor]);
}

#[tokio::test]
async fn a_change_of_what_is_not_ours_is_not_made() {
    let world = World::start().await;
    let gvisor = world.gvisor().await;
    let before = world.config();
    let touchy = HostFaults { touchy_key: Some("bin_dir".to_owned()), ..HostFaults::default() };
    world.faults(touchy).await;
    let mut agent = Agent::start(&world);
    agent.take(world.held(1, &[&gvisor]));
    let report = agent.fails(Phase::Blocked, Reason::ContainerdConfigForeignChange).await;
    assert!(report.message.contains("touchy.bin_dir would change"), "{}", report.message);
    assert_eq!((world.config(), world.restarts().await), (before, 0));
}

#[tokio::test]
async fn a_node_that_lacks_something_says_so_and_nothing_else_fails() {
    let world = World::start().await;
    let gvisor = world.gvisor().await;
    let kata = world.bundle(&Tiny::new("kata", "1").with_needs(&["/dev/kvm"])).await;
    let lacks = ["/dev/kvm".to_owned()].into();
    world.faults(HostFaults { lacks, ..HostFaults::default() }).await;
    let mut agent = Agent::start(&world);
    agent.take(world.held(1, &[&gvisor, &kata]));
    let report = agent.until("kata", Phase::Unsupported).await;
    assert_eq!(report.reason, Some(Reason::PreflightUnmet));
    assert!(report.message.contains("/dev/kvm"), "{}", report.message);
    agent.until("gvisor", Phase::Loaded).await;
    assert_installed(&world, &[&gvisor]);
    // A containerd of a distribution of its own is no place for any of them.
    let why = "the containerd of k3s is not supported".to_owned();
    world.faults(HostFaults { unsupported: Some(why), ..HostFaults::default() }).await;
    agent.stop().await;
    SimulatedHost::restart(&world.root()).await.unwrap();
    let mut agent = Agent::start(&world);
    let report = agent.fails(Phase::Unsupported, Reason::ContainerdUnknown).await;
    assert!(report.message.contains("k3s"), "{}", report.message);
}
