//! However the rows of a trace arrive within the settle time, and whenever somebody looks, every number ends the same.

use std::collections::BTreeMap;

use arrow::array::{Array as _, AsArray as _, RecordBatch};
use arrow::datatypes::{DataType, Int32Type, Int64Type, TimestampMicrosecondType};
use toolgauge_collector::export::Export;
use toolgauge_collector::fs::sim::SimRng;
use toolgauge_collector::pipeline::Fold;
use toolgauge_collector::wal::{Frame, FrameContent};
use toolgauge_proto::id::WalPosition;
use toolgauge_proto::table::Table;
use toolgauge_proto::time::UnixMicros;

use crate::machine::{fold_view, settings};
use crate::rows::Rows;
use crate::spans::{CLIENT, SERVER, SpanOf, Told, export, exports};
use crate::workload::{SERVICES, shuffle, story};
use crate::{each, runs};

const NOW_US: i64 = 1_767_312_000_000_000;

/// A fold that is given exports.
struct Counting {
    fold: Fold,
    position: u64,
}

impl Counting {
    fn new() -> Self {
        Self { fold: Fold::new(&settings()).unwrap(), position: 0 }
    }

    fn frame(&mut self, at_us: i64, content: FrameContent) {
        self.position += 1;
        let frame = Frame { position: WalPosition(self.position), receive_time: UnixMicros(at_us), content };
        self.fold.apply(&frame).unwrap();
    }

    fn take(&mut self, at_us: i64, export: Export) {
        self.frame(at_us, FrameContent::Export(export));
    }

    fn take_all(&mut self, at_us: i64, exports: Vec<Export>) {
        exports.into_iter().for_each(|export| self.take(at_us, export));
    }

    /// Lets everything settle, and gives what is committed then.
    fn settle(mut self, at_us: i64) -> Rows {
        self.frame(at_us + 10_000_000, FrameContent::Tick);
        let live = fold_view(&mut self.fold);
        let (commit, _) = self.fold.begin_commit().unwrap().unwrap();
        let calls = commit.calls.unwrap().batches;
        let committed = Rows::of([&calls, &[], &[]]);
        assert_eq!(committed.calls, live.calls, "seen and committed rows differ");
        committed
    }
}

fn stories(rng: &mut SimRng) -> Vec<(usize, Told)> {
    let traces = 1 + rng.below(3) as u64;
    (1..=traces).flat_map(|trace| story(rng, trace, NOW_US)).collect()
}

/// Scenario: the spans and log records of some traces come in order; or shuffled, some twice, in any number of exports, over nearly the
/// settle time, while somebody looks now and then.
#[test]
fn the_order_of_arrival_within_the_settle_time_changes_no_row() {
    each(0..runs(400), |seed| {
        let rng = &mut SimRng::new(seed);
        let mut all = stories(rng);
        let mut in_order = Counting::new();
        for (service, told) in &all {
            in_order.take_all(NOW_US, exports(SERVICES[*service], std::slice::from_ref(told)));
        }
        let expected = in_order.settle(NOW_US);

        for _ in 0..rng.below(all.len()) {
            let again = all[rng.below(all.len())].clone();
            all.push(again);
        }
        shuffle(rng, &mut all);
        let mut other = Counting::new();
        let mut at_us = NOW_US;
        let step_us = 1_900_000 / all.len();
        while !all.is_empty() {
            let mut part: Vec<(usize, Told)> = all.drain(..1 + rng.below(all.len())).collect();
            let service = part[0].0;
            let mine: Vec<Told> = part.extract_if(.., |(of, _)| *of == service).map(|(_, told)| told).collect();
            all.extend(part);
            other.take_all(at_us, exports(SERVICES[service], &mine));
            at_us += rng.below(step_us) as i64;
            if rng.below(4) == 0 {
                other.fold.view().unwrap();
            }
        }
        let found = other.settle(at_us);
        assert_eq!(found.difference(&expected, &["wal_position"]), None);
        never_negative(rng, &found.calls);
    });
}

fn flag(rows: &RecordBatch, column: &str, row: usize) -> bool {
    let column = rows.column(Table::Calls.index_of(column));
    match column.data_type() {
        DataType::Boolean => column.as_boolean().value(row),
        _ => column.as_string::<i32>().value(row) == "error",
    }
}

/// Logical calls and failures of the counted rows that a filter lets through.
fn logical(rows: &RecordBatch, filter: impl Fn(usize) -> bool) -> (usize, usize) {
    let finals =
        (0..rows.num_rows()).filter(|row| flag(rows, "counted", *row) && flag(rows, "final", *row) && filter(*row));
    finals.fold((0, 0), |(calls, failures), row| (calls + 1, failures + usize::from(flag(rows, "outcome", row))))
}

