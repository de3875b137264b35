//! What the log says of a data file: how many rows, and between which ends their values lie.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Int64Array, MapBuilder, RecordBatch, StringArray, StringBuilder,
    StructArray, TimestampMicrosecondArray,
};
use arrow::compute;
use arrow::datatypes::{ArrowPrimitiveType, Field, Int64Type, TimestampMicrosecondType, UInt16Type};
use arrow::error::ArrowError;
use toolgauge_proto::table::{ColumnType, Table};

use super::names::date_text;

/// Longest text whose minimum and maximum go into the statistics, in bytes; of longer ones a cut value would not be
/// exact, and exact statistics answer `min` and `max`.
const STATISTICS_TEXT_BYTES: usize = 64;

/// Columns whose minimum and maximum readers prune files by.
pub(super) const fn statistics_columns(table: Table) -> &'static [&'static str] {
    match table {
        Table::Calls => &["start_time", "end_time", "kind", "service_name", "tool_name", "outcome", "wal_position"],
        Table::Arrivals => &["minute"],
        Table::Quarantine => &["received", "wal_position"],
        Table::Calls1m => &["minute", "kind", "service_name", "tool_name", "outcome"],
        Table::Calls1h => &[
            "hour",
            "kind",
            "service_name",
            "environment",
            "tool_server",
            "tool_name",
            "agent_name",
            "model",
            "outcome",
        ],
        Table::Slo1m => &["minute", "service", "slo", "slo_revision"],
        Table::Alerts => &["time", "source", "alertname", "service", "slo"],
    }
}

/// A file that is durable and that no commit names yet.
#[derive(Debug)]
pub(super) struct DataFile {
    /// Within the table.
    pub(super) path: String,
    /// Its partition, in days since 1970.
    pub(super) date32: i32,
    /// In bytes.
    pub(super) size: i64,
    /// What the log will say of it.
    pub(super) statistics: Statistics,
}

impl DataFile {
    pub(super) fn new(path: String, date32: i32, size: i64, statistics: Statistics) -> Self {
        Self { path, date32, size, statistics: statistics.logged() }
    }
}

/// Exact minimum and maximum of a column; `None` without a value.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Bounds {
    Micros(Option<(i64, i64)>),
    Long(Option<(i64, i64)>),
    Text(Option<(String, String)>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct ColumnStatistics {
    name: &'static str,
    /// `None` if the log does not say.
    nulls: Option<i64>,
    bounds: Bounds,
}

/// Of the rows that were added.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Statistics {
    pub(super) rows: i64,
    /// Those of [`statistics_columns`], in their order.
    columns: Vec<ColumnStatistics>,
}

impl Statistics {
    pub(super) fn new(table: Table) -> Self {
        let columns = statistics_columns(table).iter().map(|name| {
            let bounds = match table.columns()[table.index_of(name)].column_type {
                ColumnType::Timestamp => Bounds::Micros(None),
                ColumnType::Int64 => Bounds::Long(None),
                _ => Bounds::Text(None),
            };
            ColumnStatistics { name, nulls: Some(0), bounds }
        });
        Self { rows: 0, columns: columns.collect() }
    }

    pub(super) fn of(table: Table, batches: &[RecordBatch]) -> Self {
        let mut statistics = Self::new(table);
        batches.iter().for_each(|batch| statistics.add(batch));
        statistics
    }

    /// Adds rows, in the table's live or settled schema, with the date or without.
    pub(super) fn add(&mut self, batch: &RecordBatch) {
        self.rows += batch.num_rows() as i64;
        for column in &mut self.columns {
            let array = &batch[column.name];
            column.nulls = column.nulls.map(|nulls| nulls + array.null_count() as i64);
            match &mut column.bounds {
                Bounds::Micros(bounds) => {
                    let array = array.as_primitive::<TimestampMicrosecondType>();
                    widen(bounds, compute::min(array), compute::max(array));
                }
                Bounds::Long(bounds) => {
                    let array = array.as_primitive::<Int64Type>();
                    widen(bounds, compute::min(array), compute::max(array));
                }
                Bounds::Text(bounds) => {
                    if let Some((lo, hi)) = word_ends(array) {
                        widen(bounds, Some(lo.to_owned()), Some(hi.to_owned()));
                    }
                }
            }
        }
    }

