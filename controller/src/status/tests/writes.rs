use rootstock_core::rollout::progress as rollout;
use rootstock_core::rollout::record::Why;

use super::*;

const SECOND: Duration = Duration::from_secs(1);
const SYSTEM: &str = "SystemComponentsHealthy";

#[tokio::test(start_paused = true)]
async fn one_patch_says_everything_and_an_idle_fleet_writes_nothing() {
    let seed = Seed::start(vec![runtime("a")]);
    seed.resolve(b"one");
    seed.nodes(2);
    seed.report(0, Phase::Loaded, None, b"one");
    seed.report(1, Phase::Loaded, None, b"one");
    pass(SECOND * 100).await;
    let writes = seed.writes();
    assert_eq!(writes.len(), 1, "{writes:#?}");
    assert_eq!(writes[0].body["metadata"], json!({"resourceVersion": "1"}));
    for kind in ["BundleResolved", "NodesReady", SYSTEM, "ConfigurationAccepted"] {
        assert_eq!(seed.condition("a", kind).0, "True", "{kind}");
    }
    let status = seed.status("a");
    let digest = Digest::of(b"one").to_string();
    assert_eq!(
        status["providerStatus"],
        json!({
            "apiVersion": "rootstock.gardener.cloud/v1alpha1", "kind": "RuntimeStatus",
            "bundle": {"reference": "main/rootstock/gvisor:1", "version": "1", "digests": {"amd64": digest}},
            "nodes": {"selected": 2, "ready": 2, "phases": {"Loaded": 2}},
        })
    );
    assert_eq!(status.get("state"), None, "rollouts are another's to record");
    let operation = &status["lastOperation"];
    assert_eq!(operation["state"], "Succeeded", "what others write stays");
    assert_eq!(seed.events(), [], "nothing has happened since the last look");
}

