//! One Delta table: the only place that touches Delta.
//!
//! A commit is a kernel transaction on a snapshot that is kept in memory: it costs the same at any age of the table.
//! It carries `txn(appId, version)`, so that a replay knows what is in the table; one table may have several that append. After
//! [`CHECKPOINT_COMMITS`] commits, or more if much would have to be written, comes a checkpoint, and the log before it is removed an
//! hour later.
//!
//! All calls block and must run outside the async runtime's threads.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::num::NonZero;
use std::sync::Arc;

use arrow::array::{Array, AsArray, Date32Array, RecordBatch, StringArray};
use arrow::compute;
use arrow::datatypes::{Date32Type, Int64Type, SchemaRef};
use arrow::error::ArrowError;
use async_trait::async_trait;
use bytes::Bytes;
use datafusion::catalog::TableProvider;
use datafusion::common::ScalarValue;
use datafusion::execution::SessionState;
use datafusion::logical_expr::{col, lit};
use datafusion::prelude::SessionContext;
use delta_kernel::committer::FileSystemCommitter;
use delta_kernel::engine::arrow_data::ArrowEngineData;
use delta_kernel::engine_data::FilteredEngineData;
use delta_kernel::scan::StatsOptions;
use delta_kernel::transaction::{CommitResult, Transaction as KernelTransaction};
use delta_kernel::{Snapshot, SnapshotRef};
use delta_kernel_engine::executor::tokio::TokioMultiThreadExecutor;
use delta_kernel_engine::{DefaultEngine, DefaultEngineBuilder};
use deltalake::kernel::transaction::TransactionError;
use deltalake::kernel::{PrimitiveType, StructField, Version};
use deltalake::logstore::{CommitOrBytes, LogStore, LogStoreConfig, LogStoreRef, StorageConfig, logstore_with};
use deltalake::operations::create::CreateBuilder;
use deltalake::{DeltaResult, DeltaTable, TableProperty};
use futures::StreamExt as _;
use object_store::ObjectStore;
use object_store::path::Path;
use serde::Deserialize;
use tokio::runtime::Handle;
use toolgauge_analytics::series::{self, SERIES};
use toolgauge_proto::id::RowId;
use toolgauge_proto::table::{ColumnType, Table};
use url::Url;
use uuid::Uuid;

use super::compact::TableFiles;
use super::files::{Files, scan_log};
use super::names::{self, FileName, in_table};
use super::scan::CommittedRows;
use super::statistics::{DataFile, Statistics, add_actions, statistics_columns};
use super::store::FsStore;
use super::{LakeError, parquet};

/// Commits between two checkpoints, at least.
const CHECKPOINT_COMMITS: u64 = 50;
/// A checkpoint writes everything again that the log remembers, and files that were removed are remembered for an hour. So a
/// commit must have come for each so many actions of the last one.
const CHECKPOINT_ACTIONS: u64 = 20;
/// Log entries that a checkpoint covers are removed when they are older than this, in milliseconds; a reader that
/// listed the log before may still want them.
const LOG_RETENTION_MS: i64 = 3_600_000;
/// Transactions of one table whose versions are kept in memory.
const VERSIONS_MAX: usize = 64;

type Engine = DefaultEngine<TokioMultiThreadExecutor>;

/// deltalake's log store with an engine of small buffers: the default one takes gigabytes to read a few hundred
/// commits, because it reserves for a thousand rows of each.
#[derive(Debug)]
struct LeanLogStore {
    inner: LogStoreRef,
    engine: Arc<Engine>,
}

#[async_trait]
impl LogStore for LeanLogStore {
    fn name(&self) -> String {
        // Commits are written by conditional put only for the store of this name.
        "DefaultLogStore".into()
    }

    async fn read_commit_entry(&self, version: Version) -> DeltaResult<Option<Bytes>> {
        self.inner.read_commit_entry(version).await
    }

    async fn write_commit_entry(
        &self,
        version: Version,
        commit: CommitOrBytes,
        id: Uuid,
    ) -> Result<(), TransactionError> {
        self.inner.write_commit_entry(version, commit, id).await
    }

    async fn abort_commit_entry(
        &self,
        version: Version,
        commit: CommitOrBytes,
        id: Uuid,
    ) -> Result<(), TransactionError> {
        self.inner.abort_commit_entry(version, commit, id).await
    }

