//! Rows of all tables in a form that can be compared.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::{SortColumn, cast, concat_batches, lexsort_to_indices, take_record_batch};
use arrow::datatypes::{Int64Type, TimestampMicrosecondType};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use toolgauge_proto::table::Table;

/// Minute, tenant, service.
pub(crate) type ArrivalKey = (i64, Option<String>, Option<String>);

/// The rows of all tables, whatever files and blocks they came from.
#[derive(Debug, PartialEq)]
pub(crate) struct Rows {
    pub(crate) calls: RecordBatch,
    pub(crate) arrivals: BTreeMap<ArrivalKey, Vec<i64>>,
    pub(crate) quarantine: RecordBatch,
}

/// As one batch of the table's schema, ordered by these columns.
fn sorted(table: Table, batches: &[RecordBatch], by: &[&str]) -> RecordBatch {
    let all = in_schema(table, batches);
    let columns: Vec<SortColumn> = by
        .iter()
        .map(|name| SortColumn { values: Arc::clone(all.column(table.index_of(name))), options: None })
        .collect();
    take_record_batch(&all, &lexsort_to_indices(&columns, None).unwrap()).unwrap()
}

/// As one batch of the table's schema.
pub(crate) fn in_schema(table: Table, batches: &[RecordBatch]) -> RecordBatch {
    let schema = table.schema();
    let plain: Vec<RecordBatch> = batches
        .iter()
        .map(|batch| {
            let column = |field: &Arc<arrow::datatypes::Field>| {
                cast(batch.column_by_name(field.name()).unwrap(), field.data_type()).unwrap()
            };
            RecordBatch::try_new(Arc::clone(&schema), schema.fields().iter().map(column).collect()).unwrap()
        })
        .collect();
    concat_batches(&schema, &plain).unwrap()
}

/// The sums of each key.
fn sums(batches: &[RecordBatch]) -> BTreeMap<ArrivalKey, Vec<i64>> {
    let all = in_schema(Table::Arrivals, batches);
    let column = |name: &str| all.column(Table::Arrivals.index_of(name));
    let (minutes, tenants) =
        (column("minute").as_primitive::<TimestampMicrosecondType>(), column("tenant").as_string::<i32>());
    let services = column("service_name").as_string::<i32>();
    let values: Vec<_> = Table::Arrivals.columns()[4..]
        .iter()
        .map(|c| (c.name == "max_lag_ms", column(c.name).as_primitive::<Int64Type>()))
        .collect();
    let text = |array: &arrow::array::StringArray, row| array.is_valid(row).then(|| array.value(row).to_owned());
    let mut sums = BTreeMap::new();
    for row in 0..all.num_rows() {
        let key = (minutes.value(row), text(tenants, row), text(services, row));
        let sum = sums.entry(key).or_insert_with(|| vec![0; values.len()]);
        for (sum, (is_max, value)) in sum.iter_mut().zip(&values) {
            *sum = if *is_max { (*sum).max(value.value(row)) } else { *sum + value.value(row) };
        }
    }
    sums
}

impl Rows {
    /// Of batches of the tables that are written from the log.
    pub(crate) fn of([calls, arrivals, quarantine]: [&[RecordBatch]; 3]) -> Self {
        Self {
            calls: sorted(Table::Calls, calls, &["row_id", "wal_position"]),
            arrivals: sums(arrivals),
            quarantine: sorted(Table::Quarantine, quarantine, &["wal_position", "span_id", "detail"]),
        }
    }

    /// What is different, in words; `None` if nothing is.
    pub(crate) fn difference(&self, expected: &Self, but: &[&str]) -> Option<String> {
        let calls = differing_cells(Table::Calls, &self.calls, &expected.calls, but);
        let quarantine = differing_cells(Table::Quarantine, &self.quarantine, &expected.quarantine, but);
        let keys: BTreeSet<_> = self.arrivals.keys().chain(expected.arrivals.keys()).collect();
        let mut text = format!("{calls}{quarantine}");
        for key in keys {
            let (found, wanted) = (self.arrivals.get(key), expected.arrivals.get(key));
            if found != wanted {
                writeln!(text, "arrivals {key:?}: found {found:?}, expected {wanted:?}").unwrap();
            }
        }
        (!text.is_empty()).then_some(text)
    }
}

fn differing_cells(table: Table, found: &RecordBatch, expected: &RecordBatch, but: &[&str]) -> String {
    let mut text = String::new();
    if found.num_rows() != expected.num_rows() {
        writeln!(text, "{}: found {} rows, expected {}", table.name(), found.num_rows(), expected.num_rows()).unwrap();
    }
    for (found, (expected, column)) in found.columns().iter().zip(expected.columns().iter().zip(table.columns())) {
        if but.contains(&column.name) || found == expected {
            continue;
        }
        let options = FormatOptions::default().with_null("null");
        let (f, e) =
            (ArrayFormatter::try_new(found, &options).unwrap(), ArrayFormatter::try_new(expected, &options).unwrap());
        for row in 0..found.len().min(expected.len()) {
            let (f, e) = (f.value(row).to_string(), e.value(row).to_string());
            if f != e {
                writeln!(text, "{} row {row} {}: found {f}, expected {e}", table.name(), column.name).unwrap();
            }
        }
    }
    text
}
