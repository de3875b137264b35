//! Counts the events of all SLOs in batches of `calls`, by the minute in which they ended.
//!
//! # What is counted
//! Of the rows that the SLO's mode and layer select: `total := (total IS TRUE)`, `good := total AND (good IS TRUE)`, `bad := total
//! - good` (with `bad` given: `good := total AND NOT (bad IS TRUE)`). `excluded` are the rows in scope that are not in
//! total; in scope are those for which the conditions `column = 'text'` hold that `total` begins with, joined by `AND`
//! (all rows if there is none). `nulls` are the rows in scope for which `total` is null, or `good` or `bad` of a row in total.
//!
//! An SLO with groups ([`super::group`]) has the events of each by itself. Rows that are not in total make no group: they count as
//! `excluded` and `nulls` from the export after the one with the group's first event on.
//!
//! # How it works
//! Most SLOs fix a tool or a service. They are indexed by the columns that they fix and the values they fix them to: rows are
//! sorted into the combinations that some SLO asks for, and each SLO looks only at the rows of its own. So ten thousand SLOs of a tool each
//! cost about as much as one of all tools.
//!
//! Live rows hold words as dictionaries. What expressions read is cast to text first, so that they have the meaning that they have in a
//! statement over committed rows.

mod grouped;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, AsArray, BooleanArray, RecordBatch, RecordBatchOptions, UInt32Array,
};
use arrow::compute::{cast, take};
use arrow::datatypes::{
    ArrowDictionaryKeyType, DataType, Decimal128Type, Field, Int64Type, Schema, SchemaRef, TimestampMicrosecondType,
    UInt16Type,
};
use arrow::error::ArrowError;
use toolgauge_analytics::sli::Counts;
use toolgauge_analytics::window::Minute;
use toolgauge_proto::id::WalPosition;
use toolgauge_proto::table::Table;
use toolgauge_proto::time::UnixMicros;

use super::definition::{Judged, Mode, Sli};
use super::group::GroupKey;
use crate::engine::{Condition, Error};
use grouped::Groups;

/// An SLI whose expressions are compiled for `calls`.
#[derive(Debug, Clone)]
pub struct CompiledSli {
    /// What it counts.
    pub sli: Sli,
    /// See [`Sli::revision`].
    pub revision: String,
    total: Condition,
    judge: Condition,
}

impl CompiledSli {
    /// Puts an SLI together with its compiled expressions.
    #[must_use]
    pub fn new(sli: Sli, total: Condition, judge: Condition) -> Self {
        Self { revision: sli.revision(), sli, total, judge }
    }

    /// The value that a column of text has in every event, if it is one and the same.
    #[must_use]
    pub fn fixed_value(&self, column: &str) -> Option<&str> {
        self.total.fixed().iter().find(|(name, _)| name == column).map(|(_, text)| text.as_str())
    }

    /// What the events are, compiled.
    #[must_use]
    pub const fn total(&self) -> &Condition {
        &self.total
    }

    /// The columns that tell its events from other counted rows, except for `counted` and `final`; `None` if `layer` is one of them.
    #[must_use]
    pub fn events_columns(&self) -> Option<&[String]> {
        self.sli.layer.is_none().then(|| self.total.columns())
    }

    /// The same events, all of them good: what is left when it does not matter how they went.
    #[must_use]
    pub fn events(&self) -> Self {
        Self { judge: self.total.clone(), ..self.clone() }
    }

    /// The columns of text, with their values, that say which rows are in scope.
    #[must_use]
    pub fn scope(&self) -> &[(String, String)] {
        self.total.fixed()
    }

    /// The columns of text that have one value in every row that counts.
    fn fixed(&self) -> Vec<(usize, &str)> {
        let layer = self.sli.layer.map(|layer| ("layer", layer.as_str()));
        let total = self.total.fixed().iter().map(|(column, text)| (column.as_str(), text.as_str()));
        let mut fixed: Vec<(usize, &str)> = Vec::new();
        for (column, text) in layer.into_iter().chain(total) {
            let index = Table::Calls.index_of(column);
            if !fixed.iter().any(|(known, _)| *known == index) {
                fixed.push((index, text));
            }
        }
        fixed.sort_unstable();
        fixed
    }
}

