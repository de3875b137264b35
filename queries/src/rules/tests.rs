//! Virtual days of calls: figures against a recount, alerts against an oracle, restarts against a run without any.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::compute::cast;
use datafusion::common::ScalarValue;
use toolgauge_analytics::alert::{Evaluation, Observation, Patience, State as AlertState, step};
use toolgauge_analytics::window::{Minute, Window};
use toolgauge_proto::id::WalPosition;
use toolgauge_proto::table::{ColumnType, Table};
use toolgauge_proto::time::{MINUTE_MICROS, UnixMicros};

use super::book::{Change, rows};
use super::definition::{Calls, Hit, Measure, RuleSet};
use super::state::{Figures, State};
use crate::engine::Settings;
use crate::evaluate::At;
use crate::evaluate::alerts::Restored;
use crate::slo::set::Sources;
use crate::tables;

const SECOND: i64 = 1_000_000;

/// 2026-03-28T12:00:00Z: the clocks of Berlin go forward in the night that follows.
const BEGIN: UnixMicros = UnixMicros(1_774_699_200 * SECOND);

const RULES: &str = "
apiVersion: toolgauge/v1
kind: ThresholdRule
metadata: {name: errors}
spec: {metric: error_rate, by: [tool_name], threshold: 30 %, window: 5m, minEvents: 3, severity: page}
---
apiVersion: toolgauge/v1
kind: ThresholdRule
metadata: {name: errors-for}
spec: {metric: error_rate, mode: attempt, service: shop, threshold: 0.2, window: 20m, for: 3m}
---
apiVersion: toolgauge/v1
kind: ThresholdRule
metadata: {name: slow}
spec: {metric: latency, quantile: 0.9, threshold: 2s, window: 10m, by: [service_name, tool_name]}
---
apiVersion: toolgauge/v1
kind: ThresholdRule
metadata: {name: retries}
spec: {metric: retry_rate, op: gt, threshold: 0.1, window: 1h, where: \"tool_name <> 'c'\"}
---
apiVersion: toolgauge/v1
kind: ThresholdRule
metadata: {name: burn}
spec: {metric: burn_rate, target: 0.9, threshold: 2, window: 30m}
---
apiVersion: toolgauge/v1
kind: ThresholdRule
metadata: {name: models}
spec: {metric: error_rate, calls: model, by: [model], groupsMax: 2, threshold: 0.3, window: 15m}
---
apiVersion: toolgauge/v1
kind: ThresholdRule
metadata: {name: spending}
spec: {metric: cost, per: 1h, threshold: 0.9 USD, window: 10m}
---
apiVersion: toolgauge/v1
kind: CostBudget
metadata: {name: day}
spec: {amount: 9.5, period: day, zone: Europe/Berlin}
---
apiVersion: toolgauge/v1
kind: Heartbeat
metadata: {name: search}
spec: {service: shop, tool: a, limit: 20m}
";

/// Deterministic random numbers.
struct Rng(u64);

impl Rng {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 8) % n
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

/// A call, as the model sees it.
#[derive(Debug, Clone)]
struct Call {
    position: u64,
    end: UnixMicros,
    kind: &'static str,
    service: &'static str,
    tool: Option<&'static str>,
    model: Option<&'static str>,
    failed: bool,
    attempt: i32,
    is_final: bool,
    counted: bool,
    duration_ns: i64,
    cost: Option<i128>,
}

fn timestamp(time: UnixMicros) -> ScalarValue {
    ScalarValue::TimestampMicrosecond(Some(time.0), Some("UTC".into()))
}

fn batch<'a>(calls: impl IntoIterator<Item = &'a Call>, live: bool) -> Option<RecordBatch> {
    let text = |text: Option<&str>| ScalarValue::Utf8(text.map(str::to_owned));
    let row = |call: &Call| -> Vec<ScalarValue> {
        let value = |column: &toolgauge_proto::table::Column| match column.name {
            "date" => ScalarValue::Date32(Some(call.end.date32())),
            "start_time" => timestamp(UnixMicros(call.end.0 - call.duration_ns / 1_000)),
            "end_time" => timestamp(call.end),
            "duration_ns" => ScalarValue::Int64(Some(call.duration_ns)),
            "kind" => text(Some(call.kind)),
            "tenant" => text(Some("default")),
            "service_name" => text(Some(call.service)),
            "tool_name" => text(call.tool),
            "model" => text(call.model),
            "outcome" => text(Some(if call.failed { "error" } else { "ok" })),
            "attempt" => ScalarValue::Int32(Some(call.attempt)),
            "final" => ScalarValue::Boolean(Some(call.is_final)),
            "counted" => ScalarValue::Boolean(Some(call.counted)),
            "cost_usd" => ScalarValue::Decimal128(call.cost, 18, 9),
            "wal_position" => ScalarValue::Int64(Some(call.position.cast_signed())),
            "weight" => ScalarValue::Decimal128(Some(1_000_000), 18, 6),
            _ if column.nullable => ScalarValue::try_new_null(&column.column_type.arrow()).unwrap(),
            _ => match column.column_type {
                ColumnType::Binary => ScalarValue::Binary(Some(vec![0])),
                ColumnType::Int64 => ScalarValue::Int64(Some(0)),
                _ => text(Some("x")),
            },
        };
        Table::Calls.columns().iter().map(value).collect()
    };
    let rows: Vec<Vec<ScalarValue>> = calls.into_iter().map(row).collect();
    if rows.is_empty() {
        return None;
    }
    let schema = if live { Table::Calls.live_schema() } else { Table::Calls.schema() };
    let columns = (0..schema.fields().len()).map(|index| {
        let column = ScalarValue::iter_to_array(rows.iter().map(|row| row[index].clone())).unwrap();
        cast(&column, schema.field(index).data_type()).unwrap()
    });
    let columns: Vec<ArrayRef> = columns.collect();
    Some(RecordBatch::try_new(schema, columns).unwrap())
}

