//! What `docs/operation.md` promises: backups of a server under load, and the metrics of the runbook.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use toolgauge::config::Names;

use crate::load::Load;
use crate::process::{Process, program, run};
use crate::sandbox::{Api, LIMIT, Sandbox, nanos, now_ns, until};
use crate::slo_world::SLO;
use crate::traffic::ROWS_PER_TRACE;

const CLIENTS: usize = 3;

/// What both are asked, of the calls up to a position.
const QUESTIONS: [&str; 3] = [
    "SELECT count(*), count(DISTINCT row_id), sum(duration_ns), sum(cost_usd), min(start_time), max(end_time) \
     FROM calls WHERE wal_position <= {}",
    "SELECT service_name, tool_name, kind, outcome, counted, final, count(*), sum(input_tokens) \
     FROM calls WHERE wal_position <= {} GROUP BY ALL ORDER BY 1, 2, 3, 4, 5, 6",
    "SELECT row_id, attempt, final, counted, error_class FROM tool_calls WHERE wal_position <= {} ORDER BY row_id LIMIT 1000",
];

async fn answers(api: &Api, position: u64) -> Vec<Vec<Vec<Value>>> {
    let mut answers = Vec::new();
    for question in QUESTIONS {
        answers.push(api.sql(&question.replace("{}", &position.to_string())).await);
    }
    answers
}

/// What the derived tables say, which has to be what `calls` says.
async fn sums(api: &Api) {
    let [calls, minutes, hours, arrivals] = [
        "SELECT count(*), sum(duration_ns) FROM calls",
        "SELECT sum(calls), sum(duration_ns_sum) FROM calls_1m",
        "SELECT sum(calls), sum(duration_ns_sum) FROM calls_1h",
        "SELECT sum(calls), (SELECT sum(duration_ns) FROM calls) FROM arrivals",
    ];
    let expected = api.row(calls).await;
    for query in [minutes, hours, arrivals] {
        assert_eq!(api.row(query).await, expected, "{query}");
    }
}

/// Reports that both are asked; of all that ever ended.
const REPORTS: [&str; 6] = [
    "/api/v1/tools?from=1970-01-01T00:00:00Z&to=2200-01-01T00:00:00Z",
    "/api/v1/costs?by=tool&from=1970-01-01T00:00:00Z&to=2200-01-01T00:00:00Z",
    "/api/v1/costs?by=service&from=1970-01-01T00:00:00Z&to=2200-01-01T00:00:00Z",
    "/api/v1/costs?by=session&from=1970-01-01T00:00:00Z&to=2200-01-01T00:00:00Z",
    "/api/v1/costs?by=day&from=1970-01-01T00:00:00Z&to=2200-01-01T00:00:00Z",
    "/api/v1/latency?tool=charge&from=1970-01-01T00:00:00Z&to=2200-01-01T00:00:00Z",
];

/// Reports, without what says when they were asked for.
async fn reports(api: &Api) -> Vec<Value> {
    let mut reports = Vec::new();
    for path in REPORTS {
        let answer = api.get(path).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text);
        let Ok(Value::Object(mut report)) = serde_json::from_str(&answer.text) else {
            panic!("{path}: {}", answer.text)
        };
        // What is of the moment at which it was asked for.
        for asked in ["watermark", "position", "coverage", "provisional", "forecast"] {
            report.remove(asked);
        }
        reports.push(Value::Object(report));
    }
    reports
}

/// The tools report and the costs of tools, by name: attempts, good ones, calls, good ones, retries, priced, cost, wasted cost.
type Figures = BTreeMap<String, (u64, u64, u64, u64, u64, u64, i128, i128)>;

/// What SQL counts of the rows up to a position.
async fn recount(api: &Api, position: u64) -> Figures {
    let query = format!(
        "SELECT tool_name, count(*), count(*) FILTER (WHERE outcome = 'ok'), count(*) FILTER (WHERE final), \
         count(*) FILTER (WHERE final AND outcome = 'ok'), count(*) FILTER (WHERE attempt > 1), count(cost_usd), \
         sum(cost_usd), sum(cost_usd) FILTER (WHERE outcome = 'error') FROM tool_calls WHERE wal_position <= {position} \
         GROUP BY 1"
    );
    let rows = api.sql(&query).await.into_iter().map(|row| {
        let count = |column: usize| row[column].as_u64().unwrap();
        let money = |column: usize| row[column].as_str().map_or(0, nanos);
        let name = row[0].as_str().unwrap().to_owned();
        (name, (count(1), count(2), count(3), count(4), count(5), count(6), money(7), money(8)))
    });
    rows.collect()
}

/// What the reports say of all calls.
async fn reported(api: &Api) -> Figures {
    let reports = reports(api).await;
    let costs = reports[1]["groups"].as_array().unwrap();
    let tools = api.tools().await.into_iter().map(|tool| {
        let name = tool.tool_name.unwrap();
        let costs = costs.iter().find(|group| group["name"] == name.as_str()).unwrap();
        assert_eq!(costs["attempts"], tool.attempts, "{costs}");
        assert_eq!(costs["cost_usd"].as_str().map(nanos), tool.cost_usd.as_deref().map(nanos), "{costs}");
        let ratio = |ratio: Option<f64>| (ratio.unwrap_or(0.0) * tool.attempts as f64).round() as u64;
        let money = |text: Option<&str>| text.map_or(0, nanos);
        let figures = (
            tool.attempts,
            tool.attempts_ok,
            tool.calls,
            tool.calls_ok,
            ratio(tool.retry_ratio),
            costs["priced"].as_u64().unwrap(),
            money(tool.cost_usd.as_deref()),
            money(tool.wasted_cost_usd.as_deref()),
        );
        (name, figures)
    });
    tools.collect()
}

