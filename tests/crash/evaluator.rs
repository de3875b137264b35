//! The evaluator of SLOs over the collector on its threads, on one simulated disk: what it has counted, said and written down, over crashes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use arrow::array::{Array as _, AsArray, RecordBatch};
use arrow::datatypes::{Int64Type, TimestampMicrosecondType};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use toolgauge_analytics::window::{Minute, Window};
use toolgauge_collector::export::{Export, Sink as _};
use toolgauge_collector::fs::Fs;
use toolgauge_collector::fs::sim::{SimFs, SimRng, Survival};
use toolgauge_collector::pipeline::Collector;
use toolgauge_proto::lake::Lake;
use toolgauge_proto::table::Table;
use toolgauge_proto::time::{Clock, UnixMicros};
use toolgauge_queries::engine::Settings;
use toolgauge_queries::evaluate::{AlertStatus, EvaluateSettings, Evaluated, Evaluator};
use toolgauge_queries::json::rfc3339;
use toolgauge_queries::notify::{Notifier, Targets};

use crate::anew::remove;
use crate::crashes::random_survival;
use crate::machine::{RUNTIME, fresh_disk, settings};
use crate::rows::in_schema;
use crate::spans::{SpanOf, export};
use crate::threads::{AT_US, LIMIT, Set, rows};
use crate::{each, runs};

/// The calls of one tool, 99 %, counted in this way.
fn slo(name: &str, mode: &str) -> String {
    format!(
        "---
apiVersion: openslo/v1
kind: SLO
metadata: {{name: {name}, annotations: {{toolgauge/mode: {mode}}}}}
spec:
  service: shop
  indicator: {{spec: {{ratioMetric: {{
    good: {{metricSource: {{type: toolgauge, spec: {{where: outcome = 'ok'}}}}}},
    total: {{metricSource: {{type: toolgauge, spec: {{where: tool_name = 'search'}}}}}}}}}}}}
  timeWindow: [{{duration: 30d, isRolling: true}}]
  budgetingMethod: Occurrences
  objectives: [{{target: 0.99}}]
"
    )
}

/// An export every so often, with so many calls, of which those of some steps fail.
const STEP_US: i64 = 20_000_000;
const STEPS: u64 = 40;
const CALLS: u64 = 10;
const OUTAGE: std::ops::Range<u64> = 8..14;
const CRASHES: u64 = 4;
/// A crash is within so many operations of a start; a life has more.
const OPERATIONS: usize = 400;
const WINDOWS: [Window; 3] = [Window::M5, Window::H1, Window::D30];

/// An Alertmanager that takes everything.
struct Alertmanager {
    url: String,
    sent: Arc<Mutex<Vec<Value>>>,
}

impl Alertmanager {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let sent: Arc<Mutex<Vec<Value>>> = Arc::default();
        let taken = Arc::clone(&sent);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                if let Some(alerts) = take(stream).await {
                    taken.lock().unwrap().extend(alerts);
                }
            }
        });
        Self { url, sent }
    }

    /// By labels: the start times of pages and tickets, as they were sent.
    fn starts(&self) -> BTreeMap<String, BTreeSet<String>> {
        let mut starts: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for alert in self.sent.lock().unwrap().iter().filter(|alert| alert["labels"]["alertname"] == "ErrorBudgetBurn")
        {
            let labels = alert["labels"].to_string();
            starts.entry(labels).or_default().insert(alert["startsAt"].as_str().unwrap().to_owned());
        }
        starts
    }
}

/// The alerts of one request, which is answered; `None` if it was broken off.
async fn take(mut stream: TcpStream) -> Option<Vec<Value>> {
    let mut read = Vec::new();
    loop {
        if stream.read_buf(&mut read).await.ok()? == 0 {
            return None;
        }
        let Some(head) = read.windows(4).position(|bytes| bytes == b"\r\n\r\n") else { continue };
        let text = String::from_utf8_lossy(&read[..head]).to_lowercase();
        let length: usize = text.lines().find_map(|line| line.strip_prefix("content-length: "))?.parse().ok()?;
        if let Some(body) = read.get(head + 4..head + 4 + length) {
            let alerts = serde_json::from_slice(body).ok()?;
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").await.ok()?;
            return Some(alerts);
        }
    }
}

