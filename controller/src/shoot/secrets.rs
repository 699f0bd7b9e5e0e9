//! The Secrets of a shoot in its control plane's namespace.
//!
//! All are Gardener's by their form: the authorities are those of one of its
//! secrets managers, so that gardenlet moves them to another seed with the
//! shoot, and the access Secret is filled by its token requestor. What a
//! restored control plane finds is used as it is.
//!
//! * [`authority`]: the authorities

pub(crate) mod authority;

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Secret;
use kube::api::{ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt as _};
use rootstock_core::name::ShootName;
use serde_json::json;

use crate::api::{is_conflict, is_not_found, is_transient};
use crate::identity::ca::CaError;
use crate::objects::agent::{ACCESS_ACCOUNT, NAMESPACE};

/// The token for the shoot's API.
pub(crate) const ACCESS_SECRET: &str = "shoot-access-rootstock";
/// By this label one watch sees all access Secrets.
pub(crate) const ACCESS_LABEL: &str = "rootstock.gardener.cloud/shoot-access";

/// A Secret that is not as it should be.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SecretError {
    /// The seed's API refused.
    #[error("the seed's API refused Secret {name}")]
    Api {
        /// The Secret.
        name: String,
        /// Why.
        #[source]
        source: kube::Error,
    },
    /// It is on its way out and has to be gone first.
    #[error("Secret {name} is still being deleted")]
    Terminating {
        /// The Secret.
        name: String,
    },
    /// The Secret has no such key, or no text in it.
    #[error("Secret {name} has no text under {key:?}; delete it and a new one is made")]
    Content {
        /// The Secret.
        name: String,
        /// The key.
        key: &'static str,
    },
    /// It was there a moment ago.
    #[error("Secret {name} vanished meanwhile")]
    Vanished {
        /// The Secret.
        name: String,
    },
    /// The authority can't be used.
    #[error("the shoot's certificate authority can't be used")]
    Authority(#[source] CaError),
}

impl SecretError {
    /// Whether it passes by itself.
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            Self::Api { source, .. } => is_transient(source),
            Self::Terminating { .. } | Self::Vanished { .. } => true,
            Self::Content { .. } | Self::Authority(_) => false,
        }
    }
}

/// Whether there is a token of the shoot's API. Without one no agent was ever
/// let in here.
pub(crate) async fn has_token(seed: &Client, shoot: &ShootName) -> Result<bool, SecretError> {
    let api: Api<Secret> = crate::home::beside(seed, shoot);
    let there = api.get_opt(ACCESS_SECRET).await.map_err(at(ACCESS_SECRET))?;
    let data = there.and_then(|secret| secret.data).unwrap_or_default();
    Ok(data.get("token").is_some_and(|token| !token.0.is_empty()))
}

/// Asks Gardener's token requestor for a token of the shoot's API.
pub(crate) async fn request_access(seed: &Client, shoot: &ShootName) -> Result<(), SecretError> {
    let api: Api<Secret> = crate::home::beside(seed, shoot);
    let secret = access_secret();
    let there = match api.get_metadata_opt(ACCESS_SECRET).await.map_err(at(ACCESS_SECRET))? {
        Some(there) => there,
        None => match api.create(&PostParams::default(), &secret).await {
            Ok(_) => return Ok(()),
            // Another pool's.
            Err(error) if is_conflict(&error) => return Ok(()),
            Err(error) => return Err(at(ACCESS_SECRET)(error)),
        },
    };
    if there.metadata.deletion_timestamp.is_some() {
        return Err(SecretError::Terminating { name: ACCESS_SECRET.to_owned() });
    }
    let (labels, annotations) = (secret.labels(), secret.annotations());
    let has = |there: &BTreeMap<String, String>, wanted: &BTreeMap<String, String>| {
        wanted.iter().all(|(key, value)| there.get(key) == Some(value))
    };
    if has(there.labels(), labels) && has(there.annotations(), annotations) {
        return Ok(());
    }
    // The token and what the token requestor wrote beside it stay.
    let patch = json!({"metadata": {"labels": labels, "annotations": annotations}});
    let patch = Patch::Merge(patch);
    let patched = api.patch_metadata(ACCESS_SECRET, &PatchParams::default(), &patch).await;
    patched.map_err(at_present(ACCESS_SECRET))?;
    Ok(())
}

/// What the token requestor needs: whose token, and that it is for the shoot.
fn access_secret() -> Secret {
    Secret {
        metadata: ObjectMeta {
            name: Some(ACCESS_SECRET.to_owned()),
            labels: Some(owned(&[
                ("resources.gardener.cloud/purpose", "token-requestor"),
                ("resources.gardener.cloud/class", "shoot"),
                (ACCESS_LABEL, "true"),
            ])),
            annotations: Some(owned(&[
                ("serviceaccount.resources.gardener.cloud/name", ACCESS_ACCOUNT),
                ("serviceaccount.resources.gardener.cloud/namespace", NAMESPACE),
            ])),
            ..ObjectMeta::default()
        },
        type_: Some("Opaque".to_owned()),
        ..Secret::default()
    }
}

pub(super) fn owned(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

pub(super) fn at(name: &str) -> impl Fn(kube::Error) -> SecretError {
    move |source| SecretError::Api { name: name.to_owned(), source }
}

/// The same about a Secret that was there when it was last asked for: whoever
/// deletes it was quicker, and it is made anew at the next try.
pub(super) fn at_present(name: &str) -> impl Fn(kube::Error) -> SecretError {
    move |source| match is_not_found(&source) {
        true => SecretError::Vanished { name: name.to_owned() },
        false => SecretError::Api { name: name.to_owned(), source },
    }
}
