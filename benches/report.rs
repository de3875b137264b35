//! What the tools report over 30 days costs from `calls_1h` and `calls_1m`, against the same figures from the calls themselves. All rows are in
//! memory, so that the ratio is that of the work alone; from files, there is about as much more to read as there are more rows.
//!
//! `./dev bench report`

#![expect(clippy::print_stdout, reason = "a benchmark prints what it measured")]

use std::sync::Arc;
use std::time::Instant;

use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Int32Array, Int64Array, RecordBatch,
    StringArray, TimestampMicrosecondArray, new_null_array,
};
use arrow::compute::cast;
use datafusion::catalog::MemTable;
use toolgauge_analytics::additive::Additive;
use toolgauge_analytics::rollup::CallsRollup;
use toolgauge_proto::id::WalPosition;
use toolgauge_proto::lake::{LiveBatches, TableView, View};
use toolgauge_proto::table::Table;
use toolgauge_proto::time::{DAY_MICROS, MINUTE_MICROS, UnixMicros};
use toolgauge_queries::engine::Settings;
use toolgauge_queries::report::{self, Range, Source};
use toolgauge_queries::tables::{self, Catalog};

type Failure = Box<dyn std::error::Error>;

/// 2026-01-31T00:00:00Z.
const END: UnixMicros = UnixMicros(1_769_817_600_000_000);
const TOOLS: u64 = 5;
const CALLS_A_MINUTE: u64 = 100;
/// Minutes of one batch.
const BATCH_MINUTES: u64 = 120;
const ROUNDS: usize = 5;

/// A number without order.
fn mix(n: u64) -> u64 {
    (n + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(31).wrapping_mul(0xbf58_476d_1ce4_e5b9)
}

/// Calls number `first` on, which end from `start` on; what a report does not read is null or the same in all rows.
fn calls(first: u64, start: UnixMicros) -> Result<RecordBatch, Failure> {
    let rows = first..first + BATCH_MINUTES * CALLS_A_MINUTE;
    let n = (rows.end - rows.start) as usize;
    let ends: Vec<i64> =
        (0..n as i64).map(|row| start.0 + row * (MINUTE_MICROS / CALLS_A_MINUTE.cast_signed())).collect();
    let failed = |n: u64| mix(n).is_multiple_of(50);
    let words = |word: &dyn Fn(u64) -> &'static str| -> ArrayRef {
        Arc::new(StringArray::from_iter_values(rows.clone().map(word)))
    };
    let tools = ["search", "fetch", "write", "plan", "run"];
    let decimals = |scale, value: &dyn Fn(u64) -> i128| -> Result<ArrayRef, Failure> {
        let values = Decimal128Array::from_iter_values(rows.clone().map(value));
        Ok(Arc::new(values.with_precision_and_scale(18, scale)?))
    };
    let schema = Table::Calls.schema();
    let mut columns: Vec<ArrayRef> = Vec::with_capacity(schema.fields().len());
    for field in schema.fields() {
        columns.push(match field.name().as_str() {
            "date" => Arc::new(Date32Array::from_iter_values(ends.iter().map(|end| UnixMicros(*end).date32()))),
            "start_time" | "end_time" => Arc::new(TimestampMicrosecondArray::from(ends.clone()).with_timezone("UTC")),
            "duration_ns" => {
                let nanos = rows.clone().map(|n| (mix(n ^ 9) % (1_000_000 << (mix(n) % 12))).cast_signed());
                Arc::new(Int64Array::from_iter_values(nanos))
            }
            "kind" => words(&|_| "tool"),
            "tenant" => words(&|_| "default"),
            "service_name" => words(&|_| "assistant"),
            "tool_name" => words(&|n| tools[(mix(n) % TOOLS) as usize]),
            "layer" => words(&|_| "agent"),
            "signal" => words(&|_| "span"),
            "convention" => words(&|_| "otel_genai"),
            "outcome" => words(&|n| if failed(n) { "error" } else { "ok" }),
            "error_class" => words(&|n| if failed(n) { "timeout" } else { "none" }),
            "counted" | "final" => Arc::new(BooleanArray::from(vec![true; n])),
            "attempt" => Arc::new(Int32Array::from(vec![1; n])),
            "row_id" => Arc::new(BinaryArray::from_iter_values(rows.clone().map(|n| mix(n).to_be_bytes().repeat(2)))),
            "wal_position" => Arc::new(Int64Array::from(vec![1; n])),
            "weight" => decimals(6, &|_| 1_000_000)?,
            "cost_usd" => decimals(9, &|n| (mix(n) % 10_000_000).into())?,
            _ => new_null_array(field.data_type(), n),
        });
    }
    Ok(RecordBatch::try_new(schema, columns)?)
}

