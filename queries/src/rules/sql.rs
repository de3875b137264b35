//! The statements that recompute what rules decide by, and that look for causes.

use std::sync::Arc;

use toolgauge_analytics::threshold::Quantile;
use toolgauge_analytics::window::{Minute, Window};
use toolgauge_proto::id::WalPosition;
use toolgauge_proto::time::UnixMicros;

use super::definition::{Hit, OTHER, Selection, SessionFigure};
use super::stream::GroupKey;
use crate::engine::null_safe;
use crate::json::rfc3339;

const SESSIONS: &str = include_str!("../../sql/rules/sessions.sql");
/// A session that began longer before the window counts only from there.
pub(super) const SESSION_REACH: Window = Window::D1;

/// A text in SQL.
pub(super) fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// Rows that ended from a minute to before another one, up to a position of the log.
pub(super) fn span(from: Minute, to: Minute, position: Option<WalPosition>) -> String {
    let date = |time: UnixMicros| rfc3339(time).chars().take(10).collect::<String>();
    let (from, to) = (from.start(), to.start());
    let position = position.map_or(String::new(), |position| format!(" AND wal_position <= {position}"));
    // Files are found by their date.
    format!(
        "end_time >= TIMESTAMP '{}' AND end_time < TIMESTAMP '{}' AND date >= DATE '{}' AND date <= DATE '{}'{position}",
        rfc3339(from),
        rfc3339(to),
        date(from),
        date(UnixMicros(to.0 - 1))
    )
}

/// The rows of a group; `None` for that of all others, which no condition names.
fn group(by: &[&'static str], key: &GroupKey) -> Option<String> {
    if key.iter().any(|value| value.as_deref() == Some(OTHER)) {
        return None;
    }
    let conditions = by.iter().zip(key).map(|(column, value)| match value {
        Some(value) => format!(" AND {column} = {}", literal(value)),
        None => format!(" AND {column} IS NULL"),
    });
    Some(conditions.collect())
}

/// The user's condition, which may end in a comment.
fn filter(selection: &Selection) -> String {
    let Some(filter) = &selection.filter else { return String::new() };
    let text = null_safe(filter.text.text.trim());
    if text.contains("--") { format!(" AND ({text}\n)") } else { format!(" AND ({text})") }
}

/// The rows that a selection sums, of one group and window.
pub(super) fn scope(selection: &Selection, key: &GroupKey, span: &str) -> Option<String> {
    let is_final = if selection.final_only { " AND final" } else { "" };
    let group = group(&selection.by, key)?;
    Some(format!("counted{is_final} AND {}{}{group} AND {span}", selection.calls.sql(), filter(selection)))
}

/// A statement that sums them.
pub(super) fn recount(selection: &Selection, scope: &str) -> String {
    match selection.hit {
        Hit::Nothing => format!(
            "SELECT count(*) AS calls, count(cost_usd) AS priced, sum(cost_usd) AS cost_usd FROM calls WHERE {scope}"
        ),
        hit => format!(
            "SELECT count(*) AS calls, count(*) FILTER (WHERE {}) AS {} FROM calls WHERE {scope}",
            hit.sql(),
            hit.noun()
        ),
    }
}

/// A statement that gives the quantile of durations in nanoseconds.
pub(super) fn quantile(quantile: Quantile, scope: &str) -> String {
    format!(
        "SELECT duration_ns FROM (SELECT duration_ns, row_number() OVER (ORDER BY duration_ns) AS rank, count(*) OVER () AS n \
         FROM calls WHERE {scope}) AS ranked WHERE rank = greatest((n * {} + 999999999) / 1000000000, 1)",
        quantile.units()
    )
}

/// What failed most, or cost most, and some traces of it.
pub(super) fn causes(selection: &Selection, scope: &str) -> Vec<(&'static str, String)> {
    let what = "coalesce(service_name, '?') || ' ' || coalesce(tool_server || '/', '') || coalesce(tool_name, model, agent_name, '?')";
    if selection.hit == Hit::Nothing {
        let contributors = format!(
            "SELECT {what} || ' ' || CAST(sum(cost_usd) AS VARCHAR) || ' USD' AS name FROM calls WHERE {scope} \
             AND cost_usd IS NOT NULL GROUP BY {what} ORDER BY sum(cost_usd) DESC, name LIMIT 5"
        );
        let traces = format!(
            "SELECT hex(trace_id) FROM calls WHERE {scope} AND trace_id IS NOT NULL AND cost_usd IS NOT NULL \
             GROUP BY trace_id ORDER BY sum(cost_usd) DESC, trace_id LIMIT 3"
        );
        return vec![("top_contributors", contributors), ("example_traces", traces)];
    }
    let hit = selection.hit.sql();
    let class = if selection.hit == Hit::Error { " || ' ' || error_class" } else { "" };
    let contributors = format!(
        "SELECT {what}{class} AS name, count(*) AS n FROM calls WHERE {scope} AND {hit} GROUP BY 1 ORDER BY n DESC, name LIMIT 5"
    );
    let traces = format!(
        "SELECT hex(trace_id) AS trace, max(end_time) AS newest FROM calls WHERE {scope} AND {hit} AND trace_id IS NOT NULL \
         GROUP BY 1 ORDER BY newest DESC, 1 LIMIT 3"
    );
    vec![("top_contributors", contributors), ("example_traces", traces)]
}

/// Which sessions a statement is about.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sessions<'a> {
    pub(super) selection: &'a Selection,
    pub(super) figure: SessionFigure,
    pub(super) quantile: Quantile,
    pub(super) window: Window,
    pub(super) idle_us: i64,
}

