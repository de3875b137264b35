//! SLOs, burn rates and alerts in the HTTP API. Counts are exact; what is divided is a double, and a decimal string where digits
//! matter.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// When something was evaluated, and over which rows; part of every answer about SLOs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EvaluatedAt {
    /// Time of the evaluation: windows end in its minute.
    pub time: String,
    /// Log position up to which rows are counted.
    pub position: u64,
    /// Receive time up to which every acknowledged row is counted.
    pub watermark: String,
}

/// `GET /api/v1/slos`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SlosReport {
    /// When, and over which rows.
    #[serde(flatten)]
    pub at: EvaluatedAt,
    /// By service and name.
    pub slos: Vec<SloReport>,
    /// Understood, but not evaluated.
    pub not_evaluated: Vec<SloNotEvaluated>,
    /// What is wrong with the files.
    pub faults: Vec<SloFault>,
}

/// One SLO over its own window.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SloReport {
    /// Its service.
    pub service: String,
    /// Its name.
    pub slo: String,
    /// The values of its group, by column; none if it has no groups, or their history is not counted.
    pub group: BTreeMap<String, String>,
    /// Who owns it, by the ownership file, for the service and the tool that its condition fixes; null for nobody.
    pub owner: Option<SloOwner>,
    /// For people.
    pub display_name: Option<String>,
    /// For people.
    pub description: Option<String>,
    /// Hash of what it counts, and the log position from which on it counted rows as they came: the `slo_revision` of its rows
    /// in `slo_1m`. Null until it is known.
    pub revision: Option<String>,
    /// The share of events that must be good.
    pub target: f64,
    /// Its window, such as `30d`, or its period of the calendar, such as `1M from 2026-01-01 00:00 Europe/Berlin`.
    pub window: String,
    /// Start of the window, inclusive.
    pub from: String,
    /// End of the window, exclusive: that of the running minute.
    pub to: String,
    /// When the period of the calendar ends; null for a window that rolls.
    pub period_ends: Option<String>,
    /// `logical` or `attempt`.
    pub mode: String,
    /// Good events.
    pub good: u64,
    /// Bad events.
    pub bad: u64,
    /// Rows in its scope that are not in its total.
    pub excluded: u64,
    /// Rows for which an expression was null.
    pub nulls: u64,
    /// Good and bad events.
    pub total: u64,
    /// Slices of time, if the budget is counted in those.
    pub slices: Option<SlicesReport>,
    /// Whether some events stand for several: `good`, `bad` and `total` count rows; `sli`, budget and burn rates count what they stand for, but slices of time are slices.
    pub sampled: bool,
    /// What the sample tells of the whole; null if nothing is sampled.
    pub weighted: Option<SloWeighted>,
    /// good / (good + bad), of events or of slices, as the budget is counted; null without any.
    pub sli: Option<f64>,
    /// Events whose rows are not committed yet, most of which may still change.
    pub provisional: u64,
    /// What is left.
    pub budget: BudgetReport,
    /// When more will be spent than is allowed if the last six hours repeat and old minutes roll off, at most one period ahead; null if that will not be.
    pub projected_exhaustion: Option<String>,
    /// Over the windows of its tiers, shortest first.
    pub burn_rates: Vec<BurnRate>,
    /// Its tiers, fastest first.
    pub tiers: Vec<TierReport>,
    /// The worst state of its tiers: `firing`, `pending`, `resolved`, `inactive`.
    pub state: String,
    /// What the fastest tier could tell: `ok`, `stale`, `idle`, `learning`.
    pub evaluation: String,
    /// Share of the ended minutes of the fastest tier's short window in which exports were accepted, 0 to 1.
    pub coverage: f64,
    /// A new or changed condition whose history is being counted; null without. A changed one answers once it is, until then the one before
    /// it does.
    pub backfill: Option<BackfillReport>,
}

/// A history that is being counted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BackfillReport {
    /// Hash of what it counts: the first part of its `revision` once it answers.
    pub revision: String,
    /// The share of the rows that are read, 0 to 1.
    pub progress: f64,
}

/// Who owns what an SLO is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SloOwner {
    /// The team.
    pub team: String,
    /// `critical` or `optional`.
    pub criticality: Option<String>,
    /// Where it is written what to do.
    pub runbook: Option<String>,
}

