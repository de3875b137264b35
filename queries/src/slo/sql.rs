//! The SQL that counts what an SLO counts.

use toolgauge_proto::id::WalPosition;
use toolgauge_proto::time::UnixMicros;

use super::definition::{Judged, Mode, Sli};
use crate::engine::null_safe;
use crate::json::rfc3339;

/// Which rows a statement is over: `[from, to)` by `end_time`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// Start, inclusive.
    pub from: UnixMicros,
    /// End, exclusive.
    pub to: UnixMicros,
    /// Only rows up to this position of the log.
    pub position: Option<WalPosition>,
}

/// The conditions that select the rows of a span that an SLI looks at.
#[must_use]
pub fn scope(sli: &Sli, span: &Span) -> String {
    let whose = sli.layer.map_or("counted".to_owned(), |layer| format!("layer = '{layer}'"));
    let which = match sli.mode {
        Mode::Logical => " AND final",
        Mode::Attempt => "",
    };
    let position = span.position.map_or(String::new(), |position| format!(" AND wal_position <= {position}"));
    let (from, to) = (rfc3339(span.from), rfc3339(span.to));
    let date = |time: UnixMicros| rfc3339(time).chars().take(10).collect::<String>();
    // Files are found by their date.
    let last = UnixMicros(span.to.0 - 1);
    format!(
        "{whose}{which} AND end_time >= TIMESTAMP '{from}' AND end_time < TIMESTAMP '{to}' \
         AND date >= DATE '{}' AND date <= DATE '{}'{position}",
        date(span.from),
        date(last)
    )
}

/// An expression in parentheses, null where it cannot be computed; it may end in a comment.
fn bracketed(text: &str) -> String {
    let text = null_safe(text);
    if text.contains("--") { format!("({text}\n)") } else { format!("({})", text.trim()) }
}

/// The condition of the events of the total.
#[must_use]
pub fn total(sli: &Sli) -> String {
    bracketed(&sli.total.text)
}

/// The condition of the bad events.
#[must_use]
pub fn bad(sli: &Sli) -> String {
    let (total, judge) = (total(sli), bracketed(&sli.judge.text));
    match sli.judged {
        Judged::Good => format!("{total} AND NOT coalesce({judge}, FALSE)"),
        Judged::Bad => format!("{total} AND {judge}"),
    }
}

/// A statement that counts the good and the bad events of a span.
#[must_use]
pub fn recount(sli: &Sli, span: &Span) -> String {
    let (total, bad) = (total(sli), bad(sli));
    format!(
        "SELECT count(*) FILTER (WHERE {total}) - count(*) FILTER (WHERE {bad}) AS good, \
         count(*) FILTER (WHERE {bad}) AS bad FROM calls WHERE {}",
        scope(sli, span)
    )
}

/// A statement that counts the good, bad and excluded events of a span, and those for which a condition is null: one row, or one for each minute
/// (`minute`, since 1970) and group. `scope_of` is [`crate::slo::counter::CompiledSli::scope`].
#[must_use]
pub fn counts(sli: &Sli, scope_of: &[(String, String)], by: By<'_>, span: &Span) -> String {
    let (total, bad) = (total(sli), bad(sli));
    let judge = bracketed(&sli.judge.text);
    let fixed: String =
        scope_of.iter().map(|(column, text)| format!(" AND \"{column}\" = '{}'", text.replace('\'', "''"))).collect();
    let (mut keys, mut keys_count) = (String::new(), 0);
    if let By::MinuteAnd(columns) = by {
        keys.push_str("to_unixtime(date_trunc('minute', end_time)) / 60 AS minute, ");
        keys_count = columns.len() + 1;
        for column in columns {
            keys.push_str(&format!("coalesce(\"{column}\", '') AS \"{column}\", "));
        }
    }
    let mut sql = format!(
        "SELECT {keys}count(*) FILTER (WHERE {total}) - count(*) FILTER (WHERE {bad}) AS good, \
         count(*) FILTER (WHERE {bad}) AS bad, count(*) - count(*) FILTER (WHERE {total}) AS excluded, \
         count(*) FILTER (WHERE {total} IS NULL OR ({total} AND {judge} IS NULL)) AS nulls FROM calls WHERE {}{fixed}",
        scope(sli, span)
    );
    if keys_count > 0 {
        let numbers: Vec<String> = (1..=keys_count).map(|number| number.to_string()).collect();
        sql.push_str(&format!(" GROUP BY {0} ORDER BY {0}", numbers.join(", ")));
    }
    sql
}

/// What a statement counts by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By<'a> {
    /// All together.
    Nothing,
    /// The minute, and the columns of a group.
    MinuteAnd(&'a [&'static str]),
}
