//! Who must not get in, over real TLS, and what a hostile peer can't do.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    date_time_ymd,
};
use rootstock_proto::v1;
use rustls_pki_types::CertificateDer;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::Instant;
use tonic::Code;

use super::access::refused_by_tls;
use super::setup::{Identity, Seed, Told, certificate, identity, signed, uri};
use crate::identity::fixtures::{Script, request};

const NODE: &str = "spiffe://one/node/node-1/node-uid-1";
const OTHER: &str = "spiffe://one/node/node-2/node-uid-2";

#[tokio::test]
async fn certificates_that_the_authority_would_not_give_are_refused() {
    let mut seed = Seed::start().await;
    let one = Arc::clone(&seed.one);
    let (good, _) = identity(&one, NODE, Timestamp::now());
    let own = KeyPair::generate().unwrap();
    let alone = certificate(NODE, |_| {}).self_signed(&own).unwrap().der().clone();
    let table: [(&str, Identity); 6] = [
        ("signed by itself", (alone, own)),
        ("of another shoot", identity(&seed.two, "spiffe://two/node/a/1", Timestamp::now())),
        ("another node's, without its key", (good, KeyPair::generate().unwrap())),
        ("over", signed(&one, NODE, |params| params.not_after = date_time_ymd(2020, 1, 1))),
        (
            "not yet begun",
            signed(&one, NODE, |params| params.not_before = date_time_ymd(2999, 1, 1)),
        ),
        (
            "a server's",
            signed(&one, NODE, |params| {
                params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
            }),
        ),
    ];
    for (what, stranger) in table {
        eprintln!("{what}");
        refused_by_tls(seed.agent("rs-one.test", &seed.one).with(stranger)).await;
    }
    assert!(seed.told_nothing());
}

#[tokio::test]
async fn a_node_signs_for_nobody() {
    let mut seed = Seed::start().await;
    let (node, key) = identity(&seed.one, NODE, Timestamp::now());
    // The node plays an authority below the shoot's, for another node.
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let issuer = Issuer::new(params, key);
    let leaf_key = KeyPair::generate().unwrap();
    let leaf = certificate(OTHER, |_| {}).signed_by(&leaf_key, &issuer).unwrap().der().clone();
    let agent = seed.agent("rs-one.test", &seed.one).with((leaf, leaf_key));
    refused_by_tls(agent.with_chain(vec![node])).await;
    assert!(seed.told_nothing());
}

#[tokio::test]
async fn the_right_certificate_opens_no_other_host() {
    let mut seed = Seed::start().await;
    let own = identity(&seed.one, NODE, Timestamp::now());
    refused_by_tls(seed.agent("rs-two.test", &seed.two).with(own)).await;
    assert!(seed.told_nothing());
}

#[tokio::test]
async fn tokens_that_are_not_this_agents_get_no_certificate() {
    type Change = fn(&mut Script);
    let table: [(&str, Change, &str); 9] = [
        ("another Pod's", |s| *s.extra("pod-uid") = json!(["pod-uid-2"]), "does not exist"),
        ("another node's", |s| *s.extra("node-name") = json!(["node-2"]), "does not run on"),
        (
            "another account's",
            |s| s.review["user"]["username"] = json!("system:serviceaccount:kube-system:x"),
            "not of ServiceAccount",
        ),
        ("for another audience", |s| s.review["audiences"] = json!(["api"]), "for audience"),
        ("of a Pod that is gone", |s| s.pod = None, "does not exist any more"),
        (
            "of a Pod that is going",
            |s| {
                let metadata = &mut s.pod.as_mut().unwrap()["metadata"];
                metadata["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
            },
            "is terminating",
        ),
        (
            "of a Pod that somebody made",
            |s| s.pod.as_mut().unwrap()["metadata"]["ownerReferences"] = json!([]),
            "does not belong to DaemonSet",
        ),
        ("of a node that is gone", |s| s.node = None, "does not exist any more"),
        ("expired or made up", |s| s.review = json!({"error": "expired"}), "does not accept"),
    ];
    for (what, change, want) in table {
        let seed = Seed::start().await;
        seed.api.change(change);
        let mut client = seed.agent("rs-one.test", &seed.one).enrollment().await;
        let ask = v1::EnrollRequest { token: "opaque".into(), certificate_request: request().1 };
        let status = client.enroll(ask).await.unwrap_err();
        let codes = [Code::PermissionDenied, Code::Unauthenticated];
        assert!(codes.contains(&status.code()), "{what}: {status}");
        assert!(status.message().contains(want), "{what}: {status}");
    }
}

#[tokio::test]
async fn what_a_request_asks_for_beside_its_key_is_not_given() {
    let mut seed = Seed::start().await;
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["rs-one.test".to_owned()]).unwrap();
    params.subject_alt_names.push(uri(OTHER));
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let greedy = params.serialize_request(&key).unwrap().der().to_vec();
    let mut client = seed.agent("rs-one.test", &seed.one).enrollment().await;
    let ask = |request: Vec<u8>| v1::EnrollRequest {
        token: "opaque".into(),
        certificate_request: request,
    };
    let given = client.enroll(ask(greedy)).await.unwrap().into_inner().certificate.unwrap();
    let leaf: CertificateDer<'static> = given.leaf.into();
    let (_, parsed) = x509_parser::parse_x509_certificate(&leaf).unwrap();
    assert!(!parsed.is_ca());
    let names = parsed.subject_alternative_name().unwrap().unwrap();
    assert_eq!(names.value.general_names.len(), 1, "{names:?}");
    let usage = parsed.extended_key_usage().unwrap().unwrap().value;
    assert!(usage.client_auth && !usage.server_auth, "{usage:?}");
    let agent = seed.agent("rs-one.test", &seed.one).with((leaf, key));
    let _stream = agent.sync().await.unwrap();
    assert!(matches!(seed.told().await, Told::Connected(node, _) if node == "one/node-1"));

    for kind in [&rcgen::PKCS_ED25519, &rcgen::PKCS_RSA_SHA256] {
        let weak = KeyPair::generate_for(kind).unwrap();
        let weak = CertificateParams::default().serialize_request(&weak).unwrap();
        let status = client.enroll(ask(weak.der().to_vec())).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
        assert!(status.message().contains("another kind than ECDSA P-256"), "{status}");
    }
}

/// Peers that say too little hold a connection for seconds, and others come
/// and go beside them. The clock is the test's: it goes on where all wait.
#[tokio::test(start_paused = true)]
async fn who_dawdles_over_the_handshake_is_cut_off() {
    let mut seed = Seed::start().await;
    let begun = Instant::now();
    let mut silent = seed.connect().await;
    let mut dripping = seed.connect().await;
    let drip = async {
        // The first bytes of a ClientHello, one each second.
        for byte in [0x16, 0x03, 0x01, 0x02, 0x00].into_iter().cycle() {
            tokio::time::sleep(Duration::from_secs(1)).await;
            if dripping.write_all(&[byte]).await.is_err() {
                return;
            }
        }
    };
    let mut end = [0; 64];
    let quiet = async { silent.read(&mut end).await };
    let both = async { tokio::join!(drip, quiet).1 };
    let read = tokio::time::timeout(Duration::from_secs(3600), both).await.expect("both are cut");
    assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
    assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", begun.elapsed());
    assert!(seed.told_nothing());
}