/// What the events of a sample stand for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SloWeighted {
    /// Good events, a decimal.
    pub good: String,
    /// Bad events, a decimal.
    pub bad: String,
    /// Between these the SLI lies: Wilson's interval of 95 % for a sample of `effective_events`.
    pub sli_interval: Option<[f64; 2]>,
    /// As many unweighted events would tell as much, if the good ones have one weight, and the bad ones another: at most so many.
    pub effective_events: f64,
}

/// Slices of time that have ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlicesReport {
    /// Slices in which enough events were good.
    pub good: u64,
    /// Slices in which too few were.
    pub bad: u64,
    /// Slices without events: neither.
    pub empty: u64,
}

/// An error budget, of events or of slices; signed, never clamped.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BudgetReport {
    /// (1 - target) x total, as a decimal.
    pub allowed: String,
    /// Bad events or slices; of sampled events what they stand for, rounded.
    pub spent: u64,
    /// Allowed less spent, as a decimal.
    pub remaining: String,
    /// remaining / allowed; null without events.
    pub remaining_ratio: Option<f64>,
    /// What the whole period of the calendar will allow if it goes on as it was, an estimate; null for a window that rolls.
    pub allowed_in_period: Option<f64>,
}

/// How fast a budget burns over one window.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BurnRate {
    /// The window, such as `5m`: so many whole minutes and the running one.
    pub window: String,
    /// Good events.
    pub good: u64,
    /// Bad events.
    pub bad: u64,
    /// Good and bad events.
    pub total: u64,
    /// (bad / total) / (1 - target); null without events.
    pub rate: Option<f64>,
    /// Whether some events stand for several: the rate is of what they stand for.
    pub sampled: bool,
}

/// One tier of burn-rate alerts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TierReport {
    /// Its name, the label `burn_tier`.
    pub burn_tier: String,
    /// `page` or `ticket`.
    pub severity: String,
    /// The long window.
    pub long_window: String,
    /// The short window.
    pub short_window: String,
    /// The burn rate of both from which it fires, or the part of the period's budget, 0 to 1.
    pub threshold: f64,
    /// Which of them: `burn_rate`, `consumption`.
    pub measure: String,
    /// What holds it back although both windows burn: `exclusion`, `min_events`, `evidence`; null if nothing does.
    pub held_back: Option<String>,
    /// `inactive`, `pending`, `firing`, `resolved`.
    pub state: String,
    /// `ok`, `stale`, `idle`, `learning`.
    pub evaluation: String,
}

/// An SLO that is not evaluated.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SloNotEvaluated {
    /// Its service.
    pub service: String,
    /// Its name.
    pub slo: String,
    /// Its file.
    pub file: String,
    /// Why, and what to write instead.
    pub reason: String,
}

/// What is wrong with a file of SLOs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SloFault {
    /// `error` or `warning`.
    pub severity: String,
    /// The file.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// Column, from 1.
    pub column: usize,
    /// Path of the key.
    pub key: String,
    /// What is wrong, and what to write instead.
    pub message: String,
}

/// `GET /api/v1/slos/{service}/{slo}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SloDetail {
    /// When, and over which rows.
    #[serde(flatten)]
    pub at: EvaluatedAt,
    /// The SLO over its own window.
    pub slo: SloReport,
    /// Its conditions, and SQL that counts the same.
    pub definition: SloDefinition,
    /// Its period so far by the day, in the zone of its calendar (a rolling window's: UTC).
    pub days: Vec<SloDay>,
    /// Over the range that was asked for.
    pub series: SloSeries,
}

/// A day of an SLO's period: its own part of the budget, in what the budget is counted in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SloDay {
    /// Its first instant, or that of the period.
    pub from: String,
    /// The instant after its last, or after the last of the period so far.
    pub to: String,
    /// Good events, or slices that begin in it.
    pub good: u64,
    /// Bad ones.
    pub bad: u64,
    /// Rows in scope that are not in the total or do not count; of slices those without events.
    pub excluded: u64,
    /// Good and bad ones.
    pub total: u64,
    /// good / total; null without any.
    pub sli: Option<f64>,
    /// (1 - target) x total, as a decimal.
    pub allowed: String,
    /// Bad ones, as a decimal: sampled events spend what they stand for.
    pub spent: String,
    /// Allowed less spent, as a decimal.
    pub remaining: String,
}

/// What an SLO counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SloDefinition {
    /// The condition of its events.
    pub total: String,
    /// The condition of the good ones, if the document has that.
    pub good: Option<String>,
    /// The condition of the bad ones, if the document has that.
    pub bad: Option<String>,
    /// Whose rows count, if not only the counted ones: `agent`, `client`, `server`.
    pub layer: Option<String>,
    /// The file it comes from.
    pub file: String,
    /// A statement that counts the good and bad events of its window from `calls`.
    pub sql: String,
}

