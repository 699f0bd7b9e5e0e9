use super::*;

/// What a rollout comes to with a controller that dies at this write: before it
/// was carried out, or after it and before the answer came.
async fn with_a_kill_at(number: usize, carried_out: bool) -> (World, bool) {
    let world = World::new(10, quick());
    let killed = Arc::new(tokio::sync::Notify::new());
    let died = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let (tell, seen) = (Arc::clone(&killed), Arc::clone(&died));
    let silence = (scripted::SILENCE, Value::Null);
    let answer: Answer = Box::new(move |write, _| {
        if write < number {
            return None;
        }
        tell.notify_one();
        seen.store(true, std::sync::atomic::Ordering::Relaxed);
        (write > number || !carried_out).then(|| silence.clone())
    });
    let first = Controller::start_with(&world, b"one", answer);
    let one = Digest::of(b"one");
    // Cancel-safe: both are only looked at.
    tokio::select! {
        biased;
        () = killed.notified() => {}
        () = until("the promotion", || world.state()["promoted"]["amd64"] == one.to_string()) => {}
    }
    drop(first);
    let _second = Controller::start(&world, b"one");
    until("the promotion", || world.state()["promoted"]["amd64"] == one.to_string()).await;
    until("every node", || world.with(one) == 10).await;
    until("the end", || world.state()["slots"] == json!([])).await;
    (world, died.load(std::sync::atomic::Ordering::Relaxed))
}

#[tokio::test(start_paused = true)]
async fn a_controller_that_dies_at_any_write_gives_no_slot_twice_and_comes_to_the_same_end() {
    let mut deaths = 0;
    for carried_out in [false, true] {
        for number in 1.. {
            let (world, died) = with_a_kill_at(number, carried_out).await;
            let one = Digest::of(b"one");
            for (name, node) in world.nodes.lock().unwrap().iter() {
                assert_eq!(node.activated, [one], "{name}, killed at {number} ({carried_out})");
            }
            assert_eq!(world.state().get("candidate"), None);
            deaths += usize::from(died);
            if !died {
                break;
            }
        }
    }
    assert!(deaths >= 16, "{deaths} writes are not a rollout");
}
