//! A lake in memory that lives: rows arrive, settle and are committed as the test says, readers append, and time stands until the
//! test moves it. And an Alertmanager that writes down what it gets.

use std::cell::Cell;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::compute::cast;
use datafusion::catalog::MemTable;
use datafusion::common::ScalarValue;
use tempfile::TempDir;
use toolgauge_analytics::rollup::CallsRollup;
use toolgauge_proto::api::IngestStatus;
use toolgauge_proto::id::WalPosition;
use toolgauge_proto::lake::{AppendError, Feed, FeedItem, Lake, LiveBatches, SettledRows, TableView, Txn, View};
use toolgauge_proto::table::{ColumnType, Table};
use toolgauge_proto::time::{Clock, UnixMicros};
use toolgauge_queries::engine::Settings;
use toolgauge_queries::evaluate::{EvaluateSettings, Evaluated, Evaluator};
use toolgauge_queries::notify::{Notifier, Targets};

use crate::support::{Row, Sql, arrival, live_batch, settled_batch, text, timestamp};

pub(crate) const SECOND: i64 = 1_000_000;
pub(crate) const MINUTE: i64 = 60 * SECOND;

/// One call, as far as SLOs look at it.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) end: UnixMicros,
    pub(crate) service: &'static str,
    pub(crate) tool: &'static str,
    pub(crate) failed: bool,
    pub(crate) is_final: bool,
    pub(crate) duration_ms: i64,
    /// For how many it stands, in millionths.
    pub(crate) weight: i64,
    pub(crate) position: u64,
}

impl Call {
    fn row(&self) -> Row {
        let columns = Table::Calls.columns().iter().map(|column| match column.name {
            "date" => ScalarValue::Date32(Some(self.end.date32())),
            "end_time" => timestamp(self.end),
            "start_time" => timestamp(UnixMicros(self.end.0 - self.duration_ms * 1_000)),
            "duration_ns" => ScalarValue::Int64(Some(self.duration_ms * 1_000_000)),
            "kind" => text("tool"),
            "tenant" => text("default"),
            "service_name" => text(self.service),
            "tool_name" => text(self.tool),
            "layer" => text("agent"),
            "counted" => ScalarValue::Boolean(Some(true)),
            "final" => ScalarValue::Boolean(Some(self.is_final)),
            "wal_position" => ScalarValue::Int64(Some(self.position.cast_signed())),
            "outcome" => text(if self.failed { "error" } else { "ok" }),
            "error_class" => text(if self.failed { "server" } else { "none" }),
            "attempt" => ScalarValue::Int32(Some(1)),
            "weight" => ScalarValue::Decimal128(Some(self.weight.into()), 18, 6),
            _ if column.nullable => ScalarValue::try_new_null(&column.column_type.arrow()).unwrap(),
            name => match column.column_type {
                ColumnType::Word | ColumnType::Text => text(name),
                ColumnType::Binary => ScalarValue::Binary(Some(self.position.to_be_bytes().repeat(2))),
                other => panic!("{name}: nothing stands for {other:?}"),
            },
        });
        columns.collect()
    }
}

/// How the next appends to a table fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failing {
    /// So many times more, for a reason that is not the disk.
    Invalid(usize),
}

struct State {
    time: UnixMicros,
    watermark: UnixMicros,
    view: Arc<View>,
    /// Live rows, oldest first.
    live: Vec<Call>,
    /// Rows of `arrivals` that are not committed.
    arrivals: Vec<Row>,
    /// So many of them have been shown: no row is committed before readers could see it live.
    shown: usize,
    /// All rows of `calls` that are committed.
    settled: Vec<Call>,
    tables: HashMap<Table, Vec<RecordBatch>>,
    versions: HashMap<String, i64>,
    feeds: Vec<Arc<Queue>>,
    position: u64,
    committed: u64,
    is_killed: bool,
    /// How often the world was revived: who was killed before stays so.
    lives: u64,
    /// So many more parts of histories are taken; then they wait.
    parts_left: usize,
    failing: HashMap<Table, Failing>,
}

