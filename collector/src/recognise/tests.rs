//! What becomes of single spans and records.

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Decimal128Type, Int64Type};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, KeyValueList, any_value::Value};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status, span::Event};
use prost::Message as _;
use toolgauge_proto::table::Table;

use super::*;

const NOW_US: i64 = 1_790_000_000_000_000;

#[derive(Default)]
struct Taken {
    columns: CallColumns,
    facts: Vec<Facts>,
    links: Vec<Link>,
    quarantined: Vec<Quarantined>,
    sums: ArrivalSums,
    seen: Vec<RowId>,
}

impl RowSink for Taken {
    fn is_new(&mut self, row_id: RowId) -> bool {
        let new = !self.seen.contains(&row_id);
        self.seen.push(row_id);
        new
    }

    fn columns(&mut self) -> &mut CallColumns {
        &mut self.columns
    }

    fn block_number(&self) -> u64 {
        0
    }

    fn row(&mut self, _: GroupKey, facts: Facts) {
        self.facts.push(facts);
    }

    fn link(&mut self, _: GroupKey, link: Link) {
        self.links.push(link);
    }

    fn quarantine(&mut self, record: Quarantined) {
        self.quarantined.push(record);
    }

    fn arrived(&mut self, _: Option<&str>, sums: &ArrivalSums) {
        self.sums.add(sums);
    }
}

fn pair(key: &str, value: Value) -> KeyValue {
    KeyValue { key: key.into(), value: Some(AnyValue { value: Some(value) }), ..Default::default() }
}

fn text(key: &str, value: &str) -> KeyValue {
    pair(key, Value::StringValue(value.into()))
}

fn span(attributes: Vec<KeyValue>) -> Span {
    Span {
        trace_id: vec![1; 16],
        span_id: vec![2; 8],
        start_time_unix_nano: (NOW_US * 1_000 - 5_000_000).unsigned_abs(),
        end_time_unix_nano: (NOW_US * 1_000).unsigned_abs(),
        attributes,
        ..Default::default()
    }
}

fn tool(mut attributes: Vec<KeyValue>) -> Span {
    attributes.extend([text("gen_ai.operation.name", "execute_tool"), text("gen_ai.tool.name", "search")]);
    span(attributes)
}

fn take(spans: Vec<Span>) -> Taken {
    take_of("default", spans)
}

fn take_of(tenant: &str, spans: Vec<Span>) -> Taken {
    let request = ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            resource: Some(Resource {
                attributes: vec![text("service.name", "agent"), text("session.id", "from-resource")],
                ..Default::default()
            }),
            scope_spans: vec![ScopeSpans { spans, ..Default::default() }],
            ..Default::default()
        }],
    };
    let settings = RecogniseSettings {
        keep_attributes: vec!["server.address".into(), "my.api_key".into()],
        keep_attributes_of_successes: vec!["my.region".into(), "my.password".into()],
        ..RecogniseSettings::default()
    };
    let recogniser = Recogniser::new(Conventions::built_in().unwrap(), settings).unwrap();
    let frame = FrameInfo { position: WalPosition(7), received: UnixMicros(NOW_US), tenant };
    let mut taken = Taken::default();
    recogniser.traces(frame, &request.encode_to_vec(), &mut taken);
    taken
}

fn batch(taken: &mut Taken) -> RecordBatch {
    taken.columns.finish().unwrap()
}

fn column(batch: &RecordBatch, name: &str) -> ArrayRef {
    ArrayRef::clone(batch.column(Table::Calls.index_of(name)))
}

fn word(batch: &RecordBatch, name: &str) -> Option<String> {
    let texts = arrow::compute::cast(&column(batch, name), &DataType::Utf8).unwrap();
    let texts = texts.as_string::<i32>();
    texts.is_valid(0).then(|| texts.value(0).to_owned())
}

fn long(batch: &RecordBatch, name: &str) -> Option<i64> {
    let longs = column(batch, name);
    longs.is_valid(0).then(|| longs.as_primitive::<Int64Type>().value(0))
}