/// `GET /api/v1/slos/{service}/{slo}/proof`: the numbers of the last evaluation, and what SQL counts now over the rows up to the same position of
/// the log. Rows that are not committed may have changed since; otherwise a difference is a fault of the program.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SloProof {
    /// When, and over which rows.
    #[serde(flatten)]
    pub at: EvaluatedAt,
    /// The SLO's service.
    pub service: String,
    /// The SLO's name.
    pub slo: String,
    /// The values of its group, by column.
    pub group: BTreeMap<String, String>,
    /// The share of events or slices that must be good, with all its digits.
    pub target: String,
    /// What the budget is counted in: `events`, `slices`.
    pub counted_in: String,
    /// Events whose rows were not committed, most of which may still change.
    pub provisional: u64,
    /// Whether all figures are those of the recount.
    pub matches: bool,
    /// How the budget is worked out.
    pub budget: String,
    /// Over each window, shortest first, and over the period.
    pub figures: Vec<ProofFigure>,
}

/// The counts of one window, and their proof.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProofFigure {
    /// The window, such as `5m`, or `period`.
    pub window: String,
    /// Start, inclusive; of slices, the first in which one begins.
    pub from: String,
    /// End, exclusive.
    pub to: String,
    /// Good events or slices, as evaluated.
    pub good: u64,
    /// Bad ones, as evaluated.
    pub bad: u64,
    /// How the burn rate is worked out; null without events.
    pub burn_rate: Option<String>,
    /// The statement that recounts them.
    pub sql: String,
    /// Good ones, as recounted now.
    pub recounted_good: u64,
    /// Bad ones, as recounted now.
    pub recounted_bad: u64,
    /// Whether they are equal.
    pub matches: bool,
}

/// Counts over time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SloSeries {
    /// Start, inclusive.
    pub from: String,
    /// End, exclusive.
    pub to: String,
    /// Length of a step, in seconds.
    pub step_s: u64,
    /// Good events of the whole range.
    pub good: u64,
    /// Bad events of the whole range.
    pub bad: u64,
    /// Steps with events, in order.
    pub points: Vec<SloPoint>,
}

/// One step of a series.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SloPoint {
    /// Start of the step.
    pub time: String,
    /// Good events.
    pub good: u64,
    /// Bad events.
    pub bad: u64,
    /// Rows in scope that are not in the total.
    pub excluded: u64,
    /// good / (good + bad); null without either.
    pub sli: Option<f64>,
}

/// `GET /api/v1/burn-rates`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BurnRates {
    /// When, and over which rows.
    #[serde(flatten)]
    pub at: EvaluatedAt,
    /// Every SLO and window.
    pub burn_rates: Vec<SloBurnRate>,
}

/// The burn rate of one SLO over one window.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SloBurnRate {
    /// Its service.
    pub service: String,
    /// Its name.
    pub slo: String,
    /// What it is grouped by.
    pub group: BTreeMap<String, String>,
    /// The counts and the rate.
    #[serde(flatten)]
    pub burn_rate: BurnRate,
}

/// `GET /api/v1/alerts`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AlertsReport {
    /// When, and over which rows.
    #[serde(flatten)]
    pub at: EvaluatedAt,
    /// The alerts that are pending, firing or resolved a short while ago.
    pub alerts: Vec<AlertReport>,
    /// Their changes of state between `from` and `to`, if these were given; newest first.
    pub history: Option<Vec<AlertChange>>,
    /// True if the row limit cut the history.
    pub truncated: bool,
}

/// One alert.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlertReport {
    /// Hash of its labels.
    pub fingerprint: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its annotations.
    pub annotations: BTreeMap<String, String>,
    /// `pending`, `firing`, `resolved`.
    pub state: String,
    /// When it began to fire.
    pub starts_at: Option<String>,
    /// When it was resolved.
    pub ends_at: Option<String>,
}

/// One change of an alert's state: a row of the table `alerts`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlertChange {
    /// When.
    pub time: String,
    /// Log position up to which rows were counted.
    pub position: u64,
    /// Hash of its labels.
    pub fingerprint: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Before.
    pub previous_state: Option<String>,
    /// After.
    pub state: String,
    /// Why.
    pub reason: Option<String>,
}
