//! From the synced log to the tables and to what readers see.
//!
//! Two threads. The *fold* takes synced frames in order, keeps the live rows, and publishes a [`View`] a few times a
//! second. The *committer* writes settled rows to the lake; while it does, the fold goes on. When a commit is done,
//! one swap of the view takes its rows out of the live ones and into the committed ones.
//!
//! ```text
//! log --frames--> fold --settled rows--> committer --new tables--> fold --view--> readers
//!                  \--view--> readers             \--forget--> log
//! ```
//!
//! # Failure
//! * No room on the disk: the commit is tried again every second; the log refuses when too much waits.
//! * Any other error of the lake, and any fault of the fold: everything stops, the log is closed, `/readyz` says why;
//!   the log keeps what was not committed, and the next start replays it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use arrow::error::ArrowError;
use tokio::runtime::Handle;
use toolgauge_proto::api::IngestStatus;
use toolgauge_proto::id::{WalPosition, WriterId};
use toolgauge_proto::lake::{Lake, TableView, View};
use toolgauge_proto::table::Table;
use toolgauge_proto::time::{Clock, UnixMicros};

use crate::export::ExportSignal;
use crate::fs::Fs;
use crate::lake::{Commit, Committed, LakeError, LakeTables, TableCommit};
use crate::live::{FrameBody, LiveFrame, LiveRows, LiveSettings, LiveView};
use crate::recognise::{ConventionError, Conventions, FrameInfo, RecogniseSettings, Recogniser};
use crate::wal::{Frame, FrameContent, FrameReceiver, Received, Wal, WalCounters, WalError, WalHandle, WalSettings};

/// Settings of the collector behind its doors.
#[derive(Debug, Clone)]
pub struct CollectorSettings {
    /// The data folder; the log is in `wal`, the tables are in `lake`.
    pub data: PathBuf,
    /// The log.
    pub wal: WalSettings,
    /// Recognition.
    pub recognise: RecogniseSettings,
    /// Settling.
    pub live: LiveSettings,
    /// A commit begins when so many rows have settled.
    pub commit_rows: u64,
    /// A commit begins when something has settled and the last one is so long ago, in microseconds.
    pub commit_interval_us: u64,
    /// Readers see what was acknowledged this long ago, or sooner, in microseconds.
    pub publish_interval_us: u64,
    /// Settled rows that may wait for a slow disk; beyond, the log is not read on.
    pub settled_rows_max: u64,
}

impl CollectorSettings {
    /// The defaults for this data folder.
    #[must_use]
    pub fn new(data: PathBuf) -> Self {
        Self {
            data,
            wal: WalSettings::default(),
            recognise: RecogniseSettings::default(),
            live: LiveSettings::default(),
            // A row group; smaller files cost more for each row.
            commit_rows: 128 * 1_024,
            commit_interval_us: 15_000_000,
            publish_interval_us: 200_000,
            settled_rows_max: 384 * 1_024,
        }
    }
}

