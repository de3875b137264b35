//! JSON against `prost`: for every message, what is made of its JSON is what `prost` writes for it.

#[path = "../../../tests/otlp_json/mod.rs"]
mod write;

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Kind;
use opentelemetry_proto::tonic::common::v1::{
    AnyValue, ArrayValue, EntityRef, InstrumentationScope, KeyValue, KeyValueList,
};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::{Event, Link};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
use proptest::prelude::*;
use prost::Message as _;

use super::*;
use write::{Style, USUAL};

const TRACES: Option<ExportSignal> = Some(ExportSignal::Traces);
const LOGS: Option<ExportSignal> = Some(ExportSignal::Logs);

fn styles() -> impl Strategy<Value = Style> {
    any::<(bool, bool, bool, Option<bool>, bool)>().prop_map(
        |(long_as_text, upper_hex, url_base64, defaults, unknown)| Style {
            long_as_text,
            upper_hex,
            url_base64,
            defaults,
            unknown,
        },
    )
}

fn texts() -> impl Strategy<Value = String> {
    prop_oneof![Just(String::new()), "[a-z.]{1,12}", any::<String>(), "[\"\\\\\n\u{1F527}\u{e9}]{1,4}", "x{120,140}"]
}

fn values() -> impl Strategy<Value = AnyValue> {
    let leaf = prop_oneof![
        texts().prop_map(|text| Some(Kind::StringValue(text))),
        any::<bool>().prop_map(|value| Some(Kind::BoolValue(value))),
        any::<i64>().prop_map(|value| Some(Kind::IntValue(value))),
        prop_oneof![Just(f64::NAN), Just(f64::INFINITY), Just(f64::NEG_INFINITY), Just(-0.0), any::<f64>()]
            .prop_map(|value| Some(Kind::DoubleValue(if value.is_nan() { f64::NAN } else { value }))),
        prop::collection::vec(any::<u8>(), 0..20).prop_map(|bytes| Some(Kind::BytesValue(bytes))),
        Just(None),
    ];
    leaf.prop_map(|value| AnyValue { value }).prop_recursive(4, 16, 4, |inner| {
        let list =
            prop::collection::vec(inner.clone(), 0..4).prop_map(|values| Kind::ArrayValue(ArrayValue { values }));
        let pairs = prop::collection::vec((texts(), prop::option::of(inner)), 0..4).prop_map(|pairs| {
            let values = pairs.into_iter().map(|(key, value)| KeyValue { key, value, ..KeyValue::default() }).collect();
            Kind::KvlistValue(KeyValueList { values })
        });
        prop_oneof![list, pairs].prop_map(|value| AnyValue { value: Some(value) })
    })
}

fn attributes() -> impl Strategy<Value = Vec<KeyValue>> {
    let pair = (texts(), prop::option::of(values()), prop_oneof![Just(0), any::<i32>()]);
    let pair = pair.prop_map(|(key, value, key_strindex)| KeyValue { key, value, key_strindex });
    prop::collection::vec(pair, 0..5)
}

fn ids() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![Just(Vec::new()), prop::collection::vec(any::<u8>(), 8), prop::collection::vec(any::<u8>(), 16)]
}

