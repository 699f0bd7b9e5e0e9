//! How the catalog names a bundle: `main/rootstock/gvisor@sha256:…`.

use std::fmt;
use std::str::FromStr;

use crate::digest::{Digest, InvalidDigest};
use crate::name::cut;
use serde::{Deserialize, Serialize};

/// A bundle in a registry of the catalog.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Reference {
    /// The registry's name in the catalog.
    pub registry: String,
    /// The repository there.
    pub repository: Repository,
    /// Which one.
    pub version: Version,
}

/// Which bundle of a repository.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Version {
    /// The one that a tag stands for at this moment.
    Tag(Tag),
    /// Exactly this one.
    Digest(Digest),
}

/// A repository's name: `rootstock/gvisor`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Repository(String);

/// A tag: `20260905.0`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Tag(String);

/// A text that names no bundle.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidReference {
    /// It does not have the parts of a reference.
    #[error(
        "invalid reference {0:?}: want <registry>/<repository>@sha256:<digest> or <registry>/<repository>:<tag>"
    )]
    Form(String),
    /// The registry's name is malformed.
    #[error("invalid registry name {0:?}: want 1 to 63 letters, digits, '-', '_' or '.'")]
    Registry(String),
    /// The repository is malformed.
    #[error(
        "invalid repository {0:?}: want lower-case letters, digits and single separators, parts joined by '/'"
    )]
    Repository(String),
    /// The tag is malformed.
    #[error("invalid tag {0:?}: want 1 to 128 letters, digits, '-', '_' or '.'")]
    Tag(String),
    /// The digest is malformed.
    #[error(transparent)]
    Digest(#[from] InvalidDigest),
}

impl FromStr for Reference {
    type Err = InvalidReference;

    fn from_str(text: &str) -> Result<Self, InvalidReference> {
        let form = || InvalidReference::Form(cut(text));
        let (registry, rest) = text.split_once('/').ok_or_else(form)?;
        let (repository, version) = if let Some((repository, digest)) = rest.split_once('@') {
            (repository, Version::Digest(digest.parse()?))
        } else {
            let (repository, tag) = rest.split_once(':').ok_or_else(form)?;
            (repository, Version::Tag(tag.parse()?))
        };
        let word = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        if registry.is_empty() || registry.len() > 63 || !registry.bytes().all(word) {
            return Err(InvalidReference::Registry(cut(registry)));
        }
        Ok(Self { registry: registry.to_owned(), repository: repository.parse()?, version })
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}{}", self.registry, self.repository, self.version)
    }
}

impl fmt::Display for Version {
    /// With the separator in front, as behind a repository.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tag(tag) => write!(f, ":{tag}"),
            Self::Digest(digest) => write!(f, "@{digest}"),
        }
    }
}

impl FromStr for Repository {
    type Err = InvalidReference;

    /// The grammar of the distribution specification:
    /// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`, parts joined by `/`.
    fn from_str(text: &str) -> Result<Self, InvalidReference> {
        if text.len() <= 255 && text.split('/').all(is_repository_part) {
            return Ok(Self(text.to_owned()));
        }
        Err(InvalidReference::Repository(cut(text)))
    }
}

fn is_repository_part(part: &str) -> bool {
    let word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    part.starts_with(word)
        && part.ends_with(word)
        && part.split(word).all(|between| {
            matches!(between, "" | "." | "_" | "__") || between.bytes().all(|b| b == b'-')
        })
}

impl FromStr for Tag {
    type Err = InvalidReference;

    fn from_str(text: &str) -> Result<Self, InvalidReference> {
        let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let valid = text.len() <= 128
            && text.starts_with(word)
            && text.chars().all(|c| word(c) || matches!(c, '-' | '.'));
        if valid { Ok(Self(text.to_owned())) } else { Err(InvalidReference::Tag(cut(text))) }
    }
}

macro_rules! text {
    ($($name:ident),+) => {$(
        impl TryFrom<String> for $name {
            type Error = InvalidReference;

            fn try_from(text: String) -> Result<Self, InvalidReference> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(value: $name) -> String {
                value.to_string()
            }
        }
    )+};
}

text!(Reference, Repository, Tag);

macro_rules! plain {
    ($($name:ident),+) => {$(
        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    )+};
}

plain!(Repository, Tag);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// What is read can stand in a URL as it is, and is written the same again.
        #[test]
        fn any_reference_has_one_form(
            noise in "\\PC{0,40}", parts in ("[a-z.A-Z]{0,5}", "[a-z0-9/._-]{0,12}", "[@:]", "[a-zA-Z0-9.:_-]{0,12}"),
        ) {
            let digest = Digest::of(noise.as_bytes());
            let made = format!("{}/{}{}{}", parts.0, parts.1, parts.2, parts.3);
            for text in [&noise, &made, &format!("{}/{}@{digest}", parts.0, parts.1)] {
                let Ok(reference) = text.parse::<Reference>() else { continue };
                prop_assert_eq!(&reference.to_string(), text);
                let repository = reference.repository.as_str();
                prop_assert!(repository.split('/').all(|part| !matches!(part, "" | "." | "..")));
                prop_assert!(repository.bytes().all(|b| b.is_ascii_graphic() && !b"?#%\\:@".contains(&b)));
            }
        }
    }

    #[test]
    fn references_are_read_as_they_are_written() {
        let digest = Digest::of(b"");
        for good in [
            "main/rootstock/gvisor:20260905.0".to_owned(),
            "main/gvisor:latest".to_owned(),
            format!("main/a/b/c-d_e__f.g@{digest}"),
        ] {
            let reference: Reference = good.parse().unwrap();
            assert_eq!(reference.to_string(), good);
            assert_eq!(reference.registry, "main");
        }
    }

    #[test]
    fn other_texts_are_refused() {
        for (bad, want) in [
            ("gvisor:1", "invalid reference"),
            ("main/gvisor", "invalid reference"),
            ("/gvisor:1", "invalid registry"),
            ("ma in/gvisor:1", "invalid registry"),
            ("main/:1", "invalid repository"),
            ("main/Gvisor:1", "invalid repository"),
            ("main/../etc:1", "invalid repository"),
            ("main/a//b:1", "invalid repository"),
            ("main/a-:1", "invalid repository"),
            ("main/a..b:1", "invalid repository"),
            ("main/gvisor:", "invalid tag"),
            ("main/gvisor:.a", "invalid tag"),
            ("main/gvisor:a b", "invalid tag"),
            ("main/gvisor@sha256:1", "invalid digest"),
        ] {
            let error = bad.parse::<Reference>().unwrap_err().to_string();
            assert!(error.contains(want), "{bad}: {error}");
        }
        assert!(format!("main/{}:1", "a".repeat(256)).parse::<Reference>().is_err());
    }
}