#[tokio::test(start_paused = true)]
async fn a_restart_writes_nothing_that_is_as_it_should_be() {
    let seed = Seed::start(vec![runtime("a")]);
    seed.resolve(b"one");
    seed.nodes(1);
    seed.report(0, Phase::Loaded, None, b"one");
    pass(SECOND * 5).await;
    let written = seed.objects.lock().unwrap()["a"].clone();
    drop(seed);

    let seed = Seed::start(
        (0..1000)
            .map(|n| {
                let mut object = written.clone();
                object["metadata"]["name"] = format!("r{n}").into();
                object
            })
            .collect(),
    );
    // Its nodes are back late, and the registry too.
    pass(SECOND * 10).await;
    seed.nodes(1);
    pass(SECOND * 5).await;
    seed.resolve(b"one");
    pass(SECOND * 5).await;
    seed.report(0, Phase::Loaded, None, b"one");
    pass(SECOND * 60).await;
    assert_eq!(seed.writes().len(), 0, "{:#?}", seed.writes()[0]);
    assert_eq!(seed.events(), []);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_does_not_come_back_is_shown_in_the_end() {
    let mut object = runtime("a");
    let condition = |kind: &str| {
        json!({"type": kind, "status": "True", "reason": "AllNodesReady",
        "message": "", "lastTransitionTime": TIME, "lastUpdateTime": TIME})
    };
    object["status"]["conditions"] = json!([condition(SYSTEM), condition("NodesReady")]);
    let seed = Seed::start(vec![object]);
    seed.resolve(b"one");
    seed.nodes(1);
    pass(SETTLE - SECOND).await;
    assert_eq!(seed.writes().len(), 0, "it may be back in a moment");
    pass(SECOND * 3).await;
    assert_eq!(seed.condition("a", SYSTEM), said("Progressing", "RollingOut"));
    assert_eq!(seed.events(), [], "nobody begins anything");
}

/// Agents that were away for hours when the leader changed are not on their
/// way for the first time: no condition becomes better for ten minutes.
#[tokio::test(start_paused = true)]
async fn who_was_missed_is_not_expected_anew() {
    let said = json!({
        "apiVersion": "rootstock.gardener.cloud/v1alpha1", "kind": "RuntimeStatus",
        "nodes": {"selected": 2, "ready": 1, "reasons": {"AgentMissing": 1}},
        "slowestNodes": [
            {"name": "n1", "phase": "Waiting", "reason": "AgentMissing", "since": TIME},
        ],
    });
    for (said, most) in [(said, SETTLE), (Value::Null, 20 * SETTLE)] {
        let mut object = runtime("a");
        object["status"]["providerStatus"] = said;
        object["status"]["conditions"] = json!([{"type": "NodesReady", "status": "False",
            "reason": "AgentMissing", "message": "", "lastTransitionTime": TIME,
            "lastUpdateTime": TIME}]);
        let seed = Seed::start(vec![object]);
        seed.resolve(b"one");
        seed.nodes(2);
        seed.report(0, Phase::Loaded, None, b"one");
        pass(SETTLE - SECOND).await;
        assert_eq!(seed.condition("a", "NodesReady"), super::said("False", "AgentMissing"));
        // By the time at which this controller's word stands, it says the same.
        let look_again = seed.index.summary(&key("a")).unwrap().look_again.unwrap();
        assert!(look_again <= most && look_again > most - SETTLE, "{look_again:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_busy_resource_is_written_once_a_second() {
    let seed = Seed::start(vec![runtime("a")]);
    seed.resolve(b"one");
    seed.nodes(20);
    for step in 0..200 {
        let phase = if (step / 20 + step) % 2 == 0 { Phase::Pulling } else { Phase::Verified };
        seed.report(step % 20, phase, None, b"one");
        pass(Duration::from_millis(50)).await;
    }
    pass(SECOND * 2).await;
    let writes = seed.writes();
    assert!((8..=12).contains(&writes.len()), "{}", writes.len());
    for pair in writes.windows(2) {
        assert!(pair[1].at - pair[0].at >= SECOND, "{:?}", pair[1].at - pair[0].at);
    }
    let before = writes.len();
    let status = seed.status("a")["providerStatus"].clone();
    let slowest = status["slowestNodes"].as_array().unwrap();
    assert_eq!((slowest.len(), &slowest[0]["name"]), (5, &json!("n0")));
    assert_eq!(status["nodes"]["phases"], json!({"Pulling": 10, "Verified": 10}));
    pass(SECOND * 600).await;
    assert_eq!(seed.writes().len(), before, "nothing changes by itself");
}

#[tokio::test(start_paused = true)]
async fn a_write_that_hangs_is_given_up_and_holds_nobody_back() {
    let seed = Seed::start(vec![runtime("a"), runtime("b")]);
    *seed.hangs.lock().unwrap() = Some("a");
    seed.nodes(1);
    seed.resolve(b"one");
    seed.report(0, Phase::Pulling, None, b"one");
    pass(SECOND * 2).await;
    assert_eq!(seed.condition("b", "BundleResolved").0, "True");
    seed.report(0, Phase::Loaded, None, b"one");
    pass(SECOND * 2).await;
    assert_eq!(seed.condition("b", SYSTEM).0, "True", "others go on meanwhile");
    let writes = |name: &str| {
        let all = seed.writes().into_iter();
        all.filter(|call| call.path.contains(&format!("/{name}/"))).collect::<Vec<_>>()
    };
    assert_eq!(writes("a").len(), 1, "one at a time");
    *seed.hangs.lock().unwrap() = None;
    pass(SECOND * 10).await;
    let writes = writes("a");
    assert_eq!(writes.len(), 2, "given up, and done again with what is known by then");
    assert!(writes[1].at - writes[0].at < SECOND * 13);
    assert_eq!(seed.condition("a", SYSTEM).0, "True");
}

#[tokio::test(start_paused = true)]
async fn a_conflict_waits_for_the_watch() {
    let seed = Seed::start(vec![runtime("a")]);
    seed.on_time.store(false, Ordering::Relaxed);
    seed.change("a", |object| {
        object["status"]["conditions"] = json!([{"type": "Other",
        "status": "True", "reason": "R", "message": "", "more": 1,
        "lastTransitionTime": TIME, "lastUpdateTime": TIME}])
    });
    seed.resolve(b"one");
    seed.nodes(0);
    pass(SECOND * 3).await;
    assert_eq!(seed.writes().len(), 1, "it was refused, and nothing new is known");
    seed.on_time.store(true, Ordering::Relaxed);
    seed.watch("a");
    pass(SECOND * 2).await;
    assert_eq!(seed.writes().len(), 2);
    let conditions = seed.status("a")["conditions"].clone();
    assert_eq!((&conditions[0]["type"], &conditions[0]["more"]), (&json!("Other"), &json!(1)));
    assert_eq!(seed.condition("a", SYSTEM), said("True", "NoNodes"));
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_is_behind_is_waited_for_after_a_write_too() {
    let seed = Seed::start(vec![runtime("a")]);
    seed.on_time.store(false, Ordering::Relaxed);
    seed.resolve(b"one");
    seed.nodes(1);
    seed.report(0, Phase::Pulling, None, b"one");
    pass(SECOND).await;
    seed.report(0, Phase::Loaded, None, b"one");
    pass(SECOND * 3).await;
    assert_eq!(seed.writes().len(), 1);
    seed.watch("a");
    pass(SECOND).await;
    assert_eq!(seed.condition("a", SYSTEM), said("True", "AllNodesReady"));
}

#[tokio::test(start_paused = true)]
async fn what_leaves_or_has_not_begun_is_not_written_to() {
    let mut fresh = runtime("fresh");
    fresh["status"] = json!({});
    let mut processing = runtime("processing");
    processing["status"]["lastOperation"]["state"] = "Processing".into();
    processing["status"]["lastOperation"]["lastUpdateTime"] = Timestamp::now().to_string().into();
    let mut deleted = runtime("deleted");
    deleted["metadata"]["deletionTimestamp"] = TIME.into();
    let seed = Seed::start(vec![fresh, processing, deleted]);
    seed.resolve(b"one");
    seed.nodes(0);
    pass(SECOND * 60).await;
    assert_eq!(seed.writes().len(), 0);
    let done = |object: &mut Value| {
        object["status"]["lastOperation"] = json!({"type": "Create",
        "state": "Succeeded", "progress": 100, "description": "", "lastUpdateTime": TIME})
    };
    seed.change("fresh", done);
    seed.change("processing", done);
    pass(SECOND * 2).await;
    assert_eq!(seed.writes().len(), 2, "the end of an operation is seen at once");
}

#[tokio::test(start_paused = true)]
async fn a_shoot_that_leaves_has_its_last_word() {
    for leaves in ["annotation", "operation"] {
        let seed = Seed::start(vec![runtime("a"), runtime("b")]);
        seed.change("a", |object| match leaves {
            "annotation" => {
                object["metadata"]["annotations"]["gardener.cloud/operation"] = "migrate".into()
            }
            _ => object["status"]["lastOperation"]["type"] = "Migrate".into(),
        });
        seed.resolve(b"one");
        seed.nodes(0);
        seed.index.put_shoot_state(&shoot(), ShootState::Hibernated);
        pass(SECOND * 60).await;
        assert_eq!(seed.writes().len(), 0, "{leaves}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_hibernated_shoot_is_healthy_and_keeps_what_was_promoted() {
    let mut object = runtime("a");
    let one = Digest::of(b"one").to_string();
    object["status"]["state"] = json!({"version": 1, "promoted": {"amd64": one}});
    let seed = Seed::start(vec![object]);
    seed.resolve(b"one");
    seed.nodes(1);
    seed.report(0, Phase::Loaded, None, b"one");
    pass(SECOND * 2).await;
    seed.resolve(b"two");
    seed.index.put_shoot_state(&shoot(), ShootState::Hibernated);
    pass(SECOND * 2).await;
    assert_eq!(seed.condition("a", SYSTEM), said("True", "Hibernated"));
    let status = seed.status("a");
    assert_eq!(status["state"]["promoted"]["amd64"], one);
    assert_eq!(status["providerStatus"]["promoted"]["amd64"], one);
    assert_eq!(status["providerStatus"]["nodes"], json!({"selected": 0, "ready": 0}));
}

#[tokio::test(start_paused = true)]
async fn events_tell_what_happened_and_only_once() {
    let seed = Seed::start(vec![runtime("a")]);
    seed.resolve(b"one");
    seed.nodes(50);
    (0..50).for_each(|n| seed.report(n, Phase::Loaded, None, b"one"));
    pass(SECOND * 2).await;
    seed.resolve(b"two");
    seed.rollout(rollout::Phase::Canary, 0, &[]);
    (0..50).for_each(|n| seed.report(n, Phase::Pulling, None, b"two"));
    pass(SECOND * 2).await;
    seed.rollout(rollout::Phase::Wave { number: 1, of: 3 }, 1, &[]);
    pass(SECOND * 2).await;
    (0..20).for_each(|n| seed.report(n, Phase::Failed, Some(Reason::NoSpace), b"two"));
    pass(SECOND * 2).await;
    (20..30).for_each(|n| seed.report(n, Phase::Failed, Some(Reason::NoSpace), b"two"));
    pass(SECOND * 2).await;
    seed.report(31, Phase::RolledBack, Some(Reason::ProofFailed), b"two");
    pass(SECOND * 2).await;
    seed.rollout(rollout::Phase::Halted(Why::BudgetSpent), 1, &["n31"]);
    pass(SECOND * 2).await;
    assert_eq!(seed.condition("a", SYSTEM), said("False", "Halted"));
    seed.rollout(rollout::Phase::Idle, 50, &[]);
    (0..50).for_each(|n| seed.report(n, Phase::Proven, None, b"two"));
    pass(SECOND * 60).await;
    let (one, two) = (Digest::of(b"one"), Digest::of(b"two"));
    let events = seed.events();
    let words: Vec<_> = events.iter().map(|(word, _)| word.as_str()).collect();
    let want = [
        "BundleResolved",
        "RolloutBegun",
        "RolloutAdvanced",
        "NodesFailed",
        "NodesFailed",
        "RolloutHalted",
        "RolloutDone",
    ];
    assert_eq!(words, want, "{events:#?}");
    let resolved = format!("main/rootstock/gvisor:1 is now 1 (amd64 {two}), before amd64 {one}");
    assert_eq!(events[0].1, resolved);
    assert_eq!(events[1].1, "50 nodes to go");
    assert_eq!(events[2].1, "the rollout brings the bundle to the other nodes, wave 1 of 3");
    assert_eq!(events[3].1, "NoSpace on 20 nodes (n0, n1, n10, n11, n12 and 15 more)");
    assert!(
        events[4].1.contains("NoSpace on 30 nodes")
            && events[4].1.contains("ProofFailed on 1 node (n31)")
    );
    assert!(events[5].1.starts_with("the rollout was halted: too many nodes failed; "));
    assert!(events[5].1.ends_with("; n31: ProofFailed it does not start"), "{}", events[5].1);
    assert!(events[6].1.starts_with("50 nodes took ") && events[6].1.ends_with("; 50 nodes ready"));
    assert_eq!(seed.status("a")["providerStatus"].get("rollout"), None);
}

#[tokio::test(start_paused = true)]
async fn a_restored_resource_tells_what_it_was_promoted_to() {
    let (one, two) = (Digest::of(b"one").to_string(), Digest::of(b"two").to_string());
    let mut object = runtime("a");
    object["status"]["lastOperation"]["type"] = "Restore".into();
    object["status"]["state"] = json!({"version": 1, "promoted": {"amd64": one}, "ours": "later"});
    let seed = Seed::start(vec![object]);
    seed.resolve(b"two");
    seed.nodes(1);
    seed.report(0, Phase::Pulling, None, b"two");
    pass(SECOND * 2).await;
    let status = seed.status("a");
    assert_eq!(status["providerStatus"]["promoted"]["amd64"], one);
    assert_eq!(status["providerStatus"]["bundle"]["digests"]["amd64"], two);
    assert_eq!(
        (&status["state"]["promoted"]["amd64"], &status["state"]["ours"]),
        (&json!(one), &json!("later"))
    );
    assert!(seed.events()[0].1.ends_with(&format!("before amd64 {one}")), "{:?}", seed.events());
}

#[tokio::test(start_paused = true)]
async fn a_state_that_can_not_be_read_breaks_nothing() {
    let table = [
        json!({"version": 2, "promoted": "elsewhere"}),
        json!({"version": 1, "promoted": 5, "rubbish": {"a": 1}}),
    ];
    for state in table {
        let mut object = runtime("a");
        object["status"]["state"] = state.clone();
        let seed = Seed::start(vec![object]);
        seed.resolve(b"one");
        seed.nodes(1);
        seed.report(0, Phase::Loaded, None, b"one");
        pass(SECOND * 10).await;
        assert_eq!(seed.condition("a", SYSTEM), said("True", "AllNodesReady"));
        assert_eq!(seed.status("a")["state"], state, "it stays as it is");
        assert_eq!(seed.writes().len(), 1);
    }
}
