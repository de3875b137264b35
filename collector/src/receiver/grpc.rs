//! The three export methods as tower services: HTTP in, gRPC out.
//!
//! tonic's own `Grpc::unary` is not used. Its decoder answers a message over the limit with `OUT_OF_RANGE`, which OTLP clients
//! resend for ever, before a codec is asked; it copies every frame into a buffer that it reserves by the length the client
//! declared; and it decompresses on the runtime's threads, in one go. A codec sees none of that.

use std::convert::Infallible;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll};

use bytes::{BufMut, Bytes, BytesMut};
use http::header::{ALLOW, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, request};
use http_body::Frame;
use opentelemetry_proto::tonic::collector::metrics::v1::{ExportMetricsPartialSuccess, ExportMetricsServiceResponse};
use prost::Message;
use tonic::body::Body;
use tonic::server::NamedService;
use tower::Service;

use super::inflate::{Compression, inflate};
use super::message::MessageReader;
use super::status::Fault;
use super::{Door, off_runtime};
use crate::export::{Export, ExportEncoding, ExportSignal, Sink};

const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");
const GRPC_ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");
const GRPC_ACCEPT_ENCODING: HeaderName = HeaderName::from_static("grpc-accept-encoding");
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const ACCEPTED_ENCODINGS: HeaderValue = HeaderValue::from_static("identity,gzip,zstd");

/// A message of no bytes, framed: every full success, since `partial_success` must be unset in it.
const SUCCESS: Bytes = Bytes::from_static(&[0; 5]);
/// What a client is told about its metrics.
pub(super) const METRICS_REFUSED: &str = "Toolgauge takes traces and logs; metric points are refused";
/// Longest name of an unknown compression that is repeated to the client.
const NAME_CHARS_MAX: usize = 64;

/// Which of the three OTLP services.
pub(super) trait Signal: Send + Sync + 'static {
    const SERVICE: &'static str;
    const METHOD: &'static str;
    /// `None`: it is counted and refused.
    const EXPORT: Option<ExportSignal>;
}

macro_rules! signal {
    ($name:ident, $service:literal, $export:expr) => {
        #[derive(Debug)]
        pub(super) struct $name;

        impl Signal for $name {
            const SERVICE: &'static str = $service;
            const METHOD: &'static str = concat!("/", $service, "/Export");
            const EXPORT: Option<ExportSignal> = $export;
        }
    };
}

signal!(Traces, "opentelemetry.proto.collector.trace.v1.TraceService", Some(ExportSignal::Traces));
signal!(Logs, "opentelemetry.proto.collector.logs.v1.LogsService", Some(ExportSignal::Logs));
signal!(Metrics, "opentelemetry.proto.collector.metrics.v1.MetricsService", None);

/// One OTLP service behind a door.
pub(super) struct ExportService<S, G> {
    door: Arc<Door<S>>,
    signal: PhantomData<G>,
}

impl<S, G> ExportService<S, G> {
    pub(super) fn new(door: &Arc<Door<S>>) -> Self {
        Self { door: Arc::clone(door), signal: PhantomData }
    }
}

impl<S, G> Clone for ExportService<S, G> {
    fn clone(&self) -> Self {
        Self::new(&self.door)
    }
}

impl<S, G: Signal> NamedService for ExportService<S, G> {
    const NAME: &'static str = G::SERVICE;
}

impl<S: Sink, G: Signal> Service<http::Request<Body>> for ExportService<S, G> {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let door = Arc::clone(&self.door);
        Box::pin(async move { Ok(answer::<S, G>(&door, request).await) })
    }
}

async fn answer<S: Sink, G: Signal>(door: &Door<S>, request: http::Request<Body>) -> http::Response<Body> {
    let (head, body) = request.into_parts();
    if let Some(not_grpc) = not_grpc(&head) {
        return not_grpc;
    }
    door.counters.requests.fetch_add(1, Relaxed);
    // A client that gives up drops this future wherever it stands.
    let cancelled = CountIfDropped(door);
    let result = export::<S, G>(door, &head, body).await;
    std::mem::forget(cancelled);
    let mut response = match result {
        Ok(message) => {
            door.counters.accepted.fetch_add(1, Relaxed);
            let mut response = http::Response::new(Body::new(Reply { message: Some(message), ended: false }));
            response.headers_mut().insert(CONTENT_TYPE, GRPC);
            response
        }
        Err(fault) => {
            let nth = door.counters.refuse(fault.kind());
            door.log.note(&fault, door.clock.now());
            fault.to_grpc(fault.retry_after(door.settings.retry_delay, nth)).into_http()
        }
    };
    response.headers_mut().insert(GRPC_ACCEPT_ENCODING, ACCEPTED_ENCODINGS);
    response
}

