//! The Clusters as their watch last had them, for all who need them.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use rootstock_core::name::ShootName;
use tokio::sync::watch;

use crate::api::Cluster;

/// All Clusters of the seed.
///
/// It may be a moment behind the API, and is empty until they are listed.
#[derive(Debug)]
pub(crate) struct Clusters {
    all: RwLock<BTreeMap<ShootName, Arc<Cluster>>>,
    changed: watch::Sender<()>,
}

impl Default for Clusters {
    fn default() -> Self {
        Self { all: RwLock::default(), changed: watch::channel(()).0 }
    }
}

impl Clusters {
    /// One Cluster.
    pub(crate) fn get(&self, shoot: &ShootName) -> Option<Arc<Cluster>> {
        self.all.read().unwrap_or_else(PoisonError::into_inner).get(shoot).cloned()
    }

    /// All of them.
    pub(crate) fn all(&self) -> BTreeMap<ShootName, Arc<Cluster>> {
        self.all.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Sees every change from here on.
    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// These are all.
    pub(crate) fn replace(&self, all: &BTreeMap<ShootName, Arc<Cluster>>) {
        self.all.write().unwrap_or_else(PoisonError::into_inner).clone_from(all);
        self.changed.send_replace(());
    }
}
