//! The OpenTelemetry SDK for Python as the client, and Polars as another reader of the tables.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use prost::Message as _;
use serde_json::{Value, json};
use toolgauge::config::Time;
use toolgauge_proto::api::ToolReport;
use toolgauge_proto::table::Table;

use crate::process::{run, without_settings};
use crate::sandbox::{LIMIT, Sandbox, TRACES, close, nanos, now_ns, until};
use crate::traffic::trace;

/// Seed, protocol and compression.
const WAYS: [(u64, &str, &str); 3] =
    [(1, "grpc", "gzip"), (20_260_131, "http/protobuf", "gzip"), (7, "http/protobuf", "none")];

/// Runs a script of `tests/python`; the JSON that it prints.
pub(crate) async fn script(name: &str, arguments: &[String], environment: &[(&str, &str)]) -> Value {
    let Ok(python) = std::env::var("TOOLGAUGE_TEST_PYTHON") else {
        panic!(
            "TOOLGAUGE_TEST_PYTHON is not set: run the tests with \"./dev test\", which prepares the Python packages"
        );
    };
    let mut command = without_settings(Command::new(python));
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python").join(name)).args(arguments);
    command.envs(environment.iter().copied());
    let (code, stdout, stderr) = run(command).await;
    assert_eq!(code, 0, "{name}: {stderr}");
    serde_json::from_str(&stdout).unwrap()
}

/// Scenario: several agents' runs with retries told in every way, nested MCP calls, agents as tools, priced and failed
/// calls, sent by two services. Guarantees: what the script wrote down while it made them up is what SQL and the report
/// say, exactly; and when all is committed, Polars reads the same from the folder of the running server.
#[tokio::test(flavor = "multi_thread")]
async fn the_python_sdk_gets_back_exactly_what_it_sent_and_polars_reads_the_same() {
    for (seed, protocol, compression) in WAYS {
        let sandbox = Sandbox::start_with(|config| {
            // Sums are written with the rows they are of.
            config.lake.fold_interval = Time(Duration::ZERO);
        })
        .await;
        let door = if protocol == "grpc" { sandbox.otlp } else { sandbox.otlp_http };
        let way = [("OTEL_EXPORTER_OTLP_PROTOCOL", protocol), ("OTEL_EXPORTER_OTLP_COMPRESSION", compression)];
        let ledger = script("export_genai.py", &[format!("http://{door}"), seed.to_string()], &way).await;
        sandbox.api.until_visible().await;
        assert_eq!(sandbox.api.number("SELECT sum(spans) FROM arrivals").await, ledger["spans"]);
        compare(&sandbox, &ledger).await;
        sandbox.until_committed().await;
        compare(&sandbox, &ledger).await;
        polars(&sandbox).await;
        sandbox.stop().await;
    }
}

/// Scenario: rows are committed, others are still live. Guarantees: what Polars reads from the folder is what SQL counts of the rows up
/// to the position that is committed.
#[tokio::test(flavor = "multi_thread")]
async fn polars_reads_the_settled_part_while_there_are_live_rows() {
    let sandbox = Sandbox::start().await;
    let (mut client, base_ns, mut sent) = (sandbox.client().await, now_ns(), 0);
    let mut send = async || {
        for _ in 0..20 {
            client.export(TRACES, &trace(1, sent, base_ns).encode_to_vec()).await;
            sent += 1;
        }
    };
    send().await;
    sandbox.until_committed().await;
    // Should a commit come between the two answers, once more.
    until(LIMIT, "both answer of the same commit", async || {
        send().await;
        sandbox.api.until_visible().await;
        let before = sandbox.api.status().await.ingest;
        let read = script("read_delta.py", &[sandbox.lake().display().to_string()], &[]).await;
        let settled = format!("wal_position <= {}", before.wal_committed);
        let rows = sandbox.api.row(&format!("SELECT count(*), count(*) FILTER (WHERE {settled}) FROM calls")).await;
        let sums = format!("SELECT sum(duration_ns), sum(cost_usd) FROM tool_calls WHERE {settled}");
        let sums = sandbox.api.row(&sums).await;
        if sandbox.api.status().await.ingest.wal_committed != before.wal_committed {
            return None;
        }
        assert!(before.live_rows > 0 && rows[0].as_u64() > rows[1].as_u64(), "{before:?}: {rows:?}");
        assert_eq!((&read["rows"], &read["duration_ns"]), (&rows[1], &sums[0]));
        assert_eq!(nanos(read["cost_usd"].as_str().unwrap()), nanos(sums[1].as_str().unwrap()));
        Some(())
    })
    .await;
    sandbox.stop().await;
}

