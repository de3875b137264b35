//! The calls that both sides know: of each tool one every [`STEP_S`] in the history, one a second after it.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
use prost::Message as _;
use tonic::client::Grpc;
use tonic::transport::Endpoint;
use toolgauge_proto::time::{Clock as _, SystemClock};

use super::Fallible;
use super::load::{EXPORT_PATH, RawCodec};

/// Between two calls of a tool in the history, which is between two samples as well.
pub(crate) const STEP_S: u64 = 120;
/// Of the history.
pub(crate) const STEPS: u64 = 3 * 86_400 / STEP_S;
/// One in so many calls fails.
const FAILS: u64 = 200;
/// Calls of an export.
const CALLS: usize = 2_000;

pub(crate) fn tool(number: usize) -> String {
    format!("tool-{number}")
}

/// Seconds since 1970.
pub(crate) fn now_s() -> u64 {
    SystemClock.now().0.unsigned_abs() / 1_000_000
}

/// See the module. Calls are numbered for each tool, from 0.
#[derive(Debug, Clone)]
pub(crate) struct Traffic {
    tools: usize,
    /// When the history ends.
    pub(crate) end_s: u64,
}

impl Traffic {
    pub(crate) fn new(tools: usize) -> Self {
        Self { tools, end_s: now_s() }
    }

    pub(crate) fn tools(&self) -> usize {
        self.tools
    }

    pub(crate) fn history_calls(&self) -> f64 {
        (STEPS * self.tools as u64) as f64
    }

    /// When this sample of the history was taken, which is when its call ended.
    pub(crate) fn sampled_s(&self, step: u64) -> u64 {
        self.end_s - (STEPS - 1 - step) * STEP_S
    }

    pub(crate) fn fails(tool: usize, call: u64) -> bool {
        (call * 7 + tool as u64).is_multiple_of(FAILS)
    }

    /// Of the first calls of a tool, how many failed.
    pub(crate) fn failures(tool: usize, calls: u64) -> u64 {
        (0..calls).filter(|call| Self::fails(tool, *call)).count() as u64
    }

    fn span(tool_number: usize, call: u64, end_s: u64) -> Span {
        let text = |key: &str, value: String| KeyValue {
            key: key.into(),
            value: Some(AnyValue { value: Some(Value::StringValue(value)) }),
            ..Default::default()
        };
        let number = ((tool_number as u64) << 32) + call + 1;
        let failed = Self::fails(tool_number, call);
        let mut attributes =
            vec![text("gen_ai.operation.name", "execute_tool".into()), text("gen_ai.tool.name", tool(tool_number))];
        attributes.extend(failed.then(|| text("error.type", "TimeoutError".into())));
        Span {
            trace_id: [0xbe_u64.to_be_bytes(), number.to_be_bytes()].concat(),
            span_id: number.to_be_bytes().to_vec(),
            name: format!("execute_tool {}", tool(tool_number)),
            start_time_unix_nano: end_s * 1_000_000_000 - 5_000_000,
            end_time_unix_nano: end_s * 1_000_000_000,
            attributes,
            status: failed.then(|| Status { code: 2, message: "no answer".into() }),
            ..Default::default()
        }
    }

    fn export(spans: Vec<Span>) -> Bytes {
        let service = KeyValue {
            key: "service.name".into(),
            value: Some(AnyValue { value: Some(Value::StringValue("load".into())) }),
            ..Default::default()
        };
        let request = ExportTraceServiceRequest {
            resource_spans: vec![ResourceSpans {
                resource: Some(Resource { attributes: vec![service], ..Default::default() }),
                scope_spans: vec![ScopeSpans { spans, ..Default::default() }],
                ..Default::default()
            }],
        };
        request.encode_to_vec().into()
    }

    async fn send(grpc: &mut Grpc<tonic::transport::Channel>, spans: Vec<Span>) -> Fallible<()> {
        let export = Self::export(spans);
        loop {
            grpc.ready().await?;
            let path = http::uri::PathAndQuery::from_static(EXPORT_PATH);
            match grpc.unary::<Bytes, Bytes, _>(tonic::Request::new(export.clone()), path, RawCodec).await {
                Ok(_) => return Ok(()),
                // As exporters do.
                Err(status) if status.code() == tonic::Code::Unavailable => {
                    tokio::time::sleep(Duration::from_millis(200)).await
                }
                Err(status) => return Err(status.into()),
            }
        }
    }

    async fn connect(address: SocketAddr) -> Fallible<Grpc<tonic::transport::Channel>> {
        Ok(Grpc::new(Endpoint::new(format!("http://{address}"))?.connect().await?))
    }

    /// Sends the calls of the history, in their order.
    pub(crate) async fn send_history(&self, address: SocketAddr) -> Fallible<()> {
        let mut grpc = Self::connect(address).await?;
        let mut spans = Vec::with_capacity(CALLS);
        for step in 0..STEPS {
            for tool in 0..self.tools {
                spans.push(Self::span(tool, step, self.sampled_s(step)));
                if spans.len() == CALLS {
                    Self::send(&mut grpc, std::mem::replace(&mut spans, Vec::with_capacity(CALLS))).await?;
                }
            }
        }
        Self::send(&mut grpc, spans).await
    }

    /// One call of each tool a second, to both, until it is aborted.
    pub(crate) async fn go_on(self, addresses: [SocketAddr; 2]) -> Result<(), String> {
        let told = |error: Box<dyn std::error::Error>| error.to_string();
        let mut doors = Vec::new();
        for address in addresses {
            doors.push(Self::connect(address).await.map_err(told)?);
        }
        let mut seconds = tokio::time::interval(Duration::from_secs(1));
        for call in STEPS.. {
            seconds.tick().await;
            let end_s = now_s();
            for door in &mut doors {
                let spans = (0..self.tools).map(|tool| Self::span(tool, call, end_s)).collect();
                Self::send(door, spans).await.map_err(told)?;
            }
        }
        Ok(())
    }

    /// What counters of calls and failures show at this time, after the history.
    pub(crate) fn counted(&self, tool: usize, at_s: u64) -> (u64, u64) {
        let calls = STEPS + at_s.saturating_sub(self.end_s);
        (calls, Self::failures(tool, calls))
    }
}
