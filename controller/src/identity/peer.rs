//! Reading the certificate that a node shows.

use jiff::Timestamp;
use rootstock_core::name::ShootName;
use rustls_pki_types::CertificateDer;
use x509_parser::extensions::GeneralName;

use super::{InvalidIdentity, NodeId};

/// Who is at the other end of a connection, by its certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The node.
    pub node: NodeId,
    /// When its certificate ends.
    pub not_after: Timestamp,
}

/// A certificate that names no node of the shoot.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PeerError {
    /// It can't be read.
    #[error("the certificate can't be read")]
    Unreadable,
    /// It has no name, or several.
    #[error("the certificate does not have exactly one name, a URI")]
    NotOneName,
    /// Its name is not a node's.
    #[error(transparent)]
    Identity(#[from] InvalidIdentity),
    /// The node is of another shoot than the one that was called.
    #[error("the certificate is for {theirs}, but {ours} was called")]
    OtherShoot {
        /// The shoot in the certificate.
        theirs: ShootName,
        /// The shoot whose host was called.
        ours: ShootName,
    },
}

impl Peer {
    /// Reads the identity in a certificate that the handshake has verified,
    /// and holds it to the shoot whose host was called.
    pub fn of(certificate: &CertificateDer<'_>, called: &ShootName) -> Result<Self, PeerError> {
        let (_, cert) =
            x509_parser::parse_x509_certificate(certificate).map_err(|_| PeerError::Unreadable)?;
        let names = cert.subject_alternative_name().map_err(|_| PeerError::Unreadable)?;
        let names = names.map(|extension| extension.value.general_names.as_slice());
        let Some([GeneralName::URI(uri)]) = names else { return Err(PeerError::NotOneName) };
        let node = NodeId::from_spiffe(uri)?;
        if node.shoot != *called {
            return Err(PeerError::OtherShoot { theirs: node.shoot, ours: called.clone() });
        }
        let not_after = Timestamp::from_second(cert.validity().not_after.timestamp())
            .map_err(|_| PeerError::Unreadable)?;
        Ok(Self { node, not_after })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use proptest::prelude::*;
    use rcgen::{CertificateParams, KeyPair, SanType};

    use super::*;

    fn certificate(names: Vec<SanType>) -> CertificateDer<'static> {
        let mut params = CertificateParams::default();
        params.subject_alt_names = names;
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().clone()
    }

    #[test]
    fn a_certificate_names_one_node_of_the_called_shoot() {
        let shoot: ShootName = "one".parse().unwrap();
        let uri = |text: &str| SanType::URI(text.try_into().unwrap());
        let dns = |text: &str| SanType::DnsName(text.try_into().unwrap());
        let peer = Peer::of(&certificate(vec![uri("spiffe://one/node/a/1")]), &shoot).unwrap();
        assert_eq!(peer.node.to_spiffe(), "spiffe://one/node/a/1");

        for (names, want) in [
            (vec![], "exactly one name"),
            (vec![dns("a")], "exactly one name"),
            (vec![uri("spiffe://one/node/a/1"), uri("spiffe://one/node/b/2")], "exactly one"),
            (vec![uri("spiffe://one/node/a/1"), dns("a")], "exactly one name"),
            (vec![uri("https://one/node/a/1")], "not a spiffe:// URI"),
            (vec![uri("spiffe://one/pod/a/1")], "not of the form"),
            (vec![uri("spiffe://two/node/a/1")], "for two, but one was called"),
        ] {
            let error = Peer::of(&certificate(names), &shoot).unwrap_err().to_string();
            assert!(error.contains(want), "{error}");
        }
        assert_eq!(Peer::of(&vec![0; 10].into(), &shoot), Err(PeerError::Unreadable));
    }

    static GOOD: LazyLock<CertificateDer<'static>> = LazyLock::new(|| {
        certificate(vec![SanType::URI("spiffe://one/node/node-1/uid-1".try_into().unwrap())])
    });

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        /// A handshake would refuse most of these; this does not lean on that.
        #[test]
        fn any_certificate_names_a_node_of_the_called_shoot_or_none(
            noise in any::<Vec<u8>>(), at: prop::sample::Index, byte: u8, cut: bool,
        ) {
            let shoot: ShootName = "one".parse().unwrap();
            let mut bytes = GOOD.to_vec();
            let at = at.index(bytes.len());
            if cut { bytes.truncate(at) } else { bytes[at] = byte }
            for certificate in [noise, bytes] {
                if let Ok(peer) = Peer::of(&certificate.into(), &shoot) {
                    prop_assert_eq!(peer.node.shoot, "one".parse().unwrap());
                }
            }
        }
    }
}