/// One SLO, as it is counted.
#[derive(Debug)]
struct Counted {
    mode: Mode,
    /// Whether only counted rows are looked at.
    counted_only: bool,
    total: Condition,
    judged: Judged,
    judge: Condition,
    /// The columns that it is grouped by: a place in `group_columns`.
    group: Option<usize>,
}

/// A column that some SLO fixes, with the values that are asked for; value n has the code n + 1, all others 0.
#[derive(Debug)]
struct FixedColumn {
    index: usize,
    codes: HashMap<String, u32>,
}

/// SLOs that fix the same columns.
#[derive(Debug)]
struct ColumnSet {
    /// Indices into the fixed columns.
    columns: Vec<usize>,
    /// By the codes of the columns' values, the SLOs that fix them so: a place in `groups`.
    combinations: HashMap<Vec<u32>, usize>,
    /// SLOs, by their places.
    groups: Vec<Vec<usize>>,
}

/// A group, and the least position of its events in the rows that are counted, if it has any in them.
pub type GroupAt<'a> = (&'a GroupKey, Option<WalPosition>);

/// Where the counts go.
pub trait Tally {
    /// Adds to the counts of an SLO, named by its place in the list, and of its group, if it has groups, in a minute; the same
    /// minute may come several times.
    fn add(&mut self, slo: usize, group: Option<GroupAt<'_>>, minute: Minute, counts: &Counts);

    /// Adds to the counts of an SLO of attempts what they are as logical calls: each with its retries is one, with the outcome of the last.
    fn add_logical(&mut self, _slo: usize, _minute: Minute, _counts: &Counts) {}

    /// This service had an event of the SLO's total in this minute, and none later in these rows. It comes after the counts.
    fn fed_by(&mut self, slo: usize, group: Option<GroupAt<'_>>, service: &str, minute: Minute);

    /// Adds rows of a group that are not in its total. It has an event before them: here, or where [`Tally::began`] says.
    fn outside(&mut self, slo: usize, group: &GroupKey, minute: Minute, counts: &Counts);

    /// The position of the first event of a group, if it is one of its own: what is not in total counts only after it.
    fn began(&self, slo: usize, group: &GroupKey) -> Option<WalPosition>;
}

/// Columns of `calls` that are needed whatever is counted.
const ALWAYS: [&str; 6] = ["counted", "end_time", "final", "service_name", "wal_position", "weight"];

/// Counts all SLOs of a list at once.
#[derive(Debug)]
pub struct Counter {
    slos: Vec<Counted>,
    fixed: Vec<FixedColumn>,
    sets: Vec<ColumnSet>,
    /// Of the columns of `calls` that expressions read, where they stand there.
    read: Vec<usize>,
    /// The sets of columns that SLOs are grouped by, as they stand there.
    group_columns: Vec<Vec<usize>>,
    schema: SchemaRef,
}

impl Counter {
    /// A counter of these; they are named by their places in the list.
    ///
    /// # Errors
    /// On a fault of the program.
    pub fn new<'a>(slis: impl IntoIterator<Item = &'a CompiledSli>) -> Result<Self, Error> {
        Self::grouped(slis.into_iter().map(|sli| (sli, &[][..])))
    }

    /// The same of SLOs with the columns that each is grouped by, if it is.
    ///
    /// # Errors
    /// As [`Counter::new`].
    pub fn grouped<'a>(slos: impl IntoIterator<Item = (&'a CompiledSli, &'a [&'static str])>) -> Result<Self, Error> {
        let slos: Vec<(&CompiledSli, &[&'static str])> = slos.into_iter().collect();
        let expressions = slos.iter().flat_map(|(sli, _)| [&sli.total, &sli.judge]);
        let mut read: Vec<usize> =
            expressions.flat_map(|expr| expr.columns()).map(|column| Table::Calls.index_of(column)).collect();
        read.sort_unstable();
        read.dedup();
        let fields: Vec<Field> = read.iter().map(|index| Table::Calls.schema().field(*index).clone()).collect();
        let schema = Arc::new(Schema::new(fields));
        let mut counter =
            Self { slos: Vec::new(), fixed: Vec::new(), sets: Vec::new(), read, group_columns: Vec::new(), schema };
        for (place, (sli, columns)) in slos.into_iter().enumerate() {
            let group = counter.group_of(columns);
            counter.slos.push(Counted {
                group,
                mode: sli.sli.mode,
                counted_only: sli.sli.layer.is_none(),
                total: sli.total.for_schema(&counter.schema)?,
                judged: sli.sli.judged,
                judge: sli.judge.for_schema(&counter.schema)?,
            });
            counter.index(place, &sli.fixed());
        }
        Ok(counter)
    }

    /// The place of a set of columns.
    fn group_of(&mut self, columns: &[&'static str]) -> Option<usize> {
        if columns.is_empty() {
            return None;
        }
        let columns: Vec<usize> = columns.iter().map(|column| Table::Calls.index_of(column)).collect();
        Some(self.group_columns.iter().position(|known| *known == columns).unwrap_or_else(|| {
            self.group_columns.push(columns);
            self.group_columns.len() - 1
        }))
    }

    fn index(&mut self, place: usize, fixed: &[(usize, &str)]) {
        let (mut columns, mut codes) = (Vec::new(), Vec::new());
        for (index, text) in fixed {
            let column = self.fixed.iter().position(|column| column.index == *index).unwrap_or_else(|| {
                self.fixed.push(FixedColumn { index: *index, codes: HashMap::new() });
                self.fixed.len() - 1
            });
            let known = &mut self.fixed[column].codes;
            let next = known.len() as u32 + 1;
            columns.push(column);
            codes.push(*known.entry((*text).to_owned()).or_insert(next));
        }
        let set = self.sets.iter().position(|set| set.columns == columns).unwrap_or_else(|| {
            self.sets.push(ColumnSet { columns, combinations: HashMap::new(), groups: Vec::new() });
            self.sets.len() - 1
        });
        let set = &mut self.sets[set];
        let group = *set.combinations.entry(codes).or_insert(set.groups.len());
        if group == set.groups.len() {
            set.groups.push(Vec::new());
        }
        set.groups[group].push(place);
    }

    /// The columns of `calls` that batches must have, in the order of the table.
    #[must_use]
    pub fn columns(&self) -> Vec<&'static str> {
        let fixed = self.fixed.iter().map(|column| column.index);
        let always = ALWAYS.into_iter().map(|name| Table::Calls.index_of(name));
        let groups = self.group_columns.iter().flatten().copied();
        let mut columns: Vec<usize> = self.read.iter().copied().chain(fixed).chain(groups).chain(always).collect();
        columns.sort_unstable();
        columns.dedup();
        columns.into_iter().map(|index| Table::Calls.columns()[index].name).collect()
    }

    /// Adds what the rows of a batch count, in the live schema of `calls` or in its settled one, after a position of the log.
    ///
    /// # Errors
    /// If the batch is not one of `calls`, which is a fault of the program.
    pub fn count(
        &self,
        batch: &RecordBatch,
        after: Option<WalPosition>,
        tally: &mut impl Tally,
    ) -> Result<(), ArrowError> {
        let Some(rows) = wanted(batch, after)? else { return Ok(()) };
        let codes: Vec<Vec<u32>> = self
            .fixed
            .iter()
            .map(|column| column.codes_of(column_of(batch, column.index)?))
            .collect::<Result<_, _>>()?;
        for set in &self.sets {
            for (group, rows) in set.sorted(&codes, &rows) {
                let rows = match rows {
                    Rows::All(_) => None,
                    Rows::Some(rows) => Some(UInt32Array::from(rows)),
                };
                let slos = &set.groups[group];
                let part = Part::new(self, batch, rows.as_ref(), slos)?;
                for slo in slos {
                    let counted = &self.slos[*slo];
                    match counted.group.and_then(|set| part.groups.get(&set)) {
                        None => part.count(counted, *slo, tally),
                        Some(groups) => part.count_groups(counted, *slo, groups, tally),
                    }
                }
            }
        }
        Ok(())
    }
}

/// A column of `calls` in a batch that need not have all of them.
fn column_of(batch: &RecordBatch, index: usize) -> Result<&ArrayRef, ArrowError> {
    let name = Table::Calls.columns()[index].name;
    batch.column_by_name(name).ok_or_else(|| ArrowError::SchemaError(format!("the batch has no column {name}")))
}

/// Rows of a batch.
#[derive(Debug, Clone)]
enum Rows {
    /// All of so many.
    All(usize),
    Some(Vec<u32>),
}

/// The rows after a position; `None` if there are none.
fn wanted(batch: &RecordBatch, after: Option<WalPosition>) -> Result<Option<Rows>, ArrowError> {
    let rows = batch.num_rows();
    let found = match after {
        None => Rows::All(rows),
        Some(after) => {
            let positions = column_of(batch, Table::Calls.index_of("wal_position"))?.as_primitive_opt::<Int64Type>();
            let positions = positions.ok_or_else(|| ArrowError::SchemaError("wal_position is no Int64".to_owned()))?;
            let later = positions.values().iter().enumerate().filter(|(_, at)| **at > after.as_i64());
            let later: Vec<u32> = later.map(|(row, _)| row as u32).collect();
            if later.len() == rows { Rows::All(rows) } else { Rows::Some(later) }
        }
    };
    let is_empty = match &found {
        Rows::All(rows) => *rows == 0,
        Rows::Some(rows) => rows.is_empty(),
    };
    Ok((!is_empty).then_some(found))
}

impl FixedColumn {
    fn code(&self, text: &str) -> u32 {
        self.codes.get(text).copied().unwrap_or(0)
    }

    /// The code of each row.
    fn codes_of(&self, column: &ArrayRef) -> Result<Vec<u32>, ArrowError> {
        match column.data_type() {
            DataType::Dictionary(key, _) if **key == UInt16Type::DATA_TYPE => self.codes_of_words::<UInt16Type>(column),
            _ => {
                let texts = cast(column, &DataType::Utf8)?;
                Ok(texts.as_string::<i32>().iter().map(|text| text.map_or(0, |text| self.code(text))).collect())
            }
        }
    }

    fn codes_of_words<K: ArrowDictionaryKeyType>(&self, column: &ArrayRef) -> Result<Vec<u32>, ArrowError>
    where
        usize: TryFrom<K::Native>,
    {
        let words = column.as_dictionary::<K>();
        let values = cast(words.values(), &DataType::Utf8)?;
        let codes: Vec<u32> =
            values.as_string::<i32>().iter().map(|text| text.map_or(0, |text| self.code(text))).collect();
        let code = |key: Option<K::Native>| {
            let key = key.and_then(|key| usize::try_from(key).ok());
            key.and_then(|key| codes.get(key)).copied().unwrap_or(0)
        };
        Ok(words.keys().iter().map(code).collect())
    }
}

impl ColumnSet {
    /// The rows that some SLO of the set looks at, by group.
    fn sorted(&self, codes: &[Vec<u32>], rows: &Rows) -> Vec<(usize, Rows)> {
        if self.columns.is_empty() {
            return vec![(0, rows.clone())];
        }
        let mut sorted: Vec<Vec<u32>> = vec![Vec::new(); self.groups.len()];
        let mut key = vec![0; self.columns.len()];
        let mut last: Option<(Vec<u32>, Option<usize>)> = None;
        let mut place = |row: u32| {
            for (code, column) in key.iter_mut().zip(&self.columns) {
                *code = codes[*column][row as usize];
            }
            if key.contains(&0) {
                return;
            }
            // Rows of one export follow one another.
            let group = match &last {
                Some((known, group)) if *known == key => *group,
                _ => {
                    let group = self.combinations.get(&key).copied();
                    last = Some((key.clone(), group));
                    group
                }
            };
            if let Some(group) = group {
                sorted[group].push(row);
            }
        };
        match rows {
            Rows::All(rows) => (0..*rows as u32).for_each(&mut place),
            Rows::Some(rows) => rows.iter().copied().for_each(&mut place),
        }
        sorted
            .into_iter()
            .enumerate()
            .filter(|(_, rows)| !rows.is_empty())
            .map(|(group, rows)| (group, Rows::Some(rows)))
            .collect()
    }
}

/// The different texts of a column, and of each row the place of its own; without one, the place after the last.
fn places_of(column: &ArrayRef) -> Result<(Vec<usize>, Vec<String>), ArrowError> {
    if let Some(words) = column.as_any_dictionary_opt() {
        let values = cast(words.values(), &DataType::Utf8)?;
        let texts: Vec<String> =
            values.as_string::<i32>().iter().map(|text| text.unwrap_or_default().to_owned()).collect();
        if texts.is_empty() {
            return Ok((vec![0; column.len()], texts));
        }
        let keys = words.normalized_keys();
        let places = (0..column.len()).map(|row| if column.is_null(row) { texts.len() } else { keys[row] });
        return Ok((places.collect(), texts));
    }
    let column = cast(column, &DataType::Utf8)?;
    let mut known: HashMap<&str, usize> = HashMap::new();
    let mut texts = Vec::new();
    let mut places = Vec::with_capacity(column.len());
    for text in column.as_string::<i32>() {
        places.push(text.map_or(usize::MAX, |text| {
            *known.entry(text).or_insert_with(|| {
                texts.push(text.to_owned());
                texts.len() - 1
            })
        }));
    }
    places.iter_mut().for_each(|place| *place = (*place).min(texts.len()));
    Ok((places, texts))
}

/// Some rows of a batch: what expressions read, as text, and what says how a row counts.
struct Part {
    read: RecordBatch,
    counted: BooleanArray,
    is_final: BooleanArray,
    minutes: Vec<i64>,
    weights: Vec<i128>,
    /// Of each row, the place of its service in `services`; that after the last if it has none.
    service: Vec<usize>,
    services: Vec<String>,
    /// For the sets of columns that one of its SLOs is grouped by.
    groups: HashMap<usize, Groups>,
}

impl Part {
    /// What some SLOs need of these rows.
    fn new(
        counter: &Counter,
        batch: &RecordBatch,
        rows: Option<&UInt32Array>,
        slos: &[usize],
    ) -> Result<Self, ArrowError> {
        let column = |index: usize| match rows {
            Some(rows) => take(column_of(batch, index)?, rows, None),
            None => column_of(batch, index).cloned(),
        };
        let named = |name: &str, data_type: DataType| {
            let column = column(Table::Calls.index_of(name))?;
            if column.data_type().equals_datatype(&data_type) {
                Ok(column)
            } else {
                Err(ArrowError::SchemaError(format!("column {name} is {}, not {data_type}", column.data_type())))
            }
        };
        let read = counter.read.iter().zip(counter.schema.fields());
        let read: Vec<ArrayRef> =
            read.map(|(index, field)| cast(&column(*index)?, field.data_type())).collect::<Result<_, _>>()?;
        let count = rows.map_or(batch.num_rows(), Array::len);
        let options = RecordBatchOptions::new().with_row_count(Some(count));
        let ends = named("end_time", Table::Calls.schema().field_with_name("end_time")?.data_type().clone())?;
        let ends = ends.as_primitive::<TimestampMicrosecondType>().values();
        let weights = named("weight", Table::Calls.schema().field_with_name("weight")?.data_type().clone())?;
        let (service, services) = places_of(&column(Table::Calls.index_of("service_name"))?)?;
        let mut groups = HashMap::new();
        for set in slos.iter().filter_map(|slo| counter.slos[*slo].group) {
            if let Entry::Vacant(entry) = groups.entry(set) {
                let columns: Vec<ArrayRef> =
                    counter.group_columns[set].iter().map(|index| column(*index)).collect::<Result<_, _>>()?;
                // Sums per minute that stand in for rows have none.
                let positions = column(Table::Calls.index_of("wal_position")).ok();
                entry.insert(Groups::of(&columns, positions.as_ref())?);
            }
        }
        Ok(Self {
            groups,
            service,
            services,
            read: RecordBatch::try_new_with_options(Arc::clone(&counter.schema), read, &options)?,
            counted: named("counted", DataType::Boolean)?.as_boolean().clone(),
            is_final: named("final", DataType::Boolean)?.as_boolean().clone(),
            minutes: ends.iter().map(|end| Minute::of(UnixMicros(*end)).0).collect(),
            weights: weights.as_primitive::<Decimal128Type>().values().to_vec(),
        })
    }

    /// Whether an SLO looks at a row at all.
    fn is_selected(&self, slo: &Counted, row: usize) -> bool {
        (!slo.counted_only || self.counted.value(row)) && (slo.mode == Mode::Attempt || self.is_final.value(row))
    }

    /// Adds a row of the total. Whether it is a good one.
    fn judge(&self, slo: &Counted, judge: &BooleanArray, row: usize, counts: &mut Counts) -> bool {
        if judge.is_null(row) {
            counts.nulls += 1;
        }
        let said = judge.is_valid(row) && judge.value(row);
        let is_good = said == (slo.judged == Judged::Good);
        count_event(counts, is_good, self.weights[row]);
        is_good
    }

    fn count(&self, slo: &Counted, place: usize, tally: &mut impl Tally) {
        let mut fed_by: Vec<Option<i64>> = vec![None; self.services.len() + 1];
        let (total, judge) = (slo.total.evaluate(&self.read), slo.judge.evaluate(&self.read));
        let mut sums: HashMap<i64, Counts> = HashMap::new();
        let mut logical: HashMap<i64, Counts> = HashMap::new();
        let mut running: Option<(i64, Counts)> = None;
        for row in 0..self.minutes.len() {
            if !self.is_selected(slo, row) {
                continue;
            }
            let minute = self.minutes[row];
            let counts = match &mut running {
                Some((at, counts)) if *at == minute => counts,
                running => {
                    if let Some((at, counts)) = running.take() {
                        *sums.entry(at).or_default() += &counts;
                    }
                    &mut running.insert((minute, Counts::default())).1
                }
            };
            if total.is_null(row) {
                counts.nulls += 1;
            }
            if total.is_null(row) || !total.value(row) {
                counts.excluded += 1;
                continue;
            }
            let fed = &mut fed_by[self.service[row]];
            *fed = (*fed).max(Some(minute));
            let is_good = self.judge(slo, &judge, row, counts);
            if slo.mode == Mode::Attempt && self.is_final.value(row) {
                count_event(logical.entry(minute).or_default(), is_good, self.weights[row]);
            }
        }
        if let Some((at, counts)) = running {
            *sums.entry(at).or_default() += &counts;
        }
        for (minute, counts) in &sums {
            tally.add(place, None, Minute(*minute), counts);
        }
        for (minute, counts) in &logical {
            tally.add_logical(place, Minute(*minute), counts);
        }
        for (service, minute) in self.services.iter().zip(fed_by) {
            if let Some(minute) = minute {
                tally.fed_by(place, None, service, Minute(minute));
            }
        }
    }
}

const fn count_event(counts: &mut Counts, is_good: bool, weight: i128) {
    if is_good {
        counts.good += 1;
        counts.good_weighted += weight;
    } else {
        counts.bad += 1;
        counts.bad_weighted += weight;
    }
}