thread_local! {
    /// Time of the view that this thread has seen last: whoever evaluates, does it at the time of the rows.
    static SEEN: Cell<i64> = const { Cell::new(0) };
}

/// The lake and its clock.
pub(crate) struct World(Mutex<State>, Condvar);

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("World").finish_non_exhaustive()
    }
}

#[derive(Debug, Default)]
struct Queue {
    items: Mutex<VecDeque<SettledRows>>,
    came: Condvar,
}

#[derive(Debug)]
struct TestFeed {
    after: WalPosition,
    queue: Arc<Queue>,
}

impl Feed for TestFeed {
    fn after(&self) -> WalPosition {
        self.after
    }

    fn recv(&self, timeout: Duration) -> FeedItem {
        let items = self.queue.items.lock().unwrap();
        let (mut items, _) = self.queue.came.wait_timeout_while(items, timeout, |items| items.is_empty()).unwrap();
        items.pop_front().map_or(FeedItem::Nothing, FeedItem::Rows)
    }
}

/// The sums per minute of rows, in the settled schema or the live one.
fn minutes(calls: &[Call]) -> Vec<RecordBatch> {
    let mut rollup = CallsRollup::default();
    if !calls.is_empty() {
        rollup.add(&batch(calls)).unwrap();
    }
    rollup.batches().unwrap()
}

fn batch(calls: &[Call]) -> RecordBatch {
    live_batch(Table::Calls, &calls.iter().map(Call::row).collect::<Vec<Row>>())
}

fn settled_schema(table: Table, batches: Vec<RecordBatch>) -> Vec<RecordBatch> {
    let cast_all = |batch: RecordBatch| {
        let schema = table.schema();
        let columns = batch.columns().iter().zip(schema.fields());
        let columns = columns.map(|(column, field)| cast(column, field.data_type()).unwrap()).collect();
        RecordBatch::try_new(schema, columns).unwrap()
    };
    batches.into_iter().map(cast_all).collect()
}

impl State {
    fn publish(&mut self) {
        self.shown = self.arrivals.len();
        let live_calls = if self.live.is_empty() { Vec::new() } else { vec![batch(&self.live)] };
        let tables = Table::ALL.map(|table| {
            let rows = self.tables.get(&table).cloned().unwrap_or_default();
            let live = match table {
                Table::Calls => live_calls.clone(),
                Table::Calls1m => minutes(&self.live),
                Table::Arrivals if !self.arrivals.is_empty() => vec![live_batch(table, &self.arrivals)],
                _ => Vec::new(),
            };
            let committed = Arc::new(MemTable::try_new(table.schema(), vec![rows]).unwrap());
            TableView { committed, live: LiveBatches::new(live.into()) }
        });
        self.view = Arc::new(View {
            tables,
            position: WalPosition(self.position),
            settled: WalPosition(self.committed),
            committed: WalPosition(self.committed),
            watermark: self.watermark,
        });
    }

    /// Settles and commits the rows up to a position.
    fn commit(&mut self, up_to: u64) {
        let (settled, live): (Vec<Call>, Vec<Call>) = self.live.drain(..).partition(|call| call.position <= up_to);
        self.live = live;
        self.committed = up_to.max(self.committed);
        let rows: Arc<[RecordBatch]> = if settled.is_empty() { Arc::new([]) } else { Arc::new([batch(&settled)]) };
        for queue in &self.feeds {
            let item =
                SettledRows { up_to: WalPosition(self.committed), received: self.watermark, rows: Arc::clone(&rows) };
            queue.items.lock().unwrap().push_back(item);
            queue.came.notify_all();
        }
        self.tables.entry(Table::Calls).or_default().extend(settled_schema(Table::Calls, rows.to_vec()));
        self.tables.entry(Table::Calls1m).or_default().extend(settled_schema(Table::Calls1m, minutes(&settled)));
        self.settled.extend(settled);
        let arrivals: Vec<Row> = self.arrivals.drain(..std::mem::take(&mut self.shown)).collect();
        if !arrivals.is_empty() {
            self.tables.entry(Table::Arrivals).or_default().push(settled_batch(Table::Arrivals, &arrivals));
        }
    }
}