/// What is no gRPC request is answered in plain HTTP, as gRPC over HTTP/2 asks.
fn not_grpc(head: &request::Parts) -> Option<http::Response<Body>> {
    let status = |code: StatusCode| {
        let mut response = http::Response::new(Body::empty());
        *response.status_mut() = code;
        response
    };
    if head.method != Method::POST {
        let mut response = status(StatusCode::METHOD_NOT_ALLOWED);
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("POST"));
        return Some(response);
    }
    let kind = head.headers.get(CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
    let rest = kind.strip_prefix(GRPC.as_bytes());
    match rest {
        Some([] | [b'+' | b';' | b' ', ..]) => None,
        _ => Some(status(StatusCode::UNSUPPORTED_MEDIA_TYPE)),
    }
}

struct CountIfDropped<'a, S>(&'a Door<S>);

impl<S> Drop for CountIfDropped<'_, S> {
    fn drop(&mut self) {
        self.0.counters.cancelled.fetch_add(1, Relaxed);
    }
}

/// Takes one export; the framed answer.
async fn export<S: Sink, G: Signal>(door: &Door<S>, head: &request::Parts, body: Body) -> Result<Bytes, Fault> {
    if head.uri.path() != G::METHOD {
        return Err(Fault::UnknownMethod);
    }
    let tenant = (door.tenant)(&head.headers).map_err(|error| Fault::Unauthenticated { detail: error.detail })?;
    let compression = compression(&head.headers)?;
    let settings = &door.settings;

    let mut reader = MessageReader::new(body, settings.read_timeout, settings.body_timeout);
    let prefix = reader.prefix().await?;
    if prefix.bytes > settings.request_bytes_max {
        return Err(Fault::TooLarge { bytes_max: settings.request_bytes_max });
    }
    if let Some(rate) = &door.rate {
        rate.take(&tenant, prefix.bytes, door.clock.now())?;
    }
    let mut grant = door.budget.open();
    grant.hold(prefix.bytes).await?;
    let mut body = reader.body(prefix).await?;
    door.counters.bytes_received.fetch_add(body.len() as u64, Relaxed);
    if prefix.compressed {
        let compression = compression.ok_or(Fault::Framing {
            detail: "the message is flagged as compressed, but grpc-encoding names no compression",
        })?;
        if !body.is_empty() {
            (body, grant) = inflate(compression, body, settings.request_bytes_max, grant).await?;
        }
    }
    if body.is_empty() {
        door.counters.empty.fetch_add(1, Relaxed);
        return Ok(SUCCESS);
    }

    let (bytes, checked, check) = (body.len(), body.clone(), door.checks);
    let malformed = |detail| Fault::Malformed { detail };
    let Some(signal) = G::EXPORT else {
        let (points, _grant) = off_runtime(bytes, move || ((check.metrics)(&checked), grant)).await?;
        return Ok(metrics_answer(door, points.map_err(malformed)?));
    };
    // The grant goes along, as in `inflate`.
    let (check, _grant) = off_runtime(bytes, move || {
        let check = match signal {
            ExportSignal::Traces => check.traces,
            ExportSignal::Logs => check.logs,
        };
        (check(&checked), grant)
    })
    .await?;
    check.map_err(malformed)?;
    door.sink.append(Export { tenant, signal, encoding: ExportEncoding::Protobuf, body }).await?;
    door.counters.bytes_accepted.fetch_add(bytes as u64, Relaxed);
    Ok(SUCCESS)
}

/// The compression that messages of this request may have.
fn compression(headers: &HeaderMap) -> Result<Option<Compression>, Fault> {
    match headers.get(GRPC_ENCODING).map(HeaderValue::as_bytes) {
        None | Some(b"identity") => Ok(None),
        Some(b"gzip") => Ok(Some(Compression::Gzip)),
        Some(b"zstd") => Ok(Some(Compression::Zstd)),
        Some(other) => Err(Fault::UnknownEncoding {
            encoding: String::from_utf8_lossy(other).chars().take(NAME_CHARS_MAX).collect(),
        }),
    }
}

fn metrics_answer<S>(door: &Door<S>, points: u64) -> Bytes {
    if points == 0 {
        return SUCCESS;
    }
    door.counters.metric_points_refused.fetch_add(points, Relaxed);
    let answer = ExportMetricsServiceResponse {
        partial_success: Some(ExportMetricsPartialSuccess {
            rejected_data_points: i64::try_from(points).unwrap_or(i64::MAX),
            error_message: METRICS_REFUSED.to_owned(),
        }),
    };
    let message = answer.encode_to_vec();
    let mut framed = BytesMut::with_capacity(5 + message.len());
    framed.put_u8(0);
    framed.put_u32(message.len() as u32);
    framed.put_slice(&message);
    framed.freeze()
}

/// The body of a successful answer: one message, then the status in the trailers.
struct Reply {
    message: Option<Bytes>,
    ended: bool,
}

impl http_body::Body for Reply {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if let Some(message) = self.message.take() {
            return Poll::Ready(Some(Ok(Frame::data(message))));
        }
        if self.ended {
            return Poll::Ready(None);
        }
        self.ended = true;
        let mut trailers = HeaderMap::with_capacity(1);
        trailers.insert(GRPC_STATUS, HeaderValue::from_static("0"));
        Poll::Ready(Some(Ok(Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.ended
    }
}
