//! What would be done is said, and nothing is done.

use std::sync::Arc;

use http::StatusCode;
use rootstock_agent::args::{NodeArgs, Output};
use rootstock_agent::preflight::survey;
use rootstock_agent::preview::{preview, support};
use rootstock_core::status::Phase;
use rootstock_playground::host::{HostFaults, SimulatedHost};
use rootstock_playground::registry::{Fault, Target};
use rootstock_playground::samples::tiny::Tiny;
use serde_json::Value;

use super::gate::gated;
use super::support::*;

fn args(world: &World, output: Output) -> NodeArgs {
    NodeArgs {
        host_root: world.root(),
        state_dir: "/var/lib/rootstock".parse().unwrap(),
        binary_roots: vec!["/var/bin".parse().unwrap()],
        output,
    }
}

async fn plan(world: &World, output: Output) -> String {
    let host = Arc::new(SimulatedHost::new(&world.root()));
    preview(args(world, output), host).await.unwrap()
}

#[tokio::test]
async fn a_survey_says_what_is_in_the_way_and_changes_nothing() {
    let world = World::start().await;
    let host = SimulatedHost::new(&world.root());
    let before = tree(&world.root());
    let survey = async || survey(&args(&world, Output::Json), &host).await;
    let seen = survey().await;
    assert!(seen.supported() && seen.bundles.is_empty(), "{seen:?}");
    assert_eq!(seen.containerd.version.as_deref(), Some("2.1.4"));
    assert_eq!(tree(&world.root()), before, "not even a folder is made");

    let needs = world.bundle(&Tiny::new("kata", "1").with_needs(&["/dev/kvm"])).await;
    let mut agent = Agent::start(&world);
    agent.take(world.held(1, &[&world.gvisor().await, &needs]));
    agent.until("gvisor", Phase::Loaded).await;
    let lacks = ["/dev/kvm".to_owned()].into();
    world.faults(HostFaults { lacks, ..HostFaults::default() }).await;
    agent.stop().await;
    let before = tree(&world.root());
    let seen = survey().await;
    assert!(!seen.supported() && seen.obstacles.is_empty(), "one runtime alone: {seen:?}");
    let text = seen.print(Output::Text).unwrap();
    assert!(text.contains("/dev/kvm") && text.contains("gvisor"), "{text}");
    assert_eq!(tree(&world.root()), before);

    let why = "the containerd of k3s is not supported".to_owned();
    world.faults(HostFaults { unsupported: Some(why), ..HostFaults::default() }).await;
    let seen = survey().await;
    assert!(!seen.supported() && seen.obstacles.iter().any(|o| o.contains("k3s")), "{seen:?}");
    // A later agent's records are not guessed at.
    let journal = world.root().join("var/lib/rootstock/journal.jsonl");
    std::fs::write(&journal, "{\"version\":2}\n").unwrap();
    let seen = survey().await;
    assert!(seen.obstacles.iter().any(|o| o.contains("has version 2")), "{seen:?}");
    assert!(seen.obstacles.iter().any(|o| o.contains("use a newer agent")), "{seen:?}");
    std::fs::remove_file(journal).unwrap();
    let ledger = world.root().join("var/lib/rootstock/ledger.json");
    for (text, says) in [("{", "counts as empty"), ("{\"version\":2}", "use a newer agent")] {
        std::fs::write(&ledger, text).unwrap();
        let seen = survey().await;
        let told = seen.obstacles.iter().any(|o| o.contains("ledger.json") && o.contains(says));
        assert!(told, "{seen:?}");
    }
}

#[tokio::test]
async fn a_plan_is_printed_beside_a_running_agent_and_changes_nothing() {
    let world = World::start().await;
    let before = tree(&world.root());
    assert!(plan(&world, Output::Text).await.contains("No desired state"));
    assert_eq!(tree(&world.root()), before, "not even a folder is made");

    let gvisor = world.gvisor().await;
    // What is in its way: the plan is the same before and after it failed.
    let touchy = HostFaults { touchy_key: Some("x".to_owned()), ..HostFaults::default() };
    world.faults(touchy).await;
    let mut agent = Agent::start(&world);
    agent.take(world.held(1, &[&gvisor]));
    agent.until("gvisor", Phase::Blocked).await;
    let text = plan(&world, Output::Text).await;
    for line in ["set      table gvisor in containerd", "restart  containerd: it lacks gvisor"] {
        assert!(text.contains(line), "{text}");
    }
    agent.stop().await;
    let before = tree(&world.root());
    let json: Value = serde_json::from_str(&plan(&world, Output::Json).await).unwrap();
    assert_eq!(json["bundles"][0]["phase"], "Verified", "{json:#}");
    assert_eq!(json["changes"].as_array().unwrap().len(), 4, "{json:#}");
    assert_eq!(tree(&world.root()), before);

    world.faults(HostFaults::default()).await;
    let mut agent = Agent::start(&world);
    agent.until("gvisor", Phase::Loaded).await;
    let text = plan(&world, Output::Text).await;
    assert!(text.contains("Nothing would change."), "{text}");
    let host = Arc::new(SimulatedHost::new(&world.root()));
    let report = support(args(&world, Output::Text), host).await.unwrap();
    let report: Value = serde_json::from_str(&report).unwrap();
    assert_eq!(report["journal"]["owned"]["gvisor"], "gvisor");
    assert_eq!(report["tables"]["gvisor"]["runtime_type"], "io.containerd.gvisor.v1");
    assert_eq!(report["plan"]["changes"], Value::Array(Vec::new()));
}

#[tokio::test]
async fn a_plan_says_what_waits_for_the_controller_and_what_comes_ahead() {
    let world = World::start().await;
    let gvisor = world.gvisor().await;
    let two = world.bundle(&Tiny::new("gvisor", "2").with_data(1 << 20)).await;
    let mut agent = Agent::start(&world);
    agent.take(gated(&world, 1, &[&gvisor], &[]));
    agent.until("gvisor", Phase::Queued).await;
    agent.stop().await;
    let mut agent = Agent::start(&world);
    agent.until("gvisor", Phase::Queued).await;
    let text = plan(&world, Output::Text).await;
    for says in
        ["Queued", "waits for its turn", "it lacks gvisor, once the controller lets this node"]
    {
        assert!(text.contains(says), "{text}");
    }
    world.registry.faults().set(Target::Blobs, Fault::Status(StatusCode::SERVICE_UNAVAILABLE));
    agent.take(gated(&world, 2, &[&gvisor], &[&two]));
    let text = plan(&world, Output::Text).await;
    assert!(text.contains(&format!("prefetch {BINARY_PATH}")), "{text}");
    agent.stop().await;
}
