//! `toolgauge loadgen`: the demo's fleet as a load for any OTLP endpoint.
//!
//! The fleet is made up by [`traffic`] from a seed, and written down in a [`ledger`] as it is, so that what was acknowledged is
//! known to the last call. Each connection sends one export after the other: as fast as they are answered, or at a rate; then the
//! latency of an export counts from when it was due, not from when a slow server let it go (open loop).

pub(crate) mod dice;
pub(crate) mod fleet;
mod json;
pub(crate) mod ledger;
pub(crate) mod send;
pub(crate) mod tariff;
pub(crate) mod traffic;
mod wire;

use std::collections::BTreeMap;
use std::io::Write;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;
use tokio::time::Instant;
use toolgauge_proto::time::Clock;

pub use fleet::{GameDay, WrongGameDay};
pub use send::{Compression, Header, Protocol, WrongEndpoint};
pub use traffic::Scenario;

use ledger::Ledger;
use send::Sender;
use traffic::{Batch, Traffic};

/// An export of so many spans is as large as those of SDKs.
const BATCH_SPANS: u64 = 512;
/// At a rate, an export waits no longer than this for its spans.
const BATCH_WAIT: Duration = Duration::from_millis(250);
/// Runs begin this long before they are sent, so that they end near the present.
const RUN_TIME: Duration = Duration::from_secs(8);
/// The runs of an export begin within a second.
const RUNS_NS: u64 = 1_000_000_000;
/// Latencies are kept to 3 significant digits, in microseconds up to an hour.
const LATENCY_US_MAX: u64 = 3_600_000_000;

/// What to send, where to, for how long.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Where to send to: OTLP/gRPC, or OTLP/HTTP with `--protocol http`, which knows https:// too
    #[arg(default_value = "http://127.0.0.1:4317")]
    pub endpoint: String,
    /// How to send
    #[arg(long, value_enum, default_value_t = Protocol::Grpc)]
    pub protocol: Protocol,
    /// How to compress
    #[arg(long, value_enum, default_value_t = Compression::None)]
    pub compression: Compression,
    /// A header that each export has, like "authorization: Bearer abc"; may be repeated
    #[arg(long = "header", value_name = "NAME: VALUE")]
    pub headers: Vec<Header>,
    /// Calls per second of tools, models and agents, in all [default: as fast as they are acknowledged]
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    pub rate: Option<u64>,
    /// How long
    #[arg(long, default_value = "30s", value_parser = humantime::parse_duration)]
    pub duration: Duration,
    /// Connections; each has one export in flight
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub connections: u16,
    /// What happens
    #[arg(long, value_enum, default_value_t = Scenario::Fleet)]
    pub scenario: Scenario,
    /// A game day: `tool=NAME,for=5m[,after=1m][,class=timeout][,share=50]`; may be repeated
    #[arg(long = "break", value_name = "WHAT")]
    pub breaks: Vec<GameDay>,
    /// What is made up follows from it; ids and times are of now
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Write the report as JSON
    #[arg(long)]
    pub json: bool,
}

/// What became of a load.
#[derive(Debug, Serialize)]
pub struct Report {
    /// From the first export to the last answer, in seconds.
    pub seconds: f64,
    /// Exports that were acknowledged.
    pub exports: u64,
    /// Their size in bytes, not compressed.
    pub bytes: u64,
    /// Their spans.
    pub spans: u64,
    /// Their calls of tools, models and agents that count, each attempt as one.
    pub calls: u64,
    /// Their attempts of tools.
    pub tool_attempts: u64,
    /// Their calls of tools, an attempt and its retries as one.
    pub tool_calls: u64,
    /// Of these, those that failed in the end.
    pub tool_failures: u64,
    /// Their known cost in dollars.
    pub cost_usd: String,
    /// Exports that were not acknowledged, by code.
    pub refused: BTreeMap<String, u64>,
    /// What was said to one of each.
    pub refusals: BTreeMap<String, String>,
    /// Time from when an export was sent (or due, at a rate) to its acknowledgement, in milliseconds.
    pub latency_ms: BTreeMap<&'static str, f64>,
}

/// An amount of billionths as decimal text.
pub(crate) fn dollars(nano_usd: u64) -> String {
    format!("{}.{:09}", nano_usd / 1_000_000_000, nano_usd % 1_000_000_000)
}

/// What one connection did.
struct Worker {
    latencies: Histogram<u64>,
    ledger: Ledger,
    exports: u64,
    bytes: u64,
    spans: u64,
    refused: BTreeMap<String, (u64, String)>,
}

fn histogram() -> Histogram<u64> {
    // Both numbers are within what the crate allows.
    #[expect(clippy::expect_used, reason = "constants")]
    Histogram::new_with_bounds(1, LATENCY_US_MAX, 3).expect("the bounds of latencies are valid")
}

