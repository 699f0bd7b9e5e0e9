//! Rootstock's controller: what each node should have, and what became of it.
//!
//! ```text
//!  configuration ─▶ catalog ─watch─▶ bundles ──────────┐ resolved once
//!  ContainerRuntimes ─▶ seed ──────────────────────────┤
//!  Clusters, Nodes ─▶ shoot (one task each) ───────────┤
//!                                                      ▼
//!                                                    Index ─ core::assign ─▶ watch<Offered> per node
//!                                                      ▲                        │
//!  agents ══ mTLS ══ grpc ─ reports ───────────────────┘                        │
//!    ◀═══════════════ Desired ══════════════════════════════════════════════════┘
//!    ══ PullRequest ══▶ bandwidth ─ core::bandwidth ─▶ PullGrant ══▶
//!                                                    Index ─ core::rollup ─▶ status
//!                            recorded states, Index ─ rollout ─▶ what each node may have and do
//!  ContainerRuntimes ─▶ operation: Gardener's lastOperation and finalizer
//! ```
//!
//! Every replica runs down to the Index. What is below it, and each write, is
//! the leader's.
//!
//! * [`app`]: every task, spawned, named and joined
//! * [`lead`]: which of several controllers acts; `term`: what it does then
//! * [`api`]: Gardener's resources
//! * [`index`]: everything that is known; [`content`]: what nodes should have
//! * [`identity`], [`grpc`]: who a node is, and the stream to it
//! * [`bandwidth`]: who pulls how fast

pub mod api;
pub mod app;
mod args;
pub mod bandwidth;
mod bundles;
pub mod catalog;
pub mod content;
mod events;
mod fleet;
pub mod grpc;
mod heartbeat;
mod home;
pub mod identity;
pub mod index;
pub mod lead;
mod metrics;
mod objects;
mod operation;
mod rollout;
#[cfg(test)]
mod scripted;
mod seed;
mod shoot;
mod status;
mod term;

pub use app::{run, runtime};
pub use args::{Args, ClusterKind, Ingress, ProviderConfig, Types};
pub use objects::agent_daemonset;
pub use objects::proxy::ProxyUrl;
