//! `toolgauge why`, and conventions of the user.

use std::path::Path;
use std::process::Command;

use prost::Message as _;
use serde_json::Value;

use crate::process::{program, run};
use crate::sandbox::{Sandbox, TRACES, now_ns};
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
    let (code, stdout, _) = run(command(&["why", &trace, "--url", &sandbox.api.url, "--format", "csv"])).await;
    assert_eq!(code, 0);
    assert_eq!(stdout.matches(",rebuild,jobs,agent,true,").count(), 2, "{stdout}");
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
