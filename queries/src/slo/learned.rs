//! SLOs for those who have written none: learned from the calls.
//!
//! # What there is
//! * For each tool that has had [`SUCCESSES`] successes within 24 hours: availability 99.5 % of logical calls, and latency: 95 % of the successful ones
//!   within twice the p95 (nearest rank) of its first successes, rounded up to 1, 2 or 5 times a power of ten, at least a millisecond.
//! * If there are agents: 95 % of their runs complete.
//! * All of them over 30 days; their alerts are tickets.
//! * Names that have never succeeded get none: they may be inventions of a model. `toolgauge report unknown-tools` lists them.
//!
//! # Limits and guarantees
//! * At most [`TOOLS_MAX`] tools, the oldest first.
//! * What is learned depends on `calls` alone: a restart learns the same. A latency is that of the first 100 successes, then of the first 200, 400 and
//!   800, and from the first 1,000 on it stays. A tool that was learned keeps its SLOs for as long as the process runs.
//!
//! # How it works
//! A thread looks every ten minutes: at the sums per hour, and of each tool that has reached one of these numbers
//! at the calls of the hours in which it did. What it has learned is one OpenSLO document,
//! which is read like a file.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type, TimeUnit};
use datafusion::common::ScalarValue;
use toolgauge_proto::lake::Lake;
use toolgauge_proto::time::Clock;
use xxhash_rust::xxh3::xxh3_64;

use crate::engine::{Answer, Engine, Error};
use crate::tables::Catalog;

/// Successes within 24 hours from which on a tool has SLOs.
pub const SUCCESSES: i64 = 100;
/// Numbers of first successes from which its latency is learned, one after the other.
const STEPS: [usize; 5] = [100, 200, 400, 800, 1_000];
const HOUR_US: i64 = 3_600_000_000;
/// Most tools that have SLOs.
pub const TOOLS_MAX: usize = 1_000;
/// The name that the document has in place of a file's.
pub const NAME: &str = "(learned)";
/// The statement that lists the tools that have never succeeded.
pub const UNKNOWN_TOOLS: &str = include_str!("../../sql/unknown_tools.sql");
const KNOWN_TOOLS: &str = include_str!("../../sql/known_tools.sql");
const FIRST_SUCCESSES: &str = include_str!("../../sql/first_successes.sql");
const AGENTS: &str = include_str!("../../sql/agents.sql");
/// Pause between two looks.
const INTERVAL: Duration = Duration::from_secs(600);
const MILLISECOND_NS: i64 = 1_000_000;

/// A tool, as SLOs name it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tool {
    /// Its tenant.
    pub tenant: String,
    /// Its server; empty if it has none.
    pub server: String,
    /// Its name.
    pub name: String,
}

/// What has been learned, as a document.
#[derive(Debug, Default)]
pub struct Learned(Mutex<Arc<str>>);

