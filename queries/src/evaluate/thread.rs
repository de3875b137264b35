//! The thread of the evaluation.

mod backfill;
mod load;
mod prove;
mod write;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering::{self, Relaxed};
use std::sync::mpsc::Receiver;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use toolgauge_analytics::sli::Counts;
use toolgauge_analytics::window::Minute;
use toolgauge_proto::id::WalPosition;
use toolgauge_proto::lake::{Feed, FeedItem, SettledRows, View};
use toolgauge_proto::table::Table;

use super::alerts::{AlertId, Change};
use super::append::{Appender, Context};
use super::definition::{Definition, LooseTally, SettledTally};
use super::history::Revision;
use super::round::{Alerts, Round};
use super::telemetry::Arrivals;
use super::time::Time;
use super::{AlertStatus, EvaluateSettings, Evaluated, SeriesRequest, Shared};
use crate::engine::Engine;
use crate::json::rfc3339;
use crate::notify::PostableAlert;
use crate::slo::counter::Counter;
use crate::slo::definition::Slo;
use crate::slo::group::NO_GROUP;
use crate::slo::set::{SloSet, Sources};
use crate::tables::Catalog;
use backfill::Reading;
use prove::Proof;

/// How often it is looked whether to end.
const LOOK: Duration = Duration::from_millis(100);

pub(super) fn start(
    settings: EvaluateSettings,
    sources: Sources,
    context: Context,
    shared: Arc<Shared>,
    requests: Receiver<SeriesRequest>,
) -> std::io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name("evaluate".into()).stack_size(16 << 20).spawn(move || {
        let feed = context.lake.feed();
        let result = Thread::load(settings, sources, context, shared, feed, requests).map(Thread::run);
        if let Err(error) = result {
            tracing::error!(error = error.to_string(), "the evaluation of SLOs cannot go on");
        }
    })
}

struct Thread {
    settings: EvaluateSettings,
    shared: Arc<Shared>,
    engine: Arc<Engine>,
    lake: Arc<dyn toolgauge_proto::lake::Lake>,
    catalog: Catalog,
    clock: Arc<dyn toolgauge_proto::time::Clock>,
    feed: Box<dyn Feed>,
    requests: Receiver<SeriesRequest>,
    appender: Appender,
    sources: Sources,
    set: Arc<SloSet>,
    /// By service and name; a successor stands behind the one that answers for it.
    definitions: Vec<Definition>,
    /// The names that rows of `slo_1m` have, or had: none is given twice.
    names: HashSet<Revision>,
    /// Counts the definitions, by their places.
    counter: Counter,
    arrivals: Arrivals,
    alerts: Alerts,
    /// Rows up to here are in the rings.
    folded: WalPosition,
    /// The rows after here are those that were counted as live ones last.
    live_after: WalPosition,
    /// Whether rows have come since the last append to `slo_1m`.
    has_folded: bool,
    /// Time of the last evaluation.
    time: Time,
    /// The last version of `slo_1m` that was appended, or is being appended.
    slo_version: i64,
    last_flush: Instant,
    /// Revisions that are no longer counted, to be written down.
    retired: Vec<Revision>,
    reading: Option<Reading>,
    reading_not_before: Instant,
    proof: Proof,
    changes: Vec<Change>,
    next_change: u64,
    /// Changes up to here are committed.
    committed_change: u64,
    /// Whether `slo_1m` can be written no more.
    slo_broken: bool,
}

