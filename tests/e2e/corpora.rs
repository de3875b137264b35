//! Real captures give the figures that their manifests recorded while the tools ran.

use std::path::{Path, PathBuf};
use std::time::Duration;

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value};
use prost::Message as _;
use serde_json::Value;
use toolgauge::config::Time;
use toolgauge_collector::export::ExportSignal;
use toolgauge_collector::receiver::json_to_protobuf;

use crate::http_door::{JSON, post};
use crate::sandbox::{LOGS, Sandbox, TRACES, close, nanos, nanos_of_number};

/// The captures get old; nothing of them may be refused for it.
const RETENTION: Duration = Duration::from_secs(100 * 366 * 86_400);

/// Every row that the checks look at, as it is asked for in [`CALLS`].
#[derive(Debug, Clone)]
struct Call {
    tool: String,
    ok: bool,
    duration_ns: u64,
    call_id: Option<String>,
    attempt: i64,
    is_final: bool,
    error_type: Option<String>,
    cost: Option<i128>,
    error_class: String,
}

const CALLS: &str = "SELECT tool_name, outcome, duration_ns, call_id, attempt, final, error_type, cost_usd, error_class \
    FROM tool_calls ORDER BY start_time, end_time";

async fn calls(sandbox: &Sandbox) -> Vec<Call> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let rows = sandbox.api.sql(CALLS).await;
    rows.iter()
        .map(|row| Call {
            tool: text(&row[0]).unwrap(),
            ok: row[1] == "ok",
            duration_ns: row[2].as_u64().unwrap(),
            call_id: text(&row[3]),
            attempt: row[4].as_i64().unwrap(),
            is_final: row[5].as_bool().unwrap(),
            error_type: text(&row[6]),
            cost: row[7].as_str().map(nanos),
            error_class: text(&row[8]).unwrap(),
        })
        .collect()
}

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpora").join(name)
}

fn manifest(name: &str) -> Value {
    serde_json::from_slice(&std::fs::read(folder(name).join("manifest.json")).unwrap()).unwrap()
}

/// An export of one span or one log record.
#[derive(Debug, Clone)]
enum Single {
    Span(ExportTraceServiceRequest),
    Record(ExportLogsServiceRequest),
}

/// A capture, span by span and record by record.
fn singles(name: &str, manifest: &Value) -> Vec<Single> {
    let mut singles = Vec::new();
    for file in manifest["capture"]["files"].as_array().unwrap() {
        let file = file.as_str().unwrap();
        let is_logs = file.contains("-logs.");
        let mut body = std::fs::read(folder(name).join(file)).unwrap();
        if file.ends_with(".json") {
            let signal = if is_logs { ExportSignal::Logs } else { ExportSignal::Traces };
            body = json_to_protobuf(&body, Some(signal)).unwrap();
        }
        if is_logs {
            for mut resource in ExportLogsServiceRequest::decode(&*body).unwrap().resource_logs {
                for mut scope in std::mem::take(&mut resource.scope_logs) {
                    for record in std::mem::take(&mut scope.log_records) {
                        let mut resource = resource.clone();
                        resource.scope_logs = vec![scope.clone()];
                        resource.scope_logs[0].log_records = vec![record];
                        singles.push(Single::Record(ExportLogsServiceRequest { resource_logs: vec![resource] }));
                    }
                }
            }
        } else {
            for mut resource in ExportTraceServiceRequest::decode(&*body).unwrap().resource_spans {
                for mut scope in std::mem::take(&mut resource.scope_spans) {
                    for span in std::mem::take(&mut scope.spans) {
                        let mut resource = resource.clone();
                        resource.scope_spans = vec![scope.clone()];
                        resource.scope_spans[0].spans = vec![span];
                        singles.push(Single::Span(ExportTraceServiceRequest { resource_spans: vec![resource] }));
                    }
                }
            }
        }
    }
    singles
}

