//! SLOs with groups, and SLOs that come to count something else, over an evaluator that is ended and killed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use toolgauge_analytics::alert::State;
use toolgauge_analytics::sli::Counts;
use toolgauge_analytics::window::Minute;
use toolgauge_proto::lake::Lake as _;
use toolgauge_proto::table::Table;
use toolgauge_proto::time::UnixMicros;
use toolgauge_queries::evaluate::{EvaluateSettings, Evaluated, SloStatus};
use toolgauge_queries::json::rfc3339;

use crate::slo_restarts::{recount, rows};
use crate::slo_world::{Call, MINUTE, Running, SECOND, World};
use crate::support::{Rng, until};

/// Two tools have groups of their own; calls of more than half a second are not in total.
const GROUPED: &str = "
apiVersion: openslo/v1
kind: SLO
metadata:
  name: attempts
  annotations: {toolgauge/mode: attempt, toolgauge/group-by: tool, toolgauge/groups-max: '2', toolgauge/evidence: 'false'}
spec:
  service: shop
  indicator: {spec: {ratioMetric: {
    good: {metricSource: {type: toolgauge, spec: {where: outcome = 'ok'}}},
    total: {metricSource: {type: toolgauge, spec: {where: kind = 'tool' AND duration_ns <= 500000000}}}}}}
  timeWindow: [{duration: 30d, isRolling: true}]
  budgetingMethod: Occurrences
  objectives: [{target: 0.9}]
---
apiVersion: openslo/v1
kind: SLO
metadata:
  name: logical
  annotations: {toolgauge/mode: logical, toolgauge/group-by: 'service, tool', toolgauge/groups-max: '3', toolgauge/evidence: 'false'}
spec:
  service: shop
  indicator: {spec: {ratioMetric: {
    bad: {metricSource: {type: toolgauge, spec: {where: outcome = 'error'}}},
    total: {metricSource: {type: toolgauge, spec: {where: duration_ns <= 500000000}}}}}}
  timeWindow: [{duration: 30d, isRolling: true}]
  budgetingMethod: Occurrences
  objectives: [{target: 0.9}]
";

/// A model may make up any name, also this one.
const TOOLS: [&str; 5] = ["search", "fetch", "mail", "calc", "__other__"];
const SERVICES: [&str; 2] = ["shop-agent", "cron"];

/// What the documents say, by hand.
struct Slo {
    name: &'static str,
    max: usize,
    is_seen: fn(&Call) -> bool,
    /// As JSON, in the order of the values.
    group: fn(&Call) -> String,
    order: fn(&Call) -> Vec<&'static str>,
    other: &'static str,
}

const ORACLE: [Slo; 2] = [
    Slo {
        name: "attempts",
        max: 2,
        is_seen: |_| true,
        group: |call| format!("{{\"tool_name\":\"{}\"}}", call.tool),
        order: |call| vec![call.tool],
        other: "{\"tool_name\":\"__other__\"}",
    },
    Slo {
        name: "logical",
        max: 3,
        is_seen: |call| call.is_final,
        group: |call| format!("{{\"service_name\":\"{}\",\"tool_name\":\"{}\"}}", call.service, call.tool),
        order: |call| vec![call.service, call.tool],
        other: "{\"service_name\":\"__other__\",\"tool_name\":\"__other__\"}",
    },
];

/// Of each group that there is, good, bad and excluded events of the minutes that are asked for.
fn counted(slo: &Slo, calls: &[Call], minutes: std::ops::RangeInclusive<i64>) -> BTreeMap<String, [u64; 3]> {
    let is_event = |call: &&Call| (slo.is_seen)(call) && call.duration_ms <= 500;
    let mut events: Vec<&Call> = calls.iter().filter(is_event).collect();
    events.sort_by_key(|call| (call.position, (slo.order)(call)));
    let mut own: Vec<(String, u64)> = Vec::new();
    for call in &events {
        let group = (slo.group)(call);
        if own.len() < slo.max && group != slo.other && own.iter().all(|(known, _)| *known != group) {
            own.push((group, call.position));
        }
    }
    let mut found: BTreeMap<String, [u64; 3]> = own.iter().map(|(group, _)| (group.clone(), [0; 3])).collect();
    for call in calls.iter().filter(|call| (slo.is_seen)(call)) {
        let group = (slo.group)(call);
        let began = own.iter().find(|(known, _)| *known == group).map(|(_, began)| *began);
        let counts = minutes.contains(&Minute::of(call.end).0);
        if call.duration_ms <= 500 {
            let sums = found.entry(if began.is_some() { group } else { slo.other.to_owned() }).or_default();
            sums[usize::from(call.failed)] += u64::from(counts);
        } else if began.is_some_and(|began| call.position > began) && counts {
            found.entry(group).or_default()[2] += 1;
        }
    }
    found
}

