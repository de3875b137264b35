use proptest::prelude::*;

use super::*;
use crate::window::{Minute, MinuteRing};

const PERIOD_28D: Window = Window::from_minutes(28 * 24 * 60);

fn target(text: &str) -> Target {
    Target::from_ratio(text).unwrap()
}

fn counts(good: u64, bad: u64) -> Counts {
    let weighted = |events: u64| i128::from(events) * WEIGHT_ONE;
    Counts { good, bad, good_weighted: weighted(good), bad_weighted: weighted(bad), ..Counts::default() }
}

fn decimal(text: &str) -> Ratio {
    Ratio::from_decimal(text).unwrap()
}

/// Table 1.1 of the Workbook's recipe, and that of 28 days, where the last would be 0.933.
#[test]
fn factors_are_those_of_the_workbook() {
    let factors = |period, text| default_tiers(period, target(text)).iter().map(|tier| tier.factor).collect::<Vec<_>>();
    assert_eq!(factors(Window::D30, "0.999"), ["14.4", "6", "3", "1"].map(decimal));
    assert_eq!(factors(PERIOD_28D, "0.999"), ["13.44", "5.6", "2.8", "1"].map(decimal));
    // Elastic's table for 7 days has 0.7 and 0.234.
    assert_eq!(factors(Window::from_minutes(7 * 24 * 60), "0.99"), ["3.36", "1.4", "1", "1"].map(decimal));
    let names = default_tiers(Window::D30, target("0.999"));
    let names: Vec<_> =
        names.iter().map(|t| (t.name.as_ref(), t.severity.as_str(), t.long.to_string(), t.short.to_string())).collect();
    let named = |name, severity, long: &str, short: &str| (name, severity, long.to_owned(), short.to_owned());
    assert_eq!(
        names,
        [
            named("fast", "page", "1h", "5m"),
            named("medium", "page", "6h", "30m"),
            named("slow", "ticket", "1d", "2h"),
            named("long-term", "ticket", "3d", "6h"),
        ]
    );
    // A window that is longer than the period says nothing of it.
    assert_eq!(default_tiers(Window::D1, target("0.9")).len(), 3);
}

#[test]
fn factors_out_of_reach_need_an_error_ratio_of_four_fifths() {
    let fast = |text| factor(Ratio::percent(2), Window::D30, Window::H1, target(text));
    // 14.4 x (1 - target) is 0.8 at a target of 94.444...%.
    assert_eq!(fast("0.9445"), decimal("14.4"));
    assert_eq!(fast("0.944"), Ratio::new(800, 56).unwrap());
    assert_eq!(fast("0.9"), decimal("8"));
    assert_eq!(fast("0.5"), decimal("1.6"));
    // At 0.8 / (1 - target) below 1 a healthy service would fire.
    assert_eq!(fast("0.1"), Ratio::ONE);
    assert_eq!(fast("0"), Ratio::ONE);
    // Every default tier can fire while some calls still succeed, unless the target is below 20 %.
    for text in ["0.2", "0.5", "0.6667", "0.83", "0.9", "0.9306", "0.999"] {
        for tier in default_tiers(Window::D30, target(text)) {
            assert!(tier.burns(&counts(1, 4), &counts(1, 4), target(text)), "{text} {}", tier.name);
        }
    }
}

/// Burn rates end at 1 / (1 - target): 14.4 is out of reach up to 93.06 %, 6 up to 83.3 %, 3 up to 66.7 %. There even a total outage does not reach
/// it, just above it does; the tiers that are made there are lowered, and fire.
#[test]
fn thresholds_out_of_reach_begin_where_the_reference_says() {
    let outage = counts(0, 1_000);
    for (rate, never, just) in
        [("14.4", "0.9305", "0.9306"), ("14", "0.9285", "0.9286"), ("6", "0.833", "0.834"), ("3", "0.666", "0.667")]
    {
        let tier = |text| Tier { factor: decimal(rate), ..default_tiers(Window::D30, target(text))[0].clone() };
        assert!(!tier(never).burns(&outage, &outage, target(never)), "{rate} at {never}");
        assert!(tier(just).burns(&outage, &outage, target(just)), "{rate} at {just}");
    }
    for text in ["0.93", "0.833", "0.666", "0.5"] {
        assert!(
            default_tiers(Window::D30, target(text)).iter().all(|t| t.burns(&outage, &outage, target(text))),
            "{text}"
        );
    }
}