/// Heartbeat rows of `arrivals`, and the services that sent.
fn arrivals(minute: Minute, services: &BTreeSet<&'static str>) -> RecordBatch {
    let schema = Table::Arrivals.schema();
    let rows: Vec<Option<&str>> = std::iter::once(None).chain(services.iter().map(|service| Some(*service))).collect();
    let columns = schema.fields().iter().map(|field| {
        let value = |service: &Option<&str>| match field.name().as_str() {
            "date" => ScalarValue::Date32(Some(minute.start().date32())),
            "minute" => timestamp(minute.start()),
            "service_name" => ScalarValue::Utf8(service.map(str::to_owned)),
            "tenant" => ScalarValue::Utf8(service.map(|_| "default".to_owned())),
            _ => ScalarValue::Int64(Some(1)),
        };
        ScalarValue::iter_to_array(rows.iter().map(value)).unwrap()
    });
    let columns = columns.collect();
    RecordBatch::try_new(schema, columns).unwrap()
}

fn rules(text: &str) -> Arc<RuleSet> {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("rules.yaml"), text).unwrap();
    let engine = tables::engine(Settings { target_partitions: 1, ..Settings::default() }).unwrap();
    let set = Sources::new(vec![folder.path().to_owned()]).read(&engine).unwrap();
    assert!(set.faults.is_empty(), "{:?}", set.faults);
    set.rules
}

/// What happens, step by step.
struct World {
    rng: Rng,
    now: UnixMicros,
    calls: Vec<Call>,
    /// Calls up to here are settled.
    settled: usize,
    /// Minutes in which exports were accepted, with who sent.
    received: BTreeMap<Minute, BTreeSet<&'static str>>,
    is_up: bool,
    error_percent: u64,
    silent_tool: bool,
}

impl World {
    fn new(seed: u64) -> Self {
        Self {
            rng: Rng(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1),
            now: BEGIN,
            calls: Vec::new(),
            settled: 0,
            received: BTreeMap::new(),
            is_up: true,
            error_percent: 5,
            silent_tool: false,
        }
    }

