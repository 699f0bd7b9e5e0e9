//! CRD schemas, as far as they keep objects honest: pruning, defaults, and a few checks.
//!
//! Checked are `type`, `required`, `enum`, `minLength`, `minimum`, `maximum`, `minItems`.
//! Patterns, formats and CEL rules are left to the real server.

use serde_json::{Map, Value};

/// Removes the fields that the schema does not know, and sets defaults.
///
/// `metadata`, `kind` and `apiVersion` of the object itself are not the schema's.
///
/// Gives the paths of what it removed.
pub(super) fn shape(schema: &Value, object: &mut Value) -> Vec<String> {
    let mut unknown = Vec::new();
    let Value::Object(fields) = object else { return unknown };
    let mut own = Map::new();
    for field in ["apiVersion", "kind", "metadata"] {
        if let Some(value) = fields.remove(field) {
            own.insert(field.to_owned(), value);
        }
    }
    prune(schema, object, "", &mut unknown);
    if let Value::Object(fields) = object {
        fields.extend(own);
    }
    unknown
}

fn prune(schema: &Value, value: &mut Value, path: &str, unknown: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            let extra = &schema["additionalProperties"];
            if schema["x-kubernetes-preserve-unknown-fields"] != true && !open(extra) {
                fields.retain(|field, _| {
                    let known = schema["properties"][field.as_str()].is_object();
                    if !known {
                        unknown.push(join(path, field));
                    }
                    known
                });
            }
            if let Some(properties) = schema["properties"].as_object() {
                for (field, property) in properties {
                    if !fields.contains_key(field) && !property["default"].is_null() {
                        fields.insert(field.clone(), property["default"].clone());
                    }
                }
            }
            for (field, value) in fields.iter_mut() {
                let property = &schema["properties"][field.as_str()];
                let path = join(path, field);
                if property.is_object() {
                    prune(property, value, &path, unknown);
                } else if extra.is_object() {
                    prune(extra, value, &path, unknown);
                }
            }
            // A null of a field that may not be null is an absent field.
            fields.retain(|field, value| {
                !value.is_null()
                    || schema["properties"][field.as_str()]["nullable"] == true
                    || !schema["properties"][field.as_str()].is_object()
            });
        }
        Value::Array(items) if schema["items"].is_object() => {
            for (index, item) in items.iter_mut().enumerate() {
                prune(&schema["items"], item, &format!("{path}[{index}]"), unknown);
            }
        }
        Value::Array(_) | Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn open(extra: &Value) -> bool {
    extra.is_object() || *extra == true
}

/// What is wrong with the object: (path, message).
pub(super) fn problems(schema: &Value, object: &Value) -> Vec<(String, String)> {
    let mut found = Vec::new();
    check(schema, object, "", &mut found);
    found
}

fn check(schema: &Value, value: &Value, path: &str, found: &mut Vec<(String, String)>) {
    if !schema.is_object() || (value.is_null() && schema["nullable"] == true) {
        return;
    }
    let mut report = |message: String| found.push((path.to_owned(), message));
    if let Some(expected) = schema["type"].as_str()
        && schema["x-kubernetes-int-or-string"] != true
        && !is(expected, value)
    {
        let shown = type_name(value);
        report(format!(
            "Invalid value: \"{shown}\": {path} in body must be of type {expected}: \"{shown}\""
        ));
        return;
    }
    if let Some(allowed) = schema["enum"].as_array()
        && !allowed.contains(value)
    {
        let list: Vec<_> = allowed.iter().map(Value::to_string).collect();
        report(format!("Unsupported value: {value}: supported values: {}", list.join(", ")));
    }
    if let (Some(least), Some(text)) = (schema["minLength"].as_u64(), value.as_str())
        && (text.chars().count() as u64) < least
    {
        report(format!(
            "Invalid value: {value}: {path} in body should be at least {least} chars long"
        ));
    }
    if let (Some(least), Some(items)) = (schema["minItems"].as_u64(), value.as_array())
        && (items.len() as u64) < least
    {
        report(format!(
            "Invalid value: {}: {path} in body should have at least {least} items",
            items.len()
        ));
    }
    if let Some(number) = value.as_f64() {
        if schema["minimum"].as_f64().is_some_and(|least| number < least) {
            report(format!(
                "Invalid value: {value}: {path} in body should be greater than or equal to {}",
                schema["minimum"]
            ));
        }
        if schema["maximum"].as_f64().is_some_and(|most| number > most) {
            report(format!(
                "Invalid value: {value}: {path} in body should be less than or equal to {}",
                schema["maximum"]
            ));
        }
    }
    match value {
        Value::Object(fields) => {
            for field in schema["required"].as_array().into_iter().flatten() {
                let field = field.as_str().unwrap_or_default();
                if !fields.contains_key(field) {
                    found.push((join(path, field), "Required value".to_owned()));
                }
            }
            for (field, value) in fields {
                let property = &schema["properties"][field.as_str()];
                let property =
                    if property.is_object() { property } else { &schema["additionalProperties"] };
                check(property, value, &join(path, field), found);
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                check(&schema["items"], item, &format!("{path}[{index}]"), found);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn join(path: &str, field: &str) -> String {
    if path.is_empty() { field.to_owned() } else { format!("{path}.{field}") }
}

fn is(expected: &str, value: &Value) -> bool {
    match expected {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        _ => true,
    }
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn schema() -> Value {
        json!({"type": "object", "required": ["spec"], "properties": {
            "spec": {"type": "object", "required": ["type"], "properties": {
                "type": {"type": "string", "minLength": 1},
                "mode": {"type": "string", "enum": ["a", "b"], "default": "a"},
                "count": {"type": "integer", "minimum": 1},
                "labels": {"type": "object", "additionalProperties": {"type": "string"}},
                "raw": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
            }},
        }})
    }

    #[test]
    fn unknown_fields_go_and_defaults_come() {
        let mut object = json!({"kind": "K", "metadata": {"name": "n"}, "other": 1,
            "spec": {"type": "x", "unknown": 1, "labels": {"l": "1"}, "raw": {"any": {"thing": 1}, "list": [{"a": 1}]}}});
        assert_eq!(shape(&schema(), &mut object), ["other", "spec.unknown"]);
        assert_eq!(
            object,
            json!({"kind": "K", "metadata": {"name": "n"},
                "spec": {"type": "x", "mode": "a", "labels": {"l": "1"}, "raw": {"any": {"thing": 1}, "list": [{"a": 1}]}}})
        );
    }

    #[test]
    fn problems_name_their_path() {
        for (object, path) in [
            (json!({}), "spec"),
            (json!({"spec": {}}), "spec.type"),
            (json!({"spec": {"type": 1}}), "spec.type"),
            (json!({"spec": {"type": ""}}), "spec.type"),
            (json!({"spec": {"type": "x", "mode": "c"}}), "spec.mode"),
            (json!({"spec": {"type": "x", "count": 0}}), "spec.count"),
            (json!({"spec": {"type": "x", "labels": {"l": 1}}}), "spec.labels.l"),
        ] {
            let found = problems(&schema(), &object);
            assert_eq!(found.len(), 1, "{object}: {found:?}");
            assert_eq!(found[0].0, path);
        }
        assert_eq!(problems(&schema(), &json!({"spec": {"type": "x", "count": 3}})), []);
    }
}
