//! The whole agent against the controller's own server: it enrols with a
//! token, takes what it is sent, reports, and comes back after each break.

pub(crate) mod controller;
mod pulls;
mod slots;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Parser as _;
use rootstock_agent::args::{Cli, Command, RunArgs};
use rootstock_bundle::{Client, Version};
use rootstock_controller::content::Offered;
use rootstock_controller::identity::authorities::Authorities;
use rootstock_core::desired::{DesiredBundle, DesiredContent, Generation};
use rootstock_core::name::Architecture;
use rootstock_core::status::Phase;
use rootstock_playground::host::SimulatedHost;
use rootstock_playground::registry::Registry;
use rootstock_playground::samples::tiny::Tiny;
use serde_json::Map;
use tokio::sync::watch;
use tokio::task::JoinSet;

use controller::{HOST, Seen, Server, World, token};

const LIMIT: Duration = Duration::from_secs(30);

async fn bundle(registry: &Registry, work: &Path) -> DesiredBundle {
    bundle_of(registry, work, &Tiny::new("gvisor", "1")).await
}

async fn bundle_of(registry: &Registry, work: &Path, tiny: &Tiny<'_>) -> DesiredBundle {
    let client = Client::new(&registry.as_desired("main")).unwrap();
    let built = tiny.build(work).await.unwrap();
    let (repository, tag) = ("rootstock/gvisor".parse().unwrap(), "1".parse().unwrap());
    client.push(&repository, &tag, &[built]).await.unwrap();
    let architecture = Architecture::of_this_machine().unwrap();
    let resolved = client.resolve(&repository, &Version::Tag(tag), architecture).await.unwrap();
    DesiredBundle {
        digest: resolved.manifest,
        binary_path: "/var/bin/containerruntimes".parse().unwrap(),
        registry: "main".to_owned(),
        repository: repository.to_string(),
        config: resolved.config,
        settings: Map::new(),
    }
}

/// What an agent is started with whose files are in a folder.
fn arguments(dir: &Path, root: &Path) -> RunArgs {
    let flags = |flag: &str, path: &Path| [flag.to_owned(), path.display().to_string()];
    let args = ["rootstock-agent".to_owned(), "run".to_owned()]
        .into_iter()
        .chain(flags("--ca-file", &dir.join("ca.crt")))
        .chain(flags("--token-file", &dir.join("token")))
        .chain(flags("--endpoint", &dir.join("endpoint")))
        .chain(flags("--host-root", root))
        .chain(["--admin-listen", "127.0.0.1:0", "--log-level", "off"].map(str::to_owned));
    let Command::Run(args) = Cli::try_parse_from(args).unwrap().command else { panic!("run") };
    args
}

/// A node without an agent, in a folder with a registry beside it.
async fn prepared() -> (tempfile::TempDir, PathBuf, Registry) {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("node");
    SimulatedHost::prepare(&root).await.unwrap();
    let registry = Registry::start(&dir.path().join("registry")).await.unwrap();
    (dir, root, registry)
}

/// Writes one of the files that an agent is started with.
fn write(dir: &Path, name: &str, text: &str) {
    std::fs::write(dir.join(name), text).unwrap();
}

/// What leads an agent to the controller behind this port.
fn lead_to(world: &World, dir: &Path, port: u16) {
    write(dir, "ca.crt", &world.ca);
    write(dir, "token", &token());
    write(dir, "endpoint", &format!("https://{HOST}:{port}\n"));
}

/// An agent that runs until this is shut down.
fn agent(dir: &Path, root: &Path) -> JoinSet<anyhow::Result<()>> {
    let host = Arc::new(SimulatedHost::new(root).with_start(Duration::from_millis(10)));
    let mut agents = JoinSet::new();
    agents.spawn(rootstock_agent::run(arguments(dir, root), host));
    agents
}

