//! Retry storms: whether retries have become much more frequent than they usually are.
//!
//! # Definition
//! Of some recent time (k retries of n attempts) and the time before it (K of N) it is a storm if all of these hold:
//! * k is at least [`STORM_RETRIES_MIN`], and N at least [`STORM_HISTORY_MIN`]: little evidence decides nothing;
//! * k / n is at least [`STORM_FACTOR`] times p;
//! * k is at least [`STORM_DEVIATIONS`] standard deviations of a binomial count above n p: (k - n p)^2 >= z^2 n p (1 - p).
//!
//! p is the usual rate by Laplace's rule of succession, (K + 1) / (N + 2), so that a history without retries is not taken for a
//! promise of none. All of it is decided in integers.

/// Fewer retries are no storm.
pub const STORM_RETRIES_MIN: u64 = 10;
/// Fewer attempts are no history.
pub const STORM_HISTORY_MIN: u64 = 100;
/// How many times the usual rate it has to be.
pub const STORM_FACTOR: u64 = 2;
/// How many standard deviations above the usual rate: of one window in about 30,000 this would be chance.
pub const STORM_DEVIATIONS: u64 = 4;

/// Retries among attempts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Retried {
    /// Attempts beyond the first of their logical call.
    pub retries: u64,
    /// All attempts.
    pub attempts: u64,
}

/// Whether the recent rate of retries is a storm, measured by the usual one.
#[must_use]
pub fn is_storm(recent: Retried, usual: Retried) -> bool {
    if recent.retries < STORM_RETRIES_MIN || usual.attempts < STORM_HISTORY_MIN {
        return false;
    }
    let usual = (usual.retries.saturating_add(1), usual.attempts.saturating_add(2));
    far_above((recent.retries, recent.attempts), usual, STORM_FACTOR, STORM_DEVIATIONS)
}

/// Whether k of n is at least `factor` times as much as p, and at least so many standard deviations of a binomial count above n p.
pub(crate) fn far_above((k, n): (u64, u64), p: (u64, u64), factor: u64, deviations: u64) -> bool {
    // Products of these fit into 128 bits; counts above two thousand million are rounded.
    let (k, n) = halved(k, n);
    let (p, q) = halved(p.0, p.1);
    let (seen, expected) = (k * q, n * p);
    if seen < expected * u128::from(factor) {
        return false;
    }
    let above = seen - expected;
    above * above >= u128::from(deviations.saturating_mul(deviations)) * expected * q.saturating_sub(p)
}

/// Both halved until they have at most 31 bits.
fn halved(part: u64, whole: u64) -> (u128, u128) {
    let shift = (u64::BITS - part.max(whole).leading_zeros()).saturating_sub(31);
    (u128::from(part >> shift), u128::from(whole >> shift))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(retries: u64, attempts: u64) -> Retried {
        Retried { retries, attempts }
    }

    #[test]
    fn a_storm_needs_evidence_a_multiple_and_more_than_chance() {
        let usual = of(20, 1_000);
        assert!(is_storm(of(30, 100), usual));
        // Too few retries.
        assert!(!is_storm(of(9, 10), usual));
        // Not twice as many as usual, however sure that is.
        assert!(!is_storm(of(390, 10_000), usual));
        // Twice as many, but so few that it may be chance: 4 are expected, and 12 are 4 deviations more.
        assert!(!is_storm(of(11, 200), usual));
        assert!(is_storm(of(13, 200), usual));
        // No history.
        assert!(!is_storm(of(100, 100), of(0, 99)));
        assert!(is_storm(of(10, 100), of(0, 1_000)));
        // Retries as always.
        assert!(!is_storm(of(500, 1_000), of(500, 1_000)));
    }

    proptest! {
        #[test]
        fn it_is_what_floating_point_says_where_that_can_tell(
            n in 1..100_000_u64, share in 0.0..1.0_f64, history in 1..1_000_000_u64, usual in 0.0..0.5_f64,
        ) {
            let (recent, before) = (of((n as f64 * share) as u64, n), of((history as f64 * usual) as u64, history));
            let p = (before.retries + 1) as f64 / (before.attempts + 2) as f64;
            let (k, expected) = (recent.retries as f64, n as f64 * p);
            let deviations = (k - expected) / (expected * (1.0 - p)).sqrt();
            let near = (deviations - 4.0).abs() < 1e-6 || (k / expected - 2.0).abs() < 1e-9;
            let storm = recent.retries >= 10 && history >= 100 && k >= 2.0 * expected && deviations >= 4.0;
            prop_assert!(near || is_storm(recent, before) == storm);
        }

        #[test]
        fn no_counts_overflow(a in any::<u64>(), b in any::<u64>(), c in any::<u64>(), d in any::<u64>()) {
            let (recent, usual) = (of(a.min(b), a.max(b)), of(c.min(d), c.max(d)));
            prop_assert!(!is_storm(recent, recent));
            prop_assert!(usual.attempts >= STORM_HISTORY_MIN || !is_storm(recent, usual));
        }
    }
}
