//! The Secrets of a shoot in its control plane's namespace.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client, Resource as _, ResourceExt as _};
use rootstock_core::name::ShootName;
use serde_json::json;

use crate::api::is_conflict;
use crate::identity::ca::{CaError, ShootCa};

/// The authority that signs the shoot's agents and endpoint.
pub(crate) const CA_SECRET: &str = "ca-rootstock";
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
        name: &'static str,
        /// Why.
        #[source]
        source: kube::Error,
    },
    /// The Secret has no such key, or no text in it.
    #[error("Secret {name} has no text under {key:?}; delete it and a new one is made")]
    Content {
        /// The Secret.
        name: &'static str,
        /// The key.
        key: &'static str,
    },
    /// The authority can't be used.
    #[error("the shoot's certificate authority can't be used")]
    Authority(#[source] CaError),
}

/// The shoot's authority; it is made where there is none.
pub(crate) async fn authority(seed: &Client, shoot: &ShootName) -> Result<ShootCa, SecretError> {
    let api: Api<Secret> = crate::home::beside(seed, shoot);
    if let Some(secret) = api.get_opt(CA_SECRET).await.map_err(at(CA_SECRET))? {
        return read_authority(shoot, &secret);
    }
    let authority = ShootCa::generate(shoot, Timestamp::now()).map_err(SecretError::Authority)?;
    let mut secret = secret(CA_SECRET, [], []);
    let data = [("ca.crt", authority.cert_pem().to_owned()), ("ca.key", authority.key_pem())];
    secret.data =
        Some(data.map(|(key, text)| (key.to_owned(), ByteString(text.into_bytes()))).into());
    secret.immutable = Some(true);
    match api.create(&PostParams::default(), &secret).await {
        Ok(_) => {
            tracing::info!(%shoot, "made a certificate authority");
            Ok(authority)
        }
        // Two pools race to make the first one; either will do.
        Err(error) if is_conflict(&error) => {
            let secret = api.get(CA_SECRET).await.map_err(at(CA_SECRET))?;
            read_authority(shoot, &secret)
        }
        Err(error) => Err(at(CA_SECRET)(error)),
    }
}

/// Asks Gardener's token requestor for a token of the shoot's API.
pub(crate) async fn request_access(seed: &Client, shoot: &ShootName) -> Result<(), SecretError> {
    let api: Api<Secret> = crate::home::beside(seed, shoot);
    if let Some(there) = api.get_metadata_opt(ACCESS_SECRET).await.map_err(at(ACCESS_SECRET))? {
        if there.labels().get(ACCESS_LABEL).is_some_and(|value| value == "true") {
            return Ok(());
        }
        // Without the label its token would never be seen.
        let patch = Patch::Merge(json!({"metadata": {"labels": {ACCESS_LABEL: "true"}}}));
        api.patch_metadata(ACCESS_SECRET, &PatchParams::default(), &patch)
            .await
            .map_err(at(ACCESS_SECRET))?;
        return Ok(());
    }
    let secret = secret(
        ACCESS_SECRET,
        [
            ("resources.gardener.cloud/purpose", "token-requestor"),
            ("resources.gardener.cloud/class", "shoot"),
            (ACCESS_LABEL, "true"),
        ],
        [
            ("serviceaccount.resources.gardener.cloud/name", "rootstock"),
            ("serviceaccount.resources.gardener.cloud/namespace", "kube-system"),
        ],
    );
    match api.create(&PostParams::default(), &secret).await {
        Ok(_) => Ok(()),
        Err(error) if is_conflict(&error) => Ok(()),
        Err(error) => Err(at(ACCESS_SECRET)(error)),
    }
}

fn read_authority(shoot: &ShootName, secret: &Secret) -> Result<ShootCa, SecretError> {
    let text = |key: &'static str| {
        let bytes = secret.data.as_ref().and_then(|data| data.get(key));
        bytes
            .and_then(|bytes| std::str::from_utf8(&bytes.0).ok())
            .ok_or(SecretError::Content { name: CA_SECRET, key })
    };
    ShootCa::from_pem(shoot, text("ca.crt")?, text("ca.key")?).map_err(SecretError::Authority)
}

fn secret<const L: usize, const A: usize>(
    name: &str,
    labels: [(&str, &str); L],
    annotations: [(&str, &str); A],
) -> Secret {
    let owned = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    };
    let mut secret = Secret { type_: Some("Opaque".to_owned()), ..Secret::default() };
    let meta = secret.meta_mut();
    meta.name = Some(name.to_owned());
    meta.labels = Some(owned(&labels));
    meta.annotations = Some(owned(&annotations));
    secret
}

fn at(name: &'static str) -> impl Fn(kube::Error) -> SecretError {
    move |source| SecretError::Api { name, source }
}
