//! Ten thousand nodes in virtual time: the real decisions, and all that may befall them.
//!
//! ```text
//!  Scenario ─▶ Plan ─▶ World ═ one queue of events, one virtual clock, one seeded source of chance
//!                        │
//!    Node × 10,000 ◀── links: late, in order, cut off ──▶ Controller ── Write ─▶ Api
//!      Holder              │                                Allocator            │ lost, unanswered,
//!      pull, activate      │                                rollout::step        │ killed in between
//!        │                 │                                rings                │
//!        ▼                 ▼                                                     ▼
//!      Meter: Σ of rates against budgets at every event          Laws: slots, broken nodes
//!        └──────────────── Series, Trace ─▶ Outcome ─▶ table, figures, JSON, SVG
//! ```
//!
//! What decides is `rootstock_core`: [`step`](rootstock_core::rollout::step),
//! [`rings`](rootstock_core::rollout::rings::rings),
//! [`Allocator`](rootstock_core::bandwidth::Allocator) and
//! [`Holder`](rootstock_core::bandwidth::Holder). What stands around it here is
//! a model: a controller that records before it tells, and nodes that keep to
//! what agents promise. Equal seeds give equal runs, event by event, on any
//! machine: there is no other clock and no other chance in it.
//!
//! Bytes are a fluid: between two events every rate is constant, so what flows
//! is known exactly at every instant. The burst that a pacer lets through at
//! once (10 ms of a rate) is not in it.

mod api;
mod bundle;
pub mod cli;
mod clock;
mod controller;
mod figures;
mod laws;
mod message;
mod meter;
mod node;
mod outcome;
mod plan;
mod queue;
mod rng;
mod scenario;
mod series;
mod svg;
#[cfg(test)]
mod tests;
mod trace;
mod world;
