//! The tables on disk: Parquet files and a Delta log in `<data>/lake/<table>`.
//!
//! # Guarantees
//! * When [`LakeTables::commit`] or [`LakeTables::append`] has returned, the rows are durable: every file is synced before
//!   the commit that names it, every commit before it is visible ([`store`]).
//! * Each commit carries `txn(writer id, log position)`, those of folds and readers `txn(<writer id>/<name>, version)`. A
//!   commit that is tried again, in this process or after a crash, is found to be there and not written twice.
//! * `calls` is committed before the other tables, so that nothing derived is ever ahead of it.
//! * Committed rows of `calls_1m` and the rollups in [`Committed`] are together the fold of the committed rows of `calls`; those of
//!   `calls_1h` and the hours there that of the committed rows of `calls_1m` ([`fold`], [`hours`]).
//! * Small files are merged and old dates removed ([`compact`]), each in one transaction `(<writer id>/compact, n)` that changes
//!   no row that stays, but that rows of additive tables with one key become one.
//! * Cost grows with the files of a table, which merging keeps few, not with the number of commits.
//! * A table of an earlier version gets the columns that it lacks when it is opened, in one commit; they are null in the rows
//!   that are there.
//!
//! # One data folder, several logs
//! A data folder has one log, but its `wal` folder may have been moved away and made anew. So positions go on over all logs
//! of a data folder ([`last_position`]), and "rows of `calls` up to position P" means the same whoever wrote them. What a
//! table knows of a fold of an earlier log is the cursor of the same fold of this one.
//!
//! # Failure
//! * A table whose folder is missing is made anew. `calls_1m` is then folded again from all of `calls`, `calls_1h` from all of
//!   `calls_1m`.
//! * [`LakeError::NoRoom`] may pass: the same commit may be tried again.
//! * After any other error the tables are not to be used further: the pipeline stops, the log keeps what was not
//!   committed, and the next start replays it.

mod compact;
mod delta;
mod files;
mod fold;
mod hours;
mod names;
mod parquet;
mod reprice;
mod scan;
mod statistics;
mod store;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{Date32Type, SchemaRef};
use datafusion::catalog::TableProvider;
use datafusion::execution::SessionState;
use datafusion::prelude::{SessionConfig, SessionContext};
use tokio::runtime::Handle;
use toolgauge_analytics::additive::Additive;
use toolgauge_analytics::rollup::{self, CallsRollup};
use toolgauge_analytics::series::KnownSeries;
use toolgauge_proto::id::{RowId, WalPosition, WriterId};
use toolgauge_proto::lake::{LiveBatches, Txn};
use toolgauge_proto::table::Table;
use toolgauge_proto::time::UnixMicros;

use crate::fs::Fs;
pub use compact::{CompactSettings, Compactor, Exchange, TableFiles, Task};
use compact::{file_schema, read_file};
use delta::{DeltaWriter, Transaction};
use fold::{CallsFold, Due, Rollups};
pub use fold::{FOLDED_LISTED_MAX, FoldSettings, Folded};
use hours::{Hours, HoursFold};
use names::FileName;
pub use names::last_position;
pub use reprice::Repriced;
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
        "table \"{}\" has the file \"{file}\" of this log but no transaction of it (restore the table's `_delta_log` from a \
         backup, or {})", table.name(), instead_of_a_backup(*table)
    )]
    LostTransaction {
        /// Which table.
        table: Table,
        /// One of the files.
        file: String,
    },
    /// Somebody has deleted rows by marking them.
    #[error(
        "the file \"{file}\" of table \"{}\" has a deletion vector, which is not read here (write its rows anew without those \
         that were deleted; in Spark: `REORG TABLE ... APPLY (PURGE)`)", table.name()
    )]
    DeletionVector {
        /// Which table.
        table: Table,
        /// One of the files.
        file: String,
    },
    /// The table is not of this version, nor of an earlier one.
    #[error(
        "table \"{}\" has other columns than this version writes: {columns} (use the version that wrote it, or move the \
         table's folder away)", table.name()
    )]
    OtherColumns {
        /// Which table.
        table: Table,
        /// Those that it has.
        columns: String,
    },
    /// A derived table holds more than the table that it is made of.
    #[error(
        "table \"{}\" has folded `calls` up to position {cursor}, but `calls` ends at {calls} (restore `calls` from a \
         backup, or move the folder of \"{}\" away: it is made anew)", table.name(), table.name()
    )]
    AheadOfCalls {
        /// Which table.
        table: Table,
        /// Up to where it has folded.
        cursor: WalPosition,
        /// Up to where `calls` is complete.
        calls: WalPosition,
    },
    /// A file of `calls_1m` has rows that `calls_1h` has and others that it lacks, or does not say which.
    #[error(
        "the file \"{file}\" of table \"calls_1m\" does not begin after position {cursor}, up to which \"calls_1h\" has summed it \
         (move the folder of \"calls_1h\" away: it is made anew)"
    )]
    AcrossCursor {
        /// Which file.
        file: String,
        /// Up to where hours were summed.
        cursor: WalPosition,
    },
    /// An append that cannot be done, whoever tries.
    #[error("append to table \"{}\": {reason}", table.name())]
    Invalid {
        /// Which table.
        table: Table,
        /// What is wrong.
        reason: String,
    },
}

