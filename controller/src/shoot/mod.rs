//! What the controller does for each shoot that has a ContainerRuntime.
//!
//! ```text
//!  Clusters ─watch─▶ Shoots ─▶ one Shoot task each:
//!      secrets   what the operations keep: authorities, access
//!      authorities  Secrets ─watch─▶ who signs and who is trusted
//!      access    kubeconfig ─▶ client, with the token of now
//!      follow    list, then watch, for three kinds:
//!      nodes       Nodes ─▶ Index
//!      agents      the agent's Pods ─▶ Index: whose stream ends with its Pod
//!      sandboxes   Events of those that could not be started, and
//!                  Pods that wait for theirs ─▶ Index
//!      labels    Index ─▶ the agent's label on Nodes
//!      sight     what is said where one of these is not seen
//!      trouble   how long to wait, and what is said of it
//!      Endpoints: the shoot by host name, for agents
//! ```
//!
//! A shoot's task shares nothing with another's but the index, whose lock is
//! never held over an await: one that hangs is felt by nobody else.

mod access;
mod agents;
pub(crate) mod authorities;
mod client;
mod endpoints;
mod follow;
mod gather;
mod health;
mod labels;
mod nodes;
mod sandboxes;
pub(crate) mod secrets;
mod serving;
mod sight;
mod takeover;
mod task;
mod tokens;
mod trouble;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client};
use rootstock_core::catalog::Catalog;
use rootstock_core::name::ShootName;
use rootstock_daemon::Shutdown;
use rootstock_daemon::error::Chain;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::api::{Cluster, Lean};
use crate::home::Home;
use crate::index::Index;
use crate::lead::Standing;
use crate::seed::Clusters;

pub(crate) use authorities::Authorities;
pub(crate) use endpoints::Endpoints;
use gather::{Gather, Seen};
pub(crate) use tokens::Tokens;

/// A new shoot's token takes a moment; only what lasts longer is worth a condition.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a shoot's task may take to end.
const RETIRE: Duration = Duration::from_secs(10);
/// Clusters in one answer: one has up to a MiB.
const CLUSTERS: u32 = 20;

/// Runs one task for each shoot that has a ContainerRuntime.
pub(crate) struct Shoots {
    pub(crate) seed: Client,
    pub(crate) standing: Standing,
    pub(crate) index: Arc<Index>,
    pub(crate) clusters: Arc<Clusters>,
    pub(crate) endpoints: Arc<Endpoints>,
    pub(crate) tokens: watch::Receiver<tokens::ByShoot>,
    pub(crate) authorities: watch::Receiver<authorities::ByShoot>,
    pub(crate) catalog: watch::Receiver<Arc<Catalog>>,
    pub(crate) domain: Option<String>,
    pub(crate) home: Home,
}

struct Running {
    cluster: watch::Sender<Arc<Cluster>>,
    /// Ends the task at once.
    stop: CancellationToken,
    /// Ends it when Nodes have lost their marks.
    retire: CancellationToken,
    id: tokio::task::Id,
}

