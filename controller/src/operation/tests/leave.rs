//! Delete, Migrate and Restore, request by request.

use super::*;

#[tokio::test(start_paused = true)]
async fn the_last_resource_takes_everything_along() {
    let world = World::start();
    created(&world, &["gvisor-a", "gvisor-b"]).await;
    // The shoot's nodes are known, and there are none.
    world.index.nodes_listed(&SHOOT.parse().unwrap(), &[]);
    world.delete("gvisor-a");
    let not_last = ["Delete Processing", "Delete Succeeded", NONE];
    assert_eq!(world.requests().await, not_last);
    assert_eq!(world.get("gvisor-a"), Value::Null);
    assert_ne!(world.managed("extension-runtime-gvisor"), Value::Null);

    world.delete("gvisor-b");
    let last = ["gvisor-b: Delete Processing", "objects", "gvisor-b: Delete Succeeded"];
    assert_eq!(world.requests().await[..3], last);
    assert_eq!(world.managed("extension-runtime-gvisor"), Value::Null);
    assert_eq!(world.managed("extension-rootstock-agent"), Value::Null);
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn two_that_go_at_one_time_leave_nothing() {
    let world = World::start();
    created(&world, &["gvisor-a", "kata-a"]).await;
    let objects =
        ["extension-runtime-gvisor", "extension-runtime-kata", "extension-rootstock-agent"];
    world.index.nodes_listed(&SHOOT.parse().unwrap(), &[]);
    world.delete("gvisor-a");
    world.delete("kata-a");
    world.requests().await;
    for name in objects {
        assert_eq!(world.managed(name), Value::Null, "{name}");
    }
    assert_eq!((world.get("gvisor-a"), world.get("kata-a")), (Value::Null, Value::Null));
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_deletion_waits_for_nodes_and_objects_in_bounds_and_writes_nothing_meanwhile() {
    let world = World::start();
    created(&world, &["gvisor-a"]).await;
    assert_eq!(world.secrets(), ["ca-rootstock", "shoot-access-rootstock"]);
    world.let_in();
    world.linger(true);
    // Nothing is known of the shoot's nodes.
    world.delete("gvisor-a");
    assert_eq!(world.requests_within(MINUTE).await, ["Delete Processing"]);
    // As gardenlet does when it asks again.
    let again = json!({"gardener.cloud/timestamp": "t2"});
    world.put(&json!({"metadata": {"name": "gvisor-a", "annotations": again}}));
    assert!(world.requests_within(MINUTE / 2).await.is_empty());
    assert_eq!(world.requests_within(MINUTE).await, ["objects"], "two minutes for the nodes");
    assert_eq!(world.secrets(), ["ca-rootstock", "shoot-access-rootstock"]);
    assert_eq!(
        world.requests_within(MINUTE / 2).await,
        ["objects", "Delete Succeeded", NONE],
        "and 40 s more"
    );
    assert_eq!(world.secrets(), [""; 0]);
    assert_eq!(world.get("gvisor-a"), Value::Null);
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_deletion_is_woken_by_what_it_waits_for() {
    let world = World::start();
    created(&world, &["gvisor-a"]).await;
    world.let_in();
    world.delete("gvisor-a");
    assert_eq!(world.requests().await, ["Delete Processing"]);
    world.index.nodes_listed(&SHOOT.parse().unwrap(), &[]);
    let requests = world.requests_within(MOMENT).await;
    assert_eq!(requests.last().unwrap(), NONE, "{requests:?}");
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn nobody_is_waited_for_where_no_agent_was_ever_let_in() {
    let world = World::start();
    created(&world, &["gvisor-a"]).await;
    // The shoot's API never gave a token: its nodes are not known, and none was served.
    world.delete("gvisor-a");
    let requests = world.requests_within(MOMENT).await;
    assert_eq!(requests, ["Delete Processing", "objects", "Delete Succeeded", NONE]);
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn who_is_given_up_is_not_waited_for() {
    let shoots = [
        json!({"metadata": {"annotations": {"confirmation.gardener.cloud/force-deletion": "true"}}}),
        json!({"spec": {"hibernation": {"enabled": true}}}),
    ];
    for shoot in shoots {
        let world = World::start();
        created(&world, &["gvisor-a"]).await;
        world.linger(true);
        world.put_cluster(shoot);
        world.delete("gvisor-a");
        let requests = world.requests_within(MOMENT).await;
        assert_eq!(requests, ["Delete Processing", "objects", "Delete Succeeded", NONE]);
        assert_eq!(world.secrets(), [""; 0], "nobody is left to take them away");
        world.stop().await;
    }
    // A shoot that is deleted has a resource manager, but no nodes that matter.
    let world = World::start();
    created(&world, &["gvisor-a"]).await;
    world.let_in();
    world.delete("gvisor-a");
    assert_eq!(world.requests().await, ["Delete Processing"]);
    world.put_cluster(json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}));
    let requests = world.requests_within(MOMENT).await;
    assert_eq!(requests.last().unwrap(), NONE);
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn migrate_leaves_the_seed_and_keeps_the_shoot() {
    let world = World::start();
    created(&world, &["gvisor-a", "gvisor-b"]).await;
    let shoot = SHOOT.parse().unwrap();
    world.linger(true);
    world.open_endpoint("host");
    world.deploy("gvisor-a", "migrate");
    assert!(world.index.is_suspended(&shoot), "before anything is written");
    assert_eq!(world.requests().await, ["Migrate Processing", "objects"]);
    assert!(world.endpoints.get("host").is_none(), "nobody comes in");
    let agent = world.managed("extension-rootstock-agent");
    assert_eq!(agent["spec"]["keepObjects"], true);
    world.linger(false);
    let end = ["Migrate Succeeded", NONE, "annotation off"];
    let requests = world.requests().await;
    assert!(requests.ends_with(&end.map(str::to_owned)), "{requests:?}");
    assert_healthy(&world.get("gvisor-a"), "Migrate");
    assert!(world.get("gvisor-a")["metadata"]["finalizers"].as_array().unwrap().is_empty());

    // It may run twice, and what is asked afterwards is only acknowledged.
    world.deploy("gvisor-a", "migrate");
    let again = ["Migrate Processing", "objects", "Migrate Succeeded", "annotation off"];
    assert_eq!(world.requests().await, again);
    world.deploy("gvisor-a", "reconcile");
    assert_eq!(world.requests().await, ["annotation off"]);
    // Another resource of the shoot is reconciled, and writes no objects.
    world.deploy("gvisor-b", "reconcile");
    let other = ["annotation off", "Reconcile Processing", "Reconcile Succeeded"];
    assert_eq!(world.requests().await, other.map(|line| format!("gvisor-b: {line}")));
    assert_eq!(world.managed("extension-runtime-gvisor"), Value::Null);

    // It is deleted without a word, and the shoot stays as it was left.
    world.delete("gvisor-a");
    assert!(world.requests().await.is_empty());
    assert!(world.index.is_suspended(&shoot));
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_migration_that_nobody_lets_go_says_so() {
    let world = World::start();
    created(&world, &["gvisor-a"]).await;
    world.linger(true);
    world.deploy("gvisor-a", "migrate");
    world.requests_within(2 * MINUTE + MINUTE / 12).await;
    let error = world.get("gvisor-a")["status"]["lastError"]["description"].clone();
    let error = error.as_str().unwrap();
    assert!(
        error.starts_with("Error migrating ContainerRuntime: still there after 2m: "),
        "{error}"
    );
    world.linger(false);
    world.requests_within(2 * MINUTE).await;
    assert_healthy(&world.get("gvisor-a"), "Migrate");
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn restore_keeps_its_annotation_until_it_has_succeeded() {
    let world = World::start();
    world.deploy("gvisor-a", "wait-for-state");
    assert!(world.requests().await.is_empty());
    world.put(&json!({"metadata": {"name": "gvisor-a"}, "status": {"state": {"version": 1}}}));
    world.deploy("gvisor-a", "restore");
    let restore = [ADD, "Restore Processing", "objects", "Restore Succeeded", "annotation off"];
    assert_eq!(world.requests().await, restore, "and no Reconcile for our own writes");
    assert_healthy(&world.get("gvisor-a"), "Restore");
    assert_eq!(world.get("gvisor-a")["status"]["state"], json!({"version": 1}));
    world.deploy("gvisor-a", "reconcile");
    world.requests().await;
    assert_healthy(&world.get("gvisor-a"), "Reconcile");
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_shoot_that_comes_back_gets_its_objects() {
    let world = World::start();
    created(&world, &["gvisor-a", "kata-a"]).await;
    world.deploy("gvisor-a", "migrate");
    world.requests().await;
    world.deploy("kata-a", "reconcile");
    let without = world.requests().await;
    assert!(!without.contains(&"objects".to_owned()), "{without:?}");
    world.deploy("gvisor-a", "restore");
    world.requests().await;
    assert!(!world.index.is_suspended(&SHOOT.parse().unwrap()));
    assert_healthy(&world.get("gvisor-a"), "Restore");
    assert_healthy(&world.get("kata-a"), "Reconcile");
    world.stop().await;
}
