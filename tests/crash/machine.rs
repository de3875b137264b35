//! A collector on a simulated disk, its clients, and what must be true of it.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock, OnceLock};

use arrow::array::RecordBatch;
use datafusion::catalog::TableProvider;
use datafusion::execution::{SessionState, SessionStateBuilder};
use datafusion::prelude::{SessionConfig, SessionContext};
use tokio::runtime::Runtime;
use toolgauge_analytics::price::{self, PriceBook};
use toolgauge_collector::export::Export;
use toolgauge_collector::fs::Fs;
use toolgauge_collector::fs::sim::{SimFs, Survival};
use toolgauge_collector::lake::{Commit, CompactSettings, Compactor, FoldSettings, LakeError, LakeTables};
use toolgauge_collector::live::LiveSettings;
use toolgauge_collector::pipeline::{CollectorError, CollectorSettings, CommitMarks, Fold, Opened};
use toolgauge_collector::prices::Prices;
use toolgauge_collector::wal::{Frame, FrameContent, Wal, WalSettings};
use toolgauge_proto::id::WalPosition;
use toolgauge_proto::table::Table;
use toolgauge_proto::time::UnixMicros;

use crate::derived::{Reader, compare_sums};
use crate::files;
use crate::rows::Rows;
use crate::workload::{Plan, Step};

/// The one of the whole test binary; starting threads for each run would cost more than the run.
pub(crate) static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("start a runtime")
});

/// Small numbers, so that rows settle, segments end and are forgotten within a few frames.
pub(crate) fn settings() -> CollectorSettings {
    CollectorSettings {
        wal: WalSettings { segment_bytes: 4_096, digest_horizon_us: 20_000_000, ..WalSettings::default() },
        // Sums of a minute are committed in parts, too.
        live: LiveSettings {
            settle_us: 2_000_000,
            remember_us: 20_000_000,
            arrivals_bytes_max: 8_000,
            ..LiveSettings::default()
        },
        // Written by age, and by number of keys; caught up with in several stretches.
        // Fewer names than there are, so that some are folded.
        fold: FoldSettings {
            interval_us: 8_000_000,
            keys_max: 24,
            catch_up_rows: 16,
            hours_interval_us: 20_000_000,
            series_max: 5,
        },
        prices: Prices::new(PRICES.clone()),
        // Merged by few, so that merged ones are merged again.
        compact: CompactSettings { files_min: 2, keep_removed_us: 60_000_000, ..CompactSettings::default() },
        ..CollectorSettings::new("/data".into())
    }
}

/// What the calls cost whose producers do not say.
static PRICES: LazyLock<PriceBook> = LazyLock::new(|| {
    let text = "[[price]]\ntool = \"s*\"\nuntil = 2026-01-02\nper_call = 0.0001\nper_second = 0.00034\n\
        [[price]]\ntool = \"[sw]*\"\nper_second = 0.00071\n";
    let file = price::parse(&Arc::from("prices.toml"), text);
    assert_eq!(file.faults, []);
    PriceBook::new([file.entries], false)
});

/// The pieces of a collector.
pub(crate) struct Machine {
    pub(crate) wal: Wal,
    pub(crate) tables: LakeTables,
    pub(crate) fold: Fold,
    pub(crate) reader: Reader,
    pub(crate) compactor: Compactor,
    /// Log time of the start.
    began: UnixMicros,
}

impl Machine {
    /// As `Collector::start` does it.
    pub(crate) fn open(fs: &Arc<SimFs>) -> Result<Self, CollectorError> {
        let settings = settings();
        let dynamic: Arc<dyn Fs> = Arc::<SimFs>::clone(fs);
        let Opened { wal, mut tables, fold, .. } = Opened::open(&settings, dynamic, RUNTIME.handle())?;
        let compactor = tables.compactor(settings.compact);
        let began = fold.live().received();
        let provider = tables.provider(Table::Calls);
        let calls = || if files::is_whole(fs, Table::Calls) { files::rows(fs, Table::Calls) } else { read(provider) };
        let reader = Reader::open(&wal.writer().to_string(), &mut tables, calls)?;
        Ok(Self { wal, tables, fold, reader, compactor, began })
    }

    pub(crate) fn begin_commit(&mut self) -> Option<(Commit, CommitMarks)> {
        self.fold.begin_commit().unwrap()
    }

