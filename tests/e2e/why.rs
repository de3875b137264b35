//! `toolgauge why`, and conventions of the user.

use std::path::Path;
use std::process::Command;

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use prost::Message as _;
use serde_json::Value;

use crate::process::{program, run};
use crate::sandbox::{LOGS, Sandbox, TRACES, now_ns};
use crate::traffic::{request, text, tool_span};

/// Spans of jobs, which a team counts as tool calls.
const JOBS: &str = r#"
name = "jobs"
fields_from = "otel_genai"
failed = [{ key = "job.state", is = ["broken"] }]

[fields]
tool_name = ["job.name"]
arguments = [{ key = "job.spec", json = "input" }]

[[rule]]
name = "job"
kind = "tool"
signal = "span"
layer = "agent"
all = [{ key = "job.name" }, { key = "job.state", is = ["done", "broken"] }]
"#;

/// Log records of jobs, and MCP as a team wants it: calls of one tool are no calls.
const OVERRIDING: [(&str, &str); 2] = [
    (
        "mcp.toml",
        r#"
name = "mcp"
fields_from = "otel_genai"

[[rule]]
name = "health checks"
kind = "none"
signal = "span"
all = [{ key = "mcp.method.name" }, { key = "gen_ai.tool.name", starts_with = ["HEALTH"] }]

[[rule]]
name = "our calls"
kind = "tool"
signal = "span"
layer = "server"
all = [{ key = "mcp.method.name", is = ["tools/call"] }]
fields = { tool_server = [{ value = "ours" }] }
"#,
    ),
    (
        "job_logs.toml",
        r#"
name = "job_logs"
failed = [{ key = "job.state", is_not = ["done"] }]

[fields]
tool_name = ["job.name"]
session_id = ["job.session"]
duration_ms = [{ key = "job.seconds", exponent = 3 }]

[[rule]]
name = "job record"
kind = "tool"
signal = "log"
layer = "agent"
all = [{ event = ["job.ended"] }]
"#,
    ),
];

/// Scenario: conventions of a user, one in place of a built-in one, one for log records. Guarantees: what they say is what counts, and the
/// rules of the one that is replaced say nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_convention_of_the_user_takes_the_place_of_a_built_in_one_and_reads_log_records() {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in OVERRIDING {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    let own = folder.path().to_owned();
    let sandbox = Sandbox::start_with(move |config| config.recognise.conventions = Some(own)).await;
    let mut client = sandbox.client().await;
    let call = |number, tool: &str| {
        let mut span = tool_span("unused", 1, number, now_ns(), 1_000_000);
        span.attributes = vec![text("mcp.method.name", "tools/call"), text("gen_ai.tool.name", tool)];
        span
    };
    client.export(TRACES, &request("mcp", vec![call(1, "add"), call(2, "health_check")]).encode_to_vec()).await;
    let record = |state: &str, seconds: &str| LogRecord {
        time_unix_nano: now_ns(),
        event_name: "job.ended".into(),
        attributes: vec![
            text("job.name", "rebuild"),
            text("job.session", "s1"),
            text("job.state", state),
            text("job.seconds", seconds),
        ],
        ..LogRecord::default()
    };
    let scope_logs =
        vec![ScopeLogs { log_records: vec![record("done", "1.5"), record("broken", "0.25")], ..Default::default() }];
    let logs = ExportLogsServiceRequest { resource_logs: vec![ResourceLogs { scope_logs, ..Default::default() }] };
    client.export(LOGS, &logs.encode_to_vec()).await;
    sandbox.api.until_visible().await;
    let rows = sandbox
        .api
        .sql(
            "SELECT tool_name, tool_server, convention, layer, outcome, session_id, CASE WHEN signal = 'log' THEN duration_ns END \
             FROM tool_calls ORDER BY tool_name, outcome DESC",
        )
        .await;
    let expected = serde_json::json!([
        ["add", "ours", "mcp", "server", "ok", null, null],
        ["rebuild", null, "job_logs", "agent", "ok", "s1", 1_500_000_000],
        ["rebuild", null, "job_logs", "agent", "error", "s1", 250_000_000],
    ]);
    assert_eq!(Value::from(rows), expected);
    sandbox.stop().await;
}

