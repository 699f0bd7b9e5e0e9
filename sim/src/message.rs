//! What nodes and the controller say to each other.

use rootstock_core::bandwidth::{Grant, Held, Request, Shrunk};
use rootstock_core::digest::Digest;
use rootstock_core::rollout::view::Sandboxes;
use rootstock_core::rollout::{Give, Permit};
use rootstock_core::status::{Phase, Reason};

/// From a node to the controller.
#[derive(Clone, Debug)]
pub(crate) enum Up {
    /// A stream begins: what the node has, and the leases that it still holds.
    Hello {
        /// The leases.
        held: Vec<Held>,
        /// What it has.
        word: Word,
    },
    /// What it has is another thing now.
    Report(Word),
    /// It asks for a rate.
    Ask(Request),
    /// It keeps to a lower one.
    Shrunk(Shrunk),
}

/// From the controller to a node.
#[derive(Clone, Debug)]
pub(crate) enum Down {
    /// What it is to have and may do.
    Desired(Desired),
    /// A rate lease.
    Grant(Grant),
}

/// What a node is to have and may do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Desired {
    /// The bundle.
    pub(crate) give: Give,
    /// What it may pull ahead.
    pub(crate) prefetch: Option<Digest>,
    /// Whether it may activate.
    pub(crate) permit: Option<Permit>,
}

/// What a node says of its runtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Word {
    /// The bundle.
    pub(crate) digest: Option<Digest>,
    /// Where it is.
    pub(crate) phase: Phase,
    /// Why it is no further.
    pub(crate) reason: Option<Reason>,
    /// What lies on its disk in full and was not activated.
    pub(crate) fetched: Option<Digest>,
    /// What became of pods' sandboxes.
    pub(crate) sandboxes: Sandboxes,
}
