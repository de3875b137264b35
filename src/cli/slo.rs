//! `toolgauge slo` and `toolgauge report slo`.

mod asked;
mod backtest;
mod explain;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::ops::Range;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Subcommand;
use toolgauge_analytics::budget::burn_rate;
use toolgauge_analytics::window::Window;
use toolgauge_proto::api::slo::{SloDay, SloDetail, SloReport, SlosReport};
use toolgauge_queries::engine::Settings as EngineSettings;
use toolgauge_queries::slo::definition::{Budgeting, Slo};
use toolgauge_queries::slo::fault::Severity;
use toolgauge_queries::slo::set::{CompiledSlo, SloSet, Sources};
use toolgauge_queries::tables;

use super::{Column, Connection, Failure, Format, csv, encode, fetch, percent, plain_table, write_csv, write_table};
use asked::{Asked, Whom, last};

#[derive(Debug, Subcommand)]
pub(super) enum Action {
    /// Say whether files of SLOs can be used; with a server or a data folder, count the last 24 hours as well
    Validate {
        /// Files and folders of OpenSLO documents
        #[arg(required = true)]
        paths: Vec<PathBuf>,
        #[command(flatten)]
        whom: Whom,
    },
    /// The SLOs of files, or of a running server
    List {
        /// Files and folders of OpenSLO documents
        paths: Vec<PathBuf>,
        #[command(flatten)]
        connection: Connection,
    },
    /// What the alerts of SLOs need to fire, how soon they do, and how often they would without need
    Explain {
        /// Files and folders of OpenSLO documents
        #[arg(required = true)]
        paths: Vec<PathBuf>,
        /// Only this one, like shop/search-availability
        #[arg(long, value_name = "SERVICE/NAME")]
        slo: Option<String>,
        /// How to write the answer
        #[arg(long, value_enum, default_value_t = Format::Table)]
        format: Format,
        #[command(flatten)]
        whom: Whom,
    },
    /// When the alerts of SLOs would have fired, by the calls that are kept
    Backtest {
        /// Files and folders of OpenSLO documents
        #[arg(required = true)]
        paths: Vec<PathBuf>,
        /// Only this one, like shop/search-availability
        #[arg(long, value_name = "SERVICE/NAME")]
        slo: Option<String>,
        /// How much of the past to replay
        #[arg(long, default_value = "30d")]
        last: String,
        /// How to write the answer
        #[arg(long, value_enum, default_value_t = Format::Table)]
        format: Format,
        #[command(flatten)]
        whom: Whom,
    },
    /// Wait until a running server has counted the history of all its SLOs
    Backfill {
        /// How long to wait, in seconds
        #[arg(long, default_value_t = 600)]
        timeout_s: u64,
        #[command(flatten)]
        connection: Connection,
    },
}

pub(super) fn run(action: Action) -> Result<(), Failure> {
    match action {
        Action::Validate { paths, whom } => validate(paths, &whom),
        Action::List { paths, connection } if paths.is_empty() => report(&connection),
        Action::List { paths, connection } => list(paths, connection.format),
        Action::Explain { paths, slo, format, whom } => explain::run(paths, slo.as_deref(), format, &whom),
        Action::Backtest { paths, slo, last, format, whom } => {
            backtest::run(paths, slo.as_deref(), &last, format, &whom)
        }
        Action::Backfill { timeout_s, connection } => backfill(&connection, Duration::from_secs(timeout_s)),
    }
}

/// What files come to. The first time, something has always changed.
fn read(paths: Vec<PathBuf>) -> Result<SloSet, Failure> {
    let engine =
        tables::engine(EngineSettings { concurrent_max: 1, target_partitions: 1, ..EngineSettings::default() })
            .map_err(|error| Failure::Answer(error.into()))?;
    Ok(Sources::new(paths).read(&engine).unwrap_or_default())
}

fn errors_of(set: &SloSet) -> Result<(), Failure> {
    match set.faults.iter().filter(|fault| fault.severity == Severity::Error).count() {
        0 => Ok(()),
        errors => Err(Failure::BrokenSlos { errors, files: set.broken_files }),
    }
}

/// The SLOs of files without errors; one of them, if it is named.
fn chosen(paths: Vec<PathBuf>, name: Option<&str>) -> Result<Vec<CompiledSlo>, Failure> {
    let set = read(paths)?;
    for fault in &set.faults {
        writeln!(std::io::stderr(), "{fault}")?;
    }
    errors_of(&set)?;
    let full = |slo: &Slo| format!("{}/{}", slo.service, slo.name);
    let all: Vec<String> = set.slos.iter().map(|slo| full(&slo.slo)).collect();
    let is_asked = |slo: &CompiledSlo| name.is_none_or(|name| name == slo.slo.name || name == full(&slo.slo));
    let found: Vec<CompiledSlo> = set.slos.into_iter().filter(is_asked).collect();
    match name {
        Some(name) if found.is_empty() => {
            Err(Failure::WrongUsage(format!("there is no SLO \"{name}\" in the files (they have: {})", all.join(", "))))
        }
        _ => Ok(found),
    }
}

