//! Ten thousand agents and their controller: how fast they come, what a stream
//! costs, how fast a change reaches them, and how long they are alone when it dies.
//!
//! Everything is on this machine: the embedded API, two controllers as seeds
//! run them, and all agents in this one process, with real certificates and TLS.
//! Each figure is measured once and printed as `figure NAME VALUE UNIT goal <= GOAL`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]
#![allow(clippy::disallowed_methods, reason = "nothing here outlives the bench")]

#[path = "../common/program.rs"]
mod program;
#[path = "../../../tests/it/leaders/replicas.rs"]
#[allow(dead_code, reason = "the test of leaders uses all of it")]
mod replicas;

use std::path::Path;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Node;
use kube::Api;
use kube::api::{ListParams, Patch, PatchParams};
use rootstock_playground::crowd::{Crowd, Seen};
use rootstock_playground::seed::processes::Process;
use serde_json::{Value, json};

use replicas::{Replicas, Size};

/// Nothing here takes nearly so long unless something is broken.
const LIMIT: Duration = Duration::from_secs(300);

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let nodes = std::env::var("ROOTSTOCK_STREAMS").ok().and_then(|n| n.parse().ok());
    let nodes: usize = nodes.unwrap_or(10_000);
    let program = program::controller();
    eprintln!("{nodes} agents of {program}");
    let size = Size { controllers: 2, nodes, lease: "15s", limit: LIMIT };
    let replicas = Replicas::start(Path::new(&program), size).await;
    let leader = replicas.until("a leader", async || replicas.leader().await.ok_or(())).await;
    let process = replicas.controllers[&leader].process.clone();
    replicas.until("all nodes are marked", async || marked(&replicas, nodes).await).await;
    let mut crowd = replicas.crowd().await;
    calm(&process).await;

    // They come.
    let (before, cpu, begun) = (resident(&process), cpu_seconds(&process), Instant::now());
    crowd.begin();
    until(&replicas, &crowd, "all have a stream", |seen| seen.connected == nodes).await;
    figure("streams_connect_10k", begun.elapsed().as_secs_f64(), "s", 12.0);
    eprintln!("the controller spent {:.1} s of CPU on it", cpu_seconds(&process) - cpu);
    replicas.until("all have the first state", async || told(&crowd, "1", nodes)).await;
    replicas.until("it is said", async || replicas.says("1").await).await;
    calm(&process).await;
    let each = (resident(&process) - before) / nodes as f64;
    figure("stream_rss", each / 1000.0, "KB", 40.0);
    eprintln!("{:.1} MB before they came", before / 1e6);

    // Another setting reaches them all at once, and is acknowledged.
    crowd.set_at_work(true);
    let sent = crowd.seen().borrow().desired;
    let (cpu, begun) = (cpu_seconds(&process), Instant::now());
    configure(&replicas, &json!({"debug": true})).await;
    let all = sent + nodes as u64;
    until(&replicas, &crowd, "all have the setting", |seen| seen.desired >= all).await;
    let wall = begun.elapsed();
    calm(&process).await;
    figure("push_cpu_10k", (cpu_seconds(&process) - cpu) * 1000.0, "ms", 500.0);
    eprintln!("the last one had it after {:.1} s", wall.as_secs_f64());

    // All say at once that they have it.
    let cpu = cpu_seconds(&process);
    crowd.set_at_work(false);
    calm(&process).await;
    figure("report_cpu_10k", (cpu_seconds(&process) - cpu) * 1000.0, "ms", 500.0);

    // Another bundle reaches them, slot by slot: as many as a state may record.
    let (cpu, begun) = (cpu_seconds(&process), Instant::now());
    replicas.offer("2").await;
    replicas.until("all have the bundle", async || told(&crowd, "2", nodes)).await;
    replicas.until("it is said", async || replicas.says("2").await).await;
    let wall = begun.elapsed();
    calm(&process).await;
    figure("rollout_cpu_10k", (cpu_seconds(&process) - cpu) * 1000.0, "ms", 5000.0);
    eprintln!("the last one had it after {:.1} s", wall.as_secs_f64());

    // Their controller dies.
    process.hold().await;
    let taken = replicas
        .until("another one leads", async || match replicas.leader().await {
            Some(now) if now != leader => Ok(Instant::now()),
            other => Err(other),
        })
        .await;
    until(&replicas, &crowd, "all are back", |seen| seen.connected == nodes).await;
    figure("failover_10k", taken.elapsed().as_secs_f64(), "s", 15.0);
    replicas.until("nobody is missed", async || replicas.says("2").await).await;
    let seen = crowd.seen().borrow().clone();
    eprintln!("{} streams, {} states, {} repeated", seen.streams, seen.desired, seen.repeated);
    assert!(seen.wrong.is_empty(), "{:?}", seen.wrong);
    replicas.stop().await;
}

/// What the resource asks for of the bundle's settings.
async fn configure(replicas: &Replicas, settings: &Value) {
    let patch = json!({"spec": {"providerConfig": {
        "apiVersion": "rootstock.gardener.cloud/v1alpha1", "kind": "RuntimeConfiguration",
        "settings": settings,
    }}});
    let (params, patch) = (PatchParams::default(), Patch::Merge(patch));
    replicas.resources().patch("gvisor", &params, &patch).await.unwrap();
}

/// Whether all nodes have the agent's label.
async fn marked(replicas: &Replicas, nodes: usize) -> Result<(), usize> {
    let api: Api<Node> = Api::all(replicas.cluster.client());
    let marked = ListParams::default().labels("rootstock.gardener.cloud/agent=true");
    match api.list_metadata(&marked).await.unwrap().items.len() {
        count if count == nodes => Ok(()),
        count => Err(count),
    }
}

fn told(crowd: &Crowd, version: &str, nodes: usize) -> Result<(), usize> {
    match crowd.with_version(version) {
        count if count == nodes => Ok(()),
        count => Err(count),
    }
}

async fn until(replicas: &Replicas, crowd: &Crowd, what: &str, is: impl Fn(&Seen) -> bool) {
    let mut seen = crowd.seen();
    let waited = tokio::time::timeout(LIMIT, seen.wait_for(|seen| is(seen))).await.is_ok();
    assert!(waited, "not so: {what}\n{}", replicas.logs());
}

/// Waits until the program does next to nothing for two seconds.
async fn calm(process: &Process) {
    loop {
        let before = cpu_seconds(process);
        tokio::time::sleep(Duration::from_secs(2)).await;
        if cpu_seconds(process) - before < 0.03 {
            return;
        }
    }
}

/// The program's CPU time so far.
fn cpu_seconds(process: &Process) -> f64 {
    let pid = process.pid().expect("the controller runs");
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (_, after) = stat.rsplit_once(") ").unwrap();
    let ticks = |n: usize| after.split(' ').nth(n).unwrap().parse::<f64>().unwrap();
    (ticks(11) + ticks(12)) / 100.0
}

/// The program's memory, in bytes.
fn resident(process: &Process) -> f64 {
    let pid = process.pid().expect("the controller runs");
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let found = status.lines().find_map(|text| text.strip_prefix("VmRSS:")).unwrap();
    found.trim().strip_suffix(" kB").unwrap().parse::<f64>().unwrap() * 1024.0
}

fn figure(name: &str, value: f64, unit: &str, goal: f64) {
    println!("figure {name} {value:.3} {unit} goal <= {goal}");
}
