//! The alerts of rules: how they stand, what has changed, and what is to be sent.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{
    ArrayRef, Date32Array, Decimal128Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use arrow::error::ArrowError;
use toolgauge_analytics::alert::{Evaluation, Observation, Patience, Reason, State, step};
use toolgauge_analytics::ownership::Ownership;
use toolgauge_proto::id::WalPosition;
use toolgauge_proto::table::Table;
use toolgauge_proto::time::UnixMicros;

use crate::evaluate::AlertStatus;
use crate::evaluate::alerts::{Alert, AlertId};
use crate::evaluate::time::Sending;
use crate::json::rfc3339;
use crate::notify::PostableAlert;

/// Most alerts at a time; of more, those that would begin are left out, which is counted.
pub const ALERTS_MAX: usize = 10_000;

/// The annotation with a quantile that was looked up when its alert began.
pub(super) const MEASURED: &str = "measured";

/// Texts by name.
pub(super) type Texts = BTreeMap<String, String>;

/// The numbers of a change that have columns of their own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Numbers {
    /// Length of the window.
    pub(super) window_s: Option<u64>,
    /// Events in it that are not looked for.
    pub(super) good: Option<u64>,
    /// Events in it that are.
    pub(super) bad: Option<u64>,
    /// The threshold, in units of 10^-9.
    pub(super) threshold: Option<i128>,
}