impl Learned {
    /// The document; empty if nothing has been learned yet.
    #[must_use]
    pub fn document(&self) -> Arc<str> {
        Arc::clone(&self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes another one.
    pub fn replace(&self, document: String) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = document.into();
    }
}

/// The least of 1, 2 and 5 times a power of ten that is not below this duration, at least a millisecond; in nanoseconds.
#[must_use]
pub fn rounded_up(duration_ns: i64) -> i64 {
    let mut step = MILLISECOND_NS;
    loop {
        for times in [1, 2, 5] {
            match step.checked_mul(times) {
                Some(round) if round >= duration_ns => return round,
                Some(_) => {}
                None => return i64::MAX,
            }
        }
        step = step.saturating_mul(10);
    }
}

/// The latency that a tool is to keep, by its first successes: twice the p95, rounded up. Nothing without any.
#[must_use]
pub fn threshold(durations_ns: &mut [i64]) -> Option<i64> {
    let rank = (durations_ns.len() * 95).div_ceil(100).checked_sub(1)?;
    let (_, p95, _) = durations_ns.select_nth_unstable(rank);
    Some(rounded_up(p95.saturating_mul(2)))
}

/// The SLOs of some tools, each with its latency in nanoseconds, and of agents if there are any. JSON, which is YAML.
#[must_use]
pub fn document(tools: &BTreeMap<Tool, i64>, has_agents: bool) -> String {
    let mut items = Vec::with_capacity(2 * tools.len() + 1);
    for (tool, latency_ns) in tools {
        let total = condition(tool);
        let service = if tool.server.is_empty() { "tools" } else { &tool.server };
        let milliseconds = latency_ns / MILLISECOND_NS;
        let good = format!("duration_ns <= {latency_ns}");
        let slow = format!("{total} AND outcome = 'ok'");
        items.push(slo(service, &name(tool, "availability"), "0.995", "calls that succeed", "outcome = 'ok'", &total));
        let text = format!("successful calls within {milliseconds} ms");
        items.push(slo(service, &name(tool, "latency"), "0.95", &text, &good, &slow));
    }
    if has_agents {
        items.push(slo(
            "agents",
            "sessions-completed",
            "0.95",
            "agent runs that complete",
            "outcome = 'ok'",
            "kind = 'agent'",
        ));
    }
    if items.is_empty() { String::new() } else { serde_json::Value::from(items).to_string() }
}

fn condition(tool: &Tool) -> String {
    let quoted = |text: &str| format!("'{}'", text.replace('\'', "''"));
    let server = match tool.server.as_str() {
        "" => "tool_server IS NULL".to_owned(),
        server => format!("tool_server = {}", quoted(server)),
    };
    format!("kind = 'tool' AND tenant = {} AND {server} AND tool_name = {}", quoted(&tool.tenant), quoted(&tool.name))
}

/// A name that is a label; one that is not the tool's own name ends in a hash, so that no two tools share it.
fn name(tool: &Tool, what: &str) -> String {
    const NAME_MAX: usize = 63;
    let slug: String =
        tool.name.chars().map(|c| if c.is_ascii_lowercase() || c.is_ascii_digit() { c } else { '-' }).collect();
    let whole = format!("{slug}-{what}");
    let is_own = slug == tool.name && !slug.starts_with('-') && whole.len() <= NAME_MAX && tool.tenant == "default";
    if is_own {
        return whole;
    }
    let hash = xxh3_64([tool.tenant.as_str(), &tool.server, &tool.name].join("\0").as_bytes()) as u32;
    let end = format!("-{what}-{hash:08x}");
    let short = slug.trim_matches('-');
    let short = if short.is_empty() { "tool" } else { short };
    format!("{}{end}", short[..short.len().min(NAME_MAX - end.len())].trim_end_matches('-'))
}

fn slo(service: &str, name: &str, target: &str, text: &str, good: &str, total: &str) -> serde_json::Value {
    let metric =
        |condition: &str| serde_json::json!({"metricSource": {"type": "toolgauge", "spec": {"where": condition}}});
    serde_json::json!({
        "apiVersion": "openslo/v1",
        "kind": "SLO",
        "metadata": {"name": name, "displayName": text, "annotations": {"toolgauge/severity": "ticket"}},
        "spec": {
            "service": service,
            "description": format!("Learned from the calls, since there are no files of SLOs: {text}."),
            "indicator": {"spec": {"ratioMetric": {"counter": true, "good": metric(good), "total": metric(total)}}},
            "timeWindow": [{"duration": "30d", "isRolling": true}],
            "budgetingMethod": "Occurrences",
            "objectives": [{"target": target}],
        },
    })
}

/// The thread that learns.
#[derive(Debug)]
pub struct Learner {
    stop: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Learner {
    /// Learns for the first time, so that a start finds the SLOs that there were before, and then starts the thread.
    ///
    /// # Errors
    /// If there can be no thread.
    pub async fn start(
        lake: Arc<dyn Lake>,
        engine: Arc<Engine>,
        catalog: Catalog,
        clock: Arc<dyn Clock>,
        learned: Arc<Learned>,
    ) -> std::io::Result<Self> {
        let (stop, stopped) = sync_channel(1);
        let mut student = Student { lake, engine, catalog, clock, learned, tools: BTreeMap::new() };
        student.learn().await;
        let thread = std::thread::Builder::new().name("learn-slos".into()).spawn(move || student.run(&stopped))?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }

    /// Ends it, after the look that it is at.
    pub fn stop(mut self) {
        drop(self.stop.take());
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the thread that learns SLOs has panicked");
        }
    }
}

struct Student {
    lake: Arc<dyn Lake>,
    engine: Arc<Engine>,
    catalog: Catalog,
    clock: Arc<dyn Clock>,
    learned: Arc<Learned>,
    /// With the latency, and the number of successes that it was learned from.
    tools: BTreeMap<Tool, (i64, usize)>,
}

/// A tool that has succeeded often enough.
struct Seen {
    tool: Tool,
    /// The first instant of its first hour.
    from: i64,
    /// The greatest of [`STEPS`] that it has had, and the end of the hour in which it had.
    step: usize,
    until: i64,
}

impl Student {
    fn run(mut self, stopped: &Receiver<()>) {
        let engine = Arc::clone(&self.engine);
        while stopped.recv_timeout(INTERVAL) == Err(RecvTimeoutError::Timeout) {
            engine.block_on(self.learn());
        }
    }

