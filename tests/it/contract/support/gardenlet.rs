//! gardenlet, as far as it deals with the ContainerRuntimes of one shoot: it deploys,
//! waits, migrates, restores and destroys by the same writes and in the same order.
//!
//! It looks more often than the real one, which would make tests slow, and it is
//! stricter in one point: any `lastError` ends a wait at once. The real one passes over
//! errors until its wait is 30 s old, and then ends at the first that it sees.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::try_join_all;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt as _};
use rootstock_playground::seed::objects::{Access, is_not_found};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::health::{NotReady, OPERATION, TIMESTAMP, annotation, check};

/// How often something is looked at. gardenlet looks every five seconds.
const LOOK: Duration = Duration::from_millis(25);
/// How long anything is waited for. gardenlet gives three minutes, but once a wait of its
/// own has lasted this long, it would end at the first error that it sees.
pub(crate) const BOUND: Duration = Duration::from_secs(30);
/// Whoever deletes an extension's resource has to say that he means it.
const CONFIRMATION: &str = "confirmation.gardener.cloud/deletion";
/// The Secrets that move along with a control plane.
const PERSISTED: &str = "managed-by=secrets-manager,persist=true";

/// A worker pool, with the runtimes that its owner asks for.
#[derive(Clone, Debug)]
pub(crate) struct Worker {
    pub(crate) name: String,
    /// Type and providerConfig.
    pub(crate) runtimes: Vec<(String, Option<Value>)>,
}

/// What moves to another seed.
#[derive(Clone, Debug, Default)]
pub(crate) struct ShootState {
    /// `status.state` and `status.resources` by the resource's name.
    pub(crate) extensions: BTreeMap<String, (Value, Value)>,
    pub(crate) secrets: Vec<Secret>,
}

/// gardenlet, for one shoot.
pub(crate) struct Gardenlet {
    pub(crate) client: Client,
    pub(crate) namespace: String,
    pub(crate) workers: Vec<Worker>,
    /// The class of the resources. The real one never sets it.
    pub(crate) class: Option<String>,
    /// When what was last asked for, by name.
    asked: Mutex<BTreeMap<String, String>>,
}

impl Gardenlet {
    pub(crate) fn new(client: Client, namespace: &str, workers: Vec<Worker>) -> Self {
        let namespace = namespace.to_owned();
        Self { client, namespace, workers, class: None, asked: Mutex::default() }
    }

    /// The shoot's ContainerRuntimes.
    pub(crate) fn api(&self) -> Api<DynamicObject> {
        Access::new(self.client.clone()).container_runtimes(Some(&self.namespace))
    }

    fn secrets(&self) -> Api<Secret> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// `Deploy`: asks for a reconciliation of every resource, side by side.
    pub(crate) async fn deploy(&self) {
        self.deploy_all("reconcile").await;
    }

    async fn deploy_all(&self, operation: &str) {
        let all = self.wanted().into_iter().map(|(name, worker, runtime, config)| {
            self.deploy_one(name, worker, runtime, config, operation)
        });
        try_join_all(all).await.unwrap();
    }

    /// Name, pool, type and providerConfig of each resource.
    fn wanted(&self) -> Vec<(String, &str, &str, Option<&Value>)> {
        let pools = self.workers.iter();
        pools
            .flat_map(|worker| {
                worker.runtimes.iter().map(|(runtime, config)| {
                    let name = format!("{runtime}-{}", worker.name);
                    (name, worker.name.as_str(), runtime.as_str(), config.as_ref())
                })
            })
            .collect()
    }

    async fn deploy_one(
        &self,
        name: String,
        worker: &str,
        runtime: &str,
        config: Option<&Value>,
        operation: &str,
    ) -> kube::Result<()> {
        let now = timestamp();
        let labels = json!({"worker.gardener.cloud/pool": worker, "worker.garden.sapcloud.io/group": worker});
        let mut object = json!({
            "apiVersion": "extensions.gardener.cloud/v1alpha1", "kind": "ContainerRuntime",
            "metadata": {"annotations": {OPERATION: operation, TIMESTAMP: now}},
            "spec": {
                "binaryPath": "/var/bin/containerruntimes",
                "type": runtime,
                "workerPool": {"name": worker, "selector": {"matchLabels": labels}},
            },
        });
        if let Some(class) = &self.class {
            object["spec"]["class"] = json!(class);
        }
        self.note(&name, &now);
        let api = self.api();
        if let Some(found) = api.get_opt(&name).await? {
            let before = &found.data["spec"]["providerConfig"];
            object["spec"]["providerConfig"] = difference(before, &json!(config));
            api.patch(&name, &PatchParams::default(), &Patch::Merge(object)).await?;
        } else {
            object["metadata"]["name"] = json!(name);
            if let Some(config) = config {
                object["spec"]["providerConfig"] = config.clone();
            }
            let object = serde_json::from_value(object).expect("an object");
            api.create(&PostParams::default(), &object).await?;
        }
        Ok(())
    }

