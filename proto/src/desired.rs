//! `Desired` and its content hash.

use prost::Message as _;
use rootstock_core::bundle::ConfigBlob;
use rootstock_core::desired::{
    Credential, Desired, DesiredBundle, DesiredContent, Generation, Registry,
};
use rootstock_core::digest::Digest;

use crate::error::Invalid;
use crate::{MAX_TYPES, v1};

/// The hash of a desired state without its generation: sha256 over the message
/// in its canonical encoding (fields in order, maps sorted, which is what the
/// generated code writes), with generation and hash left out.
pub fn content_hash(content: &DesiredContent) -> Digest {
    Digest::of(&unsigned(content).encode_to_vec())
}

/// The message of a desired content, whose hash is known, without generation.
pub fn message(content: &DesiredContent, hash: Digest) -> v1::Desired {
    v1::Desired { content_hash: hash.as_bytes().to_vec(), ..unsigned(content) }
}

impl From<&Desired> for v1::Desired {
    fn from(desired: &Desired) -> Self {
        let wire = message(&desired.content, content_hash(&desired.content));
        Self { generation: desired.generation.0, ..wire }
    }
}

fn unsigned(content: &DesiredContent) -> v1::Desired {
    v1::Desired {
        generation: 0,
        content_hash: Vec::new(),
        bundles: content.bundles.iter().map(bundle_message).collect(),
        keep: content.keep.iter().map(ToString::to_string).collect(),
        registries: content.registries.iter().map(registry_message).collect(),
        prefetch: content.prefetch.iter().map(bundle_message).collect(),
        gated: content.gated,
    }
}

fn bundle_message(bundle: &DesiredBundle) -> v1::DesiredBundle {
    v1::DesiredBundle {
        digest: bundle.digest.as_bytes().to_vec(),
        binary_path: bundle.binary_path.to_string(),
        registry: bundle.registry.clone(),
        repository: bundle.repository.clone(),
        config: bundle.config.json().as_bytes().to_vec(),
        settings: bundle
            .settings
            .iter()
            .map(|(name, value)| (name.clone(), value.to_string()))
            .collect(),
    }
}

fn registry_message(registry: &Registry) -> v1::Registry {
    v1::Registry {
        name: registry.name.clone(),
        url: registry.url.clone(),
        mirrors: registry.mirrors.clone(),
        ca_bundle: registry.ca_bundle.clone(),
        credential: registry.credential.as_ref().map(|credential| v1::Credential {
            username: credential.username.clone(),
            secret: credential.secret.clone(),
        }),
    }
}

impl TryFrom<v1::Desired> for Desired {
    type Error = Invalid;

    /// Checks every field, and that the content is what its hash says.
    fn try_from(wire: v1::Desired) -> Result<Self, Invalid> {
        for (field, count) in [
            ("bundles", wire.bundles.len()),
            ("keep", wire.keep.len()),
            ("registries", wire.registries.len()),
            ("prefetch", wire.prefetch.len()),
        ] {
            if count > MAX_TYPES {
                return Err(Invalid::TooMany { field, count, limit: MAX_TYPES });
            }
        }
        let announced = digest("content_hash", &wire.content_hash)?;
        let generation = Generation(wire.generation);
        let bundles = in_order("bundles", wire.bundles)?;
        let prefetch = in_order("prefetch", wire.prefetch)?;
        let keep = wire
            .keep
            .iter()
            .map(|name| name.parse().map_err(|error| Invalid::field("keep", error)))
            .collect::<Result<_, _>>()?;
        let registries = wire.registries.into_iter().map(registry).collect();
        let content = DesiredContent { bundles, keep, registries, prefetch, gated: wire.gated };
        if content_hash(&content) != announced {
            return Err(Invalid::ContentHash);
        }
        Ok(Self { generation, content })
    }
}

fn in_order(
    field: &'static str,
    wire: Vec<v1::DesiredBundle>,
) -> Result<Vec<DesiredBundle>, Invalid> {
    let bundles = wire.into_iter().map(bundle).collect::<Result<Vec<_>, _>>()?;
    if bundles.windows(2).any(|pair| pair[0].runtime() >= pair[1].runtime()) {
        return Err(Invalid::field(field, "they are not in the types' order"));
    }
    Ok(bundles)
}

