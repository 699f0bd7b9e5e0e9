//! `ContainerRuntime`: one runtime type on one worker pool.

use jiff::Timestamp;
use kube::CustomResource;
use rootstock_core::selector::SelectorSpec;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::OPERATION;

/// What gardenlet asks for.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "extensions.gardener.cloud",
    version = "v1alpha1",
    kind = "ContainerRuntime",
    namespaced,
    shortname = "cr",
    status = "ContainerRuntimeStatus",
    printcolumn = r#"{"name":"Type","type":"string","jsonPath":".spec.type","description":"The runtime type."}"#,
    printcolumn = r#"{"name":"Status","type":"string","jsonPath":".status.lastOperation.state","description":"The state of the last operation."}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct ContainerRuntimeSpec {
    /// The runtime type: `gvisor`.
    #[serde(rename = "type")]
    pub runtime: String,
    /// The extension class; `shoot` where it is not set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "immutable_text")]
    pub class: Option<String>,
    /// The runtime's own settings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "any_object")]
    pub provider_config: Option<Value>,
    /// The folder on the node where entry points are placed.
    pub binary_path: String,
    /// The worker pool.
    pub worker_pool: WorkerPool,
    /// Fields of a newer Gardener, kept as they are.
    #[serde(flatten)]
    #[schemars(skip)]
    pub rest: Map<String, Value>,
}

impl ContainerRuntime {
    /// What Gardener asks for by its annotation.
    pub fn asked(&self) -> Option<&str> {
        let annotations = self.metadata.annotations.as_ref()?;
        annotations.get(OPERATION).map(String::as_str)
    }

    /// The last operation, where there was one.
    pub fn last_operation(&self) -> Option<&LastOperation> {
        self.status.as_ref()?.last_operation.as_ref()
    }

    /// Whether the resource leaves this seed, or has left it: until it is
    /// restored, nothing is done for its shoot here.
    pub fn is_migrating(&self) -> bool {
        match self.asked() {
            Some("migrate") => true,
            Some("restore") => false,
            Some(_) | None => {
                self.last_operation().is_some_and(|last| last.kind == OperationType::Migrate)
            }
        }
    }
}

/// Which nodes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WorkerPool {
    /// The pool's name.
    pub name: String,
    /// The labels of its nodes.
    #[schemars(schema_with = "label_selector")]
    pub selector: SelectorSpec,
    /// Fields of a newer Gardener, kept as they are.
    #[serde(flatten)]
    #[schemars(skip)]
    pub rest: Map<String, Value>,
}

/// What an extension answers. Everything is optional.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ContainerRuntimeStatus {
    /// How it goes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// The last error, until an operation succeeds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<LastError>,
    /// The last operation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_operation: Option<LastOperation>,
    /// The generation that the last operation was about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// More of it, for people and tools.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "any_object")]
    pub provider_status: Option<Value>,
    /// What a move to another seed needs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "any_object")]
    pub state: Option<Value>,
    /// Objects that move along.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "any_list")]
    pub resources: Option<Value>,
    /// Fields of a newer Gardener, kept as they are.
    #[serde(flatten)]
    #[schemars(skip)]
    pub rest: Map<String, Value>,
}

/// Gardener's own condition: with codes and the time of the last look.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// Its type.
    #[serde(rename = "type")]
    pub kind: String,
    /// `True`, `False`, `Unknown` or `Progressing`.
    pub status: String,
    /// When the status last changed.
    #[schemars(schema_with = "date_time")]
    pub last_transition_time: Timestamp,
    /// When anything in it last changed.
    #[schemars(schema_with = "date_time")]
    pub last_update_time: Timestamp,
    /// A CamelCase word.
    pub reason: String,
    /// For people.
    pub message: String,
    /// Gardener's error codes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub codes: Vec<String>,
    /// Fields of a newer Gardener, kept as they are.
    #[serde(flatten)]
    #[schemars(skip)]
    pub rest: Map<String, Value>,
}

/// The last error.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LastError {
    /// What went wrong.
    pub description: String,
    /// Gardener's error codes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub codes: Vec<String>,
    /// The task that failed.
    #[serde(default, rename = "taskID", skip_serializing_if = "Option::is_none")]
    pub task_id: Option<String>,
    /// When.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "date_time")]
    pub last_update_time: Option<Timestamp>,
    /// Fields of a newer Gardener, kept as they are.
    #[serde(flatten)]
    #[schemars(skip)]
    pub rest: Map<String, Value>,
}

/// The last operation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LastOperation {
    /// What was done, in words.
    pub description: String,
    /// When.
    #[schemars(schema_with = "date_time")]
    pub last_update_time: Timestamp,
    /// Percent.
    pub progress: i32,
    /// How it went.
    #[schemars(with = "String")]
    pub state: OperationState,
    /// What was done.
    #[serde(rename = "type")]
    #[schemars(with = "String")]
    pub kind: OperationType,
    /// Fields of a newer Gardener, kept as they are.
    #[serde(flatten)]
    #[schemars(skip)]
    pub rest: Map<String, Value>,
}

/// How an operation went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OperationState {
    /// It is under way.
    Processing,
    /// It succeeded.
    Succeeded,
    /// It failed and is tried again.
    Error,
    /// It failed for good.
    Failed,
    /// It waits.
    Pending,
    /// It was given up.
    Aborted,
    /// A word of a newer Gardener: one resource that has it must not make all
    /// unreadable.
    #[serde(other)]
    Other,
}

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OperationType {
    /// The first time.
    Create,
    /// Every later time.
    Reconcile,
    /// The end.
    Delete,
    /// The shoot leaves this seed.
    Migrate,
    /// The shoot arrived from another seed.
    Restore,
    /// The shoot moves while it runs.
    LiveMigrate,
    /// A word of a newer Gardener.
    #[serde(other)]
    Other,
}

pub(super) fn any_object(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})
}

fn immutable_text(_: &mut SchemaGenerator) -> Schema {
    let rule = serde_json::json!([{"rule": "self == oldSelf", "message": "Value is immutable"}]);
    json_schema!({"type": "string", "x-kubernetes-validations": rule})
}

pub(super) fn any_list(_: &mut SchemaGenerator) -> Schema {
    let item = serde_json::json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    json_schema!({"type": "array", "items": item})
}

fn date_time(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "format": "date-time"})
}

/// A selector is kept as it is: a malformed one is answered by a condition,
/// not by a resource that can't be read.
fn label_selector(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "x-kubernetes-map-type": "atomic",
        "properties": {
            "matchLabels": {"type": "object", "additionalProperties": {"type": "string"}},
            "matchExpressions": {"type": "array", "items": {
                "type": "object",
                "required": ["key", "operator"],
                "properties": {
                    "key": {"type": "string"},
                    "operator": {"type": "string"},
                    "values": {"type": "array", "items": {"type": "string"}},
                },
            }},
        },
    })
}
