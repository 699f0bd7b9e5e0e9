//! Writing a ManagedResource and its Secret.
//!
//! ```text
//!  GET ManagedResource ─▶ GET its Secret ─▶ as it should be: done, nothing was written
//!      └─ POST Secret (its name is its content) ─▶ POST or PATCH ManagedResource
//! ```
//!
//! The Secret comes first: a ManagedResource never names one that is not
//! there. Old Secrets are left to the resource manager, which collects what
//! nothing names. Two pools of a shoot write the same at the same time:
//! whoever is second finds what it wanted.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Secret;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt as _};
use serde_json::{Map, Value, json};

use super::package::{COLLECTABLE, Package, REFERENCE, objects_of};
use crate::api::{ManagedResource, is_conflict, is_not_found, is_transient};

/// How often a write begins anew because somebody else was first. Each time
/// somebody has got on, so more than a few in a row are no race.
pub(super) const TRIES: usize = 5;

/// Why a ManagedResource is not as it should be.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WriteError {
    /// The seed's API refused.
    #[error("the seed's API refused {kind} {name}")]
    Api {
        /// The kind.
        kind: &'static str,
        /// The object.
        name: String,
        /// Why.
        #[source]
        source: kube::Error,
    },
    /// It is on its way out and has to be gone first.
    #[error("{kind} {name} is still being deleted")]
    Terminating {
        /// The kind.
        kind: &'static str,
        /// The object.
        name: String,
    },
    /// It was there a moment ago: a deletion or the collector was quicker.
    #[error("{kind} {name} vanished meanwhile")]
    Vanished {
        /// The kind.
        kind: &'static str,
        /// The object.
        name: String,
    },
    /// Something else lies under the name that only this content has.
    #[error("Secret {0} has other content than its name says; delete it and it is made anew")]
    Foreign(String),
    /// What is in the shoot now can't be told, so nothing may be taken away.
    #[error("Secret {name} has objects under {key:?} that can't be read")]
    Unreadable {
        /// The Secret.
        name: String,
        /// Its key.
        key: String,
    },
}

impl WriteError {
    /// Whether it passes by itself.
    pub(super) fn is_transient(&self) -> bool {
        match self {
            Self::Api { source, .. } => is_transient(source),
            Self::Terminating { .. } | Self::Vanished { .. } => true,
            Self::Foreign(_) | Self::Unreadable { .. } => false,
        }
    }

    /// Whether somebody else was first.
    pub(super) fn is_race(&self) -> bool {
        match self {
            Self::Api { source, .. } => is_conflict(source),
            Self::Vanished { .. } => true,
            Self::Terminating { .. } | Self::Foreign(_) | Self::Unreadable { .. } => false,
        }
    }

    /// The same about an object that was there when it was last asked for.
    pub(super) fn if_it_was_there(self) -> Self {
        match self {
            Self::Api { kind, ref name, ref source } if is_not_found(source) => {
                Self::Vanished { kind, name: name.clone() }
            }
            Self::Api { .. }
            | Self::Terminating { .. }
            | Self::Vanished { .. }
            | Self::Foreign(_)
            | Self::Unreadable { .. } => self,
        }
    }
}

/// Writes and deletes in one namespace of the seed.
pub(super) struct Writer {
    pub(super) namespace: String,
    pub(super) resources: Api<ManagedResource>,
    pub(super) secrets: Api<Secret>,
}

impl Writer {
    pub(super) fn new(client: &Client, namespace: &str) -> Self {
        Self {
            namespace: namespace.to_owned(),
            resources: Api::namespaced(client.clone(), namespace),
            secrets: Api::namespaced(client.clone(), namespace),
        }
    }

    /// Makes a ManagedResource what `render` makes of the objects that it has.
    /// Nothing is written where that is so, or where there is nothing to have.
    pub(super) async fn put(
        &self,
        name: &str,
        render: impl Fn(Vec<Value>) -> Vec<Value>,
    ) -> Result<(), WriteError> {
        let mut tries = 1;
        loop {
            match self.try_put(name, &render).await {
                Err(error) if error.is_race() && tries < TRIES => tries += 1,
                done => return done,
            }
        }
    }

    async fn try_put(
        &self,
        name: &str,
        render: &impl Fn(Vec<Value>) -> Vec<Value>,
    ) -> Result<(), WriteError> {
        let there = self.resources.get_opt(name).await.map_err(at_resource(name))?;
        if there.as_ref().is_some_and(is_terminating) {
            return Err(WriteError::Terminating { kind: RESOURCE, name: name.to_owned() });
        }
        let secrets = self.secrets_of(there.as_ref()).await?;
        let objects = render(objects(secrets.values())?);
        if objects.is_empty() && there.is_none() {
            return Ok(());
        }
        let package = Package::new(&self.namespace, name, &objects);
        self.put_secret(&package, secrets.get(package.secret_name())).await?;
        match there {
            None => {
                let parameters = PostParams::default();
                let created = self.resources.create(&parameters, &package.resource).await;
                created.map_err(at_resource(name))?;
                tracing::debug!(namespace = self.namespace, name, "made a ManagedResource");
            }
            Some(there) => {
                if let Some(patch) = difference(&there, &package.resource) {
                    let patch = Patch::Merge(patch);
                    let patched = self.resources.patch(name, &PatchParams::default(), &patch).await;
                    patched.map_err(|error| at_resource(name)(error).if_it_was_there())?;
                    tracing::debug!(namespace = self.namespace, name, "changed a ManagedResource");
                }
            }
        }
        Ok(())
    }

