//! No secret and no contents leave the log, wherever a producer has put them.

use std::fs::File;
use std::path::{Path, PathBuf};

use arrow::array::{Array as _, AsArray as _};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use opentelemetry_proto::tonic::trace::v1::{Status, span::Event};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use prost::Message as _;

use crate::sandbox::{Sandbox, TRACES, now_ns};
use crate::traffic::{request, text, tool_span};

const SECRETS: [&str; 6] = [
    "sk-proj-abcdef1234567890",
    "ghp_abcdefghijklmnopqrstuvwxyz012345",
    "jo.doe@example.com",
    "4111111111111111",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl",
    "AKIAIOSFODNN7EXAMPLE",
];
/// What is in arguments and results only: contents, which are not kept whatever they are.
const CONTENT: &str = "the plan is to buy the moon";
const KEYS: [&str; 16] = [
    "gen_ai.tool.name",
    "gen_ai.tool.type",
    "server.address",
    "gen_ai.agent.name",
    "gen_ai.conversation.id",
    "user.id",
    "toolgauge.team",
    "gen_ai.response.model",
    "gen_ai.tool.call.id",
    "error.type",
    "error.message",
    "toolgauge.circuit.state",
    "toolgauge.side_effect.outcome",
    "http.request.method",
    "db.system.name",
    "network.transport",
];

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "parquet") {
            found.push(path);
        }
    }
}

/// Every text in the Parquet files of a table, and how many rows they have.
fn texts(table: &Path) -> (Vec<String>, usize) {
    let mut found = Vec::new();
    files(table, &mut found);
    let (mut texts, mut rows) = (Vec::new(), 0);
    for path in found {
        let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(path).unwrap()).unwrap().build().unwrap();
        for batch in reader {
            let batch = batch.unwrap();
            rows += batch.num_rows();
            for column in batch.columns() {
                let Ok(column) = cast(column, &DataType::Utf8) else { continue };
                let column = column.as_string::<i32>();
                texts.extend(
                    (0..column.len()).filter(|row| column.is_valid(*row)).map(|row| column.value(row).to_owned()),
                );
            }
        }
    }
    (texts, rows)
}

/// Scenario: spans that failed, went well, and are quarantined, with a secret in every attribute that is kept, in the service's
/// name, in messages and contents. Guarantees: none is in the tables' files, in `/metrics`, or in what `why` says.
#[tokio::test(flavor = "multi_thread")]
async fn no_secret_is_in_any_file_of_a_table_nor_in_metrics() {
    let sandbox = Sandbox::start_with(|config| {
        config.recognise.keep_attributes_of_successes = config.recognise.keep_attributes.clone();
    })
    .await;
    let mut client = sandbox.client().await;
    let mut sent = 0;
    for (number, secret) in (1..).zip(SECRETS) {
        for (kind, carrier) in (0..).zip(["{}", "tenant/{}", "call of {} went wrong", "https://me:{}@git.example/x"]) {
            let planted = carrier.replace("{}", secret);
            let mut span = tool_span("f", number, kind, now_ns(), 1_000_000);
            span.attributes = KEYS.iter().map(|key| text(key, &planted)).collect();
            span.attributes.push(text("gen_ai.operation.name", "execute_tool"));
            let content = format!("{{\"{planted}\": \"{planted}\", \"plan\": \"{CONTENT}\"}}");
            span.attributes.push(text("gen_ai.tool.call.arguments", &content));
            span.attributes.push(text("gen_ai.tool.call.result", &content));
            let attributes = vec![text("exception.type", &planted), text("exception.message", &planted)];
            span.events.push(Event { name: "exception".into(), attributes, ..Event::default() });
            match kind {
                0 => {}
                // Ends before it begins.
                1 => span.end_time_unix_nano = span.start_time_unix_nano - 1,
                _ => span.status = Some(Status { code: 2, message: planted.clone() }),
            }
            client.export(TRACES, &request(&planted, vec![span]).encode_to_vec()).await;
            sent += 1;
        }
    }
    sandbox.until_committed().await;
    let (calls, rows) = texts(&sandbox.lake().join("calls"));
    let (refused, quarantined) = texts(&sandbox.lake().join("quarantine"));
    assert_eq!((rows, quarantined), (sent - SECRETS.len(), SECRETS.len()));
    let metrics = sandbox.api.get("/metrics").await.text;
    assert!(metrics.contains("toolgauge_"));
    let trace = sandbox.api.row("SELECT trace_id FROM calls LIMIT 1").await[0].as_str().unwrap().to_owned();
    let why = sandbox.api.get(&format!("/api/v1/why/{trace}?missed=all")).await.text;
    assert!(why.contains("\"recognised\":true"), "{why}");
    for secret in SECRETS.iter().chain([&CONTENT]) {
        for text in calls.iter().chain(&refused).chain([&metrics, &why]) {
            assert!(!text.contains(secret), "{secret:?} is in {text:?}");
        }
    }
    assert!(
        calls.iter().any(|text| text.contains("[redacted]")) && refused.iter().any(|text| text.contains("[redacted]"))
    );
    sandbox.stop().await;
}
