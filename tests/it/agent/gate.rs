//! containerd is restarted when the controller lets the node, and not before.

use std::time::Duration;

use rootstock_core::desired::{DesiredContent, Generation};

use super::*;

const MINUTE: Duration = Duration::from_secs(60);

/// What a node is sent by a controller that rolls out step by step.
fn gated(
    world: &World,
    generation: u64,
    bundles: &[&DesiredBundle],
    prefetch: &[&DesiredBundle],
) -> rootstock_agent::store::Held {
    let own = |of: &[&DesiredBundle]| of.iter().copied().cloned().collect();
    let keep =
        prefetch.iter().filter(|ahead| bundles.iter().all(|b| b.runtime() != ahead.runtime()));
    let content = DesiredContent {
        bundles: own(bundles),
        prefetch: own(prefetch),
        keep: keep.map(|ahead| ahead.runtime().clone()).collect(),
        registries: vec![world.registry.as_desired("main")],
        gated: true,
    };
    held(generation, content)
}

#[tokio::test]
async fn a_restart_waits_for_a_slot_of_its_generation() {
    let world = World::start().await;
    let gvisor = world.gvisor().await;
    let mut agent = Agent::start(&world);
    agent.take(gated(&world, 1, &[&gvisor], &[]));
    let queued = agent.until("gvisor", Phase::Queued).await;
    assert_eq!((queued.reason, queued.bytes_done), (None, queued.bytes_total));
    assert!(queued.message.contains("turn"), "{}", queued.message);
    // One that is for another generation, or over, opens nothing.
    agent.files.slots().give(Generation(2), MINUTE);
    agent.files.slots().give(Generation(1), Duration::ZERO);
    assert_eq!(world.restarts().await, 0);
    agent.files.slots().give(Generation(1), MINUTE);
    agent.until("gvisor", Phase::Loaded).await;
    assert_eq!(world.restarts().await, 1);
    assert_installed(&world, &[&gvisor]);
    agent.stop().await;
}

#[tokio::test]
async fn an_agent_that_starts_anew_waits_for_the_slot_again() {
    let world = World::start().await;
    let gvisor = world.gvisor().await;
    let mut agent = Agent::start(&world);
    agent.take(gated(&world, 1, &[&gvisor], &[]));
    agent.until("gvisor", Phase::Queued).await;
    agent.stop().await;
    let mut agent = Agent::start(&world);
    agent.until("gvisor", Phase::Queued).await;
    assert_eq!(world.restarts().await, 0);
    agent.files.slots().give(Generation(1), MINUTE);
    agent.until("gvisor", Phase::Loaded).await;
    agent.stop().await;
}

#[tokio::test]
async fn what_is_pulled_ahead_is_on_the_disk_and_nowhere_else() {
    let world = World::start().await;
    let one = world.gvisor().await;
    let two = world.bundle(&Tiny::new("gvisor", "2").with_data(1 << 20)).await;
    let mut agent = Agent::start(&world);
    agent.take(world.held(1, &[&one]));
    agent.until("gvisor", Phase::Loaded).await;

    agent.take(gated(&world, 2, &[&one], &[&two]));
    let fetched = |report: &NodeReport| {
        report.bundles.values().find(|bundle| bundle.fetched == Some(two.digest)).cloned()
    };
    let found = agent.reports.wait_for(|report| fetched(report).is_some());
    let report = tokio::time::timeout(LIMIT, found).await.unwrap().unwrap().clone();
    let report = fetched(&report).unwrap();
    // The report stays that of the bundle which works.
    assert_eq!((report.phase, report.digest), (Phase::Loaded, Some(one.digest)));
    assert_eq!(world.restarts().await, 1);
    let config = world.config();
    assert!(config.contains(&one.digest.hex()) && !config.contains(&two.digest.hex()));
    agent.stop().await;

    // It is still known after a start, and nothing is pulled to activate it.
    let mut agent = Agent::start(&world);
    let found = agent.reports.wait_for(|report| fetched(report).is_some());
    tokio::time::timeout(LIMIT, found).await.unwrap().unwrap();
    let served = world.registry.served_bytes();
    agent.files.slots().give(Generation(3), MINUTE);
    agent.take(gated(&world, 3, &[&two], &[]));
    let found = agent.reports.wait_for(|report| {
        report.bundles.values().any(|b| b.digest == Some(two.digest) && b.phase == Phase::Loaded)
    });
    tokio::time::timeout(LIMIT, found).await.unwrap().unwrap();
    assert_eq!(world.registry.served_bytes(), served);
    assert_eq!(world.restarts().await, 2);
    agent.stop().await;
}

#[tokio::test]
async fn a_node_that_has_nothing_says_what_it_has_ahead() {
    let world = World::start().await;
    let gvisor = world.gvisor().await;
    let mut agent = Agent::start(&world);
    agent.take(gated(&world, 1, &[], &[&gvisor]));
    let report = agent.until("gvisor", Phase::Verified).await;
    assert_eq!((report.digest, report.fetched), (Some(gvisor.digest), Some(gvisor.digest)));
    assert_eq!(world.restarts().await, 0);
    // What is not wanted ahead any more is collected.
    agent.take(gated(&world, 2, &[], &[]));
    let tree = world.root().join("var/bin/containerruntimes/.rootstock/gvisor");
    until_gone(&tree).await;
    agent.stop().await;
}

#[tokio::test]
async fn a_bundle_that_does_not_come_ahead_is_no_failure_of_the_one_that_works() {
    let world = World::start().await;
    let one = world.gvisor().await;
    let two = world.bundle(&Tiny::new("gvisor", "2").with_data(1 << 20)).await;
    let mut agent = Agent::start(&world);
    agent.take(world.held(1, &[&one]));
    agent.until("gvisor", Phase::Loaded).await;
    let blob = two.config.config().files.last().unwrap().blob;
    world.registry.faults().set(Target::Digest(blob), Fault::Corrupt);
    agent.take(gated(&world, 2, &[&one], &[&two]));
    let found = agent.reports.wait_for(|report| report.generation == Generation(2));
    tokio::time::timeout(LIMIT, found).await.unwrap().unwrap();
    world.registry.faults().clear_all();
    agent.retry.notify_one();
    let found = agent.reports.wait_for(|report| {
        let all = report.bundles.values();
        assert!(all.clone().all(|bundle| bundle.phase == Phase::Loaded), "{report:?}");
        all.clone().any(|bundle| bundle.fetched == Some(two.digest))
    });
    tokio::time::timeout(LIMIT, found).await.unwrap().unwrap();
    agent.stop().await;
}
