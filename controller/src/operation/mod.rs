//! Gardener's operations on a ContainerRuntime: create, reconcile, delete,
//! migrate, restore.
//!
//! An operation succeeds when the desired state is known and the shoot's
//! objects in the seed are stored. No node and no registry is waited for:
//! how far they are is in the conditions. Only a deletion waits for nodes,
//! for a bounded time, and holds no worker meanwhile.
//!
//! ```text
//!  seed ─ events ─▶ trigger ─▶ queue ─ turns ─▶ task: kind ─▶ apply, leave
//!  Clusters, Index ─ wake ──────▶ ▲                             │ status
//!                                 └── later, failed, done ◀─────┘
//! ```
//!
//! * [`trigger`], [`kind`]: what makes its turn come, and which operation is due
//! * [`queue`], [`pool`]: whose turn it is, and who does it; [`run`] feeds them
//! * [`task`]: one reconcile; [`apply`] and [`leave`] are the operations
//! * [`rotate`]: what time and the shoot's phases ask for, by no operation
//! * [`status`]: how it is written, in Gardener's words

mod apply;
mod departure;
#[cfg(test)]
mod fixture;
mod kind;
mod leave;
mod pool;
mod queue;
mod rotate;
mod run;
mod status;
mod task;
#[cfg(test)]
mod tests;
mod trigger;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kube::Client;
use tokio::sync::watch;

use crate::events::Events;
use crate::index::{Index, RuntimeKey};
use crate::objects::Objects;
use crate::seed::{Clusters, Scope, Store};
use crate::shoot::Endpoints;
use crate::shoot::authorities::ByShoot;
use departure::{Departures, Locks};

pub(crate) use trigger::Triggers;

/// Carries out operations.
pub(crate) struct Operations {
    pub(crate) client: Client,
    pub(crate) store: Arc<Store>,
    pub(crate) clusters: Arc<Clusters>,
    pub(crate) triggers: Arc<Triggers>,
    pub(crate) index: Arc<Index>,
    pub(crate) endpoints: Arc<Endpoints>,
    pub(crate) objects: Arc<Objects>,
    pub(crate) authorities: watch::Receiver<ByShoot>,
    pub(crate) events: Events,
    pub(crate) scope: Scope,
    pub(crate) deletion_timeout: Duration,
    pub(crate) at_once: u16,
}

/// What one reconcile needs.
struct Context {
    client: Client,
    store: Arc<Store>,
    clusters: Arc<Clusters>,
    triggers: Arc<Triggers>,
    index: Arc<Index>,
    endpoints: Arc<Endpoints>,
    objects: Arc<Objects>,
    events: Events,
    scope: Scope,
    deletion_timeout: Duration,
    departures: Departures,
    locks: Locks,
    /// Resources whose shoot was away when its objects were to be written.
    owed: Mutex<BTreeSet<RuntimeKey>>,
}

impl Context {
    fn owe_objects(&self, key: &RuntimeKey) {
        self.owed.lock().unwrap_or_else(PoisonError::into_inner).insert(key.clone());
    }

    /// Takes those whose shoot is back.
    fn take_payable(&self) -> Vec<RuntimeKey> {
        let mut owed = self.owed.lock().unwrap_or_else(PoisonError::into_inner);
        let back = |key: &RuntimeKey| !self.index.is_suspended(&key.shoot);
        let payable: Vec<_> = owed.iter().filter(|key| back(key)).cloned().collect();
        owed.retain(|key| !back(key));
        payable
    }

    fn owes_any(&self) -> bool {
        !self.owed.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// Nothing is remembered of a resource that is gone.
    fn forget(&self, key: &RuntimeKey) {
        self.departures.forget(key);
        self.owed.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
    }
}
