//! What the controller needs for Gardener's contract: time, memory, writes.
//!
//! One API server plays a seed and all of its shoots: a real one where
//! `KUBEBUILDER_ASSETS` names a folder with it, else the embedded one. Each figure is
//! measured once and printed as `figure NAME VALUE UNIT goal <= GOAL`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]
#![allow(clippy::disallowed_methods, reason = "nothing here outlives the bench")]

#[path = "common/program.rs"]
mod program;
#[path = "../../tests/it/contract/support/mod.rs"]
#[allow(dead_code, reason = "the contract's scenarios use all of it")]
mod support;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use kube::api::Api;
use kube::runtime::watcher;
use rootstock_controller::api::{ContainerRuntime, OperationState};
use rootstock_playground::kube::RealControlPlane;
use rootstock_playground::seed::follow::Follow;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use support::record::{Kind, Record};
use support::shoot::{Shoot, pools};
use support::suite::{Controller, Suite};

const TYPES: &[&str] = &["gvisor", "kata"];
/// Nothing here takes nearly so long unless something is broken.
const LIMIT: Duration = Duration::from_secs(120);
/// So many shoots are created side by side.
const AT_ONCE: usize = 16;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let assets = RealControlPlane::assets();
    let api = if assets.is_some() { "the real API server" } else { "the embedded API" };
    let program = program::controller();
    eprintln!("{program} is measured on {api}");
    let suite = Suite::start(assets.as_deref(), &program, &[]).await;
    few(&suite).await;
    many(&suite).await;
    suite.stop().await;
}

/// 20 resources in 10 shoots, created while the controller runs.
async fn few(suite: &Suite) {
    let controller = suite.own_controller("few", &[]).await;
    let shoots = create(suite, &controller, "few", 10, &["a"]).await;
    let begun = Instant::now();
    futures_util::future::join_all(shoots.iter().map(|shoot| shoot.deploy())).await;
    let mut times: Vec<_> = succeeded(suite, "few", 20, begun).await.into_values().collect();
    times.sort();
    figure("contract_create_20", times[times.len() / 2].as_secs_f64(), "s", 0.5);
    quiet(suite).await;
    figure("contract_idle_rss", resident(&controller, "VmRSS:"), "MB", 25.0);
    memory(&controller);
    controller.process.stop().await;
}

/// 1,000 resources in 250 shoots that wait for the controller to come.
async fn many(suite: &Suite) {
    // The class of the controller that is started below.
    let absent = suite.own_controller("many", &[]).await;
    absent.process.stop().await;
    let shoots = create(suite, &absent, "many", 250, &["a", "b"]).await;
    let deploy = futures_util::stream::iter(&shoots).map(|shoot| shoot.deploy());
    deploy.buffer_unordered(AT_ONCE).collect::<Vec<()>>().await;

    let (begun, before, cpu) = (Instant::now(), requests(suite).await, cpu_seconds());
    let controller = suite.own_controller("many", &[]).await;
    succeeded(suite, "many", 1000, begun).await;
    figure("contract_reconcile_1000", begun.elapsed().as_secs_f64(), "s", 20.0);
    eprintln!("CPU seconds: {}", spent(&cpu));
    quiet(suite).await;
    eprintln!("nothing more is written after {:.1} s", begun.elapsed().as_secs_f64());
    for (request, count) in requests(suite).await {
        let new = count - before.get(&request).unwrap_or(&0.0);
        if new >= 10.0 {
            eprintln!("requests {new:>6} {request}");
        }
    }
    memory(&controller);
    figure("contract_controller_rss", resident(&controller, "VmHWM:"), "MB", 60.0);
    let written = writes(suite, Duration::from_secs(10)).await;
    figure("contract_idle_writes", f64::from(written), "writes", 0.0);
    controller.process.stop().await;
}

/// Shoots whose APIs let the controller in.
async fn create<'a>(
    suite: &'a Suite,
    controller: &Controller,
    name: &str,
    count: usize,
    names: &[&str],
) -> Vec<Shoot<'a>> {
    let workers: Vec<_> = names.iter().map(|name| (*name, TYPES)).collect();
    let shoots = futures_util::stream::iter(0..count).map(async |number| {
        let shoot = format!("{name}-{number}");
        Shoot::new(suite, controller, &shoot, pools(&workers)).await.with_api()
    });
    shoots.buffer_unordered(AT_ONCE).collect().await
}