    /// `Wait`: until every resource is ready, or one shows an error.
    pub(crate) async fn wait(&self) -> Result<(), String> {
        let names = self.wanted().into_iter().map(|(name, ..)| name);
        try_join_all(names.map(async |name| self.wait_for(&name).await)).await?;
        Ok(())
    }

    /// Until one resource is ready, or shows an error.
    pub(crate) async fn wait_for(&self, name: &str) -> Result<(), String> {
        let asked = self.lock().get(name).cloned();
        let mut seen = String::new();
        let ready = until(async || {
            let object = match self.api().get(name).await {
                Ok(object) => serde_json::to_value(object).unwrap(),
                Err(error) if is_not_found(&error) => return None,
                Err(error) => return Some(Err(error.to_string())),
            };
            // Another's cache may be behind: what was asked for must be there.
            if asked.as_deref().is_some_and(|asked| annotation(&object, TIMESTAMP) != Some(asked)) {
                seen = "the timestamp is another one".to_owned();
                return None;
            }
            match check(&object) {
                Ok(()) => Some(Ok(())),
                Err(NotReady::Error(text, codes)) => Some(Err(format!("{text} {codes:?}"))),
                Err(NotReady::Yet(why)) => {
                    seen = why;
                    None
                }
            }
        });
        let ready = ready.await;
        ready
            .unwrap_or_else(|| Err(format!("not ready after {BOUND:?}: {seen}")))
            .map_err(|why| format!("{}/{name}: {why}", self.namespace))
    }

    /// Deploys and waits: what most of a shoot's reconciliations are.
    pub(crate) async fn reconcile(&self) {
        self.deploy().await;
        self.wait().await.unwrap_or_else(|why| panic!("{why}"));
    }

    /// Waits until a resource shows an error: its text and its codes.
    pub(crate) async fn wait_for_error(&self, name: &str) -> (String, Vec<String>) {
        let error = until(async || {
            let object = serde_json::to_value(self.api().get(name).await.unwrap()).unwrap();
            match check(&object) {
                Err(NotReady::Error(text, codes)) => Some((text, codes)),
                _ => None,
            }
        });
        error.await.unwrap_or_else(|| panic!("{}/{name} shows no error", self.namespace))
    }

    /// `DeleteStaleResources` and `WaitCleanupStaleResources`.
    pub(crate) async fn clean_up_stale(&self) -> Result<(), String> {
        let wanted: BTreeSet<_> = self.wanted().into_iter().map(|(name, ..)| name).collect();
        let stale = |name: &str| !wanted.contains(name);
        self.delete(stale).await;
        self.wait_until_gone(stale).await
    }

    /// `Destroy` and `WaitCleanup`.
    pub(crate) async fn destroy(&self) -> Result<(), String> {
        self.delete(|_| true).await;
        self.wait_until_gone(|_| true).await
    }

    /// `DeleteExtensionObjects`: confirms and deletes those with such names.
    pub(crate) async fn delete(&self, which: impl Fn(&str) -> bool) {
        let all = self.list(which).await.into_iter().map(async |name| {
            let now = timestamp();
            let confirm =
                json!({"metadata": {"annotations": {CONFIRMATION: "true", TIMESTAMP: now}}});
            let api = self.api();
            match api.patch(&name, &PatchParams::default(), &Patch::Merge(confirm)).await {
                Err(error) if is_not_found(&error) => return Ok(()),
                done => done?,
            };
            match api.delete(&name, &DeleteParams::default()).await {
                Err(error) if is_not_found(&error) => Ok(()),
                done => done.map(|_| ()),
            }
        });
        try_join_all(all).await.unwrap();
    }

    /// `WaitUntilExtensionObjectsDeleted`.
    pub(crate) async fn wait_until_gone(&self, which: impl Fn(&str) -> bool) -> Result<(), String> {
        let waits = self.list(which).await.into_iter().map(async |name| {
            let mut seen = json!(null);
            let gone = until(async || match self.api().get_opt(&name).await.unwrap() {
                None => Some(Ok(())),
                Some(object) => {
                    seen = serde_json::to_value(object).unwrap();
                    let error = &seen["status"]["lastError"];
                    (!error.is_null()).then(|| Err(format!("{name}: {error}")))
                }
            });
            gone.await.unwrap_or_else(|| Err(format!("{name} is still there: {seen:#}")))
        });
        try_join_all(waits).await?;
        Ok(())
    }

