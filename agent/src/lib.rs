pub mod containerd;
pub mod fetch;
pub mod host;
pub mod install;
mod net;
pub mod reconcile;
pub mod rootfs;
pub mod store;
