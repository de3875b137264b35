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
//! Rows that are alike in minute, service and weight stand next to each other (they nearly always come so), so that an SLO is
//! counted by bits: its condition gives a bit for each row, and the bits of alike rows are summed at once. What a condition joins by
//! `AND` is evaluated apart: what the index knows already not at all, and what several SLOs of the same rows say (`outcome = 'ok'`) once.
//!
//! Live rows hold words as dictionaries. What expressions read is cast to text first, so that they have the meaning that they have in a
//! statement over committed rows.

mod bits;
mod grouped;
mod part;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{ArrowDictionaryKeyType, DataType, Field, Int64Type, Schema, SchemaRef, UInt16Type};
use arrow::error::ArrowError;
use toolgauge_analytics::sli::Counts;
use toolgauge_analytics::window::Minute;
use toolgauge_proto::id::WalPosition;
use toolgauge_proto::table::Table;

use super::definition::{Judged, Mode, Sli};
use super::group::GroupKey;
use crate::engine::{Condition, Conjunct, Error};
use part::{Batch, Part};

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
    /// Expressions of which all have to be true, by their places.
    total: Vec<usize>,
    judged: Judged,
    judge: Vec<usize>,
    /// The columns that it is grouped by: a place in `group_columns`.
    group: Option<usize>,
}

/// A column that some SLO fixes, with the values that are asked for; value n has the code n + 1, all others 0.
#[derive(Debug)]
struct FixedColumn {
    index: usize,
    codes: HashMap<String, u32>,
}

/// What is evaluated on rows, for all SLOs that say it.
#[derive(Debug)]
struct Expression {
    conjunct: Conjunct,
    /// What it reads: a place in `inputs`.
    input: usize,
}

/// Columns that some expressions read.
#[derive(Debug)]
struct Input {
    /// Places in `read`.
    columns: Vec<usize>,
    schema: SchemaRef,
}

/// SLOs that look at the same rows.
#[derive(Debug, Default)]
struct Alike {
    /// Their places.
    slos: Vec<usize>,
    /// What they read: places in `inputs`.
    inputs: BTreeSet<usize>,
    /// How many of them say an expression.
    said: BTreeMap<usize, usize>,
}

/// SLOs that fix the same columns.
#[derive(Debug)]
struct ColumnSet {
    /// Indices into the fixed columns.
    columns: Vec<usize>,
    /// By the codes of the columns' values, the SLOs that fix them so: a place in `alike`.
    combinations: HashMap<Vec<u32>, usize>,
    alike: Vec<Alike>,
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
    expressions: Vec<Expression>,
    inputs: Vec<Input>,
    /// Of the columns of `calls` that expressions read, where they stand there.
    read: Vec<usize>,
    /// The sets of columns that SLOs are grouped by, as they stand there.
    group_columns: Vec<Vec<usize>>,
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
        let mut counter = Self {
            slos: Vec::new(),
            fixed: Vec::new(),
            sets: Vec::new(),
            expressions: Vec::new(),
            inputs: Vec::new(),
            read: Vec::new(),
            group_columns: Vec::new(),
        };
        let mut known = HashMap::new();
        for (place, (sli, columns)) in slos.into_iter().enumerate() {
            let group = counter.group_of(columns);
            let fixed = sli.fixed();
            let mut expressions = |condition: &Condition, counter: &mut Self| -> Result<Vec<usize>, Error> {
                let is_fixed = |conjunct: &&Conjunct| {
                    let said = conjunct.fixed().map(|(column, text)| (Table::Calls.index_of(column), text));
                    said.is_some_and(|said| fixed.contains(&said))
                };
                let left = condition.conjuncts().iter().filter(|conjunct| !is_fixed(conjunct));
                left.map(|conjunct| counter.expression(conjunct, &mut known)).collect()
            };
            let (total, judge) = (expressions(&sli.total, &mut counter)?, expressions(&sli.judge, &mut counter)?);
            counter.slos.push(Counted {
                group,
                mode: sli.sli.mode,
                counted_only: sli.sli.layer.is_none(),
                total,
                judged: sli.sli.judged,
                judge,
            });
            counter.index(place, &fixed);
        }
        Ok(counter)
    }

    /// The place of an expression.
    fn expression(&mut self, conjunct: &Conjunct, known: &mut HashMap<Conjunct, usize>) -> Result<usize, Error> {
        if let Some(place) = known.get(conjunct) {
            return Ok(*place);
        }
        let input = self.input(conjunct.columns());
        let conjunct_here = conjunct.for_schema(&self.inputs[input].schema)?;
        self.expressions.push(Expression { conjunct: conjunct_here, input });
        known.insert(conjunct.clone(), self.expressions.len() - 1);
        Ok(self.expressions.len() - 1)
    }

    /// The place of what reads these columns.
    fn input(&mut self, columns: &[String]) -> usize {
        let of_calls: Vec<usize> = columns.iter().map(|column| Table::Calls.index_of(column)).collect();
        let columns: Vec<usize> = of_calls.iter().map(|index| place_of(&mut self.read, *index)).collect();
        self.inputs.iter().position(|known| known.columns == columns).unwrap_or_else(|| {
            let fields = of_calls.iter().map(|index| Table::Calls.schema().field(*index).clone());
            let schema = Arc::new(Schema::new(fields.collect::<Vec<Field>>()));
            self.inputs.push(Input { columns, schema });
            self.inputs.len() - 1
        })
    }

    /// The place of a set of columns.
    fn group_of(&mut self, columns: &[&'static str]) -> Option<usize> {
        if columns.is_empty() {
            return None;
        }
        let columns = columns.iter().map(|column| Table::Calls.index_of(column)).collect();
        Some(place_of(&mut self.group_columns, columns))
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
            self.sets.push(ColumnSet { columns, combinations: HashMap::new(), alike: Vec::new() });
            self.sets.len() - 1
        });
        let set = &mut self.sets[set];
        let alike = *set.combinations.entry(codes).or_insert(set.alike.len());
        if alike == set.alike.len() {
            set.alike.push(Alike::default());
        }
        let alike = &mut set.alike[alike];
        alike.slos.push(place);
        let slo = &self.slos[place];
        for expression in slo.total.iter().chain(&slo.judge) {
            alike.inputs.insert(self.expressions[*expression].input);
            *alike.said.entry(*expression).or_default() += 1;
        }
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
        let batch = Batch::new(self, batch, rows)?;
        for set in &self.sets {
            for (alike, rows) in set.sorted(&codes, batch.rows()) {
                let alike = &set.alike[alike];
                let part = Part::new(&batch, rows, alike)?;
                for slo in &alike.slos {
                    part.count(*slo, tally);
                }
            }
        }
        Ok(())
    }
}

