use std::collections::BTreeMap;

use arrow::array::{Decimal128Builder, StringDictionaryBuilder};
use arrow::datatypes::{Date32Type, Field, Int64Type, Schema, TimestampMicrosecondType};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use toolgauge_proto::time::{DAY_MICROS, MINUTE_MICROS};

use super::*;
use crate::hist::Histogram;

/// What a rollup reads of a call.
#[derive(Debug, Clone)]
struct Call {
    end_us: i64,
    duration_ns: i64,
    words: [Option<u8>; WORDS.len()],
    counted: bool,
    is_final: bool,
    attempt: i32,
    amounts: [Option<i64>; AMOUNTS.len()],
    cost: Option<i128>,
    weight: i128,
    /// Delay and loss, of a retry of an attempt that is known.
    retry: Option<(i64, i64)>,
    position: i64,
}

fn call() -> impl Strategy<Value = Call> {
    // Around midnight at the end of a leap day, at the end of a year, and before 1970.
    let day = prop_oneof![Just(1_709_251_200_000_000_i64), Just(1_798_761_600_000_000), Just(0)];
    let end = (day, -150_000_000..150_000_000_i64).prop_map(|(day, offset)| day + offset);
    // `kind`, `tenant`, `outcome` and `error_class` are never null.
    let words = vec(option::weighted(0.8, 0_u8..3), WORDS.len()).prop_map(|words| {
        let mut words: [Option<u8>; WORDS.len()] = words.try_into().unwrap();
        for required in [0, 1, 8, 9] {
            words[required] = words[required].or(Some(0));
        }
        words
    });
    let amount = || option::of(prop_oneof![9 => 0..10_000_i64, 1 => Just(i64::MAX)]);
    let amounts = [amount(), amount(), amount(), amount()];
    let cost = option::of(prop_oneof![9 => 0..5_000_000_000_i128, 1 => Just(DECIMAL_MAX), 1 => Just(-7)]);
    let weight = prop_oneof![5 => Just(1_000_000_i128), 1 => 1..DECIMAL_MAX];
    let duration = prop_oneof![9 => 0..3_000_000_000_i64, 1 => Just(i64::MAX)];
    let flags = (any::<bool>(), any::<bool>(), 1..4_i32);
    let lost = prop_oneof![9 => 0..3_000_000_000_i64, 1 => Just(i64::MAX)];
    let retry = option::weighted(0.2, (0..2_000_000_000_i64, lost));
    (end, duration, words, flags, amounts, cost, weight, (retry, 1..40_i64)).prop_map(
        |(end_us, duration_ns, words, flags, amounts, cost, weight, (retry, position))| {
            let (counted, is_final, attempt) = flags;
            Call { end_us, duration_ns, words, counted, is_final, attempt, amounts, cost, weight, retry, position }
        },
    )
}

fn text(word: u8) -> String {
    format!("word-{word}")
}

#[derive(Clone, Copy)]
enum Form {
    Live,
    Settled,
}

