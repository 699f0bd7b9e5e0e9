//! The Secrets with a shoot's authorities, as Gardener's secrets manager would
//! keep them: what is made, what is dropped, and the bundle of those that are
//! trusted.
//!
//! ```text
//!  ca-rootstock                  made first     labels: name, managed-by, manager-identity, persist,
//!  ca-rootstock-<hash of time>   by a rotation          checksum-of-config, times
//!  ca-rootstock-bundle-<hash>    all that are trusted; bundle-for
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{DeleteParams, ListParams, ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt as _};
use rootstock_core::digest::Digest;
use rootstock_core::name::ShootName;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use serde_json::json;

use super::{SecretError, at, at_present, owned};
use crate::api::{is_conflict, is_not_found};
use crate::identity::ca::ShootCa;
use crate::identity::rotation::{self, Kept, NAME, Names, New, Rotation, SLOTS};

/// Whose Secrets they are among those of all secrets managers in the namespace:
/// each deletes what has its own name and is not wanted any more, so ours must
/// be nobody else's, least of all `gardenlet`.
const MANAGER: &str = "rootstock";
/// What an authority is made of. Another text makes another checksum, as
/// another configuration does in Gardener's secrets manager.
const CA_CONFIG: &str = "CA ECDSA P-256 10y";
/// By these labels all authorities are found.
pub(crate) const SELECTED: &str =
    "managed-by=secrets-manager,manager-identity=rootstock,name=ca-rootstock";
/// By these the bundle, too.
const OURS: &str = "managed-by=secrets-manager,manager-identity=rootstock";
const BUNDLE: &str = "ca-rootstock-bundle";
const INITIATED: &str = "last-rotation-initiation-time";

/// An authority as a Secret keeps it.
#[derive(Debug)]
pub(crate) struct Authority {
    pub(crate) kept: Kept,
    pub(crate) ca: Arc<ShootCa>,
}

/// What decides about a shoot's authorities, beside those that are there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wish {
    pub(crate) rotation: Rotation,
    pub(crate) names: Names,
}

/// Makes and drops authorities until they are as they should be, and tells
/// those that are trusted, as PEM.
pub(crate) async fn keep(
    seed: &Client,
    shoot: &ShootName,
    wish: Wish,
    now: Timestamp,
) -> Result<String, SecretError> {
    let api: Api<Secret> = crate::home::beside(seed, shoot);
    let (mut there, bundles) = look(&api, shoot, wish.names).await?;
    let mut plan = plan(&there, wish, now);
    if let Some(new) = &plan.make {
        // One that has ended may have the name.
        if there.iter().any(|old| old.kept.name == new.name) {
            delete(&api, &new.name).await?;
            there.retain(|old| old.kept.name != new.name);
        }
        there.push(make(&api, shoot, new, now).await?);
        plan = self::plan(&there, wish, now);
    }
    for name in &plan.drop {
        delete(&api, name).await?;
        tracing::info!(%shoot, name, "dropped a certificate authority");
    }
    let trusted = plan.roles.map(|roles| roles.trusted).unwrap_or_default();
    let of = |name: &String| there.iter().find(|authority| authority.kept.name == *name);
    let pem = trusted.iter().filter_map(of).map(|authority| authority.ca.cert_pem());
    let pem: String = pem.collect();
    match wish.names {
        Names::Hashed => put_bundle(&api, &pem, &bundles).await?,
        // Nobody looks for it there.
        Names::Slots => {}
    }
    Ok(pem)
}

/// Whether anything has to be made or dropped.
pub(crate) fn is_kept<'a>(
    there: impl IntoIterator<Item = &'a Arc<Authority>>,
    wish: Wish,
    now: Timestamp,
) -> bool {
    let kept: Vec<_> = there.into_iter().map(|authority| authority.kept.clone()).collect();
    let plan = rotation::plan(&kept, wish.rotation, wish.names, now);
    plan.make.is_none() && plan.drop.is_empty()
}

/// Takes all of a shoot's authorities away.
pub(crate) async fn withdraw(seed: &Client, shoot: &ShootName) -> Result<(), SecretError> {
    let api: Api<Secret> = crate::home::beside(seed, shoot);
    let ours = api.list_metadata(&ListParams::default().labels(OURS)).await;
    let names = ours.map_err(at(NAME))?.items.into_iter().map(|secret| secret.name_any());
    // One without labels is not listed.
    for name in names.filter(|name| name != NAME).chain([NAME.to_owned()]) {
        delete(&api, &name).await?;
    }
    Ok(())
}

