//! The HTTP API: reports, SQL, status.
//!
//! # Limits and guarantees
//! * Every answer is made from one snapshot of the lake. Every error, also for an unknown path, is an
//!   `application/problem+json` document that says what to do.
//! * A request's head takes at most [`HEAD_TIMEOUT`], its body at most [`BODY_TIMEOUT`] and [`BODY_BYTES_MAX`]; there
//!   are at most [`CONNECTIONS_MAX`] connections. Statements have the limits of [`crate::engine`].
//! * A client that goes away stops its statement.
//! * Before there is anything to answer from, a [`Door`] says what the start waits for.
//!
//! # How it ends
//! [`serve`] stops accepting, lets requests in flight end for at most [`DRAIN_TIMEOUT`], and returns.

mod cors;
mod costs;
mod door;
mod metrics;
mod problem;
mod range;
mod rule_metrics;
mod rules;
mod serve;
mod sessions;
mod slo_metrics;
mod slo_proof;
mod slos;
mod webhook;
mod why;

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use axum::Router;
use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{HeaderValue, StatusCode, Uri, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{MethodRouter, get, post};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use toolgauge_analytics::ownership::Ownership;
use toolgauge_proto::api::{LatencyReport, SqlRequest, Status, ToolsReport};
use toolgauge_proto::explain::Explain;
use toolgauge_proto::lake::Lake;
use toolgauge_proto::time::Clock;

use crate::engine::{Answer, Engine, Error};
use crate::evaluate::Evaluator;
use crate::json;
use crate::report::{self, Range, Source};
use crate::rules::Rules;
use crate::tables::Catalog;
use crate::webhook::Webhook;
pub use cors::{Origins, WrongOrigin};
pub use door::Door;
use metrics::QueryMetrics;
use problem::Fault;
pub use serve::{CONNECTIONS_MAX, DRAIN_TIMEOUT, HEAD_TIMEOUT};

/// Largest body of a request, in bytes.
pub const BODY_BYTES_MAX: usize = 1 << 20;
/// Longest time for the body of a request.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// The description of the API, as `/api/v1/openapi.json` gives it.
pub const OPENAPI: &str = include_str!("openapi.json");
const INDEX: &str = include_str!("index.html");
/// What `/healthz` says.
const HEALTHY: &str = "ok\n";
/// Of Prometheus' text format.
const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The addresses: method, path, what answers.
type Route = (&'static str, &'static str, fn() -> MethodRouter<Arc<Api>>);
const ROUTES: &[Route] = &[
    ("get", "/", || get(async || Html(INDEX))),
    ("post", "/api/v1/alertmanager/webhook", || post(webhook::take)),
    ("get", "/api/v1/alerts", || get(slos::alerts)),
    ("get", "/api/v1/burn-rates", || get(slos::burn_rates)),
    ("get", "/api/v1/costs", || get(costs::costs)),
    ("get", "/api/v1/costs/unpriced", || get(costs::unpriced)),
    ("get", "/api/v1/latency", || get(latency)),
    ("get", "/api/v1/openapi.json", || get(async || typed("application/json", OPENAPI.to_owned()))),
    ("get", "/api/v1/rules", || get(rules::rules)),
    ("get", "/api/v1/sessions", || get(sessions::sessions)),
    ("get", "/api/v1/slos", || get(slos::slos)),
    ("get", "/api/v1/slos/{service}/{slo}", || get(slos::slo)),
    ("get", "/api/v1/slos/{service}/{slo}/proof", || get(slo_proof::proof)),
    ("post", "/api/v1/sql", || post(sql)),
    ("get", "/api/v1/status", || get(status)),
    ("get", "/api/v1/tools", || get(tools)),
    ("get", "/api/v1/why/{trace_id}", || get(why::why)),
    ("get", "/healthz", || get(async || typed("text/plain; charset=utf-8", HEALTHY.to_owned()))),
    ("get", "/metrics", || get(metrics)),
    ("get", "/readyz", || get(readyz)),
];

/// The text of everything else that is in `/metrics`.
pub type MetricsText = Box<dyn Fn() -> String + Send + Sync>;

/// What the API answers from.
pub struct Api {
    lake: Arc<dyn Lake>,
    engine: Arc<Engine>,
    catalog: Catalog,
    clock: Arc<dyn Clock>,
    metrics_text: MetricsText,
    metrics: QueryMetrics,
    evaluator: Option<Arc<Evaluator>>,
    rules: Option<Arc<Rules>>,
    webhook: Webhook,
    webhook_places: tokio::sync::Semaphore,
    unpriced: costs::Kept,
    started: Instant,
    ownership: ArcSwap<Ownership>,
    explain: ArcSwapOption<Arc<dyn Explain>>,
    why_places: tokio::sync::Semaphore,
}

impl std::fmt::Debug for Api {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Api").field("lake", &self.lake).field("metrics", &self.metrics).finish_non_exhaustive()
    }
}

