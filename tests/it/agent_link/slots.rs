//! A whole agent restarts containerd when the controller says over the wire
//! that it may.

use jiff::Timestamp;
use rootstock_controller::content::Slot;

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slot_over_the_wire_opens_the_gate() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("node");
    SimulatedHost::prepare(&root).await.unwrap();
    let registry = Registry::start(&dir.path().join("registry")).await.unwrap();
    let gvisor = bundle(&registry, &dir.path().join("work")).await;
    let world = World::new();
    let mut seen = world.seen.subscribe();
    let server = Server::start(&world, 0).await;
    let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
    write("ca.crt", &world.ca);
    write("token", &token());
    write("endpoint", &format!("https://{HOST}:{}", server.port));
    let host = Arc::new(SimulatedHost::new(&root).with_start(Duration::from_millis(10)));
    let mut agents = JoinSet::new();
    agents.spawn(rootstock_agent::run(arguments(dir.path(), &root), host));

    let content = DesiredContent {
        bundles: vec![gvisor.clone()],
        registries: vec![registry.as_desired("main")],
        gated: true,
        ..DesiredContent::default()
    };
    let content = Arc::new(content.into());
    let offer = |slot| {
        let (generation, content) = (Generation(1), Arc::clone(&content));
        world.desired.send_replace(Some(Offered { generation, content, slot }));
    };
    let is = |phase| {
        move |seen: &Seen| seen.reports.get("gvisor").is_some_and(|said| said.phase == phase)
    };
    offer(None);
    until(&mut seen, "queued", is(Phase::Queued)).await;
    assert_eq!(SimulatedHost::restarts(&root).await.unwrap(), 0);
    let until_then = Timestamp::now() + jiff::SignedDuration::from_mins(10);
    offer(Some(Slot { until: until_then, again: false }));
    until(&mut seen, "loaded", is(Phase::Loaded)).await;
    assert_eq!(SimulatedHost::restarts(&root).await.unwrap(), 1);
    assert_eq!(seen.borrow().accepted, [1], "a slot is no state of its own");
    agents.shutdown().await;
    server.stop().await;
}
