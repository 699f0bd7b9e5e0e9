//! Blobs, manifests and tags on disk.
//!
//! ```text
//!  blobs/<hex>                                   bytes of blobs and manifests
//!  repositories/<repository>/_blobs/<hex>        the repository has the blob
//!  repositories/<repository>/_manifests/<hex>    the manifest's media type
//!  repositories/<repository>/_tags/<tag>         the digest that the tag stands for
//! ```
//! No part of a repository's name begins with `_`.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use rootstock_core::digest::Digest;
use rootstock_core::reference::{Repository, Tag};
use tokio::fs;

#[derive(Debug)]
pub(super) struct Store {
    blobs: PathBuf,
    repositories: PathBuf,
}

/// A manifest or blob that is there.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) digest: Digest,
    pub(super) size: u64,
    pub(super) at: PathBuf,
    pub(super) media_type: String,
}

impl Store {
    pub(super) async fn open(dir: &Path) -> io::Result<Self> {
        let store = Self { blobs: dir.join("blobs"), repositories: dir.join("repositories") };
        fs::create_dir_all(&store.blobs).await?;
        fs::create_dir_all(&store.repositories).await?;
        Ok(store)
    }

    /// The blob, if the repository has it.
    pub(super) async fn blob(
        &self,
        repository: &Repository,
        digest: &Digest,
    ) -> io::Result<Option<Found>> {
        if !fs::try_exists(self.link(repository, "_blobs", &digest.hex())).await? {
            return Ok(None);
        }
        self.found(digest, "application/octet-stream".to_owned()).await
    }

    /// The manifest, if the repository has it.
    pub(super) async fn manifest(
        &self,
        repository: &Repository,
        digest: &Digest,
    ) -> io::Result<Option<Found>> {
        match read(&self.link(repository, "_manifests", &digest.hex())).await? {
            Some(media_type) => self.found(digest, media_type).await,
            None => Ok(None),
        }
    }

    /// What a tag stands for.
    pub(super) async fn tag(
        &self,
        repository: &Repository,
        tag: &Tag,
    ) -> io::Result<Option<Digest>> {
        match read(&self.link(repository, "_tags", tag.as_str())).await? {
            Some(text) => text.parse().map(Some).map_err(io::Error::other),
            None => Ok(None),
        }
    }

    /// Takes a finished upload in; its bytes have the digest.
    pub(super) async fn put_blob(
        &self,
        repository: &Repository,
        digest: &Digest,
        upload: tempfile::TempPath,
    ) -> io::Result<()> {
        let to = self.blobs.join(digest.hex());
        persist(upload, to).await?;
        self.write(repository, "_blobs", &digest.hex(), String::new()).await
    }

    /// Makes a blob of one repository one of another too; whether it was there.
    pub(super) async fn mount(
        &self,
        from: &Repository,
        to: &Repository,
        digest: &Digest,
    ) -> io::Result<bool> {
        if self.blob(from, digest).await?.is_none() {
            return Ok(false);
        }
        self.write(to, "_blobs", &digest.hex(), String::new()).await?;
        Ok(true)
    }

    pub(super) async fn put_manifest(
        &self,
        repository: &Repository,
        tag: Option<&Tag>,
        digest: &Digest,
        media_type: &str,
        bytes: Vec<u8>,
    ) -> io::Result<()> {
        let blobs = self.blobs.clone();
        let temporary = blocking(move || {
            use io::Write as _;
            let mut file = tempfile::NamedTempFile::new_in(blobs)?;
            file.write_all(&bytes)?;
            Ok(file.into_temp_path())
        })
        .await?;
        persist(temporary, self.blobs.join(digest.hex())).await?;
        self.write(repository, "_manifests", &digest.hex(), media_type.to_owned()).await?;
        match tag {
            Some(tag) => self.write(repository, "_tags", tag.as_str(), digest.to_string()).await,
            None => Ok(()),
        }
    }

    /// The tags of a repository in order; none where there is no such repository.
    pub(super) async fn tags(&self, repository: &Repository) -> io::Result<Option<Vec<String>>> {
        if !fs::try_exists(self.link(repository, "_manifests", "")).await? {
            return Ok(None);
        }
        let mut tags = names(&self.link(repository, "_tags", "")).await?;
        tags.sort();
        Ok(Some(tags))
    }

    /// All repositories that have a manifest, in order.
    pub(super) async fn repositories(&self) -> io::Result<Vec<String>> {
        let mut all = Vec::new();
        let mut folders = vec![String::new()];
        while let Some(folder) = folders.pop() {
            for name in names(&self.repositories.join(&folder)).await? {
                if name == "_manifests" {
                    all.push(folder.clone());
                } else if !name.starts_with('_') {
                    folders.push(if folder.is_empty() { name } else { format!("{folder}/{name}") });
                }
            }
        }
        all.sort();
        Ok(all)
    }

    pub(super) async fn remove_tag(&self, repository: &str, tag: &str) -> io::Result<()> {
        let repository: Repository = repository.parse().map_err(io::Error::other)?;
        let tag: Tag = tag.parse().map_err(io::Error::other)?;
        fs::remove_file(self.link(&repository, "_tags", tag.as_str())).await
    }

    pub(super) async fn remove_blob(&self, digest: &Digest) -> io::Result<()> {
        fs::remove_file(self.blobs.join(digest.hex())).await
    }

    async fn found(&self, digest: &Digest, media_type: String) -> io::Result<Option<Found>> {
        let at = self.blobs.join(digest.hex());
        match fs::metadata(&at).await {
            Ok(metadata) => {
                Ok(Some(Found { digest: *digest, size: metadata.len(), at, media_type }))
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn link(&self, repository: &Repository, kind: &str, name: &str) -> PathBuf {
        self.repositories.join(repository.as_str()).join(kind).join(name)
    }

    async fn write(
        &self,
        repository: &Repository,
        kind: &str,
        name: &str,
        text: String,
    ) -> io::Result<()> {
        let to = self.link(repository, kind, name);
        let folder = self.link(repository, kind, "");
        blocking(move || {
            use io::Write as _;
            std::fs::create_dir_all(&folder)?;
            // Beside the folder: what lies in it is listed.
            let above = folder.parent().unwrap_or(&folder);
            let mut file = tempfile::NamedTempFile::with_prefix_in("_", above)?;
            file.write_all(text.as_bytes())?;
            file.persist(&to).map_err(|error| error.error)?;
            Ok(())
        })
        .await
    }
}

async fn persist(from: tempfile::TempPath, to: PathBuf) -> io::Result<()> {
    blocking(move || from.persist(to).map_err(|error| error.error)).await
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

async fn read(file: &Path) -> io::Result<Option<String>> {
    match fs::read_to_string(file).await {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

async fn names(folder: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    let mut entries = match fs::read_dir(folder).await {
        Ok(entries) => entries,
        // A repository without tags, or a temporary file instead of a folder.
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(names);
        }
        Err(error) => return Err(error),
    };
    while let Some(entry) = entries.next_entry().await? {
        names.extend(entry.file_name().into_string().ok());
    }
    Ok(names)
}
