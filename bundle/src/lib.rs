//! The OCI form of a bundle: media types, build, push and resolve.
//!
//! ```text
//!  files + description ─▶ build ─▶ Built (config blob, zstd blobs in a folder)
//!  Built per platform  ─▶ Client::push ─▶ registry: blobs, manifests, index under a tag
//!  reference + architecture ─▶ Client::resolve ─▶ digest of the manifest + checked config blob
//! ```
//!
//! An image index names one manifest per platform; a manifest has a config
//! blob and one layer per file, named by `org.opencontainers.image.title`, so
//! that every OCI tool can list and pull a bundle.
//!
//! * [`media`]: the media types
//! * [`manifest`]: manifests and indexes, as JSON
//! * [`mod@build`]: files become blobs
//! * [`client`]: one registry, and how it is reached
//! * [`push`], [`resolve`]: into and out of a registry
//!
//! Nodes don't use this crate: the agent has a fetcher of its own.

pub mod build;
pub mod client;
mod fetch;
pub mod manifest;
pub mod media;
pub mod push;
pub mod resolve;
mod token;

pub use build::{Built, Source, SourceFile, build};
pub use client::{Client, InvalidRegistry};
pub use fetch::Trouble;
pub use push::{PushError, Pushed};
pub use resolve::{Problem, ResolveError, Resolved};
pub use rootstock_core::reference::{Reference, Repository, Tag, Version};
