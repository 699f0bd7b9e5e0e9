//! Which operation is due, by Gardener's rules.

use crate::api::{ContainerRuntime, FINALIZER, OperationState, OperationType};

/// What is to be done with a resource whose turn it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// Nothing, and nothing is written.
    Nothing,
    /// Nothing, but a reconciliation that was asked for is acknowledged.
    Skipped,
    /// An operation.
    Operation(OperationType),
}

/// Whether Gardener asks for an operation now. Other words in the annotation
/// are for others, who take them off.
pub(super) fn is_asked_for(object: &ContainerRuntime) -> bool {
    matches!(object.asked(), Some("reconcile" | "restore" | "migrate"))
}

/// Whether the annotation asks for a reconciliation.
pub(super) fn is_reconcile_asked_for(object: &ContainerRuntime) -> bool {
    object.asked() == Some("reconcile")
}

/// Whether the last operation has succeeded.
pub(super) fn is_done(object: &ContainerRuntime) -> bool {
    object.last_operation().is_some_and(|last| last.state == OperationState::Succeeded)
}

/// Whether the resource has this controller's finalizer.
pub(super) fn has_finalizer(object: &ContainerRuntime) -> bool {
    let finalizers = object.metadata.finalizers.as_ref();
    finalizers.is_some_and(|all| all.iter().any(|finalizer| finalizer == FINALIZER))
}

/// Which operation is due.
pub(super) fn due(object: &ContainerRuntime) -> Due {
    // Gardener's wrapper looks at this before everything else: also at a
    // resource that is being deleted.
    if object.asked() == Some("wait-for-state") {
        return Due::Nothing;
    }
    let kind = kind(object);
    let migrated = is_done(object)
        && object.last_operation().is_some_and(|last| last.kind == OperationType::Migrate);
    match kind {
        OperationType::Migrate | OperationType::Restore => Due::Operation(kind),
        // It belongs to another seed.
        _ if migrated => Due::Skipped,
        OperationType::Delete if !has_finalizer(object) => Due::Skipped,
        OperationType::Create
        | OperationType::Reconcile
        | OperationType::Delete
        | OperationType::LiveMigrate
        | OperationType::Other => Due::Operation(kind),
    }
}

/// The first that holds, in Gardener's order.
fn kind(object: &ContainerRuntime) -> OperationType {
    if object.asked() == Some("migrate") {
        return OperationType::Migrate;
    }
    if object.metadata.deletion_timestamp.is_some() {
        return OperationType::Delete;
    }
    if object.asked() == Some("restore") {
        return OperationType::Restore;
    }
    let Some(last) = object.last_operation() else { return OperationType::Create };
    let unfinished = last.state != OperationState::Succeeded;
    match last.kind {
        OperationType::Create | OperationType::Migrate | OperationType::Restore if unfinished => {
            last.kind
        }
        OperationType::Create
        | OperationType::Reconcile
        | OperationType::Delete
        | OperationType::Migrate
        | OperationType::Restore
        | OperationType::LiveMigrate
        | OperationType::Other => OperationType::Reconcile,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::api::OPERATION;
    use crate::operation::fixture::object;

    fn last(kind: &str, state: &str) -> Value {
        json!({"observedGeneration": 1, "lastOperation": {
            "type": kind, "state": state, "description": "", "progress": 1,
            "lastUpdateTime": "2026-01-01T00:00:00Z"}})
    }

    #[test]
    fn operations_by_gardeners_rules() {
        use OperationType::{Create, Delete, Migrate, Reconcile, Restore};
        let plain = || json!({});
        let annotated = |value: &str| json!({"annotations": {OPERATION: value}});
        let deleted = |finalizer: &str, value: &str| {
            json!({"deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": [finalizer],
                   "annotations": {OPERATION: value}})
        };
        let done = || last("Create", "Succeeded");
        let table = [
            (plain(), Value::Null, Due::Operation(Create)),
            (annotated("reconcile"), Value::Null, Due::Operation(Create)),
            (plain(), last("Create", "Processing"), Due::Operation(Create)),
            (plain(), last("Create", "Dreaming"), Due::Operation(Create)),
            (plain(), done(), Due::Operation(Reconcile)),
            (annotated("reconcile"), done(), Due::Operation(Reconcile)),
            (annotated("keepalive"), done(), Due::Operation(Reconcile)),
            (json!({"generation": 2}), done(), Due::Operation(Reconcile)),
            (plain(), last("Reconcile", "Error"), Due::Operation(Reconcile)),
            (plain(), last("Delete", "Error"), Due::Operation(Reconcile)),
            (plain(), last("Teleport", "Succeeded"), Due::Operation(Reconcile)),
            (annotated("wait-for-state"), Value::Null, Due::Nothing),
            (annotated("wait-for-state"), last("Migrate", "Succeeded"), Due::Nothing),
            (deleted(FINALIZER, "wait-for-state"), done(), Due::Nothing),
            (annotated("migrate"), done(), Due::Operation(Migrate)),
            (annotated("migrate"), last("Migrate", "Succeeded"), Due::Operation(Migrate)),
            (deleted(FINALIZER, "migrate"), done(), Due::Operation(Migrate)),
            (plain(), last("Migrate", "Error"), Due::Operation(Migrate)),
            (plain(), last("Migrate", "Succeeded"), Due::Skipped),
            (annotated("reconcile"), last("Migrate", "Succeeded"), Due::Skipped),
            (deleted(FINALIZER, ""), last("Migrate", "Succeeded"), Due::Skipped),
            (annotated("restore"), Value::Null, Due::Operation(Restore)),
            (annotated("restore"), last("Migrate", "Succeeded"), Due::Operation(Restore)),
            (plain(), last("Restore", "Processing"), Due::Operation(Restore)),
            (plain(), last("Restore", "Succeeded"), Due::Operation(Reconcile)),
            (deleted(FINALIZER, ""), done(), Due::Operation(Delete)),
            (deleted(FINALIZER, "restore"), last("Restore", "Error"), Due::Operation(Delete)),
            (deleted(FINALIZER, "reconcile"), last("Migrate", "Error"), Due::Operation(Delete)),
            (deleted("other", ""), done(), Due::Skipped),
        ];
        for (metadata, status, want) in table {
            let object = object(metadata, status);
            assert_eq!(due(&object), want, "{object:?}");
        }
    }
}
