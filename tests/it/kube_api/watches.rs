//! Watches, as raw streams and through kube's watcher.

use std::{pin::pin, time::Duration};

use futures_util::{Stream, StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::{ConfigMap, Node};
use kube::{
    Api, ResourceExt as _,
    api::{
        DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams, WatchEvent,
        WatchParams,
    },
    core::PartialObjectMeta,
    runtime::watcher::{self, Event},
};
use rootstock_playground::kube::Cluster;
use serde_json::{Value, json};

use super::support::{from, namespace, runtime, runtimes};

/// No case takes as long, on a machine that is not stuck.
const PATIENCE: Duration = Duration::from_secs(30);

async fn next<T>(stream: &mut (impl Stream<Item = T> + Unpin)) -> T {
    let next = tokio::time::timeout(PATIENCE, stream.next()).await;
    next.expect("nothing came in time").expect("the stream ended")
}

fn shown(event: &WatchEvent<DynamicObject>) -> (String, String) {
    match event {
        WatchEvent::Added(object) => ("added".into(), object.name_any()),
        WatchEvent::Modified(object) => ("modified".into(), object.name_any()),
        WatchEvent::Deleted(object) => ("deleted".into(), object.name_any()),
        WatchEvent::Bookmark(_) => ("bookmark".into(), String::new()),
        WatchEvent::Error(status) => ("error".into(), status.code.to_string()),
    }
}

async fn version(api: &Api<DynamicObject>) -> String {
    api.list(&ListParams::default()).await.unwrap().metadata.resource_version.unwrap()
}

pub(super) async fn sees_everything_in_order(cluster: &Cluster) {
    let ns = namespace(cluster, "watch").await;
    let api = runtimes(cluster.client(), &ns);
    let start = version(&api).await;
    let made = api.create(&PostParams::default(), &runtime("r")).await.unwrap();
    let mode = Patch::Merge(json!({"spec": {"mode": "a"}}));
    api.patch("r", &PatchParams::default(), &mode).await.unwrap();
    // The past first, then what comes.
    let params = WatchParams::default().timeout(20);
    let mut stream = pin!(api.watch(&params, &start).await.unwrap());
    for expected in ["added", "modified"] {
        assert_eq!(shown(&next(&mut stream).await.unwrap()), (expected.to_owned(), "r".to_owned()));
    }
    api.delete("r", &DeleteParams::default()).await.unwrap();
    let WatchEvent::Deleted(last) = next(&mut stream).await.unwrap() else { panic!("no deletion") };
    assert_eq!((last.uid(), &last.data["spec"]["mode"]), (made.uid(), &json!("a")));
    let number =
        |object: &DynamicObject| object.resource_version().unwrap().parse::<u64>().unwrap();
    assert!(number(&last) > number(&made) + 1, "a deletion has a version of its own");

    // Another namespace is out of sight, a third object in sight.
    let elsewhere = namespace(cluster, "watch-elsewhere").await;
    runtimes(cluster.client(), &elsewhere)
        .create(&PostParams::default(), &runtime("x"))
        .await
        .unwrap();
    api.create(&PostParams::default(), &runtime("y")).await.unwrap();
    assert_eq!(shown(&next(&mut stream).await.unwrap()), ("added".into(), "y".into()));
}

pub(super) async fn selections_add_and_delete(cluster: &Cluster) {
    let ns = namespace(cluster, "selection").await;
    let api = runtimes(cluster.client(), &ns);
    let start = version(&api).await;
    let params = WatchParams::default().labels("pool=a").timeout(20);
    let mut stream = pin!(api.watch(&params, &start).await.unwrap());
    api.create(&PostParams::default(), &runtime("r")).await.unwrap();
    for pool in ["a", "b", "a"] {
        let patch = Patch::Merge(json!({"metadata": {"labels": {"pool": pool}}}));
        api.patch("r", &PatchParams::default(), &patch).await.unwrap();
    }
    for expected in ["added", "deleted", "added"] {
        assert_eq!(shown(&next(&mut stream).await.unwrap()).0, expected);
    }
}

pub(super) async fn bookmarks(cluster: &Cluster) {
    let ns = namespace(cluster, "bookmarks").await;
    let elsewhere = namespace(cluster, "bookmarks-elsewhere").await;
    let api = runtimes(cluster.client(), &ns);
    let start = version(&api).await;
    let mut stream = pin!(api.watch(&WatchParams::default().timeout(5), &start).await.unwrap());
    api.create(&PostParams::default(), &runtime("r")).await.unwrap();
    assert_eq!(shown(&next(&mut stream).await.unwrap()).0, "added");
    // The bookmark leads past what this watch does not see.
    let other = runtimes(cluster.client(), &elsewhere);
    let other = other.create(&PostParams::default(), &runtime("r")).await.unwrap();
    let WatchEvent::Bookmark(bookmark) = next(&mut stream).await.unwrap() else {
        panic!("no bookmark")
    };
    let number = |text: &str| text.parse::<u64>().unwrap();
    let reached = number(&bookmark.metadata.resource_version);
    assert!(reached >= number(&other.resource_version().unwrap()));
    // Going on from there tells nothing twice.
    let params = WatchParams::default().timeout(1).disable_bookmarks();
    let stream = api.watch(&params, &bookmark.metadata.resource_version).await.unwrap();
    assert_eq!(stream.try_collect::<Vec<_>>().await.unwrap().len(), 0);
}

pub(super) async fn initial_events(cluster: &Cluster) {
    let ns = namespace(cluster, "initial").await;
    let api = runtimes(cluster.client(), &ns);
    for name in ["a", "b"] {
        api.create(&PostParams::default(), &runtime(name)).await.unwrap();
    }
    let params = WatchParams::default().initial_events().timeout(20);
    let mut stream = pin!(api.watch(&params, "0").await.unwrap());
    let mut names = [next(&mut stream).await.unwrap(), next(&mut stream).await.unwrap()]
        .map(|event| shown(&event));
    names.sort();
    assert_eq!(names, [("added".into(), "a".into()), ("added".into(), "b".into())]);
    let WatchEvent::Bookmark(end) = next(&mut stream).await.unwrap() else { panic!("no end") };
    assert_eq!(end.metadata.annotations["k8s.io/initial-events-end"], "true");
    // From version 0 without that: what is there, at any version.
    let mut stream = pin!(api.watch(&WatchParams::default().timeout(20), "0").await.unwrap());
    assert_eq!(shown(&next(&mut stream).await.unwrap()).0, "added");
}

pub(super) async fn too_old(cluster: &Cluster) {
    let ns = namespace(cluster, "old").await;
    let api = runtimes(cluster.client(), &ns);
    api.create(&PostParams::default(), &runtime("r")).await.unwrap();
    let gone = match api.watch(&WatchParams::default().timeout(20), "1").await {
        Ok(stream) => shown(&next(&mut pin!(stream)).await.unwrap()),
        Err(kube::Error::Api(status)) => ("error".to_owned(), status.code.to_string()),
        Err(other) => panic!("{other:?}"),
    };
    assert_eq!(gone, ("error".into(), "410".into()));
}

pub(super) async fn kube_watcher(cluster: &Cluster) {
    let ns = namespace(cluster, "watcher").await;
    for (round, config) in
        [watcher::Config::default(), watcher::Config::default().streaming_lists()]
            .into_iter()
            .enumerate()
    {
        let api: Api<ConfigMap> = Api::namespaced(cluster.client(), &ns);
        let label = format!("round={round}");
        let map = |name: &str| -> ConfigMap {
            from(
                json!({"metadata": {"name": format!("{name}-{round}"), "labels": {"round": round.to_string()}}}),
            )
        };
        api.create(&PostParams::default(), &map("before")).await.unwrap();
        let mut stream = pin!(watcher::watcher(api.clone(), config.labels(&label)));
        let mut told = Vec::new();
        loop {
            match next(&mut stream).await.unwrap() {
                Event::Init => told.push("init".to_owned()),
                Event::InitApply(object) => told.push(object.name_any()),
                Event::InitDone => break,
                other @ (Event::Apply(_) | Event::Delete(_)) => panic!("{other:?}"),
            }
        }
        assert_eq!(told, ["init".to_owned(), format!("before-{round}")]);
        api.create(&PostParams::default(), &map("after")).await.unwrap();
        let Event::Apply(object) = next(&mut stream).await.unwrap() else { panic!("no apply") };
        assert_eq!(object.name_any(), format!("after-{round}"));
        api.delete(&format!("before-{round}"), &DeleteParams::default()).await.unwrap();
        let Event::Delete(object) = next(&mut stream).await.unwrap() else { panic!("no deletion") };
        assert_eq!(object.name_any(), format!("before-{round}"));
    }
}

pub(super) async fn metadata_alone(cluster: &Cluster) {
    let nodes: Api<Node> = Api::all(cluster.client());
    let node: Node = super::support::node("metadata-alone");
    nodes.create(&PostParams::default(), &node).await.unwrap();
    let list = nodes
        .list_metadata(&ListParams::default().fields("metadata.name=metadata-alone"))
        .await
        .unwrap();
    assert_eq!(list.items.len(), 1);
    let partial: Value = serde_json::to_value(&list.items[0]).unwrap();
    assert!(partial.get("status").is_none());
    assert_eq!(partial["metadata"]["labels"]["worker.gardener.cloud/pool"], "a");

    let api: Api<PartialObjectMeta<Node>> = Api::all(cluster.client());
    let config = watcher::Config::default().fields("metadata.name=metadata-alone");
    let mut stream = pin!(watcher::watcher(api, config));
    for _ in 0..3 {
        next(&mut stream).await.unwrap();
    }
    nodes.delete("metadata-alone", &DeleteParams::default()).await.unwrap();
    assert!(matches!(next(&mut stream).await.unwrap(), Event::Delete(_)));
}
