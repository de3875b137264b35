//! Price books, costs and repricing, from OTLP to what the commands print.

use std::path::Path;

use opentelemetry_proto::tonic::trace::v1::{Span, span::SpanKind};
use prost::Message as _;
use serde_json::Value;
use toolgauge::config::{Names, Time};
use toolgauge_proto::api::costs::{CostsReport, UnpricedReport};
use toolgauge_proto::api::slo::SlosReport;
use toolgauge_proto::time::UnixMicros;

use crate::process::{program, run};
use crate::sandbox::{LIMIT, Sandbox, TRACES, now_ns, until};
use crate::traffic::{double, failed, request, span_id, text, tool_span, trace_id};

const MS: u64 = 1_000_000;
const BOOK: &str = "[[price]]\ntool = \"lookup\"\nper_call = 0.1\n";

fn book(folder: &Path, text: &str) {
    // As editors do it: the file is whole at any moment.
    std::fs::write(folder.join("prices.new"), text).unwrap();
    std::fs::rename(folder.join("prices.new"), folder.join("prices.toml")).unwrap();
}

async fn start(folder: &Path, settle: Option<Time>) -> Sandbox {
    Sandbox::start_with(|config| {
        config.data = folder.join("data");
        config.prices = Names(vec![folder.join("prices.toml").display().to_string()]);
        config.pricing.interval = Time(std::time::Duration::from_millis(20));
        config.settle.after = settle.unwrap_or(config.settle.after);
    })
    .await
}

fn mcp(tool: &str, trace: u64, number: u64, parent: u64, start: u64) -> Span {
    let mut span = tool_span(tool, trace, number, start + MS, 5 * MS);
    span.name = format!("tools/call {tool}");
    span.kind = SpanKind::Client as i32;
    span.parent_span_id = span_id(trace, parent);
    span.attributes.push(text("mcp.method.name", "tools/call"));
    span
}

fn int(key: &str, value: i64) -> opentelemetry_proto::tonic::common::v1::KeyValue {
    use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
    let value = Some(AnyValue { value: Some(any_value::Value::IntValue(value)) });
    KeyValue { key: key.to_owned(), value, ..KeyValue::default() }
}

fn usage(mut span: Span, prefix: &str, input: i64, cached: i64, output: i64) -> Span {
    span.attributes.push(int(&format!("{prefix}.input_tokens"), input));
    span.attributes.push(int(&format!("{prefix}.cache_read.input_tokens"), cached));
    span.attributes.push(int(&format!("{prefix}.output_tokens"), output));
    span
}

fn plain(name: &str, trace: u64, number: u64, start: u64) -> Span {
    Span {
        trace_id: trace_id(trace),
        span_id: span_id(trace, number),
        name: name.to_owned(),
        start_time_unix_nano: start,
        end_time_unix_nano: start + 10 * MS,
        ..Span::default()
    }
}

/// A call whose inner view reports a cost, two that the book prices (one of them failed), one of a tool without a price, and a model's
/// call whose usage the agent's run repeats.
fn spans(start: u64) -> Vec<Span> {
    let tool = |name: &str, trace: u64| tool_span(name, trace, 1, start, 10 * MS);
    let mut reports = mcp("lookup", 1, 2, 1, start);
    reports.attributes.push(double("toolgauge.cost.usd", 0.25));
    let mut agent = plain("invoke_agent planner", 5, 1, start);
    agent.attributes.extend([text("gen_ai.operation.name", "invoke_agent"), text("gen_ai.agent.name", "planner")]);
    let mut chat = plain("chat gpt-4o-mini", 5, 2, start);
    chat.parent_span_id = span_id(5, 1);
    chat.attributes.extend([
        text("gen_ai.operation.name", "chat"),
        text("gen_ai.provider.name", "openai"),
        text("gen_ai.request.model", "gpt-4o-mini"),
    ]);
    vec![
        tool("lookup", 1),
        reports,
        tool("lookup", 2),
        mcp("lookup", 2, 2, 1, start),
        failed(tool("lookup", 3), "TimeoutError"),
        tool("other", 4),
        usage(agent, "gen_ai.aggregated_usage", 1_000, 200, 500),
        usage(chat, "gen_ai.usage", 1_000, 200, 500),
    ]
}

/// Every row, in a fixed order.
const ROWS: &str = "SELECT kind, tool_name, layer, counted, outcome, cost_usd, cost_source, provider FROM calls \
    ORDER BY kind, tool_name, layer, cost_usd NULLS LAST, outcome";