/// Sums of events, never averages of ratios: an hour has 99,900 calls in one minute, of which 1 % fail, and 100 in another, of which none does.
#[test]
fn uneven_traffic_weighs_by_its_events() {
    let (busy, quiet) = (counts(98_901, 999), counts(100, 0));
    let mut ring = MinuteRing::new([Window::H1].into(), Minute(60));
    ring.add(Minute(10), &busy);
    ring.add(Minute(11), &quiet);
    let hour = ring.sum(0);
    let error_ratio = |counts: &Counts| burn_rate(counts, target("0")).and_then(|ratio| ratio.rounded(5)).unwrap();
    assert_eq!(error_ratio(&hour), 999, "0.999 %");
    assert_eq!((error_ratio(&busy) + error_ratio(&quiet)) / 2, 500, "0.500 % is what averages come to");
    assert_eq!(burn_rate(&hour, target("0.99")), Some(decimal("0.999")));
    let budget = Budget::of(&hour, target("0.99"));
    assert_eq!([budget.allowed, budget.spent, budget.remaining].map(|e| e.to_string()), ["1000", "999", "1"]);
    let tier = Tier { factor: Ratio::ONE, ..default_tiers(Window::D30, target("0.99"))[0].clone() };
    assert!(!tier.burns(&hour, &hour, target("0.99")), "the objective is met");
}

/// What poisons a month elsewhere (0/0, an infinite sample, a counter that has gone mad) is in a sum here for as long as its minute is in the window.
#[test]
fn one_strange_minute_poisons_nothing_and_rolls_off() {
    let weights = |good: i128, bad: i128| Counts { good_weighted: good, bad_weighted: bad, ..counts(1, 1) };
    let strange = [
        counts(0, 0),
        Counts { excluded: u64::MAX, nulls: u64::MAX, ..counts(0, 0) },
        counts(u64::MAX, 0),
        counts(u64::MAX, u64::MAX),
        weights(i128::MAX, i128::MAX),
        weights(i128::MIN, -1),
        weights(0, 10_i128.pow(30)),
    ];
    let target = target("0.999");
    for strange in strange {
        let mut ring = MinuteRing::new([Window::M5, Window::H1].into(), Minute(0));
        for minute in 0..200 {
            ring.advance(Minute(minute));
            ring.add(Minute(minute), &counts(999, 1));
            if minute == 70 {
                ring.add(Minute(70), &strange);
            }
            let (short, long) = (ring.sum(0), ring.sum(1));
            // Whatever it holds, it can be asked.
            let tier = &default_tiers(Window::D30, target)[0];
            let _answered =
                (tier.burns(&long, &short, target), Budget::of(&long, target), long.ratio(), burn_rate(&long, target));
            let clean = |window: i64| {
                let minutes = minute.min(window) as u64 + 1;
                counts(999 * minutes, minutes)
            };
            let holds = |window: i64| (70..=70 + window).contains(&minute);
            for (sum, window) in [(short, 5), (long, 60)] {
                if !holds(window) {
                    assert_eq!(sum, clean(window), "{strange:?} is gone {minute}");
                }
            }
        }
    }
    // No events are no errors: neither 0/0 nor infinitely fast.
    assert_eq!((burn_rate(&counts(0, 0), target), counts(0, 0).ratio()), (None, None));
}

/// 10 requests an hour at 99.9 %: one failure burns 100x and 13.9 % of a month's budget of 7.2 failures.
#[test]
fn the_low_traffic_example_of_the_workbook() {
    let target = target("0.999");
    assert_eq!(burn_rate(&counts(9, 1), target), Some(decimal("100")));
    let month = Budget::of(&counts(7_199, 1), target);
    assert_eq!(month.allowed.to_string(), "7.2");
    let spent = 1.0 - month.remaining_ratio().unwrap();
    assert!((spent - 0.139).abs() < 0.000_2, "{spent}");
}

