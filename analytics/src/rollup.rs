//! `calls_1m`: the sums per minute that rows of `calls` fold into.
//!
//! # Guarantees
//! * Additive: rollups of any parts, merged in any order, give the rows of the rollup of the whole, to the byte.
//! * Sums are exact. One that its column cannot hold is split over several rows of the same key, of which the later ones
//!   have 0 calls.
//! * A key takes a few hundred bytes, and 8 to 32 for each latency bucket that was hit. The caller bounds it: it takes the rows
//!   out when [`CallsRollup::len`] or [`CallsRollup::heap_bytes`] is too much.
//!
//! # How it works
//! A key is a minute, two flags and ten words, the words as numbers that the rollup gives them. A batch's dictionaries are
//! translated once a word, when it is first met, so that a row is hashed as 56 bytes. First all rows of a chunk find their
//! keys, then each column is added.

use std::collections::{BTreeMap, HashSet};
use std::hash::BuildHasher;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryBuilder, BooleanArray, Date32Array, Decimal128Array, DictionaryArray, Int32Array,
    Int64Array, PrimitiveArray, RecordBatch, StringArray, TimestampMicrosecondArray, UInt16Array,
};
use arrow::compute::cast;
use arrow::datatypes::{ArrowPrimitiveType, DataType, Decimal128Type, UInt16Type};
use arrow::error::ArrowError;
use foldhash::fast::FixedState;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use toolgauge_proto::table::Table;
use toolgauge_proto::time::UnixMicros;

use crate::hist::{Recorder, micros_of};
use crate::series::{self, Admission, KnownSeries, SERIES};
use crate::window::Minute;

/// The words of a key.
const WORDS: [&str; 10] = [
    "kind",
    "tenant",
    "service_name",
    "environment",
    "tool_server",
    "tool_name",
    "agent_name",
    "model",
    "outcome",
    "error_class",
];
/// Where among them stand those of a series, [`SERIES`].
const SERIES_WORDS: std::ops::Range<usize> = 1..8;
/// The integers that are summed; unknown ones count as 0.
const AMOUNTS: [&str; 4] = ["input_tokens", "output_tokens", "input_bytes", "output_bytes"];
const WEIGHT_SCALE: i8 = 6;
const COST_SCALE: i8 = 9;
/// Largest decimal of the 18 digits that a column has.
const DECIMAL_MAX: i128 = 10_i128.pow(18) - 1;
const INTEGER_MAX: i128 = i64::MAX as i128;
/// A weight of 1.
const WEIGHT_ONE: i128 = 1_000_000;
/// The largest weight that is squared, 999999.999999, so that the square of one has its place in a column.
const SQUARED_MAX: i128 = 10_i128.pow(12) - 1;
/// Rows whose keys are worked out together: they stay in the cache.
const CHUNK_ROWS: usize = 1_024;
/// Rows of one batch that is given: none of their words can outnumber a dictionary's.
const BATCH_ROWS: usize = 1 << 15;
/// The number of no word.
const NULL: u32 = 0;
/// The number of a word that is not translated yet.
const UNKNOWN: u32 = u32::MAX;

/// The columns of `calls` that a rollup reads. A batch may have others too, in any order.
pub const COLUMNS: [&str; 24] = [
    "end_time",
    "duration_ns",
    "kind",
    "tenant",
    "service_name",
    "environment",
    "tool_server",
    "tool_name",
    "agent_name",
    "model",
    "counted",
    "outcome",
    "error_class",
    "attempt",
    "final",
    "input_tokens",
    "output_tokens",
    "input_bytes",
    "output_bytes",
    "cost_usd",
    "weight",
    "retry_delay_ns",
    "retry_lost_ns",
    "wal_position",
];