    /// `Migrate`: every resource is asked at once.
    pub(crate) async fn migrate(&self) {
        let all = self.list(|_| true).await;
        let all = all.iter().map(async |name| self.annotate(name, "migrate").await);
        try_join_all(all).await.unwrap();
    }

    /// `WaitMigrate`.
    pub(crate) async fn wait_migrated(&self) {
        let waits = self.list(|_| true).await.into_iter().map(async |name| {
            let mut seen = json!(null);
            let done = until(async || {
                let Some(object) = self.api().get_opt(&name).await.unwrap() else {
                    return Some(());
                };
                seen = serde_json::to_value(object).unwrap();
                let last = &seen["status"]["lastOperation"];
                (last["type"] == "Migrate" && last["state"] == "Succeeded").then_some(())
            });
            assert!(done.await.is_some(), "{name} is not migrated: {seen:#}");
            Ok::<_, String>(())
        });
        try_join_all(waits).await.unwrap();
    }

    /// What is written into the ShootState.
    pub(crate) async fn save(&self) -> ShootState {
        let all = self.api().list(&ListParams::default()).await.unwrap();
        let extensions = all.items.into_iter().map(|object| {
            let status = object.data["status"].clone();
            (object.name_any(), (status["state"].clone(), status["resources"].clone()))
        });
        let persisted = ListParams::default().labels(PERSISTED);
        let secrets = self.secrets().list(&persisted).await.unwrap().items;
        ShootState { extensions: extensions.collect(), secrets }
    }

    /// `Restore`, and the persisted Secrets, which the real one brings back before.
    pub(crate) async fn restore(&self, state: &ShootState) {
        for secret in &state.secrets {
            let mut copy = Secret {
                data: secret.data.clone(),
                immutable: Some(true),
                type_: Some("Opaque".to_owned()),
                ..Secret::default()
            };
            copy.metadata.name = Some(secret.name_any());
            copy.metadata.labels = secret.metadata.labels.clone();
            match self.secrets().create(&PostParams::default(), &copy).await {
                Err(kube::Error::Api(status)) if status.is_already_exists() => {}
                done => drop(done.unwrap()),
            }
        }
        self.deploy_all("wait-for-state").await;
        let all = self.wanted().into_iter().map(async |(name, ..)| {
            if let Some((state, resources)) = state.extensions.get(&name) {
                let object = self.api().get(&name).await?;
                if object.data["status"]["state"].is_null() {
                    let patch = json!({"status": {"state": state, "resources": resources}});
                    let patch = Patch::Merge(patch);
                    self.api().patch_status(&name, &PatchParams::default(), &patch).await?;
                }
            }
            self.annotate(&name, "restore").await
        });
        try_join_all(all).await.unwrap();
    }

    /// Sets the operation and its timestamp.
    pub(crate) async fn annotate(&self, name: &str, operation: &str) -> kube::Result<()> {
        let now = timestamp();
        let annotations = json!({OPERATION: operation, TIMESTAMP: now});
        self.note(name, &now);
        let patch = Patch::Merge(json!({"metadata": {"annotations": annotations}}));
        match self.api().patch(name, &PatchParams::default(), &patch).await {
            Err(error) if is_not_found(&error) => Ok(()),
            done => done.map(|_| ()),
        }
    }

    async fn list(&self, which: impl Fn(&str) -> bool) -> Vec<String> {
        let all = self.api().list(&ListParams::default()).await.unwrap();
        all.items.iter().map(|object| object.name_any()).filter(|name| which(name)).collect()
    }

    fn note(&self, name: &str, asked: &str) {
        self.lock().insert(name.to_owned(), asked.to_owned());
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, String>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The merge patch that makes the one of the other: what is left out goes.
fn difference(before: &Value, after: &Value) -> Value {
    let (Value::Object(old), Value::Object(new)) = (before, after) else { return after.clone() };
    let gone =
        old.keys().filter(|key| !new.contains_key(*key)).map(|key| (key.clone(), json!(null)));
    let set = new.iter().map(|(key, value)| (key.clone(), difference(&before[key], value)));
    gone.chain(set).collect::<serde_json::Map<_, _>>().into()
}

/// Looks until there is something, for no longer than the bound.
pub(crate) async fn until<T>(mut look: impl AsyncFnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + BOUND;
    loop {
        if let Some(found) = look().await {
            return Some(found);
        }
        if Instant::now() >= end {
            return None;
        }
        // As gardenlet does: what it waits for tells nobody.
        sleep(LOOK).await;
    }
}

/// RFC 3339 with nanoseconds, in UTC.
fn timestamp() -> String {
    format!("{:.9}", Timestamp::now())
}