/// 100 calls that were kept of about 1,000, at 10 %, and 4 of which failed; beside them 1,000 that are all known.
#[test]
fn sampled_events_spend_what_they_stand_for() {
    let weight = |events: u64, of: i128| i128::from(events) * of * WEIGHT_ONE;
    let sampled = Counts { good_weighted: weight(96, 10), bad_weighted: weight(4, 10), ..counts(96, 4) };
    let budget = Budget::of(&sampled, target("0.99"));
    assert_eq!([budget.allowed, budget.spent, budget.remaining].map(|e| e.to_string()), ["10", "40", "-30"]);
    assert_eq!(burn_rate(&sampled, target("0.99")), Some(decimal("4")));
    let known = Counts { good_weighted: weight(1_000, 1), ..counts(1_000, 0) };
    let mut both = sampled;
    both += &known;
    assert!(both.is_sampled() && !known.is_sampled() && !counts(3, 4).is_sampled());
    // 40 of 2,000, not 4 of 1,100.
    assert_eq!(burn_rate(&both, target("0.99")), Some(decimal("2")));
    assert_eq!(both.ratio(), Some(0.98));
    assert_eq!(Budget::of(&both, target("0.99")).remaining.to_string(), "-20");
    // One in three, to six places: what is allowed is rounded to twelve.
    let third = Counts { good_weighted: 2 * 3_333_333, bad_weighted: 3_333_333, ..counts(2, 1) };
    assert_eq!(Budget::of(&third, target("0.999999999999")).allowed.to_string(), "0.00000000001");
    assert_eq!(burn_rate(&third, target("0.5")), Ratio::new(2, 3));
}

#[test]
fn budgets_are_signed_and_exact() {
    let budget = Budget::of(&counts(990, 10), target("0.999"));
    let texts = [budget.allowed, budget.spent, budget.remaining].map(|events| events.to_string());
    assert_eq!(texts, ["1", "10", "-9"]);
    assert_eq!(budget.remaining_ratio(), Some(-9.0));
    assert_eq!(Budget::of(&counts(0, 0), target("0.999")).remaining_ratio(), None);
    assert_eq!(Budget::of(&counts(1_000_003, 0), target("0.999")).remaining.to_string(), "1000.003");
    assert_eq!(Budget::of(&counts(u64::MAX, 0), target("0")).allowed.to_string(), u64::MAX.to_string());
}

#[test]
fn a_tier_fires_at_its_factor_in_both_windows() {
    let target = target("0.999");
    let tiers = default_tiers(Window::D30, target);
    let tier = &tiers[0];
    // 14.4 x 0.001: exactly 144 of 10,000.
    let (at, below) = (counts(9_856, 144), counts(9_857, 144));
    assert!(tier.burns(&at, &at, target));
    assert!(!tier.burns(&below, &at, target));
    assert!(!tier.burns(&at, &below, target));
    assert!(!tier.burns(&at, &counts(0, 0), target));
}

/// A quarter of what a month of 1,000,000 calls allows at 99.9 %, 1,000 failures, are 250: however many calls the week has.
#[test]
fn consumption_is_a_part_of_what_the_whole_period_allows() {
    let target = target("0.999");
    let week = Window::from_minutes(7 * 1_440);
    let tier = Tier {
        measure: Measure::Consumption,
        long: week,
        short: week,
        factor: Ratio::percent(25),
        ..default_tiers(Window::D30, target)[0].clone()
    };
    let allowed = Budget::of(&counts(999_000, 1_000), target).allowed;
    let is_reached = |good, bad| tier.is_reached(&counts(good, bad), &counts(0, 0), allowed, target);
    assert!(is_reached(0, 250) && is_reached(500_000, 250) && !is_reached(0, 249));
    assert!(!tier.is_reached(&counts(0, 0), &counts(0, 0), Events::default(), target), "nothing is no part of nothing");
    assert_eq!(consumption(&counts(7, 250), allowed, target), Some(Ratio::percent(25)));
    // A sample of one in ten spends ten times as much.
    let sampled = Counts { bad_weighted: 250 * WEIGHT_ONE, ..counts(0, 25) };
    assert!(tier.consumes(&sampled, allowed, target));
    assert_eq!((tier.heard(), default_tiers(Window::D30, target)[0].heard()), (Window::H1, Window::M5));
}

#[test]
fn targets_are_exact_decimals_from_0_to_below_1() {
    assert_eq!(Target::from_percent("99.9"), Target::from_ratio("0.999"));
    assert_eq!(Target::from_percent("95"), Target::from_ratio("0.95"));
    assert_eq!(Target::from_percent("99.95"), Target::from_ratio("0.9995"));
    assert_eq!(target("0.999999999999").budget(), Ratio::new(1, 10_u128.pow(12)).unwrap());
    assert_eq!([target("0.9990").to_string(), target("0").to_string()], ["0.999", "0"]);
    for text in ["1", "1.0", "99.9", "-0.5", "", ".", ".5", "0,5", "1e-3", "0.9999999999999", "NaN", "+0.5"] {
        assert!(Target::from_ratio(text).is_err(), "{text}");
    }
    assert_eq!(
        Target::from_ratio("99.9").unwrap_err().to_string(),
        "must be a decimal number from 0 to below 1 with at most 12 decimal places, got \"99.9\" (write something like 0.999)"
    );
    assert_eq!(
        Target::from_percent("100").unwrap_err().to_string(),
        "must be a decimal number from 0 to below 100 with at most 10 decimal places, got \"100\" (write something like 99.9)"
    );
}

