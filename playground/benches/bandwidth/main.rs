//! Whether the bytes of all pulls stay within the seed's budget, and use it.
//!
//! ```text
//!  docker-registry ─▶ gauge (counts, a look each 100 ms) ─▶ 500 agents, the agent's own fetcher
//!        two controllers, an embedded API ══ grants over mTLS ══▶ └─ each in a task of this process
//! ```
//!
//! Three waves: of all nodes; of 2 % of them, which must not be slower for
//! being few; and of all once more while agents die, agents stand still, and
//! the leader dies. Networks that are cut are not here: `core` has them.
//!
//! A window is over where more bytes have left the registry in it than the
//! budget's and the declared burst: of each pull what its pacer lets through at
//! once, and what two kernels take in ahead of it.
//!
//! Each figure is measured once and printed as `figure NAME VALUE UNIT goal OP GOAL`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]
#![allow(clippy::disallowed_methods, reason = "nothing here outlives the bench")]

#[path = "../../../tests/it/leaders/replicas.rs"]
#[allow(dead_code, reason = "the test of leaders uses all of it")]
mod replicas;
mod source;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rootstock_playground::crowd::{Crowd, Done, Downloads};
use rootstock_playground::registry::Gauge;

use replicas::{Replicas, Size};
use source::{Look, Source};

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
/// What a pacer lets through at once, where 10 ms of its rate are not more.
const BURST: u64 = 64 << 10;
/// What an agent's kernel takes in ahead of its reader, over so short a way.
const RECEIVES: u64 = 128 << 10;

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        // Each download that waits has two threads, which sleep.
        .max_blocking_threads(4096)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(measure());
}

struct Bench {
    replicas: Replicas,
    source: Source,
    crowd: Crowd,
    downloads: Arc<Downloads>,
    nodes: usize,
    dir: tempfile::TempDir,
}

async fn measure() {
    let nodes = std::env::var("ROOTSTOCK_PULLS").ok().and_then(|n| n.parse().ok());
    let nodes: usize = nodes.unwrap_or(500);
    let program = Path::new(env!("CARGO_BIN_EXE_rootstock-playground"));
    let size = Size { controllers: 2, nodes, lease: "5s", limit: LIMIT };
    let replicas = Replicas::start(program, size).await;
    let leader = replicas.until("a leader", async || replicas.leader().await.ok_or(())).await;
    let dir = memory();
    let source = Source::start(&dir.path().join("registry")).await;
    let downloads = Arc::new(Downloads::new(dir.path().join("nodes")));
    let mut crowd = replicas.crowd().await.with_downloads(Arc::clone(&downloads));
    crowd.set_at_work(true);
    crowd.begin();
    let mut seen = crowd.seen();
    let came = tokio::time::timeout(LIMIT, seen.wait_for(|seen| seen.connected == nodes));
    assert!(came.await.is_ok(), "not all are there\n{}", replicas.logs());
    let mut bench = Bench { replicas, source, crowd, downloads, nodes, dir };

    let all = bench.wave("all", ALL_BYTES, nodes).await;
    let few = bench.wave("few", FEW_BYTES, FEW).await;
    let disturbed = bench.disturbed(&leader).await;

    let over: u64 = [&all, &few, &disturbed].map(|looks| over(looks)).iter().sum();
    println!("figure cap_bytes_over {over} B goal <= 0");
    println!("figure cap_use {:.2} % goal >= 95", used(&all));
    println!("figure cap_use_small_wave {:.2} % goal >= 90", used(&few));
    let wrong = bench.crowd.seen().borrow().wrong.clone();
    assert!(wrong.is_empty(), "{wrong:?}");
    drop(bench.crowd);
    bench.replicas.stop().await;
}

impl Bench {
    /// Offers a bundle to all, and lets so many of them pull it.
    async fn wave(&mut self, version: &str, data: usize, nodes: usize) -> Vec<Look> {
        let before = self.offer(version, data).await;
        let watch = self.source.watch();
        self.downloads.let_pull(0..nodes);
        self.until_done(before + nodes).await;
        let looks = watch.end();
        say(version, &looks);
        looks
    }

