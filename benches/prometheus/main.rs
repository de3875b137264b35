//! What it costs to evaluate SLOs, ours against Debian's Prometheus with rules as Sloth writes them: `./dev bench prometheus [SLOS] [SECONDS]`.
//!
//! Both know the same calls of 1,000 tools: three days of history, then one call of each tool a second. Of each tool there is one SLO
//! of 30 days with burn-rate alerts. Sloth writes 17 rules for it; here it is an OpenSLO document. Measured is CPU for each round of
//! evaluating all of them: of a process with the SLOs, minus that of one without, which run side by side on the same calls.
//!
//! Shortened, all in favour of Prometheus: its history has a sample every two minutes instead of every 30 s or less, and three days
//! instead of the 30 that its window of 30 days reads. The rules are evaluated every 15 s; a round costs the same at any pace. Ours has its
//! own pace, every ten seconds, and counting the calls that came between is part of its round.

#![expect(clippy::print_stdout, reason = "a benchmark prints")]

#[expect(dead_code, reason = "shared with the other benchmarks")]
#[path = "../load/mod.rs"]
mod load;
mod rules;
mod theirs;
mod traffic;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use load::client::{json, text};
use load::slos;
use load::{Process, serve, until};
use toolgauge_proto::api::slo::{SloReport, SlosReport};
use traffic::Traffic;

pub(crate) type Fallible<T> = Result<T, Box<dyn std::error::Error>>;

/// Of all SLOs.
const TARGET: f64 = 0.99;
const SLOS: usize = 1_000;
const SECONDS: u64 = 60;
/// Longest wait for anything.
pub(crate) const PATIENCE: Duration = Duration::from_secs(240);
/// Both must find the same share of failures over three days, or they do not do the same work.
const AGREE: f64 = 0.05;