impl Shoots {
    pub(crate) async fn run(self, shutdown: Shutdown) -> anyhow::Result<()> {
        let mut clusters: BTreeMap<ShootName, Arc<Cluster>> = BTreeMap::new();
        let api: Api<Lean> = Api::all(self.seed.clone());
        let watched =
            watcher(api, watcher::Config::default().page_size(CLUSTERS)).default_backoff();
        let mut events = match self.home.cluster() {
            None => watched.boxed(),
            Some(own) => {
                clusters.extend(entry(Lean(own)));
                self.clusters.replace(&clusters);
                // It is all there is, and stays.
                futures_util::stream::pending().boxed()
            }
        };
        let mut new_shoots = self.index.new_shoots();
        let mut gather = Gather::default();
        let mut running: BTreeMap<ShootName, Running> = BTreeMap::new();
        let mut tasks = JoinSet::new();
        // A shoot may be known already.
        new_shoots.mark_changed();
        loop {
            // Cancel-safe: a stream's `next`, a watch's `changed`, a JoinSet's
            // `join_next` and a token lose nothing when they are dropped.
            tokio::select! {
                event = events.next() => match event {
                    Some(Ok(event)) => {
                        match gather.take(event, entry) {
                            Some(Seen::All(all)) => clusters = all.into_iter().collect(),
                            Some(Seen::Put((name, cluster))) => {
                                clusters.insert(name, cluster);
                            }
                            Some(Seen::Gone((name, _))) => {
                                clusters.remove(&name);
                            }
                            None => continue,
                        }
                        self.clusters.replace(&clusters);
                    }
                    Some(Err(error)) => tracing::warn!(error = %Chain(&error), "watching Clusters"),
                    None => anyhow::bail!("the watch of Clusters ended"),
                },
                new = new_shoots.changed() => new?,
                Some(ended) = tasks.join_next_with_id() => {
                    // A task ends when its shoot does; a panic ends the controller.
                    let (id, name) = ended?;
                    if running.get(&name).is_some_and(|task| task.id == id) {
                        running.remove(&name);
                        self.index.remove_shoot(&name);
                    }
                    if !running.contains_key(&name) {
                        // It may have let agents in while it was told to end.
                        self.endpoints.remove(&name);
                    }
                }
                () = shutdown.begun() => break,
            }
            running.retain(|name, task| {
                if !self.index.has_runtimes(name) {
                    // With the last ContainerRuntime the agent goes, and the
                    // role by which Nodes are seen. What comes after begins anew.
                    task.retire.cancel();
                }
                let stays = clusters.contains_key(name);
                if stays && self.index.is_suspended(name) {
                    // It leaves this seed, or waits to be restored.
                    task.stop.cancel();
                    self.endpoints.remove(name);
                    return false;
                }
                if !stays {
                    task.stop.cancel();
                    // Nobody enrols with an authority whose shoot is gone.
                    self.endpoints.forget(name);
                    self.index.remove_shoot(name);
                }
                stays
            });
            for (name, cluster) in &clusters {
                if let Some(task) = running.get(name) {
                    task.cluster.send_if_modified(|current| {
                        let changed = !Arc::ptr_eq(current, cluster);
                        current.clone_from(cluster);
                        changed
                    });
                } else if self.index.has_runtimes(name) && !self.index.is_suspended(name) {
                    let task = self.start(name, cluster, &mut tasks, &shutdown);
                    running.insert(name.clone(), task);
                }
            }
        }
        while tasks.join_next().await.is_some() {}
        Ok(())
    }

    fn start(
        &self,
        name: &ShootName,
        cluster: &Arc<Cluster>,
        tasks: &mut JoinSet<ShootName>,
        shutdown: &Shutdown,
    ) -> Running {
        let (sender, receiver) = watch::channel(Arc::clone(cluster));
        let stop = shutdown.token().child_token();
        let task = task::Shoot {
            name: name.clone(),
            seed: self.seed.clone(),
            standing: self.standing.clone(),
            index: Arc::clone(&self.index),
            endpoints: Arc::clone(&self.endpoints),
            cluster: receiver,
            tokens: self.tokens.clone(),
            authorities: self.authorities.clone(),
            catalog: self.catalog.clone(),
            domain: self.domain.clone(),
            own_api: matches!(self.home, Home::Plain { .. }).then(|| self.seed.clone()),
        };
        let retire = CancellationToken::new();
        let retired = retired(retire.clone(), name.clone(), Arc::clone(&self.index));
        let (stopped, name) = (stop.clone(), name.clone());
        let handle = tasks.spawn(async move {
            // Cancel-safe: a shoot's task keeps nothing that must be finished;
            // its writes are single requests.
            tokio::select! {
                () = task.run() => {}
                () = stopped.cancelled() => {}
                () = retired => {}
            }
            name
        });
        Running { cluster: sender, stop, retire, id: handle.id() }
    }
}

/// Waits until a shoot is given up and no Node has a mark to lose, or for as
/// long as that may take.
async fn retired(retire: CancellationToken, shoot: ShootName, index: Arc<Index>) {
    retire.cancelled().await;
    let mut changes = index.changes();
    let marked = async {
        loop {
            changes.borrow_and_update();
            if index.label_changes(&shoot).is_empty() || changes.changed().await.is_err() {
                break;
            }
            // Nodes lose their marks one by one: each is a change.
            tokio::time::sleep(labels::GATHER).await;
        }
    };
    if tokio::time::timeout(RETIRE, marked).await.is_err() {
        tracing::info!(%shoot, "some Nodes keep the mark of the agent");
    }
}

fn entry(Lean(cluster): Lean) -> Option<(ShootName, Arc<Cluster>)> {
    let name = cluster.metadata.name.as_deref()?.parse().ok()?;
    Some((name, Arc::new(cluster)))
}
