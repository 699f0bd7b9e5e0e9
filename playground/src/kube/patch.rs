//! Patches as pure functions: merge (RFC 7386), JSON (RFC 6902), strategic and apply.
//!
//! Strategic patches come from `kubectl edit` and `kubectl apply` of built-in
//! kinds. The lists that these kinds merge by a key are named in [`MERGE_KEYS`];
//! every other list is replaced. Apply is a merge: fields that an earlier apply
//! set and this one leaves out stay, and no manager owns anything.

use serde_json::{Map, Value};

use super::object::map;

/// The body of a PATCH request.
#[derive(Debug)]
pub(super) enum Patch {
    Merge(Value),
    Json(json_patch::Patch),
    Strategic(Value),
    Apply(Value),
}

/// Lists of objects that strategic patches merge: (field, the key of its items).
const MERGE_KEYS: &[(&str, &str)] = &[
    ("conditions", "type"),
    ("addresses", "type"),
    ("containers", "name"),
    ("initContainers", "name"),
    ("volumes", "name"),
    ("env", "name"),
    ("volumeMounts", "mountPath"),
    ("imagePullSecrets", "name"),
    ("secrets", "name"),
    ("ownerReferences", "uid"),
];

/// Lists of texts that strategic patches merge as sets.
const SETS: &[&str] = &["finalizers"];

impl Patch {
    /// Gives the patched object.
    ///
    /// # Errors
    /// A JSON patch whose test fails or whose path is absent, as a sentence.
    pub(super) fn apply(&self, object: &Value) -> Result<Value, String> {
        let mut patched = object.clone();
        match self {
            Self::Merge(patch) | Self::Apply(patch) => json_patch::merge(&mut patched, patch),
            Self::Strategic(patch) => strategic(&mut patched, patch),
            Self::Json(patch) => {
                json_patch::patch(&mut patched, patch).map_err(|error| error.to_string())?;
            }
        }
        Ok(patched)
    }
}

fn strategic(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    match patch.get("$patch").and_then(Value::as_str) {
        Some("replace") => {
            *target = Value::Object(without_directives(patch));
            return;
        }
        Some("delete") => {
            *target = Value::Object(Map::new());
            return;
        }
        _ => {}
    }
    let target = map(target);
    for (field, value) in patch {
        if let Some(list) = field.strip_prefix("$deleteFromPrimitiveList/") {
            if let (Some(Value::Array(kept)), Some(gone)) = (target.get_mut(list), value.as_array())
            {
                kept.retain(|item| !gone.contains(item));
            }
        } else if field.starts_with('$') {
            // Directives on the order of lists and on retained keys: order carries no meaning in
            // these kinds, and what a patch wants gone it names.
        } else if value.is_null() {
            target.remove(field);
        } else {
            let old = target.entry(field.clone()).or_insert(Value::Null);
            merge_field(field, old, value);
        }
    }
}

fn merge_field(field: &str, old: &mut Value, patch: &Value) {
    let merge_key = MERGE_KEYS.iter().find(|(name, _)| *name == field).map(|(_, key)| *key);
    match (patch, merge_key) {
        (Value::Array(items), Some(key)) => merge_list(old, items, key),
        (Value::Array(items), None) if SETS.contains(&field) => {
            let mut list = old.as_array().cloned().unwrap_or_default();
            list.extend(
                items.iter().filter(|item| !list.contains(item)).cloned().collect::<Vec<_>>(),
            );
            *old = Value::Array(list);
        }
        (Value::Object(_), _) => strategic(old, patch),
        (
            Value::Array(_) | Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_),
            _,
        ) => *old = patch.clone(),
    }
}

fn merge_list(old: &mut Value, items: &[Value], key: &str) {
    let mut list = old.as_array().cloned().unwrap_or_default();
    if items.iter().any(|item| item["$patch"] == "replace") {
        list.clear();
    }
    for item in items {
        let same = |other: &Value| !item[key].is_null() && other[key] == item[key];
        match item["$patch"].as_str() {
            Some("replace") => {}
            Some("delete") => list.retain(|other| !same(other)),
            _ => match list.iter_mut().find(|other| same(other)) {
                Some(other) => strategic(other, item),
                None => {
                    let mut new = Value::Object(Map::new());
                    strategic(&mut new, item);
                    list.push(new);
                }
            },
        }
    }
    *old = Value::Array(list);
}

