//! The tables that are made of `calls`: their sums are to be those of a recount, however often they were folded, lost
//! and folded again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Date32Array, Int64Array, RecordBatch, StringArray};
use arrow::array::{TimestampMicrosecondArray, new_null_array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Decimal128Type, Int32Type, Int64Type, TimestampMicrosecondType};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use toolgauge_analytics::hist::{Histogram, bucket_end, micros_of};
use toolgauge_collector::lake::{Commit, LakeError, LakeTables};
use toolgauge_proto::lake::Txn;
use toolgauge_proto::table::{Column, ColumnType, Merge, Table};
use toolgauge_proto::time::{MINUTE_MICROS, UnixMicros};

use crate::machine::settings;
use crate::rows::in_schema;

/// Columns of the key of `calls_1m` and `calls_1h` that have the same name in `calls`.
const KEY: [&str; 12] = [
    "kind",
    "counted",
    "tenant",
    "service_name",
    "environment",
    "tool_server",
    "tool_name",
    "agent_name",
    "model",
    "outcome",
    "error_class",
    "final",
];
const TOKENS_AND_BYTES: [&str; 4] = ["input_tokens", "output_tokens", "input_bytes", "output_bytes"];

/// Sums of one key.
#[derive(Debug, Default, PartialEq, Eq)]
struct Sums {
    calls: i64,
    retries: i64,
    last_end_time: i64,
    weighted_calls: i128,
    duration_ns: i64,
    /// Calls by the upper end of their histogram's bucket, in microseconds.
    latency: BTreeMap<u64, u64>,
    cost: Option<i128>,
    priced: i64,
    tokens_and_bytes: [i64; 4],
    attempts: i64,
    lost_ns: i64,
    /// Pauses before retries, as `latency`.
    delays: BTreeMap<u64, u64>,
    weighted_retries: i128,
    weight_squares: i128,
}

type Rollup = BTreeMap<(i64, Vec<String>), Sums>;

fn column<'a>(rows: &'a RecordBatch, name: &str) -> &'a ArrayRef {
    rows.column_by_name(name).unwrap()
}

/// The start of the minute or hour.
fn start(table: Table, time: i64) -> i64 {
    if table == Table::Calls1h { UnixMicros(time).hour().0 } else { UnixMicros(time).minute().0 }
}

fn keys(table: Table, rows: &RecordBatch, times: &str) -> Vec<(i64, Vec<String>)> {
    let options = FormatOptions::default().with_null("(null)");
    let words: Vec<_> = KEY.iter().map(|name| ArrayFormatter::try_new(column(rows, name), &options).unwrap()).collect();
    let times = column(rows, times).as_primitive::<TimestampMicrosecondType>();
    (0..rows.num_rows())
        .map(|row| {
            let start = start(table, times.value(row));
            (start, words.iter().map(|word| word.value(row).to_string()).collect())
        })
        .collect()
}

fn long(rows: &RecordBatch, name: &str, row: usize) -> i64 {
    let column = column(rows, name).as_primitive::<Int64Type>();
    if column.is_valid(row) { column.value(row) } else { 0 }
}

fn decimal(rows: &RecordBatch, name: &str, row: usize) -> Option<i128> {
    let column = column(rows, name).as_primitive::<Decimal128Type>();
    column.is_valid(row).then(|| column.value(row))
}

/// Of each date the series that came first in the log keep their names, those of one export in the order of the names; of the others
/// the names that are there are `__other__`.
fn with_names(rows: &RecordBatch, mut keys: Vec<(i64, Vec<String>)>) -> Vec<(i64, Vec<String>)> {
    // Tenant to model, of which all but the tenant are folded.
    const SERIES: std::ops::Range<usize> = 2..9;
    let is_there = |name: &String| name != "(null)";
    let date = |time: i64| UnixMicros(time).date32();
    let mut first: BTreeMap<(i32, Vec<String>), i64> = BTreeMap::new();
    for (row, (time, key)) in keys.iter().enumerate().filter(|(_, (_, key))| key[SERIES].iter().skip(1).any(is_there)) {
        let at = first.entry((date(*time), key[SERIES].to_vec())).or_insert(i64::MAX);
        *at = (*at).min(long(rows, "wal_position", row));
    }
    let mut order: Vec<(i32, i64, Vec<String>)> =
        first.into_iter().map(|((date, names), first)| (date, first, names)).collect();
    order.sort_unstable();
    let named: BTreeSet<(i32, Vec<String>)> = order
        .chunk_by(|a, b| a.0 == b.0)
        .flat_map(|of_date| of_date.iter().take(settings().fold.series_max))
        .map(|(date, _, names)| (*date, names.clone()))
        .collect();
    for (time, key) in &mut keys {
        if !named.contains(&(date(*time), key[SERIES].to_vec())) {
            let names = key[SERIES].iter_mut().skip(1).filter(|name| is_there(name));
            names.for_each(|name| *name = "__other__".to_owned());
        }
    }
    keys
}

