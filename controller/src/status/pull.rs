//! How far the bytes of a rollout are, for people.

use jiff::Timestamp;
use rootstock_core::bandwidth::Limit;
use rootstock_core::runtime_status::{Pull, Rollout};

/// How far the bytes are; nothing where all are there. The rate is that since
/// the rollout began, so that it does not jump.
pub(super) fn of(
    rollout: &Rollout,
    before: Option<&Rollout>,
    (done, all): (u64, u64),
    budget: Limit,
    now: Timestamp,
) -> Option<Pull> {
    if done >= all {
        return None;
    }
    let known = before.filter(|before| before.since == rollout.since);
    let known = known.and_then(|before| before.pull.as_ref());
    let first = known.map_or(0, |pull| pull.bytes_done);
    // A node that goes takes its bytes along.
    let done = done.max(first.min(all));
    // Nothing changes by itself: where no byte came nothing is said anew.
    if let Some(same) = known.filter(|pull| (pull.bytes_done, pull.bytes_total) == (done, all)) {
        return Some(same.clone());
    }
    let seconds = u64::try_from(now.as_second() - rollout.since.as_second()).unwrap_or_default();
    let rate = done.checked_div(seconds).filter(|rate| *rate > 0);
    let end = rate.and_then(|rate| {
        let left = i64::try_from((all - done).div_ceil(rate)).ok()?;
        Timestamp::from_second(now.as_second().checked_add(left)?).ok()
    });
    Some(Pull {
        bytes_done: done,
        bytes_total: all,
        bytes_per_second: rate,
        budget_share: rate.and_then(|rate| share(rate, budget)),
        estimated_end: end,
    })
}

/// Which part of a budget a rate is, in thousandths: more digits would only
/// make each status another one.
fn share(rate: u64, budget: Limit) -> Option<f64> {
    let Limit::At(budget) = budget else { return None };
    let thousandths = u128::from(rate) * 1000 / u128::from(budget.get().max(1));
    Some(f64::from(u32::try_from(thousandths.min(1000)).ok()?) / 1000.0)
}

#[cfg(test)]
mod tests {
    use rootstock_core::bandwidth::Rate;

    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    fn limit(rate: u64) -> Limit {
        Limit::At(Rate::new(rate))
    }

    #[test]
    fn bytes_have_a_rate_a_share_and_an_end() {
        let rollout = Rollout { since: at(1000), ..Rollout::default() };
        let of = |done, budget, now| of(&rollout, None, (done, 9000), budget, at(now));
        let pull = of(3000, limit(100), 1100).unwrap();
        assert_eq!((pull.bytes_done, pull.bytes_total), (3000, 9000));
        assert_eq!((pull.bytes_per_second, pull.budget_share), (Some(30), Some(0.3)));
        assert_eq!(pull.estimated_end, Some(at(1300)));
        let share = |done, budget| of(done, budget, 1100).unwrap().budget_share;
        assert_eq!(share(3000, Limit::Unlimited), None);
        assert_eq!(share(2000, limit(30)), Some(0.666));
        assert_eq!(share(8000, limit(30)), Some(1.0), "what others did not use");
        // Nothing came yet, and everything did.
        let none = of(0, limit(100), 1100).unwrap();
        assert_eq!((none.bytes_per_second, none.estimated_end), (None, None));
        assert_eq!(of(9000, limit(100), 1100), None);
    }

    #[test]
    fn bytes_never_go_back_and_are_said_anew_only_where_one_came() {
        let mut rollout = Rollout { since: at(1000), ..Rollout::default() };
        rollout.pull = of(&rollout, None, (3000, 9000), limit(100), at(1100));
        let later = |done, now| of(&rollout, Some(&rollout), (done, 9000), limit(100), at(now));
        assert_eq!(later(3000, 1200), rollout.pull);
        assert_eq!(later(2000, 1200), rollout.pull, "a node went with its bytes");
        assert_eq!(later(4000, 1200).unwrap().bytes_per_second, Some(20));
        let other = Rollout { since: at(1150), ..Rollout::default() };
        let begun = of(&other, Some(&rollout), (1000, 9000), limit(100), at(1200)).unwrap();
        assert_eq!(begun.bytes_done, 1000, "another rollout");
    }
}
