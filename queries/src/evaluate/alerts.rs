//! Alerts: who they are, how they stand, and their rows in the table `alerts`.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{
    Array, ArrayRef, AsArray, Date32Array, Decimal128Array, Int64Array, RecordBatch, StringArray,
    TimestampMicrosecondArray,
};
use arrow::datatypes::{Int64Type, TimestampMicrosecondType};
use arrow::error::ArrowError;
use toolgauge_analytics::alert::{Evaluation, Reason, State};
use toolgauge_analytics::budget::{Ratio, Tier, burn_rate};
use toolgauge_analytics::sli::Counts;
use toolgauge_proto::id::WalPosition;
use toolgauge_proto::table::{ColumnType, Table};
use toolgauge_proto::time::UnixMicros;
use xxhash_rust::xxh3::xxh3_64;

use crate::slo::group::{Group, NO_GROUP};
use crate::slo::set::CompiledSlo;

/// Labels and their hash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AlertId {
    pub(crate) labels: Arc<BTreeMap<String, String>>,
    /// 16 hex digits.
    pub(crate) fingerprint: Arc<str>,
    /// Canonical JSON of the group of its SLO, `{}` for none; its values are in the labels.
    pub(crate) group: Arc<str>,
}

impl AlertId {
    pub(crate) fn new(labels: BTreeMap<String, String>) -> Self {
        Self::of_group(labels, NO_GROUP.into())
    }

    pub(crate) fn of_group(labels: BTreeMap<String, String>, group: Arc<str>) -> Self {
        let text: String = labels.iter().flat_map(|(name, value)| [name, "\0", value, "\0"]).collect();
        Self { fingerprint: format!("{:016x}", xxh3_64(text.as_bytes())).into(), labels: Arc::new(labels), group }
    }

    pub(crate) fn label(&self, name: &str) -> Option<&str> {
        self.labels.get(name).map(String::as_str)
    }
}

/// An alert that is not inactive.
#[derive(Debug, Clone)]
pub(crate) struct Alert {
    pub(crate) id: AlertId,
    pub(crate) state: State,
    pub(crate) annotations: BTreeMap<String, String>,
    /// What was found out about its cause when it began to fire.
    pub(crate) findings: BTreeMap<String, String>,
    /// The number of its newest change: it is sent when that is committed.
    pub(crate) change: u64,
    /// Whether it is not sent: minutes that do not count mute it.
    pub(crate) muted: bool,
    /// When that was sent last, by [`toolgauge_proto::time::Clock::elapsed`].
    pub(crate) last_sent: Option<Duration>,
}

/// What decided about a tier.
#[derive(Debug, Clone)]
pub(super) struct Decisive {
    pub(super) tier: Tier,
    pub(super) long: Counts,
    pub(super) short: Counts,
    pub(super) slo: Arc<CompiledSlo>,
    pub(super) group: Option<Arc<Group>>,
}

/// A change of state, on its way to the table.
#[derive(Debug, Clone)]
pub(super) struct Change {
    pub(super) number: u64,
    pub(super) id: AlertId,
    pub(super) time: UnixMicros,
    pub(super) position: WalPosition,
    pub(super) from: State,
    pub(super) to: State,
    pub(super) reason: &'static str,
    pub(super) evaluation: Option<Evaluation>,
    pub(super) decisive: Option<Decisive>,
    pub(super) annotations: BTreeMap<String, String>,
}

/// A ratio in units of 10^-9, as the table has it; cut off where it does not fit.
fn billionths(ratio: Ratio) -> i128 {
    const DIGITS_18: f64 = 999_999_999_999_999_999.0;
    (ratio.to_f64() * 1e9).round().min(DIGITS_18) as i128
}

fn rate(counts: &Counts, slo: &CompiledSlo) -> Option<i128> {
    burn_rate(counts, slo.slo.target).map(billionths)
}

