//! What makes an object's turn come: events of the watch, by Gardener's rules.
//!
//! ```text
//!  seed ─ seen ─▶ Triggers ─ take ─▶ runner
//!                    ▲ wrote, begin, end
//!  a reconcile ──────┘ own writes are no triggers
//! ```

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kube::ResourceExt as _;
use tokio::sync::Notify;

use super::kind::{is_asked_for, is_done};
use super::queue::Version;
use super::status::asked_at;
use crate::api::ContainerRuntime;
use crate::index::RuntimeKey;

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
    let asked = asked_at(object).filter(|_| object.asked().is_none());
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
    /// Whether somebody else leads: nothing is noted then.
    rests: bool,
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
    /// Whether what it depends on has changed since it began to run.
    again: bool,
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

    /// Another controller leads: what happens is its to answer.
    pub(crate) fn rest(&self) {
        *self.lock() = State { rests: true, ..State::default() };
    }

    /// This controller leads. These are all objects that are known: each is
    /// seen for the first time.
    pub(crate) fn begin_anew(
        &self,
        known: impl FnOnce() -> Vec<(RuntimeKey, Arc<ContainerRuntime>)>,
    ) {
        *self.lock() = State::default();
        // Only now: what changes from here on is noted by the watch.
        for (key, object) in known() {
            self.seen(&key, None, &object);
        }
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

    /// An object's shoot can be worked on again: it is looked at where something
    /// is to be done with it. A run that is under way may not know of it, or may
    /// have done it already, which its end tells.
    pub(super) fn look_again(&self, key: &RuntimeKey, stored: &Arc<ContainerRuntime>) {
        let mut state = self.lock();
        let own = state.own.get_mut(key);
        let known = match own {
            Some(own) if own.running => {
                own.again = true;
                return;
            }
            Some(own) => own.newest(stored),
            None => Arc::clone(stored),
        };
        if is_wanting(&known, self.freely) {
            self.note(&mut state, key, &known, Some(String::new()));
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
        if state.rests {
            return;
        }
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
        let State { asks, own, .. } = &mut *state;
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
        own.newest(&stored)
    }

    /// A reconcile has written its object.
    pub(super) fn wrote(&self, key: &RuntimeKey, object: &ContainerRuntime) {
        let mut state = self.lock();
        let own = state.own.entry(key.clone()).or_default();
        own.versions.push(version_of(object));
        own.latest = Some(Arc::new(object.clone()));
    }

    /// A reconcile has ended; `stored` is the object as the watch has it.
    pub(super) fn end(&self, key: &RuntimeKey, stored: Option<&Arc<ContainerRuntime>>) {
        let mut state = self.lock();
        let State { asks, own, .. } = &mut *state;
        let Some(mine) = own.get_mut(key) else { return };
        mine.running = false;
        let again = std::mem::take(&mut mine.again);
        let known = stored.filter(|_| again).map(|stored| mine.newest(stored));
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
        if let Some(known) = known.filter(|known| is_wanting(known, self.freely)) {
            self.note(&mut state, key, &known, Some(String::new()));
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
        if state.rests {
            return;
        }
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

    /// The object as the watch has it, or as an own write left it after that.
    fn newest(&self, stored: &Arc<ContainerRuntime>) -> Arc<ContainerRuntime> {
        let newer = self.latest.as_ref().filter(|latest| {
            latest.metadata.uid == stored.metadata.uid && order(latest) > order(stored)
        });
        Arc::clone(newer.unwrap_or(stored))
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