fn corpus(file: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpora").join(file).display().to_string()
}

fn command(arguments: &[&str]) -> Command {
    let mut command = program();
    command.args(arguments);
    command
}

#[tokio::test(flavor = "multi_thread")]
async fn why_names_the_rule_of_each_record_or_the_first_condition_that_failed() {
    let (code, stdout, stderr) = run(command(&["why", &corpus("mcp_native_inproc/0001-traces.pb")])).await;
    assert_eq!((code, stderr.as_str()), (0, ""));
    assert!(stdout.contains(": tool, by mcp / server span\n    tool_name: list_events\n"), "{stdout}");
    let reason = "failed, because the status is ERROR; class semantic, because \"tool_error\" in the error's type";
    assert!(stdout.contains(reason), "{stdout}");
    assert!(stdout.contains("\"tools/list\""), "{stdout}");
    assert!(stdout.contains(": no call, by mcp / other methods\n"), "{stdout}");
    assert!(stdout.ends_with("7 records, 4 recognised as calls\n"), "{stdout}");

    let (code, stdout, _) = run(command(&["why", &corpus("noise_http_grpc/0002-logs.pb")])).await;
    assert_eq!(code, 0);
    assert_eq!(stdout.matches(": not recognised\n    not by ").count(), 2, "{stdout}");
    assert!(stdout.contains("the event's name is"), "{stdout}");

    let noise = corpus("noise_http_grpc/0001-traces.pb");
    let (_, stdout, _) = run(command(&["why", &noise, "--format", "json"])).await;
    let answer: Value = serde_json::from_str(&stdout).unwrap();
    let verdicts: Vec<&Value> = answer.as_array().unwrap().iter().map(|one| &one["verdict"]).collect();
    let recognised: Vec<_> = verdicts.iter().filter(|verdict| verdict["recognised"] == true).collect();
    assert_eq!((verdicts.len(), recognised.len()), (13, 1));
    assert_eq!(recognised[0]["kind"], "model");
    assert!(
        verdicts.iter().all(|verdict| verdict["recognised"] == true || verdict["missed"][0]["condition"].is_string())
    );

    let (code, stdout, stderr) = run(command(&["why", &corpus("vercel_ai5/0001-traces.json")])).await;
    assert_eq!((code, stderr.as_str()), (0, ""));
    assert!(stdout.ends_with("11 records, 11 recognised as calls\n"), "{stdout}");

    let (code, _, stderr) = run(command(&["why", &corpus("README.md")])).await;
    assert_eq!(code, 1);
    assert!(stderr.contains("is no OTLP export") && stderr.contains("--holds"), "{stderr}");
}

