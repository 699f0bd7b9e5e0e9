//! One running shoot: its API, its nodes' roots and the actors that serve it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::daemonset::DaemonSets;
use super::gardenlet::Gardenlet;
use super::kubelet::{Kubelet, Machine};
use super::landscape::{Node, Pool, Shoot};
use super::objects::Access;
use super::processes::Processes;
use super::resource_manager::ResourceManager;
use super::snapshot;
use super::status::StatusPage;
use super::token_requestor::TokenRequestor;
use super::worker::Worker;
use super::world::{Options, agent_name};
use crate::host::SimulatedHost;
use crate::kube::Cluster;

/// The version that a shoot's nodes and Cluster name.
const KUBERNETES_VERSION: &str = "1.33.5";

/// One running shoot.
#[derive(Debug)]
pub struct RunningShoot {
    /// What its owner asked for.
    pub shoot: Arc<Shoot>,
    /// Its API.
    pub cluster: Cluster,
    dir: PathBuf,
}

impl RunningShoot {
    pub(super) fn new(dir: &Path, shoot: Arc<Shoot>, cluster: Cluster) -> Self {
        Self { shoot, cluster, dir: dir.to_owned() }
    }

    /// Its technical id.
    pub fn name(&self) -> &str {
        &self.shoot.technical_id
    }

    /// Its API.
    pub fn access(&self) -> Access {
        Access::new(self.cluster.client())
    }

    /// The root of one of its nodes.
    pub fn root(&self, node: &str) -> PathBuf {
        self.dir.join("nodes").join(self.name()).join(node)
    }

    /// gardenlet for this shoot.
    pub fn gardenlet(&self, seed: &Access) -> Gardenlet {
        Gardenlet {
            seed: seed.clone(),
            shoot: Arc::clone(&self.shoot),
            server: self.cluster.url().to_owned(),
            certificate_authority: super::encode(self.cluster.ca_pem().as_bytes()),
            kubernetes_version: KUBERNETES_VERSION.to_owned(),
        }
    }

    /// The Worker for this shoot.
    pub fn worker(&self) -> Worker {
        Worker {
            client: self.access(),
            shoot: Arc::clone(&self.shoot),
            kubernetes_version: KUBERNETES_VERSION.to_owned(),
        }
    }

    /// Boots its machines: each gets a root as an image would have it, unless it has one.
    pub(super) async fn boot(&self) -> io::Result<()> {
        for (_, node) in self.shoot.nodes() {
            SimulatedHost::prepare(&self.root(&node.name)).await?;
        }
        Ok(())
    }

    /// What Gardener does once when a shoot is created.
    pub(super) async fn reconcile(&self, seed: &Access) -> kube::Result<()> {
        self.gardenlet(seed).reconcile().await?;
        self.worker().reconcile().await
    }

    /// Starts the actors that run on.
    pub(super) fn play(
        &self,
        seed: &Access,
        options: &Options,
        processes: &Processes,
        actors: &mut JoinSet<()>,
        shutdown: &CancellationToken,
    ) {
        let tokens = TokenRequestor::new(seed.clone(), self.access(), self.name());
        let manager = ResourceManager::new(seed.clone(), self.name(), self.access());
        actors.spawn(tokens.run(shutdown.clone()));
        actors.spawn(manager.run(shutdown.clone()));
        actors.spawn(DaemonSets::new(self.access()).run(shutdown.clone()));
        for (_, node) in self.shoot.nodes() {
            let machine = self.machine(node, options);
            let kubelet = Kubelet::new(self.access(), machine, processes.clone());
            actors.spawn(kubelet.run(shutdown.clone()));
        }
    }

    fn machine(&self, node: &Node, options: &Options) -> Machine {
        let root = self.root(&node.name);
        let mut agent_flags = options.agent_flags.clone();
        for (flag, value) in [
            ("--admin-listen", "127.0.0.1:0".to_owned()),
            ("--log-level", options.log_level.clone()),
        ] {
            agent_flags.extend([flag.to_owned(), value]);
        }
        Machine {
            node: node.name.clone(),
            root,
            volumes: self.dir.join("volumes").join(self.name()).join(&node.name),
            process: agent_name(self.name(), &node.name),
            agent_flags,
        }
    }

    pub(super) async fn snapshot(
        &self,
        pool: &Pool,
        node: &Node,
        page: &StatusPage,
    ) -> snapshot::Node {
        let root = self.root(&node.name);
        let (shoot, name) = (self.name().to_owned(), node.name.clone());
        let (binary_path, page) = (pool.binary_path.clone(), page.clone());
        let mut seen = snapshot::Node {
            shoot: shoot.clone(),
            name: name.clone(),
            pool: pool.name.clone(),
            root: root.clone(),
            ..snapshot::Node::default()
        };
        let read = tokio::task::spawn_blocking(move || {
            snapshot::node_runtimes(&root, &binary_path, &page, &shoot, &name)
        });
        match read.await {
            Ok(runtimes) => seen.runtimes = runtimes,
            Err(error) => tracing::warn!(%error, node = node.name, "could not be read"),
        }
        match SimulatedHost::restarts(&seen.root).await {
            Ok(restarts) => seen.containerd_restarts = restarts,
            Err(error) => tracing::warn!(%error, node = node.name, "has no containerd"),
        }
        seen
    }
}
