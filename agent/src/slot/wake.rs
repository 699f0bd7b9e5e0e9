//! Whether the machine has slept.

use std::time::Duration;

use crate::clock::Clock;

/// What the two clocks may differ by because they are read one after the other.
const APART: Duration = Duration::from_secs(1);

/// A moment, and how long the machine has slept since. What was on its way to
/// it then lay there all that time.
#[derive(Debug)]
pub(crate) struct Wake {
    boot: (Clock, Duration),
    awake: (Clock, Duration),
}

impl Wake {
    /// From here on.
    pub(crate) fn begin() -> Self {
        Self::by(Clock::Boot, Clock::Awake)
    }

    fn by(boot: Clock, awake: Clock) -> Self {
        let (booted, woken) = (boot.now(), awake.now());
        Self { boot: (boot, booted), awake: (awake, woken) }
    }

    /// Whether it has slept since.
    pub(crate) fn has_slept(&self) -> bool {
        let passed = |(clock, from): &(Clock, Duration)| clock.now().saturating_sub(*from);
        passed(&self.boot) > passed(&self.awake).saturating_add(APART)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_has_slept_when_only_one_of_its_clocks_went_on() {
        let (boot, awake) = (Clock::stopped(), Clock::stopped());
        let wake = Wake::by(boot.clone(), awake.clone());
        let hour = Duration::from_secs(3600);
        boot.advance(hour);
        awake.advance(hour);
        boot.advance(APART);
        assert!(!wake.has_slept());
        boot.advance(Duration::from_millis(1));
        assert!(wake.has_slept());
        assert!(!Wake::begin().has_slept());
    }
}