/// Why the collector could not start, or stopped.
#[derive(Debug, thiserror::Error)]
pub enum CollectorError {
    /// The log.
    #[error("open the log")]
    Wal(#[from] WalError),
    /// The tables.
    #[error("keep the tables")]
    Lake(#[from] LakeError),
    /// The conventions.
    #[error("load the conventions")]
    Conventions(#[from] ConventionError),
    /// A fault of the program.
    #[error("build columns")]
    Columns(#[from] ArrowError),
    /// A thread could not be started.
    #[error("start a thread")]
    Thread(#[source] std::io::Error),
    /// The tables and the log do not fit together.
    #[error(
        "table \"{table}\" holds this log up to position {committed}, but the log goes from {first} to {last}: parts of \
         it are missing (restore the folder `wal`, or move it away to go on without what only it holds)"
    )]
    MissingLog {
        /// Which table.
        table: &'static str,
        /// Up to where it is complete.
        committed: WalPosition,
        /// The first frame of the log.
        first: WalPosition,
        /// The last frame of the log.
        last: WalPosition,
    },
}

/// The fold over the log, without threads: frames in, commits out. Crash tests drive it directly.
#[derive(Debug)]
pub struct Fold {
    live: LiveRows,
    /// How far back in log time frames are wanted for re-sends and late relatives, in microseconds.
    horizon_us: i64,
    /// How many identities of rows before the log are wanted.
    seen_rows_max: usize,
}

/// What a commit took from the live rows; handed back when it is durable.
#[derive(Debug, Clone, Copy)]
pub struct CommitMarks {
    calls_seq_end: u64,
    arrivals: Option<(WalPosition, UnixMicros)>,
    quarantine: Option<WalPosition>,
}

impl Fold {
    /// An empty fold.
    ///
    /// # Errors
    /// If the conventions are faulty.
    pub fn new(settings: &CollectorSettings) -> Result<Self, CollectorError> {
        let recogniser = Recogniser::new(Conventions::with(&settings.recognise.conventions)?, settings.recognise.clone())?;
        let horizon_us = settings.live.remember_us.max(settings.wal.digest_horizon_us);
        let seen_rows_max = settings.live.seen_rows_max;
        Ok(Self { live: LiveRows::new(settings.live.clone(), Arc::new(recogniser)), horizon_us, seen_rows_max })
    }

    /// Replays the log into an empty fold. What the tables have already is not kept to be committed again; of what the
    /// log has forgotten, the tables give the identities, so that rows that are sent again are still known.
    ///
    /// # Errors
    /// If the log cannot be read, or does not fit the tables.
    pub fn replay(&mut self, wal: &Wal, tables: &LakeTables) -> Result<(), CollectorError> {
        let up_to = Table::ALL.map(|table| tables.up_to(table));
        let mut first = None;
        for frame in wal.replay(WalPosition(1)) {
            let frame = frame?;
            if first.is_none() {
                first = Some(frame.position);
                self.live.remember_identities(tables.identities_before(frame.position, self.seen_rows_max)?);
            }
            self.apply(&frame)?;
            self.live.discard_committed(
                up_to[Table::Calls as usize],
                up_to[Table::Arrivals as usize],
                up_to[Table::Quarantine as usize],
            );
        }
        let (first, last) = (first.unwrap_or(wal.synced().next()), wal.synced());
        for table in [Table::Calls, Table::Arrivals] {
            let committed = up_to[table as usize];
            if committed > last || committed.next() < first {
                return Err(CollectorError::MissingLog { table: table.name(), committed, first, last });
            }
        }
        Ok(())
    }

    /// Takes the next frame.
    ///
    /// # Errors
    /// On a fault of the program.
    pub fn apply(&mut self, frame: &Frame) -> Result<(), ArrowError> {
        let (tenant, body) = match &frame.content {
            FrameContent::Tick => ("", FrameBody::Tick),
            FrameContent::Export(export) => {
                let body = match export.signal {
                    ExportSignal::Traces => FrameBody::Traces(&export.body),
                    ExportSignal::Logs => FrameBody::Logs(&export.body),
                };
                (&*export.tenant, body)
            }
        };
        let info = FrameInfo { position: frame.position, received: frame.receive_time, tenant };
        self.live.apply(LiveFrame { info, body })
    }

    /// Everything that can be committed now; `None` if nothing can.
    ///
    /// # Errors
    /// On a fault of the program.
    pub fn begin_commit(&mut self) -> Result<Option<(Commit, CommitMarks)>, ArrowError> {
        let settled = self.live.settled()?;
        // Once a minute the position of `calls` moves even if there are no rows, so that the log can be forgotten.
        let calls = (!settled.calls.is_empty() || settled.arrivals.is_some())
            .then_some(TableCommit { batches: settled.calls, up_to: settled.calls_up_to })
            .filter(|calls| calls.up_to > WalPosition(0));
        let arrivals =
            settled.arrivals.map(|batch| TableCommit { batches: vec![batch], up_to: settled.arrivals_up_to });
        let quarantine =
            settled.quarantine.map(|batch| TableCommit { batches: vec![batch], up_to: settled.quarantine_up_to });
        if calls.is_none() && arrivals.is_none() && quarantine.is_none() {
            return Ok(None);
        }
        let marks = CommitMarks {
            calls_seq_end: settled.calls_seq_end,
            arrivals: arrivals.as_ref().map(|table| (table.up_to, settled.received.minute())),
            quarantine: quarantine.as_ref().map(|table| table.up_to),
        };
        let time_ms = settled.received.0.div_euclid(1_000);
        Ok(Some((Commit { tables: [calls, arrivals, quarantine], time_ms }, marks)))
    }

    /// A commit is durable: its rows leave.
    pub fn end_commit(&mut self, marks: CommitMarks) {
        self.live.committed_calls(marks.calls_seq_end);
        if let Some((up_to, minutes_before)) = marks.arrivals {
            self.live.committed_arrivals(up_to, minutes_before);
        }
        if let Some(up_to) = marks.quarantine {
            self.live.committed_quarantine(up_to);
        }
    }

    /// What the log may forget: frames up to a position, as far as they are older than a time.
    #[must_use]
    pub fn forgettable(&self, committed: &[WalPosition; Table::ALL.len()]) -> (WalPosition, UnixMicros) {
        let needed = committed[Table::Calls as usize].min(committed[Table::Arrivals as usize]);
        let up_to = match self.live.first_quarantined() {
            Some(first) if first <= needed => WalPosition(first.0.saturating_sub(1)),
            _ => needed,
        };
        (up_to, UnixMicros(self.live.received().0.saturating_sub(self.horizon_us)))
    }

    /// The live rows as readers see them.
    ///
    /// # Errors
    /// On a fault of the program.
    pub fn view(&mut self) -> Result<LiveView, ArrowError> {
        self.live.view()
    }

    /// The live rows.
    #[must_use]
    pub fn live(&self) -> &LiveRows {
        &self.live
    }
}

/// The tables as readers see them.
#[derive(Debug)]
struct SharedLake {
    view: ArcSwap<View>,
    status: Mutex<IngestStatus>,
    wal: Arc<WalCounters>,
    writer: WriterId,
    stopped: AtomicBool,
}

impl Lake for SharedLake {
    fn view(&self) -> Arc<View> {
        self.view.load_full()
    }

    fn status(&self) -> IngestStatus {
        let mut status = self.status.lock().unwrap_or_else(PoisonError::into_inner).clone();
        status.writer_id = self.writer.to_string();
        for (name, value) in self.wal.figures() {
            let is_gauge = matches!(name, "synced_position" | "bytes" | "queued_bytes");
            status.counters.insert(format!("toolgauge_wal_{name}{}", if is_gauge { "" } else { "_total" }), value);
        }
        status.wal_synced = WalCounters::get(&self.wal.synced_position);
        status.wal_bytes = WalCounters::get(&self.wal.bytes);
        status
    }
}

impl SharedLake {
    fn stop(&self, reason: String) {
        let mut status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        status.ready = false;
        status.not_ready_reason.get_or_insert(reason);
        self.stopped.store(true, Ordering::Release);
    }
}

/// The collector behind its doors: the log, the fold, the committer.
#[derive(Debug)]
pub struct Collector {
    wal: WalHandle,
    lake: Arc<SharedLake>,
    fold: Option<JoinHandle<()>>,
}

impl Collector {
    /// Opens the data folder, replays the log, and starts. Blocks; the runtime must have several threads and be
    /// another one's.
    ///
    /// # Errors
    /// If the folder is in use or cannot be used, or if the log or a table is damaged.
    pub fn start(
        settings: CollectorSettings,
        fs: Arc<dyn Fs>,
        clock: Arc<dyn Clock>,
        runtime: &Handle,
    ) -> Result<Self, CollectorError> {
        let (wal, recovery) = Wal::open(Arc::clone(&fs), &settings.data.join("wal"), settings.wal.clone())?;
        if recovery.torn_bytes > 0 {
            tracing::warn!(bytes = recovery.torn_bytes, "cut off the torn end of the log; it was never acknowledged");
        }
        let writer = wal.writer();
        let tables = LakeTables::open(fs, settings.data.join("lake"), writer, runtime)?;
        let mut fold = Fold::new(&settings)?;
        let began = Instant::now();
        fold.replay(&wal, &tables)?;
        tracing::info!(
            frames = recovery.last.0.saturating_sub(recovery.first.0.saturating_sub(1)),
            live_rows = fold.live.live_rows(),
            milliseconds = began.elapsed().as_millis() as u64,
            "replayed the log"
        );
        let committed = tables.committed()?;
        let view = view_of(fold.view()?, &committed);
        let (wal, frames) = WalHandle::start(wal, clock).map_err(CollectorError::Thread)?;
        let lake = Arc::new(SharedLake {
            view: ArcSwap::from_pointee(view),
            status: Mutex::new(IngestStatus { ready: true, ..IngestStatus::default() }),
            wal: Arc::clone(wal.counters()),
            writer,
            stopped: AtomicBool::new(false),
        });
        // One job at a time: the fold waits for its answer before it hands over the next.
        let (jobs, to_do) = mpsc::sync_channel(1);
        let (done, answers) = mpsc::sync_channel(1);
        let committer = std::thread::Builder::new()
            .name("committer".into())
            .spawn(move || commit_all(tables, &to_do, &done))
            .map_err(CollectorError::Thread)?;
        let mut folder = Folder {
            fold,
            committed,
            settings,
            frames,
            jobs,
            answers,
            in_flight: None,
            last_commit: Instant::now(),
            last_publish: Instant::now(),
            commits: 0,
            commit_seconds: Duration::ZERO,
            wal: wal.clone(),
            lake: Arc::clone(&lake),
        };
        folder.publish()?;
        let fold = std::thread::Builder::new()
            .name("fold".into())
            .spawn(move || {
                folder.run();
                drop(folder);
                if committer.join().is_err() {
                    tracing::error!("the committer's thread has panicked");
                }
            })
            .map_err(CollectorError::Thread)?;
        Ok(Self { wal, lake, fold: Some(fold) })
    }

    /// Where exports become durable.
    #[must_use]
    pub fn sink(&self) -> WalHandle {
        self.wal.clone()
    }

    /// The tables, as readers see them.
    #[must_use]
    pub fn lake(&self) -> Arc<dyn Lake> {
        Arc::<SharedLake>::clone(&self.lake)
    }

    /// Whether a failure has stopped it; [`Lake::status`] says why.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.lake.stopped.load(Ordering::Acquire)
    }

    /// Takes nothing more, makes durable and answers what is queued, and ends the threads. What is not committed stays
    /// in the log. Blocks.
    pub fn close(self) {
        drop(self);
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.wal.close();
        if let Some(Err(_)) = self.fold.take().map(JoinHandle::join) {
            tracing::error!("the fold's thread has panicked");
        }
    }
}

fn view_of(live: LiveView, committed: &Committed) -> View {
    let [calls, arrivals, quarantine] = &committed.providers;
    let table = |provider: &Arc<dyn datafusion::catalog::TableProvider>, live| TableView {
        committed: Arc::clone(provider),
        live,
    };
    View {
        tables: [table(calls, live.calls), table(arrivals, live.arrivals), table(quarantine, live.quarantine)],
        position: live.position,
        settled: live.settled,
        watermark: live.received,
    }
}

type CommitAnswer = Result<(Committed, Duration), (Commit, LakeError)>;

fn commit_all(mut tables: LakeTables, jobs: &Receiver<Commit>, done: &SyncSender<CommitAnswer>) {
    for commit in jobs {
        let began = Instant::now();
        let result = tables.commit(&commit).and_then(|()| tables.committed());
        let answer = result.map(|committed| (committed, began.elapsed())).map_err(|error| (commit, error));
        if done.send(answer).is_err() {
            return;
        }
    }
}

/// An error with what caused it, in one line.
#[must_use]
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut at = error.source();
    while let Some(source) = at {
        text.push_str(": ");
        text.push_str(&source.to_string());
        at = source.source();
    }
    text
}

/// The fold's thread.
struct Folder {
    fold: Fold,
    committed: Committed,
    settings: CollectorSettings,
    frames: FrameReceiver,
    jobs: SyncSender<Commit>,
    answers: Receiver<CommitAnswer>,
    in_flight: Option<CommitMarks>,
    last_commit: Instant,
    last_publish: Instant,
    commits: u64,
    commit_seconds: Duration,
    wal: WalHandle,
    lake: Arc<SharedLake>,
}

/// How long a commit waits that found the disk full.
const RETRY_AFTER: Duration = Duration::from_secs(1);

impl Folder {
    fn run(&mut self) {
        if let Err(error) = self.fold_all() {
            let reason = chain(&error);
            tracing::error!(reason, "stopped; the log keeps what is not committed, and the next start replays it");
            self.lake.stop(reason);
        }
    }

