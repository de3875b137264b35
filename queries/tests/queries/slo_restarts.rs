//! The whole evaluator over a life of random calls, ended and started at random moments, against an oracle that counts everything anew;
//! and what becomes of alerts when telemetry or the table of alerts fails.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use toolgauge_analytics::alert::{RESOLVED_FOR_US, State};
use toolgauge_analytics::budget::{Target, default_tiers};
use toolgauge_analytics::calendar::Span;
use toolgauge_analytics::evidence::Evidence;
use toolgauge_analytics::window::{Minute, Window};
use toolgauge_proto::id::WalPosition;
use toolgauge_proto::lake::Lake as _;
use toolgauge_proto::table::Table;
use toolgauge_proto::time::UnixMicros;
use toolgauge_queries::evaluate::{Evaluated, SloStatus, statement};
use toolgauge_queries::json::{self, rfc3339};
use toolgauge_queries::slo::definition::Budgeting;
use toolgauge_queries::slo::group::NAMED_MAX;

use crate::slo_world::{Call, Failing, MINUTE, Running, SECOND, World};
use crate::support::{Rng, until};

const SLOS: &str = "
apiVersion: openslo/v1
kind: SLO
metadata: {name: search, annotations: {toolgauge/mode: attempt}}
spec:
  service: shop
  indicator: {spec: {ratioMetric: {
    good: {metricSource: {type: toolgauge, spec: {where: outcome = 'ok'}}},
    total: {metricSource: {type: toolgauge, spec: {where: tool_name = 'search'}}}}}}
  timeWindow: [{duration: 30d, isRolling: true}]
  budgetingMethod: Occurrences
  objectives: [{target: 0.99}]
---
apiVersion: openslo/v1
kind: SLO
metadata: {name: all, annotations: {toolgauge/mode: logical}}
spec:
  service: shop
  indicator: {spec: {ratioMetric: {
    good: {metricSource: {type: toolgauge, spec: {where: outcome = 'ok'}}},
    total: {metricSource: {type: toolgauge, spec: {where: kind = 'tool'}}}}}}
  timeWindow: [{duration: 30d, isRolling: true}]
  budgetingMethod: Occurrences
  objectives: [{target: 0.99}]
---
apiVersion: openslo/v1
kind: SLO
metadata: {name: speed, annotations: {toolgauge/mode: logical}}
spec:
  service: shop
  indicator: {spec: {ratioMetric: {
    good: {metricSource: {type: toolgauge, spec: {where: duration_ns <= 200000000}}},
    total: {metricSource: {type: toolgauge, spec: {where: outcome = 'ok' AND duration_ns > 1000}}}}}}
  timeWindow: [{duration: 30d, isRolling: true}]
  budgetingMethod: Occurrences
  objectives: [{target: 0.95}]
";

/// A period of the calendar, minutes that do not count, and slices.
const MORE_SLOS: &str = "
---
apiVersion: openslo/v1
kind: SLO
metadata:
  name: daily
  annotations: {toolgauge/mode: logical, toolgauge/exclusions: '2024-02-29T17:00:00Z/2024-02-29T17:45:00Z'}
spec:
  service: shop
  indicator: {spec: {ratioMetric: {
    bad: {metricSource: {type: toolgauge, spec: {where: outcome = 'error'}}},
    total: {metricSource: {type: toolgauge, spec: {where: kind = 'tool'}}}}}}
  timeWindow: [{duration: 1d, isRolling: false, calendar: {startTime: 2024-01-01 00:00:00, timeZone: Asia/Kolkata}}]
  budgetingMethod: Occurrences
  objectives: [{target: 0.99}]
---
apiVersion: openslo/v1
kind: SLO
metadata: {name: slices, annotations: {toolgauge/mode: attempt, toolgauge/evidence: 'false'}}
spec:
  service: shop
  indicator: {spec: {ratioMetric: {
    good: {metricSource: {type: toolgauge, spec: {where: outcome = 'ok'}}},
    total: {metricSource: {type: toolgauge, spec: {where: tool_name = 'search'}}}}}}
  timeWindow: [{duration: 30d, isRolling: true}]
  budgetingMethod: Timeslices
  objectives: [{target: 0.99, timeSliceTarget: 0.8, timeSliceWindow: 2m}]
";

/// What the oracle knows of an SLO: by hand, what the document says.
struct Slo {
    name: &'static str,
    is_event: fn(&Call) -> bool,
    is_good: fn(&Call) -> bool,
    /// The least share of bad events of each tier, in thousandths.
    thousandths: [u64; 4],
    target: &'static str,
    kind: Kind,
}

/// What is particular about an SLO.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Events over 30 days.
    Plain,
    /// Days of India, without [`MAINTENANCE`].
    Daily,
    /// Two minutes each, good from 80 % on; pages need no evidence.
    Slices,
}

/// 2024-02-29, 17:00 to 17:45, in minutes.
const MAINTENANCE: std::ops::Range<i64> = 28_487_100..28_487_145;

