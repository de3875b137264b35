//! A month of the demo's fleet, through recognition, fold, commits and merges as the collector does them, but with simulated time; and
//! what reports say of it, beside the books of who made it up. For a test and a benchmark.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use toolgauge::demo::{Answers, History};
use toolgauge_collector::export::{Export, ExportEncoding, ExportSignal};
use toolgauge_collector::fs::real::RealFs;
use toolgauge_collector::lake::{Compactor, LakeTables};
use toolgauge_collector::pipeline::{CollectorSettings, Fold};
use toolgauge_collector::prices::Prices;
use toolgauge_collector::wal::{Frame, FrameContent};
use toolgauge_proto::id::{WalPosition, WriterId};
use toolgauge_proto::lake::{LiveBatches, TableView, View};
use toolgauge_proto::table::Table;
use toolgauge_proto::time::{DAY_MICROS, UnixMicros};
use toolgauge_queries::engine::{Engine, Settings};
use toolgauge_queries::json;
use toolgauge_queries::report::{self, CostsBy, Range, Source};
use toolgauge_queries::tables::Catalog;

pub(crate) type Failure = Box<dyn std::error::Error>;

/// 2031-01-31T00:00:00Z: later than the files that are written meanwhile, so that logs are cleaned as if they were old.
pub(crate) const END: UnixMicros = UnixMicros(1_927_584_000_000_000);

/// The history that ends then.
pub(crate) fn history(seed: u64, days: u64, calls: u64, spans: u64) -> History {
    History::new(seed, END.0.unsigned_abs() * 1_000, days, calls, spans)
}

/// Limits that no answer about a month comes to: one group for each session.
pub(crate) fn unlimited() -> Settings {
    let (timeout, rows_max, result_bytes_max) = (Duration::from_secs(600), 4_000_000, 1 << 30);
    Settings { timeout, rows_max, result_bytes_max, memory_bytes: 2 << 30, ..Settings::default() }
}

/// Everything that is compared with the books, and how long each answer took.
pub(crate) async fn answers(
    engine: &Engine,
    catalog: &Catalog,
    view: &Arc<View>,
) -> Result<(Answers, Vec<(String, Duration)>), Failure> {
    let (mut rows, mut costs, mut tools, mut times) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let always = Range::new(UnixMicros(0), UnixMicros(END.0 + DAY_MICROS));
    let began = Instant::now();
    for statement in Answers::statements() {
        let answer = engine.query(catalog.schema(Arc::clone(view)), Default::default(), statement).await?;
        if answer.truncated {
            return Err("an answer was cut".into());
        }
        rows.push(json::response(&answer)?.rows);
    }
    times.push(("SQL over all calls, 14 statements".to_owned(), began.elapsed()));
    for by in CostsBy::ALL {
        let began = Instant::now();
        costs.push(report::costs(engine, catalog, Arc::clone(view), END, always.clone(), by).await?);
        times.push((format!("costs by {}", by.as_str()), began.elapsed()));
    }
    for source in [Source::Hours, Source::Minutes, Source::Calls] {
        let began = Instant::now();
        tools.push(report::tools(engine, catalog, Arc::clone(view), END, always.clone(), source).await?);
        times.push((format!("tools from {source:?}").to_lowercase(), began.elapsed()));
    }
    Ok((Answers { rows, costs, tools }, times))
}

/// What took how long, a day.
#[derive(Debug, Default)]
pub(crate) struct Day {
    /// Until readers have it.
    pub(crate) commit: Duration,
    pub(crate) commits: u32,
    pub(crate) merge: Duration,
    pub(crate) files: u64,
}

/// How often something happens, in simulated microseconds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    /// Between two commits.
    pub(crate) commit_us: i64,
    /// Between two looks at what can be merged.
    pub(crate) merge_us: i64,
}

/// See the module.
pub(crate) struct Month {
    fold: Fold,
    tables: LakeTables,
    compactor: Compactor,
    position: u64,
    pub(crate) days: BTreeMap<i32, Day>,
}

impl Month {
    /// An empty lake in this folder.
    pub(crate) fn new(data: &Path, runtime: &Handle) -> Result<Self, Failure> {
        let mut settings = CollectorSettings::new(data.to_owned());
        settings.prices = Prices::new(toolgauge::demo::price_book());
        let mut tables = LakeTables::open(
            Arc::new(RealFs::private()),
            data.join("lake"),
            WriterId::from_bytes([7; 16]),
            settings.fold.clone(),
            runtime,
        )?;
        let compactor = tables.compactor(settings.compact.clone());
        Ok(Self { fold: Fold::new(&settings)?, tables, compactor, position: 0, days: BTreeMap::new() })
    }