/// Scenario: spans that say how many they stand for, in each of the ways that there are. Guarantees: the tracestate is preferred.
#[test]
fn marks_of_samplers_become_thresholds() {
    const ALL: f64 = (1_u64 << 56) as f64;
    let state = |state: &str, span: Span| Span { trace_state: state.into(), ..span };
    let int = |key: &str, value| pair(key, Value::IntValue(value));
    for (span, events) in [
        (state("ot=th:c", tool(vec![int("SampleRate", 10)])), 4.0),
        (state("ot=p:3", tool(vec![])), 8.0),
        (state("other=1", tool(vec![int("SampleRate", 10)])), 10.0),
        (tool(vec![text("SampleRate", "20")]), 20.0),
        (tool(vec![pair("sampling.adjusted_count", Value::DoubleValue(2.5))]), 2.5),
        (tool(vec![pair("sampling.probability", Value::DoubleValue(0.05))]), 20.0),
        (tool(vec![int("SampleRate", 0)]), 0.0),
        (tool(vec![text("SampleRate", "often")]), 0.0),
    ] {
        let threshold = take(vec![span.clone()]).facts[0].threshold;
        let found = if threshold == NO_THRESHOLD { 0.0 } else { ALL / (ALL - threshold as f64) };
        assert!((found - events).abs() < 1e-9, "{span:?}: {found}");
    }
}

#[test]
fn values_are_read_as_producers_write_them_and_what_cannot_be_is_null_and_counted() {
    let mut taken = take(vec![tool(vec![
        text("gen_ai.usage.input_tokens", "12"),
        pair("gen_ai.usage.output_tokens", Value::DoubleValue(3.0)),
        text("gen_ai.usage.reasoning.output_tokens", "many"),
        text("operation.cost", "0.0021"),
        text("gen_ai.tool.type", ""),
        pair("gen_ai.agent.name", Value::IntValue(5)),
        text("gen_ai.tool.call.id", &"x".repeat(2_000)),
    ])]);
    let row = batch(&mut taken);
    assert_eq!(long(&row, "input_tokens"), Some(12));
    assert_eq!(long(&row, "output_tokens"), Some(3));
    assert_eq!(long(&row, "reasoning_tokens"), None);
    assert_eq!(column(&row, "cost_usd").as_primitive::<Decimal128Type>().value(0), 2_100_000);
    assert_eq!(word(&row, "cost_source").as_deref(), Some("reported"));
    assert_eq!(word(&row, "tool_type"), None);
    assert_eq!(word(&row, "agent_name").as_deref(), Some("5"));
    assert_eq!(word(&row, "session_id").as_deref(), Some("from-resource"));
    assert_eq!(word(&row, "call_id").map(|id| id.len()), Some(TEXT_BYTES_MAX));
    // The tokens that are no number, and the call id that was cut.
    assert_eq!(taken.sums.unreadable, 2);
    assert_eq!(taken.sums.calls, 1);
}

#[test]
fn contents_leave_only_their_size_key_names_and_fingerprint() {
    let secret = "{\"password\":\"hunter2\",\"city\":\"Oslo\"}";
    let list = KeyValueList { values: vec![text("city", "Oslo")] };
    let mut as_text =
        take(vec![tool(vec![text("gen_ai.tool.call.arguments", secret), text("gen_ai.tool.call.result", "abc")])]);
    let mut as_list = take(vec![tool(vec![pair("gen_ai.tool.call.arguments", Value::KvlistValue(list))])]);
    let (row, from_list) = (batch(&mut as_text), batch(&mut as_list));
    assert_eq!(long(&row, "input_bytes"), Some(secret.len() as i64));
    assert_eq!(long(&row, "output_bytes"), Some(3));
    assert_eq!(word(&row, "argument_keys").as_deref(), Some("city,password"));
    assert!(long(&row, "arguments_fingerprint").is_some());
    assert!(!format!("{row:?}").contains("hunter2"));
    assert_eq!(word(&from_list, "argument_keys").as_deref(), Some("city"));
    assert_eq!(long(&from_list, "input_bytes"), Some("{\"city\":\"Oslo\"}".len() as i64));
}

#[test]
fn failures_tell_their_class_and_keep_allowed_attributes_without_secrets() {
    let mut failed = tool(vec![
        text("server.address", "api.example"),
        text("my.api_key", "k-123"),
        text("http.response.status_code", "503"),
    ]);
    failed.status = Some(Status { code: 2, message: String::new() });
    failed.events = vec![Event {
        name: "exception".into(),
        attributes: vec![text("exception.type", "UpstreamError"), text("exception.message", "token=abc123 refused")],
        ..Default::default()
    }];
    let mut taken = take(vec![failed]);
    let row = batch(&mut taken);
    assert_eq!(word(&row, "outcome").as_deref(), Some("error"));
    assert_eq!(word(&row, "error_type").as_deref(), Some("UpstreamError"));
    assert_eq!(word(&row, "error_message").as_deref(), Some("[redacted] refused"));
    assert_eq!(word(&row, "error_class").as_deref(), Some("transient"));
    assert_eq!(word(&row, "attributes").as_deref(), Some("{\"server.address\":\"api.example\"}"));
    assert!(taken.facts[0].failed);
}

