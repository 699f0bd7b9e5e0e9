//! What is tried on a node, and what has to be seen.

use std::fmt;

use anyhow::{Context as _, ensure};
use clap::ValueEnum;
use rootstock_core::desired::DesiredBundle;
use serde_json::Value;

use crate::cache::{Cache, Generation};
use crate::cri::Pod;
use crate::images::write;
use crate::world::{BINARY_PATH, Program, World};

/// What the kernel is called that gVisor shows its pods, and what it was called
/// in older releases.
const GVISOR: [&str; 2] = ["gvisor", "4.4.0"];

/// A scenario.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Scenario {
    /// A new node gets gVisor, and a pod runs in it.
    Install,
    /// A pod keeps the version that it started with, a new one gets the new one.
    Upgrade,
    /// A version that does not work is taken back.
    Rollback,
    /// What is no longer wanted goes, and never from under a pod.
    Uninstall,
    /// What the gVisor extension's script left becomes ours.
    Takeover,
    /// Another program rewrites containerd's configuration.
    ForeignRewrite,
    /// The node boots anew in the middle of a change, and nobody tells it anything.
    Reboot,
    /// containerd is replaced by another generation, and put back.
    Swap,
}

impl Scenario {
    pub(crate) const ALL: [Self; 8] = [
        Self::Install,
        Self::Upgrade,
        Self::Rollback,
        Self::Uninstall,
        Self::Takeover,
        Self::ForeignRewrite,
        Self::Reboot,
        Self::Swap,
    ];

    /// Runs it on a node of its own; what was seen.
    pub(crate) async fn run(
        self,
        cache: &Cache,
        generation: Generation,
        program: &Program,
    ) -> anyhow::Result<String> {
        let mut world = World::start(cache, generation, program).await?;
        match self {
            Self::Install if generation == Generation::V1_6 => {
                let unsupported = unsupported(&mut world).await?;
                Ok(format!("{unsupported}; an older one: {}", install(&mut world).await?))
            }
            Self::Install => install(&mut world).await,
            Self::Upgrade => upgrade(&mut world).await,
            Self::Rollback => rollback(&mut world).await,
            Self::Uninstall => uninstall(&mut world).await,
            Self::Takeover => takeover(&mut world).await,
            Self::ForeignRewrite => foreign_rewrite(&mut world).await,
            Self::Reboot => reboot(&mut world).await,
            Self::Swap => swap(&mut world, cache).await,
        }
    }
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Install => "install",
            Self::Upgrade => "upgrade",
            Self::Rollback => "rollback",
            Self::Uninstall => "uninstall",
            Self::Takeover => "takeover",
            Self::ForeignRewrite => "foreign-rewrite",
            Self::Reboot => "reboot",
            Self::Swap => "swap",
        })
    }
}

async fn installed(world: &mut World) -> anyhow::Result<DesiredBundle> {
    let bundle = world.bundle("1", |_| {}).await?;
    world.want(&[&bundle])?;
    world.until("Proven").await?;
    Ok(bundle)
}

/// The kernel that a pod sees.
pub(crate) async fn kernel(pod: &Pod) -> anyhow::Result<String> {
    let release = pod.exec(&["/bin/uname", "-r"]).await?;
    ensure!(GVISOR.iter().any(|name| release.contains(name)), "a pod sees kernel {release}");
    Ok(release)
}

/// The runsc that a pod runs in. Not its shim: containerd 1.6 does not know
/// `runtime_path` and finds that one by its name.
fn program(world: &World, pod: &Pod) -> anyhow::Result<String> {
    let id = pod.sandbox();
    let find = format!(
        "for p in /proc/[0-9]*; do tr '\\0' ' ' < $p/cmdline | grep -q '^runsc-sandbox.*{id}' \
         && readlink $p/exe; done 2>/dev/null; true"
    );
    let found = world.node.run(&["sh", "-c", &find])?;
    ensure!(!found.trim().is_empty(), "pod {id} has no process");
    Ok(found.trim().to_owned())
}

async fn unsupported(world: &mut World) -> anyhow::Result<String> {
    let (before, start) = (world.node.config()?, world.node.start()?);
    let bundle = world.newest_bundle().await?;
    world.want(&[&bundle])?;
    let plan = world.until("Unsupported").await?;
    ensure!(plan["bundles"][0]["reason"] == "PreflightUnmet", "{plan}");
    ensure!(world.node.config()? == before && world.node.start()? == start, "the node was changed");
    Ok(format!("Unsupported: {}", plan["bundles"][0]["message"].as_str().unwrap_or_default()))
}

