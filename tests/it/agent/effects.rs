//! Changes of a node by agents that are stopped, refused or led astray at each
//! of their effects on its disk, one by one.
//!
//! * `kill`: the agent dies before an effect, or after it
//! * `power`: the node loses power there, and with it what was not synced
//! * `refused`: the kernel refuses the effect
//! * `attack`: somebody puts a link in its way
//!
//! Each try has a node of its own, copied from the same one. What anybody may
//! use at that instant is looked at after every effect, by `sound`.

mod attack;
mod disk;
mod kill;
mod node;
mod power;
mod refused;
mod sound;

use std::path::PathBuf;

use rootstock_agent::store::Held;
use rootstock_core::desired::DesiredBundle;
use rootstock_core::status::Phase;
use rootstock_playground::host::HostFaults;
use rootstock_playground::samples::tiny::Tiny;

use super::support::*;

/// A change of a node, and how it has to end.
#[derive(Clone, Debug)]
struct Change {
    name: &'static str,
    /// The node before it.
    before: PathBuf,
    /// What the agent is told.
    wish: Held,
    /// Every bundle that may be seen on the node.
    known: Vec<DesiredBundle>,
    /// What containerd has at the end.
    active: Vec<DesiredBundle>,
    /// What else is on the disk at the end.
    used: Vec<DesiredBundle>,
    /// The phase of what the agent is told.
    phase: Phase,
}

/// The changes, and the registry that the bundles are in.
struct Changes {
    world: World,
    all: Vec<Change>,
}

impl Changes {
    async fn new() -> Self {
        let world = World::start().await;
        let first = world.bundle(&Tiny::new("gvisor", "1").with_data(3 << 10)).await;
        let second = world.bundle(&Tiny::new("gvisor", "2").with_data(3 << 10)).await;
        let known = vec![first.clone(), second.clone()];
        let kept = |name: &str| {
            let kept = world.dir.path().join(name);
            node::copy(&world.root(), &kept);
            kept
        };
        let empty = kept("empty");
        let mut agent = Agent::start(&world);
        agent.take(world.held(1, &[&first]));
        agent.until("gvisor", Phase::Loaded).await;
        agent.stop().await;
        let installed = kept("installed");
        world.pods(&["gvisor"]).await;
        let used = kept("used");
        world.pods(&[]).await;
        let unproven_handlers = ["gvisor".parse().unwrap()].into();
        world.faults(HostFaults { unproven_handlers, ..HostFaults::default() }).await;
        let broken = kept("broken");

        let change = |name, before: &PathBuf, wish, active: &[&DesiredBundle], phase| Change {
            name,
            before: before.clone(),
            wish,
            known: known.clone(),
            active: active.iter().copied().cloned().collect(),
            used: Vec::new(),
            phase,
        };
        let (old, new) = (world.held(1, &[&first]), world.held(2, &[&second]));
        let mut beside =
            change("upgrade beside a pod", &used, new.clone(), &[&second], Phase::Loaded);
        beside.used.push(first.clone());
        let mut broken = change("rollback", &broken, new.clone(), &[&first], Phase::RolledBack);
        // It is at hand if somebody wants it tried again.
        broken.used.push(second.clone());
        let all = vec![
            change("install", &empty, old, &[&first], Phase::Loaded),
            change("upgrade", &installed, new, &[&second], Phase::Loaded),
            beside,
            broken,
            change("uninstall", &installed, world.held(2, &[]), &[], Phase::Removed),
        ];
        Self { world, all }
    }
}
