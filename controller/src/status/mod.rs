//! Writes what is known into the ContainerRuntimes' status.
//!
//! ```text
//!  Index ─ dirty ──┐
//!                  ├─▶ waiting ─ pace ─▶ look: gate ─ summary ─ compose ─▶ one merge patch ─▶ Events
//!  Store ─ changed ┘                      ▲                                    │ 409
//!                                         └────────── the watch has it newer ◀─┘
//! ```
//!
//! Conditions and `providerStatus` are written together, only over what the one
//! watch had last, and only what differs from it; `state` is the rollouts'.
//! Nothing is read for a write, and nothing is remembered of one but who must
//! wait.
//!
//! * [`gate`]: when a status may be written at all
//! * [`compose`]: what is to be written; [`news`]: what has happened by it
//! * [`pull`]: how far bytes are; [`provider`]: `providerStatus` by the controller's own types; its form is
//!   [`rootstock_core::runtime_status`]
//! * [`waiting`]: who is looked at when

mod compose;
mod conditions;
mod gate;
mod news;
mod pace;
pub(crate) mod patch;
mod provider;
mod pull;
mod waiting;

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use jiff::Timestamp;
use kube::Client;
use kube::api::{Patch, PatchParams};
use rootstock_core::catalog::Catalog;
use rootstock_core::rollup::configuration_accepted;
use rootstock_core::runtime_status::RuntimeStatus;
use rootstock_daemon::Shutdown;
use rootstock_daemon::error::Chain;
use tokio::sync::watch;
use tokio::time::Instant;

use self::compose::{Composed, compose};
use self::gate::{Gate, gate};
use self::waiting::{Due, Version, Waiting};
use crate::api::{ContainerRuntime, PATIENCE, WriteError, is_conflict, is_not_found};
use crate::events::Events;
use crate::index::{Index, Missed, RuntimeKey};
use crate::seed::Store;

/// Changes are gathered for so long: a node reports several times a second
/// while it pulls.
const GATHER: Duration = Duration::from_millis(200);
/// A controller that has just started knows less than the one before it wrote:
/// for so long its first word does not stand for what that one knew.
const SETTLE: Duration = Duration::from_secs(30);
/// How long the watch may take to show what was written.
const BEHIND: Duration = Duration::from_secs(5);
/// How many resources are written at once; one that hangs is one of them.
const AT_ONCE: usize = 8;

/// Writes status.
pub(crate) struct StatusWriter {
    pub(crate) client: Client,
    pub(crate) index: Arc<Index>,
    pub(crate) store: Arc<Store>,
    pub(crate) events: Events,
    /// What there is of bandwidth.
    pub(crate) catalog: watch::Receiver<Arc<Catalog>>,
}

/// What became of one look at a resource.
#[derive(Debug)]
enum Outcome {
    /// Its status is as it should be; it may be another one after so long.
    Same(Option<Duration>),
    /// Nothing is written to it before it changes.
    Closed,
    /// Not now: at the latest then, or when something changes.
    Later(Duration),
    /// It was written; its next version is on its way.
    Written,
    /// Somebody had written before; its next version is on its way.
    Conflict,
    /// It could not be written.
    Refused(WriteError),
}

impl StatusWriter {
    pub(crate) async fn run(self, shutdown: Shutdown) -> anyhow::Result<()> {
        let mut changes = self.index.changes();
        // What changed before is looked at too.
        changes.mark_changed();
        let mut waiting = Waiting::new(Instant::now() + SETTLE);
        let (mut due, mut looks) = (VecDeque::new(), FuturesUnordered::new());
        // Until when changes are gathered, where there are any.
        let mut gathered = None;
        loop {
            while looks.len() < AT_ONCE
                && let Some(due) = due.pop_front()
            {
                looks.push(self.look(due));
            }
            let next = gathered.or_else(|| waiting.next(Instant::now()));
            let idle = gathered.is_none();
            // Cancel-safe: a change is still seen by the next look at the index
            // and the store, who waits is still in `waiting`, and looks go on. A
            // shutdown breaks off writes of one request each, and what they
            // would have said is worked out anew by the next process.
            tokio::select! {
                Some((key, version, outcome)) = looks.next() => {
                    waiting.note(key, version, outcome, Instant::now());
                    continue;
                }
                changed = changes.changed(), if idle => changed?,
                () = self.store.changed(), if idle => {}
                () = tokio::time::sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {}
                () = shutdown.begun() => return Ok(()),
            }
            let now = Instant::now();
            if gathered.take_if(|end| *end <= now).is_none() {
                gathered.get_or_insert(now + GATHER);
                continue;
            }
            waiting.add(self.index.take_dirty());
            waiting.add(self.store.take_changed());
            due.extend(
                waiting.take_due(now, |key| {
                    Some(self.store.get(key)?.metadata.resource_version.clone())
                }),
            );
        }
    }

