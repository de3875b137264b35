//! The history of SLOs that are new or count something else: when it is read, and what becomes of it.
//!
//! An SLO that counts something else than before has two definitions: the one that was there answers until the history of the other, its
//! successor, is counted.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, SyncSender, TryRecvError};
use std::time::{Duration, Instant};

use toolgauge_proto::id::WalPosition;
use toolgauge_proto::lake::View;
use toolgauge_proto::table::Table;

use super::Thread;
use crate::engine::Error;
use crate::evaluate::backfill::{FirstGroups, History, Part, Progress, Target};
use crate::evaluate::definition::{Definition, Past};
use crate::evaluate::history::{self, Revision};
use crate::slo::set::CompiledSlo;

/// Pause after a history that could not be read.
const HISTORY_PAUSE: Duration = Duration::from_secs(60);

/// A history that is being read, for some SLOs.
pub(super) struct Reading {
    stage: Stage,
    progress: Arc<Progress>,
    /// The thread ends when this is dropped.
    _wanted: SyncSender<()>,
}

enum Stage {
    /// The groups of these SLOs are looked for, in the rows up to a position.
    Looking { slos: Vec<Arc<CompiledSlo>>, up_to: WalPosition, result: Receiver<Result<FirstGroups, Error>> },
    /// They are found.
    Found { slos: Vec<Arc<CompiledSlo>>, up_to: WalPosition, groups: FirstGroups },
    /// Everything is counted; these are the names of the rows.
    Counting { revisions: Vec<Arc<Revision>>, parts: Receiver<Result<Part, Error>> },
}

impl Thread {
    /// Begins to read the history of SLOs that have none, or goes on to the next step.
    pub(super) fn begin_reading(&mut self, view: &Arc<View>) {
        // What is committed in the view is what was folded: from here on rows are counted as they come.
        if self.folded != view.committed {
            return;
        }
        match self.reading.take() {
            None if Instant::now() < self.reading_not_before => {}
            // This is asked for many times a second.
            None if !self.definitions.iter().any(|definition| definition.past == Past::Waiting) => {}
            None => {
                let waiting = self.definitions.iter().filter(|definition| definition.past == Past::Waiting);
                let grouped = waiting.filter(|definition| definition.is_grouped());
                let slos: Vec<Arc<CompiledSlo>> = grouped.map(|definition| Arc::clone(&definition.slo)).collect();
                if slos.is_empty() {
                    self.begin_counting(view, &[], &Progress::new(false));
                } else {
                    self.look_for_groups(view, slos);
                }
            }
            Some(Reading { stage: Stage::Found { slos, up_to, groups }, progress, .. }) => {
                match self.groups_since(view, &slos, up_to) {
                    Ok(since) => {
                        let found: Vec<_> = slos.iter().zip(groups.into_iter().zip(since)).collect();
                        let found: Vec<(&CompiledSlo, Vec<_>)> = found
                            .into_iter()
                            .map(|(slo, (groups, since))| (slo.as_ref(), groups.into_iter().chain(since).collect()))
                            .collect();
                        self.begin_counting(view, &found, &progress);
                    }
                    Err(error) => self.fail_reading(&[], &error),
                }
            }
            reading => self.reading = reading,
        }
    }

    fn history(&self, view: &Arc<View>, progress: &Arc<Progress>) -> (History, SyncSender<()>) {
        let (is_wanted, wanted) = mpsc::sync_channel(0);
        let (engine, view, progress) = (Arc::clone(&self.engine), Arc::clone(view), Arc::clone(progress));
        (History { engine, view, progress, wanted }, is_wanted)
    }

