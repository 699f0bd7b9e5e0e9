//! Whether the bytes of all pulls stay within the seed's budget, and use it.
//!
//! ```text
//!  docker-registry ─▶ gauge (counts, a look each 100 ms) ─▶ 500 agents, the agent's own fetcher
//!        two controllers, an embedded API ══ grants over mTLS ══▶ └─ each in a task of this process
//! ```
//!
//! Waves of all nodes; of 2 % of them, which must not be slower for being few;
//! of all once more while agents die, agents stand still, and the leader dies;
//! and of all while a fifth of them is cut off again and again.
//!
//! Bytes are over where more have left the registry in any time, short or long,
//! than the budget's and one declared burst: of each pull what its pacer lets
//! through at once, and what two kernels hold of it.
//!
//! As root it makes two networks for itself. Without them packets are those of
//! a loopback, larger than any between machines, and none is cut off.
//!
//! Each figure is measured once and printed as `figure NAME VALUE UNIT goal OP GOAL`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]
#![allow(clippy::disallowed_methods, reason = "nothing here outlives the bench")]

mod network;
#[path = "../../../tests/it/leaders/replicas.rs"]
#[allow(dead_code, reason = "the test of leaders uses all of it")]
mod replicas;
mod source;
mod windows;

use std::fmt::Debug;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rootstock_playground::crowd::{Crowd, Done, Downloads, Leads, Relay};
use tokio::sync::watch;

use network::Elsewhere;
use replicas::{Replicas, Size};
use source::Source;
use windows::Look;

/// Nothing here takes nearly so long unless something is broken.
const LIMIT: Duration = Duration::from_secs(300);
/// The seed's budget, in bytes per second.
const CAP: u64 = 100_000_000;
const BUDGETS: &str = "100MB/s";
/// How many pulls there may be at a time. No node has a budget of its own: a
/// pull begins with a quarter of the seed's, and has more where nobody waits.
const PULLS: u64 = 16;
/// The small wave, of 500 nodes.
const FEW: usize = 10;
/// Bytes of a bundle in the wave of all, in the small one, and in the one that
/// is disturbed.
const ALL_BYTES: usize = 16 << 20;
const FEW_BYTES: usize = 64 << 20;
const DISTURBED_BYTES: usize = 8 << 20;
/// One of so many agents is where it can be cut off.
const THERE: usize = 5;

fn main() {
    let has_network = network::enter();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        // Each download that waits has two threads, which sleep.
        .max_blocking_threads(4096)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(measure(has_network));
}

struct Bench {
    replicas: Replicas,
    source: Source,
    here: Group,
    /// Agents in a network that can be cut off, where there is one.
    there: Option<(Group, Elsewhere)>,
    nodes: usize,
    dir: tempfile::TempDir,
}

/// Agents, and what they pull.
struct Group {
    crowd: Crowd,
    downloads: Arc<Downloads>,
    nodes: usize,
}

async fn measure(has_network: bool) {
    let nodes = std::env::var("ROOTSTOCK_PULLS").ok().and_then(|n| n.parse().ok());
    let nodes: usize = nodes.unwrap_or(500);
    let program = Path::new(env!("CARGO_BIN_EXE_rootstock-playground"));
    let size = Size { controllers: 2, nodes, lease: "5s", limit: LIMIT };
    let elsewhere = has_network.then(Elsewhere::start);
    let ip = if has_network { network::NEAR } else { Ipv4Addr::LOCALHOST };
    let replicas = Replicas::start(program, size).await;
    let leader = replicas.until("a leader", async || replicas.leader().await.ok_or(())).await;
    let dir = memory();
    let source = Source::start(&dir.path().join("registry"), ip).await;
    let few_there = if has_network { nodes / THERE } else { 0 };
    let border = nodes - few_there;
    let folder = |name: &str| dir.path().join(name);
    let crowd = replicas.crowd_of(0..border, replicas.service()).await;
    let here = Group::begin(crowd, folder("here"), border);
    let there = match elsewhere {
        None => None,
        Some(elsewhere) => {
            let crowd = replicas.crowd_of(border..nodes, lead(replicas.service()).await).await;
            let there = {
                let _there = elsewhere.handle().enter();
                Group::begin(crowd, folder("there"), few_there)
            };
            Some((there, elsewhere))
        }
    };
    let mut bench = Bench { replicas, source, here, there, nodes, dir };
    bench
        .until("all are there", |bench| {
            let connected: usize =
                bench.groups().map(|group| group.crowd.seen().borrow().connected).sum();
            if connected == nodes { Ok(()) } else { Err(connected) }
        })
        .await;

    let all = bench.wave("all", ALL_BYTES, nodes).await;
    let few = bench.wave("few", FEW_BYTES, FEW).await;
    let disturbed = bench.disturbed(&leader).await;
    let cut = bench.cut().await;

    let waves = [Some(&all), Some(&few), Some(&disturbed), cut.as_ref()];
    let over: u64 = waves.into_iter().flatten().map(|looks| windows::over(looks)).sum();
    eprintln!("the declared burst is {:.1} MB", windows::burst() as f64 / 1e6);
    println!("figure cap_bytes_over {over} B goal <= 0");
    println!("figure cap_use {:.2} % goal >= 95", windows::used(&all));
    println!("figure cap_use_small_wave {:.2} % goal >= 90", windows::used(&few));
    let wrong: Vec<_> =
        bench.groups().flat_map(|group| group.crowd.seen().borrow().wrong.clone()).collect();
    assert!(wrong.is_empty(), "{wrong:?}");
    bench.replicas.stop().await;
}

