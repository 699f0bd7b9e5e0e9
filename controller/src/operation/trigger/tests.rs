use serde_json::{Value, json};

use super::*;
use crate::api::OPERATION;
use crate::operation::fixture::{key, object};

fn last(kind: &str, state: &str) -> Value {
    json!({"lastOperation": {"type": kind, "state": state, "description": "", "progress": 1,
        "lastUpdateTime": "2026-01-01T00:00:00Z"}})
}

fn version(metadata: &Value, status: &Value, number: u64) -> ContainerRuntime {
    let mut metadata = metadata.clone();
    metadata["resourceVersion"] = number.to_string().into();
    object(metadata, status.clone())
}

#[test]
fn first_sight_by_gardeners_rules() {
    let annotated = |value: &str| json!({"annotations": {OPERATION: value}});
    let deleted = json!({"deletionTimestamp": "2026-01-01T00:00:00Z"});
    let done = || last("Reconcile", "Succeeded");
    let table = [
        (json!({}), Value::Null, true),
        (json!({}), done(), false),
        (json!({}), last("Create", "Processing"), true),
        (json!({}), last("Reconcile", "Error"), true),
        (json!({}), last("Migrate", "Succeeded"), false),
        (json!({"generation": 2}), done(), false),
        (annotated("reconcile"), done(), true),
        (annotated("restore"), done(), true),
        (annotated("migrate"), done(), true),
        (annotated("wait-for-state"), done(), false),
        (annotated("keepalive"), done(), false),
        (deleted, done(), true),
    ];
    for (metadata, status, want) in table {
        let new = object(metadata, status);
        assert_eq!(admit(None, &new, false) == Admission::Asked, want, "{new:?}");
        assert_eq!(admit(None, &new, true), Admission::Asked, "{new:?}");
        // Another object with its name is seen for the first time.
        let mut old = new.clone();
        old.metadata.uid = Some("other".to_owned());
        assert_eq!(admit(Some(&old), &new, false) == Admission::Asked, want);
    }
}

/// What an object that is done says of the time at which Gardener asked.
#[test]
fn what_was_asked_just_before_the_end_is_answered_at_start() {
    let at = |annotations: Value, kind: &str| {
        object(json!({"annotations": annotations}), last(kind, "Succeeded"))
    };
    const TIMESTAMP: &str = "gardener.cloud/timestamp";
    let table = [
        // Before, in the second of the last operation, and after it.
        (json!({TIMESTAMP: "2025-12-31T23:59:59.999999999Z"}), false),
        (json!({TIMESTAMP: "2026-01-01T00:00:00Z"}), false),
        (json!({TIMESTAMP: "2026-01-01T00:00:00.999999999Z"}), false),
        (json!({TIMESTAMP: "2026-01-01T00:00:01Z"}), true),
        (json!({TIMESTAMP: "2026-01-01T01:00:00.5+01:00"}), false),
        (json!({TIMESTAMP: "later"}), false),
        (json!({}), false),
        // Whoever asks for it in the annotation is heard by that; others wait.
        (json!({TIMESTAMP: "2026-01-01T00:00:01Z", OPERATION: "wait-for-state"}), false),
        (json!({TIMESTAMP: "2026-01-01T00:00:01Z", OPERATION: "reconcile"}), true),
    ];
    for (annotations, want) in table {
        for kind in ["Create", "Reconcile", "Restore"] {
            let object = at(annotations.clone(), kind);
            assert_eq!(is_wanting(&object, false), want, "{object:?}");
            let seen = admit(None, &object, false);
            assert_eq!(seen == Admission::Asked, want, "{object:?}");
            // What is seen again is not asked again.
            let mut again = object.clone();
            again.metadata.resource_version = Some("2".to_owned());
            let asked = object.asked() == Some("reconcile");
            assert_eq!(admit(Some(&object), &again, false) == Admission::Asked, asked);
        }
    }
}

