//! Media types, and the limits that go with them.

/// The artifact type of a bundle's manifest.
pub const BUNDLE: &str = "application/vnd.rootstock.bundle.v1";
/// A bundle's config blob.
pub const CONFIG: &str = "application/vnd.rootstock.bundle.config.v1+json";
/// One file of a bundle, compressed with zstd.
pub const FILE: &str = "application/vnd.rootstock.file.v1+zstd";
/// What turns a file of an earlier bundle into one of this, compressed with zstd.
pub const DELTA: &str = "application/vnd.rootstock.delta.v1+zstd";

/// An OCI image manifest.
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// An OCI image index.
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// The annotation that names a layer's file.
pub const TITLE: &str = "org.opencontainers.image.title";
/// The annotation that gives a bundle's version.
pub const VERSION: &str = "org.opencontainers.image.version";

/// The largest manifest or index, in bytes: what registries accept at least.
pub const MAX_MANIFEST_SIZE: usize = 4 << 20;
