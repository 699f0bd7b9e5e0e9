//! A host on which the agent may die at any call: it is never answered.

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;

use rootstock_agent::host::{
    Containerd, Facts, Host, HostError, HostFuture, Installation, Proof, Sandbox, UnitState,
};
use rootstock_core::bundle::Need;
use rootstock_core::name::HandlerName;
use rootstock_playground::host::SimulatedHost;
use tokio::sync::watch;

/// What becomes of the agent at a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Live,
    /// The host never hears of it.
    DieBefore,
    /// The host does what it was asked for.
    DieAfter,
}

/// The call at which the agent died.
pub(super) type Died = watch::Receiver<Option<&'static str>>;

/// A simulated node, and what decides over the agent's life.
pub(super) struct Mortal<F> {
    host: SimulatedHost,
    fate: F,
    died: watch::Sender<Option<&'static str>>,
}

impl<F> fmt::Debug for Mortal<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mortal").field("died", &*self.died.borrow()).finish_non_exhaustive()
    }
}

impl<F: Fn(&'static str) -> Fate + Send + Sync> Mortal<F> {
    pub(super) fn new(host: SimulatedHost, fate: F) -> (Self, Died) {
        let (died, dead) = watch::channel(None);
        (Self { host, fate, died }, dead)
    }

    async fn call<T>(&self, name: &'static str, answer: impl Future<Output = T>) -> T {
        match (self.fate)(name) {
            Fate::Live => return answer.await,
            Fate::DieBefore => {}
            Fate::DieAfter => drop(answer.await),
        }
        self.died.send_replace(Some(name));
        std::future::pending().await
    }
}

impl<F: Fn(&'static str) -> Fate + Send + Sync + 'static> Host for Mortal<F> {
    fn find(&self) -> HostFuture<'_, Result<Installation, HostError>> {
        Box::pin(self.call("find", self.host.find()))
    }

    fn dump<'a>(&'a self, config: &'a str) -> HostFuture<'a, Result<String, HostError>> {
        Box::pin(self.call("dump", self.host.dump(config)))
    }

    fn unit(&self) -> HostFuture<'_, Result<UnitState, HostError>> {
        Box::pin(self.call("unit", self.host.unit()))
    }

    fn journal(&self) -> HostFuture<'_, Result<Vec<String>, HostError>> {
        Box::pin(self.call("journal", self.host.journal()))
    }

    fn prove<'a>(&'a self, handler: &'a HandlerName) -> HostFuture<'a, Result<Proof, HostError>> {
        Box::pin(self.call("prove", self.host.prove(handler)))
    }

    fn unmet<'a>(&'a self, need: &'a Need) -> HostFuture<'a, Result<Option<String>, HostError>> {
        Box::pin(self.call("unmet", self.host.unmet(need)))
    }

    fn facts(&self) -> HostFuture<'_, Result<Facts, HostError>> {
        Box::pin(self.call("facts", self.host.facts()))
    }

    fn containerd(&self) -> HostFuture<'_, Result<Containerd, HostError>> {
        Box::pin(self.call("containerd", self.host.containerd()))
    }

    fn restart_containerd(&self) -> HostFuture<'_, Result<(), HostError>> {
        Box::pin(self.call("restart_containerd", self.host.restart_containerd()))
    }

    fn sandboxes(&self) -> HostFuture<'_, Result<Vec<Sandbox>, HostError>> {
        Box::pin(self.call("sandboxes", self.host.sandboxes()))
    }

    fn started_with<'a>(
        &'a self,
        sandbox: &'a Sandbox,
    ) -> HostFuture<'a, Result<Option<BTreeSet<String>>, HostError>> {
        Box::pin(self.call("started_with", self.host.started_with(sandbox)))
    }

    fn free_space<'a>(&'a self, path: &'a Path) -> HostFuture<'a, Result<u64, HostError>> {
        Box::pin(self.call("free_space", self.host.free_space(path)))
    }
}
