//! Budgets of money: an amount for each period of a calendar, how fast it is spent, and where that leads.
//!
//! # Definitions
//! Of an amount A for a period of L minutes of which E have begun, with S spent so far and C spent within the last W minutes:
//! * Burn rate over W = (C / W) / (A / L). At 1 the amount lasts exactly to the end of the period.
//! * Forecast = S + C x (L - E) / W: the last W minutes repeat until the end.
//! * Overrun = forecast - A, signed.
//! * The amount is used up at now + (A - S) x W / C.
//!
//! Costs are the known ones; of calls without a price nobody knows what they cost.
//!
//! # Tiers
//! `exceeded`: S >= A. `forecast`: forecast >= A. `fast`: within an hour at least a share F of A was spent, and F / 12 within five
//! minutes. F is [`fast_share`].
//!
//! All decisions are made with integers.

use crate::budget::Ratio;
use crate::threshold::NANOS_PER_USD;
use crate::window::{Minute, Window};

/// What is told apart of a budget of money, the label `burn_tier`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CostTier {
    /// It is spent.
    Exceeded,
    /// Much of it goes within an hour.
    Fast,
    /// It will not last.
    Forecast,
}

impl CostTier {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Exceeded, Self::Fast, Self::Forecast];

    /// The label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Exceeded => "exceeded",
            Self::Fast => "fast",
            Self::Forecast => "forecast",
        }
    }
}

/// The windows of the tier `fast`: long, short.
pub const FAST_WINDOWS: (Window, Window) = (Window::H1, Window::M5);

/// The share of the amount that must not go within an hour, for a period of so many days: a quarter of a day's, 5 % of a week's, 2 % of a
/// longer one's, which is what the SRE workbook pages for.
#[must_use]
pub const fn fast_share(days: u32) -> Ratio {
    match days {
        0..=1 => Ratio::percent(25),
        2..=7 => Ratio::percent(5),
        _ => Ratio::percent(2),
    }
}

/// The window whose spending is taken to go on, for a period of so many days: six hours of a day, else a whole day, so that nights are in it.
#[must_use]
pub const fn forecast_window(days: u32) -> Window {
    if days <= 1 { Window::H6 } else { Window::D1 }
}

/// A budget of money at an instant. Amounts are in units of 10^-9 dollars.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spending {
    /// What may be spent.
    pub amount: u128,
    /// The first minute of the period.
    pub start: Minute,
    /// The first minute after it.
    pub end: Minute,
    /// The running minute, which is in the period.
    pub now: Minute,
    /// Spent since the start, the running minute included.
    pub spent: i128,
    /// Spent in the window of the forecast.
    pub recent: i128,
    /// That window.
    pub window: Window,
}

impl Spending {
    /// Minutes of the period.
    const fn length(&self) -> u64 {
        self.end.0.saturating_sub(self.start.0).unsigned_abs()
    }

    /// Minutes of the period that have not begun.
    #[must_use]
    pub const fn minutes_left(&self) -> u64 {
        let left = self.end.0.saturating_sub(self.now.0 + 1);
        if left > 0 { left.unsigned_abs() } else { 0 }
    }

    /// What is left of the amount; negative if more was spent.
    #[must_use]
    pub fn remaining(&self) -> i128 {
        i128::try_from(self.amount).unwrap_or(i128::MAX).saturating_sub(self.spent)
    }

    /// How many times as fast as allowed this was spent within a window; `None` for an amount of 0.
    #[must_use]
    pub fn burn_rate(&self, cost: i128, window: Window) -> Option<Ratio> {
        let spent = Ratio::new(positive(cost), window.minutes().into())?;
        spent.times(Ratio::new(self.length().into(), self.amount)?)
    }

    /// What will have been spent at the end of the period, rounded down.
    #[must_use]
    pub fn forecast(&self) -> i128 {
        let coming =
            positive(self.recent).saturating_mul(self.minutes_left().into()) / u128::from(self.window.minutes());
        self.spent.saturating_add(i128::try_from(coming).unwrap_or(i128::MAX))
    }

    /// The forecast less the amount, rounded down: negative if the amount lasts.
    #[must_use]
    pub fn overrun(&self) -> i128 {
        self.forecast().saturating_sub(i128::try_from(self.amount).unwrap_or(i128::MAX))
    }

    /// The minute in which the amount is used up if it goes on like this; `None` if it lasts to the end of the period.
    #[must_use]
    pub fn used_up_in(&self) -> Option<Minute> {
        let left = self.remaining();
        if left <= 0 {
            return Some(self.now);
        }
        if self.overrun() < 0 {
            return None;
        }
        let minutes =
            positive(left).saturating_mul(self.window.minutes().into()).div_ceil(positive(self.recent).max(1));
        Some(Minute(self.now.0.saturating_add(i64::try_from(minutes).unwrap_or(i64::MAX))))
    }

    /// Whether the tiers `exceeded` and `forecast` burn.
    #[must_use]
    pub fn reaches(&self, tier: CostTier) -> bool {
        match tier {
            CostTier::Exceeded => self.remaining() <= 0,
            CostTier::Forecast => self.overrun() >= 0,
            CostTier::Fast => false,
        }
    }

