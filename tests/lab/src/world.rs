//! A registry with bundles, a node, and the real agent on it.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use rootstock_bundle::{Client, Version};
use rootstock_core::desired::{Desired, DesiredBundle, DesiredContent, Generation as Number};
use rootstock_core::name::Architecture;
use rootstock_playground::samples::{Places, gvisor};
use serde_json::{Map, Value, json};

use crate::cache::{self, Cache, Generation};
use crate::cri::Cri;
use crate::images::write;
use crate::node::Node;
use crate::pod;
use crate::registry::Registry;

/// Where bundles are installed.
pub(crate) const BINARY_PATH: &str = "/var/bin/containerruntimes";
/// How long an activation may take, with a settle window of two seconds.
const PATIENCE: Duration = Duration::from_secs(120);
/// What an idle agent may have, in MB.
const MEMORY: f64 = 6.0;
/// How long it may take to give back what it had. Its threads wait 10 s for more.
const IDLE: Duration = Duration::from_secs(30);

/// The agent's program.
#[derive(Debug)]
pub(crate) struct Program {
    path: PathBuf,
    /// Whether it is the one that nodes run.
    shipped: bool,
}

/// Builds the agent, for tests or as nodes run it.
pub(crate) fn build_agent(shipped: bool) -> anyhow::Result<Program> {
    eprintln!("lab: building the agent");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(cargo);
    build.arg("--quiet");
    if shipped {
        build.arg("static-agent");
    } else {
        build.args(["build", "-p", "rootstock-agent"]);
    }
    cache::run(&mut build)?;
    let lab = std::env::current_exe()?;
    let folder = lab.parent().context("this program is in no folder")?;
    // The folders of all profiles stand side by side.
    let folder = if shipped { folder.with_file_name("agent") } else { folder.to_owned() };
    Ok(Program { path: folder.join("rootstock-agent"), shipped })
}

/// Everything of one scenario.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) node: Node,
    pub(crate) cri: Cri,
    registry: Registry,
    dir: tempfile::TempDir,
    agent: Option<Child>,
    shipped: bool,
    generation: u64,
    /// The gVisor that the node's containerd works with; none for the newest one.
    gvisor: Option<PathBuf>,
}

impl World {
    /// A registry, and a node with the agent's program on it.
    pub(crate) async fn start(
        cache: &Cache,
        generation: Generation,
        program: &Program,
    ) -> anyhow::Result<Self> {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let dir = tempfile::tempdir()?;
        let registry = Registry::start(&dir.path().join("registry")).await?;
        let node = Node::boot(cache, generation).await?;
        std::fs::copy(&program.path, node.path(pod::PROGRAM))?;
        let cri = Cri(node.path("/run/containerd/containerd.sock"));
        let gvisor = cache.gvisor(generation);
        let shipped = program.shipped;
        Ok(Self { node, cri, registry, dir, agent: None, shipped, generation: 0, gvisor })
    }

    /// A gVisor that works on the node as a bundle. Another `version` has another digest.
    pub(crate) async fn bundle(
        &self,
        version: &str,
        change: impl FnOnce(&mut Value),
    ) -> anyhow::Result<DesiredBundle> {
        let old = self.gvisor.is_some();
        let place = Places::of_environment(self.gvisor.clone());
        let least = if old { "1.6.0" } else { "1.7.0" };
        self.bundle_of(&place, version, |description| {
            description["minContainerd"] = json!(least);
            if old {
                // It takes every network namespace of a newer kernel for the machine's own.
                description["configs"][0]["template"]["runsc_config"]["network"] = json!("none");
            }
            change(description);
        })
        .await
    }

    /// A bundle whose shim is there and starts no pod: only the proof finds that.
    pub(crate) async fn broken_bundle(&self, version: &str) -> anyhow::Result<DesiredBundle> {
        let nowhere = |bundle: &mut Value| {
            bundle["configs"][0]["template"]["binary_name"] = json!("/nonexistent");
        };
        self.bundle(version, nowhere).await
    }

