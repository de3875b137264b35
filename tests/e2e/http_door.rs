//! OTLP over HTTP: the rows are the same whichever transport and encoding carried them.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message as _;
use serde_json::Value;
use toolgauge::config::Time;

use crate::otlp_json::{Style, USUAL};
use crate::process::{Process, program, serve_arguments};
use crate::sandbox::{Api, LIMIT, LOGS, Sandbox, TRACES, now_ns, until};
use crate::traffic::trace;

/// The captures get old; nothing of them may be refused for it.
const RETENTION: Duration = Duration::from_secs(100 * 366 * 86_400);
const PROTOBUF: &str = "application/x-protobuf";
pub(crate) const JSON: &str = "application/json";

/// Sends one request; the status and the body of its answer.
pub(crate) async fn post(url: &str, kind: &'static str, encoding: Option<&str>, body: Vec<u8>) -> (u16, Vec<u8>) {
    let mut request = ureq::post(url).header("content-type", kind);
    if let Some(encoding) = encoding {
        request = request.header("content-encoding", encoding);
    }
    let send = move || {
        let config = request.config().http_status_as_error(false).timeout_global(Some(LIMIT));
        let mut response = config.build().send(&body[..]).unwrap();
        assert_eq!(response.headers()["content-type"], kind);
        (response.status().as_u16(), response.body_mut().read_to_vec().unwrap())
    };
    tokio::task::spawn_blocking(send).await.unwrap()
}

fn gzip(body: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(body).unwrap();
    encoder.finish().unwrap()
}

fn zstd(body: &[u8]) -> Vec<u8> {
    zstd::encode_all(body, 1).unwrap()
}

/// Every protobuf request of the captures, with whether it has logs, in the form that `prost` writes: a log record is known by its
/// bytes, and some producers write down values that are the default, which JSON need not repeat.
fn captures() -> Vec<(bool, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpora");
    let mut files = Vec::new();
    for producer in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_dir()) {
        files.extend(std::fs::read_dir(producer).unwrap().map(|entry| entry.unwrap().path()));
    }
    files.retain(|file| file.extension().is_some_and(|extension| extension == "pb"));
    files.sort();
    assert!(files.len() >= 20, "found {} captures", files.len());
    let canonical = |file: &PathBuf| {
        let (is_logs, body) = (file.to_string_lossy().ends_with("-logs.pb"), std::fs::read(file).unwrap());
        let body = if is_logs {
            ExportLogsServiceRequest::decode(&body[..]).unwrap().encode_to_vec()
        } else {
            ExportTraceServiceRequest::decode(&body[..]).unwrap().encode_to_vec()
        };
        (is_logs, body)
    };
    files.iter().map(canonical).collect()
}

fn json(is_logs: bool, body: &[u8], style: Style) -> Vec<u8> {
    let json = if is_logs {
        style.logs(&ExportLogsServiceRequest::decode(body).unwrap())
    } else {
        style.traces(&ExportTraceServiceRequest::decode(body).unwrap())
    };
    json.to_string().into_bytes()
}

/// All that is known of every row, apart from where it stands in the log.
async fn rows(api: &Api) -> Vec<Vec<Value>> {
    api.until_visible().await;
    let columns = api
        .sql("SELECT column_name FROM information_schema.columns WHERE table_name = 'calls' ORDER BY ordinal_position")
        .await;
    let columns: Vec<&str> =
        columns.iter().map(|row| row[0].as_str().unwrap()).filter(|name| *name != "wal_position").collect();
    assert!(columns.len() > 40);
    let rows = api.sql(&format!("SELECT {} FROM calls ORDER BY row_id", columns.join(", "))).await;
    assert!(!rows.is_empty());
    rows
}