    fn call(&mut self) -> Call {
        let rng = &mut self.rng;
        let late = if rng.one_in(12) { rng.below(7 * 60) as i64 } else { rng.below(20) as i64 };
        let ahead = if rng.one_in(60) { 90 } else { 0 };
        let is_model = rng.one_in(4);
        let tools = if self.silent_tool { &["b", "c"][..] } else { &["a", "b", "c"][..] };
        let failed = rng.below(100) < self.error_percent;
        Call {
            position: self.calls.len() as u64 + 1,
            end: UnixMicros(self.now.0 - (late - ahead) * SECOND - 1),
            kind: if is_model { "model" } else { "tool" },
            service: ["shop", "bank"][rng.below(2) as usize],
            tool: (!is_model).then(|| tools[rng.below(tools.len() as u64) as usize]),
            model: is_model.then(|| ["m1", "m2", "m3"][rng.below(3) as usize]),
            failed,
            attempt: 1 + i32::from(rng.one_in(8)),
            is_final: !(failed && rng.one_in(3)),
            counted: !rng.one_in(7),
            duration_ns: [1_000_000, 2_000_000_000, 2_000_000_001, 700_000_000][rng.below(4) as usize]
                - i64::from(rng.one_in(2)),
            cost: (!rng.one_in(3)).then(|| i128::from(rng.below(20_000_000))),
        }
    }

    /// Time goes on by some seconds, and calls are received.
    fn step(&mut self, states: &mut [State]) {
        self.now.0 += (5 + self.rng.below(40) as i64) * SECOND;
        if self.rng.one_in(60) {
            self.error_percent = [0, 5, 40, 90][self.rng.below(4) as usize];
        }
        if self.rng.one_in(150) {
            self.silent_tool = !self.silent_tool;
        }
        if self.rng.one_in(if self.is_up { 250 } else { 10 }) {
            self.is_up = !self.is_up;
        }
        if self.is_up {
            let minute = Minute::of(self.now);
            let most = if self.rng.one_in(30) { 1 } else { 5 };
            for _ in 0..self.rng.below(most) {
                let call = self.call();
                self.received.entry(minute).or_default().insert(call.service);
                self.calls.push(call);
            }
            self.received.entry(minute).or_default();
        }
        // What is older than a minute or so settles.
        let fresh = self.rng.below(10) as usize;
        let settled = self.calls.len().saturating_sub(fresh).max(self.settled);
        if self.rng.one_in(3)
            && let Some(rows) = batch(&self.calls[self.settled..settled], true)
        {
            self.settled = settled;
            states.iter_mut().for_each(|state| state.fold(&rows).unwrap());
        }
    }

    fn at(&self) -> At {
        let watermark = if self.is_up { self.now } else { UnixMicros(self.now.0 - 600 * SECOND) };
        At {
            time: self.now,
            steady: self.now,
            position: WalPosition(self.calls.len() as u64),
            watermark,
            clock_behind_us: 0,
        }
    }

    fn evaluate(&self, state: &mut State) -> Figures {
        let live = batch(&self.calls[self.settled..], true);
        let minute = Minute::of(self.now);
        let received: Vec<RecordBatch> =
            self.received.range(Minute(minute.0 - 6)..).map(|(minute, services)| arrivals(*minute, services)).collect();
        let folded = WalPosition(self.settled as u64);
        state.evaluate(&self.at(), folded, live.iter(), &received).unwrap()
    }

    /// A state as it is after a start: from what is committed, and the changes that were written down.
    fn restart(&self, set: &Arc<RuleSet>, changes: &[Change]) -> State {
        let mut state = State::new(0);
        for (minute, services) in &self.received {
            let rows = arrivals(*minute, services);
            state.heartbeats.listen(&rows);
            state.arrivals.add(&rows).unwrap();
        }
        let mut restored = Restored::of_rules();
        restored.add(&rows(changes).unwrap()).unwrap();
        state.book.restore(restored.finish());
        let now = Minute::of(self.now);
        state.take_set(Arc::clone(set), now);
        let mut reading = state.begin_past(now).unwrap();
        if let Some(rows) = batch(&self.calls[..self.settled], false) {
            reading.count(&rows).unwrap();
        }
        state.take_past(reading);
        state
    }

