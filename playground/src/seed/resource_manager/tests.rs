//! The resource manager over two embedded APIs.

use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use k8s_openapi::api::node::v1::RuntimeClass;
use kube::Api;
use kube::api::DeleteParams;

use super::*;
use crate::kube::{Cluster, Options};
use crate::seed::catalog;
use crate::seed::objects::{ensure, typed};

const SHOOT: &str = "shoot--garden--one";
const NAME: &str = "extension-x";

struct Fixture {
    clusters: [Cluster; 2],
    manager: ResourceManager,
    _dir: tempfile::TempDir,
}

impl Fixture {
    async fn new() -> Self {
        // An error means that another test has installed it.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let dir = tempfile::tempdir().unwrap();
        let start = async |name: &str, crds| {
            let options = Options { name: name.to_owned(), dir: dir.path().to_owned(), crds };
            Cluster::embedded(options).await.unwrap()
        };
        let clusters =
            [start("seed", catalog::definitions().unwrap()).await, start(SHOOT, vec![]).await];
        let [seed, shoot] = clusters.each_ref().map(|cluster| Access::new(cluster.client()));
        let namespace =
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SHOOT}});
        ensure::<Namespace>(&seed.all(), &typed(namespace).unwrap()).await.unwrap();
        let manager = ResourceManager::new(seed, SHOOT, shoot);
        Self { clusters, manager, _dir: dir }
    }

    fn resources(&self) -> Api<ManagedResource> {
        Access::new(self.clusters[0].client()).within(SHOOT)
    }

    fn classes(&self) -> Api<RuntimeClass> {
        Access::new(self.clusters[1].client()).all()
    }

    fn config_maps(&self) -> Api<ConfigMap> {
        Access::new(self.clusters[1].client()).within(NAMESPACE)
    }

    /// Writes the objects as a ManagedResource.
    async fn put(&self, secret: &str, class: Option<&str>, objects: &[Value]) {
        let text: String = objects.iter().map(|object| format!("---\n{object}\n")).collect();
        let data = crate::seed::encode(text.as_bytes());
        let secrets: Api<Secret> = Access::new(self.clusters[0].client()).within(SHOOT);
        let object = json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": secret},
            "data": {"config.yaml": data},
        });
        ensure(&secrets, &typed(object).unwrap()).await.unwrap();
        let resource = json!({
            "apiVersion": "resources.gardener.cloud/v1alpha1", "kind": "ManagedResource",
            "metadata": {"name": NAME},
            "spec": {
                "class": class, "secretRefs": [{"name": secret}], "keepObjects": false,
                "injectLabels": {"injected": "yes"},
            },
        });
        ensure(&self.resources(), &typed(resource).unwrap()).await.unwrap();
    }

    /// Reconciles until `done` holds.
    async fn until(&mut self, done: impl Fn(Option<&ManagedResource>) -> bool) {
        let work = async {
            loop {
                let there = self.resources().get_opt(NAME).await.unwrap();
                if done(there.as_ref()) {
                    return;
                }
                tokio::select! {
                    () = self.manager.resources.changed() => {}
                    () = self.manager.secrets.changed() => {}
                }
                if self.manager.resources.synced() && self.manager.secrets.synced() {
                    // What fails is in the condition.
                    let _ = self.manager.reconcile().await;
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(20), work).await.unwrap();
    }

    async fn delete(&mut self) {
        self.resources().delete(NAME, &DeleteParams::default()).await.unwrap();
        self.until(|resource| resource.is_none()).await;
    }

    async fn stop(self) {
        for cluster in self.clusters {
            cluster.stop().await;
        }
    }
}

fn class(name: &str) -> Value {
    json!({"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": name}, "handler": "h"})
}

fn config_map(value: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "ConfigMap", "data": {"key": value},
        "metadata": {"name": "a", "namespace": NAMESPACE},
    })
}

fn applied(resource: Option<&ManagedResource>) -> bool {
    because(resource, "ApplySucceeded")
}

