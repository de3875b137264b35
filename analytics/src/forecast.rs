//! When an error budget will be used up, if the last hours repeat.
//!
//! # Definitions
//! * Pace: the bad and all events of the last hours go on to come, spread evenly over the minutes.
//! * A budget is used up in the first minute in which more is bad than is allowed: bad > (1 - target) x total, of what the window will hold then. Spent
//!   to the last event is not yet used up: the objective is still met.
//! * Of a rolling window old minutes roll off, in the order in which they came, and with them what they had spent and allowed. Once all have,
//!   nothing changes any more: after one period the answer is never. So a service that has missed its objective, and keeps it now, may run out of
//!   budget yet: when good days roll off.
//! * It is looked at by the hour, of the clock, so that what rolls off is the sum of one. Within the first hour at whose end the budget is used up it is looked at by the minute; one that is used up and
//!   recovers within an hour is not told.
//! * Of a period of the calendar nothing rolls off, and what it allows as a whole is estimated ([`crate::budget::Budget::allowed_in`]).
//!
//! All is decided in integers.

use std::ops::Range;

use crate::budget::{Events, Ratio, Target};
use crate::sli::Counts;
use crate::window::Window;

/// How fast events come, and bad ones.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    bad: u128,
    total: u128,
    minutes: u32,
}

impl Pace {
    /// That of the counts of a window.
    #[must_use]
    pub fn of(recent: &Counts, window: Window) -> Self {
        let (bad, total) = recent.spending();
        Self { bad, total, minutes: window.minutes() }
    }
}

/// A rolling budget, as it is now.
#[derive(Debug, Clone, Copy)]
pub struct Rolling<'a> {
    /// What its window holds.
    pub counts: &'a Counts,
    /// What goes on.
    pub pace: Pace,
    /// The share of good events that is promised.
    pub target: Target,
    /// The length of its window.
    pub period: Window,
    /// The length of what can be told apart: a minute, or a slice.
    pub grain: Window,
    /// Minutes until the first look: those of the hour in which the window begins.
    pub lead: Window,
}

impl Rolling<'_> {
    /// In how many minutes it will be used up: 0 if it is, none if it will not be. `rolls_off` gives the counts of some minutes of the window, by their
    /// number since its first one; it is asked for each of them at most twice.
    #[must_use]
    pub fn exhausted_after(&self, mut rolls_off: impl FnMut(Range<u32>) -> Counts) -> Option<u32> {
        let (period, grain) = (self.period.minutes(), self.grain.minutes());
        let step = grain.saturating_mul(60_u32.div_ceil(grain));
        let (mut left, mut at, mut ahead) = (*self.counts, 0, self.lead.minutes());
        if self.is_used_up(&left, 0) {
            return Some(0);
        }
        while at < period {
            let next = at.saturating_add(ahead).min(period);
            ahead = step;
            let mut after = left;
            after -= &rolls_off(at..next);
            if !self.is_used_up(&after, next) {
                (left, at) = (after, next);
                continue;
            }
            while at < next {
                let minute = at.saturating_add(grain).min(next);
                left -= &rolls_off(at..minute);
                at = minute;
                if self.is_used_up(&left, at) {
                    break;
                }
            }
            return Some(at);
        }
        None
    }

    /// Whether it is, with these counts of old and so many minutes at this pace.
    fn is_used_up(&self, left: &Counts, minutes: u32) -> bool {
        let (bad, total) = left.spending();
        let (each, minutes) = (u128::from(self.pace.minutes), u128::from(minutes));
        // In parts of a millionth of an event, as many as the pace has minutes.
        let sum = |old: u128, new: u128| old.saturating_mul(each).saturating_add(new.saturating_mul(minutes));
        Ratio::new(sum(bad, self.pace.bad), sum(total, self.pace.total))
            .is_some_and(|errors| errors > self.target.budget())
    }
}

/// In how many minutes more than `allowed` will be spent, of which `spent` is: 0 if it is, none if nothing more is spent.
#[must_use]
pub fn spent_after(spent: Events, allowed: Events, pace: Pace) -> Option<u64> {
    /// Units of [`Events`] in a millionth of one.
    const UNITS: u128 = 1_000_000;
    let Ok(left) = u128::try_from(allowed.units().saturating_sub(spent.units())) else { return Some(0) };
    let whole = Ratio::new(left, 1)?.times(Ratio::new(pace.minutes.into(), pace.bad.checked_mul(UNITS)?)?)?;
    u64::try_from(whole.floor()).ok()?.checked_add(1)
}

#[cfg(test)]
mod tests;
