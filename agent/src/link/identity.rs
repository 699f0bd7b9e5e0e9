//! Who the agent is: a key that never leaves its memory, and the certificate for it.

use std::path::Path;
use std::time::{Duration, SystemTime};

use rcgen::{CertificateParams, KeyPair};
use rootstock_proto::v1;
use rootstock_proto::v1::enrollment_client::EnrollmentClient;
use rustls::RootCertStore;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, TrustAnchor};
use tokio::time::Instant;
use tonic::transport::Channel;
use tonic::{Response, Status};

use super::connect::{self, ConnectError, Shown, Target};
use crate::rootfs::random;

/// How long an enrolment may take: the controller asks the shoot's API.
const ENROL: Duration = Duration::from_secs(30);
/// The soonest that a certificate is renewed, whatever the clocks say.
const SOONEST: Duration = Duration::from_secs(60);
/// The latest: a certificate lives a day.
const LATEST: Duration = Duration::from_secs(24 * 60 * 60);

/// A key and its certificate.
pub(super) struct Identity {
    certificate: CertificateDer<'static>,
    key: PrivatePkcs8KeyDer<'static>,
    authorities: RootCertStore,
    /// The CAs of the file when it was asked for.
    asked_under: RootCertStore,
    renew_at: Instant,
}

impl std::fmt::Debug for Identity {
    /// Without the key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity").field("renew_at", &self.renew_at).finish_non_exhaustive()
    }
}

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// No connection, or a file that can't be read.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// No key or request.
    #[error("make a key and a certificate request")]
    Key(#[from] rcgen::Error),
    /// The controller said no.
    #[error("enrol: {} ({:?})", .0.message(), .0.code())]
    Refused(Status),
    /// The controller did not answer.
    #[error("enrol: no answer within {ENROL:?}")]
    Late,
    /// The controller sent something else.
    #[error("enrol: the controller's answer has no certificate that can be used")]
    Answer,
}

impl Identity {
    /// The key with what the controller answered.
    fn new(
        key: &KeyPair,
        wire: Option<v1::Certificate>,
        asked_under: &RootCertStore,
    ) -> Result<Self, IdentityError> {
        let wire = wire.ok_or(IdentityError::Answer)?;
        let mut authorities = RootCertStore::empty();
        let (_, unusable) =
            authorities.add_parsable_certificates(wire.authorities.into_iter().map(Into::into));
        if wire.leaf.is_empty() || unusable > 0 {
            return Err(IdentityError::Answer);
        }
        let renew_after = wire.renew_after.and_then(|at| SystemTime::try_from(at).ok());
        let life = renew_after.ok_or(IdentityError::Answer)?.duration_since(SystemTime::now());
        let identity = Self {
            certificate: wire.leaf.into(),
            key: key.serialize_der().into(),
            authorities,
            asked_under: asked_under.clone(),
            renew_at: Instant::now() + renewal(life.unwrap_or_default()),
        };
        // One that can't be shown would be kept for a day and never replaced.
        connect::check(&identity.shown()).map_err(|_| IdentityError::Answer)?;
        Ok(identity)
    }

    /// What a controller is shown.
    pub(super) fn shown(&self) -> Shown {
        Shown {
            certificate: self.certificate.clone(),
            key: PrivateKeyDer::Pkcs8(self.key.clone_key()),
            authorities: self.authorities.clone(),
        }
    }

    /// All CAs that were known when it was asked for: another one is a reason
    /// to renew it, once.
    pub(super) fn known_authorities(&self) -> Vec<TrustAnchor<'static>> {
        self.authorities.roots.iter().chain(&self.asked_under.roots).cloned().collect()
    }

    /// When it should be replaced.
    pub(super) fn renew_at(&self) -> Instant {
        self.renew_at
    }

    pub(super) fn is_due(&self) -> bool {
        Instant::now() >= self.renew_at
    }
}

/// Makes a key and asks for a certificate. The token is read here and nowhere else.
pub(super) async fn enrol(target: &Target, token_file: &Path) -> Result<Identity, IdentityError> {
    let (key, certificate_request) = request()?;
    let token = connect::read_file(token_file).await?;
    let token = String::from_utf8_lossy(&token).trim().to_owned();
    let mut client = EnrollmentClient::new(connect::channel(target, None).await?);
    let answer = client.enroll(v1::EnrollRequest { token, certificate_request });
    Identity::new(&key, answered(answer).await?.certificate, &target.roots)
}

/// Makes another key and asks for a certificate by the one that the channel
/// was opened with: neither the token nor the shoot's API is needed for it.
pub(super) async fn renew(
    channel: Channel,
    roots: &RootCertStore,
) -> Result<Identity, IdentityError> {
    let (key, certificate_request) = request()?;
    let mut client = EnrollmentClient::new(channel);
    let answer = client.renew(v1::RenewRequest { certificate_request });
    Identity::new(&key, answered(answer).await?.certificate, roots)
}

/// A new key, and the request for its certificate. The name in the certificate
/// comes from the token, or from the certificate before.
fn request() -> Result<(KeyPair, Vec<u8>), IdentityError> {
    let key = KeyPair::generate()?;
    let request = CertificateParams::new(Vec::new())?.serialize_request(&key)?;
    Ok((key, request.der().to_vec()))
}

async fn answered<T>(
    answer: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<T, IdentityError> {
    let answer = tokio::time::timeout(ENROL, answer).await.map_err(|_| IdentityError::Late)?;
    Ok(answer.map_err(IdentityError::Refused)?.into_inner())
}

/// A tenth earlier at random, within bounds that hold where clocks are wrong.
fn renewal(life: Duration) -> Duration {
    let early = u32::try_from(random() % 100).unwrap_or(0);
    // Twice the latest is as good as for ever, and can be multiplied.
    let life = life.min(2 * LATEST);
    (life - life * early / 1000).clamp(SOONEST, LATEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renewal_is_spread_and_bounded() {
        let life = Duration::from_secs(60_480);
        for _ in 0..100 {
            let at = renewal(life);
            assert!(at <= life && at >= life * 9 / 10, "{at:?}");
        }
        assert_eq!(renewal(Duration::ZERO), SOONEST);
        for _ in 0..100 {
            assert_eq!(renewal(Duration::from_secs(1 << 30)), LATEST);
            assert_eq!(renewal(Duration::MAX), LATEST);
        }
    }
}
