//! `toolgauge slo explain`.

use std::io::Write as _;
use std::path::PathBuf;

use comfy_table::CellAlignment;
use toolgauge_analytics::window::Window;
use toolgauge_queries::slo::explain::{Explained, TierExplained, TrafficExplained, explain};

use super::super::{Failure, Format, csv, plain_table};
use super::asked::{Asked, Whom, last};
use super::chosen;

pub(super) fn run(paths: Vec<PathBuf>, name: Option<&str>, format: Format, whom: &Whom) -> Result<(), Failure> {
    let slos = chosen(paths, name)?;
    let asked = Asked::open(whom)?;
    let mut explained = Vec::with_capacity(slos.len());
    for slo in &slos {
        let rate = match &asked {
            Some(asked) => Some(asked.counts(slo, last(Window::D1))?.total() as f64 / 24.0),
            None => None,
        };
        explained.push(explain(&slo.slo, rate));
    }
    asked.map_or(Ok(()), Asked::close)?;
    let mut out = std::io::stdout();
    match format {
        Format::Json => {
            let text = serde_json::to_string_pretty(&explained).map_err(|error| Failure::Answer(error.into()))?;
            writeln!(out, "{text}")?;
        }
        Format::Csv => {
            writeln!(out, "service,slo,{}", COLUMNS.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(","))?;
            for slo in &explained {
                for (tier, traffic) in rows(slo) {
                    let fields = COLUMNS.iter().map(|(_, value)| csv(&value(tier, traffic)));
                    let fields: Vec<String> = [csv(&slo.service), csv(&slo.slo)].into_iter().chain(fields).collect();
                    writeln!(out, "{}", fields.join(","))?;
                }
            }
        }
        Format::Table => {
            for slo in &explained {
                write(&mut out, slo)?;
            }
        }
    }
    Ok(())
}

/// Each tier at each rate of events.
fn rows(slo: &Explained) -> impl Iterator<Item = (&TierExplained, &TrafficExplained)> {
    slo.tiers.iter().flat_map(|tier| tier.traffic.iter().map(move |traffic| (tier, traffic)))
}

type Column = (&'static str, fn(&TierExplained, &TrafficExplained) -> String);

const COLUMNS: &[Column] = &[
    ("tier", |tier, _| tier.burn_tier.clone()),
    ("severity", |tier, _| tier.severity.clone()),
    ("long", |tier, _| tier.long_window.clone()),
    ("short", |tier, _| tier.short_window.clone()),
    ("burn rate", |tier, _| tier.factor.clone()),
    ("error ratio", |tier, _| format!("{:.3} %", tier.error_ratio * 100.0)),
    ("outage fires in", |tier, _| seconds(tier.detection_s)),
    ("and ends in", |tier, _| seconds(tier.reset_s)),
    ("events/h", |_, traffic| format!("{:.0}", traffic.events_per_hour)),
    ("bad in long", |_, traffic| traffic.bad_events.to_string()),
    ("false in 30d", |_, traffic| rate(traffic.false_alerts_per_30_days)),
    ("without guards", |_, traffic| rate(traffic.without_guards)),
];

fn begins(traffic: &TrafficExplained) -> Option<String> {
    let TrafficExplained { events_per_hour, begins_per_day_at_factor, begins_per_day_kept, .. } = traffic;
    Some(format!("{:.1} and {:.1} at {events_per_hour:.0}/h", (*begins_per_day_at_factor)?, (*begins_per_day_kept)?))
}

fn rate(alerts: Option<f64>) -> String {
    match alerts {
        None => String::new(),
        Some(alerts) if alerts > 0.0 && alerts < 0.001 => "<0.001".to_owned(),
        Some(alerts) => format!("{alerts:.3}"),
    }
}

fn seconds(seconds: f64) -> String {
    let whole = seconds.ceil() as u64;
    match (whole / 3_600, whole % 3_600 / 60, whole % 60) {
        (0, 0, seconds) => format!("{seconds}s"),
        (0, minutes, seconds) => format!("{minutes}m{seconds:02}s"),
        (hours, minutes, _) => format!("{hours}h{minutes:02}m"),
    }
}

fn write(out: &mut impl std::io::Write, slo: &Explained) -> std::io::Result<()> {
    let Explained { service, slo: name, target, period, budgeting, allowed, .. } = slo;
    writeln!(out, "{service}/{name}: target {target} of {budgeting} over {period}; {allowed} may be bad")?;
    let mut table = plain_table();
    table.set_header(COLUMNS.iter().map(|(name, _)| *name));
    for (tier, traffic) in rows(slo) {
        table.add_row(COLUMNS.iter().map(|(_, value)| value(tier, traffic)));
    }
    for column in 4..COLUMNS.len() {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    writeln!(out, "{table}")?;
    for tier in &slo.tiers {
        write!(out, "  {}: {}", tier.burn_tier, tier.source)?;
        if let Some(adapted) = &tier.adapted {
            write!(out, "; {adapted}")?;
        }
        if !tier.guards.is_empty() {
            write!(out, "; fires only with {}", tier.guards.join(", and "))?;
        }
        if tier.pending_s > 0 {
            write!(out, "; has to burn for {}", seconds(tier.pending_s as f64))?;
        }
        if tier.keep_firing_s > 0 {
            write!(out, "; goes on for {} after it burnt last", seconds(tier.keep_firing_s as f64))?;
        }
        writeln!(out)?;
        let keep = if tier.keep_firing_s > 0 { seconds(tier.keep_firing_s as f64) } else { tier.short_window.clone() };
        let begins: Vec<String> = tier.traffic.iter().filter_map(begins).collect();
        if !begins.is_empty() {
            writeln!(out, "    begins a day near its burn rate, and if it goes on for {keep}: {}", begins.join(", "))?;
        }
    }
    for note in &slo.notes {
        writeln!(out, "  {note}")?;
    }
    writeln!(
        out,
        "  outage: everything fails from one moment on, at steady traffic; an evaluation may take 10 s more\n  false: expected \
         alerts in 30 days while failures are independent and just meet the objective\n"
    )
}
