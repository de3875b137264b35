//! SLOs from OTLP to pages, at times that the test chooses.

use toolgauge_proto::api::slo::{AlertsReport, BurnRates, SloDetail};
use toolgauge_proto::time::UnixMicros;
use toolgauge_queries::json::rfc3339;

use crate::process::{program, run};
use crate::sandbox::{LIMIT, close, numbers, until};
use crate::slo_world::{Answers, Calls, Manager, SECOND, SLO, World, chrono_micros};

/// Counts of the SLO by raw SQL, with the statement that the API gives.
async fn recount(world: &World) -> [i64; 2] {
    let answer = world.api.get("/api/v1/slos/shop/search-availability").await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let detail: serde_json::Value = serde_json::from_str(&answer.text).unwrap();
    let row = world.api.row(detail["definition"]["sql"].as_str().unwrap()).await;
    let counts = [row[0].as_i64().unwrap(), row[1].as_i64().unwrap()];
    assert_eq!([detail["series"]["good"].as_i64().unwrap(), detail["series"]["bad"].as_i64().unwrap()], counts);
    let answer = world.api.get("/api/v1/slos/shop/search-availability/proof").await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let proof: serde_json::Value = serde_json::from_str(&answer.text).unwrap();
    assert_eq!(proof["matches"], true, "{proof}");
    let figures = proof["figures"].as_array().unwrap();
    assert_eq!(figures.len(), 9, "{proof}");
    let period = &figures[8];
    assert_eq!([period["recounted_good"].as_i64().unwrap(), period["recounted_bad"].as_i64().unwrap()], counts);
    for figure in figures {
        assert_eq!(
            world.api.row(figure["sql"].as_str().unwrap()).await,
            [figure["good"].clone(), figure["bad"].clone()]
        );
    }
    counts
}

/// Guarantees: while the page fires, burn rates, the windows of the report, the gauges of `/metrics` and alerts by state and severity say what SQL
/// counts from `calls`, to the last digit.
async fn read_everywhere(world: &World, bad: u64) {
    let report = world.evaluated().await;
    let answer = world.api.get("/api/v1/burn-rates").await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let rates: BurnRates = serde_json::from_str(&answer.text).unwrap();
    let slo = &report.slos[0];
    let windows: Vec<&str> = slo.burn_rates.iter().map(|rate| rate.window.as_str()).collect();
    assert_eq!(windows, ["5m", "30m", "1h", "2h", "6h", "1d", "3d", "30d"]);
    let exact = numbers(&answer.text, "rate");
    assert_eq!((rates.burn_rates.len(), exact.len()), (windows.len(), windows.len()));
    let minute = world.now().minute();
    for ((rate, of_report), exact) in rates.burn_rates.iter().zip(&slo.burn_rates).zip(exact) {
        assert_eq!((rate.service.as_str(), rate.slo.as_str()), ("shop", "search-availability"));
        let rate = &rate.burn_rate;
        assert_eq!(rate, of_report);
        let (number, unit) = rate.window.split_at(rate.window.len() - 1);
        let minutes = number.parse::<i64>().unwrap()
            * match unit {
                "m" => 1,
                "h" => 60,
                _ => 1_440,
            };
        let from = rfc3339(UnixMicros(minute.0 - minutes * 60 * SECOND));
        let counted = world
            .api
            .row(&format!(
                "SELECT count(*) FILTER (WHERE outcome = 'ok'), count(*) FILTER (WHERE outcome = 'error') FROM calls
                WHERE kind = 'tool' AND tool_name = 'search' AND end_time >= '{from}'"
            ))
            .await;
        assert_eq!(counted, [rate.good, rate.bad], "{from}");
        assert_eq!((rate.bad, rate.total), (bad, rate.good + rate.bad));
        // bad / total by a thousandth.
        let expected = (rate.bad * 1_000) as f64 / rate.total as f64;
        assert_eq!(exact, Some(expected));
        let labels = "service=\"shop\",slo=\"search-availability\"";
        let window = &rate.window;
        for (result, count) in [("good", rate.good), ("bad", rate.bad), ("excluded", 0)] {
            let events = format!("toolgauge_slo_events{{{labels},result=\"{result}\",window=\"{window}\"}}");
            assert_eq!(world.metric(&events).await, count as f64, "{events}");
        }
        assert_eq!(world.metric(&format!("toolgauge_slo_burn_rate{{{labels},window=\"{window}\"}}")).await, expected);
        if window == "30d" {
            // total / 1000 are allowed.
            let left = world.metric(&format!("toolgauge_slo_budget_remaining_ratio{{{labels}}}")).await;
            assert!((left - (1.0 - expected)).abs() < 1e-12, "{left}");
            assert!(close(slo.budget.remaining_ratio, left), "{:?}", slo.budget);
        }
    }
    // The tickets look at a day and three days, in which there is no more than this hour.
    for (query, tiers) in [
        ("state=firing", &["fast", "long-term", "medium", "slow"][..]),
        ("state=firing&severity=page", &["fast", "medium"]),
        ("severity=ticket", &["long-term", "slow"]),
        ("state=resolved", &[]),
        ("state=firing&severity=none", &[]),
    ] {
        let mut found: Vec<String> =
            alerts(world, query).await.alerts.into_iter().map(|alert| alert.labels["burn_tier"].clone()).collect();
        found.sort();
        assert_eq!(found, tiers, "{query}");
    }
    let answer = world.api.get("/api/v1/alerts?state=on").await;
    assert!(answer.status == 400 && answer.problem().detail.contains("must be one of inactive, pending"), "{answer:?}");
    assert_eq!(world.api.get("/api/v1/alerts?from=yesterday").await.status, 400);
}

