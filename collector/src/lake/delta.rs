//! One Delta table: the only place that touches Delta.
//!
//! A commit is a kernel transaction on a snapshot that is kept in memory: it costs the same at any age of the table.
//! It carries `txn(appId, version)`, so that a replay knows what is in the table; one table may have several that append. A checkpoint is written every
//! [`CHECKPOINT_COMMITS`] commits, and the log before it is removed an hour later.
//!
//! All calls block and must run outside the async runtime's threads.

use std::collections::{BTreeMap, HashMap};
use std::num::NonZero;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Date32Array, Int64Array, MapBuilder, RecordBatch, StringArray,
    StringBuilder, StructArray, TimestampMicrosecondArray,
};
use arrow::compute;
use arrow::datatypes::{DataType, Date32Type, Field, Int64Type, SchemaRef, TimestampMicrosecondType, UInt16Type};
use arrow::error::ArrowError;
use async_trait::async_trait;
use bytes::Bytes;
use datafusion::catalog::{Session, TableProvider};
use datafusion::datasource::TableType;
use datafusion::execution::SessionState;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, col, lit};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::prelude::SessionContext;
use delta_kernel::committer::FileSystemCommitter;
use delta_kernel::engine::arrow_data::ArrowEngineData;
use delta_kernel::transaction::CommitResult;
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
use tokio::runtime::Handle;
use toolgauge_proto::id::RowId;
use toolgauge_proto::table::{ColumnType, Table};
use url::Url;
use uuid::Uuid;

use super::names::{self, FileName};
use super::store::FsStore;
use super::{LakeError, parquet};

/// Commits between two checkpoints.
pub(crate) const CHECKPOINT_COMMITS: u64 = 50;
/// Log entries that a checkpoint covers are removed when they are older than this, in milliseconds; a reader that
/// listed the log before may still want them.
const LOG_RETENTION_MS: i64 = 3_600_000;
/// Longest text whose minimum and maximum go into the statistics, in bytes; of longer ones a cut value would not be
/// exact, and exact statistics answer `min` and `max`.
const STATISTICS_TEXT_BYTES: usize = 64;
/// Transactions of one table whose versions are kept in memory.
const VERSIONS_MAX: usize = 64;

type Engine = DefaultEngine<TokioMultiThreadExecutor>;

