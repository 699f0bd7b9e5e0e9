//! A whole agent pulls by what its controller grants, and the bytes are counted
//! where they leave the registry.

use std::time::Instant;

use rootstock_core::bandwidth::{Budgets, Limit, Rate};
use rootstock_core::desired::Registry as Desired;
use rootstock_playground::registry::Gauge;

use super::*;

/// Of the seed, in bytes per second.
const RATE: u64 = 2 << 20;
/// What may have left before the agent has read it: a burst for each of three
/// blobs, and what two kernels take in.
const AHEAD: u64 = 3 * (64 << 10) + 2 * (208 << 10) + Gauge::ahead();

/// No time decides here but as an upper bound of bytes: on a slow machine they
/// are fewer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_leaves_the_registry_keeps_to_the_grants() {
    let (dir, root, registry) = prepared().await;
    let limit = Limit::At(Rate::new(RATE));
    let world = World::with_budgets(Budgets { seed: limit, node: limit, ..Budgets::default() });
    let tiny = Tiny::new("gvisor", "1").with_data(4 << 20);
    let gvisor = bundle_of(&registry, &dir.path().join("work"), &tiny).await;
    let bytes = gvisor.config.config().blob_bytes();
    let gauge = Gauge::start(registry.address()).await.unwrap();

    let mut seen = world.seen.subscribe();
    let server = Server::start(&world, 0).await;
    lead_to(&world, dir.path(), server.port);
    let mut agents = agent(dir.path(), &root);
    let url = format!("http://{}", gauge.address);
    let content = DesiredContent {
        bundles: vec![gvisor.clone()],
        registries: vec![Desired { url, ..registry.as_desired("main") }],
        ..DesiredContent::default()
    };
    let content = Arc::new(content.into());
    world.desired.send_replace(Some(Offered { generation: Generation(1), content, slot: None }));

    let loaded = |seen: &Seen| seen.reports.get("gvisor").is_some_and(|r| r.phase == Phase::Loaded);
    let mut none = Instant::now();
    let watch = async {
        loop {
            let now = Instant::now();
            let passed = gauge.passed();
            if passed == 0 {
                none = now;
            }
            // Bytes are counted before the clock is read, so that the law is never too strict.
            let micros = u64::try_from(none.elapsed().as_micros()).unwrap();
            let most = RATE * micros / 1_000_000 + AHEAD;
            assert!(passed <= most, "{passed} bytes where there may be {most}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::select! {
        () = watch => {}
        () = until(&mut seen, "loaded", loaded) => {}
    }
    let report = seen.borrow().reports["gvisor"].clone();
    assert_eq!((report.bytes_pulled, report.bytes_total), (bytes, bytes), "nothing comes twice");
    // HTTP's heads are a few hundred bytes each.
    assert!((bytes..bytes + 8192).contains(&gauge.passed()), "{} of {bytes}", gauge.passed());
    agents.shutdown().await;
    server.stop().await;
}