/// What is looked up when an alert begins to fire: name of the annotation, statement.
pub(super) type Questions = Vec<(&'static str, String)>;

/// What an evaluation has to say of an alert.
#[derive(Debug, Default)]
pub(super) struct Said {
    pub(super) annotations: Texts,
    pub(super) group: String,
    pub(super) numbers: Numbers,
    pub(super) questions: Questions,
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
    pub(super) group: String,
    pub(super) numbers: Numbers,
    pub(super) annotations: Texts,
    pub(super) questions: Questions,
    /// What was found out.
    pub(super) findings: Texts,
}

/// An alert that is not inactive.
#[derive(Debug, Clone)]
struct Entry {
    id: AlertId,
    state: State,
    annotations: Texts,
    findings: Texts,
    /// The number of its newest change: it is sent when that is committed.
    change: u64,
    last_sent: Option<Duration>,
}

/// All alerts of rules.
#[derive(Debug, Default)]
pub(super) struct Book {
    alerts: BTreeMap<Arc<str>, Entry>,
    pub(super) changes: Vec<Change>,
    /// The number of the last change.
    last_change: u64,
    /// Changes up to here are committed.
    committed: u64,
    seen: BTreeSet<Arc<str>>,
    /// Alerts that would have begun when there were too many.
    pub(super) overflow: u64,
    /// Whose the tools are.
    pub(super) ownership: Arc<Ownership>,
}

/// Adds who owns the tool or service of an alert, by its labels and its group.
fn owned(ownership: &Ownership, id: &AlertId, mut said: Said) -> Said {
    let group: BTreeMap<String, Option<String>> = serde_json::from_str(&said.group).unwrap_or_default();
    let named = |column: &str| group.get(column).and_then(Option::as_deref);
    let label = |name: &str| id.labels.get(name).map(String::as_str);
    let service = named("service_name").or_else(|| label("service"));
    let server = named("tool_server").or_else(|| label("server"));
    let tool = named("tool_name").or_else(|| label("tool"));
    if let Some(owner) = ownership.owner(service, server, tool) {
        let texts = [
            ("team", Some(owner.team.clone())),
            ("criticality", owner.criticality.map(|it| it.as_str().to_owned())),
            ("runbook_url", owner.runbook.clone()),
        ];
        said.annotations.extend(texts.into_iter().filter_map(|(name, text)| Some((name.to_owned(), text?))));
    }
    said
}

/// When an evaluation is, and over which rows.
#[derive(Debug, Clone, Copy)]
pub(super) struct When {
    pub(super) time: UnixMicros,
    pub(super) position: WalPosition,
}

impl Book {
    /// Takes up the alerts as they were written down.
    pub(super) fn restore(&mut self, alerts: BTreeMap<Arc<str>, Alert>) {
        for (fingerprint, alert) in alerts {
            let (id, state) = (alert.id, alert.state);
            let measured = alert.annotations.get(MEASURED).map(|text| (MEASURED.to_owned(), text.clone()));
            let entry = Entry {
                id,
                state,
                annotations: alert.annotations,
                findings: alert.findings.into_iter().chain(measured).collect(),
                change: 0,
                last_sent: None,
            };
            self.alerts.insert(fingerprint, entry);
        }
    }

    /// How an alert stands.
    pub(super) fn state(&self, id: &AlertId) -> State {
        self.alerts.get(&id.fingerprint).map_or(State::Inactive, |entry| entry.state)
    }

    /// Whether what is said of an alert is of interest, given whether it burns.
    pub(super) fn is_told(&self, id: &AlertId, burns: bool) -> bool {
        burns || matches!(self.state(id), State::Firing { .. } | State::Pending { .. })
    }

    /// Takes an alert to its next state. `said` is asked for only if somebody is told.
    pub(super) fn observe(
        &mut self,
        when: When,
        id: &AlertId,
        observation: &Observation,
        patience: Patience,
        said: impl FnOnce() -> Said,
    ) -> State {
        self.seen.insert(Arc::clone(&id.fingerprint));
        let before = self.state(id);
        let (state, transition) = step(before, observation, patience, when.time);
        let is_told = self.is_told(id, observation.burns);
        let ownership = Arc::clone(&self.ownership);
        let said = || owned(&ownership, id, said());
        if let Some(transition) = transition {
            let said = if is_told { said() } else { Said::default() };
            let reason = transition.reason.as_str();
            self.change(when, id, (transition.from, transition.to), reason, Some(observation.evaluation), said);
            if transition.reason == Reason::Expired {
                self.alerts.remove(&id.fingerprint);
            }
        } else if let Some(entry) = self.alerts.get_mut(&id.fingerprint) {
            entry.state = state;
            if is_told && observation.evaluation == Evaluation::Ok {
                entry.annotations = said().annotations;
            }
        }
        self.state(id)
    }

    fn change(
        &mut self,
        when: When,
        id: &AlertId,
        (from, to): (State, State),
        reason: &'static str,
        evaluation: Option<Evaluation>,
        said: Said,
    ) {
        if !self.alerts.contains_key(&id.fingerprint) && self.alerts.len() >= ALERTS_MAX {
            self.overflow += 1;
            return;
        }
        self.last_change += 1;
        let number = self.last_change;
        let entry = self.alerts.entry(Arc::clone(&id.fingerprint)).or_insert_with(|| Entry {
            id: id.clone(),
            state: from,
            annotations: Texts::new(),
            findings: Texts::new(),
            change: number,
            last_sent: None,
        });
        let begins = to.is_firing() && !from.is_firing();
        if begins {
            entry.findings.clear();
        }
        if !said.annotations.is_empty() {
            entry.annotations = said.annotations;
        }
        // What has changed is sent as soon as it is committed.
        (entry.state, entry.change, entry.last_sent) = (to, number, None);
        let change = Change {
            number,
            id: id.clone(),
            time: when.time,
            position: when.position,
            from,
            to,
            reason,
            evaluation,
            group: said.group,
            numbers: said.numbers,
            annotations: entry.annotations.clone(),
            questions: if begins { said.questions } else { Questions::new() },
            findings: entry.findings.clone(),
        };
        self.changes.push(change);
        if to == State::Inactive {
            self.alerts.remove(&id.fingerprint);
        }
    }

    /// The alerts that were not observed since the last call.
    pub(super) fn unseen(&mut self) -> Vec<AlertId> {
        let seen = std::mem::take(&mut self.seen);
        let unseen = self.alerts.values().filter(|entry| !seen.contains(&entry.id.fingerprint));
        unseen.map(|entry| entry.id.clone()).collect()
    }

    /// Ends an alert that nobody observes any more.
    pub(super) fn end(&mut self, when: When, id: &AlertId, reason: &'static str) {
        let state = self.state(id);
        let said = Said { group: "{}".to_owned(), ..Said::default() };
        match state {
            State::Firing { starts_at, .. } => {
                let to = State::Resolved { starts_at, ends_at: when.time.max(starts_at) };
                self.change(when, id, (state, to), reason, None, said);
            }
            State::Pending { .. } => self.change(when, id, (state, State::Inactive), reason, None, said),
            State::Resolved { .. } | State::Inactive => {
                let nothing = Observation { evaluation: Evaluation::Ok, burns: false, long_total: 0 };
                self.observe(when, id, &nothing, Patience::default(), || said);
            }
        }
    }

    /// Changes were written down.
    pub(super) fn committed(&mut self, changes: Vec<Change>) {
        for change in changes {
            self.committed = self.committed.max(change.number);
            if let Some(entry) =
                self.alerts.get_mut(&change.id.fingerprint).filter(|entry| entry.change == change.number)
            {
                entry.findings.extend(change.findings);
            }
        }
    }

    /// What is to be sent: what has changed and is committed, what fires on, and what was resolved a short while ago.
    pub(super) fn due(&mut self, sending: Sending, link: impl Fn(&AlertId) -> Option<String>) -> Vec<PostableAlert> {
        let mut due = Vec::new();
        for entry in self.alerts.values_mut().filter(|entry| entry.change <= self.committed) {
            let Some((starts_at, ends_at)) = sending.due(entry.state, &mut entry.last_sent) else { continue };
            due.push(PostableAlert {
                labels: Arc::clone(&entry.id.labels),
                annotations: entry.texts(),
                starts_at: rfc3339(starts_at),
                ends_at: rfc3339(ends_at),
                generator_url: link(&entry.id),
                fingerprint: Arc::clone(&entry.id.fingerprint),
            });
        }
        due
    }

    /// The alerts that are not inactive.
    pub(super) fn status(&self) -> Vec<AlertStatus> {
        let status = |entry: &Entry| AlertStatus {
            fingerprint: Arc::clone(&entry.id.fingerprint),
            labels: Arc::clone(&entry.id.labels),
            annotations: entry.texts(),
            state: entry.state,
        };
        self.alerts.values().map(status).collect()
    }
}

impl Entry {
    fn texts(&self) -> Texts {
        self.annotations.iter().chain(&self.findings).map(|(name, text)| (name.clone(), text.clone())).collect()
    }
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
        let number = |value: &dyn Fn(&Change) -> Option<u64>| -> ArrayRef {
            let values = changes.iter().map(|change| value(change).and_then(|value| i64::try_from(value).ok()));
            Arc::new(values.collect::<Int64Array>())
        };
        let nothing = |values: usize| vec![None::<i64>; values];
        Ok(match column.name {
            "date" => Arc::new(changes.iter().map(|change| Some(change.time.date32())).collect::<Date32Array>()),
            "time" => time(&|change| Some(change.time)),
            "source" => text(&|_| Some("evaluator".to_owned())),
            "group" => {
                text(&|change| Some(if change.group.is_empty() { "{}".to_owned() } else { change.group.clone() }))
            }
            "state" => text(&|change| Some(change.to.as_str().to_owned())),
            "previous_state" => text(&|change| Some(change.from.as_str().to_owned())),
            "evaluation" => text(&|change| change.evaluation.map(|evaluation| evaluation.as_str().to_owned())),
            "starts_at" => time(&|change| change.to.starts_at()),
            "ends_at" => time(&|change| change.to.ends_at()),
            "position" => number(&|change| Some(change.position.0)),
            "long_window_s" => number(&|change| change.numbers.window_s),
            "long_good" => number(&|change| change.numbers.good),
            "long_bad" => number(&|change| change.numbers.bad),
            "short_window_s" | "short_good" | "short_bad" => Arc::new(Int64Array::from(nothing(changes.len()))),
            "threshold" => {
                const DIGITS_18: i128 = 10_i128.pow(18);
                let values = changes.iter().map(|change| change.numbers.threshold.filter(|value| *value < DIGITS_18));
                Arc::new(values.collect::<Decimal128Array>().with_precision_and_scale(18, 9)?)
            }
            "long_burn_rate" | "short_burn_rate" => {
                let values = Decimal128Array::from(vec![None::<i128>; changes.len()]);
                Arc::new(values.with_precision_and_scale(18, 9)?)
            }
            "reason" => text(&|change| Some(change.reason.to_owned())),
            "fingerprint" => text(&|change| Some(change.id.fingerprint.to_string())),
            "labels" => text(&|change| serde_json::to_string(&*change.id.labels).ok()),
            "annotations" => text(&|change| {
                let texts: BTreeMap<&String, &String> = change.annotations.iter().chain(&change.findings).collect();
                serde_json::to_string(&texts).ok()
            }),
            "alertname" => label("alertname"),
            "service" => label("service"),
            "slo" => label("slo"),
            "tool" => label("tool"),
            "severity" => label("severity"),
            "burn_tier" => label("burn_tier"),
            "tenant" => label("tenant"),
            other => return Err(ArrowError::SchemaError(format!("alerts has a column {other} that nobody fills"))),
        })
    });
    RecordBatch::try_new(Table::Alerts.schema(), columns.collect::<Result<_, ArrowError>>()?)
}