/// Rows of `calls`, summed by minute and key.
#[derive(Debug, Clone, Default)]
pub struct CallsRollup {
    words: Words,
    /// Numbers of keys, by the key's hash.
    index: HashTable<u32>,
    keys: Vec<Key>,
    sums: Vec<Sums>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
struct Key {
    minute: i64,
    words: [u32; WORDS.len()],
    counted: bool,
    is_final: bool,
}

#[derive(Debug, Clone, Default)]
struct Sums {
    /// The least log position of its calls.
    first: i64,
    calls: i64,
    retries: i64,
    /// The latest of its calls, of which there is at least one.
    last_end_us: i64,
    /// Beyond one for each call.
    further_attempts: i64,
    weight: i128,
    /// Weights of retries, beyond one for each.
    retries_further_weight: i128,
    /// Squares of weights, beyond one for each call.
    further_squares: i128,
    duration_ns: i128,
    cost: i128,
    priced: i64,
    amounts: [i128; AMOUNTS.len()],
    latency: Recorder,
    /// Of retries whose failed attempt is known: few keys have any.
    known_retries: Option<Box<KnownRetries>>,
}

/// Sums of the rows that retried an attempt that is known.
#[derive(Debug, Clone, Default)]
struct KnownRetries {
    lost_ns: i128,
    delay: Recorder,
}

fn series_of(key: &Key) -> (i32, [u32; SERIES.len()]) {
    let mut words = [NULL; SERIES.len()];
    words.copy_from_slice(&key.words[SERIES_WORDS]);
    (Minute(key.minute).start().date32(), words)
}

impl CallsRollup {
    /// Adds rows of `calls`: words as text or as dictionaries.
    ///
    /// # Errors
    /// If a column is missing, of another type, or null where a call cannot be; then nothing is added.
    pub fn add(&mut self, rows: &RecordBatch) -> Result<(), ArrowError> {
        let mut rows = Rows::of(rows)?;
        let (mut keys, mut groups) = (Vec::with_capacity(CHUNK_ROWS), Vec::with_capacity(CHUNK_ROWS));
        for start in (0..rows.len).step_by(CHUNK_ROWS) {
            let end = rows.len.min(start + CHUNK_ROWS);
            rows.keys(start..end, &mut self.words, &mut keys);
            self.groups_of(&keys, &mut groups);
            self.add_sums(&rows, start, &groups);
        }
        Ok(())
    }

    /// Adds another one's sums.
    pub fn merge(&mut self, other: &Self) {
        let mut numbers = vec![UNKNOWN; other.words.texts.len() + 1];
        numbers[NULL as usize] = NULL;
        let (mut keys, mut groups) = (Vec::with_capacity(CHUNK_ROWS), Vec::with_capacity(CHUNK_ROWS));
        for (their_keys, their_sums) in other.keys.chunks(CHUNK_ROWS).zip(other.sums.chunks(CHUNK_ROWS)) {
            keys.clear();
            keys.extend(their_keys.iter().map(|key| {
                let words = key.words.map(|word| {
                    let number = &mut numbers[word as usize];
                    if *number == UNKNOWN {
                        *number = self.words.number(other.words.text(word));
                    }
                    *number
                });
                Key { words, ..*key }
            }));
            self.groups_of(&keys, &mut groups);
            for (group, theirs) in groups.iter().zip(their_sums) {
                self.sums[*group as usize].add(theirs);
            }
        }
    }

    /// The UTC dates of its keys, in order, as days since 1970.
    #[must_use]
    pub fn dates(&self) -> Vec<i32> {
        let mut dates: Vec<i32> = self.keys.iter().map(|key| Minute(key.minute).start().date32()).collect();
        dates.sort_unstable();
        dates.dedup();
        dates
    }

    /// The identities of its series of a date that have names.
    #[must_use]
    pub fn series_on(&self, date: i32) -> HashSet<u128> {
        let of_date = self.keys.iter().map(series_of).filter(|(of, _)| *of == date);
        let names = of_date.map(|(_, words)| words.map(|word| self.words.text(word)));
        names.filter(|names| !series::is_other(names)).map(|names| series::identity(&names)).collect()
    }

