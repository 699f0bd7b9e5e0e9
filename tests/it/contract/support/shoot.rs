//! One shoot of a scenario: its namespace, its Cluster, and its gardenlet.

use std::ops::Deref;

use k8s_openapi::api::core::v1::{Namespace, Secret};
use kube::Api;
use kube::api::{DynamicObject, ListParams, Patch, PatchParams};
use rootstock_playground::seed::objects::{ensure, typed};
use serde_json::{Value, json};

use super::gardenlet::{Gardenlet, Worker, until};
use super::record::{Entry, Kind};
use super::suite::{Controller, Suite};

/// The Secret with the kubeconfig that the components of a shoot share.
const GENERIC_KUBECONFIG: &str = "generic-token-kubeconfig";

/// One shoot.
pub(crate) struct Shoot<'a> {
    pub(crate) suite: &'a Suite,
    pub(crate) name: String,
    pub(crate) gardenlet: Gardenlet,
}

impl Deref for Shoot<'_> {
    type Target = Gardenlet;

    fn deref(&self) -> &Gardenlet {
        &self.gardenlet
    }
}

/// Pools with the types that they ask for.
pub(crate) fn pools(pools: &[(&str, &[&str])]) -> Vec<Worker> {
    let worker = |(name, runtimes): &(&str, &[&str])| Worker {
        name: (*name).to_owned(),
        runtimes: runtimes.iter().map(|runtime| ((*runtime).to_owned(), None)).collect(),
    };
    pools.iter().map(worker).collect()
}

impl<'a> Shoot<'a> {
    /// A shoot whose API nobody answers for; its resources are of the controller's class.
    pub(crate) async fn new(
        suite: &'a Suite,
        controller: &Controller,
        name: &str,
        workers: Vec<Worker>,
    ) -> Self {
        let shoot = Self::without_cluster(suite, controller, name, workers).await;
        shoot.make_cluster().await;
        shoot
    }

    /// The same before its Cluster is there.
    pub(crate) async fn without_cluster(
        suite: &'a Suite,
        controller: &Controller,
        name: &str,
        workers: Vec<Worker>,
    ) -> Self {
        Self::elsewhere(suite, controller, &format!("shoot--it--{name}"), workers).await
    }

    /// The same in a namespace of any name.
    pub(crate) async fn elsewhere(
        suite: &'a Suite,
        controller: &Controller,
        name: &str,
        workers: Vec<Worker>,
    ) -> Self {
        let name = name.to_owned();
        let namespace =
            json!({"metadata": {"name": name, "labels": {"gardener.cloud/role": "shoot"}}});
        let namespaces = suite.access.all::<Namespace>();
        ensure(&namespaces, &typed(namespace).unwrap()).await.unwrap();
        let secret = generic_kubeconfig(suite, &name);
        ensure(&suite.access.within::<Secret>(&name), &typed(secret).unwrap()).await.unwrap();
        let mut gardenlet = Gardenlet::new(suite.access.client(), &name, workers);
        gardenlet.class.clone_from(&controller.class);
        Self { suite, name, gardenlet }
    }

    pub(crate) async fn make_cluster(&self) {
        let cluster = cluster(&self.name, &self.gardenlet.workers);
        ensure(&self.suite.access.clusters(), &typed(cluster).unwrap()).await.unwrap();
    }

    /// The same with an API that lets Rootstock in.
    pub(crate) fn with_api(self) -> Self {
        self.suite.let_in(&self.name);
        self
    }

    /// Changes the Shoot in the Cluster.
    pub(crate) async fn change(&self, shoot: Value) {
        let patch = Patch::Merge(json!({"spec": {"shoot": shoot}}));
        let clusters = self.suite.access.clusters();
        clusters.patch(&self.name, &PatchParams::default(), &patch).await.unwrap();
    }

    /// One ContainerRuntime.
    pub(crate) async fn get(&self, name: &str) -> Value {
        serde_json::to_value(self.api().get(name).await.unwrap()).unwrap()
    }

    /// Changes a ContainerRuntime, as `kubectl edit` does.
    pub(crate) async fn edit(&self, name: &str, patch: Value) {
        let patch = Patch::Merge(patch);
        self.api().patch(name, &PatchParams::default(), &patch).await.unwrap();
    }

    /// Writes the status of a ContainerRuntime, as somebody else does.
    pub(crate) async fn edit_status(&self, name: &str, status: Value) {
        let patch = Patch::Merge(json!({"status": status}));
        self.api().patch_status(name, &PatchParams::default(), &patch).await.unwrap();
    }

    /// Waits until a ContainerRuntime is so.
    pub(crate) async fn until(
        &self,
        name: &str,
        what: &str,
        is_so: impl Fn(&Value) -> bool,
    ) -> Value {
        let mut seen = json!(null);
        let found = until(async || {
            seen = self.get(name).await;
            is_so(&seen).then_some(())
        });
        assert!(found.await.is_some(), "{}/{name}: {what}: not in time: {seen:#}", self.name);
        seen
    }

