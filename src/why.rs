//! `toolgauge why`: which rule recognised a span or a record, or the first condition that failed.

use std::io::Write;
use std::path::Path;

use serde_json::{Value, json};
use toolgauge_collector::export::ExportSignal;
use toolgauge_collector::receiver::json_to_protobuf;
use toolgauge_collector::recognise::{
    ConventionError, Conventions, Explanation, RecogniseSettings, Recogniser, Verdict,
};

/// Rules that are shown of those that did not recognise a record, if not all are asked for.
const NEAREST: usize = 1;
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
pub fn explain(path: &Path, holds: Option<Holds>, own: Vec<(String, String)>) -> Result<Vec<Explanation>, WhyError> {
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
    match holds {
        Some(Holds::Traces) => traces(),
        Some(Holds::Logs) => logs(),
        // The two look alike; only in one of them spans have ids of eight bytes.
        None => match traces() {
            Ok(spans) if spans.iter().any(|span| span.span_id.len() == 16) => Ok(spans),
            _ => logs(),
        },
    }
}

/// Writes explanations for people. With `all`, every rule that did not recognise a record has its line.
///
/// # Errors
/// If they cannot be written.
pub fn write_text(out: &mut impl Write, explanations: &[Explanation], all: bool) -> std::io::Result<()> {
    for Explanation { what, name, span_id, verdict } in explanations {
        let span = if span_id.is_empty() { String::new() } else { format!(" in span {span_id}") };
        let span = if *what == "span" { format!(" {span_id}") } else { span };
        match verdict {
            Verdict::Recognised { rule, kind, fields, failed } => {
                writeln!(out, "{what} {name:?}{span}: {kind}, by {rule}")?;
                for (field, text) in fields {
                    writeln!(out, "    {field}: {text}")?;
                }
                if let Some((reason, class, because)) = failed {
                    writeln!(out, "    failed, because {reason}; class {class}, because {because}")?;
                }
            }
            Verdict::NoCall(rule) => writeln!(out, "{what} {name:?}{span}: no call, by {rule}")?,
            Verdict::Unrecognised(missed) => {
                writeln!(out, "{what} {name:?}{span}: not recognised")?;
                for (rule, fault) in missed.iter().take(if all { usize::MAX } else { NEAREST }) {
                    writeln!(out, "    not by {rule}: {fault}")?;
                }
            }
        }
    }
    let calls = explanations.iter().filter(|one| matches!(one.verdict, Verdict::Recognised { .. })).count();
    writeln!(out, "{} records, {calls} recognised as calls", explanations.len())
}

/// Explanations for programs.
#[must_use]
pub fn as_json(explanations: &[Explanation]) -> Value {
    let of = |one: &Explanation| {
        let verdict = match &one.verdict {
            Verdict::Recognised { rule, kind, fields, failed } => json!({
                "recognised": true,
                "kind": kind.as_str(),
                "convention": rule.convention,
                "rule": rule.rule,
                "fields": fields.iter().map(|(name, text)| ((*name).to_owned(), text.clone().into())).collect::<serde_json::Map<_, _>>(),
                "failed": failed.as_ref().map(|(reason, class, because)| {
                    json!({"because": reason, "error_class": class, "class_because": because})
                }),
            }),
            Verdict::NoCall(rule) => {
                json!({"recognised": false, "convention": rule.convention, "rule": rule.rule})
            }
            Verdict::Unrecognised(missed) => json!({
                "recognised": false,
                "missed": missed.iter().map(|(rule, fault)| {
                    json!({"convention": rule.convention, "rule": rule.rule, "condition": fault})
                }).collect::<Vec<_>>(),
            }),
        };
        json!({"what": one.what, "name": one.name, "span_id": one.span_id, "verdict": verdict})
    };
    explanations.iter().map(of).collect()
}