    async fn get_latest_version(&self, start: Version) -> DeltaResult<Version> {
        self.inner.get_latest_version(start).await
    }

    fn object_store(&self, operation: Option<Uuid>) -> Arc<dyn ObjectStore> {
        self.inner.object_store(operation)
    }

    fn root_object_store(&self, operation: Option<Uuid>) -> Arc<dyn ObjectStore> {
        self.inner.root_object_store(operation)
    }

    fn config(&self) -> &LogStoreConfig {
        self.inner.config()
    }

    fn engine(&self, _: Option<Uuid>) -> Arc<dyn delta_kernel::Engine> {
        Arc::<Engine>::clone(&self.engine)
    }
}

/// One Delta table, open for reading and appending.
#[derive(Debug)]
pub(crate) struct DeltaWriter {
    table: Table,
    store: FsStore,
    engine: Arc<Engine>,
    runtime: Handle,
    snapshot: SnapshotRef,
    /// Of the snapshot.
    files: Files,
    last_checkpoint: LastCheckpoint,
    log_store: LogStoreRef,
    session: Arc<SessionState>,
    /// Newest version by `app_id`, as far as asked for.
    versions: HashMap<String, Option<i64>>,
}

/// What `_last_checkpoint` says, by the Delta protocol; nothing if there is none or it cannot be read, since it is but a hint.
#[derive(Debug, Default, Deserialize)]
struct LastCheckpoint {
    /// Of the table.
    version: u64,
    /// How many actions it has.
    size: u64,
}

impl LastCheckpoint {
    fn of(table: Table, store: &FsStore) -> Self {
        let text = store.read(&in_table(table, "_delta_log/_last_checkpoint"));
        text.ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default()
    }

    fn is_due(&self, version: u64) -> bool {
        version.saturating_sub(self.version) >= CHECKPOINT_COMMITS.max(self.size / CHECKPOINT_ACTIONS)
    }
}

/// What a commit appends besides its rows.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Transaction<'a> {
    /// Who appends.
    pub(crate) app_id: &'a str,
    /// One more than the version before; goes into the names of the files.
    pub(crate) first: i64,
    /// The version.
    pub(crate) version: i64,
    /// When, in milliseconds since 1970.
    pub(crate) time_ms: i64,
}

fn delta_fields(table: Table) -> Result<Vec<StructField>, LakeError> {
    let fields = table.columns().iter().map(|column| {
        let data_type = match column.column_type {
            ColumnType::Date => PrimitiveType::Date,
            ColumnType::Timestamp => PrimitiveType::Timestamp,
            ColumnType::Int64 => PrimitiveType::Long,
            ColumnType::Int32 => PrimitiveType::Integer,
            ColumnType::Bool => PrimitiveType::Boolean,
            ColumnType::Binary => PrimitiveType::Binary,
            ColumnType::Word | ColumnType::Text => PrimitiveType::String,
            ColumnType::Decimal(scale) => PrimitiveType::decimal(18, scale.unsigned_abs())?,
        };
        Ok(StructField::new(column.name, deltalake::kernel::DataType::Primitive(data_type), column.nullable))
    });
    fields.collect::<Result<_, delta_kernel::Error>>().map_err(|source| LakeError::kernel(table, "define", source))
}

impl DeltaWriter {
    /// Opens the table, or creates it; one of an earlier version gets the columns that it lacks.
    pub(crate) fn open(
        table: Table,
        store: FsStore,
        runtime: Handle,
        session: Arc<SessionState>,
    ) -> Result<Self, LakeError> {
        let mut opened = Self::open_as_it_is(table, store, runtime, session)?;
        opened.add_new_columns()?;
        Ok(opened)
    }

