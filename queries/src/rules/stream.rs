//! Sums of calls by group and minute: for each selection that some rule looks at, of the settled rows and of the live ones.
//!
//! Rows are looked at in one pass a batch and stream: the condition of the user is evaluated on columns, the rest compares codes of words. What
//! belongs to one group, service and minute is summed before anything is looked up, and rows of one export follow one another.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, RecordBatchOptions};
use arrow::buffer::ScalarBuffer;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Decimal128Type, Field, Int32Type, Int64Type, Schema, TimestampMicrosecondType};
use arrow::error::ArrowError;
use toolgauge_analytics::threshold::{Rolling, Sums};
use toolgauge_analytics::window::{Minute, Window};
use toolgauge_proto::id::WalPosition;
use toolgauge_proto::table::Table;
use toolgauge_proto::time::UnixMicros;

use super::definition::{BY_MAX, Calls, Hit, OTHER, Selection};
use crate::engine::Condition;

/// Most services that are remembered of a group.
const SERVICES_MAX: usize = 1_000;
/// Columns that are needed whatever is summed.
const ALWAYS: [&str; 10] = [
    "end_time",
    "duration_ns",
    "kind",
    "service_name",
    "counted",
    "wal_position",
    "outcome",
    "attempt",
    "final",
    "cost_usd",
];

/// The values of a group, in the order of the columns it is grouped by.
pub(super) type GroupKey = Vec<Option<Arc<str>>>;

/// What two rules have to have in common to share their sums.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct StreamKey {
    calls: Calls,
    final_only: bool,
    filter: Option<String>,
    by: Vec<&'static str>,
    groups_max: usize,
    hit: Hit,
}

impl StreamKey {
    pub(super) fn of(selection: &Selection) -> Self {
        Self {
            calls: selection.calls,
            final_only: selection.final_only,
            filter: selection.filter.as_ref().map(|filter| filter.text.text.clone()),
            by: selection.by.clone(),
            groups_max: selection.groups_max,
            hit: selection.hit,
        }
    }
}

/// The sums of one group.
#[derive(Debug)]
pub(super) struct Group {
    /// Its values.
    pub(super) key: GroupKey,
    /// Of the settled rows.
    pub(super) rolling: Rolling,
    /// Of the live rows, as of the last evaluation.
    live: Vec<(Minute, Sums)>,
    /// Services of its calls, with the last minute of each.
    pub(super) fed_by: HashMap<Arc<str>, Minute>,
}

impl Group {
    /// The sum over one of its windows, live rows included.
    pub(super) fn sum(&self, window: Window) -> Sums {
        let mut sum = self.rolling.sum(window);
        let minutes = window.at(self.rolling.now());
        self.live.iter().filter(|(minute, _)| minutes.contains(minute)).for_each(|(_, sums)| sum += sums);
        sum
    }

    /// The sum from a minute to now, as far as it is held.
    pub(super) fn sum_since(&mut self, start: Minute) -> Sums {
        let mut sum = self.rolling.sum_since(start);
        let minutes = start..=self.rolling.now();
        self.live.iter().filter(|(minute, _)| minutes.contains(minute)).for_each(|(_, sums)| sum += sums);
        sum
    }

    fn fed(&mut self, service: &Arc<str>, minute: Minute) {
        if let Some(last) = self.fed_by.get_mut(service) {
            *last = minute.max(*last);
            return;
        }
        if self.fed_by.len() >= SERVICES_MAX {
            let oldest = self.fed_by.iter().min_by_key(|(_, last)| **last).map(|(service, _)| Arc::clone(service));
            oldest.and_then(|oldest| self.fed_by.remove(&oldest));
        }
        self.fed_by.insert(Arc::clone(service), minute);
    }
}

/// The sums of one selection.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) key: StreamKey,
    pub(super) windows: Arc<[Window]>,
    pub(super) held: Option<Window>,
    condition: Option<Condition>,
    groups: Vec<Group>,
    places: HashMap<GroupKey, usize>,
    now: Minute,
}