/// The place of an item, which gets one if it has none.
fn place_of<T: PartialEq>(items: &mut Vec<T>, item: T) -> usize {
    items.iter().position(|known| *known == item).unwrap_or_else(|| {
        items.push(item);
        items.len() - 1
    })
}

/// A column of `calls` in a batch that need not have all of them.
fn column_of(batch: &RecordBatch, index: usize) -> Result<&ArrayRef, ArrowError> {
    let name = Table::Calls.columns()[index].name;
    batch.column_by_name(name).ok_or_else(|| ArrowError::SchemaError(format!("the batch has no column {name}")))
}

/// Rows of a batch.
#[derive(Debug, Clone)]
enum Rows {
    /// All of so many, in order.
    All(usize),
    Some(Vec<u32>),
}

impl Rows {
    /// Looks at each, in order.
    fn each(&self, of: impl FnMut(usize)) {
        match self {
            Self::All(rows) => (0..*rows).for_each(of),
            Self::Some(rows) => rows.iter().map(|row| *row as usize).for_each(of),
        }
    }
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
    /// The rows that some SLO of the set looks at, by the SLOs, in the order in which they came.
    fn sorted(&self, codes: &[Vec<u32>], rows: &Rows) -> Vec<(usize, Rows)> {
        if self.columns.is_empty() {
            return vec![(0, rows.clone())];
        }
        let mut sorted: Vec<Vec<u32>> = vec![Vec::new(); self.alike.len()];
        let mut key = vec![0; self.columns.len()];
        let mut last: Option<(Vec<u32>, Option<usize>)> = None;
        let mut place = |row: usize| {
            for (code, column) in key.iter_mut().zip(&self.columns) {
                *code = codes[*column][row];
            }
            if key.contains(&0) {
                return;
            }
            // Rows of one export follow one another.
            let alike = match &last {
                Some((known, alike)) if *known == key => *alike,
                _ => {
                    let alike = self.combinations.get(&key).copied();
                    last = Some((key.clone(), alike));
                    alike
                }
            };
            if let Some(alike) = alike {
                sorted[alike].push(row as u32);
            }
        };
        rows.each(&mut place);
        sorted
            .into_iter()
            .enumerate()
            .filter(|(_, rows)| !rows.is_empty())
            .map(|(alike, rows)| (alike, Rows::Some(rows)))
            .collect()
    }
}
