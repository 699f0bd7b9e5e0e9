//! A controller begins in the middle of a rollout, and agents come back one by one.

use super::*;

/// A rollout from `one` to `two` that stops dead after some of the nodes.
async fn half_way() -> World {
    let strategy = json!({"soak": "0s", "window": "none", "deadlines": {"firstSandbox": "0s"}});
    let world = World::new(10, strategy);
    let first = Controller::start(&world, b"one");
    let (one, two) = (Digest::of(b"one"), Digest::of(b"two"));
    until("the first", || world.state()["promoted"]["amd64"] == one.to_string()).await;
    drop(first);
    let nodes = Arc::clone(&world.nodes);
    let answer = move |_: usize, _: &mut Value| {
        let with = nodes.lock().unwrap().values().filter(|node| node.runs == Some(two)).count();
        (with >= 4).then_some((scripted::SILENCE, Value::Null))
    };
    let second = Controller::start_with(&world, b"two", Box::new(answer));
    until("four of ten", || world.with(two) >= 4).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    drop(second);
    assert_eq!(world.state()["promoted"]["amd64"], one.to_string());
    world
}

#[tokio::test(start_paused = true)]
async fn nothing_is_promoted_reset_or_taken_back_before_the_agents_are_heard_of() {
    let world = half_way().await;
    let (one, two) = (Digest::of(b"one"), Digest::of(b"two"));
    let before = world.state();
    let third = Controller::start_alone(&world, b"two", Box::new(|_, _| None));
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(world.state(), before, "nobody has come");
    // Those come first that have the bundle.
    let all = world.nodes.lock().unwrap().clone();
    let (have, lack): (Vec<_>, Vec<_>) =
        all.into_iter().partition(|(_, node)| node.runs == Some(two));
    for (name, _) in have.iter().chain(&lack) {
        assert_eq!(world.state()["promoted"]["amd64"], one.to_string(), "{name} is to come");
        third.connect(name);
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    until("every node", || world.with(two) == 10).await;
    until("the promotion", || world.state()["promoted"]["amd64"] == two.to_string()).await;
    for (name, node) in world.nodes.lock().unwrap().iter() {
        assert_eq!(node.activated, [one, two], "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn agents_that_do_not_come_back_are_waited_for_half_a_minute() {
    let world = half_way().await;
    let two = Digest::of(b"two");
    let third = Controller::start_alone(&world, b"two", Box::new(|_, _| None));
    let all = world.nodes.lock().unwrap().clone();
    let gone = all.iter().find(|(_, node)| node.runs != Some(two)).unwrap().0.clone();
    all.keys().filter(|name| **name != gone).for_each(|name| third.connect(name));
    tokio::time::sleep(Duration::from_secs(20)).await;
    let promoted = world.state()["promoted"]["amd64"].clone();
    assert_ne!(promoted, two.to_string());
    // One of ten is unavailable, as many as may be: nobody else has a turn.
    third.connect(&gone);
    until("the promotion", || world.state()["promoted"]["amd64"] == two.to_string()).await;
    assert_eq!(world.with(two), 10);
}