fn without_directives(patch: &Map<String, Value>) -> Map<String, Value> {
    patch
        .iter()
        .filter(|(key, _)| !key.starts_with('$'))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn merge_and_apply() {
        let object = json!({"a": {"b": 1, "c": 2}, "list": [1, 2]});
        let patch = json!({"a": {"b": null, "d": 3}, "list": [3]});
        let expected = json!({"a": {"c": 2, "d": 3}, "list": [3]});
        assert_eq!(Patch::Merge(patch.clone()).apply(&object), Ok(expected.clone()));
        assert_eq!(Patch::Apply(patch).apply(&object), Ok(expected));
    }

    #[test]
    fn json() {
        let object = json!({"metadata": {"finalizers": ["x", "y"]}});
        let patch = |value: Value| Patch::Json(serde_json::from_value(value).unwrap());
        let good = patch(json!([
            {"op": "test", "path": "/metadata/finalizers/0", "value": "x"},
            {"op": "remove", "path": "/metadata/finalizers/0"},
            {"op": "add", "path": "/metadata/labels", "value": {"a": "b"}},
        ]));
        assert_eq!(
            good.apply(&object),
            Ok(json!({"metadata": {"finalizers": ["y"], "labels": {"a": "b"}}}))
        );
        for bad in [
            json!([{"op": "test", "path": "/metadata/finalizers/0", "value": "other"}]),
            json!([{"op": "remove", "path": "/metadata/absent"}]),
        ] {
            assert!(patch(bad).apply(&object).is_err());
        }
    }

    #[test]
    fn strategic_lists() {
        let object = json!({"metadata": {"finalizers": ["a", "b"], "labels": {"x": "1"}},
            "spec": {"taints": [{"key": "k1"}]},
            "status": {"addresses": [{"type": "Hostname", "address": "n"}, {"type": "InternalIP", "address": "10.0.0.1"}],
                "conditions": [{"type": "Ready", "status": "False"}, {"type": "DiskPressure", "status": "False"}]}});
        let patch = json!({
            "metadata": {"labels": {"x": null, "y": "2"}, "finalizers": ["c"],
                "$setElementOrder/finalizers": ["b", "c"], "$deleteFromPrimitiveList/finalizers": ["a"]},
            "spec": {"taints": [{"key": "k2"}]},
            "status": {"conditions": [{"type": "Ready", "status": "True"}],
                "$setElementOrder/addresses": [{"type": "InternalIP"}, {"type": "ExternalIP"}],
                "addresses": [{"type": "Hostname", "$patch": "delete"}, {"type": "ExternalIP", "address": "1.2.3.4"}]},
        });
        let patched = Patch::Strategic(patch).apply(&object).unwrap();
        let finalizers = patched["metadata"]["finalizers"].as_array().unwrap();
        let mut finalizers: Vec<_> = finalizers.iter().map(|name| name.as_str().unwrap()).collect();
        finalizers.sort_unstable();
        assert_eq!(finalizers, ["b", "c"]);
        assert_eq!(patched["metadata"]["labels"], json!({"y": "2"}));
        assert_eq!(patched["spec"], json!({"taints": [{"key": "k2"}]}));
        assert_eq!(
            patched["status"],
            json!({"addresses": [{"type": "InternalIP", "address": "10.0.0.1"}, {"type": "ExternalIP", "address": "1.2.3.4"}],
                "conditions": [{"type": "Ready", "status": "True"}, {"type": "DiskPressure", "status": "False"}]})
        );
    }

    #[test]
    fn strategic_directives_replace() {
        let object = json!({"data": {"a": "1", "b": "2"}, "spec": {"volumes": [{"name": "k"}]}});
        let patch = json!({"data": {"$patch": "replace", "c": "3"},
            "spec": {"volumes": [{"$patch": "replace"}, {"name": "z"}]}});
        assert_eq!(
            Patch::Strategic(patch).apply(&object),
            Ok(json!({"data": {"c": "3"}, "spec": {"volumes": [{"name": "z"}]}}))
        );
    }
}