fn instead_of_a_backup(table: Table) -> &'static str {
    match table {
        Table::Calls | Table::Arrivals | Table::Quarantine => {
            "move the `wal` folder away to go on without what only the log holds; replaying it would count calls twice"
        }
        Table::Calls1m | Table::Slo1m | Table::Calls1h => "move the table's folder away: it is made anew from `calls`",
        Table::Alerts => "move the table's folder away to go on without the history of alerts",
    }
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

/// Rows to commit, by table; `None` where nothing is to be written.
#[derive(Debug, Clone, Default)]
pub struct Commit {
    /// Of `calls`.
    pub calls: Option<TableCommit>,
    /// Of `arrivals`.
    pub arrivals: Option<TableCommit>,
    /// Of `quarantine`.
    pub quarantine: Option<TableCommit>,
    /// Receive time of the newest frame.
    pub received: UnixMicros,
}

impl Commit {
    /// The tables that a commit may write, in the order in which it must.
    pub const TABLES: [Table; 5] = [Table::Calls, Table::Arrivals, Table::Quarantine, Table::Calls1m, Table::Calls1h];
}

/// What readers need of the committed tables.
#[derive(Debug, Clone)]
pub struct Committed {
    /// The rows of each table.
    pub providers: [Arc<dyn TableProvider>; Table::ALL.len()],
    /// Version of each table.
    pub versions: [u64; Table::ALL.len()],
    /// Files of each table.
    pub files: [u64; Table::ALL.len()],
    up_to: [WalPosition; LOG_TABLES.len()],
    rollups: Rollups,
    series: KnownSeries,
    folded: Arc<Folded>,
    hours: Hours,
}

impl Committed {
    /// The position up to which a table is complete: `calls`, `arrivals` or `quarantine`.
    ///
    /// # Panics
    /// If it is another table.
    #[must_use]
    pub fn up_to(&self, table: Table) -> WalPosition {
        self.up_to[table as usize]
    }

    /// What was folded into others in `calls_1m` since the start, and how many series of the newest date have names.
    #[must_use]
    pub fn folded(&self) -> (&Folded, usize) {
        (&self.folded, self.series.newest().map_or(0, |date| self.series.len(date)))
    }

    /// The live rows of `calls_1m`, when these are those of `calls`: everything that is not in the table yet. Computed when
    /// they are asked for.
    #[must_use]
    pub fn live_calls_1m(&self, live_calls: Arc<[RecordBatch]>) -> LiveBatches {
        let (rollups, series) = (self.rollups.clone(), self.series.clone());
        LiveBatches::computed(move || {
            let mut all = fold::fold(live_calls.iter())?;
            drop(all.fold_series(&series));
            for rollup in &rollups {
                all.merge(rollup);
            }
            Ok(all.batches()?.into())
        })
    }

    /// The live rows of `calls_1h`, when these are those of `calls_1m`.
    #[must_use]
    pub fn live_calls_1h(&self, live_calls_1m: LiveBatches) -> LiveBatches {
        let hours = self.hours.clone();
        LiveBatches::computed(move || Ok(hours::live(&hours, &live_calls_1m.get()?)?.into()))
    }
}

/// All tables, open for reading and appending. Blocking: use it outside the runtime's threads.
#[derive(Debug)]
pub struct LakeTables {
    store: FsStore,
    writer: String,
    writers: [DeltaWriter; Table::ALL.len()],
    up_to: [WalPosition; LOG_TABLES.len()],
    calls_1m: CallsFold,
    calls_1h: HoursFold,
    /// Files that are not in the tables any more, but were before the start.
    removed: Vec<object_store::path::Path>,
}

