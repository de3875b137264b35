//! The thread of the evaluation of rules.

use std::sync::Arc;
use std::sync::atomic::Ordering::{self, Relaxed};
use std::sync::mpsc::{self, Receiver, TryRecvError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use datafusion::common::ScalarValue;
use datafusion::error::DataFusionError;
use datafusion::logical_expr::{col, lit};
use toolgauge_analytics::window::Minute;
use toolgauge_proto::id::WalPosition;
use toolgauge_proto::lake::{Feed, FeedItem, SettledRows, View};
use toolgauge_proto::table::Table;
use toolgauge_proto::time::UnixMicros;

use super::book::Change;
use super::definition::Measure;
use super::heartbeats::COLUMNS_1M;
use super::sessions::{self, Answers, Request};
use super::state::{Reading, State};
use super::worker::{Appended, Asking, Worker, app_id, append};
use super::{Evaluated, Shared};
use crate::engine::Error;
use crate::evaluate::alerts::{AlertId, RESTORED, Restored};
use crate::evaluate::history::scan;
use crate::evaluate::telemetry::REMEMBERED;
use crate::evaluate::time::Time;
use crate::evaluate::{At, EvaluateSettings, Evaluator};
use crate::slo::set::SloSet;

/// How often it is looked whether to end.
const LOOK: Duration = Duration::from_millis(100);
/// Pause after a history that could not be read.
const HISTORY_PAUSE: Duration = Duration::from_secs(60);
/// Longest wait for an append at the end.
const LAST_APPEND: Duration = Duration::from_secs(10);
/// Most changes of alerts that wait for the disk; the oldest are given up first.
const CHANGES_MAX: usize = 100_000;

pub(super) fn start(
    settings: EvaluateSettings,
    asking: Asking,
    evaluator: Arc<Evaluator>,
    shared: Arc<Shared>,
) -> std::io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name("rules".into()).stack_size(16 << 20).spawn(move || {
        let feed = asking.lake.feed();
        if let Err(error) = Thread::load(settings, asking, evaluator, shared, feed).map(Thread::run) {
            tracing::error!(error = error.to_string(), "the evaluation of rules cannot go on");
        }
    })
}

struct Thread {
    settings: EvaluateSettings,
    asking: Asking,
    evaluator: Arc<Evaluator>,
    shared: Arc<Shared>,
    feed: Box<dyn Feed>,
    state: State,
    /// The files that the rules are of; none before the first.
    set: Option<Arc<SloSet>>,
    /// Rows up to here are counted.
    folded: WalPosition,
    /// Time of the last evaluation.
    time: Time,
    appender: Worker<(Vec<Change>, i64), Appended>,
    asker: Worker<Request, Answers>,
    /// The last version that was appended, or is being appended.
    version: i64,
    reading: Option<Receiver<Result<Reading, Error>>>,
    reading_not_before: Instant,
    next_sessions: UnixMicros,
}

impl Thread {
    fn load(
        settings: EvaluateSettings,
        asking: Asking,
        evaluator: Arc<Evaluator>,
        shared: Arc<Shared>,
        feed: Box<dyn Feed>,
    ) -> Result<Self, Error> {
        let internal = |error: &dyn std::fmt::Display| Error::Internal(error.to_string());
        let work = asking.clone();
        let appender = Worker::start("rules-append", move |job, jobs| append(&work, job, jobs))
            .map_err(|error| internal(&error))?;
        let work = asking.clone();
        let asker = Worker::start("rules-ask", move |request, _| sessions::ask(&work, &request))
            .map_err(|error| internal(&error))?;
        let version = asking.lake.committed_version(Table::Alerts, &app_id(&*asking.lake));
        let version = version.map_err(|error| internal(&error))?.unwrap_or(-1);
        let mut thread = Self {
            settings,
            evaluator,
            shared,
            folded: feed.after(),
            feed,
            state: State::new(asking.idle_us()),
            set: None,
            time: Time::new(&*asking.clock, asking.lake.view().watermark),
            asking,
            appender,
            asker,
            version,
            reading: None,
            reading_not_before: Instant::now(),
            next_sessions: UnixMicros(i64::MIN),
        };
        let view = thread.asking.lake.view();
        thread.time = Time::new(&*thread.asking.clock, view.watermark);
        thread.load_telemetry(&view)?;
        thread.load_alerts(&view)?;
        Ok(thread)
    }

    fn load_telemetry(&mut self, view: &View) -> Result<(), Error> {
        let since = REMEMBERED.at(Minute::of(self.time.now())).start().start();
        let arrivals = Arc::clone(&view.table(Table::Arrivals).committed);
        let condition = Some(col("minute").gt_eq(lit(timestamp(since))));
        let (engine, state) = (Arc::clone(&self.asking.engine), &mut self.state);
        // They may be committed before the first evaluation looks at those that are live.
        for batch in view.table(Table::Arrivals).live.get().map_err(DataFusionError::from)?.iter() {
            state.heartbeats.listen(batch);
            state.arrivals.add(batch).map_err(DataFusionError::from)?;
        }
        engine.block_on(scan(&engine, arrivals, &["minute", "service_name"], condition, |batch| {
            state.heartbeats.listen(batch);
            state.arrivals.add(batch)
        }))
    }