/// A statement that gives the groups, the sessions in each, and the quantile of their figures.
pub(super) fn sessions(
    of: &Sessions<'_>,
    now: Minute,
    position: WalPosition,
    only: Option<&GroupKey>,
) -> Option<String> {
    let first = *of.window.at(now).start();
    let reach = Minute(first.0 - i64::from(SESSION_REACH.minutes()));
    let by: String = of.selection.by.iter().map(|column| format!("{column}, ")).collect();
    let over = if by.is_empty() { String::new() } else { format!("PARTITION BY {}", by.trim_end_matches(", ")) };
    let value = match of.figure {
        SessionFigure::Iterations => "nullif(count(*) FILTER (WHERE kind = 'model'), 0)",
        SessionFigure::Cost => "sum(cost_usd) FILTER (WHERE kind <> 'agent')",
        SessionFigure::Duration => "CAST(max(end_time) AS BIGINT) - CAST(min(start_time) AS BIGINT)",
    };
    let group = match only {
        Some(key) => group(&of.selection.by, key)?,
        None => String::new(),
    };
    let scope = format!("{}{}{group}", span(reach, Minute(now.0 + 1), Some(position)), filter(of.selection));
    let statement = SESSIONS
        .replace("{by}", &by)
        .replace("{over}", &over)
        .replace("{idle_us}", &of.idle_us.to_string())
        .replace("{value}", value)
        .replace("{from}", &rfc3339(first.start()))
        .replace("{quantile}", &of.quantile.units().to_string())
        .replace("{groups_max}", &of.selection.groups_max.to_string())
        .replace("{scope}", &scope);
    Some(statement)
}

/// The values of a group as canonical JSON.
pub(super) fn group_json(by: &[&'static str], key: &GroupKey) -> String {
    let values: std::collections::BTreeMap<&str, Option<&Arc<str>>> =
        by.iter().copied().zip(key.iter().map(Option::as_ref)).collect();
    let values: std::collections::BTreeMap<&str, Option<&str>> =
        values.into_iter().map(|(column, value)| (column, value.map(|value| &**value))).collect();
    serde_json::to_string(&values).unwrap_or_else(|_| "{}".to_owned())
}