/// Tables that are written from the log.
const LOG_TABLES: [Table; 3] = [Table::Calls, Table::Arrivals, Table::Quarantine];

impl LakeTables {
    /// Opens the tables in `<data>/lake`, or creates them, and folds what `calls_1m` has not folded yet. The runtime must
    /// have several threads.
    ///
    /// # Errors
    /// If a table cannot be read or created, or has lost this writer's transaction.
    pub fn open(
        fs: Arc<dyn Fs>,
        folder: PathBuf,
        writer: WriterId,
        settings: FoldSettings,
        runtime: &Handle,
    ) -> Result<Self, LakeError> {
        let writer = writer.to_string();
        let prepare = || -> std::io::Result<FsStore> {
            crate::fs::create_dir_all_synced(&*fs, &folder)?;
            let store = FsStore::new(Arc::clone(&fs), folder.clone());
            store.sweep()?;
            Ok(store)
        };
        let store = prepare().map_err(|source| LakeError::Folder { path: folder.clone(), source })?;
        let mut config = SessionConfig::new();
        config.options_mut().execution.parquet.pushdown_filters = true;
        let session: Arc<SessionState> = Arc::new(SessionContext::new_with_config(config).state());
        let mut writers = Vec::with_capacity(Table::ALL.len());
        let mut removed = Vec::new();
        for table in Table::ALL {
            let opened = DeltaWriter::open(table, store.clone(), runtime.clone(), Arc::clone(&session))?;
            removed.extend(opened.sweep(&writer)?);
            writers.push(opened);
        }
        let mut writers: [DeltaWriter; Table::ALL.len()] =
            writers.try_into().map_err(|_| LakeError::other(Table::Calls, "open", "a table is missing"))?;

        let before = names::last_position_of_others(&store, &writer)
            .map_err(|source| LakeError::Folder { path: folder, source })?;
        let mut up_to = [before; LOG_TABLES.len()];
        for table in LOG_TABLES {
            if let Some(committed) = writers[table as usize].committed(&writer)? {
                up_to[table as usize] = WalPosition(committed.cast_unsigned());
            }
        }
        let calls = up_to[Table::Calls as usize];
        let mut cursor_of = |table: Table| -> Result<WalPosition, LakeError> {
            let cursor = writers[table as usize].committed(&fold_id(&writer, table))?;
            let cursor = WalPosition(cursor.map_or(0, i64::cast_unsigned));
            if cursor > calls { Err(LakeError::AheadOfCalls { table, cursor, calls }) } else { Ok(cursor) }
        };
        let (minutes, hours) = (cursor_of(Table::Calls1m)?, cursor_of(Table::Calls1h)?);
        let calls_1h = HoursFold::new(settings.hours_interval_us, settings.keys_max, hours);
        let calls_1m = CallsFold::new(settings, minutes);
        let mut tables = Self { store, writer, writers, up_to, calls_1m, calls_1h, removed };
        tables.finish_repricing()?;
        tables.catch_up()?;
        tables.catch_up_hours()?;
        // Rows that are only live yet are mostly of these.
        let newest = tables.writers[Table::Calls1m as usize].newest_dates(2);
        tables.learn_series(&newest)?;
        Ok(tables)
    }

    /// The position up to which a table is complete: `calls`, `arrivals` or `quarantine`.
    ///
    /// # Panics
    /// If it is another table.
    #[must_use]
    pub fn up_to(&self, table: Table) -> WalPosition {
        self.up_to[table as usize]
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
        Commit::TABLES.into_iter().try_for_each(|table| self.commit_table(table, commit))
    }

