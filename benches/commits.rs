//! Does the cost of a commit grow with the number of commits? `./dev bench commits`: milliseconds per commit around the
//! 100th, 1,000th and 5,000th, on the real disk, and the ratio of the last to the first. In the time of the log a commit is
//! made as often as the server makes one by default, so that what goes with time goes here, too: small files are merged every
//! minute, and forgotten an hour later. Merging itself is not measured.

#![expect(clippy::print_stdout, reason = "a benchmark prints")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use toolgauge_collector::export::{Export, ExportEncoding, ExportSignal};
use toolgauge_collector::fs::real::RealFs;
use toolgauge_collector::lake::{FoldSettings, LakeTables};
use toolgauge_collector::pipeline::{CollectorSettings, Fold};
use toolgauge_collector::wal::{Frame, FrameContent};
use toolgauge_proto::id::{WalPosition, WriterId};
use toolgauge_proto::table::Table;
use toolgauge_proto::time::{Clock as _, SystemClock, UnixMicros};

#[expect(dead_code, reason = "shared with the other benchmarks")]
mod load;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Commits whose median is taken: one in a minute also writes other tables.
const WINDOW: usize = 50;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let parent = std::env::current_dir()?.join("target-bench");
    std::fs::create_dir_all(&parent)?;
    let folder = tempfile::tempdir_in(parent)?;
    let mut settings = CollectorSettings::new(folder.path().to_owned());
    settings.live.settle_us = 1;
    let compact = settings.compact.clone();
    let (commit_every, merge_every) = (settings.commit_interval_us, settings.compact.interval_us);
    let mut fold = Fold::new(&settings)?;
    let writer = WriterId::from_bytes([7; 16]);
    let mut tables = LakeTables::open(
        Arc::new(RealFs::private()),
        folder.path().join("lake"),
        writer,
        FoldSettings::default(),
        runtime.handle(),
    )?;
    let mut compactor = tables.compactor(compact);
    let template = load::Template::new();
    let start = SystemClock.now().0;
    let (mut window, mut medians) = (Vec::new(), Vec::new());
    for number in 1..=5_000u64 {
        let export = Export {
            tenant: "default".into(),
            signal: ExportSignal::Traces,
            encoding: ExportEncoding::Protobuf,
            body: template.export(number),
        };
        for (step, content) in [FrameContent::Export(export), FrameContent::Tick].into_iter().enumerate() {
            let position = WalPosition(number * 2 - 1 + step as u64);
            let receive_time = UnixMicros(start + (number * commit_every) as i64 + step as i64 * 10);
            fold.apply(&Frame { position, receive_time, content })?;
        }
        let Some((commit, marks)) = fold.begin_commit()? else { return Err("nothing settled".into()) };
        let began = Instant::now();
        tables.commit(&commit)?;
        let committed = began.elapsed();
        let _providers = tables.committed()?;
        window.push((committed, began.elapsed()));
        fold.end_commit(marks);
        let now = fold.live().received();
        let elapsed_us = now.0.saturating_sub(start).unsigned_abs();
        if number % (merge_every / commit_every).max(1) == 0 {
            while let Some(task) = compactor.task(&tables.files(Table::Calls)?, now)?
                && let Some(exchange) = compactor.prepare(task, &|| false)?
            {
                tables.exchange(&exchange, now)?;
                compactor.exchanged(exchange, elapsed_us);
            }
            compactor.delete(elapsed_us)?;
        }
        if [100, 1_000, 5_000].contains(&number) {
            let last = &window[window.len() - WINDOW..];
            let median = |pick: fn(&(Duration, Duration)) -> Duration| {
                let mut times: Vec<Duration> = last.iter().map(pick).collect();
                times.sort_unstable();
                times[WINDOW / 2].as_secs_f64() * 1e3
            };
            let (commit, until_read) = (median(|w| w.0), median(|w| w.1));
            println!("at {number}: {commit:.2} ms per commit of 512 rows, {until_read:.2} ms until readers have it");
            medians.push(until_read);
        }
    }
    println!("ratio of the 5,000th to the 100th: {:.2}", medians[2] / medians[0]);
    Ok(())
}
