//! How many bytes may be read now.

use std::time::Duration;

use super::Rate;
use super::message::burst_of;

const NANOS: u128 = 1_000_000_000;

/// Reads of less than this are not worth a wait's end, where a millisecond of
/// the rate is more.
const LEAST_READ: u64 = 16 << 10;

/// Holds one reader to a rate: a generic cell rate algorithm whose cells are
/// bytes.
///
/// In any time `w` it lets through at most the rate over that time and one
/// burst, also across changes of both (the largest burst then counts), while
/// the clock stands still, and after it jumped: a process that was stopped may
/// then read its burst and no more.
///
/// It keeps what may be read instead of when the next byte would be due, in
/// billionths of a byte: rates change, and nothing is rounded.
#[derive(Clone, Debug)]
pub struct Pacer {
    rate: Rate,
    burst: u64,
    /// In bytes times nanoseconds; at most the burst's.
    credit: u128,
    /// Up to when the credit is counted.
    counted: Duration,
}

/// What may be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Take {
    /// So many bytes, at once.
    Now(u64),
    /// Nothing before this moment; [`Duration::MAX`] while the rate is zero.
    At(Duration),
}

impl Pacer {
    /// A reader that may begin with a burst. A burst is never more than 64 KiB
    /// or 10 ms of the rate, whichever is more.
    pub fn new(rate: Rate, burst: u64, now: Duration) -> Self {
        let mut pacer = Self { rate: Rate::ZERO, burst: 0, credit: 0, counted: now };
        pacer.set(rate, burst, now);
        pacer.credit = u128::from(pacer.burst) * NANOS;
        pacer
    }

    /// From now on another rate and burst. Nothing is won by it: what may be
    /// read at this moment gets no more.
    pub fn set(&mut self, rate: Rate, burst: u64, now: Duration) {
        self.count(now);
        self.rate = rate;
        self.burst = if rate == Rate::ZERO { 0 } else { burst.clamp(1, burst_of(rate)) };
        self.credit = self.credit.min(u128::from(self.burst) * NANOS);
    }

    /// Takes what may be read now, up to `want` bytes. Less than `want` comes
    /// rather than a wait, but no less than a millisecond's worth.
    pub fn take(&mut self, want: u64, now: Duration) -> Take {
        self.count(now);
        let rate = self.rate.get();
        if rate == 0 {
            return Take::At(Duration::MAX);
        }
        let least = (rate / 1000).clamp(1, LEAST_READ).min(self.burst).min(want);
        let there = u64::try_from(self.credit / NANOS).unwrap_or(u64::MAX);
        if there >= least {
            let taken = want.min(there);
            self.credit -= u128::from(taken) * NANOS;
            return Take::Now(taken);
        }
        let missing = u128::from(least) * NANOS - self.credit;
        let wait = u64::try_from(missing.div_ceil(u128::from(rate))).unwrap_or(u64::MAX);
        Take::At(self.counted.saturating_add(Duration::from_nanos(wait)))
    }

    /// Bytes that were taken and did not come.
    pub fn give_back(&mut self, bytes: u64) {
        let most = u128::from(self.burst) * NANOS;
        self.credit = (self.credit + u128::from(bytes) * NANOS).min(most);
    }

