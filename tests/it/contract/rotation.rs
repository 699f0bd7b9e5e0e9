//! The rotation of a shoot's authorities, in step with Gardener's.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Secret;
use kube::api::{DeleteParams, ListParams};
use serde_json::{Value, json};

use super::objects::AGENT;
use super::support::gardenlet::until;
use super::support::record::Kind;
use super::support::shoot::{Shoot, pools};
use super::support::suite::Suite;

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

/// How many authorities agents are told of, in the bundle and in the ConfigMap.
async fn told(shoot: &Shoot<'_>) -> [usize; 2] {
    use base64::Engine as _;
    let secrets = shoot.all(Kind::Secret).await;
    let bundles = secrets.iter().filter(|s| s["metadata"]["labels"]["bundle-for"] == OLD);
    let bundles: Vec<_> = bundles.collect();
    let text = match bundles.as_slice() {
        [one] => one["data"]["bundle.crt"].as_str().unwrap().to_owned(),
        // One comes before the other goes.
        _ => return [0, 0],
    };
    let bundle = base64::engine::general_purpose::STANDARD.decode(text).unwrap();
    let bundle = String::from_utf8(bundle).unwrap();
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
