//! What the API has of each ContainerRuntime, as far as it is known here.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::{Arc, Mutex, PoisonError};

use kube::api::ListParams;
use kube::{Api, ResourceExt as _};
use rootstock_core::name::ShootName;

use crate::api::ContainerRuntime;
use crate::index::RuntimeKey;
use crate::seed::Store;

/// ContainerRuntimes by namespace and name.
pub(super) type Objects = BTreeMap<(String, String), Arc<ContainerRuntime>>;

/// The newest version of each resource: the watch may be a moment behind our
/// own writes, and what is decided by an older state could be given twice.
pub(super) struct Recorded {
    store: Arc<Store>,
    /// What did not come by the watch.
    ours: Mutex<Objects>,
}

/// Every ContainerRuntime, as the API has it now.
///
/// # Errors
/// When it can't be listed.
pub(super) async fn list(api: &Api<ContainerRuntime>) -> Result<Objects, kube::Error> {
    let listed = api.list(&ListParams::default()).await?;
    Ok(listed.items.into_iter().map(|object| (place(&object), Arc::new(object))).collect())
}

fn place(object: &ContainerRuntime) -> (String, String) {
    (object.namespace().unwrap_or_default(), object.name_any())
}

impl Recorded {
    pub(super) fn new(store: Arc<Store>, ours: Objects) -> Self {
        Self { store, ours: Mutex::new(ours) }
    }

    /// The resources of a shoot, by name.
    pub(super) fn of_shoot(&self, shoot: &ShootName) -> BTreeMap<String, Arc<ContainerRuntime>> {
        let mut ours = self.ours.lock().unwrap_or_else(PoisonError::into_inner);
        let watched = self.store.of_shoot(shoot).into_iter();
        watched
            .map(|(key, watched)| {
                let place = place(&watched);
                let newest = match ours.get(&place) {
                    Some(own) if is_newer(own, &watched) => Arc::clone(own),
                    Some(_) => {
                        ours.remove(&place);
                        watched
                    }
                    None => watched,
                };
                (key.name, newest)
            })
            .collect()
    }

    /// One was written, or read.
    pub(super) fn put(&self, object: ContainerRuntime) {
        let mut ours = self.ours.lock().unwrap_or_else(PoisonError::into_inner);
        ours.insert(place(&object), Arc::new(object));
    }

    /// Another number when a resource of the shoot has another version.
    pub(super) fn fingerprint(&self, shoot: &ShootName, change: u64) -> u64 {
        let mut hasher = DefaultHasher::new();
        change.hash(&mut hasher);
        for (RuntimeKey { name, .. }, object) in self.store.of_shoot(shoot) {
            (name, &object.metadata.resource_version).hash(&mut hasher);
        }
        hasher.finish()
    }
}

/// Whether one version of a resource is newer than the other: they are counted
/// by the API, where they are numbers at all.
fn is_newer(one: &ContainerRuntime, other: &ContainerRuntime) -> bool {
    let version = |object: &ContainerRuntime| {
        object.metadata.resource_version.as_deref().and_then(|version| version.parse::<u64>().ok())
    };
    one.metadata.uid == other.metadata.uid && version(one) > version(other)
}