/// What `calls_1m` or `calls_1h` is to say of these rows of `calls`.
fn recount(table: Table, calls: &[RecordBatch]) -> Rollup {
    let rows = in_schema(Table::Calls, calls);
    let attempts = column(&rows, "attempt").as_primitive::<Int32Type>();
    let ends = column(&rows, "end_time").as_primitive::<TimestampMicrosecondType>();
    let mut rollup = Rollup::new();
    for (row, key) in with_names(&rows, keys(table, &rows, "end_time")).into_iter().enumerate() {
        let sums = rollup.entry(key).or_default();
        let duration_ns = long(&rows, "duration_ns", row);
        sums.calls += 1;
        sums.retries += i64::from(attempts.value(row) > 1);
        sums.last_end_time = sums.last_end_time.max(ends.value(row));
        sums.weighted_calls += decimal(&rows, "weight", row).unwrap();
        sums.duration_ns += duration_ns;
        *sums.latency.entry(bucket_end(micros_of(duration_ns))).or_default() += 1;
        if let Some(cost) = decimal(&rows, "cost_usd", row) {
            *sums.cost.get_or_insert(0) += cost;
            sums.priced += 1;
        }
        for (sum, name) in sums.tokens_and_bytes.iter_mut().zip(TOKENS_AND_BYTES) {
            *sum += long(&rows, name, row);
        }
        let weight = decimal(&rows, "weight", row).unwrap();
        sums.attempts += i64::from(attempts.value(row));
        sums.lost_ns += long(&rows, "retry_lost_ns", row);
        if column(&rows, "retry_delay_ns").is_valid(row) {
            *sums.delays.entry(bucket_end(micros_of(long(&rows, "retry_delay_ns", row)))).or_default() += 1;
        }
        sums.weighted_retries += if attempts.value(row) > 1 { weight } else { 0 };
        // The weights of the workload are whole.
        sums.weight_squares += weight * weight / 1_000_000;
    }
    rollup
}

/// What rows of `calls_1m` or `calls_1h` say.
fn said(table: Table, sums: &[RecordBatch]) -> Rollup {
    let rows = in_schema(table, sums);
    let time = table.columns()[1].name;
    let times = column(&rows, time).as_primitive::<TimestampMicrosecondType>();
    assert!(times.values().iter().all(|time| start(table, *time) == *time));
    let dates = column(&rows, "date").as_primitive::<arrow::datatypes::Date32Type>();
    let ends = column(&rows, "last_end_time").as_primitive::<TimestampMicrosecondType>();
    let latency = column(&rows, "latency").as_binary::<i32>();
    let mut rollup = Rollup::new();
    for (row, key) in keys(table, &rows, time).into_iter().enumerate() {
        assert_eq!(UnixMicros(key.0).date32(), dates.value(row));
        let sums = rollup.entry(key).or_default();
        sums.calls += long(&rows, "calls", row);
        sums.retries += long(&rows, "retries", row);
        sums.last_end_time = sums.last_end_time.max(ends.value(row));
        sums.weighted_calls += decimal(&rows, "weighted_calls", row).unwrap();
        sums.duration_ns += long(&rows, "duration_ns_sum", row);
        for (_, end, count) in Histogram::from_payload(latency.value(row)).unwrap().buckets() {
            *sums.latency.entry(end).or_default() += count;
        }
        if let Some(cost) = decimal(&rows, "cost_usd", row) {
            *sums.cost.get_or_insert(0) += cost;
        }
        sums.priced += long(&rows, "priced_calls", row);
        for (sum, name) in sums.tokens_and_bytes.iter_mut().zip(TOKENS_AND_BYTES) {
            *sum += long(&rows, name, row);
        }
        sums.attempts += long(&rows, "calls", row) + long(&rows, "further_attempts", row);
        sums.lost_ns += long(&rows, "retry_lost_ns_sum", row);
        let delays = column(&rows, "retry_delay").as_binary::<i32>();
        if delays.is_valid(row) {
            for (_, end, count) in Histogram::from_payload(delays.value(row)).unwrap().buckets() {
                *sums.delays.entry(end).or_default() += count;
            }
        }
        let [calls, retries] = ["calls", "retries"].map(|name| i128::from(long(&rows, name, row)) * 1_000_000);
        sums.weighted_retries += retries + decimal(&rows, "retries_further_weight", row).unwrap_or(0);
        sums.weight_squares += calls + decimal(&rows, "further_weight_squares", row).unwrap_or(0);
    }
    rollup
}

