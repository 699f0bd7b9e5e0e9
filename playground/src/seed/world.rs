//! A whole world: APIs, registry, controller, actors and the nodes' roots.
//!
//! ```text
//!  <dir>/kubeconfigs/   one for the seed and one for each shoot
//!  <dir>/registry/      the registry's blobs
//!  <dir>/nodes/<shoot>/<node>/      the node's root
//!  <dir>/volumes/<shoot>/<node>/    what its kubelet projects: token, CA, endpoint
//!  <dir>/logs/          one file for each program
//!  <dir>/catalog.yaml   the controller's configuration
//! ```

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::catalog::{self, Offer};
use super::landscape::{Node, Pool, Shoot};
use super::objects::Access;
use super::processes::{Process, Processes, Usage};
use super::setup::{controller_arguments, free_ports, start_clusters};
use super::shoot::RunningShoot;
use super::snapshot::{self, ContainerRuntime, Document, Figures};
use super::status::{self, StatusPage};
use crate::kube::{Cluster, RealError, StartError};
use crate::registry::Registry;

/// The name of the controller among the programs.
pub const CONTROLLER: &str = "controller";
/// How often a condition is looked at while something waits for it.
const LOOK: Duration = Duration::from_millis(50);

/// Which Kubernetes API serves the seed and the shoots.
#[derive(Clone, Debug)]
pub enum ApiKind {
    /// The embedded one.
    Embedded,
    /// Real servers, from the folder that has `kube-apiserver` and `etcd`.
    Real(PathBuf),
}

/// What a world is made of.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where its state goes. The nodes' roots are taken over if they are there.
    pub dir: PathBuf,
    /// This program: it is started again as the controller and the agents.
    pub program: PathBuf,
    /// The Kubernetes API.
    pub api: ApiKind,
    /// The shoots.
    pub shoots: Vec<Shoot>,
    /// The bundles that are pushed and stand in the catalog.
    pub offers: Vec<Offer>,
    /// How much the programs log.
    pub log_level: String,
    /// Flags for every agent beside those that it gets anyway.
    pub agent_flags: Vec<String>,
}

/// What is known of a world at one moment.
#[derive(Clone, Debug, Default)]
pub struct Look {
    /// What the controller knows; nothing while it does not answer.
    pub page: StatusPage,
    /// All ContainerRuntimes of the seed.
    pub container_runtimes: Vec<ContainerRuntime>,
}