    /// Commits what has settled and forgets what is no longer needed.
    pub(crate) fn commit(&mut self) -> Result<(), LakeError> {
        if let Some((commit, marks)) = self.begin_commit() {
            self.tables.commit(&commit)?;
            self.fold.end_commit(marks);
            self.reader.take(&commit, &mut self.tables)?;
        }
        Ok(())
    }

    /// Merges what can be merged and deletes what can be deleted, as the compactor's thread does it.
    /// How often it did either.
    pub(crate) fn compact(&mut self) -> Result<[u64; 2], LakeError> {
        let mut merged = 0;
        let now = self.fold.live().received();
        let elapsed_us = now.0.saturating_sub(self.began.0).unsigned_abs();
        for table in Table::ALL {
            while let Some(task) = self.compactor.task(&self.tables.files(table)?, now) {
                let exchange = self.compactor.prepare(task, &|| false)?.unwrap();
                assert!(self.tables.exchange(&exchange, now)?, "nobody else merges files");
                self.compactor.exchanged(exchange, elapsed_us);
                merged += 1;
            }
        }
        Ok([merged, self.compactor.delete(elapsed_us)?])
    }

    /// The committed rows of each table, as queries see them.
    pub(crate) fn committed_rows(&self) -> [Vec<RecordBatch>; Table::ALL.len()] {
        self.tables.committed().providers.map(read)
    }

    /// Committed and live rows together, those of the derived tables compared with a recount.
    pub(crate) fn rows(&mut self, fs: &SimFs, query: Query, when: &str) -> Rows {
        let view = self.fold.view().unwrap();
        let committed = self.tables.committed();
        let live_calls_1m = committed.live_calls_1m(Arc::clone(&view.calls));
        let live_calls_1h = committed.live_calls_1h(live_calls_1m.clone());
        let mut all = match query {
            Query::Tables => self.committed_rows(),
            Query::Files => Table::ALL.map(|table| files::rows(fs, table)),
        };
        let [calls, arrivals, quarantine, calls_1m, slo_1m, alerts, calls_1h] = &mut all;
        self.reader.compare(slo_1m, alerts, calls, when);
        calls_1m.extend(live_calls_1m.get().unwrap().iter().cloned());
        calls_1h.extend(live_calls_1h.get().unwrap().iter().cloned());
        for (table, live) in
            [&mut *calls, arrivals, quarantine].into_iter().zip([view.calls, view.arrivals, view.quarantine])
        {
            table.extend(live.iter().cloned());
        }
        compare_sums(Table::Calls1m, calls_1m, calls, when);
        compare_sums(Table::Calls1h, calls_1h, calls, when);
        Rows::of([calls, arrivals, quarantine])
    }
}

/// All rows, as queries see them.
pub(crate) fn read(provider: Arc<dyn TableProvider>) -> Vec<RecordBatch> {
    let rows = session().read_table(provider).unwrap();
    RUNTIME.block_on(rows.collect()).unwrap()
}

/// How committed rows are read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Query {
    /// As queries do.
    Tables,
    /// The files that the table's log names, since a query costs more than a run; only before the first checkpoint.
    Files,
}

/// A session of its own for each look: a session knows one store under the tables' names.
pub(crate) fn session() -> SessionContext {
    static STATE: OnceLock<SessionState> = OnceLock::new();
    let state =
        STATE.get_or_init(|| SessionContext::new_with_config(SessionConfig::new().with_target_partitions(1)).state());
    let builder = SessionStateBuilder::new_from_existing(state.clone());
    SessionContext::new_with_state(builder.with_runtime_env(Arc::default()).build())
}

/// A disk with an empty log and empty tables, all of it durable; making the tables costs more than a run.
pub(crate) fn fresh_disk(seed: u64) -> Arc<SimFs> {
    static MADE: OnceLock<Arc<SimFs>> = OnceLock::new();
    let made = MADE.get_or_init(|| {
        let fs = SimFs::new(1);
        drop(Machine::open(&fs).unwrap());
        fs
    });
    made.restart(seed, Survival::None)
}

pub(crate) fn fold_view(fold: &mut Fold) -> Rows {
    let view = fold.view().unwrap();
    Rows::of([&view.calls, &view.arrivals, &view.quarantine])
}

/// The simulated machine has gone down.
#[derive(Debug)]
pub(crate) struct Down;

/// Where an export stands with its client.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Sent {
    Not,
    /// Without an answer.
    Open,
    Acknowledged,
}