async fn compare(sandbox: &Sandbox, ledger: &Value) {
    let api = &sandbox.api;
    assert_eq!(api.number("SELECT count(*) FROM calls").await, ledger["rows"]);
    assert_eq!(api.number("SELECT count(DISTINCT row_id) FROM calls").await, ledger["rows"]);
    attempts(sandbox, ledger).await;
    tools_by_sql(sandbox, ledger["tools"].as_object().unwrap()).await;
    tools_by_report(&api.tools().await, ledger["tools"].as_object().unwrap());

    let models = &ledger["models"];
    let found = api
        .row(
            "SELECT count(*), count(*) FILTER (WHERE outcome = 'ok'), count(*) FILTER (WHERE final), \
             count(*) FILTER (WHERE final AND outcome = 'ok'), sum(input_tokens), sum(output_tokens), \
             sum(cached_input_tokens), sum(cost_usd) FROM model_calls",
        )
        .await;
    let keys = ["attempts", "attempts_ok", "calls", "calls_ok", "input_tokens", "output_tokens", "cached_input_tokens"];
    assert_eq!(found[..7], keys.map(|key| models[key].clone()));
    assert_eq!(nanos(found[7].as_str().unwrap()), nanos(models["cost_usd"].as_str().unwrap()));

    let mut agents = serde_json::Map::new();
    for row in api.sql("SELECT agent_name, count(*) FROM agent_runs GROUP BY 1").await {
        agents.insert(row[0].as_str().unwrap().to_owned(), row[1].clone());
    }
    agents.insert("total".to_owned(), api.number("SELECT count(*) FROM agent_runs").await.into());
    assert_eq!(Value::Object(agents), ledger["agents"]);
}

