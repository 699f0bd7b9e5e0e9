//! What flows, held against the budgets at every instant.
//!
//! Between two events every rate is constant: it is enough to look when one changes.

use std::time::Duration;

use rootstock_core::bandwidth::{Budgets, Limit};

/// What one node has of the network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Flow {
    /// What its lease allows, bytes per second.
    pub(crate) allowed: u64,
    /// What comes: no more than its link carries.
    pub(crate) rate: u64,
    /// Whether it waits for a lease.
    pub(crate) waits: bool,
}

/// The sum of all flows, and what has come of it.
#[derive(Debug)]
pub(crate) struct Meter {
    now: Duration,
    /// What the leases allow: of all, of each shoot, of each node at most.
    allowed: u128,
    by_shoot: Vec<u128>,
    rate: u128,
    waiting: usize,
    /// The budgets that are in force, and those that may still be used up to.
    budgets: Budgets,
    bound: Budgets,
    /// In bytes times nanoseconds.
    moved: u128,
    over: u128,
    /// What came, and what could have come, while somebody waited.
    moved_in_need: u128,
    budget_in_need: u128,
    /// When the first byte was waited for, and when the last one came.
    begun: Option<Duration>,
    ended: Duration,
    /// When lowered budgets were kept to, after how long.
    lowered: Option<Duration>,
    fits_after: Option<Duration>,
}

impl Meter {
    /// Nothing flows.
    pub(crate) fn new(budgets: Budgets, shoots: usize) -> Self {
        Self {
            now: Duration::ZERO,
            allowed: 0,
            by_shoot: vec![0; shoots],
            rate: 0,
            waiting: 0,
            budgets,
            bound: budgets,
            moved: 0,
            over: 0,
            moved_in_need: 0,
            budget_in_need: 0,
            begun: None,
            ended: Duration::ZERO,
            lowered: None,
            fits_after: None,
        }
    }

    /// Time passes at the rates that there are.
    pub(crate) fn pass(&mut self, now: Duration) {
        let passed = now.saturating_sub(self.now).as_nanos();
        self.now = now;
        if passed == 0 {
            return;
        }
        self.moved += self.rate * passed;
        self.over += self.allowed.saturating_sub(limit(self.bound.seed)) * passed;
        if self.waiting > 0 {
            let budget = limit(self.budgets.seed);
            self.moved_in_need += self.rate.min(budget) * passed;
            self.budget_in_need += budget * passed;
        }
        if self.rate > 0 {
            self.ended = now;
        }
    }

    /// A node of a shoot has another flow from now on. What is exceeded by it, in words.
    pub(crate) fn change(&mut self, shoot: usize, before: Flow, after: Flow) -> Option<String> {
        let swap =
            |sum: u128, before: u64, after: u64| sum + u128::from(after) - u128::from(before);
        self.allowed = swap(self.allowed, before.allowed, after.allowed);
        self.by_shoot[shoot] = swap(self.by_shoot[shoot], before.allowed, after.allowed);
        self.rate = swap(self.rate, before.rate, after.rate);
        self.waiting = self.waiting + usize::from(after.waits) - usize::from(before.waits);
        if after.waits {
            self.begun.get_or_insert(self.now);
        }
        self.note_fit();
        if after.allowed <= before.allowed {
            return None;
        }
        let levels = [
            ("the seed", self.allowed, self.bound.seed),
            ("a shoot", self.by_shoot[shoot], self.bound.shoot),
            ("a node", u128::from(after.allowed), self.bound.node),
        ];
        let over = levels.into_iter().find(|(_, used, most)| *used > limit(*most));
        over.map(|(level, used, most)| {
            format!("{used} B/s may flow to {level}, of {}", most.rate())
        })
    }

    /// Other budgets are in force. Up to the higher ones may be used until
    /// [`Self::fits`].
    pub(crate) fn set(&mut self, budgets: Budgets) {
        self.bound = Budgets {
            seed: higher(self.bound.seed, budgets.seed),
            shoot: higher(self.bound.shoot, budgets.shoot),
            node: higher(self.bound.node, budgets.node),
            ..budgets
        };
        self.budgets = budgets;
        (self.lowered, self.fits_after) = (Some(self.now), None);
        self.note_fit();
    }