/// What clients had been told when the disk had done so many operations.
#[derive(Clone, Copy, Debug)]
struct Promise {
    operations: u64,
    acknowledged: WalPosition,
    /// Rows of `alerts`.
    alerts: i64,
}

/// One history: a plan, carried out over any number of crashes.
pub(crate) struct History<'p> {
    plan: &'p Plan,
    next: usize,
    exports: Vec<Sent>,
    acknowledged: WalPosition,
    /// Rows of `alerts` that were acknowledged.
    alerts: i64,
    /// How often files were merged, and how many were deleted.
    pub(crate) compacted: [u64; 2],
    /// Every frame that was ever durable, forgotten ones too.
    frames: BTreeMap<u64, Frame>,
    oracle: Fold,
    promises: Vec<Promise>,
}

fn is_down<E: std::error::Error + 'static>(fs: &SimFs, error: E) -> Down {
    assert!(fs.is_down(), "failed without a crash: {}", toolgauge_collector::pipeline::chain(&error));
    Down
}

fn same(a: &Frame, b: &Frame) -> bool {
    let content = |content: &FrameContent| match content {
        FrameContent::Export(Export { body, .. }) => Some(body.clone()),
        FrameContent::Tick => None,
    };
    a.receive_time == b.receive_time && content(&a.content) == content(&b.content)
}

impl<'p> History<'p> {
    pub(crate) fn new(plan: &'p Plan) -> Self {
        Self {
            plan,
            next: 0,
            exports: vec![Sent::Not; plan.exports.len()],
            acknowledged: WalPosition(0),
            alerts: 0,
            compacted: [0; 2],
            frames: BTreeMap::new(),
            oracle: Fold::new(&settings()).unwrap(),
            promises: Vec::new(),
        }
    }

    /// Goes on with a plan that begins as the one before and has the same exports.
    pub(crate) fn with(self, plan: &'p Plan) -> Self {
        Self { plan, ..self }
    }

    /// Starts the collector, compares it with the oracle, and goes on with the plan to its end.
    pub(crate) fn live(&mut self, fs: &Arc<SimFs>, query: Query) -> Result<Machine, Down> {
        let mut machine = Machine::open(fs).map_err(|error| is_down(fs, error))?;
        self.take_over(&machine);
        assert!(machine.reader.alerts() >= self.alerts, "a row of alerts is lost");
        if !self.frames.is_empty() {
            self.compare(fs, &mut machine, query);
        }
        let open: Vec<usize> = (0..self.exports.len()).filter(|export| self.exports[*export] == Sent::Open).collect();
        if !open.is_empty() {
            self.send(fs, &mut machine, self.now_us(), &open)?;
        }
        let plan = self.plan;
        while let Some(step) = plan.steps.get(self.next) {
            match step {
                Step::Send { at_us, exports } => self.send(fs, &mut machine, *at_us, exports)?,
                Step::Commit => {
                    let committed = machine.commit();
                    self.alerts = machine.reader.alerts();
                    self.promise(fs);
                    committed.map_err(|error| is_down(fs, error))?;
                    let [calls, arrivals] = [Table::Calls, Table::Arrivals].map(|table| machine.tables.up_to(table));
                    let (up_to, not_younger_than) = machine.fold.forgettable(calls, arrivals);
                    machine.wal.forget(up_to, not_younger_than).map_err(|error| is_down(fs, error))?;
                }
                Step::Compact => {
                    let done = machine.compact().map_err(|error| is_down(fs, error))?;
                    self.compacted = [0, 1].map(|at| self.compacted[at] + done[at]);
                }
            }
            self.next += 1;
        }
        Ok(machine)
    }

    fn now_us(&self) -> i64 {
        let times = self.plan.steps[self.next..].iter().chain(self.plan.steps[..self.next].iter().rev());
        times.filter_map(|step| if let Step::Send { at_us, .. } = step { Some(*at_us) } else { None }).next().unwrap()
    }

    /// What recovery found must go on from what was acknowledged; whatever more there is counts from now on.
    fn take_over(&mut self, machine: &Machine) {
        let last = machine.wal.synced();
        assert!(last >= self.acknowledged, "acknowledged {}, found {last}", self.acknowledged);
        for frame in machine.wal.replay(WalPosition(1)) {
            let frame = frame.unwrap();
            match self.frames.get(&frame.position.0) {
                Some(known) => assert!(same(known, &frame), "frame {} is another one", frame.position),
                None => self.durable(&[frame]),
            }
        }
        assert_eq!(self.frames.len() as u64, last.0, "the log has a gap");
        self.acknowledged = last;
    }

