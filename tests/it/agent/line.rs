//! A bundle that waits in the controller's line for its share of the bandwidth
//! holds up nothing else, and keeps its place there.

use std::sync::Arc;
use std::time::Duration;

use rootstock_agent::pull::Word;
use rootstock_agent::reconcile::Pace;
use rootstock_core::desired::Generation;
use rootstock_core::status::BundleReport;
use tokio::sync::watch;

use super::gate::{MINUTE, gated, killed};
use super::mortal::{Fate, Mortal};
use super::*;

/// Nothing waits for what still comes, but for the test's own reasons.
const PACE: Pace = Pace {
    bytes: Duration::from_secs(3600),
    look: Duration::from_millis(5),
    waiting: Duration::from_millis(5),
    still: Duration::ZERO,
    settle: Duration::ZERO,
    together: Duration::ZERO,
};

/// An agent that nobody grants anything.
fn waiting(world: &World, pace: Pace) -> Agent {
    let host = SimulatedHost::new(&world.root()).with_start(Duration::from_millis(1));
    Agent::granted(world, Arc::new(host), pace)
}

fn waits(said: &BundleReport) -> bool {
    said.phase == Phase::Pulling && said.message.contains("waits for its share")
}

async fn until(agent: &mut Agent, what: &str, is: impl Fn(&NodeReport) -> bool) {
    let found = agent.reports.wait_for(is);
    let found = tokio::time::timeout(LIMIT, found).await.map(|found| drop(found.unwrap()));
    assert!(found.is_ok(), "not {what}: {:#?}", agent.reports.borrow());
}

async fn until_waits(agent: &mut Agent, runtime: &str) {
    let runtime = runtime.parse().unwrap();
    until(agent, "in line", |report| report.bundles.get(&runtime).is_some_and(waits)).await;
}

#[tokio::test]
async fn a_bundle_in_line_holds_up_no_other_type() {
    let world = World::start().await;
    let (gvisor, kata) = (world.gvisor().await, world.bundle(&Tiny::new("kata", "1")).await);
    let wasm = world.bundle(&Tiny::new("wasm", "1")).await;
    let mut agent = Agent::start(&world);
    agent.take(world.held(1, &[&gvisor, &wasm]));
    agent.until("gvisor", Phase::Loaded).await;
    agent.until("wasm", Phase::Loaded).await;
    agent.stop().await;

    // No look comes by itself: what is heard here is heard in the middle of it.
    let pace = Pace { look: MINUTE, waiting: MINUTE, ..PACE };
    let mut agent = waiting(&world, pace);
    agent.take(world.held(2, &[&gvisor, &kata]));
    until_waits(&mut agent, "kata").await;
    // A type that nobody wants any more is taken out.
    agent.until("wasm", Phase::Removed).await;
    assert!(!world.config().contains("/wasm/"), "{}", world.config());
    // What somebody else took out is put back when an operator asks for it.
    std::fs::write(world.root().join("etc/containerd/config.toml"), CONFIG).unwrap();
    SimulatedHost::restart(&world.root()).await.unwrap();
    let restarts = world.restarts().await;
    agent.retry.notify_one();
    let works = |report: &NodeReport| {
        let of = |runtime: &str| &report.bundles[&runtime.parse().unwrap()];
        world.config().contains("/gvisor/")
            && (of("gvisor").phase == Phase::Loaded && waits(of("kata")))
    };
    until(&mut agent, "put back", works).await;
    assert_eq!(world.restarts().await, restarts + 1);
    agent.stop().await;
}

#[tokio::test]
async fn a_slot_is_used_while_another_bundle_is_in_line() {
    let world = World::start().await;
    let (gvisor, kata) = (world.gvisor().await, world.bundle(&Tiny::new("kata", "1")).await);
    let mut agent = Agent::start(&world);
    agent.take(gated(&world, 1, &[&gvisor], &[]));
    agent.until("gvisor", Phase::Queued).await;
    agent.stop().await;

    let mut agent = waiting(&world, Pace { look: MINUTE, ..PACE });
    agent.take(gated(&world, 2, &[&gvisor, &kata], &[]));
    until_waits(&mut agent, "kata").await;
    agent.until("gvisor", Phase::Queued).await;
    agent.files.slots().give(Generation(2), MINUTE);
    agent.until("gvisor", Phase::Loaded).await;
    until_waits(&mut agent, "kata").await;
    assert_eq!(world.restarts().await, 1);
    agent.stop().await;
}

#[tokio::test]
async fn what_a_killed_agent_began_is_ended_while_another_bundle_is_in_line() {
    let world = World::start().await;
    let (gvisor, kata) = (world.gvisor().await, world.bundle(&Tiny::new("kata", "1")).await);
    let agent = killed(&world, world.held(1, &[&gvisor])).await;
    agent.take(world.held(2, &[&gvisor, &kata]));
    agent.stop().await;

    // What has begun is not held up for what comes, however long that may take.
    let mut agent = waiting(&world, Pace { together: MINUTE, ..PACE });
    agent.until("gvisor", Phase::Loaded).await;
    until_waits(&mut agent, "kata").await;
    assert_eq!((world.restarts().await, agent.files.record().activation), (1, None));
    agent.stop().await;
}