impl Thread {
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
                if let Err(error) = self.reload(HashMap::new()) {
                    tracing::error!(error = error.to_string(), "take the SLOs as they are now");
                }
                self.evaluate();
                let missed = next.elapsed().as_nanos() / self.settings.interval.as_nanos().max(1);
                let missed = u32::try_from(missed).unwrap_or(u32::MAX);
                self.shared.counters.missed.fetch_add(missed.into(), Relaxed);
                next += self.settings.interval * (missed + 1);
            }
            self.append();
            self.prove();
        }
        self.finish();
    }

    fn fold(&mut self, settled: &SettledRows) {
        for batch in settled.rows.iter() {
            self.shared.counters.rows.fetch_add(batch.num_rows() as u64, Relaxed);
            self.has_folded |= batch.num_rows() > 0;
            if let Err(error) = self.counter.count(batch, None, &mut SettledTally(&mut self.definitions)) {
                tracing::error!(%error, "count settled rows");
            }
        }
        for definition in &mut self.definitions {
            definition.admit_staged();
            let overflowed = definition.take_overflowed();
            self.shared.counters.overflowed_events.fetch_add(overflowed, Relaxed);
        }
        self.folded = self.folded.max(settled.up_to);
    }

    fn evaluate(&mut self) {
        let began = Instant::now();
        let Some(view) = self.catch_up() else { return };
        let at = self.time.advance(&*self.clock, view.position, view.watermark);
        let now = Minute::of(at.time);
        self.arrivals.forget(now);
        let ownership = self.settings.ownership.load_full();
        let mut round = Round {
            at,
            arrivals: &self.arrivals,
            coverages: HashMap::new(),
            alerts: &mut self.alerts,
            changes: &mut self.changes,
            next_change: &mut self.next_change,
            ownership: &ownership,
        };
        let waiting = round.changes.len();
        let mut slos = Vec::with_capacity(self.definitions.len());
        for place in 0..self.definitions.len() {
            let next = self.definitions.get(place + 1).filter(|next| next.is_successor);
            let backfill = next.map(Definition::backfill);
            let definition = &mut self.definitions[place];
            definition.advance(now);
            self.shared.counters.verdicts_turned.fetch_add(definition.judge(), Relaxed);
            if !definition.is_successor {
                round.definition(definition, backfill, &mut slos);
            }
        }
        let definitions = &self.definitions;
        round.end_orphans(self.set.is_partial, |id| {
            let own = (id.label("service"), id.label("slo"));
            let of = |slo: &Slo| (Some(slo.service.as_str()), Some(slo.name.as_str())) < own;
            let place = definitions.partition_point(|definition| of(&definition.slo.slo));
            definitions.get(place).is_some_and(|definition| definition.has_alert(id))
        });
        let changes = (self.changes.len() - waiting) as u64;
        let alerts = self.alerts.values().map(|alert| AlertStatus {
            fingerprint: Arc::clone(&alert.id.fingerprint),
            labels: Arc::clone(&alert.id.labels),
            annotations: alert.annotations.iter().chain(&alert.findings).map(|(k, v)| (k.clone(), v.clone())).collect(),
            state: alert.state,
        });
        let evaluated = Evaluated { at: Some(at), set: Arc::clone(&self.set), slos, alerts: alerts.collect() };
        // Whoever sees the evaluation knows how many changes there are to come.
        self.shared.counters.changes.fetch_add(changes, Relaxed);
        self.shared.evaluated.store(Arc::new(evaluated));
        self.shared.ready.store(true, Ordering::Release);
        self.deliver();
        let counters = &self.shared.counters;
        counters.rounds.fetch_add(1, Relaxed);
        counters.round_micros.fetch_add(began.elapsed().as_micros() as u64, Relaxed);
    }

    /// Counts the rows of the newest view: the committed ones of it that have not come yet, and the live ones. None if that is not possible.
    fn catch_up(&mut self) -> Option<Arc<View>> {
        let view = self.lake.view();
        // Whatever is committed in the view was offered before.
        while self.folded < view.committed {
            match self.feed.recv(Duration::ZERO) {
                FeedItem::Rows(rows) => self.fold(&rows),
                // The collector is about to end, and so is this.
                FeedItem::End => return None,
                FeedItem::Nothing => {
                    tracing::error!(folded = %self.folded, committed = %view.committed, "rows are committed that did not come");
                    return None;
                }
            }
        }
        if let Err(error) = self.count_live(&view) {
            tracing::error!(%error, "count live rows");
            return None;
        }
        self.live_after = self.folded;
        Some(view)
    }

    fn count_live(&mut self, view: &View) -> Result<(), arrow::error::ArrowError> {
        let mut live = LooseTally::new(&self.definitions, self.definitions.len());
        for batch in view.table(Table::Calls).live.get()?.iter() {
            self.counter.count(batch, Some(self.folded), &mut live)?;
        }
        let live = live.of;
        for (definition, live) in self.definitions.iter_mut().zip(live) {
            definition.take_live(live);
        }
        for batch in view.table(Table::Arrivals).live.get()?.iter() {
            self.arrivals.add(batch)?;
        }
        Ok(())
    }

    /// Sends what is due: what has changed and is committed, what fires on, and what was resolved a short while ago.
    fn deliver(&mut self) {
        let sending = self.time.sending(&*self.clock, self.settings.interval, self.settings.resend_delay);
        let mut due = Vec::new();
        for alert in self.alerts.values_mut().filter(|alert| alert.change <= self.committed_change && !alert.muted) {
            let Some((starts_at, ends_at)) = sending.due(alert.state, &mut alert.last_sent) else { continue };
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
            let SeriesRequest { service, slo, group, from, to, answer } = request;
            // Rows that have settled since then are no live ones any more.
            if self.live_after != self.folded {
                self.catch_up();
            }
            let named =
                |definition: &&Definition| definition.slo.slo.service == service && definition.slo.slo.name == slo;
            let definition = self.definitions.iter().find(named);
            let watched = definition.and_then(|definition| definition.find(group.as_ref()));
            let series = watched.map(|watched| {
                let mut series: HashMap<Minute, Counts> = watched.ring.minutes(from..=to).collect();
                for (minute, counts) in watched.live.iter().filter(|(minute, _)| (from..=to).contains(*minute)) {
                    *series.entry(*minute).or_default() += counts;
                }
                let mut series: Vec<(Minute, Counts)> = series.into_iter().collect();
                series.sort_unstable_by_key(|(minute, _)| *minute);
                series.iter_mut().for_each(|(minute, counts)| *counts = watched.shown(*minute, *counts));
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
    if *id.group != *NO_GROUP {
        url.query_pairs_mut().append_pair("group", &id.group);
    }
    Some(url.into())
}
