//! A month of a fleet, ten million calls over 30 days, through recognition, fold, commits and merges as the collector does them, but
//! with simulated time: what is left on the disk, whether commits cost more at its end, what reports over all of it cost, and that
//! every figure of them is that of the generator's books.
//!
//! `./dev bench month`

#![expect(clippy::print_stdout, reason = "a benchmark prints what it measured")]

#[path = "../tests/month/mod.rs"]
mod month;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use datafusion::prelude::SessionContext;
use toolgauge_analytics::hist::Recorder;
use toolgauge_proto::table::Table;
use toolgauge_proto::time::{DAY_MICROS, UnixMicros};
use toolgauge_queries::report::{self, Range, Source};
use toolgauge_queries::tables::{self, Catalog};

use month::{END, Failure, Month, Pace};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const DAYS: u64 = 30;
const CALLS: u64 = 10_000_000;
/// Spans of an export.
const SPANS: u64 = 256;
/// A server commits twenty times as often, and has twenty times as many small files to merge.
const PACE: Pace = Pace { commit_us: 300_000_000, merge_us: 1_800_000_000 };
const ROUNDS: usize = 5;

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
    let lake = folder.path().join("lake");
    let mut month = Month::new(folder.path(), runtime.handle())?;
    let mut history = month::history(1, days, calls, SPANS);
    let began = Instant::now();
    month.live_through(&mut history, days, PACE)?;
    println!("{days} days in {:.0} s, of which merging took {:.0} s", began.elapsed().as_secs_f64(), {
        month.days.values().map(|day| day.merge).sum::<Duration>().as_secs_f64()
    });
    println!("a commit every {} s of simulated time:", PACE.commit_us / 1_000_000);
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
        let engine = tables::engine(month::unlimited())?;
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
        println!("everything, beside the books of the generator:");
        let (answers, times) = month::answers(&engine, &catalog, &view).await?;
        for (what, time) in times {
            println!("  {what:<34} {:8.1} ms", time.as_secs_f64() * 1e3);
        }
        let checked = history.check(answers)?;
        println!(
            "  {} calls, {} rows, {} x 10^-9 USD: all {} figures are those of the books",
            checked.calls, checked.rows, checked.cost_nano_usd, checked.figures
        );
        Ok::<_, Failure>(())
    })?;
    Ok(())
}
