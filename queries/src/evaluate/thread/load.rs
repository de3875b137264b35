//! What was there before the start, and the SLOs as the files have them.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::Instant;

use datafusion::common::ScalarValue;
use datafusion::error::DataFusionError;
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
use crate::evaluate::definition::{Definition, LooseTally, Past, SettledTally};
use crate::evaluate::history::{self, Recorded, Revision};
use crate::evaluate::round::Alerts;
use crate::evaluate::telemetry::{Arrivals, REMEMBERED};
use crate::evaluate::time::Time;
use crate::evaluate::watched::longest_of;
use crate::evaluate::{EvaluateSettings, SeriesRequest, Shared};
use crate::slo::counter::Counter;
use crate::slo::fault::Severity;
use crate::slo::set::{CompiledSlo, Sources};

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
        let time = Time::new(&*clock, lake.view().watermark);
        let proof = Proof::new(time.now().0);
        let mut thread = Self {
            folded: feed.after(),
            live_after: feed.after(),
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
            definitions: Vec::new(),
            names: HashSet::new(),
            counter: Counter::new([])?,
            arrivals: Arrivals::default(),
            alerts: Alerts::new(),
            has_folded: false,
            time,
            slo_version: slo_version.unwrap_or(-1),
            last_flush: Instant::now(),
            retired: Vec::new(),
            reading: None,
            reading_not_before: Instant::now(),
            proof,
            changes: Vec::new(),
            next_change: 1,
            committed_change: 0,
            slo_broken: false,
        };
        let view = thread.aligned();
        thread.time = Time::new(&*thread.clock, view.watermark);
        thread.load_telemetry(&view)?;
        thread.load_alerts(&view)?;
        let slo_1m = Arc::clone(&view.table(Table::Slo1m).committed);
        let known = thread.engine.block_on(history::revisions(&thread.engine, slo_1m))?;
        thread.names = known.keys().cloned().collect();
        let kept = known.into_iter().filter(|(_, recorded)| !recorded.is_retired());
        // Without a cursor nobody knows what its rows have.
        let (usable, unusable): (HashMap<Revision, Recorded>, HashMap<Revision, Recorded>) =
            kept.partition(|(_, recorded)| slo_version.is_some() && recorded.is_whole());
        thread.retired.extend(unusable.into_keys());
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
        let since = REMEMBERED.at(Minute::of(self.time.now())).start().start();
        let since = ScalarValue::TimestampMicrosecond(Some(since.0), Some("UTC".into()));
        let arrivals = Arc::clone(&view.table(Table::Arrivals).committed);
        let condition = Some(col("minute").gt_eq(lit(since)));
        let (engine, found) = (Arc::clone(&self.engine), &mut self.arrivals);
        // They may be committed before the first evaluation looks at those that are live.
        for batch in view.table(Table::Arrivals).live.get().map_err(DataFusionError::from)?.iter() {
            found.add(batch).map_err(DataFusionError::from)?;
        }
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
    pub(super) fn reload(&mut self, usable: HashMap<Revision, Recorded>) -> Result<(), Error> {
        let Some(set) = self.sources.read(&self.engine) else { return Ok(()) };
        for fault in &set.faults {
            match fault.severity {
                Severity::Error => tracing::error!("{fault}"),
                Severity::Warning => tracing::warn!("{fault}"),
            }
        }
        let key_of = |slo: &CompiledSlo| (slo.slo.service.clone(), slo.slo.name.clone());
        let mut before: HashMap<(String, String), Vec<Definition>> = HashMap::new();
        for definition in std::mem::take(&mut self.definitions) {
            before.entry(key_of(&definition.slo)).or_default().push(definition);
        }
        let mut usable_of: HashMap<(String, String), Vec<(String, Recorded)>> = HashMap::new();
        for (Revision { service, slo, name }, recorded) in usable {
            usable_of.entry((service, slo)).or_default().push((name, recorded));
        }
        let now = Minute::of(self.time.now());
        for slo in &set.slos {
            let key = key_of(slo);
            let mut known = before.remove(&key).unwrap_or_default().into_iter();
            let (answering, successor) = (known.next(), known.next());
            match answering {
                Some(mut answering) if answering.counts_as(slo) => {
                    answering.redefine(slo.clone());
                    self.definitions.push(answering);
                    self.retired.extend(successor.and_then(|successor| successor.revision()));
                }
                // It answers until what replaces it is counted.
                Some(answering) if answering.past == Past::Known => {
                    let mut successor = match successor {
                        Some(mut successor) if successor.counts_as(slo) => {
                            successor.redefine(slo.clone());
                            successor
                        }
                        other => {
                            self.retired.extend(other.and_then(|other| other.revision()));
                            Definition::new(slo.clone(), now)
                        }
                    };
                    successor.is_successor = true;
                    self.definitions.extend([answering, successor]);
                }
                answering => {
                    self.retired.extend(answering.and_then(|answering| answering.revision()));
                    let mut definition = Definition::new(slo.clone(), now);
                    let hash = format!("{}-", slo.slo.revision());
                    let own = usable_of.get_mut(&key).and_then(|names| {
                        names.iter().position(|(name, _)| name.starts_with(&hash)).map(|at| names.swap_remove(at))
                    });
                    if let Some((name, recorded)) = own {
                        definition.revision = Some(name);
                        definition.take_groups(recorded.groups);
                    }
                    self.definitions.push(definition);
                }
            }
        }
        self.retired.extend(before.values().flatten().filter_map(Definition::revision));
        for ((service, slo), names) in usable_of {
            let revision = |(name, _)| Revision { service: service.clone(), slo: slo.clone(), name };
            self.retired.extend(names.into_iter().map(revision));
        }
        self.set = Arc::new(set);
        self.count_anew()
    }

    /// Counts the definitions as they are now.
    pub(super) fn count_anew(&mut self) -> Result<(), Error> {
        let slos = self.definitions.iter();
        self.counter =
            Counter::grouped(slos.map(|definition| (definition.slo.sli.as_ref(), definition.slo.slo.group_columns())))?;
        Ok(())
    }

    /// Fills the rings of SLOs whose rows are in `slo_1m`, and counts the rows of `calls` after them.
    fn load_counts(&mut self, view: &View, cursor: WalPosition) -> Result<(), Error> {
        // Two SLOs may count the same from the same position on: names alone do not tell them apart.
        let places: Vec<usize> =
            (0..self.definitions.len()).filter(|place| self.definitions[*place].revision.is_some()).collect();
        if places.is_empty() {
            return Ok(());
        }
        let definitions = places.iter().map(|place| &self.definitions[*place]);
        let longest = definitions.filter_map(Definition::held).max();
        let since = *longest.unwrap_or(Window::D30).at(Minute::of(self.time.now())).start();
        let names: HashMap<Revision, usize> =
            places.iter().filter_map(|place| Some((self.definitions[*place].revision()?, *place))).collect();
        let groups: HashMap<usize, HashMap<Arc<str>, usize>> =
            places.iter().map(|place| (*place, self.definitions[*place].texts())).collect();
        let (engine, definitions) = (Arc::clone(&self.engine), &mut self.definitions);
        let slo_1m = Arc::clone(&view.table(Table::Slo1m).committed);
        engine.block_on(history::load(&engine, slo_1m, &names, since, |place, group, minute, counts| {
            // Marks are no groups.
            if let Some(watched) = groups.get(&place).and_then(|groups| groups.get(group)) {
                definitions[place].watched[*watched].ring.add(minute, counts);
            }
        }))?;
        let calls = Arc::clone(&view.table(Table::Calls).committed);
        let grouped: Vec<usize> =
            places.iter().copied().filter(|place| self.definitions[*place].is_grouped()).collect();
        if !grouped.is_empty() {
            let slos: Vec<Arc<CompiledSlo>> =
                grouped.iter().map(|place| Arc::clone(&self.definitions[*place].slo)).collect();
            let since = Some(history::after(cursor));
            let found = engine.block_on(history::first_groups(&engine, Arc::clone(&calls), &slos, since, |_| true))?;
            for (place, groups) in grouped.iter().zip(found) {
                let definition = &mut self.definitions[*place];
                groups.iter().for_each(|(began, key)| definition.admit_own(key, *began));
                definition.note_full();
            }
        }
        places.iter().for_each(|place| self.definitions[*place].past = Past::Known);
        let (counter, mut tally) = (&self.counter, SettledTally(&mut self.definitions));
        let since = Some(history::after(cursor));
        engine.block_on(history::scan(&engine, calls, &counter.columns(), since, |batch| {
            counter.count(batch, None, &mut tally)
        }))?;
        self.definitions.iter_mut().for_each(Definition::admit_staged);
        self.load_logical(view, &places)?;
        self.load_services(view, &places)
    }

    /// Counts the logical calls of SLOs of attempts: they are not in `slo_1m`, and needed for hours only.
    fn load_logical(&mut self, view: &View, places: &[usize]) -> Result<(), Error> {
        let since = |place: &usize| self.definitions[*place].logical_since();
        let places: Vec<usize> = places.iter().copied().filter(|place| since(place).is_some()).collect();
        let Some(first) = places.iter().filter_map(since).min() else { return Ok(()) };
        let counter = Counter::new(places.iter().map(|place| self.definitions[*place].slo.sli.as_ref()))?;
        let date = col("date").gt_eq(lit(ScalarValue::Date32(Some(first.start().date32()))));
        let calls = Arc::clone(&view.table(Table::Calls).committed);
        let mut found = LooseTally::new(&[], places.len());
        self.engine.block_on(history::scan(&self.engine, calls, &counter.columns(), Some(date), |batch| {
            counter.count(batch, None, &mut found)
        }))?;
        for (place, found) in places.iter().zip(found.of) {
            self.definitions[*place].take_logical(&found.whole);
        }
        Ok(())
    }

    /// Which services fed SLOs before the cursor: within the longest window that asks whether one of them still sends.
    fn load_services(&mut self, view: &View, places: &[usize]) -> Result<(), Error> {
        let longest = places.iter().map(|place| longest_of(&self.definitions[*place].slo.slo)).max();
        let Some(longest) = longest else { return Ok(()) };
        let since = *longest.at(Minute::of(self.time.now())).start();
        let slos: Vec<Arc<CompiledSlo>> =
            places.iter().map(|place| Arc::clone(&self.definitions[*place].slo)).collect();
        let found = self.engine.block_on(history::services(&self.engine, view, &slos, since))?;
        for (place, found) in places.iter().zip(found) {
            self.definitions[*place].take_services(found);
        }
        Ok(())
    }
}