/// Where rows are counted to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rows {
    /// They stay.
    Settled,
    /// They are counted anew each time.
    Live,
}

impl Stream {
    pub(super) fn new(selection: &Selection, windows: Arc<[Window]>, held: Option<Window>, now: Minute) -> Self {
        Self {
            key: StreamKey::of(selection),
            windows,
            held,
            condition: selection.filter.as_ref().map(|filter| filter.condition.clone()),
            groups: Vec::new(),
            places: HashMap::new(),
            now,
        }
    }

    /// The same without any sums.
    pub(super) fn empty(&self) -> Self {
        Self {
            key: self.key.clone(),
            windows: Arc::clone(&self.windows),
            held: self.held,
            condition: self.condition.clone(),
            groups: Vec::new(),
            places: HashMap::new(),
            now: self.now,
        }
    }

    pub(super) fn groups(&self) -> &[Group] {
        &self.groups
    }

    pub(super) fn groups_mut(&mut self) -> &mut [Group] {
        &mut self.groups
    }

    /// The longest time that it has to know.
    pub(super) fn longest(&self) -> Window {
        self.windows.iter().copied().chain(self.held).max().unwrap_or(Window::M5)
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        self.groups.clear();
        self.places.clear();
    }

    /// Goes on to a minute, and forgets the live rows, and the groups of which nothing is left.
    pub(super) fn advance(&mut self, now: Minute) {
        self.now = self.now.max(now);
        for group in &mut self.groups {
            group.live.clear();
            group.rolling.advance(now);
            let first = group.rolling.first_held();
            group.fed_by.retain(|_, last| *last >= first);
        }
        let before = self.groups.len();
        self.groups.retain(|group| !group.rolling.is_empty());
        if self.groups.len() != before {
            self.places = self.groups.iter().enumerate().map(|(place, group)| (group.key.clone(), place)).collect();
        }
    }

    /// Adds what is in another stream of the same kind, such as one that has read the history.
    pub(super) fn take(&mut self, history: &Self) {
        for theirs in &history.groups {
            let Some(place) = self.place(&theirs.key) else { continue };
            let group = &mut self.groups[place];
            theirs.rolling.minutes().for_each(|(minute, sums)| {
                group.rolling.add(minute, sums);
            });
            theirs.fed_by.iter().for_each(|(service, minute)| group.fed(service, *minute));
        }
    }

    /// The place of a group, or of what takes in those that find none.
    fn place(&mut self, key: &GroupKey) -> Option<usize> {
        if let Some(place) = self.places.get(key) {
            return Some(*place);
        }
        let other: GroupKey = key.iter().map(|_| Some(Arc::from(OTHER))).collect();
        let is_full = self.groups.len() >= self.key.groups_max && !key.is_empty();
        let key = if is_full { &other } else { key };
        if let Some(place) = self.places.get(key) {
            return Some(*place);
        }
        let place = self.groups.len();
        self.groups.push(Group {
            key: key.clone(),
            rolling: Rolling::new(Arc::clone(&self.windows), self.held, self.now),
            live: Vec::new(),
            fed_by: HashMap::new(),
        });
        self.places.insert(key.clone(), place);
        Some(place)
    }

