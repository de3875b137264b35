//! A lake in memory with random rows, and small helpers.

use std::sync::{Arc, Mutex};

use arrow::array::{ArrayRef, RecordBatch};
use arrow::compute::cast;
use chrono::{DateTime, Utc};
use datafusion::catalog::MemTable;
use datafusion::common::ScalarValue;
use datafusion::datasource::{ViewTable, provider_as_source};
use datafusion::logical_expr::LogicalPlanBuilder;
use toolgauge_analytics::additive::Additive;
use toolgauge_analytics::rollup::CallsRollup;
use toolgauge_proto::api::IngestStatus;
use toolgauge_proto::call::{ErrorClass, Kind, Layer};
use toolgauge_proto::id::WalPosition;
use toolgauge_proto::lake::{AppendError, Feed, Lake, LiveBatches, TableView, Txn, View};
use toolgauge_proto::table::{ColumnType, Table};
use toolgauge_proto::time::{Clock, MINUTE_MICROS, UnixMicros};
use toolgauge_queries::engine::{Answer, Engine, Error, Settings};
use toolgauge_queries::json;
use toolgauge_queries::tables::{self, Catalog};

/// 2025-10-09T12:34:56Z: the time in all tests.
pub(crate) const NOW: UnixMicros = UnixMicros(1_760_013_296_000_000);

/// Deterministic random numbers.
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 8
    }

    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    pub(crate) fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    fn pick<'a>(&mut self, words: &[&'a str]) -> &'a str {
        words[self.below(words.len() as u64) as usize]
    }
}

/// One row, in the order of the table's columns.
pub(crate) type Row = Vec<ScalarValue>;

pub(crate) fn timestamp(time: UnixMicros) -> ScalarValue {
    ScalarValue::TimestampMicrosecond(Some(time.0), Some("UTC".into()))
}

pub(crate) fn text(text: &str) -> ScalarValue {
    ScalarValue::Utf8(Some(text.to_owned()))
}

/// A random row of `calls` that ended within the two hours before [`NOW`]; about a fifth of what may be null is.
pub(crate) fn random_call(rng: &mut Rng, position: u64) -> Row {
    // Most of the last two hours, and the others of the last three days.
    let hours = if rng.one_in(4) { 72 } else { 2 };
    let end = UnixMicros(NOW.0 - (rng.below(hours * 3_600_000_000)).cast_signed());
    let magnitude = 12 + rng.below(24);
    let duration_ns = rng.below(1 << magnitude).cast_signed();
    let failed = rng.one_in(4);
    let row = Table::Calls.columns().iter().map(|column| {
        if column.nullable && rng.one_in(5) {
            return ScalarValue::try_new_null(&column.column_type.arrow()).unwrap();
        }
        match column.name {
            "date" => ScalarValue::Date32(Some(end.date32())),
            "end_time" => timestamp(end),
            "start_time" => timestamp(UnixMicros(end.0 - duration_ns / 1_000)),
            "duration_ns" => ScalarValue::Int64(Some(duration_ns)),
            "kind" => text(if rng.one_in(3) { rng.pick(Kind::WORDS) } else { "tool" }),
            "tenant" => text(rng.pick(&["default", "acme"])),
            "tool_name" | "tool_server" | "service_name" | "environment" | "session_id" => {
                text(rng.pick(&["a", "b", "c"]))
            }
            "layer" => text(rng.pick(Layer::WORDS)),
            "outcome" => text(if failed { "error" } else { "ok" }),
            "error_class" => text(if failed { rng.pick(&ErrorClass::WORDS[1..]) } else { "none" }),
            "counted" => ScalarValue::Boolean(Some(!rng.one_in(6))),
            "final" => ScalarValue::Boolean(Some(!(failed && rng.one_in(2)))),
            "attempt" => ScalarValue::Int32(Some(1 + rng.below(3) as i32)),
            "wal_position" => ScalarValue::Int64(Some(position.cast_signed())),
            // Most are not sampled.
            "weight" => {
                let weight = if rng.one_in(4) { rng.below(5_000_000_000) } else { 1_000_000 };
                ScalarValue::Decimal128(Some(weight.into()), 18, 6)
            }
            "row_id" => ScalarValue::Binary(Some(position.to_be_bytes().repeat(2))),
            name => match column.column_type {
                ColumnType::Date => ScalarValue::Date32(Some(end.date32())),
                ColumnType::Timestamp => timestamp(end),
                ColumnType::Int64 => ScalarValue::Int64(Some(rng.below(1_000).cast_signed())),
                ColumnType::Int32 => ScalarValue::Int32(Some(rng.below(5) as i32)),
                ColumnType::Bool => ScalarValue::Boolean(Some(rng.one_in(2))),
                ColumnType::Binary => ScalarValue::Binary(Some(rng.below(50).to_be_bytes().to_vec())),
                ColumnType::Word | ColumnType::Text => text(&format!("{name} {}", rng.below(4))),
                ColumnType::Decimal(scale) => ScalarValue::Decimal128(Some(rng.below(5_000_000_000).into()), 18, scale),
            },
        }
    });
    row.collect()
}

