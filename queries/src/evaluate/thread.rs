//! The thread of the evaluation.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering::{self, Relaxed};
use std::sync::mpsc::{self, Receiver, TryRecvError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use datafusion::logical_expr::{col, lit};
use toolgauge_analytics::alert::{RESOLVED_FOR_US, State};
use toolgauge_analytics::sli::Counts;
use toolgauge_analytics::window::{Minute, Window};
use toolgauge_proto::id::WalPosition;
use toolgauge_proto::lake::{Feed, FeedItem, SettledRows, View};
use toolgauge_proto::table::Table;
use toolgauge_proto::time::UnixMicros;

use super::alerts::{AlertId, Change, Restored};
use super::append::{Appender, Context, Done, Job, findings};
use super::history::{self, Revision, SloRows};
use super::round::{Alerts, At, Round};
use super::telemetry::{Arrivals, REMEMBERED};
use super::watched::{LooseTally, Past, SettledTally, Watched};
use super::{AlertStatus, EvaluateSettings, Evaluated, SeriesRequest, Shared};
use crate::engine::{Engine, Error};
use crate::json::rfc3339;
use crate::notify::PostableAlert;
use crate::slo::counter::{CompiledSli, Counter};
use crate::slo::fault::Severity;
use crate::slo::set::{SloSet, Sources};

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
    context: Context,
    shared: Arc<Shared>,
    requests: Receiver<SeriesRequest>,
) -> std::io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name("evaluate".into()).stack_size(16 << 20).spawn(move || {
        let feed = context.lake.feed();
        let result = Thread::load(settings, context, shared, feed, requests).map(Thread::run);
        if let Err(error) = result {
            tracing::error!(error = error.to_string(), "the evaluation of SLOs cannot go on");
        }
    })
}

/// A history that is being read, for some SLOs.
struct Reading {
    /// What their rows will be called.
    revisions: Vec<Revision>,
    result: Receiver<Result<LooseTally, Error>>,
}

struct Thread {
    settings: EvaluateSettings,
    shared: Arc<Shared>,
    engine: Arc<Engine>,
    lake: Arc<dyn toolgauge_proto::lake::Lake>,
    clock: Arc<dyn toolgauge_proto::time::Clock>,
    feed: Box<dyn Feed>,
    requests: Receiver<SeriesRequest>,
    appender: Appender,
    sources: Sources,
    set: Arc<SloSet>,
    watched: Vec<Watched>,
    counter: Counter,
    /// Live rows of the last evaluation.
    live: LooseTally,
    arrivals: Arrivals,
    alerts: Alerts,
    /// Rows up to here are in the rings.
    folded: WalPosition,
    /// Whether rows have come since the last append to `slo_1m`.
    has_folded: bool,
    /// Time of the last evaluation.
    time: UnixMicros,
    /// The last version that was appended, or is being appended.
    slo_version: i64,
    alerts_version: i64,
    last_flush: Instant,
    /// Revisions that are no longer counted, to be written down.
    retired: Vec<Revision>,
    reading: Option<Reading>,
    reading_not_before: Instant,
    changes: Vec<Change>,
    next_change: u64,
    /// Changes up to here are committed.
    committed_change: u64,
    /// Tables that can be written no more.
    broken: HashSet<Table>,
}

