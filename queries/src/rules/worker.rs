//! Work that waits for the disk or for queries, each kind on a thread of its own, one job at a time.

use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::Value;
use toolgauge_proto::lake::{AppendError, Lake, Txn};
use toolgauge_proto::table::Table;
use toolgauge_proto::time::Clock;

use super::book::{Change, MEASURED, rows};
use super::said::seconds;
use crate::engine::Engine;
use crate::json;
use crate::tables::Catalog;

/// Pause before an append that found no room is tried again.
const NO_ROOM_PAUSE: Duration = Duration::from_secs(1);
/// Longest time that is spent on finding causes, for all changes of an evaluation together: what has none by then goes out without.
const FINDINGS_TIMEOUT: Duration = Duration::from_secs(3);

/// A thread that does jobs.
#[derive(Debug)]
pub(super) struct Worker<J, D> {
    jobs: Option<SyncSender<J>>,
    done: Receiver<D>,
    thread: Option<JoinHandle<()>>,
    busy: bool,
}

impl<J: Send + 'static, D: Send + 'static> Worker<J, D> {
    /// Starts it. `work` may look at the jobs to see whether it is to end: nobody hands over a job while one is under way.
    pub(super) fn start(name: &str, work: impl Fn(J, &Receiver<J>) -> D + Send + 'static) -> std::io::Result<Self> {
        let (jobs, to_do) = mpsc::sync_channel(1);
        let (answers, done) = mpsc::sync_channel(1);
        let run = move || {
            while let Ok(job) = to_do.recv() {
                if answers.send(work(job, &to_do)).is_err() {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(run)?;
        Ok(Self { jobs: Some(jobs), done, thread: Some(thread), busy: false })
    }

    pub(super) fn is_busy(&self) -> bool {
        self.busy
    }

    /// Hands over a job; only if it is not busy.
    pub(super) fn begin(&mut self, job: J) {
        self.busy = self.jobs.as_ref().is_some_and(|jobs| jobs.try_send(job).is_ok());
    }

    /// What became of the job, if it is done within this time.
    pub(super) fn take(&mut self, limit: Duration) -> Option<D> {
        if !self.busy {
            return None;
        }
        let done = self.done.recv_timeout(limit).ok()?;
        self.busy = false;
        Some(done)
    }

    /// Ends the thread; what it is doing is given up where it waits.
    pub(super) fn stop(mut self) {
        drop(self.jobs.take());
        drop(self.done);
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("a thread of the evaluation of rules has panicked");
        }
    }
}

/// Asks questions of the newest snapshot.
#[derive(Debug, Clone)]
pub(super) struct Asking {
    pub(super) lake: Arc<dyn Lake>,
    pub(super) engine: Arc<Engine>,
    pub(super) catalog: Catalog,
    pub(super) clock: Arc<dyn Clock>,
}

impl Asking {
    /// A session is over when nothing of it has happened for so many microseconds.
    pub(super) fn idle_us(&self) -> i64 {
        i64::try_from(self.engine.settings().session_idle.as_micros()).unwrap_or(i64::MAX)
    }

    /// The rows of an answer.
    pub(super) fn rows(&self, statement: String, limit: Option<Duration>) -> Result<Vec<Vec<Value>>, String> {
        let now = chrono::DateTime::from_timestamp_micros(self.clock.now().0).unwrap_or_default();
        let schema = self.catalog.schema(self.lake.view());
        let limit = limit.unwrap_or(self.engine.settings().timeout);
        let answer = self
            .engine
            .block_on(async { tokio::time::timeout(limit, self.engine.query(schema, now, statement)).await })
            .map_err(|_| format!("no answer within {limit:?}"))?
            .map_err(|error| error.to_string())?;
        json::response(&answer).map(|response| response.rows).map_err(|error| error.to_string())
    }

    /// Looks for what an alert that begins to fire has to say besides.
    fn find(&self, change: &mut Change, deadline: Instant) {
        for (name, statement) in std::mem::take(&mut change.questions) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            let texts = match self.rows(statement, Some(left)) {
                Ok(rows) => rows.iter().filter_map(|row| text(name, row)).collect::<Vec<_>>(),
                Err(error) => {
                    tracing::warn!(error, name, "look for the causes of an alert");
                    continue;
                }
            };
            if !texts.is_empty() {
                change.findings.insert(name.to_owned(), texts.join(", "));
            }
        }
    }
}

/// A row of a finding: a name, with the number that follows it if it is one; durations in nanoseconds stand alone.
fn text(name: &str, row: &[Value]) -> Option<String> {
    match (row.first()?, row.get(1).and_then(Value::as_u64)) {
        (Value::String(text), Some(count)) => Some(format!("{text} {count}")),
        (Value::String(text), None) => Some(text.clone()),
        (Value::Number(number), _) if name == MEASURED => Some(seconds(number.as_f64()? / 1e9)),
        _ => None,
    }
}

/// Changes that were handled.
#[derive(Debug)]
pub(super) struct Appended {
    pub(super) changes: Vec<Change>,
    /// Whether they are in the table.
    pub(super) recorded: bool,
}

/// Appends changes to `alerts`, with what is found out about those that begin to fire.
pub(super) fn append(
    asking: &Asking,
    (mut changes, version): (Vec<Change>, i64),
    jobs: &Receiver<(Vec<Change>, i64)>,
) -> Appended {
    let deadline = Instant::now() + FINDINGS_TIMEOUT;
    for change in &mut changes {
        asking.find(change, deadline);
    }
    let recorded = match rows(&changes) {
        Ok(batch) => append_rows(&*asking.lake, batch, version, || {
            matches!(jobs.recv_timeout(NO_ROOM_PAUSE), Err(RecvTimeoutError::Disconnected))
        }),
        Err(error) => {
            tracing::error!(%error, "build rows of alerts");
            false
        }
    };
    Appended { changes, recorded }
}

/// What names the appends of rules' alerts.
pub(super) fn app_id(lake: &dyn Lake) -> String {
    format!("{}/alerts-rules", lake.writer())
}

fn append_rows(lake: &dyn Lake, rows: arrow::array::RecordBatch, version: i64, ends: impl Fn() -> bool) -> bool {
    let txn = Txn { app_id: app_id(lake), version };
    loop {
        match lake.append(Table::Alerts, vec![rows.clone()], txn.clone()) {
            Ok(true) => return true,
            Ok(false) => {
                tracing::error!(version, "alerts of rules were not appended: this version is there already");
                return false;
            }
            Err(error @ AppendError::NoRoom { .. }) => {
                tracing::warn!(%error, "it is tried again");
                if ends() {
                    return false;
                }
            }
            Err(error @ AppendError::Invalid { .. }) => {
                tracing::error!(%error, "append alerts of rules");
                return false;
            }
            Err(AppendError::Stopped { .. }) => return false,
        }
    }
}
