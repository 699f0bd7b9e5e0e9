//! Whatever befalls agents, leaders and messages: what agents may use in truth
//! is within the budgets.

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use proptest::prelude::*;

use super::network::{Agent, Fate, Fault, Network, TICK};
use crate::bandwidth::*;

const AGENTS: usize = 6;

/// After so long nothing is left of budgets that were higher: a lifetime, what
/// clocks may differ meanwhile and while a request waits, and a tick. A leader
/// can lower only what it knows of, so it counts from when it heard of a lease
/// that the one before it gave.
const GRACE: u32 = 150;

/// All faults happen before this tick.
const CALM: u32 = 1200;

fn limit() -> impl Strategy<Value = Limit> {
    prop_oneof![
        1 => Just(Limit::Unlimited),
        5 => (300_000..4_000_000_u64).prop_map(|rate| Limit::At(Rate::new(rate))),
    ]
}

fn budgets() -> impl Strategy<Value = Budgets> {
    let pulls = prop_oneof![Just(None), (1..5_u32).prop_map(NonZeroU32::new)];
    let some = (limit(), limit(), limit(), limit(), pulls).prop_map(
        |(seed, shoot, pool, node, concurrent_pulls)| Budgets {
            seed,
            shoot,
            pool,
            node,
            concurrent_pulls,
        },
    );
    prop_oneof![1 => Just(Budgets::default()), 12 => some]
}

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![
        8 => (1..4_u32).prop_map(|after| vec![after]),
        1 => (0..200_u32).prop_map(|after| vec![after]),
        1 => Just(vec![]),
        1 => (1..5_u32, 0..200_u32).prop_map(|(after, again)| vec![after, after + again]),
    ]
}

fn fault() -> impl Strategy<Value = Fault> {
    let (agent, ticks) = (0..AGENTS, 1..300_u32);
    prop_oneof![
        2 => (agent.clone(), ticks.clone()).prop_map(|(agent, ticks)| Fault::Stop(agent, ticks)),
        2 => (agent.clone(), ticks).prop_map(|(agent, ticks)| Fault::CutOff(agent, ticks)),
        2 => agent.clone().prop_map(Fault::Reconnect),
        1 => agent.clone().prop_map(Fault::Restart),
        1 => agent.prop_map(Fault::Cancel),
        2 => (0..100_u32, any::<bool>()).prop_map(|(after, told)| Fault::NewLeader(after, told)),
        2 => (0..3_usize).prop_map(Fault::Budgets),
    ]
}

fn agents(clocks: &[u32], links: &[u64], jobs: &[Vec<u64>]) -> Vec<Agent> {
    let agents = clocks.iter().zip(links).zip(jobs).enumerate();
    let agents = agents.map(|(number, ((clock, link), jobs))| {
        let (shoot, pool) = (["a", "b"][number % 2], ["x", "x", "x", "x", "y", "y"][number]);
        let mut agent = Agent::new(number, shoot, pool, *link);
        (agent.clock, agent.jobs) = (*clock, jobs.clone());
        agent.at_a_time = 1 + number % 3;
        agent.goes_on = number % 2 == 1;
        agent.knows_link = number >= 4;
        agent.class = if number == 3 { Class::Canary } else { Class::Regular };
        agent
    });
    agents.collect()
}

/// What agents may use at this moment, by level, and how many pulls that is.
fn used(network: &Network) -> (BTreeMap<String, u128>, u32) {
    let (mut sums, mut pulls) = (BTreeMap::new(), 0);
    for agent in &network.agents {
        let Puller { node, pool } = &agent.puller;
        for rate in agent.allowed(network.tick) {
            pulls += 1;
            let shoot = node.shoot();
            for level in [
                "seed".to_owned(),
                format!("shoot {shoot}"),
                format!("pool {shoot} {pool}"),
                format!("node {}", node.name()),
            ] {
                *sums.entry(level).or_insert(0) += u128::from(rate.get());
            }
        }
    }
    (sums, pulls)
}

