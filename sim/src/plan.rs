//! What a run is: who is there, what is to be brought to them, and what befalls them.

use std::time::Duration;

use rootstock_core::bandwidth::{Budgets, Limit, Rate};
use rootstock_core::digest::Digest;
use rootstock_core::name::ShootName;
use rootstock_core::rollout::rings::{RingsConfig, RingsRecord};

use crate::bundle::Bundles;
use crate::controller::Settings;

/// A whole run, before it begins.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// Its scenario.
    pub(crate) name: &'static str,
    /// Everything that is chance comes from it.
    pub(crate) seed: u64,
    /// Nodes at the beginning, over all shoots.
    pub(crate) nodes: usize,
    /// From when on they begin.
    pub(crate) nodes_at: Duration,
    /// Whether they have the old bundle; else they have just come.
    pub(crate) settled: bool,
    /// So many come while the first slot is out, if any.
    pub(crate) growth: usize,
    /// What is the same for every controller.
    pub(crate) settings: Settings,
    /// What is recorded of the rings at first.
    pub(crate) rings: RingsRecord,
    /// The budgets at first.
    pub(crate) budgets: Budgets,
    /// Every bundle.
    pub(crate) bundles: Bundles,
    /// What every node has at first.
    pub(crate) old: Option<Digest>,
    /// What is to be brought to all, and when the catalog names it.
    pub(crate) target: Digest,
    /// When the catalog names it.
    pub(crate) target_at: Duration,
    /// What goes wrong.
    pub(crate) faults: Faults,
    /// How it is to end.
    pub(crate) ends: Ends,
    /// How many nodes a bundle may break.
    pub(crate) may_break: usize,
    /// Whether figures of the network are held against their goals.
    pub(crate) clean: bool,
    /// It has to end by then.
    pub(crate) horizon: Duration,
}

/// What goes wrong in a run.
#[derive(Clone, Debug, Default)]
pub(crate) struct Faults {
    /// In how many of a thousand pulls the connection breaks off.
    pub(crate) pull_breaks: u32,
    /// In how many of a thousand activations the host is in the way.
    pub(crate) host_fails: u32,
    /// How many nodes of a thousand have such faults.
    pub(crate) flaky_nodes: u32,
    /// How many writes of a thousand get lost, or are recorded and not answered.
    pub(crate) writes_fail: u32,
    /// How many nodes of a thousand are cut off once.
    pub(crate) cuts: u32,
    /// The time in which cuts begin.
    pub(crate) cuts_within: Duration,
    /// A node that fell silent for good is replaced after so long.
    pub(crate) replaced: Option<Duration>,
    /// The controller is killed again and again, so long after it began.
    pub(crate) kill_every: Option<Duration>,
    /// It is no longer killed after this.
    pub(crate) kills_until: Duration,
    /// The controller is killed at the write of this number, once.
    pub(crate) kill_at_write: Option<KillAt>,
    /// Other budgets, from then on.
    pub(crate) budgets: Option<(Duration, Budgets)>,
}

/// The write at which the controller is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KillAt {
    /// Before it is recorded.
    Before(u64),
    /// After it was recorded, and before its answer came.
    After(u64),
}

/// How a run is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ends {
    /// Every node works with the new bundle, and it is promoted.
    Everywhere,
    /// The rollout is halted, and every node that can works with the old one.
    Halted,
    /// The bundle is stopped for the seed.
    Stopped,
}

/// A limit of so many bytes per second.
pub(crate) fn limit(bytes_per_second: u64) -> Limit {
    Limit::At(Rate::new(bytes_per_second))
}

/// A shoot by its number.
pub(crate) fn shoot(number: usize) -> ShootName {
    match format!("shoot--sim--{number}").parse() {
        Ok(name) => name,
        Err(error) => unreachable!("a name of lower-case letters and digits: {error}"),
    }
}

impl Plan {
    /// The shoots in which the bundle may break nodes.
    pub(crate) fn first_ring(&self, shoot: usize) -> bool {
        let name = &self.settings.shoots[shoot];
        let first = |rings: &RingsConfig| rings.opted_in.contains(name);
        self.settings.rings.as_ref().is_none_or(first)
    }
}
