//! Thresholds: sums over windows, and whether a figure made of them is reached, exactly.
//!
//! # Definitions
//! * A share (error rate, retry rate) is hits / calls of the window.
//! * A burn rate is (hits / calls) / (1 - target), as in [`crate::budget`].
//! * The `q` quantile of `n` calls is the one with number ceil(q x n) in order, at least the first. It is at or above a threshold iff
//!   more than `n` - ceil(q x n) calls are: so it is decided by counting these calls, without knowing the quantile.
//! * A cost is the sum of the known costs, or that sum x `per` / window.
//!
//! Nothing is reached where there are no calls.
//!
//! # Guarantees
//! * Decisions are made with integers; the order of additions does not matter.
//! * [`Rolling`] has the sum of a recount for each of its windows at [`Rolling::now`], and for any span that it holds.

use std::collections::BTreeMap;
use std::ops::{AddAssign, SubAssign};
use std::sync::Arc;

use crate::budget::{Ratio, TARGET_PLACES, Target};
use crate::window::{Minute, Window};

/// Units of money in a dollar: costs are in units of 10^-9.
pub const NANOS_PER_USD: u128 = 1_000_000_000;

/// What is summed of calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sums {
    /// Calls.
    pub calls: u64,
    /// Of these, those that are looked for: failures, retries, slow ones.
    pub hits: u64,
    /// Calls whose cost is known.
    pub priced: u64,
    /// Their cost, in units of 10^-9 dollars.
    pub cost: i128,
}

impl Sums {
    /// Whether nothing was added.
    #[must_use]
    pub fn is_zero(&self) -> bool {
        *self == Self::default()
    }
}

impl AddAssign<&Self> for Sums {
    fn add_assign(&mut self, other: &Self) {
        self.calls += other.calls;
        self.hits += other.hits;
        self.priced += other.priced;
        self.cost += other.cost;
    }
}

impl SubAssign<&Self> for Sums {
    fn sub_assign(&mut self, other: &Self) {
        self.calls -= other.calls;
        self.hits -= other.hits;
        self.priced -= other.priced;
        self.cost -= other.cost;
    }
}

/// Sums by the minute, and over some windows that end now. Time only goes forward.
#[derive(Debug, Clone)]
pub struct Rolling {
    windows: Arc<[Window]>,
    /// Minutes before this long ago are forgotten.
    held: Window,
    now: Minute,
    /// Of each window.
    sums: Vec<Sums>,
    minutes: BTreeMap<Minute, Sums>,
    /// The last span that was asked for, from a minute to now.
    since: Option<(Minute, Sums)>,
}

impl Rolling {
    /// An empty one that holds the longest of the windows, and at least `held`.
    #[must_use]
    pub fn new(windows: Arc<[Window]>, held: Option<Window>, now: Minute) -> Self {
        let held = windows.iter().copied().chain(held).max().unwrap_or(Window::M5);
        let sums = vec![Sums::default(); windows.len()];
        Self { windows, held, now, sums, minutes: BTreeMap::new(), since: None }
    }

    /// The minute in which the windows end.
    #[must_use]
    pub const fn now(&self) -> Minute {
        self.now
    }

    /// The first minute that is held.
    #[must_use]
    pub const fn first_held(&self) -> Minute {
        *self.held.at(self.now).start()
    }

    /// The minutes that it holds, in order.
    pub fn minutes(&self) -> impl Iterator<Item = (Minute, &Sums)> {
        self.minutes.iter().map(|(minute, sums)| (*minute, sums))
    }

    /// Whether it holds nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.minutes.is_empty()
    }

    /// Adds to a minute, which may be of the past or the future. False, and nothing, if it is forgotten.
    pub fn add(&mut self, minute: Minute, sums: &Sums) -> bool {
        if minute < self.first_held() {
            return false;
        }
        *self.minutes.entry(minute).or_default() += sums;
        if minute > self.now {
            return true;
        }
        for (window, sum) in self.windows.iter().zip(&mut self.sums) {
            if window.at(self.now).contains(&minute) {
                *sum += sums;
            }
        }
        if let Some((_, sum)) = self.since.as_mut().filter(|(start, _)| *start <= minute) {
            *sum += sums;
        }
        true
    }

    /// Goes on to a later minute; an earlier one changes nothing.
    pub fn advance(&mut self, now: Minute) {
        if now <= self.now {
            return;
        }
        let before = std::mem::replace(&mut self.now, now);
        for (window, sum) in self.windows.iter().zip(&mut self.sums) {
            let (old, new) = (window.at(before), window.at(now));
            if new.start() > old.end() {
                *sum = Sums::default();
                self.minutes.range(new).for_each(|(_, entered)| *sum += entered);
                continue;
            }
            self.minutes.range(Minute(before.0 + 1)..=now).for_each(|(_, entered)| *sum += entered);
            self.minutes.range(*old.start()..*new.start()).for_each(|(_, left)| *sum -= left);
        }
        if let Some((_, sum)) = &mut self.since {
            self.minutes.range(Minute(before.0 + 1)..=now).for_each(|(_, entered)| *sum += entered);
        }
        let first = self.first_held();
        if self.minutes.first_key_value().is_some_and(|(oldest, _)| *oldest < first) {
            self.minutes = self.minutes.split_off(&first);
        }
        // What it was the sum of is not all held any more.
        self.since = self.since.filter(|(start, _)| *start >= first);
    }

    /// The sum over a window; nothing for one that it was not made with.
    #[must_use]
    pub fn sum(&self, window: Window) -> Sums {
        let index = self.windows.iter().position(|known| *known == window);
        index.map_or_else(Sums::default, |index| self.sums[index])
    }

    /// The sum from a minute to now, as far as it is held; asking for the same minute again costs nothing.
    pub fn sum_since(&mut self, start: Minute) -> Sums {
        if start > self.now {
            return Sums::default();
        }
        if let Some((known, sum)) = self.since
            && known == start
        {
            return sum;
        }
        let mut sum = Sums::default();
        self.minutes.range(start..=self.now).for_each(|(_, sums)| sum += sums);
        self.since = (start >= self.first_held()).then_some((start, sum));
        sum
    }
}

