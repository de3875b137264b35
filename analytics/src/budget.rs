//! Error budgets and burn rates, exactly: what decides is integers, and a quotient is only made to be shown.
//!
//! # Definitions
//! (SRE Workbook, chapter 5.)
//! * Where a weight differs from 1, weights are added up instead of events: a sampled event spends what it stands for.
//! * Allowed = (1 - target) x total; spent = bad; remaining = allowed - spent, signed and never clamped.
//! * Burn rate = (bad / total) / (1 - target), of the counts of one window. At 1 the budget is used up exactly at the end
//!   of the period.
//! * A tier fires when the burn rates of its long and of its short window are at least its factor.
//! * Factor = budget fraction x period / long window: the burn rate that spends this fraction of the budget within the long
//!   window. Below 1 it would fire on a service that keeps its objective, so it is at least 1. Of a target so low
//!   that the factor needs an error ratio above 0.8 it is 0.8 / (1 - target) instead, but at least 1.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use crate::sli::{Counts, WEIGHT_ONE};
use crate::window::Window;

/// Decimal places of a target.
pub const TARGET_PLACES: u32 = 12;
const TARGET_ONE: u64 = 10_u64.pow(TARGET_PLACES);
/// A tier must be able to fire before every call fails: at this error ratio.
const REACHABLE: Ratio = Ratio { num: 4, den: 5 };

/// A ratio of integers that is at least 0, compared exactly.
#[derive(Debug, Clone, Copy)]
pub struct Ratio {
    num: u128,
    den: u128,
}

impl Ratio {
    /// One.
    pub const ONE: Self = Self { num: 1, den: 1 };

    /// `num / den`; none if `den` is 0.
    #[must_use]
    pub const fn new(num: u128, den: u128) -> Option<Self> {
        if den == 0 { None } else { Some(Self { num, den }) }
    }

    /// So many hundredths.
    #[must_use]
    pub const fn percent(num: u32) -> Self {
        Self { num: num as u128, den: 100 }
    }

    /// The nearest double, to show it.
    #[must_use]
    pub fn to_f64(self) -> f64 {
        self.num as f64 / self.den as f64
    }

    /// The product in lowest terms; none if it does not fit.
    #[must_use]
    pub fn times(self, other: Self) -> Option<Self> {
        let (a, b) = (gcd(self.num, other.den), gcd(other.num, self.den));
        let num = (self.num / a).checked_mul(other.num / b)?;
        let den = (self.den / b).checked_mul(other.den / a)?;
        let common = gcd(num, den);
        Self::new(num / common, den / common)
    }

    /// The quotient in lowest terms; none if it does not fit, or the other is 0.
    #[must_use]
    pub fn over(self, other: Self) -> Option<Self> {
        self.times(Self::new(other.den, other.num)?)
    }

    /// The largest whole number that is not above it.
    #[must_use]
    pub const fn floor(self) -> u128 {
        self.num / self.den
    }

    /// In units of 10^-`places`, rounded half-even; none if it does not fit.
    #[must_use]
    pub fn rounded(self, places: u32) -> Option<i128> {
        let Self { num, den } = self.times(Self { num: 10_u128.checked_pow(places)?, den: 1 })?;
        let (whole, rest) = (num / den, num % den);
        let up = match rest.cmp(&(den - rest)) {
            Ordering::Less => 0,
            Ordering::Equal => whole % 2,
            Ordering::Greater => 1,
        };
        i128::try_from(whole + up).ok()
    }

    /// Reads a decimal number such as `14.4`; none if it is none, is negative, or has more than 30 digits.
    #[must_use]
    pub fn from_decimal(text: &str) -> Option<Self> {
        let (whole, rest) = text.split_once('.').unwrap_or((text, ""));
        let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
        if whole.len() + rest.len() > 30 || whole.is_empty() || !digits(whole) || !digits(rest) {
            return None;
        }
        let num = [whole, rest].concat().parse().ok()?;
        Self::new(num, 10_u128.pow(u32::try_from(rest.len()).ok()?))
    }
}

impl PartialEq for Ratio {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Ratio {}

impl PartialOrd for Ratio {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// By continued fractions, so that no product can overflow.
impl Ord for Ratio {
    fn cmp(&self, other: &Self) -> Ordering {
        let (mut left, mut right, mut swapped) = (*self, *other, false);
        loop {
            let order = (left.num / left.den).cmp(&(right.num / right.den));
            let (l, r) = (left.num % left.den, right.num % right.den);
            let order = if order.is_ne() || (l > 0 && r > 0) { order } else { l.cmp(&r) };
            if order.is_ne() || l == 0 {
                return if swapped { order.reverse() } else { order };
            }
            // Their whole parts are equal: the fraction is smaller of which the reciprocal is larger.
            (left, right) = (Self { num: left.den, den: l }, Self { num: right.den, den: r });
            swapped = !swapped;
        }
    }
}

impl fmt::Display for Ratio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.to_f64())
    }
}

const fn gcd(mut a: u128, mut b: u128) -> u128 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    if a == 0 { 1 } else { a }
}

/// A signed decimal number of events with [`TARGET_PLACES`] places: a budget is seldom whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Events(i128);

