//! Bundles with which containerd is content and pods do not start.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_bundle_with_which_more_sandboxes_fail_than_before_stops_at_the_canary() {
    let world = World::new(20, quick());
    let controller = Controller::start(&world, b"one");
    let one = Digest::of(b"one");
    until("the promotion", || world.state()["promoted"]["amd64"] == one.to_string()).await;

    // Pods fail here now and then, whatever runs. The canary is watched for an hour.
    let names: Vec<_> = world.nodes.lock().unwrap().keys().cloned().collect();
    let fail = |name: &str, count| {
        let (node, now) = (name.parse().unwrap(), std::time::Instant::now());
        controller.index.sandbox_failed(&shoot(), &node, &gvisor(), count, now);
    };
    names.iter().for_each(|name| fail(name, 100));
    let mut patient = quick();
    patient["soak"] = "1h".into();
    controller.catalog.send_replace(Arc::new(catalog(&patient)));
    controller.resolve(b"two");
    let two = Digest::of(b"two");
    until("the canary", || world.with(two) == 1).await;
    let canary = names.iter().find(|name| world.digest_of(name) == Some(two)).unwrap();

    // As often as before, and on a node that has not got it.
    fail(canary, 3);
    names.iter().filter(|name| *name != canary).for_each(|name| fail(name, 100_000));
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(world.state()["candidate"].get("halted"), None);

    fail(canary, 100_000);
    until("the halt", || world.state()["candidate"]["halted"]["why"] == "canaryFailed").await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!((world.with(two), world.with(one)), (1, 19));
}
