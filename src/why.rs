//! `toolgauge why`: which rule recognised a span or a record, or the first condition that failed.

use std::io::Write;
use std::path::Path;

use toolgauge_collector::export::ExportSignal;
use toolgauge_collector::receiver::json_to_protobuf;
use toolgauge_collector::recognise::{ConventionError, Conventions, RecogniseSettings, Recogniser};
use toolgauge_proto::api::why::{WhyCall, WhyRecord, WhyReport};
use toolgauge_proto::explain::Missed;

/// Largest file that is read, in bytes: as large as a request may be.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// What is in every JSON export of logs.
const LOGS_KEY: &[u8] = b"\"resourceLogs\"";

/// What a file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Holds {
    /// An `ExportTraceServiceRequest`.
    Traces,
    /// An `ExportLogsServiceRequest`.
    Logs,
}

/// Why a file could not be explained.
#[derive(Debug, thiserror::Error)]
pub enum WhyError {
    /// It cannot be read.
    #[error("read \"{path}\"")]
    Read {
        /// Which file.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It is too large.
    #[error("\"{path}\" is larger than {FILE_BYTES_MAX} bytes, which no export is")]
    TooLarge {
        /// Which file.
        path: String,
    },
    /// It is no export.
    #[error("\"{path}\" is no OTLP export: {reason} (`--holds traces` or `--holds logs` says what it should be)")]
    NoExport {
        /// Which file.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The conventions are faulty.
    #[error("load the conventions")]
    Conventions(#[from] ConventionError),
}

/// Explains every record of an export in a file, by these conventions of the user and those that come with Toolgauge.
///
/// # Errors
/// See [`WhyError`].
pub fn explain(
    path: &Path,
    holds: Option<Holds>,
    own: Vec<(String, String)>,
    missed: Missed,
) -> Result<Vec<WhyRecord>, WhyError> {
    let named = || path.display().to_string();
    let read = |source| WhyError::Read { path: named(), source };
    if std::fs::metadata(path).map_err(read)?.len() > FILE_BYTES_MAX {
        return Err(WhyError::TooLarge { path: named() });
    }
    let mut body = std::fs::read(path).map_err(read)?;
    let no_export = |reason: String| WhyError::NoExport { path: named(), reason };
    let mut holds = holds;
    if body.trim_ascii_start().first() == Some(&b'{') {
        let is_logs = body.windows(LOGS_KEY.len()).any(|window| window == LOGS_KEY);
        let told = *holds.get_or_insert(if is_logs { Holds::Logs } else { Holds::Traces });
        let signal = if told == Holds::Logs { ExportSignal::Logs } else { ExportSignal::Traces };
        body = json_to_protobuf(&body, Some(signal)).map_err(no_export)?;
    }
    let recogniser = Recogniser::new(Conventions::with(&own)?, RecogniseSettings::default())?;
    let traces = || recogniser.explain_traces(&body).map_err(|error| no_export(error.to_string()));
    let logs = || recogniser.explain_logs(&body).map_err(|error| no_export(error.to_string()));
    let explanations = match holds {
        Some(Holds::Traces) => traces(),
        Some(Holds::Logs) => logs(),
        // The two look alike; only in one of them spans have ids of eight bytes.
        None => match traces() {
            Ok(spans) if spans.iter().any(|span| span.span_id.len() == 16) => Ok(spans),
            _ => logs(),
        },
    }?;
    Ok(explanations.into_iter().map(|explanation| explanation.into_record(missed)).collect())
}

/// Writes for people what became of records.
///
/// # Errors
/// If it cannot be written.
pub fn write_text(out: &mut impl Write, records: &[WhyRecord]) -> std::io::Result<()> {
    for WhyRecord { what, name, span_id, verdict } in records {
        let span = if span_id.is_empty() { String::new() } else { format!(" in span {span_id}") };
        let span = if what == "span" { format!(" {span_id}") } else { span };
        let rule = || {
            let of = |name: &Option<String>| name.clone().unwrap_or_default();
            format!("{} / {}", of(&verdict.convention), of(&verdict.rule))
        };
        match &verdict.kind {
            Some(kind) => writeln!(out, "{what} {name:?}{span}: {kind}, by {}", rule())?,
            None if verdict.rule.is_some() => writeln!(out, "{what} {name:?}{span}: no call, by {}", rule())?,
            None => writeln!(out, "{what} {name:?}{span}: not recognised")?,
        }
        for field in &verdict.fields {
            writeln!(out, "    {}: {}", field.name, field.value)?;
        }
        if let Some(failed) = &verdict.failed {
            let (class, because) = (&failed.error_class, &failed.class_because);
            writeln!(out, "    failed, because {}; class {class}, because {because}", failed.because)?;
        }
        for missed in &verdict.missed {
            writeln!(out, "    not by {} / {}: {}", missed.convention, missed.rule, missed.condition)?;
        }
    }
    let calls = records.iter().filter(|record| record.verdict.recognised).count();
    writeln!(out, "{} records, {calls} recognised as calls", records.len())
}

/// Writes for people what a server says of a trace: its records, what counts of it, and what cannot be said.
///
/// # Errors
/// If it cannot be written.
pub fn write_trace(out: &mut impl Write, report: &WhyReport) -> std::io::Result<()> {
    let WhyReport { trace_id, records, log_from, truncated, calls } = report;
    if records.is_empty() {
        writeln!(out, "the log has no record of trace {trace_id}{}", since(log_from))?;
    } else {
        write_text(out, records)?;
    }
    for call in calls {
        writeln!(out, "row {}", row_text(call))?;
    }
    match (records.is_empty(), calls.is_empty()) {
        (true, true) => writeln!(out, "calls has no row of it either: nothing of it was a call, or it never arrived")?,
        (true, false) => writeln!(out, "only its calls are known: records are kept until the log has forgotten them")?,
        (false, _) => {}
    }
    if *truncated {
        writeln!(out, "there may be more of it: not all was looked through or shown")?;
    }
    Ok(())
}

fn since(log_from: &Option<String>) -> String {
    log_from.as_ref().map_or_else(String::new, |from| format!(", which goes back to {from}"))
}

/// A row in one line: what of it is there.
fn row_text(call: &WhyCall) -> String {
    let shown = ["span_id", "signal", "kind", "tool_server", "tool_name", "model", "agent_name", "convention", "layer"];
    let of = |name: &str| match call.get(name)? {
        serde_json::Value::Null => None,
        serde_json::Value::String(text) => Some(format!("{name}={text}")),
        other => Some(format!("{name}={other}")),
    };
    let rest = ["counted", "attempt", "final", "outcome", "error_class"];
    shown.iter().chain(&rest).filter_map(|name| of(name)).collect::<Vec<_>>().join(" ")
}