/// The machine is down.
#[derive(Debug)]
struct Down;

/// What outlives a crash, but for the disk.
struct World {
    clock: Arc<Set>,
    slos: PathBuf,
    manager: Alertmanager,
    /// Good and bad calls that were acknowledged.
    acknowledged: [u64; 2],
    /// An export that was sent and not acknowledged, and its calls; it is sent again.
    open: Option<(Export, [u64; 2])>,
    step: u64,
}

/// Collector and evaluator.
struct Running {
    fs: Arc<SimFs>,
    collector: Option<Collector>,
    lake: Arc<dyn Lake>,
    evaluator: Arc<Evaluator>,
}

impl Running {
    fn start(fs: &Arc<SimFs>, world: &World) -> Result<Self, Down> {
        let mut settings = settings();
        // The log has only what is sent, so that operations are those of writing, committing and merging.
        settings.wal.tick_interval_us = u64::MAX;
        settings.commit_interval_us = 0;
        settings.publish_interval_us = 1_000;
        settings.compact.interval_us = 5_000;
        let dynamic: Arc<dyn Fs> = Arc::<SimFs>::clone(fs);
        let clock: Arc<dyn Clock> = Arc::<Set>::clone(&world.clock);
        let collector = Collector::start(settings, dynamic, Arc::clone(&clock), RUNTIME.handle());
        let collector = collector.map_err(|error| {
            assert!(fs.is_down(), "it does not start: {error}");
            Down
        })?;
        let lake = collector.lake();
        let settings = EvaluateSettings {
            slos: vec![world.slos.clone()],
            interval: Duration::from_millis(1),
            flush_interval: Duration::from_millis(5),
            proof_interval: Duration::from_millis(50),
            ..EvaluateSettings::default()
        };
        let targets = Targets::parse(std::slice::from_ref(&world.manager.url)).unwrap();
        let notifier = Notifier::start(targets, Duration::from_secs(5), RUNTIME.handle()).unwrap();
        // It remembers files, and is gone with the process.
        let engine = Arc::new(toolgauge_queries::tables::engine(Settings::default()).unwrap());
        let of_lake = Arc::clone(&lake);
        let evaluator = RUNTIME.block_on(Evaluator::start(settings, of_lake, engine, clock, notifier)).unwrap();
        Ok(Self { fs: Arc::clone(fs), collector: Some(collector), lake, evaluator })
    }

    fn is_down(&self) -> bool {
        self.fs.is_down() || self.collector.as_ref().is_none_or(Collector::is_stopped)
    }

    /// Looks until something is there, or the machine is down.
    fn until<T>(&self, what: &str, look: impl Fn() -> Option<T>) -> Result<T, Down> {
        let began = Instant::now();
        loop {
            if let Some(found) = look() {
                return Ok(found);
            }
            if self.is_down() {
                return Err(Down);
            }
            assert!(began.elapsed() < LIMIT, "not within {LIMIT:?}: {what}; {}", self.state());
            std::thread::yield_now();
        }
    }

    fn state(&self) -> String {
        let (evaluated, view, status) = (self.evaluator.evaluated(), self.lake.view(), self.lake.status());
        let slos: Vec<_> = evaluated.slos.iter().map(|slo| (slo.evaluation.as_str(), slo.revision.clone())).collect();
        let positions = (status.wal_synced, view.position, view.settled, view.committed);
        format!("evaluated at {:?}: {slos:?}; synced, visible, settled, committed: {positions:?}", evaluated.at)
    }

