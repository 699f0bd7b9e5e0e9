//! Events have two faces, `v1` and `events.k8s.io/v1`, and one store.
//!
//! They are stored as `v1`, which is what `kubectl describe` lists; kube's recorder
//! writes the other.

use serde_json::{Map, Value, json};

use super::{
    kinds::{EVENTS_GROUP, Kind},
    object::map,
};

/// (field of `events.k8s.io/v1`, field of `v1`).
const FIELDS: &[(&str, &str)] = &[
    ("regarding", "involvedObject"),
    ("note", "message"),
    ("reportingController", "reportingComponent"),
    ("deprecatedSource", "source"),
    ("deprecatedCount", "count"),
    ("deprecatedFirstTimestamp", "firstTimestamp"),
    ("deprecatedLastTimestamp", "lastTimestamp"),
];

fn newer(kind: &Kind) -> bool {
    kind.group == EVENTS_GROUP
}

/// From what the request's version says to what is stored.
pub(super) fn to_store(kind: &Kind, mut object: Value) -> Value {
    if newer(kind) {
        rename(map(&mut object), FIELDS.iter().map(|(new, old)| (*new, *old)));
        object["apiVersion"] = json!("v1");
    }
    object
}

/// From what is stored to what the request's version says.
pub(super) fn from_store(kind: &Kind, mut object: Value) -> Value {
    if newer(kind) {
        rename(map(&mut object), FIELDS.iter().map(|(new, old)| (*old, *new)));
        object["apiVersion"] = json!(kind.api_version());
    }
    object
}

fn rename<'a>(fields: &mut Map<String, Value>, names: impl Iterator<Item = (&'a str, &'a str)>) {
    for (from, to) in names {
        if let Some(value) = fields.remove(from) {
            fields.insert(to.to_owned(), value);
        }
    }
}
