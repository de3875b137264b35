//! A server in this process with a folder of its own, and clients of its doors.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use bytes::{BufMut as _, Bytes, BytesMut};
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;
use serde_json::Value;
use tempfile::TempDir;
use tokio::net::TcpStream;
use toolgauge::config::{Config, Time};
use toolgauge::server::Server;
use toolgauge_proto::api::{Problem, SqlRequest, SqlResponse, Status, ToolReport, ToolsReport};
use toolgauge_proto::time::{Clock, SystemClock, UnixMicros};

use crate::traffic::{request, span_id, trace_id};

pub(crate) const TRACES: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
pub(crate) const LOGS: &str = "/opentelemetry.proto.collector.logs.v1.LogsService/Export";
pub(crate) const METRICS: &str = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export";

/// How long anything may take on a loaded machine before a test fails.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);
const LOOK_INTERVAL: Duration = Duration::from_millis(10);

/// Nanoseconds since 1970.
pub(crate) fn now_ns() -> u64 {
    u64::try_from(SystemClock.now().0).unwrap() * 1_000
}

/// An amount of money as text, in units of 10^-9.
pub(crate) fn nanos(text: &str) -> i128 {
    let (sign, digits) = text.strip_prefix('-').map_or((1, text), |digits| (-1, digits));
    let (whole, rest) = digits.split_once('.').unwrap_or((digits, ""));
    assert!(rest.len() <= 9, "{text}");
    sign * format!("{whole}{rest:0<9}").parse::<i128>().unwrap()
}

/// An amount of money as a JSON number, in units of 10^-9.
pub(crate) fn nanos_of_number(value: &Value) -> i128 {
    nanos(&format!("{:.9}", value.as_f64().unwrap()))
}

/// All numbers with this key in a JSON text, in its order: to the last digit, which our reader of JSON may lose.
pub(crate) fn numbers(text: &str, key: &str) -> Vec<Option<f64>> {
    let key = format!("\"{key}\":");
    let values = text.split(&key).skip(1);
    values.map(|rest| rest.split([',', '}']).next().unwrap()).map(|text| text.parse().ok()).collect()
}

/// Whether a ratio is this one, apart from the last digit that JSON may lose.
pub(crate) fn close(found: Option<f64>, expected: f64) -> bool {
    found.is_some_and(|found| (found - expected).abs() < 1e-12)
}

/// Looks until `condition` gives something; fails with `what` after `limit`.
pub(crate) async fn until<T>(limit: Duration, what: &str, mut condition: impl AsyncFnMut() -> Option<T>) -> T {
    let began = Instant::now();
    let mut ticks = tokio::time::interval(LOOK_INTERVAL);
    loop {
        if let Some(found) = condition().await {
            return found;
        }
        assert!(began.elapsed() < limit, "not within {limit:?}: {what}");
        ticks.tick().await;
    }
}

/// The machine's clock, ahead by as much as the test says: rows have all the time they need to meet, however slow the
/// machine is, and no test waits for them to settle.
#[derive(Debug, Default)]
struct AheadClock(AtomicI64);

impl Clock for AheadClock {
    fn now(&self) -> UnixMicros {
        UnixMicros(SystemClock.now().0 + self.0.load(Ordering::SeqCst))
    }
}

/// A server in this process.
pub(crate) struct Sandbox {
    pub(crate) folder: TempDir,
    clock: Arc<AheadClock>,
    settle: Duration,
    pub(crate) otlp: SocketAddr,
    pub(crate) otlp_http: SocketAddr,
    pub(crate) api: Api,
    server: Option<Server>,
}

impl Sandbox {
    pub(crate) async fn start() -> Self {
        Self::start_with(|_| ()).await
    }

