//! containerd is restarted when the controller lets the node, and not before.

use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use rootstock_agent::reconcile::Pace;
use rootstock_agent::slot::Slots;
use rootstock_agent::store::Held;
use rootstock_core::desired::{DesiredContent, Generation};
use tokio::sync::watch;

use super::mortal::{Fate, Mortal};
use super::*;

pub(super) const MINUTE: Duration = Duration::from_secs(60);

/// What a node is sent by a controller that rolls out step by step.
pub(super) fn gated(
    world: &World,
    generation: u64,
    bundles: &[&DesiredBundle],
    prefetch: &[&DesiredBundle],
) -> Held {
    let own = |of: &[&DesiredBundle]| of.iter().copied().cloned().collect();
    let keep =
        prefetch.iter().filter(|ahead| bundles.iter().all(|b| b.runtime() != ahead.runtime()));
    let content = DesiredContent {
        bundles: own(bundles),
        prefetch: own(prefetch),
        keep: keep.map(|ahead| ahead.runtime().clone()).collect(),
        registries: vec![world.registry.as_desired("main")],
        gated: true,
    };
    held(generation, content)
}

#[tokio::test]
async fn a_restart_waits_for_a_slot_of_its_generation() {
    let world = World::start().await;
    let gvisor = world.gvisor().await;
    let mut agent = Agent::start(&world);
    agent.take(gated(&world, 1, &[&gvisor], &[]));
    let queued = agent.until("gvisor", Phase::Queued).await;
    assert_eq!((queued.reason, queued.bytes_done), (None, queued.bytes_total));
    assert!(queued.message.contains("turn"), "{}", queued.message);
    // One that is for another generation, or over, opens nothing.
    agent.files.slots().give(Generation(2), MINUTE);
    agent.files.slots().give(Generation(1), Duration::ZERO);
    assert_eq!(world.restarts().await, 0);
    agent.files.slots().give(Generation(1), MINUTE);
    agent.until("gvisor", Phase::Loaded).await;
    assert_eq!(world.restarts().await, 1);
    assert_installed(&world, &[&gvisor]);
    agent.stop().await;
}

#[tokio::test]
async fn an_agent_that_starts_anew_waits_for_the_slot_again() {
    let world = World::start().await;
    let gvisor = world.gvisor().await;
    let mut agent = Agent::start(&world);
    agent.take(gated(&world, 1, &[&gvisor], &[]));
    agent.until("gvisor", Phase::Queued).await;
    agent.stop().await;
    let mut agent = Agent::start(&world);
    agent.until("gvisor", Phase::Queued).await;
    assert_eq!(world.restarts().await, 0);
    agent.files.slots().give(Generation(1), MINUTE);
    agent.until("gvisor", Phase::Loaded).await;
    agent.stop().await;
}

#[tokio::test]
async fn a_slot_that_is_over_leaves_the_node_waiting_for_another() {
    let world = World::start().await;
    let gvisor = world.gvisor().await;
    let touchy = HostFaults { touchy_key: Some("x".to_owned()), ..HostFaults::default() };
    world.faults(touchy).await;
    let mut agent = Agent::start(&world);
    agent.take(gated(&world, 1, &[&gvisor], &[]));
    agent.until("gvisor", Phase::Queued).await;
    agent.files.slots().give(Generation(1), MINUTE);
    let blocked = agent.until("gvisor", Phase::Blocked).await;
    assert_eq!(blocked.reason, Some(Reason::ContainerdConfigForeignChange));
    agent.files.slots().give(Generation(1), Duration::ZERO);
    // Its time has come once more, and it may not any more.
    let queued = agent.until("gvisor", Phase::Queued).await;
    assert_eq!(queued.reason, None);
    world.faults(HostFaults::default()).await;
    agent.retry.notify_one();
    agent.take(gated(&world, 2, &[&gvisor], &[]));
    let again = agent.reports.wait_for(|report| report.generation == Generation(2));
    tokio::time::timeout(LIMIT, again).await.unwrap().unwrap();
    agent.until("gvisor", Phase::Queued).await;
    assert_eq!(world.restarts().await, 0);
    agent.files.slots().give(Generation(2), MINUTE);
    agent.until("gvisor", Phase::Loaded).await;
    agent.stop().await;
}