    /// An evaluation of all that is in the log, at this time.
    fn evaluated(&self, world: &World) -> Result<Arc<Evaluated>, Down> {
        let (time, position) = (world.clock.now(), self.lake.status().wal_synced);
        self.until("everything is evaluated", || {
            let evaluated = self.evaluator.evaluated();
            let is_new = evaluated.at.is_some_and(|at| at.time == time && at.position.0 >= position);
            let learns = evaluated.slos.iter().any(|slo| slo.evaluation.as_str() == "learning");
            (is_new && !learns).then_some(evaluated)
        })
    }

    /// Sends what is open, or the calls of the next step.
    fn send(&self, world: &mut World) -> Result<(), Down> {
        if world.open.is_none() {
            world.clock.set(world.clock.now().0 + STEP_US);
            let fails = OUTAGE.contains(&world.step);
            let end = world.clock.now().0;
            let spans = (0..CALLS).map(|call| {
                let number = 1 + world.step * CALLS + call;
                let span = SpanOf::tool(number, number, 0, "search").at(end - 2_000 - call as i64, end - call as i64);
                span.failed(fails.then_some("timeout")).0
            });
            let calls = if fails { [0, CALLS] } else { [CALLS, 0] };
            world.open = Some((export("agent", spans.collect()), calls));
            world.step += 1;
        }
        let Some((export, calls)) = &world.open else { return Ok(()) };
        let Some(collector) = &self.collector else { return Err(Down) };
        let sent = RUNTIME.block_on(collector.sink().append(export.clone()));
        if let Err(error) = sent {
            self.until(&format!("it refuses: {error}"), || None::<()>)?;
        }
        (0..2).for_each(|which| world.acknowledged[which] += calls[which]);
        world.open = None;
        Ok(())
    }

    /// Windows are what a recount of the calls says, which has each acknowledged call once; what was sent keeps its start.
    fn check(&self, world: &World, evaluated: &Evaluated) -> Result<(), Down> {
        let view = self.lake.view();
        let calls = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| rows(&view, Table::Calls)));
        let calls = match calls {
            Ok(calls) => in_schema(Table::Calls, &calls),
            // Files cannot be read any more.
            Err(_) if self.is_down() => return Err(Down),
            Err(panic) => std::panic::resume_unwind(panic),
        };
        let open = world.open.as_ref().map_or([0, 0], |(_, calls)| *calls);
        let now = Minute::of(world.clock.now());
        let all = recount(&calls, Window::D30, now);
        for which in 0..2 {
            let (least, most) = (world.acknowledged[which], world.acknowledged[which] + open[which]);
            assert!((least..=most).contains(&all[which]), "{all:?} of {:?} and {open:?}", world.acknowledged);
        }
        assert_eq!(evaluated.slos.len(), 2);
        for status in &evaluated.slos {
            for window in WINDOWS {
                let (_, counts) = status.windows.iter().find(|(known, _)| *known == window).unwrap();
                assert_eq!([counts.good, counts.bad], recount(&calls, window, now), "{window} at {now:?}");
            }
            assert_eq!([status.events.good, status.events.bad], all);
        }
        for (labels, starts) in world.manager.starts() {
            let alert = evaluated.alerts.iter().find(|alert| labels_of(alert) == labels);
            let now = alert.and_then(|alert| alert.state.starts_at()).map(rfc3339);
            assert_eq!(starts.into_iter().collect::<Vec<_>>(), Vec::from_iter(now), "{labels}");
        }
        Ok(())
    }

    /// Goes on until the last step is taken and everything of it is written down.
    fn live(&self, world: &mut World) -> Result<(), Down> {
        let evaluated = self.evaluated(world)?;
        self.check(world, &evaluated)?;
        while world.step < STEPS || world.open.is_some() {
            self.send(world)?;
            self.evaluated(world)?;
            // What has changed is on the disk then.
            let evaluated = self.until("all that fires is told", || {
                let (evaluated, told) = (self.evaluator.evaluated(), world.manager.starts());
                let firing = evaluated.alerts.iter().filter(|alert| alert.state.as_str() == "firing");
                let mut burning = firing.filter(|alert| alert.labels["alertname"] == "ErrorBudgetBurn");
                burning.all(|alert| told.contains_key(&labels_of(alert))).then_some(evaluated)
            })?;
            if world.step.is_multiple_of(3) {
                self.check(world, &evaluated)?;
            }
        }
        Ok(())
    }

    fn end(mut self) {
        self.evaluator.stop();
        RUNTIME.block_on(self.evaluator.notifier().stop());
        let counters = self.evaluator.counters();
        assert_eq!(counters.proof_mismatches.load(std::sync::atomic::Ordering::Relaxed), 0);
        drop(self.collector.take());
    }
}

