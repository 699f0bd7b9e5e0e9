//! How long an object that failed is left alone.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use kube::ResourceExt as _;

use crate::api::ContainerRuntime;

/// The first pause; it doubles. As in controller-runtime.
const FIRST: Duration = Duration::from_millis(5);
/// The longest pause.
const LAST: Duration = Duration::from_secs(1000);
/// After so many failures, 5 s of pauses, it is no passing trouble.
const LASTING: u32 = 10;

/// Failures by object. A changed spec begins anew.
#[derive(Debug, Default)]
pub(super) struct Backoffs(Mutex<HashMap<String, Failures>>);

#[derive(Debug)]
struct Failures {
    generation: Option<i64>,
    count: u32,
    until: Instant,
}

impl Backoffs {
    /// Notes a failure and tells how long to wait.
    pub(super) fn failed(&self, object: &ContainerRuntime) -> Duration {
        let generation = object.metadata.generation;
        let now = Instant::now();
        let mut failures = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Those of objects that are gone, which nothing else tells of.
        failures.retain(|_, entry| now < entry.until + LAST);
        let entry = failures.entry(object.uid().unwrap_or_default()).or_insert(Failures {
            generation,
            count: 0,
            until: now,
        });
        if entry.generation != generation {
            *entry = Failures { generation, count: 0, until: now };
        }
        let pause = FIRST.saturating_mul(2u32.saturating_pow(entry.count)).min(LAST);
        entry.count = entry.count.saturating_add(1);
        entry.until = now + pause;
        pause
    }

    /// How long the object is still left alone: our own write of its failure
    /// must not bring it back at once.
    pub(super) fn remaining(&self, object: &ContainerRuntime) -> Option<Duration> {
        let failures = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = failures.get(&object.uid()?)?;
        if entry.generation != object.metadata.generation {
            return None;
        }
        let left = entry.until.saturating_duration_since(Instant::now());
        (!left.is_zero()).then_some(left)
    }

    /// Whether the object has failed for a while.
    pub(super) fn lasts(&self, object: &ContainerRuntime) -> bool {
        let failures = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = object.uid().and_then(|uid| failures.get(&uid));
        entry.is_some_and(|e| e.generation == object.metadata.generation && e.count >= LASTING)
    }

    /// Forgets an object's failures.
    pub(super) fn succeeded(&self, object: &ContainerRuntime) {
        let mut failures = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        failures.remove(&object.uid().unwrap_or_default());
    }

    /// Forgets all failures: what they came from has changed.
    pub(super) fn forget_all(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(uid: &str, generation: i64) -> ContainerRuntime {
        serde_json::from_value(json!({
            "apiVersion": "extensions.gardener.cloud/v1alpha1",
            "kind": "ContainerRuntime",
            "metadata": {"name": "gvisor-a", "uid": uid, "generation": generation},
            "spec": {"type": "gvisor", "binaryPath": "/var/bin",
                     "workerPool": {"name": "a", "selector": {}}},
        }))
        .unwrap()
    }

    #[test]
    fn pauses_grow_until_the_spec_or_the_catalog_changes() {
        let backoffs = Backoffs::default();
        assert!(!backoffs.lasts(&object("1", 1)));
        let pauses: Vec<_> = (0..20).map(|_| backoffs.failed(&object("1", 1))).collect();
        assert!(backoffs.lasts(&object("1", 1)) && !backoffs.lasts(&object("1", 2)));
        assert_eq!(pauses[..3], [FIRST, FIRST * 2, FIRST * 4]);
        assert_eq!(pauses[19], LAST);
        assert!(backoffs.remaining(&object("1", 1)).is_some());
        assert_eq!(backoffs.remaining(&object("1", 2)), None, "another spec");
        assert_eq!(backoffs.failed(&object("1", 2)), FIRST);
        backoffs.failed(&object("1", 2));
        backoffs.forget_all();
        assert_eq!(backoffs.remaining(&object("1", 2)), None);
        assert_eq!(backoffs.failed(&object("2", 1)), FIRST);
    }
}
