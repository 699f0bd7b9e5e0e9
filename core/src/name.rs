//! Names of things, checked where they enter.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A name that is not what it should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid {what} {value:?}: {rule}")]
pub struct InvalidName {
    what: &'static str,
    value: String,
    rule: &'static str,
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $what:literal, $check:path, $rule:literal) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidName;

            fn from_str(value: &str) -> Result<Self, InvalidName> {
                if $check(value) {
                    return Ok(Self(value.to_owned()));
                }
                let value = cut(value);
                Err(InvalidName { what: $what, value, rule: $rule })
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidName;

            fn try_from(value: String) -> Result<Self, InvalidName> {
                value.parse()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
    };
}

name! {
    /// A runtime type as in `ContainerRuntime.spec.type`: `gvisor`, `kata`.
    ///
    /// It is the suffix of a node label and the name of a folder, so it is
    /// held to the stricter of the two.
    RuntimeType, "runtime type", is_qualified_name,
    "1 to 63 letters, digits, '-', '_' or '.', starting and ending with a letter or digit"
}

name! {
    /// A handler as containerd's configuration and a RuntimeClass name it: `runsc`.
    HandlerName, "handler", is_dns_label,
    "1 to 63 lower-case letters, digits or '-', starting and ending with a letter or digit"
}

name! {
    /// The name of a RuntimeClass, which pods put in `runtimeClassName`.
    RuntimeClassName, "RuntimeClass name", is_dns_subdomain,
    "1 to 253 lower-case letters, digits, '-' or '.', each part starting and ending with a letter or digit"
}

name! {
    /// The name of a Node.
    NodeName, "node name", is_dns_subdomain,
    "1 to 253 lower-case letters, digits, '-' or '.', each part starting and ending with a letter or digit"
}

name! {
    /// A shoot, by the namespace of its control plane in the seed (its
    /// technical id, `shoot--garden--one`), or `local` in a plain cluster.
    ShootName, "shoot name", is_dns_label,
    "1 to 63 lower-case letters, digits or '-', starting and ending with a letter or digit"
}

name! {
    /// The UID of a Kubernetes object.
    Uid, "uid", is_uid, "1 to 64 letters, digits or '-'"
}

/// The beginning of a text that is refused: a hostile one must not fill a log
/// or a condition.
pub(crate) fn cut(text: &str) -> String {
    text.chars().take(100).collect()
}

fn is_dns_label(value: &str) -> bool {
    value.len() <= 63
        && value.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && edges(value, |b| b.is_ascii_lowercase() || b.is_ascii_digit())
}

fn is_dns_subdomain(value: &str) -> bool {
    value.len() <= 253 && value.split('.').all(is_dns_label)
}

fn is_uid(value: &str) -> bool {
    (1..=64).contains(&value.len()) && value.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

/// The part of a Kubernetes qualified name behind its prefix; also the rule for label values.
pub(crate) fn is_qualified_name(value: &str) -> bool {
    value.len() <= 63
        && value.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
        && edges(value, |b| b.is_ascii_alphanumeric())
}

fn edges(value: &str, allowed: impl Fn(u8) -> bool) -> bool {
    let bytes = value.as_bytes();
    bytes.first().is_some_and(|b| allowed(*b)) && bytes.last().is_some_and(|b| allowed(*b))
}

/// The architecture of a node or a bundle, by Go's names as Kubernetes and OCI use them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Architecture {
    /// x86-64
    Amd64,
    /// AArch64
    Arm64,
}

impl Architecture {
    /// The architecture that this program was built for, if it is one that Rootstock knows.
    pub fn of_this_machine() -> Option<Self> {
        match std::env::consts::ARCH {
            "x86_64" => Some(Self::Amd64),
            "aarch64" => Some(Self::Arm64),
            _ => None,
        }
    }

    /// The name as in the node label `kubernetes.io/arch`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }
}

impl fmt::Display for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Architecture {
    type Err = InvalidName;

    fn from_str(value: &str) -> Result<Self, InvalidName> {
        match value {
            "amd64" => Ok(Self::Amd64),
            "arm64" => Ok(Self::Arm64),
            _ => {
                Err(InvalidName { what: "architecture", value: cut(value), rule: "amd64 or arm64" })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_held_to_their_rules() {
        for good in ["gvisor", "kata", "wasm-spin", "a", "A.b_c-1"] {
            assert_eq!(good.parse::<RuntimeType>().unwrap().as_str(), good);
        }
        for bad in ["", ".", "..", "-a", "a-", "a/b", "a b", "ä", &"a".repeat(64)] {
            assert!(bad.parse::<RuntimeType>().is_err(), "{bad:?}");
        }
        assert!("node-1.example.org".parse::<NodeName>().is_ok());
        assert!("node..1".parse::<NodeName>().is_err());
        assert!("Node".parse::<NodeName>().is_err());
        assert!("shoot--garden--one".parse::<ShootName>().is_ok());
        assert!("a.b".parse::<ShootName>().is_err());
    }

    #[test]
    fn a_refused_name_is_quoted_and_cut() {
        let error = "x".repeat(5_000).parse::<HandlerName>().unwrap_err().to_string();
        assert!(error.len() < 300, "{error}");
        assert!(error.contains("invalid handler"), "{error}");
    }

    #[test]
    fn serde_checks_names_too() {
        assert!(serde_json::from_str::<HandlerName>("\"run sc\"").is_err());
        assert_eq!(serde_json::from_str::<HandlerName>("\"runsc\"").unwrap().as_str(), "runsc");
    }
}
