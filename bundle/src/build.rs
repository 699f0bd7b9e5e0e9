//! Files become blobs: compressed and hashed in one pass, into a folder.
//!
//! The same files and the same description give the same bytes, and with them
//! the same digests. Memory stays at a few buffers however large the files are.

use std::fs::File;
use std::io::{self, Read as _, Write};
use std::path::{Path, PathBuf};

use rootstock_core::bundle::{
    BundleConfig, BundleFile, ConfigBlob, FileMode, InvalidBundle, MAX_FILE_SIZE,
};
use rootstock_core::digest::Digest;
use rootstock_core::name::Architecture;
use rootstock_core::path::BundlePath;
use sha2::{Digest as _, Sha256};

use crate::manifest::{Descriptor, Manifest};
use crate::media;

/// zstd's own default: within 5 % of level 9 for programs, at five times its speed.
pub const DEFAULT_LEVEL: i32 = 3;
/// Bytes read at once.
const CHUNK: usize = 256 << 10;

/// What a bundle is made of, for one platform.
#[derive(Clone, Debug)]
pub struct Source {
    /// Everything but its files, which are filled in by [`build`].
    pub description: BundleConfig,
    /// Its files.
    pub files: Vec<SourceFile>,
    /// zstd's level, 1 to 19.
    pub level: i32,
}

/// One file that goes into a bundle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceFile {
    /// Its path in the bundle.
    pub path: BundlePath,
    /// Where it is.
    pub from: PathBuf,
    /// Its permission bits on the node.
    pub mode: FileMode,
}

/// A bundle for one platform, ready to be pushed.
#[derive(Clone, Debug)]
pub struct Built {
    architecture: Option<Architecture>,
    config: Vec<u8>,
    blobs: Vec<Blob>,
    manifest: Vec<u8>,
}

/// A blob in the folder that a bundle was built into.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blob {
    /// The title of its layer: its path in the bundle.
    pub title: String,
    /// Its digest.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// Where it is.
    pub at: PathBuf,
}

