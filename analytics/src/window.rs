//! Minutes, windows, and the sums over them that evaluations ask for.
//!
//! A call belongs to the UTC minute in which it ended. A window of W minutes at an instant T is the minutes from W before
//! the one of T to that one, both included: W whole minutes and the running one.
//!
//! # Guarantees of [`MinuteRing`]
//! * A sum is that of a recount, to the last digit: counts are added and taken back as integers.
//! * It holds what the longest window at [`MinuteRing::now`] covers, by whole hours, and what was added of later minutes.
//!   What is older is forgotten, and not taken. Going back in time is possible as far as nothing was forgotten.
//! * Reading a sum costs nothing, adding to a minute and going on by one a few hundred nanoseconds a window.
//!
//! # How it works
//! Minutes are kept by the hour as bytes: a service that has calls in every minute of a month takes less than 400 KiB so
//! instead of 4 MiB. Of a minute that is not zero there are, one after the other: its number in the hour, with two flags; `good`
//! and `bad`; if flagged, `excluded` and `nulls`; if flagged, the weights, which otherwise are 1 for each. Numbers are LEB128. The
//! first record of an hour is the sum of its minutes, numbered 60: sums over days read one record an hour.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;

use toolgauge_proto::time::{MINUTE_MICROS, UnixMicros};

use crate::sli::{Counts, WEIGHT_ONE};

const HOUR: i64 = 60;
const FLAG_EXTRA: u8 = 0x40;
const FLAG_WEIGHTS: u8 = 0x80;
/// In place of the number of a minute: the sum of the hour.
const SUM: u8 = HOUR as u8;

/// The start of the window that holds `time`, of those that are `width_us` long and begin at multiples of it: half-open,
/// also before 1970.
#[must_use]
pub const fn start_of(time: UnixMicros, width_us: i64) -> UnixMicros {
    UnixMicros(time.0 - time.0.rem_euclid(width_us))
}

/// A UTC minute, by its number since 1970-01-01T00:00Z.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default)]
pub struct Minute(pub i64);

impl Minute {
    /// The one that holds this instant.
    #[must_use]
    pub const fn of(time: UnixMicros) -> Self {
        Self(time.0.div_euclid(MINUTE_MICROS))
    }

    /// Its first instant.
    #[must_use]
    pub const fn start(self) -> UnixMicros {
        UnixMicros(self.0 * MINUTE_MICROS)
    }
}

/// How long a window is: at least a minute.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Window {
    minutes: u32,
}

impl Window {
    /// Five minutes.
    pub const M5: Self = Self::from_minutes(5);
    /// Half an hour.
    pub const M30: Self = Self::from_minutes(30);
    /// An hour.
    pub const H1: Self = Self::from_minutes(60);
    /// Two hours.
    pub const H2: Self = Self::from_minutes(2 * 60);
    /// Six hours.
    pub const H6: Self = Self::from_minutes(6 * 60);
    /// A day of 24 hours.
    pub const D1: Self = Self::from_minutes(24 * 60);
    /// Three days.
    pub const D3: Self = Self::from_minutes(3 * 24 * 60);
    /// 30 days.
    pub const D30: Self = Self::from_minutes(30 * 24 * 60);

    /// So many minutes, at least one.
    #[must_use]
    pub const fn from_minutes(minutes: u32) -> Self {
        Self { minutes: if minutes == 0 { 1 } else { minutes } }
    }

    /// Its length in whole minutes, without the running one.
    #[must_use]
    pub const fn minutes(self) -> u32 {
        self.minutes
    }

    /// Its length in seconds, without the running minute.
    #[must_use]
    pub const fn seconds(self) -> u64 {
        self.minutes as u64 * 60
    }

    /// The minutes it covers if it is evaluated within the minute `now`.
    #[must_use]
    pub const fn at(self, now: Minute) -> RangeInclusive<Minute> {
        Minute(now.0 - self.minutes as i64)..=now
    }
}

/// As OpenSLO and people write it: the largest unit of which it is a whole number, such as `5m`, `6h`, `30d`.
impl std::fmt::Display for Window {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.minutes {
            days if days % (24 * 60) == 0 => write!(f, "{}d", days / (24 * 60)),
            hours if hours % 60 == 0 => write!(f, "{}h", hours / 60),
            minutes => write!(f, "{minutes}m"),
        }
    }
}

/// The counts of one SLO and group by the minute, and their sums over some windows that end now.
#[derive(Debug, Clone)]
pub struct MinuteRing {
    windows: Arc<[Window]>,
    now: Minute,
    /// Of each of `windows`, at `now`.
    sums: Vec<Counts>,
    /// By hour since 1970.
    hours: BTreeMap<i64, Hour>,
    /// The last minute that is forgotten or was refused.
    forgotten: Option<Minute>,
    /// The first minute of a sum that grows until it is begun anew, and this sum, up to `now`.
    anchored: Option<(Minute, Counts)>,
    /// How often something was added.
    changes: u64,
}

