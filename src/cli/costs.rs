//! `toolgauge report costs`.

use std::io::Write as _;

use clap::{Args, ValueEnum};
use comfy_table::CellAlignment;
use toolgauge_proto::api::costs::{CostGroup, Costs as Figures, CostsReport, PeriodForecast};

use super::{Connection, Failure, Format, csv, encode, fetch, percent, plain_table};

#[derive(Debug, Args)]
pub(super) struct Costs {
    /// What the costs are grouped by
    #[arg(long, value_enum, default_value_t = By::Tool)]
    by: By,
    /// Start: RFC 3339, or relative like -1h
    #[arg(long, allow_hyphen_values = true)]
    from: Option<String>,
    /// End: RFC 3339, or relative, or now
    #[arg(long, allow_hyphen_values = true)]
    to: Option<String>,
    /// Only this service
    #[arg(long)]
    service: Option<String>,
    /// Only this environment
    #[arg(long)]
    environment: Option<String>,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum By {
    Tool,
    Service,
    Model,
    Agent,
    Team,
    Session,
    User,
    Day,
}

/// A column's heading, and its value.
type Column = (&'static str, fn(&Figures) -> String);

/// Columns of figures; one list for the table and for CSV.
const COLUMNS: &[Column] = &[
    ("attempts", |costs| match &costs.weighted_attempts {
        Some(weighted) => format!("{} for {weighted}", costs.attempts),
        None => costs.attempts.to_string(),
    }),
    ("priced", |costs| percent(costs.cost_coverage)),
    ("cost USD", |costs| costs.cost_usd.clone().unwrap_or_default()),
    ("cost/call", |costs| costs.cost_per_call_usd.clone().unwrap_or_default()),
    ("cost/success", |costs| costs.cost_per_success_usd.clone().unwrap_or_default()),
    ("wasted USD", |costs| costs.wasted_cost_usd.clone().unwrap_or_default()),
    ("tools USD", |costs| costs.tools_cost_usd.clone().unwrap_or_default()),
    ("models USD", |costs| costs.models_cost_usd.clone().unwrap_or_default()),
];

/// The cells of a line that say what it is of.
fn names(group: &CostGroup, by: &str) -> Vec<String> {
    let name = group.name.clone().unwrap_or_default();
    match by {
        "tool" => vec![group.tool_server.clone().unwrap_or_default(), name],
        _ => vec![name],
    }
}

pub(super) fn report(costs: &Costs) -> Result<(), Failure> {
    let by = costs.by.to_possible_value().map(|by| by.get_name().to_owned()).unwrap_or_default();
    let mut url = format!("{}/api/v1/costs?by={by}", costs.connection.url.trim_end_matches('/'));
    let parameters =
        [("from", &costs.from), ("to", &costs.to), ("service", &costs.service), ("environment", &costs.environment)];
    for (name, value) in parameters {
        if let Some(value) = value {
            url.push_str(&format!("&{name}={}", encode(value)));
        }
    }
    let text = fetch(&url, None)?;
    let mut out = std::io::stdout();
    if costs.connection.format == Format::Json {
        return Ok(writeln!(out, "{}", text.trim_end())?);
    }
    let report: CostsReport = serde_json::from_str(&text).map_err(|error| Failure::Answer(error.into()))?;
    let mut header = if by == "tool" { vec!["server", "tool"] } else { vec![&*by] };
    let named = header.len();
    header.extend(COLUMNS.iter().map(|(name, _)| *name));
    let line = |group: &CostGroup| {
        let figures = COLUMNS.iter().map(|(_, value)| value(&group.costs));
        names(group, &by).into_iter().chain(figures).collect::<Vec<_>>()
    };
    if costs.connection.format == Format::Csv {
        writeln!(out, "{}", header.join(","))?;
        for group in &report.groups {
            let fields: Vec<String> = line(group).iter().map(|field| csv(field)).collect();
            writeln!(out, "{}", fields.join(","))?;
        }
    } else {
        let mut table = plain_table();
        table.set_header(header);
        for group in &report.groups {
            table.add_row(line(group));
        }
        for column in named..named + COLUMNS.len() {
            if let Some(column) = table.column_mut(column) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        writeln!(out, "{table}")?;
        summary(&mut out, &report)?;
    }
    if report.truncated {
        writeln!(std::io::stderr(), "cut after {} groups (raise `queries.rows`)", report.groups.len())?;
    }
    Ok(())
}

/// What follows the table.
fn summary(out: &mut impl std::io::Write, report: &CostsReport) -> std::io::Result<()> {
    let CostsReport { scope, total, forecast, .. } = report;
    let dollars =
        |amount: &Option<String>| amount.as_ref().map_or_else(|| "unknown".to_owned(), |usd| format!("{usd} USD"));
    writeln!(
        out,
        "\ntotal {}, {} of {} calls priced, wasted {}",
        dollars(&total.cost_usd),
        percent(total.cost_coverage),
        total.attempts,
        dollars(&total.wasted_cost_usd)
    )?;
    if total.sampled {
        writeln!(out, "sampled: some attempts stand for several; costs are of those that are known")?;
    }
    for (name, PeriodForecast { cost_usd, forecast_usd, .. }) in [("day", &forecast.day), ("month", &forecast.month)] {
        writeln!(
            out,
            "this {name} (UTC): {} so far, {} if it goes on like this",
            dollars(cost_usd),
            dollars(forecast_usd)
        )?;
    }
    writeln!(
        out,
        "{} to {}, {} of its minutes covered, {} calls provisional, watermark {}",
        scope.from,
        scope.to,
        percent(Some(scope.coverage)),
        scope.provisional,
        scope.watermark
    )
}
