//! The Secrets with authorities, and what agents are told of them, through the
//! phases of a rotation.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::seed::{NAMESPACE, Seed};
use super::written::{AGENT, CA, bundle, objects, objects_in, put, put_with, secret_of, settled};
use crate::api::{Cluster, ClusterSpec};
use crate::objects::Objects;

/// When it was asked for: `printf 1767225600 | sha256sum` begins with that.
const INITIATED: &str = "2026-01-01T00:00:00Z";
const SECONDS: &str = "1767225600";
const NEW: &str = "secrets/ca-rootstock-d66f7";

fn cluster(phase: &str) -> Cluster {
    let rotation = json!({"phase": phase, "lastInitiationTime": INITIATED});
    let credentials = json!({"rotation": {"certificateAuthorities": rotation}});
    let shoot = Some(json!({"status": {"credentials": credentials}}));
    Cluster::new(NAMESPACE, ClusterSpec { shoot, ..ClusterSpec::default() })
}

/// The authorities by the paths of their Secrets, as PEM.
fn authorities(seed: &Seed) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    seed.change(|state| {
        for (path, object) in &state.objects {
            if object["metadata"]["labels"]["name"] == "ca-rootstock" {
                found.insert(path.clone(), text(&object["data"]["ca.crt"]));
            }
        }
    });
    found
}

fn text(data: &Value) -> String {
    use base64::Engine as _;
    let bytes = base64::engine::general_purpose::STANDARD.decode(data.as_str().unwrap());
    String::from_utf8(bytes.unwrap()).unwrap()
}

/// What agents trust by the ConfigMap, which is what the bundle says.
fn told(seed: &Seed) -> String {
    let objects = objects_in(seed, &secret_of(seed, AGENT));
    let config = objects.iter().find(|object| object["kind"] == "ConfigMap").unwrap();
    let told = config["data"]["ca.crt"].as_str().unwrap().to_owned();
    let bundle = seed.object(&bundle(seed)).unwrap();
    assert_eq!(text(&bundle["data"]["bundle.crt"]), told);
    told
}

async fn phase(objects: &Objects, phase: &str) {
    put_with(objects, &cluster(phase)).await.unwrap();
}

#[tokio::test]
async fn secrets_go_through_the_phases_of_a_shoot() {
    let (seed, objects, _catalog) = settled().await;
    let first = authorities(&seed);
    let old = first[CA].clone();
    assert_eq!((first.len(), told(&seed)), (1, old.clone()));
    phase(&objects, "Preparing").await;
    let both = authorities(&seed);
    assert_eq!(both.keys().map(String::as_str).collect::<Vec<_>>(), [CA, NEW]);
    let new = both[NEW].clone();
    assert_eq!((both[CA].clone(), told(&seed)), (old.clone(), format!("{new}{old}")));
    let secret = seed.object(NEW).unwrap();
    assert_eq!((&secret["immutable"], &secret["type"]), (&json!(true), &json!("Opaque")));
    let labels = &secret["metadata"]["labels"];
    assert_eq!(labels["last-rotation-initiation-time"], SECONDS);
    assert_eq!(labels["persist"], "true");
    assert_eq!(labels["manager-identity"], "rootstock");
    let labels = seed.object(&bundle(&seed)).unwrap()["metadata"]["labels"].clone();
    let want = json!({
        "name": "ca-rootstock-bundle", "managed-by": "secrets-manager",
        "manager-identity": "rootstock", "bundle-for": "ca-rootstock",
        "last-rotation-initiation-time": "", "checksum-of-config": labels["checksum-of-config"],
    });
    assert_eq!(labels, want);
    seed.asked();
    for same in
        ["Preparing", "PreparingWithoutWorkersRollout", "WaitingForWorkersRollout", "Prepared"]
    {
        phase(&objects, same).await;
        assert!(seed.asked().iter().all(|request| request.starts_with("GET")), "{same}");
        assert_eq!(authorities(&seed), both);
    }
    for done in ["Completing", "Completed"] {
        phase(&objects, done).await;
        assert_eq!(authorities(&seed), [(NEW.to_owned(), new.clone())].into(), "{done}");
        assert_eq!(told(&seed), new);
    }
    seed.asked();
    phase(&objects, "Completed").await;
    assert!(seed.asked().iter().all(|request| request.starts_with("GET")));
}

#[tokio::test]
async fn a_restored_control_plane_rotates_on_with_what_it_had() {
    let (first, before, _catalog) = settled().await;
    phase(&before, "Prepared").await;
    let kept = authorities(&first);
    // gardenlet brings what is labelled so, and no more.
    let seed = Seed::default();
    for path in kept.keys() {
        let secret = first.object(path).unwrap();
        seed.change(|state| state.put(path, secret));
    }
    let (objects, _catalog) = objects(&seed);
    phase(&objects, "Prepared").await;
    assert_eq!(authorities(&seed), kept);
    assert_eq!(told(&seed), told(&first));
    phase(&objects, "Completing").await;
    assert_eq!(told(&seed), kept[NEW]);
}

#[tokio::test]
async fn a_shoot_may_be_new_to_a_rotation() {
    for state in ["Preparing", "Prepared", "Completing", "Completed"] {
        let seed = Seed::default();
        let (objects, _catalog) = objects(&seed);
        phase(&objects, state).await;
        let made = authorities(&seed);
        assert_eq!(made.keys().collect::<Vec<_>>(), [NEW], "{state}");
        phase(&objects, "Completed").await;
        assert_eq!(authorities(&seed), made, "{state}");
    }
}

#[tokio::test]
async fn a_controller_that_dies_in_between_makes_no_third() {
    let (seed, objects, _catalog) = settled().await;
    let fails = |request: &str| {
        seed.before(request, |state| state.unknown.push("managedresources"));
    };
    // The new one is there, and nobody was told.
    fails(&format!("POST {NEW}"));
    put_with(&objects, &cluster("Preparing")).await.unwrap_err();
    let both = authorities(&seed);
    assert_eq!(both.len(), 2);
    seed.change(|state| state.unknown.clear());
    phase(&objects, "Preparing").await;
    assert_eq!(authorities(&seed), both);
    assert!(told(&seed).starts_with(&both[NEW]));
    // What was never rotated stays as it is.
    let (seed, objects, _catalog) = settled().await;
    let one = authorities(&seed);
    put(&objects).await.unwrap();
    assert_eq!(authorities(&seed), one);
}
