//! What a sample tells of the whole.
//!
//! A row with weight w stands for w rows like it (Horvitz and Thompson, 1952), so sums of weights are unbiased estimates of counts. How
//! sure a share is that was estimated so, is that of an unweighted sample of the *effective size* (sum w)^2 / sum w^2 (Kish, *Survey
//! Sampling*, 1965), whose interval is Wilson's (*Probable inference, the law of succession, and statistical inference*, JASA 22,
//! 1927). It is for people to read: what decides is counts.

/// The standard normal quantile of a two-sided interval of 95 %.
pub const Z_95: f64 = 1.959_963_984_540_054;

/// The size of the unweighted sample that would tell as much: (sum w)^2 / sum w^2; 0 without rows. Both sums in one unit.
#[must_use]
pub fn effective_size(weights: f64, squares: f64) -> f64 {
    if squares > 0.0 { weights * weights / squares } else { 0.0 }
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

    proptest! {
        #[test]
        fn intervals_hold_their_share_and_shrink(share in 0.0..=1.0_f64, n in 1.0..1e9_f64) {
            let (low, high) = wilson(share, n, Z_95).expect("an interval");
            prop_assert!((0.0..=1.0).contains(&low) && low <= share + 1e-12 && share <= high + 1e-12 && high <= 1.0);
            let (lower, higher) = wilson(share, n / 4.0, Z_95).expect("an interval");
            prop_assert!(lower <= low + 1e-12 && high <= higher + 1e-12);
        }
    }
}