    /// Folds the series that have no names: see [`series`]. It must have all rows after those that are known, or the first of
    /// them and whole exports.
    #[must_use]
    pub fn fold_series(&mut self, known: &KnownSeries) -> Admission {
        let mut admission = Admission::default();
        // By date and names, in numbers.
        let mut found: BTreeMap<(i32, [u32; SERIES.len()]), i64> = BTreeMap::new();
        for (key, sums) in self.keys.iter().zip(&self.sums) {
            let at = found.entry(series_of(key)).or_insert(i64::MAX);
            *at = (*at).min(sums.first);
        }
        let names = |words: &[u32; SERIES.len()]| words.map(|word| self.words.text(word));
        let mut new: Vec<_> = found
            .into_iter()
            .map(|((date, words), first)| (date, first, names(&words), words))
            .filter(|(date, _, names, _)| !series::is_other(names) && !known.has(*date, series::identity(names)))
            .collect();
        if new.is_empty() {
            return admission;
        }
        new.sort_unstable_by_key(|(date, first, names, _)| (*date, *first, *names));
        let mut folded: HashSet<(i32, [u32; SERIES.len()])> = HashSet::new();
        for of_date in new.chunk_by(|a, b| a.0 == b.0) {
            let room = known.room(of_date[0].0);
            for (at, (date, _, names, words)) in of_date.iter().enumerate() {
                if at < room {
                    admission.admitted.push((*date, series::identity(names)));
                } else {
                    admission.folded.push((*date, names.map(|name| name.map(str::to_owned))));
                    folded.insert((*date, *words));
                }
            }
        }
        if !folded.is_empty() {
            admission.folded_calls = self.rename(&folded);
        }
        admission
    }

    /// Gives these series the name of all others; how many calls that are.
    fn rename(&mut self, folded: &HashSet<(i32, [u32; SERIES.len()])>) -> u64 {
        let mut all = Self { words: std::mem::take(&mut self.words), ..Self::default() };
        let other = all.words.number(Some(series::OTHER));
        let mut calls = 0;
        let keys = std::mem::take(&mut self.keys).into_iter().zip(&self.sums).map(|(mut key, sums)| {
            if folded.contains(&series_of(&key)) {
                calls += sums.calls.unsigned_abs();
                for word in key.words[SERIES_WORDS].iter_mut().skip(1).filter(|word| **word != NULL) {
                    *word = other;
                }
            }
            key
        });
        let keys: Vec<Key> = keys.collect();
        let mut groups = Vec::with_capacity(CHUNK_ROWS);
        for (keys, sums) in keys.chunks(CHUNK_ROWS).zip(self.sums.chunks(CHUNK_ROWS)) {
            all.groups_of(keys, &mut groups);
            for (group, sums) in groups.iter().zip(sums) {
                all.sums[*group as usize].add(sums);
            }
        }
        *self = all;
        calls
    }

    /// How many keys it has: about the rows that it gives.
    #[must_use]
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether nothing was added.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// What it holds in memory, itself not included. It looks at every key.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        let key = size_of::<Key>() + size_of::<u32>() + 1;
        let retries = |retries: &KnownRetries| size_of::<KnownRetries>() + retries.delay.heap_bytes();
        let of_key = |sums: &Sums| sums.latency.heap_bytes() + sums.known_retries.as_deref().map_or(0, retries);
        let latency: usize = self.sums.iter().map(of_key).sum();
        self.keys.capacity() * key + self.sums.capacity() * size_of::<Sums>() + latency + self.words.bytes
    }

