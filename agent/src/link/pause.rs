//! How long an agent waits before it comes again.

use std::time::Duration;

use tonic::Code;

use super::LinkError;
use super::identity::IdentityError;
use super::session::SessionError;

/// The shortest pause. A controller that restarts is back within a second, and
/// a node should notice.
const FIRST: Duration = Duration::from_millis(100);
/// The first pause is drawn from up to three times this.
const BEGIN: Duration = Duration::from_millis(330);

/// What stands between an agent and its controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Nobody is there, or not ready: another one takes over soon.
    Away,
    /// It has too much to do, and says so.
    Busy,
    /// It says no: asking again is not likely to help.
    Refused,
}

impl Cause {
    pub(super) fn of(error: &LinkError) -> Self {
        match code(error) {
            Some(
                Code::Unauthenticated
                | Code::PermissionDenied
                | Code::FailedPrecondition
                | Code::Unimplemented
                // Another agent speaks for this node: two that take turns are slow at it.
                | Code::Aborted,
            ) => Self::Refused,
            Some(Code::ResourceExhausted) => Self::Busy,
            Some(_) | None => Self::Away,
        }
    }

    /// The longest pause.
    fn most(self) -> Duration {
        match self {
            // 10,000 agents that look for their controller are 3,300 attempts
            // each second, which nobody is there to feel; when it is back they
            // come over six seconds, no faster than it lets them in.
            Self::Away => Duration::from_secs(6),
            Self::Busy => Duration::from_secs(30),
            Self::Refused => Duration::from_secs(60),
        }
    }
}

/// What the controller answered, if it did.
pub(super) fn code(error: &LinkError) -> Option<Code> {
    match error {
        LinkError::Session(SessionError::Unopened(status) | SessionError::Status(status)) => {
            Some(status.code())
        }
        LinkError::Identity(IdentityError::Refused(status)) => Some(status.code()),
        LinkError::Connect(_) | LinkError::Identity(_) | LinkError::Session(_) => None,
    }
}

/// The pauses of one agent.
#[derive(Clone, Debug)]
pub struct Pauses(Duration);

impl Default for Pauses {
    fn default() -> Self {
        Self(BEGIN)
    }
}

impl Pauses {
    /// The next pause, drawn between the shortest and three times the one
    /// before: agents that lost their controller in one moment are strangers
    /// to each other soon. `roll` is any number.
    pub fn next(&mut self, cause: Cause, roll: u64) -> Duration {
        let longest = self.0.saturating_mul(3).clamp(FIRST, cause.most());
        let thousandths = u32::try_from(roll % 1001).unwrap_or_default();
        let pause = FIRST + (longest - FIRST) * thousandths / 1000;
        self.0 = pause.max(BEGIN);
        pause
    }
}

#[cfg(test)]
mod tests {
    use tonic::Status;

    use super::*;

    #[test]
    fn pauses_go_by_their_cause() {
        let session = |code| LinkError::Session(SessionError::Status(Status::new(code, "")));
        let table = [
            (session(Code::Unavailable), Cause::Away),
            (session(Code::Unknown), Cause::Away),
            (LinkError::Session(SessionError::Ended), Cause::Away),
            (LinkError::Identity(IdentityError::Late), Cause::Away),
            (session(Code::ResourceExhausted), Cause::Busy),
            (session(Code::Aborted), Cause::Refused),
            (session(Code::PermissionDenied), Cause::Refused),
            (
                LinkError::Identity(IdentityError::Refused(Status::unauthenticated(""))),
                Cause::Refused,
            ),
        ];
        for (error, want) in table {
            assert_eq!(Cause::of(&error), want, "{error}");
            let mut pauses = Pauses::default();
            assert!(pauses.next(want, 1000) <= Duration::from_secs(1));
            for _ in 0..20 {
                assert!((FIRST..=want.most()).contains(&pauses.next(want, 1000)));
            }
            assert_eq!(pauses.next(want, 1000), want.most());
            assert_eq!(pauses.next(want, 0), FIRST);
        }
    }

    #[test]
    fn ten_thousand_come_back_soon_and_not_as_one() {
        let mut state = 1_u64;
        let mut roll = || {
            // Any generator will do; this one is the same each time.
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            state >> 33
        };
        // They lose it at 0 s, and at 14 s another one takes over.
        let (back, mut arrivals) = (Duration::from_secs(14), [0_u32; 8]);
        for _ in 0..10_000 {
            let (mut pauses, mut now) = (Pauses::default(), Duration::ZERO);
            while now < back {
                now += pauses.next(Cause::Away, roll());
            }
            arrivals[usize::try_from((now - back).as_secs()).unwrap()] += 1;
        }
        assert_eq!(arrivals[6..], [0, 0], "{arrivals:?}");
        assert!(arrivals.iter().all(|n| *n < 4_500), "{arrivals:?}");
    }
}