const ORACLE: [Slo; 5] = [
    Slo {
        name: "all",
        is_event: |call| call.is_final,
        is_good: |call| !call.failed,
        thousandths: [144, 60, 30, 10],
        target: "0.99",
        kind: Kind::Plain,
    },
    Slo {
        name: "daily",
        is_event: |call| call.is_final,
        is_good: |call| !call.failed,
        // No factor is below 1, and the window of the last tier is longer than the period.
        thousandths: [10, 10, 10, u64::MAX],
        target: "0.99",
        kind: Kind::Daily,
    },
    Slo {
        name: "search",
        is_event: |call| call.tool == "search",
        is_good: |call| !call.failed,
        thousandths: [144, 60, 30, 10],
        target: "0.99",
        kind: Kind::Plain,
    },
    Slo {
        name: "slices",
        is_event: |call| call.tool == "search",
        is_good: |call| !call.failed,
        thousandths: [144, 60, 30, 10],
        target: "0.99",
        kind: Kind::Slices,
    },
    Slo {
        name: "speed",
        is_event: |call| call.is_final && !call.failed,
        is_good: |call| call.duration_ms <= 200,
        thousandths: [720, 300, 150, 50],
        target: "0.95",
        kind: Kind::Plain,
    },
];

/// Name, and minutes of the long and the short window.
const TIERS: [(&str, i64, i64); 4] =
    [("fast", 60, 5), ("medium", 360, 30), ("slow", 1_440, 120), ("long-term", 4_320, 360)];

/// SLO and tier, or `telemetry`.
type Key = (String, String);

/// An alert's start, and its end.
type Episode = (UnixMicros, Option<UnixMicros>);

#[derive(Default)]
struct Oracle {
    /// The minutes in which exports were accepted, and whose.
    arrivals: BTreeMap<i64, BTreeSet<&'static str>>,
    states: BTreeMap<Key, State>,
    episodes: BTreeMap<Key, Vec<Episode>>,
    /// Time and word before and after.
    changes: BTreeMap<Key, Vec<(UnixMicros, &'static str, &'static str)>>,
}

/// Good and bad events of some minutes.
fn events(calls: &[Call], slo: &Slo, minutes: RangeInclusive<i64>) -> (u64, u64) {
    let counts = |minute: i64| minutes.contains(&minute) && !(slo.kind == Kind::Daily && MAINTENANCE.contains(&minute));
    let events = calls.iter().filter(|call| (slo.is_event)(call) && counts(Minute::of(call.end).0));
    events.fold((0, 0), |(good, bad), call| if (slo.is_good)(call) { (good + 1, bad) } else { (good, bad + 1) })
}

/// What good and bad events stand for.
type Weights = (i64, i64);

/// Good and bad events, or slices, of a window at a minute, and what they stand for, in millionths.
fn weigh(calls: &[Call], slo: &Slo, now: i64, window: i64) -> Weights {
    let (good, bad) = count(calls, slo, now, window);
    if slo.kind == Kind::Slices {
        // A slice is one, whatever its events stand for.
        return (good.cast_signed() * 1_000_000, bad.cast_signed() * 1_000_000);
    }
    let counts = |call: &Call| count(std::slice::from_ref(call), slo, now, window);
    calls.iter().fold((0, 0), |(good, bad), call| match counts(call) {
        (0, 0) => (good, bad),
        (_, 0) => (good + call.weight, bad),
        _ => (good, bad + call.weight),
    })
}

/// Good and bad events, or slices, of a window at a minute.
fn count(calls: &[Call], slo: &Slo, now: i64, window: i64) -> (u64, u64) {
    if slo.kind != Kind::Slices {
        return events(calls, slo, now - window..=now);
    }
    let mut slices: BTreeMap<i64, (u64, u64)> = BTreeMap::new();
    for call in calls.iter().filter(|call| (slo.is_event)(call)) {
        let (good, bad) = slices.entry(Minute::of(call.end).0 / 2 * 2).or_default();
        *(if (slo.is_good)(call) { good } else { bad }) += 1;
    }
    let end = now / 2 * 2;
    slices.range(end - window..end).fold((0, 0), |(good, bad), (_, slice)| {
        if slice.0 * 10 >= (slice.0 + slice.1) * 8 { (good + 1, bad) } else { (good, bad + 1) }
    })
}

/// The same over the period so far.
fn count_period(calls: &[Call], slo: &Slo, now: i64) -> (u64, u64) {
    match slo.kind {
        // India is five and a half hours ahead.
        Kind::Daily => events(calls, slo, (now + 330) / 1_440 * 1_440 - 330..=now),
        Kind::Plain | Kind::Slices => count(calls, slo, now, 43_200),
    }
}