impl Thread {
    /// Counts what was there before.
    fn load(
        settings: EvaluateSettings,
        context: Context,
        shared: Arc<Shared>,
        feed: Box<dyn Feed>,
        requests: Receiver<SeriesRequest>,
    ) -> Result<Self, Error> {
        let (engine, lake, clock) =
            (Arc::clone(&context.engine), Arc::clone(&context.lake), Arc::clone(&context.clock));
        let internal = |error: &dyn std::fmt::Display| Error::Internal(error.to_string());
        let appender = Appender::start(context).map_err(|error| internal(&error))?;
        let version = |table: Table| {
            let app_id = format!("{}/{}", lake.writer(), table.name());
            lake.committed_version(table, &app_id).map_err(|error| internal(&error))
        };
        let (slo_version, alerts_version) = (version(Table::Slo1m)?, version(Table::Alerts)?);
        let now = clock.now();
        let mut thread = Self {
            folded: feed.after(),
            sources: Sources::new(settings.slos.clone()),
            settings,
            shared,
            engine,
            lake,
            clock,
            feed,
            requests,
            appender,
            set: Arc::default(),
            watched: Vec::new(),
            counter: Counter::new([])?,
            live: LooseTally::default(),
            arrivals: Arrivals::default(),
            alerts: Alerts::new(),
            has_folded: false,
            time: now,
            slo_version: slo_version.unwrap_or(-1),
            alerts_version: alerts_version.unwrap_or(-1),
            last_flush: Instant::now(),
            retired: Vec::new(),
            reading: None,
            reading_not_before: Instant::now(),
            changes: Vec::new(),
            next_change: 1,
            committed_change: 0,
            broken: HashSet::new(),
        };
        let view = thread.aligned();
        thread.time = now.max(view.watermark);
        thread.load_telemetry(&view)?;
        thread.load_alerts(&view)?;
        let slo_1m = Arc::clone(&view.table(Table::Slo1m).committed);
        let known = thread.engine.block_on(history::revisions(&thread.engine, slo_1m))?;
        // Without a cursor nobody knows what its rows have.
        let (usable, unusable) = match slo_version {
            Some(_) => (known, HashSet::new()),
            None => (HashSet::new(), known),
        };
        thread.retired.extend(unusable);
        thread.reload(usable)?;
        thread.load_counts(&view, WalPosition(slo_version.unwrap_or(0).unsigned_abs()))?;
        Ok(thread)
    }

    /// The view whose committed rows are those of the feed so far; before anything is watched, so that what the feed gives
    /// meanwhile needs no counting.
    fn aligned(&mut self) -> Arc<View> {
        loop {
            let view = self.lake.view();
            match self.folded.cmp(&view.committed) {
                std::cmp::Ordering::Equal => return view,
                std::cmp::Ordering::Greater => std::thread::yield_now(),
                std::cmp::Ordering::Less => match self.feed.recv(LOOK) {
                    FeedItem::Rows(rows) => self.folded = rows.up_to,
                    FeedItem::Nothing => {}
                    FeedItem::End => return view,
                },
            }
        }
    }

    fn load_telemetry(&mut self, view: &View) -> Result<(), Error> {
        let since = REMEMBERED.at(Minute::of(self.time)).start().start();
        let since = datafusion::common::ScalarValue::TimestampMicrosecond(Some(since.0), Some("UTC".into()));
        let arrivals = Arc::clone(&view.table(Table::Arrivals).committed);
        let condition = Some(col("minute").gt_eq(lit(since)));
        let (engine, found) = (Arc::clone(&self.engine), &mut self.arrivals);
        engine.block_on(history::scan(&engine, arrivals, &["minute", "service_name"], condition, |batch| {
            found.add(batch)
        }))
    }

    fn load_alerts(&mut self, view: &View) -> Result<(), Error> {
        const COLUMNS: [&str; 9] =
            ["time", "source", "state", "starts_at", "ends_at", "position", "fingerprint", "labels", "annotations"];
        let alerts = Arc::clone(&view.table(Table::Alerts).committed);
        let mut restored = Restored::default();
        let engine = Arc::clone(&self.engine);
        engine.block_on(history::scan(&engine, alerts, &COLUMNS, None, |batch| restored.add(batch)))?;
        self.alerts = restored.finish();
        Ok(())
    }