#[test]
fn updates_by_gardeners_rules() {
    use Admission::{Asked, Changed, No};
    let plain = || json!({"generation": 1});
    let annotated = |value: &str| json!({"generation": 1, "annotations": {OPERATION: value}});
    let deleted = |timestamp: &str| {
        json!({"generation": 2, "deletionTimestamp": "2026-01-01T00:00:00Z",
               "annotations": {"gardener.cloud/timestamp": timestamp}})
    };
    let done = || last("Reconcile", "Succeeded");
    let failed = || last("Reconcile", "Error");
    let table = [
        // Our own words do not bring an object back.
        ((plain(), done()), (plain(), failed()), No, No),
        ((annotated("reconcile"), done()), (plain(), done()), No, No),
        ((plain(), done()), (annotated("reconcile"), done()), Asked, Asked),
        ((plain(), done()), (annotated("restore"), done()), Asked, Asked),
        ((plain(), done()), (annotated("migrate"), done()), Asked, Asked),
        ((plain(), done()), (annotated("wait-for-state"), done()), No, No),
        // A changed spec waits for Gardener's word.
        ((plain(), done()), (json!({"generation": 2}), done()), Changed, Asked),
        ((plain(), done()), (deleted("1"), done()), Asked, Asked),
        ((deleted("1"), done()), (deleted("2"), done()), Asked, Asked),
        ((deleted("1"), done()), (deleted("1"), last("Delete", "Processing")), No, No),
        ((plain(), done()), (deleted("1"), failed()), Asked, Asked),
    ];
    for ((metadata, status), (to, then), want, freely) in table {
        let (old, new) = (version(&metadata, &status, 1), version(&to, &then, 2));
        assert_eq!(admit(Some(&old), &new, false), want, "{old:?} {new:?}");
        assert_eq!(admit(Some(&old), &new, true), freely, "freely: {old:?} {new:?}");
        assert_eq!(admit(Some(&new), &new, true), No, "it is listed again");
    }
}

fn annotated(value: &str, number: u64) -> ContainerRuntime {
    version(&json!({"annotations": {OPERATION: value}}), &Value::Null, number)
}

#[test]
fn own_writes_are_no_triggers_whenever_they_are_seen() {
    let triggers = Triggers::new(false);
    let first = annotated("restore", 1);
    triggers.seen(&key(), None, &first);
    assert!(triggers.take()[&key()].is_turn());
    let begun = triggers.begin(&key(), Arc::new(first.clone()));
    assert_eq!(begun.metadata, first.metadata);
    // One write is seen before its answer, the other one after it.
    let (early, late) = (annotated("restore", 2), annotated("restore", 3));
    triggers.seen(&key(), Some(&first), &early);
    assert!(triggers.take().is_empty(), "it runs");
    triggers.wrote(&key(), &early);
    triggers.wrote(&key(), &late);
    triggers.end(&key(), Some(&Arc::new(early.clone())));
    assert!(triggers.take().is_empty());
    // What was written is known before the watch has it.
    let known = triggers.begin(&key(), Arc::new(early.clone()));
    assert_eq!(known.metadata, late.metadata);
    triggers.end(&key(), Some(&Arc::new(early.clone())));
    triggers.seen(&key(), Some(&early), &late);
    assert!(triggers.take().is_empty());
    assert!(triggers.lock().own.is_empty(), "nothing is left");
}

#[test]
fn what_others_ask_meanwhile_is_not_lost() {
    let triggers = Triggers::new(false);
    let first = annotated("restore", 1);
    triggers.begin(&key(), Arc::new(first.clone()));
    let (foreign, own) = (annotated("reconcile", 2), annotated("restore", 3));
    triggers.seen(&key(), Some(&first), &foreign);
    triggers.seen(&key(), Some(&foreign), &own);
    triggers.wrote(&key(), &own);
    assert!(triggers.take().is_empty());
    triggers.end(&key(), Some(&Arc::new(own)));
    assert!(triggers.take()[&key()].is_turn());
    triggers.gone(&key());
    assert!(triggers.take()[&key()].gone);
}

#[test]
fn a_shoot_that_is_back_asks_again_only_for_what_is_not_done() {
    let done = |number| {
        let metadata = json!({"annotations": {}});
        Arc::new(version(&metadata, &last("Create", "Succeeded"), number))
    };
    let first = Arc::new(annotated("reconcile", 1));
    // It runs and does it all: the run has seen the shoot.
    let triggers = Triggers::new(false);
    triggers.begin(&key(), Arc::clone(&first));
    triggers.look_again(&key(), &first);
    triggers.wrote(&key(), &done(2));
    triggers.end(&key(), Some(&first));
    assert!(triggers.take().is_empty());
    // The watch is still behind: what was written counts.
    triggers.look_again(&key(), &first);
    assert!(triggers.take().is_empty());
    // It ran without the shoot, and did nothing.
    let triggers = Triggers::new(false);
    triggers.begin(&key(), Arc::clone(&first));
    triggers.look_again(&key(), &first);
    triggers.end(&key(), Some(&first));
    assert!(triggers.take()[&key()].is_turn());
    // It does not run.
    triggers.look_again(&key(), &first);
    assert!(triggers.take()[&key()].is_turn());
    triggers.look_again(&key(), &done(2));
    assert!(triggers.take().is_empty());
}