/// The ids of calls that a person refused, as the capture's own log records say.
fn rejected(name: &str, manifest: &Value) -> Vec<String> {
    let text = |attributes: &[KeyValue], key: &str| {
        let value = attributes.iter().find(|pair| pair.key == key)?.value.clone()?.value?;
        if let any_value::Value::StringValue(text) = value { Some(text) } else { None }
    };
    let records = singles(name, manifest).into_iter().filter_map(|single| match single {
        Single::Record(request) => Some(request.resource_logs[0].scope_logs[0].log_records[0].clone()),
        Single::Span(_) => None,
    });
    records
        .filter(|record| text(&record.attributes, "decision").as_deref() == Some("reject"))
        .map(|record| text(&record.attributes, "tool_use_id").unwrap())
        .collect()
}

/// Scenario: every capture, each span and record in an export of its own, in an order drawn from a seed, and all of it twice.
/// Guarantees: every figure of its manifest is the same.
#[tokio::test(flavor = "multi_thread")]
async fn captures_that_come_span_by_span_shuffled_and_twice_give_the_same_figures() {
    let mut random: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut below = move |n: usize| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        usize::try_from(random >> 33).unwrap() % n
    };
    for name in CAPTURES {
        let manifest = manifest(name);
        let mut singles = singles(name, &manifest);
        singles.extend(singles.clone());
        for i in (1..singles.len()).rev() {
            singles.swap(i, below(i + 1));
        }
        let sandbox = Sandbox::start_with(|config| config.recognise.retention = Time(RETENTION)).await;
        let mut client = sandbox.client().await;
        for single in &singles {
            match single {
                Single::Span(request) => client.export(TRACES, &request.encode_to_vec()).await,
                Single::Record(request) => client.export(LOGS, &request.encode_to_vec()).await,
            }
        }
        sandbox.api.until_visible().await;
        figures(name, &sandbox, &manifest).await;
        sandbox.stop().await;
    }
}

/// Sends a capture, and compares every figure of its manifest: while its rows live, and when they are committed.
async fn check(name: &str) {
    let folder = folder(name);
    let manifest = manifest(name);
    let sandbox = Sandbox::start_with(|config| {
        config.recognise.retention = Time(RETENTION);
    })
    .await;
    let mut client = sandbox.client().await;
    for file in manifest["capture"]["files"].as_array().unwrap() {
        let file = file.as_str().unwrap();
        let body = std::fs::read(folder.join(file)).unwrap();
        let is_logs = file.contains("-logs.");
        if file.ends_with(".json") {
            let url = format!("http://{}/v1/{}", sandbox.otlp_http, if is_logs { "logs" } else { "traces" });
            assert_eq!(post(&url, JSON, None, body).await.0, 200, "{file}");
        } else {
            client.export(if is_logs { LOGS } else { TRACES }, &body).await;
        }
    }
    sandbox.api.until_visible().await;
    let arrived =
        sandbox.api.row("SELECT sum(spans), sum(log_records), sum(requests) > 0, sum(quarantined) FROM arrivals").await;
    let capture = &manifest["capture"];
    assert_eq!(arrived, [capture["spans"].clone(), capture["log_records"].clone(), true.into(), 0.into()]);
    figures(name, &sandbox, &manifest).await;
    sandbox.until_committed().await;
    figures(name, &sandbox, &manifest).await;
    sandbox.stop().await;
}

/// Producers that tell of no usage of their models: that of their agents' runs stands for it.
const USAGE_ON_AGENTS: &[&str] = &["smolagents_openinference"];