/// The sum of all series of this name in Prometheus' text format.
pub(crate) fn metric(text: &str, name: &str) -> f64 {
    let of_name = |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']));
    text.lines().filter(of_name).filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

/// What a side took for each round, and what it says of the SLOs.
pub(crate) struct Side {
    pub(crate) cpu_ms: f64,
    pub(crate) rounds: f64,
    /// Share of failures over three days, the mean of all SLOs.
    pub(crate) failures: f64,
}

/// A server of ours that has the history.
async fn ours_started(
    folder: &Path,
    name: &str,
    slos: Option<&Path>,
    traffic: &Traffic,
) -> Fallible<(Process, SocketAddr, SocketAddr)> {
    let slos = slos.map(|path| path.display().to_string());
    let mut environment = vec![("TOOLGAUGE_SETTLE_AFTER", "5s"), ("TOOLGAUGE_ALERTING_LEARN_SLOS", "false")];
    environment.extend(slos.as_deref().map(|path| ("TOOLGAUGE_SLO", path)));
    let (process, grpc, http) = serve(&folder.join(name), &environment)?;
    traffic.send_history(grpc).await?;
    Ok((process, grpc, http))
}

/// Ours, with SLOs and without.
async fn ours(folder: &Path, traffic: &Traffic, time: Duration) -> Fallible<Side> {
    let slos = folder.join("slos");
    slos::write(
        &slos,
        traffic.tools(),
        TARGET,
        |_| "toolgauge/mode: attempt",
        |number| format!("kind = 'tool' AND tool_name = '{}'", traffic::tool(number)),
    )?;
    let (with, with_grpc, with_http) = ours_started(folder, "with", Some(&slos), traffic).await?;
    let (without, without_grpc, without_http) = ours_started(folder, "without", None, traffic).await?;
    // From here on, calls come in until both have been measured; so the log of both goes on, and what was sent settles.
    let live = tokio::spawn(traffic.clone().go_on([with_grpc, without_grpc]));
    for http in [with_http, without_http] {
        until(PATIENCE, "the history is settled and committed", || {
            let ingest = json(http, "/api/v1/status")?["ingest"].take();
            let committed = ingest["counters"]["toolgauge_calls_total"].as_f64().unwrap_or_default()
                - ingest["live_rows"].as_f64().unwrap_or_default();
            Ok(committed >= traffic.history_calls())
        })
        .await?;
    }
    until(PATIENCE, "all SLOs are evaluated", || {
        let slos = json(with_http, "/api/v1/slos").unwrap_or_default()["slos"].take();
        let evaluated = |slo: &serde_json::Value| slo["total"].as_f64().is_some_and(|total| total > 0.0);
        Ok(slos.as_array().is_some_and(|slos| slos.len() >= traffic.tools() && slos.iter().all(evaluated)))
    })
    .await?;
    let rounds =
        || Ok::<_, Box<dyn std::error::Error>>(metric(&text(with_http, "/metrics")?, "toolgauge_evaluations_total"));
    let (first, cpu) = (rounds()?, [with.cpu_seconds(), without.cpu_seconds()]);
    tokio::time::sleep(time).await;
    let cpu = [with.cpu_seconds() - cpu[0], without.cpu_seconds() - cpu[1]];
    let rounds = rounds()? - first;
    let report: SlosReport = serde_json::from_str(&text(with_http, "/api/v1/slos")?)?;
    let of_three_days = |slo: &SloReport| slo.burn_rates.iter().find(|rate| rate.window == "3d")?.rate;
    let rates: Option<Vec<f64>> = report.slos.iter().map(of_three_days).collect();
    let rates = rates.ok_or("an SLO has no burn rate over three days")?;
    let rate = rates.iter().sum::<f64>() / rates.len() as f64;
    live.abort();
    println!("ours: {:.2} s of CPU with SLOs, {:.2} s without, {rounds} rounds", cpu[0], cpu[1]);
    Ok(Side { cpu_ms: (cpu[0] - cpu[1]) * 1e3 / rounds, rounds, failures: rate * (1.0 - TARGET) })
}

async fn run(slos: usize, time: Duration) -> Fallible<()> {
    let Some(version) = theirs::version() else {
        println!("prometheus and promtool are not installed; \"./dev bench prometheus\" installs them");
        return Ok(());
    };
    // Beside the sources: `/tmp` may be memory.
    let parent = std::env::current_dir()?.join("target-bench");
    std::fs::create_dir_all(&parent)?;
    let folder = tempfile::tempdir_in(parent)?;
    let began = Instant::now();
    let theirs = {
        let traffic = Arc::new(Traffic::new(slos));
        theirs::measure(folder.path(), &traffic, time).await?
    };
    let ours = ours(folder.path(), &Traffic::new(slos), time).await?;
    println!("\n{slos} SLOs, CPU for each round of evaluating all, in {:.0} s:", began.elapsed().as_secs_f64());
    println!("  {version}, {} rules   {:9.1} ms ({:.1} rounds)", slos * rules::PER_SLO, theirs.cpu_ms, theirs.rounds);
    println!("  ours                              {:9.1} ms ({:.1} rounds)", ours.cpu_ms, ours.rounds);
    println!("  theirs of ours                    {:9.1}", theirs.cpu_ms / ours.cpu_ms.max(0.1));
    println!(
        "  failures over 3 days, mean of all SLOs: theirs {:.4} %, ours {:.4} %",
        theirs.failures * 100.0,
        ours.failures * 100.0
    );
    if (theirs.failures - ours.failures).abs() <= AGREE * ours.failures {
        return Ok(());
    }
    Err("they do not find the same failures: what was measured is not the same work".into())
}

fn main() -> Fallible<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let mut numbers = std::env::args().filter_map(|number| number.parse::<u64>().ok());
    let slos = numbers.next().map_or(SLOS, |slos| slos as usize);
    runtime.block_on(run(slos, Duration::from_secs(numbers.next().unwrap_or(SECONDS))))
}