/// A node with a slot, and what happens there at calls of its containerd, each
/// with its number among those of its name.
async fn with_a_slot(
    world: &World,
    happens: impl Fn(&Slots, &str, usize) + Send + Sync + 'static,
) -> Agent {
    let gvisor = world.gvisor().await;
    let slots = Arc::new(OnceLock::new());
    let (known, counts) = (Arc::clone(&slots), Mutex::new(BTreeMap::new()));
    let fate = move |call: &'static str| {
        if let Some(slots) = known.get() {
            let mut counts = counts.lock().unwrap();
            let count = counts.entry(call).or_insert(0_usize);
            *count += 1;
            happens(slots, call, *count);
        }
        Fate::Live
    };
    let host = SimulatedHost::new(&world.root()).with_start(Duration::from_millis(1));
    let (host, _) = Mortal::new(host, fate);
    let pace = Pace { settle: Duration::ZERO, still: Duration::ZERO, ..Pace::default() };
    let mut agent = Agent::open(&world.root(), Arc::new(host), pace).unwrap();
    agent.take(gated(world, 1, &[&gvisor], &[]));
    agent.until("gvisor", Phase::Queued).await;
    // From here on it counts.
    assert!(slots.set(agent.files.slots().clone()).is_ok());
    agent.files.slots().give(Generation(1), MINUTE);
    agent
}

#[tokio::test]
async fn a_slot_that_ends_while_a_configuration_is_tried_is_not_used() {
    let world = World::start().await;
    let (tried, mut is_tried) = watch::channel(false);
    // The first is of what is in place, the second of the candidate.
    let happens = move |slots: &Slots, call: &str, count: usize| {
        if (call, count) == ("dump", 2) {
            slots.give(Generation(1), Duration::ZERO);
            tried.send_replace(true);
        }
    };
    let mut agent = with_a_slot(&world, happens).await;
    tokio::time::timeout(LIMIT, is_tried.wait_for(|is| *is)).await.unwrap().unwrap();
    let reported = agent.reports.wait_for(|report| {
        // What is said of it never is that it begins.
        let said = report.bundles.values().next().unwrap();
        assert_ne!(said.phase, Phase::Activating);
        said.phase == Phase::Queued
    });
    tokio::time::timeout(LIMIT, reported).await.unwrap().unwrap();
    assert_eq!((world.config().as_str(), world.restarts().await), (CONFIG, 0));
    assert_eq!(agent.files.record().activation, None);
    agent.files.slots().give(Generation(1), MINUTE);
    agent.until("gvisor", Phase::Loaded).await;
    agent.stop().await;
}

#[tokio::test]
async fn an_activation_that_put_nothing_in_place_is_not_open() {
    let world = World::start().await;
    let config = world.root().join("etc/containerd/config.toml");
    let others = format!("{CONFIG}\n# of somebody else\n");
    let (moved, mut is_moved) = watch::channel(false);
    let text = others.clone();
    let happens = move |slots: &Slots, call: &str, _: usize| match call {
        // Another program writes while the candidate is tried.
        "dump" if !*moved.borrow() && std::fs::read_to_string(&config).unwrap() == CONFIG => {
            std::fs::write(&config, &text).unwrap();
            moved.send_replace(true);
        }
        // By the time that the node is looked at next the slot is over.
        "containerd" if *moved.borrow() => slots.give(Generation(1), Duration::ZERO),
        _ => {}
    };
    let mut agent = with_a_slot(&world, happens).await;
    tokio::time::timeout(LIMIT, is_moved.wait_for(|is| *is)).await.unwrap().unwrap();
    let slots = agent.files.slots().clone();
    let over = agent.reports.wait_for(|report| {
        let said = report.bundles.values().next().unwrap();
        said.phase == Phase::Queued && !slots.is_open(Generation(1))
    });
    tokio::time::timeout(LIMIT, over).await.unwrap().unwrap();
    assert_eq!(agent.files.record().activation, None);
    assert_eq!((world.config(), world.restarts().await), (others, 0));
    agent.stop().await;
}

