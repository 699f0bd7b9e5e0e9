//! The rotation of a shoot's authorities, in step with Gardener's.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Pod, Secret, ServiceAccount};
use kube::ResourceExt as _;
use kube::api::{DeleteParams, ListParams, PostParams};
use rootstock_controller::identity::NodeId;
use rootstock_controller::identity::ca::ShootCa;
use rootstock_playground::crowd::{Crowd, Place, Seen};
use rootstock_playground::seed::objects::{ensure, typed};
use serde_json::{Value, json};
use tokio::sync::watch;

use super::nodes::{make, nodes};
use super::objects::AGENT;
use super::operations::condition;
use super::support::gardenlet::until;
use super::support::record::Kind;
use super::support::shoot::{Shoot, pools};
use super::support::suite::Suite;
use crate::leaders::replicas::agent_pod;

const OLD: &str = "ca-rootstock";
/// By the time of the initiation: `printf 1767225600 | sha256sum`.
const NEW: &str = "ca-rootstock-d66f7";

async fn phase(shoot: &Shoot<'_>, phase: &str) {
    let rotation = json!({"phase": phase, "lastInitiationTime": "2026-01-01T00:00:00Z"});
    let rotation = json!({"rotation": {"certificateAuthorities": rotation}});
    shoot.change(json!({"status": {"credentials": rotation}})).await;
}

/// The authorities' data by the names of their Secrets.
async fn authorities(shoot: &Shoot<'_>) -> BTreeMap<String, Value> {
    let mut found = BTreeMap::new();
    for secret in shoot.all(Kind::Secret).await {
        let metadata = &secret["metadata"];
        if metadata["labels"]["name"] == OLD {
            assert_eq!(metadata["labels"]["managed-by"], "secrets-manager");
            assert_eq!(metadata["labels"]["persist"], "true");
            found.insert(metadata["name"].as_str().unwrap().to_owned(), secret["data"].clone());
        }
    }
    found
}

/// The text of a Secret's entry.
fn decoded(entry: &Value) -> String {
    use base64::{Engine as _, prelude::BASE64_STANDARD};
    String::from_utf8(BASE64_STANDARD.decode(entry.as_str().unwrap()).unwrap()).unwrap()
}

/// How many authorities agents are told of, in the bundle and in the ConfigMap.
async fn told(shoot: &Shoot<'_>) -> [usize; 2] {
    let secrets = shoot.all(Kind::Secret).await;
    let bundles = secrets.iter().filter(|s| s["metadata"]["labels"]["bundle-for"] == OLD);
    let bundles: Vec<_> = bundles.collect();
    let bundle = match bundles.as_slice() {
        [one] => decoded(&one["data"]["bundle.crt"]),
        // One comes before the other goes.
        _ => return [0, 0],
    };
    let objects = shoot.brings(AGENT).await;
    let config = objects.iter().find(|object| object["kind"] == "ConfigMap").unwrap();
    let config = config["data"]["ca.crt"].as_str().unwrap();
    [bundle.as_str(), config].map(|text| text.matches("BEGIN CERTIFICATE").count())
}

async fn settled(shoot: &Shoot<'_>, names: &[&str]) {
    let done = until(async || {
        let there = authorities(shoot).await;
        let so = there.keys().map(String::as_str).eq(names.iter().copied());
        (so && told(shoot).await == [names.len(); 2]).then_some(())
    });
    if done.await.is_none() {
        panic!("not {names:?}: {:?} {:?}", authorities(shoot).await.keys(), told(shoot).await);
    }
}

pub(super) async fn in_step_with_the_shoot(suite: &Suite) {
    let controller = suite.controller().await;
    let shoot = Shoot::new(suite, &controller, "rotates", pools(&[("a", &["gvisor"])])).await;
    let shoot = shoot.with_api();
    shoot.reconcile().await;
    settled(&shoot, &[OLD]).await;
    let first = authorities(&shoot).await;
    phase(&shoot, "Preparing").await;
    shoot.reconcile().await;
    settled(&shoot, &[OLD, NEW]).await;
    let both = authorities(&shoot).await;
    assert_eq!(both[OLD], first[OLD]);
    for same in ["WaitingForWorkersRollout", "Prepared"] {
        phase(&shoot, same).await;
        shoot.reconcile().await;
        assert_eq!(authorities(&shoot).await, both, "{same}");
    }

    // In the middle of it the control plane moves.
    shoot.migrate().await;
    shoot.wait_migrated().await;
    let state = shoot.save().await;
    shoot.destroy().await.unwrap();
    // The namespace goes, and with it what nobody takes along.
    let secrets = suite.access.within::<Secret>(&shoot.name);
    let ours = ListParams::default().labels("manager-identity=rootstock");
    secrets.delete_collection(&DeleteParams::default(), &ours).await.unwrap();
    assert!(authorities(&shoot).await.is_empty());
    shoot.restore(&state).await;
    shoot.wait().await.unwrap();
    settled(&shoot, &[OLD, NEW]).await;
    assert_eq!(authorities(&shoot).await, both);

    // Nobody asks here: the phase is enough.
    phase(&shoot, "Completing").await;
    settled(&shoot, &[NEW]).await;
    phase(&shoot, "Completed").await;
    shoot.reconcile().await;
    settled(&shoot, &[NEW]).await;
    assert_eq!(authorities(&shoot).await[NEW], both[NEW]);
    shoot.never_failed().await;
}

/// How many nodes the shoot of [`a_hundred_agents_stay`] has.
const MANY: usize = 100;
/// Their label.
const THEIRS: &str = "worker.gardener.cloud/pool";
const OLDER: &str = "worker.garden.sapcloud.io/group";
const POOL: &str = "stays";