/// Whether its condition has this reason.
fn because(resource: Option<&ManagedResource>, reason: &str) -> bool {
    let status = resource.and_then(|resource| resource.status.as_ref());
    let condition = status.and_then(|status| status.conditions.first());
    condition.is_some_and(|condition| condition["reason"] == reason)
}

#[tokio::test]
async fn objects_come_change_and_leave_with_their_resource() {
    let mut fixture = Fixture::new().await;
    fixture.put("one", None, &[class("a"), class("b"), config_map("1")]).await;
    fixture.until(applied).await;
    let map = fixture.config_maps().get("a").await.unwrap();
    assert_eq!(map.labels()["injected"], "yes");
    assert_eq!(map.labels()[MANAGED_BY], "gardener");
    assert_eq!(map.annotations()[ORIGIN], format!("seed:{SHOOT}/{NAME}"));
    let resource = fixture.resources().get(NAME).await.unwrap();
    assert_eq!(resource.finalizers(), [FINALIZER]);
    assert_eq!(resource.status.unwrap().resources.len(), 3);

    fixture.put("two", None, &[class("b"), config_map("2")]).await;
    fixture.until(|there| there.is_some_and(|there| references(there).len() == 2)).await;
    let map = fixture.config_maps();
    assert!(fixture.classes().get_opt("a").await.unwrap().is_none());
    assert!(fixture.classes().get_opt("b").await.unwrap().is_some());
    assert_eq!(map.get("a").await.unwrap().data.unwrap()["key"], "2");

    fixture.delete().await;
    assert!(fixture.classes().get_opt("b").await.unwrap().is_none());
    assert!(map.get_opt("a").await.unwrap().is_none());
    fixture.stop().await;
}

#[tokio::test]
async fn kept_objects_stay() {
    let mut fixture = Fixture::new().await;
    fixture.put("one", None, &[class("a")]).await;
    fixture.until(applied).await;
    let keep = Patch::Merge(json!({"spec": {"keepObjects": true}}));
    fixture.resources().patch(NAME, &PatchParams::default(), &keep).await.unwrap();
    fixture.delete().await;
    assert!(fixture.classes().get_opt("a").await.unwrap().is_some());
    fixture.stop().await;
}

#[tokio::test]
async fn nothing_new_is_applied_while_something_old_is_there() {
    let mut fixture = Fixture::new().await;
    let mut held = class("a");
    held["metadata"]["finalizers"] = json!(["example.com/held"]);
    fixture.put("one", None, &[held]).await;
    fixture.until(applied).await;
    fixture.put("two", None, &[class("b")]).await;
    fixture.until(|there| because(there, "DeletionPending")).await;
    assert!(fixture.classes().get_opt("b").await.unwrap().is_none());
    let free = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    fixture.classes().patch("a", &PatchParams::default(), &free).await.unwrap();
    fixture.manager.reconcile().await.unwrap();
    assert!(fixture.classes().get_opt("b").await.unwrap().is_some());
    fixture.stop().await;
}

#[tokio::test]
async fn another_class_and_a_missing_secret() {
    let mut fixture = Fixture::new().await;
    fixture.put("one", Some("seed"), &[class("a")]).await;
    while fixture.manager.resources.objects().count() == 0 || !fixture.manager.secrets.synced() {
        tokio::select! {
            () = fixture.manager.resources.changed() => {}
            () = fixture.manager.secrets.changed() => {}
        }
    }
    fixture.manager.reconcile().await.unwrap();
    assert!(fixture.classes().get_opt("a").await.unwrap().is_none());
    let theirs = Patch::Merge(json!({"spec": {"class": null, "secretRefs": [{"name": "none"}]}}));
    fixture.resources().patch(NAME, &PatchParams::default(), &theirs).await.unwrap();
    fixture.until(|there| because(there, "CannotReadSecret")).await;
    fixture.stop().await;
}