impl MinuteRing {
    /// An empty one for these windows.
    #[must_use]
    pub fn new(windows: Arc<[Window]>, now: Minute) -> Self {
        let sums = vec![Counts::default(); windows.len()];
        Self { windows, now, sums, hours: BTreeMap::new(), forgotten: None, anchored: None, changes: 0 }
    }

    /// The windows, in the order of [`MinuteRing::sum`]'s argument.
    #[must_use]
    pub fn windows(&self) -> &[Window] {
        &self.windows
    }

    /// The minute in which the windows end.
    #[must_use]
    pub const fn now(&self) -> Minute {
        self.now
    }

    /// The sum over the window with this index, at [`MinuteRing::now`]; nothing for an index that there is not.
    #[must_use]
    pub fn sum(&self, window: usize) -> Counts {
        self.sums.get(window).copied().unwrap_or_default()
    }

    /// Begins a sum that goes from a minute to [`MinuteRing::now`], such as that of a calendar month; the one before ends. Only what is held is
    /// in it. Nothing happens if it begins there already.
    pub fn anchor(&mut self, first: Minute) {
        if self.anchored.is_none_or(|(known, _)| known != first) {
            self.anchored = Some((first, self.sum_of(first..=self.now)));
        }
    }

    /// The sum from the minute given to [`MinuteRing::anchor`] to [`MinuteRing::now`]; nothing if none was.
    #[must_use]
    pub fn anchored(&self) -> Counts {
        self.anchored.map(|(_, sum)| sum).unwrap_or_default()
    }

    /// How often something was added: as long as it is the same, so is every sum over the same minutes.
    #[must_use]
    pub const fn changes(&self) -> u64 {
        self.changes
    }

    /// The sum over any minutes.
    #[must_use]
    pub fn sum_of(&self, minutes: RangeInclusive<Minute>) -> Counts {
        let mut sum = Counts::default();
        for (hour, page) in self.pages(minutes.clone()) {
            let is_whole = minutes.contains(&minute_of(hour, 0)) && minutes.contains(&minute_of(hour, HOUR as u8 - 1));
            if is_whole {
                sum += &page.sum();
                continue;
            }
            let part = page.minutes().filter(|(at, _)| minutes.contains(&minute_of(hour, *at)));
            part.for_each(|(_, counts)| sum += &counts);
        }
        sum
    }

    /// The hours in which some minutes are.
    fn pages(&self, minutes: RangeInclusive<Minute>) -> impl Iterator<Item = (i64, &Hour)> {
        let (first, last) = (minutes.start().0.div_euclid(HOUR), minutes.end().0.div_euclid(HOUR));
        let pages = if minutes.is_empty() { self.hours.range(0..0) } else { self.hours.range(first..=last) };
        pages.map(|(hour, page)| (*hour, page))
    }

    /// The minutes of a range that are not zero, in order.
    pub fn minutes(&self, minutes: RangeInclusive<Minute>) -> impl Iterator<Item = (Minute, Counts)> {
        let pages = self.pages(minutes.clone());
        let all = pages.flat_map(|(hour, page)| page.minutes().map(move |(at, counts)| (minute_of(hour, at), counts)));
        all.filter(move |(minute, _)| minutes.contains(minute))
    }

    /// Whether the windows at [`MinuteRing::now`] have all that was ever added to their minutes. It is false after going back
    /// further than to what is held; then the ring has to be loaded anew.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.forgotten.is_none_or(|forgotten| forgotten < self.first_held())
    }

    /// What it holds in memory, itself not included.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        let hours: usize = self.hours.values().map(|hour| hour.0.capacity() + size_of::<(i64, Hour)>()).sum();
        hours + self.sums.capacity() * size_of::<Counts>()
    }

    /// Adds to a minute, which may be of the past or the future. False, and nothing, if no window reaches back to it.
    pub fn add(&mut self, minute: Minute, counts: &Counts) -> bool {
        if minute < self.first_held() {
            self.forget(minute);
            return false;
        }
        if counts.is_zero() {
            return true;
        }
        self.changes += 1;
        if let Some((first, sum)) = &mut self.anchored
            && (*first..=self.now).contains(&minute)
        {
            *sum += counts;
        }
        let at = minute.0.rem_euclid(HOUR) as u8;
        self.hours.entry(minute.0.div_euclid(HOUR)).or_default().add(at, counts);
        for (window, sum) in self.windows.iter().zip(&mut self.sums) {
            if window.at(self.now).contains(&minute) {
                *sum += counts;
            }
        }
        true
    }

    /// Goes to another minute, usually the next.
    pub fn advance(&mut self, now: Minute) {
        let before = std::mem::replace(&mut self.now, now);
        if now == before {
            return;
        }
        for index in 0..self.windows.len() {
            let window = self.windows[index];
            let (old, new) = (window.at(before), window.at(now));
            let (enters, leaves) = if now.0.abs_diff(before.0) > u64::from(window.minutes) {
                self.sums[index] = Counts::default();
                (new, None)
            } else if now > before {
                (Minute(before.0 + 1)..=now, Some(*old.start()..=Minute(new.start().0 - 1)))
            } else {
                (*new.start()..=Minute(old.start().0 - 1), Some(Minute(now.0 + 1)..=before))
            };
            let enters = self.sum_of(enters);
            let leaves = leaves.map(|leaves| self.sum_of(leaves)).unwrap_or_default();
            self.sums[index] += &enters;
            self.sums[index] -= &leaves;
        }
        if let Some((first, mut sum)) = self.anchored {
            if now > before {
                sum += &self.sum_of(first.max(Minute(before.0 + 1))..=now);
            } else {
                sum -= &self.sum_of(first.max(Minute(now.0 + 1))..=before);
            }
            self.anchored = Some((first, sum));
        }
        let first = self.first_held().0.div_euclid(HOUR);
        while let Some(oldest) = self.hours.first_entry().filter(|oldest| *oldest.key() < first) {
            let last = minute_of(*oldest.key(), HOUR as u8 - 1);
            oldest.remove();
            self.forget(last);
        }
    }

    /// The first minute that any window covers.
    fn first_held(&self) -> Minute {
        self.windows.iter().map(|window| *window.at(self.now).start()).min().unwrap_or(self.now)
    }

    fn forget(&mut self, minute: Minute) {
        self.forgotten = self.forgotten.max(Some(minute));
    }
}

