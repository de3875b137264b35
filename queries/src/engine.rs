//! DataFusion, set up to read and within limits. It knows nothing of tool calls.
//!
//! # Limits and guarantees
//! * A statement only reads: one statement; `SELECT`, `WITH`, `VALUES`, `SHOW`, `DESCRIBE`, `EXPLAIN`; checked on the
//!   syntax tree and again on the plan. It reads the tables of the schema that it is given and nothing else: there are
//!   no file formats, no table factories, no file table functions and no dynamic file catalog in the session.
//! * It holds one of [`Settings::concurrent_max`] places while it runs, ends at [`Settings::timeout`] (counted from the
//!   call, waiting for a place included), and shares [`Settings::memory_bytes`] and [`Settings::spill_bytes_max`] with
//!   the others. Its answer has at most [`Settings::rows_max`] rows and stops growing at [`Settings::result_bytes_max`].
//! * Functions that make a value of any size from a small one (`repeat`, `lpad`, `range`, ...) do not exist. Operators
//!   are bounded by the memory pool; a single value can still grow by repeated concatenation, up to the 2 GiB that
//!   Arrow allows, outside of the pool.
//! * Everything runs on threads of the engine's own, so that a statement can delay another one, but not whoever asks.
//!   Their stacks are large, because a plan is as deep as its longest chain of operators.
//!
//! # How it works
//! One [`SessionState`] is built at the start. A statement gets a clone of it with a catalog of its own: some tens of
//! microseconds. The runtime environment (memory pool, spill folder, object stores, caches) is shared by all.
//!
//! # Failure and recovery
//! Dropping the future of [`Engine::run`] stops its statement at its next batch. A panic inside a statement is an
//! [`Error::Internal`] of that statement alone. The place is given back when the statement has really stopped.

mod condition;
mod cooperate;
mod error;
mod null_safe;
mod statement;

use std::collections::HashMap;
use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use chrono::{DateTime, Utc};
use datafusion::catalog::{
    CatalogProvider, CatalogProviderList, MemoryCatalogProvider, MemoryCatalogProviderList, SchemaProvider,
};
use datafusion::common::ScalarValue;
use datafusion::common::runtime::SpawnedTask;
use datafusion::execution::SessionStateBuilder;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::FairSpillPool;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::{LogicalPlan, LogicalPlanBuilder};
use datafusion::physical_plan::execute_stream;
use datafusion::prelude::SessionConfig;
use futures::StreamExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

pub use condition::{CONDITION_OPERATORS_MAX, Condition, Conjunct};
pub use error::Error;
pub use null_safe::null_safe;
pub use statement::{BYTES_MAX as STATEMENT_BYTES_MAX, LITERALS_MAX, NESTING_MAX, OPERATORS_MAX, WORDS_MAX};

const CATALOG: &str = "toolgauge";
const SCHEMA: &str = "public";
/// Stack of an engine thread: virtual memory, used only by the deepest plans that [`OPERATORS_MAX`] allows.
const STACK_BYTES: usize = 64 << 20;
/// Scans of fewer bytes in all are not split within files, which would be opened once more for each part; the tables
/// spread whole files over the threads already.
const SPLIT_BYTES_MIN: usize = 32 << 20;
/// Most rows of any answer: a limit in a plan is a signed number.
const ROWS_MAX: usize = i32::MAX as usize;
/// Functions whose result can be of any size, whatever the size of their arguments.
const UNBOUNDED_FUNCTIONS: &[&str] =
    &["repeat", "lpad", "rpad", "range", "generate_series", "array_repeat", "array_resize"];

