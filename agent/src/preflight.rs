//! `rootstock-agent preflight`: what is on the node and whether Rootstock can
//! work there. Nothing is changed: no folder is made, no lock is taken, so it
//! also runs beside the agent.

mod text;

use std::collections::BTreeMap;

use rootstock_core::name::{Architecture, HandlerName, RuntimeType};
use rootstock_core::preflight::{Node, check};
use rootstock_core::status::Reason;
use serde::Serialize;

use crate::args::{NodeArgs, Output};
use crate::containerd;
use crate::host::{Host, Installation};
use crate::reconcile::Files;
use crate::rootfs::{FsError, Rootfs};
use crate::store::{Held, Record};

/// What is on a node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Survey {
    /// This program's version.
    pub agent: String,
    /// The architecture; none where Rootstock has no name for it.
    pub architecture: Option<Architecture>,
    /// The kernel's release.
    pub kernel: Option<String>,
    /// Which boot this is.
    pub boot: Option<String>,
    /// How control groups are mounted.
    pub cgroups: Option<String>,
    /// containerd, as far as it was found.
    pub containerd: Runtime,
    /// The handlers of the running containerd.
    pub handlers: BTreeMap<HandlerName, Handler>,
    /// The bytes that are free below each binary root.
    pub free_space: BTreeMap<String, u64>,
    /// What the controller wants on this node, from the ledger.
    pub bundles: Vec<Bundle>,
    /// What is in the way of every runtime.
    pub obstacles: Vec<String>,
}

/// containerd on a node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Runtime {
    /// The version of the running one.
    pub version: Option<String>,
    /// How it is set up; none where it is not for Rootstock.
    pub setup: Option<Setup>,
    /// The version of its configuration's form; none where there is no file.
    pub config_version: Option<i64>,
}

/// How containerd is set up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "the fields are those of `Installation`")]
pub struct Setup {
    pub unit: String,
    pub program: String,
    pub socket: String,
    pub config: String,
    pub kill_mode: String,
}

/// A handler of the running containerd.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Handler {
    /// The runtime type that it is part of; none for one that is not Rootstock's.
    pub runtime: Option<RuntimeType>,
    /// containerd's type of it, where containerd tells.
    pub runtime_type: Option<String>,
}

/// A bundle that the controller wants on the node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Bundle {
    /// The runtime type.
    pub runtime: RuntimeType,
    /// Its version.
    pub version: String,
    /// Why it is not supported; none where it is.
    pub reason: Option<Reason>,
    /// What exactly.
    pub message: String,
}

impl Survey {
    /// Whether everything is supported.
    pub fn supported(&self) -> bool {
        self.obstacles.is_empty() && self.bundles.iter().all(|bundle| bundle.reason.is_none())
    }

    /// For a terminal or for a script.
    pub fn print(&self, output: Output) -> serde_json::Result<String> {
        match output {
            Output::Text => Ok(text::render(self)),
            Output::Json => Ok(serde_json::to_string_pretty(self)? + "\n"),
        }
    }
}

impl From<Installation> for Setup {
    fn from(found: Installation) -> Self {
        let Installation { unit, program, socket, config, kill_mode } = found;
        Self { unit, program, socket, config, kill_mode }
    }
}

/// Looks at a node. What can't be told is an obstacle in the survey.
pub async fn survey(args: &NodeArgs, host: &dyn Host) -> Survey {
    let mut survey = Survey {
        agent: env!("CARGO_PKG_VERSION").to_owned(),
        architecture: Architecture::of_this_machine(),
        ..Survey::default()
    };
    if survey.architecture.is_none() {
        let is = std::env::consts::ARCH;
        survey.obstacles.push(format!("there are no bundles for the architecture {is}"));
    }
    let (root, state) = (args.host_root.clone(), args.state_dir.to_string());
    let roots = args.roots();
    let read = move || Ok::<_, FsError>(on_disk(&Rootfs::open(&root, roots)?, &state));
    let disk = match tokio::task::spawn_blocking(read).await {
        Ok(Ok(disk)) => disk,
        Ok(Err(error)) => Disk { obstacles: vec![chain(&error)], ..Disk::default() },
        Err(error) => Disk { obstacles: vec![chain(&error)], ..Disk::default() },
    };
    survey.obstacles.extend(disk.obstacles);
    survey.containerd.config_version = disk.config_version;
    ask(&mut survey, host, &disk.record).await;
    for root in &args.binary_roots {
        match host.free_space(&args.host_root.join(root.below_root())).await {
            Ok(free) => drop(survey.free_space.insert(root.to_string(), free)),
            Err(error) => survey.obstacles.push(chain(&error)),
        }
    }
    for bundle in disk.held.iter().flat_map(|held| &held.desired.content.bundles) {
        let bundle = judge(&mut survey, host, bundle.config.config()).await;
        survey.bundles.push(bundle);
    }
    survey
}