/// The first level at which more is used than any of the budgets allows.
fn exceeded(network: &Network, budgets: &[Budgets]) -> Option<String> {
    let (sums, pulls) = used(network);
    let most = |limit: fn(&Budgets) -> Limit| {
        budgets.iter().map(|b| limit(b).rate()).max().unwrap_or(Rate::MAX)
    };
    for (level, used) in sums {
        let limit = match level.split(' ').next() {
            Some("seed") => most(|b| b.seed),
            Some("shoot") => most(|b| b.shoot),
            Some("pool") => most(|b| b.pool),
            _ => most(|b| b.node),
        };
        if limit != Rate::MAX && used > u128::from(limit.get()) {
            return Some(format!("{used} B/s of {limit} at {level}"));
        }
    }
    let most_pulls = budgets.iter().map(|b| b.concurrent_pulls.map_or(u32::MAX, NonZeroU32::get));
    (Some(pulls) > most_pulls.max()).then(|| format!("{pulls} pulls"))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_agents_may_use_is_within_the_budgets_and_all_of_them_finish(
        budgets in proptest::collection::vec(budgets(), 3),
        clocks in proptest::collection::vec(990..1011_u32, AGENTS),
        links in proptest::collection::vec(50_000..5_000_000_u64, AGENTS),
        jobs in proptest::collection::vec(proptest::collection::vec(1..3_000_000_u64, 0..6), AGENTS),
        fates in proptest::collection::vec(fate(), 97),
        faults in proptest::collection::btree_map(0..CALM, fault(), 0..40),
    ) {
        let mut network = Network::new(budgets[0], agents(&clocks, &links, &jobs), fates);
        let (mut now, mut election) = (0, None);
        // Which budgets there were, and up to when.
        let mut past: Vec<(usize, u32)> = Vec::new();
        while network.tick < CALM {
            let tick = network.tick;
            if let Some(fault) = faults.get(&tick) {
                network.befall(*fault, &budgets);
                match *fault {
                    Fault::NewLeader(after, told) => election = Some((tick + after, told)),
                    Fault::Budgets(number) => {
                        past.push((now, tick));
                        now = number;
                    }
                    Fault::Stop(..)
                    | Fault::CutOff(..)
                    | Fault::Reconnect(_)
                    | Fault::Restart(_)
                    | Fault::Cancel(_) => {}
                }
            }
            if let Some((_, told)) = election.filter(|(at, _)| *at <= tick) {
                network.elect(budgets[now], told);
                election = None;
            }
            // One agent after the other finds the leader.
            let agent = tick as usize / 9 % AGENTS;
            if !network.is_connected(agent) {
                network.connect(agent);
            }
            network.step();
            if !network.silent {
                past.retain(|(_, until)| network.heard.max(*until) + GRACE > tick);
            }
            let past = past.iter().map(|(number, _)| budgets[*number]);
            let in_force: Vec<_> = past.chain([budgets[now]]).collect();
            let exceeded = exceeded(&network, &in_force);
            prop_assert!(exceeded.is_none(), "at {tick}: {}", exceeded.unwrap_or_default());
        }
        if let Some((_, told)) = election {
            network.elect(budgets[now], told);
        }
        network.heal();
        // The slowest link carries its bytes in six minutes, all of a node's
        // one after the other; and each may wait for each of the others.
        let end = CALM + 60 * 60 * 1000 / u32::try_from(TICK.as_millis()).unwrap();
        while network.tick < end && !network.agents.iter().all(Agent::is_done) {
            network.step();
        }
        let left: Vec<_> = network.agents.iter().map(|a| (a.finished, a.jobs.len())).collect();
        prop_assert!(network.agents.iter().all(Agent::is_done), "not finished: {left:?}");
        // What is not used weighs nothing.
        for _ in 0..2 * GRACE {
            network.step();
        }
        prop_assert_eq!(network.leader.counted(), (0, 0));
    }
}
