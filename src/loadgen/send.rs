//! Sends exports to an OTLP endpoint, over gRPC or HTTP.

use std::io::Write as _;
use std::str::FromStr;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes};
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use tonic::client::Grpc;
use tonic::codec::{Codec, CompressionEncoding, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::metadata::MetadataMap;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use super::json;

const PATH: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
/// As long as SDKs wait.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The usual export fits, so that it is not held up by flow control.
const WINDOW_BYTES: u32 = 4 << 20;

/// How exports travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Protocol {
    /// OTLP/gRPC
    Grpc,
    /// OTLP/HTTP with protobuf
    Http,
    /// OTLP/HTTP with JSON
    HttpJson,
}

/// A header that is sent with each export.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header(HeaderName, HeaderValue);

impl FromStr for Header {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "it is no header (write like \"authorization: Bearer abc\")".to_owned();
        let (name, value) = text.split_once(':').ok_or_else(wrong)?;
        let name = HeaderName::try_from(name.trim()).map_err(|_| wrong())?;
        let mut value = HeaderValue::try_from(value.trim()).map_err(|_| wrong())?;
        value.set_sensitive(true);
        Ok(Self(name, value))
    }
}

/// How exports are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Compression {
    None,
    Gzip,
    Zstd,
}

/// An export that was not acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub(crate) struct Refused {
    /// The code of gRPC or HTTP, or `timeout`, or `connection`.
    pub(crate) code: String,
    pub(crate) message: String,
    /// When to send again, if OTLP says that it may succeed later.
    pub(crate) again: Option<Duration>,
}

/// An endpoint that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("\"{endpoint}\" is no endpoint: {reason} (write like http://127.0.0.1:4317)")]
pub struct WrongEndpoint {
    endpoint: String,
    reason: String,
}

/// One connection.
#[derive(Debug, Clone)]
pub(crate) enum Sender {
    Grpc { grpc: Box<Grpc<Channel>>, headers: HeaderMap },
    Http { client: reqwest::Client, url: reqwest::Url, compression: Compression, json: bool },
}

impl Sender {
    /// Connects when it is used first.
    pub(crate) fn new(
        endpoint: &str,
        protocol: Protocol,
        compression: Compression,
        headers: &[Header],
    ) -> Result<Self, WrongEndpoint> {
        let wrong = |reason: String| WrongEndpoint { endpoint: endpoint.to_owned(), reason };
        let headers: HeaderMap = headers.iter().map(|Header(name, value)| (name.clone(), value.clone())).collect();
        if protocol != Protocol::Grpc {
            let url = format!("{}/v1/traces", endpoint.trim_end_matches('/'));
            let url = reqwest::Url::parse(&url).map_err(|error| wrong(error.to_string()))?;
            if !matches!(url.scheme(), "http" | "https") {
                return Err(wrong(format!("\"{}\" is not spoken here", url.scheme())));
            }
            // One export is in flight at a time, and what is measured is the endpoint, not a proxy.
            let client = reqwest::Client::builder().timeout(TIMEOUT).http1_only().no_proxy().default_headers(headers);
            let client = client.build().map_err(|error| wrong(error.to_string()))?;
            return Ok(Self::Http { client, url, compression, json: protocol == Protocol::HttpJson });
        }
        if !endpoint.starts_with("http://") {
            return Err(wrong("OTLP/gRPC is spoken without TLS here; `--protocol http` knows https://".to_owned()));
        }
        let endpoint = Endpoint::from_shared(endpoint.to_owned()).map_err(|error| wrong(error.to_string()))?;
        let channel = endpoint
            .timeout(TIMEOUT)
            .connect_timeout(TIMEOUT)
            .initial_stream_window_size(WINDOW_BYTES)
            .initial_connection_window_size(2 * WINDOW_BYTES)
            .connect_lazy();
        let grpc = Grpc::new(channel);
        let grpc = Box::new(match compression {
            Compression::None => grpc,
            Compression::Gzip => grpc.send_compressed(CompressionEncoding::Gzip),
            Compression::Zstd => grpc.send_compressed(CompressionEncoding::Zstd),
        });
        Ok(Self::Grpc { grpc, headers })
    }

