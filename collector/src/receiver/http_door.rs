//! OTLP/HTTP: one path for each signal, protobuf and JSON, over HTTP/1.1 and HTTP/2 without TLS.

use std::convert::Infallible;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT_ENCODING, ALLOW, CONTENT_ENCODING, CONTENT_TYPE, EXPECT, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version};
use http_body::Body as _;
use http_body_util::Full;
use hyper::body::Incoming as Body;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceResponse;
use prost::Message as _;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::incoming::{Connection, Gate};
use super::inflate::Compression;
use super::intake::{Format, Incoming, Refused, Taken};
use super::message::MessageReader;
use super::status::{Fault, FaultKind, shortened};
use super::{Door, Settings};
use crate::export::{ExportSignal, Sink};

const PROTOBUF: &str = "application/x-protobuf";
const JSON: &str = "application/json";
const ACCEPTED_ENCODINGS: HeaderValue = HeaderValue::from_static("gzip, zstd, identity");
/// Most bytes of the head of a request in HTTP/1, and of what is read ahead of its body.
const READ_BUFFER_BYTES: usize = 64 << 10;
/// Most bytes of the head of a request in HTTP/2: the default of other servers.
const HEAD_BYTES_MAX: u32 = 16 << 10;

impl Format {
    const fn name(self) -> &'static str {
        match self {
            Self::Protobuf => PROTOBUF,
            Self::Json => JSON,
        }
    }
}

/// Serves the listener until `shutdown` resolves and requests in flight are answered, or the drain timeout is over.
pub(super) async fn serve<S: Sink>(
    door: &Arc<Door<S>>,
    gate: &Gate,
    listener: TcpListener,
    shutdown: impl Future<Output = ()>,
) {
    let cut = CancellationToken::new();
    let (stop, stopped) = watch::channel(());
    let mut connections = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    loop {
        tokio::select! {
            biased;
            // Cancel-safe: it is pinned, and not polled again.
            () = &mut shutdown => break,
            // Cancel-safe: see there.
            connection = gate.next(&listener, &cut) => {
                while connections.try_join_next().is_some() {}
                connections.spawn(converse(Arc::clone(door), connection, stopped.clone()));
            }
        }
    }
    drop((listener, stopped, stop));
    let drained = timeout(door.settings.drain_timeout, async { while connections.join_next().await.is_some() {} });
    if drained.await.is_err() {
        let connections = connections.len();
        tracing::warn!(connections, "requests are still in flight after drain_timeout, cutting their connections");
    }
    cut.cancel();
    connections.shutdown().await;
}

fn protocols(settings: &Settings) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(settings.idle_timeout).max_buf_size(READ_BUFFER_BYTES);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(settings.streams_per_connection_max)
        .initial_stream_window_size(settings.stream_window_bytes)
        .initial_connection_window_size(settings.connection_window_bytes)
        .max_frame_size(settings.frame_bytes_max)
        .max_header_list_size(HEAD_BYTES_MAX)
        .keep_alive_interval(settings.keepalive_interval)
        .keep_alive_timeout(settings.keepalive_timeout);
    builder
}

/// Answers the requests of one connection, until it ends or, once `stopped`, until those in flight are answered.
async fn converse<S: Sink>(door: Arc<Door<S>>, connection: Connection, mut stopped: watch::Receiver<()>) {
    let service = service_fn(|request| {
        let door = Arc::clone(&door);
        async move { Ok::<_, Infallible>(answer(&door, request).await) }
    });
    let protocols = protocols(&door.settings);
    let mut connection = pin!(protocols.serve_connection(TokioIo::new(connection), service));
    // The connection is polled on after either arm; dropping a poll of it loses nothing.
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        _ = stopped.changed() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended");
    }
}

async fn answer<S: Sink>(door: &Door<S>, request: Request<Body>) -> Response<Full<Bytes>> {
    let (head, body) = request.into_parts();
    let format = format(&head.headers);
    let settings = &door.settings;
    let declared = body.size_hint().exact().map(|bytes| usize::try_from(bytes).unwrap_or(usize::MAX));
    let mut reader = MessageReader::new(body, settings.read_timeout, settings.body_timeout);
    let export = async {
        let signal = signal(head.uri.path())?;
        if head.method != Method::POST {
            return Err(Fault::WrongMethod);
        }
        let format = format.clone()?;
        let tenant = door.tenant_of(&head.headers)?;
        let compression = compression(&head.headers)?;
        // What is not declared is charged when it has come; until then it is asked only whether there is room.
        door.charge(&tenant, declared.unwrap_or_default())?;
        let mut grant = door.budget.open();
        let body = reader.whole(declared, settings.request_bytes_max, &mut grant).await?;
        if declared.is_none() {
            door.charge(&tenant, body.len())?;
        }
        door.take(Incoming { tenant, signal, format, compression, body }, grant).await
    };
    let result = door.counted(export).await;
    match result {
        Ok(taken) => respond(StatusCode::OK, format.unwrap_or(Format::Json), success(taken)),
        Err(refused) => {
            // A client that waits for leave to send its body reads the answer; one that is over the limit by far never will.
            let waits = head.version >= Version::HTTP_2 || head.headers.contains_key(EXPECT);
            let most = settings.request_bytes_max;
            if !waits && declared.is_none_or(|bytes| bytes / 2 <= most) {
                reader.discard(2 * most).await;
            }
            failure(format.unwrap_or(Format::Json), &refused)
        }
    }
}

