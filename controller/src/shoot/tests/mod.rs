//! Shoots' tasks against an API server that does as it is told.

mod agents;
mod sandboxes;
mod server;

use std::sync::Arc;
use std::time::Duration;

use rootstock_core::name::ShootName;
use rootstock_core::path::BinaryRoots;
use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::endpoints::Endpoints;
use super::secrets::authority::Authority;
use super::tokens::{ByShoot, Token};
use super::{authorities, task};
use crate::api::Cluster;
use crate::grpc::Refused;
use crate::identity::NodeId;
use crate::identity::authorities::Anchor;
use crate::identity::ca::ShootCa;
use crate::identity::rotation::Kept;
use crate::index::Index;
use server::{BOUND, Mood, Server};

/// Shoots' tasks.
struct Running {
    server: Server,
    index: Arc<Index>,
    endpoints: Arc<Endpoints>,
    tokens: watch::Sender<ByShoot>,
    authorities: watch::Sender<authorities::ByShoot>,
    clusters: Vec<watch::Sender<Arc<Cluster>>>,
    _tasks: JoinSet<()>,
}

/// An authority as a Secret keeps it, made for the rotation of that time.
fn authority(n: usize, initiated: Option<i64>) -> Arc<Authority> {
    let now = jiff::Timestamp::now();
    let ca = Arc::new(ShootCa::generate(&shoot(n), now).unwrap());
    let name = format!("ca-{}", initiated.unwrap_or_default());
    let kept = Kept { name, initiated, from: now, until: ca.not_after() };
    Arc::new(Authority { kept, ca })
}

fn name(n: usize) -> String {
    format!("shoot--test--n{n}")
}

fn shoot(n: usize) -> ShootName {
    name(n).parse().unwrap()
}

fn cluster(n: usize, asleep: bool) -> Arc<Cluster> {
    let annotations = json!({crate::api::KUBECONFIG_SECRET: "generic"});
    let cluster = json!({
        "apiVersion": "extensions.gardener.cloud/v1alpha1", "kind": "Cluster",
        "metadata": {"name": name(n), "annotations": annotations},
        "spec": {"seed": {"spec": {"ingress": {"domain": "seed.test"}}},
                 "shoot": {"spec": {"hibernation": {"enabled": asleep}}}},
    });
    Arc::new(serde_json::from_value(cluster).unwrap())
}

impl Running {
    async fn start(moods: impl IntoIterator<Item = Mood>) -> Self {
        Self::start_with(true, moods).await
    }

    async fn start_with(has_ca: bool, moods: impl IntoIterator<Item = Mood>) -> Self {
        let server = Server::start().await;
        let index = Arc::new(Index::new(BinaryRoots::default()).at_once());
        index.seed_listed(&[]);
        let endpoints = Arc::new(Endpoints::default());
        let (tokens, tokens_seen) = watch::channel(ByShoot::new());
        let (known, authorities_seen) = watch::channel(authorities::ByShoot::new());
        let (mut clusters, mut tasks) = (Vec::new(), JoinSet::new());
        let seed = server.seed();
        // Whoever asks for it later than its sender has gone still has it.
        let catalog = watch::channel(Arc::new(catalog())).1;
        for (n, mood) in moods.into_iter().enumerate() {
            server.set(&name(n), mood);
            let (sender, receiver) = watch::channel(cluster(n, false));
            clusters.push(sender);
            tokens.send_modify(|tokens| drop(tokens.insert(shoot(n), Token("old".into()))));
            if has_ca {
                known.send_modify(|known| put(known, n, &authority(n, None)));
            }
            let task = task::Shoot {
                name: shoot(n),
                seed: seed.clone(),
                standing: crate::lead::Standing::leading(),
                index: Arc::clone(&index),
                endpoints: Arc::clone(&endpoints),
                cluster: receiver,
                tokens: tokens_seen.clone(),
                authorities: authorities_seen.clone(),
                catalog: catalog.clone(),
                domain: None,
                own_api: None,
            };
            tasks.spawn(task.run());
        }
        let authorities = known;
        Self { server, index, endpoints, tokens, authorities, clusters, _tasks: tasks }
    }

    /// Whether a shoot's Nodes are known.
    fn is_known(&self, n: usize) -> bool {
        let node =
            NodeId { shoot: shoot(n), name: "n1".parse().unwrap(), uid: "1".parse().unwrap() };
        match self.index.connect(&node, None) {
            Ok(_) | Err(Refused::NoAgent) => true,
            Err(Refused::NotSynced) => false,
            Err(Refused::UnknownNode) => panic!("{node} is missing"),
        }
    }