#[tokio::test(flavor = "multi_thread")]
async fn conventions_of_the_user_are_checked_and_recognise() {
    let folder = tempfile::tempdir().unwrap();
    let conventions = folder.path().join("conventions");
    std::fs::create_dir(&conventions).unwrap();
    std::fs::write(conventions.join("jobs.toml"), JOBS).unwrap();
    std::fs::write(conventions.join("notes.txt"), "not a convention").unwrap();
    let own = conventions.clone();
    let sandbox = Sandbox::start_with(move |config| config.recognise.conventions = Some(own)).await;
    let job = |number, state: &str| {
        let mut span = tool_span("unused", 1, number, now_ns(), 1_000_000);
        let spec = "{\"owner\": \"jo\", \"input\": {\"rows\": 3}}";
        span.attributes = vec![text("job.name", "rebuild"), text("job.state", state), text("job.spec", spec)];
        span
    };
    let spans = vec![job(1, "done"), job(2, "broken"), job(3, "waiting")];
    sandbox.client().await.export(TRACES, &request("jobs", spans).encode_to_vec()).await;
    sandbox.api.until_visible().await;
    let rows = sandbox
        .api
        .sql("SELECT tool_name, outcome, argument_keys, convention FROM tool_calls ORDER BY outcome DESC")
        .await;
    assert_eq!(rows, [["rebuild", "ok", "rows", "jobs"], ["rebuild", "error", "rows", "jobs"]]);
    let trace = sandbox.api.row("SELECT DISTINCT trace_id FROM tool_calls").await[0].as_str().unwrap().to_owned();
    // The server explains by its own conventions, which the command does not know, also what is no call.
    let (code, stdout, _) = run(command(&["why", &trace, "--url", &sandbox.api.url])).await;
    assert_eq!(code, 0);
    assert_eq!(stdout.matches(": tool, by jobs / job\n    tool_name: rebuild\n").count(), 2, "{stdout}");
    let reason = "failed, because job.state is \"broken\"; class unknown, because nothing in type, code or message";
    assert!(stdout.contains(reason), "{stdout}");
    let fault = ": not recognised\n    not by jobs / job: job.state is \"done\" or \"broken\": it is \"waiting\"\n";
    assert!(stdout.contains(fault), "{stdout}");
    assert!(stdout.contains("\n3 records, 2 recognised as calls\nrow span_id="), "{stdout}");
    assert_eq!(stdout.matches("tool_name=rebuild convention=jobs layer=agent counted=true").count(), 2, "{stdout}");
    let (_, stdout, _) = run(command(&["why", &trace, "--url", &sandbox.api.url, "--format", "json", "--all"])).await;
    let answer: Value = serde_json::from_str(&stdout).unwrap();
    let of_records = |pointer: &str| -> Vec<Value> {
        answer["records"].as_array().unwrap().iter().filter_map(|record| record.pointer(pointer).cloned()).collect()
    };
    assert_eq!(of_records("/verdict/recognised"), [true, true, false]);
    assert!(of_records("/verdict/missed")[0].as_array().unwrap().len() > 20);
    assert_eq!((answer["truncated"].clone(), answer["calls"].as_array().unwrap().len()), (false.into(), 2));
    assert!(answer["log_from"].is_string(), "{answer}");
    let (code, stdout, _) = run(command(&["why", &"7".repeat(32), "--url", &sandbox.api.url])).await;
    assert_eq!(code, 0);
    assert!(stdout.starts_with("the log has no record of trace 7777"), "{stdout}");
    assert!(stdout.contains("calls has no row of it either"), "{stdout}");
    let (code, _, stderr) = run(command(&["why", &"0".repeat(32), "--url", &sandbox.api.url])).await;
    assert_eq!(code, 1);
    assert!(stderr.contains("32 hex digits"), "{stderr}");
    sandbox.stop().await;

    let file = folder.path().join("toolgauge.toml");
    std::fs::write(&file, format!("[recognise]\nconventions = {:?}\n", conventions.display().to_string())).unwrap();
    let check = || command(&["config", "check", "--config", &file.display().to_string()]);
    assert_eq!(run(check()).await.0, 0);
    std::fs::write(conventions.join("jobs.toml"), JOBS.replace("\"tool\"", "\"tol\"")).unwrap();
    let (code, _, stderr) = run(check()).await;
    assert_eq!(code, 2);
    let fault = "jobs.toml\", job (kind): kind cannot be \"tol\" (write one of tool, model, agent, none)";
    assert!(stderr.contains(fault), "{stderr}");
    std::fs::write(conventions.join("jobs.toml"), JOBS.replace("failed =", "faild =")).unwrap();
    let (code, _, stderr) = run(check()).await;
    assert_eq!(code, 2);
    assert!(stderr.contains("unknown field `faild`") && stderr.contains("line 4"), "{stderr}");
}
