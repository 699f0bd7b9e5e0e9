//! The authorities of one shoot at one time, and what becomes of connections
//! when one of them goes.

use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;
use rustls::ServerConfig;
use rustls_pki_types::CertificateDer;
use tokio_util::sync::CancellationToken;

use super::ca::{CaError, ShootCa};

/// Who signs for a shoot, and who is trusted.
#[derive(Debug)]
pub struct Authorities {
    signer: Arc<ShootCa>,
    server: Arc<ShootCa>,
    /// The newest first.
    anchors: Vec<Anchor>,
}

/// An authority that is trusted until it leaves. Clones are the same one.
#[derive(Clone)]
pub struct Anchor(Arc<Inner>);

struct Inner {
    certificate: CertificateDer<'static>,
    left: CancellationToken,
}

impl fmt::Debug for Anchor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Anchor").field("has_left", &self.has_left()).finish_non_exhaustive()
    }
}

impl Anchor {
    fn new(ca: &ShootCa) -> Self {
        let certificate = ca.cert_der().clone();
        Self(Arc::new(Inner { certificate, left: CancellationToken::new() }))
    }

    /// Whether it is trusted no longer.
    pub fn has_left(&self) -> bool {
        self.0.left.is_cancelled()
    }

    /// Waits until it is trusted no longer. Cancel-safe.
    pub async fn left(&self) {
        self.0.left.cancelled().await;
    }

    /// It is trusted no longer: whatever it vouched for ends.
    pub fn leave(&self) {
        self.0.left.cancel();
    }

    fn is_same(&self, other: &Self) -> bool {
        self.0.certificate == other.0.certificate
    }

    fn has_signed(&self, certificate: &CertificateDer<'_>) -> bool {
        let Ok((_, own)) = x509_parser::parse_x509_certificate(&self.0.certificate) else {
            return false;
        };
        x509_parser::parse_x509_certificate(certificate)
            .is_ok_and(|(_, leaf)| leaf.verify_signature(Some(own.public_key())).is_ok())
    }
}

impl Authorities {
    /// One authority, that does everything.
    pub fn one(ca: Arc<ShootCa>) -> Self {
        let anchors = vec![Anchor::new(&ca)];
        Self { signer: Arc::clone(&ca), server: ca, anchors }
    }

    /// `signer` signs the certificates of nodes, `server` the endpoint's; both
    /// are among those that are trusted, which come the newest first.
    pub fn new(signer: Arc<ShootCa>, server: Arc<ShootCa>, trusted: &[Arc<ShootCa>]) -> Self {
        Self { signer, server, anchors: trusted.iter().map(|ca| Anchor::new(ca)).collect() }
    }

    /// Who signs the certificates of nodes.
    pub fn signer(&self) -> &ShootCa {
        &self.signer
    }

    /// Those that are trusted, the newest first.
    pub fn certificates(&self) -> impl Iterator<Item = &CertificateDer<'static>> {
        self.anchors.iter().map(|anchor| &anchor.0.certificate)
    }

    /// How to serve TLS under `hosts`: see [`ShootCa::server_config`].
    pub fn server_config(
        &self,
        hosts: &[String],
        now: Timestamp,
    ) -> Result<Arc<ServerConfig>, CaError> {
        self.server.serving(self.certificates(), hosts, now)
    }

    /// Which of them has signed a certificate that the handshake has verified.
    pub fn issuer_of(&self, certificate: &CertificateDer<'_>) -> Option<Anchor> {
        match self.anchors.as_slice() {
            // It can't be another.
            [only] => Some(only.clone()),
            all => all.iter().find(|anchor| anchor.has_signed(certificate)).cloned(),
        }
    }

    /// All that are trusted.
    pub fn anchors(&self) -> &[Anchor] {
        &self.anchors
    }

    /// Comes after those that were trusted before: the ones that stay are the
    /// same, for connections that are there. Returns those that leave; they
    /// [`leave`](Anchor::leave) when nobody finds the old ones any more.
    #[must_use]
    pub fn succeed(&mut self, before: &[Anchor]) -> Vec<Anchor> {
        for anchor in &mut self.anchors {
            if let Some(same) = before.iter().find(|old| old.is_same(anchor) && !old.has_left()) {
                *anchor = same.clone();
            }
        }
        let stays = |old: &&Anchor| self.anchors.iter().any(|anchor| anchor.is_same(old));
        before.iter().filter(|old| !stays(old)).cloned().collect()
    }
}
