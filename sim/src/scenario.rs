//! The scenarios by name, each a plan for so many nodes and a seed.

use std::time::Duration;

use rootstock_core::bandwidth::Budgets;
use rootstock_core::name::RuntimeType;
use rootstock_core::rollout::rings::{RingsConfig, RingsRecord, TypeRecord};
use rootstock_core::rollout::strategy::Strategy;
use rootstock_core::rollout::window::WindowChoice;
use rootstock_core::state::State;

use crate::bundle::{Bundles, Fate, digests};
use crate::controller::Settings;
use crate::plan::{Ends, Faults, Plan, limit, shoot};

/// What happens in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scenario {
    /// All nodes of a seed join at once, and nothing was there before.
    ColdStart,
    /// A new bundle, by canary, soak and waves.
    Upgrade,
    /// The new bundle breaks every node that activates it.
    BadBundle,
    /// Who activates the new bundle is never heard of again.
    SilentBundle,
    /// Pulls break off and hosts are in the way, and the bundle is good.
    Flaky,
    /// Three nodes in ten are cut off from the controller for a while.
    Partition,
    /// The controller is killed every five seconds.
    LeaderKill,
    /// The budget is halved in the middle of the pulls.
    Halved,
    /// The pool grows a hundredfold while the canary is out.
    Growth,
    /// The same, and the bundle breaks every node.
    GrowthBad,
    /// Hundreds of shoots at once, ring by ring.
    ManyShoots,
    /// The same, and the bundle breaks every node.
    ManyShootsBad,
}

/// The bytes of a bundle: a gVisor release, compressed.
const BUNDLE: u64 = 60_000_000;
/// The budget is such that bytes are what is short: 200 s for all nodes together.
const BUDGET_PER_NODE: u64 = BUNDLE / 200;
/// The budget of one node.
const NODE_BUDGET: u64 = 30_000_000;
/// When the catalog names the new bundle.
const TARGET: Duration = Duration::from_secs(10);
/// So long a kill or a cut may come.
const HOUR: Duration = Duration::from_secs(3600);

impl Scenario {
    /// Every scenario.
    pub(crate) const ALL: [Self; 12] = [
        Self::ColdStart,
        Self::Upgrade,
        Self::BadBundle,
        Self::SilentBundle,
        Self::Flaky,
        Self::Partition,
        Self::LeaderKill,
        Self::Halved,
        Self::Growth,
        Self::GrowthBad,
        Self::ManyShoots,
        Self::ManyShootsBad,
    ];

    /// Its name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::ColdStart => "cold-start",
            Self::Upgrade => "upgrade",
            Self::BadBundle => "bad-bundle",
            Self::SilentBundle => "silent-bundle",
            Self::Flaky => "flaky",
            Self::Partition => "partition",
            Self::LeaderKill => "leader-kill",
            Self::Halved => "halved",
            Self::Growth => "growth",
            Self::GrowthBad => "growth-bad",
            Self::ManyShoots => "many-shoots",
            Self::ManyShootsBad => "many-shoots-bad",
        }
    }

    /// The plan of a run.
    pub(crate) fn plan(self, nodes: usize, seed: u64) -> Plan {
        let nodes = nodes.max(1);
        let mut plan = base(self.name(), nodes, seed);
        match self {
            Self::ColdStart => {
                (plan.settled, plan.old, plan.target_at) = (false, None, Duration::ZERO);
                // What brings agents to a seed's first nodes is their controller.
                plan.nodes_at = Duration::from_secs(5);
                plan.clean = true;
            }
            Self::Upgrade => plan.clean = true,
            Self::BadBundle => plan.breaks(),
            Self::SilentBundle => {
                plan.target = plan.bundles.add("silent", BUNDLE, Fate::Silences);
                plan.ends = Ends::Halted;
                plan.may_break = plan.settings.strategy.canary(nodes);
                // Some time before its slot ends a machine is replaced, or nobody does that.
                plan.faults.replaced = (!seed.is_multiple_of(2)).then_some(HOUR / 6);
            }
            Self::Flaky => {
                // Each host fails at times, or few of them often.
                let (every, often) = if seed.is_multiple_of(2) { (1000, 100) } else { (100, 300) };
                plan.faults.flaky_nodes = every;
                (plan.faults.pull_breaks, plan.faults.host_fails) = (often, often);
                plan.horizon = HOUR * 48;
            }
            Self::Partition => {
                (plan.faults.cuts, plan.faults.cuts_within) = (300, HOUR / 2);
            }
            Self::LeaderKill => {
                plan.faults.kill_every = Some(Duration::from_secs(5));
                plan.faults.kills_until = plan.horizon;
            }
            Self::Halved => {
                let half = BUDGET_PER_NODE * nodes as u64 / 2;
                let budgets = Budgets { seed: limit(half), ..plan.budgets };
                plan.faults.budgets = Some((Duration::from_secs(80), budgets));
                plan.clean = true;
            }
            Self::Growth => plan.grows(nodes),
            Self::GrowthBad => {
                plan.grows(nodes);
                plan.breaks();
            }
            Self::ManyShoots => plan.many_shoots(nodes),
            Self::ManyShootsBad => {
                plan.many_shoots(nodes);
                plan.breaks();
                plan.ends = Ends::Stopped;
            }
        }
        plan
    }
}

