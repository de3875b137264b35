//! Bad input at every door: each has its exact answer, and nothing else is lost.

use std::io::Write as _;
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use opentelemetry_proto::tonic::collector::metrics::v1::{ExportMetricsServiceRequest, ExportMetricsServiceResponse};
use opentelemetry_proto::tonic::metrics::v1::{Gauge, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, metric};
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;
use serde_json::{Value, json};
use tonic::Code;
use tonic_types::StatusExt as _;
use toolgauge::config::{Bytes, Names, Time};

use crate::process::{Process, program, run, serve_arguments};
use crate::sandbox::{Api, METRICS, Raw, RawAnswer, Sandbox, TRACES, framed, now_ns};
use crate::traffic::{request, tool_span};

const YEAR_NS: u64 = 365 * 86_400 * 1_000_000_000;

/// A server, one client, and how many good calls it has sent.
struct Door {
    sandbox: Sandbox,
    client: Raw,
    good: u64,
}

impl Door {
    async fn open() -> Self {
        let sandbox = Sandbox::start().await;
        let client = sandbox.client().await;
        Self { sandbox, client, good: 0 }
    }

    /// Sends bytes that are refused, then a good export; gives the answer to the first.
    async fn refused(&mut self, path: &str, encoding: Option<&str>, body: bytes::Bytes) -> RawAnswer {
        let answer = self.client.call(path, encoding, body).await;
        assert!(answer.status.get_error_details().retry_info().is_none(), "nobody may send it again: {answer:?}");
        self.still_counts().await;
        answer
    }