/// Why a bundle was not built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// A source file can't be read.
    #[error("can't read {from}", from = from.display())]
    Read {
        /// The file.
        from: PathBuf,
        /// What happened.
        #[source]
        source: io::Error,
    },
    /// A blob can't be written.
    #[error("can't write a blob into {into}", into = into.display())]
    Write {
        /// The folder for blobs.
        into: PathBuf,
        /// What happened.
        #[source]
        source: io::Error,
    },
    /// A source file is too large.
    #[error("{from} has more than {MAX_FILE_SIZE} bytes", from = from.display())]
    TooLarge {
        /// The file.
        from: PathBuf,
    },
    /// The description contradicts itself or the files.
    #[error("the bundle would be refused by every node")]
    Invalid(#[from] InvalidBundle),
    /// The config blob can't be written as JSON.
    #[error("the bundle can't be written as JSON")]
    Json(#[from] serde_json::Error),
    /// The task that built it ended early.
    #[error("the build was interrupted")]
    Interrupted,
}

/// Builds a bundle; its blobs go into the folder `into`, named by digest.
pub async fn build(source: Source, into: &Path) -> Result<Built, BuildError> {
    let into = into.to_owned();
    tokio::task::spawn_blocking(move || build_blocking(source, &into))
        .await
        .map_err(|_| BuildError::Interrupted)?
}

fn build_blocking(source: Source, into: &Path) -> Result<Built, BuildError> {
    let Source { mut description, mut files, level } = source;
    std::fs::create_dir_all(into)
        .map_err(|source| BuildError::Write { into: into.to_owned(), source })?;
    // The order of a folder's listing must not reach a digest.
    files.sort_by(|a, b| a.path.cmp(&b.path));
    let mut blobs = Vec::with_capacity(files.len());
    description.files.clear();
    for file in &files {
        let (entry, blob) = compress(file, into, level)?;
        description.files.push(entry);
        blobs.push(blob);
    }
    let json = serde_json::to_vec(&description)?;
    // What no node would take is refused here, where its author sees it.
    let config = ConfigBlob::parse(&json)?;
    Ok(Built::unchecked(config.config().architecture, json, blobs, &description.version)?)
}

fn compress(file: &SourceFile, into: &Path, level: i32) -> Result<(BundleFile, Blob), BuildError> {
    let read = |source| BuildError::Read { from: file.from.clone(), source };
    let write = |source| BuildError::Write { into: into.to_owned(), source };

    let mut plain = File::open(&file.from).map_err(read)?;
    let temporary = tempfile::NamedTempFile::new_in(into).map_err(write)?;
    let hashing = Hashing { to: temporary, hash: Sha256::new(), size: 0 };
    let mut encoder = zstd::Encoder::new(hashing, level).map_err(write)?;

    let (mut hash, mut size) = (Sha256::new(), 0_u64);
    let mut chunk = vec![0; CHUNK];
    loop {
        let read = plain.read(&mut chunk).map_err(read)?;
        if read == 0 {
            break;
        }
        size += read as u64;
        if size > MAX_FILE_SIZE {
            return Err(BuildError::TooLarge { from: file.from.clone() });
        }
        hash.update(&chunk[..read]);
        encoder.write_all(&chunk[..read]).map_err(write)?;
    }

    let blob = encoder.finish().map_err(write)?;
    let digest = Digest::from_bytes(blob.hash.finalize().into());
    let at = into.join(format!("{}.zst", digest.hex()));
    blob.to.persist(&at).map_err(|error| write(error.error))?;
    let entry = BundleFile {
        path: file.path.clone(),
        mode: file.mode,
        size,
        sha256: Digest::from_bytes(hash.finalize().into()),
        blob: digest,
        blob_size: blob.size,
    };
    Ok((entry, Blob { title: file.path.to_string(), digest, size: blob.size, at }))
}

/// Hashes and counts what is written through it.
struct Hashing {
    to: tempfile::NamedTempFile,
    hash: Sha256,
    size: u64,
}

impl Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.to.write(bytes)?;
        self.hash.update(&bytes[..written]);
        self.size += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

impl Built {
    /// A bundle of a config blob as it is, which no check has seen.
    ///
    /// A registry takes anything; this makes what a build refuses, so that
    /// tests can show that nodes and controllers refuse it too.
    pub fn unchecked(
        architecture: Option<Architecture>,
        config: Vec<u8>,
        blobs: Vec<Blob>,
        version: &str,
    ) -> Result<Self, serde_json::Error> {
        let descriptor = |media_type: &str, digest, size| Descriptor {
            media_type: media_type.to_owned(),
            artifact_type: None,
            digest,
            size,
            platform: None,
            annotations: Default::default(),
        };
        let layers = blobs.iter().map(|blob| Descriptor {
            annotations: [(media::TITLE.to_owned(), blob.title.clone())].into(),
            ..descriptor(media::FILE, blob.digest, blob.size)
        });
        let manifest = Manifest {
            schema_version: 2,
            media_type: media::MANIFEST.to_owned(),
            artifact_type: Some(media::BUNDLE.to_owned()),
            config: descriptor(media::CONFIG, Digest::of(&config), config.len() as u64),
            layers: layers.collect(),
            annotations: [(media::VERSION.to_owned(), version.to_owned())].into(),
        };
        let manifest = serde_json::to_vec(&manifest)?;
        Ok(Self { architecture, config, blobs, manifest })
    }

    /// The architecture of its programs; none where it runs on every one.
    pub fn architecture(&self) -> Option<Architecture> {
        self.architecture
    }

    /// The config blob's bytes.
    pub fn config(&self) -> &[u8] {
        &self.config
    }

    /// Its files' blobs, in the order of their paths.
    pub fn blobs(&self) -> &[Blob] {
        &self.blobs
    }

    /// Its manifest's bytes.
    pub fn manifest(&self) -> &[u8] {
        &self.manifest
    }

    /// The digest of its manifest.
    pub fn digest(&self) -> Digest {
        Digest::of(&self.manifest)
    }
}
