//! Ingest from end to end, side by side with a null server.
//!
//! `./dev bench ingest [SECONDS]`. Prints ratios of one run:
//! * acknowledged spans per CPU-second of the server, against a server that reads the same bytes and throws them away,
//!   and against itself on a file system where a sync costs nothing;
//! * time to acknowledgement at half load;
//! * bytes per call on disk, peak memory, time of a restart with the log of the run.
//!
//! All with the settings that a server has by default: at full load, rows settle early, when the memory for younger ones is full. The run
//! without sync costs is a quarter as long as the others, because its log and tables are in memory. Ends with the goals beside the
//! figures, and with a code other than 0 if one is missed.

#![expect(clippy::print_stdout, reason = "a benchmark prints")]

mod goals;
#[expect(dead_code, reason = "shared with the other benchmarks")]
mod load;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use goals::Goals;
use load::{SPANS, Template, null, send, serve};

type Fallible<T> = Result<T, Box<dyn std::error::Error>>;

/// Calls in flight. More only queue.
const PARALLEL: usize = 16;

fn main() -> Fallible<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let arguments: Vec<String> = std::env::args().collect();
    if arguments.iter().any(|argument| argument == null::ARGUMENT) {
        return runtime.block_on(null::serve());
    }
    let seconds = arguments.iter().find_map(|argument| argument.parse().ok()).unwrap_or(60);
    runtime.block_on(run(Duration::from_secs(seconds)))
}

fn status(http: SocketAddr) -> Fallible<serde_json::Value> {
    load::client::json(http, "/api/v1/status")
}

fn folder_bytes(path: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(path) else { return 0 };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(meta) if meta.is_dir() => folder_bytes(&entry.path()),
            Ok(meta) => meta.len(),
            Err(_) => 0,
        })
        .sum()
}

/// Waits until every row is committed.
async fn all_committed(http: SocketAddr) -> Fallible<()> {
    loop {
        let status = status(http)?;
        if status["ingest"]["live_rows"] == 0 && status["ingest"]["wal_visible"] == status["ingest"]["wal_synced"] {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

struct Full {
    spans_per_cpu_second: f64,
    exports_per_second: f64,
    bytes_per_call: f64,
    peak_mib: f64,
    data: PathBuf,
}

async fn full_load(
    name: &str,
    parent: &Path,
    time: Duration,
    template: &Arc<Template>,
    numbers: &Arc<AtomicU64>,
) -> Fallible<Full> {
    let data = parent.join(format!("toolgauge-bench-{}-{name}", std::process::id()));
    let (process, grpc, http) = serve(&data, &[])?;
    let before = process.cpu_seconds();
    let sent = send(grpc, template, numbers, time, PARALLEL, None).await?;
    let during = process.cpu_seconds() - before;
    all_committed(http).await?;
    let cpu = process.cpu_seconds() - before;
    let calls = status(http)?["ingest"]["counters"]["toolgauge_calls_total"].as_f64().unwrap_or_default();
    assert!((calls - sent.spans()).abs() < 0.5, "{calls} calls of {} spans", sent.spans());
    let full = Full {
        spans_per_cpu_second: sent.spans() / cpu,
        exports_per_second: sent.exports as f64 / sent.seconds,
        bytes_per_call: folder_bytes(&data.join("lake/calls")) as f64 / calls,
        peak_mib: process.peak_mib(),
        data,
    };
    println!(
        "{name}: {:.0} spans/s acknowledged, {:.0} per CPU-second ({cpu:.1} s CPU, {during:.1} s of it under load), refused {}, \
         ack p50 {:?} p99 {:?}, peak {:.0} MiB",
        sent.spans() / sent.seconds,
        full.spans_per_cpu_second,
        sent.refused,
        sent.quantile(0.5),
        sent.quantile(0.99),
        full.peak_mib
    );
    Ok(full)
}

async fn run(time: Duration) -> Fallible<()> {
    let template = Arc::new(Template::new());
    let numbers = Arc::new(AtomicU64::new(1));
    println!("{} spans an export, {} bytes a span", SPANS, template.bytes() / SPANS);

    let (null, address) = null::start()?;
    send(address, &template, &numbers, Duration::from_secs(1), PARALLEL, None).await?;
    let before = null.cpu_seconds();
    let sent = send(address, &template, &numbers, time, PARALLEL, None).await?;
    let null_rate = sent.spans() / (null.cpu_seconds() - before);
    println!("null server: {null_rate:.0} spans per CPU-second");
    drop(null);

    // Beside the sources: `/tmp` may be memory.
    let parent = std::env::current_dir()?.join("target-bench");
    std::fs::create_dir_all(&parent)?;
    let disk = full_load("disk", &parent, time, &template, &numbers).await?;
    let memory = full_load("memory", Path::new("/dev/shm"), time / 4, &template, &numbers).await?;
    std::fs::remove_dir_all(&memory.data)?;

    let began = Instant::now();
    let (restarted, grpc, http) = serve(&disk.data, &[])?;
    println!(
        "restart with {} MiB of log: {:.2} s",
        folder_bytes(&disk.data.join("wal")) >> 20,
        began.elapsed().as_secs_f64()
    );
    let half = disk.exports_per_second / 2.0;
    let sent = send(grpc, &template, &numbers, time, PARALLEL, Some(half)).await?;
    println!(
        "half load, {:.0} spans/s: ack p50 {:?} p99 {:?}, refused {}",
        sent.spans() / sent.seconds,
        sent.quantile(0.5),
        sent.quantile(0.99),
        sent.refused
    );
    all_committed(http).await?;
    drop(restarted);
    std::fs::remove_dir_all(&disk.data)?;

    println!("\nratios of this run");
    println!("  acknowledged per CPU-second, of a null server   {:.3}", disk.spans_per_cpu_second / null_rate);
    println!(
        "  acknowledged per CPU-second, of no sync cost    {:.3}",
        disk.spans_per_cpu_second / memory.spans_per_cpu_second
    );
    println!("goals:");
    let mut goals = Goals::default();
    goals.at_least("acknowledged and committed per CPU-second", disk.spans_per_cpu_second, 250_000.0);
    goals.at_most("peak memory at full load, MiB", disk.peak_mib, 1024.0);
    goals.at_most("bytes for a call in `calls`", disk.bytes_per_call, 45.0);
    goals.finish()
}
