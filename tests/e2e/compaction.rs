//! Questions while files are merged, hours are summed up and dates go: nobody may see it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use prost::Message as _;
use serde_json::{Value, json};
use toolgauge::config::{Config, Count, Time};
use toolgauge::server::Server;
use toolgauge_proto::time::{Clock, SystemClock, UnixMicros};

use crate::sandbox::{Api, LIMIT, Raw, TRACES, until};
use crate::slo_world::chrono_micros;
use crate::traffic::{ROWS_PER_TRACE, text, trace};

const DAY_US: i64 = 86_400_000_000;
/// Exports of each date that is asked about.
const EXPORTS: u64 = 60;
/// Who sends what is asked about.
const SERVICE: &str = "fixed";
/// No query of the test takes so long; files that were merged are deleted after twice of it.
const QUERY_TIMEOUT: Duration = Duration::from_secs(3);

/// The machine's clock, moved.
#[derive(Debug)]
struct MovedClock(AtomicI64);

impl MovedClock {
    fn at(time: &str) -> Self {
        Self(AtomicI64::new(chrono_micros(time) - SystemClock.now().0))
    }

    fn advance(&self, us: i64) {
        self.0.fetch_add(us, Ordering::SeqCst);
    }
}

impl Clock for MovedClock {
    fn now(&self) -> UnixMicros {
        UnixMicros(SystemClock.now().0 + self.0.load(Ordering::SeqCst))
    }
}

/// What is asked of the calls of [`SERVICE`] on this date, in SQL and of the reports.
fn questions(date: &str, next: &str) -> Vec<(String, Option<String>)> {
    let of = format!("service_name = '{SERVICE}' AND date = '{date}'");
    let sql = [
        format!(
            "SELECT tool_name, layer, outcome, attempt, final, counted, error_class, count(*), count(DISTINCT row_id), sum(duration_ns), \
             sum(cost_usd) FROM calls WHERE {of} GROUP BY ALL ORDER BY 1, 2, 3, 4, 5, 6, 7"
        ),
        format!("SELECT row_id, span_id, attempt, final, outcome FROM tool_calls WHERE {of} ORDER BY row_id LIMIT 500"),
        format!(
            "SELECT minute, tool_name, outcome, final, sum(calls), sum(duration_ns_sum), sum(cost_usd), \
             hdr_quantile(hdr_merge(latency), 0.95) FROM calls_1m WHERE {of} GROUP BY ALL ORDER BY 1, 2, 3, 4"
        ),
        format!(
            "SELECT hour, tool_name, outcome, final, sum(calls), sum(duration_ns_sum), sum(cost_usd), \
             hdr_quantile(hdr_merge(latency), 0.95) FROM calls_1h WHERE {of} GROUP BY ALL ORDER BY 1, 2, 3, 4"
        ),
    ];
    let reports = [
        // Whole hours, and some minutes at both ends.
        format!("/api/v1/tools?service={SERVICE}&from={date}T00:00:00Z&to={next}T00:00:00Z"),
        format!("/api/v1/tools?service={SERVICE}&from={date}T01:07:00Z&to={date}T23:41:00Z"),
        format!("/api/v1/costs?by=tool&service={SERVICE}&from={date}T00:00:00Z&to={next}T00:00:00Z"),
    ];
    let sql = sql.into_iter().map(|query| ("/api/v1/sql".to_owned(), Some(json!({ "query": query }).to_string())));
    sql.chain(reports.into_iter().map(|path| (path, None))).collect()
}

/// The figures of an answer, without what says when it was asked.
async fn figures(api: &Api, (path, body): &(String, Option<String>)) -> Value {
    let answer = api.try_send(path, body.clone()).await.unwrap();
    assert_eq!(answer.status, 200, "{path} {body:?}: {}", answer.text);
    let mut answer: Value = serde_json::from_str(&answer.text).unwrap();
    let figures = ["rows", "tools", "groups"].into_iter().find_map(|key| answer.get_mut(key).map(Value::take));
    let mut figures = figures.unwrap_or_else(|| panic!("{path}: {answer}"));
    // What is usual is told by the week before, of which a date goes.
    for tool in figures.as_array_mut().into_iter().flatten() {
        if let Some(retries) = tool.get_mut("retries").and_then(Value::as_object_mut) {
            assert!(retries.remove("storm").is_some(), "{path}");
        }
    }
    figures
}

async fn all_figures(api: &Api, questions: &[(String, Option<String>)]) -> Vec<Value> {
    let mut all = Vec::new();
    for question in questions {
        all.push(figures(api, question).await);
    }
    all
}