fn expected() -> Vec<Vec<Value>> {
    let row = |text: &'static str| {
        text.split(' ').map(|cell| match cell {
            "-" => Value::Null,
            "true" => true.into(),
            "false" => false.into(),
            cell => cell.into(),
        })
    };
    [
        // What the run repeats is its model's, and has no price.
        "agent - agent true ok - - -",
        // 800 tokens at 0.15, 200 at 0.075 and 500 at 0.6 dollars a million.
        "model - agent true ok 0.000435000 price_book openai",
        "tool lookup agent true error 0.100000000 price_book -",
        "tool lookup agent true ok 0.100000000 price_book -",
        "tool lookup agent true ok 0.250000000 reported -",
        "tool lookup client false ok 0.250000000 reported -",
        // Another view of a call that counts: its price is that one's.
        "tool lookup client false ok - - -",
        "tool other agent true ok - - -",
    ]
    .map(|text| row(text).collect())
    .to_vec()
}

/// Scenario: calls with and without reported costs, seen while they live and when they are committed, and after a restart with another
/// book. Guarantees: reported costs win, also those of another view; the rest costs what the book said at the commit; nothing is priced twice.
#[tokio::test(flavor = "multi_thread")]
async fn a_reported_cost_wins_and_the_book_prices_the_rest() {
    let folder = tempfile::tempdir().unwrap();
    book(folder.path(), BOOK);
    let sandbox = start(folder.path(), None).await;
    sandbox.client().await.export(TRACES, &request("shop", spans(now_ns() - 1_000 * MS)).encode_to_vec()).await;
    sandbox.api.until_visible().await;
    assert_eq!(sandbox.api.sql(ROWS).await, expected());
    sandbox.until_committed().await;
    assert_eq!(sandbox.api.sql(ROWS).await, expected());

    let get = async |path: &str| {
        let answer = sandbox.api.get(path).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        answer.text
    };
    let by = async |by: &str| -> CostsReport {
        serde_json::from_str(&get(&format!("/api/v1/costs?by={by}&from=-1h")).await).unwrap()
    };
    let report = by("tool").await;
    let lookup = &report.groups[0];
    assert_eq!(lookup.name.as_deref(), Some("lookup"));
    assert_eq!((lookup.costs.attempts, lookup.costs.priced), (3, 3));
    assert_eq!(lookup.costs.cost_usd.as_deref(), Some("0.45"));
    assert_eq!(lookup.costs.cost_per_call_usd.as_deref(), Some("0.15"));
    assert_eq!(lookup.costs.cost_per_success_usd.as_deref(), Some("0.225"));
    assert_eq!(lookup.costs.wasted_cost_usd.as_deref(), Some("0.1"));
    assert_eq!(report.total.cost_per_success_usd, None, "three of four are too few");
    for (word, total) in [("tool", "0.45"), ("model", "0.000435"), ("service", "0.450435"), ("day", "0.450435")] {
        assert_eq!(by(word).await.total.cost_usd.as_deref(), Some(total), "{word}");
    }
    let service = &by("service").await.groups[0];
    assert_eq!((service.name.as_deref(), service.costs.models_cost_usd.as_deref()), (Some("shop"), Some("0.000435")));
    assert_eq!(report.forecast.month.cost_usd.is_some(), report.forecast.month.forecast_usd.is_some());
    let problem = sandbox.api.get("/api/v1/costs?by=colour").await.problem();
    assert_eq!((problem.status, problem.detail.contains("must be one of tool, service, ")), (400, true), "{problem:?}");

    let unpriced: UnpricedReport = serde_json::from_str(&get("/api/v1/costs/unpriced").await).unwrap();
    assert_eq!((unpriced.tools, unpriced.models, unpriced.calls), (1, 0, 1));
    until(LIMIT, "the status counts what has no price", async || {
        sandbox.api.status().await.unpriced.map(|counts| assert!(counts.calls <= 1))
    })
    .await;
    sandbox.stop().await;

    // What is committed stays.
    book(folder.path(), "[[price]]\ntool = \"*\"\nper_call = 9\n");
    let sandbox = start(folder.path(), None).await;
    assert_eq!(sandbox.api.sql(ROWS).await, expected());
    sandbox.stop().await;
}

/// Scenario: a book is changed, broken and repaired while calls live. Guarantees: live calls get the new prices; a broken book changes nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_changed_book_prices_what_is_not_committed() {
    let folder = tempfile::tempdir().unwrap();
    book(folder.path(), BOOK);
    let sandbox = start(folder.path(), Some(Time(LIMIT))).await;
    let span = tool_span("lookup", 1, 1, now_ns() - 100 * MS, MS);
    sandbox.client().await.export(TRACES, &request("shop", vec![span]).encode_to_vec()).await;
    sandbox.api.until_visible().await;
    let costs = async |expected: &str| {
        until(LIMIT, expected, async || {
            let row = sandbox.api.row("SELECT sum(cost_usd), max(cost_source) FROM calls").await;
            (row == [Value::from(expected), Value::from("price_book")]).then_some(())
        })
        .await;
    };
    costs("0.100000000").await;
    book(folder.path(), "[[price]]\ntool = \"lookup\"\nper_call = 0.2\n");
    costs("0.200000000").await;
    book(folder.path(), "[[price]]\ntool = \"lookup\"\nper_cal = 0.3\n");
    book(folder.path(), "[[price]]\ntool = \"lookup\"\nper_call = 0.4\n");
    costs("0.400000000").await;
    sandbox.stop().await;
}

