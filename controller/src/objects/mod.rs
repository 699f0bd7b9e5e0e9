//! What a shoot gets from Rootstock beside its nodes' desired state.
//!
//! ```text
//!  shoot-access-rootstock, ca-rootstock…     Secrets of the control plane's namespace
//!  extension-runtime-<type>                  the type's RuntimeClasses
//!  extension-rootstock-agent                 the agent and the controller's own role
//!  Gateway, VirtualService rootstock-agent   its nodes' way to the controller
//! ```
//!
//! * [`classes`], [`agent`], [`daemonset`], [`route`]: the objects, as pure functions
//! * [`package`]: how Gardener's resource manager takes them
//! * [`write`], [`withdraw`]: the requests, in Gardener's order; [`recent`]
//!   keeps a shoot's resources from making the same ones
//! * [`istio`]: the same for the route

pub(crate) mod agent;
pub(crate) mod classes;
pub(crate) mod daemonset;
pub(crate) mod istio;
mod package;
pub(crate) mod plain;
pub(crate) mod proxy;
mod recent;
pub(crate) mod route;
pub(crate) mod takeover;
#[cfg(test)]
mod tests;
mod withdraw;
mod write;

use std::sync::Arc;

use jiff::Timestamp;
use kube::Client;
use rootstock_core::catalog::Catalog;
use rootstock_core::name::{RuntimeType, ShootName};
use rootstock_core::path::BinaryRoots;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::api::Cluster;
use crate::identity::rotation::Names;
use crate::shoot::secrets::authority::{self, Wish};
use crate::shoot::secrets::{self, ACCESS_SECRET, SecretError};
pub use daemonset::agent_daemonset;
use istio::Istio;
use plain::{Plain, PlainError};
use proxy::Proxy;
use recent::Basis;
pub(crate) use recent::Recent;
use takeover::TakenOver;
use write::{WriteError, Writer};

/// The ManagedResource with the agent.
pub(crate) const AGENT_RESOURCE: &str = "extension-rootstock-agent";

/// Writes a shoot's objects and takes them away.
pub(crate) struct Objects {
    pub(crate) client: Client,
    pub(crate) catalog: watch::Receiver<Arc<Catalog>>,
    pub(crate) agent: AgentSettings,
    pub(crate) place: Place,
    /// What makes the agents' way to the controller; none where somebody else does.
    pub(crate) ingress: Option<Istio>,
    pub(crate) recent: Recent,
}

/// How objects come to where they should be.
#[derive(Clone, Debug)]
pub(crate) enum Place {
    /// Gardener's resource manager brings them into the shoot.
    Managed,
    /// The controller applies them in its own cluster.
    Plain(Plain),
}

/// What the agent's objects say that is the same for all shoots.
#[derive(Clone, Debug)]
pub(crate) struct AgentSettings {
    /// The agent's image.
    pub(crate) image: String,
    /// The folders below which a binaryPath may lie: the agent's Pod mounts
    /// what the controller lets through.
    pub(crate) roots: BinaryRoots,
    /// The domain below which endpoints lie, in place of the seed's own.
    pub(crate) domain: Option<String>,
    /// The port under which agents reach the endpoint.
    pub(crate) port: u16,
    /// The proxy by which they do.
    pub(crate) proxy: Proxy,
}

/// Whether what was taken away is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Gone {
    /// It is.
    Yes,
    /// Somebody has yet to let go of it: what is waited for, in words.
    Not(String),
}

/// What becomes of the objects in the shoot when their ManagedResource goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keep {
    /// They stay: the shoot moves to another seed.
    Objects,
    /// They go too.
    Nothing,
}

