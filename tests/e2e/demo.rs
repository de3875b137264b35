//! `toolgauge demo` and `toolgauge loadgen`, as processes.

use std::time::Duration;

use prost::Message as _;
use serde_json::Value;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpListener;

use crate::process::{Process, program, run, run_within};
use crate::sandbox::{LIMIT, Raw, Sandbox, TRACES, nanos, now_ns};
use crate::traffic::{ROWS_PER_TRACE, trace};

/// Any port, so that demos run side by side.
const DOORS: [&str; 6] = ["--otlp-grpc", "127.0.0.1:0", "--otlp-http", "127.0.0.1:0", "--http", "127.0.0.1:0"];

/// How long a demo with live traffic may take.
const DEMO_LIMIT: Duration = Duration::from_secs(15 * 60);
/// From the start to the first screen, at most.
const FIRST_SCREEN_S: f64 = 120.0;
/// From the break to the page, at most.
const PAGE_S: u64 = 90;
/// The short window of the tier that pages first.
const SHORT_WINDOW_S: u64 = 5 * 60;
/// A window has the minute that is under way besides its own; then an evaluation notices, and the screen shows it.
const RESOLVE_SLACK_S: u64 = 60 + 10 + 5;
/// Figures of a day that nobody sums up: those of a dozen tools, two models and three agents. Some are not used every day.
const FIGURES_MIN: u64 = 30 * (12 + 2 + 3) * 9 / 10;

/// What stands between the words before and after it, as a number.
fn told<T: std::str::FromStr>(text: &str, before: &str, after: &str) -> Option<T> {
    let rest = &text[text.find(before)? + before.len()..];
    rest[..rest.find(after)?].replace(',', "").parse().ok()
}

/// Scenario: a demo without live traffic. Guarantees: every figure of its ledger is what SQL says, and the folder of its own is
/// gone afterwards.
#[tokio::test(flavor = "multi_thread")]
async fn the_history_of_a_demo_is_what_its_ledger_says() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = program();
    command.args(["demo", "--no-live", "--calls", "20000", "--seed", "3"]).args(DOORS).env("TMPDIR", folder.path());
    let (code, stdout, stderr) = run(command).await;
    assert_eq!(code, 0, "{stdout}{stderr}");
    let checked = stdout.lines().find(|line| line.starts_with("Checked by SQL: ")).unwrap();
    let calls: u64 = told(checked, "Checked by SQL: ", " calls").unwrap();
    assert!((19_000..21_000).contains(&calls), "{checked}");
    let figures: u64 = told(checked, "; all ", " figures").unwrap();
    assert!(figures >= FIGURES_MIN, "{checked}");
    assert!(checked.ends_with("are those of the generator's ledger."), "{checked}");
    let first_screen: f64 = told(&stdout, "First screen after ", " s.").unwrap();
    assert!(first_screen > 0.0 && first_screen <= FIRST_SCREEN_S, "{stdout}");
    assert!(stdout.contains("  100 %: ") || stdout.contains("  90 %: "), "progress in lines: {stdout}");
    assert!(stdout.contains("search_docs") && stdout.contains(" sql --url http://127.0.0.1:"), "{stdout}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    assert_eq!(stderr, "");
}

/// Scenario: somebody else's call comes in while a demo sends its history. Guarantees: it says which figures differ, and ends with
/// code 1: whoever runs it as a check need not read what it prints.
#[tokio::test(flavor = "multi_thread")]
async fn a_demo_whose_figures_are_not_those_of_its_ledger_fails() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = program();
    command.args(["demo", "--no-live", "--calls", "5000", "--days", "2", "--data"]);
    command.arg(folder.path().join("data")).args(DOORS);
    let (mut process, doors) = Process::start(command).await;
    Raw::connect(doors.otlp).await.export(TRACES, &trace(1, 0, now_ns()).encode_to_vec()).await;
    let status = process.until_ended().await;
    let stderr = process.stderr();
    assert_eq!(status.code(), Some(1), "{stderr}");
    let differs = told::<usize>(&stderr, "the server and the generator's ledger disagree in ", " figures");
    // Tools and errors that the ledger does not have, the sum of all rows, and costs.
    assert!(differs.is_some_and(|differs| differs >= 5), "{stderr}");
    assert!(stderr.contains("charge"), "{stderr}");
}