/// A batch with the columns of `calls` that a rollup reads, and no others.
fn batch(calls: &[Call], form: Form) -> RecordBatch {
    let decimals = |values: Vec<Option<i128>>, scale| {
        let mut builder = Decimal128Builder::new();
        values.into_iter().for_each(|value| builder.append_option(value));
        Arc::new(builder.finish().with_precision_and_scale(18, scale).unwrap()) as ArrayRef
    };
    let columns = COLUMNS.map(|name| -> ArrayRef {
        if let Some(at) = WORDS.iter().position(|word| *word == name) {
            let words = calls.iter().map(|call| call.words[at].map(text));
            return match form {
                Form::Settled => Arc::new(words.collect::<StringArray>()),
                Form::Live => {
                    let mut builder = StringDictionaryBuilder::<UInt16Type>::new();
                    words.for_each(|word| builder.append_option(word));
                    Arc::new(builder.finish())
                }
            };
        }
        if let Some(at) = AMOUNTS.iter().position(|amount| *amount == name) {
            return Arc::new(calls.iter().map(|call| call.amounts[at]).collect::<Int64Array>());
        }
        match name {
            "end_time" => {
                let times = calls.iter().map(|call| call.end_us);
                Arc::new(TimestampMicrosecondArray::from_iter_values(times).with_timezone("UTC"))
            }
            "duration_ns" => Arc::new(calls.iter().map(|call| Some(call.duration_ns)).collect::<Int64Array>()),
            "counted" => Arc::new(calls.iter().map(|call| Some(call.counted)).collect::<BooleanArray>()),
            "final" => Arc::new(calls.iter().map(|call| Some(call.is_final)).collect::<BooleanArray>()),
            "attempt" => Arc::new(calls.iter().map(|call| Some(call.attempt)).collect::<Int32Array>()),
            "cost_usd" => decimals(calls.iter().map(|call| call.cost).collect(), COST_SCALE),
            "retry_delay_ns" => Arc::new(calls.iter().map(|call| Some(call.retry?.0)).collect::<Int64Array>()),
            "retry_lost_ns" => Arc::new(calls.iter().map(|call| Some(call.retry?.1)).collect::<Int64Array>()),
            "wal_position" => Arc::new(calls.iter().map(|call| Some(call.position)).collect::<Int64Array>()),
            "weight" => decimals(calls.iter().map(|call| Some(call.weight)).collect(), WEIGHT_SCALE),
            other => panic!("a rollup reads {other:?}, which the tests do not know"),
        }
    });
    let table = match form {
        Form::Live => Table::Calls.live_schema(),
        Form::Settled => Table::Calls.schema(),
    };
    let fields: Vec<Field> = COLUMNS.iter().map(|name| table.field_with_name(name).unwrap().clone()).collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns.to_vec()).unwrap()
}

type ModelKey = (i64, [Option<String>; WORDS.len()], bool, bool);

/// All sums of a key, the latencies as the values that were counted.
#[derive(Debug, Default, PartialEq, Eq)]
struct ModelSums {
    calls: i128,
    retries: i128,
    last_end_us: Option<i64>,
    attempts: i128,
    weight: i128,
    retries_weight: i128,
    weight_squares: i128,
    duration_ns: i128,
    cost: Option<i128>,
    priced: i128,
    amounts: [i128; AMOUNTS.len()],
    latency: Histogram,
    lost_ns: Option<i128>,
    delay: Option<Histogram>,
}

fn recount(calls: &[Call]) -> BTreeMap<ModelKey, ModelSums> {
    let mut model: BTreeMap<ModelKey, (ModelSums, Recorder, Recorder)> = BTreeMap::new();
    for call in calls {
        let (sums, latency, delay) = model.entry(key_of(call)).or_default();
        sums.calls += 1;
        sums.last_end_us = sums.last_end_us.max(Some(call.end_us));
        sums.retries += i128::from(call.attempt > 1);
        sums.weight += call.weight;
        sums.duration_ns += i128::from(call.duration_ns);
        if let Some(cost) = call.cost {
            *sums.cost.get_or_insert(0) += cost;
            sums.priced += 1;
        }
        for (sum, amount) in sums.amounts.iter_mut().zip(call.amounts) {
            *sum += i128::from(amount.unwrap_or(0));
        }
        latency.record(micros_of(call.duration_ns));
        sums.attempts += i128::from(call.attempt);
        sums.retries_weight += if call.attempt > 1 { call.weight } else { 0 };
        let capped = call.weight.min(999_999_999_999);
        let (whole, rest) = (capped * capped / 1_000_000, capped * capped % 1_000_000);
        sums.weight_squares += whole + i128::from(rest >= 500_000);
        if let Some((delay_ns, lost_ns)) = call.retry {
            delay.record(micros_of(delay_ns));
            *sums.lost_ns.get_or_insert(0) += i128::from(lost_ns);
        }
    }
    let finish = |(key, (sums, latency, delay)): (ModelKey, (ModelSums, Recorder, Recorder))| {
        let sums = ModelSums { delay: sums.lost_ns.map(|_| delay.finish()), latency: latency.finish(), ..sums };
        (key, sums)
    };
    model.into_iter().map(finish).collect()
}