async fn alerts(world: &World, query: &str) -> AlertsReport {
    let answer = world.api.get(&format!("/api/v1/alerts?{query}")).await;
    assert_eq!(answer.status, 200, "{query}: {answer:?}");
    serde_json::from_str(&answer.text).unwrap()
}

/// Guarantees: the history of alerts is the table's, newest first, also of a range, a state or a severity, and cut off after the limit of rows, which is
/// said; the series of an SLO has of a range what SQL counts in it.
async fn read_history(world: &World, outage: i64, fixed: i64) {
    let instant = |micros: i64| rfc3339(UnixMicros(micros));
    let history = async |query: &str| {
        let report = alerts(world, query).await;
        assert!(!report.truncated);
        let history = report.history.unwrap();
        history
            .into_iter()
            .map(|change| (change.time, change.labels["burn_tier"].clone(), change.state))
            .collect::<Vec<_>>()
    };
    let table = async |condition: &str| {
        let query = format!(
            "SELECT CAST(time AS BIGINT) AS at, burn_tier, state FROM alerts WHERE {condition} ORDER BY position DESC, time DESC, fingerprint"
        );
        let rows = world.api.sql(&query).await.into_iter();
        let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
        rows.map(|row| (instant(row[0].as_i64().unwrap()), text(&row[1]), text(&row[2]))).collect::<Vec<_>>()
    };
    let (from, to) = (instant(outage), instant(fixed));
    let all = history(&format!("from={from}&to={}", instant(world.now().0 + 1))).await;
    assert!(all.len() >= 5 && all == table("TRUE").await, "{all:?}");
    let first = history(&format!("from={from}&to={to}")).await;
    assert_eq!(first, table(&format!("time < '{to}'")).await);
    assert!(first.iter().all(|(_, _, state)| state == "firing") && first.len() == 4, "{first:?}");
    let ended = history(&format!("from={from}&to={}&state=resolved&severity=page", instant(world.now().0 + 1))).await;
    assert_eq!(ended, table("state = 'resolved' AND severity = 'page'").await);
    assert_eq!(ended.iter().map(|(_, tier, _)| tier.as_str()).collect::<Vec<_>>(), ["fast"]);
    assert!(alerts(world, "state=firing").await.history.is_none(), "nobody asked for it");

    let path = format!("/api/v1/slos/shop/search-availability?from={from}&to={to}");
    let detail: SloDetail = serde_json::from_str(&world.api.get(&path).await.text).unwrap();
    let counted = world
        .api
        .sql(&format!(
            "SELECT CAST(date_trunc('minute', end_time) AS BIGINT) AS minute, count(*) FILTER (WHERE outcome = 'ok'), count(*) FILTER (WHERE outcome = 'error')
            FROM calls WHERE date_trunc('minute', end_time) >= date_trunc('minute', TIMESTAMP '{from}') AND date_trunc('minute', end_time) < '{to}'
            GROUP BY 1 ORDER BY 1"
        ))
        .await;
    let points: Vec<_> =
        detail.series.points.iter().map(|point| (chrono_micros(&point.time) as u64, point.good, point.bad)).collect();
    let counted: Vec<_> = counted
        .iter()
        .map(|row| {
            let n = |i: usize| row[i].as_u64().unwrap();
            (n(0), n(1), n(2))
        })
        .collect();
    assert_eq!(points, counted);
    assert_eq!((detail.series.step_s, detail.series.bad), (60, points.iter().map(|(_, _, bad)| bad).sum()));
    assert_eq!(world.api.get("/api/v1/slos/shop/search-availability?from=now&to=-1h").await.status, 400);
}

