//! Whether merging files slows taking in: `./dev bench compaction [SECONDS]`.
//!
//! The same load at two servers in turns, one that merges every second and one that never does. First as fast as exports are
//! acknowledged, with commits every second: of those the calls are left as they are, for each fills a row group. Then at half of that pace, with
//! commits every tenth of a second, so that there is always something to merge.

#![expect(clippy::print_stdout, reason = "a benchmark prints")]

mod goals;
#[expect(dead_code, reason = "shared with the other benchmarks")]
mod load;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use goals::Goals;
use load::{Template, client, send, serve};

type Fallible<T> = Result<T, Box<dyn std::error::Error>>;

/// Calls in flight. More only queue.
const PARALLEL: usize = 16;
/// `lake.compact_interval` of the two.
const INTERVALS: [&str; 2] = ["1s", "0s"];
/// How often each has its turn.
const TURNS: usize = 3;
/// Longest wait until all rows are committed.
const PATIENCE: Duration = Duration::from_secs(300);
/// What is acknowledged with merging, of what is without: on two cores the merging itself takes some of what the load does not.
const THROUGHPUT: f64 = 0.9;
/// The 99th percentile of an acknowledgement at half load, of that without.
const LATENCY: f64 = 1.5;

struct Turn {
    /// Acknowledged a second.
    spans_per_second: f64,
    spans_per_cpu_second: f64,
    p99_ms: f64,
    merges: u64,
    merged_rows: u64,
}

fn counters(http: SocketAddr) -> Fallible<serde_json::Value> {
    Ok(client::json(http, "/api/v1/status")?["ingest"].take())
}

async fn turn(
    folder: &Path,
    interval: &str,
    time: Duration,
    template: &Arc<Template>,
    numbers: &Arc<AtomicU64>,
    rate: Option<f64>,
) -> Fallible<Turn> {
    let data = folder.join("data");
    let commit_interval = if rate.is_some() { "100ms" } else { "1s" };
    let environment = [
        ("TOOLGAUGE_SETTLE_AFTER", "1s"),
        ("TOOLGAUGE_LAKE_COMMIT_INTERVAL", commit_interval),
        ("TOOLGAUGE_LAKE_FOLD_INTERVAL", "1s"),
        ("TOOLGAUGE_LAKE_COMPACT_INTERVAL", interval),
    ];
    let (process, grpc, http) = serve(&data, &environment)?;
    let before = process.cpu_seconds();
    let sent = send(grpc, template, numbers, time, PARALLEL, rate).await?;
    let began = Instant::now();
    let done = loop {
        let ingest = counters(http)?;
        if ingest["live_rows"] == 0 && ingest["wal_visible"] == ingest["wal_synced"] {
            break ingest;
        }
        if began.elapsed() > PATIENCE {
            return Err(format!("all rows are committed: not within {PATIENCE:?}").into());
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    };
    let cpu = process.cpu_seconds() - before;
    drop(process);
    std::fs::remove_dir_all(&data)?;
    let count = |name: &str| done["counters"][name].as_u64().unwrap_or_default();
    let turn = Turn {
        spans_per_second: sent.spans() / sent.seconds,
        spans_per_cpu_second: sent.spans() / cpu,
        p99_ms: sent.quantile(0.99).as_secs_f64() * 1e3,
        merges: count("toolgauge_compactions_total"),
        merged_rows: count("toolgauge_compacted_rows_total"),
    };
    println!(
        "merging every {interval}: {:.0} spans/s acknowledged, {:.0} per CPU-second, ack p99 {:.2} ms; {} merges of {} rows",
        turn.spans_per_second, turn.spans_per_cpu_second, turn.p99_ms, turn.merges, turn.merged_rows
    );
    Ok(turn)
}

/// Medians of the turns with merging and without, of one figure.
fn medians(turns: &[Vec<Turn>; 2], figure: impl Fn(&Turn) -> f64) -> [f64; 2] {
    turns.each_ref().map(|turns| {
        let mut figures: Vec<f64> = turns.iter().map(&figure).collect();
        figures.sort_by(f64::total_cmp);
        figures[figures.len() / 2]
    })
}

fn main() -> Fallible<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let seconds = std::env::args().find_map(|argument| argument.parse().ok()).unwrap_or(20);
    let (template, numbers) = (Arc::new(Template::new()), Arc::new(AtomicU64::new(1)));
    // Beside the sources: `/tmp` may be memory.
    let parent = std::env::current_dir()?.join("target-bench");
    std::fs::create_dir_all(&parent)?;
    let folder = tempfile::tempdir_in(parent)?;
    let all = |rate: Option<f64>| -> Fallible<[Vec<Turn>; 2]> {
        let mut turns = [Vec::new(), Vec::new()];
        for _ in 0..TURNS {
            for (interval, turns) in INTERVALS.iter().zip(&mut turns) {
                let time = Duration::from_secs(seconds);
                turns.push(runtime.block_on(turn(folder.path(), interval, time, &template, &numbers, rate))?);
            }
        }
        Ok(turns)
    };
    let full = all(None)?;
    let throughput = medians(&full, |turn| turn.spans_per_second);
    let per_cpu = medians(&full, |turn| turn.spans_per_cpu_second);
    println!("at half of that:");
    let half = all(Some(throughput[1] / 2.0 / load::SPANS as f64))?;
    let p99 = medians(&half, |turn| turn.p99_ms);
    if half[0].iter().any(|turn| turn.merged_rows == 0) {
        return Err("nothing was merged in a turn: it does not say what merging costs".into());
    }
    println!("\nratios of this run, with merging of without, medians of {TURNS} turns");
    println!("  acknowledged per CPU-second: {:.2}", per_cpu[0] / per_cpu[1]);
    println!("goals:");
    let mut goals = Goals::default();
    goals.at_least(
        "acknowledged a second at full load, with merging of without",
        throughput[0] / throughput[1],
        THROUGHPUT,
    );
    goals.at_most("ack p99 at half load, with merging of without", p99[0] / p99[1], LATENCY);
    goals.finish()
}
