//! What a node says of itself, checked: it comes from outside.

use rootstock_core::bandwidth::Held;
use rootstock_core::desired::Generation;
use rootstock_core::digest::Digest;
use rootstock_core::name::{Architecture, RuntimeType};
use rootstock_core::status::Reason;
use rootstock_proto::desired::digest;
use rootstock_proto::error::check_protocol;
use rootstock_proto::report::{MAX_MESSAGE, cut};
use rootstock_proto::{Invalid, MAX_TYPES, v1};

/// A type may be there in its wanted version, in the one before and in leftovers.
const MAX_INSTALLED: usize = 4 * MAX_TYPES;
/// The leases that a node may name: as many pulls as it may have at a time.
const MAX_LEASES: usize = 8;
/// The longest version text, in bytes.
const MAX_VERSION: usize = 128;

/// What a node says first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The agent's version, for people.
    pub agent_version: String,
    /// The node's architecture.
    pub architecture: Architecture,
    /// containerd's version; none where it could not be asked.
    pub containerd_version: Option<String>,
    /// The generation in the node's ledger; 0 where there is none.
    pub generation: Generation,
    /// The content hash in the node's ledger.
    pub content: Option<Digest>,
    /// What is installed.
    pub installed: Vec<Installed>,
    /// The rate leases that it still has.
    pub leases: Vec<Held>,
}

/// One bundle on a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Installed {
    /// Its type.
    pub runtime: RuntimeType,
    /// Its digest.
    pub digest: Digest,
    /// Whether containerd's configuration names it.
    pub active: bool,
}

/// Something of a desired state that a node does not take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedItem {
    /// The type; none for the whole.
    pub runtime: Option<RuntimeType>,
    /// Why.
    pub reason: Reason,
    /// For people: what exactly, at most 1 KiB.
    pub message: String,
}

impl TryFrom<v1::Hello> for Hello {
    type Error = Invalid;

    /// Checks the protocol first: another major version may mean anything else differently.
    fn try_from(wire: v1::Hello) -> Result<Self, Invalid> {
        check_protocol(wire.protocol.as_ref())?;
        let count = wire.installed.len();
        if count > MAX_INSTALLED {
            return Err(Invalid::TooMany { field: "installed", count, limit: MAX_INSTALLED });
        }
        // One item that can't be read must not keep the node from being served.
        let installed = wire.installed.into_iter().filter_map(|item| {
            Installed::try_from(item)
                .inspect_err(|invalid| tracing::debug!(%invalid, "installed bundle skipped"))
                .ok()
        });
        let leases = wire.grants.into_iter().take(MAX_LEASES).filter_map(|item| {
            Held::try_from(item)
                .inspect_err(|invalid| tracing::debug!(%invalid, "lease skipped"))
                .ok()
        });
        Ok(Self {
            agent_version: cut(&wire.agent_version, MAX_VERSION),
            architecture: wire
                .architecture
                .parse()
                .map_err(|error| field("architecture", error))?,
            containerd_version: Some(cut(&wire.containerd_version, MAX_VERSION))
                .filter(|version| !version.is_empty()),
            generation: Generation(wire.generation),
            content: match wire.content_hash.as_slice() {
                [] => None,
                bytes => Some(digest("content_hash", bytes)?),
            },
            installed: installed.collect(),
            leases: leases.collect(),
        })
    }
}

impl TryFrom<v1::InstalledBundle> for Installed {
    type Error = Invalid;

    fn try_from(wire: v1::InstalledBundle) -> Result<Self, Invalid> {
        Ok(Self {
            runtime: wire.r#type.parse().map_err(|error| field("type", error))?,
            digest: digest("digest", &wire.digest)?,
            active: wire.active,
        })
    }
}

impl TryFrom<v1::RefusedItem> for RefusedItem {
    type Error = Invalid;

    fn try_from(wire: v1::RefusedItem) -> Result<Self, Invalid> {
        let runtime = match wire.r#type.as_str() {
            "" => None,
            name => Some(name.parse().map_err(|error| field("type", error))?),
        };
        let mut message = cut(&wire.message, MAX_MESSAGE);
        // A newer agent may have reasons that this controller does not know.
        let reason = wire.reason.parse().unwrap_or_else(|_| {
            message = cut(&format!("{}: {message}", cut(&wire.reason, 64)), MAX_MESSAGE);
            Reason::Internal
        });
        Ok(Self { runtime, reason, message })
    }
}