    /// What the log will say of these.
    fn logged(mut self) -> Self {
        for column in &mut self.columns {
            match &mut column.bounds {
                // The log holds milliseconds: the lower end is rounded down and the upper one up, or files would be
                // skipped that hold the rows asked for.
                Bounds::Micros(bounds) => {
                    *bounds = bounds.map(|(lo, hi)| (lo - lo.rem_euclid(1_000), hi + (-hi).rem_euclid(1_000)));
                }
                Bounds::Long(_) => {}
                Bounds::Text(bounds) => {
                    bounds.take_if(|(lo, hi)| lo.len().max(hi.len()) > STATISTICS_TEXT_BYTES);
                }
            }
        }
        self
    }

    /// What the log says, in the kernel's shape, of the file in this row; `None` if it does not say how many rows there are.
    pub(super) fn from_log(table: Table, logged: &StructArray, row: usize) -> Option<Self> {
        let part = |name| logged.column_by_name(name).and_then(|part| part.as_struct_opt());
        let (nulls, minimum, maximum) = (part("nullCount"), part("minValues"), part("maxValues"));
        let number = |array: &ArrayRef| value::<Int64Type>(array, row);
        let mut statistics = Self::new(table);
        statistics.rows = logged.column_by_name("numRecords").and_then(number)?;
        for column in &mut statistics.columns {
            let of = |part: Option<&StructArray>| part.and_then(|part| part.column_by_name(column.name)).cloned();
            column.nulls = of(nulls).as_ref().and_then(number);
            let (Some(minimum), Some(maximum)) = (of(minimum), of(maximum)) else { continue };
            match &mut column.bounds {
                Bounds::Micros(bounds) => {
                    let micros = |array: &ArrayRef| value::<TimestampMicrosecondType>(array, row);
                    *bounds = micros(&minimum).zip(micros(&maximum));
                }
                Bounds::Long(bounds) => *bounds = number(&minimum).zip(number(&maximum)),
                Bounds::Text(bounds) => {
                    let text = |array: &ArrayRef| {
                        let array = array.as_string_opt::<i32>()?;
                        array.is_valid(row).then(|| array.value(row).to_owned())
                    };
                    *bounds = text(&minimum).zip(text(&maximum));
                }
            }
        }
        Some(statistics)
    }
}

fn value<T: ArrowPrimitiveType>(array: &ArrayRef, row: usize) -> Option<T::Native> {
    let array = array.as_primitive_opt::<T>()?;
    array.is_valid(row).then(|| array.value(row))
}

/// An end of the bounds of a column, for each of these files.
pub(super) fn ends<'a>(
    table: Table,
    column: usize,
    files: impl Iterator<Item = Option<&'a Statistics>>,
    maximum: bool,
) -> ArrayRef {
    let pick = |(lo, hi): &(i64, i64)| if maximum { *hi } else { *lo };
    let bounds = files.map(|file| file.map(|file| &file.columns[column].bounds));
    let numbers = |bounds: Option<&Bounds>| match bounds {
        Some(Bounds::Micros(bounds) | Bounds::Long(bounds)) => bounds.as_ref().map(pick),
        _ => None,
    };
    match table.columns()[table.index_of(statistics_columns(table)[column])].column_type {
        ColumnType::Timestamp => {
            Arc::new(bounds.map(numbers).collect::<TimestampMicrosecondArray>().with_timezone("UTC"))
        }
        ColumnType::Int64 => Arc::new(bounds.map(numbers).collect::<Int64Array>()),
        _ => Arc::new(
            bounds
                .map(|bounds| match bounds {
                    Some(Bounds::Text(Some((lo, hi)))) => Some(if maximum { hi } else { lo }),
                    _ => None,
                })
                .collect::<StringArray>(),
        ),
    }
}

