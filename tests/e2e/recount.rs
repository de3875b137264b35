//! One recount from every source: SQL over `calls` and over `calls_1m`, the API, and Polars over the files say what a model says that knows only
//! what was sent.

use std::collections::BTreeMap;
use std::io::Write as _;

use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;
use serde_json::Value;
use toolgauge::config::Time;
use toolgauge_proto::api::LatencyReport;
use toolgauge_proto::api::slo::{BurnRates, SloDetail, SloReport, SlosReport};
use toolgauge_proto::time::{MINUTE_MICROS, UnixMicros};
use toolgauge_queries::json::rfc3339;

use crate::kill::Rng;
use crate::python_sdk::script;
use crate::sandbox::{LIMIT, close, numbers, until};
use crate::slo_world::{SECOND, World};
use crate::traffic::{failed, request, text, tool_span};

/// Over a leap day, and over the ends of a month and of a year.
const STARTS: [&str; 3] = ["2028-02-28T23:50:00Z", "2026-10-31T23:35:00Z", "2026-12-31T23:45:00Z"];
const ROUNDS: u64 = 24;
/// The SLOs, both 99 %: one of every attempt, one of what became of the calls.
const SLOS: [(&str, bool); 2] = [("attempts", false), ("calls", true)];
const WINDOWS: [(&str, i64); 8] = [
    ("5m", 5),
    ("30m", 30),
    ("1h", 60),
    ("2h", 120),
    ("6h", 360),
    ("1d", 1_440),
    ("3d", 3 * 1_440),
    ("30d", 30 * 1_440),
];
const PERCENTS: [u64; 4] = [50, 90, 95, 99];

fn slo(name: &str, mode: &str) -> String {
    format!(
        "---
apiVersion: openslo/v1
kind: SLO
metadata: {{name: {name}, annotations: {{toolgauge/mode: {mode}}}}}
spec:
  service: shop
  indicator:
    spec:
      ratioMetric:
        good:
          metricSource: {{type: toolgauge, spec: {{where: outcome = 'ok'}}}}
        total:
          metricSource: {{type: toolgauge, spec: {{where: kind = 'tool' AND tool_name = 'search'}}}}
  timeWindow: [{{duration: 30d, isRolling: true}}]
  budgetingMethod: Occurrences
  objectives: [{{target: 0.99}}]
"
    )
}

/// An attempt of `search`, as the model knows it.
#[derive(Debug, Clone, Copy)]
struct Attempt {
    end_us: i64,
    duration_ns: u64,
    ok: bool,
    last: bool,
}

/// What was sent of `search`.
#[derive(Debug, Default)]
struct Model(Vec<Attempt>);

impl Model {
    /// Good and bad ones of whole minutes, the last of which holds `now`.
    fn over(&self, now: i64, minutes: i64, only_last: bool) -> [u64; 2] {
        let running = now - now.rem_euclid(MINUTE_MICROS);
        let from = running - minutes * MINUTE_MICROS;
        let counted = |ok: bool| {
            let attempts =
                self.0.iter().filter(|attempt| attempt.end_us >= from && attempt.end_us < running + MINUTE_MICROS);
            attempts.filter(|attempt| attempt.ok == ok && (attempt.last || !only_last)).count() as u64
        };
        [counted(true), counted(false)]
    }

    /// Good and bad ones by the minute, in microseconds.
    fn minutes(&self, only_last: bool) -> BTreeMap<i64, [u64; 2]> {
        let mut minutes = BTreeMap::<i64, [u64; 2]>::new();
        for attempt in self.0.iter().filter(|attempt| attempt.last || !only_last) {
            let counts = minutes.entry(attempt.end_us - attempt.end_us.rem_euclid(MINUTE_MICROS)).or_default();
            counts[usize::from(!attempt.ok)] += 1;
        }
        minutes
    }

    /// Nearest rank: the least duration that so many percent are not above, and how many there are.
    fn quantiles(&self, from: i64, to: i64) -> (Vec<u64>, usize) {
        let within = self.0.iter().filter(|attempt| (from..to).contains(&attempt.end_us));
        let mut durations: Vec<u64> = within.map(|attempt| attempt.duration_ns).collect();
        durations.sort_unstable();
        let rank = |percent: u64| (durations.len() * percent as usize).div_ceil(100).max(1) - 1;
        (PERCENTS.map(|percent| durations[rank(percent)]).to_vec(), durations.len())
    }
}

