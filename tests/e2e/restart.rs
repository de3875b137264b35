//! Rows become visible at once and stay there: while commits happen, and over graceful restarts.

use std::io::Write as _;
use std::time::{Duration, Instant};

use prost::Message as _;
use toolgauge::config::Time;

use crate::load::Load;
use crate::process::{Process, program};
use crate::sandbox::{Api, LIMIT, Sandbox, TRACES, now_ns, until};
use crate::traffic::{ROWS_PER_TRACE, request, tool_span};

/// How long a row may take to be seen: the promise.
const VISIBLE_LIMIT: Duration = Duration::from_secs(1);
const CLIENTS: usize = 3;

/// Scenario: SIGTERM under load, three times. Guarantees: exit code 0; what was acknowledged is found once after the
/// next start.
#[tokio::test(flavor = "multi_thread")]
async fn a_graceful_stop_under_load_keeps_everything_and_ends_with_code_0() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let settings = [("TOOLGAUGE_SETTLE_AFTER", "500ms"), ("TOOLGAUGE_LAKE_COMMIT_INTERVAL", "50ms")];
    let load = Load::start(CLIENTS, now_ns());
    for round in 1..=3 {
        let (mut process, doors) = Process::start(Process::command(&data, &settings)).await;
        load.point_at(doors.otlp);
        let enough = load.acknowledged() + 100 * round;
        until(LIMIT, "so many exports are acknowledged", async || (load.acknowledged() >= enough).then_some(())).await;
        process.terminate();
        let status = process.until_ended().await;
        let stderr = process.stderr();
        assert_eq!(status.code(), Some(0), "{stderr}");
        assert!(!stderr.contains("ERROR") && !stderr.contains("panicked"), "{stderr}");
    }
    let (_process, doors) = Process::start(Process::command(&data, &settings)).await;
    load.point_at(doors.otlp);
    let exports: u64 = load.finish().await.iter().sum();
    doors.api.until_visible().await;
    let rows = exports * ROWS_PER_TRACE;
    assert_eq!(doors.api.row("SELECT count(*), count(DISTINCT row_id) FROM calls").await, [rows, rows]);
}

/// Exports of the log that is replayed, and calls in each: it takes long enough to be watched.
const EXPORTS: u64 = 40;
const CALLS: u64 = 2_000;

/// Scenario: a server starts on a long log, and is asked from the beginning. Guarantees: it says that it lives; that it is not ready, and how far the
/// replay has come; that everything else has to wait; then it is ready, and answers with all that was in the log.
#[tokio::test(flavor = "multi_thread")]
async fn a_replay_is_told_by_readyz() {
    let sandbox = Sandbox::start_with(|config| config.settle.after = Time(Duration::from_secs(600))).await;
    let mut client = sandbox.client().await;
    for export in 0..EXPORTS {
        let spans = (0..CALLS).map(|call| tool_span("search", export, call, now_ns(), 1_000_000)).collect();
        client.export(TRACES, &request("shop", spans).encode_to_vec()).await;
    }
    let folder = sandbox.stop_and_keep().await;

    let http = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut command = program();
    command.arg("serve").arg("--data").arg(folder.path().join("data")).env("TOOLGAUGE_ALERTING_LEARN_SLOS", "false");
    command.args(["--otlp-grpc", "127.0.0.1:0", "--otlp-http", "127.0.0.1:0", "--http", &http.to_string()]);
    let (_process, doors) = Process::spawn(command);
    let api = Api::new(http);
    let (mut replayed, mut frames) = (Vec::new(), 0);
    until(LIMIT, "it is ready", async || {
        // Nobody listens at first.
        let Ok(ready) = api.try_send("/readyz", None).await else { return None };
        if ready.status == 200 {
            return Some(());
        }
        let reason = ready.problem().detail;
        if let Some((done, all)) = reason.strip_prefix("replaying the log: ").and_then(|text| text.split_once(" of ")) {
            replayed.push(done.parse::<u64>().unwrap());
            frames = all.parse().unwrap();
            // Each may find the end of it.
            assert_eq!(api.get("/healthz").await.status, 200);
            let tools = api.get("/api/v1/tools").await;
            assert!(
                tools.status == 200 || tools.status == 503 && tools.problem().detail.contains("the log"),
                "{tools:?}"
            );
            let metrics = api.get("/metrics").await;
            assert!(metrics.status == 200 && metrics.text.contains("toolgauge_ready "), "{metrics:?}");
        } else {
            let known = ["opening the log and the tables", "the log is replayed, the doors are about to open"];
            assert!(known.contains(&reason.as_str()), "{reason}");
        }
        None
    })
    .await;
    assert!(
        replayed.len() > 1 && replayed.is_sorted() && replayed[0] < frames && frames >= EXPORTS,
        "{replayed:?} of {frames}"
    );
    let doors = doors.await.unwrap();
    assert_eq!(doors.api.number("SELECT count(*) FROM calls").await as u64, EXPORTS * CALLS);
}

