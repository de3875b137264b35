//! Rows of additive tables: several rows with one key become one.
//!
//! # Guarantees
//! * Whatever rows are added, in whatever order and parts, the sum over each key stays what it was. What a column's sum is,
//!   [`Table::merge`] says.
//! * A sum that its column cannot hold stays in several rows of the same key.
//! * Rows come out in the order of time and key.
//!
//! # How it works
//! Keys are compared as bytes, in Arrow's row format. A key takes some hundred bytes, and 8 to 32 for each latency
//! bucket that was hit. The caller bounds it: it takes the rows out when [`Additive::len`] or [`Additive::heap_bytes`] is too much.

use std::hash::BuildHasher as _;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryBuilder, Date32Array, Decimal128Array, Int64Array, RecordBatch,
    TimestampMicrosecondArray,
};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Decimal128Type, Int64Type, TimestampMicrosecondType};
use arrow::error::ArrowError;
use arrow::row::{RowConverter, Rows, SortField};
use foldhash::fast::FixedState;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use toolgauge_proto::table::{Column, ColumnType, Merge, Table};
use toolgauge_proto::time::{HOUR_MICROS, UnixMicros};

use crate::hist::Recorder;

/// Rows of a batch that is given: no dictionary of words is too small for it.
const BATCH_ROWS: usize = 1 << 15;
/// Where the column stands by which a row belongs to a date.
const TIME: usize = 1;

/// Rows of one additive table, those with one key summed.
#[derive(Debug)]
pub struct Additive {
    table: Table,
    converter: RowConverter,
    /// The newest row of each key, by the key's hash.
    index: HashTable<u32>,
    /// One for each row.
    keys: Rows,
    /// In the order of the table's columns, but those of the key.
    values: Vec<(&'static Column, Values)>,
}

/// A column that is no part of the key.
#[derive(Debug)]
enum Values {
    /// Of integers or decimals; null where nothing was known.
    Sums {
        sums: Vec<Option<i128>>,
        max: i128,
    },
    /// Integers or times.
    Greatest(Vec<i64>),
    Latency(Vec<Recorder>),
}

/// A column of a batch, to be added.
enum Added {
    Sums(Vec<Option<i128>>),
    Greatest(Vec<i64>),
    Latency(arrow::array::BinaryArray),
}

fn is_key(table: Table, at: usize, column: &Column) -> bool {
    at > 0 && table.merge(column) == Merge::Key
}

impl Additive {
    /// No rows of this table.
    ///
    /// # Errors
    /// If the table is not additive, which is a fault of the program.
    pub fn new(table: Table) -> Result<Self, ArrowError> {
        if !table.is_additive() {
            return Err(ArrowError::InvalidArgumentError(format!("rows of \"{}\" have no sums", table.name())));
        }
        let columns = table.columns();
        let keys = columns.iter().enumerate().filter(|(at, column)| is_key(table, *at, column));
        let converter =
            RowConverter::new(keys.map(|(_, column)| SortField::new(column.column_type.arrow())).collect())?;
        let values = columns.iter().filter_map(|column| {
            let values = match table.merge(column) {
                Merge::Key => return None,
                Merge::Sum => Values::Sums { sums: Vec::new(), max: greatest_of(column.column_type) },
                Merge::Greatest => Values::Greatest(Vec::new()),
                Merge::Histogram => Values::Latency(Vec::new()),
            };
            Some((column, values))
        });
        let keys = converter.empty_rows(0, 0);
        Ok(Self { table, values: values.collect(), index: HashTable::new(), keys, converter })
    }

    /// Adds rows of the table, live or settled, with their date or without; `calls_1h` takes rows of `calls_1m` as well.
    ///
    /// # Errors
    /// If a column is missing, of another type, or null where it cannot be; what was added before stays.
    pub fn add(&mut self, rows: &RecordBatch) -> Result<(), ArrowError> {
        let table = self.table;
        let mut keys = Vec::new();
        for (at, column) in table.columns().iter().enumerate().filter(|(at, column)| is_key(table, *at, column)) {
            keys.push(if at == TIME { self.times(rows)? } else { in_type(rows, column)? });
        }
        let keys = self.converter.convert_columns(&keys)?;
        let mut added = Vec::with_capacity(self.values.len());
        for (column, values) in &self.values {
            added.push(values.of(&in_type(rows, column)?, column)?);
        }
        let hasher = FixedState::default();
        for row in 0..rows.num_rows() {
            let key = keys.row(row);
            let known = &self.keys;
            let entry = self.index.entry(
                hasher.hash_one(key.data()),
                |group| known.row(*group as usize).data() == key.data(),
                |group| hasher.hash_one(known.row(*group as usize).data()),
            );
            let group = match entry {
                Entry::Occupied(entry)
                    if self
                        .values
                        .iter()
                        .zip(&added)
                        .all(|((_, values), added)| values.have_room(*entry.get() as usize, added, row)) =>
                {
                    *entry.get() as usize
                }
                // A new key, or one whose sums are full: from now on the later row takes what comes.
                entry => {
                    let group = known.num_rows();
                    match entry {
                        Entry::Occupied(mut entry) => *entry.get_mut() = group as u32,
                        Entry::Vacant(entry) => {
                            entry.insert(group as u32);
                        }
                    }
                    self.keys.push(key);
                    self.values.iter_mut().for_each(|(_, values)| values.begin());
                    group
                }
            };
            for ((_, values), added) in self.values.iter_mut().zip(&added) {
                values.add(group, added, row)?;
            }
        }
        Ok(())
    }