    /// Rows settle after a minute, or when [`Self::until_committed`] is called, and are committed at once, if `change` does not
    /// say otherwise.
    pub(crate) async fn start_with(change: impl FnOnce(&mut Config)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut config = Config {
            data: folder.path().join("data"),
            otlp_grpc: SocketAddr::from(([127, 0, 0, 1], 0)),
            otlp_http: SocketAddr::from(([127, 0, 0, 1], 0)),
            http: SocketAddr::from(([127, 0, 0, 1], 0)),
            ..Config::default()
        };
        config.lake.commit_interval = Time(Duration::from_millis(200));
        // What is not asked for must not write.
        config.alerting.learn_slos.0 = false;
        change(&mut config);
        let clock = Arc::new(AheadClock::default());
        let server = Server::start_at(&config, Arc::<AheadClock>::clone(&clock)).await.unwrap();
        let (otlp, otlp_http) = (server.otlp_grpc, server.otlp_http);
        let settle = config.settle.after.0;
        Self { folder, clock, settle, otlp, otlp_http, api: Api::new(server.http), server: Some(server) }
    }

    pub(crate) fn lake(&self) -> PathBuf {
        self.folder.path().join("data/lake")
    }

    pub(crate) async fn client(&self) -> Raw {
        Raw::connect(self.otlp).await
    }

    /// A whole number of `/metrics`, by name and labels as they stand there.
    pub(crate) async fn metric(&self, series: &str) -> u64 {
        let text = self.api.get("/metrics").await.text;
        let value = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        value.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("{series} is not in {text}"))
    }

    /// Lets every row settle, and waits until it is in the lake. Time in the log goes on with what is received, so something is
    /// sent.
    pub(crate) async fn until_committed(&self) {
        self.api.until_visible().await;
        self.clock.0.fetch_add(i64::try_from(self.settle.as_micros()).unwrap(), Ordering::SeqCst);
        let mut client = self.client().await;
        let mut sent = 0;
        until(LIMIT, "every row is committed", async || {
            sent += 1;
            // No call, and unlike all others.
            let span = Span {
                name: "GET /".to_owned(),
                trace_id: trace_id(sent),
                span_id: span_id(sent, 0),
                ..Span::default()
            };
            client.export(TRACES, &request("nudge", vec![span]).encode_to_vec()).await;
            (self.api.status().await.ingest.live_rows == 0).then_some(())
        })
        .await;
    }

    pub(crate) async fn stop(self) {
        drop(self.stop_and_keep().await);
    }

    /// The same, without deleting the folder.
    pub(crate) async fn stop_and_keep(mut self) -> TempDir {
        self.server.take().unwrap().stop().await.unwrap();
        self.folder
    }
}

/// A client of the HTTP API.
#[derive(Clone)]
pub(crate) struct Api {
    pub(crate) url: String,
    agent: ureq::Agent,
}

/// What the HTTP API answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) content_type: String,
    pub(crate) text: String,
}

impl Answer {
    pub(crate) fn problem(&self) -> Problem {
        assert_eq!(self.content_type, "application/problem+json", "{self:?}");
        let problem: Problem = serde_json::from_str(&self.text).unwrap();
        assert_eq!(problem.status, self.status);
        problem
    }
}

