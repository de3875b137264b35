//! Periods of the calendar: weeks, months, quarters and years of a time zone, as spans of UTC minutes.
//!
//! # Definitions
//! * Period `k` begins at the anchor's local date and time plus `k` times the length, counted from the anchor, never from the period before: with an
//!   anchor on the 31st, months begin on the last day where there is no 31st, and on the 31st again where there is one. Periods go on in both
//!   directions, also before the anchor.
//! * A local time that a change of the clock leaves out is the first instant after the change; one that comes twice is the earlier one.
//! * A period that would be empty (Samoa had no 30 December 2011) is none: [`Calendar::period_at`] gives the last that has begun.
//! * Each period ends where the next begins: every minute is in exactly one. A day may have 1,380 or 1,500 minutes.

use std::fmt;

use chrono::{DateTime, Datelike, Days, LocalResult, Months, NaiveDateTime, TimeDelta, TimeZone, Timelike};
/// A time zone of the IANA database.
pub use chrono_tz::Tz as Zone;

use crate::window::{Minute, Window};

/// Minutes from `start` to before `end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span {
    /// The first minute.
    pub start: Minute,
    /// The first minute after it.
    pub end: Minute,
}

impl Span {
    /// How many minutes it has.
    #[must_use]
    pub const fn minutes(&self) -> u64 {
        if self.end.0 > self.start.0 { self.end.0.abs_diff(self.start.0) } else { 0 }
    }

    /// Whether a minute is in it.
    #[must_use]
    pub const fn contains(&self, minute: Minute) -> bool {
        self.start.0 <= minute.0 && minute.0 < self.end.0
    }
}

/// What a period is a number of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Unit {
    /// Days of the zone.
    Day,
    /// Weeks of seven such days.
    Week,
    /// Months of the calendar.
    Month,
    /// Three months.
    Quarter,
    /// Twelve months.
    Year,
}

impl Unit {
    /// The letter of a duration such as `1M`.
    #[must_use]
    pub const fn letter(self) -> char {
        match self {
            Self::Day => 'd',
            Self::Week => 'w',
            Self::Month => 'M',
            Self::Quarter => 'Q',
            Self::Year => 'Y',
        }
    }

    /// The unit of a letter.
    #[must_use]
    pub const fn from_letter(letter: char) -> Option<Self> {
        Some(match letter {
            'd' => Self::Day,
            'w' => Self::Week,
            'M' => Self::Month,
            'Q' => Self::Quarter,
            'Y' => Self::Year,
            _ => return None,
        })
    }

    /// Days of one: a month counts 30, a quarter 90, a year 365.
    const fn nominal_days(self) -> u32 {
        match self {
            Self::Day => 1,
            Self::Week => 7,
            Self::Month => 30,
            Self::Quarter => 90,
            Self::Year => 365,
        }
    }

    /// Days of the longest.
    const fn longest_days(self) -> u32 {
        match self {
            Self::Day => 1,
            Self::Week => 7,
            Self::Month => 31,
            Self::Quarter => 92,
            Self::Year => 366,
        }
    }
}

/// Longest period, in nominal days: a year. Rows are kept for little longer.
pub const PERIOD_DAYS_MAX: u32 = 366;

/// Why there is no such calendar.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CalendarError {
    /// The duration is none of whole days, weeks, months, quarters or years.
    Duration(String),
    /// It is 0, or longer than [`PERIOD_DAYS_MAX`].
    Length(String),
    /// The start is no date and time.
    Start(String),
    /// There is no such time zone.
    Zone(String),
}

impl fmt::Display for CalendarError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Duration(text) => {
                write!(f, "{text:?} is no period of the calendar (write whole d, w, M, Q or Y, like 1M; m are minutes)")
            }
            Self::Length(text) => write!(f, "{text:?} is no period that can be kept (write one from 1d to 1Y)"),
            Self::Start(text) => write!(
                f,
                "{text:?} is no local date and time of a whole minute (write like \"2026-01-01 00:00:00\", without a zone)"
            ),
            Self::Zone(text) => {
                write!(f, "{text:?} is no time zone of the IANA database (write like Europe/Berlin or UTC)")
            }
        }
    }
}

impl std::error::Error for CalendarError {}

/// Periods of the calendar.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Calendar {
    count: u32,
    unit: Unit,
    start: NaiveDateTime,
    zone: Zone,
}

impl Calendar {
    /// Periods of `duration` (such as `1M`), one of which begins at the local time `start` (`2006-01-02 15:04:05`; a `T` between, and seconds that
    /// are left out, are taken as well) of the IANA time zone `zone`.
    ///
    /// # Errors
    /// See [`CalendarError`].
    pub fn parse(duration: &str, start: &str, zone: &str) -> Result<Self, CalendarError> {
        let wrong = || CalendarError::Duration(duration.to_owned());
        let (end, letter) = duration.char_indices().next_back().ok_or_else(wrong)?;
        let unit = Unit::from_letter(letter).ok_or_else(wrong)?;
        let count: u32 = duration.get(..end).and_then(|digits| digits.parse().ok()).ok_or_else(wrong)?;
        let zone = parse_zone(zone)?;
        let local = parse_start(start)?;
        if !is_minute(local) {
            return Err(CalendarError::Start(start.to_owned()));
        }
        Self::new(count, unit, local, zone).ok_or_else(|| CalendarError::Length(duration.to_owned()))
    }

