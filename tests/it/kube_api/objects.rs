//! Objects, one by one and many.

use k8s_openapi::api::{
    coordination::v1::Lease,
    core::v1::{ConfigMap, Event, Node, Pod, Secret},
    events::v1::Event as NewEvent,
};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions},
};
use rootstock_playground::kube::Cluster;
use serde_json::json;

use super::support::{from, namespace, node, pod, refused, runtime, runtimes};

fn post() -> PostParams {
    PostParams::default()
}

pub(super) async fn create_read_update_delete(cluster: &Cluster) {
    let ns = namespace(cluster, "crud").await;
    let api = runtimes(cluster.client(), &ns);
    assert_eq!(refused(api.get("r").await), (404, "NotFound".into()));
    let made = api.create(&post(), &runtime("r")).await.unwrap();
    assert!(made.uid().is_some() && made.creation_timestamp().is_some());
    assert_eq!(made.namespace().as_deref(), Some("crud"));
    assert_eq!(refused(api.create(&post(), &runtime("r")).await), (409, "AlreadyExists".into()));

    let mut changed = api.get("r").await.unwrap();
    changed.data["spec"]["binaryPath"] = json!("/opt/runtimes");
    let written = api.replace("r", &post(), &changed).await.unwrap();
    assert_ne!(written.resource_version(), made.resource_version());
    // The same again is of an old version.
    assert_eq!(refused(api.replace("r", &post(), &changed).await), (409, "Conflict".into()));
    // An update of nothing changes nothing.
    let again = api.replace("r", &post(), &written).await.unwrap();
    assert_eq!(again.resource_version(), written.resource_version());
    // Custom resources are not updated blindly.
    let mut blind = written.clone();
    blind.metadata.resource_version = None;
    assert_eq!(refused(api.replace("r", &post(), &blind).await), (422, "Invalid".into()));
    // What the server writes stays the server's.
    let mut forged = written.clone();
    forged.metadata.creation_timestamp = None;
    forged.metadata.generation = Some(77);
    let kept = api.replace("r", &post(), &forged).await.unwrap();
    assert_eq!(kept.creation_timestamp(), made.creation_timestamp());
    assert_eq!(kept.metadata.generation, written.metadata.generation);

    let status = api.delete("r", &DeleteParams::default()).await.unwrap().right().unwrap();
    assert!(status.is_success());
    assert_eq!(refused(api.get("r").await), (404, "NotFound".into()));
    assert_eq!(refused(api.delete("r", &DeleteParams::default()).await), (404, "NotFound".into()));
}

pub(super) async fn names_and_namespaces(cluster: &Cluster) {
    let ns = namespace(cluster, "names").await;
    let api = runtimes(cluster.client(), &ns);
    for bad in ["Upper", "-a", "a_b", ""] {
        let answer = api.create(&post(), &runtime(bad)).await;
        assert_eq!(refused(answer), (422, "Invalid".into()), "{bad:?}");
    }
    let nowhere = runtimes(cluster.client(), "nowhere");
    assert_eq!(refused(nowhere.create(&post(), &runtime("r")).await), (404, "NotFound".into()));
    assert_eq!(nowhere.list(&ListParams::default()).await.unwrap().items.len(), 0);
    let mut elsewhere = runtime("r");
    elsewhere.metadata.namespace = Some("default".to_owned());
    assert_eq!(refused(api.create(&post(), &elsewhere).await), (400, "BadRequest".into()));
}

pub(super) async fn generated_names(cluster: &Cluster) {
    let ns = namespace(cluster, "generated").await;
    let api: Api<ConfigMap> = Api::namespaced(cluster.client(), &ns);
    let map: ConfigMap = from(json!({"metadata": {"generateName": "map-"}}));
    let (one, two) =
        (api.create(&post(), &map).await.unwrap(), api.create(&post(), &map).await.unwrap());
    assert!(one.name_any().starts_with("map-") && one.name_any().len() == 9);
    assert_ne!(one.name_any(), two.name_any());
}

