//! Manifests and indexes, as far as a bundle needs them.

use std::collections::BTreeMap;

use rootstock_core::digest::Digest;
use rootstock_core::name::Architecture;
use serde::{Deserialize, Serialize};

use crate::media;

/// What an index or a manifest says of another object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// Its media type.
    pub media_type: String,
    /// The artifact type of a manifest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// Its digest.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// What it runs on; only in an index.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// Texts about it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// What a manifest's programs run on, by Go's names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Platform {
    /// The architecture; others than Rootstock's may stand in an index too.
    pub architecture: String,
    /// The operating system.
    pub os: String,
}

impl Platform {
    /// Linux on an architecture.
    pub fn linux(architecture: Architecture) -> Self {
        Self { architecture: architecture.to_string(), os: "linux".to_owned() }
    }
}

/// An image index: one manifest per platform.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    /// Always 2.
    pub schema_version: u32,
    /// [`media::INDEX`].
    pub media_type: String,
    /// [`media::BUNDLE`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// The manifests.
    pub manifests: Vec<Descriptor>,
}

/// The manifest of a bundle for one platform.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Always 2.
    pub schema_version: u32,
    /// [`media::MANIFEST`].
    pub media_type: String,
    /// [`media::BUNDLE`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// The config blob.
    pub config: Descriptor,
    /// One layer per file.
    pub layers: Vec<Descriptor>,
    /// Texts about the bundle.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// Either of the two, as a registry answers with it.
#[derive(Clone, Debug)]
pub(crate) enum Document {
    Index(Index),
    Manifest(Manifest),
}

impl Document {
    /// Reads an index or a manifest, by the media type that it states itself:
    /// the registry's header is not part of what the digest covers.
    pub(crate) fn parse(json: &[u8]) -> Result<Self, String> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Kind {
            schema_version: u32,
            #[serde(default)]
            media_type: String,
        }
        let text = |error: serde_json::Error| format!("its manifest can't be read: {error}");
        let kind: Kind = serde_json::from_slice(json).map_err(text)?;
        if kind.schema_version != 2 {
            return Err(format!("its manifest has schema version {}, want 2", kind.schema_version));
        }
        match kind.media_type.as_str() {
            media::INDEX => Ok(Self::Index(serde_json::from_slice(json).map_err(text)?)),
            media::MANIFEST => Ok(Self::Manifest(serde_json::from_slice(json).map_err(text)?)),
            other => Err(format!("its manifest has media type {other:.100?}, want OCI's")),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// A registry may answer with anything: it is one of the two documents,
        /// in every field of it, or refused in a few words.
        #[test]
        fn any_manifest_is_read_or_refused(
            noise in any::<Vec<u8>>(), at: prop::sample::Index, with in "[ -~]{0,3}", kind in "\\PC{0,200}",
        ) {
            let digest = Digest::of(b"x");
            let entry = serde_json::json!({
                "mediaType": kind, "digest": digest, "size": u64::MAX,
                "platform": {"architecture": kind, "os": "linux"}, "annotations": {kind.as_str(): "x"},
            });
            let [index, manifest, other] = [media::INDEX, media::MANIFEST, &kind].map(|kind| {
                serde_json::json!({
                    "schemaVersion": 2, "mediaType": kind, "manifests": [&entry], "config": &entry,
                    "layers": [&entry],
                })
                .to_string()
            });
            prop_assert!(matches!(Document::parse(index.as_bytes()), Ok(Document::Index(_))));
            prop_assert!(matches!(Document::parse(manifest.as_bytes()), Ok(Document::Manifest(_))));
            let mut changed = manifest;
            let at = at.index(changed.len());
            if changed.is_char_boundary(at) && changed.is_char_boundary(at + 1) {
                changed.replace_range(at..at + 1, &with);
            }
            for json in [&noise[..], changed.as_bytes(), other.as_bytes()] {
                if let Err(why) = Document::parse(json) {
                    prop_assert!(why.len() < 2_000, "{}", why);
                }
            }
        }
    }

    #[test]
    fn a_document_is_what_it_says_it_is() {
        let index =
            format!(r#"{{"schemaVersion":2,"mediaType":"{}","manifests":[]}}"#, media::INDEX);
        assert!(matches!(Document::parse(index.as_bytes()), Ok(Document::Index(_))));
        for (bad, want) in [
            ("{", "can't be read"),
            (r#"{"schemaVersion":1}"#, "schema version 1"),
            (r#"{"schemaVersion":2,"mediaType":"text/plain"}"#, "text/plain"),
            (r#"{"schemaVersion":2}"#, "media type"),
        ] {
            let error = Document::parse(bad.as_bytes()).unwrap_err();
            assert!(error.contains(want), "{error}");
        }
    }
}