/// One moment, as the test makes it.
pub(crate) struct Moment<'a>(MutexGuard<'a, State>);

impl Moment<'_> {
    /// Everything received so far is known at this time.
    pub(crate) fn at(&mut self, time: UnixMicros) {
        (self.0.time, self.0.watermark) = (time, time);
    }

    /// Time goes on, and nothing is heard of the collector.
    pub(crate) fn at_without_watermark(&mut self, time: UnixMicros) {
        self.0.time = time;
    }

    /// Exports of services were accepted in the minute of this time.
    pub(crate) fn arrive(&mut self, time: UnixMicros, services: &[&str]) {
        self.0.arrivals.push(arrival(time.minute(), None));
        self.0.arrivals.extend(services.iter().map(|name| arrival(time.minute(), Some(name))));
    }

    pub(crate) fn call(&mut self, call: Call) {
        self.0.position += 1;
        let position = self.0.position;
        self.0.live.push(Call { position, ..call });
    }

    /// A failed call of these rows that may still change.
    pub(crate) fn live(&mut self) -> &mut Vec<Call> {
        &mut self.0.live
    }

    pub(crate) fn position(&self) -> u64 {
        self.0.position
    }

    pub(crate) fn commit(&mut self, up_to: u64) {
        self.0.commit(up_to);
    }
}

impl Drop for Moment<'_> {
    fn drop(&mut self) {
        self.0.publish();
    }
}

impl World {
    pub(crate) fn new(time: UnixMicros) -> Arc<Self> {
        let view = Arc::clone(&crate::support::MemoryLake::of_calls(&[], &[]).view.lock().unwrap());
        let mut state = State {
            time,
            watermark: time,
            view,
            live: Vec::new(),
            arrivals: Vec::new(),
            shown: 0,
            settled: Vec::new(),
            tables: HashMap::new(),
            versions: HashMap::new(),
            feeds: Vec::new(),
            position: 0,
            committed: 0,
            is_killed: false,
            lives: 0,
            parts_left: usize::MAX,
            failing: HashMap::new(),
        };
        state.publish();
        Arc::new(Self(Mutex::new(state), Condvar::new()))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// Nobody sees anything of what happens before this is dropped.
    pub(crate) fn moment(&self) -> Moment<'_> {
        Moment(self.state())
    }

    pub(crate) fn time(&self) -> UnixMicros {
        self.state().time
    }

    pub(crate) fn position(&self) -> u64 {
        self.state().position
    }

    /// How many rows of a table are committed.
    pub(crate) fn committed_rows(&self, table: Table) -> usize {
        self.state().tables.get(&table).map_or(0, |batches| batches.iter().map(RecordBatch::num_rows).sum())
    }

    /// All rows as they are known now.
    pub(crate) fn calls(&self) -> Vec<Call> {
        let state = self.state();
        state.settled.iter().chain(&state.live).cloned().collect()
    }

    /// From now on appends fail, as those of a process that is gone.
    pub(crate) fn kill(&self) {
        self.state().is_killed = true;
        self.1.notify_all();
    }

    /// Takes so many more parts of histories into `slo_1m`; who has another one waits until there may be more.
    pub(crate) fn take_parts(&self, parts: usize) {
        self.state().parts_left = parts;
        self.1.notify_all();
    }

    /// Whoever held feeds is gone.
    pub(crate) fn revive(&self) {
        let mut state = self.state();
        state.is_killed = false;
        state.lives += 1;
        state.feeds.clear();
    }

    pub(crate) fn fail(&self, table: Table, failing: Failing) {
        self.state().failing.insert(table, failing);
    }

