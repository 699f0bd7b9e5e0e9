//! What the API server has recorded, and the writes that are on their way to it.
//!
//! ```text
//!  controller ══ Write {version} ══▶ land ─▶ recorded, or a conflict ══ Answer ══▶ controller
//!                     │                 └ the answer may be lost: nobody knows then
//!                     └ the controller may be killed before, or between both
//! ```

use rootstock_core::rollout::rings::RingsRecord;
use rootstock_core::state::State;

/// An object of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Key {
    /// The ContainerRuntime of a shoot, by the shoot's number.
    Shoot(usize),
    /// What is recorded of the seed's rings.
    Rings,
}

/// What is written.
#[derive(Clone, Debug)]
pub(crate) enum Body {
    /// A state.
    State(Box<State>),
    /// The rings.
    Rings(RingsRecord),
}

/// A write, over the version that its controller has seen.
#[derive(Clone, Debug)]
pub(crate) struct Write {
    /// Whose it is.
    pub(crate) term: u32,
    /// Of what.
    pub(crate) key: Key,
    /// Over which version.
    pub(crate) version: u64,
    /// What.
    pub(crate) body: Body,
    /// What becomes of it.
    pub(crate) mishap: Option<Mishap>,
}

/// What may befall a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mishap {
    /// It never comes there.
    Lost,
    /// It is recorded, and its answer does not come back.
    Unanswered,
}

/// What the controller hears of a write.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    /// Whose it was.
    pub(crate) term: u32,
    /// Of what.
    pub(crate) key: Key,
    /// The version that was recorded; none where it failed, as far as anybody knows.
    pub(crate) version: Option<u64>,
}

/// Everything that is recorded.
#[derive(Debug)]
pub(crate) struct Api {
    /// The state of each shoot's resource, and its version.
    pub(crate) shoots: Vec<(u64, State)>,
    /// The seed's rings.
    pub(crate) rings: (u64, RingsRecord),
    /// How many writes have landed.
    pub(crate) writes: u64,
}

impl Api {
    /// What is recorded at first.
    pub(crate) fn new(shoots: Vec<State>, rings: RingsRecord) -> Self {
        let shoots = shoots.into_iter().map(|state| (1, state)).collect();
        Self { shoots, rings: (1, rings), writes: 0 }
    }

    /// The version of an object.
    pub(crate) fn version(&self, key: Key) -> u64 {
        match key {
            Key::Shoot(shoot) => self.shoots[shoot].0,
            Key::Rings => self.rings.0,
        }
    }

    /// Records a write whose version is the object's, and says which it has now.
    pub(crate) fn record(&mut self, write: Write) -> Option<u64> {
        if self.version(write.key) != write.version {
            return None;
        }
        self.writes += 1;
        let version = write.version + 1;
        match (write.key, write.body) {
            (Key::Shoot(shoot), Body::State(state)) => self.shoots[shoot] = (version, *state),
            (Key::Rings, Body::Rings(rings)) => self.rings = (version, rings),
            (Key::Shoot(_), Body::Rings(_)) | (Key::Rings, Body::State(_)) => return None,
        }
        Some(version)
    }
}
