//! The tools report against a recount of the rows.

use std::collections::{BTreeMap, BTreeSet};

use datafusion::common::ScalarValue;
use toolgauge_analytics::sampling::{Z_95, wilson};
use toolgauge_proto::api::{ToolReport, ToolsReport};
use toolgauge_proto::lake::Lake;
use toolgauge_proto::time::{HOUR_MICROS, MINUTE_MICROS, UnixMicros};
use toolgauge_queries::engine::Settings;
use toolgauge_queries::json::rfc3339;
use toolgauge_queries::report::{self, HOURS_FROM_US, Range, SUMS_FROM_US, Source};

use crate::support::{
    MemoryLake, NOW, Rng, Row, Sql, arrival, get, get_int, get_text, is_true, minutes_ago, random_call, text, timestamp,
};

fn last_hour() -> Range {
    Range::new(UnixMicros(NOW.0 - 60 * MINUTE_MICROS), NOW)
}

/// The report from the calls, which those from the sums per minute and per hour have to equal.
async fn tools(sql: &Sql, lake: &MemoryLake, range: Range) -> ToolsReport {
    let from = |source| report::tools(&sql.engine, &sql.catalog, lake.view(), NOW, range.clone(), source);
    let calls = from(Source::Calls).await.unwrap();
    assert_eq!(from(Source::Minutes).await.unwrap(), calls);
    assert_eq!(from(Source::Hours).await.unwrap(), calls);
    calls
}

