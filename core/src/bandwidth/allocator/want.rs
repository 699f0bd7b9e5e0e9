//! How fast a pull should go, by what is known of its link.

use crate::bandwidth::message::LEAST;
use crate::bandwidth::{Limit, Rate};

/// The most that a pull gets while others wait: its node's limit, or where
/// there is none a quarter of the lowest limit above it, so that a node of
/// which nothing is known can't have everything.
pub(super) fn most(node: Limit, lowest: Rate) -> Rate {
    match node {
        Limit::At(limit) => limit,
        Limit::Unlimited if lowest == Rate::MAX => Rate::MAX,
        Limit::Unlimited => lowest.scaled(1, 4).max(LEAST.min(lowest)),
    }
}

/// What a pull begins with: what its link carries where that is known, and
/// not more than brings its bytes in a twentieth of a second.
pub(super) fn first(useful: Option<Rate>, bytes: u64, most: Rate) -> Rate {
    if most == Rate::MAX {
        return most;
    }
    let link = useful.unwrap_or(Rate::MAX);
    let little = Rate::saturating(u128::from(bytes) * 20);
    link.min(little).max(LEAST).min(most)
}

/// What a pull could use from here on: a twentieth more than it has used, or
/// twice what it has where it used all of that, but not more than `most`.
/// Between the two, and where nothing was measured, what it wanted before.
///
/// A lease that is trimmed to its link is used at 20/21, and is neither
/// trimmed nor doubled again.
pub(super) fn next(want: Rate, granted: Rate, used: Option<Rate>, most: Rate) -> Rate {
    let Some(used) = used else { return want.min(most) };
    let percent = |of: u128| u128::from(granted.get()) * of;
    let used100 = u128::from(used.get()) * 100;
    let next = if used100 >= percent(97) {
        want.max(granted.scaled(2, 1))
    } else if used100 < percent(85) {
        used.scaled(21, 20).max(LEAST)
    } else {
        granted
    };
    next.min(most)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MB: u64 = 1_000_000;

    fn mb(rate: u64) -> Rate {
        Rate::new(rate * MB)
    }

    #[test]
    fn a_pull_begins_as_fast_as_its_link_where_that_is_known() {
        let node = most(Limit::At(mb(30)), mb(30));
        let quarter = most(Limit::Unlimited, mb(200));
        let cases = [
            (None, 100 * MB, node, mb(30)),
            (Some(mb(10)), 100 * MB, node, mb(10)),
            (Some(mb(100)), 100 * MB, node, mb(30)),
            (Some(Rate::new(u64::MAX)), u64::MAX, node, mb(30)),
            (Some(Rate::ZERO), 100 * MB, node, LEAST),
            (None, 1000, node, LEAST),
            (None, 0, node, LEAST),
            (None, MB, node, mb(20)),
            (None, 100 * MB, quarter, mb(50)),
            (Some(mb(90)), 100 * MB, quarter, mb(50)),
            (Some(mb(9)), 100 * MB, Rate::MAX, Rate::MAX),
            // Where a budget is lower than what is worth a pull, it is worth one.
            (None, 100 * MB, most(Limit::Unlimited, Rate::new(9)), Rate::new(9)),
        ];
        for (useful, bytes, most, rate) in cases {
            assert_eq!(first(useful, bytes, most), rate, "{useful:?} {bytes} {most}");
        }
    }

    #[test]
    fn a_lease_is_trimmed_to_its_link_once_and_doubled_where_it_is_all_used() {
        let cases = [
            (mb(30), mb(30), None, mb(30)),
            (mb(30), mb(10), None, mb(30)),
            (mb(30), mb(10), Some(mb(10)), mb(30)),
            (mb(10), mb(10), Some(Rate::new(9_800_000)), mb(20)),
            (mb(10), mb(10), Some(mb(9)), mb(10)),
            (mb(30), mb(30), Some(mb(10)), Rate::new(10_500_000)),
            (Rate::new(10_500_000), Rate::new(10_500_000), Some(mb(10)), Rate::new(10_500_000)),
            (mb(30), mb(30), Some(Rate::new(1)), LEAST),
            (mb(20), mb(20), Some(Rate::MAX), mb(40)),
            (mb(30), mb(30), Some(Rate::MAX), mb(50)),
            (mb(70), mb(70), None, mb(50)),
        ];
        for (want, granted, used, then) in cases {
            assert_eq!(next(want, granted, used, mb(50)), then, "{want} {granted} {used:?}");
        }
    }
}
