//! How carefully a bundle is brought to the nodes of a pool.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::amount::{self, Amount};
use super::window::WindowChoice;

const MINUTE: Duration = Duration::from_secs(60);
/// The steepest ramp.
const MAX_RAMP: u32 = 100;

/// How carefully a bundle is brought to the nodes of a pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Strategy {
    /// How many nodes try it first; a percentage is rounded up.
    pub canary: Amount,
    /// How long it has to work there, from the first sandbox on.
    pub soak: Duration,
    /// How many nodes of the pool may be unavailable at once, for whatever
    /// reason; a percentage is rounded down, and one node is always allowed.
    pub max_unavailable: Amount,
    /// By how much a wave is larger than the one before, up to `max_unavailable`.
    pub ramp: u32,
    /// How many nodes may fail in all; one more halts the rollout. Rounded down.
    pub failure_budget: Amount,
    /// How many nodes of one wave may fail; rounded up, and at least one.
    pub wave_failure_budget: Amount,
    /// How many nodes may be held up by something else than the bundle; one
    /// more and nothing is begun until there are fewer. Rounded up, at least one.
    /// Of nodes that fell silent with the bundle never as many as can be
    /// recorded ([`super::record::MAX_HELD`]).
    pub max_blocked: Amount,
    /// How long a phase may take.
    pub deadlines: Deadlines,
    /// When containerd may be restarted.
    pub window: WindowChoice,
}

/// How long a phase may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadlines {
    /// To bring the bytes to a node.
    pub pull: Duration,
    /// To activate a bundle that is on the node's disk.
    pub activate: Duration,
    /// Until a sandbox has started on the canary. A pool in which nobody asks
    /// for the runtime goes on to soak then: the agent's own proof has to do.
    pub first_sandbox: Duration,
}

impl Default for Strategy {
    fn default() -> Self {
        Self {
            canary: Amount::Count(1),
            soak: 10 * MINUTE,
            max_unavailable: Amount::Percent(10),
            ramp: 5,
            failure_budget: Amount::Count(2),
            wave_failure_budget: Amount::Percent(20),
            max_blocked: Amount::Percent(20),
            deadlines: Deadlines {
                pull: 30 * MINUTE,
                // Agents give containerd some minutes, and as many to roll back.
                activate: 15 * MINUTE,
                first_sandbox: 60 * MINUTE,
            },
            window: WindowChoice::default(),
        }
    }
}

impl Strategy {
    /// How many nodes of `all` may be unavailable: at least one.
    pub fn max_unavailable(&self, all: usize) -> usize {
        self.max_unavailable.down(all).max(1)
    }

    /// How many nodes of `all` are the canary: at least one.
    pub fn canary(&self, all: usize) -> usize {
        self.canary.up(all).max(1)
    }

    /// How many nodes wave `number` (from 1) of a rollout has that began with
    /// a canary of so many, at most `most`.
    pub fn wave(&self, canary: usize, number: u32, most: usize) -> usize {
        let ramp = self.ramp as usize;
        ramp.checked_pow(number)
            .and_then(|factor| factor.checked_mul(canary))
            .unwrap_or(most)
            .min(most)
    }
}

/// What is written of a strategy. What is absent is decided by the next one:
/// the resource's stands over the catalog's, and that over the defaults.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StrategySpec {
    /// [`Strategy::canary`]
    #[serde(default, deserialize_with = "amount::some", skip_serializing_if = "Option::is_none")]
    pub canary: Option<Amount>,
    /// [`Strategy::soak`]
    #[serde(default, with = "amount::time", skip_serializing_if = "Option::is_none")]
    pub soak: Option<Duration>,
    /// [`Strategy::max_unavailable`]
    #[serde(default, deserialize_with = "amount::some", skip_serializing_if = "Option::is_none")]
    pub max_unavailable: Option<Amount>,
    /// [`Strategy::ramp`]
    #[serde(default, deserialize_with = "ramp", skip_serializing_if = "Option::is_none")]
    pub ramp: Option<u32>,
    /// [`Strategy::failure_budget`]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure_budget: Option<Amount>,
    /// [`Strategy::wave_failure_budget`]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wave_failure_budget: Option<Amount>,
    /// [`Strategy::max_blocked`]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_blocked: Option<Amount>,
    /// [`Strategy::deadlines`]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadlines: Option<DeadlinesSpec>,
    /// [`Strategy::window`]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<WindowChoice>,
}

/// What is written of deadlines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DeadlinesSpec {
    /// [`Deadlines::pull`]
    #[serde(default, with = "amount::time", skip_serializing_if = "Option::is_none")]
    pub pull: Option<Duration>,
    /// [`Deadlines::activate`]
    #[serde(default, with = "amount::time", skip_serializing_if = "Option::is_none")]
    pub activate: Option<Duration>,
    /// [`Deadlines::first_sandbox`]
    #[serde(default, with = "amount::time", skip_serializing_if = "Option::is_none")]
    pub first_sandbox: Option<Duration>,
}

fn ramp<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
    match Option::<u32>::deserialize(deserializer)? {
        Some(wrong) if !(1..=MAX_RAMP).contains(&wrong) => Err(serde::de::Error::custom(format!(
            "invalid ramp {wrong}: want a factor of 1 (all waves alike) to {MAX_RAMP}"
        ))),
        ramp => Ok(ramp),
    }
}

impl StrategySpec {
    /// This one over another one.
    #[must_use]
    pub fn over(&self, base: &Strategy) -> Strategy {
        let deadlines = self.deadlines.unwrap_or_default();
        Strategy {
            canary: self.canary.unwrap_or(base.canary),
            soak: self.soak.unwrap_or(base.soak),
            max_unavailable: self.max_unavailable.unwrap_or(base.max_unavailable),
            ramp: self.ramp.unwrap_or(base.ramp),
            failure_budget: self.failure_budget.unwrap_or(base.failure_budget),
            wave_failure_budget: self.wave_failure_budget.unwrap_or(base.wave_failure_budget),
            max_blocked: self.max_blocked.unwrap_or(base.max_blocked),
            deadlines: Deadlines {
                pull: deadlines.pull.unwrap_or(base.deadlines.pull),
                activate: deadlines.activate.unwrap_or(base.deadlines.activate),
                first_sandbox: deadlines.first_sandbox.unwrap_or(base.deadlines.first_sandbox),
            },
            window: self.window.clone().unwrap_or_else(|| base.window.clone()),
        }
    }
}
