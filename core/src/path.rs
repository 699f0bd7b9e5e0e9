//! Paths inside a bundle and folders on a node.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The longest path inside a bundle, in bytes. With a digest folder in front
/// it stays far below Linux' `PATH_MAX` of 4096.
const MAX_BUNDLE_PATH: usize = 1024;
/// The longest part of a path, in bytes: Linux' `NAME_MAX`.
const MAX_PART: usize = 255;

/// A path that is refused, and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("path {path:?} is refused: {why}")]
pub struct InvalidPath {
    path: String,
    why: &'static str,
}

impl InvalidPath {
    fn new(path: &str, why: &'static str) -> Self {
        Self { path: path.chars().take(200).collect(), why }
    }
}

/// A file's path inside a bundle: relative, of plain parts, `/` between them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct BundlePath(String);

impl BundlePath {
    /// The path as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The folders above the file, outermost first: `a`, `a/b` for `a/b/c`.
    pub fn folders(&self) -> impl Iterator<Item = &str> {
        self.0.match_indices('/').map(|(at, _)| &self.0[..at])
    }

    /// Whether the file lies at the top of its bundle.
    pub fn is_top_level(&self) -> bool {
        !self.0.contains('/')
    }

    /// The last part.
    pub fn file_name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or(&self.0)
    }
}

impl FromStr for BundlePath {
    type Err = InvalidPath;

    fn from_str(path: &str) -> Result<Self, InvalidPath> {
        if path.starts_with('/') {
            return Err(InvalidPath::new(path, "it is absolute, want one relative to the bundle"));
        }
        if path.len() > MAX_BUNDLE_PATH {
            return Err(InvalidPath::new(path, "it is longer than 1024 bytes"));
        }
        check_parts(path, path)?;
        Ok(Self(path.to_owned()))
    }
}

/// A folder on a node where entry points are placed: absolute and plain.
///
/// Whether it may be used is decided by [`BinaryRoots`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct BinaryPath(String);

impl BinaryPath {
    /// The path as text, without a `/` at its end.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The path below the node's root, without the leading `/`.
    pub fn below_root(&self) -> &str {
        &self.0[1..]
    }
}

impl FromStr for BinaryPath {
    type Err = InvalidPath;

    fn from_str(path: &str) -> Result<Self, InvalidPath> {
        let Some(rest) = path.strip_prefix('/') else {
            return Err(InvalidPath::new(path, "it is not absolute"));
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        if path.len() > MAX_BUNDLE_PATH {
            return Err(InvalidPath::new(path, "it is longer than 1024 bytes"));
        }
        check_parts(path, rest)?;
        Ok(Self(format!("/{rest}")))
    }
}

fn check_parts(path: &str, parts: &str) -> Result<(), InvalidPath> {
    if path.chars().any(char::is_control) {
        return Err(InvalidPath::new(path, "it has a control character"));
    }
    for part in parts.split('/') {
        match part {
            "" => return Err(InvalidPath::new(path, "it has an empty part")),
            "." | ".." => return Err(InvalidPath::new(path, "it has a part '.' or '..'")),
            _ if part.len() > MAX_PART => {
                return Err(InvalidPath::new(path, "a part is longer than 255 bytes"));
            }
            _ => {}
        }
    }
    Ok(())
}

macro_rules! text {
    ($name:ident) => {
        impl TryFrom<String> for $name {
            type Error = InvalidPath;

            fn try_from(path: String) -> Result<Self, InvalidPath> {
                path.parse()
            }
        }

        impl From<$name> for String {
            fn from(path: $name) -> String {
                path.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

text!(BundlePath);
text!(BinaryPath);

/// The folders below which a [`BinaryPath`] may lie.
///
/// The same list names the host folders that are mounted into the agent's Pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BinaryRoots(Vec<BinaryPath>);

/// A binaryPath that lies below none of the allowed folders.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("binaryPath {path} is below none of the allowed folders: {}", allowed.join(", "))]
pub struct BinaryPathRefused {
    path: BinaryPath,
    allowed: Vec<String>,
}

impl BinaryRoots {
    /// The list of allowed folders.
    pub fn new(roots: Vec<BinaryPath>) -> Self {
        Self(roots)
    }

    /// The allowed folders.
    pub fn iter(&self) -> impl Iterator<Item = &BinaryPath> {
        self.0.iter()
    }

    /// Refuses a path that is none of the folders and below none of them.
    pub fn check(&self, path: &BinaryPath) -> Result<(), BinaryPathRefused> {
        let inside = self.0.iter().any(|root| {
            path.as_str()
                .strip_prefix(root.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        });
        if inside {
            return Ok(());
        }
        let allowed = self.0.iter().map(ToString::to_string).collect();
        Err(BinaryPathRefused { path: path.clone(), allowed })
    }
}

impl Default for BinaryRoots {
    /// `/var/bin`, where Gardener has containerd look (`/var/bin/containerruntimes`),
    /// and `/opt/rootstock` for plain clusters.
    fn default() -> Self {
        Self(["/var/bin", "/opt/rootstock"].map(|root| BinaryPath(root.to_owned())).to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bundle_path_stays_inside_its_bundle() {
        for good in ["runsc", "share/kata/configuration.toml", "a..b", "...", ".hidden"] {
            assert_eq!(good.parse::<BundlePath>().unwrap().as_str(), good);
        }
        for bad in
            ["", "/etc/passwd", "..", "../x", "a/../b", "a/./b", "a//b", "a/", "a\0b", "a\nb"]
        {
            assert!(bad.parse::<BundlePath>().is_err(), "{bad:?}");
        }
        assert!("a".repeat(256).parse::<BundlePath>().is_err());
        assert!("a/".repeat(600).parse::<BundlePath>().is_err());
    }

    #[test]
    fn folders_come_outermost_first() {
        let path: BundlePath = "share/kata/x".parse().unwrap();
        assert_eq!(path.folders().collect::<Vec<_>>(), ["share", "share/kata"]);
        assert_eq!(path.file_name(), "x");
        assert!(!path.is_top_level());
    }

    #[test]
    fn a_binary_path_must_lie_below_a_root() {
        let roots = BinaryRoots::new(vec!["/var/bin".parse().unwrap()]);
        for good in ["/var/bin", "/var/bin/", "/var/bin/containerruntimes"] {
            roots.check(&good.parse().unwrap()).unwrap();
        }
        for bad in ["/var/binary", "/etc", "/var"] {
            let error = roots.check(&bad.parse().unwrap()).unwrap_err().to_string();
            assert!(error.contains(bad) && error.contains("/var/bin"), "{error}");
        }
        for bad in ["var/bin", "/var/bin/../etc", "/", "", "//var"] {
            assert!(bad.parse::<BinaryPath>().is_err(), "{bad:?}");
        }
    }
}