/// The rows of changes.
pub(super) fn rows(changes: &[Change]) -> Result<RecordBatch, ArrowError> {
    let columns = Table::Alerts.columns().iter().map(|column| {
        let text = |value: &dyn Fn(&Change) -> Option<String>| -> ArrayRef {
            Arc::new(changes.iter().map(value).collect::<StringArray>())
        };
        let label = |name: &'static str| text(&|change| change.id.label(name).map(str::to_owned));
        let time = |value: &dyn Fn(&Change) -> Option<UnixMicros>| -> ArrayRef {
            let times = changes.iter().map(|change| value(change).map(|time| time.0));
            Arc::new(times.collect::<TimestampMicrosecondArray>().with_timezone("UTC"))
        };
        let int = |value: &dyn Fn(&Change) -> Option<u64>| -> ArrayRef {
            let values = changes.iter().map(|change| value(change).and_then(|value| i64::try_from(value).ok()));
            Arc::new(values.collect::<Int64Array>())
        };
        let of = |value: fn(&Decisive) -> u64| int(&|change| change.decisive.as_ref().map(value));
        let decimal = |value: fn(&Decisive) -> Option<i128>| -> Result<ArrayRef, ArrowError> {
            let values = changes.iter().map(|change| change.decisive.as_ref().and_then(value));
            Ok(Arc::new(values.collect::<Decimal128Array>().with_precision_and_scale(18, 9)?))
        };
        Ok(match column.name {
            "date" => Arc::new(changes.iter().map(|change| Some(change.time.date32())).collect::<Date32Array>()),
            "time" => time(&|change| Some(change.time)),
            "source" => text(&|_| Some("evaluator".to_owned())),
            "alertname" => label("alertname"),
            "service" => label("service"),
            "slo" => label("slo"),
            "group" => text(&|change| Some(change.id.group.to_string())),
            "tool" => label("tool"),
            "severity" => label("severity"),
            "burn_tier" => label("burn_tier"),
            "tenant" => label("tenant"),
            "state" => text(&|change| Some(change.to.as_str().to_owned())),
            "previous_state" => text(&|change| Some(change.from.as_str().to_owned())),
            "evaluation" => text(&|change| change.evaluation.map(|evaluation| evaluation.as_str().to_owned())),
            "starts_at" => time(&|change| change.to.starts_at()),
            "ends_at" => time(&|change| change.to.ends_at()),
            "position" => int(&|change| Some(change.position.0)),
            "long_window_s" => of(|decisive| decisive.tier.long.seconds()),
            "short_window_s" => of(|decisive| decisive.tier.short.seconds()),
            "long_good" => of(|decisive| decisive.long.good),
            "long_bad" => of(|decisive| decisive.long.bad),
            "short_good" => of(|decisive| decisive.short.good),
            "short_bad" => of(|decisive| decisive.short.bad),
            "long_burn_rate" => decimal(|decisive| rate(&decisive.long, &decisive.slo))?,
            "short_burn_rate" => decimal(|decisive| rate(&decisive.short, &decisive.slo))?,
            "threshold" => decimal(|decisive| Some(billionths(decisive.tier.factor)))?,
            "reason" => text(&|change| Some(change.reason.to_owned())),
            "fingerprint" => text(&|change| Some(change.id.fingerprint.to_string())),
            "labels" => text(&|change| Some(json_of(&change.id.labels))),
            "annotations" => text(&|change| Some(json_of(&change.annotations))),
            other => return Err(ArrowError::SchemaError(format!("alerts has a column {other} that nobody fills"))),
        })
    });
    RecordBatch::try_new(Table::Alerts.schema(), columns.collect::<Result<_, ArrowError>>()?)
}

fn json_of(map: &BTreeMap<String, String>) -> String {
    serde_json::to_string(map).unwrap_or_else(|_| "{}".to_owned())
}

/// The alerts of SLOs; all others are those of rules.
const OF_SLOS: [&str; 2] = ["ErrorBudgetBurn", "TelemetryStale"];

/// How the alerts of SLOs stood, or those of rules, from the rows of the table.
#[derive(Debug, Default)]
pub(crate) struct Restored {
    of_rules: bool,
    found: HashMap<String, ((i64, i64), Option<Alert>)>,
}