/// Columns whose minimum and maximum readers prune files by.
const fn statistics_columns(table: Table) -> &'static [&'static str] {
    match table {
        Table::Calls => &["start_time", "end_time", "kind", "service_name", "tool_name", "outcome", "wal_position"],
        Table::Arrivals => &["minute"],
        Table::Quarantine => &["received", "wal_position"],
        Table::Calls1m => &["minute", "kind", "service_name", "tool_name", "outcome"],
        Table::Slo1m => &["minute", "service", "slo", "slo_revision"],
        Table::Alerts => &["time", "source", "alertname", "service", "slo"],
    }
}

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
    reader: DeltaTable,
    session: Arc<SessionState>,
    /// Newest version by `app_id`, as far as asked for.
    versions: HashMap<String, Option<i64>>,
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
    /// Opens the table, or creates it.
    pub(crate) fn open(
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
            .with_batch_size(const { NonZero::new(64).unwrap() })
            .build();
        let engine = Arc::new(engine);
        // The scheme keeps the tables apart from the machine's files: a query session that knows this store knows
        // nothing else of the disk.
        let inner =
            logstore_with(root, &url, StorageConfig::default()).map_err(|e| LakeError::delta(table, "open", e))?;
        let log_store: LogStoreRef = Arc::new(LeanLogStore { inner, engine: Arc::clone(&engine) });
        let opened = runtime.block_on(async {
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
            let mut reader = DeltaTable::new(log_store);
            reader.load().await?;
            Ok(reader)
        });
        let reader = opened.map_err(|e| LakeError::delta(table, "open", e))?;
        let snapshot = Snapshot::builder_for(url.as_str())
            .build(engine.as_ref())
            .map_err(|e| LakeError::kernel(table, "read the log of", e))?;
        Ok(Self { table, store, engine, runtime, snapshot, reader, session, versions: HashMap::new() })
    }

    fn file_paths(&self) -> Result<Vec<String>, LakeError> {
        let state = self.reader.snapshot().map_err(|e| LakeError::delta(self.table, "read", e))?;
        let paths = state.log_data().into_iter().map(|file| file.path().to_string());
        Ok(paths.collect())
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
        for file in self.file_paths()? {
            match FileName::parse(&file) {
                Some(name) if name.fold == fold && name.writer == writer => {
                    return Err(LakeError::LostTransaction { table: self.table, file });
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
    pub(crate) fn commits(&self) -> Result<BTreeMap<i64, u64>, LakeError> {
        let state = self.reader.snapshot().map_err(|e| LakeError::delta(self.table, "read", e))?;
        let mut commits = BTreeMap::new();
        for file in state.log_data() {
            if let Some(name) = FileName::parse(&file.path()) {
                *commits.entry(name.last).or_default() += file.num_records().unwrap_or(0) as u64;
            }
        }
        Ok(commits)
    }

    /// The committed rows of a range of log positions, after `after` and up to `up_to`, a batch at a time.
    pub(crate) fn read_range(
        &self,
        after: i64,
        up_to: i64,
        columns: &[&str],
        mut each: impl FnMut(&RecordBatch) -> Result<(), ArrowError>,
    ) -> Result<(), LakeError> {
        let provider = self.provider()?;
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

    /// Version of the table.
    pub(crate) fn version(&self) -> u64 {
        self.snapshot.version()
    }

    /// Files of the table.
    pub(crate) fn files(&self) -> u64 {
        self.reader.snapshot().map_or(0, |state| state.log_data().num_files() as u64)
    }

    /// The committed rows as a table.
    pub(crate) fn provider(&self) -> Result<Arc<dyn TableProvider>, LakeError> {
        let built = self.reader.table_provider().with_session(Arc::clone(&self.session));
        let inner: Arc<dyn TableProvider> =
            self.runtime.block_on(built.into_future()).map_err(|e| LakeError::other(self.table, "read", e))?;
        Ok(Arc::new(Committed { inner, table: self.reader.clone() }))
    }

    /// Identities of at most so many rows of frames before this log position, the newest, oldest first. Only of `calls`.
    pub(crate) fn identities_before(&self, position: i64, max: usize) -> Result<Vec<RowId>, LakeError> {
        if position <= 1 || max == 0 {
            return Ok(Vec::new());
        }
        let from = self.begin_of_newest(max)?;
        let fault = |e| LakeError::other(self.table, "read identities of", e);
        let provider = self.provider()?;
        let read = async {
            let rows = SessionContext::new_with_state(self.session.as_ref().clone())
                .read_table(provider)?
                .filter(col("wal_position").gt_eq(lit(from)).and(col("wal_position").lt(lit(position))))?;
            rows.select_columns(&["wal_position", "row_id"])?.collect().await
        };
        let batches = self.runtime.block_on(read).map_err(|e: datafusion::error::DataFusionError| fault(e))?;
        let mut found = Vec::new();
        for batch in &batches {
            let (positions, ids) = (batch.column(0).as_primitive::<Int64Type>(), batch.column(1).as_binary::<i32>());
            let ids = ids.iter().map(|id| id.and_then(RowId::from_slice));
            found.extend(positions.values().iter().zip(ids).filter_map(|(position, id)| Some((*position, id?))));
        }
        found.sort_unstable();
        Ok(found.split_off(found.len().saturating_sub(max)).into_iter().map(|(_, id)| id).collect())
    }

    /// The log position with which so many of the newest rows begin, as far as the files tell.
    fn begin_of_newest(&self, rows: usize) -> Result<i64, LakeError> {
        let state = self.reader.snapshot().map_err(|e| LakeError::delta(self.table, "read", e))?;
        let mut files: Vec<(i64, usize)> = state
            .log_data()
            .into_iter()
            .filter_map(|file| Some((FileName::parse(&file.path())?.first, file.num_records().unwrap_or(0))))
            .collect();
        files.sort_unstable();
        let mut left = rows;
        for (first, records) in files.into_iter().rev() {
            left = left.saturating_sub(records);
            if left == 0 {
                return Ok(first);
            }
        }
        Ok(0)
    }

    /// Appends rows (all in the table's live schema, or all in its settled one) and makes them durable, in one transaction.
    /// Does nothing, and says so, if the table has this version already.
    pub(crate) fn append(&mut self, batches: &[RecordBatch], transaction: Transaction<'_>) -> Result<bool, LakeError> {
        let Transaction { app_id, version, time_ms, .. } = transaction;
        if self.committed(app_id)?.is_some_and(|committed| committed >= version) {
            return Ok(false);
        }
        let mut files = Vec::new();
        for (date, batches) in split_by_date(batches).map_err(|e| LakeError::other(self.table, "sort rows of", e))? {
            files.push(self.write_file(date, &batches, transaction)?);
        }
        loop {
            match self.commit(&files, transaction)? {
                Some(snapshot) => {
                    self.snapshot = snapshot;
                    break;
                }
                // Somebody else has taken the version; or our own commit came through although we saw an error.
                None if self.is_committed(app_id, version)? => break,
                None => {}
            }
        }
        self.remember(app_id, Some(version));
        if self.snapshot.version().is_multiple_of(CHECKPOINT_COMMITS) {
            self.checkpoint(time_ms)?;
            self.reload()?;
        } else {
            self.runtime
                .block_on(self.reader.update_incremental(None))
                .map_err(|e| LakeError::delta(self.table, "refresh", e))?;
        }
        Ok(true)
    }

    fn write_file(
        &self,
        date: i32,
        batches: &[RecordBatch],
        transaction: Transaction<'_>,
    ) -> Result<DataFile, LakeError> {
        let date = chrono::DateTime::UNIX_EPOCH.date_naive() + chrono::Duration::days(i64::from(date));
        let date = date.format("%Y-%m-%d").to_string();
        // A second try at the same rows writes the same name.
        let Transaction { app_id, first, version, .. } = transaction;
        let path = format!("date={date}/{}", names::file_name(app_id, first, version));
        let file_columns: Vec<usize> = (1..self.table.columns().len()).collect();
        let project = |batch: &RecordBatch| batch.project(&file_columns);
        let stripped: Vec<_> = batches
            .iter()
            .map(project)
            .collect::<Result<_, _>>()
            .map_err(|e| LakeError::other(self.table, "project rows of", e))?;
        let schema: SchemaRef = stripped.first().map_or_else(|| self.table.live_schema(), RecordBatch::schema);
        let bytes = parquet::encode(&schema, &stripped, statistics_columns(self.table))
            .map_err(|e| LakeError::other(self.table, "encode", e))?;
        let size = bytes.len() as i64;
        let full = Path::from(format!("{}/{path}", self.table.name()));
        self.store
            .put_durably(&full, &[Bytes::from(bytes)], false)
            .map_err(|e| LakeError::other(self.table, "write a file of", e))?;
        let statistics = Statistics::of(self.table, batches);
        Ok(DataFile { path, date, size, statistics })
    }

    fn commit(&self, files: &[DataFile], of: Transaction<'_>) -> Result<Option<SnapshotRef>, LakeError> {
        let fault = |e| LakeError::kernel(self.table, "commit to", e);
        let mut transaction = Arc::clone(&self.snapshot)
            .transaction(Box::new(FileSystemCommitter::new()), self.engine.as_ref())
            .map_err(fault)?
            .with_operation("WRITE".into())
            .with_engine_info("toolgauge")
            .with_transaction_id(of.app_id.to_owned(), of.version)
            .with_data_change(true);
        if !files.is_empty() {
            let adds = add_actions(self.table, files, of.time_ms)
                .map_err(|e| LakeError::other(self.table, "describe the files of", e))?;
            transaction = transaction.with_blind_append();
            transaction.add_files(Box::new(ArrowEngineData::new(adds)));
        }
        match transaction.commit(self.engine.as_ref()).map_err(fault)? {
            CommitResult::CommittedTransaction(done) => match done.post_commit_snapshot() {
                Some(snapshot) => Ok(Some(Arc::clone(snapshot))),
                None => Err(LakeError::other(self.table, "commit to", "the kernel gave no snapshot")),
            },
            CommitResult::ConflictedTransaction(_) => Ok(None),
            CommitResult::RetryableTransaction(failed) => Err(LakeError::other(self.table, "commit to", failed.error)),
        }
    }

    fn is_committed(&mut self, app_id: &str, version: i64) -> Result<bool, LakeError> {
        let fault = |e| LakeError::kernel(self.table, "read the log of", e);
        self.snapshot =
            Snapshot::builder_from(Arc::clone(&self.snapshot)).build(self.engine.as_ref()).map_err(fault)?;
        let found = self.snapshot.get_app_id_version(app_id, self.engine.as_ref()).map_err(fault)?;
        Ok(found.is_some_and(|found| found >= version))
    }

    fn checkpoint(&mut self, now_ms: i64) -> Result<(), LakeError> {
        let (_, snapshot) = Arc::clone(&self.snapshot)
            .checkpoint(self.engine.as_ref(), None)
            .map_err(|e| LakeError::kernel(self.table, "checkpoint", e))?;
        self.snapshot = snapshot;
        let log_store = self.reader.log_store();
        let clean = deltalake::checkpoints::cleanup_expired_logs_for(
            self.snapshot.version(),
            log_store.as_ref(),
            now_ms - LOG_RETENTION_MS,
            None,
        );
        self.runtime.block_on(clean).map_err(|e| LakeError::delta(self.table, "clean the log of", e))?;
        Ok(())
    }

    /// Reads the readers' snapshot anew. A refresh looks at every batch of files that was ever added, and each commit adds
    /// one, so that refreshes would cost more and more; a checkpoint has all files in few.
    fn reload(&mut self) -> Result<(), LakeError> {
        let mut reader = DeltaTable::new(self.reader.log_store());
        self.runtime.block_on(reader.load()).map_err(|e| LakeError::delta(self.table, "reload", e))?;
        self.reader = reader;
        Ok(())
    }

    /// Removes data files of this writer and its folds that no snapshot names and that nobody is writing: what a crash
    /// between the write of a file and its commit left. Only at the start.
    pub(crate) fn sweep(&self, writer: &str) -> Result<u64, LakeError> {
        let named: std::collections::HashSet<String> =
            self.file_paths()?.into_iter().map(|path| format!("{}/{path}", self.table.name())).collect();
        let fault = |e| LakeError::other(self.table, "sweep", e);
        let mut swept = 0;
        for path in self.store.walk(&Path::from(self.table.name())).map_err(fault)? {
            let text = path.to_string();
            let is_ours = FileName::parse(&text).is_some_and(|name| name.writer == writer);
            if is_ours && !named.contains(&text) {
                self.store.remove(&path).map_err(fault)?;
                swept += 1;
            }
        }
        Ok(swept)
    }
}

/// The committed rows; makes sure that the session that scans them knows where they are.
#[derive(Debug)]
struct Committed {
    inner: Arc<dyn TableProvider>,
    table: DeltaTable,
}

#[async_trait]
impl TableProvider for Committed {
    fn schema(&self) -> SchemaRef {
        self.inner.schema()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(
        &self,
        filters: &[&Expr],
    ) -> datafusion::error::Result<Vec<TableProviderFilterPushDown>> {
        self.inner.supports_filters_pushdown(filters)
    }

    async fn scan(
        &self,
        session: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> datafusion::error::Result<Arc<dyn ExecutionPlan>> {
        self.table.update_datafusion_session(session)?;
        self.inner.scan(session, projection, filters, limit).await
    }
}

struct DataFile {
    path: String,
    date: String,
    size: i64,
    statistics: Statistics,
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

/// Exact minimum and maximum of a column.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Bounds {
    Micros(Option<(i64, i64)>),
    Long(Option<(i64, i64)>),
    /// `None` also if a text is too long to be given whole.
    Text(Option<(String, String)>),
}

#[derive(Debug)]
struct Statistics {
    rows: i64,
    columns: Vec<(&'static str, i64, Bounds)>,
}

impl Statistics {
    fn of(table: Table, batches: &[RecordBatch]) -> Self {
        let columns = statistics_columns(table).iter().map(|name| {
            let arrays: Vec<&ArrayRef> = batches.iter().map(|batch| batch.column(table.index_of(name))).collect();
            let nulls: usize = arrays.iter().map(|array| array.null_count()).sum();
            let bounds = match table.columns()[table.index_of(name)].column_type {
                ColumnType::Timestamp => Bounds::Micros(ends(arrays.iter().flat_map(|array| {
                    let array = array.as_primitive::<TimestampMicrosecondType>();
                    [compute::min(array), compute::max(array)].into_iter().flatten()
                }))),
                ColumnType::Int64 => Bounds::Long(ends(arrays.iter().flat_map(|array| {
                    let array = array.as_primitive::<Int64Type>();
                    [compute::min(array), compute::max(array)].into_iter().flatten()
                }))),
                _ => Bounds::Text(word_ends(&arrays)),
            };
            (*name, nulls as i64, bounds)
        });
        Self { rows: batches.iter().map(|batch| batch.num_rows() as i64).sum(), columns: columns.collect() }
    }
}

fn ends(values: impl Iterator<Item = i64>) -> Option<(i64, i64)> {
    values.fold(None, |ends, value| {
        Some(ends.map_or((value, value), |(lo, hi): (i64, i64)| (lo.min(value), hi.max(value))))
    })
}

/// Of the words that rows really use (a dictionary may hold others).
fn word_ends(arrays: &[&ArrayRef]) -> Option<(String, String)> {
    let mut ends: Option<(&str, &str)> = None;
    let mut add = |word| ends = Some(ends.map_or((word, word), |(lo, hi): (&str, &str)| (lo.min(word), hi.max(word))));
    for array in arrays {
        if let Some(array) = array.as_dictionary_opt::<UInt16Type>() {
            let words = array.values().as_string::<i32>();
            let mut used = vec![false; words.len()];
            for key in array.keys().iter().flatten() {
                used[usize::from(key)] = true;
            }
            words.iter().zip(used).filter_map(|(word, used)| word.filter(|_| used)).for_each(&mut add);
        } else {
            array.as_string_opt::<i32>()?.iter().flatten().for_each(&mut add);
        }
    }
    let (lo, hi) = ends?;
    (lo.len() <= STATISTICS_TEXT_BYTES && hi.len() <= STATISTICS_TEXT_BYTES).then(|| (lo.to_owned(), hi.to_owned()))
}

/// The `add` actions of a commit, in the kernel's shape.
fn add_actions(table: Table, files: &[DataFile], modified_ms: i64) -> Result<RecordBatch, ArrowError> {
    let statistics_of = |pick: &dyn Fn(&DataFile, usize) -> Side| -> StructArray {
        let fields = statistics_columns(table).iter().enumerate().map(|(i, name)| {
            let sides: Vec<Side> = files.iter().map(|file| pick(file, i)).collect();
            let array: ArrayRef = match table.columns()[table.index_of(name)].column_type {
                ColumnType::Timestamp => Arc::new(
                    TimestampMicrosecondArray::from(sides.iter().map(Side::number).collect::<Vec<_>>())
                        .with_timezone("UTC"),
                ),
                ColumnType::Int64 => Arc::new(Int64Array::from(sides.iter().map(Side::number).collect::<Vec<_>>())),
                _ => Arc::new(StringArray::from(sides.iter().map(Side::text).collect::<Vec<_>>())),
            };
            (Arc::new(Field::new(*name, array.data_type().clone(), true)), array)
        });
        StructArray::from(fields.collect::<Vec<_>>())
    };
    let minimum = statistics_of(&|file, i| Side::of(&file.statistics.columns[i].2, false));
    let maximum = statistics_of(&|file, i| Side::of(&file.statistics.columns[i].2, true));
    let nulls = StructArray::from(
        statistics_columns(table)
            .iter()
            .enumerate()
            .map(|(i, name)| {
                let counts: Vec<i64> = files.iter().map(|file| file.statistics.columns[i].1).collect();
                (Arc::new(Field::new(*name, DataType::Int64, true)), Arc::new(Int64Array::from(counts)) as ArrayRef)
            })
            .collect::<Vec<_>>(),
    );
    let column = |name: &str, array: ArrayRef| (Arc::new(Field::new(name, array.data_type().clone(), true)), array);
    let statistics = StructArray::from(vec![
        column("numRecords", Arc::new(Int64Array::from_iter_values(files.iter().map(|file| file.statistics.rows)))),
        column("nullCount", Arc::new(nulls)),
        column("minValues", Arc::new(minimum)),
        column("maxValues", Arc::new(maximum)),
        column("tightBounds", Arc::new(BooleanArray::from(vec![true; files.len()]))),
    ]);
    let mut partitions = MapBuilder::new(None, StringBuilder::new(), StringBuilder::new());
    for file in files {
        partitions.keys().append_value("date");
        partitions.values().append_value(&file.date);
        partitions.append(true)?;
    }
    let texts =
        |text: fn(&DataFile) -> &str| -> ArrayRef { Arc::new(StringArray::from_iter_values(files.iter().map(text))) };
    RecordBatch::try_from_iter_with_nullable(vec![
        ("path", texts(|file| &file.path), false),
        ("partitionValues", Arc::new(partitions.finish()) as ArrayRef, false),
        ("size", Arc::new(Int64Array::from_iter_values(files.iter().map(|file| file.size))), false),
        ("modificationTime", Arc::new(Int64Array::from(vec![modified_ms; files.len()])), false),
        ("stats", Arc::new(statistics), true),
    ])
}

/// One end of some bounds.
enum Side {
    Number(Option<i64>),
    Text(Option<String>),
}

impl Side {
    fn of(bounds: &Bounds, maximum: bool) -> Self {
        match bounds {
            // The log holds milliseconds: the lower end is rounded down and the upper one up, or files would be
            // skipped that hold the rows asked for.
            Bounds::Micros(ends) => {
                Self::Number(ends.map(|(lo, hi)| if maximum { hi + (-hi).rem_euclid(1_000) } else { lo }))
            }
            Bounds::Long(ends) => Self::Number(ends.map(|(lo, hi)| if maximum { hi } else { lo })),
            Bounds::Text(ends) => Self::Text(ends.clone().map(|(lo, hi)| if maximum { hi } else { lo })),
        }
    }

    fn number(&self) -> Option<i64> {
        match self {
            Self::Number(number) => *number,
            Self::Text(_) => None,
        }
    }

    fn text(&self) -> Option<String> {
        match self {
            Self::Text(text) => text.clone(),
            Self::Number(_) => None,
        }
    }
}
