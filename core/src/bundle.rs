//! The config blob of a bundle: everything Rootstock knows of one version of a runtime.
//!
//! A new runtime is a new artifact with such a blob, not new code. The blob is
//! input from outside: parsing checks every bound and every cross-reference,
//! so that what holds a [`BundleConfig`] needs no second look.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::digest::Digest;
use crate::name::{Architecture, HandlerName, RuntimeType};
use crate::path::BundlePath;
use crate::status::Reason;

pub use setting::{MAX_SETTING_NAME, MAX_SETTINGS, Setting};

/// The largest config blob, in bytes. gVisor's is 2 KiB, kata's 4 KiB.
pub const MAX_CONFIG_SIZE: usize = 256 * 1024;
/// The largest file in a bundle, in plain bytes: four times kata's largest image.
pub const MAX_FILE_SIZE: u64 = 4 << 30;
/// The most files in a bundle.
pub const MAX_FILES: usize = 4096;

/// One version of one runtime type.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BundleConfig {
    /// The runtime type that it implements.
    #[serde(rename = "type")]
    pub runtime: RuntimeType,
    /// Its version, for people.
    pub version: String,
    /// The architecture of its programs; none where it runs on every one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub architecture: Option<Architecture>,
    /// The smallest containerd that it works with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_containerd: Option<String>,
    /// Its files.
    pub files: Vec<BundleFile>,
    /// Top-level files that get a link in binaryPath.
    #[serde(default)]
    pub entry_points: Vec<BundlePath>,
    /// Its handlers.
    pub handlers: Vec<Handler>,
    /// Config files that are rendered on the node.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub configs: Vec<ConfigFile>,
    /// The settings that a user may choose.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub settings: Vec<Setting>,
    /// What a node must have.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub needs: Vec<Need>,
}

/// One file of a bundle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BundleFile {
    /// Its path in the bundle.
    pub path: BundlePath,
    /// Its permission bits, in octal.
    pub mode: FileMode,
    /// Its plain size in bytes.
    pub size: u64,
    /// The digest of its plain bytes, as 64 hex digits.
    #[serde(with = "hex")]
    pub sha256: Digest,
    /// The blob that holds it, compressed with zstd.
    pub blob: Digest,
    /// The blob's size in bytes.
    pub blob_size: u64,
}

/// Permission bits of a file. Anything beyond `rwx` (setuid, sticky) is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct FileMode(u32);

impl FileMode {
    /// A program.
    pub const PROGRAM: Self = Self(0o755);
    /// Anything else.
    pub const DATA: Self = Self(0o644);

    /// The bits, at most `0o777`.
    pub fn bits(self) -> u32 {
        self.0
    }
}

impl TryFrom<String> for FileMode {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match u32::from_str_radix(&text, 8) {
            Ok(bits) if bits <= 0o777 && bits & 0o400 != 0 => Ok(Self(bits)),
            _ => Err(format!(
                "mode {text:?} is not an octal mode up to 0777 that its owner can read"
            )),
        }
    }
}

impl From<FileMode> for String {
    fn from(mode: FileMode) -> String {
        format!("{:04o}", mode.0)
    }
}

/// One handler: a table in containerd's configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Handler {
    /// Its name.
    pub name: HandlerName,
    /// containerd's `runtime_type`.
    pub runtime_type: String,
    /// The shim's file in the bundle.
    pub shim: BundlePath,
    /// containerd's `pod_annotations`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pod_annotations: Vec<String>,
    /// containerd's `privileged_without_host_devices`.
    #[serde(default, skip_serializing_if = "is_false")]
    pub privileged_without_host_devices: bool,
    /// The rendered config file that becomes the option `ConfigPath`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<BundlePath>,
    /// Further options; texts may hold placeholders.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub options: BTreeMap<String, Value>,
}

fn is_false(value: &bool) -> bool {
    !value
}

/// A config file that is rendered on the node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigFile {
    /// Its name in the rendered folder.
    pub name: BundlePath,
    /// How it is written.
    pub format: ConfigFormat,
    /// Its content; texts may hold placeholders.
    pub template: Value,
}

