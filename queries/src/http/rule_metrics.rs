//! Gauges of rules and counters of notifications, in Prometheus' text format.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;

use toolgauge_analytics::alert::{Evaluation, State};

use super::slo_metrics::{Metric, escaped};
use crate::rules::Rules;
use crate::webhook::WebhookCounters;

const NANOS: f64 = 1e9;

/// Values of a group as labels: `tool_name="search"`.
fn group(by: &[&'static str], key: &[Option<std::sync::Arc<str>>]) -> String {
    let label = |(column, value): (&&str, &Option<std::sync::Arc<str>>)| {
        format!(",{column}=\"{}\"", escaped(value.as_deref().unwrap_or_default()))
    };
    by.iter().zip(key).map(label).collect()
}

/// The text for rules.
pub(super) fn of_rules(rules: &Rules) -> String {
    let mut text = String::new();
    let evaluated = rules.evaluated();
    let figures = &evaluated.figures;
    let groups = || {
        figures.thresholds.iter().flat_map(|status| {
            let name = escaped(&status.rule.header.name);
            status.groups.iter().map(move |found| {
                let labels = format!("rule=\"{name}\"{}", group(&status.rule.selection.by, &found.key));
                (status, found, labels)
            })
        })
    };
    let mut events =
        Metric::new(&mut text, "toolgauge_rule_events", "gauge", "Calls, or sessions, in the window of a threshold.");
    for (_, found, labels) in groups() {
        events.line(&format!("{{{labels}}}"), found.events);
    }
    let mut values = Metric::new(
        &mut text,
        "toolgauge_rule_value",
        "gauge",
        "Figure of a threshold; durations in seconds, money in dollars. Of a quantile of latencies the share of calls that reach the threshold.",
    );
    for (_, found, labels) in groups() {
        let share = || (found.sums.calls > 0).then(|| found.sums.hits as f64 / found.sums.calls as f64);
        if let Some(value) = found.value.map(|value| value.to_f64()).or_else(share) {
            values.line(&format!("{{{labels}}}"), value);
        }
    }
    let mut thresholds =
        Metric::new(&mut text, "toolgauge_rule_threshold", "gauge", "Threshold, in the units of its figure.");
    for status in &figures.thresholds {
        let labels = format!("{{rule=\"{}\"}}", escaped(&status.rule.header.name));
        thresholds.line(&labels, status.rule.threshold.to_f64());
    }
    let mut states =
        Metric::new(&mut text, "toolgauge_rule_firing", "gauge", "1 while the alert of a threshold fires.");
    for (_, found, labels) in groups() {
        states.line(&format!("{{{labels}}}"), u8::from(matches!(found.state, State::Firing { .. })));
    }
    let mut stale =
        Metric::new(&mut text, "toolgauge_rule_stale", "gauge", "1 while telemetry is missing for a threshold.");
    for (_, found, labels) in groups() {
        stale.line(&format!("{{{labels}}}"), u8::from(found.evaluation == Evaluation::Stale));
    }

    let spendings = || {
        figures.budgets.iter().flat_map(|status| {
            let name = escaped(&status.budget.header.name);
            status.groups.iter().map(move |found| {
                (format!("{{budget=\"{name}\"{}}}", group(&status.budget.selection.by, &found.key)), found)
            })
        })
    };
    for (name, help, value) in [
        ("toolgauge_cost_budget_usd", "Amount of a budget of money.", 0),
        ("toolgauge_cost_budget_spent_usd", "Spent since the start of the period.", 1),
        ("toolgauge_cost_budget_forecast_usd", "Spent at the end of the period if the last hours go on.", 2),
    ] {
        let mut metric = Metric::new(&mut text, name, "gauge", help);
        for (labels, found) in spendings() {
            let spending = &found.spending;
            let nanos = match value {
                0 => i128::try_from(spending.amount).unwrap_or(i128::MAX),
                1 => spending.spent,
                _ => spending.forecast(),
            };
            metric.line(&labels, nanos as f64 / NANOS);
        }
    }
    let mut rates = Metric::new(
        &mut text,
        "toolgauge_cost_budget_burn_rate",
        "gauge",
        "How many times as fast as allowed money was spent within the window of the forecast.",
    );
    for (labels, found) in spendings() {
        if let Some(rate) = found.spending.burn_rate(found.spending.recent, found.spending.window) {
            rates.line(&labels, rate.to_f64());
        }
    }

    let mut alerts = Metric::new(&mut text, "toolgauge_rule_alerts", "gauge", "Alerts of rules by name and state.");
    let mut counts: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    for name in ["CostBudgetBurn", "ThresholdExceeded", "ToolSilent"] {
        counts.extend(["pending", "firing", "resolved"].map(|state| ((name, state), 0)));
    }
    for alert in &evaluated.alerts {
        if let Some(name) = alert.labels.get("alertname") {
            *counts.entry((name, alert.state.as_str())).or_default() += 1;
        }
    }
    for ((name, state), count) in counts {
        alerts.line(&format!("{{alertname=\"{name}\",state=\"{state}\"}}"), count);
    }
    let silent = figures.heartbeats.iter().filter(|beat| beat.pulse.is_silent()).count() as u64;
    let counters = rules.counters();
    let rules = (figures.thresholds.len() + figures.budgets.len()) as u64;
    for (name, kind, help, value) in [
        ("toolgauge_rules", "gauge", "Thresholds and budgets of money in force.", rules),
        ("toolgauge_heartbeats", "gauge", "Services and tools that are listened to.", figures.heard.0 as u64),
        ("toolgauge_heartbeats_silent", "gauge", "Of these, those that are silent for too long.", silent),
        (
            "toolgauge_heartbeats_left_out",
            "gauge",
            "Services and tools that are not listened to, because there are too many.",
            figures.heard.1 as u64,
        ),
        ("toolgauge_rule_evaluations_total", "counter", "Evaluations of all rules.", counters.rounds.load(Relaxed)),
        (
            "toolgauge_rule_evaluations_missed_total",
            "counter",
            "Evaluations of rules that were not made in time.",
            counters.missed.load(Relaxed),
        ),
        (
            "toolgauge_rule_rows_total",
            "counter",
            "Settled rows that were counted for rules.",
            counters.rows.load(Relaxed),
        ),
        (
            "toolgauge_rule_changes_total",
            "counter",
            "Changes of state of rules' alerts.",
            counters.changes.load(Relaxed),
        ),
        (
            "toolgauge_rule_changes_unrecorded_total",
            "counter",
            "Changes that were sent although they could not be written down.",
            counters.unrecorded.load(Relaxed),
        ),
        (
            "toolgauge_rule_alerts_left_out_total",
            "counter",
            "Alerts that did not begin because there were too many.",
            counters.overflow.load(Relaxed),
        ),
    ] {
        Metric::new(&mut text, name, kind, help).line("", value);
    }
    let seconds = counters.round_micros.load(Relaxed) as f64 / 1e6;
    Metric::new(&mut text, "toolgauge_rule_evaluation_seconds_total", "counter", "Time of evaluations of rules.")
        .line("", seconds);
    text
}

/// The text for notifications of Alertmanagers.
pub(super) fn of_webhook(counters: &WebhookCounters) -> String {
    let mut text = String::new();
    for (name, help, value) in [
        ("toolgauge_notifications_total", "Notifications of Alertmanagers.", &counters.notifications),
        ("toolgauge_notifications_alerts_kept_total", "Alerts of notifications that were kept.", &counters.kept),
        (
            "toolgauge_notifications_alerts_duplicate_total",
            "Alerts of notifications that were there already.",
            &counters.duplicates,
        ),
        (
            "toolgauge_notifications_refused_total",
            "Notifications, or alerts of them, that cannot be read.",
            &counters.refused,
        ),
        (
            "toolgauge_notifications_unavailable_total",
            "Notifications that were to be sent again.",
            &counters.unavailable,
        ),
    ] {
        Metric::new(&mut text, name, "counter", help).line("", value.load(Relaxed));
    }
    text
}