    fn fold_all(&mut self) -> Result<(), CollectorError> {
        let publish_interval = Duration::from_micros(self.settings.publish_interval_us);
        loop {
            let wait = publish_interval.saturating_sub(self.last_publish.elapsed()).max(Duration::from_millis(1));
            if self.fold.live.settled_rows() > self.settings.settled_rows_max && self.in_flight.is_some() {
                // The disk is behind: let the log wait rather than memory grow.
                self.await_commit(wait)?;
            } else {
                match self.frames.receive(wait) {
                    Received::Frames(frames) => {
                        for frame in &frames {
                            self.fold.apply(frame)?;
                            if self.fold.live.settled_rows() >= self.settings.commit_rows {
                                self.begin_commit_if_idle()?;
                            }
                        }
                    }
                    Received::Nothing => {}
                    Received::End => break,
                }
                self.await_commit(Duration::ZERO)?;
            }
            let due = self.last_commit.elapsed() >= Duration::from_micros(self.settings.commit_interval_us);
            if due || self.fold.live.settled_rows() >= self.settings.commit_rows {
                self.begin_commit_if_idle()?;
            }
            if self.last_publish.elapsed() >= publish_interval {
                self.publish()?;
            }
        }
        if self.in_flight.is_some() {
            self.await_commit(Duration::from_secs(30))?;
        }
        self.lake.stop("shutting down".into());
        Ok(())
    }