    /// Periods of `count` units from a local time; none if that is no length, or the time has seconds.
    #[must_use]
    pub fn new(count: u32, unit: Unit, start: NaiveDateTime, zone: Zone) -> Option<Self> {
        let days = count.checked_mul(unit.nominal_days())?;
        ((1..=PERIOD_DAYS_MAX).contains(&days) && is_minute(start)).then_some(Self { count, unit, start, zone })
    }

    /// The zone.
    #[must_use]
    pub const fn zone(&self) -> Zone {
        self.zone
    }

    /// Its length with months of 30, quarters of 90 and years of 365 days: what burn rates are scaled by.
    #[must_use]
    pub const fn nominal(&self) -> Window {
        Window::from_minutes(self.count * self.unit.nominal_days() * 1_440)
    }

    /// No period is longer than this.
    #[must_use]
    pub const fn longest(&self) -> Window {
        // No zone has set its clock back by more than a day.
        Window::from_minutes((self.count * self.unit.longest_days() + 1) * 1_440)
    }

    /// The period that a minute is in.
    #[must_use]
    pub fn period_at(&self, minute: Minute) -> Span {
        // Some 19,000 years before and after 1970: further away the calendar's own arithmetic ends.
        let minute = Minute(minute.0.clamp(-10_000_000_000, 10_000_000_000));
        let anchor = self.first_minute(0);
        let away = minute.0.saturating_sub(anchor.0);
        let mut index = away.div_euclid(i64::from(self.nominal().minutes()));
        // The estimate is off by a few percent of the periods in between; each step down or up is exact.
        while self.first_minute(index) > minute {
            index -= (self.first_minute(index).0 - minute.0) / i64::from(self.longest().minutes()) + 1;
        }
        while self.first_minute(index + 1) <= minute {
            index += ((minute.0 - self.first_minute(index + 1).0) / i64::from(self.longest().minutes())).max(1);
        }
        Span { start: self.first_minute(index), end: self.first_minute(index + 1) }
    }

    /// The first minute of period `index`.
    fn first_minute(&self, index: i64) -> Minute {
        match self.local_start(index) {
            Some(local) => instant(self.zone, local),
            // Further away than the calendar goes: nothing is there.
            None if index < 0 => Minute(i64::MIN / 2),
            None => Minute(i64::MAX / 2),
        }
    }

    fn local_start(&self, index: i64) -> Option<NaiveDateTime> {
        let number = index.checked_mul(i64::from(self.count))?;
        let days = |days: i64| {
            let step = Days::new(days.unsigned_abs());
            if days < 0 { self.start.checked_sub_days(step) } else { self.start.checked_add_days(step) }
        };
        let months = |months: i64| {
            let step = Months::new(u32::try_from(months.unsigned_abs()).ok()?);
            if months < 0 { self.start.checked_sub_months(step) } else { self.start.checked_add_months(step) }
        };
        match self.unit {
            Unit::Day => days(number),
            Unit::Week => days(number.checked_mul(7)?),
            Unit::Month => months(number),
            Unit::Quarter => months(number.checked_mul(3)?),
            Unit::Year => months(number.checked_mul(12)?),
        }
    }
}

/// Such as `1M from 2026-01-01 00:00 Europe/Berlin`.
impl fmt::Display for Calendar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{} from {} {}", self.count, self.unit.letter(), self.start.format("%Y-%m-%d %H:%M"), self.zone)
    }
}

/// The zone of an IANA name.
///
/// # Errors
/// If there is none.
pub fn parse_zone(name: &str) -> Result<Zone, CalendarError> {
    name.parse().map_err(|_| CalendarError::Zone(name.to_owned()))
}

/// A local date and time such as `2006-01-02 15:04:05`; a `T` between, and seconds that are left out, are taken as well.
///
/// # Errors
/// If it is none.
pub fn parse_start(text: &str) -> Result<NaiveDateTime, CalendarError> {
    const FORMATS: [&str; 4] = ["%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M", "%Y-%m-%dT%H:%M"];
    let time = FORMATS.iter().find_map(|format| NaiveDateTime::parse_from_str(text, format).ok());
    time.ok_or_else(|| CalendarError::Start(text.to_owned()))
}

/// Whether it is a whole minute of the years that a calendar can be of.
fn is_minute(time: NaiveDateTime) -> bool {
    time.second() == 0 && time.nanosecond() == 0 && (1970..=9000).contains(&time.year())
}

/// The minute in which a local time is; that after the change of a clock which leaves it out.
fn instant(zone: Zone, local: NaiveDateTime) -> Minute {
    let minute = |time: &DateTime<Zone>| Minute(time.timestamp().div_euclid(60));
    match zone.from_local_datetime(&local) {
        LocalResult::Single(time) | LocalResult::Ambiguous(time, _) => minute(&time),
        LocalResult::None => {
            // Local time as a function of the instant: below `local` two days before, not below it two days after.
            let far = |local: NaiveDateTime| local.and_utc().timestamp().div_euclid(60);
            let (mut before, mut after) = (far(local - TimeDelta::days(2)), far(local + TimeDelta::days(2)));
            while after - before > 1 {
                let middle = before + (after - before) / 2;
                let at = DateTime::from_timestamp(middle * 60, 0).map(|time| time.with_timezone(&zone).naive_local());
                if at.is_some_and(|at| at < local) { before = middle } else { after = middle }
            }
            Minute(after)
        }
    }
}

#[cfg(test)]
mod tests;
