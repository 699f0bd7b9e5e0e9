//! Events on ContainerRuntimes: what an operator would look for.
//!
//! Whoever has something to say leaves it here and goes on; one task publishes.

use std::sync::Arc;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::{Client, Resource as _};
use rootstock_daemon::Shutdown;
use rootstock_daemon::error::Chain;
use tokio::sync::mpsc;

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
        }
    }

    /// What was being done.
    fn action(self) -> &'static str {
        match self {
            Self::BundleResolved => "Resolving",
            Self::RolloutBegun | Self::RolloutDone | Self::NodesFailed => "RollingOut",
            Self::ConfigurationRefused | Self::ConfigurationPassedOver => "Reconciling",
            Self::NodesNotConfirmed => "Deleting",
            Self::TakenOver => "TakingOver",
        }
    }

    fn kind(self) -> EventType {
        match self {
            Self::BundleResolved | Self::RolloutBegun | Self::RolloutDone | Self::TakenOver => {
                EventType::Normal
            }
            Self::NodesFailed
            | Self::ConfigurationRefused
            | Self::ConfigurationPassedOver
            | Self::NodesNotConfirmed => EventType::Warning,
        }
    }
}

/// Takes Events to be published.
#[derive(Clone, Debug)]
pub(crate) struct Events(mpsc::Sender<Said>);

#[derive(Debug)]
struct Said {
    of: ObjectReference,
    word: Word,
    note: String,
}

/// Publishes what was said.
pub(crate) struct Publish {
    client: Client,
    said: mpsc::Receiver<Said>,
}

impl Events {
    /// A pair of both ends.
    pub(crate) fn new(client: Client) -> (Self, Publish) {
        let (sender, said) = mpsc::channel(DEPTH);
        (Self(sender), Publish { client, said })
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

impl Publish {
    pub(crate) async fn run(mut self, shutdown: Shutdown) -> anyhow::Result<()> {
        let reporter = Reporter { controller: "rootstock-controller".to_owned(), instance: None };
        let recorder = Arc::new(Recorder::new(self.client.clone(), reporter));
        loop {
            // Cancel-safe: a queue's `recv` loses nothing.
            let said = tokio::select! {
                said = self.said.recv() => said,
                () = shutdown.begun() => return Ok(()),
            };
            let Some(Said { of, word, note }) = said else { return Ok(()) };
            let event = Event {
                type_: word.kind(),
                reason: word.as_str().to_owned(),
                note: Some(note),
                action: word.action().to_owned(),
                secondary: None,
            };
            if let Err(error) = recorder.publish(&event, &of).await {
                tracing::debug!(word = word.as_str(), error = %Chain(&error), "an Event is refused");
            }
        }
    }
}