/// Fails if `calls_1m` or `calls_1h` does not say what these rows of `calls` are.
pub(crate) fn compare_sums(table: Table, sums: &[RecordBatch], calls: &[RecordBatch], when: &str) {
    let (found, expected) = (said(table, sums), recount(table, calls));
    for key in found.keys().chain(expected.keys()) {
        let name = table.name();
        assert_eq!(found.get(key), expected.get(key), "{when}: {name} {key:?}: found left, expected right");
    }
}

/// Rows of an additive table whose keys are there more than once.
pub(crate) fn repeated_keys(table: Table, rows: &[RecordBatch]) -> usize {
    let rows = in_schema(table, rows);
    let options = FormatOptions::default().with_null("(null)");
    let keys = table.columns().iter().zip(rows.columns());
    let keys = keys.filter(|(column, _)| table.merge(column) == Merge::Key);
    let keys: Vec<_> = keys.map(|(_, column)| ArrayFormatter::try_new(column, &options).unwrap()).collect();
    let mut seen = BTreeSet::new();
    let is_new = |row: &usize| seen.insert(keys.iter().map(|key| key.value(*row).to_string()).collect::<Vec<_>>());
    rows.num_rows() - (0..rows.num_rows()).filter(is_new).count()
}

/// Good and bad calls by minute.
type Slo = BTreeMap<i64, [i64; 2]>;

fn count_slo(calls: &[RecordBatch], positions: impl Fn(i64) -> bool) -> Slo {
    let rows = in_schema(Table::Calls, calls);
    let outcomes = column(&rows, "outcome").as_string::<i32>();
    let ends = column(&rows, "end_time").as_primitive::<TimestampMicrosecondType>();
    let mut slo = Slo::new();
    for row in (0..rows.num_rows()).filter(|row| positions(long(&rows, "wal_position", *row))) {
        let minute = UnixMicros(ends.value(row)).minute().0;
        slo.entry(minute).or_default()[usize::from(outcomes.value(row) == "error")] += 1;
    }
    slo
}

fn add(slo: &mut Slo, other: &Slo) {
    for (minute, [good, bad]) in other {
        let sums = slo.entry(*minute).or_default();
        sums[0] += good;
        sums[1] += bad;
    }
}

fn constant(column: &Column, rows: usize, number: i64, text: &str) -> ArrayRef {
    match column.column_type {
        _ if column.nullable => new_null_array(&column.column_type.arrow(), rows),
        ColumnType::Date => Arc::new(Date32Array::from(vec![UnixMicros(number).date32(); rows])),
        ColumnType::Timestamp => Arc::new(TimestampMicrosecondArray::from(vec![number; rows]).with_timezone("UTC")),
        ColumnType::Int64 => Arc::new(Int64Array::from(vec![number; rows])),
        ColumnType::Word | ColumnType::Text => Arc::new(StringArray::from(vec![text; rows])),
        _ => cast(&Int64Array::from(vec![0; rows]), &column.column_type.arrow()).unwrap(),
    }
}

/// Rows of a table that readers own, with these columns set and the others anyhow.
pub(crate) fn rows_of(table: Table, at_us: i64, columns: &[(&str, Vec<i64>)]) -> RecordBatch {
    let rows = columns[0].1.len();
    let arrays = table.columns().iter().map(|column| match columns.iter().find(|(name, _)| *name == column.name) {
        None => constant(column, rows, at_us, "x"),
        Some((_, values)) => match column.column_type {
            ColumnType::Date => {
                Arc::new(Date32Array::from_iter_values(values.iter().map(|at| UnixMicros(*at).date32())))
            }
            other => cast(&Int64Array::from(values.clone()), &other.arrow()).unwrap(),
        },
    });
    RecordBatch::try_new(table.schema(), arrays.collect()).unwrap()
}

/// The same rows with words as dictionaries.
pub(crate) fn live(table: Table, rows: &RecordBatch) -> RecordBatch {
    let schema = table.live_schema();
    let columns = rows.columns().iter().zip(schema.fields()).map(|(column, field)| match field.data_type() {
        DataType::Dictionary(..) => cast(column, field.data_type()).unwrap(),
        _ => Arc::clone(column),
    });
    RecordBatch::try_new(Arc::clone(&schema), columns.collect()).unwrap()
}