/// One shoot whose nodes work with an old bundle when the catalog names a new one.
fn base(name: &'static str, nodes: usize, seed: u64) -> Plan {
    let mut bundles = Bundles::default();
    let old = bundles.add("old", BUNDLE, Fate::Works);
    let target = bundles.add("new", BUNDLE, Fate::Works);
    let budgets = Budgets {
        seed: limit(BUDGET_PER_NODE * nodes as u64),
        node: limit(NODE_BUDGET),
        ..Budgets::default()
    };
    Plan {
        name,
        seed,
        nodes,
        settled: true,
        growth: 0,
        settings: Settings {
            runtime: runtime(),
            strategy: Strategy { window: WindowChoice::None, ..Strategy::default() },
            rings: None,
            shoots: vec![shoot(0)],
            pace: pace(nodes),
            hasty: false,
        },
        rings: RingsRecord::default(),
        budgets,
        bundles,
        old: Some(old),
        nodes_at: Duration::ZERO,
        target,
        target_at: TARGET,
        faults: Faults { writes_fail: 5, ..Faults::default() },
        ends: Ends::Everywhere,
        may_break: 0,
        clean: false,
        horizon: HOUR * 6,
    }
}

fn runtime() -> RuntimeType {
    match "gvisor".parse() {
        Ok(runtime) => runtime,
        Err(error) => unreachable!("a name of lower-case letters: {error}"),
    }
}

/// How long the controller waits between looks: a fraction of what it can do.
fn pace(nodes: usize) -> Duration {
    Duration::from_millis(100)
        + Duration::from_micros(100) * u32::try_from(nodes).unwrap_or(u32::MAX)
}

impl Plan {
    /// What each shoot's resource records at first.
    pub(crate) fn states(&self) -> Vec<State> {
        let promoted = self.old.filter(|_| self.settled).map(digests).unwrap_or_default();
        let state = State { promoted, ..State::default() };
        vec![state; self.settings.shoots.len()]
    }

    /// The new bundle breaks every node, in one of three ways.
    fn breaks(&mut self) {
        let fates = [Fate::RollsBack, Fate::Degrades, Fate::FailsPods];
        let fate = fates[usize::try_from(self.seed % 3).unwrap_or(0)];
        self.target = self.bundles.add("bad", BUNDLE, fate);
        self.ends = Ends::Halted;
        let canary = self.settings.strategy.canary(self.nodes);
        let rings = self.settings.rings.as_ref();
        self.may_break = rings.map_or(1, |rings| rings.opted_in.len()) * canary;
    }

    /// A hundredth of the nodes are there at first.
    fn grows(&mut self, nodes: usize) {
        self.nodes = (nodes / 100).max(10).min(nodes);
        self.growth = nodes - self.nodes;
    }

    /// Nodes spread over shoots, of which some are first.
    fn many_shoots(&mut self, nodes: usize) {
        let shoots = (nodes / 4).clamp(1, 250);
        self.settings.shoots = (0..shoots).map(shoot).collect();
        self.settings.pace = pace(nodes / shoots);
        let first = (shoots / 50).max(2).min(shoots);
        self.settings.rings = Some(RingsConfig {
            opted_in: (0..first).map(shoot).collect(),
            soak_seconds: 600,
            ..RingsConfig::default()
        });
        let promoted = self.old.map(digests).unwrap_or_default();
        let record = TypeRecord { promoted, ..TypeRecord::default() };
        self.rings.types.insert(self.settings.runtime.clone(), record);
        // A shoot's budget is a tenth of the seed's.
        let seed = self.budgets.seed.rate().get();
        self.budgets.shoot = limit((seed / 10).max(1));
    }
}