    /// The part of [`LakeTables::commit`] that is about one of [`Commit::TABLES`]; they must be committed in that order.
    ///
    /// # Errors
    /// As [`LakeTables::commit`].
    pub fn commit_table(&mut self, table: Table, commit: &Commit) -> Result<(), LakeError> {
        self.telling_no_room(|tables| match table {
            Table::Calls => {
                tables.commit_log_table(table, commit.calls.as_ref(), commit.received)?;
                tables.fold_calls(commit.calls.as_ref())
            }
            Table::Arrivals => tables.commit_log_table(table, commit.arrivals.as_ref(), commit.received),
            Table::Quarantine => tables.commit_log_table(table, commit.quarantine.as_ref(), commit.received),
            Table::Calls1m => {
                let due = tables.calls_1m.due(Some(commit.received));
                let due = due.map_err(|e| LakeError::other(table, "build rows of", e))?;
                let Some(Due { batches, up_to, .. }) = tables.write_calls_1m(due, Some(commit.received))? else {
                    return Ok(());
                };
                tables.calls_1h.push(&batches, up_to).map_err(|e| LakeError::other(table, "sum rows of", e))
            }
            Table::Calls1h => tables.write_calls_1h(commit.received),
            Table::Slo1m | Table::Alerts => Ok(()),
        })
    }

    /// Errors of a full disk as [`LakeError::NoRoom`].
    fn telling_no_room<T>(&mut self, work: impl FnOnce(&mut Self) -> Result<T, LakeError>) -> Result<T, LakeError> {
        self.store.take_no_room();
        work(self).map_err(|error| match self.store.take_no_room() {
            true => LakeError::NoRoom { source: Box::new(error) },
            false => error,
        })
    }

    fn commit_log_table(
        &mut self,
        table: Table,
        rows: Option<&TableCommit>,
        received: UnixMicros,
    ) -> Result<(), LakeError> {
        let Some(TableCommit { batches, up_to }) = rows else { return Ok(()) };
        let transaction = Transaction {
            app_id: &self.writer,
            first: self.up_to[table as usize].next().as_i64(),
            version: up_to.as_i64(),
            time_ms: received.0.div_euclid(1_000),
        };
        if self.writers[table as usize].append(batches, transaction)? {
            self.up_to[table as usize] = *up_to;
        }
        Ok(())
    }

    /// Adds a rollup of committed rows to `calls_1m`.
    fn push_calls(&mut self, rollup: CallsRollup, up_to: WalPosition) -> Result<(), LakeError> {
        self.learn_series(&rollup.dates())?;
        self.calls_1m.push(rollup, up_to);
        Ok(())
    }

    /// Reads which series of these dates have names in `calls_1m`, where that is not known.
    fn learn_series(&mut self, dates: &[i32]) -> Result<(), LakeError> {
        for date in dates {
            if !self.calls_1m.series().knows(*date) {
                let (series, others) = self.writers[Table::Calls1m as usize].series_of(*date)?;
                self.calls_1m.learn(*date, series, others);
            }
        }
        Ok(())
    }

    /// Folds rows of `calls` that were committed, once.
    fn fold_calls(&mut self, calls: Option<&TableCommit>) -> Result<(), LakeError> {
        let Some(TableCommit { batches, up_to }) = calls else { return Ok(()) };
        if *up_to > self.calls_1m.up_to() {
            let rollup = fold::fold(batches).map_err(|e| LakeError::other(Table::Calls1m, "fold rows into", e))?;
            self.push_calls(rollup, *up_to)?;
        }
        Ok(())
    }

    /// Writes what is due, and gives it back.
    fn write_calls_1m(&mut self, due: Option<Due>, now: Option<UnixMicros>) -> Result<Option<Due>, LakeError> {
        let Some(due) = due else { return Ok(None) };
        let app_id = fold_id(&self.writer, Table::Calls1m);
        self.writers[Table::Calls1m as usize].append(&due.batches, of_fold(&app_id, &due, now))?;
        self.calls_1m.written(now);
        Ok(Some(due))
    }

    fn write_calls_1h(&mut self, now: UnixMicros) -> Result<(), LakeError> {
        let due = self.calls_1h.due(Some(now)).map_err(|e| LakeError::other(Table::Calls1h, "build rows of", e))?;
        let Some(due) = due else { return Ok(()) };
        let app_id = fold_id(&self.writer, Table::Calls1h);
        self.writers[Table::Calls1h as usize].append(&due.batches, of_fold(&app_id, &due, Some(now)))?;
        self.calls_1h.written(due.up_to, Some(now));
        Ok(())
    }

