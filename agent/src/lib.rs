//! The agent: one on each node, it puts container runtimes there.
//!
//! ```text
//!  controller ══ mTLS ══▶ link ─▶ ledger (on disk) ─watch─▶ reconcile
//!       ▲                  ▲                                  │ observe ─▶ core::plan
//!       └── reports ═══════╪════════watch═════════════════════╡
//!                          │                                  ├▶ install ─▶ fetch ─▶ registry
//!                          └ retry                            ├▶ containerd (config.toml)
//!                                                             └▶ host (systemd, CRI)
//! ```
//! * [`rootfs`]: the node's files, through one capability directory
//! * [`store`]: the agent's own folder: lock, ledger, journal, partial blobs
//! * [`fetch`], [`install`]: blobs by digest into a bundle's folder
//! * [`containerd`]: our tables in containerd's configuration, and nothing else of it
//! * [`host`]: the edge to the service manager and containerd
//! * [`preflight`]: what is on a node, for people and without changing it
//! * [`preview`]: what would be done, for people and support cases
//! * [`pull`]: how fast blobs may come, by what the controller grants
//! * [`slot`]: when containerd may be restarted, by what the controller allows
//! * [`reconcile`]: the loop; [`link`]: the stream; [`run()`]: both, until the end
//!
//! The agent acts from its ledger: without a controller it still converges.

pub mod args;
mod backoff;
mod clock;
pub mod containerd;
pub mod fetch;
pub mod host;
pub mod install;
pub mod link;
mod net;
pub mod preflight;
pub mod preview;
pub mod pull;
pub mod reconcile;
pub mod rootfs;
mod run;
pub mod slot;
pub mod store;

pub use args::RunArgs;
pub use run::run;