/// Scenario: one row after the other, while another client exports without a pause. Guarantees: each is in an answer within a second of
/// its acknowledgement.
#[tokio::test(flavor = "multi_thread")]
async fn a_row_is_visible_within_a_second_of_its_acknowledgement() {
    let sandbox = Sandbox::start().await;
    let mut client = sandbox.client().await;
    let load = Load::start(1, now_ns());
    load.point_at(sandbox.otlp);
    let mut longest = Duration::ZERO;
    for number in 1..=20 {
        let span = tool_span("visible", u64::MAX - number, 0, now_ns(), 1_000_000);
        client.export(TRACES, &request("shop", vec![span]).encode_to_vec()).await;
        let acknowledged = Instant::now();
        until(VISIBLE_LIMIT, "an acknowledged row is visible", async || {
            let seen = "SELECT count(*) FROM tool_calls WHERE tool_name = 'visible'";
            (sandbox.api.number(seen).await as u64 == number).then_some(())
        })
        .await;
        longest = longest.max(acknowledged.elapsed());
    }
    writeln!(std::io::stderr(), "an acknowledged row was visible after at most {longest:?}").unwrap();
    load.finish().await;
    sandbox.stop().await;
}

/// Scenario: rows are counted again and again while exports come in and commits move rows from the live ones into the
/// lake. Guarantees: every answer holds whole exports, each row once, and never less than the one before.
#[tokio::test(flavor = "multi_thread")]
async fn counts_never_drop_or_double_while_commits_happen() {
    let sandbox = Sandbox::start_with(|config| {
        config.settle.after = Time(Duration::from_millis(300));
        config.lake.commit_interval = Time(Duration::from_millis(20));
    })
    .await;
    let load = Load::start(CLIENTS, now_ns());
    load.point_at(sandbox.otlp);
    let mut before = 0;
    until(LIMIT, "a dozen commits have happened", async || {
        let query = "SELECT count(*), count(DISTINCT row_id), count(*) FILTER (WHERE tool_name = 'charge') FROM calls";
        let answer = sandbox.api.row(query).await;
        let [rows, distinct, charges] = [0, 1, 2].map(|column: usize| answer[column].as_u64().unwrap());
        assert_eq!(rows, distinct);
        assert_eq!(rows % ROWS_PER_TRACE, 0, "whole exports");
        assert_eq!(charges * ROWS_PER_TRACE, rows * 3, "whole exports");
        assert!(rows >= before, "{rows} after {before}");
        assert!(rows <= load.begun() * ROWS_PER_TRACE, "{rows} of {} exports", load.begun());
        before = rows;
        let status = sandbox.api.status().await.ingest;
        (status.counters["toolgauge_commits_total"] >= 12 && before > 0).then_some(())
    })
    .await;
    let exports: u64 = load.finish().await.iter().sum();
    sandbox.until_committed().await;
    let rows = exports * ROWS_PER_TRACE;
    assert_eq!(sandbox.api.row("SELECT count(*), count(DISTINCT row_id) FROM calls").await, [rows, rows]);
    sandbox.stop().await;
}