/// The controller that serves, at an address that is reached from elsewhere.
async fn lead(
    mut service: watch::Receiver<Option<SocketAddr>>,
) -> watch::Receiver<Option<SocketAddr>> {
    let relay = Relay::start_at(network::NEAR, Leads::Silence).await.unwrap();
    let address = relay.address;
    tokio::spawn(async move {
        loop {
            let leads = service.borrow_and_update().map_or(Leads::Silence, Leads::To);
            relay.lead(leads);
            if service.changed().await.is_err() {
                return;
            }
        }
    });
    watch::Sender::new(Some(address)).subscribe()
}

impl Group {
    fn begin(crowd: Crowd, dir: PathBuf, nodes: usize) -> Self {
        let downloads = Arc::new(Downloads::new(dir));
        let mut crowd = crowd.with_downloads(Arc::clone(&downloads));
        crowd.set_at_work(true);
        crowd.begin();
        Self { crowd, downloads, nodes }
    }
}

impl Bench {
    fn groups(&self) -> impl Iterator<Item = &Group> {
        std::iter::once(&self.here).chain(self.there.as_ref().map(|(group, _)| group))
    }

    /// Offers a bundle to all, and lets so many of them pull it.
    async fn wave(&mut self, version: &str, data: usize, nodes: usize) -> Vec<Look> {
        let before = self.offer(version, data).await;
        let watch = self.source.watch();
        self.let_pull(nodes);
        self.until_done(before + nodes).await;
        let looks = watch.end();
        windows::say(version, &looks);
        looks
    }

    /// A wave of all in which things go wrong.
    async fn disturbed(&mut self, leader: &str) -> Vec<Look> {
        let before = self.offer("disturbed", DISTURBED_BYTES).await;
        let watch = self.source.watch();
        let (half, all) = (self.here.nodes / 2, self.here.nodes);
        self.let_pull(self.nodes);
        // Half of those that pull at this moment die; others stand still for
        // longer than their leases last.
        for _ in 0..4 {
            pause(1500).await;
            self.here.crowd.kill(0..half);
            self.here.crowd.hold(half..all, true);
            pause(3500).await;
            self.here.crowd.hold(half..all, false);
        }
        self.replicas.controllers[leader].process.hold().await;
        let begun = std::time::Instant::now();
        self.replicas
            .until("another one leads", async || match self.replicas.leader().await {
                Some(now) if now != leader => Ok(()),
                other => Err(other),
            })
            .await;
        eprintln!("another one leads after {:.1} s", begun.elapsed().as_secs_f64());
        self.until_done(before + self.nodes).await;
        let looks = watch.end();
        windows::say("disturbed", &looks);
        looks
    }

    /// A wave of all in which some are cut off again and again, for longer than
    /// their leases last; none where there is no such network.
    async fn cut(&mut self) -> Option<Vec<Look>> {
        let (there, elsewhere) = self.there.as_ref()?;
        let before = self.offer("cut", DISTURBED_BYTES).await;
        let watch = self.source.watch();
        // They come first in line: it is their leases that are lost.
        there.downloads.let_pull(0..there.nodes);
        pause(500).await;
        self.let_pull(self.nodes);
        for _ in 0..3 {
            pause(1500).await;
            elsewhere.cut(true);
            pause(5000).await;
            elsewhere.cut(false);
        }
        self.until_done(before + self.nodes).await;
        let looks = watch.end();
        windows::say("cut", &looks);
        Some(looks)
    }

    /// Lets the first nodes pull, and of the others none.
    fn let_pull(&self, nodes: usize) {
        let mut left = nodes;
        for group in self.groups() {
            let some = left.min(group.nodes);
            group.downloads.let_pull(0..some);
            left -= some;
        }
    }

    /// All have the bundle in their desired state, and none pulls it yet. How
    /// many bundles are on nodes by then.
    async fn offer(&self, version: &str, data: usize) -> usize {
        self.let_pull(0);
        let work = self.dir.path().join("work");
        self.source.offer(version, data, &work, &self.replicas.catalog).await;
        self.until("all have it", |bench| {
            let have: usize = bench.groups().map(|group| group.crowd.with_version(version)).sum();
            if have == bench.nodes { Ok(()) } else { Err(have) }
        })
        .await;
        self.done().bundles
    }

    fn done(&self) -> Done {
        self.groups().map(|group| *group.downloads.done().borrow()).fold(
            Done::default(),
            |sum, done| Done {
                bundles: sum.bundles + done.bundles,
                failed: sum.failed + done.failed,
            },
        )
    }

    async fn until_done(&self, bundles: usize) {
        self.until("all have pulled", |bench| match bench.done() {
            done if done.bundles >= bundles => Ok(()),
            done => Err(done),
        })
        .await;
        let Done { bundles, failed } = self.done();
        eprintln!("{bundles} bundles so far, {failed} downloads failed");
    }

    async fn until<S: Debug>(&self, what: &str, look: impl Fn(&Self) -> Result<(), S>) {
        self.replicas.until(what, async || look(self)).await;
    }
}

async fn pause(millis: u64) {
    tokio::time::sleep(Duration::from_millis(millis)).await;
}

/// A folder in memory where there is one: disks are not what is measured.
fn memory() -> tempfile::TempDir {
    let memory = tempfile::tempdir_in("/dev/shm");
    memory.unwrap_or_else(|_| tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap())
}