/// The same in a plain cluster.
pub(crate) async fn withdraw_slots(seed: &Client, shoot: &ShootName) -> Result<(), SecretError> {
    let api: Api<Secret> = crate::home::beside(seed, shoot);
    for name in SLOTS {
        delete(&api, name).await?;
    }
    Ok(())
}

/// Reads an authority out of its Secret. None from one that is on its way out.
pub(crate) fn read(shoot: &ShootName, secret: &Secret) -> Result<Option<Authority>, SecretError> {
    if secret.metadata.deletion_timestamp.is_some() {
        return Ok(None);
    }
    let name = secret.name_any();
    let text = |key: &'static str| {
        let bytes = secret.data.as_ref().and_then(|data| data.get(key));
        bytes
            .and_then(|bytes| std::str::from_utf8(&bytes.0).ok())
            .ok_or_else(|| SecretError::Content { name: name.clone(), key })
    };
    let ca = ShootCa::from_pem(shoot, text("ca.crt")?, text("ca.key")?);
    let ca = ca.map_err(SecretError::Authority)?;
    let initiated = secret.labels().get(INITIATED).and_then(|seconds| seconds.parse().ok());
    Ok(Some(Authority::new(name, initiated, ca)))
}

/// The authorities of a plain cluster, whose names are known.
pub(crate) async fn in_slots(
    api: &Api<Secret>,
    shoot: &ShootName,
) -> Result<Vec<(Secret, Option<Authority>)>, SecretError> {
    let mut found = Vec::new();
    for name in SLOTS {
        if let Some(secret) = api.get_opt(name).await.map_err(at(name))? {
            let authority = read(shoot, &secret)?;
            found.push((secret, authority));
        }
    }
    Ok(found)
}

impl Authority {
    fn new(name: String, initiated: Option<i64>, ca: ShootCa) -> Self {
        let validity = validity(ca.cert_pem());
        let [from, until] = validity.unwrap_or_else(|| [Timestamp::MIN, ca.not_after()]);
        Self { kept: Kept { name, initiated, from, until }, ca: Arc::new(ca) }
    }

    /// The labels of Gardener's secrets manager.
    fn labels(&self) -> BTreeMap<String, String> {
        let mut labels = owned(&[
            ("name", NAME),
            ("managed-by", "secrets-manager"),
            ("manager-identity", MANAGER),
            // gardenlet takes it along to another seed.
            ("persist", "true"),
        ]);
        let Kept { initiated, from, until, .. } = &self.kept;
        // Never rotated: empty is how Gardener says so.
        let initiated = initiated.map(|seconds| seconds.to_string()).unwrap_or_default();
        let times = [from, until].map(|at| at.as_second().to_string());
        let [from, until] = times;
        labels.extend(
            [
                (INITIATED, initiated),
                ("checksum-of-config", checksum(CA_CONFIG)),
                ("issued-at-time", from),
                ("valid-until-time", until),
            ]
            .map(|(key, value)| (key.to_owned(), value)),
        );
        labels
    }
}

fn plan(there: &[Authority], wish: Wish, now: Timestamp) -> rotation::Plan {
    let kept: Vec<_> = there.iter().map(|authority| authority.kept.clone()).collect();
    rotation::plan(&kept, wish.rotation, wish.names, now)
}

/// The authorities that are there, with the labels that they should have, and
/// the names of bundles.
async fn look(
    api: &Api<Secret>,
    shoot: &ShootName,
    names: Names,
) -> Result<(Vec<Authority>, Vec<String>), SecretError> {
    let mut found = Vec::new();
    let mut bundles = Vec::new();
    match names {
        Names::Slots => found = in_slots(api, shoot).await?,
        Names::Hashed => {
            let ours = api.list(&ListParams::default().labels(OURS)).await.map_err(at(NAME))?;
            for secret in ours {
                match secret.labels().get("name").map(String::as_str) {
                    Some(NAME) => found.push((secret.clone(), read(shoot, &secret)?)),
                    Some(BUNDLE) => bundles.push(secret.name_any()),
                    Some(_) | None => {}
                }
            }
            // One without labels is not listed.
            if found.is_empty()
                && let Some(secret) = api.get_opt(NAME).await.map_err(at(NAME))?
            {
                found.push((secret.clone(), read(shoot, &secret)?));
            }
        }
    }
    let mut there = Vec::new();
    let mut terminating = None;
    for (secret, authority) in found {
        match authority {
            Some(authority) => {
                mend(api, &authority, &secret).await?;
                there.push(authority);
            }
            None => terminating = Some(secret.name_any()),
        }
    }
    match terminating {
        // Somebody wants another one, under the same name as it may be.
        Some(name) if there.is_empty() => Err(SecretError::Terminating { name }),
        Some(_) | None => Ok((there, bundles)),
    }
}