impl Api {
    /// An API over `lake`. `metrics_text` gives the metrics of the other rooms, in Prometheus' text format.
    ///
    /// # Errors
    /// If the views do not fit the tables.
    pub async fn new(
        lake: Arc<dyn Lake>,
        engine: Arc<Engine>,
        clock: Arc<dyn Clock>,
        metrics_text: MetricsText,
    ) -> Result<Arc<Self>, Error> {
        Self::with_slos(lake, engine, clock, metrics_text, None, None).await
    }

    /// As [`Api::new`], with SLOs and rules if there is somebody who evaluates them.
    ///
    /// # Errors
    /// If the views do not fit the tables.
    pub async fn with_slos(
        lake: Arc<dyn Lake>,
        engine: Arc<Engine>,
        clock: Arc<dyn Clock>,
        metrics_text: MetricsText,
        evaluator: Option<Arc<Evaluator>>,
        rules: Option<Arc<Rules>>,
    ) -> Result<Arc<Self>, Error> {
        let catalog = Catalog::new(&engine).await?;
        let metrics = QueryMetrics::default();
        let started = Instant::now();
        let webhook = Webhook::start(Arc::clone(&lake), Arc::clone(&clock))
            .map_err(|error| Error::Internal(format!("start the door for notifications: {error}")))?;
        let webhook_places = tokio::sync::Semaphore::new(webhook::READING_MAX);
        Ok(Arc::new(Self {
            lake,
            engine,
            catalog,
            clock,
            metrics_text,
            metrics,
            evaluator,
            rules,
            webhook,
            webhook_places,
            unpriced: costs::Kept::default(),
            started,
            ownership: ArcSwap::default(),
            explain: ArcSwapOption::empty(),
            why_places: tokio::sync::Semaphore::new(why::WAITING_MAX),
        }))
    }

    /// From now on, reports name these owners.
    pub fn set_ownership(&self, ownership: Arc<Ownership>) {
        self.ownership.store(ownership);
    }

    /// Runs one read-only statement over the newest snapshot.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn sql(&self, query: String) -> Result<Answer, Error> {
        let began = Instant::now();
        let schema = self.catalog.schema(self.lake.view());
        let now = chrono::DateTime::from_timestamp_micros(self.clock.now().0).unwrap_or_default();
        let result = self.engine.query(schema, now, query).await;
        self.metrics.count(&result, began.elapsed(), Answer::rows);
        result
    }

    /// The tools report over the newest snapshot.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn tools(&self, range: Range) -> Result<ToolsReport, Error> {
        let began = Instant::now();
        let (now, source) = (self.clock.now(), Source::of(&range));
        let (view, ownership) = (self.lake.view(), self.ownership.load_full());
        let made = report::tools(&self.engine, &self.catalog, Arc::clone(&view), now, range.clone(), source).await;
        let result = match made {
            Ok(mut report) if !ownership.is_empty() => {
                let tools = &mut report.tools;
                report::owners(&self.engine, &self.catalog, view, now, range, source, &ownership, tools)
                    .await
                    .map(|()| report)
            }
            made => made,
        };
        self.metrics.count(&result, began.elapsed(), |report| report.tools.len());
        result
    }

    /// The latency report over the newest snapshot.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn latency(&self, range: Range) -> Result<LatencyReport, Error> {
        let began = Instant::now();
        let result = report::latency(&self.engine, &self.catalog, self.lake.view(), self.clock.now(), range).await;
        self.metrics.count(&result, began.elapsed(), |report| report.series.len());
        result
    }
}