fn key_of(call: &Call) -> ModelKey {
    let minute = call.end_us - call.end_us.rem_euclid(MINUTE_MICROS);
    (minute, call.words.map(|word| word.map(text)), call.counted, call.is_final)
}

/// The rows that were given, those of one key added up.
fn read(batches: &[RecordBatch]) -> BTreeMap<ModelKey, ModelSums> {
    let mut read: BTreeMap<ModelKey, ModelSums> = BTreeMap::new();
    for batch in batches {
        assert_eq!(batch.schema(), Table::Calls1m.live_schema());
        let column = |name: &str| batch.column_by_name(name).unwrap();
        let integer = |name: &str, row: usize| i128::from(column(name).as_primitive::<Int64Type>().value(row));
        for row in 0..batch.num_rows() {
            let minute = column("minute").as_primitive::<TimestampMicrosecondType>().value(row);
            let date = column("date").as_primitive::<Date32Type>().value(row);
            assert_eq!(i64::from(date), minute.div_euclid(DAY_MICROS));
            let words = WORDS.map(|name| {
                let words = column(name).as_dictionary::<UInt16Type>();
                let key = words.keys().is_valid(row).then(|| words.keys().value(row));
                key.map(|key| words.values().as_string::<i32>().value(key.into()).to_owned())
            });
            let flag = |name: &str| column(name).as_boolean().value(row);
            let sums = read.entry((minute, words, flag("counted"), flag("final"))).or_default();
            sums.calls += integer("calls", row);
            let last_end = column("last_end_time").as_primitive::<TimestampMicrosecondType>().value(row);
            sums.last_end_us = sums.last_end_us.max(Some(last_end));
            sums.retries += integer("retries", row);
            sums.weight += column("weighted_calls").as_primitive::<Decimal128Type>().value(row);
            sums.duration_ns += integer("duration_ns_sum", row);
            let cost = column("cost_usd").as_primitive::<Decimal128Type>();
            if cost.is_valid(row) {
                *sums.cost.get_or_insert(0) += cost.value(row);
            }
            sums.priced += integer("priced_calls", row);
            let add = |sum: &mut Option<i128>, value: Option<i128>| {
                if let Some(value) = value {
                    *sum.get_or_insert(0) += value;
                }
            };
            let known = |name: &str| column(name).is_valid(row).then(|| integer(name, row));
            sums.attempts += integer("calls", row) + known("further_attempts").unwrap_or(0);
            add(&mut sums.lost_ns, known("retry_lost_ns_sum"));
            let decimal = |name: &str| {
                let column = column(name).as_primitive::<Decimal128Type>();
                column.is_valid(row).then(|| column.value(row))
            };
            sums.retries_weight += integer("retries", row) * 1_000_000 + decimal("retries_further_weight").unwrap_or(0);
            sums.weight_squares += integer("calls", row) * 1_000_000 + decimal("further_weight_squares").unwrap_or(0);
            let delay = column("retry_delay").as_binary::<i32>();
            if delay.is_valid(row) {
                let delay = Histogram::from_payload(delay.value(row)).unwrap();
                sums.delay.get_or_insert_default().merge(&delay);
            }
            for (sum, name) in sums.amounts.iter_mut().zip(AMOUNTS) {
                *sum += integer(name, row);
            }
            sums.latency.merge(&Histogram::from_payload(column("latency").as_binary::<i32>().value(row)).unwrap());
        }
    }
    read
}