/// A decimal of nine places as text, or the quotient of two rounded half-even, in plain big-number steps.
fn money(amount: i128, n: i128) -> String {
    let (mut quotient, rest) = (amount / n, amount % n);
    if rest * 2 > n || (rest * 2 == n && quotient % 2 == 1) {
        quotient += 1;
    }
    let text = format!("{}.{:09}", quotient / 1_000_000_000, quotient % 1_000_000_000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn cost(row: &Row) -> Option<i128> {
    match get(row, "cost_usd") {
        ScalarValue::Decimal128(cost, ..) => *cost,
        other => panic!("cost is {other}"),
    }
}

fn in_range(row: &Row, range: &Range) -> bool {
    let end = get_int(row, "end_time");
    is_true(row, "counted")
        && get_text(row, "kind").as_deref() == Some("tool")
        && (range.from.0..range.to.0).contains(&end)
        && range.service.as_ref().is_none_or(|service| get_text(row, "service_name").as_ref() == Some(service))
        && range.environment.as_ref().is_none_or(|env| get_text(row, "environment").as_ref() == Some(env))
}

fn known(row: &Row, column: &str) -> Option<i64> {
    match get(row, column) {
        ScalarValue::Int64(value) => *value,
        other => panic!("{column} is {other}"),
    }
}

fn ratio(part: i128, whole: i128) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

fn check_retries(report: &ToolReport, rows: &[&Row]) {
    let finals = || rows.iter().filter(|row| is_true(row, "final"));
    let ok = |row: &Row| get_text(row, "outcome").as_deref() == Some("ok");
    let attempt = |row: &Row| i128::from(get_int(row, "attempt"));
    let failed_first = finals().filter(|row| !ok(row) || attempt(row) > 1).count() as i128;
    let recovered = finals().filter(|row| ok(row) && attempt(row) > 1).count() as i128;
    let succeeded: Vec<i128> = finals().filter(|row| ok(row)).map(|row| attempt(row)).collect();
    let retries = &report.retries;
    assert_eq!(retries.attempts, rows.iter().filter(|row| attempt(row) > 1).count() as u64);
    assert_eq!((retries.failed_first.into(), retries.recovered.into()), (failed_first, recovered));
    assert_eq!(retries.recovery_ratio, ratio(recovered, failed_first));
    assert_eq!(retries.attempts_per_success, ratio(succeeded.iter().sum(), succeeded.len() as i128));
    let lost_ns: i64 = finals().filter_map(|row| known(row, "retry_lost_ns")).sum();
    assert_eq!(retries.lost_ms, lost_ns as f64 / 1e6);
    let mut delays: Vec<i64> = rows.iter().filter_map(|row| known(row, "retry_delay_ns")).collect();
    delays.sort_unstable();
    assert_eq!(retries.delay.is_some(), !delays.is_empty());
    for (percent, got) in retries.delay.iter().flat_map(|delay| [(50, delay.p50_ms), (95, delay.p95_ms)]) {
        let exact = (delays[(percent * delays.len()).div_ceil(100) - 1] as f64 / 1e3).ceil().max(1.0);
        assert!(got * 1e3 >= exact - 1e-6 && got * 1e3 <= exact * 1.001 + 1e-6, "p{percent}: {got} for {exact}");
    }
}

fn check_weights(report: &ToolReport, rows: &[&Row]) {
    let weight = |row: &Row| match get(row, "weight") {
        ScalarValue::Decimal128(Some(weight), ..) => *weight,
        other => panic!("weight is {other}"),
    };
    let sum = |keep: &dyn Fn(&Row) -> bool| rows.iter().filter(|row| keep(row)).map(|row| weight(row)).sum::<i128>();
    let (ok, last) = (|row: &Row| get_text(row, "outcome").as_deref() == Some("ok"), |row: &Row| is_true(row, "final"));
    let attempts = sum(&|_| true);
    assert_eq!(report.sampled, attempts != rows.len() as i128 * 1_000_000);
    assert_eq!(report.weighted.is_some(), report.sampled);
    let Some(weighted) = &report.weighted else { return };
    let text = |weight: i128| {
        let text = format!("{}.{:06}", weight / 1_000_000, weight % 1_000_000);
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    };
    let retries = sum(&|row| get_int(row, "attempt") > 1);
    let (calls, calls_ok) = (sum(&last), sum(&|row| last(row) && ok(row)));
    assert_eq!(weighted.attempts, text(attempts));
    assert_eq!(weighted.attempts_ok, text(sum(&ok)));
    assert_eq!((&weighted.calls, &weighted.calls_ok), (&text(calls), &text(calls_ok)));
    assert_eq!(weighted.retries, text(retries));
    assert_eq!(weighted.success_ratio_attempt, ratio(sum(&ok), attempts));
    assert_eq!(weighted.success_ratio_logical, ratio(calls_ok, calls));
    assert_eq!(weighted.retry_ratio, ratio(retries, attempts));
    assert_eq!(weighted.share, rows.len() as f64 * 1e6 / attempts as f64);
    // Each square is rounded to six places.
    let size = |rows: &mut dyn Iterator<Item = &&Row>| {
        let (sum, squares) = rows.fold((0_f64, 0_f64), |(sum, squares), row| {
            let weight = weight(row) as f64 / 1e6;
            (sum + weight, squares + weight * weight)
        });
        sum * sum / squares
    };
    let expected = size(&mut rows.iter());
    assert!((weighted.effective_attempts / expected - 1.0).abs() < 1e-6, "{weighted:?}, {expected}");
    let intervals = [
        (weighted.success_interval_attempt, weighted.success_ratio_attempt, expected),
        (
            weighted.success_interval_logical,
            weighted.success_ratio_logical,
            size(&mut rows.iter().filter(|row| last(row))),
        ),
    ];
    for (interval, share, n) in intervals {
        let Some(share) = share else { continue };
        let (low, high) = wilson(share, n, Z_95).unwrap();
        let [found_low, found_high] = interval.unwrap();
        assert!((found_low - low).abs() < 1e-6 && (found_high - high).abs() < 1e-6, "{interval:?}: {low} {high}");
    }
}

/// Compares one tool's figures with its rows.
fn check(report: &ToolReport, rows: &[&Row]) {
    let ok = |row: &Row| get_text(row, "outcome").as_deref() == Some("ok");
    let count = |keep: &dyn Fn(&Row) -> bool| rows.iter().filter(|row| keep(row)).count();
    let ratio = |part: usize, whole: usize| (whole > 0).then(|| part as f64 / whole as f64);
    let attempts = rows.len();
    let attempts_ok = count(&ok);
    let calls = count(&|row| is_true(row, "final"));
    let calls_ok = count(&|row| is_true(row, "final") && ok(row));
    let retries = count(&|row| get_int(row, "attempt") > 1);
    assert_eq!(report.attempts, attempts as u64);
    assert_eq!(report.attempts_ok, attempts_ok as u64);
    assert_eq!(report.calls, calls as u64);
    assert_eq!(report.calls_ok, calls_ok as u64);
    assert_eq!(report.success_ratio_attempt, ratio(attempts_ok, attempts));
    assert_eq!(report.success_ratio_logical, ratio(calls_ok, calls));
    assert_eq!(report.retry_ratio, ratio(retries, attempts));

    check_retries(report, rows);
    check_weights(report, rows);

    let mut micros: Vec<f64> =
        rows.iter().map(|row| (get_int(row, "duration_ns") as f64 / 1e3).ceil().max(1.0)).collect();
    micros.sort_by(f64::total_cmp);
    let latency = report.latency;
    for (percent, got) in [(50, latency.p50_ms), (90, latency.p90_ms), (95, latency.p95_ms), (99, latency.p99_ms)] {
        let exact = micros[(percent * attempts).div_ceil(100) - 1];
        let got = got * 1e3;
        assert!(got >= exact - 1e-6 && got <= exact * 1.001 + 1e-6, "p{percent}: {got} for {exact}");
    }
    assert_eq!(latency.p99_low_evidence, attempts < 1_000);

    let priced: Vec<i128> = rows.iter().filter_map(|row| cost(row)).collect();
    let known: i128 = priced.iter().sum();
    let priced_ok = count(&|row| ok(row) && cost(row).is_some());
    let wasted: Vec<i128> = rows.iter().filter(|row| !ok(row)).filter_map(|row| cost(row)).collect();
    assert_eq!(report.cost_usd, (!priced.is_empty()).then(|| money(known, 1)));
    assert_eq!(report.cost_coverage, ratio(priced.len(), attempts));
    assert_eq!(report.cost_per_call_usd, (!priced.is_empty()).then(|| money(known, priced.len() as i128)));
    let enough = priced.len() * 5 >= attempts * 4;
    assert_eq!(report.cost_per_success_usd, (enough && priced_ok > 0).then(|| money(known, priced_ok as i128)));
    let wasted = if !wasted.is_empty() {
        Some(wasted.iter().sum())
    } else {
        (attempts == attempts_ok && !priced.is_empty()).then_some(0)
    };
    assert_eq!(report.wasted_cost_usd, wasted.map(|wasted| money(wasted, 1)));

    let mut errors: BTreeMap<String, u64> = BTreeMap::new();
    for row in rows.iter().filter(|row| !ok(row)) {
        *errors.entry(get_text(row, "error_class").unwrap()).or_default() += 1;
    }
    assert_eq!(report.errors, errors);
    let last = rows.iter().map(|row| get_int(row, "end_time")).max().unwrap();
    assert_eq!(report.last_seen, rfc3339(UnixMicros(last)));
}

/// Scenario: random rows of all kinds, split at random between the halves, under random filters. Guarantees: every
/// number of the report is that of a recount.
#[tokio::test]
async fn every_number_is_that_of_a_recount() {
    let sql = Sql::new(Settings::default()).await;
    for seed in 0..12 {
        let mut rng = Rng::new(seed);
        let n = [3, 40, 400, 3_000][seed as usize % 4];
        let mut rows: Vec<Row> = (1..=n).map(|position| random_call(&mut rng, position)).collect();
        if rng.one_in(2) {
            // Some tools fully priced.
            let price = toolgauge_proto::table::Table::Calls.index_of("cost_usd");
            for row in rows.iter_mut().filter(|row| get_text(row, "tool_name").as_deref() == Some("a")) {
                row[price] = ScalarValue::Decimal128(Some(rng.below(1_000_000).into()), 18, 9);
            }
        }
        let (committed, live) = rows.split_at(rng.below(n + 1) as usize);
        let settled = rng.below(n + 1);
        let lake = MemoryLake::new((committed, live), (&[], &[]), settled);
        let word = |rng: &mut Rng| rng.one_in(3).then(|| ["a", "b", "c"][rng.below(3) as usize].to_owned());
        let hours = if rng.one_in(2) { 1 } else { 20 + rng.below(50).cast_signed() };
        let times = Range::new(UnixMicros(NOW.0 - hours * HOUR_MICROS), NOW);
        let range = Range { service: word(&mut rng), environment: word(&mut rng), ..times };

        let report = tools(&sql, &lake, range.clone()).await;
        let counted: Vec<&Row> = rows.iter().filter(|row| in_range(row, &range)).collect();
        let mut expected: BTreeMap<_, Vec<&Row>> = BTreeMap::new();
        for row in &counted {
            let key = ["tenant", "tool_server", "tool_name"].map(|column| get_text(row, column));
            expected.entry(key).or_default().push(row);
        }
        assert_eq!(report.tools.len(), expected.len(), "seed {seed}");
        assert!(report.tools.is_sorted_by(|a, b| a.calls >= b.calls), "seed {seed}");
        for tool in &report.tools {
            let key = [Some(tool.tenant.clone()), tool.tool_server.clone(), tool.tool_name.clone()];
            check(tool, &expected[&key]);
        }
        let undecided = counted.iter().filter(|row| get_int(row, "wal_position") > settled.cast_signed()).count();
        assert_eq!(report.scope.provisional, undecided as u64, "seed {seed}");
        assert_eq!((report.scope.position, report.truncated), (1_000_000, false));
        assert_eq!(report.scope.watermark, rfc3339(NOW));
        assert_eq!((report.scope.from, report.scope.to), (rfc3339(range.from), rfc3339(range.to)));
    }
}

/// Ranges of any place and length, most of which begin and end within a minute: the function compares all sources.
#[tokio::test]
async fn ranges_that_cut_minutes_and_hours_count_the_same_from_each_source() {
    let sql = Sql::new(Settings::default()).await;
    let mut rng = Rng::new(77);
    let rows: Vec<Row> = (1..=2_000).map(|position| random_call(&mut rng, position)).collect();
    let lake = MemoryLake::of_calls(&rows[..900], &rows[900..]);
    for _ in 0..12 {
        let to = match rng.below(3) {
            0 => minutes_ago(rng.below(90).cast_signed()),
            _ => UnixMicros(NOW.0 - rng.below(5_400_000_000).cast_signed()),
        };
        let length = [1, 40_000_000, 90_000_000, HOUR_MICROS, 2 * HOUR_MICROS, 30 * HOUR_MICROS][rng.below(6) as usize];
        let range = Range::new(UnixMicros(to.0 - length), to);
        let attempts: u64 = tools(&sql, &lake, range.clone()).await.tools.iter().map(|tool| tool.attempts).sum();
        assert_eq!(attempts, rows.iter().filter(|row| in_range(row, &range)).count() as u64, "{range:?}");
    }
}

/// Scenario: a tool whose calls are retried now and then, and in the last hour nearly always; another that never is.
#[tokio::test]
async fn a_storm_of_retries_is_told_by_what_is_usual_of_its_tool() {
    let sql = Sql::new(Settings::default()).await;
    let mut rng = Rng::new(31);
    let column = |name| toolgauge_proto::table::Table::Calls.index_of(name);
    let mut rows = Vec::new();
    for (tool, name) in ["a", "b"].into_iter().enumerate() {
        for n in 0..600_i64 {
            // Ten in a minute, of the ten hours before.
            let end = NOW.0 - n * MINUTE_MICROS;
            let stormy = tool == 0 && n < 60;
            let mut row = random_call(&mut rng, 1);
            row[column("end_time")] = timestamp(UnixMicros(end));
            row[column("date")] = ScalarValue::Date32(Some(UnixMicros(end).date32()));
            row[column("kind")] = text("tool");
            row[column("tenant")] = text("default");
            row[column("counted")] = ScalarValue::Boolean(Some(true));
            row[column("tool_server")] = ScalarValue::Utf8(None);
            row[column("tool_name")] = text(name);
            row[column("attempt")] = ScalarValue::Int32(Some(if stormy || n % 20 == 0 { 2 } else { 1 }));
            rows.push(row);
        }
    }
    let lake = MemoryLake::of_calls(&rows[..700], &rows[700..]);
    let range = |hours: i64| Range::new(UnixMicros(NOW.0 - hours * 60 * MINUTE_MICROS), NOW);
    let storms = async |lake: &MemoryLake, range: Range| {
        let storms = tools(&sql, lake, range).await.tools.into_iter().map(|tool| tool.retries.storm);
        let mut storms: Vec<_> = storms.collect::<Option<_>>()?;
        storms.sort_by_key(|storm| !storm.now);
        Some(storms)
    };
    // 12:34:56: the full hour that lies one to two hours before. What is usual lies before it, be it in the range or not.
    for hours in [10, 2] {
        let [a, b] = &storms(&lake, range(hours)).await.unwrap()[..] else { panic!("two tools") };
        assert_eq!((a.now, a.attempts, a.retries, &*a.since), (true, 94, 61, "2025-10-09T11:00:00Z"));
        assert_eq!((b.now, b.attempts, b.retries), (false, 94, 4));
        assert!(b.usual_ratio > 0.04 && b.usual_ratio < 0.06, "{b:?}");
    }
    // What is recent of a shorter one is all of it: the API's usual hour knows storms, too.
    let [a, b] = &storms(&lake, range(1)).await.unwrap()[..] else { panic!("two tools") };
    assert_eq!((a.now, a.attempts, a.retries, &*a.since), (true, 60, 60, "2025-10-09T11:34:56Z"));
    assert_eq!((b.now, b.attempts, b.retries), (false, 60, 3));
    // Nothing is known before.
    let young: Vec<Row> = rows.iter().filter(|row| in_range(row, &range(1))).cloned().collect();
    let young = MemoryLake::of_calls(&young[..60], &young[60..]);
    assert_eq!(storms(&young, range(1)).await, None);
}

#[test]
fn long_ranges_are_summed_from_minutes_and_longer_ones_from_hours() {
    let source = |length| Source::of(&Range::new(UnixMicros(NOW.0 - length), NOW));
    assert_eq!([source(SUMS_FROM_US - 1), source(SUMS_FROM_US)], [Source::Calls, Source::Minutes]);
    assert_eq!([source(HOURS_FROM_US - 1), source(HOURS_FROM_US)], [Source::Minutes, Source::Hours]);
    let all = Range::new(UnixMicros(i64::MIN), UnixMicros(i64::MAX));
    assert_eq!(Source::of(&all), Source::Hours);
}

#[tokio::test]
async fn coverage_is_the_share_of_ended_minutes_with_arrivals() {
    let sql = Sql::new(Settings::default()).await;
    for (minutes, from_minutes, expected) in [
        (vec![], 60, 0.0),
        ((1..=60).collect::<Vec<_>>(), 60, 1.0),
        ((1..=30).collect(), 60, 0.5),
        // The running minute counts once it has arrivals, and is not missed before.
        (vec![0], 60, 1.0 / 61.0),
        ((0..=60).collect(), 60, 1.0),
        // Twice in a minute is once; minutes before the range do not count.
        (vec![3, 3, 3, 100], 4, 0.25),
    ] {
        let rows: Vec<Row> = minutes
            .iter()
            .flat_map(|ago| [arrival(minutes_ago(*ago), None), arrival(minutes_ago(*ago), Some("s"))])
            .collect();
        let (committed, live) = rows.split_at(rows.len() / 2);
        let lake = MemoryLake::new((&[], &[]), (committed, live), 0);
        let range = Range { from: minutes_ago(from_minutes), ..last_hour() };
        let report = tools(&sql, &lake, range).await;
        assert!((report.scope.coverage - expected).abs() < 1e-12, "{minutes:?}: {}", report.scope.coverage);
        assert_eq!(report.tools, []);
    }
}

#[tokio::test]
async fn the_row_limit_cuts_the_list_and_says_so() {
    let sql = Sql::new(Settings { rows_max: 5, ..Settings::default() }).await;
    let mut rng = Rng::new(9);
    let rows: Vec<Row> = (1..=300).map(|position| random_call(&mut rng, position)).collect();
    let lake = MemoryLake::of_calls(&rows[..150], &rows[150..]);
    let report = tools(&sql, &lake, last_hour()).await;
    assert_eq!((report.tools.len(), report.truncated), (5, true));
}

#[tokio::test]
async fn the_range_holds_its_start_and_not_its_end() {
    let sql = Sql::new(Settings::default()).await;
    let mut rng = Rng::new(10);
    let range = last_hour();
    let rows: Vec<Row> = [range.from.0 - 1, range.from.0, range.to.0 - 1, range.to.0]
        .into_iter()
        .map(|end| {
            let mut row = random_call(&mut rng, 1);
            let column = |name| toolgauge_proto::table::Table::Calls.index_of(name);
            row[column("end_time")] = timestamp(UnixMicros(end));
            row[column("kind")] = text("tool");
            row[column("counted")] = ScalarValue::Boolean(Some(true));
            row
        })
        .collect();
    let report = tools(&sql, &MemoryLake::of_calls(&rows[..2], &rows[2..]), range).await;
    assert_eq!(report.tools.iter().map(|tool| tool.attempts).sum::<u64>(), 2);
}

#[test]
fn every_error_class_has_a_column() {
    let sql = include_str!("../../sql/tools.sql");
    let counted: BTreeSet<_> =
        sql.split("error_class = '").skip(1).filter_map(|rest| rest.split('\'').next()).collect();
    assert_eq!(counted, toolgauge_proto::call::ErrorClass::WORDS.iter().copied().collect());
}