impl Restored {
    /// For the alerts of rules.
    pub(crate) fn of_rules() -> Self {
        Self { of_rules: true, ..Self::default() }
    }

    /// Takes rows of `alerts` in the settled schema, in any order.
    pub(crate) fn add(&mut self, batch: &RecordBatch) -> Result<(), ArrowError> {
        let column = |name: &str, column_type: ColumnType| {
            let column = batch.column_by_name(name).filter(|column| *column.data_type() == column_type.arrow());
            column.ok_or_else(|| ArrowError::SchemaError(format!("alerts has no column {name} of {column_type:?}")))
        };
        let text = |name: &str| column(name, ColumnType::Text).map(|column| column.as_string::<i32>());
        let time = |name: &str| {
            column(name, ColumnType::Timestamp).map(|column| column.as_primitive::<TimestampMicrosecondType>())
        };
        let positions = column("position", ColumnType::Int64)?.as_primitive::<Int64Type>();
        let (times, starts, ends) = (time("time")?, time("starts_at")?, time("ends_at")?);
        let (states, sources, fingerprints) = (text("state")?, text("source")?, text("fingerprint")?);
        let (labels, annotations, groups) = (text("labels")?, text("annotations")?, text("group")?);
        let reasons = text("reason")?;
        for row in (0..batch.num_rows()).filter(|row| sources.value(*row) == "evaluator") {
            let newness = (positions.value(row), times.value(row));
            let known = self.found.entry(fingerprints.value(row).to_owned()).or_insert(((i64::MIN, i64::MIN), None));
            if known.0 > newness {
                continue;
            }
            let at = |times: &arrow::array::TimestampMicrosecondArray| {
                times.is_valid(row).then(|| UnixMicros(times.value(row)))
            };
            let state = match (states.value(row), at(starts), at(ends)) {
                ("pending", _, _) => State::Pending { since: UnixMicros(times.value(row)) },
                // Its keep-firing time began with this row, and goes on.
                ("firing", Some(starts_at), _) => {
                    let is_clear = reasons.is_valid(row) && reasons.value(row) == Reason::Clear.as_str();
                    State::Firing { starts_at, clear_since: is_clear.then(|| UnixMicros(times.value(row))) }
                }
                ("resolved", Some(starts_at), Some(ends_at)) => State::Resolved { starts_at, ends_at },
                _ => State::Inactive,
            };
            let labels: BTreeMap<String, String> = serde_json::from_str(labels.value(row)).unwrap_or_default();
            let annotations: BTreeMap<String, String> =
                serde_json::from_str(annotations.value(row)).unwrap_or_default();
            let findings =
                FINDINGS.iter().filter_map(|name| Some(((*name).to_owned(), annotations.get(*name)?.clone())));
            let alert = Alert {
                id: AlertId::of_group(labels, groups.value(row).into()),
                state,
                findings: findings.collect(),
                annotations,
                change: 0,
                muted: false,
                last_sent: None,
            };
            *known = (newness, (state != State::Inactive).then_some(alert));
        }
        Ok(())
    }

    /// Those that are not inactive.
    pub(crate) fn finish(self) -> BTreeMap<Arc<str>, Alert> {
        let alerts = self.found.into_values().filter_map(|(_, alert)| alert);
        let is_wanted =
            |alert: &Alert| alert.id.label("alertname").is_some_and(|name| OF_SLOS.contains(&name)) != self.of_rules;
        let alerts = alerts.filter(is_wanted);
        alerts.map(|alert| (Arc::clone(&alert.id.fingerprint), alert)).collect()
    }
}

/// The columns of `alerts` that say how alerts stood.
pub(crate) const RESTORED: [&str; 11] = [
    "time",
    "source",
    "group",
    "state",
    "starts_at",
    "ends_at",
    "position",
    "fingerprint",
    "labels",
    "annotations",
    "reason",
];

/// Annotations that are looked up once, when an alert begins to fire.
pub(crate) const FINDINGS: [&str; 2] = ["example_traces", "top_contributors"];
