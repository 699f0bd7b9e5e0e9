//! Taking over from the gVisor extension.
//!
//! ```text
//!  extension-runtime-gvisor                       the same name: written in place, so that its
//!                                                 RuntimeClass is never away
//!  extension-runtime-gvisor-installation-<pool>   deleted with what is in the shoot of it: the
//!                                                 DaemonSet would go on writing on nodes
//! ```
//! The second kind is looked for each time, by one list: whatever was done
//! when this process died, the next one finds what is left. Nobody waits here
//! until it is gone; no agent acts on these nodes before.

#[cfg(test)]
mod tests;

use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, Client, ResourceExt as _};
use rootstock_core::name::{RuntimeType, ShootName};
use serde_json::json;

use super::write::{WriteError, Writer, at_resource};
use super::{Gone, Keep};
use crate::api::ManagedResource;

/// The label by which the gVisor extension marks its ManagedResources.
pub(crate) const ORIGIN: &str = "origin=extension-runtime-gvisor";
/// How the names of those with an installer begin; a worker pool's name follows.
pub(crate) const PREFIX: &str = "extension-runtime-gvisor-installation-";
/// The type that it installs.
pub(crate) const RUNTIME: &str = rootstock_core::plan::inherited::RUNTIME;

/// What was found of the gVisor extension.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct TakenOver {
    /// The ManagedResources whose deletion began just now.
    pub(crate) begun: Vec<String>,
    /// Those that are not gone yet, and what each waits for.
    pub(crate) left: Vec<String>,
}

impl TakenOver {
    /// What to say of it, if it is something new.
    pub(crate) fn note(&self) -> Option<String> {
        let pools: Vec<&str> =
            self.begun.iter().map(|name| name.trim_start_matches(PREFIX)).collect();
        (!pools.is_empty()).then(|| {
            format!(
                "The gVisor extension's installation of worker pool {} is taken over",
                pools.join(", ")
            )
        })
    }
}

/// Deletes the gVisor extension's installers in a shoot. One request where
/// there are none, or where the type is another one.
pub(super) async fn take_over(
    client: &Client,
    shoot: &ShootName,
    runtime: &RuntimeType,
) -> Result<TakenOver, WriteError> {
    let mut taken = TakenOver::default();
    if runtime.as_str() != RUNTIME {
        return Ok(taken);
    }
    let writer = Writer::new(client, shoot.as_str());
    for resource in installers(&writer.resources).await? {
        let name = resource.name_any();
        // Nobody but us is left to take away what is kept.
        keep_nothing(&writer.resources, &resource).await?;
        let begins = resource.metadata.deletion_timestamp.is_none();
        // What is in the shoot goes whatever becomes of the shoot: on another
        // seed nobody would know whose it is.
        if let Gone::Not(why) = writer.withdraw(&name, Keep::Nothing).await? {
            taken.left.push(why);
        }
        if begins {
            tracing::info!(%shoot, name, "taking over from the gVisor extension");
            taken.begun.push(name);
        }
    }
    Ok(taken)
}

async fn installers(api: &Api<ManagedResource>) -> Result<Vec<ManagedResource>, WriteError> {
    let mut all = match api.list(&ListParams::default().labels(ORIGIN)).await {
        Ok(listed) => listed.items,
        // A cluster without Gardener.
        Err(kube::Error::Api(status)) if status.code == 404 => Vec::new(),
        Err(error) => return Err(at_resource(PREFIX)(error)),
    };
    all.retain(|resource| is_installer(&resource.name_any()));
    Ok(all)
}

/// Whether a ManagedResource of that origin is an installer of a worker pool.
pub(crate) fn is_installer(name: &str) -> bool {
    name.strip_prefix(PREFIX).is_some_and(|pool| !pool.is_empty())
}

/// A migration that was broken off leaves it as one whose objects stay.
async fn keep_nothing(
    api: &Api<ManagedResource>,
    resource: &ManagedResource,
) -> Result<(), WriteError> {
    if resource.spec.keep_objects != Some(true) {
        return Ok(());
    }
    let name = resource.name_any();
    let patch = Patch::Merge(json!({"spec": {"keepObjects": false}}));
    match api.patch(&name, &PatchParams::default(), &patch).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(error) => Err(at_resource(&name)(error)),
    }
}
