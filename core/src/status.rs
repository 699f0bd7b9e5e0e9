//! Phases and reasons: the words that reports, conditions, Events and metrics share.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::name::{RuntimeType, cut};

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum $name { $($(#[$vdoc])* $variant,)+ }

        impl $name {
            /// Every variant, in order.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// The word as users see it.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => stringify!($variant),)+ }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl FromStr for $name {
            type Err = UnknownWord;

            fn from_str(word: &str) -> Result<Self, UnknownWord> {
                Self::ALL.iter().copied().find(|known| known.as_str() == word)
                    .ok_or_else(|| UnknownWord(cut(word)))
            }
        }
    };
}

/// A phase or reason that this version does not know.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown word {0:?}")]
pub struct UnknownWord(String);

words! {
    /// Where one bundle is on one node.
    Phase {
        /// Desired, not begun.
        Waiting,
        /// Its bytes are on their way.
        Pulling,
        /// Every byte is on disk and has the right digest.
        Verified,
        /// Ready to be activated, waits for a slot.
        Queued,
        /// Links, configuration and containerd are being changed.
        Activating,
        /// containerd lists every handler.
        Loaded,
        /// A pod sandbox was started with every handler.
        Proven,
        /// It did not work, and nothing was changed for it.
        Failed,
        /// It did not work, and the previous state is back.
        RolledBack,
        /// It did not work, and the previous state did not come back either.
        Degraded,
        /// This node can't run it.
        Unsupported,
        /// Something outside the bundle is in its way.
        Blocked,
        /// It is being taken away.
        Removing,
        /// It should go, but pods still use it.
        InUse,
        /// It is gone.
        Removed,
    }
}

impl Phase {
    /// Whether the runtime can be used on the node.
    pub fn is_ready(self) -> bool {
        matches!(self, Self::Proven | Self::Loaded)
    }

    /// Whether something has to change outside before it goes on.
    pub fn is_failure(self) -> bool {
        matches!(
            self,
            Self::Failed | Self::RolledBack | Self::Degraded | Self::Unsupported | Self::Blocked
        )
    }
}

words! {
    /// Why something is not as it should be.
    Reason {
        /// No catalog entry names the type.
        TypeUnknown,
        /// The bundle is being looked up.
        BundlePending,
        /// The registry does not answer, or answers with an error of its own.
        RegistryUnreachable,
        /// The registry refused the credentials.
        RegistryUnauthorized,
        /// The registry answers, but does not have the bundle or a file of it.
        BundleNotFound,
        /// The bundle is there, but what describes it can't be used.
        BundleInvalid,
        /// The bytes are not those that the digest names.
        DigestMismatch,
        /// There are more bytes than were declared.
        SizeExceeded,
        /// There are fewer bytes than were declared.
        Truncated,
        /// A path in the bundle leads out of it.
        PathRefused,
        /// `binaryPath` is outside the allowed folders.
        BinaryPathRefused,
        /// The bundle has nothing for the node's architecture.
        ArchitectureMismatch,
        /// The disk has no room.
        NoSpace,
        /// The disk or a file on it answers with an error.
        HostError,
        /// The resource's node selector is malformed.
        SelectorInvalid,
        /// The resource's or the catalog's configuration is wrong.
        ConfigurationInvalid,
        /// Two resources or bundles ask for different things in one place.
        SettingsConflict,
        /// The node lacks what the bundle needs.
        PreflightUnmet,
        /// The node's containerd was not found, or is of a kind that is not supported.
        ContainerdUnknown,
        /// A change of containerd's configuration would alter keys of others.
        ContainerdConfigForeignChange,
        /// containerd's configuration can't be read.
        ContainerdConfigInvalid,
        /// containerd did not come up.
        ContainerdStartFailed,
        /// containerd is up, but does not list the handler.
        HandlerMissing,
        /// No pod sandbox could be started with the handler.
        ProofFailed,
        /// containerd restarts again and again.
        CrashLoop,
        /// A step took longer than it may.
        DeadlineExceeded,
        /// The node is not connected.
        NodeUnreachable,
        /// The node is selected, but no agent ever came from it.
        AgentMissing,
        /// The shoot's API can't be reached.
        ShootUnreachable,
        /// The desired state is older than what the node holds.
        GenerationOutdated,
        /// The bundle's signature is missing or wrong.
        SignatureRefused,
        /// The shoot sleeps.
        Hibernated,
        /// Someone paused the rollout.
        Paused,
        /// The rollout stopped itself.
        Halted,
        /// Pods use the runtime.
        PodsRunning,
        /// Another extension's installer may still write on the node.
        TakeoverPending,
        /// Something unexpected; the message says what.
        Internal,
    }
}

impl Reason {
    /// What to do about it, as the end of a message to an operator.
    pub fn advice(self) -> &'static str {
        match self {
            Self::TypeUnknown => {
                "add the type to the controller's catalog, or remove it from the worker pool"
            }
            Self::BundlePending => "nothing; it takes a moment",
            Self::RegistryUnreachable => {
                "check the registry and the network path to it; it is tried again by itself"
            }
            Self::RegistryUnauthorized => "check the registry's credentials in the catalog",
            Self::BundleNotFound => {
                "push the bundle to the registry, or correct its reference in the catalog"
            }
            Self::BundleInvalid => "build and push the bundle again",
            Self::Truncated => {
                "the registry, a mirror or something on the way to it ends each answer early: check its storage and the network path, then push the bundle again"
            }
            Self::DigestMismatch | Self::SizeExceeded => {
                "the registry or a mirror serves wrong bytes: check its storage, then push the bundle again"
            }
            Self::PathRefused => {
                "build the bundle again with paths that stay inside it; on the node, look for links in the way"
            }
            Self::BinaryPathRefused => {
                "use an absolute binaryPath below an allowed folder, or allow the folder with --binary-roots of controller and agents"
            }
            Self::ArchitectureMismatch => {
                "push the bundle for this architecture too, or move the runtime to another worker pool"
            }
            Self::NoSpace => "free space on the node, or give it a larger disk",
            Self::HostError => "check the node's disk and the file that the message names",
            Self::SelectorInvalid => "correct spec.workerPool.selector of the ContainerRuntime",
            Self::ConfigurationInvalid => "correct the field that the message names",
            Self::SettingsConflict => "make the two agree, or remove one",
            Self::PreflightUnmet => "use nodes that have what the runtime needs",
            Self::ContainerdUnknown => "check that containerd runs as a systemd unit on the node",
            Self::ContainerdConfigForeignChange => {
                "containerd's configuration was left as it was; see the key that the message names"
            }
            Self::ContainerdConfigInvalid => "repair /etc/containerd/config.toml on the node",
            Self::ContainerdStartFailed | Self::CrashLoop => "see containerd's journal on the node",
            Self::HandlerMissing => "see containerd's journal on the node for the handler's error",
            Self::ProofFailed => "see the kubelet's and containerd's journal on the node",
            Self::DeadlineExceeded => "see the last step in the message",
            Self::NodeUnreachable => "check the node and its network path to the controller",
            Self::AgentMissing => "check that the rootstock-agent Pod runs on the node",
            Self::ShootUnreachable => "check the shoot's API server and its access Secret",
            Self::GenerationOutdated => "the controller sends a newer one by itself",
            Self::SignatureRefused => "sign the bundle with a key that the catalog trusts",
            Self::Hibernated => "wake the shoot up",
            Self::Paused => "resume the rollout",
            Self::Halted => "correct the bundle, then retry or abort the rollout",
            Self::PodsRunning => "it goes on when the pods have ended",
            Self::TakeoverPending => {
                "it goes on when the other extension's installer has gone; if it stays, see why the shoot's resource manager does not delete it, or delete its DaemonSet in kube-system"
            }
            Self::Internal => "see the logs of the controller and the agent",
        }
    }
}