    /// The newest gVisor as a bundle, whether it works on the node or not.
    pub(crate) async fn newest_bundle(&self) -> anyhow::Result<DesiredBundle> {
        self.bundle_of(&Places::of_environment(None), "newest", |_| {}).await
    }

    async fn bundle_of(
        &self,
        place: &Places,
        version: &str,
        change: impl FnOnce(&mut Value),
    ) -> anyhow::Result<DesiredBundle> {
        let work = self.dir.path().join(format!("work-{version}"));
        let mut sample = gvisor(place, &work).await?;
        anyhow::ensure!(sample.is_real, "no real gVisor: {}", sample.origin);
        let mut description = serde_json::to_value(&sample.description)?;
        description["version"] = json!(version);
        change(&mut description);
        sample.description = serde_json::from_value(description)?;
        let built = sample.build(&self.dir.path().join("blobs")).await?;
        let client = Client::new(&self.registry.as_desired("main"))?;
        let architecture = Architecture::of_this_machine().context("an unknown architecture")?;
        let (repository, tag) = ("rootstock/gvisor".parse()?, version.parse()?);
        client.push(&repository, &tag, &[built]).await?;
        let resolved = client.resolve(&repository, &Version::Tag(tag), architecture).await?;
        Ok(DesiredBundle {
            digest: resolved.manifest,
            binary_path: BINARY_PATH.parse()?,
            registry: "main".to_owned(),
            repository: repository.to_string(),
            config: resolved.config,
            settings: Map::new(),
        })
    }

    /// Where the programs of that gVisor are.
    pub(crate) fn programs(&self) -> PathBuf {
        self.gvisor.clone().or_else(cache::parts).unwrap_or_default()
    }

    /// Makes this the node's desired state, and starts the agent anew with it.
    pub(crate) fn want(&mut self, bundles: &[&DesiredBundle]) -> anyhow::Result<()> {
        self.stop_agent()?;
        self.generation += 1;
        let content = DesiredContent {
            bundles: bundles.iter().map(|bundle| (*bundle).clone()).collect(),
            registries: vec![self.registry.as_desired("main")],
            ..DesiredContent::default()
        };
        let hash = rootstock_core::digest::Digest::of(serde_json::to_string(&content)?.as_bytes());
        let desired = Desired { generation: Number(self.generation), content };
        let mut ledger = serde_json::to_value(&desired)?;
        ledger["version"] = json!(1);
        ledger["contentHash"] = json!(hash);
        write(&self.node.path("/var/lib/rootstock/ledger.json"), ledger.to_string().as_bytes())?;
        self.start_agent()
    }

    /// Starts the agent, in namespaces of its own as its Pod has them.
    pub(crate) fn start_agent(&mut self) -> anyhow::Result<()> {
        let log = std::fs::File::options()
            .append(true)
            .create(true)
            .open(self.dir.path().join("agent.log"))?;
        let child = self
            .node
            .command(&["unshare", "--mount", "--pid", "--fork", "--kill-child", "--ipc", "--uts"])
            .args(["sh", "-c", &pod::script(&["--settle-seconds=2", "--ungranted-pulls"])?])
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        self.agent = Some(child);
        Ok(())
    }

    /// Boots the node anew with everything on it, and the agent after it.
    pub(crate) async fn reboot(&mut self) -> anyhow::Result<()> {
        self.stop_agent()?;
        self.node.reboot().await?;
        self.cri = Cri(self.node.path("/run/containerd/containerd.sock"));
        self.start_agent()
    }

    /// Puts another containerd in place of the node's and restarts it, as a
    /// package does.
    pub(crate) fn swap(&self, cache: &Cache, to: Generation) -> anyhow::Result<()> {
        let from = cache.containerd_root(to).unwrap_or_else(|| cache.base_root());
        for program in ["containerd", "ctr", "containerd-shim-runc-v2"] {
            let place = self.node.path(&format!("/usr/bin/{program}"));
            cache::run(
                Command::new("cp")
                    .arg("--remove-destination")
                    .arg(from.join("usr/bin").join(program))
                    .arg(place),
            )?;
        }
        self.node.run(&["systemctl", "restart", "containerd"]).map(drop)
    }