/// Scenario: a whole demo, with production's windows: it takes some seven minutes, beside the other tests. Guarantees: the first
/// screen stands within two minutes, the alert fires within 90 s of the break, it resolves when its short window has forgotten the
/// failures, not before and not long after, and the ledger still agrees with SQL.
#[tokio::test(flavor = "multi_thread")]
async fn a_demo_pages_and_resolves() {
    let mut command = program();
    command.args(["demo", "--exit", "--calls", "20000"]).args(DOORS);
    let (code, stdout, stderr) = run_within(DEMO_LIMIT, command).await;
    assert_eq!(code, 0, "{stdout}{stderr}");
    let places: Vec<usize> = [
        "Checked by SQL: ",
        "First screen after ",
        "search_docs breaks: ",
        "PAGE after ",
        "search_docs has healed",
        "the short window drains: ",
        "The alert has resolved, ",
        "generator's ledger.\n",
    ]
    .iter()
    .scan(0, |at, words| {
        *at += stdout[*at..].find(words)? + words.len();
        Some(*at)
    })
    .collect();
    assert_eq!(places.len(), 8, "{stdout}");
    let first_screen: f64 = told(&stdout, "First screen after ", " s.").unwrap();
    assert!(first_screen > 0.0 && first_screen <= FIRST_SCREEN_S, "{stdout}");
    let fired: u64 = told(&stdout, "PAGE after ", " s:").unwrap();
    assert!(fired <= PAGE_S, "{stdout}");
    let resolved: u64 = told(&stdout, "The alert has resolved, ", " s after").unwrap();
    // Failures of the minute before the healing are in the window for its length, at least but for that minute.
    assert!((SHORT_WINDOW_S - 60..=SHORT_WINDOW_S + RESOLVE_SLACK_S).contains(&resolved), "{stdout}");
    let figures: u64 = told(&stdout[places[6]..], "; all ", " figures").unwrap();
    assert!(figures >= FIGURES_MIN, "{stdout}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_demo_refuses_a_folder_that_is_used() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("mine"), "x").unwrap();
    let mut command = program();
    command.args(["demo", "--no-live", "--data"]).arg(folder.path()).args(DOORS);
    let (code, _, stderr) = run(command).await;
    assert!(code == 1 && stderr.contains("is not empty: the demo needs a fresh folder"), "{code}: {stderr}");
}

async fn load(endpoint: &str, arguments: &[&str]) -> Value {
    let mut command = program();
    command.args(["loadgen", endpoint, "--json"]).args(arguments);
    let (code, stdout, stderr) = run(command).await;
    assert_eq!(code, 0, "{stdout}{stderr}");
    serde_json::from_str(&stdout).unwrap()
}

/// Scenario: loads over both transports and encodings, compressed or not, flat out and at a rate, one seed for all. Guarantees: what each
/// reports as acknowledged is what SQL counts.
#[tokio::test(flavor = "multi_thread")]
async fn what_loads_report_as_acknowledged_is_what_sql_counts() {
    let sandbox = Sandbox::start().await;
    let (grpc, http) = (format!("http://{}", sandbox.otlp), format!("http://{}", sandbox.otlp_http));
    let mut reports = Vec::new();
    for (endpoint, arguments) in [
        (&grpc, &["--duration", "500ms", "--connections", "2"][..]),
        (&grpc, &["--duration", "1s", "--rate", "400", "--compression", "zstd", "--scenario", "flaky"]),
        (&http, &["--duration", "500ms", "--protocol", "http", "--compression", "gzip"]),
        (&http, &["--duration", "1s", "--protocol", "http", "--rate", "300", "--scenario", "plain"]),
        (&http, &["--duration", "500ms", "--protocol", "http-json", "--compression", "zstd", "--header", "x-team: a"]),
    ] {
        let report = load(endpoint, arguments).await;
        assert_eq!(report["refused"], serde_json::json!({}), "{report}");
        assert!(report["latency_ms"]["p99"].as_f64().unwrap() > 0.0, "{report}");
        reports.push(report);
    }
    let rate = reports[1]["calls"].as_f64().unwrap() / 1.0;
    assert!((250.0..=550.0).contains(&rate), "{}", reports[1]);
    sandbox.api.until_visible().await;
    let sum = |key: &str| reports.iter().map(|report| report[key].as_u64().unwrap()).sum::<u64>();
    let counted = sandbox.api.row("SELECT count(*) FILTER (WHERE counted), count(*), sum(cost_usd) FROM calls").await;
    assert_eq!((counted[0].as_u64(), counted[1].as_u64()), (Some(sum("calls")), Some(sum("spans"))));
    let cost: i128 = reports.iter().map(|report| nanos(report["cost_usd"].as_str().unwrap())).sum();
    assert_eq!(nanos(counted[2].as_str().unwrap()), cost);
    let tools = "SELECT count(*), count(*) FILTER (WHERE final), count(*) FILTER (WHERE final AND outcome = 'error') \
        FROM tool_calls";
    let tools = sandbox.api.row(tools).await;
    assert_eq!(tools, [sum("tool_attempts"), sum("tool_calls"), sum("tool_failures")].map(Value::from));
    assert!(sum("tool_failures") > 0);
    sandbox.stop().await;
}

/// Scenario: loads from several connections at a server whose rate lets one export of each tenant through. Guarantees: over each
/// transport, what was refused is reported by its code, as often as the server has refused it, and with what it said; the one export
/// that was acknowledged is what SQL counts.
#[tokio::test(flavor = "multi_thread")]
async fn refusals_are_reported_by_code_as_often_as_the_server_refused() {
    for (protocol, code) in [("grpc", "ResourceExhausted"), ("http", "429"), ("http-json", "429")] {
        let sandbox = Sandbox::start_with(|config| {
            // The first may come; its debt is not paid off while the test runs.
            config.receiver.tenant_bytes_per_second = toolgauge::config::Bytes(1);
        })
        .await;
        let endpoint = if protocol == "grpc" { sandbox.otlp } else { sandbox.otlp_http };
        let arguments = ["--duration", "500ms", "--connections", "3", "--protocol", protocol];
        let report = load(&format!("http://{endpoint}"), &arguments).await;
        let refused = sandbox.metric("toolgauge_otlp_refused_total{reason=\"rate_limited\"}").await;
        assert!(refused > 1, "{report}");
        assert_eq!(report["refused"], serde_json::json!({ code: refused }), "{report}");
        let said = report["refusals"][code].as_str().unwrap();
        assert!(said.contains("is over its rate, 1 bytes per second"), "{report}");
        assert_eq!(report["exports"], 1, "{report}");
        sandbox.api.until_visible().await;
        let counted = sandbox.api.row("SELECT count(*) FILTER (WHERE counted), count(*) FROM calls").await;
        assert_eq!(counted, [report["calls"].clone(), report["spans"].clone()]);

        // To be read: nothing more is acknowledged, so the load fails, and says why.
        let mut command = program();
        command.args(["loadgen", &format!("http://{endpoint}"), "--duration", "200ms", "--protocol", protocol]);
        let (exit, stdout, stderr) = run(command).await;
        assert_eq!(exit, 1, "{stdout}{stderr}");
        let more = sandbox.metric("toolgauge_otlp_refused_total{reason=\"rate_limited\"}").await - refused;
        let line = format!("\nrefused       {more} exports with {code}: ");
        assert!(stdout.contains(&line) && stdout.contains("is over its rate"), "{line}: {stdout}");
        assert!(stderr.contains("nothing was acknowledged"), "{stderr}");
        sandbox.stop().await;
    }
}

/// Scenario: a game day that begins a second into the load and ends a second later. Guarantees: the tool fails all calls that begin
/// within that second, and none before or after it.
#[tokio::test(flavor = "multi_thread")]
async fn a_game_day_begins_and_ends_when_it_is_asked_for() {
    let sandbox = Sandbox::start().await;
    let began_us = i64::try_from(now_ns() / 1_000).unwrap();
    let arguments =
        ["--duration", "4s", "--rate", "2000", "--scenario", "plain", "--break", "tool=read_page,after=2s,for=1s"];
    load(&format!("http://{}", sandbox.otlp), &arguments).await;
    sandbox.api.until_visible().await;
    // First attempts by the time at which they began, in microseconds.
    let calls = "SELECT CAST(start_time AS BIGINT), outcome = 'ok' FROM tool_calls WHERE tool_name = 'read_page' \
        AND attempt = 1 ORDER BY 1";
    let calls: Vec<(i64, bool)> = sandbox
        .api
        .sql(calls)
        .await
        .into_iter()
        .map(|row| (row[0].as_i64().unwrap(), row[1].as_bool().unwrap()))
        .collect();
    let failed: Vec<i64> = calls.iter().filter(|(_, ok)| !ok).map(|(at, _)| *at).collect();
    let (first, last) = (failed[0], failed[failed.len() - 1]);
    assert!(last - first < 1_000_000, "it lasts a second: {first} to {last}");
    // Runs are sent 8 s after they began, the first of them when the load begins.
    let after = first - (began_us - 8_000_000);
    assert!(after >= 2_000_000, "it begins {after} us into the load");
    let within = calls.iter().filter(|(at, _)| (first..=last).contains(at)).count();
    assert!(within == failed.len() && within > 20, "{within} calls within, {} failed", failed.len());
    let count = |wanted: &dyn Fn(i64) -> bool| calls.iter().filter(|(at, _)| wanted(*at)).count();
    assert!(count(&|at| at < first) > 20 && count(&|at| at > last) > 20, "calls before and after it");
    let others = "SELECT count(*) FROM tool_calls WHERE tool_name <> 'read_page' AND outcome = 'error'";
    assert_eq!(sandbox.api.number(others).await, 0);
    sandbox.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_game_day_one_tool_fails_as_it_is_asked_for() {
    let sandbox = Sandbox::start().await;
    let arguments = [
        "--duration",
        "1s",
        "--scenario",
        "plain",
        "--break",
        "tool=read_page,for=5m,class=rate_limited",
        "--seed",
        "9",
    ];
    load(&format!("http://{}", sandbox.otlp), &arguments).await;
    sandbox.api.until_visible().await;
    let classes =
        sandbox.api.sql("SELECT tool_name, error_class FROM tool_calls WHERE outcome = 'error' GROUP BY 1, 2").await;
    assert_eq!(classes, [["read_page", "rate_limited"]]);
    let first = "SELECT count(*) FILTER (WHERE outcome = 'ok') FROM tool_calls WHERE tool_name = 'read_page' AND attempt = 1 \
        AND start_time > (SELECT min(start_time) FROM tool_calls WHERE outcome = 'error')";
    assert_eq!(sandbox.api.number(first).await, 0);
    sandbox.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_load_that_cannot_be_says_why() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for (arguments, code, says) in [
        (vec![format!("http://{nobody}"), "--duration=200ms".to_owned()], 1, "nothing was acknowledged"),
        (vec!["https://127.0.0.1:1".to_owned()], 2, "`--protocol http` knows https://"),
        (vec!["ftp://a".to_owned(), "--protocol=http".to_owned()], 2, "\"ftp\" is not spoken here"),
        (vec!["--header".to_owned(), "no colon".to_owned()], 2, "it is no header (write like"),
        (vec!["--break".to_owned(), "tool=nothing,for=1m".to_owned()], 2, "no tool is called \"nothing\""),
        (vec!["--rate".to_owned(), "0".to_owned()], 2, "--rate"),
    ] {
        let mut command = program();
        command.arg("loadgen").args(&arguments);
        let (found, stdout, stderr) = run(command).await;
        assert!(found == code && stderr.contains(says), "{arguments:?}: {found}: {stdout}{stderr}");
    }
}

/// Scenario: endpoints that only listen. Guarantees: over HTTP and gRPC the headers that were asked for come with the first export, and
/// to https:// nothing is sent before a handshake.
#[tokio::test(flavor = "multi_thread")]
async fn a_load_has_the_headers_that_are_asked_for_and_speaks_tls() {
    let start = async |scheme: &str, protocol: &str| {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut command = program();
        command.args(["loadgen", &format!("{scheme}://{}", listener.local_addr().unwrap()), "--protocol", protocol]);
        command.args(["--header", "Authorization: Bearer abc", "--duration", "1s", "--connections", "1"]);
        let running = tokio::spawn(run(command));
        let (stream, _) = tokio::time::timeout(LIMIT, listener.accept()).await.unwrap().unwrap();
        (stream, running)
    };
    let (mut stream, http) = start("http", "http").await;
    let mut head = Vec::new();
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        assert_ne!(stream.read_buf(&mut head).await.unwrap(), 0);
    }
    let head = String::from_utf8_lossy(&head).to_lowercase();
    assert!(
        head.starts_with("post /v1/traces http/1.1") && head.contains("\r\nauthorization: bearer abc\r\n"),
        "{head}"
    );
    drop(stream);

    let (stream, grpc) = start("http", "grpc").await;
    let mut connection = h2::server::handshake(stream).await.unwrap();
    let (request, answer) = connection.accept().await.unwrap().unwrap();
    assert_eq!(request.headers()["authorization"], "Bearer abc");
    drop((request, answer, connection));

    let (mut stream, https) = start("https", "http").await;
    let mut begin = [0; 3];
    stream.read_exact(&mut begin).await.unwrap();
    assert_eq!(begin, [0x16, 3, 1], "the first bytes of a handshake of TLS");
    drop(stream);
    for running in [http, grpc, https] {
        let (code, stdout, stderr) = running.await.unwrap();
        assert!(code == 1 && stderr.contains("nothing was acknowledged"), "{code}: {stdout}{stderr}");
    }
}

/// Scenario: one trace with retries, three views of a call and a call that failed in the end. Guarantees: `top`, `tail` and
/// `trace` show it.
#[tokio::test(flavor = "multi_thread")]
async fn top_tail_and_trace_show_a_running_server() {
    let sandbox = Sandbox::start().await;
    sandbox.client().await.export(TRACES, &trace(1, 0, now_ns()).encode_to_vec()).await;
    sandbox.api.until_visible().await;
    let look = async |arguments: &[&str]| {
        let mut command = program();
        command.args(arguments).args(["--url", &sandbox.api.url]);
        let (code, stdout, stderr) = run(command).await;
        assert_eq!(code, 0, "{arguments:?}: {stdout}{stderr}");
        stdout
    };
    let top = look(&["top", "--once"]).await;
    let charge = top.lines().find(|line| line.contains("charge")).unwrap();
    assert!(charge.contains("0.00 %") && charge.contains("0.0045") && charge.contains("timeout 2"), "{top}");

    let tail = look(&["tail", "--once"]).await;
    assert_eq!(tail.lines().count(), 5, "{tail}");
    let failed = look(&["tail", "--once", "--failed", "--tool", "charge", "--lines", "2"]).await;
    assert_eq!(failed.lines().count(), 2, "{failed}");
    assert!(failed.lines().all(|line| line.contains("shop") && line.contains("charge")), "{failed}");
    assert_eq!(look(&["tail", "--once", "--tool", "o'clock"]).await, "");

    let id = failed.split_whitespace().last().unwrap();
    let shown = look(&["trace", id]).await;
    assert_eq!(shown.lines().count(), 1 + usize::try_from(ROWS_PER_TRACE).unwrap(), "{shown}");
    assert_eq!(shown.matches("(another view)").count(), 2, "{shown}");
    assert_eq!(shown.matches("timeout, tried again").count(), 2, "{shown}");

    for (id, says) in [("12", "a trace id has 32 hex digits"), (&"0".repeat(32), "no call of trace")] {
        let mut command = program();
        command.args(["trace", id, "--url", &sandbox.api.url]);
        let (code, _, stderr) = run(command).await;
        assert!(code == 1 && stderr.contains(says), "{stderr}");
    }
    sandbox.stop().await;
}