impl Events {
    /// So many whole ones.
    #[must_use]
    pub fn whole(events: u64) -> Self {
        Self(i128::from(events) * i128::from(TARGET_ONE))
    }

    /// Of millionths of units, rounded half-even.
    fn of_weights(millionths: u128) -> Self {
        const ONE: u128 = WEIGHT_ONE.unsigned_abs();
        let (whole, rest) = (millionths / ONE, millionths % ONE);
        let up = match (rest * 2).cmp(&ONE) {
            Ordering::Less => 0,
            Ordering::Equal => whole % 2,
            Ordering::Greater => 1,
        };
        Self(i128::try_from(whole + up).unwrap_or(i128::MAX))
    }

    /// In units of 10^-[`TARGET_PLACES`].
    #[must_use]
    pub const fn units(self) -> i128 {
        self.0
    }

    /// The nearest double, to show it.
    #[must_use]
    pub fn to_f64(self) -> f64 {
        self.0 as f64 / TARGET_ONE as f64
    }
}

/// All its digits, without trailing zeros.
impl fmt::Display for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let one = u128::from(TARGET_ONE);
        let (whole, rest) = (self.0.unsigned_abs() / one, self.0.unsigned_abs() % one);
        let sign = if self.0 < 0 { "-" } else { "" };
        write!(f, "{sign}{whole}")?;
        if rest > 0 {
            let rest = format!("{rest:0places$}", places = TARGET_PLACES as usize);
            write!(f, ".{}", rest.trim_end_matches('0'))?;
        }
        Ok(())
    }
}

/// Why a target is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetError {
    text: String,
    below: u32,
}

impl fmt::Display for TargetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { text, below } = self;
        let example = if *below == 1 { "0.999" } else { "99.9" };
        write!(
            f,
            "must be a decimal number from 0 to below {below} with at most {} decimal places, got {text:?} (write \
             something like {example})",
            if *below == 1 { TARGET_PLACES } else { TARGET_PLACES - 2 }
        )
    }
}

impl std::error::Error for TargetError {}

/// The share of good events that is promised: from 0 to below 1, an exact decimal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Target {
    /// In units of 10^-[`TARGET_PLACES`].
    units: u64,
}

impl Target {
    /// Reads a ratio such as `0.999`.
    ///
    /// # Errors
    /// If it is no decimal number from 0 to below 1, or has more than [`TARGET_PLACES`] places.
    pub fn from_ratio(text: &str) -> Result<Self, TargetError> {
        Self::parse(text, 1)
    }

    /// Reads a percentage such as `99.9`.
    ///
    /// # Errors
    /// If it is no decimal number from 0 to below 100, or has too many places.
    pub fn from_percent(text: &str) -> Result<Self, TargetError> {
        Self::parse(text, 100)
    }

    fn parse(text: &str, below: u32) -> Result<Self, TargetError> {
        let units = Ratio::from_decimal(text).and_then(|ratio| {
            let one = Ratio::new(TARGET_ONE.into(), below.into())?;
            let units = ratio.times(one)?;
            let (whole, rest) = (units.num / units.den, units.num % units.den);
            (rest == 0 && whole < TARGET_ONE.into()).then_some(whole as u64)
        });
        let units = units.ok_or_else(|| TargetError { text: text.to_owned(), below })?;
        Ok(Self { units })
    }

    /// In units of 10^-[`TARGET_PLACES`].
    #[must_use]
    pub const fn units(self) -> u64 {
        self.units
    }

    /// The nearest double, to show it.
    #[must_use]
    pub fn to_f64(self) -> f64 {
        self.units as f64 / TARGET_ONE as f64
    }

    /// The share of events that may be bad: 1 - target, above 0.
    #[must_use]
    pub const fn budget(self) -> Ratio {
        Ratio { num: (TARGET_ONE - self.units) as u128, den: TARGET_ONE as u128 }
    }
}

/// All its digits, as a ratio.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Events(self.units.into()).fmt(f)
    }
}

/// What is left of an error budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// (1 - target) x total.
    pub allowed: Events,
    /// Bad events.
    pub spent: Events,
    /// Allowed less spent: negative if more was spent.
    pub remaining: Events,
}

impl Budget {
    /// The budget of these counts.
    #[must_use]
    pub fn of(counts: &Counts, target: Target) -> Self {
        let (bad, total) = counts.spending();
        let allowed = Events::of_weights(total.saturating_mul((TARGET_ONE - target.units).into()));
        let spent = Events::of_weights(bad.saturating_mul(TARGET_ONE.into()));
        Self { allowed, spent, remaining: Events(allowed.0 - spent.0) }
    }

    /// Remaining / allowed: 1 if nothing is spent, negative if too much is; none without events.
    #[must_use]
    pub fn remaining_ratio(&self) -> Option<f64> {
        (self.allowed.0 > 0).then(|| self.remaining.0 as f64 / self.allowed.0 as f64)
    }