/// Scenario: clients export all the time, commits and merges happen all the time; two backups are made, the second with the first
/// beside it, and a third when the clients are done. Then a server is started on each, and exports go on there.
/// Guarantees: each answers what the original answers for the calls up to the backup's position, which is what was acknowledged when it
/// began, or more, in SQL and in its reports; it has nothing else, its sums are those of its calls, and it takes in. Of the third, every
/// report is that of the original, figure by figure.
#[tokio::test(flavor = "multi_thread")]
async fn a_backup_made_under_load_restores_to_what_the_original_answers() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let settings = [
        ("TOOLGAUGE_SETTLE_AFTER", "300ms"),
        ("TOOLGAUGE_LAKE_COMMIT_INTERVAL", "30ms"),
        ("TOOLGAUGE_LAKE_FOLD_INTERVAL", "200ms"),
        ("TOOLGAUGE_LAKE_COMPACT_INTERVAL", "50ms"),
    ];
    let (_original, doors) = Process::start(Process::command(&path("data"), &settings)).await;
    let load = Load::start(CLIENTS, now_ns());
    load.point_at(doors.otlp);
    let mut positions = Vec::new();
    for (number, name) in ["one", "two"].into_iter().enumerate() {
        let enough = load.acknowledged() + 150;
        until(LIMIT, "exports come, files are merged", async || {
            let status = doors.api.status().await.ingest;
            let merged = status.counters["toolgauge_compactions_total"] > 2 * number as u64;
            (load.acknowledged() >= enough && merged).then_some(())
        })
        .await;
        let acknowledged = doors.api.status().await.ingest.wal_synced;
        let mut command = program();
        command.arg("backup").arg("--data").arg(path("data")).arg("--to").arg(path(name));
        if number > 0 {
            command.arg("--previous").arg(path("one"));
        }
        let (code, stdout, stderr) = run(command).await;
        assert_eq!((code, stderr.as_str()), (0, ""), "{stdout}");
        let position: u64 =
            stdout.split("position ").nth(1).and_then(|rest| rest.split(',').next()?.parse().ok()).unwrap();
        assert!(position >= acknowledged, "{stdout} after {acknowledged}");
        assert_eq!(stdout.contains(" 0 of them shared"), number == 0, "{stdout}");
        positions.push(position);
    }
    let exports: u64 = load.finish().await.iter().sum();
    doors.api.until_visible().await;
    assert_eq!(doors.api.number("SELECT count(*) FROM calls").await as u64, exports * ROWS_PER_TRACE);

    let mut command = program();
    command.arg("backup").arg("--data").arg(path("data")).arg("--to").arg(path("three"));
    command.arg("--previous").arg(path("two"));
    let (code, _, stderr) = run(command).await;
    assert_eq!((code, stderr.as_str()), (0, ""));
    positions.push(doors.api.status().await.ingest.wal_synced);

    for (name, position) in ["one", "two", "three"].into_iter().zip(positions) {
        let (mut restored, there) = Process::start(Process::command(&path(name), &settings)).await;
        there.api.until_visible().await;
        let expected = answers(&doors.api, position).await;
        assert!(expected[0][0][0].as_u64().unwrap() > 100, "{expected:?}");
        assert_eq!(answers(&there.api, position).await, expected, "{name}");
        let rows = there.api.number("SELECT count(*) FROM calls").await;
        assert_eq!(Some(rows), expected[0][0][0].as_i64(), "{name} has calls after position {position}");
        sums(&there.api).await;
        assert_eq!(reported(&there.api).await, recount(&doors.api, position).await, "{name}");
        if name == "three" {
            assert_eq!(reports(&there.api).await, reports(&doors.api).await);
        }

        // Another client than those that the backup knows.
        let load = Load::start_each(&[0, 0, 0, 20], now_ns());
        load.point_at(there.otlp);
        let exports: u64 = load.until_done().await.iter().sum();
        there.api.until_visible().await;
        let rows = rows.unsigned_abs() + exports * ROWS_PER_TRACE;
        assert_eq!(there.api.row("SELECT count(*), count(DISTINCT row_id) FROM calls").await, [rows, rows]);
        restored.terminate();
        assert_eq!(restored.until_ended().await.code(), Some(0));
        let stderr = restored.stderr();
        assert!(!stderr.contains("ERROR") && !stderr.contains("WARN"), "{stderr}");
    }
    let mut again = program();
    again.arg("backup").arg("--data").arg(path("data")).arg("--to").arg(path("one"));
    let (code, _, stderr) = run(again).await;
    assert_eq!(code, 1);
    assert!(stderr.contains("is there already (name a folder that is not"), "{stderr}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_metrics_of_the_runbook_are_there() {
    let folder = tempfile::tempdir().unwrap();
    let slo = folder.path().join("slo.yaml");
    std::fs::write(&slo, SLO).unwrap();
    let sandbox = Sandbox::start_with(|config| {
        config.slo = Names(vec![slo.display().to_string()]);
        config.alertmanager = Names(vec!["http://127.0.0.1:1".to_owned()]);
    })
    .await;
    let text = include_str!("../../docs/operation.md");
    let named: BTreeSet<&str> = text.split('`').filter(|name| name.starts_with("toolgauge_")).collect();
    assert!(named.len() > 15, "{named:?}");
    let metrics = sandbox.api.get("/metrics").await.text;
    for name in named {
        assert!(metrics.contains(&format!("# TYPE {name} ")), "{name} is not in /metrics");
    }
    sandbox.stop().await;
}
