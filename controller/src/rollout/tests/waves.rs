use super::*;

#[tokio::test(start_paused = true)]
async fn a_bundle_comes_to_every_node_and_is_promoted() {
    let world = World::new(20, quick());
    let controller = Controller::start(&world, b"one");
    let one = Digest::of(b"one");
    until("every node", || world.with(one) == 20).await;
    until("the promotion", || world.state()["promoted"]["amd64"] == one.to_string()).await;
    until("the end", || world.state()["slots"] == json!([])).await;
    assert_eq!(world.state().get("candidate"), None);

    // Another bundle: first one node, and never more than four at once.
    controller.resolve(b"two");
    let two = Digest::of(b"two");
    until("the canary", || world.with(two) == 1).await;
    until("every node", || world.with(two) == 20).await;
    until("the promotion", || world.state()["promoted"]["amd64"] == two.to_string()).await;
    let nodes = world.nodes.lock().unwrap().clone();
    for (name, node) in nodes {
        assert_eq!(node.activated, [one, two], "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_bundle_that_breaks_nodes_breaks_the_canary_alone() {
    let mut world = World::new(20, quick());
    world.bad = Some(b"bad");
    let controller = Controller::start(&world, b"one");
    let one = Digest::of(b"one");
    until("the promotion", || world.state()["promoted"]["amd64"] == one.to_string()).await;

    controller.resolve(b"bad");
    until("the halt", || world.state()["candidate"]["halted"]["why"] == "canaryFailed").await;
    // A node that comes now gets what is known to work, without a slot.
    controller.join("n20");
    until("the new node", || world.digest_of("n20") == Some(one)).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!((world.failed(), world.with(one)), (1, 21));

    // The catalog goes back: nothing is to be done.
    controller.resolve(b"one");
    until("the end", || world.state().get("candidate").is_none()).await;
    assert_eq!(world.failed(), 1);
}

#[tokio::test(start_paused = true)]
async fn nodes_that_join_where_nothing_is_promoted_get_the_candidate() {
    let world = World::new(0, quick());
    let controller = Controller::start(&world, b"one");
    (0..5).for_each(|n| controller.join(&format!("n{n}")));
    let one = Digest::of(b"one");
    until("every node", || world.with(one) == 5).await;
    until("the promotion", || world.state()["promoted"]["amd64"] == one.to_string()).await;
}

#[tokio::test(start_paused = true)]
async fn an_index_that_knows_no_rollout_sends_nothing() {
    let world = World::new(1, quick());
    let controller = Controller::start_with(
        &world,
        b"one",
        Box::new(|_, _| Some(refusal(500, "InternalError"))),
    );
    tokio::time::sleep(Duration::from_secs(30)).await;
    let node = world.nodes.lock().unwrap()["n0"].clone();
    // What could not be recorded was not given; not even what it may pull ahead.
    assert_eq!((node.held, node.activated.len()), (None, 0));
    drop(controller);
}