fn bundle(wire: v1::DesiredBundle) -> Result<DesiredBundle, Invalid> {
    let config = ConfigBlob::parse(&wire.config).map_err(|source| Invalid::Bundle {
        runtime: wire.repository.chars().take(100).collect(),
        source,
    })?;
    let settings = wire
        .settings
        .into_iter()
        .map(|(name, value)| {
            let value = serde_json::from_str(&value)
                .map_err(|error| Invalid::field("settings", format!("{name}: {error}")))?;
            Ok((name, value))
        })
        .collect::<Result<_, Invalid>>()?;
    Ok(DesiredBundle {
        digest: digest("digest", &wire.digest)?,
        binary_path: wire
            .binary_path
            .parse()
            .map_err(|error| Invalid::field("binary_path", error))?,
        registry: wire.registry,
        repository: wire.repository,
        config,
        settings,
    })
}

fn registry(wire: v1::Registry) -> Registry {
    Registry {
        name: wire.name,
        url: wire.url,
        mirrors: wire.mirrors,
        ca_bundle: wire.ca_bundle,
        credential: wire.credential.map(|credential| Credential {
            username: credential.username,
            secret: credential.secret,
        }),
    }
}

/// Reads a digest from its 32 bytes.
pub fn digest(field: &'static str, bytes: &[u8]) -> Result<Digest, Invalid> {
    let bytes: [u8; 32] = bytes
        .try_into()
        .map_err(|_| Invalid::field(field, format!("{} bytes, want 32", bytes.len())))?;
    Ok(Digest::from_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CONFIG: &str = r#"{"type":"TYPE","version":"1",
        "files":[{"path":"shim","mode":"0755","size":1,
          "sha256":"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
          "blob":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","blobSize":1}],
        "entryPoints":["shim"],
        "handlers":[{"name":"h","runtimeType":"io.containerd.h.v1","shim":"shim"}]}"#;

    fn bundles() -> impl Strategy<Value = Vec<DesiredBundle>> {
        let bundle = ("[a-z]{1,8}", any::<[u8; 32]>(), any::<bool>(), "[a-z]{1,6}");
        proptest::collection::vec(bundle, 0..5).prop_map(|items| {
            let mut bundles: Vec<_> = items
                .into_iter()
                .map(|(name, bytes, net_raw, repository)| DesiredBundle {
                    digest: Digest::from_bytes(bytes),
                    binary_path: "/var/bin/containerruntimes".parse().unwrap(),
                    registry: "main".into(),
                    repository,
                    config: ConfigBlob::parse(CONFIG.replace("TYPE", &name).as_bytes()).unwrap(),
                    settings: [("net-raw".to_owned(), net_raw.into())].into_iter().collect(),
                })
                .collect();
            bundles.sort_by(|a, b| a.runtime().cmp(b.runtime()));
            bundles.dedup_by(|a, b| a.runtime() == b.runtime());
            bundles
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn desired_arrives_as_it_was_sent(
            generation: u64, bundles in bundles(), prefetch in bundles(), gated: bool,
        ) {
            let keep = ["kept".parse().unwrap()].into();
            let registries = vec![Registry {
                name: "main".into(),
                url: "http://r".into(),
                mirrors: vec!["http://m".into()],
                ca_bundle: String::new(),
                credential: Some(Credential { username: "u".into(), secret: "s".into() }),
            }];
            let content = DesiredContent { bundles, keep, registries, prefetch, gated };
            let sent = Desired { generation: Generation(generation), content };
            let bytes = v1::Desired::from(&sent).encode_to_vec();
            let received = Desired::try_from(v1::Desired::decode(&bytes[..]).unwrap()).unwrap();
            prop_assert_eq!(sent, received);
        }

        /// Whatever comes, it is taken as what its hash says or refused, and
        /// what is taken is within the limits.
        #[test]
        fn any_desired_state_is_taken_whole_or_refused(
            bundles in bundles(), at: prop::sample::Index, byte: u8, cut: bool,
        ) {
            let content = DesiredContent { bundles, ..DesiredContent::default() };
            let sent = Desired { generation: Generation(7), content };
            let mut bytes = v1::Desired::from(&sent).encode_to_vec();
            let at = at.index(bytes.len());
            if cut { bytes.truncate(at) } else { bytes[at] = byte }
            let Ok(wire) = v1::Desired::decode(&bytes[..]) else { return Ok(()) };
            let hash = wire.content_hash.clone();
            if let Ok(taken) = Desired::try_from(wire) {
                prop_assert_eq!(content_hash(&taken.content).as_bytes().to_vec(), hash);
                prop_assert_eq!(taken.content, sent.content, "what is hashed can't change");
            }
        }

        #[test]
        fn any_message_to_a_node_is_taken_or_refused(wire in wires()) {
            let mut wire = wire;
            // The right hash, where there can be one: the limits have to hold without it.
            let unhashed = v1::Desired { generation: 0, content_hash: Vec::new(), ..wire.clone() };
            wire.content_hash = Digest::of(&unhashed.encode_to_vec()).as_bytes().to_vec();
            let config: usize = wire.bundles.iter().chain(&wire.prefetch).map(|b| b.config.len()).sum();
            if let Ok(taken) = Desired::try_from(wire) {
                let DesiredContent { bundles, keep, registries, prefetch, .. } = taken.content;
                for count in [bundles.len(), keep.len(), registries.len(), prefetch.len()] {
                    prop_assert!(count <= MAX_TYPES);
                }
                for all in [&bundles, &prefetch] {
                    prop_assert!(all.windows(2).all(|two| two[0].runtime() < two[1].runtime()));
                }
                let kept: usize = bundles.iter().chain(&prefetch).map(|bundle| bundle.config.json().len()).sum();
                prop_assert_eq!(kept, config, "every byte that was sent is in the hash");
            }
        }
    }

    /// Messages as anybody could make them.
    fn wires() -> impl Strategy<Value = v1::Desired> {
        let config = prop_oneof![
            "(gvisor|kata|wasm)".prop_map(|name| CONFIG.replace("TYPE", &name).into_bytes()),
            any::<Vec<u8>>(),
        ];
        let bundle = ("(/var/bin|/|[./a]{0,9})", "[a-z/.]{0,9}", config, "(true|[{\"]{0,3})");
        let bundle =
            bundle.prop_map(|(binary_path, repository, config, value)| v1::DesiredBundle {
                digest: vec![7; 32],
                binary_path,
                registry: "main".into(),
                repository,
                config,
                settings: [("net-raw".to_owned(), value)].into(),
            });
        let many = || prop_oneof![0..3_usize, 60..70_usize];
        let bundles = || prop::collection::vec(bundle.clone(), 0..3);
        let bundles = (bundles(), bundles());
        (bundles, "[a-z.]{0,4}", "\\PC{0,9}", many(), many()).prop_map(
            |((bundles, prefetch), name, url, keep, registries)| v1::Desired {
                generation: 7,
                content_hash: Vec::new(),
                bundles,
                keep: vec![name; keep],
                registries: vec![v1::Registry { url, ..Default::default() }; registries],
                prefetch,
                gated: keep > 0,
            },
        )
    }

    #[test]
    fn the_hash_covers_the_content_and_not_the_generation() {
        let mut desired = Desired::default();
        let hash = v1::Desired::from(&desired).content_hash;
        desired.generation = Generation(7);
        assert_eq!(v1::Desired::from(&desired).content_hash, hash);
        assert_eq!(content_hash(&desired.content).as_bytes().to_vec(), hash);
        desired.content.keep.insert("gvisor".parse().unwrap());
        let mut wire = v1::Desired::from(&desired);
        assert_ne!(wire.content_hash, hash);
        wire.content_hash = hash;
        assert!(matches!(Desired::try_from(wire), Err(Invalid::ContentHash)));
    }
}
