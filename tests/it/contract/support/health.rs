//! Whether gardenlet takes an extension's resource for ready, in its own order.

use jiff::{RoundMode, Timestamp, TimestampRound, Unit};
use serde_json::Value;

/// By this annotation gardenlet asks for an operation.
pub(crate) const OPERATION: &str = "gardener.cloud/operation";
/// And by this one it tells when.
pub(crate) const TIMESTAMP: &str = "gardener.cloud/timestamp";

/// Why a resource is not ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum NotReady {
    /// It shows an error, with its codes.
    Error(String, Vec<String>),
    /// It is not there yet, for this reason.
    Yet(String),
}

/// gardenlet's `CheckExtensionObject`.
pub(crate) fn check(object: &Value) -> Result<(), NotReady> {
    let yet = |why: String| Err(NotReady::Yet(why));
    let status = &object["status"];
    if let Some(error) = status["lastError"].as_object() {
        let codes = error.get("codes").and_then(Value::as_array).cloned().unwrap_or_default();
        let codes = codes.iter().filter_map(|code| code.as_str().map(str::to_owned)).collect();
        let text = error.get("description").and_then(Value::as_str).unwrap_or_default();
        return Err(NotReady::Error(text.to_owned(), codes));
    }
    let (observed, generation) = (&status["observedGeneration"], &object["metadata"]["generation"]);
    if observed != generation {
        return yet(format!("observed generation outdated ({observed}/{generation})"));
    }
    if let Some(operation) = annotation(object, OPERATION) {
        return yet(format!("gardener operation {operation:?} is not yet picked up"));
    }
    let last = &status["lastOperation"];
    if !last.is_object() {
        return yet("no last operation is recorded yet".to_owned());
    }
    if last["state"] != "Succeeded" {
        return yet(format!("extension state is not succeeded but {}", last["state"]));
    }
    if let Some(asked) = annotation(object, TIMESTAMP) {
        let cut = TimestampRound::new().smallest(Unit::Second).mode(RoundMode::Trunc);
        let asked: Timestamp = asked.parse().expect("gardenlet's own timestamp");
        let asked = asked.round(cut).unwrap();
        let updated = last["lastUpdateTime"].as_str().unwrap_or_default();
        let updated: Timestamp = updated.parse().expect("lastUpdateTime is a time");
        if asked > updated {
            return yet(format!("not reconciled yet: asked at {asked}, last update {updated}"));
        }
    }
    Ok(())
}

/// The value of an annotation.
pub(crate) fn annotation<'a>(object: &'a Value, name: &str) -> Option<&'a str> {
    object["metadata"]["annotations"].get(name)?.as_str()
}
