//! Delete and Migrate: what was made for the shoot is taken away.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use rootstock_core::name::NodeName;
use tokio::time::Instant;

use super::departure::Departure;
use super::kind::has_finalizer;
use super::queue::Outcome;
use super::task::{OperationError, Task, within};
use crate::api::{Cluster, ContainerRuntime, FINALIZER, OperationType};
use crate::events::Word;
use crate::home::Home;
use crate::index::RuntimeKey;
use crate::objects::{Gone, Keep, ObjectsError};
use crate::shoot::secrets;

/// How long a deletion waits for the shoot's objects to be gone, after its
/// nodes: together less than the three minutes that Gardener waits.
const OBJECTS: Duration = Duration::from_secs(40);
/// How long a migration waits for them: as the gVisor extension does.
const OBJECTS_OF_A_MIGRATION: Duration = Duration::from_secs(120);

impl Task<'_> {
    /// Delete: done when the connected nodes have confirmed and the shoot's
    /// objects are gone, each for a bounded time, or at once when nobody is
    /// left to confirm. A deletion that waits holds no worker.
    pub(super) async fn delete(&mut self, cluster: &Cluster) -> Result<Outcome, OperationError> {
        self.acknowledge().await?;
        if !self.is_processing(OperationType::Delete) {
            self.begin(OperationType::Delete).await?;
        }
        let departure = self.ctx.departures.of(self.key, &self.object, || self.wait_until());
        let suspended = self.ctx.index.is_suspended(&self.key.shoot);
        let given_up = cluster.is_hibernated() || cluster.is_force_deleted();
        let nobody_left = given_up || suspended || cluster.is_deleting();
        if !nobody_left
            && !departure.nodes_done
            && !self.is_out_of_reach().await?
            && let Some(outcome) = self.await_nodes(&departure)
        {
            return Ok(outcome);
        }
        // What a shoot that moves away has belongs to its next seed, too.
        if !suspended {
            let until = self.ctx.departures.objects_until(self.key, OBJECTS);
            let rest =
                if given_up || Instant::now() >= until { Rest::GoesToo } else { Rest::Waits };
            match self.withdraw(rest).await? {
                Some(_) if rest == Rest::Waits => return Ok(Outcome::Soon),
                Some(lingers) => {
                    let (shoot, name) = (&self.key.shoot, &self.key.name);
                    tracing::warn!(%shoot, name, lingers, "the resource manager is left to finish");
                }
                None => {}
            }
        }
        self.succeed(OperationType::Delete).await?;
        self.change_finalizers(|all| all.retain(|finalizer| finalizer != FINALIZER)).await?;
        Ok(Outcome::Done)
    }

    /// Whether no node can be waiting for a word: its shoot's API was never
    /// within reach, and without that no agent is let in.
    async fn is_out_of_reach(&self) -> Result<bool, OperationError> {
        let now = std::time::Instant::now();
        if self.ctx.scope.home != Home::Seed
            || self.ctx.index.removal_pending(self.key, now).is_some()
        {
            return Ok(false);
        }
        let token = secrets::has_token(&self.ctx.client, &self.key.shoot);
        let token = within(async { token.await.map_err(ObjectsError::from) });
        Ok(!token.await?)
    }

    /// Migrate: nothing of the shoot is left in this seed, and everything
    /// stays in the shoot. It may run more than once.
    pub(super) async fn migrate(&mut self) -> Result<Outcome, OperationError> {
        let shoot = &self.key.shoot;
        if !self.ctx.index.is_suspended(shoot) {
            // The index is told before the queue: this is an older view.
            return Ok(Outcome::Soon);
        }
        // Streams have ended with the index' nodes; nobody comes back. With them
        // ended what `status.state` follows from, and it stays as it was last
        // written, a second ago at most: what was promoted since then is promoted
        // again by the nodes' own word on the other seed, and nothing is pulled.
        self.ctx.endpoints.remove(shoot);
        if self.asked || !self.is_processing(OperationType::Migrate) {
            self.begin(OperationType::Migrate).await?;
        }
        self.ctx.departures.of(self.key, &self.object, Instant::now);
        if let Some(what) = self.hand_over().await? {
            let after = OBJECTS_OF_A_MIGRATION;
            let until = self.ctx.departures.objects_until(self.key, after);
            if Instant::now() < until {
                return Ok(Outcome::Soon);
            }
            self.ctx.departures.forget(self.key);
            return Err(OperationError::Lingers { what, after });
        }
        self.succeed(OperationType::Migrate).await?;
        self.change_finalizers(Vec::clear).await?;
        self.take_annotation_off().await?;
        Ok(Outcome::Done)
    }

    /// Waits for the nodes' word; nothing where that is over.
    fn await_nodes(&self, departure: &Departure) -> Option<Outcome> {
        let (now, clock) = (Instant::now(), std::time::Instant::now());
        let pending = self.ctx.index.removal_pending(self.key, clock);
        let owing = pending.as_deref();
        if owing.is_none_or(|nodes| !nodes.is_empty()) && now < departure.until {
            // A node that stays away is given up sooner than the rest.
            let away = self.ctx.index.removal_gives_up(self.key, clock);
            let away = away.map(|time| now + time.saturating_duration_since(clock));
            let until = away.map_or(departure.until, |away| away.min(departure.until));
            return Some(Outcome::After(until - now));
        }
        match owing {
            Some([]) => {
                let away = self.ctx.index.removal_unconfirmed(self.key);
                if !away.is_empty() {
                    self.announce_leftovers(&away);
                }
            }
            nodes => self.announce_leftovers(nodes.unwrap_or_default()),
        }
        self.ctx.departures.nodes_done(self.key);
        None
    }

    /// Until when the nodes are waited for: a restarted controller goes on
    /// with what is left of the time.
    fn wait_until(&self) -> Instant {
        let since = self.object.last_operation().map(|last| last.last_update_time);
        let waited = since.map(|since| Timestamp::now().duration_since(since));
        let waited = waited.and_then(|waited| Duration::try_from(waited).ok()).unwrap_or_default();
        Instant::now() + self.ctx.deletion_timeout.saturating_sub(waited)
    }

    /// Takes away what no other resource needs; what is waited for, if anything.
    async fn withdraw(&self, rest: Rest) -> Result<Option<String>, OperationError> {
        let lock = self.ctx.locks.of(&self.key.shoot);
        let _held = lock.write().await;
        let others = self.others();
        let runtime = &self.object.spec.runtime;
        let last_of_type =
            !others.iter().any(|(_, other)| other.spec.runtime == *runtime && !is_deleting(other));
        let stays = |(key, other): &(RuntimeKey, Arc<ContainerRuntime>)| {
            !is_deleting(other)
                || (has_finalizer(other) && !self.ctx.departures.is_leaving(key, other))
        };
        let last = !others.iter().any(stays);
        if !last {
            // Of two that go at one time the second one is the last.
            self.ctx.departures.leaves(self.key);
        }
        let mut lingers = None;
        if last_of_type && let Ok(runtime) = runtime.parse() {
            let objects = &self.ctx.objects;
            let gone = objects.withdraw_classes(&self.key.shoot, &runtime, Keep::Nothing);
            let gone = within(gone).await?;
            lingers = what(gone).or(lingers);
        }
        if last {
            let gone = self.ctx.objects.withdraw_agent(&self.key.shoot, Keep::Nothing);
            let gone = within(gone).await?;
            // Nobody looks after the rest once the last resource is gone.
            if rest == Rest::GoesToo && gone != Gone::Yes {
                within(self.ctx.objects.withdraw_rest(&self.key.shoot)).await?;
            }
            lingers = what(gone).or(lingers);
        }
        Ok(lingers)
    }

    /// Takes everything out of this seed and leaves it in the shoot; what is
    /// waited for, if anything.
    async fn hand_over(&self) -> Result<Option<String>, OperationError> {
        let lock = self.ctx.locks.of(&self.key.shoot);
        let _held = lock.write().await;
        let (objects, shoot) = (&self.ctx.objects, &self.key.shoot);
        let mut lingers = None;
        if let Ok(runtime) = self.object.spec.runtime.parse() {
            let gone = within(objects.withdraw_classes(shoot, &runtime, Keep::Objects)).await?;
            lingers = what(gone);
        }
        let gone = within(objects.withdraw_agent(shoot, Keep::Objects)).await?;
        Ok(what(gone).or(lingers))
    }

    /// The other resources of the shoot that are this controller's.
    fn others(&self) -> Vec<(RuntimeKey, Arc<ContainerRuntime>)> {
        let mut all = self.ctx.store.of_shoot(&self.key.shoot);
        all.retain(|(key, object)| key != self.key && self.ctx.scope.has(object));
        all
    }

    /// Says which nodes keep the runtime's files for now; none where they are not known.
    fn announce_leftovers(&self, nodes: &[NodeName]) {
        let names: Vec<_> = nodes.iter().take(10).map(NodeName::as_str).collect();
        let who = match nodes.len() {
            0 => "The shoot's nodes, which are not known,".to_owned(),
            1 => format!("Node {}", names.join(", ")),
            count => format!("{count} nodes ({})", names.join(", ")),
        };
        let note = format!(
            "{who} did not confirm in time that the runtime is gone; what is left is removed when it can be"
        );
        self.ctx.events.say(&self.object, Word::NodesNotConfirmed, note);
        let (shoot, name) = (&self.key.shoot, &self.key.name);
        tracing::warn!(%shoot, name, ?names, "nodes have not confirmed in time");
    }
}

/// What becomes of the shoot's own Secrets and its route while a ManagedResource is still there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rest {
    /// They go after it.
    Waits,
    /// They go with the last resource.
    GoesToo,
}

fn is_deleting(object: &ContainerRuntime) -> bool {
    object.metadata.deletion_timestamp.is_some()
}

fn what(gone: Gone) -> Option<String> {
    match gone {
        Gone::Yes => None,
        Gone::Not(what) => Some(what),
    }
}
