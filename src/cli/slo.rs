//! `toolgauge slo` and `toolgauge report slo`.

use std::io::Write as _;
use std::path::PathBuf;

use comfy_table::CellAlignment;
use toolgauge_proto::api::slo::{SloReport, SlosReport};
use toolgauge_queries::engine::Settings as EngineSettings;
use toolgauge_queries::slo::fault::Severity;
use toolgauge_queries::slo::set::Sources;
use toolgauge_queries::tables;

use super::{Connection, Failure, Format, csv, fetch, percent, plain_table};

/// Checks files and folders of SLOs without a server.
pub(super) fn validate(paths: Vec<PathBuf>) -> Result<(), Failure> {
    let engine =
        tables::engine(EngineSettings { concurrent_max: 1, target_partitions: 1, ..EngineSettings::default() })
            .map_err(|error| Failure::Answer(error.into()))?;
    // The first time, something has always changed.
    let set = Sources::new(paths).read(&engine).unwrap_or_default();
    let mut out = std::io::stdout();
    for fault in &set.faults {
        writeln!(out, "{fault}")?;
    }
    for slo in &set.slos {
        let slo = &slo.slo;
        writeln!(
            out,
            "{}/{}: target {}, window {}, mode {}",
            slo.service,
            slo.name,
            slo.target,
            slo.window,
            slo.sli.mode.as_str()
        )?;
    }
    writeln!(out, "{} SLOs, {} not evaluated, {} files", set.slos.len(), set.not_evaluated.len(), set.files)?;
    match set.faults.iter().filter(|fault| fault.severity == Severity::Error).count() {
        0 => Ok(()),
        errors => Err(Failure::BrokenSlos { errors, files: set.broken_files }),
    }
}

/// A column's heading, and its value for an SLO.
type SloColumn = (&'static str, fn(&SloReport) -> String);

/// Columns of the SLO report; one list for the table and for CSV.
const COLUMNS: &[SloColumn] = &[
    ("service", |slo| slo.service.clone()),
    ("slo", |slo| slo.slo.clone()),
    ("state", |slo| slo.state.clone()),
    ("evaluation", |slo| slo.evaluation.clone()),
    ("target", |slo| slo.target.to_string()),
    ("window", |slo| slo.window.clone()),
    ("SLI", |slo| percent(slo.sli)),
    ("good", |slo| slo.good.to_string()),
    ("bad", |slo| slo.bad.to_string()),
    ("excluded", |slo| slo.excluded.to_string()),
    ("nulls", |slo| slo.nulls.to_string()),
    ("budget left", |slo| percent(slo.budget.remaining_ratio)),
    ("burn 1h", |slo| {
        let hour = slo.burn_rates.iter().find(|burn| burn.window == "1h");
        hour.and_then(|burn| burn.rate).map_or(String::new(), |rate| format!("{rate:.2}"))
    }),
    ("used up", |slo| slo.projected_exhaustion.clone().unwrap_or_default()),
];
/// The columns of numbers.
const NUMBERS: std::ops::Range<usize> = 6..13;

/// Every SLO of a running server.
pub(super) fn report(connection: &Connection) -> Result<(), Failure> {
    let text = fetch(&format!("{}/api/v1/slos", connection.url.trim_end_matches('/')), None)?;
    let mut out = std::io::stdout();
    if connection.format == Format::Json {
        return Ok(writeln!(out, "{}", text.trim_end())?);
    }
    let report: SlosReport = serde_json::from_str(&text).map_err(|error| Failure::Answer(error.into()))?;
    if connection.format == Format::Csv {
        let header: Vec<&str> = COLUMNS.iter().map(|(name, _)| *name).collect();
        writeln!(out, "{}", header.join(","))?;
        for slo in &report.slos {
            let fields: Vec<String> = COLUMNS.iter().map(|(_, value)| csv(&value(slo))).collect();
            writeln!(out, "{}", fields.join(","))?;
        }
        return Ok(());
    }
    let mut table = plain_table();
    table.set_header(COLUMNS.iter().map(|(name, _)| *name));
    for slo in &report.slos {
        table.add_row(COLUMNS.iter().map(|(_, value)| value(slo)));
    }
    for column in NUMBERS {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    writeln!(out, "{table}")?;
    for slo in &report.not_evaluated {
        writeln!(out, "not evaluated: {}/{}: {}", slo.service, slo.slo, slo.reason)?;
    }
    for fault in &report.faults {
        writeln!(
            out,
            "{}: {}:{}:{}: {} {}",
            fault.severity, fault.file, fault.line, fault.column, fault.key, fault.message
        )?;
    }
    writeln!(out, "\nevaluated {}, watermark {}", report.at.time, report.at.watermark)?;
    Ok(())
}