prop_compose! {
    fn resources()(attributes in attributes(), dropped in 0..3_u32, names in prop::collection::vec(texts(), 0..3))
        -> Resource
    {
        let entity = EntityRef { r#type: "service".into(), id_keys: names, ..EntityRef::default() };
        Resource { attributes, dropped_attributes_count: dropped, entity_refs: vec![entity] }
    }
}

prop_compose! {
    fn scopes()(name in texts(), version in texts(), attributes in attributes(), dropped in any::<u32>())
        -> InstrumentationScope
    {
        InstrumentationScope { name, version, attributes, dropped_attributes_count: dropped }
    }
}

prop_compose! {
    fn spans()(
        ids in (ids(), ids(), ids()),
        texts in (texts(), texts(), texts()),
        times in any::<(u64, u64)>(),
        numbers in any::<(i32, u32, u32, i32)>(),
        attributes in (attributes(), attributes(), attributes()),
        parts in any::<(bool, bool, bool)>(),
    ) -> Span {
        let event = Event {
            time_unix_nano: times.0,
            name: texts.1.clone(),
            attributes: attributes.1,
            dropped_attributes_count: numbers.1,
        };
        let link = Link {
            trace_id: ids.0.clone(),
            span_id: ids.2.clone(),
            trace_state: texts.2.clone(),
            attributes: attributes.2,
            dropped_attributes_count: numbers.2,
            flags: numbers.1,
        };
        Span {
            trace_id: ids.0,
            span_id: ids.1,
            parent_span_id: ids.2,
            trace_state: texts.0,
            name: texts.1.clone(),
            kind: numbers.0,
            start_time_unix_nano: times.0,
            end_time_unix_nano: times.1,
            attributes: attributes.0,
            dropped_attributes_count: numbers.1,
            events: if parts.0 { vec![event.clone(), event] } else { vec![] },
            dropped_events_count: numbers.2,
            links: if parts.1 { vec![link] } else { vec![] },
            dropped_links_count: 0,
            status: parts.2.then_some(Status { message: texts.2, code: numbers.3 }),
            flags: numbers.2,
        }
    }
}

prop_compose! {
    fn traces()(
        resource in prop::option::of(resources()),
        scope in prop::option::of(scopes()),
        spans in prop::collection::vec(spans(), 0..4),
        schema_url in texts(),
    ) -> ExportTraceServiceRequest {
        let scope_spans = vec![ScopeSpans { scope, spans, schema_url: schema_url.clone() }, ScopeSpans::default()];
        ExportTraceServiceRequest { resource_spans: vec![ResourceSpans { resource, scope_spans, schema_url }] }
    }
}

prop_compose! {
    fn records()(
        ids in (ids(), ids()),
        texts in (texts(), texts()),
        times in any::<(u64, u64)>(),
        numbers in any::<(i32, u32, u32)>(),
        attributes in attributes(),
        body in prop::option::of(values()),
    ) -> LogRecord {
        LogRecord {
            time_unix_nano: times.0,
            observed_time_unix_nano: times.1,
            severity_number: numbers.0,
            severity_text: texts.0,
            body,
            attributes,
            dropped_attributes_count: numbers.1,
            flags: numbers.2,
            trace_id: ids.0,
            span_id: ids.1,
            event_name: texts.1,
        }
    }
}

prop_compose! {
    fn logs()(
        resource in prop::option::of(resources()),
        scope in prop::option::of(scopes()),
        log_records in prop::collection::vec(records(), 0..4),
        schema_url in texts(),
    ) -> ExportLogsServiceRequest {
        let scope_logs = vec![ScopeLogs { scope, log_records, schema_url: schema_url.clone() }];
        ExportLogsServiceRequest { resource_logs: vec![ResourceLogs { resource, scope_logs, schema_url }] }
    }
}

fn transcribed(json: &str, signal: Option<ExportSignal>) -> Vec<u8> {
    to_protobuf(json.as_bytes(), signal).unwrap_or_else(|error| panic!("{error} in {json}"))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn json_of_any_style_becomes_what_prost_writes(traces in traces(), logs in logs(), style in styles()) {
        let json = style.traces(&traces).to_string();
        let written = transcribed(&json, TRACES);
        prop_assert_eq!(&written, &traces.encode_to_vec(), "{}", json);
        prop_assert!(written.len() <= json.len());
        let json = style.logs(&logs).to_string();
        prop_assert_eq!(transcribed(&json, LOGS), logs.encode_to_vec(), "{}", json);
    }

    #[test]
    fn cut_and_changed_json_is_refused_or_becomes_a_message(
        traces in traces(), at in 0.0..1.0_f64, byte in any::<u8>(), cut in any::<bool>(),
    ) {
        let mut json = USUAL.traces(&traces).to_string().into_bytes();
        let at = (json.len() as f64 * at) as usize;
        if cut { json.truncate(at) } else { json[at] = byte }
        match to_protobuf(&json, TRACES) {
            Ok(written) => {
                prop_assert!(ExportTraceServiceRequest::decode(&written[..]).is_ok());
                prop_assert!(written.len() <= json.len());
            }
            Err(detail) => prop_assert!(!detail.is_empty() && detail.chars().count() <= DETAIL_CHARS_MAX),
        }
    }
}

#[test]
fn every_capture_is_the_same_in_json() {
    let corpora = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/corpora");
    let mut seen = 0;
    for file in std::fs::read_dir(corpora)
        .expect("corpora")
        .map(|entry| entry.expect("entry").path())
        .filter(|path| path.is_dir())
        .flat_map(|folder| std::fs::read_dir(folder).expect("folder").map(|entry| entry.expect("entry").path()))
    {
        let name = file.display().to_string();
        let bytes = std::fs::read(&file).expect("capture");
        let (json, signal, expected) = if name.ends_with("-traces.pb") {
            let request = ExportTraceServiceRequest::decode(&bytes[..]).expect("decodes");
            (USUAL.traces(&request), TRACES, request.encode_to_vec())
        } else if name.ends_with("-logs.pb") {
            let request = ExportLogsServiceRequest::decode(&bytes[..]).expect("decodes");
            (USUAL.logs(&request), LOGS, request.encode_to_vec())
        } else {
            continue;
        };
        assert!(transcribed(&json.to_string(), signal) == expected, "{name}");
        seen += 1;
    }
    assert!(seen >= 20, "found {seen} captures");
}

fn span(json: &str) -> Result<Span, String> {
    let request = format!(r#"{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{json}]}}]}}]}}"#);
    let written = to_protobuf(request.as_bytes(), TRACES)?;
    let mut request = ExportTraceServiceRequest::decode(&written[..]).expect("decodes");
    Ok(request.resource_spans[0].scope_spans[0].spans.remove(0))
}

#[test]
fn integers_of_64_bits_are_strings_or_numbers() {
    for text in ["\"1712345678901234567\"", "1712345678901234567"] {
        let span = span(&format!(r#"{{"endTimeUnixNano":{text}}}"#)).expect("taken");
        assert_eq!(span.end_time_unix_nano, 1_712_345_678_901_234_567);
    }
    assert_eq!(span(r#"{"endTimeUnixNano":1e3}"#).expect("taken").end_time_unix_nano, 1000);
    for wrong in ["-1", "1.5", "\"18446744073709551616\"", "\"1e3\"", "\"+1\"", "\"\"", "1e30", "true", "[1]"] {
        let error = span(&format!(r#"{{"endTimeUnixNano":{wrong}}}"#)).expect_err(wrong);
        assert!(error.contains("endTimeUnixNano") && error.contains("line 1 column"), "{error}");
    }
}

#[test]
fn doubles_are_exact_numbers_or_strings() {
    let double = |json: &str| {
        let taken = span(&format!(r#"{{"attributes":[{{"value":{{"doubleValue":{json}}}}}]}}"#))?;
        let value = taken.attributes[0].value.as_ref().and_then(|value| value.value.clone());
        let Some(Kind::DoubleValue(value)) = value else { panic!("{value:?}") };
        Ok::<_, String>(value)
    };
    for (json, expected) in [
        ("8.343362265165295e-97", 8.343_362_265_165_295e-97),
        ("-0.0", -0.0),
        ("7", 7.0),
        ("\"0.1\"", 0.1),
        ("\"-Infinity\"", f64::NEG_INFINITY),
    ] {
        assert_eq!(double(json).expect(json).to_bits(), expected.to_bits(), "{json}");
    }
    for wrong in ["1e400", "\"inf\"", "\"\"", "\"nan\"", "true", "{\"a\":1}", "[1]"] {
        assert!(double(wrong).expect_err(wrong).contains("\"doubleValue\" must be a number"), "{wrong}");
    }
}

#[test]
fn a_cost_that_is_an_empty_object_is_no_value_and_does_not_cost_the_request() {
    let taken = span(
        r#"{"attributes":[{"key":"cost_usd","value":{"doubleValue":{}}},{"key":"a","value":{"doubleValue":{ }}}]}"#,
    );
    let values: Vec<_> = taken.expect("taken").attributes.into_iter().map(|pair| pair.value).collect();
    assert_eq!(values, [Some(AnyValue { value: None }), Some(AnyValue { value: None })]);
}

#[test]
fn enums_are_numbers_and_never_names() {
    assert_eq!(span(r#"{"kind":3}"#).expect("taken").kind, 3);
    assert_eq!(span(r#"{"kind":77}"#).expect("a newer one").kind, 77);
    for wrong in ["\"SPAN_KIND_CLIENT\"", "\"3\""] {
        let error = span(&format!(r#"{{"kind":{wrong}}}"#)).expect_err(wrong);
        assert!(error.contains("the number of \"kind\", not its name"), "{error}");
    }
}

#[test]
fn ids_are_hex_digits_of_either_case() {
    let id: Vec<u8> = (0xA0..0xB0).collect();
    for digits in ["a0a1a2a3a4a5a6a7a8a9aaabacadaeaf", "A0A1A2A3A4A5A6A7A8A9AAABACADAEAF"] {
        assert_eq!(span(&format!(r#"{{"traceId":"{digits}"}}"#)).expect("taken").trace_id, id);
    }
    for wrong in ["oKGio6SlpqeoqaqrrK2urw==", "abc", "zz"] {
        let error = span(&format!(r#"{{"traceId":"{wrong}"}}"#)).expect_err(wrong);
        assert!(error.contains("\"traceId\" must be hex digits") && error.contains(wrong), "{error}");
    }
}

#[test]
fn ids_are_hex_digits_in_links_and_log_records_too() {
    let (trace, id) = ((0xA0..0xB0).collect::<Vec<u8>>(), vec![0xB7, 0xAD, 0x6B, 0x71, 0x69, 0x20, 0x33, 0x31]);
    let taken = span(
        r#"{"spanId":"B7AD6B7169203331","parentSpanId":"b7ad6b7169203331",
        "links":[{"traceId":"A0a1a2a3a4a5a6a7a8a9aaabacadaeAF","spanId":"b7AD6b7169203331"}]}"#,
    )
    .expect("taken");
    assert_eq!((&taken.span_id, &taken.parent_span_id), (&id, &id));
    assert_eq!((&taken.links[0].trace_id, &taken.links[0].span_id), (&trace, &id));
    let logs = r#"{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"traceId":"A0A1A2A3A4A5A6A7A8A9AAABACADAEAF",
        "spanId":"b7ad6b7169203331","body":{"bytesValue":"AQL/"}}]}]}]}"#;
    let taken = ExportLogsServiceRequest::decode(&transcribed(logs, LOGS)[..]).expect("decodes");
    let record = &taken.resource_logs[0].scope_logs[0].log_records[0];
    assert_eq!((&record.trace_id, &record.span_id), (&trace, &id));
    // Other bytes are base64.
    let body = record.body.as_ref().and_then(|body| body.value.clone());
    assert_eq!(body, Some(Kind::BytesValue(vec![1, 2, 255])));
    let error = span(r#"{"links":[{"spanId":"t61rcWkgMzE="}]}"#).expect_err("base64");
    assert!(error.contains("\"spanId\" must be hex digits"), "{error}");
}

#[test]
fn keys_in_snake_case_and_of_other_versions_are_ignored() {
    let taken = span(r#"{"trace_id":"00","name":"a","profileId":{"deep":[[{}]]},"end_time_unix_nano":true}"#);
    assert_eq!(taken.expect("taken"), Span { name: "a".into(), ..Span::default() });
    assert_eq!(transcribed(r#"{"resource_spans":[{}]}"#, TRACES), b"");
}

#[test]
fn of_several_values_the_last_one_counts_and_null_is_none() {
    let taken = span(
        r#"{"attributes":[{"key":"k","value":{"stringValue":"a","intValue":null,"boolValue":false,"new":1}},
        {"value":{"new":{}}}, {"value":null}],"name":"x","name":"y","status":null}"#,
    )
    .expect("taken");
    let value = |value| Some(AnyValue { value });
    let values: Vec<_> = taken.attributes.into_iter().map(|pair| pair.value).collect();
    assert_eq!(values, [value(Some(Kind::BoolValue(false))), value(None), None]);
    assert_eq!((&*taken.name, taken.status), ("y", None));
}

#[test]
fn half_an_emoji_does_not_cost_the_request() {
    let taken = span(r#"{"name":"cut \ud83d","traceState":"\ude00\ud83d\ude00"}"#).expect("taken");
    assert_eq!((&*taken.name, &*taken.trace_state), ("cut \u{FFFD}", "\u{FFFD}\u{1F600}"));
}

#[test]
fn what_is_no_json_of_the_request_is_told_with_its_place() {
    for (wrong, says) in [
        ("", "EOF"),
        ("[]", "expected an object for \"the request\""),
        ("{\"resourceSpans\":{}}", "expected a list for \"resourceSpans\""),
        ("{\"resourceSpans\":[null]}", "expected an object for \"resourceSpans\""),
        ("{\"resourceSpans\":[]}x", "trailing characters at line 1 column 21"),
        ("{\"resourceSpans\":[{\"schemaUrl\":7}]}", "expected a string for \"schemaUrl\""),
    ] {
        let error = to_protobuf(wrong.as_bytes(), TRACES).expect_err(wrong);
        assert!(error.contains(says), "{error}");
    }
    assert!(
        to_protobuf(b"{\"resourceSpans\":[{\"schemaUrl\":\"\xFF\"}]}", TRACES).expect_err("no UTF-8").contains("UTF-8")
    );
    let long = format!(r#"{{"resourceSpans":[{{"resource":"{}"}}]}}"#, "x".repeat(1 << 20));
    assert!(to_protobuf(long.as_bytes(), TRACES).expect_err("no object").chars().count() <= DETAIL_CHARS_MAX);
    let deep = format!("{}{}", "{\"resourceSpans\":[", "{\"x\":".repeat(200));
    assert!(to_protobuf(deep.as_bytes(), TRACES).is_err());
    let deep = format!(
        "{{\"resourceSpans\":[{{\"resource\":{{\"attributes\":[{{\"value\":{}",
        "{\"arrayValue\":{\"values\":[".repeat(10_000)
    );
    assert!(to_protobuf(deep.as_bytes(), TRACES).expect_err("too deep").contains("recursion limit"));
}

#[test]
fn metric_points_are_counted_whatever_is_in_them() {
    let json = r#"{"resourceMetrics":[{"resource":{"attributes":[1]},"scopeMetrics":[{"metrics":[
        {"name":"a","gauge":{"dataPoints":[{"asInt":"1"},{"asDouble":"x"}]}},
        {"sum":{"aggregationTemporality":"any","dataPoints":[{}]}},{"histogram":{"dataPoints":[{"bucketCounts":[1]}]}},
        {"exponentialHistogram":{"dataPoints":[{}]}},{"summary":{"dataPoints":[{}]}}]}]}]}"#;
    let request = ExportMetricsServiceRequest::decode(&transcribed(json, None)[..]).expect("decodes");
    let points = |data: &Data| match data {
        Data::Gauge(data) => data.data_points.len(),
        Data::Sum(data) => data.data_points.len(),
        Data::Histogram(data) => data.data_points.len(),
        Data::ExponentialHistogram(data) => data.data_points.len(),
        Data::Summary(data) => data.data_points.len(),
    };
    let metrics = &request.resource_metrics[0].scope_metrics[0].metrics;
    let counts: Vec<_> = metrics.iter().filter_map(|metric| metric.data.as_ref()).map(points).collect();
    assert_eq!(counts, [2, 1, 1, 1, 1]);
}
