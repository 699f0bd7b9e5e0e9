//! A control plane that moves to another seed, or back to its own.

use serde_json::{Value, json};

use super::objects::{AGENT, GVISOR, KATA};
use super::operations::FINALIZER;
use super::support::gardenlet::until;
use super::support::health::{OPERATION, annotation};
use super::support::record::Kind;
use super::support::shoot::{Shoot, names, pools};
use super::support::suite::{Controller, Suite};

const ALL: [&str; 4] = ["gvisor-a", "gvisor-b", "kata-a", "kata-b"];

async fn four<'a>(suite: &'a Suite, controller: &Controller, name: &str) -> Shoot<'a> {
    let both = &["gvisor", "kata"][..];
    let shoot = Shoot::new(suite, controller, name, pools(&[("a", both), ("b", both)])).await;
    let shoot = shoot.with_api();
    shoot.reconcile().await;
    for name in ALL {
        shoot.until(name, "state is there", |o| o["status"]["state"]["version"] == 1).await;
    }
    shoot
}

/// What is said of a resource that has migrated.
fn migrated(object: &Value) -> bool {
    let last = &object["status"]["lastOperation"];
    last["type"] == "Migrate" && last["state"] == "Succeeded"
}

async fn authority(shoot: &Shoot<'_>) -> Value {
    let secrets = shoot.all(Kind::Secret).await;
    let found = secrets.iter().find(|secret| secret["metadata"]["name"] == "ca-rootstock");
    found.expect("the shoot's CA")["data"].clone()
}

pub(super) async fn there_and_back(suite: &Suite) {
    let shoot = four(suite, &suite.controller().await, "moves").await;
    let ca = authority(&shoot).await;
    let place = suite.record.here();
    shoot.migrate().await;
    shoot.wait_migrated().await;
    for name in ALL {
        let object = shoot
            .until(name, "nothing holds it", |o| {
                o["metadata"]["finalizers"].is_null() && annotation(o, OPERATION).is_none()
            })
            .await;
        assert!(migrated(&object), "{object:#}");
        let last = &object["status"]["lastOperation"];
        assert_eq!(last["description"], "Successfully migrated ContainerRuntime");
    }
    // What was in the seed is gone, and stays in the shoot.
    assert_eq!(shoot.managed_resources().await, [""; 0]);
    shoot.recorded().await;
    let last = shoot.since(place, Kind::ManagedResource);
    for entry in last.iter().filter(|entry| entry.gone) {
        assert_eq!(entry.object["spec"]["keepObjects"], true, "{:#}", entry.object);
    }
    let left = names(&shoot.all(Kind::Secret).await);
    assert!(left.contains(&"ca-rootstock".to_owned()), "{left:?}");
    assert!(!left.contains(&"shoot-access-rootstock".to_owned()), "{left:?}");
    assert!(!left.iter().any(|name| name.starts_with("managedresource-")), "{left:?}");

    // Whoever asks for a reconciliation now gets none.
    let place = suite.record.here();
    shoot.annotate("gvisor-a", "reconcile").await.unwrap();
    let controller = suite.controller().await;
    let other = Shoot::new(suite, &controller, "stays", pools(&[("a", &["gvisor"])])).await;
    other.reconcile().await;
    shoot.recorded().await;
    for entry in shoot.since(place, Kind::ContainerRuntime) {
        assert!(migrated(&entry.object), "{:#}", entry.object);
    }
    assert_eq!(shoot.managed_resources().await, [""; 0]);

    let state = shoot.save().await;
    assert!(state.secrets.iter().any(|s| s.metadata.name.as_deref() == Some("ca-rootstock")));
    shoot.destroy().await.unwrap();
    restored(&shoot, &state, &ca).await;
    shoot.never_failed().await;
}

/// Restores a shoot, and looks whether all is there.
async fn restored(shoot: &Shoot<'_>, state: &super::support::gardenlet::ShootState, ca: &Value) {
    shoot.restore(state).await;
    shoot.wait().await.unwrap();
    assert_eq!(shoot.managed_resources().await, [AGENT, GVISOR, KATA]);
    for object in shoot.all(Kind::ManagedResource).await {
        assert_eq!(object["spec"]["keepObjects"], false, "{object:#}");
    }
    for name in ALL {
        let object = shoot.get(name).await;
        assert_eq!(object["metadata"]["finalizers"], json!([FINALIZER]));
        assert_eq!(object["status"]["state"]["promoted"], state.extensions[name].0["promoted"]);
    }
    assert_eq!(authority(shoot).await, *ca, "another CA than before");
}

/// A Migrate may be asked for again before anybody has seen that it is done.
pub(super) async fn twice(suite: &Suite) {
    let shoot = four(suite, &suite.controller().await, "twice").await;
    shoot.migrate().await;
    shoot.migrate().await;
    shoot.wait_migrated().await;
    shoot.migrate().await;
    for name in ALL {
        let ended = |o: &Value| {
            annotation(o, OPERATION).is_none()
                && migrated(o)
                && o["metadata"]["finalizers"].is_null()
        };
        shoot.until(name, "migrated again", ended).await;
    }
    assert_eq!(shoot.managed_resources().await, [""; 0]);
    let state = shoot.save().await;
    assert_eq!(state.extensions.len(), 4);
    assert!(state.extensions.values().all(|(state, _)| state["version"] == 1), "{state:#?}");
    shoot.never_failed().await;
}

/// The other seed has its own controller, and knows only what was saved.
pub(super) async fn to_another_seed(suite: &Suite) {
    let from = four(suite, &suite.controller().await, "from").await;
    let ca = authority(&from).await;
    from.migrate().await;
    from.wait_migrated().await;
    let state = from.save().await;
    let there = suite.own_controller("there", &[]).await;
    let both = &["gvisor", "kata"][..];
    let to = Shoot::new(suite, &there, "to", pools(&[("a", both), ("b", both)])).await.with_api();
    restored(&to, &state, &ca).await;
    from.destroy().await.unwrap();
    let gone =
        until(async || from.all(Kind::ContainerRuntime).await.is_empty().then_some(())).await;
    assert!(gone.is_some());
    to.never_failed().await;
}
