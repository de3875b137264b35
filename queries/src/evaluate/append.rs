//! Writes to the tables that are ours, on a thread of its own: an append waits for the disk, and an evaluation does not.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender, TryRecvError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use toolgauge_analytics::budget::Severity;
use toolgauge_analytics::window::Minute;
use toolgauge_proto::lake::{AppendError, Lake, Txn};
use toolgauge_proto::table::Table;
use toolgauge_proto::time::Clock;

use super::alerts::{Change, FINDINGS, rows};
use crate::engine::Engine;
use crate::json;
use crate::slo::group::NAMED_MAX;
use crate::slo::sql::{self, Span};
use crate::tables::Catalog;

/// Pause before an append that found no room is tried again.
const NO_ROOM_PAUSE: Duration = Duration::from_secs(1);
/// Pause before an append that failed otherwise is tried again; each time twice as long.
const RETRY_PAUSE: Duration = Duration::from_millis(200);
/// How often it is tried: for three seconds. What has not gone away by then is a fault of the program.
const TRIES_MAX: u32 = 5;
/// What is to be written; one at a time.
#[derive(Debug)]
pub(super) enum Job {
    /// Rows of `slo_1m` and the position up to which they are counted.
    Slo(RecordBatch, i64),
    /// Changes of alerts.
    Alerts(Vec<Change>),
}

/// What became of it.
#[derive(Debug)]
pub(super) enum Done {
    Slo,
    /// The changes, with what was found out about those that began to fire.
    Alerts(Vec<Change>),
    /// The changes could not be written.
    Unrecorded(Vec<Change>),
    /// It was told to end, or the collector has ended; whether the rows are there is open.
    Stopped,
    /// It can never be written; whoever counts on it must begin anew.
    Failed,
}

/// Why rows were not appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum NotAppended {
    /// See [`Done::Stopped`].
    Stopped,
    /// It was tried often enough.
    Failed,
}

/// What the thread needs.
#[derive(Debug)]
pub(super) struct Context {
    pub(super) lake: Arc<dyn Lake>,
    pub(super) engine: Arc<Engine>,
    pub(super) catalog: Catalog,
    pub(super) clock: Arc<dyn Clock>,
    /// See [`super::EvaluateSettings::findings_timeout`].
    pub(super) findings_timeout: Duration,
}

/// The thread.
#[derive(Debug)]
pub(super) struct Appender {
    jobs: Option<SyncSender<Job>>,
    done: Receiver<Done>,
    thread: Option<JoinHandle<()>>,
    busy: bool,
}

impl Appender {
    pub(super) fn start(context: Context) -> std::io::Result<Self> {
        let (jobs, to_do) = mpsc::sync_channel(1);
        let (answers, done) = mpsc::sync_channel(1);
        let thread = std::thread::Builder::new().name("append".into()).spawn(move || context.run(&to_do, &answers))?;
        Ok(Self { jobs: Some(jobs), done, thread: Some(thread), busy: false })
    }

    pub(super) fn is_busy(&self) -> bool {
        self.busy
    }

    /// Hands over a job; only if it is not busy.
    pub(super) fn begin(&mut self, job: Job) {
        self.busy = self.jobs.as_ref().is_some_and(|jobs| jobs.try_send(job).is_ok());
    }

    /// The job that is done, if one is.
    pub(super) fn poll(&mut self) -> Option<Done> {
        match self.done.try_recv() {
            Ok(done) => {
                self.busy = false;
                Some(done)
            }
            // Whoever is gone answers nothing more.
            Err(TryRecvError::Empty | TryRecvError::Disconnected) => None,
        }
    }

    /// Waits for the job under way.
    pub(super) fn wait(&mut self, limit: Duration) -> Option<Done> {
        if !self.busy {
            return None;
        }
        let done = self.done.recv_timeout(limit).ok();
        self.busy = false;
        done
    }

    /// Ends the thread; what it is doing is given up where it waits.
    pub(super) fn stop(mut self) {
        drop(self.jobs.take());
        drop(self.done);
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the thread that appends to the tables has panicked");
        }
    }
}

impl Context {
    fn run(&self, jobs: &Receiver<Job>, answers: &SyncSender<Done>) {
        while let Ok(job) = jobs.recv() {
            let done = match job {
                Job::Slo(rows, version) => match self.append(Table::Slo1m, &rows, version, jobs) {
                    Ok(()) => Done::Slo,
                    Err(NotAppended::Stopped) => Done::Stopped,
                    Err(NotAppended::Failed) => Done::Failed,
                },
                Job::Alerts(mut changes) => {
                    self.find_all_causes(&mut changes);
                    match self.record(&changes, jobs) {
                        Ok(()) => Done::Alerts(changes),
                        Err(NotAppended::Stopped) => Done::Stopped,
                        Err(NotAppended::Failed) => Done::Unrecorded(changes),
                    }
                }
            };
            if answers.send(done).is_err() {
                return;
            }
        }
    }

    fn app_id(&self, table: Table) -> String {
        format!("{}/{}", self.lake.writer(), table.name())
    }

    /// Writes changes to the table of alerts, as the version after the last one that is there.
    fn record(&self, changes: &[Change], jobs: &Receiver<Job>) -> Result<(), NotAppended> {
        let failed = |error: &dyn std::fmt::Display| {
            tracing::error!(%error, "write changes of alerts");
            NotAppended::Failed
        };
        let rows = rows(changes).map_err(|error| failed(&error))?;
        let last = match self.lake.committed_version(Table::Alerts, &self.app_id(Table::Alerts)) {
            Ok(last) => last.unwrap_or(-1),
            Err(AppendError::Stopped { .. }) => return Err(NotAppended::Stopped),
            Err(error) => return Err(failed(&error)),
        };
        self.append(Table::Alerts, &rows, last + 1, jobs)
    }

