//! What every daemon needs and no domain knows: logs, shutdown, named tasks,
//! an admin listener, a moment that may not be.
//!
//! ```text
//!  main ─▶ telemetry::init ─▶ Shutdown (SIGTERM, SIGINT)
//!                               │ token
//!                               ▼
//!           Tasks: each named, joined, fatal if it ends early
//!             └ admin: /healthz /readyz and the daemon's own pages
//! ```

pub mod admin;
pub mod error;
pub mod shutdown;
pub mod tasks;
pub mod telemetry;
pub mod timer;

pub use admin::Readiness;
pub use shutdown::Shutdown;
pub use tasks::Tasks;
