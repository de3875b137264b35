//! The rows of one trace.

use std::sync::Arc;

use datafusion::common::ScalarValue;
use toolgauge_proto::api::why::WhyCall;
use toolgauge_proto::id::TraceId;
use toolgauge_proto::lake::View;
use toolgauge_proto::time::UnixMicros;

use super::over_snapshot;
use crate::engine::{Engine, Error};
use crate::json;
use crate::tables::Catalog;

const CALLS_OF_TRACE: &str = include_str!("../../sql/calls_of_trace.sql");

/// The rows of `calls` of a trace, and whether the row limit cut them.
///
/// # Errors
/// See [`Error`].
pub async fn calls_of(
    engine: &Engine,
    catalog: &Catalog,
    view: Arc<View>,
    now: UnixMicros,
    trace_id: TraceId,
) -> Result<(Vec<WhyCall>, bool), Error> {
    over_snapshot(engine, catalog, &view, now, async move |session, _| {
        let parameters = vec![("trace_id", ScalarValue::Binary(Some(trace_id.as_bytes().to_vec())))];
        let answer = session.query(CALLS_OF_TRACE, parameters).await?;
        let rows = json::response(&answer).map_err(|error| Error::Internal(format!("write the rows: {error}")))?;
        let names: Vec<String> = rows.columns.into_iter().map(|column| column.name).collect();
        let calls = rows.rows.into_iter().map(|row| names.iter().cloned().zip(row).collect()).collect();
        Ok((calls, answer.truncated))
    })
    .await
}
