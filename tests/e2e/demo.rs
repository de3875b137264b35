//! `toolgauge demo` and `toolgauge loadgen`, as processes.

use std::time::Duration;

use prost::Message as _;
use serde_json::Value;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpListener;

use crate::process::{program, run, run_within};
use crate::sandbox::{LIMIT, Sandbox, TRACES, nanos, now_ns};
use crate::traffic::{ROWS_PER_TRACE, trace};

/// Any port, so that demos run side by side.
const DOORS: [&str; 6] = ["--otlp-grpc", "127.0.0.1:0", "--otlp-http", "127.0.0.1:0", "--http", "127.0.0.1:0"];

/// How long a demo with live traffic may take.
const DEMO_LIMIT: Duration = Duration::from_secs(15 * 60);

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
    let calls = checked["Checked by SQL: ".len()..].split(' ').next().unwrap().replace(',', "");
    let calls: u64 = calls.parse().unwrap();
    assert!((19_000..21_000).contains(&calls), "{checked}");
    assert!(checked.ends_with("are those of the generator's ledger."), "{checked}");
    assert!(stdout.contains("  100 %: ") || stdout.contains("  90 %: "), "progress in lines: {stdout}");
    assert!(stdout.contains("search_docs") && stdout.contains(" sql --url http://127.0.0.1:"), "{stdout}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    assert_eq!(stderr, "");
}

/// Scenario: a whole demo, with production's windows: it takes some seven minutes, beside the other tests. Guarantees: the alert fires
/// within 90 s of the break (or the demo fails), resolves after the tool healed, and the ledger still agrees with SQL.
#[tokio::test(flavor = "multi_thread")]
async fn a_demo_pages_and_resolves() {
    let mut command = program();
    command.args(["demo", "--exit", "--calls", "20000"]).args(DOORS);
    let (code, stdout, stderr) = run_within(DEMO_LIMIT, command).await;
    assert_eq!(code, 0, "{stdout}{stderr}");
    let told: Vec<usize> = [
        "Checked by SQL: ",
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
    assert_eq!(told.len(), 7, "{stdout}");
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