    /// In the files that are there they are null.
    fn add_new_columns(&mut self) -> Result<(), LakeError> {
        let table = self.table;
        let fields = delta_fields(table)?;
        let schema = self.snapshot.schema();
        let known: Vec<&String> = schema.fields().map(|field| field.name()).collect();
        let new = fields.get(known.len()..).unwrap_or_default().to_vec();
        let is_earlier = fields.len() >= known.len()
            && fields.iter().zip(&known).all(|(field, known)| field.name() == *known)
            && new.iter().all(|field| field.nullable);
        if !is_earlier {
            let columns = known.iter().map(|name| name.as_str()).collect::<Vec<_>>().join(", ");
            return Err(LakeError::OtherColumns { table, columns });
        }
        if new.is_empty() {
            return Ok(());
        }
        let known = self.known_to_deltalake()?;
        self.runtime
            .block_on(known.add_columns().with_fields(new).into_future())
            .map_err(|e| LakeError::delta(table, "add columns to", e))?;
        self.read_log()
    }

    /// For what the kernel cannot do. It reads the whole log.
    fn known_to_deltalake(&self) -> Result<DeltaTable, LakeError> {
        let mut known = DeltaTable::new(Arc::clone(&self.log_store));
        self.runtime.block_on(known.load()).map_err(|e| LakeError::delta(self.table, "open", e))?;
        Ok(known)
    }

    /// Brings the snapshot and the files up to what the log says.
    fn read_log(&mut self) -> Result<(), LakeError> {
        self.snapshot = Snapshot::builder_from(Arc::clone(&self.snapshot))
            .build(self.engine.as_ref())
            .map_err(|e| LakeError::kernel(self.table, "read the log of", e))?;
        self.files = Files::of(self.table, &self.snapshot, self.engine.as_ref())?;
        Ok(())
    }

    fn open_as_it_is(
        table: Table,
        store: FsStore,
        runtime: Handle,
        session: Arc<SessionState>,
    ) -> Result<Self, LakeError> {
        let root: Arc<dyn ObjectStore> = Arc::new(store.clone());
        let url =
            Url::parse(&format!("memory:///{}/", table.name())).map_err(|e| LakeError::other(table, "name", e))?;
        let engine = DefaultEngineBuilder::new(Arc::clone(&root))
            .with_task_executor(Arc::new(TokioMultiThreadExecutor::new(runtime.clone())))
            .with_buffer_size(const { NonZero::new(8).unwrap() })
            .with_batch_size(const { NonZero::new(512).unwrap() })
            .build();
        let engine = Arc::new(engine);
        // The scheme keeps the tables apart from the machine's files: a query session that knows this store knows
        // nothing else of the disk.
        let inner =
            logstore_with(root, &url, StorageConfig::default()).map_err(|e| LakeError::delta(table, "open", e))?;
        let log_store: LogStoreRef = Arc::new(LeanLogStore { inner, engine: Arc::clone(&engine) });
        let created = runtime.block_on(async {
            if !log_store.is_delta_table_location().await? {
                CreateBuilder::new()
                    .with_log_store(Arc::clone(&log_store))
                    .with_table_name(table.name())
                    .with_columns(delta_fields(table).map_err(|e| deltalake::DeltaTableError::generic(e.to_string()))?)
                    .with_partition_columns(["date"])
                    .with_configuration_property(
                        TableProperty::DataSkippingStatsColumns,
                        Some(statistics_columns(table).join(",")),
                    )
                    .with_configuration_property(TableProperty::LogRetentionDuration, Some("interval 1 hours"))
                    .with_configuration_property(TableProperty::DeletedFileRetentionDuration, Some("interval 1 hours"))
                    .await?;
            }
            Ok(())
        });
        created.map_err(|e| LakeError::delta(table, "open", e))?;
        let snapshot = Snapshot::builder_for(url.as_str())
            .build(engine.as_ref())
            .map_err(|e| LakeError::kernel(table, "read the log of", e))?;
        let files = Files::of(table, &snapshot, engine.as_ref())?;
        let last_checkpoint = LastCheckpoint::of(table, &store);
        let versions = HashMap::new();
        Ok(Self { table, store, engine, runtime, snapshot, files, last_checkpoint, log_store, session, versions })
    }

    /// The newest version that a commit of this `app_id` carried. A fold of a new log goes on where that of another log
    /// ended.
    ///
    /// Files of it without a transaction mean that the transaction was lost, and its rows would be written again.
    pub(crate) fn committed(&mut self, app_id: &str) -> Result<Option<i64>, LakeError> {
        if let Some(known) = self.versions.get(app_id) {
            return Ok(*known);
        }
        let own = self
            .snapshot
            .get_app_id_version(app_id, self.engine.as_ref())
            .map_err(|e| LakeError::kernel(self.table, "read the transactions of", e))?;
        let committed = if own.is_some() { own } else { self.committed_by_others(app_id)? };
        self.remember(app_id, committed);
        Ok(committed)
    }

