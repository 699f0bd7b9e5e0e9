//! What makes an object's turn come: events of the watch, by Gardener's rules.
//!
//! ```text
//!  seed ─ seen ─▶ Triggers ─ take ─▶ runner
//!                    ▲ wrote, begin, end
//!  a reconcile ──────┘ own writes are no triggers
//! ```

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use kube::ResourceExt as _;
use tokio::sync::Notify;

use super::kind::{is_asked_for, is_done};
use super::queue::Version;
use crate::api::ContainerRuntime;
use crate::index::RuntimeKey;

/// The annotation with the time at which Gardener has asked.
const TIMESTAMP: &str = "gardener.cloud/timestamp";

/// What an event means for its object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Admission {
    /// It is looked at.
    Asked,
    /// Its spec is another one: that alone is no trigger, but it ends the
    /// pause of one that failed.
    Changed,
    /// Nothing.
    No,
}

/// What an event means: the object as it was known, and as it is.
///
/// `freely` is `--ignore-operation-annotation`: a changed spec is a trigger
/// too, and so is a start of the controller. The annotation stays one, for
/// nobody else takes it off.
pub(super) fn admit(
    old: Option<&ContainerRuntime>,
    new: &ContainerRuntime,
    freely: bool,
) -> Admission {
    let Some(old) = old.filter(|old| old.metadata.uid == new.metadata.uid) else {
        return if is_wanting(new, freely) { Admission::Asked } else { Admission::No };
    };
    if old.metadata.resource_version == new.metadata.resource_version {
        return Admission::No;
    }
    let deleting = |object: &ContainerRuntime| object.metadata.deletion_timestamp.is_some();
    let changed = old.metadata.generation != new.metadata.generation;
    // The writes of a deletion's own status do not bring it back, but a watch
    // that was cut off may show the beginning together with another change.
    let deleted = deleting(new) && (!deleting(old) || old.status == new.status);
    if is_asked_for(new) || deleted || (freely && changed) {
        Admission::Asked
    } else if changed {
        Admission::Changed
    } else {
        Admission::No
    }
}

/// Whether an object that is seen for the first time, or whose shoot can be
/// worked on again, has something to be done.
pub(super) fn is_wanting(object: &ContainerRuntime, freely: bool) -> bool {
    let deleting = object.metadata.deletion_timestamp.is_some();
    freely || is_asked_for(object) || deleting || !is_done(object) || is_unanswered(object)
}

/// Whether Gardener has asked since the last operation: a controller that died
/// had taken the annotation off, and Gardener waits for a later time.
fn is_unanswered(object: &ContainerRuntime) -> bool {
    let asked = object.annotations().get(TIMESTAMP).and_then(|time| time.parse().ok());
    let asked: Option<Timestamp> = asked.filter(|_| object.asked().is_none());
    // Gardener compares seconds.
    let last = object.last_operation().map(|last| last.last_update_time.as_second());
    asked.zip(last).is_some_and(|(asked, last)| asked.as_second() > last)
}

/// What is asked for since it was last taken.
#[derive(Debug, Default)]
pub(crate) struct Triggers {
    freely: bool,
    state: Mutex<State>,
    raised: Notify,
}

#[derive(Debug, Default)]
struct State {
    asks: BTreeMap<RuntimeKey, Ask>,
    own: BTreeMap<RuntimeKey, Own>,
}

/// What is asked of one object.
#[derive(Debug, Default)]
pub(super) struct Ask {
    pub(super) version: Version,
    /// The versions of the object that asked; empty where only its spec changed.
    by: Vec<String>,
    /// Whether the object that was known is gone.
    pub(super) gone: bool,
}

impl Ask {
    /// Whether a turn is asked for.
    pub(super) fn is_turn(&self) -> bool {
        !self.by.is_empty()
    }
}

/// What was written of one object and may not have been seen yet.
#[derive(Debug, Default)]
struct Own {
    running: bool,
    versions: Vec<String>,
    latest: Option<Arc<ContainerRuntime>>,
}

impl Triggers {
    pub(crate) fn new(freely: bool) -> Self {
        Self { freely, ..Self::default() }
    }

    /// Whether more than Gardener's annotation is a trigger.
    pub(super) fn freely(&self) -> bool {
        self.freely
    }

    /// An object was seen; `old` is what was known of it.
    pub(crate) fn seen(
        &self,
        key: &RuntimeKey,
        old: Option<&ContainerRuntime>,
        new: &ContainerRuntime,
    ) {
        let mut state = self.lock();
        let (echo, spent) = state.own.get(key).map_or((false, false), |own| {
            (own.has_written(&version_of(new)), !own.running && own.is_seen_in(new))
        });
        if spent {
            state.own.remove(key);
        }
        if echo {
            return;
        }
        let admission = admit(old, new, self.freely);
        match admission {
            Admission::Asked => self.note(&mut state, key, new, Some(version_of(new))),
            Admission::Changed => self.note(&mut state, key, new, None),
            Admission::No => {}
        }
    }

