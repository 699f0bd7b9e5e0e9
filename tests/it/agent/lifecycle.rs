//! What comes after the first installation: removal, upgrades, damage, sudden ends.

use std::time::Duration;

use rootstock_agent::reconcile::NodeReport;
use rootstock_core::desired::{DesiredBundle, DesiredContent, Generation};
use rootstock_core::status::{Phase, Reason};
use rootstock_playground::host::SimulatedHost;
use rootstock_playground::samples::tiny::Tiny;
use serde_json::json;

use super::support::*;

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
async fn what_another_bundle_has_is_not_pulled() {
    let world = World::start().await;
    // The same data, of another type; and a bundle that differs in its version alone.
    let (gvisor, kata) = (world.gvisor().await, world.bundle(&Tiny::new("kata", "1")).await);
    let work = world.dir.path().join("work");
    let tiny = Tiny::new("gvisor", "1");
    let built = tiny.hostile(&work, |config| config["version"] = json!("1b")).await.unwrap();
    let next = world.push("gvisor", "1b", built).await;
    let blob_of = |bundle: &DesiredBundle, path: &str| {
        let files = &bundle.config.config().files;
        files.iter().find(|file| file.path.as_str() == path).unwrap().clone()
    };
    let data = blob_of(&gvisor, "share/data");
    assert_eq!(data.sha256, blob_of(&kata, "share/data").sha256);

    let mut agent = Agent::start(&world);
    agent.take(world.held(1, &[&gvisor]));
    let report = agent.until("gvisor", Phase::Loaded).await;
    assert_eq!(report.bytes_pulled, report.bytes_total);
    agent.take(world.held(2, &[&gvisor, &kata]));
    let report = agent.until("kata", Phase::Loaded).await;
    assert_eq!(report.bytes_done, report.bytes_total);
    assert_eq!(report.bytes_pulled, report.bytes_total - data.blob_size);
    let served = world.registry.served_bytes();
    agent.take(world.held(3, &[&next, &kata]));
    let new = |report: &NodeReport| {
        report.bundles.values().any(|b| b.digest == Some(next.digest) && b.phase == Phase::Loaded)
    };
    let found = agent.reports.wait_for(new);
    tokio::time::timeout(LIMIT, found).await.unwrap().unwrap();
    assert_eq!(world.registry.served_bytes(), served, "an upgrade without a new file");
    agent.stop().await;
    assert_eq!(world.registry.served_of(&data.blob), data.blob_size);
}

#[tokio::test]
async fn files_of_others_stay() {
    let world = World::start().await;
    let gvisor = world.gvisor().await;
    let entry = gvisor.config.config().entry_points[0].as_str();
    std::fs::create_dir_all(world.binaries()).unwrap();
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
        include_str!("../../../playground/src/host/config.toml"),
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
