//! The SQL that counts what an evaluation counts.

use std::fmt::Write as _;

use toolgauge_analytics::budget::TARGET_PLACES;
use toolgauge_analytics::calendar::Span;
use toolgauge_analytics::window::Minute;
use toolgauge_proto::id::WalPosition;

use crate::json::rfc3339;
use crate::slo::definition::{Budgeting, Slo};
use crate::slo::sql::{self, recount, scope};

/// A statement that counts the good and the bad events of some minutes, or the good and the bad slices that begin in them, over the rows up
/// to a position of the log. `group` is the condition of the SLO's group, if it has groups ([`Group::condition`](crate::slo::group::Group::condition)).
#[must_use]
pub fn statement(slo: &Slo, group: &str, minutes: Span, position: Option<WalPosition>) -> String {
    let span = |minutes: Span| sql::Span { from: minutes.start.start(), to: minutes.end.start(), position };
    match slo.budgeting {
        Budgeting::Occurrences => recount(&slo.sli, &span(minutes)) + group + &excluded(slo, minutes),
        Budgeting::Timeslices(slices) => {
            let minutes = slices.minutes_of(minutes);
            let (total, bad) = (sql::total(&slo.sli), sql::bad(&slo.sli));
            // A target has no more places than this.
            let one = 10_u64.pow(TARGET_PLACES);
            let target = slices.target().rounded(TARGET_PLACES).unwrap_or_default();
            format!(
                "SELECT count(*) FILTER (WHERE good * {one} >= total * {target}) AS good, \
                 count(*) FILTER (WHERE good * {one} < total * {target}) AS bad FROM (SELECT \
                 CAST(count(*) FILTER (WHERE {total}) - count(*) FILTER (WHERE {bad}) AS DECIMAL(24, 0)) AS good, \
                 CAST(count(*) FILTER (WHERE {total}) AS DECIMAL(24, 0)) AS total FROM calls WHERE {}{group}{} \
                 GROUP BY date_bin(INTERVAL '{} minutes', end_time, TIMESTAMP '1970-01-01T00:00:00Z')) WHERE total > 0",
                scope(&slo.sli, &span(minutes)),
                excluded(slo, minutes),
                slices.length().minutes()
            )
        }
    }
}

/// Conditions that leave out the minutes that do not count.
fn excluded(slo: &Slo, minutes: Span) -> String {
    let mut text = String::new();
    let time = |minute: Minute| rfc3339(minute.start());
    for span in slo.exclusions.iter().filter(|span| span.start < minutes.end && minutes.start < span.end) {
        // Writing to memory does not fail.
        let _infallible = write!(
            text,
            " AND NOT (end_time >= TIMESTAMP '{}' AND end_time < TIMESTAMP '{}')",
            time(span.start),
            time(span.end)
        );
    }
    text
}
