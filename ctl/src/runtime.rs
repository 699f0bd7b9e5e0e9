//! One ContainerRuntime, read from whatever version wrote it.

use jiff::Timestamp;
use kube::api::DynamicObject;
use rootstock_core::rollout::record::Command;
use rootstock_core::runtime_status::{RolloutPhase, RuntimeStatus};
use rootstock_core::state::State;
use serde_json::{Value, json};

use crate::api::ROLLOUT;

/// One ContainerRuntime.
#[derive(Clone, Debug)]
pub(crate) struct Runtime {
    pub(crate) namespace: String,
    pub(crate) name: String,
    /// Its runtime type.
    pub(crate) kind: String,
    pub(crate) pool: String,
    pub(crate) deleting: bool,
    /// What somebody asks of its rollout, and the controller has not taken up.
    pub(crate) asked: Option<String>,
    pub(crate) operation: Option<Operation>,
    pub(crate) last_error: Option<String>,
    pub(crate) conditions: Vec<Condition>,
    /// What the controller wrote; none where it wrote nothing that can be read.
    pub(crate) status: Option<RuntimeStatus>,
    /// What is recorded of its rollout; none where it can't be read.
    state: Option<State>,
    /// Its status as it was written.
    raw: Value,
}

/// What Gardener asked for last.
#[derive(Clone, Debug)]
pub(crate) struct Operation {
    pub(crate) kind: String,
    pub(crate) state: String,
    pub(crate) description: String,
    pub(crate) at: Option<Timestamp>,
}

/// What the controller says of one thing.
#[derive(Clone, Debug)]
pub(crate) struct Condition {
    pub(crate) kind: String,
    pub(crate) status: String,
    pub(crate) reason: String,
    pub(crate) message: String,
    pub(crate) since: Option<Timestamp>,
}

impl Runtime {
    /// Nothing in an object is needed but its name: what is not there, or is of
    /// another form, is not shown.
    pub(crate) fn read(object: &DynamicObject) -> Self {
        let metadata = &object.metadata;
        let asked = metadata.annotations.as_ref().and_then(|all| all.get(ROLLOUT));
        let status = object.data.get("status").cloned().unwrap_or_default();
        let operation = &status["lastOperation"];
        let conditions = status["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
        Self {
            namespace: metadata.namespace.clone().unwrap_or_default(),
            name: metadata.name.clone().unwrap_or_default(),
            kind: text(&object.data["spec"]["type"]),
            pool: text(&object.data["spec"]["workerPool"]["name"]),
            deleting: metadata.deletion_timestamp.is_some(),
            asked: asked.filter(|asked| !asked.is_empty()).cloned(),
            operation: operation.is_object().then(|| Operation {
                kind: text(&operation["type"]),
                state: text(&operation["state"]),
                description: text(&operation["description"]),
                at: time(&operation["lastUpdateTime"]),
            }),
            last_error: status["lastError"]["description"].as_str().map(str::to_owned),
            conditions: conditions.iter().map(Condition::read).collect(),
            status: RuntimeStatus::read(status.get("providerStatus")),
            state: State::parse(status.get("state")).ok(),
            raw: status,
        }
    }

    /// Namespace and name.
    pub(crate) fn path(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }

    /// The document for scripts.
    pub(crate) fn to_json(&self) -> Value {
        let mut json = json!({
            "namespace": self.namespace, "name": self.name, "type": self.kind, "pool": self.pool,
        });
        let mut add = |key: &str, value: Value| {
            if !value.is_null() {
                json[key] = value;
            }
        };
        add("deleting", if self.deleting { true.into() } else { Value::Null });
        add("asked", json!(self.asked));
        for key in ["lastOperation", "lastError", "conditions", "providerStatus"] {
            add(key, self.raw[key].clone());
        }
        json
    }

    /// Why there is nothing of Rootstock's in it, as far as that can be told.
    pub(crate) fn unsaid(&self) -> &'static str {
        let nobody = self.operation.is_none() && self.last_error.is_none();
        if !self.raw["providerStatus"].is_null() {
            "of another extension, or of another version of Rootstock than this command's"
        } else if nobody && self.conditions.is_empty() {
            "no controller has said anything yet"
        } else {
            "nothing of Rootstock's yet; perhaps it is another extension's"
        }
    }

    /// What somebody may ask of its rollout that would change something; none
    /// where that is not known.
    pub(crate) fn can(&self) -> Option<Vec<Command>> {
        if self.deleting {
            return Some(Vec::new());
        }
        // What was asked for and not taken up may change anything.
        if self.asked.is_some() {
            return None;
        }
        match &self.status.as_ref()?.rollout {
            Some(rollout) => rollout.phase.as_ref().map(|_| rollout.can.clone()),
            // Nothing is under way: what is recorded says what may be.
            None => {
                let state = self.state.as_ref()?;
                let mut can = vec![if state.paused { Command::Resume } else { Command::Pause }];
                if !(state.held.is_empty() && state.aborted.is_empty()) {
                    can.push(Command::Retry);
                }
                Some(can)
            }
        }
    }

    /// Whether its rollout does not go on before somebody does something.
    pub(crate) fn stands(&self) -> bool {
        let rollout = self.status.as_ref().and_then(|status| status.rollout.as_ref());
        rollout.and_then(|rollout| rollout.phase.as_ref()).is_some_and(|phase| match phase {
            RolloutPhase::Halted | RolloutPhase::Stopped | RolloutPhase::PromotedFails => true,
            RolloutPhase::Unread
            | RolloutPhase::Deleting
            | RolloutPhase::Unknown
            | RolloutPhase::Idle
            | RolloutPhase::Canary
            | RolloutPhase::Soaking
            | RolloutPhase::Wave
            // Somebody wanted these to stand.
            | RolloutPhase::Paused
            | RolloutPhase::Frozen
            | RolloutPhase::WaitingForRing
            | RolloutPhase::WaitingForWindow
            | RolloutPhase::WaitingForNodes
            | RolloutPhase::Blocked
            | RolloutPhase::Other(_) => false,
        })
    }

