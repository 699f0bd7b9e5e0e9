//! A node's service manager and containerd, simulated at the agent's edge.
//!
//! All of its state is files below the node's root, so that an agent that is
//! killed and started again, and the demo beside it, see the same node:
//!
//! ```text
//!  <root>/etc/containerd/config.toml   what the agent edits, for real
//!  <root>/run/simulated/running.json   what containerd started with, and how often it was started
//!  <root>/run/simulated/sandboxes.json the pods on the node, and the files that each was started with
//!  <root>/run/simulated/faults.json    what goes wrong
//! ```

mod files;
pub mod script;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime};

use rootstock_agent::containerd;
use rootstock_agent::host::{
    Containerd, Facts, Host, HostError, HostFuture, Installation, Proof, Sandbox, UnitState,
};
use rootstock_core::bundle::Need;
use rootstock_core::layout::HandlerTable;
use rootstock_core::name::HandlerName;
use serde::{Deserialize, Serialize};
use tokio::io::AsyncReadExt as _;

/// How long a containerd of an ordinary node takes to start.
const START: Duration = Duration::from_millis(300);

/// A simulated node.
#[derive(Clone, Debug)]
pub struct SimulatedHost {
    root: PathBuf,
    start: Duration,
    /// How often the unit was looked at.
    looks: Arc<AtomicU32>,
}

/// What the running containerd started with.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Running {
    version: String,
    /// Starts since the node was made; the first one is none of the agent's.
    starts: u64,
    up: bool,
    handlers: BTreeMap<HandlerName, Option<HandlerTable>>,
    /// The handlers of every start, in order.
    history: Vec<BTreeSet<HandlerName>>,
}

/// What goes wrong on a node, until it is taken back.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HostFaults {
    /// containerd does not come up.
    pub start_fails: bool,
    /// containerd comes up, but lists none of these handlers.
    pub hidden_handlers: BTreeSet<HandlerName>,
    /// Something that containerd imports overrides the tables of these handlers.
    pub overridden_handlers: BTreeSet<HandlerName>,
    /// containerd lists its handlers and tells no tables.
    pub silent: bool,
    /// containerd does not tell what a sandbox was started with.
    pub secretive: bool,
    /// Bytes that the disk has free; none for the truth.
    pub free_space: Option<u64>,
    /// containerd starts with no table of a handler in this set: only another
    /// configuration helps.
    pub poisoned_handlers: BTreeSet<HandlerName>,
    /// A pod sandbox with one of these handlers does not start.
    pub unproven_handlers: BTreeSet<HandlerName>,
    /// containerd crashes all the time, and systemd starts it again.
    pub crashes: bool,
    /// A dotted key of the effective configuration that any edit changes.
    pub touchy_key: Option<String>,
    /// The node is no place for an agent, for this reason.
    pub unsupported: Option<String>,
    /// What the node lacks, whatever a bundle needs.
    pub lacks: BTreeSet<String>,
    /// containerd's version; none for 2.1.4.
    pub version: Option<String>,
}

/// A pod on a simulated node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SimulatedPod {
    /// `namespace/name`.
    pub pod: String,
    /// Its handler.
    pub handler: HandlerName,
}

/// A pod's sandbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Started {
    #[serde(flatten)]
    pod: SimulatedPod,
    /// The files that it was started with.
    #[serde(default)]
    paths: BTreeSet<String>,
}

/// What `config dump` prints on a simulated node: the file as it is.
fn dump(text: &str, faults: &HostFaults) -> Result<String, String> {
    let tables = containerd::tables(text).map_err(|error| error.to_string())?;
    match &faults.touchy_key {
        Some(key) => Ok(format!("{text}\n[touchy]\n\"{key}\" = {}\n", tables.len())),
        None => Ok(text.to_owned()),
    }
}

impl SimulatedHost {
    /// The node below this root.
    pub fn new(root: &Path) -> Self {
        Self { root: root.to_owned(), start: START, looks: Arc::default() }
    }

    /// The same with a containerd that takes this long to start.
    pub fn with_start(self, start: Duration) -> Self {
        Self { start, ..self }
    }

