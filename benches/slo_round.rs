//! What a round of evaluations costs, by the number of SLOs: the whole one, with live rows counted anew, coverage, windows, states, and
//! what is said of those that burn. Of the SLOs 70 % fix a tool, 20 % a service and 10 % neither, and one in a hundred has groups, one for each of up to
//! a hundred services, which are evaluated each; a tenth of the tools fail.
//!
//! `cargo bench --bench slo_round`

#![expect(clippy::print_stdout, reason = "a benchmark prints what it measured")]

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use arrow::array::{
    ArrayRef, BooleanArray, Decimal128Array, Int64Array, RecordBatch, StringArray, StringDictionaryBuilder,
    TimestampMicrosecondArray, new_null_array,
};
use arrow::compute::cast;
use arrow::datatypes::{Field, Schema, UInt16Type};
use arrow::error::ArrowError;
use datafusion::datasource::MemTable;
use toolgauge_proto::api::IngestStatus;
use toolgauge_proto::id::WalPosition;
use toolgauge_proto::lake::{AppendError, Feed, FeedItem, Lake, LiveBatches, TableView, Txn, View};
use toolgauge_proto::table::Table;
use toolgauge_proto::time::{Clock, MINUTE_MICROS, UnixMicros};
use toolgauge_queries::engine::Settings;
use toolgauge_queries::evaluate::{EvaluateSettings, Evaluator};
use toolgauge_queries::notify::{Notifier, Targets};
use toolgauge_queries::tables;

#[path = "load/slos.rs"]
mod documents;

type Fallible<T> = Result<T, Box<dyn std::error::Error>>;

const SLOS: [usize; 4] = [1, 100, 1_000, 10_000];
/// Rounds that are measured, and how long it is waited for them.
const ROUNDS: u64 = 20;
const PATIENCE: Duration = Duration::from_secs(400);
/// Live rows: those of a minute of a large server.
const ROWS: u64 = 65_536;
const TOOLS: u64 = 2_000;
const SERVICES: u64 = 200;
const NOW: i64 = 1_000_000 * MINUTE_MICROS;

