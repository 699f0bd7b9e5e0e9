//! Starting and stopping, and what only the embedded API lets a test do.

use std::{pin::pin, time::Duration};

use futures_util::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Node};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams, PostParams, WatchEvent, WatchParams},
    core::PartialObjectMeta,
    runtime::watcher::{self, Event},
};
use rootstock_playground::kube::{Cluster, RealControlPlane};
use serde_json::json;

use super::support::{from, namespace, node, options, refused, runtime, runtimes};

const PATIENCE: Duration = Duration::from_secs(30);

#[tokio::test]
async fn forgotten_history_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::embedded(options(&dir)).await.unwrap();
    let api: Api<Node> = Api::all(cluster.client());
    let start = api.list(&ListParams::default()).await.unwrap().metadata.resource_version.unwrap();
    let mut watcher = pin!(watcher::watcher(api.clone(), watcher::Config::default()));
    for _ in 0..2 {
        watcher.next().await.unwrap().unwrap();
    }
    let first = api.list(&ListParams::default().limit(1)).await.unwrap();
    assert!(first.metadata.continue_.is_none());
    for name in ["a", "b"] {
        api.create(&PostParams::default(), &node(name)).await.unwrap();
    }
    let page = api.list(&ListParams::default().limit(1)).await.unwrap().metadata.continue_.unwrap();
    api.create(&PostParams::default(), &node("c")).await.unwrap();
    cluster.compact();

    let mut stream = pin!(api.watch(&WatchParams::default(), &start).await.unwrap());
    let WatchEvent::Error(status) = stream.next().await.unwrap().unwrap() else {
        panic!("no error")
    };
    assert_eq!((status.code, status.reason.as_str()), (410, "Expired"));
    assert!(stream.next().await.is_none(), "the watch ends");
    let answer = api.list(&ListParams::default().limit(1).continue_token(&page)).await;
    assert_eq!(refused(answer), (410, "Expired".into()));
    // kube's watcher had its list and no watch yet: it is told so, and starts over.
    let mut names = Vec::new();
    while names.len() < 3 {
        match watcher.next().await.unwrap() {
            Ok(Event::Apply(object) | Event::InitApply(object)) => names.push(object.name_any()),
            Ok(Event::Delete(object)) => panic!("{} is not deleted", object.name_any()),
            Ok(Event::Init | Event::InitDone) | Err(_) => {}
        }
    }
    assert_eq!(names, ["a", "b", "c"]);
    cluster.stop().await;
}

#[tokio::test]
async fn stopping_ends_watches() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::embedded(options(&dir)).await.unwrap();
    let api: Api<Node> = Api::all(cluster.client());
    let stream = api.watch(&WatchParams::default(), "0").await.unwrap();
    let ended = tokio::spawn(stream.try_collect::<Vec<_>>());
    tokio::time::timeout(PATIENCE, cluster.stop()).await.expect("it stops");
    tokio::time::timeout(PATIENCE, ended).await.expect("the watch ends").unwrap().ok();
    assert!(api.list(&ListParams::default()).await.is_err());
}

#[tokio::test]
async fn requests_are_counted() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::embedded(options(&dir)).await.unwrap();
    let api: Api<Node> = Api::all(cluster.client());
    for name in ["a", "b"] {
        api.create(&PostParams::default(), &node(name)).await.unwrap();
    }
    api.get_status("a").await.unwrap();
    assert_eq!(cluster.requests()["create nodes"], 2);
    assert_eq!(cluster.requests()["get nodes/status"], 1);
    cluster.stop().await;
}

