//! What came of a run: figures, and the laws that were broken.

use std::time::Duration;

use serde_json::{Value, json};

use crate::laws::{Law, Violation};
use crate::plan::Plan;
use crate::world::World;

/// What came of a run.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    /// Its scenario.
    pub(crate) name: &'static str,
    /// Its seed.
    pub(crate) seed: u64,
    /// How many nodes there were in the end.
    pub(crate) nodes: usize,
    /// Virtual time until all was as it should be.
    pub(crate) took: Duration,
    /// How long the pulls took, of what their bytes and the budget alone need;
    /// only where nothing else is in their way.
    pub(crate) makespan_ratio: Option<f64>,
    /// The part of the budget that came while somebody waited for some, likewise.
    pub(crate) cap_use: Option<f64>,
    /// Bytes that leases allowed over the budget.
    pub(crate) bytes_over: f64,
    /// After how long a lowered budget was kept to.
    pub(crate) fits_after: Option<Duration>,
    /// Nodes that a bundle broke, and may have.
    pub(crate) broken: usize,
    /// Nodes that a bundle may break.
    pub(crate) may_break: usize,
    /// Slots that a node had twice.
    pub(crate) slots_twice: u64,
    /// Slots that were recorded, writes that were, and controllers that were killed.
    pub(crate) slots: u64,
    /// Writes that were recorded.
    pub(crate) writes: u64,
    /// Controllers that were killed.
    pub(crate) kills: u64,
    /// Events, for the curious.
    pub(crate) events: u64,
    /// What two equal runs have in common.
    pub(crate) trace: u64,
    /// The first laws that were broken.
    pub(crate) violations: Vec<Violation>,
}

/// Runs a plan to its end.
pub(crate) fn run(plan: Plan) -> (Outcome, World) {
    let mut world = World::new(plan);
    world.run();
    (Outcome::of(&world), world)
}

impl Outcome {
    fn of(world: &World) -> Self {
        let (plan, meter, laws) = (&world.plan, &world.meter, &world.laws);
        let ideal = ideal(world);
        Self {
            name: plan.name,
            seed: plan.seed,
            nodes: world.nodes().count(),
            took: world.good_since().unwrap_or_else(|| world.now()),
            makespan_ratio: (plan.clean && ideal > 0.0)
                .then(|| meter.makespan().as_secs_f64() / ideal),
            cap_use: meter.used_in_need().filter(|_| plan.clean).map(|used| used * 100.0),
            bytes_over: meter.over(),
            fits_after: meter.fits_after(),
            broken: laws.broken.len(),
            may_break: plan.may_break,
            slots_twice: laws.count(Law::SlotsTwice) + laws.count(Law::WithoutSlot),
            slots: laws.slots,
            writes: world.api().writes,
            kills: world.kills,
            events: world.events,
            trace: world.trace.get(),
            violations: laws.violations.clone(),
        }
    }

    /// Whether every law held.
    pub(crate) fn is_good(&self) -> bool {
        self.violations.is_empty() && self.bytes_over <= 0.0
    }

    /// As one line for people.
    pub(crate) fn row(&self, wall: Duration) -> String {
        let or_dash = |value: Option<f64>, unit: &str| {
            value.map_or_else(|| "-".to_owned(), |value| format!("{value:.2}{unit}"))
        };
        format!(
            "{:<16} {:>6} {:>6} {:>9.0}s {:>8} {:>8} {:>7.0} {:>4}/{:<3} {:>6} {:>6} {:>6} {:>7.1}s  {}",
            self.name,
            self.seed,
            self.nodes,
            self.took.as_secs_f64(),
            or_dash(self.makespan_ratio, "x"),
            or_dash(self.cap_use, "%"),
            self.bytes_over,
            self.broken,
            self.may_break,
            self.slots,
            self.slots_twice,
            self.kills,
            wall.as_secs_f64(),
            if self.is_good() { "ok" } else { "BROKEN" },
        )
    }

    /// The heads of the columns.
    pub(crate) fn head() -> String {
        format!(
            "{:<16} {:>6} {:>6} {:>10} {:>8} {:>8} {:>7} {:>8} {:>6} {:>6} {:>6} {:>8}  laws",
            "scenario",
            "seed",
            "nodes",
            "took",
            "makespan",
            "cap use",
            "over B",
            "broken",
            "slots",
            "twice",
            "kills",
            "wall",
        )
    }

    /// As JSON.
    pub(crate) fn json(&self, wall: Duration) -> Value {
        json!({
            "scenario": self.name,
            "seed": self.seed,
            "nodes": self.nodes,
            "tookSeconds": self.took.as_secs_f64(),
            "makespanRatio": self.makespan_ratio,
            "capUsePercent": self.cap_use,
            "bytesOver": self.bytes_over,
            "fitsAfterSeconds": self.fits_after.map(|fits| fits.as_secs_f64()),
            "nodesBroken": self.broken,
            "nodesMayBreak": self.may_break,
            "slots": self.slots,
            "slotsTwice": self.slots_twice,
            "writes": self.writes,
            "kills": self.kills,
            "events": self.events,
            "trace": format!("{:016x}", self.trace),
            "wallSeconds": wall.as_secs_f64(),
            "violations": self.violations.iter().map(ToString::to_string).collect::<Vec<_>>(),
        })
    }
}

/// How long the bytes that came need with all of the budget, in seconds.
fn ideal(world: &World) -> f64 {
    let bytes = world.meter.moved();
    let first = world.plan.budgets.seed.rate().get() as f64;
    let Some((at, _)) = world.plan.faults.budgets else { return bytes / first };
    let before = at.saturating_sub(world.meter.begun()).as_secs_f64();
    if bytes <= before * first {
        return bytes / first;
    }
    before + (bytes - before * first) / world.meter.cap()
}
