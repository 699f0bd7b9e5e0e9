//! What is remembered of resources that leave, between two looks at them.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rootstock_core::name::ShootName;
use tokio::sync::RwLock;
use tokio::time::Instant;

use crate::api::ContainerRuntime;
use crate::index::RuntimeKey;

/// One resource that leaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Departure {
    uid: Option<String>,
    /// Until when nodes are waited for.
    pub(super) until: Instant,
    /// Whether they are waited for no longer.
    pub(super) nodes_done: bool,
    /// Until when the shoot's objects are waited for, once that has begun.
    objects_until: Option<Instant>,
    /// Whether it leaves the rest to another resource, which goes after it.
    leaving: bool,
}

/// All resources that leave. It is forgotten with the resource, or the process.
#[derive(Debug, Default)]
pub(super) struct Departures(Mutex<BTreeMap<RuntimeKey, Departure>>);

impl Departures {
    /// What is remembered of a resource; it begins to leave where nothing is.
    pub(super) fn of(
        &self,
        key: &RuntimeKey,
        object: &ContainerRuntime,
        until: impl FnOnce() -> Instant,
    ) -> Departure {
        let mut all = self.lock();
        if let Some(known) = all.get(key).filter(|known| known.uid == object.metadata.uid) {
            return known.clone();
        }
        let departure = Departure {
            uid: object.metadata.uid.clone(),
            until: until(),
            nodes_done: false,
            objects_until: None,
            leaving: false,
        };
        all.insert(key.clone(), departure.clone());
        departure
    }

    pub(super) fn nodes_done(&self, key: &RuntimeKey) {
        self.change(key, |departure| departure.nodes_done = true);
    }

    /// A resource is not the last one, and will be gone.
    pub(super) fn leaves(&self, key: &RuntimeKey) {
        self.change(key, |departure| departure.leaving = true);
    }

    /// Whether a resource has left the rest to others.
    pub(super) fn is_leaving(&self, key: &RuntimeKey, object: &ContainerRuntime) -> bool {
        let all = self.lock();
        all.get(key).is_some_and(|known| known.leaving && known.uid == object.metadata.uid)
    }

    /// Until when the shoot's objects are waited for: from now on, the first time.
    pub(super) fn objects_until(&self, key: &RuntimeKey, long: Duration) -> Instant {
        let until = Instant::now() + long;
        let mut all = self.lock();
        let Some(departure) = all.get_mut(key) else { return until };
        *departure.objects_until.get_or_insert(until)
    }

    /// A resource is gone.
    pub(super) fn forget(&self, key: &RuntimeKey) {
        self.lock().remove(key);
    }

    fn change(&self, key: &RuntimeKey, change: impl FnOnce(&mut Departure)) {
        if let Some(departure) = self.lock().get_mut(key) {
            change(departure);
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<RuntimeKey, Departure>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One lock for each shoot: its objects are written by several at once, and
/// taken away by one alone.
#[derive(Debug, Default)]
pub(super) struct Locks(Mutex<HashMap<ShootName, Arc<RwLock<()>>>>);

impl Locks {
    pub(super) fn of(&self, shoot: &ShootName) -> Arc<RwLock<()>> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Those that nobody holds.
        all.retain(|_, lock| Arc::strong_count(lock) > 1);
        Arc::clone(all.entry(shoot.clone()).or_default())
    }
}
