//! The latency report and the SQL functions of histograms, against a recount of the rows.

use std::collections::BTreeMap;

use serde_json::json;
use toolgauge_analytics::hist::{bucket_end, micros_of, nearest_rank};
use toolgauge_proto::api::{Latency, LatencyReport};
use toolgauge_proto::lake::Lake;
use toolgauge_proto::time::{MINUTE_MICROS, UnixMicros};
use toolgauge_queries::engine::Settings;
use toolgauge_queries::json::rfc3339;
use toolgauge_queries::report::{self, Range};

use crate::support::{MemoryLake, NOW, Rng, Row, Sql, get_int, get_text, is_true, random_call};

fn lake(seed: u64, n: u64) -> (Vec<Row>, std::sync::Arc<MemoryLake>) {
    let mut rng = Rng::new(seed);
    let rows: Vec<Row> = (1..=n).map(|position| random_call(&mut rng, position)).collect();
    let lake = MemoryLake::of_calls(&rows[..n as usize / 3], &rows[n as usize / 3..]);
    (rows, lake)
}

async fn latency(sql: &Sql, lake: &MemoryLake, range: Range) -> LatencyReport {
    report::latency(&sql.engine, &sql.catalog, lake.view(), NOW, range).await.unwrap()
}

/// Quantiles the long way, each the end of its bucket.
fn quantiles(micros: &mut [u64]) -> Latency {
    micros.sort_unstable();
    let ms = |q| bucket_end(micros[nearest_rank(q, micros.len() as u64) as usize - 1]) as f64 / 1e3;
    Latency {
        p50_ms: ms(0.5),
        p90_ms: ms(0.9),
        p95_ms: ms(0.95),
        p99_ms: ms(0.99),
        p99_low_evidence: micros.len() < 1_000,
    }
}

#[tokio::test]
async fn every_step_and_interval_is_that_of_a_recount() {
    let sql = Sql::new(Settings::default()).await;
    let (rows, lake) = lake(1, 3_000);
    let tool = |row: &Row| get_text(row, "tool_name").as_deref() == Some("a");
    let server = |row: &Row| get_text(row, "tool_server").as_deref() == Some("b");
    type Keep<'a> = &'a dyn Fn(&Row) -> bool;
    let (anything, both): (Keep, Keep) = (&|_| true, &|row| tool(row) && server(row));
    for (length, step_seconds) in [(3_000_000_000, 60), (7_201_000_000, 300), (111_601_000_000, 3_600)] {
        for (keep, name, of) in [(anything, None, None), (&tool, Some("a"), None), (both, Some("a"), Some("b"))] {
            let range = Range {
                tool: name.map(str::to_owned),
                server: of.map(str::to_owned),
                ..Range::new(UnixMicros(NOW.0 - length), NOW)
            };
            let counted = rows.iter().filter(|row| {
                let tool_row = is_true(row, "counted") && get_text(row, "kind").as_deref() == Some("tool");
                tool_row && keep(row) && (range.from.0..range.to.0).contains(&get_int(row, "end_time"))
            });
            let mut steps: BTreeMap<i64, Vec<u64>> = BTreeMap::new();
            let mut all = Vec::new();
            for row in counted.clone() {
                let (end, step) = (get_int(row, "end_time"), step_seconds * 1_000_000);
                let micros = micros_of(get_int(row, "duration_ns"));
                steps.entry(end - end % step).or_default().push(micros);
                all.push(micros);
            }
            let report = latency(&sql, &lake, range.clone()).await;
            assert_eq!((report.step_seconds, report.truncated), (step_seconds.unsigned_abs(), false));
            assert_eq!(report.attempts, all.len() as u64);
            let series: Vec<_> =
                report.series.iter().map(|step| (step.start.clone(), step.attempts, step.latency)).collect();
            let expected = steps.iter_mut().map(|(start, micros)| {
                let attempts = micros.len() as u64;
                (rfc3339(UnixMicros(*start)), attempts, quantiles(micros))
            });
            assert_eq!(series, expected.collect::<Vec<_>>());
            for interval in &report.histogram {
                let within = |micros: &&u64| {
                    let ms = **micros as f64 / 1e3;
                    ms > interval.above_ms && ms <= interval.up_to_ms
                };
                assert_eq!(all.iter().filter(within).count() as u64, interval.attempts, "{interval:?}");
            }
            assert_eq!(report.histogram.iter().map(|interval| interval.attempts).sum::<u64>(), report.attempts);
            assert_eq!(report.latency, Some(quantiles(&mut all)));
            let undecided = report.scope.provisional;
            assert_eq!(undecided, counted.count() as u64, "nothing is settled");
        }
    }
}

