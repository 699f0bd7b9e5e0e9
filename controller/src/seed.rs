//! The seed's ContainerRuntimes, as far as they are this controller's.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::StreamExt as _;
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client};
use rootstock_core::catalog::Catalog;
use rootstock_daemon::error::Chain;
use rootstock_daemon::{Readiness, Shutdown};
use tokio::sync::watch;

use crate::api::ContainerRuntime;
use crate::args::Types;
use crate::index::{Index, RuntimeKey};

/// What Readiness calls it.
pub(crate) const LISTED: &str = "seed";

/// Which ContainerRuntimes are this controller's.
#[derive(Clone, Debug)]
pub(crate) struct Scope {
    pub(crate) types: Types,
    pub(crate) classes: Vec<String>,
    pub(crate) catalog: watch::Receiver<Arc<Catalog>>,
}

impl Scope {
    /// Whether a resource is this controller's: by its type and its class.
    pub(crate) fn has(&self, object: &ContainerRuntime) -> bool {
        let runtime = &object.spec.runtime;
        let type_is_ours = match &self.types {
            Types::Every => true,
            Types::Only(types) => types.contains(runtime),
            Types::Configured => {
                self.catalog.borrow().runtimes.iter().any(|e| e.runtime.as_str() == runtime)
            }
        };
        let class = match object.spec.class.as_deref() {
            None | Some("") => "shoot",
            Some(class) => class,
        };
        type_is_ours && self.classes.iter().any(|ours| ours == class)
    }
}

/// Feeds the index with ContainerRuntimes.
pub(crate) struct Seed {
    pub(crate) client: Client,
    pub(crate) index: Arc<Index>,
    pub(crate) scope: Scope,
    pub(crate) readiness: Readiness,
}

impl Seed {
    pub(crate) async fn run(mut self, shutdown: Shutdown) -> anyhow::Result<()> {
        let api: Api<ContainerRuntime> = Api::all(self.client.clone());
        let mut events = watcher(api, watcher::Config::default())
            .modify(|object| object.metadata.managed_fields = None)
            .default_backoff()
            .boxed();
        // Also those of others: the catalog may name their type tomorrow.
        let mut all: BTreeMap<RuntimeKey, ContainerRuntime> = BTreeMap::new();
        let mut listed = BTreeMap::new();
        let mut complete = false;
        loop {
            // Cancel-safe: a stream's `next` and a watch's `changed` lose nothing.
            let event = tokio::select! {
                event = events.next() => event,
                changed = self.scope.catalog.changed() => {
                    changed?;
                    if complete {
                        self.put_all(&all);
                    }
                    continue;
                }
                () = shutdown.begun() => return Ok(()),
            };
            match event {
                Some(Ok(watcher::Event::Apply(object))) => {
                    let Some(key) = RuntimeKey::of(&object) else { continue };
                    if self.scope.has(&object) {
                        self.index.put_runtime(&object);
                    }
                    all.insert(key, object);
                }
                Some(Ok(watcher::Event::Delete(object))) => {
                    let Some(key) = RuntimeKey::of(&object) else { continue };
                    all.remove(&key);
                    if self.scope.has(&object) {
                        self.index.remove_runtime(&key);
                    }
                }
                Some(Ok(watcher::Event::Init)) => listed.clear(),
                Some(Ok(watcher::Event::InitApply(object))) => {
                    listed.extend(RuntimeKey::of(&object).map(|key| (key, object)));
                }
                Some(Ok(watcher::Event::InitDone)) => {
                    all = std::mem::take(&mut listed);
                    self.put_all(&all);
                    complete = true;
                    self.readiness.done(LISTED);
                    tracing::info!(count = all.len(), "ContainerRuntimes listed");
                }
                Some(Err(error)) => {
                    tracing::warn!(error = %Chain(&error), "watching ContainerRuntimes");
                }
                None => anyhow::bail!("the watch of ContainerRuntimes ended"),
            }
        }
    }

    fn put_all(&self, all: &BTreeMap<RuntimeKey, ContainerRuntime>) {
        let ours: Vec<_> = all.values().filter(|object| self.scope.has(object)).cloned().collect();
        self.index.seed_listed(&ours);
    }
}
