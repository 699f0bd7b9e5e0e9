//! Why a blob did not become a file.

use std::io;
use std::time::Duration;

use rootstock_core::digest::Digest;
use rootstock_core::status::Reason;

use crate::net::TlsError;
use crate::rootfs::FsError;

/// Why a blob did not become a file.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The registry's entry can't be used.
    #[error("registry {url:?} can't be used: {why}")]
    Configuration {
        /// The URL as it was given.
        url: String,
        /// What is wrong with it.
        why: String,
    },
    /// The registry's CAs can't be used.
    #[error("registry {url} can't be used")]
    Tls {
        /// Its URL.
        url: String,
        /// Why not.
        source: TlsError,
    },
    /// No connection.
    #[error("can't connect to {url}")]
    Connect {
        /// Scheme, host and port.
        url: String,
        /// What the network says.
        source: io::Error,
    },
    /// The connection brought nothing, or next to nothing, for too long.
    #[error("{url} brings {what}")]
    Stalled {
        /// Scheme, host and port.
        url: String,
        /// How little, and for how long.
        what: String,
    },
    /// The connection broke.
    #[error("the connection to {url} broke")]
    Broken {
        /// Scheme, host and port.
        url: String,
        /// Whether the other side ended it before all that it had announced.
        early: bool,
        /// What the network says.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Another status than was hoped for.
    #[error("{url} answers with status {status}")]
    Status {
        /// The whole URL.
        url: String,
        /// The status.
        status: u16,
        /// How long it asks to be left alone.
        retry_after: Option<Duration>,
    },
    /// A redirect that is not followed.
    #[error("{url} redirects to where it is not followed: {why}")]
    Redirect {
        /// The whole URL.
        url: String,
        /// Why not.
        why: String,
    },
    /// More bytes than were declared.
    #[error("blob {blob} has {size} bytes or more, declared are {declared}")]
    TooLarge {
        /// The blob.
        blob: Digest,
        /// Bytes that came or were announced.
        size: u64,
        /// Bytes that the bundle declares.
        declared: u64,
    },
    /// Fewer bytes than were declared.
    #[error("blob {blob} ended after {size} bytes, declared are {declared}")]
    Truncated {
        /// The blob.
        blob: Digest,
        /// Bytes that came.
        size: u64,
        /// Bytes that the bundle declares.
        declared: u64,
    },
    /// More or fewer plain bytes than were declared.
    #[error("file {file} of blob {blob} has {}{size} bytes, declared are {declared}", if *.size > *.declared { "at least " } else { "" })]
    PlainSize {
        /// The file.
        file: String,
        /// The blob.
        blob: Digest,
        /// Plain bytes.
        size: u64,
        /// Plain bytes that the bundle declares.
        declared: u64,
    },
    /// Other bytes than the digest names.
    #[error("{what} has digest {actual}, want {expected}")]
    Mismatch {
        /// The blob or the file.
        what: String,
        /// What came.
        actual: Digest,
        /// What the bundle declares.
        expected: Digest,
    },
    /// The right bytes, but no zstd.
    #[error("blob {blob} can't be decompressed")]
    Undecodable {
        /// The blob.
        blob: Digest,
        /// What zstd says.
        source: io::Error,
    },
    /// The node's disk.
    #[error(transparent)]
    Fs(#[from] FsError),
    /// A channel or thread of our own.
    #[error("the download's own pipe broke")]
    Io(#[source] io::Error),
}

impl FetchError {
    /// The reason that users see.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Configuration { .. } | Self::Tls { .. } => Reason::ConfigurationInvalid,
            Self::Connect { .. }
            | Self::Stalled { .. }
            | Self::Broken { .. }
            | Self::Redirect { .. } => Reason::RegistryUnreachable,
            Self::Status { status: 404, .. } => Reason::BundleNotFound,
            Self::Status { status: 401 | 403, .. } => Reason::RegistryUnauthorized,
            Self::Status { .. } => Reason::RegistryUnreachable,
            Self::TooLarge { .. } => Reason::SizeExceeded,
            Self::Truncated { .. } => Reason::Truncated,
            Self::PlainSize { size, declared, .. } if size > declared => Reason::SizeExceeded,
            Self::PlainSize { .. } => Reason::Truncated,
            Self::Mismatch { .. } => Reason::DigestMismatch,
            Self::Undecodable { .. } => Reason::BundleInvalid,
            Self::Fs(error) => error.reason(),
            Self::Io(_) => Reason::Internal,
        }
    }

    /// Whether the bytes themselves were wrong.
    pub(super) fn is_content(&self) -> bool {
        matches!(
            self,
            Self::TooLarge { .. }
                | Self::Truncated { .. }
                | Self::PlainSize { .. }
                | Self::Mismatch { .. }
        )
    }

    /// Whether bytes were not those that the digest names, or could not be
    /// what it names: others may have been fed before them.
    pub(super) fn is_wrong(&self) -> bool {
        matches!(self, Self::PlainSize { .. } | Self::Mismatch { .. } | Self::Undecodable { .. })
    }

    /// Whether the other side ended the answer before all that it had announced.
    pub(super) fn is_early_end(&self) -> bool {
        matches!(self, Self::Broken { early: true, .. })
    }

    /// How long to wait before a source that is busy is asked again; none
    /// where it does not say, or asks for more than `most`: the bundle's own
    /// next attempt comes later.
    pub(super) fn wait(&self, most: Duration) -> Option<Duration> {
        match self {
            Self::Status { status: 429 | 503, retry_after, .. } => {
                retry_after.filter(|wait| *wait <= most)
            }
            Self::Configuration { .. }
            | Self::Tls { .. }
            | Self::Connect { .. }
            | Self::Stalled { .. }
            | Self::Broken { .. }
            | Self::Status { .. }
            | Self::Redirect { .. }
            | Self::TooLarge { .. }
            | Self::Truncated { .. }
            | Self::PlainSize { .. }
            | Self::Mismatch { .. }
            | Self::Undecodable { .. }
            | Self::Fs(_)
            | Self::Io(_) => None,
        }
    }

    /// Whether the same source may go on where it was cut off.
    pub(super) fn is_cut(&self) -> bool {
        matches!(self, Self::Stalled { .. } | Self::Broken { .. })
    }

    /// Whether another source is better asked for the rest: this one would
    /// take as long over its next silence.
    pub(super) fn is_stalled(&self) -> bool {
        matches!(self, Self::Stalled { .. })
    }
}
