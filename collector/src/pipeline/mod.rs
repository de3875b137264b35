//! From the synced log to the tables and to what readers see.
//!
//! Three threads. The *fold* takes synced frames in order, keeps the live rows, and publishes a [`View`] a few times a
//! second. The *committer* writes settled rows to the lake; while it does, the fold goes on. When a commit is done,
//! one swap of the view takes its rows out of the live ones and into the committed ones, and gives them to the feeds.
//! Rows that readers append go to the committer and from there into the view. The *compactor* merges files; the committer
//! commits what it has prepared.
//!
//! ```text
//! log --frames--> fold --settled rows--> committer --new tables--> fold --view--> readers
//!                  |\--view--> readers     ^      \--view--> readers
//!                  |\--feed--> readers ----'
//!                  \--forget--> log      append
//! ```
//!
//! [`View`]: toolgauge_proto::lake::View
//!
//! # Failure
//! * No room on the disk: the commit is tried again every second; the log refuses when too much waits.
//! * A failure of the compactor, except in a commit to the tables: it is counted, and the tables stay as they are.
//! * Any other error of the lake, and any fault of the fold: everything stops, the log is closed, `/readyz` says why;
//!   the log keeps what was not committed, and the next start replays it.

mod committer;
mod compact;
mod feed;
mod fold;
mod folder;
mod progress;
mod shared;

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Instant;

use arrow::error::ArrowError;
use tokio::runtime::Handle;
use toolgauge_proto::explain::Explain;
use toolgauge_proto::id::WalPosition;
use toolgauge_proto::lake::Lake;
use toolgauge_proto::time::{Clock, UnixMicros};

use crate::explain::Explainer;
use crate::fs::Fs;
use crate::lake::{CompactSettings, FoldSettings, LakeError, LakeTables, Repriced, last_position};
use crate::live::LiveSettings;
use crate::prices::Prices;
use crate::recognise::{ConventionError, Conventions, RecogniseSettings, Recogniser};
use crate::wal::{Recovery, Wal, WalError, WalHandle, WalSettings};
use committer::{ANSWERS_MAX, Committer, JOBS_MAX};
use compact::{CompactHandle, CompactThread};
use feed::Feeds;
pub use fold::{CommitMarks, Fold};
use folder::Folder;
pub use progress::Progress;
use shared::SharedLake;

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
    /// What calls cost whose producer does not say.
    pub prices: Prices,
    /// A commit begins when so many rows have settled.
    pub commit_rows: u64,
    /// A commit begins when something has settled and the last one is so long ago, in microseconds.
    pub commit_interval_us: u64,
    /// Readers see what was acknowledged this long ago, or sooner, in microseconds.
    pub publish_interval_us: u64,
    /// Settled rows that may wait for a slow disk; beyond, the log is not read on.
    pub settled_rows_max: u64,
    /// `calls_1m`.
    pub fold: FoldSettings,
    /// Files that are merged, and dates that go.
    pub compact: CompactSettings,
    /// Settled rows that may wait for a reader of the feed; beyond, nothing is committed.
    pub feed_rows_max: u64,
    /// Where it can be seen how far the start has come.
    pub progress: Progress,
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
            prices: Prices::default(),
            // A row group; smaller files cost more for each row.
            commit_rows: 128 * 1_024,
            commit_interval_us: 15_000_000,
            publish_interval_us: 200_000,
            settled_rows_max: 384 * 1_024,
            fold: FoldSettings::default(),
            compact: CompactSettings::default(),
            // One large commit.
            feed_rows_max: 128 * 1_024,
            progress: Progress::default(),
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

/// The pieces of a collector, opened and replayed; what [`Collector::start`] puts on threads.
#[derive(Debug)]
pub struct Opened {
    /// The log.
    pub wal: Wal,
    /// What was found of it.
    pub recovery: Recovery,
    /// The tables.
    pub tables: LakeTables,
    /// The live rows.
    pub fold: Fold,
}

/// Opens the log of a data folder, and with it takes the folder for this process.
fn open_log(settings: &CollectorSettings, fs: &Arc<dyn Fs>) -> Result<(Wal, Recovery), CollectorError> {
    let (log, lake) = (settings.data.join("wal"), settings.data.join("lake"));
    let mut wal_settings = settings.wal.clone();
    if Wal::is_new(&**fs, &log) {
        let last =
            last_position(Arc::clone(fs), &lake).map_err(|source| LakeError::Folder { path: lake.clone(), source })?;
        wal_settings.first_position = last.next();
    }
    Ok(Wal::open(Arc::clone(fs), &log, wal_settings)?)
}

