//! Bundles for the demo and for tests: of real files where the machine has them.
//!
//! * [`gvisor`]: the real `runsc` and its shim, else a sample that says so
//! * [`kata`]: a sample tree of the real one's shape
//! * [`tiny`]: a few bytes, for tests; also for other architectures, and hostile ones
//!
//! A [`Sample`] knows the source of each of its files, so that what arrives
//! on a node can be compared with it.

mod gvisor;
mod kata;
#[cfg(test)]
mod tests;
pub mod tiny;

use std::io;
use std::path::{Path, PathBuf};

use rootstock_bundle::build::{BuildError, DEFAULT_LEVEL};
use rootstock_bundle::{Built, Source, SourceFile};
use rootstock_core::bundle::{BundleConfig, FileMode};
use rootstock_core::digest::Digest;
use rootstock_core::name::{Architecture, InvalidName, RuntimeType};
use rootstock_core::path::{BundlePath, InvalidPath};
use sha2::{Digest as _, Sha256};
use tokio::io::AsyncReadExt as _;

pub use gvisor::{Places, gvisor};
pub use kata::kata;

/// What a sample is called where a version belongs.
pub const SAMPLE_VERSION: &str = "sample-1";

/// A bundle's source, and what is to be said of it.
#[derive(Clone, Debug)]
pub struct Sample {
    /// The runtime type.
    pub runtime: RuntimeType,
    /// Its version; [`SAMPLE_VERSION`] where it is not real.
    pub version: String,
    /// Whether all of its programs are the real ones.
    pub is_real: bool,
    /// Where its files come from, for people.
    pub origin: String,
    /// Its files, by path.
    pub files: Vec<SampleFile>,
    /// What its config blob is made of.
    pub description: BundleConfig,
}

/// One file of a sample.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SampleFile {
    /// Its path in the bundle.
    pub path: BundlePath,
    /// Its source.
    pub from: PathBuf,
    /// Its permission bits.
    pub mode: FileMode,
    /// Its size in bytes.
    pub size: u64,
    /// The digest of its bytes.
    pub sha256: Digest,
}

/// Why there is no sample.
#[derive(Debug, thiserror::Error)]
pub enum SampleError {
    /// The folder that was named has no runsc.
    #[error("{dir} has no program runsc", dir = dir.display())]
    NoRunsc {
        /// The folder.
        dir: PathBuf,
    },
    /// A file can't be read or written.
    #[error("can't use {path}", path = path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What happened.
        #[source]
        source: io::Error,
    },
    /// A file has a name that no bundle can have.
    #[error("a file can't go into a bundle")]
    Path(#[from] InvalidPath),
    /// A name in the sample is malformed.
    #[error("a name in the sample is malformed")]
    Name(#[from] InvalidName),
    /// The sample's description is malformed.
    #[error("the sample's description is malformed")]
    Description(#[from] serde_json::Error),
    /// The bundle can't be built.
    #[error("the bundle can't be built")]
    Build(#[from] BuildError),
    /// This machine is of an architecture that Rootstock doesn't know.
    #[error(
        "Rootstock knows no runtimes for this machine's architecture, {}",
        std::env::consts::ARCH
    )]
    Architecture,
}

impl SampleError {
    fn file(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { path, source }
    }
}

/// A file that is chosen for a sample, before it is read.
#[derive(Clone, Debug)]
struct Chosen {
    path: String,
    from: PathBuf,
    mode: FileMode,
}

impl Sample {
    /// Reads the chosen files once, for their digests.
    async fn of(
        description: serde_json::Value,
        chosen: Vec<Chosen>,
        is_real: bool,
        origin: String,
    ) -> Result<Self, SampleError> {
        let description: BundleConfig = serde_json::from_value(description)?;
        let mut files = Vec::with_capacity(chosen.len());
        for Chosen { path, from, mode } in chosen {
            let (size, sha256) = hash(&from).await.map_err(SampleError::file(&from))?;
            files.push(SampleFile { path: path.parse()?, from, mode, size, sha256 });
        }
        files.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(Self {
            runtime: description.runtime.clone(),
            version: description.version.clone(),
            is_real,
            origin,
            files,
            description,
        })
    }

    /// What a build takes.
    pub fn source(&self) -> Source {
        let files = self.files.iter().map(|file| SourceFile {
            path: file.path.clone(),
            from: file.from.clone(),
            mode: file.mode,
        });
        Source {
            description: self.description.clone(),
            files: files.collect(),
            level: DEFAULT_LEVEL,
        }
    }

    /// Builds it; its blobs go into the folder `into`.
    pub async fn build(&self, into: &Path) -> Result<Built, SampleError> {
        Ok(rootstock_bundle::build(self.source(), into).await?)
    }

    /// The bytes of all its files.
    pub fn size(&self) -> u64 {
        self.files.iter().map(|file| file.size).sum()
    }
}

fn this_machine() -> Result<Architecture, SampleError> {
    Architecture::of_this_machine().ok_or(SampleError::Architecture)
}

async fn hash(file: &Path) -> io::Result<(u64, Digest)> {
    let mut file = tokio::fs::File::open(file).await?;
    let (mut size, mut hash) = (0, Sha256::new());
    let mut chunk = vec![0; 1 << 20];
    loop {
        let read = file.read(&mut chunk).await?;
        if read == 0 {
            return Ok((size, Digest::from_bytes(hash.finalize().into())));
        }
        size += read as u64;
        hash.update(&chunk[..read]);
    }
}

/// Writes a sample's file, with the folders above it.
async fn write(to: &Path, bytes: &[u8]) -> Result<(), SampleError> {
    if let Some(folder) = to.parent() {
        tokio::fs::create_dir_all(folder).await.map_err(SampleError::file(folder))?;
    }
    tokio::fs::write(to, bytes).await.map_err(SampleError::file(to))
}

/// A program that answers `--version` with its name and that it is a sample.
fn script(name: &str) -> String {
    format!(
        "#!/bin/sh\n\
         # A sample of Rootstock's playground; the real {name} was not found.\n\
         case \"$1\" in\n\
         --version|-v|version) echo \"{name} version sample\" ;;\n\
         *) echo \"{name}: this is a sample, it runs nothing\" >&2; exit 1 ;;\n\
         esac\n"
    )
}

/// Bytes that don't compress, the same every time (xorshift64*).
fn noise(seed: u64, size: usize) -> Vec<u8> {
    let mut state = seed | 1;
    let mut bytes = Vec::with_capacity(size + 8);
    while bytes.len() < size {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        bytes.extend_from_slice(&state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes());
    }
    bytes.truncate(size);
    bytes
}