/// Scenario: the commands over a running server and over its folder when it is stopped.
/// Guarantees: they print what the API says; `reprice` changes what is committed and nothing that was reported.
#[tokio::test(flavor = "multi_thread")]
async fn the_commands_show_costs_and_price_history_anew() {
    let folder = tempfile::tempdir().unwrap();
    book(folder.path(), BOOK);
    let sandbox = start(folder.path(), None).await;
    let start_ns = now_ns() - 1_000 * MS;
    sandbox.client().await.export(TRACES, &request("shop", spans(start_ns)).encode_to_vec()).await;
    sandbox.until_committed().await;
    let ask = async |arguments: &[&str]| {
        let mut command = program();
        command.args(arguments);
        let (code, stdout, stderr) = run(command).await;
        assert_eq!(code, 0, "{arguments:?}: {stdout}{stderr}");
        stdout
    };
    let url = sandbox.api.url.clone();
    let table = ask(&["report", "costs", "--by", "tool", "--url", &url]).await;
    let line = table.lines().find(|line| line.contains("lookup")).unwrap();
    let cells: Vec<&str> = line.split_whitespace().collect();
    assert_eq!(cells, ["lookup", "3", "100.00", "%", "0.45", "0.15", "0.225", "0.1", "0.45"]);
    assert!(table.contains("total 0.45 USD, 75.00 % of 4 calls priced, wasted 0.1 USD"), "{table}");
    assert!(table.contains("this month (UTC): "), "{table}");
    let csv = ask(&["report", "costs", "--by", "model", "--format", "csv", "--url", &url]).await;
    assert_eq!(
        csv,
        "model,attempts,priced,cost USD,cost/call,cost/success,wasted USD,tools USD,models USD\n\
         gpt-4o-mini,1,100.00 %,0.000435,0.000435,0.000435,0,,0.000435\n"
    );
    let json: CostsReport =
        serde_json::from_str(&ask(&["report", "costs", "--by", "day", "--format", "json", "--url", &url]).await)
            .unwrap();
    assert_eq!(json.by, "day");
    let prices = folder.path().join("prices.toml").display().to_string();
    let checked = ask(&["config", "check", "--prices", &prices, "--url", &url]).await;
    assert!(
        checked.contains("the configuration is fine\nno price: tool other, 1 of 1 calls\n1 tools and 0 models since "),
        "{checked}"
    );

    // Nobody else may write while the server runs.
    let date = &toolgauge_queries::json::rfc3339(UnixMicros((start_ns / 1_000).cast_signed()))[..10].to_owned();
    let data = folder.path().join("data").display().to_string();
    let reprice = ["reprice", "--from", date, "--to", "2100-01-01", "--data", &data, "--prices", &prices];
    let mut command = program();
    command.args(reprice);
    let (code, stdout, stderr) = run(command).await;
    assert_eq!((code, stdout.as_str()), (1, ""), "{stderr}");
    sandbox.stop().await;

    let checked = ask(&["config", "check", "--prices", &prices, "--data", &data]).await;
    assert!(checked.contains("no price: tool other, 1 of 1 calls"), "{checked}");
    book(folder.path(), "[[price]]\ntool = \"*\"\nper_call = 0.3\n");
    let done = ask(&reprice).await;
    assert!(
        done.contains("3 of 8 rows have another cost; known costs were 0.700435000 USD and are 1.400435000 USD"),
        "{done}"
    );
    let again = ask(&reprice).await;
    assert!(again.contains(": 0 of 8 rows have another cost"), "{again}");

    let sandbox = start(folder.path(), None).await;
    let rows = sandbox.api.sql("SELECT tool_name, cost_usd, cost_source FROM tool_calls ORDER BY 1, 2").await;
    let said: Vec<String> =
        rows.iter().map(|row| row.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" ")).collect();
    assert_eq!(
        said,
        [
            "lookup 0.250000000 reported",
            "lookup 0.300000000 price_book",
            "lookup 0.300000000 price_book",
            "other 0.300000000 price_book"
        ]
    );
    let sums = "SELECT sum(cost_usd), sum(priced_calls) FROM calls_1m WHERE counted";
    let rows = "SELECT sum(cost_usd), count(cost_usd) FROM calls WHERE counted";
    assert_eq!(sandbox.api.row(sums).await, sandbox.api.row(rows).await);
    sandbox.stop().await;

    for (arguments, code, says) in [
        (
            vec!["reprice", "--from", "2026-02-01", "--to", "2026-01-01"],
            2,
            "--from 2026-02-01 is after --to 2026-01-01",
        ),
        (vec!["reprice", "--from", "soon", "--to", "2026-01-01"], 2, "\"soon\" is no date (write like 2026-01-31)"),
        (
            vec!["reprice", "--from", "2026-01-01", "--to", "2026-01-01", "--data", "/nowhere"],
            1,
            "there are no tables in the data folder \"/nowhere\"",
        ),
        (
            vec!["serve", "--prices", "/nowhere/prices.toml"],
            2,
            "/nowhere/prices.toml:1:1: error: the file cannot be read",
        ),
    ] {
        let mut command = program();
        command.args(&arguments);
        let (found, stdout, stderr) = run(command).await;
        assert!(found == code && stderr.contains(says), "{arguments:?}: {found}: {stdout}{stderr}");
    }
}

