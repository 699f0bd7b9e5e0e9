//! How an operation is written, in Gardener's words.

use jiff::Timestamp;
use kube::ResourceExt as _;
use serde_json::{Value, json};

use crate::api::{ContainerRuntime, OperationState, OperationType};

/// The annotation with the time at which Gardener has asked.
const TIMESTAMP: &str = "gardener.cloud/timestamp";

/// Gardener's code for what only the resource's owner can mend.
pub(super) const CONFIGURATION_PROBLEM: &str = "ERR_CONFIGURATION_PROBLEM";

/// When Gardener has last asked, to the second: it compares seconds.
pub(super) fn asked_at(object: &ContainerRuntime) -> Option<Timestamp> {
    let asked: Timestamp = object.annotations().get(TIMESTAMP)?.parse().ok()?;
    Timestamp::from_second(asked.as_second()).ok()
}

/// The time to write: never before Gardener has asked, or it would wait for a
/// later one for ever. Its clock may be ahead of ours.
pub(super) fn time(object: &ContainerRuntime, now: Timestamp) -> Timestamp {
    asked_at(object).map_or(now, |asked| asked.max(now))
}

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
    use crate::operation::fixture::object;

    #[test]
    fn no_time_is_before_the_second_in_which_gardener_asked() {
        let now = "2026-11-23T10:00:00.5Z";
        let table = [
            (json!({}), now),
            (json!({TIMESTAMP: "2026-11-23T09:59:59.999999999Z"}), now),
            (json!({TIMESTAMP: "2026-11-23T10:00:00.9Z"}), now),
            (json!({TIMESTAMP: "2026-11-23T10:00:03.123456789Z"}), "2026-11-23T10:00:03Z"),
            (json!({TIMESTAMP: "2026-11-23T12:00:03.1+02:00"}), "2026-11-23T10:00:03Z"),
            (json!({TIMESTAMP: "yesterday"}), now),
        ];
        for (annotations, want) in table {
            let object = object(json!({"annotations": annotations}), Value::Null);
            let [now, want]: [Timestamp; 2] = [now, want].map(|text| text.parse().unwrap());
            assert_eq!(time(&object, now), want, "{annotations}");
        }
    }

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
