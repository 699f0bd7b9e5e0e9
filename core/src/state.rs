//! What a shoot's rollout takes along when it moves to another seed.
//!
//! It lies in `status.state` of each ContainerRuntime, which Gardener keeps
//! for the other seed. It holds no key and no token.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::digest::Digest;
use crate::name::Architecture;

/// The version that is written, and the newest that is read.
pub const VERSION: u64 = 1;
/// The longest state, in bytes of JSON: it is part of an object in etcd.
pub const MAX_STATE: usize = 64 * 1024;

/// What moves along.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// The version of this form.
    pub version: u64,
    /// The digests with which every node was last ready.
    #[serde(default)]
    pub promoted: BTreeMap<Architecture, Digest>,
    /// The bundle that is being tried; absent where none is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub candidate: Option<Value>,
    /// The nodes that may activate now.
    #[serde(default)]
    pub slots: Vec<Value>,
    /// What a later revision of this version added.
    #[serde(flatten)]
    pub more: Map<String, Value>,
}

/// A state that is not read.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// It is larger than a state may be.
    #[error("read a state of {0} bytes: at most {MAX_STATE} are allowed")]
    TooLarge(usize),
    /// A later controller wrote it: it stays as it is.
    #[error("read a state of version {0}: this controller knows versions up to {VERSION}")]
    Newer(u64),
    /// It has another form.
    #[error("read a malformed state")]
    Malformed(#[source] serde_json::Error),
}

impl Default for State {
    fn default() -> Self {
        let (promoted, slots, more) = Default::default();
        Self { version: VERSION, promoted, candidate: None, slots, more }
    }
}

impl State {
    /// Reads `status.state`; an absent one is empty.
    ///
    /// # Errors
    /// When it is too large, of a newer version, or malformed.
    pub fn parse(value: Option<&Value>) -> Result<Self, StateError> {
        let Some(value) = value.filter(|value| !value.is_null()) else {
            return Ok(Self::default());
        };
        // A newer form is told by its version alone, whatever else it has.
        match value.get("version").and_then(Value::as_u64) {
            Some(version) if version > VERSION => return Err(StateError::Newer(version)),
            _ => {}
        }
        let size = value.to_string().len();
        if size > MAX_STATE {
            return Err(StateError::TooLarge(size));
        }
        Self::deserialize(value).map_err(StateError::Malformed)
    }

    /// Every node is ready with these digests, or there are none. Those of an
    /// architecture that can't be resolved now (`None`) stay.
    pub fn promote(&mut self, resolved: &BTreeMap<Architecture, Option<Digest>>) {
        self.promoted.retain(|architecture, _| resolved.contains_key(architecture));
        let known =
            resolved.iter().filter_map(|(architecture, digest)| Some((*architecture, (*digest)?)));
        self.promoted.extend(known);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn promoted() -> BTreeMap<Architecture, Digest> {
        [(Architecture::Amd64, Digest::of(b"a"))].into()
    }

    #[test]
    fn what_is_written_is_read() {
        let written = State { promoted: promoted(), ..State::default() };
        let value = serde_json::to_value(&written).unwrap();
        let digest = Digest::of(b"a").to_string();
        assert_eq!(value, json!({"version": 1, "promoted": {"amd64": digest}, "slots": []}));
        assert_eq!(State::parse(Some(&value)).unwrap(), written);
        assert_eq!(State::parse(None).unwrap(), State::default());
        assert_eq!(State::parse(Some(&Value::Null)).unwrap(), State::default());
    }

    #[test]
    fn what_a_later_revision_added_stays() {
        let value = json!({"version": 1, "promoted": {}, "candidate": null, "slots": [{"node": "a"}],
                           "rings": {"open": 2}});
        let state = State::parse(Some(&value)).unwrap();
        assert_eq!((state.candidate.as_ref(), state.slots.len()), (None, 1));
        let again = serde_json::to_value(&state).unwrap();
        assert_eq!(again["rings"], json!({"open": 2}));
        assert_eq!(again["slots"], value["slots"]);
    }

    #[test]
    fn what_can_not_be_read_is_told_apart() {
        let newer = json!({"version": 2, "promoted": "elsewhere"});
        let error = State::parse(Some(&newer)).unwrap_err();
        assert!(matches!(error, StateError::Newer(2)), "{error}");
        assert!(error.to_string().contains("version 2"), "{error}");
        let large = json!({"version": 1, "slots": ["x".repeat(MAX_STATE)]});
        assert!(matches!(State::parse(Some(&large)), Err(StateError::TooLarge(_))));
        let digest = Digest::of(b"a").to_string();
        for malformed in [
            json!("text"),
            json!([]),
            json!({}),
            json!({"version": -1}),
            json!({"version": 1, "promoted": {"amd64": "latest"}}),
            json!({"version": 1, "promoted": {"sparc": digest}}),
            json!({"version": 1, "slots": {}}),
        ] {
            let error = State::parse(Some(&malformed)).unwrap_err();
            assert!(matches!(error, StateError::Malformed(_)), "{malformed}: {error}");
        }
    }

    #[test]
    fn only_what_is_known_is_promoted() {
        let (a, b) = (Digest::of(b"a"), Digest::of(b"b"));
        let mut state = State::default();
        state.promote(&[(Architecture::Amd64, Some(a)), (Architecture::Arm64, Some(a))].into());
        assert_eq!(state.promoted.len(), 2);
        state.promote(&[(Architecture::Amd64, Some(b)), (Architecture::Arm64, None)].into());
        let want = [(Architecture::Amd64, b), (Architecture::Arm64, a)].into();
        assert_eq!(state.promoted, want, "what can't be resolved now stays");
        state.promote(&[(Architecture::Amd64, Some(b))].into());
        assert_eq!(state.promoted.len(), 1, "the bundle is no longer for it");
    }
}