    /// The rows of `calls_1m`, in its live schema, in the order of minute and key; none if nothing was added.
    ///
    /// # Errors
    /// If they do not fit the table, which is a fault of the program.
    pub fn batches(&self) -> Result<Vec<RecordBatch>, ArrowError> {
        let ranks = self.words.ranks();
        let mut order: Vec<u32> = (0..self.keys.len() as u32).collect();
        order.sort_by_cached_key(|group| {
            let key = self.keys[*group as usize];
            (key.minute, key.words.map(|word| ranks[word as usize]), key.counted, key.is_final)
        });
        let mut rows: Vec<OutRow> = Vec::with_capacity(order.len());
        for group in order {
            rows.extend((0..self.sums[group as usize].parts()).map(|part| OutRow { group: group as usize, part }));
        }
        rows.chunks(BATCH_ROWS).map(|rows| self.batch(rows)).collect()
    }

    /// The numbers of these keys, new ones included.
    fn groups_of(&mut self, keys: &[Key], groups: &mut Vec<u32>) {
        groups.clear();
        let hasher = FixedState::default();
        for (row, key) in keys.iter().enumerate() {
            // Calls of one kind come together.
            let group = if row > 0 && keys[row - 1] == *key {
                groups[row - 1]
            } else {
                let known = &self.keys;
                let entry = self.index.entry(
                    hasher.hash_one(key),
                    |group| known[*group as usize] == *key,
                    |group| hasher.hash_one(known[*group as usize]),
                );
                match entry {
                    Entry::Occupied(entry) => *entry.get(),
                    Entry::Vacant(entry) => {
                        let group = known.len() as u32;
                        entry.insert(group);
                        self.keys.push(*key);
                        self.sums.push(Sums::default());
                        group
                    }
                }
            };
            groups.push(group);
        }
    }

    fn add_sums(&mut self, rows: &Rows, start: usize, groups: &[u32]) {
        let range = start..start + groups.len();
        let sums = &mut self.sums;
        let durations = &rows.duration_ns.values()[range.clone()];
        let attempts = &rows.attempt.values()[range.clone()];
        let ends = &rows.end_time.values()[range.clone()];
        let positions = &rows.position.values()[range.clone()];
        let weights = &rows.weight.values()[range];
        for (row, group) in groups.iter().enumerate() {
            let sums = &mut sums[*group as usize];
            sums.first = if sums.calls == 0 { positions[row] } else { sums.first.min(positions[row]) };
            sums.last_end_us = if sums.calls == 0 { ends[row] } else { sums.last_end_us.max(ends[row]) };
            sums.calls += 1;
            let (is_retry, weight) = (attempts[row] > 1, weights[row]);
            sums.retries += i64::from(is_retry);
            sums.further_attempts += i64::from(attempts[row]) - 1;
            sums.weight += weight;
            if weight != WEIGHT_ONE {
                sums.retries_further_weight += if is_retry { weight - WEIGHT_ONE } else { 0 };
                sums.further_squares += squared(weight) - WEIGHT_ONE;
            }
            sums.duration_ns += i128::from(durations[row]);
            sums.latency.record(micros_of(durations[row]));
        }
        each_known(&rows.cost, start, groups, |group, cost| {
            sums[group].cost += cost;
            sums[group].priced += 1;
        });
        each_known(&rows.retry_delay_ns, start, groups, |group, delay| {
            sums[group].known_retries.get_or_insert_default().delay.record(micros_of(delay));
        });
        each_known(&rows.retry_lost_ns, start, groups, |group, lost| {
            sums[group].known_retries.get_or_insert_default().lost_ns += i128::from(lost);
        });
        for (at, amounts) in rows.amounts.iter().enumerate() {
            each_known(amounts, start, groups, |group, amount| sums[group].amounts[at] += i128::from(amount));
        }
    }

    fn batch(&self, rows: &[OutRow]) -> Result<RecordBatch, ArrowError> {
        let schema = Table::Calls1m.live_schema();
        let columns = schema.fields().iter().map(|field| self.column(field.name(), rows)).collect::<Result<_, _>>()?;
        RecordBatch::try_new(schema, columns)
    }