async fn install(world: &mut World) -> anyhow::Result<String> {
    let before = world.node.config()?;
    installed(world).await?;
    let after = world.node.config()?;
    for line in before.lines() {
        ensure!(after.lines().any(|there| there == line), "{line:?} is gone");
    }
    let pod = world.cri.pod("one", "runsc").await?;
    let release = kernel(&pod).await?;
    pod.end().await?;
    let (status, memory) = (world.agent_status()?, world.idle_memory().await?);
    let none = |set: &str| status.contains(&format!("{set}:\t0000000000000000"));
    ensure!(["CapEff", "CapPrm", "CapBnd"].iter().all(|set| none(set)), "{status}");
    // A second start of the agent changes nothing.
    let start = world.node.start()?;
    world.stop_agent()?;
    world.start_agent()?;
    world.until("Proven").await?;
    ensure!(world.node.start()? == start, "containerd restarted without need");
    let memory = memory.map(|memory| format!(", an idle agent has {memory:.1} MB"));
    Ok(format!("Proven, uname -r says {release}{}", memory.unwrap_or_default()))
}

async fn upgrade(world: &mut World) -> anyhow::Result<String> {
    let first = installed(world).await?;
    let old = world.cri.pod("old", "runsc").await?;
    let second = world.bundle("2", |_| {}).await?;
    world.want(&[&second])?;
    world.until("Proven").await?;
    kernel(&old).await?;
    old.start("later").await?;
    let at = program(world, &old)?;
    ensure!(at.contains(&first.digest.hex()), "the old pod moved to {at}");
    let new = world.cri.pod("new", "runsc").await?;
    kernel(&new).await?;
    ensure!(program(world, &new)?.contains(&second.digest.hex()), "the new pod is old");
    let tree = |bundle: &DesiredBundle| {
        world.node.path(&format!("{BINARY_PATH}/.rootstock/gvisor/{}", bundle.digest.hex()))
    };
    ensure!(tree(&first).exists(), "the old version is gone under its pod");
    old.end().await?;
    let gone = tree(&first);
    world.wait("collection of the old version", |_| !gone.exists()).await?;
    kernel(&new).await?;
    Ok("old pod kept exec and a further container, new pod has the new digest, old one collected"
        .to_owned())
}

async fn rollback(world: &mut World) -> anyhow::Result<String> {
    let first = installed(world).await?;
    let pod = world.cri.pod("steady", "runsc").await?;
    let before = world.node.config()?;
    let broken = world.broken_bundle("2").await?;
    // systemd counts five starts in 10 s and then lets a unit lie: with these,
    // ours would be the sixth and the seventh.
    world.node.run(&["systemctl", "reset-failed", "containerd"])?;
    for _ in 0..5 {
        world.node.run(&["systemctl", "restart", "containerd"])?;
    }
    world.want(&[&broken])?;
    let plan = world.until("RolledBack").await?;
    ensure!(world.node.config()? == before, "the configuration is not what it was");
    kernel(&pod).await?;
    let new = world.cri.pod("new", "runsc").await?;
    ensure!(program(world, &new)?.contains(&first.digest.hex()), "the new pod is broken");
    let reason = &plan["bundles"][0]["reason"];
    ensure!(reason == "ProofFailed", "rolled back for another reason: {plan}");
    Ok("RolledBack: ProofFailed, after five other starts of containerd".to_owned())
}

async fn uninstall(world: &mut World) -> anyhow::Result<String> {
    installed(world).await?;
    let pod = world.cri.pod("last", "runsc").await?;
    let start = world.node.start()?;
    world.want(&[])?;
    world.wait("InUse", |plan| plan["bundles"][0]["phase"] == "InUse").await?;
    kernel(&pod).await?;
    pod.end().await?;
    let said = |plan: &Value| plan["bundles"][0]["phase"] == "Removed";
    world.wait("Removed", said).await?;
    ensure!(!world.node.config()?.contains("runsc"), "the table is still there");
    ensure!(world.node.start()? == start, "containerd was restarted for it");
    world.node.run(&["systemctl", "restart", "containerd"])?;
    let left = world.node.path(&format!("{BINARY_PATH}/.rootstock"));
    world.wait("an empty folder", |_| !left.exists()).await?;
    Ok("InUse, then gone without a restart of ours; files after containerd's next start".to_owned())
}

