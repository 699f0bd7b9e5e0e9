//! Virtual time: what all go by in truth, and what each node's own clock says.

use std::time::Duration;

use jiff::Timestamp;

/// Where virtual time begins, 2026-07-01T10:00:00Z: any moment would do.
const BEGIN: i64 = 1_782_900_000;

/// What the wall clock says at a moment.
pub(crate) fn wall(at: Duration) -> Timestamp {
    let begin = Timestamp::from_second(BEGIN).unwrap_or_default();
    begin.checked_add(at).unwrap_or(Timestamp::MAX)
}

/// The first moment at which the wall clock says this, or later.
pub(crate) fn at(wall: Timestamp) -> Duration {
    let begin = Timestamp::from_second(BEGIN).unwrap_or_default();
    Duration::try_from(wall.duration_since(begin)).unwrap_or_default()
}

/// A machine's monotonic clock: its own origin, its own pace.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    origin: Duration,
    /// In millionths of true time.
    pace: u64,
}

impl Clock {
    /// A clock that says `origin` when virtual time begins, and goes at so many
    /// millionths of true time.
    pub(crate) fn new(origin: Duration, pace: u64) -> Self {
        Self { origin, pace }
    }

    /// What it says at a moment.
    pub(crate) fn says(self, at: Duration) -> Duration {
        let passed = at.as_nanos() * u128::from(self.pace) / 1_000_000;
        self.origin.saturating_add(nanos(passed))
    }

    /// The first moment at which it says so much.
    pub(crate) fn when(self, says: Duration) -> Duration {
        let passed = says.saturating_sub(self.origin).as_nanos() * 1_000_000;
        nanos(passed.div_ceil(u128::from(self.pace)))
    }
}

/// So many nanoseconds, at most what 64 bits hold (584 years).
pub(crate) fn nanos(nanos: u128) -> Duration {
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_says_a_time_first_when_it_is_asked_for() {
        for pace in [990_000, 999_999, 1_000_000, 1_010_000] {
            let clock = Clock::new(Duration::from_secs(1000), pace);
            for at in [0, 1, 999, 1_234_567_891, 77_000_000_000_001] {
                let says = clock.says(nanos(at));
                let when = clock.when(says);
                assert!(when <= nanos(at) && clock.says(when) == says, "{pace} {at}");
            }
        }
    }

    #[test]
    fn the_wall_clock_reads_back() {
        let moment = Duration::from_millis(12_345);
        assert_eq!(at(wall(moment)), moment);
        assert_eq!(wall(Duration::ZERO).to_string(), "2026-07-01T10:00:00Z");
    }
}