    fn look_for_groups(&mut self, view: &Arc<View>, slos: Vec<Arc<CompiledSlo>>) {
        let progress = Progress::new(true);
        for definition in self.definitions.iter_mut().filter(|definition| definition.past == Past::Waiting) {
            definition.progress = Some(Arc::clone(&progress));
        }
        let (history, wanted) = self.history(view, &progress);
        let (answer, result) = mpsc::sync_channel(1);
        let asked = slos.clone();
        // Nobody waits for it any more if the evaluation has ended.
        spawn(move || drop(answer.send(history.groups(&asked))));
        let stage = Stage::Looking { slos, up_to: view.committed, result };
        self.reading = Some(Reading { stage, progress, _wanted: wanted });
    }

    /// The groups that have come while others were looked for. It waits: these rows are few, and more come meanwhile.
    fn groups_since(&self, view: &View, slos: &[Arc<CompiledSlo>], up_to: WalPosition) -> Result<FirstGroups, Error> {
        if up_to == view.committed {
            return Ok(vec![Vec::new(); slos.len()]);
        }
        let calls = Arc::clone(&view.table(Table::Calls).committed);
        let since = history::after(up_to);
        self.engine.block_on(history::first_groups(&self.engine, calls, slos, Some(since), |_| true))
    }

    /// Counts the history of the SLOs that wait, those with groups if their groups are known.
    fn begin_counting(
        &mut self,
        view: &Arc<View>,
        found: &[(&CompiledSlo, Vec<(WalPosition, crate::slo::group::GroupKey)>)],
        progress: &Arc<Progress>,
    ) {
        let found: HashMap<(&str, &str, String), _> = found
            .iter()
            .map(|(slo, groups)| ((&*slo.slo.service, &*slo.slo.name, slo.slo.revision()), groups))
            .collect();
        let mut targets = Vec::new();
        for definition in self.definitions.iter_mut().filter(|definition| definition.past == Past::Waiting) {
            let slo = Arc::clone(&definition.slo);
            let groups = found.get(&(&*slo.slo.service, &*slo.slo.name, slo.slo.revision()));
            if definition.is_grouped() && groups.is_none() {
                continue;
            }
            definition.clear();
            for (began, key) in groups.into_iter().copied().flatten() {
                definition.admit_own(key, *began);
            }
            definition.note_full();
            // A definition that comes back after it was gone has missed rows: then its old ones must not be taken for all.
            let name = (0..).map(|again| match again {
                0 => format!("{}-{}", slo.slo.revision(), self.folded),
                again => format!("{}-{}-{again}", slo.slo.revision(), self.folded),
            });
            let mut names = name.map(|name| definition.revision_of(name));
            let Some(revision) = names.find(|revision| self.names.insert(revision.clone())) else { continue };
            definition.past = Past::Reading;
            definition.revision = Some(revision.name.clone());
            definition.progress = Some(Arc::clone(progress));
            let groups = definition.places().iter().map(|(key, (_, began))| (Arc::clone(key), *began)).collect();
            targets.push(Target { slo, revision: Arc::new(revision), groups });
        }
        if targets.is_empty() {
            return;
        }
        tracing::info!(slos = targets.len(), "counting the history of new SLOs");
        let revisions = targets.iter().map(|target| Arc::clone(&target.revision)).collect();
        let (history, wanted) = self.history(view, progress);
        let (answer, parts) = mpsc::sync_channel(1);
        let lake = Arc::clone(&self.lake);
        spawn(move || history.count(&targets, &lake, &answer));
        let stage = Stage::Counting { revisions, parts };
        self.reading = Some(Reading { stage, progress: Arc::clone(progress), _wanted: wanted });
    }