/// A number of hundredths, as it is written.
fn hundredths(number: i64) -> String {
    let (sign, digits) = (if number < 0 { "-" } else { "" }, number.unsigned_abs());
    let text = format!("{sign}{}.{:02}", digits / 100, digits % 100);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

struct Sender {
    rng: Rng,
    model: Model,
    calls: u64,
    /// Spans and exports that may be sent once more.
    sent: Vec<Span>,
    bodies: Vec<Vec<u8>>,
}

impl Sender {
    /// The attempts of one call: each but the last fails, and the next one begins a while later.
    fn call(&mut self, ends_at: i64) -> Vec<Span> {
        self.calls += 1;
        let tool = *self.rng.one_of(&["search", "search", "search", "charge"]);
        let attempts = if self.rng.below(5) == 0 { 2 + self.rng.below(2) } else { 1 };
        let succeeds = self.rng.below(6) > 0;
        let mut end_ns = u64::try_from(ends_at).unwrap() * 1_000;
        let mut spans = Vec::new();
        for number in (0..attempts).rev() {
            // From a microsecond to some seconds, as many in each decade.
            let decade = 10_u64.pow(3 + self.rng.below(7) as u32);
            let duration_ns = decade + self.rng.below(if decade == 1_000_000_000 { 3 * decade } else { 9 * decade });
            let (last, start) = (number + 1 == attempts, end_ns - duration_ns);
            let ok = last && succeeds;
            let mut span = tool_span(tool, self.calls, number, start, duration_ns);
            if attempts > 1 {
                span.attributes.push(text("gen_ai.tool.call.id", &format!("call-{}", self.calls)));
            }
            spans.push(if ok { span } else { failed(span, "TimeoutError") });
            if tool == "search" {
                let end_us = i64::try_from(end_ns / 1_000).unwrap();
                self.model.0.push(Attempt { end_us, duration_ns, ok, last });
            }
            end_ns = start - self.rng.below(3_000_000_000);
        }
        spans
    }

    /// The exports of a round: calls of the time since the last one, late ones, spans and exports that came before; in any order.
    fn round(&mut self, from: i64, to: i64) -> Vec<Vec<u8>> {
        let mut spans = Vec::new();
        for _ in 0..self.rng.below(24) {
            let late = if self.rng.below(6) == 0 { self.rng.below(10 * 3_600_000_000) as i64 } else { 0 };
            let at = from + self.rng.below((to - from).unsigned_abs()) as i64 - late;
            spans.extend(self.call(at));
        }
        self.sent.extend(spans.iter().cloned());
        for _ in 0..self.rng.below(4) {
            if !self.sent.is_empty() {
                spans.push(self.rng.one_of(&self.sent).clone());
            }
        }
        self.rng.shuffle(&mut spans);
        let mut exports = Vec::new();
        while !spans.is_empty() {
            let some = spans.split_off(spans.len() - (1 + self.rng.below(spans.len() as u64) as usize));
            exports.push(request("shop-agent", some).encode_to_vec());
        }
        self.bodies.extend(exports.iter().cloned());
        if self.rng.below(3) == 0 && !self.bodies.is_empty() {
            exports.push(self.rng.one_of(&self.bodies).clone());
        }
        self.rng.shuffle(&mut exports);
        exports
    }
}

/// Scenario: some hundred calls at random: retried, late by up to ten hours, doubled in the same and in later exports, whole exports sent again, shuffled, over
/// midnights that end a month, a year, or come before a leap day. Guarantees: when all is committed, the windows of SLOs that count
/// attempts and of SLOs that count calls are those of the model by SQL over `calls`, `calls_1m` and `slo_1m`, by the API and by Polars over `calls`, `calls_1m`
/// and `slo_1m`; so are budgets and burn rates, to the last digit; quantiles are the same from all of our sources, and those of the model within
/// what histograms promise; Polars' are exact.
#[tokio::test(flavor = "multi_thread")]
async fn sql_sums_the_api_and_polars_say_what_a_model_says() {
    let base: u64 = std::env::var("TOOLGAUGE_TEST_RECOUNT_SEED").map_or(0, |seed| seed.parse().unwrap());
    for (number, start) in STARTS.into_iter().enumerate() {
        let seed = base + number as u64 + 1;
        drop(writeln!(std::io::stderr(), "seed {seed} from {start}"));
        let slos: String =
            SLOS.iter().map(|(name, last)| slo(name, if *last { "logical" } else { "attempt" })).collect();
        let mut world = World::start(start, &slos, &[]).await;
        // Sums are written with the rows they are of.
        world = world.with(|config| config.lake.fold_interval = Time(std::time::Duration::ZERO)).await;
        let mut sender =
            Sender { rng: Rng(seed), model: Model::default(), calls: 0, sent: Vec::new(), bodies: Vec::new() };
        for _ in 0..ROUNDS {
            let from = world.now().0;
            world.advance(15 + sender.rng.below(90) as i64);
            for body in sender.round(from, world.now().0) {
                world.export(&body).await;
            }
        }
        // Once while rows are live, once when all are committed.
        by_api(&world, &sender.model).await;
        committed(&mut world).await;
        by_api(&world, &sender.model).await;
        by_sql(&world, &sender.model).await;
        latencies(&world, &sender.model).await;
        by_polars(&world, &sender.model).await;
        world.stop().await;
    }
}

/// Waits until every row, and every sum of it, is in the tables.
async fn committed(world: &mut World) {
    world.advance(40);
    // No call, and unlike all others: time in the log goes on with what is received.
    let span = Span { name: "GET /".to_owned(), trace_id: vec![7; 16], span_id: vec![7; 8], ..Span::default() };
    world.export(&request("nudge", vec![span]).encode_to_vec()).await;
    until(LIMIT, "every row is committed", async || (world.api.status().await.ingest.live_rows == 0).then_some(()))
        .await;
    world.evaluated().await;
}

async fn reports(world: &World) -> Vec<SloReport> {
    let report: SlosReport = world.evaluated().await;
    assert_eq!(report.slos.len(), SLOS.len());
    report.slos
}

async fn by_api(world: &World, model: &Model) {
    let now = world.now().0;
    let slos = reports(world).await;
    let text = world.api.get("/api/v1/burn-rates").await.text;
    let rates: BurnRates = serde_json::from_str(&text).unwrap();
    let mut exact = numbers(&text, "rate").into_iter();
    for (slo, (name, last)) in slos.into_iter().zip(SLOS) {
        assert_eq!(slo.slo, name);
        let [good, bad] = model.over(now, 30 * 1_440, last);
        let total = good + bad;
        assert!(total > 100 && bad > 10, "{total} {bad}");
        assert_eq!([slo.good, slo.bad, slo.total], [good, bad, total], "{name}");
        assert!(close(slo.sli, good as f64 / total as f64), "{name}: {slo:?}");
        // A hundredth of all events is allowed.
        let [allowed, left] = [total as i64, total as i64 - 100 * bad as i64];
        assert_eq!([&slo.budget.allowed, &slo.budget.remaining], [&hundredths(allowed), &hundredths(left)], "{name}");
        assert_eq!(slo.budget.spent, bad, "{name}");
        assert!(close(slo.budget.remaining_ratio, left as f64 / allowed as f64), "{name}: {slo:?}");
        assert_eq!(
            slo.burn_rates.iter().map(|rate| rate.window.as_str()).collect::<Vec<_>>(),
            WINDOWS.map(|(name, _)| name)
        );
        let others = rates.burn_rates.iter().filter(|rate| rate.slo == name).map(|rate| &rate.burn_rate);
        assert_eq!(others.collect::<Vec<_>>(), slo.burn_rates.iter().collect::<Vec<_>>(), "{name}");
        for (rate, (window, minutes)) in slo.burn_rates.iter().zip(WINDOWS) {
            let [good, bad] = model.over(now, minutes, last);
            assert_eq!([rate.good, rate.bad, rate.total], [good, bad, good + bad], "{name} over {window}");
            // The integers are exact, and a division of doubles is the nearest to the exact quotient.
            let expected = (good + bad > 0).then(|| (100 * bad) as f64 / (good + bad) as f64);
            assert_eq!(exact.next(), Some(expected), "{name} over {window}");
        }
        let from = now - 14 * 60 * MINUTE_MICROS;
        let path =
            format!("/api/v1/slos/shop/{name}?from={}&to={}", rfc3339(UnixMicros(from)), rfc3339(UnixMicros(now)));
        let detail: SloDetail = serde_json::from_str(&world.api.get(&path).await.text).unwrap();
        assert_eq!(detail.series.step_s, 60);
        let points = detail.series.points.iter();
        let points = points.map(|point| (crate::slo_world::chrono_micros(&point.time), [point.good, point.bad]));
        assert_eq!(points.collect::<BTreeMap<_, _>>(), model.minutes(last), "{name} by the minute");
    }
}

/// The counts that a query gives: of good and bad ones.
async fn counts(world: &World, query: &str) -> [u64; 2] {
    let row = world.api.row(query).await;
    [&row[0], &row[1]].map(|count| count.as_u64().unwrap_or(0))
}

async fn by_sql(world: &World, model: &Model) {
    let now = world.now().0;
    let slos = reports(world).await;
    for (slo, (name, last)) in slos.iter().zip(SLOS) {
        let revision = slo.revision.as_deref().unwrap();
        let finals = if last { "AND final" } else { "" };
        until(LIMIT, "slo_1m has all minutes", async || {
            let of = format!("FROM slo_1m WHERE slo = '{name}' AND slo_revision = '{revision}'");
            let sums = counts(world, &format!("SELECT sum(good), sum(bad) {of}")).await;
            (sums == model.over(now, 30 * 1_440, last)).then_some(())
        })
        .await;
        for (window, minutes) in WINDOWS {
            let running = now - now.rem_euclid(MINUTE_MICROS);
            let [from, to] =
                [running - minutes * MINUTE_MICROS, running + MINUTE_MICROS].map(|at| rfc3339(UnixMicros(at)));
            let expected = model.over(now, minutes, last);
            let calls = format!(
                "SELECT count(*) FILTER (WHERE outcome = 'ok'), count(*) FILTER (WHERE outcome = 'error') FROM calls
                WHERE kind = 'tool' AND counted AND tool_name = 'search' {finals} AND end_time >= '{from}' AND end_time < '{to}'"
            );
            assert_eq!(counts(world, &calls).await, expected, "{name} over {window} from calls");
            let sums = format!(
                "SELECT sum(calls) FILTER (WHERE outcome = 'ok'), sum(calls) FILTER (WHERE outcome = 'error') FROM calls_1m
                WHERE kind = 'tool' AND counted AND tool_name = 'search' {finals} AND minute >= '{from}' AND minute < '{to}'"
            );
            assert_eq!(counts(world, &sums).await, expected, "{name} over {window} from calls_1m");
            let cached = format!(
                "SELECT sum(good), sum(bad) FROM slo_1m WHERE slo = '{name}' AND slo_revision = '{revision}'
                AND minute >= '{from}' AND minute < '{to}'"
            );
            assert_eq!(counts(world, &cached).await, expected, "{name} over {window} from slo_1m");
        }
    }
}

async fn latencies(world: &World, model: &Model) {
    let now = world.now().0;
    let running = now - now.rem_euclid(MINUTE_MICROS);
    // Reports take short ranges from calls, longer ones from sums per minute, the longest from those per hour.
    for minutes in [60, 5 * 60, 14 * 60] {
        let (start, end) = (running - minutes * MINUTE_MICROS, running + MINUTE_MICROS);
        let (exact, attempts) = model.quantiles(start, end);
        let [from, to] = [start, end].map(|at| rfc3339(UnixMicros(at)));
        let report = world.api.get(&format!("/api/v1/latency?tool=search&from={from}&to={to}")).await;
        let report: LatencyReport =
            serde_json::from_str(&report.text).unwrap_or_else(|error| panic!("{error}: {report:?}"));
        assert_eq!(report.attempts, attempts as u64);
        let latency = report.latency.unwrap();
        let reported = [latency.p50_ms, latency.p90_ms, latency.p95_ms, latency.p99_ms];
        let of = "WHERE kind = 'tool' AND counted AND tool_name = 'search' AND";
        let each = |what: &dyn Fn(u64) -> String| PERCENTS.map(what).join(", ");
        let calls = each(&|percent| format!("latency_quantile(duration_ns, 0.{percent})"));
        let calls = format!("SELECT {calls} FROM calls {of} end_time >= '{from}' AND end_time < '{to}'");
        let sums = each(&|percent| format!("hdr_quantile(hdr_merge(latency), 0.{percent})"));
        let sums = format!("SELECT {sums} FROM calls_1m {of} minute >= '{from}' AND minute < '{to}'");
        let (calls, sums) = (world.api.row(&calls).await, world.api.row(&sums).await);
        assert_eq!(calls, sums, "over {minutes} minutes");
        for ((found, exact), reported) in calls.iter().zip(&exact).zip(reported) {
            let found = found.as_u64().unwrap();
            assert_eq!(reported, found as f64 / 1e6, "over {minutes} minutes");
            // Never below, above by at most a thousandth or two microseconds.
            let most = exact + (exact / 1_000).max(2_000);
            assert!((*exact..=most).contains(&found), "{found} is not {exact} over {minutes} minutes");
        }
    }
}

async fn by_polars(world: &World, model: &Model) {
    let now = world.now().0;
    let lake = world.config.data.join("lake").display().to_string();
    let read = script("read_delta.py", &[lake, "search".to_owned(), now.to_string()], &[]).await;
    let windows = &read["windows"];
    for (slo, (name, last)) in reports(world).await.iter().zip(SLOS) {
        let revision = slo.revision.as_deref().unwrap();
        for (window, minutes) in WINDOWS {
            let expected = Value::from(model.over(now, minutes, last).to_vec());
            let found = &windows[window];
            for table in ["calls", "calls_1m"] {
                assert_eq!(found[table][name], expected, "{name} over {window} from {table}, by Polars");
            }
            assert_eq!(found["slo_1m"][name][revision], expected, "{name} over {window} from slo_1m, by Polars");
        }
    }
    let (exact, attempts) = model.quantiles(i64::MIN, i64::MAX);
    assert_eq!(read["quantiles_ns"], Value::from(exact));
    assert_eq!(model.0.len(), attempts);
    assert!(now - model.0.iter().map(|attempt| attempt.end_us).min().unwrap() > 3_600 * SECOND, "some were late");
}
