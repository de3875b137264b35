//! The worked examples of `docs/accounting.md`: retries and samples, through the front door.

use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;
use toolgauge_analytics::budget::{Target, burn_rate};
use toolgauge_analytics::sli::Counts;
use toolgauge_proto::api::ToolReport;

use crate::sandbox::{Sandbox, TRACES, now_ns};
use crate::traffic::{failed, request, text, tool_span};

const MS: u64 = 1_000_000;
const DOCUMENT: &str = include_str!("../../docs/accounting.md");

fn documented(row: &str) {
    assert!(DOCUMENT.lines().any(|line| line == row), "docs/accounting.md has not the line {row}");
}

fn percent(ratio: Option<f64>) -> String {
    format!("{:.2} %", ratio.unwrap() * 100.0)
}

async fn tools(sandbox: &Sandbox) -> Vec<ToolReport> {
    sandbox.api.until_visible().await;
    sandbox.api.tools().await
}

#[tokio::test(flavor = "multi_thread")]
async fn nine_attempts_are_five_calls() {
    // Start and end in milliseconds, and whether it failed, of the attempts of each call.
    const CALLS: [&[(u64, u64, bool)]; 5] = [
        &[(0, 100, false)],
        &[(0, 100, true), (300, 400, false)],
        &[(0, 100, true), (200, 300, true), (700, 800, false)],
        &[(0, 100, true), (300, 400, true)],
        &[(0, 100, true)],
    ];
    let sandbox = Sandbox::start().await;
    let begin = now_ns() - 2_000 * MS;
    let mut spans: Vec<Span> = Vec::new();
    for (call, attempts) in CALLS.iter().enumerate() {
        let told = attempts
            .iter()
            .map(|(start, end, failed)| format!("{start} to {end} ms: {}", if *failed { "failed" } else { "ok" }));
        documented(&format!("| {} | {} |", call + 1, told.collect::<Vec<_>>().join("; ")));
        for (start, end, fails) in *attempts {
            let number = spans.len() as u64 + 1;
            let mut span = tool_span("book", 1, number, begin + start * MS, (end - start) * MS);
            span.attributes.push(text("gen_ai.tool.call.id", &format!("call-{call}")));
            spans.push(if *fails { failed(span, "TimeoutError") } else { span });
        }
    }
    // In whatever order they come.
    spans.reverse();
    sandbox.client().await.export(TRACES, &request("travel", spans).encode_to_vec()).await;
    let found = tools(&sandbox).await;
    let (tool, retries) = (&found[0], &found[0].retries);
    assert_eq!((tool.attempts, tool.calls, retries.attempts), (9, 5, 4));
    let delay = retries.delay.unwrap();
    documented(&format!(
        "| {} | {} | {} | {} | {} | {} | {:.0} ms | {:.0} ms | {:.0} ms |",
        percent(tool.success_ratio_attempt),
        percent(tool.success_ratio_logical),
        percent(tool.retry_ratio),
        retries.failed_first,
        retries.recovered,
        retries.attempts_per_success.unwrap(),
        retries.lost_ms,
        delay.p50_ms,
        delay.p95_ms
    ));
    let sums = sandbox.api.sql("SELECT count(*), sum(attempts), sum(lost_ns) / 1000000 FROM logical_calls").await;
    assert_eq!(sums, [[serde_json::json!(5), serde_json::json!(9), serde_json::json!(1_300)]]);
    let chain =
        "SELECT count(DISTINCT logical_call_id), count(*) FILTER (WHERE logical_call_id = row_id) FROM tool_calls";
    assert_eq!(sandbox.api.sql(chain).await, [[serde_json::json!(5), serde_json::json!(5)]]);
    sandbox.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sample_of_a_tenth_stands_for_the_whole() {
    let sandbox = Sandbox::start().await;
    let begin = now_ns() - 1_000 * MS;
    let span = |trace: u64, fails: bool, state: &str| {
        let span = Span { trace_state: state.to_owned(), ..tool_span("search", trace, 1, begin, MS) };
        if fails { failed(span, "TimeoutError") } else { span }
    };
    let sampled = (0..50).map(|n| span(n + 1, n < 4, "ot=th:e6666666666666")).collect();
    let all = (0..100).map(|n| span(n + 1_000, false, "")).collect();
    let mut client = sandbox.client().await;
    client.export(TRACES, &request("web", sampled).encode_to_vec()).await;
    client.export(TRACES, &request("batch", all).encode_to_vec()).await;
    let found = tools(&sandbox).await;
    let (tool, weighted) = (&found[0], found[0].weighted.as_ref().unwrap());
    assert!(tool.sampled);
    documented(&format!("| rows | {} | {} | {} | | |", tool.calls, tool.calls_ok, percent(tool.success_ratio_logical)));
    let [low, high] = weighted.success_interval_logical.unwrap();
    documented(&format!(
        "| what they stand for | {} | {} | {} | {} and {} | {:.1} |",
        weighted.calls,
        weighted.calls_ok,
        percent(weighted.success_ratio_logical),
        percent(Some(low)),
        percent(Some(high)),
        weighted.effective_attempts
    ));
    assert!((weighted.share - 0.25).abs() < 1e-12);
    let target = Target::from_percent("99").unwrap();
    let rows = Counts { good: tool.calls_ok, bad: tool.calls - tool.calls_ok, ..Counts::default() };
    let weights = Counts { good_weighted: 560_000_000, bad_weighted: 40_000_000, ..rows };
    let rate = |counts: &Counts| format!("{:.1}", burn_rate(counts, target).unwrap().to_f64());
    let told = format!(
        "the budget {} times as fast as allowed; what they stand for burns it {} times",
        rate(&rows),
        rate(&weights)
    );
    assert!(DOCUMENT.contains(&told), "{told}");
    sandbox.stop().await;
}
