//! How long to stay away from the controller, by cause.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::time::Duration;

use tonic::Code;

/// The first pause; each following one is up to three times the one before
/// (decorrelated jitter), so that ten thousand agents that lose their
/// controller at once come back spread out.
const FIRST: Duration = Duration::from_millis(100);
/// The longest pause while the controller can't be reached.
const UNREACHABLE: Duration = Duration::from_secs(15);
/// The longest pause while the controller says no: only a person, or time, changes that.
const REFUSED: Duration = Duration::from_secs(60);
/// Two agents on one node would throw each other out without end.
const REPLACED: Duration = Duration::from_secs(5);
/// The longest pause that a controller may ask for.
const PLANNED: Duration = Duration::from_secs(300);

/// Why there is no stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The controller can't be reached, or can't answer now.
    Unreachable,
    /// The controller says no.
    Refused,
    /// Another stream of this node took over.
    Replaced,
    /// It was agreed to come back after this time.
    Planned(Duration),
}

impl Cause {
    /// The cause behind a gRPC code.
    pub fn of(code: Code) -> Self {
        match code {
            Code::Aborted => Self::Replaced,
            Code::Unauthenticated
            | Code::PermissionDenied
            | Code::InvalidArgument
            | Code::FailedPrecondition
            | Code::Unimplemented
            | Code::OutOfRange
            | Code::NotFound
            | Code::AlreadyExists
            | Code::DataLoss => Self::Refused,
            Code::Ok
            | Code::Cancelled
            | Code::Unknown
            | Code::DeadlineExceeded
            | Code::ResourceExhausted
            | Code::Internal
            | Code::Unavailable => Self::Unreachable,
        }
    }
}

/// The pauses of one agent.
#[derive(Debug)]
pub struct Pauses {
    last: Duration,
}

impl Default for Pauses {
    fn default() -> Self {
        Self::new()
    }
}

impl Pauses {
    /// From the first pause on.
    pub fn new() -> Self {
        Self { last: FIRST }
    }

    /// It went well: from the first pause on again.
    pub fn reset(&mut self) {
        self.last = FIRST;
    }

    /// The next pause.
    pub fn next(&mut self, cause: Cause) -> Duration {
        self.at(cause, chance())
    }

    /// The next pause, with chance as a number from 0 to 1.
    fn at(&mut self, cause: Cause, chance: f64) -> Duration {
        let limit = match cause {
            Cause::Planned(after) => {
                // Spread over a fifth more than what was asked for.
                return after.min(PLANNED).mul_f64(1.0 + chance / 5.0);
            }
            Cause::Unreachable => UNREACHABLE,
            Cause::Refused => REFUSED,
            Cause::Replaced => {
                self.last = self.last.max(REPLACED);
                REFUSED
            }
        };
        let span = (self.last * 3).saturating_sub(FIRST);
        self.last = (FIRST + span.mul_f64(chance)).min(limit);
        if cause == Cause::Replaced {
            self.last = self.last.max(REPLACED);
        }
        self.last
    }
}

/// A number from 0 to 1. The standard library's hasher is keyed at random,
/// which is chance enough to spread agents out.
fn chance() -> f64 {
    let bits = RandomState::new().build_hasher().finish() >> 32;
    bits as f64 / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_their_limit_and_begin_anew() {
        for (cause, limit) in [(Cause::Unreachable, UNREACHABLE), (Cause::Refused, REFUSED)] {
            let mut pauses = Pauses::new();
            let grown: Vec<_> = (0..20).map(|_| pauses.at(cause, 1.0)).collect();
            assert_eq!(grown[0], FIRST * 3);
            assert!(grown.windows(2).all(|pair| pair[0] <= pair[1]), "{grown:?}");
            assert_eq!(grown[19], limit);
            pauses.reset();
            assert_eq!(pauses.at(cause, 0.0), FIRST);
        }
    }

    #[test]
    fn who_was_replaced_stays_away_for_a_while() {
        assert!(Pauses::new().at(Cause::Replaced, 0.0) >= REPLACED);
        assert_eq!(Cause::of(Code::Aborted), Cause::Replaced);
    }

    #[test]
    fn what_was_agreed_is_kept_within_bounds() {
        let mut pauses = Pauses::new();
        assert_eq!(
            pauses.at(Cause::Planned(Duration::from_secs(10)), 0.0),
            Duration::from_secs(10)
        );
        assert_eq!(
            pauses.at(Cause::Planned(Duration::from_secs(10)), 1.0),
            Duration::from_secs(12)
        );
        assert_eq!(pauses.at(Cause::Planned(Duration::MAX), 0.0), PLANNED);
    }

    #[test]
    fn chance_lies_between_nothing_and_all() {
        for _ in 0..100 {
            assert!((0.0..=1.0).contains(&chance()));
        }
    }
}
