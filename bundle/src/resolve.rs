//! From a reference to one exact bundle: which manifest, and what it says.

use std::collections::BTreeMap;
use std::time::Duration;

use rootstock_core::bundle::{BundleConfig, ConfigBlob, InvalidBundle, MAX_CONFIG_SIZE};
use rootstock_core::digest::Digest;
use rootstock_core::name::Architecture;
use rootstock_core::status::Reason;

use crate::client::Client;
use crate::fetch::{Fetched, Trouble};
use crate::manifest::{Descriptor, Document, Index, Manifest, Platform};
use crate::media;
use crate::token::Wanted;
use rootstock_core::reference::{Repository, Version};

/// How long all of it may take: three small objects.
const DEADLINE: Duration = Duration::from_secs(30);

/// One exact bundle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// What the reference stands for: the digest of the index, or of the
    /// manifest where there is no index. A catalog pins a bundle with it.
    pub digest: Digest,
    /// The digest of the manifest for the architecture that was asked for.
    pub manifest: Digest,
    /// What the bundle says of itself. Every file's blob is among the
    /// manifest's layers.
    pub config: ConfigBlob,
}

/// Why a reference stands for no bundle that can be used.
#[derive(Debug)]
pub struct ResolveError {
    reference: String,
    url: String,
    /// What is wrong.
    pub problem: Problem,
}

/// What is wrong with a reference.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// The registry did not hand it out, or handed out something else.
    #[error(transparent)]
    Registry(#[from] Trouble),
    /// It is not a bundle, or its parts contradict each other.
    #[error("{0}")]
    Invalid(String),
    /// Its config blob is refused.
    #[error(transparent)]
    Config(#[from] InvalidBundle),
    /// It has nothing for the architecture.
    #[error("it has nothing for {wanted}, only for {}", list(has))]
    Architecture {
        /// What was asked for.
        wanted: Architecture,
        /// What it has.
        has: Vec<String>,
    },
}

fn list(has: &[String]) -> String {
    // A hostile index must not fill a condition.
    if has.is_empty() { "nothing".to_owned() } else { has[..has.len().min(8)].join(", ") }
}

impl Problem {
    /// The reason that users see.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Registry(trouble) => trouble.reason(),
            Self::Invalid(_) => Reason::BundleInvalid,
            Self::Config(invalid) => invalid.reason(),
            Self::Architecture { .. } => Reason::ArchitectureMismatch,
        }
    }
}

impl ResolveError {
    /// The reason that users see.
    pub fn reason(&self) -> Reason {
        self.problem.reason()
    }
}

impl std::fmt::Display for ResolveError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "bundle {} of registry {}: {}", self.reference, self.url, self.problem)
    }
}

impl std::error::Error for ResolveError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        // The problem itself is in the message.
        self.problem.source()
    }
}

impl Client {
    /// What `version` of `repository` is for `architecture`, within 30 seconds.
    ///
    /// Every byte that comes is checked: sizes against limits, bytes against
    /// digests, the config blob's files against the manifest's layers.
    pub async fn resolve(
        &self,
        repository: &Repository,
        version: &Version,
        architecture: Architecture,
    ) -> Result<Resolved, ResolveError> {
        let work = self.resolve_now(repository, version, architecture);
        let late = || Trouble::Late(DEADLINE.as_secs()).into();
        let outcome = tokio::time::timeout(DEADLINE, work).await.unwrap_or_else(|_| Err(late()));
        outcome.map_err(|problem| ResolveError {
            reference: format!("{}/{repository}{version}", self.base.name),
            url: self.base.url.clone(),
            problem,
        })
    }

    async fn resolve_now(
        &self,
        repository: &Repository,
        version: &Version,
        architecture: Architecture,
    ) -> Result<Resolved, Problem> {
        let wanted = self.wanted(repository, "pull").await?;
        let token = match &wanted {
            Wanted::Token(token) => Some(token.as_str()),
            Wanted::Nothing => None,
        };
        let top = self.top(repository, version, token).await?;
        let (manifest_digest, manifest) =
            match Document::parse(&top.bytes).map_err(Problem::Invalid)? {
                Document::Manifest(manifest) => (top.digest, manifest),
                Document::Index(index) => {
                    let entry = pick(&index, architecture)?;
                    let fetched = self.exactly(repository, "manifests", entry, token).await?;
                    match Document::parse(&fetched.bytes).map_err(Problem::Invalid)? {
                        Document::Manifest(manifest) => (entry.digest, manifest),
                        Document::Index(_) => {
                            return Err(Problem::Invalid("its index holds an index".to_owned()));
                        }
                    }
                }
            };
        check_kind(&manifest)?;
        let config = self.exactly(repository, "blobs", &manifest.config, token).await?;
        let config = ConfigBlob::parse(&config.bytes)?;
        check_architecture(config.config(), architecture)?;
        check_layers(config.config(), &manifest)?;
        Ok(Resolved { digest: top.digest, manifest: manifest_digest, config })
    }

