//! Figures of SLOs that need the whole evaluator: patience over restarts, conditions that cannot be computed, what samples and retries stand for.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use toolgauge_analytics::alert::State;
use toolgauge_proto::lake::Lake as _;
use toolgauge_proto::table::Table;
use toolgauge_proto::time::UnixMicros;
use toolgauge_queries::evaluate::{Evaluated, statement};
use toolgauge_queries::json::{self, rfc3339};

use crate::slo_world::{Call, MINUTE, Running, SECOND, World};
use crate::support::until;

/// 2026-03-01T12:00:00Z.
const BEGIN: UnixMicros = UnixMicros(1_772_366_400_000_000);

fn document(name: &str, annotations: &str, good: &str, total: &str, target: &str) -> String {
    format!(
        "
apiVersion: openslo/v1
kind: SLO
metadata: {{name: {name}, annotations: {{{annotations}}}}}
spec:
  service: shop
  indicator: {{spec: {{ratioMetric: {{
    good: {{metricSource: {{type: toolgauge, spec: {{where: \"{good}\"}}}}}},
    total: {{metricSource: {{type: toolgauge, spec: {{where: \"{total}\"}}}}}}}}}}}}
  timeWindow: [{{duration: 30d, isRolling: true}}]
  budgetingMethod: Occurrences
  objectives: [{{target: {target}}}]
---"
    )
}

fn call(end: UnixMicros, failed: bool) -> Call {
    Call {
        end,
        service: "shop-agent",
        tool: "search",
        failed,
        is_final: true,
        duration_ms: 20,
        position: 0,
        weight: 1_000_000,
    }
}

/// The next minute, with these calls a second before its end; it is evaluated.
async fn minute(running: &Running, calls: impl IntoIterator<Item = Call>) -> Arc<Evaluated> {
    let time = UnixMicros(running.world.time().0 + MINUTE);
    let mut moment = running.world.moment();
    moment.at(time);
    moment.arrive(time, &["shop-agent"]);
    for call in calls {
        moment.call(Call { end: UnixMicros(time.0 - SECOND), ..call });
    }
    let position = moment.position();
    moment.commit(position);
    drop(moment);
    running.evaluated().await
}

fn states(evaluated: &Evaluated) -> BTreeMap<String, State> {
    let tier = |labels: &BTreeMap<String, String>| labels.get("burn_tier").cloned().unwrap_or_default();
    evaluated.alerts.iter().map(|alert| (tier(&alert.labels), alert.state)).collect()
}

async fn rows(running: &Running, statement: &str) -> Vec<Vec<serde_json::Value>> {
    let now = chrono::DateTime::from_timestamp_micros(running.world.time().0).unwrap();
    let schema = running.sql.catalog.schema(running.world.view());
    let answer = running.sql.engine.query(schema, now, statement.to_owned()).await.unwrap();
    json::response(&answer).unwrap().rows
}

/// All states of all minutes, and the rows of the table of alerts, of a service whose failures come and go, with an end (in order, or as a kill)
/// after each of these minutes.
async fn patient_life(ends: &[(usize, bool)]) -> (Vec<BTreeMap<String, State>>, Vec<Vec<serde_json::Value>>) {
    // Burns for two minutes (not long enough), then for seven; is clear for three (kept), burns again, and is clear to the end.
    const LIFE: &str = "..........xx......xxxxxxx..........xx........................................";
    let annotations = "toolgauge/alert-after: 3m, toolgauge/keep-firing: 6m";
    let world = World::new(BEGIN);
    let slo = document("patient", annotations, "outcome = 'ok'", "tool_name = 'search'", "0.99");
    let mut running = Running::start(Arc::clone(&world), &slo).await;
    let (mut seen, mut changes) = (Vec::new(), 0);
    for (at, sign) in LIFE.chars().enumerate() {
        let evaluated = minute(&running, vec![call(BEGIN, sign == 'x'); 20]).await;
        seen.push(states(&evaluated));
        if let Some((_, killed)) = ends.iter().find(|(end, _)| *end == at) {
            changes += running.evaluator.counters().changes.load(Relaxed);
            until("all changes are committed", || world.committed_rows(Table::Alerts) as u64 == changes).await;
            running.restart(*killed, |_| ()).await;
            assert_eq!(states(&*running.evaluated().await), seen[at], "after the end of minute {at}");
        }
    }
    running.end().await;
    let table = "SELECT burn_tier, time, previous_state, state, reason, starts_at, ends_at FROM alerts ORDER BY time, burn_tier";
    (seen, rows(&running, table).await)
}

/// Scenario: an alert that has to burn for three minutes and is kept for six, through failures that come back just in time; the evaluator is ended after
/// every minute, then at some. Guarantees: states, start times and the table of alerts are those of a life without ends: neither time begins anew.
#[tokio::test(flavor = "multi_thread")]
async fn patience_goes_on_where_it_was() {
    let whole = patient_life(&[]).await;
    let firing = |states: &BTreeMap<String, State>| states.values().any(State::is_firing);
    let kept = |states: &BTreeMap<String, State>| {
        states.values().any(|state| matches!(state, State::Firing { clear_since: Some(_), .. }))
    };
    assert!(whole.0.iter().any(firing) && whole.0.iter().filter(|states| kept(states)).count() > 6, "{:?}", whole.0);
    let reasons = |reason: &str| whole.1.iter().filter(|row| row[4] == reason).count();
    assert!(reasons("clear") >= 2 && reasons("recovered") >= 2, "{:?}", whole.1);
    let every: Vec<(usize, bool)> = (0..78).map(|at| (at, at % 2 == 0)).collect();
    assert_eq!(patient_life(&every).await, whole);
    for at in [20, 26, 30] {
        assert_eq!(patient_life(&[(at, true), (at + 3, false)]).await, whole, "an end at {at}");
    }
}

/// Scenario: a condition divides by a column that is 0 in some rows, and another reads texts as numbers. Guarantees: those rows are null, which is no
/// success, in every statement too: all figures are recounted, in the background and by the statements of the evaluation.
#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_computed_is_null_in_statements_too() {
    let good = "3000000000 / (duration_ns - 20000000) > 0";
    let total = "CAST(tool_name AS BIGINT) IS NULL AND duration_ns % (duration_ns - 900000000) IS NOT NULL";
    let slos = document("divides", "", good, "tool_name = 'search'", "0.9")
        + &document("casts", "", "outcome = 'ok'", total, "0.9");
    let world = World::new(BEGIN);
    let running = Running::start(Arc::clone(&world), &slos).await;
    for at in 0..12_u64 {
        let slow = |call: Call| Call { duration_ms: 900, ..call };
        minute(&running, [call(BEGIN, false), slow(call(BEGIN, at % 3 == 0)), call(BEGIN, true)]).await;
    }
    let evaluated = running.evaluated().await;
    let counts = |name: &str| {
        let status = evaluated.slos.iter().find(|status| status.slo.slo.name == name).unwrap();
        (status, (status.counts.good, status.counts.bad, status.counts.excluded, status.counts.nulls))
    };
    // Of three calls a minute one takes 900 ms; the others make the divisor of the one 0, it makes that of the other 0.
    assert_eq!((counts("divides").1, counts("casts").1), ((12, 24, 0, 24), (12, 12, 12, 0)));
    for name in ["divides", "casts"] {
        let status = counts(name).0;
        let sql = statement(&status.slo.slo, "", status.period, evaluated.at.map(|at| at.position));
        assert_eq!(rows(&running, &sql).await, [[status.counts.good, status.counts.bad]], "{sql}");
    }
    let checks = || running.evaluator.counters().proofs.load(Relaxed);
    until("minutes are recounted", || checks() > 20).await;
    running.end().await;
    assert_eq!(running.mismatches.load(Relaxed), 0);
}

fn tier<'a>(evaluated: &'a Evaluated, slo: &str, tier: &str) -> &'a toolgauge_queries::evaluate::TierStatus {
    let status = evaluated.slos.iter().find(|status| status.slo.slo.name == slo).unwrap();
    status.tiers.iter().find(|known| &*known.tier.name == tier).unwrap()
}

/// Scenario: among a few calls an hour, one is tried 50 times, and each attempt fails; then two other calls fail. The SLO counts attempts, one by events
/// and one by slices of a minute; the evaluator is ended, and its cache forgotten. Guarantees: attempts burn the budget, but one call is no evidence:
/// no page, before and after the end; several calls are. Without the guard the retries page.
#[tokio::test(flavor = "multi_thread")]
async fn fifty_retries_of_one_call_are_no_evidence() {
    let attempts = |name: &str, more: &str| {
        document(name, &format!("toolgauge/mode: attempt{more}"), "outcome = 'ok'", "tool_name = 'search'", "0.99")
    };
    let sliced = attempts("sliced", "")
        .replace("Occurrences", "Timeslices")
        .replace("{target: 0.99}", "{target: 0.99, timeSliceTarget: 0.5, timeSliceWindow: 1m}");
    let slos = attempts("attempts", "") + &attempts("bare", ", toolgauge/evidence: 'false'") + &sliced;
    let world = World::new(BEGIN);
    let mut running = Running::start(Arc::clone(&world), &slos).await;
    for _ in 0..10 {
        minute(&running, [call(BEGIN, false)]).await;
    }
    // An attempt each minute, in a trace of their own: each but the last was followed by a retry.
    for attempt in 1..=50 {
        minute(&running, [Call { is_final: attempt == 50, ..call(BEGIN, true) }]).await;
    }
    let check = |evaluated: &Evaluated, when: &str| {
        let counts = &evaluated.slos[0].counts;
        assert_eq!((counts.good, counts.bad), (10, 50), "{when}");
        for name in ["attempts", "sliced"] {
            let held = |of: &str| tier(evaluated, name, of).held_back.map(|held_back| held_back.as_str());
            assert_eq!((held("fast"), held("medium")), (Some("evidence"), Some("evidence")), "{name} {when}");
            assert!(tier(evaluated, name, "slow").state.is_firing(), "{name} {when}: a ticket needs no evidence");
        }
        assert!(tier(evaluated, "bare", "fast").state.is_firing(), "{when}");
    };
    check(&*running.evaluated().await, "before");
    running.restart(true, |_| ()).await;
    check(&*running.evaluated().await, "after a kill");
    running.restart(false, |world| world.clear(Table::Slo1m)).await;
    check(&*running.evaluated().await, "without the cache");
    // Other calls are.
    for _ in 0..3 {
        minute(&running, [call(BEGIN, true), call(BEGIN, true)]).await;
    }
    let evaluated = running.evaluated().await;
    assert!(
        tier(&evaluated, "attempts", "fast").state.is_firing() && tier(&evaluated, "sliced", "fast").state.is_firing()
    );
    let page = evaluated.alerts.iter().find(|alert| {
        alert.labels["slo"] == "attempts" && alert.labels.get("burn_tier").is_some_and(|tier| tier == "fast")
    });
    // Of the ten good ones seven are in the window.
    assert!(page.unwrap().annotations["evidence"].contains("(7 of 14)"), "{page:?}");
    running.end().await;
}

/// Scenario: a page fires, then ten minutes of maintenance, in which it goes on failing, then it still does, and is put right. Guarantees: in maintenance
/// nothing is sent, which lets the page end where it was sent to; after it, it is sent again with the start that it had, and its end.
#[tokio::test(flavor = "multi_thread")]
async fn maintenance_mutes_what_fires() {
    let world = World::new(BEGIN);
    let annotations = "toolgauge/exclusions: '2026-03-01T12:20:00Z/10m'";
    let slo = document("muted", annotations, "outcome = 'ok'", "tool_name = 'search'", "0.99");
    let running = Running::start(Arc::clone(&world), &slo).await;
    let at = |minute: i64| UnixMicros(BEGIN.0 + minute * MINUTE);
    let sent = |running: &Running| -> Vec<(String, String)> {
        let of_page = running.manager.sent().into_iter();
        of_page.filter(|sent| sent.labels["severity"] == "page").map(|sent| (sent.starts_at, sent.ends_at)).collect()
    };
    // Firing alerts are said to end in four minutes.
    let lives = |minute: i64| rfc3339(UnixMicros(at(minute).0 + 4 * MINUTE));
    for now in 1..=45 {
        let evaluated = minute(&running, vec![call(BEGIN, (10..40).contains(&now)); 20]).await;
        let is_firing = tier(&evaluated, "muted", "fast").state.is_firing();
        assert_eq!(is_firing, (11..44).contains(&now), "{now}");
        if is_firing && !(20..30).contains(&now) {
            until("it is sent every minute", || sent(&running).iter().any(|(_, ends_at)| *ends_at == lives(now))).await;
        }
    }
    until("its end is sent", || sent(&running).iter().any(|(_, ends_at)| *ends_at == rfc3339(at(44)))).await;
    let all = sent(&running);
    for muted in 20..30 {
        assert!(!all.iter().any(|(_, ends_at)| *ends_at == lives(muted)), "{muted}: {all:?}");
    }
    let starts: std::collections::BTreeSet<&str> = all.iter().map(|(starts_at, _)| starts_at.as_str()).collect();
    assert!(starts.len() <= 2, "each of the two pages has one start: {starts:?}");
    running.end().await;
}

/// Scenario: a page fires; the evaluator is ended, its file is broken, and it starts: nothing is in force. Then the file is put right, then emptied.
/// Guarantees: the page goes on with its start while the file is broken, and after; it ends as `removed` only when the file says so.
#[tokio::test(flavor = "multi_thread")]
async fn a_broken_file_ends_no_page() {
    let world = World::new(BEGIN);
    let slo = document("kept", "", "outcome = 'ok'", "tool_name = 'search'", "0.99");
    let mut running = Running::start(Arc::clone(&world), &slo).await;
    for now in 0..12 {
        minute(&running, vec![call(BEGIN, now >= 6); 20]).await;
    }
    let before = states(&*running.evaluated().await);
    assert!(before["fast"].is_firing() && before["medium"].is_firing());
    let changes = running.evaluator.counters().changes.load(Relaxed);
    until("all changes are committed", || world.committed_rows(Table::Alerts) as u64 == changes).await;
    running.write(&slo.replace("good:", "god:"));
    running.restart(true, |_| ()).await;
    let evaluated = minute(&running, vec![call(BEGIN, true); 20]).await;
    assert_eq!((evaluated.slos.len(), evaluated.set.broken_files, evaluated.set.is_partial), (0, 1, true));
    assert_eq!(states(&evaluated), before);
    running.write(&slo);
    until("the file is taken", || running.evaluator.evaluated().slos.len() == 1).await;
    let evaluated = minute(&running, vec![call(BEGIN, true); 20]).await;
    assert_eq!(states(&evaluated)["fast"], before["fast"]);
    running.write("# nothing\n");
    until("they are resolved", || !states(&running.evaluator.evaluated()).values().any(State::is_firing)).await;
    running.end().await;
    let removed = rows(&running, "SELECT count(*) FROM alerts WHERE reason = 'removed' AND state = 'resolved'").await;
    assert!(removed[0][0].as_u64() >= Some(2), "{removed:?}");
}

/// Scenario: three days in Berlin around the hour that its clocks leave out, of a calendar of months, with maintenance; events, and slices of 7 minutes, of
/// which some cross midnight. Guarantees: the days are those of Berlin, their sums are the period's, and each is what SQL counts of it.
#[tokio::test(flavor = "multi_thread")]
async fn budgets_by_the_day_are_those_of_sql() {
    let month = |name: &str| {
        document(
            name,
            "toolgauge/exclusions: '2026-03-28T10:00:00Z/3h'",
            "outcome = 'ok'",
            "tool_name = 'search'",
            "0.9",
        )
        .replace(
            "{duration: 30d, isRolling: true}",
            "{duration: 1M, isRolling: false, calendar: {startTime: 2026-01-28 08:05:00, timeZone: Europe/Berlin}}",
        )
    };
    let sliced = month("sliced")
        .replace("Occurrences", "Timeslices")
        .replace("{target: 0.9}", "{target: 0.9, timeSliceTarget: 0.8, timeSliceWindow: 7m}");
    // 2026-03-28T06:00:00Z; the clocks of Berlin go forward at 01:00Z on the 29th.
    let begin = UnixMicros(1_774_677_600_000_000);
    let world = World::new(begin);
    let running = Running::start(Arc::clone(&world), &(month("events") + &sliced)).await;
    let hours = 66_i64;
    let mut moment = world.moment();
    for at in 0..hours * 20 {
        let end = UnixMicros(begin.0 + at * 3 * MINUTE + 20 * SECOND);
        moment.call(call(end, at % 11 == 0 || (500..540).contains(&at)));
    }
    moment.at(UnixMicros(begin.0 + hours * 60 * MINUTE));
    let position = moment.position();
    moment.commit(position);
    drop(moment);
    let evaluated = running.evaluated().await;
    for status in &evaluated.slos {
        let slo = &status.slo.slo;
        let from = status.slices.map_or(status.period, |(span, _)| span).start.min(status.period.start);
        let series =
            running.evaluator.series(&slo.service, &slo.name, None, from, status.period.end).await.unwrap().unwrap();
        let days = toolgauge_queries::evaluate::days(status, &series);
        let edges: Vec<String> = days.iter().map(|day| rfc3339(day.span.start.start())[..16].to_owned()).collect();
        assert_eq!(edges, ["2026-03-28T07:05", "2026-03-28T23:00", "2026-03-29T22:00", "2026-03-30T22:00"]);
        assert_eq!((days[0].span.start, days[1].span.minutes()), (status.period.start, 23 * 60), "{}", slo.name);
        let mut sum = toolgauge_analytics::sli::Counts::default();
        for day in &days {
            sum += &day.counts;
            let sql = statement(slo, "", day.span, evaluated.at.map(|at| at.position));
            assert_eq!(rows(&running, &sql).await, [[day.counts.good, day.counts.bad]], "{sql}");
            assert!(day.counts.bad > 0 || day.span.minutes() < 300, "{day:?}");
        }
        assert_eq!((sum.good, sum.bad), (status.counts.good, status.counts.bad), "{}", slo.name);
        assert!(sum.bad > 10 && days[0].counts.excluded >= 20, "{}: {days:?}", slo.name);
    }
    running.end().await;
}

/// Scenario: a service that fails now and then, a little too often, for a week: never fast enough for a burn rate, then it is well. Guarantees: the alert on
/// a quarter of the budget in two days fires with the failure that makes it a quarter, says so, and ends when enough of them have left the two days.
#[tokio::test(flavor = "multi_thread")]
async fn a_part_of_the_budget_that_is_spent_is_told() {
    let world = World::new(BEGIN);
    let slo = document("slow", "toolgauge/consumption: '30 %/2d'", "outcome = 'ok'", "tool_name = 'search'", "0.9")
        .replace("duration: 30d", "duration: 7d");
    let running = Running::start(Arc::clone(&world), &slo).await;
    let (mut burning, mut bad, mut total) = (Vec::new(), Vec::new(), Vec::new());
    for hour in 1..=130_i64 {
        let time = UnixMicros(BEGIN.0 + hour * 60 * MINUTE);
        let mut moment = world.moment();
        moment.at(time);
        for ago in 0..60 {
            moment.arrive(UnixMicros(time.0 - ago * MINUTE), &["shop-agent"]);
        }
        let fails = (20..60).contains(&hour) && hour % 2 == 0;
        (0..5).for_each(|n| moment.call(call(UnixMicros(time.0 - SECOND), fails && n == 0)));
        let position = moment.position();
        moment.commit(position);
        drop(moment);
        bad.push(i64::from(fails));
        total.push(5_i64);
        let evaluated = running.evaluated().await;
        let found = tier(&evaluated, "slow", "consumption").state.is_firing();
        // Calls of hour h end a second before it: 48 hours back, to the minute, are the last 48 of them.
        let of_two_days: i64 = bad.iter().rev().take(48).sum();
        let allowed_tenths: i64 = total.iter().sum();
        let expected = of_two_days > 0 && of_two_days * 10 * 10 >= 3 * allowed_tenths;
        assert_eq!(found, expected, "hour {hour}: {of_two_days} of {allowed_tenths} tenths");
        if found && burning.is_empty() {
            let alert = evaluated.alerts.iter().find(|a| a.labels.get("burn_tier").is_some_and(|t| t == "consumption"));
            let alert = alert.unwrap();
            assert_eq!(
                (alert.labels["severity"].as_str(), alert.annotations["threshold"].as_str()),
                ("ticket", "30.0 %")
            );
            let summary = &alert.annotations["summary"];
            assert!(
                summary.starts_with("shop/slow has spent 3")
                    && summary.contains(" % of its error budget of 7d in 2d: "),
                "{summary}"
            );
            assert_eq!(rows(&running, &alert.annotations["sql"]).await[0][1], of_two_days);
        }
        burning.extend(found.then_some(hour));
    }
    assert!(burning.len() > 10 && burning.len() < 120, "{burning:?}");
    running.end().await;
}