    fn durable(&mut self, frames: &[Frame]) {
        for frame in frames {
            self.oracle.apply(frame).unwrap();
            let other = self.frames.insert(frame.position.0, frame.clone());
            assert!(other.is_none(), "position {} was given twice", frame.position);
        }
    }

    fn send(&mut self, fs: &SimFs, machine: &mut Machine, at_us: i64, exports: &[usize]) -> Result<(), Down> {
        for export in exports {
            if self.exports[*export] == Sent::Not {
                self.exports[*export] = Sent::Open;
            }
            let _position = machine
                .wal
                .append(&self.plan.exports[*export], UnixMicros(at_us))
                .map_err(|error| is_down(fs, error))?;
        }
        if exports.is_empty() {
            machine.wal.tick(UnixMicros(at_us)).map_err(|error| is_down(fs, error))?;
        }
        let frames = machine.wal.sync().map_err(|error| is_down(fs, error))?;
        for export in exports {
            self.exports[*export] = Sent::Acknowledged;
        }
        self.acknowledged = machine.wal.synced();
        self.promise(fs);
        self.durable(&frames);
        for frame in &frames {
            machine.fold.apply(frame).unwrap();
        }
        Ok(())
    }

    /// Committed and live rows together are the oracle's.
    pub(crate) fn compare(&mut self, fs: &SimFs, machine: &mut Machine, query: Query) {
        let expected = fold_view(&mut self.oracle);
        let when = format!("after step {} of plan {}", self.next, self.plan.seed);
        if let Some(difference) = machine.rows(fs, query, &when).difference(&expected, &[]) {
            panic!("{when}:\n{difference}");
        }
    }

    /// The plan is done: everything was acknowledged and committed, and a fold over the whole log says the same.
    pub(crate) fn finish(&mut self, fs: &SimFs, mut machine: Machine, query: Query) -> Rows {
        assert_eq!(self.next, self.plan.steps.len());
        assert!(self.exports.iter().all(|export| *export == Sent::Acknowledged));
        assert_eq!(machine.fold.live().live_rows(), 0, "rows were not committed");
        self.compare(fs, &mut machine, query);
        machine.rows(fs, query, "at the end")
    }

    fn promise(&mut self, fs: &SimFs) {
        let (acknowledged, alerts) = (self.acknowledged, self.alerts);
        self.promises.push(Promise { operations: fs.operations(), acknowledged, alerts });
    }

    /// What the first so many frames are, by their number.
    pub(crate) fn rows_by_position(&self) -> Vec<Rows> {
        let mut fold = Fold::new(&settings()).unwrap();
        let mut rows = vec![fold_view(&mut fold)];
        for frame in self.frames.values() {
            fold.apply(frame).unwrap();
            rows.push(fold_view(&mut fold));
        }
        rows
    }

    /// Recovers a disk on which this history, which has lived to its end in one go, was cut off after so many operations: what had
    /// been promised is there, and all of it is as `rows` says of the log's end.
    pub(crate) fn recover(&self, fs: &Arc<SimFs>, operations: u64, rows: &[Rows]) {
        let when = format!("plan {}, after operation {operations}", self.plan.seed);
        let mut machine = Machine::open(fs).unwrap();
        let last = machine.wal.synced();
        let promised = self.promises.iter().rfind(|promise| promise.operations <= operations);
        if let Some(promise) = promised {
            assert!(last >= promise.acknowledged, "{when}: acknowledged {}, found {last}", promise.acknowledged);
            assert!(machine.reader.alerts() >= promise.alerts, "{when}: a row of alerts is lost");
        }
        for frame in machine.wal.replay(WalPosition(1)) {
            let frame = frame.unwrap();
            assert!(same(&self.frames[&frame.position.0], &frame), "{when}: frame {} is another one", frame.position);
        }
        let found = machine.rows(fs, Query::Files, &when);
        if let Some(difference) = found.difference(&rows[usize::try_from(last.0).unwrap()], &[]) {
            panic!("{when}:\n{difference}");
        }
    }

    /// A fold that takes all frames at once, without having been looked at meanwhile.
    pub(crate) fn refold(&self) -> Rows {
        let mut fold = Fold::new(&settings()).unwrap();
        for frame in self.frames.values() {
            fold.apply(frame).unwrap();
        }
        fold_view(&mut fold)
    }
}