    /// Folds the committed rows of `calls` after the cursor.
    fn catch_up(&mut self) -> Result<(), LakeError> {
        let end = self.up_to(Table::Calls);
        let mut from = self.calls_1m.up_to();
        if from >= end {
            return Ok(());
        }
        let calls = &self.writers[Table::Calls as usize];
        // What `calls_1h` has is in files of its own, so that it is not summed again.
        let hours = self.calls_1h.cursor();
        let mut rows = 0;
        let mut ends = Vec::new();
        for (last, in_commit) in calls.commits() {
            let last = WalPosition(last.cast_unsigned());
            if last <= from || last >= end {
                continue;
            }
            rows += in_commit;
            if rows >= self.calls_1m.catch_up_rows() {
                ends.push(last);
                rows = 0;
            }
        }
        ends.extend([hours, end]);
        ends.retain(|to| *to > from);
        ends.sort_unstable();
        ends.dedup();
        for to in ends {
            let mut rollup = rollup::CallsRollup::default();
            let calls = &self.writers[Table::Calls as usize];
            calls.read_range(from.as_i64(), to.as_i64(), &rollup::COLUMNS, |batch| rollup.add(batch))?;
            self.push_calls(rollup, to)?;
            let due = if to == hours { self.calls_1m.all() } else { self.calls_1m.due(None) };
            let due = due.map_err(|e| LakeError::other(Table::Calls1m, "build rows of", e))?;
            if self.write_calls_1m(due, None)?.is_none() && to == hours {
                // Nothing is left of it; what comes next is in files of its own all the same.
                self.calls_1m.written(None);
            }
            from = to;
        }
        Ok(())
    }

    /// Sums the committed rows of `calls_1m` after the cursor of `calls_1h`.
    fn catch_up_hours(&mut self) -> Result<(), LakeError> {
        let (cursor, up_to) = (self.calls_1h.cursor(), self.calls_1m.cursor());
        if cursor >= up_to {
            return Ok(());
        }
        let mut dates: BTreeMap<i32, Vec<String>> = BTreeMap::new();
        let mut rows = 0;
        for file in self.writers[Table::Calls1m as usize].files().iter() {
            let name = FileName::parse(&file.path);
            if name.is_some_and(|name| name.last <= cursor.as_i64()) {
                continue;
            }
            if cursor > WalPosition(0) && name.is_none_or(|name| name.first <= cursor.as_i64()) {
                return Err(LakeError::AcrossCursor { file: file.path.clone(), cursor });
            }
            rows += file.rows().unwrap_or(0);
            dates.entry(file.date32).or_default().push(file.path.clone());
        }
        let (store, schema) = (self.store.apart(), file_schema(Table::Calls1m));
        let mut sums = dates.into_values().map(|files| {
            let fault = |e| LakeError::other(Table::Calls1h, "sum rows for", e);
            let mut hours = Additive::new(Table::Calls1h).map_err(fault)?;
            for file in &files {
                for batch in read_file(&store, Table::Calls1m, "read a file of", file, &schema)? {
                    hours.add(&batch?).map_err(fault)?;
                }
            }
            hours.batches().map_err(fault)
        });
        if rows <= self.calls_1h.keys_max() as u64 {
            let batches: Vec<RecordBatch> = sums.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect();
            return self
                .calls_1h
                .push(&batches, up_to)
                .map_err(|e| LakeError::other(Table::Calls1h, "sum rows for", e));
        }
        // Of a table that was made anew, all of it, a date at a time.
        let due = Due { batches: Vec::new(), first: cursor.next(), up_to };
        let app_id = fold_id(&self.writer, Table::Calls1h);
        let dates = std::iter::from_fn(|| {
            sums.find_map(|batches| match batches {
                Ok(batches) => {
                    let date = batches.first()?.column(0).as_primitive::<Date32Type>().value(0);
                    Some(Ok((date, batches)))
                }
                Err(error) => Some(Err(error)),
            })
        });
        self.writers[Table::Calls1h as usize].append_dates(dates, of_fold(&app_id, &due, None))?;
        self.calls_1h.written(up_to, None);
        Ok(())
    }