fn settled(batch: &RecordBatch) -> Result<RecordBatch, Failure> {
    let schema = Table::Calls1m.schema();
    let columns = batch.columns().iter().zip(schema.fields()).map(|(column, field)| cast(column, field.data_type()));
    Ok(RecordBatch::try_new(Arc::clone(&schema), columns.collect::<Result<_, _>>()?)?)
}

fn table(table: Table, batches: &[RecordBatch]) -> Result<TableView, Failure> {
    let parts = batches.chunks(batches.len().div_ceil(8).max(1)).map(<[RecordBatch]>::to_vec).collect();
    let committed = MemTable::try_new(table.schema(), if batches.is_empty() { vec![Vec::new()] } else { parts })?;
    Ok(TableView { committed: Arc::new(committed), live: LiveBatches::new(Arc::new([])) })
}

fn main() -> Result<(), Failure> {
    let days: i64 = std::env::args().find_map(|days| days.parse().ok()).unwrap_or(30);
    let batches = (days * DAY_MICROS / MINUTE_MICROS).unsigned_abs() / BATCH_MINUTES;
    let start = UnixMicros(END.0 - days * DAY_MICROS);
    let (mut rows, mut sums, mut hours) = (Vec::new(), Vec::new(), Vec::new());
    for batch in 0..batches {
        let from = UnixMicros(start.0 + (batch * BATCH_MINUTES).cast_signed() * MINUTE_MICROS);
        let calls = calls(batch * BATCH_MINUTES * CALLS_A_MINUTE, from)?;
        let mut rollup = CallsRollup::default();
        rollup.add(&calls)?;
        let mut by_hour = Additive::new(Table::Calls1h)?;
        for batch in rollup.batches()? {
            by_hour.add(&batch)?;
            sums.push(settled(&batch)?);
        }
        hours.extend(by_hour.batches()?);
        rows.push(calls);
    }
    let count = |batches: &[RecordBatch]| batches.iter().map(RecordBatch::num_rows).sum::<usize>();
    let view = Arc::new(View {
        tables: [
            table(Table::Calls, &rows)?,
            table(Table::Arrivals, &[])?,
            table(Table::Quarantine, &[])?,
            table(Table::Calls1m, &sums)?,
            table(Table::Slo1m, &[])?,
            table(Table::Alerts, &[])?,
            table(Table::Calls1h, &hours)?,
        ],
        position: WalPosition(1),
        settled: WalPosition(1),
        committed: WalPosition(1),
        watermark: END,
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let engine = tables::engine(Settings { timeout: std::time::Duration::from_secs(600), ..Settings::default() })?;
        let catalog = Catalog::new(&engine).await?;
        // Within minutes at both ends, as ranges usually are.
        let range = Range::new(UnixMicros(start.0 + 31_000_000), UnixMicros(END.0 - 17_000_000));
        let mut best = [f64::MAX; 3];
        let mut reports = Vec::new();
        for _ in 0..ROUNDS {
            for (source, best) in [Source::Calls, Source::Minutes, Source::Hours].into_iter().zip(&mut best) {
                let began = Instant::now();
                reports.push(report::tools(&engine, &catalog, Arc::clone(&view), END, range.clone(), source).await?);
                *best = best.min(began.elapsed().as_secs_f64());
            }
        }
        if reports.windows(2).any(|pair| pair[0] != pair[1]) {
            return Err("the sources differ".into());
        }
        println!("tools report over {days} days, {CALLS_A_MINUTE} calls a minute of {TOOLS} tools");
        for ((what, rows), best) in
            [("calls", &rows), ("sums per minute", &sums), ("sums per hour", &hours)].iter().zip(best)
        {
            println!("  from {:>9} {what:<16} {:8.1} ms", count(rows), best * 1e3);
        }
        Ok(())
    })
}
