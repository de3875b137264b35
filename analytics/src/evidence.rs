//! Whether failures are evidence that an objective is missed, or what chance does to few events.
//!
//! # Definition
//! Of n events that meet the objective just so, each is bad with the probability p = 1 - target, whatever the others are: the number X of bad ones
//! is binomial. So many failures are improbable if P(X >= bad) <= 10^-4 ([`IMPROBABLE`]).
//!
//! # Guarantees
//! * Nothing is called improbable that is not: what is computed is an upper bound.
//! * One failure more never makes failures less improbable.
//! * At most a few ten thousand operations, whatever the counts are.
//!
//! # How it works
//! Up to [`EXACT_BAD_MAX`] failures of [`EXACT_EVENTS_MAX`] events the terms of the tail are added up, with their exponents apart, so that nothing
//! underflows: the bound is then at most [`MARGIN`] above the probability. More failures are at least as improbable as [`EXACT_BAD_MAX`] of them; and for any number
//! of events there is Bernstein's inequality, P(X - np >= t) <= exp(-t^2 / (2 (np(1-p) + t/3))), in integers, rounded to the safe side.

use crate::budget::{TARGET_PLACES, Target};

/// Failures whose probability is at most this are no chance.
pub const IMPROBABLE: f64 = 1e-4;
/// Most failures of which the tail is added up.
pub const EXACT_BAD_MAX: u64 = 4_096;
/// Most events for which it is: so that rounding adds up to less than [`MARGIN`].
pub const EXACT_EVENTS_MAX: u64 = 1 << 32;
/// What is computed may be too small by this factor less one, by rounding.
pub const MARGIN: f64 = 1e-5;

/// What failures are, if the objective is met just so.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Evidence {
    /// No chance: P(X >= bad) is at most this.
    Improbable(f64),
    /// They may well be chance.
    Chance,
}

impl Evidence {
    /// What `bad` of `total` events are at this target.
    #[must_use]
    pub fn of(bad: u64, total: u64, target: Target) -> Self {
        let bound = exact(bad.min(EXACT_BAD_MAX), total, target).filter(|bound| *bound <= IMPROBABLE);
        match bound {
            Some(bound) => Self::Improbable(bound),
            None if bernstein(bad, total, target) => Self::Improbable(IMPROBABLE),
            None => Self::Chance,
        }
    }

    /// Whether it is no chance.
    #[must_use]
    pub const fn is_improbable(self) -> bool {
        matches!(self, Self::Improbable(_))
    }
}

const ONE: u64 = 10_u64.pow(TARGET_PLACES);

/// An upper bound of P(X >= bad); none if it is not worth computing: up to the mean it is about a half or more.
fn exact(bad: u64, total: u64, target: Target) -> Option<f64> {
    let budget = ONE - target.units();
    let is_above_mean = u128::from(bad) * u128::from(ONE) > u128::from(total) * u128::from(budget);
    if !is_above_mean || bad > total || total > EXACT_EVENTS_MAX {
        return None;
    }
    // Both nearest doubles of what they stand for.
    let (p, q) = (budget as f64 / ONE as f64, target.units() as f64 / ONE as f64);
    let good = total - bad;
    let mut first = Scaled::power(q, good);
    for i in 1..=bad {
        first = first.times((good + i) as f64 / i as f64).times(p);
    }
    // The terms after the first, relative to it: each is at most the one before it times the ratio before.
    let (mut sum, mut term) = (1.0_f64, 1.0_f64);
    let odds = p / q;
    for i in bad..total {
        let ratio = (total - i) as f64 / (i + 1) as f64 * odds;
        term *= ratio;
        sum += term;
        // The rest is at most a geometric series.
        if ratio < 1.0 && term * ratio <= 1e-12 * sum * (1.0 - ratio) {
            break;
        }
    }
    Some((first.times(sum).to_f64() * (1.0 + MARGIN)).min(1.0))
}

/// A double with more room for its exponent.
#[derive(Debug, Clone, Copy)]
struct Scaled {
    /// From 1 to below 2^512, or 0.
    mantissa: f64,
    /// In steps of 2^512.
    exponent: i64,
}

/// 2^512.
const STEP: f64 = 1.340_780_792_994_259_7e154;

impl Scaled {
    fn times(self, factor: f64) -> Self {
        Self { mantissa: self.mantissa * factor, ..self }.settled()
    }

    /// Steps are powers of two: nothing is rounded.
    fn settled(mut self) -> Self {
        while self.mantissa >= STEP {
            (self.mantissa, self.exponent) = (self.mantissa / STEP, self.exponent + 1);
        }
        while self.mantissa > 0.0 && self.mantissa < 1.0 {
            (self.mantissa, self.exponent) = (self.mantissa * STEP, self.exponent - 1);
        }
        self
    }

    /// `base` from 0 to 1 to a power, by squaring.
    fn power(base: f64, mut exponent: u64) -> Self {
        let mut result = Self { mantissa: 1.0, exponent: 0 };
        let mut square = Self { mantissa: base, exponent: 0 }.settled();
        while exponent > 0 {
            if exponent & 1 == 1 {
                result = Self { exponent: result.exponent + square.exponent, ..result }.times(square.mantissa);
            }
            square = Self { exponent: square.exponent * 2, ..square }.times(square.mantissa);
            exponent >>= 1;
        }
        result
    }

    /// The value, or a little more where a double has no digits for it.
    fn to_f64(self) -> f64 {
        match self.exponent {
            0 => self.mantissa,
            -1 => self.mantissa / STEP,
            exponent if exponent < 0 => STEP.recip(),
            // Not a probability.
            _ => f64::INFINITY,
        }
    }
}

/// Whether Bernstein's inequality says that it is improbable: t^2 >= 2 ln(10^4) (np(1-p) + t/3), in thousandths of events.
fn bernstein(bad: u64, total: u64, target: Target) -> bool {
    /// 2 ln(10^4), in hundredths, rounded up.
    const FACTOR: u128 = 1_843;
    /// More events above the mean than this are improbable whatever the variance of 2^64 events.
    const ENOUGH: u128 = 10_u128.pow(16);
    let budget = ONE - target.units();
    let mean = u128::from(total) * u128::from(budget);
    let Some(above) = (u128::from(bad) * u128::from(ONE)).checked_sub(mean) else { return false };
    let above = above / u128::from(ONE / 1_000);
    if above >= ENOUGH {
        return true;
    }
    // p(1-p) in units of 10^-12, then the variance in those of 10^-6, both rounded up.
    let each = u128::from(budget) * u128::from(target.units()) / u128::from(ONE) + 1;
    let variance = u128::from(total) * each / 1_000_000 + 1;
    above > 0 && 300 * above * above >= FACTOR * (3 * variance + 1_000 * above)
}

#[cfg(test)]
mod tests;