/// Checks files and folders of SLOs; with somebody who has calls, counts those of the last 24 hours.
fn validate(paths: Vec<PathBuf>, whom: &Whom) -> Result<(), Failure> {
    let set = read(paths)?;
    let mut out = std::io::stdout();
    for fault in &set.faults {
        writeln!(out, "{fault}")?;
    }
    let asked = if errors_of(&set).is_ok() { Asked::open(whom)? } else { None };
    let span = last(Window::D1);
    for slo in &set.slos {
        writeln!(out, "{}", in_short(&slo.slo))?;
        let Some(asked) = &asked else { continue };
        match asked.counts(slo, span) {
            Ok(counts) => {
                let burn = burn_rate(&counts, slo.slo.target)
                    .map_or("none".to_owned(), |rate| format!("{:.2}", rate.to_f64()));
                writeln!(
                    out,
                    "  last 24 h: good {}, bad {}, excluded {}, nulls {}, burn rate {burn}",
                    counts.good, counts.bad, counts.excluded, counts.nulls
                )?;
                if counts.total() == 0 {
                    writeln!(out, "  nothing was counted: does the condition of `total` select any call?")?;
                }
                if counts.nulls > 0 {
                    writeln!(
                        out,
                        "  a condition was null for {} calls: is a column empty that it reads?",
                        counts.nulls
                    )?;
                }
            }
            Err(Failure::Refused { title, detail }) => {
                writeln!(out, "  the last 24 h cannot be counted: {title}: {detail}")?
            }
            Err(other) => return Err(other),
        }
    }
    asked.map_or(Ok(()), Asked::close)?;
    writeln!(out, "{} SLOs, {} not evaluated, {} files", set.slos.len(), set.not_evaluated.len(), set.files)?;
    errors_of(&set)
}

fn in_short(slo: &Slo) -> String {
    let budgeting = match slo.budgeting {
        Budgeting::Occurrences => String::new(),
        Budgeting::Timeslices(slices) => format!(", slices of {}", slices.length()),
    };
    let groups = slo.group_by.as_ref().map_or(String::new(), |by| format!(", by {}", by.columns.join(" and ")));
    let (service, name, target, period) = (&slo.service, &slo.name, slo.target, slo.period);
    format!("{service}/{name}: target {target}, window {period}, mode {}{budgeting}{groups}", slo.sli.mode.as_str())
}

/// The SLOs of files.
fn list(paths: Vec<PathBuf>, format: Format) -> Result<(), Failure> {
    const HEADER: [&str; 8] = ["service", "slo", "target", "window", "budget in", "mode", "tiers", "file"];
    let set = read(paths)?;
    let rows: Vec<[String; 8]> = set
        .slos
        .iter()
        .map(|CompiledSlo { slo, .. }| {
            let tiers: Vec<&str> = slo.tiers.iter().map(|tier| &*tier.tier.name).collect();
            let budgeting = match slo.budgeting {
                Budgeting::Occurrences => "events".to_owned(),
                Budgeting::Timeslices(slices) => format!("slices of {}", slices.length()),
            };
            [
                slo.service.clone(),
                slo.name.clone(),
                slo.target.to_string(),
                slo.period.to_string(),
                budgeting,
                slo.sli.mode.as_str().to_owned(),
                tiers.join(" "),
                format!("{}:{}", slo.file, slo.place.line),
            ]
        })
        .collect();
    let mut out = std::io::stdout();
    match format {
        Format::Json => {
            let object = |row: &[String; 8]| -> serde_json::Map<String, serde_json::Value> {
                let pairs = HEADER.iter().zip(row);
                pairs.map(|(key, value)| ((*key).to_owned(), serde_json::Value::from(value.as_str()))).collect()
            };
            let items: Vec<serde_json::Value> = rows.iter().map(|row| object(row).into()).collect();
            writeln!(out, "{}", serde_json::Value::from(items))?;
        }
        Format::Csv => {
            writeln!(out, "{}", HEADER.join(","))?;
            for row in &rows {
                writeln!(out, "{}", row.iter().map(|field| csv(field)).collect::<Vec<_>>().join(","))?;
            }
        }
        Format::Table => {
            let mut table = plain_table();
            table.set_header(HEADER);
            rows.iter().for_each(|row| {
                table.add_row(row);
            });
            writeln!(out, "{table}")?;
            for other in &set.not_evaluated {
                writeln!(out, "not evaluated: {}/{}: {}", other.service, other.name, other.reason)?;
            }
        }
    }
    for fault in &set.faults {
        writeln!(std::io::stderr(), "{fault}")?;
    }
    errors_of(&set)
}

