//! What is recorded of a seed's rings.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::name::{RuntimeType, ShootName};
use crate::rollout::record::Digests;
use crate::status::Reason;

/// What is recorded of a seed's rings, by type. It is small; where it is lost,
/// bundles begin with the first ring again, and what broke shoots is known by
/// their states alone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RingsRecord {
    /// By type.
    pub types: BTreeMap<RuntimeType, TypeRecord>,
}

/// What is recorded of one type.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TypeRecord {
    /// The bundle that went through every ring.
    #[serde(default, skip_serializing_if = "Digests::is_empty")]
    pub promoted: Digests,
    /// The bundle that goes through them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub opening: Option<Opening>,
    /// Those that were stopped, the latest last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stopped: Vec<Stopped>,
}

/// A bundle on its way through the rings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Opening {
    /// The bundle.
    pub digests: Digests,
    /// The last ring that is open, from 0.
    pub ring: usize,
    /// Since when.
    pub since: Timestamp,
    /// Since when a node of the ring was ready with it, if one was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready: Option<Timestamp>,
    /// Since when nobody in the ring is there to try it, if so: all of its
    /// shoots sleep, or can't be reached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub absent: Option<Timestamp>,
    /// Since when it was used enough, if it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used: Option<Timestamp>,
    /// Who failed with it, by the class of failure: at most as many as stop it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub failed: BTreeMap<Reason, BTreeSet<ShootName>>,
}

/// A bundle that was stopped for the seed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Stopped {
    /// The bundle.
    pub digests: Digests,
    /// When.
    pub at: Timestamp,
    /// The class of failure.
    pub reason: Reason,
    /// Who failed.
    pub shoots: BTreeSet<ShootName>,
}

impl Opening {
    /// A bundle that begins with the first ring.
    pub(super) fn new(digests: Digests, now: Timestamp) -> Self {
        let (ready, absent, used, failed) = (None, None, None, BTreeMap::new());
        Self { digests, ring: 0, since: now, ready, absent, used, failed }
    }

    /// The next ring opens; it has to prove it anew.
    pub(super) fn next(&mut self, now: Timestamp) {
        (self.ring, self.since) = (self.ring + 1, now);
        (self.ready, self.absent, self.used) = (None, None, None);
    }
}
