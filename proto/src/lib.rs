//! The wire contract between Rootstock's controller and its agents.
//!
//! ```text
//!  agent                                             controller
//!    ── Enrollment.Enroll  token + request ─────────▶  server TLS only
//!    ◀── certificate for this node ──────────────────
//!    ── Enrollment.Renew ────────────────────────────▶ mutual TLS from here on
//!    ══ Fleet.Sync ══════════════════════════════════
//!       Hello, Report, Accept, Refuse … ────────────▶
//!       ◀──────────── Desired, PullGrant, Slot, Goodbye …
//! ```
//!
//! [`v1`] is generated from `proto/rootstock/v1`. What the two sides work with
//! are the types of `rootstock-core`; this crate turns one into the other and
//! refuses what does not hold.
//!
//! * [`codec`]: how much memory a stream's messages take
//! * [`desired`]: `Desired` and its content hash
//! * [`pull`]: who may pull how fast
//! * [`report`]: what nodes say
//! * [`error`]: what is refused, and as which gRPC status

pub mod codec;
pub mod desired;
pub mod error;
pub mod pull;
pub mod report;

/// The generated messages and services of `rootstock.v1`.
#[allow(missing_debug_implementations, clippy::all, clippy::pedantic, rustdoc::all)]
pub mod v1 {
    tonic::include_proto!("rootstock.v1");
}

pub use error::Invalid;

/// The protocol that this crate speaks.
///
/// The major version is the package's; a minor one is added with each field
/// that the other side may ignore. Agents keep to grants since minor version 1.
pub const PROTOCOL: v1::ProtocolVersion = v1::ProtocolVersion { major: 1, minor: 1 };

/// The largest message from a node, in bytes. A full report of 64 types with
/// 1 KiB of message each is half of it.
pub const MAX_NODE_MESSAGE: usize = 256 * 1024;

/// The largest message to a node, in bytes: a node's bundles with their config
/// blobs, of which each may have 256 KiB.
pub const MAX_CONTROLLER_MESSAGE: usize = 4 * 1024 * 1024;

/// The most runtime types on one node.
pub const MAX_TYPES: usize = 64;
