//! The views against `prost`'s messages, field by field.

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;

use super::super::*;

/// Both sides in step; panics where one is longer.
fn pairs<P, V>(prost: &[P], views: impl Iterator<Item = V>) -> impl Iterator<Item = (&P, V)> {
    let views: Vec<V> = views.collect();
    assert_eq!(prost.len(), views.len());
    prost.iter().zip(views)
}

fn same_value(prost: Option<&AnyValue>, view: AnyValueView<'_>) {
    match (prost.and_then(|value| value.value.as_ref()), view) {
        (None | Some(Value::StringValueStrindex(_)), AnyValueView::Empty) => {}
        (Some(Value::StringValue(prost)), AnyValueView::String(view)) => assert_eq!(prost.as_bytes(), view),
        (Some(Value::BoolValue(prost)), AnyValueView::Bool(view)) => assert_eq!(*prost, view),
        (Some(Value::IntValue(prost)), AnyValueView::Int(view)) => assert_eq!(*prost, view),
        (Some(Value::DoubleValue(prost)), AnyValueView::Double(view)) => assert_eq!(prost.to_bits(), view.to_bits()),
        (Some(Value::BytesValue(prost)), AnyValueView::Bytes(view)) => assert_eq!(prost, view),
        (Some(Value::ArrayValue(prost)), AnyValueView::Array(view)) => {
            pairs(&prost.values, view.iter()).for_each(|(prost, view)| same_value(Some(prost), view));
        }
        (Some(Value::KvlistValue(prost)), AnyValueView::KeyValueList(view)) => {
            same_attributes(&prost.values, view.iter())
        }
        (prost, view) => panic!("{prost:?} is not {view:?}"),
    }
}

fn same_attributes<'v>(prost: &[KeyValue], views: impl Iterator<Item = KeyValueView<'v>>) {
    for (prost, view) in pairs(prost, views) {
        assert_eq!(prost.key.as_bytes(), view.key);
        same_value(prost.value.as_ref(), view.value);
    }
}

fn same_resource(prost: Option<&Resource>, view: ResourceView<'_>) {
    same_attributes(prost.map(|resource| resource.attributes.as_slice()).unwrap_or_default(), view.attributes());
}

fn same_scope(prost: Option<&InstrumentationScope>, view: ScopeView<'_>) {
    let absent = InstrumentationScope::default();
    let prost = prost.unwrap_or(&absent);
    assert_eq!(prost.name.as_bytes(), view.name);
    assert_eq!(prost.version.as_bytes(), view.version);
    same_attributes(&prost.attributes, view.attributes());
}

/// Encodes both, since a number that is NaN is not even itself.
fn same_raw<P: Message + Default>(prost: &P, raw: &[u8]) {
    assert_eq!(P::decode(raw).map(|again| again.encode_to_vec()), Ok(prost.encode_to_vec()));
}

fn same_span(prost: &Span, view: SpanView<'_>) {
    assert_eq!(prost.trace_id, view.trace_id);
    assert_eq!(prost.span_id, view.span_id);
    assert_eq!(prost.parent_span_id, view.parent_span_id);
    assert_eq!(prost.trace_state.as_bytes(), view.trace_state);
    assert_eq!(prost.flags, view.flags);
    assert_eq!(prost.name.as_bytes(), view.name);
    assert_eq!(prost.kind, view.kind);
    assert_eq!(prost.start_time_unix_nano, view.start_time_unix_nano);
    assert_eq!(prost.end_time_unix_nano, view.end_time_unix_nano);
    let status = prost.status.clone().unwrap_or_default();
    assert_eq!(status.code, view.status.code);
    assert_eq!(status.message.as_bytes(), view.status.message);
    same_attributes(&prost.attributes, view.attributes());
    for (prost, view) in pairs(&prost.events, view.events()) {
        assert_eq!(prost.time_unix_nano, view.time_unix_nano);
        assert_eq!(prost.name.as_bytes(), view.name);
        same_attributes(&prost.attributes, view.attributes());
    }
    same_raw(prost, view.raw());
}

fn same_traces(prost: &ExportTraceServiceRequest, view: TracesView<'_>) {
    let mut spans = 0;
    for (prost, view) in pairs(&prost.resource_spans, view.resource_spans()) {
        same_resource(prost.resource.as_ref(), view.resource());
        for (prost, view) in pairs(&prost.scope_spans, view.scope_spans()) {
            same_scope(prost.scope.as_ref(), view.scope());
            assert_eq!(prost.spans.len(), view.span_count());
            spans += prost.spans.len();
            pairs(&prost.spans, view.spans()).for_each(|(prost, view)| same_span(prost, view));
        }
    }
    assert_eq!(spans, view.span_count());
}

