//! What SLOs cost the server while it takes in spans at full load: `./dev bench slo_ingest [SECONDS]`.
//!
//! Acknowledged spans per CPU-second of a server that evaluates 100 and 10,000 SLOs, against one without any, in turns, so that
//! what else the machine does falls on all alike. Of the SLOs 70 % fix a tool, 20 % a service and 10 % neither; most of the tools
//! never come, as with a real fleet, where one collector sees its part.

#![expect(clippy::print_stdout, reason = "a benchmark prints")]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use load::client::json;
use load::{Template, send, serve, slos, until};

#[expect(dead_code, reason = "shared with the other benchmarks")]
mod load;

type Fallible<T> = Result<T, Box<dyn std::error::Error>>;

/// Calls in flight. More only queue.
const PARALLEL: usize = 16;
/// Numbers of SLOs that are compared.
const SLOS: [usize; 3] = [0, 100, 10_000];
/// Of all SLOs. Three in a hundred of the calls fail; that an alert begins, and looks for its causes, happens once.
const TARGET: f64 = 0.95;
/// How often each has its turn.
const TURNS: usize = 3;
/// Longest wait for the server to evaluate all SLOs, and to commit all rows.
const PATIENCE: Duration = Duration::from_secs(300);

/// One of 100 SLOs: its condition on the rows.
fn total(number: usize) -> String {
    match number % 10 {
        0..=6 => {
            let tool = match number / 10 {
                0 => load::TOOLS[number % load::TOOLS.len()].to_owned(),
                rank => format!("tool-{rank}-{number}"),
            };
            format!("kind = 'tool' AND tool_name = '{tool}'")
        }
        7 | 8 if number < 10 => "kind = 'tool' AND service_name = 'support-agent'".to_owned(),
        7 | 8 => format!("kind = 'tool' AND service_name = 'service-{number}'"),
        _ => format!("kind = 'tool' AND duration_ns < {}", 100_000_000 + number * 1_000),
    }
}

/// Acknowledged and counted spans per CPU-second.
async fn turn(
    folder: &Path,
    slos: usize,
    time: Duration,
    template: &Arc<Template>,
    numbers: &Arc<AtomicU64>,
) -> Fallible<f64> {
    let data = folder.join(format!("data-{slos}"));
    let files: PathBuf = folder.join(format!("slos-{slos}"));
    let path = files.display().to_string();
    let mut environment = vec![("TOOLGAUGE_SETTLE_AFTER", "5s")];
    if slos > 0 {
        environment.push(("TOOLGAUGE_SLO", path.as_str()));
    }
    let (process, grpc, http) = serve(&data, &environment)?;
    until(PATIENCE, "all SLOs are evaluated", || {
        // Before the first evaluation there is no answer.
        let found = json(http, "/api/v1/slos").unwrap_or_default();
        Ok(slos == 0 || found["slos"].as_array().is_some_and(|found| found.len() >= slos))
    })
    .await?;
    let before = process.cpu_seconds();
    let sent = send(grpc, template, numbers, time, PARALLEL, None).await?;
    until(PATIENCE, "all rows are committed", || {
        let status = json(http, "/api/v1/status")?;
        let ingest = &status["ingest"];
        Ok(ingest["live_rows"] == 0 && ingest["wal_visible"] == ingest["wal_synced"])
    })
    .await?;
    let rate = sent.spans() / (process.cpu_seconds() - before);
    println!("{slos} SLOs: {rate:.0} spans per CPU-second, peak {:.0} MiB", process.peak_mib());
    drop(process);
    std::fs::remove_dir_all(&data)?;
    Ok(rate)
}

fn main() -> Fallible<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let seconds = std::env::args().find_map(|argument| argument.parse().ok()).unwrap_or(10);
    let template = Arc::new(Template::new());
    let numbers = Arc::new(AtomicU64::new(1));
    // Beside the sources: `/tmp` may be memory.
    let parent = std::env::current_dir()?.join("target-bench");
    std::fs::create_dir_all(&parent)?;
    let folder = tempfile::tempdir_in(parent)?;
    for count in SLOS {
        slos::write(&folder.path().join(format!("slos-{count}")), count, TARGET, |_| "", total)?;
    }
    let mut rates = [const { Vec::new() }; SLOS.len()];
    for _ in 0..TURNS {
        for (slos, rates) in SLOS.iter().zip(&mut rates) {
            rates.push(runtime.block_on(turn(
                folder.path(),
                *slos,
                Duration::from_secs(seconds),
                &template,
                &numbers,
            ))?);
        }
    }
    println!("\nratios of this run, medians of {TURNS} turns");
    let medians = rates.map(|mut rates| {
        rates.sort_by(f64::total_cmp);
        rates[TURNS / 2]
    });
    for (slos, rate) in SLOS.iter().zip(medians).skip(1) {
        println!("  acknowledged per CPU-second with {slos} SLOs, of none   {:.2}", rate / medians[0]);
    }
    Ok(())
}
