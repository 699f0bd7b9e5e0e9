//! A whole agent restarts containerd when the controller says over the wire
//! that it may.

use jiff::Timestamp;
use rootstock_controller::content::Slot;

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slot_over_the_wire_opens_the_gate() {
    let (dir, root, registry) = prepared().await;
    let gvisor = bundle(&registry, &dir.path().join("work")).await;
    let world = World::new();
    let mut seen = world.seen.subscribe();
    let server = Server::start(&world, 0).await;
    lead_to(&world, dir.path(), server.port);
    let mut agents = agent(dir.path(), &root);

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