    fn column(&self, name: &str, rows: &[OutRow]) -> Result<ArrayRef, ArrowError> {
        let key = |row: &OutRow| &self.keys[row.group];
        let minute = |row: &OutRow| Minute(key(row).minute).start();
        let times = |time: &dyn Fn(&OutRow) -> i64| -> ArrayRef {
            Arc::new(TimestampMicrosecondArray::from_iter_values(rows.iter().map(time)).with_timezone("UTC"))
        };
        let integers = |value: &dyn Fn(&Sums) -> i128| -> ArrayRef {
            let parts = rows.iter().map(|row| part(value(&self.sums[row.group]), INTEGER_MAX, row.part) as i64);
            Arc::new(Int64Array::from_iter_values(parts))
        };
        // Null in every part where there is none.
        let known_integers = |value: &dyn Fn(&Sums) -> Option<i128>| -> ArrayRef {
            let parts = rows
                .iter()
                .map(|row| value(&self.sums[row.group]).map(|value| part(value, INTEGER_MAX, row.part) as i64));
            Arc::new(parts.collect::<Int64Array>())
        };
        let decimals = |scale, value: &dyn Fn(&Sums) -> Option<i128>| -> Result<ArrayRef, ArrowError> {
            let parts = rows.iter().map(|row| {
                let value = part(value(&self.sums[row.group])?, DECIMAL_MAX, row.part);
                // A cost has no second part of 0.
                (row.part == 0 || value != 0 || scale == WEIGHT_SCALE).then_some(value)
            });
            Ok(Arc::new(parts.collect::<Decimal128Array>().with_precision_and_scale(18, scale)?))
        };
        if let Some(at) = WORDS.iter().position(|word| *word == name) {
            return self.word_column(rows.iter().map(|row| key(row).words[at]));
        }
        if let Some(at) = AMOUNTS.iter().position(|amount| *amount == name) {
            return Ok(integers(&|sums| sums.amounts[at]));
        }
        Ok(match name {
            "date" => Arc::new(Date32Array::from_iter_values(rows.iter().map(|row| minute(row).date32()))),
            "minute" => times(&|row| minute(row).0),
            "last_end_time" => times(&|row| self.sums[row.group].last_end_us),
            "counted" => Arc::new(rows.iter().map(|row| Some(key(row).counted)).collect::<BooleanArray>()),
            "final" => Arc::new(rows.iter().map(|row| Some(key(row).is_final)).collect::<BooleanArray>()),
            "calls" => integers(&|sums| sums.calls.into()),
            "retries" => integers(&|sums| sums.retries.into()),
            "priced_calls" => integers(&|sums| sums.priced.into()),
            "duration_ns_sum" => integers(&|sums| sums.duration_ns),
            "weighted_calls" => decimals(WEIGHT_SCALE, &|sums| Some(sums.weight))?,
            "cost_usd" => decimals(COST_SCALE, &|sums| (sums.priced > 0).then_some(sums.cost))?,
            "latency" => self.latency_column(rows),
            "further_attempts" => {
                known_integers(&|sums| (sums.further_attempts != 0).then(|| sums.further_attempts.into()))
            }
            "retry_lost_ns_sum" => known_integers(&|sums| Some(sums.known_retries.as_ref()?.lost_ns)),
            "retry_delay" => self.retry_delay_column(rows),
            "retries_further_weight" => {
                let retries = |sums: &Sums| Some(sums.retries_further_weight).filter(|weight| *weight != 0);
                decimals(WEIGHT_SCALE, &retries)?
            }
            "further_weight_squares" => {
                decimals(WEIGHT_SCALE, &|sums| Some(sums.further_squares).filter(|squares| *squares != 0))?
            }
            other => {
                return Err(ArrowError::SchemaError(format!("calls_1m has a column {other:?} that is not summed")));
            }
        })
    }