/// What a node says of one bundle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BundleReport {
    /// The runtime type.
    pub runtime: RuntimeType,
    /// The bundle's digest; none where nothing could be begun.
    pub digest: Option<Digest>,
    /// The bundle's version, for people.
    pub version: String,
    /// Where it is.
    pub phase: Phase,
    /// Why it is not further.
    pub reason: Option<Reason>,
    /// For people: what exactly, at most 1 KiB.
    pub message: String,
    /// Bytes of the bundle's blobs that are there, and in all.
    pub bytes_done: u64,
    /// Bytes of the bundle's blobs in all.
    pub bytes_total: u64,
    /// Bytes of blobs that came over the network for it.
    pub bytes_pulled: u64,
    /// The handlers that containerd lists.
    pub handlers: Vec<String>,
    /// The bundle to be activated later that is on disk in full, verified.
    #[serde(default)]
    pub fetched: Option<Digest>,
    /// How many pods' sandboxes run on the bundle.
    #[serde(default)]
    pub sandboxes: u32,
    /// How many run on another bundle of the type: they keep what they were
    /// started with.
    #[serde(default)]
    pub outdated_sandboxes: u32,
}

impl BundleReport {
    /// A report of nothing but a phase.
    pub fn new(runtime: RuntimeType, phase: Phase) -> Self {
        Self {
            runtime,
            digest: None,
            version: String::new(),
            phase,
            reason: None,
            message: String::new(),
            bytes_done: 0,
            bytes_total: 0,
            bytes_pulled: 0,
            handlers: Vec::new(),
            fetched: None,
            sandboxes: 0,
            outdated_sandboxes: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_read_as_they_are_written() {
        for reason in Reason::ALL {
            assert_eq!(reason.as_str().parse::<Reason>().unwrap(), *reason);
            assert!(!reason.advice().is_empty());
            // Kubernetes wants CamelCase reasons.
            assert!(reason.as_str().chars().all(|c| c.is_ascii_alphanumeric()));
        }
        for phase in Phase::ALL {
            assert_eq!(phase.as_str().parse::<Phase>().unwrap(), *phase);
            assert!(!(phase.is_ready() && phase.is_failure()));
        }
        assert!("Nonsense".parse::<Phase>().is_err());
    }
}