    async fn learn(&mut self) {
        match self.look().await {
            Ok(document) => self.learned.replace(document),
            Err(error) => tracing::warn!(error = error.to_string(), "learn SLOs from the calls; it is tried again"),
        }
    }

    async fn ask(&self, sql: &'static str, parameters: Vec<(&'static str, ScalarValue)>) -> Result<Answer, Error> {
        let schema = self.catalog.schema(self.lake.view());
        let now = chrono::DateTime::from_timestamp_micros(self.clock.now().0).unwrap_or_default();
        self.engine.run(schema, now, async move |session| session.query(sql, parameters).await).await
    }

    async fn look(&mut self) -> Result<String, Error> {
        for Seen { tool, from, step, until } in
            seen(&self.ask(KNOWN_TOOLS, vec![("successes", SUCCESSES.into())]).await?)?
        {
            let known = self.tools.get(&tool).map(|(_, step)| *step);
            if known.is_some_and(|known| known >= step) || (known.is_none() && self.tools.len() >= TOOLS_MAX) {
                continue;
            }
            let text = |text: &str| ScalarValue::Utf8(Some(text.to_owned()));
            let time = |time: i64| ScalarValue::TimestampMicrosecond(Some(time), Some("UTC".into()));
            let parameters = vec![
                ("tenant", text(&tool.tenant)),
                ("server", text(&tool.server)),
                ("tool", text(&tool.name)),
                ("from", time(from)),
                ("until", time(until)),
            ];
            let mut durations = numbers(&self.ask(FIRST_SUCCESSES, parameters).await?)?;
            durations.truncate(step);
            if let Some(latency) = threshold(&mut durations) {
                self.tools.insert(tool, (latency, step));
            }
        }
        let has_agents = numbers(&self.ask(AGENTS, Vec::new()).await?)?.iter().any(|runs| *runs > 0);
        let tools = self.tools.iter().map(|(tool, (latency, _))| (tool.clone(), *latency)).collect();
        Ok(document(&tools, has_agents))
    }
}

fn seen(answer: &Answer) -> Result<Vec<Seen>, Error> {
    let mut seen = Vec::new();
    for batch in &answer.batches {
        let texts: Vec<ArrayRef> = (0..3)
            .map(|column| cast(batch.column(column), &DataType::Utf8))
            .collect::<Result<_, _>>()
            .map_err(internal)?;
        let times = (3..batch.num_columns()).map(|column| {
            let micros = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
            cast(&cast(batch.column(column), &micros)?, &DataType::Int64)
        });
        let times: Vec<ArrayRef> = times.collect::<Result<_, _>>().map_err(internal)?;
        for row in 0..batch.num_rows() {
            let text = |column: usize| texts[column].as_string::<i32>().value(row).to_owned();
            let time = |column: usize| {
                let column = times.get(column)?.as_primitive::<Int64Type>();
                column.is_valid(row).then(|| column.value(row))
            };
            let reached = STEPS.iter().enumerate().rev().find_map(|(index, step)| Some((*step, time(index + 1)?)));
            if let (Some(from), Some((step, hour))) = (time(0), reached) {
                let tool = Tool { tenant: text(0), server: text(1), name: text(2) };
                seen.push(Seen { tool, from, step, until: hour + HOUR_US });
            }
        }
    }
    Ok(seen)
}