/// Serves what is behind the door on `listener` until `shutdown` is done and the requests in flight have ended. Web pages from `origins` may
/// read it.
///
/// # Errors
/// None today; a listener that breaks for good would be one.
pub async fn serve(
    listener: tokio::net::TcpListener,
    door: impl Into<Door>,
    origins: Origins,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    let door = door.into();
    let router = || door.router().layer(axum::middleware::from_fn_with_state(origins.clone(), cors::answer));
    serve::serve(listener, router, shutdown).await
}

fn router(api: Arc<Api>) -> Router {
    let wrong_method = async |uri: Uri| {
        let methods =
            ROUTES.iter().filter(|(_, path, _)| is_at(path, uri.path())).map(|(method, ..)| method.to_uppercase());
        let methods = methods.collect::<Vec<_>>().join(", ");
        let mut response =
            Fault::new(StatusCode::METHOD_NOT_ALLOWED, format!("{:?} takes {methods}", uri.path())).into_response();
        if let Ok(methods) = HeaderValue::from_str(&methods) {
            response.headers_mut().insert(header::ALLOW, methods);
        }
        response
    };
    let unknown = async |uri: Uri| {
        Fault::new(StatusCode::NOT_FOUND, format!("there is nothing at {:?}; \"/\" lists the addresses", uri.path()))
    };
    let mut router = Router::new();
    for (_, path, answer) in ROUTES {
        router = router.route(path, answer());
    }
    router.method_not_allowed_fallback(wrong_method).fallback(unknown).with_state(api)
}

/// Whether a path is one of those that a route takes; in braces stands what can be anything.
fn is_at(route: &str, path: &str) -> bool {
    let mut parts = path.split('/');
    let fits = |part: &str| parts.next().is_some_and(|found| found == part || part.starts_with('{'));
    route.split('/').all(fits) && parts.next().is_none()
}

fn typed(content_type: &'static str, body: String) -> Response {
    ([(header::CONTENT_TYPE, HeaderValue::from_static(content_type))], body).into_response()
}

fn json_response(value: &impl Serialize) -> Result<Response, Fault> {
    let body = serde_json::to_string(value).map_err(|error| Error::Internal(format!("write JSON: {error}")))?;
    Ok(typed("application/json", body))
}

fn parameters<T>(query: Result<Query<T>, QueryRejection>) -> Result<T, Fault> {
    query.map(|Query(value)| value).map_err(|rejection| Fault::bad_request(rejection.body_text()))
}

async fn body_of(body: Body) -> Result<axum::body::Bytes, Fault> {
    body_up_to(body, BODY_BYTES_MAX, "send a shorter statement").await
}

/// The body, if it has at most so many bytes; `remedy` says what to do about a longer one.
async fn body_up_to(body: Body, bytes_max: usize, remedy: &str) -> Result<axum::body::Bytes, Fault> {
    match tokio::time::timeout(BODY_TIMEOUT, axum::body::to_bytes(body, bytes_max)).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(error)) if is_too_long(&error) => {
            Err(Fault::new(StatusCode::PAYLOAD_TOO_LARGE, format!("the body is over {bytes_max} bytes; {remedy}")))
        }
        Ok(Err(error)) => Err(Fault::bad_request(format!("the body could not be read: {error}"))),
        Err(_) => {
            Err(Fault::new(StatusCode::REQUEST_TIMEOUT, format!("the body did not arrive within {BODY_TIMEOUT:?}")))
        }
    }
}

