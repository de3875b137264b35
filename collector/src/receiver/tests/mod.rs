//! The doors over real connections. Each test of `checklist` is one line of the OTLP specification's server side.

mod checklist;
mod hostile;
mod http;
mod lifecycle;

use std::io::Write;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ::http::{HeaderMap, Request};
use bytes::{BufMut, Bytes, BytesMut};
use flate2::write::GzEncoder;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use prost::Message;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};
use tonic_types::StatusExt;
use toolgauge_proto::time::SystemClock;

use super::status::FaultKind;
use super::*;
use crate::export::{Export, ExportSignal, Refusal};

const TRACES: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
const LIMIT: Duration = Duration::from_secs(20);

/// Keeps what it gets. Answers once it is given leave, with what it is told to answer.
#[derive(Debug)]
struct TestSink {
    taken: Mutex<Vec<Export>>,
    waiting: AtomicU64,
    leave: Semaphore,
    refusal: Mutex<Option<Refusal>>,
}

impl TestSink {
    fn answering(leave: usize) -> Self {
        Self {
            taken: Mutex::default(),
            waiting: AtomicU64::new(0),
            leave: Semaphore::new(leave),
            refusal: Mutex::default(),
        }
    }

    fn taken(&self) -> Vec<Export> {
        self.taken.lock().expect("not poisoned").clone()
    }
}

impl Sink for TestSink {
    async fn append(&self, export: Export) -> Result<(), Refusal> {
        self.waiting.fetch_add(1, Relaxed);
        self.leave.acquire().await.expect("never closed").forget();
        if let Some(refusal) = self.refusal.lock().expect("not poisoned").clone() {
            return Err(refusal);
        }
        self.taken.lock().expect("not poisoned").push(export);
        Ok(())
    }
}

/// A receiver that is being served.
struct Served {
    receiver: Arc<Receiver<TestSink>>,
    sink: Arc<TestSink>,
    counters: Arc<ReceiverCounters>,
    address: SocketAddr,
    http: SocketAddr,
    shutdown: Option<oneshot::Sender<()>>,
    task: JoinHandle<Result<(), ServeError>>,
    stop_http: Option<oneshot::Sender<()>>,
    http_task: JoinHandle<()>,
}

fn decode<M: Message + Default>(body: &[u8]) -> Result<M, String> {
    M::decode(body).map_err(|error| error.to_string())
}

fn checks() -> Checks {
    Checks {
        traces: |body| decode::<ExportTraceServiceRequest>(body).map(drop),
        logs: |body| decode::<ExportLogsServiceRequest>(body).map(drop),
        metrics: |body| {
            let request = decode::<ExportMetricsServiceRequest>(body)?;
            let scopes = request.resource_metrics.iter().flat_map(|resource| &resource.scope_metrics);
            let points = scopes.flat_map(|scope| &scope.metrics).filter_map(|metric| metric.data.as_ref());
            Ok(points.map(|data| if let Data::Gauge(gauge) = data { gauge.data_points.len() as u64 } else { 0 }).sum())
        },
    }
}

async fn serve(settings: Settings) -> Served {
    serve_with(settings, Semaphore::MAX_PERMITS, None).await
}

/// A door whose sink holds its answers until `sink.leave` gets permits.
async fn serve_holding(settings: Settings) -> Served {
    serve_with(settings, 0, None).await
}