/// The limits of an [`Engine`].
#[derive(Debug, Clone)]
pub struct Settings {
    /// Memory that all statements share, in bytes.
    pub memory_bytes: usize,
    /// Folder for spilled data; emptied with the engine. None: the system's folder for temporary files.
    pub spill_folder: Option<PathBuf>,
    /// Most spilled data at a time, in bytes.
    pub spill_bytes_max: u64,
    /// Partitions a plan is split into, and threads of the engine.
    pub target_partitions: usize,
    /// Longest time from the call to the end of a statement, waiting included.
    pub timeout: Duration,
    /// Most rows of an answer.
    pub rows_max: usize,
    /// Bytes of rows after which an answer is cut.
    pub result_bytes_max: usize,
    /// Most statements that run at a time.
    pub concurrent_max: usize,
    /// A session is over when nothing of it has happened for so long.
    pub session_idle: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            memory_bytes: 512 << 20,
            spill_folder: None,
            spill_bytes_max: 4 << 30,
            target_partitions: std::thread::available_parallelism().map_or(1, usize::from),
            timeout: Duration::from_secs(30),
            rows_max: 10_000,
            result_bytes_max: 64 << 20,
            concurrent_max: 4,
            session_idle: Duration::from_secs(30 * 60),
        }
    }
}

/// The rows of an answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Their columns.
    pub schema: SchemaRef,
    /// The rows, in order.
    pub batches: Vec<RecordBatch>,
    /// True if a limit cut them.
    pub truncated: bool,
}

impl Answer {
    /// How many rows there are.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.batches.iter().map(RecordBatch::num_rows).sum()
    }
}

/// Runs statements.
#[derive(Debug)]
pub struct Engine {
    template: Arc<SessionState>,
    threads: Threads,
    places: Arc<Semaphore>,
    settings: Settings,
}

impl Engine {
    /// An engine with these limits. `extend` adds functions and rules to its session.
    ///
    /// # Errors
    /// If the spill folder or the threads cannot be made.
    pub fn new(
        settings: Settings,
        extend: impl FnOnce(SessionStateBuilder) -> SessionStateBuilder,
    ) -> Result<Self, Error> {
        let disk = DiskManagerBuilder::default()
            .with_mode(match &settings.spill_folder {
                Some(folder) => DiskManagerMode::Directories(vec![folder.clone()]),
                None => DiskManagerMode::OsTmpDirectory,
            })
            .with_max_temp_directory_size(settings.spill_bytes_max);
        let runtime_env = RuntimeEnvBuilder::new()
            .with_memory_pool(Arc::new(FairSpillPool::new(settings.memory_bytes)))
            .with_disk_manager_builder(disk)
            .build_arc()?;
        let builder = SessionStateBuilder::new()
            .with_config(config(&settings))
            .with_runtime_env(runtime_env)
            .with_default_features()
            .with_file_formats(Vec::new())
            .with_table_factories(HashMap::new())
            .with_physical_optimizer_rule(Arc::new(cooperate::CooperativeJoins));
        let mut builder = extend(builder);
        if let Some(functions) = builder.scalar_functions() {
            functions.retain(|function| !UNBOUNDED_FUNCTIONS.contains(&function.name()));
        }
        let threads = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(settings.target_partitions.max(1))
            .thread_stack_size(STACK_BYTES)
            .thread_name("query")
            .enable_all()
            .build()
            .map_err(|error| Error::Internal(format!("start the threads of the engine: {error}")))?;
        Ok(Self {
            template: Arc::new(builder.build()),
            threads: Threads(Some(threads)),
            places: Arc::new(Semaphore::new(settings.concurrent_max.max(1))),
            settings,
        })
    }

    /// The session that statements get a copy of. Object stores registered in its runtime environment are seen by all.
    #[must_use]
    pub fn template(&self) -> &SessionState {
        &self.template
    }

