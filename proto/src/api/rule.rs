//! Rules: thresholds, budgets of money and heartbeats.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::slo::EvaluatedAt;

/// `GET /api/v1/rules`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RulesReport {
    /// When, and over which rows.
    #[serde(flatten)]
    pub at: EvaluatedAt,
    /// Thresholds, by name.
    pub thresholds: Vec<ThresholdReport>,
    /// Budgets of money, by name.
    pub cost_budgets: Vec<CostBudgetReport>,
    /// Services and tools that are listened to, those that are silent for longest first.
    pub heartbeats: Vec<HeartbeatReport>,
    /// Whether there are more of them.
    pub truncated: bool,
}

/// A threshold.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ThresholdReport {
    /// Its name.
    pub name: String,
    /// For people.
    pub description: Option<String>,
    /// What it is on: `error_rate` and others.
    pub metric: String,
    /// The quantile, if it is one.
    pub quantile: Option<String>,
    /// The threshold as people read it.
    pub threshold: String,
    /// Its window.
    pub window: String,
    /// `page` or `ticket`.
    pub severity: String,
    /// Its file.
    pub file: String,
    /// Its groups; one without values if it is not grouped.
    pub groups: Vec<ThresholdGroup>,
}

/// How a threshold stands with one of its groups.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ThresholdGroup {
    /// Values by column.
    pub group: BTreeMap<String, Option<String>>,
    /// Calls, or sessions, in the window.
    pub events: u64,
    /// Of these, those that are looked for: failures, retries, slow ones.
    pub hits: Option<u64>,
    /// Known cost in dollars, an exact decimal.
    pub cost_usd: Option<String>,
    /// The figure; durations in seconds, money in dollars. None of a quantile of latencies, which is decided by `hits`.
    pub value: Option<f64>,
    /// Whether it reaches the threshold.
    pub reached: bool,
    /// `ok`, `stale`, `idle`, `learning`.
    pub evaluation: String,
    /// `inactive`, `pending`, `firing`, `resolved`.
    pub state: String,
}

/// A budget of money.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CostBudgetReport {
    /// Its name.
    pub name: String,
    /// For people.
    pub description: Option<String>,
    /// Dollars for each period, an exact decimal.
    pub amount_usd: String,
    /// `day`, `week`, `month`.
    pub period: String,
    /// IANA time zone.
    pub zone: String,
    /// Its file.
    pub file: String,
    /// Its groups; one without values if it is not grouped.
    pub groups: Vec<CostBudgetGroup>,
}

/// How a budget of money stands with one of its groups. Money is in dollars, as exact decimals.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CostBudgetGroup {
    /// Values by column.
    pub group: BTreeMap<String, Option<String>>,
    /// Start of the running period.
    pub from: String,
    /// Its end.
    pub to: String,
    /// Calls since its start.
    pub calls: u64,
    /// Of these, those whose cost is known.
    pub priced_calls: u64,
    /// Spent since the start.
    pub spent_usd: String,
    /// What is left; negative if more was spent.
    pub remaining_usd: String,
    /// What will be spent at the end if the last hours go on.
    pub forecast_usd: String,
    /// Forecast less amount.
    pub overrun_usd: String,
    /// The hours that are taken to go on.
    pub forecast_window: String,
    /// How many times as fast as allowed they spend.
    pub burn_rate: Option<f64>,
    /// When the amount is used up.
    pub used_up_at: Option<String>,
    /// The alerts.
    pub tiers: Vec<CostTierReport>,
}

/// An alert of a budget of money.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CostTierReport {
    /// `exceeded`, `fast`, `forecast`.
    pub burn_tier: String,
    /// Whether it burns.
    pub burning: bool,
    /// `ok`, `stale`, `learning`.
    pub evaluation: String,
    /// `inactive`, `pending`, `firing`, `resolved`.
    pub state: String,
}

/// A service, or a tool of it, that is listened to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HeartbeatReport {
    /// Its tenant.
    pub tenant: String,
    /// The service.
    pub service: String,
    /// The tool's server.
    pub server: Option<String>,
    /// The tool; none for the service itself.
    pub tool: Option<String>,
    /// The rule that sets its limit; none if its own gaps do.
    pub rule: Option<String>,
    /// The minute in which it was last heard.
    pub last_seen: String,
    /// Minutes of silence while somebody listened.
    pub silence_minutes: u64,
    /// More than so many are too many; none while it is learning.
    pub limit_minutes: Option<u64>,
    /// Whether it is silent for longer.
    pub silent: bool,
}
