//! The compactor's thread: merges files, removes old dates, deletes what left the tables.
//!
//! It reads and writes data files on its own; only the commit of an exchange is done by the committer, between two other jobs.
//! Nobody waits for it, and it stops nothing but itself: a failure is counted and logged, and the next round goes on.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use toolgauge_proto::lake::Lake as _;
use toolgauge_proto::table::Table;
use toolgauge_proto::time::UnixMicros;

use super::chain;
use super::committer::Job;
use super::shared::SharedLake;
use crate::lake::{Compactor, Exchange, LakeError, TableFiles, Task};

/// How often a failure is logged.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// Against another thread that wants the same CPU, it gets a tenth.
const NICENESS: i32 = 10;

/// What was done since the start.
#[derive(Debug, Default)]
pub(super) struct CompactCounters {
    merges: AtomicU64,
    files: AtomicU64,
    rows: AtomicU64,
    microseconds: AtomicU64,
    expired_files: AtomicU64,
    deleted_files: AtomicU64,
    failures: AtomicU64,
}

impl CompactCounters {
    /// Each with its name.
    pub(super) fn figures(&self) -> [(&'static str, u64); 7] {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        [
            ("toolgauge_compactions_total", get(&self.merges)),
            ("toolgauge_compacted_files_total", get(&self.files)),
            ("toolgauge_compacted_rows_total", get(&self.rows)),
            ("toolgauge_compaction_microseconds_total", get(&self.microseconds)),
            ("toolgauge_compaction_failures_total", get(&self.failures)),
            ("toolgauge_expired_files_total", get(&self.expired_files)),
            ("toolgauge_deleted_files_total", get(&self.deleted_files)),
        ]
    }
}

/// What the committer says of an exchange, when readers have it.
pub(super) type Exchanged = Result<bool, LakeError>;

/// The committer or the fold has ended, or the thread is to end.
struct Ended;

/// Where there is not enough CPU for all, threads that take in, commit and answer go before this one.
fn go_behind_others() {
    // On Linux alone niceness is of a thread; elsewhere it would be that of the whole process.
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::setpriority_process(None, NICENESS) {
        tracing::warn!(%error, "files are merged as urgently as exports are taken in");
    }
}

/// See the module.
pub(super) struct CompactThread {
    compactor: Compactor,
    interval: Duration,
    jobs: SyncSender<Job>,
    lake: Arc<SharedLake>,
    cancelled: Arc<AtomicBool>,
    began: Instant,
    logged: Option<Instant>,
}

/// The running thread; ends it when dropped.
#[derive(Debug)]
pub(super) struct CompactHandle {
    cancelled: Arc<AtomicBool>,
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl CompactHandle {
    /// Tells it to end, without waiting.
    pub(super) fn cancel(&mut self) {
        self.cancelled.store(true, Ordering::Release);
        self.stop = None;
    }
}

impl Drop for CompactHandle {
    fn drop(&mut self) {
        self.cancel();
        if let Some(Err(_)) = self.thread.take().map(JoinHandle::join) {
            tracing::error!("the compactor's thread has panicked");
        }
    }
}

impl CompactThread {
    pub(super) fn start(
        compactor: Compactor,
        interval_us: u64,
        jobs: SyncSender<Job>,
        lake: Arc<SharedLake>,
    ) -> std::io::Result<CompactHandle> {
        let cancelled = Arc::new(AtomicBool::new(false));
        let mut thread = Self {
            compactor,
            interval: Duration::from_micros(interval_us),
            jobs,
            lake,
            cancelled: Arc::clone(&cancelled),
            began: Instant::now(),
            logged: None,
        };
        let (stop, stopped) = channel();
        let thread = std::thread::Builder::new().name("compactor".into()).spawn(move || thread.run(&stopped))?;
        Ok(CompactHandle { cancelled, stop: Some(stop), thread: Some(thread) })
    }