    /// Takes an export in that was received then.
    pub(crate) fn take(&mut self, at: UnixMicros, body: bytes::Bytes) -> Result<(), Failure> {
        let (tenant, signal) = ("default".into(), ExportSignal::Traces);
        self.frame(at, FrameContent::Export(Export { tenant, signal, encoding: ExportEncoding::Protobuf, body }))
    }

    /// Time goes on to this instant, and what has settled is committed.
    pub(crate) fn settle(&mut self, at: UnixMicros) -> Result<(), Failure> {
        self.frame(at, FrameContent::Tick)?;
        self.commit(at)
    }

    fn frame(&mut self, at: UnixMicros, content: FrameContent) -> Result<(), Failure> {
        self.position += 1;
        Ok(self.fold.apply(&Frame { position: WalPosition(self.position), receive_time: at, content })?)
    }

    fn commit(&mut self, at: UnixMicros) -> Result<(), Failure> {
        let Some((commit, marks)) = self.fold.begin_commit()? else { return Ok(()) };
        let began = Instant::now();
        self.tables.commit(&commit)?;
        let readers = self.tables.committed();
        let day = self.days.entry(at.date32()).or_default();
        day.commit += began.elapsed();
        day.commits += 1;
        day.files = day.files.max(readers.files.iter().sum());
        self.fold.end_commit(marks);
        Ok(())
    }

    fn merge(&mut self, at: UnixMicros) -> Result<(), Failure> {
        let began = Instant::now();
        for table in Table::ALL {
            while let Some(task) = self.compactor.task(&self.tables.files(table)?, at)
                && let Some(exchange) = self.compactor.prepare(task, &|| false)?
            {
                self.tables.exchange(&exchange, at)?;
                self.compactor.exchanged(exchange, at.0.unsigned_abs());
            }
        }
        self.compactor.delete(at.0.unsigned_abs())?;
        self.days.entry(at.date32()).or_default().merge += began.elapsed();
        Ok(())
    }

    /// Takes in what happened in the days before [`END`].
    pub(crate) fn live_through(&mut self, history: &mut History, days: u64, pace: Pace) -> Result<(), Failure> {
        let Pace { commit_us, merge_us } = pace;
        let start = UnixMicros(END.0 - days.cast_signed() * DAY_MICROS);
        let (mut commit_at, mut merge_at) = (UnixMicros(start.0 + commit_us), UnixMicros(start.0 + merge_us));
        let mut last = start;
        for (ended_ns, body) in history {
            let at = UnixMicros(((ended_ns / 1_000).cast_signed() + 1_000_000).max(last.0));
            last = at;
            while commit_at <= at {
                self.settle(commit_at)?;
                if merge_at <= commit_at {
                    self.merge(merge_at)?;
                    merge_at.0 += merge_us;
                }
                commit_at.0 += commit_us;
            }
            self.take(at, body)?;
        }
        // The month is over; everything has settled, and a date later nothing waits to be merged.
        for days in 1..=2 {
            let at = UnixMicros(END.0 + days * DAY_MICROS);
            self.settle(at)?;
            self.merge(at)?;
        }
        self.compactor.delete(u64::MAX)?;
        Ok(())
    }

    /// What readers see of it.
    pub(crate) fn view(&mut self) -> Result<Arc<View>, Failure> {
        let (committed, live) = (self.tables.committed(), self.fold.view()?);
        let minutes = committed.live_calls_1m(Arc::clone(&live.calls));
        let hours = committed.live_calls_1h(minutes.clone());
        let rows = |table| match table {
            Table::Calls => LiveBatches::new(Arc::clone(&live.calls)),
            Table::Arrivals => LiveBatches::new(Arc::clone(&live.arrivals)),
            Table::Calls1m => minutes.clone(),
            Table::Calls1h => hours.clone(),
            _ => LiveBatches::new(Arc::new([])),
        };
        Ok(Arc::new(View {
            tables: Table::ALL.map(|table| TableView {
                committed: Arc::clone(&committed.providers[table as usize]),
                live: rows(table),
            }),
            position: live.position,
            settled: live.settled,
            committed: committed.up_to(Table::Calls),
            watermark: live.received,
        }))
    }
}
