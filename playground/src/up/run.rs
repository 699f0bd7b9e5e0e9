//! `up`: from the flags to the exit code.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use super::args::{Output, UpArgs};
use super::dir::StateDir;
use super::progress::{Progress, say};
use super::report;
use super::samples;
use super::step::Step;
use crate::seed::landscape;
use crate::seed::snapshot::Document;
use crate::seed::status::StatusPage;
use crate::seed::world::{ApiKind, Look, Options, World};

/// How often the status page is read.
const POLL: Duration = Duration::from_millis(200);
/// What a shell makes of Ctrl-C.
const INTERRUPTED: u8 = 130;

/// How the wait ended.
enum End {
    /// Nothing was missing in this look. Another one would show another
    /// moment, and a machine that is busy answers late.
    Ready(Look),
    /// What is missing, and why.
    NotInTime(Look, Vec<(String, String)>),
    Interrupted,
}

/// Brings the world up; gives the exit code.
pub(super) async fn up(args: UpArgs) -> anyhow::Result<u8> {
    let mut interrupts = Interrupts::new().context("listen for Ctrl-C")?;
    let dir = StateDir::open(args.dir.as_deref())?;
    let program = std::env::current_exe().context("find this program")?;
    say(&format!("Starting a seed and two shoots in {}", dir.path().display()));
    // Cancel-safe: what is dropped half-way ends, and its folder goes with `dir`.
    let world = tokio::select! {
        world = start(&args, dir.path(), program) => world?,
        () = interrupts.next() => return Ok(INTERRUPTED),
    };
    let code = watch(&args, &dir, &world, &mut interrupts).await;
    world.stop().await;
    code
}

async fn start(args: &UpArgs, dir: &Path, program: PathBuf) -> anyhow::Result<World> {
    let work = dir.join("bundles");
    tokio::fs::create_dir_all(&work).await.context("make a folder for the bundles")?;
    let (offers, lines) =
        samples::offers(args.gvisor.clone(), &work).await.context("build the bundles")?;
    for line in lines {
        say(&format!("  {line}"));
    }
    let options = Options {
        dir: dir.to_owned(),
        program,
        api: ApiKind::Embedded,
        shoots: landscape::demo(),
        offers,
        log_level: args.log_level.clone(),
        agent_flags: Vec::new(),
    };
    World::start(options).await.context("start the world")
}

async fn watch(
    args: &UpArgs,
    dir: &StateDir,
    world: &World,
    interrupts: &mut Interrupts,
) -> anyhow::Result<u8> {
    let mut rate = Rate::default();
    let end = follow(args, world, interrupts, &mut rate).await?;
    let (look, missing) = match end {
        End::Interrupted => return Ok(INTERRUPTED),
        End::Ready(look) => (look, Vec::new()),
        End::NotInTime(look, missing) => (look, missing),
    };
    let document = document(world, look, &rate).await;
    match args.output {
        Output::Json => report::json(&document)?,
        Output::Text => report::text(&document, &missing, args, dir)?,
    }
    if !missing.is_empty() {
        report::missing(&missing, args.timeout, &world.dir().join("logs"), args.once);
    }
    if !args.once {
        say("Ctrl-C ends it.");
        interrupts.next().await;
        let folder = dir.path().display();
        let kept = if dir.is_kept() { "kept; --dir goes on from there" } else { "removed" };
        say(&format!("\nIt ends, and {folder} is {kept}."));
    }
    Ok(u8::from(!missing.is_empty()))
}

async fn document(world: &World, look: Look, rate: &Rate) -> Document {
    let mut document = world.document(look).await;
    document.elapsed_seconds = rate.elapsed.as_secs_f64();
    document.figures.bytes_per_second = rate.bytes_per_second();
    document
}

/// Shows the nodes until nothing is missing.
async fn follow(
    args: &UpArgs,
    world: &World,
    interrupts: &mut Interrupts,
    rate: &mut Rate,
) -> anyhow::Result<End> {
    let deadline = Instant::now() + args.timeout.saturating_sub(world.elapsed());
    let nodes: Vec<_> = world
        .nodes()
        .map(|(shoot, pool, node)| (shoot.name(), &node.name, pool.runtimes_for(node)))
        .filter(|(_, _, wanted)| !wanted.is_empty())
        .map(|(shoot, node, wanted)| (format!("{shoot}/{node}"), shoot, node, wanted))
        .collect();
    let names: Vec<String> = nodes.iter().map(|(name, ..)| name.clone()).collect();
    let mut progress = Progress::new(&names);
    let mut ticks = interval(POLL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let look = world.look().await.context("read the ContainerRuntimes")?;
        let page = &look.page;
        for (name, shoot, node, wanted) in &nodes {
            progress.show(name, Step::of(wanted, page, page.node(shoot, node)));
        }
        rate.look(page, world.elapsed());
        let missing = world.missing_in(page, &look.container_runtimes);
        if missing.is_empty() {
            progress.finish();
            return Ok(End::Ready(look));
        }
        // Timers and a signal: each is cancel-safe.
        tokio::select! {
            _ = ticks.tick() => {}
            () = sleep_until(deadline) => {
                progress.finish();
                return Ok(End::NotInTime(look, missing));
            }
            () = interrupts.next() => {
                progress.clear();
                return Ok(End::Interrupted);
            }
        }
    }
}

/// How fast bytes came, while any did.
#[derive(Debug, Default)]
struct Rate {
    elapsed: Duration,
    bytes: u64,
    moving: Duration,
}

impl Rate {
    fn look(&mut self, page: &StatusPage, elapsed: Duration) {
        let bytes = page.bytes_pulled();
        if bytes > self.bytes {
            self.bytes = bytes;
            // Bytes moved at some time since the last look: a lower bound of the rate.
            self.moving += elapsed.saturating_sub(self.elapsed);
        }
        self.elapsed = elapsed;
    }

    fn bytes_per_second(&self) -> f64 {
        // Exact up to 2^53 bytes.
        if self.moving.is_zero() { 0.0 } else { self.bytes as f64 / self.moving.as_secs_f64() }
    }
}

/// Ctrl-C, its polite sister, and a terminal that is closed.
struct Interrupts {
    interrupt: Signal,
    hangup: Signal,
    terminate: Signal,
}

impl Interrupts {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    /// Waits for the next one. Cancel-safe, as the signals are.
    async fn next(&mut self) {
        // Cancel-safe by the documentation of `recv`.
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.hangup.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
