//! How readers see the lake: one snapshot of every table at one position of the log; the settled rows as they come; and
//! how they write the tables that are theirs.

use std::fmt::{self, Debug};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::error::ArrowError;
use datafusion_session::TableProvider;

use crate::api::IngestStatus;
use crate::id::WalPosition;
use crate::table::Table;
use crate::time::UnixMicros;

type Computed = Result<Arc<[RecordBatch]>, String>;

/// Rows in memory, in [`Table::live_schema`]. Some are computed when somebody asks, once for all holders.
#[derive(Clone)]
pub struct LiveBatches(Arc<LazyLock<Computed, Box<dyn FnOnce() -> Computed + Send>>>);

impl LiveBatches {
    /// Rows that are there.
    #[must_use]
    pub fn new(batches: Arc<[RecordBatch]>) -> Self {
        Self(Arc::new(LazyLock::new(Box::new(move || Ok(batches)))))
    }

    /// Rows that are computed when they are first asked for.
    #[must_use]
    pub fn computed(compute: impl FnOnce() -> Result<Arc<[RecordBatch]>, ArrowError> + Send + 'static) -> Self {
        Self(Arc::new(LazyLock::new(Box::new(move || compute().map_err(|error| error.to_string())))))
    }

    /// The rows. Who asks first waits until they are computed.
    ///
    /// # Errors
    /// If they could not be computed, which is a fault of the program.
    pub fn get(&self) -> Result<Arc<[RecordBatch]>, ArrowError> {
        LazyLock::force(&self.0).clone().map_err(ArrowError::ComputeError)
    }
}

impl Debug for LiveBatches {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("LiveBatches").finish_non_exhaustive()
    }
}

/// One table in a [`View`]. Its rows are the committed ones and the live ones, each row in exactly one of the two.
#[derive(Debug, Clone)]
pub struct TableView {
    /// The committed rows, in [`Table::schema`].
    pub committed: Arc<dyn TableProvider>,
    /// The rows that are not committed yet, in [`Table::live_schema`].
    pub live: LiveBatches,
}

/// One consistent snapshot of every table. It never changes; a newer one replaces it.
#[derive(Debug, Clone)]
pub struct View {
    /// By [`Table`], in the order of [`Table::ALL`].
    pub tables: [TableView; Table::ALL.len()],
    /// Every row of every export up to here is in the view, and no row of a later one.
    pub position: WalPosition,
    /// The rows up to here are decided for good.
    pub settled: WalPosition,
    /// The rows of `calls` up to here are committed, the later ones are live.
    pub committed: WalPosition,
    /// Receive time up to which every acknowledged row is in the view.
    pub watermark: UnixMicros,
}

impl View {
    /// One table of the snapshot.
    #[must_use]
    pub fn table(&self, table: Table) -> &TableView {
        &self.tables[table as usize]
    }
}

/// What makes an append happen once.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Txn {
    /// Who appends: `<writer>/<table>` for a fold, see [`Lake::writer`]. ASCII letters, digits, `-`, `_` and `/`, at most 128.
    pub app_id: String,
    /// Increases with each append of this `app_id`; for a fold the log position up to which it has folded. Not negative.
    pub version: i64,
}

/// Why rows could not be appended.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// The rows, the table or the transaction cannot be used; a fault of the program.
    #[error("append to table \"{table}\": {reason}", table = table.name())]
    Invalid {
        /// Which table.
        table: Table,
        /// What is wrong.
        reason: String,
    },
    /// The disk has no room; the same append may be tried again.
    #[error("append to table \"{table}\": no room on the disk", table = table.name())]
    NoRoom {
        /// Which table.
        table: Table,
    },
    /// The collector has stopped, or this append stopped it. It is open whether the rows are there; after the next start
    /// [`Lake::committed_version`] tells.
    #[error("append to table \"{table}\": the collector has stopped", table = table.name())]
    Stopped {
        /// Which table.
        table: Table,
    },
}

/// Rows of `calls` that were committed together.
#[derive(Debug, Clone)]
pub struct SettledRows {
    /// All rows up to here have come with this item or before it.
    pub up_to: WalPosition,
    /// Receive time of the newest frame in the log when they were taken.
    pub received: UnixMicros,
    /// The rows, in the live schema of `calls`, in the order of the log; none if only time went on.
    pub rows: Arc<[RecordBatch]>,
}

/// What a [`Feed`] gives.
#[derive(Debug, Clone)]
pub enum FeedItem {
    /// The next rows.
    Rows(SettledRows),
    /// Nothing has come in the time given.
    Nothing,
    /// Nothing will come any more: the collector has stopped.
    End,
}

/// The settled rows of `calls` from a point in the log on, each once, in order.
///
/// An item is offered before its commit is visible in [`Lake::view`]: who has drained the feed after loading a view
/// has everything up to [`View::committed`]. The fold of all items up to F, and the live rows of a view with
/// `wal_position` above F, are together exact iff F is at least the view's `committed`.
pub trait Feed: Send + Debug {
    /// The rows up to here are in the committed table of [`Lake::view`] already and do not come.
    fn after(&self) -> WalPosition;

    /// The next item; waits at most so long.
    fn recv(&self, timeout: Duration) -> FeedItem;
}

/// The tables, as readers see them.
pub trait Lake: Send + Sync + Debug {
    /// The newest snapshot. A row is in it within a second of its acknowledgement. Cheap.
    fn view(&self) -> Arc<View>;

    /// How taking in goes: numbers for `/api/v1/status` and `/readyz`.
    fn status(&self) -> IngestStatus;

    /// Identity of the log, with which the `app_id` of its folds begins.
    fn writer(&self) -> String;

    /// Appends rows (all in the table's live schema or all in its settled one) to a table that readers own
    /// ([`Table::is_appended_by_readers`]), once: if this version of the `app_id`, or a later one, is there already,
    /// nothing is written and the answer is false. Without rows only the version is noted. Blocks until the rows are durable and
    /// in [`Lake::view`]; the caller must not be one of the async runtime's threads.
    ///
    /// # Errors
    /// See [`AppendError`].
    fn append(&self, table: Table, rows: Vec<RecordBatch>, txn: Txn) -> Result<bool, AppendError>;

    /// The version that `app_id` has appended last to a table that readers own, the cursor of a fold; `None` if it never has. A
    /// fold of a new log goes on where that of the log before it ended: positions go on too. Blocks.
    ///
    /// # Errors
    /// See [`AppendError`].
    fn committed_version(&self, table: Table, app_id: &str) -> Result<Option<i64>, AppendError>;

    /// Settled rows of `calls` as they are committed from now on. Bounded: while a feed is full nothing is committed to `calls`,
    /// so its holder must go on taking, or drop it.
    fn feed(&self) -> Box<dyn Feed>;
}
