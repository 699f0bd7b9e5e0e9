//! The runner: lets a few reconciles run at once, and hears of what wakes others.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use rootstock_core::name::ShootName;
use rootstock_daemon::Shutdown;
use rootstock_daemon::error::Chain;
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::Instant;

use super::departure::{Departures, Locks};
use super::queue::{Outcome, Queue, Turn};
use super::{Context, Operations, task};
use crate::api::Cluster;
use crate::index::RuntimeKey;

/// The longest that one reconcile may take, as with Gardener's controllers.
const BOUND: Duration = Duration::from_secs(180);
/// Changes of the index are gathered for so long: nodes report several times a
/// second.
const GATHER: Duration = Duration::from_millis(20);
/// How long running reconciles may take to end at a shutdown.
const GRACE: Duration = Duration::from_secs(10);

impl Operations {
    pub(crate) async fn run(self, shutdown: Shutdown) -> anyhow::Result<()> {
        let at_once = usize::from(self.at_once);
        let ctx = Arc::new(self.into_context());
        Runner {
            queue: Queue::new(at_once),
            running: JoinSet::new(),
            names: HashMap::new(),
            waiting: BTreeSet::new(),
            clusters: BTreeMap::new(),
            look: None,
            ctx,
        }
        .run(shutdown)
        .await
    }

    pub(super) fn into_context(self) -> Context {
        Context {
            client: self.client,
            store: self.store,
            clusters: self.clusters,
            triggers: self.triggers,
            index: self.index,
            endpoints: self.endpoints,
            objects: self.objects,
            events: self.events,
            scope: self.scope,
            deletion_timeout: self.deletion_timeout,
            departures: Departures::default(),
            locks: Locks::default(),
            owed: Default::default(),
        }
    }
}

struct Runner {
    ctx: Arc<Context>,
    queue: Queue<RuntimeKey>,
    running: JoinSet<Outcome>,
    names: HashMap<Id, RuntimeKey>,
    /// Deletions that wait for nodes.
    waiting: BTreeSet<RuntimeKey>,
    /// The Clusters as they were last looked at.
    clusters: BTreeMap<ShootName, Arc<Cluster>>,
    /// When the index is looked at for those who wait.
    look: Option<Instant>,
}

impl Runner {
    async fn run(mut self, shutdown: Shutdown) -> anyhow::Result<()> {
        let mut index = self.ctx.index.changes();
        let mut clusters = self.ctx.clusters.changes();
        clusters.mark_changed();
        loop {
            self.take_asks();
            self.start();
            let interested = !self.waiting.is_empty() || self.ctx.owes_any();
            let next = self.queue.next_due().into_iter().chain(self.look).min();
            // Cancel-safe: what was asked stays raised, a watch's `changed`, a
            // JoinSet's `join_next` and a timer lose nothing when they are dropped.
            tokio::select! {
                () = self.ctx.triggers.raised() => {}
                Some(ended) = self.running.join_next_with_id() => self.ended(ended),
                changed = clusters.changed() => {
                    changed?;
                    self.take_clusters();
                }
                changed = index.changed(), if interested && self.look.is_none() => {
                    changed?;
                    self.look = Some(Instant::now() + GATHER);
                }
                () = tokio::time::sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {}
                () = shutdown.begun() => break,
            }
            if self.look.is_some_and(|look| look <= Instant::now()) {
                self.look = None;
                index.mark_unchanged();
                self.wake();
            }
        }
        let rest = async { while self.running.join_next().await.is_some() {} };
        if tokio::time::timeout(GRACE, rest).await.is_err() {
            // Every write is one request, and the next process goes on.
            tracing::warn!("reconciles are cut off by the shutdown");
        }
        Ok(())
    }