    fn begin_commit_if_idle(&mut self) -> Result<(), CollectorError> {
        if self.in_flight.is_some() {
            return Ok(());
        }
        self.last_commit = Instant::now();
        let Some((commit, marks)) = self.fold.begin_commit()? else { return Ok(()) };
        if self.jobs.send(commit).is_ok() {
            self.in_flight = Some(marks);
        }
        Ok(())
    }

    /// Waits at most so long for the commit in flight.
    fn await_commit(&mut self, wait: Duration) -> Result<(), CollectorError> {
        if self.in_flight.is_none() {
            return Ok(());
        }
        match self.answers.recv_timeout(wait) {
            Ok(Ok((committed, took))) => {
                self.commits += 1;
                self.commit_seconds += took;
                self.committed = committed;
                if let Some(marks) = self.in_flight.take() {
                    self.fold.end_commit(marks);
                }
                self.publish()?;
                let (up_to, not_younger_than) = self.fold.forgettable(&self.committed.up_to);
                self.wal.forget(up_to, not_younger_than);
                Ok(())
            }
            Ok(Err((commit, error @ LakeError::NoRoom { .. }))) => {
                tracing::error!(reason = chain(&error), "no room for a commit; trying again (make room on the disk)");
                // The marks stay: the same rows are tried again, under the same names.
                let until = Instant::now() + RETRY_AFTER;
                while let Some(left) = until.checked_duration_since(Instant::now()) {
                    std::thread::park_timeout(left);
                }
                if self.jobs.send(commit).is_err() {
                    self.in_flight = None;
                }
                Ok(())
            }
            Ok(Err((_, error))) => Err(error.into()),
            Err(RecvTimeoutError::Timeout) => Ok(()),
            Err(RecvTimeoutError::Disconnected) => {
                self.in_flight = None;
                Err(CollectorError::Thread(std::io::Error::other("the committer's thread has ended")))
            }
        }
    }

