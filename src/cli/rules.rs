//! `toolgauge rules`.

use std::io::Write as _;

use comfy_table::CellAlignment;
use toolgauge_proto::api::rule::RulesReport;

use super::{Connection, Failure, Format, csv, fetch, plain_table};

const HEADER: [&str; 7] = ["kind", "rule", "group", "figure", "threshold", "evaluation", "state"];

/// A line for each threshold and budget and group of it, and for each service and tool that is silent.
fn lines(report: &RulesReport) -> Vec<[String; 7]> {
    let group = |group: &std::collections::BTreeMap<String, Option<String>>| {
        group.values().map(|value| value.as_deref().unwrap_or("-")).collect::<Vec<_>>().join(" ")
    };
    let mut lines = Vec::new();
    for rule in &report.thresholds {
        for found in &rule.groups {
            let figure = match (found.value, found.hits) {
                (Some(value), _) => format!("{value:.4} of {}", found.events),
                (None, Some(hits)) if found.events > 0 => format!("{hits} of {} reach it", found.events),
                _ => String::new(),
            };
            let metric =
                rule.quantile.as_ref().map_or(rule.metric.clone(), |quantile| format!("{quantile} {}", rule.metric));
            let threshold = format!("{} over {}", rule.threshold, rule.window);
            lines.push([
                metric,
                rule.name.clone(),
                group(&found.group),
                figure,
                threshold,
                found.evaluation.clone(),
                found.state.clone(),
            ]);
        }
    }
    for budget in &report.cost_budgets {
        for found in &budget.groups {
            let state = |name: &str| found.tiers.iter().find(|tier| tier.burn_tier == name);
            let worst = ["exceeded", "fast", "forecast"]
                .into_iter()
                .find(|name| state(name).is_some_and(|tier| tier.state == "firing"));
            lines.push([
                "cost_budget".to_owned(),
                budget.name.clone(),
                group(&found.group),
                format!("{} spent, {} forecast", found.spent_usd, found.forecast_usd),
                format!("{} a {}", budget.amount_usd, budget.period),
                found.tiers.first().map_or(String::new(), |tier| tier.evaluation.clone()),
                worst.map_or("inactive".to_owned(), |tier| format!("firing ({tier})")),
            ]);
        }
    }
    for beat in report.heartbeats.iter().filter(|beat| beat.silent) {
        lines.push([
            "heartbeat".to_owned(),
            beat.rule.clone().unwrap_or_default(),
            [Some(&beat.service), beat.tool.as_ref()].into_iter().flatten().cloned().collect::<Vec<_>>().join(" "),
            format!("{} min", beat.silence_minutes),
            beat.limit_minutes.map_or(String::new(), |limit| format!("{limit} min")),
            String::new(),
            "silent".to_owned(),
        ]);
    }
    lines
}

/// Every rule of a running server.
pub(super) fn list(connection: &Connection) -> Result<(), Failure> {
    let text = fetch(&format!("{}/api/v1/rules", connection.url.trim_end_matches('/')), None)?;
    let mut out = std::io::stdout();
    if connection.format == Format::Json {
        return Ok(writeln!(out, "{}", text.trim_end())?);
    }
    let report: RulesReport = serde_json::from_str(&text).map_err(|error| Failure::Answer(error.into()))?;
    let lines = lines(&report);
    if connection.format == Format::Csv {
        writeln!(out, "{}", HEADER.join(","))?;
        for line in &lines {
            writeln!(out, "{}", line.iter().map(|field| csv(field)).collect::<Vec<_>>().join(","))?;
        }
        return Ok(());
    }
    let mut table = plain_table();
    table.set_header(HEADER);
    lines.into_iter().for_each(|line| {
        table.add_row(line);
    });
    for column in [3, 4] {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    writeln!(out, "{table}")?;
    writeln!(out, "\n{} services and tools are listened to; evaluated {}", report.heartbeats.len(), report.at.time)?;
    Ok(())
}
