//! What a sample tells of the whole.
//!
//! A row with weight w stands for w rows like it (Horvitz and Thompson, 1952), so sums of weights are unbiased estimates of counts. How
//! sure a share is that was estimated so, is that of an unweighted sample of the *effective size* (sum w)^2 / sum w^2 (Kish, *Survey
//! Sampling*, 1965), whose interval is Wilson's (*Probable inference, the law of succession, and statistical inference*, JASA 22,
//! 1927). It is for people to read: what decides is counts.
//!
//! # Samplers that keep errors
//! A sampler that keeps every trace with an error and some of the others, and does not say so, makes success look worse than it was. It
//! shows where servers of tools tell of all calls and callers only of the traces that were kept: then nearly every failed call has its
//! caller's view, and few of the others have. It is **suspected** ([`keeps_errors`]) if all of these hold, of calls that servers tell of and that
//! name a parent, f failed and g not, of which F and G have a view of their caller:
//! * F is at least [`KEPT_FAILURES_MIN`], and g at least [`SUCCESSES_MIN`]: little evidence decides nothing;
//! * F / f is at least [`KEPT_PERCENT_MIN`] percent: errors are kept;
//! * F / f is at least [`KEPT_FACTOR`] times p, and F at least [`KEPT_DEVIATIONS`] standard deviations of a binomial count above f p, where p = (G + 1) /
//!   (g + 2) (Laplace): others are not, by far.
//!
//! An outage changes none of that, whatever fails: whether a caller's view arrives does not depend on it. Nor do samplers that decide at
//! the start of a trace, and views that are lost. All of it is decided in integers.

use crate::retries::far_above;

/// The standard normal quantile of a two-sided interval of 95 %.
pub const Z_95: f64 = 1.959_963_984_540_054;

/// Fewer failures whose callers tell of them too are no evidence.
pub const KEPT_FAILURES_MIN: u64 = 10;
/// Fewer successes are no evidence.
pub const SUCCESSES_MIN: u64 = 100;
/// So many of a hundred failures have to have their callers' view.
pub const KEPT_PERCENT_MIN: u64 = 90;
/// How many times as often as successes.
pub const KEPT_FACTOR: u64 = 2;
/// How many standard deviations more.
pub const KEPT_DEVIATIONS: u64 = 4;

/// Calls that servers tell of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Told {
    /// All of them.
    pub calls: u64,
    /// Those of which a view of their caller is there as well.
    pub with_caller: u64,
}

/// Whether callers' telemetry seems to come from a sampler that keeps errors; see the module.
#[must_use]
pub fn keeps_errors(failed: Told, succeeded: Told) -> bool {
    if failed.with_caller < KEPT_FAILURES_MIN || succeeded.calls < SUCCESSES_MIN {
        return false;
    }
    if u128::from(failed.with_caller) * 100 < u128::from(failed.calls) * u128::from(KEPT_PERCENT_MIN) {
        return false;
    }
    let others = (succeeded.with_caller.saturating_add(1), succeeded.calls.saturating_add(2));
    far_above((failed.with_caller, failed.calls), others, KEPT_FACTOR, KEPT_DEVIATIONS)
}

/// The size of the unweighted sample that would tell as much: (sum w)^2 / sum w^2; 0 without rows. Both sums in one unit.
#[must_use]
pub fn effective_size(weights: f64, squares: f64) -> f64 {
    if squares > 0.0 { weights * weights / squares } else { 0.0 }
}

/// The effective size of a sample of which only parts' sums of weights are known, each with its number of rows: that of equal weights within
/// each part, which is the most that it can be.
#[must_use]
pub fn effective_size_at_most(parts: &[(f64, u64)]) -> f64 {
    let weights = parts.iter().map(|(weights, _)| weights).sum();
    let squares =
        parts.iter().filter(|(_, rows)| *rows > 0).map(|(weights, rows)| weights * weights / *rows as f64).sum();
    effective_size(weights, squares)
}

