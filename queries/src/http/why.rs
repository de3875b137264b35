//! Why the records of a trace became what they are.

use std::sync::Arc;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde::Deserialize;
use tokio::time::Instant;
use toolgauge_proto::api::why::WhyReport;
use toolgauge_proto::explain::{Explain, Explained, Missed};
use toolgauge_proto::id::TraceId;

use super::problem::Fault;
use super::{Api, json_response, parameters};
use crate::engine::Error;
use crate::json::rfc3339;
use crate::report;

/// Requests that may wait for the log; reading it is dear, and one is read at a time.
pub(super) const WAITING_MAX: usize = 4;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WhyParameters {
    missed: Option<String>,
}

pub(super) async fn why(
    State(api): State<Arc<Api>>,
    Path(trace_id): Path<String>,
    query: Result<Query<WhyParameters>, QueryRejection>,
) -> Result<Response, Fault> {
    let missed = match parameters(query)?.missed.as_deref() {
        None | Some("nearest") => Missed::Nearest,
        Some("all") => Missed::All,
        Some(other) => return Err(Fault::bad_request(format!("\"missed\" must be nearest or all, got {other:?}"))),
    };
    let Some(id) = trace_of(&trace_id) else {
        return Err(Fault::bad_request(format!("a trace is named by 32 hex digits, not all 0, got {trace_id:?}")));
    };
    let Ok(_place) = api.why_places.try_acquire() else {
        let message = "others are waiting for the log to be read; ask again in a moment";
        return Err(Fault::new(StatusCode::SERVICE_UNAVAILABLE, message.to_owned()));
    };
    json_response(&api.why(id, missed).await?)
}

fn trace_of(text: &str) -> Option<TraceId> {
    if text.len() != 32 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    TraceId::from_slice(&u128::from_str_radix(text, 16).ok()?.to_be_bytes())
}

impl Api {
    /// From now on, it is said what became of records, by whoever has the log.
    pub fn set_explain(&self, explain: Arc<dyn Explain>) {
        self.explain.store(Some(Arc::new(explain)));
    }

    /// What became of the records of a trace: what the log still has of it, and its rows in the newest snapshot.
    ///
    /// # Errors
    /// See [`Error`]; [`Error::Internal`] if the log cannot be read.
    pub async fn why(&self, trace_id: TraceId, missed: Missed) -> Result<WhyReport, Error> {
        let began = Instant::now();
        let explained = match self.explain.load_full() {
            Some(explain) => tokio::task::spawn_blocking(move || explain.explain(trace_id, missed))
                .await
                .map_err(|error| Error::Internal(format!("look through the log: {error}")))?
                .map_err(|error| Error::Internal(format!("look through the log: {error}")))?,
            None => Explained::default(),
        };
        let result = report::calls_of(&self.engine, &self.catalog, self.lake.view(), self.clock.now(), trace_id).await;
        self.metrics.count(&result, began.elapsed(), |(calls, _)| calls.len());
        let (calls, cut) = result?;
        let trace_id = trace_id.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        let Explained { records, log_from, truncated } = explained;
        Ok(WhyReport { trace_id, records, log_from: log_from.map(rfc3339), truncated: truncated || cut, calls })
    }
}