    fn committed_by_others(&self, app_id: &str) -> Result<Option<i64>, LakeError> {
        let (writer, fold) = names::parts(app_id);
        let mut newest = None;
        for file in self.files.iter() {
            match FileName::parse(&file.path) {
                Some(name) if name.fold == fold && name.writer == writer => {
                    return Err(LakeError::LostTransaction { table: self.table, file: file.path.clone() });
                }
                Some(name) if name.fold == fold && !fold.is_empty() => newest = newest.max(Some(name.last)),
                _ => {}
            }
        }
        Ok(newest)
    }

    fn remember(&mut self, app_id: &str, version: Option<i64>) {
        if self.versions.len() >= VERSIONS_MAX && !self.versions.contains_key(app_id) {
            self.versions.clear();
        }
        self.versions.insert(app_id.to_owned(), version);
    }

    /// For each commit that has rows: its position, and how many.
    pub(crate) fn commits(&self) -> BTreeMap<i64, u64> {
        let mut commits = BTreeMap::new();
        for file in self.files.iter() {
            if let Some(name) = FileName::parse(&file.path) {
                *commits.entry(name.last).or_default() += file.rows().unwrap_or(0);
            }
        }
        commits
    }

    /// The committed rows of a range of log positions, after `after` and up to `up_to`, a batch at a time.
    pub(crate) fn read_range(
        &self,
        after: i64,
        up_to: i64,
        columns: &[&str],
        mut each: impl FnMut(&RecordBatch) -> Result<(), ArrowError>,
    ) -> Result<(), LakeError> {
        let provider = self.provider();
        let read = async {
            let rows = SessionContext::new_with_state(self.session.as_ref().clone())
                .read_table(provider)?
                .filter(col("wal_position").gt(lit(after)).and(col("wal_position").lt_eq(lit(up_to))))?
                .select_columns(columns)?;
            let mut batches = rows.execute_stream().await?;
            while let Some(batch) = batches.next().await {
                each(&batch?)?;
            }
            Ok(())
        };
        self.runtime
            .block_on(read)
            .map_err(|e: datafusion::error::DataFusionError| LakeError::other(self.table, "read", e))
    }

    /// The series of a date that have names, and whether there are others. Only of `calls_1m`.
    pub(super) fn series_of(&self, date: i32) -> Result<(HashSet<u128>, bool), LakeError> {
        let provider = self.provider();
        let (mut found, mut others) = (HashSet::new(), false);
        let read = async {
            let rows = SessionContext::new_with_state(self.session.as_ref().clone())
                .read_table(provider)?
                .filter(col("date").eq(lit(ScalarValue::Date32(Some(date)))))?
                .select_columns(&SERIES)?
                .distinct()?;
            let mut batches = rows.execute_stream().await?;
            while let Some(batch) = batches.next().await {
                let batch = batch?;
                let columns: Vec<&StringArray> =
                    batch.columns().iter().map(|column| column.as_string::<i32>()).collect();
                for row in 0..batch.num_rows() {
                    let mut names = [None; SERIES.len()];
                    for (name, column) in names.iter_mut().zip(&columns) {
                        *name = column.is_valid(row).then(|| column.value(row));
                    }
                    if !series::is_other(&names) {
                        found.insert(series::identity(&names));
                    } else if names.iter().skip(1).any(Option::is_some) {
                        others = true;
                    }
                }
            }
            Ok((found, others))
        };
        self.runtime
            .block_on(read)
            .map_err(|e: datafusion::error::DataFusionError| LakeError::other(self.table, "read the series of", e))
    }

    /// So many of the newest dates that it has files of, as days since 1970.
    pub(super) fn newest_dates(&self, dates: usize) -> Vec<i32> {
        let mut found: Vec<i32> = self.files.iter().map(|file| file.date32).collect();
        found.sort_unstable();
        found.dedup();
        found.split_off(found.len().saturating_sub(dates))
    }

