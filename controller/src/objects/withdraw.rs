//! Taking a ManagedResource away.
//!
//! ```text
//!  GET ─▶ PATCH keepObjects, if the objects stay ─▶ DELETE it ─▶ DELETE its Secrets
//! ```
//!
//! From its deletion on the resource manager works by the ManagedResource's
//! status and needs its Secrets no more. Where this process dies before these
//! are deleted, the resource manager collects them.

use std::fmt::Debug;

use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::{Api, ResourceExt as _};
use serde::de::DeserializeOwned;
use serde_json::json;

use super::write::{TRIES, WriteError, Writer, at_resource, at_secret};
use super::{Gone, Keep};
use crate::api::{ManagedResource, is_not_found};

impl Writer {
    /// Deletes a ManagedResource, and tells whether it is gone. Called again
    /// it only looks.
    pub(super) async fn withdraw(&self, name: &str, keep: Keep) -> Result<Gone, WriteError> {
        let mut tries = 1;
        loop {
            match self.try_withdraw(name, keep).await {
                Err(error) if error.is_race() && tries < TRIES => tries += 1,
                done => return done,
            }
        }
    }

    async fn try_withdraw(&self, name: &str, keep: Keep) -> Result<Gone, WriteError> {
        let Some(resource) = self.resources.get_opt(name).await.map_err(at_resource(name))? else {
            return Ok(Gone::Yes);
        };
        if keep == Keep::Objects && resource.spec.keep_objects != Some(true) {
            let patch = Patch::Merge(json!({"spec": {"keepObjects": true}}));
            match self.resources.patch(name, &PatchParams::default(), &patch).await {
                Ok(_) => {}
                Err(error) if is_not_found(&error) => return Ok(Gone::Yes),
                Err(error) => return Err(at_resource(name)(error)),
            }
        }
        if resource.metadata.deletion_timestamp.is_some() {
            return Ok(Gone::Not(waits_for(&resource)));
        }
        let gone =
            delete(&self.resources, name, resource.uid()).await.map_err(at_resource(name))?;
        for secret in &resource.spec.secret_refs {
            delete(&self.secrets, &secret.name, None).await.map_err(at_secret(&secret.name))?;
        }
        tracing::debug!(namespace = self.namespace, name, ?keep, "deleted a ManagedResource");
        Ok(if gone { Gone::Yes } else { Gone::Not(waits_for(&resource)) })
    }

    /// Deletes a Secret; one that is not there is fine.
    pub(super) async fn withdraw_secret(&self, name: &str) -> Result<(), WriteError> {
        delete(&self.secrets, name, None).await.map_err(at_secret(name))?;
        Ok(())
    }
}

/// Deletes an object and tells whether it is gone.
pub(super) async fn delete<K>(
    api: &Api<K>,
    name: &str,
    uid: Option<String>,
) -> Result<bool, kube::Error>
where
    K: Clone + DeserializeOwned + Debug,
{
    let mut parameters = DeleteParams::default();
    if uid.is_some() {
        parameters = parameters.preconditions(Preconditions { uid, resource_version: None });
    }
    match api.delete(name, &parameters).await {
        // The object comes back where somebody has yet to let go of it.
        Ok(answer) => Ok(answer.is_right()),
        Err(error) if is_not_found(&error) => Ok(true),
        Err(error) => Err(error),
    }
}

/// What stands in the way, as the resource manager says it.
fn waits_for(resource: &ManagedResource) -> String {
    let name = resource.name_any();
    let conditions = resource.status.iter().flat_map(|status| &status.conditions);
    let mut applied = conditions.filter(|condition| condition["type"] == "ResourcesApplied");
    let said = applied.next().filter(|condition| condition["status"] != "True");
    match said.and_then(|condition| condition["message"].as_str()) {
        Some(message) => format!("ManagedResource {name}: {message}"),
        None => format!("ManagedResource {name} is being deleted"),
    }
}
