//! The command line.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Parser;
use serde_json::json;

use crate::figures::Figures;
use crate::outcome::{Outcome, run};
use crate::scenario::Scenario;
use crate::svg;

const EXAMPLES: &str = "\
Examples:
  cargo sim                                            every scenario with 10,000 nodes
  cargo sim --scenario bad-bundle                      exactly the canary breaks
  cargo sim --scenario leader-kill --nodes 100 --seeds 1000
  cargo sim --scenario growth --seed 7 --svg growth.svg
  cargo sim --json | jq '.runs[].violations'

Scenarios:
  cold-start       all nodes of a seed join at once
  upgrade          a new bundle by canary, soak and waves
  bad-bundle       the new bundle breaks every node that activates it
  silent-bundle    who activates the new bundle is never heard of again, or replaced
  flaky            a tenth of pulls and activations fail, and the bundle is good
  partition        three nodes in ten are cut off for a while
  leader-kill      the controller is killed every five seconds
  halved           the budget is halved in the middle of the pulls
  growth           the pool grows a hundredfold while the canary is out
  growth-bad       the same with a bundle that breaks every node
  many-shoots      250 shoots at once, ring by ring
  many-shoots-bad  the same with a bundle that breaks every node

Columns:
  took      virtual time until every node was where it should be
  makespan  of all pulls, of the time that their bytes take at the whole budget
  cap use   of the budget, while bytes were wanted
  over B    bytes over the budget
  broken    nodes that a bad bundle broke, of how many it may: the canaries
  slots     how many were given to nodes; twice: how many a second time
  kills     how often the controller was killed
  wall      time that the run took
  laws      ok, or BROKEN with the laws below

A run depends on scenario, nodes and seed alone: what a line of BROKEN names can be
repeated. Exit code 1 where a law was broken: bytes over the budget, a slot given twice,
a node broken beyond the canary, or nodes that do not end where they should.";

/// Thousands of nodes in virtual time, with the decisions that the controller and the agents use.
#[derive(Debug, Parser)]
#[command(name = "cargo sim", bin_name = "cargo sim", after_help = EXAMPLES)]
struct Args {
    /// One scenario by its name; all without it
    #[arg(long, value_parser = scenario)]
    scenario: Option<Scenario>,
    /// How many nodes, 1 to 100,000
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    nodes: u32,
    /// The first seed
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many seeds
    #[arg(long, default_value_t = 1)]
    seeds: u64,
    /// How many runs at a time; as many as there are processors without it
    #[arg(long)]
    threads: Option<NonZeroUsize>,
    /// Write a picture of the last run: rate against budget, and nodes by phase
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// One JSON document on stdout in place of the table
    #[arg(long)]
    json: bool,
    /// Print only runs that broke a law, and the figures
    #[arg(long)]
    quiet: bool,
}

fn scenario(name: &str) -> Result<Scenario, String> {
    let found = Scenario::ALL.into_iter().find(|scenario| scenario.name() == name);
    let names = || Scenario::ALL.map(Scenario::name).join(", ");
    found.ok_or_else(|| format!("unknown scenario, want one of {}", names()))
}

/// Reads the arguments, runs, and says whether every law held.
pub fn main() -> ExitCode {
    let args = Args::parse();
    match all(&args, &mut io::stdout().lock()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        // Whoever read it has seen enough.
        Err(error) if is_closed(&error) => ExitCode::from(2),
        Err(error) => {
            // stderr may be closed, and there is nobody else to tell.
            let _ = writeln!(io::stderr(), "cargo sim: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn is_closed(error: &anyhow::Error) -> bool {
    let mut causes = error.chain().filter_map(|cause| cause.downcast_ref::<io::Error>());
    causes.any(|cause| cause.kind() == io::ErrorKind::BrokenPipe)
}

/// One run, and what came of it.
struct Ran {
    outcome: Outcome,
    wall: Duration,
    picture: Option<String>,
}

/// Runs all of them, some at a time, and gives each to `take` in their order.
fn each(
    args: &Args,
    runs: &[(Scenario, u64)],
    mut take: impl FnMut(Ran) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let processors = || std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let threads = args.threads.map_or_else(processors, NonZeroUsize::get).min(runs.len());
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let (done, ended) = mpsc::sync_channel(threads);
        for _ in 0..threads {
            let (done, next) = (done.clone(), &next);
            scope.spawn(move || {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let Some((scenario, seed)) = runs.get(number) else { return };
                    let begun = Instant::now();
                    let (outcome, world) = run(scenario.plan(args.nodes as usize, *seed));
                    let wall = begun.elapsed();
                    let drawn = args.svg.is_some() && number + 1 == runs.len();
                    let picture = drawn.then(|| svg::draw(&world, &outcome));
                    // Whoever reads what comes of it may have seen enough.
                    if done.send((number, Ran { outcome, wall, picture })).is_err() {
                        return;
                    }
                }
            });
        }
        drop(done);
        let (mut early, mut taken) = (BTreeMap::new(), 0);
        for (number, ran) in ended {
            early.insert(number, ran);
            while let Some(ran) = early.remove(&taken) {
                take(ran)?;
                taken += 1;
            }
        }
        Ok(())
    })
}

fn all(args: &Args, out: &mut impl Write) -> anyhow::Result<bool> {
    let scenarios = args.scenario.map_or_else(|| Scenario::ALL.to_vec(), |one| vec![one]);
    let seeds = args.seed..args.seed.saturating_add(args.seeds.max(1));
    let of = |scenario: Scenario| seeds.clone().map(move |seed| (scenario, seed));
    let all: Vec<_> = scenarios.into_iter().flat_map(of).collect();
    let (mut figures, mut runs) = (Figures::default(), Vec::new());
    if !args.json {
        writeln!(out, "{}", Outcome::head())?;
    }
    each(args, &all, |Ran { outcome, wall, picture }| {
        figures.add(&outcome, wall);
        if args.json {
            runs.push(outcome.json(wall));
        } else {
            tell(args, &outcome, wall, out)?;
        }
        if let (Some(file), Some(picture)) = (&args.svg, picture) {
            let write = |file: &PathBuf| std::fs::File::create(file)?.write_all(picture.as_bytes());
            write(file).with_context(|| format!("failed to write {}", file.display()))?;
        }
        Ok(())
    })?;
    if args.json {
        let document = json!({"runs": runs, "figures": figures.json()});
        writeln!(out, "{}", serde_json::to_string_pretty(&document)?)?;
    } else {
        writeln!(out)?;
        for line in figures.lines() {
            writeln!(out, "{line}")?;
        }
    }
    Ok(figures.is_good())
}

fn tell(args: &Args, outcome: &Outcome, wall: Duration, out: &mut impl Write) -> io::Result<()> {
    if args.quiet && outcome.is_good() {
        return Ok(());
    }
    writeln!(out, "{}", outcome.row(wall))?;
    for violation in &outcome.violations {
        writeln!(out, "  {violation}")?;
    }
    if !outcome.is_good() {
        let (name, nodes, seed) = (outcome.name, args.nodes, outcome.seed);
        writeln!(out, "  again: cargo sim --scenario {name} --nodes {nodes} --seed {seed}")?;
    }
    out.flush()
}
