//! A shoot's authorities change while its agents are there.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use rootstock_core::desired::Generation;
use rootstock_proto::v1;
use rootstock_proto::v1::controller_message::Kind as Said;
use rootstock_proto::v1::node_message::Kind;
use rustls_pki_types::CertificateDer;
use tokio::task::JoinSet;
use tonic::Code;

use super::setup::{Agent, MANY, Seed, Stream, Told, identity, soon};
use crate::identity::authorities::Authorities;
use crate::identity::ca::ShootCa;
use crate::identity::fixtures::request;

const HOST: &str = "rs-one.test";

fn another(seed: &Seed) -> Arc<ShootCa> {
    Arc::new(ShootCa::generate(seed.one.shoot(), Timestamp::now()).unwrap())
}

/// As from Preparing to Prepared.
fn announced(old: &Arc<ShootCa>, new: &Arc<ShootCa>) -> Authorities {
    Authorities::new(Arc::clone(new), Arc::clone(old), &[Arc::clone(new), Arc::clone(old)])
}

/// As in the middle of an own rotation.
fn switched(old: &Arc<ShootCa>, new: &Arc<ShootCa>) -> Authorities {
    Authorities::new(Arc::clone(new), Arc::clone(new), &[Arc::clone(new), Arc::clone(old)])
}

/// A node with a certificate of `by`, that trusts `by` alone.
fn node(seed: &Seed, name: &str, by: &ShootCa) -> Agent {
    let id = format!("spiffe://one/node/{name}/uid");
    seed.agent(HOST, by).with(identity(by, &id, Timestamp::now()))
}