    /// Takes the files as they are now. `usable` are the revisions whose rows in `slo_1m` are complete.
    fn reload(&mut self, usable: HashSet<Revision>) -> Result<(), Error> {
        let Some(set) = self.sources.read(&self.engine) else { return Ok(()) };
        for fault in &set.faults {
            match fault.severity {
                Severity::Error => tracing::error!("{fault}"),
                Severity::Warning => tracing::warn!("{fault}"),
            }
        }
        let mut before: HashMap<(String, String), Watched> = std::mem::take(&mut self.watched)
            .into_iter()
            .map(|watched| ((watched.slo.slo.service.clone(), watched.slo.slo.name.clone()), watched))
            .collect();
        let mut usable: HashMap<(String, String), Vec<String>> =
            usable.into_iter().fold(HashMap::new(), |mut usable, Revision { service, slo, name }| {
                usable.entry((service, slo)).or_insert_with(Vec::new).push(name);
                usable
            });
        for slo in &set.slos {
            let key = (slo.slo.service.clone(), slo.slo.name.clone());
            let same = before.remove(&key).and_then(|mut watched| {
                if watched.counts_as(slo) {
                    watched.redefine(slo.clone());
                    return Some(watched);
                }
                self.retired.extend(revision_of(&watched));
                None
            });
            let watched = same.unwrap_or_else(|| {
                let mut watched = Watched::new(slo.clone(), Minute::of(self.time));
                let hash = format!("{}-", slo.sli.revision);
                let names = usable.get_mut(&key);
                let own = names.and_then(|names| {
                    names.iter().position(|name| name.starts_with(&hash)).map(|at| names.swap_remove(at))
                });
                watched.revision = own;
                watched
            });
            self.watched.push(watched);
        }
        self.retired.extend(before.values().filter_map(revision_of));
        for ((service, slo), names) in usable {
            let revision = |name| Revision { service: service.clone(), slo: slo.clone(), name };
            self.retired.extend(names.into_iter().map(revision));
        }
        self.counter = Counter::new(self.watched.iter().map(|watched| watched.slo.sli.as_ref()))?;
        self.live = LooseTally::new(self.watched.len());
        self.set = Arc::new(set);
        Ok(())
    }

