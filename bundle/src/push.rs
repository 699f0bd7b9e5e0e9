//! Into a registry: blobs, config blobs, manifests, and the index under a tag.

use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::{Stream, stream};
use http::HeaderValue;
use oci_client::RegistryOperation;
use oci_client::errors::OciDistributionError;
use oci_client::secrets::RegistryAuth;
use oci_client::token_cache::{RegistryToken, RegistryTokenType as Shown};
use rootstock_core::digest::Digest;
use rootstock_core::name::Architecture;
use rootstock_core::status::Reason;
use tokio::io::AsyncReadExt as _;

use crate::build::{Blob, Built};
use crate::client::Client;
use crate::fetch::Trouble;
use crate::manifest::{Descriptor, Index, Platform};
use crate::media;
use crate::token::Wanted;
use rootstock_core::reference::{Repository, Tag};

/// Bytes that an upload reads at once.
const CHUNK: usize = 256 << 10;
/// What a request may take, beside its bytes.
const PATIENCE: Duration = Duration::from_secs(60);
/// The slowest upload that is waited for, in bytes per second.
const SLOWEST: u64 = 1 << 20;

/// How long a token is used: one that names no end lasts 60 seconds.
const ADMITTED: Duration = Duration::from_secs(45);

/// What was pushed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pushed {
    /// The digest of the index: what a catalog pins.
    pub digest: Digest,
    /// The digest of each manifest, by architecture; none for one that runs on every one.
    pub manifests: Vec<(Option<Architecture>, Digest)>,
    /// How many blobs were uploaded; the others were there.
    pub uploaded: usize,
    /// The bytes of these blobs.
    pub uploaded_bytes: u64,
}

/// Why a bundle was not pushed.
#[derive(Debug, thiserror::Error)]
pub enum PushError {
    /// The registry did not take it.
    #[error("bundle {reference} does not get into registry {url}")]
    Registry {
        /// Where it should go.
        reference: String,
        /// The registry's URL.
        url: String,
        /// What happened.
        #[source]
        trouble: Trouble,
    },
    /// A blob of the build can't be read.
    #[error("can't read {path}", path = path.display())]
    Read {
        /// The blob's file.
        path: PathBuf,
        /// What happened.
        #[source]
        source: io::Error,
    },
    /// There is nothing to push.
    #[error("the bundle has no platform")]
    Empty,
    /// The index can't be written as JSON.
    #[error("the index can't be written as JSON")]
    Json(#[from] serde_json::Error),
}

impl PushError {
    /// The reason that users see.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Registry { trouble, .. } => trouble.reason(),
            Self::Read { .. } => Reason::HostError,
            Self::Empty => Reason::BundleInvalid,
            Self::Json(_) => Reason::Internal,
        }
    }
}

impl Client {
    /// Pushes one bundle, built for one or more platforms, under a tag.
    ///
    /// Blobs that the repository has are not uploaded again. The tag moves
    /// last, when everything that it leads to is there.
    pub async fn push(
        &self,
        repository: &Repository,
        tag: &Tag,
        platforms: &[Built],
    ) -> Result<Pushed, PushError> {
        if platforms.is_empty() {
            return Err(PushError::Empty);
        }
        let image = self.image(repository, tag.as_str());
        let mut upload = Upload { client: self, repository, tag, image, admitted: None };
        let (mut uploaded, mut uploaded_bytes) = (0, 0);
        for built in platforms {
            for blob in built.blobs() {
                if upload.blob(blob).await? {
                    uploaded += 1;
                    uploaded_bytes += blob.size;
                }
            }
            if upload.config(built.config()).await? {
                uploaded += 1;
                uploaded_bytes += built.config().len() as u64;
            }
            upload.manifest(built.manifest(), media::MANIFEST, Some(built.digest())).await?;
        }
        let index = serde_json::to_vec(&index(platforms))?;
        upload.manifest(&index, media::INDEX, None).await?;
        let manifests = platforms.iter().map(|built| (built.architecture(), built.digest()));
        let digest = Digest::of(&index);
        tracing::debug!(%repository, %tag, %digest, uploaded, uploaded_bytes, "pushed");
        Ok(Pushed { digest, manifests: manifests.collect(), uploaded, uploaded_bytes })
    }
}

fn index(platforms: &[Built]) -> Index {
    let entry = |built: &Built, architecture| Descriptor {
        media_type: media::MANIFEST.to_owned(),
        artifact_type: Some(media::BUNDLE.to_owned()),
        digest: built.digest(),
        size: built.manifest().len() as u64,
        platform: Some(Platform::linux(architecture)),
        annotations: Default::default(),
    };
    let manifests = platforms.iter().flat_map(|built| match built.architecture() {
        Some(architecture) => vec![entry(built, architecture)],
        None => vec![entry(built, Architecture::Amd64), entry(built, Architecture::Arm64)],
    });
    Index {
        schema_version: 2,
        media_type: media::INDEX.to_owned(),
        artifact_type: Some(media::BUNDLE.to_owned()),
        manifests: manifests.collect(),
    }
}