    /// What was granted by earlier budgets has ended. What is exceeded, in words.
    pub(crate) fn fits(&mut self) -> Option<String> {
        self.bound = self.budgets;
        let (used, most) = (self.allowed, self.budgets.seed);
        (used > limit(most))
            .then(|| format!("{used} B/s may flow to the seed, of {} by now", most.rate()))
    }

    fn note_fit(&mut self) {
        if let Some(since) = self.lowered
            && self.fits_after.is_none()
            && self.allowed <= limit(self.budgets.seed)
        {
            self.fits_after = Some(self.now.saturating_sub(since));
        }
    }

    /// Bytes that have come, of all nodes.
    pub(crate) fn moved(&self) -> f64 {
        bytes(self.moved)
    }

    /// Bytes that the leases allowed over the budget.
    pub(crate) fn over(&self) -> f64 {
        bytes(self.over)
    }

    /// The part of the budget that came while somebody waited for some.
    pub(crate) fn used_in_need(&self) -> Option<f64> {
        (self.budget_in_need > 0).then(|| self.moved_in_need as f64 / self.budget_in_need as f64)
    }

    /// From when a byte was first waited for until the last one came.
    pub(crate) fn makespan(&self) -> Duration {
        self.begun.map_or(Duration::ZERO, |begun| self.ended.saturating_sub(begun))
    }

    /// When a byte was first waited for.
    pub(crate) fn begun(&self) -> Duration {
        self.begun.unwrap_or_default()
    }

    /// How long it took until lowered budgets were kept to.
    pub(crate) fn fits_after(&self) -> Option<Duration> {
        self.fits_after.filter(|_| self.lowered.is_some())
    }

    /// The seed's budget.
    pub(crate) fn cap(&self) -> f64 {
        self.budgets.seed.rate().get() as f64
    }

    /// Whether nothing flows and nobody waits.
    pub(crate) fn is_idle(&self) -> bool {
        self.rate == 0 && self.waiting == 0
    }
}

fn limit(limit: Limit) -> u128 {
    match limit {
        Limit::Unlimited => u128::from(u64::MAX) << 32,
        Limit::At(rate) => u128::from(rate.get()),
    }
}

fn higher(one: Limit, other: Limit) -> Limit {
    if limit(one) > limit(other) { one } else { other }
}

/// From bytes times nanoseconds.
fn bytes(of: u128) -> f64 {
    of as f64 / 1e9
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::limit;

    fn flow(allowed: u64, rate: u64) -> Flow {
        Flow { allowed, rate, waits: allowed == 0 }
    }

    #[test]
    fn what_flows_is_counted_to_the_byte_and_what_is_over_is_seen() {
        let budgets = Budgets { seed: limit(100), node: limit(80), ..Budgets::default() };
        let mut meter = Meter::new(budgets, 1);
        let second = Duration::from_secs(1);
        assert_eq!(meter.change(0, Flow::default(), flow(60, 50)), None);
        meter.pass(second);
        assert_eq!((meter.moved(), meter.over()), (50.0, 0.0));
        let over = meter.change(0, Flow::default(), flow(41, 41)).unwrap();
        assert!(over.contains("101 B/s may flow to the seed"), "{over}");
        meter.pass(second * 3);
        assert_eq!((meter.moved(), meter.over()), (232.0, 2.0));
        let over = meter.change(0, flow(41, 41), flow(81, 1)).unwrap();
        assert!(over.contains("seed"), "{over}");
        assert_eq!(meter.change(0, flow(81, 1), flow(0, 0)), None);
        let over = meter.change(0, flow(60, 50), flow(81, 50)).unwrap();
        assert!(over.contains("a node"), "{over}");
    }

    #[test]
    fn lowered_budgets_bind_once_what_was_granted_before_has_ended() {
        let budgets = |seed| Budgets { seed: limit(seed), ..Budgets::default() };
        let mut meter = Meter::new(budgets(100), 1);
        meter.change(0, Flow::default(), flow(100, 100));
        meter.set(budgets(50));
        meter.pass(Duration::from_secs(1));
        assert_eq!((meter.over(), meter.fits_after()), (0.0, None));
        assert!(meter.fits().is_some(), "it flows on");
        meter.pass(Duration::from_secs(2));
        assert_eq!(meter.over(), 50.0);
        meter.change(0, flow(100, 100), flow(50, 50));
        assert_eq!(meter.fits_after(), Some(Duration::from_secs(2)));
        assert_eq!(meter.fits(), None);
    }
}