/// How many nulls a column has, for each of these files.
pub(super) fn nulls<'a>(column: usize, files: impl Iterator<Item = Option<&'a Statistics>>) -> Int64Array {
    files.map(|file| file.and_then(|file| file.columns[column].nulls)).collect()
}

fn widen<T: Ord>(bounds: &mut Option<(T, T)>, lo: Option<T>, hi: Option<T>) {
    let (Some(lo), Some(hi)) = (lo, hi) else { return };
    *bounds = Some(match bounds.take() {
        Some((least, greatest)) => (least.min(lo), greatest.max(hi)),
        None => (lo, hi),
    });
}

/// Of the words that rows really use (a dictionary may hold others).
fn word_ends(array: &ArrayRef) -> Option<(&str, &str)> {
    let mut ends: Option<(&str, &str)> = None;
    let mut add = |word| ends = Some(ends.map_or((word, word), |(lo, hi): (&str, &str)| (lo.min(word), hi.max(word))));
    if let Some(array) = array.as_dictionary_opt::<UInt16Type>() {
        let words = array.values().as_string::<i32>();
        let mut used = vec![false; words.len()];
        for key in array.keys().iter().flatten() {
            used[usize::from(key)] = true;
        }
        words.iter().zip(used).filter_map(|(word, used)| word.filter(|_| used)).for_each(&mut add);
    } else {
        array.as_string_opt::<i32>()?.iter().flatten().for_each(&mut add);
    }
    ends
}

/// The `add` actions of a commit, in the kernel's shape.
pub(super) fn add_actions(table: Table, files: &[DataFile], modified_ms: i64) -> Result<RecordBatch, ArrowError> {
    let logged = || files.iter().map(|file| Some(&file.statistics));
    let statistics_of = |pick: &dyn Fn(usize) -> ArrayRef| -> StructArray {
        let fields = statistics_columns(table).iter().enumerate().map(|(at, name)| {
            let array = pick(at);
            (Arc::new(Field::new(*name, array.data_type().clone(), true)), array)
        });
        StructArray::from(fields.collect::<Vec<_>>())
    };
    let minimum = statistics_of(&|column| ends(table, column, logged(), false));
    let maximum = statistics_of(&|column| ends(table, column, logged(), true));
    let nulls = statistics_of(&|column| Arc::new(nulls(column, logged())));
    let column = |name: &str, array: ArrayRef| (Arc::new(Field::new(name, array.data_type().clone(), true)), array);
    let statistics = StructArray::from(vec![
        column("numRecords", Arc::new(Int64Array::from_iter_values(files.iter().map(|file| file.statistics.rows)))),
        column("nullCount", Arc::new(nulls)),
        column("minValues", Arc::new(minimum)),
        column("maxValues", Arc::new(maximum)),
        column("tightBounds", Arc::new(BooleanArray::from(vec![true; files.len()]))),
    ]);
    let mut partitions = MapBuilder::new(None, StringBuilder::new(), StringBuilder::new());
    for file in files {
        partitions.keys().append_value("date");
        partitions.values().append_value(date_text(file.date32));
        partitions.append(true)?;
    }
    let texts =
        |text: fn(&DataFile) -> &str| -> ArrayRef { Arc::new(StringArray::from_iter_values(files.iter().map(text))) };
    RecordBatch::try_from_iter_with_nullable(vec![
        ("path", texts(|file| &file.path), false),
        ("partitionValues", Arc::new(partitions.finish()) as ArrayRef, false),
        ("size", Arc::new(Int64Array::from_iter_values(files.iter().map(|file| file.size))), false),
        ("modificationTime", Arc::new(Int64Array::from(vec![modified_ms; files.len()])), false),
        ("stats", Arc::new(statistics), true),
    ])
}