/// Which of the two a figure has to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Op {
    /// At least the threshold.
    Gte,
    /// More than it.
    Gt,
}

impl Op {
    /// The spelling in documents.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Gte => "gte",
            Self::Gt => "gt",
        }
    }

    /// Whether `value` reaches `threshold`.
    #[must_use]
    pub fn holds(self, value: Ratio, threshold: Ratio) -> bool {
        match self {
            Self::Gte => value >= threshold,
            Self::Gt => value > threshold,
        }
    }
}

/// What a figure is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Figure {
    /// hits / calls.
    Share,
    /// (hits / calls) / (1 - target).
    BurnRate {
        /// Share of good calls that is promised.
        target: Target,
    },
    /// A quantile, of which the hits are the calls that reach the threshold.
    Quantile {
        /// Which.
        quantile: Quantile,
    },
    /// Cost in dollars.
    Cost {
        /// Scaled to so long; `None` for the sum itself.
        per: Option<Window>,
    },
}

impl Figure {
    /// Its value over a window; `None` without calls, and of a quantile, which nobody knows.
    #[must_use]
    pub fn value(&self, sums: &Sums, window: Window) -> Option<Ratio> {
        if sums.calls == 0 {
            return None;
        }
        let share = Ratio::new(sums.hits.into(), sums.calls.into())?;
        match self {
            Self::Share => Some(share),
            Self::BurnRate { target } => {
                let one = 10_u128.pow(TARGET_PLACES);
                share.times(Ratio::new(one, one - u128::from(target.units()))?)
            }
            Self::Quantile { .. } => None,
            Self::Cost { per } => {
                let cost = Ratio::new(u128::try_from(sums.cost).unwrap_or(0), NANOS_PER_USD)?;
                match per {
                    None => Some(cost),
                    Some(per) => cost.times(Ratio::new(per.minutes().into(), window.minutes().into())?),
                }
            }
        }
    }

    /// Whether it reaches the threshold.
    #[must_use]
    pub fn reaches(&self, sums: &Sums, window: Window, op: Op, threshold: Ratio) -> bool {
        match self {
            Self::Quantile { quantile } => quantile.is_among(sums.hits, sums.calls),
            _ => self.value(sums, window).is_some_and(|value| op.holds(value, threshold)),
        }
    }
}

/// A quantile above 0 and below 1, an exact decimal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Quantile {
    /// In units of 10^-[`QUANTILE_PLACES`].
    units: u64,
}

/// Decimal places of a quantile.
pub const QUANTILE_PLACES: u32 = 9;
const QUANTILE_ONE: u64 = 10_u64.pow(QUANTILE_PLACES);

impl Quantile {
    /// Reads a decimal number such as `0.95`; none if it is not above 0 and below 1, or has too many places.
    #[must_use]
    pub fn from_decimal(text: &str) -> Option<Self> {
        let ratio = Ratio::from_decimal(text)?;
        let units = u64::try_from(ratio.rounded(QUANTILE_PLACES)?).ok()?;
        let is_exact = Ratio::new(units.into(), QUANTILE_ONE.into())? == ratio;
        (is_exact && (1..QUANTILE_ONE).contains(&units)).then_some(Self { units })
    }

    /// In units of 10^-[`QUANTILE_PLACES`].
    #[must_use]
    pub const fn units(self) -> u64 {
        self.units
    }

    /// The number of the quantile among `n` in order, from 1; of none, 1 too.
    #[must_use]
    pub const fn rank(self, n: u64) -> u64 {
        let rank = (self.units as u128 * n as u128).div_ceil(QUANTILE_ONE as u128) as u64;
        if rank == 0 { 1 } else { rank }
    }

    /// Whether it is among the `hits` largest of `n`.
    #[must_use]
    pub const fn is_among(self, hits: u64, n: u64) -> bool {
        n > 0 && hits > n.saturating_sub(self.rank(n))
    }
}

/// As people say it: `p95`, `p99.9`.
impl std::fmt::Display for Quantile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let one = QUANTILE_ONE / 100;
        write!(f, "p{}", self.units / one)?;
        match format!("{:07}", self.units % one).trim_end_matches('0') {
            "" => Ok(()),
            rest => write!(f, ".{rest}"),
        }
    }
}

#[cfg(test)]
mod tests;