    /// Appends, with patience.
    fn append(&self, table: Table, rows: &RecordBatch, version: i64, jobs: &Receiver<Job>) -> Result<(), NotAppended> {
        let txn = Txn { app_id: self.app_id(table), version };
        let mut tries = 0;
        loop {
            let pause = match self.lake.append(table, vec![rows.clone()], txn.clone()) {
                Ok(true) => return Ok(()),
                Ok(false) => {
                    tracing::error!(
                        table = table.name(),
                        version,
                        "rows were not appended: this version is there already"
                    );
                    return Err(NotAppended::Failed);
                }
                Err(AppendError::Stopped { .. }) => return Err(NotAppended::Stopped),
                Err(error @ AppendError::NoRoom { .. }) => {
                    tracing::warn!(%error, "it is tried again");
                    NO_ROOM_PAUSE
                }
                Err(error @ AppendError::Invalid { .. }) => {
                    tries += 1;
                    if tries >= TRIES_MAX {
                        tracing::error!(%error, tries, "append rows");
                        return Err(NotAppended::Failed);
                    }
                    tracing::warn!(%error, "it is tried again");
                    RETRY_PAUSE * 2_u32.pow(tries - 1)
                }
            };
            // Nobody hands over a job while one is under way.
            if let Err(RecvTimeoutError::Disconnected) = jobs.recv_timeout(pause) {
                return Err(NotAppended::Stopped);
            }
        }
    }

    /// Adds what failed most and some of its traces to alerts that begin to fire, those that page first.
    fn find_all_causes(&self, changes: &mut [Change]) {
        let deadline = Instant::now() + self.findings_timeout;
        let begins = |change: &&mut Change| change.to.is_firing() && !change.from.is_firing();
        let mut begun: Vec<&mut Change> = changes.iter_mut().filter(begins).collect();
        begun.sort_by_key(|change| {
            change.decisive.as_ref().is_none_or(|decisive| decisive.tier.severity != Severity::Page)
        });
        let all = begun.len();
        for (done, change) in begun.into_iter().enumerate() {
            if Instant::now() >= deadline {
                tracing::warn!(alerts = all, without = all - done, "alerts begin to fire, some without causes");
                break;
            }
            self.find_causes(change, deadline);
        }
    }

    fn find_causes(&self, change: &mut Change, deadline: Instant) {
        let Some(decisive) = &change.decisive else { return };
        let minutes = decisive.tier.long.at(Minute::of(change.time));
        let sli = &decisive.slo.slo.sli;
        let span = Span { from: minutes.start().start(), to: Minute(minutes.end().0 + 1).start(), position: None };
        let group = decisive.group.as_ref().map_or(String::new(), |group| group.condition(NAMED_MAX));
        let (scope, bad) = (sql::scope(sli, &span) + &group, sql::bad(sli));
        let contributors = format!(
            "SELECT coalesce(service_name, '?') || ' ' || coalesce(tool_server || '/', '') || coalesce(tool_name, model, agent_name, '?')
                || ' ' || error_class, count(*) AS failed
            FROM calls WHERE {scope} AND {bad} GROUP BY 1 ORDER BY failed DESC, 1 LIMIT 5"
        );
        let traces = format!(
            "SELECT hex(trace_id), max(end_time) AS newest FROM calls WHERE {scope} AND {bad} AND trace_id IS NOT NULL
            GROUP BY 1 ORDER BY newest DESC, 1 LIMIT 3"
        );
        for (name, statement) in FINDINGS.into_iter().zip([traces, contributors]) {
            match self.ask(statement, deadline) {
                Ok(rows) if rows.is_empty() => {}
                Ok(rows) => {
                    change.annotations.insert(name.to_owned(), rows.join(", "));
                }
                Err(error) => tracing::warn!(error, name, "look for the causes of an alert"),
            }
        }
    }

    /// The first column of each row, with the number in the second if it is one.
    fn ask(&self, statement: String, deadline: Instant) -> Result<Vec<String>, String> {
        let now = chrono::DateTime::from_timestamp_micros(self.clock.now().0).unwrap_or_default();
        let schema = self.catalog.schema(self.lake.view());
        let answer = self.engine.block_on(async {
            tokio::time::timeout_at(deadline.into(), self.engine.query(schema, now, statement)).await
        });
        let answer = answer
            .map_err(|_| format!("not found within {:?}", self.findings_timeout))?
            .map_err(|error| error.to_string())?;
        let rows = json::response(&answer).map_err(|error| error.to_string())?.rows;
        Ok(rows
            .iter()
            .filter_map(|row| {
                let name = row.first()?.as_str()?;
                Some(match row.get(1).and_then(serde_json::Value::as_u64) {
                    Some(count) => format!("{name} {count}"),
                    None => name.to_owned(),
                })
            })
            .collect())
    }
}

/// The texts of a change that were found out on this thread.
pub(super) fn findings(change: &Change) -> BTreeMap<String, String> {
    let found = FINDINGS.iter().filter_map(|name| Some(((*name).to_owned(), change.annotations.get(*name)?.clone())));
    found.collect()
}
