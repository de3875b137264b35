//! What is counted of an SLO.

use std::ops::{AddAssign, SubAssign};

/// A weight of 1, in millionths.
pub const WEIGHT_ONE: i128 = 1_000_000;

/// Counts of one SLO and group over some time. Weights are sums of `weight`, in millionths.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Counts {
    /// Events that met the objective.
    pub good: u64,
    /// Events of the total that did not.
    pub bad: u64,
    /// Rows in scope that the total leaves out.
    pub excluded: u64,
    /// Rows of which an expression gave null; each is counted in one of the others too.
    pub nulls: u64,
    /// Weights of the good ones.
    pub good_weighted: i128,
    /// Weights of the bad ones.
    pub bad_weighted: i128,
}

impl Counts {
    /// Good and bad.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.good.saturating_add(self.bad)
    }

    /// Whether some events stand for several, by their weights. Weights that are all 0 say nothing.
    #[must_use]
    pub fn is_sampled(&self) -> bool {
        let weights = self.weighted_total();
        weights != 0 && weights != i128::from(self.total()) * WEIGHT_ONE
    }

    /// Weights of the good and of the bad ones.
    #[must_use]
    pub const fn weighted_total(&self) -> i128 {
        self.good_weighted.saturating_add(self.bad_weighted)
    }

    /// Bad events and all events that a budget is spent by, in millionths: weights if any differs from 1, else counts.
    #[must_use]
    pub fn spending(&self) -> (u128, u128) {
        let (bad, total) = if self.is_sampled() {
            (self.bad_weighted, self.weighted_total())
        } else {
            (i128::from(self.bad) * WEIGHT_ONE, i128::from(self.total()) * WEIGHT_ONE)
        };
        (bad.max(0).unsigned_abs(), total.max(0).unsigned_abs())
    }

    /// Whether nothing was counted.
    #[must_use]
    pub fn is_zero(&self) -> bool {
        *self == Self::default()
    }

    /// good / total, by weights if any differs from 1; none if the total is 0.
    #[must_use]
    pub fn ratio(&self) -> Option<f64> {
        if self.is_sampled() {
            return Some(self.good_weighted as f64 / self.weighted_total() as f64);
        }
        (self.total() > 0).then(|| self.good as f64 / self.total() as f64)
    }
}

/// Modulo 2^64 (weights: 2^128), which no count of rows reaches: so that a minute of nonsense spoils no sum for longer than it is part of it.
impl AddAssign<&Self> for Counts {
    fn add_assign(&mut self, other: &Self) {
        self.good = self.good.wrapping_add(other.good);
        self.bad = self.bad.wrapping_add(other.bad);
        self.excluded = self.excluded.wrapping_add(other.excluded);
        self.nulls = self.nulls.wrapping_add(other.nulls);
        self.good_weighted = self.good_weighted.wrapping_add(other.good_weighted);
        self.bad_weighted = self.bad_weighted.wrapping_add(other.bad_weighted);
    }
}

impl SubAssign<&Self> for Counts {
    /// Takes back what was added before.
    fn sub_assign(&mut self, other: &Self) {
        self.good = self.good.wrapping_sub(other.good);
        self.bad = self.bad.wrapping_sub(other.bad);
        self.excluded = self.excluded.wrapping_sub(other.excluded);
        self.nulls = self.nulls.wrapping_sub(other.nulls);
        self.good_weighted = self.good_weighted.wrapping_sub(other.good_weighted);
        self.bad_weighted = self.bad_weighted.wrapping_sub(other.bad_weighted);
    }
}
