//! What containerd makes of a configuration, before and after our edit.
//!
//! `containerd config dump` prints the whole of it: imports merged, defaults
//! filled in. Only the handlers that we set or take out may differ.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use crate::name::HandlerName;

/// The plugins that hold runtimes, by the configuration's version.
const PLUGINS: [&str; 3] = ["cri", "io.containerd.grpc.v1.cri", "io.containerd.cri.v1.runtime"];

/// A key that would change although it is not ours.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key} would change from {before} to {after}")]
pub struct ForeignChange {
    /// The dotted key.
    pub key: String,
    /// Its value now, shortened; `nothing` where it is not there.
    pub before: String,
    /// Its value then.
    pub after: String,
}

/// The first key beside these handlers' tables that differs between two dumps.
pub fn foreign_change(
    before: &Map<String, Value>,
    after: &Map<String, Value>,
    ours: &BTreeSet<HandlerName>,
) -> Option<ForeignChange> {
    differ(&mut Vec::new(), Some(&without(before, ours)), Some(&without(after, ours)))
}

/// The handlers that a dump has tables for.
pub fn handlers(dump: &Map<String, Value>) -> BTreeSet<HandlerName> {
    let of = |plugin: &&str| {
        let plugin = dump.get("plugins")?.get(*plugin)?;
        plugin.get("containerd")?.get("runtimes")?.as_object()
    };
    PLUGINS.iter().filter_map(of).flat_map(Map::keys).filter_map(|name| name.parse().ok()).collect()
}

fn without(dump: &Map<String, Value>, ours: &BTreeSet<HandlerName>) -> Value {
    let mut dump = Value::Object(dump.clone());
    for plugin in PLUGINS {
        let runtimes = dump.get_mut("plugins").and_then(|at| at.get_mut(plugin));
        let runtimes = runtimes.and_then(|at| at.get_mut("containerd")?.get_mut("runtimes"));
        if let Some(runtimes) = runtimes.and_then(Value::as_object_mut) {
            runtimes.retain(|name, _| !ours.iter().any(|handler| handler.as_str() == name));
        }
    }
    dump
}

fn differ<'a>(
    path: &mut Vec<&'a str>,
    before: Option<&'a Value>,
    after: Option<&'a Value>,
) -> Option<ForeignChange> {
    match (before, after) {
        (Some(Value::Object(one)), Some(Value::Object(other))) => {
            let keys: BTreeSet<&String> = one.keys().chain(other.keys()).collect();
            keys.into_iter().find_map(|key| {
                path.push(key);
                let found = differ(path, one.get(key), other.get(key));
                path.pop();
                found
            })
        }
        // A table that holds nothing is as good as none: parents are made for one key.
        (None, Some(Value::Object(table))) | (Some(Value::Object(table)), None)
            if table.values().all(is_hollow) =>
        {
            None
        }
        _ if before == after => None,
        _ => Some(ForeignChange { key: dotted(path), before: show(before), after: show(after) }),
    }
}

fn is_hollow(value: &Value) -> bool {
    value.as_object().is_some_and(|table| table.values().all(is_hollow))
}

fn dotted(path: &[&str]) -> String {
    let quoted = path.iter().map(|part| match part.contains('.') {
        true => format!("\"{part}\""),
        false => (*part).to_owned(),
    });
    quoted.collect::<Vec<_>>().join(".")
}

/// A value for people: what is long is cut.
fn show(value: Option<&Value>) -> String {
    const LONGEST: usize = 80;
    let Some(value) = value else { return "nothing".to_owned() };
    let text = value.to_string();
    match text.char_indices().nth(LONGEST) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn dump(value: Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    fn with(runtimes: Value, image: &str) -> Map<String, Value> {
        dump(json!({"version": 2, "plugins": {"io.containerd.grpc.v1.cri": {
            "sandbox_image": image, "containerd": {"runtimes": runtimes}}}}))
    }

    #[test]
    fn our_handlers_may_differ_and_nothing_else() {
        let ours = ["runsc".parse().unwrap()].into();
        let runc = json!({"runtime_type": "io.containerd.runc.v2"});
        let before = with(json!({"runc": runc}), "pause:3.9");
        let after = with(json!({"runc": runc, "runsc": {"runtime_type": "x"}}), "pause:3.9");
        assert_eq!(foreign_change(&before, &after, &ours), None);
        assert_eq!(foreign_change(&after, &before, &ours), None);
        assert_eq!(handlers(&after).len(), 2);
        // What a drop-in does to containerd before 2.0.
        let replaced = with(json!({"runsc": {}}), "default");
        let changed = foreign_change(&before, &replaced, &ours).unwrap();
        let key = "plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.runc";
        assert_eq!((changed.key.as_str(), changed.after.as_str()), (key, "nothing"));
        let other = foreign_change(&before, &with(json!({"runc": runc}), "other"), &ours).unwrap();
        let want = "plugins.\"io.containerd.grpc.v1.cri\".sandbox_image would change from \"pause:3.9\" to \"other\"";
        assert_eq!(other.to_string(), want);
    }

    #[test]
    fn parents_without_content_are_no_change() {
        let none = BTreeSet::new();
        let made = dump(json!({"plugins": {"cri": {"containerd": {"runtimes": {}}}}}));
        assert_eq!(foreign_change(&Map::new(), &made, &none), None);
        assert_eq!(foreign_change(&made, &Map::new(), &none), None);
        let value = dump(json!({"plugins": {"cri": {"x": 1}}}));
        assert!(foreign_change(&made, &value, &none).is_some());
    }
}
