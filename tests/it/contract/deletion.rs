//! Delete: the last of a type, the last of a shoot, and with nobody to confirm it.

use std::time::{Duration, Instant};

use kube::api::{Api, DynamicObject, Patch, PatchParams};
use serde_json::json;

use super::objects::{AGENT, GVISOR, KATA};
use super::operations::hibernated;
use super::support::gardenlet::until;
use super::support::record::Kind;
use super::support::shoot::{Shoot, pools};
use super::support::suite::Suite;

/// What is at once on a busy machine.
const AT_ONCE: Duration = Duration::from_secs(10);

pub(super) async fn not_the_last_then_the_last(suite: &Suite) {
    let both = &["gvisor", "kata"][..];
    let controller = suite.controller().await;
    let shoot = Shoot::new(suite, &controller, "deletes", pools(&[("a", both), ("b", both)])).await;
    let mut shoot = shoot.with_api();
    shoot.reconcile().await;
    let have = async |shoot: &Shoot<'_>, wanted: &[&str]| {
        let are = until(async || (shoot.managed_resources().await == wanted).then_some(())).await;
        assert!(are.is_some(), "{:?} are not {wanted:?}", shoot.managed_resources().await);
    };
    shoot.gardenlet.workers = pools(&[("a", both), ("b", &["gvisor"])]);
    shoot.clean_up_stale().await.unwrap();
    have(&shoot, &[AGENT, GVISOR, KATA]).await;
    shoot.gardenlet.workers = pools(&[("a", &["gvisor"]), ("b", &["gvisor"])]);
    shoot.clean_up_stale().await.unwrap();
    have(&shoot, &[AGENT, GVISOR]).await;
    shoot.reconcile().await;
    have(&shoot, &[AGENT, GVISOR]).await;
    shoot.destroy().await.unwrap();
    have(&shoot, &[]).await;
    shoot.never_failed().await;
}

/// Nobody can confirm that a runtime is gone: the deletion does not wait for ever.
pub(super) async fn while_the_api_is_away(suite: &Suite) {
    let controller = suite.own_controller("away", &["--deletion-timeout", "2s"]).await;
    let shoot = Shoot::new(suite, &controller, "away", pools(&[("a", &["gvisor"])])).await;
    shoot.reconcile().await;
    let begun = Instant::now();
    shoot.destroy().await.unwrap();
    assert!(begun.elapsed() < AT_ONCE, "took {:?}", begun.elapsed());
    assert_eq!(shoot.managed_resources().await, [""; 0]);
    shoot.never_failed().await;
}

pub(super) async fn while_hibernated(suite: &Suite) {
    let controller = suite.own_controller("asleep", &["--deletion-timeout", "10m"]).await;
    let shoot = Shoot::new(suite, &controller, "asleep", pools(&[("a", &["gvisor"])])).await;
    shoot.reconcile().await;
    shoot.change(hibernated()).await;
    let begun = Instant::now();
    shoot.destroy().await.unwrap();
    assert!(begun.elapsed() < AT_ONCE, "took {:?}", begun.elapsed());
    shoot.never_failed().await;
}

/// The shoot's resource manager is gone too, and nobody takes its finalizers off.
pub(super) async fn by_force(suite: &Suite) {
    let controller = suite.own_controller("forced", &["--deletion-timeout", "10m"]).await;
    let shoot =
        Shoot::new(suite, &controller, "forced", pools(&[("a", &["gvisor", "kata"])])).await;
    shoot.reconcile().await;
    let client = suite.access.client();
    let kind = Kind::ManagedResource.resource();
    let api: Api<DynamicObject> = Api::namespaced_with(client, &shoot.name, &kind);
    let held = json!(["resources.gardener.cloud/gardener-resource-manager"]);
    for finalizers in [held, json!(null)] {
        if finalizers.is_null() {
            let annotations = json!({"confirmation.gardener.cloud/force-deletion": "true"});
            shoot.change(json!({"metadata": {"annotations": annotations}})).await;
            let begun = Instant::now();
            shoot.destroy().await.unwrap();
            assert!(begun.elapsed() < AT_ONCE, "took {:?}", begun.elapsed());
        }
        // Afterwards the cleaner takes them off.
        for name in shoot.managed_resources().await {
            let patch = Patch::Merge(json!({"metadata": {"finalizers": finalizers}}));
            api.patch(&name, &PatchParams::default(), &patch).await.unwrap();
        }
    }
    shoot.never_failed().await;
}
