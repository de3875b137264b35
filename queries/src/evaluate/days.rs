//! The budget of an SLO by the day.

use toolgauge_analytics::calendar::{Calendar, Span, Unit, Zone};
use toolgauge_analytics::sli::Counts;
use toolgauge_analytics::window::Minute;

use super::{Series, SloStatus};
use crate::slo::definition::{Budgeting, Period};

/// A day of an SLO's period.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Day {
    /// Its minutes, as far as they belong to the period.
    pub span: Span,
    /// In what the budget is counted in: events, or slices that begin in it.
    pub counts: Counts,
}

/// The days of the period so far, in the zone of its calendar (a rolling window's: UTC), with the counts of each, from the minutes of the period.
#[must_use]
pub fn days(status: &SloStatus, series: &Series) -> Vec<Day> {
    let slo = &status.slo.slo;
    let zone = match slo.period {
        Period::Rolling(_) => Zone::UTC,
        Period::Calendar(calendar) => calendar.zone(),
    };
    let Some(calendar) = Calendar::new(1, Unit::Day, chrono::DateTime::UNIX_EPOCH.naive_utc(), zone) else {
        return Vec::new();
    };
    // Slices belong to the period in which they begin, and count when they have ended.
    let whole = status.slices.map_or(status.period, |(slices, _)| slices);
    let (mut days, mut start) = (Vec::new(), whole.start);
    while start < whole.end {
        let span = Span { start, end: calendar.period_at(start).end.min(whole.end) };
        let from = |minute: Minute| series.partition_point(|(at, _)| *at < minute);
        let counts = match slo.budgeting {
            Budgeting::Occurrences => sum(&series[from(span.start)..from(span.end)]),
            Budgeting::Timeslices(slices) => {
                let minutes = slices.minutes_of(span);
                let part = &series[from(minutes.start)..from(minutes.end)];
                slices.tally(part.iter().copied(), span).counts()
            }
        };
        days.push(Day { span, counts });
        start = span.end;
    }
    days
}

fn sum(series: &[(Minute, Counts)]) -> Counts {
    series.iter().fold(Counts::default(), |mut sum, (_, counts)| {
        sum += counts;
        sum
    })
}