#[tokio::test]
async fn what_others_take_out_waits_for_a_slot_too() {
    let world = World::start().await;
    let gvisor = world.gvisor().await;
    let host = SimulatedHost::new(&world.root()).with_start(Duration::from_millis(10));
    let pace = Pace { settle: Duration::ZERO, still: Duration::ZERO, ..Pace::default() };
    let mut agent = Agent::open(&world.root(), Arc::new(host), pace).unwrap();
    agent.take(gated(&world, 1, &[&gvisor], &[]));
    agent.files.slots().give(Generation(1), MINUTE);
    agent.until("gvisor", Phase::Loaded).await;
    // The slot is over, and nothing is looked at before somebody asks for it.
    agent.take(gated(&world, 2, &[&gvisor], &[]));
    let next = agent.reports.wait_for(|report| report.generation == Generation(2));
    tokio::time::timeout(LIMIT, next).await.unwrap().unwrap();
    std::fs::write(world.root().join("etc/containerd/config.toml"), CONFIG).unwrap();
    SimulatedHost::restart(&world.root()).await.unwrap();
    agent.retry.notify_one();
    let queued = agent.until("gvisor", Phase::Queued).await;
    assert_eq!((queued.digest, queued.handlers), (Some(gvisor.digest), vec![]));
    assert_eq!((world.config().as_str(), world.restarts().await), (CONFIG, 2));
    agent.files.slots().give(Generation(2), MINUTE);
    agent.until("gvisor", Phase::Loaded).await;
    assert_eq!(world.restarts().await, 3);
    assert_eq!(agent.files.record().drift.repaired, 1);
    assert_installed(&world, &[&gvisor]);
    agent.stop().await;
}

#[tokio::test]
async fn the_way_back_needs_no_slot() {
    let world = World::start().await;
    let gvisor = world.gvisor().await;
    let handlers = ["gvisor".parse().unwrap()].into();
    world.faults(HostFaults { unproven_handlers: handlers, ..HostFaults::default() }).await;
    // The slot is taken back as soon as it is used.
    let take_back = Arc::new(OnceLock::<Box<dyn Fn() + Send + Sync>>::new());
    let at_use = Arc::clone(&take_back);
    let fate = move |call: &str| {
        if let ("restart_containerd", Some(take_back)) = (call, at_use.get()) {
            take_back();
        }
        Fate::Live
    };
    let host = SimulatedHost::new(&world.root()).with_start(Duration::from_millis(1));
    let (host, _) = Mortal::new(host, fate);
    let mut agent = Agent::with_host(&world, Arc::new(host));
    let slots = agent.files.slots().clone();
    let zero = move || slots.give(Generation(1), Duration::ZERO);
    assert!(take_back.set(Box::new(zero)).is_ok());
    agent.take(gated(&world, 1, &[&gvisor], &[]));
    agent.files.slots().give(Generation(1), MINUTE);
    agent.fails(Phase::RolledBack, Reason::ProofFailed).await;
    assert!(!agent.files.slots().is_open(Generation(1)));
    assert_eq!((world.config().as_str(), world.restarts().await), (CONFIG, 2), "there and back");
    // Nor does what failed begin again with what is left of one.
    agent.files.slots().give(Generation(1), MINUTE);
    agent.take(gated(&world, 2, &[&gvisor], &[]));
    agent.files.slots().give(Generation(2), MINUTE);
    let again = |report: &NodeReport| report.generation == Generation(2) && report.settled;
    tokio::time::timeout(LIMIT, agent.reports.wait_for(again)).await.unwrap().unwrap();
    agent.fails(Phase::RolledBack, Reason::ProofFailed).await;
    assert_eq!(world.restarts().await, 2);
    agent.stop().await;
}

/// An agent that was killed when it was about to restart containerd for its
/// first desired state.
pub(super) async fn killed(world: &World, first: Held) -> Agent {
    let host = SimulatedHost::new(&world.root()).with_start(Duration::from_millis(1));
    let fate = |call: &str| match call {
        "restart_containerd" => Fate::DieBefore,
        _ => Fate::Live,
    };
    let (host, mut dead) = Mortal::new(host, fate);
    let agent = Agent::with_host(world, Arc::new(host));
    agent.take(first);
    agent.files.slots().give(Generation(1), MINUTE);
    let died = dead.wait_for(Option::is_some);
    tokio::time::timeout(LIMIT, died).await.unwrap().unwrap();
    agent
}