/// Without its labels gardenlet would leave it behind when the shoot moves.
async fn mend(api: &Api<Secret>, authority: &Authority, there: &Secret) -> Result<(), SecretError> {
    let wanted = authority.labels();
    let missing: BTreeMap<_, _> =
        wanted.iter().filter(|(key, _)| !there.labels().contains_key(*key)).collect();
    if missing.is_empty() && there.immutable == Some(true) {
        return Ok(());
    }
    let name = &authority.kept.name;
    let patch = Patch::Merge(json!({"metadata": {"labels": missing}, "immutable": true}));
    let patched = api.patch(name, &PatchParams::default(), &patch).await;
    patched.map_err(at_present(name))?;
    Ok(())
}

async fn make(
    api: &Api<Secret>,
    shoot: &ShootName,
    new: &New,
    now: Timestamp,
) -> Result<Authority, SecretError> {
    let name = new.name.as_str();
    let ca = ShootCa::generate(shoot, now).map_err(SecretError::Authority)?;
    let authority = Authority::new(name.to_owned(), new.initiated, ca);
    let data = [("ca.crt", authority.ca.cert_pem().to_owned()), ("ca.key", authority.ca.key_pem())];
    let secret = secret(name, authority.labels(), &data);
    match api.create(&PostParams::default(), &secret).await {
        Ok(_) => {
            tracing::info!(%shoot, name, initiated = new.initiated, "made a certificate authority");
            Ok(authority)
        }
        // Somebody made it meanwhile; either will do.
        Err(error) if is_conflict(&error) => {
            let there = api.get(name).await.map_err(at_present(name))?;
            let authority = read(shoot, &there)?
                .ok_or_else(|| SecretError::Terminating { name: name.to_owned() })?;
            mend(api, &authority, &there).await?;
            Ok(authority)
        }
        Err(error) => Err(at(name)(error)),
    }
}

/// Writes the bundle, which is named by what is in it, and drops those before.
/// It follows from the authorities: nobody has to take it to another seed.
async fn put_bundle(api: &Api<Secret>, pem: &str, there: &[String]) -> Result<(), SecretError> {
    let checksum = checksum(pem);
    let hash = Digest::of(checksum.as_bytes()).hex();
    let name = format!("{BUNDLE}-{}", hash.get(..8).unwrap_or_default());
    if !there.contains(&name) {
        let labels = owned(&[
            ("name", BUNDLE),
            ("managed-by", "secrets-manager"),
            ("manager-identity", MANAGER),
            ("checksum-of-config", &checksum),
            (INITIATED, ""),
            ("bundle-for", NAME),
        ]);
        let secret = secret(&name, labels, &[("bundle.crt", pem.to_owned())]);
        match api.create(&PostParams::default(), &secret).await {
            Err(error) if !is_conflict(&error) => return Err(at(&name)(error)),
            Ok(_) | Err(_) => {}
        }
    }
    for old in there.iter().filter(|old| **old != name) {
        delete(api, old).await?;
    }
    Ok(())
}

fn secret(name: &str, labels: BTreeMap<String, String>, data: &[(&str, String)]) -> Secret {
    let data = data.iter().map(|(key, text)| ((*key).to_owned(), ByteString(text.clone().into())));
    Secret {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            labels: Some(labels),
            ..ObjectMeta::default()
        },
        type_: Some("Opaque".to_owned()),
        immutable: Some(true),
        data: Some(data.collect()),
        ..Secret::default()
    }
}

async fn delete(api: &Api<Secret>, name: &str) -> Result<(), SecretError> {
    match api.delete(name, &DeleteParams::default()).await {
        Err(error) if !is_not_found(&error) => Err(at(name)(error)),
        Ok(_) | Err(_) => Ok(()),
    }
}

/// A decimal number of 64 bits, as Gardener's are.
fn checksum(of: &str) -> String {
    let digest = Digest::of(of.as_bytes());
    let head = digest.as_bytes().iter().take(8);
    head.fold(0, |sum: u64, byte| sum << 8 | u64::from(*byte)).to_string()
}

/// When a certificate begins and ends.
fn validity(cert_pem: &str) -> Option<[Timestamp; 2]> {
    let certificate = CertificateDer::from_pem_slice(cert_pem.as_bytes()).ok()?;
    let (_, parsed) = x509_parser::parse_x509_certificate(&certificate).ok()?;
    let validity = parsed.validity();
    let at = |time: i64| Timestamp::from_second(time).ok();
    Some([at(validity.not_before.timestamp())?, at(validity.not_after.timestamp())?])
}
