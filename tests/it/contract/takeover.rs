//! A shoot that the gVisor extension has looked after until now.

use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::{DynamicObject, PostParams};
use rootstock_playground::seed::objects::typed;
use serde_json::{Value, json};

use super::objects::{AGENT, GVISOR};
use super::support::gardenlet::until;
use super::support::record::Kind;
use super::support::shoot::{Shoot, pools};
use super::support::suite::Suite;

/// The RuntimeClass's ManagedResource is taken over in place; those of the installation go.
pub(super) async fn of_the_gvisor_extension(suite: &Suite) {
    let controller = suite.controller().await;
    let workers = pools(&[("a", &["gvisor"]), ("b", &["gvisor"])]);
    let shoot = Shoot::new(suite, &controller, "taken", workers).await;
    let shoot = shoot.with_api();
    let class = "apiVersion: node.k8s.io/v1\nkind: RuntimeClass\nmetadata:\n  name: gvisor\nhandler: runsc\n";
    let account = "apiVersion: v1\nkind: ServiceAccount\nmetadata:\n  name: gvisor\n  namespace: kube-system\n";
    let before = theirs(&shoot, GVISOR, &format!("{class}---\n{account}")).await;
    for pool in ["a", "b"] {
        let name = format!("{GVISOR}-installation-{pool}");
        let text = format!(
            "apiVersion: apps/v1\nkind: DaemonSet\nmetadata:\n  name: containerd-gvisor-{pool}\n  namespace: kube-system\n"
        );
        theirs(&shoot, &name, &text).await;
    }
    shoot.reconcile().await;
    let only_ours = until(async || {
        let all = shoot.managed_resources().await;
        (all == [AGENT, GVISOR]).then_some(())
    });
    assert!(only_ours.await.is_some(), "{:?}", shoot.managed_resources().await);
    let all = shoot.all(Kind::ManagedResource).await;
    let after = all.iter().find(|object| object["metadata"]["name"] == GVISOR).unwrap();
    assert_eq!(after["metadata"]["uid"], before["metadata"]["uid"], "it was made anew");
    let brings = shoot.brings(GVISOR).await;
    let class = brings.iter().find(|object| object["kind"] == "RuntimeClass").unwrap();
    assert_eq!(
        (&class["metadata"]["name"], &class["handler"]),
        (&json!("gvisor"), &json!("runsc"))
    );
    shoot.never_failed().await;
}

/// A ManagedResource as the gVisor extension writes it.
async fn theirs(shoot: &Shoot<'_>, name: &str, manifests: &str) -> Value {
    let secret_name = format!("managedresource-{name}-0123abcd");
    let secret = json!({
        "metadata": {"name": secret_name, "labels": {
            "resources.gardener.cloud/garbage-collectable-reference": "true"}},
        "type": "Opaque", "immutable": true, "stringData": {"config.yaml": manifests},
    });
    let secrets = shoot.suite.access.within::<Secret>(&shoot.name);
    secrets.create(&PostParams::default(), &typed(secret).unwrap()).await.unwrap();
    let object = json!({
        "apiVersion": "resources.gardener.cloud/v1alpha1", "kind": "ManagedResource",
        "metadata": {"name": name, "labels": {"origin": "extension-runtime-gvisor"}},
        "spec": {"keepObjects": false, "secretRefs": [{"name": secret_name}],
                 "injectLabels": {"shoot.gardener.cloud/no-cleanup": "true"}},
    });
    let client = shoot.suite.access.client();
    let kind = Kind::ManagedResource.resource();
    let api: Api<DynamicObject> = Api::namespaced_with(client, &shoot.name, &kind);
    let object = serde_json::from_value(object).unwrap();
    serde_json::to_value(api.create(&PostParams::default(), &object).await.unwrap()).unwrap()
}
