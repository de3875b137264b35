//! Costs: `GET /api/v1/costs` and what `GET /api/v1/status` says of prices.

use serde::{Deserialize, Serialize};

use super::Scope;

/// `GET /api/v1/costs`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CostsReport {
    /// What the answer covers.
    #[serde(flatten)]
    pub scope: Scope,
    /// What the groups are of: tool, service, model, agent, team, session, user or day.
    pub by: String,
    /// All groups together, those that the row limit cut off included.
    pub total: Costs,
    /// One entry per group, the dearest first.
    pub groups: Vec<CostGroup>,
    /// What the running day and month will have cost.
    pub forecast: Forecast,
    /// Whether some names are missing, and their calls are under `__other__`: too many series came on a date of the range.
    pub folded: bool,
    /// True if the row limit cut the list.
    pub truncated: bool,
}

/// What the calls of one group have cost.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CostGroup {
    /// Tenant of the calls.
    pub tenant: String,
    /// The tool, service, model, agent, team, session, user or UTC date; null for calls that name none.
    pub name: Option<String>,
    /// MCP server or peer of a tool, if known.
    pub tool_server: Option<String>,
    /// The figures.
    #[serde(flatten)]
    pub costs: Costs,
}

/// What calls have cost. Rows that count, of tools and models; an attempt is a row.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Costs {
    /// Attempts.
    pub attempts: u64,
    /// Whether some attempts stand for several; all figures but `weighted_attempts` are of those that are known.
    pub sampled: bool,
    /// What the attempts stand for, a decimal; null if nothing is sampled.
    pub weighted_attempts: Option<String>,
    /// Attempts whose cost is known.
    pub priced: u64,
    /// Attempts whose cost is not known.
    pub unpriced: u64,
    /// priced / attempts.
    pub cost_coverage: Option<f64>,
    /// Attempts that succeeded.
    pub attempts_ok: u64,
    /// Attempts that succeeded and whose cost is known.
    pub priced_ok: u64,
    /// Known cost, in USD; null if none is known.
    pub cost_usd: Option<String>,
    /// Known cost / priced attempts.
    pub cost_per_call_usd: Option<String>,
    /// Known cost of priced attempts / priced successes; null below 80 % coverage.
    pub cost_per_success_usd: Option<String>,
    /// Known cost of failed attempts.
    pub wasted_cost_usd: Option<String>,
    /// The part of it that is of tools.
    pub tools_cost_usd: Option<String>,
    /// The part of it that is of models.
    pub models_cost_usd: Option<String>,
    /// Tokens read, as far as known.
    pub input_tokens: u64,
    /// Tokens written, as far as known.
    pub output_tokens: u64,
}

/// What the running day and month will have cost if it goes on like this.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Forecast {
    /// The running UTC day; the rest of it at the mean of the last 24 hours.
    pub day: PeriodForecast,
    /// The running UTC month; the rest of it at the mean of the last 7 days.
    pub month: PeriodForecast,
}

/// See [`Forecast`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PeriodForecast {
    /// Start of the period, inclusive.
    pub from: String,
    /// Its end, exclusive.
    pub to: String,
    /// Known cost so far, in USD; null if none is known.
    pub cost_usd: Option<String>,
    /// What it will have cost at its end; null if nothing tells.
    pub forecast_usd: Option<String>,
}

/// Tools and models whose calls have no price.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct UnpricedReport {
    /// Since when they were looked for.
    pub from: String,
    /// Tools with calls of unknown cost.
    pub tools: u64,
    /// Models with calls of unknown cost.
    pub models: u64,
    /// Calls of unknown cost.
    pub calls: u64,
    /// One entry each, most such calls first.
    pub groups: Vec<Unpriced>,
    /// True if the row limit cut the list.
    pub truncated: bool,
}

/// See [`UnpricedReport`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Unpriced {
    /// tool or model.
    pub kind: String,
    /// Tenant of the calls.
    pub tenant: String,
    /// The tool or model, if it is named.
    pub name: Option<String>,
    /// Server of the tool, if known.
    pub tool_server: Option<String>,
    /// Its calls.
    pub attempts: u64,
    /// Those of unknown cost.
    pub unpriced: u64,
}