async fn figures(name: &str, sandbox: &Sandbox, manifest: &Value) {
    let calls = calls(sandbox).await;
    let (expected, described) = (&manifest["expected"], manifest["calls"].as_array().unwrap());
    let errors = calls.iter().filter(|call| !call.ok).count();
    let retries = calls.iter().filter(|call| call.attempt > 1).count();
    let tellers = if USAGE_ON_AGENTS.contains(&name) { "agent_runs" } else { "model_calls" };
    let tokens = |column: &str| format!("SELECT coalesce(sum({column}), 0) FROM {tellers}");
    for (figure, value) in expected.as_object().unwrap() {
        match figure.as_str() {
            "tool_calls" => assert_eq!(*value, calls.len(), "{figure}"),
            "errors" => assert_eq!(*value, errors, "{figure}"),
            "tools" => by_tool(sandbox, &calls, value).await,
            "retries" | "retries_by_repeated_call_id" => assert_eq!(*value, retries, "{figure}"),
            "llm_retries" => {
                let retried = "SELECT count(*) FROM model_calls WHERE attempt > 1";
                assert_eq!(*value, sandbox.api.number(retried).await, "{figure}");
            }
            // A mark is one of the ways in which a retry is told; the figure of all ways is the one above.
            "retries_marked" => assert!(value.as_u64().unwrap() <= retries as u64, "{figure}"),
            "distinct_tool_call_ids" => {
                assert_eq!(
                    *value,
                    sandbox.api.number("SELECT count(DISTINCT call_id) FROM tool_calls").await,
                    "{figure}"
                );
            }
            "tool_cost_usd" => assert_eq!(nanos_of_number(value), sum(sandbox, "tool_calls").await, "{figure}"),
            "cost_usd" => assert_eq!(nanos_of_number(value), sum(sandbox, "model_calls").await, "{figure}"),
            "llm_calls" => {
                assert_eq!(*value, sandbox.api.number("SELECT count(*) FROM model_calls").await, "{figure}");
            }
            "input_tokens" | "output_tokens" => {
                assert_eq!(*value, sandbox.api.number(&tokens(figure)).await, "{figure}")
            }
            "cache_read_input_tokens" | "cache_read_tokens" | "cached_tokens" => {
                assert_eq!(*value, sandbox.api.number(&tokens("cached_input_tokens")).await, "{figure}");
            }
            "log_records" => assert_eq!(*value, manifest["capture"]["log_records"]),
            "session_id" => {
                let sessions = sandbox.api.sql("SELECT session_id FROM sessions").await;
                assert_eq!(sessions, [[value.clone()]], "{figure}");
            }
            "soft_errors_reported_as_success" => {
                let soft = described.iter().filter(|call| call["soft_error"] == true).count();
                assert_eq!(*value, soft, "{figure}");
            }
            "sampling_ratio" => {
                // What a sample stands for is that many times as much, to the last digit of the weights.
                let weight = format!("SELECT count(*) FROM tool_calls WHERE weight * {value} <> 1");
                assert_eq!(0, sandbox.api.number(&weight).await, "{figure}");
            }
            "adjusted_count_per_span" => {
                let weight = format!("SELECT count(*) FROM tool_calls WHERE weight <> {value}");
                assert_eq!(0, sandbox.api.number(&weight).await, "{figure}");
            }
            // What a person refused was not carried out.
            "rejected_calls" => {
                let rejected = rejected(name, manifest);
                assert_eq!(*value, rejected.len(), "{figure}");
                assert!(calls.iter().all(|call| call.call_id.as_ref().is_none_or(|id| !rejected.contains(id))));
            }
            "cache_creation_tokens" => {
                let written = sandbox.api.number("SELECT sum(cache_write_input_tokens) FROM model_calls").await;
                assert_eq!(Some(written), value.as_i64(), "{figure}");
            }
            // The prices by which the producer's costs are what they are, in USD for a million tokens.
            "cost_basis" => {
                let words: Vec<&str> = value.as_str().unwrap().split_whitespace().collect();
                let price = |unit: &[&str]| {
                    let at = words.windows(unit.len()).position(|window| window == unit).unwrap();
                    nanos(words[at - 1]) / 1_000_000
                };
                let (input, cached, output) = (price(&["in", "/"]), price(&["cached", "in"]), price(&["out", "USD"]));
                let cost = format!(
                    "SELECT sum((input_tokens - coalesce(cached_input_tokens, 0)) * {input} \
                     + coalesce(cached_input_tokens, 0) * {cached} + output_tokens * {output}) FROM model_calls"
                );
                assert_eq!(i128::from(sandbox.api.number(&cost).await), sum(sandbox, "model_calls").await, "{figure}");
            }
            // What the calls would cost by a price list; the built-in one says the same.
            "llm_cost_usd_if_cached_is_half_price" => {
                let priced = "SELECT sum(cost_usd) FROM model_calls WHERE cost_source = 'price_book'";
                let found = sandbox.api.row(priced).await[0].as_str().map(nanos);
                assert_eq!(found, Some(nanos_of_number(value)), "{figure}");
            }
            other => panic!("the manifest has a figure that nobody compares: {other}"),
        }
    }
    if manifest["population"].is_null() {
        assert_eq!(calls.len(), described.len());
    } else {
        population(sandbox, &manifest["population"], expected["sampling_ratio"].as_f64().unwrap()).await;
    }
    each_call(&calls, described);
    if let Some(models) = manifest["llm_calls"].as_array() {
        each_model_call(name, sandbox, models).await;
    }
}