    /// Version of the table.
    pub(crate) fn version(&self) -> u64 {
        self.snapshot.version()
    }

    /// Files of the table.
    pub(crate) fn files(&self) -> &Files {
        &self.files
    }

    /// The committed rows as a table.
    pub(crate) fn provider(&self) -> Arc<dyn TableProvider> {
        let store = Arc::new(self.store.clone());
        Arc::new(CommittedRows { table: self.table, store, files: self.files.clone() })
    }

    /// Identities of at most so many rows of frames before this log position, the newest, oldest first. Only of `calls`.
    pub(crate) fn identities_before(&self, position: i64, max: usize) -> Result<Vec<RowId>, LakeError> {
        if position <= 1 || max == 0 {
            return Ok(Vec::new());
        }
        let from = self.begin_of_newest(max);
        let fault = |e| LakeError::other(self.table, "read identities of", e);
        let provider = self.provider();
        let mut found = Vec::new();
        let read = async {
            let rows = SessionContext::new_with_state(self.session.as_ref().clone())
                .read_table(provider)?
                .filter(col("wal_position").gt_eq(lit(from)).and(col("wal_position").lt(lit(position))))?;
            let mut batches = rows.select_columns(&["wal_position", "row_id"])?.execute_stream().await?;
            while let Some(batch) = batches.next().await {
                let batch = batch?;
                let positions = batch.column(0).as_primitive::<Int64Type>();
                let ids = batch.column(1).as_binary::<i32>().iter().map(|id| id.and_then(RowId::from_slice));
                found.extend(positions.values().iter().zip(ids).filter_map(|(position, id)| Some((*position, id?))));
                // A merged file may hold many more than are wanted.
                if found.len() / 2 > max {
                    keep_greatest(&mut found, max);
                }
            }
            Ok(())
        };
        self.runtime.block_on(read).map_err(|e: datafusion::error::DataFusionError| fault(e))?;
        keep_greatest(&mut found, max);
        found.sort_unstable();
        Ok(found.into_iter().map(|(_, id)| id).collect())
    }

    /// The log position with which so many of the newest rows begin, as far as the files tell.
    fn begin_of_newest(&self, rows: usize) -> i64 {
        let mut files: Vec<(i64, u64)> = self
            .files
            .iter()
            .filter_map(|file| Some((FileName::parse(&file.path)?.first, file.rows().unwrap_or(0))))
            .collect();
        files.sort_unstable();
        let mut left = rows as u64;
        for (first, records) in files.into_iter().rev() {
            left = left.saturating_sub(records);
            if left == 0 {
                return first;
            }
        }
        0
    }

    /// Appends rows (all in the table's live schema, or all in its settled one) and makes them durable, in one transaction.
    /// Does nothing, and says so, if the table has this version already.
    pub(crate) fn append(&mut self, batches: &[RecordBatch], transaction: Transaction<'_>) -> Result<bool, LakeError> {
        if self.has(transaction)? {
            return Ok(false);
        }
        let dates = split_by_date(batches).map_err(|e| LakeError::other(self.table, "sort rows of", e))?;
        self.append_dates(dates.into_iter().map(Ok), transaction)
    }

    /// As [`Self::append`], of rows that are made a date at a time; each date comes once.
    pub(super) fn append_dates(
        &mut self,
        dates: impl Iterator<Item = Result<(i32, Vec<RecordBatch>), LakeError>>,
        transaction: Transaction<'_>,
    ) -> Result<bool, LakeError> {
        let Transaction { app_id, version, time_ms, .. } = transaction;
        if self.has(transaction)? {
            return Ok(false);
        }
        let mut files = Vec::new();
        for date in dates {
            let (date, batches) = date?;
            files.push(self.write_file(date, &batches, transaction)?);
        }
        loop {
            match self.commit(&files, transaction)? {
                Some(snapshot) => {
                    self.follow(snapshot, &HashSet::new(), &files, time_ms)?;
                    break;
                }
                // Somebody else has taken the version; or our own commit came through although we saw an error.
                None if self.is_committed(app_id, version)? => break,
                None => {}
            }
        }
        self.remember(app_id, Some(version));
        self.checkpoint_if_due(time_ms)?;
        Ok(true)
    }

