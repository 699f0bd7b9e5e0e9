//! What stands in the way of a shoot's API, how long to wait, and what is said of it.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::time::Duration;

use rootstock_core::name::ShootName;
use tokio::time::Instant;

use super::PATIENCE;

/// The first pause after a failure; it doubles.
const FIRST: Duration = Duration::from_millis(200);
/// The longest pause.
const LAST: Duration = Duration::from_secs(30);
/// The longest pause where the API works and only a role or a token is missing,
/// which somebody is about to write.
const LAST_REFUSED: Duration = Duration::from_secs(5);

/// What kind of failure it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// 401: the token is not taken.
    Unauthorized,
    /// 403: the role is not there yet.
    Forbidden,
    /// 410: the past that a watch asked for is forgotten; a list helps.
    Expired,
    /// The rest: the API is away, busy, silent, or not understood.
    Away,
}

/// Tells what kind of failure it is.
pub(super) fn kind(error: &kube::Error) -> Kind {
    let kube::Error::Api(status) = error else { return Kind::Away };
    match status.code {
        401 => Kind::Unauthorized,
        403 => Kind::Forbidden,
        410 => Kind::Expired,
        _ => Kind::Away,
    }
}

/// Pauses that grow, each with a jitter of half its length: shoots that come
/// back together don't come at once.
#[derive(Debug)]
pub(super) struct Pauses(Duration);

impl Default for Pauses {
    fn default() -> Self {
        Self(FIRST)
    }
}

impl Pauses {
    /// How long to wait after a failure of this kind; `hold` is what the API asked for.
    pub(super) fn next(&mut self, kind: Kind, hold: Option<Duration>) -> Duration {
        let most = match kind {
            Kind::Unauthorized | Kind::Forbidden => LAST_REFUSED,
            Kind::Expired | Kind::Away => LAST,
        };
        let pause = self.0.min(most);
        self.0 = (self.0 * 2).min(LAST);
        // What the API asked for is waited for as a whole, and no two come at
        // its very end.
        hold.map_or_else(|| jitter(pause), |hold| hold.max(pause / 2) + jitter(pause) / 2)
    }
}

/// Between half of it and all of it.
pub(super) fn jitter(whole: Duration) -> Duration {
    // The hasher's keys are random; that is all that is needed of it.
    let random = RandomState::new().build_hasher().finish();
    let part = u32::try_from(random % 1024).unwrap_or_default();
    whole / 2 + whole * part / 2048
}

/// Since when there is trouble, and what was said of it: a word when it
/// begins to last, one when it changes its kind, one when it is over.
#[derive(Debug)]
pub(super) struct Trouble {
    shoot: ShootName,
    since: Option<Instant>,
    patience: Duration,
    said: Option<String>,
}

impl Trouble {
    pub(super) fn new(shoot: ShootName) -> Self {
        Self { shoot, since: None, patience: PATIENCE, said: None }
    }

    /// Notes a failure. Returns what is to be shown, if it lasts and was not
    /// shown yet; `what` is the same text for the same trouble.
    pub(super) fn note(&mut self, what: &str) -> Option<String> {
        let since = *self.since.get_or_insert_with(Instant::now);
        tracing::debug!(shoot = %self.shoot, why = what, "no access to the shoot");
        if since.elapsed() < self.patience || self.said.as_deref() == Some(what) {
            return None;
        }
        tracing::warn!(shoot = %self.shoot, why = what, "the shoot's API can't be used");
        self.said = Some(what.to_owned());
        self.said.clone()
    }

    /// It works. Returns whether something else was said.
    pub(super) fn over(&mut self) -> bool {
        (self.since, self.patience) = (None, PATIENCE);
        let said = self.said.take().is_some();
        if said {
            tracing::info!(shoot = %self.shoot, "the shoot's API answers again");
        }
        said
    }

    /// Whatever was is over, and what comes may take a while: a shoot wakes up.
    pub(super) fn forgive(&mut self, patience: Duration) {
        (self.since, self.patience, self.said) = (None, patience, None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_are_never_alike() {
        let mut pauses = Pauses::default();
        let made: Vec<_> = (0..12).map(|_| pauses.next(Kind::Away, None)).collect();
        for (n, pause) in made.iter().enumerate() {
            let whole = (FIRST * (1 << n)).min(LAST);
            assert!((whole / 2..=whole).contains(pause), "{n}: {pause:?}");
        }
        let again: Vec<_> = (0..12).map(|_| pauses.next(Kind::Away, None)).collect();
        assert!(again.windows(2).any(|pair| pair[0] != pair[1]), "{again:?}");
        assert!(pauses.next(Kind::Forbidden, None) <= LAST_REFUSED);
        let hold = Duration::from_secs(40);
        assert!(pauses.next(Kind::Away, Some(hold)) >= hold);
        assert!(Pauses::default().next(Kind::Away, Some(Duration::ZERO)) >= FIRST / 2);
    }

    #[tokio::test(start_paused = true)]
    async fn trouble_is_told_when_it_lasts_and_once() {
        let mut trouble = Trouble::new("shoot--a--b".parse().unwrap());
        assert_eq!(trouble.note("a"), None, "it may pass");
        tokio::time::advance(PATIENCE).await;
        assert_eq!(trouble.note("a").as_deref(), Some("a"));
        assert_eq!(trouble.note("a"), None, "it is known");
        assert_eq!(trouble.note("b").as_deref(), Some("b"), "it is another");
        assert!(trouble.over());
        assert!(!trouble.over());
        trouble.forgive(PATIENCE * 10);
        assert_eq!(trouble.note("a"), None);
        tokio::time::advance(PATIENCE * 2).await;
        assert_eq!(trouble.note("a"), None, "a shoot that wakes up takes its time");
    }
}
