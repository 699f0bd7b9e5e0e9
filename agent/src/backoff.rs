//! Delays between attempts.

use std::time::Duration;

use crate::rootfs::random;

/// `first` doubled for each failure before, at most `most`, and then between
/// three and five quarters of it, so that a fleet does not come back as one.
pub(crate) fn backoff(before: u32, first: Duration, most: Duration) -> Duration {
    let delay = first.saturating_mul(1 << before.min(16)).min(most);
    // 1024 steps of jitter.
    let jitter = u32::try_from(random() % 1024).unwrap_or(0);
    delay * 3 / 4 + delay * jitter / 2048
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_to_a_bound_and_never_vanish() {
        let (first, most) = (Duration::from_millis(500), Duration::from_secs(15));
        for before in 0..40 {
            let delay = backoff(before, first, most);
            assert!(delay >= first * 3 / 4 && delay <= most * 5 / 4, "{delay:?}");
        }
        assert!(backoff(3, first, most) >= Duration::from_secs(3));
    }
}