    /// Looks at one resource, and writes its status where that is not as it
    /// should be. Tells which version was looked at.
    async fn look(&self, due: Due) -> (RuntimeKey, Version, Outcome) {
        let (version, outcome) = self.look_at(&due).await;
        (due.key, version, outcome)
    }

    async fn look_at(&self, due: &Due) -> (Version, Outcome) {
        let key = &due.key;
        let Some(object) = self.store.get(key) else { return (None, Outcome::Closed) };
        let version = object.metadata.resource_version.clone();
        let now = Timestamp::now();
        match gate(&object) {
            Gate::Closed => return (version, Outcome::Closed),
            Gate::Until(then) if now < then => {
                let wait = Duration::try_from(then.duration_since(now)).unwrap_or_default();
                return (version, Outcome::Later(wait));
            }
            Gate::Until(_) | Gate::Open => {}
        }
        self.index.missed_before(key, || missed(&object));
        // None of a shoot that leaves, by whichever of its resources.
        let Some(summary) = self.index.summary(key) else { return (version, Outcome::Closed) };
        if summary.uid != object.metadata.uid {
            // One of the two is about another resource of that name.
            return (version, Outcome::Later(BEHIND));
        }
        let passed_over = self.index.passed_over(&object);
        let accepted = configuration_accepted(self.index.problem(&object).as_ref(), &passed_over);
        let budget = self.catalog.borrow().budgets.unwrap_or_default().of_shoot();
        let composed = match compose(&object, &summary, accepted, passed_over, budget, now) {
            Ok(composed) => composed,
            Err(error) => {
                let error = Chain(&error);
                tracing::error!(shoot = %key.shoot, name = key.name, %error, "composing a status");
                return (version, Outcome::Closed);
            }
        };
        if let Some(wait) = due.settles.filter(|_| composed.unsettling) {
            return (version, Outcome::Later(wait));
        }
        (version, self.write(key, &object, composed, summary.look_again).await)
    }

    async fn write(
        &self,
        key: &RuntimeKey,
        object: &ContainerRuntime,
        composed: Composed,
        look_again: Option<Duration>,
    ) -> Outcome {
        let Some(patch) = composed.patch else { return Outcome::Same(look_again) };
        let (shoot, name) = (&key.shoot, key.name.as_str());
        let params = PatchParams::default();
        let api = key.api(&self.client);
        let patch = Patch::Merge(patch);
        let written = api.patch_status(name, &params, &patch);
        match tokio::time::timeout(PATIENCE, written).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) if is_not_found(&error) => return Outcome::Closed,
            Ok(Err(error)) if is_conflict(&error) => {
                tracing::debug!(%shoot, name, "somebody else wrote the status first");
                return Outcome::Conflict;
            }
            Ok(Err(error)) => return Outcome::Refused(error.into()),
            Err(late) => return Outcome::Refused(late.into()),
        }
        if let Some(error) = composed.unread {
            tracing::warn!(%shoot, name, error = %Chain(&error), "status.state is passed over");
        }
        for new in composed.changed {
            let field = |name: &str| new[name].as_str().unwrap_or_default();
            tracing::info!(
                %shoot, name, condition = field("type"), status = field("status"),
                reason = field("reason"), "condition changed"
            );
        }
        for (word, note) in composed.news {
            self.events.say(object, word, note);
        }
        Outcome::Written
    }
}

/// Whose agent was away by what a resource's status says; nobody's where it
/// says nothing.
fn missed(object: &ContainerRuntime) -> Missed {
    let said = object.status.as_ref().and_then(|status| status.provider_status.as_ref());
    provider::missed(&RuntimeStatus::read(said).unwrap_or_default())
}