    /// Doubles all rows of a table, as nobody may.
    pub(crate) fn double(&self, table: Table) {
        let mut state = self.state();
        let rows = state.tables.entry(table).or_default();
        rows.extend(rows.clone());
        state.publish();
    }

    /// Forgets all rows of a table, and who has appended them.
    pub(crate) fn clear(&self, table: Table) {
        let mut state = self.state();
        state.tables.remove(&table);
        state.versions.retain(|app_id, _| !app_id.ends_with(table.name()));
        state.publish();
    }
}

impl Clock for World {
    fn now(&self) -> UnixMicros {
        match SEEN.get() {
            0 => self.time(),
            seen => UnixMicros(seen),
        }
    }
}

impl Lake for World {
    fn view(&self) -> Arc<View> {
        let state = self.state();
        SEEN.set(state.time.0);
        Arc::clone(&state.view)
    }

    fn status(&self) -> IngestStatus {
        IngestStatus { ready: true, ..IngestStatus::default() }
    }

    fn writer(&self) -> String {
        "writer".into()
    }

    fn append(&self, table: Table, rows: Vec<RecordBatch>, txn: Txn) -> Result<bool, AppendError> {
        let state = self.state();
        let lives = state.lives;
        let is_part = txn.app_id.ends_with("/history");
        let waits = |state: &mut State| is_part && state.parts_left == 0 && !state.is_killed && state.lives == lives;
        let mut state = self.1.wait_while(state, waits).unwrap();
        if state.is_killed || state.lives != lives {
            return Err(AppendError::Stopped { table });
        }
        if is_part {
            state.parts_left -= 1;
        }
        if let Some(Failing::Invalid(times)) =
            state.failing.get_mut(&table).filter(|Failing::Invalid(times)| *times > 0)
        {
            *times -= 1;
            return Err(AppendError::Invalid { table, reason: "the test says so".to_owned() });
        }
        if state.versions.get(&txn.app_id).is_some_and(|last| *last >= txn.version) {
            return Ok(false);
        }
        state.versions.insert(txn.app_id, txn.version);
        state.tables.entry(table).or_default().extend(rows);
        state.publish();
        Ok(true)
    }

    fn committed_version(&self, _: Table, app_id: &str) -> Result<Option<i64>, AppendError> {
        Ok(self.state().versions.get(app_id).copied())
    }

    fn feed(&self) -> Box<dyn Feed> {
        let mut state = self.state();
        let queue = Arc::new(Queue::default());
        state.feeds.push(Arc::clone(&queue));
        Box::new(TestFeed { after: WalPosition(state.committed), queue })
    }
}

/// An alert as it was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sent {
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) annotations: BTreeMap<String, String>,
    pub(crate) starts_at: String,
    pub(crate) ends_at: String,
}

/// An Alertmanager that takes everything.
pub(crate) struct Manager {
    address: SocketAddr,
    posts: Arc<Mutex<Vec<Sent>>>,
}

impl Manager {
    async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let posts: Arc<Mutex<Vec<Sent>>> = Arc::default();
        let taken = Arc::clone(&posts);
        let take = move |axum::Json(alerts): axum::Json<Vec<serde_json::Value>>| {
            let map = |value: &serde_json::Value| serde_json::from_value(value.clone()).unwrap();
            let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
            let alerts = alerts.iter().map(|alert| Sent {
                labels: map(&alert["labels"]),
                annotations: map(&alert["annotations"]),
                starts_at: text(&alert["startsAt"]),
                ends_at: text(&alert["endsAt"]),
            });
            taken.lock().unwrap().extend(alerts);
            std::future::ready(())
        };
        let app = axum::Router::new().route("/api/v2/alerts", axum::routing::post(take));
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { address, posts }
    }

    /// Everything that was sent, in order.
    pub(crate) fn sent(&self) -> Vec<Sent> {
        self.posts.lock().unwrap().clone()
    }
}