/// Scenario: real captures and made-up retries, over gRPC, over HTTP as protobuf and as JSON in two styles, plain and compressed.
/// Guarantees: rows and arrivals are the same in all columns.
#[tokio::test(flavor = "multi_thread")]
async fn rows_are_the_same_whichever_transport_and_encoding_carried_them() {
    let mut exports = captures();
    let base_ns = now_ns();
    exports.extend((0..10).map(|number| (false, trace(1, number, base_ns).encode_to_vec())));
    let odd = Style { long_as_text: false, upper_hex: true, url_base64: true, defaults: Some(true), unknown: true };
    let mut expected = None;
    for way in ["gRPC", "protobuf", "protobuf gzip", "JSON", "JSON zstd"] {
        let sandbox = Sandbox::start_with(|config| {
            config.recognise.retention = Time(RETENTION);
        })
        .await;
        let mut grpc = sandbox.client().await;
        for (is_logs, body) in &exports {
            let url = format!("http://{}/v1/{}", sandbox.otlp_http, if *is_logs { "logs" } else { "traces" });
            let (status, _) = match way {
                "gRPC" => {
                    grpc.export(if *is_logs { LOGS } else { TRACES }, body).await;
                    (200, Vec::new())
                }
                "protobuf" => post(&url, PROTOBUF, None, body.clone()).await,
                "protobuf gzip" => post(&url, PROTOBUF, Some("gzip"), gzip(body)).await,
                "JSON" => post(&url, JSON, None, json(*is_logs, body, USUAL)).await,
                _ => post(&url, JSON, Some("zstd"), zstd(&json(*is_logs, body, odd))).await,
            };
            assert_eq!(status, 200, "{way}");
        }
        let found = rows(&sandbox.api).await;
        let arrived =
            sandbox.api.row("SELECT sum(requests), sum(spans), sum(log_records), sum(calls) FROM arrivals").await;
        match &expected {
            None => expected = Some((found, arrived)),
            Some((rows, arrivals)) => {
                assert_eq!(&arrived, arrivals, "{way}");
                assert_eq!(found.len(), rows.len(), "{way}");
                for (found, expected) in found.iter().zip(rows) {
                    assert_eq!(found, expected, "{way}");
                }
            }
        }
        sandbox.stop().await;
    }
}

/// Scenario: the same export again: as the same JSON, as protobuf over HTTP, and over gRPC. Guarantees: counted once.
#[tokio::test(flavor = "multi_thread")]
async fn an_export_that_is_sent_again_another_way_counts_once() {
    let sandbox = Sandbox::start().await;
    let url = format!("http://{}/v1/traces", sandbox.otlp_http);
    let body = trace(1, 0, now_ns()).encode_to_vec();
    for _ in 0..2 {
        assert_eq!(post(&url, JSON, None, json(false, &body, USUAL)).await, (200, b"{}".to_vec()));
    }
    sandbox.api.until_visible().await;
    let once = sandbox.api.number("SELECT sum(spans) FROM arrivals").await;
    assert_eq!(post(&url, PROTOBUF, None, body.clone()).await, (200, Vec::new()));
    sandbox.client().await.export(TRACES, &body).await;
    let found = rows(&sandbox.api).await;
    let distinct = sandbox.api.number("SELECT count(DISTINCT row_id) FROM calls").await;
    assert_eq!(found.len() as i64, distinct);
    // What says the same is the same bytes, so that the log knows it again.
    assert_eq!(sandbox.api.number("SELECT sum(spans) FROM arrivals").await, once);
    sandbox.stop().await;
}

/// Scenario: exports over HTTP, then SIGKILL and a new start. Guarantees: what was answered with 200 is there, once.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_over_http_survives_a_kill() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let start = async || {
        let mut command = program();
        command.args(serve_arguments(&data));
        Process::start(command).await
    };
    let (mut process, doors) = start().await;
    let base_ns = now_ns();
    let url = format!("http://{}/v1/traces", doors.otlp_http);
    for number in 0..20 {
        let body = trace(1, number, base_ns).encode_to_vec();
        assert_eq!(post(&url, JSON, None, json(false, &body, USUAL)).await.0, 200);
    }
    doors.api.until_visible().await;
    let before = rows(&doors.api).await;
    process.kill();
    let (mut process, doors) = start().await;
    until(LIMIT, "it is ready", async || (doors.api.get("/readyz").await.status == 200).then_some(())).await;
    assert_eq!(rows(&doors.api).await, before);
    process.terminate();
    assert_eq!(process.until_ended().await.code(), Some(0), "{}", process.stderr());
}