    fn load_alerts(&mut self, view: &View) -> Result<(), Error> {
        let alerts = Arc::clone(&view.table(Table::Alerts).committed);
        let mut restored = Restored::of_rules();
        let engine = Arc::clone(&self.asking.engine);
        engine.block_on(scan(&engine, alerts, &RESTORED, None, |batch| restored.add(batch)))?;
        self.state.book.restore(restored.finish());
        Ok(())
    }

    fn run(mut self) {
        let mut next = Instant::now();
        loop {
            if self.shared.stop.load(Ordering::Acquire) {
                break;
            }
            match self.feed.recv(next.saturating_duration_since(Instant::now()).min(LOOK)) {
                FeedItem::Rows(rows) => self.fold(&rows),
                FeedItem::Nothing => {}
                FeedItem::End => break,
            }
            self.take_history();
            self.take_sessions();
            if let Some(done) = self.appender.take(Duration::ZERO) {
                self.appended(done);
            }
            if Instant::now() >= next && !self.take_set() {
                // Soon: the past of the rules is read before there is more of it.
                next = Instant::now() + LOOK;
            } else if Instant::now() >= next {
                self.evaluate();
                let missed = next.elapsed().as_nanos() / self.settings.interval.as_nanos().max(1);
                let missed = u32::try_from(missed).unwrap_or(u32::MAX);
                self.shared.counters.missed.fetch_add(missed.into(), Relaxed);
                next += self.settings.interval * (missed + 1);
            }
            self.begin_history();
            self.append();
        }
        self.finish();
    }

    /// Writes down what can be written at the end.
    fn finish(mut self) {
        for _ in 0..2 {
            if let Some(done) = self.appender.take(LAST_APPEND) {
                self.appended(done);
            }
            self.append();
        }
        if let Some(done) = self.appender.take(LAST_APPEND) {
            self.appended(done);
        }
        self.appender.stop();
        self.asker.stop();
    }

    fn fold(&mut self, settled: &SettledRows) {
        for batch in settled.rows.iter() {
            self.shared.counters.rows.fetch_add(batch.num_rows() as u64, Relaxed);
            if let Err(error) = self.state.fold(batch) {
                tracing::error!(%error, "count settled rows for rules");
            }
        }
        self.folded = self.folded.max(settled.up_to);
    }

    /// Takes the rules as they are in the files now; false if nobody has read them yet.
    fn take_set(&mut self) -> bool {
        let evaluated = self.evaluator.evaluated();
        if evaluated.at.is_none() {
            return false;
        }
        if self.set.as_ref().is_none_or(|set| !Arc::ptr_eq(set, &evaluated.set)) {
            self.set = Some(Arc::clone(&evaluated.set));
            self.state.take_set(Arc::clone(&evaluated.set.rules), Minute::of(self.time.now()));
            self.next_sessions = UnixMicros(i64::MIN);
        }
        true
    }

    fn evaluate(&mut self) {
        let began = Instant::now();
        let view = self.asking.lake.view();
        // Whatever is committed in the view was offered before.
        while self.folded < view.committed {
            match self.feed.recv(Duration::ZERO) {
                FeedItem::Rows(rows) => self.fold(&rows),
                // The collector is about to end, and so is this.
                FeedItem::End => return,
                FeedItem::Nothing => {
                    tracing::error!(folded = %self.folded, committed = %view.committed, "rows are committed that did not come");
                    return;
                }
            }
        }
        let at = self.time.advance(&*self.asking.clock, view.position, view.watermark);
        self.state.book.ownership = self.settings.ownership.load_full();
        let live = |table: Table| view.table(table).live.get();
        let figures = live(Table::Calls).and_then(|calls| {
            let arrivals = live(Table::Arrivals)?;
            self.state.evaluate(&at, self.folded, calls.iter(), arrivals.iter())
        });
        let figures = match figures {
            Ok(figures) => figures,
            Err(error) => return tracing::error!(%error, "evaluate rules"),
        };
        self.ask_sessions(&at);
        let alerts = self.state.book.status();
        self.shared.evaluated.store(Arc::new(Evaluated { at: Some(at), figures, alerts }));
        self.deliver();
        let counters = &self.shared.counters;
        counters.overflow.store(self.state.book.overflow, Relaxed);
        counters.rounds.fetch_add(1, Relaxed);
        counters.round_micros.fetch_add(began.elapsed().as_micros() as u64, Relaxed);
    }

    fn ask_sessions(&mut self, at: &At) {
        if self.asker.is_busy() || at.time < self.next_sessions {
            return;
        }
        let rules: Vec<_> = self.state.set().thresholds.to_vec();
        let rules: Vec<_> = rules.into_iter().filter(|rule| matches!(rule.measure, Measure::Sessions(..))).collect();
        if rules.is_empty() {
            return;
        }
        self.next_sessions = UnixMicros(at.time.0 + sessions::INTERVAL.as_micros() as i64);
        self.asker.begin(Request { rules, time: at.time, position: at.position });
    }