fn labels_of(alert: &AlertStatus) -> String {
    serde_json::to_string(&*alert.labels).unwrap()
}

/// Good and bad calls of a window.
fn recount(calls: &RecordBatch, window: Window, now: Minute) -> [u64; 2] {
    let text = |name: &str| calls.column(Table::Calls.index_of(name)).as_string::<i32>();
    let (tools, outcomes) = (text("tool_name"), text("outcome"));
    let ends = calls.column(Table::Calls.index_of("end_time")).as_primitive::<TimestampMicrosecondType>();
    let mut counts = [0, 0];
    for row in 0..calls.num_rows() {
        let is_in = window.at(now).contains(&Minute::of(UnixMicros(ends.value(row))));
        if is_in && tools.is_valid(row) && tools.value(row) == "search" {
            counts[usize::from(outcomes.value(row) == "error")] += 1;
        }
    }
    counts
}

/// Good and bad calls of a revision of an SLO in `slo_1m`.
fn cached(lake: &Arc<dyn Lake>, name: &str, revision: &str) -> [i64; 2] {
    let rows = in_schema(Table::Slo1m, &rows(&lake.view(), Table::Slo1m));
    let text = |name: &str| rows.column(Table::Slo1m.index_of(name)).as_string::<i32>();
    let (slos, revisions) = (text("slo"), text("slo_revision"));
    let sum = |column: &str| {
        let values = rows.column(Table::Slo1m.index_of(column)).as_primitive::<Int64Type>();
        let own = (0..rows.num_rows()).filter(|row| slos.value(*row) == name && revisions.value(*row) == revision);
        own.map(|row| values.value(row)).sum()
    };
    [sum("good"), sum("bad")]
}

/// By labels: states and start times in the table of alerts, oldest first.
fn written(lake: &Arc<dyn Lake>) -> BTreeMap<String, Vec<(String, Option<String>)>> {
    let rows = in_schema(Table::Alerts, &rows(&lake.view(), Table::Alerts));
    let text = |name: &str| rows.column(Table::Alerts.index_of(name)).as_string::<i32>();
    let time = |name: &str| rows.column(Table::Alerts.index_of(name)).as_primitive::<TimestampMicrosecondType>();
    let (labels, states, starts, times) = (text("labels"), text("state"), time("starts_at"), time("time"));
    let names = text("alertname");
    let mut order: Vec<usize> = (0..rows.num_rows()).filter(|row| names.value(*row) == "ErrorBudgetBurn").collect();
    order.sort_by_key(|row| times.value(*row));
    let mut written: BTreeMap<String, Vec<_>> = BTreeMap::new();
    for row in order {
        let start = starts.is_valid(row).then(|| rfc3339(UnixMicros(starts.value(row))));
        written.entry(labels.value(row).to_owned()).or_default().push((states.value(row).to_owned(), start));
    }
    written
}

