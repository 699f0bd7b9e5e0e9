//! When a resource's status may be written at all.

use jiff::{SignedDuration, Timestamp};

use crate::api::{ContainerRuntime, OperationState, OperationType};

/// How long an operation may be under way: Gardener bounds a reconcile to
/// three minutes. One that is older was given up, and does not hold the
/// conditions back for ever.
const OPERATION_BOUND: SignedDuration = SignedDuration::from_mins(4);

/// Whether a status may be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gate {
    /// It may.
    Open,
    /// Not before the resource changes.
    Closed,
    /// Not before the resource changes, or until then.
    Until(Timestamp),
}

/// Conditions come after an operation's own writes, and never to a resource
/// that is on its way out.
pub(super) fn gate(object: &ContainerRuntime) -> Gate {
    if object.metadata.deletion_timestamp.is_some() {
        return Gate::Closed;
    }
    if matches!(object.asked(), Some("migrate" | "restore" | "wait-for-state")) {
        return Gate::Closed;
    }
    let last = object.last_operation().filter(|last| last.kind != OperationType::Migrate);
    let Some(last) = last else { return Gate::Closed };
    if last.state != OperationState::Processing {
        return Gate::Open;
    }
    last.last_update_time.checked_add(OPERATION_BOUND).map_or(Gate::Open, Gate::Until)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::api::OPERATION;

    #[test]
    fn conditions_come_after_the_operation() {
        let time = "2026-01-01T00:00:00Z";
        let until = Gate::Until("2026-01-01T00:04:00Z".parse().unwrap());
        let none = Value::Null;
        let table = [
            (json!(["Create", "Succeeded"]), none.clone(), false, Gate::Open),
            (json!(["Create", "Error"]), none.clone(), false, Gate::Open),
            (json!(["Restore", "Succeeded"]), none.clone(), false, Gate::Open),
            (json!(["Reconcile", "Succeeded"]), json!("reconcile"), false, Gate::Open),
            (none.clone(), none.clone(), false, Gate::Closed),
            (json!(["Create", "Processing"]), none.clone(), false, until),
            (json!(["Reconcile", "Succeeded"]), none.clone(), true, Gate::Closed),
            (json!(["Reconcile", "Succeeded"]), json!("migrate"), false, Gate::Closed),
            (json!(["Migrate", "Succeeded"]), none.clone(), false, Gate::Closed),
            (json!(["Migrate", "Succeeded"]), json!("restore"), false, Gate::Closed),
            (json!(["Restore", "Succeeded"]), json!("restore"), false, Gate::Closed),
            (none, json!("wait-for-state"), false, Gate::Closed),
        ];
        for (last, asked, deleted, want) in table {
            let mut object = json!({
                "metadata": {"name": "x", "annotations": {}},
                "spec": {"type": "gvisor", "binaryPath": "/", "workerPool": {"name": "a", "selector": {}}},
                "status": {},
            });
            if let Value::Array(words) = &last {
                object["status"]["lastOperation"] = json!({"type": words[0], "state": words[1],
                    "progress": 1, "description": "", "lastUpdateTime": time});
            }
            if deleted {
                object["metadata"]["deletionTimestamp"] = time.into();
            }
            if asked.is_string() {
                object["metadata"]["annotations"][OPERATION] = asked.clone();
            }
            let object: ContainerRuntime = serde_json::from_value(object).unwrap();
            assert_eq!(gate(&object), want, "{last} {asked} {deleted}");
        }
    }
}
