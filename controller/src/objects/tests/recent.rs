//! What one resource's put has looked at, another's need not.

use rootstock_core::name::{RuntimeType, ShootName};
use tokio::time::Instant;

use super::seed::{NAMESPACE, Seed};
use super::written::{AGENT, CLASSES, catalog, objects};
use crate::api::{Cluster, ClusterSpec};
use crate::objects::{Keep, Objects};

async fn put_since(objects: &Objects, runtime: &str, asked: Instant) {
    let cluster = Cluster::new(NAMESPACE, ClusterSpec::default());
    let (shoot, runtime) = (NAMESPACE.parse().unwrap(), runtime.parse().unwrap());
    objects.put(&shoot, &cluster, &runtime, asked).await.unwrap();
}

#[tokio::test]
async fn those_asked_for_at_one_time_look_once() {
    let (seed, asked) = (Seed::default(), Instant::now());
    let (objects, catalog_changes) = objects(&seed);
    tokio::join!(
        put_since(&objects, "gvisor", asked),
        put_since(&objects, "gvisor", asked),
        put_since(&objects, "gvisor", asked),
    );
    let made = seed.asked();
    assert_eq!(made.len(), 12, "as one alone: {made:?}");

    // Another type has its own classes, and the rest in common.
    put_since(&objects, "kata", asked).await;
    assert_eq!(seed.asked(), ["GET managedresources/extension-runtime-kata"]);

    // Whoever asks later may have seen what nobody had seen before.
    put_since(&objects, "gvisor", Instant::now()).await;
    assert_eq!(seed.asked().len(), 6);

    // Another configuration is another question.
    catalog_changes.send_replace(catalog(&serde_json::json!([])));
    put_since(&objects, "gvisor", asked).await;
    assert!(seed.asked().contains(&format!("GET {AGENT}")));
}

#[tokio::test]
async fn what_was_taken_away_is_made_again() {
    let (seed, asked) = (Seed::default(), Instant::now());
    let (objects, _catalog) = objects(&seed);
    put_since(&objects, "gvisor", asked).await;
    let shoot: ShootName = NAMESPACE.parse().unwrap();
    let runtime: RuntimeType = "gvisor".parse().unwrap();
    objects.withdraw_classes(&shoot, &runtime, Keep::Nothing).await.unwrap();
    objects.withdraw_agent(&shoot, Keep::Nothing).await.unwrap();
    assert!(seed.object(AGENT).is_none());
    put_since(&objects, "gvisor", asked).await;
    assert!(seed.object(AGENT).is_some() && seed.object(CLASSES).is_some());
}
