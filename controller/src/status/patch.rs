//! From what a status says to what it should say: one merge patch.

use serde_json::{Map, Value};

/// The merge patch (RFC 7386) that makes `after` of `before`; none where they
/// are the same. A list is replaced whole. `null` is the same as nothing, for
/// a merge patch can't write it.
pub(crate) fn diff(before: &Value, after: &Value) -> Option<Value> {
    let (Value::Object(old), Value::Object(new)) = (before, after) else {
        return (before != after).then(|| after.clone());
    };
    let there = |of: &Map<String, Value>, key: &str| of.get(key).is_some_and(|v| !v.is_null());
    let gone = old.keys().filter(|key| there(old, key) && !there(new, key));
    let mut patch: Map<String, Value> = gone.map(|key| (key.clone(), Value::Null)).collect();
    for (key, value) in new.iter().filter(|(_, value)| !value.is_null()) {
        let change = match old.get(key).filter(|old| !old.is_null()) {
            Some(old) => diff(old, value),
            None => Some(value.clone()),
        };
        patch.extend(change.map(|change| (key.clone(), change)));
    }
    (!patch.is_empty()).then_some(Value::Object(patch))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_what_differs_is_in_a_patch() {
        let table = [
            (json!({"a": 1, "b": {"c": 2}}), json!({"a": 1, "b": {"c": 2}}), None),
            (json!({"a": 1}), json!({"a": 2}), Some(json!({"a": 2}))),
            (json!({"a": 1}), json!({}), Some(json!({"a": null}))),
            (
                json!({"b": {"c": 1, "d": 1}}),
                json!({"b": {"c": 1}}),
                Some(json!({"b": {"d": null}})),
            ),
            (json!({}), json!({"b": {"c": 1}}), Some(json!({"b": {"c": 1}}))),
            (json!({"l": [1, 2]}), json!({"l": [1]}), Some(json!({"l": [1]}))),
            (json!({"b": 1}), json!({"b": {"c": 1}}), Some(json!({"b": {"c": 1}}))),
            (json!({"a": null}), json!({}), None),
            (json!({}), json!({"a": null}), None),
        ];
        for (before, after, want) in table {
            assert_eq!(diff(&before, &after), want, "{before} -> {after}");
        }
    }
}