/// Waits for the history of a server's SLOs.
fn backfill(connection: &Connection, limit: Duration) -> Result<(), Failure> {
    const LOOK: Duration = Duration::from_millis(500);
    let began = Instant::now();
    let mut told = None;
    loop {
        let text = fetch(&format!("{}/api/v1/slos", connection.url.trim_end_matches('/')), None)?;
        let report: SlosReport = serde_json::from_str(&text).map_err(|error| Failure::Answer(error.into()))?;
        // Groups of an SLO are counted together.
        let mut progress: BTreeMap<(&str, &str), Option<f64>> = BTreeMap::new();
        for slo in &report.slos {
            progress.insert((&slo.service, &slo.slo), slo.backfill.as_ref().map(|backfill| backfill.progress));
        }
        let waiting: Vec<f64> = progress.values().filter_map(|progress| *progress).collect();
        let least = waiting.iter().copied().fold(1.0, f64::min);
        let line = match waiting.len() {
            0 => format!("{0} of {0} SLOs have their whole history", progress.len()),
            waiting => format!(
                "{} of {} SLOs have their whole history; {:.0} % of that of the others is counted",
                progress.len() - waiting,
                progress.len(),
                (least * 100.0).floor()
            ),
        };
        if told.as_ref() != Some(&line) {
            writeln!(std::io::stdout(), "{line}")?;
            told = Some(line);
        }
        if waiting.is_empty() {
            return Ok(());
        }
        if began.elapsed() > limit {
            let message = format!("{} SLOs still have none after {} s", waiting.len(), limit.as_secs());
            return Err(Failure::Unfinished(message));
        }
        #[expect(clippy::disallowed_methods, reason = "it waits for another process")]
        std::thread::sleep(LOOK);
    }
}

/// The values of a group.
fn group(values: &BTreeMap<String, String>) -> String {
    values.iter().map(|(column, value)| format!("{column}={value}")).collect::<Vec<_>>().join(" ")
}

/// Columns of the SLO report; one list for the table and for CSV.
const COLUMNS: &[Column<SloReport>] = &[
    ("service", |slo| slo.service.clone()),
    ("slo", |slo| slo.slo.clone()),
    ("group", |slo| group(&slo.group)),
    ("state", |slo| slo.state.clone()),
    ("evaluation", |slo| slo.evaluation.clone()),
    ("target", |slo| slo.target.to_string()),
    ("window", |slo| slo.window.clone()),
    ("SLI", |slo| match slo.weighted.as_ref().map(|weighted| weighted.sli_interval) {
        None => percent(slo.sli),
        Some(None) => format!("{} sampled", percent(slo.sli)),
        Some(Some([low, high])) => {
            format!("{} sampled ({} to {})", percent(slo.sli), percent(Some(low)), percent(Some(high)))
        }
    }),
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
const NUMBERS: Range<usize> = 7..14;

/// Every SLO of a running server.
pub(super) fn report(connection: &Connection) -> Result<(), Failure> {
    let text = fetch(&format!("{}/api/v1/slos", connection.url.trim_end_matches('/')), None)?;
    let mut out = std::io::stdout();
    if connection.format == Format::Json {
        return Ok(writeln!(out, "{}", text.trim_end())?);
    }
    let report: SlosReport = serde_json::from_str(&text).map_err(|error| Failure::Answer(error.into()))?;
    if connection.format == Format::Csv {
        return Ok(write_csv(&mut out, COLUMNS, &report.slos)?);
    }
    write_table(&mut out, COLUMNS, NUMBERS, &report.slos)?;
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

/// Columns of the days of an SLO; the first two are no numbers.
const DAY_COLUMNS: &[Column<SloDay>] = &[
    ("from", |day| day.from.clone()),
    ("to", |day| day.to.clone()),
    ("SLI", |day| percent(day.sli)),
    ("good", |day| day.good.to_string()),
    ("bad", |day| day.bad.to_string()),
    ("excluded", |day| day.excluded.to_string()),
    ("allowed", |day| day.allowed.clone()),
    ("spent", |day| day.spent.clone()),
    ("remaining", |day| day.remaining.clone()),
];

/// The days of the period of one SLO of a running server, or of one of its groups.
pub(super) fn report_days(connection: &Connection, name: &str, group: Option<&str>) -> Result<(), Failure> {
    let Some((service, slo)) = name.split_once('/') else {
        return Err(Failure::WrongUsage(format!(
            "\"{name}\" names no SLO (write SERVICE/NAME, as \"report slo\" shows them)"
        )));
    };
    let base = connection.url.trim_end_matches('/');
    let mut url = format!("{base}/api/v1/slos/{}/{}", encode(service), encode(slo));
    if let Some(group) = group {
        url.push_str(&format!("?group={}", encode(group)));
    }
    let text = fetch(&url, None)?;
    let mut out = std::io::stdout();
    let detail: SloDetail = serde_json::from_str(&text).map_err(|error| Failure::Answer(error.into()))?;
    match connection.format {
        Format::Json => {
            let days = serde_json::to_string(&detail.days).map_err(|error| Failure::Answer(error.into()))?;
            writeln!(out, "{days}")?;
        }
        Format::Csv => write_csv(&mut out, DAY_COLUMNS, &detail.days)?,
        Format::Table => {
            write_table(&mut out, DAY_COLUMNS, 2..DAY_COLUMNS.len(), &detail.days)?;
            let SloReport { target, window, budget, .. } = &detail.slo;
            writeln!(
                out,
                "\n{name}: target {target}, window {window}; allowed {}, spent {}, remaining {}; evaluated {}",
                budget.allowed, budget.spent, budget.remaining, detail.at.time
            )?;
        }
    }
    Ok(())
}
