//! `cargo lab`: the real agent on real worker nodes.
//!
//! ```text
//!  cache: base image, containerd of four generations, images ─▶ node: systemd in a container
//!     └ registry with gVisor bundles ─▶ agent in the node ─▶ scenario: what a pod and containerd say
//! ```

mod cache;
mod cri;
mod images;
mod kills;
mod node;
mod pod;
mod registry;
mod scenario;
mod world;

use std::process::ExitCode;
use std::time::Instant;

use cache::{Cache, Generation};
use clap::Parser;
use scenario::Scenario;

const EXAMPLES: &str = "\
Examples:
  cargo lab                               # two generations of containerd, install and upgrade
  cargo lab --all                         # every generation, every scenario
  cargo lab --only rollback --containerd 2.4
  cargo lab --shipped --only install      # with the static program; says its memory
  cargo lab --kills 200 --containerd 2.4  # takes a quarter of an hour

Needs root, systemd-nspawn, debootstrap, busybox-static, and gVisor and containerd 2.4
in $ROOTSTOCK_PARTS/bin. Bundles come from docker-registry where it is installed. What is built once is kept in $ROOTSTOCK_LAB_CACHE
(~/.cache/rootstock-lab without it).";

/// Boots worker nodes and runs the agent on them.
#[derive(Debug, Parser)]
#[command(name = "cargo lab", after_help = EXAMPLES)]
struct Args {
    /// Every scenario on every generation of containerd.
    #[arg(long)]
    all: bool,

    /// These scenarios alone.
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Scenario>,

    /// These generations of containerd alone.
    #[arg(long, value_enum, value_delimiter = ',')]
    containerd: Vec<Generation>,

    /// Kills the agent this often while it changes a node and a pod runs there,
    /// and does nothing else.
    #[arg(long, value_name = "ROUNDS")]
    kills: Option<u32>,

    /// With the agent as nodes run it, one small static program; its build takes minutes.
    #[arg(long)]
    shipped: bool,

    /// Succeeds, and says why, where the machine lacks what the lab needs.
    #[arg(long)]
    skip_if_missing: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    let missing = cache::missing();
    if !missing.is_empty() {
        eprintln!("lab: SKIPPED, this machine lacks:");
        missing.iter().for_each(|what| eprintln!("  {what}"));
        return if args.skip_if_missing { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    match run(&args).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("lab: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Builds what is missing, and boots a node to see that the machine can.
async fn ready(generations: &[Generation]) -> anyhow::Result<Cache> {
    let cache = Cache::prepare(generations)?;
    for generation in generations {
        node::Node::boot(&cache, *generation).await?;
    }
    Ok(cache)
}

/// Whether everything went well.
async fn run(args: &Args) -> anyhow::Result<bool> {
    let generations = match (args.containerd.is_empty(), args.all) {
        (false, _) => args.containerd.clone(),
        (true, true) => Generation::ALL.to_vec(),
        (true, false) => vec![Generation::V1_7, Generation::V2_4],
    };
    let scenarios = match (args.only.is_empty(), args.all) {
        (false, _) => args.only.clone(),
        (true, true) => Scenario::ALL.to_vec(),
        (true, false) => vec![Scenario::Install, Scenario::Upgrade],
    };
    let cache = if args.skip_if_missing {
        match ready(&generations).await {
            Ok(cache) => cache,
            Err(error) => {
                eprintln!("lab: SKIPPED, this machine boots no node: {error:#}");
                return Ok(true);
            }
        }
    } else {
        Cache::prepare(&generations)?
    };
    let agent = world::build_agent(args.shipped)?;
    if let Some(rounds) = args.kills {
        for generation in generations {
            let said = kills::run(&cache, generation, &agent, rounds).await?;
            eprintln!("lab: containerd {generation}: {said}");
        }
        return Ok(true);
    }
    let mut rows = Vec::new();
    for generation in generations {
        for scenario in &scenarios {
            let begun = Instant::now();
            eprintln!("lab: {scenario} on containerd {generation}");
            let outcome = tokio::select! {
                // Cancel-safe: dropping a scenario stops its node.
                outcome = scenario.run(&cache, generation, &agent) => outcome,
                _ = tokio::signal::ctrl_c() => anyhow::bail!("interrupted"),
            };
            let seconds = begun.elapsed().as_secs_f64();
            let said = match &outcome {
                Ok(said) => said.clone(),
                Err(error) => format!("FAILED: {error:#}"),
            };
            eprintln!("lab:   {said} ({seconds:.1} s)");
            rows.push((generation, *scenario, outcome.is_ok(), seconds, said));
        }
    }
    eprintln!(
        "\n{:<11} {:<16} {:<7} {:>7}  WHAT WAS SEEN",
        "CONTAINERD", "SCENARIO", "", "SECONDS"
    );
    for (generation, scenario, ok, seconds, said) in &rows {
        let verdict = if *ok { "ok" } else { "FAILED" };
        let (generation, scenario) = (generation.to_string(), scenario.to_string());
        eprintln!("{generation:<11} {scenario:<16} {verdict:<7} {seconds:>7.1}  {said}");
    }
    Ok(rows.iter().all(|row| row.2))
}
