use std::collections::BTreeMap;

use arrow::array::{BinaryArray, BooleanArray, StringArray};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use proptest::prelude::*;
use toolgauge_proto::time::{DAY_MICROS, MINUTE_MICROS};

use super::*;
use crate::hist::Histogram;

/// 2026-01-31T23:00:00Z: what follows lies in two dates.
const BEGIN_US: i64 = 1_769_900_400_000_000;

/// Numbers without order.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        (self.0 >> 33) % n
    }

    fn latency(&mut self) -> Vec<u8> {
        let mut recorder = Recorder::default();
        for _ in 0..self.below(40) {
            recorder.record(1 + self.below(3_000_000));
        }
        let mut payload = Vec::new();
        recorder.finish().payload(&mut payload);
        payload
    }
}

/// Rows of few keys, some with sums that no two of fit into their column.
fn rows(table: Table, dice: &mut Dice, n: usize, large_one_in: u64) -> RecordBatch {
    let starts: Vec<i64> = (0..n).map(|_| BEGIN_US + dice.below(3) as i64 * 40 * MINUTE_MICROS).collect();
    let step = if table == Table::Calls1h { HOUR_MICROS } else { MINUTE_MICROS };
    let starts: Vec<i64> = starts.into_iter().map(|start| start - start.rem_euclid(step)).collect();
    let columns = table.columns().iter().enumerate().map(|(at, column)| -> ArrayRef {
        let null = |dice: &mut Dice| column.nullable && dice.below(4) == 0;
        match (at, column.column_type) {
            (0, _) => Arc::new(Date32Array::from_iter_values(starts.iter().map(|at| UnixMicros(*at).date32()))),
            (TIME, _) => Arc::new(TimestampMicrosecondArray::from(starts.clone()).with_timezone("UTC")),
            (_, ColumnType::Timestamp) => {
                let times = starts.iter().map(|start| start + dice.below(1_000) as i64);
                Arc::new(TimestampMicrosecondArray::from_iter_values(times).with_timezone("UTC"))
            }
            (_, ColumnType::Bool) => Arc::new((0..n).map(|_| Some(dice.below(2) == 0)).collect::<BooleanArray>()),
            (_, ColumnType::Binary) => {
                Arc::new((0..n).map(|_| (!null(dice)).then(|| dice.latency())).collect::<BinaryArray>())
            }
            (_, ColumnType::Word | ColumnType::Text) => {
                let word = |dice: &mut Dice| (!null(dice)).then(|| ["", "a"][dice.below(2) as usize]);
                // Few columns differ, so that keys meet.
                let words = (0..n).map(|_| if at < 5 { word(dice) } else { Some("x") });
                Arc::new(words.collect::<StringArray>())
            }
            (_, kind) => {
                let max = greatest_of(kind);
                let value = |dice: &mut Dice| match dice.below(large_one_in) {
                    0 => max - 1,
                    _ => i128::from(dice.below(1_000)) - 10,
                };
                let values: Vec<_> = (0..n).map(|_| (!null(dice)).then(|| value(dice))).collect();
                match kind {
                    ColumnType::Decimal(scale) => {
                        let values: Decimal128Array = values.into_iter().collect();
                        Arc::new(values.with_precision_and_scale(18, scale).unwrap())
                    }
                    _ => Arc::new(values.into_iter().map(|value| value.map(|v| v as i64)).collect::<Int64Array>()),
                }
            }
        }
    });
    RecordBatch::try_new(table.schema(), columns.collect()).unwrap()
}

/// Sums of a key, and counts by bucket.
type Sums = (BTreeMap<&'static str, Option<i128>>, BTreeMap<(&'static str, u64), u64>);

/// What rows say, by their keys as text; hours of minutes if `hours`.
fn said(batches: &[RecordBatch], table: Table, into: Table) -> BTreeMap<Vec<String>, Sums> {
    let options = FormatOptions::default().with_null("(null)");
    let mut all: BTreeMap<Vec<String>, Sums> = BTreeMap::new();
    for batch in batches {
        for row in 0..batch.num_rows() {
            let (mut key, mut sums, mut buckets) = (Vec::new(), Vec::new(), Vec::new());
            for (at, column) in table.columns().iter().enumerate() {
                let array = batch.column(at);
                let number = || match column.column_type {
                    ColumnType::Decimal(_) => array.as_primitive::<Decimal128Type>().value(row),
                    ColumnType::Timestamp => array.as_primitive::<TimestampMicrosecondType>().value(row).into(),
                    _ => array.as_primitive::<Int64Type>().value(row).into(),
                };
                match table.merge(column) {
                    _ if at == TIME && into == Table::Calls1h => {
                        key.push(UnixMicros(number() as i64).hour().0.to_string());
                    }
                    Merge::Key if at == TIME => key.push(number().to_string()),
                    Merge::Key => {
                        let text = ArrayFormatter::try_new(array, &options).unwrap().value(row).to_string();
                        key.push(format!("{}={text}", array.is_null(row)));
                    }
                    Merge::Histogram => {
                        let payloads = array.as_binary::<i32>();
                        let histogram =
                            payloads.is_valid(row).then(|| Histogram::from_payload(payloads.value(row)).unwrap());
                        let histogram = histogram.unwrap_or_default();
                        buckets.extend(histogram.buckets().map(|(_, end, count)| ((column.name, end), count)));
                    }
                    merge => sums.push((column.name, merge, array.is_valid(row).then(number))),
                }
            }
            let (known, counts) = all.entry(key).or_default();
            for (name, merge, value) in sums {
                let sum = known.entry(name).or_default();
                *sum = match (merge, *sum, value) {
                    (_, None, one) | (_, one, None) => one,
                    (Merge::Sum, Some(a), Some(b)) => Some(a + b),
                    (_, Some(a), Some(b)) => Some(a.max(b)),
                };
            }
            buckets.into_iter().for_each(|(end, count)| *counts.entry(end).or_default() += count);
        }
    }
    all
}