    /// Of which table.
    #[must_use]
    pub const fn table(&self) -> Table {
        self.table
    }

    /// How many rows it has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.keys.num_rows()
    }

    /// Whether it has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What it holds in memory. It looks at every row.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        let values = self.values.iter().map(|(_, values)| match values {
            Values::Sums { sums, .. } => sums.capacity() * size_of::<Option<i128>>(),
            Values::Greatest(greatest) => greatest.capacity() * size_of::<i64>(),
            Values::Latency(recorders) => {
                let counted: usize = recorders.iter().map(Recorder::heap_bytes).sum();
                counted + recorders.capacity() * size_of::<Recorder>()
            }
        });
        values.sum::<usize>() + self.keys.size() + self.index.capacity() * 5
    }

    /// The rows, in [`Table::schema`], in the order of time and key; none if nothing was added.
    ///
    /// # Errors
    /// If they do not fit the table, which is a fault of the program.
    pub fn batches(&self) -> Result<Vec<RecordBatch>, ArrowError> {
        let mut order: Vec<usize> = (0..self.len()).collect();
        order.sort_by_key(|row| self.keys.row(*row));
        order.chunks(BATCH_ROWS).map(|rows| self.batch(rows)).collect()
    }

    /// As [`Additive::batches`], in [`Table::live_schema`].
    ///
    /// # Errors
    /// As [`Additive::batches`].
    pub fn live_batches(&self) -> Result<Vec<RecordBatch>, ArrowError> {
        let schema = self.table.live_schema();
        let live = |batch: RecordBatch| {
            let columns = batch.columns().iter().zip(schema.fields());
            let columns = columns.map(|(column, field)| cast(column, field.data_type())).collect::<Result<_, _>>()?;
            RecordBatch::try_new(Arc::clone(&schema), columns)
        };
        self.batches()?.into_iter().map(live).collect()
    }

    fn batch(&self, rows: &[usize]) -> Result<RecordBatch, ArrowError> {
        let mut keys = self.converter.convert_rows(rows.iter().map(|row| self.keys.row(*row)))?.into_iter();
        let mut values = self.values.iter();
        let times = keys.as_slice().first().and_then(|times| times.as_primitive_opt::<TimestampMicrosecondType>());
        let dates = times.map(|times| times.values().iter().map(|time| UnixMicros(*time).date32()));
        let mut dates = dates.map(Date32Array::from_iter_values);
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(self.table.columns().len());
        for (at, column) in self.table.columns().iter().enumerate() {
            let missing = || ArrowError::SchemaError(format!("column {:?} has no values", column.name));
            columns.push(if at == 0 {
                Arc::new(dates.take().ok_or_else(missing)?)
            } else if is_key(self.table, at, column) {
                keys.next().ok_or_else(missing)?
            } else {
                let (column, values) = values.next().ok_or_else(missing)?;
                values.array(rows, column)?
            });
        }
        RecordBatch::try_new(self.table.schema(), columns)
    }

    /// Starts of the hours or minutes.
    fn times(&self, rows: &RecordBatch) -> Result<ArrayRef, ArrowError> {
        let column = &self.table.columns()[TIME];
        if self.table != Table::Calls1h {
            return in_type(rows, column);
        }
        let of_minutes = &Table::Calls1m.columns()[TIME];
        let times = in_type(rows, column).or_else(|_| in_type(rows, of_minutes))?;
        let times: TimestampMicrosecondArray =
            times.as_primitive::<TimestampMicrosecondType>().unary(|time| time - time.rem_euclid(HOUR_MICROS));
        Ok(Arc::new(times.with_timezone("UTC")))
    }
}

impl Values {
    fn begin(&mut self) {
        match self {
            Self::Sums { sums, .. } => sums.push(None),
            Self::Greatest(greatest) => greatest.push(i64::MIN),
            Self::Latency(recorders) => recorders.push(Recorder::default()),
        }
    }

