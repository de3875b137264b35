//! Against integers of any size.

use num_bigint::BigUint;
use proptest::prelude::*;

use super::*;

fn target(thousandths: u64) -> Target {
    Target::from_ratio(&format!("0.{thousandths:03}")).unwrap()
}

/// P(X >= bad) of events that are bad in `budget` of 1,000 cases, as a numerator over 1000^total.
fn tail(bad: u64, total: u64, budget: u64) -> BigUint {
    let mut sum = BigUint::from(0_u32);
    let mut choose = BigUint::from(1_u32);
    for i in 0..=total {
        if i > 0 {
            choose = choose * (total - i + 1) / i;
        }
        if i >= bad {
            sum +=
                &choose * BigUint::from(budget).pow(i as u32) * BigUint::from(1_000 - budget).pow((total - i) as u32);
        }
    }
    sum
}

/// Whether numerator / 1000^total <= limit / 10^9.
fn is_at_most(numerator: &BigUint, total: u64, limit: u64) -> bool {
    numerator * BigUint::from(10_u64.pow(9)) <= BigUint::from(1_000_u32).pow(total as u32) * limit
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn the_tail_is_that_of_integers(total in 1..160_u64, budget in 1..1_000_u64, bad in 0..160_u64) {
        let bad = bad.min(total);
        let exact = tail(bad, total, budget);
        let found = Evidence::of(bad, total, target(1_000 - budget));
        // 10^-4, and a little less for the margin.
        if !is_at_most(&exact, total, 100_000) {
            prop_assert_eq!(found, Evidence::Chance);
        } else if is_at_most(&exact, total, 99_990) {
            prop_assert!(found.is_improbable(), "{} of {}", bad, total);
        }
        if let Evidence::Improbable(bound) = found {
            // Not below what it is, and near it where this has digits enough.
            let billionths = (bound * 1e9).ceil() as u64;
            prop_assert!(is_at_most(&exact, total, billionths));
            if bound > 1e-6 {
                prop_assert!(!is_at_most(&exact, total, (bound * (1.0 - 3.0 * MARGIN) * 1e9).floor() as u64 - 1));
            }
        }
    }

    #[test]
    fn one_failure_more_is_no_less_improbable(total in 1..u64::MAX, share in 0..12_u32, budget in 1..1_000_u64) {
        let total = total >> (5 * share);
        let target = target(1_000 - budget);
        // Around the mean, where it changes, and around the switch from one way of computing to the other.
        let mean = (u128::from(total) * u128::from(budget) / 1_000) as u64;
        let spread = ((total as f64).sqrt() as u64 / 8).max(1);
        for from in [mean, EXACT_BAD_MAX.saturating_sub(20 * spread)] {
            let mut was_improbable = false;
            for step in 0..60_u64 {
                let bad = from.saturating_add(step * spread).min(total);
                let is_improbable = Evidence::of(bad, total, target).is_improbable();
                prop_assert!(is_improbable || !was_improbable, "{} of {}", bad, total);
                was_improbable = is_improbable;
            }
        }
    }

    #[test]
    fn bernstein_never_says_more_than_the_sum(total in 1..200_000_u64, budget in 1..1_000_u64, bad in 1..4_096_u64) {
        let target = target(1_000 - budget);
        if bernstein(bad.min(total), total, target) {
            let bound = exact(bad.min(total), total, target);
            prop_assert!(bound.is_some_and(|bound| bound <= IMPROBABLE), "{bad} of {total}: {bound:?}");
        }
    }
}

/// The Workbook's service with 10 requests an hour: one failure burns 100 times too fast, and is chance in one hour of a hundred.
#[test]
fn one_failure_in_ten_requests_is_chance() {
    let target = target(999);
    assert_eq!(Evidence::of(0, 10, target), Evidence::Chance);
    assert_eq!(Evidence::of(1, 10, target), Evidence::Chance);
    let Evidence::Improbable(bound) = Evidence::of(2, 10, target) else { panic!("two are no chance") };
    // 45 p^2 q^8 + 120 p^3 q^7 + ...
    assert!((bound - 4.476e-5).abs() < 1e-8, "{bound}");
}

#[test]
fn an_outage_is_no_chance_however_many_calls_there_are() {
    for total in [4, 100, 10_000, 1 << 32, 1 << 50, u64::MAX] {
        assert!(Evidence::of(total, total, target(999)).is_improbable(), "{total}");
    }
    assert!(!Evidence::of(1, 1, target(999)).is_improbable());
    // Where all may fail, nothing is evidence.
    assert!(!Evidence::of(1_000, 1_000, Target::from_ratio("0").unwrap()).is_improbable());
}

#[test]
fn a_healthy_service_of_any_size_is_chance() {
    for total in [1_000_u64, 1_000_000, 1 << 40, 1 << 60] {
        let mean = total / 1_000;
        let sigma = (mean as f64).sqrt() as u64;
        assert!(!Evidence::of(mean + 2 * sigma, total, target(999)).is_improbable(), "{total}");
        assert!(Evidence::of(mean + 12 * sigma + 20, total, target(999)).is_improbable(), "{total}");
    }
}
