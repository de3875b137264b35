//! The JSON of the HTTP API. Times are RFC 3339 strings in UTC; money is a decimal string, so that no digit is lost.

pub mod costs;
pub mod rule;
pub mod sessions;
pub mod slo;
pub mod why;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What an answer covers; part of every answer over rows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Scope {
    /// Start of the time range, inclusive.
    pub from: String,
    /// End of the time range, exclusive.
    pub to: String,
    /// Receive time up to which every acknowledged row is counted.
    pub watermark: String,
    /// Log position up to which rows are counted.
    pub position: u64,
    /// Share of the minutes of the range in which exports were accepted, 0 to 1.
    pub coverage: f64,
    /// Rows of the range that later arrivals may still change.
    pub provisional: u64,
}

/// `GET /api/v1/tools`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ToolsReport {
    /// What the answer covers.
    #[serde(flatten)]
    pub scope: Scope,
    /// One entry per tool, most calls first.
    pub tools: Vec<ToolReport>,
    /// Whether some names are missing, and their calls are under `__other__`: too many series came on a date of the range.
    pub folded: bool,
    /// True if the row limit cut the list.
    pub truncated: bool,
}

/// One tool's figures over the range.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ToolReport {
    /// Tenant of the calls.
    pub tenant: String,
    /// MCP server or peer, if known.
    pub tool_server: Option<String>,
    /// The tool.
    pub tool_name: Option<String>,
    /// Attempts.
    pub attempts: u64,
    /// Attempts that succeeded.
    pub attempts_ok: u64,
    /// Logical calls: an attempt and its retries are one.
    pub calls: u64,
    /// Logical calls whose last attempt succeeded.
    pub calls_ok: u64,
    /// attempts_ok / attempts.
    pub success_ratio_attempt: Option<f64>,
    /// calls_ok / calls.
    pub success_ratio_logical: Option<f64>,
    /// Attempts beyond the first, per attempt.
    pub retry_ratio: Option<f64>,
    /// What retries achieve and cost.
    pub retries: Retries,
    /// Whether some attempts stand for several: their spans were sampled, and say so.
    pub sampled: bool,
    /// What the sample tells of the whole; null if nothing is sampled.
    pub weighted: Option<Weighted>,
    /// Signs that some of its callers' telemetry comes from a sampler that keeps errors and does not say so; null without.
    pub suspected_tail_sampling: Option<TailSampling>,
    /// Latency of attempts, nearest rank; upper bound of the HDR bucket (3 significant digits).
    pub latency: Latency,
    /// Known cost of all attempts, in USD.
    pub cost_usd: Option<String>,
    /// Attempts whose cost is known, per attempt.
    pub cost_coverage: Option<f64>,
    /// Known cost / priced attempts.
    pub cost_per_call_usd: Option<String>,
    /// Known cost of priced attempts / priced successes; null below 80 % coverage.
    pub cost_per_success_usd: Option<String>,
    /// Known cost of failed attempts.
    pub wasted_cost_usd: Option<String>,
    /// Failed attempts by error class.
    pub errors: BTreeMap<String, u64>,
    /// End of the newest attempt.
    pub last_seen: String,
    /// Who owns it, for the services that call it; without an ownership file nobody.
    pub owners: Vec<ToolOwner>,
}

/// Who owns a tool, by the ownership file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolOwner {
    /// The team.
    pub team: String,
    /// `critical` or `optional`.
    pub criticality: Option<String>,
    /// Where it is written what to do when the tool fails.
    pub runbook: Option<String>,
    /// The services whose calls of the tool are meant; calls of a service that does not say its name are meant by none.
    pub services: Vec<String>,
}

/// What retries achieve and cost. A logical call belongs to the time, and the tool, of its last attempt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Retries {
    /// Attempts beyond the first of their logical call.
    pub attempts: u64,
    /// Logical calls whose first attempt failed.
    pub failed_first: u64,
    /// Of these, those whose last attempt succeeded.
    pub recovered: u64,
    /// recovered / failed_first.
    pub recovery_ratio: Option<f64>,
    /// Attempts of the logical calls that succeeded, per such call.
    pub attempts_per_success: Option<f64>,
    /// Time lost: from the start of the first attempt of a logical call to the start of its last one, summed, milliseconds.
    pub lost_ms: f64,
    /// Pauses between a failed attempt's end and its retry's start; null without retries of known attempts.
    pub delay: Option<RetryDelay>,
    /// How frequent retries are now, measured by what is usual; null if fewer than 100 attempts tell what is usual.
    pub storm: Option<RetryStorm>,
}