/// A heartbeat row of `arrivals`, or one of a service.
pub(crate) fn arrival(minute: UnixMicros, service: Option<&str>) -> Row {
    let row = Table::Arrivals.columns().iter().map(|column| match column.name {
        "date" => ScalarValue::Date32(Some(minute.date32())),
        "minute" => timestamp(minute),
        "tenant" => ScalarValue::Utf8(service.map(|_| "default".to_owned())),
        "service_name" => ScalarValue::Utf8(service.map(str::to_owned)),
        _ => ScalarValue::Int64(Some(1)),
    });
    row.collect()
}

/// The value of a column.
pub(crate) fn get<'a>(row: &'a Row, column: &str) -> &'a ScalarValue {
    &row[Table::Calls.index_of(column)]
}

pub(crate) fn get_text(row: &Row, column: &str) -> Option<String> {
    match get(row, column) {
        ScalarValue::Utf8(value) => value.clone(),
        other => panic!("{column} is no text: {other}"),
    }
}

pub(crate) fn get_int(row: &Row, column: &str) -> i64 {
    match get(row, column) {
        ScalarValue::Int64(Some(value)) | ScalarValue::TimestampMicrosecond(Some(value), _) => *value,
        ScalarValue::Int32(Some(value)) => i64::from(*value),
        other => panic!("{column} is no integer: {other}"),
    }
}

pub(crate) fn is_true(row: &Row, column: &str) -> bool {
    get(row, column) == &ScalarValue::Boolean(Some(true))
}

pub(crate) fn settled_batch(table: Table, rows: &[Row]) -> RecordBatch {
    let schema = table.schema();
    let columns = (0..schema.fields().len())
        .map(|index| ScalarValue::iter_to_array(rows.iter().map(|row| row[index].clone())).unwrap());
    RecordBatch::try_new(schema, columns.collect()).unwrap()
}

pub(crate) fn live_batch(table: Table, rows: &[Row]) -> RecordBatch {
    let schema = table.live_schema();
    let batch = settled_batch(table, rows);
    let columns = batch.columns().iter().zip(schema.fields());
    let columns: Vec<ArrayRef> = columns.map(|(column, field)| cast(column, field.data_type()).unwrap()).collect();
    RecordBatch::try_new(schema, columns).unwrap()
}

/// A table whose committed half promises, and applies, every filter exactly, as Delta does for partitions.
pub(crate) fn table_view(table: Table, committed: &[Row], live: &[Row]) -> TableView {
    let parts = committed.chunks(committed.len().div_ceil(3).max(1)).map(|rows| vec![settled_batch(table, rows)]);
    let mut parts: Vec<_> = parts.collect();
    if parts.is_empty() {
        parts.push(Vec::new());
    }
    let rows = Arc::new(MemTable::try_new(table.schema(), parts).unwrap());
    let plan = LogicalPlanBuilder::scan("rows", provider_as_source(rows), None).unwrap().build().unwrap();
    let live = live.chunks(live.len().div_ceil(5).max(1)).map(|rows| live_batch(table, rows));
    TableView { committed: Arc::new(ViewTable::new(plan, None)), live: LiveBatches::new(live.collect()) }
}

/// `calls_1m` or `calls_1h` of these rows of `calls`.
fn sums_view(table: Table, committed: &[Row], live: &[Row]) -> TableView {
    let fold = |rows: &[Row]| {
        let mut rollup = CallsRollup::default();
        if !rows.is_empty() {
            rollup.add(&live_batch(Table::Calls, rows)).unwrap();
        }
        let minutes = rollup.batches().unwrap();
        if table == Table::Calls1m {
            return minutes;
        }
        let mut hours = Additive::new(table).unwrap();
        minutes.iter().for_each(|batch| hours.add(batch).unwrap());
        hours.live_batches().unwrap()
    };
    let schema = table.schema();
    let settled = fold(committed).into_iter().map(|batch| {
        let columns = batch.columns().iter().zip(schema.fields());
        let columns = columns.map(|(column, field)| cast(column, field.data_type()).unwrap());
        RecordBatch::try_new(Arc::clone(&schema), columns.collect()).unwrap()
    });
    let settled = MemTable::try_new(Arc::clone(&schema), vec![settled.collect()]).unwrap();
    TableView { committed: Arc::new(settled), live: LiveBatches::new(fold(live).into()) }
}