    /// The calls of a selection in a window: all, hits, cost.
    fn recount(&self, selected: impl Fn(&Call) -> bool, hit: Hit, from: Minute) -> (u64, u64, i128) {
        let minutes = from..=Minute::of(self.now);
        let calls = self.calls.iter().filter(|call| call.counted && minutes.contains(&Minute::of(call.end)));
        calls.filter(|call| selected(call)).fold((0, 0, 0), |(calls, hits, cost), call| {
            let is_hit = match hit {
                Hit::Nothing => false,
                Hit::Error => call.failed,
                Hit::Retry => call.attempt > 1,
                Hit::SlowGte(ns) => call.duration_ns >= ns,
                Hit::SlowGt(ns) => call.duration_ns > ns,
            };
            (calls + 1, hits + u64::from(is_hit), cost + call.cost.unwrap_or(0))
        })
    }

    /// Whether the telemetry of a window can be trusted, told minute by minute.
    fn is_stale(&self, window: i64, fed: &BTreeSet<&'static str>) -> bool {
        let at = self.at();
        let recent = (window / 12).max(window.min(5));
        let now = Minute::of(self.now).0;
        let watermark = Minute::of(at.watermark).0;
        let first = self.received.first_key_value().map_or(now, |(minute, _)| minute.0);
        let ended: Vec<i64> = (now - recent..=now).filter(|minute| *minute < watermark && *minute >= first).collect();
        let covered = ended.iter().filter(|minute| self.received.contains_key(&Minute(**minute))).count();
        let silent = |service: &&'static str| {
            let last = self.received.iter().rev().find(|(_, services)| services.contains(service));
            last.is_none_or(|(last, _)| self.now.0 - Minute(last.0 + 1).start().0 > 15 * MINUTE_MICROS)
        };
        self.now.0 - at.watermark.0 > 60 * SECOND
            || covered * 10 < ended.len() * 9
            || !fed.is_empty() && fed.iter().all(silent)
    }
}

/// The values of a call that groups are by.
fn key_of(call: &Call, by: &[&str]) -> Vec<Option<String>> {
    let value = |column: &&str| match *column {
        "tool_name" => call.tool.map(str::to_owned),
        "service_name" => Some(call.service.to_owned()),
        "model" => call.model.map(str::to_owned),
        other => panic!("{other}"),
    };
    by.iter().map(value).collect()
}

/// How the oracle remembers alerts: by rule and group.
type Expected = BTreeMap<(String, Vec<Option<String>>), AlertState>;

