//! Spans, log records and exports as clients send them.

use std::sync::Arc;

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
use prost::Message as _;
use toolgauge_collector::export::{Export, ExportEncoding, ExportSignal};

/// OTLP's numbers of span kinds.
pub(crate) const SERVER: i32 = 2;
pub(crate) const CLIENT: i32 = 3;

fn attribute(key: &str, value: Value) -> KeyValue {
    KeyValue { key: key.into(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}

/// A span that is built up.
#[derive(Clone, Debug)]
pub(crate) struct SpanOf(pub(crate) Span);

impl SpanOf {
    pub(crate) fn new(trace: u64, span: u64, parent: u64, name: &str) -> Self {
        let mut trace_id = [7; 16];
        trace_id[8..].copy_from_slice(&trace.to_be_bytes());
        Self(Span {
            trace_id: trace_id.to_vec(),
            span_id: span.to_be_bytes().to_vec(),
            parent_span_id: if parent == 0 { Vec::new() } else { parent.to_be_bytes().to_vec() },
            name: name.into(),
            kind: 1,
            ..Span::default()
        })
    }

    /// From and to, in microseconds since 1970.
    pub(crate) fn at(mut self, start_us: i64, end_us: i64) -> Self {
        self.0.start_time_unix_nano = start_us.unsigned_abs() * 1_000;
        self.0.end_time_unix_nano = end_us.unsigned_abs() * 1_000;
        self
    }

    pub(crate) fn text(mut self, key: &str, value: &str) -> Self {
        self.0.attributes.push(attribute(key, Value::StringValue(value.into())));
        self
    }

    pub(crate) fn int(mut self, key: &str, value: i64) -> Self {
        self.0.attributes.push(attribute(key, Value::IntValue(value)));
        self
    }

    pub(crate) fn float(mut self, key: &str, value: f64) -> Self {
        self.0.attributes.push(attribute(key, Value::DoubleValue(value)));
        self
    }

    pub(crate) fn failed(mut self, error: Option<&str>) -> Self {
        if let Some(error) = error {
            self.0.status = Some(Status { message: format!("it was {error}"), code: 2 });
            self = self.text("error.type", error);
        }
        self
    }

    pub(crate) fn tool(trace: u64, span: u64, parent: u64, tool: &str) -> Self {
        Self::new(trace, span, parent, &format!("execute_tool {tool}"))
            .text("gen_ai.operation.name", "execute_tool")
            .text("gen_ai.tool.name", tool)
    }

    pub(crate) fn mcp(trace: u64, span: u64, parent: u64, tool: &str, kind: i32) -> Self {
        let mut span = Self::new(trace, span, parent, &format!("tools/call {tool}"))
            .text("mcp.method.name", "tools/call")
            .text("mcp.server.name", "weather-mcp")
            .text("gen_ai.tool.name", tool);
        span.0.kind = kind;
        span
    }
}

/// A log record of a tool call that ended at `end_us`, as Claude Code writes it.
pub(crate) fn tool_result(session: &str, tool: &str, end_us: i64, error: Option<&str>) -> LogRecord {
    let text = |key: &str, value: &str| attribute(key, Value::StringValue(value.into()));
    let mut attributes = vec![
        text("session.id", session),
        text("tool_name", tool),
        text("success", if error.is_none() { "true" } else { "false" }),
        text("duration_ms", "1"),
    ];
    attributes.extend(error.map(|error| text("error_type", error)));
    LogRecord {
        time_unix_nano: end_us.unsigned_abs() * 1_000,
        event_name: "claude_code.tool_result".into(),
        attributes,
        ..LogRecord::default()
    }
}

/// What a client tells of a call.
#[derive(Clone, Debug)]
pub(crate) enum Told {
    Span(Span),
    Log(LogRecord),
}

/// An export of one service for each signal that there is something of.
pub(crate) fn exports(service: &str, told: &[Told]) -> Vec<Export> {
    let spans = told.iter().filter_map(|told| if let Told::Span(span) = told { Some(span.clone()) } else { None });
    let logs = told.iter().filter_map(|told| if let Told::Log(record) = told { Some(record.clone()) } else { None });
    let (spans, logs): (Vec<Span>, Vec<LogRecord>) = (spans.collect(), logs.collect());
    let mut exports = Vec::new();
    if !spans.is_empty() {
        exports.push(export(service, spans));
    }
    if !logs.is_empty() {
        exports.push(export_logs(service, logs));
    }
    exports
}

fn resource(service: &str) -> Option<Resource> {
    let attributes = vec![attribute("service.name", Value::StringValue(service.into()))];
    Some(Resource { attributes, ..Resource::default() })
}

/// An export of one service's spans.
pub(crate) fn export(service: &str, spans: Vec<Span>) -> Export {
    let request = ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            resource: resource(service),
            scope_spans: vec![ScopeSpans { spans, ..ScopeSpans::default() }],
            ..ResourceSpans::default()
        }],
    };
    of_bytes(ExportSignal::Traces, request.encode_to_vec())
}

fn export_logs(service: &str, log_records: Vec<LogRecord>) -> Export {
    let request = ExportLogsServiceRequest {
        resource_logs: vec![ResourceLogs {
            resource: resource(service),
            scope_logs: vec![ScopeLogs { log_records, ..ScopeLogs::default() }],
            ..ResourceLogs::default()
        }],
    };
    of_bytes(ExportSignal::Logs, request.encode_to_vec())
}

fn of_bytes(signal: ExportSignal, body: Vec<u8>) -> Export {
    Export { tenant: Arc::from("default"), signal, encoding: ExportEncoding::Protobuf, body: body.into() }
}