    /// A wave of all in which things go wrong.
    async fn disturbed(&mut self, leader: &str) -> Vec<Look> {
        let before = self.offer("disturbed", DISTURBED_BYTES).await;
        let watch = self.source.watch();
        let half = self.nodes / 2;
        self.downloads.let_pull(0..self.nodes);
        // Half of those that pull at this moment die; others stand still for
        // longer than their leases last.
        for _ in 0..4 {
            pause(1500).await;
            self.crowd.kill(0..half);
            self.crowd.hold(half..self.nodes, true);
            pause(3500).await;
            self.crowd.hold(half..self.nodes, false);
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
        say("disturbed", &looks);
        looks
    }

    /// All have the bundle in their desired state, and none pulls it yet. How
    /// many bundles are on nodes by then.
    async fn offer(&self, version: &str, data: usize) -> usize {
        self.downloads.let_pull(0..0);
        let work = self.dir.path().join("work");
        self.source.offer(version, data, &work, &self.replicas.catalog).await;
        self.replicas
            .until("all have it", async || match self.crowd.with_version(version) {
                count if count == self.nodes => Ok(()),
                count => Err(count),
            })
            .await;
        self.downloads.done().borrow().bundles
    }

    async fn until_done(&self, bundles: usize) {
        let mut done = self.downloads.done();
        let waited = tokio::time::timeout(LIMIT, done.wait_for(|done| done.bundles >= bundles));
        let waited = waited.await.is_ok();
        let Done { bundles: are, failed } = *done.borrow();
        assert!(waited, "{are} of {bundles}, {failed} failed\n{}", self.replicas.logs());
        eprintln!("{are} bundles so far, {failed} downloads failed");
    }
}

/// Bytes of all windows beyond what each may have.
fn over(looks: &[Look]) -> u64 {
    let burst = PULLS * (BURST + RECEIVES + Gauge::ahead());
    windows(looks).map(|(allowed, bytes)| bytes.saturating_sub(allowed + burst)).sum()
}

/// What the budget allows in each window, and what left the registry.
fn windows(looks: &[Look]) -> impl Iterator<Item = (u64, u64)> {
    looks.windows(2).map(|pair| {
        // As long as it may have been: each look has taken a moment.
        let nanos = pair[1].after.duration_since(pair[0].before).as_nanos();
        let allowed = u128::from(CAP) * nanos / 1_000_000_000;
        (u64::try_from(allowed).unwrap(), pair[1].bytes - pair[0].bytes)
    })
}

/// How much of the budget was used, in percent: from the first byte until 95 %
/// of them have left, for the last pulls are alone with their nodes' budgets.
fn used(looks: &[Look]) -> f64 {
    let (begin, end) = (looks.first().unwrap().bytes, looks.last().unwrap().bytes);
    let most = begin + (end - begin) / 20 * 19;
    let first = looks.iter().rposition(|look| look.bytes == begin).unwrap();
    let last = looks.iter().position(|look| look.bytes >= most).unwrap();
    let seconds = looks[last].before.duration_since(looks[first].after).as_secs_f64();
    (looks[last].bytes - begin) as f64 / seconds / CAP as f64 * 100.0
}

fn say(what: &str, looks: &[Look]) {
    let seconds = looks.last().unwrap().before.duration_since(looks[0].after).as_secs_f64();
    let bytes = looks.last().unwrap().bytes - looks[0].bytes;
    let shares = windows(looks).map(|(allowed, bytes)| bytes as f64 / allowed as f64 * 100.0);
    let mut shares: Vec<f64> = shares.collect();
    shares.sort_by(f64::total_cmp);
    let (median, most) = (shares[shares.len() / 2], shares[shares.len() - 1]);
    let beyond = shares.iter().filter(|share| **share > 100.0).count();
    eprintln!(
        "{what}: {:.1} MB in {seconds:.1} s, {:.1} % of the budget used; of {} windows the median \
         has {median:.1} %, the largest {most:.1} %, {beyond} are beyond 100 %",
        bytes as f64 / 1e6,
        used(looks),
        shares.len(),
    );
}

async fn pause(millis: u64) {
    tokio::time::sleep(Duration::from_millis(millis)).await;
}

/// A folder in memory where there is one: disks are not what is measured.
fn memory() -> tempfile::TempDir {
    let memory = tempfile::tempdir_in("/dev/shm");
    memory.unwrap_or_else(|_| tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap())
}
