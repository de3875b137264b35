//! A month of a fleet, ten million calls over 30 days, through recognition, fold, commits and merges as the collector does them, but
//! with simulated time: what is left on the disk, whether commits cost more at its end, what reports over all of it cost, and that
//! every figure of them is that of the generator's books. Ends with the goals beside the figures, and with a code other than 0 if one
//! is missed.
//!
//! `./dev bench month [DAYS] [CALLS]`; the goals are for the default month.

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

#[expect(dead_code, reason = "shared with the other benchmarks")]
mod goals;

use goals::Goals;
use month::{END, Failure, Month, Pace};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const DAYS: u64 = 30;
const CALLS: u64 = 10_000_000;
/// Spans of an export.
const SPANS: u64 = 256;
/// A server commits twenty times as often, and has twenty times as many small files to merge.
const PACE: Pace = Pace { commit_us: 300_000_000, merge_us: 1_800_000_000 };
/// Of each report; the first ones find nothing in memory.
const ROUNDS: usize = 21;

/// What a call may take in `calls`, in bytes.
const CALL_BYTES: f64 = 45.0;
/// Rows of `calls_1h` for each 100 calls.
const HOURS_PERCENT: f64 = 5.0;
/// A report over the month, in milliseconds.
const REPORT_MS: f64 = 100.0;
/// What a commit may take at the end of the month until readers have it, compared with its beginning; and files of a date. Days
/// differ in their traffic by this much.
const GROWTH: f64 = 1.5;
/// Files of a date that is over, in any one table: sizes that do not merge any more differ by half each.
const DATE_FILES: f64 = 10.0;
/// Dates at both ends whose files are compared.
const ENDS: usize = 7;

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
    let mut each_ms = Vec::new();
    for number in [2, of / 2, of - 1] {
        let Some(day) = month.days.get(&(first + number - 1)) else { continue };
        let each = |time: Duration| time.as_secs_f64() * 1e3 / f64::from(day.commits.max(1));
        let commit = each(day.commit);
        println!("  day {number:>3}: {commit:6.2} ms until readers have it; at most {} files in all tables", day.files);
        each_ms.push(commit);
    }

    let view = month.view()?;
    let session = SessionContext::new();
    let (mut counts, mut call_bytes, mut most_files, mut files_grow) = (BTreeMap::new(), 0.0, 0.0, 0.0);
    println!(
        "{:<12} {:>11} {:>12} {:>9} {:>7} {:>15}",
        "table", "rows", "bytes", "bytes/row", "files", "files of a date"
    );
    for table in Table::ALL {
        let rows = runtime.block_on(session.read_table(Arc::clone(&view.table(table).committed))?.count())?;
        let dates = on_disk(&lake, table)?;
        let (bytes, files) = dates.values().fold((0, 0), |(b, f), (bytes, files)| (b + bytes, f + files));
        // The newest date is not over: its small files wait for others.
        let over = dates.len().saturating_sub(1);
        let files_of_dates: Vec<u64> = dates.values().map(|(_, files)| *files).take(over).collect();
        let most = files_of_dates.iter().copied().max().unwrap_or(0);
        let each = bytes as f64 / rows.max(1) as f64;
        println!("{:<12} {rows:>11} {bytes:>12} {each:>9.1} {files:>7} {most:>15}", table.name());
        counts.insert(table, rows);
        if table == Table::Calls {
            call_bytes = each;
        }
        most_files = f64::max(most_files, most as f64);
        if over > 2 * ENDS {
            let sum = |files: &[u64]| files.iter().sum::<u64>() as f64;
            files_grow = f64::max(files_grow, sum(&files_of_dates[over - ENDS..]) / sum(&files_of_dates[..ENDS]));
        }
    }
    let share = |table| counts[&table] as f64 * 100.0 / counts[&Table::Calls] as f64;
    println!("rows for each 100 calls: {:.2} per minute, {:.2} per hour", share(Table::Calls1m), share(Table::Calls1h));

    let report_ms = runtime.block_on(async {
        let engine = tables::engine(month::unlimited())?;
        let catalog = Catalog::new(&engine).await?;
        // Within minutes at both ends, as ranges usually are.
        let start = UnixMicros(END.0 - days.cast_signed() * DAY_MICROS);
        let range = Range::new(UnixMicros(start.0 + 31_000_000), UnixMicros(END.0 - 17_000_000));
        let (mut reports, mut medians) = (Vec::new(), Vec::new());
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
            println!(
                "  from {name:<8} {:8.1} ms at best, {:8.1} ms in the middle, {:8.1} ms at worst",
                ms(0.0),
                ms(0.5),
                ms(1.0)
            );
            medians.push(ms(0.5));
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
        Ok::<_, Failure>(medians[0])
    })?;

    println!("goals:");
    let mut goals = Goals::default();
    goals.at_most("bytes for a call in `calls`", call_bytes, CALL_BYTES);
    goals.at_most("rows of `calls_1h` for each 100 calls", share(Table::Calls1h), HOURS_PERCENT);
    goals.at_most("the tools report over the month, from hours, ms", report_ms, REPORT_MS);
    if let [commit, .., last_commit] = each_ms.as_slice() {
        goals.at_most(
            "a commit until readers have it at the end, of one at the beginning",
            last_commit / commit,
            GROWTH,
        );
    }
    goals.at_most("files of a date in any table", most_files, DATE_FILES);
    goals.at_most("files of the last dates, of those of the first", files_grow, GROWTH);
    goals.finish()
}
