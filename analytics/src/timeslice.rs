//! Slices of time as events of a budget: a slice is good if enough of its events were.
//!
//! # Definitions
//! * Slices are `minutes` long and begin at multiples of that since 1970-01-01T00:00Z, whatever the zone of the budget's period. A slice belongs to the
//!   window or period in which it begins.
//! * Verdict, from the summed counts of its minutes: good if good / total >= the slice's target. A slice without events is empty: it is neither, and
//!   shown beside them. Verdicts are made when they are asked for, so a row that comes late may still turn one.
//! * Only slices that have ended count: the running one has no verdict yet. So a window W at a minute T is the slices that begin from W before the start
//!   of the slice of T to before that start.
//! * Budget and burn rate are those of [`crate::budget`], with slices as events: allowed = (1 - target) x (good + bad).

mod judged;

use std::collections::BTreeMap;

use crate::budget::Ratio;
use crate::calendar::Span;
use crate::sli::{Counts, WEIGHT_ONE};
use crate::window::{Minute, Window};
pub use judged::{Judged, Turned};

/// Longest slice, in minutes: a day.
pub const SLICE_MINUTES_MAX: u32 = 1_440;

/// How time is cut, and when a slice is good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slices {
    minutes: u32,
    target: Ratio,
}

/// What a slice is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Verdict {
    /// Enough of its events were good.
    Good,
    /// Too few were.
    Bad,
    /// It had none.
    #[default]
    Empty,
}

/// Slices by their verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SliceCounts {
    /// Good ones.
    pub good: u64,
    /// Bad ones.
    pub bad: u64,
    /// Those without events.
    pub empty: u64,
}

impl SliceCounts {
    /// As events, for [`crate::budget`]: empty slices are neither good nor bad.
    #[must_use]
    pub fn counts(&self) -> Counts {
        Counts {
            good: self.good,
            bad: self.bad,
            excluded: self.empty,
            nulls: 0,
            good_weighted: i128::from(self.good) * WEIGHT_ONE,
            bad_weighted: i128::from(self.bad) * WEIGHT_ONE,
        }
    }
}

impl Slices {
    /// Slices of so many minutes that are good from this share of good events on; none if that is no length up to
    /// [`SLICE_MINUTES_MAX`], or the share is 0 or above 1.
    #[must_use]
    pub fn new(minutes: u32, target: Ratio) -> Option<Self> {
        let above_zero = Ratio::new(0, 1).is_some_and(|zero| target > zero);
        ((1..=SLICE_MINUTES_MAX).contains(&minutes) && above_zero && target <= Ratio::ONE)
            .then_some(Self { minutes, target })
    }

    /// How long a slice is.
    #[must_use]
    pub const fn length(&self) -> Window {
        Window::from_minutes(self.minutes)
    }

    /// The share of good events from which on a slice is good.
    #[must_use]
    pub const fn target(&self) -> Ratio {
        self.target
    }

    /// The first minute of the slice of a minute.
    #[must_use]
    pub const fn start_of(&self, minute: Minute) -> Minute {
        Minute(minute.0 - minute.0.rem_euclid(self.minutes as i64))
    }

    /// The starts of the slices of a window at `now`, all of which have ended.
    #[must_use]
    pub const fn window_at(&self, window: Window, now: Minute) -> Span {
        let end = self.start_of(now);
        Span { start: Minute(end.0 - window.minutes() as i64), end }
    }

    /// The part of a span in which slices begin that have ended at `now`.
    #[must_use]
    pub fn ended(&self, span: Span, now: Minute) -> Span {
        Span { start: span.start, end: span.end.min(self.start_of(now)).max(span.start) }
    }

    /// The minutes of the slices that begin in a span: what [`Slices::tally`] needs.
    #[must_use]
    pub const fn minutes_of(&self, span: Span) -> Span {
        let (start, end) = (self.first_from(span.start), self.first_from(span.end));
        Span { start, end: if end.0 > start.0 { end } else { start } }
    }

    /// The verdict over the summed counts of a slice.
    #[must_use]
    pub fn verdict(&self, counts: &Counts) -> Verdict {
        match Ratio::new(counts.good.into(), counts.total().into()) {
            None => Verdict::Empty,
            Some(ratio) if ratio >= self.target => Verdict::Good,
            Some(_) => Verdict::Bad,
        }
    }

    /// The verdicts of the slices that begin in a span, from the counts of their minutes, in any order; other minutes are not looked at.
    #[must_use]
    pub fn tally(&self, minutes: impl IntoIterator<Item = (Minute, Counts)>, span: Span) -> SliceCounts {
        let mut counts = SliceCounts::default();
        for (_, verdict) in self.verdicts(minutes, span) {
            match verdict {
                Verdict::Good => counts.good += 1,
                Verdict::Bad => counts.bad += 1,
                Verdict::Empty => {}
            }
        }
        let slices = self.minutes_of(span).minutes() / u64::from(self.minutes);
        counts.empty = slices - counts.good - counts.bad;
        counts
    }

    /// The verdicts themselves, by the slices' starts, without those of slices of which no minute was given.
    #[must_use]
    pub fn verdicts(
        &self,
        minutes: impl IntoIterator<Item = (Minute, Counts)>,
        span: Span,
    ) -> BTreeMap<Minute, Verdict> {
        let mut sums: BTreeMap<Minute, Counts> = BTreeMap::new();
        for (minute, counts) in minutes {
            let start = self.start_of(minute);
            if span.contains(start) {
                *sums.entry(start).or_default() += &counts;
            }
        }
        sums.into_iter().map(|(start, counts)| (start, self.verdict(&counts))).collect()
    }

    /// The first slice that begins at a minute or after it.
    const fn first_from(&self, minute: Minute) -> Minute {
        let start = self.start_of(minute);
        if start.0 == minute.0 { start } else { Minute(start.0 + self.minutes as i64) }
    }
}

#[cfg(test)]
mod tests;
