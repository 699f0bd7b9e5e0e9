//! Objects and the history of their changes. Pure: no lock, clock or task.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use serde_json::Value;

use super::object::meta_mut;

/// Where an object stands: `namespace` is empty for kinds without one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    /// `plural` or `plural.group`, the same for all versions of a kind.
    pub(super) resource: Arc<str>,
    pub(super) namespace: String,
    pub(super) name: String,
}

/// One step of history.
#[derive(Debug, Clone)]
pub(super) struct Change {
    pub(super) revision: u64,
    pub(super) key: Key,
    pub(super) before: Option<Arc<Value>>,
    /// The object after the change; for a deletion its last state, with the deletion's revision.
    pub(super) object: Arc<Value>,
    pub(super) deleted: bool,
}

/// The history no longer reaches back that far.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Compacted {
    /// The oldest revision that a watch can start from.
    pub(super) oldest: u64,
}

/// All objects of one API, with a bounded history.
#[derive(Debug)]
pub(super) struct Store {
    objects: BTreeMap<Key, Arc<Value>>,
    history: VecDeque<Change>,
    history_limit: usize,
    revision: u64,
    compacted: u64,
}

impl Store {
    /// `history_limit` is the number of changes that watches can look back.
    pub(super) fn new(history_limit: usize) -> Self {
        Self {
            objects: BTreeMap::new(),
            history: VecDeque::new(),
            history_limit,
            // Above 1, so that a client's "from the beginning" is too old, as with the real one.
            revision: 10,
            compacted: 10,
        }
    }

    pub(super) fn revision(&self) -> u64 {
        self.revision
    }

    /// The oldest revision that a watch or a continued list can start from.
    pub(super) fn oldest(&self) -> u64 {
        self.compacted
    }

    pub(super) fn get(&self, key: &Key) -> Option<&Arc<Value>> {
        self.objects.get(key)
    }

    /// The objects of a resource in order of namespace and name, after `start` where it is given.
    pub(super) fn list<'a>(
        &'a self,
        resource: &Arc<str>,
        namespace: Option<&'a str>,
    ) -> impl Iterator<Item = (&'a Key, &'a Arc<Value>)> + use<'a> {
        let resource = Arc::clone(resource);
        let first = Key {
            resource: Arc::clone(&resource),
            namespace: namespace.unwrap_or_default().to_owned(),
            name: String::new(),
        };
        self.objects.range(first..).take_while(move |(key, _)| {
            key.resource == resource && namespace.is_none_or(|wanted| key.namespace == wanted)
        })
    }

    /// Whether anything stands in the namespace.
    pub(super) fn occupied(&self, namespace: &str) -> bool {
        self.objects.keys().any(|key| key.namespace == namespace)
    }

    /// All keys in a namespace.
    pub(super) fn keys_in(&self, namespace: &str) -> Vec<Key> {
        self.objects.keys().filter(|key| key.namespace == namespace).cloned().collect()
    }

    /// Stores an object under the next revision.
    pub(super) fn put(&mut self, key: Key, mut object: Value) -> Arc<Value> {
        self.revision += 1;
        stamp(&mut object, self.revision);
        let object = Arc::new(object);
        let before = self.objects.insert(key.clone(), Arc::clone(&object));
        self.remember(Change {
            revision: self.revision,
            key,
            before,
            object: Arc::clone(&object),
            deleted: false,
        });
        object
    }

    /// Takes an object away; its last state has the deletion's revision.
    pub(super) fn remove(&mut self, key: &Key) -> Option<Arc<Value>> {
        let before = self.objects.remove(key)?;
        self.revision += 1;
        let mut last = Value::clone(&before);
        stamp(&mut last, self.revision);
        let object = Arc::new(last);
        self.remember(Change {
            revision: self.revision,
            key: key.clone(),
            before: Some(before),
            object: Arc::clone(&object),
            deleted: true,
        });
        Some(object)
    }

    /// The changes after a revision, oldest first.
    ///
    /// # Errors
    /// The history does not reach back that far.
    pub(super) fn after(&self, revision: u64) -> Result<impl Iterator<Item = &Change>, Compacted> {
        if revision < self.compacted {
            return Err(Compacted { oldest: self.compacted });
        }
        let first = self.history.partition_point(|change| change.revision <= revision);
        Ok(self.history.range(first..))
    }

    /// Forgets all history.
    pub(super) fn compact(&mut self) {
        self.history.clear();
        self.compacted = self.revision;
    }

    fn remember(&mut self, change: Change) {
        self.history.push_back(change);
        while self.history.len() > self.history_limit {
            if let Some(oldest) = self.history.pop_front() {
                self.compacted = oldest.revision;
            }
        }
    }
}

fn stamp(object: &mut Value, revision: u64) {
    meta_mut(object).insert("resourceVersion".to_owned(), Value::String(revision.to_string()));
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn key(resource: &str, namespace: &str, name: &str) -> Key {
        Key { resource: resource.into(), namespace: namespace.into(), name: name.into() }
    }

    fn names<'a>(listed: impl Iterator<Item = (&'a Key, &'a Arc<Value>)>) -> Vec<String> {
        listed.map(|(key, _)| format!("{}/{}", key.namespace, key.name)).collect()
    }

    #[test]
    fn lists_one_resource_and_namespace() {
        let mut store = Store::new(10);
        for (resource, namespace, name) in [
            ("pods", "b", "2"),
            ("pods", "a", "1"),
            ("pods", "b", "1"),
            ("podsets", "a", "9"),
            ("nodes", "", "n"),
        ] {
            store.put(key(resource, namespace, name), json!({}));
        }
        assert_eq!(names(store.list(&"pods".into(), None)), ["a/1", "b/1", "b/2"]);
        assert_eq!(names(store.list(&"pods".into(), Some("b"))), ["b/1", "b/2"]);
        assert_eq!(names(store.list(&"nodes".into(), None)), ["/n"]);
        assert!(store.occupied("a") && !store.occupied("c"));
    }

    #[test]
    fn history_tells_what_was_and_what_is() {
        let mut store = Store::new(10);
        let start = store.revision();
        store.put(key("pods", "a", "1"), json!({"v": 1}));
        store.put(key("pods", "a", "1"), json!({"v": 2}));
        let last = store.remove(&key("pods", "a", "1")).unwrap();
        assert_eq!(last["metadata"]["resourceVersion"], (start + 3).to_string());
        let told: Vec<_> = store
            .after(start)
            .unwrap()
            .map(|c| (c.before.as_ref().map(|b| b["v"].clone()), c.object["v"].clone(), c.deleted))
            .collect();
        assert_eq!(
            told,
            [
                (None, json!(1), false),
                (Some(json!(1)), json!(2), false),
                (Some(json!(2)), json!(2), true)
            ]
        );
        assert_eq!(store.after(start + 2).unwrap().count(), 1);
        assert_eq!(store.remove(&key("pods", "a", "1")), None);
    }

    #[test]
    fn history_is_bounded_and_says_so() {
        let mut store = Store::new(2);
        let start = store.revision();
        for n in 0..3 {
            store.put(key("pods", "a", "1"), json!({"v": n}));
        }
        assert!(store.after(start).is_err());
        assert_eq!(store.after(start + 1).unwrap().count(), 2);
        store.compact();
        assert_eq!(store.after(start + 2).err(), Some(Compacted { oldest: start + 3 }));
        assert_eq!(store.after(start + 3).unwrap().count(), 0);
    }
}
