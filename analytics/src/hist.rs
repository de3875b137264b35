//! Latency histograms: HDR buckets, kept sparsely.
//!
//! # Guarantees
//! * Values are whole microseconds from 1 to [`MICROS_MAX`]; what lies beyond is counted at that end. The buckets are
//!   those of HdrHistogram with lowest value 1 and [`DIGITS`] significant digits: values below 2,048 have one of their
//!   own, and no bucket is wider than a thousandth of its lower end.
//! * A quantile is the nearest rank: of `n` values in order, the one with number ceil(q x n), at least the first. The
//!   answer is the upper end of its bucket: never below the true one, and at most a thousandth above it.
//! * Counting in any order, and merging in any order and any parts, gives the same histogram, to the byte.
//! * A bucket counts up to [`COUNT_MAX`], and stays there.
//!
//! # The payload
//! [`Histogram::payload`] is HdrHistogram's V2 encoding, not compressed, byte for byte what the `hdrhistogram` crate
//! writes of a histogram with bounds 1 and [`MICROS_MAX`]. All numbers are big-endian:
//!
//! | bytes | what |
//! |---|---|
//! | 4 | cookie, `0x1c849313` |
//! | 4 | length of the counts, in bytes |
//! | 4 | normalising index offset, 0 |
//! | 4 | significant digits, 3 |
//! | 8 | lowest discernible value, 1 |
//! | 8 | highest trackable value |
//! | 8 | ratio of integers to doubles, the double 1 |
//! | .. | counts from bucket 0 to the last that is not 0: ZigZag LEB128 of at most 9 bytes each, a negative one for so many buckets of 0 |
//!
//! # How it works
//! An entry is bucket and count in one word, so that a list of entries sorts as numbers. [`Recorder`] appends, and puts
//! its entries in order whenever those that are not have become as many as those that are. Once they are many and close to each
//! other, it counts their range of buckets in an array, and only what lies outside of that goes on as entries. An array from the
//! beginning would take a quarter of a megabyte for each minute of each tool.

use std::cmp::Ordering;
use std::fmt;

/// Significant decimal digits.
pub const DIGITS: u8 = 3;
/// Largest value that is told from others, in microseconds: 30 days.
pub const MICROS_MAX: u64 = 30 * 86_400_000_000;
/// Most that one bucket counts.
pub const COUNT_MAX: u64 = (1 << BUCKET_SHIFT) - 1;

const BUCKET_SHIFT: u32 = 48;
/// Buckets of one power of two: 3 digits need 2,000 steps of one, of which the lower half is told finer by the power below.
const HALF: u64 = 1_024;
/// Buckets that cover [`MICROS_MAX`], which bounds what a payload may name.
const BUCKETS: u64 = (bucket_of(MICROS_MAX) / HALF + 1) * HALF;
/// A recorder does not sort for less.
const UNSORTED_MIN: usize = 64;
/// So many entries are worth an array, if it has at most [`SPREAD_MAX`] times as many buckets.
const DENSE_MIN: usize = 256;
const SPREAD_MAX: usize = 4;

const COOKIE: u32 = 0x1c84_9313;
const HEADER_BYTES: usize = 40;

/// A duration in whole microseconds, as it is counted: rounded up, from 1 to [`MICROS_MAX`].
#[must_use]
pub fn micros_of(duration_ns: i64) -> u64 {
    u64::try_from(duration_ns).unwrap_or(0).div_ceil(1_000).clamp(1, MICROS_MAX)
}

/// Number of the `q` quantile among `n` values in order, from 1. A product such as 0.07 x 100 = 7.000000000000001 is
/// meant to be 7.
#[must_use]
pub fn nearest_rank(q: f64, n: u64) -> u64 {
    let rank = q * n as f64;
    ((rank - rank * 1e-12).ceil() as u64).clamp(1, n.max(1))
}

/// The largest value that shares its bucket with `micros`.
#[must_use]
pub fn bucket_end(micros: u64) -> u64 {
    end_of(bucket_of(micros.clamp(1, MICROS_MAX)))
}

/// The bucket of a value.
const fn bucket_of(micros: u64) -> u64 {
    let power = (53 - (micros | (2 * HALF - 1)).leading_zeros()) as u64;
    power * HALF + (micros >> power)
}

