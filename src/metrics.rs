//! `/metrics`: what the rooms count, in Prometheus' text format (version 0.0.4).

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use toolgauge_collector::receiver::ReceiverCounters;
use toolgauge_collector::receiver::status::FaultKind;
use toolgauge_proto::lake::Lake;

/// The text for what `queries` does not count itself.
#[must_use]
pub fn text(lake: &Arc<dyn Lake>, receiver: &ReceiverCounters) -> String {
    let status = lake.status();
    let mut out = String::new();
    let mut one = |name: &str, labels: &str, value: u64, first: bool| {
        if first {
            let kind = if name.ends_with("_total") { "counter" } else { "gauge" };
            let _infallible = writeln!(out, "# TYPE {name} {kind}");
        }
        let _infallible = writeln!(out, "{name}{labels} {value}");
    };
    for (name, value) in &status.counters {
        one(name, "", *value, true);
    }
    for (name, value) in [
        ("toolgauge_ready", u64::from(status.ready)),
        ("toolgauge_wal_visible_position", status.wal_visible),
        ("toolgauge_wal_settled_position", status.wal_settled),
        ("toolgauge_wal_committed_position", status.wal_committed),
        ("toolgauge_live_rows", status.live_rows),
        ("toolgauge_live_bytes", status.live_bytes),
        ("toolgauge_otlp_requests_total", receiver.requests.load(Relaxed)),
        ("toolgauge_otlp_accepted_total", receiver.accepted.load(Relaxed)),
        ("toolgauge_otlp_empty_total", receiver.empty.load(Relaxed)),
        ("toolgauge_otlp_cancelled_total", receiver.cancelled.load(Relaxed)),
        ("toolgauge_otlp_received_bytes_total", receiver.bytes_received.load(Relaxed)),
        ("toolgauge_otlp_accepted_bytes_total", receiver.bytes_accepted.load(Relaxed)),
        ("toolgauge_otlp_metric_points_refused_total", receiver.metric_points_refused.load(Relaxed)),
        ("toolgauge_otlp_in_flight_bytes", receiver.in_flight_bytes.load(Relaxed)),
        ("toolgauge_otlp_connections", receiver.connections.load(Relaxed)),
        ("toolgauge_otlp_connections_refused_total", receiver.connections_refused.load(Relaxed)),
        ("toolgauge_otlp_connections_failed_total", receiver.connections_failed.load(Relaxed)),
    ] {
        one(name, "", value, true);
    }
    for (i, kind) in FaultKind::ALL.into_iter().enumerate() {
        let reason = format!("{{reason=\"{}\"}}", kind.wire().label);
        one("toolgauge_otlp_refused_total", &reason, receiver.refused(kind), i == 0);
    }
    for (i, (table, files)) in status.table_files.iter().enumerate() {
        one("toolgauge_table_files", &format!("{{table=\"{table}\"}}"), *files, i == 0);
    }
    for (i, (table, version)) in status.table_versions.iter().enumerate() {
        one("toolgauge_table_version", &format!("{{table=\"{table}\"}}"), *version, i == 0);
    }
    out
}