    /// What of a batch's column is to be added.
    fn of(&self, column: &ArrayRef, of: &Column) -> Result<Added, ArrowError> {
        if !of.nullable && column.null_count() > 0 {
            return Err(ArrowError::SchemaError(format!("column {:?} has nulls", of.name)));
        }
        Ok(match (self, of.column_type) {
            (Self::Sums { .. }, ColumnType::Decimal(_)) => {
                Added::Sums(column.as_primitive::<Decimal128Type>().iter().collect())
            }
            (Self::Sums { .. }, _) => {
                Added::Sums(column.as_primitive::<Int64Type>().iter().map(|value| value.map(i128::from)).collect())
            }
            (Self::Greatest(_), ColumnType::Timestamp) => {
                Added::Greatest(column.as_primitive::<TimestampMicrosecondType>().values().to_vec())
            }
            (Self::Greatest(_), _) => Added::Greatest(column.as_primitive::<Int64Type>().values().to_vec()),
            (Self::Latency(_), _) => Added::Latency(column.as_binary::<i32>().clone()),
        })
    }

    fn have_room(&self, group: usize, added: &Added, row: usize) -> bool {
        match (self, added) {
            (Self::Sums { sums, max }, Added::Sums(added)) => {
                let sum = sums[group].unwrap_or(0) + added[row].unwrap_or(0);
                (-max..=*max).contains(&sum)
            }
            _ => true,
        }
    }

    fn add(&mut self, group: usize, added: &Added, row: usize) -> Result<(), ArrowError> {
        match (self, added) {
            (Self::Sums { sums, .. }, Added::Sums(added)) => {
                if let Some(value) = added[row] {
                    *sums[group].get_or_insert(0) += value;
                }
            }
            (Self::Greatest(greatest), Added::Greatest(added)) => greatest[group] = greatest[group].max(added[row]),
            // Nothing was counted.
            (Self::Latency(_), Added::Latency(payloads)) if payloads.is_null(row) => {}
            (Self::Latency(recorders), Added::Latency(payloads)) => {
                recorders[group]
                    .add_payload(payloads.value(row))
                    .map_err(|error| ArrowError::ParseError(error.to_string()))?
            }
            _ => return Err(ArrowError::SchemaError("a column is added to another one".into())),
        }
        Ok(())
    }

    fn array(&self, rows: &[usize], of: &Column) -> Result<ArrayRef, ArrowError> {
        Ok(match (self, of.column_type) {
            (Self::Sums { sums, .. }, ColumnType::Decimal(scale)) => {
                let sums: Decimal128Array = rows.iter().map(|row| sums[*row]).collect();
                Arc::new(sums.with_precision_and_scale(18, scale)?)
            }
            // No sum exceeds what its column can hold.
            (Self::Sums { sums, .. }, _) => {
                Arc::new(rows.iter().map(|row| sums[*row].map(|sum| sum as i64)).collect::<Int64Array>())
            }
            (Self::Greatest(greatest), ColumnType::Timestamp) => {
                let times = rows.iter().map(|row| greatest[*row]);
                Arc::new(TimestampMicrosecondArray::from_iter_values(times).with_timezone("UTC"))
            }
            (Self::Greatest(greatest), _) => {
                Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| greatest[*row])))
            }
            (Self::Latency(recorders), _) => {
                let (mut column, mut payload) = (BinaryBuilder::new(), Vec::new());
                for row in rows {
                    let histogram = recorders[*row].histogram();
                    if of.nullable && histogram.is_empty() {
                        column.append_null();
                        continue;
                    }
                    payload.clear();
                    histogram.payload(&mut payload);
                    column.append_value(&payload);
                }
                Arc::new(column.finish())
            }
        })
    }
}

/// The largest number that a column holds.
const fn greatest_of(column_type: ColumnType) -> i128 {
    match column_type {
        ColumnType::Decimal(_) => 10_i128.pow(18) - 1,
        _ => i64::MAX as i128,
    }
}

/// A column of a batch as the table has it, words as text.
fn in_type(rows: &RecordBatch, column: &Column) -> Result<ArrayRef, ArrowError> {
    let (name, wanted) = (column.name, column.column_type.arrow());
    let found =
        rows.column_by_name(name).ok_or_else(|| ArrowError::SchemaError(format!("rows have no column {name:?}")))?;
    match found.data_type() {
        same if *same == wanted => Ok(Arc::clone(found)),
        DataType::Dictionary(..) if wanted == DataType::Utf8 => cast(found, &wanted),
        other => Err(ArrowError::SchemaError(format!("column {name:?} is {other}, not {wanted}"))),
    }
}

#[cfg(test)]
mod tests;
