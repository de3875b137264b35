//! Numbers that look random and are the same for the same seed, on every machine and in every version.

/// SplitMix64 (Steele, Lea, Flood 2014), with the few distributions that the fleet needs. Integers only: no two machines
/// disagree about them.
#[derive(Debug, Clone)]
pub(crate) struct Dice(u64);

/// The spread of latencies, in thousandths of the median, at 17 equally likely steps: a long tail to the right, as tools have it.
const SPREAD: [u64; 17] =
    [350, 480, 570, 650, 730, 810, 900, 950, 1000, 1110, 1240, 1400, 1600, 1880, 2300, 3100, 6500];

/// All of a [`Dice::chance`].
pub(crate) const CERTAIN_PPM: u32 = 1_000_000;

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// 0 to `bound` - 1.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }

    pub(crate) fn between(&mut self, least: u64, most: u64) -> u64 {
        least + self.below(most - least + 1)
    }

    /// True in so many of a million cases.
    pub(crate) fn chance(&mut self, ppm: u32) -> bool {
        self.below(CERTAIN_PPM.into()) < u64::from(ppm)
    }

    /// Around the median, with a long tail.
    pub(crate) fn spread(&mut self, median: u64) -> u64 {
        const PARTS: u64 = 1 << 20;
        let step = self.below(SPREAD.len() as u64 - 1) as usize;
        let within = self.below(PARTS);
        let thousandths = SPREAD[step] * (PARTS - within) + SPREAD[step + 1] * within;
        (u128::from(median) * u128::from(thousandths) / u128::from(1000 * PARTS)) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_numbers_for_ever() {
        let mut dice = Dice::new(7);
        let numbers = [dice.next(), dice.below(100), dice.between(5, 9), dice.spread(1_000_000)];
        let mut again = Dice::new(7);
        assert_eq!(numbers, [again.next(), again.below(100), again.between(5, 9), again.spread(1_000_000)]);
        // The reference implementation's first number for 0.
        assert_eq!(Dice::new(0).next(), 0xE220_A839_7B1D_CDAF);
    }

    #[test]
    fn chances_and_spreads_are_as_they_are_called() {
        let mut dice = Dice::new(1);
        let hits = (0..100_000).filter(|_| dice.chance(250_000)).count();
        assert!((24_000..26_000).contains(&hits), "{hits}");
        assert!(!(0..1000).any(|_| dice.chance(0)) && (0..1000).all(|_| dice.chance(CERTAIN_PPM)));
        let mut values: Vec<u64> = (0..10_001).map(|_| dice.spread(1_000_000)).collect();
        values.sort_unstable();
        assert!((950_000..1_050_000).contains(&values[5000]), "{}", values[5000]);
        assert!(values[0] >= 350_000 && values[10_000] <= 6_500_000);
    }
}