    /// Makes the files of a new node: the configuration that Gardener writes,
    /// and a containerd that has started with it. An existing node stays.
    pub async fn prepare(root: &Path) -> io::Result<()> {
        // Written last: a preparation that was killed is done again.
        if tokio::fs::try_exists(simulated(root, "running")).await? {
            return Ok(());
        }
        let config = config_path(root);
        tokio::fs::create_dir_all(config.parent().unwrap_or(root)).await?;
        tokio::fs::write(&config, include_str!("config.toml")).await?;
        // The node was made a while ago: nobody writes the file at this moment.
        let long_ago = SystemTime::now() - Duration::from_secs(3600);
        let file = tokio::fs::File::options().append(true).open(&config).await?;
        file.into_std().await.set_modified(long_ago)?;
        let host = Self::new(root);
        host.boot(&HostFaults::default()).await.map(drop)
    }

    /// How often containerd was restarted since the node was made.
    pub async fn restarts(root: &Path) -> io::Result<u64> {
        let running: Running = files::read(&simulated(root, "running")).await?;
        Ok(running.starts.saturating_sub(1))
    }

    /// The handlers of the running containerd.
    pub async fn loaded_handlers(root: &Path) -> io::Result<BTreeSet<HandlerName>> {
        let running: Running = files::read(&simulated(root, "running")).await?;
        Ok(running.handlers.into_keys().collect())
    }

    /// The handlers that containerd had after each of its starts.
    pub async fn history(root: &Path) -> io::Result<Vec<BTreeSet<HandlerName>>> {
        let running: Running = files::read(&simulated(root, "running")).await?;
        Ok(running.history)
    }

    /// Sets the pods on the node. Those that were not there are started by the
    /// running containerd, with what it knows of their handler.
    pub async fn set_pods(root: &Path, pods: &[SimulatedPod]) -> io::Result<()> {
        let path = simulated(root, "sandboxes");
        let before: Vec<Started> = files::read(&path).await?;
        let running: Running = files::read(&simulated(root, "running")).await?;
        let start = |pod: &SimulatedPod| {
            let there = before.iter().find(|started| started.pod == *pod).cloned();
            there.unwrap_or_else(|| {
                let table = running.handlers.get(&pod.handler).cloned().flatten();
                Started { pod: pod.clone(), paths: table.map(paths_of).unwrap_or_default() }
            })
        };
        files::write(&path, &pods.iter().map(start).collect::<Vec<_>>()).await
    }

    /// Sets what goes wrong on the node.
    pub async fn set_faults(root: &Path, faults: &HostFaults) -> io::Result<()> {
        files::write(&simulated(root, "faults"), faults).await
    }

    /// Restarts containerd as someone else would.
    pub async fn restart(root: &Path) -> io::Result<()> {
        let faults = files::read(&simulated(root, "faults")).await?;
        Self::new(root).boot(&faults).await.map(drop)
    }

    /// Starts containerd with the configuration as it is; whether it is up.
    async fn boot(&self, faults: &HostFaults) -> io::Result<bool> {
        let path = simulated(&self.root, "running");
        let before: Running = files::read(&path).await?;
        let starts = before.starts + 1;
        let version = faults.version.clone().unwrap_or_else(|| "2.1.4".to_owned());
        let mut running = Running { version, starts, ..Running::default() };
        let config = text_of(&config_path(&self.root)).await;
        // What containerd can't read, it does not start with.
        if let Ok(text) = config
            && let Ok(tables) = containerd::tables(&text)
            && !faults.start_fails
            && !tables.keys().any(|handler| faults.poisoned_handlers.contains(handler))
        {
            running.up = true;
            running.handlers = tables;
            running.handlers.retain(|handler, _| !faults.hidden_handlers.contains(handler));
            for (handler, table) in &mut running.handlers {
                if faults.overridden_handlers.contains(handler) {
                    *table = Some(HandlerTable::default());
                }
                if faults.silent {
                    *table = None;
                }
            }
        }
        running.history = before.history;
        running.history.push(running.handlers.keys().cloned().collect());
        files::write(&path, &running).await?;
        Ok(running.up)
    }
}