/// Whether an alert that burns is kept from beginning.
fn is_held_back(calls: &[Call], slo: &Slo, tier: usize, now: i64) -> bool {
    // Attempts of one call are one.
    let of_calls = Slo { is_event: |call| call.tool == "search" && call.is_final, ..*slo };
    let (good, bad) = count(calls, if slo.name == "search" { &of_calls } else { slo }, now, TIERS[tier].1);
    let needs_evidence = tier < 2 && slo.kind != Kind::Slices;
    let target = Target::from_ratio(slo.target).unwrap();
    needs_evidence && !Evidence::of(bad, good + bad, target).is_improbable()
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Says {
    Stale,
    Idle,
    Burns,
    Clear,
}

impl Oracle {
    fn says(&self, calls: &[Call], slo: &Slo, tier: usize, time: UnixMicros, watermark: UnixMicros) -> Says {
        let now = Minute::of(time).0;
        let (_, long, short) = TIERS[tier];
        let first = self.arrivals.keys().next().copied().unwrap_or(i64::MAX);
        let ended = (now - short).max(first)..=now.min(Minute::of(watermark).0 - 1);
        let covered = ended.clone().filter(|minute| self.arrivals.contains_key(minute)).count();
        let ended = ended.count();
        // The newest event of each service that has any.
        let mut services: BTreeMap<&str, i64> = BTreeMap::new();
        for call in calls.iter().filter(|call| (slo.is_event)(call)) {
            let minute = Minute::of(call.end).0;
            if (now - long..=now).contains(&minute) {
                let newest = services.entry(call.service).or_insert(minute);
                *newest = minute.max(*newest);
            }
        }
        // It is heard by its events, or by anything else that it sends.
        let is_silent = |(service, newest): (&&str, &i64)| {
            let arrived = self.arrivals.iter().rev().find(|(_, services)| services.contains(service));
            let last = arrived.map_or(*newest, |(minute, _)| *newest.max(minute));
            time.0 - (last + 1) * MINUTE > 15 * MINUTE
        };
        let all_silent = !services.is_empty() && services.iter().all(is_silent);
        if time.0 - watermark.0 > 60 * SECOND || covered * 10 < ended * 9 || all_silent {
            return Says::Stale;
        }
        // Weights burn; events decide whether there is anything at all.
        let (long, weights) = (weigh(calls, slo, now, long), weigh(calls, slo, now, short));
        let burns = |(good, bad): Weights| {
            bad > 0 && i128::from(bad) * 1_000 >= i128::from(slo.thousandths[tier]) * i128::from(good + bad)
        };
        match count(calls, slo, now, short) {
            (0, 0) => Says::Idle,
            _ if burns(long) && burns(weights) => Says::Burns,
            _ => Says::Clear,
        }
    }

    fn change(&mut self, key: &Key, time: UnixMicros, to: State) {
        let from = self.states.insert(key.clone(), to).unwrap_or_default();
        self.changes.entry(key.clone()).or_default().push((time, from.as_str(), to.as_str()));
        let episodes = self.episodes.entry(key.clone()).or_default();
        match to {
            State::Firing { starts_at, .. } => episodes.push((starts_at, None)),
            State::Resolved { ends_at, .. } => episodes.last_mut().unwrap().1 = Some(ends_at),
            _ => {}
        }
    }

    fn evaluate(&mut self, calls: &[Call], time: UnixMicros, watermark: UnixMicros) {
        for slo in &ORACLE {
            let now = Minute::of(time).0;
            let tiers = if slo.kind == Kind::Daily { &TIERS[..3] } else { &TIERS[..] };
            for (tier, (name, long, _)) in tiers.iter().copied().enumerate() {
                let key = (slo.name.to_owned(), name.to_owned());
                // In maintenance nothing begins and nothing ends.
                let is_muted = slo.kind == Kind::Daily && MAINTENANCE.contains(&now);
                let says = if is_muted { Says::Stale } else { self.says(calls, slo, tier, time, watermark) };
                let state = self.states.get(&key).copied().unwrap_or_default();
                let is_gone = count(calls, slo, now, long) == (0, 0);
                match (state, says) {
                    (State::Firing { starts_at, .. }, Says::Clear) => {
                        self.change(&key, time, State::Resolved { starts_at, ends_at: time });
                    }
                    (State::Firing { starts_at, .. }, Says::Idle) if is_gone => {
                        self.change(&key, time, State::Resolved { starts_at, ends_at: time });
                    }
                    (State::Inactive | State::Resolved { .. }, Says::Burns) if !is_held_back(calls, slo, tier, now) => {
                        self.change(&key, time, State::Firing { starts_at: time, clear_since: None });
                    }
                    (State::Resolved { ends_at, .. }, _) if time.0 - ends_at.0 >= RESOLVED_FOR_US => {
                        self.change(&key, time, State::Inactive);
                    }
                    _ => {}
                }
            }
            let key = (slo.name.to_owned(), "telemetry".to_owned());
            let is_stale = self.says(calls, slo, 0, time, watermark) == Says::Stale;
            let longest = tiers.last().unwrap().1;
            let is_missed = is_stale && count(calls, slo, now, longest) != (0, 0);
            let is_muted = slo.kind == Kind::Daily && MAINTENANCE.contains(&now);
            match self.states.get(&key).copied().unwrap_or_default() {
                State::Inactive | State::Resolved { .. } if is_missed && !is_muted => {
                    self.change(&key, time, State::Pending { since: time });
                }
                State::Pending { since } if is_missed && !is_muted && time.0 - since.0 >= 5 * MINUTE => {
                    self.change(&key, time, State::Firing { starts_at: time, clear_since: None });
                }
                State::Pending { .. } if !is_missed && !is_muted => self.change(&key, time, State::Inactive),
                State::Firing { starts_at, .. } if !is_missed && !is_muted => {
                    self.change(&key, time, State::Resolved { starts_at, ends_at: time });
                }
                State::Resolved { ends_at, .. } if time.0 - ends_at.0 >= RESOLVED_FOR_US => {
                    self.change(&key, time, State::Inactive);
                }
                _ => {}
            }
        }
    }

    /// Compares counts and states with an evaluation.
    fn check(&self, calls: &[Call], time: UnixMicros, evaluated: &Evaluated) {
        assert_eq!(evaluated.slos.len(), ORACLE.len());
        for (slo, status) in ORACLE.iter().zip(&evaluated.slos) {
            assert_eq!(slo.name, status.slo.slo.name);
            for (window, counts) in &status.windows {
                let expected = count(calls, slo, Minute::of(time).0, window.minutes().into());
                assert_eq!((counts.good, counts.bad), expected, "{}, {window}, at {}", slo.name, rfc3339(time));
                let expected = weigh(calls, slo, Minute::of(time).0, window.minutes().into());
                let found = (counts.good_weighted, counts.bad_weighted);
                assert_eq!(found, (expected.0.into(), expected.1.into()), "{}, {window}", slo.name);
            }
            let expected = count_period(calls, slo, Minute::of(time).0);
            assert_eq!((status.counts.good, status.counts.bad), expected, "{} at {}", slo.name, rfc3339(time));
        }
        let found: BTreeMap<Key, State> =
            evaluated.alerts.iter().map(|alert| (key_of(&alert.labels), alert.state)).collect();
        let mut expected = self.states.clone();
        expected.retain(|_, state| *state != State::Inactive);
        assert_eq!(found, expected, "at {}", rfc3339(time));
    }
}

fn key_of(labels: &BTreeMap<String, String>) -> Key {
    (labels["slo"].clone(), labels.get("burn_tier").map_or("telemetry", String::as_str).to_owned())
}

/// Whether each of these episodes was sent, with its end if it has one.
fn is_delivered(running: &Running, episodes: &BTreeMap<Key, Vec<Episode>>) -> bool {
    let sent = running.manager.sent();
    episodes.iter().flat_map(|(key, episodes)| episodes.iter().map(move |episode| (key, episode))).all(
        |(key, (start, end))| {
            let mut of_it =
                sent.iter().filter(|alert| key_of(&alert.labels) == *key && alert.starts_at == rfc3339(*start));
            match end {
                Some(end) => of_it.any(|alert| alert.ends_at == rfc3339(*end)),
                None => of_it.next().is_some(),
            }
        },
    )
}

pub(crate) async fn rows(running: &Running, statement: &str) -> Vec<Vec<serde_json::Value>> {
    let now = chrono::DateTime::from_timestamp_micros(running.world.time().0).unwrap();
    let schema = running.sql.catalog.schema(running.world.view());
    let answer = running.sql.engine.query(schema, now, statement.to_owned()).await.unwrap();
    json::response(&answer).unwrap().rows
}

/// The statements that go with the numbers of an evaluation give the same numbers.
pub(crate) async fn recount(running: &Running, status: &SloStatus, position: WalPosition) {
    let (slo, now) = (&status.slo.slo, Minute::of(running.world.time()));
    let windows = status.windows.iter().map(|(window, counts)| {
        let minutes = match slo.budgeting {
            Budgeting::Occurrences => Span { start: *window.at(now).start(), end: Minute(now.0 + 1) },
            Budgeting::Timeslices(slices) => slices.window_at(*window, now),
        };
        (minutes, *counts)
    });
    let period = (status.slices.map_or(status.period, |(minutes, _)| minutes), status.counts);
    let condition = status.group.as_ref().map_or(String::new(), |group| group.condition(NAMED_MAX));
    for (minutes, counts) in windows.chain([period]) {
        let sql = statement(slo, &condition, minutes, Some(position));
        let found = rows(running, &sql).await;
        assert_eq!(found, [[counts.good, counts.bad]], "{sql}");
    }
}

/// What befalls the services for a while.
#[derive(Default)]
struct Weather {
    failing: u64,
    slow: u64,
    /// Nothing of anybody arrives.
    gap: u64,
    /// The shop sends nothing; the cron job does.
    silent: u64,
}

impl Weather {
    fn pass(&mut self, rng: &mut Rng, minutes: u64) {
        for (left, one_in, most) in
            [(&mut self.failing, 25, 40), (&mut self.slow, 40, 60), (&mut self.gap, 60, 20), (&mut self.silent, 50, 90)]
        {
            *left = left.saturating_sub(minutes);
            if *left == 0 && rng.one_in(one_in) {
                *left = 1 + rng.below(most);
            }
        }
    }
}

fn call(rng: &mut Rng, weather: &Weather, time: UnixMicros) -> Call {
    let is_shop = weather.silent == 0 && !rng.one_in(4);
    let late = if rng.one_in(10) { rng.below(180) } else { rng.below(2) };
    Call {
        end: UnixMicros(time.0 - (late * 30).cast_signed() * SECOND),
        service: if is_shop { "shop-agent" } else { "cron" },
        tool: if is_shop { "search" } else { "fetch" },
        failed: if weather.failing > 0 { !rng.one_in(3) } else { rng.one_in(200) },
        is_final: true,
        duration_ms: if weather.slow > 0 && !rng.one_in(5) { 900 } else { 20 },
        weight: if rng.one_in(3) { [1_500_000, 4_000_000, 10_000_000][rng.below(3) as usize] } else { 1_000_000 },
        position: 0,
    }
}

/// One step of time: what arrives, changes, settles and is committed in it.
fn pass(world: &World, oracle: &mut Oracle, weather: &mut Weather, rng: &mut Rng) {
    let minutes = match rng.below(30) {
        0 => 10 + rng.below(60),
        1..4 => 0,
        _ => 1 + rng.below(2),
    };
    let before = world.time();
    let time = UnixMicros(before.0 + minutes.cast_signed() * MINUTE + rng.below(20).cast_signed() * SECOND);
    weather.pass(rng, minutes);
    let mut moment = world.moment();
    if weather.gap > 0 {
        return moment.at_without_watermark(time);
    }
    moment.at(time);
    let services: &[&'static str] = if weather.silent > 0 { &["cron"] } else { &["cron", "shop-agent"] };
    for minute in Minute::of(before).0..=Minute::of(time).0 {
        moment.arrive(Minute(minute).start(), services);
        oracle.arrivals.entry(minute).or_default().extend(services);
    }
    for _ in 0..rng.below(10) {
        let call = call(rng, weather, time);
        moment.call(call);
    }
    // A retry of a failure that may still change.
    let failures: Vec<usize> =
        (0..moment.live().len()).filter(|at| moment.live()[*at].failed && moment.live()[*at].is_final).collect();
    if !failures.is_empty() && rng.one_in(3) {
        let at = failures[rng.below(failures.len() as u64) as usize];
        moment.live()[at].is_final = false;
        let retry = Call { end: time, failed: rng.one_in(4), is_final: true, ..moment.live()[at].clone() };
        moment.call(retry);
    }
    if rng.one_in(3) {
        let live = moment.live().len() as u64;
        let up_to = moment.position() - rng.below(live.min(8) + 1);
        moment.commit(up_to);
    }
}

async fn live(seed: u64, steps: usize) {
    let mut rng = Rng::new(seed);
    // Half past three on a leap day: maintenance, midnight in India, and the end of the month are to come.
    let begin = UnixMicros(1_709_220_600_000_000 + rng.below(60).cast_signed() * MINUTE);
    let world = World::new(begin);
    let mut oracle = Oracle::default();
    world.moment().arrive(begin, &[]);
    oracle.arrivals.entry(Minute::of(begin).0).or_default();
    let mut running = Running::start(Arc::clone(&world), &format!("{SLOS}{MORE_SLOS}")).await;
    let (mut weather, mut restarts) = (Weather::default(), 0);
    let mut watermark = begin;
    for _ in 0..steps {
        pass(&world, &mut oracle, &mut weather, &mut rng);
        let (time, calls) = (world.time(), world.calls());
        if weather.gap == 0 {
            watermark = time;
        }
        oracle.evaluate(&calls, time, watermark);
        oracle.check(&calls, time, &*running.evaluated().await);
        if rng.one_in(8) {
            restarts += 1;
            let (killed, cleared) = (!rng.one_in(3), rng.one_in(4));
            running
                .restart(killed, |world| {
                    if cleared {
                        world.clear(Table::Slo1m)
                    }
                })
                .await;
            oracle.check(&calls, time, &*running.evaluated().await);
        }
        let what = format!("all changes are delivered at {}, seed {seed}", rfc3339(time));
        until(&what, || is_delivered(&running, &oracle.episodes)).await;
    }
    assert!(restarts > steps / 20);
    let fired: BTreeMap<&Key, usize> = oracle.episodes.iter().map(|(key, of_it)| (key, of_it.len())).collect();
    assert!(fired.len() >= 8, "seed {seed}: too little has happened: {fired:?}");
    let starts: BTreeSet<(Key, String)> =
        running.manager.sent().iter().map(|sent| (key_of(&sent.labels), sent.starts_at.clone())).collect();
    let expected = oracle
        .episodes
        .iter()
        .flat_map(|(key, of_it)| of_it.iter().map(move |(start, _)| (key.clone(), rfc3339(*start))));
    assert_eq!(starts, expected.collect(), "seed {seed}: what was delivered");

    // The tables say the same.
    let revisions: BTreeMap<String, String> = running
        .evaluated()
        .await
        .slos
        .iter()
        .map(|status| (status.slo.slo.name.clone(), status.revision.as_deref().unwrap().to_owned()))
        .collect();
    let position = world.position();
    world.moment().commit(position);
    let evaluated = running.evaluated().await;
    for status in &evaluated.slos {
        recount(&running, status, evaluated.at.unwrap().position).await;
    }
    running.end().await;
    let (proofs, mismatches) = (running.proofs.load(Relaxed), running.mismatches.load(Relaxed));
    assert!(proofs > 10 && mismatches == 0, "seed {seed}: {mismatches} of {proofs} minutes are wrong");
    let found = rows(
        &running,
        "SELECT slo, coalesce(burn_tier, 'telemetry'), time, previous_state, state FROM alerts ORDER BY time, position",
    )
    .await;
    let mut changes: BTreeMap<Key, Vec<(String, String, String)>> = BTreeMap::new();
    for row in &found {
        let text = |at: usize| row[at].as_str().unwrap().to_owned();
        let change = (text(2), text(3), text(4));
        changes.entry((text(0), text(1))).or_default().push(change);
    }
    let told = |(time, from, to): &(UnixMicros, &str, &str)| (rfc3339(*time), (*from).to_owned(), (*to).to_owned());
    let expected: BTreeMap<Key, Vec<(String, String, String)>> =
        oracle.changes.iter().map(|(key, of_it)| (key.clone(), of_it.iter().map(told).collect())).collect();
    assert_eq!(changes, expected, "seed {seed}");
    let calls = world.calls();
    for slo in &ORACLE {
        let statement = format!(
            "SELECT coalesce(sum(good), 0), coalesce(sum(bad), 0) FROM slo_1m WHERE slo = '{}' AND slo_revision = '{}'",
            slo.name, revisions[slo.name]
        );
        let sums = rows(&running, &statement).await.remove(0);
        let all = Slo { kind: Kind::Plain, ..*slo };
        let (good, bad) = count(&calls, &all, Minute::of(world.time()).0, 1_000_000);
        assert_eq!(sums, [good, bad], "seed {seed}, {}", slo.name);
    }
}

/// Scenario: calls that arrive late, are retried, and settle at random; outages, slowness, gaps in the telemetry, services that fall silent;
/// the evaluator is ended or killed at random moments, sometimes without its cache. Guarantees: counts, states, start
/// times, the table of alerts and what an Alertmanager gets are those of an oracle that was never ended.
#[tokio::test(flavor = "multi_thread")]
async fn ending_and_killing_the_evaluator_changes_nothing() {
    let seed: u64 = std::env::var("TOOLGAUGE_TEST_SLO_SEED").map_or(1, |seed| seed.parse().unwrap());
    for seed in seed..seed + 2 {
        live(seed, 160).await;
    }
}

/// So many calls a minute of `search` for so many minutes, each minute evaluated; all of them fail or none.
async fn run(running: &Running, minutes: i64, failed: bool) {
    for _ in 0..minutes {
        let time = UnixMicros(running.world.time().0 + MINUTE);
        let mut moment = running.world.moment();
        moment.at(time);
        moment.arrive(time, &["shop-agent"]);
        for _ in 0..4 {
            let end = UnixMicros(time.0 - SECOND);
            moment.call(Call {
                end,
                service: "shop-agent",
                tool: "search",
                failed,
                is_final: true,
                duration_ms: 20,
                weight: 1_000_000,
                position: 0,
            });
        }
        let position = moment.position();
        moment.commit(position);
        drop(moment);
        running.evaluated().await;
    }
}

fn state(evaluated: &Evaluated, slo: &str, tier: &str) -> State {
    let key = (slo.to_owned(), tier.to_owned());
    evaluated.alerts.iter().find(|alert| key_of(&alert.labels) == key).map_or(State::Inactive, |alert| alert.state)
}

const BEGIN: UnixMicros = UnixMicros(1_772_366_400_000_000);

/// Scenario: a page fires, and then nothing is heard of the collector; the evaluator is ended meanwhile; then telemetry comes back, and all
/// is well. Guarantees: `TelemetryStale` fires five minutes after the page froze, is delivered, and ends with the first evaluation that can be
/// trusted; the page keeps its start.
#[tokio::test(flavor = "multi_thread")]
async fn telemetry_that_is_missing_is_told_after_five_minutes() {
    let world = World::new(BEGIN);
    let mut running = Running::start(Arc::clone(&world), SLOS).await;
    run(&running, 10, true).await;
    let page = state(&*running.evaluated().await, "search", "fast");
    assert!(matches!(page, State::Firing { .. }));

    let last = world.time();
    let after = |seconds: i64| UnixMicros(last.0 + seconds * SECOND);
    world.moment().at_without_watermark(after(60));
    assert_eq!(state(&*running.evaluated().await, "search", "telemetry"), State::Inactive);
    let stale = after(61);
    world.moment().at_without_watermark(stale);
    assert_eq!(state(&*running.evaluated().await, "search", "telemetry"), State::Pending { since: stale });
    // Each alert that is not inactive has had one change.
    let changes = running.evaluated().await.alerts.len();
    until("it is committed", || world.committed_rows(Table::Alerts) == changes).await;
    world.moment().at_without_watermark(after(61 + 299));
    assert_eq!(state(&*running.evaluated().await, "search", "telemetry"), State::Pending { since: stale });
    running.restart(true, |_| ()).await;
    let told = after(61 + 300);
    world.moment().at_without_watermark(told);
    let evaluated = running.evaluated().await;
    let firing = State::Firing { starts_at: told, clear_since: None };
    assert_eq!(state(&evaluated, "search", "telemetry"), firing);
    // Nobody fed it for long: it stays as it was.
    world.moment().at_without_watermark(after(2 * 3_600));
    let evaluated = running.evaluated().await;
    assert_eq!(state(&evaluated, "search", "fast"), page);
    assert_eq!(evaluated.slos[1].evaluation.as_str(), "stale");
    let is_told = || {
        running.manager.sent().iter().any(|sent| {
            sent.labels["alertname"] == "TelemetryStale"
                && sent.labels["slo"] == "search"
                && sent.starts_at == rfc3339(told)
                && sent.annotations["summary"].contains("its alerts are frozen")
        })
    };
    until("it is delivered", is_told).await;

    let before = running.world.time();
    run(&running, 1, false).await;
    let evaluated = running.evaluated().await;
    // The minutes of the gap are not covered.
    assert_eq!(evaluated.slos[1].evaluation.as_str(), "stale");
    run(&running, 5, false).await;
    let evaluated = running.evaluated().await;
    assert_eq!(evaluated.slos[1].evaluation.as_str(), "ok");
    let State::Resolved { starts_at, ends_at } = state(&evaluated, "search", "telemetry") else {
        panic!("{evaluated:?}")
    };
    assert!(starts_at == told && ends_at > before);
    let State::Resolved { starts_at, .. } = state(&evaluated, "search", "fast") else { panic!("{evaluated:?}") };
    assert_eq!(Some(starts_at), page.starts_at());
    running.end().await;
}

/// Scenario: the only service that feeds an SLO falls silent while another one goes on; the evaluator is ended. Guarantees: the SLO is stale
/// after as before, also one whose condition needs more than the sums per minute have.
#[tokio::test(flavor = "multi_thread")]
async fn who_fed_an_slo_is_known_after_a_restart() {
    let world = World::new(BEGIN);
    let mut running = Running::start(Arc::clone(&world), SLOS).await;
    run(&running, 10, false).await;
    let cursor = || world.committed_version(Table::Slo1m, "writer/slo_1m").unwrap();
    until("everything is in the cache", || cursor() == Some(40)).await;
    for _ in 0..17 {
        let time = UnixMicros(world.time().0 + MINUTE);
        let mut moment = world.moment();
        moment.at(time);
        moment.arrive(time, &["cron"]);
    }
    let evaluations = |evaluated: &Evaluated| -> Vec<&'static str> {
        evaluated.slos.iter().map(|status| status.evaluation.as_str()).collect()
    };
    assert_eq!(evaluations(&*running.evaluated().await), ["stale"; 3]);
    running.restart(false, |_| ()).await;
    assert_eq!(evaluations(&*running.evaluated().await), ["stale"; 3]);
    running.end().await;
}

/// Scenario: somebody has doubled the rows of `slo_1m`. Guarantees: the recount sees it, and did not see anything before.
#[tokio::test(flavor = "multi_thread")]
async fn counts_that_are_wrong_are_seen() {
    let world = World::new(BEGIN);
    let mut running = Running::start(Arc::clone(&world), SLOS).await;
    run(&running, 10, false).await;
    let cursor = || world.committed_version(Table::Slo1m, "writer/slo_1m").unwrap();
    until("everything is in the cache", || cursor() == Some(40)).await;
    let proofs = |running: &Running| running.evaluator.counters().proofs.load(Relaxed);
    until("minutes are recounted", || proofs(&running) > 20).await;
    running.restart(false, |world| world.double(Table::Slo1m)).await;
    assert_eq!(running.mismatches.load(Relaxed), 0);
    let mismatches = || running.evaluator.counters().proof_mismatches.load(Relaxed);
    until("a mismatch is counted", || mismatches() > 0).await;
    running.end().await;
}

/// Scenario: the table of alerts cannot be written, for a moment or for longer. Guarantees: a page arrives nevertheless; in the first case
/// it is in the table before, in the second this is counted, and what happens later is written again.
#[tokio::test(flavor = "multi_thread")]
async fn a_page_arrives_whether_it_can_be_written_down_or_not() {
    for (failures, recorded) in [(2, true), (5, false)] {
        let world = World::new(BEGIN);
        let running = Running::start(Arc::clone(&world), SLOS).await;
        run(&running, 5, false).await;
        world.fail(Table::Alerts, Failing::Invalid(failures));
        run(&running, 1, true).await;
        let starts_at = rfc3339(world.time());
        let is_told = || {
            running.manager.sent().iter().any(|sent| {
                key_of(&sent.labels) == ("search".to_owned(), "fast".to_owned()) && sent.starts_at == starts_at
            })
        };
        until("the page arrives", is_told).await;
        let statement = "SELECT count(*) FROM alerts WHERE slo = 'search' AND burn_tier = 'fast' AND state = ";
        let fired = rows(&running, &format!("{statement} 'firing'")).await;
        assert_eq!(fired[0][0], u64::from(recorded));
        let counters = running.evaluator.counters();
        let unrecorded = counters.unrecorded_changes.load(Relaxed);
        assert_eq!(unrecorded > 0, !recorded, "{unrecorded}");
        run(&running, 6, false).await;
        running.end().await;
        let ended = rows(&running, &format!("{statement} 'resolved'")).await;
        assert_eq!(ended[0][0], 1);
    }
}

/// Scenario: a service of ten calls an hour, of which 99.9 % have to be good; one call fails, then another. Guarantees: the first one burns a
/// hundred times too fast, and is no page: it may well be chance; it is a ticket. The second is a page, and says why.
#[tokio::test(flavor = "multi_thread")]
async fn one_failure_of_few_calls_is_no_page() {
    let world = World::new(BEGIN);
    let slo = SLOS.split("---").next().unwrap().replace("target: 0.99", "target: 0.999");
    let running = Running::start(Arc::clone(&world), &slo).await;
    let step = |minute: i64, failed: bool| {
        let time = UnixMicros(BEGIN.0 + minute * MINUTE);
        let mut moment = world.moment();
        moment.at(time);
        for minute in (minute - 5..=minute).filter(|minute| *minute > 0) {
            moment.arrive(UnixMicros(BEGIN.0 + minute * MINUTE), &["shop-agent"]);
        }
        moment.call(Call {
            end: time,
            service: "shop-agent",
            tool: "search",
            failed,
            is_final: true,
            duration_ms: 20,
            weight: 1_000_000,
            position: 0,
        });
    };
    for minute in 1..=9 {
        step(minute * 6, false);
        running.evaluated().await;
    }
    step(60, true);
    let evaluated = running.evaluated().await;
    let status = &evaluated.slos[0];
    assert_eq!((status.counts.good, status.counts.bad), (9, 1));
    let held: Vec<Option<&str>> =
        status.tiers.iter().map(|tier| tier.held_back.map(|held_back| held_back.as_str())).collect();
    assert_eq!(held, [Some("evidence"), Some("evidence"), None, None]);
    assert_eq!(state(&evaluated, "search", "fast"), State::Inactive);
    assert!(matches!(state(&evaluated, "search", "slow"), State::Firing { .. }));
    step(62, true);
    let evaluated = running.evaluated().await;
    assert!(matches!(state(&evaluated, "search", "fast"), State::Firing { .. }), "{evaluated:?}");
    let page = evaluated.alerts.iter().find(|alert| alert.labels.get("burn_tier").is_some_and(|tier| tier == "fast"));
    assert!(page.unwrap().annotations["evidence"].contains("(2 of 11) have a probability of at most 5e-5"), "{page:?}");
    running.end().await;
}

#[test]
fn the_oracle_has_the_tiers_of_the_workbook() {
    for slo in &ORACLE {
        let target = Target::from_ratio(slo.target).unwrap();
        let period = if slo.kind == Kind::Daily { Window::D1 } else { Window::D30 };
        let tiers = default_tiers(period, target).into_iter().map(|tier| {
            let ratio = tier.factor.times(target.budget()).unwrap().to_f64() * 1_000.0;
            (
                tier.name.to_string(),
                i64::from(tier.long.minutes()),
                i64::from(tier.short.minutes()),
                ratio.round() as u64,
            )
        });
        let expected = TIERS
            .iter()
            .zip(slo.thousandths)
            .map(|((name, long, short), share)| ((*name).to_owned(), *long, *short, share));
        let last = if slo.kind == Kind::Daily { 3 } else { 4 };
        assert!(tiers.eq(expected.take(last)));
    }
}