/// A failed attempt that another one followed is not final, whatever is left out.
fn never_negative(rng: &mut SimRng, rows: &RecordBatch) {
    let attempts = rows.column(Table::Calls.index_of("attempt")).as_primitive::<Int32Type>();
    assert!(attempts.values().iter().all(|attempt| *attempt >= 1));
    for row in 0..rows.num_rows() {
        assert!(flag(rows, "final", row) || flag(rows, "outcome", row), "a success is followed by a retry");
    }
    // Cut in two in any way, the parts have no more and no less than the whole.
    for _ in 0..8 {
        let seed = rng.next_u64();
        let side = |row: usize| SimRng::new(seed ^ row as u64).below(2) == 0;
        let (one, other) = (logical(rows, side), logical(rows, |row| !side(row)));
        assert_eq!((one.0 + other.0, one.1 + other.1), logical(rows, |_| true));
    }
    // Of a chain one attempt is final, however long it is: those that begin one are as many as those that end one.
    let column = |name| rows.column(Table::Calls.index_of(name)).as_binary::<i32>();
    let (ids, firsts) = (column("row_id"), column("logical_call_id"));
    let mut ends: BTreeMap<&[u8], usize> = ids.iter().flatten().map(|id| (id, 0)).collect();
    for row in (0..rows.num_rows()).filter(|row| flag(rows, "final", *row)) {
        let first = if firsts.is_valid(row) { firsts.value(row) } else { ids.value(row) };
        *ends.get_mut(first).unwrap() += 1;
    }
    for row in 0..rows.num_rows() {
        assert_eq!(ends[ids.value(row)], usize::from(firsts.is_null(row)), "a chain has not one end");
    }
}

/// An attempt as its client knows it.
#[derive(Clone, Debug)]
struct Attempt {
    call: usize,
    start_us: i64,
    end_us: i64,
    failed: bool,
}

/// What an attempt is within its logical call.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    end_us: i64,
    failed: bool,
    is_final: bool,
    attempt: i32,
    /// Start of the first attempt, its pause and the time lost, of a retry.
    retry: Option<(i64, i64, i64)>,
}

/// The definition, word for word: a failed attempt opens a slot; the next attempt of that call that starts at or after
/// its end, and at most the settle time later, consumes it. Calls are those that nothing consumed. By start.
fn recount(attempts: &[Attempt], settle_us: i64) -> BTreeMap<i64, Place> {
    let mut in_order: Vec<&Attempt> = attempts.iter().collect();
    in_order.sort_by_key(|attempt| (attempt.start_us, attempt.end_us));
    let mut consumed = vec![false; in_order.len()];
    let mut retried: Vec<Option<usize>> = vec![None; in_order.len()];
    for (later, next) in in_order.iter().enumerate() {
        let open = (0..later).filter(|at| {
            let slot = in_order[*at];
            slot.call == next.call
                && slot.failed
                && !consumed[*at]
                && slot.end_us <= next.start_us
                && next.start_us - slot.end_us <= settle_us
        });
        if let Some(last) = open.max_by_key(|at| in_order[*at].end_us) {
            consumed[last] = true;
            retried[later] = Some(last);
        }
    }
    let place = |at: usize| {
        let (mut first, mut attempt) = (at, 1);
        while let Some(before) = retried[first] {
            (first, attempt) = (before, attempt + 1);
        }
        let (own, first) = (in_order[at], in_order[first].start_us);
        let retry = retried[at].map(|before| (first, own.start_us - in_order[before].end_us, own.start_us - first));
        (own.start_us, Place { end_us: own.end_us, failed: own.failed, is_final: !consumed[at], attempt, retry })
    };
    (0..in_order.len()).map(place).collect()
}

/// What the rows say that were committed, by start.
fn places(rows: &RecordBatch) -> BTreeMap<i64, Place> {
    let column = |name| rows.column(Table::Calls.index_of(name));
    let times = |name| column(name).as_primitive::<TimestampMicrosecondType>().values().to_vec();
    let (starts, ends) = (times("start_time"), times("end_time"));
    let attempts = column("attempt").as_primitive::<Int32Type>();
    let [delays, lost] = ["retry_delay_ns", "retry_lost_ns"].map(|name| column(name).as_primitive::<Int64Type>());
    let [ids, firsts] = ["row_id", "logical_call_id"].map(|name| column(name).as_binary::<i32>());
    let start_of: BTreeMap<&[u8], i64> = ids.iter().flatten().zip(starts.iter().copied()).collect();
    let place = |row: usize| {
        let retry = firsts
            .is_valid(row)
            .then(|| (start_of[firsts.value(row)], delays.value(row) / 1_000, lost.value(row) / 1_000));
        assert_eq!((delays.is_valid(row), lost.is_valid(row)), (retry.is_some(), retry.is_some()));
        let place = Place {
            end_us: ends[row],
            failed: flag(rows, "outcome", row),
            is_final: flag(rows, "final", row),
            attempt: attempts.value(row),
            retry,
        };
        (starts[row], place)
    };
    (0..rows.num_rows()).map(place).collect()
}

