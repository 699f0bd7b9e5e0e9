//! The Secrets of a shoot in its control plane's namespace.
//!
//! Both are Gardener's by their form: the authority is one of its secrets
//! manager, so that gardenlet moves it to another seed with the shoot, and the
//! access Secret is filled by its token requestor. What a restored control
//! plane finds is used as it is.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt as _};
use rootstock_core::digest::Digest;
use rootstock_core::name::ShootName;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use serde_json::json;

use crate::api::{is_conflict, is_not_found, is_transient};
use crate::identity::ca::{CaError, ShootCa};
use crate::objects::agent::{ACCESS_ACCOUNT, NAMESPACE};

/// The authority that signs the shoot's agents and endpoint.
pub(crate) const CA_SECRET: &str = "ca-rootstock";
/// The token for the shoot's API.
pub(crate) const ACCESS_SECRET: &str = "shoot-access-rootstock";
/// By this label one watch sees all access Secrets.
pub(crate) const ACCESS_LABEL: &str = "rootstock.gardener.cloud/shoot-access";

/// Whose Secret it is among those of all secrets managers in the namespace:
/// each deletes what has its own name and is not wanted any more, so ours must
/// be nobody else's, least of all `gardenlet`.
const MANAGER: &str = "rootstock";
/// What the authority is made of. Another text makes another checksum, as
/// another configuration does in Gardener's secrets manager.
const CA_CONFIG: &str = "CA ECDSA P-256 10y";

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
    /// It is on its way out and has to be gone first.
    #[error("Secret {name} is still being deleted")]
    Terminating {
        /// The Secret.
        name: &'static str,
    },
    /// The Secret has no such key, or no text in it.
    #[error("Secret {name} has no text under {key:?}; delete it and a new one is made")]
    Content {
        /// The Secret.
        name: &'static str,
        /// The key.
        key: &'static str,
    },
    /// It was there a moment ago.
    #[error("Secret {name} vanished meanwhile")]
    Vanished {
        /// The Secret.
        name: &'static str,
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

/// The shoot's authority; it is made where there is none.
pub(crate) async fn authority(seed: &Client, shoot: &ShootName) -> Result<ShootCa, SecretError> {
    let api: Api<Secret> = crate::home::beside(seed, shoot);
    let there = match api.get_opt(CA_SECRET).await.map_err(at(CA_SECRET))? {
        Some(there) => there,
        None => {
            let (authority, secret) = new_authority(shoot)?;
            match api.create(&PostParams::default(), &secret).await {
                Ok(_) => {
                    tracing::info!(%shoot, "made a certificate authority");
                    return Ok(authority);
                }
                // Two pools race to make the first one; either will do.
                Err(error) if is_conflict(&error) => {
                    api.get(CA_SECRET).await.map_err(at_present(CA_SECRET))?
                }
                Err(error) => return Err(at(CA_SECRET)(error)),
            }
        }
    };
    let authority = read_authority(shoot, &there)?;
    // Without its labels gardenlet would leave it behind when the shoot moves.
    let wanted = authority_labels(authority.cert_pem());
    let missing: BTreeMap<_, _> =
        wanted.iter().filter(|(key, _)| !there.labels().contains_key(*key)).collect();
    if !missing.is_empty() || there.immutable != Some(true) {
        let patch = Patch::Merge(json!({"metadata": {"labels": missing}, "immutable": true}));
        let patched = api.patch(CA_SECRET, &PatchParams::default(), &patch).await;
        patched.map_err(at_present(CA_SECRET))?;
    }
    Ok(authority)
}

/// The shoot's authority, where one was made.
pub(crate) async fn known_authority(
    seed: &Client,
    shoot: &ShootName,
) -> Result<Option<ShootCa>, SecretError> {
    let api: Api<Secret> = crate::home::beside(seed, shoot);
    let there = api.get_opt(CA_SECRET).await.map_err(at(CA_SECRET))?;
    there.map(|secret| read_authority(shoot, &secret)).transpose()
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
        return Err(SecretError::Terminating { name: ACCESS_SECRET });
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

fn new_authority(shoot: &ShootName) -> Result<(ShootCa, Secret), SecretError> {
    let authority = ShootCa::generate(shoot, Timestamp::now()).map_err(SecretError::Authority)?;
    let data = [("ca.crt", authority.cert_pem().to_owned()), ("ca.key", authority.key_pem())];
    let secret = Secret {
        metadata: ObjectMeta {
            name: Some(CA_SECRET.to_owned()),
            labels: Some(authority_labels(authority.cert_pem())),
            ..ObjectMeta::default()
        },
        type_: Some("Opaque".to_owned()),
        immutable: Some(true),
        data: Some(data.map(|(key, text)| (key.to_owned(), ByteString(text.into()))).into()),
        ..Secret::default()
    };
    Ok((authority, secret))
}

/// The labels of Gardener's secrets manager.
fn authority_labels(cert_pem: &str) -> BTreeMap<String, String> {
    let mut labels = owned(&[
        ("name", CA_SECRET),
        ("managed-by", "secrets-manager"),
        ("manager-identity", MANAGER),
        // gardenlet takes it along to another seed.
        ("persist", "true"),
        // It was never rotated: empty is how Gardener says so.
        ("last-rotation-initiation-time", ""),
    ]);
    labels.insert("checksum-of-config".to_owned(), config_checksum());
    if let Some([from, until]) = validity(cert_pem) {
        labels.insert("issued-at-time".to_owned(), from.to_string());
        labels.insert("valid-until-time".to_owned(), until.to_string());
    }
    labels
}

/// A decimal number of 64 bits, as Gardener's are.
fn config_checksum() -> String {
    let digest = Digest::of(CA_CONFIG.as_bytes());
    let head = digest.as_bytes().iter().take(8);
    head.fold(0, |sum: u64, byte| sum << 8 | u64::from(*byte)).to_string()
}

/// When a certificate begins and ends, in seconds since 1970.
fn validity(cert_pem: &str) -> Option<[i64; 2]> {
    let certificate = CertificateDer::from_pem_slice(cert_pem.as_bytes()).ok()?;
    let (_, parsed) = x509_parser::parse_x509_certificate(&certificate).ok()?;
    let validity = parsed.validity();
    Some([validity.not_before.timestamp(), validity.not_after.timestamp()])
}

fn read_authority(shoot: &ShootName, secret: &Secret) -> Result<ShootCa, SecretError> {
    if secret.metadata.deletion_timestamp.is_some() {
        return Err(SecretError::Terminating { name: CA_SECRET });
    }
    let text = |key: &'static str| {
        let bytes = secret.data.as_ref().and_then(|data| data.get(key));
        bytes
            .and_then(|bytes| std::str::from_utf8(&bytes.0).ok())
            .ok_or(SecretError::Content { name: CA_SECRET, key })
    };
    ShootCa::from_pem(shoot, text("ca.crt")?, text("ca.key")?).map_err(SecretError::Authority)
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

fn owned(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn at(name: &'static str) -> impl Fn(kube::Error) -> SecretError {
    move |source| SecretError::Api { name, source }
}

/// The same about a Secret that was there when it was last asked for: whoever
/// deletes it was quicker, and it is made anew at the next try.
fn at_present(name: &'static str) -> impl Fn(kube::Error) -> SecretError {
    move |source| match is_not_found(&source) {
        true => SecretError::Vanished { name },
        false => SecretError::Api { name, source },
    }
}
