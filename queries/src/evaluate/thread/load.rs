//! What was there before: at the start, and for SLOs that are new or count something else.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, TryRecvError};
use std::time::{Duration, Instant};

use datafusion::common::ScalarValue;
use datafusion::logical_expr::{col, lit};
use toolgauge_analytics::window::{Minute, Window};
use toolgauge_proto::id::WalPosition;
use toolgauge_proto::lake::{Feed, FeedItem, View};
use toolgauge_proto::table::Table;

use super::prove::Proof;
use super::{LOOK, Thread};
use crate::engine::Error;
use crate::evaluate::alerts::{RESTORED, Restored};
use crate::evaluate::append::{Appender, Context};
use crate::evaluate::history::{self, Revision};
use crate::evaluate::round::Alerts;
use crate::evaluate::telemetry::{Arrivals, REMEMBERED};
use crate::evaluate::watched::{LooseTally, Past, Watched};
use crate::evaluate::{EvaluateSettings, SeriesRequest, Shared};
use crate::slo::counter::{CompiledSli, Counter};
use crate::slo::fault::Severity;
use crate::slo::set::Sources;

/// Pause after a history that could not be read.
const HISTORY_PAUSE: Duration = Duration::from_secs(60);

/// A history that is being read, for some SLOs.
pub(super) struct Reading {
    /// What their rows will be called.
    revisions: Vec<Revision>,
    result: Receiver<Result<LooseTally, Error>>,
}

