//! The ContainerRuntimes as the watch last had them, for all who need them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use rootstock_core::name::ShootName;
use tokio::sync::{Notify, watch};

use crate::api::ContainerRuntime;
use crate::index::RuntimeKey;

/// All ContainerRuntimes of the seed, also those of other extensions.
///
/// It may be a moment behind the API, also behind this controller's own writes.
#[derive(Debug, Default)]
pub(crate) struct Store {
    all: RwLock<BTreeMap<RuntimeKey, Arc<ContainerRuntime>>>,
    /// Those that changed since they were last asked for, and who waits for them.
    changed: Mutex<BTreeSet<RuntimeKey>>,
    wake: Notify,
    /// Raised with each change.
    versions: watch::Sender<u64>,
}

impl Store {
    /// One resource.
    pub(crate) fn get(&self, key: &RuntimeKey) -> Option<Arc<ContainerRuntime>> {
        self.all.read().unwrap_or_else(PoisonError::into_inner).get(key).cloned()
    }

    /// All of them.
    pub(crate) fn all(&self) -> Vec<Arc<ContainerRuntime>> {
        self.all.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// Those of one shoot.
    pub(crate) fn of_shoot(&self, shoot: &ShootName) -> Vec<(RuntimeKey, Arc<ContainerRuntime>)> {
        let all = self.all.read().unwrap_or_else(PoisonError::into_inner);
        let first = RuntimeKey { shoot: shoot.clone(), name: String::new() };
        let of_shoot = all.range(first..).take_while(|(key, _)| key.shoot == *shoot);
        of_shoot.map(|(key, object)| (key.clone(), Arc::clone(object))).collect()
    }

    /// One is there, or has changed; what was known of it.
    pub(crate) fn put(
        &self,
        key: RuntimeKey,
        object: Arc<ContainerRuntime>,
    ) -> Option<Arc<ContainerRuntime>> {
        let all = || self.all.write().unwrap_or_else(PoisonError::into_inner);
        let before = all().insert(key.clone(), object);
        self.mark([key]);
        before
    }

    /// One is gone.
    pub(crate) fn remove(&self, key: &RuntimeKey) {
        self.all.write().unwrap_or_else(PoisonError::into_inner).remove(key);
        // A controller that does not lead would remember it for ever.
        self.changed.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
        self.versions.send_modify(|count| *count += 1);
    }

    /// These are all; what was known before them.
    pub(super) fn replace(
        &self,
        all: BTreeMap<RuntimeKey, Arc<ContainerRuntime>>,
    ) -> BTreeMap<RuntimeKey, Arc<ContainerRuntime>> {
        let keys: Vec<_> = all.keys().cloned().collect();
        let before =
            std::mem::replace(&mut *self.all.write().unwrap_or_else(PoisonError::into_inner), all);
        self.mark(keys);
        before
    }

    /// Waits until something changed that was not asked for yet. For one task.
    pub(crate) async fn changed(&self) {
        self.wake.notified().await;
    }

    /// Sees every change from here on. What changed is asked of the store.
    pub(crate) fn versions(&self) -> watch::Receiver<u64> {
        self.versions.subscribe()
    }

    /// Those that changed since the last call.
    pub(crate) fn take_changed(&self) -> BTreeSet<RuntimeKey> {
        std::mem::take(&mut *self.changed.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn mark(&self, keys: impl IntoIterator<Item = RuntimeKey>) {
        self.changed.lock().unwrap_or_else(PoisonError::into_inner).extend(keys);
        self.wake.notify_one();
        self.versions.send_modify(|count| *count += 1);
    }
}
