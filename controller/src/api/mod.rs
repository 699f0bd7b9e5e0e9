//! Gardener's resources, as far as Rootstock reads and writes them.
//!
//! Status is written by merge patches only, so that a field of a newer
//! Gardener is never lost.

mod cluster;
mod container_runtime;
mod managed_resource;

pub use cluster::{Cluster, ClusterSpec};
pub use container_runtime::{
    Condition, ContainerRuntime, ContainerRuntimeSpec, ContainerRuntimeStatus, LastError,
    LastOperation, OperationState, OperationType, WorkerPool,
};
pub use managed_resource::{
    ManagedResource, ManagedResourceSpec, ManagedResourceStatus, SecretRef,
};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt as _;

/// The annotation by which Gardener asks for an operation.
pub const OPERATION: &str = "gardener.cloud/operation";
/// The finalizer of every ContainerRuntime extension.
pub const FINALIZER: &str = "extensions.gardener.cloud/containerruntime";
/// The Cluster's annotation that names the Secret with the shoot's kubeconfig.
pub const KUBECONFIG_SECRET: &str = "generic-token-kubeconfig.secret.gardener.cloud/name";

/// Whether somebody else wrote first.
pub(crate) fn is_conflict(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 409)
}

/// The definitions of the resources that Rootstock works with, made from its
/// own types: for tests and clusters without Gardener. In a landscape
/// Gardener's own are there.
pub fn definitions() -> [CustomResourceDefinition; 3] {
    [ContainerRuntime::crd(), Cluster::crd(), ManagedResource::crd()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_of_a_newer_gardener_is_read() {
        let operation = serde_json::json!({
            "type": "Teleport", "state": "Floating", "description": "", "progress": 1,
            "lastUpdateTime": "2026-01-01T00:00:00Z",
        });
        let operation: LastOperation = serde_json::from_value(operation).unwrap();
        assert_eq!(
            (operation.kind, operation.state),
            (OperationType::Other, OperationState::Other)
        );
    }

    #[test]
    fn definitions_have_what_kubectl_shows() {
        let [runtimes, clusters, _] = definitions();
        assert_eq!(runtimes.metadata.name.unwrap(), "containerruntimes.extensions.gardener.cloud");
        assert_eq!(runtimes.spec.names.short_names.unwrap(), ["cr"]);
        let version = &runtimes.spec.versions[0];
        assert!(version.subresources.as_ref().unwrap().status.is_some());
        let columns = version.additional_printer_columns.as_ref().unwrap();
        assert_eq!(columns[0].json_path, ".spec.type");
        assert_eq!(clusters.spec.scope, "Cluster");
        // Provider configurations are the runtimes' own.
        let schema = serde_json::to_value(version).unwrap();
        let provider = &schema["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["providerConfig"];
        assert_eq!(provider["x-kubernetes-preserve-unknown-fields"], true);
    }
}
