//! The runner: hears of what makes an object's turn come, or wakes one that waits.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use rootstock_core::name::ShootName;
use rootstock_daemon::Shutdown;
use tokio::time::Instant;

use super::departure::{Departures, Locks};
use super::pool::Pool;
use super::queue::Outcome;
use super::{Context, Operations, rotate, task};
use crate::api::Cluster;
use crate::index::RuntimeKey;

/// Changes of the index are gathered for so long: nodes report several times a
/// second.
const GATHER: Duration = Duration::from_millis(20);

impl Operations {
    pub(crate) async fn run(self, shutdown: Shutdown) -> anyhow::Result<()> {
        let pool = Pool::new(usize::from(self.at_once));
        let ctx = Arc::new(Context {
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
        });
        let (waiting, clusters) = (BTreeSet::new(), BTreeMap::new());
        let kept = rotate::keep(Arc::clone(&ctx), self.authorities, shutdown.clone());
        let runner = Runner { ctx, pool, asked: BTreeMap::new(), waiting, clusters, look: None };
        futures_util::try_join!(runner.run(shutdown), kept)?;
        Ok(())
    }
}

struct Runner {
    ctx: Arc<Context>,
    pool: Pool<RuntimeKey>,
    /// Since when those are asked for whose turn has not come.
    asked: BTreeMap<RuntimeKey, Instant>,
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
            let next = self.pool.queue.next_due().into_iter().chain(self.look).min();
            // Cancel-safe: what was asked stays raised, a watch's `changed`, the
            // pool's `ended` and a timer lose nothing when they are dropped.
            tokio::select! {
                () = self.ctx.triggers.raised() => {}
                (key, outcome) = self.pool.ended() => self.ended(&key, outcome),
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
        self.pool.drain().await;
        Ok(())
    }

    fn take_asks(&mut self) {
        for (key, ask) in self.ctx.triggers.take() {
            if ask.gone {
                self.pool.queue.forget(&key);
                self.waiting.remove(&key);
                self.asked.remove(&key);
                self.ctx.forget(&key);
            }
            if ask.is_turn() {
                // The last time counts: it is what was changed before that must be seen.
                self.asked.insert(key.clone(), Instant::now());
                self.pool.queue.ask(&key, ask.version);
            } else if !ask.gone {
                self.pool.queue.changed(&key, ask.version);
            }
        }
    }

    fn start(&mut self) {
        let Self { ctx, pool, asked, waiting, .. } = self;
        pool.start(|turn| {
            waiting.remove(&turn.key);
            let since = asked.remove(&turn.key).unwrap_or_else(Instant::now);
            let stored = ctx.store.get(&turn.key);
            let object = stored.map(|stored| ctx.triggers.begin(&turn.key, stored));
            let ctx = Arc::clone(ctx);
            async move {
                let Some(object) = object else { return Outcome::Done };
                task::reconcile(&ctx, &turn, &object, since).await
            }
        });
    }

    fn ended(&mut self, key: &RuntimeKey, outcome: Outcome) {
        self.ctx.triggers.end(key, self.ctx.store.get(key).as_ref());
        if let Outcome::After(_) = outcome {
            self.waiting.insert(key.clone());
            // What changed while it looked.
            self.look.get_or_insert_with(|| Instant::now() + GATHER);
        }
        let pause = self.pool.queue.done(key, outcome, Instant::now());
        tracing::debug!(shoot = %key.shoot, name = key.name, ?outcome, ?pause, "reconciled");
    }

    /// Wakes the deletions whose nodes have confirmed, and those whose shoot is back.
    fn wake(&mut self) {
        let now = std::time::Instant::now();
        let Self { ctx, pool, waiting, .. } = self;
        waiting.retain(|key| {
            let done = ctx.index.removal_pending(key, now).is_some_and(|nodes| nodes.is_empty());
            if done {
                pool.queue.wake(key);
            }
            !done
        });
        for key in ctx.take_payable() {
            if let Some(object) = ctx.store.get(&key) {
                ctx.triggers.ask(&key, &object);
            }
        }
    }

    /// The resources of a shoot that can be worked on again are looked at, and
    /// those whose Cluster is another one where that is a trigger.
    fn take_clusters(&mut self) {
        let now = self.ctx.clusters.all();
        for (shoot, cluster) in &now {
            let before = self.clusters.get(shoot);
            if before.is_some_and(|before| Arc::ptr_eq(before, cluster)) {
                continue;
            }
            // It may be deleted, or asleep: nobody is left to be waited for.
            for key in self.waiting.iter().filter(|key| key.shoot == *shoot) {
                self.pool.queue.wake(key);
            }
            if !cluster.is_failed() {
                self.look_at(shoot, before.map(|before| &**before), cluster);
            }
        }
        self.clusters = now;
    }

    fn look_at(&self, shoot: &ShootName, before: Option<&Cluster>, cluster: &Cluster) {
        let triggers = &self.ctx.triggers;
        let back = before.is_none_or(Cluster::is_failed);
        let changed = triggers.freely() && before.is_some_and(|before| before.spec != cluster.spec);
        if !back && !changed {
            return;
        }
        for (key, object) in self.ctx.store.of_shoot(shoot) {
            if !self.ctx.scope.has(&object) {
                continue;
            }
            if changed {
                triggers.ask(&key, &object);
            } else {
                triggers.look_again(&key, &object);
            }
        }
    }
}
