//! How much of the budget is used, where nothing goes wrong.
//!
//! A message takes a tick of 20 ms each way. Every tenth link is slow.

use std::fmt;

use super::network::{Agent, Network, TICK};
use crate::bandwidth::*;

const MB: u64 = 1_000_000;

/// What a link carries that is not slow: 1 Gbit/s.
const FAST: u64 = 125 * MB;

struct Outcome {
    /// Of the budget, while somebody waited.
    used_while_waiting: f64,
    /// Of the budget, or of what the links of those that were not done carry
    /// where that is less.
    used_of_links: f64,
    /// The most that came in 100 ms, of the budget.
    peak: f64,
    seconds: f64,
    mean_seconds: f64,
    messages_per_second: f64,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:.1} % while somebody waits, {:.1} % of the links, at most {:.1} % in 100 ms, {:.1} s, {:.1} s in the mean, {:.0} messages/s",
            self.used_while_waiting * 100.0,
            self.used_of_links * 100.0,
            self.peak * 100.0,
            self.seconds,
            self.mean_seconds,
            self.messages_per_second,
        )
    }
}

fn agents(number: usize, bytes: u64, knows_link: bool) -> Vec<Agent> {
    let agent = |number: usize| {
        let link = if number % 10 == 3 { (2 + number as u64 / 10 % 9) * MB } else { FAST };
        let (shoot, pool) = (format!("shoot-{}", number % 4), format!("pool-{}", number % 3));
        let mut agent = Agent::new(number, &shoot, &pool, link);
        (agent.jobs, agent.knows_link) = (vec![bytes], knows_link);
        agent
    };
    (0..number).map(agent).collect()
}

fn run(budgets: Budgets, agents: Vec<Agent>) -> Outcome {
    let budget = budgets.seed.rate().get() as f64 * TICK.as_secs_f64();
    let mut network = Network::new(budgets, agents, vec![vec![1]]);
    let (mut waiting, mut while_waiting, mut possible, mut total) = (0.0, 0.0, 0.0, 0.0);
    let (mut window, mut peak, mut first) = ([0; 5], 0_u64, None);
    while !network.agents.iter().all(Agent::is_done) {
        let came = network.step();
        // A leader that has just begun waits for the leases of another one.
        if first.is_none() && came == 0 {
            continue;
        }
        let first = *first.get_or_insert(network.tick);
        window[network.tick as usize % 5] = came;
        // When the first pull begins nothing has been given to anyone before.
        peak = peak.max(window.iter().sum());
        if network.leader.usage().waiting > 0 && network.tick > first {
            (waiting, while_waiting) = (waiting + budget, while_waiting + came as f64);
        }
        let links = network.agents.iter().filter(|agent| !agent.is_done()).map(|agent| agent.link);
        possible += budget.min(links.sum::<u64>() as f64 * TICK.as_secs_f64());
        total += came as f64;
    }
    let first = first.unwrap_or_default();
    let seconds = |tick: u32| f64::from(tick - first) * TICK.as_secs_f64();
    let finished = network.agents.iter().map(|agent| seconds(agent.finished_at));
    Outcome {
        used_while_waiting: if waiting > 0.0 { while_waiting / waiting } else { 1.0 },
        used_of_links: total / possible,
        peak: peak as f64 / (budget * 5.0),
        seconds: seconds(network.tick),
        mean_seconds: finished.sum::<f64>() / network.agents.len() as f64,
        messages_per_second: network.messages as f64 / seconds(network.tick),
    }
}

/// A budget of 1 GB/s, and perhaps one for each node.
fn budgets(node: Option<u64>) -> Budgets {
    let node = node.map_or(Limit::Unlimited, |node| Limit::At(Rate::new(node)));
    Budgets { seed: Limit::At(Rate::new(1000 * MB)), node, ..Budgets::default() }
}

#[test]
fn a_fleet_uses_the_budget_while_anybody_waits() {
    for (node, knows_link, least) in [(Some(50 * MB), false, 0.95), (None, true, 0.95)] {
        let outcome = run(budgets(node), agents(500, 100 * MB, knows_link));
        assert!(outcome.used_while_waiting >= least, "{outcome}");
        assert!(outcome.peak <= 1.0, "{outcome}");
    }
}

#[test]
fn a_wave_is_as_fast_as_its_links() {
    // Where neither links nor a node's budget are known, the first leases are
    // too high for their links, until that was measured.
    for (node, knows_link, least) in
        [(Some(FAST), true, 0.9), (None, true, 0.9), (Some(FAST), false, 0.9), (None, false, 0.7)]
    {
        let outcome = run(budgets(node), agents(20, 100 * MB, knows_link));
        assert!(outcome.used_of_links >= least, "{outcome}");
        assert!(outcome.peak <= 1.0, "{outcome}");
    }
}