/// What a sample tells of all calls holds of all calls: their number within three standard deviations of one that keeps each with
/// this probability, the share of successes within its interval.
async fn population(sandbox: &Sandbox, population: &Value, ratio: f64) {
    let report = sandbox.api.tools().await;
    for (name, figures) in population["tools"].as_object().unwrap() {
        let (all, errors) = (figures["calls"].as_f64().unwrap(), figures["errors"].as_f64().unwrap());
        let tool = report.iter().find(|tool| tool.tool_name.as_ref() == Some(name)).unwrap();
        let weighted = tool.weighted.as_ref().unwrap();
        let deviation = (all * (1.0 - ratio) / ratio).sqrt();
        let told: f64 = weighted.attempts.parse().unwrap();
        assert!((told - all).abs() <= 3.0 * deviation, "{name}: {told} of {all}, deviation {deviation}");
        let [low, high] = weighted.success_interval_attempt.unwrap();
        assert!((low..=high).contains(&(1.0 - errors / all)), "{name}: {low} to {high}");
    }
}

async fn sum(sandbox: &Sandbox, table: &str) -> i128 {
    nanos(sandbox.api.row(&format!("SELECT sum(cost_usd) FROM {table}")).await[0].as_str().unwrap())
}

async fn by_tool(sandbox: &Sandbox, calls: &[Call], expected: &Value) {
    let expected = expected.as_object().unwrap();
    let report = sandbox.api.tools().await;
    assert_eq!(report.len(), expected.len());
    for (name, figures) in expected {
        let tool = report.iter().find(|tool| tool.tool_name.as_ref() == Some(name)).unwrap();
        let of_tool: Vec<&Call> = calls.iter().filter(|call| call.tool == *name).collect();
        let count = |wanted: fn(&Call) -> bool| of_tool.iter().filter(|call| wanted(call)).count() as u64;
        let (attempts, errors) = (figures["calls"].as_u64().unwrap(), figures["errors"].as_u64().unwrap());
        assert_eq!(of_tool.len() as u64, attempts, "{name}");
        assert_eq!(count(|call| !call.ok), errors, "{name}");
        assert_eq!((tool.attempts, tool.attempts_ok), (attempts, attempts - errors), "{name}");
        assert_eq!(tool.errors.values().sum::<u64>(), errors, "{name}");
        assert_eq!((tool.calls, tool.calls_ok), (count(|call| call.is_final), count(|call| call.is_final && call.ok)));
        assert!(close(tool.retry_ratio, count(|call| call.attempt > 1) as f64 / attempts as f64), "{name}: {tool:?}");
        let costs: Vec<i128> = of_tool.iter().filter_map(|call| call.cost).collect();
        let cost = (!costs.is_empty()).then(|| costs.iter().sum::<i128>());
        assert_eq!(tool.cost_usd.as_deref().map(nanos), cost, "{name}");
        let duration = |bound: &str| figures["duration_ms"][bound].as_u64().unwrap() * 1_000_000;
        for call in of_tool {
            assert!((duration("min")..=duration("max")).contains(&call.duration_ns), "{name}: {call:?}");
        }
    }
}