    /// An object is looked at where something is to be done with it.
    pub(crate) fn look(&self, key: &RuntimeKey, object: &ContainerRuntime) {
        if is_wanting(object, self.freely) {
            self.note(&mut self.lock(), key, object, Some(version_of(object)));
        }
    }

    /// An object is looked at in any case: not it has changed, but what it
    /// depends on.
    pub(super) fn ask(&self, key: &RuntimeKey, object: &ContainerRuntime) {
        self.note(&mut self.lock(), key, object, Some(String::new()));
    }

    /// An object is gone.
    pub(crate) fn gone(&self, key: &RuntimeKey) {
        let mut state = self.lock();
        state.own.remove(key);
        state.asks.insert(key.clone(), Ask { gone: true, ..Ask::default() });
        self.raised.notify_one();
    }

    /// Waits until something is asked for. Cancel-safe: what was raised stays so.
    pub(super) async fn raised(&self) {
        self.raised.notified().await;
    }

    /// Takes what is asked for, but of objects that run: their own writes can
    /// be told from those of others only afterwards.
    pub(super) fn take(&self) -> BTreeMap<RuntimeKey, Ask> {
        let mut state = self.lock();
        let State { asks, own } = &mut *state;
        let running = |key: &RuntimeKey| own.get(key).is_some_and(|own| own.running);
        let (stay, taken) = std::mem::take(asks).into_iter().partition(|(key, _)| running(key));
        *asks = stay;
        taken
    }

    /// A reconcile begins. The object as it is known: as the watch had it, or
    /// as an own write left it.
    pub(super) fn begin(
        &self,
        key: &RuntimeKey,
        stored: Arc<ContainerRuntime>,
    ) -> Arc<ContainerRuntime> {
        let mut state = self.lock();
        let own = state.own.entry(key.clone()).or_default();
        own.running = true;
        // Whoever asks by this version later on is served by this run.
        own.versions.push(version_of(&stored));
        let newer = own.latest.as_ref().filter(|latest| {
            latest.metadata.uid == stored.metadata.uid && order(latest) > order(&stored)
        });
        newer.cloned().unwrap_or(stored)
    }

    /// A reconcile has written its object.
    pub(super) fn wrote(&self, key: &RuntimeKey, object: &ContainerRuntime) {
        let mut state = self.lock();
        let own = state.own.entry(key.clone()).or_default();
        own.versions.push(version_of(object));
        own.latest = Some(Arc::new(object.clone()));
    }

    /// A reconcile has ended; `stored` is the object as the watch has it.
    pub(super) fn end(&self, key: &RuntimeKey, stored: Option<&ContainerRuntime>) {
        let mut state = self.lock();
        let State { asks, own } = &mut *state;
        let Some(mine) = own.get_mut(key) else { return };
        mine.running = false;
        if let Some(ask) = asks.get_mut(key) {
            let turn = ask.is_turn();
            ask.by.retain(|version| !mine.has_written(version));
            if turn && !ask.is_turn() && !ask.gone {
                asks.remove(key);
            }
        }
        if mine.latest.is_none() || stored.is_none_or(|stored| mine.is_seen_in(stored)) {
            own.remove(key);
        }
        self.raised.notify_one();
    }

