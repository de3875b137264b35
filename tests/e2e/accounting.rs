//! The worked examples of `docs/accounting.md`: retries and samples, through the front door.

use opentelemetry_proto::tonic::trace::v1::{Span, span::SpanKind};
use prost::Message as _;
use toolgauge::config::Names;
use toolgauge_proto::api::slo::{SloReport, SlosReport};
use toolgauge_proto::api::{TailSampling, ToolReport};

use crate::process::{program, run};
use crate::sandbox::{LIMIT, Sandbox, TRACES, now_ns, until};
use crate::traffic::{failed, request, span_id, text, tool_span};

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

const SLO: &str = "apiVersion: openslo/v1
kind: SLO
metadata: {name: search}
spec:
  service: web
  indicator:
    spec:
      ratioMetric:
        good: {metricSource: {type: toolgauge, spec: {where: outcome = 'ok'}}}
        total: {metricSource: {type: toolgauge, spec: {where: kind = 'tool' AND tool_name = 'search'}}}
  timeWindow: [{duration: 30d, isRolling: true}]
  budgetingMethod: Occurrences
  objectives: [{target: 0.99}]
";

/// The SLO of the sandbox, when so many events are counted.
async fn slo(sandbox: &Sandbox, events: u64) -> SloReport {
    until(LIMIT, "the SLO is evaluated", async || {
        let answer = sandbox.api.get("/api/v1/slos").await;
        let mut report: SlosReport = serde_json::from_str(&answer.text).ok()?;
        report.slos.pop().filter(|slo| slo.total == events && slo.evaluation != "learning")
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sample_of_a_tenth_stands_for_the_whole() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("slo.yaml");
    std::fs::write(&file, SLO).unwrap();
    let sandbox = Sandbox::start_with(|config| config.slo = Names(vec![file.display().to_string()])).await;
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
    let slo = slo(&sandbox, 150).await;
    let hour = slo.burn_rates.iter().find(|burn| burn.window == "1h").unwrap();
    assert_eq!((hour.bad, hour.total, hour.sampled), (4, 150, true));
    let told = format!(
        "the budget {:.1} times as fast as allowed; what they stand for burns it {:.1} times",
        hour.bad as f64 / hour.total as f64 / (1.0 - slo.target),
        hour.rate.unwrap()
    );
    assert!(DOCUMENT.contains(&told), "{told}");
    let stand_for = slo.weighted.unwrap();
    assert_eq!((stand_for.good.as_str(), stand_for.bad.as_str()), ("560", "40"));
    // Good events of two weights seem to tell a little more than they do.
    assert!(stand_for.effective_events > weighted.effective_attempts);
    let [slo_low, slo_high] = stand_for.sli_interval.unwrap();
    assert!(
        slo.sampled && low < slo_low && slo_low < slo.sli.unwrap() && slo.sli.unwrap() < slo_high && slo_high < high
    );

    let json =
        async |path: &str| -> serde_json::Value { serde_json::from_str(&sandbox.api.get(path).await.text).unwrap() };
    let costs = json("/api/v1/costs?by=tool&from=-1h").await;
    assert_eq!((&costs["total"]["sampled"], &costs["groups"][0]["weighted_attempts"]), (&true.into(), &"600".into()));
    let costs = json("/api/v1/costs?by=service&from=-3h").await;
    let sampled = |name: &str| {
        let groups = costs["groups"].as_array().unwrap();
        groups.iter().find(|group| group["name"] == name).unwrap()["sampled"].as_bool().unwrap()
    };
    assert!(sampled("web") && !sampled("batch"));
    assert_eq!(json("/api/v1/latency?tool=search").await["sampled"], true);
    for (arguments, says) in [
        (&["report", "tools"][..], "93.33 % (85.00 % to 97.1"),
        (&["report", "costs", "--by", "tool"], "150 for 600"),
        (&["report", "slo"], "93.33 % sampled ("),
    ] {
        let mut command = program();
        command.args(arguments).args(["--url", &sandbox.api.url]);
        let (code, stdout, stderr) = run(command).await;
        assert!(code == 0 && stdout.contains(says), "{arguments:?}: {stdout}{stderr}");
    }
    sandbox.stop().await;
}

/// What becomes of the telemetry of callers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sampler {
    /// All of it is exported.
    None,
    /// A tenth of the traces, chosen at their start.
    Head,
    /// Every trace that failed, and a tenth of the others.
    Tail,
}

/// Calls of `lookup`, whose server always tells of them, and of `note`, which has none, in `failing` of a hundred traces; no mark says how
/// they were sampled.
async fn through(sampler: Sampler, failing: u64) -> Sandbox {
    let sandbox = Sandbox::start().await;
    let begin = now_ns() - 5_000 * MS;
    let (mut callers, mut servers) = (Vec::new(), Vec::new());
    for trace in 1..=1_000_u64 {
        let fails = trace % 100 < failing;
        let end = |span: Span| if fails { failed(span, "TimeoutError") } else { span };
        let mut server = tool_span("lookup", trace, 2, begin + MS, 3 * MS);
        server.name = "tools/call lookup".to_owned();
        server.kind = SpanKind::Server as i32;
        server.parent_span_id = span_id(trace, 1);
        server.attributes.push(text("mcp.method.name", "tools/call"));
        servers.push(end(server));
        let is_kept = sampler == Sampler::None || trace % 10 == 7 || (sampler == Sampler::Tail && fails);
        if is_kept {
            callers.push(end(tool_span("lookup", trace, 1, begin, 5 * MS)));
            callers.push(tool_span("note", trace, 3, begin, MS));
        }
    }
    let other = (1..=20).map(|n| tool_span("note", 10_000 + n, 1, begin, MS)).collect();
    let mut client = sandbox.client().await;
    client.export(TRACES, &request("shop", callers).encode_to_vec()).await;
    client.export(TRACES, &request("docs", servers).encode_to_vec()).await;
    client.export(TRACES, &request("batch", other).encode_to_vec()).await;
    sandbox
}

/// Scenario: the same calls behind no sampler, one that decides at the start, and one that keeps errors, none of which says so; few of
/// them fail, or nearly all. Guarantees: the one that keeps errors is told of at every tool that the service calls, with its figures; an outage is not.
#[tokio::test(flavor = "multi_thread")]
async fn a_sampler_that_keeps_errors_is_suspected_and_an_outage_is_not() {
    for (sampler, failing) in [
        (Sampler::None, 2),
        (Sampler::None, 90),
        (Sampler::Head, 5),
        (Sampler::Head, 80),
        (Sampler::Tail, 5),
        (Sampler::Tail, 60),
    ] {
        let sandbox = through(sampler, failing).await;
        let found = tools(&sandbox).await;
        let suspected = |name: &str| {
            let tool = found.iter().find(|tool| tool.tool_name.as_deref() == Some(name)).unwrap();
            assert!(!tool.sampled, "no weight says anything");
            tool.suspected_tail_sampling.clone()
        };
        if sampler == Sampler::Tail {
            // Of a hundred traces, ten end in 7; of those that failed some do.
            let (failed, kept) =
                (10 * failing, (0..1_000_u64).filter(|n| n % 100 >= failing && n % 10 == 7).count() as u64);
            let expected = TailSampling {
                services: vec!["shop".to_owned()],
                shown_by: Some("lookup".to_owned()),
                failed,
                failed_with_caller: failed,
                succeeded: 1_000 - failed,
                succeeded_with_caller: kept,
            };
            assert_eq!(suspected("lookup"), Some(expected.clone()), "{failing}");
            assert_eq!(suspected("note"), Some(expected), "{failing}");
            let mut command = program();
            command.args(["report", "tools", "--url", &sandbox.api.url]);
            let (_, stdout, _) = run(command).await;
            assert!(stdout.matches("tail?").count() == 3 && stdout.contains("telemetry of shop seems"), "{stdout}");
        } else {
            assert_eq!((suspected("lookup"), suspected("note")), (None, None), "{sampler:?} {failing}");
        }
        sandbox.stop().await;
    }
}
