//! Who may pull how fast from the registry.
//!
//! ```text
//!  agent                                       controller
//!  Holder ══ Request, Shrunk, Held ══════════▶ Allocator: seed ⊇ shoot ⊇ pool ⊇ node
//!    │    ◀═══════════ Grant (a rate lease) ══    │ one step for each event
//!    ▼ allowance                                  ▼
//!  Pacer ─▶ bytes that may be read now          Usage
//! ```
//!
//! A grant is a rate lease. What holds at every instant, whatever is lost,
//! repeated, late or dead: **the rates of all leases that any agent may still
//! act on are within the budget of each level, and their number within that of
//! concurrent pulls.** Three rules make it so, and need no common clock:
//!
//! * *A lease ends at the agent before it ends at the controller.* The agent
//!   counts from when it sent the request that the grant answers, the
//!   controller from when it answered. It adds a fiftieth: an agent's clock may
//!   be 1 % slow, and that is twice as much.
//! * *Shrink before grow.* A lowered rate is free when the agent has said that
//!   it keeps to it, or when the lease has ended. Grants have an order (round,
//!   then sequence) that both sides go by, so a late message changes nothing.
//! * *A new leader waits.* It knows of no lease, and gives none until all that
//!   there may be have ended, or until every agent has said what it holds. An
//!   agent that has said so hears no grant from before.
//!
//! Few pull fast and the others wait: the mean pull is done in half of the
//! time that equal shares would take, and canaries are done first. Canaries
//! come before others, then the shoot and in it the pool that has the smallest
//! share, then who has waited longest; but who is known to go as fast as any
//! may lets others go first whose links may be slow, so that these don't end
//! long after all others.
//!
//! It binds agents that keep to their grants.
//!
//! * `rate`, `budgets`: rates and limits as operators write them
//! * `message`: what both sides say, and how long it counts
//! * [`allocator`]: who gets which rate
//! * [`holder`]: what an agent has, asks and answers
//! * [`pacer`]: how many bytes may be read now
//! * `tests`: agents, leaders and a network in which everything goes wrong

pub mod allocator;
mod budgets;
pub mod holder;
mod message;
pub mod pacer;
mod rate;
#[cfg(test)]
mod tests;

pub use allocator::{Action, Allocator, Event, Usage};
pub use budgets::Budgets;
pub use holder::{Allowance, Holder};
pub use message::{Class, Grant, Held, LIFETIME, Node, Puller, Request, Shrunk, Stamp};
pub use pacer::{Pacer, Take};
pub use rate::{InvalidRate, Limit, Rate};