    /// Appends rows to a table that readers own; see [`toolgauge_proto::lake::Lake::append`]. `now` is log time.
    ///
    /// # Errors
    /// [`LakeError::Invalid`] if it cannot be done; else as [`LakeTables::commit`].
    pub fn append(
        &mut self,
        table: Table,
        rows: &[RecordBatch],
        txn: &Txn,
        now: UnixMicros,
    ) -> Result<bool, LakeError> {
        self.check(table, &txn.app_id)?;
        let invalid = |reason: String| Err(LakeError::Invalid { table, reason });
        if txn.version < 0 {
            return invalid(format!("version {} is negative", txn.version));
        }
        let schemas = [table.live_schema(), table.schema()];
        let fits = |schema: &SchemaRef| rows.iter().all(|batch| batch.schema().fields() == schema.fields());
        if !schemas.iter().any(fits) {
            return invalid("its rows have neither the table's live schema nor its settled one".into());
        }
        self.telling_no_room(|tables| {
            let writer = &mut tables.writers[table as usize];
            let first = writer.committed(&txn.app_id)?.map_or(0, |committed| committed + 1);
            let time_ms = now.0.div_euclid(1_000);
            writer.append(rows, Transaction { app_id: &txn.app_id, first, version: txn.version, time_ms })
        })
    }

    /// The newest version that `app_id` has appended to a table that readers own.
    ///
    /// # Errors
    /// As [`LakeTables::append`].
    pub fn committed_version(&mut self, table: Table, app_id: &str) -> Result<Option<i64>, LakeError> {
        self.check(table, app_id)?;
        self.writers[table as usize].committed(app_id)
    }

    /// The one that merges files and removes old ones. Once for each opening.
    #[must_use]
    pub fn compactor(&mut self, settings: CompactSettings) -> Compactor {
        Compactor::new(settings, self.store.apart(), self.writer.clone(), std::mem::take(&mut self.removed))
    }

    /// The files of a table as they are now.
    ///
    /// # Errors
    /// If the table cannot be read.
    pub fn files(&mut self, table: Table) -> Result<TableFiles, LakeError> {
        let merge_up_to = match table {
            Table::Calls1m => self.calls_1h.cursor().as_i64(),
            _ => i64::MAX,
        };
        self.writers[table as usize].table_files(&compact_id(&self.writer), merge_up_to)
    }

    /// Commits what the compactor has prepared. Does nothing, and says so, if somebody else has replaced the same files. `now` is
    /// log time.
    ///
    /// # Errors
    /// As [`LakeTables::commit`].
    pub fn exchange(&mut self, exchange: &Exchange, now: UnixMicros) -> Result<bool, LakeError> {
        let Exchange { table, version, removed, added, changes_rows } = exchange;
        self.telling_no_room(|tables| {
            let app_id = compact_id(&tables.writer);
            let time_ms = now.0.div_euclid(1_000);
            let transaction = Transaction { app_id: &app_id, first: *version, version: *version, time_ms };
            tables.writers[*table as usize].exchange(removed, added.as_ref(), *changes_rows, transaction)
        })
    }

    fn check(&self, table: Table, app_id: &str) -> Result<(), LakeError> {
        if !table.is_appended_by_readers() {
            return Err(LakeError::Invalid { table, reason: "readers do not own it".into() });
        }
        if !names::is_app_id(app_id)
            || names::parts(app_id).0 != self.writer
            || app_id == self.writer
            || app_id == compact_id(&self.writer)
        {
            let reason = format!("\"{app_id}\" cannot name a transaction of it (write {}/NAME)", self.writer);
            return Err(LakeError::Invalid { table, reason });
        }
        Ok(())
    }

    /// The committed rows of one table.
    #[must_use]
    pub fn provider(&self, table: Table) -> Arc<dyn TableProvider> {
        self.writers[table as usize].provider()
    }

    /// What readers need of the tables as they are now.
    #[must_use]
    pub fn committed(&self) -> Committed {
        Committed {
            providers: Table::ALL.map(|table| self.provider(table)),
            up_to: self.up_to,
            versions: Table::ALL.map(|table| self.writers[table as usize].version()),
            files: Table::ALL.map(|table| self.writers[table as usize].files().len() as u64),
            rollups: self.calls_1m.rollups().clone(),
            series: self.calls_1m.series().clone(),
            folded: Arc::clone(self.calls_1m.folded()),
            hours: self.calls_1h.hours().clone(),
        }
    }
}

fn compact_id(writer: &str) -> String {
    format!("{writer}/compact")
}

fn of_fold<'a>(app_id: &'a str, due: &Due, now: Option<UnixMicros>) -> Transaction<'a> {
    let time_ms = now.map_or(0, |now| now.0.div_euclid(1_000));
    Transaction { app_id, first: due.first.as_i64(), version: due.up_to.as_i64(), time_ms }
}

fn fold_id(writer: &str, table: Table) -> String {
    format!("{writer}/{}", table.name())
}