#[tokio::test]
async fn an_activation_waits_for_its_own_bytes() {
    let world = World::start().await;
    let gvisor = world.gvisor().await;
    let agent = killed(&world, world.held(1, &[&gvisor])).await;
    agent.stop().await;
    let folder = format!(".rootstock/gvisor/{}", gvisor.digest.hex());
    let shim = &gvisor.config.config().handlers[0].shim;
    std::fs::remove_file(world.binaries().join(folder).join(shim.as_str())).unwrap();

    let mut agent = waiting(&world, Pace { together: MINUTE, ..PACE });
    until_waits(&mut agent, "gvisor").await;
    assert_eq!(world.restarts().await, 0);
    // A controller that grants nothing lets it come.
    agent.files.pulls().controller(false);
    agent.until("gvisor", Phase::Loaded).await;
    assert_eq!(world.restarts().await, 1);
    assert_installed(&world, &[&gvisor]);
    agent.stop().await;
}

/// A controller's side of the line: what the agent asks for and gives back.
async fn says(agent: &Agent, asked: &mut Vec<u64>) {
    tokio::time::timeout(LIMIT, agent.files.pulls().due()).await.unwrap();
    for word in agent.files.pulls().says() {
        match word {
            Word::Asks(request) => asked.push(request.id),
            Word::Shrunk(shrunk) => panic!("its place is given up: {shrunk:?}"),
        }
    }
}

/// What is desired and what comes ahead, each beside a type whose registry is
/// down, and is tried again all the time.
#[tokio::test]
async fn a_pull_keeps_its_place_in_line_however_often_the_node_is_looked_at() {
    let world = World::start().await;
    let (gvisor, kata) = (world.gvisor().await, world.bundle(&Tiny::new("kata", "1")).await);
    for ahead in [false, true] {
        let held = if ahead {
            gated(&world, 2, &[], &[&gvisor])
        } else {
            gated(&world, 1, &[&gvisor], &[])
        };
        let (looks, mut looked) = watch::channel(0_u32);
        let host = SimulatedHost::new(&world.root());
        let fate = move |call: &str| {
            looks.send_if_modified(|looks| {
                let look = call == "sandboxes";
                *looks += u32::from(look);
                look
            });
            Fate::Live
        };
        let (host, _) = Mortal::new(host, fate);
        let agent = Agent::granted(&world, Arc::new(host), PACE);
        let (stream, _) = agent.files.pulls().connect();
        agent.files.pulls().controller(true);
        agent.take(held.clone());
        let mut asked = Vec::new();
        says(&agent, &mut asked).await;
        let from = *looked.borrow_and_update();
        let many = looked.wait_for(|looks| *looks >= from + 5);
        tokio::time::timeout(LIMIT, many).await.unwrap().unwrap();
        // Nor is it given up for a wish that has it in it too.
        let mut next = held;
        next.desired.generation = Generation(next.desired.generation.0 + 10);
        next.desired.content.keep.insert(kata.runtime().clone());
        agent.take(next);
        let from = *looked.borrow_and_update();
        let many = looked.wait_for(|looks| *looks >= from + 5);
        tokio::time::timeout(LIMIT, many).await.unwrap().unwrap();
        says(&agent, &mut asked).await;
        assert!(asked.len() >= 2 && asked.iter().all(|id| *id == asked[0]), "{asked:?}");
        drop(stream);
        agent.stop().await;
        // The next agent has another generation to begin with.
        std::fs::remove_dir_all(world.root()).unwrap();
        SimulatedHost::prepare(&world.root()).await.unwrap();
    }
}

#[tokio::test]
async fn what_comes_ahead_is_what_is_desired_in_the_middle_of_it() {
    let world = World::start().await;
    let gvisor = world.gvisor().await;
    let mut agent = waiting(&world, Pace { look: MINUTE, ..PACE });
    agent.take(gated(&world, 1, &[], &[&gvisor]));
    until_waits(&mut agent, "gvisor").await;
    agent.take(gated(&world, 2, &[&gvisor], &[]));
    let next = |report: &NodeReport| report.generation == Generation(2);
    until(&mut agent, "generation 2", next).await;
    until_waits(&mut agent, "gvisor").await;
    agent.files.pulls().controller(false);
    let queued = agent.until("gvisor", Phase::Queued).await;
    assert_eq!(queued.bytes_pulled, queued.bytes_total, "nothing came twice");
    // What nobody wants any more is given up, and goes.
    agent.stop().await;
    let kata = world.bundle(&Tiny::new("kata", "1")).await;
    let mut agent = waiting(&world, Pace { look: MINUTE, ..PACE });
    agent.take(gated(&world, 3, &[&gvisor, &kata], &[]));
    until_waits(&mut agent, "kata").await;
    agent.take(gated(&world, 4, &[&gvisor], &[]));
    until_gone(&world.binaries().join(".rootstock/kata")).await;
    agent.stop().await;
}