    /// Whether the tier `fast` burns, given what was spent within its windows.
    #[must_use]
    pub fn is_fast(&self, long: i128, short: i128, share: Ratio) -> bool {
        let Some(limit) = share.times(Ratio::new(self.amount, 1).unwrap_or(Ratio::ONE)) else { return false };
        let (hour, minutes) = FAST_WINDOWS;
        let part = Ratio::new(minutes.minutes().into(), hour.minutes().into());
        let short_limit = part.and_then(|part| limit.times(part));
        let of = |cost: i128| Ratio::new(positive(cost), 1);
        of(long) >= Some(limit) && short_limit.is_some() && of(short) >= short_limit && self.amount > 0
    }
}

const fn positive(cost: i128) -> u128 {
    if cost > 0 { cost.unsigned_abs() } else { 0 }
}

/// An amount as dollars: `500`, `0.5`, `-12.25`.
#[must_use]
pub fn dollars(nanos: i128) -> String {
    let (whole, rest) = (nanos.unsigned_abs() / NANOS_PER_USD, nanos.unsigned_abs() % NANOS_PER_USD);
    let sign = if nanos < 0 { "-" } else { "" };
    match format!("{rest:09}").trim_end_matches('0') {
        "" => format!("{sign}{whole}"),
        rest => format!("{sign}{whole}.{rest:0<2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const USD: i128 = 1_000_000_000;

    fn day(spent: i128, recent: i128, now: i64) -> Spending {
        let amount = 500 * USD.unsigned_abs();
        Spending { amount, start: Minute(0), end: Minute(1_440), now: Minute(now), spent, recent, window: Window::H6 }
    }

    #[test]
    fn a_day_of_500_dollars_by_hand() {
        // At the end of 12:00, 250 spent, and 125 within the last six hours: 720 minutes less one are left.
        let even = day(250 * USD, 125 * USD, 720);
        assert_eq!(even.minutes_left(), 719);
        assert_eq!(even.burn_rate(even.recent, even.window).unwrap().to_f64(), 1.0);
        assert_eq!(even.forecast(), 250 * USD + 125 * USD * 719 / 360);
        assert!(even.overrun() < 0 && even.used_up_in().is_none());
        assert!(CostTier::ALL.iter().all(|tier| !even.reaches(*tier)));

        let much = day(250 * USD, 250 * USD, 720);
        assert_eq!(much.burn_rate(much.recent, much.window).unwrap().to_f64(), 2.0);
        assert_eq!(much.overrun(), 250 * USD * 719 / 360 - 250 * USD);
        assert_eq!(much.used_up_in(), Some(Minute(1_080)));
        assert!(much.reaches(CostTier::Forecast) && !much.reaches(CostTier::Exceeded));

        let all = day(500 * USD, 0, 720);
        assert!(all.reaches(CostTier::Exceeded) && all.reaches(CostTier::Forecast));
        assert!(!day(500 * USD - 1, 0, 1_439).reaches(CostTier::Exceeded));
        assert_eq!(all.used_up_in(), Some(Minute(720)));
    }

    #[test]
    fn a_quarter_of_a_day_within_an_hour_is_fast() {
        let day = day(0, 0, 60);
        let share = fast_share(1);
        let (long, short) = (125 * USD, 125 * USD / 12 + 1);
        assert!(day.is_fast(long, short, share));
        assert!(!day.is_fast(long - 1, short, share));
        assert!(!day.is_fast(long, short - 1, share), "it has ended");
        assert!(day.is_fast(500 * USD, 125 * USD / 12 + 1, share));
    }

    #[test]
    fn forecasts_are_those_of_a_walk_minute_by_minute() {
        for (spent, recent, now) in [(0, 7, 0), (499 * USD, 360, 1_000), (1, USD, 700), (300 * USD, 360 * USD, 1_300)] {
            let spending = day(spent, recent, now);
            let mut walked = spent * 360;
            let mut used_up = None;
            for minute in now + 1..1_440 {
                walked += recent;
                if walked >= 500 * USD * 360 && used_up.is_none() {
                    used_up = Some(Minute(minute));
                }
            }
            assert_eq!(spending.forecast(), walked / 360);
            assert_eq!(spending.used_up_in(), used_up, "{spending:?}");
            assert_eq!(spending.reaches(CostTier::Forecast), used_up.is_some());
        }
    }

    #[test]
    fn huge_amounts_do_not_overflow() {
        let spending = Spending { spent: i128::MAX / 2, recent: i128::MAX / 2, ..day(0, 0, 5) };
        assert!(spending.reaches(CostTier::Forecast) && spending.forecast() > 0);
        let free = Spending { amount: 0, ..day(0, 0, 5) };
        assert_eq!(free.burn_rate(5, Window::H1).map(Ratio::to_f64), None);
        assert!(free.reaches(CostTier::Exceeded) && !free.is_fast(5, 5, fast_share(30)));
    }

    #[test]
    fn dollars_are_written_as_people_do() {
        let shown = [500 * USD, USD / 2, -12 * USD - USD / 4, 1, 0].map(dollars);
        assert_eq!(shown, ["500", "0.50", "-12.25", "0.000000001", "0"]);
    }
}