/// Why a shoot's objects are not as they should be.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ObjectsError {
    /// A Secret is not as it should be.
    #[error("the shoot's Secrets could not be prepared")]
    Secret(#[from] SecretError),
    /// A ManagedResource is not as it should be.
    #[error("the shoot's ManagedResources are not as they should be")]
    Write(#[from] WriteError),
    /// The agents' way is not as it should be.
    #[error("the route of the shoot's agents is not as it should be")]
    Route(#[source] WriteError),
    /// An object of the plain cluster is not as it should be.
    #[error("the cluster's objects are not as they should be")]
    Plain(#[from] PlainError),
}

impl ObjectsError {
    /// Whether it passes by itself, so that it is retried and not shown.
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            Self::Secret(error) => error.is_transient(),
            Self::Write(error) | Self::Route(error) => error.is_transient(),
            Self::Plain(error) => error.is_transient(),
        }
    }
}

impl Objects {
    /// Writes all that a shoot with a ContainerRuntime of this type needs.
    /// Nothing is written where nothing changed, and nothing is looked at that
    /// another resource's call has looked at since `asked`. Tells what was
    /// taken over from another extension with that.
    pub(crate) async fn put(
        &self,
        shoot: &ShootName,
        cluster: &Cluster,
        runtime: &RuntimeType,
        asked: Instant,
    ) -> Result<TakenOver, ObjectsError> {
        if let Place::Plain(plain) = &self.place {
            self.put_plain(plain, shoot, cluster, runtime).await?;
            return Ok(TakenOver::default());
        }
        let catalog = Arc::clone(&self.catalog.borrow());
        let basis = self.basis(shoot, cluster, catalog);
        // None needs another.
        let classes = self.put_classes(shoot, runtime, asked, &basis);
        let agent = self.put_agent(shoot, asked, &basis);
        let route = self.put_route(shoot, asked, &basis);
        let (taken, (), ()) = futures_util::try_join!(classes, agent, route)?;
        Ok(taken)
    }

    /// Makes and drops authorities as the shoot's phase and the time want it,
    /// and tells agents of it.
    pub(crate) async fn rotate(
        &self,
        shoot: &ShootName,
        cluster: &Cluster,
    ) -> Result<(), ObjectsError> {
        let catalog = Arc::clone(&self.catalog.borrow());
        match &self.place {
            Place::Plain(plain) => self.put_agent_plain(plain, shoot, cluster, &catalog).await,
            Place::Managed => {
                let basis = self.basis(shoot, cluster, catalog);
                self.put_agent(shoot, Instant::now(), &basis).await
            }
        }
    }

    fn basis(&self, shoot: &ShootName, cluster: &Cluster, catalog: Arc<Catalog>) -> Basis {
        let host = cluster.endpoint_host(shoot, self.agent.domain.as_deref());
        Basis { catalog, host, rotation: cluster.rotation() }
    }

    /// What is wanted of a shoot's authorities.
    pub(crate) fn wish(&self, cluster: &Cluster) -> Wish {
        let names = match self.place {
            Place::Managed => Names::Hashed,
            Place::Plain(_) => Names::Slots,
        };
        Wish { rotation: cluster.rotation(), names }
    }

    async fn put_classes(
        &self,
        shoot: &ShootName,
        runtime: &RuntimeType,
        asked: Instant,
        basis: &Basis,
    ) -> Result<TakenOver, ObjectsError> {
        let name = classes_resource(runtime);
        let recent = self.recent.of(shoot, &name);
        let mut seen = recent.lock().await;
        if seen.is_since(asked, basis) {
            return Ok(TakenOver::default());
        }
        let begun = Instant::now();
        let taken = self.take_over(shoot, runtime).await?;
        let entry = basis.catalog.runtime(runtime);
        let said = entry.map_or(&[][..], |entry| entry.runtime_classes.as_slice());
        let classes = |present| classes::keep(classes::render(runtime, said), present);
        Writer::new(&self.client, shoot.as_str()).put(&name, classes).await?;
        seen.note(begun, basis);
        Ok(taken)
    }

    async fn put_agent(
        &self,
        shoot: &ShootName,
        asked: Instant,
        basis: &Basis,
    ) -> Result<(), ObjectsError> {
        let recent = self.recent.of(shoot, AGENT_RESOURCE);
        let mut seen = recent.lock().await;
        if seen.is_since(asked, basis) {
            return Ok(());
        }
        let begun = Instant::now();
        let wish = Wish { rotation: basis.rotation, names: Names::Hashed };
        let authorities = authority::keep(&self.client, shoot, wish, Timestamp::now()).await?;
        secrets::request_access(&self.client, shoot).await?;
        // A seed without a domain has conditions that say so; gardenlet need not
        // wait for somebody to give it one.
        let host = basis.host.as_deref();
        let endpoint = host.map(|host| agent::endpoint_url(host, self.agent.port));
        let types = basis.catalog.runtimes.iter().map(|entry| entry.runtime.clone()).collect();
        let agent = |_| agent::render(&self.agent, &types, endpoint.as_deref(), &authorities);
        Writer::new(&self.client, shoot.as_str()).put(AGENT_RESOURCE, agent).await?;
        seen.note(begun, basis);
        Ok(())
    }

    /// Takes over from another extension of this type: its installers are
    /// deleted. Not waited for; the index keeps agents from where they are.
    pub(crate) async fn take_over(
        &self,
        shoot: &ShootName,
        runtime: &RuntimeType,
    ) -> Result<TakenOver, ObjectsError> {
        Ok(takeover::take_over(&self.client, shoot, runtime).await?)
    }

    /// Takes a type's RuntimeClasses away. Called again until they are gone.
    pub(crate) async fn withdraw_classes(
        &self,
        shoot: &ShootName,
        runtime: &RuntimeType,
        keep: Keep,
    ) -> Result<Gone, ObjectsError> {
        if let Place::Plain(plain) = &self.place {
            return Ok(plain.withdraw_classes(runtime).await?);
        }
        self.recent.forget(shoot);
        let writer = Writer::new(&self.client, shoot.as_str());
        // A resource that goes before it was ever reconciled here.
        let taken = self.take_over(shoot, runtime).await?;
        let gone = writer.withdraw(&classes_resource(runtime), keep).await?;
        Ok(taken.left.into_iter().next().map_or(gone, Gone::Not))
    }

    /// Takes the agent away, and with it the controller's access to the shoot
    /// and the agents' way in.
    /// Called again until it is gone.
    ///
    /// The authority stays where the shoot moves on: Gardener has it for the
    /// other seed once it has looked at it here.
    pub(crate) async fn withdraw_agent(
        &self,
        shoot: &ShootName,
        keep: Keep,
    ) -> Result<Gone, ObjectsError> {
        if let Place::Plain(plain) = &self.place {
            let gone = plain.withdraw_agent().await?;
            authority::withdraw_slots(&self.client, shoot).await?;
            return Ok(gone);
        }
        self.recent.forget(shoot);
        let writer = Writer::new(&self.client, shoot.as_str());
        let gone = writer.withdraw(AGENT_RESOURCE, keep).await?;
        match (&gone, keep) {
            (Gone::Yes, Keep::Nothing) => self.withdraw_rest(shoot).await?,
            (Gone::Yes, Keep::Objects) => {
                writer.withdraw_secret(ACCESS_SECRET).await?;
                self.withdraw_route(shoot).await?;
            }
            (Gone::Not(_), _) => {}
        }
        Ok(gone)
    }

    /// Takes away what is the shoot's in the seed alone, its Secrets and the
    /// route, whatever else is still there.
    pub(crate) async fn withdraw_rest(&self, shoot: &ShootName) -> Result<(), ObjectsError> {
        if let Place::Managed = self.place {
            self.recent.forget(shoot);
            let writer = Writer::new(&self.client, shoot.as_str());
            writer.withdraw_secret(ACCESS_SECRET).await?;
            authority::withdraw(&self.client, shoot).await?;
            self.withdraw_route(shoot).await?;
        }
        Ok(())
    }
}

/// The ManagedResource with a type's RuntimeClasses.
pub(crate) fn classes_resource(runtime: &RuntimeType) -> String {
    format!("extension-runtime-{runtime}")
}
