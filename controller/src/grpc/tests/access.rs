//! Who gets in.

use std::time::Duration;

use jiff::Timestamp;
use rootstock_proto::v1;
use rustls_pki_types::CertificateDer;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tonic::Code;

use super::setup::{Seed, Told, identity, signed, soon};
use crate::identity::fixtures::request;

#[tokio::test]
async fn a_node_enrols_and_speaks_under_the_name_in_its_certificate() {
    let mut seed = Seed::start().await;
    let (key, request) = request();
    let ask = v1::EnrollRequest { token: "opaque".into(), certificate_request: request };
    let mut client = seed.agent("rs-one.test", &seed.one).enrollment().await;
    let certificate = client.enroll(ask).await.unwrap().into_inner().certificate.unwrap();
    assert_eq!(certificate.authorities, [seed.one.cert_der().to_vec()]);
    let (renew, end) = (certificate.renew_after.unwrap(), certificate.not_after.unwrap());
    assert!((7 * 3600 - 60..8 * 3600).contains(&(end.seconds - renew.seconds)));

    let certificate: CertificateDer<'static> = certificate.leaf.into();
    let agent = seed.agent("rs-one.test", &seed.one).with((certificate, key));
    let _stream = agent.sync().await.unwrap();
    assert!(matches!(seed.told().await, Told::Connected(node, _) if node == "one/node-1"));
}

#[tokio::test]
async fn a_refusal_says_why_and_has_a_code() {
    let seed = Seed::start().await;
    let (_, request) = request();
    let mut client = seed.agent("rs-one.test", &seed.one).enrollment().await;
    let ask = |token: &str, request: &[u8]| v1::EnrollRequest {
        token: token.to_owned(),
        certificate_request: request.to_vec(),
    };
    seed.api.change(|script| script.pod = None);
    let status = client.enroll(ask("opaque", &request)).await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied);
    assert!(status.message().contains("rootstock-agent-x of the token does not exist"));
    let status = client.enroll(ask("opaque", b"nothing")).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    let status = client.enroll(ask("", &request)).await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);
    seed.api.change(|script| script.broken = Some(503));
    let status = client.enroll(ask("opaque", &request)).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    // Larger than any token: not even read.
    let status = client.enroll(ask(&"x".repeat(64 * 1024), &request)).await.unwrap_err();
    assert_eq!(status.code(), Code::OutOfRange);
}

#[tokio::test]
async fn without_a_certificate_there_is_enrolment_and_nothing_else() {
    let mut seed = Seed::start().await;
    let agent = seed.agent("rs-one.test", &seed.one);
    let status = agent.sync().await.err().unwrap();
    assert_eq!(status.code(), Code::Unauthenticated);
    let mut client = agent.enrollment().await;
    let status = client.renew(v1::RenewRequest::default()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);
    assert!(seed.told_nothing());
}

#[tokio::test]
async fn a_certificate_is_renewed_while_its_node_exists() {
    let seed = Seed::start().await;
    let own = identity(&seed.one, "spiffe://one/node/node-1/node-uid-1", Timestamp::now());
    let mut client = seed.agent("rs-one.test", &seed.one).with(own).enrollment().await;
    let ask = || v1::RenewRequest { certificate_request: request().1 };
    client.renew(ask()).await.unwrap();
    seed.api.change(|script| script.node = None);
    assert_eq!(client.renew(ask()).await.unwrap_err().code(), Code::PermissionDenied);
}

#[tokio::test]
async fn a_certificate_is_good_for_nothing_where_no_agent_is_left() {
    let mut seed = Seed::start().await;
    let own = || identity(&seed.one, "spiffe://one/node/node-1/node-uid-1", Timestamp::now());
    let agent = seed.agent("rs-one.test", &seed.one).with(own());
    seed.directory.without_agent.lock().unwrap().insert("one/node-1".to_owned());
    let status = agent.sync().await.err().unwrap();
    assert_eq!(status.code(), Code::PermissionDenied);
    let mut client = agent.enrollment().await;
    let (_, request) = request();
    let ask = v1::RenewRequest { certificate_request: request.clone() };
    let status = client.renew(ask.clone()).await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied);
    assert!(status.message().contains("no Pod of DaemonSet"), "{status}");
    assert_eq!(seed.api.asked(), Vec::<String>::new());
    assert!(seed.told_nothing());
    // A new Pod enrols, and is let in before any watch can have told of it.
    let ask_anew = v1::EnrollRequest { token: "opaque".into(), certificate_request: request };
    client.enroll(ask_anew).await.unwrap();
    client.renew(ask).await.unwrap();
    let _stream = agent.sync().await.unwrap();
    assert!(matches!(seed.told().await, Told::Connected(node, _) if node == "one/node-1"));
}