fn field(field: &'static str, why: impl ToString) -> Invalid {
    Invalid::Field { field, why: why.to_string() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::Message as _;
    use rootstock_proto::PROTOCOL;

    use super::*;

    fn hello() -> v1::Hello {
        v1::Hello {
            protocol: Some(PROTOCOL),
            agent_version: "0.1.0".into(),
            architecture: "amd64".into(),
            ..v1::Hello::default()
        }
    }

    #[test]
    fn a_bad_item_does_not_silence_a_node() {
        let good = v1::InstalledBundle {
            r#type: "gvisor".into(),
            digest: Digest::of(b"x").as_bytes().to_vec(),
            active: true,
        };
        let bad = v1::InstalledBundle { digest: vec![1], ..good.clone() };
        let read =
            Hello::try_from(v1::Hello { installed: vec![bad, good.clone()], ..hello() }).unwrap();
        assert_eq!(read.installed.len(), 1);
        assert_eq!((read.containerd_version, read.content), (None, None));

        let many = v1::Hello { installed: vec![good; MAX_INSTALLED + 1], ..hello() };
        assert!(matches!(Hello::try_from(many), Err(Invalid::TooMany { .. })));
        let odd = v1::Hello { architecture: "s390x".into(), ..hello() };
        assert!(Hello::try_from(odd).is_err());
        let newer = v1::ProtocolVersion { major: 2, minor: 0 };
        let newer = v1::Hello { protocol: Some(newer), ..v1::Hello::default() };
        assert!(matches!(Hello::try_from(newer), Err(Invalid::Protocol { .. })));
    }

    #[test]
    fn an_unknown_reason_is_kept_as_text() {
        let wire = v1::RefusedItem {
            r#type: String::new(),
            reason: "MoonPhase".into(),
            message: "full".into(),
        };
        let item = RefusedItem::try_from(wire).unwrap();
        assert_eq!((item.runtime, item.reason), (None, Reason::Internal));
        assert_eq!(item.message, "MoonPhase: full");
    }

    fn hellos() -> impl Strategy<Value = v1::Hello> {
        let digest = || prop_oneof![Just(vec![]), Just(vec![7; 32]), any::<Vec<u8>>()];
        let item = ("(gvisor|\\PC{0,9})", digest(), any::<bool>());
        let item = item.prop_map(|(r#type, digest, active)| v1::InstalledBundle {
            r#type,
            digest,
            active,
        });
        let long = || "(?s).{0,3}".prop_map(|text| text.repeat(80));
        let texts = (long(), "(amd64|arm64|\\PC{0,5})", long());
        let installed = prop::collection::vec(item, 0..2 * MAX_INSTALLED);
        (texts, digest(), installed, 0..3_u32).prop_map(
            |(texts, content_hash, installed, major)| {
                let (agent_version, architecture, containerd_version) = texts;
                let protocol = Some(v1::ProtocolVersion { major, minor: 0 });
                let generation = u64::MAX;
                v1::Hello {
                    protocol: if major == 0 { None } else { protocol },
                    agent_version,
                    architecture,
                    containerd_version,
                    generation,
                    content_hash,
                    installed,
                    grants: Vec::new(),
                }
            },
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(12))]

        /// Whatever a node says first is within the limits or refused.
        #[test]
        fn any_hello_is_read_or_refused(wire in hellos(), at: prop::sample::Index, byte: u8) {
            let mut bytes = wire.encode_to_vec();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            for wire in [Ok(wire), v1::Hello::decode(&bytes[..])].into_iter().flatten() {
                let Ok(hello) = Hello::try_from(wire) else { continue };
                prop_assert!(hello.agent_version.len() <= MAX_VERSION);
                prop_assert!(hello.containerd_version.unwrap_or_default().len() <= MAX_VERSION);
                prop_assert!(hello.installed.len() <= MAX_INSTALLED);
            }
        }

        #[test]
        fn any_refusal_is_read_or_passed_over(
            r#type in "(|kata|\\PC{0,9})", reason in "(NoSpace|(?s).{0,99})", message in "(?s).{0,3}",
        ) {
            let message = message.repeat(600);
            if let Ok(item) = RefusedItem::try_from(v1::RefusedItem { r#type, reason, message }) {
                prop_assert!(item.message.len() <= MAX_MESSAGE);
                prop_assert!(item.message.chars().all(|c| c == '\n' || !c.is_control()));
            }
        }
    }
}