    /// Fills the rings of SLOs whose rows are in `slo_1m`, and counts the rows of `calls` after them.
    fn load_counts(&mut self, view: &View, cursor: WalPosition) -> Result<(), Error> {
        // Two SLOs may count the same from the same position on: names alone do not tell them apart.
        let places: Vec<usize> =
            (0..self.watched.len()).filter(|place| self.watched[*place].revision.is_some()).collect();
        if places.is_empty() {
            return Ok(());
        }
        let longest = places.iter().filter_map(|place| self.watched[*place].windows.last()).max().copied();
        let since = *longest.unwrap_or(Window::D30).at(Minute::of(self.time)).start();
        let names: HashMap<Revision, usize> =
            places.iter().filter_map(|place| Some((revision_of(&self.watched[*place])?, *place))).collect();
        let (engine, watched) = (Arc::clone(&self.engine), &mut self.watched);
        let slo_1m = Arc::clone(&view.table(Table::Slo1m).committed);
        engine.block_on(history::load(&engine, slo_1m, &names, since, |place, minute, counts| {
            watched[place].ring.add(minute, counts);
        }))?;
        let slis: Vec<Arc<CompiledSli>> =
            places.iter().map(|place| Arc::clone(&self.watched[*place].slo.sli)).collect();
        let calls = Arc::clone(&view.table(Table::Calls).committed);
        let rest = engine.block_on(history::count(&engine, calls, &slis, Some(history::after(cursor))))?;
        for (place, (counts, fed_by)) in places.into_iter().zip(rest.counts.into_iter().zip(rest.fed_by)) {
            let watched = &mut self.watched[place];
            counts.iter().for_each(|(minute, counts)| watched.add(*minute, counts));
            fed_by.iter().for_each(|(service, minute)| watched.fed(service, *minute));
            watched.past = Past::Known;
        }
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
            self.take_appended();
            self.answer();
            if Instant::now() >= next {
                if let Err(error) = self.reload(HashSet::new()) {
                    tracing::error!(error = error.to_string(), "take the SLOs as they are now");
                }
                self.evaluate();
                let missed = next.elapsed().as_nanos() / self.settings.interval.as_nanos().max(1);
                let missed = u32::try_from(missed).unwrap_or(u32::MAX);
                self.shared.counters.missed.fetch_add(missed.into(), Relaxed);
                next += self.settings.interval * (missed + 1);
            }
            self.append();
        }
        self.finish();
    }

    /// Writes down what can be written at the end.
    fn finish(mut self) {
        self.last_flush = Instant::now().checked_sub(self.settings.flush_interval).unwrap_or(self.last_flush);
        for _ in 0..3 {
            if let Some(done) = self.appender.wait(LAST_APPEND) {
                self.appended(done);
            }
            self.append();
        }
        if let Some(done) = self.appender.wait(LAST_APPEND) {
            self.appended(done);
        }
        self.appender.stop();
    }

    fn fold(&mut self, settled: &SettledRows) {
        for batch in settled.rows.iter() {
            self.shared.counters.rows.fetch_add(batch.num_rows() as u64, Relaxed);
            self.has_folded |= batch.num_rows() > 0;
            if let Err(error) = self.counter.count(batch, None, &mut SettledTally(&mut self.watched)) {
                tracing::error!(%error, "count settled rows");
            }
        }
        self.folded = self.folded.max(settled.up_to);
    }

    fn evaluate(&mut self) {
        let began = Instant::now();
        let view = self.lake.view();
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
        let live = match self.count_live(&view) {
            Ok(live) => live,
            Err(error) => return tracing::error!(%error, "count live rows"),
        };
        let clock = self.clock.now();
        self.time = self.time.max(clock);
        let now = Minute::of(self.time);
        self.arrivals.forget(now);
        let at = At {
            time: self.time,
            position: view.position,
            watermark: view.watermark,
            clock_behind_us: self.time.max(view.watermark).0.saturating_sub(clock.0),
        };
        let mut round = Round {
            at,
            arrivals: &self.arrivals,
            alerts: &mut self.alerts,
            changes: &mut self.changes,
            next_change: &mut self.next_change,
        };
        let waiting = round.changes.len();
        let mut slos = Vec::with_capacity(self.watched.len());
        let mut known: HashSet<Arc<str>> = HashSet::new();
        for (watched, live) in self.watched.iter_mut().zip(&live.counts) {
            watched.ring.advance(now);
            slos.push(round.evaluate(watched, live));
            known.extend(watched.alert_ids.iter().map(|id| Arc::clone(&id.fingerprint)));
        }
        round.end_orphans(|fingerprint| known.contains(fingerprint));
        let changes = (self.changes.len() - waiting) as u64;
        self.live = live;
        let alerts = self.alerts.values().map(|alert| AlertStatus {
            fingerprint: Arc::clone(&alert.id.fingerprint),
            labels: Arc::clone(&alert.id.labels),
            annotations: alert.annotations.iter().chain(&alert.findings).map(|(k, v)| (k.clone(), v.clone())).collect(),
            state: alert.state,
        });
        let evaluated = Evaluated { at: Some(at), set: Arc::clone(&self.set), slos, alerts: alerts.collect() };
        self.shared.evaluated.store(Arc::new(evaluated));
        self.shared.ready.store(true, Ordering::Release);
        self.deliver();
        let counters = &self.shared.counters;
        counters.rounds.fetch_add(1, Relaxed);
        counters.changes.fetch_add(changes, Relaxed);
        counters.round_micros.fetch_add(began.elapsed().as_micros() as u64, Relaxed);
    }

    fn count_live(&mut self, view: &View) -> Result<LooseTally, arrow::error::ArrowError> {
        let mut live = LooseTally::new(self.watched.len());
        for batch in view.table(Table::Calls).live.get()?.iter() {
            self.counter.count(batch, Some(self.folded), &mut live)?;
        }
        for (watched, fed_by) in self.watched.iter_mut().zip(&live.fed_by) {
            fed_by.iter().for_each(|(service, minute)| watched.fed(service, *minute));
        }
        for batch in view.table(Table::Arrivals).live.get()?.iter() {
            self.arrivals.add(batch)?;
        }
        Ok(live)
    }

    /// Begins to read the history of SLOs that have none.
    fn begin_reading(&mut self, view: &View) {
        if self.reading.is_some() || Instant::now() < self.reading_not_before || self.folded != view.committed {
            return;
        }
        let taken: HashSet<Revision> =
            self.retired.iter().cloned().chain(self.watched.iter().filter_map(revision_of)).collect();
        let (mut revisions, mut slis) = (Vec::new(), Vec::new());
        for watched in self.watched.iter_mut().filter(|watched| watched.past == Past::Waiting) {
            let name = watched.name_rows(self.folded);
            let revision =
                Revision { service: watched.slo.slo.service.clone(), slo: watched.slo.slo.name.clone(), name };
            if taken.contains(&revision) {
                continue;
            }
            watched.clear();
            watched.past = Past::Reading;
            watched.revision = Some(revision.name.clone());
            slis.push(Arc::clone(&watched.slo.sli));
            revisions.push(revision);
        }
        if revisions.is_empty() {
            return;
        }
        let (answer, result) = mpsc::sync_channel(1);
        let (engine, calls) = (Arc::clone(&self.engine), Arc::clone(&view.table(Table::Calls).committed));
        let work = move || {
            let counted = engine.block_on(history::count(&engine, calls, &slis, None));
            // Nobody waits for it any more if the evaluation has ended.
            drop(answer.send(counted));
        };
        tracing::info!(slos = revisions.len(), "counting the history of new SLOs");
        match std::thread::Builder::new().name("history".into()).stack_size(16 << 20).spawn(work) {
            Ok(_) => self.reading = Some(Reading { revisions, result }),
            Err(error) => {
                tracing::error!(%error, "start a thread");
                self.reading = Some(Reading { revisions, result });
            }
        }
    }

    fn take_history(&mut self) {
        let Some(reading) = &self.reading else { return };
        let result = match reading.result.try_recv() {
            Ok(result) => result,
            Err(TryRecvError::Empty) => return,
            Err(TryRecvError::Disconnected) => Err(Error::Internal("the thread has ended".to_owned())),
        };
        let Some(Reading { revisions, .. }) = self.reading.take() else { return };
        let mut places: HashMap<Revision, usize> = HashMap::new();
        for (place, watched) in self.watched.iter().enumerate().filter(|(_, watched)| watched.past == Past::Reading) {
            places.extend(revision_of(watched).map(|revision| (revision, place)));
        }
        match result {
            Ok(tally) => {
                for (revision, (counts, fed_by)) in revisions.iter().zip(tally.counts.into_iter().zip(tally.fed_by)) {
                    let Some(place) = places.get(revision) else { continue };
                    let watched = &mut self.watched[*place];
                    counts.iter().for_each(|(minute, counts)| watched.add(*minute, counts));
                    fed_by.iter().for_each(|(service, minute)| watched.fed(service, *minute));
                    // So that it is known to be counted even if there was nothing.
                    watched.pending.entry(Minute::of(self.time)).or_default();
                    watched.past = Past::Known;
                }
                tracing::info!(slos = revisions.len(), "counted the history of new SLOs");
            }
            Err(error) => {
                tracing::error!(error = error.to_string(), "count the history of new SLOs; it is tried again");
                for place in places.values() {
                    self.watched[*place].past = Past::Waiting;
                    self.watched[*place].revision = None;
                }
                self.reading_not_before = Instant::now() + HISTORY_PAUSE;
            }
        }
    }

    /// Hands over what is to be written: changes of alerts first.
    fn append(&mut self) {
        let view = self.lake.view();
        self.begin_reading(&view);
        if self.appender.is_busy() {
            return;
        }
        if !self.changes.is_empty() && !self.broken.contains(&Table::Alerts) {
            self.alerts_version += 1;
            return self.appender.begin(Job::Alerts(std::mem::take(&mut self.changes), self.alerts_version));
        }
        if self.changes.len() > CHANGES_MAX {
            self.changes.drain(..self.changes.len() - CHANGES_MAX);
        }
        let is_due = self.last_flush.elapsed() >= self.settings.flush_interval;
        let is_new = self.folded.as_i64() > self.slo_version && self.folded <= view.committed;
        let has_rows = !self.retired.is_empty()
            || self.watched.iter().any(|watched| watched.past == Past::Known && !watched.pending.is_empty());
        // The cursor moves with the rows of others too, so that a start has few to read; an idle log is left alone.
        if !is_due || !is_new || !(has_rows || self.has_folded) || self.broken.contains(&Table::Slo1m) {
            return;
        }
        self.has_folded = false;
        let mut rows = SloRows::default();
        for watched in self.watched.iter_mut().filter(|watched| watched.past == Past::Known) {
            let Some(revision) = revision_of(watched) else { continue };
            watched.pending.drain().for_each(|(minute, counts)| rows.add(&revision, minute, counts));
        }
        for revision in std::mem::take(&mut self.retired) {
            rows.retire(revision, Minute::of(self.time));
        }
        self.last_flush = Instant::now();
        match rows.batch() {
            Ok(rows) => {
                self.slo_version = self.folded.as_i64();
                self.appender.begin(Job::Slo(rows, self.slo_version));
            }
            Err(error) => {
                tracing::error!(%error, "build rows of slo_1m");
                self.appended(Done::Failed(Table::Slo1m));
            }
        }
    }

    fn take_appended(&mut self) {
        if let Some(done) = self.appender.poll() {
            self.appended(done);
        }
    }

    fn appended(&mut self, done: Done) {
        match done {
            Done::Slo => {}
            Done::Alerts(changes) => {
                for change in &changes {
                    self.committed_change = self.committed_change.max(change.number);
                    if let Some(alert) =
                        self.alerts.get_mut(&change.id.fingerprint).filter(|alert| alert.change == change.number)
                    {
                        alert.findings.extend(findings(change));
                    }
                }
                self.deliver();
            }
            Done::Failed(table) => {
                self.shared.counters.failed_appends.fetch_add(1, Relaxed);
                self.broken.insert(table);
            }
        }
    }

    /// Sends what is due: what has changed and is committed, what fires on, and what was resolved a short while ago.
    fn deliver(&mut self) {
        let interval_us = micros(self.settings.interval);
        let resend_us = micros(self.settings.resend_delay);
        // Long enough for two that get lost.
        let lives_us = 4 * interval_us.max(resend_us);
        let now = self.time;
        let mut due = Vec::new();
        for alert in self.alerts.values_mut().filter(|alert| alert.change <= self.committed_change) {
            let is_old = alert.last_sent.is_none_or(|last| now.0.saturating_sub(last.0) >= resend_us);
            let (starts_at, ends_at) = match alert.state {
                State::Firing { starts_at, .. } if is_old => (starts_at, UnixMicros(now.0.saturating_add(lives_us))),
                State::Resolved { starts_at, ends_at }
                    if (is_old || alert.last_sent.is_some_and(|last| ends_at > last))
                        && now.0.saturating_sub(ends_at.0) < RESOLVED_FOR_US =>
                {
                    (starts_at, ends_at)
                }
                _ => continue,
            };
            alert.last_sent = Some(now);
            due.push(PostableAlert {
                labels: Arc::clone(&alert.id.labels),
                annotations: alert
                    .annotations
                    .iter()
                    .chain(&alert.findings)
                    .map(|(k, v)| (k.clone(), v.clone()))
                    .collect(),
                starts_at: rfc3339(starts_at),
                ends_at: rfc3339(ends_at),
                generator_url: link(&self.settings.external_url, &alert.id),
                fingerprint: Arc::clone(&alert.id.fingerprint),
            });
        }
        self.shared.notifier.send(&due);
    }

    fn answer(&mut self) {
        while let Ok(request) = self.requests.try_recv() {
            let SeriesRequest { service, slo, from, to, answer } = request;
            let place = self
                .watched
                .iter()
                .position(|watched| watched.slo.slo.service == service && watched.slo.slo.name == slo);
            let series = place.map(|place| {
                let mut series: HashMap<Minute, Counts> = self.watched[place].ring.minutes(from..=to).collect();
                for (minute, counts) in
                    self.live.counts[place].iter().filter(|(minute, _)| (from..=to).contains(*minute))
                {
                    *series.entry(*minute).or_default() += counts;
                }
                let mut series: Vec<(Minute, Counts)> = series.into_iter().collect();
                series.sort_unstable_by_key(|(minute, _)| *minute);
                series
            });
            // Whoever asked may be gone.
            drop(answer.send(series));
        }
    }
}

/// Where an alert can be looked at; names are escaped. `None` if the server's own address is none.
fn link(external_url: &str, id: &AlertId) -> Option<String> {
    let mut url = reqwest::Url::parse(external_url).ok()?;
    let label = |name: &str| id.label(name).unwrap_or_default();
    let path = ["api", "v1", "slos", label("service"), label("slo")];
    url.path_segments_mut().ok()?.pop_if_empty().extend(path);
    Some(url.into())
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX / 8)
}

fn revision_of(watched: &Watched) -> Option<Revision> {
    let (service, slo) = (watched.slo.slo.service.clone(), watched.slo.slo.name.clone());
    Some(Revision { service, slo, name: watched.revision.clone()? })
}