impl Api {
    pub(crate) fn new(address: SocketAddr) -> Self {
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(LIMIT))
            .max_idle_connections(0)
            .build();
        Self { url: format!("http://{address}"), agent: agent.into() }
    }

    pub(crate) async fn try_send(&self, path: &str, body: Option<String>) -> Result<Answer, ureq::Error> {
        let (agent, url) = (self.agent.clone(), format!("{}{path}", self.url));
        let call = move || {
            let mut response = match body {
                Some(body) => agent.post(url).content_type("application/json").send(body)?,
                None => agent.get(url).call()?,
            };
            let content_type = response.headers().get("content-type").map_or("", |value| value.to_str().unwrap());
            Ok(Answer {
                status: response.status().as_u16(),
                content_type: content_type.to_owned(),
                text: response.body_mut().read_to_string()?,
            })
        };
        tokio::task::spawn_blocking(call).await.unwrap()
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.try_send(path, None).await.unwrap()
    }

    pub(crate) async fn post(&self, path: &str, body: &str) -> Answer {
        self.try_send(path, Some(body.to_owned())).await.unwrap()
    }

    /// What a statement is answered, whatever it is.
    pub(crate) async fn ask(&self, query: &str) -> Answer {
        let body = serde_json::to_string(&SqlRequest { query: query.to_owned() }).unwrap();
        self.post("/api/v1/sql", &body).await
    }

    pub(crate) async fn sql(&self, query: &str) -> Vec<Vec<Value>> {
        let answer = self.ask(query).await;
        assert_eq!(answer.status, 200, "{query}: {}", answer.text);
        let answer: SqlResponse = serde_json::from_str(&answer.text).unwrap();
        assert!(!answer.truncated, "{query}");
        answer.rows
    }

    /// The one row of an answer.
    pub(crate) async fn row(&self, query: &str) -> Vec<Value> {
        let mut rows = self.sql(query).await;
        assert_eq!(rows.len(), 1, "{query}: {rows:?}");
        rows.remove(0)
    }

    /// The one number of an answer.
    pub(crate) async fn number(&self, query: &str) -> i64 {
        self.row(query).await[0].as_i64().unwrap()
    }

    /// All that ever ended, by tool.
    pub(crate) async fn tools(&self) -> Vec<ToolReport> {
        let answer = self.get("/api/v1/tools?from=1970-01-01T00:00:00Z&to=2200-01-01T00:00:00Z").await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        let report: ToolsReport = serde_json::from_str(&answer.text).unwrap();
        assert!(!report.truncated);
        report.tools
    }

    pub(crate) async fn status(&self) -> Status {
        serde_json::from_str(&self.get("/api/v1/status").await.text).unwrap()
    }

    /// Waits until readers see everything that was acknowledged before this call.
    pub(crate) async fn until_visible(&self) {
        let acknowledged = self.status().await.ingest.wal_synced;
        until(LIMIT, "what was acknowledged is visible", async || {
            (self.status().await.ingest.wal_visible >= acknowledged).then_some(())
        })
        .await;
    }
}

/// A gRPC client that sends any bytes.
pub(crate) struct Raw {
    sender: h2::client::SendRequest<Bytes>,
}

/// How a call ended.
#[derive(Debug)]
pub(crate) struct RawAnswer {
    pub(crate) status: tonic::Status,
    /// The message, without its prefix.
    pub(crate) message: Bytes,
}

pub(crate) fn framed(flag: u8, body: &[u8]) -> Bytes {
    let mut message = BytesMut::with_capacity(5 + body.len());
    message.put_u8(flag);
    message.put_u32(u32::try_from(body.len()).unwrap());
    message.put_slice(body);
    message.freeze()
}

impl Raw {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        let (sender, connection) = h2::client::handshake(stream).await.unwrap();
        tokio::spawn(async move {
            // The calls see what becomes of the connection.
            drop(connection.await);
        });
        Self { sender }
    }

    /// Sends a framed body and reads the answer.
    pub(crate) async fn call(&mut self, path: &str, encoding: Option<&str>, body: Bytes) -> RawAnswer {
        let call = async {
            let mut request = http::Request::post(format!("http://localhost{path}"))
                .header("content-type", "application/grpc")
                .header("te", "trailers");
            if let Some(encoding) = encoding {
                request = request.header("grpc-encoding", encoding);
            }
            let mut sender = self.sender.clone().ready().await.unwrap();
            let (response, mut stream) = sender.send_request(request.body(()).unwrap(), false).unwrap();
            // A refusal may be there, and the stream closed, before the body is sent.
            drop(stream.send_data(body, true));
            let (head, mut body) = response.await.unwrap().into_parts();
            let mut message = BytesMut::new();
            while let Some(data) = body.data().await {
                let data = data.unwrap();
                body.flow_control().release_capacity(data.len()).unwrap();
                message.extend_from_slice(&data);
            }
            let trailers = body.trailers().await.ok().flatten();
            let status = tonic::Status::from_header_map(trailers.as_ref().unwrap_or(&head.headers)).unwrap();
            let message = if message.is_empty() { Bytes::new() } else { message.freeze().slice(5..) };
            RawAnswer { status, message }
        };
        tokio::time::timeout(LIMIT, call).await.unwrap()
    }

    /// Sends an export that is taken whole.
    pub(crate) async fn export(&mut self, path: &str, body: &[u8]) {
        let answer = self.call(path, None, framed(0, body)).await;
        assert_eq!(answer.status.code(), tonic::Code::Ok, "{:?}", answer.status);
        assert!(answer.message.is_empty(), "a full success says nothing more");
    }
}