#[test]
fn figures_are_those_of_a_recount_and_alerts_those_of_an_oracle() {
    let set = rules(RULES);
    let (mut fired, mut ended, mut stale) = (0, 0, 0);
    for seed in 1..=3 {
        let mut world = World::new(seed);
        let mut states = [world.restart(&set, &[])];
        let mut expected = Expected::new();
        for _ in 0..500 {
            world.step(&mut states);
            let figures = world.evaluate(&mut states[0]);
            let changes = std::mem::take(&mut states[0].book.changes);
            fired += changes.iter().filter(|change| matches!(change.to, AlertState::Firing { .. })).count();
            ended += changes.iter().filter(|change| matches!(change.to, AlertState::Resolved { .. })).count();
            for status in &figures.thresholds {
                let rule = &status.rule;
                let Measure::Calls(_) = rule.measure else { panic!("no sessions here") };
                let minutes = rule.window.at(Minute::of(world.now));
                let selection = &rule.selection;
                let is_wanted = |call: &Call| {
                    (selection.calls == Calls::All || call.kind == selection.calls.as_str())
                        && (!selection.final_only || call.is_final)
                        && (selection.filter.is_none() || call.tool.is_some_and(|tool| tool != "c"))
                };
                // All groups of whose calls something is known, or was an alert.
                let in_window = world
                    .calls
                    .iter()
                    .filter(|call| call.counted && is_wanted(call) && minutes.contains(&Minute::of(call.end)));
                let mut keys: BTreeSet<Vec<Option<String>>> =
                    in_window.clone().map(|call| key_of(call, &selection.by)).collect();
                if selection.groups_max == 2 {
                    // Which of them are named depends on who came first; together they are all.
                    let all: u64 = status.groups.iter().map(|group| group.sums.calls).sum();
                    assert_eq!(all, in_window.count() as u64, "seed {seed}");
                    assert!(status.groups.len() <= 3);
                    continue;
                }
                keys.extend(expected.keys().filter(|(name, _)| *name == rule.header.name).map(|(_, key)| key.clone()));
                if selection.by.is_empty() {
                    keys.insert(Vec::new());
                }
                for key in keys {
                    let own = |call: &Call| is_wanted(call) && key_of(call, &selection.by) == key;
                    let (calls, hits, cost) = world.recount(own, selection.hit, *minutes.start());
                    let found = status.groups.iter().find(|group| {
                        group.key.iter().map(|value| value.as_deref().map(str::to_owned)).eq(key.iter().cloned())
                    });
                    let sums = found.map(|found| found.sums).unwrap_or_default();
                    assert_eq!(
                        (sums.calls, sums.hits, sums.cost),
                        (calls, hits, cost),
                        "seed {seed}, {}",
                        rule.header.name
                    );
                    // The same in floating point, away from the edges, or in whole numbers.
                    let reached = calls >= rule.events_min
                        && match rule.header.name.as_str() {
                            "errors" => hits * 10 >= calls * 3,
                            "errors-for" => hits * 5 >= calls,
                            "slow" => {
                                let rank = (calls * 9).div_ceil(10).max(1);
                                hits > calls - rank
                            }
                            "retries" => hits * 10 > calls,
                            "burn" => hits * 10 >= calls * 2,
                            "models" => hits * 10 >= calls * 3,
                            "spending" => cost * 6 >= 900_000_000,
                            other => panic!("{other}"),
                        };
                    let fed = world
                        .calls
                        .iter()
                        .filter(|call| call.counted && own(call) && minutes.contains(&Minute::of(call.end)));
                    let fed: BTreeSet<&'static str> = fed.map(|call| call.service).collect();
                    let evaluation = if world.is_stale(rule.window.minutes().into(), &fed) {
                        stale += 1;
                        Evaluation::Stale
                    } else if calls == 0 {
                        Evaluation::Idle
                    } else {
                        Evaluation::Ok
                    };
                    let observation = Observation { evaluation, burns: reached && calls > 0, long_total: calls };
                    let pending_us = if rule.header.name == "errors-for" { 3 * MINUTE_MICROS } else { 0 };
                    let state = expected.entry((rule.header.name.clone(), key.clone())).or_default();
                    let patience = Patience { pending_us, keep_firing_us: 0 };
                    *state = step(*state, &observation, patience, world.now).0;
                    let found = found.map_or_else(
                        || {
                            // Groups without calls are told by their alerts alone.
                            let alerts = states[0].book.status();
                            let alert = alerts.iter().find(|alert| {
                                alert.labels.get("slo") == Some(&rule.header.name)
                                    && selection.by.iter().zip(&key).all(|(column, value)| {
                                        let label = if *column == "tool_name" { "tool" } else { "service" };
                                        alert.labels.get(label) == value.as_ref()
                                    })
                            });
                            alert.map_or(AlertState::Inactive, |alert| alert.state)
                        },
                        |found| found.state,
                    );
                    assert_eq!(found, *state, "seed {seed}, {} {key:?} at {:?}", rule.header.name, world.now);
                }
            }
            for status in &figures.budgets {
                let [group] = &status.groups[..] else { panic!("it is not grouped") };
                // Midnight in Berlin: 23:00 UTC, and 22:00 from the 29th on.
                let hour = 3_600 * SECOND;
                let midnights = [BEGIN.0 - 13 * hour, BEGIN.0 + 11 * hour, BEGIN.0 + 34 * hour, BEGIN.0 + 58 * hour];
                let start = midnights.into_iter().rfind(|midnight| *midnight <= world.now.0).unwrap();
                assert_eq!(group.spending.start.start().0, start);
                let (calls, _, cost) = world.recount(|call| call.kind != "agent", Hit::Nothing, group.spending.start);
                assert_eq!((group.sums.calls, group.spending.spent), (calls, cost), "seed {seed}");
                let six_hours = *Window::H6.at(Minute::of(world.now)).start();
                let (_, _, recent) = world.recount(|_| true, Hit::Nothing, six_hours);
                assert_eq!(group.spending.recent, recent);
            }
        }
    }
    assert!(fired > 15 && ended > 10 && stale > 30, "{fired} {ended} {stale}");
}