/// Waits until all resources of a class have succeeded, and tells when each did.
async fn succeeded(
    suite: &Suite,
    class: &str,
    count: usize,
    begun: Instant,
) -> BTreeMap<String, Duration> {
    let all = Api::<ContainerRuntime>::all(suite.access.client());
    let mut resources = Follow::new(all, watcher::Config::default());
    let mut when = BTreeMap::new();
    let done = async {
        while when.len() < count {
            resources.changed().await;
            for resource in resources.objects() {
                let last =
                    resource.status.as_ref().and_then(|status| status.last_operation.as_ref());
                let done = last.is_some_and(|last| last.state == OperationState::Succeeded);
                if done && resource.spec.class.as_deref() == Some(class) {
                    let uid = resource.metadata.uid.clone().unwrap();
                    when.entry(uid).or_insert_with(|| begun.elapsed());
                }
            }
        }
    };
    let in_time = timeout(LIMIT, done).await.is_ok();
    assert!(in_time, "{} of {count} succeeded\n{}", when.len(), suite.logs());
    when
}

/// Waits until two seconds pass without a write.
async fn quiet(suite: &Suite) {
    let quiet = async { while writes(suite, Duration::from_secs(2)).await > 0 {} };
    assert!(timeout(LIMIT, quiet).await.is_ok(), "there is no end of writes\n{}", suite.logs());
}

/// How many objects are written in so much time, but Leases.
async fn writes(suite: &Suite, time: Duration) -> u32 {
    let kinds = [Kind::ContainerRuntime, Kind::ManagedResource, Kind::Secret, Kind::Event];
    let mut tasks = JoinSet::new();
    let record = Record::start(&suite.access.client(), &kinds, &mut tasks);
    record.listed(kinds.len()).await;
    let before = record.here();
    sleep(time).await;
    u32::try_from(record.here() - before).unwrap()
}

/// What the API server was asked for, by whomever, as it counts; none of the embedded one.
async fn requests(suite: &Suite) -> BTreeMap<String, f64> {
    let request = http::Request::get("/metrics").body(Vec::new()).unwrap();
    let text = suite.access.client().request_text(request).await.unwrap_or_default();
    let mut counts = BTreeMap::new();
    for line in text.lines().filter_map(|line| line.strip_prefix("apiserver_request_total{")) {
        let Some((labels, count)) = line.rsplit_once("} ") else { continue };
        let label = |name: &str| {
            let value = labels.split(&format!("{name}=\"")).nth(1);
            value.and_then(|rest| rest.split('"').next()).unwrap_or_default()
        };
        let words = ["verb", "resource", "subresource", "scope", "code"].map(label);
        *counts.entry(words.join(" ")).or_default() += count.parse::<f64>().unwrap_or_default();
    }
    counts
}

/// The CPU seconds of this process and of those that it has started.
fn cpu_seconds() -> BTreeMap<String, f64> {
    let own = std::process::id().to_string();
    let mut all = BTreeMap::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let pid = entry.file_name().to_string_lossy().into_owned();
        let Ok(stat) = std::fs::read_to_string(entry.path().join("stat")) else { continue };
        let Some((before, after)) = stat.rsplit_once(") ") else { continue };
        let fields: Vec<&str> = after.split(' ').collect();
        if pid == own || fields.get(1) == Some(&own.as_str()) {
            let name = before.split_once(" (").map_or("", |(_, name)| name);
            let ticks = |n: usize| fields[n].parse::<f64>().unwrap_or_default();
            all.insert(format!("{name} {pid}"), (ticks(11) + ticks(12)) / 100.0);
        }
    }
    all
}

/// What was spent since then, in words.
fn spent(before: &BTreeMap<String, f64>) -> String {
    let now = cpu_seconds().into_iter();
    let spent = now.map(|(name, now)| {
        let new = now - before.get(&name).unwrap_or(&0.0);
        let name = name.split(' ').next().unwrap_or_default().to_owned();
        format!("{name} {new:.1}")
    });
    spent.collect::<Vec<_>>().join(", ")
}

/// What the controller's memory is made of: code is shared with the file, the rest is its own.
fn memory(controller: &Controller) {
    let [own, file, peak] =
        ["RssAnon:", "RssFile:", "VmHWM:"].map(|line| resident(controller, line));
    eprintln!("memory: {own:.1} MB its own, {file:.1} MB of files; {peak:.1} MB at most");
}

/// A line of the controller's memory, in megabytes.
fn resident(controller: &Controller, line: &str) -> f64 {
    let pid = controller.process.pid().expect("the controller runs");
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let found = status.lines().find_map(|text| text.strip_prefix(line)).unwrap();
    let kibibytes: f64 = found.trim().strip_suffix(" kB").unwrap().parse().unwrap();
    kibibytes * 1024.0 / 1e6
}

fn figure(name: &str, value: f64, unit: &str, goal: f64) {
    println!("figure {name} {value:.3} {unit} goal <= {goal}");
}