    /// All objects of a kind in the shoot's namespace.
    pub(crate) async fn all(&self, kind: Kind) -> Vec<Value> {
        let client = self.suite.access.client();
        let api: Api<DynamicObject> = Api::namespaced_with(client, &self.name, &kind.resource());
        let all = api.list(&ListParams::default()).await.unwrap();
        all.items.into_iter().map(|object| serde_json::to_value(object).unwrap()).collect()
    }

    /// The names of the ManagedResources that are there.
    pub(crate) async fn managed_resources(&self) -> Vec<String> {
        names(&self.all(Kind::ManagedResource).await)
    }

    /// The objects that a ManagedResource brings into the shoot.
    pub(crate) async fn brings(&self, managed_resource: &str) -> Vec<Value> {
        let all = self.all(Kind::ManagedResource).await;
        let found = all.iter().find(|object| object["metadata"]["name"] == managed_resource);
        let found = found.unwrap_or_else(|| panic!("no {managed_resource} in {}", self.name));
        let secrets = self.suite.access.within::<Secret>(&self.name);
        let mut objects = Vec::new();
        for reference in found["spec"]["secretRefs"].as_array().unwrap() {
            let secret = secrets.get(reference["name"].as_str().unwrap()).await.unwrap();
            for bytes in secret.data.unwrap().into_values() {
                let documents = String::from_utf8(bytes.0).unwrap();
                for text in documents.split("\n---\n").filter(|text| !text.trim().is_empty()) {
                    objects.push(serde_saphyr::from_str(text).unwrap());
                }
            }
        }
        objects
    }

    /// The states of a kind in this shoot's namespace, from a place on.
    pub(crate) fn since(&self, place: usize, kind: Kind) -> Vec<Entry> {
        self.suite.record.since(place, kind, &self.name)
    }

    /// Waits until all that was written into the ContainerRuntimes so far is recorded.
    pub(crate) async fn recorded(&self) {
        for object in self.api().list(&ListParams::default()).await.unwrap().items {
            self.suite.record.sees(&object).await;
        }
    }

    /// Fails if a ContainerRuntime of this shoot has ever shown an error.
    pub(crate) async fn never_failed(&self) {
        self.recorded().await;
        for entry in self.since(0, Kind::ContainerRuntime) {
            let status = &entry.object["status"];
            assert!(status["lastError"].is_null(), "a visible error: {:#}", entry.object);
            assert_ne!(status["lastOperation"]["state"], "Error", "{:#}", entry.object);
        }
    }
}

/// The names of objects.
pub(crate) fn names(objects: &[Value]) -> Vec<String> {
    let name = |object: &Value| object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    objects.iter().map(name).collect()
}

fn generic_kubeconfig(suite: &Suite, name: &str) -> Value {
    use base64::{Engine as _, prelude::BASE64_STANDARD};
    let kubeconfig = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": name,
        "clusters": [{"name": name, "cluster": {
            "server": suite.cluster.url(),
            "certificate-authority-data": BASE64_STANDARD.encode(suite.cluster.ca_pem()),
        }}],
        "users": [{"name": name, "user": {
            "tokenFile": "/var/run/secrets/gardener.cloud/shoot/generic-kubeconfig/token",
        }}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
    });
    json!({
        "metadata": {"name": GENERIC_KUBECONFIG, "namespace": name},
        "stringData": {"kubeconfig": kubeconfig.to_string()},
    })
}

fn cluster(name: &str, workers: &[Worker]) -> Value {
    let workers = workers.iter().map(|worker| {
        let runtimes = worker.runtimes.iter().map(|(runtime, _)| json!({"type": runtime}));
        json!({
            "name": worker.name,
            "cri": {"name": "containerd", "containerRuntimes": runtimes.collect::<Vec<_>>()},
            "machine": {"type": "m", "architecture": "amd64"}, "minimum": 1, "maximum": 2,
        })
    });
    let core = "core.gardener.cloud/v1beta1";
    json!({
        "apiVersion": "extensions.gardener.cloud/v1alpha1", "kind": "Cluster",
        "metadata": {"name": name, "annotations": {
            "generic-token-kubeconfig.secret.gardener.cloud/name": GENERIC_KUBECONFIG,
        }},
        "spec": {
            "cloudProfile": {"apiVersion": core, "kind": "CloudProfile", "metadata": {"name": "p"}},
            "seed": {"apiVersion": core, "kind": "Seed", "metadata": {"name": "seed"},
                     "spec": {"ingress": {"domain": "seed.example"}}},
            "shoot": {
                "apiVersion": core, "kind": "Shoot",
                "metadata": {"name": name, "namespace": "garden-it"},
                "spec": {
                    "kubernetes": {"version": "1.33.1"},
                    "hibernation": {"enabled": false},
                    "provider": {"type": "local", "workers": workers.collect::<Vec<_>>()},
                },
                "status": {
                    "technicalID": name, "isHibernated": false,
                    "lastOperation": {"type": "Create", "state": "Processing", "progress": 50},
                },
            },
        },
    })
}