    /// Waits for a future on the calling thread; what it spawns runs on the engine's threads. Not to be called on an async
    /// runtime's thread.
    ///
    /// # Panics
    /// If the engine is being dropped, which its owner cannot be doing meanwhile.
    pub fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        self.threads.0.as_ref().expect("the threads live as long as the engine").handle().block_on(future)
    }

    /// Compiles a condition on the rows of a table with these columns, outside of any statement.
    ///
    /// # Errors
    /// [`Error::Invalid`], [`Error::TooComplex`].
    pub fn condition(&self, sql: &str, schema: &SchemaRef) -> Result<Condition, Error> {
        Condition::new(&self.template, sql, schema)
    }

    /// The limits.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// How many statements are running now.
    #[must_use]
    pub fn running(&self) -> usize {
        self.settings.concurrent_max.max(1) - self.places.available_permits()
    }

    /// Runs `work` with a session over the tables of `schema`, in one place and within one timeout. `now` is the time
    /// that the SQL function `now()` gives.
    ///
    /// # Errors
    /// Those of `work`, and [`Error::Overloaded`], [`Error::Timeout`], [`Error::Internal`] if it panics.
    pub async fn run<T, W, F>(&self, schema: Arc<dyn SchemaProvider>, now: DateTime<Utc>, work: W) -> Result<T, Error>
    where
        T: Send + 'static,
        W: FnOnce(Session) -> F + Send + 'static,
        F: Future<Output = Result<T, Error>> + Send,
    {
        let timeout = self.settings.timeout;
        let deadline = Instant::now() + timeout;
        let place = match timeout_at(deadline, Arc::clone(&self.places).acquire_owned()).await {
            Ok(Ok(place)) => place,
            Ok(Err(_)) => return Err(Error::Internal("the engine is closed".to_owned())),
            Err(_) => return Err(Error::Overloaded(timeout)),
        };
        let Some(threads) = self.threads.0.as_ref() else {
            return Err(Error::Internal("the engine is closed".to_owned()));
        };
        let template = Arc::clone(&self.template);
        let (rows_max, result_bytes_max) = (self.settings.rows_max, self.settings.result_bytes_max);
        // The set stops its task when it is dropped: with this future, or at the timeout.
        let mut task = JoinSet::new();
        task.spawn_on(
            async move {
                let _place: OwnedSemaphorePermit = place;
                let state = session_state(&template, schema, now)?;
                work(Session { state: Arc::new(state), rows_max, result_bytes_max }).await
            },
            threads.handle(),
        );
        match timeout_at(deadline, task.join_next()).await {
            Ok(Some(Ok(result))) => result,
            Ok(Some(Err(error))) => Err(Error::Internal(error.to_string())),
            Ok(None) => Err(Error::Internal("the statement vanished".to_owned())),
            Err(_) => Err(Error::Timeout(timeout)),
        }
    }

    /// Runs one statement over the tables of `schema`.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn query(
        &self,
        schema: Arc<dyn SchemaProvider>,
        now: DateTime<Utc>,
        sql: String,
    ) -> Result<Answer, Error> {
        self.run(schema, now, async move |session| session.query(&sql, Vec::new()).await).await
    }
}

/// Runs statements over one set of tables, within the place and the time of one [`Engine::run`].
#[derive(Debug, Clone)]
pub struct Session {
    state: Arc<SessionState>,
    rows_max: usize,
    result_bytes_max: usize,
}

impl Session {
    /// Plans one statement, after the checks. `parameters` are the values of its `$name` placeholders.
    ///
    /// # Errors
    /// [`Error::Invalid`], [`Error::NotReadOnly`], [`Error::TooComplex`].
    pub async fn plan(&self, sql: &str, parameters: Vec<(&str, ScalarValue)>) -> Result<LogicalPlan, Error> {
        let statement = statement::parse(sql)?;
        let plan = self.state.statement_to_plan(statement).await?;
        statement::check_plan(&plan, sql)?;
        if parameters.is_empty() { Ok(plan) } else { Ok(plan.with_param_values(parameters)?) }
    }