/// Which signal is sent to this path; `None`: metrics.
fn signal(path: &str) -> Result<Option<ExportSignal>, Fault> {
    match path {
        "/v1/traces" => Ok(Some(ExportSignal::Traces)),
        "/v1/logs" => Ok(Some(ExportSignal::Logs)),
        "/v1/metrics" => Ok(None),
        _ => Err(Fault::UnknownPath),
    }
}

fn format(headers: &HeaderMap) -> Result<Format, Fault> {
    let whole = headers.get(CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
    // What follows are parameters, such as the charset.
    let kind = whole.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    [Format::Protobuf, Format::Json]
        .into_iter()
        .find(|format| kind.eq_ignore_ascii_case(format.name().as_bytes()))
        .ok_or_else(|| Fault::UnknownContentType { content_type: shortened(whole) })
}

fn compression(headers: &HeaderMap) -> Result<Option<Compression>, Fault> {
    let name = headers.get(CONTENT_ENCODING).map_or(&b""[..], HeaderValue::as_bytes).trim_ascii();
    let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
    if headers.get_all(CONTENT_ENCODING).iter().nth(1).is_some() {
        return Err(Fault::UnknownEncoding { encoding: "several".to_owned() });
    }
    match () {
        () if name.is_empty() || is("identity") => Ok(None),
        () if is("gzip") || is("x-gzip") => Ok(Some(Compression::Gzip)),
        () if is("zstd") => Ok(Some(Compression::Zstd)),
        () => Err(Fault::UnknownEncoding { encoding: shortened(name) }),
    }
}

fn respond(status: StatusCode, format: Format, body: impl FnOnce(Format) -> Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body(format)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(format.name()));
    response
}

fn success(taken: Taken) -> impl FnOnce(Format) -> Bytes {
    move |format| match (taken.partial_success(), format) {
        (None, Format::Protobuf) => Bytes::new(),
        (None, Format::Json) => Bytes::from_static(b"{}"),
        (Some(answer), Format::Protobuf) => answer.encode_to_vec().into(),
        (Some(ExportMetricsServiceResponse { partial_success }), Format::Json) => {
            let partial = partial_success.unwrap_or_default();
            let answer = json!({ "partialSuccess": {
                "rejectedDataPoints": partial.rejected_data_points.to_string(),
                "errorMessage": partial.error_message,
            }});
            answer.to_string().into()
        }
    }
}

fn failure(format: Format, refused: &Refused) -> Response<Full<Bytes>> {
    let Refused { fault, retry_after } = refused;
    let status = StatusCode::from_u16(fault.kind().wire().http).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = respond(status, format, |format| match format {
        Format::Protobuf => fault.to_status(*retry_after).encode_to_vec().into(),
        Format::Json => status_json(fault, *retry_after).to_string().into(),
    });
    let headers = response.headers_mut();
    if let Some(delay) = retry_after {
        headers.insert(RETRY_AFTER, whole_seconds(*delay).into());
    }
    match fault.kind() {
        FaultKind::WrongMethod => drop(headers.insert(ALLOW, HeaderValue::from_static("POST"))),
        FaultKind::UnknownEncoding => drop(headers.insert(ACCEPT_ENCODING, ACCEPTED_ENCODINGS)),
        _ => {}
    }
    response
}

/// Rounded up, so that nobody comes back too early.
fn whole_seconds(delay: Duration) -> u64 {
    delay.as_secs() + u64::from(delay.subsec_nanos() > 0)
}

/// `google.rpc.Status` as ProtoJSON has it.
fn status_json(fault: &Fault, retry_after: Option<Duration>) -> Value {
    let mut details = Vec::new();
    if let Some(delay) = retry_after {
        let delay = format!("{}.{:09}s", delay.as_secs(), delay.subsec_nanos());
        details.push(json!({ "@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": delay }));
    }
    if let Some(description) = fault.bad_request() {
        let violations = json!([{ "field": "body", "description": description }]);
        details.push(json!({ "@type": "type.googleapis.com/google.rpc.BadRequest", "fieldViolations": violations }));
    }
    let code = fault.kind().wire().grpc as i32;
    let mut status = json!({ "code": code, "message": fault.to_string() });
    if !details.is_empty() {
        status["details"] = details.into();
    }
    status
}
