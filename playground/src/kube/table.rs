//! What `kubectl get` shows: a `Table` made by the server, kind by kind.

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Value, json};

/// The columns of a kind between NAME and AGE, or all but NAME for a CRD that names its own.
#[derive(Debug, Clone)]
pub(super) enum Columns {
    BuiltIn(&'static [Column]),
    Custom(Arc<[CustomColumn]>),
}

/// A column of a built-in kind.
#[derive(Debug)]
pub(super) struct Column {
    name: &'static str,
    kind: &'static str,
    /// 0 is always shown, 1 with `-o wide`.
    priority: u8,
    cell: fn(&Value) -> Value,
}

/// A column of a CRD.
#[derive(Debug)]
pub(super) struct CustomColumn {
    name: String,
    kind: String,
    priority: u64,
    path: String,
}

const fn text(name: &'static str, cell: fn(&Value) -> Value) -> Column {
    Column { name, kind: "string", priority: 0, cell }
}

const fn wide(name: &'static str, cell: fn(&Value) -> Value) -> Column {
    Column { name, kind: "string", priority: 1, cell }
}

const fn number(name: &'static str, cell: fn(&Value) -> Value) -> Column {
    Column { name, kind: "integer", priority: 0, cell }
}

pub(super) const NAME: Columns = Columns::BuiltIn(&[]);
pub(super) const NAMESPACE: Columns =
    Columns::BuiltIn(&[text("Status", |o| o["status"]["phase"].clone())]);
pub(super) const NODE: Columns = Columns::BuiltIn(&[
    text("Status", node_status),
    text("Roles", node_roles),
    text("Age", |o| age(&o["metadata"]["creationTimestamp"])),
    text("Version", |o| o["status"]["nodeInfo"]["kubeletVersion"].clone()),
    wide("OS-Image", |o| o["status"]["nodeInfo"]["osImage"].clone()),
    wide("Container-Runtime", |o| o["status"]["nodeInfo"]["containerRuntimeVersion"].clone()),
]);
pub(super) const POD: Columns = Columns::BuiltIn(&[
    text("Ready", pod_ready),
    text("Status", pod_status),
    text("Restarts", pod_restarts),
    text("Age", |o| age(&o["metadata"]["creationTimestamp"])),
    wide("IP", |o| or_none(&o["status"]["podIP"])),
    wide("Node", |o| or_none(&o["spec"]["nodeName"])),
]);
pub(super) const SECRET: Columns =
    Columns::BuiltIn(&[text("Type", |o| o["type"].clone()), number("Data", |o| size(&o["data"]))]);
pub(super) const CONFIG_MAP: Columns = Columns::BuiltIn(&[number("Data", |o| size(&o["data"]))]);
pub(super) const RUNTIME_CLASS: Columns =
    Columns::BuiltIn(&[text("Handler", |o| o["handler"].clone())]);
pub(super) const LEASE: Columns =
    Columns::BuiltIn(&[text("Holder", |o| o["spec"]["holderIdentity"].clone())]);
pub(super) const DAEMON_SET: Columns = Columns::BuiltIn(&[
    number("Desired", |o| count(&o["status"]["desiredNumberScheduled"])),
    number("Current", |o| count(&o["status"]["currentNumberScheduled"])),
    number("Ready", |o| count(&o["status"]["numberReady"])),
    number("Up-to-date", |o| count(&o["status"]["updatedNumberScheduled"])),
    number("Available", |o| count(&o["status"]["numberAvailable"])),
]);
pub(super) const EVENT: Columns = Columns::BuiltIn(&[
    text("Last Seen", |o| {
        let seen = ["lastTimestamp", "eventTime", "firstTimestamp", "deprecatedLastTimestamp"];
        seen.iter()
            .map(|field| &o[*field])
            .find(|time| time.is_string())
            .map_or_else(|| json!("<unknown>"), age)
    }),
    text("Type", |o| o["type"].clone()),
    text("Reason", |o| o["reason"].clone()),
    text("Object", |o| {
        let about =
            if o["involvedObject"].is_object() { &o["involvedObject"] } else { &o["regarding"] };
        let part = |field: &str| about[field].as_str().unwrap_or_default().to_owned();
        json!(format!("{}/{}", part("kind").to_lowercase(), part("name")))
    }),
    text("Message", |o| {
        if o["message"].is_string() { o["message"].clone() } else { o["note"].clone() }
    }),
]);

impl Columns {
    /// The `additionalPrinterColumns` of a CRD's version.
    pub(super) fn of_crd(columns: &Value) -> Self {
        let Some(columns) = columns.as_array() else { return NAME };
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let column = |column: &Value| CustomColumn {
            name: text(&column["name"]),
            kind: text(&column["type"]),
            priority: column["priority"].as_u64().unwrap_or_default(),
            path: text(&column["jsonPath"]),
        };
        Self::Custom(columns.iter().map(column).collect())
    }

