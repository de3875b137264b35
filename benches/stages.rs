//! What each stage behind the log costs for a row, in one thread: `./dev bench stages`.
//!
//! Prints nanoseconds of CPU per row and the share of each stage; the file system is in memory, so that no sync is
//! measured. CPU time and not the clock's: others may be at work on the machine. A commit also adds its rows to the sums of `calls_1m`;
//! what that costs is measured beside it, on the same rows, with what it takes to give the sums to be written once.

#![expect(clippy::print_stdout, reason = "a benchmark prints")]

use std::sync::Arc;
use std::time::Duration;

use toolgauge_analytics::rollup::CallsRollup;
use toolgauge_collector::export::{Export, ExportEncoding, ExportSignal};
use toolgauge_collector::fs::real::RealFs;
use toolgauge_collector::lake::{FoldSettings, LakeTables};
use toolgauge_collector::pipeline::{CollectorSettings, Fold};
use toolgauge_collector::wal::{Frame, FrameContent};
use toolgauge_proto::id::{WalPosition, WriterId};
use toolgauge_proto::time::{Clock as _, SystemClock, UnixMicros};

#[expect(dead_code, reason = "shared with the other benchmarks")]
mod load;

/// Exports between two commits: about the rows of one commit of the server.
const EXPORTS: u64 = 256;
const ROUNDS: u64 = 6;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What this thread has spent on a processor (proc(5), schedstat).
fn on_cpu() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    Duration::from_nanos(text.split_whitespace().next().and_then(|ns| ns.parse().ok()).unwrap_or_default())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let folder = tempfile::tempdir_in("/dev/shm")?;
    let mut settings = CollectorSettings::new(folder.path().to_owned());
    settings.live.settle_us = 1_000_000;
    let mut fold = Fold::new(&settings)?;
    let writer = WriterId::from_bytes([7; 16]);
    let mut tables = LakeTables::open(
        Arc::new(RealFs::private()),
        folder.path().join("lake"),
        writer,
        FoldSettings::default(),
        runtime.handle(),
    )?;
    let template = load::Template::new();
    let start = SystemClock.now().0;
    let (mut stages, mut folds) = ([Duration::ZERO; 4], Duration::ZERO);
    let mut sums = CallsRollup::default();
    let (mut position, mut number, mut rows) = (0, 0, 0);
    for round in 0..=ROUNDS {
        let exports: Vec<_> = (0..EXPORTS)
            .map(|_| {
                number += 1;
                Export {
                    tenant: "default".into(),
                    signal: ExportSignal::Traces,
                    encoding: ExportEncoding::Protobuf,
                    body: template.export(number),
                }
            })
            .collect();
        let mut took = [Duration::ZERO; 4];
        let mut apply = |fold: &mut Fold, content, late_us| -> Result<Duration, Box<dyn std::error::Error>> {
            position += 1;
            let receive_time = UnixMicros(start + late_us + position as i64);
            let began = on_cpu();
            fold.apply(&Frame { position: WalPosition(position), receive_time, content })?;
            Ok(on_cpu().saturating_sub(began))
        };
        let at = round as i64 * 2_000_000;
        for (i, export) in exports.into_iter().enumerate() {
            took[0] += apply(&mut fold, FrameContent::Export(export), at)?;
            if i % 32 == 31 {
                let began = on_cpu();
                let _view = fold.view()?;
                took[1] += on_cpu().saturating_sub(began);
            }
        }
        took[2] += apply(&mut fold, FrameContent::Tick, at + 1_500_000)?;
        let began = on_cpu();
        let Some((commit, marks)) = fold.begin_commit()? else { return Err("nothing settled".into()) };
        took[2] += on_cpu().saturating_sub(began);
        let began = on_cpu();
        tables.commit(&commit)?;
        let _committed = tables.committed();
        took[3] += on_cpu().saturating_sub(began);
        fold.end_commit(marks);
        let began = on_cpu();
        for batch in commit.calls.iter().flat_map(|calls| &calls.batches) {
            sums.add(batch)?;
        }
        let fold_took = on_cpu().saturating_sub(began);
        // The first round grows the buffers.
        if round > 0 {
            rows += EXPORTS * load::SPANS as u64;
            folds += fold_took;
            for (sum, took) in stages.iter_mut().zip(took) {
                *sum += took;
            }
        }
    }
    let total: Duration = stages.iter().sum();
    println!("{rows} rows, {:.0} ns a row", total.as_nanos() as f64 / rows as f64);
    for (name, took) in ["recognise and file", "publish views", "settle", "encode and commit"].iter().zip(stages) {
        println!(
            "  {name:20} {:6.0} ns a row, {:4.1} %",
            took.as_nanos() as f64 / rows as f64,
            100.0 * took.as_secs_f64() / total.as_secs_f64()
        );
    }
    let began = on_cpu();
    let _given = sums.batches()?;
    // Of all rounds, of which the first is not counted.
    folds += on_cpu().saturating_sub(began) * ROUNDS as u32 / (ROUNDS as u32 + 1);
    println!(
        "  of which sums        {:6.0} ns a row; ingest with them costs {:.3} of what it costs without",
        folds.as_nanos() as f64 / rows as f64,
        total.as_secs_f64() / (total.saturating_sub(folds)).as_secs_f64()
    );
    Ok(())
}