/// How a config file is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ConfigFormat {
    /// TOML, from an object.
    Toml,
    /// JSON, from any value.
    Json,
    /// The template is the text.
    Text,
}

/// Something that a node must have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Need {
    /// A device node.
    Device(String),
    /// A kernel module, loaded or built in.
    Module(String),
}

/// Why a config blob can't be used.
#[derive(Debug, thiserror::Error)]
pub enum InvalidBundle {
    /// More bytes than a config blob may have.
    #[error("its config blob has {size} bytes, at most {MAX_CONFIG_SIZE} are allowed")]
    TooLarge {
        /// The blob's size in bytes.
        size: usize,
    },
    /// Not the JSON that it should be.
    #[error("its config blob can't be read: {0}")]
    Json(String),
    /// A file's path leads out of the bundle or through another file.
    #[error("{0}")]
    Path(String),
    /// A part of it contradicts another.
    #[error("{0}")]
    Content(String),
}

impl InvalidBundle {
    /// The reason that users see.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Path(_) => Reason::PathRefused,
            Self::TooLarge { .. } => Reason::SizeExceeded,
            Self::Json(_) | Self::Content(_) => Reason::BundleInvalid,
        }
    }
}

impl BundleConfig {
    /// Reads and checks a config blob.
    pub fn parse(json: &[u8]) -> Result<Self, InvalidBundle> {
        if json.len() > MAX_CONFIG_SIZE {
            return Err(InvalidBundle::TooLarge { size: json.len() });
        }
        let bundle: Self = serde_json::from_slice(json).map_err(|error| {
            let text = error.to_string();
            // A path is refused while it is read; its reason is its own.
            if text.contains("is refused:") {
                InvalidBundle::Path(text)
            } else {
                InvalidBundle::Json(text)
            }
        })?;
        bundle.check()?;
        Ok(bundle)
    }

    /// The bytes of all blobs.
    pub fn blob_bytes(&self) -> u64 {
        self.files.iter().map(|file| file.blob_size).sum()
    }

    /// The bytes of all files.
    pub fn plain_bytes(&self) -> u64 {
        self.files.iter().map(|file| file.size).sum()
    }
}

/// A config blob with its bytes, which its digest is made of.
///
/// Two are equal when their bytes are. Clones share them: the desired states of
/// ten thousand nodes hold one blob.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ConfigBlob(Arc<Blob>);

#[derive(Debug)]
struct Blob {
    json: String,
    config: BundleConfig,
}

impl ConfigBlob {
    /// Reads and checks a config blob, and keeps its bytes.
    pub fn parse(json: &[u8]) -> Result<Self, InvalidBundle> {
        let config = BundleConfig::parse(json)?;
        // JSON that was read is UTF-8.
        let json = String::from_utf8_lossy(json).into_owned();
        Ok(Self(Arc::new(Blob { json, config })))
    }

    /// The bytes.
    pub fn json(&self) -> &str {
        &self.0.json
    }

    /// What they say.
    pub fn config(&self) -> &BundleConfig {
        &self.0.config
    }
}

impl PartialEq for ConfigBlob {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.0.json == other.0.json
    }
}

impl Eq for ConfigBlob {}

impl TryFrom<String> for ConfigBlob {
    type Error = InvalidBundle;

    fn try_from(json: String) -> Result<Self, InvalidBundle> {
        Self::parse(json.as_bytes())
    }
}

impl From<ConfigBlob> for String {
    fn from(blob: ConfigBlob) -> String {
        match Arc::try_unwrap(blob.0) {
            Ok(blob) => blob.json,
            Err(shared) => shared.json.clone(),
        }
    }
}

mod hex {
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    use crate::digest::Digest;

    pub(super) fn serialize<S: Serializer>(digest: &Digest, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&digest.hex())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Digest, D::Error> {
        Digest::from_hex(&String::deserialize(from)?).map_err(D::Error::custom)
    }
}

mod check;
mod setting;
#[cfg(test)]
mod tests;