    fn take_sessions(&mut self) {
        for (name, figures) in self.asker.take(Duration::ZERO).unwrap_or_default() {
            if self.state.set().thresholds.iter().any(|rule| rule.header.name == name) {
                self.state.sessions.insert(name, figures);
            }
        }
    }

    /// Begins to read the past of rules that have none.
    fn begin_history(&mut self) {
        if self.reading.is_some() || self.set.is_none() || Instant::now() < self.reading_not_before {
            return;
        }
        let view = self.asking.lake.view();
        if self.folded != view.committed {
            return;
        }
        let Some(mut reading) = self.state.begin_past(Minute::of(self.time.now())) else { return };
        let (answer, result) = mpsc::sync_channel(1);
        let asking = self.asking.clone();
        let work = move || {
            let read = read(&asking, &view, &mut reading);
            // Nobody waits for it any more if the evaluation has ended.
            drop(answer.send(read.map(|()| reading)));
        };
        if let Err(error) = std::thread::Builder::new().name("rules-history".into()).stack_size(16 << 20).spawn(work) {
            tracing::error!(%error, "start a thread");
        }
        self.reading = Some(result);
    }

    fn take_history(&mut self) {
        let Some(reading) = &self.reading else { return };
        let result = match reading.try_recv() {
            Ok(result) => result,
            Err(TryRecvError::Empty) => return,
            Err(TryRecvError::Disconnected) => Err(Error::Internal("the thread has ended".to_owned())),
        };
        self.reading = None;
        match result {
            Ok(reading) => self.state.take_past(reading),
            Err(error) => {
                tracing::error!(error = error.to_string(), "count the history of rules; it is tried again");
                self.state.lose_past();
                self.reading_not_before = Instant::now() + HISTORY_PAUSE;
            }
        }
    }

    /// Hands over what is to be written.
    fn append(&mut self) {
        let changes = &mut self.state.book.changes;
        if changes.len() > CHANGES_MAX {
            changes.drain(..changes.len() - CHANGES_MAX);
        }
        if self.appender.is_busy() || changes.is_empty() {
            return;
        }
        self.version += 1;
        let changes = std::mem::take(changes);
        self.shared.counters.changes.fetch_add(changes.len() as u64, Relaxed);
        self.appender.begin((changes, self.version));
    }

    fn appended(&mut self, done: Appended) {
        // An alert that nobody gets is worse than one that a restart may tell again.
        if !done.recorded {
            self.shared.counters.unrecorded.fetch_add(done.changes.len() as u64, Relaxed);
            if self.shared.stop.load(Ordering::Acquire) {
                return;
            }
        }
        self.state.book.committed(done.changes);
        self.deliver();
    }

    fn deliver(&mut self) {
        let sending = self.time.sending(&*self.asking.clock, self.settings.interval, self.settings.resend_delay);
        let url = self.settings.external_url.as_str();
        let due = self.state.book.due(sending, |id| link(url, id));
        self.evaluator.notifier().send(&due);
    }
}

/// Where an alert can be looked at. `None` if the server's own address is none.
fn link(external_url: &str, id: &AlertId) -> Option<String> {
    let mut url = reqwest::Url::parse(external_url).ok()?;
    url.path_segments_mut().ok()?.pop_if_empty().extend(["api", "v1", "rules"]);
    url.set_fragment(id.label("slo").or(id.label("tool")));
    Some(url.into())
}

fn timestamp(time: UnixMicros) -> ScalarValue {
    ScalarValue::TimestampMicrosecond(Some(time.0), Some("UTC".into()))
}

/// Reads the committed rows of a snapshot.
fn read(asking: &Asking, view: &View, reading: &mut Reading) -> Result<(), Error> {
    let engine = &asking.engine;
    let since = |column: &str, minute: Minute| {
        let date = col("date").gt_eq(lit(ScalarValue::Date32(Some(minute.start().date32()))));
        Some(date.and(col(column).gt_eq(lit(timestamp(minute.start())))))
    };
    if let Some(mut heartbeats) = reading.heartbeats.take() {
        let condition = since("minute", reading.heard_since);
        let arrivals = Arc::clone(&view.table(Table::Arrivals).committed);
        engine.block_on(scan(engine, arrivals, &["minute"], condition.clone(), |batch| {
            heartbeats.listen(batch);
            Ok(())
        }))?;
        let sums = Arc::clone(&view.table(Table::Calls1m).committed);
        engine.block_on(scan(engine, sums, &COLUMNS_1M, condition, |batch| heartbeats.count_1m(batch)))?;
        reading.heartbeats = Some(heartbeats);
    }
    let calls = Arc::clone(&view.table(Table::Calls).committed);
    let condition = since("end_time", reading.since);
    engine.block_on(scan(engine, calls, &reading.columns(), condition, |batch| reading.count(batch)))
}