fn ns(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

pub(crate) fn now_ns(clock: &dyn Clock) -> u64 {
    clock.now().0.unsigned_abs().saturating_mul(1000)
}

/// Sends the load.
///
/// # Errors
/// An endpoint that cannot be used. Refusals are in the report.
pub async fn run(options: &Options, clock: &'static dyn Clock) -> Result<Report, WrongEndpoint> {
    // Reading the certificates of the system takes time that is none of the load's.
    let new_sender = |_| Sender::new(&options.endpoint, options.protocol, options.compression, &options.headers);
    let senders = (0..options.connections).map(new_sender).collect::<Result<Vec<_>, _>>()?;
    let (origin_ns, began) = (now_ns(clock), Instant::now());
    let first_ns = origin_ns.saturating_sub(ns(RUN_TIME));
    let breaks: Vec<_> = options.breaks.iter().map(|day| day.starting(first_ns)).collect();
    let mut workers = tokio::task::JoinSet::new();
    for (number, sender) in (0..options.connections).zip(senders) {
        let seed = options.seed.wrapping_mul(1 << 16).wrapping_add(number.into());
        let traffic = Traffic::new(seed, origin_ns, options.scenario, breaks.clone());
        workers.spawn(worker(sender, traffic, options.clone(), began, clock));
    }
    let mut all = Worker {
        latencies: histogram(),
        ledger: Ledger::default(),
        exports: 0,
        bytes: 0,
        spans: 0,
        refused: BTreeMap::new(),
    };
    while let Some(ended) = workers.join_next().await {
        // Only a panic, which was reported, has no result.
        let Ok(worker) = ended else { continue };
        let _same_bounds = all.latencies.add(&worker.latencies);
        all.ledger.merge(worker.ledger);
        all.exports += worker.exports;
        all.bytes += worker.bytes;
        all.spans += worker.spans;
        for (code, (count, message)) in worker.refused {
            all.refused.entry(code).or_insert((0, message)).0 += count;
        }
    }
    Ok(report(&all, began.elapsed()))
}

async fn worker(
    mut sender: Sender,
    mut traffic: Traffic,
    options: Options,
    began: Instant,
    clock: &'static dyn Clock,
) -> Worker {
    let mut done = Worker {
        latencies: histogram(),
        ledger: Ledger::default(),
        exports: 0,
        bytes: 0,
        spans: 0,
        refused: BTreeMap::new(),
    };
    let rate = options.rate.map(|rate| rate as f64 / f64::from(options.connections));
    let most_calls = rate.map_or(u64::MAX, |rate| (rate * BATCH_WAIT.as_secs_f64()).ceil() as u64).max(1);
    let mut batch = Batch::default();
    let mut sent_calls = 0.0;
    while began.elapsed() < options.duration {
        let start_ns = now_ns(clock).saturating_sub(ns(RUN_TIME));
        let mut calls = 0;
        while batch.span_count < BATCH_SPANS && calls < most_calls {
            let offset_ns = traffic.dice().below(RUNS_NS);
            let run = traffic.run(start_ns + offset_ns);
            calls += ledger::counted(&run.facts);
            batch.push(run);
        }
        let Some(export) = batch.take() else { continue };
        let mut due = Instant::now();
        if let Some(rate) = rate {
            due = began + Duration::from_secs_f64(sent_calls / rate);
            if due.duration_since(began) >= options.duration {
                break;
            }
            tokio::time::sleep_until(due).await;
            sent_calls += calls as f64;
        }
        let bytes = export.body.len() as u64;
        match sender.send(export.body).await {
            Ok(()) => {
                let micros = u64::try_from(due.elapsed().as_micros()).unwrap_or(LATENCY_US_MAX);
                done.latencies.saturating_record(micros.max(1));
                done.ledger.add_all(&export.facts);
                done.exports += 1;
                done.bytes += bytes;
                done.spans += export.span_count;
            }
            Err(refused) => {
                done.refused.entry(refused.code).or_insert((0, refused.message)).0 += 1;
                // Nobody is there: do not spin. A server may ask for more than is left of the load.
                if let (true, Some(delay)) = (done.exports == 0, refused.again) {
                    tokio::time::sleep(delay.min(options.duration.saturating_sub(began.elapsed()))).await;
                }
            }
        }
    }
    done
}

fn report(all: &Worker, elapsed: Duration) -> Report {
    let tools = |sum: fn(&ledger::ToolSums) -> u64| all.ledger.tools.values().map(sum).sum::<u64>();
    let ms = |q: f64| all.latencies.value_at_quantile(q) as f64 / 1000.0;
    Report {
        seconds: elapsed.as_secs_f64(),
        exports: all.exports,
        bytes: all.bytes,
        spans: all.spans,
        calls: all.ledger.counted(),
        tool_attempts: tools(|sums| sums.attempts),
        tool_calls: tools(|sums| sums.calls),
        tool_failures: tools(|sums| sums.calls - sums.calls_ok),
        cost_usd: dollars(all.ledger.cost_nano_usd()),
        refused: all.refused.iter().map(|(code, (count, _))| (code.clone(), *count)).collect(),
        refusals: all.refused.iter().map(|(code, (_, message))| (code.clone(), message.clone())).collect(),
        latency_ms: [("p50", 0.5), ("p95", 0.95), ("p99", 0.99), ("max", 1.0)].map(|(name, q)| (name, ms(q))).into(),
    }
}

impl Report {
    /// Writes it to be read.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn write(&self, out: &mut dyn Write) -> std::io::Result<()> {
        let per_second = |count: u64| count as f64 / self.seconds.max(0.001);
        writeln!(
            out,
            "acknowledged  {} calls in {} exports, {:.0} calls/s",
            self.calls,
            self.exports,
            per_second(self.calls)
        )?;
        writeln!(
            out,
            "              {} spans, {:.1} MB, {:.1} MB/s",
            self.spans,
            self.bytes as f64 / 1e6,
            per_second(self.bytes) / 1e6
        )?;
        writeln!(
            out,
            "of tools      {} attempts, {} calls, {} failed",
            self.tool_attempts, self.tool_calls, self.tool_failures
        )?;
        writeln!(out, "cost          {} USD", self.cost_usd)?;
        let latency = ["p50", "p95", "p99", "max"].map(|name| format!("{name} {:.1}", self.latency_ms[name]));
        writeln!(out, "latency ms    {}", latency.join(", "))?;
        if self.refused.is_empty() {
            writeln!(out, "refused       none")?;
        }
        for (code, count) in &self.refused {
            let message = self.refusals.get(code).map_or("", String::as_str);
            writeln!(out, "refused       {count} exports with {code}: {message}")?;
        }
        Ok(())
    }
}
