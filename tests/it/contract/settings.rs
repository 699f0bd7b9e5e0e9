//! providerConfig: the gVisor extension's own, and every type's.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::operations::condition;
use super::support::record::Kind;
use super::support::shoot::{Shoot, pools};
use super::support::suite::Suite;

/// The gVisor extension's configuration with flags.
fn gvisor(flags: Value) -> Value {
    json!({
        "apiVersion": "gvisor.runtime.extensions.config.gardener.cloud/v1alpha1",
        "kind": "GVisorConfiguration",
        "configFlags": flags,
    })
}

fn settings(settings: Value) -> Value {
    json!({
        "apiVersion": "rootstock.gardener.cloud/v1alpha1",
        "kind": "RuntimeConfiguration",
        "settings": settings,
    })
}

async fn resolved(shoot: &Shoot<'_>, name: &str) {
    shoot
        .until(name, "its bundle is resolved", |object| {
            condition(object, "BundleResolved").is_some_and(|c| c["status"] == "True")
        })
        .await;
}

pub(super) async fn a_bad_one_is_refused_and_mended(suite: &Suite) {
    let controller = suite.controller().await;
    let mut shoot = Shoot::new(suite, &controller, "refused", pools(&[("a", &["gvisor"])])).await;
    let set = |shoot: &mut Shoot<'_>, config: Option<Value>| {
        shoot.gardenlet.workers[0].runtimes[0].1 = config;
    };
    set(&mut shoot, Some(gvisor(json!({"net-raw": "true", "nvproxy": "true"}))));
    shoot.reconcile().await;
    resolved(&shoot, "gvisor-a").await;
    for (config, words) in [
        (gvisor(json!({"net-raw": "maybe"})), &["net-raw", "maybe", "true", "false"][..]),
        (gvisor(json!({"no-such-flag": "1"})), &["no-such-flag"]),
        (
            json!({"apiVersion": "v1", "kind": "Other"}),
            &["apiVersion", "v1", "GVisorConfiguration"],
        ),
    ] {
        set(&mut shoot, Some(config));
        shoot.deploy().await;
        let (text, codes) = shoot.wait_for_error("gvisor-a").await;
        assert_eq!(codes, ["ERR_CONFIGURATION_PROBLEM"], "{text}");
        assert!(words.iter().all(|word| text.contains(word)), "{words:?}: {text}");
        // As with Gardener's own controllers, a write of somebody else while the
        // annotation is there asks once more.
        let failed = |object: &Value| {
            let last = &object["status"]["lastOperation"];
            (&last["state"], &last["progress"]) == (&json!("Error"), &json!(50))
                && object["status"]["observedGeneration"] == object["metadata"]["generation"]
        };
        shoot.until("gvisor-a", "failed", failed).await;
        // It has failed for a while: the next attempt would be far away.
        tokio::time::sleep(Duration::from_millis(150)).await;
        set(&mut shoot, Some(gvisor(json!({"net-raw": "false"}))));
        let begun = Instant::now();
        shoot.deploy().await;
        let mended = |object: &Value| {
            object["status"]["lastOperation"]["state"] == "Succeeded"
                && object["status"]["lastError"].is_null()
                && object["status"]["observedGeneration"] == object["metadata"]["generation"]
        };
        shoot.until("gvisor-a", "mended", mended).await;
        assert!(begun.elapsed() < Duration::from_secs(20), "took {:?}", begun.elapsed());
        shoot.wait().await.unwrap();
    }
    // The RuntimeClass was there all the time.
    let states = shoot.since(0, Kind::ManagedResource);
    assert!(states.iter().all(|entry| !entry.gone), "{states:#?}");
}

pub(super) async fn unknown_ones_are_passed_over(suite: &Suite) {
    let controller = suite.own_controller("lenient", &["--provider-config", "warn"]).await;
    let mut shoot = Shoot::new(suite, &controller, "lenient", pools(&[("a", &["gvisor"])])).await;
    let mut config = gvisor(json!({"net-raw": "true", "no-such-flag": "1"}));
    config["noSuchField"] = json!(true);
    shoot.gardenlet.workers[0].runtimes[0].1 = Some(config);
    shoot.reconcile().await;
    shoot
        .until("gvisor-a", "a condition names what is passed over", |object| {
            let conditions = object["status"]["conditions"].to_string();
            conditions.contains("no-such-flag") && conditions.contains("noSuchField")
        })
        .await;
    // What the bundle declares may have been known only after the first time.
    shoot.reconcile().await;
    suite
        .record
        .until("an Event names what is passed over", |entries| {
            entries.iter().any(|entry| {
                let (reason, text) = (&entry.object["reason"], entry.object.to_string());
                entry.is_of(Kind::Event, &shoot.name)
                    && reason == "ConfigurationPassedOver"
                    && text.contains("no-such-flag")
            })
        })
        .await;
    shoot.never_failed().await;
}

/// Nobody knows yet what the bundle declares: nothing is wrong so far.
pub(super) async fn pending_while_the_bundle_is_away(suite: &Suite) {
    let controller = suite.controller().await;
    let mut shoot = Shoot::new(suite, &controller, "pending", pools(&[("a", &["lost"])])).await;
    shoot.gardenlet.workers[0].runtimes[0].1 = Some(settings(json!({"debug": "true"})));
    shoot.reconcile().await;
    shoot.never_failed().await;
}