/// An evaluator over a world, which can be ended and started again.
pub(crate) struct Running {
    pub(crate) world: Arc<World>,
    folder: TempDir,
    pub(crate) manager: Manager,
    pub(crate) sql: Sql,
    settings: EvaluateSettings,
    pub(crate) evaluator: Arc<Evaluator>,
    /// Minutes that were recounted, by all evaluators.
    pub(crate) proofs: AtomicU64,
    pub(crate) mismatches: AtomicU64,
}

impl Running {
    pub(crate) async fn start(world: Arc<World>, slos: &str) -> Self {
        Self::start_with(world, slos, EvaluateSettings::default()).await
    }

    /// With what of these settings is not told here.
    pub(crate) async fn start_with(world: Arc<World>, slos: &str, settings: EvaluateSettings) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("slos.yaml"), slos).unwrap();
        let sql = Sql::new(Settings::default()).await;
        let settings = EvaluateSettings {
            slos: vec![folder.path().to_owned()],
            interval: Duration::from_millis(1),
            flush_interval: Duration::from_millis(5),
            proof_interval: Duration::from_millis(25),
            external_url: "http://toolgauge.example".to_owned(),
            ..settings
        };
        let manager = Manager::start().await;
        let evaluator = Self::evaluator(&world, &sql, &settings, &manager).await;
        let (proofs, mismatches) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { world, folder, manager, sql, settings, evaluator, proofs, mismatches }
    }

    async fn evaluator(
        world: &Arc<World>,
        sql: &Sql,
        settings: &EvaluateSettings,
        manager: &Manager,
    ) -> Arc<Evaluator> {
        let address = [format!("http://{}", manager.address)];
        let runtime = tokio::runtime::Handle::current();
        let notifier = Notifier::start(Targets::parse(&address).unwrap(), Duration::from_secs(5), &runtime).unwrap();
        let (lake, clock) = (Arc::<World>::clone(world), Arc::<World>::clone(world));
        Evaluator::start(settings.clone(), lake, Arc::clone(&sql.engine), clock, notifier).await.unwrap()
    }

    /// Ends it in order, or as a kill would; then `change` may look at the world.
    pub(crate) async fn restart(&mut self, killed: bool, change: impl FnOnce(&World)) {
        if killed {
            self.world.kill();
        }
        self.end().await;
        self.world.revive();
        change(&self.world);
        self.evaluator = Self::evaluator(&self.world, &self.sql, &self.settings, &self.manager).await;
    }

    /// Writes other documents; the evaluator takes them soon, or when it starts again.
    pub(crate) fn write(&self, slos: &str) {
        // Nobody sees half of it.
        let hidden = self.folder.path().join(".slos");
        std::fs::write(&hidden, slos).unwrap();
        std::fs::rename(hidden, self.folder.path().join("slos.yaml")).unwrap();
    }

    pub(crate) async fn end(&self) {
        let evaluator = Arc::clone(&self.evaluator);
        tokio::task::spawn_blocking(move || evaluator.stop()).await.unwrap();
        self.evaluator.notifier().stop().await;
        let counters = self.evaluator.counters();
        self.proofs.fetch_add(counters.proofs.load(Relaxed), Relaxed);
        self.mismatches.fetch_add(counters.proof_mismatches.load(Relaxed), Relaxed);
    }

    /// Waits for an evaluation of what is there now in which everything is counted.
    pub(crate) async fn evaluated(&self) -> Arc<Evaluated> {
        let (time, position) = (self.world.time(), self.world.position());
        let is_newest = || {
            let evaluated = self.evaluator.evaluated();
            let is_counted = |status: &toolgauge_queries::evaluate::SloStatus| {
                status.tiers.iter().all(|tier| tier.evaluation.as_str() != "learning")
            };
            evaluated.at.is_some_and(|at| at.time == time && at.position.0 == position)
                && evaluated.slos.iter().all(is_counted)
        };
        crate::support::until("everything is evaluated", is_newest).await;
        self.evaluator.evaluated()
    }
}