fn rolled<'a>(batches: impl IntoIterator<Item = &'a [Call]>, form: Form) -> CallsRollup {
    let mut rollup = CallsRollup::default();
    batches.into_iter().for_each(|calls| rollup.add(&batch(calls, form)).unwrap());
    rollup
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_sum_is_that_of_a_recount(calls in vec(call(), 0..300), size in 1_usize..150) {
        let live = rolled(calls.chunks(size), Form::Live);
        let expected = recount(&calls);
        prop_assert_eq!(live.len(), expected.len());
        prop_assert_eq!(read(&live.batches().unwrap()), expected);
        let settled = rolled(calls.chunks(size), Form::Settled);
        prop_assert_eq!(settled.batches().unwrap(), live.batches().unwrap());
    }

    #[test]
    fn parts_in_any_order_are_the_whole(calls in vec(call(), 0..300), seed in any::<u64>(), parts in 1_usize..5) {
        let whole = rolled([calls.as_slice()], Form::Live);
        let mut shuffled = calls;
        shuffled.sort_by_key(|call| (call.duration_ns as u64 ^ call.end_us as u64).wrapping_mul(seed | 1));
        let mut merged = CallsRollup::default();
        for part in shuffled.chunks(shuffled.len().div_ceil(parts).max(1)) {
            merged.merge(&rolled(part.chunks(50), Form::Live));
        }
        prop_assert_eq!(merged.batches().unwrap(), whole.batches().unwrap());
    }
}

fn plain() -> Call {
    Call {
        end_us: 0,
        duration_ns: 5_000,
        words: [Some(0); WORDS.len()],
        counted: true,
        is_final: true,
        attempt: 1,
        amounts: [None; AMOUNTS.len()],
        cost: None,
        weight: 1_000_000,
        retry: None,
        position: 1,
    }
}

#[test]
fn nothing_gives_no_rows() {
    let rollup = rolled([[].as_slice()], Form::Live);
    assert!(rollup.is_empty() && rollup.batches().unwrap().is_empty());
}

#[test]
fn more_keys_than_a_dictionary_has_words_give_several_batches() {
    let calls: Vec<Call> = (0..40_000).map(|n| Call { end_us: n * MINUTE_MICROS, ..plain() }).collect();
    let batches = rolled(calls.chunks(4_096), Form::Live).batches().unwrap();
    assert_eq!(batches.iter().map(RecordBatch::num_rows).collect::<Vec<_>>(), [BATCH_ROWS, 40_000 - BATCH_ROWS]);
}

#[test]
fn a_sum_too_large_for_its_column_is_split() {
    let calls = vec![Call { duration_ns: i64::MAX, cost: Some(-DECIMAL_MAX), ..plain() }; 3];
    let batches = rolled([calls.as_slice()], Form::Live).batches().unwrap();
    let column = |name: &str| batches[0].column_by_name(name).unwrap().as_primitive::<Int64Type>().values().to_vec();
    assert_eq!(column("duration_ns_sum"), [i64::MAX; 3]);
    assert_eq!(column("calls"), [3, 0, 0]);
    assert_eq!(read(&batches), recount(&calls));
}

#[test]
fn a_batch_that_is_not_of_calls_adds_nothing() {
    let good = batch(&[plain()], Form::Live);
    let mut rollup = CallsRollup::default();
    let without_weight = good.project(&(0..20).collect::<Vec<_>>()).unwrap();
    let error = rollup.add(&without_weight).unwrap_err().to_string();
    assert_eq!(error, "Schema error: rows of calls have no column \"weight\"");
    let mut columns = good.columns().to_vec();
    let mut fields: Vec<Field> = good.schema().fields().iter().map(|field| field.as_ref().clone()).collect();
    columns[1] = Arc::new(Int64Array::from(vec![None]));
    fields[1] = fields[1].clone().with_nullable(true);
    let nulls = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap();
    let error = rollup.add(&nulls).unwrap_err().to_string();
    assert_eq!(error, "Schema error: column \"duration_ns\" of calls has nulls");
    assert!(rollup.is_empty());
}

