//! The ContainerRuntimes as the watch last had them, for all who need them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use rootstock_core::name::ShootName;
use tokio::sync::Notify;

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
    pub(crate) fn of_shoot(&self, shoot: &ShootName) -> Vec<Arc<ContainerRuntime>> {
        let first = RuntimeKey { shoot: shoot.clone(), name: String::new() };
        let all = self.all.read().unwrap_or_else(PoisonError::into_inner);
        let of_shoot = all.range(first..).take_while(|(key, _)| key.shoot == *shoot);
        of_shoot.map(|(_, object)| Arc::clone(object)).collect()
    }

    /// Waits until something changed that was not asked for yet. For one task.
    pub(crate) async fn changed(&self) {
        self.wake.notified().await;
    }

    /// Those that changed since the last call.
    pub(crate) fn take_changed(&self) -> BTreeSet<RuntimeKey> {
        std::mem::take(&mut *self.changed.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// One is there, or has changed.
    pub(crate) fn put(&self, key: RuntimeKey, object: Arc<ContainerRuntime>) {
        self.mark([key.clone()]);
        self.all.write().unwrap_or_else(PoisonError::into_inner).insert(key, object);
        self.wake.notify_one();
    }

    /// One is gone.
    pub(super) fn remove(&self, key: &RuntimeKey) {
        self.all.write().unwrap_or_else(PoisonError::into_inner).remove(key);
    }

    /// These are all.
    pub(super) fn replace(&self, all: BTreeMap<RuntimeKey, Arc<ContainerRuntime>>) {
        self.mark(all.keys().cloned());
        *self.all.write().unwrap_or_else(PoisonError::into_inner) = all;
        self.wake.notify_one();
    }

    fn mark(&self, keys: impl IntoIterator<Item = RuntimeKey>) {
        self.changed.lock().unwrap_or_else(PoisonError::into_inner).extend(keys);
    }
}