    /// What will be allowed over a period of `whole` minutes if events go on to come as they did in its first `elapsed` ones: an estimate, rounded
    /// down. What is allowed so far if nothing has elapsed.
    #[must_use]
    pub fn allowed_in(&self, elapsed: u64, whole: u64) -> Events {
        if elapsed == 0 {
            return self.allowed;
        }
        let (elapsed, whole) = (i128::from(elapsed), i128::from(whole));
        // A product that does not fit is divided first: it has digits enough.
        Events(self.allowed.0.checked_mul(whole).map_or_else(|| self.allowed.0 / elapsed * whole, |all| all / elapsed))
    }
}

/// (bad / total) / (1 - target); none without events.
#[must_use]
pub fn burn_rate(counts: &Counts, target: Target) -> Option<Ratio> {
    let (bad, total) = counts.spending();
    let common = gcd(bad, total);
    let errors = Ratio::new(bad / common, total / common)?;
    let Ratio { num, den } = target.budget();
    errors.times(Ratio { num: den, den: num })
}

/// The part of what is allowed that these counts spend; none if nothing is spent or allowed.
#[must_use]
pub fn consumption(counts: &Counts, allowed: Events, target: Target) -> Option<Ratio> {
    let spent = u128::try_from(Budget::of(counts, target).spent.0).ok().filter(|spent| *spent > 0)?;
    Ratio::new(spent, u128::try_from(allowed.0).ok()?)
}

/// Whom an alert is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// A person, now.
    Page,
    /// A person, in working hours.
    Ticket,
}

impl Severity {
    /// Its word in labels and the API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Page => "page",
            Self::Ticket => "ticket",
        }
    }
}

/// What a tier looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Measure {
    /// How fast the budget burns in both windows.
    BurnRate,
    /// Which part of what the whole period allows was spent in the long window, however unevenly traffic came. The short window is the same.
    Consumption,
}

/// One pair of windows, and how fast the budget must burn in both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tier {
    /// Its name, the label `burn_tier`.
    pub name: Arc<str>,
    /// Whom it calls.
    pub severity: Severity,
    /// The window that says that enough is lost.
    pub long: Window,
    /// The window that says that it still goes on.
    pub short: Window,
    /// The least burn rate of both at which it fires; or the least part of the budget.
    pub factor: Ratio,
    /// Which of the two.
    pub measure: Measure,
}

/// The Workbook's tiers: name, severity, percentage of the budget, long and short window.
pub const WORKBOOK: [(&str, Severity, u32, Window, Window); 4] = [
    ("fast", Severity::Page, 2, Window::H1, Window::M5),
    ("medium", Severity::Page, 5, Window::H6, Window::M30),
    ("slow", Severity::Ticket, 10, Window::D1, Window::H2),
    ("long-term", Severity::Ticket, 10, Window::D3, Window::H6),
];

/// The tiers of an SLO that names none: the Workbook's, without those whose long window exceeds the period.
#[must_use]
pub fn default_tiers(period: Window, target: Target) -> Vec<Tier> {
    let fitting = WORKBOOK.iter().filter(|(_, _, _, long, _)| *long <= period);
    fitting
        .map(|&(name, severity, percent, long, short)| {
            let factor = factor(Ratio::percent(percent), period, long, target);
            Tier { name: name.into(), severity, long, short, factor, measure: Measure::BurnRate }
        })
        .collect()
}

/// The burn rate that spends `fraction` of a period's budget within `long`, within the limits that the module's
/// documentation gives.
#[must_use]
pub fn factor(fraction: Ratio, period: Window, long: Window, target: Target) -> Ratio {
    let windows = Ratio { num: period.minutes().into(), den: long.minutes().into() };
    let Ratio { num, den } = target.budget();
    let reachable = REACHABLE.times(Ratio { num: den, den: num }).unwrap_or(Ratio::ONE);
    // A fraction of so many digits that the product does not fit is out of reach.
    fraction.times(windows).unwrap_or(reachable).min(reachable).max(Ratio::ONE)
}

impl Tier {
    /// Whether it is reached, given what the period allows: by what it looks at.
    #[must_use]
    pub fn is_reached(&self, long: &Counts, short: &Counts, allowed: Events, target: Target) -> bool {
        match self.measure {
            Measure::BurnRate => self.burns(long, short, target),
            Measure::Consumption => self.consumes(long, allowed, target),
        }
    }

    /// Whether at least its part of what is allowed was spent in the long window. Nothing is no part.
    #[must_use]
    pub fn consumes(&self, long: &Counts, allowed: Events, target: Target) -> bool {
        consumption(long, allowed, target).is_some_and(|part| part >= self.factor)
    }

    /// The window of which telemetry has to be known for it to be trusted: what was spent days ago is spent.
    #[must_use]
    pub fn heard(&self) -> Window {
        match self.measure {
            Measure::BurnRate => self.short,
            Measure::Consumption => self.short.min(Window::H1),
        }
    }

    /// Whether both windows burn at least at the factor. A window without events does not.
    #[must_use]
    pub fn burns(&self, long: &Counts, short: &Counts, target: Target) -> bool {
        let burns = |counts| burn_rate(counts, target).is_some_and(|rate| rate >= self.factor);
        burns(long) && burns(short)
    }
}

#[cfg(test)]
mod tests;