    /// A good export is taken and counted, with all before it and nothing else.
    async fn still_counts(&mut self) {
        self.good += 1;
        let span = tool_span("good", 1_000 + self.good, 0, now_ns(), 1_000);
        self.client.export(TRACES, &request("shop", vec![span]).encode_to_vec()).await;
        self.sandbox.api.until_visible().await;
        let good = self.sandbox.api.number("SELECT count(*) FROM tool_calls WHERE tool_name = 'good'").await;
        assert_eq!(good as u64, self.good);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_and_oversized_requests_are_refused_and_never_asked_for_again() {
    let mut door = Door::open().await;
    let good = request("shop", vec![tool_span("lost", 1, 0, now_ns(), 1)]).encode_to_vec();

    for (what, body) in [
        ("cut in the middle", &good[..good.len() / 2]),
        ("a length beyond the end", b"\x0a\xff\x01xx"),
        ("a group that does not end", b"\x0b"),
        ("a field number of zero", b"\x02\x00"),
        ("a varint without end", b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"),
        ("text", b"this is no protobuf"),
    ] {
        let answer = door.refused(TRACES, None, framed(0, body)).await;
        assert_eq!(answer.status.code(), Code::InvalidArgument, "{what}: {answer:?}");
        assert!(answer.status.message().contains("byte"), "it says where: {what}: {answer:?}");
    }

    let too_large = "request is larger than 67108864 bytes";
    let answer = door.refused(TRACES, None, framed(0, &vec![0; 65 << 20])).await;
    assert_eq!(answer.status.code(), Code::ResourceExhausted, "{answer:?}");
    assert!(answer.status.message().starts_with(too_large), "{answer:?}");

    // 1 GiB of zeros in about 1 MiB.
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(&vec![0; 1 << 20]).unwrap();
    let bomb = encoder.finish().unwrap().repeat(1 << 10);
    let answer = door.refused(TRACES, Some("gzip"), framed(1, &bomb)).await;
    assert_eq!(answer.status.code(), Code::ResourceExhausted, "{answer:?}");
    assert!(answer.status.message().starts_with(too_large), "{answer:?}");

    let answer = door.refused(TRACES, Some("gzip"), framed(1, b"no gzip")).await;
    assert_eq!(answer.status.code(), Code::Internal, "{answer:?}");
    let answer = door.refused(TRACES, Some("br"), framed(1, &good)).await;
    assert_eq!(answer.status.code(), Code::Unimplemented, "{answer:?}");
    let answer =
        door.refused("/opentelemetry.proto.collector.trace.v1.TraceService/Import", None, framed(0, &good)).await;
    assert_eq!(answer.status.code(), Code::Unimplemented, "{answer:?}");

    assert_eq!(door.sandbox.api.number("SELECT count(*) FROM calls WHERE tool_name = 'lost'").await, 0);
    assert_eq!(door.sandbox.api.number("SELECT count(*) FROM quarantine").await, 0);
    door.sandbox.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn empty_requests_and_unknown_fields_are_taken() {
    let mut door = Door::open().await;
    door.client.export(TRACES, &[]).await;
    door.client.export(TRACES, &request("shop", vec![]).encode_to_vec()).await;
    door.still_counts().await;
    // Unknown fields of every wire type, in the request and in the span.
    let unknown = b"\xf8\x7f\x01\xf9\x7f12345678\xfa\x7f\x03abc\xfd\x7f1234";
    let span = [tool_span("future", 1, 0, now_ns(), 5_000).encode_to_vec(), unknown.to_vec()].concat();
    let field = |tag: u8, body: Vec<u8>| {
        let mut out = vec![tag];
        prost::encode_length_delimiter(body.len(), &mut out).unwrap();
        out.extend(body);
        out
    };
    let scope = [field(0x12, span), unknown.to_vec()].concat();
    let resource = [field(0x12, scope), unknown.to_vec()].concat();
    let body = [field(0x0a, resource), unknown.to_vec()].concat();
    door.client.export(TRACES, &body).await;
    door.still_counts().await;
    let found = door.sandbox.api.row("SELECT count(*), sum(duration_ns) FROM calls WHERE tool_name = 'future'").await;
    assert_eq!(found, [1, 5_000]);
    door.sandbox.stop().await;
}

/// Scenario: one export with good spans and with one span of each kind of nonsense. Guarantees: the good ones are there,
/// every other stands in `quarantine` with its reason, and both stay so when they are committed.
#[tokio::test(flavor = "multi_thread")]
async fn spans_that_make_no_sense_are_quarantined_with_their_reason_and_the_others_are_kept() {
    let mut door = Door::open().await;
    let now = now_ns();
    let bad = |number: u64, name: &str, change: &dyn Fn(&mut Span)| {
        let mut span = tool_span(name, 100, number, now, 1_000);
        change(&mut span);
        span
    };
    let spans = vec![
        tool_span("kept", 7, 0, now, 1_000),
        bad(1, "a", &|span| span.trace_id = vec![1; 15]),
        bad(2, "b", &|span| span.trace_id = vec![0; 16]),
        bad(3, "c", &|span| span.trace_id.clear()),
        bad(4, "d", &|span| span.span_id = vec![1; 9]),
        bad(5, "e", &|span| span.span_id = vec![0; 8]),
        bad(6, "f", &|span| span.end_time_unix_nano = span.start_time_unix_nano - 1),
        bad(7, "g", &|span| (span.start_time_unix_nano, span.end_time_unix_nano) = (0, 1_000)),
        bad(8, "h", &|span| {
            span.start_time_unix_nano = now + 75 * YEAR_NS;
            span.end_time_unix_nano = span.start_time_unix_nano + 1;
        }),
        bad(9, "i", &|span| span.end_time_unix_nano = u64::MAX),
        bad(10, "j", &|span| span.start_time_unix_nano = 0),
        tool_span("kept", 7, 1, now, 1_000),
    ];
    door.client.export(TRACES, &request("shop", spans).encode_to_vec()).await;
    door.still_counts().await;
    let reasons = async |sandbox: &Sandbox| {
        let query = "SELECT tool_name, reason, service_name, signal FROM quarantine ORDER BY 1";
        let rows = sandbox.api.sql(query).await;
        assert!(rows.iter().all(|row| row[2] == "shop" && row[3] == "span"), "{rows:?}");
        rows.iter().map(|row| (row[0].clone(), row[1].clone())).collect::<Vec<_>>()
    };
    let expected: Vec<(Value, Value)> = [
        ("a", "invalid_trace_id"),
        ("b", "invalid_trace_id"),
        ("c", "invalid_trace_id"),
        ("d", "invalid_span_id"),
        ("e", "invalid_span_id"),
        ("f", "end_before_start"),
        ("g", "too_old"),
        ("h", "in_future"),
        ("i", "in_future"),
        ("j", "too_old"),
    ]
    .map(|(tool, reason)| (json!(tool), json!(reason)))
    .to_vec();
    assert_eq!(reasons(&door.sandbox).await, expected);
    let detail = door.sandbox.api.row("SELECT detail FROM quarantine WHERE tool_name = 'd'").await;
    assert_eq!(detail, ["span_id must be 8 bytes and not all zero, got \"010101010101010101\""]);
    let kept = "SELECT count(*) FROM tool_calls WHERE tool_name = 'kept'";
    assert_eq!(door.sandbox.api.number(kept).await, 2);
    assert_eq!(door.sandbox.api.number("SELECT sum(quarantined) FROM arrivals").await, 10);
    door.sandbox.until_committed().await;
    assert_eq!(reasons(&door.sandbox).await, expected);
    assert_eq!(door.sandbox.api.number(kept).await, 2);
    door.sandbox.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_is_no_utf_8_costs_its_characters_and_not_the_call() {
    let mut door = Door::open().await;
    let mut body = request("shop", vec![tool_span("br?ken", 1, 0, now_ns(), 3_000)]).encode_to_vec();
    let places: Vec<usize> = (0..body.len()).filter(|at| body[*at..].starts_with(b"br?ken")).collect();
    for at in places {
        body[at + 2] = 0xff;
    }
    door.client.export(TRACES, &body).await;
    door.still_counts().await;
    let found = door.sandbox.api.sql("SELECT tool_name, duration_ns FROM tool_calls WHERE tool_name <> 'good'").await;
    assert_eq!(found, [[json!("br\u{fffd}ken"), json!(3_000)]]);
    door.sandbox.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_are_refused_point_by_point_in_a_partial_success() {
    let mut door = Door::open().await;
    let gauge = Gauge { data_points: vec![NumberDataPoint::default(); 3] };
    let metric = Metric { name: "m".to_owned(), data: Some(metric::Data::Gauge(gauge)), ..Metric::default() };
    let scope_metrics = vec![ScopeMetrics { metrics: vec![metric], ..ScopeMetrics::default() }];
    let resource_metrics = vec![ResourceMetrics { scope_metrics, ..ResourceMetrics::default() }];
    let body = ExportMetricsServiceRequest { resource_metrics }.encode_to_vec();
    let answer = door.client.call(METRICS, None, framed(0, &body)).await;
    assert_eq!(answer.status.code(), Code::Ok, "{answer:?}");
    let partial = ExportMetricsServiceResponse::decode(answer.message).unwrap().partial_success.unwrap();
    assert_eq!(partial.rejected_data_points, 3);
    assert_eq!(partial.error_message, "Toolgauge takes traces and logs; metric points are refused");
    door.still_counts().await;
    door.sandbox.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_sql_is_refused_as_a_problem_document_and_the_next_statement_is_answered() {
    let mut door = Door::open().await;
    door.still_counts().await;
    let api = &door.sandbox.api;
    let file = door.sandbox.folder.path().join("out.csv");
    for (statement, status, kind) in [
        ("DELETE FROM calls", 400, "not_read_only"),
        ("DROP TABLE calls", 400, "not_read_only"),
        ("SELECT 1; DROP TABLE calls", 400, "not_read_only"),
        ("INSERT INTO calls SELECT * FROM calls", 400, "not_read_only"),
        (&format!("COPY calls TO '{}'", file.display()), 400, "not_read_only"),
        ("CREATE EXTERNAL TABLE t STORED AS CSV LOCATION '/etc/passwd'", 400, "not_read_only"),
        ("SET datafusion.execution.batch_size = 1", 400, "not_read_only"),
        ("SELECT * FROM '/etc/passwd'", 400, "invalid"),
        ("SELECT nothing FROM calls", 400, "invalid"),
        ("SELEC 1", 400, "invalid"),
        ("", 400, "invalid"),
        ("SELECT 1 / (attempt - attempt) FROM calls", 422, "failed"),
    ] {
        let answer = api.ask(statement).await;
        let problem = answer.problem();
        assert_eq!((answer.status, problem.problem_type.as_str()), (status, kind), "{statement}: {}", answer.text);
        assert_eq!(api.number("SELECT count(*) FROM calls").await, 1, "{statement}");
    }
    assert!(!file.exists());
    for body in ["", "{}", "[]", "{\"query\": 1}", "{\"query\": \"SELECT 1\", \"more\": 1}"] {
        let answer = api.post("/api/v1/sql", body).await;
        assert_eq!(answer.status, 400, "{body}: {}", answer.text);
        assert!(answer.problem().detail.starts_with("the body must be JSON such as"), "{body}: {}", answer.text);
    }
    door.sandbox.stop().await;
}

/// Scenario: joins that would go on for hours, some of which keep next to nothing in memory and some of which keep all that they have
/// seen. Guarantees: the ones end at the time limit with 504, the others at the memory limit with 422; the next statement is answered.
#[tokio::test(flavor = "multi_thread")]
async fn endless_joins_end_at_the_limit_that_they_meet() {
    let sandbox = Sandbox::start_with(|config| {
        config.queries.timeout = Time(Duration::from_secs(5));
        config.queries.memory = Bytes(32 << 20);
    })
    .await;
    for (statement, status, kind, says) in [
        (
            "SELECT count(*) FROM range(0, 1000000) a CROSS JOIN range(0, 1000000) b WHERE (a.value + b.value) % 7 = 3",
            504,
            "timeout",
            "the statement was stopped after 5s; narrow its time range or join fewer rows",
        ),
        (
            "SELECT count(*) FROM range(0, 1000000000) a JOIN range(0, 1000000000) b ON a.value = b.value",
            422,
            "out_of_memory",
            "the statement needs more memory than it may use; narrow its time range or group by less (",
        ),
        (
            "SELECT array_agg(a.value + b.value) FROM range(0, 100000) a CROSS JOIN range(0, 100000) b",
            422,
            "out_of_memory",
            "the statement needs more memory than it may use; narrow its time range or group by less (",
        ),
    ] {
        let answer = sandbox.api.ask(statement).await;
        let problem = answer.problem();
        assert_eq!((answer.status, problem.problem_type.as_str()), (status, kind), "{statement}: {}", answer.text);
        assert!(problem.detail.starts_with(says), "{statement}: {}", answer.text);
        assert_eq!(sandbox.api.number("SELECT 1").await, 1);
    }
    sandbox.stop().await;
}

/// Scenario: attributes of every kind that OTLP has, where a call's values are looked for and where they are not. Guarantees: the call is
/// kept, sizes and names are those of what was sent, and what cannot be a value of its column is counted and left out.
#[tokio::test(flavor = "multi_thread")]
async fn attributes_may_be_empty_bytes_mixed_lists_and_maps() {
    use opentelemetry_proto::tonic::common::v1::any_value::Value as Kind;
    use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, KeyValue, KeyValueList};
    let sandbox = Sandbox::start_with(|config| {
        config.recognise.keep_attributes_of_successes =
            Names(["my.text", "my.bytes", "my.list", "my.map", "my.empty"].map(str::to_owned).to_vec());
    })
    .await;
    let value = |kind| AnyValue { value: Some(kind) };
    let pair = |key: &str, value| KeyValue { key: key.to_owned(), value, ..KeyValue::default() };
    let string = |text: &str| value(Kind::StringValue(text.to_owned()));
    let map = |pairs| value(Kind::KvlistValue(KeyValueList { values: pairs }));
    let list = |values| value(Kind::ArrayValue(ArrayValue { values }));
    let mixed = list(vec![
        string("a"),
        value(Kind::IntValue(-1)),
        value(Kind::BoolValue(true)),
        value(Kind::DoubleValue(0.5)),
        value(Kind::BytesValue(vec![0, 255])),
        AnyValue { value: None },
        list(vec![]),
        map(vec![pair("deep", None)]),
    ]);
    let mut span = tool_span("kinds", 1, 0, now_ns(), 1_000);
    span.attributes.extend([
        pair(
            "gen_ai.tool.call.arguments",
            Some(map(vec![pair("query", Some(string("x"))), pair("limit", Some(value(Kind::IntValue(10))))])),
        ),
        pair("gen_ai.tool.call.result", Some(value(Kind::BytesValue(vec![0, 1, 254, 255, 7])))),
        pair("gen_ai.conversation.id", Some(AnyValue { value: None })),
        pair("gen_ai.agent.name", None),
        pair("user.id", Some(mixed.clone())),
        pair("my.text", Some(string("kept"))),
        pair("my.bytes", Some(value(Kind::BytesValue(b"bytes".to_vec())))),
        pair("my.list", Some(mixed.clone())),
        pair("my.map", Some(map(vec![pair("a", Some(mixed))]))),
        pair("my.empty", Some(AnyValue { value: None })),
        pair("", Some(string("no key"))),
        pair("not.looked.at", Some(list(vec![map(vec![]), string("")]))),
    ]);
    sandbox.client().await.export(TRACES, &request("shop", vec![span]).encode_to_vec()).await;
    sandbox.api.until_visible().await;
    let row = "SELECT argument_keys, input_bytes, output_bytes, session_id, agent_name, attributes FROM tool_calls \
        WHERE tool_name = 'kinds'";
    let arguments = r#"{"limit":10,"query":"x"}"#;
    let expected = [
        json!("limit,query"),
        json!(arguments.len()),
        json!(5),
        json!(null),
        json!(null),
        json!(r#"{"my.text":"kept"}"#),
    ];
    assert_eq!(sandbox.api.row(row).await, expected);
    // The user is no text.
    assert_eq!(sandbox.metric("toolgauge_unreadable_total").await, 1);
    assert_eq!(sandbox.api.number("SELECT count(*) FROM quarantine").await, 0);
    sandbox.stop().await;
}

/// Scenario: faults that quote what was sent, which is megabytes. Guarantees: no answer of any door, headers included, comes near the
/// 4 MiB that OTLP allows an answer: a kilobyte or so is enough to say what is wrong.
#[tokio::test(flavor = "multi_thread")]
async fn answers_are_small_however_large_the_fault() {
    const ANSWER_BYTES: usize = 4 << 10;
    let mut door = Door::open().await;
    let long = "x".repeat(2 << 20);
    let broken =
        [request(&long, vec![tool_span(&long, 1, 0, now_ns(), 1)]).encode_to_vec(), vec![0x0b; 1 << 20]].concat();
    let answer = door.refused(TRACES, None, framed(0, &broken)).await;
    assert_eq!(answer.status.code(), Code::InvalidArgument);
    assert!(answer.message.is_empty() && answer.status.message().len() + answer.status.details().len() < ANSWER_BYTES);
    let gauge = Gauge { data_points: vec![NumberDataPoint::default(); 100_000] };
    let metric = Metric { name: long.clone(), data: Some(metric::Data::Gauge(gauge)), ..Metric::default() };
    let scope_metrics = vec![ScopeMetrics { metrics: vec![metric], ..ScopeMetrics::default() }];
    let resource_metrics = vec![ResourceMetrics { scope_metrics, ..ResourceMetrics::default() }];
    let answer = door
        .client
        .call(METRICS, None, framed(0, &ExportMetricsServiceRequest { resource_metrics }.encode_to_vec()))
        .await;
    assert!((1..ANSWER_BYTES).contains(&answer.message.len()), "{}", answer.message.len());

    let http = Api::new(door.sandbox.otlp_http);
    for body in [
        format!(r#"{{"resourceSpans":"{long}"}}"#),
        format!(r#"{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{{"traceId":"{long}"}}]}}]}}]}}"#),
        long.clone(),
    ] {
        let answer = http.post("/v1/traces", &body).await;
        assert_eq!((answer.status, answer.content_type.as_str()), (400, "application/json"));
        assert!((1..ANSWER_BYTES).contains(&answer.text.len()), "{}", answer.text.len());
    }
    door.still_counts().await;
    door.sandbox.stop().await;
}

#[test]
fn the_doors_are_by_default_where_sdks_look_for_them() {
    let config = toolgauge::config::Config::default();
    assert_eq!(
        (config.otlp_grpc.to_string(), config.otlp_http.to_string()),
        ("127.0.0.1:4317".into(), "127.0.0.1:4318".into())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_http_door_answers_health_metrics_and_unknown_paths() {
    let mut door = Door::open().await;
    door.still_counts().await;
    let api = &door.sandbox.api;
    for (path, expected) in [("/healthz", "ok\n"), ("/readyz", "ready\n")] {
        let answer = api.get(path).await;
        assert_eq!((answer.status, answer.text.as_str()), (200, expected), "{path}");
    }
    for path in ["/nothing", "/api/v1/nothing", "/api/v2/sql", "/healthz/x", "/..%2f..%2fetc/passwd"] {
        let answer = api.get(path).await;
        assert_eq!(answer.status, 404, "{path}");
        assert!(answer.problem().detail.contains("there is nothing at"), "{}", answer.text);
    }
    for path in ["/api/v1/tools?from=yesterday", "/api/v1/tools?nothing=1", "/api/v1/tools?from=now&to=-1h"] {
        let answer = api.get(path).await;
        assert_eq!(answer.status, 400, "{path}");
        assert_eq!(answer.problem().title, "Bad Request");
    }
    let answer = api.get("/api/v1/sql").await;
    assert_eq!((answer.status, answer.problem().detail.as_str()), (405, "\"/api/v1/sql\" takes POST"));

    let metrics = api.get("/metrics").await;
    assert_eq!((metrics.status, metrics.content_type.as_str()), (200, "text/plain; version=0.0.4; charset=utf-8"));
    let values = prometheus(&metrics.text);
    assert_eq!(values["toolgauge_ready"], 1.0);
    assert_eq!(values["toolgauge_otlp_accepted_total"], 1.0);
    assert_eq!(values["toolgauge_calls_total"], 1.0);
    door.sandbox.stop().await;
}

/// Reads Prometheus' text format (0.0.4), strictly; the values by name and labels.
fn prometheus(text: &str) -> std::collections::BTreeMap<String, f64> {
    let is_name = |name: &str| {
        !name.is_empty()
            && !name.starts_with(|c: char| c.is_ascii_digit())
            && name.chars().all(|c| c.is_ascii_alphanumeric() || "_:".contains(c))
    };
    assert!(text.ends_with('\n'));
    let (mut values, mut typed) = (std::collections::BTreeMap::new(), std::collections::BTreeMap::new());
    for line in text.lines() {
        if let Some(comment) = line.strip_prefix("# ") {
            let mut words = comment.splitn(3, ' ');
            let (what, name, rest) = (words.next().unwrap(), words.next().unwrap(), words.next().unwrap_or(""));
            assert!(is_name(name), "{line}");
            match what {
                "HELP" => {}
                "TYPE" => {
                    assert!(["counter", "gauge", "histogram", "summary", "untyped"].contains(&rest), "{line}");
                    assert_eq!(typed.insert(name.to_owned(), rest.to_owned()), None, "one type each: {line}");
                }
                _ => panic!("{line}"),
            }
            continue;
        }
        let (series, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("no value: {line:?}"));
        let name = series.split('{').next().unwrap();
        assert!(is_name(name), "{line}");
        if let Some(labels) = series.strip_prefix(name).filter(|labels| !labels.is_empty()) {
            let labels = labels.strip_prefix('{').and_then(|labels| labels.strip_suffix('}')).unwrap();
            for label in labels.split(',') {
                let (label, value) = label.split_once('=').unwrap();
                assert!(is_name(label) && value.len() >= 2 && value.starts_with('"') && value.ends_with('"'), "{line}");
            }
        }
        let family = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| {
            let family = name.strip_suffix(suffix)?;
            typed.get(family).filter(|kind| ["histogram", "summary"].contains(&kind.as_str())).map(|_| family)
        });
        assert!(typed.contains_key(family.unwrap_or(name)), "a type comes first: {line}");
        let value: f64 = value.parse().unwrap_or_else(|_| panic!("{line}"));
        assert_eq!(values.insert(series.to_owned(), value), None, "one value each: {line}");
    }
    values
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_folder_that_cannot_be_used_ends_the_start_with_code_1_and_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let (_holder, doors) = Process::start(Process::command(&data, &[])).await;
    let (code, _, stderr) = run(Process::command(&data, &[])).await;
    let in_use = format!("log folder \"{}\" is in use", data.join("wal").display());
    assert!(code == 1 && stderr.contains(&in_use), "{code}: {stderr}");
    // The one that has it goes on.
    let mut client = Raw::connect(doors.otlp).await;
    client.export(TRACES, &request("shop", vec![tool_span("good", 1, 0, now_ns(), 1)]).encode_to_vec()).await;
    doors.api.until_visible().await;
    assert_eq!(doors.api.number("SELECT count(*) FROM calls").await, 1);

    // A folder below a file: nobody can make it, not even root.
    let file = folder.path().join("file");
    std::fs::write(&file, "x").unwrap();
    let below = file.join("data");
    let (code, _, stderr) = run(Process::command(&below, &[])).await;
    let named = format!("use the data folder \"{}\"", below.display());
    assert!(code == 1 && stderr.contains(&named), "{code}: {stderr}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_in_use_ends_the_start_with_code_1_and_the_flag_that_sets_it() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for (flag, door) in [("--otlp-grpc", "OTLP/gRPC"), ("--otlp-http", "OTLP/HTTP"), ("--http", "the HTTP API")] {
        let folder = tempfile::tempdir().unwrap();
        let mut arguments = serve_arguments(&folder.path().join("data"));
        let at = arguments.iter().position(|argument| argument == flag).unwrap();
        arguments[at + 1].clone_from(&address);
        let mut command = program();
        command.args(arguments);
        let (code, _, stderr) = run(command).await;
        let expected =
            format!("listen on {address} for {door} (is another process there? `{flag}` chooses another address)");
        assert!(code == 1 && stderr.contains(&expected), "{code}: {stderr}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_configuration_ends_with_code_2_and_says_where() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("toolgauge.toml");
    let case = async |text: &str, arguments: &[&str], environment: &[(&str, &str)], expected: &[&str]| {
        std::fs::write(&file, text).unwrap();
        let mut command = program();
        command.args(["serve", "--config"]).arg(&file).args(arguments).envs(environment.iter().copied());
        let (code, stdout, stderr) = run(command).await;
        assert_eq!(code, 2, "{text} {arguments:?}: {stdout}{stderr}");
        for words in expected {
            assert!(stderr.contains(words), "{words:?} in {stderr}");
        }
    };
    let name = file.display().to_string();
    case("[wal]\n\nretian = \"1GiB\"\n", &[], &[], &[&name, "line 3", "`retian`", "`retain`"]).await;
    case("[settle]\nafter = \"soon\"\n", &[], &[], &[&name, "line 2", "\"soon\" is no duration", "after"]).await;
    case("data = \n", &[], &[], &[&name, "line 1"]).await;
    case("[nothing]\n", &[], &[], &[&name, "`nothing`"]).await;
    case("", &["--http", "4400"], &[], &["flags: "]).await;
    case("", &["--nothing"], &[], &["--nothing"]).await;
    case("", &[], &[("TOOLGAUGE_WAL_RETAIN", "1GB")], &["TOOLGAUGE_WAL_RETAIN", "\"1GB\" is no size"]).await;
    let mut command = program();
    command.args(["serve", "--config", "/nothing/at/all.toml"]);
    let (code, _, stderr) = run(command).await;
    assert!(code == 2 && stderr.contains("read the configuration \"/nothing/at/all.toml\""), "{code}: {stderr}");
    let (code, _, stderr) = run({
        let mut command = program();
        command.arg("srve");
        command
    })
    .await;
    assert!(code == 2 && stderr.contains("srve"), "{code}: {stderr}");
}
