use super::*;

/// Deterministic random numbers.
struct Rng(u64);

impl Rng {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 8) % n
    }
}

#[test]
fn sums_are_those_of_a_recount() {
    let windows: Arc<[Window]> = [1, 5, 30, 240].map(Window::from_minutes).into();
    for seed in 1..40 {
        let mut rng = Rng(seed * 0x9E_3779_B97F);
        let held = (seed % 3 == 0).then(|| Window::from_minutes(900));
        let mut rolling = Rolling::new(Arc::clone(&windows), held, Minute(10_000));
        let mut all: Vec<(Minute, Sums)> = Vec::new();
        for _ in 0..400 {
            match rng.below(5) {
                0 => {
                    let step = if rng.below(20) == 0 { 500 } else { rng.below(4) as i64 };
                    rolling.advance(Minute(rolling.now().0 + step));
                    // Back is nowhere.
                    rolling.advance(Minute(rolling.now().0 - 3));
                }
                _ => {
                    let minute = Minute(rolling.now().0 + 4 - rng.below(300) as i64);
                    let hits = rng.below(3);
                    let sums =
                        Sums { calls: hits + rng.below(4), hits, priced: rng.below(2), cost: rng.below(99).into() };
                    if rolling.add(minute, &sums) {
                        all.push((minute, sums));
                    } else {
                        assert!(minute < rolling.first_held());
                    }
                }
            }
            let over = |range: std::ops::RangeInclusive<Minute>| {
                let mut sum = Sums::default();
                all.iter().filter(|(minute, _)| range.contains(minute)).for_each(|(_, sums)| sum += sums);
                sum
            };
            for window in windows.iter() {
                assert_eq!(rolling.sum(*window), over(window.at(rolling.now())), "seed {seed}, {window}");
            }
            let back = if rng.below(3) == 0 { rng.below(200) as i64 } else { 120 };
            let start = Minute(rolling.now().0 - back).max(rolling.first_held());
            assert_eq!(rolling.sum_since(start), over(start..=rolling.now()), "seed {seed}, since {start:?}");
        }
    }
}

#[test]
fn a_quantile_is_reached_as_if_all_were_sorted() {
    let mut rng = Rng(77);
    for text in ["0.5", "0.9", "0.95", "0.99", "0.999", "0.07"] {
        let quantile = Quantile::from_decimal(text).unwrap();
        for n in 1..120_u64 {
            let mut values: Vec<u64> = (0..n).map(|_| rng.below(10)).collect();
            values.sort_unstable();
            // The same in whole numbers, by hand.
            let thousandths = (text.parse::<f64>().unwrap() * 1_000.0).round() as u64;
            let rank = (thousandths * n).div_ceil(1_000).max(1);
            assert_eq!(quantile.rank(n), rank);
            let value = values[rank as usize - 1];
            for threshold in 0..11 {
                let hits = values.iter().filter(|value| **value >= threshold).count() as u64;
                assert_eq!(quantile.is_among(hits, n), value >= threshold, "{text} of {values:?} at {threshold}");
            }
        }
        assert!(!quantile.is_among(0, 0));
    }
}

#[test]
fn quantiles_are_decimals_between_0_and_1() {
    for wrong in ["0", "1", "1.5", "-0.5", "95", "0.9500000001", "p95", ""] {
        assert_eq!(Quantile::from_decimal(wrong), None, "{wrong}");
    }
    let shown = |text: &str| Quantile::from_decimal(text).unwrap().to_string();
    assert_eq!([shown("0.95"), shown("0.5"), shown("0.999"), shown("0.05")], ["p95", "p50", "p99.9", "p5"]);
}

#[test]
fn figures_are_decided_to_the_last_digit() {
    let ratio = |text: &str| Ratio::from_decimal(text).unwrap();
    let window = Window::H1;
    let sums = Sums { calls: 10, hits: 1, priced: 10, cost: 500_000_000_000 };
    assert!(Figure::Share.reaches(&sums, window, Op::Gte, ratio("0.1")));
    assert!(!Figure::Share.reaches(&sums, window, Op::Gt, ratio("0.1")));
    assert!(!Figure::Share.reaches(&sums, window, Op::Gte, ratio("0.10000000000000000000000000001")));
    let burn = Figure::BurnRate { target: Target::from_ratio("0.995").unwrap() };
    assert_eq!(burn.value(&sums, window), Some(ratio("20")));
    assert!(burn.reaches(&sums, window, Op::Gte, ratio("20")) && !burn.reaches(&sums, window, Op::Gt, ratio("20")));
    let cost = Figure::Cost { per: None };
    assert!(cost.reaches(&sums, window, Op::Gte, ratio("500")));
    let dearer = Sums { cost: sums.cost - 1, ..sums };
    assert!(!cost.reaches(&dearer, window, Op::Gte, ratio("500")));
    assert_eq!(Figure::Cost { per: Some(Window::D1) }.value(&sums, window), Some(ratio("12000")));
    // Nothing is reached by nothing.
    let nothing = Sums::default();
    for figure in [Figure::Share, burn, cost, Figure::Quantile { quantile: Quantile::from_decimal("0.5").unwrap() }] {
        assert!(!figure.reaches(&nothing, window, Op::Gte, ratio("0")), "{figure:?}");
    }
    // Money that came back is no cost.
    assert_eq!(cost.value(&Sums { cost: -5, ..sums }, window), Some(ratio("0")));
}
