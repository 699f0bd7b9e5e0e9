//! Gardener's resources, as far as Rootstock reads and writes them.
//!
//! A field of a newer Gardener is never lost: all types keep what they do not
//! know, and status is written by merge patches only.

mod cluster;
mod container_runtime;
mod lean;
mod managed_resource;
mod write;

pub use cluster::{Cluster, ClusterSpec};
pub use container_runtime::{
    Condition, ContainerRuntime, ContainerRuntimeSpec, ContainerRuntimeStatus, LastError,
    LastOperation, OperationState, OperationType, WorkerPool,
};
pub(crate) use lean::Lean;
pub use managed_resource::{
    ManagedResource, ManagedResourceSpec, ManagedResourceStatus, SecretRef,
};
pub(crate) use write::{PATIENCE, WriteError};

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

/// Whether the object, or its namespace, is not there.
pub(crate) fn is_not_found(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 404)
}

/// Whether the API has no such kind at all: a server names the object that is
/// not there, and has no name to say where it knows no such path.
pub(crate) fn is_not_served(error: &kube::Error) -> bool {
    let kube::Error::Api(status) = error else { return false };
    status.code == 404 && status.details.as_ref().is_none_or(|about| about.name.is_empty())
}

/// Whether trying again may help: the request was in the way of another one,
/// or the API had no time or could not be reached.
pub(crate) fn is_transient(error: &kube::Error) -> bool {
    if let kube::Error::Api(status) = error {
        return matches!(status.code, 408 | 409 | 429 | 500..);
    }
    // The connection, or a timeout.
    matches!(
        error,
        kube::Error::HyperError(_) | kube::Error::Service(_) | kube::Error::ReadEvents(_)
    )
}

/// The definitions of the resources that Rootstock works with, made from its
/// own types: for tests and clusters without Gardener. In a landscape
/// Gardener's own are there.
pub fn definitions() -> [CustomResourceDefinition; 3] {
    [ContainerRuntime::crd(), Cluster::crd(), ManagedResource::crd()]
}

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests {
    use serde_json::json;

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
    fn unknown_fields_are_kept() {
        let time = "2026-01-01T00:00:00Z";
        let object = json!({
            "apiVersion": "extensions.gardener.cloud/v1alpha1",
            "kind": "ContainerRuntime",
            "metadata": {"name": "gvisor-a", "namespace": "shoot--garden--one"},
            "spec": {
                "type": "gvisor", "binaryPath": "/var/bin", "new": {"a": [1]},
                "providerConfig": {"kind": "K", "deep": {"er": null}},
                "workerPool": {"name": "a", "zones": ["z"],
                    "selector": {"matchLabels": {"a": "b"}, "matchFields": []}},
            },
            "status": {
                "new": true, "observedGeneration": 3, "state": {"version": 1},
                "resources": [{"name": "ca", "resourceRef": {"kind": "Secret", "name": "ca"}}],
                "conditions": [{"type": "T", "status": "True", "reason": "R", "message": "",
                    "lastTransitionTime": time, "lastUpdateTime": time, "new": 1}],
                "lastError": {"description": "d", "taskID": "t", "new": 1},
                "lastOperation": {"type": "Create", "state": "Succeeded", "description": "",
                    "progress": 100, "lastUpdateTime": time, "new": 1},
            },
        });
        let read: ContainerRuntime = serde_json::from_value(object.clone()).unwrap();
        assert_eq!(serde_json::to_value(read).unwrap(), object);

        let cluster = json!({
            "apiVersion": "extensions.gardener.cloud/v1alpha1", "kind": "Cluster",
            "metadata": {"name": "shoot--garden--one"},
            "spec": {"shoot": {"spec": {"new": 1}}, "cloudProfile": {}, "seed": {}, "new": {}},
        });
        let read: Cluster = serde_json::from_value(cluster.clone()).unwrap();
        assert_eq!(serde_json::to_value(read).unwrap(), cluster);
    }

    #[test]
    fn definitions_stay_structural() {
        let [runtimes, clusters, _] = definitions();
        for definition in [runtimes, clusters] {
            let schema = serde_json::to_value(&definition.spec.versions[0].schema).unwrap();
            let text = schema.to_string();
            for word in ["\"rest\"", "additionalProperties\":true", "unevaluatedProperties"] {
                assert!(!text.contains(word), "{word} in {text}");
            }
        }
    }

    #[test]
    fn a_missing_object_is_told_from_a_missing_kind() {
        let api = |status: serde_json::Value| {
            kube::Error::Api(serde_json::from_value::<kube::core::Status>(status).unwrap().boxed())
        };
        let details = json!({"name": "kube-apiserver", "kind": "gateways"});
        let missing = api(json!({"code": 404, "reason": "NotFound", "details": details}));
        assert!(is_not_found(&missing) && !is_not_served(&missing));
        // What kube makes of `404 page not found`, and what other servers say.
        for (reason, details) in [
            ("Failed to parse error data", json!(null)),
            ("NotFound", json!(null)),
            ("NotFound", json!({})),
        ] {
            let unknown = json!({"code": 404, "reason": reason, "details": details});
            assert!(is_not_served(&api(unknown)), "{reason} {details}");
        }
        assert!(!is_not_served(&api(json!({"code": 403, "reason": "Forbidden"}))));
    }

    #[test]
    fn what_may_pass_is_told_from_what_stays() {
        let api = |code: u16| {
            let status = kube::core::Status { code, ..kube::core::Status::default() };
            kube::Error::Api(Box::new(status))
        };
        for code in [408, 409, 429, 500, 502, 503, 504] {
            assert!(is_transient(&api(code)), "{code}");
        }
        for code in [400, 401, 403, 404, 410, 422] {
            assert!(!is_transient(&api(code)), "{code}");
        }
        let cut = std::io::Error::from(std::io::ErrorKind::ConnectionReset);
        assert!(is_transient(&kube::Error::Service(cut.into())));
    }

    #[test]
    fn a_shoot_that_moves_away_is_known_by_its_resources() {
        let table = [
            (Some("migrate"), None, true),
            (Some("migrate"), Some("Reconcile"), true),
            (None, Some("Migrate"), true),
            (Some("reconcile"), Some("Migrate"), true),
            (Some("wait-for-state"), Some("Migrate"), true),
            (Some("restore"), Some("Migrate"), false),
            (None, Some("Restore"), false),
            (None, None, false),
        ];
        for (asked, last, want) in table {
            let mut object = json!({
                "apiVersion": "extensions.gardener.cloud/v1alpha1", "kind": "ContainerRuntime",
                "metadata": {"name": "x", "annotations": {}}, "status": {},
                "spec": {"type": "gvisor", "binaryPath": "/", "workerPool": {"name": "a", "selector": {}}},
            });
            if let Some(asked) = asked {
                object["metadata"]["annotations"][OPERATION] = asked.into();
            }
            if let Some(last) = last {
                object["status"]["lastOperation"] = json!({"type": last, "state": "Processing",
                    "description": "", "progress": 1, "lastUpdateTime": "2026-01-01T00:00:00Z"});
            }
            let object: ContainerRuntime = serde_json::from_value(object).unwrap();
            assert_eq!(object.is_migrating(), want, "{asked:?} {last:?}");
        }
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