async fn goodbye(stream: &mut Stream) -> String {
    match stream.hear().await.unwrap() {
        Some(Said::Goodbye(goodbye)) => {
            let after = goodbye.reconnect_after.unwrap();
            assert!((1..=11).contains(&after.seconds), "{after:?}");
            goodbye.reason
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_reload_drops_no_stream_and_an_authority_that_leaves_ends_its_own() {
    let mut seed = Seed::start().await;
    let (old, new) = (Arc::clone(&seed.one), another(&seed));
    let mut one = node(&seed, "node-1", &old).sync().await.unwrap();
    assert!(matches!(seed.told().await, Told::Connected(..)));
    // Another certificate of the endpoint alone, and then another authority.
    for authorities in [
        Authorities::one(Arc::clone(&old)),
        announced(&old, &new),
        switched(&old, &new),
        announced(&old, &new),
    ] {
        seed.serve_by(authorities);
        one.say(Kind::Accept(v1::Accept { generation: 1 })).await;
        assert_eq!(seed.told().await, Told::Accepted("one/node-1".into(), Generation(1)));
    }
    // Until Completing the endpoint is shown under what everybody knows.
    let mut two = node(&seed, "node-2", &old).sync().await.unwrap();
    assert!(matches!(seed.told().await, Told::Connected(..)));
    // Who has a certificate of the new one replaces its own stream.
    let renewed = node(&seed, "node-1", &new).trusting(&old);
    let mut one_again = renewed.sync().await.unwrap();
    assert!(matches!(seed.told().await, Told::Connected(..)));
    assert_eq!(one.hear().await.unwrap_err().code(), Code::Aborted);

    seed.serve_by(Authorities::one(Arc::clone(&new)));
    assert!(goodbye(&mut two).await.contains("enrol anew"));
    assert!(two.hear().await.unwrap().is_none());
    assert_eq!(seed.told().await, Told::Disconnected("one/node-2".into()));
    seed.directory.desire("one/node-1", 3);
    assert_eq!(one_again.desired().await, 3, "one that stays is not touched");

    // Who knows the old one alone does not get in, nor does its certificate.
    let error = node(&seed, "node-2", &old).tls().await.unwrap_err();
    assert!(error.to_string().contains("invalid peer certificate"), "{error}");
    assert!(node(&seed, "node-2", &old).trusting(&new).sync().await.is_err());
    assert!(node(&seed, "node-2", &new).sync().await.is_ok());
}

#[tokio::test]
async fn a_connection_of_an_authority_that_has_left_opens_nothing() {
    let seed = Seed::start().await;
    let (old, new) = (Arc::clone(&seed.one), another(&seed));
    let mut client = node(&seed, "node-1", &old).enrollment().await;
    seed.serve_by(announced(&old, &new));
    // It is given one of the new authority, and is told of both.
    let (_, certificate_request) = request();
    let ask = || v1::RenewRequest { certificate_request: certificate_request.clone() };
    seed.api.change(|script| {
        script.node.as_mut().unwrap()["metadata"]["uid"] = "uid".into();
    });
    let given = client.renew(ask()).await.unwrap().into_inner().certificate.unwrap();
    assert_eq!(given.authorities, [&new, &old].map(|ca| ca.cert_der().to_vec()));
    let leaf = CertificateDer::from(given.leaf);
    let alone = Authorities::new(Arc::clone(&old), Arc::clone(&old), &[Arc::clone(&new), old]);
    let issuer = alone.issuer_of(&leaf).unwrap();
    seed.serve_by(Authorities::one(Arc::clone(&new)));
    assert!(!issuer.has_left());
    let status = client.renew(ask()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated, "{status}");
    assert!(status.message().contains("not trusted any more"), "{status}");
}

/// What an agent does: it comes back when it is told to, and enrols anew when
/// its certificate is not taken.
async fn agent(seed: &Seed, n: usize, old: &ShootCa, new: &ShootCa) -> Stream {
    let name = format!("many-{n}");
    let refused = node(seed, &name, old).trusting(new).sync().await;
    assert!(refused.is_err(), "{name} has a certificate that is trusted no longer");
    node(seed, &name, new).trusting(old).sync().await.unwrap()
}

#[tokio::test]
async fn a_hundred_agents_are_there_at_the_end_of_a_rotation() {
    let mut seed = Seed::start().await;
    let (old, new) = (Arc::clone(&seed.one), another(&seed));
    let mut streams = Vec::new();
    for n in 0..MANY {
        streams.push(node(&seed, &format!("many-{n}"), &old).sync().await.unwrap());
        assert!(matches!(seed.told().await, Told::Connected(..)));
    }
    // Preparing: nothing happens to anybody.
    seed.serve_by(announced(&old, &new));
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(seed.told_nothing());
    // Until Prepared half of them have renewed, as they are told by their file.
    for (n, stream) in streams.iter_mut().enumerate().filter(|(n, _)| n % 2 == 0) {
        let renewed = node(&seed, &format!("many-{n}"), &new).trusting(&old);
        let mut before = std::mem::replace(stream, renewed.sync().await.unwrap());
        assert!(matches!(seed.told().await, Told::Connected(..)));
        assert_eq!(before.hear().await.unwrap_err().code(), Code::Aborted, "replaced by its own");
    }
    assert!(seed.told_nothing());
    // Prepared: a server that starts anew, or another certificate of the endpoint.
    seed.serve_by(announced(&old, &new));
    // Completing: those of the old one end, and no others.
    seed.serve_by(Authorities::one(Arc::clone(&new)));
    let mut ending = JoinSet::new();
    for (n, mut stream) in streams.drain(..).enumerate().collect::<Vec<_>>() {
        if n % 2 == 0 {
            streams.push(stream);
        } else {
            ending.spawn(async move { goodbye(&mut stream).await });
        }
    }
    for reason in soon(ending.join_all()).await {
        assert!(reason.contains("authority has left"), "{reason}");
    }
    for _ in 0..MANY / 2 {
        let Told::Disconnected(node) = seed.told().await else { panic!() };
        let n: usize = node.rsplit('-').next().unwrap().parse().unwrap();
        assert_eq!(n % 2, 1, "{node}");
    }
    for n in (1..MANY).step_by(2) {
        streams.push(agent(&seed, n, &old, &new).await);
        assert!(matches!(seed.told().await, Told::Connected(..)));
    }
    // Completed: every one is there, on the stream that it has.
    seed.serve_by(Authorities::one(new));
    for n in 0..MANY {
        seed.directory.desire(&format!("one/many-{n}"), 9);
    }
    for stream in &mut streams {
        assert_eq!(stream.desired().await, 9);
    }
    assert_eq!(streams.len(), MANY);
    assert!(seed.told_nothing());
}