    /// Begins work with this session that runs beside what is done meanwhile.
    pub fn begin<T, W, F>(&self, work: W) -> Begun<T>
    where
        T: Send + 'static,
        W: FnOnce(Self) -> F,
        F: Future<Output = Result<T, Error>> + Send + 'static,
    {
        Begun(SpawnedTask::spawn(work(self.clone())))
    }

    /// Runs one statement.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn query(&self, sql: &str, parameters: Vec<(&str, ScalarValue)>) -> Result<Answer, Error> {
        let plan = self.plan(sql, parameters).await?;
        // One row more than allowed tells whether there are more; a limit in the plan lets sorts keep only so many.
        let plan = match plan {
            LogicalPlan::Explain(_) | LogicalPlan::Analyze(_) | LogicalPlan::DescribeTable(_) => plan,
            plan => LogicalPlanBuilder::from(plan).limit(0, Some(self.rows_max.min(ROWS_MAX) + 1))?.build()?,
        };
        let plan = self.state.create_physical_plan(&plan).await?;
        let schema = plan.schema();
        let mut stream = execute_stream(plan, self.state.task_ctx())?;
        let mut answer = Answer { schema, batches: Vec::new(), truncated: false };
        let (mut rows, mut bytes) = (0, 0);
        while let Some(batch) = stream.next().await {
            let batch = batch?;
            let free = self.rows_max.min(ROWS_MAX) - rows;
            if batch.num_rows() > free {
                answer.truncated = true;
                answer.batches.push(batch.slice(0, free));
                break;
            }
            if bytes > self.result_bytes_max && batch.num_rows() > 0 {
                answer.truncated = true;
                break;
            }
            rows += batch.num_rows();
            bytes += batch.get_array_memory_size();
            answer.batches.push(batch);
        }
        Ok(answer)
    }
}

/// Work that has begun. Dropped, it ends.
#[derive(Debug)]
pub struct Begun<T>(SpawnedTask<Result<T, Error>>);

impl<T: 'static> Begun<T> {
    /// What came of it.
    ///
    /// # Errors
    /// Those of the work, and [`Error::Internal`] if it panics.
    pub async fn end(self) -> Result<T, Error> {
        self.0.join().await.map_err(|error| Error::Internal(error.to_string()))?
    }
}

fn config(settings: &Settings) -> SessionConfig {
    let mut config = SessionConfig::new()
        .with_target_partitions(settings.target_partitions.max(1))
        .with_information_schema(true)
        .with_create_default_catalog_and_schema(false)
        .with_default_catalog_and_schema(CATALOG, SCHEMA);
    let options = config.options_mut();
    // In DataFusion 55 a limit over a grouping without aggregates, whose input has an order, fails with "Ordering
    // direction required for DISTINCT with limit"; every statement has a limit here.
    options.optimizer.enable_distinct_aggregation_soft_limit = false;
    options.optimizer.repartition_file_min_size = SPLIT_BYTES_MIN;
    options.execution.time_zone = Some("UTC".to_owned());
    options.execution.parquet.pushdown_filters = true;
    options.execution.parquet.schema_force_view_types = false;
    options.sql_parser.map_string_types_to_utf8view = false;
    config
}

fn session_state(
    template: &SessionState,
    schema: Arc<dyn SchemaProvider>,
    now: DateTime<Utc>,
) -> Result<SessionState, Error> {
    let catalog = MemoryCatalogProvider::new();
    catalog.register_schema(SCHEMA, schema)?;
    let catalogs = MemoryCatalogProviderList::new();
    catalogs.register_catalog(CATALOG.to_owned(), Arc::new(catalog));
    let mut state = template.clone();
    state.register_catalog_list(Arc::new(catalogs));
    state.mark_start_execution();
    state.execution_props_mut().query_execution_start_time = Some(now);
    Ok(state)
}

/// The engine's threads. A tokio runtime must not be dropped where it would wait; this one is let go.
#[derive(Debug)]
struct Threads(Option<tokio::runtime::Runtime>);

impl Drop for Threads {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}
