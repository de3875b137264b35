//! A month of a fleet, ten million calls over 30 days, through recognition, fold, commits and merges as the collector does them, but
//! with simulated time: what is left on the disk, whether commits cost more at its end, and what reports over all of it cost.
//!
//! `./dev bench month`

#![expect(clippy::print_stdout, reason = "a benchmark prints what it measured")]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use datafusion::prelude::SessionContext;
use toolgauge_analytics::hist::Recorder;
use toolgauge_collector::export::{Export, ExportEncoding, ExportSignal};
use toolgauge_collector::fs::real::RealFs;
use toolgauge_collector::lake::{Compactor, LakeTables};
use toolgauge_collector::pipeline::{CollectorSettings, Fold};
use toolgauge_collector::wal::{Frame, FrameContent};
use toolgauge_proto::id::{WalPosition, WriterId};
use toolgauge_proto::lake::{LiveBatches, TableView, View};
use toolgauge_proto::table::Table;
use toolgauge_proto::time::{DAY_MICROS, UnixMicros};
use toolgauge_queries::engine::Settings;
use toolgauge_queries::report::{self, Range, Source};
use toolgauge_queries::tables::{self, Catalog};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

type Failure = Box<dyn std::error::Error>;

/// 2026-01-31T00:00:00Z.
const END: UnixMicros = UnixMicros(1_769_817_600_000_000);
const DAYS: u64 = 30;
const CALLS: u64 = 10_000_000;
/// Spans of an export.
const SPANS: u64 = 256;
/// Between two commits. A server commits twenty times as often, and has twenty times as many small files to merge.
const COMMIT_US: i64 = 300_000_000;
/// Between two looks at what can be merged.
const MERGE_US: i64 = 1_800_000_000;
const ROUNDS: usize = 5;

/// What took how long, a day.
#[derive(Default)]
struct Day {
    commit: Duration,
    /// Until readers have it.
    refresh: Duration,
    commits: u32,
    merge: Duration,
    files: u64,
}

struct Month {
    fold: Fold,
    tables: LakeTables,
    compactor: Compactor,
    position: u64,
    days: BTreeMap<i32, Day>,
}

impl Month {
    fn frame(&mut self, at: UnixMicros, content: FrameContent) -> Result<(), Failure> {
        self.position += 1;
        Ok(self.fold.apply(&Frame { position: WalPosition(self.position), receive_time: at, content })?)
    }

    fn commit(&mut self, at: UnixMicros) -> Result<(), Failure> {
        let Some((commit, marks)) = self.fold.begin_commit()? else { return Ok(()) };
        let began = Instant::now();
        self.tables.commit(&commit)?;
        let committed = began.elapsed();
        let readers = self.tables.committed()?;
        let day = self.days.entry(at.date32()).or_default();
        day.commit += committed;
        day.refresh += began.elapsed() - committed;
        day.commits += 1;
        day.files = day.files.max(readers.files.iter().sum());
        self.fold.end_commit(marks);
        Ok(())
    }

