//! What counting SLOs costs: a batch of settled rows by the number of SLOs, of which 70 % fix a tool, 20 % a service and 10 % neither.
//! The share of SLOs that fix nothing is what grows; the others only look at rows of their own.
//!
//! `cargo bench --bench slo`

#![expect(clippy::print_stdout, reason = "a benchmark prints what it measured")]

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{
    ArrayRef, BooleanArray, Decimal128Array, Int64Array, RecordBatch, StringDictionaryBuilder,
    TimestampMicrosecondArray,
};
use arrow::datatypes::{Field, Schema, UInt16Type};
use toolgauge_analytics::sli::Counts;
use toolgauge_analytics::window::Minute;
use toolgauge_proto::id::WalPosition;
use toolgauge_proto::table::Table;
use toolgauge_proto::time::MINUTE_MICROS;
use toolgauge_queries::engine::{Engine, Settings};
use toolgauge_queries::slo::counter::{CompiledSli, Counter, GroupAt, Tally};
use toolgauge_queries::slo::definition::{Judged, Mode, Sli, Where};
use toolgauge_queries::slo::fault::Place;
use toolgauge_queries::slo::group::GroupKey;
use toolgauge_queries::tables;

const MEASURED_FOR: Duration = Duration::from_millis(500);
const ROWS: u64 = 65_536;
const TOOLS: u64 = 2_000;
const SERVICES: u64 = 200;
const COLUMNS: [&str; 9] =
    ["end_time", "duration_ns", "kind", "service_name", "tool_name", "counted", "wal_position", "outcome", "final"];

/// A number without order.
fn mix(n: u64) -> u64 {
    (n + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(31).wrapping_mul(0xbf58_476d_1ce4_e5b9)
}

/// Seconds that one run takes, the best of those that fit the time.
fn best(mut run: impl FnMut()) -> f64 {
    let (begun, mut best) = (Instant::now(), f64::MAX);
    while begun.elapsed() < MEASURED_FOR || best == f64::MAX {
        let run_begun = Instant::now();
        run();
        best = best.min(run_begun.elapsed().as_secs_f64());
    }
    best
}

/// Live rows of all tools and services within two minutes, of which one in 50 failed.
fn batch() -> RecordBatch {
    let words = |value: &dyn Fn(u64) -> String| -> ArrayRef {
        let mut words = StringDictionaryBuilder::<UInt16Type>::new();
        (0..ROWS).for_each(|n| words.append_value(value(n)));
        Arc::new(words.finish())
    };
    let column = |name: &str| -> ArrayRef {
        match name {
            "end_time" => {
                let ends = (0..ROWS).map(|n| (n * 1_800).cast_signed() % (2 * MINUTE_MICROS));
                Arc::new(TimestampMicrosecondArray::from_iter_values(ends).with_timezone("UTC"))
            }
            "duration_ns" => {
                Arc::new(Int64Array::from_iter_values((0..ROWS).map(|n| (mix(n) % 1_000_000_000).cast_signed())))
            }
            "wal_position" => Arc::new(Int64Array::from_iter_values((0..ROWS).map(|n| (n / 512).cast_signed()))),
            "kind" => words(&|_| "tool".to_owned()),
            "service_name" => words(&|n| format!("service-{}", mix(n) % TOOLS % SERVICES)),
            "tool_name" => words(&|n| format!("tool-{}", mix(n) % TOOLS)),
            "outcome" => words(&|n| if mix(n ^ 9).is_multiple_of(50) { "error" } else { "ok" }.to_owned()),
            _ => Arc::new(BooleanArray::from(vec![true; ROWS as usize])),
        }
    };
    let weights = Decimal128Array::from_iter_values((0..ROWS).map(|_| 1_000_000)).with_precision_and_scale(18, 6);
    let weights: ArrayRef = Arc::new(weights.unwrap_or_else(|error| panic!("{error}")));
    let columns = COLUMNS.into_iter().map(|name| (name, column(name))).chain([("weight", weights)]);
    let (fields, columns): (Vec<Field>, Vec<ArrayRef>) =
        columns.map(|(name, column)| (Field::new(name, column.data_type().clone(), true), column)).unzip();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap_or_else(|error| panic!("{error}"))
}

fn compiled(engine: &Engine, number: u64) -> CompiledSli {
    let total = match number % 10 {
        0..7 => format!("kind = 'tool' AND tool_name = 'tool-{}'", number % TOOLS),
        7..9 => format!("service_name = 'service-{}'", number % SERVICES),
        _ => format!("duration_ns > {number}"),
    };
    let place = |text: &str| Where { text: text.to_owned(), file: "".into(), place: Place::START, key: String::new() };
    let condition =
        |text: &str| engine.condition(text, &Table::Calls.schema()).unwrap_or_else(|error| panic!("{error}"));
    let (judged, judge) = (Judged::Good, "outcome = 'ok'");
    let sli = Sli { mode: Mode::Logical, layer: None, total: place(&total), judged, judge: place(judge) };
    CompiledSli::new(sli, condition(&total), condition(judge))
}

/// Adds everything up.
#[derive(Default)]
struct Sum(Counts);

impl Tally for Sum {
    fn add(&mut self, _: usize, _: Option<GroupAt<'_>>, _: Minute, counts: &Counts) {
        self.0 += counts;
    }

    fn fed_by(&mut self, _: usize, _: Option<GroupAt<'_>>, _: &str, _: Minute) {}

    fn outside(&mut self, _: usize, _: &GroupKey, _: Minute, counts: &Counts) {
        self.0 += counts;
    }

    fn began(&self, _: usize, _: &GroupKey) -> Option<WalPosition> {
        None
    }
}

fn main() {
    let engine = tables::engine(Settings::default()).unwrap_or_else(|error| panic!("{error}"));
    let batch = batch();
    println!("counting {ROWS} rows of {TOOLS} tools");
    for slos in [1, 100, 1_000, 10_000] {
        let slis: Vec<CompiledSli> = (0..slos).map(|number| compiled(&engine, number)).collect();
        let counter = Counter::new(&slis).unwrap_or_else(|error| panic!("{error}"));
        let mut events = 0;
        let seconds = best(|| {
            let mut sum = Sum::default();
            counter.count(&batch, None, &mut sum).unwrap_or_else(|error| panic!("{error}"));
            events = black_box(sum).0.total();
        });
        println!(
            "{slos:>6} SLOs: {:>9.1} ns a row, {:>6.1} ns a row and SLO, {:>6.1} ns an event",
            seconds * 1e9 / ROWS as f64,
            seconds * 1e9 / ROWS as f64 / slos as f64,
            seconds * 1e9 / events.max(1) as f64
        );
    }
}