    /// Adds the rows of a page.
    pub(super) fn count(&mut self, page: &Page, rows: Rows) {
        let mask = self.condition.as_ref().map(|condition| page.evaluate(condition));
        let kinds = page.kinds.marks(|kind| self.key.calls.has(kind));
        let words: Vec<&Words> = self.key.by.iter().filter_map(|column| page.words.get(*column)).collect();
        let mut sums: Vec<(RowKey, Sums)> = Vec::new();
        let mut index: HashMap<RowKey, usize> = HashMap::new();
        let mut last: Option<(RowKey, usize)> = None;
        for row in 0..page.rows {
            let is_wanted = page.after.is_none_or(|after| page.positions[row] > after)
                && page.counted.value(row)
                && (!self.key.final_only || page.is_final.value(row))
                && page.kinds.is(row, &kinds)
                && mask.as_ref().is_none_or(|mask| mask.is_valid(row) && mask.value(row));
            if !is_wanted {
                continue;
            }
            let mut key = RowKey { minute: page.minutes[row], service: page.services.codes[row], words: [0; BY_MAX] };
            for (code, words) in key.words.iter_mut().zip(&words) {
                *code = words.codes[row];
            }
            let place = match last {
                Some((known, place)) if known == key => place,
                _ => *index.entry(key).or_insert_with(|| {
                    sums.push((key, Sums::default()));
                    sums.len() - 1
                }),
            };
            last = Some((key, place));
            let sum = &mut sums[place].1;
            sum.calls += 1;
            let is_hit = match self.key.hit {
                Hit::Nothing => false,
                Hit::Error => page.outcomes.is(row, &page.errors),
                Hit::Retry => page.attempts[row] > 1,
                Hit::SlowGte(ns) => page.durations[row] >= ns,
                Hit::SlowGt(ns) => page.durations[row] > ns,
            };
            sum.hits += u64::from(is_hit);
            if page.costs.is_valid(row) {
                sum.priced += 1;
                sum.cost += page.costs.value(row);
            }
        }
        for (key, sums) in sums {
            let group: GroupKey = words.iter().zip(key.words).map(|(words, code)| words.text(code)).collect();
            let Some(place) = self.place(&group) else { continue };
            let group = &mut self.groups[place];
            let minute = Minute(key.minute);
            match rows {
                Rows::Settled => {
                    group.rolling.add(minute, &sums);
                }
                Rows::Live => group.live.push((minute, sums)),
            }
            if let Some(service) = page.services.text(key.service) {
                group.fed(&service, minute);
            }
        }
    }
}

/// What the rows of a sum have in common; words by their codes in the page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct RowKey {
    minute: i64,
    service: u32,
    words: [u32; BY_MAX],
}

/// A column of words: of each row a code, and what it stands for; 0 for none.
#[derive(Debug)]
pub(super) struct Words {
    pub(super) codes: Vec<u32>,
    texts: Vec<Arc<str>>,
}

impl Words {
    fn of(column: &ArrayRef) -> Result<Self, ArrowError> {
        let words = cast(column, &DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8)))?;
        let words = words.as_dictionary::<Int32Type>();
        let texts: Vec<Arc<str>> =
            words.values().as_string::<i32>().iter().map(|text| Arc::from(text.unwrap_or_default())).collect();
        let codes = words.keys().iter().map(|key| key.map_or(0, |key| key.cast_unsigned() + 1)).collect();
        Ok(Self { codes, texts })
    }

    /// What a code stands for.
    pub(super) fn text(&self, code: u32) -> Option<Arc<str>> {
        self.texts.get((code as usize).checked_sub(1)?).map(Arc::clone)
    }

    /// Of each word, whether it is one of these.
    pub(super) fn marks(&self, is_one: impl Fn(&str) -> bool) -> Vec<bool> {
        self.texts.iter().map(|text| is_one(text)).collect()
    }

    /// Whether the word of a row is one of those that are marked.
    pub(super) fn is(&self, row: usize, marked: &[bool]) -> bool {
        self.codes[row].checked_sub(1).is_some_and(|code| marked[code as usize])
    }
}

/// The rows of a batch of `calls`, as streams read them.
#[derive(Debug)]
pub(super) struct Page {
    pub(super) rows: usize,
    pub(super) minutes: Vec<i64>,
    /// Only rows after this position count.
    after: Option<i64>,
    positions: ScalarBuffer<i64>,
    pub(super) counted: BooleanArray,
    is_final: BooleanArray,
    pub(super) kinds: Words,
    outcomes: Words,
    errors: Vec<bool>,
    attempts: ScalarBuffer<i32>,
    durations: ScalarBuffer<i64>,
    costs: arrow::array::Decimal128Array,
    pub(super) services: Words,
    pub(super) words: HashMap<&'static str, Words>,
    read: RecordBatch,
}

