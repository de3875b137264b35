//! The sessions report.

use std::sync::Arc;

use toolgauge_proto::api::sessions::{SessionReport, SessionsReport};
use toolgauge_proto::lake::View;
use toolgauge_proto::time::UnixMicros;

use super::{Range, Rows, money_text, over_snapshot, timestamp};
use crate::engine::{Engine, Error};
use crate::json::rfc3339;
use crate::tables::Catalog;

const SESSIONS: &str = include_str!("../../sql/sessions.sql");

/// Sessions whose last call so far ended in the range, at most `limit` of them, the latest first.
///
/// # Errors
/// See [`Error`].
pub async fn sessions(
    engine: &Engine,
    catalog: &Catalog,
    view: Arc<View>,
    now: UnixMicros,
    range: Range,
    limit: usize,
) -> Result<SessionsReport, Error> {
    over_snapshot(engine, catalog, &view, now, async move |session, snapshot| {
        // One more tells whether there are more.
        let statement = SESSIONS.replace("{limit}", &limit.saturating_add(1).to_string());
        let parameters = vec![("from", timestamp(range.from)), ("to", timestamp(range.to))];
        let answer = session.query(&statement, parameters).await?;
        let rows = Rows::new(&answer)?;
        let sessions = (0..rows.len().min(limit)).map(|row| session_report(&rows, row));
        Ok(SessionsReport {
            sessions: sessions.collect::<Result<_, Error>>()?,
            truncated: answer.truncated || rows.len() > limit,
            scope: snapshot.scope(&session, &range).await?,
        })
    })
    .await
}

fn session_report(rows: &Rows, row: usize) -> Result<SessionReport, Error> {
    let count = |column| rows.count(column, row);
    let tokens = |column: usize| if rows.is_null(column, row) { Ok(None) } else { count(column).map(Some) };
    Ok(SessionReport {
        tenant: rows.text(0, row)?.unwrap_or_default(),
        session_id: rows.text(1, row)?.unwrap_or_default(),
        start_time: rfc3339(rows.timestamp(2, row)?),
        end_time: rfc3339(rows.timestamp(3, row)?),
        duration_ms: rows.integer(4, row)? as f64 / 1e6,
        closed: count(5)? == 1,
        outcome: rows.text(6, row)?.unwrap_or_default(),
        completed: count(7)? == 1,
        iterations: count(8)?,
        tool_calls: count(9)?,
        logical_tool_calls: count(10)?,
        tool_errors: count(11)?,
        logical_tool_errors: count(12)?,
        agent_runs: count(13)?,
        input_tokens: tokens(14)?,
        output_tokens: tokens(15)?,
        cost_usd: rows.money(16, row)?.map(money_text),
    })
}