/// Wilson's score interval of a share that was found in a sample of size `n`: (p + z^2/2n ± z sqrt(p(1-p)/n + z^2/4n^2)) / (1 +
/// z^2/n), within 0 and 1. `None` of no sample.
#[must_use]
pub fn wilson(share: f64, n: f64, z: f64) -> Option<(f64, f64)> {
    if n.is_nan() || n <= 0.0 || !share.is_finite() {
        return None;
    }
    let share = share.clamp(0.0, 1.0);
    let z2 = z * z;
    let middle = share + z2 / (2.0 * n);
    let reach = z * (share * (1.0 - share) / n + z2 / (4.0 * n * n)).sqrt();
    let scale = 1.0 + z2 / n;
    Some((((middle - reach) / scale).max(0.0), ((middle + reach) / scale).min(1.0)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn close(found: Option<(f64, f64)>, low: f64, high: f64) {
        let (found_low, found_high) = found.expect("an interval");
        assert!((found_low - low).abs() < 5e-5 && (found_high - high).abs() < 5e-5, "{found_low} {found_high}");
    }

    /// Newcombe, *Two-sided confidence intervals for the single proportion*, Statistics in Medicine 17 (1998), table I, method 3.
    #[test]
    fn intervals_are_those_of_the_literature() {
        close(wilson(81.0 / 263.0, 263.0, Z_95), 0.2553, 0.3662);
        close(wilson(15.0 / 148.0, 148.0, Z_95), 0.0624, 0.1605);
        close(wilson(0.0, 20.0, Z_95), 0.0, 0.1611);
        close(wilson(1.0 / 29.0, 29.0, Z_95), 0.0061, 0.1718);
        assert_eq!(wilson(0.5, 0.0, Z_95), None);
    }

    #[test]
    fn equal_weights_tell_as_much_as_their_number() {
        assert_eq!(effective_size(1_000.0, 10_000.0), 100.0);
        assert_eq!(effective_size(0.0, 0.0), 0.0);
        // One row of weight 1,000 tells hardly more than itself.
        assert!((effective_size(1_100.0, 1_000_100.0) - 1.21).abs() < 0.01);
    }

    #[test]
    fn sums_of_parts_tell_no_more_than_they_can() {
        // A hundred of weight 1, and fifty of weight 10, apart: as well as row by row.
        assert!((effective_size_at_most(&[(100.0, 100), (500.0, 50)]) - effective_size(600.0, 5_100.0)).abs() < 1e-9);
        // Mixed in one part, they seem to tell more than they do.
        assert!(effective_size_at_most(&[(600.0, 150)]) > effective_size(600.0, 5_100.0));
        assert_eq!(effective_size_at_most(&[(0.0, 0), (7.0, 7)]), 7.0);
        assert_eq!(effective_size_at_most(&[]), 0.0);
    }

    fn told(with_caller: u64, calls: u64) -> Told {
        Told { calls, with_caller }
    }

    #[test]
    fn a_sampler_that_keeps_errors_needs_evidence_and_a_difference() {
        // Every failure, and a tenth of the rest.
        assert!(keeps_errors(told(40, 40), told(96, 960)));
        assert!(keeps_errors(told(10, 10), told(0, 100)));
        // Too little of either.
        assert!(!keeps_errors(told(9, 9), told(96, 960)));
        assert!(!keeps_errors(told(40, 40), told(9, 99)));
        // All callers tell of all calls: an outage is one.
        assert!(!keeps_errors(told(900, 900), told(100, 100)));
        // Callers of a tenth tell, whatever becomes of the call.
        assert!(!keeps_errors(told(90, 900), told(10, 100)));
        // Half of the successes are kept: it cannot be told from chance and habit.
        assert!(!keeps_errors(told(1_000, 1_000), told(600, 1_000)));
        // Not all failures are.
        assert!(!keeps_errors(told(80, 100), told(10, 1_000)));
    }

    /// Traffic through samplers: each call is a trace of its own, of which the server tells always and the caller if the trace was kept.
    #[test]
    fn samplers_that_keep_errors_are_suspected_and_outages_are_not() {
        use rng::Rng;
        for seed in 0..200 {
            let mut rng = Rng(seed);
            let failing = [2, 10, 50, 90][seed as usize % 4];
            let kept = [1, 5, 10, 25][seed as usize / 4 % 4];
            let (mut tail, mut head) = ([Told::default(); 2], [Told::default(); 2]);
            for _ in 0..2_000 {
                let ok = usize::from(rng.below(100) >= failing);
                let chosen = rng.below(100) < kept;
                for (table, with_caller) in [(&mut tail, ok == 0 || chosen), (&mut head, chosen)] {
                    table[ok].calls += 1;
                    table[ok].with_caller += u64::from(with_caller);
                }
            }
            assert!(keeps_errors(tail[0], tail[1]), "seed {seed}: {tail:?}");
            assert!(!keeps_errors(head[0], head[1]), "seed {seed}: {head:?}");
        }
    }

    mod rng {
        /// SplitMix64.
        pub(super) struct Rng(pub(super) u64);

        impl Rng {
            pub(super) fn below(&mut self, bound: u64) -> u64 {
                self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
                let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
                let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
                (mixed ^ (mixed >> 31)) % bound
            }
        }
    }

    proptest! {
        #[test]
        fn no_counts_of_told_calls_overflow(a in any::<u64>(), b in any::<u64>(), c in any::<u64>(), d in any::<u64>()) {
            let (failed, ok) = (told(a.min(b), a.max(b)), told(c.min(d), c.max(d)));
            // Where all have their callers, nobody is suspected.
            prop_assert!(!keeps_errors(failed, told(ok.calls, ok.calls)));
            let _any = keeps_errors(failed, ok);
        }

        #[test]
        fn intervals_hold_their_share_and_shrink(share in 0.0..=1.0_f64, n in 1.0..1e9_f64) {
            let (low, high) = wilson(share, n, Z_95).expect("an interval");
            prop_assert!((0.0..=1.0).contains(&low) && low <= share + 1e-12 && share <= high + 1e-12 && high <= 1.0);
            let (lower, higher) = wilson(share, n / 4.0, Z_95).expect("an interval");
            prop_assert!(lower <= low + 1e-12 && high <= higher + 1e-12);
        }
    }
}