/// The largest value in a bucket.
const fn end_of(bucket: u64) -> u64 {
    if bucket < 2 * HALF {
        return bucket;
    }
    let power = bucket / HALF - 1;
    ((bucket - power * HALF + 1) << power) - 1
}

/// The smallest value in a bucket.
const fn start_of(bucket: u64) -> u64 {
    if bucket == 0 { 0 } else { end_of(bucket - 1) + 1 }
}

/// A bucket and how often it was hit.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Entry(u64);

impl Entry {
    const fn new(bucket: u64, count: u64) -> Self {
        let count = if count > COUNT_MAX { COUNT_MAX } else { count };
        Self(bucket << BUCKET_SHIFT | count)
    }

    const fn bucket(self) -> u64 {
        self.0 >> BUCKET_SHIFT
    }

    const fn count(self) -> u64 {
        self.0 & COUNT_MAX
    }

    /// Both counts, of one bucket.
    const fn plus(self, other: Self) -> Self {
        Self::new(self.bucket(), self.count() + other.count())
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..={}: {}", start_of(self.bucket()), end_of(self.bucket()), self.count())
    }
}

/// Why bytes are not a histogram of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PayloadError(&'static str);

impl fmt::Display for PayloadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not a latency histogram (HDR V2, lowest value 1, 3 digits): {}", self.0)
    }
}

impl std::error::Error for PayloadError {}

/// A histogram to read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Histogram {
    /// By bucket, each once, none with count 0.
    entries: Vec<Entry>,
}

impl Histogram {
    /// How many values were counted.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.entries.iter().map(|entry| entry.count()).sum()
    }

    /// Whether none was.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The `q` quantile in microseconds, `q` from 0 to 1; none without values.
    #[must_use]
    pub fn quantile(&self, q: f64) -> Option<u64> {
        let rank = nearest_rank(q, self.len());
        let mut seen = 0;
        let entry = self.entries.iter().find(|entry| {
            seen += entry.count();
            seen >= rank
        })?;
        Some(end_of(entry.bucket()))
    }

    /// How many values are at most `micros`, or share its bucket.
    #[must_use]
    pub fn count_up_to(&self, micros: u64) -> u64 {
        let last = bucket_of(micros.min(MICROS_MAX));
        self.entries.iter().take_while(|entry| entry.bucket() <= last).map(|entry| entry.count()).sum()
    }

    /// The share of values that are at most `micros`, or share its bucket; none without values.
    #[must_use]
    pub fn fraction_below(&self, micros: u64) -> Option<f64> {
        let n = self.len();
        (n > 0).then(|| self.count_up_to(micros) as f64 / n as f64)
    }

    /// The buckets that were hit, in order: smallest and largest value in microseconds, and how often.
    pub fn buckets(&self) -> impl Iterator<Item = (u64, u64, u64)> {
        self.entries.iter().map(|entry| (start_of(entry.bucket()), end_of(entry.bucket()), entry.count()))
    }

    /// Adds another one's counts.
    pub fn merge(&mut self, other: &Self) {
        let mine = std::mem::take(&mut self.entries);
        self.entries = merged(&mine, &other.entries);
    }

    /// Appends the payload to `out`.
    pub fn payload(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&COOKIE.to_be_bytes());
        out.extend_from_slice(&[0; 8]);
        out.extend_from_slice(&u32::from(DIGITS).to_be_bytes());
        out.extend_from_slice(&1_u64.to_be_bytes());
        out.extend_from_slice(&MICROS_MAX.to_be_bytes());
        out.extend_from_slice(&1_f64.to_be_bytes());
        let mut next = 0;
        for entry in &self.entries {
            match entry.bucket() - next {
                0 => {}
                1 => out.push(0),
                zeros => varint(zeros * 2 - 1, out),
            }
            varint(entry.count() * 2, out);
            next = entry.bucket() + 1;
        }
        if self.entries.is_empty() {
            out.push(0);
        }
        let length = (out.len() - start - HEADER_BYTES) as u32;
        out[start + 4..start + 8].copy_from_slice(&length.to_be_bytes());
    }

    /// Reads a payload.
    ///
    /// # Errors
    /// If it is cut off or too long, if its digits or lowest value are others, or if it counts what this one cannot.
    pub fn from_payload(payload: &[u8]) -> Result<Self, PayloadError> {
        // Most counts take a byte, and what lies between two of them another one or two.
        let mut entries = Vec::with_capacity(payload.len().saturating_sub(HEADER_BYTES) / 2 + 1);
        read_payload(payload, &mut entries)?;
        Ok(Self { entries })
    }
}