/// The files that containerd starts a sandbox with: without a path it takes
/// the shim in binaryPath, which stands first in its PATH.
fn paths_of(table: HandlerTable) -> BTreeSet<String> {
    let mut paths: BTreeSet<String> = table.paths().map(str::to_owned).collect();
    if table.runtime_path.is_empty() {
        let parts: Vec<&str> = table.runtime_type.rsplitn(3, '.').collect();
        if let [version, name, _] = parts.as_slice() {
            paths.insert(format!("{}/containerd-shim-{name}-{version}", script::BINARY_PATH));
        }
    }
    paths
}

fn config_path(root: &Path) -> PathBuf {
    root.join(containerd::FOLDER.trim_start_matches('/')).join(containerd::FILE)
}

/// The text of a file. A pipe that somebody put in its place keeps nobody waiting.
async fn text_of(path: &Path) -> io::Result<String> {
    let flags = rustix::fs::OFlags::NONBLOCK.bits();
    let flags = i32::try_from(flags).map_err(io::Error::other)?;
    let mut file = tokio::fs::File::options().read(true).custom_flags(flags).open(path).await?;
    let mut text = String::new();
    file.read_to_string(&mut text).await.map(|_| text)
}

fn simulated(root: &Path, name: &str) -> PathBuf {
    root.join("run/simulated").join(format!("{name}.json"))
}

fn unavailable(what: &str) -> impl FnOnce(io::Error) -> HostError {
    let what = what.to_owned();
    move |error| HostError::Unavailable { what, source: Box::new(error) }
}

impl SimulatedHost {
    async fn faults(&self, what: &str) -> Result<HostFaults, HostError> {
        files::read(&simulated(&self.root, "faults")).await.map_err(unavailable(what))
    }
}

