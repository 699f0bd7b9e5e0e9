//! What belongs to other extensions.

use serde_json::{Value, json};

use super::support::health::{OPERATION, annotation};
use super::support::shoot::{Shoot, pools};
use super::support::suite::Suite;

/// By class and by type: these are left as they are, annotation and all.
pub(super) async fn other_classes_and_types(suite: &Suite) {
    let controller = suite.controller().await;
    let shoot = Shoot::new(suite, &controller, "scope", pools(&[("a", &["gvisor"])])).await;
    let others = [
        ("garden", json!({"type": "gvisor", "class": "garden"})),
        ("type", json!({"type": "someone-elses"})),
    ];
    for (name, own) in &others {
        let mut object = json!({
            "apiVersion": "extensions.gardener.cloud/v1alpha1", "kind": "ContainerRuntime",
            "metadata": {"name": name, "annotations": {OPERATION: "reconcile"}},
            "spec": {"binaryPath": "/var/bin/containerruntimes",
                     "workerPool": {"name": "a", "selector": {"matchLabels": {"a": "a"}}}},
        });
        json_patch(&mut object["spec"], own);
        let object = serde_json::from_value(object).unwrap();
        shoot.api().create(&Default::default(), &object).await.unwrap();
    }
    shoot.reconcile().await;
    // The class may be named too, and is the usual one then.
    shoot.edit("gvisor-a", json!({"spec": {"class": "shoot"}})).await;
    shoot.reconcile().await;
    for (name, _) in others {
        let object = shoot.get(name).await;
        assert!(object["status"].is_null(), "{object:#}");
        assert!(object["metadata"]["finalizers"].is_null(), "{object:#}");
        assert_eq!(annotation(&object, OPERATION), Some("reconcile"));
    }
    shoot.never_failed().await;
}

/// `--types`: one of two extensions on a seed. What makes a namespace a shoot's is
/// its Cluster, whatever the name.
pub(super) async fn a_list_of_types(suite: &Suite) {
    let controller = suite.own_controller("listed", &["--types", "kata,other"]).await;
    let mut shoot = Shoot::new(suite, &controller, "listed", pools(&[("a", &["gvisor"])])).await;
    shoot.deploy().await;
    let elsewhere = Shoot::elsewhere(suite, &controller, "elsewhere", pools(&[("a", &["kata"])]));
    let elsewhere = elsewhere.await;
    elsewhere.deploy().await;
    let named = pools(&[("a", &["kata"])]);
    let named = Shoot::elsewhere(suite, &controller, "test-namespace", named).await;
    named.make_cluster().await;
    named.deploy().await;
    named.wait().await.unwrap();
    named.destroy().await.unwrap();
    shoot.gardenlet.workers = pools(&[("a", &["kata"])]);
    shoot.reconcile().await;
    for object in [shoot.get("gvisor-a").await, elsewhere.get("kata-a").await] {
        assert!(object["status"].is_null(), "{object:#}");
        assert_eq!(annotation(&object, OPERATION), Some("reconcile"));
    }
    assert_eq!(shoot.managed_resources().await, [super::objects::AGENT, super::objects::KATA]);
    shoot.never_failed().await;
}

fn json_patch(target: &mut Value, own: &Value) {
    let target = target.as_object_mut().unwrap();
    target.extend(own.as_object().unwrap().clone());
}
