//! More series than a day may have: what sums, filters and the status say of it.

use std::time::Duration;

use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;
use serde_json::Value;
use toolgauge::config::{Count, Time};

use crate::sandbox::{LIMIT, Sandbox, TRACES, now_ns, until};
use crate::traffic::{failed, request, tool_span};

const MS: u64 = 1_000_000;
/// Tools, of which three have sums of their own.
const TOOLS: u64 = 8;

async fn start(data: &std::path::Path) -> Sandbox {
    Sandbox::start_with(|config| {
        config.data = data.to_owned();
        config.lake.series_per_day = Count(3);
        config.lake.services_per_minute = Count(2);
        config.lake.fold_interval = Time(Duration::from_millis(100));
    })
    .await
}

/// Calls, and those that went well, of each tool of a report.
async fn report(sandbox: &Sandbox, query: &str) -> (Vec<(String, u64, u64)>, bool) {
    let answer = sandbox.api.get(&format!("/api/v1/tools?{query}")).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let report: Value = serde_json::from_str(&answer.text).unwrap();
    let number = |tool: &Value, key: &str| tool[key].as_u64().unwrap();
    let tools =
        report["tools"].as_array().unwrap().iter().map(|tool| {
            (tool["tool_name"].as_str().unwrap().to_owned(), number(tool, "calls"), number(tool, "calls_ok"))
        });
    let mut tools: Vec<_> = tools.collect();
    tools.sort();
    (tools, report["folded"].as_bool().unwrap())
}

/// Everything that is to hold of the calls that were sent, whoever looks, before and after a restart.
async fn compare(sandbox: &Sandbox) {
    // Calls, minutes and hours.
    let (by_calls, folded) = report(sandbox, "from=-90m").await;
    assert_eq!((by_calls.len() as u64, folded), (TOOLS, false));
    let sum = |tools: &[(String, u64, u64)]| tools.iter().fold((0, 0), |(n, ok), tool| (n + tool.1, ok + tool.2));
    for range in ["-3h", "-40h"] {
        let (by_sums, folded) = report(sandbox, &format!("from={range}")).await;
        assert_eq!((by_sums.len(), folded), (4, true), "{range}: {by_sums:?}");
        assert_eq!(sum(&by_sums), sum(&by_calls), "{range}");
        assert!(by_sums.iter().filter(|tool| tool.0 != "__other__").all(|tool| by_calls.contains(tool)), "{by_sums:?}");
        // What is asked for by name is whole, also of those that were folded.
        for service in ["service-0", "service-5"] {
            let asked = report(sandbox, &format!("from={range}&service={service}")).await;
            assert_eq!(asked, report(sandbox, &format!("from=-90m&service={service}")).await, "{range} {service}");
            assert!(!asked.0.is_empty());
            let costs = async |range: &str| -> Value {
                let path = format!("/api/v1/costs?by=tool&from={range}&service={service}");
                let mut costs: Value = serde_json::from_str(&sandbox.api.get(&path).await.text).unwrap();
                assert_eq!(costs["folded"], false);
                costs["groups"].take()
            };
            assert_eq!(costs(range).await, costs("-90m").await, "{range} {service}");
            let path = format!("/api/v1/latency?from={range}&tool=tool-{}", &service[8..]);
            let latency: Value = serde_json::from_str(&sandbox.api.get(&path).await.text).unwrap();
            assert_eq!(latency["attempts"], asked.0[0].1, "{latency}");
        }
    }
    let sums = "SELECT sum(calls), sum(calls) FILTER (WHERE final AND outcome = 'ok') FROM calls_1m WHERE counted";
    let rows = "SELECT count(*), count(*) FILTER (WHERE final AND outcome = 'ok') FROM calls WHERE counted";
    assert_eq!(sandbox.api.row(sums).await, sandbox.api.row(rows).await);
    assert_eq!(sandbox.api.row(&sums.replace("calls_1m", "calls_1h")).await, sandbox.api.row(rows).await);
}

/// Scenario: eight tools of eight services on a server that gives three series a day a name, and two services a minute; then it starts
/// again. Guarantees: totals and success ratios are the same from calls, minutes and hours; nothing that is asked for by name is missing; the
/// status lists what was folded and when, and arrivals add up.
#[tokio::test(flavor = "multi_thread")]
async fn series_beyond_the_limit_are_summed_listed_and_found_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let sandbox = start(&data).await;
    let mut client = sandbox.client().await;
    // Before the running minute, which no report takes from its sums.
    let begin = now_ns() - 180_000 * MS;
    for tool in 0..TOOLS {
        let span = |n: u64| {
            let span = tool_span(&format!("tool-{tool}"), tool * 100 + n + 1, 1, begin, (n + 1) * MS);
            if n < tool { failed(span, "TimeoutError") } else { span }
        };
        let spans: Vec<Span> = (0..10 + tool).map(span).collect();
        client.export(TRACES, &request(&format!("service-{tool}"), spans).encode_to_vec()).await;
    }
    sandbox.until_committed().await;
    until(LIMIT, "the sums are written", async || {
        (sandbox.api.status().await.ingest.folded_series.len() >= 5).then_some(())
    })
    .await;
    compare(&sandbox).await;
    let ingest = sandbox.api.status().await.ingest;
    let mut folded: Vec<_> = ingest.folded_series.iter().filter_map(|series| series.tool_name.clone()).collect();
    folded.sort();
    assert_eq!(folded, (3..TOOLS).map(|tool| format!("tool-{tool}")).collect::<Vec<_>>());
    assert_eq!(
        ingest.folded_dates,
        ingest
            .folded_series
            .iter()
            .map(|series| series.date.clone())
            .collect::<std::collections::BTreeSet<_>>()
            .into_iter()
            .rev()
            .collect::<Vec<_>>()
    );
    assert!(ingest.counters["toolgauge_unnamed_arrivals_total"] >= TOOLS - 4, "{:?}", ingest.counters);
    let arrived =
        "SELECT sum(calls), count(DISTINCT service_name) > 2, bool_or(service_name = '__other__') FROM arrivals";
    let expected = (0..TOOLS).map(|tool| 10 + tool).sum::<u64>();
    assert_eq!(sandbox.api.row(arrived).await, [Value::from(expected), true.into(), true.into()]);
    let dates = ingest.folded_dates;
    sandbox.stop().await;

    let sandbox = start(&data).await;
    compare(&sandbox).await;
    assert_eq!(sandbox.api.status().await.ingest.folded_dates, dates);
    sandbox.stop().await;
}