    /// Takes what was read.
    pub(super) fn take_history(&mut self) {
        let Some(reading) = &mut self.reading else { return };
        match &mut reading.stage {
            Stage::Looking { slos, up_to, result } => match received(result) {
                None => {}
                Some(Ok(groups)) => {
                    reading.stage = Stage::Found { slos: std::mem::take(slos), up_to: *up_to, groups };
                }
                Some(Err(error)) => self.fail_reading(&[], &error),
            },
            Stage::Found { .. } => {}
            Stage::Counting { revisions, parts } => {
                let Some(part) = received(parts) else { return };
                let revisions = revisions.clone();
                match part {
                    Ok(Part::Sums { counts, logical, fed_by }) => {
                        let places = self.places_of(&revisions);
                        for (slo, group, minute, counts) in &counts {
                            let Some(definition) = places[*slo].map(|place| &mut self.definitions[place]) else {
                                continue;
                            };
                            let watched = definition.place(group.as_ref());
                            definition.watched[watched].ring.add(*minute, counts);
                        }
                        for (slo, minute, counts) in &logical {
                            if let Some(place) = places[*slo] {
                                self.definitions[place].add_logical(*minute, counts);
                            }
                        }
                        for (slo, group, service, minute) in &fed_by {
                            let Some(definition) = places[*slo].map(|place| &mut self.definitions[place]) else {
                                continue;
                            };
                            let watched = definition.place(group.as_ref());
                            definition.watched[watched].fed(service, *minute);
                        }
                    }
                    Ok(Part::End) => self.end_reading(&revisions),
                    Err(error) => self.fail_reading(&revisions, &error),
                }
            }
        }
    }

    /// Where the definitions stand whose rows are called so; some may be gone.
    fn places_of(&self, revisions: &[Arc<Revision>]) -> Vec<Option<usize>> {
        let reading = self.definitions.iter().enumerate().filter(|(_, definition)| definition.past == Past::Reading);
        let places: HashMap<Revision, usize> =
            reading.filter_map(|(place, definition)| Some((definition.revision()?, place))).collect();
        revisions.iter().map(|revision| places.get(revision.as_ref()).copied()).collect()
    }

    fn end_reading(&mut self, revisions: &[Arc<Revision>]) {
        self.reading = None;
        for place in self.places_of(revisions).into_iter().flatten() {
            let definition = &mut self.definitions[place];
            (definition.past, definition.untold, definition.progress) = (Past::Known, true, None);
        }
        tracing::info!(slos = revisions.len(), "counted the history of new SLOs");
        // Whose successor is ready has answered for long enough.
        let is_ready = |definition: &Definition| definition.is_successor && definition.past == Past::Known;
        if !self.definitions.iter().any(is_ready) {
            return;
        }
        let mut definitions: Vec<Definition> = Vec::with_capacity(self.definitions.len());
        for mut definition in std::mem::take(&mut self.definitions) {
            if is_ready(&definition)
                && let Some(before) = definitions.pop()
            {
                self.retired.extend(before.revision());
                definition.is_successor = false;
            }
            definitions.push(definition);
        }
        self.definitions = definitions;
        if let Err(error) = self.count_anew() {
            tracing::error!(error = error.to_string(), "take the SLOs whose history is counted");
        }
    }

    fn fail_reading(&mut self, revisions: &[Arc<Revision>], error: &Error) {
        tracing::error!(error = error.to_string(), "count the history of new SLOs; it is tried again");
        for place in self.places_of(revisions).into_iter().flatten() {
            let definition = &mut self.definitions[place];
            // Parts of it may be in the table.
            self.retired.extend(definition.revision());
            (definition.past, definition.revision) = (Past::Waiting, None);
        }
        self.definitions.iter_mut().for_each(|definition| definition.progress = None);
        self.reading = None;
        self.reading_not_before = Instant::now() + HISTORY_PAUSE;
    }
}

/// What has come; an error if nothing will.
fn received<T>(from: &Receiver<Result<T, Error>>) -> Option<Result<T, Error>> {
    match from.try_recv() {
        Ok(result) => Some(result),
        Err(TryRecvError::Empty) => None,
        Err(TryRecvError::Disconnected) => Some(Err(Error::Internal("the thread has ended".to_owned()))),
    }
}

/// If no thread can be started, whoever waits for it hears that it has ended.
fn spawn(work: impl FnOnce() + Send + 'static) {
    if let Err(error) = std::thread::Builder::new().name("history".into()).stack_size(16 << 20).spawn(work) {
        tracing::error!(%error, "start a thread");
    }
}