const ADDITIVE: [Table; 4] = [Table::Arrivals, Table::Calls1m, Table::Slo1m, Table::Calls1h];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn merged_rows_say_what_the_rows_said(seed in any::<u64>(), n in 1_usize..120, parts in 1_usize..5, large in 2_u64..2_000) {
        let dice = &mut Dice(seed);
        for table in ADDITIVE {
            let batch = rows(table, dice, n, large);
            let expected = said(std::slice::from_ref(&batch), table, table);
            let mut whole = Additive::new(table).unwrap();
            // In parts, merged on the way, live or settled.
            for start in (0..n).step_by(n.div_ceil(parts)) {
                let mut part = Additive::new(table).unwrap();
                part.add(&batch.slice(start, n.div_ceil(parts).min(n - start))).unwrap();
                let merged = if start % 2 == 0 { part.live_batches() } else { part.batches() };
                merged.unwrap().iter().for_each(|batch| whole.add(batch).unwrap());
            }
            let merged = whole.batches().unwrap();
            prop_assert_eq!(said(&merged, table, table), expected.clone());
            prop_assert_eq!(whole.len(), merged.iter().map(RecordBatch::num_rows).sum::<usize>());
            prop_assert!(whole.len() >= expected.len());
            let times = merged[0].column(TIME).as_primitive::<TimestampMicrosecondType>();
            prop_assert!(times.values().is_sorted());
        }
    }

    #[test]
    fn a_key_has_one_row_if_its_sums_fit(seed in any::<u64>(), n in 1_usize..200) {
        for table in ADDITIVE {
            let batch = rows(table, &mut Dice(seed), n, u64::MAX);
            let keys = said(std::slice::from_ref(&batch), table, table).len();
            let mut merged = Additive::new(table).unwrap();
            merged.add(&batch).unwrap();
            prop_assert_eq!(merged.len(), keys);
        }
    }

    #[test]
    fn hours_of_minutes_say_what_the_minutes_said(seed in any::<u64>(), n in 1_usize..120) {
        let minutes = rows(Table::Calls1m, &mut Dice(seed), n, 500);
        let expected = said(std::slice::from_ref(&minutes), Table::Calls1m, Table::Calls1h);
        let mut hours = Additive::new(Table::Calls1h).unwrap();
        hours.add(&minutes).unwrap();
        let hours = hours.batches().unwrap();
        prop_assert_eq!(said(&hours, Table::Calls1h, Table::Calls1h), expected);
    }
}

#[test]
fn dates_are_those_of_the_times() {
    let mut merged = Additive::new(Table::Slo1m).unwrap();
    let batch = rows(Table::Slo1m, &mut Dice(3), 50, u64::MAX);
    let columns: Vec<usize> = (1..batch.num_columns()).collect();
    // Files have no date.
    merged.add(&batch.project(&columns).unwrap()).unwrap();
    for batch in merged.batches().unwrap() {
        let dates = batch.column(0).as_primitive::<arrow::datatypes::Date32Type>();
        let times = batch.column(TIME).as_primitive::<TimestampMicrosecondType>();
        assert!(dates.values().iter().zip(times.values()).all(|(date, time)| i64::from(*date) == time / DAY_MICROS));
        assert!(dates.value(0) < dates.value(batch.num_rows() - 1));
    }
}

#[test]
fn other_tables_and_rows_are_refused() {
    let refused = |table| Additive::new(table).unwrap_err().to_string();
    assert_eq!(refused(Table::Calls), "Invalid argument error: rows of \"calls\" have no sums");
    let minutes = rows(Table::Calls1m, &mut Dice(1), 3, 9);
    let error = Additive::new(Table::Slo1m).unwrap().add(&minutes).unwrap_err().to_string();
    assert_eq!(error, "Schema error: rows have no column \"service\"");
    let mut broken: Vec<ArrayRef> = minutes.columns().to_vec();
    broken[Table::Calls1m.index_of("latency")] = Arc::new(BinaryArray::from_iter_values([b"x"; 3]));
    let broken = RecordBatch::try_new(minutes.schema(), broken).unwrap();
    let error = Additive::new(Table::Calls1m).unwrap().add(&broken).unwrap_err().to_string();
    assert!(error.contains("not a latency histogram"), "{error}");
}
