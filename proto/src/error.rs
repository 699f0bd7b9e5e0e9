//! What is refused, and as which gRPC status.

use rootstock_core::bundle::InvalidBundle;
use tonic::{Code, Status};

/// A message that does not hold what it should.
#[derive(Debug, thiserror::Error)]
pub enum Invalid {
    /// A field must be there.
    #[error("{field} is missing")]
    Missing {
        /// The field.
        field: &'static str,
    },
    /// A field has a value that it may not have.
    #[error("{field} is wrong: {why}")]
    Field {
        /// The field.
        field: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// A list is longer than it may be.
    #[error("{field} has {count} items, at most {limit} are allowed")]
    TooMany {
        /// The field.
        field: &'static str,
        /// How many there are.
        count: usize,
        /// How many there may be.
        limit: usize,
    },
    /// A bundle's config blob can't be used.
    #[error("the config blob of {runtime} is refused")]
    Bundle {
        /// The bundle, as far as it can be named.
        runtime: String,
        /// Why.
        #[source]
        source: InvalidBundle,
    },
    /// The content is not what the hash beside it says.
    #[error("the content does not match its hash")]
    ContentHash,
    /// The other side speaks another major version.
    #[error("protocol version {major} is not spoken here, version {ours} is")]
    Protocol {
        /// The other side's major version.
        major: u32,
        /// Our own.
        ours: u32,
    },
}

impl Invalid {
    pub(crate) fn field(field: &'static str, why: impl ToString) -> Self {
        Self::Field { field, why: why.to_string().chars().take(300).collect() }
    }

    /// The gRPC code that says it.
    pub fn code(&self) -> Code {
        match self {
            Self::Missing { .. }
            | Self::Field { .. }
            | Self::TooMany { .. }
            | Self::Bundle { .. } => Code::InvalidArgument,
            Self::ContentHash => Code::DataLoss,
            Self::Protocol { .. } => Code::FailedPrecondition,
        }
    }
}

impl From<Invalid> for Status {
    fn from(invalid: Invalid) -> Self {
        let mut text = invalid.to_string();
        if let Some(source) = std::error::Error::source(&invalid) {
            text.push_str(": ");
            text.push_str(&source.to_string());
        }
        Self::new(invalid.code(), text)
    }
}

/// Refuses a peer of another major version.
pub fn check_protocol(theirs: Option<&crate::v1::ProtocolVersion>) -> Result<(), Invalid> {
    let theirs = theirs.ok_or(Invalid::Missing { field: "protocol" })?;
    let ours = crate::PROTOCOL.major;
    if theirs.major == ours { Ok(()) } else { Err(Invalid::Protocol { major: theirs.major, ours }) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::v1::ProtocolVersion;

    #[test]
    fn another_major_version_is_a_failed_precondition() {
        assert!(check_protocol(Some(&ProtocolVersion { major: 1, minor: 99 })).is_ok());
        let status: Status =
            check_protocol(Some(&ProtocolVersion { major: 2, minor: 0 })).unwrap_err().into();
        assert_eq!(status.code(), Code::FailedPrecondition);
        let status: Status = check_protocol(None).unwrap_err().into();
        assert_eq!(status.code(), Code::InvalidArgument);
    }
}