impl Host for SimulatedHost {
    fn find(&self) -> HostFuture<'_, Result<Installation, HostError>> {
        Box::pin(async {
            match self.faults("look for containerd").await?.unsupported {
                Some(why) => Err(HostError::Unsupported { why }),
                None => Ok(Installation {
                    unit: "containerd.service".to_owned(),
                    program: "/usr/bin/containerd".to_owned(),
                    socket: "/run/containerd/containerd.sock".to_owned(),
                    config: format!("{}/{}", containerd::FOLDER, containerd::FILE),
                    kill_mode: "process".to_owned(),
                }),
            }
        })
    }

    fn dump<'a>(&'a self, config: &'a str) -> HostFuture<'a, Result<String, HostError>> {
        Box::pin(async move {
            let faults = self.faults("dump the configuration").await?;
            let path = self.root.join(config.trim_start_matches('/'));
            let text = match text_of(&path).await {
                Ok(text) => text,
                Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
                Err(error) => return Err(unavailable("dump the configuration")(error)),
            };
            dump(&text, &faults)
                .map_err(|said| HostError::Config { config: config.to_owned(), said })
        })
    }

    fn unit(&self) -> HostFuture<'_, Result<UnitState, HostError>> {
        Box::pin(async {
            let faults = self.faults("ask systemd").await?;
            let path = simulated(&self.root, "running");
            let running: Running = files::read(&path).await.map_err(unavailable("ask systemd"))?;
            Ok(UnitState {
                start: format!("start-{}", running.starts),
                active: running.up,
                restarts: if faults.crashes {
                    self.looks.fetch_add(1, Ordering::Relaxed)
                } else {
                    0
                },
                result: if running.up { "success" } else { "exit-code" }.to_owned(),
            })
        })
    }

    fn journal(&self) -> HostFuture<'_, Result<Vec<String>, HostError>> {
        Box::pin(async {
            let path = simulated(&self.root, "running");
            let running: Running =
                files::read(&path).await.map_err(unavailable("read the journal"))?;
            let last = if running.up {
                "containerd successfully booted"
            } else {
                "containerd: failed to load plugin io.containerd.grpc.v1.cri: invalid plugin config"
            };
            Ok(vec!["starting containerd".to_owned(), last.to_owned()])
        })
    }

    fn prove<'a>(&'a self, handler: &'a HandlerName) -> HostFuture<'a, Result<Proof, HostError>> {
        Box::pin(async move {
            let faults = self.faults("start a pod sandbox").await?;
            // There is no kernel below it that could run one.
            Ok(if faults.unproven_handlers.contains(handler) {
                Proof::Failed("failed to start shim: exit status 1".to_owned())
            } else {
                Proof::NotPossible("the node is simulated".to_owned())
            })
        })
    }

    fn unmet<'a>(&'a self, need: &'a Need) -> HostFuture<'a, Result<Option<String>, HostError>> {
        Box::pin(async move {
            let faults = self.faults("look at the node").await?;
            let (Need::Device(name) | Need::Module(name)) = need;
            Ok(faults.lacks.contains(name).then(|| format!("the node has no {name}")))
        })
    }

    fn facts(&self) -> HostFuture<'_, Result<Facts, HostError>> {
        Box::pin(async {
            let known = |text: &str| text.to_owned();
            Ok(Facts { kernel: known("6.1.0"), boot: known("boot-1"), cgroups: known("v2") })
        })
    }

    fn containerd(&self) -> HostFuture<'_, Result<Containerd, HostError>> {
        Box::pin(async {
            let path = simulated(&self.root, "running");
            let running: Running =
                files::read(&path).await.map_err(unavailable("ask containerd"))?;
            if !running.up {
                let refused = io::ErrorKind::ConnectionRefused.into();
                return Err(unavailable("ask containerd")(refused));
            }
            let Running { version, starts, handlers, .. } = running;
            Ok(Containerd { version, start: format!("start-{starts}"), handlers })
        })
    }

    fn restart_containerd(&self) -> HostFuture<'_, Result<(), HostError>> {
        Box::pin(async {
            let faults: HostFaults = files::read(&simulated(&self.root, "faults"))
                .await
                .map_err(unavailable("restart containerd"))?;
            tokio::time::sleep(self.start).await;
            let up = self.boot(&faults).await.map_err(unavailable("restart containerd"))?;
            if !up {
                let evidence = "containerd.service: Failed with result 'exit-code'".to_owned();
                return Err(HostError::Restart { evidence });
            }
            Ok(())
        })
    }

    fn sandboxes(&self) -> HostFuture<'_, Result<Vec<Sandbox>, HostError>> {
        Box::pin(async {
            let pods: Vec<Started> = files::read(&simulated(&self.root, "sandboxes"))
                .await
                .map_err(unavailable("list pod sandboxes"))?;
            let sandbox = |Started { pod: SimulatedPod { pod, handler }, .. }| Sandbox {
                id: pod.clone(),
                pod,
                handler: Some(handler),
            };
            Ok(pods.into_iter().map(sandbox).collect())
        })
    }

    fn started_with<'a>(
        &'a self,
        sandbox: &'a Sandbox,
    ) -> HostFuture<'a, Result<Option<BTreeSet<String>>, HostError>> {
        Box::pin(async {
            let failed = || unavailable("ask for a sandbox");
            let faults: HostFaults =
                files::read(&simulated(&self.root, "faults")).await.map_err(failed())?;
            let pods: Vec<Started> =
                files::read(&simulated(&self.root, "sandboxes")).await.map_err(failed())?;
            let started = pods.into_iter().find(|started| started.pod.pod == sandbox.id);
            Ok(started.map(|started| started.paths).filter(|_| !faults.secretive))
        })
    }

    fn free_space<'a>(&'a self, path: &'a Path) -> HostFuture<'a, Result<u64, HostError>> {
        Box::pin(async move {
            let faults: HostFaults = files::read(&simulated(&self.root, "faults"))
                .await
                .map_err(unavailable("read the free space"))?;
            match faults.free_space {
                Some(free) => Ok(free),
                None => rootstock_agent::host::free_space(path).await,
            }
        })
    }
}