/// Why a world does not start.
#[derive(Debug, thiserror::Error)]
pub enum WorldError {
    /// Its folder, or a port.
    #[error("prepare {what}")]
    Prepare {
        /// What could not be prepared.
        what: String,
        /// Why.
        source: io::Error,
    },
    /// A Kubernetes API.
    #[error("start a Kubernetes API")]
    Api(#[from] StartError),
    /// etcd.
    #[error("start etcd")]
    Etcd(#[from] RealError),
    /// A bundle or the catalog.
    #[error("offer the bundles")]
    Catalog(#[from] catalog::CatalogError),
    /// The seed's CRDs.
    #[error("write the definitions of Gardener's resources")]
    Definitions(#[from] serde_json::Error),
    /// gardenlet or the Worker.
    #[error("create what Gardener creates for {shoot}")]
    Gardener {
        /// The shoot.
        shoot: String,
        /// Why.
        source: Box<kube::Error>,
    },
}

/// Something was not so in time.
#[derive(Debug, thiserror::Error)]
#[error("{what}: not so after {after:?}; last seen: {seen}")]
pub struct NotInTime {
    what: String,
    after: Duration,
    seen: String,
}

/// A running world. Everything in it ends with it.
#[derive(Debug)]
pub struct World {
    dir: PathBuf,
    started: Instant,
    seed: Cluster,
    shoots: BTreeMap<String, RunningShoot>,
    registry: Registry,
    processes: Processes,
    controller: Process,
    admin: SocketAddr,
    shutdown: CancellationToken,
    actors: JoinSet<()>,
}

impl World {
    /// Starts everything; nothing is waited for but that it answers.
    ///
    /// # Errors
    /// See [`WorldError`].
    pub async fn start(options: Options) -> Result<Self, WorldError> {
        let started = Instant::now();
        let dir = options.dir.clone();
        for folder in ["kubeconfigs", "logs", "nodes", "volumes", "registry"] {
            let path = dir.join(folder);
            tokio::fs::create_dir_all(&path).await.map_err(|source| prepare(&path, source))?;
        }
        let registry_dir = dir.join("registry");
        let registry = Registry::start(&registry_dir)
            .await
            .map_err(|source| prepare(&registry_dir, source))?;
        let catalog = dir.join("catalog.yaml");
        // The APIs come up while the bundles are pushed.
        let (clusters, ()) = tokio::try_join!(async { start_clusters(&options).await }, async {
            Ok(catalog::offer(&registry, &options.offers, &catalog::at_once(), &catalog).await?)
        },)?;
        let (seed, shoots) = clusters;

        let [listen, admin] = free_ports().map_err(|source| prepare("a free port", source))?;
        let processes = Processes::new(options.program.clone(), dir.join("logs"));
        let arguments = controller_arguments(&catalog, &seed, listen, admin, &options);
        let controller = processes
            .start(CONTROLLER, arguments)
            .map_err(|source| prepare("the controller", source))?;

        let mut world = Self {
            dir,
            started,
            seed,
            shoots: BTreeMap::new(),
            registry,
            processes,
            controller,
            admin,
            shutdown: CancellationToken::new(),
            actors: JoinSet::new(),
        };
        for (shoot, cluster) in shoots {
            world.play(shoot, cluster, &options).await?;
        }
        Ok(world)
    }

    /// Plays Gardener for one shoot.
    async fn play(
        &mut self,
        shoot: Arc<Shoot>,
        cluster: Cluster,
        options: &Options,
    ) -> Result<(), WorldError> {
        let running = RunningShoot::new(&self.dir, shoot, cluster);
        let name = running.name().to_owned();
        let failed =
            |source| WorldError::Gardener { shoot: name.clone(), source: Box::new(source) };
        let root = running.root("");
        running.boot().await.map_err(|source| prepare(&root, source))?;
        running.reconcile(&self.seed()).await.map_err(failed)?;
        running.play(&self.seed(), options, &self.processes, &mut self.actors, &self.shutdown);
        self.shoots.insert(name, running);
        Ok(())
    }

    /// The seed's API.
    pub fn seed(&self) -> Access {
        Access::new(self.seed.client())
    }

    /// The API of a shoot.
    ///
    /// # Panics
    /// There is no such shoot.
    #[expect(clippy::expect_used, reason = "the shoots of a world are known to whoever made it")]
    pub fn shoot(&self, name: &str) -> &RunningShoot {
        self.shoots.get(name).expect("a shoot of this world")
    }

    /// All shoots.
    pub fn shoots(&self) -> impl Iterator<Item = &RunningShoot> {
        self.shoots.values()
    }

    /// All nodes with their shoots and pools.
    pub fn nodes(&self) -> impl Iterator<Item = (&RunningShoot, &Pool, &Node)> {
        self.shoots()
            .flat_map(|shoot| shoot.shoot.nodes().map(move |(pool, node)| (shoot, pool, node)))
    }

    /// The registry, with its faults.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// The controller's program.
    pub fn controller(&self) -> &Process {
        &self.controller
    }

    /// The program of the agent of one node, once its kubelet has started it.
    pub fn agent(&self, shoot: &str, node: &str) -> Option<Process> {
        self.processes.get(&agent_name(shoot, node))
    }

    /// The folder with everything in it.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The kubeconfigs, by `seed` or the shoot's name.
    pub fn kubeconfigs(&self) -> BTreeMap<String, PathBuf> {
        let shoots = self.shoots.values().map(|shoot| &shoot.cluster);
        [&self.seed]
            .into_iter()
            .chain(shoots)
            .map(|cluster| (cluster.name().to_owned(), cluster.kubeconfig_path().to_owned()))
            .collect()
    }

    /// How long the world has been there.
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// The controller's status page; an empty one while it does not answer.
    pub async fn page(&self) -> StatusPage {
        status::read(self.admin).await.unwrap_or_else(|error| {
            tracing::debug!(%error, "no status page");
            StatusPage::default()
        })
    }

    /// All ContainerRuntimes of the seed.
    ///
    /// # Errors
    /// What the seed's API says.
    pub async fn container_runtimes(&self) -> kube::Result<Vec<ContainerRuntime>> {
        let all =
            self.seed().container_runtimes(None).list(&kube::api::ListParams::default()).await?;
        Ok(all.items.iter().map(ContainerRuntime::read).collect())
    }

    /// Everything, as one document.
    ///
    /// # Errors
    /// What the seed's API says.
    pub async fn snapshot(&self) -> kube::Result<Document> {
        let look = self.look().await?;
        Ok(self.document(look).await)
    }

    /// What the API and the controller say at this moment.
    ///
    /// # Errors
    /// What the seed's API says.
    pub async fn look(&self) -> kube::Result<Look> {
        let page = self.page().await;
        Ok(Look { page, container_runtimes: self.container_runtimes().await? })
    }

    /// A look as one document, with what is on the nodes.
    pub async fn document(&self, look: Look) -> Document {
        let Look { page, container_runtimes } = look;
        let mut nodes = Vec::new();
        for (shoot, pool, node) in self.nodes() {
            nodes.push(shoot.snapshot(pool, node, &page).await);
        }
        let usage = self.processes.usage();
        let agents = usage.iter().filter(|(name, _)| name.as_str() != CONTROLLER);
        let agent = agents.map(|(_, usage)| *usage).reduce(Usage::larger).unwrap_or_default();
        Document {
            kubeconfigs: self.kubeconfigs(),
            registry: self.registry.url(),
            elapsed_seconds: self.elapsed().as_secs_f64(),
            container_runtimes,
            nodes,
            figures: Figures {
                bytes_pulled: page.bytes_pulled(),
                bytes_per_second: 0.0,
                controller: usage.get(CONTROLLER).copied().unwrap_or_default(),
                agent,
            },
        }
    }

    /// What is not as it should be at the end: what, and why. Nothing if all is well.
    ///
    /// # Errors
    /// What the seed's API says.
    pub async fn missing(&self, page: &StatusPage) -> kube::Result<Vec<(String, String)>> {
        let container_runtimes = self.container_runtimes().await?;
        Ok(self.missing_in(page, &container_runtimes))
    }

    /// The same of what was looked at before.
    pub fn missing_in(
        &self,
        page: &StatusPage,
        container_runtimes: &[ContainerRuntime],
    ) -> Vec<(String, String)> {
        let mut missing = Vec::new();
        for resource in container_runtimes.iter().filter(|resource| !resource.is_healthy()) {
            let what = format!("ContainerRuntime {}/{}", resource.namespace, resource.name);
            missing.push((what, snapshot::why_unhealthy(resource)));
        }
        for (shoot, pool, node) in self.nodes() {
            for runtime in pool.runtimes_for(node) {
                if let Some(why) = snapshot::why_not_ready(page, shoot.name(), &node.name, runtime)
                {
                    missing.push((format!("{runtime} on {}/{}", shoot.name(), node.name), why));
                }
            }
        }
        missing
    }

    /// Waits until `look` gives a value. What it gives instead shows what was last seen.
    ///
    /// # Errors
    /// It was not so after `limit`.
    pub async fn wait_until<T, S: std::fmt::Debug>(
        &self,
        what: &str,
        limit: Duration,
        mut look: impl AsyncFnMut(&Self) -> Result<T, S>,
    ) -> Result<T, NotInTime> {
        let end = Instant::now() + limit;
        loop {
            let seen = match look(self).await {
                Ok(value) => return Ok(value),
                Err(seen) => seen,
            };
            if Instant::now() >= end {
                let seen = format!("{seen:#?}");
                return Err(NotInTime { what: what.to_owned(), after: limit, seen });
            }
            // What is looked at are answers of other programs: there is nothing to be woken by.
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Ends everything, politely first.
    pub async fn stop(mut self) {
        self.shutdown.cancel();
        while self.actors.join_next().await.is_some() {}
        self.processes.stop_all().await;
        for shoot in std::mem::take(&mut self.shoots).into_values() {
            shoot.cluster.stop().await;
        }
        self.seed.stop().await;
    }
}

/// The name of an agent among the programs.
pub(super) fn agent_name(shoot: &str, node: &str) -> String {
    format!("agent-{shoot}-{node}")
}

fn prepare(what: impl AsRef<Path>, source: io::Error) -> WorldError {
    WorldError::Prepare { what: what.as_ref().display().to_string(), source }
}