    fn word_column(&self, words: impl Iterator<Item = u32>) -> Result<ArrayRef, ArrowError> {
        let mut codes = vec![None; self.words.texts.len() + 1];
        let mut texts: Vec<&str> = Vec::new();
        let keys: UInt16Array = words
            .map(|word| {
                let text = self.words.text(word)?;
                let code = codes[word as usize].unwrap_or_else(|| {
                    texts.push(text);
                    (texts.len() - 1) as u16
                });
                codes[word as usize] = Some(code);
                Some(code)
            })
            .collect();
        Ok(Arc::new(DictionaryArray::try_new(keys, Arc::new(StringArray::from(texts)))?))
    }

    fn latency_column(&self, rows: &[OutRow]) -> ArrayRef {
        let (mut column, mut payload) = (BinaryBuilder::new(), Vec::new());
        for row in rows {
            payload.clear();
            match row.part {
                0 => self.sums[row.group].latency.histogram().payload(&mut payload),
                _ => Recorder::default().finish().payload(&mut payload),
            }
            column.append_value(&payload);
        }
        Arc::new(column.finish())
    }

    fn retry_delay_column(&self, rows: &[OutRow]) -> ArrayRef {
        let (mut column, mut payload) = (BinaryBuilder::new(), Vec::new());
        for row in rows {
            match &self.sums[row.group].known_retries {
                Some(retries) if row.part == 0 => {
                    payload.clear();
                    retries.delay.histogram().payload(&mut payload);
                    column.append_value(&payload);
                }
                _ => column.append_null(),
            }
        }
        Arc::new(column.finish())
    }
}

impl Sums {
    fn add(&mut self, other: &Self) {
        self.first = if self.calls == 0 { other.first } else { self.first.min(other.first) };
        self.last_end_us = if self.calls == 0 { other.last_end_us } else { self.last_end_us.max(other.last_end_us) };
        self.calls += other.calls;
        self.retries += other.retries;
        self.further_attempts += other.further_attempts;
        self.weight += other.weight;
        self.retries_further_weight += other.retries_further_weight;
        self.further_squares += other.further_squares;
        self.duration_ns += other.duration_ns;
        self.cost += other.cost;
        self.priced += other.priced;
        self.amounts.iter_mut().zip(other.amounts).for_each(|(mine, theirs)| *mine += theirs);
        self.latency.add_recorded(&other.latency);
        if let Some(theirs) = &other.known_retries {
            let mine = self.known_retries.get_or_insert_default();
            mine.lost_ns += theirs.lost_ns;
            mine.delay.add_recorded(&theirs.delay);
        }
    }

    /// How many rows its columns need.
    fn parts(&self) -> u128 {
        let parts = |value: i128, max: i128| value.unsigned_abs().div_ceil(max.unsigned_abs());
        let amounts = self.amounts.iter().map(|amount| parts(*amount, INTEGER_MAX)).max().unwrap_or(0);
        let decimals = [self.weight, self.retries_further_weight, self.further_squares, self.cost]
            .map(|sum| parts(sum, DECIMAL_MAX));
        let lost_ns = self.known_retries.as_ref().map_or(0, |retries| retries.lost_ns);
        let integers = [self.duration_ns, lost_ns].map(|sum| parts(sum, INTEGER_MAX));
        decimals.into_iter().chain(integers).fold(amounts.max(1), u128::max)
    }
}

/// A row that is given: a key, and which part of its sums, from 0.
struct OutRow {
    group: usize,
    part: u128,
}

/// What of a sum stands in its part `part`, if no part may exceed `max`.
fn part(value: i128, max: i128, part: u128) -> i128 {
    let before = max.unsigned_abs().saturating_mul(part);
    let rest = value.unsigned_abs().saturating_sub(before).min(max.unsigned_abs()).cast_signed();
    if value < 0 { -rest } else { rest }
}

/// A weight squared, rounded to a weight's places, half up as a cast of SQL does.
fn squared(weight: i128) -> i128 {
    (weight.min(SQUARED_MAX).pow(2) + WEIGHT_ONE / 2) / WEIGHT_ONE
}