    fn merge(&mut self, at: UnixMicros) -> Result<(), Failure> {
        let began = Instant::now();
        for table in Table::ALL {
            while let Some(task) = self.compactor.task(&self.tables.files(table)?, at)?
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

    fn live_through(&mut self, days: u64, calls: u64) -> Result<(), Failure> {
        let end_ns = END.0.unsigned_abs() * 1_000;
        let start = UnixMicros(END.0 - days.cast_signed() * DAY_MICROS);
        let (mut commit_at, mut merge_at) = (UnixMicros(start.0 + COMMIT_US), UnixMicros(start.0 + MERGE_US));
        let mut last = start;
        for (ended_ns, body) in toolgauge::demo::history(1, end_ns, days, calls, SPANS) {
            let at = UnixMicros(((ended_ns / 1_000).cast_signed() + 1_000_000).max(last.0));
            last = at;
            while commit_at <= at {
                self.frame(commit_at, FrameContent::Tick)?;
                self.commit(commit_at)?;
                if merge_at <= commit_at {
                    self.merge(merge_at)?;
                    merge_at.0 += MERGE_US;
                }
                commit_at.0 += COMMIT_US;
            }
            let (tenant, signal) = ("default".into(), ExportSignal::Traces);
            let export = Export { tenant, signal, encoding: ExportEncoding::Protobuf, body };
            self.frame(at, FrameContent::Export(export))?;
        }
        // The month is over; everything has settled, and a date later nothing waits to be merged.
        for days in 1..=2 {
            let at = UnixMicros(END.0 + days * DAY_MICROS);
            self.frame(at, FrameContent::Tick)?;
            self.commit(at)?;
            self.merge(at)?;
        }
        self.compactor.delete(u64::MAX)?;
        Ok(())
    }

    fn view(&mut self) -> Result<Arc<View>, Failure> {
        let (committed, live) = (self.tables.committed()?, self.fold.view()?);
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

/// Bytes and files of each date of a table.
fn on_disk(lake: &Path, table: Table) -> Result<BTreeMap<String, (u64, u64)>, Failure> {
    let mut dates = BTreeMap::new();
    for folder in std::fs::read_dir(lake.join(table.name()))? {
        let folder = folder?;
        let name = folder.file_name().to_string_lossy().into_owned();
        if !name.starts_with("date=") {
            continue;
        }
        let (bytes, files): &mut (u64, u64) = dates.entry(name).or_default();
        for file in std::fs::read_dir(folder.path())? {
            *bytes += file?.metadata()?.len();
            *files += 1;
        }
    }
    Ok(dates)
}

fn main() -> Result<(), Failure> {
    let mut numbers = std::env::args().filter_map(|number| number.parse().ok());
    let (days, calls) = (numbers.next().unwrap_or(DAYS), numbers.next().unwrap_or(CALLS));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let parent = std::env::current_dir()?.join("target-bench");
    std::fs::create_dir_all(&parent)?;
    let folder = tempfile::tempdir_in(parent)?;
    let settings = CollectorSettings::new(folder.path().to_owned());
    let lake = folder.path().join("lake");
    let mut tables = LakeTables::open(
        Arc::new(RealFs::private()),
        lake.clone(),
        WriterId::from_bytes([7; 16]),
        settings.fold.clone(),
        runtime.handle(),
    )?;
    let compactor = tables.compactor(settings.compact.clone());
    let fold = Fold::new(&settings)?;
    let mut month = Month { fold, tables, compactor, position: 0, days: BTreeMap::new() };
    let began = Instant::now();
    month.live_through(days, calls)?;
    println!("{days} days in {:.0} s, of which merging took {:.0} s", began.elapsed().as_secs_f64(), {
        month.days.values().map(|day| day.merge).sum::<Duration>().as_secs_f64()
    });
    println!("a commit every {} s of simulated time:", COMMIT_US / 1_000_000);
    let first = month.days.keys().next().copied().unwrap_or_default();
    let of = days as i32;
    for number in [2, of / 2, of - 1] {
        let Some(day) = month.days.get(&(first + number - 1)) else { continue };
        let each = |time: Duration| time.as_secs_f64() * 1e3 / f64::from(day.commits.max(1));
        println!(
            "  day {number:>3}: {:6.2} ms, {:5.2} ms more until readers have it; at most {} files in all tables",
            each(day.commit),
            each(day.refresh),
            day.files
        );
    }

    let view = month.view()?;
    let session = SessionContext::new();
    let mut counts = BTreeMap::new();
    println!(
        "{:<12} {:>11} {:>12} {:>9} {:>7} {:>15}",
        "table", "rows", "bytes", "bytes/row", "files", "files of a date"
    );
    for table in Table::ALL {
        let rows = runtime.block_on(session.read_table(Arc::clone(&view.table(table).committed))?.count())?;
        let dates = on_disk(&lake, table)?;
        let (bytes, files) = dates.values().fold((0, 0), |(b, f), (bytes, files)| (b + bytes, f + files));
        let most = dates.values().map(|(_, files)| *files).max().unwrap_or(0);
        let each = bytes as f64 / rows.max(1) as f64;
        println!("{:<12} {rows:>11} {bytes:>12} {each:>9.1} {files:>7} {most:>15}", table.name());
        counts.insert(table, rows);
    }
    let share = |table| counts[&table] as f64 * 100.0 / counts[&Table::Calls] as f64;
    println!("rows for each 100 calls: {:.2} per minute, {:.2} per hour", share(Table::Calls1m), share(Table::Calls1h));

    runtime.block_on(async {
        let engine = tables::engine(Settings { timeout: Duration::from_secs(600), ..Settings::default() })?;
        let catalog = Catalog::new(&engine).await?;
        // Within minutes at both ends, as ranges usually are.
        let start = UnixMicros(END.0 - days.cast_signed() * DAY_MICROS);
        let range = Range::new(UnixMicros(start.0 + 31_000_000), UnixMicros(END.0 - 17_000_000));
        let mut reports = Vec::new();
        println!("the tools report over all of it:");
        for (name, source, rounds) in
            [("hours", Source::Hours, ROUNDS), ("minutes", Source::Minutes, ROUNDS), ("calls", Source::Calls, 1)]
        {
            let mut times = Recorder::default();
            for _ in 0..rounds {
                let began = Instant::now();
                reports.push(report::tools(&engine, &catalog, Arc::clone(&view), END, range.clone(), source).await?);
                times.record(began.elapsed().as_micros() as u64);
            }
            let times = times.finish();
            let ms = |q| times.quantile(q).unwrap_or(0) as f64 / 1e3;
            println!("  from {name:<8} {:8.1} ms at best, {:8.1} ms at worst", ms(0.0), ms(1.0));
        }
        if reports.windows(2).any(|pair| pair[0] != pair[1]) {
            return Err("the sources differ".into());
        }
        let calls: u64 = reports.iter().take(1).flat_map(|report| &report.tools).map(|tool| tool.calls).sum();
        println!("  {calls} calls of {} tools; all sources say the same", reports[0].tools.len());
        Ok::<_, Failure>(())
    })?;
    Ok(())
}