const fn minute_of(hour: i64, at: u8) -> Minute {
    Minute(hour * HOUR + at as i64)
}

/// The sum of an hour, and its minutes that are not zero, as bytes, in order.
#[derive(Debug, Clone, Default)]
struct Hour(Vec<u8>);

impl Hour {
    fn sum(&self) -> Counts {
        read_minute(&mut self.0.as_slice()).map(|(_, sum)| sum).unwrap_or_default()
    }

    fn minutes(&self) -> impl Iterator<Item = (u8, Counts)> {
        let mut bytes = self.0.as_slice();
        std::iter::from_fn(move || read_minute(&mut bytes)).skip(1)
    }

    fn add(&mut self, at: u8, counts: &Counts) {
        let mut out = Vec::with_capacity(self.0.len() + 8);
        let mut sum = self.sum();
        sum += counts;
        write_minute(SUM, &sum, &mut out);
        let mut added = false;
        for (minute, held) in self.minutes() {
            if minute > at && !added {
                write_minute(at, counts, &mut out);
                added = true;
            }
            let mut held = held;
            if minute == at {
                held += counts;
                added = true;
            }
            write_minute(minute, &held, &mut out);
        }
        if !added {
            write_minute(at, counts, &mut out);
        }
        self.0 = out;
    }
}

fn write_minute(at: u8, counts: &Counts, out: &mut Vec<u8>) {
    let weighted = counts.good_weighted != i128::from(counts.good) * WEIGHT_ONE
        || counts.bad_weighted != i128::from(counts.bad) * WEIGHT_ONE;
    let extra = counts.excluded > 0 || counts.nulls > 0;
    let flags = if weighted { FLAG_WEIGHTS } else { 0 } | if extra { FLAG_EXTRA } else { 0 };
    out.push(at | flags);
    write_number(counts.good.into(), out);
    write_number(counts.bad.into(), out);
    if extra {
        write_number(counts.excluded.into(), out);
        write_number(counts.nulls.into(), out);
    }
    if weighted {
        write_number(counts.good_weighted.cast_unsigned(), out);
        write_number(counts.bad_weighted.cast_unsigned(), out);
    }
}

fn read_minute(bytes: &mut &[u8]) -> Option<(u8, Counts)> {
    let (first, rest) = bytes.split_first()?;
    *bytes = rest;
    let mut small = || read_number(bytes) as u64;
    let (good, bad) = (small(), small());
    let (excluded, nulls) = if first & FLAG_EXTRA != 0 { (small(), small()) } else { (0, 0) };
    let (good_weighted, bad_weighted) = if first & FLAG_WEIGHTS != 0 {
        (read_number(bytes).cast_signed(), read_number(bytes).cast_signed())
    } else {
        (i128::from(good) * WEIGHT_ONE, i128::from(bad) * WEIGHT_ONE)
    };
    Some((first & !(FLAG_EXTRA | FLAG_WEIGHTS), Counts { good, bad, excluded, nulls, good_weighted, bad_weighted }))
}

fn write_number(mut number: u128, out: &mut Vec<u8>) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn read_number(bytes: &mut &[u8]) -> u128 {
    let (mut number, mut shift) = (0, 0);
    while let Some((byte, rest)) = bytes.split_first() {
        *bytes = rest;
        number |= u128::from(byte & 0x7f) << shift;
        shift += 7;
        if byte & 0x80 == 0 {
            break;
        }
    }
    number
}

#[cfg(test)]
mod tests;
