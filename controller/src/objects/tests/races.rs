//! A put that races with a deletion, or with the collector of old Secrets.

use serde_json::json;

use super::seed::Seed;
use super::written::{ACCESS, AGENT, CA, CLASSES, catalog, objects, put, secret_of, settled};

#[tokio::test]
async fn a_secret_that_vanishes_after_a_conflict_is_made_anew() {
    let (first, _, _catalog) = settled().await;
    let path = secret_of(&first, CLASSES);
    let seed = Seed::default();
    let (objects, _catalog) = objects(&seed);
    let (theirs, at) = (first.object(&path).unwrap(), path.clone());
    seed.before(&format!("POST {path}"), move |state| state.put(&at, theirs));
    let at = path.clone();
    seed.before(&format!("GET {path}"), move |state| drop(state.objects.remove(&at)));
    put(&objects).await.unwrap();
    assert_eq!(secret_of(&seed, CLASSES), path);
    assert!(seed.object(&path).is_some());
}

#[tokio::test]
async fn a_managed_resource_that_vanishes_before_its_patch_is_made_anew() {
    let (seed, objects, changes) = settled().await;
    changes.send_replace(catalog(&json!([{"name": "more", "handler": "more"}])));
    seed.before(&format!("PATCH {CLASSES}"), |state| drop(state.objects.remove(CLASSES)));
    put(&objects).await.unwrap();
    assert!(seed.object(CLASSES).is_some());
}

#[tokio::test]
async fn what_vanishes_elsewhere_is_passing_and_there_at_the_next_try() {
    // The authority and the access Secret, between a look and the patch of their labels.
    for path in [CA, ACCESS] {
        let (seed, objects, _catalog) = settled().await;
        let labels = json!({"metadata": {"labels": null}});
        seed.change(|state| state.edit(path, &labels));
        seed.before(&format!("PATCH {path}"), move |state| drop(state.objects.remove(path)));
        let error = put(&objects).await.unwrap_err();
        assert!(error.is_transient(), "{path}: {error:?}");
        put(&objects).await.unwrap();
        assert!(seed.object(path).is_some() && seed.object(AGENT).is_some());
    }
    // The authority after another pool had made it.
    let (first, _, _catalog) = settled().await;
    let seed = Seed::default();
    let (objects, _catalog) = objects(&seed);
    seed.before(&format!("GET {CA}"), |_| {});
    let theirs = first.object(CA).unwrap();
    seed.before(&format!("POST {CA}"), move |state| state.put(CA, theirs));
    seed.before(&format!("GET {CA}"), |state| drop(state.objects.remove(CA)));
    let error = put(&objects).await.unwrap_err();
    assert!(error.is_transient(), "{error:?}");
    put(&objects).await.unwrap();
}