fn life(seed: u64, folder: &Path) {
    let slos = folder.join(format!("{seed}.yaml"));
    std::fs::write(&slos, [slo("attempts", "attempt"), slo("calls", "logical")].concat()).unwrap();
    let mut world = World {
        clock: Arc::new(Set::at(AT_US)),
        slos,
        manager: RUNTIME.block_on(Alertmanager::start()),
        acknowledged: [0, 0],
        open: None,
        step: 0,
    };
    let mut rng = SimRng::new(seed);
    let mut fs = fresh_disk(seed);
    let mut crashes = 0;
    let running = loop {
        if crashes < CRASHES {
            fs.crash_at(1 + rng.below(OPERATIONS) as u64);
        }
        let lived = Running::start(&fs, &world).and_then(|running| match running.live(&mut world) {
            Ok(()) => Ok(running),
            Err(down) => {
                running.end();
                Err(down)
            }
        });
        match lived {
            Ok(running) if !running.is_down() => break running,
            Ok(running) => running.end(),
            Err(Down) => {}
        }
        crashes += 1;
        let survival = if crashes.is_multiple_of(2) { random_survival(&mut rng) } else { Survival::ProcessKill };
        fs = fs.restart(rng.next_u64(), survival);
    };
    assert!(crashes > 0, "nothing crashed");
    assert_eq!(world.acknowledged, [(STEPS - 6) * CALLS, 6 * CALLS]);
    // A crash that is still to come would not be one of the life.
    fs.crash_at(u64::MAX);

    // Everything settles, and is written down.
    world.clock.set(world.clock.now().0 + 5_000_000);
    let end = world.clock.now().0;
    let other = SpanOf::new(u64::MAX, u64::MAX, 0, "GET /").at(end - 10, end).0;
    RUNTIME.block_on(running.collector.as_ref().unwrap().sink().append(export("agent", vec![other]))).unwrap();
    let before = running.evaluated(&world).unwrap();
    running.check(&world, &before).unwrap();
    for status in &before.slos {
        let (name, revision) = (&status.slo.slo.name, status.revision.as_deref().unwrap());
        let counts = [status.events.good, status.events.bad].map(|count| count as i64);
        running
            .until("slo_1m has everything", || (cached(&running.lake, name, revision) == counts).then_some(()))
            .unwrap();
    }
    let starts = world.manager.starts();
    assert_eq!(starts.len(), 8, "each tier of both SLOs was told: {starts:?}");
    assert!(starts.values().all(|starts| starts.len() == 1), "{starts:?}");
    running
        .until("the ends are written down", || {
            let written = written(&running.lake);
            let ended = written.values().filter(|changes| changes.iter().any(|(state, _)| state == "resolved"));
            (ended.count() == 2).then_some(())
        })
        .unwrap();
    for (labels, changes) in written(&running.lake) {
        let start = starts[&labels].first().cloned();
        let states: Vec<&str> = changes.iter().map(|(state, _)| state.as_str()).collect();
        let is_fast = labels.contains("\"fast\"");
        assert_eq!(states, if is_fast { &["firing", "resolved"][..] } else { &["firing"] }, "{labels}");
        assert!(changes.iter().all(|(_, started)| *started == start), "{labels}: {changes:?} and {start:?}");
    }
    running.end();

    // Without the cache, everything is counted from `calls`.
    let fs = fs.restart(seed, Survival::ProcessKill);
    remove(&fs, &Path::new("/data/lake").join(Table::Slo1m.name()));
    let running = Running::start(&fs, &world).unwrap();
    let after = running.evaluated(&world).unwrap();
    running.check(&world, &after).unwrap();
    for (before, after) in before.slos.iter().zip(&after.slos) {
        assert_eq!((before.events, before.counts, &before.windows), (after.events, after.counts, &after.windows));
        assert_ne!(before.revision, after.revision, "it was counted anew");
    }
    running.end();
}

/// Scenario: calls go well, fail for two minutes, and go well again; the machine crashes four times at random operations, in exports, commits, merges and what the
/// evaluator writes, and in starts, and clients send again what was not acknowledged; at the end the table `slo_1m` is removed.
/// Guarantees: after each start and all the time the counts of each window are those of a recount of `calls`, which has each acknowledged call
/// once; an alert that was sent keeps its start time over all crashes, and stands in `alerts` with it, once; `slo_1m` has the same counts, and
/// without it they are the same.
#[test]
fn the_evaluator_goes_on_after_crashes_at_random_operations_where_it_was() {
    let folder = tempfile::tempdir().unwrap();
    each(0..runs(12), |seed| life(seed, folder.path()));
}
