//! Token buckets, one per key.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Instant;

/// Limits how often each key may pass: `burst` times at once, then
/// `per_second` times. It remembers at most `capacity` keys.
#[derive(Debug)]
pub(super) struct Limiter<K> {
    buckets: HashMap<K, Bucket>,
    burst: f64,
    per_second: f64,
    capacity: usize,
}

#[derive(Debug)]
struct Bucket {
    left: f64,
    at: Instant,
}

impl<K: Eq + Hash> Limiter<K> {
    pub(super) fn new(burst: u32, per_second: f64, capacity: usize) -> Self {
        Self { buckets: HashMap::new(), burst: f64::from(burst), per_second, capacity }
    }

    /// Whether the key could pass now. Nothing is used up or remembered.
    pub(super) fn could_pass(&self, key: &K, now: Instant) -> bool {
        self.buckets
            .get(key)
            .is_none_or(|bucket| bucket.at(now, self.burst, self.per_second) >= 1.0)
    }

    /// Whether the key may pass now. Where no further key can be remembered,
    /// a new one may not: forgetting one would lift its limit.
    pub(super) fn pass(&mut self, key: K, now: Instant) -> bool {
        if self.buckets.len() >= self.capacity && !self.buckets.contains_key(&key) {
            let (burst, per_second) = (self.burst, self.per_second);
            // A full bucket is as good as none.
            self.buckets.retain(|_, bucket| bucket.at(now, burst, per_second) < burst);
            if self.buckets.len() >= self.capacity {
                return false;
            }
        }
        let bucket = self.buckets.entry(key).or_insert(Bucket { left: self.burst, at: now });
        bucket.left = bucket.at(now, self.burst, self.per_second);
        bucket.at = now;
        let passes = bucket.left >= 1.0;
        if passes {
            bucket.left -= 1.0;
        }
        passes
    }
}

impl Bucket {
    fn at(&self, now: Instant, burst: f64, per_second: f64) -> f64 {
        let elapsed = now.saturating_duration_since(self.at).as_secs_f64();
        (self.left + elapsed * per_second).min(burst)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn each_key_has_its_burst_and_its_rate() {
        let start = Instant::now();
        let mut limiter = Limiter::new(2, 0.5, 10);
        let passes: Vec<_> = (0..3).map(|_| limiter.pass("a", start)).collect();
        assert_eq!(passes, [true, true, false]);
        assert!(limiter.pass("b", start));
        assert!(!limiter.pass("a", start + Duration::from_secs(1)));
        assert!(limiter.pass("a", start + Duration::from_secs(3)));
    }

    #[test]
    fn it_forgets_only_who_is_not_limited() {
        let start = Instant::now();
        let mut limiter = Limiter::new(1, 1.0, 2);
        assert!(limiter.pass(1, start) && limiter.pass(2, start));
        assert!(!limiter.pass(3, start), "no room");
        assert!(limiter.pass(3, start + Duration::from_secs(2)));
        assert_eq!(limiter.buckets.len(), 1);
    }
}
