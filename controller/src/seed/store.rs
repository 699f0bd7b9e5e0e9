//! The ContainerRuntimes as the watch last had them, for all who need them.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

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

    /// One is there, or has changed.
    pub(super) fn put(&self, key: RuntimeKey, object: Arc<ContainerRuntime>) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(key, object);
    }

    /// One is gone.
    pub(super) fn remove(&self, key: &RuntimeKey) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).remove(key);
    }

    /// These are all.
    pub(super) fn replace(&self, all: BTreeMap<RuntimeKey, Arc<ContainerRuntime>>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = all;
    }
}