    /// The Secrets that a ManagedResource names and that are there.
    async fn secrets_of(
        &self,
        resource: Option<&ManagedResource>,
    ) -> Result<BTreeMap<String, Secret>, WriteError> {
        let mut secrets = BTreeMap::new();
        for reference in resource.iter().flat_map(|resource| &resource.spec.secret_refs) {
            let name = &reference.name;
            match self.secrets.get_opt(name).await.map_err(at_secret(name))? {
                Some(secret) => {
                    secrets.insert(name.clone(), secret);
                }
                // Then the resource manager can't read it either, and has changed nothing.
                None => tracing::warn!(
                    namespace = self.namespace,
                    name,
                    "a ManagedResource's Secret is gone"
                ),
            }
        }
        Ok(secrets)
    }

    async fn put_secret(
        &self,
        package: &Package,
        known: Option<&Secret>,
    ) -> Result<(), WriteError> {
        let name = package.secret_name();
        let there = match known {
            Some(there) => there.clone(),
            None => match self.secrets.create(&PostParams::default(), &package.secret).await {
                Ok(_) => return Ok(()),
                // Another pool's, or one of before that was not collected yet.
                Err(error) if is_conflict(&error) => {
                    let there = self.secrets.get(name).await;
                    there.map_err(|error| at_secret(name)(error).if_it_was_there())?
                }
                Err(error) => return Err(at_secret(name)(error)),
            },
        };
        if there.metadata.deletion_timestamp.is_some() {
            return Err(WriteError::Terminating { kind: SECRET, name: name.to_owned() });
        }
        if there.data != package.secret.data {
            return Err(WriteError::Foreign(name.to_owned()));
        }
        let collectable = there.labels().get(COLLECTABLE).is_some_and(|value| value == "true");
        if !collectable || there.immutable != Some(true) {
            let patch = json!({"metadata": {"labels": {COLLECTABLE: "true"}}, "immutable": true});
            let patch = Patch::Merge(patch);
            let patched = self.secrets.patch(name, &PatchParams::default(), &patch).await;
            patched.map_err(|error| at_secret(name)(error).if_it_was_there())?;
        }
        Ok(())
    }
}

pub(super) const RESOURCE: &str = "ManagedResource";
pub(super) const SECRET: &str = "Secret";

pub(super) fn at_resource(name: &str) -> impl FnOnce(kube::Error) -> WriteError {
    move |source| WriteError::Api { kind: RESOURCE, name: name.to_owned(), source }
}

pub(super) fn at_secret(name: &str) -> impl FnOnce(kube::Error) -> WriteError {
    move |source| WriteError::Api { kind: SECRET, name: name.to_owned(), source }
}

fn is_terminating(resource: &ManagedResource) -> bool {
    resource.metadata.deletion_timestamp.is_some()
}

fn objects<'a>(secrets: impl Iterator<Item = &'a Secret>) -> Result<Vec<Value>, WriteError> {
    let mut objects = Vec::new();
    for secret in secrets {
        let unreadable = |key| WriteError::Unreadable { name: secret.name_any(), key };
        objects.extend(objects_of(secret).map_err(unreadable)?);
    }
    Ok(objects)
}

/// The patch that makes a ManagedResource what it should be, over the one that
/// was read and over no other; none where nothing is missing. What others
/// wrote beside it stays, but for references to Secrets that it does not name.
fn difference(there: &ManagedResource, wanted: &ManagedResource) -> Option<Value> {
    let mut annotations = missing(there.annotations(), wanted.annotations());
    let is_left =
        |key: &&String| key.starts_with(REFERENCE) && !wanted.annotations().contains_key(*key);
    for key in there.annotations().keys().filter(is_left) {
        annotations.insert(key.clone(), Value::Null);
    }
    let labels = missing(there.labels(), wanted.labels());
    let same_spec = there.spec == wanted.spec;
    if annotations.is_empty() && labels.is_empty() && same_spec {
        return None;
    }
    let mut patch = json!({"metadata": {
        "resourceVersion": there.resource_version(), "labels": labels, "annotations": annotations,
    }});
    if !same_spec {
        patch["spec"] = json!(wanted.spec);
        // One of another class is no business of the shoot's resource manager.
        patch["spec"]["class"] = Value::Null;
    }
    Some(patch)
}

fn missing(
    there: &BTreeMap<String, String>,
    wanted: &BTreeMap<String, String>,
) -> Map<String, Value> {
    let lacks = |(key, value): &(&String, &String)| there.get(*key) != Some(*value);
    wanted.iter().filter(lacks).map(|(key, value)| (key.clone(), json!(value))).collect()
}