/// Prices the committed rows of these UTC dates (like `2026-01-31`, both ends included) by the book in force, in a data folder that
/// no collector has open. What is only in the log gets its prices when it is committed. See [`LakeTables::reprice`].
///
/// # Errors
/// If the folder is in use or cannot be used, or if a table cannot be read or written.
pub fn reprice(
    settings: &CollectorSettings,
    fs: Arc<dyn Fs>,
    now: UnixMicros,
    dates: &RangeInclusive<String>,
    runtime: &Handle,
    progress: &mut dyn FnMut(&Repriced) -> bool,
) -> Result<Repriced, CollectorError> {
    // Held until the end: it is what keeps others out.
    let (log, _) = open_log(settings, &fs)?;
    let tables = LakeTables::open(fs, settings.data.join("lake"), log.writer(), settings.fold.clone(), runtime)?;
    Ok(tables.reprice(dates, settings.prices.get(), now, progress)?)
}

impl Opened {
    /// Opens the data folder and replays the log. Blocks; the runtime must have several threads and be another one's.
    ///
    /// # Errors
    /// As [`Collector::start`].
    pub fn open(settings: &CollectorSettings, fs: Arc<dyn Fs>, runtime: &Handle) -> Result<Self, CollectorError> {
        let (wal, recovery) = open_log(settings, &fs)?;
        let lake = settings.data.join("lake");
        let tables = LakeTables::open(fs, lake, wal.writer(), settings.fold.clone(), runtime)?;
        let mut fold = Fold::new(settings)?;
        let began = Instant::now();
        fold.replay(&wal, &tables)?;
        tracing::info!(
            frames = recovery.last.0.saturating_sub(recovery.first.0.saturating_sub(1)),
            live_rows = fold.live().live_rows(),
            milliseconds = began.elapsed().as_millis() as u64,
            "replayed the log"
        );
        Ok(Self { wal, recovery, tables, fold })
    }
}

/// The collector behind its doors: the log, the fold, the committer.
#[derive(Debug)]
pub struct Collector {
    wal: WalHandle,
    lake: Arc<SharedLake>,
    fold: Option<JoinHandle<()>>,
    compactor: CompactHandle,
    explainer: Arc<Explainer>,
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
        let recogniser =
            Recogniser::new(Conventions::with(&settings.recognise.conventions)?, settings.recognise.clone())?;
        let explainer = Arc::new(Explainer::new(Arc::clone(&fs), settings.data.join("wal"), recogniser));
        let Opened { wal, recovery, mut tables, fold } = Opened::open(&settings, fs, runtime)?;
        if recovery.torn_bytes > 0 {
            tracing::warn!(bytes = recovery.torn_bytes, "cut off the torn end of the log; it was never acknowledged");
        }
        let writer = wal.writer();
        let mut fold = fold;
        let committed = tables.committed();
        let view = shared::view_of(&fold.view()?, &committed);
        let (wal, frames) = WalHandle::start(wal, clock).map_err(CollectorError::Thread)?;
        let (jobs, to_do) = mpsc::sync_channel(JOBS_MAX);
        // The committer never waits to answer: the fold and the compactor wait for theirs before they send more.
        let (done, answers) = mpsc::sync_channel(ANSWERS_MAX);
        let compactor = tables.compactor(settings.compact.clone());
        let compact_interval_us = settings.compact.interval_us;
        let feeds = Feeds::new(settings.feed_rows_max);
        let lake = Arc::new(SharedLake::new(view, feeds, jobs.clone(), Arc::clone(wal.counters()), writer));
        let committer = Committer { tables, lake: Arc::clone(&lake), jobs: to_do, answers: done, is_between: false };
        let committer = std::thread::Builder::new()
            .name("committer".into())
            .spawn(move || committer.run())
            .map_err(CollectorError::Thread)?;
        let compact_jobs = jobs.clone();
        let mut folder = Folder::new(fold, committed, settings, frames, jobs, answers, wal.clone(), Arc::clone(&lake));
        folder.publish(None)?;
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
        let compactor = CompactThread::start(compactor, compact_interval_us, compact_jobs, Arc::clone(&lake))
            .map_err(CollectorError::Thread)?;
        Ok(Self { wal, lake, fold: Some(fold), compactor, explainer })
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

    /// What becomes of the records of a trace, as far as the log has them.
    #[must_use]
    pub fn explain(&self) -> Arc<dyn Explain> {
        Arc::<Explainer>::clone(&self.explainer)
    }

    /// Whether a failure has stopped it; [`Lake::status`] says why.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.lake.is_stopped()
    }

    /// Takes nothing more, makes durable and answers what is queued, and ends the threads. What is not committed stays
    /// in the log. Blocks.
    pub fn close(self) {
        drop(self);
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.compactor.cancel();
        self.lake.end_feeds();
        self.wal.close();
        if let Some(Err(_)) = self.fold.take().map(JoinHandle::join) {
            tracing::error!("the fold's thread has panicked");
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