    fn run(&mut self, stopped: &Receiver<()>) {
        go_behind_others();
        while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(self.interval) {
            for table in Table::ALL {
                if let Err(Ended) = self.round(table) {
                    return;
                }
            }
            match self.compactor.delete(self.elapsed_us()) {
                Ok(deleted) => self.count(|counters| &counters.deleted_files, deleted),
                Err(error) => self.failed("delete a file that has left its table", &error),
            }
        }
    }

    /// Does everything that is to be done with a table.
    fn round(&mut self, table: Table) -> Result<(), Ended> {
        while let Some(task) = self.next_task(table)? {
            let began = Instant::now();
            let cancelled = Arc::clone(&self.cancelled);
            let exchange = match self.compactor.prepare(task, &|| cancelled.load(Ordering::Acquire)) {
                Ok(Some(exchange)) => exchange,
                Ok(None) => return Err(Ended),
                Err(error) => {
                    self.failed("merge files", &error);
                    // Without room nothing else will do either; what cannot be read is not chosen again.
                    if matches!(error, LakeError::NoRoom { .. }) {
                        return Ok(());
                    }
                    continue;
                }
            };
            let (exchange, exchanged) = self.exchange(exchange)?;
            match exchanged {
                Ok(true) => {
                    let (files, rows) = (exchange.files(), exchange.rows());
                    if exchange.is_merge() {
                        self.count(|counters| &counters.merges, 1);
                        self.count(|counters| &counters.files, files);
                        self.count(|counters| &counters.rows, rows);
                        self.count(|counters| &counters.microseconds, began.elapsed().as_micros() as u64);
                    } else {
                        self.count(|counters| &counters.expired_files, files);
                    }
                    tracing::debug!(table = table.name(), files, rows, "replaced files");
                    self.compactor.exchanged(exchange, self.elapsed_us());
                }
                Ok(false) => {
                    self.compactor.abandon(&exchange);
                    return Ok(());
                }
                // The transaction may have come through all the same; what is not in the table is swept at the next start.
                Err(error) => {
                    self.failed("replace files", &error);
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn next_task(&mut self, table: Table) -> Result<Option<Task>, Ended> {
        let (answer, answered) = sync_channel(1);
        self.send(Job::Files { table, answer })?;
        let files: Result<TableFiles, LakeError> = answered.recv().map_err(|_| Ended)?;
        let task = files.map(|files| self.compactor.task(&files, self.now()));
        Ok(task.unwrap_or_else(|error| {
            self.failed("look for files to merge", &error);
            None
        }))
    }

    fn exchange(&mut self, exchange: Exchange) -> Result<(Exchange, Exchanged), Ended> {
        let (answer, answered) = sync_channel(1);
        let exchange = Arc::new(exchange);
        self.send(Job::Exchange { exchange: Arc::clone(&exchange), now: self.now(), answer })?;
        let exchanged = answered.recv().map_err(|_| Ended)?;
        // The committer has given its share back before it answers.
        Ok((Arc::into_inner(exchange).ok_or(Ended)?, exchanged))
    }

    fn send(&self, job: Job) -> Result<(), Ended> {
        if self.cancelled.load(Ordering::Acquire) || self.lake.is_stopped() {
            return Err(Ended);
        }
        self.jobs.send(job).map_err(|_| Ended)
    }

    /// Log time.
    fn now(&self) -> UnixMicros {
        self.lake.view().watermark
    }

    fn elapsed_us(&self) -> u64 {
        self.began.elapsed().as_micros() as u64
    }

    fn count(&self, which: impl FnOnce(&CompactCounters) -> &AtomicU64, by: u64) {
        which(self.lake.compact_counters()).fetch_add(by, Ordering::Relaxed);
    }

    fn failed(&mut self, doing: &str, error: &LakeError) {
        self.count(|counters| &counters.failures, 1);
        if self.logged.is_none_or(|logged| logged.elapsed() >= LOG_INTERVAL) {
            self.logged = Some(Instant::now());
            tracing::warn!(reason = chain(error), "could not {doing}; the tables stay as they are");
        }
    }
}