    fn publish(&mut self) -> Result<(), ArrowError> {
        self.last_publish = Instant::now();
        let live = self.fold.view()?;
        let visible = live.position.0;
        self.lake.view.store(Arc::new(view_of(live, &self.committed)));
        let rows = self.fold.live();
        let counts = rows.counts();
        let mut counters = BTreeMap::new();
        for (name, value) in [
            ("toolgauge_calls_total", counts.rows),
            ("toolgauge_records_total", counts.records),
            ("toolgauge_duplicate_rows_total", counts.duplicates),
            ("toolgauge_quarantined_total", counts.quarantined),
            ("toolgauge_unreadable_total", counts.unreadable),
            ("toolgauge_settled_early_total", counts.settled_early),
            ("toolgauge_forgotten_early_total", counts.forgotten_early),
            ("toolgauge_late_views_total", counts.late_views),
            ("toolgauge_late_retries_total", counts.late_retries),
            ("toolgauge_forgotten_identities_total", rows.forgotten_identities()),
            ("toolgauge_commits_total", self.commits),
            ("toolgauge_commit_microseconds_total", self.commit_seconds.as_micros() as u64),
        ] {
            counters.insert(name.to_owned(), value);
        }
        let by_table = |values: [u64; Table::ALL.len()]| {
            Table::ALL.iter().map(|table| (table.name().to_owned(), values[*table as usize])).collect()
        };
        let mut status = self.lake.status.lock().unwrap_or_else(PoisonError::into_inner);
        status.wal_visible = visible;
        status.wal_settled = rows.settled_position().0;
        status.wal_committed = self.committed.up_to[Table::Calls as usize].0;
        status.live_rows = rows.live_rows();
        status.live_bytes = rows.live_bytes();
        status.table_versions = by_table(self.committed.versions);
        status.table_files = by_table(self.committed.files);
        status.counters = counters;
        Ok(())
    }
}
