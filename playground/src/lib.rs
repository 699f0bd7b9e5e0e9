//! A whole seed and its shoots on one machine: to try Rootstock out, and for tests.
//!
//! * [`kube`]: a Kubernetes API, embedded or the real server
//! * [`registry`]: an OCI registry, with faults on demand
//! * [`samples`]: bundles made of real files where the machine has them
//! * [`crowd`]: ten thousand agents without a node
//! * [`host`]: a node's service manager and containerd, simulated at the agent's edge
//! * [`seed`]: what a Gardener seed and its shoots would do beside Rootstock
//! * [`up`]: the demo

pub mod crowd;
pub mod host;
pub mod kube;
pub mod registry;
pub mod samples;
pub mod seed;
pub mod up;
