//! Exports of known content.

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status, span::SpanKind};

/// `STATUS_CODE_ERROR` of OTLP.
const ERROR: i32 = 2;
const MS: u64 = 1_000_000;

pub(crate) fn text(key: &str, value: &str) -> KeyValue {
    attribute(key, Value::StringValue(value.to_owned()))
}

pub(crate) fn double(key: &str, value: f64) -> KeyValue {
    attribute(key, Value::DoubleValue(value))
}

fn attribute(key: &str, value: Value) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}

/// The id with this number; never all zero.
pub(crate) fn trace_id(number: u64) -> Vec<u8> {
    [0x7ace_0000_0000_0001_u64.to_be_bytes(), number.to_be_bytes()].concat()
}

/// The id of the span with this number in its trace.
pub(crate) fn span_id(trace: u64, number: u64) -> Vec<u8> {
    (trace.wrapping_mul(1_000) + number + 1).to_be_bytes().to_vec()
}

/// A call of a tool that went well.
pub(crate) fn tool_span(tool: &str, trace: u64, number: u64, start_ns: u64, duration_ns: u64) -> Span {
    Span {
        trace_id: trace_id(trace),
        span_id: span_id(trace, number),
        name: format!("execute_tool {tool}"),
        start_time_unix_nano: start_ns,
        end_time_unix_nano: start_ns + duration_ns,
        attributes: vec![text("gen_ai.operation.name", "execute_tool"), text("gen_ai.tool.name", tool)],
        ..Span::default()
    }
}

pub(crate) fn failed(mut span: Span, error_type: &str) -> Span {
    span.status = Some(Status { code: ERROR, message: "no".to_owned() });
    span.attributes.push(text("error.type", error_type));
    span
}

pub(crate) fn request(service: &str, spans: Vec<Span>) -> ExportTraceServiceRequest {
    let scope_spans = vec![ScopeSpans { spans, ..ScopeSpans::default() }];
    let resource = Some(Resource { attributes: vec![text("service.name", service)], ..Resource::default() });
    ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans { resource, scope_spans, ..ResourceSpans::default() }],
    }
}

/// Rows of `calls` that [`trace`] makes; one more span of it is sent again by the next export.
pub(crate) const ROWS_PER_TRACE: u64 = 7;

/// One export: a failed call with two retries, a call seen by three layers, one more call, and a span that the export
/// before had. All that belongs together is in it, so that it is decided the same whenever it comes.
pub(crate) fn trace(client: u64, number: u64, base_ns: u64) -> ExportTraceServiceRequest {
    let trace = (client << 32) + number;
    let start = base_ns + number * MS;
    let mut spans = vec![Span {
        trace_id: trace_id(trace),
        span_id: span_id(trace, 0),
        name: "POST /chat".to_owned(),
        start_time_unix_nano: start,
        end_time_unix_nano: start + 900 * MS,
        ..Span::default()
    }];
    let inside = |mut span: Span, parent: u64| {
        span.parent_span_id = span_id(trace, parent);
        span
    };
    let attempt = |n: u64| {
        let mut span = tool_span("charge", trace, n, start + n * 20 * MS, (number % 7 + n) * MS);
        span.attributes.push(text("gen_ai.tool.call.id", &format!("call-{trace}")));
        span.attributes.push(double("toolgauge.cost.usd", 0.001_5));
        inside(span, 0)
    };
    spans.push(failed(attempt(1), "TimeoutError"));
    spans.push(failed(attempt(2), "TimeoutError"));
    // Every third call fails in the end.
    spans.push(if number.is_multiple_of(3) { failed(attempt(3), "ValueError") } else { attempt(3) });
    let layer = |n: u64, kind: SpanKind| {
        let mut span = tool_span("search", trace, n, start + (200 + n) * MS, (100 - 2 * n) * MS);
        span.kind = kind as i32;
        span
    };
    let mcp = |mut span: Span| {
        span.attributes.push(text("mcp.method.name", "tools/call"));
        span.name = "tools/call search".to_owned();
        span
    };
    spans.push(inside(layer(4, SpanKind::Internal), 0));
    spans.push(inside(mcp(layer(5, SpanKind::Client)), 4));
    spans.push(inside(mcp(layer(6, SpanKind::Server)), 5));
    spans.push(inside(plain(client, number, base_ns), 0));
    if number > 0 {
        spans.push(plain(client, number - 1, base_ns));
    }
    request("shop", spans)
}

fn plain(client: u64, number: u64, base_ns: u64) -> Span {
    let trace = (client << 32) + number;
    tool_span(if number.is_multiple_of(2) { "even" } else { "odd" }, trace, 7, base_ns + number * MS, 5 * MS)
}

/// What [`Decisions`] are made of, for all rows of `calls`; order by tool.
pub(crate) const DECISIONS: &str = "SELECT tool_name, layer, count(*), count(DISTINCT row_id), sum(attempt), \
    count(*) FILTER (WHERE final), count(*) FILTER (WHERE counted), count(*) FILTER (WHERE outcome = 'error'), \
    count(*) FILTER (WHERE final AND outcome = 'error'), sum(duration_ns), sum(cost_usd), \
    count(DISTINCT trace_id) FROM calls GROUP BY 1, 2 ORDER BY 1, 2";