/// Scenario: an hour of one call a second over the end of February of a leap year, then every call fails for 70 seconds;
/// the server is killed while it fires; then all is well again. Guarantees: the page comes within 53 seconds of event time, with one start
/// time and one alert over the restart; it ends within the short window and a minute; the budget is what SQL counts, also without `slo_1m`.
#[tokio::test(flavor = "multi_thread")]
async fn a_total_outage_pages_in_time_and_a_restart_changes_nothing() {
    let manager = Manager::start(Answers::With(200)).await;
    let mut world = World::start("2028-02-28T23:50:00Z", SLO, &[manager.url()]).await;
    world.send(50 * 60, Calls::Good).await;
    world.run(10 * 60, 30, Calls::Good).await;
    let slo = world.slo().await;
    assert_eq!((slo.good, slo.bad, slo.state.as_str(), slo.evaluation.as_str()), (3_600, 0, "inactive", "ok"));

    let outage = world.now();
    let mut seconds = 0;
    while world.page().await != "firing" {
        seconds += 1;
        assert!(seconds <= 53, "no page: {:?}", world.slo().await);
        world.run(1, 1, Calls::Bad).await;
    }
    // 14.4 % of a thousandth of an hour and the seconds since: 52 are not enough.
    assert_eq!(seconds, 53);
    until(LIMIT, "the page is delivered", async || (!manager.tier("fast").is_empty()).then_some(())).await;
    let page = manager.tier("fast").remove(0);
    assert_eq!(page["labels"]["alertname"], "ErrorBudgetBurn");
    assert_eq!(page["labels"]["severity"], "page");
    assert_eq!(page["labels"]["service"], "shop");
    assert_eq!(page["labels"]["slo"], "search-availability");
    assert_eq!(page["labels"]["tool"], "search");
    assert_eq!(page["labels"].as_object().unwrap().len(), 6, "no number is a label: {page}");
    let annotation =
        |name: &str| page["annotations"][name].as_str().unwrap_or_else(|| panic!("{name}: {page}")).to_owned();
    let owner = ["team", "criticality", "runbook_url"].map(annotation);
    assert_eq!(owner, ["discovery", "critical", "https://runbooks.example/search"]);
    read_everywhere(&world, 53).await;
    assert_eq!(annotation("top_contributors"), "shop-agent search timeout 53");
    assert_eq!(annotation("example_traces").split(", ").count(), 3);
    assert_eq!((annotation("long_bad").as_str(), annotation("long_total").as_str()), ("53", "3653"));
    assert_eq!(world.api.row(&annotation("sql")).await, [3_600, 53]);
    let starts_at = page["startsAt"].as_str().unwrap().to_owned();
    assert_eq!(chrono_micros(&starts_at), outage.0 + 53 * SECOND);
    assert_eq!(chrono_micros(page["endsAt"].as_str().unwrap()), outage.0 + (53 + 240) * SECOND);

    world.run(10, 5, Calls::Bad).await;
    let before = world.slo().await;
    let sent = manager.tier("fast").len();
    world = world.kill_and_restart().await;
    let after = world.slo().await;
    assert_eq!((after.good, after.bad, after.state.as_str()), (before.good, before.bad, "firing"));
    until(LIMIT, "it is sent again after the restart", async || (manager.tier("fast").len() > sent).then_some(()))
        .await;

    world.run(7, 7, Calls::Bad).await;
    let fixed = world.now();
    while world.page().await == "firing" {
        assert!(world.now().0 - fixed.0 <= (5 * 60 + 60) * SECOND, "it does not end: {:?}", world.slo().await);
        world.run(10, 10, Calls::Good).await;
    }
    until(LIMIT, "the end is delivered", async || {
        let last = manager.tier("fast").pop()?;
        let ends_at = chrono_micros(last["endsAt"].as_str()?);
        (ends_at <= world.now().0 && ends_at > fixed.0).then_some(())
    })
    .await;
    assert_eq!(manager.starts("fast").into_iter().collect::<Vec<_>>(), [starts_at]);
    let changes =
        world.api.sql("SELECT previous_state, state FROM alerts WHERE burn_tier = 'fast' ORDER BY time").await;
    assert_eq!(changes, [["inactive", "firing"], ["firing", "resolved"]]);
    read_history(&world, outage.0, fixed.0).await;

    let slo = world.slo().await;
    assert_eq!(slo.bad, 70);
    assert_eq!(recount(&world).await, [slo.good as i64, slo.bad as i64]);
    assert_eq!(slo.budget.allowed, format!("{}", (slo.total as f64) / 1_000.0));
    assert!(slo.budget.remaining.starts_with('-'), "{:?}", slo.budget);

    // Without the cache, everything is counted from `calls`.
    world = world.restart(|data| std::fs::remove_dir_all(data.join("lake/slo_1m")).unwrap()).await;
    let again = world.slo().await;
    assert_eq!((again.good, again.bad, again.excluded, again.nulls), (slo.good, slo.bad, slo.excluded, slo.nulls));
    assert_ne!(again.revision, slo.revision, "it was counted anew");
    assert_eq!(recount(&world).await, [slo.good as i64, slo.bad as i64]);
    until(LIMIT, "the cache is filled again", async || {
        let row = world.api.row("SELECT sum(good), sum(bad) FROM slo_1m").await;
        (row[1].as_i64() == Some(70)).then_some(())
    })
    .await;
    assert_eq!(world.page().await, "resolved");
    // More changes than an answer has rows.
    world = world.with(|config| config.queries.rows.0 = 3).await;
    let query = format!("from={}&to={}", rfc3339(outage), rfc3339(UnixMicros(world.now().0 + 1)));
    world.evaluated().await;
    let report = alerts(&world, &query).await;
    let newest: Vec<String> = report.history.unwrap().into_iter().map(|change| change.time).collect();
    assert!(report.truncated && newest.len() == 3 && newest.is_sorted_by(|one, two| one >= two), "{newest:?}");
    world.stop().await;
}

