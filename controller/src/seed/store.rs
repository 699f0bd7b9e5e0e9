//! The ContainerRuntimes as the watch last had them, for all who need them.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use rootstock_core::name::ShootName;

use crate::api::ContainerRuntime;
use crate::index::RuntimeKey;

/// All ContainerRuntimes of the seed, also those of other extensions.
///
/// It may be a moment behind the API, also behind this controller's own writes.
#[derive(Debug, Default)]
pub(crate) struct Store(RwLock<BTreeMap<RuntimeKey, Arc<ContainerRuntime>>>);

impl Store {
    /// One resource.
    pub(crate) fn get(&self, key: &RuntimeKey) -> Option<Arc<ContainerRuntime>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(key).cloned()
    }

    /// All of them.
    pub(crate) fn all(&self) -> Vec<Arc<ContainerRuntime>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// Those of one shoot.
    pub(crate) fn of_shoot(&self, shoot: &ShootName) -> Vec<(RuntimeKey, Arc<ContainerRuntime>)> {
        let all = self.0.read().unwrap_or_else(PoisonError::into_inner);
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
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(key, object)
    }

    /// One is gone.
    pub(crate) fn remove(&self, key: &RuntimeKey) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).remove(key);
    }

    /// These are all; what was known before them.
    pub(super) fn replace(
        &self,
        all: BTreeMap<RuntimeKey, Arc<ContainerRuntime>>,
    ) -> BTreeMap<RuntimeKey, Arc<ContainerRuntime>> {
        std::mem::replace(&mut *self.0.write().unwrap_or_else(PoisonError::into_inner), all)
    }
}
