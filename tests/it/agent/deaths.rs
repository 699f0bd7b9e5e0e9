//! A takeover from the gVisor extension by agents that die at any call of the host.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rootstock_agent::containerd;
use rootstock_core::desired::DesiredBundle;
use rootstock_core::status::Phase;
use rootstock_playground::host::SimulatedHost;
use rootstock_playground::host::script::{CONFIG, Script};

use super::mortal::{Fate, Mortal};
use super::support::*;
use super::takeover::{Watch, files, left, pods, runsc, until_taken_over};

/// At which of its calls of the host an agent dies.
#[derive(Clone, Copy, Debug)]
struct Death {
    nth: usize,
    /// Whether the host still does what it was asked for.
    done: bool,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_dies_anywhere_takes_over_all_the_same() {
    let (world, bundle) = left(Script::default()).await;
    for done in [false, true] {
        let mut calls = BTreeSet::new();
        for nth in 0.. {
            let died = survived(&world, &bundle, Death { nth, done }).await;
            calls.extend(&died);
            if died.is_empty() {
                break;
            }
            assert!(nth < 60, "no end");
        }
        // Every call that a takeover makes, before and after it had its effect.
        let all = [
            "containerd",
            "dump",
            "facts",
            "find",
            "free_space",
            "prove",
            "restart_containerd",
            "sandboxes",
            "started_with",
            "unit",
        ];
        assert_eq!(calls, all.into(), "after the effect: {done}");
    }
}

/// A new node on which the script was, an agent that dies, and one that
/// doesn't: with a pod of the script's first, and then without. Where it died.
async fn survived(world: &World, bundle: &DesiredBundle, death: Death) -> Vec<&'static str> {
    std::fs::remove_dir_all(world.root()).unwrap();
    SimulatedHost::prepare(&world.root()).await.unwrap();
    Script::default().run(&world.root()).await.unwrap();
    pods(world, &["default/old"]).await;
    let before = files(world);
    let watched = Watch::start(world);
    let first = dying(world, bundle, death).await;
    assert_eq!(files(world), before, "{death:?}: a pod was started with them");
    let mut agent = Agent::start(world);
    agent.take(world.held(1, &[bundle]));
    agent.until("gvisor", Phase::Loaded).await;
    agent.stop().await;
    assert_eq!(files(world), before, "{death:?}: a pod was started with them");
    assert!(!world.config().contains(CONFIG), "{death:?}");

    pods(world, &[]).await;
    let second = dying(world, bundle, death).await;
    let agent = Agent::start(world);
    until_taken_over(world).await;
    agent.stop().await;
    for text in watched.end() {
        assert!(containerd::tables(&text).unwrap().contains_key(&runsc()), "{death:?}: {text}");
    }
    let history = SimulatedHost::history(&world.root()).await.unwrap();
    assert!(history[1..].iter().all(|start| start.contains(&runsc())), "{death:?}: {history:?}");
    assert_installed(world, &[bundle]);
    [first, second].into_iter().flatten().collect()
}

/// Runs an agent until it dies or has nothing to do any more. Where it died.
async fn dying(world: &World, bundle: &DesiredBundle, death: Death) -> Option<&'static str> {
    let host = SimulatedHost::new(&world.root()).with_start(Duration::from_millis(1));
    let calls = AtomicUsize::new(0);
    let fate = move |_: &str| match calls.fetch_add(1, Ordering::SeqCst) == death.nth {
        false => Fate::Live,
        true if death.done => Fate::DieAfter,
        true => Fate::DieBefore,
    };
    let (host, mut dead) = Mortal::new(host, fate);
    let mut agent = Agent::with_host(world, Arc::new(host));
    agent.take(world.held(1, &[bundle]));
    let at = tokio::select! {
        at = dead.wait_for(Option::is_some) => *at.unwrap(),
        _ = agent.reports.wait_for(|report| report.settled) => None,
    };
    agent.stop().await;
    at
}