/// A node whose agent was killed so with a bundle, and the desired state that it
/// finds when it comes back.
async fn killed_with(world: &World, gvisor: &DesiredBundle, next: &[&DesiredBundle]) -> Agent {
    let agent = killed(world, gated(world, 1, &[gvisor], &[])).await;
    agent.take(gated(world, 2, next, &[]));
    agent.stop().await;
    assert_eq!(world.restarts().await, 0);
    Agent::start(world)
}

#[tokio::test]
async fn what_has_begun_is_ended_without_a_slot_and_takes_nothing_along() {
    let world = World::start().await;
    let (gvisor, kata) = (world.gvisor().await, world.bundle(&Tiny::new("kata", "1")).await);
    let mut agent = killed_with(&world, &gvisor, &[&gvisor, &kata]).await;
    agent.until("gvisor", Phase::Loaded).await;
    agent.until("kata", Phase::Queued).await;
    assert_eq!(world.restarts().await, 1);
    assert!(!world.config().contains(&kata.digest.hex()), "{}", world.config());
    agent.files.slots().give(Generation(2), MINUTE);
    agent.until("kata", Phase::Loaded).await;
    assert_eq!(world.restarts().await, 2);
    assert_installed(&world, &[&gvisor, &kata]);
    agent.stop().await;
}

#[tokio::test]
async fn another_bundle_does_not_take_the_place_of_one_that_has_begun() {
    let world = World::start().await;
    let (one, two) = (world.gvisor().await, world.bundle(&Tiny::new("gvisor", "2")).await);
    let mut agent = killed_with(&world, &one, &[&two]).await;
    let ended = agent.reports.wait_for(|report| {
        let gvisor = report.bundles.values().next();
        gvisor.is_some_and(|is| is.phase == Phase::Queued && is.handlers == ["gvisor"])
    });
    tokio::time::timeout(LIMIT, ended).await.unwrap().unwrap();
    assert_eq!(world.restarts().await, 1);
    assert_eq!(agent.files.record().activation, None);
    assert!(agent.files.record().rejected.is_empty(), "nothing failed");
    let config = world.config();
    assert!(config.contains(&one.digest.hex()) && !config.contains(&two.digest.hex()), "{config}");
    agent.files.slots().give(Generation(2), MINUTE);
    let has = agent.reports.wait_for(|report| {
        report.bundles.values().any(|b| b.digest == Some(two.digest) && b.phase == Phase::Loaded)
    });
    tokio::time::timeout(LIMIT, has).await.unwrap().unwrap();
    assert_eq!(world.restarts().await, 2);
    agent.stop().await;
}

#[tokio::test]
async fn a_containerd_that_is_down_is_said_and_nobodys_turn() {
    let world = World::start().await;
    let gvisor = world.gvisor().await;
    let mut agent = Agent::start(&world);
    agent.take(gated(&world, 1, &[&gvisor], &[]));
    agent.files.slots().give(Generation(1), MINUTE);
    agent.until("gvisor", Phase::Loaded).await;
    agent.files.slots().give(Generation(1), Duration::ZERO);
    world.faults(HostFaults { start_fails: true, ..HostFaults::default() }).await;
    SimulatedHost::restart(&world.root()).await.unwrap();
    agent.retry.notify_one();
    let down = agent.until("gvisor", Phase::Blocked).await;
    assert_eq!((down.reason, down.digest), (Some(Reason::ContainerdUnknown), Some(gvisor.digest)));
    world.faults(HostFaults::default()).await;
    SimulatedHost::restart(&world.root()).await.unwrap();
    agent.retry.notify_one();
    agent.until("gvisor", Phase::Loaded).await;
    assert_eq!(world.restarts().await, 3, "none of the agent's own");
    assert_eq!(agent.files.record().drift.repaired, 0, "nobody changed anything");
    agent.stop().await;
}