pub(super) async fn generation_and_status(cluster: &Cluster) {
    let ns = namespace(cluster, "generation").await;
    let api = runtimes(cluster.client(), &ns);
    let mut new = runtime("r");
    new.data["status"] = json!({"observedGeneration": 9});
    let made = api.create(&post(), &new).await.unwrap();
    assert_eq!(made.metadata.generation, Some(1));
    assert!(made.data["status"].is_null(), "a new object has no status");

    // A write of the main part keeps the status, and counts changes of the spec.
    let mut main = made.clone();
    main.data["status"] = json!({"observedGeneration": 9});
    main.labels_mut().insert("a".into(), "b".into());
    let main = api.replace("r", &post(), &main).await.unwrap();
    assert!(main.data["status"].is_null());
    assert_eq!(main.metadata.generation, Some(1), "labels don't count");
    let mut main = main.clone();
    main.data["spec"]["binaryPath"] = json!("/other");
    let main = api.replace("r", &post(), &main).await.unwrap();
    assert_eq!(main.metadata.generation, Some(2));

    // A write of the status changes nothing else.
    let mut status = main.clone();
    status.data["spec"]["binaryPath"] = json!("/third");
    status.labels_mut().insert("a".into(), "c".into());
    status.data["status"] =
        json!({"observedGeneration": 2, "lastOperation": {"state": "Succeeded"}});
    let status = api.replace_status("r", &post(), &status).await.unwrap();
    assert_eq!(status.data["spec"]["binaryPath"], "/other");
    assert_eq!(status.labels()["a"], "b");
    assert_eq!(status.metadata.generation, Some(2));
    assert_eq!(api.get_status("r").await.unwrap().data["status"]["observedGeneration"], 2);

    let patch =
        Patch::Merge(json!({"spec": {"binaryPath": "/x"}, "status": {"observedGeneration": 3}}));
    let patched = api.patch_status("r", &PatchParams::default(), &patch).await.unwrap();
    assert_eq!(
        (&patched.data["spec"]["binaryPath"], &patched.data["status"]["observedGeneration"]),
        (&json!("/other"), &json!(3))
    );
    let patched = api.patch("r", &PatchParams::default(), &patch).await.unwrap();
    assert_eq!(patched.metadata.generation, Some(3));
    assert_eq!(patched.data["status"]["lastOperation"]["state"], "Succeeded");
}

pub(super) async fn nodes_keep_status_apart(cluster: &Cluster) {
    let api: Api<Node> = Api::all(cluster.client());
    let made = api.create(&post(), &node("apart")).await.unwrap();
    assert!(made.status.is_some(), "a kubelet registers its node with a status");
    let patch = Patch::Merge(
        json!({"metadata": {"labels": {"x": "y"}}, "status": {"nodeInfo": {"kubeletVersion": "v9"}}}),
    );
    let patched = api.patch("apart", &PatchParams::default(), &patch).await.unwrap();
    let version = |node: &Node| {
        node.status.as_ref().unwrap().node_info.as_ref().unwrap().kubelet_version.clone()
    };
    assert_eq!((patched.labels()["x"].as_str(), version(&patched).as_str()), ("y", "v1.33.1"));
    let patched = api.patch_status("apart", &PatchParams::default(), &patch).await.unwrap();
    assert_eq!(version(&patched), "v9");
    // A blind update is one that the caller may make of a node.
    let mut blind = patched.clone();
    blind.metadata.resource_version = None;
    blind.labels_mut().remove("x");
    assert!(!api.replace("apart", &post(), &blind).await.unwrap().labels().contains_key("x"));
    api.delete("apart", &DeleteParams::default()).await.unwrap();
}

pub(super) async fn schema_of_a_crd(cluster: &Cluster) {
    let ns = namespace(cluster, "schema").await;
    let api = runtimes(cluster.client(), &ns);
    for spec in [
        json!({"type": "gvisor"}),
        json!({"type": 1, "binaryPath": "/x"}),
        json!({"type": "", "binaryPath": "/x"}),
        json!({"type": "x", "binaryPath": "/x", "mode": "c"}),
        json!(null),
    ] {
        let mut bad = runtime("r");
        bad.data["spec"] = spec.clone();
        assert_eq!(refused(api.create(&post(), &bad).await), (422, "Invalid".into()), "{spec}");
    }
    let mut known = runtime("r");
    known.data["spec"]["unknown"] = json!(1);
    known.data["spec"]["workerPool"]["selector"] = json!({"matchLabels": {"any": "thing"}});
    let made = api.create(&post(), &known).await.unwrap();
    assert!(made.data["spec"]["unknown"].is_null(), "unknown fields are pruned");
    assert_eq!(made.data["spec"]["workerPool"]["selector"]["matchLabels"]["any"], "thing");
}