fn text(status: &SloStatus) -> String {
    status.group.as_ref().map_or_else(String::new, |group| group.text().to_string())
}

fn of(counts: &Counts) -> [u64; 3] {
    [counts.good, counts.bad, counts.excluded]
}

/// Every group over every window is what the oracle counts, and there is no other group.
fn check(calls: &[Call], time: UnixMicros, evaluated: &Evaluated) {
    let now = Minute::of(time).0;
    for slo in &ORACLE {
        let statuses: Vec<&SloStatus> =
            evaluated.slos.iter().filter(|status| status.slo.slo.name == slo.name).collect();
        for place in 0..statuses[0].windows.len() {
            let window = statuses[0].windows[place].0;
            let found: BTreeMap<String, [u64; 3]> =
                statuses.iter().map(|status| (text(status), of(&status.windows[place].1))).collect();
            assert_eq!(found.len(), statuses.len(), "{}", slo.name);
            let first = now - i64::from(window.minutes());
            let mut expected = counted(slo, calls, first..=now);
            // Before the first event of any group there is nothing to say.
            if expected.is_empty() {
                expected.insert(String::new(), [0; 3]);
            }
            assert_eq!(found, expected, "{} over {window} at {}", slo.name, rfc3339(time));
        }
    }
}

/// What alerts say, by their labels.
fn alerts(evaluated: &Evaluated) -> BTreeMap<BTreeMap<String, String>, State> {
    evaluated.alerts.iter().map(|alert| ((*alert.labels).clone(), alert.state)).collect()
}

fn call(rng: &mut Rng, time: UnixMicros, failing: &str) -> Call {
    // Some tools come late.
    let tools = 1 + rng.below(TOOLS.len() as u64);
    let tool = TOOLS[rng.below(tools) as usize];
    Call {
        end: UnixMicros(time.0 - rng.below(40).cast_signed() * 10 * SECOND),
        service: SERVICES[rng.below(2) as usize],
        tool,
        failed: if tool == failing { !rng.one_in(4) } else { rng.one_in(30) },
        is_final: true,
        duration_ms: if rng.one_in(3) { 900 } else { 20 },
        position: 0,
        weight: 1_000_000,
    }
}

