//! What may be used at each level.

use std::num::NonZeroU32;

use serde::{Deserialize, Serialize};

use super::Limit;

/// The limits of all levels, each of bytes per second that leave the registry:
/// those of the connection below TLS, so HTTP and TLS are in it and TCP is not.
/// What is absent is unlimited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Budgets {
    /// All nodes of all shoots together.
    #[serde(skip_serializing_if = "is_unlimited")]
    pub seed: Limit,
    /// The nodes of one shoot.
    #[serde(skip_serializing_if = "is_unlimited")]
    pub shoot: Limit,
    /// The nodes of one pool of a shoot.
    #[serde(skip_serializing_if = "is_unlimited")]
    pub pool: Limit,
    /// One node.
    #[serde(skip_serializing_if = "is_unlimited")]
    pub node: Limit,
    /// How many pulls there may be at a time, of all nodes together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub concurrent_pulls: Option<NonZeroU32>,
}

impl Budgets {
    /// What all nodes of a shoot may use together.
    pub fn of_shoot(&self) -> Limit {
        match (self.seed, self.shoot) {
            (Limit::At(seed), Limit::At(shoot)) => Limit::At(seed.min(shoot)),
            (Limit::Unlimited, limit) | (limit, Limit::Unlimited) => limit,
        }
    }
}

fn is_unlimited(limit: &Limit) -> bool {
    *limit == Limit::Unlimited
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::Rate;
    use super::*;

    #[test]
    fn the_documented_form_is_read_and_what_is_absent_is_unlimited() {
        let text = json!({"seed": "200MiB/s", "shoot": "100MiB/s", "pool": "50MiB/s", "node": "30MiB/s", "concurrentPulls": 64});
        let budgets: Budgets = serde_json::from_value(text.clone()).unwrap();
        assert_eq!(budgets.seed, Limit::At(Rate::new(200 << 20)));
        assert_eq!(budgets.concurrent_pulls, NonZeroU32::new(64));
        assert_eq!(serde_json::to_value(budgets).unwrap(), text);
        let none: Budgets = serde_json::from_value(json!({})).unwrap();
        assert_eq!(none, Budgets::default());
        assert_eq!(none.seed, Limit::Unlimited);
        assert_eq!(serde_json::to_value(none).unwrap(), json!({}));
    }

    #[test]
    fn a_shoot_has_no_more_than_the_seed() {
        let (none, low, high) =
            (Limit::Unlimited, Limit::At(Rate::new(1)), Limit::At(Rate::new(2)));
        for (seed, shoot, want) in [
            (none, none, none),
            (low, none, low),
            (none, low, low),
            (low, high, low),
            (high, low, low),
        ] {
            assert_eq!(Budgets { seed, shoot, ..Budgets::default() }.of_shoot(), want);
        }
    }

    #[test]
    fn a_typing_error_is_refused() {
        for (text, says) in [
            (json!({"seeds": "1MiB/s"}), "unknown field `seeds`"),
            (json!({"seed": "0B/s"}), "want more than 0, or unlimited"),
            (json!({"node": "30"}), "such as 200MiB/s"),
            (json!({"node": 30}), "expected a string"),
            (json!({"concurrentPulls": 0}), "nonzero"),
        ] {
            let error = serde_json::from_value::<Budgets>(text.clone()).unwrap_err().to_string();
            assert!(error.contains(says), "{text}: {error}");
        }
    }
}
