//! Which controller leads, as far as this agent has heard.

use std::time::Duration;

use tokio::time::Instant;

/// For how long an older term is refused after a newer one was heard: a
/// controller that was stopped and goes on has seen by then that it was
/// replaced. For ever would be too long: a Lease that was made anew counts
/// from the beginning.
const MEMORY: Duration = Duration::from_secs(60);

/// The terms of one endpoint's controllers.
#[derive(Debug, Default)]
pub(super) struct Epochs {
    endpoint: String,
    heard: Option<(u64, Instant)>,
    /// Whether a message of this stream was taken.
    taken: bool,
}

impl Epochs {
    /// A stream to this endpoint begins. Another endpoint has terms of its own:
    /// the shoot moved to another seed.
    pub(super) fn at(&mut self, endpoint: String) {
        if self.endpoint != endpoint {
            *self = Self { endpoint, ..Self::default() };
        }
    }

    /// Takes a message of this term; the newer term where there is one.
    pub(super) fn take(&mut self, epoch: u64, now: Instant) -> Result<(), u64> {
        match self.heard {
            Some((newest, at)) if epoch < newest && now.duration_since(at) < MEMORY => Err(newest),
            Some(_) | None => {
                (self.heard, self.taken) = (Some((epoch, now)), true);
                Ok(())
            }
        }
    }

    /// A stream has ended: until now its controller was heard, if it was at
    /// all. One that was refused keeps nothing alive.
    pub(super) fn left(&mut self, now: Instant) {
        if std::mem::take(&mut self.taken)
            && let Some((_, at)) = &mut self.heard
        {
            *at = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_older_term_is_refused_for_a_while() {
        let (start, second) = (Instant::now(), Duration::from_secs(1));
        let mut epochs = Epochs::default();
        epochs.at("a:443".to_owned());
        for (epoch, after, want) in [
            (3, 0, Ok(())),
            (3, 1, Ok(())),
            (2, 2, Err(3)),
            (4, 3, Ok(())),
            (3, 62, Err(4)),
            (3, 63, Ok(())),
        ] {
            assert_eq!(epochs.take(epoch, start + second * after), want, "{epoch} at {after}");
        }
        // A stream on which little is said is heard to its end.
        epochs.take(9, start + second * 100).unwrap();
        epochs.left(start + second * 1000);
        assert_eq!(epochs.take(8, start + second * 1010), Err(9));
        epochs.at("a:443".to_owned());
        // Asking again and again keeps nobody out for longer.
        for after in 1010..1060 {
            assert_eq!(epochs.take(8, start + second * after), Err(9));
            epochs.left(start + second * after);
        }
        assert_eq!(epochs.take(8, start + second * 1060), Ok(()));
        epochs.at("b:443".to_owned());
        assert_eq!(epochs.take(1, start + second * 1010), Ok(()));
    }
}