async fn live(seed: u64, steps: usize) {
    let mut rng = Rng::new(seed);
    let begin = UnixMicros(1_772_366_400_000_000);
    let world = World::new(begin);
    world.moment().arrive(begin, &[]);
    let mut running = Running::start(Arc::clone(&world), GROUPED).await;
    let (mut failing, mut restarts, mut fired) = ("", 0, 0);
    for _ in 0..steps {
        if rng.one_in(12) {
            failing = if rng.one_in(2) { "" } else { TOOLS[rng.below(5) as usize] };
        }
        let before = world.time();
        let time = UnixMicros(before.0 + rng.below(3).cast_signed() * MINUTE);
        let mut moment = world.moment();
        moment.at(time);
        for minute in Minute::of(before).0..=Minute::of(time).0 {
            moment.arrive(Minute(minute).start(), &SERVICES);
        }
        for _ in 0..rng.below(8) {
            let call = call(&mut rng, time, failing);
            moment.call(call);
        }
        // A failure that is retried is no event of the logical one any more: its group may be gone before it has settled.
        let failures: Vec<usize> =
            (0..moment.live().len()).filter(|at| moment.live()[*at].failed && moment.live()[*at].is_final).collect();
        if !failures.is_empty() && rng.one_in(2) {
            let at = failures[rng.below(failures.len() as u64) as usize];
            moment.live()[at].is_final = false;
            // So that an evaluation of it can be told from the one before.
            let retry = Call { end: time, failed: false, is_final: true, ..moment.live()[at].clone() };
            moment.call(retry);
        }
        if rng.one_in(3) {
            let live = moment.live().len() as u64;
            let up_to = moment.position() - rng.below(live.min(6) + 1);
            moment.commit(up_to);
        }
        drop(moment);
        let calls = world.calls();
        let evaluated = running.evaluated().await;
        check(&calls, time, &evaluated);
        let before = alerts(&evaluated);
        fired += before.values().filter(|state| matches!(state, State::Firing { .. })).count();
        if rng.one_in(6) {
            restarts += 1;
            let (killed, cleared) = (!rng.one_in(3), rng.one_in(3));
            // Alerts that are written down are known afterwards.
            let changes = running.evaluator.counters().changes.load(Relaxed);
            until("alerts are written down", || {
                let counters = running.evaluator.counters();
                counters.changes.load(Relaxed) == changes && missing(&running, &before).is_empty()
            })
            .await;
            let change = |world: &World| {
                if cleared {
                    world.clear(Table::Slo1m);
                }
            };
            running.restart(killed, change).await;
            let evaluated = running.evaluated().await;
            check(&calls, time, &evaluated);
            assert_eq!(alerts(&evaluated), before, "seed {seed} at {}", rfc3339(time));
        }
    }
    assert!(restarts > steps / 20 && fired > 20, "seed {seed}: {restarts} restarts, {fired} alerts");

    // The tables, and the statements that go with the numbers, say the same.
    let position = world.position();
    world.moment().commit(position);
    let evaluated = running.evaluated().await;
    for status in &evaluated.slos {
        recount(&running, status, evaluated.at.unwrap().position).await;
    }
    let revisions: BTreeMap<&str, String> = evaluated
        .slos
        .iter()
        .map(|status| (status.slo.slo.name.as_str(), status.revision.as_deref().unwrap().to_owned()))
        .collect();
    running.end().await;
    let (proofs, mismatches) = (running.proofs.load(Relaxed), running.mismatches.load(Relaxed));
    assert!(proofs > 10 && mismatches == 0, "seed {seed}: {mismatches} of {proofs} minutes are wrong");
    let calls = world.calls();
    for slo in &ORACLE {
        let statement = format!(
            "SELECT \"group\", sum(good), sum(bad), sum(excluded) FROM slo_1m WHERE slo = '{}' AND slo_revision = '{}'
            AND \"group\" NOT LIKE '{{\"toolgauge\"%' GROUP BY 1",
            slo.name, revisions[slo.name]
        );
        let sum = |value: &serde_json::Value| value.as_u64().unwrap();
        let found: BTreeMap<String, [u64; 3]> = rows(&running, &statement)
            .await
            .iter()
            .map(|row| (row[0].as_str().unwrap().to_owned(), [sum(&row[1]), sum(&row[2]), sum(&row[3])]))
            .collect();
        assert_eq!(found, counted(slo, &calls, 0..=i64::MAX), "seed {seed}, {}", slo.name);
        assert!(found[slo.other].iter().sum::<u64>() > 10, "seed {seed}: too little has found no group: {found:?}");
    }
    let groups = rows(&running, "SELECT DISTINCT \"group\" FROM alerts WHERE slo = 'attempts'").await;
    assert!(groups.len() > 1, "seed {seed}: {groups:?}");
}

/// Those of these alerts that have to be told to somebody and were not: they are told when they are written down.
fn missing(running: &Running, alerts: &BTreeMap<BTreeMap<String, String>, State>) -> Vec<String> {
    let sent = running.manager.sent();
    let is_told = |labels: &BTreeMap<String, String>, state: &State| {
        let of_it = |starts: UnixMicros, ends: Option<UnixMicros>| {
            sent.iter().any(|alert| {
                alert.labels == *labels
                    && alert.starts_at == rfc3339(starts)
                    && ends.is_none_or(|ends| alert.ends_at == rfc3339(ends))
            })
        };
        match *state {
            State::Firing { starts_at, .. } => of_it(starts_at, None),
            State::Resolved { starts_at, ends_at } => of_it(starts_at, Some(ends_at)),
            _ => true,
        }
    };
    alerts.iter().filter(|(labels, state)| !is_told(labels, state)).map(|alert| format!("{alert:?}")).collect()
}

/// Scenario: calls of five tools, one of which has the name of the group of all others, for two and for three groups; they come late, are retried and
/// settle at random; the evaluator is ended or killed at random moments, sometimes without its cache. Guarantees: the groups are those whose first
/// events come first in the log; good, bad and excluded of each over all windows are those of an oracle; alerts are the same after each start.
#[tokio::test(flavor = "multi_thread")]
async fn groups_are_the_same_however_often_the_evaluator_is_ended() {
    let seed: u64 = std::env::var("TOOLGAUGE_TEST_SLO_SEED").map_or(1, |seed| seed.parse().unwrap());
    for seed in seed..seed + 2 {
        live(seed, 120).await;
    }
}

