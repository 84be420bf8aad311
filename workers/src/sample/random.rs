//! Numbers that look random and are the same on every machine.
//!
//! `SplitMix64` (Steele, Lea, Flood: "Fast Splittable Pseudorandom Number Generators", OOPSLA 2014): whole numbers only, so
//! no machine's floating point can make a difference, and no crate's new version either.

/// A stream of numbers.
#[derive(Clone, Debug)]
pub(super) struct Random(u64);

const GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;

impl Random {
    /// The stream of one row. It depends on nothing but the seed and the row's number.
    pub(super) fn of_row(seed: u64, row: u64) -> Self {
        Self(mix(mix(seed.wrapping_add(GAMMA)) ^ row))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(GAMMA);
        mix(self.0)
    }

    /// A number from 0 to `end - 1`.
    pub(super) fn below(&mut self, end: usize) -> usize {
        // The upper half of a product is as good as a remainder and needs no division; `end` is far below 2^32 here.
        let wide = (self.next() >> 32) * end as u64;
        usize::try_from(wide >> 32).expect("below `end`, which is a usize")
    }

    /// A number from `first` to `last`, both included.
    pub(super) fn between(&mut self, first: usize, last: usize) -> usize {
        first + self.below(last - first + 1)
    }

    /// One of `all`, each as likely as any other.
    pub(super) fn pick<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len())]
    }

    /// One of `all`, the first ones more often: the first quarter gets half of the picks.
    pub(super) fn pick_early<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        let (a, b) = (self.below(1 << 16), 1 << 16);
        &all[a * a / b * all.len() / b]
    }

    /// True this many times in a hundred.
    pub(super) fn percent(&mut self, share: usize) -> bool {
        self.below(100) < share
    }
}

fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_those_of_the_published_generator() {
        let mut random = Random(1_234_567);
        let numbers = [random.next(), random.next(), random.next()];
        assert_eq!(
            numbers,
            [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]
        );
    }

    #[test]
    fn neighbouring_rows_share_no_numbers() {
        let (mut one, mut two) = (Random::of_row(1, 7), Random::of_row(1, 8));
        one.next();
        assert_ne!(one.next(), two.next(), "a stream must not be its neighbour's, one step later");
    }

    #[test]
    fn every_choice_is_made_and_none_outside() {
        let mut random = Random::of_row(1, 1);
        let mut seen = [0; 5];
        for _ in 0..1000 {
            seen[random.below(5)] += 1;
        }
        assert!(seen.iter().all(|&times| times > 100), "{seen:?}");
        let mut early = 0;
        for _ in 0..1000 {
            early += usize::from(*random.pick_early(&[0, 1, 2, 3]) == 0);
        }
        assert!((400..600).contains(&early), "{early}");
    }
}
