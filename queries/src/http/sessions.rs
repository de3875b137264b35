//! Sessions.

use std::sync::Arc;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::response::Response;
use serde::Deserialize;
use tokio::time::Instant;
use toolgauge_proto::api::sessions::SessionsReport;

use super::problem::Fault;
use super::{Api, json_response, parameters, range};
use crate::engine::Error;
use crate::report::{self, Range};

/// Sessions of an answer, if the request does not say how many.
const LIMIT: usize = 100;
/// Most sessions of an answer.
const LIMIT_MAX: usize = 10_000;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SessionsParameters {
    from: Option<String>,
    to: Option<String>,
    limit: Option<usize>,
}

pub(super) async fn sessions(
    State(api): State<Arc<Api>>,
    query: Result<Query<SessionsParameters>, QueryRejection>,
) -> Result<Response, Fault> {
    let SessionsParameters { from, to, limit } = parameters(query)?;
    let limit = limit.unwrap_or(LIMIT);
    if !(1..=LIMIT_MAX).contains(&limit) {
        return Err(Fault::bad_request(format!("\"limit\" must be between 1 and {LIMIT_MAX}, got {limit}")));
    }
    let (from, to) = range::range(from.as_deref(), to.as_deref(), api.clock.now()).map_err(Fault::bad_request)?;
    json_response(&api.sessions(Range::new(from, to), limit).await?)
}

impl Api {
    /// Sessions whose last call so far ended in the range, the latest first, over the newest snapshot.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn sessions(&self, range: Range, limit: usize) -> Result<SessionsReport, Error> {
        let began = Instant::now();
        let (view, now) = (self.lake.view(), self.clock.now());
        let result = report::sessions(&self.engine, &self.catalog, view, now, range, limit).await;
        self.metrics.count(&result, began.elapsed(), |report| report.sessions.len());
        result
    }
}
