//! Small looks into objects, which are plain JSON here.

use jiff::Timestamp;
use serde_json::{Map, Value};

/// A text field of `metadata`, or "" where it is absent.
pub(super) fn meta<'a>(object: &'a Value, field: &str) -> &'a str {
    object["metadata"][field].as_str().unwrap_or_default()
}

/// `metadata`, made where it is absent.
///
/// What is no object becomes one: a body is checked to be an object when it is read.
pub(super) fn meta_mut(object: &mut Value) -> &mut Map<String, Value> {
    map(child(object, "metadata"))
}

/// The field of an object, made where it is absent.
pub(super) fn child<'a>(object: &'a mut Value, field: &str) -> &'a mut Value {
    map(object).entry(field).or_insert(Value::Null)
}

/// The value as an object; what is none is replaced by an empty one.
#[expect(clippy::expect_used, reason = "it is made an object on the line above")]
pub(super) fn map(value: &mut Value) -> &mut Map<String, Value> {
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    value.as_object_mut().expect("an object")
}

/// Sets a field, or removes it where there is no value.
pub(super) fn set(object: &mut Map<String, Value>, field: &str, value: Option<Value>) {
    match value {
        Some(value) => drop(object.insert(field.to_owned(), value)),
        None => drop(object.remove(field)),
    }
}

/// The finalizers that hold an object back.
pub(super) fn finalizers(object: &Value) -> Vec<&str> {
    let list = object["metadata"]["finalizers"].as_array();
    list.map_or_else(Vec::new, |list| list.iter().filter_map(Value::as_str).collect())
}

/// Whether the object waits for its finalizers or its kubelet.
pub(super) fn terminating(object: &Value) -> bool {
    object["metadata"]["deletionTimestamp"].is_string()
}

/// A time as Kubernetes writes it: whole seconds, UTC.
pub(super) fn time(now: Timestamp) -> String {
    now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
