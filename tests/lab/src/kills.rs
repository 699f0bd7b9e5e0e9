//! An agent that is killed again and again while a pod runs.

use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use rootstock_agent::containerd;
use rootstock_core::desired::DesiredBundle;
use rootstock_core::digest::Digest;

use crate::cache::{Cache, Generation};
use crate::cri::Pod;
use crate::scenario::kernel;
use crate::world::{BINARY_PATH, Program, World};

/// Rounds between two looks whether the node comes to an end when it is let be.
const REST: u32 = 20;
/// The longest time that an agent lives. A change with its proof takes as long.
const LONGEST: Duration = Duration::from_secs(6);
/// How long containerd may take to start.
const START: Duration = Duration::from_secs(30);

/// So many rounds: another bundle, an agent, and its end at some moment.
pub(crate) async fn run(
    cache: &Cache,
    generation: Generation,
    program: &Program,
    rounds: u32,
) -> anyhow::Result<String> {
    let mut world = World::start(cache, generation, program).await?;
    let good = [world.bundle("1", |_| {}).await?, world.bundle("2", |_| {}).await?];
    world.want(&[&good[0]])?;
    world.until("Proven").await?;
    let pod = world.cri.pod("steady", "runsc").await?;
    let mut all = good.to_vec();
    for round in 0..rounds {
        // One in five starts no pod. Each is a new one: what was taken back once
        // is not tried again. The others take turns.
        if round % 5 == 4 {
            all.push(world.broken_bundle(&format!("broken-{round}")).await?);
            world.want(&[&all[all.len() - 1]])?;
        } else {
            world.want(&[&good[(round - round / 5) as usize % 2]])?;
        }
        tokio::time::sleep(life(round)).await;
        world.stop_agent()?;
        sound(&world, &pod, &all).await.with_context(|| format!("round {round}"))?;
        if round % REST == REST - 1 {
            world.want(&[&good[1]])?;
            world.until("Proven").await.with_context(|| format!("after round {round}"))?;
            let new = world.cri.pod(&format!("new-{round}"), "runsc").await?;
            kernel(&new).await?;
            new.end().await?;
            eprintln!("lab:   {} of {rounds} rounds", round + 1);
        }
    }
    Ok(format!("{rounds} kills, {} ends: 0 torn states, 0 lost pods", rounds / REST))
}

/// How long an agent lives: spread over everything that a change does.
fn life(round: u32) -> Duration {
    let mixed = u64::from(round).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(23);
    let share = f64::from(u32::try_from(mixed >> 40).unwrap_or_default()) / f64::from(1 << 24);
    LONGEST.mul_f64(share)
}

/// The pod lives, containerd answers and takes its configuration, and what
/// that leads to is there with every byte.
async fn sound(world: &World, pod: &Pod, all: &[DesiredBundle]) -> anyhow::Result<()> {
    // The agent may have died after it had asked for a restart.
    if let Err(error) = world.cri.up(START).await {
        let unit = ["systemctl", "status", "containerd", "--no-pager", "--full", "--lines=40"];
        // It exits with the unit's state.
        let status = world.node.run(&unit).unwrap_or_else(|error| format!("{error:#}"));
        bail!("{error:#}; its unit: {status}");
    }
    kernel(pod).await.context("the pod is lost")?;
    world.node.run(&["containerd", "config", "dump"]).context("torn configuration")?;
    let tables = containerd::tables(&world.node.config()?)?;
    for table in tables.values().flatten() {
        for path in table.paths().filter(|path| path.starts_with(BINARY_PATH)) {
            ensure!(world.node.path(path).exists(), "{path} is not there");
        }
        let of = |bundle: &&DesiredBundle| table.runtime_path.contains(&bundle.digest.hex());
        let Some(bundle) = all.iter().find(of) else { continue };
        let folder = format!("{BINARY_PATH}/.rootstock/gvisor/{}", bundle.digest.hex());
        for file in &bundle.config.config().files {
            let path = format!("{folder}/{}", file.path);
            let bytes = std::fs::read(world.node.path(&path)).with_context(|| path.clone())?;
            ensure!(Digest::of(&bytes) == file.sha256, "{path} is torn");
        }
    }
    Ok(())
}
