use std::sync::LazyLock;

use proptest::prelude::*;
use rcgen::CertificateSigningRequest;

use super::*;
use crate::identity::peer::Peer;

fn now() -> Timestamp {
    Timestamp::from_second(1_800_000_000).unwrap()
}

fn ca() -> ShootCa {
    ShootCa::generate(&"one".parse().unwrap(), now()).unwrap()
}

fn node() -> NodeId {
    NodeId::from_spiffe("spiffe://one/node/a/1").unwrap()
}

fn request(key: &KeyPair) -> CertificateSigningRequest {
    // What the request asks for is not what it gets.
    let mut params = CertificateParams::new(vec!["admin.example".to_owned()]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.serialize_request(key).unwrap()
}

#[test]
fn only_the_key_comes_from_the_request() {
    let (ca, key) = (ca(), KeyPair::generate().unwrap());
    let request = request(&key);
    for request in [request.der().to_vec(), request.pem().unwrap().into_bytes()] {
        let issued = ca.sign(&request, &node(), now(), NODE_LIFETIME).unwrap();
        let (_, cert) = x509_parser::parse_x509_certificate(&issued.certificate).unwrap();
        assert_eq!(cert.public_key().raw, key.subject_public_key_info());
        assert!(!cert.is_ca());
        let usage = cert.extended_key_usage().unwrap().unwrap().value;
        assert!(usage.client_auth && !usage.server_auth && !usage.any);
        assert_eq!(cert.validity().not_before.timestamp(), now().as_second() - 300);
        assert_eq!(cert.validity().not_after.timestamp(), now().as_second() + 86_400);
        assert_eq!(issued.not_after.as_second(), now().as_second() + 86_400);
        let peer = Peer::of(&issued.certificate, ca.shoot()).unwrap();
        assert_eq!(peer, Peer { node: node(), not_after: issued.not_after });
        let (_, authority) = x509_parser::parse_x509_certificate(&ca.cert).unwrap();
        cert.verify_signature(Some(authority.public_key())).unwrap();
    }
}

#[test]
fn serial_numbers_differ_for_the_same_key() {
    let (ca, key) = (ca(), KeyPair::generate().unwrap());
    let request = request(&key);
    let serial = || {
        let issued = ca.sign(request.der(), &node(), now(), NODE_LIFETIME).unwrap();
        let (_, cert) = x509_parser::parse_x509_certificate(&issued.certificate).unwrap();
        cert.raw_serial().to_vec()
    };
    assert_ne!(serial(), serial());
}

#[test]
fn odd_requests_are_refused() {
    let ca = ca();
    let sign = |request: &[u8]| ca.sign(request, &node(), now(), NODE_LIFETIME);
    let good = request(&KeyPair::generate().unwrap()).der().to_vec();

    let mut forged = good.clone();
    *forged.last_mut().unwrap() ^= 1;
    assert!(matches!(sign(&forged), Err(SignError::SignatureInvalid)));
    let mut long = good;
    long.push(0);
    assert!(matches!(sign(&long), Err(SignError::Unreadable)));
    assert!(matches!(sign(b""), Err(SignError::Unreadable)));
    assert!(matches!(sign(b"-----BEGIN NONSENSE-----"), Err(SignError::Unreadable)));
    assert!(matches!(sign(&vec![0; MAX_REQUEST_SIZE + 1]), Err(SignError::TooLarge)));
    for algorithm in [&rcgen::PKCS_ED25519, &rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_RSA_SHA256]
    {
        let request = request(&KeyPair::generate_for(algorithm).unwrap());
        assert!(matches!(sign(request.der()), Err(SignError::KeyRefused)), "{algorithm:?}");
    }
}

#[test]
fn a_node_of_another_shoot_gets_nothing() {
    let request = request(&KeyPair::generate().unwrap());
    let other = NodeId::from_spiffe("spiffe://two/node/a/1").unwrap();
    let refused = ca().sign(request.der(), &other, now(), NODE_LIFETIME);
    assert!(matches!(refused, Err(SignError::WrongShoot)));
}

#[test]
fn no_certificate_outlives_the_authority() {
    let (ca, request) = (ca(), request(&KeyPair::generate().unwrap()));
    let late = ca.not_after() - Duration::from_secs(60);
    let issued = ca.sign(request.der(), &node(), late, NODE_LIFETIME).unwrap();
    assert_eq!(issued.not_after, ca.not_after());
    let after = ca.sign(request.der(), &node(), ca.not_after(), NODE_LIFETIME);
    assert!(matches!(after, Err(SignError::CaExpired)));
}

#[test]
fn an_authority_is_kept_and_taken_up_again() {
    let ca = ca();
    let again = ShootCa::from_pem(ca.shoot(), ca.cert_pem(), &ca.key_pem()).unwrap();
    assert_eq!((again.cert_pem(), again.key_pem()), (ca.cert_pem(), ca.key_pem()));
    assert_eq!(again.not_after(), ca.not_after());
    let (_, cert) = x509_parser::parse_x509_certificate(&ca.cert).unwrap();
    let constraints = cert.basic_constraints().unwrap().unwrap().value;
    assert_eq!((constraints.ca, constraints.path_len_constraint), (true, Some(0)));

    let request = request(&KeyPair::generate().unwrap());
    let issued = again.sign(request.der(), &node(), now(), NODE_LIFETIME).unwrap();
    let (_, leaf) = x509_parser::parse_x509_certificate(&issued.certificate).unwrap();
    leaf.verify_signature(Some(cert.public_key())).unwrap();
}

#[test]
fn parts_that_do_not_belong_together_are_refused() {
    let (one, two) = (ca(), ca());
    let load = |cert: &str, key: &str| ShootCa::from_pem(one.shoot(), cert, key).unwrap_err();
    assert!(matches!(load(one.cert_pem(), &two.key_pem()), CaError::KeyMismatch));
    assert!(matches!(load("", &one.key_pem()), CaError::CertificateUnreadable));
    assert!(matches!(load(one.cert_pem(), "nothing"), CaError::KeyUnreadable(_)));
    let key = KeyPair::generate().unwrap();
    let leaf = one.sign(request(&key).der(), &node(), now(), NODE_LIFETIME).unwrap();
    let error = load(&leaf.certificate_pem, &key.serialize_pem());
    assert!(matches!(error, CaError::NotAuthority));
}

#[test]
fn the_key_is_not_printed() {
    let ca = ca();
    assert!(!format!("{ca:?}").contains("KeyPair"));
    assert!(ca.server_config(&["rs-one.seed.localhost".to_owned()], now()).is_ok());
    assert!(ca.server_config(&["ä".to_owned()], now()).is_err());
}

static KEY: LazyLock<KeyPair> = LazyLock::new(|| KeyPair::generate().unwrap());
static CA: LazyLock<ShootCa> = LazyLock::new(ca);

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// A request is signed by its key as a whole: whatever else changes in it,
    /// no other key can get a certificate.
    #[test]
    fn any_request_gives_its_own_key_or_none(
        noise in any::<Vec<u8>>(), at: prop::sample::Index, byte: u8, cut: bool, as_pem: bool,
    ) {
        let request = request(&KEY);
        let mut bytes =
            if as_pem { request.pem().unwrap().into_bytes() } else { request.der().to_vec() };
        let at = at.index(bytes.len());
        if cut { bytes.truncate(at) } else { bytes[at] = byte }
        let pem = [b"-----BEGIN CERTIFICATE REQUEST-----\n", &noise[..]].concat();
        for request in [noise, pem, bytes] {
            if let Ok(key) = public_key(&request) {
                prop_assert_eq!(key.der_bytes(), KEY.public_key_raw());
            }
        }
    }

    /// What a Secret holds may be anything: an authority comes of it whole or not at all.
    #[test]
    fn any_kept_authority_is_taken_up_or_refused(
        noise in "(?s).{0,200}", at: prop::sample::Index, with in "[ -~\n]{0,3}", of_key: bool,
    ) {
        let (cert, key) = (CA.cert_pem().to_owned(), CA.key_pem());
        let mut changed = if of_key { key.clone() } else { cert.clone() };
        let at = at.index(changed.len());
        changed.replace_range(at..at + 1, &with);
        let pairs = if of_key { [(&cert, &changed), (&cert, &noise)] } else { [(&changed, &key), (&noise, &key)] };
        for (cert, key) in pairs {
            if let Ok(taken) = ShootCa::from_pem(CA.shoot(), cert, key) {
                // Its end may have been changed: then it has ended, or ends others sooner.
                let issued = taken.sign(request(&KEY).der(), &node(), now(), NODE_LIFETIME);
                match issued {
                    Ok(issued) => prop_assert!(issued.not_after <= taken.not_after()),
                    Err(refused) => prop_assert!(matches!(refused, SignError::CaExpired)),
                }
            }
        }
    }
}