/// A histogram to count into.
#[derive(Debug, Clone, Default)]
pub struct Recorder {
    /// Counts of the buckets from `first` on.
    dense: Vec<u64>,
    first: u64,
    /// What was counted in other buckets, and in these before there was the array.
    entries: Vec<Entry>,
    /// So many of `entries` are in order, by bucket, each once.
    sorted: usize,
}

impl Recorder {
    /// Counts a value in microseconds.
    #[inline]
    pub fn record(&mut self, micros: u64) {
        self.record_n(micros, 1);
    }

    /// Counts a value in microseconds `n` times.
    #[inline]
    pub fn record_n(&mut self, micros: u64, n: u64) {
        if n > 0 {
            self.count(Entry::new(bucket_of(micros.clamp(1, MICROS_MAX)), n));
        }
    }

    /// Adds a histogram's counts.
    pub fn add(&mut self, other: &Histogram) {
        other.entries.iter().for_each(|entry| self.count(*entry));
    }

    /// Adds another recorder's counts.
    pub fn add_recorded(&mut self, other: &Self) {
        other.entries.iter().copied().chain(other.dense_entries()).for_each(|entry| self.count(entry));
    }

    /// Adds the counts of a payload.
    ///
    /// # Errors
    /// As [`Histogram::from_payload`]; nothing is added then.
    pub fn add_payload(&mut self, payload: &[u8]) -> Result<(), PayloadError> {
        let before = self.entries.len();
        if let Err(error) = read_payload(payload, &mut self.entries) {
            self.entries.truncate(before);
            return Err(error);
        }
        if before == 0 && self.dense.is_empty() {
            // A payload is in order, each bucket once.
            self.sorted = self.entries.len();
            return Ok(());
        }
        let mut outside = before;
        for at in before..self.entries.len() {
            let entry = self.entries[at];
            if !self.count_inside(entry) {
                self.entries[outside] = entry;
                outside += 1;
            }
        }
        self.entries.truncate(outside);
        self.order_if_due();
        Ok(())
    }

    /// Whether nothing was counted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.dense.is_empty()
    }

    /// What it holds in memory, itself not included.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        self.entries.capacity() * size_of::<Entry>() + self.dense.capacity() * size_of::<u64>()
    }

    /// What was counted so far.
    #[must_use]
    pub fn histogram(&self) -> Histogram {
        self.clone().finish()
    }

    /// What was counted.
    #[must_use]
    pub fn finish(mut self) -> Histogram {
        self.sort();
        if !self.dense.is_empty() {
            let dense: Vec<Entry> = self.dense_entries().collect();
            self.entries = merged(&self.entries, &dense);
        }
        Histogram { entries: self.entries }
    }

    #[inline]
    fn count(&mut self, entry: Entry) {
        if !self.count_inside(entry) {
            self.entries.push(entry);
            self.order_if_due();
        }
    }

    /// Counts it in the array, if its bucket is there.
    #[inline]
    fn count_inside(&mut self, entry: Entry) -> bool {
        // Below `first` it wraps and is outside as well.
        let Some(count) = self.dense.get_mut(entry.bucket().wrapping_sub(self.first) as usize) else { return false };
        *count = (*count + entry.count()).min(COUNT_MAX);
        true
    }

    #[inline]
    fn order_if_due(&mut self) {
        if self.entries.len() - self.sorted >= self.sorted.max(UNSORTED_MIN) {
            self.sort();
            self.condense();
        }
    }

    fn sort(&mut self) {
        let (sorted, unsorted) = self.entries.split_at_mut(self.sorted);
        if !unsorted.is_empty() {
            unsorted.sort_unstable();
            self.entries = merged(sorted, unsorted);
        }
        self.sorted = self.entries.len();
    }

    /// Moves the entries that are close to each other into the array.
    fn condense(&mut self) {
        let n = self.entries.len();
        if n < DENSE_MIN {
            return;
        }
        // A few that are far off stay outside.
        let (low, high) = (self.entries[n / 16].bucket(), self.entries[n - 1 - n / 16].bucket());
        let (first, last) = match self.dense.len() as u64 {
            0 => (low, high),
            len => (low.min(self.first), high.max(self.first + len - 1)),
        };
        let buckets = (last - first + 1) as usize;
        let used = self.dense.iter().filter(|count| **count > 0).count();
        if buckets > SPREAD_MAX * (n + used) {
            return;
        }
        let mut dense = vec![0; buckets];
        let before = self.dense_entries();
        let inside = |entry: &Entry| (first..=last).contains(&entry.bucket());
        for entry in before.chain(self.entries.iter().copied().filter(inside)) {
            let count = &mut dense[(entry.bucket() - first) as usize];
            *count = (*count + entry.count()).min(COUNT_MAX);
        }
        self.entries.retain(|entry| !inside(entry));
        self.entries.shrink_to_fit();
        self.sorted = self.entries.len();
        (self.dense, self.first) = (dense, first);
    }

    fn dense_entries(&self) -> impl Iterator<Item = Entry> {
        let counted = self.dense.iter().zip(self.first..).filter(|(count, _)| **count > 0);
        counted.map(|(count, bucket)| Entry::new(bucket, *count))
    }
}