/// Quantiles of the pauses before retries; nearest rank, upper bound of the HDR bucket.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct RetryDelay {
    /// Median, milliseconds.
    pub p50_ms: f64,
    /// 95th percentile, milliseconds.
    pub p95_ms: f64,
}

/// The end of a range against the seven days before it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RetryStorm {
    /// Whether it is a storm: at least 10 retries, twice the usual ratio, and 4 standard deviations above it.
    pub now: bool,
    /// From here to the end of the range: one to two hours, from a full hour on; all of a range that is shorter.
    pub since: String,
    /// Attempts in that time.
    pub attempts: u64,
    /// Of these, retries.
    pub retries: u64,
    /// retries / attempts of the seven days before the full hour that is one to two hours before the end of the range.
    pub usual_ratio: f64,
}

/// Sums of weights: what a sample tells of the whole. Intervals are Wilson's, of 95 %, for the effective size of the sample.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Weighted {
    /// Attempts that are known, per attempt that they stand for.
    pub share: f64,
    /// Attempts, a decimal.
    pub attempts: String,
    /// Attempts that succeeded, a decimal.
    pub attempts_ok: String,
    /// Logical calls, a decimal.
    pub calls: String,
    /// Logical calls whose last attempt succeeded, a decimal.
    pub calls_ok: String,
    /// Attempts beyond the first, a decimal.
    pub retries: String,
    /// attempts_ok / attempts.
    pub success_ratio_attempt: Option<f64>,
    /// Between these it lies, for all attempts.
    pub success_interval_attempt: Option<[f64; 2]>,
    /// calls_ok / calls.
    pub success_ratio_logical: Option<f64>,
    /// Between these it lies, for all logical calls.
    pub success_interval_logical: Option<[f64; 2]>,
    /// retries / attempts.
    pub retry_ratio: Option<f64>,
    /// As many unweighted attempts would tell as much: (sum of weights)^2 / sum of their squares.
    pub effective_attempts: f64,
}

/// By what it shows that services export the traces with an error, few of the others, and no weights: servers of a tool tell of calls
/// whose callers are not heard of, unless the call failed. What these services tell of looks worse than it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TailSampling {
    /// The services that call this tool and are concerned.
    pub services: Vec<String>,
    /// The tool by whose server it shows, in the last hour of the range.
    pub shown_by: Option<String>,
    /// Failed calls that the server tells of.
    pub failed: u64,
    /// Of these, those that their callers tell of too.
    pub failed_with_caller: u64,
    /// Calls that succeeded that the server tells of.
    pub succeeded: u64,
    /// Of these, those that their callers tell of too.
    pub succeeded_with_caller: u64,
}

/// Quantiles of latency.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// Median, milliseconds.
    pub p50_ms: f64,
    /// 90th percentile, milliseconds.
    pub p90_ms: f64,
    /// 95th percentile, milliseconds.
    pub p95_ms: f64,
    /// 99th percentile, milliseconds.
    pub p99_ms: f64,
    /// True if there are fewer than 10 / (1 - 0.99) attempts, so that p99 says little.
    pub p99_low_evidence: bool,
}

/// `GET /api/v1/latency`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LatencyReport {
    /// What the answer covers.
    #[serde(flatten)]
    pub scope: Scope,
    /// Attempts of tool calls.
    pub attempts: u64,
    /// Whether some attempts stand for several; latencies are of those that are known.
    pub sampled: bool,
    /// Over the whole range; none without attempts.
    pub latency: Option<Latency>,
    /// Attempts by latency, in its order; intervals without attempts are left out.
    pub histogram: Vec<LatencyInterval>,
    /// Seconds from the start of an entry of `series` to that of the next.
    pub step_seconds: u64,
    /// Quantiles over time; steps without attempts are left out.
    pub series: Vec<LatencyStep>,
    /// Whether some names are missing, and their calls are under `__other__`: too many series came on a date of the range.
    pub folded: bool,
    /// True if the row limit cut the series.
    pub truncated: bool,
}