async fn takeover(world: &mut World) -> anyhow::Result<String> {
    let parts = world.programs();
    for name in ["runsc", "containerd-shim-runsc-v1"] {
        std::fs::copy(parts.join(name), world.node.path(&format!("{BINARY_PATH}/{name}")))?;
    }
    let old_gvisor = world.node.generation == Generation::V1_6;
    let network = if old_gvisor { "  network = \"none\"\n" } else { "" };
    let flags = format!("[runsc_config]\n  net-raw = \"true\"\n{network}");
    write(&world.node.path("/etc/containerd/runsc.toml"), flags.as_bytes())?;
    let plugin = match world.node.generation.config() {
        2 => "io.containerd.grpc.v1.cri",
        _ => "io.containerd.cri.v1.runtime",
    };
    let table = format!(
        "[plugins.\"{plugin}\".containerd.runtimes.runsc]\n  runtime_type = \"io.containerd.runsc.v1\"\n\
         [plugins.\"{plugin}\".containerd.runtimes.runsc.options]\n  TypeUrl = \"io.containerd.runsc.v1.options\"\n  \
         ConfigPath = \"/etc/containerd/runsc.toml\"\n"
    );
    let config = world.node.config()? + &table;
    write(&world.node.path("/etc/containerd/config.toml"), config.as_bytes())?;
    world.node.run(&["systemctl", "restart", "containerd"])?;
    let old = world.cri.pod("old", "runsc").await?;
    kernel(&old).await?;
    installed(world).await?;
    kernel(&old).await?;
    let script = world.node.path("/etc/containerd/runsc.toml");
    ensure!(script.exists(), "its file went from under its pod");
    let new = world.cri.pod("new", "runsc").await?;
    kernel(&new).await?;
    old.end().await?;
    if old_gvisor {
        // containerd 1.6 finds the shim by its name, and while pods run that is the script's.
        new.end().await?;
    }
    let runsc = world.node.path(&format!("{BINARY_PATH}/runsc"));
    // Flags that the script never writes are somebody's own, and stay.
    let gone = |_: &Value| runsc.is_symlink() && (old_gvisor || !script.exists());
    world.wait("the script's files to go", gone).await?;
    Ok("the script's pod lived on, its files went with it".to_owned())
}

async fn foreign_rewrite(world: &mut World) -> anyhow::Result<String> {
    installed(world).await?;
    // As gardener-node-agent does it: without comments, without our table, in place.
    let config = world.node.config()?;
    let ours = config.find("runsc").and_then(|at| config[..at].rfind('[')).unwrap_or(config.len());
    let theirs = config[..ours].replace("# someone's comment\n", "oom_score = 1\n");
    write(&world.node.path("/etc/containerd/config.toml"), theirs.as_bytes())?;
    world.stop_agent()?;
    world.start_agent()?;
    world.until("Proven").await?;
    let now = world.node.config()?;
    ensure!(now.contains("oom_score = 1") && now.contains("runsc"), "{now}");
    let pod = world.cri.pod("after", "runsc").await?;
    kernel(&pod).await?;
    Ok("its keys stayed, our table came back".to_owned())
}

async fn reboot(world: &mut World) -> anyhow::Result<String> {
    installed(world).await?;
    let bundles = [world.bundle("2", |_| {}).await?, world.bundle("3", |_| {}).await?];
    // In the middle of the pull, of the restart, of the proof, and of the time after it.
    let moments = [0.3, 1.0, 1.6, 2.4, 3.5, 5.0];
    for (at, seconds) in moments.into_iter().enumerate() {
        let wish = &bundles[at % 2];
        world.want(&[wish])?;
        tokio::time::sleep(std::time::Duration::from_secs_f64(seconds)).await;
        world.reboot().await?;
        world.until("Proven").await.with_context(|| format!("after a boot at {seconds} s"))?;
        let pod = world.cri.pod(&format!("after-{at}"), "runsc").await?;
        kernel(&pod).await?;
        ensure!(program(world, &pod)?.contains(&wish.digest.hex()), "the pod has another version");
        pod.end().await?;
    }
    Ok(format!("{} boots in the middle of a change, each time the new version", moments.len()))
}

async fn swap(world: &mut World, cache: &Cache) -> anyhow::Result<String> {
    let own = world.node.generation;
    let other = match own {
        Generation::V1_7 | Generation::V2_1 => Generation::V2_4,
        // None of the others reads the newest configuration, and a 1.6 that is
        // replaced has its own gVisor: that is not tried.
        Generation::V1_6 | Generation::V2_4 => return Ok("nothing to swap with".to_owned()),
    };
    installed(world).await?;
    let pod = world.cri.pod("steady", "runsc").await?;
    for (at, generation) in [other, own].into_iter().enumerate() {
        world.swap(cache, generation)?;
        let version = generation.to_string();
        let proven = |plan: &Value| {
            plan["bundles"][0]["phase"] == "Proven"
                && plan["containerd"].as_str().is_some_and(|there| there.starts_with(&version))
        };
        world.wait(&format!("Proven with containerd {version}"), proven).await?;
        kernel(&pod).await.with_context(|| format!("the old pod with containerd {version}"))?;
        let new = world.cri.pod(&format!("new-{at}"), "runsc").await?;
        kernel(&new).await?;
        new.end().await?;
    }
    Ok(format!("to {other} and back, a pod lived through both and new ones start"))
}
