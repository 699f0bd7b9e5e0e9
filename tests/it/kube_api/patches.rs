//! Patches, each by its content type.

use k8s_openapi::api::core::v1::{ConfigMap, Node};
use kube::{
    Api, Client, ResourceExt as _,
    api::{DynamicObject, Patch, PatchParams, PostParams},
};
use rootstock_playground::kube::Cluster;
use serde_json::{Value, json};

use super::support::{from, namespace, node, refused, runtime, runtimes};

fn params() -> PatchParams {
    PatchParams::default()
}

pub(super) async fn merge(cluster: &Cluster) {
    let ns = namespace(cluster, "merge").await;
    let api = runtimes(cluster.client(), &ns);
    let mut new = runtime("r");
    new.annotations_mut().extend([("a".into(), "1".into()), ("b".into(), "2".into())]);
    api.create(&PostParams::default(), &new).await.unwrap();
    let patch = Patch::Merge(
        json!({"metadata": {"annotations": {"a": null, "c": "3"}}, "spec": {"mode": "a"}}),
    );
    let patched = api.patch("r", &params(), &patch).await.unwrap();
    assert_eq!(patched.annotations().keys().collect::<Vec<_>>(), ["b", "c"]);
    assert_eq!(
        (&patched.data["spec"]["mode"], patched.metadata.generation),
        (&json!("a"), Some(2))
    );
    let same = api.patch("r", &params(), &patch).await.unwrap();
    assert_eq!(same.resource_version(), patched.resource_version());
    assert_eq!(refused(api.patch("absent", &params(), &patch).await), (404, "NotFound".into()));
}

pub(super) async fn json(cluster: &Cluster) {
    let ns = namespace(cluster, "json").await;
    let api = runtimes(cluster.client(), &ns);
    let mut new = runtime("r");
    new.finalizers_mut().push("x.io/f".into());
    api.create(&PostParams::default(), &new).await.unwrap();
    let path =
        format!("/apis/extensions.gardener.cloud/v1alpha1/namespaces/{ns}/containerruntimes/r");
    let patch = |body: Value| send(cluster.client(), &path, "application/json-patch+json", body);
    let patched = patch(json!([
        {"op": "test", "path": "/metadata/finalizers/0", "value": "x.io/f"},
        {"op": "remove", "path": "/metadata/finalizers/0"},
        {"op": "replace", "path": "/spec/type", "value": "kata"},
        {"op": "add", "path": "/metadata/labels", "value": {"k": "v"}},
    ]));
    let patched = patched.await.unwrap();
    assert!(patched.finalizers().is_empty());
    assert_eq!(
        (&patched.data["spec"]["type"], patched.labels()["k"].as_str()),
        (&json!("kata"), "v")
    );
    let failed = patch(json!([{"op": "test", "path": "/spec/type", "value": "gvisor"}])).await;
    assert_eq!(refused(failed), (422, "Invalid".into()));
}

pub(super) async fn strategic(cluster: &Cluster) {
    let api: Api<Node> = Api::all(cluster.client());
    let mut new = node("strategic");
    new.spec = Some(from(json!({"taints": [{"key": "one", "effect": "NoSchedule"}]})));
    api.create(&PostParams::default(), &new).await.unwrap();
    let patch = Patch::Strategic(json!({
        "metadata": {"labels": {"worker.gardener.cloud/pool": null, "new": "label"}},
        "spec": {"taints": [{"key": "two", "effect": "NoExecute"}]},
    }));
    let patched = api.patch("strategic", &params(), &patch).await.unwrap();
    let taints = patched.spec.unwrap().taints.unwrap();
    assert_eq!(
        taints.iter().map(|taint| &taint.key).collect::<Vec<_>>(),
        ["two"],
        "a list as a whole"
    );
    assert_eq!(patched.metadata.labels.unwrap().into_keys().collect::<Vec<_>>(), ["new"]);
    let patch = Patch::Strategic(
        json!({"status": {"conditions": [{"type": "DiskPressure", "status": "False"}]}}),
    );
    let patched = api.patch_status("strategic", &params(), &patch).await.unwrap();
    assert_eq!(patched.status.unwrap().conditions.unwrap().len(), 2, "a list merged by type");
    api.delete("strategic", &kube::api::DeleteParams::default()).await.unwrap();

    let ns = namespace(cluster, "strategic").await;
    let custom = runtimes(cluster.client(), &ns);
    custom.create(&PostParams::default(), &runtime("r")).await.unwrap();
    let answer =
        custom.patch("r", &params(), &Patch::Strategic(json!({"spec": {"mode": "a"}}))).await;
    assert_eq!(refused(answer).0, 415, "custom resources have no strategy");
}

pub(super) async fn apply(cluster: &Cluster) {
    let ns = namespace(cluster, "apply").await;
    let api: Api<ConfigMap> = Api::namespaced(cluster.client(), &ns);
    let manager = PatchParams::apply("tests").force();
    let map = |data: Value| {
        Patch::Apply(
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}, "data": data}),
        )
    };
    let made = api.patch("m", &manager, &map(json!({"a": "1"}))).await.unwrap();
    assert_eq!(made.data.unwrap()["a"], "1");
    let changed = api.patch("m", &manager, &map(json!({"a": "2", "b": "3"}))).await.unwrap();
    assert_eq!(changed.data.unwrap().len(), 2);
    let same = api.patch("m", &manager, &map(json!({"a": "2", "b": "3"}))).await.unwrap();
    assert_eq!(same.metadata.resource_version, changed.metadata.resource_version);

    let custom = runtimes(cluster.client(), &ns);
    custom.patch("r", &manager, &Patch::Apply(&runtime("r"))).await.unwrap();
    let mut status = runtime("r");
    status.data = json!({"status": {"lastOperation": {"state": "Processing"}}});
    let patched = custom.patch_status("r", &manager, &Patch::Apply(&status)).await.unwrap();
    assert_eq!(patched.data["status"]["lastOperation"]["state"], "Processing");
    assert_eq!(patched.data["spec"]["type"], "gvisor");
}

pub(super) async fn optimistic_lock(cluster: &Cluster) {
    let ns = namespace(cluster, "lock").await;
    let api = runtimes(cluster.client(), &ns);
    let made = api.create(&PostParams::default(), &runtime("r")).await.unwrap();
    let patch = |mode: &str| {
        Patch::Merge(
            json!({"metadata": {"resourceVersion": made.resource_version()}, "spec": {"mode": mode}}),
        )
    };
    api.patch("r", &params(), &patch("a")).await.unwrap();
    assert_eq!(refused(api.patch("r", &params(), &patch("b")).await), (409, "Conflict".into()));
}

async fn send(
    client: Client,
    path: &str,
    content_type: &str,
    body: Value,
) -> kube::Result<DynamicObject> {
    let request = http::Request::patch(path)
        .header("content-type", content_type)
        .body(body.to_string().into_bytes())
        .unwrap();
    client.request(request).await
}
