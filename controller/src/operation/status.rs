//! How an operation is written, in Gardener's words.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::api::{OperationState, OperationType};

/// Gardener's code for what only the resource's owner can mend.
pub(super) const CONFIGURATION_PROBLEM: &str = "ERR_CONFIGURATION_PROBLEM";

/// An operation begins.
pub(super) fn processing(kind: OperationType, now: Timestamp) -> Value {
    let description = format!("{} the ContainerRuntime", words(kind).0);
    json!({"status": {"lastOperation": operation(kind, OperationState::Processing, 1, description, now)}})
}

/// An operation succeeded.
pub(super) fn succeeded(kind: OperationType, generation: Option<i64>, now: Timestamp) -> Value {
    let description = format!("Successfully {} ContainerRuntime", words(kind).1);
    json!({"status": {
        "observedGeneration": generation,
        "lastOperation": operation(kind, OperationState::Succeeded, 100, description, now),
        "lastError": null,
    }})
}

/// What an operation that failed says of itself, with a capital letter first,
/// as Gardener writes it.
pub(super) fn failure(kind: OperationType, why: &str) -> String {
    capital(&format!("Error {} ContainerRuntime: {why}", words(kind).2))
}

/// An operation failed.
pub(super) fn failed(
    kind: OperationType,
    generation: Option<i64>,
    why: &str,
    codes: &[&str],
    now: Timestamp,
) -> Value {
    let description = failure(kind, why);
    // An empty list is left out, as Gardener leaves it out.
    let codes = if codes.is_empty() { Value::Null } else { json!(codes) };
    json!({"status": {
        "observedGeneration": generation,
        "lastOperation": operation(kind, OperationState::Error, 50, description.clone(), now),
        "lastError": {
            "description": description, "codes": codes, "lastUpdateTime": seconds(now), "taskID": null,
        },
    }})
}

/// A time as Kubernetes writes it. It is cut, not rounded: Gardener compares
/// it with the second in which it asked.
fn seconds(now: Timestamp) -> String {
    now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

fn operation(
    kind: OperationType,
    state: OperationState,
    progress: i32,
    description: String,
    now: Timestamp,
) -> Value {
    json!({
        "type": kind,
        "state": state,
        "progress": progress,
        "description": description,
        "lastUpdateTime": seconds(now),
    })
}

/// The operation as it begins, when it is done, and when it failed.
fn words(kind: OperationType) -> (&'static str, &'static str, &'static str) {
    match kind {
        OperationType::Create | OperationType::Reconcile | OperationType::Other => {
            ("Reconciling", "reconciled", "reconciling")
        }
        OperationType::Delete => ("Deleting", "deleted", "deleting"),
        OperationType::Migrate | OperationType::LiveMigrate => {
            ("Migrating", "migrated", "migrating")
        }
        OperationType::Restore => ("Restoring", "restored", "restoring"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_are_gardeners() {
        let now: Timestamp = "2026-11-23T10:00:00.987Z".parse().unwrap();
        let status = processing(OperationType::Create, now);
        let operation = &status["status"]["lastOperation"];
        assert_eq!(operation["description"], "Reconciling the ContainerRuntime");
        assert_eq!(operation["lastUpdateTime"], "2026-11-23T10:00:00Z");
        assert_eq!(
            (&operation["progress"], &operation["state"]),
            (&json!(1), &json!("Processing"))
        );
        // A beginning says nothing of the generation or the last error.
        assert_eq!(status["status"].as_object().unwrap().len(), 1);

        let status = &succeeded(OperationType::Delete, Some(3), now)["status"];
        assert_eq!(status["lastOperation"]["description"], "Successfully deleted ContainerRuntime");
        assert_eq!(
            (&status["observedGeneration"], &status["lastError"]),
            (&json!(3), &Value::Null)
        );

        let codes = [CONFIGURATION_PROBLEM];
        let status = &failed(OperationType::Reconcile, Some(1), "no", &codes, now)["status"];
        assert_eq!(status["lastError"]["description"], "Error reconciling ContainerRuntime: no");
        assert_eq!(status["lastError"]["codes"], json!(["ERR_CONFIGURATION_PROBLEM"]));
        assert_eq!(status["lastOperation"]["progress"], 50);
        let status = &failed(OperationType::Migrate, Some(1), "no", &[], now)["status"];
        assert_eq!(status["lastError"]["codes"], Value::Null, "left out");
        assert_eq!(capital("état"), "État");
    }
}