    fn definitions(&self) -> Vec<Value> {
        let definition = |name: &str, kind: &str, format: &str, priority: u64| json!({"name": name, "type": kind, "format": format, "description": name, "priority": priority});
        let mut all = vec![definition("Name", "string", "name", 0)];
        match self {
            Self::BuiltIn(columns) => {
                all.extend(columns.iter().map(|column| {
                    definition(column.name, column.kind, "", column.priority.into())
                }));
                if !columns.iter().any(|column| matches!(column.name, "Age" | "Last Seen")) {
                    all.push(definition("Age", "string", "", 0));
                }
            }
            Self::Custom(columns) => all.extend(
                columns
                    .iter()
                    .map(|column| definition(&column.name, &column.kind, "", column.priority)),
            ),
        }
        all
    }

    fn cells(&self, object: &Value) -> Vec<Value> {
        let mut cells = vec![object["metadata"]["name"].clone()];
        match self {
            Self::BuiltIn(columns) => {
                cells.extend(columns.iter().map(|column| (column.cell)(object)));
                if !columns.iter().any(|column| matches!(column.name, "Age" | "Last Seen")) {
                    cells.push(age(&object["metadata"]["creationTimestamp"]));
                }
            }
            Self::Custom(columns) => cells.extend(columns.iter().map(|column| {
                let value = lookup(object, &column.path);
                if column.kind == "date" { age(value) } else { value.clone() }
            })),
        }
        cells
    }
}

/// A Table of some objects; `whole` puts the objects into the rows, else their metadata alone.
pub(super) fn table(
    columns: &Columns,
    objects: &[Arc<Value>],
    metadata: &Value,
    whole: bool,
    headers: bool,
) -> Value {
    let rows: Vec<_> = objects
        .iter()
        .map(|object| {
            let inner = if whole { Value::clone(object) } else { partial(object) };
            json!({"cells": columns.cells(object), "object": inner})
        })
        .collect();
    let definitions = if headers { json!(columns.definitions()) } else { json!(null) };
    json!({"kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": metadata,
        "columnDefinitions": definitions, "rows": rows})
}

/// The object's metadata alone.
pub(super) fn partial(object: &Value) -> Value {
    json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": object["metadata"]})
}

/// A JSON path of a CRD column: `.a.b`, `.a['b.c']`, `.a[0]`, `.a[?(@.type=="X")].b`, `\.` in names.
fn lookup<'a>(object: &'a Value, path: &str) -> &'a Value {
    let (mut value, mut rest) = (object, path);
    while !rest.is_empty() {
        if let Some(inside) = rest.strip_prefix('[') {
            let Some((step, after)) = inside.split_once(']') else { return &Value::Null };
            value = indexed(value, step);
            rest = after;
            continue;
        }
        rest = rest.strip_prefix('.').unwrap_or(rest);
        let mut name = String::new();
        let mut escaped = false;
        let mut end = rest.len();
        for (at, c) in rest.char_indices() {
            match c {
                '\\' if !escaped => escaped = true,
                '.' | '[' if !escaped => {
                    end = at;
                    break;
                }
                other => {
                    name.push(other);
                    escaped = false;
                }
            }
        }
        value = &value[name.as_str()];
        rest = &rest[end..];
    }
    value
}

fn indexed<'a>(value: &'a Value, step: &str) -> &'a Value {
    let quoted = |text: &str| text.trim().trim_matches(['"', '\'']).to_owned();
    if let Some(filter) = step.strip_prefix("?(@.").and_then(|rest| rest.strip_suffix(')')) {
        let Some((field, wanted)) = filter.split_once("==") else { return &Value::Null };
        let (field, wanted) = (field.trim().to_owned(), quoted(wanted));
        let mut items = value.as_array().into_iter().flatten();
        return items.find(|item| item[field.as_str()] == wanted.as_str()).unwrap_or(&Value::Null);
    }
    match step.parse::<usize>() {
        Ok(index) => &value[index],
        Err(_) => &value[quoted(step).as_str()],
    }
}

