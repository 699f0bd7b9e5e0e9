//! What the allocator is told, and what it says.

use crate::bandwidth::{Budgets, Class, Grant, Held, Node, Puller, Rate, Request, Shrunk};

/// What the allocator is told.
#[derive(Clone, Debug)]
pub enum Event {
    /// An agent asks, or goes on to ask.
    Request {
        /// Whose it is, from its certificate and its Node.
        puller: Puller,
        /// What the controller knows of its urgency.
        class: Class,
        /// What it asks.
        request: Request,
    },
    /// An agent keeps to a lowered rate.
    Shrunk {
        /// Whose it is.
        node: Node,
        /// What it keeps to.
        shrunk: Shrunk,
    },
    /// A stream began.
    Connected {
        /// Whose it is.
        puller: Puller,
        /// What its Hello says that it holds.
        held: Vec<Held>,
    },
    /// A stream ended. What the node holds counts until its end.
    Disconnected {
        /// Whose it was.
        node: Node,
    },
    /// All nodes that may hold a lease of the leader before this one. Once all
    /// of them have connected nothing more is waited for.
    Expected(Vec<Node>),
    /// Other budgets.
    Budgets(Budgets),
    /// Time has passed.
    Tick,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Send it over the node's stream, if it has one.
    Grant {
        /// To whom.
        node: Node,
        /// What.
        grant: Grant,
    },
}

/// What is in use, for people and metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// The rates of all leases that may be in use; more than the seed's budget
    /// only after that was lowered.
    pub rate: Rate,
    /// How many there are.
    pub pulls: u32,
    /// How many wait.
    pub waiting: usize,
}