    fn take_asks(&mut self) {
        for (key, ask) in self.ctx.triggers.take() {
            if ask.gone {
                self.queue.forget(&key);
                self.waiting.remove(&key);
                self.ctx.forget(&key);
            }
            if ask.is_turn() {
                self.queue.ask(&key, ask.version);
            } else if !ask.gone {
                self.queue.changed(&key, ask.version);
            }
        }
    }

    fn start(&mut self) {
        while let Some(turn) = self.queue.pop(Instant::now()) {
            self.waiting.remove(&turn.key);
            let key = turn.key.clone();
            let task = self.running.spawn(bounded(Arc::clone(&self.ctx), turn));
            self.names.insert(task.id(), key);
        }
    }

    fn ended(&mut self, ended: Result<(Id, Outcome), JoinError>) {
        let (id, outcome) = match ended {
            Ok(ended) => ended,
            Err(error) => {
                let id = error.id();
                let key = self.names.get(&id);
                tracing::error!(?key, error = %Chain(&error), "a reconcile panicked");
                if let Some(key) = key {
                    self.ctx.triggers.end(key, self.ctx.store.get(key).as_deref());
                }
                (id, Outcome::Failed)
            }
        };
        let Some(key) = self.names.remove(&id) else { return };
        if let Outcome::After(_) = outcome {
            self.waiting.insert(key.clone());
            // What changed while it looked.
            self.look.get_or_insert_with(|| Instant::now() + GATHER);
        }
        let pause = self.queue.done(&key, outcome, Instant::now());
        tracing::debug!(shoot = %key.shoot, name = key.name, ?outcome, ?pause, "reconciled");
    }

    /// Wakes the deletions whose nodes have confirmed, and those whose shoot is back.
    fn wake(&mut self) {
        let now = std::time::Instant::now();
        let ctx = &self.ctx;
        let (done, waiting) = std::mem::take(&mut self.waiting)
            .into_iter()
            .partition(|key| ctx.index.removal_pending(key, now).is_some_and(|n| n.is_empty()));
        self.waiting = waiting;
        let done: BTreeSet<RuntimeKey> = done;
        for key in &done {
            self.queue.wake(key);
        }
        for key in ctx.take_payable() {
            if let Some(object) = ctx.store.get(&key) {
                ctx.triggers.ask(&key, &object);
            }
        }
    }

    /// A shoot that can be worked on again, or whose Cluster is another one
    /// where that is a trigger: its resources are looked at.
    fn take_clusters(&mut self) {
        let now = self.ctx.clusters.all();
        let freely = self.ctx.triggers.freely();
        for (shoot, cluster) in now.iter().filter(|(_, cluster)| !cluster.is_failed()) {
            let before = self.clusters.get(shoot);
            let same = before.is_some_and(|before| {
                Arc::ptr_eq(before, cluster)
                    || !(before.is_failed() || (freely && before.spec != cluster.spec))
            });
            if same {
                continue;
            }
            for (key, object) in self.ctx.store.of_shoot(shoot) {
                if self.ctx.scope.has(&object) {
                    self.ctx.triggers.look(&key, &object);
                }
            }
        }
        // It may be deleted, or asleep: nobody is left to be waited for.
        let changed = |shoot: &ShootName| match (self.clusters.get(shoot), now.get(shoot)) {
            (Some(before), Some(cluster)) => !Arc::ptr_eq(before, cluster),
            (before, cluster) => before.is_some() != cluster.is_some(),
        };
        for key in self.waiting.iter().filter(|key| changed(&key.shoot)) {
            self.queue.wake(key);
        }
        self.clusters = now;
    }
}

async fn bounded(ctx: Arc<Context>, turn: Turn<RuntimeKey>) -> Outcome {
    if let Ok(outcome) = tokio::time::timeout(BOUND, task::reconcile(&ctx, &turn)).await {
        return outcome;
    }
    let key = &turn.key;
    tracing::warn!(shoot = %key.shoot, name = key.name, "a reconcile takes too long");
    ctx.triggers.end(key, ctx.store.get(key).as_deref());
    Outcome::Passing
}
