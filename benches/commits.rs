//! Does the cost of a commit grow with the number of commits? `./dev bench commits`: milliseconds per commit around the
//! 100th, 1,000th and 5,000th, on the real disk, and the ratio of the last to the first. Small files are merged every
//! 60 commits, as often as the server does it when it commits once a second; merging itself is not measured.

#![expect(clippy::print_stdout, reason = "a benchmark prints")]

use std::sync::Arc;
use std::time::Instant;

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

/// Commits between two looks at what can be merged.
const MERGE_EVERY: u64 = 60;

/// Commits whose mean is taken.
const WINDOW: u64 = 50;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let parent = std::env::current_dir()?.join("target-bench");
    std::fs::create_dir_all(&parent)?;
    let folder = tempfile::tempdir_in(parent)?;
    let mut settings = CollectorSettings::new(folder.path().to_owned());
    settings.live.settle_us = 1;
    let compact = settings.compact.clone();
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
    let (mut window, mut means) = (Vec::new(), Vec::new());
    for number in 1..=5_000u64 {
        let export = Export {
            tenant: "default".into(),
            signal: ExportSignal::Traces,
            encoding: ExportEncoding::Protobuf,
            body: template.export(number),
        };
        for (step, content) in [FrameContent::Export(export), FrameContent::Tick].into_iter().enumerate() {
            let position = WalPosition(number * 2 - 1 + step as u64);
            // All within one minute of the start, so that only `calls` is committed: folding its rows is part of that, writing them is not.
            let receive_time = UnixMicros(start + position.0 as i64 * 10);
            fold.apply(&Frame { position, receive_time, content })?;
        }
        let Some((commit, marks)) = fold.begin_commit()? else { return Err("nothing settled".into()) };
        let began = Instant::now();
        tables.commit(&commit)?;
        let committed = began.elapsed();
        let _providers = tables.committed()?;
        window.push((committed, began.elapsed()));
        fold.end_commit(marks);
        while number % MERGE_EVERY == 0
            && let Some(task) = compactor.task(&tables.files(Table::Calls)?, UnixMicros(start))?
            && let Some(exchange) = compactor.prepare(task, &|| false)?
        {
            tables.exchange(&exchange, UnixMicros(start))?;
            compactor.exchanged(exchange, 0);
        }
        if [100, 1_000, 5_000].contains(&number) {
            let last = &window[window.len() - WINDOW as usize..];
            let mean = |pick: fn(&(std::time::Duration, std::time::Duration)) -> std::time::Duration| {
                last.iter().map(pick).sum::<std::time::Duration>().as_secs_f64() * 1e3 / WINDOW as f64
            };
            println!(
                "at {number}: {:.2} ms per commit of 512 rows, {:.2} ms until readers have it",
                mean(|w| w.0),
                mean(|w| w.1)
            );
            means.push(mean(|w| w.1));
        }
    }
    println!("ratio of the 5,000th to the 100th: {:.2}", means[2] / means[0]);
    Ok(())
}