/// Events with a duration of at least so many ms.
fn slos(least_ms: u64) -> String {
    format!(
        "
apiVersion: openslo/v1
kind: SLO
metadata: {{name: search, annotations: {{toolgauge/mode: attempt}}}}
spec:
  service: shop
  indicator: {{spec: {{ratioMetric: {{
    good: {{metricSource: {{type: toolgauge, spec: {{where: outcome = 'ok'}}}}}},
    total: {{metricSource: {{type: toolgauge, spec: {{where: tool_name = 'search' AND duration_ns >= {least_ms}000000}}}}}}}}}}}}
  timeWindow: [{{duration: 30d, isRolling: true}}]
  budgetingMethod: Occurrences
  objectives: [{{target: 0.99}}]
"
    )
}

/// So many minutes with four calls of 20 ms and one of 1 ms, each minute evaluated.
async fn run(running: &Running, minutes: i64, failed: bool) {
    for _ in 0..minutes {
        let time = UnixMicros(running.world.time().0 + MINUTE);
        let mut moment = running.world.moment();
        moment.at(time);
        moment.arrive(time, &["shop-agent"]);
        for duration_ms in [20, 20, 20, 20, 1] {
            let end = UnixMicros(time.0 - SECOND);
            moment.call(Call {
                end,
                service: "shop-agent",
                tool: "search",
                failed,
                is_final: true,
                duration_ms,
                position: 0,
                weight: 1_000_000,
            });
        }
        let position = moment.position();
        moment.commit(position);
        drop(moment);
        running.evaluated().await;
    }
}

fn page(evaluated: &Evaluated) -> Option<State> {
    let is_fast = |labels: &BTreeMap<String, String>| labels.get("burn_tier").is_some_and(|tier| tier == "fast");
    evaluated.alerts.iter().find(|alert| is_fast(&alert.labels)).map(|alert| alert.state)
}

fn total(evaluated: &Evaluated) -> (usize, u64, u64) {
    (evaluated.slos.len(), evaluated.slos[0].counts.good, evaluated.slos[0].counts.bad)
}

/// The number of the last part of a history that is in `slo_1m`.
fn parts(world: &World) -> Option<i64> {
    world.committed_version(Table::Slo1m, "writer/slo_1m/history").unwrap()
}

/// Six minutes before midnight.
const EVENING: UnixMicros = UnixMicros(1_772_409_240_000_000);

/// Scenario: a page fires; meanwhile its SLO comes to count other calls, of which there are two dates; the first part of the history is taken, the
/// second one is held up. Guarantees: the old one answers, with its page, and counts what comes, until the new one is counted, of which
/// the progress is told; then the new counts are those of SQL, and the page still has its start. After a restart they are the same, without being counted anew.
#[tokio::test(flavor = "multi_thread")]
async fn the_old_condition_answers_until_the_new_one_is_counted() {
    let world = World::new(EVENING);
    let mut running = Running::start(Arc::clone(&world), &slos(0)).await;
    run(&running, 4, false).await;
    run(&running, 8, true).await;
    let evaluated = running.evaluated().await;
    assert_eq!(total(&evaluated), (1, 20, 40));
    let fired = page(&evaluated);
    assert!(matches!(fired, Some(State::Firing { .. })), "{evaluated:?}");
    let old = evaluated.slos[0].revision.clone().unwrap();

    let next = |last: Option<i64>| Some(last.map_or(0, |last| last + 1));
    let before = parts(&world);
    world.take_parts(1);
    running.write(&slos(10));
    let begun = |progress: f64| {
        let evaluated = running.evaluator.evaluated();
        evaluated.slos[0].backfill.as_ref().is_some_and(|backfill| backfill.progress > progress)
    };
    until("the older date is read", || begun(0.99)).await;
    assert_eq!(parts(&world), next(before), "the newer date is in the table");
    run(&running, 3, true).await;
    let evaluated = running.evaluated().await;
    assert_eq!((total(&evaluated), page(&evaluated)), ((1, 20, 55), fired));
    assert_eq!(evaluated.slos[0].revision.as_ref(), Some(&old));
    let backfill = evaluated.slos[0].backfill.clone().unwrap();
    assert!(!old.starts_with(&*backfill.revision), "{backfill:?}");

    world.take_parts(usize::MAX);
    until("the new one answers", || running.evaluator.evaluated().slos[0].backfill.is_none()).await;
    let evaluated = running.evaluated().await;
    assert_eq!((total(&evaluated), page(&evaluated)), ((1, 16, 44), fired));
    run(&running, 1, true).await;
    let evaluated = running.evaluated().await;
    assert_eq!((total(&evaluated), page(&evaluated)), ((1, 16, 48), fired));
    recount(&running, &evaluated.slos[0], evaluated.at.unwrap().position).await;
    let new = evaluated.slos[0].revision.clone().unwrap();
    assert!(new.starts_with(&*backfill.revision), "{new}");

    running.restart(false, |_| ()).await;
    let evaluated = running.evaluated().await;
    assert_eq!((total(&evaluated), page(&evaluated)), ((1, 16, 48), fired));
    assert_eq!(evaluated.slos[0].revision.as_ref(), Some(&new));
    let sums = format!("SELECT sum(good), sum(bad) FROM slo_1m WHERE slo_revision = '{new}'");
    assert_eq!(rows(&running, &sums).await, [[16, 48]]);
    let starts: std::collections::BTreeSet<String> = running
        .manager
        .sent()
        .into_iter()
        .filter(|sent| sent.labels.get("burn_tier").is_some_and(|tier| tier == "fast"))
        .map(|sent| sent.starts_at)
        .collect();
    assert_eq!(starts.into_iter().collect::<Vec<_>>(), [rfc3339(fired.unwrap().starts_at().unwrap())]);
    let removed = rows(&running, "SELECT count(*) FROM alerts WHERE reason = 'removed'").await;
    assert_eq!(removed, [[0]]);
    running.end().await;
}