/// A number without order.
fn mix(n: u64) -> u64 {
    (n + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(31).wrapping_mul(0xbf58_476d_1ce4_e5b9)
}

/// Rows with these columns; the others are null.
fn batch_of(schema: &Schema, given: &[(&str, ArrayRef)]) -> Fallible<RecordBatch> {
    let rows = given.first().map_or(0, |(_, column)| column.len());
    let (fields, columns): (Vec<Field>, Vec<ArrayRef>) = schema
        .fields()
        .iter()
        .map(|field| {
            let column = given.iter().find(|(name, _)| *name == field.name()).map(|(_, column)| Arc::clone(column));
            let column = match column {
                Some(column) => cast(&column, field.data_type())?,
                None => new_null_array(field.data_type(), rows),
            };
            Ok((field.as_ref().clone().with_nullable(true), column))
        })
        .collect::<Result<Vec<_>, ArrowError>>()?
        .into_iter()
        .unzip();
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
}

/// Calls of the last two minutes; a fifth of those of every tenth tool fail.
fn calls() -> Fallible<RecordBatch> {
    let words = |value: &dyn Fn(u64) -> String| -> ArrayRef {
        let mut words = StringDictionaryBuilder::<UInt16Type>::new();
        (0..ROWS).for_each(|n| words.append_value(value(n)));
        Arc::new(words.finish())
    };
    let tool = |n: u64| mix(n) % TOOLS;
    let fails = |n: u64| tool(n).is_multiple_of(10) && mix(n ^ 9).is_multiple_of(5);
    let times = |at: &dyn Fn(u64) -> i64| -> ArrayRef {
        Arc::new(TimestampMicrosecondArray::from_iter_values((0..ROWS).map(at)).with_timezone("UTC"))
    };
    let numbers = |of: &dyn Fn(u64) -> u64| -> ArrayRef {
        Arc::new(Int64Array::from_iter_values((0..ROWS).map(|n| of(n).cast_signed())))
    };
    let all: ArrayRef = Arc::new(BooleanArray::from(vec![true; ROWS as usize]));
    let weights = Decimal128Array::from_iter_values((0..ROWS).map(|_| 1_000_000)).with_precision_and_scale(18, 6)?;
    let given = [
        ("end_time", times(&|n| NOW - (n * 1_800).cast_signed() % (2 * MINUTE_MICROS))),
        ("duration_ns", numbers(&|n| mix(n) % 1_000_000_000)),
        ("kind", words(&|_| "tool".to_owned())),
        ("service_name", words(&|n| format!("service-{}", tool(n) % SERVICES))),
        ("tool_name", words(&|n| format!("tool-{}", tool(n)))),
        ("counted", Arc::clone(&all)),
        ("wal_position", numbers(&|n| 1 + n / 512)),
        ("outcome", words(&|n| if fails(n) { "error" } else { "ok" }.to_owned())),
        ("final", all),
        ("weight", Arc::new(weights)),
    ];
    batch_of(&Table::Calls.live_schema(), &given)
}

/// Every one of these minutes ago has exports of every service.
fn arrivals(schema: &Schema, ago: Range<i64>) -> Fallible<RecordBatch> {
    let keys: Vec<(i64, u64)> =
        ago.flat_map(|minute| (0..SERVICES).map(move |service| (NOW - minute * MINUTE_MICROS, service))).collect();
    let minutes = TimestampMicrosecondArray::from_iter_values(keys.iter().map(|(minute, _)| *minute));
    let services: StringArray = keys.iter().map(|(_, service)| Some(format!("service-{service}"))).collect();
    let given: [(&str, ArrayRef); 2] =
        [("minute", Arc::new(minutes.with_timezone("UTC"))), ("service_name", Arc::new(services))];
    batch_of(schema, &given)
}

/// A lake in which the last two minutes are live, with arrivals of a day before them, and nothing comes.
#[derive(Debug)]
struct Still(Arc<View>);

impl Still {
    fn new() -> Fallible<Self> {
        let mut live = [const { Vec::new() }; Table::ALL.len()];
        live[Table::Calls as usize].push(calls()?);
        live[Table::Arrivals as usize].push(arrivals(&Table::Arrivals.live_schema(), 0..2)?);
        let committed = |table: Table| {
            Ok(match table {
                Table::Arrivals => {
                    let day = arrivals(&table.schema(), 2..24 * 60)?;
                    MemTable::try_new(day.schema(), vec![vec![day]])?
                }
                _ => MemTable::try_new(table.schema(), vec![Vec::new()])?,
            })
        };
        let committed: Vec<MemTable> = Table::ALL.into_iter().map(committed).collect::<Fallible<_>>()?;
        let mut committed = committed.into_iter();
        let tables = live.map(|live| {
            let committed = committed.next().unwrap_or_else(|| unreachable!("there is one for each table"));
            TableView { committed: Arc::new(committed), live: LiveBatches::new(live.into()) }
        });
        let (position, none) = (WalPosition(1 + ROWS / 512), WalPosition(0));
        Ok(Self(Arc::new(View { tables, position, settled: none, committed: none, watermark: UnixMicros(NOW) })))
    }
}

#[derive(Debug)]
struct Nothing;

impl Feed for Nothing {
    fn after(&self) -> WalPosition {
        WalPosition(0)
    }

    fn recv(&self, timeout: Duration) -> FeedItem {
        std::thread::park_timeout(timeout);
        FeedItem::Nothing
    }
}

impl Lake for Still {
    fn view(&self) -> Arc<View> {
        Arc::clone(&self.0)
    }

    fn status(&self) -> IngestStatus {
        IngestStatus { ready: true, ..IngestStatus::default() }
    }

    fn writer(&self) -> String {
        "writer".into()
    }

    fn append(&self, _: Table, _: Vec<RecordBatch>, _: Txn) -> Result<bool, AppendError> {
        Ok(true)
    }

    fn committed_version(&self, _: Table, _: &str) -> Result<Option<i64>, AppendError> {
        Ok(None)
    }

    fn feed(&self) -> Box<dyn Feed> {
        Box::new(Nothing)
    }
}

#[derive(Debug)]
struct StillClock;

impl Clock for StillClock {
    fn now(&self) -> UnixMicros {
        UnixMicros(NOW)
    }
}

/// The condition of an SLO.
fn total(number: usize) -> String {
    match number as u64 {
        number if number % 10 < 7 => format!("kind = 'tool' AND tool_name = 'tool-{}'", number % TOOLS),
        number if number % 10 < 9 => format!("kind = 'tool' AND service_name = 'service-{}'", number % SERVICES),
        number => format!("kind = 'tool' AND duration_ns > {number}"),
    }
}

/// One in a hundred has groups.
fn annotations(number: usize) -> &'static str {
    if number % 100 == 99 { "toolgauge/group-by: service" } else { "" }
}