    /// The index or manifest that the reference itself names.
    async fn top(
        &self,
        repository: &Repository,
        version: &Version,
        token: Option<&str>,
    ) -> Result<Fetched, Trouble> {
        let what = "its manifest";
        let name = match version {
            Version::Tag(tag) => tag.to_string(),
            Version::Digest(digest) => digest.to_string(),
        };
        let accept = format!("{}, {}", media::INDEX, media::MANIFEST);
        let path = format!("manifests/{name}");
        let limit = media::MAX_MANIFEST_SIZE;
        let top = self.get(repository, &path, &accept, limit, token, what).await?;
        let expected = match version {
            Version::Digest(digest) => Some(*digest),
            // Behind a tag only the registry knows the digest: its word and
            // its bytes must at least agree.
            Version::Tag(_) => top
                .headers
                .get("docker-content-digest")
                .and_then(|value| value.to_str().ok())
                .and_then(|value| value.parse().ok()),
        };
        match expected {
            Some(expected) if expected != top.digest => {
                Err(Trouble::Digest { what: what.to_owned(), actual: top.digest })
            }
            Some(_) | None => Ok(top),
        }
    }

    /// The object that a descriptor names, of its size and with its digest.
    async fn exactly(
        &self,
        repository: &Repository,
        kind: &str,
        descriptor: &Descriptor,
        token: Option<&str>,
    ) -> Result<Fetched, Problem> {
        let (what, limit) = match kind {
            "blobs" => ("its config blob", MAX_CONFIG_SIZE),
            _ => ("its manifest", media::MAX_MANIFEST_SIZE),
        };
        let what = format!("{what} {}", descriptor.digest);
        let size = match usize::try_from(descriptor.size) {
            Ok(size) if size <= limit => size,
            _ => return Err(Trouble::TooLarge { what, limit }.into()),
        };
        let path = format!("{kind}/{}", descriptor.digest);
        let fetched =
            self.get(repository, &path, &descriptor.media_type, size, token, &what).await?;
        if fetched.digest != descriptor.digest {
            return Err(Trouble::Digest { what, actual: fetched.digest }.into());
        }
        if fetched.bytes.len() != size {
            let has = fetched.bytes.len();
            return Err(Problem::Invalid(format!("{what} has {has} bytes, declared are {size}")));
        }
        Ok(fetched)
    }
}

fn pick(index: &Index, architecture: Architecture) -> Result<&Descriptor, Problem> {
    let wanted = Platform::linux(architecture);
    index.manifests.iter().find(|entry| entry.platform.as_ref() == Some(&wanted)).ok_or_else(|| {
        let platforms = index.manifests.iter().filter_map(|entry| entry.platform.as_ref());
        let has = platforms
            .map(|at| format!("{}/{}", at.os, at.architecture).chars().take(40).collect())
            .collect();
        Problem::Architecture { wanted: architecture, has }
    })
}

fn check_kind(manifest: &Manifest) -> Result<(), Problem> {
    if manifest.artifact_type.as_deref() != Some(media::BUNDLE) {
        let kind = manifest.artifact_type.as_deref().unwrap_or("none");
        return Err(Problem::Invalid(format!(
            "it is not a bundle: its artifact type is {kind:.100}, want {}",
            media::BUNDLE
        )));
    }
    if manifest.config.media_type != media::CONFIG {
        let kind = &manifest.config.media_type;
        return Err(Problem::Invalid(format!(
            "its config blob has media type {kind:.100}, want {}",
            media::CONFIG
        )));
    }
    Ok(())
}

fn check_architecture(config: &BundleConfig, wanted: Architecture) -> Result<(), Problem> {
    match config.architecture {
        Some(has) if has != wanted => {
            Err(Problem::Architecture { wanted, has: vec![format!("linux/{has}")] })
        }
        Some(_) | None => Ok(()),
    }
}

/// A file whose blob is no layer would be collected by the registry as garbage.
fn check_layers(config: &BundleConfig, manifest: &Manifest) -> Result<(), Problem> {
    let files = manifest.layers.iter().filter(|layer| layer.media_type == media::FILE);
    let sizes: BTreeMap<Digest, u64> = files.map(|layer| (layer.digest, layer.size)).collect();
    for file in &config.files {
        match sizes.get(&file.blob) {
            Some(size) if *size == file.blob_size => {}
            Some(size) => {
                return Err(Problem::Invalid(format!(
                    "the blob of file {} has {} bytes, its layer {size}",
                    file.path, file.blob_size
                )));
            }
            None => {
                return Err(Problem::Invalid(format!(
                    "the blob of file {} is not among its layers",
                    file.path
                )));
            }
        }
    }
    Ok(())
}
