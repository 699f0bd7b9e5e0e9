//! The seed's ContainerRuntimes, as far as they are this controller's.
//!
//! ```text
//!  ContainerRuntimes ─ one watch ─▶ Store ─▶ Index ─▶ Triggers
//! ```
//! Whoever is woken by the last finds the event in the first two.

mod clusters;
mod store;

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::StreamExt as _;
use kube::Client;
use kube::runtime::{WatchStreamExt as _, watcher};
use rootstock_core::catalog::Catalog;
use rootstock_core::rollup::ConditionType;
use rootstock_daemon::error::Chain;
use rootstock_daemon::{Readiness, Shutdown};
use tokio::sync::watch;

use crate::api::ContainerRuntime;
use crate::args::Types;
use crate::home::Home;
use crate::index::{Index, RuntimeKey};
use crate::operation::Triggers;

pub(crate) use clusters::Clusters;
pub(crate) use store::Store;

/// What Readiness calls it.
pub(crate) const LISTED: &str = "seed";

/// Which ContainerRuntimes are this controller's.
#[derive(Clone, Debug)]
pub(crate) struct Scope {
    pub(crate) home: Home,
    pub(crate) types: Types,
    pub(crate) classes: Vec<String>,
    pub(crate) catalog: watch::Receiver<Arc<Catalog>>,
}

impl Scope {
    /// Whether a resource is this controller's: by its type and its class.
    ///
    /// One that it has worked on stays its own when the type leaves the
    /// catalog: a slip in the configuration must not uninstall anything, and
    /// someone has to take the finalizer off in the end.
    pub(crate) fn has(&self, object: &ContainerRuntime) -> bool {
        let type_is_ours = match &self.types {
            Types::Every => true,
            Types::Only(types) => types.contains(&object.spec.runtime),
            Types::Configured => self.is_configured(object) || is_marked(object),
        };
        let class = match object.spec.class.as_deref() {
            None | Some("") => "shoot",
            Some(class) => class,
        };
        type_is_ours && self.classes.iter().any(|ours| ours == class)
    }

    /// Those of all that are known.
    pub(crate) fn of(
        &self,
        store: &Store,
    ) -> impl Iterator<Item = (RuntimeKey, Arc<ContainerRuntime>)> {
        let all = store.all().into_iter().filter(|object| self.has(object));
        all.filter_map(|object| Some((self.home.key(&object)?, object)))
    }

    /// Whether the catalog names the resource's type.
    pub(crate) fn is_configured(&self, object: &ContainerRuntime) -> bool {
        let catalog = self.catalog.borrow();
        catalog.runtimes.iter().any(|entry| entry.runtime.as_str() == object.spec.runtime)
    }
}

/// Whether the resource has a condition that no other extension writes.
fn is_marked(object: &ContainerRuntime) -> bool {
    let own = ConditionType::BundleResolved.as_str();
    let mut conditions = object.status.iter().flat_map(|status| &status.conditions);
    conditions.any(|condition| condition.kind == own)
}

/// Feeds the store, the index and the operations with ContainerRuntimes.
pub(crate) struct Seed {
    pub(crate) client: Client,
    pub(crate) store: Arc<Store>,
    pub(crate) index: Arc<Index>,
    pub(crate) triggers: Arc<Triggers>,
    pub(crate) scope: Scope,
    pub(crate) readiness: Readiness,
}

impl Seed {
    pub(crate) async fn run(mut self, shutdown: Shutdown) -> anyhow::Result<()> {
        let api = self.scope.home.resources(&self.client);
        let mut events = watcher(api, watcher::Config::default())
            .modify(|object| object.metadata.managed_fields = None)
            .default_backoff()
            .boxed();
        let mut listed = BTreeMap::new();
        let mut complete = false;
        loop {
            // Cancel-safe: a stream's `next` and a watch's `changed` lose nothing.
            let event = tokio::select! {
                event = events.next() => event,
                changed = self.scope.catalog.changed() => {
                    changed?;
                    // A type that is new in the catalog makes resources ours,
                    // and mends those that failed for the lack of it.
                    if complete {
                        self.put_all();
                        self.look_at_all();
                    }
                    continue;
                }
                () = shutdown.begun() => return Ok(()),
            };
            match event {
                Some(Ok(watcher::Event::Apply(object))) => self.apply(object),
                Some(Ok(watcher::Event::Delete(object))) => self.remove(&object),
                Some(Ok(watcher::Event::Init)) => listed.clear(),
                Some(Ok(watcher::Event::InitApply(object))) => {
                    listed.extend(self.scope.home.key(&object).map(|key| (key, Arc::new(object))));
                }
                Some(Ok(watcher::Event::InitDone)) => {
                    let count = listed.len();
                    let before = self.store.replace(std::mem::take(&mut listed));
                    self.put_all();
                    self.compare(&before);
                    complete = true;
                    self.readiness.done(LISTED);
                    tracing::info!(count, "ContainerRuntimes listed");
                }
                Some(Err(error)) => {
                    tracing::warn!(error = %Chain(&error), "watching ContainerRuntimes");
                }
                None => anyhow::bail!("the watch of ContainerRuntimes ended"),
            }
        }
    }

