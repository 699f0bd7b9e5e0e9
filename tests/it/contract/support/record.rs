//! Every state of the objects that the controller writes into a seed, in order.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::{StreamExt as _, stream::select_all};
use kube::api::{ApiResource, DynamicObject};
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client};
use serde_json::Value;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::gardenlet::BOUND;

/// A kind that is recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    ContainerRuntime,
    ManagedResource,
    Secret,
    Event,
    Lease,
    Gateway,
    VirtualService,
}

/// One state of one object.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) kind: Kind,
    /// It is the last one: the object is gone.
    pub(crate) gone: bool,
    pub(crate) object: Value,
}

/// All states so far.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    entries: Arc<Mutex<Vec<Entry>>>,
    count: watch::Receiver<usize>,
    /// How many kinds were listed.
    listed: watch::Receiver<usize>,
}

impl Entry {
    pub(crate) fn is_of(&self, kind: Kind, namespace: &str) -> bool {
        self.kind == kind && self.object["metadata"]["namespace"] == namespace
    }

    pub(crate) fn name(&self) -> &str {
        self.object["metadata"]["name"].as_str().unwrap_or_default()
    }
}

impl Kind {
    /// All that controllers write.
    pub(crate) const ALL: [Self; 7] = [
        Self::ContainerRuntime,
        Self::ManagedResource,
        Self::Secret,
        Self::Event,
        Self::Lease,
        Self::Gateway,
        Self::VirtualService,
    ];

    pub(crate) fn resource(self) -> ApiResource {
        let (group, version, kind, plural) = match self {
            Self::ContainerRuntime => {
                ("extensions.gardener.cloud", "v1alpha1", "ContainerRuntime", "containerruntimes")
            }
            Self::ManagedResource => {
                ("resources.gardener.cloud", "v1alpha1", "ManagedResource", "managedresources")
            }
            Self::Secret => ("", "v1", "Secret", "secrets"),
            Self::Event => ("", "v1", "Event", "events"),
            Self::Gateway => ("networking.istio.io", "v1beta1", "Gateway", "gateways"),
            Self::VirtualService => {
                ("networking.istio.io", "v1beta1", "VirtualService", "virtualservices")
            }
            Self::Lease => ("coordination.k8s.io", "v1", "Lease", "leases"),
        };
        let gvk = kube::api::GroupVersionKind::gvk(group, version, kind);
        ApiResource::from_gvk_with_plural(&gvk, plural)
    }
}

impl Record {
    /// Begins to record these kinds, on a task of `tasks`.
    pub(crate) fn start(client: &Client, kinds: &[Kind], tasks: &mut JoinSet<()>) -> Self {
        let entries = Arc::new(Mutex::new(Vec::new()));
        let (counter, count) = watch::channel(0);
        let (lists, listed) = watch::channel(0);
        let streams: Vec<_> = kinds
            .iter()
            .copied()
            .map(|kind| {
                let api: Api<DynamicObject> = Api::all_with(client.clone(), &kind.resource());
                let events = watcher(api, watcher::Config::default()).default_backoff();
                events.map(move |event| (kind, event)).boxed()
            })
            .collect();
        let into = Arc::clone(&entries);
        tasks.spawn(async move {
            let mut events = select_all(streams);
            while let Some((kind, event)) = events.next().await {
                let (gone, object) = match event {
                    Ok(Event::Apply(object) | Event::InitApply(object)) => (false, object),
                    Ok(Event::Delete(object)) => (true, object),
                    Ok(Event::InitDone) => {
                        lists.send_modify(|listed| *listed += 1);
                        continue;
                    }
                    Ok(Event::Init) => continue,
                    // It is tried again; what was missed then is not.
                    Err(_) => continue,
                };
                let mut object = serde_json::to_value(object).unwrap();
                object["metadata"].as_object_mut().unwrap().remove("managedFields");
                let count = {
                    let mut entries = into.lock().unwrap_or_else(PoisonError::into_inner);
                    entries.push(Entry { kind, gone, object });
                    entries.len()
                };
                // Without the lock: who waits for the counter takes the two the other way round.
                counter.send_replace(count);
            }
        });
        Self { entries, count, listed }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until all that was there is recorded.
    pub(crate) async fn listed(&self, kinds: usize) {
        let mut listed = self.listed.clone();
        let all = timeout(BOUND, listed.wait_for(|listed| *listed >= kinds)).await;
        assert!(all.is_ok(), "the lists are not complete in time");
    }

    /// How much was recorded so far: a place to look back to.
    pub(crate) fn here(&self) -> usize {
        self.lock().len()
    }

    /// What was recorded of a kind in a namespace, after a place.
    pub(crate) fn since(&self, place: usize, kind: Kind, namespace: &str) -> Vec<Entry> {
        let entries = self.lock();
        let of = entries[place..].iter().filter(|entry| entry.is_of(kind, namespace));
        of.cloned().collect()
    }

    /// Waits until what was recorded satisfies.
    pub(crate) async fn until(&self, what: &str, mut is_so: impl FnMut(&[Entry]) -> bool) {
        let mut count = self.count.clone();
        let found = timeout(BOUND, count.wait_for(|_| is_so(&self.lock())));
        assert!(found.await.is_ok(), "{what}: not recorded in time");
    }

    /// Waits until this state of an object is recorded, and with it all that was before.
    pub(crate) async fn sees(&self, object: &DynamicObject) {
        let version = object.metadata.resource_version.clone().unwrap();
        let uid = object.metadata.uid.clone().unwrap();
        self.until("an object that was read", |entries| {
            entries.iter().rev().any(|entry| {
                entry.object["metadata"]["uid"] == uid.as_str()
                    && entry.object["metadata"]["resourceVersion"] == version.as_str()
            })
        })
        .await;
    }
}
