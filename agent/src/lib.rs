pub mod containerd;
pub mod fetch;
mod net;
pub mod rootfs;
pub mod store;