/// Scenario: two dates of a service are asked about all the time, by SQL and by reports, from the moment that they are visible. Meanwhile
/// another service's calls on the same dates come in, so that the rows of both are committed, merged again and again, summed by hour, and
/// the old files deleted under the questions; at the end the older date goes out of the retention.
/// Guarantees: every answer about the date that stays is the first one, which is that of a recount; every answer about the date that
/// goes is the first one or empty, and once empty stays so.
#[tokio::test(flavor = "multi_thread")]
async fn answers_do_not_change_while_files_are_merged_summed_and_deleted() {
    let folder = tempfile::tempdir().unwrap();
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let data = folder.path().join("data");
    let mut config = Config { data: data.clone(), otlp_grpc: any, otlp_http: any, http: any, ..Config::default() };
    config.settle.after = Time(Duration::from_millis(300));
    config.lake.commit_interval = Time(Duration::from_millis(30));
    config.lake.fold_interval = Time(Duration::from_millis(100));
    config.lake.compact_interval = Time(Duration::from_millis(50));
    config.lake.compact_files = Count(2);
    config.lake.keep_removed = Time(Duration::ZERO);
    config.queries.timeout = Time(QUERY_TIMEOUT);
    config.recognise.retention = Time(Duration::from_secs(3 * 86_400));
    config.alerting.learn_slos.0 = false;
    let clock = Arc::new(MovedClock::at("2026-03-10T12:30:00Z"));
    let server = Server::start_at(&config, Arc::<MovedClock>::clone(&clock)).await.unwrap();
    let api = Api::new(server.http);

    let base_ns = |time: &str| chrono_micros(time).unsigned_abs() * 1_000;
    let (goes, stays) = (base_ns("2026-03-07T18:59:59.900Z"), base_ns("2026-03-09T08:59:59.900Z"));
    let mut client = Raw::connect(server.otlp_grpc).await;
    for number in 0..EXPORTS {
        // Other traces than those of the clients.
        for (client_number, base) in [(100, goes), (101, stays)] {
            let mut export = trace(client_number, number, base);
            export.resource_spans[0].resource.as_mut().unwrap().attributes = vec![text("service.name", SERVICE)];
            client.export(TRACES, &export.encode_to_vec()).await;
        }
    }
    api.until_visible().await;
    let asked = [questions("2026-03-07", "2026-03-08"), questions("2026-03-09", "2026-03-10")];
    let first = [all_figures(&api, &asked[0]).await, all_figures(&api, &asked[1]).await];
    for figures in &first {
        let rows = figures[0].as_array().unwrap();
        let sum = |column: usize| rows.iter().map(|row| row[column].as_u64().unwrap()).sum::<u64>();
        assert_eq!((sum(7), sum(8)), (EXPORTS * ROWS_PER_TRACE, EXPORTS * ROWS_PER_TRACE));
        for sums in &figures[2..4] {
            let calls: u64 = sums.as_array().unwrap().iter().map(|row| row[4].as_u64().unwrap()).sum();
            assert_eq!(calls, EXPORTS * ROWS_PER_TRACE);
        }
        // `charge` (with its retries), `search`, `even` and `odd`.
        for report in &figures[4..] {
            assert_eq!(report.as_array().unwrap().len(), 4, "{report}");
        }
    }

    let counters = async || api.status().await.ingest.counters;
    let hours = data.join("lake/calls_1h/date=2026-03-09");
    let (mut rounds, mut others, mut moved, mut gone) = (0, 0, false, vec![false; asked[0].len()]);
    until(2 * LIMIT, "files were merged, deleted and expired", async || {
        rounds += 1;
        for at in 0..asked[0].len() {
            // Of another service: a commit of a few rows more.
            for base in [stays, stays + 3_600_000_000_000] {
                client.export(TRACES, &trace(1, others, base).encode_to_vec()).await;
                others += 1;
            }
            let (question, expected) = (&asked[1][at], &first[1][at]);
            assert_eq!(figures(&api, question).await, *expected, "round {rounds}: {question:?}");
            let question = &asked[0][at];
            let found = figures(&api, question).await;
            gone[at] |= found != first[0][at];
            assert!(!gone[at] || (moved && found == json!([])), "round {rounds}: {question:?}: {found}");
        }
        let counters = counters().await;
        let enough = counters["toolgauge_compactions_total"] >= 20 && counters["toolgauge_deleted_files_total"] >= 50;
        if enough && !moved {
            // The older date is beyond the retention from now on, and the hours that were open are over.
            clock.advance(DAY_US);
            moved = true;
        }
        let expired = counters["toolgauge_expired_files_total"] > 0;
        (expired && hours.exists() && gone.iter().all(|gone| *gone)).then_some(())
    })
    .await;
    assert_eq!(counters().await["toolgauge_compaction_failures_total"], 0);
    assert!(rounds >= 3, "{rounds} rounds of questions");
    for (question, expected) in asked[1].iter().zip(&first[1]) {
        assert_eq!(figures(&api, question).await, *expected, "at the end: {question:?}");
    }
    server.stop().await.unwrap();
}