/// A stream that the handshake should not let through: with TLS 1.3 the
/// client hears of it when it first reads.
pub(super) async fn refused_by_tls(agent: super::setup::Agent) {
    let Ok(mut io) = soon(agent.tls()).await else { return };
    let read = soon(io.read(&mut [0; 16])).await;
    let error = read.unwrap_err().to_string();
    assert!(error.contains("alert"), "{error}");
}

#[tokio::test]
async fn a_certificate_of_shoot_two_opens_nothing_at_shoot_one() {
    let mut seed = Seed::start().await;
    // Another authority: the handshake fails.
    let own = identity(&seed.two, "spiffe://two/node/node-1/uid", Timestamp::now());
    refused_by_tls(seed.agent("rs-one.test", &seed.one).with(own)).await;
    // The right authority, but the name of another shoot.
    let own = signed(&seed.one, "spiffe://two/node/node-1/uid", |_| {});
    let status = seed.agent("rs-one.test", &seed.one).with(own).sync().await.err().unwrap();
    assert_eq!(status.code(), Code::PermissionDenied);
    assert!(status.message().contains("for two, but one was called"), "{status}");
    assert!(seed.told_nothing());
    // At home it opens.
    let own = identity(&seed.two, "spiffe://two/node/node-1/uid", Timestamp::now());
    let _stream = seed.agent("rs-two.test", &seed.two).with(own).sync().await.unwrap();
    assert!(matches!(seed.told().await, Told::Connected(node, _) if node == "two/node-1"));
}

#[tokio::test]
async fn handshakes_that_are_not_ours_fail() {
    let mut seed = Seed::start().await;
    // TLS 1.2.
    let old = seed.agent("rs-one.test", &seed.one).with_tls(&rustls::version::TLS12);
    assert!(soon(old.tls()).await.is_err());
    // A host that nobody serves: closed without a word.
    let lost = seed.agent("rs-three.test", &seed.one);
    let error = soon(lost.tls()).await.unwrap_err();
    assert!(matches!(
        error.kind(),
        std::io::ErrorKind::UnexpectedEof | std::io::ErrorKind::ConnectionReset
    ));
    // An address instead of a host.
    assert!(soon(seed.agent("127.0.0.1", &seed.one).tls()).await.is_err());
    // Its time is over.
    let long_ago = Timestamp::now() - Duration::from_secs(25 * 60 * 60);
    let own = identity(&seed.one, "spiffe://one/node/node-1/uid", long_ago);
    refused_by_tls(seed.agent("rs-one.test", &seed.one).with(own)).await;
    // The client does not take a server of another shoot either.
    assert!(soon(seed.agent("rs-one.test", &seed.two).tls()).await.is_err());
    assert!(seed.told_nothing());
}

/// HTTP/2 is all that is spoken, whatever the handshake says of it.
#[tokio::test]
async fn http_1_is_not_spoken() {
    let mut seed = Seed::start().await;
    let error = soon(seed.node("node-1").with_alpn(&["http/1.1"]).tls()).await.unwrap_err();
    assert!(error.to_string().contains("NoApplicationProtocol"), "{error}");
    let mut io = soon(seed.node("node-1").with_alpn(&[]).tls()).await.unwrap();
    let ask = b"POST /rootstock.v1.Fleet/Sync HTTP/1.1\r\nhost: rs-one.test\r\n\r\n";
    soon(io.write_all(ask)).await.unwrap();
    let mut answer = Vec::new();
    let _end = soon(io.read_to_end(&mut answer)).await;
    assert!(!answer.starts_with(b"HTTP/1"), "{}", answer.escape_ascii());
    assert!(seed.told_nothing());
}

#[tokio::test]
async fn sessions_are_not_resumed() {
    let seed = Seed::start().await;
    let io = soon(seed.node("node-1").tls()).await.unwrap();
    let (_, connection) = io.get_ref();
    assert_eq!(connection.handshake_kind(), Some(rustls::HandshakeKind::Full));
    assert_eq!(connection.alpn_protocol(), Some(&b"h2"[..]));
    assert_eq!(connection.tls13_tickets_received(), 0);
}
