//! The OpenTelemetry SDK for JavaScript as the client: OTLP/JSON, plain and gzip.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::process::{Doors, Process, run, without_settings};
use crate::sandbox::nanos;

/// Runs `tests/js/export.mjs`; the ledger that it prints.
async fn export(doors: &Doors, seed: u64, compression: &str) -> Value {
    let Ok(modules) = std::env::var("TOOLGAUGE_TEST_NODE_MODULES") else {
        panic!(
            "TOOLGAUGE_TEST_NODE_MODULES is not set: run the tests with \"./dev test\", which installs the packages"
        );
    };
    // A script finds its packages beside itself.
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("export.mjs");
    std::fs::copy(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/js/export.mjs"), &script).unwrap();
    std::os::unix::fs::symlink(modules, folder.path().join("node_modules")).unwrap();
    let mut command = without_settings(Command::new("node"));
    command.arg(script).arg(format!("http://{}", doors.otlp_http)).args([&seed.to_string(), compression]);
    let (code, stdout, stderr) = run(command).await;
    assert_eq!(code, 0, "{stderr}");
    serde_json::from_str(&stdout).unwrap()
}

/// Scenario: requests with tool calls that succeed, fail and cost, and a log record for each; strings that end in half an emoji.
/// Guarantees: every attempt is there with its exact duration, cost, error and call id; everything else is counted.
#[tokio::test(flavor = "multi_thread")]
async fn the_javascript_sdk_gets_back_exactly_what_it_sent() {
    for (seed, compression) in [(1, "none"), (2, "gzip")] {
        let folder = tempfile::tempdir().unwrap();
        let (_process, doors) = Process::start(Process::command(&folder.path().join("data"), &[])).await;
        let ledger = export(&doors, seed, compression).await;
        doors.api.until_visible().await;
        let arrived = doors.api.row("SELECT sum(spans), sum(log_records), sum(unreadable) FROM arrivals").await;
        assert_eq!(arrived, [ledger["spans"].clone(), ledger["log_records"].clone(), json!(0)]);
        let attempts = ledger["attempts"].as_object().unwrap();
        assert_eq!(doors.api.number("SELECT count(DISTINCT tool_name) FROM tool_calls").await, attempts.len() as i64);
        for (tool, expected) in attempts {
            let query = format!(
                "SELECT duration_ns, outcome = 'ok', error_type, call_id, cost_usd FROM tool_calls \
                 WHERE tool_name = '{tool}' AND service_name = 'shop-ui' ORDER BY duration_ns"
            );
            let found: Value = doors
                .api
                .sql(&query)
                .await
                .into_iter()
                .map(|row| {
                    let cost = row[4].as_str().map(|cost| i64::try_from(nanos(cost)).unwrap());
                    json!({
                        "duration_ns": row[0], "ok": row[1], "error_type": row[2], "call_id": row[3], "cost": cost,
                    })
                })
                .collect();
            assert_eq!(&found, expected, "{tool}");
        }
    }
}