    fn has(&mut self, transaction: Transaction<'_>) -> Result<bool, LakeError> {
        Ok(self.committed(transaction.app_id)?.is_some_and(|committed| committed >= transaction.version))
    }

    /// Replaces files by one that holds their rows, or by nothing, in one transaction. Does nothing, and says so, if the table
    /// has this version already, or no longer has one of the files: then somebody else has replaced them.
    ///
    /// What is in the table is asked of the very snapshot that the commit builds upon, and the commit fails if there is a
    /// later one. So no rows can come twice, whoever else commits.
    pub(super) fn exchange(
        &mut self,
        removed: &[String],
        added: Option<&DataFile>,
        changes_rows: bool,
        transaction: Transaction<'_>,
    ) -> Result<bool, LakeError> {
        let Transaction { app_id, version, time_ms, .. } = transaction;
        if self.has(transaction)? {
            return Ok(false);
        }
        let removed: HashSet<&str> = removed.iter().map(String::as_str).collect();
        let done = loop {
            let (rows, found) = self.scan_rows(&removed)?;
            if found < removed.len() {
                break false;
            }
            if let Some(snapshot) = self.commit_exchange(rows, added, changes_rows, transaction)? {
                let added = added.map_or(&[][..], std::slice::from_ref);
                self.follow(snapshot, &removed, added, time_ms)?;
                break true;
            }
            if self.is_committed(app_id, version)? {
                // Ours came through although we saw an error, or somebody else was before us.
                let sought = added.map_or_else(|| removed.clone(), |file| HashSet::from([file.path.as_str()]));
                let (_, found) = self.scan_rows(&sought)?;
                break (found > 0) == added.is_some();
            }
        };
        if done {
            self.remember(app_id, Some(version));
        } else {
            self.versions.remove(app_id);
        }
        self.checkpoint_if_due(time_ms)?;
        Ok(done)
    }

    /// What the snapshot's log says of these files, as far as they are in the table, and how many that are.
    fn scan_rows(&self, paths: &HashSet<&str>) -> Result<(Vec<FilteredEngineData>, usize), LakeError> {
        let (mut rows, mut found) = (Vec::new(), 0);
        let engine = self.engine.as_ref();
        scan_log(self.table, &self.snapshot, engine, StatsOptions::default(), |data, mut selected| {
            let column = data.record_batch().column_by_name("path").and_then(|column| column.as_string_opt::<i32>());
            let names =
                column.ok_or_else(|| LakeError::other(self.table, "read the log of", "a scan gave no paths"))?;
            let mut here = 0;
            for (selected, name) in selected.iter_mut().zip(names) {
                *selected &= name.is_some_and(|name| paths.contains(name));
                here += usize::from(*selected);
            }
            if here > 0 {
                found += here;
                let part = FilteredEngineData::try_new(data, selected);
                rows.push(part.map_err(|e| LakeError::kernel(self.table, "read the log of", e))?);
            }
            Ok(())
        })?;
        Ok((rows, found))
    }

    fn commit_exchange(
        &self,
        removed: Vec<FilteredEngineData>,
        added: Option<&DataFile>,
        changes_rows: bool,
        of: Transaction<'_>,
    ) -> Result<Option<SnapshotRef>, LakeError> {
        let operation = match (added.is_some(), changes_rows) {
            (true, false) => "OPTIMIZE",
            (true, true) => "UPDATE",
            (false, _) => "DELETE",
        };
        // Rows of additive tables are summed, so others are there than before.
        let is_change = changes_rows || self.table.is_additive();
        let mut transaction = self.begin(operation, of)?.with_data_change(is_change);
        if let Some(file) = added {
            let adds = add_actions(self.table, std::slice::from_ref(file), of.time_ms)
                .map_err(|e| LakeError::other(self.table, "describe the files of", e))?;
            transaction.add_files(Box::new(ArrowEngineData::new(adds)));
        }
        removed.into_iter().for_each(|rows| transaction.remove_files(rows));
        self.end(transaction)
    }

    /// After a commit of ours that removed and added these files.
    fn follow(
        &mut self,
        snapshot: SnapshotRef,
        removed: &HashSet<&str>,
        added: &[DataFile],
        time_ms: i64,
    ) -> Result<(), LakeError> {
        self.snapshot = snapshot;
        if !self.files.follow(self.snapshot.version(), removed, added, time_ms) {
            self.files = Files::of(self.table, &self.snapshot, self.engine.as_ref())?;
        }
        Ok(())
    }

