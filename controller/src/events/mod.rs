//! Events on ContainerRuntimes: what an operator would look for.
//!
//! ```text
//!  say ─▶ bounded queue ─▶ Publish ─ series: new, another of the same, or too much ─▶ API
//! ```
//! Whoever has something to say leaves it here and goes on; one task publishes.
//! The same words of the same resource are one Event with a count, and no
//! resource says more than a few in a while, however many nodes it has.

mod publish;
mod series;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::{Client, Resource as _};
use rootstock_daemon::error::Chain;
use tokio::sync::mpsc;

pub(crate) use publish::Publish;

use crate::api::ContainerRuntime;

/// How many Events wait to be published: more than a thousand resources that
/// change at once would say. What is beyond is in the log alone.
const DEPTH: usize = 1024;

/// What an Event is about: one word each, as `kubectl get events` shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Word {
    /// The type's bundle is another one than before.
    BundleResolved,
    /// Nodes are on their way to another state.
    RolloutBegun,
    /// All nodes are where they should be.
    RolloutDone,
    /// Nodes failed.
    NodesFailed,
    /// The providerConfig is refused.
    ConfigurationRefused,
    /// Parts of the providerConfig are passed over.
    ConfigurationPassedOver,
    /// Nodes did not confirm a removal in time.
    NodesNotConfirmed,
    /// Another extension's installation was taken over.
    TakenOver,
    /// A rollout goes on to its next stage.
    RolloutAdvanced,
    /// A rollout stopped itself, or was stopped.
    RolloutHalted,
    /// What somebody asked of a rollout is carried out.
    RolloutCommand,
    /// What somebody asked of a rollout is not understood.
    RolloutCommandRefused,
}

impl Word {
    fn as_str(self) -> &'static str {
        match self {
            Self::BundleResolved => "BundleResolved",
            Self::RolloutBegun => "RolloutBegun",
            Self::RolloutDone => "RolloutDone",
            Self::NodesFailed => "NodesFailed",
            Self::ConfigurationRefused => "ConfigurationRefused",
            Self::ConfigurationPassedOver => "ConfigurationPassedOver",
            Self::NodesNotConfirmed => "NodesNotConfirmed",
            Self::TakenOver => "TakenOver",
            Self::RolloutAdvanced => "RolloutAdvanced",
            Self::RolloutHalted => "RolloutHalted",
            Self::RolloutCommand => "RolloutCommand",
            Self::RolloutCommandRefused => "RolloutCommandRefused",
        }
    }

    /// What was being done.
    fn action(self) -> &'static str {
        match self {
            Self::BundleResolved => "Resolving",
            Self::RolloutBegun
            | Self::RolloutAdvanced
            | Self::RolloutHalted
            | Self::RolloutCommand
            | Self::RolloutCommandRefused
            | Self::RolloutDone
            | Self::NodesFailed => "RollingOut",
            Self::ConfigurationRefused | Self::ConfigurationPassedOver => "Reconciling",
            Self::NodesNotConfirmed => "Deleting",
            Self::TakenOver => "TakingOver",
        }
    }

    /// How Kubernetes sorts it.
    fn kind(self) -> &'static str {
        match self {
            Self::BundleResolved
            | Self::RolloutBegun
            | Self::RolloutAdvanced
            | Self::RolloutCommand
            | Self::RolloutDone
            | Self::TakenOver => "Normal",
            Self::NodesFailed
            | Self::RolloutHalted
            | Self::RolloutCommandRefused
            | Self::ConfigurationRefused
            | Self::ConfigurationPassedOver
            | Self::NodesNotConfirmed => "Warning",
        }
    }
}

/// Takes Events to be published.
#[derive(Clone, Debug)]
pub(crate) struct Events(mpsc::Sender<Said>);

/// What was said.
#[derive(Debug)]
struct Said {
    of: ObjectReference,
    word: Word,
    note: String,
}

impl Events {
    /// A pair of both ends.
    pub(crate) fn new(client: Client) -> (Self, Publish) {
        let (sender, said) = mpsc::channel(DEPTH);
        (Self(sender), Publish::new(client, said))
    }

    /// Says something of a resource. Never waits.
    pub(crate) fn say(&self, of: &ContainerRuntime, word: Word, note: impl Into<String>) {
        let said = Said { of: of.object_ref(&()), word, note: note.into() };
        if let Err(error) = self.0.try_send(said) {
            // An Event is a courtesy; what it says is in the status too.
            tracing::debug!(word = word.as_str(), error = %Chain(&error), "an Event is dropped");
        }
    }
}
