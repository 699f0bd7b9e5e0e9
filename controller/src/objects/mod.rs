//! What a shoot gets from Rootstock beside its nodes' desired state.
//!
//! ```text
//!  shoot-access-rootstock, ca-rootstock      Secrets of the control plane's namespace
//!  extension-runtime-<type>                  the type's RuntimeClasses
//!  extension-rootstock-agent                 the agent and the controller's own role
//! ```

use std::sync::Arc;

use kube::Client;
use rootstock_core::catalog::Catalog;
use rootstock_core::name::{RuntimeType, ShootName};
use tokio::sync::watch;

use crate::api::{Cluster, is_transient};
use crate::shoot::secrets::{self, SecretError};

/// Writes a shoot's objects and takes them away.
pub(crate) struct Objects {
    pub(crate) client: Client,
    pub(crate) catalog: watch::Receiver<Arc<Catalog>>,
    pub(crate) agent: AgentSettings,
}

/// What the agent's objects say that is the same for all shoots.
#[derive(Clone, Debug)]
pub(crate) struct AgentSettings {
    /// The agent's image.
    pub(crate) image: String,
    /// The domain below which endpoints lie, in place of the seed's own.
    pub(crate) domain: Option<String>,
    /// The port under which agents reach the endpoint.
    pub(crate) port: u16,
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
}

impl ObjectsError {
    /// Whether trying again may help.
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            Self::Secret(SecretError::Api { source, .. }) => is_transient(source),
            Self::Secret(SecretError::Content { .. } | SecretError::Authority(_)) => false,
        }
    }
}

impl Objects {
    /// Writes all that a shoot with a ContainerRuntime of this type needs.
    /// Nothing is written where nothing changed.
    pub(crate) async fn put(
        &self,
        shoot: &ShootName,
        cluster: &Cluster,
        runtime: &RuntimeType,
    ) -> Result<(), ObjectsError> {
        let _ = (cluster, runtime);
        secrets::authority(&self.client, shoot).await?;
        secrets::request_access(&self.client, shoot).await?;
        Ok(())
    }

    /// Takes a type's classes away; called again until they are gone.
    #[expect(clippy::unused_async, reason = "there is nothing to take away yet")]
    pub(crate) async fn withdraw_classes(
        &self,
        shoot: &ShootName,
        runtime: &RuntimeType,
        keep: Keep,
    ) -> Result<Gone, ObjectsError> {
        let _ = (shoot, runtime, keep);
        Ok(Gone::Yes)
    }

    /// Takes the agent away; called again until it is gone.
    #[expect(clippy::unused_async, reason = "there is nothing to take away yet")]
    pub(crate) async fn withdraw_agent(
        &self,
        shoot: &ShootName,
        keep: Keep,
    ) -> Result<Gone, ObjectsError> {
        let _ = (shoot, keep);
        Ok(Gone::Yes)
    }
}