/// The columns of `calls` that pages read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct PageColumns {
    /// Columns of words that something is grouped by.
    words: Vec<&'static str>,
    /// Columns of conditions.
    read: Vec<String>,
}

impl PageColumns {
    /// What these streams need, and some words besides.
    pub(super) fn of<'a>(streams: impl Iterator<Item = &'a Stream>, others: &[&'static str]) -> Self {
        let mut columns = Self { words: others.to_vec(), read: Vec::new() };
        for stream in streams {
            columns.words.extend(&stream.key.by);
            columns.read.extend(stream.condition.iter().flat_map(|condition| condition.columns().to_vec()));
        }
        columns.words.sort_unstable();
        columns.words.dedup();
        columns.read.sort_unstable();
        columns.read.dedup();
        columns
    }

    /// All of them, in the order of the table.
    pub(super) fn names(&self) -> Vec<&'static str> {
        let needed = |name: &str| {
            ALWAYS.contains(&name) || self.words.contains(&name) || self.read.iter().any(|read| read == name)
        };
        Table::Calls.columns().iter().map(|column| column.name).filter(|name| needed(name)).collect()
    }
}

impl Page {
    /// Reads a batch in the live schema of `calls` or in its settled one, of which only rows after a position count.
    pub(super) fn new(
        batch: &RecordBatch,
        columns: &PageColumns,
        after: Option<WalPosition>,
    ) -> Result<Self, ArrowError> {
        let column = |name: &str| {
            batch.column_by_name(name).ok_or_else(|| ArrowError::SchemaError(format!("calls has no column {name}")))
        };
        let typed = |name: &str| {
            let schema = Table::Calls.schema();
            let wanted = schema.field_with_name(name)?.data_type();
            let found = column(name)?;
            if found.data_type() == wanted { Ok(Arc::clone(found)) } else { cast(found, wanted) }
        };
        let integers = |name: &str| Ok::<_, ArrowError>(typed(name)?.as_primitive::<Int64Type>().values().clone());
        let ends = typed("end_time")?;
        let ends = ends.as_primitive::<TimestampMicrosecondType>().values();
        let outcomes = Words::of(column("outcome")?)?;
        let read: Vec<(Field, ArrayRef)> = columns
            .read
            .iter()
            .map(|name| Ok((Table::Calls.schema().field_with_name(name)?.clone(), typed(name)?)))
            .collect::<Result<_, ArrowError>>()?;
        let (fields, values): (Vec<Field>, Vec<ArrayRef>) = read.into_iter().unzip();
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        Ok(Self {
            rows: batch.num_rows(),
            minutes: ends.iter().map(|end| Minute::of(UnixMicros(*end)).0).collect(),
            after: after.map(|after| after.as_i64()),
            positions: integers("wal_position")?,
            counted: typed("counted")?.as_boolean().clone(),
            is_final: typed("final")?.as_boolean().clone(),
            kinds: Words::of(column("kind")?)?,
            errors: outcomes.marks(|outcome| outcome == "error"),
            outcomes,
            attempts: typed("attempt")?.as_primitive::<Int32Type>().values().clone(),
            durations: integers("duration_ns")?,
            costs: typed("cost_usd")?.as_primitive::<Decimal128Type>().clone(),
            services: Words::of(column("service_name")?)?,
            words: columns
                .words
                .iter()
                .map(|name| Ok((*name, Words::of(column(name)?)?)))
                .collect::<Result<_, ArrowError>>()?,
            read: RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), values, &options)?,
        })
    }

    /// Whether a row comes after the position.
    pub(super) fn is_new(&self, row: usize) -> bool {
        self.after.is_none_or(|after| self.positions[row] > after)
    }

    fn evaluate(&self, condition: &Condition) -> BooleanArray {
        // Columns that are not there cannot be: they were asked for.
        match condition.for_schema(&self.read.schema()) {
            Ok(condition) => condition.evaluate(&self.read),
            Err(error) => {
                tracing::error!(error = error.to_string(), "evaluate the condition of a rule");
                BooleanArray::new_null(self.rows)
            }
        }
    }
}
