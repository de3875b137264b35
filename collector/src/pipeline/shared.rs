//! What the collector's threads and its readers share: the view, the feeds, the way to the committer.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use arrow::array::RecordBatch;
use datafusion::catalog::TableProvider;
use toolgauge_proto::api::IngestStatus;
use toolgauge_proto::id::WriterId;
use toolgauge_proto::lake::{AppendError, Feed, Lake, LiveBatches, SettledRows, TableView, Txn, View};
use toolgauge_proto::table::Table;

use super::committer::Job;
use super::compact::CompactCounters;
use super::feed::Feeds;
use crate::lake::Committed;
use crate::live::LiveView;
use crate::wal::WalCounters;

/// The tables as readers see them.
#[derive(Debug)]
pub(super) struct SharedLake {
    view: ArcSwap<View>,
    /// Held while a view is replaced, by whoever does it: the fold for what comes from the log, the committer for what
    /// readers have appended.
    feeds: Mutex<Feeds>,
    jobs: SyncSender<Job>,
    status: Mutex<IngestStatus>,
    wal: Arc<WalCounters>,
    compact: CompactCounters,
    writer: WriterId,
    stopped: AtomicBool,
}

impl SharedLake {
    pub(super) fn new(
        view: View,
        feeds: Feeds,
        jobs: SyncSender<Job>,
        wal: Arc<WalCounters>,
        writer: WriterId,
    ) -> Self {
        Self {
            view: ArcSwap::from_pointee(view),
            feeds: Mutex::new(feeds),
            jobs,
            status: Mutex::new(IngestStatus { ready: true, ..IngestStatus::default() }),
            wal,
            compact: CompactCounters::default(),
            writer,
            stopped: AtomicBool::new(false),
        }
    }

    fn feeds(&self) -> MutexGuard<'_, Feeds> {
        self.feeds.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn status_mut(&self) -> MutexGuard<'_, IngestStatus> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the rows of one more commit find room with all who take them.
    pub(super) fn feeds_have_room(&self) -> bool {
        self.feeds().have_room()
    }

    /// Replaces what comes from the log; a commit that becomes visible by that is given to the feeds first.
    pub(super) fn publish(&self, live: &LiveView, committed: &Committed, settled: Option<&SettledRows>) {
        let mut view = view_of(live, committed);
        let mut feeds = self.feeds();
        if let Some(settled) = settled {
            feeds.offer(settled);
        }
        let current = self.view.load();
        for table in Table::ALL.into_iter().filter(|table| table.is_appended_by_readers()) {
            view.tables[table as usize] = current.table(table).clone();
        }
        self.view.store(Arc::new(view));
    }

    /// Replaces the rows of a table that readers own.
    pub(super) fn publish_appended(&self, table: Table, committed: Arc<dyn TableProvider>) {
        let _publishing = self.feeds();
        let mut view = View::clone(&self.view.load());
        view.tables[table as usize].committed = committed;
        self.view.store(Arc::new(view));
    }

    pub(super) fn compact_counters(&self) -> &CompactCounters {
        &self.compact
    }

    /// Nothing is given to the feeds any more, and nobody is waited for.
    pub(super) fn end_feeds(&self) {
        self.feeds().end();
    }

    /// Stops everything that waits for the collector. The first reason stays.
    pub(super) fn stop(&self, reason: String) {
        let mut status = self.status_mut();
        status.ready = false;
        status.not_ready_reason.get_or_insert(reason);
        drop(status);
        self.stopped.store(true, Ordering::Release);
        self.end_feeds();
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }

    /// Has the committer do something for a reader, and waits for it.
    fn ask<T>(
        &self,
        table: Table,
        job: impl FnOnce(SyncSender<Result<T, AppendError>>) -> Job,
    ) -> Result<T, AppendError> {
        let stopped = |_| AppendError::Stopped { table };
        if self.is_stopped() {
            return Err(stopped(()));
        }
        let (answer, answered) = sync_channel(1);
        self.jobs.send(job(answer)).map_err(|_| stopped(()))?;
        // Whatever the committer had not begun when it ended is dropped, and with it the answer's sender.
        answered.recv().map_err(|_| stopped(()))?
    }
}

impl Lake for SharedLake {
    fn view(&self) -> Arc<View> {
        self.view.load_full()
    }

    fn status(&self) -> IngestStatus {
        let mut status = self.status_mut().clone();
        status.writer_id = self.writer.to_string();
        for (name, value) in self.wal.figures() {
            let is_gauge = matches!(name, "synced_position" | "bytes" | "queued_bytes");
            status.counters.insert(format!("toolgauge_wal_{name}{}", if is_gauge { "" } else { "_total" }), value);
        }
        status.counters.extend(self.compact.figures().map(|(name, value)| (name.to_owned(), value)));
        status.wal_synced = WalCounters::get(&self.wal.synced_position);
        status.wal_bytes = WalCounters::get(&self.wal.bytes);
        status
    }

    fn writer(&self) -> String {
        self.writer.to_string()
    }

    fn append(&self, table: Table, rows: Vec<RecordBatch>, txn: Txn) -> Result<bool, AppendError> {
        let now = self.view.load().watermark;
        self.ask(table, |answer| Job::Append { table, rows, txn, now, answer })
    }

    fn committed_version(&self, table: Table, app_id: &str) -> Result<Option<i64>, AppendError> {
        self.ask(table, |answer| Job::CommittedVersion { table, app_id: app_id.to_owned(), answer })
    }

    fn feed(&self) -> Box<dyn Feed> {
        let mut feeds = self.feeds();
        let after = self.view.load().committed;
        feeds.open(after)
    }
}

pub(super) fn view_of(live: &LiveView, committed: &Committed) -> View {
    let calls_1m = committed.live_calls_1m(Arc::clone(&live.calls));
    let rows = |table| match table {
        Table::Calls => LiveBatches::new(Arc::clone(&live.calls)),
        Table::Arrivals => LiveBatches::new(Arc::clone(&live.arrivals)),
        Table::Quarantine => LiveBatches::new(Arc::clone(&live.quarantine)),
        Table::Calls1m => calls_1m.clone(),
        Table::Calls1h => committed.live_calls_1h(calls_1m.clone()),
        // What readers append is committed at once.
        Table::Slo1m | Table::Alerts => LiveBatches::new(Arc::new([])),
    };
    let calls = committed.up_to(Table::Calls);
    View {
        tables: Table::ALL
            .map(|table| TableView { committed: Arc::clone(&committed.providers[table as usize]), live: rows(table) }),
        // A log that has no frames yet stands where the one before it ended.
        position: live.position.max(calls),
        settled: live.settled.max(calls),
        committed: calls,
        watermark: live.received,
    }
}
