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
use std::task::{Context, Poll};

use bytes::{BufMut, Bytes, BytesMut};
use http::header::{ALLOW, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, request};
use http_body::Frame;
use prost::Message;
use tonic::body::Body;
use tonic::server::NamedService;
use tower::Service;

use super::Door;
use super::inflate::Compression;
use super::intake::{Format, Incoming, Taken};
use super::message::MessageReader;
use super::status::{Fault, shortened};
use crate::export::{ExportSignal, Sink};

const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");
const GRPC_ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");
const GRPC_ACCEPT_ENCODING: HeaderName = HeaderName::from_static("grpc-accept-encoding");
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const ACCEPTED_ENCODINGS: HeaderValue = HeaderValue::from_static("identity,gzip,zstd");

/// A message of no bytes, framed: every full success, since `partial_success` must be unset in it.
const SUCCESS: Bytes = Bytes::from_static(&[0; 5]);

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
    let mut response = match door.counted(export::<S, G>(door, &head, body)).await {
        Ok(taken) => {
            let reply = Reply { message: Some(reply(taken)), ended: false };
            let mut response = http::Response::new(Body::new(reply));
            response.headers_mut().insert(CONTENT_TYPE, GRPC);
            response
        }
        Err(refused) => refused.fault.to_grpc(refused.retry_after).into_http(),
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

/// Takes one export.
async fn export<S: Sink, G: Signal>(door: &Door<S>, head: &request::Parts, body: Body) -> Result<Taken, Fault> {
    if head.uri.path() != G::METHOD {
        return Err(Fault::UnknownMethod);
    }
    let tenant = door.tenant_of(&head.headers)?;
    let compression = compression(&head.headers)?;
    let settings = &door.settings;

    let mut reader = MessageReader::new(body, settings.read_timeout, settings.body_timeout);
    let prefix = reader.prefix().await?;
    if prefix.bytes > settings.request_bytes_max {
        return Err(Fault::TooLarge { bytes_max: settings.request_bytes_max });
    }
    door.charge(&tenant, prefix.bytes)?;
    let mut grant = door.budget.open();
    grant.hold(prefix.bytes).await?;
    let body = reader.body(prefix).await?;
    let compression = match (prefix.compressed, compression) {
        (false, _) => None,
        (true, Some(compression)) => Some(compression),
        (true, None) => {
            return Err(Fault::Framing {
                detail: "the message is flagged as compressed, but grpc-encoding names no compression",
            });
        }
    };
    let message = Incoming { tenant, signal: G::EXPORT, format: Format::Protobuf, compression, body };
    door.take(message, grant).await
}

/// The compression that messages of this request may have.
fn compression(headers: &HeaderMap) -> Result<Option<Compression>, Fault> {
    match headers.get(GRPC_ENCODING).map(HeaderValue::as_bytes) {
        None | Some(b"identity") => Ok(None),
        Some(b"gzip") => Ok(Some(Compression::Gzip)),
        Some(b"zstd") => Ok(Some(Compression::Zstd)),
        Some(other) => Err(Fault::UnknownEncoding { encoding: shortened(other) }),
    }
}

/// The framed answer.
fn reply(taken: Taken) -> Bytes {
    let Some(partial) = taken.partial_success() else { return SUCCESS };
    let message = partial.encode_to_vec();
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