/// Fills in what the node's kernel and containerd say.
async fn ask(survey: &mut Survey, host: &dyn Host, record: &Record) {
    match host.facts().await {
        Ok(facts) => {
            survey.kernel = Some(facts.kernel);
            survey.boot = Some(facts.boot);
            survey.cgroups = Some(facts.cgroups);
        }
        Err(error) => survey.obstacles.push(chain(&error)),
    }
    match host.find().await {
        Ok(found) => survey.containerd.setup = Some(found.into()),
        Err(error) => survey.obstacles.push(chain(&error)),
    }
    match host.containerd().await {
        Ok(running) => {
            survey.containerd.version = Some(running.version);
            let handler = |(name, table): (HandlerName, Option<_>)| {
                let runtime = record.owned.get(&name).cloned();
                let runtime_type =
                    table.map(|table: rootstock_core::layout::HandlerTable| table.runtime_type);
                (name, Handler { runtime, runtime_type })
            };
            survey.handlers = running.handlers.into_iter().map(handler).collect();
        }
        Err(error) => {
            let error = chain(&error);
            // Without a bus both questions end in the same words.
            if !survey.obstacles.contains(&error) {
                survey.obstacles.push(error);
            }
        }
    }
}

async fn judge(
    survey: &mut Survey,
    host: &dyn Host,
    config: &rootstock_core::bundle::BundleConfig,
) -> Bundle {
    let mut node = Node {
        architecture: survey.architecture,
        containerd: survey.containerd.version.clone(),
        unmet: Vec::new(),
    };
    for need in &config.needs {
        match host.unmet(need).await {
            Ok(unmet) => node.unmet.extend(unmet),
            Err(error) => survey.obstacles.push(chain(&error)),
        }
    }
    let unmet = check(config, &node);
    let (reason, message) = unmet.map(|unmet| (unmet.reason, unmet.message)).unzip();
    Bundle {
        runtime: config.runtime.clone(),
        version: config.version.clone(),
        reason,
        message: message.unwrap_or_default(),
    }
}

/// What the node's files say.
#[derive(Default)]
struct Disk {
    config_version: Option<i64>,
    record: Record,
    held: Option<Held>,
    obstacles: Vec<String>,
}

/// Reads what is there. Blocking.
fn on_disk(rootfs: &Rootfs, state: &str) -> Disk {
    let mut disk = Disk::default();
    match config_version(rootfs) {
        Ok(version) => disk.config_version = version,
        Err(why) => disk.obstacles.push(why),
    }
    match Files::peek(rootfs.host(), state, rootfs.binary_roots().clone()) {
        Ok(Some(files)) => {
            disk.record = files.record();
            disk.held = files.ledger.held().map(|held| (*held).clone());
            disk.obstacles.extend(files.ledger.damage().map(str::to_owned));
        }
        // No agent ever worked here.
        Ok(None) => {}
        Err(error) => disk.obstacles.push(chain(&error)),
    }
    disk
}

/// The version of the configuration's form; none where there is no file.
fn config_version(rootfs: &Rootfs) -> Result<Option<i64>, String> {
    let read = || match rootfs.folder(containerd::FOLDER)? {
        Some(folder) => folder.read(containerd::FILE, containerd::MAX_SIZE),
        None => Ok(None),
    };
    let Some(bytes) = read().map_err(|error| chain(&error))? else { return Ok(None) };
    let text = String::from_utf8_lossy(&bytes);
    // Whatever the agent could not edit is an obstacle, and said in its words.
    containerd::tables(&text).map_err(|error| chain(&error))?;
    let document = text.parse::<toml_edit::DocumentMut>().ok();
    let version = document.and_then(|document| document.get("version")?.as_integer());
    // A file without one is of the first form.
    Ok(Some(version.unwrap_or(1)))
}

fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    rootstock_daemon::error::Chain(error).to_string()
}