fn same_log_record(prost: &LogRecord, view: LogRecordView<'_>) {
    assert_eq!(prost.time_unix_nano, view.time_unix_nano);
    assert_eq!(prost.observed_time_unix_nano, view.observed_time_unix_nano);
    assert_eq!(prost.severity_number, view.severity_number);
    assert_eq!(prost.severity_text.as_bytes(), view.severity_text);
    same_value(prost.body.as_ref(), view.body);
    assert_eq!(prost.flags, view.flags);
    assert_eq!(prost.trace_id, view.trace_id);
    assert_eq!(prost.span_id, view.span_id);
    assert_eq!(prost.event_name.as_bytes(), view.event_name);
    same_attributes(&prost.attributes, view.attributes());
    same_raw(prost, view.raw());
}

fn same_logs(prost: &ExportLogsServiceRequest, view: LogsView<'_>) {
    let mut records = 0;
    for (prost, view) in pairs(&prost.resource_logs, view.resource_logs()) {
        same_resource(prost.resource.as_ref(), view.resource());
        for (prost, view) in pairs(&prost.scope_logs, view.scope_logs()) {
            same_scope(prost.scope.as_ref(), view.scope());
            assert_eq!(prost.log_records.len(), view.log_record_count());
            records += prost.log_records.len();
            pairs(&prost.log_records, view.log_records()).for_each(|(prost, view)| same_log_record(prost, view));
        }
    }
    assert_eq!(records, view.log_record_count());
}

fn points(prost: &ExportMetricsServiceRequest) -> u64 {
    let metrics = prost.resource_metrics.iter().flat_map(|part| &part.scope_metrics).flat_map(|part| &part.metrics);
    let points = metrics.map(|metric| match &metric.data {
        None => 0,
        Some(Data::Gauge(data)) => data.data_points.len(),
        Some(Data::Sum(data)) => data.data_points.len(),
        Some(Data::Histogram(data)) => data.data_points.len(),
        Some(Data::ExponentialHistogram(data)) => data.data_points.len(),
        Some(Data::Summary(data)) => data.data_points.len(),
    });
    points.sum::<usize>() as u64
}

/// What the two sides say about the same bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Accepted,
    Refused,
    /// `prost` refuses a string that is not UTF-8; the view does not look.
    NotUtf8,
}

/// Panics unless both sides accept or both refuse, and see the same.
fn check<P: Message + Default, V>(bytes: &[u8], view: Result<V, Malformed>, same: impl FnOnce(&P, V)) -> Verdict {
    match (P::decode(bytes), view) {
        (Ok(prost), Ok(view)) => {
            same(&prost, view);
            Verdict::Accepted
        }
        (Err(error), _) if error.to_string().contains("UTF-8") => Verdict::NotUtf8,
        (Err(_), Err(malformed)) => {
            assert!(malformed.offset <= bytes.len(), "{malformed} of {}", bytes.len());
            Verdict::Refused
        }
        (Ok(_), Err(malformed)) => panic!("prost accepts, the view says: {malformed}"),
        (Err(error), Ok(_)) => panic!("the view accepts, prost says: {error}"),
    }
}

/// Compares both sides on a trace request.
pub(super) fn traces(bytes: &[u8]) -> Verdict {
    walk_traces(TracesView::trusted(bytes));
    check(bytes, TracesView::new(bytes), same_traces)
}

/// Compares both sides on a log request.
pub(super) fn logs(bytes: &[u8]) -> Verdict {
    walk_logs(LogsView::trusted(bytes));
    check(bytes, LogsView::new(bytes), same_logs)
}

/// Compares both sides on a metrics request.
pub(super) fn metrics(bytes: &[u8]) -> Verdict {
    check(bytes, metric_points(bytes), |prost, count| assert_eq!(points(prost), count))
}

/// Visits everything, whatever the bytes are; ends, and does not panic.
fn walk_traces(view: TracesView<'_>) {
    for resource in view.resource_spans() {
        walk_attributes(resource.resource().attributes());
        for scope in resource.scope_spans() {
            walk_attributes(scope.scope().attributes());
            for span in scope.spans() {
                walk_attributes(span.attributes());
                span.events().for_each(|event| walk_attributes(event.attributes()));
            }
        }
    }
}

fn walk_logs(view: LogsView<'_>) {
    for resource in view.resource_logs() {
        walk_attributes(resource.resource().attributes());
        for scope in resource.scope_logs() {
            walk_attributes(scope.scope().attributes());
            for record in scope.log_records() {
                walk_value(record.body);
                walk_attributes(record.attributes());
            }
        }
    }
}

fn walk_attributes<'a>(attributes: impl Iterator<Item = KeyValueView<'a>>) {
    attributes.for_each(|attribute| walk_value(attribute.value));
}

fn walk_value(value: AnyValueView<'_>) {
    match value {
        AnyValueView::Array(values) => values.iter().for_each(walk_value),
        AnyValueView::KeyValueList(attributes) => walk_attributes(attributes.iter()),
        _ => {}
    }
}
