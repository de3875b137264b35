//! Alerts beside those of SLOs, from OTLP to Debian's Alertmanager and back.

use std::collections::BTreeSet;

use opentelemetry_proto::tonic::trace::v1::Span;
use serde_json::Value;
use toolgauge_proto::api::rule::RulesReport;
use toolgauge_proto::time::{Clock as _, SystemClock, UnixMicros};

use crate::process::{program, run};
use crate::sandbox::{LIMIT, until};
use crate::slo_delivery::Real;
use crate::slo_world::{Answers, Calls, Manager, SECOND, SLO, World, chrono_micros};
use crate::traffic::{double, failed, text, tool_span};

const SECOND_NS: u64 = 1_000_000_000;

const RULES: &str = "---
apiVersion: toolgauge/v1
kind: ThresholdRule
metadata: {name: errors}
spec: {metric: error_rate, by: [service_name, tool_name], threshold: 50 %, window: 5m, minEvents: 20, severity: page}
---
apiVersion: toolgauge/v1
kind: ThresholdRule
metadata: {name: slow}
spec: {metric: latency, threshold: 1ms, window: 5m, minEvents: 20}
---
apiVersion: toolgauge/v1
kind: Heartbeat
metadata: {name: search-alive}
spec: {service: shop-agent, tool: search, limit: 3m, severity: page}
---
apiVersion: toolgauge/v1
kind: CostBudget
metadata: {name: search-money}
spec: {service: shop-agent, where: \"tool_name = 'search'\", amount: 5 USD, period: day}
";

/// Waits for an evaluation of the rules at this time over everything that is acknowledged.
async fn evaluated(world: &World) -> RulesReport {
    world.evaluated().await;
    let position = world.api.status().await.ingest.wal_synced;
    let now = world.now();
    until(LIMIT, "the rules are evaluated", async || {
        let answer = world.api.get("/api/v1/rules").await;
        let report: RulesReport = serde_json::from_str(&answer.text).ok()?;
        let is_new = chrono_micros(&report.at.time) >= now.0 && report.at.position >= position;
        let mut groups = report.thresholds.iter().flat_map(|rule| &rule.groups);
        (is_new && groups.all(|group| group.evaluation != "learning")).then_some(report)
    })
    .await
}

async fn run_calls(world: &mut World, tool: &str, minutes: i64, calls: Calls) {
    for _ in 0..minutes {
        world.advance(60);
        world.send_of(tool, 60, calls).await;
        evaluated(world).await;
    }
}

/// The alerts that an Alertmanager has in which this label has this value.
async fn at_real(real: &Real, label: &str, value: &str) -> Vec<Value> {
    real.alerts().await.into_iter().filter(|alert| alert["labels"][label] == value).collect()
}

/// Half an hour ago by the machine's clock, which the Alertmanager has: what has ended, ended in its past.
fn begin() -> String {
    toolgauge_queries::json::rfc3339(UnixMicros(SystemClock.now().minute().0 - 30 * 60 * SECOND))
}

/// Scenario: every call of a tool fails, and the server is killed meanwhile; then the tool falls silent while another one goes on, and comes back.
/// Guarantees: Debian's Alertmanager has one alert of the threshold with one start time, which says how to count the same, and it ends; it has one of the silence,
/// which ends too, and one of money that is spent. Each names the owner of the tool.
#[tokio::test(flavor = "multi_thread")]
async fn thresholds_and_silence_reach_debians_alertmanager_and_end() {
    let folder = tempfile::tempdir().unwrap();
    let Some(real) = Real::start(folder.path()).await else { return };
    let mut world = World::start(&begin(), &format!("{SLO}{RULES}"), std::slice::from_ref(&real.api.url)).await;
    world = world.with(|config| config.alerting.resend_delay.0 = std::time::Duration::from_secs(600)).await;
    run_calls(&mut world, "search", 2, Calls::Good).await;
    run_calls(&mut world, "search", 3, Calls::Bad).await;
    let report = evaluated(&world).await;
    let errors = &report.thresholds[0].groups[0];
    assert_eq!((errors.events, errors.hits, errors.state.as_str()), (300, Some(180), "firing"), "{report:?}");
    let page = until(LIMIT, "the alert is active", async || at_real(&real, "slo", "errors").await.pop()).await;
    let labels = page["labels"].as_object().unwrap();
    let expected = [
        ("alertname", "ThresholdExceeded"),
        ("service", "shop-agent"),
        ("severity", "page"),
        ("slo", "errors"),
        ("tool", "search"),
    ];
    assert_eq!(
        labels.iter().map(|(name, value)| (name.as_str(), value.as_str().unwrap())).collect::<Vec<_>>(),
        expected
    );
    let annotation =
        |name: &str| page["annotations"][name].as_str().unwrap_or_else(|| panic!("{name}: {page}")).to_owned();
    assert!(annotation("summary").contains("error rate is ") && annotation("window") == "5m", "{page}");
    assert!(annotation("top_contributors").starts_with("shop-agent search timeout "), "{page}");
    let owner = ["team", "criticality", "runbook_url"];
    let owned = ["discovery", "critical", "https://runbooks.example/search"];
    assert_eq!(owner.map(annotation), owned);
    assert_eq!(annotation("example_traces").split(", ").count(), 3);
    let counted = world.api.row(&annotation("sql")).await;
    assert_eq!([counted[0].to_string(), counted[1].to_string()], [annotation("calls"), annotation("errors")]);
    let slow = at_real(&real, "slo", "slow").await.remove(0);
    assert_eq!(slow["annotations"]["measured"], "1.0 ms", "{slow}");
    assert_eq!(slow["annotations"]["slow_calls"], slow["annotations"]["calls"], "{slow}");
    let starts_at = chrono_micros(page["startsAt"].as_str().unwrap());

    world = world.kill_and_restart().await;
    run_calls(&mut world, "search", 1, Calls::Bad).await;
    let pages = at_real(&real, "slo", "errors").await;
    assert_eq!(pages.len(), 1, "{pages:?}");
    assert_eq!(chrono_micros(pages[0]["startsAt"].as_str().unwrap()), starts_at);
    run_calls(&mut world, "search", 5, Calls::Good).await;
    until(LIMIT, "the alert has ended", async || at_real(&real, "slo", "errors").await.is_empty().then_some(())).await;
    let changes = world.api.sql("SELECT previous_state, state FROM alerts WHERE slo = 'errors' ORDER BY time").await;
    assert_eq!(changes, [["inactive", "firing"], ["firing", "resolved"]]);

    run_calls(&mut world, "other", 3, Calls::Good).await;
    assert!(at_real(&real, "alertname", "ToolSilent").await.is_empty());
    run_calls(&mut world, "other", 2, Calls::Good).await;
    let silent =
        until(LIMIT, "the silence is told", async || at_real(&real, "alertname", "ToolSilent").await.pop()).await;
    assert_eq!(
        (&silent["labels"]["tool"], &silent["labels"]["severity"]),
        (&"search".into(), &"page".into()),
        "{silent}"
    );
    assert_eq!(silent["annotations"]["limit_minutes"], "3", "{silent}");
    assert_eq!(owner.map(|name| silent["annotations"][name].as_str().unwrap()), owned, "{silent}");
    let slo = world.slo().await.owner.unwrap();
    assert_eq!([Some(slo.team), slo.criticality, slo.runbook], owned.map(|text| Some(text.to_owned())));
    let last = world.api.row(silent["annotations"]["sql"].as_str().unwrap()).await;
    let seen = chrono_micros(silent["annotations"]["last_seen"].as_str().unwrap());
    assert_eq!(chrono_micros(last[0].as_str().unwrap()), seen);
    let mut list = program();
    list.args(["rules", "list", "--url", &world.api.url]);
    let (code, out, _) = run(list).await;
    assert!(code == 0 && out.contains("search-alive") && out.contains("silent"), "{out}");
    run_calls(&mut world, "search", 1, Calls::Good).await;
    until(LIMIT, "the silence has ended", async || {
        at_real(&real, "alertname", "ToolSilent").await.is_empty().then_some(())
    })
    .await;
    assert!(world.metric("toolgauge_rule_evaluations_total").await > 0.0);

    assert!(at_real(&real, "alertname", "CostBudgetBurn").await.is_empty());
    let end = world.now().0.cast_unsigned() * 1_000;
    let mut dear = tool_span("search", 9_000_000, 0, end - SECOND_NS, SECOND_NS);
    dear.attributes.push(double("toolgauge.cost.usd", 5.5));
    world.send_spans("shop-agent", vec![dear]).await;
    evaluated(&world).await;
    let spent = until(LIMIT, "the amount is spent", async || at_real(&real, "burn_tier", "exceeded").await.pop()).await;
    assert_eq!((&spent["labels"]["slo"], &spent["labels"]["tool"]), (&"search-money".into(), &"search".into()));
    assert_eq!(spent["annotations"]["spent_usd"], "5.50", "{spent}");
    assert_eq!(owner.map(|name| spent["annotations"][name].as_str().unwrap()), owned, "{spent}");
    world.stop().await;
}

/// Scenario: Debian's Alertmanager notifies the server of an alert and of its end. Guarantees: both are in the table `alerts`, with their times.
#[tokio::test(flavor = "multi_thread")]
async fn notifications_of_debians_alertmanager_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    let world = World::start(&begin(), SLO, &[]).await;
    let configuration = format!(
        "route: {{receiver: toolgauge, group_by: [alertname], group_wait: 100ms, group_interval: 100ms}}
receivers:
  - name: toolgauge
    webhook_configs: [{{url: '{}/api/v1/alertmanager/webhook'}}]
",
        world.api.url
    );
    let Some(real) = Real::start_with(folder.path(), &configuration).await else { return world.stop().await };
    let alert = |ends_at: &str| {
        format!(
            r#"[{{"labels": {{"alertname": "Down", "service": "shop", "severity": "page"}}, "annotations": {{"summary": "it is down"}},
            "startsAt": "2026-01-01T00:00:00Z"{ends_at}}}]"#
        )
    };
    assert_eq!(real.api.post("/api/v2/alerts", &alert("")).await.status, 200);
    let kept = async |state: &str| {
        let query = format!(
            "SELECT alertname, service, severity, state, CAST(starts_at AS VARCHAR), ends_at IS NULL FROM alerts
            WHERE source = 'alertmanager' AND state = '{state}'"
        );
        until(LIMIT, "the notification is kept", async || world.api.sql(&query).await.pop()).await
    };
    let firing = kept("firing").await;
    assert_eq!(firing[..4], ["Down", "shop", "page", "firing"]);
    assert!(firing[4].as_str().unwrap().starts_with("2026-01-01T00:00:00") && firing[5] == true, "{firing:?}");
    let ended = toolgauge_queries::json::rfc3339(SystemClock.now());
    assert_eq!(real.api.post("/api/v2/alerts", &alert(&format!(r#", "endsAt": "{ended}""#))).await.status, 200);
    let resolved = kept("resolved").await;
    assert_eq!(resolved[5], false, "{resolved:?}");
    // What others have told is not the evaluator's.
    assert!(world.alerts().await.alerts.is_empty());
    assert!(world.metric("toolgauge_notifications_alerts_kept_total").await >= 2.0);
    let answer = world.api.post("/api/v1/alertmanager/webhook", &format!("{}{{}}", " ".repeat(9 << 20))).await;
    assert_eq!(answer.status, 413, "{answer:?}");
    assert!(answer.problem().detail.contains("set `max_alerts` in the receiver"));
    let answer = world.api.post("/api/v1/alertmanager/webhook", "{}").await;
    assert_eq!(answer.status, 400, "{answer:?}");
    world.stop().await;
}

/// Scenario: the rules that ship, on a server with calls that break some of them. Guarantees: those fire, and no other does.
#[tokio::test(flavor = "multi_thread")]
async fn the_preset_tells_a_broken_tool_and_nothing_else() {
    let manager = Manager::start(Answers::With(200)).await;
    let mut preset = program();
    preset.args(["rules", "preset"]);
    let (code, preset, _) = run(preset).await;
    assert_eq!(code, 0);
    let mut world = World::start("2026-03-01T12:00:00Z", &preset, &[manager.url()]).await;
    run_calls(&mut world, "search", 6, Calls::Good).await;
    assert_eq!(world.alerts().await.alerts.iter().filter(|alert| alert.state == "firing").count(), 0);
    // 40 of 340 calls fail.
    for (seconds, calls) in [(20, Calls::Good), (40, Calls::Bad)] {
        world.advance(seconds);
        world.send(seconds, calls).await;
    }
    evaluated(&world).await;
    let firing = async |world: &World| {
        let alerts = world.alerts().await.alerts.into_iter().filter(|alert| alert.state == "firing");
        let mut names: Vec<String> = alerts
            .filter(|alert| alert.labels["alertname"] != "ErrorBudgetBurn")
            .map(|alert| alert.labels["slo"].clone())
            .collect();
        names.sort();
        names
    };
    assert_eq!(firing(&world).await, ["tool-burn-fast", "tool-burn-slow", "tool-error-rate-warning"]);
    run_calls(&mut world, "search", 1, Calls::Bad).await;
    let all = ["tool-burn-fast", "tool-burn-slow", "tool-error-rate-critical", "tool-error-rate-warning"];
    assert_eq!(firing(&world).await, all);
    until(LIMIT, "all of them are delivered", async || {
        let sent = manager.alerts();
        all.iter().all(|name| sent.iter().any(|alert| alert["labels"]["slo"] == *name)).then_some(())
    })
    .await;
    world.stop().await;
}

/// A call of a model that ended so many seconds ago and took one.
fn chat(world: &World, model: &str, number: u64, ago: u64) -> Span {
    let end = world.now().0.cast_unsigned() * 1_000 - ago * SECOND_NS;
    let mut span = tool_span("chat", 1_000_000 + number, 0, end - SECOND_NS, SECOND_NS);
    span.name = format!("chat {model}");
    span.attributes = vec![text("gen_ai.operation.name", "chat"), text("gen_ai.request.model", model)];
    span
}

/// Scenario: the rules that ship, on a server with a tool that is slow, then a model that fails in a tenth of its calls, then sessions that are long and
/// dear, then a call that costs more than a day may. Guarantees: each makes the rules fire that are about it, and no other.
#[tokio::test(flavor = "multi_thread")]
async fn the_preset_tells_what_is_slow_fails_or_is_dear() {
    let manager = Manager::start(Answers::With(200)).await;
    let mut world = World::start("2026-03-01T12:00:00Z", toolgauge_queries::rules::PRESET, &[manager.url()]).await;
    run_calls(&mut world, "search", 6, Calls::Good).await;
    let mut expected: BTreeSet<&str> = BTreeSet::new();
    let sessions = ["session-cost", "session-cost-target", "session-duration", "session-iterations"];
    for (step, fires) in [(0, &["tool-latency"][..]), (1, &["model-error-rate"]), (2, &sessions), (3, &["daily-cost"])]
    {
        world.advance(60);
        let spans: Vec<Span> = match step {
            // One in fifteen takes 6 s: the 95th percentile of 30.
            0 => {
                let now = world.now().0.cast_unsigned() * 1_000;
                let seconds = |number: u64| if number.is_multiple_of(15) { 6 } else { 1 };
                let took = |number: u64| seconds(number) * SECOND_NS;
                let start = |number: u64| now - took(number) - SECOND_NS;
                (0..30).map(|n| tool_span("crawl", 500_000 + n, 0, start(n), took(n))).collect()
            }
            1 => {
                let call = |number: u64| chat(&world, "flaky", number, number);
                (0..40).map(|n| if n % 10 == 0 { failed(call(n), "TimeoutError") } else { call(n) }).collect()
            }
            // 24 sessions of eight calls in 18.5 s, each of which costs seven cents.
            2 => (0..24 * 8)
                .map(|n| {
                    let mut span = chat(&world, "wise", 1_000 + n, 0);
                    let ago = (7 - n % 8) * SECOND_NS * 5 / 2;
                    span.start_time_unix_nano -= ago;
                    span.end_time_unix_nano -= ago;
                    span.attributes.push(text("gen_ai.conversation.id", &format!("session-{}", n / 8)));
                    span.attributes.push(double("toolgauge.cost.usd", 0.07));
                    span
                })
                .collect(),
            _ => {
                let mut span = chat(&world, "wise", 5_000, 0);
                span.attributes.push(double("toolgauge.cost.usd", 500.5));
                vec![span]
            }
        };
        world.send_spans("shop-agent", spans).await;
        evaluated(&world).await;
        expected.extend(fires);
        let mut looks = 0;
        until(LIMIT, &format!("after step {step} these fire: {expected:?}"), async || {
            // Sessions are asked for once a minute.
            if looks == 0 && step == 2 {
                world.advance(60);
            }
            looks += 1;
            let alerts = world.alerts().await.alerts.into_iter();
            let firing =
                alerts.filter(|alert| alert.state == "firing" && alert.labels["alertname"] != "ErrorBudgetBurn");
            let firing: BTreeSet<String> = firing.map(|alert| alert.labels["slo"].clone()).collect();
            firing.iter().map(String::as_str).eq(expected.iter().copied()).then_some(())
        })
        .await;
    }
    until(LIMIT, "all of them are delivered", async || {
        let sent = manager.alerts();
        expected.iter().all(|name| sent.iter().any(|alert| alert["labels"]["slo"] == *name)).then_some(())
    })
    .await;
    world.stop().await;
}