    /// Last: the checkpoint may find no room, and the commit, tried again, is found to be there.
    fn checkpoint_if_due(&mut self, now_ms: i64) -> Result<(), LakeError> {
        if self.last_checkpoint.is_due(self.snapshot.version()) {
            self.checkpoint(now_ms)?;
        }
        Ok(())
    }

    fn write_file(
        &self,
        date32: i32,
        batches: &[RecordBatch],
        transaction: Transaction<'_>,
    ) -> Result<DataFile, LakeError> {
        // A second try at the same rows writes the same name.
        let Transaction { app_id, first, version, .. } = transaction;
        let path = names::dated(date32, &names::file_name(app_id, first, version));
        let file_columns: Vec<usize> = (1..self.table.columns().len()).collect();
        let project = |batch: &RecordBatch| batch.project(&file_columns);
        let stripped: Vec<_> = batches
            .iter()
            .map(project)
            .collect::<Result<_, _>>()
            .map_err(|e| LakeError::other(self.table, "project rows of", e))?;
        let schema: SchemaRef = stripped.first().map_or_else(|| self.table.live_schema(), RecordBatch::schema);
        let bytes =
            parquet::encode(&schema, &stripped, self.table).map_err(|e| LakeError::other(self.table, "encode", e))?;
        let size = bytes.len() as i64;
        self.store
            .put_durably(&in_table(self.table, &path), &[Bytes::from(bytes)], false)
            .map_err(|e| LakeError::other(self.table, "write a file of", e))?;
        Ok(DataFile::new(path, date32, size, Statistics::of(self.table, batches)))
    }

    fn commit(&self, files: &[DataFile], of: Transaction<'_>) -> Result<Option<SnapshotRef>, LakeError> {
        let mut transaction = self.begin("WRITE", of)?.with_data_change(true);
        if !files.is_empty() {
            let adds = add_actions(self.table, files, of.time_ms)
                .map_err(|e| LakeError::other(self.table, "describe the files of", e))?;
            transaction = transaction.with_blind_append();
            transaction.add_files(Box::new(ArrowEngineData::new(adds)));
        }
        self.end(transaction)
    }

    fn begin(&self, operation: &str, of: Transaction<'_>) -> Result<KernelTransaction, LakeError> {
        let transaction = Arc::clone(&self.snapshot)
            .transaction(Box::new(FileSystemCommitter::new()), self.engine.as_ref())
            .map_err(|e| LakeError::kernel(self.table, "commit to", e))?;
        Ok(transaction
            .with_operation(operation.into())
            .with_engine_info("toolgauge")
            .with_transaction_id(of.app_id.to_owned(), of.version))
    }

    /// Commits; `None` if there is a later snapshot than the one that it builds upon.
    fn end(&self, transaction: KernelTransaction) -> Result<Option<SnapshotRef>, LakeError> {
        match transaction.commit(self.engine.as_ref()).map_err(|e| LakeError::kernel(self.table, "commit to", e))? {
            CommitResult::CommittedTransaction(done) => match done.post_commit_snapshot() {
                Some(snapshot) => Ok(Some(Arc::clone(snapshot))),
                None => Err(LakeError::other(self.table, "commit to", "the kernel gave no snapshot")),
            },
            CommitResult::ConflictedTransaction(_) => Ok(None),
            CommitResult::RetryableTransaction(failed) => Err(LakeError::other(self.table, "commit to", failed.error)),
        }
    }

    fn is_committed(&mut self, app_id: &str, version: i64) -> Result<bool, LakeError> {
        self.read_log()?;
        let found = self
            .snapshot
            .get_app_id_version(app_id, self.engine.as_ref())
            .map_err(|e| LakeError::kernel(self.table, "read the log of", e))?;
        Ok(found.is_some_and(|found| found >= version))
    }

