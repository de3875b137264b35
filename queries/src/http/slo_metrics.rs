//! Gauges of SLOs and counters of their evaluation, in Prometheus' text format.

use std::fmt::Write as _;
use std::sync::atomic::Ordering::Relaxed;

use toolgauge_analytics::budget::{Budget, burn_rate};

use crate::evaluate::Evaluator;

/// A label value: backslash, quote and line feed are escaped.
pub(super) fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// One metric with all its lines.
pub(super) struct Metric<'a> {
    text: &'a mut String,
    name: &'static str,
}

impl<'a> Metric<'a> {
    pub(super) fn new(text: &'a mut String, name: &'static str, kind: &str, help: &str) -> Self {
        // Writing to memory does not fail.
        let _infallible = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
        Self { text, name }
    }

    pub(super) fn line(&mut self, labels: &str, value: impl std::fmt::Display) {
        let _infallible = writeln!(self.text, "{}{labels} {value}", self.name);
    }
}

/// The text.
pub(super) fn text(evaluator: &Evaluator) -> String {
    let mut text = String::new();
    let evaluated = evaluator.evaluated();
    let labels: Vec<String> = evaluated
        .slos
        .iter()
        .map(|status| {
            let (service, slo) = (escaped(&status.slo.slo.service), escaped(&status.slo.slo.name));
            let group = status.group.as_ref().map(|group| format!(",group=\"{}\"", escaped(group.text())));
            format!("service=\"{service}\",slo=\"{slo}\"{}", group.unwrap_or_default())
        })
        .collect();
    let slos = || evaluated.slos.iter().zip(&labels);

    let mut events = Metric::new(
        &mut text,
        "toolgauge_slo_events",
        "gauge",
        "Events of an SLO over a window; late rows change it either way.",
    );
    for (status, labels) in slos() {
        for (window, counts) in &status.windows {
            for (result, count) in [("good", counts.good), ("bad", counts.bad), ("excluded", counts.excluded)] {
                events.line(&format!("{{{labels},result=\"{result}\",window=\"{window}\"}}"), count);
            }
        }
    }
    let mut rates =
        Metric::new(&mut text, "toolgauge_slo_burn_rate", "gauge", "Error ratio over a window / (1 - target).");
    for (status, labels) in slos() {
        for (window, counts) in &status.windows {
            if let Some(rate) = burn_rate(counts, status.slo.slo.target) {
                rates.line(&format!("{{{labels},window=\"{window}\"}}"), rate.to_f64());
            }
        }
    }
    let mut left = Metric::new(
        &mut text,
        "toolgauge_slo_budget_remaining_ratio",
        "gauge",
        "What is left of the error budget; negative if more was spent.",
    );
    for (status, labels) in slos() {
        if let Some(ratio) = Budget::of(&status.counts, status.slo.slo.target).remaining_ratio() {
            left.line(&format!("{{{labels}}}"), ratio);
        }
    }
    let mut states = Metric::new(
        &mut text,
        "toolgauge_slo_evaluation",
        "gauge",
        "1 for what the fastest tier could tell: ok, stale, idle, learning.",
    );
    for (status, labels) in slos() {
        states.line(&format!("{{{labels},evaluation=\"{}\"}}", status.evaluation.as_str()), 1);
    }
    let mut backfills = Metric::new(
        &mut text,
        "toolgauge_slo_backfill_progress_ratio",
        "gauge",
        "Share of the history that is counted of SLOs that are new or count something else.",
    );
    let mut told = None;
    for status in &evaluated.slos {
        let key = Some((&status.slo.slo.service, &status.slo.slo.name));
        if let Some(backfill) = status.backfill.as_ref().filter(|_| told.replace(key) != Some(key)) {
            let (service, slo) = (escaped(&status.slo.slo.service), escaped(&status.slo.slo.name));
            backfills.line(&format!("{{service=\"{service}\",slo=\"{slo}\"}}"), backfill.progress);
        }
    }
    let mut alerts = Metric::new(&mut text, "toolgauge_alerts", "gauge", "Alerts by state.");
    for state in ["pending", "firing", "resolved"] {
        let count = evaluated.alerts.iter().filter(|alert| alert.state.as_str() == state).count();
        alerts.line(&format!("{{state=\"{state}\"}}"), count);
    }

    let counters = evaluator.counters();
    for (name, kind, help, value) in [
        ("toolgauge_slos", "gauge", "SLOs in force.", evaluated.set.slos.len() as u64),
        (
            "toolgauge_slo_groups",
            "gauge",
            "Groups of SLOs that are watched.",
            evaluated.slos.iter().filter(|status| status.group.is_some()).count() as u64,
        ),
        ("toolgauge_slo_files", "gauge", "Files of SLOs.", evaluated.set.files as u64),
        (
            "toolgauge_slo_files_broken",
            "gauge",
            "Files of SLOs with errors; of each the last good version is in force.",
            evaluated.set.broken_files as u64,
        ),
        ("toolgauge_evaluations_total", "counter", "Evaluations of all SLOs.", counters.rounds.load(Relaxed)),
        (
            "toolgauge_evaluations_missed_total",
            "counter",
            "Evaluations that were not made in time.",
            counters.missed.load(Relaxed),
        ),
        ("toolgauge_evaluated_rows_total", "counter", "Settled rows that were counted.", counters.rows.load(Relaxed)),
        ("toolgauge_alert_changes_total", "counter", "Changes of state of alerts.", counters.changes.load(Relaxed)),
        (
            "toolgauge_slo_appends_failed_total",
            "counter",
            "Appends to slo_1m and alerts that could not be made.",
            counters.failed_appends.load(Relaxed),
        ),
        (
            "toolgauge_slo_proof_checks_total",
            "counter",
            "Minutes of SLOs that were recounted from calls.",
            counters.proofs.load(Relaxed),
        ),
        (
            "toolgauge_slo_proof_mismatches_total",
            "counter",
            "Minutes of SLOs whose counts were not those of a recount: a fault of the program.",
            counters.proof_mismatches.load(Relaxed),
        ),
        (
            "toolgauge_slo_verdicts_turned_total",
            "counter",
            "Slices of time that got another verdict, by rows that came late.",
            counters.verdicts_turned.load(Relaxed),
        ),
        (
            "toolgauge_slo_groups_overflowed_events_total",
            "counter",
            "Settled events of SLOs with as many groups as they may have that belong to none: they count as __other__.",
            counters.overflowed_events.load(Relaxed),
        ),
        (
            "toolgauge_alert_changes_unrecorded_total",
            "counter",
            "Changes of alerts that were sent although they could not be written to the table alerts.",
            counters.unrecorded_changes.load(Relaxed),
        ),
    ] {
        Metric::new(&mut text, name, kind, help).line("", value);
    }
    let seconds = counters.round_micros.load(Relaxed) as f64 / 1e6;
    Metric::new(&mut text, "toolgauge_evaluation_seconds_total", "counter", "Time of evaluations.").line("", seconds);

    let targets: Vec<_> = evaluator.notifier().counters().collect();
    for (name, kind, help, value) in [
        ("toolgauge_alertmanager_sent_total", "counter", "Alerts that an Alertmanager has taken.", 0),
        ("toolgauge_alertmanager_failed_requests_total", "counter", "Requests that were not answered with 2xx.", 1),
        ("toolgauge_alertmanager_refused_total", "counter", "Alerts of batches that were refused for good.", 2),
        ("toolgauge_alertmanager_dropped_total", "counter", "Alerts that fell out of a full outbox.", 3),
        ("toolgauge_alertmanager_waiting", "gauge", "Alerts that wait for delivery.", 4),
    ] {
        let mut metric = Metric::new(&mut text, name, kind, help);
        for (target, counters, waiting) in &targets {
            let value = match value {
                0 => counters.sent.load(Relaxed),
                1 => counters.failed_requests.load(Relaxed),
                2 => counters.refused.load(Relaxed),
                3 => counters.dropped.load(Relaxed),
                _ => *waiting as u64,
            };
            metric.line(&format!("{{alertmanager=\"{}\"}}", escaped(target)), value);
        }
    }
    text
}