/// Scenario: an alert begins to fire, once with time to look for its causes, once without. Guarantees: it is sent in both cases, in the first with
/// what failed.
#[tokio::test(flavor = "multi_thread")]
async fn an_alert_waits_no_longer_for_its_causes_than_it_may() {
    for (seconds, with_causes) in [(60, true), (0, false)] {
        let world = World::new(EVENING);
        let settings =
            EvaluateSettings { findings_timeout: Duration::from_secs(seconds), ..EvaluateSettings::default() };
        let running = Running::start_with(Arc::clone(&world), &slos(0), settings).await;
        run(&running, 4, false).await;
        run(&running, 8, true).await;
        let pages = || running.manager.sent().into_iter().filter(|sent| sent.labels["severity"] == "page");
        until("it is sent", || pages().next().is_some()).await;
        let page = pages().next().unwrap();
        assert!(page.annotations.contains_key("sql"), "{page:?}");
        assert_eq!(page.annotations.contains_key("top_contributors"), with_causes, "{page:?}");
        running.end().await;
    }
}

/// Scenario: the condition is changed, and changed back before the new one is counted; changed again, and the evaluator is killed when one of two parts
/// of the history is in the table. Guarantees: in the first case nothing was counted anew; in the second the part counts for nothing, and everything is
/// counted once.
#[tokio::test(flavor = "multi_thread")]
async fn half_a_history_counts_for_nothing() {
    let world = World::new(EVENING);
    let mut running = Running::start(Arc::clone(&world), &slos(0)).await;
    run(&running, 12, true).await;
    let old = running.evaluated().await.slos[0].revision.clone();
    let first = parts(&world).map_or(0, |last| last + 1);
    world.take_parts(1);
    running.write(&slos(10));
    let is_reading = || running.evaluator.evaluated().slos[0].backfill.is_some();
    until("the history is read", is_reading).await;
    running.write(&slos(0));
    until("it is given up", || !is_reading()).await;
    run(&running, 1, true).await;
    let evaluated = running.evaluated().await;
    assert_eq!((total(&evaluated), &evaluated.slos[0].revision), ((1, 0, 65), &old));

    world.take_parts(usize::MAX);
    until("nobody waits to be taken", || parts(&world) == Some(first + 1)).await;
    run(&running, 1, true).await;
    world.take_parts(1);
    running.write(&slos(15));
    until("a part is in the table", || parts(&world) == Some(first + 2)).await;
    running.restart(true, |world| world.take_parts(usize::MAX)).await;
    let evaluated = running.evaluated().await;
    assert_eq!(total(&evaluated), (1, 0, 56));
    recount(&running, &evaluated.slos[0], evaluated.at.unwrap().position).await;
    running.end().await;
}
