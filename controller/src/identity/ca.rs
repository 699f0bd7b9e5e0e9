//! The certificate authority of one shoot.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PublicKeyData, SanType, SerialNumber, SubjectPublicKeyInfo,
    date_time_ymd,
};
use rootstock_core::name::ShootName;
use rustls::crypto::CryptoProvider;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer;

use super::NodeId;

/// The largest certificate request, in bytes. One with a P-256 key has 400.
pub const MAX_REQUEST_SIZE: usize = 16 * 1024;
/// How long a node's certificate lasts; it is renewed long before.
pub const NODE_LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);

/// How long the certificate of a shoot's endpoint lasts; it is replaced, and
/// its key with it, when four fifths of that are over.
pub const SERVER_LIFETIME: Duration = Duration::from_secs(30 * 24 * 60 * 60);

const CA_LIFETIME: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);
/// A certificate is valid from a little before it is made, for clocks that lag.
const BACKDATED: Duration = Duration::from_secs(5 * 60);
/// The last second of 9999, which is the last that a certificate can name.
const LAST_SECOND: i64 = 253_402_300_799;

/// The certificate authority of one shoot: it signs the certificates of the
/// controller's endpoint for that shoot and of the shoot's nodes.
pub struct ShootCa {
    shoot: ShootName,
    issuer: Issuer<'static, KeyPair>,
    cert: CertificateDer<'static>,
    cert_pem: String,
    not_after: Timestamp,
    provider: Arc<CryptoProvider>,
}

/// A certificate for a node.
#[derive(Clone, Debug)]
pub struct Issued {
    /// The certificate, as PEM.
    pub certificate_pem: String,
    /// The certificate.
    pub certificate: CertificateDer<'static>,
    /// When it ends.
    pub not_after: Timestamp,
}