#[tokio::test]
async fn a_namespace_goes_with_its_contents() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::embedded(options(&dir)).await.unwrap();
    let ns = namespace(&cluster, "going").await;
    let maps: Api<ConfigMap> = Api::namespaced(cluster.client(), &ns);
    let map: ConfigMap = from(json!({"metadata": {"name": "m"}}));
    maps.create(&PostParams::default(), &map).await.unwrap();
    let things = runtimes(cluster.client(), &ns);
    let mut held = runtime("r");
    held.finalizers_mut().push("x.io/f".into());
    things.create(&PostParams::default(), &held).await.unwrap();

    let namespaces: Api<Namespace> = Api::all(cluster.client());
    namespaces.delete(&ns, &DeleteParams::default()).await.unwrap();
    assert!(namespaces.get(&ns).await.unwrap().metadata.deletion_timestamp.is_some());
    assert_eq!(refused(maps.get("m").await).0, 404);
    assert_eq!(refused(maps.create(&PostParams::default(), &map).await).0, 403);
    let mut last = things.get("r").await.unwrap();
    assert!(last.metadata.deletion_timestamp.is_some());
    last.metadata.finalizers = None;
    things.replace("r", &PostParams::default(), &last).await.unwrap();
    assert_eq!(refused(namespaces.get(&ns).await).0, 404);
    cluster.stop().await;
}

#[tokio::test]
async fn slow_watches_read_on() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::embedded(options(&dir)).await.unwrap();
    let api: Api<ConfigMap> = Api::namespaced(cluster.client(), "default");
    let mut streams = Vec::new();
    for _ in 0..20 {
        let api: Api<PartialObjectMeta<ConfigMap>> = Api::namespaced(cluster.client(), "default");
        streams.push(Box::pin(watcher::watcher(api, watcher::Config::default())));
    }
    for stream in &mut streams {
        for _ in 0..2 {
            stream.next().await.unwrap().unwrap();
        }
    }
    // More than any buffer on the way holds, before anybody reads.
    let text = "x".repeat(10_000);
    for n in 0..100 {
        let map: ConfigMap =
            from(json!({"metadata": {"name": format!("m{n:03}"), "annotations": {"a": text}}}));
        api.create(&PostParams::default(), &map).await.unwrap();
    }
    for mut stream in streams {
        for n in 0..100 {
            let Event::Apply(object) = stream.next().await.unwrap().unwrap() else {
                panic!("no apply")
            };
            assert_eq!(object.name_any(), format!("m{n:03}"));
        }
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn real_servers_share_one_etcd() {
    let Some(assets) = RealControlPlane::assets() else {
        eprintln!("skipped: KUBEBUILDER_ASSETS is not set");
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let plane = RealControlPlane::start(&assets, dir.path()).await.unwrap();
    let named = |name: &str| {
        let mut options = options(&dir);
        options.name = name.to_owned();
        options
    };
    let (one, two) =
        tokio::join!(Cluster::real(&plane, named("one")), Cluster::real(&plane, named("two")));
    let (one, two) = (one.unwrap(), two.unwrap());
    namespace(&one, "only-here").await;
    let there: Api<Namespace> = Api::all(two.client());
    assert_eq!(refused(there.get("only-here").await).0, 404);
    // A token of the one is nobody at the other.
    let accounts: Api<k8s_openapi::api::core::v1::ServiceAccount> =
        Api::namespaced(one.client(), "default");
    accounts
        .create(&PostParams::default(), &from(json!({"metadata": {"name": "a"}})))
        .await
        .unwrap();
    let request = from(json!({"metadata": {}, "spec": {"audiences": []}}));
    let token = accounts.create_token_request("a", &PostParams::default(), &request).await.unwrap();
    let stranger = two.client_with_token(&token.status.unwrap().token).await.unwrap();
    assert_eq!(refused(stranger.apiserver_version().await).0, 401);
    drop(plane);
    tokio::join!(one.stop(), two.stop());
}

#[tokio::test]
async fn a_server_that_does_not_start_says_why() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    for (program, script) in [
        ("etcd", "#!/bin/sh\nexec sleep 60\n"),
        ("kube-apiserver", "#!/bin/sh\necho the disk is full >&2\nexit 3\n"),
    ] {
        let path = dir.path().join(program);
        std::fs::write(&path, script).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    let plane = RealControlPlane::start(dir.path(), dir.path()).await.unwrap();
    let error = Cluster::real(&plane, options(&dir)).await.unwrap_err();
    let why = std::error::Error::source(&error).unwrap().to_string();
    assert!(why.contains("exit status: 3") && why.contains("the disk is full"), "{why}");
    let missing = RealControlPlane::start(&dir.path().join("absent"), dir.path()).await;
    assert!(missing.is_err());
}
