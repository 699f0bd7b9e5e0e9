//! Whether a node has what a bundle needs, before anything is done for it.

use crate::bundle::BundleConfig;
use crate::name::Architecture;
use crate::status::Reason;

/// What is known of a node. What is not known is no obstacle: the steps that
/// need it fail with a reason of their own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// The architecture; none where this program knows no name for it.
    pub architecture: Option<Architecture>,
    /// The running containerd's version.
    pub containerd: Option<String>,
    /// What the bundle needs and the node lacks, in words.
    pub unmet: Vec<String>,
}

/// Something that a node does not have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unmet {
    /// Why the runtime is not supported.
    pub reason: Reason,
    /// What exactly, for people.
    pub message: String,
}

/// Why a bundle can't run on a node; none where nothing is known to be in its way.
pub fn check(bundle: &BundleConfig, node: &Node) -> Option<Unmet> {
    if let (Some(wants), Some(is)) = (bundle.architecture, node.architecture)
        && wants != is
    {
        let message = format!("the bundle is for {wants}, the node is {is}");
        return Some(Unmet { reason: Reason::ArchitectureMismatch, message });
    }
    let mut lacks = Vec::new();
    if let (Some(least), Some(is)) = (&bundle.min_containerd, &node.containerd)
        && let (Some(want), Some(have)) = (Version::parse(least), Version::parse(is))
        && have < want
    {
        lacks.push(format!(
            "{} {} works with containerd {least} and later, the node has {is}",
            bundle.runtime, bundle.version
        ));
    }
    lacks.extend(node.unmet.iter().cloned());
    let message = lacks.join("; ");
    (!message.is_empty()).then_some(Unmet { reason: Reason::PreflightUnmet, message })
}

/// A version as far as it counts here: `1.7`, `v2.1.4`, `1.6.20~ds1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version([u32; 3]);

impl Version {
    /// Reads a version; what follows the third number is passed over. A part
    /// that is missing counts as 0.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = [0; 3];
        let text = text.trim().trim_start_matches('v');
        for (at, part) in text.split('.').take(3).enumerate() {
            let digits = part.find(|c: char| !c.is_ascii_digit()).unwrap_or(part.len());
            match part[..digits].parse() {
                Ok(number) => parts[at] = number,
                Err(_) => return None,
            }
            if digits < part.len() {
                break;
            }
        }
        Some(Self(parts))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_by_their_numbers() {
        let table = [
            ("1.6.20~ds1", "1.7.0"),
            ("v1.7.24", "2.0.0-rc.1"),
            ("2.1", "2.1.9"),
            ("2.1.9", "2.10.0"),
            ("1.7.24", "1.7.25+x"),
        ];
        for (less, more) in table {
            let (less, more) = (Version::parse(less).unwrap(), Version::parse(more).unwrap());
            assert!(less < more, "{less:?} {more:?}");
        }
        for none in ["", "x", "v", ".1", "99999999999"] {
            assert_eq!(Version::parse(none), None, "{none}");
        }
    }

    #[test]
    fn what_is_unmet_is_said_and_what_is_not_known_is_no_obstacle() {
        let json = serde_json::json!({
            "type": "gvisor", "version": "9", "minContainerd": "1.7.0", "architecture": "amd64",
            "files": [{"path": "s", "mode": "0755", "size": 0,
                       "sha256": crate::digest::Digest::of(b"").hex(),
                       "blob": crate::digest::Digest::of(b"").to_string(), "blobSize": 0}],
            "handlers": [{"name": "h", "runtimeType": "t", "shim": "s"}],
        });
        let bundle = BundleConfig::parse(json.to_string().as_bytes()).unwrap();
        let node = |containerd: Option<&str>, unmet: &[&str]| Node {
            architecture: Some(Architecture::Amd64),
            containerd: containerd.map(str::to_owned),
            unmet: unmet.iter().map(|text| (*text).to_owned()).collect(),
        };
        assert_eq!(check(&bundle, &node(None, &[])), None);
        assert_eq!(check(&bundle, &node(Some("1.7.0"), &[])), None);
        let said = check(&bundle, &node(Some("1.6.20"), &["no /dev/kvm"])).unwrap();
        assert_eq!(said.reason, Reason::PreflightUnmet);
        let want =
            "gvisor 9 works with containerd 1.7.0 and later, the node has 1.6.20; no /dev/kvm";
        assert_eq!(said.message, want);
        let arm = Node { architecture: Some(Architecture::Arm64), ..node(None, &[]) };
        assert_eq!(check(&bundle, &arm).unwrap().reason, Reason::ArchitectureMismatch);
    }
}
