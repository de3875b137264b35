//! The tables on disk: Parquet files and a Delta log in `<data>/lake/<table>`.
//!
//! # Guarantees
//! * When [`LakeTables::commit`] has returned, the rows are durable: every file is synced before the commit that names
//!   it, every commit before it is visible ([`store`]).
//! * Each commit carries `txn(writer id, log position)`. A commit that is tried again, in this process or after a
//!   crash, is found to be there and not written twice.
//! * `calls` is committed before the other tables, so that nothing derived is ever ahead of it.
//! * Cost does not grow with the number of commits.
//!
//! # Failure
//! * [`LakeError::NoRoom`] may pass: the same commit may be tried again.
//! * After any other error the tables are not to be used further: the pipeline stops, the log keeps what was not
//!   committed, and the next start replays it.

mod delta;
mod parquet;
mod store;

use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::RecordBatch;
use datafusion::catalog::TableProvider;
use datafusion::execution::SessionState;
use datafusion::prelude::{SessionConfig, SessionContext};
use tokio::runtime::Handle;
use toolgauge_proto::id::{RowId, WalPosition, WriterId};
use toolgauge_proto::table::Table;

use crate::fs::Fs;
use delta::DeltaWriter;
use store::FsStore;

/// What went wrong in the lake.
#[derive(Debug, thiserror::Error)]
pub enum LakeError {
    /// The folder of the tables cannot be used.
    #[error("use the lake folder \"{path}\"")]
    Folder {
        /// Which folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A table could not be read or written.
    #[error("{action} table \"{table}\"")]
    Table {
        /// What was tried.
        action: &'static str,
        /// Which table.
        table: &'static str,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The disk has no room. Alone of all failures it may pass: the same commit may be tried again on the same tables.
    #[error("no room on the disk")]
    NoRoom {
        /// What failed for it.
        #[source]
        source: Box<LakeError>,
    },
    /// The table holds rows of this writer but does not say up to which position.
    #[error(
        "table \"{}\" has the file \"{file}\" of this log but no transaction of it: replaying the log would count \
         its calls twice (restore the table's `_delta_log` from a backup, or move the `wal` folder away to go on \
         without what only the log holds)", table.name()
    )]
    LostTransaction {
        /// Which table.
        table: Table,
        /// One of the files.
        file: String,
    },
}

impl LakeError {
    fn other(table: Table, action: &'static str, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Table { action, table: table.name(), source: source.into() }
    }

    fn kernel(table: Table, action: &'static str, source: delta_kernel::Error) -> Self {
        Self::other(table, action, source)
    }

    fn delta(table: Table, action: &'static str, source: deltalake::DeltaTableError) -> Self {
        Self::other(table, action, source)
    }
}

/// Rows to commit to one table.
#[derive(Debug, Clone, Default)]
pub struct TableCommit {
    /// The rows, in the table's live schema.
    pub batches: Vec<RecordBatch>,
    /// The log position up to which the table is complete with them.
    pub up_to: WalPosition,
}

/// Rows to commit to all tables.
#[derive(Debug, Clone, Default)]
pub struct Commit {
    /// By [`Table`], in the order of [`Table::ALL`]; `None` where nothing is to be written.
    pub tables: [Option<TableCommit>; Table::ALL.len()],
    /// Receive time of the newest frame, in milliseconds since 1970.
    pub time_ms: i64,
}

/// What readers need of the committed tables.
#[derive(Debug, Clone)]
pub struct Committed {
    /// The rows of each table.
    pub providers: [Arc<dyn TableProvider>; Table::ALL.len()],
    /// The position up to which each table is complete.
    pub up_to: [WalPosition; Table::ALL.len()],
    /// Version of each table.
    pub versions: [u64; Table::ALL.len()],
    /// Files of each table.
    pub files: [u64; Table::ALL.len()],
}

/// All tables, open for reading and appending. Blocking: use it outside the runtime's threads.
#[derive(Debug)]
pub struct LakeTables {
    store: FsStore,
    writers: [DeltaWriter; Table::ALL.len()],
}

impl LakeTables {
    /// Opens the tables in `<data>/lake`, or creates them. The runtime must have several threads.
    ///
    /// # Errors
    /// If a table cannot be read or created, or has lost this writer's transaction.
    pub fn open(fs: Arc<dyn Fs>, folder: PathBuf, writer: WriterId, runtime: &Handle) -> Result<Self, LakeError> {
        let prepare = || -> std::io::Result<FsStore> {
            crate::fs::create_dir_all_synced(&*fs, &folder)?;
            let store = FsStore::new(Arc::clone(&fs), folder.clone());
            store.sweep()?;
            Ok(store)
        };
        let store = prepare().map_err(|source| LakeError::Folder { path: folder.clone(), source })?;
        let mut config = SessionConfig::new();
        let options = config.options_mut();
        options.execution.parquet.pushdown_filters = true;
        // Readers see Utf8 and Binary, as the contract says, and live rows need no cast.
        options.execution.parquet.schema_force_view_types = false;
        let session: Arc<SessionState> = Arc::new(SessionContext::new_with_config(config).state());
        let mut writers = Vec::with_capacity(Table::ALL.len());
        for table in Table::ALL {
            let app_id = writer.to_string();
            let writer = DeltaWriter::open(table, app_id, store.clone(), runtime.clone(), Arc::clone(&session))?;
            writer.sweep()?;
            writers.push(writer);
        }
        let writers = writers.try_into().map_err(|_| LakeError::other(Table::Calls, "open", "a table is missing"))?;
        Ok(Self { store, writers })
    }

    /// The position up to which a table is complete.
    #[must_use]
    pub fn up_to(&self, table: Table) -> WalPosition {
        WalPosition(self.writers[table as usize].committed().map_or(0, i64::cast_unsigned))
    }

    /// Identities of at most so many committed calls, the newest, of frames before this position; oldest first.
    ///
    /// # Errors
    /// If the table cannot be read.
    pub fn identities_before(&self, position: WalPosition, max: usize) -> Result<Vec<RowId>, LakeError> {
        self.writers[Table::Calls as usize].identities_before(position.as_i64(), max)
    }

    /// Commits rows to all tables, `calls` first.
    ///
    /// # Errors
    /// If a table cannot be written; what was committed before stays.
    pub fn commit(&mut self, commit: &Commit) -> Result<(), LakeError> {
        self.store.take_no_room();
        self.append(commit).map_err(|error| match self.store.take_no_room() {
            true => LakeError::NoRoom { source: Box::new(error) },
            false => error,
        })
    }

    fn append(&mut self, commit: &Commit) -> Result<(), LakeError> {
        for (writer, table) in self.writers.iter_mut().zip(&commit.tables) {
            if let Some(table) = table {
                let first = writer.committed().map_or(1, |committed| committed + 1);
                writer.append(&table.batches, first, table.up_to.as_i64(), commit.time_ms)?;
            }
        }
        Ok(())
    }

    /// What readers need of the tables as they are now.
    ///
    /// # Errors
    /// If a table cannot be read.
    pub fn committed(&self) -> Result<Committed, LakeError> {
        let [calls, arrivals, quarantine] = &self.writers;
        Ok(Committed {
            providers: [calls.provider()?, arrivals.provider()?, quarantine.provider()?],
            up_to: Table::ALL.map(|table| self.up_to(table)),
            versions: [calls.version(), arrivals.version(), quarantine.version()],
            files: [calls.files(), arrivals.files(), quarantine.files()],
        })
    }
}
