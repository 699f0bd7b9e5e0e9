//! The values and decisions of Rootstock, as pure functions.
//!
//! Nothing here knows of tokio, gRPC, Kubernetes clients, files or a clock:
//! time and state are arguments, so that every decision can be tested as a
//! table and held to its laws by property tests.
//!
//! ```text
//!  controller:  Claim + NodeFacts + bundles ─▶ assign ─▶ Desired (one per node)
//!  agent:       Desired + Observed ─▶ plan ─▶ Plan (what to do, in order)
//!  both:        requests ─▶ bandwidth ─▶ rate leases ─▶ bytes that may be read now
//!  controller:  node reports ─▶ rollup ─▶ conditions of a ContainerRuntime
//!  controller:  node reports + State ─▶ rollout ─▶ State, then who may have and activate what
//! ```
//!
//! * [`name`], [`digest`], [`path`]: names, digests and paths, parsed once at the edge
//! * [`selector`]: label selectors, evaluated as Kubernetes does
//! * [`bundle`]: the config blob that describes one version of a runtime
//! * [`provider`]: what a user writes into `spec.providerConfig`, as settings
//! * [`mod@reference`]: how a bundle is named
//! * [`catalog`]: which bundle each runtime type stands for
//! * [`desired`]: what one node should have, with its generation
//! * [`layout`]: where a bundle lies on a node, and what containerd is told of it
//! * [`effective`]: what containerd makes of its configuration, before and after an edit
//! * [`bandwidth`]: who may pull how fast, so that no budget is ever exceeded
//! * [`election`]: which of several controllers leads
//! * [`preflight`]: whether a node has what a bundle needs
//! * [`state`]: what moves along to another seed
//! * [`runtime_status`]: `status.providerStatus` of a ContainerRuntime
//! * [`status`]: phases and reasons, in the words that users see
//! * [`rollout`]: which node may have which bundle, and may activate it when;
//!   which shoots of a seed may try one
//! * [`assign`], [`plan`], [`rollup`]: the decisions

pub mod assign;
pub mod bandwidth;
pub mod bundle;
pub mod catalog;
pub mod desired;
pub mod digest;
pub mod effective;
pub mod election;
pub mod layout;
pub mod name;
pub mod path;
pub mod plan;
pub mod preflight;
pub mod provider;
pub mod reference;
pub mod rollout;
pub mod rollup;
pub mod runtime_status;
pub mod selector;
pub mod state;
pub mod status;
