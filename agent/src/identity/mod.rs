//! Who this node is to the controller.
//!
//! ```text
//!  key (made here, never leaves memory) ─▶ request ─┐
//!  token file (read now, not kept) ─────────────────┴▶ Enrollment.Enroll ─▶ Identity: certificate + key
//! ```
//!
//! The node's name is nowhere in it: the controller takes it from the token.

use std::fmt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use rcgen::{CertificateParams, KeyPair};
use rootstock_proto::v1;
use rootstock_proto::v1::enrollment_client::EnrollmentClient;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::time::Instant;
use tonic::transport::Channel;

/// The largest token, in bytes. Kubernetes' are 1 to 2 KiB.
const MAX_TOKEN: u64 = 16 * 1024;
/// An answer that says less, or nothing, of when to renew is not followed blindly.
const SHORTEST_LIFE: Duration = Duration::from_secs(60);
/// Without a word on when to renew: a part of a certificate's usual life.
const USUAL_RENEWAL: Duration = Duration::from_secs(16 * 60 * 60);

/// A certificate for this node, and its key.
pub struct Identity {
    chain: Vec<CertificateDer<'static>>,
    key: PrivatePkcs8KeyDer<'static>,
    /// When a new one should be asked for.
    pub renew_at: Instant,
}

impl fmt::Debug for Identity {
    /// Without the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("renew_at", &self.renew_at).finish_non_exhaustive()
    }
}

/// Why the controller gave no certificate.
#[derive(Debug, thiserror::Error)]
pub enum EnrolError {
    /// The token is not there.
    #[error("the ServiceAccount token {path} can't be read")]
    Token {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file is too large to be a token.
    #[error("the ServiceAccount token {path} has more than {MAX_TOKEN} bytes")]
    TokenSize {
        /// The file.
        path: String,
    },
    /// No key or request could be made.
    #[error("no key could be made")]
    Key(#[source] rcgen::Error),
    /// The controller refused, or could not be reached.
    #[error("the controller did not enrol this node: {}", .0.message())]
    Refused(tonic::Status),
    /// The answer has no certificate.
    #[error("the controller's answer has no certificate")]
    Empty,
}

impl Identity {
    /// Asks for a certificate over a channel that only the server is known on.
    pub async fn enrol(channel: Channel, token_file: &Path) -> Result<Self, EnrolError> {
        let token = read_token(token_file).await?;
        let key = KeyPair::generate().map_err(EnrolError::Key)?;
        let request =
            CertificateParams::default().serialize_request(&key).map_err(EnrolError::Key)?;
        let request = v1::EnrollRequest { token, certificate_request: request.der().to_vec() };
        let answer =
            EnrollmentClient::new(channel).enroll(request).await.map_err(EnrolError::Refused)?;
        let certificate = answer.into_inner().certificate.ok_or(EnrolError::Empty)?;
        if certificate.leaf.is_empty() {
            return Err(EnrolError::Empty);
        }
        Ok(Self {
            renew_at: Instant::now() + renew_in(&certificate, SystemTime::now()),
            chain: vec![CertificateDer::from(certificate.leaf)],
            key: PrivatePkcs8KeyDer::from(key.serialize_der()),
        })
    }

    /// What TLS shows to the controller.
    pub fn for_tls(&self) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        (self.chain.clone(), self.key.clone_key().into())
    }
}

fn renew_in(certificate: &v1::Certificate, now: SystemTime) -> Duration {
    let after = certificate.renew_after.as_ref().and_then(|time| {
        let seconds = u64::try_from(time.seconds).ok()?;
        let at = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds))?;
        // A node's clock may be off; a time that has passed says nothing.
        at.duration_since(now).ok()
    });
    after.unwrap_or(USUAL_RENEWAL).clamp(SHORTEST_LIFE, USUAL_RENEWAL * 2)
}

async fn read_token(path: &Path) -> Result<String, EnrolError> {
    let named = || path.display().to_string();
    let error = |source| EnrolError::Token { path: named(), source };
    if tokio::fs::metadata(path).await.map_err(error)?.len() > MAX_TOKEN {
        return Err(EnrolError::TokenSize { path: named() });
    }
    let text = tokio::fs::read_to_string(path).await.map_err(error)?;
    Ok(text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renewal_is_when_the_controller_says_within_reason() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let at = |seconds| v1::Certificate {
            renew_after: Some(prost_types::Timestamp { seconds, nanos: 0 }),
            ..Default::default()
        };
        let table = [
            (at(1_000_600), Duration::from_secs(600)),
            (at(1_000_001), SHORTEST_LIFE),
            (at(999_000), USUAL_RENEWAL),
            (at(-5), USUAL_RENEWAL),
            (at(i64::MAX), USUAL_RENEWAL * 2),
            (v1::Certificate::default(), USUAL_RENEWAL),
        ];
        for (certificate, want) in table {
            assert_eq!(renew_in(&certificate, now), want, "{certificate:?}");
        }
    }
}