    fn checkpoint(&mut self, now_ms: i64) -> Result<(), LakeError> {
        let (_, snapshot) = Arc::clone(&self.snapshot)
            .checkpoint(self.engine.as_ref(), None)
            .map_err(|e| LakeError::kernel(self.table, "checkpoint", e))?;
        self.snapshot = snapshot;
        self.last_checkpoint = LastCheckpoint::of(self.table, &self.store);
        let (version, before_ms) = (self.snapshot.version(), now_ms - LOG_RETENTION_MS);
        let clean = deltalake::checkpoints::cleanup_expired_logs_for(version, self.log_store.as_ref(), before_ms, None);
        self.runtime.block_on(clean).map_err(|e| LakeError::delta(self.table, "clean the log of", e))?;
        Ok(())
    }

    /// Removes data files of this writer and its folds that no snapshot has ever named and that nobody is writing: what a crash
    /// between the write of a file and its commit left. Only at the start. Files that were in the table and are to be
    /// removed later, because readers of an earlier version may still want them, are given back.
    pub(crate) fn sweep(&self, writer: &str) -> Result<Vec<Path>, LakeError> {
        let named: HashSet<String> = self.files.iter().map(|file| in_table(self.table, &file.path).into()).collect();
        let fault = |e| LakeError::other(self.table, "sweep", e);
        let mut unnamed = self.store.walk(&Path::from(self.table.name())).map_err(fault)?;
        unnamed.retain(|path| path.parts().nth(1).is_some_and(|part| part.as_ref().starts_with("date=")));
        unnamed.retain(|path| !named.contains(path.as_ref()));
        if unnamed.is_empty() {
            return Ok(unnamed);
        }
        let removed = self.removed()?;
        let (later, never): (Vec<Path>, Vec<Path>) =
            unnamed.into_iter().partition(|path| removed.contains(path.as_ref()));
        for path in never {
            if FileName::parse(path.as_ref()).is_some_and(|name| name.writer == writer) {
                self.store.remove(&path).map_err(fault)?;
            }
        }
        Ok(later)
    }

    /// Files that were taken out of the table, below the lake's folder, as long as the log remembers them.
    fn removed(&self) -> Result<HashSet<String>, LakeError> {
        let fault = |e| LakeError::delta(self.table, "read the log of", e);
        let known = self.known_to_deltalake()?;
        let state = known.snapshot().map_err(fault)?;
        let mut removed = HashSet::new();
        self.runtime.block_on(async {
            let mut files = state.all_tombstones(self.log_store.as_ref());
            while let Some(file) = files.next().await {
                removed.insert(in_table(self.table, &file.map_err(fault)?.path()).into());
            }
            Ok(())
        })?;
        Ok(removed)
    }

    /// The files as they are now, for a compaction whose transactions are those of this `app_id` and that merges files up to
    /// this version of their own.
    pub(super) fn table_files(&mut self, app_id: &str, merge_up_to: i64) -> Result<TableFiles, LakeError> {
        let exchanged = self.committed(app_id)?.unwrap_or(0);
        Ok(TableFiles { table: self.table, files: self.files.clone(), exchanged, merge_up_to })
    }
}

/// Keeps so many of the greatest, in any order.
fn keep_greatest<T: Ord>(items: &mut Vec<T>, max: usize) {
    if items.len() > max {
        let cut = items.len() - max;
        items.select_nth_unstable(cut);
        items.drain(..cut);
    }
}

/// Splits rows by their first column, the date.
fn split_by_date(batches: &[RecordBatch]) -> Result<BTreeMap<i32, Vec<RecordBatch>>, ArrowError> {
    let mut by_date: BTreeMap<i32, Vec<RecordBatch>> = BTreeMap::new();
    for batch in batches.iter().filter(|batch| batch.num_rows() > 0) {
        let dates = batch.column(0).as_primitive::<Date32Type>();
        if let (Some(min), Some(max)) = (compute::min(dates), compute::max(dates))
            && min == max
        {
            by_date.entry(min).or_default().push(batch.clone());
            continue;
        }
        let mut distinct: Vec<i32> = dates.values().to_vec();
        distinct.sort_unstable();
        distinct.dedup();
        for date in distinct {
            let here = arrow::compute::kernels::cmp::eq(dates, &Date32Array::new_scalar(date))?;
            by_date.entry(date).or_default().push(compute::filter_record_batch(batch, &here)?);
        }
    }
    Ok(by_date)
}

#[cfg(test)]
mod tests;