/// How long ago, as kubectl says it: `45s`, `12m`, `3h5m`, `4d`.
fn age(time: &Value) -> Value {
    let Some(then) = time.as_str().and_then(|text| text.parse::<Timestamp>().ok()) else {
        return if time.is_null() { Value::Null } else { json!("<invalid>") };
    };
    let seconds = Timestamp::now().as_second().saturating_sub(then.as_second()).max(0);
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
    json!(match seconds {
        0..120 => format!("{seconds}s"),
        120..600 if seconds % 60 != 0 => format!("{minutes}m{}s", seconds % 60),
        120..10_800 => format!("{minutes}m"),
        10_800..28_800 if minutes % 60 != 0 => format!("{hours}h{}m", minutes % 60),
        10_800..172_800 => format!("{hours}h"),
        172_800..691_200 if hours % 24 != 0 => format!("{days}d{}h", hours % 24),
        _ => format!("{days}d"),
    })
}

fn size(map: &Value) -> Value {
    json!(map.as_object().map_or(0, serde_json::Map::len))
}

fn count(number: &Value) -> Value {
    json!(number.as_u64().unwrap_or_default())
}

fn or_none(value: &Value) -> Value {
    if value.is_null() { json!("<none>") } else { value.clone() }
}

fn node_status(node: &Value) -> Value {
    let mut conditions = node["status"]["conditions"].as_array().into_iter().flatten();
    let status =
        conditions.find(|condition| condition["type"] == "Ready").map_or("Unknown", |ready| {
            match ready["status"].as_str() {
                Some("True") => "Ready",
                _ => "NotReady",
            }
        });
    let cordoned = if node["spec"]["unschedulable"] == true { ",SchedulingDisabled" } else { "" };
    json!(format!("{status}{cordoned}"))
}

fn node_roles(node: &Value) -> Value {
    let labels = node["metadata"]["labels"].as_object();
    let roles: Vec<_> = labels
        .into_iter()
        .flat_map(|labels| labels.keys())
        .filter_map(|key| key.strip_prefix("node-role.kubernetes.io/"))
        .collect();
    if roles.is_empty() { json!("<none>") } else { json!(roles.join(",")) }
}

fn pod_ready(pod: &Value) -> Value {
    let statuses = pod["status"]["containerStatuses"].as_array().map_or(&[][..], Vec::as_slice);
    let total = pod["spec"]["containers"].as_array().map_or(0, Vec::len);
    let ready = statuses.iter().filter(|status| status["ready"] == true).count();
    json!(format!("{ready}/{total}"))
}

fn pod_status(pod: &Value) -> Value {
    if pod["metadata"]["deletionTimestamp"].is_string() {
        return json!("Terminating");
    }
    let reason = &pod["status"]["reason"];
    if reason.is_string() { reason.clone() } else { pod["status"]["phase"].clone() }
}

fn pod_restarts(pod: &Value) -> Value {
    let statuses = pod["status"]["containerStatuses"].as_array().into_iter().flatten();
    let restarts: u64 = statuses.filter_map(|status| status["restartCount"].as_u64()).sum();
    json!(restarts.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_columns() {
        let object = json!({"spec": {"type": "gvisor", "list": [1, 2]},
            "metadata": {"annotations": {"a.b/c": "x"}},
            "status": {"conditions": [{"type": "A", "status": "False"}, {"type": "B", "status": "True"}]}});
        for (path, expected) in [
            (".spec.type", json!("gvisor")),
            ("spec.type", json!("gvisor")),
            (".spec.list[1]", json!(2)),
            (r#".status.conditions[?(@.type=="B")].status"#, json!("True")),
            (r#".status.conditions[?(@.type=='C')].status"#, json!(null)),
            (r".metadata.annotations.a\.b/c", json!("x")),
            (".metadata.annotations['a.b/c']", json!("x")),
            (".absent.thing", json!(null)),
        ] {
            assert_eq!(*lookup(&object, path), expected, "{path}");
        }
    }

    #[test]
    fn nodes() {
        let node = json!({"metadata": {"name": "n", "labels": {"node-role.kubernetes.io/worker": ""}},
            "spec": {"unschedulable": true},
            "status": {"conditions": [{"type": "Ready", "status": "True"}], "nodeInfo": {"kubeletVersion": "v1.33.0"}}});
        let made = table(&NODE, &[Arc::new(node)], &json!({}), false, true);
        let headers: Vec<_> = made["columnDefinitions"]
            .as_array()
            .unwrap()
            .iter()
            .map(|c| c["name"].as_str().unwrap())
            .collect();
        assert_eq!(headers[..5], ["Name", "Status", "Roles", "Age", "Version"]);
        let cells = &made["rows"][0]["cells"];
        assert_eq!(
            (&cells[0], &cells[1], &cells[2], &cells[4]),
            (&json!("n"), &json!("Ready,SchedulingDisabled"), &json!("worker"), &json!("v1.33.0"))
        );
        assert_eq!(made["rows"][0]["object"]["kind"], "PartialObjectMetadata");
    }
}
