//! Which node may have which bundle, and may activate it when.
//!
//! ```text
//!  seed:   what shoots make of a bundle ─▶ rings ─▶ open, not yet, stopped
//!                                                    │
//!  shoot:  View (resources, nodes, reports) ─────────┴─▶ step ─▶ Step
//!          State of each resource, as recorded ─────────▶  │
//!                                                          │
//!   act ─▶ settle ─▶ aim ─▶ observe ─▶ tally ─▶ advance ─▶ give_slots ─▶ give_all
//!   what somebody   │     what is to   │       canary, soak,  │         what each
//!   asks for        │     be tried     │       waves          │         node is sent
//!             slots come back    failures without      in one order
//!             by report or       a slot                for each pool
//!             deadline
//! ```
//!
//! [`step`] is one look at a shoot, level-triggered: the caller looks whenever
//! something changed or [`Step::next`] has come, writes the states that changed
//! and only then tells the nodes. A controller that dies in between leaves
//! slots that are recorded and unused, never used and unrecorded.
//!
//! * A **slot** is the permission to activate, for a node and all it has
//!   pending. It comes back by a report or at its deadline. What is in flight
//!   and what is unavailable for any other reason is together at most
//!   `maxUnavailable`.
//! * A **candidate** goes from canary over soaking and waves to promoted. A
//!   node is sent it only with a slot, or when it works with it already. Waves
//!   grow by `ramp` up to `maxUnavailable`; the last one has the rest, and each
//!   node that is done makes room for the next.
//! * What is **promoted** is sent to everyone else. Nodes that have something
//!   else pull it, are queued, and get slots within `maxUnavailable` alone.
//! * **Failures** count against the bundle and are kept when their node is
//!   gone: whoever replaces broken nodes must not make a rollout forget them.
//!   What is **held** up by something else has a bound of its own, beyond which
//!   only nodes that were held up before are tried again.
//! * A node that is **lost** fell silent in its slot, whether it is still there
//!   or was replaced. It is held up where others work with the candidate; until
//!   one does it halts the candidate, for nothing else is known of it.
//! * What is not known changes nothing: an unknown target, a state that can't
//!   be read, a node that has not been heard of since the controller started.

mod amount;
pub mod progress;
pub mod record;
pub mod rings;
mod step;
pub mod strategy;
#[cfg(test)]
mod tests;
pub mod view;
pub mod window;

pub use amount::{Amount, InvalidAmount, MAX_TIME};
pub use progress::Progress;
pub use step::{Give, NodeStep, Permit, RuntimeStep, Step, step};