/// Scenario: the machine's clock is set back by an hour while a page fires, and is right again 21 minutes later, then it jumps forward.
/// Guarantees: what cannot be trusted freezes: nothing ends and nothing begins. Meanwhile the page is sent every minute with a later end, so that no
/// Alertmanager takes it for ended, and after five minutes it is told that telemetry is stale.
#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_jumps_freezes_the_alerts() {
    let manager = Manager::start(Answers::With(200)).await;
    let mut world = World::start("2026-03-01T12:00:00Z", SLO, &[manager.url()]).await;
    world.run(6 * 60, 60, Calls::Bad).await;
    assert_eq!(world.page().await, "firing");
    let starts = until(LIMIT, "the page is delivered", async || {
        Some(manager.starts("fast")).filter(|starts| !starts.is_empty())
    })
    .await;

    let frozen = world.now().0;
    let ends = || {
        let sent = manager
            .tier("fast")
            .into_iter()
            .map(|alert| (chrono_micros(alert["endsAt"].as_str().unwrap()) - frozen) / SECOND);
        sent.collect::<Vec<i64>>()
    };
    world.set_clock(-3_600);
    until(LIMIT, "evaluations are stale", async || (slo_evaluation(&world).await == "stale").then_some(())).await;
    for minute in 1..=20 {
        world.advance(59);
        world.rounds().await;
        assert_eq!(ends().last(), Some(&((minute - 1) * 60 + 240)), "it is not due yet: {:?}", ends());
        world.advance(1);
        until(LIMIT, "it is sent again, with a later end", async || {
            (ends().last() == Some(&(minute * 60 + 240))).then_some(())
        })
        .await;
        let stale = world.alert("TelemetryStale").await;
        assert_eq!(
            stale.map(|alert| alert.state).as_deref(),
            Some(if minute < 5 { "pending" } else { "firing" }),
            "{minute}"
        );
    }
    assert_eq!(world.page().await, "firing");
    let stale = until(LIMIT, "stale telemetry is told", async || {
        manager.alerts().into_iter().find(|alert| alert["labels"]["alertname"] == "TelemetryStale")
    })
    .await;
    assert_eq!(chrono_micros(stale["startsAt"].as_str().unwrap()) - frozen, 5 * 60 * SECOND);
    world.set_clock(3_600);
    // The log's time stood too: the minutes that are missing in it are no gap once exports come again.
    world.run(6 * 60, 60, Calls::Bad).await;
    until(LIMIT, "evaluations are good", async || (slo_evaluation(&world).await == "ok").then_some(())).await;
    assert_eq!(world.page().await, "firing");
    assert_eq!(world.alert("TelemetryStale").await.unwrap().state, "resolved");

    // Nothing is known of the hour that was skipped.
    world.run(3_600, 3_600, Calls::Good).await;
    assert_eq!(world.slo().await.evaluation, "stale");
    assert_eq!(world.page().await, "firing");
    world.run(6 * 60, 60, Calls::Good).await;
    assert_eq!(world.slo().await.evaluation, "ok");
    assert_eq!(world.page().await, "resolved");
    assert_eq!(manager.starts("fast"), starts);
    world.stop().await;
}

