use super::*;

#[tokio::test(start_paused = true)]
async fn a_pause_is_heard_within_a_second_and_resume_goes_on() {
    let world = World::new(40, quick());
    let controller = Controller::start(&world, b"one");
    let one = Digest::of(b"one");
    until("some nodes", || world.with(one) >= 2).await;
    controller.ask("pause");
    tokio::time::sleep(Duration::from_secs(1)).await;
    let at_pause = world.with(one);
    assert!(at_pause < 40);
    assert_eq!((controller.asked(), &world.state()["paused"]), (Value::Null, &json!(true)));
    tokio::time::sleep(Duration::from_secs(120)).await;
    assert_eq!(world.with(one), at_pause, "a paused rollout restarts nothing");
    assert!(controller.words().contains(&"RolloutCommand".to_owned()), "{:?}", controller.words());
    controller.ask("resume");
    until("every node", || world.with(one) == 40).await;
}

#[tokio::test(start_paused = true)]
async fn a_word_that_is_no_command_is_said_and_taken_off() {
    let world = World::new(1, quick());
    let controller = Controller::start(&world, b"one");
    controller.ask("faster");
    until("the annotation goes", || controller.asked() == Value::Null).await;
    until("the word", || controller.words().contains(&"RolloutCommandRefused".to_owned())).await;
}

#[tokio::test(start_paused = true)]
async fn an_abort_goes_back_to_what_was_promoted() {
    let world = World::new(10, json!({"canary": 1, "soak": "1h", "maxUnavailable": "20%"}));
    let controller = Controller::start(&world, b"one");
    let (one, two) = (Digest::of(b"one"), Digest::of(b"two"));
    until("the canary", || world.with(one) == 1).await;
    controller.ask("promote");
    until("the promotion", || world.state()["promoted"]["amd64"] == one.to_string()).await;
    controller.resolve(b"two");
    until("the canary", || world.with(two) == 1).await;
    controller.ask("abort");
    until("the way back", || world.with(one) == 10).await;
    until("the end", || world.state()["aborted"]["amd64"] == two.to_string()).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(world.with(one), 10, "an aborted bundle is not tried again by itself");
}