    /// What is not as it should be, in a few words; nothing where all is well.
    pub(crate) fn trouble(&self) -> Vec<String> {
        let mut words = Vec::new();
        if self.deleting {
            words.push("Deleting".to_owned());
        }
        if let Some(operation) = &self.operation
            && matches!(operation.state.as_str(), "Error" | "Failed" | "Aborted")
        {
            words.push(format!("{} {}", operation.kind, operation.state));
        }
        for condition in self.conditions.iter().filter(|condition| condition.status != "True") {
            if !condition.reason.is_empty() && !words.contains(&condition.reason) {
                words.push(condition.reason.clone());
            }
        }
        words
    }
}

impl Condition {
    fn read(value: &Value) -> Self {
        Self {
            kind: text(&value["type"]),
            status: text(&value["status"]),
            reason: text(&value["reason"]),
            message: text(&value["message"]),
            since: time(&value["lastTransitionTime"]),
        }
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn time(value: &Value) -> Option<Timestamp> {
    value.as_str()?.parse().ok()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A ContainerRuntime with this status.
    pub(crate) fn object(name: &str, status: Value) -> DynamicObject {
        serde_json::from_value(json!({
            "apiVersion": "extensions.gardener.cloud/v1alpha1", "kind": "ContainerRuntime",
            "metadata": {"name": name, "namespace": "shoot--garden--one", "resourceVersion": "1"},
            "spec": {"type": "gvisor", "binaryPath": "/var/bin", "workerPool": {"name": "a"}},
            "status": status,
        }))
        .unwrap()
    }

    /// `providerStatus` with this rollout.
    pub(crate) fn provider(rollout: Value) -> Value {
        let mut status = json!({
            "apiVersion": "rootstock.gardener.cloud/v1alpha1", "kind": "RuntimeStatus",
            "nodes": {"selected": 40, "ready": 38},
        });
        if !rollout.is_null() {
            status["rollout"] = rollout;
        }
        status
    }

    /// A rollout in this phase.
    pub(crate) fn rollout(phase: &str, more: Value) -> Value {
        let mut rollout = json!({"since": "2026-01-01T00:00:00Z", "nodes": 40, "phase": phase});
        rollout.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        rollout
    }

    #[test]
    fn whatever_is_written_is_read() {
        for status in [
            Value::Null,
            json!("text"),
            json!([1]),
            json!({"conditions": 5, "lastOperation": "x", "providerStatus": [], "state": 7}),
            json!({"conditions": [null, {"type": 5}], "providerStatus": {"kind": "Other"}}),
        ] {
            let mut object = object("a", status.clone());
            object.data["spec"] = json!("none");
            let runtime = Runtime::read(&object);
            assert_eq!(runtime.path(), "shoot--garden--one/a", "{status}");
            assert!(runtime.status.is_none() && runtime.can().is_none(), "{status}");
            assert!(runtime.to_json().is_object());
        }
    }

    #[test]
    fn what_can_be_asked_comes_from_the_rollout_or_from_what_is_recorded() {
        use Command::{Abort, Pause, Resume, Retry};
        let wave = rollout("Wave", json!({"can": ["pause", "abort"]}));
        let old = json!({"since": "2026-01-01T00:00:00Z", "nodes": 4});
        let digest = format!("sha256:{}", "a".repeat(64));
        let table = [
            (wave, json!(null), Some(vec![Pause, Abort])),
            // An older controller says nothing of it.
            (old, json!(null), None),
            (json!(null), json!(null), Some(vec![Pause])),
            (json!(null), json!({"version": 1, "paused": true}), Some(vec![Resume])),
            (
                json!(null),
                json!({"version": 1, "aborted": {"amd64": digest}}),
                Some(vec![Pause, Retry]),
            ),
            (json!(null), json!({"version": 99}), None),
        ];
        for (rollout, state, want) in table {
            let status = json!({"providerStatus": provider(rollout.clone()), "state": state});
            let mut object = object("a", status);
            assert_eq!(Runtime::read(&object).can(), want, "{rollout} {state}");
            object.metadata.annotations = Some([(ROLLOUT.to_owned(), "pause".to_owned())].into());
            assert_eq!(Runtime::read(&object).can(), None);
            object.metadata.deletion_timestamp =
                serde_json::from_value(json!("2026-01-01T00:00:00Z")).unwrap();
            assert_eq!(Runtime::read(&object).can(), Some(vec![]));
        }
    }

    #[test]
    fn a_rollout_stands_where_somebody_has_to_act() {
        let stands = |phase: &str| {
            let status = json!({"providerStatus": provider(rollout(phase, json!({})))});
            Runtime::read(&object("a", status)).stands()
        };
        let standing: Vec<_> =
            RolloutPhase::KNOWN.into_iter().filter(|phase| stands(phase.as_str())).collect();
        let want = [RolloutPhase::Halted, RolloutPhase::Stopped, RolloutPhase::PromotedFails];
        assert_eq!(standing, want);
        assert!(!stands("Dreaming"));
        assert!(!Runtime::read(&object("a", json!({}))).stands());
    }
}
