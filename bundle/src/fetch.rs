//! Small objects out of a registry: capped in size, within a deadline, verified.

use bytes::{Bytes, BytesMut};
use http::header::ACCEPT;
use http::{HeaderMap, StatusCode};
use oci_client::errors::OciDistributionError;
use oci_client::secrets::RegistryAuth;
use rootstock_core::digest::Digest;
use rootstock_core::status::Reason;

use crate::client::Client;
use rootstock_core::reference::Repository;

/// Why an object did not come, or did not go.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    /// There was no answer, or it broke off.
    #[error("the registry does not answer, or breaks off")]
    Unreachable(#[source] reqwest::Error),
    /// There was no end within the time that it may take.
    #[error("the registry did not finish within {0} seconds")]
    Late(u64),
    /// It answers with an error of its own.
    #[error("the registry answers with status {status}{}", behind(message))]
    Status {
        /// The HTTP status.
        status: StatusCode,
        /// What it says, at most 200 characters.
        message: String,
    },
    /// It wants the credential to be shown where that must not be.
    #[error("the registry asks for a token at {realm}, which is refused: {why}")]
    Realm {
        /// Where it leads.
        realm: String,
        /// Why nobody goes there.
        why: &'static str,
    },
    /// It wants another credential.
    #[error("the registry refuses the credential with status {0}")]
    Unauthorized(StatusCode),
    /// It answers in a way that the distribution specification doesn't know.
    #[error("the registry answers in an unknown way: {0}")]
    Unexpected(String),
    /// It does not have it.
    #[error("the registry does not have {0}")]
    NotFound(String),
    /// There are more bytes than allowed.
    #[error("{what} has more than {limit} bytes")]
    TooLarge {
        /// The object.
        what: String,
        /// How many it may have.
        limit: usize,
    },
    /// The bytes are not those that the digest names.
    #[error("{what} has other bytes than its digest says: {actual}")]
    Digest {
        /// The object.
        what: String,
        /// What came.
        actual: Digest,
    },
}

fn behind(message: &str) -> String {
    if message.is_empty() { String::new() } else { format!(": {message}") }
}

impl Trouble {
    /// The reason that users see.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Unreachable(_) | Self::Late(_) | Self::Status { .. } | Self::Unexpected(_) => {
                Reason::RegistryUnreachable
            }
            Self::Unauthorized(_) | Self::Realm { .. } => Reason::RegistryUnauthorized,
            Self::NotFound(_) => Reason::BundleNotFound,
            Self::TooLarge { .. } => Reason::SizeExceeded,
            Self::Digest { .. } => Reason::DigestMismatch,
        }
    }

    pub(crate) fn from_status(status: StatusCode, body: &str, what: &str) -> Self {
        match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Self::Unauthorized(status),
            StatusCode::NOT_FOUND | StatusCode::GONE => Self::NotFound(what.to_owned()),
            _ => Self::Status { status, message: body.trim().chars().take(200).collect() },
        }
    }

    /// What oci-client says, in our words.
    #[expect(clippy::wildcard_enum_match_arm, reason = "a foreign enum of 25 variants")]
    pub(crate) fn from_oci(error: OciDistributionError, what: &str) -> Self {
        use OciDistributionError as E;
        let of_code = |code, message: &str| match StatusCode::from_u16(code) {
            Ok(status) => Self::from_status(status, message, what),
            Err(_) => Self::Unexpected(format!("status {code}")),
        };
        match error {
            E::RequestError(error) => match error.status() {
                Some(status) => Self::from_status(status, "", what),
                None => Self::Unreachable(error),
            },
            E::ServerError { code, message, .. } => of_code(code, &message),
            E::UnauthorizedError { .. } | E::AuthenticationFailure(_) => {
                Self::Unauthorized(StatusCode::UNAUTHORIZED)
            }
            // Everything else is an answer that is no answer; a later
            // version's new errors are too.
            other => Self::Unexpected(other.to_string().chars().take(200).collect()),
        }
    }
}

/// What came.
pub(crate) struct Fetched {
    pub(crate) bytes: Bytes,
    /// The digest of `bytes`, by our own count.
    pub(crate) digest: Digest,
    pub(crate) headers: HeaderMap,
}

impl Client {
    /// Gets `/v2/<repository>/<path>`, at most `limit` bytes of it.
    ///
    /// `token` is what [`Client::wanted`] gave. `what` is the object in words.
    pub(crate) async fn get(
        &self,
        repository: &Repository,
        path: &str,
        accept: &str,
        limit: usize,
        token: Option<&str>,
        what: &str,
    ) -> Result<Fetched, Trouble> {
        let url = format!("{}/v2/{repository}/{path}", self.base.url);
        let mut request = self.http.get(url).header(ACCEPT, accept);
        request = match (token, &self.auth) {
            (Some(token), _) => request.bearer_auth(token),
            (None, RegistryAuth::Basic(user, secret)) => request.basic_auth(user, Some(secret)),
            (None, RegistryAuth::Anonymous | RegistryAuth::Bearer(_)) => request,
        };
        let mut answer = request.send().await.map_err(Trouble::Unreachable)?;
        let bytes = body(&mut answer, limit, what).await?;
        let digest = Digest::of(&bytes);
        Ok(Fetched { bytes, digest, headers: answer.headers().clone() })
    }
}

/// The payload of an answer, at most `limit` bytes of it.
pub(crate) async fn body(
    answer: &mut reqwest::Response,
    limit: usize,
    what: &str,
) -> Result<Bytes, Trouble> {
    let status = answer.status();
    let limit_here = if status.is_success() { limit } else { 4096 };
    let mut bytes = BytesMut::new();
    while let Some(chunk) = answer.chunk().await.map_err(Trouble::Unreachable)? {
        if bytes.len() + chunk.len() > limit_here {
            if status.is_success() {
                return Err(Trouble::TooLarge { what: what.to_owned(), limit });
            }
            break;
        }
        bytes.extend_from_slice(&chunk);
    }
    if !status.is_success() {
        return Err(Trouble::from_status(status, &String::from_utf8_lossy(&bytes), what));
    }
    Ok(bytes.freeze())
}