#[test]
fn memory_is_told() {
    let mut rollup = rolled([[plain()].as_slice()], Form::Live);
    let one = rollup.heap_bytes();
    for n in 0..1_000 {
        rollup.add(&batch(&[Call { end_us: n * MINUTE_MICROS, ..plain() }], Form::Live)).unwrap();
    }
    assert!(one > 0 && rollup.heap_bytes() > one + 1_000 * (size_of::<Key>() + size_of::<Sums>()));
}

/// By the definition: of each date the series that came first keep their names, as far as there is room.
fn with_names(calls: &[Call], max: usize) -> Vec<Call> {
    // "word-9" stands for what has no name.
    const OTHER_WORD: u8 = 9;
    let date = |call: &Call| call.end_us.div_euclid(DAY_MICROS);
    let names = |call: &Call| -> Vec<Option<String>> { call.words[1..8].iter().map(|word| word.map(text)).collect() };
    let mut first: BTreeMap<(i64, Vec<Option<String>>), i64> = BTreeMap::new();
    for call in calls.iter().filter(|call| call.words[2..8].iter().any(Option::is_some)) {
        let at = first.entry((date(call), names(call))).or_insert(i64::MAX);
        *at = (*at).min(call.position);
    }
    let mut order: Vec<_> = first.into_iter().map(|((date, names), first)| (date, first, names)).collect();
    order.sort();
    let named: BTreeMap<i64, Vec<_>> = order.into_iter().fold(BTreeMap::new(), |mut named, (date, _, names)| {
        named.entry(date).or_insert_with(Vec::new).push(names);
        named
    });
    let renamed = calls.iter().map(|call| {
        let mut call = call.clone();
        let of_date = named.get(&date(&call)).map_or(&[][..], Vec::as_slice);
        if !of_date.iter().take(max).any(|known| *known == names(&call)) {
            call.words[2..8].iter_mut().flatten().for_each(|word| *word = OTHER_WORD);
        }
        call
    });
    renamed.collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Scenario: rows of some exports are folded in parts of whole exports, with few names for each date; a restart forgets what is
    /// known, and learns it from the rows that were given. Guarantees: the rows are those of the definition, whatever the parts.
    #[test]
    fn series_beyond_the_limit_are_folded_into_one_whatever_the_parts(
        mut calls in vec(call(), 0..150), max in 0_usize..12, parts in 1_usize..6, restart in 0_usize..6,
    ) {
        let expected: BTreeMap<ModelKey, ModelSums> = recount(&with_names(&calls, max))
            .into_iter()
            .map(|((minute, words, counted, is_final), sums)| {
                let words = words.map(|word| word.map(|word| word.replace("word-9", series::OTHER)));
                ((minute, words, counted, is_final), sums)
            })
            .collect();
        calls.sort_by_key(|call| call.position);
        let exports: Vec<&[Call]> = calls.chunk_by(|a, b| a.position == b.position).collect();
        let mut known = KnownSeries::new(max);
        let mut all = CallsRollup::default();
        for (number, part) in exports.chunks(exports.len().div_ceil(parts).max(1)).enumerate() {
            let mut rollup = rolled(part.iter().copied(), Form::Live);
            if number == restart {
                known = KnownSeries::new(max);
                for date in all.dates() {
                    known.learn(date, all.series_on(date));
                }
            }
            let before = rollup.clone();
            let admission = rollup.fold_series(&known);
            prop_assert_eq!(before.len() >= rollup.len(), true);
            prop_assert_eq!(admission.folded.is_empty(), admission.folded_calls == 0);
            known.admit(&admission);
            all.merge(&rollup);
        }
        prop_assert_eq!(read(&all.batches().unwrap()), expected);
        prop_assert!(all.dates().iter().all(|date| known.len(*date) <= max));
    }
}
