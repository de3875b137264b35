//! Costs, and which calls have none.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::response::Response;
use serde::Deserialize;
use tokio::sync::Mutex;
use tokio::time::Instant;
use toolgauge_proto::api::UnpricedCounts;
use toolgauge_proto::api::costs::{CostsReport, UnpricedReport};
use toolgauge_proto::time::UnixMicros;

use super::problem::Fault;
use super::{Api, json_response, parameters, range};
use crate::engine::Error;
use crate::json::rfc3339;
use crate::report::{self, CostsBy, Range};

/// How far back it is looked for calls without a cost, for the status.
const LOOK_BACK_MICROS: i64 = 24 * 3_600_000_000;
/// How long that is kept: those who watch the status ask every few seconds.
const KEPT: Duration = Duration::from_secs(60);

/// Longest time that the status waits for it.
const PATIENCE: Duration = Duration::from_secs(2);

/// What was found last, if anything could be, and when.
pub(super) type Kept = Mutex<Option<(Instant, Option<UnpricedCounts>)>>;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CostsParameters {
    by: Option<String>,
    from: Option<String>,
    to: Option<String>,
    service: Option<String>,
    environment: Option<String>,
}

pub(super) async fn costs(
    State(api): State<Arc<Api>>,
    query: Result<Query<CostsParameters>, QueryRejection>,
) -> Result<Response, Fault> {
    let CostsParameters { by, from, to, service, environment } = parameters(query)?;
    let by = match by.as_deref() {
        None => CostsBy::Tool,
        Some(word) => CostsBy::from_word(word).ok_or_else(|| {
            let words = CostsBy::ALL.map(CostsBy::as_str).join(", ");
            Fault::bad_request(format!("\"by\" must be one of {words}, got {word:?}"))
        })?,
    };
    let (from, to) = range::range(from.as_deref(), to.as_deref(), api.clock.now()).map_err(Fault::bad_request)?;
    json_response(&api.costs(Range { service, environment, ..Range::new(from, to) }, by).await?)
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct UnpricedParameters {
    from: Option<String>,
}

pub(super) async fn unpriced(
    State(api): State<Arc<Api>>,
    query: Result<Query<UnpricedParameters>, QueryRejection>,
) -> Result<Response, Fault> {
    let UnpricedParameters { from } = parameters(query)?;
    let (from, _) = range::range(from.as_deref(), None, api.clock.now()).map_err(Fault::bad_request)?;
    json_response(&api.unpriced(from).await?)
}

/// Calls of the last day without a cost; `None` if that cannot be found out now. Looked up at most once a minute.
pub(super) async fn unpriced_counts(api: &Api) -> Option<UnpricedCounts> {
    let mut kept = api.unpriced.lock().await;
    if let Some((at, counts)) = &*kept
        && at.elapsed() < KEPT
    {
        return counts.clone();
    }
    let from = UnixMicros(api.clock.now().0.saturating_sub(LOOK_BACK_MICROS));
    let found = tokio::time::timeout(PATIENCE, api.unpriced(from)).await;
    let counts = found.ok().and_then(Result::ok).map(|report| {
        let UnpricedReport { tools, models, calls, .. } = report;
        UnpricedCounts { from: rfc3339(from), tools, models, calls }
    });
    *kept = Some((Instant::now(), counts.clone()));
    counts
}

impl Api {
    /// What calls have cost, over the newest snapshot.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn costs(&self, range: Range, by: CostsBy) -> Result<CostsReport, Error> {
        let began = Instant::now();
        let result = report::costs(&self.engine, &self.catalog, self.lake.view(), self.clock.now(), range, by).await;
        self.metrics.count(&result, began.elapsed(), |report| report.groups.len());
        result
    }

    /// Tools and models whose calls, from an instant on, have no known cost.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn unpriced(&self, from: UnixMicros) -> Result<UnpricedReport, Error> {
        let began = Instant::now();
        let now = self.clock.now();
        let result = report::unpriced(&self.engine, &self.catalog, self.lake.view(), now, from).await;
        self.metrics.count(&result, began.elapsed(), |report| report.groups.len());
        result
    }
}