/// Waits for something to hold.
fn until(what: &str, holds: impl Fn() -> bool) -> Fallible<()> {
    let began = Instant::now();
    while !holds() {
        if began.elapsed() > PATIENCE {
            return Err(format!("{what}: not within {PATIENCE:?}").into());
        }
        std::thread::park_timeout(Duration::from_millis(1));
    }
    Ok(())
}

/// Microseconds of a round of so many SLOs, and how many alerts fire.
fn round(folder: &Path, lake: &Arc<Still>, slos: usize, runtime: &tokio::runtime::Runtime) -> Fallible<(f64, usize)> {
    let files = folder.join(slos.to_string());
    documents::write(&files, slos, 0.99, annotations, total)?;
    let settings = EvaluateSettings {
        slos: vec![files],
        interval: Duration::from_millis(1),
        // They have benchmarks of their own.
        flush_interval: Duration::from_secs(3_600),
        proof_interval: Duration::from_secs(3_600),
        ..EvaluateSettings::default()
    };
    let notifier = Notifier::start(Targets::parse(&[])?, Duration::from_secs(1), runtime.handle())?;
    let (of_lake, engine) = (Arc::<Still>::clone(lake), Arc::new(tables::engine(Settings::default())?));
    let evaluator = runtime.block_on(Evaluator::start(settings, of_lake, engine, Arc::new(StillClock), notifier))?;
    until("all SLOs are evaluated", || {
        let found = evaluator.evaluated();
        found.slos.len() >= slos && found.slos.iter().all(|slo| slo.evaluation.as_str() != "learning")
    })?;
    let counters = evaluator.counters();
    let read = || (counters.rounds.load(Relaxed), counters.round_micros.load(Relaxed));
    // The first of them says what burns.
    let begun = read().0 + 2;
    until("it is evaluated again", || read().0 >= begun)?;
    let (rounds, micros) = read();
    until("it is measured", || read().0 >= rounds + ROUNDS)?;
    let (rounds_after, micros_after) = read();
    let firing = evaluator.evaluated().alerts.len();
    evaluator.stop();
    Ok(((micros_after - micros) as f64 / (rounds_after - rounds) as f64, firing))
}

fn main() -> Fallible<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let folder = tempfile::tempdir()?;
    let lake = Arc::new(Still::new()?);
    println!("a round over {ROWS} live rows");
    let mut per_slo = Vec::new();
    for slos in SLOS {
        let (micros, firing) = round(folder.path(), &lake, slos, &runtime)?;
        per_slo.push(micros / slos as f64);
        println!("  {slos:>6} SLOs: {micros:>10.0} us, {:>8.2} us for each, {firing} alerts", micros / slos as f64);
    }
    println!("\nratios of this run");
    for (slos, cost) in SLOS.iter().zip(&per_slo).skip(1) {
        println!("  an SLO of {slos}, against one of 100   {:.2}", cost / per_slo[1]);
    }
    Ok(())
}