async fn serve_with(settings: Settings, leave: usize, tenant: Option<TenantHook>) -> Served {
    let sink = Arc::new(TestSink::answering(leave));
    let clock = Arc::new(SystemClock);
    let receiver = match tenant {
        Some(hook) => Receiver::with_tenants(settings, checks(), Arc::clone(&sink), clock, hook),
        None => Receiver::new(settings, checks(), Arc::clone(&sink), clock),
    };
    let receiver = Arc::new(receiver.expect("settings are fine"));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let address = listener.local_addr().expect("address");
    let (shutdown, signal) = oneshot::channel();
    let served = Arc::clone(&receiver);
    let task = tokio::spawn(async move {
        served
            .serve_grpc(listener, async {
                drop(signal.await);
            })
            .await
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let http = listener.local_addr().expect("address");
    let (stop_http, signal) = oneshot::channel();
    let served = Arc::clone(&receiver);
    let http_task = tokio::spawn(async move {
        served
            .serve_http(listener, async {
                drop(signal.await);
            })
            .await;
    });
    Served {
        counters: receiver.counters(),
        receiver,
        sink,
        address,
        http,
        shutdown: Some(shutdown),
        task,
        stop_http: Some(stop_http),
        http_task,
    }
}

impl Served {
    async fn channel(&self) -> Channel {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.address)).expect("address");
        endpoint.initial_stream_window_size(1 << 20).connect().await.expect("connect")
    }

    async fn traces(&self) -> TraceServiceClient<Channel> {
        TraceServiceClient::new(self.channel().await).max_encoding_message_size(usize::MAX)
    }

    async fn raw(&self) -> Raw {
        let stream = TcpStream::connect(self.address).await.expect("connect");
        let (sender, connection) = h2::client::handshake(stream).await.expect("handshake");
        Raw { sender, task: tokio::spawn(connection) }
    }

    fn in_flight(&self) -> u64 {
        self.counters.in_flight_bytes.load(Relaxed)
    }

    async fn until_waiting(&self, calls: u64) {
        eventually(|| self.sink.waiting.load(Relaxed) >= calls, || format!("{:?}", self.counters)).await;
    }
}

/// Waits on a condition.
async fn eventually(condition: impl Fn() -> bool, status: impl Fn() -> String) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < LIMIT, "still not so after {LIMIT:?}: {}", status());
        tokio::task::yield_now().await;
    }
}

fn request(spans: usize) -> ExportTraceServiceRequest {
    let span = |n: usize| Span { name: format!("execute_tool {n}"), span_id: vec![1; 8], ..Span::default() };
    let spans = ScopeSpans { spans: (0..spans).map(span).collect(), ..ScopeSpans::default() };
    ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans { scope_spans: vec![spans], ..ResourceSpans::default() }],
    }
}

/// A well-formed request of about so many bytes.
fn large_request(bytes: usize) -> ExportTraceServiceRequest {
    let mut request = request(1);
    request.resource_spans[0].schema_url = "x".repeat(bytes);
    request
}

fn framed(flag: u8, body: &[u8]) -> Bytes {
    let mut message = BytesMut::with_capacity(5 + body.len());
    message.put_u8(flag);
    message.put_u32(body.len() as u32);
    message.put_slice(body);
    message.freeze()
}

fn gzip(data: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(data).expect("compresses");
    encoder.finish().expect("compresses")
}

/// An HTTP/2 connection on which a client may misbehave.
struct Raw {
    sender: h2::client::SendRequest<Bytes>,
    task: JoinHandle<Result<(), h2::Error>>,
}

struct RawAnswer {
    headers: HeaderMap,
    message: Vec<u8>,
    status: Status,
}

impl Raw {
    async fn begin(
        &mut self,
        path: &str,
        encoding: Option<&str>,
    ) -> (h2::client::ResponseFuture, h2::SendStream<Bytes>) {
        let mut request = Request::post(format!("http://localhost{path}")).header("content-type", "application/grpc");
        if let Some(encoding) = encoding {
            request = request.header("grpc-encoding", encoding);
        }
        let mut sender = self.sender.clone().ready().await.expect("ready");
        sender.send_request(request.body(()).expect("request"), false).expect("send")
    }

    /// Sends the body and ends the request.
    async fn call(&mut self, path: &str, encoding: Option<&str>, body: Bytes) -> RawAnswer {
        let (response, mut stream) = self.begin(path, encoding).await;
        stream.send_data(body, true).expect("send");
        answer(response).await
    }
}

async fn answer(response: h2::client::ResponseFuture) -> RawAnswer {
    let answer = async {
        let (head, mut body) = response.await.expect("response").into_parts();
        let mut message = Vec::new();
        while let Some(data) = body.data().await {
            message.extend_from_slice(&data.expect("data"));
        }
        let trailers = body.trailers().await.ok().flatten();
        let status = Status::from_header_map(trailers.as_ref().unwrap_or(&head.headers)).expect("a grpc-status");
        RawAnswer { headers: head.headers, message, status }
    };
    timeout(LIMIT, answer).await.expect("answered in time")
}

fn retry_delay(status: &Status) -> Option<Duration> {
    status.get_details_retry_info().and_then(|info| info.retry_delay)
}
