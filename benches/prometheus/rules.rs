//! Rules as Sloth writes them for an SLO of 30 days: 15 that record, 2 that alert.

use std::fmt::Write as _;

use super::TARGET;
use super::traffic;

pub(crate) const PER_SLO: usize = 17;
/// Groups of an SLO.
pub(crate) const GROUPS: usize = 3;
const WINDOWS: [&str; 7] = ["5m", "30m", "1h", "2h", "6h", "1d", "3d"];

/// The labels by which rules find what others have recorded.
pub(crate) fn labels(slo: usize) -> String {
    format!("sloth_id=\"load-slo-{slo}\", sloth_service=\"load\", sloth_slo=\"slo-{slo}\"")
}

/// The file of rules.
pub(crate) fn file(slos: usize, interval_s: u64) -> Result<String, std::fmt::Error> {
    let mut text = "groups:\n".to_owned();
    for slo in 0..slos {
        group(&mut text, slo, interval_s)?;
    }
    Ok(text)
}

fn group(text: &mut String, slo: usize, interval_s: u64) -> std::fmt::Result {
    let (of, tool) = (labels(slo), traffic::tool(slo));
    let fixed = format!("sloth_id: load-slo-{slo}, sloth_service: load, sloth_slo: slo-{slo}");
    let begin =
        |text: &mut String, name: &str| writeln!(text, "- name: {name}-{slo}\n  interval: {interval_s}s\n  rules:");
    let record = |text: &mut String, name: &str, expr: &str, more: &str| {
        writeln!(text, "  - record: {name}\n    expr: {expr}\n    labels: {{{fixed}{more}}}")
    };
    begin(text, "sloth-slo-sli-recordings")?;
    for window in WINDOWS {
        let expr = format!(
            "(sum(rate(tool_failures_total{{tool=\"{tool}\"}}[{window}]))) / (sum(rate(tool_calls_total{{tool=\"{tool}\"}}[{window}])))"
        );
        record(text, &format!("slo:sli_error:ratio_rate{window}"), &expr, &format!(", sloth_window: {window}"))?;
    }
    let expr = format!(
        "sum_over_time(slo:sli_error:ratio_rate5m{{{of}}}[30d]) / ignoring (sloth_window) \
         count_over_time(slo:sli_error:ratio_rate5m{{{of}}}[30d])"
    );
    record(text, "slo:sli_error:ratio_rate30d", &expr, ", sloth_window: 30d")?;

    begin(text, "sloth-slo-meta-recordings")?;
    let burn = |ratio: &str| {
        format!("{ratio}{{{of}}} / on(sloth_id, sloth_slo, sloth_service) group_left slo:error_budget:ratio{{{of}}}")
    };
    for (name, expr) in [
        ("slo:objective:ratio", format!("vector({TARGET})")),
        ("slo:error_budget:ratio", format!("vector(1-{TARGET})")),
        ("slo:time_period:days", "vector(30)".to_owned()),
        ("slo:current_burn_rate:ratio", burn("slo:sli_error:ratio_rate5m")),
        ("slo:period_burn_rate:ratio", burn("slo:sli_error:ratio_rate30d")),
        ("slo:period_error_budget_remaining:ratio", format!("1 - slo:period_burn_rate:ratio{{{of}}}")),
        ("sloth_slo_info", "vector(1)".to_owned()),
    ] {
        record(text, name, &expr, "")?;
    }

    begin(text, "sloth-slo-alerts")?;
    let both = |short: &str, long: &str, factor: f64| {
        let over = |window: &str| {
            format!("max(slo:sli_error:ratio_rate{window}{{{of}}} > ({factor} * (1-{TARGET}))) without (sloth_window)")
        };
        format!("({} and {})", over(short), over(long))
    };
    for (severity, expr) in [
        ("page", format!("{} or {}", both("5m", "1h", 14.4), both("30m", "6h", 6.0))),
        ("ticket", format!("{} or {}", both("2h", "1d", 3.0), both("6h", "3d", 1.0))),
    ] {
        writeln!(text, "  - alert: ErrorBudgetBurn\n    expr: {expr}\n    labels: {{sloth_severity: {severity}}}")?;
    }
    Ok(())
}
