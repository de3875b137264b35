//! The view of `toolgauge_proto::otlp` against `prost`: check or decode a request of 512 tool-call spans, then visit every
//! field and attribute. Run with `cargo bench --bench otlp_view`; the ratio counts, nanoseconds depend on the machine.

#![expect(clippy::print_stdout, reason = "a benchmark prints its result")]

use std::hint::black_box;
use std::time::Instant;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
use prost::Message;
use toolgauge_proto::otlp::{AnyValueView, TracesView};

const SPANS: usize = 512;
const SPANS_PER_TRACE: usize = 5;
/// Different requests, so that the branch predictor cannot learn one by heart.
const REQUESTS: usize = 16;
const ROUNDS: usize = 201;

fn attribute(key: &str, value: Value) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}

/// A number that looks random; the same in every run.
fn noise(seed: usize) -> u64 {
    let mut value = (seed as u64).wrapping_add(0x9e37_79b9_7f4a_7c15);
    value = (value ^ value >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ value >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ value >> 31
}

/// One call of a tool, about 450 bytes with ten attributes.
fn span(index: usize) -> Span {
    let tool = ["get_weather", "search_documents", "send_email", "charge"][noise(index) as usize % 4];
    let text = |key, value: &str| attribute(key, Value::StringValue(value.to_owned()));
    let trace = noise(index / SPANS_PER_TRACE + 1_000_000_000);
    let start = 1_790_000_000_000_000_000 + noise(index) % 1_000_000_000;
    Span {
        trace_id: [trace.to_be_bytes(), noise(trace as usize).to_be_bytes()].concat(),
        span_id: noise(index + 2_000_000_000).to_be_bytes().to_vec(),
        parent_span_id: noise(index / SPANS_PER_TRACE + 3_000_000_000).to_be_bytes().to_vec(),
        flags: 0x101,
        name: format!("execute_tool {tool}"),
        kind: 1,
        start_time_unix_nano: start,
        end_time_unix_nano: start + noise(index) % 300_000_000,
        attributes: vec![
            text("gen_ai.operation.name", "execute_tool"),
            text("gen_ai.tool.name", tool),
            text("gen_ai.tool.call.id", &format!("call_{:016x}", noise(index + 7))),
            text("gen_ai.tool.type", "function"),
            text("gen_ai.agent.name", "planner"),
            text("gen_ai.conversation.id", &format!("conv_{:08x}", trace as u32)),
            text("mcp.method.name", "tools/call"),
            attribute("toolgauge.cost.usd", Value::DoubleValue(0.0021)),
            attribute("toolgauge.attempt", Value::IntValue(1 + index as i64 % 3)),
            attribute("server.port", Value::IntValue(8080)),
        ],
        status: Some(Status { code: index.is_multiple_of(20).into(), ..Status::default() }),
        ..Span::default()
    }
}

fn request(number: usize) -> Vec<u8> {
    let scope = InstrumentationScope { name: "agent".to_owned(), version: "1.0.0".to_owned(), ..Default::default() };
    let service = attribute("service.name", Value::StringValue("shop-assistant".to_owned()));
    let spans = (number * SPANS..(number + 1) * SPANS).map(span).collect();
    let scope_spans = vec![ScopeSpans { scope: Some(scope), spans, ..ScopeSpans::default() }];
    let resource = Some(Resource { attributes: vec![service], ..Resource::default() });
    let resource_spans = vec![ResourceSpans { resource, scope_spans, ..ResourceSpans::default() }];
    ExportTraceServiceRequest { resource_spans }.encode_to_vec()
}

/// Visits what the view shows; the sum keeps the compiler from leaving anything out.
fn visit_view(view: TracesView<'_>) -> u64 {
    let mut sum = 0;
    for resource in view.resource_spans() {
        for scope in resource.scope_spans() {
            for span in scope.spans() {
                let texts = [span.trace_id, span.span_id, span.parent_span_id, span.trace_state, span.name];
                sum += texts.iter().map(|text| text.len() as u64).sum::<u64>();
                sum += span.start_time_unix_nano ^ span.end_time_unix_nano;
                sum += u64::from(span.flags) + span.kind as u64 + span.status.code as u64;
                for attribute in span.attributes() {
                    sum += attribute.key.len() as u64;
                    sum += match attribute.value {
                        AnyValueView::String(text) => text.len() as u64,
                        AnyValueView::Int(number) => number as u64,
                        AnyValueView::Double(number) => number.to_bits(),
                        _ => 0,
                    };
                }
            }
        }
    }
    sum
}

/// The same of `prost`'s messages.
fn visit_prost(request: &ExportTraceServiceRequest) -> u64 {
    let mut sum = 0;
    for resource in &request.resource_spans {
        for scope in &resource.scope_spans {
            for span in &scope.spans {
                let ids = [&span.trace_id, &span.span_id, &span.parent_span_id];
                sum += ids.iter().map(|id| id.len() as u64).sum::<u64>();
                sum += (span.trace_state.len() + span.name.len()) as u64;
                sum += span.start_time_unix_nano ^ span.end_time_unix_nano;
                let code = span.status.as_ref().map_or(0, |status| status.code);
                sum += u64::from(span.flags) + span.kind as u64 + code as u64;
                for attribute in &span.attributes {
                    sum += attribute.key.len() as u64;
                    sum += match attribute.value.as_ref().and_then(|value| value.value.as_ref()) {
                        Some(Value::StringValue(text)) => text.len() as u64,
                        Some(Value::IntValue(number)) => *number as u64,
                        Some(Value::DoubleValue(number)) => number.to_bits(),
                        _ => 0,
                    };
                }
            }
        }
    }
    sum
}

fn by_view(request: &[u8]) -> u64 {
    TracesView::new(request).map_or(0, visit_view)
}

fn by_check(request: &[u8]) -> u64 {
    u64::from(TracesView::new(request).is_ok())
}

fn by_prost(request: &[u8]) -> u64 {
    ExportTraceServiceRequest::decode(request).map_or(0, |request| visit_prost(&request))
}

/// Nanoseconds per span that `read` needs for `request`.
fn time(request: &[u8], read: fn(&[u8]) -> u64) -> f64 {
    let start = Instant::now();
    black_box(read(black_box(request)));
    start.elapsed().as_secs_f64() * 1e9 / SPANS as f64
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

fn main() {
    let requests: Vec<Vec<u8>> = (0..REQUESTS).map(request).collect();
    let bytes = requests.iter().map(Vec::len).sum::<usize>() / (REQUESTS * SPANS);
    for request in &requests {
        assert_eq!(by_view(request), by_prost(request), "both visit the same");
    }
    let ways: [fn(&[u8]) -> u64; 3] = [by_view, by_check, by_prost];
    let mut times = ways.map(|_| Vec::with_capacity(ROUNDS * REQUESTS));
    // One request at a time: a run is shorter than a time slice, so the median is free of other processes' work.
    for request in (0..ROUNDS).flat_map(|_| &requests) {
        for (times, read) in times.iter_mut().zip(ways) {
            times.push(time(request, read));
        }
    }
    let [view, check, prost] = times.map(median);
    println!("otlp_view: {SPANS} spans of {bytes} bytes and 10 attributes");
    println!("  view   {view:7.1} ns/span (of which check {check:.1})");
    println!("  prost  {prost:7.1} ns/span");
    println!("  ratio  {:7.2}", prost / view);
}