fn each_known<T: ArrowPrimitiveType>(
    column: &PrimitiveArray<T>,
    start: usize,
    groups: &[u32],
    mut add: impl FnMut(usize, T::Native),
) {
    if column.null_count() == column.len() {
        return;
    }
    let values = &column.values()[start..start + groups.len()];
    for (row, (group, value)) in groups.iter().zip(values).enumerate() {
        if column.is_valid(start + row) {
            add(*group as usize, *value);
        }
    }
}

/// Texts, and their numbers from 1.
#[derive(Debug, Clone, Default)]
struct Words {
    index: HashTable<u32>,
    texts: Vec<Box<str>>,
    /// About what they take in memory.
    bytes: usize,
}

impl Words {
    fn number(&mut self, text: Option<&str>) -> u32 {
        let Some(text) = text else { return NULL };
        let hasher = FixedState::default();
        let texts = &self.texts;
        let entry = self.index.entry(
            hasher.hash_one(text),
            |word| &*texts[*word as usize - 1] == text,
            |word| hasher.hash_one(&*texts[*word as usize - 1]),
        );
        match entry {
            Entry::Occupied(entry) => *entry.get(),
            Entry::Vacant(entry) => {
                let word = texts.len() as u32 + 1;
                entry.insert(word);
                self.texts.push(text.into());
                self.bytes += text.len() + size_of::<Box<str>>() + size_of::<u32>() + 1;
                word
            }
        }
    }

    fn text(&self, word: u32) -> Option<&str> {
        Some(self.texts.get((word as usize).checked_sub(1)?)?)
    }

    /// Of each number the place of its text in the order of texts; that of no text is 0.
    fn ranks(&self) -> Vec<u32> {
        let mut order: Vec<usize> = (0..self.texts.len()).collect();
        order.sort_unstable_by_key(|word| &self.texts[*word]);
        let mut ranks = vec![0; self.texts.len() + 1];
        order.iter().enumerate().for_each(|(rank, word)| ranks[word + 1] = rank as u32 + 1);
        ranks
    }
}

/// The columns of a batch that are read.
struct Rows {
    len: usize,
    end_time: TimestampMicrosecondArray,
    words: [WordColumn; WORDS.len()],
    counted: BooleanArray,
    is_final: BooleanArray,
    attempt: Int32Array,
    duration_ns: Int64Array,
    weight: Decimal128Array,
    cost: Decimal128Array,
    retry_delay_ns: Int64Array,
    retry_lost_ns: Int64Array,
    position: Int64Array,
    amounts: [Int64Array; AMOUNTS.len()],
}

impl Rows {
    fn of(rows: &RecordBatch) -> Result<Self, ArrowError> {
        let mut words = Vec::with_capacity(WORDS.len());
        for name in WORDS {
            words.push(WordColumn::of(column(rows, name)?)?);
        }
        let mut amounts = Vec::with_capacity(AMOUNTS.len());
        for name in AMOUNTS {
            amounts.push(primitive(rows, name)?);
        }
        let wrong = |_| ArrowError::SchemaError("a rollup has other columns than its lists".to_owned());
        Ok(Self {
            len: rows.num_rows(),
            end_time: without_nulls(rows, "end_time")?,
            words: words.try_into().map_err(|_| wrong(()))?,
            counted: booleans(rows, "counted")?,
            is_final: booleans(rows, "final")?,
            attempt: without_nulls(rows, "attempt")?,
            duration_ns: without_nulls(rows, "duration_ns")?,
            weight: decimals(without_nulls(rows, "weight")?, WEIGHT_SCALE)?,
            cost: decimals(primitive(rows, "cost_usd")?, COST_SCALE)?,
            retry_delay_ns: primitive(rows, "retry_delay_ns")?,
            retry_lost_ns: primitive(rows, "retry_lost_ns")?,
            position: without_nulls(rows, "wal_position")?,
            amounts: amounts.try_into().map_err(|_| wrong(()))?,
        })
    }