pub(super) async fn finalizers_hold_back(cluster: &Cluster) {
    let ns = namespace(cluster, "finalizers").await;
    let api = runtimes(cluster.client(), &ns);
    let mut held = runtime("r");
    held.finalizers_mut().extend(["x.io/one".to_owned(), "x.io/two".to_owned()]);
    api.create(&post(), &held).await.unwrap();
    let deleted = api.delete("r", &DeleteParams::default()).await.unwrap().left().unwrap();
    let since = deleted.metadata.deletion_timestamp.clone();
    assert!(since.is_some());
    assert_eq!(deleted.metadata.generation, Some(2), "deletion is a change of what is wanted");
    let again = api.delete("r", &DeleteParams::default()).await.unwrap().left().unwrap();
    assert_eq!(again.resource_version(), deleted.resource_version());

    let mut more = deleted.clone();
    more.finalizers_mut().push("x.io/three".to_owned());
    assert_eq!(refused(api.replace("r", &post(), &more).await), (422, "Invalid".into()));
    let mut one = deleted.clone();
    one.finalizers_mut().remove(0);
    one.metadata.deletion_timestamp = None;
    let one = api.replace("r", &post(), &one).await.unwrap();
    assert_eq!(one.metadata.deletion_timestamp, since, "deletion is never taken back");
    let none = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    api.patch("r", &PatchParams::default(), &none).await.unwrap();
    assert_eq!(refused(api.get("r").await), (404, "NotFound".into()));
}

pub(super) async fn preconditions(cluster: &Cluster) {
    let ns = namespace(cluster, "preconditions").await;
    let api = runtimes(cluster.client(), &ns);
    let made = api.create(&post(), &runtime("r")).await.unwrap();
    let only = |uid: Option<String>, resource_version: Option<String>| DeleteParams {
        preconditions: Some(Preconditions { uid, resource_version }),
        ..DeleteParams::default()
    };
    for wrong in [only(Some("other".into()), None), only(made.uid(), Some("1".into()))] {
        assert_eq!(refused(api.delete("r", &wrong).await), (409, "Conflict".into()));
    }
    let mut other = made.clone();
    other.metadata.uid = Some("other".into());
    assert_eq!(refused(api.replace("r", &post(), &other).await), (409, "Conflict".into()));
    api.delete("r", &only(made.uid(), made.resource_version())).await.unwrap();
}

pub(super) async fn lists_in_pages_and_selections(cluster: &Cluster) {
    let ns = namespace(cluster, "lists").await;
    let api: Api<ConfigMap> = Api::namespaced(cluster.client(), &ns);
    for n in 0..5 {
        let labels = json!({"pool": if n < 3 { "a" } else { "b" }, "n": n.to_string()});
        let map: ConfigMap = from(json!({"metadata": {"name": format!("m{n}"), "labels": labels}}));
        api.create(&post(), &map).await.unwrap();
    }
    let names = |list: &kube::api::ObjectList<ConfigMap>| -> Vec<String> {
        list.iter().map(ResourceExt::name_any).collect()
    };
    for (labels, expected) in [
        ("pool=a", vec!["m0", "m1", "m2"]),
        ("pool!=a", vec!["m3", "m4"]),
        ("pool in (a,b),n notin (0,1)", vec!["m2", "m3", "m4"]),
        ("n,!other", vec!["m0", "m1", "m2", "m3", "m4"]),
        ("other", vec![]),
    ] {
        let list = api.list(&ListParams::default().labels(labels)).await.unwrap();
        assert_eq!(names(&list), expected, "{labels}");
    }
    let list = api.list(&ListParams::default().fields("metadata.name=m1")).await.unwrap();
    assert_eq!(names(&list), ["m1"]);
    for bad in ["a=b=c,", "x in"] {
        let answer = api.list(&ListParams::default().labels(bad)).await;
        assert_eq!(refused(answer), (400, "BadRequest".into()), "{bad}");
    }

    let first = api.list(&ListParams::default().limit(2)).await.unwrap();
    assert_eq!(names(&first), ["m0", "m1"]);
    assert_eq!(first.metadata.remaining_item_count, Some(3));
    let token = first.metadata.continue_.unwrap();
    let second = api.list(&ListParams::default().limit(2).continue_token(&token)).await.unwrap();
    assert_eq!(names(&second), ["m2", "m3"]);
    assert_eq!(second.metadata.resource_version, first.metadata.resource_version);
    let token = second.metadata.continue_.unwrap();
    let third = api.list(&ListParams::default().limit(2).continue_token(&token)).await.unwrap();
    assert_eq!(names(&third), ["m4"]);
    assert!(third.metadata.continue_.is_none_or(|token| token.is_empty()));
}

