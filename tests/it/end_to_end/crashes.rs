//! kill -9 at a few points ends in the same state.

use rootstock_playground::registry::{Fault, Target};
use rootstock_playground::samples::tiny::Tiny;
use rootstock_playground::seed::landscape::Shoot;
use rootstock_playground::seed::world::World;

use super::fixture::{Fixture, ONE, Plan, node};

/// Large enough that a pull can be stopped in its middle.
const DATA: usize = 4 << 20;

async fn world() -> Fixture {
    let shoot = Shoot::new("garden", "one").pool("a", &["gvisor", "kata"], 2);
    let plan = Plan::new(vec![shoot]).tiny(&["kata"]).await;
    plan.bundle(Tiny::new("gvisor", "1.0.0").with_data(DATA)).await.start().await
}

/// Everything is whole, and containerd was restarted once on each node.
async fn assert_end_state(world: &Fixture) {
    let document = world.ready().await;
    for name in ["a-1", "a-2"] {
        let node = node(&document, ONE, name);
        assert_eq!(node.containerd_restarts, 1, "{node:#?}");
        assert_eq!(node.runtimes.len(), 2, "{node:#?}");
        for runtime in &node.runtimes {
            world.assert_whole(runtime);
        }
    }
}

/// Waits until a node has some bytes of gvisor, and not all.
async fn until_in_the_middle_of_a_pull(world: &Fixture, name: &str) {
    world
        .until(&format!("{name} is pulling"), async |world: &World| {
            let page = world.page().await;
            let bundle = page.node(ONE, name).and_then(|node| node.bundle("gvisor")).cloned();
            match bundle {
                Some(bundle) if bundle.phase == "Pulling" && bundle.bytes_done > 0 => Ok(()),
                other => Err(other),
            }
        })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_nodes_pull() {
    let world = world().await;
    let stall = Fault::Stall { after: DATA as u64 / 2 };
    world.registry().faults().set(Target::Blobs, stall);
    for name in ["a-1", "a-2"] {
        until_in_the_middle_of_a_pull(&world, name).await;
    }
    // The agent alone, then both, then the controller alone.
    world.agent(ONE, "a-1").unwrap().kill().await;
    until_in_the_middle_of_a_pull(&world, "a-1").await;
    world.controller().hold().await;
    world.agent(ONE, "a-2").unwrap().kill().await;
    world.controller().release();
    until_in_the_middle_of_a_pull(&world, "a-2").await;
    world.controller().kill().await;
    world.registry().faults().clear_all();
    assert_end_state(&world).await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_the_beginning_and_at_the_end() {
    let world = world().await;
    // Before any agent has enrolled, or while the first one does.
    world.controller().kill().await;
    for name in ["a-1", "a-2"] {
        world
            .until("the agent is there", async |world: &World| {
                world.agent(ONE, name).and_then(|agent| agent.pid()).ok_or(())
            })
            .await;
        world.agent(ONE, name).unwrap().kill().await;
    }
    assert_end_state(&world).await;

    // With the controller away an agent goes on from its ledger.
    world.controller().hold().await;
    let served = world.bytes_of_files();
    for name in ["a-1", "a-2"] {
        world.agent(ONE, name).unwrap().kill().await;
    }
    world.controller().release();
    for name in ["a-1", "a-2"] {
        world.node_has(ONE, name, &["gvisor", "kata"]).await;
    }
    assert_end_state(&world).await;
    assert_eq!(world.bytes_of_files(), served, "nothing is pulled twice");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_containerd_restarts() {
    let world = world().await;
    for name in ["a-1", "a-2"] {
        world
            .until(&format!("{name} is activating"), async |world: &World| {
                let page = world.page().await;
                let node = page.node(ONE, name).cloned().ok_or(None)?;
                let activating = node.bundles.iter().any(|bundle| bundle.phase == "Activating");
                // A fast node may be through already; then the kill comes after the end.
                if activating || node.bundles.iter().any(|bundle| bundle.is_ready()) {
                    Ok(())
                } else {
                    Err(Some(node))
                }
            })
            .await;
        world.agent(ONE, name).unwrap().kill().await;
    }
    let document = world.ready().await;
    for name in ["a-1", "a-2"] {
        let node = node(&document, ONE, name);
        // Who died before the proof must restart once more: nobody saw how it went.
        assert!((1..=2).contains(&node.containerd_restarts), "{node:#?}");
        for runtime in &node.runtimes {
            world.assert_whole(runtime);
        }
    }
    world.stop().await;
}