impl Thread {
    /// Counts what was there before.
    pub(super) fn load(
        settings: EvaluateSettings,
        sources: Sources,
        context: Context,
        shared: Arc<Shared>,
        feed: Box<dyn Feed>,
        requests: Receiver<SeriesRequest>,
    ) -> Result<Self, Error> {
        let (engine, lake, clock) =
            (Arc::clone(&context.engine), Arc::clone(&context.lake), Arc::clone(&context.clock));
        let catalog = context.catalog.clone();
        let internal = |error: &dyn std::fmt::Display| Error::Internal(error.to_string());
        let appender = Appender::start(context).map_err(|error| internal(&error))?;
        let app_id = format!("{}/{}", lake.writer(), Table::Slo1m.name());
        let slo_version = lake.committed_version(Table::Slo1m, &app_id).map_err(|error| internal(&error))?;
        let now = clock.now();
        let mut thread = Self {
            folded: feed.after(),
            sources,
            settings,
            shared,
            engine,
            lake,
            catalog,
            clock,
            feed,
            requests,
            appender,
            set: Arc::default(),
            watched: Vec::new(),
            known: HashSet::new(),
            counter: Counter::new([])?,
            live: LooseTally::default(),
            arrivals: Arrivals::default(),
            alerts: Alerts::new(),
            has_folded: false,
            time: now,
            slo_version: slo_version.unwrap_or(-1),
            last_flush: Instant::now(),
            retired: Vec::new(),
            reading: None,
            reading_not_before: Instant::now(),
            proof: Proof::new(now.0),
            changes: Vec::new(),
            next_change: 1,
            committed_change: 0,
            slo_broken: false,
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
        let since = ScalarValue::TimestampMicrosecond(Some(since.0), Some("UTC".into()));
        let arrivals = Arc::clone(&view.table(Table::Arrivals).committed);
        let condition = Some(col("minute").gt_eq(lit(since)));
        let (engine, found) = (Arc::clone(&self.engine), &mut self.arrivals);
        engine.block_on(history::scan(&engine, arrivals, &["minute", "service_name"], condition, |batch| {
            found.add(batch)
        }))
    }

    fn load_alerts(&mut self, view: &View) -> Result<(), Error> {
        let alerts = Arc::clone(&view.table(Table::Alerts).committed);
        let mut restored = Restored::default();
        let engine = Arc::clone(&self.engine);
        engine.block_on(history::scan(&engine, alerts, &RESTORED, None, |batch| restored.add(batch)))?;
        self.alerts = restored.finish();
        Ok(())
    }

    /// Takes the files as they are now. `usable` are the revisions whose rows in `slo_1m` are complete.
    pub(super) fn reload(&mut self, usable: HashSet<Revision>) -> Result<(), Error> {
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
        let ids = self.watched.iter().flat_map(|watched| &watched.alert_ids);
        self.known = ids.map(|id| Arc::clone(&id.fingerprint)).collect();
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
        let longest = places.iter().filter_map(|place| self.watched[*place].ring.windows().last()).max().copied();
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
        for (place, (counts, fed_by)) in places.iter().zip(rest.counts.into_iter().zip(rest.fed_by)) {
            let watched = &mut self.watched[*place];
            counts.iter().for_each(|(minute, counts)| watched.add(*minute, counts));
            fed_by.iter().for_each(|(service, minute)| watched.fed(service, *minute));
            watched.past = Past::Known;
        }
        self.load_logical(view, &places)?;
        self.load_services(view, &places)
    }

    /// Counts the logical calls of SLOs of attempts: they are not in `slo_1m`, and needed for hours only.
    fn load_logical(&mut self, view: &View, places: &[usize]) -> Result<(), Error> {
        let since = |place: &usize| self.watched[*place].logical_since();
        let places: Vec<usize> = places.iter().copied().filter(|place| since(place).is_some()).collect();
        let Some(first) = places.iter().filter_map(since).min() else { return Ok(()) };
        let slis: Vec<Arc<CompiledSli>> =
            places.iter().map(|place| Arc::clone(&self.watched[*place].slo.sli)).collect();
        let date = col("date").gt_eq(lit(ScalarValue::Date32(Some(first.start().date32()))));
        let calls = Arc::clone(&view.table(Table::Calls).committed);
        let found = self.engine.block_on(history::count(&self.engine, calls, &slis, Some(date)))?;
        for (place, counts) in places.iter().zip(found.logical) {
            counts.iter().for_each(|(minute, counts)| self.watched[*place].add_logical(*minute, counts));
        }
        Ok(())
    }

    /// Which services fed SLOs before the cursor: within the longest window that asks whether one of them still sends.
    fn load_services(&mut self, view: &View, places: &[usize]) -> Result<(), Error> {
        let longest = places.iter().map(|place| self.watched[*place].longest()).max();
        let Some(longest) = longest else { return Ok(()) };
        let since = *longest.at(Minute::of(self.time)).start();
        let slis: Vec<Arc<CompiledSli>> =
            places.iter().map(|place| Arc::clone(&self.watched[*place].slo.sli)).collect();
        let found = self.engine.block_on(history::services(&self.engine, view, &slis, since))?;
        for (place, services) in places.iter().zip(found) {
            services.iter().for_each(|(service, minute)| self.watched[*place].fed(service, *minute));
        }
        Ok(())
    }

    /// Begins to read the history of SLOs that have none.
    pub(super) fn begin_reading(&mut self, view: &View) {
        if self.reading.is_some() || Instant::now() < self.reading_not_before || self.folded != view.committed {
            return;
        }
        // This is asked for many times a second.
        if !self.watched.iter().any(|watched| watched.past == Past::Waiting) {
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

    pub(super) fn take_history(&mut self) {
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
                let found = tally.counts.into_iter().zip(tally.logical).zip(tally.fed_by);
                for (revision, ((counts, logical), fed_by)) in revisions.iter().zip(found) {
                    let Some(place) = places.get(revision) else { continue };
                    let watched = &mut self.watched[*place];
                    counts.iter().for_each(|(minute, counts)| watched.add(*minute, counts));
                    logical.iter().for_each(|(minute, counts)| watched.add_logical(*minute, counts));
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
}

pub(super) fn revision_of(watched: &Watched) -> Option<Revision> {
    let (service, slo) = (watched.slo.slo.service.clone(), watched.slo.slo.name.clone());
    Some(Revision { service, slo, name: watched.revision.clone()? })
}