fn numbers(answer: &Answer) -> Result<Vec<i64>, Error> {
    let mut numbers = Vec::new();
    for batch in &answer.batches {
        let column = cast(batch.column(0), &DataType::Int64).map_err(internal)?;
        numbers.extend(column.as_primitive::<Int64Type>().iter().flatten());
    }
    Ok(numbers)
}

fn internal(error: arrow::error::ArrowError) -> Error {
    Error::Internal(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latencies_are_twice_the_p95_rounded_up_to_1_2_5() {
        let ms = MILLISECOND_NS;
        for (duration, round) in [
            (0, 1),
            (1, 1),
            (ms, 1),
            (ms + 1, 2),
            (2 * ms, 2),
            (3 * ms, 5),
            (5 * ms + 1, 10),
            (999 * ms, 1_000),
            (6_000 * ms, 10_000),
        ] {
            assert_eq!(rounded_up(duration), round * ms, "{duration}");
        }
        assert_eq!(rounded_up(i64::MAX), i64::MAX);
        let mut durations: Vec<i64> = (1..=1_000).rev().map(|n| n * ms).collect();
        // The 950th of a thousand, twice: 1,900 ms.
        assert_eq!(threshold(&mut durations), Some(2_000 * ms));
        assert_eq!(threshold(&mut [7 * ms]), Some(20 * ms));
        assert_eq!(threshold(&mut []), None);
    }

    fn tool(tenant: &str, server: &str, name: &str) -> Tool {
        Tool { tenant: tenant.to_owned(), server: server.to_owned(), name: name.to_owned() }
    }

    #[test]
    fn names_are_labels_and_no_two_tools_share_one() {
        assert_eq!(name(&tool("default", "", "search"), "latency"), "search-latency");
        let long = "x".repeat(300);
        let others = [
            tool("default", "", "Search"),
            tool("default", "", "sEarch"),
            tool("acme", "", "search"),
            tool("default", "", "-search"),
            tool("default", "", "\u{1f527}"),
            tool("default", "", &long),
            tool("default", "docs", &format!("{long}y")),
        ];
        let names: std::collections::BTreeSet<String> = others.iter().map(|tool| name(tool, "availability")).collect();
        assert_eq!(names.len(), others.len(), "{names:?}");
        let label = |name: &String| {
            name.len() <= 63
                && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
                && !name.starts_with('-')
                && !name.ends_with('-')
        };
        assert!(names.iter().all(label), "{names:?}");
        assert!(names.iter().any(|name| name.starts_with("tool-availability-")), "{names:?}");
    }

    /// Quotes, braces and line breaks of names stay text.
    #[test]
    fn the_document_is_read_without_a_fault() {
        let mut tools = BTreeMap::new();
        tools.insert(tool("default", "docs", "look, up"), 200 * MILLISECOND_NS);
        tools.insert(tool("o'brien", "", "it's \"{\n}: &x *y"), 2 * MILLISECOND_NS);
        let text = document(&tools, true);
        let (slos, faults) = crate::slo::resolve::tests::resolved(&text);
        assert_eq!(faults, [""; 0]);
        assert_eq!(slos.len(), 5);
        let latency = slos.iter().find(|slo| slo.service == "docs" && slo.name.contains("latency")).unwrap();
        assert_eq!(latency.sli.judge.text, "duration_ns <= 200000000");
        assert_eq!(
            latency.sli.total.text,
            "kind = 'tool' AND tenant = 'default' AND tool_server = 'docs' AND tool_name = 'look, up' AND outcome = 'ok'"
        );
        assert!(slos.iter().all(|slo| slo.tiers.iter().all(|tier| &*tier.severity == "ticket")));
        assert_eq!(document(&BTreeMap::new(), false), "");
    }
}