const CHEAP: &str = "apiVersion: openslo/v1
kind: SLO
metadata: {name: cheap}
spec:
  service: shop
  indicator:
    spec:
      ratioMetric:
        good: {metricSource: {type: toolgauge, spec: {where: cost_usd <= 0.2}}}
        total: {metricSource: {type: toolgauge, spec: {where: kind = 'tool' AND tool_name = 'lookup'}}}
  timeWindow: [{duration: 30d, isRolling: true}]
  budgetingMethod: Occurrences
  objectives: [{target: 0.9}]
";

/// Scenario: an SLO counts what calls cost, and history is priced anew. Guarantees: nobody has to move a folder: the next start counts it as SQL does.
#[tokio::test(flavor = "multi_thread")]
async fn an_slo_over_costs_is_counted_anew_after_a_repricing() {
    let folder = tempfile::tempdir().unwrap();
    book(folder.path(), BOOK);
    let slos = folder.path().join("slo.yaml");
    std::fs::write(&slos, CHEAP).unwrap();
    let start = async || {
        Sandbox::start_with(|config| {
            config.data = folder.path().join("data");
            config.slo = Names(vec![slos.display().to_string()]);
            config.prices = Names(vec![folder.path().join("prices.toml").display().to_string()]);
            config.alerting.flush_interval = Time(std::time::Duration::from_millis(50));
        })
        .await
    };
    let counts = async |sandbox: &Sandbox, expected: (u64, u64)| {
        until(LIMIT, "the SLO counts so", async || {
            let report: SlosReport = serde_json::from_str(&sandbox.api.get("/api/v1/slos").await.text).ok()?;
            let slo = report.slos.first()?;
            ((slo.good, slo.bad) == expected && slo.evaluation != "learning").then_some(())
        })
        .await;
        let detail: Value = serde_json::from_str(&sandbox.api.get("/api/v1/slos/shop/cheap").await.text).unwrap();
        let row = sandbox.api.row(detail["definition"]["sql"].as_str().unwrap()).await;
        assert_eq!((row[0].as_u64(), row[1].as_u64()), (Some(expected.0), Some(expected.1)));
    };
    let sandbox = start().await;
    let begin = now_ns() - 1_000 * MS;
    let mut spans: Vec<Span> = (1..=5).map(|trace| tool_span("lookup", trace, 1, begin, MS)).collect();
    spans[0].attributes.push(double("toolgauge.cost.usd", 0.15));
    sandbox.client().await.export(TRACES, &request("shop", spans).encode_to_vec()).await;
    sandbox.until_committed().await;
    counts(&sandbox, (5, 0)).await;
    until(LIMIT, "the counts are in the table", async || {
        let row = sandbox.api.row("SELECT sum(good) FROM slo_1m").await;
        (row[0].as_u64() == Some(5)).then_some(())
    })
    .await;
    sandbox.stop().await;

    book(folder.path(), "[[price]]\ntool = \"lookup\"\nper_call = 0.3\n");
    let mut command = program();
    command.args(["reprice", "--from", "2000-01-01", "--to", "2100-01-01", "--data"]).arg(folder.path().join("data"));
    command.arg("--prices").arg(folder.path().join("prices.toml"));
    let (code, stdout, stderr) = run(command).await;
    assert!(
        code == 0 && stdout.contains("4 of 5 rows") && stdout.contains("SLOs are counted anew"),
        "{stdout}{stderr}"
    );
    let sandbox = start().await;
    counts(&sandbox, (1, 4)).await;
    sandbox.stop().await;
}