async fn until(seen: &mut watch::Receiver<Seen>, what: &str, is: impl Fn(&Seen) -> bool) {
    let found =
        tokio::time::timeout(LIMIT, seen.wait_for(is)).await.map(|found| drop(found.unwrap()));
    if found.is_err() {
        panic!("not {what}: {:#?}", seen.borrow());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_enrols_takes_reports_and_comes_back() {
    let (dir, root, registry) = prepared().await;
    let gvisor = bundle(&registry, &dir.path().join("work")).await;

    let world = World::new();
    let desired = |generation, bundles: Vec<DesiredBundle>| {
        let content = DesiredContent {
            bundles,
            registries: vec![registry.as_desired("main")],
            ..DesiredContent::default()
        };
        let content = Arc::new(content.into());
        Some(Offered { generation: Generation(generation), content, slot: None })
    };
    let mut seen = world.seen.subscribe();
    let server = Server::start(&world, 0).await;

    let files = ["ca.crt", "token", "endpoint"].map(|name| dir.path().join(name));
    // The token is only there after a while, as a kubelet's volume may be.
    std::fs::write(&files[0], &world.ca).unwrap();
    std::fs::write(&files[2], format!("https://{HOST}:{}\n", server.port)).unwrap();
    let mut agents = agent(dir.path(), &root);
    let lock = root.join("var/lib/rootstock/lock");
    let begun = async {
        while !lock.exists() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), begun).await.expect("the agent begins");
    std::fs::write(&files[1], token()).unwrap();

    until(&mut seen, "connected", |seen| !seen.hellos.is_empty()).await;
    let (spiffe, generation, installed) = seen.borrow().hellos[0].clone();
    assert_eq!(spiffe, "spiffe://shoot--garden--one/node/node-1/node-uid-1");
    assert_eq!((generation, installed), (Generation(0), 0));

    let loaded = |seen: &Seen| seen.reports.get("gvisor").is_some_and(|r| r.phase == Phase::Loaded);
    world.desired.send_replace(desired(7, vec![gvisor.clone()]));
    until(&mut seen, "loaded", loaded).await;
    assert_eq!(seen.borrow().accepted, [7]);
    let report = seen.borrow().reports["gvisor"].clone();
    assert_eq!(report.digest, Some(gvisor.digest));
    assert_eq!(report.bytes_done, report.bytes_total);

    // Older, and the same number with other content: both are refused, nothing changes.
    world.desired.send_replace(desired(6, vec![]));
    until(&mut seen, "refused", |seen| seen.refused.len() == 1).await;
    world.desired.send_replace(desired(7, vec![]));
    until(&mut seen, "refused", |seen| seen.refused.len() == 2).await;
    assert!(seen.borrow().refused[0].1.contains("GenerationOutdated"));
    assert!(loaded(&seen.borrow()));

    // The controller goes and comes back: the agent says what it holds, and pulls nothing.
    let served = registry.served_bytes();
    let port = server.stop().await;
    world.seen.send_modify(|seen| seen.reports.clear());
    world.desired.send_replace(desired(7, vec![gvisor.clone()]));
    let server = Server::start(&world, port).await;
    until(&mut seen, "back", |seen| seen.hellos.len() == 2).await;
    assert_eq!(seen.borrow().hellos[1].1, Generation(7));
    until(&mut seen, "reported again", loaded).await;
    assert_eq!(registry.served_bytes(), served);
    assert_eq!(SimulatedHost::restarts(&root).await.unwrap(), 1);
    // The certificate was still good: one enrolment, one review.
    let reviews = world.asked.lock().unwrap().iter().filter(|p| p.contains("tokenreviews")).count();
    assert_eq!(reviews, 1);
    assert_eq!(seen.borrow().vouched, ["pod-uid-1"]);

    world.desired.send_replace(desired(8, vec![]));
    let removed =
        |seen: &Seen| seen.reports.get("gvisor").is_some_and(|r| r.phase == Phase::Removed);
    until(&mut seen, "removed", removed).await;
    agents.shutdown().await;
    until(&mut seen, "disconnected", |seen| seen.disconnects == 2).await;
    server.stop().await;
}

/// The shoot's CAs are replaced. An agent that was not told in time enrols anew
/// when its certificate's CA has left, and one that comes back then as well.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_of_a_ca_that_has_left_is_given_up() {
    let (dir, root, _registry) = prepared().await;
    let world = World::new();
    let mut seen = world.seen.subscribe();
    let server = Server::start(&world, 0).await;
    lead_to(&world, dir.path(), server.port);
    let mut agents = agent(dir.path(), &root);
    until(&mut seen, "connected", |seen| seen.hellos.len() == 1).await;

    let reviews =
        || world.asked.lock().unwrap().iter().filter(|p| p.contains("tokenreviews")).count();
    let (old, new) = (Arc::clone(&world.first), world.another());
    let both = [Arc::clone(&new), Arc::clone(&old)];
    world.serve_by(Authorities::new(Arc::clone(&new), old, &both));
    write(dir.path(), "ca.crt", &format!("{}{}", new.cert_pem(), world.ca));
    assert_eq!((seen.borrow().disconnects, reviews()), (0, 1), "it stays");
    world.serve_by(Authorities::one(Arc::clone(&new)));
    until(&mut seen, "back", |seen| seen.hellos.len() == 2).await;
    assert_eq!(reviews(), 2, "by its token");

    // While the controller is away its CA is replaced at once.
    let port = server.stop().await;
    let newer = world.another();
    write(dir.path(), "ca.crt", newer.cert_pem());
    world.serve_by(Authorities::one(newer));
    let server = Server::start(&world, port).await;
    until(&mut seen, "back again", |seen| seen.hellos.len() == 3).await;
    assert_eq!(reviews(), 3);
    agents.shutdown().await;
    server.stop().await;
}

/// The file is looked at every 30 s, and a shoot's agents move within 5 s more.
#[ignore = "it waits for half a minute; the waiting itself is tested with paused time"]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_goes_where_its_endpoint_goes() {
    let (dir, root, _registry) = prepared().await;
    let world = World::new();
    let mut seen = world.seen.subscribe();
    let (one, two) = (Server::start(&world, 0).await, Server::start(&world, 0).await);
    lead_to(&world, dir.path(), one.port);
    let mut agents = agent(dir.path(), &root);
    until(&mut seen, "connected", |seen| seen.hellos.len() == 1).await;
    // The first stays up, and its stream is fine.
    write(dir.path(), "endpoint", &format!("https://{HOST}:{}", two.port));
    let moved = seen.wait_for(|seen| seen.hellos.len() == 2 && seen.disconnects == 1);
    let moved = tokio::time::timeout(Duration::from_secs(60), moved).await;
    drop(moved.expect("it moves in time").unwrap());
    // Nobody is left at the first one; the certificate is still good.
    one.stop().await;
    assert_eq!((seen.borrow().hellos.len(), seen.borrow().disconnects), (2, 1));
    let reviews = world.asked.lock().unwrap().iter().filter(|p| p.contains("tokenreviews")).count();
    assert_eq!(reviews, 1);
    agents.shutdown().await;
    two.stop().await;
}
