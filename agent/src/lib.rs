pub mod rootfs;
