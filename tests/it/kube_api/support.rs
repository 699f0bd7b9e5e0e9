//! What the cases share.

use k8s_openapi::api::core::v1::Namespace;
use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject, PostParams},
    core::GroupVersionKind,
};
use rootstock_playground::kube::{Cluster, Options};
use serde_json::{Value, json};

/// A cluster with one CRD, a small ContainerRuntime.
pub(super) fn options(dir: &tempfile::TempDir) -> Options {
    Options {
        name: "conformance".to_owned(),
        dir: dir.path().to_owned(),
        crds: vec![container_runtime_crd()],
    }
}

fn container_runtime_crd() -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "containerruntimes.extensions.gardener.cloud"},
        "spec": {
            "group": "extensions.gardener.cloud", "scope": "Namespaced",
            "names": {"plural": "containerruntimes", "singular": "containerruntime", "kind": "ContainerRuntime",
                "listKind": "ContainerRuntimeList", "shortNames": ["cr"]},
            "versions": [{
                "name": "v1alpha1", "served": true, "storage": true, "subresources": {"status": {}},
                "additionalPrinterColumns": [
                    {"name": "Type", "type": "string", "jsonPath": ".spec.type"},
                    {"name": "Status", "type": "string", "jsonPath": ".status.lastOperation.state"},
                    {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
                ],
                "schema": {"openAPIV3Schema": {"type": "object", "required": ["spec"], "properties": {
                    "spec": {"type": "object", "required": ["type", "binaryPath"], "properties": {
                        "type": {"type": "string", "minLength": 1},
                        "binaryPath": {"type": "string"},
                        "mode": {"type": "string", "enum": ["a", "b"]},
                        "workerPool": {"type": "object", "properties": {
                            "name": {"type": "string"},
                            "selector": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}},
                    }},
                    "status": {"type": "object", "properties": {
                        "observedGeneration": {"type": "integer", "format": "int64"},
                        "lastOperation": {"type": "object", "properties": {"state": {"type": "string"}}},
                        "conditions": {"type": "array", "items": {"type": "object", "properties": {
                            "type": {"type": "string"}, "status": {"type": "string"}}}},
                    }},
                }}},
            }],
        },
    })
}

/// A namespace of the case's own.
pub(super) async fn namespace(cluster: &Cluster, name: &str) -> String {
    let namespace = serde_json::from_value(json!({"metadata": {"name": name}})).unwrap();
    let api: Api<Namespace> = Api::all(cluster.client());
    api.create(&PostParams::default(), &namespace).await.unwrap();
    name.to_owned()
}

pub(super) fn resource() -> ApiResource {
    let gvk = GroupVersionKind::gvk("extensions.gardener.cloud", "v1alpha1", "ContainerRuntime");
    ApiResource::from_gvk(&gvk)
}

/// ContainerRuntimes of a namespace.
pub(super) fn runtimes(client: Client, namespace: &str) -> Api<DynamicObject> {
    Api::namespaced_with(client, namespace, &resource())
}

/// A ContainerRuntime.
pub(super) fn runtime(name: &str) -> DynamicObject {
    from(json!({
        "apiVersion": "extensions.gardener.cloud/v1alpha1", "kind": "ContainerRuntime",
        "metadata": {"name": name},
        "spec": {"type": "gvisor", "binaryPath": "/var/bin/containerruntimes", "workerPool": {"name": "a"}},
    }))
}

pub(super) fn from<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

/// The code and reason of a refusal.
pub(super) fn refused<T: std::fmt::Debug>(result: kube::Result<T>) -> (u16, String) {
    let error = result.unwrap_err();
    let kube::Error::Api(status) = error else { panic!("no answer of the API: {error:?}") };
    (status.code, status.reason.clone())
}

/// A pod that a DaemonSet might have made.
pub(super) fn pod(
    name: &str,
    node: Option<&str>,
    account: &str,
) -> k8s_openapi::api::core::v1::Pod {
    let mut pod = json!({"metadata": {"name": name, "labels": {"app": "agent"}},
        "spec": {"serviceAccountName": account, "containers": [{"name": "agent", "image": "agent"}]}});
    if let Some(node) = node {
        pod["spec"]["nodeName"] = json!(node);
    }
    from(pod)
}

/// A ready node.
pub(super) fn node(name: &str) -> k8s_openapi::api::core::v1::Node {
    from(json!({"metadata": {"name": name, "labels": {"worker.gardener.cloud/pool": "a"}},
        "status": {"conditions": [{"type": "Ready", "status": "True"}], "nodeInfo": {
            "kubeletVersion": "v1.33.1", "architecture": "amd64", "bootID": "", "containerRuntimeVersion": "containerd://2.1.9",
            "kernelVersion": "", "kubeProxyVersion": "", "machineID": "", "operatingSystem": "linux", "osImage": "", "systemUUID": ""}}}))
}