/// The attempts whose latency is above one limit and not above another. Four intervals double it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct LatencyInterval {
    /// Lower limit, milliseconds, exclusive.
    pub above_ms: f64,
    /// Upper limit, milliseconds, inclusive.
    pub up_to_ms: f64,
    /// How many.
    pub attempts: u64,
}

/// The attempts that ended within one step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LatencyStep {
    /// Start of the step; the first and the last one may be cut by the range.
    pub start: String,
    /// How many.
    pub attempts: u64,
    /// Their quantiles.
    pub latency: Latency,
}

/// `POST /api/v1/sql`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SqlRequest {
    /// One read-only statement.
    pub query: String,
}

/// Answer of `POST /api/v1/sql`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SqlResponse {
    /// Names and types, in order.
    pub columns: Vec<SqlColumn>,
    /// Rows of values. 64-bit integers are numbers, decimals strings, bytes hex, timestamps RFC 3339.
    pub rows: Vec<Vec<serde_json::Value>>,
    /// True if the row limit cut the result.
    pub truncated: bool,
}

/// One column of a SQL answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SqlColumn {
    /// Its name.
    pub name: String,
    /// Its Arrow type.
    #[serde(rename = "type")]
    pub data_type: String,
}

/// RFC 9457 problem document; every error of the HTTP API is one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// `about:blank`, or a name for the kind of fault.
    #[serde(rename = "type")]
    pub problem_type: String,
    /// The HTTP status in words.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What is wrong, where, and what to do.
    pub detail: String,
}

/// `GET /api/v1/status`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Version of the server.
    pub version: String,
    /// Seconds since the start.
    pub uptime_seconds: u64,
    /// Resident memory.
    pub memory_bytes: u64,
    /// Taking in.
    pub ingest: IngestStatus,
    /// Calls of the last 24 hours without a cost, counted at most a minute ago; null if that could not be found out.
    pub unpriced: Option<UnpricedCounts>,
}

/// How many calls have no known cost.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct UnpricedCounts {
    /// Since when they were looked for.
    pub from: String,
    /// Tools with such calls.
    pub tools: u64,
    /// Models with such calls.
    pub models: u64,
    /// Such calls.
    pub calls: u64,
}

/// How taking in goes.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct IngestStatus {
    /// False until the log has been replayed, and once the log is closed for good.
    pub ready: bool,
    /// Why it is not ready.
    pub not_ready_reason: Option<String>,
    /// Identity of this log, the `appId` of its transactions.
    pub writer_id: String,
    /// Newest position that is synced.
    pub wal_synced: u64,
    /// Newest position that readers see.
    pub wal_visible: u64,
    /// Newest position whose rows are decided.
    pub wal_settled: u64,
    /// Newest position whose rows are committed.
    pub wal_committed: u64,
    /// Bytes of the retained log.
    pub wal_bytes: u64,
    /// Rows that are not committed.
    pub live_rows: u64,
    /// Their memory, in bytes.
    pub live_bytes: u64,
    /// Version of each Delta table.
    pub table_versions: BTreeMap<String, u64>,
    /// Files of each Delta table.
    pub table_files: BTreeMap<String, u64>,
    /// Everything that is counted, by its name in `/metrics`.
    pub counters: BTreeMap<String, u64>,
    /// Series without names of their own in `calls_1m`, because too many came that day: the first hundred since the start. Their
    /// calls stand there under `__other__`.
    pub folded_series: Vec<FoldedSeries>,
    /// UTC dates on which there are such series, the newest first: those since the start, and of the dates that were looked at since.
    pub folded_dates: Vec<String>,
}

/// Whose and what calls they are, of which the sums have no name of their own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoldedSeries {
    /// The UTC date of the calls.
    pub date: String,
    /// Tenant.
    pub tenant: String,
    /// As in `calls`.
    pub service_name: Option<String>,
    /// As in `calls`.
    pub environment: Option<String>,
    /// As in `calls`.
    pub tool_server: Option<String>,
    /// As in `calls`.
    pub tool_name: Option<String>,
    /// As in `calls`.
    pub agent_name: Option<String>,
    /// As in `calls`.
    pub model: Option<String>,
}
