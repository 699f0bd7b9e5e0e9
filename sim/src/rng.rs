//! The one source of chance: everything that a seed decides comes from here.

use std::ops::Range;
use std::time::Duration;

/// xoshiro256**: small, fast, and the same on every machine.
#[derive(Clone, Debug)]
pub(crate) struct Rng([u64; 4]);

impl Rng {
    /// The numbers of a seed.
    pub(crate) fn new(seed: u64) -> Self {
        // SplitMix64 fills the state, so that seeds that differ in one bit differ in all.
        let mut mix = seed;
        Self(std::array::from_fn(|_| {
            mix = mix.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = mix;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ (z >> 31)
        }))
    }

    fn next(&mut self) -> u64 {
        let [a, b, c, d] = self.0;
        let result = b.wrapping_mul(5).rotate_left(7).wrapping_mul(9);
        let (c, d) = (c ^ a, d ^ b);
        self.0 = [a ^ d, b ^ c, c ^ (b << 17), d.rotate_left(45)];
        result
    }

    /// A number of a range, which must not be empty. What a remainder favours
    /// is less than one in 2^32 for every range in use.
    pub(crate) fn range(&mut self, of: Range<u64>) -> u64 {
        of.start + self.next() % (of.end - of.start).max(1)
    }

    /// Whether something happens that does in so many of a thousand cases.
    pub(crate) fn chance(&mut self, permille: u32) -> bool {
        self.range(0..1000) < u64::from(permille)
    }

    /// A time of so many milliseconds, exact to the microsecond.
    pub(crate) fn millis(&mut self, of: Range<u64>) -> Duration {
        Duration::from_micros(self.range(of.start * 1000..of.end * 1000))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_numbers_and_another_one_others() {
        let numbers = |seed| {
            let mut rng = Rng::new(seed);
            (0..100).map(|_| rng.range(0..1_000_000)).collect::<Vec<_>>()
        };
        assert_eq!(numbers(1), numbers(1));
        assert_ne!(numbers(1), numbers(2));
        assert_ne!(numbers(0), vec![0; 100]);
    }

    #[test]
    fn numbers_are_of_their_range_and_chances_as_often_as_they_say() {
        let mut rng = Rng::new(7);
        let mut happened = 0;
        for _ in 0..10_000 {
            assert!((3..9).contains(&rng.range(3..9)));
            assert!(rng.millis(2..5) < Duration::from_millis(5));
            happened += u32::from(rng.chance(100));
        }
        assert!((900..1100).contains(&happened), "{happened}");
    }
}