    /// Sends one export and waits for the answer.
    pub(crate) async fn send(&mut self, body: Bytes) -> Result<(), Refused> {
        match self {
            Self::Grpc { grpc, headers } => {
                grpc.ready().await.map_err(|error| Refused::connection(&error))?;
                let path = http::uri::PathAndQuery::from_static(PATH);
                let metadata = MetadataMap::from_headers(headers.clone());
                let request = tonic::Request::from_parts(metadata, tonic::Extensions::default(), body);
                match grpc.unary::<Bytes, Bytes, _>(request, path, RawCodec).await {
                    Ok(_) => Ok(()),
                    Err(status) => Err(Refused::status(&status)),
                }
            }
            Self::Http { client, url, compression, json } => {
                let (compression, json) = (*compression, *json);
                // Work for a thread of its own.
                let encoded = tokio::task::spawn_blocking(move || {
                    let body = if json { json::of(&body).into() } else { body };
                    compressed(&body, compression)
                });
                let encoded = encoded.await.map_err(|error| Refused::connection(&error))?;
                let (body, encoding) = encoded.map_err(|error| Refused::connection(&error))?;
                let content_type = if json { "application/json" } else { "application/x-protobuf" };
                let mut request = client.post(url.clone()).header(CONTENT_TYPE, content_type).body(body);
                if let Some(encoding) = encoding {
                    request = request.header(CONTENT_ENCODING, encoding);
                }
                answer(request.send().await).await
            }
        }
    }

    /// Sends one export until it is acknowledged or refused for good; how often it was asked to come again.
    pub(crate) async fn deliver(&mut self, body: Bytes) -> Result<u64, Refused> {
        for again in 0.. {
            match self.send(body.clone()).await {
                Ok(()) => return Ok(again),
                Err(Refused { again: Some(delay), .. }) => tokio::time::sleep(delay).await,
                Err(refused) => return Err(refused),
            }
        }
        Ok(0)
    }
}

/// What is waited where the answer says that it may succeed later, but not when.
const DELAY: Duration = Duration::from_millis(500);

impl Refused {
    fn connection(error: &(dyn std::error::Error + 'static)) -> Self {
        let message = toolgauge_collector::pipeline::chain(error);
        Self { code: "connection".to_owned(), message, again: Some(DELAY) }
    }

    /// OTLP's list of codes.
    fn status(status: &Status) -> Self {
        let told = status.get_details_retry_info().and_then(|info| info.retry_delay);
        let again = match status.code() {
            Code::Cancelled
            | Code::DeadlineExceeded
            | Code::Aborted
            | Code::OutOfRange
            | Code::Unavailable
            | Code::DataLoss => Some(told.unwrap_or(DELAY)),
            Code::ResourceExhausted => told,
            _ => None,
        };
        Self { code: format!("{:?}", status.code()), message: status.message().to_owned(), again }
    }
}

fn compressed(body: &Bytes, compression: Compression) -> std::io::Result<(Bytes, Option<&'static str>)> {
    match compression {
        Compression::None => Ok((body.clone(), None)),
        Compression::Gzip => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(body)?;
            Ok((encoder.finish()?.into(), Some("gzip")))
        }
        Compression::Zstd => Ok((zstd::encode_all(&body[..], 1)?.into(), Some("zstd"))),
    }
}

async fn answer(sent: Result<reqwest::Response, reqwest::Error>) -> Result<(), Refused> {
    let failed = |error: reqwest::Error| match error.is_timeout() {
        true => Refused { code: "timeout".to_owned(), message: "no answer".to_owned(), again: Some(DELAY) },
        false => Refused::connection(&error),
    };
    let response = sent.map_err(failed)?;
    let status = response.status();
    let told = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
    // Read to its end, so that the connection can be used again.
    let answer = response.bytes().await.map_err(failed)?;
    if status.is_success() {
        return Ok(());
    }
    let again = matches!(status.as_u16(), 429 | 502..=504).then(|| told.map_or(DELAY, Duration::from_secs));
    let message = String::from_utf8_lossy(&answer).chars().filter(|symbol| !symbol.is_control()).take(200).collect();
    Err(Refused { code: status.as_u16().to_string(), message, again })
}

/// Messages are bytes already.
#[derive(Debug, Clone, Copy, Default)]
struct RawCodec;

impl Codec for RawCodec {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for RawCodec {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(item);
        Ok(())
    }
}

impl Decoder for RawCodec {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining())))
    }
}
