//! Which requests it takes to take objects away.

use serde_json::json;

use super::seed::{NAMESPACE, Seed};
use super::written::{ACCESS, AGENT, CA, CLASSES, bundle, put, secret_of, settled};
use crate::objects::{Gone, Keep, Objects};

const FINALIZER: &str = "resources.gardener.cloud/gardener-resource-manager";

/// A resource manager has seen the ManagedResource.
fn hold(seed: &Seed, path: &str) {
    seed.change(|state| state.edit(path, &json!({"metadata": {"finalizers": [FINALIZER]}})));
}

/// It lets go of it.
fn let_go(seed: &Seed, path: &str) {
    seed.change(|state| {
        state.objects.remove(path);
    });
}

async fn classes(objects: &Objects, keep: Keep) -> Gone {
    let (shoot, runtime) = (NAMESPACE.parse().unwrap(), "gvisor".parse().unwrap());
    objects.withdraw_classes(&shoot, &runtime, keep).await.unwrap()
}

async fn agent(objects: &Objects, keep: Keep) -> Gone {
    objects.withdraw_agent(&NAMESPACE.parse().unwrap(), keep).await.unwrap()
}

fn requests(lines: &[[&str; 2]]) -> Vec<String> {
    lines.iter().map(|words| words.concat()).collect()
}

#[tokio::test]
async fn classes_go_when_the_resource_manager_has_taken_them_away() {
    let (seed, objects, _catalog) = settled().await;
    hold(&seed, CLASSES);
    let secret = secret_of(&seed, CLASSES);
    let first = classes(&objects, Keep::Nothing).await;
    let Gone::Not(why) = first else { panic!("it is held") };
    assert!(why.contains("extension-runtime-gvisor"), "{why}");
    let want = requests(&[["GET ", CLASSES], ["DELETE ", CLASSES], ["DELETE ", &secret]]);
    assert_eq!(seed.asked(), want);
    assert_eq!(seed.object(CLASSES).unwrap()["spec"]["keepObjects"], false);

    // While it waits it only looks, and says what the resource manager says.
    let condition =
        json!({"type": "ResourcesApplied", "status": "False", "message": "one is left"});
    seed.change(|state| state.edit(CLASSES, &json!({"status": {"conditions": [condition]}})));
    let Gone::Not(why) = classes(&objects, Keep::Nothing).await else { panic!("it is held") };
    assert!(why.ends_with("one is left"), "{why}");
    assert_eq!(seed.asked(), requests(&[["GET ", CLASSES]]));
    let_go(&seed, CLASSES);
    assert_eq!(classes(&objects, Keep::Nothing).await, Gone::Yes);
    assert_eq!(seed.asked(), requests(&[["GET ", CLASSES]]));
    assert!(seed.object(AGENT).is_some() && seed.object(CA).is_some());
}

#[tokio::test]
async fn a_shoot_that_moves_keeps_its_objects() {
    let (seed, objects, _catalog) = settled().await;
    hold(&seed, CLASSES);
    let secret = secret_of(&seed, CLASSES);
    assert!(matches!(classes(&objects, Keep::Objects).await, Gone::Not(_)));
    let want = requests(&[
        ["GET ", CLASSES],
        ["PATCH ", CLASSES],
        ["DELETE ", CLASSES],
        ["DELETE ", &secret],
    ]);
    assert_eq!(seed.asked(), want);
    assert_eq!(seed.object(CLASSES).unwrap()["spec"]["keepObjects"], true);
    // A migration that is asked for twice.
    assert!(matches!(classes(&objects, Keep::Objects).await, Gone::Not(_)));
    assert_eq!(seed.asked(), requests(&[["GET ", CLASSES]]));
}

#[tokio::test]
async fn a_deletion_that_becomes_a_migration_keeps_what_is_left() {
    let (seed, objects, _catalog) = settled().await;
    hold(&seed, CLASSES);
    classes(&objects, Keep::Nothing).await;
    seed.asked();
    classes(&objects, Keep::Objects).await;
    assert_eq!(seed.asked(), requests(&[["GET ", CLASSES], ["PATCH ", CLASSES]]));
    assert_eq!(seed.object(CLASSES).unwrap()["spec"]["keepObjects"], true);
}

#[tokio::test]
async fn with_the_agent_goes_the_access_to_the_shoot() {
    let (seed, objects, _catalog) = settled().await;
    hold(&seed, AGENT);
    let secret = secret_of(&seed, AGENT);
    assert!(matches!(agent(&objects, Keep::Nothing).await, Gone::Not(_)));
    let want = requests(&[["GET ", AGENT], ["DELETE ", AGENT], ["DELETE ", &secret]]);
    assert_eq!(seed.asked(), want);
    assert!(seed.object(ACCESS).is_some(), "as long as there is something to do with it");
    let_go(&seed, AGENT);
    let bundle = bundle(&seed);
    for bundle in [Some(&bundle), None] {
        assert_eq!(agent(&objects, Keep::Nothing).await, Gone::Yes);
        let mut want = requests(&[["GET ", AGENT], ["DELETE ", ACCESS], ["GET ", "secrets"]]);
        want.extend(bundle.map(|bundle| format!("DELETE {bundle}")));
        want.push(format!("DELETE {CA}"));
        assert_eq!(seed.asked(), want);
        assert!(seed.object(ACCESS).is_none() && seed.object(CA).is_none());
    }
}

#[tokio::test]
async fn the_authority_moves_with_the_shoot() {
    let (seed, objects, _catalog) = settled().await;
    // No resource manager holds it: it goes at once.
    assert_eq!(agent(&objects, Keep::Objects).await, Gone::Yes);
    assert!(seed.object(ACCESS).is_none());
    assert!(seed.object(CA).is_some());
}

#[tokio::test]
async fn one_that_was_made_anew_meanwhile_is_looked_at_again() {
    let (seed, objects, _catalog) = settled().await;
    let other = "somebody else's";
    seed.before(&format!("DELETE {CLASSES}"), move |state| {
        state.objects.get_mut(CLASSES).unwrap()["metadata"]["uid"] = json!(other);
    });
    assert_eq!(classes(&objects, Keep::Nothing).await, Gone::Yes);
    let secret = seed.asked().pop().unwrap();
    assert!(secret.starts_with("DELETE secrets/managedresource-extension-runtime-gvisor-"));
}

#[tokio::test]
async fn what_was_taken_away_can_be_put_again() {
    let (seed, objects, _catalog) = settled().await;
    classes(&objects, Keep::Nothing).await;
    agent(&objects, Keep::Nothing).await;
    put(&objects).await.unwrap();
    assert!(seed.object(&secret_of(&seed, CLASSES)).is_some());
    assert!(seed.object(&secret_of(&seed, AGENT)).is_some());
}
