//! Bundles that come ahead of their turn are on the disk, and nowhere else.

use rootstock_core::desired::Generation;
use rootstock_core::status::BundleReport;

use super::gate::{MINUTE, gated};
use super::*;

/// A node that works with one bundle, and the next one.
async fn upgrade() -> (World, DesiredBundle, DesiredBundle, Agent) {
    let world = World::start().await;
    let one = world.gvisor().await;
    let two = world.bundle(&Tiny::new("gvisor", "2").with_data(1 << 20)).await;
    let mut agent = Agent::start(&world);
    agent.take(world.held(1, &[&one]));
    agent.until("gvisor", Phase::Loaded).await;
    (world, one, two, agent)
}

#[tokio::test]
async fn what_is_pulled_ahead_is_on_the_disk_and_nowhere_else() {
    let (world, one, two, mut agent) = upgrade().await;

    agent.take(gated(&world, 2, &[&one], &[&two]));
    let fetched = |report: &NodeReport| {
        report.bundles.values().find(|bundle| bundle.fetched == Some(two.digest)).cloned()
    };
    let found = agent.reports.wait_for(|report| {
        // It works all the time, and the report is about it.
        let has = |b: &BundleReport| (b.phase, b.digest) == (Phase::Loaded, Some(one.digest));
        assert!(report.bundles.values().all(has), "{report:?}");
        fetched(report).is_some()
    });
    let report = tokio::time::timeout(LIMIT, found).await.unwrap().unwrap().clone();
    let report = fetched(&report).unwrap();
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
    let (world, one, two, mut agent) = upgrade().await;
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

/// Waits for what the node says of gvisor.
async fn gvisor(agent: &mut Agent, is: impl Fn(&BundleReport) -> bool) -> BundleReport {
    let runtime = "gvisor".parse().unwrap();
    let found = agent.reports.wait_for(|report| report.bundles.get(&runtime).is_some_and(&is));
    let found = tokio::time::timeout(LIMIT, found).await.map(|found| found.unwrap().clone());
    match found {
        Ok(report) => report.bundles[&runtime].clone(),
        Err(_) => panic!("not said: {:#?}", agent.reports.borrow()),
    }
}

#[tokio::test]
async fn the_bundle_that_works_is_spoken_of_while_its_type_stays() {
    let world = World::start().await;
    let one = world.gvisor().await;
    let two = world.bundle(&Tiny::new("gvisor", "2")).await;
    let three = world.bundle(&Tiny::new("gvisor", "3")).await;
    let mut agent = Agent::start(&world);
    agent.take(world.held(1, &[&one]));
    agent.until("gvisor", Phase::Loaded).await;
    let works =
        |said: &BundleReport| (said.phase, said.digest) == (Phase::Loaded, Some(one.digest));
    agent.take(gated(&world, 2, &[], &[&two]));
    let said = gvisor(&mut agent, |said| said.fetched == Some(two.digest)).await;
    assert!(works(&said), "{said:?}");

    // Its configuration is written anew by somebody, and containerd goes on with the old one.
    let before = world.config();
    let config = world.root().join("etc/containerd/config.toml");
    std::fs::write(&config, CONFIG).unwrap();
    agent.stop().await;
    let mut agent = Agent::start(&world);
    let said = gvisor(&mut agent, |said| said.fetched == Some(two.digest)).await;
    assert!(works(&said), "{said:?}");
    std::fs::write(&config, before).unwrap();

    // What containerd is doing can't be told for a while.
    world.faults(HostFaults { start_fails: true, ..HostFaults::default() }).await;
    SimulatedHost::restart(&world.root()).await.unwrap();
    agent.retry.notify_one();
    let said = gvisor(&mut agent, |said| said.phase != Phase::Loaded).await;
    assert_eq!((said.phase, said.digest), (Phase::Blocked, Some(one.digest)));
    world.faults(HostFaults::default()).await;
    SimulatedHost::restart(&world.root()).await.unwrap();
    agent.retry.notify_one();
    gvisor(&mut agent, works).await;

    // Another one comes ahead, and takes the place of the one before.
    agent.take(gated(&world, 3, &[], &[&three]));
    let said = gvisor(&mut agent, |said| said.fetched == Some(three.digest)).await;
    assert!(works(&said), "{said:?}");
    let trees = world.binaries().join(".rootstock/gvisor");
    until_gone(&trees.join(two.digest.hex())).await;
    assert!(trees.join(one.digest.hex()).exists());
    assert_eq!(world.restarts().await, 3, "none of them for what comes ahead");
    agent.stop().await;
}

#[tokio::test]
async fn a_bundle_that_waits_keeps_its_bytes_whatever_comes_ahead() {
    let world = World::start().await;
    let one = world.gvisor().await;
    let two = world.bundle(&Tiny::new("gvisor", "2")).await;
    let mut agent = Agent::start(&world);
    agent.take(gated(&world, 1, &[&one], &[&two]));
    let said = gvisor(&mut agent, |said| {
        assert_eq!(said.digest, Some(one.digest), "{said:?}");
        said.fetched == Some(two.digest)
    });
    assert_eq!(said.await.phase, Phase::Queued);
    let served = world.registry.served_bytes();
    agent.files.slots().give(Generation(1), MINUTE);
    let said = agent.until("gvisor", Phase::Loaded).await;
    assert_eq!((said.digest, said.fetched), (Some(one.digest), Some(two.digest)));
    assert_eq!(world.registry.served_bytes(), served);
    agent.stop().await;
}
