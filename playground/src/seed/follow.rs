//! The objects of one kind, kept up to date by a watch.

use std::collections::BTreeMap;
use std::fmt::{self, Debug};
use std::sync::{Mutex, PoisonError};

use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt as _, watcher as watch};
use kube::{Api, Resource, ResourceExt as _};
use serde::de::DeserializeOwned;

/// Follows the objects behind an [`Api`]; whoever owns it drives it.
pub struct Follow<K> {
    /// Never locked: the owner has it to himself. It lets others share the objects.
    events: Mutex<BoxStream<'static, watcher::Result<Event<K>>>>,
    objects: BTreeMap<(Option<String>, String), K>,
    /// What a list that is under way has brought so far.
    listed: BTreeMap<(Option<String>, String), K>,
    synced: bool,
}

impl<K> Follow<K>
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    /// Follows all objects that `selection` names.
    pub fn new(api: Api<K>, selection: watcher::Config) -> Self {
        Self {
            events: Mutex::new(watch(api, selection).default_backoff().boxed()),
            objects: BTreeMap::new(),
            listed: BTreeMap::new(),
            synced: false,
        }
    }

    /// Waits until an object has changed, or the first list is complete.
    ///
    /// Cancel-safe: what was received is in `self`.
    pub async fn changed(&mut self) {
        loop {
            let events = self.events.get_mut().unwrap_or_else(PoisonError::into_inner);
            match events.next().await {
                Some(Ok(event)) => {
                    if self.take(event) && self.synced {
                        return;
                    }
                }
                Some(Err(error)) => tracing::debug!(%error, kind = short::<K>(), "watch broke"),
                // The watcher never ends by itself.
                None => std::future::pending().await,
            }
        }
    }

    /// Whether a whole list was received.
    pub fn synced(&self) -> bool {
        self.synced
    }

    /// The objects, by namespace and name.
    pub fn objects(&self) -> impl Iterator<Item = &K> {
        self.objects.values()
    }

    /// The object of this name in whatever namespace.
    pub fn named(&self, name: &str) -> Option<&K> {
        self.objects.iter().find(|((_, known), _)| known == name).map(|(_, object)| object)
    }

    fn take(&mut self, event: Event<K>) -> bool {
        let key = |object: &K| (object.namespace(), object.name_any());
        match event {
            Event::Init => {
                self.listed.clear();
                false
            }
            Event::InitApply(object) => {
                self.listed.insert(key(&object), object);
                false
            }
            Event::InitDone => {
                self.objects = std::mem::take(&mut self.listed);
                self.synced = true;
                true
            }
            Event::Apply(object) => {
                self.objects.insert(key(&object), object);
                true
            }
            Event::Delete(object) => self.objects.remove(&key(&object)).is_some(),
        }
    }
}

impl<K> Debug for Follow<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Follow").field("kind", &short::<K>()).finish_non_exhaustive()
    }
}

fn short<K>() -> &'static str {
    std::any::type_name::<K>().rsplit("::").next().unwrap_or_default()
}