/// Two ordered lists as one, with each bucket once.
fn merged(left: &[Entry], right: &[Entry]) -> Vec<Entry> {
    let mut out: Vec<Entry> = Vec::with_capacity(left.len() + right.len());
    let (mut left, mut right) = (left.iter().copied().peekable(), right.iter().copied().peekable());
    loop {
        let next = match (left.peek(), right.peek()) {
            (Some(l), Some(r)) if l <= r => left.next(),
            (_, Some(_)) => right.next(),
            (_, None) => left.next(),
        };
        let Some(next) = next else { break };
        match out.last_mut() {
            Some(last) if last.bucket() == next.bucket() => *last = last.plus(next),
            _ => out.push(next),
        }
    }
    // Most values meet a bucket that was hit before.
    if out.capacity() > 2 * out.len() {
        out.shrink_to_fit();
    }
    out
}

/// LEB128 of at most 9 bytes: the ninth has all of its 8 bits.
fn varint(mut value: u64, out: &mut Vec<u8>) {
    for _ in 0..8 {
        if value < 0x80 {
            break;
        }
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn read_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for at in 0..9 {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        if at == 8 {
            return Some(value | u64::from(*byte) << 56);
        }
        value |= u64::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            break;
        }
    }
    Some(value)
}

/// Appends the entries of a payload, in order.
fn read_payload(payload: &[u8], entries: &mut Vec<Entry>) -> Result<(), PayloadError> {
    let cut = PayloadError("it is cut off");
    let (header, mut counts) = payload.split_at_checked(HEADER_BYTES).ok_or(cut.clone())?;
    let word = |at: usize| header[at..at + 4].iter().fold(0, |word, byte| word << 8 | u32::from(*byte));
    let long = |at: usize| u64::from(word(at)) << 32 | u64::from(word(at + 4));
    if word(0) != COOKIE {
        return Err(PayloadError("its first bytes are others"));
    }
    match (word(4) as usize).cmp(&counts.len()) {
        Ordering::Less => return Err(PayloadError("bytes follow it")),
        Ordering::Equal => {}
        Ordering::Greater => return Err(cut),
    }
    if word(8) != 0 || word(12) != u32::from(DIGITS) || long(16) != 1 || long(32) != 1_f64.to_bits() {
        return Err(PayloadError("its buckets are others"));
    }
    let mut bucket = 0;
    while let Some(first) = counts.first() {
        // Most take one byte.
        let value = if *first < 0x80 {
            counts = &counts[1..];
            u64::from(*first)
        } else {
            read_varint(&mut counts).ok_or(PayloadError("a count is cut off"))?
        };
        let skipped = value & 1 == 1;
        let number = if skipped { (value >> 1) + 1 } else { value >> 1 };
        if !skipped && number > 0 {
            if number > COUNT_MAX || bucket >= BUCKETS {
                return Err(PayloadError("a count or a bucket is too large"));
            }
            entries.push(Entry::new(bucket, number));
        }
        bucket += if skipped { number.min(BUCKETS) } else { 1 };
    }
    Ok(())
}

#[cfg(test)]
mod tests;