/// Scenario: random attempts of some calls, around midnight, with call ids: retries, repeats after success, overlapping hedges,
/// pauses; in any order of arrival. Guarantees: every attempt has the place in its logical call that the definition gives it, and so
/// whatever window cuts the chains has the logical calls that end in it, and as many failures.
#[test]
fn logical_calls_and_failures_are_those_of_a_naive_recount() {
    let settle_us = settings().live.settle_us;
    each(0..runs(400), |seed| {
        let rng = &mut SimRng::new(seed);
        let mut by_trace: BTreeMap<u64, Vec<Attempt>> = BTreeMap::new();
        let mut spans = Vec::new();
        let mut number = 0;
        for trace in 1..=1 + rng.below(3) as u64 {
            for call in 0..1 + rng.below(3) {
                let mut from_us = NOW_US - 20_000_000;
                for _ in 0..1 + rng.below(6) {
                    number += 1;
                    // No two begin together, so that the order of starts is a plain one.
                    let start_us = from_us + 1_000 * rng.below(3_000) as i64 + number;
                    let end_us = start_us + 500 * rng.below(1_000) as i64;
                    let failed = rng.below(3) > 0;
                    by_trace.entry(trace).or_default().push(Attempt { call, start_us, end_us, failed });
                    let span = SpanOf::tool(trace, trace * 1_000 + number as u64, 0, "search")
                        .text("gen_ai.tool.call.id", &format!("call-{call}"))
                        .at(start_us, end_us)
                        .failed(failed.then_some("timeout"));
                    spans.push(span.0);
                    from_us = if rng.below(3) == 0 { start_us } else { end_us };
                }
            }
        }
        shuffle(rng, &mut spans);
        let mut counting = Counting::new();
        for part in spans.chunks(1 + rng.below(spans.len())) {
            counting.take(NOW_US, export("planner", part.to_vec()));
        }
        let found = counting.settle(NOW_US).calls;
        let expected: BTreeMap<i64, Place> =
            by_trace.values().flat_map(|attempts| recount(attempts, settle_us)).collect();
        assert_eq!(places(&found), expected);
        let ends = found.column(Table::Calls.index_of("end_time")).as_primitive::<TimestampMicrosecondType>();
        let midnight = NOW_US;
        for _ in 0..4 {
            let from = midnight - rng.below(20_000_000) as i64;
            let to = if rng.below(2) == 0 { midnight } else { from + rng.below(20_000_000) as i64 };
            let calls = expected.values().filter(|place| place.is_final && (from..to).contains(&place.end_us));
            let counts = calls.fold((0, 0), |sum, place| (sum.0 + 1, sum.1 + usize::from(place.failed)));
            assert_eq!(logical(&found, |row| (from..to).contains(&ends.value(row))), counts);
        }
    });
}

/// Scenario: a view settles whose failure is known from further in; the inner view came after somebody had looked, so
/// it stands in another block of rows, which is still open.
#[test]
fn a_settled_row_takes_its_error_from_a_row_that_nobody_has_seen_yet() {
    let outer = SpanOf::tool(1, 1, 0, "weather").at(NOW_US - 20, NOW_US).0;
    let client = SpanOf::mcp(1, 2, 1, "weather", CLIENT).at(NOW_US - 19, NOW_US - 1).0;
    let server = SpanOf::mcp(1, 3, 2, "weather", SERVER).at(NOW_US - 18, NOW_US - 2).failed(Some("timeout")).0;
    let mut counting = Counting::new();
    counting.take(NOW_US, export("planner", vec![outer, client]));
    counting.fold.view().unwrap();
    counting.take(NOW_US + 1_500_000, export("weather-mcp", vec![server]));
    counting.frame(NOW_US + 2_000_000, FrameContent::Tick);
    let (commit, _) = counting.fold.begin_commit().unwrap().unwrap();
    let Some(calls) = commit.calls else { panic!("no calls are settled") };
    assert_eq!(calls.up_to, WalPosition(1));
    let rows = Rows::of([&calls.batches, &[], &[]]).calls;
    assert_eq!(rows.num_rows(), 2);
    assert!((0..2).all(|row| flag(&rows, "outcome", row)), "the failure is lost");
}
