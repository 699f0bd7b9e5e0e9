//! Others write the same resource: the status every second, gardenlet now and then.

use super::*;

/// Somebody else has written the object: the patch is over what is no more.
fn written(object: &mut Value, what: &Value) {
    let version = object["metadata"]["resourceVersion"].as_str().unwrap();
    let next = version.parse::<u64>().unwrap() + 1;
    merge(object, what);
    object["metadata"]["resourceVersion"] = next.to_string().into();
}

#[tokio::test(start_paused = true)]
async fn a_status_that_is_written_meanwhile_holds_no_slot_up() {
    let world = World::new(3, json!({"canary": 3, "maxUnavailable": 3, "window": "none"}));
    let said = json!({"status": {"conditions": [{"type": "NodesReady", "status": "True",
        "reason": "AllNodesReady", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z",
        "lastUpdateTime": "2026-01-01T00:00:00Z"}]}});
    // Every other write comes too late.
    let answer = move |number: usize, object: &mut Value| {
        if number % 2 == 1 {
            written(object, &said);
        }
        None
    };
    let controller = Controller::start_with(&world, b"one", Box::new(answer));
    let begun = tokio::time::Instant::now();
    let one = Digest::of(b"one");
    until("every node", || world.with(one) == 3).await;
    // A look that could not be ended waits for 200 ms.
    assert!(begun.elapsed() < Duration::from_millis(1500), "{:?}", begun.elapsed());
    let object = world.objects.lock().unwrap()["a"].clone();
    assert_eq!(object["status"]["conditions"][0]["status"], "True", "nothing of theirs is lost");
    assert!(world.nodes.lock().unwrap().values().all(|node| node.activated == [one]));
    drop(controller);
}

#[tokio::test(start_paused = true)]
async fn a_state_that_somebody_else_wrote_is_not_written_over() {
    let world = World::new(3, quick());
    let answer = |number: usize, object: &mut Value| {
        if number == 2 {
            written(object, &json!({"status": {"state": {"paused": true}}}));
        }
        None
    };
    let controller = Controller::start_with(&world, b"one", Box::new(answer));
    until("the pause", || world.state()["paused"] == true).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(world.state()["paused"], true);
    assert_eq!(world.state().get("slots").cloned().unwrap_or(json!([])), json!([]));
    assert!(world.nodes.lock().unwrap().values().all(|node| node.activated.is_empty()));
    drop(controller);
}