#[tokio::test]
async fn a_range_without_calls_has_no_latency() {
    let sql = Sql::new(Settings::default()).await;
    let (_, lake) = lake(2, 100);
    let range = Range::new(UnixMicros(NOW.0 + MINUTE_MICROS), UnixMicros(NOW.0 + 2 * MINUTE_MICROS));
    let report = latency(&sql, &lake, range).await;
    assert_eq!((report.attempts, report.latency, report.histogram.len(), report.series.len()), (0, None, 0, 0));
}

/// Raw rows and sums per minute give the same quantiles and shares, to the nanosecond.
#[tokio::test]
async fn histograms_say_what_the_calls_say() {
    let sql = Sql::new(Settings::default()).await;
    let (_, lake) = lake(3, 3_000);
    let raw = "SELECT kind, outcome, latency_quantile(duration_ns, 0.5), latency_quantile(duration_ns, 0.99), count(*) \
               FROM calls GROUP BY 1, 2 ORDER BY 1, 2";
    let sums = "SELECT kind, outcome, hdr_quantile(hdr_merge(latency), 0.5), hdr_quantile(hdr_merge(latency), 0.99), \
                sum(calls) FROM calls_1m GROUP BY 1, 2 ORDER BY 1, 2";
    assert_eq!(sql.query(&lake, sums).await, sql.query(&lake, raw).await);
    // 2,047 us is the end of a bucket of its own: the share is exact.
    let raw = "SELECT count(*) FILTER (WHERE duration_ns <= 2047000) / CAST(count(*) AS DOUBLE) FROM calls";
    let sums = "SELECT hdr_fraction_below(hdr_merge(latency), 2047000) FROM calls_1m";
    assert_eq!(sql.query(&lake, sums).await, sql.query(&lake, raw).await);
    let same = "SELECT (SELECT hdr_histogram(duration_ns) FROM calls) = (SELECT hdr_merge(latency) FROM calls_1m)";
    assert_eq!(sql.query(&lake, same).await, [[json!(true)]]);
}

#[tokio::test]
async fn nothing_and_nonsense_are_answered() {
    let sql = Sql::new(Settings::default()).await;
    let (_, lake) = lake(4, 10);
    let nulls = "SELECT hdr_quantile(NULL, 0.5), hdr_quantile(latency, NULL), hdr_fraction_below(latency, -1), \
                 (SELECT hdr_merge(latency) FROM calls_1m WHERE false) FROM calls_1m LIMIT 1";
    assert_eq!(sql.query(&lake, nulls).await, [[json!(null), json!(null), json!(0.0), json!(null)]]);
    for (query, message) in [
        ("SELECT hdr_quantile(latency, 1.5) FROM calls_1m", "from 0 to 1"),
        ("SELECT hdr_quantile(latency) FROM calls_1m", "hdr_quantile takes a histogram and a quantile"),
        ("SELECT hdr_fraction_below(tenant, 1) FROM calls_1m", "hdr_fraction_below takes a histogram and a limit"),
        ("SELECT hdr_merge(calls) FROM calls_1m", "hdr_merge takes one histogram"),
        ("SELECT latency_quantile(DISTINCT duration_ns, 0.5) FROM calls", "leave DISTINCT out"),
        ("SELECT hdr_histogram(tenant) FROM calls", "hdr_histogram takes a duration in nanoseconds, such as"),
        ("SELECT hdr_merge(row_id) FROM calls", "not a latency histogram"),
        ("SELECT hdr_quantile(row_id, 0.5) FROM calls", "not a latency histogram"),
    ] {
        let error = sql.try_query(&lake, query).await.unwrap_err().to_string();
        assert!(error.contains(message), "{query}: {error}");
    }
}