async fn slo_evaluation(world: &World) -> String {
    let report: toolgauge_proto::api::slo::SlosReport =
        serde_json::from_str(&world.api.get("/api/v1/slos").await.text).unwrap();
    report.slos[0].evaluation.clone()
}

/// Scenario: a file of SLOs is broken at run time, repaired with another target, and its condition changed.
/// Guarantees: the last good version stays in force and the fault is told; a new target costs nothing; a new condition gets its whole history.
#[tokio::test(flavor = "multi_thread")]
async fn a_broken_file_changes_nothing_and_a_new_condition_gets_its_history() {
    let mut world = World::start("2026-03-01T12:00:00Z", SLO, &[]).await;
    world.run(180, 60, Calls::Good).await;
    world.run(60, 60, Calls::Bad).await;
    let file = world.folder.path().join("slos/shop.yaml");
    let write = |text: &str| std::fs::write(&file, text).unwrap();
    let before = world.slo().await;
    assert_eq!((before.good, before.bad), (180, 60));

    write(&SLO.replace("target: 0.999", "target: 99.9"));
    let report = until(LIMIT, "the fault is told", async || {
        let report = world.evaluated().await;
        (!report.faults.is_empty()).then_some(report)
    })
    .await;
    let fault = &report.faults[0];
    assert_eq!((fault.line, fault.key.as_str(), fault.severity.as_str()), (17, "spec.objectives[0].target", "error"));
    assert!(fault.message.contains("write something like 0.999"), "{fault:?}");
    assert_eq!((report.slos[0].target, report.slos[0].bad), (0.999, 60));
    let mut validate = program();
    validate.args(["slo", "validate"]).arg(&file);
    let (code, out, _) = run(validate).await;
    let expected = format!("{}:17:25: error: `spec.objectives[0].target`: ", file.display());
    assert!(code == 2 && out.starts_with(&expected), "{code}: {out}");
    assert_eq!(world.metric("toolgauge_slo_files_broken").await, 1.0);

    write(&SLO.replace("target: 0.999", "target: 0.9"));
    let slo =
        until(LIMIT, "the target is another", async || Some(world.slo().await).filter(|slo| slo.target < 0.95)).await;
    assert_eq!((slo.good, slo.bad, &slo.revision), (180, 60, &before.revision));
    assert_eq!(slo.budget.allowed, "24");
    let mut report = program();
    report.args(["report", "slo", "--format", "csv", "--url", &world.api.url]);
    let (code, out, _) = run(report).await;
    let line = "shop,search-availability,";
    let numbers = ",0.9,30d,75.00 %,180,60,0,0,-150.00 %,2.50,";
    assert!(
        code == 0 && out.lines().nth(1).is_some_and(|found| found.starts_with(line) && found.contains(numbers)),
        "{out}"
    );
    let mut days = program();
    days.args(["report", "slo", "--slo", "shop/search-availability", "--format", "csv", "--url", &world.api.url]);
    let (code, out, _) = run(days).await;
    let today = out.lines().last().unwrap_or_default();
    assert!(
        code == 0 && today.starts_with("2026-03-01T00:00:00Z,") && today.ends_with(",75.00 %,180,60,0,24,60,-36"),
        "{out}"
    );
    let mut validate = program();
    validate.args(["slo", "validate"]).arg(&file);
    let (code, out, _) = run(validate).await;
    assert!(
        code == 0 && out.starts_with("shop/search-availability: target 0.9, window 30d, mode attempt\n"),
        "{code}: {out}"
    );
    assert_eq!(world.metric("toolgauge_slo_files_broken").await, 0.0);

    write(&SLO.replace("outcome = 'ok'", "outcome = 'error'"));
    let slo =
        until(LIMIT, "the condition is another", async || Some(world.slo().await).filter(|slo| slo.good == 60)).await;
    assert_eq!((slo.good, slo.bad), (60, 180));
    world.run(60, 60, Calls::Bad).await;
    let slo = world.slo().await;
    assert_eq!((slo.good, slo.bad), (120, 180));
    // Back again: rows were missed meanwhile, so that the old counts must not be taken for all.
    write(SLO);
    let slo =
        until(LIMIT, "the condition is the first", async || Some(world.slo().await).filter(|slo| slo.bad == 120)).await;
    assert_eq!((slo.good, slo.bad), (180, 120));
    assert_ne!(slo.revision, before.revision);

    world = world.restart(|_| ()).await;
    let slo = world.slo().await;
    assert_eq!((slo.good, slo.bad), (180, 120));
    world.stop().await;
}