struct Upload<'a> {
    client: &'a Client,
    repository: &'a Repository,
    tag: &'a Tag,
    image: oci_client::Reference,
    /// When what oci-client shows was renewed.
    admitted: Option<Instant>,
}

impl Upload<'_> {
    /// Gives oci-client what the registry wants to see, where that may be old.
    async fn admit(&mut self) -> Result<(), PushError> {
        if self.admitted.is_some_and(|at| at.elapsed() < ADMITTED) {
            return Ok(());
        }
        let Client { oci, auth, base, .. } = self.client;
        let wanted = self.client.wanted(self.repository, "pull,push").await;
        let shown = match (wanted.map_err(|trouble| self.failed(trouble))?, auth) {
            (Wanted::Token(token), _) => Some(Shown::Bearer(RegistryToken::Token { token })),
            (Wanted::Nothing, RegistryAuth::Basic(user, secret)) => {
                Some(Shown::Basic(user.clone(), secret.clone()))
            }
            (Wanted::Nothing, RegistryAuth::Anonymous | RegistryAuth::Bearer(_)) => None,
        };
        // Without an entry it would show nothing at all.
        oci.store_auth_if_needed(&base.host, &RegistryAuth::Anonymous).await;
        for operation in [RegistryOperation::Pull, RegistryOperation::Push] {
            if let Some(shown) = shown.clone() {
                oci.tokens.insert(&self.image, operation, shown).await;
            }
        }
        self.admitted = Some(Instant::now());
        Ok(())
    }

    fn failed(&self, trouble: Trouble) -> PushError {
        PushError::Registry {
            reference: format!("{}/{}:{}", self.client.base.name, self.repository, self.tag),
            url: self.client.base.url.clone(),
            trouble,
        }
    }

    /// Uploads a file's blob unless it is there; whether it did.
    async fn blob(&mut self, blob: &Blob) -> Result<bool, PushError> {
        self.admit().await?;
        let digest = blob.digest.to_string();
        if self.exists(&digest).await? {
            return Ok(false);
        }
        let file = tokio::fs::File::open(&blob.at)
            .await
            .map_err(|source| PushError::Read { path: blob.at.clone(), source })?;
        let push =
            self.client.oci.push_blob_stream(&self.image, chunks(file), &digest, Some(blob.size));
        self.timed(blob.size, &digest, push).await?;
        Ok(true)
    }

    async fn config(&mut self, json: &[u8]) -> Result<bool, PushError> {
        self.admit().await?;
        let digest = Digest::of(json).to_string();
        if self.exists(&digest).await? {
            return Ok(false);
        }
        let push = self.client.oci.push_blob(&self.image, Bytes::copy_from_slice(json), &digest);
        self.timed(json.len() as u64, &digest, push).await?;
        Ok(true)
    }

    /// Puts a manifest under its digest, or under the tag.
    async fn manifest(
        &mut self,
        json: &[u8],
        media_type: &'static str,
        digest: Option<Digest>,
    ) -> Result<(), PushError> {
        self.admit().await?;
        let image = match digest {
            Some(digest) => self.image.clone_with_digest(digest.to_string()),
            None => self.image.clone(),
        };
        let push = self.client.oci.push_manifest_raw(
            &image,
            Bytes::copy_from_slice(json),
            HeaderValue::from_static(media_type),
        );
        self.timed(json.len() as u64, "the manifest", push).await.map(drop)
    }

    async fn exists(&self, digest: &str) -> Result<bool, PushError> {
        self.timed(0, digest, self.client.oci.blob_exists(&self.image, digest)).await
    }

    /// Bounds a request in time: by its bytes, at the slowest rate that is waited for.
    async fn timed<T>(
        &self,
        size: u64,
        what: &str,
        work: impl Future<Output = Result<T, OciDistributionError>>,
    ) -> Result<T, PushError> {
        let limit = PATIENCE + Duration::from_secs(size / SLOWEST);
        let trouble = match tokio::time::timeout(limit, work).await {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(error)) => Trouble::from_oci(error, what),
            Err(_) => Trouble::Late(limit.as_secs()),
        };
        Err(self.failed(trouble))
    }
}

/// A file as a stream; one chunk is in memory at a time.
fn chunks(
    file: tokio::fs::File,
) -> impl Stream<Item = Result<Bytes, OciDistributionError>> + Send + 'static {
    stream::try_unfold(file, |mut file| async move {
        let mut chunk = Vec::with_capacity(CHUNK);
        let read = (&mut file).take(CHUNK as u64).read_to_end(&mut chunk).await?;
        Ok((read > 0).then(|| (Bytes::from(chunk), file)))
    })
}