    fn note(
        &self,
        state: &mut State,
        key: &RuntimeKey,
        object: &ContainerRuntime,
        by: Option<String>,
    ) {
        let ask = state.asks.entry(key.clone()).or_default();
        ask.version = Version { uid: object.uid(), generation: object.metadata.generation };
        ask.by.extend(by);
        self.raised.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Own {
    /// Whether the version is an own one, or the one that is worked on.
    fn has_written(&self, version: &String) -> bool {
        self.versions.contains(version)
    }

    /// Whether the last write can be seen in the object as the watch has it.
    fn is_seen_in(&self, object: &ContainerRuntime) -> bool {
        self.latest.as_ref().is_none_or(|latest| order(latest) <= order(object))
    }
}

fn version_of(object: &ContainerRuntime) -> String {
    object.metadata.resource_version.clone().unwrap_or_default()
}

/// Versions of one object follow each other as numbers.
fn order(object: &ContainerRuntime) -> u64 {
    let version = object.metadata.resource_version.as_ref();
    version.and_then(|version| version.parse().ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::api::OPERATION;
    use crate::operation::fixture::{key, object};

    fn last(kind: &str, state: &str) -> Value {
        json!({"lastOperation": {"type": kind, "state": state, "description": "", "progress": 1,
            "lastUpdateTime": "2026-01-01T00:00:00Z"}})
    }

    fn version(metadata: &Value, status: &Value, number: u64) -> ContainerRuntime {
        let mut metadata = metadata.clone();
        metadata["resourceVersion"] = number.to_string().into();
        object(metadata, status.clone())
    }

    #[test]
    fn first_sight_by_gardeners_rules() {
        let annotated = |value: &str| json!({"annotations": {OPERATION: value}});
        let deleted = json!({"deletionTimestamp": "2026-01-01T00:00:00Z"});
        let done = || last("Reconcile", "Succeeded");
        let table = [
            (json!({}), Value::Null, true),
            (json!({}), done(), false),
            (json!({}), last("Create", "Processing"), true),
            (json!({}), last("Reconcile", "Error"), true),
            (json!({}), last("Migrate", "Succeeded"), false),
            (json!({"generation": 2}), done(), false),
            (annotated("reconcile"), done(), true),
            (annotated("restore"), done(), true),
            (annotated("migrate"), done(), true),
            (annotated("wait-for-state"), done(), false),
            (annotated("keepalive"), done(), false),
            (deleted, done(), true),
        ];
        for (metadata, status, want) in table {
            let new = object(metadata, status);
            assert_eq!(admit(None, &new, false) == Admission::Asked, want, "{new:?}");
            assert_eq!(admit(None, &new, true), Admission::Asked, "{new:?}");
            // Another object with its name is seen for the first time.
            let mut old = new.clone();
            old.metadata.uid = Some("other".to_owned());
            assert_eq!(admit(Some(&old), &new, false) == Admission::Asked, want);
        }
    }

    #[test]
    fn updates_by_gardeners_rules() {
        use Admission::{Asked, Changed, No};
        let plain = || json!({"generation": 1});
        let annotated = |value: &str| json!({"generation": 1, "annotations": {OPERATION: value}});
        let deleted = |timestamp: &str| {
            json!({"generation": 2, "deletionTimestamp": "2026-01-01T00:00:00Z",
                   "annotations": {"gardener.cloud/timestamp": timestamp}})
        };
        let done = || last("Reconcile", "Succeeded");
        let failed = || last("Reconcile", "Error");
        let table = [
            // Our own words do not bring an object back.
            ((plain(), done()), (plain(), failed()), No, No),
            ((annotated("reconcile"), done()), (plain(), done()), No, No),
            ((plain(), done()), (annotated("reconcile"), done()), Asked, Asked),
            ((plain(), done()), (annotated("restore"), done()), Asked, Asked),
            ((plain(), done()), (annotated("migrate"), done()), Asked, Asked),
            ((plain(), done()), (annotated("wait-for-state"), done()), No, No),
            // A changed spec waits for Gardener's word.
            ((plain(), done()), (json!({"generation": 2}), done()), Changed, Asked),
            ((plain(), done()), (deleted("1"), done()), Asked, Asked),
            ((deleted("1"), done()), (deleted("2"), done()), Asked, Asked),
            ((deleted("1"), done()), (deleted("1"), last("Delete", "Processing")), No, No),
            ((plain(), done()), (deleted("1"), failed()), Asked, Asked),
        ];
        for ((metadata, status), (to, then), want, freely) in table {
            let (old, new) = (version(&metadata, &status, 1), version(&to, &then, 2));
            assert_eq!(admit(Some(&old), &new, false), want, "{old:?} {new:?}");
            assert_eq!(admit(Some(&old), &new, true), freely, "freely: {old:?} {new:?}");
            assert_eq!(admit(Some(&new), &new, true), No, "it is listed again");
        }
    }

    fn annotated(value: &str, number: u64) -> ContainerRuntime {
        version(&json!({"annotations": {OPERATION: value}}), &Value::Null, number)
    }

    #[test]
    fn own_writes_are_no_triggers_whenever_they_are_seen() {
        let triggers = Triggers::new(false);
        let first = annotated("restore", 1);
        triggers.seen(&key(), None, &first);
        assert!(triggers.take()[&key()].is_turn());
        let begun = triggers.begin(&key(), Arc::new(first.clone()));
        assert_eq!(begun.metadata, first.metadata);
        // One write is seen before its answer, the other one after it.
        let (early, late) = (annotated("restore", 2), annotated("restore", 3));
        triggers.seen(&key(), Some(&first), &early);
        assert!(triggers.take().is_empty(), "it runs");
        triggers.wrote(&key(), &early);
        triggers.wrote(&key(), &late);
        triggers.end(&key(), Some(&early));
        assert!(triggers.take().is_empty());
        // What was written is known before the watch has it.
        let known = triggers.begin(&key(), Arc::new(early.clone()));
        assert_eq!(known.metadata, late.metadata);
        triggers.end(&key(), Some(&early));
        triggers.seen(&key(), Some(&early), &late);
        assert!(triggers.take().is_empty());
        assert!(triggers.lock().own.is_empty(), "nothing is left");
    }

    #[test]
    fn what_others_ask_meanwhile_is_not_lost() {
        let triggers = Triggers::new(false);
        let first = annotated("restore", 1);
        triggers.begin(&key(), Arc::new(first.clone()));
        let (foreign, own) = (annotated("reconcile", 2), annotated("restore", 3));
        triggers.seen(&key(), Some(&first), &foreign);
        triggers.seen(&key(), Some(&foreign), &own);
        triggers.wrote(&key(), &own);
        assert!(triggers.take().is_empty());
        triggers.end(&key(), Some(&own));
        assert!(triggers.take()[&key()].is_turn());
        triggers.gone(&key());
        assert!(triggers.take()[&key()].gone);
    }
}