    /// A resource is there, or has changed.
    pub(crate) fn apply(&self, object: ContainerRuntime) {
        let Some(key) = self.scope.home.key(&object) else { return };
        let object = Arc::new(object);
        let old = self.store.put(key.clone(), Arc::clone(&object));
        if self.scope.has(&object) {
            self.index.put_runtime(&object);
            self.see(&key, old.as_deref(), &object);
        } else {
            self.index.remove_runtime(&key);
        }
    }

    /// A resource is gone.
    pub(crate) fn remove(&self, object: &ContainerRuntime) {
        let Some(key) = self.scope.home.key(object) else { return };
        self.store.remove(&key);
        self.index.remove_runtime(&key);
        self.triggers.gone(&key);
    }

    /// A resource was seen, and `old` before it.
    fn see(&self, key: &RuntimeKey, old: Option<&ContainerRuntime>, new: &ContainerRuntime) {
        if old.is_some_and(|old| old.metadata.uid != new.metadata.uid) {
            self.triggers.gone(key);
        }
        self.triggers.seen(key, old, new);
    }

    /// What a new list says that the watch did not.
    fn compare(&self, before: &BTreeMap<RuntimeKey, Arc<ContainerRuntime>>) {
        for key in before.keys().filter(|key| self.store.get(key).is_none()) {
            self.triggers.gone(key);
        }
        for (key, object) in self.ours() {
            self.see(&key, before.get(&key).map(|old| &**old), &object);
        }
    }

    fn look_at_all(&self) {
        for (key, object) in self.ours() {
            self.triggers.look(&key, &object);
        }
    }

    fn ours(&self) -> impl Iterator<Item = (RuntimeKey, Arc<ContainerRuntime>)> {
        self.scope.of(&self.store)
    }

    fn put_all(&self) {
        // The store has those of others too: the catalog may name their type tomorrow.
        let ours: Vec<_> = self.ours().map(|(_, object)| object).collect();
        self.index.seed_listed(&ours);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn object(kind: &str, class: Value, condition: &str) -> ContainerRuntime {
        let time = "2026-01-01T00:00:00Z";
        serde_json::from_value(json!({
            "apiVersion": "extensions.gardener.cloud/v1alpha1",
            "kind": "ContainerRuntime",
            "metadata": {"name": "x", "namespace": "shoot--garden--one"},
            "spec": {"type": kind, "class": class, "binaryPath": "/var/bin",
                     "workerPool": {"name": "a", "selector": {}}},
            "status": {"conditions": [{"type": condition, "status": "True", "reason": "R",
                "message": "", "lastTransitionTime": time, "lastUpdateTime": time}]},
        }))
        .unwrap()
    }

    #[test]
    fn resources_are_taken_by_type_and_class() {
        let catalog: Catalog = serde_json::from_value(json!({
            "registries": [{"name": "main", "url": "http://r"}],
            "runtimes": [{"type": "gvisor", "bundle": "main/gvisor:1"}],
        }))
        .unwrap();
        let (_sender, catalog) = watch::channel(Arc::new(catalog));
        let scope = |types: &str| Scope {
            home: Home::Seed,
            types: types.parse().unwrap(),
            classes: vec!["shoot".to_owned()],
            catalog: catalog.clone(),
        };
        let (none, garden) = (Value::Null, json!("garden"));
        let table = [
            ("", object("gvisor", none.clone(), "Other"), true),
            ("", object("gvisor", json!(""), "Other"), true),
            ("", object("gvisor", json!("shoot"), "Other"), true),
            ("", object("gvisor", garden.clone(), "Other"), false),
            ("", object("kata", none.clone(), "Other"), false),
            // The catalog named it once: it is not given up.
            ("", object("kata", none.clone(), "BundleResolved"), true),
            ("", object("kata", garden, "BundleResolved"), false),
            // Here the operator says so.
            ("gvisor", object("kata", none.clone(), "BundleResolved"), false),
            ("*", object("kata", none, "Other"), true),
        ];
        for (types, object, want) in table {
            assert_eq!(scope(types).has(&object), want, "{types:?} {object:?}");
        }
    }
}