pub(super) async fn deletes_many(cluster: &Cluster) {
    let ns = namespace(cluster, "many").await;
    let api = runtimes(cluster.client(), &ns);
    for name in ["a", "b", "c"] {
        let mut object = runtime(name);
        object.labels_mut().insert("keep".into(), (name == "c").to_string());
        api.create(&post(), &object).await.unwrap();
    }
    let gone = ListParams::default().labels("keep=false");
    api.delete_collection(&DeleteParams::default(), &gone).await.unwrap();
    let left = api.list(&ListParams::default()).await.unwrap();
    assert_eq!(left.iter().map(ResourceExt::name_any).collect::<Vec<_>>(), ["c"]);
}

pub(super) async fn secrets_and_leases(cluster: &Cluster) {
    let ns = namespace(cluster, "secrets").await;
    let secrets: Api<Secret> = Api::namespaced(cluster.client(), &ns);
    let secret: Secret = from(json!({"metadata": {"name": "s"}, "stringData": {"token": "abc"}}));
    let made = secrets.create(&post(), &secret).await.unwrap();
    assert_eq!(made.type_.as_deref(), Some("Opaque"));
    assert_eq!(made.data.unwrap()["token"].0, b"abc");
    assert!(made.string_data.is_none());

    let leases: Api<Lease> = Api::namespaced(cluster.client(), &ns);
    let lease: Lease = from(json!({"metadata": {"name": "l"}, "spec": {"holderIdentity": "me",
        "renewTime": "2026-01-02T03:04:05.678901Z", "leaseDurationSeconds": 15, "leaseTransitions": 1}}));
    let made = leases.create(&post(), &lease).await.unwrap();
    assert_eq!(made.spec, lease.spec, "microseconds stay");
    assert_eq!(refused(leases.replace("l", &post(), &lease).await), (422, "Invalid".into()));
}

pub(super) async fn pods_end_with_grace(cluster: &Cluster) {
    let ns = namespace(cluster, "grace").await;
    let api: Api<Pod> = Api::namespaced(cluster.client(), &ns);
    api.create(&post(), &pod("waiting", None, "default")).await.unwrap();
    api.delete("waiting", &DeleteParams::default()).await.unwrap();
    assert_eq!(refused(api.get("waiting").await), (404, "NotFound".into()));

    let made = api.create(&post(), &pod("running", Some("n"), "default")).await.unwrap();
    assert_eq!(made.status.unwrap().phase.as_deref(), Some("Pending"));
    api.delete("running", &DeleteParams::default()).await.unwrap();
    let ending = api.get("running").await.unwrap();
    assert_eq!(ending.metadata.deletion_grace_period_seconds, Some(30));
    assert!(ending.metadata.deletion_timestamp.is_some());
    // What a kubelet does in the end.
    api.delete("running", &DeleteParams::default().grace_period(0)).await.unwrap();
    assert_eq!(refused(api.get("running").await), (404, "NotFound".into()));
}

pub(super) async fn events_have_two_faces(cluster: &Cluster) {
    let ns = namespace(cluster, "events").await;
    let new: Api<NewEvent> = Api::namespaced(cluster.client(), &ns);
    let event: NewEvent = from(json!({
        "metadata": {"name": "e"}, "regarding": {"kind": "ContainerRuntime", "name": "r", "namespace": ns},
        "eventTime": "2026-01-02T03:04:05.000000Z", "note": "all is well", "reason": "Reconciled", "type": "Normal",
        "reportingController": "rootstock", "reportingInstance": "rootstock-0", "action": "Reconcile",
    }));
    new.create(&post(), &event).await.unwrap();
    let old: Api<Event> = Api::namespaced(cluster.client(), &ns);
    let of =
        ListParams::default().fields("involvedObject.name=r,involvedObject.kind=ContainerRuntime");
    let seen = old.list(&of).await.unwrap();
    assert_eq!(seen.items.len(), 1);
    assert_eq!(seen.items[0].message.as_deref(), Some("all is well"));
    assert_eq!(seen.items[0].reporting_component.as_deref(), Some("rootstock"));
    // As kube's recorder counts repetitions.
    let patch = Patch::Merge(
        json!({"series": {"count": 2, "lastObservedTime": "2026-01-02T03:05:05.000000Z"}}),
    );
    let patched = new.patch("e", &PatchParams::default(), &patch).await.unwrap();
    assert_eq!(patched.series.unwrap().count, 2);
    assert_eq!(patched.note.as_deref(), Some("all is well"));
    assert_eq!(patched.regarding.unwrap().name.as_deref(), Some("r"));
}