    fn keys(&mut self, range: std::ops::Range<usize>, words: &mut Words, keys: &mut Vec<Key>) {
        keys.clear();
        keys.extend(range.clone().map(|row| Key {
            minute: Minute::of(UnixMicros(self.end_time.value(row))).0,
            words: [NULL; WORDS.len()],
            counted: self.counted.value(row),
            is_final: self.is_final.value(row),
        }));
        for (at, column) in self.words.iter_mut().enumerate() {
            for (row, key) in range.clone().zip(keys.iter_mut()) {
                key.words[at] = column.word(row, words);
            }
        }
    }
}

/// A column of words.
enum WordColumn {
    Coded {
        codes: UInt16Array,
        texts: StringArray,
        /// The rollup's number of each code.
        numbers: Vec<u32>,
    },
    Plain {
        texts: StringArray,
        /// The row whose text was looked up last, and its number.
        last: Option<(usize, u32)>,
    },
}

impl WordColumn {
    fn of(column: &ArrayRef) -> Result<Self, ArrowError> {
        if let Some(coded) = column.as_dictionary_opt::<UInt16Type>()
            && let Some(texts) = coded.values().as_string_opt::<i32>()
        {
            let numbers = vec![UNKNOWN; texts.len()];
            return Ok(Self::Coded { codes: coded.keys().clone(), texts: texts.clone(), numbers });
        }
        let texts = cast(column, &DataType::Utf8)?;
        Ok(Self::Plain { texts: texts.as_string::<i32>().clone(), last: None })
    }

    #[inline]
    fn word(&mut self, row: usize, words: &mut Words) -> u32 {
        match self {
            Self::Coded { codes, texts, numbers } => {
                if codes.is_null(row) {
                    return NULL;
                }
                let code = usize::from(codes.value(row));
                if numbers[code] == UNKNOWN {
                    numbers[code] = words.number(texts.is_valid(code).then(|| texts.value(code)));
                }
                numbers[code]
            }
            Self::Plain { texts, last } => {
                if texts.is_null(row) {
                    return NULL;
                }
                let text = texts.value(row);
                if let Some((known, word)) = last
                    && texts.value(*known) == text
                {
                    return *word;
                }
                let word = words.number(Some(text));
                *last = Some((row, word));
                word
            }
        }
    }
}

fn column<'a>(rows: &'a RecordBatch, name: &str) -> Result<&'a ArrayRef, ArrowError> {
    rows.column_by_name(name).ok_or_else(|| ArrowError::SchemaError(format!("rows of calls have no column {name:?}")))
}

fn primitive<T: ArrowPrimitiveType>(rows: &RecordBatch, name: &str) -> Result<PrimitiveArray<T>, ArrowError> {
    let column = column(rows, name)?;
    let typed = column.as_primitive_opt::<T>().cloned();
    typed.ok_or_else(|| ArrowError::SchemaError(format!("column {name:?} of calls is {}", column.data_type())))
}

fn without_nulls<T: ArrowPrimitiveType>(rows: &RecordBatch, name: &str) -> Result<PrimitiveArray<T>, ArrowError> {
    let column = primitive(rows, name)?;
    if column.null_count() > 0 {
        return Err(ArrowError::SchemaError(format!("column {name:?} of calls has nulls")));
    }
    Ok(column)
}

fn booleans(rows: &RecordBatch, name: &str) -> Result<BooleanArray, ArrowError> {
    let column = column(rows, name)?;
    let typed = column.as_boolean_opt().filter(|column| column.null_count() == 0).cloned();
    typed.ok_or_else(|| ArrowError::SchemaError(format!("column {name:?} of calls is {} or null", column.data_type())))
}

fn decimals(column: PrimitiveArray<Decimal128Type>, scale: i8) -> Result<Decimal128Array, ArrowError> {
    if column.scale() != scale {
        let message = format!("a decimal of calls has {} places, not {scale}", column.scale());
        return Err(ArrowError::SchemaError(message));
    }
    Ok(column)
}

#[cfg(test)]
mod tests;
