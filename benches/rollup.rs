//! What the arithmetic of rollups and alerts costs: a row of `calls_1m`'s fold by the number of its keys, a latency, a round of
//! evaluations by the number of SLOs.
//!
//! `cargo bench --bench rollup`

#![expect(clippy::print_stdout, reason = "a benchmark prints what it measured")]

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{
    ArrayRef, AsArray, BooleanArray, Decimal128Array, Int32Array, Int64Array, RecordBatch, StringDictionaryBuilder,
    TimestampMicrosecondArray, new_null_array,
};
use arrow::datatypes::{Field, Schema, UInt16Type};
use toolgauge_analytics::alert::{Evaluation, Observation, Patience, State, step};
use toolgauge_analytics::budget::{Target, default_tiers};
use toolgauge_analytics::hist::{Histogram, Recorder};
use toolgauge_analytics::rollup::{COLUMNS, CallsRollup};
use toolgauge_analytics::sli::Counts;
use toolgauge_analytics::window::{Minute, MinuteRing, Window};
use toolgauge_proto::table::Table;
use toolgauge_proto::time::MINUTE_MICROS;

const MEASURED_FOR: Duration = Duration::from_millis(500);
const BATCH_ROWS: u64 = 8_192;
const BATCHES: u64 = 32;

/// A number without order.
fn mix(n: u64) -> u64 {
    (n + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(31).wrapping_mul(0xbf58_476d_1ce4_e5b9)
}

/// A latency from a hundred microseconds to about a second, most of them small.
fn latency_ns(n: u64) -> i64 {
    let size = mix(n) % 14;
    (100_000 + (mix(n ^ 77) % (100_000 << size))).cast_signed()
}

/// Seconds that one run takes, the best of those that fit the time.
fn best(mut run: impl FnMut()) -> f64 {
    let (begun, mut best) = (Instant::now(), f64::MAX);
    while begun.elapsed() < MEASURED_FOR {
        let run_begun = Instant::now();
        run();
        best = best.min(run_begun.elapsed().as_secs_f64());
    }
    best
}

/// Live rows: so many tools, one call in 50 failed, all within two minutes.
fn batch(first: u64, tools: u64) -> RecordBatch {
    let rows = first..first + BATCH_ROWS;
    let integers = |value: &dyn Fn(u64) -> i64| -> ArrayRef {
        Arc::new(rows.clone().map(|n| Some(value(n))).collect::<Int64Array>())
    };
    let failed = |n: u64| mix(n).is_multiple_of(50);
    let words = |value: &dyn Fn(u64) -> String| -> ArrayRef {
        let mut words = StringDictionaryBuilder::<UInt16Type>::new();
        rows.clone().for_each(|n| words.append_value(value(n)));
        Arc::new(words.finish())
    };
    let live = Table::Calls.live_schema();
    let fields: Vec<Field> = COLUMNS.iter().filter_map(|name| live.field_with_name(name).ok().cloned()).collect();
    let columns = fields.iter().map(|field| match field.name().as_str() {
        "end_time" => {
            let ends = rows.clone().map(|n| (n * 200).cast_signed() % (2 * MINUTE_MICROS));
            Arc::new(TimestampMicrosecondArray::from_iter_values(ends).with_timezone("UTC")) as ArrayRef
        }
        "duration_ns" => integers(&latency_ns),
        "kind" => words(&|_| "tool".to_owned()),
        "tenant" => words(&|_| "default".to_owned()),
        "service_name" => words(&|n| format!("service-{}", mix(n) % tools % 7)),
        "tool_name" => words(&|n| format!("tool-{}", mix(n) % tools)),
        "tool_server" => words(&|n| format!("server-{}", mix(n) % tools % 20)),
        "outcome" => words(&|n| if failed(n) { "error" } else { "ok" }.to_owned()),
        "error_class" => words(&|n| if failed(n) { "timeout" } else { "none" }.to_owned()),
        "counted" | "final" => Arc::new(BooleanArray::from(vec![true; BATCH_ROWS as usize])),
        "attempt" => Arc::new(Int32Array::from_iter_values(rows.clone().map(|n| 1 + i32::from(failed(n ^ 5))))),
        "wal_position" => integers(&|n| (n / 512).cast_signed()),
        "input_bytes" => integers(&|n| (mix(n) % 2_000).cast_signed()),
        "weight" => {
            let ones = Decimal128Array::from_iter_values(rows.clone().map(|_| 1_000_000));
            ones.with_precision_and_scale(18, 6)
                .map_or_else(|_| new_null_array(field.data_type(), 0), |ones| Arc::new(ones))
        }
        _ => new_null_array(field.data_type(), BATCH_ROWS as usize),
    });
    let columns = columns.collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap_or_else(|error| panic!("{error}"))
}

fn rollups() {
    println!("rollup of {} rows within two minutes, for each row", BATCHES * BATCH_ROWS);
    for tools in [1, 100, 2_000] {
        let batches: Vec<RecordBatch> = (0..BATCHES).map(|n| batch(n * BATCH_ROWS, tools)).collect();
        let fold = || {
            let mut rollup = CallsRollup::default();
            for batch in &batches {
                rollup.add(batch).unwrap_or_else(|error| panic!("{error}"));
            }
            rollup
        };
        let add = best(|| drop(black_box(fold())));
        let rollup = fold();
        let rows = rollup.batches().unwrap_or_else(|error| panic!("{error}"));
        let give = best(|| drop(black_box(rollup.batches())));
        let calls = (BATCHES * BATCH_ROWS) as f64;
        let given: usize = rows.iter().map(RecordBatch::num_rows).sum();
        let bytes: usize = rows.iter().map(latency_bytes).sum();
        println!(
            "  {tools:>5} tools: {:6.1} ns to add, {:6.1} ns to give {given} rows; {:5.2} bytes of histograms; {} KiB held",
            add * 1e9 / calls,
            give * 1e9 / calls,
            bytes as f64 / calls,
            rollup.heap_bytes() / 1_024
        );
    }
}

fn latency_bytes(batch: &RecordBatch) -> usize {
    batch.column_by_name("latency").map_or(0, |column| column.as_binary::<i32>().value_data().len())
}

fn histograms() {
    const VALUES: u64 = 100_000;
    let micros: Vec<u64> = (0..VALUES).map(|n| latency_ns(n).cast_unsigned() / 1_000).collect();
    let record = || {
        let mut recorder = Recorder::default();
        micros.iter().for_each(|micros| recorder.record(*micros));
        recorder.finish()
    };
    let counted = best(|| drop(black_box(record())));
    let minutes: Vec<Vec<u8>> = micros
        .chunks(100)
        .map(|values| {
            let (mut recorder, mut payload) = (Recorder::default(), Vec::new());
            values.iter().for_each(|micros| recorder.record(*micros));
            recorder.finish().payload(&mut payload);
            payload
        })
        .collect();
    let merge = || {
        let mut recorder = Recorder::default();
        for payload in &minutes {
            recorder.add_payload(payload).unwrap_or_else(|error| panic!("{error}"));
        }
        recorder.finish()
    };
    let merged = best(|| drop(black_box(merge())));
    let histogram: Histogram = merge();
    let quantile = best(|| {
        black_box(histogram.quantile(black_box(0.99)));
    });
    println!("histogram");
    println!("  counting a value:                     {:6.1} ns", counted * 1e9 / VALUES as f64);
    println!("  merging the payload of 100 values:    {:6.1} ns", merged * 1e9 / minutes.len() as f64);
    println!("  a quantile of {VALUES} values:        {:6.1} ns", quantile * 1e9);
    let bytes: usize = minutes.iter().map(Vec::len).sum();
    println!("  payload of 100 values:                {:6.1} bytes", bytes as f64 / minutes.len() as f64);
}

/// A round: each SLO has had rows since the last, its windows go on to the next minute, and its four tiers are decided.
fn evaluations() {
    println!("a round of evaluations, with a month of calls in every minute");
    let target = Target::from_ratio("0.999").unwrap_or_else(|error| panic!("{error}"));
    let tiers = default_tiers(Window::D30, target);
    let windows: Arc<[Window]> = tiers.iter().flat_map(|tier| [tier.long, tier.short]).chain([Window::D30]).collect();
    let month = i64::from(Window::D30.minutes());
    let mut loaded = MinuteRing::new(Arc::clone(&windows), Minute(0));
    for minute in 0..month {
        loaded
            .add(Minute(minute - month), &Counts { good: 990 + mix(minute as u64) % 20, bad: 1, ..Counts::default() });
    }
    println!("  {} KiB for each SLO", loaded.heap_bytes() / 1_024);
    for slos in [1, 100, 1_000] {
        let mut rings = vec![(loaded.clone(), [State::Inactive; 4]); slos];
        let mut now = 0;
        let took = best(|| {
            now += 1;
            for (ring, states) in &mut rings {
                ring.advance(Minute(now));
                ring.add(Minute(now), &Counts { good: 990, bad: 1, ..Counts::default() });
                for (index, (tier, state)) in tiers.iter().zip(states).enumerate() {
                    let (long, short) = (ring.sum(2 * index), ring.sum(2 * index + 1));
                    let burns = tier.burns(&long, &short, target);
                    let observation = Observation { evaluation: Evaluation::Ok, burns, long_total: long.total() };
                    *state = black_box(step(*state, &observation, Patience::default(), Minute(now).start())).0;
                }
            }
        });
        println!("  {slos:>5} SLOs: {:9.1} us, {:6.2} us for each", took * 1e6, took * 1e6 / slos as f64);
    }
}

fn main() {
    histograms();
    rollups();
    evaluations();
}