    fn count(&mut self, now: Duration) {
        let passed = now.saturating_sub(self.counted).as_nanos();
        let earned = passed.saturating_mul(u128::from(self.rate.get()));
        let most = u128::from(self.burst) * NANOS;
        self.credit = self.credit.saturating_add(earned).min(most);
        self.counted = self.counted.max(now);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MILLISECOND: Duration = Duration::from_millis(1);

    fn read(pacer: &mut Pacer, want: u64, now: Duration) -> u64 {
        match pacer.take(want, now) {
            Take::Now(bytes) => bytes,
            Take::At(_) => 0,
        }
    }

    #[test]
    fn nothing_drifts_at_any_rate() {
        for rate in [1, 3, 999, 64 << 10, 333_333_333, 10_000_000_007] {
            let mut pacer = Pacer::new(Rate::new(rate), u64::MAX, Duration::ZERO);
            let burst = read(&mut pacer, u64::MAX, Duration::ZERO);
            assert_eq!(burst, (rate / 100).max(64 << 10));
            // As somebody reads who sleeps exactly as long as told.
            let (mut now, mut came) = (Duration::ZERO, 0);
            while now < Duration::from_secs(if rate < 1000 { 500 } else { 2 }) {
                match pacer.take(1 << 20, now) {
                    Take::Now(bytes) => came += bytes,
                    Take::At(then) => {
                        assert!(then > now, "{rate}: {then:?}");
                        now = then;
                    }
                }
            }
            let due = u128::from(rate) * now.as_nanos() / NANOS;
            let late = due - u128::from(came);
            // What the next read waits for, and what comes in the nanosecond that is begun.
            let most = LEAST_READ + rate / 1_000_000_000 + 1;
            assert!(late <= u128::from(most), "{rate}: {late} bytes are missing");
        }
    }

    #[test]
    fn what_it_says_is_when_it_may() {
        let mut pacer = Pacer::new(Rate::new(1), 1, Duration::ZERO);
        assert_eq!(pacer.take(10, Duration::ZERO), Take::Now(1));
        let second = Duration::from_secs(1);
        assert_eq!(pacer.take(10, MILLISECOND), Take::At(second));
        assert_eq!(pacer.take(10, second - Duration::from_nanos(1)), Take::At(second));
        assert_eq!(pacer.take(10, second), Take::Now(1));
        assert_eq!(pacer.take(0, second), Take::Now(0));
        pacer.give_back(1);
        assert_eq!(pacer.take(10, second), Take::Now(1));
    }

    #[test]
    fn a_rate_of_zero_stops_and_no_limit_stops_nothing() {
        let mut pacer = Pacer::new(Rate::new(1 << 20), u64::MAX, Duration::ZERO);
        pacer.set(Rate::ZERO, 0, Duration::ZERO);
        assert_eq!(pacer.take(1, Duration::from_secs(9)), Take::At(Duration::MAX));
        // What was saved up before is gone.
        pacer.set(Rate::new(1 << 20), u64::MAX, Duration::from_secs(9));
        assert!(matches!(pacer.take(1 << 10, Duration::from_secs(9)), Take::At(_)));
        let mut pacer = Pacer::new(Rate::MAX, u64::MAX, Duration::ZERO);
        for now in [Duration::ZERO, MILLISECOND, Duration::MAX] {
            assert_eq!(pacer.take(1 << 30, now), Take::Now(1 << 30));
        }
    }

    #[derive(Clone, Copy, Debug)]
    enum Step {
        /// The clock goes on, or back where it says so.
        Clock {
            nanos: u64,
            back: bool,
        },
        Set {
            rate: u64,
            burst: u64,
        },
        Take(u64),
        GiveBack,
    }

    fn step() -> impl Strategy<Value = Step> {
        let rate = prop_oneof![0..3_u64, 0..1_000_000_u64, 0..10_000_000_000_u64];
        let nanos = prop_oneof![Just(0), 0..50_000_000_u64, 0..20_000_000_000_u64];
        prop_oneof![
            3 => (nanos, prop::bool::weighted(0.1))
                .prop_map(|(nanos, back)| Step::Clock { nanos, back }),
            1 => (rate, prop_oneof![0..100_000_u64, any::<u64>()])
                .prop_map(|(rate, burst)| Step::Set { rate, burst }),
            4 => prop_oneof![0..100_000_u64, any::<u64>()].prop_map(Step::Take),
            1 => Just(Step::GiveBack),
        ]
    }

    proptest! {
        #[test]
        fn in_any_window_no_more_than_the_rate_and_a_burst(
            steps in proptest::collection::vec(step(), 1..60),
        ) {
            let (mut now, mut furthest) = (Duration::ZERO, Duration::ZERO);
            let mut rate = Rate::new(1_000_000);
            let mut pacer = Pacer::new(rate, u64::MAX, now);
            // For every window that began at a step: what the rate allowed in
            // it (times 10^9), what came, and the largest burst.
            let mut windows: Vec<(u128, u128, u64)> = Vec::new();
            for step in steps {
                windows.push((0, 0, burst_of(rate)));
                let came = match step {
                    Step::Clock { nanos, back: true } => {
                        now = now.saturating_sub(Duration::from_nanos(nanos));
                        0
                    }
                    Step::Clock { nanos, back: false } => {
                        now += Duration::from_nanos(nanos);
                        let passed = now.saturating_sub(furthest).as_nanos();
                        furthest = furthest.max(now);
                        windows.iter_mut().for_each(|w| w.0 += passed * u128::from(rate.get()));
                        // It knows how far the clock was before it went back.
                        read(&mut pacer, 0, now)
                    }
                    Step::Set { rate: new, burst } => {
                        rate = Rate::new(new);
                        pacer.set(rate, burst, now);
                        windows.iter_mut().for_each(|w| w.2 = w.2.max(burst_of(rate)));
                        0
                    }
                    Step::Take(want) => match pacer.take(want, now) {
                        Take::Now(bytes) => {
                            prop_assert!(bytes <= want);
                            bytes
                        }
                        Take::At(then) => {
                            prop_assert!(then > now);
                            0
                        }
                    },
                    // As a read that was shorter: net of that, nothing came.
                    Step::GiveBack => {
                        let bytes = read(&mut pacer, 10_000, now);
                        pacer.give_back(bytes);
                        0
                    }
                };
                for (allowed, total, burst) in &mut windows {
                    *total += u128::from(came);
                    let most = *allowed + u128::from(*burst) * NANOS;
                    prop_assert!(*total * NANOS <= most, "{} of {}", *total, most / NANOS);
                }
            }
        }
    }
}