/// Scenario: a run that is stopped and started anew at random moments, beside one that never is. Guarantees: all alerts have the same states
/// and start times after each evaluation.
#[test]
fn a_restart_at_any_moment_changes_nothing() {
    let set = rules(RULES);
    let (mut restarts, mut firing, mut silent) = (0, 0, 0);
    for seed in 100..103 {
        let mut world = World::new(seed);
        let mut states = [world.restart(&set, &[]), world.restart(&set, &[])];
        let mut written: Vec<Change> = Vec::new();
        for _ in 0..700 {
            world.step(&mut states);
            if world.rng.one_in(50) {
                states[1] = world.restart(&set, &written);
                restarts += 1;
            }
            world.evaluate(&mut states[0]);
            world.evaluate(&mut states[1]);
            states[0].book.changes.clear();
            written.append(&mut states[1].book.changes);
            let known = |state: &State| -> Vec<(BTreeMap<String, String>, AlertState)> {
                // Which models are named depends on who came first.
                let alerts = state.book.status().into_iter().filter(|alert| !alert.labels.contains_key("model"));
                alerts.map(|alert| ((*alert.labels).clone(), alert.state)).collect()
            };
            let (one, two) = (known(&states[0]), known(&states[1]));
            assert_eq!(one, two, "seed {seed} at {:?}", world.now);
            firing += one.iter().filter(|(_, state)| matches!(state, AlertState::Firing { .. })).count();
            silent += one.iter().filter(|(labels, _)| labels["alertname"] == "ToolSilent").count();
        }
    }
    assert!(restarts > 20 && firing > 50 && silent > 10, "{restarts} {firing} {silent}");
}

/// Scenario: a week of calls by day, every minute from 8 to 18 o'clock, of a service with one tool, which then fall silent on a Wednesday at noon.
/// Guarantees: no night is told, the silence is when it is twice as long as the longest night, and it ends when it is heard again, or after 14 days.
#[test]
fn nights_are_silent_and_nobody_is_told() {
    let set = rules("");
    let mut world = World::new(1);
    let mut state = world.restart(&set, &[]);
    let begin = BEGIN.0 - 12 * 3_600 * SECOND;
    let mut told = Vec::new();
    for minute in 0..24 * 1_440_i64 {
        world.now = UnixMicros(begin + minute * MINUTE_MICROS);
        let (day, hour) = (minute / 1_440, minute / 60 % 24);
        let services = BTreeSet::from(["shop"]);
        world.received.insert(Minute::of(world.now), services);
        world.received.retain(|received, _| received.0 > Minute::of(UnixMicros(begin)).0 + minute - 10);
        if (8..18).contains(&hour) && day < 9 {
            let mut call = world.call();
            (call.kind, call.service, call.tool, call.counted) = ("tool", "shop", Some("a"), true);
            call.end = world.now;
            state.fold(&batch([&call], true).unwrap()).unwrap();
        }
        if minute % 5 == 0 {
            let calls = std::mem::take(&mut world.calls);
            world.settled = 0;
            world.evaluate(&mut state);
            world.calls = calls;
        }
        for change in state.book.changes.drain(..) {
            told.push((minute, change.to.as_str(), change.reason, change.id.label("tool").map(str::to_owned)));
        }
    }
    // The nights have 14 hours less the two minutes between which they lie; the last call is at 17:59 of the ninth day.
    let last = 8 * 1_440 + 17 * 60 + 59;
    let night = 14 * 60;
    let fires = (last + 2 * night + 1..).find(|minute| minute % 5 == 0).unwrap();
    let (fires_found, ..) = told[0].clone();
    assert!((fires..=fires + 5).contains(&fires_found), "{told:?}, expected {fires}");
    let words: Vec<(&str, &str, Option<&str>)> =
        told.iter().map(|(_, state, reason, tool)| (*state, *reason, tool.as_deref())).collect();
    assert_eq!(words.len(), 6, "{told:?}");
    assert_eq!(words.iter().filter(|word| word.0 == "firing" && word.1 == "burning").count(), 2);
    assert_eq!(words.iter().filter(|word| word.0 == "resolved" && word.1 == "retired").count(), 2);
    assert_eq!(words.iter().filter(|word| word.2 == Some("a")).count(), 3);
    let ended = told.iter().find(|change| change.1 == "resolved").unwrap().0;
    assert!((last + 14 * 1_440..last + 14 * 1_440 + 10).contains(&ended), "{told:?}");
}
