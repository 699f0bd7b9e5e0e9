//! What a Gardener seed and its shoots would do beside Rootstock.
//!
//! Each actor is a small struct that follows a few objects and runs until it is
//! shut down; none knows the controller or the agent but by what they write.
//!
//! ```text
//!  seed's API    gardenlet ─▶ Cluster, ContainerRuntimes, generic kubeconfig
//!                token requestor ─▶ shoot-access-rootstock (token of the shoot)
//!                ManagedResources, Secrets ─▶ resource manager ─┐
//!  shoot's API   worker ─▶ Nodes     RuntimeClasses, ConfigMap, DaemonSet rootstock-agent
//!                DaemonSet controller ─▶ one Pod per node ─▶ kubelet ─▶ agent process
//! ```
//!
//! [`world`] puts them together with the APIs, the registry and the controller.

pub mod catalog;
pub mod daemonset;
pub mod disk;
pub mod follow;
pub mod gardenlet;
pub mod istio;
pub mod kubelet;
pub mod landscape;
pub mod objects;
pub mod processes;
pub mod resource_manager;
pub mod retry;
mod setup;
pub mod shoot;
pub mod shoot_objects;
pub mod snapshot;
pub mod status;
pub mod token_requestor;
pub mod worker;
pub mod world;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// Base64, as the values of Secrets and kubeconfigs are written.
pub(crate) fn encode(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}