    /// Kills the agent where it stands.
    pub(crate) fn stop_agent(&mut self) -> anyhow::Result<()> {
        if let Some(mut agent) = self.agent.take() {
            // nsenter waits for it and would leave it behind; and a Pod that is
            // just being made has no agent yet.
            let until = Instant::now() + PATIENCE;
            while agent.try_wait()?.is_none() {
                let _ = self.node.run(&["sh", "-c", "kill -9 $(pidof rootstock-agent)"]);
                anyhow::ensure!(Instant::now() < until, "the agent does not end: {}", self.log());
            }
        }
        Ok(())
    }

    /// What the kernel says of the agent's process.
    pub(crate) fn agent_status(&self) -> anyhow::Result<String> {
        self.node.run(&["sh", "-c", "cat /proc/$(pidof rootstock-agent)/status"])
    }

    /// The resident memory of an agent that has nothing to do, in MB, once it is
    /// below what it may be; none of a program that nodes don't run.
    pub(crate) async fn idle_memory(&self) -> anyhow::Result<Option<f64>> {
        if !self.shipped {
            return Ok(None);
        }
        let until = Instant::now() + IDLE;
        loop {
            let status = self.agent_status()?;
            let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
            let kib = line.and_then(|line| line.trim().strip_suffix(" kB")).context("no VmRSS")?;
            let memory = kib.parse::<f64>()? * 1024.0 / 1e6;
            if memory < MEMORY {
                return Ok(Some(memory));
            }
            anyhow::ensure!(Instant::now() < until, "an idle agent has {memory:.1} MB: {status}");
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    }

    /// What `rootstock-agent plan` says.
    pub(crate) fn plan(&self) -> anyhow::Result<Value> {
        let text = self.node.run(&[pod::PROGRAM, "plan", "--host-root=/", "--output=json"])?;
        Ok(serde_json::from_str(&text)?)
    }

    /// Waits until the type is in this phase and nothing is left to do.
    pub(crate) async fn until(&self, phase: &str) -> anyhow::Result<Value> {
        let what = format!("{phase} of gvisor");
        let plan = self
            .wait(&what, |plan| {
                let now = plan["bundles"][0]["phase"].as_str().unwrap_or_default();
                let last = ["RolledBack", "Degraded", "Unsupported", "Failed"].contains(&now);
                let rests = plan["changes"].as_array().is_some_and(Vec::is_empty);
                last || (rests && now == phase)
            })
            .await?;
        anyhow::ensure!(
            plan["bundles"][0]["phase"] == phase,
            "no {what}: {}",
            cut(&plan.to_string())
        );
        Ok(plan)
    }

    /// Waits until the plan is so.
    pub(crate) async fn wait(
        &self,
        what: &str,
        is: impl Fn(&Value) -> bool,
    ) -> anyhow::Result<Value> {
        let until = Instant::now() + PATIENCE;
        loop {
            let plan = self.plan();
            match &plan {
                Ok(plan) if is(plan) => return Ok(plan.clone()),
                _ if Instant::now() < until => {}
                Ok(plan) => bail!("no {what}: {}; log: {}", cut(&plan.to_string()), self.log()),
                Err(error) => bail!("no {what}: {error:#}; log: {}", self.log()),
            }
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    }

    /// The end of the agent's log.
    pub(crate) fn log(&self) -> String {
        let text = std::fs::read_to_string(self.dir.path().join("agent.log")).unwrap_or_default();
        let tail: Vec<&str> =
            text.lines().rev().filter(|line| !line.contains("no stream")).take(12).collect();
        tail.into_iter().rev().map(cut).collect::<Vec<_>>().join(" | ")
    }
}

/// A text that a table has room for.
fn cut(text: &str) -> String {
    text.chars().take(600).collect()
}

impl Drop for World {
    fn drop(&mut self) {
        if let Err(error) = self.stop_agent() {
            eprintln!("lab: the agent is not stopped: {error:#}");
        }
    }
}