#[test]
fn successes_keep_what_is_allowed_for_them_only() {
    let attributes =
        vec![text("server.address", "api.example"), text("my.region", "eu, jo@example.com"), text("my.password", "p")];
    let row = batch(&mut take(vec![tool(attributes)]));
    assert_eq!(word(&row, "attributes").as_deref(), Some("{\"my.region\":\"eu, [redacted]\"}"));
}

#[test]
fn only_marked_spans_become_rows_and_the_others_leave_links() {
    let merged = span(vec![text("gen_ai.operation.name", "execute_tool"), text("gen_ai.tool.name", "(merged tools)")]);
    let http = span(vec![text("http.request.method", "POST"), text("url.path", "/tools/call")]);
    let nameless = span(vec![text("gen_ai.operation.name", "execute_tool")]);
    let taken = take(vec![merged, http, nameless]);
    assert!(taken.facts.is_empty());
    assert_eq!(taken.links.len(), 3);
    assert_eq!(taken.sums.spans, 3);
}

#[test]
fn an_mcp_client_span_names_its_tool_in_the_spans_name() {
    let mut client = span(vec![text("mcp.method.name", "tools/call")]);
    client.name = "MCP send tools/call stock_level".into();
    client.kind = 3;
    let mut taken = take(vec![client]);
    let row = batch(&mut taken);
    assert_eq!(word(&row, "tool_name").as_deref(), Some("stock_level"));
    assert_eq!(word(&row, "layer").as_deref(), Some("client"));
    assert_eq!(word(&row, "convention").as_deref(), Some("mcp"));
}

#[test]
fn senseless_identities_and_times_are_quarantined_with_the_reason_and_lose_nothing_else() {
    let with = |change: fn(&mut Span)| {
        let mut span = tool(vec![]);
        change(&mut span);
        span
    };
    type Case = (&'static str, fn(&mut Span));
    let cases: [Case; 6] = [
        ("invalid_trace_id", |span| span.trace_id = vec![1; 15]),
        ("invalid_span_id", |span| span.span_id = vec![0; 8]),
        ("end_before_start", |span| span.start_time_unix_nano = span.end_time_unix_nano + 1),
        ("too_old", |span| span.start_time_unix_nano = 0),
        ("in_future", |span| span.end_time_unix_nano = 4_102_444_800_000_000_000),
        ("in_future", |span| span.end_time_unix_nano = u64::MAX),
    ];
    for (reason, change) in cases {
        let mut good = tool(vec![]);
        good.span_id = vec![9; 8];
        let taken = take(vec![with(change), good]);
        let reasons: Vec<_> = taken.quarantined.iter().map(|record| record.reason).collect();
        assert_eq!(reasons, [reason]);
        assert_eq!(taken.quarantined[0].tool_name.as_deref(), Some("search"));
        assert_eq!((taken.sums.calls, taken.sums.quarantined), (1, 1), "{reason}");
    }
}

#[test]
fn rows_of_spans_are_told_apart_by_tenant_trace_and_span() {
    let of = |trace: u8, span: u8| Span { trace_id: vec![trace; 16], span_id: vec![span; 8], ..tool(vec![]) };
    let spans = [of(1, 1), of(1, 2), of(2, 1), of(2, 2)];
    let ids = ["default", "other"].map(|tenant| take_of(tenant, spans.to_vec()).seen).concat();
    let distinct: std::collections::BTreeSet<_> = ids.iter().collect();
    assert_eq!(distinct.len(), 8);
    let halves = ids.iter().map(|id| id.as_bytes().split_at(8));
    let traces: std::collections::BTreeSet<_> = halves.clone().map(|(trace, _)| trace).collect();
    assert_eq!(traces.len(), 4, "rows of a trace share a half");
    assert!(halves.zip(spans.iter().cycle()).all(|((_, half), span)| *half == span.span_id));
}

#[test]
fn a_span_that_is_sent_again_is_a_duplicate() {
    let taken = take(vec![tool(vec![]), tool(vec![text("gen_ai.agent.name", "other")])]);
    assert_eq!((taken.facts.len(), taken.sums.duplicates), (1, 1));
}