/// The nodes, each with a Pod of the agent.
async fn hundred(suite: &Suite, shoot: &Shoot<'_>) -> Vec<NodeId> {
    let pods = suite.access.within::<Pod>("kube-system");
    // The API puts it into each Pod.
    let account = json!({"metadata": {"name": "default"}});
    let accounts = suite.access.within::<ServiceAccount>("kube-system");
    ensure(&accounts, &typed(account).unwrap()).await.unwrap();
    let mut ids = Vec::new();
    for n in 0..MANY {
        let name = format!("rotation-{n}");
        make(suite, &name, json!({(THEIRS): POOL, (OLDER): POOL})).await;
        let uid = nodes(suite).get(&name).await.unwrap().uid().unwrap();
        let mut pod = agent_pod(&name, &name);
        pod.labels_mut().insert(THEIRS.to_owned(), POOL.to_owned());
        pods.create(&PostParams::default(), &pod).await.unwrap();
        let (shoot, name) = (shoot.name.parse().unwrap(), name.parse().unwrap());
        ids.push(NodeId { shoot, name, uid: uid.parse().unwrap() });
    }
    ids
}

async fn crowd_is(crowd: &Crowd, what: &str, is: impl Fn(&Seen) -> bool) {
    let seen = crowd.seen();
    let so = until(async || is(&seen.borrow()).then_some(())).await;
    assert!(so.is_some(), "not so: {what}: {:?}", seen.borrow());
}

/// What `NodesReady` has said, one after the other.
async fn history(shoot: &Shoot<'_>) -> Vec<(String, String)> {
    shoot.recorded().await;
    let entries = shoot.since(0, Kind::ContainerRuntime);
    let said = entries.iter().filter_map(|entry| condition(&entry.object, "NodesReady"));
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut said: Vec<_> = said.map(|c| (text(&c["status"]), text(&c["reason"]))).collect();
    said.dedup();
    said
}

/// Agents that renew as real ones do, when their file of authorities changes:
/// no stream ends but by another certificate, and no node is unready.
pub(super) async fn a_hundred_agents_stay(suite: &Suite) {
    let controller = suite.own_controller("stays", &[]).await;
    let shoot = Shoot::new(suite, &controller, "stays", pools(&[(POOL, &["gvisor"])])).await;
    let shoot = shoot.with_api();
    shoot.reconcile().await;
    settled(&shoot, &[OLD]).await;
    let nodes_of_it = hundred(suite, &shoot).await;

    // The agents, and who has other certificates of the same nodes.
    let data = authorities(&shoot).await[OLD].clone();
    let [certificate, key] = ["ca.crt", "ca.key"].map(|key| decoded(&data[key]));
    let ca = ShootCa::from_pem(&nodes_of_it[0].shoot, &certificate, &key).unwrap();
    let (_there, address) = watch::channel(Some(controller.listen));
    let host = format!("rs-{}.seed.example", shoot.name.trim_start_matches("shoot--"));
    let place = Place { address, host };
    let mut agents = Crowd::new(place.clone(), &ca, nodes_of_it.clone()).unwrap();
    let mut thieves = Crowd::new(place, &ca, nodes_of_it[..1].to_vec()).unwrap();
    agents.begin();
    crowd_is(&agents, "each has a stream", |seen| seen.connected == MANY).await;
    let ready = |o: &Value| condition(o, "NodesReady").is_some_and(|c| c["status"] == "True");
    shoot.until("gvisor-stays", "all nodes have it", ready).await;
    let begun = agents.seen().borrow().streams;
    let before = history(&shoot).await;

    phase(&shoot, "Preparing").await;
    shoot.reconcile().await;
    settled(&shoot, &[OLD, NEW]).await;
    assert_eq!(agents.seen().borrow().streams, begun, "who is told of it stays");
    // The Secrets are there a moment before the endpoint signs by the new one.
    let signs = format!("{NEW} for nodes");
    let signs = until(async || {
        std::fs::read_to_string(&controller.log).unwrap().contains(&signs).then_some(())
    });
    assert!(signs.await.is_some(), "the endpoint signs by the old authority");
    agents.renew_all();
    let renewed = begun + u64::try_from(MANY).unwrap();
    crowd_is(&agents, "each has another certificate", |seen| {
        seen.streams == renewed && seen.connected == MANY
    })
    .await;
    for next in ["WaitingForWorkersRollout", "Prepared", "Completing"] {
        phase(&shoot, next).await;
        shoot.reconcile().await;
    }
    settled(&shoot, &[NEW]).await;
    phase(&shoot, "Completed").await;
    shoot.reconcile().await;
    settled(&shoot, &[NEW]).await;

    // Whoever still had the old authority would have been told to go by now: a
    // certificate of it opens nothing.
    let refused = until(async || thieves.renew().await.is_err().then_some(())).await;
    assert!(refused.is_some(), "a certificate of the old authority is good");
    thieves.begin();
    let last = agents.seen().borrow().clone();
    assert_eq!((last.connected, last.streams, last.goodbyes), (MANY, renewed, 0), "{last:?}");
    assert_eq!(last.wrong, Vec::<String>::new());
    let after = history(&shoot).await;
    assert_eq!(after, before, "no node was unready");
    assert_eq!(after.last().unwrap().0, "True");
    assert_eq!(thieves.seen().borrow().streams, 0);

    drop((agents, thieves));
    let theirs = ListParams::default().labels(&format!("{THEIRS}={POOL}"));
    nodes(suite).delete_collection(&DeleteParams::default(), &theirs).await.unwrap();
    let pods = suite.access.within::<Pod>("kube-system");
    pods.delete_collection(&DeleteParams::default().grace_period(0), &theirs).await.unwrap();
    shoot.destroy().await.unwrap();
    shoot.never_failed().await;
}
