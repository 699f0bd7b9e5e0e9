//! Controllers that are not the agent's, and certificates that are none.

use std::time::Duration;

use rcgen::{CertificateParams, KeyPair};
use rootstock_proto::v1;
use tokio::time::Instant;

use super::super::identity::IdentityError;
use super::super::{ConnectError, Ended, LinkError};
use super::controller::{Authority, Change, HOST, Said, World};

#[tokio::test]
async fn an_impostor_is_not_even_shown_the_token() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let (new, old) = (&rustls::version::TLS13, &rustls::version::TLS12);
    let table = [
        ("another authority", &theirs, HOST, new),
        ("another host", &ours, "other.localhost", new),
        ("TLS 1.2", &ours, HOST, old),
    ];
    for (what, by, host, version) in table {
        let mut world = World::imposed(&ours, by, host, version).await;
        let error = world.link.stream().await.unwrap_err();
        let refused = |error: &LinkError| {
            matches!(
                error,
                LinkError::Identity(IdentityError::Connect(ConnectError::Transport { .. }))
            )
        };
        assert!(refused(&error), "{what}: {error:?}");
        assert_eq!(world.controller.enrolled(), 0, "{what}");
        assert!(world.heard_nothing(), "{what}");
    }
}

fn others() -> Vec<u8> {
    let key = KeyPair::generate().unwrap();
    CertificateParams::default().self_signed(&key).unwrap().der().to_vec()
}

/// An answer that is of no use must not be kept: the next attempt enrols again.
#[tokio::test]
async fn a_certificate_that_is_none_is_not_kept() {
    let table: [(&str, Change); 7] = [
        ("nothing", |given| given.leaf.clear()),
        ("garbage", |given| given.leaf = b"garbage".to_vec()),
        ("cut", |given| given.leaf.truncate(100)),
        ("for another key", |given| given.leaf = others()),
        ("an authority that is none", |given| given.authorities = vec![b"garbage".to_vec()]),
        ("without an end", |given| given.renew_after = None),
        ("with an end that is none", |given| {
            let renew_after = given.renew_after.as_mut().unwrap();
            (renew_after.seconds, renew_after.nanos) = (i64::MIN, i32::MIN);
        }),
    ];
    let mut world = World::start().await;
    world.controller.says(vec![Said::Goodbye(v1::Goodbye::default())]);
    for (at, (what, change)) in (1..).zip(table) {
        world.controller.enrols(Some(change));
        let error = world.link.stream().await.unwrap_err();
        assert!(matches!(error, LinkError::Identity(IdentityError::Answer)), "{what}: {error:?}");
        assert_eq!(world.controller.enrolled(), at, "{what}");
    }
    world.controller.enrols(None);
    assert!(matches!(world.link.stream().await.unwrap(), Ended::Goodbye(_)));
}

#[tokio::test]
async fn a_certificate_that_never_ends_is_renewed_in_a_day() {
    let mut world = World::start().await;
    world.controller.says(vec![Said::Goodbye(v1::Goodbye::default())]);
    world.controller.enrols(Some(|given| {
        given.renew_after.as_mut().unwrap().seconds = i64::MAX;
    }));
    world.link.stream().await.unwrap();
    let identity = world.link.identity.as_ref().unwrap();
    let day = Duration::from_secs(24 * 60 * 60);
    assert!(identity.renew_at() <= Instant::now() + day);
}
