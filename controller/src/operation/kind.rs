//! Which operation is due, by Gardener's rules.

use kube::ResourceExt as _;

use crate::api::{ContainerRuntime, FINALIZER, OPERATION, OperationState, OperationType};

/// What is to be done with a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// Nothing.
    Nothing,
    /// An operation.
    Operation(OperationType),
    /// An operation that this version does not know; it is left to one that does.
    Unknown,
}

/// Whether someone asks for an operation now.
pub(super) fn is_asked(object: &ContainerRuntime) -> bool {
    object.annotations().contains_key(OPERATION)
}

/// Which operation is due.
///
/// Beside Gardener's own triggers (the annotation, a deletion, an operation
/// that has not succeeded) a changed spec is one, so that `kubectl edit` shows
/// its effect.
pub(super) fn due(object: &ContainerRuntime) -> Due {
    let status = object.status.as_ref();
    let last = status.and_then(|status| status.last_operation.as_ref());
    let annotation = object.annotations().get(OPERATION).map(String::as_str);
    if matches!(annotation, Some("migrate" | "restore")) {
        return Due::Unknown;
    }
    if object.metadata.deletion_timestamp.is_some() {
        return match object.finalizers().iter().any(|finalizer| finalizer == FINALIZER) {
            true => Due::Operation(OperationType::Delete),
            false => Due::Nothing,
        };
    }
    if annotation == Some("wait-for-state") {
        return Due::Nothing;
    }
    let Some(last) = last else { return Due::Operation(OperationType::Create) };
    let done = last.state == OperationState::Succeeded;
    let kind = match last.kind {
        OperationType::Create if !done => OperationType::Create,
        // After a migration the resource belongs to another seed.
        OperationType::Migrate if done => return Due::Nothing,
        OperationType::Migrate | OperationType::Restore if !done => return Due::Unknown,
        OperationType::Create
        | OperationType::Reconcile
        | OperationType::Delete
        | OperationType::Migrate
        | OperationType::Restore
        | OperationType::LiveMigrate
        | OperationType::Other => OperationType::Reconcile,
    };
    let observed = status.and_then(|status| status.observed_generation);
    let changed = observed != object.metadata.generation;
    let asked = annotation == Some("reconcile");
    if asked || changed || !done { Due::Operation(kind) } else { Due::Nothing }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn object(metadata: Value, status: Value) -> ContainerRuntime {
        let mut object = json!({
            "apiVersion": "extensions.gardener.cloud/v1alpha1",
            "kind": "ContainerRuntime",
            "metadata": metadata,
            "spec": {"type": "gvisor", "binaryPath": "/var/bin/containerruntimes",
                     "workerPool": {"name": "a", "selector": {}}},
        });
        if !status.is_null() {
            object["status"] = status;
        }
        serde_json::from_value(object).unwrap()
    }

    fn last(kind: &str, state: &str) -> Value {
        json!({"observedGeneration": 1, "lastOperation": {
            "type": kind, "state": state, "description": "", "progress": 1,
            "lastUpdateTime": "2026-01-01T00:00:00Z"}})
    }

    #[test]
    fn operations_by_gardeners_rules() {
        use OperationType::{Create, Delete, Reconcile};
        let plain = || json!({"generation": 1});
        let annotated = |value: &str| json!({"generation": 1, "annotations": {OPERATION: value}});
        let deleted = |finalizers: Value| json!({"generation": 1, "deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": finalizers});
        let table = [
            (plain(), Value::Null, Due::Operation(Create)),
            (annotated("reconcile"), Value::Null, Due::Operation(Create)),
            (annotated("wait-for-state"), Value::Null, Due::Nothing),
            (annotated("migrate"), last("Reconcile", "Succeeded"), Due::Unknown),
            (plain(), last("Create", "Processing"), Due::Operation(Create)),
            (plain(), last("Create", "Succeeded"), Due::Nothing),
            (plain(), last("Reconcile", "Error"), Due::Operation(Reconcile)),
            (plain(), last("Migrate", "Succeeded"), Due::Nothing),
            (annotated("reconcile"), last("Migrate", "Succeeded"), Due::Nothing),
            (plain(), last("Restore", "Processing"), Due::Unknown),
            (annotated("reconcile"), last("Create", "Succeeded"), Due::Operation(Reconcile)),
            (json!({"generation": 2}), last("Create", "Succeeded"), Due::Operation(Reconcile)),
            (deleted(json!([FINALIZER])), last("Create", "Succeeded"), Due::Operation(Delete)),
            (deleted(json!(["other"])), last("Create", "Succeeded"), Due::Nothing),
        ];
        for (metadata, status, want) in table {
            let object = object(metadata, status);
            assert_eq!(due(&object), want, "{object:?}");
        }
    }
}
