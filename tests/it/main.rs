//! Every daemon on one machine: the tests that need more than one crate.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods)]

mod agent;
mod agent_link;
mod bundle;
mod chart;
mod contract;
mod ctl;
mod end_to_end;
mod kube_api;
mod leaders;
mod plain_cluster;
mod revocation;
mod takeover;