/// Each call that the manifest describes has its row: by its id and attempt if it has an id, else in order of time.
fn each_call(calls: &[Call], described: &[Value]) {
    let mut left = calls.to_vec();
    for wanted in described {
        let text = |key: &str| wanted[key].as_str();
        let same = |call: &Call| {
            call.tool == text("tool").unwrap()
                && (wanted["call_id"].is_null() || call.call_id.as_deref() == text("call_id"))
                && (wanted["attempt"].is_null() || wanted["attempt"] == call.attempt)
        };
        let found = left.iter().position(same).unwrap_or_else(|| panic!("no row for {wanted}; left: {left:?}"));
        let call = left.remove(found);
        // What a tool returns as text its library calls a success.
        assert_eq!(wanted["ok"] == true || wanted["soft_error"] == true, call.ok, "{wanted}: {call:?}");
        assert!(call.duration_ns >= wanted["min_duration_ms"].as_u64().unwrap() * 1_000_000, "{wanted}: {call:?}");
        if let Some(exact) = wanted["exact_duration_ms"].as_u64() {
            assert_eq!(call.duration_ns, exact * 1_000_000, "{wanted}: {call:?}");
        }
        if let Some(retry) = wanted["retry"].as_bool() {
            assert_eq!(retry, call.attempt > 1, "{wanted}: {call:?}");
        }
        // Some manifests name several types that it may be, or describe the error in words.
        if let Some(error) = text("error_type").filter(|error| !error.contains(' ')) {
            let found = call.error_type.as_deref().unwrap_or_default();
            let bare = found.rsplit('.').next().unwrap_or_default();
            assert!(error.split('/').any(|error| found == error || bare == error), "{wanted}: {call:?}");
        }
        if let Some(stage) = text("failure_stage") {
            assert_eq!((stage, call.error_class.as_str()), ("validation", "invalid_input"), "{wanted}: {call:?}");
        }
        if wanted["cost_usd"].is_number() {
            assert_eq!(call.cost, Some(nanos_of_number(&wanted["cost_usd"])), "{wanted}: {call:?}");
        }
    }
}

/// Captures whose spans do not name the model of a call.
const MODELS_UNNAMED: &[&str] =
    &["langchain_openinference", "langchain_traceloop", "smolagents_openinference", "strands_native"];

async fn each_model_call(name: &str, sandbox: &Sandbox, described: &[Value]) {
    let rows = sandbox
        .api
        .sql(
            "SELECT model, input_tokens, output_tokens, coalesce(cached_input_tokens, 0), cost_usd, cost_source
            FROM model_calls",
        )
        .await;
    assert_eq!(rows.len(), described.len());
    if USAGE_ON_AGENTS.contains(&name) {
        assert!(rows.iter().all(|row| row[1].is_null()), "{rows:?}");
        return;
    }
    let mut left = rows;
    for call in described {
        let cached = call["cache_read_tokens"].as_u64().unwrap_or(0);
        let same = |row: &Vec<Value>| {
            // The one that answers has a longer name than the one that was asked for.
            let model = row[0]
                .as_str()
                .map_or(MODELS_UNNAMED.contains(&name), |model| model.starts_with(call["model"].as_str().unwrap()));
            model && row[1] == call["input_tokens"] && row[2] == call["output_tokens"] && row[3] == cached
        };
        let found = left.iter().position(same).unwrap_or_else(|| panic!("no row for {call}; left: {left:?}"));
        let row = left.remove(found);
        // The one model of the captures that has a list price: 0.15 dollars a million tokens read, half of it from a cache, and 0.60
        // written. A row that names no model has no price.
        if row[0].as_str().is_some_and(|model| model.starts_with("gpt-4o-mini")) && row[5] != "reported" {
            let tokens = |key: &str| i128::from(call[key].as_u64().unwrap_or(0));
            let fresh = tokens("input_tokens") - tokens("cache_read_tokens");
            let nanos_usd = 150 * fresh + 75 * tokens("cache_read_tokens") + 600 * tokens("output_tokens");
            let cost = row[4].as_str().map(nanos);
            assert_eq!((cost, &row[5]), (Some(nanos_usd), &"price_book".into()), "{call}: {row:?}");
        }
    }
}