/// A certificate authority that can't be made or loaded, or can't serve.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// The certificate is not one certificate in PEM.
    #[error("the CA's certificate can't be read")]
    CertificateUnreadable,
    /// The certificate may not sign others.
    #[error("the CA's certificate is not one of a certificate authority")]
    NotAuthority,
    /// The key is not a P-256 key in PEM.
    #[error("the CA's key can't be read")]
    KeyUnreadable(#[source] rcgen::Error),
    /// They don't belong together.
    #[error("the CA's key is not the one in its certificate")]
    KeyMismatch,
    /// The time is none that a certificate can hold.
    #[error("the time is out of range")]
    TimeOutOfRange,
    /// A certificate could not be made.
    #[error("a certificate could not be made")]
    Sign(#[source] rcgen::Error),
    /// There is no randomness.
    #[error("no random bytes to be had")]
    Random,
    /// rustls does not take what we made.
    #[error("the TLS configuration was refused")]
    Tls(#[source] rustls::Error),
    /// The verifier of client certificates does not take the CA.
    #[error("the CA's certificate was refused as an anchor of trust")]
    Verifier(#[source] rustls::server::VerifierBuilderError),
}

/// A request that gets no certificate.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    /// It is too large to be looked at.
    #[error("the certificate request is larger than 16 KiB")]
    TooLarge,
    /// It is not a PKCS #10 request.
    #[error("the certificate request can't be read: PKCS #10 in PEM or DER is expected")]
    Unreadable,
    /// Who sent it does not have the key.
    #[error("the certificate request is not signed with its own key")]
    SignatureInvalid,
    /// The key is of a kind that is not used here.
    #[error("the certificate request has a key of another kind than ECDSA P-256")]
    KeyRefused,
    /// The node is of another shoot.
    #[error("the node belongs to another shoot")]
    WrongShoot,
    /// The authority is at its end.
    #[error("the CA has expired")]
    CaExpired,
    /// It could not be made.
    #[error("the certificate could not be made")]
    Ca(#[source] CaError),
}

impl fmt::Debug for ShootCa {
    /// Without the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ShootCa")
            .field("shoot", &self.shoot)
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}

impl ShootCa {
    /// Makes a new authority (ECDSA P-256, ten years) for a shoot.
    pub fn generate(shoot: &ShootName, now: Timestamp) -> Result<Self, CaError> {
        let key = KeyPair::generate().map_err(CaError::Sign)?;
        let provider = provider();
        let not_after = later(now, CA_LIFETIME);
        let mut params = parameters(&provider, now, not_after)?;
        params.distinguished_name = common_name(&format!("rootstock {shoot}"));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let cert = params.self_signed(&key).map_err(CaError::Sign)?;
        let (cert_pem, cert) = (cert.pem(), cert.der().clone());
        let issuer = Issuer::new(params, key);
        Ok(Self { shoot: shoot.clone(), issuer, cert, cert_pem, not_after, provider })
    }

    /// Takes up the authority of a shoot from where it was kept, both parts as PEM.
    pub fn from_pem(shoot: &ShootName, cert_pem: &str, key_pem: &str) -> Result<Self, CaError> {
        let cert = CertificateDer::from_pem_slice(cert_pem.as_bytes())
            .map_err(|_| CaError::CertificateUnreadable)?;
        let key = KeyPair::from_pem(key_pem).map_err(CaError::KeyUnreadable)?;
        let (_, parsed) = x509_parser::parse_x509_certificate(&cert)
            .map_err(|_| CaError::CertificateUnreadable)?;
        if !parsed.is_ca() {
            return Err(CaError::NotAuthority);
        }
        // Its name is written into what it signs, and whoever writes an identifier
        // of another root than the three that there are panics.
        let roots = parsed.subject().iter_attributes().map(|name| name.attr_type().iter());
        if !roots.into_iter().all(|arcs| arcs.and_then(|mut a| a.next()).is_some_and(|r| r <= 2)) {
            return Err(CaError::CertificateUnreadable);
        }
        if parsed.public_key().raw != key.subject_public_key_info() {
            return Err(CaError::KeyMismatch);
        }
        let not_after = Timestamp::from_second(parsed.validity().not_after.timestamp())
            .map_err(|_| CaError::TimeOutOfRange)?;
        let issuer = Issuer::from_ca_cert_der(&cert, key).map_err(CaError::Sign)?;
        Ok(Self {
            shoot: shoot.clone(),
            issuer,
            cert_pem: cert_pem.to_owned(),
            cert,
            not_after,
            provider: provider(),
        })
    }

    /// The shoot.
    pub fn shoot(&self) -> &ShootName {
        &self.shoot
    }

    /// Its certificate, as PEM.
    pub fn cert_pem(&self) -> &str {
        &self.cert_pem
    }

    /// Its certificate.
    pub fn cert_der(&self) -> &CertificateDer<'static> {
        &self.cert
    }

    /// Its key, as PEM: for the Secret that keeps it, and nowhere else.
    pub fn key_pem(&self) -> String {
        self.issuer.key().serialize_pem()
    }

    /// When its certificate ends.
    pub fn not_after(&self) -> Timestamp {
        self.not_after
    }

    /// How to serve TLS for this shoot under `hosts`: TLS 1.3 and HTTP/2
    /// alone, and a client certificate, if one is shown, must be of this authority.
    ///
    /// The server's key lives in this configuration only and ends with it.
    pub fn server_config(
        &self,
        hosts: &[String],
        now: Timestamp,
    ) -> Result<Arc<ServerConfig>, CaError> {
        self.serving([&self.cert], hosts, now)
    }

    /// The same, where client certificates may be of any of these authorities.
    pub(super) fn serving<'a>(
        &self,
        trusted: impl IntoIterator<Item = &'a CertificateDer<'static>>,
        hosts: &[String],
        now: Timestamp,
    ) -> Result<Arc<ServerConfig>, CaError> {
        let key = KeyPair::generate().map_err(CaError::Sign)?;
        let not_after = later(now, SERVER_LIFETIME).min(self.not_after);
        let mut params = parameters(&self.provider, now, not_after)?;
        params.distinguished_name = common_name("rootstock-controller");
        for host in hosts {
            let host = host.as_str().try_into().map_err(CaError::Sign)?;
            params.subject_alt_names.push(SanType::DnsName(host));
        }
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let cert = params.signed_by(&key, &self.issuer).map_err(CaError::Sign)?;

        let mut anchors = RootCertStore::empty();
        for certificate in trusted {
            anchors.add(certificate.clone()).map_err(CaError::Tls)?;
        }
        let verifier = WebPkiClientVerifier::builder_with_provider(
            Arc::new(anchors),
            Arc::clone(&self.provider),
        )
        // Enrolment shares the port; everything else demands a certificate per call.
        .allow_unauthenticated()
        .build()
        .map_err(CaError::Verifier)?;
        let mut config = ServerConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(CaError::Tls)?
            .with_client_cert_verifier(verifier)
            .with_single_cert(
                vec![cert.der().clone()],
                PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
            )
            .map_err(CaError::Tls)?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        // A resumed session would go on with a client certificate of an
        // authority that was removed since.
        config.send_tls13_tickets = 0;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        Ok(Arc::new(config))
    }

    /// Signs a certificate for a node. Of the request only the public key is
    /// taken, and the proof that the sender has the private one.
    pub fn sign(
        &self,
        request: &[u8],
        node: &NodeId,
        now: Timestamp,
        lifetime: Duration,
    ) -> Result<Issued, SignError> {
        if node.shoot != self.shoot {
            return Err(SignError::WrongShoot);
        }
        let key = public_key(request)?;
        if self.not_after <= now {
            return Err(SignError::CaExpired);
        }
        let not_after = later(now, lifetime).min(self.not_after);
        self.sign_key(&key, node, now, not_after).map_err(SignError::Ca)
    }

    fn sign_key(
        &self,
        key: &impl PublicKeyData,
        node: &NodeId,
        now: Timestamp,
        not_after: Timestamp,
    ) -> Result<Issued, CaError> {
        let mut params = parameters(&self.provider, now, not_after)?;
        // No name outside the SAN: whoever reads a common name reads nothing.
        params.distinguished_name = common_name("rootstock-agent");
        let uri = node.to_spiffe().try_into().map_err(CaError::Sign)?;
        params.subject_alt_names = vec![SanType::URI(uri)];
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let cert = params.signed_by(key, &self.issuer).map_err(CaError::Sign)?;
        Ok(Issued { certificate_pem: cert.pem(), certificate: cert.der().clone(), not_after })
    }
}

/// The public key of a request, if the request proves possession of it.
pub(super) fn public_key(request: &[u8]) -> Result<SubjectPublicKeyInfo, SignError> {
    if request.len() > MAX_REQUEST_SIZE {
        return Err(SignError::TooLarge);
    }
    let der;
    let request = if request.starts_with(b"-----") {
        der = rustls_pki_types::CertificateSigningRequestDer::from_pem_slice(request)
            .map_err(|_| SignError::Unreadable)?;
        der.as_ref()
    } else {
        request
    };
    let (rest, request) =
        X509CertificationRequest::from_der(request).map_err(|_| SignError::Unreadable)?;
    if !rest.is_empty() {
        return Err(SignError::Unreadable);
    }
    // The kind comes first: checking a signature with a key of 64 Kibit takes its time.
    let spki = &request.certification_request_info.subject_pki;
    let key = SubjectPublicKeyInfo::from_der(spki.raw).map_err(|_| SignError::KeyRefused)?;
    if key.algorithm() != &rcgen::PKCS_ECDSA_P256_SHA256 {
        return Err(SignError::KeyRefused);
    }
    request.verify_signature().map_err(|_| SignError::SignatureInvalid)?;
    Ok(key)
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

fn later(now: Timestamp, by: Duration) -> Timestamp {
    let last = Timestamp::from_second(LAST_SECOND).unwrap_or(Timestamp::MAX);
    now.checked_add(by).unwrap_or(last).min(last)
}

fn common_name(name: &str) -> DistinguishedName {
    let mut dn = DistinguishedName::new();
    dn.push(DnType::CommonName, name);
    dn
}

/// Validity and a random serial number; the rest is the caller's.
fn parameters(
    provider: &CryptoProvider,
    now: Timestamp,
    not_after: Timestamp,
) -> Result<CertificateParams, CaError> {
    let seconds = |at: Timestamp| {
        u64::try_from(at.as_second()).map(Duration::from_secs).map_err(|_| CaError::TimeOutOfRange)
    };
    let epoch = date_time_ymd(1970, 1, 1);
    let mut params = CertificateParams::default();
    params.not_before = epoch + seconds(now)?.saturating_sub(BACKDATED);
    params.not_after = epoch + seconds(not_after)?;
    params.use_authority_key_identifier_extension = true;
    let mut serial = [0; 16];
    provider.secure_random.fill(&mut serial).map_err(|_| CaError::Random)?;
    // Positive, and of the same length always.
    serial[0] = serial[0] & 0x3f | 0x40;
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    Ok(params)
}

#[cfg(test)]
mod tests;