/// Every attempt by its ids.
async fn attempts(sandbox: &Sandbox, ledger: &Value) {
    let rows = sandbox
        .api
        .sql(
            "SELECT trace_id, span_id, tool_name, call_id, attempt, final, outcome = 'ok', duration_ns FROM tool_calls",
        )
        .await;
    let keys = ["trace_id", "span_id", "tool", "call_id", "attempt", "final", "ok", "duration_ns"];
    let by_ids = |rows: Vec<Vec<Value>>| {
        rows.into_iter().map(|row| (format!("{} {}", row[0], row[1]), row)).collect::<BTreeMap<_, _>>()
    };
    let expected: Vec<Vec<Value>> = ledger["attempts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|attempt| keys.map(|key| attempt[key].clone()).to_vec())
        .collect();
    assert_eq!(rows.len(), expected.len());
    let (found, expected) = (by_ids(rows), by_ids(expected));
    for (ids, expected) in &expected {
        assert_eq!(found.get(ids), Some(expected), "{ids}");
    }
    assert_eq!(found.len(), expected.len());
}

async fn tools_by_sql(sandbox: &Sandbox, expected: &serde_json::Map<String, Value>) {
    let figures = "SELECT tool_name, max(tool_server), count(DISTINCT coalesce(tool_server, '')), count(*), \
        count(*) FILTER (WHERE outcome = 'ok'), count(*) FILTER (WHERE final), \
        count(*) FILTER (WHERE final AND outcome = 'ok'), count(*) FILTER (WHERE attempt > 1), count(cost_usd), \
        sum(cost_usd), sum(cost_usd) FILTER (WHERE outcome = 'error') FROM tool_calls GROUP BY 1";
    let rows = sandbox.api.sql(figures).await;
    assert_eq!(rows.len(), expected.len());
    for row in rows {
        let name = row[0].as_str().unwrap();
        let tool = &expected[name];
        assert_eq!(row[1], tool["tool_server"], "{name}");
        assert_eq!(row[2], 1, "{name} has one server");
        let keys = ["attempts", "attempts_ok", "calls", "calls_ok", "retries", "priced"];
        assert_eq!(row[3..9], keys.map(|key| tool[key].clone()), "{name}");
        let money = |value: &Value| value.as_str().map(nanos);
        assert_eq!((money(&row[9]), money(&row[10])), (money(&tool["cost_usd"]), money(&tool["wasted_usd"])), "{name}");
    }
    let mut durations = BTreeMap::<String, Vec<Value>>::new();
    for row in sandbox.api.sql("SELECT tool_name, duration_ns FROM tool_calls ORDER BY 1, 2").await {
        durations.entry(row[0].as_str().unwrap().to_owned()).or_default().push(row[1].clone());
    }
    let mut call_ids = BTreeMap::<String, Vec<Value>>::new();
    let ids = "SELECT DISTINCT tool_name, call_id FROM tool_calls WHERE call_id IS NOT NULL ORDER BY 1, 2";
    for row in sandbox.api.sql(ids).await {
        call_ids.entry(row[0].as_str().unwrap().to_owned()).or_default().push(row[1].clone());
    }
    for (name, tool) in expected {
        assert_eq!(durations[name], *tool["durations_ns"].as_array().unwrap(), "{name}");
        assert_eq!(Value::from(call_ids.remove(name).unwrap_or_default()), tool["call_ids"], "{name}");
        for (column, key) in [("error_type", "errors"), ("error_class", "error_classes")] {
            let query = format!(
                "SELECT {column}, count(*) FROM tool_calls WHERE outcome = 'error' AND tool_name = '{name}' GROUP BY 1"
            );
            let rows = sandbox.api.sql(&query).await;
            let found: serde_json::Map<String, Value> =
                rows.into_iter().map(|row| (row[0].as_str().unwrap().to_owned(), row[1].clone())).collect();
            assert_eq!(Value::Object(found), tool[key], "{name}");
        }
    }
}

fn tools_by_report(report: &[ToolReport], expected: &serde_json::Map<String, Value>) {
    assert_eq!(report.len(), expected.len());
    for (name, tool) in expected {
        let found = report.iter().find(|found| found.tool_name.as_ref() == Some(name)).unwrap();
        assert_eq!(json!(found.tool_server), tool["tool_server"], "{name}");
        let counts = [found.attempts, found.attempts_ok, found.calls, found.calls_ok].map(Value::from);
        assert_eq!(counts, ["attempts", "attempts_ok", "calls", "calls_ok"].map(|key| tool[key].clone()), "{name}");
        let count = |key: &str| tool[key].as_u64().unwrap();
        let ratio = |part: &str, whole: &str| count(part) as f64 / count(whole) as f64;
        assert!(close(found.success_ratio_attempt, ratio("attempts_ok", "attempts")), "{name}: {found:?}");
        assert!(close(found.success_ratio_logical, ratio("calls_ok", "calls")), "{name}: {found:?}");
        assert!(close(found.retry_ratio, ratio("retries", "attempts")), "{name}: {found:?}");
        assert!(close(found.cost_coverage, ratio("priced", "attempts")), "{name}: {found:?}");
        assert_eq!(json!(found.errors), tool["error_classes"], "{name}");
        let money = |value: &Value| value.as_str().map(nanos);
        assert_eq!(found.cost_usd.as_deref().map(nanos), money(&tool["cost_usd"]), "{name}");
        let wasted = found.wasted_cost_usd.as_deref().map(nanos).filter(|wasted| *wasted > 0);
        assert_eq!(wasted, money(&tool["wasted_usd"]), "{name}");

        // Nearest rank; the answer is the upper end of a bucket of three significant digits.
        let durations: Vec<u64> =
            tool["durations_ns"].as_array().unwrap().iter().map(|d| d.as_u64().unwrap()).collect();
        for (quantile, ms) in [(50, found.latency.p50_ms), (95, found.latency.p95_ms), (99, found.latency.p99_ms)] {
            let rank = (durations.len() * quantile).div_ceil(100).max(1);
            let exact = durations[rank - 1] as f64 / 1e6;
            assert!((exact..=exact * 1.001 + 0.001).contains(&ms), "{name}: p{quantile} is {exact} ms, not {ms} ms");
        }
    }
}

/// What Polars reads from the folder, from calls and from sums per minute, is what we answer.
async fn polars(sandbox: &Sandbox) {
    let read = script("read_delta.py", &[sandbox.lake().display().to_string()], &[]).await;
    let api = &sandbox.api;
    assert_eq!(read["rows"], api.number("SELECT count(*) FROM calls").await);
    assert!(read["rows"].as_u64().unwrap() > 0);
    let sums = api.row("SELECT sum(duration_ns), sum(cost_usd) FROM tool_calls").await;
    assert_eq!(read["duration_ns"], sums[0]);
    assert_eq!(nanos(read["cost_usd"].as_str().unwrap()), nanos(sums[1].as_str().unwrap()));
    let mut tools = serde_json::Map::new();
    let query = "SELECT tool_name, count(*), count(*) FILTER (WHERE final), count(*) FILTER (WHERE outcome = 'error'), \
        count(*) FILTER (WHERE final AND outcome = 'error') FROM tool_calls GROUP BY 1";
    for row in api.sql(query).await {
        let figures = json!({ "attempts": row[1], "final": row[2], "errors": row[3], "final_errors": row[4] });
        tools.insert(row[0].as_str().unwrap().to_owned(), figures);
    }
    assert_eq!(read["tools"], Value::Object(tools));
    for figure in ["tools", "duration_ns"] {
        assert_eq!(read["minutes"][figure], read[figure], "{figure} from sums per minute");
    }
    assert_eq!(nanos(read["minutes"]["cost_usd"].as_str().unwrap()), nanos(read["cost_usd"].as_str().unwrap()));
    let mut columns: Vec<&str> =
        read["columns"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
    let mut expected: Vec<&str> = Table::Calls.columns().iter().map(|column| column.name).collect();
    columns.sort_unstable();
    expected.sort_unstable();
    assert_eq!(columns, expected);
}