macro_rules! corpora {
    ($($test:ident: $name:literal),+ $(,)?) => {
        const CAPTURES: &[&str] = &[$($name),+];

        $(#[tokio::test(flavor = "multi_thread")]
        async fn $test() {
            check($name).await;
        })+
    };
}

corpora!(
    the_plain_conventions_give_the_figures_of_their_manifest: "plain_spec",
    pydantic_ai_gives_the_figures_of_its_manifest: "pydantic_ai",
    pydantic_ai_over_mcp_gives_the_figures_of_its_manifest: "pydantic_ai_mcp_nested",
    strands_gives_the_figures_of_its_manifest: "strands_native",
    the_agent_framework_gives_the_figures_of_its_manifest: "agent_framework_native",
    http_grpc_and_lookalikes_are_no_tool_calls: "noise_http_grpc",
    an_mcp_server_gives_the_figures_of_its_manifest: "mcp_native_inproc",
    mcp_by_openllmetry_gives_the_figures_of_its_manifest: "mcp_traceloop",
    langchain_by_openinference_gives_the_figures_of_its_manifest: "langchain_openinference",
    langchain_by_openllmetry_gives_the_figures_of_its_manifest: "langchain_traceloop",
    vercel_ai_gives_the_figures_of_its_manifest: "vercel_ai5",
    smolagents_gives_the_figures_of_its_manifest: "smolagents_openinference",
    claude_code_gives_the_figures_of_its_manifest: "claude_code_synthetic_logs",
    codex_cli_gives_the_figures_of_its_manifest: "codex_cli",
    gemini_cli_gives_the_figures_of_its_manifest: "gemini_cli",
    autogen_gives_the_figures_of_its_manifest: "autogen_native",
    autogen_by_two_libraries_at_once_gives_the_figures_of_its_manifest: "autogen_openinference",
    the_cli_of_claude_code_by_logs_and_spans_gives_the_figures_of_its_manifest: "claude_code_cli",
    codex_cli_by_logs_and_spans_gives_the_figures_of_its_manifest: "codex_cli_traces",
    fastmcp_over_the_mcp_sdk_gives_the_figures_of_its_manifest: "fastmcp_native",
    crewai_gives_the_figures_of_its_manifest: "crewai_openinference",
    google_adk_2_gives_the_figures_of_its_manifest: "google_adk2",
    google_adk_before_2_gives_the_figures_of_its_manifest: "google_adk1",
    langsmith_gives_the_figures_of_its_manifest: "langsmith_otel",
    llama_index_gives_the_figures_of_its_manifest: "llamaindex_openinference",
    openai_agents_give_the_figures_of_their_manifest: "openai_agents_openinference",
    pydantic_ai_version_2_gives_the_figures_of_its_manifest: "pydantic_ai_v2",
    pydantic_ai_version_6_gives_the_figures_of_its_manifest: "pydantic_ai_v6",
    vercel_ai_6_gives_the_figures_of_its_manifest: "vercel_ai6",
    vercel_ai_7_gives_the_figures_of_its_manifest: "vercel_ai7",
    spans_that_each_carry_a_threshold_weigh_what_it_says: "sampled_spec",
    spans_beneath_a_root_with_a_threshold_weigh_what_it_says: "sampled_parent_threshold",
);