/// A lake of rows that the test chose.
#[derive(Debug)]
pub(crate) struct MemoryLake {
    pub(crate) view: Mutex<Arc<View>>,
    pub(crate) status: Mutex<IngestStatus>,
}

impl MemoryLake {
    /// `calls` and `arrivals`: committed, live. The watermark is [`NOW`].
    pub(crate) fn new(calls: (&[Row], &[Row]), arrivals: (&[Row], &[Row]), settled: u64) -> Arc<Self> {
        let view = View {
            tables: [
                table_view(Table::Calls, calls.0, calls.1),
                table_view(Table::Arrivals, arrivals.0, arrivals.1),
                table_view(Table::Quarantine, &[], &[]),
                sums_view(Table::Calls1m, calls.0, calls.1),
                table_view(Table::Slo1m, &[], &[]),
                table_view(Table::Alerts, &[], &[]),
                sums_view(Table::Calls1h, calls.0, calls.1),
            ],
            position: WalPosition(1_000_000),
            settled: WalPosition(settled),
            committed: WalPosition(0),
            watermark: NOW,
        };
        let status = IngestStatus { ready: true, ..IngestStatus::default() };
        Arc::new(Self { view: Mutex::new(Arc::new(view)), status: Mutex::new(status) })
    }

    pub(crate) fn of_calls(committed: &[Row], live: &[Row]) -> Arc<Self> {
        Self::new((committed, live), (&[], &[]), 0)
    }
}

impl Lake for MemoryLake {
    fn view(&self) -> Arc<View> {
        Arc::clone(&self.view.lock().unwrap())
    }

    fn status(&self) -> IngestStatus {
        self.status.lock().unwrap().clone()
    }

    fn writer(&self) -> String {
        "writer".into()
    }

    fn append(&self, table: Table, _: Vec<RecordBatch>, _: Txn) -> Result<bool, AppendError> {
        Err(AppendError::Stopped { table })
    }

    fn committed_version(&self, _: Table, _: &str) -> Result<Option<i64>, AppendError> {
        Ok(None)
    }

    fn feed(&self) -> Box<dyn Feed> {
        panic!("nothing is committed here")
    }
}

/// A clock that stands at [`NOW`].
#[derive(Debug)]
pub(crate) struct Still;

impl Clock for Still {
    fn now(&self) -> UnixMicros {
        NOW
    }
}

pub(crate) fn now() -> DateTime<Utc> {
    DateTime::from_timestamp_micros(NOW.0).unwrap()
}

/// An engine with its catalog.
#[derive(Clone)]
pub(crate) struct Sql {
    pub(crate) engine: Arc<Engine>,
    pub(crate) catalog: Catalog,
}

impl Sql {
    pub(crate) async fn new(settings: Settings) -> Self {
        let engine = Arc::new(tables::engine(settings).unwrap());
        let catalog = Catalog::new(&engine).await.unwrap();
        Self { engine, catalog }
    }

    pub(crate) async fn try_query(&self, lake: &MemoryLake, sql: &str) -> Result<Answer, Error> {
        self.engine.query(self.catalog.schema(lake.view()), now(), sql.to_owned()).await
    }

    /// The rows as JSON.
    pub(crate) async fn query(&self, lake: &MemoryLake, sql: &str) -> Vec<Vec<serde_json::Value>> {
        let answer = self.try_query(lake, sql).await.unwrap_or_else(|error| panic!("{sql:.200}: {error}"));
        json::response(&answer).unwrap().rows
    }

    pub(crate) async fn count(&self, lake: &MemoryLake, sql: &str) -> u64 {
        self.query(lake, sql).await[0][0].as_u64().unwrap_or_else(|| panic!("{sql}: no count"))
    }
}

/// The minute so many minutes before the one of [`NOW`].
pub(crate) fn minutes_ago(minutes: i64) -> UnixMicros {
    UnixMicros(NOW.minute().0 - minutes * MINUTE_MICROS)
}

/// Waits for a condition, for at most ten seconds.
pub(crate) async fn until(what: &str, condition: impl Fn() -> bool) {
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(10);
    while !condition() {
        assert!(tokio::time::Instant::now() < deadline, "waited in vain until {what}");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}