    async fn until(&self, what: &str, mut is_so: impl FnMut(&Self) -> bool) {
        let end = Instant::now() + BOUND;
        while !is_so(self) {
            assert!(Instant::now() < end, "{what}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// One type with one RuntimeClass.
fn catalog() -> rootstock_core::catalog::Catalog {
    let runtimes = json!([{"type": "kata", "bundle": "main/rootstock/kata:1",
        "runtimeClasses": [{"name": "sandboxed", "handler": "runsc"}]}]);
    let registries = json!([{"name": "main", "url": "http://r"}]);
    serde_json::from_value(json!({"registries": registries, "runtimes": runtimes})).unwrap()
}

fn put(known: &mut authorities::ByShoot, n: usize, authority: &Arc<Authority>) {
    let of_shoot = known.entry(shoot(n)).or_default();
    of_shoot.insert(authority.kept.name.clone(), Arc::clone(authority));
}

/// The host of the first one.
const HOST: &str = "rs-test--n0.seed.test";

/// How a hundred and twenty of them misbehave.
fn bad(n: usize) -> Mood {
    let moods = [
        Mood::Hangs,
        Mood::Drips,
        Mood::Refuses(401),
        Mood::Refuses(403),
        Mood::Refuses(429),
        Mood::Refuses(503),
        Mood::Babbles,
        Mood::Cuts,
    ];
    moods[n % moods.len()]
}

#[tokio::test]
async fn two_hundred_shoots_do_not_feel_those_that_misbehave() {
    let moods = (0..200).map(|n| if n % 5 < 2 { Mood::Good } else { bad(n) });
    let running = Running::start(moods).await;
    let good = |n: &usize| n % 5 < 2;
    let begun = Instant::now();
    running
        .until("the good ones are known", |r| (0..200).filter(good).all(|n| r.is_known(n)))
        .await;
    // However long that takes here: those that hang still do, in their first
    // request, and nobody has waited for the end of it.
    for n in (0..200).filter(|n| matches!(bad(*n), Mood::Hangs | Mood::Drips) && !good(n)) {
        assert!(running.server.seen(&name(n)).refused <= 1, "{n}");
    }
    // Those that can't be reached are served all the same: their agents have certificates.
    running
        .until("all are served", |r| {
            (0..200).all(|n| r.endpoints.get(&format!("rs-test--n{n}.seed.test")).is_some())
        })
        .await;
    // Pauses double from 100 ms at least, whatever goes wrong.
    let asked = |r: &Running, n: usize| {
        let seen = r.server.seen(&name(n));
        seen.refused + seen.watches.len()
    };
    let wanted = |n: usize| if matches!(bad(n), Mood::Hangs | Mood::Drips) { 1 } else { 4 };
    let all = |r: &Running| (0..200).filter(|n| !good(n)).all(|n| asked(r, n) >= wanted(n));
    running.until("the bad ones are asked again", all).await;
    let most = usize::try_from((begun.elapsed().as_millis() / 100 + 1).ilog2()).unwrap() + 2;
    for n in (0..200).filter(|n| !good(n)) {
        let asked = asked(&running, n);
        assert!(asked <= most, "{n} {:?}: {asked} > {most}", bad(n));
        assert!(bad(n) == Mood::Cuts || !running.is_known(n));
    }
    // They come back, each in its own time.
    for n in 0..200 {
        running.server.set(&name(n), Mood::Good);
    }
    let back = |n: &usize| bad(*n) != Mood::Drips;
    running.until("all are known", |r| (0..200).filter(back).all(|n| r.is_known(n))).await;
    for n in (0..200).filter(good) {
        assert_eq!(running.server.seen(&name(n)).lists, 1, "{n} was listed once");
    }
}

#[tokio::test]
async fn an_authority_is_waited_for_and_never_made() {
    let running = Running::start_with(false, [Mood::Good]).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(running.endpoints.get(HOST).is_none() && !running.is_known(0));
    running.authorities.send_modify(|known| put(known, 0, &authority(0, None)));
    running.until("it is known", |r| r.is_known(0)).await;
    assert_eq!(*running.server.written.lock().unwrap(), Vec::<String>::new());
}

#[tokio::test]
async fn a_new_token_is_taken_without_a_new_list() {
    let running = Running::start([Mood::Good]).await;
    running.until("it is watched", |r| r.server.seen(&name(0)).watches == ["old"]).await;
    running.server.token.send_replace("new".to_owned());
    running.tokens.send_modify(|tokens| drop(tokens.insert(shoot(0), Token("new".into()))));
    // The next watch bears the new token, at the latest when the old one is refused.
    running.server.cut.send_modify(|cut| *cut += 1);
    running.until("it goes on", |r| r.server.seen(&name(0)).watches == ["old", "new"]).await;
    let seen = running.server.seen(&name(0));
    assert_eq!(seen.lists, 1, "{seen:?}");
    assert!(running.is_known(0));
}

#[tokio::test]
async fn a_token_that_is_refused_is_read_again() {
    let running = Running::start([Mood::Good]).await;
    running.until("it is watched", |r| r.server.seen(&name(0)).watches.len() == 1).await;
    // The Secret has another one, and the watch of Secrets is behind.
    running.server.token.send_replace("new".to_owned());
    running.server.cut.send_modify(|cut| *cut += 1);
    running.until("it goes on", |r| r.server.seen(&name(0)).watches.len() == 2).await;
    let seen = running.server.seen(&name(0));
    assert_eq!((seen.lists, seen.refused), (1, 1), "{seen:?}");
    // What the watch had before is no news.
    running.tokens.send_modify(|tokens| drop(tokens.insert(shoot(1), Token("x".into()))));
    running.server.cut.send_modify(|cut| *cut += 1);
    running.until("it goes on", |r| r.server.seen(&name(0)).watches.len() == 3).await;
    assert_eq!(running.server.seen(&name(0)).refused, 1);
}

#[tokio::test]
async fn a_shoot_sleeps_and_wakes_up() {
    let running = Running::start([Mood::Good]).await;
    running.until("it is known", |r| r.is_known(0)).await;
    running.clusters[0].send_replace(cluster(0, true));
    running.until("its nodes are forgotten", |r| !r.is_known(0)).await;
    assert!(running.endpoints.get("rs-test--n0.seed.test").is_none());
    running.server.set(&name(0), Mood::Refuses(503));
    running.clusters[0].send_replace(cluster(0, false));
    running.until("it is asked for", |r| r.server.seen(&name(0)).refused > 1).await;
    running.server.set(&name(0), Mood::Good);
    running.until("it is known again", |r| r.is_known(0)).await;
    assert_eq!(running.server.seen(&name(0)).lists, 2);
}

#[tokio::test]
async fn authorities_change_and_the_client_stays() {
    const ASKED: i64 = 1_767_225_600;
    let running = Running::start([Mood::Good]).await;
    running.until("it is watched", |r| r.server.seen(&name(0)).watches.len() == 1).await;
    let certificates = |r: &Running| -> Vec<_> {
        r.endpoints.get(HOST).unwrap().authorities.certificates().cloned().collect()
    };
    let old = running.endpoints.get(HOST).unwrap().authorities.anchors()[0].clone();
    let (first, new) = (certificates(&running), authority(0, Some(ASKED)));
    let phase = |phase: &str| {
        let rotation = json!({"phase": phase, "lastInitiationTime": "2026-01-01T00:00:00Z"});
        let mut other = Cluster::clone(&cluster(0, false));
        let rotation = json!({"certificateAuthorities": rotation});
        other.spec.shoot = Some(json!({"status": {"credentials": {"rotation": rotation}}}));
        running.clusters[0].send_replace(Arc::new(other));
    };
    phase("Preparing");
    running.authorities.send_modify(|known| put(known, 0, &new));
    let both = [&[new.ca.cert_der().clone()], first.as_slice()].concat();
    running.until("both are trusted", |r| certificates(r) == both).await;
    let signer =
        |r: &Running| r.endpoints.get(HOST).unwrap().authorities.signer().cert_der().clone();
    assert_eq!(signer(&running), both[0]);
    phase("Prepared");
    phase("Completing");
    running.until("the new one is trusted", |r| certificates(r) == both[..1]).await;
    assert!(Anchor::has_left(&old), "its streams end");
    running.authorities.send_modify(|known| {
        known.get_mut(&shoot(0)).unwrap().retain(|name, _| *name == new.kept.name);
    });
    phase("Completed");
    running.server.cut.send_modify(|cut| *cut += 1);
    running.until("it is watched again", |r| r.server.seen(&name(0)).watches.len() == 2).await;
    assert_eq!(
        (certificates(&running), running.server.seen(&name(0)).lists),
        (both[..1].to_vec(), 1)
    );
}
