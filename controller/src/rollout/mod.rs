//! Carries out what `core::rollout` decides, one shoot at a time.
//!
//! ```text
//!  Index, Store, Clusters, catalog ─ changed ─▶ due, paced by shoot
//!                                                │
//!     survey (Index) + recorded states ─▶ core::rollout::step
//!                                                │
//!     1. every state that changed is written, over what was read ── refused: nothing of
//!     2. the nodes are directed (Index ─▶ Desired, Slot)             the step is used
//!     3. a command that was carried out is taken off its resource
//! ```
//!
//! Nothing is remembered but what the API has: [`recorded`] keeps the newest
//! version of each resource, be it from the watch or from our own write. A
//! controller that dies after 1 leaves slots that are recorded and not given;
//! the next one finds them and gives them to the same nodes.
//!
//! * `look`: one look at one shoot; `write`: what follows is written
//! * `due`: which shoot is looked at when
//! * `seed`: which bundles are open to which shoots

mod due;
mod look;
mod recorded;
mod seed;
mod write;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use kube::Client;
use rootstock_core::catalog::Catalog;
use rootstock_daemon::Shutdown;
use rootstock_daemon::error::Chain;
use tokio::sync::watch;
use tokio::time::Instant;

use self::due::Due;
use self::recorded::Recorded;
pub(crate) use self::seed::Rings;
use crate::api::PATIENCE;
use crate::bandwidth::Bandwidth;
use crate::events::Events;
use crate::home::Home;
use crate::index::Index;
use crate::seed::{Clusters, Store};

/// How many shoots are looked at at once; most of a look is waiting for writes.
const AT_ONCE: usize = 8;
/// Changes are gathered for so long before they are compared: ten thousand
/// nodes that come speak as often.
const GATHER: Duration = Duration::from_millis(20);
/// The pause before the first list of a term is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// The rollouts of all shoots, in one term.
pub(crate) struct Rollouts {
    pub(crate) client: Client,
    pub(crate) home: Home,
    pub(crate) index: Arc<Index>,
    pub(crate) store: Arc<Store>,
    pub(crate) clusters: Arc<Clusters>,
    pub(crate) catalog: watch::Receiver<Arc<Catalog>>,
    pub(crate) events: Events,
    pub(crate) bandwidth: Arc<Bandwidth>,
    /// None where there is one shoot, as in a plain cluster: it tries each bundle.
    pub(crate) rings: Option<Rings>,
}

impl Rollouts {
    pub(crate) async fn run(self, shutdown: Shutdown) -> anyhow::Result<()> {
        // What the leader before wrote last may not have come by the watch yet.
        // Cancel-safe: nothing was decided.
        let recorded = tokio::select! {
            recorded = self.read() => recorded,
            () = shutdown.begun() => return Ok(()),
        };
        let recorded = Recorded::new(Arc::clone(&self.store), recorded);
        let mut index = self.index.changes();
        let mut store = self.store.versions();
        let mut clusters = self.clusters.changes();
        let mut catalog = self.catalog.clone();
        let mut seed = self.rings.as_ref().map(Rings::changes);
        let mut due = Due::default();
        let mut looks = FuturesUnordered::new();
        // Since when something may have changed that was not compared yet.
        let mut compared = Instant::now();
        let mut changes = true;
        loop {
            let now = Instant::now();
            if changes && now >= compared {
                due.see(self.fingerprints(&recorded), now);
                (compared, changes) = (now + GATHER, false);
            }
            while looks.len() < AT_ONCE
                && let Some(shoot) = due.take(Instant::now())
            {
                looks.push(async {
                    let outcome = self.look(&shoot, &recorded).await;
                    (shoot, outcome)
                });
            }
            let next =
                due.next(Instant::now()).into_iter().chain(changes.then_some(compared)).min();
            // Cancel-safe: each arm only waits, and what changed is seen by the
            // next comparison. A shutdown breaks off writes of one request
            // each: what they would have led to was not begun.
            tokio::select! {
                Some((shoot, outcome)) = looks.next() => due.note(&shoot, outcome, Instant::now()),
                changed = index.changed(), if !changes => { changed?; changes = true; }
                changed = store.changed(), if !changes => { changed?; changes = true; }
                changed = clusters.changed() => { changed?; due.all(); }
                changed = catalog.changed() => { changed?; due.all(); }
                () = seed::changed(&mut seed) => due.all(),
                () = tokio::time::sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {}
                () = shutdown.begun() => return Ok(()),
            }
        }
    }

    /// Every ContainerRuntime, as the API has it at this moment.
    async fn read(&self) -> recorded::Objects {
        loop {
            match tokio::time::timeout(PATIENCE, recorded::list(&self.home.resources(&self.client)))
                .await
            {
                Ok(Ok(objects)) => return objects,
                Ok(Err(error)) => {
                    tracing::warn!(error = %Chain(&error), "ContainerRuntimes can't be listed");
                }
                Err(late) => {
                    tracing::warn!(error = %Chain(&late), "ContainerRuntimes can't be listed")
                }
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    /// A number for each shoot that is another one when there is something to look at.
    fn fingerprints(&self, recorded: &Recorded) -> due::Fingerprints {
        let shoots = self.index.shoots().into_iter();
        shoots
            .map(|(shoot, change)| {
                let of = recorded.fingerprint(&shoot, change);
                (shoot, of)
            })
            .collect()
    }
}