fn is_too_long(error: &(dyn std::error::Error + 'static)) -> bool {
    std::iter::successors(Some(error), |error| error.source()).any(|error| error.to_string().contains("length limit"))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SqlParameters {
    format: Option<String>,
}

async fn sql(
    State(api): State<Arc<Api>>,
    query: Result<Query<SqlParameters>, QueryRejection>,
    body: Body,
) -> Result<Response, Fault> {
    let as_csv = match parameters(query)?.format.as_deref() {
        None | Some("json") => false,
        Some("csv") => true,
        Some(other) => return Err(Fault::bad_request(format!("\"format\" must be json or csv, got {other:?}"))),
    };
    let body = body_of(body).await?;
    let request: SqlRequest = serde_json::from_slice(&body).map_err(|error| {
        Fault::bad_request(format!("the body must be JSON such as {{\"query\": \"SELECT 1\"}}: {error}"))
    })?;
    let answer = api.sql(request.query).await?;
    let internal = |error| Error::Internal(format!("write the rows: {error}"));
    if !as_csv {
        return json_response(&json::response(&answer).map_err(internal)?);
    }
    let mut response = typed("text/csv; charset=utf-8; header=present", json::csv(&answer).map_err(internal)?);
    let truncated = HeaderValue::from_static(if answer.truncated { "true" } else { "false" });
    response.headers_mut().insert("toolgauge-truncated", truncated);
    Ok(response)
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ToolsParameters {
    from: Option<String>,
    to: Option<String>,
    service: Option<String>,
    environment: Option<String>,
}

async fn tools(
    State(api): State<Arc<Api>>,
    query: Result<Query<ToolsParameters>, QueryRejection>,
) -> Result<Response, Fault> {
    let ToolsParameters { from, to, service, environment } = parameters(query)?;
    let (from, to) = range::range(from.as_deref(), to.as_deref(), api.clock.now()).map_err(Fault::bad_request)?;
    json_response(&api.tools(Range { service, environment, ..Range::new(from, to) }).await?)
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct LatencyParameters {
    from: Option<String>,
    to: Option<String>,
    service: Option<String>,
    environment: Option<String>,
    tool: Option<String>,
    server: Option<String>,
}

async fn latency(
    State(api): State<Arc<Api>>,
    query: Result<Query<LatencyParameters>, QueryRejection>,
) -> Result<Response, Fault> {
    let LatencyParameters { from, to, service, environment, tool, server } = parameters(query)?;
    let (from, to) = range::range(from.as_deref(), to.as_deref(), api.clock.now()).map_err(Fault::bad_request)?;
    json_response(&api.latency(Range { from, to, service, environment, tool, server }).await?)
}

async fn status(State(api): State<Arc<Api>>) -> Result<Response, Fault> {
    let unpriced = costs::unpriced_counts(&api).await;
    json_response(&Status {
        unpriced,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        uptime_seconds: api.started.elapsed().as_secs(),
        memory_bytes: resident_bytes(),
        ingest: api.lake.status(),
    })
}

async fn readyz(State(api): State<Arc<Api>>) -> Result<Response, Fault> {
    let status = api.lake.status();
    if status.ready && api.evaluator.as_ref().is_none_or(|evaluator| evaluator.is_ready()) {
        return Ok(typed("text/plain; charset=utf-8", "ready\n".to_owned()));
    }
    if status.ready {
        return Err(Fault::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "SLOs are not evaluated: the start has not ended, or the log says why",
        ));
    }
    let reason = status.not_ready_reason.unwrap_or_else(|| "not ready".to_owned());
    Err(Fault::new(StatusCode::SERVICE_UNAVAILABLE, reason))
}

async fn metrics(State(api): State<Arc<Api>>) -> Response {
    let mut text = (api.metrics_text)();
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    text.push_str(&api.metrics.text(api.engine.running()));
    if let Some(evaluator) = &api.evaluator {
        text.push_str(&slo_metrics::text(evaluator));
    }
    if let Some(rules) = &api.rules {
        text.push_str(&rule_metrics::of_rules(rules));
    }
    text.push_str(&rule_metrics::of_webhook(api.webhook.counters()));
    typed(METRICS_TYPE, text)
}

/// Resident memory of this process; 0 where the system does not tell.
fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next()).and_then(|kib| kib.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn openapi_lists_the_addresses_of_the_router_and_no_others() {
        let document: serde_json::Value = serde_json::from_str(OPENAPI).unwrap();
        let described = document["paths"].as_object().unwrap().iter().flat_map(|(path, methods)| {
            methods.as_object().unwrap().keys().map(move |method| format!("{method} {path}"))
        });
        let mut described: Vec<_> = described.collect();
        described.sort();
        let mut routed: Vec<_> = ROUTES.iter().map(|(method, path, _)| format!("{method} {path}")).collect();
        routed.sort();
        assert_eq!(described, routed);
    }

    #[test]
    fn the_index_lists_every_address() {
        for (_, path, _) in ROUTES.iter().filter(|(_, path, _)| *path != "/") {
            assert!(INDEX.contains(&format!("href=\"{path}\"")), "{path}");
        }
    }

    #[test]
    fn resident_memory_is_known_on_linux() {
        assert!(!cfg!(target_os = "linux") || resident_bytes() > 1 << 20);
    }
}