#[test]
fn ratios_are_rounded_half_even() {
    let rounded = |num, den| Ratio::new(num, den).unwrap().rounded(1);
    assert_eq!([rounded(1, 4), rounded(3, 4), rounded(1, 3), rounded(2, 3)], [2, 8, 3, 7].map(Some));
    assert_eq!(decimal("13.44").rounded(9), Some(13_440_000_000));
    assert_eq!(Ratio::new(u128::MAX, 1).unwrap().rounded(1), None);
}

#[test]
fn large_ratios_do_not_overflow() {
    let (a, b) = (Ratio::new(u128::MAX, u128::MAX - 1).unwrap(), Ratio::new(u128::MAX - 1, u128::MAX - 2).unwrap());
    assert!(a < b);
    assert_eq!(a, a);
    assert!(Ratio::ONE < a && Ratio::percent(0) < Ratio::new(1, u128::MAX).unwrap());
    assert_eq!(a.times(b).map(Ratio::to_f64), Some(1.0));
    assert_eq!(Ratio::new(u128::MAX, 1).unwrap().times(Ratio::percent(200)), None);
}

proptest! {
    #[test]
    fn ratios_compare_as_products_do(a in 0..1_000_u128, b in 1..1_000_u128, c in 0..1_000_u128, d in 1..1_000_u128, scale in 1..1_u128 << 100) {
        let (left, right) = (Ratio::new(a * scale, b * scale).unwrap(), Ratio::new(c, d).unwrap());
        prop_assert_eq!(left.cmp(&right), (a * d).cmp(&(c * b)));
        prop_assert_eq!(right.cmp(&left), (c * b).cmp(&(a * d)));
        let product = left.times(right).unwrap();
        prop_assert_eq!(product, Ratio::new(a * c, b * d).unwrap());
    }

    /// In integers of units of 10^-12: rate >= factor iff bad x 10^12 x den >= num x (10^12 - target) x total.
    #[test]
    fn burning_is_decided_to_the_last_digit(good in 0..1_u64 << 40, bad in 0..1_u64 << 40, nudge in 0..3_u64, units in 0..1_000_000_u64, percent in 1..100_u32) {
        let target = target(&format!("0.{units:06}"));
        let factor = factor(Ratio::percent(percent), Window::D30, Window::H6, target);
        let tier = Tier { factor, ..default_tiers(Window::D30, target)[0].clone() };
        // As close to the limit as whole events come.
        let limit = (u128::from(good + bad) * factor.num * target.budget().num).div_ceil(factor.den * target.budget().den) as u64;
        for bad in [bad, (limit + nudge).saturating_sub(1)] {
            let counts = counts((good + bad).saturating_sub(bad), bad);
            let total = u128::from(counts.total());
            let expected = total > 0
                && u128::from(bad) * target.budget().den * factor.den >= factor.num * target.budget().num * total;
            prop_assert_eq!(tier.burns(&counts, &counts, target), expected);
        }
    }

    #[test]
    fn budgets_add_up(good in any::<u32>(), bad in any::<u32>(), units in 0..1_000_000_u64) {
        let target = target(&format!("0.{units:06}"));
        let counts = counts(good.into(), bad.into());
        let budget = Budget::of(&counts, target);
        prop_assert_eq!(budget.allowed.units() - budget.spent.units(), budget.remaining.units());
        // In millionths, of which a target of six places has whole ones.
        let allowed = (1_000_000 - i128::from(units)) * i128::from(counts.total());
        prop_assert_eq!(budget.allowed.units(), allowed * 1_000_000);
        // More is spent than allowed exactly if the budget burns faster than 1.
        let burns = burn_rate(&counts, target).is_some_and(|rate| rate > Ratio::ONE);
        prop_assert_eq!(budget.remaining < Events::default(), burns);
    }
}