/// Stands for the readers: folds settled rows of `calls` into `slo_1m`, now and then, and notes each time in `alerts`.
#[derive(Debug)]
pub(crate) struct Reader {
    slo_id: String,
    alerts_id: String,
    /// Rows up to here are counted, in `slo_1m` or in `pending`.
    up_to: i64,
    pending: Slo,
    commits: u64,
    /// Rows of `alerts` that were acknowledged; more may be there after a crash.
    alerts: i64,
}

impl Reader {
    /// Goes on where the tables stand: the rows of `calls` after the cursor are counted anew.
    pub(crate) fn open(
        writer: &str,
        tables: &mut LakeTables,
        calls: impl FnOnce() -> Vec<RecordBatch>,
    ) -> Result<Self, LakeError> {
        let (slo_id, alerts_id) = (format!("{writer}/slo_1m"), format!("{writer}/alerts"));
        let cursor = tables.committed_version(Table::Slo1m, &slo_id)?.unwrap_or(0);
        // As the evaluator does it: what has no rows is counted from the start.
        let is_empty = tables.committed().files[Table::Slo1m as usize] == 0;
        let cursor = if is_empty { 0 } else { cursor };
        let alerts = tables.committed_version(Table::Alerts, &alerts_id)?.unwrap_or(0);
        let end = tables.up_to(Table::Calls).as_i64();
        assert!(cursor <= end, "slo_1m has folded {cursor}, calls ends at {end}");
        let pending = if cursor < end { count_slo(&calls(), |position| position > cursor) } else { Slo::new() };
        Ok(Self { slo_id, alerts_id, up_to: end, pending, commits: 0, alerts })
    }

    /// What comes by the feed. Every other time it is written, and written once more, as by one who had no answer.
    pub(crate) fn take(&mut self, commit: &Commit, tables: &mut LakeTables) -> Result<(), LakeError> {
        let Some(calls) = &commit.calls else { return Ok(()) };
        add(&mut self.pending, &count_slo(&calls.batches, |_| true));
        self.up_to = calls.up_to.as_i64();
        self.commits += 1;
        if self.commits.is_multiple_of(2) {
            return Ok(());
        }
        let now = commit.received;
        let rows: Vec<RecordBatch> = if self.pending.is_empty() {
            Vec::new()
        } else {
            let minutes: Vec<i64> = self.pending.keys().copied().collect();
            let counts = |which: usize| self.pending.values().map(|counts| counts[which]).collect();
            let columns = [("date", minutes.clone()), ("minute", minutes), ("good", counts(0)), ("bad", counts(1))];
            vec![rows_of(Table::Slo1m, now.0, &columns)]
        };
        let txn = Txn { app_id: self.slo_id.clone(), version: self.up_to };
        // A commit of `calls` without rows may leave its position where it was.
        let is_new = tables.committed_version(Table::Slo1m, &self.slo_id)?.is_none_or(|cursor| cursor < self.up_to);
        assert!(is_new || rows.is_empty());
        assert_eq!(tables.append(Table::Slo1m, &rows, &txn, now)?, is_new);
        assert!(!tables.append(Table::Slo1m, &rows, &txn, now)?);
        self.pending.clear();

        let next = self.alerts + 1;
        let alert = rows_of(Table::Alerts, now.0, &[("position", vec![next])]);
        let txn = Txn { app_id: self.alerts_id.clone(), version: next };
        assert!(tables.append(Table::Alerts, &[live(Table::Alerts, &alert)], &txn, now)?);
        self.alerts = next;
        Ok(())
    }

    pub(crate) fn alerts(&self) -> i64 {
        self.alerts
    }

    /// `slo_1m` and what is pending count every committed call once, and `alerts` has every row once.
    pub(crate) fn compare(&self, slo_1m: &[RecordBatch], alerts: &[RecordBatch], calls: &[RecordBatch], when: &str) {
        let rows = in_schema(Table::Slo1m, slo_1m);
        let minutes = column(&rows, "minute").as_primitive::<TimestampMicrosecondType>();
        let mut found = self.pending.clone();
        for row in 0..rows.num_rows() {
            assert_eq!(minutes.value(row) % MINUTE_MICROS, 0);
            let counts = [long(&rows, "good", row), long(&rows, "bad", row)];
            add(&mut found, &Slo::from([(minutes.value(row), counts)]));
        }
        let expected = count_slo(calls, |position| position <= self.up_to);
        assert_eq!(found, expected, "{when}: slo_1m up to {}: found left, expected right", self.up_to);

        let rows = in_schema(Table::Alerts, alerts);
        let mut numbers: Vec<i64> = (0..rows.num_rows()).map(|row| long(&rows, "position", row)).collect();
        numbers.sort_unstable();
        assert_eq!(numbers, (1..=self.alerts).collect::<Vec<_>>(), "{when}: alerts");
    }
}
