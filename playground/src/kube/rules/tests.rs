use std::sync::Arc;

use super::{super::kinds::Kinds, *};

const UID: &str = "3b72e0b0-6232-46df-bca2-885bbeceb6d5";

fn kind(resource: &str) -> Arc<Kind> {
    let crd = json!({"spec": {"group": "x.io", "scope": "Namespaced", "names": {"plural": "things", "kind": "Thing"},
        "versions": [{"name": "v1", "served": true, "subresources": {"status": {}}, "schema": {"openAPIV3Schema": {
            "type": "object", "properties": {"spec": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
                "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}}}]}});
    Kinds::new([&crd].into_iter()).stored(resource).unwrap()
}

fn now() -> Timestamp {
    Timestamp::from_second(1_800_000_000).unwrap()
}

fn thing(metadata: Value, spec: Value) -> Value {
    json!({"apiVersion": "x.io/v1", "kind": "Thing", "metadata": metadata, "spec": spec})
}

fn made() -> Value {
    let new = thing(json!({"name": "t", "finalizers": ["f"]}), json!({"a": 1}));
    let mut made = created(&kind("things.x.io"), "ns", new, UID, now()).unwrap();
    made["metadata"]["resourceVersion"] = json!("5");
    made
}

#[test]
fn only_the_server_writes_some_metadata() {
    let new = thing(
        json!({"name": "t", "uid": "mine", "generation": 9, "creationTimestamp": "2000-01-01T00:00:00Z",
            "deletionTimestamp": "2000-01-01T00:00:00Z"}),
        json!({}),
    );
    let made = created(&kind("things.x.io"), "ns", new, UID, now()).unwrap();
    assert_eq!(
        made["metadata"],
        json!({"name": "t", "namespace": "ns", "uid": UID, "generation": 1, "creationTimestamp": "2027-01-15T08:00:00Z"})
    );
}

#[test]
fn what_is_no_object_of_this_kind() {
    let kind = kind("things.x.io");
    for (object, code) in [
        (thing(json!({"name": "t", "resourceVersion": "1"}), json!({})), 400),
        (thing(json!({"name": "t", "namespace": "other"}), json!({})), 400),
        (json!({"apiVersion": "x.io/v2", "kind": "Thing", "metadata": {"name": "t"}}), 400),
        (json!({"apiVersion": "x.io/v1", "kind": "Other", "metadata": {"name": "t"}}), 400),
        (json!({"metadata": {"name": "t"}}), 400),
        (thing(json!({}), json!({})), 422),
        (thing(json!({"name": "Not_a_name"}), json!({})), 422),
        (thing(json!({"name": "t"}), json!("text")), 422),
    ] {
        let refused = created(&kind, "ns", object.clone(), UID, now()).unwrap_err();
        assert_eq!(refused.code.as_u16(), code, "{object}");
    }
}

#[test]
fn names_by_kind() {
    for (resource, name, good) in [
        ("namespaces", "a-b", true),
        ("namespaces", "a.b", false),
        ("nodes", "ip-10-0-0-1.internal", true),
        ("nodes", "-a", false),
        ("clusterroles.rbac.authorization.k8s.io", "system:node", true),
        ("clusterroles.rbac.authorization.k8s.io", "a/b", false),
    ] {
        let new = json!({"metadata": {"name": name}});
        assert_eq!(created(&kind(resource), "", new, UID, now()).is_ok(), good, "{name}");
    }
}

#[test]
fn generation_counts_what_is_wanted() {
    let kind = kind("things.x.io");
    let old = made();
    let write = |change: fn(&mut Value), part| {
        let mut new = old.clone();
        change(&mut new);
        updated(&kind, &old, new, part).unwrap()
    };
    let labelled = write(|new| new["metadata"]["labels"] = json!({"a": "b"}), Part::Main);
    assert_eq!(
        (&labelled["metadata"]["generation"], &labelled["metadata"]["labels"]["a"]),
        (&json!(1), &json!("b"))
    );
    let respecified = write(|new| new["spec"]["a"] = json!(2), Part::Main);
    assert_eq!(respecified["metadata"]["generation"], 2);
    let both = |new: &mut Value| {
        new["spec"]["a"] = json!(2);
        new["status"] = json!({"b": 1});
    };
    let main = write(both, Part::Main);
    assert_eq!((&main["spec"]["a"], &main["status"]), (&json!(2), &json!(null)));
    let status = write(both, Part::Status);
    assert_eq!((&status["spec"]["a"], &status["status"]["b"]), (&json!(1), &json!(1)));
    assert_eq!(status["metadata"]["generation"], 1);
    assert_eq!(write(|_| {}, Part::Main), old, "nothing changes nothing");
}

#[test]
fn deletion_is_final() {
    let kind = kind("things.x.io");
    let mut old = made();
    deleted(&kind, &mut old, 0, now());
    assert_eq!(old["metadata"]["generation"], 2);
    let mut back = old.clone();
    meta_mut(&mut back).remove("deletionTimestamp");
    assert_eq!(updated(&kind, &old, back, Part::Main).unwrap(), old);
    let mut more = old.clone();
    more["metadata"]["finalizers"] = json!(["f", "g"]);
    assert_eq!(updated(&kind, &old, more, Part::Main).unwrap_err().code.as_u16(), 422);
}

#[test]
fn an_update_of_another_object_is_refused() {
    let kind = kind("things.x.io");
    for (field, value) in [("resourceVersion", "4"), ("uid", "other")] {
        let mut new = made();
        new["metadata"][field] = json!(value);
        let refused = updated(&kind, &made(), new, Part::Main).unwrap_err();
        assert_eq!((refused.code.as_u16(), refused.reason), (409, "Conflict"), "{field}");
    }
}

#[test]
fn secrets_are_encoded() {
    let new =
        json!({"metadata": {"name": "s"}, "data": {"a": "eA=="}, "stringData": {"b": "text"}});
    let made = created(&kind("secrets"), "ns", new, UID, now()).unwrap();
    assert_eq!(made["data"], json!({"a": "eA==", "b": "dGV4dA=="}));
    assert_eq!((&made["type"], &made["stringData"]), (&json!("Opaque"), &json!(null)));
}

#[test]
fn suffixes_are_five_good_letters() {
    let suffix = suffix(UID);
    assert_eq!(suffix.len(), 5);
    assert!(suffix.chars().all(|c| c.is_ascii_alphanumeric()));
}
