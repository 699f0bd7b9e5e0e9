//! What a shoot's rollout takes along when it moves to another seed.
//!
//! It lies in `status.state` of each ContainerRuntime, which Gardener keeps
//! for the other seed. It holds no key and no token.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::digest::Digest;
use crate::name::Architecture;
use crate::rollout::record::{self, Candidate, Command, Digests, Held, Slot};

#[cfg(test)]
mod tests;

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
    pub promoted: Digests,
    /// The bundle that is being tried; absent where none is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub candidate: Option<Candidate>,
    /// The nodes that may activate now.
    #[serde(default)]
    pub slots: Vec<Slot>,
    /// The nodes that something else than a bundle is in the way of.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub held: Vec<Held>,
    /// The bundle that somebody aborted: it is no candidate again by itself.
    #[serde(default, skip_serializing_if = "Digests::is_empty")]
    pub aborted: Digests,
    /// Whether no further slots are given.
    #[serde(default, skip_serializing_if = "record::is_default")]
    pub paused: bool,
    /// The command that was carried out and is still written on the resource.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acted: Option<Command>,
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
        Self {
            version: VERSION,
            promoted: Digests::new(),
            candidate: None,
            slots: Vec::new(),
            held: Vec::new(),
            aborted: Digests::new(),
            paused: false,
            acted: None,
            more: Map::new(),
        }
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

    /// How many bytes of JSON it has.
    pub fn size(&self) -> usize {
        // Nothing in it can fail to be written: names, numbers and what was JSON before.
        serde_json::to_string(self).map_or(usize::MAX, |text| text.len())
    }

    /// Leaves out what may be left out until it is within [`MAX_STATE`]: first
    /// the words of failed nodes and the names of silent ones, then what holds
    /// nodes up, then failures from the latest on. Slots stay: each is a node
    /// that may restart containerd.
    pub fn bound(&mut self) {
        while self.size() > MAX_STATE {
            let mut none = Vec::new();
            let failures = self.candidate.as_mut().map_or(&mut none, |c| &mut c.failures);
            let silent = self.slots.iter_mut().filter_map(|slot| slot.silent.as_mut());
            let names = silent.filter_map(|silent| silent.name.take()).count();
            if names > 0 || failures.iter().any(|failure| failure.evidence.is_some()) {
                failures.iter_mut().for_each(|failure| failure.evidence = None);
            } else if self.held.pop().is_none() && failures.pop().is_none() {
                return;
            }
        }
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
